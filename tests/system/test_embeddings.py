"""Texts become vectors through the whole tree: in batches, one call, one answer, one bill."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_system_rig import Delays, StartDuck, ledger, provider_log

from rubberduck import Embeddings, RubberDuck, telemetry
from rubberduck.actors.calls.embedding import AT_ONCE
from rubberduck.config import ProviderConfig
from rubberduck.errors import (
    BudgetExceeded,
    CallInterrupted,
    DeadlineExceeded,
    InvalidRequest,
    NoAvailableProvider,
    Overloaded,
    ProtocolError,
    RubberDuckError,
    ServiceUnavailable,
)
from rubberduck.providers.base import Provider
from rubberduck.providers.mock import Mock, vector_of
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import EmbeddingRequest, Usage
from supervision.testing import ManualClock, fault

TEXTS = ["one", "two", "three", "four", "five", "six", "seven"]
PRICE = {"input": 1}
VICTIMS = ("service", "request_queue", "cost_tracker", "rate_limiter:mock", "circuit_breaker:mock")
FAILS = {"error": "server_error"}
OK = {"usage": {"prompt_tokens": 3}}
COST_OF_OK = Decimal("0.000003")


def ask(*texts: str, model: str = "any", **more: Any) -> dict[str, Any]:
    return {"model": model, "input": list(texts or TEXTS), **more}


def mock(*responses: Any) -> dict[str, Any]:
    return {"module": "mock", "responses": list(responses)}


def start(start_duck: StartDuck, *responses: Any, batch: int = 3, **sections: Any) -> RubberDuck:
    """A duck over one mock, which takes `batch` texts at a time."""
    sections = {"prices": {"any": PRICE}, "retry": {"base_delay": 1, "max_delay": 2}} | sections
    duck = start_duck({"mock": mock(*responses)}, **sections)
    duck.provider("mock").embedding_batch = batch
    return duck


def expected(texts: Any = TEXTS, dimensions: int = 64) -> tuple[Any, ...]:
    return tuple(vector_of(text, dimensions) for text in texts)


def asked(duck: RubberDuck, name: str = "mock") -> list[tuple[str, ...]]:
    """The texts of each request that a provider got."""
    return [call.request.input for call in duck.provider(name).calls]


def states(duck: RubberDuck) -> dict[str, int]:
    """How many rows of the ledger ended how."""
    duck.costs()  # what was told to the ledger before is written after it
    with closing(SqliteLedger(duck.config.ledger.path or "")) as books:
        return dict(Counter(str(row.state) for row in books.rows()))


# --- an answer ---------------------------------------------------------------------------------------------------


def test_each_text_gets_its_vector_whichever_way_one_asks(start_duck: StartDuck) -> None:
    duck = start(start_duck, batch=2048)
    ways = [
        lambda: duck.embed(ask(dimensions=8)),
        lambda: duck.embed(EmbeddingRequest.parse(ask(dimensions=8))),
        lambda: duck.service.ask({"embed": ask(dimensions=8), "priority": "high", "timeout": 9}),
        lambda: asyncio.run(duck.aembed(ask(dimensions=8), tenant="acme", tags={"a": "b"})),
    ]
    for way in ways:
        answer = way()
        assert isinstance(answer, Embeddings)
        assert answer.vectors == expected(dimensions=8)
        assert (answer.model, answer.provider, answer.cached) == ("any", "mock", False)
        assert [each.outcome for each in answer.attempts] == ["success"]
        assert answer.trace.outcome == "success"
    assert provider_log(duck) == ledger(duck)


def test_one_text_needs_no_list(start_duck: StartDuck) -> None:
    assert start(start_duck).embed({"model": "any", "input": "one"}).vectors == expected(["one"])


def test_what_the_texts_cost_is_told_and_booked(start_duck: StartDuck) -> None:
    duck = start(start_duck, {"usage": {"prompt_tokens": 2_000_000}}, batch=2048)
    answer = duck.embed(ask())
    assert (answer.usage.prompt_tokens, answer.usage.cost) == (2_000_000, 2)
    assert duck.costs().cost == 2


def test_more_texts_than_a_request_takes_are_several_attempts_of_one_call(start_duck: StartDuck) -> None:
    duck = start(start_duck, OK)
    answer = duck.embed(ask())
    assert asked(duck) == [("one", "two", "three"), ("four", "five", "six"), ("seven",)]
    assert answer.vectors == expected()
    assert [each.outcome for each in answer.attempts] == ["success"] * 3
    assert (answer.usage.prompt_tokens, answer.usage.cost) == (9, 3 * COST_OF_OK)
    assert provider_log(duck) == ledger(duck) == (3, 9)
    status = duck.status()
    assert (status.queue.enqueued, status.queue.processed, status.queue.in_process) == (1, 1, 0)


def test_any_split_of_texts_gives_the_same_vectors(start_duck: StartDuck) -> None:
    duck = start(start_duck)
    texts = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9), min_size=1, max_size=12)

    @settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors])
    @given(texts, st.integers(1, 13))
    def same(texts: list[str], batch: int) -> None:
        duck.provider("mock").embedding_batch = batch
        assert duck.embed(ask(*texts)).vectors == expected(texts)

    same()
    assert provider_log(duck) == ledger(duck)


def test_more_tokens_than_a_request_takes_are_split_too(start_duck: StartDuck) -> None:
    duck = start(start_duck, OK, batch=2048)
    text = "duck " * 40_000
    assert len(duck.embed(ask(*[text] * 5)).vectors) == 5
    assert [len(texts) for texts in asked(duck)] == [3, 2]


def test_token_numbers_are_texts_too(start_duck: StartDuck) -> None:
    duck = start(start_duck, batch=1)
    answer = duck.embed({"model": "any", "input": [[1, 2, 3], [4]]})
    assert answer.vectors == expected([(1, 2, 3), (4,)])
    assert answer.usage.prompt_tokens == 4


def test_a_limit_on_input_tokens_is_charged_with_what_was_used_and_bounds_a_batch(start_duck: StartDuck) -> None:
    duck = start(start_duck, batch=2048, rate_limits={"mock": {"input_tokens_per_min": 1000}})
    texts = ["duck " * 300] * 3  # of 301 tokens each, and taken for 500
    answer = duck.embed(ask(*texts))
    assert [len(texts) for texts in asked(duck)] == [2, 1]
    assert [leg.asked.input for leg in answer.trace.legs] == [602, 301]
    used = duck.status().providers["mock"].limiter.used_this_minute
    assert used["input"] == answer.usage.prompt_tokens == 903


# --- routes ------------------------------------------------------------------------------------------------------


class Chatty(Mock):
    """Offers chat alone."""

    offers = frozenset({"chat"})


def test_a_provider_that_offers_no_embeddings_is_left_out(start_duck: StartDuck) -> None:
    duck = start_duck(
        {"chatty": {"module": Chatty, "priority": 1}, "mock": mock(OK) | {"priority": 2}},
        models={"vectors": ["chatty/a", "mock/b"]},
    )
    answer = duck.embed(ask(model="vectors"))
    assert (answer.provider, answer.model) == ("mock", "b")
    assert duck.provider("chatty").calls == []
    assert "offers no embeddings" in str(answer.trace)


def test_where_nobody_offers_embeddings_each_route_says_so(start_duck: StartDuck) -> None:
    duck = start_duck({"chatty": {"module": Chatty}}, models={"vectors": ["chatty/a"]})
    with pytest.raises(NoAvailableProvider) as caught:
        duck.embed(ask(model="vectors"))
    assert caught.value.reasons == {"chatty/a": "offers no embeddings"}
    assert not caught.value.retryable
    duck.provider("chatty").hints = {"embeddings": "ask it to"}
    with pytest.raises(NoAvailableProvider, match="chatty/a: offers no embeddings: ask it to"):
        duck.embed(ask(model="vectors"))
    with pytest.raises(NoAvailableProvider, match="nobody's"):
        duck.embed(ask(model="nobody's/a"))


def test_who_is_left_out_is_told_of_where_the_others_fail(start_duck: StartDuck) -> None:
    duck = start_duck({"chatty": {"module": Chatty}, "mock": mock(OK)}, models={"vectors": ["chatty/a", "mock/b"]})
    from rubberduck.actors.circuit_breaker import ForceOpen

    duck.actor("circuit_breaker:mock").ask(ForceOpen())
    with pytest.raises(NoAvailableProvider) as caught:
        duck.embed(ask(model="vectors"))
    assert caught.value.reasons == {"chatty/a": "offers no embeddings", "mock/b": "circuit forced_open"}


def two(start_duck: StartDuck, first: list[Any], second: list[Any], models: list[str], **sections: Any) -> RubberDuck:
    duck = start_duck(
        {"near": mock(*first) | {"priority": 1}, "far": mock(*second) | {"priority": 2}},
        models={"vectors": models},
        retry={"base_delay": 1, "max_delay": 2, "max_attempts": 2},
        prices={"near/a": PRICE, "far/a": PRICE, "far/b": PRICE},
        **sections,
    )
    duck.provider("near").embedding_batch = duck.provider("far").embedding_batch = 3
    return duck


def test_the_first_batch_may_fail_over_to_any_route(start_duck: StartDuck) -> None:
    duck = two(start_duck, [FAILS], [OK], ["near/a", "far/b"])
    answer = duck.embed(ask(model="vectors"))
    assert answer.vectors == expected()
    assert [each.model for each in answer.attempts if each.outcome == "success"] == ["b"] * 3
    assert (answer.provider, answer.model) == ("far", "b")
    assert {each.model for each in answer.attempts} == {"a", "b"}
    assert provider_log(duck, "far") == ledger(duck, "far") == (3, 9)


def test_vectors_of_two_models_are_never_mixed(start_duck: StartDuck) -> None:
    duck = two(start_duck, [OK, FAILS], [OK], ["near/a", "far/b"])
    with pytest.raises(ServiceUnavailable) as caught:
        duck.embed(ask(*TEXTS[:6], model="vectors"))
    assert duck.provider("far").calls == []
    assert [each.outcome for each in caught.value.attempts] == ["success", *["ServiceUnavailable"] * 2]
    assert caught.value.spent == COST_OF_OK == duck.costs().cost
    assert "another model" in str(caught.value.trace)


def test_not_even_the_last_resort_asks_another_model_for_the_rest(start_duck: StartDuck) -> None:
    """With every circuit open the other model's was chosen for a probe, and the call crashed over it."""
    last_resort = {"circuit_breaker": {"failure_threshold": 1}, "choice": {"panic": "probe_best"}}
    duck = two(start_duck, [OK, FAILS], [FAILS], ["near/a", "far/b"], **last_resort)
    with pytest.raises(ServiceUnavailable):
        duck.embed(ask("one", model="vectors"), providers=["far"])
    asked_far = len(duck.provider("far").calls)
    with pytest.raises(RubberDuckError) as caught:
        duck.embed(ask(model="vectors"))
    assert not isinstance(caught.value, CallInterrupted)
    assert len(duck.provider("far").calls) == asked_far


