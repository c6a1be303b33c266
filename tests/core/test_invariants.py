"""What must hold of every call, table and wait, whatever happens: searched for by random walks and floods of names."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import errors as e
from rubberduck.core.breaker import Outcome
from rubberduck.core.budget import Budget
from rubberduck.core.budget import Refused as NoMoney
from rubberduck.core.cache import ResponseCache
from rubberduck.core.classify import Quarantine, SameRoute, classify
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.flight import Flight, Flights
from rubberduck.core.keys import Barred, KeyPool
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.rate_headers import Quota, RateHeaders
from rubberduck.core.request_queue import Job, QueueOptions, RequestQueue
from rubberduck.core.retry import RetryBudget, RetryOptions
from rubberduck.core.route_stats import RouteStats
from rubberduck.core.score import Candidate, choose, cost
from rubberduck.core.service_times import ServiceTimes
from rubberduck.core.sticky import Sticky

SEEDS = st.integers(0, 2**32)

# -- one call: time, attempts, money, extras, and nothing twice after output ---------------------------------------


def failures(rng: random.Random) -> BaseException | None:
    """How an attempt ends: each row of the table, with and without the provider's wishes."""
    hint = rng.choice([None, None, 0.01, 1.0, 2.9, 5.0, 40.0])
    wish = rng.choice([None, None, None, True, False])
    said: dict[str, Any] = {"retry_after": hint, "should_retry": wish}
    return rng.choice(
        [
            None,
            e.RateLimited("x", status=429, **said),
            e.Overloaded("x", status=503, **said),
            e.ServiceUnavailable("x", status=500, **said),
            e.ServiceUnavailable("x", phase="not_sent"),
            e.ProviderTimeout("x", phase="uncertain"),
            e.StreamInterrupted("x"),
            e.ProtocolError("x", status=200),
            e.QuotaExceeded("x", status=429, **said),
            e.AuthenticationFailed("x", status=401, **said),
            e.ModelNotFound("x", status=404, **said),
            e.ContextLengthExceeded("x"),
            e.ContentFiltered("x"),
            e.InvalidRequest("x"),
            KeyError("x"),
        ]
    )


