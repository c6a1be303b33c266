"""Budgets of tenants and of single calls in a whole duck: never overspent, not by parallel calls, not by crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests_system_rig import COST_OF_HELLO, HELLO, PRICE, REQUEST, Delays, StartDuck, provider_log

from rubberduck import RubberDuck, telemetry
from rubberduck.errors import (
    BudgetExceeded,
    InvalidRequest,
    NoAvailableProvider,
    ProviderTimeout,
    RubberDuckError,
    ServiceUnavailable,
)
from supervision.testing import InjectedFault, fault

LIMIT = Decimal("0.0003")
WORST = Decimal("0.000068")
"""Of REQUEST: 28 tokens of input at 1 and 20 of output at 2 USD per million."""
AFFORDABLE = 34
"""So many answers leave less than WORST of LIMIT."""
UNLIMITED = {"max_restarts": 1_000_000, "max_seconds": 1}
PATIENT = {"max_wait_for_preferred": "40s"}
"""A machine that has much else to do returns no money in time; this is not about time."""
FREE = {"input": 0, "output": 0}
BUDGETS: dict[str, Any] = {"*": {"limit": str(LIMIT), "per": "total"}}


def start(start_duck: StartDuck, responses: list[Any] | None = None, **sections: Any) -> RubberDuck:
    given: dict[str, Any] = {"budgets": BUDGETS, "prices": {"mock/any": PRICE}, "supervision": UNLIMITED}
    given |= {"retry": PATIENT}
    return start_duck({"mock": {"module": "mock", "responses": responses or [HELLO]}}, **given | sections)


def ask_many(duck: RubberDuck, count: int = 100, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        async with asyncio.timeout(50):
            calls = [duck.acomplete(REQUEST, **options) for _ in range(count)]
            return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(main())


def kinds(answers: list[Any]) -> Counter[str]:
    return Counter(type(answer).__name__ for answer in answers)


def spend(duck: RubberDuck, tenant: str = "") -> None:
    assert duck.complete(REQUEST, tenant=tenant).usage.cost == COST_OF_HELLO


# --- the race ----------------------------------------------------------------------------------------------------


def test_a_hundred_parallel_calls_spend_what_there_is_and_not_a_micro_dollar_more(start_duck: StartDuck) -> None:
    duck = start(start_duck)
    answers = ask_many(duck, tenant="acme")
    assert kinds(answers) == {"Response": AFFORDABLE, "BudgetExceeded": 100 - AFFORDABLE}
    assert duck.costs().cost == AFFORDABLE * COST_OF_HELLO == provider_log(duck)[0] * COST_OF_HELLO
    status = duck.budgets()["acme"]
    assert (status.spent, status.held) == (AFFORDABLE * COST_OF_HELLO, 0)
    assert 0 <= status.remaining < WORST


@pytest.mark.parametrize("step", ["before_handle", "after_handle_before_reply"])
def test_the_same_while_the_ledgers_actor_keeps_crashing(start_duck: StartDuck, step: str) -> None:
    duck, passed = start(start_duck), iter(range(1, 1_000_000))

    def sometimes(path: str) -> None:
        if next(passed) % 7 == 0:
            raise InjectedFault(path)

    with fault(step, sometimes, path="cost_tracker"):
        answers = ask_many(duck, tenant="acme")
    assert kinds(answers) == {"Response": AFFORDABLE, "BudgetExceeded": 100 - AFFORDABLE}
    assert next(passed) > 50
    assert duck.costs().cost == AFFORDABLE * COST_OF_HELLO == provider_log(duck)[0] * COST_OF_HELLO
    assert duck.budgets()["acme"].held == 0


def test_the_same_while_the_ledgers_actor_keeps_being_killed(start_duck: StartDuck) -> None:
    duck = start(start_duck)
    ref, passed = duck.actor("cost_tracker"), iter(range(1, 1_000_000))

    def kill(path: str) -> None:
        if next(passed) % 7 == 0:
            duck.system.kill(ref)

    with fault("before_handle", kill, path="cost_tracker"):
        answers = ask_many(duck, tenant="acme")
    assert kinds(answers) == {"Response": AFFORDABLE, "BudgetExceeded": 100 - AFFORDABLE}
    assert duck.costs().cost == AFFORDABLE * COST_OF_HELLO == provider_log(duck)[0] * COST_OF_HELLO
    assert duck.budgets()["acme"].held == 0


def test_attempts_that_may_have_been_executed_keep_what_was_set_aside(start_duck: StartDuck) -> None:
    duck = start(start_duck, [{"error": "timeout"}], retry={"max_attempts": 2, "base_delay": 1})
    answers = ask_many(duck, 10)
    assert len(duck.provider("mock").calls) == 4, "4 * WORST fit the limit, not 5"
    assert all(isinstance(answer, ProviderTimeout | BudgetExceeded) for answer in answers)
    assert duck.costs().uncertain == duck.budgets()[""].spent == 4 * WORST


def test_calls_that_are_given_up_keep_or_return_what_was_set_aside(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, [{**HELLO, "delay": "30s"}])

    async def main() -> None:
        calls = [asyncio.create_task(duck.acomplete(REQUEST)) for _ in range(4)]
        while len(duck.provider("mock").calls) < 4:
            await asyncio.sleep(0.005)
        assert duck.budgets()[""].held == 4 * WORST
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    asyncio.run(main())
    eventually(lambda: duck.budgets()[""].held == 0)
    assert duck.budgets()[""].spent == 4 * WORST == duck.costs().uncertain


def test_a_call_waits_for_money_that_another_one_holds(start_duck: StartDuck, eventually: Any) -> None:
    tight = {"*": {"limit": str(WORST + COST_OF_HELLO), "per": "day"}}
    duck = start(start_duck, [{**HELLO, "delay": "1s"}], budgets=tight)
    delays = Delays(duck)
    calls = [duck.service.ask({"complete": REQUEST, "max_cost": WORST}, block=False) for _ in range(2)]
    eventually(lambda: duck.status().calls == 2 and duck.provider("mock").calls)
    delays.end()
    assert [call.get(timeout=30).text for call in calls] == ["hello there"] * 2
    assert duck.budgets()[""].spent == 2 * COST_OF_HELLO


# --- who is refused, and how -------------------------------------------------------------------------------------


def test_a_refusal_names_the_budget_and_when_it_begins_anew_and_sends_nothing(start_duck: StartDuck) -> None:
    duck = start(start_duck, budgets={"acme": {"limit": "0.00007", "per": "month"}})
    spend(duck, "acme")
    with pytest.raises(BudgetExceeded, match=r"budget of 'acme' .* 0.000007 of 0.00007 USD") as caught:
        duck.complete(REQUEST, tenant="acme")
    error = caught.value
    assert (error.tenant, error.limit, error.used) == ("acme", Decimal("0.00007"), COST_OF_HELLO)
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 31 * 86_400
    assert (error.spent, error.attempts, error.retryable) == (0, (), True)
    assert len(duck.provider("mock").calls) == 1
    for other in ("", "other"):
        spend(duck, other)


def test_a_stream_is_held_to_the_budget_too(start_duck: StartDuck) -> None:
    duck = start(start_duck, budgets={"*": {"limit": str(WORST)}})
    with duck.stream(REQUEST) as stream:
        assert "".join(chunk.delta.content for chunk in stream) == "hello there"
    assert duck.budgets()[""].spent == COST_OF_HELLO
    with pytest.raises(BudgetExceeded):
        duck.stream(REQUEST)


def test_one_budget_can_hold_all_tenants_together(start_duck: StartDuck) -> None:
    duck = start(start_duck, budgets={"all": {"limit": str(WORST + COST_OF_HELLO)}})
    spend(duck, "one")
    spend(duck, "two")
    with pytest.raises(BudgetExceeded, match="'all'"):
        duck.complete(REQUEST, tenant="three")
    assert set(duck.budgets()) == {"all"}


def two_routes(start_duck: StartDuck, prices: dict[str, Any], **sections: Any) -> RubberDuck:
    answers = {"module": "mock", "responses": [HELLO]}
    providers = {"dear": {**answers, "priority": 1}, "cheap": {**answers, "priority": 2}}
    return start_duck(providers, prices=prices, models={"either": ["dear/any", "cheap/any"]}, **sections)


EITHER = {**REQUEST, "model": "either"}


@pytest.mark.parametrize("second", [FREE, {"input": "0.1", "output": "0.1"}])
def test_a_route_that_is_free_or_cheap_enough_serves_when_the_dear_one_cannot_be_paid(
    start_duck: StartDuck, second: dict[str, Any]
) -> None:
    tight = {"*": {"limit": str(WORST)}}
    duck = two_routes(start_duck, {"dear/any": PRICE, "cheap/any": second}, budgets=tight)
    assert [duck.complete(EITHER).provider for _ in range(3)] == ["dear", "cheap", "cheap"]


def test_a_route_without_a_price_is_left_out_where_money_is_counted(start_duck: StartDuck) -> None:
    duck = two_routes(start_duck, {"cheap/any": PRICE}, budgets={"acme": {"limit": 1}})
    assert duck.complete(EITHER, tenant="acme").provider == "cheap"
    assert duck.complete(EITHER, tenant="other").provider == "dear"
    with pytest.raises(NoAvailableProvider, match="price is known") as caught:
        duck.complete({**REQUEST, "model": "dear/any"}, tenant="acme")
    assert caught.value.reasons == {"dear/any": "price unknown"}


def test_without_max_tokens_the_most_that_a_model_may_write_is_set_aside(start_duck: StartDuck) -> None:
    unbounded = {name: value for name, value in REQUEST.items() if name != "max_tokens"}
    duck = start(start_duck, budgets={"*": {"limit": "0.06"}})
    with pytest.raises(BudgetExceeded):
        duck.complete(unbounded)
    duck.complete({**unbounded, "max_tokens": 29_000})


def test_the_error_of_an_attempt_stays_when_it_could_not_have_been_repeated_anyway(start_duck: StartDuck) -> None:
    spent = {"budgets": {"*": {"limit": str(WORST)}}}
    duck = start(start_duck, [{"error": "timeout"}], retry={"max_attempts": 1}, **spent)
    with pytest.raises(ProviderTimeout):
        duck.complete(REQUEST)
    duck = start(start_duck, [{"error": "timeout"}], retry={"max_attempts": 2, "base_delay": 1}, **spent)
    with pytest.raises(BudgetExceeded, match="the last attempt failed"):
        duck.complete(REQUEST)


# --- one call's own bound ----------------------------------------------------------------------------------------


def test_max_cost_bounds_all_attempts_of_a_call_together(start_duck: StartDuck) -> None:
    duck = start(start_duck, [{"error": "timeout"}], budgets={}, retry={"max_attempts": 3, "base_delay": 1})
    with pytest.raises(BudgetExceeded, match="max_cost") as caught:
        duck.complete(REQUEST, max_cost=WORST * 2 - Decimal("0.000001"))
    assert isinstance(caught.value.__cause__, ProviderTimeout)
    assert [attempt.outcome for attempt in caught.value.attempts] == ["ProviderTimeout"]
    assert (caught.value.retry_after, caught.value.retryable) == (None, False)
    with pytest.raises(BudgetExceeded):
        duck.complete(REQUEST, max_cost=WORST * 2)
    assert len(duck.provider("mock").calls) == 3
    with pytest.raises(ProviderTimeout):
        duck.complete(REQUEST, max_cost=WORST * 3)


def test_what_an_attempt_did_not_cost_is_left_for_the_next(start_duck: StartDuck) -> None:
    responses = [{"error": "server_error"}, {"error": "server_error"}, HELLO]
    duck = start(start_duck, responses, budgets={}, retry={"max_attempts": 3, "base_delay": 1})
    response = duck.complete(REQUEST, max_cost=WORST)
    assert [attempt.outcome for attempt in response.attempts] == ["ServiceUnavailable"] * 2 + ["success"]


def test_max_cost_is_told_by_message_too_and_has_to_be_an_amount(start_duck: StartDuck) -> None:
    duck = start(start_duck, budgets={})
    assert duck.service.ask({"complete": REQUEST, "max_cost": 0.01}).usage.cost == COST_OF_HELLO
    with pytest.raises(BudgetExceeded):
        duck.service.ask({"complete": REQUEST, "max_cost": "0.00006"})
    for wrong in (-1, "much", float("nan"), True, [1]):
        with pytest.raises(InvalidRequest, match="max_cost is an amount of USD"):
            duck.complete(REQUEST, max_cost=wrong)


def test_max_cost_needs_a_price(start_duck: StartDuck) -> None:
    duck = start(start_duck, budgets={}, prices={})
    with pytest.raises(NoAvailableProvider, match="price is known"):
        duck.complete(REQUEST, max_cost=1)


# --- over time ---------------------------------------------------------------------------------------------------


def test_what_was_spent_before_a_restart_of_the_whole_is_spent_after_it(start_duck: StartDuck, tmp_path: Path) -> None:
    sections = {"ledger": {"path": str(tmp_path / "kept.sqlite")}, "budgets": {"*": {"limit": str(WORST)}}}
    first = start(start_duck, **sections)
    spend(first)
    first.stop()
    second = start(start_duck, **sections)
    assert second.budgets()[""].spent == COST_OF_HELLO
    with pytest.raises(BudgetExceeded):
        second.complete(REQUEST)


def test_a_durable_job_waits_for_the_next_period(start_duck: StartDuck, tmp_path: Path, eventually: Any) -> None:
    jobs = {"path": str(tmp_path / "jobs.sqlite")}
    duck = start(start_duck, jobs=jobs, budgets={"*": {"limit": str(WORST), "per": "month"}})
    spend(duck)
    told: list[Any] = []
    telemetry.attach(
        "refused", [telemetry.names.REQUEST_EXCEPTION], lambda _, __, about, ___: told.append(about["error"])
    )
    try:
        job = duck.submit(REQUEST)
        eventually(lambda: told == ["BudgetExceeded"] and duck.job(job).state == "ready")
    finally:
        telemetry.detach("refused")


def test_a_budget_tells_of_itself(start_duck: StartDuck, eventually: Any) -> None:
    told: list[Any] = []
    wanted = [telemetry.names.BUDGET_WARNING, telemetry.names.BUDGET_EXCEEDED]
    telemetry.attach("budgets", wanted, lambda event, measured, about, _: told.append((event[-1], about["tenant"])))
    try:
        duck = start(start_duck, [{"error": "timeout"}], budgets={"acme": {"limit": str(WORST)}})
        for _ in range(2):
            with pytest.raises(RubberDuckError):
                duck.complete(REQUEST, tenant="acme")
        eventually(lambda: ("warning", "acme") in told)
    finally:
        telemetry.detach("budgets")
    assert len(told) == len(set(told))


def test_a_half_open_circuit_gets_its_probe_back_when_there_is_no_money_for_it(start_duck: StartDuck) -> None:
    responses = [{"error": "server_error"}, HELLO]
    breaker = {"failure_threshold": 1, "reset_timeout": "10ms", "success_threshold": 1}
    duck = start(start_duck, responses, budgets={}, circuit_breaker=breaker, retry={"max_attempts": 1})
    with pytest.raises(ServiceUnavailable):
        duck.complete(REQUEST)
    with pytest.raises(BudgetExceeded):
        duck.complete(REQUEST, max_cost=0)
    assert duck.complete(REQUEST).text == "hello there"
