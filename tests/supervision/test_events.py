"""The event stream: in order, on a thread of its own, and harmless."""

from __future__ import annotations

import threading

import pytest
from tree_rig import Boom, Obedient, ObedientThread, raising

import supervision as sup
from supervision.testing import Probe
from supervision.view.events import CAPACITY, Event, EventStream


@pytest.fixture
def probe():
    probe = Probe()
    yield probe
    probe.stop()


def test_the_story_of_a_crash_is_told_in_order(system, obedient, probe, crash):
    unsubscribe = system.events.subscribe(probe.record)
    system.supervise(sup.ChildSpec("it", obedient))
    with pytest.raises(Boom):
        system.whereis("it").ask(crash, timeout=30)
    events = [event for event in probe.wait(4) if event.path == "root/it"]
    assert [(event.name, event.epoch) for event in events] == [
        ("child_started", 1),
        ("child_exited", 1),
        ("child_started", 2),
        ("child_restarted", 2),
    ]
    assert events[1].reason.type == "Boom"
    unsubscribe()


def test_a_failing_listener_disturbs_nobody(system, probe, caplog):
    def fail(event):
        raise Boom("boom")

    system.events.subscribe(fail)
    system.events.subscribe(probe.record)
    system.supervise(sup.ChildSpec("it", Obedient))
    assert probe.wait(1)[0].name == "child_started"
    assert "a listener failed" in caplog.text


def test_nobody_hears_after_unsubscribing_and_the_thread_ends(system, probe):
    unsubscribe = system.events.subscribe(probe.record)
    unsubscribe()
    unsubscribe()
    system.supervise(sup.ChildSpec("it", Obedient))
    assert probe.messages == []
    assert not any(thread.name.startswith("supervision-events") for thread in threading.enumerate())


def test_a_listener_that_hangs_costs_events_but_never_the_stop(gate, eventually):
    stream = EventStream("hung")
    entered = threading.Event()
    stream.subscribe(lambda event: entered.set() or gate.wait())
    stream.emit(Event("first", "", 0.0))
    assert entered.wait(30)
    for _ in range(CAPACITY + 5):
        stream.emit(Event("more", "", 0.0))
    assert stream.dropped == 5
    assert stream.close(timeout=0.01) is False
    gate.set()
    eventually(lambda: not any(thread.name == "supervision-events-hung" for thread in threading.enumerate()))


def test_a_listener_may_begin_the_stop_of_the_system(make_system, crash, eventually):
    system = make_system()
    waited: list[bool] = []
    system.events.subscribe(lambda event: event.name == "child_restarted" and waited.append(system.stop()))
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(crash)
    eventually(lambda: waited == [False] and system.tree().children == ())


# -- each event, with its fields ---------------------------------------------------------------------------


@pytest.fixture
def told(eventually):
    """`told(system)` notes its events; the function that it gives waits for those of a name."""

    def note(system):
        events: list[Event] = []
        system.events.subscribe(events.append)

        def named(name, n=1):
            eventually(lambda: sum(event.name == name for event in events) >= n)
            return [event for event in events if event.name == name]

        return named

    return note


def facts(event):
    return event.path, event.epoch, event.reason, dict(event.info)


BOOM = raising(Boom("boom"))


def test_backoff_tells_how_long(timed, told):
    named = told(timed)
    timed.supervise(sup.ChildSpec("it", Obedient, backoff=sup.Backoff(min=9.0, max=9.0, jitter=0.0)))
    timed.whereis("it").tell(BOOM)
    (event,) = named("backoff")
    assert facts(event) == ("root/it", 1, None, {"delay": 9.0, "step": 1})


@pytest.mark.parametrize("action", ["escalate", "drop_child", "pause"])
def test_exhausted_tells_what_is_done_about_it(make_system, clock, told, action):
    system = make_system(clock=clock)
    named = told(system)
    then = {"escalate": sup.ESCALATE, "drop_child": sup.DROP_CHILD, "pause": sup.pause(60.0)}[action]
    system.supervise(sup.ChildSpec("it", Obedient, on_exhausted=then), max_restarts=0)
    system.whereis("it").tell(BOOM)
    (event,) = named("exhausted")
    assert (event.path, event.epoch, event.reason.type) == ("root/it", 1, "Boom")
    assert event.info["action"] == str(then)
    if action == "drop_child":
        assert [(event.path, event.reason.type) for event in named("dropped")] == [("root/it", "Boom")]
    if action == "pause":
        (event,) = named("paused")
        assert (event.path, event.epoch) == ("root/it", 1)
        assert 60.0 <= event.info["delay"] < 90.0


def test_a_restart_and_a_failed_one_tell_the_try(system, told):
    named, left = told(system), [Boom("once")]

    def on_start(actor):
        if actor.context.epoch > 1 and left:
            raise left.pop()

    system.supervise(sup.ChildSpec("it", Obedient, kwargs={"on_start": on_start}))
    system.whereis("it").tell(BOOM)
    (event,) = named("child_restarted")
    assert (event.path, event.epoch, event.info) == ("root/it", 3, {"attempt": 2})
    (event,) = named("child_start_failed")
    assert (event.path, event.epoch, event.reason.message, event.info) == ("root/it", 2, "once", {"attempt": 1})


def test_a_child_that_does_not_stop_as_it_should_is_an_error(timed, clock, told, gate):
    named = told(timed)
    handle = timed.supervise(sup.ChildSpec("it", ObedientThread, shutdown=1.0))
    entered = threading.Event()
    timed.whereis("it").tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    ended = handle.terminate_child("it")
    handle.count_children().get(timeout=30)
    clock.advance(1.0)
    ended.get(timeout=30)
    (event,) = named("shutdown_error")
    assert (event.path, event.epoch, type(event.reason)) == ("root/it", 1, sup.Abandoned)


def test_an_abandonment_and_its_end_are_told(system, told, gate):
    named = told(system)
    system.supervise(sup.ChildSpec("it", ObedientThread))
    entered = threading.Event()
    system.whereis("it").tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    system.kill(system.whereis("it"))
    (event,) = named("abandoned")
    assert facts(event) == ("root/it", 1, sup.Abandoned("a thread cannot be killed"), {})
    gate.set()
    (event,) = named("zombie_ended")
    assert facts(event) == ("root/it", 1, None, {})


def test_a_dead_letter_tells_its_type(system, told):
    named = told(system)
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(BOOM)
    (event,) = named("dead_letter")
    assert facts(event) == ("root/it", None, None, {"message": "function"})


def test_what_is_left_at_the_end_is_told_before_the_end(make_system, told, gate, eventually):
    system = make_system()
    named = told(system)
    system.supervise(sup.ChildSpec("it", ObedientThread, shutdown=0.01))
    entered = threading.Event()
    system.whereis("it").tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    assert system.stop(60) is False
    (event,) = named("unstopped")
    assert facts(event) == ("root/it", 1, None, {})
    (event,) = named("stopped")
    assert facts(event) == (system.name, None, None, {})
    gate.set()
    eventually(lambda: system.zombies == [])
