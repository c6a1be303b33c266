"""Shares one provider's limits among all calls to it, and lets each wait for its turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import supervision as sup
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.learned import LONGEST_BLOCK
from rubberduck.core.limiter import Amounts, Granted, Klass, Limiter, LimiterOptions, LimiterStats, Refused, Wait
from rubberduck.core.rate_headers import RateHeaders
from rubberduck.core.slots import Slots
from rubberduck.errors import InvalidRequest, RateLimited

ONE_REQUEST = Amounts()


@dataclass(frozen=True, slots=True)
class CheckRate(sup.Ask[Granted | RateLimited]):
    """Take `tokens` of the bucket now, or hear in `retry_after` when to come back."""

    tokens: float = 1


@dataclass(frozen=True, slots=True)
class Reserve(sup.Ask[Granted | Refused]):
    """Take `amounts`, waiting for them until `deadline` (the system clock). Repeating an id charges once."""

    id: str
    amounts: Amounts = ONE_REQUEST
    deadline: float = inf
    klass: Klass = "normal"
    ttl: float | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Commit(sup.Ask[bool]):
    """The call has ended and used `actual`: surplus returns, excess is debt, the slot is free."""

    id: str
    actual: Amounts


@dataclass(frozen=True, slots=True)
class Cancel(sup.Ask[bool]):
    """Nothing was sent: everything returns; or the wait is given up."""

    id: str


@dataclass(frozen=True, slots=True)
class Penalise(sup.Ask[None]):
    """The provider said to stay away for `seconds`, from one model or (None) at all. No quota is in question."""

    seconds: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Throttle(sup.Ask[None]):
    """The provider refused for its rate what was sent at `sent_at`, and said to wait `seconds`, or not how long."""

    seconds: float | None
    model: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class Observe:
    """What the headers of a response said; the request was sent at `sent_at` under the reservation `id`."""

    id: str
    model: str
    headers: RateHeaders
    sent_at: float


@dataclass(frozen=True, slots=True)
class GetStats(sup.Ask[LimiterStats]):
    """The balances now."""


@dataclass(frozen=True, slots=True)
class _Poll:
    """A time has come at which somebody may be due."""

    at: float


class RateLimiterActor(sup.Actor):
    """Shares one provider's buckets among all calls to it.

    Why an actor: calls run side by side, and one must not spend another's tokens.
    Asks: no one. Restart: comes back with what its open reservations leave, never fuller than before; who waited
    asks again under the same id. A message that it does not know, or cannot use, is answered with InvalidRequest.

    `publish(limiter)` lets readers peek without asking. `concurrency_of(model)` is the number of slots of a model,
    which calls move by how they end.
    """

    expected_errors = (InvalidRequest,)

    def __init__(
        self,
        provider: str,
        options: LimiterOptions,
        *,
        publish: Callable[[Limiter], object] | None = None,
        concurrency_of: Callable[[str], Concurrency] | None = None,
    ) -> None:
        super().__init__()
        self._concurrency_of = concurrency_of
        self._provider = provider
        self._options = options
        self._publish = publish
        self._waiting: dict[str, sup.Reply] = {}
        self._poll_at: float | None = None

    def on_start(self) -> None:
        now = self.context.clock.now()
        if self.context.restart_reason is None and self.context.snapshot is None:
            self._limiter = Limiter(self._options, now, self._slots())
        else:
            balances = _last_balances(self.context.snapshot, now)
            self._limiter = Limiter.restore(balances, self._options, now, self._slots())
        # The books themselves are the snapshot: they are always whole between two messages, and taking a copy
        # after each message would cost more than the decision.
        self.remember(self._limiter)
        if self._publish is not None:
            self._publish(self._limiter)

    def _slots(self) -> Slots | None:
        """Counted anew in each life, from the reservations that are known."""
        return None if self._concurrency_of is None else Slots(self._concurrency_of)

    def on_receive(self, message: Any) -> Any:
        now = self.context.clock.now()
        match message:
            case Reserve():
                return self._reserve(message, now)
            case Commit(id=id, actual=actual):
                settled = self._limiter.commit(id, actual, now)
                self._answer_due(now)
                return settled
            case Cancel(id=id):
                settled = self._limiter.cancel(id, now)
                self._waiting.pop(id, None)
                self._answer_due(now)
                return settled
            case CheckRate(tokens=tokens):
                return self._for_asker(self._limiter.check(_amount(tokens, "tokens"), now))
            case Observe(id=id, model=model, headers=headers, sent_at=sent_at):
                self._limiter.observe(headers, sent_at, now, model=model, reservation=id)
                self._answer_due(now)
            case Penalise(seconds=seconds, model=penalised):
                self._limiter.penalise(now + min(_amount(seconds, "seconds"), LONGEST_BLOCK), penalised)
            case Throttle(seconds=hint, model=model, sent_at=sent_at):
                hint = None if hint is None else _amount(hint, "seconds")
                self._limiter.throttle(now, hint, sent_at=sent_at, model=model)
            case GetStats():
                return self._limiter.stats(now)
            case _Poll(at=at):
                if self._poll_at == at:
                    self._poll_at = None
                self._answer_due(now)
            case _:
                raise InvalidRequest(f"a rate limiter does not understand {type(message).__name__}")
        return None

    def _reserve(self, message: Reserve, now: float) -> Any:
        answer = self._limiter.reserve(
            message.id, message.amounts, now, message.deadline, message.klass, message.ttl, message.model
        )
        if not isinstance(answer, Wait):
            return answer
        reply = self.owe()
        self._waiting[message.id] = reply
        self._wake_when_due(now)
        return reply

    def _answer_due(self, now: float) -> None:
        for answer in self._limiter.poll(now):
            reply = self._waiting.pop(answer.id, None)
            if reply is not None and reply.is_wanted:
                reply.set(answer)
            elif isinstance(answer, Granted):
                self._limiter.cancel(answer.id, now)
        self._wake_when_due(now)

    def _wake_when_due(self, now: float) -> None:
        at = self._limiter.next_at(now)
        if at is not None and (self._poll_at is None or at < self._poll_at):
            self._poll_at = at
            self.send_after(self.actor_ref, _Poll(at), at - now)

    def _for_asker(self, answer: Granted | Refused) -> Granted | RateLimited:
        if isinstance(answer, Granted):
            return answer
        text = f"the rate limit of {self._provider} has no room: {answer.reason.replace('_', ' ')}"
        return RateLimited(text, provider=self._provider, retry_after=answer.retry_after)


def _amount(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
        raise InvalidRequest(f"{name} is a number from 0 on, not {value!r}", field=name)
    return value


def _last_balances(books: Limiter | None, now: float) -> Any:
    """What the former incarnation's books say; nothing, if they cannot be read any more."""
    if books is None:
        return None
    try:
        return books.snapshot(now)
    except Exception:  # noqa: BLE001  (books that a crash left torn are worth nothing; an empty limiter is safe)
        return None
