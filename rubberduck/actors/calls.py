"""The course of a call: a task that owes one caller one answer, and does what the plan says until it has it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck.actors import components, request_queue
from rubberduck.actors.answers import Answers
from rubberduck.actors.attempts import AttemptRun, Limits, NotBegun
from rubberduck.actors.board import ProviderDesk, Route
from rubberduck.actors.call import Call
from rubberduck.actors.office import Office
from rubberduck.actors.reports import CallReport, bookkeeping_failed
from rubberduck.config import Config
from rubberduck.core.limiter import Amounts
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.request_queue import Job, Rejected
from rubberduck.core.retry import RetryOptions
from rubberduck.core.score import Candidate
from rubberduck.errors import CallInterrupted, Cancelled, DeadlineExceeded, QueueFull, RubberDuckError
from rubberduck.stream import Stream
from rubberduck.telemetry.debug import DebugLog
from rubberduck.types import Chunk, Response

logger = logging.getLogger("rubberduck")

UNBOUNDED_OUTPUT = 1024
"""The output assumed of a request without max_tokens, in tokens."""
FIRST_TOKEN_LIMIT = 10.0
FIRST_TOKEN_LIMIT_ALONE = 60.0
"""How long a stream may take to begin, in seconds: with another route at hand, and without."""


class CallRunner:
    """Takes calls through their course. Used on the actors' loop only."""

    def __init__(self, config: Config, office: Office) -> None:
        self._config = config
        self._office = office
        self._retry = _retry_options(config)
        self._debug = DebugLog.of(config)
        self._answers = Answers(config.cache)
        self._in_flight = 0
        self._drained: asyncio.Event | None = None

    def calls(self) -> sup.ActorRef:
        """Where calls become tasks."""
        return self._office.calls()

    async def drained(self, until: float) -> None:
        """Return when no call is in flight, or at `until` (real monotonic time, in seconds)."""
        self._drained = asyncio.Event()
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.wait(), max(0.0, until - time.monotonic()))

    # -- the answer that is owed -------------------------------------------------------------------

    async def run(self, reply: sup.Reply, call: Call) -> None:
        """Answer one call exactly once: with a Response or Stream, or with an error of our tree."""
        report = CallReport(self._office.system.name, call)
        self._in_flight += 1
        try:
            async with sup.TimeLimit(self._office.clock, call.deadline):
                response = await self._answer(call, reply)
        except asyncio.CancelledError:
            report.failure(_fail(call, reply, _lost(call)))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller is owed an answer)
            report.failure(_fail(call, reply, self._as_ours(call, error)))
        else:
            _succeed(call, reply, response)
            report.success(response)
        finally:
            self._in_flight -= 1
            if self._drained is not None and not self._in_flight:
                self._drained.set()

    def _as_ours(self, call: Call, error: Exception) -> RubberDuckError:
        if isinstance(error, RubberDuckError):
            return error
        if isinstance(error, TimeoutError):
            waited = self._office.now() - call.accepted_at
            spent = Decimal(0) if all(each.cost is not None for each in call.attempts) else None
            return DeadlineExceeded(
                f"no answer within the {waited:.1f} s that the call had", model=call.request.model, spent=spent
            )
        logger.error("a bug in the course of call %s", call.id, exc_info=error)
        return CallInterrupted(f"RubberDuck failed in its own code: {type(error).__name__}: {error}", spent=None)

    async def _answer(self, call: Call, reply: sup.Reply) -> Response:
        routes = self._office.board.routes(call.request.model, call.providers)
        key = self._answers.key(call)
        if (kept := self._answers.find(key, call, self._office.now())) is not None:
            return kept
        call.amounts = self._estimate(call, routes)
        turn = await self._take_turn(call, routes)
        is_answered = False
        try:
            response = await self._attempts(call, routes, turn, reply)
            is_answered = True
        finally:
            await self._tell_queue(call, request_queue.Done(call.id, is_answered))
        response = replace(response, attempts=tuple(call.attempts), request_id=call.id, trace=call.trace())
        self._answers.keep(key, response, self._office.now())
        return response

    # -- waiting for one's turn --------------------------------------------------------------------

    async def _take_turn(self, call: Call, routes: tuple[Route, ...]) -> request_queue.Turn:
        providers = frozenset(route.provider for route in routes)
        tokens = max(1.0, call.amounts.tokens)
        job = Job(call.id, call.klass, call.tenant, tokens, providers, call.deadline, call.accepted_at)
        try:
            turn = await components.ask(self._office.queue(), request_queue.TakeTurn(job))
        except BaseException:
            # The answer may have been on its way: give back both, the place and the slot.
            await self._tell_queue(call, request_queue.Cancel(call.id), request_queue.Done(call.id, ok=False))
            raise
        if isinstance(turn, Rejected):
            raise _refused_by_queue(turn)
        call.queue_wait = self._office.now() - call.accepted_at
        return turn

    async def _tell_queue(self, call: Call, *messages: Any) -> None:
        queue, system = self._office.queue(), self._office.system.name
        await components.see_through(
            [(queue, message) for message in messages], lambda error: bookkeeping_failed(system, call.id, error)
        )

    def _estimate(self, call: Call, routes: tuple[Route, ...]) -> Amounts:
        """What the limiter is asked for. Tokens are counted only where a limit on tokens can use the number."""
        request = call.request
        output = (request.max_tokens or UNBOUNDED_OUTPUT) * request.n
        if any(_counts_tokens(self._office.board.desks[route.provider]) for route in routes):
            from rubberduck import tokens  # loads its vocabularies at the first use

            return Amounts(1, tokens.count_messages(request), output, 1)
        return Amounts(1, sum(len(message.text) for message in request.messages) / 4, output, 1)

    # -- attempts ----------------------------------------------------------------------------------

    async def _attempts(
        self, call: Call, routes: tuple[Route, ...], turn: request_queue.Turn, reply: sup.Reply
    ) -> Response:
        office = self._office
        plan = Plan(call.deadline, self._retry, office.board.rng, out_est=min(call.amounts.output, 1024.0))
        by_name = {str(route): route for route in routes}
        holds = turn.provider
        while True:
            now = office.now()
            match plan.next(now, [self._candidate(call, route, now) for route in routes]):
                case Try(choice=choice) as step:
                    route = by_name[step.route]
                    if choice is not None:
                        call.choices.append(choice)
                    if route.provider != holds:
                        holds = route.provider
                        await components.ask(office.queue(), request_queue.Moved(call.id, holds))
                    self._charge_retry_budget(route, step, now)
                    response = await self._attempt(call, route, plan, reply, is_alone=len(routes) == 1)
                    if response is not None:
                        return response
                case Sleep(until=until):
                    await sup.sleep(office.clock, max(0.0, until - now))
                case Fail(error=error):
                    raise error

    async def _attempt(
        self, call: Call, route: Route, plan: Plan, reply: sup.Reply, *, is_alone: bool
    ) -> Response | None:
        """Try one route. None if it failed: the plan has been told, and knows what is next."""
        call.begun += 1
        run = AttemptRun(self._office, call, route, self._limits(route, is_alone))
        name = str(route)
        self._debug.request(route.provider, call.request, request_id=call.id, model=route.model)
        try:
            response = await (run.stream(self._deliverer(call, route, reply)) if call.is_stream else run.complete())
        except NotBegun as refusal:
            plan.refused(name, refusal.reason, refusal.retry_after, self._office.now())
            return None
        except RubberDuckError as error:
            self._debug.response(route.provider, str(error), request_id=call.id, model=route.model)
            if run.disposition is None or isinstance(error, Cancelled):
                raise
            plan.failed(name, run.disposition, self._office.now(), error, error.retry_after)
            return None
        plan.succeeded(name)
        self._debug.response(route.provider, response, request_id=call.id, model=route.model)
        return response

    def _charge_retry_budget(self, route: Route, step: Try, now: float) -> None:
        budget = self._office.board.desks[route.provider].budget_of(route.model)
        if step.is_repeat:
            budget.spend(now)
        else:
            budget.first(now)

    def _limits(self, route: Route, is_alone: bool) -> Limits:
        config = self._config.providers[route.provider]
        first = FIRST_TOKEN_LIMIT_ALONE if is_alone else FIRST_TOKEN_LIMIT
        return Limits(config.timeout, config.first_token_timeout or first)

    def _deliverer(self, call: Call, route: Route, reply: sup.Reply) -> Callable[[Chunk], Awaitable[None]]:
        """What takes the chunks of an attempt to the caller; the first one answers the call with the stream."""

        async def deliver(chunk: Chunk) -> None:
            if call.stream is None:
                task, loop = asyncio.current_task(), asyncio.get_running_loop()
                assert task is not None
                call.stream = Stream(route.provider, route.model, call.id, lambda: _cancel_on(loop, task))
                reply.set(call.stream)
            await call.stream.write(chunk)

        return deliver

    def _candidate(self, call: Call, route: Route, now: float) -> Candidate:
        """How a route looks at this moment."""
        desk = self._office.board.desks[route.provider]
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
            repeat_allowed=desk.budget_of(route.model).affords(now),
            family=desk.vendor,
        )


