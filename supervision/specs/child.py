"""How a child of a supervisor is described: its spec, its mailbox, what it remembers across restarts.

Values only: nothing here starts, waits or imports an actor. All times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

import pykka

from supervision.errors import SpecError
from supervision.specs import validation
from supervision.specs.backoff import Backoff
from supervision.specs.strategy import (
    DROP_CHILD,
    ESCALATE,
    AutoShutdown,
    OnExhausted,
    Pause,
    Restart,
    Strategy,
    SupervisorOptions,
    on_exhausted_of,
    pause,
)

__all__ = [
    "BRUTAL_KILL",
    "DROP_CHILD",
    "ESCALATE",
    "IGNORE",
    "INFINITY",
    "RESTARTING",
    "AutoShutdown",
    "Backoff",
    "Block",
    "ChildSpec",
    "EventLog",
    "Fresh",
    "Kind",
    "Mailbox",
    "OnExhausted",
    "Pause",
    "Restart",
    "ShutdownWord",
    "Signal",
    "Snapshot",
    "StateSpec",
    "Strategy",
    "SupervisorOptions",
    "block",
    "event_log",
    "fresh",
    "pause",
    "snapshot",
    "validate_children",
]

WORKER_SHUTDOWN: Final = 5.0
WORKER_START_TIMEOUT: Final = 30.0


class Kind(StrEnum):
    """Whether a child is itself a supervisor: it then gets all the time it needs to stop its own children."""

    WORKER = "worker"
    SUPERVISOR = "supervisor"


class ShutdownWord(StrEnum):
    """The two ways to stop a child that are not a number of seconds."""

    BRUTAL_KILL = "brutal_kill"
    INFINITY = "infinity"


BRUTAL_KILL: Final = ShutdownWord.BRUTAL_KILL
INFINITY: Final = ShutdownWord.INFINITY


class Signal(Enum):
    """Answers that must not be mistaken for a user's value: not even for a string."""

    IGNORE = "ignore"
    RESTARTING = "restarting"

    def __repr__(self) -> str:
        return self.name


IGNORE: Final = Signal.IGNORE
RESTARTING: Final = Signal.RESTARTING


@dataclass(frozen=True, slots=True)
class Block:
    """A full mailbox makes the sender wait, at most `timeout` seconds."""

    timeout: float


def block(timeout: float) -> Block:
    """Senders to a full mailbox wait up to `timeout` seconds for room."""
    return Block(validation.seconds(timeout, "block(timeout)"))


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Bounds and promises of one name's mailbox.

    `overflow`: "fail", "drop_new", "drop_old" or block(timeout). `on_restart`: "keep" or "drop" what is queued.
    `redeliver`: how often a message in flight at a crash comes back (idempotent handlers only). `drain`: handle what
    is queued before an orderly end.
    """

    capacity: int = 100_000
    overflow: str | Block = "fail"
    on_restart: str = "keep"
    redeliver: int = 0
    drain: bool = False

    def __post_init__(self) -> None:
        validation.count(self.capacity, "Mailbox.capacity", at_least=1)
        if not isinstance(self.overflow, Block) and self.overflow not in ("fail", "drop_new", "drop_old"):
            wanted = "'fail', 'drop_new', 'drop_old' or block(timeout)"
            raise SpecError(f"Mailbox.overflow: {self.overflow!r} is not {wanted}")
        if self.on_restart not in ("keep", "drop"):
            raise SpecError(f"Mailbox.on_restart: {self.on_restart!r} is not 'keep' or 'drop'")
        validation.count(self.redeliver, "Mailbox.redeliver")
        validation.flag(self.drain, "Mailbox.drain")


@dataclass(frozen=True, slots=True)
class Fresh:
    """Every incarnation starts with nothing."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The last snapshot survives a restart; one is taken after so many messages, or so many seconds."""

    every_messages: int | None
    every_seconds: float | None
    quarantine: float


@dataclass(frozen=True, slots=True)
class EventLog:
    """Recorded entries are replayed from the file at `path`."""

    path: Path
    quarantine: float
    sync: bool


StateSpec = Fresh | Snapshot | EventLog


def fresh() -> Fresh:
    """Nothing is remembered across restarts."""
    return Fresh()


