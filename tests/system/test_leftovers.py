"""What a call leaves in memory once it has been answered."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests_system_rig import REQUEST, StartDuck

from rubberduck.actors.calls.attempts import AttemptRun
from rubberduck.actors.calls.call import Call
from rubberduck.actors.calls.wire import Exchange


@pytest.fixture
def old() -> Iterator[list[object]]:
    """What is there before the test, such as what the report of a failed test holds; then nobody collects garbage."""
    gc.collect()
    gc.disable()
    yield of_calls()
    gc.enable()


def of_calls() -> list[object]:
    return [each for each in gc.get_objects() if isinstance(each, Call | AttemptRun | Exchange)]


def test_an_answered_call_is_forgotten_without_the_garbage_collector(
    start_duck: StartDuck, eventually: Callable[[Callable[[], Any]], Any], old: list[object]
) -> None:
    """Each call was a circle of 23 objects, which kept its prompt in memory until the collector came by."""
    duck = start_duck()
    for _ in range(3):
        duck.complete(REQUEST)
        with duck.stream(REQUEST) as stream:
            assert "".join(chunk.delta.content for chunk in stream)
    assert eventually(lambda: len(of_calls()) == len(old))
