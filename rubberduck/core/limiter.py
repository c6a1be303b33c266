"""Shares one provider's limits among all calls to it.

A reservation asks for requests, input tokens, output tokens and a concurrency slot at once, and gets all or
nothing. Who cannot have it now waits: first come, first served within a class. The first of each class
books its start, in the order in which they became first; nobody overtakes a booked start, so a big request
is never starved by small ones. Every waiter gets one answer: from `reserve`, or later from `poll`.

Reservation ids are the caller's. Asking again with the same id, after a crash for instance, gets the same
answer and is charged once, until the reservation is cancelled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from operator import attrgetter, gt
from typing import Literal

from rubberduck.core.bucket import Cell, Meter, MinuteWindow, TokenBucket
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.waiting_line import Amounts, Klass, Needs, Waiter, WaitingLine

__all__ = [
    "Amounts",
    "Granted",
    "Klass",
    "Limiter",
    "LimiterOptions",
    "LimiterSnapshot",
    "LimiterStats",
    "Refused",
    "Wait",
]

REMEMBERED = 4096
"""How many settled ids are remembered, so that a repeated question is recognised."""

NOTHING = Amounts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LimiterOptions:
    """What a provider allows. None means that there is no such limit.

    `capacity` and `refill_rate` (per second) are a burst of requests, or of tokens with unit="tokens". The
    limits per minute are hard in every sliding 60 s. `reservation_ttl` is the time in seconds after which the
    slot of a holder that never came back is given to others; what it was charged stays charged.
    """

    capacity: float | None = None
    refill_rate: float | None = None
    unit: Literal["requests", "tokens"] = "requests"
    requests_per_min: float | None = None
    input_tokens_per_min: float | None = None
    output_tokens_per_min: float | None = None
    max_concurrency: int = 100
    reservation_ttl: float = 125.0

    def __post_init__(self) -> None:
        if (self.capacity is None) != (self.refill_rate is None):
            raise ValueError("capacity and refill_rate belong together: a burst, and how fast it comes back")
        if self.max_concurrency < 1:
            raise ValueError("max_concurrency is at least 1")


@dataclass(frozen=True, slots=True)
class Granted:
    """Go. Commit or cancel `id` afterwards."""

    id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet; `poll` will answer. `at` is the expected time, None while only a freed slot can tell."""

    id: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `reason` is never_fits (larger than the limit itself) or past_deadline; nothing was taken.

    `retry_after` is in seconds, None where no waiting helps or nobody can tell.
    """

    id: str
    reason: Literal["never_fits", "past_deadline"]
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """What survives a restart; all times relative, because the next clock may begin elsewhere."""

    blocked_for: float
    tokens: float | None
    minutes: dict[str, list[tuple[float, float]]]
    held: tuple[tuple[str, Amounts, float], ...]


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A limiter as an operator sees it. `tokens` is None without a bucket."""

    in_flight: int
    waiting: int
    tokens: float | None
    used_this_minute: dict[str, float]
    blocked_for: float
    granted: int
    refused: int
    lost: int


@dataclass(slots=True)
class _Held:
    amounts: Amounts
    needs: Needs
    cells: list[Cell]
    since: float
    expires_at: float


