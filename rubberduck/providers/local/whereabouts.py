"""Where a local model's engine is now: the one thing that the provider and the engine's actor share."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from rubberduck.providers.local.process import Endpoint, EngineFailed, EngineProcess, EngineSettings

LOOK_AGAIN_S = 0.02


class Engine:
    """The engine of one model through all its lives; each life is a process on another port.

    `start`, `wait` and `stop` are for one loop, that of the engine's actor (or of a program without a tree).
    `endpoint` and `kill` may be used from any loop or thread. `shows_tools` is what the latest life said of its model.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._process: EngineProcess | None = None
        self._endpoint: Endpoint | None = None
        self.shows_tools = True

    @property
    def pid(self) -> int | None:
        """The process id of the present life."""
        return self._process.pid if self._process else None

    async def start(self) -> Endpoint:
        """Begin a life. What an earlier one left behind, because it was not ended in order, is killed first."""
        self.kill()
        process = EngineProcess(self.settings)
        self._process = process
        self._endpoint = endpoint = await process.start()
        self.shows_tools = endpoint.shows_tools
        return endpoint

    async def wait(self) -> EngineFailed:
        """Wait for the end of this life; the error that tells of it."""
        assert self._process is not None
        process, endpoint = self._process, self._endpoint
        code = await process.wait()
        if self._endpoint is endpoint:
            self._endpoint = None
        return process.died(code)

    async def stop(self) -> None:
        """End this life in order. Idempotent."""
        self._endpoint = None
        if self._process is not None:
            await self._process.stop()

    def kill(self) -> None:
        """End this life at once. Idempotent."""
        self._endpoint = None
        if self._process is not None:
            self._process.kill()

    async def endpoint(self, patience: float) -> Endpoint:
        """Where to ask now; waits up to `patience` seconds for an engine that is starting again.

        Raises:
            EngineFailed: it did not come back in that time; nothing was sent.
        """
        if (found := self._here()) is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    while (found := self._here()) is None:  # noqa: ASYNC110 - simpler than waking other loops
                        await asyncio.sleep(LOOK_AGAIN_S)
        if found is None:
            raise EngineFailed(
                f"the engine for {self.settings.model_path} is not running; see why with `rubberduck doctor`",
                phase="not_sent",
            )
        return found

    def _here(self) -> Endpoint | None:
        process = self._process  # first the process, then the endpoint: an old endpoint never goes with a new process
        endpoint = self._endpoint
        return None if process is None or process.has_ended else endpoint
