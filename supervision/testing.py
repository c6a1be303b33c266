"""A test kit: time that a test moves itself, faults at named points, probes, and a check for leftovers."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Any

import pykka

from supervision.faults import POINTS, InjectedFault, fault

__all__ = ["POINTS", "InjectedFault", "ManualClock", "Probe", "fault", "leak_check"]


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


class _ProbeActor(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, probe: Probe) -> None:
        super().__init__()
        self._probe = probe

    def on_receive(self, message: Any) -> None:
        self._probe.record(message)


class Probe:
    """Records the messages told to `probe.ref`, and waits for them."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._changed = threading.Condition()
        self.ref: pykka.ActorRef[Any] = _ProbeActor.start(self)

    def record(self, message: Any) -> None:
        """Note a message; also usable as a listener."""
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait(self, n: int = 1, timeout: float = 5.0) -> list[Any]:
        """The messages, once there are `n` of them. Raises TimeoutError, naming those that came."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.messages) >= n, timeout):
                raise TimeoutError(f"{len(self.messages)} of {n} messages came within {timeout} s: {self.messages}")
            return list(self.messages)

    def stop(self) -> None:
        """End the probe's actor."""
        self.ref.stop()


def leak_check(timeout: float = 2.0, *, allow: tuple[str, ...] = ("supervision-default",)) -> None:
    """Raise AssertionError if actors or threads of this package are left, after up to `timeout` seconds of grace."""
    limit = time.monotonic() + timeout
    while (left := _left(allow)) and time.monotonic() < limit:
        time.sleep(0.01)
    if left:
        raise AssertionError("left behind: " + ", ".join(left))


def _left(allow: tuple[str, ...]) -> list[str]:
    actors = [str(ref) for ref in pykka.ActorRegistry.get_all()]
    threads = [
        thread.name
        for thread in threading.enumerate()
        if thread.name.startswith("supervision") and thread.name not in allow
    ]
    return actors + threads
