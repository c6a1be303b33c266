"""Remembers how long answers have taken lately, for each set of routes by itself.

A fast model and a slow one say nothing about each other: judged by one figure for both, the calls for the fast one
would be turned away for want of a time that they do not need.
"""

from __future__ import annotations

from collections import OrderedDict, deque

ENOUGH_SAMPLES, RECENT_SAMPLES, BELIEVED_FOR = 20, 128, 30.0
"""From how many answers on, from how many at most, and until how many seconds after the last one a service time is
believed: when nothing is sent any more because all take too long, somebody has to find out that they no longer do."""
ROUTE_SETS = 1000
"""Of how many sets of routes the times are remembered; names of models come from users."""


class ServiceTimes:
    """How long answers have taken lately, from being sent on, in seconds. `quantile` of them count as usual."""

    __slots__ = ("_known", "_quantile")

    def __init__(self, quantile: float = 0.9) -> None:
        self._quantile = quantile
        self._known: OrderedDict[frozenset[str], _Times] = OrderedDict()

    def learn(self, routes: frozenset[str], seconds: float, now: float) -> None:
        times = self._known.get(routes)
        if times is None:
            if len(self._known) >= ROUTE_SETS:
                self._known.popitem(last=False)
            times = self._known[routes] = _Times(now)
        else:
            self._known.move_to_end(routes)
        times.learn(seconds, now, self._quantile)

    def usual(self, routes: frozenset[str], now: float) -> float:
        """What nine in ten stayed below; 0 while nobody knows, or has known for long."""
        times = self._known.get(routes)
        return 0.0 if times is None or now - times.at > BELIEVED_FOR else times.usual


class _Times:
    __slots__ = ("_fresh", "_recent", "at", "usual")

    def __init__(self, now: float) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT_SAMPLES)
        self._fresh = 0
        self.usual = 0.0
        self.at = now

    def learn(self, seconds: float, now: float, quantile: float) -> None:
        if now - self.at > BELIEVED_FOR:
            self._recent.clear()
            self.usual, self._fresh = 0.0, 0
        self._recent.append(seconds)
        self.at = now
        self._fresh += 1
        # Sorting at each answer would cost more than all else that is done for it.
        if self._fresh == ENOUGH_SAMPLES or (self._fresh > ENOUGH_SAMPLES and self._fresh % 8 == 0):
            self.usual = sorted(self._recent)[int(quantile * len(self._recent))]
