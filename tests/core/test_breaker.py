from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.breaker import (
    BreakerOptions,
    BreakerSnapshot,
    CircuitBreaker,
    Outcome,
    Permit,
    Rejected,
    State,
)

SUCCESS, FAILURE, IGNORED, CANCELLED = Outcome


def breaker(now: float = 0.0, **options: object) -> CircuitBreaker:
    return CircuitBreaker(BreakerOptions(**options), now, random.Random(1))  # type: ignore[arg-type]


def permit(circuit: CircuitBreaker, now: float, ttl: float | None = None) -> Permit:
    answer = circuit.acquire(now, ttl)
    assert isinstance(answer, Permit), answer
    return answer


def call(circuit: CircuitBreaker, outcome: Outcome, now: float, duration: float = 0.0) -> bool:
    return circuit.settle(permit(circuit, now), outcome, now, duration)


def trip(circuit: CircuitBreaker, now: float = 0.0) -> CircuitBreaker:
    for _ in range(5):
        call(circuit, FAILURE, now)
    assert circuit.state(now) is State.OPEN
    return circuit


def names(circuit: CircuitBreaker) -> list[str]:
    return [event.name for event in circuit.take_events()]


def test_five_failures_in_a_row_open_and_a_success_between_starts_the_count_again() -> None:
    circuit = breaker()
    for outcome in [FAILURE] * 4 + [SUCCESS] + [FAILURE] * 4:
        call(circuit, outcome, 0.0)
    assert circuit.state(0.0) is State.CLOSED
    call(circuit, FAILURE, 0.0)
    assert circuit.state(0.0) is State.OPEN


def test_ignored_and_cancelled_neither_count_nor_reset() -> None:
    circuit = breaker()
    for outcome in [FAILURE] * 4 + [IGNORED, CANCELLED] * 9:
        call(circuit, outcome, 0.0)
    assert circuit.state(0.0) is State.CLOSED
    call(circuit, FAILURE, 0.0)
    assert circuit.state(0.0) is State.OPEN


def test_open_circuit_says_how_long_to_wait_and_rejections_do_not_prolong_it() -> None:
    circuit = trip(breaker())
    for second in range(60):
        assert circuit.acquire(float(second)) == Rejected("open", 60.0 - second)
    assert isinstance(circuit.acquire(60.0 - 1e-6), Rejected)
    assert permit(circuit, 60.0).is_probe


def test_half_open_admits_only_its_probes_and_closes_after_three_successes() -> None:
    circuit = trip(breaker())
    for now in (60.0, 61.0, 62.0):
        probe = permit(circuit, now)
        assert probe.is_probe
        refusal = circuit.acquire(now)
        assert isinstance(refusal, Rejected)
        assert refusal.reason == "half_open_full"
        assert circuit.state(now) is State.HALF_OPEN
        assert circuit.settle(probe, SUCCESS, now)
    assert circuit.state(62.0) is State.CLOSED
    assert not permit(circuit, 62.0).is_probe
    assert names(circuit) == ["opened", "half_opened", "closed"]


def test_a_failed_probe_opens_again_for_the_whole_time() -> None:
    circuit = trip(breaker())
    circuit.settle(permit(circuit, 60.0), FAILURE, 61.0)
    assert circuit.acquire(61.0) == Rejected("open", 60.0)


@pytest.mark.parametrize("outcome", [IGNORED, CANCELLED])
def test_an_undecided_probe_returns_its_slot(outcome: Outcome) -> None:
    circuit = trip(breaker())
    circuit.settle(permit(circuit, 60.0), outcome, 60.0)
    assert circuit.state(60.0) is State.HALF_OPEN
    assert permit(circuit, 60.0).is_probe


def test_a_probe_whose_holder_died_counts_as_failed_from_the_instant_its_ttl_ended() -> None:
    circuit = trip(breaker())
    lost = permit(circuit, 60.0, ttl=10.0)
    assert isinstance(circuit.acquire(70.0 - 1e-6), Rejected)
    assert circuit.state(75.0) is State.OPEN
    assert circuit.acquire(75.0) == Rejected("open", 55.0)
    assert not circuit.settle(lost, SUCCESS, 75.0)


def test_a_late_result_moves_nothing_and_frees_no_slot() -> None:
    circuit = breaker()
    early = [permit(circuit, 0.0) for _ in range(9)]
    for each in early[:5]:
        circuit.settle(each, FAILURE, 1.0)
    probe = permit(circuit, 61.0)
    for each in early[5:]:
        assert not circuit.settle(each, FAILURE, 61.0)
    assert circuit.state(61.0) is State.HALF_OPEN
    assert isinstance(circuit.acquire(61.0), Rejected)
    assert circuit.stats(61.0).late == 4
    assert circuit.settle(probe, SUCCESS, 61.0)