def test_the_same_model_at_another_provider_may_go_on(start_duck: StartDuck) -> None:
    duck = two(start_duck, [OK, FAILS], [OK], ["near/a", "far/a"])
    answer = duck.embed(ask(model="vectors"))
    assert answer.vectors == expected()
    assert {(each.provider, each.outcome) for each in answer.attempts} >= {("near", "success"), ("far", "success")}
    assert {each.model for each in answer.attempts} == {"a"}
    assert answer.usage.cost == duck.costs().cost == 3 * COST_OF_OK


def test_who_has_answered_one_batch_is_asked_first_for_the_next(start_duck: StartDuck) -> None:
    duck = two(start_duck, [FAILS], [OK, OK, FAILS, OK], ["near/a", "far/a"])
    answer = duck.embed(ask(model="vectors"))
    assert answer.vectors == expected()
    assert len(duck.provider("near").calls) <= 3
    assert [each.provider for each in answer.attempts[-3:]].count("near") <= 1


def test_a_batch_is_no_larger_than_the_smallest_that_any_route_takes(start_duck: StartDuck) -> None:
    duck = two(start_duck, [OK], [OK], ["near/a", "far/a"])
    duck.provider("far").embedding_batch = 2
    duck.embed(ask(model="vectors"))
    assert [len(texts) for texts in asked(duck, "near")] == [2, 2, 2, 1]


