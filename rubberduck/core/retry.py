"""How long to wait before trying again, and how often trying again is affordable.

Source: AWS Architecture Blog, "Exponential Backoff and Jitter" (full jitter); Google SRE Book, chapter 21
(retry budgets); RFC 9110, 10.2.3 (Retry-After).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from rubberduck.core.rate_headers import parse_retry_after
from rubberduck.core.sliding import SlidingSum

__all__ = ["HINT_JITTER", "RetryBudget", "RetryOptions", "backoff", "hinted", "parse_retry_after"]

HINT_JITTER = 0.1
"""A hint is lengthened by up to this share, so that those who were told the same time do not come back as one."""


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """How often and after which delays a call is tried again. Times are seconds.

    `max_attempts` is per route, the first included; `max_attempts_total` over all routes. `same_route_repeats`
    applies while another candidate is eligible. `max_wait_for_preferred` is the longest wait, for a hint or a
    limiter, that is accepted while another candidate is eligible.
    """

    max_attempts: int = 3
    max_attempts_total: int = 6
    base_delay: float = 1.0
    max_delay: float = 10.0
    jitter: bool = True
    same_route_repeats: int = 1
    max_wait_for_preferred: float = 3.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1 or self.max_attempts_total < 1 or self.same_route_repeats < 0:
            raise ValueError("max_attempts and max_attempts_total are at least 1, same_route_repeats at least 0")
        if not (self.base_delay >= 0 and self.max_delay >= 0 and self.max_wait_for_preferred >= 0):
            raise ValueError("base_delay, max_delay and max_wait_for_preferred are >= 0 seconds")


def backoff(repeat: int, options: RetryOptions, rng: random.Random) -> float:
    """Seconds to wait before the `repeat`-th repeat (the first is 1)."""
    # Past 2**64 every base_delay worth the name has met max_delay; the bound keeps the power finite.
    longest = min(options.max_delay, options.base_delay * 2.0 ** min(repeat - 1, 64))
    return rng.uniform(0, longest) if options.jitter else longest


def hinted(own_wait: float, hint: float, rng: random.Random) -> float:
    """Seconds to wait when the provider named a time: never less than it said."""
    wait = max(own_wait, hint)
    return wait + rng.uniform(0, HINT_JITTER) * wait


class RetryBudget:
    """Keeps repeats and hedges of one route a small share of its traffic, so that retries cannot become a storm.

    In every 10 s at most `floor` + `ratio` times the first attempts. Failover to an untried route is a first
    attempt there.
    """

    __slots__ = ("_extras", "_firsts", "floor", "ratio")

    def __init__(self, ratio: float = 0.2, floor: float = 3.0, window: float = 10.0) -> None:
        self.ratio = ratio
        self.floor = floor
        cell = window / 10
        self._extras = SlidingSum(window, cell)
        # Cells count until wholly out, which may be one cell too long: that errs on the safe side for what was
        # spent, and must not for what was earned.
        self._firsts = SlidingSum(window - cell, cell)

    def first(self, now: float) -> None:
        """A first attempt was made: it earns a fraction of a repeat."""
        self._firsts.add(1.0, now)

    def affords(self, now: float) -> bool:
        """Whether one more repeat is within the budget."""
        return self._extras.total(now) + 1 <= self.floor + self.ratio * self._firsts.total(now) + 1e-9

    def spend(self, now: float) -> bool:
        """Take one repeat out of the budget; False if it is exhausted, and nothing is taken."""
        if not self.affords(now):
            return False
        self._extras.add(1.0, now)
        return True
