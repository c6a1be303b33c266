"""Which ends are followed by a restart, how one is tried again, and what limits it."""

from __future__ import annotations

import pytest
from engine_rig import BOOM, NORMAL, Rig, child

from supervision.engine.vocabulary import ChildExited, CountChildren, Ok, TerminateChild, TimerFired, WhichChildren
from supervision.exits import (
    Abandoned,
    Crash,
    FailedToStart,
    Failure,
    GaveUp,
    Killed,
    Reason,
    Shutdown,
    StartFailed,
    StartTimeout,
)
from supervision.specs.child import Backoff, pause

ORDERLY = [NORMAL, Shutdown(), Shutdown("idle")]
ABNORMAL = [BOOM, Killed(), Abandoned("stuck"), GaveUp(()), StartFailed(BOOM), StartTimeout(1.0)]


def states(rig: Rig) -> dict[str, str]:
    return {row.id: row.state for row in rig.call(WhichChildren())}


@pytest.mark.parametrize("reason", ORDERLY + ABNORMAL, ids=str)
def test_a_permanent_child_is_always_restarted(reason: Reason) -> None:
    rig = Rig([child("a")])
    rig.exit("a", reason)
    assert rig.live == {"a": 2}
    assert rig.last_start["a"].restart_reason == reason


@pytest.mark.parametrize("reason", ORDERLY, ids=str)
def test_a_transient_child_that_ended_orderly_stays_stopped(reason: Reason) -> None:
    rig = Rig([child("a", restart="transient")])
    rig.exit("a", reason)
    assert states(rig) == {"a": "stopped"}
    assert rig.open == set()


@pytest.mark.parametrize("reason", ABNORMAL, ids=str)
def test_a_transient_child_that_failed_is_restarted(reason: Reason) -> None:
    rig = Rig([child("a", restart="transient")])
    rig.exit("a", reason)
    assert rig.live == {"a": 2}


@pytest.mark.parametrize("reason", ORDERLY + ABNORMAL, ids=str)
def test_a_temporary_child_is_forgotten(reason: Reason) -> None:
    rig = Rig([child("a", restart="temporary")])
    rig.exit("a", reason)
    assert states(rig) == {}
    assert rig.open == set()


def test_a_restart_keeps_the_name_open_and_is_told() -> None:
    rig = Rig([child("a")])
    rig.exit("a")
    assert rig.open == {"a"}
    (event,) = rig.emitted
    assert (event.name, event.id, event.fields["epoch"], event.fields["reason"]) == ("child_restarted", "a", 2, BOOM)


def test_siblings_of_a_one_for_one_child_are_left_alone() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == ["+b"]


def test_three_restarts_are_tolerated_and_the_fourth_in_the_window_is_not_performed() -> None:
    rig = Rig([child("z"), child("a")], path="root")
    rig.take_log()
    for _ in range(4):
        rig.exit("a")
    assert rig.take_log() == ["+a", "+a", "+a", "-z"]
    assert rig.finished == GaveUp((Failure("root/a", BOOM), Failure("root", "more than 3 restarts in 5 s")))


def test_restarts_that_have_left_the_window_do_not_count() -> None:
    rig = Rig([child("a")])
    for _ in range(10):
        rig.exit("a")
        rig.advance(2.0)
    assert rig.finished is None
    assert rig.live == {"a": 11}


def test_one_window_serves_all_children() -> None:
    rig = Rig([child("a"), child("b")])
    for id in ("a", "b", "a", "b"):
        rig.exit(id)
    assert isinstance(rig.finished, GaveUp)


def test_zero_restarts_give_up_at_once() -> None:
    rig = Rig([child("a")], max_restarts=0)
    rig.exit("a")
    assert isinstance(rig.finished, GaveUp)


def test_the_chain_leads_from_the_first_failure_through_every_supervisor_that_gave_up() -> None:
    below = (Failure("root/mid/w", BOOM), Failure("root/mid", "more than 3 restarts in 5 s"))
    rig = Rig([child("mid", kind="supervisor")], max_restarts=0, path="root")
    rig.exit("mid", GaveUp(below))
    assert rig.finished == GaveUp((*below, Failure("root", "more than 0 restarts in 5 s")))