class Limiter:
    """The books of one provider's limits. `now` and deadlines are monotonic seconds.

    After `commit`, `cancel` and `penalise`, and at `next_at`, ask `poll` who may go. `concurrency` is how many slots
    there are at the moment, up to `max_concurrency`; others move it.
    """

    def __init__(self, options: LimiterOptions, now: float, concurrency: Concurrency | None = None) -> None:
        self._options = options
        self._concurrency = concurrency or Concurrency(options.max_concurrency)
        self._bucket: TokenBucket | None = None
        self._units: list[str] = []
        self._meters: list[Meter] = []
        if options.capacity is not None and options.refill_rate is not None:
            self._bucket = TokenBucket(options.capacity, options.refill_rate, now)
            self._units.append(options.unit)
            self._meters.append(self._bucket)
        self._minutes = {
            name: MinuteWindow(limit)
            for name, limit in (
                ("requests", options.requests_per_min),
                ("input", options.input_tokens_per_min),
                ("output", options.output_tokens_per_min),
            )
            if limit is not None
        }
        self._units.extend(self._minutes)
        self._meters.extend(self._minutes.values())
        self._needs = _picker(self._units)
        self._most = [meter.most for meter in self._meters]
        self._blocked_until = -inf
        self._in_flight = 0
        self._mean_hold = 1.0
        self._held: dict[str, _Held] = {}
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._line = WaitingLine(len(self._meters))
        self._granted = self._refused = self._lost = 0

    # -- asking --------------------------------------------------------------------------------------------

    def reserve(
        self,
        reservation: str,
        amounts: Amounts,
        now: float,
        deadline: float = inf,
        klass: Klass = "normal",
        ttl: float | None = None,
    ) -> Granted | Wait | Refused:
        """Take `amounts` now, or get in line for them. A wait that would end after `deadline` is refused at once."""
        if reservation in self._held or reservation in self._settled:
            return Granted(reservation)
        known = self._line.get(reservation)
        if known is not None:
            return Wait(reservation, self._expected(known, now))
        needs = self._needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            self._refused += 1
            return Refused(reservation, "never_fits", None)
        if now > deadline:
            self._refused += 1
            return Refused(reservation, "past_deadline", None)
        self._release_lost(now)
        ttl = self._options.reservation_ttl if ttl is None else ttl
        if not len(self._line) and self._has_slots(amounts) and self._meters_wait(needs, now) <= 0:
            self._grant(reservation, amounts, needs, ttl, now)
            return Granted(reservation)
        waiter = Waiter(reservation, amounts, needs, deadline, klass, ttl)
        wait = self._meters_wait(self._line.needs_until(waiter), now)
        if now + wait > deadline or wait == inf:
            self._refused += 1
            return Refused(reservation, "past_deadline", None if wait == inf else wait)
        self._line.enter(waiter)
        return Wait(reservation, now + wait if self._has_slots(amounts) else None)

    def check(self, tokens: float, now: float) -> Granted | Refused:
        """Take `tokens` of the bucket's unit now, with no slot and nothing to settle, or say when to come back."""
        if self._options.unit == "tokens":
            amounts = Amounts(requests=1, input=tokens, concurrency=0)
        else:
            amounts = Amounts(requests=tokens, concurrency=0)
        needs = self._needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            self._refused += 1
            return Refused("", "never_fits", None)
        wait = self.peek(amounts, now)
        if wait > 0 or len(self._line):
            self._refused += 1
            return Refused("", "past_deadline", wait if 0 < wait < inf else None)
        for meter, need in zip(self._meters, needs, strict=True):
            meter.take(need, now)
        self._granted += 1
        return Granted("")

    def peek(self, amounts: Amounts, now: float, klass: Klass = "normal") -> float:
        """Seconds a reservation made now would wait, by estimate where others wait or slots lack; inf: for ever."""
        needs = self._needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            return inf
        self._release_lost(now)
        if len(self._line):
            needs = self._line.needs_until(Waiter("", amounts, needs, inf, klass, 0.0))
        wait = self._meters_wait(needs, now)
        if not self._has_slots(amounts):
            wait = max(wait, self._mean_hold * (1 + len(self._line)) / self._concurrency.limit)
        return wait

    # -- answering those who wait --------------------------------------------------------------------------

    def poll(self, now: float) -> list[Granted | Refused]:
        """The answers that have become due: who may go now, and whose deadline passed. Each is told once."""
        self._release_lost(now)
        answers: list[Granted | Refused] = []
        self._grant_booked(now, answers)
        if self._refuse_expired(now, answers):
            self._grant_booked(now, answers)
        return answers

    def next_at(self, now: float) -> float | None:
        """When `poll` will next have an answer by time alone; None if only a commit or cancel can bring one."""
        first = self._line.first
        if first is None:
            return None
        times = []
        if self._has_slots(first.amounts):
            times.append(now + self._meters_wait(first.needs, now))
        elif self._held:
            times.append(next(iter(self._held.values())).expires_at)
        deadline = self._line.next_deadline()
        if deadline is not None:
            times.append(deadline)
        soonest = min(times, default=inf)
        return None if soonest == inf else max(now, soonest)

    # -- settling ------------------------------------------------------------------------------------------

    def commit(self, reservation: str, actual: Amounts, now: float) -> bool:
        """Settle a reservation with what was really used: a surplus returns, an excess is paid before the next grant.

        False, and no effect, if `reservation` holds nothing: settled already, lost, or never granted.
        """
        if not self._settle(reservation, actual, now):
            return False
        self._remember(reservation)
        return True

    def _settle(self, reservation: str, actual: Amounts, now: float) -> bool:
        held = self._held.pop(reservation, None)
        if held is None:
            return False
        used = self._needs(actual)
        for meter, taken, cell, spent in zip(self._meters, held.needs, held.cells, used, strict=True):
            meter.settle(cell, taken, spent, now)
        self._in_flight -= held.amounts.concurrency
        self._mean_hold += 0.1 * (now - held.since - self._mean_hold)
        return True

    def cancel(self, reservation: str, now: float) -> bool:
        """Give everything back, or leave the line; for what was never sent. False if there was nothing.

        The id is free again: asking with it once more is a new question.
        """
        waiter = self._line.get(reservation)
        if waiter is not None:
            self._line.leave(waiter)
            return True
        return self._settle(reservation, NOTHING, now)

    def penalise(self, until: float) -> None:
        """Grant nothing before `until`: the provider said so. Never shortens an earlier penalty."""
        self._blocked_until = max(self._blocked_until, until)

    # -- what others see, what survives --------------------------------------------------------------------

    def stats(self, now: float) -> LimiterStats:
        self._release_lost(now)
        return LimiterStats(
            in_flight=self._in_flight,
            waiting=len(self._line),
            tokens=self._bucket.tokens(now) if self._bucket else None,
            used_this_minute={name: window.used(now) for name, window in self._minutes.items()},
            blocked_for=max(0.0, self._blocked_until - now),
            granted=self._granted,
            refused=self._refused,
            lost=self._lost,
        )

    def snapshot(self, now: float) -> LimiterSnapshot:
        """Balances without all that is reserved, and the reservations out. Who waits asks again."""
        self._release_lost(now)
        return LimiterSnapshot(
            blocked_for=max(0.0, self._blocked_until - now),
            tokens=self._bucket.tokens(now) if self._bucket else None,
            minutes={name: window.ages(now) for name, window in self._minutes.items()},
            held=tuple((reservation, held.amounts, held.expires_at - now) for reservation, held in self._held.items()),
        )

    @classmethod
    def restore(
        cls,
        snapshot: LimiterSnapshot | None,
        options: LimiterOptions,
        now: float,
        concurrency: Concurrency | None = None,
    ) -> Limiter:
        """The limiter after a restart: never fuller than before. None, nothing known, means empty."""
        limiter = cls(options, now, concurrency)
        if limiter._bucket is not None:
            limiter._bucket.take(limiter._bucket.most, now)
            if snapshot is not None and snapshot.tokens is not None:
                limiter._bucket.settle(None, snapshot.tokens, 0.0, now)
        for name, window in limiter._minutes.items():
            window.restore(snapshot.minutes.get(name) if snapshot else None, now)
        if snapshot is not None:
            limiter._blocked_until = now + snapshot.blocked_for
            for reservation, amounts, remaining in snapshot.held:
                needs = limiter._needs(amounts)
                limiter._held[reservation] = _Held(amounts, needs, [None] * len(needs), now, now + remaining)
                limiter._in_flight += amounts.concurrency
        return limiter

    # -- the arithmetic of a vector ------------------------------------------------------------------------

    def _can_ever_fit(self, amounts: Amounts, needs: Needs) -> bool:
        if amounts.concurrency > self._options.max_concurrency:
            return False
        return not any(map(gt, needs, self._most))

    def _has_slots(self, amounts: Amounts) -> bool:
        # What wants more than there is at the moment goes when it is alone: a limit that has shrunk is no refusal.
        return self._in_flight + amounts.concurrency <= max(self._concurrency.limit, amounts.concurrency)

    def _meters_wait(self, needs: Needs, now: float) -> float:
        """Seconds until every meter has its need; slots are another matter."""
        longest = self._blocked_until - now if self._blocked_until > now else 0.0
        for meter, need in zip(self._meters, needs, strict=True):
            if need > 0 and (wait := meter.wait(need, now)) > longest:
                longest = wait
        return longest

    def _expected(self, waiter: Waiter, now: float) -> float | None:
        if not self._has_slots(waiter.amounts):
            return None
        is_first = waiter is self._line.first
        return now + self._meters_wait(waiter.needs if is_first else self._line.needs_of_class(waiter.klass), now)

    # -- granting ------------------------------------------------------------------------------------------

    def _grant_booked(self, now: float, answers: list[Granted | Refused]) -> None:
        while (first := self._line.first) is not None:
            if not self._has_slots(first.amounts) or self._meters_wait(first.needs, now) > 0:
                return
            self._line.leave(first)
            self._grant(first.id, first.amounts, first.needs, first.ttl, now)
            answers.append(Granted(first.id))

    def _refuse_expired(self, now: float, answers: list[Granted | Refused]) -> bool:
        expired = self._line.leave_expired(now)
        for waiter in expired:
            self._refused += 1
            wait = self._meters_wait(waiter.needs, now)
            answers.append(Refused(waiter.id, "past_deadline", None if wait == inf else wait))
        return bool(expired)

    def _grant(self, reservation: str, amounts: Amounts, needs: Needs, ttl: float, now: float) -> None:
        cells = [meter.take(need, now) for meter, need in zip(self._meters, needs, strict=True)]
        self._held[reservation] = _Held(amounts, needs, cells, now, now + ttl)
        self._in_flight += amounts.concurrency
        self._granted += 1

    def _release_lost(self, now: float) -> None:
        """Free the slots of holders that never came back; their charge stays."""
        while self._held:
            oldest = next(iter(self._held))
            held = self._held[oldest]
            if held.expires_at > now:
                return
            del self._held[oldest]
            self._in_flight -= held.amounts.concurrency
            self._lost += 1
            self._remember(oldest)

    def _remember(self, reservation: str) -> None:
        self._settled[reservation] = None
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)


def _picker(units: list[str]) -> Callable[[Amounts], Needs]:
    """What picks the needs of these units out of a vector: at every decision, so it must be quick."""
    if not units:
        return lambda amounts: ()
    if len(units) == 1:
        only = attrgetter(units[0])
        return lambda amounts: (only(amounts),)
    return attrgetter(*units)
