"""Shares one provider's limits among all calls to it, and lets each wait for its turn."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any

import supervision as sup
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.configured import Configured, Sharing
from rubberduck.core.learned import LONGEST_BLOCK
from rubberduck.core.limiter import Amounts, Granted, Klass, Limiter, LimiterOptions, LimiterStats, Refused, Wait
from rubberduck.core.rate_headers import RateHeaders
from rubberduck.core.slots import Slots
from rubberduck.core.values import value
from rubberduck.errors import InvalidRequest, RateLimited

ONE_REQUEST = Amounts()

_Limits = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class CheckRate(sup.Ask[Granted | RateLimited]):
    """Take `tokens` of the bucket now, or hear in `retry_after` when to come back."""

    tokens: float = 1


@value(frozen=True, slots=True)
class Reserve(sup.Ask[Granted | Refused | Wait]):
    """Take `amounts`, waiting for them until `deadline` (the system clock). Repeating an id charges once.

    With `tells_wait` who has to wait hears it at once, stands in line meanwhile, and asks again without it.
    """

    id: str
    amounts: Amounts = ONE_REQUEST
    deadline: float = inf
    klass: Klass = "normal"
    ttl: float | None = None
    model: str = ""
    key: int = 0
    tells_wait: bool = False


@value(frozen=True, slots=True)
class Commit(sup.Ask[bool]):
    """The call has ended and used `actual`: surplus returns, excess is debt, the slot is free."""

    id: str
    actual: Amounts
    key: int = 0


@dataclass(frozen=True, slots=True)
class Cancel(sup.Ask[bool]):
    """Nothing was sent: everything returns; or the wait is given up."""

    id: str
    key: int = 0


@dataclass(frozen=True, slots=True)
class Penalise(sup.Ask[None]):
    """The provider said to stay away for `seconds`, from one model or (None) at all. No quota is in question."""

    seconds: float
    model: str | None = None
    key: int = 0


@dataclass(frozen=True, slots=True)
class Throttle(sup.Ask[None]):
    """The provider refused for its rate what was sent at `sent_at`, and said to wait `seconds`, or not how long."""

    seconds: float | None
    model: str
    sent_at: float
    key: int = 0


@dataclass(frozen=True, slots=True)
class Observe:
    """What the headers of a response said; the request was sent at `sent_at` under the reservation `id`."""

    id: str
    model: str
    headers: RateHeaders
    sent_at: float
    key: int = 0


@dataclass(frozen=True, slots=True)
class TurnAway(sup.Ask[int]):
    """Whoever waits for `key`, with one model or (None) any, should look for another. How many did."""

    key: int
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Refilled:
    """What this process may spend of a limit shared with others has changed: somebody may be due."""


@dataclass(frozen=True, slots=True)
class GetStats(sup.Ask[LimiterStats]):
    """The balances now: of one key, or (None) of all together."""

    key: int | None = None


@dataclass(frozen=True, slots=True)
class _Poll:
    """A time has come at which somebody may be due."""

    at: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Who is owed an answer, and which key and model it waits for."""

    reply: sup.Reply
    key: int
    model: str


