"""Why a call went the way it did: what its trace says, while it runs, after it ended, and in the log."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from tests_system_rig import HELLO, PRICE, REQUEST, Gated, StartDuck, ask_for

from rubberduck import telemetry
from rubberduck.actors.calls.trace import Leg
from rubberduck.core.score import choose
from rubberduck.errors import NoAvailableProvider, RubberDuckError, ServiceUnavailable
from rubberduck.telemetry import names
from rubberduck.telemetry.logging import canonical_fields

ALIAS: dict[str, Any] = {**REQUEST, "model": "smart"}


def two(first: dict[str, Any], second: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Sections of two mocks behind one name."""
    return {
        "providers": {
            "a": {"module": "mock", "priority": 1, "responses": [first]},
            "b": {"module": "mock", "priority": 2, "responses": [second]},
        },
        "models": {"smart": ["a/any", "b/any"]},
        "prices": {"any": PRICE},
        "retry": {"base_delay": "1ms", "max_delay": "1ms"},
        **options,
    }


def test_a_trace_tells_every_term_of_every_candidate_and_the_bill(start_duck: StartDuck) -> None:
    duck = start_duck(**two(HELLO, HELLO))
    response = duck.complete(ALIAS, tenant="acme")
    told = response.trace.as_dict()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    choice, attempt = told["steps"]
    assert (choice["what"], choice["route"]) == ("choice", "a/any")
    terms = {"priority", "health", "load", "wait", "ttft", "output", "health_factor", "price", "cost", "obstacle"}
    assert all(terms <= candidate.keys() for candidate in choice["candidates"])
    assert [(each["route"], each["chosen"]) for each in choice["candidates"]] == [("a/any", True), ("b/any", False)]
    assert attempt["asked"]["output"] == 20
    assert attempt["settled"] == {"requests": 1, "input": 3, "output": 2, "concurrency": 1}
    assert (attempt["outcome"], attempt["cost"], attempt["refused"]) == ("success", "0.000007", None)
    assert told["bill"] == {"spent": "0.000007", "attempts": [told["bill"]["attempts"][0]]}
    assert (told["tenant"], told["priority"], told["queue"]["place"]) == ("acme", "normal", 0)
    assert "Hi" not in json.dumps(told), "no prompt is in a trace"


def test_it_can_be_asked_for_by_the_request_id_and_reads_well(start_duck: StartDuck) -> None:
    retry = {"base_delay": "1ms", "max_delay": "1ms", "jitter": False}  # with it, a wait may be none
    duck = start_duck(**two({"error": "server_error"}, HELLO, retry=retry))
    response = duck.complete(ALIAS)
    trace = duck.explain(response.request_id)
    assert trace == response.trace
    text = str(trace)
    for words in (
        "success after",
        "takes a/any",
        "> a/any",
        "  b/any",
        "priority 2",
        "tries a/any again",
        "waits 0.00",
    ):
        assert words in text, text
    assert "ServiceUnavailable after" in text
    assert "$0.000007 for 3 attempts" in text
    assert max(map(len, text.splitlines())) < 200


def test_the_same_candidates_and_seed_choose_the_same(start_duck: StartDuck) -> None:
    sections = two(HELLO, HELLO)
    sections["providers"]["b"]["priority"] = 1
    duck = start_duck(**sections)
    for _ in range(5):
        choice = duck.complete(ALIAS).trace.choices[0]
        again = {
            choose(choice.candidates, random.Random(7), choice.out_est, price_weight=choice.price_weight)
            for _ in range(3)
        }
        assert len(again) == 1


def test_a_call_that_runs_says_what_it_waits_for(start_duck: StartDuck, eventually: Any) -> None:
    duck = start_duck({"gated": {"module": Gated}})
    gated: Any = duck.provider("gated")
    ids: list[str] = []
    telemetry.attach(
        "ids", [names.REQUEST_START], lambda event, measured, told, config: ids.append(told["request_id"]), inline=True
    )
    try:
        future = duck.service.ask({"complete": ask_for("secret question")}, block=False)
        eventually(lambda: gated.arrived)
        trace = duck.explain(ids[0])
        assert trace.is_running
        assert trace.outcome == "waits for the answer of gated/any"
        assert "runs for" in str(trace)
        assert trace.as_dict()["ended_after"] is None
        gated.open()
        future.get(timeout=30)
        assert duck.explain(ids[0]).outcome == "success"
    finally:
        telemetry.detach("ids")


