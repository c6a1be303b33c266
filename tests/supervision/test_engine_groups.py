"""rest_for_one and one_for_all: whom a failure concerns, in which order, and what a failure on the way leads to."""

from __future__ import annotations

import pytest
from engine_rig import BOOM, NORMAL, Rig, child

from supervision.engine.vocabulary import (
    AlreadyPresent,
    ChildInfo,
    ChildStarted,
    DeleteChild,
    Ended,
    GetChildSpec,
    NotFound,
    Ok,
    RestartChild,
    Restarting,
    ShutdownRequested,
    StartChild,
    Started,
    TerminateChild,
    WhichChildren,
)
from supervision.exits import Crash, GaveUp, Shutdown
from supervision.specs.child import Backoff, pause

IDS = ["a", "b", "c", "d"]


def group(strategy: str, *temporary: str, **options: object) -> Rig:
    specs = [child(id, restart="temporary" if id in temporary else "permanent") for id in IDS]
    rig = Rig(specs, strategy=strategy, **options)
    rig.take_log()
    return rig


def states(rig: Rig) -> dict[str, str]:
    token = rig.call_only(WhichChildren())
    rows: tuple[ChildInfo, ...] = rig.replies[token]
    return {row.id: row.state for row in rows}


@pytest.mark.parametrize(
    ("failed", "log"),
    [
        ("a", ["-d", "-c", "-b", "+a", "+b", "+c", "+d"]),
        ("b", ["-d", "-c", "+b", "+c", "+d"]),
        ("c", ["-d", "+c", "+d"]),
        ("d", ["+d"]),
    ],
)
def test_rest_for_one_replaces_the_failed_child_and_those_behind_it(failed: str, log: list[str]) -> None:
    rig = group("rest_for_one")
    rig.exit(failed)
    assert rig.take_log() == log
    assert rig.engine.window(rig.now) == (1, 3)


@pytest.mark.parametrize(
    ("failed", "stops"), [("a", ["-d", "-c", "-b"]), ("b", ["-d", "-c", "-a"]), ("d", ["-c", "-b", "-a"])]
)
def test_one_for_all_replaces_all(failed: str, stops: list[str]) -> None:
    rig = group("one_for_all")
    rig.exit(failed)
    assert rig.take_log() == [*stops, "+a", "+b", "+c", "+d"]
    assert rig.engine.window(rig.now) == (1, 3)


def test_a_batch_stops_one_child_at_a_time_and_starts_none_before_all_are_gone() -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    for log in (["-d"], ["-c"], ["-a"], ["+a"], ["+b"], ["+c"], ["+d"]):
        assert rig.take_log() == log
        rig.deliver(0)


def test_bystanders_keep_their_names_open_and_learn_that_they_were_shut_down() -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    rig.deliver(0)
    assert rig.open == set(IDS)
    rig.settle()
    assert rig.last_start["b"].restart_reason == BOOM
    assert rig.last_start["d"].restart_reason == Shutdown()


def test_temporary_bystanders_are_stopped_and_forgotten() -> None:
    rig = group("one_for_all", "c")
    rig.exit("b")
    assert rig.take_log() == ["-d", "-c", "-a", "+a", "+b", "+d"]
    assert rig.call(GetChildSpec("c")) == NotFound()
    assert rig.open == {"a", "b", "d"}


def test_a_temporary_child_that_ends_concerns_nobody() -> None:
    rig = group("one_for_all", "c")
    rig.exit("c")
    assert rig.take_log() == []


def test_a_batch_also_starts_a_spec_that_stood_stopped() -> None:
    rig = group("rest_for_one")
    rig.call(TerminateChild("c"))
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == ["-d", "+b", "+c", "+d"]


@pytest.mark.parametrize(
    ("failing", "log"),
    [
        ("b", ["-d", "-c", "+b", "+b", "+c", "+d"]),
        ("c", ["-d", "-c", "+b", "+c", "+c", "+d"]),
        ("d", ["-d", "-c", "+b", "+c", "+d", "+d"]),
    ],
)
def test_if_a_rest_for_one_batch_fails_at_k_the_retry_goes_on_from_k(failing: str, log: list[str]) -> None:
    rig = group("rest_for_one")
    rig.starts[failing] = ["fail"]
    rig.exit("b")
    assert rig.take_log() == log
    assert rig.engine.window(rig.now) == (2, 3)


