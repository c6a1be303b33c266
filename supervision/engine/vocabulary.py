"""The vocabulary of the engine: what a supervisor hears, what it is asked, what it does, what it answers.

Every value is frozen. `epoch` numbers the incarnations of one child: an event of an old epoch changes nothing.
A `key` names one timer; its first element says what for, and nobody but the engine need read the rest.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervision.exits import Reason
from supervision.specs.child import ChildSpec, Kind
from supervision.specs.strategy import SupervisorOptions

TimerKey = tuple[Hashable, ...]


# Requests: what can be asked of a supervisor.


@dataclass(frozen=True, slots=True)
class StartChild:
    """Add this child and start it. `last_epoch`: the last epoch its name has had, if it lived here before."""

    spec: ChildSpec
    last_epoch: int = 0


@dataclass(frozen=True, slots=True)
class RestartChild:
    """Start a stopped child again."""

    id: str


@dataclass(frozen=True, slots=True)
class TerminateChild:
    """Stop a child, or its retries."""

    id: str


@dataclass(frozen=True, slots=True)
class DeleteChild:
    """Forget the spec of a stopped child."""

    id: str


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """List the children, newest first."""


@dataclass(frozen=True, slots=True)
class CountChildren:
    """Count the children."""


@dataclass(frozen=True, slots=True)
class GetChildSpec:
    """Give back the spec of a child."""

    id: str


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Live by other options and specs from now on; running children are kept, new ones not started."""

    options: SupervisorOptions
    specs: tuple[ChildSpec, ...]
    last_epochs: Mapping[str, int] = field(default_factory=dict)


Request = (
    StartChild
    | RestartChild
    | TerminateChild
    | DeleteChild
    | WhichChildren
    | CountChildren
    | GetChildSpec
    | Reconfigure
)


# Events: what the shell tells the engine.


@dataclass(frozen=True, slots=True)
class StartAll:
    """The supervisor itself is being started: start the children, left to right."""


@dataclass(frozen=True, slots=True)
class ChildStarted:
    """`on_start` is done; `info` is what it returned."""

    id: str
    epoch: int
    info: Any = None


@dataclass(frozen=True, slots=True)
class ChildIgnored:
    """`on_start` returned IGNORE and the incarnation is gone."""

    id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ChildStartFailed:
    """Construction or `on_start` failed and the incarnation is gone; no ChildExited follows."""

    id: str
    epoch: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class ChildExited:
    """The incarnation is gone, or has been abandoned.

    Exits with one cause outside the children, such as a lost scheduler, carry the same `incident` and count once.
    """

    id: str
    epoch: int
    reason: Reason
    incident: Hashable = None


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer armed by ArmTimer is due."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Call:
    """Somebody asks; exactly one Reply with the same token follows, now or later."""

    token: Any
    request: Request


@dataclass(frozen=True, slots=True)
class ShutdownRequested:
    """Stop the children and end with `reason`."""

    reason: Reason


Event = StartAll | ChildStarted | ChildIgnored | ChildStartFailed | ChildExited | TimerFired | Call | ShutdownRequested


# Effects: what the engine tells the shell to do, in this order.


@dataclass(frozen=True, slots=True)
class Start:
    """Start incarnation `epoch` (the name opens if it was closed); answer Started, Ignored or StartFailed.

    `restart_reason` is why the previous incarnation ended, None at a first or manual start. `attempt` is 0 there, and
    n for the n-th try of this restart.
    """

    id: str
    epoch: int
    spec: ChildSpec
    restart_reason: Reason | None
    attempt: int


@dataclass(frozen=True, slots=True)
class RequestStop:
    """Ask the incarnation, starting or running, to stop; answer ChildExited or ChildStartFailed when it is gone."""

    id: str
    epoch: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Kill:
    """End the incarnation by force, or abandon it; answer ChildExited in any case, and soon."""

    id: str
    epoch: int


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """Send TimerFired(key) in `delay` seconds.

    A delay of 0 reads no clock: it means the supervisor's own mailbox, behind what already waits there.
    """

    key: TimerKey
    delay: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """The timer is not needed any more; if it still fires nothing happens."""

    key: TimerKey


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a Call."""

    token: Any
    value: Answer


@dataclass(frozen=True, slots=True)
class Emit:
    """Something an operator may want to know: child_restarted, child_start_failed, backoff, paused, exhausted,
    dropped, shutdown_error."""

    name: str
    id: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Hold:
    """The incarnation is gone but another will follow: the name stays open and its mailbox collects."""

    id: str


@dataclass(frozen=True, slots=True)
class Close:
    """No incarnation will follow: the name's mailbox is closed. A later Start, if any, opens it anew.

    `forgotten`: the supervisor no longer has the spec either.
    """

    id: str
    forgotten: bool


@dataclass(frozen=True, slots=True)
class StartedAll:
    """Every child has been started: the supervisor's own start is done."""


@dataclass(frozen=True, slots=True)
class Finish:
    """All children are gone; the supervisor ends with `reason`. No effect follows but refusals of late calls."""

    reason: Reason


Effect = Start | RequestStop | Kill | ArmTimer | CancelTimer | Reply | Emit | Hold | Close | StartedAll | Finish


# Answers: the values of replies.


@dataclass(frozen=True, slots=True)
class Started:
    """It runs; `id` is None if `on_start` returned IGNORE, so that there is nothing to refer to."""

    id: str | None
    info: Any = None


@dataclass(frozen=True, slots=True)
class AlreadyStarted:
    """A child of this id runs."""

    id: str


@dataclass(frozen=True, slots=True)
class AlreadyPresent:
    """There is a spec of this id, but it does not run."""


@dataclass(frozen=True, slots=True)
class StartError:
    """The child could not be started."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class MaxChildren:
    """There are as many children as there may be."""


@dataclass(frozen=True, slots=True)
class Running:
    """Refused: the child runs."""


@dataclass(frozen=True, slots=True)
class Restarting:
    """Refused: the child is being restarted."""


@dataclass(frozen=True, slots=True)
class NotFound:
    """There is no such child."""


@dataclass(frozen=True, slots=True)
class Ok:
    """Done."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The spec or option is wrong for this supervisor; nothing was changed."""

    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The supervisor is ending, or has ended, for `reason`, and does not do it any more."""

    reason: Reason


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child: `state` is "running", "restarting" or "stopped"."""

    id: str
    state: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Outlook:
    """How one child stands, for who only watches: its latest epoch, its phase, the tries of the restart under way.

    `timer` is the one that is armed for it, such as that of its next try; `reason` why its last incarnation ended,
    `shutdown` how it is to be stopped.
    """

    epoch: int
    phase: str
    attempt: int
    timer: TimerKey | None
    reason: Reason | None
    shutdown: object


@dataclass(frozen=True, slots=True)
class Counts:
    """How many specs there are, how many run, and how many are supervisors and workers."""

    specs: int
    active: int
    supervisors: int
    workers: int


Answer = (
    Started
    | AlreadyStarted
    | AlreadyPresent
    | StartError
    | MaxChildren
    | Running
    | Restarting
    | NotFound
    | Ok
    | Refused
    | Ended
    | Counts
    | ChildSpec
    | tuple[ChildInfo, ...]
)
