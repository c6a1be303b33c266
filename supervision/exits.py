"""How an incarnation can end: one frozen record per kind of end.

Reasons keep text instead of exceptions: an exception pins the frames it came through.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Normal:
    """The actor stopped by itself: it had done its work, or was told to stop by `stop()`."""

    def __str__(self) -> str:
        return "normal"


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Its supervisor, or the system, asked it to stop; `info` says more where there is more to say."""

    info: Any = None

    def __str__(self) -> str:
        return "shutdown" if self.info is None else f"shutdown: {self.info}"


@dataclass(frozen=True, slots=True)
class Crash:
    """An exception left a handler or a hook."""

    type: str
    message: str
    traceback_text: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Crash:
        """The record of `error`; reading its text may itself fail and must not."""
        try:
            message = str(error)
        except BaseException:  # a broken __str__ must not hide the crash itself
            message = "<no text: str() of the error failed>"
        try:
            text = "".join(traceback.format_exception(error, limit=-20))
        except BaseException:
            text = ""
        return cls(type(error).__name__, message, text)

    def __str__(self) -> str:
        return f"crash: {self.type}: {self.message}"


@dataclass(frozen=True, slots=True)
class Killed:
    """It was cancelled by force."""

    def __str__(self) -> str:
        return "killed"


@dataclass(frozen=True, slots=True)
class StartFailed:
    """Its constructor or `on_start` failed; `cause` is a Crash, or another reason."""

    cause: Any

    def __str__(self) -> str:
        return f"start failed: {self.cause}"


@dataclass(frozen=True, slots=True)
class StartTimeout:
    """It did not finish `on_start` within `seconds`."""

    seconds: float

    def __str__(self) -> str:
        return f"not started within {self.seconds} s"


@dataclass(frozen=True, slots=True)
class Abandoned:
    """It could not be stopped and was left behind, fenced off. `kind` says why."""

    kind: str

    def __str__(self) -> str:
        return f"abandoned: {self.kind}"


@dataclass(frozen=True, slots=True)
class Failure:
    """One link in a chain of causes: `path` failed with `reason`."""

    path: str
    reason: Any

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class GaveUp:
    """A supervisor's restarts were exhausted. `chain` leads from the first failure to this one."""

    chain: tuple[Failure, ...]

    def __str__(self) -> str:
        return "gave up: " + " <- ".join(str(link) for link in reversed(self.chain))


@dataclass(frozen=True, slots=True)
class FailedToStart:
    """The `info` of a supervisor's Shutdown when its child `id` could not be started."""

    id: str
    reason: Any

    def __str__(self) -> str:
        return f"child {self.id!r} failed to start: {self.reason}"


@dataclass(frozen=True, slots=True)
class NoProc:
    """There was nobody under that name."""

    def __str__(self) -> str:
        return "no such actor"


@dataclass(frozen=True, slots=True)
class ForkLost:
    """It lives in the parent of a forked process, not in this one."""

    def __str__(self) -> str:
        return "left behind in the parent process by fork"


Reason = Normal | Shutdown | Crash | Killed | StartFailed | StartTimeout | Abandoned | GaveUp | NoProc | ForkLost


def is_orderly(reason: Reason) -> bool:
    """True for ends that nothing went wrong in: a transient child is then not restarted."""
    return isinstance(reason, Normal | Shutdown)


def is_stuck(reason: Reason) -> bool:
    """True for the end of somebody who did not come back from a message: what it did with it is unknown."""
    return isinstance(reason, Abandoned) or (isinstance(reason, Crash) and reason.type == "Stuck")


@dataclass(frozen=True, slots=True)
class Exit:
    """The one record of an incarnation's end. `at` is the system clock's monotonic time, in seconds."""

    path: str
    epoch: int
    reason: Reason
    at: float