def snapshot(
    *, every_messages: int | None = None, every_seconds: float | None = None, quarantine: float = 5.0
) -> Snapshot:
    """Keep what `actor.snapshot()` returns, so that a crash costs no more than what was handled since the last one.

    It is called after so many handled messages, or so many seconds after the last one if something was handled, also
    when nothing more comes; and before an orderly end. The next incarnation finds its value as
    `self.context.snapshot`, None at first. `snapshot` is plain or async, and returns something immutable or a copy:
    the value is kept as it is, in this process's memory. If it raises, the actor crashes, and the last one stays.

    A crash within `quarantine` seconds of a restore makes the next start fresh: the state may be what it crashed of.
    With `quarantine=0` it never does.
    """
    if every_messages is None and every_seconds is None:
        raise SpecError("snapshot(): say every_messages= or every_seconds=")
    if every_messages is not None:
        validation.count(every_messages, "snapshot(every_messages)", at_least=1)
    if every_seconds is not None:
        every_seconds = validation.seconds(every_seconds, "snapshot(every_seconds)", positive=True)
    return Snapshot(every_messages, every_seconds, validation.seconds(quarantine, "snapshot(quarantine)"))


def event_log(path: str | Path, quarantine: float = 5.0, *, sync: bool = False) -> EventLog:
    """Keep every `actor.record(entry)` in the file at `path`, and give them to `actor.apply(entry)` after a restart.

    The state is then what the entries lead to, in this process or a later one. By default an entry survives the end
    of the process, even by SIGKILL; `sync=True` has each `record` wait for the disk, milliseconds perhaps, so that it
    survives a power cut too. On a loop all neighbours wait along: give such an actor a thread, or a scheduler.

    A crash within `quarantine` seconds of a replay makes the next start fresh: the log is moved aside to
    path.quarantined-1 (or -2, ...). With `quarantine=0` it never is. What is damaged in the middle of it is moved to
    path.bad-1 and not read.
    """
    if not isinstance(path, str | Path) or not str(path):
        raise SpecError(f"event_log(path): {path!r} is not a path")
    quarantine = validation.seconds(quarantine, "event_log(quarantine)")
    return EventLog(Path(path), quarantine, validation.flag(sync, "event_log(sync)"))


@validation.shown_by_fields
@dataclass(frozen=True, slots=True)
class ChildSpec:
    """All a supervisor needs to know to start, restart and stop one child.

    `actor` is an actor class or a callable that makes one. Words are as good as enum members and are turned into
    them. `shutdown=None` is 5 seconds for a worker and INFINITY for a supervisor, `start_timeout=None` 30 seconds
    and INFINITY; the spec holds what they came to. A wrong field raises SpecError here; what only the supervisor can
    know is checked by `validate_children`.

    restart          after which ends it is started again: permanent (all), transient (abnormal ones), temporary (none)
    shutdown         seconds it has to stop; INFINITY, or BRUTAL_KILL for none at all
    significant      its end may end its supervisor: see `auto_shutdown` there
    start_timeout    seconds `on_start` may take, and INFINITY
    backoff          the waits between restarts; at once unless given
    on_exhausted     after too many restarts: ESCALATE (the supervisor gives up), pause(seconds) or DROP_CHILD
    expected_errors  exceptions that are answers, and end nobody; in the place of the class's own
    mailbox          a `Mailbox`: how many messages may wait, and what becomes of them
    scheduler        the name of an event loop to share, or a `Scheduler`; the system's `workers` unless given
    max_handle_time  seconds a handler may take before the watchdog steps in
    state            what survives a crash: fresh(), snapshot(...) or event_log(...)
    """

    id: str
    actor: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    restart: Restart | str = field(default=Restart.PERMANENT, kw_only=True)
    shutdown: float | ShutdownWord | str | None = field(default=None, kw_only=True)
    significant: bool = field(default=False, kw_only=True)
    kind: Kind | str = field(default=Kind.WORKER, kw_only=True)
    start_timeout: float | ShutdownWord | str | None = field(default=None, kw_only=True)
    backoff: Backoff | None = field(default=None, kw_only=True)
    on_exhausted: OnExhausted | str | None = field(default=None, kw_only=True)
    expected_errors: tuple[type[BaseException], ...] | None = field(default=None, kw_only=True)
    mailbox: Mailbox | None = field(default=None, kw_only=True)
    scheduler: Any = field(default=None, kw_only=True)
    max_handle_time: float | None = field(default=None, kw_only=True)
    state: StateSpec | None = field(default=None, kw_only=True)

    def __new__(cls, *args: Any, **fields: Any) -> Self:
        """Refuse unknown fields by name before `__init__` could only say TypeError."""
        name = args[0] if args else fields.get("id", "?")
        validation.known_fields(cls, args, fields, f"child {name!r}", positional=4)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for name, value in _checked(self).items():
            object.__setattr__(self, name, value)
        if self.significant and self.restart is Restart.PERMANENT:
            raise SpecError(f"child {self.id!r}: significant needs restart transient or temporary, not permanent")

    def without_arguments(self) -> ChildSpec:
        """The spec of a running temporary child: it is never started again, so its arguments need not live on."""
        return replace(self, args=(), kwargs={})