def test_settling_twice_counts_once() -> None:
    circuit = breaker(failure_threshold=2)
    one = permit(circuit, 0.0)
    assert circuit.settle(one, FAILURE, 0.0)
    assert not circuit.settle(one, FAILURE, 0.0)
    assert circuit.state(0.0) is State.CLOSED
    assert circuit.stats(0.0).settled_twice == 1


def test_open_time_grows_with_each_failed_half_open_up_to_its_limit_and_starts_anew_after_closing() -> None:
    circuit = trip(breaker(open_multiplier=2.0, success_threshold=1))
    now, waits = 0.0, []
    for _ in range(5):
        refusal = circuit.acquire(now)
        assert isinstance(refusal, Rejected)
        assert refusal.retry_after is not None
        waits.append(refusal.retry_after)
        now += refusal.retry_after
        circuit.settle(permit(circuit, now), FAILURE, now)
    assert waits == [60.0, 120.0, 240.0, 300.0, 300.0]
    now += 300.0
    circuit.settle(permit(circuit, now), SUCCESS, now)
    for _ in range(5):
        call(circuit, FAILURE, now)
    assert circuit.acquire(now) == Rejected("open", 60.0)


def test_open_time_survives_any_number_of_failed_half_opens() -> None:
    circuit = CircuitBreaker.restore(
        BreakerSnapshot(State.OPEN, 7, 0.0, 10_000_000, 0), BreakerOptions(open_multiplier=2.0), 0.0, random.Random(1)
    )
    circuit.settle(permit(circuit, 0.0), FAILURE, 0.0)
    assert circuit.acquire(0.0) == Rejected("open", 300.0)


def test_jitter_lengthens_by_at_most_its_share() -> None:
    waits = set()
    for seed in range(50):
        circuit = trip(CircuitBreaker(BreakerOptions(open_jitter=0.2), 0.0, random.Random(seed)))
        refusal = circuit.peek(0.0)
        assert refusal is not None
        assert refusal.retry_after is not None
        assert 60.0 <= refusal.retry_after <= 72.0
        waits.add(refusal.retry_after)
    assert len(waits) > 40


def test_a_servers_hint_lengthens_the_opening_it_causes() -> None:
    circuit = breaker(failure_threshold=1)
    circuit.settle(permit(circuit, 0.0), FAILURE, 0.0, hint=90.0)
    assert circuit.acquire(0.0) == Rejected("open", 90.0)
    other = breaker(failure_threshold=1)
    other.settle(permit(other, 0.0), FAILURE, 0.0, hint=5.0)
    assert other.acquire(0.0) == Rejected("open", 60.0)


def test_open_for_is_exact_and_lengthens_but_never_shortens() -> None:
    circuit = breaker()
    assert circuit.open_for(5.0, 0.0)
    assert circuit.acquire(0.0) == Rejected("open", 5.0)
    circuit.open_for(2.0, 1.0)
    assert circuit.acquire(1.0) == Rejected("open", 4.0)
    circuit.open_for(10.0, 1.0)
    assert circuit.acquire(1.0) == Rejected("open", 10.0)
    assert names(circuit) == ["opened"]


def test_operator_modes_do_not_move_by_themselves() -> None:
    circuit = breaker()
    circuit.force_open(0.0)
    assert circuit.acquire(1e9) == Rejected("forced_open", None)
    assert not circuit.open_for(5.0, 0.0)
    circuit.disable(0.0)
    for _ in range(20):
        call(circuit, FAILURE, 0.0)
    assert circuit.state(0.0) is State.DISABLED
    circuit.reset(0.0)
    assert circuit.state(0.0) is State.CLOSED
    assert names(circuit) == ["forced_open", "disabled", "closed"]


def test_metrics_only_reports_a_threshold_once_per_entry_and_admits_all() -> None:
    circuit = breaker()
    for expected in (["metrics_only", "threshold_exceeded"], ["closed", "metrics_only", "threshold_exceeded"]):
        if expected[0] == "closed":
            circuit.reset(0.0)
        circuit.metrics_only(0.0)
        for _ in range(20):
            call(circuit, FAILURE, 0.0)
        assert names(circuit) == expected


def test_reset_makes_all_permits_out_late() -> None:
    circuit = breaker(failure_threshold=1)
    early = permit(circuit, 0.0)
    circuit.reset(0.0)
    assert not circuit.settle(early, FAILURE, 0.0)
    assert circuit.state(0.0) is State.CLOSED
    assert names(circuit) == []


