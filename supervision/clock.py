"""Time as an argument: what the clock says, and a call at a later time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from supervision import faults
from supervision.hosting.loop_timer import LoopTimer
from supervision.hosting.scheduler import scheduler_here

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.hosting.scheduler import Scheduler


class Timer(Protocol):
    """A call that has been arranged."""

    def cancel(self) -> None:
        """Do not make the call; without effect once it has been made."""


class Clock(Protocol):
    """Monotonic time in seconds. Callbacks may come on any thread and must be short: put a message, no more."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer: ...


class RealClock:
    """The machine's monotonic clock. Callbacks are made by the running loop, else by the loop of `scheduler`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.now = time.monotonic

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        if faults.armed:
            when += faults.lateness()
        # asyncio's loops keep the same time, and a timer of one's own loop costs no switch.
        if (own := scheduler_here()) is not None:
            return LoopTimer(own, when, callback)
        loop = asyncio._get_running_loop()
        if loop is not None:
            return _OwnLoopTimer(loop, loop.call_at(when, callback, context=contextvars.Context()))
        return _LoopTimer(self._scheduler, when, callback)


class _OwnLoopTimer:
    """A `loop.call_at` that any thread may cancel, such as the one that answers an ask before its timeout."""

    __slots__ = ("_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: asyncio.TimerHandle) -> None:
        self._loop = loop
        self._handle = handle

    def cancel(self) -> None:
        _on_loop(self._loop, self._handle.cancel)


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
    timer = clock.call_at(clock.now() + delay, lambda: _on_loop(loop, _set, over))
    try:
        await over
    finally:
        timer.cancel()


class Interruption:
    """`async with` one of its kinds: a block that a clock can end, by cancelling the task in it, with `error`.

    A kind says in `_arm`, called on entering, when to look: `_call_at(time, function)`, of which the last one holds.
    The function is called on the block's own loop, and calls `_interrupt` to end the block.
    """

    __slots__ = ("_cancelling", "_clock", "_is_over", "_loop", "_task", "_timer")
    error: type[Exception] = TimeoutError

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timer: Timer | None = None
        self._is_over = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._cancelling = self._task.cancelling() if self._task is not None else 0
        self._arm()
        return self

    def _arm(self) -> None:
        """Say when to look."""

    def _call_at(self, at: float, function: Callable[[], object]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_at(at, functools.partial(_on_loop, self._loop, function))

    def _interrupt(self) -> None:
        if self._task is not None:
            self._is_over = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        # Somebody else may have cancelled the task too, and then it must stay cancelled.
        if self._is_over and task is not None and task.uncancel() <= self._cancelling:
            if kind is asyncio.CancelledError:
                raise self.error from error


class TimeLimit(Interruption):
    """`async with TimeLimit(clock, at):` ends the block with TimeoutError when the clock reaches `at`.

    As `asyncio.timeout_at`, but by an injected clock. `at` None means no limit.
    """

    __slots__ = ("_at",)

    def __init__(self, clock: Clock, at: float | None) -> None:
        super().__init__(clock)
        self._at = at

    def _arm(self) -> None:
        if self._at is not None:
            self._call_at(self._at, self._interrupt)


def _on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *arguments: Any) -> None:
    """Call on `loop`'s thread: at once if this is it, for a timer of that loop comes there already."""
    if asyncio._get_running_loop() is loop:
        function(*arguments)
    else:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(function, *arguments)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
