"""One seed, one interleaving: in the test's own thread, on virtual time."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, raising

import supervision as sup
from supervision.testing import DeterministicScheduler, ManualClock, Probe, Stuck
from supervision.testing import deterministic as kit

LONG = 600.0


@pytest.fixture
def scheduler() -> Iterator[DeterministicScheduler]:
    with DeterministicScheduler(7) as scheduler:
        yield scheduler


@pytest.fixture
def system(scheduler: DeterministicScheduler) -> Iterator[sup.System]:
    with sup.System("test", scheduler=scheduler) as system:
        yield system


class Patient(sup.Actor):
    """Takes ten minutes for each message."""

    async def on_receive(self, message: Any) -> Any:
        await asyncio.sleep(LONG)
        return message


def child(id: str, actor: Any = Obedient, **options: Any) -> sup.ChildSpec:
    return sup.ChildSpec(id, actor, **options)


# --- running -----------------------------------------------------------------------------------------------------


def test_a_blocking_ask_goes_on_with_the_work_and_needs_no_thread(system):
    before = threading.enumerate()
    system.supervise(child("it"))
    assert system.whereis("it").ask("hello") == "hello"
    assert threading.enumerate() == before


def test_ten_minutes_of_waiting_take_no_time(system, scheduler):
    system.supervise(child("it", Patient))
    assert system.whereis("it").ask(1) == 1
    assert scheduler.clock.now() == LONG


def test_a_timeout_is_virtual_time(system, scheduler):
    system.supervise(child("it", Patient))
    with pytest.raises(pykka.Timeout):
        system.whereis("it").ask(1, timeout=2.0)
    assert scheduler.clock.now() == 2.0
    with pytest.raises(pykka.Timeout):
        system.whereis("it").ask(1, block=False).get(timeout=3.0)
    assert scheduler.clock.now() == 5.0


def test_backoff_is_waited_for_in_virtual_time_with_jitter_drawn_from_the_seed():
    def second_start(seed: int) -> float:
        with DeterministicScheduler(seed) as scheduler, sup.System("x", scheduler=scheduler) as system:
            system.supervise(child("it", backoff=sup.Backoff(min=100, max=200, jitter=0.5)))
            with pytest.raises(Boom):
                system.whereis("it").ask(raising(Boom("boom")))
            scheduler.run_until(lambda: system.whereis("it").name.epoch == 2)
            return scheduler.clock.now()

    times = [second_start(seed) for seed in range(5)]
    assert all(100 <= time <= 150 for time in times)
    assert len(set(times)) > 1
    assert times == [second_start(seed) for seed in range(5)]


def test_run_gives_the_results_of_coroutines_beside_each_other(system, scheduler):
    system.supervise(child("it", Patient))
    ref = system.whereis("it")

    async def ask(n: int) -> Any:
        return await ref.ask(n, block=False)

    assert scheduler.run(ask(1), ask(2), ask(3)) == [1, 2, 3]


def test_settle_and_advance_stop_where_they_should(system, scheduler):
    system.supervise(child("it", Patient))
    answer = system.whereis("it").ask(1, block=False)
    scheduler.settle()
    assert (answer.done, scheduler.clock.now()) == (False, 0.0)
    scheduler.advance(LONG - 1)
    assert (answer.done, scheduler.clock.now()) == (False, LONG - 1)
    scheduler.advance(1)
    assert answer.done


def test_another_clock_may_be_given():
    clock = ManualClock()
    with DeterministicScheduler(1) as scheduler, sup.System("x", scheduler=scheduler, clock=clock) as system:
        assert system.clock is clock


def test_a_probe_lets_things_happen_while_it_waits(system, scheduler):
    probe = Probe()
    system.supervise(child("it", Patient))
    system.whereis("it").tell("ignored")
    system.whereis("it").ask(1, block=False).on_done(lambda: probe.record("answered"))
    assert probe.wait(1, timeout=3 * LONG) == ["answered"]
    with pytest.raises(TimeoutError, match="1 of 2"):
        probe.wait(2, timeout=1.0)


def test_events_are_told_in_order(system, scheduler):
    events: list[sup.Event] = []
    unsubscribe = system.events.subscribe(events.append)
    system.supervise(child("it"))
    with pytest.raises(Boom):
        system.whereis("it").ask(raising(Boom("boom")))
    scheduler.settle()
    assert [(event.name, event.epoch) for event in events if event.path == "root/it"] == [
        ("child_started", 1),
        ("child_exited", 1),
        ("child_started", 2),
        ("child_restarted", 2),
    ]
    unsubscribe()


# --- stopping ----------------------------------------------------------------------------------------------------


async def will_not_die(actor: Any) -> None:
    while True:
        try:
            await asyncio.sleep(LONG)
        except asyncio.CancelledError:
            continue


def test_stop_keeps_its_deadline_in_virtual_time_and_names_what_it_left():
    with DeterministicScheduler(1) as scheduler:
        system = sup.System("x", scheduler=scheduler, kill_grace=2.0)
        system.supervise(child("it"))
        system.whereis("it").tell(will_not_die)
        scheduler.settle()
        assert system.stop(10.0) is False
        assert scheduler.clock.now() <= 10.0
        assert [each.path for each in system.unstopped_report()] == ["root/it"]


def test_stop_from_within_only_begins_it(system, scheduler):
    system.supervise(child("it"))
    assert system.whereis("it").ask(lambda actor: system.stop()) is False
    scheduler.run_until(lambda: system.stopping.is_over)
    assert system.stop() is True


def test_a_root_is_stopped_without_a_thread_too(system):
    handle = system.supervise(child("it"))
    assert handle.stop() is True
    assert system.stopping.is_over


# --- what cannot be ----------------------------------------------------------------------------------------------


def test_a_wait_that_can_never_end_says_who_waits_for_whom(system, scheduler):
    system.supervise(child("asker"), child("silent"))
    silent = system.whereis("silent")

    async def ask(actor: Any) -> Any:
        return await silent.ask(owe_for_ever, block=False)

    def owe_for_ever(actor: Any) -> Any:
        actor.kept = actor.owe()
        return actor.kept

    with pytest.raises(Stuck, match=r"root/asker .*waits for root/silent") as caught:
        system.whereis("asker").ask(ask)
    assert caught.value.__notes__ == ["to replay this run: DeterministicScheduler(7)"]


def test_waiting_for_ever_while_a_timer_ticks_is_noticed(system, scheduler, monkeypatch):
    monkeypatch.setattr(kit, "PATIENCE", 10.0)
    system.supervise(child("it"))
    system.whereis("it").ask(lambda actor: actor.interval(actor.actor_ref, "tick", 1.0) and None)
    with pytest.raises(Stuck, match="have passed"):
        scheduler.run_until(lambda: False)


def test_going_round_in_circles_while_time_stands_still_is_noticed(system, scheduler, monkeypatch):
    monkeypatch.setattr(kit, "STEPS_AT_ONE_TIME", 1000)
    system.supervise(child("it"))

    async def spin(actor: Any) -> None:
        while True:
            await asyncio.sleep(0)

    system.whereis("it").tell(spin)
    with pytest.raises(Stuck, match="time stands still"):
        scheduler.run_until(lambda: False)
    system.kill(system.whereis("it"))


def test_actors_in_threads_are_refused_wherever_they_are(system):
    with pytest.raises(sup.SpecError, match="ObedientThread needs a thread"):
        system.supervise(child("it", ObedientThread))
    with pytest.raises(sup.SpecError, match="ObedientThread needs a thread"):
        system.supervise(sup.supervisor("mid", child("it", ObedientThread)))
    handle = system.supervise()
    answer = handle.start_child(child("it", ObedientThread)).get()
    assert isinstance(answer, sup.StartError)
    assert "needs a thread" in str(answer.reason)


def test_blocking_in_a_handler_is_refused_as_on_any_scheduler(system, scheduler):
    system.supervise(child("it", expected_errors=(sup.BlockingInScheduler,)), child("other"))
    other = system.whereis("other")
    with pytest.raises(sup.BlockingInScheduler):
        system.whereis("it").ask(lambda actor: other.ask(1))
    with pytest.raises(sup.BlockingInScheduler):
        system.whereis("it").ask(lambda actor: scheduler.run_until(lambda: True))


def test_a_failing_test_is_told_the_seed():
    with pytest.raises(AssertionError) as caught, DeterministicScheduler(42):
        raise AssertionError("the test's own")
    assert caught.value.__notes__ == ["to replay this run: DeterministicScheduler(42)"]


# --- orders ------------------------------------------------------------------------------------------------------


def order_of_answers(seed: int) -> list[int]:
    """Eight actors are told to report, one after the other: who comes first?"""
    seen: list[int] = []
    with DeterministicScheduler(seed) as scheduler, sup.System("x", scheduler=scheduler) as system:
        system.supervise(*[child(str(n)) for n in range(8)])
        for n in range(8):
            system.whereis(str(n)).tell(lambda actor, n=n: seen.append(n))
        scheduler.run_until(lambda: len(seen) == 8)
    return seen


def test_the_order_is_drawn_from_the_seed():
    orders = [tuple(order_of_answers(seed)) for seed in range(20)]
    assert len(set(orders)) > 15
    assert orders == [tuple(order_of_answers(seed)) for seed in range(20)]


def test_messages_of_one_sender_stay_in_order():
    for seed in range(50):
        with DeterministicScheduler(seed) as scheduler, sup.System("x", scheduler=scheduler) as system:
            system.supervise(child("it"))
            ref = system.whereis("it")

            async def send(sender: int, ref: Any = ref) -> None:
                for n in range(5):
                    ref.tell((sender, n))
                    await asyncio.sleep(0)

            scheduler.run(*(send(sender) for sender in range(3)))
            scheduler.settle()
            seen = ref.ask(lambda actor: actor.seen)
            assert len(seen) == 15
            assert all([n for who, n in seen if who == sender] == list(range(5)) for sender in range(3))


TRACE = """
import sys; sys.path[:0] = {folders!r}
import logging; logging.getLogger("supervision").setLevel(logging.CRITICAL + 1)
from test_chaos import deterministic
for seed in (3, 4):
    books, fingerprint = deterministic(seed)
    print(fingerprint, [(event.at, event.path, event.name, event.epoch) for event in books.events], books.begun)