@pytest.mark.parametrize(("leads_to", "state"), [("open", State.OPEN), ("closed", State.CLOSED)])
def test_half_open_ends_after_its_longest_wait(leads_to: str, state: State) -> None:
    circuit = trip(breaker(half_open_max_wait=30.0, half_open_wait_leads_to=leads_to))
    call(circuit, IGNORED, 60.0)
    assert circuit.state(90.0 - 1e-6) is State.HALF_OPEN
    assert circuit.state(90.0) is state
    assert circuit.snapshot(90.0).failed_half_opens == 0


def test_a_count_window_opens_at_the_failure_rate_after_enough_calls() -> None:
    circuit = breaker(window="count", window_size=20, failure_threshold=None)
    for outcome in [FAILURE, SUCCESS] * 4 + [FAILURE]:
        call(circuit, outcome, 0.0)
    assert circuit.stats(0.0).failure_rate is None
    call(circuit, SUCCESS, 0.0)
    assert circuit.state(0.0) is State.OPEN, "the tenth call, although a success, makes the rate known: 0.5"


def test_a_count_window_smaller_than_minimum_calls_still_works() -> None:
    circuit = breaker(window="count", window_size=4, failure_threshold=None)
    for outcome in (SUCCESS, SUCCESS, SUCCESS, FAILURE):
        call(circuit, outcome, 0.0)
    assert circuit.stats(0.0).failure_rate == 0.25
    call(circuit, FAILURE, 0.0)
    assert circuit.state(0.0) is State.OPEN


def test_a_time_window_forgets() -> None:
    circuit = breaker(window="time", window_size=30.0, failure_threshold=None)
    for _ in range(9):
        call(circuit, FAILURE, 0.0)
    for _ in range(9):
        call(circuit, FAILURE, 40.0)
    assert circuit.state(40.0) is State.CLOSED
    call(circuit, FAILURE, 40.0)
    assert circuit.state(40.0) is State.OPEN


def test_slow_calls_open_and_a_slow_probe_opens_again() -> None:
    circuit = breaker(window="count", slow_call_after=2.0, slow_call_rate=1.0)
    for _ in range(9):
        call(circuit, SUCCESS, 0.0, duration=2.1)
    assert circuit.state(0.0) is State.CLOSED
    call(circuit, SUCCESS, 0.0, duration=2.1)
    assert circuit.state(0.0) is State.OPEN
    call(circuit, SUCCESS, 60.0, duration=2.0)
    assert circuit.state(60.0) is State.HALF_OPEN, "exactly the limit is not slow"
    call(circuit, SUCCESS, 60.0, duration=2.1)
    assert circuit.state(60.0) is State.OPEN


def test_restart_keeps_the_open_time_and_makes_permits_late() -> None:
    circuit = trip(breaker())
    snapshot = circuit.snapshot(20.0)
    again = CircuitBreaker.restore(snapshot, BreakerOptions(), 1000.0, random.Random(1))
    assert again.acquire(1000.0) == Rejected("open", 40.0)
    probe = permit(again, 1040.0)
    third = CircuitBreaker.restore(again.snapshot(1040.0), BreakerOptions(), 0.0, random.Random(1))
    assert third.state(0.0) is State.HALF_OPEN
    assert not third.settle(probe, FAILURE, 0.0)
    assert permit(third, 0.0).is_probe


def test_a_restart_keeps_the_consecutive_failures() -> None:
    circuit = breaker()
    for _ in range(4):
        call(circuit, FAILURE, 0.0)
    again = CircuitBreaker.restore(circuit.snapshot(0.0), BreakerOptions(), 0.0, random.Random(1))
    call(again, FAILURE, 0.0)
    assert again.state(0.0) is State.OPEN


def test_a_crash_that_left_nothing_begins_with_a_probe() -> None:
    circuit = CircuitBreaker.restore(None, BreakerOptions(), 5.0, random.Random(1))
    assert circuit.state(5.0) is State.HALF_OPEN
    assert permit(circuit, 5.0).is_probe
    assert isinstance(circuit.acquire(5.0), Rejected)


def test_permits_whose_holders_died_are_forgotten() -> None:
    circuit = breaker()
    for second in range(1000):
        permit(circuit, float(second), ttl=10.0)
    assert circuit.stats(1000.0).permits_out <= 10


@pytest.mark.parametrize("wrong", [{"failure_threshold": 0}, {"success_threshold": 0}, {"reset_timeout": -1.0}])
def test_senseless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|>= 0"):
        replace(BreakerOptions(), **wrong)  # type: ignore[arg-type]


