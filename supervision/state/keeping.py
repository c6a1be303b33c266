"""What one life leaves to the next behind the same name: the one place where state survives a restart.

A `Keeper` belongs to the name and outlives incarnations; a `Keeping` is one incarnation's part in it and ends with
it. What an old incarnation still says once a new one has begun is not listened to.

State that was handed over is under suspicion for a while: an actor that crashes within `quarantine` seconds of it
may well crash of it, so the next one starts fresh, and the bad state is set aside where it can be looked at.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from supervision.errors import SpecError
from supervision.exits import Abandoned, Crash, Exit, Reason, StartFailed
from supervision.specs.child import EventLog, Fresh, Snapshot, StateSpec

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import Name

logger = logging.getLogger("supervision")

_NEEDED: dict[type[Any], tuple[str, str] | None] = {
    type(None): None,
    Fresh: None,
    Snapshot: ("snapshot", "snapshot(...)"),
    EventLog: ("apply", "event_log(...)"),
}

NO_LOG = "record() needs state=event_log(path) in the actor's child spec"

_lock = threading.Lock()
"""Held for an assignment or two, while a life that is over might leave something all the same."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a name keeps for its next incarnation, for those who look at the tree.

    `kind` is remembered, snapshot or event_log. `at` is when a value was kept, by the system's clock, None if there
    is none; `entries` how many the log has. `quarantined` is what a crash soon after its restore has condemned: the
    value, or the path that the log was moved to.
    """

    kind: str
    at: float | None = None
    entries: int | None = None
    quarantined: Any = None

    def __str__(self) -> str:
        """In the words of a drawn tree: nothing, where an actor only remembers something in passing."""
        state = "" if self.kind == "remembered" else self.kind.replace("_", " ")
        size = "" if self.entries is None else f" {self.entries}"
        return state + size + (", bad state set aside" if self.quarantined is not None else "")

    def to_dict(self) -> dict[str, Any]:
        """What `json.dumps` takes; of a value that was set aside the name of its type, of a log its path."""
        bad = self.quarantined
        named = str(bad) if isinstance(bad, PurePath) else type(bad).__name__
        return {
            "kind": self.kind,
            "at": self.at,
            "entries": self.entries,
            "quarantined": None if bad is None else named,
        }


class Keeping:
    """One life's part in keeping state. All of it is called on the host of that life, `ended` on any thread."""

    async def open(self) -> None:
        """Before `on_start`: whatever must be had, or else the actor cannot start."""

    async def replay(self) -> None:
        """After the start, before `recover()` and any message: bring back what was recorded."""

    def handled(self) -> bool:
        """A message has been handled well, and answered. True if it is time to `keep` now."""
        return False

    async def keep(self) -> None:
        """Between two messages: keep the state as it is now."""

    async def quiet_point(self) -> None:
        """Between two messages, asked for by a timer: keep what there is to keep, if it is time."""

    async def before_stop(self, reason: Reason) -> Reason:
        """The actor is about to end for `reason`, before its `on_stop`. Returns the reason it ends for after this."""
        return reason

    def record(self, entry: Any) -> None:
        """Append `entry` to the log.

        Raises:
            RuntimeError: there is none.
        """
        raise RuntimeError(NO_LOG)

    def ended(self, exit: Exit) -> None:
        """This life is over; the next has not begun."""


@dataclass(frozen=True, slots=True)
class QuietPoint:
    """An order to an actor that may have gone idle: between two messages, keep what there is to keep."""

    keeping: Keeping


class Keeper:
    """Keeps a value for the next incarnation: here, what the actor itself chose to `remember`."""

    kind = "remembered"

    def __init__(self, spec: StateSpec | None = None) -> None:
        self.spec = spec
        self.value: Any = None
        self.at: float | None = None
        self.quarantined: Any = None
        self._epoch = 0

    def begin(self, incarnation: Incarnation) -> Keeping | None:
        """From here on only this life may leave anything. None if it need not be told how that life goes."""
        with _lock:
            self._epoch = incarnation.epoch
        return None

    def leave(self, incarnation: Incarnation, value: Any) -> None:
        """Have the next incarnation find `value`, unless this one has no say any more."""
        now = incarnation.name.now()
        with _lock:
            if incarnation.exit is None and incarnation.epoch == self._epoch:
                value, self.value = self.value, value  # the old one goes when the lock is free: it may have a __del__
                self.at = now

    def goes_on_with(self, spec: StateSpec | None) -> bool:
        """True if what is kept is what an actor of `spec` wants to find."""
        return True

    def forget(self) -> Any:
        """Keep the value no more, and return it."""
        with _lock:
            value, self.value, self.at = self.value, None, None
        return value

    def kept(self) -> Kept | None:
        """What there is, without asking or waiting for anybody."""
        if self.at is None and self.quarantined is None:
            return None
        return Kept(self.kind, self.at, quarantined=self.quarantined)


def kept_by(name: Name) -> Kept | None:
    """What `name` keeps for its next incarnation, if anything."""
    keeper = name.keeper
    return None if keeper is None else keeper.kept()


class Probation:
    """The `seconds` after a restore in which a crash tells against the state that was restored."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def begin(self, now: float) -> None:
        """State has been handed over now."""
        self._since = now

    def end(self) -> None:
        """Whatever goes wrong from here on has another cause."""
        self._since = None

    def condemns(self, exit: Exit) -> bool:
        """True if the actor itself crashed, and soon. To be killed, stopped or abandoned is no fault of its state."""
        return self._since is not None and exit.at - self._since < self._seconds and _is_own_crash(exit.reason)


def _is_own_crash(reason: Reason) -> bool:
    """To be stuck beyond `max_handle_time` is one too; a LinkedExit is that of another."""
    cause = reason.cause if isinstance(reason, StartFailed) else reason
    if isinstance(cause, Abandoned):
        return cause.kind.startswith("stuck")
    return isinstance(cause, Crash) and cause.type != "LinkedExit"


def tell_of_quarantine(incarnation: Incarnation, exit: Exit, what: Any) -> None:
    """One log line and one event: the next incarnation starts fresh, `what` is set aside."""
    logger.error(
        "%s (incarnation %d) crashed soon after its state was restored: the next one starts fresh",
        exit.path,
        exit.epoch,
    )
    if (system := incarnation.name.system) is not None:
        system.emit("state_quarantined", exit.path, epoch=exit.epoch, reason=exit.reason, state=what)


def check_state(spec: StateSpec | None, actor_class: type[Any], child: str) -> None:
    """Raise SpecError if actors of this class lack the method by which state of this kind is taken or brought back."""
    needed = _NEEDED[type(spec)]
    if needed is not None and not callable(getattr(actor_class, needed[0], None)):
        method, word = needed
        raise SpecError(f"child {child!r}: state={word} needs a method {method}, which {actor_class.__name__} lacks")
