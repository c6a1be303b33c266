"""What a whole duck makes of each way in which an attempt ends: the rows of the table, seen from outside."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from tests_system_rig import HELLO, REQUEST, StartDuck

from rubberduck import RubberDuck, telemetry
from rubberduck.errors import ContentFiltered, QueueFull, RubberDuckError
from rubberduck.telemetry import names

LIMITS = {"requests_per_min": 100, "input_tokens_per_min": 10_000, "output_tokens_per_min": 1000}
ASKED = 20.0
"""Tokens of output that are reserved for the request."""


def duck_of(start_duck: StartDuck, *scripts: list[dict[str, Any]], **sections: Any) -> RubberDuck:
    providers = {
        f"mock{number}": {"module": "mock", "responses": script, "priority": number}
        for number, script in enumerate(scripts)
    }
    aliases = {"any": [f"mock{number}/any" for number in range(len(scripts))]}
    return start_duck(providers, models=aliases, **{"retry": {"max_attempts": 1}, **sections})


@pytest.mark.parametrize(
    ("script", "failures", "used"),
    [
        (HELLO, 0, (1, 3, 2)),
        ({"error": "unreachable"}, 1, (0, 0, 0)),
        ({"error": "server_error"}, 1, (1, None, 0)),
        ({"error": "overloaded"}, 1, (1, None, 0)),
        ({"error": "timeout"}, 1, (1, None, 0)),
        ({"error": "rate_limited", "retry_after": 0.01}, 0, (1, 0, 0)),
        ({"error": "quota"}, 0, (1, 0, 0)),
        ({"error": "auth"}, 0, (1, 0, 0)),
        ({"error": "invalid_request"}, 0, (1, 0, 0)),
        ({"error": "context_length"}, 0, (1, 0, 0)),
        ({"error": "model_not_found"}, 0, (1, 0, 0)),
        ({"error": "content_filter"}, 0, (1, 0, 0)),
        ({"error": KeyError("a bug")}, 1, (1, None, 0)),
    ],
    ids=lambda each: str(each.get("error", "success")) if isinstance(each, dict) else "",
)
def test_breaker_and_limiter_keep_of_an_attempt_what_the_table_says(
    start_duck: StartDuck, eventually: Any, script: dict[str, Any], failures: int, used: tuple[int, int | None, int]
) -> None:
    """`used` are requests, input (None: all that was reserved) and output."""
    duck = duck_of(start_duck, [script], rate_limits={"mock0": LIMITS})
    try:
        trace = duck.complete(REQUEST).trace
    except RubberDuckError as error:
        trace = error.trace
    [leg] = trace.legs
    assert leg.asked.output == ASKED
    expected = {"requests": used[0], "input": leg.asked.input if used[1] is None else used[1], "output": used[2]}

    def is_settled() -> bool:
        status = duck.status().providers["mock0"]
        breaker, limiter = status.breakers["any"], status.limiter
        return (
            {name: limiter.used_this_minute[name] for name in expected} == expected
            and (breaker.consecutive_failures, breaker.permits_out, limiter.in_flight) == (failures, 0, 0)
        )  # fmt: skip

    eventually(is_settled)


def test_what_a_policy_stopped_is_asked_of_others_only_where_that_was_wanted(start_duck: StartDuck) -> None:
    """The option was in the table, and nowhere else."""
    duck = duck_of(start_duck, [{"error": "content_filter"}], [HELLO])
    with pytest.raises(ContentFiltered):
        duck.complete(REQUEST)
    willing = duck_of(start_duck, [{"error": "content_filter"}], [HELLO], retry={"failover_on_content_filter": True})
    response = willing.complete(REQUEST)
    assert (response.provider, len(response.attempts)) == ("mock1", 2)


def test_each_call_that_was_let_in_is_answered_or_failed_or_cancelled_and_all_books_agree(
    start_duck: StartDuck, eventually: Any
) -> None:
    script = [HELLO, {"error": "server_error"}, {"error": "invalid_request"}, {**HELLO, "delay": 0.05}] * 20
    limits = {"mock": {"max_concurrency": 4}}
    duck = start_duck(
        {"mock": {"module": "mock", "responses": script}},
        rate_limits=limits, max_queue_size=60, circuit_breaker={"failure_threshold": None},
        retry={"max_attempts": 2, "base_delay": "1ms"}, prices={"mock/any": {"input": 1, "output": 2}},
    )  # fmt: skip
    told: Counter[str] = Counter()
    events = [*names.REQUEST_EVENTS, names.QUEUE_REJECTED]
    telemetry.attach("test", events, lambda event, *_: told.update([event[-1]]))

    async def call(number: int) -> str:
        task = asyncio.create_task(duck.acomplete(REQUEST, timeout=0.02 if number % 7 == 0 else 20))
        await asyncio.sleep(0)
        if number % 5 == 0:
            await asyncio.sleep(0.001 * number)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        except QueueFull:
            return "refused"
        except RubberDuckError:
            return "failed"
        return "answered"

    async def all_calls() -> list[str]:
        return await asyncio.gather(*[call(number) for number in range(120)])

    try:
        heard = Counter(asyncio.run(all_calls()))
        eventually(lambda: duck.status().calls == 0)
        telemetry.flush()
    finally:
        telemetry.detach("test")
    assert heard.total() == 120
    assert told["start"] == told["stop"] + told["exception"]
    assert told["stop"] >= heard["answered"] > 0
    queue = duck.status().queue
    ended = queue.processed + queue.failed + queue.expired + queue.cancelled + queue.evicted + queue.infeasible
    assert (queue.enqueued, queue.in_process, sum(queue.depth.values())) == (ended, 0, 0)
    limiter = duck.status().providers["mock"].limiter
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


def test_attempts_that_were_never_sent_earn_a_route_no_repeats(start_duck: StartDuck, eventually: Any) -> None:
    """Forty calls asked at once for the one probe of a circuit, and thirty-nine that were refused earned eight."""
    duck = duck_of(
        start_duck,
        [{"error": "server_error"}, {**HELLO, "delay": 0.3}],
        circuit_breaker={"failure_threshold": 1, "reset_timeout": "20ms"},
    )
    with pytest.raises(RubberDuckError):
        duck.complete(REQUEST)
    eventually(lambda: duck.status().providers["mock0"].state == "half_open")

    async def all_calls() -> list[Any]:
        calls = [duck.acomplete(REQUEST, timeout=0.2) for _ in range(40)]
        return await asyncio.gather(*calls, return_exceptions=True)

    failures = asyncio.run(all_calls())
    legs = [leg for error in failures for leg in error.trace.legs]
    sent = len(duck.provider("mock0").calls)
    assert len(legs) > 20
    assert sent <= 2
    budget = duck._board.desks["mock0"].budget_of("any")
    now = time.monotonic()
    assert sum(budget.spend(now) for _ in range(40)) == 3
