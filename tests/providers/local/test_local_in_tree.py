"""The local provider in the whole runtime: calls outlive the engine that they came for."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rubberduck import RubberDuck
from rubberduck.errors import RubberDuckError
from rubberduck.providers.local import model as local_model
from rubberduck.providers.local import provider as local_provider
from rubberduck.providers.local.process import EngineSettings
from rubberduck.providers.local.provider import LocalProvider
from rubberduck.providers.local.whereabouts import Engine

Story = Callable[[str], EngineSettings]
Eventually = Callable[..., object]


@pytest.fixture
def duck(fake_engine: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RubberDuck]:
    monkeypatch.setattr(local_model, "has_engine", lambda: True)
    monkeypatch.setattr(local_provider, "PATIENCE_S", 60.0)
    model = tmp_path / "tiny.gguf"
    model.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + bytes(2000))
    config = {
        "providers": {"local": {"module": "local", "model_path": str(model)}},
        "retry": {"max_attempts": 1},
        "ledger": {"path": str(tmp_path / "ledger.sqlite")},
    }
    with RubberDuck.start(config) as duck:
        yield duck


def ask(duck: RubberDuck, text: str = "hello") -> Any:
    return duck.complete({"model": "tiny", "messages": [{"role": "user", "content": text}]}, timeout=60)


def engine_of(duck: RubberDuck) -> Engine:
    provider = duck.provider("local")
    assert isinstance(provider, LocalProvider)
    assert provider.engine
    return provider.engine


def engine_pid(duck: RubberDuck) -> int:
    pid = engine_of(duck).pid
    assert pid
    return pid


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or a zombie that waits to be asked for; until then its port may be open."""
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return not status or status.startswith("Z")


def test_engine_that_was_killed_is_replaced_before_the_next_answer(duck: RubberDuck, eventually: Eventually) -> None:
    first = engine_pid(duck)
    assert ask(duck).usage.cost == 0
    os.kill(first, signal.SIGKILL)
    eventually(lambda: has_ended(first))
    assert ask(duck).usage.completion_tokens == 5
    assert engine_pid(duck) != first


def test_engine_that_dies_in_a_call_fails_that_call_alone(duck: RubberDuck, eventually: Eventually) -> None:
    first = engine_pid(duck)
    with pytest.raises(RubberDuckError):
        ask(duck, "die")
    eventually(lambda: has_ended(first))
    assert ask(duck).usage.completion_tokens == 5


def test_engine_has_a_name_in_the_tree(duck: RubberDuck) -> None:
    assert duck.actor("engine:local").is_alive()


def test_stopped_duck_leaves_no_engine(duck: RubberDuck, eventually: Eventually) -> None:
    pid = engine_pid(duck)
    assert duck.stop()
    eventually(lambda: has_ended(pid))
