"""How many tokens a request is: asked through the whole tree where a provider counts, else counted here."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import HELLO, StartDuck, ledger, provider_log

from rubberduck import RubberDuck, TokenCount, telemetry, tokens
from rubberduck.actors.circuit_breaker import ForceOpen
from rubberduck.config import ProviderConfig
from rubberduck.errors import (
    AuthenticationFailed,
    CallInterrupted,
    DeadlineExceeded,
    InvalidRequest,
    NoAvailableProvider,
    RubberDuckError,
)
from rubberduck.providers.mock import Mock
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import Request
from supervision.testing import ManualClock, fault

REQUEST: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "How many ducks?"}]}
VICTIMS = ("service", "request_queue", "cost_tracker", "rate_limiter:mock", "circuit_breaker:mock")
QUICK = {"base_delay": 1, "max_delay": 2}
SEVEN = {"tokens": 7}


class Mute(Mock):
    """Counts nothing."""

    offers = frozenset({"chat"})


def mock(*responses: Any) -> dict[str, Any]:
    return {"module": "mock", "responses": list(responses)}


def start(start_duck: StartDuck, *responses: Any, **sections: Any) -> RubberDuck:
    return start_duck({"mock": mock(*responses)}, **({"retry": QUICK} | sections))


def offline(model: str = "any") -> int:
    return tokens.count_messages(Request.parse(REQUEST | {"model": model}))


# --- asked of who serves the model -------------------------------------------------------------------------------


def test_a_provider_that_counts_is_asked_whichever_way_one_asks(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN)
    ways = [
        lambda: duck.count_tokens(REQUEST),
        lambda: duck.count_tokens(Request.parse(REQUEST), tenant="acme", priority="low", timeout=9),
        lambda: duck.service.ask({"count": REQUEST}),
        lambda: asyncio.run(duck.acount_tokens(REQUEST)),
    ]
    for way in ways:
        count = way()
        assert isinstance(count, TokenCount)
        assert (count.tokens, count.estimated, count.provider, count.model) == (7, False, "mock", "any")
        assert [each.outcome for each in count.attempts] == ["success"]
        assert duck.explain(count.request_id).attempts == count.attempts


def test_a_count_takes_a_row_of_the_ledger_but_no_tokens_and_no_money(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN, prices={"any": {"input": 1, "output": 1}}, budgets={"*": {"limit": 1}})
    count = duck.count_tokens(REQUEST)
    assert provider_log(duck) == ledger(duck) == (1, 0)
    summary = duck.costs()
    assert (summary.cost, summary.unknown, summary.uncertain) == (0, 0, 0)
    assert count.attempts[0].cost == 0


def test_a_count_has_no_unknown_cost_where_the_model_has_no_price(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN)
    duck.count_tokens(REQUEST)
    assert duck.costs().unknown == 0


def test_a_count_is_one_request_and_no_tokens_to_the_limiter(start_duck: StartDuck) -> None:
    limits = {"requests_per_min": 10, "input_tokens_per_min": 10, "output_tokens_per_min": 10}
    duck = start(start_duck, SEVEN, rate_limits={"mock": limits})
    count = duck.count_tokens(REQUEST | {"max_tokens": 1_000_000})
    assert not count.estimated
    assert duck.status().providers["mock"].limiter.used_this_minute == {"requests": 1, "input": 0, "output": 0}


def test_a_count_is_repeated_as_any_request_is(start_duck: StartDuck) -> None:
    duck = start(start_duck, {"error": "server_error"}, SEVEN)
    count = duck.count_tokens(REQUEST)
    assert (count.tokens, count.estimated) == (7, False)
    assert [each.outcome for each in count.attempts] == ["ServiceUnavailable", "success"]
    assert provider_log(duck) == ledger(duck) == (1, 0)


def test_each_count_is_asked_for_itself(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN, HELLO, cache={"ttl": "1m"}, single_flight=True)
    assert duck.count_tokens(REQUEST).tokens == 7
    assert duck.complete(REQUEST).text == "hello there"
    assert duck.count_tokens(REQUEST).attempts
    assert len(duck.provider("mock").calls) == 3


# --- counted here ------------------------------------------------------------------------------------------------


def test_where_nobody_counts_it_is_counted_here(start_duck: StartDuck) -> None:
    duck = start_duck({"mute": {"module": Mute}})
    count = duck.count_tokens(REQUEST)
    assert (count.tokens, count.provider, count.attempts) == (offline(), "", ())
    assert count.trace.outcome == "success"
    assert duck.provider("mute").calls == []
    assert duck.status().queue.enqueued == 0


@pytest.mark.parametrize("error", ["overloaded", "timeout", "rate_limited", "model_not_found", "quota", "cut"])
def test_a_count_that_fails_is_an_estimate(start_duck: StartDuck, error: str) -> None:
    duck = start(start_duck, {"error": error}, retry=QUICK | {"max_attempts": 1})
    count = duck.count_tokens(REQUEST | {"model": "gpt-4o"})  # exact, where it is counted here in the first place
    assert (count.tokens, count.estimated, count.provider) == (offline("gpt-4o"), True, "")
    assert [each.cost for each in count.attempts] == [0]
    assert provider_log(duck) == ledger(duck) == (0, 0)
    assert duck.costs().uncertain == 0


@pytest.mark.parametrize("error", ["model_not_found", "rate_limited"])
def test_what_a_count_is_refused_says_nothing_of_answers(start_duck: StartDuck, error: str) -> None:
    duck = start(start_duck, {"error": error, "retry_after": "1h"}, HELLO, retry=QUICK | {"max_attempts": 1})
    assert duck.count_tokens(REQUEST).estimated
    assert duck.complete(REQUEST, timeout=30).text == "hello there"


def test_an_open_circuit_makes_it_an_estimate(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN)
    duck.actor("circuit_breaker:mock").ask(ForceOpen())
    count = duck.count_tokens(REQUEST)
    assert (count.estimated, count.attempts) == (True, ())


def test_a_spent_budget_does_not_keep_anybody_from_counting(start_duck: StartDuck) -> None:
    dear = {"content": "a lot", "usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}}
    duck = start(start_duck, dear, SEVEN, prices={"any": {"input": 1, "output": 1}}, budgets={"*": {"limit": "0.1"}})
    duck.complete(REQUEST | {"max_tokens": 5})
    assert duck.count_tokens(REQUEST).tokens == 7


def test_counts_teach_nothing_of_how_long_answers_take(start_duck: StartDuck) -> None:
    duck = start(start_duck, SEVEN)
    for _ in range(30):
        duck.count_tokens(REQUEST | {"max_tokens": 5})
    desk = duck._board.desks["mock"]
    assert desk.stats_of("any", 0.0).quantile(0.5) is None
    assert desk.output_of("any").share == 1


# --- whose number it is ------------------------------------------------------------------------------------------


def start_two(start_duck: StartDuck, near: Any, far: Any, models: list[str]) -> RubberDuck:
    return start_duck(
        {"near": near | {"priority": 1}, "far": far | {"priority": 2}}, models={"smart": models}, retry=QUICK
    )


def test_the_number_is_for_the_route_that_comes_first(start_duck: StartDuck) -> None:
    duck = start_two(start_duck, {"module": Mute}, mock(SEVEN), ["far/b", "near/gpt-4o"])
    count = duck.count_tokens(REQUEST | {"model": "smart"})
    assert (count.provider, count.model, count.tokens) == ("", "gpt-4o", offline("gpt-4o"))
    assert not count.estimated
    assert duck.provider("far").calls == []
    assert duck.count_tokens(REQUEST | {"model": "smart"}, providers=["far"]).tokens == 7


def test_another_provider_of_the_same_model_may_count_and_one_of_another_may_not(start_duck: StartDuck) -> None:
    fails = {"error": "server_error"}
    duck = start_two(start_duck, mock(fails), mock(SEVEN), ["near/a", "far/a", "far/b"])
    assert duck.count_tokens(REQUEST | {"model": "smart"}).provider == "far"
    assert {call.model for call in duck.provider("far").calls} == {"a"}
    duck = start_two(start_duck, mock(fails), mock(SEVEN), ["near/a", "far/b"])
    assert duck.count_tokens(REQUEST | {"model": "smart"}).estimated
    assert duck.provider("far").calls == []


# --- what is told ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [("invalid_request", InvalidRequest), ("auth", AuthenticationFailed), ("context_length", InvalidRequest)],
)
def test_what_an_answer_would_fail_with_too_is_told(start_duck: StartDuck, error: str, kind: type[Exception]) -> None:
    duck = start(start_duck, {"error": error})
    with pytest.raises(kind) as caught:
        duck.count_tokens(REQUEST)
    assert caught.value.spent == 0


def test_a_model_that_nobody_serves_has_no_number(start_duck: StartDuck) -> None:
    with pytest.raises(NoAvailableProvider):
        start(start_duck).count_tokens(REQUEST | {"model": "nobody/x"}, providers=["other"])


def test_time_that_is_over_is_over(start_duck: StartDuck, eventually: Any) -> None:
    clock = ManualClock()
    duck = start(start_duck, SEVEN | {"delay": "30s"}, clock=clock)
    future = duck.service.ask({"count": REQUEST, "timeout": 9}, block=False)
    eventually(lambda: duck.provider("mock").calls)
    clock.advance(9)
    with pytest.raises(DeadlineExceeded):
        future.get(timeout=30)
    eventually(lambda: duck.status().calls == 0)
    assert duck.costs().uncertain == 0


@pytest.mark.parametrize("wrong", [{"model": "any"}, {"model": "any", "input": ["a"]}, 7])
def test_a_request_that_is_none_is_refused(start_duck: StartDuck, wrong: Any) -> None:
    with pytest.raises(InvalidRequest):
        start(start_duck).count_tokens(wrong)


@pytest.mark.parametrize("option", [{"max_cost": 1}, {"response_model": dict}, {"session": "a"}])
def test_options_that_mean_nothing_here_are_refused(start_duck: StartDuck, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(option))):
        start(start_duck).count_tokens(REQUEST, **option)


class Odd(Mock):
    gives: Any = None

    async def count(self, request: Request) -> Any:
        await super().count(request)
        return self.gives


@pytest.mark.parametrize("gives", [None, 7, TokenCount(-1, estimated=False)])
def test_what_is_no_number_is_a_failure_of_the_provider(start_duck: StartDuck, gives: Any) -> None:
    duck = start_duck({"odd": {"module": Odd}}, retry=QUICK | {"max_attempts": 1})
    duck.provider("odd").gives = gives
    count = duck.count_tokens(REQUEST)
    assert (count.estimated, [each.outcome for each in count.attempts]) == (True, ["ServiceUnavailable"])


# --- under fire --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["before_handle", "after_handle_before_reply"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_a_count_survives_a_crash_at_each_message(start_duck: StartDuck, victim: str, step: str) -> None:
    duck = start(start_duck, SEVEN, supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    for message in range(1, 7):
        with fault(step, nth=message, path=victim):
            assert duck.count_tokens(REQUEST).tokens == 7
    assert provider_log(duck) == ledger(duck) == (6, 0)
    assert duck.system.audit() == []


def test_killing_the_calls_tells_who_counts(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, SEVEN | {"delay": "30s"}, SEVEN)
    future = duck.service.ask({"count": REQUEST}, block=False)
    eventually(lambda: len(duck.provider("mock").calls) == 1)
    duck.system.kill(duck.actor("calls"))
    with pytest.raises(CallInterrupted):
        future.get(timeout=30)
    assert duck.count_tokens(REQUEST).tokens == 7


def test_a_stopped_duck_counts_nothing(start_duck: StartDuck) -> None:
    duck = start(start_duck)
    duck.stop()
    with pytest.raises(RubberDuckError, match="stopped"):
        duck.count_tokens(REQUEST)


def test_telemetry_tells_the_kind_of_a_call(start_duck: StartDuck, eventually: Any) -> None:
    told: list[Any] = []
    telemetry.attach("kinds", [telemetry.names.REQUEST_STOP], lambda _, __, about, ___: told.append(about))
    try:
        start(start_duck, SEVEN).count_tokens(REQUEST)
        eventually(lambda: told)
    finally:
        telemetry.detach("kinds")
    assert [(each["kind"], each["tokens"], each["cost"]) for each in told] == [("count", 0, Decimal(0))]


class Stubborn(Mock):
    """Blocks the loop of all actors over a count, until the test lets it go."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.is_stuck, self.gate = threading.Event(), threading.Event()

    async def count(self, request: Request) -> TokenCount:
        self.is_stuck.set()
        self.gate.wait(60)
        return await super().count(request)


def test_a_count_that_blocks_the_loop_is_lost_for_no_money(start_duck: StartDuck, eventually: Any) -> None:
    duck = start_duck({"mock": {"module": Stubborn}}, supervision={"loop_limit": "200ms"}, prices={"any": {"input": 1}})
    provider = duck.provider("mock")
    future = duck.service.ask({"count": REQUEST}, block=False)
    try:
        assert provider.is_stuck.wait(30)
        with pytest.raises(CallInterrupted):
            future.get(timeout=30)
        eventually(lambda: duck.system.zombies)
    finally:
        provider.gate.set()
    eventually(lambda: not duck.system.zombies and not duck.system.unstopped_report())
    duck.costs()  # what was told to the ledger before is written after it
    with closing(SqliteLedger(duck.config.ledger.path or "")) as books:
        assert [str(row.state) for row in books.rows()] == ["void"]
