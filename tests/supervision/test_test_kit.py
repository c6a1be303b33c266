"""Probes, the check for leftovers, and what the kit needs to be imported."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pykka
import pytest
from tree_rig import Obedient

import supervision as sup
from supervision.hosting.scheduler import Scheduler
from supervision.testing import DeterministicScheduler, Probe, leak_check


def test_a_probe_records_what_its_ref_is_told_from_any_thread():
    with Probe() as probe:
        threads = [threading.Thread(target=probe.ref.tell, args=(n,)) for n in range(5)]
        for thread in threads:
            thread.start()
        assert sorted(probe.wait(5)) == [0, 1, 2, 3, 4]
        for thread in threads:
            thread.join()


def test_a_probe_that_waits_in_vain_says_what_came():
    probe = Probe()
    probe.ref.tell("one")
    with pytest.raises(TimeoutError, match=r"1 of 2 messages came within 0.01 s: \['one'\]"):
        probe.wait(2, timeout=0.01)


def test_a_probe_answers_asks_and_is_dead_once_stopped():
    probe = Probe()
    assert probe.ref.ask("question", timeout=30) is None
    assert probe.ref.stop(timeout=30) is True
    assert not probe.ref.is_alive()
    with pytest.raises(pykka.ActorDeadError):
        probe.ref.tell("late")
    assert probe.messages == ["question"]


def test_an_actor_can_be_given_a_probe(system):
    probe = Probe()
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(lambda actor: actor.send_after(probe.ref, "tick", 0.001) and None)
    assert probe.wait(1) == ["tick"]


def test_a_leak_check_names_actors_and_threads_left():
    system = sup.System("leaky")
    system.supervise(sup.ChildSpec("it", Obedient))
    with pytest.raises(AssertionError) as caught:
        leak_check(timeout=0.0)
    assert "actor Obedient (root/it)" in str(caught.value)
    assert "thread supervision-leaky-workers" in str(caught.value)
    system.stop()
    leak_check()


def test_a_leak_check_names_tasks_left_on_schedulers_with_and_without_a_thread():
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    scheduler = Scheduler("mine")
    tasks = []
    scheduler.post(lambda: tasks.append(scheduler.loop.create_task(forever(), name="stray")))
    with DeterministicScheduler(1) as other:
        tasks.append(other.loop.create_task(forever(), name="forgotten"))
        scheduler.post(lambda: None)
        while len(tasks) < 2:
            pass
        with pytest.raises(AssertionError) as caught:
            leak_check(timeout=0.0)
    assert "task forgotten on deterministic-1" in str(caught.value)
    assert "task stray on mine" in str(caught.value)
    scheduler.stop()
    leak_check()


WITHOUT_HYPOTHESIS = """
import sys
sys.modules["hypothesis"] = None
import supervision.testing
try:
    supervision.testing.EngineMachine
except ImportError as error:
    assert "pip install hypothesis" in str(error), error
else:
    raise AssertionError("imported without hypothesis")
"""


def test_only_the_state_machine_needs_hypothesis():
    run = subprocess.run([sys.executable, "-c", WITHOUT_HYPOTHESIS], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


def test_the_state_machine_is_found_where_the_kit_is():
    from supervision import testing
    from supervision.testing.engine_machine import EngineMachine

    assert testing.EngineMachine is EngineMachine
    with pytest.raises(AttributeError):
        _ = testing.NoSuchThing
