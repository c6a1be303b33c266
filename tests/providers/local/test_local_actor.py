"""The engine under supervision: whatever ends it, it comes back, and nothing is left when the tree stops."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest

import supervision as sup
from rubberduck.providers.local.actor import LocalEngineActor
from rubberduck.providers.local.process import EngineSettings
from rubberduck.providers.local.whereabouts import Engine

Story = Callable[[str], EngineSettings]
Eventually = Callable[..., object]


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def system() -> Iterator[sup.System]:
    with sup.System("engines") as system:
        yield system


def supervised(system: sup.System, engine: Engine) -> None:
    system.supervise(sup.ChildSpec("engine", LocalEngineActor, args=(engine,)))


def located(engine: Engine) -> str:
    return asyncio.run(engine.endpoint(60)).base_url


def test_engine_is_ready_when_its_supervisor_is(system: sup.System, fake_engine: Story) -> None:
    engine = Engine(fake_engine("good"))
    supervised(system, engine)
    assert asyncio.run(engine.endpoint(0)).key


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_engine_that_dies_comes_back_elsewhere(
    system: sup.System, fake_engine: Story, death: signal.Signals, eventually: Eventually
) -> None:
    engine = Engine(fake_engine("good"))
    supervised(system, engine)
    first, pid = located(engine), engine.pid
    assert pid
    os.kill(pid, death)
    eventually(lambda: engine.pid != pid and located(engine) != first)
    eventually(lambda: is_gone(pid))


def test_killed_actor_leaves_no_second_engine(system: sup.System, fake_engine: Story, eventually: Eventually) -> None:
    engine = Engine(fake_engine("good"))
    supervised(system, engine)
    pid = engine.pid
    assert pid
    system.kill(system.whereis("engine"))
    eventually(lambda: engine.pid != pid)
    located(engine)
    eventually(lambda: is_gone(pid))


def test_stopping_the_tree_ends_the_engine(fake_engine: Story, eventually: Eventually) -> None:
    engine = Engine(fake_engine("good"))
    with sup.System("engines") as system:
        supervised(system, engine)
    pid = engine.pid
    assert pid
    eventually(lambda: is_gone(pid))


def test_engine_that_cannot_load_fails_the_start_with_its_words(system: sup.System, fake_engine: Story) -> None:
    with pytest.raises(sup.StartFailedError, match="it is broken"):
        supervised(system, Engine(fake_engine("refuse")))


@pytest.mark.local_model
def test_real_engine_comes_back_after_a_kill(
    system: sup.System, real_engine: EngineSettings, eventually: Eventually
) -> None:
    engine = Engine(real_engine)
    supervised(system, engine)
    first, pid = located(engine), engine.pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: engine.pid != pid and located(engine) != first)
