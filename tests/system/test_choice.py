"""Which route a whole duck takes: for a conversation, for its price, and when none can take the call right now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from tests_system_rig import HELLO, StartDuck

from rubberduck import RubberDuck
from rubberduck.actors.circuit_breaker import ForceOpen, GetState, OpenFor, Reset
from rubberduck.core.breaker import State
from rubberduck.errors import NoAvailableProvider
from supervision.testing import ManualClock

ASK: dict[str, Any] = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


def duck_of(start_duck: StartDuck, scripts: dict[str, list[dict[str, Any]]], **sections: Any) -> RubberDuck:
    """Mocks of one tier behind one name."""
    providers = {name: {"module": "mock", "responses": script} for name, script in scripts.items()}
    return start_duck(providers, models={"smart": [f"{name}/any" for name in scripts]}, **sections)


def advance_until(
    duck: RubberDuck, clock: ManualClock, eventually: Any, done: Callable[[], bool], step: float = 0.25
) -> None:
    """Let virtual time pass until it is done, and no faster than the actors can follow."""

    def is_done() -> bool:
        if not done():
            clock.advance(step)
        for _ in range(5):
            duck.status()  # which they answer after what was due
        return done()

    eventually(is_done)


def answers(duck: RubberDuck, times: int, **options: Any) -> Counter[str]:
    return Counter(duck.complete(ASK, **options).provider for _ in range(times))


class TestConversations:
    def test_a_session_stays_where_it_was_answered_last(self, start_duck: StartDuck) -> None:
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO], "c": [HELLO]})
        assert duck.complete(ASK).trace.choices[0].sticky is None
        for session in ("one", "two"):
            assert len(answers(duck, 12, session=session)) == 1
            choice = duck.complete(ASK, session=session).trace.choices[0]
            assert choice.sticky == choice.route

    def test_it_leaves_a_route_that_cannot_take_it_and_comes_to_stay_elsewhere(self, start_duck: StartDuck) -> None:
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]})
        [first] = answers(duck, 1, session="s")
        other = "b" if first == "a" else "a"
        duck.actor(f"circuit_breaker:{first}").ask(ForceOpen("any"))
        assert answers(duck, 4, session="s") == {other: 4}
        duck.actor(f"circuit_breaker:{first}").ask(Reset("any"))
        assert answers(duck, 8, session="s") == {other: 8}

    def test_without_a_session_the_beginning_of_the_prompt_tells_the_conversation(self, start_duck: StartDuck) -> None:
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO], "c": [HELLO]}, choice={"sticky": "prefix"})
        messages, where = [{"role": "user", "content": "Hi"}], set()
        for _ in range(10):
            response = duck.complete({**ASK, "messages": messages})
            where.add(response.provider)
            messages += [{"role": "assistant", "content": "ho"}, {"role": "user", "content": "and?"}]
        assert len(where) == 1

    def test_what_the_cache_holds_is_expected_there_the_next_time(self, start_duck: StartDuck) -> None:
        cached = {"content": "x", "usage": {"prompt_tokens": 100, "completion_tokens": 2, "cached_tokens": 80}}
        duck = duck_of(start_duck, {"a": [cached], "b": [cached]})
        duck.complete(ASK, session="s")
        choice = duck.complete(ASK, session="s").trace.choices[0]
        assert {each.route: each.hit for each in choice.candidates} == {
            each.route: 0.4 if each.route == choice.route else 0.0 for each in choice.candidates
        }

    def test_sticky_can_be_switched_off(self, start_duck: StartDuck) -> None:
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, choice={"sticky": "off"})
        answers(duck, 2, session="s")
        assert duck.complete(ASK, session="s").trace.choices[0].sticky is None


def test_with_a_price_weight_the_cheaper_route_is_worth_some_waiting(start_duck: StartDuck) -> None:
    prices = {"a/any": {"input": 1000, "output": 1000}, "b/any": {"input": 1, "output": 1}}
    duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, prices=prices, choice={"price_weight": 1000})
    assert answers(duck, 10) == {"b": 10}
    terms = duck.complete(ASK).trace.as_dict()["steps"][0]["candidates"]
    assert terms[0]["price"] > terms[1]["price"] > 0


def test_a_price_that_nobody_knows_is_not_taken_for_none(start_duck: StartDuck) -> None:
    prices = {"b/any": {"input": 1, "output": 1}, "c/any": {"input": 1000, "output": 1000}}
    script = {"a": [HELLO], "b": [HELLO], "c": [HELLO]}
    duck = duck_of(start_duck, script, prices=prices, choice={"price_weight": 1000})
    assert answers(duck, 10) == {"b": 10}


class TestAllCircuitsOpen:
    def broken(self, start_duck: StartDuck, panic: str, clock: ManualClock, open_for: float = 60.0) -> RubberDuck:
        """Two routes whose circuits are open, though both would answer."""
        options = {"success_threshold": 1}
        scripts = {"a": [HELLO], "b": [HELLO]}
        duck = duck_of(start_duck, scripts, clock=clock, choice={"panic": panic}, circuit_breaker=options)
        for name, longer in (("a", 0.0), ("b", 30.0)):
            duck.actor(f"circuit_breaker:{name}").ask(OpenFor(open_for + longer, "any"))
        return duck

    def test_fail_fast_fails_at_once_with_the_least_wait(self, start_duck: StartDuck) -> None:
        duck = self.broken(start_duck, "fail_fast", ManualClock())
        with pytest.raises(NoAvailableProvider) as caught:
            duck.complete(ASK)
        assert caught.value.retry_after == pytest.approx(60, abs=0.1)
        assert caught.value.reasons == {"a/any": "circuit open", "b/any": "circuit open"}
        assert not duck.provider("a").calls

    def test_fail_fast_waits_where_the_wait_is_short(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck = self.broken(start_duck, "fail_fast", clock, open_for=2.0)
        future = duck.service.ask({"complete": ASK}, block=False)
        advance_until(duck, clock, eventually, lambda: future.done)
        assert future.get(timeout=30).provider == "a"
        assert clock.now() >= 2.0

    def test_wait_waits_as_long_as_the_deadline_allows(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck = self.broken(start_duck, "wait", clock)
        future = duck.service.ask({"complete": ASK, "timeout": 100}, block=False)
        advance_until(duck, clock, eventually, lambda: future.done, step=1.0)
        assert future.get(timeout=30).provider == "a"
        assert clock.now() >= 60.0

    def test_probe_best_asks_one_of_them_at_once_and_it_comes_back(self, start_duck: StartDuck) -> None:
        duck = self.broken(start_duck, "probe_best", ManualClock())
        response = duck.complete(ASK)
        assert [each.outcome for each in response.attempts] == ["success"]
        assert response.trace.as_dict()["steps"][0]["is_last_resort"] is True
        assert "extra probe" in str(response.trace)
        assert duck.actor(f"circuit_breaker:{response.provider}").ask(GetState("any")) is State.CLOSED

    def test_an_operators_no_is_no_for_probes_too(self, start_duck: StartDuck) -> None:
        duck = self.broken(start_duck, "probe_best", ManualClock())
        for name in ("a", "b"):
            duck.actor(f"circuit_breaker:{name}").ask(ForceOpen("any"))
        with pytest.raises(NoAvailableProvider):
            duck.complete(ASK)


class TestNobodyHasRoom:
    def test_calls_wait_for_whoever_has_room_first(self, start_duck: StartDuck, eventually: Any) -> None:
        """All come in one moment, when both seem free; those who then have to wait must not do so at the slower one."""
        clock = ManualClock()
        limits = {"a": {"capacity": 1, "refill_rate": 0.01}, "b": {"capacity": 1, "refill_rate": 0.5}}
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, clock=clock, rate_limits=limits)
        futures = [duck.service.ask({"complete": ASK, "timeout": 300}, block=False) for _ in range(6)]
        advance_until(duck, clock, eventually, lambda: all(future.done for future in futures))
        providers = Counter(future.get(timeout=30).provider for future in futures)
        assert providers == {"a": 1, "b": 5}
        assert clock.now() < 30

    def test_who_waits_leaves_for_a_route_that_comes_free(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        limits = {"a": {"capacity": 1, "refill_rate": 0.02}}
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, clock=clock, rate_limits=limits)
        duck.actor("circuit_breaker:b").ask(ForceOpen("any"))
        duck.complete(ASK)
        future = duck.service.ask({"complete": ASK, "timeout": 100}, block=False)
        eventually(lambda: duck.status().providers["a"].limiter.waiting == 1)
        clock.advance(5.0)
        assert not future.done
        duck.actor("circuit_breaker:b").ask(Reset("any"))
        advance_until(duck, clock, eventually, lambda: future.done)
        response = future.get(timeout=30)
        assert (response.provider, clock.now() < 10) == ("b", True)
        assert "another route was free first" in str(response.trace)
        assert duck.status().providers["a"].limiter.waiting == 0

    def test_who_cannot_be_served_in_time_fails_at_once_and_hears_why(self, start_duck: StartDuck) -> None:
        clock = ManualClock()
        limits = {name: {"capacity": 1, "refill_rate": 0.01} for name in ("a", "b")}
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, clock=clock, rate_limits=limits)
        for _ in range(2):
            duck.complete(ASK)
        with pytest.raises(NoAvailableProvider) as caught:
            duck.complete(ASK, timeout=5)
        assert caught.value.reasons == {"a/any": "rate_limited", "b/any": "rate_limited"}
        assert caught.value.retry_after == pytest.approx(100, abs=1)
        assert clock.now() == 0.0

    def test_a_crash_of_the_limiter_that_it_waits_for_loses_neither_the_call_nor_its_charge(
        self, start_duck: StartDuck, eventually: Any
    ) -> None:
        clock = ManualClock()
        limits = {"a": {"capacity": 1, "refill_rate": 0.1}}
        duck = duck_of(start_duck, {"a": [HELLO], "b": [HELLO]}, clock=clock, rate_limits=limits)
        duck.actor("circuit_breaker:b").ask(ForceOpen("any"))
        duck.complete(ASK)
        future = duck.service.ask({"complete": ASK, "timeout": 300}, block=False)
        for _ in range(3):
            eventually(lambda: duck.status().providers["a"].limiter.waiting == 1)
            duck.system.kill(duck.actor("rate_limiter:a"))
        advance_until(duck, clock, eventually, lambda: future.done, step=1.0)
        assert future.get(timeout=30).provider == "a"
        assert len(duck.provider("a").calls) == 2
        assert clock.now() >= 10.0
        assert duck.status().providers["a"].limiter.in_flight == 0

    def test_a_caller_who_gives_up_leaves_the_line(self, start_duck: StartDuck, eventually: Any) -> None:
        clock = ManualClock()
        duck = duck_of(
            start_duck,
            {"a": [HELLO], "b": [HELLO]},
            clock=clock,
            rate_limits={"a": {"capacity": 1, "refill_rate": 0.01}},
        )
        duck.actor("circuit_breaker:b").ask(ForceOpen("any"))
        duck.complete(ASK)
        future = duck.service.ask({"complete": ASK, "timeout": 300}, block=False)
        eventually(lambda: duck.status().providers["a"].limiter.waiting == 1)
        future.abandon()
        eventually(lambda: duck.status().providers["a"].limiter.waiting == 0)
        eventually(lambda: duck.status().calls == 0)
