"""What each call is answered, whatever the child is doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_rig import BOOM, NORMAL, Rig, child

from supervision.engine.vocabulary import (
    AlreadyPresent,
    AlreadyStarted,
    ChildInfo,
    CountChildren,
    Counts,
    DeleteChild,
    GetChildSpec,
    MaxChildren,
    NotFound,
    Ok,
    Reconfigure,
    Refused,
    RestartChild,
    Restarting,
    Running,
    StartChild,
    Started,
    StartError,
    TerminateChild,
    WhichChildren,
)
from supervision.exits import GaveUp, Shutdown, StartTimeout
from supervision.specs.child import Kind, Restart, SupervisorOptions, pause


def one(state: str) -> Rig:
    """A supervisor whose child "a" is running, stopped, restarting or unknown; "z" always runs."""
    specs = [child("z")] + ([child("a")] if state != "unknown" else [])
    rig = Rig(specs, max_restarts=0, on_exhausted=pause(10))
    if state == "stopped":
        rig.call(TerminateChild("a"))
    if state == "restarting":
        rig.exit("a")
    rig.take_log()
    return rig


TABLE: list[tuple[Callable[[str], Any], str, Any, list[str]]] = [
    (lambda id: StartChild(child(id)), "running", AlreadyStarted("a"), []),
    (lambda id: StartChild(child(id)), "stopped", AlreadyPresent(), []),
    (lambda id: StartChild(child(id)), "restarting", AlreadyPresent(), []),
    (lambda id: StartChild(child(id)), "unknown", Started("a", "info of a"), ["+a"]),
    (RestartChild, "running", Running(), []),
    (RestartChild, "stopped", Started("a", "info of a"), ["+a"]),
    (RestartChild, "restarting", Restarting(), []),
    (RestartChild, "unknown", NotFound(), []),
    (TerminateChild, "running", Ok(), ["-a"]),
    (TerminateChild, "stopped", Ok(), []),
    (TerminateChild, "restarting", Ok(), []),
    (TerminateChild, "unknown", NotFound(), []),
    (DeleteChild, "running", Running(), []),
    (DeleteChild, "stopped", Ok(), []),
    (DeleteChild, "restarting", Restarting(), []),
    (DeleteChild, "unknown", NotFound(), []),
]


@pytest.mark.parametrize(("request_", "state", "answer", "log"), TABLE)
def test_the_table_of_answers(request_: Callable[[str], Any], state: str, answer: Any, log: list[str]) -> None:
    rig = one(state)
    assert rig.call(request_("a")) == answer
    assert rig.take_log() == log


def ids(rig: Rig) -> list[str]:
    return [row.id for row in rig.call(WhichChildren())]


def test_start_child_answers_when_the_start_is_acknowledged_and_not_before() -> None:
    rig = Rig()
    token = rig.call_only(StartChild(child("a")))
    assert token not in rig.replies
    assert rig.call_only(WhichChildren()) in rig.replies
    rig.settle()
    assert rig.replies[token] == Started("a", "info of a")


def test_a_child_that_is_still_being_started_by_a_call_is_not_listed_yet() -> None:
    rig = Rig()
    rig.starts["a"] = ["hang"]
    rig.call(StartChild(child("a")))
    assert ids(rig) == []
    assert rig.call(CountChildren()) == Counts(0, 0, 0, 0)


def test_a_failing_start_child_discards_the_spec() -> None:
    rig = Rig()
    rig.starts["a"] = ["fail"]
    assert rig.call(StartChild(child("a"))) == StartError(BOOM)
    assert (ids(rig), rig.open) == ([], set())


def test_a_start_child_that_takes_too_long_is_a_failure() -> None:
    rig = Rig()
    rig.starts["a"] = ["hang"]
    token = rig.call_only(StartChild(child("a", start_timeout=3)))
    rig.advance(3.0)
    assert rig.replies[token] == StartError(StartTimeout(3.0))
    assert ids(rig) == []


def test_an_ignored_start_child_has_nothing_to_refer_to_and_keeps_its_spec() -> None:
    rig = Rig()
    rig.starts["a"] = ["ignore"]
    assert rig.call(StartChild(child("a"))) == Started(None)
    assert rig.call(WhichChildren()) == (ChildInfo("a", "stopped", Kind.WORKER),)


def test_an_ignored_temporary_child_is_forgotten() -> None:
    rig = Rig()
    rig.starts["a"] = ["ignore"]
    assert rig.call(StartChild(child("a", restart="temporary"))) == Started(None)
    assert ids(rig) == []


def test_a_spec_its_supervisor_cannot_have_is_refused() -> None:
    rig = Rig()
    answer = rig.call(StartChild(child("a", restart="transient", significant=True)))
    assert isinstance(answer, Refused)
    assert "significant" in answer.why
    assert ids(rig) == []


def test_a_failing_restart_child_keeps_the_spec() -> None:
    rig = one("stopped")
    rig.starts["a"] = ["fail"]
    assert rig.call(RestartChild("a")) == StartError(BOOM)
    assert ids(rig) == ["a", "z"]
    assert rig.open == {"z"}


def test_a_manual_restart_is_not_counted_and_has_no_restart_reason() -> None:
    rig = one("stopped")
    rig.call(RestartChild("a"))
    assert rig.engine.window(rig.now) == (0, 0)
    start = rig.last_start["a"]
    assert (start.epoch, start.restart_reason, start.attempt) == (2, None, 0)


def test_a_terminated_child_keeps_its_spec_unless_it_is_temporary() -> None:
    rig = Rig([child("a"), child("b", restart="temporary")])
    for id in "ab":
        assert rig.call(TerminateChild(id)) == Ok()
    assert ids(rig) == ["a"]
    assert rig.open == set()


def test_a_deleted_name_can_be_started_anew_and_its_epochs_go_on() -> None:
    rig = one("stopped")
    rig.call(DeleteChild("a"))
    assert rig.call(StartChild(child("a"), last_epoch=1)) == Started("a", "info of a")
    assert rig.live["a"] == 2


def test_terminate_child_calls_a_restart_that_hangs_off() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["hang"]
    rig.exit("a")
    rig.take_log()
    assert rig.call(TerminateChild("a")) == Ok()
    assert rig.take_log() == ["-a"]
    assert rig.call(WhichChildren())[0].state == "stopped"


def test_terminate_child_during_the_kill_of_a_late_start_is_ok_and_nothing_is_tried_again() -> None:
    rig = Rig([child("a", start_timeout=1)])
    rig.starts["a"] = ["hang"]
    rig.exit("a")
    settle, rig.settle = rig.settle, lambda: None  # type: ignore[method-assign]
    rig.advance(1.0)
    rig.settle = settle  # type: ignore[method-assign]
    assert rig.call(TerminateChild("a")) == Ok()
    assert (rig.running, rig.armed) == ([], [])


def test_calls_for_a_child_wait_behind_the_call_that_starts_or_stops_it() -> None:
    rig = Rig([child("z")])
    requests = [
        StartChild(child("a")),
        StartChild(child("a")),
        TerminateChild("a"),
        TerminateChild("a"),
        DeleteChild("a"),
        RestartChild("a"),
    ]
    tokens = [rig.call_only(request) for request in requests]
    assert rig.replies == {}
    assert rig.call_only(TerminateChild("z")) not in rig.replies
    rig.settle()
    answers = [rig.replies[token] for token in tokens]
    assert answers == [Started("a", "info of a"), AlreadyStarted("a"), Ok(), Ok(), Ok(), NotFound()]


def test_a_second_start_child_succeeds_where_the_first_has_failed() -> None:
    rig = Rig()
    rig.starts["a"] = ["fail", "ok"]
    tokens = [rig.call_only(StartChild(child("a"))) for _ in range(2)]
    rig.settle()
    assert [rig.replies[token] for token in tokens] == [StartError(BOOM), Started("a", "info of a")]


def test_calls_for_other_children_do_not_wait() -> None:
    rig = Rig([child("a"), child("b")])
    rig.stops["a"] = "hang"
    rig.call(TerminateChild("a"))
    assert rig.call(TerminateChild("b")) == Ok()
    assert rig.call(StartChild(child("c"))) == Started("c", "info of c")


def test_children_are_listed_newest_first_and_counted() -> None:
    rig = Rig([child("a"), child("s", kind="supervisor")], on_exhausted=pause(9), max_restarts=0)
    rig.call(StartChild(child("b")))
    rig.exit("a")
    rig.call(TerminateChild("b"))
    assert rig.call(WhichChildren()) == (
        ChildInfo("b", "stopped", Kind.WORKER),
        ChildInfo("s", "running", Kind.SUPERVISOR),
        ChildInfo("a", "restarting", Kind.WORKER),
    )
    assert rig.call(CountChildren()) == Counts(specs=3, active=1, supervisors=1, workers=2)


def test_a_restarted_child_keeps_its_place() -> None:
    rig = Rig([child("a"), child("b")])
    rig.exit("a")
    rig.call(TerminateChild("a"))
    rig.call(RestartChild("a"))
    assert ids(rig) == ["b", "a"]


def test_get_childspec_gives_all_fields() -> None:
    spec = child("a", shutdown=3, restart="transient")
    rig = Rig([spec])
    assert rig.call(GetChildSpec("a")) == spec
    assert rig.call(GetChildSpec("b")) == NotFound()


def test_the_arguments_of_a_running_temporary_child_are_not_retained() -> None:
    spec = child("a", args=("large",), kwargs={"k": "large"}, restart="temporary")
    rig = Rig([spec])
    kept = rig.call(GetChildSpec("a"))
    assert (kept.args, dict(kept.kwargs), kept.restart) == ((), {}, Restart.TEMPORARY)
    assert rig.last_start["a"].spec == spec


# reconfigure


def test_reconfigure_renews_specs_adds_new_ones_unstarted_and_keeps_the_missing_behind() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.take_log()
    new = (child("d"), child("b", shutdown=9))
    assert rig.call(Reconfigure(SupervisorOptions(max_restarts=1), new)) == Ok()
    assert [(row.id, row.state) for row in reversed(rig.call(WhichChildren()))] == [
        ("d", "stopped"),
        ("b", "running"),
        ("a", "running"),
        ("c", "running"),
    ]
    assert rig.take_log() == []
    assert rig.call(GetChildSpec("b")).shutdown == 9.0
    assert rig.engine.window(rig.now) == (0, 1)
    assert rig.call(RestartChild("d")) == Started("d", "info of d")


@pytest.mark.parametrize(
    ("options", "specs"),
    [
        ({}, (child("x"), child("x"))),
        ({}, (child("x"), child("y", restart="transient", significant=True))),
        ({"strategy": "one_for_all"}, (child("x"),)),
    ],
)
def test_reconfigure_is_all_or_nothing(options: dict[str, Any], specs: Any) -> None:
    rig = Rig([child("a", on_exhausted="drop_child")])
    assert isinstance(rig.call(Reconfigure(SupervisorOptions(**options), specs)), Refused)
    assert ids(rig) == ["a"]


def test_a_reconfigured_window_applies_to_the_restarts_already_counted() -> None:
    rig = Rig([child("a")])
    for _ in range(3):
        rig.exit("a")
    rig.call(Reconfigure(SupervisorOptions(max_restarts=2), ()))
    rig.exit("a")
    assert isinstance(rig.finished, GaveUp)


def test_a_new_strategy_applies_from_the_next_failure_on() -> None:
    rig = Rig([child("a"), child("b")])
    rig.call(Reconfigure(SupervisorOptions(strategy="one_for_all"), ()))  # type: ignore[arg-type]
    rig.take_log()
    rig.exit("a")
    assert rig.take_log() == ["-b", "+a", "+b"]


def test_a_new_strategy_waits_for_the_restarts_that_began_under_the_old_one() -> None:
    rig = Rig([child("a"), child("b")])
    rig.starts["a"] = ["hang", "ok"]
    rig.exit("a")
    rig.call(Reconfigure(SupervisorOptions(strategy="one_for_all"), ()))  # type: ignore[arg-type]
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == []
    rig.exit("a")
    assert rig.take_log() == ["+a", "+b"]


# A dynamic supervisor


def test_a_dynamic_supervisor_has_no_more_children_than_it_may() -> None:
    rig = Rig(is_dynamic=True, max_children=2, max_restarts=0, on_exhausted=pause(9))
    rig.call(StartChild(child("a")))
    rig.starts["b"] = ["hang"]
    rig.call(StartChild(child("b")))
    assert rig.call(StartChild(child("c"))) == MaxChildren()
    rig.exit("b")
    rig.exit("a")
    assert rig.call(WhichChildren()) == (ChildInfo("a", "restarting", Kind.WORKER),)
    assert rig.call(StartChild(child("c"))) == Started("c", "info of c")
    assert rig.call(StartChild(child("d"))) == MaxChildren()
    assert rig.call(TerminateChild("a")) == Ok()
    assert rig.call(StartChild(child("d"))) == Started("d", "info of d")


@pytest.mark.parametrize("end", ["terminated", "done", "ignored on restart", "failed to start"])
def test_a_dynamic_supervisor_forgets_children_that_have_ended(end: str) -> None:
    rig = Rig(is_dynamic=True)
    if end == "failed to start":
        rig.starts["a"] = ["fail"]
    rig.call(StartChild(child("a", restart="transient")))
    if end == "terminated":
        rig.call(TerminateChild("a"))
    if end == "done":
        rig.exit("a", NORMAL)
    if end == "ignored on restart":
        rig.starts["a"] = ["ignore"]
        rig.exit("a")
    assert rig.call(CountChildren()) == Counts(0, 0, 0, 0)
    assert rig.open == set()


def test_a_dynamic_supervisor_restarts_and_gives_up_like_any_other() -> None:
    rig = Rig(is_dynamic=True)
    rig.call(StartChild(child("a")))
    rig.call(StartChild(child("b")))
    for epoch in (2, 3, 4):
        rig.exit("a")
        assert rig.live["a"] == epoch
    rig.exit("a")
    assert isinstance(rig.finished, GaveUp)


def test_a_call_and_a_shutdown_meet_without_losing_the_answer() -> None:
    rig = Rig([child("a")])
    tokens = [rig.call_only(StartChild(child("b"))), rig.call_only(TerminateChild("b"))]
    rig.shut_down(Shutdown())
    assert all(token in rig.replies for token in tokens)