@dataclass
class Walk:
    """A call on its way through a world that changes all the time. Everything it does is checked as it does it."""

    rng: random.Random
    now: float = 0.0
    asked: Counter[str] = field(default_factory=Counter)
    forbidden: set[str] = field(default_factory=set)
    not_before: dict[str, float] = field(default_factory=dict)
    last_error: BaseException | None = None
    is_over: bool = False

    def begin(self) -> None:
        rng = self.rng
        self.options = RetryOptions(
            max_attempts=rng.randint(1, 4),
            max_attempts_total=rng.randint(1, 7),
            base_delay=rng.choice([0.0, 0.1, 1.0]),
            max_delay=rng.choice([0.5, 10.0]),
            jitter=rng.random() < 0.5,
            same_route_repeats=rng.randint(0, 3),
            max_wait_for_preferred=rng.choice([0.0, 3.0]),
        )
        self.deadline = rng.choice([0.0, 0.0007, 0.5, 5.0, 60.0])
        self.names = "abcde"[: rng.randint(1, 5)]
        self.extras = {name: RetryBudget(floor=rng.choice([0.0, 3.0])) for name in self.names}
        self.money = Budget(rng.choice([0, 9, 14, 30, 10_000]), None)
        panic = rng.choice(["fail_fast", "wait", "probe_best"])
        self.plan = Plan(self.deadline, self.options, rng, panic=panic)

    def look(self) -> dict[str, Candidate]:
        return {name: self.candidate(name) for name in self.names}

    def candidate(self, name: str) -> Candidate:
        rng = self.rng
        blocked = rng.random() < 0.3
        return Candidate(
            name,
            priority=rng.randint(1, 2),
            obstacle="circuit open" if blocked else None,
            retry_after=rng.choice([None, 0.0, 0.0004, 1.0, 20.0]) if blocked else None,
            may_probe=blocked and rng.random() < 0.5,
            wait=rng.choice([0.0, 0.0, 0.0, 1.0, 4.0, inf]),
            health=rng.random(),
            typical=rng.choice([0.0, 0.0, 0.4, 6.0]),
            repeat_allowed=self.extras[name].affords(self.now),
            context_limit=rng.choice([None, 1000, 2000]),
            family=rng.choice([None, "x", name]),
        )

    def run(self) -> None:
        for _ in range(400):
            seen = self.look()
            match self.plan.next(self.now, list(seen.values())):
                case Fail(error=error):
                    assert error is self.last_error or self.last_error is None
                    return
                case Sleep(until=until):
                    assert self.now < until < self.deadline
                    assert not self.is_over
                    self.now = until
                case Try() as step:
                    if self.is_tried(step, seen[step.route]):
                        return
        raise AssertionError("the call never ends")

    def is_tried(self, step: Try, seen: Candidate) -> bool:
        """Do what a step says; True if that is the answer."""
        assert not self.is_over, "nothing is tried once a call has ended, or output has reached its reader"
        assert step.is_last_resort or seen.obstacle is None
        self.is_affordable(seen, step.is_last_resort)
        route = step.route
        assert step.attempt == self.asked[route] + 1
        if step.is_repeat:
            assert self.asked[route]
            assert route not in self.forbidden
            assert self.now >= self.not_before.get(route, 0.0)
            assert step.with_other_key or self.extras[route].spend(self.now)
        else:
            assert not self.asked[route]
            self.extras[route].first(self.now)
        out = [route] if self.goes_out(route) else []
        if out and not step.is_repeat and self.rng.random() < 0.4:
            out += self.hedge(route)
        self.rng.shuffle(out)
        self.now += self.rng.choice([0.0, 0.2, 3.0])
        return any(self.ends(each) for each in out)  # who answers first wins; nobody hears the other

    def is_affordable(self, seen: Candidate, is_last_resort: bool = False) -> None:
        left = self.deadline - self.now
        assert left > 0
        assert is_last_resort or (seen.typical <= left and seen.wait <= left)

    def goes_out(self, route: str) -> bool:
        """Everything is to be had, money last; else the attempt does not begin."""
        if self.rng.random() < 0.15:
            self.plan.refused(route, "circuit open", self.rng.choice([None, 0.0, 0.5, 30.0]), self.now)
            return False
        refused = self.money.hold(f"{route}{self.asked[route]}", 9, None)  # type: ignore[arg-type]
        if isinstance(refused, NoMoney):
            self.plan.refused(route, refused.reason, refused.retry_after, self.now)
            return False
        self.asked[route] += 1
        assert self.asked[route] <= self.options.max_attempts
        assert self.asked.total() <= self.options.max_attempts_total
        assert self.money.spent + self.money.held <= self.money.limit
        return True

    def hedge(self, silent: str) -> list[str]:
        seen = self.look()
        choice = self.plan.hedge(self.now, list(seen.values()), silent)
        if choice is None:
            return []
        other = seen[choice.route]
        assert other.obstacle is None
        assert other.route != silent
        assert not self.asked[other.route]
        self.is_affordable(other)
        assert self.extras[other.route].spend(self.now)
        return [other.route] if self.goes_out(other.route) else []

    def ends(self, route: str) -> bool:
        self.money.charge(f"{route}{self.asked[route] - 1}", self.rng.randint(0, 9))
        error = failures(self.rng)
        if error is None:
            self.plan.succeeded(route)
            self.is_over = True
            return True
        delivered, other_key = self.rng.random() < 0.1, self.rng.random() < 0.5
        row = classify(error, delivered=delivered, replayable=self.rng.random() < 0.8)
        hint = getattr(error, "retry_after", None)
        self.plan.failed(route, row, self.now, error, hint, has_other_key=other_key)
        self.last_error = error
        self.is_over = self.is_over or delivered or row.is_final
        if row.same_route is SameRoute.NEVER or (row.same_route is SameRoute.OTHER_KEY and not other_key):
            self.forbidden.add(route)
        self.not_before[route] = self.now + (hint or 0.0) if row.same_route is SameRoute.REPEAT else 0.0
        return False


@given(SEEDS)
@settings(max_examples=1200)
def test_no_call_goes_beyond_its_time_its_attempts_its_money_or_the_extras_of_a_route(seed: int) -> None:
    walk = Walk(random.Random(seed))
    walk.begin()
    walk.run()


# -- what waits are told --------------------------------------------------------------------------------------------


