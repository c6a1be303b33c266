"""Timers of actors: on the injected clock, and no longer than the life that arranged them."""

from __future__ import annotations

import threading

import hypothesis.strategies as st
import pytest
from hypothesis import given
from tree_rig import Boom, Obedient, ObedientThread

import supervision as sup
from supervision.timers import tick_after


@pytest.fixture
def ref(timed, obedient):
    timed.supervise(sup.ChildSpec("it", obedient))
    return timed.whereis("it")


def do(ref, function):
    return ref.ask(function, block=False).get(timeout=30)


def seen(ref):
    return do(ref, lambda actor: list(actor.seen))


def test_a_message_comes_after_its_delay(ref, clock):
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "later", 5.0) and None)
    clock.advance(4.9)
    assert seen(ref) == []
    clock.advance(0.1)
    assert seen(ref) == ["later"]
    assert ref.name.incarnation.at_end == {}


def test_a_cancelled_timer_never_fires_and_leaves_nothing(ref, clock):
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "never", 5.0).cancel())
    clock.advance(10)
    assert seen(ref) == []
    assert clock.pending() == []
    assert ref.name.incarnation.at_end == {}


def test_timers_end_with_the_life_that_arranged_them(ref, clock, eventually):
    def arrange_and_crash(actor):
        actor.send_after(actor.actor_ref, "never", 5.0)
        actor.interval(actor.actor_ref, "never", 1.0)
        raise Boom("boom")

    with pytest.raises(Boom):
        do(ref, arrange_and_crash)
    assert seen(ref) == []
    eventually(lambda: clock.pending() == [])
    clock.advance(10)
    assert seen(ref) == []


def test_an_interval_repeats_until_it_is_cancelled(ref, clock):
    timer = do(ref, lambda actor: [actor.interval(actor.actor_ref, "tick", 2.0)])[0]
    clock.advance(2.0)
    clock.advance(2.0)
    timer.cancel()
    clock.advance(10.0)
    assert seen(ref) == ["tick", "tick"]
    assert clock.pending() == []


def test_an_interval_that_comes_late_does_not_pile_up(ref, clock, monkeypatch):
    """Every missed tick was made up for at once."""
    do(ref, lambda actor: actor.interval(actor.actor_ref, "tick", 1.0) and None)
    monkeypatch.setattr(clock, "_now", 7.5)  # the clock jumps, as after a suspended machine
    clock.advance(0)
    assert seen(ref) == ["tick"]
    assert clock.pending() == [8.0]


WRONG = [float("nan"), float("inf"), float("-inf"), True, False, "1", None, 1j, 10**400]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_delay_is_a_finite_number_of_seconds(timed, clock, wrong):
    timed.supervise(sup.ChildSpec("it", Obedient, expected_errors=(sup.SpecError,)))
    with pytest.raises(ValueError, match=r"send_after\(delay\): "):
        do(timed.whereis("it"), lambda actor: actor.send_after(actor.actor_ref, "never", wrong))
    assert clock.pending() == []


@pytest.mark.parametrize("wrong", [*WRONG, -1, -0.001, 0, 0.0])
def test_a_period_must_be_longer_than_nothing(timed, clock, wrong):
    timed.supervise(sup.ChildSpec("it", Obedient, expected_errors=(sup.SpecError,)))
    with pytest.raises(ValueError, match=r"interval\(period\): "):
        do(timed.whereis("it"), lambda actor: actor.interval(actor.actor_ref, "never", wrong))
    assert clock.pending() == []


@pytest.mark.parametrize("over", [0, -0.0, -0.001, -60])
def test_a_delay_that_is_over_is_at_once(ref, clock, over):
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "now", over) and None)
    clock.advance(0)
    assert seen(ref) == ["now"]


def test_an_interval_keeps_to_its_times_however_long_it_runs(ref, clock):
    """A tenth is no binary fraction: added up ten thousand times it is wrong by more than the last digit."""
    do(ref, lambda actor: actor.interval(actor.actor_ref, "tick", 0.1) and None)
    for _ in range(10_000):
        clock.advance(clock.next_at() - clock.now())
    assert clock.now() == 0.1 + 9_999 * 0.1
    assert len(seen(ref)) == 10_000


@given(
    first=st.floats(0, 1e9),
    period=st.floats(1e-3, 1e6),
    late=st.floats(0, 1e7),
)
def test_the_next_tick_is_the_first_time_of_the_series_that_is_not_past(first, period, late):
    now = first + late
    at = tick_after(first, period, now)
    assert now < at <= now + period * (1 + 1e-6) + 1e-6
    assert abs((at - first) / period - round((at - first) / period)) < 1e-3


