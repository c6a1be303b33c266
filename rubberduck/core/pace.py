"""How a limiter slows down after a refusal and gets back to its speed."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from rubberduck.core.sliding import TIME_TOLERANCE

STEP = 0.05
QUIET = 10.0
"""After so many seconds without a refusal the share grows by one step."""
LEAST = 0.01
"""No row of refusals takes away more than this leaves."""


class Pace:
    """The share of the configured rates that is used: halved by a refusal, + 5 % of the whole per quiet 10 s."""

    __slots__ = ("_since", "_start", "is_full")

    def __init__(self, share: float = 1.0, now: float = 0.0) -> None:
        self._start = share
        self._since = now
        # True only if the share is 1; it may be so before this says it. Read before every grant: no property.
        self.is_full = share >= 1.0

    def share(self, now: float) -> float:
        """Above 0, at most 1."""
        if self.is_full:
            return 1.0
        share = self._start + STEP * max(0, int((now - self._since + TIME_TOLERANCE) / QUIET))
        if share >= 1.0 - 1e-9:
            self._start = 1.0
            self.is_full = True
        return min(1.0, share)

    def halve(self, now: float) -> None:
        self._start = max(LEAST, self.share(now) / 2)
        self._since = now
        self.is_full = False

    def steps(self, since: float) -> Iterator[tuple[float, float, float]]:
        """(from, until, share) from `since` on, if no refusal comes; the last one has no end."""
        start = self._start
        if start >= 1.0:
            yield since, inf, 1.0
            return
        number = max(0, int((since - self._since + TIME_TOLERANCE) / QUIET))
        at = since
        while (share := start + STEP * number) < 1.0 - 1e-9:
            number += 1
            until = self._since + QUIET * number
            yield at, until, share
            at = max(at, until)
        yield at, inf, 1.0

    def snapshot(self, now: float) -> tuple[float, float]:
        """The share after the last refusal, and the seconds since."""
        return self._start, now - self._since

    @classmethod
    def restore(cls, snapshot: tuple[float, float], now: float) -> Pace:
        share, age = snapshot
        return cls(share, now - age)
