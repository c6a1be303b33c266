"""Answers as values of a type: asked for, read, mended once in the same call, and booked like any other."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from tests_system_rig import Delays, StartDuck, ledger, provider_log

from rubberduck import RubberDuck
from rubberduck.errors import (
    BudgetExceeded,
    CallInterrupted,
    DeadlineExceeded,
    InvalidRequest,
    OutputInvalid,
    Overloaded,
)
from rubberduck.structured import read, schema_of
from supervision.testing import ManualClock, fault

REQUEST: dict[str, Any] = {
    "model": "any",
    "messages": [{"role": "user", "content": "What does the invoice say?"}],
    "max_tokens": 20,
}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
COST = Decimal("0.000007")
GOOD = {"json": {"number": 7, "total": "12.50"}, "usage": USAGE}
BAD = {"json": {"number": "seven", "total": "12.50"}, "usage": USAGE}
VICTIMS = ("service", "request_queue", "cost_tracker", "rate_limiter:mock", "circuit_breaker:mock")


class Invoice(BaseModel):
    number: int
    total: Decimal


SEVEN = Invoice(number=7, total=Decimal("12.50"))


def start(start_duck: StartDuck, *responses: Any, **sections: Any) -> RubberDuck:
    quick = {"retry": {"base_delay": 1, "max_delay": 2}, "prices": {"any": {"input": 1, "output": 2}}}
    return start_duck({"mock": {"module": "mock", "responses": list(responses)}}, **(quick | sections))


def asked(duck: RubberDuck) -> list[list[str]]:
    """The texts of each request that the provider got."""
    return [[message.text for message in call.request.messages] for call in duck.provider("mock").calls]


# --- a value -----------------------------------------------------------------------------------------------------


def test_the_answer_is_a_value_of_the_type_whichever_way_one_asks(start_duck: StartDuck) -> None:
    duck = start(start_duck, GOOD)
    assert duck.complete(REQUEST, response_model=Invoice) == SEVEN
    assert duck.service.ask({"complete": REQUEST, "response_model": Invoice, "repair": True}) == SEVEN
    assert asyncio.run(duck.acomplete(REQUEST, response_model=Invoice, tenant="acme")) == SEVEN
    formats = [call.request.response_format for call in duck.provider("mock").calls]
    assert formats == [schema_of(Invoice)] * 3
    assert provider_log(duck) == ledger(duck) == (3, 15)


@dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("model", "answer", "value"),
    [(Point, {"x": 1}, Point(1)), (list[int], {"value": [1, 2]}, [1, 2]), (int | None, {"value": None}, None)],
)
def test_whatever_pydantic_can_check_will_do(start_duck: StartDuck, model: Any, answer: Any, value: Any) -> None:
    assert start(start_duck, {"json": answer}).complete(REQUEST, response_model=model) == value


def test_who_wants_the_response_too_reads_it_himself(start_duck: StartDuck) -> None:
    duck = start(start_duck, GOOD)
    response = duck.complete(REQUEST | {"response_format": schema_of(Invoice)})
    assert read(Invoice, response) == SEVEN
    assert response.usage.cost == COST


def test_an_answer_that_does_not_fit_is_an_error_that_knows_what_was_spent(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD)
    with pytest.raises(OutputInvalid, match="number") as caught:
        duck.complete(REQUEST, response_model=Invoice)
    error = caught.value
    assert error.response.text == json.dumps(BAD["json"])
    assert (error.spent, [each.outcome for each in error.attempts]) == (COST, ["success"])
    assert error.request_id == error.trace.request_id
    assert provider_log(duck) == ledger(duck) == (1, 5)


# --- the repair --------------------------------------------------------------------------------------------------


def test_an_answer_that_does_not_fit_may_be_mended_once(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD, GOOD)
    assert duck.complete(REQUEST, response_model=Invoice, repair=True) == SEVEN
    first, second = asked(duck)
    assert second[: len(first) + 1] == [*first, json.dumps(BAD["json"])]
    assert "number" in second[-1]
    assert provider_log(duck) == ledger(duck) == (2, 10)
    status = duck.status()
    assert (status.queue.enqueued, status.queue.processed, status.queue.in_process) == (1, 1, 0)


def test_a_second_answer_that_does_not_fit_ends_the_call_with_both_on_the_bill(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD)
    with pytest.raises(OutputInvalid) as caught:
        duck.complete(REQUEST, response_model=Invoice, repair=True)
    assert len(duck.provider("mock").calls) == 2
    assert (caught.value.spent, len(caught.value.attempts)) == (2 * COST, 2)
    assert caught.value.attempts == caught.value.trace.attempts
    assert duck.costs().cost == 2 * COST


@pytest.mark.parametrize(
    "hopeless",
    [
        {"content": '{"number": 7, "to', "finish_reason": "length", "usage": USAGE},
        {"content": "", "finish_reason": "content_filter", "usage": USAGE},
    ],
)
def test_what_no_word_can_mend_is_not_asked_again(start_duck: StartDuck, hopeless: Any) -> None:
    duck = start(start_duck, hopeless, GOOD)
    with pytest.raises(OutputInvalid):
        duck.complete(REQUEST, response_model=Invoice, repair=True)
    assert len(duck.provider("mock").calls) == 1


def test_each_round_has_its_own_attempts(start_duck: StartDuck) -> None:
    fails = {"error": "overloaded"}
    once = {"base_delay": 1, "max_delay": 2, "max_attempts_total": 2}
    duck = start(start_duck, fails, BAD, fails, GOOD, retry=once)
    assert duck.complete(REQUEST, response_model=Invoice, repair=True) == SEVEN
    assert len(duck.provider("mock").calls) == 4
    assert provider_log(duck) == ledger(duck) == (2, 10)


def test_the_repair_may_fail_over(start_duck: StartDuck) -> None:
    near = {"module": "mock", "responses": [BAD, {"error": "overloaded"}], "priority": 1}
    far = {"module": "mock", "responses": [GOOD], "priority": 2}
    models = {"smart": ["near/a", "far/b"]}
    duck = start_duck({"near": near, "far": far}, models=models, retry={"base_delay": 1, "max_delay": 2})
    assert duck.complete(REQUEST | {"model": "smart"}, response_model=Invoice, repair=True) == SEVEN
    assert len(duck.provider("far").calls[0].request.messages) == 3


def test_a_repair_that_fails_says_so_and_what_it_was_to_mend(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD, {"error": "overloaded"}, retry={"max_attempts": 1})
    with pytest.raises(Overloaded) as caught:
        duck.complete(REQUEST, response_model=Invoice, repair=True)
    assert isinstance(caught.value.__cause__, OutputInvalid)
    assert (caught.value.spent, len(caught.value.attempts)) == (COST, 2)


def test_the_deadline_is_that_of_both_answers_together(start_duck: StartDuck, eventually: Any) -> None:
    clock = ManualClock()
    duck = start(start_duck, BAD, GOOD | {"delay": "30s"}, clock=clock)
    wanted = {"complete": REQUEST, "response_model": Invoice, "repair": True, "timeout": 9}
    future = duck.service.ask(wanted, block=False)
    eventually(lambda: len(duck.provider("mock").calls) == 2)
    clock.advance(9)
    with pytest.raises(DeadlineExceeded) as caught:
        future.get(timeout=30)
    assert [each.outcome for each in caught.value.attempts] == ["success", "Cancelled"]
    eventually(lambda: duck.status().calls == 0)


def test_both_answers_are_paid_from_one_max_cost(start_duck: StartDuck) -> None:
    dear = BAD | {"usage": {"prompt_tokens": 3, "completion_tokens": 400}}  # more than the 20 that it was allowed
    duck = start(start_duck, dear, GOOD)
    with pytest.raises(BudgetExceeded) as caught:
        duck.complete(REQUEST, response_model=Invoice, repair=True, max_cost="0.001")
    assert len(duck.provider("mock").calls) == 1
    assert caught.value.spent == Decimal("0.000803")
    assert isinstance(caught.value.__cause__, OutputInvalid)


def test_the_money_of_a_tenant_may_end_between_the_two(start_duck: StartDuck) -> None:
    dear = BAD | {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    duck = start(start_duck, dear, GOOD, budgets={"acme": {"limit": 1}})
    with pytest.raises(BudgetExceeded):
        duck.complete(REQUEST, response_model=Invoice, repair=True, tenant="acme")
    assert len(duck.provider("mock").calls) == 1


# --- a type is other people's code -------------------------------------------------------------------------------


class Gated(BaseModel):
    """Waits in its validator until the test opens the gate."""

    number: int
    total: Decimal

    @field_validator("number")
    @classmethod
    def wait(cls, number: int) -> int:
        reached.set()
        assert gate.wait(60)
        return number


reached, gate = threading.Event(), threading.Event()


@pytest.fixture
def _gate() -> Any:
    reached.clear()
    gate.clear()
    yield
    gate.set()


@pytest.mark.usefixtures("_gate")
def test_a_validator_that_takes_its_time_holds_up_nobody_else(start_duck: StartDuck) -> None:
    duck = start(start_duck, GOOD)
    future = duck.service.ask({"complete": REQUEST, "response_model": Gated}, block=False)
    assert reached.wait(30)
    assert duck.complete(REQUEST, timeout=30).text
    gate.set()
    assert future.get(timeout=30).number == 7


def slow_type() -> tuple[Any, threading.Event]:
    """A type whose schema is made when the test lets it."""
    gate = threading.Event()

    class Slow(BaseModel):
        number: int

        @classmethod
        def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
            assert gate.wait(60)
            return handler(core)

    return Slow, gate


def test_types_that_take_their_time_to_be_described_hold_up_nobody_else(start_duck: StartDuck) -> None:
    """Ever so many of them: counts, other answers and other types do not wait for their threads."""
    duck = start(start_duck, GOOD)
    slow = [slow_type() for _ in range(40)]
    waiting = [
        duck.service.ask({"complete": REQUEST, "response_model": model, "timeout": 60}, block=False)
        for model, _ in slow
    ]
    try:
        assert duck.complete(REQUEST, response_model=Invoice, timeout=30) == SEVEN
        assert duck.complete(REQUEST, timeout=30).text
        assert duck.count_tokens(REQUEST, timeout=30).tokens
        assert len(duck.provider("mock").calls) == 3
    finally:
        for _, gate in slow:
            gate.set()
    for future in waiting:
        assert future.get(timeout=60).number == 7


def test_a_caller_whose_time_is_over_does_not_wait_for_a_schema(start_duck: StartDuck) -> None:
    duck = start(start_duck, GOOD)
    model, gate = slow_type()
    try:
        with pytest.raises(DeadlineExceeded):
            duck.complete(REQUEST, response_model=model, timeout=0.05)
        assert duck.provider("mock").calls == []
    finally:
        gate.set()
    assert duck.complete(REQUEST, response_model=model).number == 7


def test_a_type_whose_own_description_fails_costs_nobody_anything(start_duck: StartDuck) -> None:
    class Broken(BaseModel):
        @classmethod
        def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> Any:
            raise RuntimeError("a bug in a type")

    duck = start(start_duck, GOOD)
    with pytest.raises(InvalidRequest, match="a bug in a type"):
        duck.complete(REQUEST, response_model=Broken)
    assert duck.provider("mock").calls == []


@pytest.mark.usefixtures("_gate")
def test_a_caller_whose_time_is_over_does_not_wait_for_a_validator(start_duck: StartDuck) -> None:
    clock = ManualClock()
    duck = start(start_duck, GOOD, clock=clock)
    future = duck.service.ask({"complete": REQUEST, "response_model": Gated, "timeout": 9}, block=False)
    assert reached.wait(30)
    clock.advance(9)
    with pytest.raises(DeadlineExceeded) as caught:
        future.get(timeout=30)
    gate.set()
    assert caught.value.spent == COST
    assert ledger(duck) == (1, 5)


@pytest.mark.usefixtures("_gate")
@pytest.mark.parametrize("victim", VICTIMS)
def test_between_the_answer_and_its_repair_any_actor_may_be_killed(start_duck: StartDuck, victim: str) -> None:
    bad, good = {"json": {"number": 7}, "usage": USAGE}, GOOD
    duck = start(start_duck, bad, good, supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    future = duck.service.ask({"complete": REQUEST, "response_model": Gated, "repair": True}, block=False)
    assert reached.wait(30)
    duck.system.kill(duck.actor(victim))
    gate.set()
    assert future.get(timeout=30).number == 7
    assert provider_log(duck) == ledger(duck) == (2, 10)
    assert duck.system.audit() == []


@pytest.mark.usefixtures("_gate")
def test_killing_the_calls_between_the_two_tells_the_caller_what_was_spent(start_duck: StartDuck) -> None:
    duck = start(start_duck, {"json": {"number": 7}, "usage": USAGE}, GOOD)
    future = duck.service.ask({"complete": REQUEST, "response_model": Gated, "repair": True}, block=False)
    assert reached.wait(30)
    duck.system.kill(duck.actor("calls"))
    with pytest.raises(CallInterrupted) as caught:
        future.get(timeout=30)
    assert len(caught.value.attempts) == 1
    gate.set()
    assert duck.complete(REQUEST, response_model=Invoice) == SEVEN
    assert provider_log(duck) == ledger(duck) == (2, 10)


class Broken(BaseModel):
    number: int

    @field_validator("number")
    @classmethod
    def fail(cls, number: int) -> int:
        raise RuntimeError("a bug in a validator")


def test_a_validator_with_a_bug_does_not_cost_anybody_else_anything(start_duck: StartDuck) -> None:
    duck = start(start_duck, GOOD)
    with pytest.raises(InvalidRequest, match="RuntimeError: a bug in a validator") as caught:
        duck.complete(REQUEST, response_model=Broken, repair=True)
    assert (caught.value.field, caught.value.spent) == ("response_model", COST)
    assert duck.complete(REQUEST, response_model=Invoice) == SEVEN
    assert provider_log(duck) == ledger(duck) == (2, 10)
    assert duck.status().queue.in_process == 0


# --- under fire --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["before_handle", "after_handle_before_reply"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_answer_and_repair_survive_a_crash_at_each_message(start_duck: StartDuck, victim: str, step: str) -> None:
    messages = range(1, 11)
    duck = start(start_duck, *[BAD, GOOD] * len(messages), supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    for message in messages:
        with fault(step, nth=message, path=victim):
            assert duck.complete(REQUEST, response_model=Invoice, repair=True) == SEVEN
    assert provider_log(duck) == ledger(duck) == (20, 100)
    status = duck.status()
    assert (status.calls, status.queue.in_process, status.providers["mock"].limiter.in_flight) == (0, 0, 0)
    assert duck.system.audit() == []


# --- cache and company -------------------------------------------------------------------------------------------


def test_a_kept_answer_is_read_too_and_is_nobodys_but_the_callers(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD, GOOD, cache={"ttl": "1m"})
    first = duck.complete(REQUEST, response_model=Invoice, repair=True)
    second = duck.complete(REQUEST, response_model=Invoice)
    assert first == second == SEVEN
    assert first is not second
    assert len(duck.provider("mock").calls) == 2


def test_an_answer_that_does_not_fit_is_not_kept(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD, GOOD, cache={"ttl": "1m"})
    with pytest.raises(OutputInvalid):
        duck.complete(REQUEST, response_model=Invoice)
    assert duck.complete(REQUEST, response_model=Invoice) == SEVEN


def test_a_kept_answer_that_nobody_has_read_is_asked_for_anew_if_it_does_not_fit(start_duck: StartDuck) -> None:
    duck = start(start_duck, BAD, GOOD, cache={"ttl": "1m"})
    request = REQUEST | {"response_format": schema_of(Invoice)}
    assert "seven" in duck.complete(request).text
    assert duck.complete(REQUEST, response_model=Invoice) == SEVEN
    assert "seven" not in duck.complete(request).text


def test_who_shares_an_answer_gets_a_value_of_his_own(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, BAD | {"delay": "1s"}, GOOD | {"delay": "1s"}, single_flight=True)
    delays = Delays(duck)
    wanted = {"complete": REQUEST, "response_model": Invoice, "repair": True}
    calls = [duck.service.ask(wanted, block=False) for _ in range(5)]
    eventually(lambda: duck.status().calls == 5 + 1)  # they, and what they share
    delays.end()
    values = [call.get(timeout=30) for call in calls]
    assert values == [SEVEN] * 5
    assert len({id(value) for value in values}) == 5
    assert provider_log(duck) == ledger(duck) == (2, 10)


def test_who_shares_an_answer_that_does_not_fit_hears_so_and_one_pays(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, BAD | {"delay": "1s"}, single_flight=True)
    delays = Delays(duck)
    wanted = {"complete": REQUEST, "response_model": Invoice, "repair": True}
    calls = [duck.service.ask(wanted, block=False) for _ in range(3)]
    eventually(lambda: duck.status().calls == 3 + 1)
    delays.end()
    errors: list[Any] = []
    for call in calls:
        with pytest.raises(OutputInvalid) as caught:
            call.get(timeout=30)
        errors.append(caught.value)
    assert len({error.request_id for error in errors}) == 3
    assert sorted(error.spent for error in errors) == [0, 0, 2 * COST]
    assert provider_log(duck) == ledger(duck) == (2, 10)


def test_another_type_or_way_of_asking_is_another_question(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, BAD | {"delay": "1s"}, BAD | {"delay": "1s"}, GOOD, single_flight=True)
    delays = Delays(duck)
    untyped = duck.service.ask({"complete": REQUEST | {"response_format": schema_of(Invoice)}}, block=False)
    typed = duck.service.ask({"complete": REQUEST, "response_model": Invoice, "repair": True}, block=False)
    eventually(lambda: len(duck.provider("mock").calls) == 2)
    delays.end()
    assert "seven" in untyped.get(timeout=30).text
    assert typed.get(timeout=30) == SEVEN


# --- what is refused ---------------------------------------------------------------------------------------------


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(start_duck: StartDuck, tmp_path: Any) -> None:
    duck = start(start_duck, GOOD, jobs={"path": str(tmp_path / "jobs.sqlite")})
    wrong: list[tuple[Any, str]] = [
        ({"complete": REQUEST, "repair": True}, "repair"),
        ({"complete": REQUEST, "response_model": Invoice, "repair": "yes"}, "repair"),
        ({"complete": REQUEST | {"response_format": {"type": "text"}}, "response_model": Invoice}, "response_format"),
        ({"complete": REQUEST, "response_model": threading.Lock}, "response_"),
        ({"stream": REQUEST, "response_model": Invoice}, "response_model"),
        ({"submit": REQUEST, "response_model": Invoice}, "response_model"),
        ({"submit": REQUEST, "repair": True}, "repair"),
        ({"stream": REQUEST, "repair": True}, "repair"),
    ]
    for message, field in wrong:
        with pytest.raises(InvalidRequest) as caught:
            duck.service.ask(message)
        assert (caught.value.field or "").startswith(field), message
    assert duck.provider("mock").calls == []
