"""What one decision costs: of a breaker, a limiter, the choice of a route, the queue; alone and with ten times as many.

    python -m benchmarks.resilience [--rounds 9]

The deciding classes alone, without actors and messages. Each figure is the least of several rounds, in CPU time of
this process: neighbours and the collector only ever add. "With ten times as many" is the same decision with ten times
as many calls out or waiting: what does not grow with them is flat.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Outcome, Permit
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.limiter import Amounts, Limiter, LimiterOptions
from rubberduck.core.rate_headers import Quota, RateHeaders
from rubberduck.core.request_queue import CLASSES, Job, QueueOptions, RequestQueue
from rubberduck.core.route_stats import RouteStats
from rubberduck.core.score import Candidate, choose

TIMES = 5_000
FLAT = 1.5
"""How many times its cost a decision may cost with ten times as many, to count as flat."""

Decide = Callable[[float], object]


@dataclass(frozen=True, slots=True)
class Decision:
    """One kind of decision: `prepare(size)` makes it ready with so many others about. The target is in microseconds."""

    title: str
    target: float
    size: int
    prepare: Callable[[int], Decide]


def breaker(out: int) -> Decide:
    circuit = CircuitBreaker(BreakerOptions(permit_ttl=1e9), 0.0, random.Random(1))
    for _ in range(out):
        circuit.acquire(0.0)

    def decide(now: float) -> None:
        permit = circuit.acquire(now)
        assert isinstance(permit, Permit)
        circuit.settle(permit, Outcome.SUCCESS, now, 0.5)

    return decide


AMOUNTS, ACTUAL = Amounts(1, 500, 300, 1), Amounts(1, 500, 200, 1)


SAID = RateHeaders((("requests", Quota(1e12, 1e12, 1.0)), ("tokens", Quota(1e12, 1e12, 1.0))))


def limiter(out: int) -> Decide:
    """With limits on requests, input and output per minute, beside a ceiling."""
    return reserving(out, configured_limiter())


def taught_limiter(out: int) -> Decide:
    """The same, with the limits on requests and tokens that a provider's headers teach."""
    books = configured_limiter()
    books.observe(SAID, 0.0, 0.0)
    return reserving(out, books)


def configured_limiter() -> Limiter:
    options = LimiterOptions(
        requests_per_min=1e12,
        input_tokens_per_min=1e12,
        output_tokens_per_min=1e12,
        max_concurrency=100_000,
        reservation_ttl=1e9,
    )
    return Limiter(options, 0.0)


def reserving(out: int, books: Limiter) -> Decide:
    for number in range(out):
        books.reserve(f"out {number}", AMOUNTS, 0.0)
    names = iter(range(10**9))

    def decide(now: float) -> None:
        name = str(next(names))
        books.reserve(name, AMOUNTS, now)
        books.commit(name, ACTUAL, now)

    return decide


def waiting_limiter(waiting: int) -> Decide:
    """All slots taken: get in line behind the others, and leave it."""
    books = Limiter(LimiterOptions(max_concurrency=1, reservation_ttl=1e9), 0.0)
    for number in range(waiting + 1):
        books.reserve(f"waits {number}", AMOUNTS, 0.0)
    names = iter(range(10**9))

    def decide(now: float) -> None:
        name = str(next(names))
        books.reserve(name, AMOUNTS, now)
        books.cancel(name, now)

    return decide


def choice(inflight: int) -> Decide:
    rng = random.Random(1)
    routes = [Candidate(f"p{number}/m", inflight=inflight + number, ttft=0.5 + number / 10) for number in range(8)]
    return lambda now: choose(routes, rng, 256.0)


def queue(depth: int) -> Decide:
    """At a steady depth, of three classes and ten tenants, with deadlines, for three sets of routes."""
    line = RequestQueue(QueueOptions(max_queue_size=10 * depth), 0.0)
    sets = [frozenset({"a"}), frozenset({"a", "b"}), frozenset({"b", "c"})]
    names = iter(range(10**9))

    def enqueue(now: float) -> None:
        number = next(names)
        tenant = f"tenant {number % 10}"
        routes = sets[number // 3 % 3]
        line.enqueue(Job(str(number), CLASSES[number % 3], tenant, 800.0, routes, now + 1e9, now), now)

    for _ in range(depth):
        enqueue(0.0)
    ready = frozenset({"a", "b", "c"})

    def decide(now: float) -> None:
        enqueue(now)
        job = line.dispatch(now, ready)
        assert job is not None
        line.done(job.id, True, now)

    return decide


def memory(out: int) -> Decide:
    """An attempt's start, first token and end, and what is read of them for a choice."""
    stats = RouteStats(0.0)
    for _ in range(out):
        stats.started(0.0)

    def decide(now: float) -> None:
        number = stats.started(now)
        stats.first_token(number, now + 0.5)
        stats.ended(Outcome.SUCCESS, now, tpot=0.02, duration=3.0, attempt=number)
        stats.health(now)
        stats.ttft(now)
        stats.tpot(now)

    return decide


def concurrency(limit: int) -> Decide:
    slots = Concurrency(10**6)
    slots.overloaded(limit, 0.0, 0.0)

    def decide(now: float) -> None:
        slots.has_room(limit)
        slots.answered(10**6)

    return decide


DECISIONS = (
    Decision("breaker: acquire and settle", 3.0, 100, breaker),
    Decision("limiter: reserve and commit", 5.0, 100, limiter),
    Decision("the same, with learned limits", 5.0, 100, taught_limiter),
    Decision("limiter: get in line and leave it", 10.0, 1_000, waiting_limiter),
    Decision("choice among 8 candidates", 20.0, 10, choice),
    Decision("queue: enqueue and dispatch", 10.0, 1_000, queue),
    Decision("memory of a route: one attempt", 10.0, 10, memory),
    Decision("adaptive concurrency: one answer", 1.0, 100, concurrency),
)


def microseconds(decide: Decide, start: float) -> float:
    """The mean of one round. Virtual time goes on by 10 ms with each decision."""
    moments = [start + number / 100 for number in range(TIMES)]
    began = time.process_time()
    for now in moments:
        decide(now)
    return (time.process_time() - began) / TIMES * 1e6


def least(decision: Decision, rounds: int) -> tuple[float, float]:
    """What it costs as it is, and with ten times as many; measured in turn, so that a bad minute falls upon both."""
    few, many = decision.prepare(decision.size), decision.prepare(10 * decision.size)
    best = [inf, inf]
    for number in range(rounds):
        gc.collect()
        gc.disable()
        for which, decide in enumerate((few, many)):
            best[which] = min(best[which], microseconds(decide, 100.0 * number))
        gc.enable()
    return best[0], best[1]


def verdict(decision: Decision, few: float, many: float) -> str:
    told = [] if few < decision.target else ["MISSED"]
    if many > FLAT * few:
        told.append("NOT FLAT")
    return ", ".join(told) or "met"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    print(f"{'CPU us, least of ' + str(rounds) + ' rounds':<36}{'with':>8}{'':>10}{'10 x':>10}{'target':>9}")
    for decision in DECISIONS:
        few, many = least(decision, rounds)
        print(
            f"{decision.title:<36}{decision.size:>8}{few:>10.2f}{many:>10.2f}{decision.target:>9g}"
            f"  {verdict(decision, few, many)}"
        )
    print(f"flat: with ten times as many (out, in flight, or waiting) at most {FLAT:g} times the cost")


if __name__ == "__main__":
    main()
