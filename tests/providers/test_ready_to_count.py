"""Counting tokens takes vocabularies, and loading them takes longer than an event loop may stand still."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rubberduck import tokens
from rubberduck.config import Config
from rubberduck.providers import resolve
from rubberduck.types import Request

REQUEST = Request.parse({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]})


@pytest.fixture
def loaded_in(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which a vocabulary was loaded, none having been before."""
    names: list[str] = []

    def load(name: str) -> Any:
        names.append(threading.current_thread().name)
        return lambda text: list(text)

    monkeypatch.setattr(tokens, "_encoders", {})
    monkeypatch.setattr(tokens, "_tiktoken", load)
    return names


def provider(config: dict[str, Any]) -> Any:
    own = Config.load({"providers": {"it": config}}).providers["it"]
    return resolve(own.module).init(own)


def test_the_mock_loads_its_vocabulary_in_a_thread(loaded_in: list[str]) -> None:
    """It did so on the loop: on a busy machine for 1.1 s, and the watchdog gave the whole scheduler up."""
    mock = provider({"module": "mock"})
    assert asyncio.run(mock.complete(REQUEST)).usage.prompt_tokens == 2
    assert len(loaded_in) == 1
    assert loaded_in != [threading.current_thread().name]


def test_a_stream_that_breaks_off_counts_with_what_a_thread_has_loaded(loaded_in: list[str]) -> None:
    scripted = {"content": "one two", "error": "cut", "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    mock = provider({"module": "mock", "responses": [scripted]})

    async def read() -> None:
        with pytest.raises(Exception, match="cut"):
            async for _ in mock.stream(REQUEST):
                pass

    asyncio.run(read())
    assert len(loaded_in) == 1
    assert loaded_in != [threading.current_thread().name]


def test_a_provider_that_counts_by_itself_loads_nothing(loaded_in: list[str]) -> None:
    mock = provider({"module": "mock"})
    mock.count_tokens = lambda text, model: 7
    assert asyncio.run(mock.complete(REQUEST)).usage.prompt_tokens == 7
    assert loaded_in == []
