"""What a child spec and the options of a supervisor accept, and what they say about the rest."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from supervision.errors import SpecError
from supervision.specs.child import (
    BRUTAL_KILL,
    DROP_CHILD,
    ESCALATE,
    IGNORE,
    INFINITY,
    RESTARTING,
    AutoShutdown,
    Backoff,
    ChildSpec,
    Kind,
    Mailbox,
    Restart,
    Strategy,
    SupervisorOptions,
    block,
    event_log,
    fresh,
    pause,
    snapshot,
    validate_children,
)


class Actor:
    """Stands for an actor class: a spec only carries it."""


def test_a_worker_has_the_defaults_of_the_book() -> None:
    spec = ChildSpec("w", Actor)
    assert (spec.restart, spec.shutdown, spec.kind, spec.significant) == (Restart.PERMANENT, 5.0, Kind.WORKER, False)
    assert (spec.start_timeout, spec.args, dict(spec.kwargs)) == (30.0, (), {})


def test_a_supervisor_has_all_the_time_it_needs_unless_told_otherwise() -> None:
    spec = ChildSpec("s", Actor, kind="supervisor")
    assert (spec.shutdown, spec.start_timeout) == (INFINITY, INFINITY)
    assert ChildSpec("s", Actor, kind="supervisor", shutdown=3, start_timeout=4).start_timeout == 4.0


def test_lower_case_words_are_as_good_as_members() -> None:
    words = ChildSpec("w", Actor, restart="transient", shutdown="brutal_kill", kind="worker", on_exhausted="drop_child")
    members = ChildSpec(
        "w", Actor, restart=Restart.TRANSIENT, shutdown=BRUTAL_KILL, kind=Kind.WORKER, on_exhausted=DROP_CHILD
    )
    assert words == members
    assert words.restart is Restart.TRANSIENT
    options: dict[str, Any] = {"strategy": "rest_for_one", "auto_shutdown": "any_significant"}
    assert SupervisorOptions(**options) == SupervisorOptions(
        strategy=Strategy.REST_FOR_ONE, auto_shutdown=AutoShutdown.ANY_SIGNIFICANT
    )


def test_supervisor_options_have_the_defaults_of_elixir() -> None:
    options = SupervisorOptions()
    assert (options.strategy, options.max_restarts, options.max_seconds) == (Strategy.ONE_FOR_ONE, 3, 5.0)
    assert (options.auto_shutdown, options.on_exhausted) == (AutoShutdown.NEVER, ESCALATE)


def test_a_spec_does_not_change_with_the_arguments_it_was_made_from() -> None:
    args, kwargs = [1], {"a": 1}
    spec = ChildSpec("w", Actor, args, kwargs)  # type: ignore[arg-type]
    args.append(2)
    kwargs["b"] = 2
    assert (spec.args, dict(spec.kwargs)) == ((1,), {"a": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.id = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        spec.kwargs["b"] = 2  # type: ignore[index]


def test_a_spec_can_be_copied_and_changed() -> None:
    spec = ChildSpec("w", Actor, restart="transient")
    assert copy.copy(spec) == spec
    assert dataclasses.replace(spec, id="v").restart is Restart.TRANSIENT


def test_a_running_temporary_child_needs_no_arguments() -> None:
    spec = ChildSpec("w", Actor, (1,), {"a": 1}, restart="temporary").without_arguments()
    assert (spec.args, dict(spec.kwargs), spec.restart) == ((), {}, Restart.TEMPORARY)


WRONG_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"restrt": "permanent"}, r"child 'w': there is no field 'restrt'; did you mean 'restart'\?"),
    ({"zzz": 1}, r"no field 'zzz'; it has id, actor"),
    ({"restart": "always"}, r"child 'w': restart: 'always' is not one of 'permanent', 'transient', 'temporary'"),
    ({"kind": "boss"}, "child 'w': kind: 'boss'"),
    ({"shutdown": -1}, r"child 'w': shutdown: -1 is not a number of seconds >= 0"),
    ({"shutdown": "never"}, "'brutal_kill', 'infinity'"),
    ({"shutdown": True}, "child 'w': shutdown: True"),
    ({"shutdown": float("inf")}, "finite"),
    ({"start_timeout": 0}, "child 'w': start_timeout: 0 is not a number of seconds > 0"),
    ({"max_handle_time": "500ms"}, "child 'w': max_handle_time: '500ms' is not a number of seconds > 0; write 0.5"),
    ({"significant": "yes"}, "child 'w': significant: 'yes' is neither True nor False"),
    ({"significant": True}, "significant needs restart transient or temporary"),
    ({"args": "abc"}, "child 'w': args 'abc' is not a tuple"),
    ({"kwargs": {1: 2}}, "child 'w': kwargs"),
    ({"kwargs": [("a", 1)]}, "child 'w': kwargs"),
    ({"backoff": 3}, "child 'w': backoff: 3 is not Backoff"),
    ({"on_exhausted": "explode"}, r"child 'w': on_exhausted: 'explode' is not ESCALATE, DROP_CHILD or pause"),
    ({"expected_errors": ("ValueError",)}, "child 'w': expected_errors"),
    ({"mailbox": 10}, "child 'w': mailbox: 10 is not Mailbox"),
    ({"state": "fresh"}, r"child 'w': state: 'fresh' is not fresh\(\)"),
    ({"max_handle_time": 0}, "child 'w': max_handle_time"),
]


@pytest.mark.parametrize(("fields", "told"), WRONG_FIELDS, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_refused_saying_what_and_where(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        ChildSpec("w", Actor, **fields)


@pytest.mark.parametrize("id", ["", None, 3, "a/b"])
def test_an_id_is_a_text_that_can_stand_in_a_path(id: Any) -> None:
    with pytest.raises(SpecError, match="child id"):
        ChildSpec(id, Actor)


def test_an_actor_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(SpecError, match="neither an actor class nor a callable"):
        ChildSpec("w", "Actor")  # type: ignore[arg-type]


def test_options_must_be_named() -> None:
    with pytest.raises(SpecError, match="name them"):
        ChildSpec("w", Actor, (), {}, "permanent")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_restart": 3}, "did you mean 'max_restarts'"),
        ({"max_restarts": -1}, "max_restarts: -1"),
        ({"max_restarts": 1.5}, "max_restarts: 1.5"),
        ({"max_restarts": True}, "max_restarts: True"),
        ({"max_seconds": 0}, "max_seconds: 0"),
        ({"max_seconds": float("nan")}, "max_seconds: nan"),
        ({"strategy": "one_for_two"}, "strategy: 'one_for_two' is not one of 'one_for_one'"),
        ({"auto_shutdown": "always"}, "auto_shutdown: 'always'"),
        ({"on_exhausted": 3}, "on_exhausted: 3"),
        ({"on_exhausted": "drop_child", "strategy": "one_for_all"}, "drop_child needs one_for_one"),
    ],
)
def test_a_wrong_option_is_refused_saying_what_and_where(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        SupervisorOptions(**fields)


@pytest.mark.parametrize(
    ("specs", "options", "told"),
    [
        ([ChildSpec("a", Actor), ChildSpec("a", Actor)], {}, "child 'a': there is already a child of this id"),
        ([ChildSpec("a", Actor, restart="transient", significant=True)], {}, "child 'a': significant means nothing"),
        ([ChildSpec("a", Actor, on_exhausted="drop_child")], {"strategy": "one_for_all"}, "needs one_for_one"),
        ([Actor], {}, "is not a ChildSpec"),
    ],
)
def test_what_needs_the_supervisor_is_refused_when_supervised(specs: Any, options: dict[str, Any], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        validate_children(specs, SupervisorOptions(**options))


@pytest.mark.parametrize(
    ("delay", "seconds"), [(2, 2.0), (0.5, 0.5), ("1s", 1.0), ("500ms", 0.5), ("2m", 120.0), (" 1.5 h ", 5400.0)]
)
def test_a_pause_is_said_in_seconds_or_with_a_unit(delay: float | str, seconds: float) -> None:
    assert pause(delay).delay == pytest.approx(seconds)


@pytest.mark.parametrize("delay", [0, -1, "1 week", "", "s", None, "0s"])
def test_a_pause_that_is_none_is_refused(delay: Any) -> None:
    with pytest.raises(SpecError, match="pause"):
        pause(delay)


def test_a_pause_lasts_up_to_half_as_long_again() -> None:
    assert (pause(2).seconds(0.0), pause(2).seconds(0.5)) == (2.0, 2.5)


def test_a_mailbox_is_roomy_and_refuses_when_full_unless_told_otherwise() -> None:
    assert Mailbox() == Mailbox(100_000, "fail", "keep", 0, False)
    assert Mailbox(overflow=block(2)).overflow == block(2.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Mailbox(capacity=0),
        lambda: Mailbox(overflow="explode"),
        lambda: Mailbox(on_restart="burn"),
        lambda: Mailbox(redeliver=-1),
        lambda: Mailbox(drain=1),  # type: ignore[arg-type]
        lambda: block(-1),
        lambda: snapshot(),
        lambda: snapshot(every_messages=0),
        lambda: snapshot(every_seconds=0),
        lambda: snapshot(every_messages=1, quarantine=-1),
        lambda: event_log(""),
        lambda: event_log(3),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_mailbox_or_memory_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(SpecError):
        make()


def test_what_survives_a_restart_is_said_in_a_value() -> None:
    assert fresh() == fresh()
    assert (snapshot(every_messages=10).every_messages, snapshot(every_seconds=1).quarantine) == (10, 5.0)
    assert event_log("a.log") == event_log(Path("a.log"), quarantine=5)
    assert ChildSpec("w", Actor, state=event_log("a.log"), backoff=Backoff(min=1, max=2)).state == event_log("a.log")


def test_signals_cannot_be_mistaken_for_text() -> None:
    assert IGNORE != "ignore"
    assert repr(RESTARTING) == "RESTARTING"
