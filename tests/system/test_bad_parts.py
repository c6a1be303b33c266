"""Objects within a request that were made without a check: each wrong field of each of them is refused at the door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests_system_rig import HELLO, StartDuck

from rubberduck.errors import InvalidRequest
from rubberduck.types import Request

CACHED = {"type": "ephemeral", "ttl": "5m"}
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "name": "me",
        "content": [
            {"type": "text", "text": "What is this?", "cache_control": CACHED},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERg==", "filename": "a.pdf"}},
        ],
    },
    {
        "role": "assistant",
        "content": "I look.",
        "reasoning": "Hm.",
        "refusal": None,
        "tool_calls": [{"id": "call_1", "function": {"name": "look", "arguments": "{}"}}],
        "annotations": [{"type": "url_citation", "url": "https://example.com", "raw": {"a": 1}}],
        "audio": {"id": "audio_1", "transcript": "I look."},
        "native": {"format": "anthropic", "model": "m", "items": [{"type": "text", "text": "I look."}]},
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "A duck."},
    {"role": "user", "content": "And now?"},
]
WHOLE: dict[str, Any] = {
    "model": "any",
    "messages": TURNS,
    "max_tokens": 20,
    "tools": [
        {"function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": True}},
        {"type": "custom", "custom": {"name": "write", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "look"}},
    "cache_control": CACHED,
    "metadata": {"a": "b"},
}


class Odd:
    """Nothing that anybody has heard of; it fails whoever looks closer."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"do not ask me for {name}")

    def __iter__(self) -> Iterator[Any]:
        raise RuntimeError("do not go through me")


JUNK = (None, Odd(), 5, "junk", "\ud800", b"\xff", [], {}, [Odd()], {"a": Odd()}, float("nan"), int)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all fields of all objects within a request."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            if path:
                yield (*path, name)
            yield from places(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def changed(value: Any, path: tuple[Any, ...], junk: Any) -> Any:
    """The same with junk in one place, made as nobody checks it."""
    if not path:
        return junk
    step, *rest = path
    if isinstance(step, int):
        return (*value[:step], changed(value[step], tuple(rest), junk), *value[step + 1 :])
    fields = dict(value.__dict__) | {step: changed(getattr(value, step), tuple(rest), junk)}
    return type(value).model_construct(**fields)


def spoilt() -> Iterator[tuple[str, Request]]:
    whole = Request.parse(WHOLE)
    for path in places(whole):
        for junk in JUNK:
            yield f"{'.'.join(map(str, path))} = {type(junk).__name__}", changed(whole, path, junk)


def test_whatever_is_wrong_within_a_request_is_refused_with_its_place(start_duck: StartDuck) -> None:
    """Through the door of a whole duck that looks closely: it compares, keeps, counts and bounds what is asked."""
    duck = start_duck(
        {"mock": {"module": "mock", "responses": [HELLO]}},
        cache={},
        single_flight=True,
        budgets={"all": {"limit": 5}},
        prices={"any": {"input": 1, "output": 1}},
        rate_limits={"mock": {"input_tokens_per_min": 10**9}},
    )
    refused, answered = {}, 0
    for what, request in spoilt():
        try:
            duck.complete(request)
            answered += 1
        except InvalidRequest as error:
            refused[what] = error.field
    assert [what for what, field in refused.items() if not field] == []
    assert len(refused) > 900
    assert answered > 100
    assert duck.complete(WHOLE).text == "hello there"
    assert duck.system.audit() == []


def test_what_is_let_in_can_be_written_or_is_refused_by_the_one_who_cannot(start_duck: StartDuck) -> None:
    """An encoder that meets what it does not know says so; it does not crash over it."""
    languages = ("openai", "openai_responses", "anthropic", "ollama", "gemini")
    duck = start_duck({name: {"module": name, "api_key": "k", "models": ["any"]} for name in languages})
    let_in = [(what, request) for what, request in map(checked, *zip(*spoilt(), strict=True)) if request is not None]
    assert len(let_in) > 100
    for name in languages:
        provider = duck.provider(name)
        for what, request in let_in:
            try:
                provider.encode(request)
                provider.warnings(request)
            except InvalidRequest:
                pass
            except Exception as error:  # noqa: BLE001
                pytest.fail(f"{name} failed over {what}: {error!r}")


def checked(what: str, request: Request) -> tuple[str, Request | None]:
    try:
        return what, Request.parse(request)
    except InvalidRequest:
        return what, None