@given(
    now=st.floats(0, 1e6),
    kind=st.sampled_from([Quarantine.KEY, Quarantine.QUOTA, Quarantine.ROUTE]),
    hint=st.none() | st.floats(1e-3, 1e5),
    looks=st.lists(st.floats(0, 1), max_size=4),
)
def test_a_key_can_be_used_after_exactly_the_time_that_was_told_and_not_a_microsecond_before(
    now: float, kind: Quarantine, hint: float | None, looks: list[float]
) -> None:
    pool = KeyPool()
    use = pool.claim(0, "m", now)
    assert not isinstance(use, Barred)
    pool.refused(use, kind, now, hint=hint)
    for share in looks:
        barred = pool.obstacle("m", now)
        if barred is not None:
            now += barred.retry_after * share
    barred = pool.obstacle("m", now)
    if barred is not None:
        assert barred.retry_after > 0
        if barred.retry_after > 1e-5:
            assert pool.obstacle("m", now + barred.retry_after - 1e-6) is not None
        assert pool.obstacle("m", now + barred.retry_after) is None
        assert not isinstance(pool.claim(0, "m", now + barred.retry_after), Barred)


def block_by_header(limiter: Limiter, seconds: float, now: float) -> None:
    limiter.observe(RateHeaders((("requests", Quota(10, 0, seconds)),)), now, now, model="m")


BLOCKS: dict[str, Callable[[Limiter, float, float], object]] = {
    "a rate refused": lambda limiter, seconds, now: limiter.throttle(now, seconds, model="m"),
    "a rate refused without a hint": lambda limiter, seconds, now: limiter.throttle(now, model="m"),
    "a lack of capacity": lambda limiter, seconds, now: limiter.penalise(now + seconds, "m"),
    "an operator's word": lambda limiter, seconds, now: limiter.penalise(now + seconds),
    "nothing left by the headers": block_by_header,
}


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
@given(now=st.floats(0, 1e6), seconds=st.floats(1e-3, 1e4), share=st.floats(0, 1))
@settings(max_examples=150)
def test_who_comes_after_exactly_the_time_that_a_limiter_told_is_granted(
    block: Callable[[Limiter, float, float], object], now: float, seconds: float, share: float
) -> None:
    limiter = Limiter(LimiterOptions(requests_per_min=600), now)
    block(limiter, seconds, now)
    later = now + seconds * share
    told = limiter.reserve("me", Amounts(), later, deadline=later, model="m")
    if isinstance(told, Refused):
        assert told.retry_after is not None
        assert told.retry_after > 0
        assert limiter.peek(Amounts(), later, model="m") == told.retry_after
        if told.retry_after > 1e-5:
            before = later + told.retry_after - 1e-6
            assert isinstance(limiter.reserve("early", Amounts(), before, deadline=before, model="m"), Refused)
        then = later + told.retry_after
        assert limiter.reserve("me", Amounts(), then, deadline=then, model="m") == Granted("me")


def in_vain(count: int, times: int = 20_000) -> Iterator[tuple[float, float]]:
    """(from, until) for which a float makes of `from` and the wait in between less than `until`."""
    rng = random.Random(count)
    for _ in range(times):
        until = rng.uniform(0, 3600.0)
        now = rng.uniform(0, until)
        if now + (until - now) < until:
            yield now, until


def test_what_a_float_cannot_hold_of_a_wait_is_not_held_against_who_waited_for_a_key_or_a_limiter() -> None:
    """Who waited exactly as long as told was sent away once more, to wait for less than a clock can tell."""
    tried = list(in_vain(3))
    assert tried
    for now, until in tried:
        pool, limiter = KeyPool(), Limiter(LimiterOptions(), 0.0)
        use = pool.claim(0, "m", 0.0)
        assert not isinstance(use, Barred)
        pool.refused(use, Quarantine.QUOTA, 0.0, hint=until)
        barred = pool.obstacle("m", now)
        assert barred is not None
        assert pool.obstacle("m", now + barred.retry_after) is None
        for model in (None, "m"):
            limiter.penalise(until, model)
            wait = limiter.peek(Amounts(), now, model="m")
            assert limiter.peek(Amounts(), now + wait, model="m") == 0
            limiter = Limiter(LimiterOptions(), 0.0)


# -- what a route costs ---------------------------------------------------------------------------------------------

History = list[tuple[float, float | None]]
"""(seconds since the one before, how slow the answer was or None for a failure)."""
histories = st.lists(st.tuples(st.floats(0, 40), st.none() | st.floats(0.01, 60)), max_size=12)