@pytest.mark.parametrize(
    ("failing", "log"),
    [
        ("a", ["+a", "+a", "+b", "+c", "+d"]),
        ("b", ["+a", "+b", "-a", "+a", "+b", "+c", "+d"]),
        ("d", ["+a", "+b", "+c", "+d", "-c", "-b", "-a", "+a", "+b", "+c", "+d"]),
    ],
)
def test_if_a_one_for_all_batch_fails_the_retry_stops_those_just_started(failing: str, log: list[str]) -> None:
    rig = group("one_for_all")
    rig.starts[failing] = ["fail"]
    rig.exit("b")
    assert rig.take_log() == ["-d", "-c", "-a", *log]
    assert rig.engine.window(rig.now) == (2, 3)


def test_after_a_failure_at_k_those_before_stay_up_k_is_restarting_and_the_rest_is_stopped() -> None:
    rig = group("rest_for_one")
    rig.starts["c"] = ["fail"]
    rig.exit_only("b")
    while rig.log[-1] != "+c":
        rig.deliver(0)
    rig.deliver(0)
    assert states(rig) == {"a": "running", "b": "running", "c": "restarting", "d": "stopped"}
    assert rig.open == set(IDS)


def test_calling_the_retry_off_closes_the_names_that_stood_by_for_it() -> None:
    rig = group("rest_for_one")
    rig.starts["c"] = ["fail"]
    rig.exit_only("b")
    while rig.log[-1] != "+c":
        rig.deliver(0)
    rig.deliver(0)
    rig.call(TerminateChild("c"))
    assert rig.running == ["a", "b"]
    assert rig.open == {"a", "b"}


def test_a_batch_that_keeps_failing_exhausts_the_restarts() -> None:
    rig = group("one_for_all")
    rig.starts["c"] = ["fail"] * 4
    rig.exit("b")
    assert isinstance(rig.finished, GaveUp)
    assert rig.running == []


@pytest.mark.parametrize("strategy", ["rest_for_one", "one_for_all"])
def test_an_ignored_member_stays_stopped_and_the_batch_goes_on(strategy: str) -> None:
    rig = group(strategy)
    rig.starts["c"] = ["ignore"]
    rig.exit("b")
    assert states(rig) == {"a": "running", "b": "running", "c": "stopped", "d": "running"}
    assert rig.open == {"a", "b", "d"}


def test_a_crash_of_a_child_about_to_be_replaced_is_neither_acted_on_nor_counted() -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    rig.exit_only("a", Crash("Other", "meanwhile"))
    rig.settle()
    assert rig.take_log() == ["-d", "-c", "+a", "+b", "+c", "+d"]
    assert rig.engine.window(rig.now) == (1, 3)


def test_a_crash_of_a_child_just_replaced_is_acted_on_when_the_batch_is_done() -> None:
    rig = group("rest_for_one")
    rig.starts["d"] = ["hang"]
    rig.exit("c")
    rig.exit("c")
    assert rig.take_log() == ["-d", "+c", "+d"]
    rig.tell(ChildStarted("d", 2))
    rig.settle()
    assert rig.take_log() == ["-d", "+c", "+d"]
    assert rig.engine.window(rig.now) == (2, 3)


def test_a_crash_of_a_child_outside_the_batch_is_acted_on_when_the_batch_is_done() -> None:
    rig = group("rest_for_one")
    rig.exit_only("c")
    rig.exit_only("a")
    assert rig.take_log() == ["-d"]
    rig.settle()
    assert rig.take_log() == ["+c", "+d", "-d", "-c", "-b", "+a", "+b", "+c", "+d"]


@pytest.mark.parametrize("steps", range(7))
def test_a_shutdown_at_any_point_of_a_batch_goes_first(steps: int) -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    for _ in range(steps):
        rig.deliver(0)
    was_live = sorted(set(rig.live) - rig.stopping, reverse=True)
    rig.take_log()
    rig.tell(ShutdownRequested(Shutdown()))
    rig.asked_to_end = True
    rig.settle()
    assert rig.take_log() == [f"-{id}" for id in was_live]
    assert rig.finished == Shutdown()
    assert rig.armed == []


