"""How one call gets its answer: its turn in the queue, then attempts as the plan decides.

The whole way of a call, in this order:

    service      accepts it: from here on its deadline runs, and a task under `calls` owes the answer
    cache        a whole answer to the same question ends it here                 runner.py, answers.py
    flight       or it joins an identical call that is under way                  runner.py, flights.py
    budget       is there a route that its money would do for?                    budgets.py
    queue        one turn for all attempts, by class, tenant and route            ../request_queue.py
 ┌▶ choice       the plan takes a route, waits, or gives up                       core/plan.py, core/score.py
 │  limiter      a key of the provider's, requests, tokens and a slot             attempts.py
 │  breaker      a permit, last of what is waited for: waiting holds no probe     attempts.py
 │  ledger       the worst case is set aside, the intent on the disk              attempts.py, ../cost_tracker.py
 │  wire         the one place of I/O                                             wire.py
 └─ settled      permit, reservation, money, ledger; the plan hears how it ended  attempts.py, core/classify.py

Whoever says no after the choice sends the call back to it, and nothing has been sent. With a hedge two attempts run
beside each other (race.py). Chunks reach the caller as its stream policy wants (delivery.py, continuation.py).

From the choice on that is a *round*. Some calls take several in their one turn, each with a plan of its own: more texts
than one request takes, side by side (embedding.py), and an answer that has to be mended (output.py).
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import supervision as sup
from rubberduck.actors import components, request_queue
from rubberduck.actors.board import Route
from rubberduck.actors.calls import endings, reports
from rubberduck.actors.calls.arrears import Arrears
from rubberduck.actors.calls.attempts import AttemptRun, NotBegun, reserved
from rubberduck.actors.calls.budgets import Money
from rubberduck.actors.calls.call import CHAT, Call
from rubberduck.actors.calls.continuation import goes_on
from rubberduck.actors.calls.delivery import Delivery
from rubberduck.actors.calls.habits import priced
from rubberduck.actors.calls.patience import limits_of
from rubberduck.actors.calls.race import Answer, Race, Result
from rubberduck.actors.calls.rules import Rules
from rubberduck.actors.calls.trace import GaveUp, noted
from rubberduck.actors.calls.wire import Deliver
from rubberduck.actors.office import Office
from rubberduck.core.classify import SameRoute, Settlement
from rubberduck.core.estimate import UNBOUNDED_OUTPUT
from rubberduck.core.limiter import Amounts
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.request_queue import Job, Rejected
from rubberduck.core.score import Candidate, with_obstacle
from rubberduck.errors import Cancelled, NoAvailableProvider, RubberDuckError
from rubberduck.types import Chunk, Request

LONGEST_ESTIMATE = 1024.0
"""The most output, in tokens, that the choice of a route reckons with."""


class Course:
    """The way of one call through the tree. Used once, by the call's task."""

    __slots__ = (
        "_arrears",
        "_call",
        "_conversation",
        "_delivery",
        "_holds",
        "_left_out",
        "_office",
        "_plan",
        "_routes",
        "_rules",
    )

    def __init__(self, office: Office, arrears: Arrears, rules: Rules, call: Call, delivery: Delivery) -> None:
        self._office = office
        self._arrears = arrears
        self._rules = rules
        self._call = call
        self._delivery = delivery
        self._routes: tuple[Route, ...] = ()
        # Routes that the call cannot take, and why.
        self._left_out: dict[Route, str] = {}
        self._holds = ""
        self._conversation = rules.habits.of(call)

    async def answer(self) -> Answer:
        """The whole answer and its usage with the cost. Raises how the call failed."""
        call = self._call
        self._routes = self._find_routes()
        if self._office.budgets is not None or call.max_cost is not None:
            call.money = Money.of(self._office, call)
            if call.money is not None:
                call.money.require_some(self._routes, self._rules.retry)
        call.amounts = await self._estimate()
        self._holds = (await self._take_turn()).route
        is_answered = False
        try:
            answer = await self._rounds()
            is_answered = True
        finally:
            tell_queue(self._office, call, request_queue.Done(call.id, is_answered))
        return self._delivery.finish(*answer)

    def _find_routes(self) -> tuple[Route, ...]:
        call, board = self._call, self._office.board
        try:
            routes = board.routes(call.request.model, call.providers)
            return self._able(routes) if board.unable[call.kind] else routes
        except NoAvailableProvider as error:
            call.steps.append((self._office.now(), GaveUp(dict(error.reasons), ())))
            raise

    def _able(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        kind = self._call.kind
        able = self._office.board.able(routes, kind)
        self._left_out |= {route: self._office.board.lack(route, kind) for route in routes if route not in able}
        return able

    # -- waiting for one's turn --------------------------------------------------------------------

    async def _take_turn(self) -> request_queue.Turn:
        call = self._call
        routes = frozenset([route.name for route in self._routes])
        tokens = max(1.0, call.amounts.tokens)
        job = Job(call.id, call.klass, call.tenant, tokens, routes, call.deadline, call.accepted_at)
        try:
            turn = await components.ask(self._office.queue(), request_queue.TakeTurn(job))
        except BaseException:
            # The answer may have been on its way: give back both, the place and the slot.
            tell_queue(self._office, call, request_queue.Cancel(call.id))
            tell_queue(self._office, call, request_queue.Done(call.id, ok=False))
            raise
        if isinstance(turn, Rejected):
            reports.not_queued(self._office.system.name, call, turn.reason, turn.retry_after)
            raise endings.of_refusal(turn)
        call.queue_wait, call.place = self._office.now() - call.accepted_at, turn.place
        return turn

    async def _estimate(self) -> Amounts:
        """The most it takes. Input tokens are counted only where a limit on tokens can use the number."""
        request = self._call.request
        assert isinstance(request, Request)
        output = (request.max_tokens or UNBOUNDED_OUTPUT) * request.n
        for route in self._routes:
            if self._office.board.desks[route.provider].counts_tokens(route.model):
                from rubberduck import tokens  # loads its vocabularies at the first use

                await tokens.ready(request.model)
                return Amounts(1, tokens.count_messages(request), output, 1)
        return Amounts(1, sum([len(message.text) for message in request.messages]) / 4, output, 1)

    # -- attempts ----------------------------------------------------------------------------------

    async def _rounds(self) -> Answer:
        """The answer of all rounds together."""
        return await self._round()

    async def _round(self) -> Answer:
        """Ask what the call asks now, until there is an answer or nothing is left to try."""
        call, routes, office, board = self._call, self._routes, self._office, self._office.board
        plan = self._plan = Plan(
            call.deadline,
            self._rules.retry,
            board.rng,
            out_est=min(call.amounts.output, LONGEST_ESTIMATE),
            price_weight=self._rules.habits.price_weight,
            panic=self._rules.habits.panic,
            sticky=None if self._conversation is None else self._conversation.route(office.now()),
        )
        by_name = {route.name: route for route in routes}
        while True:
            now, plan.deadline = office.now(), call.deadline  # who joins a shared call may lengthen it
            decision = plan.next(now, self._candidates(now))
            call.steps.append((now, noted(decision)))
            match decision:
                case Try() as step:
                    route = by_name[step.route]
                    if route.name != self._holds:
                        self._holds = route.name
                        tell_queue(self._office, call, request_queue.Moved(call.id, route.name))
                    self._note_attempt(route, step, now)
                    answer = await self._attempt(route, step)
                    if answer is not None:
                        return answer
                case Sleep(until=until):
                    await sup.sleep(office.clock, max(0.0, until - now))
                case Fail(error=error):
                    over = None if call.money is None else call.money.exceeded(routes, self._rules.retry, error)
                    raise over or endings.of_plan(error, routes)

    def _candidates(self, now: float) -> list[Candidate]:
        """All routes as they look to this call."""
        habits, views = self._rules.habits, [self._candidate(route, now) for route in self._routes]
        if self._conversation is not None:
            views = self._conversation.expecting(views, now)
        if habits.price_weight:
            views = priced(self._office, self._call, self._routes, views)
        return [*views, *self._views_left_out(now)] if self._left_out else views

    def _views_left_out(self, now: float) -> list[Candidate]:
        board, call = self._office.board, self._call
        views = [(board.candidate(route, call.amounts, call.klass, now), why) for route, why in self._left_out.items()]
        return [with_obstacle(view, why) for view, why in views]

    def _candidate(self, route: Route, now: float) -> Candidate:
        call, board = self._call, self._office.board
        desk = board.desks[route.provider]
        candidate = board.candidate(route, reserved(call, desk, route), call.klass, now)
        if call.delivered and candidate.obstacle is None and not goes_on(self._rules.providers, desk, route):
            return with_obstacle(candidate, "does not continue an answer")
        if call.money is not None:
            return call.money.seen(candidate, route)
        return candidate

    async def _attempt(self, route: Route, step: Try) -> Answer | None:
        """Try one route. None if it failed: the plan has been told, and knows what is next."""
        run = self._prepare(route)
        run.is_last_resort, run.is_first = step.is_last_resort, not step.is_repeat
        if len(self._routes) > 1:
            run.leaves = functools.partial(self._leaves, route)
        self._call.out = [run]
        delay = self._silence_before_hedge(route)
        if delay is not None:
            return await self._hedged(run, delay)
        run.task = asyncio.current_task()
        return self._judge(run, await self._send(run, functools.partial(self._delivery.deliver, run)))

    def _leaves(self, route: Route, waited: float, still: float | None) -> bool:
        """Whether a call that waits for the limiter of `route` had better go elsewhere."""
        now = self._office.now()
        return self._plan.leaves(now, self._candidates(now), route.name, waited, still)

    def _prepare(self, route: Route) -> AttemptRun:
        limits = limits_of(self._office, self._rules, self._call, route, is_alone=len(self._routes) == 1)
        run = AttemptRun(self._office, self._arrears, self._call, route, limits)
        run.leaves_filters = self._rules.leaves_filters
        self._call.steps.append((self._office.now(), run.leg))
        return run

    async def _send(self, run: AttemptRun, deliver: Deliver) -> Result:
        """Make the attempt. How it is refused or fails is a value, for the plan to judge."""
        call, route = self._call, run.route
        self._rules.debug.request(route.provider, call.request, request_id=call.id, model=route.model)
        try:
            return await (run.stream(deliver) if call.is_stream else run.complete())
        except (NotBegun, RubberDuckError) as error:
            return error

    def _judge(self, run: AttemptRun, result: Result) -> Answer | None:
        """Tell the plan. The answer, None if there is to be another attempt; raises what ends the call at once."""
        call, plan, route = self._call, self._plan, run.route
        if isinstance(result, NotBegun):
            run.leg.refused, run.leg.retry_after = result.reason, result.retry_after
            plan.refused(route.name, result.reason, result.retry_after, self._office.now())
            return None
        told: object = str(result) if isinstance(result, RubberDuckError) else result[0]
        self._rules.debug.response(route.provider, told, request_id=call.id, model=route.model)
        if not isinstance(result, RubberDuckError):
            plan.succeeded(route.name)
            if self._conversation is not None:
                self._conversation.answered(route.name, result[1], self._office.now())
            return result
        if run.disposition is None or isinstance(result, Cancelled):
            raise result
        error = self._delivery.interrupted(run, result) if call.delivered else result
        now, keys = self._office.now(), self._office.board.desks[route.provider].keys
        is_other = run.disposition.same_route is SameRoute.OTHER_KEY and keys.obstacle(route.model, now) is None
        hint = result.retry_after
        if len(keys.names) > 1 and run.disposition.limiter is Settlement.BLOCK:
            hint = None  # it is about that key, which the limiter holds back so long; another one need not wait
        plan.failed(route.name, run.disposition, now, error, hint, has_other_key=is_other)
        return None

    # -- hedging -----------------------------------------------------------------------------------

    def _silence_before_hedge(self, route: Route) -> float | None:
        """Seconds of silence after which another route is asked beside this one; None if none will be."""
        hedges, call = self._rules.hedges, self._call
        if hedges is None:
            return None
        hedges.call()
        if len(self._routes) == 1 or not call.replayable or call.kind != CHAT:
            return None
        stats = self._office.board.desks[route.provider].stats_of(route.model, self._office.now())
        p95 = stats.ttft_quantile(0.95) if call.is_stream else stats.quantile(0.95)
        return hedges.delay(stats.answered, p95)

    async def _hedged(self, run: AttemptRun, delay: float) -> Answer | None:
        """As `_attempt`, with a second route beside it once the first has been silent for `delay` seconds."""
        race = Race(self._send_in)
        race.start(run)
        until: float | None = self._office.now() + delay
        try:
            while not race.is_over:
                ended = await race.wait(self._office.clock, until)
                if ended is not None:
                    answer = self._judge(*ended)
                    if answer is not None:
                        return answer
                elif until is not None and not run.is_on_the_wire:
                    until = self._office.now() + delay
                    continue
                elif until is not None and not race.is_won:
                    self._start_second(race, run)
                until = None
            return None
        finally:
            await race.end()
            self._call.attempts.sort(key=lambda attempt: attempt.started)

    async def _send_in(self, race: Race, run: AttemptRun) -> Result:
        async def deliver(chunk: Chunk) -> None:
            race.claim(run)
            await self._delivery.deliver(run, chunk)

        return await self._send(run, deliver)

    def _start_second(self, race: Race, first: AttemptRun) -> None:
        """Ask another route too, if one could begin at once and the share of hedges is not used up."""
        call, board, now, hedges = self._call, self._office.board, self._office.now(), self._rules.hedges
        if hedges is None or not hedges.affords:
            return
        choice = self._plan.hedge(now, self._candidates(now), first.route.name)
        if choice is None:
            return
        hedges.spend()
        call.steps.append((now, choice))
        route = next(route for route in self._routes if route.name == choice.route)
        board.desks[route.provider].budget_of(route.model).spend(now)
        reports.hedged(self._office.system.name, call, first.route, route, now - first.started)
        second = self._prepare(route)
        second.may_wait = False
        call.out.append(second)
        race.start(second)

    def _note_attempt(self, route: Route, step: Try, now: float) -> None:
        """A repeat is charged to the retry budget, another key is not; a first attempt earns when it is sent."""
        if step.is_repeat and not step.with_other_key:
            self._office.board.desks[route.provider].budget_of(route.model).spend(now)
        if self._plan.attempts:
            reports.tried_again(
                self._office.system.name, self._call, route.provider, route.model, now, is_repeat=step.is_repeat
            )


def tell_queue(office: Office, call: Call, message: sup.Ask[Any]) -> None:
    """Tell the queue of a call's end or change; nobody waits for it."""
    report = functools.partial(reports.bookkeeping_failed, office.system.name, call.id)
    components.deliver(office.queue(), message, _ignore if call.is_lost else report)


def _ignore(failure: RubberDuckError) -> None:
    """A lost call gives back once more what was given back for it."""
