"""The children of one supervisor as the engine sees them, and the few things that can be done to one of them.

A child is in one phase at a time, and every change of phase passes through `Roster.enter`:

    STOPPED  -> STARTING                     a first start, a call, a batch
    STARTING -> RUNNING | STOPPED | WAITING  acknowledged | ignored, failed | failed, to be tried again
    STARTING -> STOPPING                     asked to stop, or its start took too long
    RUNNING  -> EXITED                       it ended by itself; decided at once unless a sequence is under way
    RUNNING  -> STOPPING                     it was asked to stop
    EXITED   -> STARTING | WAITING | STOPPED
    STOPPING -> STOPPED | WAITING            gone | gone after a start that took too long
    WAITING  -> STARTING | STOPPED           the retry, backoff or pause is over | stopped meanwhile
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from supervision.engine.intensity import Intensity
from supervision.engine.vocabulary import (
    ArmTimer,
    CancelTimer,
    Close,
    Effect,
    Emit,
    Hold,
    Kill,
    Reply,
    RequestStop,
    Start,
    TimerKey,
)
from supervision.exits import Reason, Shutdown
from supervision.specs.child import BRUTAL_KILL, ChildSpec, Restart, Strategy, SupervisorOptions, validate_children


class Phase(Enum):
    """Where a child is between two starts."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    EXITED = "exited"
    STOPPING = "stopping"
    WAITING = "waiting"


class Purpose(Enum):
    """On whose behalf a child is being started or stopped: who must hear when it is done."""

    FIRST = "the supervisor's own start"
    CALL = "a call"
    RESTART = "its own restart"
    BATCH = "a restart of several"
    SHUTDOWN = "the supervisor's end"


_IN_TRANSIT: Final = frozenset((Phase.STARTING, Phase.STOPPING))


@dataclass(slots=True, eq=False)
class Child:
    """One child: its spec, and what the engine remembers about it between two events."""

    spec: ChildSpec
    epoch: int = 0
    phase: Phase = Phase.STOPPED
    purpose: Purpose = Purpose.FIRST
    token: Any = None  # of the call that waits for this start or stop
    is_new: bool = False  # its start_child is not answered: nobody can have heard of it
    is_open: bool = False  # its name takes messages
    reason: Reason | None = None  # why the last incarnation ended
    incident: Hashable = None
    verdict: Reason | None = None  # it is being killed because its start failed for this
    timer: TimerKey | None = None  # the one that is armed for it
    attempt: int = 0
    backoff_step: int = 0
    steady_since: float = 0.0

    @property
    def id(self) -> str:
        return self.spec.id

    @property
    def restart(self) -> Restart:
        return Restart(self.spec.restart)

    @property
    def is_restarting(self) -> bool:
        """True while a restart of it alone is being tried, or waits to be."""
        return self.phase is Phase.WAITING or (self.phase in _IN_TRANSIT and self.purpose is Purpose.RESTART)


