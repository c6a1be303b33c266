"""Timers of actors: on the injected clock, and no longer than the life that arranged them."""

from __future__ import annotations

import pytest
from tree_rig import Boom

import supervision as sup


@pytest.fixture
def ref(timed, obedient):
    timed.supervise(sup.ChildSpec("it", obedient))
    return timed.whereis("it")


def do(ref, function):
    return ref.ask(function, block=False).get(timeout=5)


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


def test_a_period_must_be_longer_than_nothing(timed):
    from tree_rig import Obedient

    timed.supervise(sup.ChildSpec("it", Obedient, expected_errors=(ValueError,)))
    with pytest.raises(ValueError, match=r"interval\(period\): "):
        do(timed.whereis("it"), lambda actor: actor.interval(actor.actor_ref, "tick", 0))


def test_a_timer_to_a_dead_actor_is_a_dead_letter_and_harms_no_one(timed, clock, obedient):
    handle = timed.supervise(sup.ChildSpec("it", obedient), sup.ChildSpec("gone", obedient))
    ref, gone = timed.whereis("it"), timed.whereis("gone")
    do(ref, lambda actor: actor.send_after(gone, "anybody?", 1.0) and None)
    handle.terminate_child("gone").get(timeout=5)
    clock.advance(1.0)
    assert gone.name.dead_letters == 1
    assert seen(ref) == []


def test_timers_work_on_real_time_too(system, obedient, eventually):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "soon", 0.001) and None)
    do(ref, lambda actor: actor.send_after(actor.actor_ref, "never", 0.001).cancel())
    eventually(lambda: seen(ref) == ["soon"])