def _checked(spec: ChildSpec) -> dict[str, Any]:
    """Every field of `spec` that is checked or normalised, as it should be."""
    validation.path_part(spec.id, "child id")
    at = f"child {spec.id!r}: "
    if not callable(spec.actor):
        hint = ": give its class, each start makes a new one" if isinstance(spec.actor, pykka.Actor) else ""
        wanted = "neither an actor class nor a callable that makes an actor"
        raise SpecError(f"{at}actor {spec.actor!r} is {wanted}{hint}")
    kind = validation.member(Kind, spec.kind, f"{at}kind")
    is_worker = kind is Kind.WORKER
    return {
        "args": _arguments(spec.args, at),
        "kwargs": _keywords(spec.kwargs, at),
        "restart": validation.member(Restart, spec.restart, f"{at}restart"),
        "kind": kind,
        "shutdown": _shutdown(spec.shutdown, WORKER_SHUTDOWN if is_worker else INFINITY, at),
        "significant": validation.flag(spec.significant, f"{at}significant"),
        "start_timeout": _start_timeout(spec.start_timeout, WORKER_START_TIMEOUT if is_worker else INFINITY, at),
        "backoff": _optional(Backoff, spec.backoff, f"{at}backoff"),
        "on_exhausted": None if spec.on_exhausted is None else on_exhausted_of(spec.on_exhausted, f"{at}on_exhausted"),
        "expected_errors": _error_classes(spec.expected_errors, at),
        "mailbox": _optional(Mailbox, spec.mailbox, f"{at}mailbox"),
        "scheduler": _scheduler(spec.scheduler, f"{at}scheduler"),
        "max_handle_time": _optional_seconds(spec.max_handle_time, f"{at}max_handle_time"),
        "state": _optional(StateSpec, spec.state, f"{at}state"),
    }


def _arguments(value: Any, at: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple | list):
        raise SpecError(f"{at}args {value!r} is not a tuple")
    return tuple(value)


def _keywords(value: Any, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SpecError(f"{at}kwargs {value!r} is not a mapping from names to values")
    return MappingProxyType(dict(value))


def _shutdown(value: Any, default: float | ShutdownWord, at: str) -> float | ShutdownWord:
    if value is None:
        return default
    if isinstance(value, str):
        return validation.member(ShutdownWord, value, f"{at}shutdown (if not seconds)")
    return validation.seconds(value, f"{at}shutdown")


def _start_timeout(value: Any, default: float | ShutdownWord, at: str) -> float | ShutdownWord:
    if value is None:
        return default
    if value == INFINITY:
        return INFINITY
    return validation.seconds(value, f"{at}start_timeout", positive=True)


def _optional(kind: Any, value: Any, where: str) -> Any:
    if value is None or isinstance(value, kind):
        return value
    names = getattr(kind, "__name__", None) or "fresh(), snapshot(...) or event_log(...)"
    raise SpecError(f"{where}: {value!r} is not {names}")


def _scheduler(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return validation.path_part(value, where)
    return None if value is None else validation.with_methods(value, where, "a scheduler, or the name of one", "post")


def _optional_seconds(value: Any, where: str) -> float | None:
    return None if value is None else validation.seconds(value, where, positive=True)


def _error_classes(value: Any, at: str) -> tuple[type[BaseException], ...] | None:
    if value is None:
        return None
    classes = (value,) if isinstance(value, type) else tuple(value) if isinstance(value, tuple | list) else None
    if classes is None or not all(isinstance(each, type) and issubclass(each, BaseException) for each in classes):
        raise SpecError(f"{at}expected_errors {value!r} is not a tuple of exception classes")
    return classes


def validate_children(specs: Iterable[ChildSpec], options: SupervisorOptions) -> None:
    """Raise SpecError for what no spec can know alone: a doubled id, a rule its supervisor breaks."""
    seen: set[str] = set()
    for spec in specs:
        if not isinstance(spec, ChildSpec):
            raise SpecError(f"{spec!r} is not a ChildSpec")
        if spec.id in seen:
            raise SpecError(f"child {spec.id!r}: there is already a child of this id")
        seen.add(spec.id)
        validate_child(spec, options)


def validate_child(spec: ChildSpec, options: SupervisorOptions) -> None:
    """Raise SpecError if `spec` cannot live under a supervisor with these options."""
    if spec.significant and options.auto_shutdown is AutoShutdown.NEVER:
        raise SpecError(f"child {spec.id!r}: significant means nothing while the supervisor's auto_shutdown is never")
    if spec.on_exhausted is DROP_CHILD and options.strategy is not Strategy.ONE_FOR_ONE:
        raise SpecError(f"child {spec.id!r}: on_exhausted drop_child needs one_for_one, not {options.strategy}")
