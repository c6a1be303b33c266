"""The event stream: in order, on a thread of its own, and harmless."""

from __future__ import annotations

import threading

import pytest
from tree_rig import Boom

import supervision as sup
from supervision.events import CAPACITY, Event, EventStream
from supervision.testing import Probe


@pytest.fixture
def probe():
    probe = Probe()
    yield probe
    probe.stop()


def test_the_story_of_a_crash_is_told_in_order(system, obedient, probe, crash):
    unsubscribe = system.events.subscribe(probe.record)
    system.supervise(sup.ChildSpec("it", obedient))
    with pytest.raises(Boom):
        system.whereis("it").ask(crash, timeout=5)
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
    from tree_rig import Obedient

    def fail(event):
        raise Boom("boom")

    system.events.subscribe(fail)
    system.events.subscribe(probe.record)
    system.supervise(sup.ChildSpec("it", Obedient))
    assert probe.wait(1)[0].name == "child_started"
    assert "a listener failed" in caplog.text


def test_nobody_hears_after_unsubscribing_and_the_thread_ends(system, probe):
    from tree_rig import Obedient

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
    assert entered.wait(5)
    for _ in range(CAPACITY + 5):
        stream.emit(Event("more", "", 0.0))
    assert stream.dropped == 5
    assert stream.close(timeout=0.01) is False
    gate.set()
    eventually(lambda: not any(thread.name == "supervision-events-hung" for thread in threading.enumerate()))


def test_a_listener_may_begin_the_stop_of_the_system(make_system, crash, eventually):
    from tree_rig import Obedient

    system = make_system()
    waited: list[bool] = []
    system.events.subscribe(lambda event: event.name == "child_restarted" and waited.append(system.stop()))
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(crash)
    eventually(lambda: waited == [False] and system.tree().children == ())
