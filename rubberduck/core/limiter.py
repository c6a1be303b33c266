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

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from rubberduck.core.configured import Configured, ConfiguredSnapshot, Sharing
from rubberduck.core.learned import LearnedModels, LearnedSnapshot
from rubberduck.core.limits import Granted, LimiterOptions, LimiterStats, Refused, Wait
from rubberduck.core.rate_headers import RateHeaders
from rubberduck.core.reservations import Reservation, Reservations
from rubberduck.core.sliding import TIME_TOLERANCE
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

NOTHING = Amounts(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class LimiterSnapshot:
    """What survives a restart; all times relative, because the next clock may begin elsewhere.

    `held` are the reservations out: id, amounts, seconds until it counts as lost, model.
    """

    blocked_for: float
    configured: ConfiguredSnapshot
    held: tuple[tuple[str, Amounts, float, str], ...]
    learned: dict[str, LearnedSnapshot] = field(default_factory=dict)


class Limiter:
    """The books of one provider's limits. `now` and deadlines are monotonic seconds.

    After `commit`, `cancel`, `observe`, `penalise` and `throttle`, and at `next_at`, ask `poll` who may go.
    `slots` is what all limiters of the provider share: when one has given back, the others have to be polled, too.
    """

    def __init__(
        self, options: LimiterOptions, now: float, slots: Slots | None = None, *, configured: Configured | None = None
    ) -> None:
        self._options = options
        self._slots = slots or Slots.up_to(options.max_concurrency)
        self._configured = configured or Configured(options, now)
        self._meters = self._configured.meters
        self._learned = LearnedModels()
        self._blocked_until = -inf
        self._mean_hold = 1.0
        self._reservations = Reservations()
        self._out = self._reservations.out
        self._line = WaitingLine(len(self._meters))
        self._granted = self._refused = self._lost = 0
        # Called once, at the next question or grant, or when somebody leaves the line: who may go has changed then.
        self.on_change: Callable[[], object] | None = None

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
        if self._reservations.was_granted(reservation):
            return Granted(reservation)
        if self.on_change is not None:
            self._tell_of_change()
        ttl = self._options.reservation_ttl if ttl is None else ttl
        self._release_lost(now)
        ask = self._asked(amounts, model, ttl, now)
        if now <= deadline and self._may_go_first(ask, now):
            # Who waits and asks again is among those before it, or is itself the first: it does not get here.
            self._grant(reservation, ask, now)
            return Granted(reservation)
        return self._get_in_line(Waiter(reservation, amounts, ask.needs, deadline, klass, ttl, model), now)

    def _get_in_line(self, waiter: Waiter, now: float) -> Wait | Refused:
        known = self._line.get(waiter.id)
        if known is not None:
            return Wait(waiter.id, self._expected(known, now))
        if not self._can_ever_fit(waiter.amounts, waiter.needs):
            return self._refuse(waiter.id, "never_fits")
        if now > waiter.deadline:
            return self._refuse(waiter.id, "past_deadline")
        wait = self._wait_in_line(waiter, now)
        if now + wait > waiter.deadline or wait == inf:
            return self._refuse(waiter.id, "past_deadline", wait)
        self._line.enter(waiter)
        return Wait(waiter.id, now + wait if self._has_slots(waiter) else None)

    def check(self, tokens: float, now: float) -> Granted | Refused:
        """Take `tokens` of the bucket's unit now, with no slot and nothing to settle, or say when to come back."""
        if self._options.unit == "tokens":
            amounts = Amounts(requests=1, input=tokens, concurrency=0)
        else:
            amounts = Amounts(requests=tokens, concurrency=0)
        needs = self._meters.needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            return self._refuse("", "never_fits")
        wait = self.peek(amounts, now)
        if wait > 0 or self._is_somebody_before("", now):
            return self._refuse("", "past_deadline", wait or inf)
        self._meters.take(needs, now)
        self._granted += 1
        return Granted("")

    def peek(self, amounts: Amounts, now: float, klass: Klass = "normal", model: str = "") -> float:
        """Seconds a reservation made now would wait, by estimate where others wait or slots lack; inf: for ever."""
        needs = self._meters.needs(amounts)
        if not self._can_ever_fit(amounts, needs):
            return inf
        self._release_lost(now)
        if self._line.booked:
            wait = self._wait_in_line(Waiter("", amounts, needs, inf, klass, 0.0, model), now)
        else:  # peeked at for every candidate of every call, and nearly always nobody is in line
            wait = self._wait(needs, amounts, model, now)
        if not self._slots.has_room(model, amounts.concurrency):
            before = self._line.waiting_for(model)
            wait = max(wait, self._mean_hold * (1 + before) / self._slots.limit_of(model))
        return wait

    def _refuse(self, id: str, reason: Literal["never_fits", "past_deadline"], wait: float = inf) -> Refused:
        self._refused += 1
        return Refused(id, reason, None if wait == inf else wait)

    # -- answering those who wait --------------------------------------------------------------------------

    def poll(self, now: float) -> list[Granted | Refused]:
        """The answers that have become due: who may go now, and whose deadline passed. Each is told once."""
        self._release_lost(now)
        answers: list[Granted | Refused] = []
        self._grant_booked(now, answers)
        if self._refuse_expired(now, answers):
            self._grant_booked(now, answers)
        if answers:
            self._tell_of_change()
        return answers

    def next_at(self, now: float) -> float | None:
        """When `poll` may next have an answer by time alone; None if only a commit or cancel can bring one."""
        soonest = self._line.next_deadline()
        for first, own in self._in_turn(now):
            at = (
                self._reservations.no_loss_before if own == inf else now + max(own, self._shared_wait(first.needs, now))
            )
            soonest = min(soonest, at)
        return None if soonest == inf else max(now, soonest)

    def next_lost_at(self) -> float | None:
        """When one of those out may have to be given up, should its holder not come back; None if there is none."""
        return None if self._reservations.no_loss_before == inf else self._reservations.no_loss_before

    # -- settling ------------------------------------------------------------------------------------------

    def commit(self, reservation: str, actual: Amounts, now: float) -> bool:
        """Settle a reservation with what was really used: a surplus returns, an excess is paid before the next grant.

        False, and no effect, if `reservation` holds nothing: settled already, lost, or never granted.
        """
        if not self._settle(reservation, actual, now):
            return False
        self._reservations.remember(reservation)
        return True

    def cancel(self, reservation: str, now: float) -> bool:
        """Give everything back, or leave the line; for what was never sent. False if there was nothing.

        The id is free again: asking with it once more is a new question.
        """
        waiter = self._line.get(reservation)
        if waiter is not None:
            self._line.leave(waiter)
            self._tell_of_change()
            return True
        return self._settle(reservation, NOTHING, now)

    def _settle(self, reservation: str, actual: Amounts, now: float) -> bool:
        held = self._out.pop(reservation, None)
        if held is None:
            return False
        self._meters.settle(held.needs, held.cells, actual, now)
        if held.learned is not None:
            held.learned.meters.settle(held.learned_needs, held.learned_cells, actual, now)
            if actual.output > 0:
                held.learned.answered(held.since)
        self._slots.give_back(held.model, held.amounts.concurrency)
        self._mean_hold += 0.1 * (now - held.since - self._mean_hold)
        return True

    # -- what the provider says ----------------------------------------------------------------------------

    def observe(
        self, headers: RateHeaders, sent_at: float, now: float, *, model: str = "", reservation: str | None = None
    ) -> None:
        """Believe what a response said of the limits of `model`; `reservation` is of its request, sent at `sent_at`.

        Balances are lowered to it, never raised. A response to an older request than the last one applied is ignored.
        """
        held = self._out.get(reservation) if reservation is not None else None
        learned = self._learned.get(model)
        if not headers or (learned is not None and not learned.is_news(sent_at)):
            return
        if held is not None:
            held.is_seen = True
        unseen = self._reservations.unseen(model, reservation, sent_at)
        self._learned.of(model).observe(headers.quotas, sent_at, unseen, now)

    def penalise(self, until: float, model: str | None = None) -> None:
        """Grant nothing before `until`, to one model or (None) to all: the provider said so. Balances stay.

        Never shortens an earlier penalty.
        """
        if model is None:
            self._blocked_until = max(self._blocked_until, until)
        else:
            self._learned.of(model).penalise(until)

    def throttle(self, now: float, hint: float | None = None, *, sent_at: float = inf, model: str = "") -> None:
        """A request was refused for its rate: grant nothing to its model for `hint` seconds, and slow down.

        Without a hint the model rests for 1, 2, 4 .. 60 s, until an answer ends the row. The rates are halved once for
        all that was sent before the refusal was known, and grow back by a twentieth per quiet 10 s.
        """
        if self._learned.of(model).refused(sent_at, hint, now):
            self._configured.halve(now)

    def output_limit(self, model: str) -> float | None:
        """The smallest limit that output counts against: tokens per minute, or a bucket of them; None without any."""
        limits = [self._options.output_tokens_per_min]
        limits.append(self._options.capacity if self._options.unit == "tokens" else None)
        if (learned := self._learned.get(model)) is not None:
            limits += learned.output_limits()
        return min([limit for limit in limits if limit is not None], default=None)

    def input_limit(self, model: str) -> float | None:
        """As `output_limit`, for input."""
        limits = [self._options.input_tokens_per_min]
        limits.append(self._options.capacity if self._options.unit == "tokens" else None)
        if (learned := self._learned.get(model)) is not None:
            limits += learned.input_limits()
        return min([limit for limit in limits if limit is not None], default=None)

    def counts_tokens(self, model: str) -> bool:
        """Whether any limit is about tokens, so that it matters how many a request has."""
        if self.output_limit(model) is not None or self._options.input_tokens_per_min is not None:
            return True
        learned = self._learned.get(model)
        return learned is not None and "input" in learned.windows

    def is_limited(self, model: str, now: float) -> bool:
        """Whether a call to `model` may have to wait for more than a slot."""
        return bool(self._meters) or self._blocked_until > now or self._learned.get(model) is not None

    def _tell_of_change(self) -> None:
        tell, self.on_change = self.on_change, None
        if tell is not None:
            tell()

    def waiting_for(self, model: str) -> int:
        """How many wait for `model`."""
        return self._line.waiting_for(model)

    def knows(self, reservation: str) -> bool:
        """Whether it has been asked for, and not been refused."""
        return self._line.get(reservation) is not None or self._reservations.was_granted(reservation)

    # -- what others see, what survives --------------------------------------------------------------------

    def stats(self, now: float) -> LimiterStats:
        self._release_lost(now)
        return LimiterStats(
            in_flight=sum([held.amounts.concurrency for held in self._out.values()]),
            waiting=len(self._line),
            tokens=self._configured.tokens(now),
            used_this_minute=self._configured.used_this_minute(now),
            blocked_for=max(0.0, self._blocked_until - now),
            granted=self._granted,
            refused=self._refused,
            lost=self._lost,
            pace=self._configured.pace.share(now),
            learned=self._learned.limits(),
        )

    def snapshot(self, now: float) -> LimiterSnapshot:
        """Balances without all that is reserved, and the reservations out. Who waits asks again."""
        self._release_lost(now)
        return LimiterSnapshot(
            blocked_for=max(0.0, self._blocked_until - now),
            configured=self._configured.snapshot(now),
            held=tuple((id, held.amounts, held.expires_at - now, held.model) for id, held in self._out.items()),
            learned=self._learned.snapshot(now),
        )

    @classmethod
    def restore(
        cls,
        snapshot: LimiterSnapshot | None,
        options: LimiterOptions,
        now: float,
        slots: Slots | None = None,
        *,
        sharing: Sharing | None = None,
    ) -> Limiter:
        """The limiter after a restart: never fuller than before. None, nothing known, means empty."""
        if snapshot is None:
            return cls(options, now, slots, configured=Configured.restore(None, options, now, sharing))
        configured = Configured.restore(snapshot.configured, options, now, sharing)
        limiter = cls(options, now, slots, configured=configured)
        limiter._blocked_until = now + snapshot.blocked_for
        limiter._learned = LearnedModels.restore(snapshot.learned, now)
        for id, amounts, remaining, model in snapshot.held:
            limiter._hold_again(id, amounts, remaining, model, now)
        return limiter

    def _hold_again(self, id: str, amounts: Amounts, remaining: float, model: str, now: float) -> None:
        """It was charged in the former life; when is forgotten, so that no minute gets a surplus back."""
        held = self._asked(amounts, model, remaining, now)
        held.cells, held.learned_cells = [None] * len(held.needs), [None] * len(held.learned_needs)
        self._reservations.add(id, held)
        self._slots.take(model, amounts.concurrency)

    # -- who may go ----------------------------------------------------------------------------------------

    def _can_ever_fit(self, amounts: Amounts, needs: Needs) -> bool:
        return amounts.concurrency <= self._options.max_concurrency and self._meters.can_ever_fit(needs)

    def _may_go_first(self, ask: Reservation, now: float) -> bool:
        """Whether one who asks now gets it at once. What is larger than a limit never does."""
        if self._blocked_until - now > TIME_TOLERANCE or self._meters.wait(ask.needs, now) > 0:
            return False
        if ask.learned is not None and ask.learned.wait_for(ask.learned_needs, ask.amounts, now) > 0:
            return False
        if self._line.booked and self._is_somebody_before(ask.model, now):
            return False
        return self._slots.has_room(ask.model, ask.amounts.concurrency)

    def _is_somebody_before(self, model: str, now: float) -> bool:
        """Whether a newcomer has to wait its turn: for one of its own model, or one who waits for what all share."""
        for first in self._line.booked:  # noqa: SIM110 (asked before every grant; a generator costs twice as much)
            if first.model == model or self._own_wait(first, now) <= 0:
                return True
        return False

    def _in_turn(self, now: float) -> Iterator[tuple[Waiter, float]]:
        """Who may be next, and the wait for its own model: the first of each, up to one that waits for nothing own."""
        models: set[str] = set()
        for first in self._line.booked:
            if first.model not in models:
                models.add(first.model)
                own = self._own_wait(first, now)
                yield first, own
                if own <= 0:
                    return

    def _has_slots(self, waiter: Waiter) -> bool:
        return self._slots.has_room(waiter.model, waiter.amounts.concurrency)

    # -- how long it takes ---------------------------------------------------------------------------------

    def _rest(self, now: float) -> float:
        """Seconds until a penalty for all models is over."""
        left = self._blocked_until - now
        return left if left > TIME_TOLERANCE else 0.0

    def _shared_wait(self, needs: Needs, now: float) -> float:
        """Seconds until what all models share lets a request go."""
        return max(self._rest(now), self._meters.wait(needs, now))

    def _learned_wait(self, amounts: Amounts, model: str, now: float) -> float:
        """Seconds until what was learned of `model` lets a request go."""
        learned = self._learned.get(model)
        return 0.0 if learned is None else learned.wait(amounts, now)

    def _own_wait(self, waiter: Waiter, now: float) -> float:
        """Seconds that a waiter waits for its own model, and so holds up nobody else; inf while it lacks a slot."""
        return self._learned_wait(waiter.amounts, waiter.model, now) if self._has_slots(waiter) else inf

    def _wait(self, needs: Needs, amounts: Amounts, model: str, now: float) -> float:
        """Seconds until one who is the first may go."""
        return max(self._shared_wait(needs, now), self._learned_wait(amounts, model, now))

    def _wait_of(self, waiter: Waiter, now: float) -> float:
        return self._wait(waiter.needs, waiter.amounts, waiter.model, now)

    def _wait_for_all(self, needs: Needs, amounts: Amounts, model: str, now: float) -> float:
        """About how many seconds it takes until so much in all has been granted."""
        wait = max(self._rest(now), self._meters.wait_for_all(needs, now))
        learned = self._learned.get(model)
        return wait if learned is None else max(wait, learned.wait_for_all(amounts, now))

    def _wait_in_line(self, newcomer: Waiter, now: float) -> float:
        """The wait of one who asks now; an estimate where others go before."""
        if self._line.booked and self._is_somebody_before(newcomer.model, now):
            return self._wait_for_all(*self._line.needs_until(newcomer), newcomer.model, now)
        return self._wait_of(newcomer, now)

    def _expected(self, waiter: Waiter, now: float) -> float | None:
        if not self._has_slots(waiter):
            return None
        if waiter is self._line.booked[0]:
            return now + self._wait_of(waiter, now)
        return now + self._wait_for_all(*self._line.needs_of_lane(waiter), waiter.model, now)

    # -- granting ------------------------------------------------------------------------------------------

    def _grant_booked(self, now: float, answers: list[Granted | Refused]) -> None:
        while (first := self._next_in_turn(now)) is not None:
            self._line.leave(first)
            self._grant(first.id, self._asked(first.amounts, first.model, first.ttl, now), now)
            answers.append(Granted(first.id))

    def _next_in_turn(self, now: float) -> Waiter | None:
        for first, own in self._in_turn(now):
            if own <= 0 and self._shared_wait(first.needs, now) <= 0:
                return first
        return None

    def _refuse_expired(self, now: float, answers: list[Granted | Refused]) -> bool:
        expired = self._line.leave_expired(now)
        answers.extend([self._refuse(waiter.id, "past_deadline", self._wait_of(waiter, now)) for waiter in expired])
        return bool(expired)

    def _asked(self, amounts: Amounts, model: str, ttl: float, now: float) -> Reservation:
        """The reservation that is asked for; nothing is charged yet."""
        learned = self._learned.get(model)
        learned_needs = () if learned is None else learned.meters.needs(amounts)
        return Reservation(amounts, self._meters.needs(amounts), model, now, now + ttl, learned, learned_needs)

    def _grant(self, id: str, ask: Reservation, now: float) -> None:
        ask.cells = self._meters.take(ask.needs, now)
        if ask.learned is not None:
            ask.learned_cells = ask.learned.meters.take(ask.learned_needs, now)
        self._reservations.add(id, ask)
        self._slots.take(ask.model, ask.amounts.concurrency)
        self._granted += 1

    def _release_lost(self, now: float) -> None:
        """Free the slots of holders that never came back; their charge stays."""
        if now >= self._reservations.no_loss_before:
            for held in self._reservations.lose_expired(now):
                self._slots.give_back(held.model, held.amounts.concurrency)
                self._lost += 1