def test_a_batch_is_repeated_as_any_request_is_and_a_new_batch_is_no_fallback(start_duck: StartDuck) -> None:
    told: list[Any] = []
    wanted = [telemetry.names.RETRY, telemetry.names.FALLBACK]
    telemetry.attach("again", wanted, lambda event, _, about, ___: told.append((event, about["reason"])))
    try:
        duck = start(start_duck, OK, FAILS, OK)
        answer = duck.embed(ask())
        assert telemetry.flush(30)
    finally:
        telemetry.detach("again")
    assert answer.vectors == expected()
    assert [each.outcome for each in answer.attempts] == ["success", "ServiceUnavailable", "success", "success"]
    assert told == [(telemetry.names.RETRY, "ServiceUnavailable")]


def test_each_batch_has_as_many_attempts_as_any_call(start_duck: StartDuck) -> None:
    duck = start(start_duck, *[FAILS, OK] * 2, retry={"base_delay": 1, "max_delay": 2, "max_attempts_total": 2})
    answer = duck.embed(ask(*TEXTS[:6]))
    assert answer.vectors == expected(TEXTS[:6])
    assert len(answer.attempts) == 4


def test_a_large_batch_is_given_more_time_before_another_route_is_asked(start_duck: StartDuck, eventually: Any) -> None:
    clock, slow = ManualClock(), OK | {"delay": "30s"}
    duck = start_duck({"near": mock(slow) | {"priority": 1}, "far": mock(OK) | {"priority": 2}}, clock=clock)
    future = duck.service.ask({"embed": ask("duck " * 80_000, "duck")}, block=False)  # about 100,000 tokens: 20 s
    eventually(lambda: duck.provider("near").calls)
    clock.advance(29)
    duck.status()  # whatever was due by then has been done
    assert not duck.provider("far").calls
    clock.advance(2)
    assert future.get(timeout=30).provider == "far"