def test_an_open_circuit_gives_one_extra_probe_at_a_time_to_who_has_nobody_else() -> None:
    circuit = trip(breaker())
    extra = circuit.acquire(10.0, is_last_resort=True)
    assert isinstance(extra, Permit)
    assert extra.is_probe
    assert circuit.acquire(10.0, is_last_resort=True) == Rejected("open", 50.0)
    circuit.settle(extra, FAILURE, 11.0)
    assert circuit.acquire(11.0) == Rejected("open", 49.0), "its failure prolongs nothing"
    second = circuit.acquire(12.0, is_last_resort=True)
    assert isinstance(second, Permit)
    circuit.settle(second, SUCCESS, 13.0)
    assert circuit.state(13.0) is State.HALF_OPEN
    assert circuit.stats(13.0).probe_successes == 1
    assert names(circuit) == ["opened", "half_opened"]


def test_an_extra_probe_that_comes_back_after_the_open_time_is_late() -> None:
    circuit = trip(breaker())
    extra = circuit.acquire(59.0, is_last_resort=True)
    assert isinstance(extra, Permit)
    assert permit(circuit, 60.0).is_probe
    assert not circuit.settle(extra, FAILURE, 61.0)
    assert circuit.state(61.0) is State.HALF_OPEN


def test_no_hint_keeps_a_circuit_open_for_more_than_a_day() -> None:
    circuit = breaker(failure_threshold=1)
    circuit.settle(permit(circuit, 0.0), FAILURE, 0.0, hint=1e12)
    assert circuit.acquire(0.0) == Rejected("open", 86_400.0)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["acquire", "force", "disable", "metrics", "reset", "open"]), st.floats(0, 50))
    )
)
def test_whatever_is_done_events_tell_one_unbroken_story(steps: list[tuple[str, float]]) -> None:
    circuit, now, seen = breaker(failure_threshold=1, reset_timeout=10.0), 0.0, State.CLOSED
    for action, wait in steps:
        now += wait
        match action:
            case "acquire":
                answer = circuit.acquire(now)
                if isinstance(answer, Permit):
                    circuit.settle(answer, FAILURE if wait > 25 else SUCCESS, now)
            case "force":
                circuit.force_open(now)
            case "disable":
                circuit.disable(now)
            case "metrics":
                circuit.metrics_only(now)
            case "reset":
                circuit.reset(now)
            case "open":
                circuit.open_for(wait, now)
        for event in circuit.take_events():
            if event.name == "threshold_exceeded":
                continue
            assert event.before is seen
            assert event.after is not seen
            assert (event.before, event.after) != (State.CLOSED, State.HALF_OPEN)
            seen = event.after


@given(
    now=st.floats(0, 1e6),
    reset=st.floats(0.001, 1e4),
    hint=st.floats(0, 1e5),
    jitter=st.floats(0, 1),
    looks=st.lists(st.floats(0, 1), max_size=5),
)
def test_waiting_exactly_as_long_as_told_succeeds_and_a_microsecond_less_does_not(
    now: float, reset: float, hint: float, jitter: float, looks: list[float]
) -> None:
    """The sum of a time and a wait may fall short of the instant that was meant by what a float cannot hold."""
    options = BreakerOptions(failure_threshold=1, reset_timeout=reset, open_max=1e5, open_jitter=jitter)
    circuit = CircuitBreaker(options, now, random.Random(1))
    circuit.settle(permit(circuit, now), FAILURE, now, hint=hint)
    told = circuit.acquire(now)
    for share in [*looks, 1.0]:
        assert isinstance(told, Rejected)
        assert told.retry_after is not None
        assert told.retry_after >= 0
        if told.retry_after > 1e-5:
            assert isinstance(circuit.peek(now + told.retry_after - 1e-6), Rejected)
        assert circuit.peek(now + told.retry_after) is None
        now += told.retry_after * share
        told = circuit.peek(now) or told
        if circuit.peek(now) is None:
            break
    assert isinstance(circuit.acquire(now + (0 if circuit.peek(now) is None else told.retry_after)), Permit)


def test_what_a_float_cannot_hold_of_a_wait_is_not_held_against_who_waited() -> None:
    """A time and a wait may add up to less than the instant that was meant: the caller came back in vain."""
    rng, short = random.Random(2), 0
    for _ in range(100_000):
        until = rng.uniform(0, 1e6)
        now = rng.uniform(0, until)
        short += now + (until - now) < until
        if now + (until - now) < until:
            circuit = CircuitBreaker.restore(
                BreakerSnapshot(State.OPEN, 0, until, 0, 0), BreakerOptions(), 0.0, random.Random(1)
            )
            refusal = circuit.peek(now)
            assert refusal is not None
            assert refusal.retry_after is not None
            assert isinstance(circuit.acquire(now + refusal.retry_after), Permit)
    assert short
