"""A timer on a scheduler's loop that outlives the loop's thread, should that never come back."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervision.hosting.scheduler import Scheduler


class LoopTimer:
    """A `loop.call_at`, arranged on the loop's own thread; any thread may cancel it.

    While it is due it stands in its scheduler's `timers`. Whoever takes it out there, to make the call, to take it
    back or to move it elsewhere, has it for himself: the call is made once at most.
    """

    __slots__ = ("_callback", "_handle", "_scheduler", "_when")

    def __init__(self, scheduler: Scheduler, when: float, callback: Callable[[], object]) -> None:
        self._when = when
        self._callback: Callable[[], object] | None = callback
        self._handle: asyncio.TimerHandle | None = None
        self._arm(scheduler)

    def _arm(self, scheduler: Scheduler) -> None:
        if self._callback is None:  # cancelled on its way to another scheduler
            return
        self._scheduler = scheduler
        scheduler.timers[self] = None
        self._handle = scheduler.loop.call_at(self._when, self._fire, scheduler, context=contextvars.Context())
        if scheduler.is_abandoned:  # in this very moment, so that nobody may have seen it there
            self.move(scheduler, scheduler.present)

    def _fire(self, scheduler: Scheduler) -> None:
        if scheduler.timers.pop(self, self) is self:
            return
        callback, self._callback, self._handle = self._callback, None, None
        if callback is not None:
            callback()

    def move(self, old: Scheduler, new: Scheduler) -> None:
        """Make the call on `new`, as `old` may never come to it. From any thread."""
        if old.timers.pop(self, self) is not self:
            new.post(self._arm, new)

    def cancel(self) -> None:
        self._callback = None
        scheduler, handle = self._scheduler, self._handle
        if scheduler.timers.pop(self, self) is self or handle is None:
            return
        self._handle = None
        if scheduler.is_current:
            handle.cancel()
        else:
            scheduler.post(handle.cancel)