def test_a_timer_bound_to_the_name_lives_through_restarts(ref, clock, eventually):
    def arrange_and_crash(actor):
        actor.send_after(actor.actor_ref, "once", 5.0, bound_to="name")
        actor.interval(actor.actor_ref, "tick", 2.0, bound_to="name")
        actor.interval(actor.actor_ref, "never", 2.0)
        raise Boom("boom")

    with pytest.raises(Boom):
        do(ref, arrange_and_crash)
    assert seen(ref) == []
    for _ in range(3):
        clock.advance(2.0)
    assert seen(ref) == ["tick", "tick", "once", "tick"]


def test_a_timer_bound_to_the_name_ends_when_it_is_closed(timed, clock, obedient, eventually):
    handle = timed.supervise(sup.ChildSpec("it", obedient), sup.ChildSpec("other", obedient))
    ref = timed.whereis("it")
    do(ref, lambda actor: actor.interval(timed.whereis("other"), "tick", 2.0, bound_to="name") and None)
    handle.terminate_child("it").get(timeout=30)
    assert ref.name.at_close == {}
    assert clock.pending() == []
    handle.restart_child("it").get(timeout=30)
    clock.advance(10)
    assert seen(timed.whereis("other")) == []


def test_a_timer_bound_to_the_name_can_be_cancelled_from_any_thread(ref, clock):
    timer = do(ref, lambda actor: [actor.interval(actor.actor_ref, "tick", 2.0, bound_to="name")])[0]
    clock.advance(2.0)
    canceller = threading.Thread(target=timer.cancel)
    canceller.start()
    canceller.join()
    timer.cancel()
    clock.advance(10.0)
    assert seen(ref) == ["tick"]
    assert (ref.name.at_close, clock.pending()) == ({}, [])


def test_a_timer_is_bound_to_an_incarnation_or_a_name(timed):
    timed.supervise(sup.ChildSpec("it", Obedient, expected_errors=(ValueError,)))
    with pytest.raises(ValueError, match="bound_to: 'actor'"):
        do(timed.whereis("it"), lambda actor: actor.send_after(actor.actor_ref, "never", 1.0, bound_to="actor"))


@pytest.mark.parametrize("bound_to", ["incarnation", "name"])
def test_what_was_left_behind_arranges_nothing_any_more(timed, clock, gate, bound_to, eventually):
    timed.supervise(sup.ChildSpec("it", ObedientThread))
    ref, entered = timed.whereis("it"), threading.Event()

    def outlive(actor):
        entered.set()
        gate.wait()
        actor.interval(actor.actor_ref, "never", 1.0, bound_to=bound_to)
        actor.send_after(actor.actor_ref, "never", 1.0, bound_to=bound_to)

    ref.tell(outlive)
    assert entered.wait(30)
    zombie = ref.name.incarnation
    timed.kill(ref)
    do(ref, lambda actor: None)
    gate.set()
    zombie.thread.join(30)
    eventually(lambda: clock.pending() == [])
    clock.advance(10)
    assert seen(ref) == []


def test_timers_that_are_cancelled_in_the_moment_they_fire_leave_nothing(system, obedient, eventually):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")

    def arrange(actor):
        return [actor.interval(actor.actor_ref, "tick", 0.0005) for _ in range(50)]

    timers = do(ref, arrange)
    eventually(lambda: len(seen(ref)) > 200)
    cancelling = [
        threading.Thread(target=lambda part=part: [each.cancel() for each in timers[part::2]]) for part in (0, 1)
    ]
    for thread in cancelling:
        thread.start()
    for thread in cancelling:
        thread.join()
    do(ref, lambda actor: None)
    number = len(seen(ref))
    do(ref, lambda actor: bool(actor.send_after(actor.actor_ref, "end", 0.01)))
    eventually(lambda: seen(ref)[-1] == "end")
    assert len(seen(ref)) <= number + 3
    assert ref.name.incarnation.at_end == {}


def test_a_timer_to_a_dead_actor_is_a_dead_letter_and_harms_no_one(timed, clock, obedient):
    handle = timed.supervise(sup.ChildSpec("it", obedient), sup.ChildSpec("gone", obedient))
    ref, gone = timed.whereis("it"), timed.whereis("gone")
    do(ref, lambda actor: actor.send_after(gone, "anybody?", 1.0) and None)
    handle.terminate_child("gone").get(timeout=30)
    clock.advance(1.0)
    assert gone.name.dead_letters == 1
    assert seen(ref) == []


def test_timers_work_on_real_time_too(system, obedient, eventually):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "soon", 0.001) and None)
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "never", 0.001).cancel())
    eventually(lambda: seen(ref) == ["soon"])
