"""How a supervisor starts its children, and what it does if one cannot be started."""

from __future__ import annotations

import pytest
from engine_rig import BOOM, Rig, child

from supervision.engine.vocabulary import (
    ChildExited,
    ChildStarted,
    CountChildren,
    Ended,
    ShutdownRequested,
    Start,
    StartAll,
    StartChild,
    StartError,
    TimerFired,
    WhichChildren,
)
from supervision.errors import SpecError
from supervision.exits import FailedToStart, Normal, Shutdown, StartTimeout
from supervision.specs.child import INFINITY, ChildSpec


def test_children_start_left_to_right_each_after_the_one_before_is_acknowledged() -> None:
    rig = Rig([child("a"), child("b"), child("c")], start=False)
    rig.tell(StartAll())
    assert (rig.take_log(), rig.is_started) == (["+a"], False)
    rig.deliver(0)
    assert (rig.take_log(), rig.is_started) == (["+b"], False)
    rig.settle()
    assert (rig.take_log(), rig.is_started) == (["+c"], True)


def test_a_supervisor_without_children_has_started_at_once() -> None:
    assert Rig().is_started


def test_the_first_start_carries_no_restart_reason_and_the_first_epoch() -> None:
    spec = child("a")
    rig = Rig([spec])
    assert rig.last_start["a"] == Start("a", 1, spec, None, 0)


def test_epochs_go_on_from_those_the_names_have_had() -> None:
    from supervision.engine.engine import Engine
    from supervision.specs.child import SupervisorOptions

    engine = Engine(SupervisorOptions(), [child("a")], epochs={"a": 7})
    (start, _) = engine.decide(StartAll(), 0.0)
    assert isinstance(start, Start)
    assert start.epoch == 8


def test_nothing_starts_if_a_spec_is_doubled() -> None:
    with pytest.raises(SpecError, match="already"):
        Rig([child("a"), child("a")])


@pytest.mark.parametrize("failing", ["a", "b", "c", "d"])
def test_a_failing_first_start_stops_the_started_in_reverse_and_ends_the_supervisor(failing: str) -> None:
    ids = ["a", "b", "c", "d"]
    rig = Rig([child(id) for id in ids], start=False)
    rig.starts[failing] = ["fail"]
    rig.tell(StartAll())
    rig.settle()
    up_to = ids.index(failing)
    assert rig.take_log() == [f"+{id}" for id in ids[: up_to + 1]] + [f"-{id}" for id in reversed(ids[:up_to])]
    assert rig.finished == Shutdown(FailedToStart(failing, BOOM))
    assert not rig.is_started
    assert rig.armed == []


def test_a_failing_first_start_is_neither_retried_nor_counted() -> None:
    rig = Rig([child("a")], start=False)
    rig.starts["a"] = ["fail"]
    rig.tell(StartAll())
    rig.settle()
    assert rig.take_log() == ["+a"]
    assert rig.engine.window(rig.now) == (0, 3)


def test_an_ignored_child_keeps_its_spec_and_the_next_one_starts() -> None:
    rig = Rig([child("a"), child("b")], start=False)
    rig.starts["a"] = ["ignore"]
    rig.tell(StartAll())
    rig.settle()
    assert rig.is_started
    assert [(row.id, row.state) for row in rig.call(WhichChildren())] == [("b", "running"), ("a", "stopped")]
    assert rig.open == {"b"}


def test_an_ignored_temporary_child_is_dropped() -> None:
    rig = Rig([child("a", restart="temporary"), child("b")], start=False)
    rig.starts["a"] = ["ignore"]
    rig.tell(StartAll())
    rig.settle()
    assert [row.id for row in rig.call(WhichChildren())] == ["b"]


def test_a_start_that_takes_too_long_is_killed_and_has_failed() -> None:
    rig = Rig([child("a"), child("b", start_timeout=2)], start=False)
    rig.starts["b"] = ["hang"]
    rig.tell(StartAll())
    rig.settle()
    rig.advance(1.9)
    assert rig.take_log() == ["+a", "+b"]
    rig.advance(0.2)
    assert rig.take_log() == ["!b", "-a"]
    assert rig.finished == Shutdown(FailedToStart("b", StartTimeout(2.0)))


