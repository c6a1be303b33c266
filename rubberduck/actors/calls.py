"""The call: a task that owes one caller one answer, and does what the plan says until it has it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck import telemetry
from rubberduck.actors import components, request_queue
from rubberduck.actors.attempts import AttemptRun, NotBegun
from rubberduck.actors.board import Board, ProviderDesk, Route
from rubberduck.config import Config
from rubberduck.core import pricing
from rubberduck.core.cache import ResponseCache, cache_key
from rubberduck.core.limiter import Amounts, Klass
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.request_queue import Job, Rejected
from rubberduck.core.retry import RetryOptions
from rubberduck.core.score import Candidate, Choice
from rubberduck.errors import (
    CallInterrupted,
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    QueueFull,
    RubberDuckError,
)
from rubberduck.prices import PriceBook
from rubberduck.stream import Stream
from rubberduck.telemetry import names as events
from rubberduck.telemetry.debug import DebugLog
from rubberduck.types import Attempt, Chunk, Request, Response, Usage

logger = logging.getLogger("rubberduck")

ONE_REQUEST = Amounts()
UNBOUNDED_OUTPUT = 1024
"""The output assumed of a request without max_tokens, in tokens."""
FIRST_TOKEN_LIMIT = 10.0
FIRST_TOKEN_LIMIT_ALONE = 60.0
"""How long a stream may take to begin, in seconds: with another route at hand, and without."""


@dataclass(frozen=True, slots=True)
class Trace:
    """Why a call went the way it did: each choice with every term of its scores, the waits, the attempts."""

    request_id: str
    queue_wait: float
    choices: tuple[Choice, ...]
    attempts: tuple[Attempt, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "request_id": self.request_id,
            "queue_wait": self.queue_wait,
            "choices": [choice.trace() for choice in self.choices],
            "attempts": list(self.attempts),
        }


@dataclass(slots=True)
class Call:
    """One accepted question. Times are the system clock's seconds. `delivered`: the caller has seen output."""

    request: Request
    is_stream: bool
    klass: Klass
    accepted_at: float
    deadline: float
    providers: tuple[str, ...] | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    amounts: Amounts = ONE_REQUEST
    delivered: bool = False
    queue_wait: float = 0.0
    begun: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    stream: Stream | None = None

    def trace(self) -> Trace:
        return Trace(self.id, self.queue_wait, tuple(self.choices), tuple(self.attempts))


