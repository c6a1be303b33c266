"""The course of a call: a task that owes one caller one answer, and does what the plan says until it has it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import supervision as sup
from rubberduck.actors import components, endings, reports, request_queue
from rubberduck.actors.answers import Answers
from rubberduck.actors.arrears import Arrears
from rubberduck.actors.attempts import AttemptRun, Limits, NotBegun, reserved
from rubberduck.actors.board import Route
from rubberduck.actors.call import Call
from rubberduck.actors.office import Office
from rubberduck.config import Config
from rubberduck.core.estimate import UNBOUNDED_OUTPUT
from rubberduck.core.limiter import Amounts
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.request_queue import Job, Rejected
from rubberduck.core.retry import RetryOptions
from rubberduck.core.score import Candidate
from rubberduck.errors import Cancelled, RubberDuckError
from rubberduck.stream import Pipe, Stream
from rubberduck.telemetry.debug import DebugLog
from rubberduck.types import Chunk, Response, Usage
from rubberduck.wakers import Waker

LONGEST_ESTIMATE = 1024.0
"""The most output, in tokens, that the choice of a route reckons with."""
FIRST_TOKEN_LIMIT = 10.0
FIRST_TOKEN_LIMIT_ALONE = 60.0
"""How long an answer may take to begin, in seconds: with another route at hand, and without."""
SLOW_PACE = 0.05
"""Seconds per token at which an answer that is not streamed is still waited for while another route is at hand."""
TIME_TO_END = 5.0
"""Seconds that a cancelled call gets to give back what it holds."""


class CallRunner:
    """Takes calls through their course. Used on the actors' loop only, but for `lose`."""

    def __init__(self, config: Config, office: Office) -> None:
        self._config = config
        self._office = office
        self.arrears = Arrears(office)
        self._retry = _retry_options(config)
        self._debug = DebugLog.of(config)
        self._answers = Answers(config.cache)
        self._in_flight: dict[str, tuple[asyncio.Task[Any], reports.CallReport]] = {}
        self._drained: Waker | None = None
        # Ids that grow are written into the ledger's index faster than random ones.
        self._id_prefix, self._numbers = uuid.uuid4().hex[:20], itertools.count(1)

    def new_id(self) -> str:
        """An id for a call, as no other call of any process has."""
        return f"{self._id_prefix}{next(self._numbers):012x}"

    def calls(self) -> sup.ActorRef:
        """Where calls become tasks."""
        return self._office.calls()

    async def drain(self, until: float) -> None:
        """Wait until no call is in flight; those that are at `until` (real monotonic time) are cancelled."""
        loop = asyncio.get_running_loop()
        self._drained = Waker(loop, loop.create_future())
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.future, max(0.0, until - time.monotonic()))
        for task in (left := {task for task, _ in list(self._in_flight.values())}):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=TIME_TO_END)

    # -- the answer that is owed -------------------------------------------------------------------

    async def run(self, reply: sup.Reply, call: Call) -> None:
        """Answer one call exactly once: with a Response or Stream, or with an error of our tree."""
        task = asyncio.current_task()
        assert task is not None
        if call.is_lost:
            return
        report = reports.CallReport(self._office.system.name, call)
        self._in_flight[call.id] = (task, report)
        try:
            async with sup.TimeLimit(self._office.clock, call.deadline):
                response = await self._answer(call, reply)
        except asyncio.CancelledError:
            self._fail(call, reply, report, endings.of_cancellation(call, reply))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller is owed an answer)
            self._fail(call, reply, report, endings.of_error(call, error, self._office.now()))
        else:
            if not call.is_lost:
                endings.succeed(call, reply, response)
                report.success(response)
        finally:
            self._leave(call)

    def lose(self, call: Call, reply: sup.Reply, reason: sup.Reason) -> None:
        """The call's task has been left behind. Answer and book what it will not, on whichever thread.

        The task may come back at any moment, this one included. From here on it sends nothing, and whatever it
        gives back is given back twice at most, which all who get it bear.
        """
        call.is_lost = True
        task, report = self._in_flight.get(call.id, (None, None))
        was_sent = False
        if call.attempt is not None:
            was_sent = call.attempt.lose(is_culprit=task is not None and _is_running(task))
        self._tell_queue(call, request_queue.Cancel(call.id))
        self._tell_queue(call, request_queue.Done(call.id, ok=False))
        error = endings.fail(call, reply, endings.of_loss(call, reason, was_sent=was_sent))
        if report is not None:
            report.failure(error)
        self._leave(call)

    def _fail(self, call: Call, reply: sup.Reply, report: reports.CallReport, error: RubberDuckError) -> None:
        if not call.is_lost:
            report.failure(endings.fail(call, reply, error))
        elif call.pipe is not None:  # it may have been opened in the moment of the loss
            call.pipe.fail(error)

    def _leave(self, call: Call) -> None:
        self._in_flight.pop(call.id, None)
        if self._drained is not None and not self._in_flight:
            self._drained.wake()

    async def _answer(self, call: Call, reply: sup.Reply) -> Response:
        routes = self._office.board.routes(call.request.model, call.providers)
        key = self._answers.key(call)
        kept = self._answers.find(key, call, self._office.now())
        if key is not None:
            reports.looked_up(self._office.system.name, call, is_hit=kept is not None)
        if kept is not None:
            return kept
        call.amounts = await self._estimate(call, routes)
        turn = await self._take_turn(call, routes)
        is_answered = False
        try:
            response, usage = await self._attempts(call, routes, turn, reply)
            is_answered = True
        finally:
            self._tell_queue(call, request_queue.Done(call.id, is_answered))
        response = replace(response, usage=usage, attempts=tuple(call.attempts), request_id=call.id, trace=call.trace())
        self._answers.keep(key, response, self._office.now())
        return response

    # -- waiting for one's turn --------------------------------------------------------------------

    async def _take_turn(self, call: Call, routes: tuple[Route, ...]) -> request_queue.Turn:
        providers = frozenset([route.provider for route in routes])
        tokens = max(1.0, call.amounts.tokens)
        job = Job(call.id, call.klass, call.tenant, tokens, providers, call.deadline, call.accepted_at)
        try:
            turn = await components.ask(self._office.queue(), request_queue.TakeTurn(job))
        except BaseException:
            # The answer may have been on its way: give back both, the place and the slot.
            self._tell_queue(call, request_queue.Cancel(call.id))
            self._tell_queue(call, request_queue.Done(call.id, ok=False))
            raise
        if isinstance(turn, Rejected):
            reports.not_queued(self._office.system.name, call, turn.reason, turn.retry_after)
            raise endings.of_refusal(turn)
        call.queue_wait = self._office.now() - call.accepted_at
        return turn

    def _tell_queue(self, call: Call, message: sup.Ask[Any]) -> None:
        report = functools.partial(reports.bookkeeping_failed, self._office.system.name, call.id)
        components.deliver(self._office.queue(), message, _ignore if call.is_lost else report)

    async def _estimate(self, call: Call, routes: tuple[Route, ...]) -> Amounts:
        """The most it takes. Input tokens are counted only where a limit on tokens can use the number."""
        request = call.request
        output = (request.max_tokens or UNBOUNDED_OUTPUT) * request.n
        for route in routes:
            if self._office.board.desks[route.provider].counts_tokens(route.model):
                from rubberduck import tokens  # loads its vocabularies at the first use

                await tokens.ready(request.model)
                return Amounts(1, tokens.count_messages(request), output, 1)
        return Amounts(1, sum([len(message.text) for message in request.messages]) / 4, output, 1)

    # -- attempts ----------------------------------------------------------------------------------

    async def _attempts(
        self, call: Call, routes: tuple[Route, ...], turn: request_queue.Turn, reply: sup.Reply
    ) -> tuple[Response, Usage]:
        office, board = self._office, self._office.board
        plan = Plan(call.deadline, self._retry, board.rng, out_est=min(call.amounts.output, LONGEST_ESTIMATE))
        by_name = {route.name: route for route in routes}
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
                        self._tell_queue(call, request_queue.Moved(call.id, holds))
                    self._note_attempt(call, route, step, now)
                    answer = await self._attempt(call, route, plan, reply, is_alone=len(routes) == 1)
                    if answer is not None:
                        return answer
                case Sleep(until=until):
                    await sup.sleep(office.clock, max(0.0, until - now))
                case Fail(error=error):
                    raise endings.of_plan(error, routes)

    def _candidate(self, call: Call, route: Route, now: float) -> Candidate:
        board = self._office.board
        return board.candidate(route, reserved(call, board.desks[route.provider], route), call.klass, now)

    async def _attempt(
        self, call: Call, route: Route, plan: Plan, reply: sup.Reply, *, is_alone: bool
    ) -> tuple[Response, Usage] | None:
        """Try one route. None if it failed: the plan has been told, and knows what is next."""
        call.begun += 1
        run = AttemptRun(self._office, self.arrears, call, route, self._limits(call, route, is_alone=is_alone))
        call.attempt = run
        self._debug.request(route.provider, call.request, request_id=call.id, model=route.model)
        try:
            answer = await (run.stream(self._deliverer(call, route, reply)) if call.is_stream else run.complete())
        except NotBegun as refusal:
            plan.refused(route.name, refusal.reason, refusal.retry_after, self._office.now())
            return None
        except RubberDuckError as error:
            self._debug.response(route.provider, str(error), request_id=call.id, model=route.model)
            if run.disposition is None or isinstance(error, Cancelled):
                raise
            told = run.interrupted(error) if call.delivered else error
            plan.failed(route.name, run.disposition, self._office.now(), told, error.retry_after)
            return None
        plan.succeeded(route.name)
        self._debug.response(route.provider, answer[0], request_id=call.id, model=route.model)
        return answer

    def _note_attempt(self, call: Call, route: Route, step: Try, now: float) -> None:
        """A repeat is charged to the retry budget, a first attempt earns a part of one."""
        budget = self._office.board.desks[route.provider].budget_of(route.model)
        if step.is_repeat:
            budget.spend(now)
        else:
            budget.first(now)
        if call.attempts:
            reports.tried_again(
                self._office.system.name, call, route.provider, route.model, now, is_repeat=step.is_repeat
            )

    def _limits(self, call: Call, route: Route, *, is_alone: bool) -> Limits:
        """An answer that is not streamed shows no first token: it has the time for that and for its whole output."""
        config = self._config.providers[route.provider]
        whole = config.timeout
        first = config.first_token_timeout or (FIRST_TOKEN_LIMIT_ALONE if is_alone else FIRST_TOKEN_LIMIT)
        if whole is None and not is_alone and not call.is_stream:
            desk, now = self._office.board.desks[route.provider], self._office.now()
            slowest = desk.stats_of(route.model, now).quantile(0.95) or 0.0
            whole = max(first + SLOW_PACE * call.amounts.output, 3 * slowest)
        remaining = call.deadline - self._office.now()
        ttl = None
        if self._config.circuit_breaker.permit_ttl is None:
            ttl = TIME_TO_END + (remaining if whole is None else min(whole, remaining))
        return Limits(whole, first, ttl)

    def _deliverer(self, call: Call, route: Route, reply: sup.Reply) -> Callable[[Chunk], Awaitable[None]]:
        """What takes the chunks of an attempt to the caller; the first one answers the call with the stream."""

        async def deliver(chunk: Chunk) -> None:
            if call.pipe is None:
                task, loop = asyncio.current_task(), asyncio.get_running_loop()
                assert task is not None
                call.pipe = Pipe(functools.partial(_cancel_on, loop, task))
                if not (reply.is_used or call.is_lost):
                    reply.set(Stream(call.pipe, route.provider, route.model, call.id))
            await call.pipe.write(chunk)

        return deliver


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)


def _ignore(failure: RubberDuckError) -> None:
    """A lost call gives back once more what was given back for it."""


def _is_running(task: asyncio.Task[Any]) -> bool:
    """Whether its code runs in this very moment, as on a blocked loop that of who blocks it does."""
    return asyncio.current_task(task.get_loop()) is task


def _retry_options(config: Config) -> RetryOptions:
    options = dict(config.retry)
    return RetryOptions(**{name: options[name] for name in RetryOptions.__slots__})
