"""The breaker's actor through its messages: what a call, an operator and a restart find."""

from __future__ import annotations

from typing import Any

import pytest

from rubberduck.actors.circuit_breaker import (
    Acquire,
    CircuitBreakerActor,
    Disable,
    ForceOpen,
    GetState,
    GetStats,
    IsOpen,
    MetricsOnly,
    OpenFor,
    Reset,
    Settle,
)
from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Event, Outcome, Permit, Rejected, State
from rubberduck.errors import InvalidRequest
from supervision.testing import ManualClock

OPTIONS = BreakerOptions(failure_threshold=3, reset_timeout=60, success_threshold=2)


@pytest.fixture
def breaker(start_actor: Any) -> Any:
    return start_actor(CircuitBreakerActor, OPTIONS)


def fail(breaker: Any, times: int, model: str | None = None) -> None:
    for _ in range(times):
        permit = breaker.ask(Acquire(model))
        assert isinstance(permit, Permit)
        assert breaker.ask(Settle(permit, Outcome.FAILURE, model)) is True


def test_it_opens_after_failures_in_a_row_and_says_how_long(breaker: Any, clock: ManualClock) -> None:
    fail(breaker, 2)
    assert breaker.ask(Settle(breaker.ask(Acquire()), Outcome.SUCCESS)) is True
    fail(breaker, 3)
    clock.advance(20)
    assert breaker.ask(Acquire()) == Rejected("open", 40)
    assert (breaker.ask(IsOpen()), breaker.ask(GetState())) == (True, State.OPEN)


def test_probes_one_at_a_time_close_it(breaker: Any, clock: ManualClock) -> None:
    fail(breaker, 3)
    clock.advance(60)
    assert (breaker.ask(IsOpen()), breaker.ask(GetState())) == (False, State.HALF_OPEN)
    for _ in range(2):
        probe = breaker.ask(Acquire())
        assert probe.is_probe
        assert breaker.ask(Acquire()).reason == "half_open_full"
        breaker.ask(Settle(probe, Outcome.SUCCESS))
    assert breaker.ask(GetState()) is State.CLOSED


def test_each_model_has_a_circuit_of_its_own_and_none_means_the_worst(breaker: Any) -> None:
    fail(breaker, 3, "sick")
    assert isinstance(breaker.ask(Acquire("well")), Permit)
    assert breaker.ask(GetState("well")) is State.CLOSED
    assert breaker.ask(GetState()) is State.OPEN
    assert breaker.ask(IsOpen()) is True
    assert set(breaker.ask(GetStats())) == {"sick", "well"}


def test_the_operators_levers_move_all_circuits_or_one(breaker: Any, clock: ManualClock) -> None:
    for model in ("a", "b"):
        breaker.ask(Acquire(model))
    breaker.ask(ForceOpen("a"))
    assert (breaker.ask(GetState("a")), breaker.ask(GetState("b"))) == (State.FORCED_OPEN, State.CLOSED)
    assert breaker.ask(Acquire("a")) == Rejected("forced_open", None)
    breaker.ask(ForceOpen())
    assert breaker.ask(GetState("b")) is State.FORCED_OPEN
    breaker.ask(Reset())
    assert [breaker.ask(GetState(model)) for model in ("a", "b", None)] == [State.CLOSED] * 3
    breaker.ask(OpenFor(5, "a"))
    clock.advance(5)
    assert breaker.ask(GetState("a")) is State.HALF_OPEN
    breaker.ask(Disable("b"))
    fail(breaker, 5, "b")
    assert breaker.ask(GetState("b")) is State.DISABLED
    breaker.ask(MetricsOnly("b"))
    fail(breaker, 5, "b")
    assert breaker.ask(GetState("b")) is State.METRICS_ONLY


def test_a_permit_is_settled_once(breaker: Any) -> None:
    permit = breaker.ask(Acquire())
    assert [breaker.ask(Settle(permit, Outcome.FAILURE)) for _ in range(3)] == [True, False, False]
    assert breaker.ask(GetStats())[""].settled_twice == 2


