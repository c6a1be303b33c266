"""One request on the wire, with everything that is taken for it and given back after it.

    reserve ─▶ permit ─▶ intent ─▶ the wire ─▶ settle permit, commit reservation, charge the ledger

What is taken is given back exactly once, however the attempt ends; all of it is idempotent by the attempt's id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck.actors import circuit_breaker, components, cost_tracker, rate_limiter, reports
from rubberduck.actors.board import ProviderDesk, Route
from rubberduck.actors.call import Call
from rubberduck.actors.office import Office
from rubberduck.core import pricing
from rubberduck.core.breaker import Outcome, Permit, Rejected
from rubberduck.core.classify import Disposition, Settlement, classify
from rubberduck.core.ledger import AttemptRecord
from rubberduck.core.limiter import Amounts, Refused
from rubberduck.errors import (
    ProviderError,
    ProviderTimeout,
    RubberDuckError,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.providers.assembly import Assembly
from rubberduck.types import Attempt, Chunk, Request, Response, Usage

PENALTY_WITHOUT_HINT = 1.0
LONGEST_PENALTY = 60.0


class NotBegun(Exception):
    """The attempt never began: breaker or limiter said no. `retry_after` is seconds, None if waiting is no help."""

    def __init__(self, reason: str, retry_after: float | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an attempt may take, and how long until its first token, in seconds. None: as long as the call."""

    whole: float | None
    first_token: float | None


