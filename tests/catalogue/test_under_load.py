"""Providers that are down, flaky, slow or hanging while many calls are made: who is asked how often, and who waits."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

import pytest
from tests_upstreams_rig import REQUEST, Pair, Upstreams, attempts, wait_until

from rubberduck.errors import RubberDuckError
from rubberduck.testing.faults import TEXT, Flaky, Ok, Silence, Status

QUICK = {"base_delay": "1ms", "max_delay": "2ms"}
NO_REPEATS = {"same_route_repeats": 0}
SAME_PRIORITY = {"priority": 1}


async def ask_many(pair: Pair, calls: int, at_once: int) -> list[Any]:
    """The answers and errors of so many calls, by turns whole and streamed."""
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> Any:
        async with gate:
            try:
                ended: Any = await (whole(pair) if number % 2 else streamed(pair))
            except RubberDuckError as error:
                ended = error
            pair.asked.append(ended)
            return ended

    async with asyncio.timeout(100):
        return await asyncio.gather(*(one(number) for number in range(calls)))


async def whole(pair: Pair) -> Any:
    response = await pair.duck.acomplete(REQUEST)
    assert response.text == TEXT
    return response


async def streamed(pair: Pair) -> Any:
    async with pair.duck.astream(REQUEST) as stream:
        text = "".join([chunk.delta.content async for chunk in stream])
    assert text == TEXT
    return stream.response


def run(pair: Pair, calls: int, at_once: int) -> float:
    """The share of calls that were answered."""
    ended = asyncio.run(ask_many(pair, calls, at_once))
    return sum(not isinstance(each, RubberDuckError) for each in ended) / calls


# --- down and up again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["complete", "stream"])
def test_while_the_primary_is_down_only_probes_reach_it_and_afterwards_it_is_back_with_the_first_probe(
    upstreams: Upstreams, verb: str
) -> None:
    """An outage of two probes or more, with 0.3 s between them for a minute."""
    reset, pause = 0.3, 0.03
    breaker = {"failure_threshold": 3, "reset_timeout": f"{reset}s"}
    pair = upstreams(Status(503), circuit_breaker=breaker, retry=NO_REPEATS)
    answered = 0
    while len(pair.primary.calls) < 3 + 2 or answered < 20:
        assert pair.ask(verb).provider == "fallback"
        answered += 1
        time.sleep(pause)
    during = [call.arrived_at for call in pair.primary.calls]
    assert all(later - earlier >= reset for earlier, later in itertools.pairwise(during[2:])), during
    assert pair.duck.status().providers["primary"].state != "closed"
    pair.primary.play(Ok())
    wait_until(lambda: pair.ask(verb).provider == "primary")
    assert len(pair.primary.calls) == len(during) + 1
    for _ in range(3):
        assert pair.ask(verb).provider == "primary"
    assert pair.duck.status().providers["primary"].state == "closed"


def test_a_storm_of_calls_at_a_provider_that_fails_makes_few_repeats(upstreams: Upstreams) -> None:
    """The breaker is off, so that only the retry budget stands between the callers and the provider."""
    pair = upstreams(Status(500), alone=True, retry=QUICK, circuit_breaker={"failure_threshold": None})
    calls = 100
    answered = run(pair, calls, at_once=25)
    assert answered == 0
    assert calls <= len(pair.primary.calls) <= 1.2 * calls + 3


def test_a_storm_of_calls_spares_each_of_two_providers_that_fail(upstreams: Upstreams) -> None:
    off = {"failure_threshold": None}
    pair = upstreams(Status(500), fallback=Status(503), retry=QUICK, circuit_breaker=off)
    calls = 60
    run(pair, calls, at_once=20)
    for server in (pair.primary, pair.fallback):
        assert calls <= len(server.calls) <= 1.2 * calls + 3


# --- failing at once, and now and then -----------------------------------------------------------------------------


def test_a_provider_that_fails_at_once_does_not_draw_the_traffic(upstreams: Upstreams) -> None:
    """It is the fastest of all, and it answers nobody."""
    pair = upstreams(Status(500), fallback=Ok(delay=0.01), secondary=SAME_PRIORITY, retry=QUICK)
    answered = run(pair, 200, at_once=10)
    assert answered >= 0.95
    assert len(pair.primary.calls) <= 0.1 * 200


@pytest.mark.parametrize("together", [False, True], ids=["one of two", "both"])
def test_with_four_in_ten_requests_failing_nineteen_calls_in_twenty_are_answered(
    upstreams: Upstreams, together: bool
) -> None:
    """Where both are flaky, repeats have to be affordable for that: the budget keeps most of them from being made."""
    fallback = Flaky(0.4, seed=4) if together else Ok()
    retry = {**QUICK, "retry_budget": 1.0, "retry_budget_floor": 100} if together else QUICK
    pair = upstreams(Flaky(0.4, seed=3), fallback=fallback, retry=retry, circuit_breaker={"reset_timeout": "50ms"})
    answered = run(pair, 120, at_once=6)
    assert answered >= 0.95


# --- slow and hanging ----------------------------------------------------------------------------------------------

FAST, SLOW = 0.04, 0.32


def test_a_provider_that_is_eight_times_slower_gets_little_and_delays_few(upstreams: Upstreams) -> None:
    pair = upstreams(Ok(delay=FAST), fallback=Ok(delay=FAST), secondary=SAME_PRIORITY, primary={"timeout": "5s"})
    for name in ("primary", "fallback"):  # both are known: how soon an unknown one is tried is another matter
        pair.ask("complete", providers=[name])
        pair.ask("stream", providers=[name])
    assert run(pair, 30, at_once=2) == 1
    pair.primary.play(Ok(delay=SLOW))
    run(pair, 25, at_once=2)  # in which it is noticed
    shares: list[float] = []
    while len(shares) < 10 and min(shares, default=1.0) > 0.05:  # the other one, too, looks slow on a busy machine
        earlier = len(pair.primary.calls)
        assert run(pair, 60, at_once=2) >= 0.98
        shares.append((len(pair.primary.calls) - earlier) / 60)
    assert min(shares) <= 0.05, shares


def test_a_provider_that_hangs_costs_few_calls_and_no_slots(upstreams: Upstreams) -> None:
    pair = upstreams(Ok(delay=0.01), fallback=Ok(delay=0.01), secondary=SAME_PRIORITY, hasty=True)
    assert run(pair, 60, at_once=10) == 1
    pair.primary.play(Silence())
    answered = run(pair, 200, at_once=10)
    assert answered >= 0.98
    assert sum(call.behaviour == Silence() for call in pair.primary.calls) <= 0.1 * 200
    pair.primary.wait_for(lambda calls: all(call.disconnected_at or call.finished_at for call in calls))
    wait_until(lambda: pair.duck.status().providers["primary"].inflight == 0)
    assert Counter(attempts(each)[-1][1] for each in pair.asked)["success"] >= 0.98 * 260
