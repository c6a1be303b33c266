"""A handler that keeps its loop to itself costs its neighbours a moment, not their lives' work."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from tree_rig import Obedient

import supervision as sup
from supervision.hosting.scheduler import Scheduler
from supervision.stuck.pulse import Pulse
from supervision.testing import ManualClock


def blocked_by(gate: threading.Event, entered: threading.Event) -> Any:
    """A message whose handler blocks its loop until the gate opens."""

    def handler(actor: Any) -> str:
        entered.set()
        gate.wait()
        return "from beyond"

    return handler


@pytest.fixture
def quick(make_system, events):
    """A system that loses its patience soon, and whose events are kept."""
    system = make_system(loop_limit=0.2)
    system.events.subscribe(events.append)
    return system


@pytest.fixture
def scheduler():
    """A scheduler of the user's own."""
    scheduler = Scheduler("users")
    yield scheduler
    scheduler.stop()


def named(events: list[sup.Event], name: str) -> list[sup.Event]:
    return [event for event in events if event.name == name]


# -- what becomes of everybody ---------------------------------------------------------------------------


def test_while_a_handler_blocks_its_loop_its_neighbours_answer_again(quick, gate, entered, eventually):
    quick.supervise(sup.ChildSpec("hog", Obedient), *(sup.ChildSpec(f"n{i}", Obedient) for i in range(5)))
    lost = quick.workers
    hog = quick.whereis("hog").ask(blocked_by(gate, entered), block=False)
    assert entered.wait(30)
    answers = [quick.whereis(f"n{i}").ask(i, block=False) for i in range(5)]
    assert [future.get(timeout=30) for future in answers] == list(range(5))
    with pytest.raises(sup.ActorStuck):
        hog.get(timeout=30)
    assert quick.whereis("hog").ask("again", timeout=30) == "again"
    gate.set()
    eventually(lambda: lost.is_over and quick.unstopped_report() == [])
    assert quick.workers is not lost
    assert quick.stop(60)


def test_the_stack_comes_early_and_names_the_culprit(quick, events, gate, entered, eventually):
    quick.supervise(sup.ChildSpec("hog", Obedient))
    quick.whereis("hog").tell(blocked_by(gate, entered))
    (early,) = eventually(lambda: named(events, "long_turn"))
    (blocked,) = eventually(lambda: named(events, "scheduler_blocked"))
    assert (early.path, early.epoch, early.info["message"]) == ("root/hog", 1, "function")
    assert 0.1 <= early.info["seconds"] < blocked.info["seconds"]
    assert "gate.wait()" in early.info["stack"]
    assert (blocked.path, blocked.info["actor"]) == (f"{quick.name}-workers", "root/hog")
    assert "gate.wait()" in blocked.info["stack"]
    (abandoned,) = eventually(lambda: named(events, "abandoned"))
    assert events.index(early) < events.index(blocked) < events.index(abandoned)


def test_all_who_lived_there_end_as_abandoned_and_count_as_one_restart(quick, events, gate, entered, eventually):
    ids = [f"n{i}" for i in range(10)]
    quick.supervise(*(sup.ChildSpec(id, Obedient) for id in ids), max_restarts=1, max_seconds=60.0)
    quick.whereis("n3").tell(blocked_by(gate, entered))
    eventually(lambda: all((name := quick.whereis(id)) and name.name.epoch == 2 for id in ids))
    eventually(lambda: len(named(events, "child_exited")) == len(ids))
    assert {event.reason for event in named(events, "child_exited")} == {sup.Abandoned("scheduler")}
    assert quick.tree().children[0].window == (1, 1)
    assert all(quick.whereis(id).ask(id, timeout=30) == id for id in ids)


def test_waiting_messages_are_kept_in_order_and_handled_by_the_next(quick, gate, entered):
    quick.supervise(sup.ChildSpec("hog", Obedient), sup.ChildSpec("other", Obedient))
    quick.whereis("hog").tell(blocked_by(gate, entered))
    assert entered.wait(30)
    for ref in (quick.whereis("hog"), quick.whereis("other")):
        for n in range(50):
            ref.tell(n)
        assert ref.ask(lambda actor: actor.seen[:], timeout=30) == list(range(50))


def test_who_is_not_restarted_ends_there(quick, gate, entered, eventually):
    quick.supervise(sup.ChildSpec("hog", Obedient), sup.ChildSpec("once", Obedient, restart="temporary"))
    once = quick.whereis("once")
    quick.whereis("hog").tell(blocked_by(gate, entered))
    assert entered.wait(30)
    waits = once.ask("anybody?", block=False)
    with pytest.raises(sup.ActorDeadError) as caught:
        waits.get(timeout=30)
    assert caught.value.reason == sup.Abandoned("scheduler")
    assert quick.whereis("once") is None