class CallRunner:
    """What every call needs, and the course of a call. Used on the actors' loop only."""

    def __init__(self, config: Config, board: Board, system: sup.System, prices: PriceBook) -> None:
        self.board = board
        self.system = system
        self.clock = system.clock
        self._config = config
        self._prices = prices
        self._refs: dict[str, sup.ActorRef] = {}
        self._retry = _retry_options(config)
        self._debug = DebugLog.of(config)
        self._in_flight = 0
        self._drained: asyncio.Event | None = None
        self.cache: ResponseCache[Response] | None = None
        if config.cache is not None:
            self.cache = ResponseCache(config.cache.ttl, config.cache.max_entries)

    def now(self) -> float:
        return self.clock.now()

    # -- who is who --------------------------------------------------------------------------------

    def _ref(self, path: str) -> sup.ActorRef:
        ref = self._refs.get(path)
        if ref is None:
            found = self.system.whereis(path)
            if found is None:
                raise CallInterrupted(f"the actor {path} is not there")
            ref = self._refs[path] = found
        return ref

    def calls_ref(self) -> sup.ActorRef:
        return self._ref("calls")

    def tracker(self) -> sup.ActorRef:
        return self._ref("cost_tracker")

    def queue(self) -> sup.ActorRef:
        return self._ref("request_queue")

    def limiter(self, route: Route) -> sup.ActorRef:
        return self._ref(f"providers/provider:{route.provider}/rate_limiter:{route.provider}")

    def breaker(self, route: Route) -> sup.ActorRef:
        return self._ref(f"providers/provider:{route.provider}/circuit_breaker:{route.provider}")

    def actor_names(self) -> list[str]:
        """The names of the tree, for those who asked for another."""
        names = ["service", "calls", "request_queue", "cost_tracker", "providers"]
        for name in self.board.desks:
            names += [f"provider:{name}", f"circuit_breaker:{name}", f"rate_limiter:{name}"]
        return names

    # -- money -------------------------------------------------------------------------------------

    def cost(self, desk: ProviderDesk, route: Route, usage: Usage) -> tuple[Decimal | None, pricing.Price | None]:
        """What `usage` costs in USD and by which price; None where nobody knows."""
        price = self._prices.price(desk.vendor, route.model, route=str(route))
        if price is not None:
            return pricing.cost(usage, price), price
        return desk.provider.estimate_cost(usage, route.model), None

    def price_of(self, provider: str, model: str, usage: Any) -> Decimal | None:
        """The same by the provider's name, for costs told from outside."""
        desk = self.board.desks.get(provider)
        return None if desk is None else self.cost(desk, Route(provider, model), usage)[0]

    # -- the call ----------------------------------------------------------------------------------

    async def run(self, reply: sup.Reply, call: Call) -> None:
        """Answer one call exactly once: with a Response or Stream, or with an error of our tree."""
        started = time.perf_counter_ns()
        who = {"system": self.system.name, "request_id": call.id, "model": call.request.model}
        telemetry.execute(events.REQUEST_START, {"system_time": time.time_ns()}, {**who, "provider": None})
        self._in_flight += 1
        try:
            async with sup.TimeLimit(self.clock, call.deadline):
                response = await self._answer(call, reply)
        except asyncio.CancelledError:
            self._tell_failure(call, who, started, self._finish_with(call, reply, _lost(call)))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller is owed an answer)
            self._tell_failure(call, who, started, self._finish_with(call, reply, self._as_ours(call, error)))
        else:
            self._succeed(call, reply, response)
            self._tell_success(who, started, response)
        finally:
            self._in_flight -= 1
            if self._drained is not None and not self._in_flight:
                self._drained.set()

    def _succeed(self, call: Call, reply: sup.Reply, response: Response) -> None:
        if call.stream is not None:
            call.stream.end(response)
        elif not reply.is_used:
            reply.set(response)

    def _finish_with(self, call: Call, reply: sup.Reply, error: RubberDuckError) -> RubberDuckError:
        error.attempts = tuple(call.attempts)
        error.request_id = error.request_id or call.id
        error.trace = call.trace()
        if call.stream is not None:
            call.stream.fail(error)
        elif not reply.is_used:
            reply.fail(error)
        return error

    def _as_ours(self, call: Call, error: Exception) -> RubberDuckError:
        if isinstance(error, TimeoutError):
            waited = self.now() - call.accepted_at
            spent = Decimal(0) if all(each.cost is not None for each in call.attempts) else None
            return DeadlineExceeded(
                f"no answer within the {waited:.1f} s that the call had", model=call.request.model, spent=spent
            )
        if isinstance(error, RubberDuckError):
            return error
        logger.error("a bug in the course of call %s", call.id, exc_info=error)
        return CallInterrupted(f"RubberDuck failed in its own code: {type(error).__name__}: {error}", spent=None)

    async def _answer(self, call: Call, reply: sup.Reply) -> Response:
        routes = self.board.routes(call.request.model, call.providers)
        key = self._cache_key(call)
        if (cached := self._cached(call, key)) is not None:
            return cached
        call.amounts = self._estimate(call, routes)
        turn = await self._take_turn(call, routes)
        ok = False
        try:
            response = await self._attempts(call, routes, turn, reply)
            ok = True
        finally:
            await asyncio.shield(components.ask(self.queue(), request_queue.Done(call.id, ok)))
        response = replace(response, attempts=tuple(call.attempts), request_id=call.id, trace=call.trace())
        if key is not None and self.cache is not None:
            self.cache.put(key, response, _size(response), self.now())
        return response

    # -- the cache ---------------------------------------------------------------------------------

    def _cache_key(self, call: Call) -> str | None:
        if self.cache is None or call.is_stream:
            return None
        canonical = call.request.model_dump_json(exclude_defaults=True)
        return cache_key(f"{canonical}|{call.providers}", call.tenant)

    def _cached(self, call: Call, key: str | None) -> Response | None:
        """A remembered answer: it costs nothing and says so."""
        if key is None or self.cache is None:
            return None
        response = self.cache.get(key, self.now())
        if response is None:
            return None
        usage = replace(response.usage, cost=Decimal(0))
        return replace(response, usage=usage, cached=True, attempts=(), request_id=call.id, trace=call.trace())

    # -- waiting for one's turn --------------------------------------------------------------------

    async def _take_turn(self, call: Call, routes: tuple[Route, ...]) -> request_queue.Turn:
        job = Job(
            call.id,
            call.klass,
            call.tenant,
            call.amounts.tokens or 1.0,
            frozenset(route.provider for route in routes),
            call.deadline,
            enqueued_at=call.accepted_at,
        )
        try:
            turn = await components.ask(self.queue(), request_queue.TakeTurn(job))
        except BaseException:
            await asyncio.shield(components.ask(self.queue(), request_queue.Cancel(call.id)))
            raise
        if isinstance(turn, Rejected):
            raise _refused_by_queue(turn)
        call.queue_wait = self.now() - call.accepted_at
        return turn

    def _estimate(self, call: Call, routes: tuple[Route, ...]) -> Amounts:
        """What the limiter is asked for. Tokens are counted only where a limit on tokens can use the number."""
        output = call.request.max_tokens or UNBOUNDED_OUTPUT
        if any(_counts_tokens(self.board.desks[route.provider]) for route in routes):
            from rubberduck import tokens  # loads its vocabularies at the first use

            return Amounts(1, tokens.count_messages(call.request), output * call.request.n, 1)
        chars = sum(len(message.text) for message in call.request.messages)
        return Amounts(1, chars / 4, output * call.request.n, 1)

    # -- attempts ----------------------------------------------------------------------------------

    async def _attempts(
        self, call: Call, routes: tuple[Route, ...], turn: request_queue.Turn, reply: sup.Reply
    ) -> Response:
        plan = Plan(call.deadline, self._retry, self.board.rng, out_est=min(call.amounts.output, 1024.0))
        by_name = {str(route): route for route in routes}
        holds = turn.provider
        while True:
            now = self.now()
            match plan.next(now, [self._candidate(call, route, now) for route in routes]):
                case Try() as step:
                    route = by_name[step.route]
                    if step.choice is not None:
                        call.choices.append(step.choice)
                    if route.provider != holds:
                        holds = route.provider
                        await components.ask(self.queue(), request_queue.Moved(call.id, holds))
                    response = await self._attempt(call, route, plan, reply, is_alone=len(routes) == 1)
                    if response is not None:
                        return response
                case Sleep(until=until):
                    await sup.sleep(self.clock, max(0.0, until - now))
                case Fail(error=error):
                    raise error

    async def _attempt(
        self, call: Call, route: Route, plan: Plan, reply: sup.Reply, *, is_alone: bool
    ) -> Response | None:
        """Try one route. None if it failed: the plan has been told, and knows what is next."""
        call.begun += 1
        run = AttemptRun(self, call, route, call.begun, *self._limits(route, is_alone))
        self._debug.request(route.provider, call.request, request_id=call.id, model=route.model)
        try:
            response = await (run.stream(self._deliverer(call, run, reply)) if call.is_stream else run.complete())
        except NotBegun as refusal:
            plan.refused(str(route), refusal.reason, refusal.retry_after, self.now())
            return None
        except (RubberDuckError, asyncio.CancelledError) as error:
            self._note(call, run)
            if isinstance(error, asyncio.CancelledError | Cancelled) or run.disposition is None:
                raise
            plan.failed(str(route), run.disposition, self.now(), error, getattr(error, "retry_after", None))
            self._debug.response(route.provider, str(error), request_id=call.id, model=route.model)
            return None
        self._note(call, run)
        plan.succeeded(str(route))
        self._debug.response(route.provider, response, request_id=call.id, model=route.model)
        return response

    def _note(self, call: Call, run: AttemptRun) -> None:
        if run.result is not None:
            call.attempts.append(run.result)

    def _limits(self, route: Route, is_alone: bool) -> tuple[float | None, float | None]:
        """Seconds for one attempt as a whole, and until its first token."""
        config = self._config.providers[route.provider]
        first = FIRST_TOKEN_LIMIT_ALONE if is_alone else FIRST_TOKEN_LIMIT
        return config.timeout, config.first_token_timeout or first

    def _deliverer(self, call: Call, run: AttemptRun, reply: sup.Reply) -> Any:
        async def deliver(chunk: Chunk) -> None:
            if call.stream is None:
                task = asyncio.current_task()
                loop = asyncio.get_running_loop()
                assert task is not None
                call.stream = Stream(run.route.provider, run.route.model, call.id, lambda: _cancel_on(loop, task))
                call.delivered = True
                reply.set(call.stream)
            await call.stream.write(chunk)

        return deliver

    def _candidate(self, call: Call, route: Route, now: float) -> Candidate:
        """How a route looks at this moment."""
        desk = self.board.desks[route.provider]
        stats = desk.stats_of(route.model, now)
        blocked = desk.peek_breaker(route.model, now)
        return Candidate(
            route=str(route),
            priority=desk.priority,
            weight=desk.weight * stats.ramp(now),
            obstacle=None if blocked is None else f"circuit {blocked.reason}",
            retry_after=None if blocked is None else blocked.retry_after,
            wait=desk.peek_wait(call.amounts, now, call.klass),
            inflight=stats.inflight,
            health=stats.health(now),
            ttft=stats.ttft(now),
            tpot=stats.tpot,
            is_proven=stats.is_proven,
            family=desk.vendor,
        )

    # -- telling -----------------------------------------------------------------------------------

    def bookkeeping_failed(self, attempt_id: str, error: BaseException) -> None:
        """An attempt's end could not be written down: the answer is not lost for it, but somebody must know."""
        logger.error("attempt %s: its end could not be written down: %s", attempt_id, error)
        telemetry.execute(
            events.LEDGER_FAILED, {}, {"system": self.system.name, "attempt_id": attempt_id, "error": str(error)}
        )

    def _tell_success(self, who: dict[str, Any], started: int, response: Response) -> None:
        telemetry.execute(
            events.REQUEST_STOP,
            {"duration": time.perf_counter_ns() - started},
            {
                **who,
                "provider": response.provider,
                "tokens": response.usage.total_tokens,
                "cost": response.usage.cost,
                "attempts": len(response.attempts),
                "cached": response.cached,
            },
        )

    def _tell_failure(self, call: Call, who: dict[str, Any], started: int, error: RubberDuckError) -> None:
        telemetry.execute(
            events.REQUEST_EXCEPTION,
            {"duration": time.perf_counter_ns() - started},
            {
                **who,
                "provider": error.provider,
                "error": type(error).__name__,
                "message": str(error),
                "attempts": len(call.attempts),
                "spent": error.spent,
            },
        )

    # -- for the runtime ---------------------------------------------------------------------------

    async def drained(self, until: float) -> None:
        """Return when no call is in flight, or at `until` (real time, in seconds)."""
        self._drained = asyncio.Event()
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), max(0.0, until - time.monotonic()))

    def start_error(self, error: sup.StartFailedError) -> RubberDuckError:
        """A tree that did not start, in the user's terms."""
        return ConfigError(f"RubberDuck could not start: {error}")


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # the loop has been closed, and the task with it
        pass


def _counts_tokens(desk: ProviderDesk) -> bool:
    options = desk.limiter_options
    limits_per_minute = (options.input_tokens_per_min, options.output_tokens_per_min)
    return options.unit == "tokens" or any(limit is not None for limit in limits_per_minute)


def _retry_options(config: Config) -> RetryOptions:
    known = RetryOptions.__slots__
    return RetryOptions(**{name: value for name, value in dict(config.retry).items() if name in known})


def _refused_by_queue(answer: Rejected) -> RubberDuckError:
    if answer.reason == "expired":
        return DeadlineExceeded("the call's time was over before its turn came")
    return QueueFull(
        f"too many calls wait already ({answer.reason})", reason=answer.reason, retry_after=answer.retry_after
    )


def _lost(call: Call) -> CallInterrupted:
    sent = bool(call.attempts)
    return CallInterrupted(
        "the call was cancelled" + ("; it may have been sent" if sent else " before it was sent"),
        spent=None if sent else Decimal(0),
    )


def _size(response: Response) -> int:
    return 512 + sum(len(choice.message.text) for choice in response.choices)
