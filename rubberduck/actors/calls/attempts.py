"""One request on the wire, with everything that is taken for it and given back after it.

    key ─▶ reservation ─▶ permit ─▶ money ─▶ intent ─▶ the wire ─▶ usage to the ledger, permit, reservation and key back

Where that stands in the course of a call is drawn in course.py. What is taken is given back exactly once, however the
attempt ends; all of it is idempotent by the attempt's id.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

import supervision as sup
from rubberduck.actors import circuit_breaker, components, cost_tracker, rate_limiter
from rubberduck.actors.board import ProviderDesk, Route
from rubberduck.actors.calls import reports
from rubberduck.actors.calls.arrears import Arrears
from rubberduck.actors.calls.budgets import look_again_after
from rubberduck.actors.calls.call import CHAT, COUNT, Call, Given
from rubberduck.actors.calls.second_look import EVERY, Left, SecondLook
from rubberduck.actors.calls.trace import Leg
from rubberduck.actors.calls.wire import Exchange, Limits
from rubberduck.actors.office import Office
from rubberduck.core import pricing, rate_headers
from rubberduck.core.breaker import Outcome, Permit, Rejected
from rubberduck.core.budget import Refused as OverBudget
from rubberduck.core.classify import Disposition, Settlement, classify, of_a_count, status_of
from rubberduck.core.keys import Barred, Quarantined, Use
from rubberduck.core.ledger import AttemptRecord
from rubberduck.core.limiter import Amounts, Granted, Refused, Wait
from rubberduck.errors import (
    CallInterrupted,
    Cancelled,
    LedgerUnavailable,
    ProtocolError,
    ProviderError,
    RubberDuckError,
    StreamInterrupted,
)
from rubberduck.types import Attempt, Chunk, EmbeddingRequest, TokenCount, Usage

R = TypeVar("R")

RESTING = 1.0
"""Seconds after which an actor that is not there is asked for again: what its supervisor gives it to rest."""


ELSEWHERE = "rate limit: another route was free first"
A_MOMENT = 0.1
"""Seconds that an attempt which may not wait gives the limiter to say yes."""


class NotBegun(Exception):
    """The attempt never began: breaker or limiter said no. `retry_after` is seconds, None if waiting is no help."""

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(slots=True)
class AttemptRun:
    """The life of one attempt of one call.

    `leaves(waited, still)` says whether an attempt that has waited so long for its limiter, and has so long to go as
    far as is known, had better be made elsewhere. `is_last_resort`: an open circuit is asked for its extra probe.
    `is_first`: it earns its route a part of a repeat, once it is sent. `leaves_filters`: another route may be asked
    what a content policy has stopped.
    """

    office: Office
    arrears: Arrears
    call: Call
    route: Route
    limits: Limits
    id: str = ""
    number: int = 0
    started: float = 0.0
    disposition: Disposition | None = None
    is_on_the_wire: bool = False
    task: asyncio.Task[Any] | None = None
    may_wait: bool = True
    is_last_resort: bool = False
    is_first: bool = False
    leaves_filters: bool = False
    leaves: Callable[[float, float | None], bool] | None = None
    key: int = 0
    _use: Use | None = None
    _record: AttemptRecord | None = None
    _permit: Permit | None = None
    _entry: sup.Ask[bool] | None = None
    # Who takes the first number ends the attempt: its task, or who does so in its place.
    _endings: Iterator[int] = field(default_factory=itertools.count)
    _out_as: int = 0
    desk: ProviderDesk = field(init=False)
    leg: Leg = field(init=False)
    _amounts: Amounts = field(init=False)
    _exchange: Exchange = field(init=False)

    def __post_init__(self) -> None:
        self.number = self.call.number_attempt()
        self.desk = self.office.board.desks[self.route.provider]
        self._amounts = reserved(self.call, self.desk, self.route)
        self.leg = Leg(self.route.name, self.number, self._amounts)
        self._exchange = Exchange(
            self.office.clock,
            self.desk.provider,
            self.route,
            self.call.request,
            self.limits,
            self._heard,
            self._first_token,
            self.call.kind,
        )
        self.id = f"{self.call.id}-{self.number}"

    async def complete(self) -> tuple[Given, Usage]:
        """The whole answer, and its usage with the cost. Raises NotBegun, or how the attempt failed."""
        return await self._bracketed(self._exchange.complete)

    async def stream(self, deliver: Callable[[Chunk], Awaitable[None]]) -> tuple[Given, Usage]:
        """The same, handing on each chunk as it comes."""
        return await self._bracketed(functools.partial(self._exchange.stream, deliver))

    def interrupted(self, error: RubberDuckError) -> RubberDuckError:
        """What a reader is told who has seen a part of the answer: how much that was, and why there is no more."""
        if isinstance(error, StreamInterrupted):
            error.text = error.text or self._exchange.answer.text  # a third party's may have left it out
            return error
        if not isinstance(error, ProviderError):
            return error
        told = StreamInterrupted(
            f"{error}; what came before is in `text`",
            text=self._exchange.answer.text,
            usage=self._exchange.partial_usage(error),
            provider=self.route.provider,
            model=self.route.model,
            status=error.status,
            type=error.type,
            code=error.code,
        )
        told.__cause__ = error
        return told

    def usage_told(self, error: RubberDuckError) -> Usage | None:
        """What the broken answer had consumed by the provider's own word."""
        return self._exchange.partial_usage(error)

    def _heard(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of the answer has come: the limiter learns from it, unless it speaks of capacity, not of quotas."""
        if status >= 500 or self.call.kind == COUNT:  # whose quotas are others than those of answers
            return
        told = rate_headers.read(headers)
        if told:
            message = rate_limiter.Observe(self.id, self.route.model, told, self.started, self.key)
            with suppress(sup.ActorDeadError):  # the system is being stopped; what it learned is of no use any more
                self.office.limiter(self.route).tell(message)

    def outrun(self) -> None:
        """Another attempt has answered first. That this one was silent for so long is worth knowing."""
        if self._exchange.first_token_at is None and self.is_on_the_wire:
            now = self.office.now()
            self.desk.stats_of(self.route.model, now).outwaited(self._out_as, self.started, now)

    def _first_token(self, now: float) -> None:
        self.desk.stats_of(self.route.model, now).first_token(self._out_as, now)
        if self._use is not None:
            self.desk.keys.accepted(self._use)

    # -- taking ------------------------------------------------------------------------------------

    async def _bracketed(self, on_the_wire: Callable[[], Awaitable[Given]]) -> tuple[Given, Usage]:
        try:
            await self._take()
        except BaseException:
            self._give_up()
            raise
        self._begin()
        try:
            given = await on_the_wire()
        except BaseException as error:
            await self._failed(error)
            raise
        return given, await self._succeeded(given)

    def _begin(self) -> None:
        """Here the attempt may still be held back; from here on nobody knows what has become of it but its end."""
        self.leg.sent_at = self.started = self.office.now()
        self.is_on_the_wire = True  # before looking: who loses the call looks at it after having said so
        if self.call.is_lost:
            self._give_up()
            raise _left_behind()
        if self.is_first:
            self.desk.budget_of(self.route.model).first(self.started)
        silent_since = self.started if self.call.is_stream else None
        self._out_as = self.desk.stats_of(self.route.model, self.started).started(silent_since)
        self.desk.inflight += 1

    async def _take(self) -> None:
        """A key, reservation, permit, intent: in this order, so that waiting never holds a probe."""
        office, call, route = self.office, self.call, self.route
        self._pick_key()
        ttl = call.deadline - office.now() + 5
        until = call.deadline if self.may_wait else office.now() + A_MOMENT
        tells = self.leaves is not None and self.may_wait
        reserve = rate_limiter.Reserve(self.id, self._amounts, until, call.klass, ttl, route.model, self.key, tells)
        granted = await _unless_resting(components.ask(office.limiter(route), reserve))
        if isinstance(granted, Wait):
            granted = await self._stand_in_line(replace(reserve, tells_wait=False), granted.at)
        if isinstance(granted, Refused):
            raise NotBegun(f"rate limit: {granted.reason}", granted.retry_after)
        self.leg.granted_at = office.now()
        self._claim_key(ttl)
        acquire = circuit_breaker.Acquire(route.model, self.limits.permit_ttl, self.is_last_resort)
        permit = await _unless_resting(components.ask(office.breaker(route), acquire, give_back=self._return_permit))
        if isinstance(permit, Rejected):
            raise NotBegun(f"circuit {permit.reason}", permit.retry_after)
        self._permit = permit
        if call.money is not None:
            self._require(call.money.hold(self.id, route))
        self._record = AttemptRecord(
            attempt_id=self.id,
            call_id=call.id,
            provider=route.provider,
            model=route.model,
            started_at=datetime.now(UTC),
            reserved=self._worst_case(),
            tenant=call.tenant,
            tags=call.tags,
        )
        try:
            answer = await components.ask(office.tracker(), cost_tracker.Intend(self._record))
        except LedgerUnavailable:
            self._record = None  # it was not written, so there is nothing to take back
            raise
        if isinstance(answer, OverBudget):
            self._record = None
            self._require(answer)

    def _require(self, refused: OverBudget | None) -> None:
        """Raises NotBegun if there is no money for the attempt."""
        if refused is not None and self.call.money is not None:
            self.call.money.refused(self.route, refused)
            raise NotBegun(refused.reason, look_again_after(refused))

    def _pick_key(self) -> None:
        key = self.desk.pick_key(self._amounts, self.office.now(), self.call.klass, self.route.model)
        if key is None:
            raise self._without_key()
        if key:
            self.key, self._exchange.provider = key, self.desk.provider.for_key(key)

    def _claim_key(self, ttl: float) -> None:
        """Only now is it sure that the key will be used, unless it was put away while this one waited."""
        now = self.office.now()
        use = self.desk.keys.claim(self.key, self.route.model, now, now + ttl)
        if isinstance(use, Barred):
            raise self._without_key()
        self._use = use

    def _without_key(self) -> NotBegun:
        barred = self.desk.keys.obstacle(self.route.model, self.office.now())
        # Another one may do: then there is nothing to wait for.
        return NotBegun("key quarantined", 0.0) if barred is None else NotBegun(barred.reason, barred.retry_after)

    async def _stand_in_line(self, reserve: rate_limiter.Reserve, at: float | None) -> Granted | Refused | Wait:
        """Wait for the limiter, as long as there is nothing better to be had."""
        now, since, leaves = self.office.now, self.office.now(), self.leaves

        def leaves_now() -> bool:
            still = None if at is None else max(0.0, at - now())
            return leaves is not None and leaves(now() - since, still)

        if self.key not in self.desk.keys.usable(self.route.model, now()):
            raise self._without_key()  # whoever waits is told by the limiter, but this one does not wait yet
        if leaves_now():
            raise NotBegun(ELSEWHERE, EVERY)
        try:
            async with SecondLook(self.office.clock, leaves_now):
                return await _unless_resting(components.ask(self.office.limiter(self.route), reserve))
        except Left:
            raise NotBegun(ELSEWHERE, EVERY) from None

    def _return_permit(self, permit: Permit | Rejected) -> None:
        """Give back a permit with which nothing was sent: it decides nothing."""
        if isinstance(permit, Permit):
            settle = circuit_breaker.Settle(permit, Outcome.CANCELLED, self.route.model)
            self._order(self.office.breaker(self.route), settle)

    def _give_up(self) -> None:
        """Nothing was sent: reservation and permit return, the intent is void."""
        if self.call.money is not None:
            self.call.money.release(self.id)
        if self._record is not None:
            self._order(self.office.tracker(), cost_tracker.Void(self._record))
        if self._permit is not None:
            self._return_permit(self._permit)
        self._order(self.office.limiter(self.route), rate_limiter.Cancel(self.id, self.key))
        self._return_key()

    def _return_key(self) -> None:
        if self._use is not None:
            self.desk.keys.give_back(self._use)

    def _worst_case(self) -> Decimal | None:
        if self.call.money is not None:
            return self.call.money.worst_case(self.route)
        amounts = self.call.amounts
        return self._cost(Usage(int(amounts.input), int(amounts.output)))[0]

    def _cost(self, usage: Usage) -> tuple[Decimal | None, pricing.Price | None]:
        if self.call.kind == COUNT:  # nobody charges for it
            return Decimal(0), None
        return self.office.cost(self.desk, self.route, usage)

    # -- giving back -------------------------------------------------------------------------------

    async def _succeeded(self, given: Given) -> Usage:
        """Settle permit, reservation and ledger; the usage with its cost."""
        usage = Usage() if isinstance(given, TokenCount) else given.usage
        cost, price = self._cost(usage)
        self._learn_output(usage)
        await self._settle(None, usage, cost, price)
        return usage.priced(cost)

    def _learn_output(self, usage: Usage) -> None:
        request = self.call.request
        if isinstance(request, EmbeddingRequest) or self.call.kind != CHAT:
            return
        if request.max_tokens is not None and not usage.estimated:
            self.desk.output_of(self.route.model).learn(usage.completion_tokens, request.max_tokens * request.n)

    async def _failed(self, error: BaseException) -> None:
        """Settle them after a failure: with what was consumed by the provider's own word, if it said so."""
        usage = self._exchange.partial_usage(error)
        if usage is not None:
            cost, price = self._cost(usage)
        else:
            cost, price = (Decimal(0) if _was_free(error) or self.call.kind == COUNT else None), None
        await self._settle(error, usage, cost, price)

    async def _settle(
        self, error: BaseException | None, usage: Usage | None, cost: Decimal | None, price: pricing.Price | None
    ) -> None:
        if next(self._endings):
            raise _left_behind()
        now = self.office.now()
        row = classify(
            error,
            sent=getattr(error, "phase", None) != "not_sent",
            delivered=self.call.delivered and not self.call.continues,
            replayable=self.call.replayable,
            local_stall=self._exchange.was_stalled,
            failover_on_content_filter=self.leaves_filters,
        )
        if self.call.kind == COUNT:
            row = of_a_count(row)
        self.disposition = row
        duration = now - self.started
        first_token = (now if self._exchange.first_token_at is None else self._exchange.first_token_at) - self.started
        self._teach(row, now, duration, first_token, usage)
        put_away = self._judge_key(row, error, now)
        outcome = _outcome(error)
        began = self.started - self.call.accepted_at
        attempt = Attempt(self.route.provider, self.route.model, outcome, began, duration, cost, self._key_name)
        self.leg.attempt = attempt
        self.call.note(attempt)
        if self.call.money is not None:
            self.call.money.charge(self.id, cost)
        self._settle_permit(row, first_token, getattr(error, "retry_after", None))
        self._settle_reservation(row, usage, getattr(error, "retry_after", None))
        entry = self._entry = self._entry_of(usage, cost, price)
        charged = self.office.tracker().ask(entry, block=False)
        # Only now, for listeners are other people's code and may block: what is given back is on its way.
        reports.attempt_ended(self.office.system.name, self.call, attempt, usage)
        if put_away is not None:
            reports.put_away(self.office.system.name, self.route, put_away, getattr(error, "status", None))
        await components.see_through(self.office.tracker(), entry, self._owed_later(entry), first=charged)

    def _teach(self, row: Disposition, now: float, duration: float, first_token: float, usage: Usage | None) -> None:
        """Let the next choice of a route know how this attempt went."""
        written = 0 if usage is None else usage.completion_tokens
        pace = (duration - first_token) / written if written and self._exchange.first_token_at is not None else None
        self.desk.inflight -= 1
        stats = self.desk.stats_of(self.route.model, now)
        ttft = first_token if self._exchange.first_token_at is None else None
        took = None if self.call.kind == COUNT else duration  # which says nothing of how long an answer takes
        stats.ended(row.breaker, now, ttft=ttft, tpot=pace, duration=took, attempt=self._out_as)
        inflight = stats.inflight + 1
        if row.breaker is Outcome.SUCCESS:
            self.desk.concurrency_of(self.route.model).answered(inflight)
        elif row.shrinks and self._exchange.first_token_at is None:
            self.desk.concurrency_of(self.route.model).overloaded(inflight, self.started, now)

    def _judge_key(self, row: Disposition, error: BaseException | None, now: float) -> Quarantined | None:
        """What the provider made of the key; what was put away for it, which those who wait for it are told."""
        keys, use = self.desk.keys, self._use
        assert use is not None
        if row.breaker is Outcome.SUCCESS:
            keys.accepted(use)
        hint, for_model = getattr(error, "retry_after", None), error is not None and status_of(error) == 403
        told = keys.refused(use, row.quarantine, now, hint=hint, for_model=for_model)
        keys.give_back(use)
        if told is not None and told.key is not None:
            self._order(self.office.limiter(self.route), rate_limiter.TurnAway(self.key, told.model))
        return told

    @property
    def _key_name(self) -> str:
        """By which it is told from others, where there are others."""
        names = self.desk.keys.names
        return names[self.key] if len(names) > 1 else ""

    def _settle_permit(self, row: Disposition, first_token: float, hint: float | None) -> None:
        assert self._permit is not None
        settle = circuit_breaker.Settle(self._permit, row.breaker, self.route.model, first_token, row.kind, hint)
        self._order(self.office.breaker(self.route), settle)

    def _settle_reservation(self, row: Disposition, usage: Usage | None, hint: float | None) -> None:
        limiter = self.office.limiter(self.route)
        if row.limiter is Settlement.BLOCK:
            self._order(limiter, rate_limiter.Throttle(hint, self.route.model, self.started, self.key))
        elif hint is not None and row.limiter is Settlement.KEEP_INPUT:
            self._order(limiter, rate_limiter.Penalise(hint, self.route.model, self.key))
        if row.limiter is Settlement.CANCEL:
            self._order(limiter, rate_limiter.Cancel(self.id, self.key))
        else:
            used = self.leg.settled = self._used(row.limiter, usage)
            self._order(limiter, rate_limiter.Commit(self.id, used, self.key))

    def _entry_of(self, usage: Usage | None, cost: Decimal | None, price: pricing.Price | None) -> sup.Ask[bool]:
        """What the ledger is told of it."""
        assert self._record is not None
        if usage is not None:
            return cost_tracker.Settle(self._record.settled(usage, cost, price, at=datetime.now(UTC)))
        if cost is not None:
            return cost_tracker.Void(self._record)
        return cost_tracker.MarkUncertain(self._record)

    def _owed_later(self, entry: sup.Ask[bool]) -> components.OnFailure:
        return functools.partial(self.arrears.add, self.id, entry)

    # -- left behind -------------------------------------------------------------------------------

    def lose(self, *, is_culprit: bool) -> bool:
        """End it in place of its task, which does not come back. On any thread. Whether it may have been sent.

        What it has cost is uncertain, unless its task has told the ledger before. The route of the `is_culprit`,
        whose code has kept the loop to itself, is left alone as after failures: for `reset_timeout`.
        """
        if not self.is_on_the_wire:
            self._give_up()
            return False
        if not next(self._endings):
            self._write_off(is_culprit=is_culprit)
        if self._record is not None:
            # Once more if it was told already, for whoever hears that the ledger could not be written is gone.
            cost = Decimal(0) if self.call.kind == COUNT else None
            entry = self._entry or self._entry_of(None, cost, None)
            components.deliver(self.office.tracker(), entry, self._owed_later(entry))
        return self._entry is None

    def _write_off(self, *, is_culprit: bool) -> None:
        now, call, route = self.office.now(), self.call, self.route
        outcome = Outcome.FAILURE if is_culprit else Outcome.CANCELLED
        self.desk.inflight -= 1
        self.desk.stats_of(route.model, now).ended(outcome, now, attempt=self._out_as)
        if is_culprit:
            rest = circuit_breaker.OpenFor(self.desk.breaker_options.reset_timeout, route.model)
            self._order(self.office.breaker(route), rest)
        elif self._permit is not None:
            self._return_permit(self._permit)
        self._order(self.office.limiter(route), rate_limiter.Commit(self.id, self._amounts, self.key))
        self._return_key()
        began, lost = self.started - call.accepted_at, CallInterrupted.__name__
        attempt = Attempt(route.provider, route.model, lost, began, now - self.started, None, self._key_name)
        self.leg.attempt = attempt
        call.note(attempt)
        reports.attempt_ended(self.office.system.name, call, attempt, None)

    def _order(self, ref: sup.ActorRef, message: sup.Ask[Any]) -> None:
        components.deliver(ref, message, self._not_delivered)

    def _not_delivered(self, failure: RubberDuckError) -> None:
        reports.bookkeeping_failed(self.office.system.name, self.id, failure)

    def _used(self, settlement: Settlement, usage: Usage | None) -> Amounts:
        estimate = self._amounts
        if usage is not None:
            return Amounts(1, usage.prompt_tokens, usage.completion_tokens, estimate.concurrency)
        if settlement in (Settlement.RETURN_TOKENS, Settlement.BLOCK):
            return Amounts(1, 0, 0, estimate.concurrency)
        if settlement is Settlement.COMMIT:
            return estimate
        received = len(self._exchange.answer.text) / 4 if settlement is Settlement.KEEP_RECEIVED else 0
        return Amounts(1, estimate.input, received, estimate.concurrency)


def _left_behind() -> Cancelled:
    return Cancelled("the call has been ended by others, for its loop did not come back")


def reserved(call: Call, desk: ProviderDesk, route: Route) -> Amounts:
    """What an attempt of a call on a route asks the limiter for."""
    request = call.request
    if isinstance(request, EmbeddingRequest) or call.kind != CHAT:  # nothing is written
        return call.amounts
    return desk.amounts(call.amounts, request.max_tokens, request.n, route.model)


async def _unless_resting(answer: Awaitable[R]) -> R:
    """The answer; NotBegun if the actor is gone for now, as after too many crashes: other routes may serve."""
    try:
        return await answer
    except CallInterrupted as gone:
        raise NotBegun(str(gone), RESTING) from gone


def _outcome(error: BaseException | None) -> str:
    """How an attempt ended, by the name of one of our own errors."""
    if error is None:
        return "success"
    return (Cancelled if isinstance(error, asyncio.CancelledError) else type(error)).__name__


def _was_free(error: BaseException) -> bool:
    """True if the provider certainly billed nothing: it was never sent, or refused by an error status."""
    if isinstance(error, ProtocolError) and error.status == 200:  # an answer, though nobody can read it
        return False
    if isinstance(error, Cancelled) or not isinstance(error, RubberDuckError) or error.spent is None:
        return False
    return not isinstance(error, ProviderError) or error.phase in ("not_sent", "answered")
