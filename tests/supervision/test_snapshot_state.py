"""Snapshots: what one incarnation leaves to the next, and when it is taken."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from state_rig import COUNTERS, Counter, CounterThread
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup
from supervision.testing import Probe, fault

CRASH = raising(Boom("boom"))
EVERY = sup.snapshot(every_messages=3, quarantine=0)
HOURLY = sup.snapshot(every_seconds=3600.0, quarantine=0)


@pytest.fixture(params=sorted(COUNTERS))
def counter(request):
    """A counter on either host."""
    return COUNTERS[request.param]


@pytest.fixture
def counting(timed, counter):
    """Starts a counter that keeps its state so, and gives its ref."""

    def start(state: Any, **options: Any) -> Any:
        timed.supervise(sup.ChildSpec("it", counter, state=state, **options), max_restarts=100)
        return timed.whereis("it")

    return start


def count(ref: Any) -> int:
    return ref.ask(lambda actor: actor.count, timeout=30)


def kept(ref: Any) -> Any:
    return ref.name.keeper.value


def crash(ref: Any, message: Any = CRASH) -> None:
    """Have the actor crash, and return when its successor answers."""
    with pytest.raises(Boom):
        ref.ask(message, timeout=30)
    ref.ask(lambda actor: None, timeout=30)


# -- when it is taken ------------------------------------------------------------------------------------


def test_a_snapshot_after_every_so_many_messages_is_what_a_crash_goes_back_to(counting, eventually):
    ref = counting(EVERY)
    for _ in range(5):
        ref.ask(1, timeout=30)
    crash(ref)
    assert count(ref) == 3


def test_the_first_incarnation_finds_none(counting):
    assert counting(EVERY).ask(lambda actor: actor.context.snapshot, timeout=30) is None


def test_a_message_after_enough_time_takes_one(counting, clock, eventually):
    ref = counting(HOURLY)
    ref.ask(1, timeout=30)
    assert kept(ref) is None
    clock.advance(3600)
    eventually(lambda: kept(ref) == 1)


def test_one_that_has_gone_idle_is_not_forgotten(counting, clock, eventually):
    """The snapshot must not wait for a next message, which may never come."""
    ref = counting(HOURLY)
    ref.ask(7, timeout=30)
    clock.advance(3600)
    eventually(lambda: kept(ref) == 7)
    assert ref.name.handled == 1
    ref.ask(1, timeout=30)
    clock.advance(3599)
    assert (count(ref), kept(ref)) == (8, 7)
    clock.advance(1)
    eventually(lambda: kept(ref) == 8)


def test_a_long_idle_one_takes_it_right_after_the_next_message(counting, clock, eventually):
    ref = counting(HOURLY)
    clock.advance(9999)
    ref.ask(2, timeout=30)
    eventually(lambda: kept(ref) == 2)


def test_without_anything_handled_there_is_nothing_to_keep(counting, clock):
    ref = counting(HOURLY)
    clock.advance(36_000)
    assert ref.name.keeper.kept() is None
    assert clock.next_at() is None


def test_one_timer_serves_any_number_of_messages_and_goes_with_the_incarnation(counting, clock, eventually):
    ref = counting(HOURLY)
    for _ in range(10):
        ref.ask(1, timeout=30)
    eventually(lambda: clock.pending() == [3600.0])
    ref.name.system.stop(60)
    assert clock.pending() == []


def test_both_conditions_may_hold_and_the_first_counts(counting, clock, eventually):
    ref = counting(sup.snapshot(every_messages=2, every_seconds=100.0, quarantine=0))
    ref.ask(1, timeout=30)
    clock.advance(60)
    ref.ask(1, timeout=30)
    eventually(lambda: kept(ref) == 2)
    ref.ask(1, timeout=30)
    clock.advance(99)
    assert count(ref) == 3
    eventually(lambda: kept(ref) == 3)  # that was the second message again
    assert ref.name.keeper.at == 159.0


def test_none_is_taken_after_a_handler_that_crashed(counting):
    ref = counting(sup.snapshot(every_messages=1, quarantine=0))
    ref.ask(1, timeout=30)

    def half_done(actor: Any) -> None:
        actor.count = 99
        raise Boom("halfway")

    crash(ref, half_done)
    assert count(ref) == 1


def test_a_message_answered_with_an_expected_error_does_not_count(counting):
    ref = counting(sup.snapshot(every_messages=2, quarantine=0), expected_errors=(Boom,))
    ref.ask(1, timeout=30)
    for _ in range(3):
        with pytest.raises(Boom):
            ref.ask(CRASH, timeout=30)
    assert kept(ref) is None


def test_the_asker_does_not_wait_for_the_snapshot(system):
    going, entered = threading.Event(), threading.Event()

    class Slow(CounterThread):
        def snapshot(self) -> int:
            entered.set()
            assert going.wait(30)
            return self.count

    system.supervise(sup.ChildSpec("it", Slow, state=sup.snapshot(every_messages=1)))
    assert system.whereis("it").ask(1, timeout=30) == 1
    assert entered.wait(30)
    going.set()


def test_an_async_snapshot_is_awaited_before_the_next_message(system, eventually):
    class Async(Counter):
        async def snapshot(self) -> tuple[int, int]:
            before = self.count
            await asyncio.sleep(0)
            return before, self.count

        def on_start(self) -> None:
            self.count = 0

    system.supervise(sup.ChildSpec("it", Async, state=sup.snapshot(every_messages=1)))
    ref = system.whereis("it")
    for _ in range(5):
        ref.tell(1)
    eventually(lambda: kept(ref) == (5, 5))


# -- orderly ends ----------------------------------------------------------------------------------------


def test_an_orderly_end_takes_a_last_one(counting):
    ref = counting(HOURLY)
    ref.ask(4, timeout=30)
    ref.ask(lambda actor: actor.exit(), timeout=30)
    assert count(ref) == 4


def test_a_child_terminated_and_restarted_by_hand_goes_on_where_it_was(timed, counter):
    root = timed.supervise(sup.ChildSpec("it", counter, state=HOURLY))
    ref = timed.whereis("it")
    ref.ask(4, timeout=30)
    root.terminate_child("it").get(timeout=30)
    root.restart_child("it").get(timeout=30)
    assert count(ref) == 4


def test_a_failing_last_snapshot_keeps_the_old_one_and_on_stop_has_its_turn(timed, counter):
    stopped = threading.Event()

    class Fails(counter):  # type: ignore[misc]
        def snapshot(self) -> int:
            if self.count == 4:
                raise Boom("no snapshot")
            return super().snapshot()

        def on_stop(self) -> None:
            stopped.set()

    root = timed.supervise(sup.ChildSpec("it", Fails, state=sup.snapshot(every_messages=3, quarantine=0)))
    ref = timed.whereis("it")
    for _ in range(4):
        ref.ask(1, timeout=30)
    over = exit_of(ref)
    root.terminate_child("it").get(timeout=30)
    assert stopped.is_set()
    assert over.get(timeout=30).reason.message == "no snapshot"
    root.restart_child("it").get(timeout=30)
    assert count(ref) == 3


def test_a_name_that_is_closed_for_good_keeps_nothing(timed, counter):
    root = timed.supervise()
    spec = sup.ChildSpec("it", counter, state=sup.snapshot(every_messages=1))
    ref = root.start_child(spec).get(timeout=30).ref
    ref.ask(4, timeout=30)
    root.terminate_child("it").get(timeout=30)
    root.delete_child("it").get(timeout=30)
    root.start_child(spec).get(timeout=30)
    assert count(ref) == 0


def test_what_is_kept_survives_a_restart_of_the_supervisor(timed, counter, eventually):
    mid = sup.supervisor("mid", sup.ChildSpec("it", counter, state=sup.snapshot(every_messages=1)))
    timed.supervise(mid)
    ref = timed.whereis("mid/it")
    ref.ask(4, timeout=30)
    eventually(lambda: kept(ref) == 4)
    timed.kill(timed.whereis("mid"))
    eventually(lambda: timed.whereis("mid/it") is not None and ref.name.epoch == 2)
    assert count(ref) == 4


# -- failing ---------------------------------------------------------------------------------------------


def test_a_snapshot_that_fails_crashes_the_actor_and_leaves_the_last_one(timed, counter, eventually):
    class Fails(counter):  # type: ignore[misc]
        def snapshot(self) -> int:
            if self.count == 2:
                raise Boom("no snapshot")
            return super().snapshot()

    probe = Probe()
    timed.events.subscribe(probe.record)
    timed.supervise(sup.ChildSpec("it", Fails, state=sup.snapshot(every_messages=1, quarantine=0)))
    ref = timed.whereis("it")
    assert [ref.ask(1, timeout=30) for _ in range(2)] == [1, 2]
    eventually(lambda: ref.name.epoch == 2)
    assert count(ref) == 1
    eventually(lambda: [each.path for each in probe.messages if each.name == "snapshot_failed"] == ["root/it"])
    probe.stop()


def test_a_fault_between_taking_and_keeping_leaves_the_last_one(counting, eventually):
    ref = counting(sup.snapshot(every_messages=1, quarantine=0))
    ref.ask(1, timeout=30)
    eventually(lambda: kept(ref) == 1)
    with fault("snapshot_write", path="it"):
        ref.ask(1, timeout=30)
        eventually(lambda: ref.name.epoch == 2)
    assert kept(ref) == 1
    assert count(ref) == 1


def test_one_killed_in_the_middle_of_its_snapshot_leaves_the_last_one(make_system, eventually):
    entered = threading.Event()

    class Hangs(Counter):
        async def snapshot(self) -> int:
            if self.count == 2:
                entered.set()
                await asyncio.Event().wait()
            return self.count

    system = make_system()
    system.supervise(sup.ChildSpec("it", Hangs, state=sup.snapshot(every_messages=1)))
    ref = system.whereis("it")
    ref.ask(1, timeout=30)
    ref.ask(1, timeout=30)
    assert entered.wait(30)
    system.kill(ref)
    assert count(ref) == 1


def test_a_zombie_leaves_nothing_to_those_after_it(make_system, gate, eventually):
    """Abandoned in its snapshot, it comes back when the next incarnation is there already."""
    entered, zombies = threading.Event(), []

    class Stuck(CounterThread):
        def snapshot(self) -> int:
            if self.context.epoch == 1 and self.count == 2:
                entered.set()
                gate.wait()
            return self.count

    system = make_system()
    system.events.subscribe(lambda event: zombies.append(event) if event.name == "zombie_ended" else None)
    system.supervise(sup.ChildSpec("it", Stuck, state=sup.snapshot(every_messages=1)))
    ref = system.whereis("it")
    ref.ask(1, timeout=30)
    ref.ask(1, timeout=30)
    assert entered.wait(30)
    system.kill(ref)
    assert count(ref) == 1
    gate.set()
    eventually(lambda: zombies)
    assert kept(ref) == 1


# -- remember, and specs ---------------------------------------------------------------------------------


def test_what_an_actor_remembers_is_kept_at_once_and_without_any_spec(timed, obedient):
    timed.supervise(sup.ChildSpec("it", obedient))
    ref = timed.whereis("it")
    ref.ask(lambda actor: actor.remember("this"), timeout=30)
    with pytest.raises(Boom):
        ref.ask(raising(Boom()), timeout=30)
    assert ref.ask(lambda actor: actor.context.snapshot, timeout=30) == "this"


def test_what_is_remembered_takes_the_place_of_the_snapshot(counting):
    ref = counting(sup.snapshot(every_messages=2, quarantine=0))
    ref.ask(1, timeout=30)
    ref.ask(1, timeout=30)
    ref.ask(lambda actor: actor.remember(100), timeout=30)
    crash(ref)
    assert count(ref) == 100


@pytest.mark.parametrize("actor", [Obedient, ObedientThread])
def test_a_class_without_snapshot_is_refused_before_anything_starts(system, actor):
    with pytest.raises(sup.SpecError, match=f"snapshot.*{actor.__name__}"):
        system.supervise(sup.ChildSpec("it", actor, state=EVERY))
    assert system.whereis("root") is None


def test_a_factory_that_makes_one_without_snapshot_fails_the_start(system):
    with pytest.raises(sup.StartFailedError, match="snapshot"):
        system.supervise(sup.ChildSpec("it", lambda: Obedient(), state=EVERY))


def test_another_kind_of_keeping_begins_with_nothing(timed, counter):
    root = timed.supervise(sup.ChildSpec("it", counter, state=HOURLY))
    ref = timed.whereis("it")
    ref.ask(4, timeout=30)
    root.terminate_child("it").get(timeout=30)
    options = sup.SupervisorOptions()
    root.reconfigure(options, [sup.ChildSpec("it", counter)]).get(timeout=30)
    root.restart_child("it").get(timeout=30)
    assert count(ref) == 0


def test_other_numbers_in_the_spec_keep_what_there_is_and_hold_from_then_on(timed, counter, eventually):
    root = timed.supervise(sup.ChildSpec("it", counter, state=HOURLY))
    ref = timed.whereis("it")
    ref.ask(4, timeout=30)
    root.terminate_child("it").get(timeout=30)
    root.reconfigure(sup.SupervisorOptions(), [sup.ChildSpec("it", counter, state=EVERY)]).get(timeout=30)
    root.restart_child("it").get(timeout=30)
    assert count(ref) == 4
    ref.ask(1, timeout=30)
    ref.ask(1, timeout=30)
    eventually(lambda: kept(ref) == 6)