@dataclass(slots=True)
class AttemptRun:
    """The life of one attempt of one call."""

    office: Office
    call: Call
    route: Route
    limits: Limits
    number: int = 0
    started: float = 0.0
    first_token_at: float | None = None
    answer: Assembly = field(default_factory=Assembly)
    disposition: Disposition | None = None
    _record: AttemptRecord | None = None
    _permit: Permit | None = None

    def __post_init__(self) -> None:
        self.number = self.call.begun

    @property
    def id(self) -> str:
        return f"{self.call.id}-{self.number}"

    @property
    def desk(self) -> ProviderDesk:
        return self.office.board.desks[self.route.provider]

    async def complete(self) -> Response:
        """The whole answer. Raises NotBegun, or how the attempt failed."""
        request = self._request()

        async def on_the_wire() -> Response:
            async with self._within(self.limits.whole):
                return await self.desk.provider.complete(request)

        return await self._bracketed(on_the_wire)

    async def stream(self, deliver: Callable[[Chunk], Awaitable[None]]) -> Response:
        """The same, handing on each chunk as it comes."""
        request = self._request()

        async def on_the_wire() -> Response:
            async with self._within(self.limits.whole), aclosing(self._chunks(request)) as chunks:  # type: ignore[type-var]
                async for chunk in chunks:
                    self.answer.add(chunk)
                    await deliver(chunk)
            return self.answer.response(provider=self.route.provider, model=self.route.model)

        return await self._bracketed(on_the_wire)

    async def _chunks(self, request: Request) -> AsyncIterator[Chunk]:
        """The provider's chunks; the first has a time limit of its own."""
        async with aclosing(self.desk.provider.stream(request)) as chunks:  # type: ignore[type-var]
            async with self._within(self.limits.first_token):
                first = await anext(chunks, None)
            self.first_token_at = self.office.now()
            if first is not None:
                yield first
            async for chunk in chunks:
                yield chunk

    def _request(self) -> Request:
        request = self.call.request
        return request if request.model == self.route.model else request.model_copy(update={"model": self.route.model})

    def _within(self, seconds: float | None) -> sup.TimeLimit:
        return sup.TimeLimit(self.office.clock, None if seconds is None else self.office.now() + seconds)

    # -- taking ------------------------------------------------------------------------------------

    async def _bracketed(self, on_the_wire: Callable[[], Awaitable[Response]]) -> Response:
        office, call, desk = self.office, self.call, self.desk
        ttl = call.deadline - office.now() + 5
        reserve = rate_limiter.Reserve(self.id, call.amounts, call.deadline, call.klass, ttl)
        try:
            await self._take(reserve)
        except BaseException:
            await asyncio.shield(self._give_up_reservation())
            raise
        stats = desk.stats_of(self.route.model, office.now())
        stats.started()
        desk.inflight += 1
        self.started = office.now()
        try:
            response = await self._guarded(on_the_wire)
        except BaseException as error:
            await self._settle(error, None)
            raise
        finally:
            desk.inflight -= 1
        return await self._settle(None, response)

    async def _take(self, reserve: rate_limiter.Reserve) -> None:
        """Reservation, permit, intent: in this order, so that waiting never holds a probe."""
        office = self.office
        granted = await components.ask(office.limiter(self.route), reserve)
        if isinstance(granted, Refused):
            raise NotBegun(f"rate limit: {granted.reason}", granted.retry_after)
        permit = await self._acquire()
        if isinstance(permit, Rejected):
            raise NotBegun(f"circuit {permit.reason}", permit.retry_after)
        self._permit = permit
        record = AttemptRecord(
            attempt_id=self.id,
            call_id=self.call.id,
            provider=self.route.provider,
            model=self.route.model,
            started_at=datetime.now(UTC),
            reserved=self._worst_case(),
            tenant=self.call.tenant,
            tags=self.call.tags,
        )
        try:
            await components.ask(office.tracker(), cost_tracker.Intend(record))
        except BaseException:
            await asyncio.shield(self._take_back(permit, record))
            raise
        self._record = record

    async def _acquire(self) -> Permit | Rejected:
        """A permit; one that was issued while this task was being cancelled is given back."""
        breaker, message = self.office.breaker(self.route), circuit_breaker.Acquire(self.route.model)
        asked = breaker.ask(message, block=False)

        def give_back() -> None:
            with contextlib.suppress(Exception):  # no permit came, or the breaker is gone: nothing to give back
                if isinstance(permit := asked.get(), Permit):
                    breaker.tell(circuit_breaker.Settle(permit, Outcome.CANCELLED, self.route.model))

        try:
            return await components.answer_of(breaker, message, asked)
        except asyncio.CancelledError:
            asked.on_done(give_back)
            raise

    async def _take_back(self, permit: Permit, record: AttemptRecord) -> None:
        """Nothing was sent: the permit decides nothing, the intent is void."""
        settle = circuit_breaker.Settle(permit, Outcome.CANCELLED, self.route.model)
        await components.ask(self.office.breaker(self.route), settle)
        await components.ask(self.office.tracker(), cost_tracker.Void(record))

    async def _give_up_reservation(self) -> None:
        await components.ask(self.office.limiter(self.route), rate_limiter.Cancel(self.id))

    def _worst_case(self) -> Decimal | None:
        amounts = self.call.amounts
        usage = Usage(int(amounts.input), int(amounts.output))
        return self.office.cost(self.desk, self.route, usage)[0]

    # -- the wire ----------------------------------------------------------------------------------

    async def _guarded(self, on_the_wire: Callable[[], Awaitable[Response]]) -> Response:
        """Only errors of our tree, and cancellation, leave the wire."""
        try:
            return await on_the_wire()
        except TimeoutError as error:
            raise self._timed_out() from error
        except (RubberDuckError, asyncio.CancelledError):
            raise
        except Exception as error:  # a provider's bug: a third party's code runs here
            raise ServiceUnavailable(
                f"{self.route} failed in its own code: {type(error).__name__}: {error}",
                provider=self.route.provider,
                model=self.route.model,
                phase="uncertain",
                spent=None,
            ) from error

    def _timed_out(self) -> ProviderError:
        names: dict[str, Any] = {"provider": self.route.provider, "model": self.route.model, "spent": None}
        if self.answer.has_output:
            return StreamInterrupted(f"{self.route} did not finish in time", text=self.answer.text, **names)
        return ProviderTimeout(f"{self.route} did not answer in time", phase="uncertain", **names)

    # -- giving back -------------------------------------------------------------------------------

    async def _settle(self, error: BaseException | None, response: Response | None) -> Response:
        """Settle permit, reservation and ledger, each once; a cancellation meanwhile waits for it."""
        now = self.office.now()
        phase = getattr(error, "phase", None)
        row = self.disposition = classify(error, sent=phase != "not_sent", delivered=self.call.delivered)
        usage, cost, price = self._bill(error, response)
        duration = now - self.started
        first_token = (self.first_token_at or now) - self.started
        stats = self.desk.stats_of(self.route.model, now)
        output = usage.completion_tokens if usage is not None else 0
        pace = (duration - first_token) / output if output and self.first_token_at is not None else None
        stats.ended(row.breaker, now, ttft=first_token, tpot=pace, duration=duration)
        outcome = "success" if error is None else type(error).__name__
        attempt = Attempt(
            self.route.provider, self.route.model, outcome, self.started - self.call.accepted_at, duration, cost
        )
        self.call.attempts.append(attempt)
        assert self._record is not None
        if usage is not None:
            entry: Any = cost_tracker.Settle(self._record.settled(usage, cost, price, at=datetime.now(UTC)))
        elif _was_free(error):
            entry = cost_tracker.Void(self._record)
        else:
            entry = cost_tracker.MarkUncertain(self._record)
        await self._books(entry, row, getattr(error, "retry_after", None), first_token, usage)
        reports.attempt_ended(self.office.system.name, self.call, attempt, usage, cost)
        if response is None:
            assert error is not None
            return None  # type: ignore[return-value]  # the caller of this raises
        assert usage is not None
        return replace(response, usage=replace(usage, cost=cost))

    async def _books(
        self, entry: Any, row: Disposition, hint: float | None, first_token: float, usage: Usage | None
    ) -> None:
        """Tell all three actors at once, and see it through even if this task is cancelled meanwhile."""
        office, route = self.office, self.route
        orders: list[tuple[sup.ActorRef, Any]] = [(office.tracker(), entry)]
        if self._permit is not None:
            permit, model = self._permit, route.model
            settle = circuit_breaker.Settle(permit, row.breaker, model, first_token, row.kind, hint)
            orders.append((office.breaker(route), settle))
        limiter = office.limiter(route)
        if row.limiter is Settlement.BLOCK:
            orders.append((limiter, rate_limiter.Penalise(self._penalty(hint))))
        if row.limiter is Settlement.CANCEL:
            orders.append((limiter, rate_limiter.Cancel(self.id)))
        else:
            orders.append((limiter, rate_limiter.Commit(self.id, self._used(row.limiter, usage))))
        system = office.system.name
        await components.see_through(orders, lambda failure: reports.bookkeeping_failed(system, self.id, failure))

    def _penalty(self, hint: float | None) -> float:
        """How long, in seconds, a refused provider is left alone."""
        return min(LONGEST_PENALTY, PENALTY_WITHOUT_HINT * 2.0 ** (self.number - 1)) if hint is None else hint

    def _used(self, settlement: Settlement, usage: Usage | None) -> Amounts:
        estimate = self.call.amounts
        if usage is not None:
            return Amounts(1, usage.prompt_tokens, usage.completion_tokens, estimate.concurrency)
        if settlement in (Settlement.RETURN_TOKENS, Settlement.BLOCK):
            return Amounts(1, 0, 0, estimate.concurrency)
        if settlement is Settlement.COMMIT:
            return estimate
        received = len(self.answer.text) / 4 if settlement is Settlement.KEEP_RECEIVED else 0
        return Amounts(1, estimate.input, received, estimate.concurrency)

    def _bill(
        self, error: BaseException | None, response: Response | None
    ) -> tuple[Usage | None, Decimal | None, pricing.Price | None]:
        """What was consumed and what it costs; (None, ...) where only the provider could tell."""
        usage = response.usage if response is not None else self._partial_usage(error)
        if usage is None:
            return None, Decimal(0) if _was_free(error) else None, None
        cost, price = self.office.cost(self.desk, self.route, usage)
        return usage, cost, price

    def _partial_usage(self, error: BaseException | None) -> Usage | None:
        """What a broken answer had consumed by the provider's own word."""
        broken = error if isinstance(error, StreamInterrupted) else getattr(error, "__cause__", None)
        usage = getattr(broken, "usage", None)
        return usage if isinstance(usage, Usage) and not usage.estimated else None


def _was_free(error: BaseException | None) -> bool:
    """True if the provider certainly billed nothing: it was never sent, or refused by an error status."""
    if isinstance(error, ProviderError):
        return error.phase in ("not_sent", "answered")
    return isinstance(error, RubberDuckError)