def test_a_start_acknowledged_after_its_kill_has_failed_all_the_same() -> None:
    rig = Rig([child("a", start_timeout=2)], start=False)
    rig.starts["a"] = ["hang"]
    rig.tell(StartAll())
    rig.tell(TimerFired(("start", "a", 1)))
    rig.tell(ChildStarted("a", 1))
    rig.settle()
    assert rig.finished == Shutdown(FailedToStart("a", StartTimeout(2.0)))


def test_a_supervisor_child_may_take_for_ever_to_start_unless_told_otherwise() -> None:
    rig = Rig([child("s", kind="supervisor")], start=False)
    rig.starts["s"] = ["hang"]
    rig.tell(StartAll())
    assert rig.armed == []
    rig = Rig([ChildSpec("s", object, kind="supervisor", start_timeout=5)], start=False)
    rig.starts["s"] = ["hang"]
    rig.tell(StartAll())
    assert rig.armed == [("start", "s", 1)]
    assert child("s", kind="supervisor").start_timeout == INFINITY


def test_a_child_that_ends_during_its_first_start_failed_to_start() -> None:
    rig = Rig([child("a")], start=False)
    rig.starts["a"] = ["hang"]
    rig.tell(StartAll())
    rig.exit("a", Normal())
    assert rig.finished == Shutdown(FailedToStart("a", Normal()))


def test_a_child_that_ends_while_its_siblings_start_is_restarted_when_all_have() -> None:
    rig = Rig([child("a"), child("b")], start=False)
    rig.starts["b"] = ["hang"]
    rig.tell(StartAll())
    rig.settle()
    rig.exit("a")
    assert rig.take_log() == ["+a", "+b"]
    rig.tell(ChildStarted("b", 1))
    assert rig.is_started
    assert rig.take_log() == ["+a"]


def test_a_child_that_has_ended_need_not_be_stopped_when_a_sibling_fails_to_start() -> None:
    rig = Rig([child("a"), child("b"), child("c")], start=False)
    rig.starts["c"] = ["hang"]
    rig.tell(StartAll())
    rig.settle()
    rig.exit("b")
    rig.exit("c")
    assert rig.take_log() == ["+a", "+b", "+c", "-a"]
    assert rig.finished is not None


@pytest.mark.parametrize("request_", [WhichChildren(), CountChildren(), StartChild(child("x"))])
def test_calls_during_the_start_wait_until_it_is_done(request_: object) -> None:
    rig = Rig([child("a")], start=False)
    rig.tell(StartAll())
    token = rig.call_only(request_)  # type: ignore[arg-type]
    assert token not in rig.replies
    rig.settle()
    assert not isinstance(rig.replies[token], Ended | StartError)


def test_calls_during_a_start_that_fails_hear_that_the_supervisor_ends() -> None:
    rig = Rig([child("a")], start=False)
    rig.starts["a"] = ["fail"]
    rig.tell(StartAll())
    token = rig.call_only(StartChild(child("x")))
    rig.settle()
    assert rig.replies[token] == Ended(Shutdown(FailedToStart("a", BOOM)))


def test_a_shutdown_during_the_start_goes_first() -> None:
    rig = Rig([child("a"), child("b"), child("c")], start=False)
    rig.starts["b"] = ["hang"]
    rig.tell(StartAll())
    rig.settle()
    rig.tell(ShutdownRequested(Shutdown("bye")))
    rig.settle()
    assert rig.take_log() == ["+a", "+b", "-b", "-a"]
    assert rig.finished == Shutdown("bye")
    assert not rig.is_started


def test_a_shutdown_before_the_start_ends_at_once() -> None:
    rig = Rig([child("a")], start=False)
    rig.shut_down()
    assert rig.finished == Shutdown()
    assert rig.take_log() == []


def test_events_of_an_old_epoch_change_nothing() -> None:
    rig = Rig([child("a")])
    rig.exit("a")
    rig.take_log()
    rig.tell(ChildExited("a", 1, BOOM))
    rig.tell(ChildStarted("a", 1))
    rig.tell(ChildExited("nobody", 1, BOOM))
    assert rig.take_log() == []
    assert rig.engine.window(rig.now) == (1, 3)
