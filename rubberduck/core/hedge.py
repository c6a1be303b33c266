"""Decides whether a call that is slow to be answered is asked a second time, elsewhere.

    after max(p95 of the route, `least_delay`) without a first token      and at most `share` of all calls

Each call earns a part of a hedge, and a hedge takes a whole one: whatever the order of calls, hedges never exceed
their share. What is earned and not used is kept up to a bound, so that a quiet hour does not pay for a storm.

Source: Dean and Barroso, "The Tail at Scale", 2013: hedged requests, deferred until the 95th percentile.
"""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH_ANSWERS = 20
"""From so many answers of a route on, its 95th percentile is believed."""


@dataclass(frozen=True, slots=True)
class HedgeOptions:
    """How soon and how often: `least_delay` in seconds, `share` of all calls (0 to 1), `most_kept` hedges unused."""

    share: float = 0.05
    least_delay: float = 1.0
    most_kept: float = 10.0

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and self.least_delay >= 0 and self.most_kept >= 1):
            raise ValueError("share is above 0 and at most 1, least_delay >= 0 seconds, most_kept at least 1")


class Hedges:
    """What all calls together may still spend on second attempts. Not safe for threads: it belongs to one loop."""

    __slots__ = ("_earned", "_options")

    def __init__(self, options: HedgeOptions) -> None:
        self._options = options
        self._earned = 0.0

    def call(self) -> None:
        """One more call has been made."""
        self._earned = min(self._options.most_kept, self._earned + self._options.share)

    def delay(self, answered: int, p95: float | None) -> float | None:
        """Seconds of silence after which to ask elsewhere; None while too little is known about the route."""
        if p95 is None or answered < ENOUGH_ANSWERS:
            return None
        return max(p95, self._options.least_delay)

    @property
    def affords(self) -> bool:
        """Whether one more hedge is within the share."""
        return self._earned >= 1 - 1e-9

    def spend(self) -> bool:
        """Take one hedge; False if the share is used up, and nothing is taken."""
        if not self.affords:
            return False
        self._earned -= 1
        return True