def cost_after(history: History, rest: float, inflight: int = 0, *, by_token: bool = False) -> float:
    """What the next call is expected to cost on a route with this past, `rest` seconds after it.

    Its answers were slow to begin, or with `by_token` slow from token to token.
    """
    stats, now = RouteStats(0.0), 0.0
    for gap, slow in history:
        now += gap
        number = stats.started()
        outcome = Outcome.FAILURE if slow is None else Outcome.SUCCESS
        ttft, tpot = (1.0, slow) if by_token else (slow, None)
        stats.ended(outcome, now, ttft=ttft, tpot=tpot, duration=ttft, attempt=number)
    for _ in range(inflight):
        stats.started(now)
    now += rest
    return cost(
        Candidate("a", inflight=stats.inflight, health=stats.health(now), ttft=stats.ttft(now), tpot=stats.tpot(now)),
        100.0,
    )


@given(histories, st.floats(0, 40), st.data())
def test_one_more_failure_never_makes_a_route_cheaper(history: History, rest: float, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(history)))
    failed: History = [*history[:place], (0.0, None), *history[place:]]
    assert cost_after(failed, rest) >= cost_after(history, rest) * (1 - 1e-9)
    assert cost_after([*history, (0.0, None)], rest) > cost_after(history, rest)


@given(histories.filter(lambda history: any(slow for _, slow in history)), st.floats(0, 40), st.booleans(), st.data())
def test_a_slower_answer_never_makes_a_route_cheaper(
    history: History, rest: float, by_token: bool, data: st.DataObject
) -> None:
    place = data.draw(st.sampled_from([number for number, (_, slow) in enumerate(history) if slow is not None]))
    gap, slow = history[place]
    assert slow is not None
    slower = slow + data.draw(st.floats(0, 60))
    changed: History = [*history[:place], (gap, slower), *history[place + 1 :]]
    before, after = (cost_after(each, rest, by_token=by_token) for each in (history, changed))
    assert after >= before * (1 - 1e-9)


@given(histories, st.floats(0, 40), st.integers(0, 5))
def test_one_more_call_that_is_still_out_never_makes_a_route_cheaper(
    history: History, rest: float, inflight: int
) -> None:
    assert cost_after(history, rest, inflight + 1) >= cost_after(history, rest, inflight) * (1 - 1e-9)


few = st.lists(
    st.builds(
        Candidate,
        route=st.just(""),
        weight=st.floats(0.1, 10),
        wait=st.floats(0, 10),
        inflight=st.integers(0, 9),
        health=st.floats(0, 1),
        ttft=st.floats(0.01, 10),
        tpot=st.floats(0.001, 0.1),
        usd=st.floats(0, 1),
    ),
    min_size=2,
    max_size=4,
)


@given(few, st.sampled_from(["inflight", "ttft", "tpot", "wait", "usd", "health"]), st.integers(1, 5), st.data())
def test_who_is_not_chosen_is_not_chosen_for_getting_worse(
    routes: list[Candidate], term: str, more: int, data: st.DataObject
) -> None:
    named = [replace(each, route=str(number)) for number, each in enumerate(routes)]
    which = data.draw(st.sampled_from(named))
    worse = replace(which, **{term: which.health / (1 + more) if term == "health" else getattr(which, term) + more})

    def chosen(views: list[Candidate]) -> set[str]:
        choices = [choose(views, random.Random(seed), price_weight=1.0) for seed in range(20)]
        return {choice.route for choice in choices if choice is not None}

    if which.route not in chosen(named):
        assert which.route not in chosen([worse if each is which else each for each in named])


# -- what grows -----------------------------------------------------------------------------------------------------


@given(SEEDS, st.integers(1, 200))
def test_a_concurrency_limit_is_never_below_one_nor_above_its_ceiling(seed: int, ceiling: int) -> None:
    rng, now, limit = random.Random(seed), 0.0, Concurrency(ceiling)
    for _ in range(300):
        now += rng.random()
        inflight = rng.randint(0, ceiling)
        if rng.random() < rng.choice([0.02, 0.5]):
            limit.overloaded(inflight, now - rng.random(), now)
        else:
            limit.answered(inflight)
        assert 1 <= limit.limit <= ceiling
        assert limit.has_room(0)


FLOOD = 20_000