class Roster:
    """All children of one supervisor in start order, and the effects of what is done to them."""

    def __init__(
        self, options: SupervisorOptions, specs: Iterable[ChildSpec], epochs: Mapping[str, int], *, is_dynamic: bool
    ) -> None:
        specs = tuple(specs)
        validate_children(specs, options)
        self.options = options
        self.is_dynamic = is_dynamic
        self.intensity = Intensity(options.max_restarts, options.max_seconds)
        self.children = {spec.id: Child(spec, epochs.get(spec.id, 0)) for spec in specs}
        self.effects: list[Effect] = []
        self.in_transit = 0
        self.expected: dict[str, int] = {}
        """Ids that waiting calls may start, and the last epoch of a child of that id removed meanwhile."""
        self._significant: set[str] = set()
        self._standing_by: set[str] = set()

    @property
    def is_grouped(self) -> bool:
        """True if one child's failure concerns others."""
        return self.options.strategy is not Strategy.ONE_FOR_ONE

    @property
    def has_significant(self) -> bool:
        """True while a significant child runs, or may yet."""
        return bool(self._significant)

    def current(self, child_id: str, epoch: int) -> Child | None:
        """The child if `epoch` is its latest incarnation."""
        child = self.children.get(child_id)
        return child if child is not None and child.epoch == epoch else None

    def add(self, spec: ChildSpec, epoch: int) -> Child:
        """A child not started yet, behind all others."""
        child = self.children[spec.id] = self.made(spec, epoch)
        return child

    def made(self, spec: ChildSpec, epoch: int) -> Child:
        """A child whose name had lived through `epoch` when it was asked for, perhaps through more since."""
        return Child(spec, max(epoch, self.expected.get(spec.id, 0)))

    def from_child_on(self, child: Child) -> list[Child]:
        """`child` and those behind it, in start order; costs no more than they are."""
        tail: list[Child] = []
        for other in reversed(self.children.values()):
            tail.append(other)
            if other is child:
                break
        tail.reverse()
        return tail

    def newest_first(self) -> Iterator[Child]:
        """All children anybody can have heard of, the last added first."""
        return (child for child in reversed(self.children.values()) if not child.is_new)

    def enter(self, child: Child, phase: Phase) -> None:
        """The one place where a phase changes."""
        self.in_transit += (phase in _IN_TRANSIT) - (child.phase in _IN_TRANSIT)
        child.phase = phase
        self._standing_by.discard(child.id)
        if child.spec.significant and phase is not Phase.STOPPED:
            self._significant.add(child.id)
        else:
            self._significant.discard(child.id)

    def start(self, child: Child, purpose: Purpose, token: Any = None) -> None:
        """Begin the next incarnation."""
        child.epoch += 1
        child.purpose, child.token = purpose, token
        is_restart = purpose in (Purpose.RESTART, Purpose.BATCH)
        child.attempt = child.attempt + 1 if is_restart else 0
        child.is_open = True
        self.enter(child, Phase.STARTING)
        reason = child.reason if is_restart else None
        self.effects.append(Start(child.id, child.epoch, child.spec, reason, child.attempt))
        self._arm_if_seconds(child, "start", child.spec.start_timeout)

    def stop(self, child: Child, purpose: Purpose, token: Any = None, *, timed: bool = True) -> None:
        """Begin the end of an incarnation that starts, runs, or is being stopped on other grounds."""
        child.purpose, child.token, child.verdict = purpose, token, None
        if child.phase is Phase.STOPPING:
            return
        self.disarm(child)
        self.enter(child, Phase.STOPPING)
        if child.spec.shutdown == BRUTAL_KILL:
            self.effects.append(Kill(child.id, child.epoch))
            return
        self.effects.append(RequestStop(child.id, child.epoch, Shutdown()))
        if timed:
            self._arm_if_seconds(child, "stop", child.spec.shutdown)

    def kill_unstarted(self, child: Child, verdict: Reason) -> None:
        """Its start took too long: once it is gone, that is a failed start for the reason `verdict`."""
        child.verdict = verdict
        self.enter(child, Phase.STOPPING)
        self.effects.append(Kill(child.id, child.epoch))

    def wait(self, child: Child, what_for: str, delay: float) -> None:
        """Restarting, but not before `delay` seconds are over."""
        child.purpose = Purpose.RESTART
        self.enter(child, Phase.WAITING)
        self._arm(child, what_for, delay)

    def hold(self, child: Child) -> None:
        """Keep the name open between two incarnations."""
        self.effects.append(Hold(child.id))

    def stand_by(self, child: Child) -> None:
        """Stopped, to be started again with its batch; temporary children are not."""
        if child.restart is Restart.TEMPORARY:
            self.remove(child)
            return
        self.disarm(child)
        if child.phase is not Phase.STOPPED:
            self.hold(child)
        self.enter(child, Phase.STOPPED)
        self._standing_by.add(child.id)

    def retire(self, child: Child) -> None:
        """Stopped for good, unless somebody asks: the spec stays, except where no rule could use it again."""
        if self.is_dynamic or child.restart is Restart.TEMPORARY:
            self.remove(child)
        else:
            self.shelve(child)

    def shelve(self, child: Child) -> None:
        """Stopped, its name closed, its spec kept."""
        self.disarm(child)
        self.enter(child, Phase.STOPPED)
        self.close(child)

    def remove(self, child: Child) -> None:
        """Gone altogether."""
        self.disarm(child)
        self.enter(child, Phase.STOPPED)
        del self.children[child.id]
        if child.id in self.expected:
            self.expected[child.id] = child.epoch
        child.is_open = False
        self.effects.append(Close(child.id, forgotten=True))

    def close(self, child: Child) -> None:
        """Close its name if it is open."""
        if child.is_open:
            child.is_open = False
            self.effects.append(Close(child.id, forgotten=False))

    def close_stranded(self) -> None:
        """Close the names that stood by for a restart which has been called off."""
        if not self._standing_by or any(child.phase is Phase.WAITING for child in self.children.values()):
            return
        for child in self.children.values():
            if child.phase is Phase.STOPPED:
                self.close(child)
        self._standing_by.clear()

    def disarm(self, child: Child) -> None:
        """Cancel the timer that is armed for it, if any."""
        if child.timer is not None:
            self.effects.append(CancelTimer(child.timer))
            child.timer = None

    def reply(self, child: Child, value: Any) -> None:
        """Answer the call that waits for `child`, if there is one."""
        if child.token is not None:
            self.effects.append(Reply(child.token, value))
            child.token = None

    def emit(self, name: str, child: Child, **fields: Any) -> None:
        """Tell the operator."""
        self.effects.append(Emit(name, child.id, {"epoch": child.epoch, **fields}))

    def _arm_if_seconds(self, child: Child, what_for: str, delay: Any) -> None:
        if isinstance(delay, float):  # else it is INFINITY
            self._arm(child, what_for, delay)

    def _arm(self, child: Child, what_for: str, delay: float) -> None:
        child.timer = (what_for, child.id, child.epoch)
        self.effects.append(ArmTimer(child.timer, delay))
