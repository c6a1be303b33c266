"""What a user gets can be printed, and then tells a tired person what matters."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import HELLO, PRICE, REQUEST, StartDuck

from rubberduck import RubberDuck
from rubberduck.actors.circuit_breaker import ForceOpen
from rubberduck.core.budget import BudgetStatus
from rubberduck.core.jobs import Job, JobState
from rubberduck.core.ledger import AttemptRecord, summarise
from rubberduck.errors import AuthenticationFailed, InvalidRequest, NoAvailableProvider, ServiceUnavailable
from rubberduck.types import Usage
from supervision.testing import ManualClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
PRICED: dict[str, Any] = {"prices": {"mock/any": PRICE}}


def test_an_answer_is_its_text_and_a_line_about_where_it_comes_from(start_duck: StartDuck) -> None:
    providers = {
        "a": {"module": "mock", "priority": 1, "responses": [{"error": "quota"}]},
        "b": {"module": "mock", "priority": 2, "responses": [HELLO]},
    }
    duck = start_duck(providers=providers, prices={"b/any": PRICE}, cache={"ttl": "1m"})
    text, about = str(duck.complete(REQUEST)).split("\n")
    assert text == "hello there"
    assert about == "(b/any, 3 + 2 tokens, 0.000007 USD, after QuotaExceeded at a)"
    assert str(duck.complete(REQUEST)).endswith(" tokens, 0 USD, cached)")


def test_an_answer_that_calls_tools_is_its_calls(start_duck: StartDuck) -> None:
    call = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    duck = start_duck({"mock": {"responses": [{"content": None, "tool_calls": [call]}]}})
    assert str(duck.complete(REQUEST)).split("\n")[0] == 'weather({"city": "Ulm"})'


def test_a_status_names_what_is_not_as_it_should_be_and_only_that(start_duck: StartDuck) -> None:
    responses = [{"error": "unreachable"}, {"error": "auth"}, HELLO]
    duck = start_duck(providers={"mock": {"responses": responses}}, retry={"max_attempts": 1}, clock=ManualClock())
    assert str(duck.status()).splitlines() == [
        "well: 0 calls under way",
        "  mock    closed, 0 in flight",
        "  queue   0 wait",
        "  ledger  can be written",
    ]
    for error in (ServiceUnavailable, AuthenticationFailed):
        with pytest.raises(error):
            duck.complete(REQUEST)
    said = str(duck.status())
    assert "any: closed, 1 failure in a row" in said
    assert "its key: refused; left alone for another 300 s" in said
    duck.readmit_keys("mock")
    duck.actor("circuit_breaker:mock").ask(ForceOpen("any"))
    said = str(duck.status())
    assert said.startswith("NOT WELL")
    assert "left alone" not in said
    assert "forced_open, 0 in flight" in said
    assert str(duck.status().providers["mock"]).startswith("forced_open")


def test_sums_are_a_table_that_says_what_is_not_in_it(start_duck: StartDuck) -> None:
    duck = start_duck(**PRICED)
    duck.complete(REQUEST)
    head, model, total = str(duck.costs("day")).splitlines()
    assert head.split() == ["model", "answers", "tokens", "cost"]
    assert model.split() == ["mock/any", "1", "5", "$0.0000070"]
    assert total.split()[0] == "total"
    record = AttemptRecord("a", "c", "openai", "gpt-4o", NOON, reserved=Decimal(3))
    lost, nameless = record.uncertain(at=NOON), record.settled(Usage(1, 1), None, at=NOON)
    assert "not counted: up to $3.00 for attempts whose end nobody saw" in str(summarise([lost]))
    assert "not counted: 1 attempts whose cost nobody can tell" in str(summarise([nameless]))


def test_a_budget_says_what_is_left_and_until_when() -> None:
    status = BudgetStatus(Decimal(5), Decimal("0.5"), Decimal(0), Decimal("4.5"), NOON, "day")
    assert str(status) == "5 USD per day: 0.5 spent, 4.5 left until 2026-03-01 12:00 UTC"
    status = BudgetStatus(Decimal(5), Decimal(1), Decimal(2), Decimal(2), None, "total")
    assert str(status) == "5 USD in total: 1 spent, 2 held for attempts under way, 2 left"


def test_a_job_says_where_it_stands_and_not_what_it_asks() -> None:
    job = Job("j", '{"secret": 1}', "{}", NOON, key="k")
    assert str(job) == "job j: ready, key 'k'"
    job = Job("j", "{}", "{}", NOON, state=JobState.READY, deliveries=2, turned_away=1, ready_at=NOON)
    assert str(job) == "job j: ready, delivery 2, turned away once, again at 2026-03-01 12:00:00 UTC"


def test_a_duck_and_a_stream_say_how_they_are(start_duck: StartDuck) -> None:
    duck: RubberDuck = start_duck(**PRICED)
    with duck.stream(REQUEST) as stream:
        for _ in stream:
            pass
        assert str(stream) == f"<Stream of mock/any, complete, request_id {stream.request_id}>"
    assert str(duck) == f"<RubberDuck {duck.system.name}, running: mock>"
    duck.stop()
    assert ", stopped: " in str(duck)


def test_the_trace_of_a_call_that_no_provider_serves_says_why_for_each(start_duck: StartDuck) -> None:
    """It said that nothing was chosen and nothing was paid, and nothing else."""
    duck = start_duck(providers={"mock": {"models": ["any"]}})
    with pytest.raises(NoAvailableProvider) as caught:
        duck.complete({**REQUEST, "model": "other"})
    assert "mock: does not support the model 'other'" in str(caught.value.trace)


def test_an_empty_key_makes_no_two_jobs_one(start_duck: StartDuck) -> None:
    """A key from a variable that was not set made all jobs the first one, with its answer."""
    with pytest.raises(InvalidRequest, match="key: an empty text tells no job from another"):
        start_duck(jobs={}).submit(REQUEST, key="")
