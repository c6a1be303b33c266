"""How children are stopped, when a supervisor ends by itself, and what it says at the end."""

from __future__ import annotations

from typing import Any

import pytest
from engine_rig import BOOM, NORMAL, Rig, child

from supervision.engine.vocabulary import (
    ChildIgnored,
    ChildStartFailed,
    Ended,
    Ok,
    RestartChild,
    ShutdownRequested,
    StartChild,
    TerminateChild,
    WhichChildren,
)
from supervision.exits import Abandoned, GaveUp, Killed, Reason, Shutdown
from supervision.specs.child import pause


def test_children_stop_in_reverse_one_at_a_time() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.take_log()
    rig.tell(ShutdownRequested(Shutdown()))
    for log in (["-c"], ["-b"], ["-a"]):
        assert (rig.take_log(), rig.finished) == (log, None)
        rig.deliver(0)
    assert rig.finished == Shutdown()


def test_a_child_that_does_not_stop_in_its_time_is_killed() -> None:
    rig = Rig([child("a"), child("b", shutdown=2)])
    rig.stops["b"] = "hang"
    rig.take_log()
    rig.shut_down()
    rig.advance(1.9)
    assert rig.take_log() == ["-b"]
    rig.advance(0.2)
    assert rig.take_log() == ["!b", "-a"]
    assert rig.finished == Shutdown()


def test_brutal_kill_asks_nobody() -> None:
    rig = Rig([child("a", shutdown="brutal_kill")])
    rig.take_log()
    rig.shut_down()
    assert rig.take_log() == ["!a"]
    assert "shutdown_error" not in rig.names_emitted()


def test_infinity_waits_for_ever() -> None:
    rig = Rig([child("a", shutdown="infinity")])
    rig.stops["a"] = "hang"
    rig.shut_down()
    assert rig.armed == []


@pytest.mark.parametrize(
    ("fields", "reason", "expected"),
    [
        ({}, Shutdown(), True),
        ({}, Shutdown("info"), True),
        ({}, NORMAL, False),
        ({"restart": "transient"}, NORMAL, True),
        ({"restart": "temporary"}, NORMAL, True),
        ({}, BOOM, False),
        ({"restart": "temporary"}, BOOM, False),
        ({}, Killed(), False),
        ({}, Abandoned("stuck"), False),
        ({"shutdown": "brutal_kill"}, Killed(), True),
        ({"shutdown": "brutal_kill"}, Abandoned("stuck"), True),
    ],
)
def test_an_unexpected_end_is_told_and_stopping_goes_on(fields: dict[str, Any], reason: Reason, expected: bool) -> None:
    rig = Rig([child("z"), child("a", **fields)])
    rig.tell(ShutdownRequested(Shutdown()))
    if fields.get("shutdown"):
        rig.inbox.clear()
    rig.inbox.clear()
    rig.exit("a", reason)
    assert (rig.names_emitted() == []) is expected
    assert rig.finished == Shutdown()


def test_a_stopping_supervisor_restarts_nothing() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.stops["c"] = "hang"
    rig.take_log()
    rig.shut_down()
    rig.exit("a")
    rig.exit("c", Shutdown())
    assert rig.take_log() == ["-c", "-b"]
    assert rig.finished == Shutdown()


def test_what_waits_for_a_restart_is_not_started_any_more() -> None:
    rig = Rig([child("a"), child("b")], max_restarts=0, on_exhausted=pause(1))
    rig.exit("a")
    rig.stops["b"] = "hang"
    rig.shut_down()
    rig.advance(2.0)
    rig.exit("b", Shutdown())
    assert rig.live == {}
    assert rig.armed == []
    assert rig.finished == Shutdown()


def test_a_child_whose_start_hangs_is_asked_to_stop_too() -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["hang"]
    rig.exit("a")
    rig.take_log()
    rig.shut_down()
    assert rig.take_log() == ["-a"]
    assert rig.finished == Shutdown()


@pytest.mark.parametrize("answer", [ChildStartFailed("a", 2, BOOM), ChildIgnored("a", 2)])
def test_a_start_that_comes_to_nothing_after_the_request_to_stop_is_a_stop(
    answer: ChildStartFailed | ChildIgnored,
) -> None:
    rig = Rig([child("a")])
    rig.starts["a"] = ["hang"]
    rig.exit("a")
    rig.stops["a"] = "hang"
    token = rig.call_only(TerminateChild("a"))
    rig.inbox.append(answer)
    rig.settle()
    assert rig.replies[token] == Ok()
    assert (rig.live, rig.open, rig.armed, rig.names_emitted()) == ({}, set(), [], [])


def test_a_child_already_being_stopped_is_waited_for_in_its_turn() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.stops["b"] = "hang"
    token = rig.call_only(TerminateChild("b"))
    rig.take_log()
    rig.shut_down()
    assert rig.take_log() == ["-c"]
    rig.exit("b", Shutdown())
    assert rig.take_log() == ["-a"]
    assert rig.finished == Shutdown()
    assert rig.replies[token] == Ended(Shutdown())


def test_a_child_that_is_gone_before_its_turn_hurries_nobody() -> None:
    rig = Rig([child("a"), child("b"), child("c")])
    rig.stops["b"] = rig.stops["c"] = "hang"
    rig.call(TerminateChild("b"))
    rig.shut_down()
    rig.take_log()
    rig.exit("b", Shutdown())
    assert rig.take_log() == []
    rig.exit("c", Shutdown())
    assert rig.take_log() == ["-a"]


def test_a_second_shutdown_changes_nothing() -> None:
    rig = Rig([child("a")])
    rig.tell(ShutdownRequested(Shutdown("first")))
    rig.tell(ShutdownRequested(Shutdown("second")))
    rig.settle()
    assert rig.finished == Shutdown("first")


