"""Snapshots: the actor's state as it was a moment ago, kept in memory for the incarnation after it.

A snapshot is taken between two messages, never after a handler that crashed, so that what is handed on is whole. What
was handled since the last one is lost in a crash; to lose nothing at all, keep an event log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from supervision import faults
from supervision.exits import Crash, Exit, Reason, is_orderly
from supervision.specs.child import Snapshot
from supervision.state.keeping import Keeper, Keeping, Probation, QuietPoint, check_state, tell_of_quarantine

if TYPE_CHECKING:
    from supervision.clock import Timer
    from supervision.incarnation import Incarnation


class SnapshotKeeper(Keeper):
    """Keeps the last snapshot of a name in this process; it goes when the name is closed for good."""

    kind = "snapshot"

    def begin(self, incarnation: Incarnation) -> Keeping:
        super().begin(incarnation)
        return SnapshotKeeping(self, incarnation)

    def set_aside(self) -> Any:
        """Hand the kept snapshot on no more, but keep it for inspection."""
        self.quarantined = self.forget()
        return self.quarantined


class SnapshotKeeping(Keeping):
    """Takes the snapshots of one life.

    A `snapshot()` that raises crashes the actor as a handler would: one that cannot tell its state may no longer have
    a good one, and to go on would leave an ever older snapshot to the next incarnation, unnoticed.
    """

    def __init__(self, keeper: SnapshotKeeper, own: Incarnation) -> None:
        self._keeper = keeper
        self._own = own
        self._spec = cast("Snapshot", keeper.spec)
        self._handled = 0
        self._last = own.name.now()
        self._timer: Timer | None = None
        self._probation = Probation(self._spec.quarantine)
        if keeper.value is not None:
            self._probation.begin(self._last)

    async def open(self) -> None:
        check_state(self._spec, type(self._own.actor), self._own.name.path)

    def handled(self) -> bool:
        self._handled += 1
        return self.is_due()

    def is_due(self) -> bool:
        if self._handled == 0:
            return False
        if self._spec.every_messages is not None and self._handled >= self._spec.every_messages:
            return True
        return self._spec.every_seconds is not None and self._is_time(self._spec.every_seconds)

    def _is_time(self, every_seconds: float) -> bool:
        """True if so long a time has passed; else a timer sees to it that an actor gone idle is not forgotten."""
        due_at = self._last + every_seconds
        if self._own.name.now() >= due_at:
            return True
        if self._timer is None:
            self._timer = self._own.name.clock.call_at(due_at, self._come_to_a_quiet_point)
            self._own.when_over(self, self._disarm)
        return False

    def _come_to_a_quiet_point(self) -> None:
        """Called on any thread. An order goes in between two messages, and wakes who has none."""
        self._own.name.mailbox.put_order(self._own.lease, QuietPoint(self))

    def _disarm(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    async def quiet_point(self) -> None:
        self._disarm()
        if self.is_due():
            await self.keep()

    async def keep(self) -> None:
        own = self._own
        own.work.begin_turn()
        try:
            state = await own._call(own.actor.snapshot)
            if faults.armed:
                await faults.hit("snapshot_write", own.name.path)
        except Exception as error:  # told of, and then a crash like any other
            if (system := own.name.system) is not None:
                system.emit("snapshot_failed", own.name.path, epoch=own.epoch, reason=Crash.of(error))
            raise
        self._keeper.leave(own, state)
        self._handled = 0
        self._last = own.name.now()
        self._disarm()

    async def before_stop(self, reason: Reason) -> Reason:
        """After an orderly end the state is good: nothing is lost by it. A failure counts as one of `on_stop`."""
        system = self._own.name.system
        if self._handled == 0 or not is_orderly(reason) or (system is not None and system.stopping.has_begun):
            return reason
        try:
            await self.keep()
        except Exception as error:  # `on_stop` must have its turn all the same
            self._own._note_failed_hook("snapshot", error)
            return Crash.of(error)
        return reason

    def ended(self, exit: Exit) -> None:
        if self._probation.condemns(exit):
            tell_of_quarantine(self._own, exit, self._keeper.set_aside())
