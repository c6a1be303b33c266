"""Single calls through the whole tree: waiting, deadlines, refusals, cancellation, retries, cache and costs."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import COST_OF_HELLO, HELLO, PRICE, REQUEST, Gated, StartDuck, ask_for, ledger

import supervision as sup
from rubberduck import RubberDuck, telemetry
from rubberduck.actors import circuit_breaker
from rubberduck.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    NoAvailableProvider,
    QueueFull,
    RateLimited,
    RubberDuckError,
    ServiceUnavailable,
)
from rubberduck.telemetry import names
from supervision.testing import ManualClock

ONE_AT_A_TIME = {"gated": {"max_concurrency": 1}}


def gated_duck(start_duck: StartDuck, **sections: Any) -> tuple[RubberDuck, Gated]:
    duck = start_duck({"gated": {"module": Gated}}, **{"rate_limits": ONE_AT_A_TIME, **sections})
    provider = duck.provider("gated")
    assert isinstance(provider, Gated)
    return duck, provider


def mock_duck(start_duck: StartDuck, *responses: Any, **sections: Any) -> RubberDuck:
    return start_duck({"mock": {"module": "mock", "responses": list(responses)}}, **sections)


def outcome_of(future: Any) -> BaseException:
    with pytest.raises(RubberDuckError) as caught:
        future.get(timeout=30)
    return caught.value


def is_idle(duck: RubberDuck) -> bool:
    status = duck.status()
    held = [(each.limiter.in_flight, each.inflight) for each in status.providers.values()]
    permits = [breaker.permits_out for each in status.providers.values() for breaker in each.breakers.values()]
    return (status.calls, status.queue.in_process) == (0, 0) and not any(permits) and set(held) == {(0, 0)}


class TestQueue:
    def test_higher_classes_go_first_and_no_class_starves(self, start_duck: StartDuck, eventually: Any) -> None:
        duck, provider = gated_duck(start_duck)
        ask = duck.service.ask
        first = ask({"complete": ask_for("first")}, block=False)
        eventually(lambda: provider.arrived == ["first"])
        waiting = [
            ask({"complete": ask_for(f"{klass} {number}"), "priority": klass}, block=False)
            for number in range(10)
            for klass in ("low", "normal", "high")
        ]
        eventually(lambda: sum(duck.status().queue.depth.values()) == 30)
        provider.open(31)
        assert [future.get(timeout=30).text[:3] for future in [first, *waiting]] == ["re:"] * 31
        order = [text.split()[0] for text in provider.answered[1:]]
        assert order[:8].count("high") >= 6
        assert {"normal", "low"} <= set(order[:12])
        assert [text for text in provider.answered if text.startswith("low")] == [f"low {n}" for n in range(10)]
        assert is_idle(duck)

    def test_a_full_queue_refuses_with_a_time_to_come_back(self, start_duck: StartDuck, eventually: Any) -> None:
        duck, provider = gated_duck(start_duck, max_queue_size=2)
        futures = [duck.service.ask({"complete": ask_for("0")}, block=False)]
        eventually(lambda: provider.arrived == ["0"])
        futures += [duck.service.ask({"complete": ask_for(str(number))}, block=False) for number in (1, 2)]
        eventually(lambda: sum(duck.status().queue.depth.values()) == 2)
        with pytest.raises(QueueFull) as caught:
            duck.complete(ask_for("3"))
        assert (caught.value.reason, caught.value.retryable, caught.value.spent) == ("full", True, 0)
        assert caught.value.retry_after > 0
        provider.open(3)
        assert [future.get(timeout=30).text for future in futures] == ["re: 0", "re: 1", "re: 2"]

    def test_an_evicted_call_is_told(self, start_duck: StartDuck, eventually: Any) -> None:
        duck, provider = gated_duck(start_duck, max_queue_size=1, queue={"when_full": "evict_lower"})
        first = duck.service.ask({"complete": ask_for("first")}, block=False)
        eventually(lambda: provider.arrived == ["first"])
        low = duck.service.ask({"complete": ask_for("low"), "priority": "low"}, block=False)
        eventually(lambda: sum(duck.status().queue.depth.values()) == 1)
        high = duck.service.ask({"complete": ask_for("high"), "priority": "high"}, block=False)
        error = outcome_of(low)
        assert isinstance(error, QueueFull)
        assert error.reason == "evicted"
        assert error.retry_after is not None
        provider.open(2)
        assert (first.get(timeout=30).text, high.get(timeout=30).text) == ("re: first", "re: high")

    def test_a_deadline_in_the_queue_comes_on_time_and_nothing_is_sent(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        clock = ManualClock()
        duck, provider = gated_duck(start_duck, clock=clock)
        first = duck.service.ask({"complete": ask_for("first"), "timeout": 60}, block=False)
        eventually(lambda: provider.arrived == ["first"])
        late = duck.service.ask({"complete": ask_for("late"), "timeout": 5}, block=False)
        eventually(lambda: sum(duck.status().queue.depth.values()) == 1)
        clock.advance(4.999)
        assert sum(duck.status().queue.depth.values()) == 1
        clock.advance(0.001)
        error = outcome_of(late)
        assert isinstance(error, DeadlineExceeded)
        assert (error.spent, error.attempts) == (0, ())
        provider.open()
        assert first.get(timeout=30).text == "re: first"
        assert provider.arrived == ["first"]
        eventually(lambda: is_idle(duck))


class TestDeadline:
    @pytest.mark.parametrize("verb", ["complete", "stream"])
    def test_a_deadline_on_the_wire_says_that_money_may_be_spent(
        self, start_duck: StartDuck, eventually: Any, verb: str
    ) -> None:
        clock = ManualClock()
        duck, provider = gated_duck(start_duck, clock=clock, prices={"gated/any": PRICE})
        future = duck.service.ask({verb: ask_for("slow"), "timeout": 5}, block=False)
        eventually(lambda: provider.arrived == ["slow"])
        clock.advance(5)
        error = outcome_of(future)
        assert isinstance(error, DeadlineExceeded)
        assert error.spent is None
        assert [(each.provider, each.cost) for each in error.attempts] == [("gated", None)]
        assert duck.costs().uncertain > 0
        eventually(lambda: is_idle(duck))

    def test_a_deadline_before_the_limiter_has_room_refuses_at_once_and_says_when(self, start_duck: StartDuck) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, HELLO, clock=clock, rate_limits={"mock": {"capacity": 1, "refill_rate": 0.1}})
        assert duck.complete(REQUEST).text == "hello there"
        with pytest.raises((NoAvailableProvider, RateLimited)) as caught:
            duck.complete(REQUEST, timeout=5)
        assert caught.value.retry_after == pytest.approx(10)
        assert caught.value.spent == 0

    def test_a_call_waits_for_the_limiter_within_its_deadline(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, HELLO, clock=clock, rate_limits={"mock": {"capacity": 1, "refill_rate": 0.1}})
        duck.complete(REQUEST)
        future = duck.service.ask({"complete": REQUEST, "timeout": 30}, block=False)
        eventually(lambda: duck.status().providers["mock"].limiter.waiting == 1)
        clock.advance(9.9)
        assert duck.status().providers["mock"].limiter.waiting == 1
        clock.advance(0.2)
        assert future.get(timeout=30).text == "hello there"

    def test_an_ask_with_a_timeout_of_its_own_bounds_the_call(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck, provider = gated_duck(start_duck, clock=clock)
        future = duck.service.ask({"complete": ask_for("x")}, block=False, timeout=3)
        eventually(lambda: provider.arrived == ["x"])
        clock.advance(3)
        with pytest.raises(Exception):  # noqa: B017  (Pykka's Timeout or ours, whichever comes first)
            future.get(timeout=30)
        eventually(lambda: is_idle(duck))


class TestRetry:
    def test_a_hint_of_two_seconds_is_waited_for_and_little_more(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, {"error": "rate_limited", "retry_after": "2s"}, HELLO, clock=clock)
        future = duck.service.ask({"complete": REQUEST}, block=False)
        calls = duck.provider("mock").calls
        eventually(lambda: len(calls) == 1 and calls[0].outcome == "RateLimited" and is_settled(duck))
        eventually(lambda: sleeps(clock))
        clock.advance(1.99)
        assert len(calls) == 1
        clock.advance(0.22)
        response = future.get(timeout=30)
        assert [each.outcome for each in response.attempts] == ["RateLimited", "success"]
        assert 2.0 <= response.attempts[1].started <= 2.21

    def test_backoff_grows_and_is_bounded(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        retry = {"max_attempts": 5, "base_delay": "1s", "max_delay": "3s", "jitter": False, "retry_budget_floor": 10}
        duck = mock_duck(start_duck, *[{"error": "server_error"}] * 4, HELLO, clock=clock, retry=retry)
        future = duck.service.ask({"complete": REQUEST}, block=False)
        calls = duck.provider("mock").calls
        for number, delay in enumerate((1.0, 2.0, 3.0, 3.0), start=1):
            eventually(lambda number=number: len(calls) == number and is_settled(duck))
            eventually(lambda: sleeps(clock))
            clock.advance(delay)
        started = [each.started for each in future.get(timeout=30).attempts]
        assert started == [0, 1, 3, 6, 9]

    def test_a_call_fails_rather_than_sleep_past_its_deadline(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, {"error": "rate_limited", "retry_after": "60s"})
        with pytest.raises(RateLimited) as caught:
            duck.complete(REQUEST, timeout=30)
        assert (len(caught.value.attempts), caught.value.retry_after) == (1, 60)

    def test_repeats_stop_when_their_budget_is_spent(self, start_duck: StartDuck) -> None:
        retry = {"base_delay": "1ms", "max_delay": "1ms", "retry_budget_floor": 2, "retry_budget": 0}
        breaker = {"failure_threshold": 1000}
        duck = mock_duck(start_duck, {"error": "server_error"}, retry=retry, circuit_breaker=breaker)
        for _ in range(10):
            with pytest.raises(ServiceUnavailable):
                duck.complete(REQUEST)
        assert len(duck.provider("mock").calls) == 12


def is_settled(duck: RubberDuck) -> bool:
    """No attempt is on the wire or in the books."""
    return duck.status().providers["mock"].limiter.in_flight == 0


def sleeps(clock: ManualClock) -> bool:
    """Whether somebody waits for less than the deadline of the call."""
    at = clock.next_at()
    return at is not None and at - clock.now() < 100


class TestBreaker:
    def test_it_opens_after_five_failures_and_lets_probes_through_later(self, start_duck: StartDuck) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, *[{"error": "server_error"}] * 5, HELLO, clock=clock, retry={"max_attempts": 1})
        for _ in range(5):
            with pytest.raises(ServiceUnavailable):
                duck.complete(REQUEST)
        with pytest.raises(NoAvailableProvider) as caught:
            duck.complete(REQUEST)
        assert (caught.value.reasons, caught.value.retry_after) == ({"mock/any": "circuit open"}, 60)
        assert len(duck.provider("mock").calls) == 5
        assert not duck.status().ok
        clock.advance(60)
        states = []
        for _ in range(3):
            assert duck.complete(REQUEST).text == "hello there"
            states.append(duck.status().providers["mock"].state)
        assert states == ["half_open", "half_open", "closed"]

    @pytest.mark.parametrize("kind", ["invalid_request", "auth", "quota", "model_not_found", "rate_limited"])
    def test_refusals_never_count(self, start_duck: StartDuck, kind: str) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, {"error": kind}, clock=clock, retry={"max_attempts": 1})
        for _ in range(8):
            clock.advance(3600)  # the longest that a key, an account or a model is left alone
            with pytest.raises(RubberDuckError):
                duck.complete(REQUEST)
        assert duck.actor("circuit_breaker:mock").ask(circuit_breaker.GetState()) == "closed"
        assert len(duck.provider("mock").calls) == 8

    def test_a_forced_open_circuit_fails_over_until_it_is_reset(self, start_duck: StartDuck) -> None:
        duck = start_duck({"a": {"module": "mock", "priority": 1}, "b": {"module": "mock", "priority": 2}})
        assert duck.complete(REQUEST).provider == "a"
        duck.actor("circuit_breaker:a").ask(circuit_breaker.ForceOpen())
        assert duck.complete(REQUEST).provider == "b"
        duck.actor("circuit_breaker:a").ask(circuit_breaker.Reset())
        assert duck.complete(REQUEST).provider == "a"


class TestCancellation:
    def test_cancelling_acomplete_cancels_the_call_and_frees_all_it_held(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        duck, provider = gated_duck(start_duck, prices={"gated/any": PRICE})
        told: list[Any] = []
        telemetry.attach("test", [names.REQUEST_EXCEPTION], lambda *about: told.append(about[2]), inline=True)

        async def story() -> None:
            task = asyncio.create_task(duck.acomplete(ask_for("x")))
            while not provider.arrived:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        try:
            asyncio.run(story())
            eventually(lambda: is_idle(duck) and told)
        finally:
            telemetry.detach("test")
        assert duck.costs().uncertain > 0
        assert [each["error"] for each in told] == ["Cancelled"]
        provider.open(2)
        assert duck.complete(ask_for("y")).text == "re: y"

    def test_cancelling_a_call_in_the_queue_sends_nothing(self, start_duck: StartDuck, eventually: Any) -> None:
        duck, provider = gated_duck(start_duck)
        first = duck.service.ask({"complete": ask_for("first")}, block=False)
        eventually(lambda: provider.arrived == ["first"])

        async def story() -> None:
            task = asyncio.create_task(duck.acomplete(ask_for("second")))
            while not sum((await asyncio.to_thread(duck.status)).queue.depth.values()):
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(story())
        provider.open(2)
        assert first.get(timeout=30).text == "re: first"
        eventually(lambda: is_idle(duck))
        assert provider.arrived == ["first"]
        assert duck.costs().uncertain == 0

    def test_a_slow_reader_holds_the_provider_back(self, start_duck: StartDuck, eventually: Any) -> None:
        words = [f"{number} " for number in range(5000)]
        duck = mock_duck(start_duck, {"chunks": words, "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
        with duck.stream(REQUEST) as stream:
            assert next(stream).delta.content == "0 "
            eventually(lambda: duck.status().calls == 1)
            assert duck.provider("mock").calls[0].outcome == "pending"
            assert "".join(chunk.delta.content for chunk in stream) == "".join(words[1:])
        eventually(lambda: duck.status().calls == 0)

    def test_a_closed_stream_is_booked_as_uncertain_and_its_error_is_nobodys(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        words = ["quack "] * 5000
        duck = mock_duck(start_duck, {"chunks": words}, prices={"mock/any": PRICE})
        with duck.stream(REQUEST) as stream:
            next(stream)
        eventually(lambda: is_idle(duck))
        assert duck.provider("mock").calls[0].outcome == "cancelled"
        assert (duck.costs().cost, duck.costs().uncertain > 0) == (0, True)

    def test_a_stream_whose_asker_left_is_not_left_running(self, start_duck: StartDuck, eventually: Any) -> None:
        duck, provider = gated_duck(start_duck)

        async def story() -> None:
            async def read() -> None:
                async with duck.astream(ask_for("x")) as stream:
                    async for _ in stream:
                        pass

            task = asyncio.create_task(read())
            while not provider.arrived:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(story())
        eventually(lambda: is_idle(duck))

    def test_a_call_whose_stream_is_closed_ends_as_cancelled_by_its_caller(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        duck = mock_duck(start_duck, {"chunks": ["quack "] * 5000})
        told: list[str] = []
        telemetry.attach("test", [names.REQUEST_EXCEPTION], lambda *about: told.append(about[2]["error"]), inline=True)
        try:
            duck.stream(REQUEST).close()
            eventually(lambda: told)
        finally:
            telemetry.detach("test")
        assert told == [Cancelled.__name__]


class TestRoutes:
    def test_an_alias_leads_across_vendors_in_order_of_priority(self, start_duck: StartDuck) -> None:
        duck = start_duck(
            {
                "a": {"module": "mock", "responses": [{"error": "server_error"}], "priority": 1},
                "b": {"module": "mock", "responses": [HELLO], "priority": 2},
            },
            models={"smart": ["a/x", "b/y"]},
            retry={"same_route_repeats": 0},
        )
        response = duck.complete({**REQUEST, "model": "smart"})
        assert [(each.provider, each.model) for each in response.attempts] == [("a", "x"), ("b", "y")]
        assert (response.provider, response.model) == ("b", "y")

    def test_an_unknown_model_says_why_for_each_provider(self, start_duck: StartDuck) -> None:
        duck = start_duck({name: {"module": "mock", "models": ["known"]} for name in ("a", "b")})
        with pytest.raises(NoAvailableProvider) as caught:
            duck.complete({**REQUEST, "model": "nobody's"}, providers=["a", "ghost"])
        reasons = caught.value.reasons
        assert set(reasons) == {"a", "b", "ghost"}
        assert "does not support" in reasons["a"]
        assert "not among" in reasons["b"]
        assert "not configured" in reasons["ghost"]
        assert not caught.value.retryable

    def test_an_attempt_that_could_not_end_in_time_is_not_begun(self, start_duck: StartDuck) -> None:
        clock = ManualClock()
        duck = mock_duck(start_duck, {**HELLO, "delay": "10s"}, clock=clock)

        async def sleep(delay: float) -> None:
            clock.advance(delay)

        duck.provider("mock").sleep = sleep
        for _ in range(20):
            assert duck.complete(REQUEST).attempts[0].duration == 10
        with pytest.raises(NoAvailableProvider) as caught:
            duck.complete(REQUEST, timeout=5)
        assert caught.value.reasons == {"mock/any": "too_late"}
        assert len(duck.provider("mock").calls) == 20
        # After a while without any answer it is tried all the same: it may be fast again.
        clock.advance(31)
        duck.provider("mock").sleep = lambda _: asyncio.sleep(0)
        assert duck.complete(REQUEST, timeout=5).text == "hello there"

    def test_a_silent_provider_that_is_not_streamed_is_left_for_the_next_one(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        clock = ManualClock()
        providers = {"gated": {"module": Gated, "priority": 1}, "mock": {"module": "mock", "priority": 2}}
        duck = start_duck(providers, clock=clock)
        gated = duck.provider("gated")
        assert isinstance(gated, Gated)
        future = duck.service.ask({"complete": ask_for("x")}, block=False)
        eventually(lambda: gated.arrived == ["x"])
        clock.advance(11)
        response = future.get(timeout=30)
        assert [(each.provider, each.outcome) for each in response.attempts] == [
            ("gated", "ProviderTimeout"),
            ("mock", "success"),
        ]


class TestCosts:
    def test_a_hit_of_the_cache_costs_nothing_and_says_so(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO, cache={"ttl": "60s"}, prices={"mock/any": PRICE})
        first, second = duck.complete(REQUEST), duck.complete(REQUEST)
        assert (first.cached, first.usage.cost, len(first.attempts)) == (False, COST_OF_HELLO, 1)
        assert (second.cached, second.usage.cost, second.attempts, second.text) == (True, 0, (), first.text)
        assert second.request_id != first.request_id
        assert ledger(duck) == (1, 5)
        assert duck.complete({**REQUEST, "max_tokens": 21}).cached is False
        assert duck.complete(REQUEST, tenant="other").cached is False

    def test_an_unknown_price_is_none_and_counted(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO)
        assert duck.complete(REQUEST).usage.cost is None
        assert (duck.costs().cost, duck.costs().unknown) == (0, 1)

    def test_a_price_of_the_route_goes_before_one_of_the_model(self, start_duck: StartDuck) -> None:
        prices = {"any": {"input": 100, "output": 100}, "mock/any": PRICE}
        assert mock_duck(start_duck, HELLO, prices=prices).complete(REQUEST).usage.cost == COST_OF_HELLO

    def test_a_server_that_speaks_openais_language_has_no_list_price_of_openais(self, start_duck: StartDuck) -> None:
        import httpx

        body = {
            "id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
        }  # fmt: skip
        providers = {
            "real": {"module": "openai", "api_key": "key-of-a-test"},
            "other": {"module": "openai", "api_key": "key-of-a-test", "base_url": "http://localhost:1/v1"},
        }
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
        duck = start_duck(providers, transport=transport)
        request = {**REQUEST, "model": "gpt-4o"}
        real = duck.complete({**request, "model": "real/gpt-4o"}).usage.cost
        assert isinstance(real, Decimal)
        assert real > 0
        assert duck.complete({**request, "model": "other/gpt-4o"}).usage.cost is None

    def test_costs_by_timeframe(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO, prices={"mock/any": PRICE})
        asked = datetime.now(UTC)
        duck.complete(REQUEST)
        costs = [duck.costs(timeframe).cost for timeframe in ("all", "day", "hour")]
        has_turned = datetime.now(UTC).hour != asked.hour  # a moment ago, and then it was another hour
        assert has_turned or costs == [COST_OF_HELLO] * 3
        with pytest.raises(InvalidRequest):
            duck.costs("fortnight")
        assert duck.costs().cost == COST_OF_HELLO


class TestTelemetry:
    def test_each_call_has_one_start_and_one_end_and_each_settled_attempt_one_cost(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        script = [HELLO, {"error": "server_error"}, HELLO, {"error": "invalid_request"}, HELLO]
        duck = mock_duck(start_duck, *script, prices={"mock/any": PRICE}, retry={"base_delay": "1ms"})
        told: list[tuple[str, dict[str, Any]]] = []
        events = [*names.GUIDE_EVENTS, names.ATTEMPT_STOP, names.RETRY]
        telemetry.attach("test", events, lambda event, _, about, __: told.append((".".join(event[2:]), dict(about))))
        try:
            duck.complete(REQUEST)
            duck.complete(REQUEST)
            with pytest.raises(InvalidRequest):
                duck.complete(REQUEST)
            with duck.stream(REQUEST) as stream:
                list(stream)
            eventually(lambda: duck.status().calls == 0)
            assert telemetry.flush(30)
        finally:
            telemetry.detach("test")
        kinds = [kind for kind, _ in told]
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "request.start": 4, "request.stop": 3, "request.exception": 1, "cost": 3, "attempt.stop": 5, "retry": 1,
        }  # fmt: skip
        ids = [about["request_id"] for kind, about in told if kind == "request.start"]
        ends = [about["request_id"] for kind, about in told if kind in ("request.stop", "request.exception")]
        assert sorted(ids) == sorted(ends)
        assert {about["system"] for _, about in told} == {duck.system.name}
        duck.complete(REQUEST)
        assert len(told) == len(kinds)

    def test_debug_lines_hold_the_words_and_never_the_key(self, start_duck: StartDuck) -> None:
        import structlog
        from structlog.testing import capture_logs

        key = "sk-a-very-secret-key-of-a-test"
        providers = {"mock": {"module": "mock", "api_key": key, "responses": [{"content": f"you said {key}"}]}}
        duck = start_duck(providers, debug_llm_requests=True, debug_llm_responses=True)
        request = {**REQUEST, "messages": [{"role": "user", "content": f"my key is {key}"}]}
        with capture_logs() as lines:
            duck.complete(request)
        structlog.reset_defaults()
        assert [line["event"] for line in lines] == ["LLM Request", "LLM Response"]
        assert "my key is" in str(lines)
        assert key not in str(lines)


class TestCallers:
    def test_many_threads_and_a_foreign_loop_at_once(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO)
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda _: duck.complete(REQUEST).text, range(64)))

        async def many() -> list[str]:
            return [response.text for response in await asyncio.gather(*[duck.acomplete(REQUEST) for _ in range(64)])]

        assert texts + asyncio.run(many()) == ["hello there"] * 128
        assert ledger(duck) == (128, 640)

    def test_complete_on_a_running_loop_raises_instead_of_blocking_it(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO)

        async def story() -> None:
            for call in (duck.complete, duck.stream):
                with pytest.raises(RuntimeError, match="acomplete"):
                    call(REQUEST)

        asyncio.run(story())
        assert duck.provider("mock").calls == []

    def test_an_actor_of_the_users_own_may_ask(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, HELLO)

        class Asker(sup.Actor):
            async def on_receive(self, message: Any) -> str:
                return (await duck.acomplete(message)).text

        with sup.System("own") as system:
            system.supervise(sup.ChildSpec("asker", Asker))
            assert system.whereis("asker").ask(REQUEST, timeout=30) == "hello there"

    def test_a_stream_may_be_read_in_another_thread(self, start_duck: StartDuck) -> None:
        duck = mock_duck(start_duck, {"content": "one two three"})
        stream = duck.stream(REQUEST)
        texts: list[str] = []
        reader = threading.Thread(target=lambda: texts.extend(chunk.delta.content for chunk in stream))
        reader.start()
        reader.join(30)
        assert "".join(texts) == "one two three"