def test_calls_that_change_something_wait_for_the_batch_and_the_others_hear_restarting() -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    rig.deliver(0)
    assert states(rig) == {"a": "running", "b": "restarting", "c": "restarting", "d": "restarting"}
    tokens = [rig.call_only(request) for request in (StartChild(child("e")), TerminateChild("c"), RestartChild("a"))]
    assert rig.replies.keys().isdisjoint(tokens)
    rig.settle()
    assert rig.replies[tokens[0]] == Started("e", "info of e")
    assert rig.replies[tokens[1]] == Ok()
    assert rig.take_log() == ["-d", "-c", "-a", "+a", "+b", "+c", "+d", "+e", "-c"]


def test_waiting_calls_hear_that_the_supervisor_ends() -> None:
    rig = group("one_for_all")
    rig.exit_only("b")
    token = rig.call_only(StartChild(child("e")))
    rig.shut_down(Shutdown("bye"))
    assert rig.replies[token] == Ended(Shutdown("bye"))


def test_a_crash_waits_for_a_start_that_was_called_for() -> None:
    rig = group("one_for_all")
    rig.starts["e"] = ["hang"]
    rig.call(StartChild(child("e")))
    rig.exit("a")
    assert rig.take_log() == ["+e"]
    rig.tell(ChildStarted("e", 1))
    rig.settle()
    assert rig.take_log() == ["-e", "-d", "-c", "-b", "+a", "+b", "+c", "+d", "+e"]


def test_a_restarting_child_refuses_what_only_a_stopped_one_can_do() -> None:
    rig = Rig([child("a"), child("b", backoff=Backoff(min=1, max=2))], strategy="rest_for_one")
    rig.exit("b")
    assert rig.call(StartChild(child("b"))) == AlreadyPresent()
    assert rig.call(RestartChild("b")) == Restarting()
    assert rig.call(DeleteChild("b")) == Restarting()


def test_the_failed_childs_backoff_delays_the_batch_and_its_siblings_run_on() -> None:
    rig = Rig([child("a"), child("b", backoff=Backoff(min=1, max=2, jitter=0))], strategy="one_for_all")
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == []
    rig.advance(1.0)
    assert rig.take_log() == ["-a", "+a", "+b"]


def test_a_batch_ends_the_backoff_of_its_members() -> None:
    rig = Rig([child("a"), child("b", backoff=Backoff(min=1, max=2))], strategy="one_for_all")
    rig.exit("b")
    rig.take_log()
    rig.exit("a")
    assert rig.take_log() == ["+a", "+b"]
    assert rig.armed == []
    rig.advance(10)
    assert rig.take_log() == []


def test_a_pause_is_followed_by_a_restart_of_the_whole_batch() -> None:
    rig = group("rest_for_one", max_restarts=0, on_exhausted=pause(1))
    rig.exit("c")
    assert rig.running == ["a", "b", "d"]
    rig.advance(1.0)
    assert rig.take_log() == ["-d", "+c", "+d"]


def test_a_retry_due_during_a_batch_is_tried_after_it() -> None:
    backoff = Backoff(min=1, max=1, jitter=0)
    rig = Rig([child("a", backoff=backoff), child("b"), child("c")], strategy="rest_for_one")
    rig.take_log()
    rig.stops["c"] = "hang"
    rig.exit("a")
    rig.exit("b")
    rig.advance(2.0)
    assert rig.take_log() == ["-c"]
    rig.advance(3.0)
    assert rig.take_log() == ["!c", "+b", "+c", "-c"]


def test_a_bystander_that_ends_normally_meanwhile_is_replaced_all_the_same() -> None:
    rig = Rig([child("a"), child("b", restart="transient"), child("c")], strategy="one_for_all")
    rig.exit_only("a")
    rig.exit_only("b", NORMAL)
    rig.settle()
    assert rig.live == {"a": 2, "b": 2, "c": 2}
