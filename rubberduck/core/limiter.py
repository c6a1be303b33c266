"""Shares one provider's limits among all calls to it.

A reservation asks for requests, input tokens, output tokens and a concurrency slot at once, and gets all or
nothing. Who cannot have it now waits: first come, first served within a class. The first of each class
books its start, in the order in which they became first; nobody overtakes a booked start, so a big request
is never starved by small ones. Every waiter gets one answer: from `reserve`, or later from `poll`.

Reservation ids are the caller's. Asking again with the same id, after a crash for instance, gets the same
answer and is charged once, until the reservation is cancelled.

Beside the configured limits, which all models of a provider share, each model has those that its responses
taught, and slots of its own. The tighter one holds. Who waits for its own model only holds up nobody else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from operator import attrgetter, gt
from typing import Literal

from rubberduck.core.bucket import Cell, Meter, MinuteWindow, TokenBucket
from rubberduck.core.learned import Learned, LearnedSnapshot, Taken
from rubberduck.core.pace import Pace
from rubberduck.core.rate_headers import RateHeaders
from rubberduck.core.slots import Slots
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

MODELS = 1000
"""Of how many models the limits are remembered; names come from users."""

NOTHING = Amounts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LimiterOptions:
    """What a provider allows. None means that no such limit is configured; the headers may teach one.

    `capacity` and `refill_rate` (per second) are a burst of requests, or of tokens with unit="tokens". The
    limits per minute are hard in every sliding 60 s. `max_concurrency` is per model. `reservation_ttl` is the time in
    seconds after which the slot of a holder that never came back is given to others; what it was charged stays charged.
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
    """No. `reason` is never_fits (larger than the limit itself), past_deadline, or key_quarantined; nothing was taken.

    `retry_after` is in seconds, None where no waiting helps or nobody can tell.
    """

    id: str
    reason: Literal["never_fits", "past_deadline", "key_quarantined"]
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """What survives a restart; all times relative, because the next clock may begin elsewhere."""

    blocked_for: float
    tokens: float | None
    minutes: dict[str, list[tuple[float, float]]]
    held: tuple[tuple[str, Amounts, float, str], ...]
    pace: tuple[float, float] = (1.0, 0.0)
    learned: dict[str, LearnedSnapshot] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A limiter as an operator sees it. `tokens` is None without a bucket.

    `pace` is the share of the configured rates that is used, below 1 for a while after a refusal; `learned` are the
    limits per minute that the headers taught, by model.
    """

    in_flight: int
    waiting: int
    tokens: float | None
    used_this_minute: dict[str, float]
    blocked_for: float
    granted: int
    refused: int
    lost: int
    pace: float = 1.0
    learned: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(slots=True)
class _Held:
    amounts: Amounts
    needs: Needs
    cells: list[Cell]
    since: float
    expires_at: float
    model: str
    taken: list[Taken] | None = None
    is_seen: bool = False


class Limiter:
    """The books of one provider's limits. `now` and deadlines are monotonic seconds.

    After `commit`, `cancel`, `observe`, `penalise` and `throttle`, and at `next_at`, ask `poll` who may go.
    `slots` is what all limiters of the provider share: when one has given back, the others have to be polled, too.
    """

    def __init__(self, options: LimiterOptions, now: float, slots: Slots | None = None) -> None:
        self._options = options
        self._slots = slots or Slots.up_to(options.max_concurrency)
        self._pace = Pace()
        self._learned: OrderedDict[str, Learned] = OrderedDict()
        self._bucket: TokenBucket | None = None
        self._units: list[str] = []
        self._meters: list[Meter] = []
        if options.capacity is not None and options.refill_rate is not None:
            self._bucket = TokenBucket(options.capacity, options.refill_rate, now, pace=self._pace)
            self._units.append(options.unit)
            self._meters.append(self._bucket)
        self._minutes = {
            name: MinuteWindow(limit, self._pace)
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
        model: str = "",
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
        if self._may_go_first(amounts, needs, model, now):
            self._grant(reservation, amounts, needs, ttl, model, now)
            return Granted(reservation)
        waiter = Waiter(reservation, amounts, needs, deadline, klass, ttl, model)
        wait = self._wait_in_line(waiter, now)
        if now + wait > deadline or wait == inf:
            self._refused += 1
            return Refused(reservation, "past_deadline", None if wait == inf else wait)
        self._line.enter(waiter)
        return Wait(reservation, now + wait if self._slots.has_room(model, amounts.concurrency) else None)

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
        if wait > 0 or self._is_somebody_before("", now):
            self._refused += 1
            return Refused("", "past_deadline", wait if 0 < wait < inf else None)
        for meter, need in zip(self._meters, needs, strict=True):
            meter.take(need, now)
        self._granted += 1
        return Granted("")

    def peek(self, amounts: Amounts, now: float, klass: Klass = "normal", model: str = "") -> float:
        """Seconds a reservation made now would wait, by estimate where others wait or slots lack; inf: for ever."""
        needs = self._needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            return inf
        self._release_lost(now)
        wait = self._wait_in_line(Waiter("", amounts, needs, inf, klass, 0.0, model), now)
        if not self._slots.has_room(model, amounts.concurrency):
            before = self._line.waiting_for(model)
            wait = max(wait, self._mean_hold * (1 + before) / self._slots.limit_of(model))
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
        times = []
        lacks_slots = False
        passed_over: set[str] = set()
        for first in self._line.booked:
            if first.model in passed_over:
                continue
            if self._model_wait(first.amounts, first.model, now) > 0:
                passed_over.add(first.model)
                times.append(now + self._wait(first.needs, first.amounts, first.model, now))
                continue
            if self._slots.has_room(first.model, first.amounts.concurrency):
                times.append(now + self._meters_wait(first.needs, now))
                break
            passed_over.add(first.model)
            lacks_slots = True
        if lacks_slots and self._held:
            times.append(next(iter(self._held.values())).expires_at)
        deadline = self._line.next_deadline()
        if deadline is not None:
            times.append(deadline)
        soonest = min(times, default=inf)
        return None if soonest == inf else max(now, soonest)

    def next_lost_at(self) -> float | None:
        """When the holder that was granted first is given up, should it not come back; None if there is none."""
        return next(iter(self._held.values())).expires_at if self._held else None

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
        if held.taken is not None:
            self._settle_learned(held, held.taken, actual, now)
        self._slots.give_back(held.model, held.amounts.concurrency)
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

    def _settle_learned(self, held: _Held, taken: list[Taken], actual: Amounts, now: float) -> None:
        for window, cell, amount in taken:
            window.settle(cell, amount, window.amount_of(actual), now)
        if actual.output > 0 and (learned := self._learned.get(held.model)) is not None:
            learned.answered(held.since)

    # -- what the provider says ----------------------------------------------------------------------------

    def observe(
        self, headers: RateHeaders, sent_at: float, now: float, *, model: str = "", reservation: str | None = None
    ) -> None:
        """Believe what a response said of the limits of `model`; `reservation` is of its request, sent at `sent_at`.

        Balances are lowered to it, never raised. A response to an older request than the last one applied is ignored.
        """
        held = self._held.get(reservation) if reservation is not None else None
        learned = self._learned.get(model)
        if not headers or (learned is not None and not learned.is_news(sent_at)):
            return
        if held is not None:
            held.is_seen = True
        (learned or self._learn(model)).observe(
            headers.quotas, sent_at, self._unseen(model, reservation, held, sent_at), now
        )

    def _unseen(self, model: str, reservation: str | None, held: _Held | None, sent_at: float) -> Amounts:
        """What was granted after the request that was answered: it may have left too late to be in that answer."""
        requests = input_ = output = 0.0
        for name, other in reversed(self._held.items()):
            if name == reservation or (held is None and other.since <= sent_at):
                break
            if other.model == model and not other.is_seen:
                requests += other.amounts.requests
                input_ += other.amounts.input
                output += other.amounts.output
        return Amounts(requests, input_, output, 0)

    def penalise(self, until: float, model: str | None = None) -> None:
        """Grant nothing before `until`, to one model or (None) to all: the provider said so. Balances stay.

        Never shortens an earlier penalty.
        """
        if model is None:
            self._blocked_until = max(self._blocked_until, until)
        else:
            learned = self._learn(model)
            learned.blocked_until = max(learned.blocked_until, until)

    def throttle(self, now: float, hint: float | None = None, *, sent_at: float = inf, model: str = "") -> None:
        """A request was refused for its rate: grant nothing to its model for `hint` seconds, and slow down.

        Without a hint the model rests for 1, 2, 4 .. 60 s, until an answer ends the row. The rates are halved once for
        all that was sent before the refusal was known, and grow back by a twentieth per quiet 10 s.
        """
        if self._learn(model).refused(sent_at, hint, now):
            if self._bucket is not None:
                self._bucket.tokens(now)  # what has flowed so far came at the old pace
            self._pace.halve(now)

    def _learn(self, model: str) -> Learned:
        learned = self._learned.get(model)
        if learned is None:
            learned = self._learned[model] = Learned()
            if len(self._learned) > MODELS:
                self._learned.popitem(last=False)
        else:
            self._learned.move_to_end(model)
        return learned

    def output_limit(self, model: str) -> float | None:
        """The smallest limit that output counts against: tokens per minute, or a bucket of them; None without any."""
        limits = [self._options.output_tokens_per_min]
        limits.append(self._options.capacity if self._options.unit == "tokens" else None)
        if (learned := self._learned.get(model)) is not None:
            limits += [window.most for counts, window in learned.windows.items() if counts not in ("requests", "input")]
        return min([limit for limit in limits if limit is not None], default=None)

    def counts_tokens(self, model: str) -> bool:
        """Whether any limit is about tokens, so that it matters how many a request has."""
        if self.output_limit(model) is not None or self._options.input_tokens_per_min is not None:
            return True
        learned = self._learned.get(model)
        return learned is not None and "input" in learned.windows

    # -- what others see, what survives --------------------------------------------------------------------

    def stats(self, now: float) -> LimiterStats:
        self._release_lost(now)
        return LimiterStats(
            in_flight=sum([held.amounts.concurrency for held in self._held.values()]),
            waiting=len(self._line),
            tokens=self._bucket.tokens(now) if self._bucket else None,
            used_this_minute={name: window.used(now) for name, window in self._minutes.items()},
            blocked_for=max(0.0, self._blocked_until - now),
            granted=self._granted,
            refused=self._refused,
            lost=self._lost,
            pace=self._pace.share(now),
            learned={
                model: {counts: window.most for counts, window in learned.windows.items()}
                for model, learned in self._learned.items()
            },
        )

    def snapshot(self, now: float) -> LimiterSnapshot:
        """Balances without all that is reserved, and the reservations out. Who waits asks again."""
        self._release_lost(now)
        return LimiterSnapshot(
            blocked_for=max(0.0, self._blocked_until - now),
            tokens=self._bucket.tokens(now) if self._bucket else None,
            minutes={name: window.ages(now) for name, window in self._minutes.items()},
            held=tuple((id_, held.amounts, held.expires_at - now, held.model) for id_, held in self._held.items()),
            pace=self._pace.snapshot(now),
            learned={model: learned.snapshot(now) for model, learned in self._learned.items()},
        )

    @classmethod
    def restore(
        cls,
        snapshot: LimiterSnapshot | None,
        options: LimiterOptions,
        now: float,
        slots: Slots | None = None,
    ) -> Limiter:
        """The limiter after a restart: never fuller than before. None, nothing known, means empty."""
        limiter = cls(options, now, slots)
        if limiter._bucket is not None:
            limiter._bucket.take(limiter._bucket.most, now)
            if snapshot is not None and snapshot.tokens is not None:
                limiter._bucket.settle(None, snapshot.tokens, 0.0, now)
        for name, window in limiter._minutes.items():
            window.restore(snapshot.minutes.get(name) if snapshot else None, now)
        if snapshot is not None:
            limiter._blocked_until = now + snapshot.blocked_for
            limiter._slow_down(Pace.restore(snapshot.pace, now))
            for model, learned in snapshot.learned.items():
                limiter._learned[model] = Learned.restore(learned, now)
            for reservation, amounts, remaining, model in snapshot.held:
                needs = limiter._needs(amounts)
                limiter._held[reservation] = _Held(amounts, needs, [None] * len(needs), now, now + remaining, model)
                limiter._slots.take(model, amounts.concurrency)
        return limiter

    def _slow_down(self, pace: Pace) -> None:
        self._pace = pace
        for meter in (self._bucket, *self._minutes.values()):
            if meter is not None:
                meter.pace = pace

    # -- the arithmetic of a vector ------------------------------------------------------------------------

    def _can_ever_fit(self, amounts: Amounts, needs: Needs) -> bool:
        if amounts.concurrency > self._options.max_concurrency:
            return False
        return not any(map(gt, needs, self._most))

    def _meters_wait(self, needs: Needs, now: float) -> float:
        """Seconds until every meter has its need; slots are another matter."""
        longest = self._blocked_until - now if self._blocked_until > now else 0.0
        for meter, need in zip(self._meters, needs, strict=True):
            if need > 0 and (wait := meter.wait(need, now)) > longest:
                longest = wait
        return longest

    def _model_wait(self, amounts: Amounts, model: str, now: float) -> float:
        """Seconds until the model's own limits, those that were learned, let one request go."""
        learned = self._learned.get(model)
        return 0.0 if learned is None else learned.wait(amounts, now)

    def _wait(self, needs: Needs, amounts: Amounts, model: str, now: float) -> float:
        return max(self._meters_wait(needs, now), self._model_wait(amounts, model, now))

    def _wait_for_all(self, needs: Needs, amounts: Amounts, model: str, now: float) -> float:
        """About how many seconds it takes until so much in all has been granted."""
        wait = self._meters_wait(needs, now)
        learned = self._learned.get(model)
        return wait if learned is None else max(wait, learned.wait_for_all(amounts, now))

    def _wait_in_line(self, newcomer: Waiter, now: float) -> float:
        """The wait of one who asks now; an estimate where others go before."""
        if self._is_somebody_before(newcomer.model, now):
            return self._wait_for_all(*self._line.needs_until(newcomer), newcomer.model, now)
        return self._wait(newcomer.needs, newcomer.amounts, newcomer.model, now)

    def _expected(self, waiter: Waiter, now: float) -> float | None:
        if not self._slots.has_room(waiter.model, waiter.amounts.concurrency):
            return None
        if waiter is self._line.first:
            return now + self._wait(waiter.needs, waiter.amounts, waiter.model, now)
        return now + self._wait_for_all(*self._line.needs_of_lane(waiter), waiter.model, now)

    def _is_somebody_before(self, model: str, now: float) -> bool:
        """Whether a newcomer has to wait its turn: for one of its own model, or one who waits for what all share."""
        return any(first.model == model or not self._waits_for_its_model(first, now) for first in self._line.booked)

    def _waits_for_its_model(self, waiter: Waiter, now: float) -> bool:
        """Whether it lacks a slot or what was learned of its model: then it holds up nobody who asks for another."""
        if not self._slots.has_room(waiter.model, waiter.amounts.concurrency):
            return True
        return self._model_wait(waiter.amounts, waiter.model, now) > 0

    def _may_go_first(self, amounts: Amounts, needs: Needs, model: str, now: float) -> bool:
        if not self._slots.has_room(model, amounts.concurrency) or self._meters_wait(needs, now) > 0:
            return False
        if self._learned and self._model_wait(amounts, model, now) > 0:
            return False
        return not len(self._line) or not self._is_somebody_before(model, now)

    # -- granting ------------------------------------------------------------------------------------------

    def _grant_booked(self, now: float, answers: list[Granted | Refused]) -> None:
        while (first := self._next_in_turn(now)) is not None:
            self._line.leave(first)
            self._grant(first.id, first.amounts, first.needs, first.ttl, first.model, now)
            answers.append(Granted(first.id))

    def _next_in_turn(self, now: float) -> Waiter | None:
        """Who may go now: the first booked start, but for those that wait for their model."""
        passed_over: set[str] = set()
        for first in self._line.booked:
            if first.model in passed_over:
                continue
            if self._waits_for_its_model(first, now):
                passed_over.add(first.model)
            elif self._meters_wait(first.needs, now) > 0:
                return None
            else:
                return first
        return None

    def _refuse_expired(self, now: float, answers: list[Granted | Refused]) -> bool:
        expired = self._line.leave_expired(now)
        for waiter in expired:
            self._refused += 1
            wait = self._wait(waiter.needs, waiter.amounts, waiter.model, now)
            answers.append(Refused(waiter.id, "past_deadline", None if wait == inf else wait))
        return bool(expired)

    def _grant(self, reservation: str, amounts: Amounts, needs: Needs, ttl: float, model: str, now: float) -> None:
        cells = [meter.take(need, now) for meter, need in zip(self._meters, needs, strict=True)]
        held = self._held[reservation] = _Held(amounts, needs, cells, now, now + ttl, model)
        if (learned := self._learned.get(model)) is not None:
            held.taken = learned.take(amounts, now)
        self._slots.take(model, amounts.concurrency)
        self._granted += 1

    def _release_lost(self, now: float) -> None:
        """Free the slots of holders that never came back; their charge stays."""
        while self._held:
            oldest = next(iter(self._held))
            held = self._held[oldest]
            if held.expires_at > now:
                return
            del self._held[oldest]
            self._slots.give_back(held.model, held.amounts.concurrency)
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
