"""The actor that keeps a local model's engine alive.

It is here and not with the other actors because the provider itself names it, as its child.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, assert_never

import supervision as sup
from rubberduck.providers.local.process import EngineFailed
from rubberduck.providers.local.whereabouts import Engine


@dataclass(frozen=True, slots=True)
class EngineEnded:
    """The engine's process has ended by itself."""

    error: EngineFailed


class LocalEngineActor(sup.Actor):
    """Starts the engine's process, and crashes when it dies, so that the supervisor starts both again.

    Why an actor: a C++ engine may crash at any time, and the restart needs a limit that a supervisor keeps.
    Asks: no one.   Restart: a new process, on another port; calls in flight fail, waiting ones wait for it.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._watch: asyncio.Task[None] | None = None

    async def on_start(self) -> None:
        await self._engine.start()
        self._watch = asyncio.create_task(self._report_the_end())

    async def _report_the_end(self) -> None:
        self.actor_ref.tell(EngineEnded(await self._engine.wait()))

    def on_receive(self, message: EngineEnded) -> Any:
        match message:
            case EngineEnded(error):
                raise error
            case _:
                assert_never(message)

    async def on_stop(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        await self._engine.stop()

    def on_failure(self, *_: Any) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._engine.kill()
