"""Starts the engine of a local model as a child process, says where it is, and ends it for certain."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rubberduck.errors import ServiceUnavailable

ENGINE_FILE = Path(__file__).with_name("engine.py")
LOG_BYTES_KEPT = 16 * 1024
LOG_LINES_TOLD = 1
TERMINATE_GRACE_S = 2.0

_LOG_PREFIX = re.compile(r"^[\d.]+\s+[A-Z]\s+")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to run a model: `slots` answers at once, each of at most `context_tokens`; `threads` None is `spare_cores`.

    `sampling` are the engine's defaults for requests that name none. `template` replaces the one in the model's file.
    `pooling` makes it give embeddings too: "mean", "cls" or "last", or "model" for what the file says.
    """

    model_path: str
    alias: str
    slots: int = 2
    context_tokens: int = 4096
    threads: int | None = None
    sampling: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    pooling: str | None = None


def spare_cores() -> int:
    """How many threads an engine gets by default: one core stays free, eight are enough for small models.

    Its threads wait for each other by spinning. Where another program wants a core too, one thread too many is fatal:
    measured on two busy cores, two threads wrote 3 tokens a second and one wrote 50 to 120.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores - 1))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an engine listens, who may ask, how long it took to load, and whether its model is shown tools."""

    base_url: str
    key: str = field(repr=False)
    load_s: float = 0.0
    shows_tools: bool = True


class EngineFailed(ServiceUnavailable):
    """The engine of a local model did not start, or died."""


class EngineProcess:
    """One child process with one model.

    Every method but `kill` belongs to the loop that called `start`. `kill` may be called from anywhere, at any time.
    A child whose parent dies ends by itself; see `engine`.
    """

    def __init__(self, settings: EngineSettings) -> None:
        self.settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._log = bytearray()
        self._log_reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The child's process id, None before `start`."""
        return self._process.pid if self._process else None

    @property
    def has_ended(self) -> bool:
        """Whether the child is gone; on Linux known before its loop hears of it. For any thread."""
        if self._process is None or self._process.returncode is not None:
            return True
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return Path("/proc/self/stat").exists()
        return stat.rpartition(")")[2].split()[0] in "ZX"  # a zombie, whose port is closed already

    async def start(self, timeout: float = 120.0) -> Endpoint:
        """Load the model and say where it is served; a failed or cancelled start leaves no process.

        Raises:
            EngineFailed: with the end of the engine's log.
        """
        key = secrets.token_urlsafe(32)
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", str(ENGINE_FILE)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
            start_new_session=True,  # Ctrl-C in a terminal is for the parent, which then ends its child in order
        )
        self._log_reader = asyncio.create_task(self._keep_log(process))
        try:
            async with asyncio.timeout(timeout):
                return await self._introduce(process, key)
        except TimeoutError:
            await self.stop(grace=0)
            raise self._failure(f"was not ready within {timeout:g} s") from None
        except BaseException:
            self.kill()
            raise

    async def _introduce(self, process: asyncio.subprocess.Process, key: str) -> Endpoint:
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):  # a child that died at once is reported below
            process.stdin.write(json.dumps(self._order(key)).encode() + b"\n")
            await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._failure(_ending(await self.wait()))
        report = json.loads(line)
        if "error" in report:
            await self.wait()
            raise self._failure(f"could not load it: {report['error']}")
        url = f"http://127.0.0.1:{report['port']}/v1"
        return Endpoint(url, key, report["load_s"], report["shows_tools"])

    def _order(self, key: str) -> dict[str, Any]:
        return asdict(self.settings) | {"key": key, "threads": self.settings.threads or spare_cores()}

    async def _keep_log(self, process: asyncio.subprocess.Process) -> None:
        """Read the engine's stderr to its end, so that it never blocks on a full pipe."""
        assert process.stderr is not None
        while chunk := await process.stderr.read(65536):
            self._log = (self._log + chunk)[-LOG_BYTES_KEPT:]

    async def wait(self) -> int:
        """Wait for the child's end; its exit code, negative for a signal."""
        assert self._process is not None
        code = await self._process.wait()
        if self._log_reader:
            await asyncio.wait([self._log_reader], timeout=1.0)
        return code

    async def stop(self, grace: float = TERMINATE_GRACE_S) -> None:
        """End the child: close its lifeline, ask it to terminate, after `grace` seconds kill it. Idempotent."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        if grace > 0:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        self.kill()
        await self.wait()

    def kill(self) -> None:
        """End the child at once, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def died(self, code: int) -> EngineFailed:
        """The error that tells of the child's end."""
        return self._failure(_ending(code))

    def _failure(self, what: str) -> EngineFailed:
        return EngineFailed(f"the engine for {self.settings.model_path} {what}{self._last_words()}", phase="not_sent")

    def _last_words(self) -> str:
        """What the log says of the matter: its errors where it names some, else its last lines."""
        lines = [_LOG_PREFIX.sub("", line.strip()) for line in self._log.decode(errors="replace").splitlines()]
        lines = list(dict.fromkeys(line for line in lines if line))
        errors = [line for line in lines if "error" in line.lower()]
        told = errors[:LOG_LINES_TOLD] or lines[-LOG_LINES_TOLD:]
        return f" ({' | '.join(told)})" if told else ""


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
