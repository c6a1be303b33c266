"""What telemetry tells of calls that were not taken, and of answers that were kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests_system_rig import HELLO, REQUEST, StartDuck

from rubberduck import telemetry
from rubberduck.errors import QueueFull
from rubberduck.telemetry import names

Told = list[tuple[Any, Any]]
WATCHED = (names.QUEUE_REJECTED, names.CACHE_HIT, names.CACHE_MISS)


@pytest.fixture
def told() -> Iterator[Told]:
    heard: Told = []
    telemetry.attach("watch", WATCHED, lambda event, _, metadata, __: heard.append((event, metadata)), inline=True)
    yield heard
    telemetry.detach("watch")


def test_a_hit_and_a_miss_of_the_cache_are_told(start_duck: StartDuck, told: Told) -> None:
    duck = start_duck(cache={"ttl": "5m"})
    asked = [duck.complete(REQUEST), duck.complete(REQUEST)]
    assert [event for event, _ in told] == [names.CACHE_MISS, names.CACHE_HIT]
    assert [metadata["request_id"] for _, metadata in told] == [each.request_id for each in asked]


def test_a_full_queue_is_told_with_its_reason(start_duck: StartDuck, told: Told, eventually: Any) -> None:
    slow = {"mock": {"module": "mock", "responses": [{**HELLO, "delay": "30s"}]}}
    duck = start_duck(slow, max_queue_size=1, rate_limits={"mock": {"max_concurrency": 1}})
    first = duck.service.ask({"complete": REQUEST}, block=False)
    eventually(lambda: duck.provider("mock").calls)
    second = duck.service.ask({"complete": REQUEST}, block=False)
    eventually(lambda: duck.status().queue.depth["normal"] == 1)
    with pytest.raises(QueueFull):
        duck.complete(REQUEST)
    assert [(event, metadata["reason"]) for event, metadata in told] == [(names.QUEUE_REJECTED, "full")]
    for future in (first, second):
        future.abandon()