def test_the_lost_thread_is_listed_until_it_ends_and_does_nothing_on_its_return(
    quick, events, gate, entered, eventually
):
    steps: list[str] = []
    awaken: list[Any] = []

    async def two_steps(actor: Any) -> None:
        go_on = asyncio.Event()
        awaken.append(partial(asyncio.get_running_loop().call_soon_threadsafe, go_on.set))
        steps.append("first")
        try:
            await go_on.wait()
            steps.append("second")
        finally:
            steps.append("cancelled")

    quick.supervise(sup.ChildSpec("hog", Obedient), sup.ChildSpec("other", Obedient))
    lost = quick.workers
    quick.whereis("other").tell(two_steps)
    eventually(lambda: steps == ["first"])
    asked = quick.whereis("hog").ask(blocked_by(gate, entered), block=False)
    eventually(lambda: named(events, "scheduler_blocked"))
    eventually(lambda: {left.path for left in quick.unstopped_report()} == {lost.name, "root/hog", "root/other"})
    handled = [quick.whereis(id).name.handled for id in ("hog", "other")]
    awaken[0]()
    gate.set()
    eventually(lambda: quick.unstopped_report() == [])
    assert lost.is_over
    assert steps == ["first", "cancelled"]
    assert sorted(
        event.path
        for event in eventually(lambda: named(events, "zombie_ended")[1:] and events)
        if event.name == "zombie_ended"
    ) == ["root/hog", "root/other"]
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert [quick.whereis(id).name.handled for id in ("hog", "other")] == handled


# -- wherever the scheduler comes from ---------------------------------------------------------------------


def test_a_scheduler_that_a_spec_brings_is_replaced_alone(quick, scheduler, gate, entered, eventually):
    quick.supervise(sup.ChildSpec("hog", Obedient, scheduler=scheduler), sup.ChildSpec("else", Obedient))
    quick.whereis("hog").tell(blocked_by(gate, entered))
    assert entered.wait(30)
    assert quick.whereis("hog").ask("again", timeout=30) == "again"
    assert quick.whereis("else").name.epoch == 1
    assert scheduler.is_abandoned
    assert not scheduler.present.is_abandoned
    assert quick.whereis("hog").ask(lambda actor: threading.current_thread(), timeout=30) is scheduler.present.thread


def test_a_scheduler_of_several_systems_is_replaced_once_for_all(make_system, scheduler, gate, entered, eventually):
    systems = [make_system(scheduler=scheduler, loop_limit=0.2) for _ in range(3)]
    events: list[list[sup.Event]] = [[], [], []]
    for system, its_events in zip(systems, events, strict=True):
        system.events.subscribe(its_events.append)
        system.supervise(sup.ChildSpec("it", Obedient))
    systems[1].whereis("it").tell(blocked_by(gate, entered))
    assert entered.wait(30)
    refs = [system.whereis("it") for system in systems]
    assert [ref.ask("again", timeout=30) for ref in refs] == ["again"] * 3
    assert [ref.name.epoch for ref in refs] == [2, 2, 2]
    assert {system.workers for system in systems} == {scheduler.present}
    for its_events in events:
        eventually(lambda its_events=its_events: len(named(its_events, "scheduler_blocked")) == 1)


def test_a_named_scheduler_is_made_once_and_ends_with_its_system(quick):
    quick.supervise(
        sup.ChildSpec("a", Obedient, scheduler="heavy"),
        sup.ChildSpec("b", Obedient, scheduler="heavy"),
        sup.ChildSpec("c", Obedient),
    )
    a, b, c = (quick.whereis(id).ask(lambda _: threading.current_thread(), timeout=30) for id in "abc")
    assert a is b
    assert a is not c
    assert "heavy" in a.name
    assert quick.stop(60)
    assert not a.is_alive()


@pytest.mark.parametrize("wrong", [3, "", "a/b", object()])
def test_what_is_no_scheduler_is_refused_when_the_spec_is_made(wrong):
    with pytest.raises(sup.SpecError, match="scheduler"):
        sup.ChildSpec("it", Obedient, scheduler=wrong)


