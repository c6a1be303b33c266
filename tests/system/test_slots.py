"""Slots in a whole RubberDuck: they belong to a route, so that a saturated model keeps nobody else waiting."""

from __future__ import annotations

from typing import Any

from tests_system_rig import REQUEST, Gated, StartDuck, ask_for

from rubberduck.actors.request_queue import Enqueue, ProcessNext

ONE_EACH = {"gated": {"max_concurrency": 1}}


def ask_of(model: str, text: str) -> dict[str, Any]:
    return ask_for(text) | {"model": f"gated/{model}"}


def test_a_saturated_model_does_not_keep_calls_to_another_one_waiting(start_duck: StartDuck, eventually: Any) -> None:
    duck = start_duck({"gated": {"module": Gated}}, rate_limits=ONE_EACH)
    provider = duck.provider("gated")
    assert isinstance(provider, Gated)
    ask = duck.service.ask
    big = [ask({"complete": ask_of("big", f"big {number}")}, block=False) for number in range(3)]
    eventually(lambda: provider.arrived == ["big 0"])
    eventually(lambda: sum(duck.status().queue.depth.values()) == 2)
    small = ask({"complete": ask_of("small", "small"), "priority": "low"}, block=False)
    eventually(lambda: provider.arrived == ["big 0", "small"])
    assert duck.status().providers["gated"].limiter.in_flight == 2
    provider.open(4)
    assert [future.get(timeout=30).text for future in [small, *big]] == [
        "re: small",
        "re: big 0",
        "re: big 1",
        "re: big 2",
    ]


def test_requests_that_wait_to_be_pulled_hold_up_no_call(start_duck: StartDuck) -> None:
    """They have no route. The queue used to ask for the circuit of their provider, and crashed."""
    duck = start_duck()
    duck.actor("request_queue").ask(Enqueue("pulled"))
    assert duck.complete(REQUEST).text == "hello there"
    assert duck.actor("request_queue").name.restarts == 0
    assert duck.actor("request_queue").ask(ProcessNext()).request == "pulled"