class RateLimiterActor(sup.Actor):
    """Shares one provider's buckets among all calls to it: each of its `keys` has its own, the slots are common.

    Why an actor: calls run side by side, and one must not spend another's tokens.
    Asks: no one. Restart: comes back with what its open reservations leave, never fuller than before; who waited
    asks again under the same id. A message that it does not know, or cannot use, is answered with InvalidRequest.

    `publish(key, limiter)` lets readers peek without asking. `concurrency_of(model)` is the number of slots of a model,
    which calls move by how they end. `sharing(key, refilled)` makes the meters of limits that other processes share.
    """

    expected_errors = (InvalidRequest,)

    def __init__(
        self,
        provider: str,
        options: LimiterOptions,
        *,
        keys: int = 1,
        publish: Callable[[int, Limiter], object] | None = None,
        concurrency_of: Callable[[str], Concurrency] | None = None,
        sharing: Callable[[int, Callable[[], object]], Sharing] | None = None,
    ) -> None:
        super().__init__()
        self._sharing = sharing
        self._concurrency_of = concurrency_of
        self._provider = provider
        self._options = options
        self._publish = publish
        self._keys = keys
        self._limiters: dict[int, Limiter] = {}
        self._turn = 0
        self._waiting: dict[str, _Waiting] = {}
        self._told: set[str] = set()
        self._poll_at: float | None = None

    def on_start(self) -> None:
        now, slots = self.context.clock.now(), self._slots()
        former: dict[int, Limiter] | None = self.context.snapshot
        for key in range(self._keys):
            sharing = None if self._sharing is None else self._sharing(key, self._look_again)
            if self.context.restart_reason is None and former is None:
                configured = Configured(self._options, now, sharing=sharing)
                limiter = Limiter(self._options, now, slots, configured=configured)
            else:
                balances = _last_balances((former or {}).get(key), now)
                limiter = Limiter.restore(balances, self._options, now, slots, sharing=sharing)
            self._limiters[key] = limiter
            if self._publish is not None:
                self._publish(key, limiter)
        # The books themselves are the snapshot: they are always whole between two messages, and taking a copy
        # after each message would cost more than the decision.
        self.remember(self._limiters)

    def _look_again(self) -> None:
        self.actor_ref.tell(Refilled())

    def _slots(self) -> Slots | None:
        """Counted anew in each life, from the reservations that are known."""
        return None if self._concurrency_of is None else Slots(self._concurrency_of)

    def on_receive(self, message: Any) -> Any:
        now = self.context.clock.now()
        match message:
            case Reserve():
                return self._reserve(message, now)
            case Commit(id=id, actual=actual, key=key):
                settled = self._of(key).commit(id, actual, now)
                self._answer_due(now)
                return settled
            case Cancel(id=id, key=key):
                settled = self._of(key).cancel(id, now)
                self._waiting.pop(id, None)
                self._told.discard(id)
                self._answer_due(now)
                return settled
            case CheckRate(tokens=tokens):
                return self._check(_amount(tokens, "tokens"), now)
            case Observe(id=id, model=model, headers=headers, sent_at=sent_at, key=key):
                self._of(key).observe(headers, sent_at, now, model=model, reservation=id)
                self._answer_due(now)
            case Penalise(seconds=seconds, model=penalised, key=key):
                self._of(key).penalise(now + min(_amount(seconds, "seconds"), LONGEST_BLOCK), penalised)
            case Throttle(seconds=hint, model=model, sent_at=sent_at, key=key):
                hint = None if hint is None else _amount(hint, "seconds")
                self._of(key).throttle(now, hint, sent_at=sent_at, model=model)
            case TurnAway(key=key, model=turned):
                return self._turn_away(key, turned, now)
            case GetStats(key=asked):
                return self._stats(now) if asked is None else self._of(asked).stats(now)
            case Refilled():
                self._answer_due(now)
            case _Poll(at=at):
                if self._poll_at == at:
                    self._poll_at = None
                self._answer_due(now)
            case _:
                raise InvalidRequest(f"a rate limiter does not understand {type(message).__name__}")
        return None

    def _reserve(self, message: Reserve, now: float) -> Any:
        answer = self._of(message.key).reserve(
            message.id, message.amounts, now, message.deadline, message.klass, message.ttl, message.model
        )
        if not isinstance(answer, Wait):
            return answer
        if message.tells_wait:
            self._told.add(message.id)
            return answer
        self._told.discard(message.id)
        reply = self.owe()
        self._waiting[message.id] = _Waiting(reply, message.key, message.model)
        self._wake_when_due(now)
        return reply

    def _of(self, key: int) -> Limiter:
        limiter = self._limiters.get(key)
        if limiter is None:
            raise InvalidRequest(f"{self._provider} has no key {key!r}: they are counted from 0", field="key")
        return limiter

    def _answer_due(self, now: float) -> None:
        for limiter in self._in_turn():
            for answer in limiter.poll(now):
                self._answer(answer, limiter, now)
        self._wake_when_due(now)

    def _in_turn(self) -> Iterable[Limiter]:
        """All limiters, each time with another one first: a slot that comes free may go to any of them.

        Several go round twice: what one gives up as lost may be what one before it waits for.
        """
        if self._keys == 1:
            return self._limiters.values()
        self._turn += 1
        return [self._limiters[(self._turn + key) % self._keys] for key in range(2 * self._keys)]

    def _answer(self, answer: Granted | Refused, limiter: Limiter, now: float) -> None:
        waiting = self._waiting.pop(answer.id, None)
        if waiting is not None and waiting.reply.is_wanted:
            waiting.reply.set(answer)
        elif answer.id in self._told:
            self._told.discard(answer.id)  # the question that it asks again is on its way, and will be answered so
        elif isinstance(answer, Granted):
            limiter.cancel(answer.id, now)

    def _turn_away(self, key: int, model: str | None, now: float) -> int:
        limiter = self._of(key)
        turned = [id for id, each in self._waiting.items() if each.key == key and model in (None, each.model)]
        for id in turned:
            limiter.cancel(id, now)
            self._answer(Refused(id, "key_quarantined", 0.0), limiter, now)
        self._answer_due(now)
        return len(turned)

    def _wake_when_due(self, now: float) -> None:
        if not self._waiting:
            return
        times = [limiter.next_at(now) for limiter in self._limiters.values()]
        if len(times) > 1:  # who never comes back with another key's reservation may hold the slot that is waited for
            times += [limiter.next_lost_at() for limiter in self._limiters.values()]
        at = min([time for time in times if time is not None], default=None)
        if at is not None and (self._poll_at is None or at < self._poll_at):
            self._poll_at = at
            self.send_after(self.actor_ref, _Poll(at), at - now)

    def _check(self, tokens: float, now: float) -> Granted | RateLimited:
        refusals = []
        for limiter in self._limiters.values():
            answer = limiter.check(tokens, now)
            if isinstance(answer, Granted):
                return answer
            refusals.append(answer)
        answer = min(refusals, key=lambda each: inf if each.retry_after is None else each.retry_after)
        text = f"the rate limit of {self._provider} has no room: {answer.reason.replace('_', ' ')}"
        return RateLimited(text, provider=self._provider, retry_after=answer.retry_after)

    def _stats(self, now: float) -> LimiterStats:
        first, *others = [self._limiters[key].stats(now) for key in range(self._keys)]
        return functools.reduce(_together, others, first)


