"""Time that a test moves itself."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from supervision import faults


class _ManualTimer:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """A clock that stands still until a test advances it. May be used from any thread."""

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._timers: list[tuple[float, int, _ManualTimer]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()

    def now(self) -> float:
        """Seconds, as far as they have been advanced."""
        return self._now

    def call_at(self, when: float, callback: Callable[[], object]) -> _ManualTimer:
        """Have `callback` called when the clock reaches `when`, in the thread that advances it."""
        timer = _ManualTimer(callback)
        if faults.armed:
            when += faults.lateness()
        with self._changed:
            heapq.heappush(self._timers, (when, next(self._order), timer))
            self._changed.notify_all()
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass: timers that come due fire in the order of their times, each at its own time."""
        end = self._now + seconds
        while (timer := self._due(end)) is not None:
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        with self._changed:
            self._now = max(self._now, end)

    def _due(self, end: float) -> _ManualTimer | None:
        with self._changed:
            while self._timers and self._timers[0][0] <= end:
                when, _, timer = heapq.heappop(self._timers)
                if timer.callback is not None:
                    self._now = max(self._now, when)
                    return timer
            return None

    def next_at(self) -> float | None:
        """When the next timer is due; None if there is none."""
        with self._changed:
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            return self._timers[0][0] if self._timers else None

    def pending(self) -> list[float]:
        """When the timers that are arranged are due, in order."""
        with self._changed:
            return sorted(when for when, _, timer in self._timers if timer.callback is not None)

    def wait_for_timer(self, timeout: float = 5.0) -> float:
        """Block until somebody has arranged a timer, and say when it is due. For tests with real threads."""
        limit = time.monotonic() + timeout
        while (at := self.next_at()) is None:
            with self._changed:
                if not self._changed.wait(max(0.0, limit - time.monotonic())) and time.monotonic() >= limit:
                    raise TimeoutError(f"no timer was arranged within {timeout} s")
        return at