def test_a_call_nobody_knows_is_named_with_what_is_known(start_duck: StartDuck) -> None:
    with pytest.raises(KeyError, match="nor is it among the last 1000"):
        start_duck().explain("nobody")


def test_a_failure_carries_its_trace_and_the_log_line_has_it(start_duck: StartDuck, eventually: Any) -> None:
    duck = start_duck(**two({"error": "server_error"}, {"error": "server_error"}))
    lines: list[dict[str, Any]] = []
    telemetry.attach(
        "log",
        [names.REQUEST_EXCEPTION],
        lambda event, measured, told, config: lines.append(canonical_fields(measured, told)),
        inline=True,
    )
    try:
        with pytest.raises(ServiceUnavailable) as caught:
            duck.complete(ALIAS)
        eventually(lambda: lines)
    finally:
        telemetry.detach("log")
    error: RubberDuckError = caught.value
    assert duck.explain(error.request_id or "").outcome == "ServiceUnavailable"
    assert [leg.attempt is not None for leg in error.trace.legs] == [True] * len(error.attempts)
    assert lines[0]["trace"]["steps"][-1]["what"] == "gave_up"
    assert json.dumps(lines[0]["trace"], allow_nan=False)


@pytest.mark.parametrize("answer", [HELLO, {"error": "invalid_request"}], ids=["success", "InvalidRequest"])
def test_who_has_been_answered_can_ask_for_the_trace_at_once(
    start_duck: StartDuck, answer: Any, eventually: Any
) -> None:
    """The caller may be quicker than the end of the call's task, and was told that the call was still running."""
    duck = start_duck(**two(answer, answer))
    outcomes: list[str] = []
    ends = [names.REQUEST_STOP, names.REQUEST_EXCEPTION]
    telemetry.attach(  # told after the answer, within the task
        "end", ends, lambda _, __, told, ___: outcomes.append(duck.explain(told["request_id"]).outcome), inline=True
    )
    try:
        duck.service.ask({"complete": ALIAS}, block=False)
        eventually(lambda: outcomes)
    finally:
        telemetry.detach("end")
    assert outcomes == ["InvalidRequest" if "error" in answer else "success"]


def test_without_a_choice_it_says_what_stood_in_each_routes_way(start_duck: StartDuck) -> None:
    from rubberduck.actors.circuit_breaker import ForceOpen

    duck = start_duck(**two(HELLO, HELLO))
    for name in ("a", "b"):
        duck.actor(f"circuit_breaker:{name}").ask(ForceOpen("any"))
    with pytest.raises(NoAvailableProvider) as caught:
        duck.complete(ALIAS)
    [step] = caught.value.trace.as_dict()["steps"]
    assert step["reasons"] == {"a/any": "circuit forced_open", "b/any": "circuit forced_open"}
    assert [each["obstacle"] for each in step["candidates"]] == ["circuit forced_open"] * 2
    assert "gives up" in str(caught.value.trace)


def test_a_permit_refused_is_in_the_trace(start_duck: StartDuck) -> None:
    duck = start_duck(**two({**HELLO, "error": "server_error"}, HELLO, circuit_breaker={"failure_threshold": 1}))
    response = duck.complete(ALIAS)
    last = response.trace.legs[-1]
    assert isinstance(last, Leg)
    assert last.route == "b/any"
    second = duck.complete(ALIAS).trace
    assert second.choices[0].candidates[0].obstacle == "circuit open"
    assert "not now: circuit open, for another" in str(second)


def test_only_the_last_thousand_are_kept(start_duck: StartDuck) -> None:
    from rubberduck.actors.calls.trace_log import TraceLog

    duck, log = start_duck(), TraceLog(kept=2)
    traces = [duck.complete(REQUEST).trace for _ in range(3)]
    for trace in traces:
        log.keep(trace)
    assert log.find(traces[2].request_id) is traces[2]
    with pytest.raises(KeyError):
        log.find(traces[0].request_id)


def test_a_cached_answer_says_so(start_duck: StartDuck) -> None:
    duck = start_duck(cache={"ttl": "1m"})
    duck.complete(REQUEST)
    again = duck.complete(REQUEST)
    assert duck.explain(again.request_id).outcome == "cached"