def test_it_publishes_each_circuit_and_reports_each_transition_once(start_actor: Any, clock: ManualClock) -> None:
    published: dict[str, CircuitBreaker] = {}
    events: list[tuple[str, Event]] = []
    breaker = start_actor(
        CircuitBreakerActor,
        OPTIONS,
        publish=published.__setitem__,
        on_event=lambda model, event: events.append((model, event)),
    )
    fail(breaker, 3, "m")
    assert published["m"].peek(clock.now()) == Rejected("open", 60)
    clock.advance(60)
    breaker.ask(Settle(breaker.ask(Acquire("m")), Outcome.FAILURE, "m"))
    assert [(model, event.name) for model, event in events] == [("m", "opened"), ("m", "half_opened"), ("m", "opened")]


def test_after_a_restart_open_stays_open_for_what_remained(breaker: Any, clock: ManualClock, kill: Any) -> None:
    fail(breaker, 3, "m")
    clock.advance(20)
    kill(breaker)
    assert breaker.ask(Acquire("m")) == Rejected("open", 40)
    assert breaker.ask(GetState("another")) is State.CLOSED


def test_after_a_restart_half_open_gets_new_probes_and_old_ones_are_late(
    breaker: Any, clock: ManualClock, kill: Any
) -> None:
    fail(breaker, 3)
    clock.advance(60)
    old = breaker.ask(Acquire())
    kill(breaker)
    new = breaker.ask(Acquire())
    assert new.is_probe
    assert new.generation > old.generation
    assert breaker.ask(Settle(old, Outcome.FAILURE)) is False
    assert breaker.ask(Settle(new, Outcome.SUCCESS)) is True
    assert breaker.ask(GetState()) is State.HALF_OPEN


def test_after_a_restart_failures_in_a_row_still_count(breaker: Any, kill: Any) -> None:
    fail(breaker, 2)
    kill(breaker)
    fail(breaker, 1)
    assert breaker.ask(GetState()) is State.OPEN


def test_a_message_that_it_does_not_know_restarts_nobody(breaker: Any) -> None:
    for message in ("open", None, {"model": "m"}):
        with pytest.raises(InvalidRequest, match="circuit breaker does not understand"):
            breaker.ask(message)
    assert breaker.name.restarts == 0


def test_the_last_resort_of_a_call_is_one_extra_probe(breaker: Any) -> None:
    fail(breaker, 3)
    extra = breaker.ask(Acquire(is_last_resort=True))
    assert isinstance(extra, Permit)
    assert isinstance(breaker.ask(Acquire(is_last_resort=True)), Rejected)
    breaker.ask(Settle(extra, Outcome.SUCCESS))
    assert breaker.ask(GetState()) is State.HALF_OPEN


def test_made_up_models_do_not_fill_the_memory_and_what_matters_is_kept(start_actor: Any) -> None:
    forgotten: list[str] = []
    breaker = start_actor(CircuitBreakerActor, OPTIONS, forget=forgotten.append, most=20)
    breaker.ask(ForceOpen("kept by hand"))
    fail(breaker, 3, "open")
    late = breaker.ask(Acquire("out"))
    for number in range(200):
        permit = breaker.ask(Acquire(f"made up {number}"))
        breaker.ask(Settle(permit, Outcome.IGNORED, f"made up {number}"))
    books = breaker.ask(GetStats())
    assert len(books) <= 20
    assert {"kept by hand", "open", "out"} <= set(books)
    assert not set(forgotten) & set(books)
    assert breaker.ask(Settle(late, Outcome.SUCCESS, "out")) is True


def test_permits_of_a_forgotten_circuit_are_late_in_the_next_one_of_that_name(start_actor: Any) -> None:
    breaker = start_actor(CircuitBreakerActor, OPTIONS, most=2)
    early = [breaker.ask(Acquire(model)) for model in ("a", "b", "c")]
    again = breaker.ask(Acquire("a"))
    assert again.id == early[0].id
    assert breaker.ask(Settle(early[0], Outcome.FAILURE, "a")) is False
    assert breaker.ask(Settle(again, Outcome.SUCCESS, "a")) is True
