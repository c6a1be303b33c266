"""An event loop on virtual time, without a thread, that draws what happens next.

What may change places, and what may not: every actor is run as if it had a loop and a thread of its own, its *lane*,
and all supervisors share one. What one lane does for another, waking it, posting to it, arrives in the order in
which it was done, as between real threads; so the messages of one sender stay in order, and a supervisor hears of
a child's start before it hears of its end. What comes from different lanes comes in any order: that is drawn.
Timers of one lane fire in the order of their times. Time stands still while anything can happen, then jumps to the
next timer.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")
Coro = Generator[Any, None, T] | Coroutine[Any, Any, T]

OUTSIDE = "outside"
"""The lane of the test itself."""


class LaneTask(asyncio.Task[T]):
    """A task that knows on whose account it runs."""

    lane: Any = None


class _Handle(asyncio.Handle):
    __slots__ = ("lane",)
    lane: Any


class _TimerHandle(asyncio.TimerHandle):
    __slots__ = ("lane",)
    lane: Any


class VirtualLoop(asyncio.AbstractEventLoop):
    """`step()` does one thing; nothing else ever runs. All in one thread."""

    def __init__(self, rng: random.Random, start: float = 0.0) -> None:
        self._rng = rng
        self._now = start
        self._serial = itertools.count()
        self._timers: list[tuple[float, int, _TimerHandle]] = []
        self._channels: dict[tuple[Any, Any], deque[asyncio.Handle]] = {}
        self._ready: list[tuple[Any, Any]] = []
        self._is_closed = False
        self._is_stepping = False
        self.lane: Any = OUTSIDE
        self.steps = 0
        self.fingerprint = 0
        self.failures: list[dict[str, Any]] = []

    # -- going on ----------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """Nothing can happen before the next timer."""
        return not self._ready

    def next_timer(self) -> float | None:
        """When the next timer is due; None if there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def jump(self, to: float) -> None:
        """Let time pass, with all timers due by then ready."""
        self._now = max(self._now, to)
        while (due := self.next_timer()) is not None and due <= self._now:
            handle = heapq.heappop(self._timers)[2]
            self._enqueue((handle.lane, handle.lane), handle)

    def step(self) -> None:
        """Draw one of the lanes' next things to do, and do it."""
        ready = self._ready
        count = len(ready)
        drawn = int(self._rng.random() * count)
        channel = ready[drawn]
        waiting = self._channels[channel]
        handle = waiting.popleft()
        if not waiting:
            del self._channels[channel]
            ready[drawn] = ready[-1]
            ready.pop()
        if handle.cancelled():
            return
        self.steps += 1
        self.fingerprint = (self.fingerprint * 1_000_003 + drawn * 31 + count) & 0xFFFF_FFFF_FFFF
        self.lane = handle.lane  # type: ignore[attr-defined]
        self._is_stepping = True
        former = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(former)
            self._is_stepping = False
            self.lane = OUTSIDE

    def _enqueue(self, channel: tuple[Any, Any], handle: asyncio.Handle) -> None:
        waiting = self._channels.get(channel)
        if waiting is None:
            self._channels[channel] = deque((handle,))
            self._ready.append(channel)
        else:
            waiting.append(handle)

    # -- what asyncio asks of a loop -----------------------------------------------------------------

    def time(self) -> float:
        return self._now

    def is_running(self) -> bool:
        return self._is_stepping

    def is_closed(self) -> bool:
        return self._is_closed

    def get_debug(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        owner = getattr(callback, "__self__", None)
        lane = owner.lane if type(owner) is LaneTask and owner.lane is not None else self.lane
        return self.call_in(lane, callback, *args, context=context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_in(
        self, lane: Any, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """As `call_soon`, on account of `lane`."""
        if self._is_closed:
            raise RuntimeError("the deterministic scheduler has been closed")
        handle = _Handle(callback, args, self, context)
        handle.lane = lane
        self._enqueue((self.lane, lane), handle)
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        if self._is_closed:
            raise RuntimeError("the deterministic scheduler has been closed")
        handle = _TimerHandle(when, callback, args, self, context)
        handle.lane = self.lane
        heapq.heappush(self._timers, (when, next(self._serial), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Left where it is until its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coro[T], *, name: str | None = None, context: contextvars.Context | None = None
    ) -> LaneTask[T]:
        task: LaneTask[T] = LaneTask(coro, loop=self, name=name, context=context)
        task.lane = self.lane
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Kept for whoever drives this loop, who logs them."""
        self.failures.append(context)

    async def shutdown_asyncgens(self) -> None:
        """They end with their last reference."""

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        raise NotImplementedError("a deterministic scheduler has no threads: give the actor something to call instead")

    def close(self) -> None:
        self._is_closed = True
        self._timers.clear()
        self._channels.clear()
        self._ready.clear()
