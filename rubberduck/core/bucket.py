"""The meters of a rate limit: how much may be taken now, and if not now, when.

A `TokenBucket` allows a burst and refills steadily; a `MinuteWindow` is hard in every sliding 60 seconds.
Both are lazy: nothing runs between two questions. Both speak of a wait that is exact: waiting that long
succeeds if nobody else takes meanwhile, a microsecond less does not.
"""

from __future__ import annotations

from math import ceil, inf, ulp
from typing import Protocol

from rubberduck.core.pace import Pace
from rubberduck.core.sliding import TIME_TOLERANCE, SlidingSum

WINDOW_SECONDS = 60.0

Cell = list[float] | None


class Meter(Protocol):
    """One dimension of a limit. Amounts are never negative."""

    @property
    def most(self) -> float:
        """The largest amount that can ever be taken at once."""
        ...

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount`, at most `most`, can be taken if nobody else takes: 0 now, inf never."""
        ...

    def wait_for_all(self, amount: float, now: float) -> float:
        """About how many seconds it takes until `amount`, as large as it may be, has been taken bit by bit."""
        ...

    def take(self, amount: float, now: float) -> Cell:
        """Take without asking; what it returns is needed to settle."""

    def settle(self, cell: Cell, taken: float, actual: float, now: float) -> None:
        """Correct an earlier taking: a surplus returns, an excess is owed."""


class TokenBucket:
    """A burst of `capacity` tokens, refilled by `refill_rate` per second. Starts full.

    Its balance may become negative: an excess over what was reserved is a debt that the refill pays first.
    """

    __slots__ = ("_at", "_balance", "_times_full", "most", "pace", "refill_rate")

    def __init__(
        self, capacity: float, refill_rate: float, now: float, *, tokens: float | None = None, pace: Pace | None = None
    ) -> None:
        if not (capacity > 0 and refill_rate >= 0):
            raise ValueError(f"capacity is > 0 and refill_rate >= 0, not {capacity} and {refill_rate}")
        self.most = capacity
        self.refill_rate = refill_rate
        self.pace = pace
        self._balance = float(capacity) if tokens is None else min(float(capacity), tokens)
        self._at = now
        self._times_full = 0  # when something was taken

    def tokens(self, now: float) -> float:
        """What is in the bucket at `now`; negative while a debt is paid."""
        if now > self._at:
            refilled = self._balance + self._seconds_of_refill(now) * self.refill_rate
            self._balance = min(self.most, refilled)
            self._at = now
        return self._balance

    def wait(self, amount: float, now: float) -> float:
        if amount <= self._balance:  # what has flowed since the last look can only be more
            return 0.0
        lacking = amount - self.tokens(now)
        if lacking <= 0:
            return 0.0
        if not self.refill_rate:
            return inf
        seconds = self._seconds_for(lacking / self.refill_rate, now)
        # After years of waiting, the clock and the balance themselves tell no shorter time apart.
        blurred = 2 * (ulp(now) + ulp(amount) / self.refill_rate)
        return seconds if seconds > TIME_TOLERANCE + blurred or seconds == inf else 0.0

    def wait_for_all(self, amount: float, now: float) -> float:
        return self.wait(amount, now)

    def _seconds_of_refill(self, now: float) -> float:
        """The time since the last look in which something flowed, each second by the share of the rate."""
        if self.pace is None or self.pace.is_full:
            return now - self._at
        flowed = 0.0
        for start, until, share in self.pace.steps(self._at):
            if start >= now:
                break
            flowed += (min(until, now) - start) * share
        self.pace.share(now)  # notes it, once it is full again
        return flowed

    def _seconds_for(self, full_seconds: float, now: float) -> float:
        """How long what takes `full_seconds` at the whole rate takes at the rates to come."""
        if self.pace is None or self.pace.is_full:
            return full_seconds
        for start, until, share in self.pace.steps(now):
            if full_seconds <= (until - start) * share:
                return start - now + full_seconds / share
            full_seconds -= max(0.0, until - start) * share
        raise AssertionError("the last step has no end")

    def take(self, amount: float, now: float) -> list[float]:
        balance = self.tokens(now)
        if balance >= self.most:
            self._times_full += 1
        self._balance = balance - amount
        return [self._times_full]

    def try_take(self, amount: float, now: float) -> bool:
        """Take `amount` if it is there."""
        if self.wait(amount, now) > 0:
            return False
        self.take(amount, now)
        return True

    def settle(self, cell: Cell, taken: float, actual: float, now: float) -> None:
        if taken > actual and cell is not None and cell[0] != self._times_full:
            return  # it was full again since then: what returns would have run over
        self._balance = min(self.most, self.tokens(now) + taken - actual)


class MinuteWindow(SlidingSum):
    """At most `limit` in every sliding 60 seconds, kept in cells of one second that count until wholly out."""

    __slots__ = ("_others", "most", "pace")

    def __init__(self, limit: float, pace: Pace | None = None) -> None:
        if not limit > 0:
            raise ValueError(f"a limit per minute is > 0, not {limit}")
        super().__init__(WINDOW_SECONDS)
        self.most = limit
        self.pace = pace or Pace()
        self._others = 0.0  # what others have used of it, where anybody knows of them

    def used(self, now: float) -> float:
        return self.total(now) + self._others

    def wait(self, amount: float, now: float) -> float:
        """As of every meter; more than `most` goes when nothing else counts."""
        # Read without forgetting what has passed, for that can only make more room.
        if self.pace.is_full and self._total + self._others + amount <= self.most:
            return 0.0
        amount = min(amount, self.most)
        if self.pace.share(now) < 1.0:
            return self._slowed_until(amount, now) - now
        return self._when_used_is(self.most - amount, now) - now

    def wait_for_all(self, amount: float, now: float) -> float:
        minutes = max(0, ceil(amount / self.most) - 1)
        return minutes * WINDOW_SECONDS + self.wait(amount - minutes * self.most, now)

    def _when_used_is(self, amount: float, now: float) -> float:
        """The first instant at which no more than `amount` is used, if nothing is taken."""
        return self.when_at_most(amount, now)

    def _slowed_until(self, amount: float, now: float) -> float:
        """When there is room for `amount` while the pace grows back. What is large goes when nothing else counts."""
        for start, until, share in self.pace.steps(now):
            at = max(start, self._when_used_is(max(self.most * share, amount) - amount, now))
            if at < until:
                return at
        raise AssertionError("the last step has no end")

    take = SlidingSum.add

    def settle(self, cell: Cell, taken: float, actual: float, now: float) -> None:
        if actual > taken:
            self.add(actual - taken, now)
        elif cell is not None:
            self.take_back(cell, taken - actual, now)

    def use_up(self, now: float) -> None:
        """Take all of it: nothing is known of the last minute."""
        self.add(self.most, now)