def test_a_failed_restart_is_tried_again_and_each_try_counts() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["fail", "fail", "ok"]
    rig.exit("a")
    assert rig.live == {"a": 4}
    assert rig.engine.window(rig.now) == (3, 3)
    assert rig.last_start["a"].attempt == 3


def test_attempts_count_from_one_again_once_it_ran() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["fail", "ok"]
    rig.exit("a")
    rig.exit("a")
    assert rig.last_start["a"].attempt == 1


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 4])
def test_a_child_that_fails_to_restart_n_times_is_up_or_has_exhausted_its_restarts(failures: int) -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["fail"] * failures
    rig.exit("a", Crash("First", "cause"))
    if failures < 3:
        assert rig.running == ["a"]
    else:
        assert rig.finished == GaveUp((Failure("a", BOOM), Failure("supervisor", "more than 3 restarts in 5 s")))


def test_a_supervisor_that_fails_to_restart_is_a_failed_restart() -> None:
    rig = Rig([child("mid", kind="supervisor")])
    rig.starts["mid"] = ["hang"]
    rig.exit("mid")
    rig.exit("mid", Shutdown(FailedToStart("w", BOOM)))
    assert rig.live == {"mid": 3}
    assert rig.engine.window(rig.now) == (2, 3)


def test_between_a_failed_restart_and_the_next_try_calls_are_served() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["fail"]
    rig.exit_only("a")
    rig.deliver(0)
    assert isinstance(rig.inbox[0], TimerFired)
    token = rig.call_only(TerminateChild("a"))
    assert rig.replies[token] == Ok()
    rig.take_log()
    rig.settle()
    assert rig.take_log() == []
    assert rig.running == []
    assert rig.open == set()


def test_an_ignored_restart_keeps_the_spec_stopped() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["ignore"]
    rig.exit("a")
    assert states(rig) == {"a": "stopped"}
    assert rig.open == set()


def test_a_restart_that_hangs_is_killed_in_time_and_tried_again() -> None:
    rig = Rig([child("a", start_timeout=1)])
    rig.starts["a"] = ["hang", "ok"]
    rig.exit("a")
    assert states(rig) == {"a": "restarting"}
    rig.advance(1.0)
    assert rig.live == {"a": 3}
    assert rig.last_start["a"].restart_reason == StartTimeout(1.0)


def test_a_crash_is_handled_while_another_childs_start_hangs() -> None:
    rig = Rig([child("a"), child("b")])
    rig.starts["a"] = ["hang"]
    rig.exit("a")
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == ["+b"]


def test_a_crash_is_handled_while_another_child_stops() -> None:
    rig = Rig([child("a"), child("b")])
    rig.stops["a"] = "hang"
    rig.call(TerminateChild("a"))
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == ["+b"]


def test_exits_of_one_incident_count_once() -> None:
    rig = Rig([child(id) for id in "abcdef"])
    for id in "abcdef":
        rig.exit(id, Abandoned("scheduler"), incident="loop 7")
    assert rig.running == list("abcdef")
    assert rig.engine.window(rig.now) == (1, 3)
    rig.exit("a", Abandoned("scheduler"), incident="loop 8")
    assert rig.engine.window(rig.now) == (2, 3)


def test_an_incident_that_has_left_the_window_excuses_nobody() -> None:
    rig = Rig([child("a")])
    rig.exit("a", Abandoned("scheduler"), incident="loop")
    rig.advance(5.1)
    rig.exit("a", Abandoned("scheduler"), incident="loop")
    assert rig.engine.window(rig.now) == (1, 3)


def test_an_incident_excuses_no_later_crash() -> None:
    rig = Rig([child("a")], max_restarts=1)
    rig.exit("a", Abandoned("scheduler"), incident="loop 7")
    rig.exit("a")
    assert isinstance(rig.finished, GaveUp)


