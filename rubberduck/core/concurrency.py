"""How many attempts a route is sent at once: as many as it bears.

    a sign of too much     0.7 of what is out, at least 1, once per round trip
    an answer              limit + 1 per `limit` answers, while at least half of the limit is in use

Only refusals for want of capacity and first tokens that never came are signs. How long an answer takes is none: it
depends on what was asked more than on who else asks. A cut starts from what is out where that is less than the
limit: a limit far above it would have to be cut several times until it is felt at all.

Source: Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance", 1989; a cut per
round trip, from the flight size, as in RFC 5681, 3.1 and 3.2.
"""

from __future__ import annotations

from math import inf

SHRINK = 0.7


class Concurrency:
    """The limit of one route. `now` and `started` are monotonic seconds."""

    __slots__ = ("_cut_at", "_exact", "ceiling", "limit")

    def __init__(self, ceiling: int) -> None:
        if ceiling < 1:
            raise ValueError(f"a ceiling is at least 1, not {ceiling}")
        self.ceiling = ceiling
        self._exact = float(ceiling)
        self.limit = ceiling
        """How many may be out at once, 1 to the ceiling. To be read only."""
        self._cut_at = -inf

    def has_room(self, inflight: int) -> bool:
        """Whether one more may be sent while `inflight` are out."""
        return inflight < self.limit

    def answered(self, inflight: int) -> None:
        """An attempt was answered while `inflight` were out, itself included."""
        if self._exact < self.ceiling and inflight >= self._exact / 2:
            self._set(min(float(self.ceiling), self._exact + 1 / self._exact))

    def overloaded(self, inflight: int, started: float, now: float) -> bool:
        """An attempt begun at `started` was too many, while `inflight` were out, itself included.

        True if the limit was cut for it.

        What was sent before the last cut tells of the load from before it: one burst cuts once.
        """
        if started < self._cut_at:
            return False
        self._cut_at = now
        self._set(max(1.0, min(self._exact, inflight) * SHRINK))
        return True

    def _set(self, limit: float) -> None:
        self._exact = limit
        self.limit = int(limit)
