"""How long to wait before trying again, and how often trying again is affordable.

Source: AWS Architecture Blog, "Exponential Backoff and Jitter" (full jitter); Google SRE Book, chapter 21
(retry budgets); RFC 9110, 10.2.3 (Retry-After).
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from rubberduck.core.sliding import SlidingSum

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


def parse_retry_after(headers: Mapping[str, str], now_utc: datetime) -> float | None:
    """Seconds until the provider wants to be asked again; None where it names no time in the future.

    Understands `retry-after-ms`, then `retry-after` in seconds (with a fraction) or as an HTTP date. A date is
    compared with the response's own `Date` where there is one: then neither clock need be right. `now_utc` is aware.
    """
    values = {name.lower(): value for name, value in headers.items()}
    milliseconds = _positive(values.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = values.get("retry-after")
    seconds = _positive(value)
    if seconds is not None or value is None:
        return seconds
    until = _http_date(value)
    if until is None:
        return None
    wait = (until - (_http_date(values.get("date")) or now_utc)).total_seconds()
    return wait if wait > 0 else None


def _positive(value: str | None) -> float | None:
    if value is None or "_" in value or len(value) > 40:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and number > 0 else None


def _http_date(value: str | None) -> datetime | None:
    if value is None or len(value) > 80:
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


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