def _amount(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise InvalidRequest(f"{name} is a number from 0 on, not {value!r}", field=name)
    return value


def _together(one: LimiterStats, other: LimiterStats) -> LimiterStats:
    """The balances of two keys as one: what is counted is added; of the rest, the kinder of the two is told."""
    sums = ("in_flight", "waiting", "granted", "refused", "lost")
    used, more = one.used_this_minute, other.used_this_minute
    return replace(
        one,
        **{name: getattr(one, name) + getattr(other, name) for name in sums},
        tokens=None if one.tokens is None or other.tokens is None else one.tokens + other.tokens,
        used_this_minute={name: amount + more.get(name, 0.0) for name, amount in used.items()},
        blocked_for=min(one.blocked_for, other.blocked_for),
        pace=max(one.pace, other.pace),
        learned={model: _added(one.learned, other.learned, model) for model in {**one.learned, **other.learned}},
    )


def _added(one: _Limits, other: _Limits, model: str) -> dict[str, float]:
    first, second = one.get(model, {}), other.get(model, {})
    return {counts: first.get(counts, 0.0) + second.get(counts, 0.0) for counts in {**first, **second}}


def _last_balances(books: Limiter | None, now: float) -> Any:
    """What the former incarnation's books say; nothing, if they cannot be read any more."""
    if books is None:
        return None
    try:
        return books.snapshot(now)
    except Exception:  # noqa: BLE001  (books that a crash left torn are worth nothing; an empty limiter is safe)
        return None
