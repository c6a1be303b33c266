"""What a call leaves in memory once it has been answered."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests_system_rig import REQUEST, StartDuck

from rubberduck.actors.attempts import AttemptRun
from rubberduck.actors.call import Call
from rubberduck.actors.wire import Exchange


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def count_left() -> int:
    return sum(isinstance(each, Call | AttemptRun | Exchange) for each in gc.get_objects())


@pytest.mark.usefixtures("no_collector")
def test_an_answered_call_is_forgotten_without_the_garbage_collector(
    start_duck: StartDuck, eventually: Callable[[Callable[[], Any]], Any]
) -> None:
    """Each call was a circle of 23 objects, which kept its prompt in memory until the collector came by."""
    duck = start_duck()
    for _ in range(3):
        duck.complete(REQUEST)
        with duck.stream(REQUEST) as stream:
            assert "".join(chunk.delta.content for chunk in stream)
    assert eventually(lambda: count_left() == 0)