# Backoff


def test_a_child_with_backoff_waits_as_restarting_and_is_counted_when_the_wait_is_over() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=8, jitter=0))])
    rig.exit("a")
    assert states(rig) == {"a": "restarting"}
    assert rig.call(CountChildren()).active == 0
    assert rig.engine.window(rig.now) == (0, 3)
    assert rig.open == {"a"}
    rig.advance(1.0)
    assert states(rig) == {"a": "running"}
    assert rig.engine.window(rig.now) == (1, 3)


def test_waits_double_with_each_restart_and_with_each_failed_try() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=100, jitter=0, reset_after=50))], max_restarts=100)
    rig.starts["a"] = ["ok", "fail", "ok"]
    for _ in range(2):
        rig.exit("a")
        rig.advance(10.0)
    rig.exit("a")
    delays = [event.fields["delay"] for event in rig.emitted if event.name == "backoff"]
    assert delays == [1.0, 2.0, 4.0, 8.0]


def test_a_child_that_ran_long_enough_waits_as_for_the_first_time() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=100, jitter=0, reset_after=50))], max_restarts=100)
    for ran in (0.0, 49.0, 50.0):
        rig.advance(ran)
        rig.exit("a")
        rig.advance(4.0 if ran else 1.0)
    delays = [event.fields["delay"] for event in rig.emitted if event.name == "backoff"]
    assert delays == [1.0, 2.0, 1.0]


def test_the_wait_is_jittered_by_the_number_that_came_with_the_event() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=8, jitter=0.2))])
    rig.rand = 0.5
    rig.exit("a")
    assert rig.emitted[-1].fields["delay"] == pytest.approx(1.1)


def test_terminating_a_child_calls_its_backoff_off() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=8))])
    rig.exit("a")
    assert rig.call(TerminateChild("a")) == Ok()
    assert rig.armed == []
    rig.advance(100)
    assert rig.running == []


# What exhausted restarts lead to


def exhaust(rig: Rig, id: str = "a") -> None:
    for _ in range(rig.engine.window(rig.now)[1] + 1):
        rig.exit(id)


def test_a_pause_waits_as_restarting_then_forgets_the_window_and_tries_again() -> None:
    rig = Rig([child("a")], on_exhausted=pause(10), max_seconds=1000)
    rig.rand = 0.5
    exhaust(rig)
    assert states(rig) == {"a": "restarting"}
    rig.advance(12.4)
    assert rig.running == []
    rig.advance(0.2)
    assert rig.running == ["a"]
    assert rig.engine.window(rig.now) == (0, 3)
    assert rig.names_emitted()[-3:] == ["exhausted", "paused", "child_restarted"]


def test_a_paused_supervisor_that_tolerates_none_still_tries_again() -> None:
    rig = Rig([child("a")], max_restarts=0, on_exhausted=pause(1))
    for _ in range(5):
        rig.exit("a")
        rig.advance(1.0)
    assert rig.live == {"a": 6}


def test_a_dropped_child_is_stopped_and_its_siblings_live_on() -> None:
    rig = Rig([child("a"), child("b")], on_exhausted="drop_child")
    exhaust(rig)
    assert states(rig) == {"b": "running", "a": "stopped"}
    assert rig.open == {"b"}
    assert rig.names_emitted()[-2:] == ["exhausted", "dropped"]


def test_a_childs_own_rule_goes_before_its_supervisors() -> None:
    rig = Rig([child("a", on_exhausted="drop_child"), child("b")])
    exhaust(rig)
    assert rig.finished is None
    rig.exit("b")
    assert isinstance(rig.finished, GaveUp)


def test_a_late_exit_of_a_child_waiting_for_its_restart_changes_nothing() -> None:
    rig = Rig([child("a", backoff=Backoff(min=1, max=8))])
    rig.exit("a")
    rig.tell(ChildExited("a", 1, BOOM))
    rig.advance(2.0)
    assert rig.live == {"a": 2}