"""


def test_a_seed_gives_the_same_run_in_every_process():
    here = Path(__file__).parent
    script = TRACE.format(folders=[str(here), str(here.parents[1])])

    def trace(hash_seed: str) -> str:
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    first = trace("1")
    assert first.count("child_started") > 20
    assert first == trace("2")
    assert first == trace("3")


# --- what chaos has found ------------------------------------------------------------------------------------------


def test_a_supervisor_killed_while_its_child_waits_for_its_retry_starts_nothing_any_more(system, scheduler, caplog):
    """Only one with a living child was silenced: the retry of a dead one started an orphan beside the new child."""
    caplog.set_level(logging.CRITICAL + 1, logger="supervision")
    system.supervise(
        sup.supervisor("mid", child("it", backoff=sup.Backoff(min=10, max=10, jitter=0)), restart="temporary")
    )
    ref = system.whereis("mid/it")
    with pytest.raises(Boom):
        ref.ask(raising(Boom("boom")))
    system.kill(system.whereis("mid"))
    scheduler.advance(60)
    assert ref.name.incarnation is None
    assert system.audit() == []


def test_a_system_with_threads_works_beside_it(system):
    """Its askers used to wait for the scheduler of this thread, where nothing of theirs could ever happen."""
    system.supervise(child("it"))
    with sup.System("real") as real:
        root = real.supervise(child("it"))
        assert real.whereis("it").ask(1, timeout=30) == 1
        assert root.terminate_child("it").get(timeout=30) == sup.Ok()
    assert system.whereis("it").ask(2) == 2
