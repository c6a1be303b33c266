"""Four providers, a stream of calls and an incident, on virtual time.

The deciding classes are the real ones, put together as the actors put them: queue, choice, limiter, breaker, plan,
retry budget and the memory of routes. Only clock, wire and callers are made up. A run is a function of its seed:
arrivals, lengths of answers and luck of each call are drawn apart from what the choice draws, so that two runs of
one seed differ by nothing but the incident or the policy.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import random
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from rubberduck.actors.board import Board, ProviderDesk, Route
from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Outcome, Permit, Rejected, State
from rubberduck.core.classify import Settlement, classify
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.limiter import Amounts, Klass, Limiter, LimiterOptions, Refused, Wait
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.request_queue import Accepted, Job, QueueOptions, ReadyRoutes, RequestQueue
from rubberduck.core.retry import RetryOptions
from rubberduck.core.slots import Slots
from rubberduck.errors import Cancelled, Overloaded, ProviderTimeout, RubberDuckError, ServiceUnavailable

MODEL = "m"
FIRST_TOKEN_LIMIT = 10.0
TIMEOUT = 60.0
"""Seconds that a caller waits for the whole answer."""

Kind = Literal["black_hole", "flaky", "slow", "hang"]
Policy = Literal["ours", "round_robin", "least_in_flight", "weighted_sum"]
Process = Generator[Any, Any, None]


# --- virtual time -------------------------------------------------------------------------------------------------


class Promise:
    """What a process waits for until somebody keeps it."""

    __slots__ = ("_world", "process", "value")

    def __init__(self, world: World) -> None:
        self._world = world
        self.process: Process | None = None
        self.value: Any = self

    def keep(self, value: Any) -> None:
        if self.value is self:
            self.value = value
            if self.process is not None:
                self._world.at(self._world.now, self.process, value)


class World:
    """Runs processes in the order of time. A process yields the time at which to go on, or a Promise."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Process | Callable[[], object], Any]] = []
        self._ties = itertools.count()

    def at(self, time: float, what: Process | Callable[[], object], value: Any = None) -> None:
        heapq.heappush(self._events, (time, next(self._ties), what, value))

    def run(self) -> None:
        """Until nothing is left to happen."""
        while self._events:
            self.now, _, what, value = heapq.heappop(self._events)
            if callable(what):
                what()
            else:
                self._resume(what, value)

    def _resume(self, process: Process, value: Any) -> None:
        try:
            wanted = process.send(value)
            while isinstance(wanted, Promise) and wanted.value is not wanted:
                wanted = process.send(wanted.value)
        except StopIteration:
            return
        if isinstance(wanted, Promise):
            wanted.process = process
        else:
            self.at(wanted, process)


# --- the outside --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Incident:
    """What is wrong with one provider, and when. It befalls the attempts that begin meanwhile."""

    kind: Kind
    start: float
    end: float
    provider: str = "a"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One run. `rate` is calls per second for `seconds`; `slots` is how many a provider is sent at once.

    `bears` is how many at once a provider really bears, whatever it is sent: beyond it answers 529 (None: any number).
    `adaptive` lets the number sent follow what the provider bears, `ramps` lets a route whose circuit has closed come
    back slowly, `sheds` turns away who has no time left: each can be switched off, to see what it is good for.
    """

    incident: Incident | None = None
    rate: float = 18.0
    seconds: float = 60.0
    slots: int = 30
    bears: int | None = None
    adaptive: bool = True
    weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    priorities: tuple[int, ...] = (1, 1, 1, 1)
    policy: Policy = "ours"
    reset_timeout: float = 60.0
    classes: tuple[Klass, ...] = ("normal",)
    timeout: float = TIMEOUT
    tokens: int | None = None
    ramps: bool = True
    sheds: bool = True


@dataclass(slots=True)
class Wire:
    """One provider as the world knows it: a time to the first token, a pace, and a trouble of its own."""

    name: str
    scenario: Scenario
    ttft: float = 0.5
    tpot: float = 0.02
    inflight: int = 0
    most: int = 0

    def answer(self, now: float, tokens: int, luck: random.Random) -> tuple[float, float, RubberDuckError | None]:
        """Seconds to the first token and to the end, and how it ends."""
        ttft = self.ttft * luck.lognormvariate(0, 0.4)
        chance = luck.random()
        if self.scenario.bears is not None and self.inflight > self.scenario.bears:
            return 0.05, 0.05, Overloaded("overloaded", provider=self.name, status=529)
        incident = self.scenario.incident
        kind = None
        if incident is not None and incident.provider == self.name and incident.start <= now < incident.end:
            kind = incident.kind
        if kind == "black_hole":
            return 0.05, 0.05, ServiceUnavailable("internal error", provider=self.name, status=500)
        if kind == "flaky" and chance < 0.4:
            return ttft, ttft, ServiceUnavailable("internal error", provider=self.name, status=500)
        if kind == "hang":
            return inf, inf, None
        times = 8.0 if kind == "slow" else 1.0
        return times * ttft, times * (ttft + tokens * self.tpot), None


@dataclass(slots=True)
class Record:
    """What became of one call: `provider` answered it at `ended`, or nobody did. `tried` is each attempt's start."""

    id: str
    klass: Klass
    arrived: float
    tokens: int
    luck: int
    ended: float = inf
    provider: str | None = None
    error: BaseException | None = None
    tried: list[tuple[float, str]] = field(default_factory=list)

    @property
    def latency(self) -> float:
        return self.ended - self.arrived