# --- side by side ------------------------------------------------------------------------------------------------


class Doors(Mock):
    """Answers each request for vectors when the test lets it, by its first text; `most` is how many were in at once."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.waiting: dict[Any, tuple[asyncio.AbstractEventLoop, asyncio.Event]] = {}
        self.ended: list[Any] = []
        self.refused: set[Any] = set()
        self.most = 0

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        text, door = request.input[0], asyncio.Event()
        self.waiting[text] = asyncio.get_running_loop(), door
        self.most = max(self.most, len(self.waiting))
        try:
            await door.wait()
            if text in self.refused:
                raise Overloaded("not now", status=529)
            return await super().embed(request)
        finally:
            self.ended.append(text)
            del self.waiting[text]

    def open(self, *texts: str) -> None:
        for text in texts:
            loop, door = self.waiting[text]
            loop.call_soon_threadsafe(door.set)


def behind_doors(start_duck: StartDuck, *responses: Any, **sections: Any) -> tuple[RubberDuck, Doors]:
    duck = start_duck(
        {"mock": {"module": Doors, "responses": list(responses or [OK])}},
        **{"prices": {"any": PRICE}, "retry": {"max_attempts": 1}} | sections,
    )
    provider = duck.provider("mock")
    provider.embedding_batch = 1
    return duck, provider


def test_all_parts_but_the_first_go_side_by_side_and_come_back_in_order(start_duck: StartDuck, eventually: Any) -> None:
    duck, provider = behind_doors(start_duck)
    future = duck.service.ask({"embed": ask()}, block=False)
    eventually(lambda: set(provider.waiting) == {"one"})
    provider.open("one")
    eventually(lambda: set(provider.waiting) == {"two", "three", "four", "five"})
    provider.open("five")
    eventually(lambda: set(provider.waiting) == {"two", "three", "four", "six"})
    provider.open("four", "six")
    eventually(lambda: set(provider.waiting) == {"two", "three", "seven"})
    provider.open("seven", "three", "two")
    answer = future.get(timeout=30)
    assert answer.vectors == expected()
    assert provider.most == AT_ONCE
    assert [leg.number for leg in answer.trace.legs] == [1, 2, 3, 4, 5, 6, 7]
    starts = [attempt.started for attempt in answer.attempts]
    assert starts == sorted(starts)
    assert answer.usage.cost == duck.costs().cost == 7 * COST_OF_OK


def test_the_first_part_that_fails_gives_the_others_up(start_duck: StartDuck, eventually: Any) -> None:
    duck, provider = behind_doors(start_duck)
    future = duck.service.ask({"embed": ask()}, block=False)
    eventually(lambda: set(provider.waiting) == {"one"})
    provider.open("one")
    eventually(lambda: len(provider.waiting) == AT_ONCE)
    provider.refused.add("three")
    provider.open("three")
    with pytest.raises(Overloaded) as caught:
        future.get(timeout=30)
    assert sorted(each.outcome for each in caught.value.attempts) == [*["Cancelled"] * 3, "Overloaded", "success"]
    assert caught.value.spent is None
    assert set(provider.ended) == {"one", "two", "three", "four", "five"}
    eventually(lambda: duck.status().calls == 0)
    assert states(duck) == {"settled": 1, "uncertain": 3, "void": 1}
    assert provider_log(duck) == ledger(duck) == (1, 3)
    status = duck.status()
    assert (status.queue.in_process, status.providers["mock"].limiter.in_flight) == (0, 0)


def test_no_more_parts_go_at_once_than_the_limiter_allows(start_duck: StartDuck, eventually: Any) -> None:
    duck, provider = behind_doors(start_duck, rate_limits={"mock": {"max_concurrency": 2}})
    future = duck.service.ask({"embed": ask()}, block=False)
    for text in TEXTS:
        eventually(lambda text=text: text in provider.waiting)
        provider.open(text)
    assert future.get(timeout=30).vectors == expected()
    assert provider.most <= 2


def test_parts_that_the_money_of_a_call_does_not_bear_at_once_go_one_after_the_other(
    start_duck: StartDuck, eventually: Any
) -> None:
    """To wait for what the others hold would end the call for want of money that comes back."""
    dear, impatient = OK | {"usage": {"prompt_tokens": 2900}}, {"max_attempts": 1, "max_wait_for_preferred": "1ms"}
    duck, provider = behind_doors(start_duck, dear, OK, retry=impatient)
    texts = [letter * 1000 for letter in "abcd"]
    future = duck.service.ask({"embed": ask(*texts), "max_cost": "0.0045"}, block=False)
    for text in texts:
        eventually(lambda text=text: text in provider.waiting)
        provider.open(text)
    assert future.get(timeout=30).vectors == expected(texts)
    assert provider.most == 1


def test_while_a_circuit_wants_one_probe_parts_go_one_after_the_other(start_duck: StartDuck, eventually: Any) -> None:
    clock = ManualClock()
    breaker = {"failure_threshold": 1, "reset_timeout": 1, "success_threshold": 3, "half_open_max_probes": 1}
    duck, provider = behind_doors(start_duck, clock=clock, circuit_breaker=breaker)
    provider.refused.add("bad")
    failing = duck.service.ask({"embed": ask("bad")}, block=False)
    eventually(lambda: "bad" in provider.waiting)
    provider.open("bad")
    with pytest.raises(Overloaded):
        failing.get(timeout=30)
    clock.advance(5)
    future = duck.service.ask({"embed": ask()}, block=False)
    for text in TEXTS:
        eventually(lambda text=text: text in provider.waiting)
        provider.open(text)
    assert future.get(timeout=30).vectors == expected()
    assert provider.most == 1


# --- ends in the middle ------------------------------------------------------------------------------------------


def test_a_batch_that_fails_fails_the_call_and_tells_what_was_spent(start_duck: StartDuck) -> None:
    duck = start(start_duck, OK, {"error": "overloaded"}, retry={"max_attempts": 1})
    with pytest.raises(Overloaded) as caught:
        duck.embed(ask(*TEXTS[:6]))
    assert caught.value.spent == COST_OF_OK
    assert len(caught.value.attempts) == 2
    assert provider_log(duck) == ledger(duck) == (1, 3)


def test_the_deadline_is_that_of_all_batches_together(start_duck: StartDuck, eventually: Any) -> None:
    clock = ManualClock()
    duck = start(start_duck, OK, OK | {"delay": "30s"}, clock=clock)
    future = duck.service.ask({"embed": ask(), "timeout": 9}, block=False)
    eventually(lambda: len(duck.provider("mock").calls) == 3)
    clock.advance(9)
    with pytest.raises(DeadlineExceeded) as caught:
        future.get(timeout=30)
    assert [each.outcome for each in caught.value.attempts] == ["success", "Cancelled", "Cancelled"]
    assert caught.value.spent is None
    eventually(lambda: duck.status().calls == 0)
    assert ledger(duck) == (1, 3)


def test_money_that_ends_between_two_batches_ends_the_call(start_duck: StartDuck) -> None:
    dear = {"usage": {"prompt_tokens": 2_000_000}}
    duck = start(start_duck, OK, OK, dear, batch=1, budgets={"*": {"limit": 1}}, retry={"max_attempts_total": 2})
    with pytest.raises(BudgetExceeded):
        duck.embed(ask())
    assert provider_log(duck) == ledger(duck)
    assert 2 < duck.costs().cost < 10  # no part was begun after it was known what the first ones cost


def test_a_call_that_may_cost_more_than_its_bound_sends_nothing(start_duck: StartDuck) -> None:
    duck = start(start_duck)
    with pytest.raises(BudgetExceeded):
        duck.embed(ask(), max_cost="0.00001")
    assert duck.provider("mock").calls == []
    assert duck.embed(ask(), max_cost="0.1").vectors == expected()


def test_a_caller_that_gives_up_ends_all_parts_under_way(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, OK, OK | {"delay": "30s"}, batch=1)
    calls = duck.provider("mock").calls

    async def main() -> None:
        task = asyncio.create_task(duck.aembed(ask()))
        async with asyncio.timeout(30):
            while len(calls) < 1 + AT_ONCE:
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(main())
    eventually(lambda: all(call.cancelled for call in calls[1:]) and duck.status().calls == 0)
    assert len(calls) == 1 + AT_ONCE
    assert ledger(duck) == (1, 3)
    eventually(lambda: states(duck) == {"settled": 1, "uncertain": AT_ONCE})


def test_killing_the_calls_in_the_middle_tells_the_caller_and_keeps_the_books(
    start_duck: StartDuck, eventually: Any
) -> None:
    slow = OK | {"delay": "30s"}
    duck = start(start_duck, OK, slow, slow, OK)
    future = duck.service.ask({"embed": ask()}, block=False)
    eventually(lambda: len(duck.provider("mock").calls) == 3)
    duck.system.kill(duck.actor("calls"))
    with pytest.raises(CallInterrupted) as caught:
        future.get(timeout=30)
    assert caught.value.spent is None
    eventually(lambda: states(duck) == {"settled": 1, "uncertain": 2})
    assert duck.costs().cost == COST_OF_OK
    assert duck.embed(ask()).vectors == expected()


@pytest.mark.parametrize("step", ["before_handle", "after_handle_before_reply"])
@pytest.mark.parametrize("victim", VICTIMS)
def test_batches_survive_a_crash_at_each_message(start_duck: StartDuck, victim: str, step: str) -> None:
    duck = start(start_duck, OK, supervision={"max_restarts": 1_000_000, "max_seconds": 1})
    for message in range(1, 14):
        with fault(step, nth=message, path=victim):
            assert duck.embed(ask()).vectors == expected()
    assert provider_log(duck) == ledger(duck) == (39, 117)
    status = duck.status()
    assert (status.calls, status.queue.in_process, status.providers["mock"].limiter.in_flight) == (0, 0, 0)
    assert duck.system.audit() == []


class Stubborn(Mock):
    """Blocks the loop of all actors over its second request for vectors, until the test lets it go."""

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        self.is_stuck, self.gate = threading.Event(), threading.Event()

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        if len(self.calls) == 1 and not self.is_stuck.is_set():
            self.is_stuck.set()
            self.gate.wait(60)
        return await super().embed(request)


def test_a_loop_that_is_blocked_over_a_batch_loses_that_call_alone_and_no_money(
    start_duck: StartDuck, eventually: Any
) -> None:
    duck = start_duck(
        {"mock": {"module": Stubborn, "responses": [OK]}}, supervision={"loop_limit": "200ms"}, prices={"any": PRICE}
    )
    provider = duck.provider("mock")
    provider.embedding_batch = 3
    future = duck.service.ask({"embed": ask()}, block=False)
    try:
        assert provider.is_stuck.wait(30)
        with pytest.raises(CallInterrupted) as caught:
            future.get(timeout=30)
        assert [each.outcome for each in caught.value.attempts] == ["success", "CallInterrupted"]
        assert caught.value.spent is None
        eventually(lambda: duck.costs().uncertain > 0)
        assert duck.costs().cost == COST_OF_OK
    finally:
        provider.gate.set()
    eventually(lambda: not duck.system.zombies)
    assert len(provider.calls) <= 2  # no third batch is sent for a call that has been answered


# --- cache and company -------------------------------------------------------------------------------------------


def test_vectors_are_kept_as_any_answer_is(start_duck: StartDuck) -> None:
    duck = start(start_duck, OK, cache={"ttl": "1m"})
    first, second = duck.embed(ask()), duck.embed(ask())
    assert (second.cached, second.usage.cost, second.attempts) == (True, 0, ())
    assert second.vectors == first.vectors
    assert second.request_id != first.request_id
    assert not duck.embed(ask(dimensions=8)).cached
    assert not duck.embed(ask(), tenant="another").cached


def test_identical_calls_share_one_answer(start_duck: StartDuck, eventually: Any) -> None:
    duck = start(start_duck, OK | {"delay": "1s"}, single_flight=True)
    delays = Delays(duck)
    asked = [duck.service.ask({"embed": ask()}, block=False) for _ in range(5)]
    eventually(lambda: duck.status().calls == 5 + 1)  # they, and what they share
    delays.end()
    answers = [future.get(timeout=30) for future in asked]
    assert all(answer.vectors == expected() for answer in answers)
    assert sorted(answer.shared for answer in answers) == [False] + [True] * 4
    assert sum(answer.usage.cost or 0 for answer in answers) == duck.costs().cost == 3 * COST_OF_OK
    assert provider_log(duck) == ledger(duck) == (3, 9)


def test_telemetry_tells_the_kind_of_a_call(start_duck: StartDuck, eventually: Any) -> None:
    told: list[Any] = []
    telemetry.attach("kinds", [telemetry.names.REQUEST_STOP], lambda _, __, about, ___: told.append(about))
    try:
        duck = start(start_duck, OK)
        duck.embed(ask())
        eventually(lambda: told)
    finally:
        telemetry.detach("kinds")
    assert [(each["kind"], each["tokens"], each["attempts"]) for each in told] == [("embeddings", 9, 3)]


# --- what is wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"model": "any", "input": []}, "input"),
        ({"model": "any", "input": [""]}, "input.0"),
        ({"model": "any", "input": ["a", None]}, "input.1"),
        ({"model": "any"}, "input"),
        ({"model": "any", "input": ["a"], "dimensions": 0}, "dimensions"),
        ({"model": "any", "input": ["a"], "messages": []}, "messages"),
        ("a", None),
    ],
)
def test_a_request_that_is_none_is_refused(start_duck: StartDuck, request_: Any, field: str | None) -> None:
    duck = start(start_duck)
    with pytest.raises(InvalidRequest) as caught:
        duck.embed(request_)
    assert field is None or (caught.value.field or "").startswith(field)
    assert duck.provider("mock").calls == []


@pytest.mark.parametrize("option", [{"stream_policy": "buffer"}, {"response_model": dict}, {"repair": True}, {"x": 1}])
def test_options_that_mean_nothing_here_are_refused(start_duck: StartDuck, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(option))):
        start(start_duck).embed(ask(), **option)


class Odd(Mock):
    """Gives back whatever the test wants."""

    gives: Any = None

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        call = await super().embed(request)
        return self.gives(call) if callable(self.gives) else self.gives


@pytest.mark.parametrize("gives", [None, "vectors", lambda whole: Embeddings("any", whole.vectors, Usage(-1))])
def test_what_is_no_answer_is_an_error_of_the_provider(start_duck: StartDuck, gives: Any) -> None:
    duck = start_duck({"odd": {"module": Odd}}, retry={"max_attempts": 1})
    duck.provider("odd").gives = gives
    with pytest.raises(ServiceUnavailable, match="failed in its own code"):
        duck.embed(ask("a", model="odd/a"))


def test_a_missing_vector_is_no_answer_but_is_paid_for(start_duck: StartDuck) -> None:
    duck = start_duck({"odd": {"module": Odd}}, retry={"max_attempts": 1}, prices={"odd/a": PRICE})
    duck.provider("odd").gives = lambda whole: Embeddings("a", whole.vectors[1:], Usage(7))
    with pytest.raises(ProtocolError, match="1 vectors for 2 texts") as caught:
        duck.embed(ask("a", "b", model="odd/a"))
    assert caught.value.spent == duck.costs().cost == Decimal("0.000007")


class Bare(Provider):
    """Says that it offers embeddings, and does not."""

    offers = frozenset({"chat", "embeddings"})

    @classmethod
    def init(cls, config: ProviderConfig) -> Bare:
        return cls()

    def supports_model(self, model: str) -> bool:
        return True

    async def complete(self, request: Any) -> Any:
        raise NotImplementedError

    def stream(self, request: Any) -> Any:
        raise NotImplementedError


def test_a_provider_that_offers_what_it_has_not_is_found_out(start_duck: StartDuck) -> None:
    duck = start_duck({"bare": {"module": Bare}})
    with pytest.raises(RubberDuckError, match="offers no embeddings"):
        duck.embed(ask("a", model="bare/a"))
