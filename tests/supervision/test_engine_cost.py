"""What a decision costs must not grow with the number of children."""

from __future__ import annotations

import time
from collections.abc import Callable

from engine_rig import BOOM, child

from supervision.engine.engine import Engine
from supervision.engine.vocabulary import (
    Call,
    ChildExited,
    ChildStarted,
    ChildStartFailed,
    Event,
    RestartChild,
    StartAll,
    StartChild,
    TerminateChild,
)
from supervision.specs.child import SupervisorOptions

TIMES_SLOWER_AT_MOST = 20  # walking over the children would make it hundreds of times slower


def supervisor_of(children: int) -> Engine:
    engine = Engine(SupervisorOptions(max_restarts=1_000_000), [child(f"c{n}") for n in range(children)])
    engine.decide(StartAll(), 0.0)
    for n in range(children):
        engine.decide(ChildStarted(f"c{n}", 1), 0.0)
    return engine


def quickest(engine: Engine, events_of: Callable[[int], list[Event]]) -> float:
    """Seconds for the quickest of many rounds of events."""
    best = float("inf")
    for round_ in range(1, 200):
        events = events_of(round_)
        began = time.perf_counter()
        for event in events:
            engine.decide(event, 0.0)
        best = min(best, time.perf_counter() - began)
    return best


def crash_and_restart(round_: int) -> list[Event]:
    return [ChildExited("c3", round_, BOOM), ChildStarted("c3", round_ + 1)]


def start_and_stop(round_: int) -> list[Event]:
    id = f"new {round_}"
    return [
        Call(1, StartChild(child(id, restart="temporary"))),
        ChildStarted(id, 1),
        Call(2, TerminateChild(id)),
        ChildExited(id, 1, BOOM),
    ]


def test_a_restart_costs_the_same_among_ten_children_and_ten_thousand() -> None:
    few, many = supervisor_of(10), supervisor_of(10_000)
    assert quickest(many, crash_and_restart) < TIMES_SLOWER_AT_MOST * quickest(few, crash_and_restart)


def test_a_start_and_a_stop_cost_the_same_among_ten_children_and_ten_thousand() -> None:
    few, many = supervisor_of(10), supervisor_of(10_000)
    assert quickest(many, start_and_stop) < TIMES_SLOWER_AT_MOST * quickest(few, start_and_stop)


def call_a_retry_off(round_: int) -> list[Event]:
    epoch = 2 * round_ - 1
    return [
        ChildExited("c3", epoch, BOOM),
        ChildStartFailed("c3", epoch + 1, BOOM),
        Call(1, TerminateChild("c3")),
        Call(2, RestartChild("c3")),
        ChildStarted("c3", epoch + 2),
    ]


def test_calling_a_retry_off_costs_the_same_among_ten_children_and_ten_thousand() -> None:
    """It looked through all siblings for names that a group restart had left standing by."""
    few, many = supervisor_of(10), supervisor_of(10_000)
    assert quickest(many, call_a_retry_off) < TIMES_SLOWER_AT_MOST * quickest(few, call_a_retry_off)