@pytest.mark.parametrize("when", ["while stopping", "after the end"])
def test_a_call_to_a_supervisor_that_ends_is_answered_at_once(when: str) -> None:
    rig = Rig([child("a")])
    rig.tell(ShutdownRequested(Shutdown()))
    if when == "after the end":
        rig.settle()
    for request in (WhichChildren(), StartChild(child("b")), RestartChild("a")):
        assert rig.replies[rig.call_only(request)] == Ended(Shutdown())


def test_giving_up_stops_the_others_in_reverse() -> None:
    rig = Rig([child("a"), child("b"), child("c")], max_restarts=0)
    rig.take_log()
    rig.exit("b")
    assert rig.take_log() == ["-c", "-a"]
    assert isinstance(rig.finished, GaveUp)


# auto_shutdown


def significant(id: str, restart: str = "transient") -> Any:
    return child(id, restart=restart, significant=True)


def test_any_significant_child_that_is_done_ends_the_supervisor() -> None:
    rig = Rig([significant("a"), significant("b"), child("c")], auto_shutdown="any_significant")
    rig.take_log()
    rig.exit("b", NORMAL)
    assert rig.take_log() == ["-c", "-a"]
    assert rig.finished == Shutdown()


def test_all_significant_children_must_be_done_where_all_are_asked_for() -> None:
    rig = Rig([significant("a"), significant("b", "temporary"), child("c")], auto_shutdown="all_significant")
    rig.exit("b", BOOM)
    assert rig.finished is None
    rig.exit("a", NORMAL)
    assert rig.finished == Shutdown()


def test_a_significant_child_that_is_restarted_has_not_ended() -> None:
    rig = Rig([significant("a")], auto_shutdown="any_significant")
    rig.exit("a", BOOM)
    assert (rig.finished, rig.live) == (None, {"a": 2})


def test_a_child_that_is_not_significant_ends_nobody_else() -> None:
    rig = Rig([significant("a"), child("b", restart="transient")], auto_shutdown="any_significant")
    rig.exit("b", NORMAL)
    assert rig.finished is None


def test_a_significant_child_that_was_terminated_ends_nobody_else() -> None:
    rig = Rig([significant("a")], auto_shutdown="any_significant")
    rig.call(TerminateChild("a"))
    assert rig.finished is None


def test_a_significant_bystander_ends_nobody_else() -> None:
    rig = Rig([child("a"), significant("b", "temporary")], auto_shutdown="all_significant", strategy="one_for_all")
    rig.exit("a")
    assert (rig.finished, rig.running) == (None, ["a"])


def test_a_terminated_significant_child_does_not_count_as_left() -> None:
    rig = Rig([significant("a"), significant("b")], auto_shutdown="all_significant")
    rig.call(TerminateChild("a"))
    rig.exit("b", NORMAL)
    assert rig.finished == Shutdown()


def test_a_significant_child_waiting_for_its_restart_is_still_left() -> None:
    rig = Rig(
        [significant("a"), significant("b")], auto_shutdown="all_significant", max_restarts=0, on_exhausted=pause(1)
    )
    rig.exit("a", BOOM)
    rig.exit("b", NORMAL)
    assert rig.finished is None


# Dynamic: all at once


def dynamic(*specs: Any, **options: Any) -> Rig:
    rig = Rig(is_dynamic=True, **options)
    for spec in specs:
        rig.call(StartChild(spec))
    rig.take_log()
    return rig


def test_a_dynamic_supervisor_stops_all_children_at_once() -> None:
    rig = dynamic(child("a"), child("b"), child("c", shutdown="brutal_kill"))
    rig.tell(ShutdownRequested(Shutdown()))
    assert rig.take_log() == ["-a", "-b", "!c"]
    rig.settle()
    assert rig.finished == Shutdown()
    assert rig.call(WhichChildren()) == Ended(Shutdown())


def test_it_arms_one_timer_for_each_distinct_timeout() -> None:
    rig = dynamic(child("a", shutdown=1), child("b", shutdown=2), child("c", shutdown=1), child("d", shutdown=2))
    rig.stops = {"a": "hang", "b": "hang", "c": "hang", "d": "ok"}
    rig.shut_down()
    assert len(rig.armed) == 2
    rig.take_log()
    rig.advance(1.0)
    assert rig.take_log() == ["!a", "!c"]
    assert rig.finished is None
    rig.advance(1.0)
    assert rig.take_log() == ["!b"]
    assert rig.finished == Shutdown()


def test_a_child_that_is_being_terminated_keeps_the_time_it_was_given() -> None:
    rig = dynamic(child("a", shutdown=5))
    rig.stops["a"] = "hang"
    rig.call(TerminateChild("a"))
    rig.advance(4.0)
    rig.shut_down()
    assert len(rig.armed) == 1
    rig.advance(1.0)
    assert rig.finished == Shutdown()


def test_an_empty_dynamic_supervisor_ends_at_once() -> None:
    rig = dynamic()
    rig.shut_down()
    assert rig.finished == Shutdown()


def test_a_dynamic_supervisor_stops_what_starts_stops_and_waits() -> None:
    rig = dynamic(child("a"), child("b"), child("c"), max_restarts=0, on_exhausted=pause(5))
    rig.starts["d"] = ["hang"]
    start = rig.call_only(StartChild(child("d")))
    rig.stops["a"] = "hang"
    stop = rig.call_only(TerminateChild("a"))
    rig.exit("c")
    rig.take_log()
    rig.shut_down()
    assert rig.take_log() == ["-b", "-d"]
    assert rig.replies[start] == rig.replies[stop] == Ended(Shutdown())
    rig.advance(5.0)
    assert rig.take_log() == ["!a"]
    assert rig.finished == Shutdown()
