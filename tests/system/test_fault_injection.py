"""The promise: kill any actor at any moment, under load, and every call is answered once and booked once."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import COST_OF_HELLO, HELLO, PRICE, REQUEST, StartDuck, ledger, provider_log

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError
from supervision.testing import InjectedFault, fault

CALLS = 200
AT_ONCE = 50
VICTIMS = ("service", "request_queue", "cost_tracker", "rate_limiter:mock", "circuit_breaker:mock")
STEPS = ("before_handle", "after_handle_before_reply")
WORST_CASE = Decimal("0.00004")
"""Of REQUEST with its 20 tokens of output at 2 USD per million, the input being free."""
UNLIMITED = {"max_restarts": 1_000_000, "max_seconds": 1}


class EveryNth:
    """Crashes, or has killed, the actor that passes for the n-th, 2n-th, ... time; counts what it did."""

    def __init__(self, n: int, strike: Any) -> None:
        self.n = n
        self.passed = 0
        self.strikes = 0
        self._strike = strike

    def __call__(self, path: str) -> None:
        self.passed += 1
        if self.passed % self.n == 0:
            self.strikes += 1
            self._strike(path)


def crash(path: str) -> None:
    raise InjectedFault(path)


def answers_under_fire(duck: RubberDuck, *, stream: bool = False) -> Counter[str]:
    """Make the calls from a loop of their own; how each was answered."""
    outcomes: Counter[str] = Counter()

    async def one(gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                text = await (streamed(duck) if stream else completed(duck))
                outcomes[text] += 1
            except RubberDuckError as error:
                outcomes[f"{type(error).__name__}: {error}"] += 1

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.timeout(60):
            await asyncio.gather(*(one(gate) for _ in range(CALLS)))

    asyncio.run(all_of_them())
    return outcomes


async def completed(duck: RubberDuck) -> str:
    return (await duck.acomplete(REQUEST)).text


async def streamed(duck: RubberDuck) -> str:
    async with duck.astream(REQUEST) as stream:
        return "".join([chunk.delta.content async for chunk in stream])


def assert_books_agree(duck: RubberDuck) -> None:
    """The provider saw each call once, and the ledger says what the provider says, to the last micro-dollar."""
    assert provider_log(duck) == (CALLS, 5 * CALLS)
    assert ledger(duck) == (CALLS, 5 * CALLS)
    summary = duck.costs()
    assert (summary.cost, summary.uncertain, summary.unknown) == (CALLS * COST_OF_HELLO, 0, 0)


def assert_nothing_is_held(duck: RubberDuck) -> None:
    assert is_idle(duck)
    assert all(breaker.permits_out == 0 for breaker in duck.status().providers["mock"].breakers.values())
    assert duck.system.audit() == []


def spent(duck: RubberDuck) -> Decimal:
    summary = duck.costs()
    return summary.cost + summary.uncertain


def is_idle(duck: RubberDuck) -> bool:
    status = duck.status()
    return (status.calls, status.queue.in_process, status.providers["mock"].limiter.in_flight) == (0, 0, 0)


def start_under_fire(start_duck: StartDuck) -> RubberDuck:
    providers = {"mock": {"module": "mock", "responses": [HELLO]}}
    return start_duck(providers, supervision=UNLIMITED, prices={"mock/any": PRICE}, timeout="50s")


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("victim", VICTIMS)
def test_every_call_is_answered_and_booked_once_while_an_actor_keeps_crashing(
    start_duck: StartDuck, victim: str, step: str
) -> None:
    duck = start_under_fire(start_duck)
    fire = EveryNth(7, crash)
    with fault(step, fire, path=victim):
        assert answers_under_fire(duck) == {"hello there": CALLS}
    assert fire.strikes >= 10
    assert_books_agree(duck)
    assert_nothing_is_held(duck)


@pytest.mark.parametrize("victim", VICTIMS)
def test_every_call_is_answered_and_booked_once_while_an_actor_keeps_being_killed(
    start_duck: StartDuck, victim: str
) -> None:
    duck = start_under_fire(start_duck)
    ref = duck.actor(victim)
    fire = EveryNth(7, lambda _: duck.system.kill(ref))
    with fault("before_handle", fire, path=victim):
        assert answers_under_fire(duck) == {"hello there": CALLS}
    assert fire.strikes >= 10
    assert_books_agree(duck)
    assert_nothing_is_held(duck)


@pytest.mark.parametrize("victim", VICTIMS)
def test_streams_are_answered_and_booked_once_while_an_actor_keeps_crashing(start_duck: StartDuck, victim: str) -> None:
    duck = start_under_fire(start_duck)
    fire = EveryNth(7, crash)
    with fault("before_handle", fire, path=victim):
        assert answers_under_fire(duck, stream=True) == {"hello there": CALLS}
    assert fire.strikes >= 10
    assert_books_agree(duck)
    assert_nothing_is_held(duck)


@pytest.mark.parametrize("message", range(1, 9))
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_single_call_survives_a_crash_at_each_of_its_messages(
    start_duck: StartDuck, victim: str, message: int
) -> None:
    duck = start_under_fire(start_duck)
    for step in STEPS:
        with fault(step, nth=message, path=victim):
            assert duck.complete(REQUEST).text == "hello there"
    assert provider_log(duck) == ledger(duck) == (2, 10)
    assert_nothing_is_held(duck)


@pytest.mark.parametrize("seed", range(3))
def test_all_actors_crash_at_random_at_once(start_duck: StartDuck, seed: int, eventually: Any) -> None:
    duck = start_under_fire(start_duck)
    rng = random.Random(seed)

    def sometimes(path: str) -> None:
        if rng.random() < 0.05:
            raise InjectedFault(path)

    with fault("before_handle", sometimes), fault("after_handle_before_reply", sometimes):
        answers = answers_under_fire(duck)
    # A TaskSupervisor that crashes takes its tasks with it: their callers are told, and the books know.
    assert sum(answers.values()) == CALLS
    assert all(text == "hello there" or text.startswith("CallInterrupted") for text in answers)
    # Who was lost is told at once; what was taken for the call comes back as soon as it has been broken off.
    eventually(lambda: spent(duck) >= COST_OF_HELLO * provider_log(duck)[0] and is_idle(duck))
    assert_nothing_is_held(duck)


def test_killing_the_calls_tells_every_caller_and_marks_the_money_as_uncertain(
    start_duck: StartDuck, eventually: Any
) -> None:
    slow = {"mock": {"module": "mock", "responses": [*[{**HELLO, "delay": "30s"}] * 20, HELLO]}}
    duck = start_duck(slow, supervision=UNLIMITED, prices={"mock/any": {"input": 0, "output": 2}})

    async def main() -> list[BaseException | Any]:
        calls = [asyncio.create_task(duck.acomplete(REQUEST)) for _ in range(20)]
        async with asyncio.timeout(30):
            while len(duck.provider("mock").calls) < 20:
                await asyncio.sleep(0.005)
            duck.system.kill(duck.actor("calls"))
            return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(main())
    assert {type(answer).__name__ for answer in answers} == {"CallInterrupted"}
    assert all(answer.spent is None for answer in answers)
    # The callers are told at once; the books follow as soon as each attempt has been broken off.
    eventually(lambda: duck.costs().uncertain == 20 * WORST_CASE)
    assert duck.complete(REQUEST).text == "hello there"