# --- the run ------------------------------------------------------------------------------------------------------


class _Name:
    offers = frozenset({"chat"})

    def __init__(self, name: str) -> None:
        self.name = name


class Simulation:
    """One scenario with one seed, run to its end; then ask what came of it."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.world = World()
        self.rng = random.Random(f"choice {seed}")
        self.names = tuple("abcdefgh"[: len(scenario.weights)])
        self.wires = {name: Wire(name, scenario) for name in self.names}
        self.desks = {name: self._desk(name, weight) for name, weight in zip(self.names, scenario.weights, strict=True)}
        self.board = Board(self.desks, {}, self.rng)  # type: ignore[arg-type]
        self.routes = tuple([Route(name, MODEL) for name in self.names])
        self.queue = RequestQueue(QueueOptions(), 0.0)
        self.in_use = {route.name: 0 for route in self.routes}
        self.holders: dict[str, str] = {}
        self.closed_at: list[tuple[float, str]] = []
        self._ready = ReadyRoutes(self._has_slot, lambda route: self.board.is_blocked(route, self.world.now))
        self._turns: dict[str, Promise] = {}
        self._grants: dict[str, Promise] = {}
        self._round = 0
        self.records = list(self._workload(random.Random(f"calls {seed}")))
        for record in self.records:
            self.world.at(record.arrived, self._call(record))
        self.held_at_the_end_of_the_incident: dict[str, int] = {}
        if scenario.incident is not None:
            self.world.at(scenario.incident.end, lambda: self.held_at_the_end_of_the_incident.update(self.in_use))
        self.world.run()

    def _desk(self, name: str, weight: float) -> ProviderDesk:
        options = BreakerOptions(reset_timeout=self.scenario.reset_timeout)
        limits = LimiterOptions(max_concurrency=self.scenario.slots)
        priority = self.scenario.priorities[self.names.index(name)]
        desk = ProviderDesk(_Name(name), "", name, priority, weight, options, limits)  # type: ignore[arg-type]
        desk.breakers[MODEL] = CircuitBreaker(options, 0.0, self.rng)
        desk.limiters[0] = Limiter(limits, 0.0, Slots(desk.concurrency_of))
        return desk

    def _workload(self, rng: random.Random) -> Generator[Record]:
        at, scenario = 0.0, self.scenario
        for number in itertools.count():
            at += rng.expovariate(scenario.rate)
            if at >= scenario.seconds:
                return
            tokens = int(rng.lognormvariate(4.6, 0.7)) + 1 if scenario.tokens is None else scenario.tokens
            klass = rng.choice(scenario.classes)
            yield Record(f"c{number}", klass, at, tokens, rng.getrandbits(32))

    # -- one call, as its task in `actors/calls/runner.py` takes it through ---------------------------------------

    def _call(self, record: Record) -> Process:
        if self.scenario.policy != "ours":
            yield from self._naive_call(record)
            return
        world, deadline = self.world, record.arrived + self.scenario.timeout
        turn = self._take_turn(record, deadline)
        holds = yield turn
        if holds is None:
            record.error, record.ended = TimeoutError("not queued"), inf
            return
        plan = Plan(deadline, RetryOptions(), self.rng, out_est=128.0)
        amounts, luck, begun = Amounts(1, 100, 128, 1), random.Random(record.luck), 0
        while True:
            now = world.now
            views = [self.board.candidate(route, amounts, record.klass, now) for route in self.routes]
            match plan.next(now, views):
                case Try() as step:
                    name = step.route.partition("/")[0]
                    if step.route != holds:
                        holds = step.route
                        self._move(record.id, holds)
                    budget = self.desks[name].budget_of(MODEL)
                    if step.is_repeat:
                        assert budget.spend(now), "a repeat was made that its budget did not afford"
                    else:
                        budget.first(now)
                    begun += 1
                    answered = yield from self._attempt(record, f"{record.id}-{begun}", name, plan, deadline, luck)
                    if answered:
                        record.provider, record.ended = name, world.now
                        break
                case Sleep(until=until):
                    yield until
                case Fail(error=error):
                    record.error = error
                    break
        self._release(record.id)
        self.queue.done(record.id, record.provider is not None, world.now if self.scenario.sheds else None)
        self._dispatch()

    def _attempt(
        self, record: Record, id: str, name: str, plan: Plan, deadline: float, luck: random.Random
    ) -> Generator[Any, Any, bool]:
        """Reservation, permit, the wire, and all of it given back: as `actors/calls/attempts.py` does."""
        desk, world, route = self.desks[name], self.world, f"{name}/{MODEL}"
        answer = desk.limiters[0].reserve(id, Amounts(1, 100, 128, 1), world.now, deadline, record.klass, None, MODEL)
        if isinstance(answer, Wait):
            self._grants[id] = promise = Promise(world)
            self._poll_when_due(desk)
            answer = yield promise
        if isinstance(answer, Refused):
            plan.refused(route, answer.reason, answer.retry_after, world.now)
            return False
        breaker = desk.breakers[MODEL]
        permit = breaker.acquire(world.now, deadline - world.now + 5)
        if isinstance(permit, Rejected):
            desk.limiters[0].cancel(id, world.now)
            self._poll(desk)
            plan.refused(route, permit.reason, permit.retry_after, world.now)
            return False
        started = world.now
        record.tried.append((started, name))
        stats, wire = desk.stats_of(MODEL, started), self.wires[name]
        number = stats.started(started)
        wire.inflight += 1
        wire.most = max(wire.most, wire.inflight)
        ttft, duration, error = wire.answer(started, record.tokens, luck)
        if ttft > FIRST_TOKEN_LIMIT:
            ttft = duration = FIRST_TOKEN_LIMIT
            error = ProviderTimeout("no first token", provider=name, phase="uncertain")
        if started + duration > deadline:
            duration = deadline - started
            error = Cancelled("the caller's time was over")
        if error is None:
            yield started + ttft
            stats.first_token(number, world.now)
        yield started + duration
        wire.inflight -= 1
        stats.ended(
            classify(error).breaker,
            world.now,
            tpot=(duration - ttft) / record.tokens,
            duration=duration,
            attempt=number,
        )
        self._learn(desk.concurrency_of(MODEL), wire.inflight + 1, started, error)
        self._settle(desk, permit, id, ttft, record, error)
        if error is None:
            plan.succeeded(route)
            return True
        plan.failed(route, classify(error), world.now, error, error.retry_after)
        return False

    def _learn(self, concurrency: Concurrency, inflight: int, started: float, error: RubberDuckError | None) -> None:
        if not self.scenario.adaptive:
            return
        if error is None:
            concurrency.answered(inflight)
        elif classify(error).shrinks:
            concurrency.overloaded(inflight, started, self.world.now)

    def _settle(
        self,
        desk: ProviderDesk,
        permit: Permit,
        id: str,
        ttft: float,
        record: Record,
        error: RubberDuckError | None,
    ) -> None:
        now, row, breaker, limiter = self.world.now, classify(error), desk.breakers[MODEL], desk.limiters[0]
        breaker.settle(permit, row.breaker, now, ttft, row.kind, error.retry_after if error else None)
        for event in breaker.take_events():
            if event.after is State.CLOSED:
                if self.scenario.ramps:
                    desk.stats_of(MODEL, now).reclosed(event.at)
                self.closed_at.append((event.at, desk.name))
        if row.limiter is Settlement.CANCEL:
            limiter.cancel(id, now)
        else:
            limiter.commit(id, Amounts(1, 100, record.tokens, 1), now)
        self._poll(desk)

    # -- slots and turns, as `actors/request_queue.py` gives them --------------------------------------------

    def _take_turn(self, record: Record, deadline: float) -> Promise:
        job = Job(record.id, record.klass, "", 228.0, frozenset(self.in_use), deadline, record.arrived)
        promise = self._turns[record.id] = Promise(self.world)
        if not isinstance(self.queue.enqueue(job, self.world.now), Accepted):
            del self._turns[record.id]
            promise.keep(None)
            return promise
        self.world.at(deadline, self._expire)
        self._dispatch()
        return promise

    def _dispatch(self) -> None:
        while self._turns and (job := self.queue.dispatch(self.world.now, self._ready)) is not None:
            route = min(self._ready.among(job.routes), key=self.in_use.__getitem__)
            self._hold(job.id, route)
            self._turns.pop(job.id).keep(route)
        for job in self.queue.take_shed():
            self._turns.pop(job.id).keep(None)

    def _expire(self) -> None:
        for job in self.queue.expire(self.world.now):
            self._turns.pop(job.id).keep(None)

    def _has_slot(self, route: str) -> bool:
        return self.in_use[route] < self.board.slots_of(route)

    def _hold(self, id: str, route: str) -> None:
        self.holders[id] = route
        self.in_use[route] += 1

    def _release(self, id: str) -> None:
        self.in_use[self.holders.pop(id)] -= 1

    def _move(self, id: str, route: str) -> None:
        self._release(id)
        self._hold(id, route)
        self._dispatch()

    # -- waiting for a limiter, as `actors/rate_limiter.py` lets them ----------------------------------------

    def _poll(self, desk: ProviderDesk) -> None:
        for answer in desk.limiters[0].poll(self.world.now):
            self._grants.pop(answer.id).keep(answer)
        self._poll_when_due(desk)

    def _poll_when_due(self, desk: ProviderDesk) -> None:
        at = desk.limiters[0].next_at(self.world.now)
        if at is not None:
            self.world.at(at, lambda: self._poll(desk))

    # -- what others do -------------------------------------------------------------------------------------------

    def _naive_call(self, record: Record) -> Process:
        """One attempt where a simple rule sends it: the control that shows what the incident does to others."""
        name, world, luck = self._naive_choice(), self.world, random.Random(record.luck)
        wire, started = self.wires[name], world.now
        stats = self.desks[name].stats_of(MODEL, started)
        record.tried.append((started, name))
        stats.started()
        wire.inflight += 1
        _, duration, error = wire.answer(started, record.tokens, luck)
        yield started + min(duration, self.scenario.timeout)
        wire.inflight -= 1
        answered = error is None and duration <= self.scenario.timeout
        stats.ended(Outcome.SUCCESS if answered else Outcome.FAILURE, world.now)
        if answered:
            record.provider, record.ended = name, world.now

    def _naive_choice(self) -> str:
        self._round += 1
        now = self.world.now
        stats = {name: self.desks[name].stats_of(MODEL, now) for name in self.names}
        if self.scenario.policy == "round_robin":
            return self.names[self._round % len(self.names)]
        if self.scenario.policy == "least_in_flight":
            return min(self.names, key=lambda name: (stats[name].inflight, self.rng.random()))
        # Half for the place in the list, the rest for health and load: a sum in which the first term settles it.
        return max(
            self.names,
            key=lambda name: (
                0.5 / (1 + self.names.index(name))
                + 0.3 * stats[name].health(now)
                + 0.2 * (1 - stats[name].inflight / 100)
            ),
        )

    # -- what came of it -----------------------------------------------------------------------------------------

    def arrived(self, start: float, end: float) -> list[Record]:
        return [record for record in self.records if start <= record.arrived < end]

    @functools.cached_property
    def attempts(self) -> list[tuple[float, str]]:
        """(start, provider) of every attempt, in order."""
        return sorted(itertools.chain.from_iterable(record.tried for record in self.records))

    def share(self, name: str, start: float, end: float) -> float:
        """The provider's share of the attempts begun in that time."""
        begun = [each for at, each in self.attempts if start <= at < end]
        return begun.count(name) / max(1, len(begun))

    def at_rest(self) -> bool:
        """Whether everything that was taken has been given back."""
        end = self.world.now
        limiters = [desk.limiters[0].stats(end) for desk in self.desks.values()]
        return (
            not self.holders
            and not any(self.in_use.values())
            and not any(stats.in_flight or stats.waiting for stats in limiters)
            and not any(desk.breakers[MODEL].stats(end).permits_out for desk in self.desks.values())
            and not any(desk.stats_of(MODEL, end).inflight for desk in self.desks.values())
            and not len(self.queue)
            and self.queue.stats(end).in_process == 0
        )

    def answered_per_second(self, start: float, end: float) -> float:
        return sum(start <= record.ended < end for record in self.records) / (end - start)


@functools.cache
def simulate(scenario: Scenario, seed: int) -> Simulation:
    """The run of that scenario and seed; what several tests look at is run once."""
    return Simulation(scenario, seed)


def success(records: list[Record]) -> float:
    return sum(record.provider is not None for record in records) / len(records)


def p99(records: list[Record]) -> float:
    """The latency that 99 of 100 calls stay below; a call without an answer took for ever."""
    ordered = sorted(record.latency for record in records)
    return ordered[int(0.99 * (len(ordered) - 1))]