def test_a_lone_actor_on_a_lost_scheduler_answers_that_it_is_dead(make_system, scheduler, monkeypatch, gate, entered):
    monkeypatch.setattr("supervision.hosting.scheduler._default", scheduler)
    lone = Obedient.start()
    system = make_system(loop_limit=0.2)
    system.supervise(sup.ChildSpec("it", Obedient, scheduler=scheduler))
    asked = lone.ask(blocked_by(gate, entered), block=False)
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    second = Obedient.start()
    assert second.ask("a new scheduler", timeout=30) == "a new scheduler"
    second.stop()


def test_timers_for_others_survive_the_loop_they_were_arranged_on(quick, gate, entered):
    quick.supervise(sup.ChildSpec("hog", Obedient))
    fired = threading.Event()
    asked: list[Any] = []

    def arrange(actor: Any) -> None:
        now = quick.clock.now()
        quick.clock.call_at(now + 0.6, fired.set)
        quick.clock.call_at(now + 0.5, asked.clear).cancel()
        asked.append(actor.actor_ref.ask("never", block=False, timeout=0.6))
        blocked_by(gate, entered)(actor)

    quick.whereis("hog").tell(arrange)
    assert fired.wait(30)
    assert len(asked) == 1
    assert asked[0].get(timeout=30) == "never"  # it waited in the mailbox, and the next incarnation handled it
    gate.set()


def test_a_blocked_supervisors_loop_is_told_and_kept(quick, events, gate, entered, eventually):
    quick.supervise(sup.ChildSpec("it", Obedient))
    quick.supervisors.post(gate.wait)
    (blocked,) = eventually(lambda: named(events, "scheduler_blocked"))
    assert blocked.path == f"{quick.name}-supervisors"
    gate.set()
    assert quick.whereis("it").ask("still there", timeout=30) == "still there"
    assert quick.supervisors.is_abandoned is False


# -- no false alarm ---------------------------------------------------------------------------------------


@pytest.fixture
def still(make_system, events, monkeypatch):
    """A system whose watchdog looks only when the test says so."""
    monkeypatch.setattr("supervision.stuck.watchdog.Watchdog.start", lambda self: None)
    system = make_system(loop_limit=1.0, clock=ManualClock())
    system.events.subscribe(events.append)
    return system


def test_ticks_that_came_late_condemn_nobody(still, events, gate, entered, eventually):
    still.supervise(sup.ChildSpec("hog", Obedient))
    still.whereis("hog").tell(blocked_by(gate, entered))
    assert entered.wait(30)
    for now in range(10):  # each a second after the other, when a fifth was meant
        still.watchdog.tick(float(now))
    assert not still.workers.is_abandoned
    for n in range(1, 5):
        still.watchdog.tick(9.0 + n * 0.2)
    assert not still.workers.is_abandoned
    still.watchdog.tick(10.1)
    assert named(events, "long_turn") or eventually(lambda: named(events, "long_turn"))
    eventually(lambda: still.whereis("hog").name.epoch == 2)


def test_a_loop_that_is_busy_with_many_short_things_is_not_blocked(still, events, eventually):
    """The sign of life waits behind all of them: it may come late, and must not be taken for lost."""
    scheduler = Scheduler("busy")
    pulse, turn, seen = Pulse(scheduler), threading.Semaphore(0), threading.Semaphore(0)

    def short() -> None:
        seen.release()
        turn.acquire()

    for _ in range(20):
        scheduler.post(short)
    longest = 0.0
    for now in range(20):
        assert seen.acquire(timeout=30)
        longest = max(longest, pulse.feel(now * 0.2))
        turn.release()
    scheduler.stop()
    assert longest == 0.0


def test_an_actor_busy_with_many_short_messages_does_not_block_its_loop(still, gate):
    """It handles many in one turn of the loop, in one and the same call of it."""
    still.supervise(sup.ChildSpec("busy", Obedient))
    ref, turn, seen = still.whereis("busy"), threading.Semaphore(0), threading.Semaphore(0)
    pulse = Pulse(still.workers)

    def short(actor: Any) -> None:
        seen.release()
        turn.acquire()

    for _ in range(30):
        ref.tell(short)
    felt = []
    for now in range(30):
        assert seen.acquire(timeout=30)
        felt.append(pulse.feel(now * 0.2))
        turn.release()
    assert max(felt) == 0.0
    assert ref.ask("done", timeout=30) == "done"


def test_an_idle_loop_is_not_blocked(still):
    still.supervise(sup.ChildSpec("it", Obedient))
    for n in range(20):
        still.watchdog.tick(n * 0.2)
    assert not still.workers.is_abandoned
