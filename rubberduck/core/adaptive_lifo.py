"""Decides when a class that stands in a queue for long is served from the newest on.

Under a lasting overload, first come, first served makes everybody wait until nearly nobody is in time. Newest first,
those who have just come are answered, and those for whom it is too late anyway are the ones who wait.

Source: Maurer, "Fail at Scale", ACM Queue 13 (8), 2015; the least wait as the sign of a standing queue is from Nichols
and Jacobson, "Controlling Queue Delay", ACM Queue 10 (5), 2012.
"""

from __future__ import annotations

from math import inf

PERIOD = 1.0
"""Seconds of which the least wait counts: a short burst has somebody who hardly waited."""
TOO_LONG = 0.05
"""The share of a call's whole time above which waiting is standing in a queue; it is over below half of that."""


class AdaptiveLifo:
    """Whether the newest go first now. `timeout` is the time that a call of the class usually has, in seconds."""

    __slots__ = ("_began", "_least", "_limit", "is_on")

    def __init__(self, timeout: float) -> None:
        self._limit = TOO_LONG * timeout
        self._began, self._least = -inf, inf
        self.is_on = False

    def waited(self, seconds: float, now: float) -> None:
        """One more was sent, which had waited so long. A second is judged when the first one after it is sent."""
        if now - self._began >= PERIOD:
            self._judge()
            self._began, self._least = now, inf
        self._least = min(self._least, seconds)

    def reset(self) -> None:
        """Nobody waits any more."""
        self._began, self._least = -inf, inf
        self.is_on = False

    def _judge(self) -> None:
        if self._least == inf:
            return
        if self._least > self._limit:
            self.is_on = True
        elif self._least < self._limit / 2:
            self.is_on = False
