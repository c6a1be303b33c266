"""What the tests of running trees share: systems that are stopped again, a clock, actors that obey."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import supervision as sup
from supervision.hosting.scheduler import default_scheduler
from supervision.testing import ManualClock

sys.path.insert(0, str(Path(__file__).parent))

from tree_rig import HOSTS, Boom, raising


@pytest.fixture(autouse=True, scope="session")
def the_default_scheduler() -> None:
    """It serves all actors outside any tree for as long as the interpreter runs: no test leaves it behind."""
    default_scheduler()


@pytest.fixture
def make_system() -> Iterator[Callable[..., sup.System]]:
    """Systems that are stopped after the test; their audit must be clean before."""
    systems: list[sup.System] = []

    def make(**options: Any) -> sup.System:
        systems.append(sup.System(f"test{len(systems)}", **{"kill_grace": 0.05, **options}))
        return systems[-1]

    yield make
    for system in systems:
        assert system.audit() == []
        system.stop(60)


@pytest.fixture
def system(make_system: Callable[..., sup.System]) -> sup.System:
    return make_system()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def timed(make_system: Callable[..., sup.System], clock: ManualClock) -> sup.System:
    """A system whose time stands still until the test moves it."""
    return make_system(clock=clock)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What blocks code until the test opens it; open at the end in any case, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def entered() -> threading.Event:
    """What a handler sets to say that it has been entered."""
    return threading.Event()


@pytest.fixture
def events() -> list[sup.Event]:
    """Where a system that a test watches leaves its events."""
    return []


@pytest.fixture(params=sorted(HOSTS))
def obedient(request: pytest.FixtureRequest) -> Any:
    """Obedient actors on either host."""
    return HOSTS[request.param]


@pytest.fixture
def crash() -> Callable[[Any], Any]:
    """A message that makes an Obedient actor crash."""

    return raising(Boom("boom"))


@pytest.fixture
def on_a_loop() -> Iterator[Callable[[Any], Any]]:
    """Runs a coroutine on an event loop of the test's own."""
    with asyncio.Runner() as runner:
        yield runner.run
