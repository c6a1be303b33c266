"""Faults at every named point, by every action, and nothing where none is armed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of

import supervision as sup
from supervision import faults
from supervision.testing import POINTS, DeterministicScheduler, InjectedFault, delay, fault


@pytest.fixture
def scheduler() -> Iterator[DeterministicScheduler]:
    with DeterministicScheduler(1) as scheduler:
        yield scheduler


@pytest.fixture
def here(scheduler: DeterministicScheduler) -> Iterator[sup.System]:
    """A system in this very thread."""
    with sup.System("test", scheduler=scheduler, kill_grace=0.1) as system:
        yield system


def child(actor: Any = Obedient, **options: Any) -> sup.ChildSpec:
    return sup.ChildSpec("it", actor, **{"restart": "temporary", "start_timeout": 5.0, "shutdown": 1.0, **options})


# --- actions -----------------------------------------------------------------------------------------------------

AT_START = ["before_start", "after_start"]
AT_WORK = ["before_handle", "after_handle_before_reply"]


@pytest.mark.parametrize("point", AT_START)
@pytest.mark.parametrize(("action", "why"), [("raise", "InjectedFault"), (Boom("x"), "Boom"), ("kill", "killed")])
def test_a_start_that_goes_wrong_fails(here, point, action, why):
    with fault(point, action, path="it"), pytest.raises(sup.StartFailedError, match=why):
        here.supervise(child())


@pytest.mark.parametrize("point", AT_START)
def test_a_start_that_hangs_is_timed_out(here, scheduler, point):
    with fault(point, "hang", path="it"), pytest.raises(sup.StartFailedError, match="not started within"):
        here.supervise(child())
    assert scheduler.clock.now() == 5.0


@pytest.mark.parametrize("point", [*AT_START, *AT_WORK])
def test_a_delay_is_waited_for_and_does_no_harm(here, scheduler, point):
    with fault(point, delay(2.0), path="it") as plan:
        here.supervise(child())
        assert here.whereis("it").ask(1) == 1
    assert plan.done == 1
    assert scheduler.clock.now() == 2.0


@pytest.mark.parametrize("point", AT_WORK)
@pytest.mark.parametrize(
    ("action", "error", "reason"),
    [
        ("raise", InjectedFault, sup.Crash),
        (Boom, Boom, sup.Crash),
        (SystemExit, sup.ActorDeadError, sup.Crash),
        ("kill", sup.ActorDeadError, sup.Killed),
    ],
)
def test_work_that_goes_wrong_ends_the_actor_and_answers(here, point, action, error, reason):
    here.supervise(child())
    ref = here.whereis("it")
    ended = exit_of(ref)
    with fault(point, action, path="it"), pytest.raises(error):
        ref.ask(1)
    assert isinstance(ended.get().reason, reason)


@pytest.mark.parametrize("action", ["raise", "hang", "kill", delay(0.5)])
def test_what_goes_wrong_in_on_stop_or_before_the_exit_holds_nothing_up(here, scheduler, action):
    for point in ("in_on_stop", "before_exit_emit"):
        here.supervise(child())
        ended = exit_of(here.whereis("it"))
        with fault(point, action, path="it") as plan:
            here.roots[-1].name.ref.terminate_child("it").get()
        assert plan.done == 1
        assert ended.done
        assert scheduler.clock.now() <= 5.0
        here.roots[-1].incarnation.order_stop(sup.Shutdown())
        scheduler.run_until(lambda: not here.roots)


def test_a_thread_that_cannot_be_started_is_a_failed_start(make_system):
    system = make_system()
    with fault("thread_start", path="it"), pytest.raises(sup.StartFailedError, match="thread_start"):
        system.supervise(child(ObedientThread))
    assert system.audit() == []


def test_a_dropped_tell_is_a_dead_letter_and_a_dropped_ask_is_answered(here):
    here.supervise(child())
    ref = here.whereis("it")
    with fault("mailbox_put", "drop", path="it") as plan:
        ref.tell("lost")
        with pytest.raises(InjectedFault, match="dropped"):
            ref.ask("lost")
    assert plan.done == 2
    assert ref.name.dead_letters == 1
    assert ref.ask(lambda actor: actor.seen) == []


def test_a_sender_can_be_refused_and_a_receiver_killed_by_a_message(here):
    here.supervise(child(restart="permanent"))
    ref = here.whereis("it")
    with fault("mailbox_put", path="it"), pytest.raises(InjectedFault):
        ref.tell("refused")
    with fault("mailbox_put", "kill", path="it"):
        ref.tell("kept for the next")
    assert ref.ask(lambda actor: (actor.context.epoch, actor.seen)) == (2, ["kept for the next"])


def test_a_late_clock_makes_timers_late(here, scheduler):
    here.supervise(child())
    with fault("clock_late", delay(0.5), nth=1):
        here.whereis("it").ask(lambda actor: actor.send_after(actor.actor_ref, "tick", 1.0) and None)
    scheduler.run_until(lambda: here.whereis("it").name.handled == 2)
    assert scheduler.clock.now() == 1.5


def test_an_action_may_be_a_function_of_the_path(here):
    paths: list[str] = []
    with fault("before_handle", paths.append):
        handle = here.supervise(child())
        handle.count_children().get()
        here.whereis("it").ask(1)
    assert paths == ["root", "root/it"]


# --- filters -----------------------------------------------------------------------------------------------------


def test_nth_takes_one_of_those_that_the_other_filters_chose(here):
    here.supervise(child(expected_errors=(InjectedFault,)))
    ref = here.whereis("it")
    with fault("before_handle", message=int, nth=2) as plan:
        assert ref.ask("text") == "text"
        assert ref.ask(1) == 1
        with pytest.raises(InjectedFault):
            ref.ask(2)
        assert ref.ask(3) == 3
    assert (plan.seen, plan.done) == (3, 1)


def test_probability_is_drawn_from_the_faults_own_seed(here):
    here.supervise(child(expected_errors=(InjectedFault,)))
    ref = here.whereis("it")

    def outcomes(seed: int) -> list[bool]:
        with fault("before_handle", probability=0.5, seed=seed) as plan:
            return [ref.ask(1, block=False) and wait(ref, plan) for _ in range(20)]

    def wait(ref: Any, plan: Any) -> bool:
        before = plan.done
        try:
            ref.ask(2)
        except InjectedFault:
            pass
        return bool(plan.done > before)

    first = outcomes(1)
    assert 2 < sum(first) < 20
    assert first == outcomes(1)
    assert first != outcomes(2)


def test_a_path_is_a_whole_path_or_its_end(here):
    here.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)), sup.ChildSpec("it", Obedient))
    with fault("before_handle", path="mid/it") as plan:
        assert here.whereis("it").ask(1) == 1
        with pytest.raises(InjectedFault):
            here.whereis("mid/it").ask(1)
    assert plan.seen == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nowhere",), "no fault point"),
        (("before_start", "explode"), "cannot be done"),
        (("before_start", "drop"), "cannot be done"),
        (("mailbox_put", "hang"), "cannot be done"),
        (("thread_start", delay(1)), "cannot be done"),
        (("clock_late", "raise"), "cannot be done"),
        (("clock_late", Boom("x")), "cannot be done"),
        (("before_start", 3), "cannot be done"),
        (("before_start", "delay"), "how late"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments, text):
    with pytest.raises(sup.SpecError, match=text), fault(*arguments):
        pass


@pytest.mark.parametrize("options", [{"nth": 0}, {"nth": True}, {"nth": 1.5}, {"probability": 2}, {"probability": "x"}])
def test_a_filter_that_can_never_hold_is_refused(options):
    with pytest.raises(sup.SpecError), fault("before_start", **options):
        pass


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan, "1", True])
def test_a_delay_is_a_length_of_time(seconds):
    with pytest.raises(sup.SpecError):
        delay(seconds)


# --- off ---------------------------------------------------------------------------------------------------------


def test_where_nothing_is_armed_nobody_even_looks(here, monkeypatch):
    def looked(*_: Any) -> None:
        raise AssertionError("somebody looked")

    for name in ("hit", "takes", "lateness", "starts_thread"):
        monkeypatch.setattr(faults, name, looked)
    here.supervise(child())
    assert here.whereis("it").ask(1, timeout=30.0) == 1


def test_a_fault_is_over_with_its_block_even_beside_one_just_like_it():
    with fault("before_start") as outer:
        with fault("before_start"):
            assert len(faults.armed) == 2
        assert faults.armed == [outer]
    assert faults.armed == []
    assert {"before_start", "mailbox_put", "snapshot_write"} <= POINTS


def test_faults_work_in_threads_as_well(make_system):
    system = make_system()
    system.supervise(child(ObedientThread, restart="permanent"))
    ref = system.whereis("it")
    with fault("before_handle", delay(0.01), path="it"):
        assert ref.ask(1, timeout=30) == 1
    with fault("before_handle", "kill", path="it", nth=1), pytest.raises(pykka.ActorDeadError):
        ref.ask(1, timeout=30)
    assert ref.ask(2, timeout=30) == 2