def _succeed(call: Call, reply: sup.Reply, response: Response) -> None:
    if call.stream is not None:
        call.stream.end(response)
    elif not reply.is_used:
        reply.set(response)


def _fail(call: Call, reply: sup.Reply, error: RubberDuckError) -> RubberDuckError:
    """Tell the caller, with all that is known about the call."""
    error.attempts = tuple(call.attempts)
    error.request_id = error.request_id or call.id
    error.trace = call.trace()
    if call.stream is not None:
        call.stream.fail(error)
    elif not reply.is_used:
        reply.fail(error)
    return error


def _lost(call: Call) -> CallInterrupted:
    was_sent = bool(call.attempts)
    return CallInterrupted(
        "the call was cancelled" + ("; it may have been sent" if was_sent else " before it was sent"),
        spent=None if was_sent else Decimal(0),
    )


def _refused_by_queue(answer: Rejected) -> RubberDuckError:
    if answer.reason == "expired":
        return DeadlineExceeded("the call's time was over before its turn came")
    return QueueFull(
        f"too many calls wait already ({answer.reason})", reason=answer.reason, retry_after=answer.retry_after
    )


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)


def _counts_tokens(desk: ProviderDesk) -> bool:
    options = desk.limiter_options
    limits_per_minute = (options.input_tokens_per_min, options.output_tokens_per_min)
    return options.unit == "tokens" or any(limit is not None for limit in limits_per_minute)


def _retry_options(config: Config) -> RetryOptions:
    options = dict(config.retry)
    return RetryOptions(**{name: options[name] for name in RetryOptions.__slots__})