def largest(thing: object) -> int:
    """How much the largest collection holds that can be reached from here."""
    seen: set[int] = set()
    found, todo = 0, [thing]
    while todo:
        each = todo.pop()
        if id(each) in seen or isinstance(each, type):
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            found = max(found, len(each))
            todo += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset | deque):
            found = max(found, len(each))
            todo += each
        elif type(each).__module__.startswith("rubberduck"):
            todo += [value for name in _names(each) if (value := getattr(each, name, None)) is not None]
    return found


def _names(thing: object) -> list[str]:
    slots = [name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*slots, *getattr(thing, "__dict__", ())]


def learned_limits() -> object:
    limiter = Limiter(LimiterOptions(requests_per_min=10**9), 0.0)
    for number in range(FLOOD):
        limiter.throttle(1.0 * number, 5.0, sent_at=1.0 * number, model=f"m{number}")
    return limiter


def settled_reservations() -> object:
    limiter = Limiter(LimiterOptions(capacity=10**9, refill_rate=1, requests_per_min=10**9), 0.0)
    for number in range(FLOOD):
        limiter.reserve(f"r{number}", Amounts(1, 5, 5), 0.01 * number, model=f"m{number}")
        limiter.commit(f"r{number}", Amounts(1, 5, 1), 0.01 * number)
    return limiter


def waiters_who_gave_up() -> object:
    limiter = Limiter(LimiterOptions(capacity=1, refill_rate=0.001), 0.0)
    limiter.reserve("first", Amounts(), 0.0)
    for number in range(FLOOD):
        limiter.reserve(f"r{number}", Amounts(), 0.0, deadline=1e9, model=f"m{number}")
        limiter.cancel(f"r{number}", 0.0)
    return limiter


def quarantines() -> object:
    pool = KeyPool(("a", "b"))
    for number in range(FLOOD):
        use = pool.claim(number % 2, f"m{number}", 0.0)
        assert not isinstance(use, Barred)
        pool.refused(use, Quarantine.ROUTE if number % 3 else Quarantine.KEY, 0.0, for_model=True)
    return pool


def conversations() -> object:
    sticky = Sticky()
    for number in range(FLOOD):
        sticky.answered([f"s{number}"], "a/m", 0.0, 1, 2)
    return sticky


def service_times() -> object:
    times = ServiceTimes()
    for number in range(FLOOD):
        times.learn(frozenset([f"a/m{number}"]), 1.0, 0.01 * number)
    return times


def queue_of_many_tenants() -> object:
    queue = RequestQueue(QueueOptions(max_queue_size=50), 0.0)
    for number in range(FLOOD):
        job = Job(f"j{number}", "normal", f"t{number}", 10.0, frozenset([f"a/m{number}"]), deadline=1e9)
        queue.enqueue(job, 0.0)
        if number % 6 == 0:
            queue.cancel(job.id)
        elif number > 50 and (going := queue.dispatch(0.0)) is not None:
            queue.done(going.id, ok=True, now=1.0)
    return queue


def answers_kept() -> object:
    cache = ResponseCache[str](max_bytes=500_000)
    for number in range(FLOOD):
        cache.put(f"k{number}", "x", 100, 0.0)
    return cache


def shared_flights() -> object:
    flights: Flights[Flight[str]] = Flights()
    for number in range(FLOOD):
        flight, seat = flights.join(f"f{number}", Flight)
        flight.add("x", 1)
        flights.leave(f"f{number}", flight, seat)
    return flights


def one_route() -> object:
    stats = RouteStats(0.0)
    for number in range(FLOOD):
        attempt = stats.started(1.0 * number)
        stats.first_token(attempt, number + 0.5)
        stats.ended(Outcome.SUCCESS, number + 0.7, tpot=0.1, duration=0.7, attempt=attempt)
    return stats


def retries() -> object:
    budget = RetryBudget()
    for number in range(FLOOD):
        budget.first(0.01 * number)
    return budget


@pytest.mark.parametrize(
    ("flooded", "cap"),
    [
        (learned_limits, 1000),
        (settled_reservations, 4096),
        (waiters_who_gave_up, 200),
        (quarantines, 1000),
        (conversations, 10_000),
        (service_times, 1000),
        (queue_of_many_tenants, 10_050),
        (answers_kept, 5000),
        (shared_flights, 0),
        (one_route, 128),
        (retries, 12),
    ],
)
def test_twenty_thousand_names_fill_no_memory_beyond_its_cap(flooded: Callable[[], object], cap: int) -> None:
    assert largest(flooded()) <= cap
