"""Time as an argument: what the clock says, and a call at a later time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervision.scheduler import Scheduler


class Timer(Protocol):
    """A call that has been arranged."""

    def cancel(self) -> None:
        """Do not make the call; without effect once it has been made."""


class Clock(Protocol):
    """Monotonic time in seconds. Callbacks may come on any thread and must be short: put a message, no more."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer: ...


class RealClock:
    """The machine's monotonic clock; callbacks are made by the loop of one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.now = time.monotonic

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        return _LoopTimer(self._scheduler, when, callback)


class _LoopTimer:
    """A `loop.call_at` that any thread may arrange and cancel."""

    __slots__ = ("_callback", "_handle", "_scheduler", "_when")

    def __init__(self, scheduler: Scheduler, when: float, callback: Callable[[], object]) -> None:
        self._scheduler = scheduler
        self._when = when
        self._callback: Callable[[], object] | None = callback
        self._handle: asyncio.TimerHandle | None = None
        scheduler.post(self._arm)

    def _arm(self) -> None:
        if self._callback is not None:
            self._handle = self._scheduler.loop.call_at(self._when, self._fire)

    def _fire(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None
            self._scheduler.post(self._disarm)

    def _disarm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


async def sleep(clock: Clock, delay: float) -> None:
    """Wait `delay` seconds of `clock` in a coroutine."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def wake() -> None:
        loop.call_soon_threadsafe(lambda: over.done() or over.set_result(None))

    timer = clock.call_at(clock.now() + delay, wake)
    try:
        await over
    finally:
        timer.cancel()
