"""What a whole request is counted for: exactly where the framing is published, closely and marked elsewhere."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import Any

import pytest

from rubberduck import request_tokens, tokens
from rubberduck.tokens import Count, count, count_messages, count_request
from rubberduck.types import Request

HELLO = {"role": "user", "content": "hello world"}
WEATHER = {
    "name": "weather",
    "description": "Tell the weather",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where"},
            "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["city"],
    },
}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    patch = pytest.MonkeyPatch()
    patch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    patch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path_factory.mktemp("tiktoken")))
    yield
    patch.undo()


def counted(*messages: Any, model: str = "gpt-4o", **options: Any) -> Count:
    return count_request(Request.parse({"model": model, "messages": [*messages], **options}))


def media(*parts: Any, model: str = "gpt-4o") -> int:
    """What parts cost beside an empty message."""
    own = counted({"role": "user", "content": [*parts]}, model=model)
    assert own.estimated
    return own.tokens - counted({"role": "user", "content": ""}, model=model).tokens


def picture(url: str = "https://example.com/duck.png", **detail: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def png(width: int, height: int) -> str:
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + b"\x08\x02\x00\x00\x00"
    return "data:image/png;base64," + base64.b64encode(head).decode()


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4o-mini", "gpt-4", "gpt-4-turbo", "gpt-3.5-turbo", "openai/gpt-4o"])
def test_a_plain_conversation_is_counted_exactly(model: str) -> None:
    """3 for each message, 1 for its role, 1 for a name, 3 for the answer; the words beside."""
    assert counted(HELLO, model=model) == Count(3 + 1 + 2 + 3, estimated=False)
    named = HELLO | {"name": "ann"}
    told = {"role": "system", "content": [{"type": "text", "text": "hello world"}]}
    assert counted(told, HELLO, named, model=model) == Count(3 + 6 + 6 + 6 + 1 + 1, estimated=False)
    assert count_messages(Request.parse({"model": model, "messages": [HELLO]})) == 9


@pytest.mark.parametrize(
    "model", ["gpt-4.1", "o3-mini", "gpt-5", "claude-sonnet-4-5", "llama3", "gpt-4o-audio-preview"]
)
def test_what_nobody_has_published_is_an_estimate(model: str) -> None:
    own = counted(HELLO, model=model)
    assert own.estimated
    assert own.tokens in (8, 9)


def test_anything_but_plain_text_makes_it_an_estimate() -> None:
    call = {"id": "1", "function": {"name": "weather", "arguments": "{}"}}
    for odd in (
        counted(HELLO, tools=[{"function": WEATHER}]),
        counted(HELLO, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}),
        counted(HELLO, {"role": "assistant", "tool_calls": [call]}),
        counted(HELLO, {"role": "tool", "tool_call_id": "1", "content": "sunny"}),
        counted({"role": "developer", "content": "hello world"}),
        counted({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
    ):
        assert odd.estimated
        assert odd.tokens >= 9
    assert not counted(HELLO, response_format={"type": "text"}, temperature=1).estimated


def test_functions_cost_what_their_types_cost() -> None:
    bare = counted(HELLO).tokens
    one = counted(HELLO, tools=[{"function": WEATHER}]).tokens - bare
    two = counted(HELLO, tools=[{"function": WEATHER}, {"function": WEATHER}]).tokens - bare
    assert 40 < one < 60
    assert one < two < 2 * one
    assert counted(HELLO, tools=[{"function": WEATHER}], tool_choice="none").tokens == bare + one + 1
    named = {"type": "function", "function": {"name": "weather"}}
    assert counted(HELLO, tools=[{"function": WEATHER}], tool_choice=named).tokens == bare + one + 4 + 1
    system = {"role": "system", "content": "hello world"}
    with_system = counted(system, tools=[{"function": WEATHER}]).tokens - counted(system).tokens
    assert with_system == one - 4


def test_a_custom_tool_costs_its_name_its_description_and_its_grammar() -> None:
    bare = counted(HELLO).tokens
    tool = {"type": "custom", "custom": {"name": "sql", "description": "Runs it"}}
    grammar = {"type": "grammar", "grammar": {"syntax": "lark", "definition": "start: WORD " * 50}}
    plain = counted(HELLO, tools=[tool]).tokens
    assert bare + 8 < plain < bare + 20
    bound = {"type": "custom", "custom": {**tool["custom"], "format": grammar}}  # type: ignore[dict-item]
    assert counted(HELLO, tools=[bound]).tokens > plain + 150


def test_a_schema_costs_what_it_is_as_json() -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    asked = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    written = json.dumps(schema, separators=(",", ":"))
    assert counted(HELLO, response_format=asked).tokens == 9 + count(written, "gpt-4o")
    for odd in ({"json_schema": "what"}, {"json_schema": {}}, {"type": "json_object"}):
        assert counted(HELLO, response_format=odd).tokens < 15


def test_calls_and_their_results_are_counted() -> None:
    def call(city: str) -> dict[str, Any]:
        return {"id": city, "function": {"name": "weather", "arguments": json.dumps({"city": city})}}

    one = counted(HELLO, {"role": "assistant", "tool_calls": [call("Rome")]}).tokens
    two = counted(HELLO, {"role": "assistant", "tool_calls": [call("Rome"), call("Bern")]}).tokens
    assert 9 + 4 + 7 < one < 9 + 4 + 15
    assert one + 10 < two < one + 40  # they are wrapped into one
    legacy = {"role": "assistant", "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    assert counted(HELLO, legacy).tokens == one


@pytest.mark.parametrize(
    ("model", "size", "detail", "expected"),
    [
        ("gpt-4o", (1024, 1024), "high", 765),
        ("gpt-4o", (2048, 4096), "high", 1105),
        ("gpt-4o", (4096, 8192), "low", 85),
        ("gpt-4o", (100, 100), None, 255),
        ("gpt-4.1", (1024, 1024), "auto", 765),
        ("gpt-4o-mini", (1024, 1024), "high", 2833 + 4 * 5667),
        ("gpt-4o-mini", (1024, 1024), "low", 2833),
        ("o1", (1024, 1024), "high", 75 + 4 * 150),
        ("gpt-5", (1024, 1024), "high", 70 + 4 * 140),
        ("gpt-4.1-mini", (1024, 1024), None, 1659),  # 1024 patches, 1.62 tokens each
        ("gpt-4.1-mini", (1800, 2400), None, 2353),  # made smaller until 1452 patches are left
        ("gpt-4.1-nano", (320, 320), None, 246),
        ("o4-mini", (32, 32), None, 2),
        ("gpt-5-mini", (512, 512), None, 308),
        ("gpt-5-mini", (2048, 768), "low", 1844),
        ("gpt-5.4", (3200, 3200), "original", 12_000),
        ("claude-sonnet-4-5", (1000, 750), None, 1000),
        ("claude-sonnet-4-5", (8000, 8000), None, 1600),
        ("claude-opus-4-8", (8000, 8000), None, 4784),
        ("llava", (1024, 1024), None, 765),
    ],
)
def test_an_image_costs_what_its_vendor_says(
    model: str, size: tuple[int, int], detail: str | None, expected: int
) -> None:
    chosen = {} if detail is None else {"detail": detail}
    assert media(picture(png(*size), **chosen), model=model) == expected


def test_an_image_of_unknown_size_is_taken_for_a_square_of_1024() -> None:
    assert media(picture()) == 765
    assert media(picture("data:image/png;base64,AAAA")) == 765
    assert media(picture("data:image/png;base64,A")) == 765
    assert media(picture(), picture(detail="low")) == 765 + 85


def test_recordings_and_documents_are_guessed_from_their_size() -> None:
    def file(**where: str) -> int:
        return media({"type": "file", "file": where})

    second = base64.b64encode(bytes(48_000)).decode()
    assert media({"type": "input_audio", "input_audio": {"data": second, "format": "wav"}}) == 10
    assert media({"type": "input_audio", "input_audio": {"data": second, "format": "mp3"}}) == 30
    assert media({"type": "input_audio", "input_audio": {"data": "", "format": "mp3"}}) == 1500
    pdf = base64.b64encode(bytes(30_000)).decode()
    assert file(file_data=f"data:application/pdf;base64,{pdf}") == pytest.approx(2000, rel=0.01)
    assert file(file_data=f"data:text/plain;base64,{pdf}") == pytest.approx(7500, rel=0.01)
    assert file(file_id="file-1") == file(file_url="https://example.com/a.pdf") == 3000


def test_a_long_conversation_is_counted_in_reasonable_time() -> None:
    request = Request.parse({"model": "gpt-4o", "messages": [{"role": "user", "content": "hello " * 50}] * 500})
    tokens.preload("gpt-4o")
    start = time.thread_time()
    assert count_messages(request) > 500 * 50
    assert time.thread_time() - start < 2


def test_beyond_so_many_characters_the_rest_is_measured_by_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The quick brown fox jumps over the lazy dog, again; and 12 more. " * 20
    whole = counted(*[{"role": "user", "content": text}] * 40)
    monkeypatch.setattr(request_tokens, "MAX_COUNTED", 5 * len(text))
    part = counted(*[{"role": "user", "content": text}] * 40)
    assert (whole.estimated, part.estimated) == (False, True)
    assert part.tokens == pytest.approx(whole.tokens, rel=0.001)


def test_the_largest_request_does_not_hold_the_thread() -> None:
    """32 million characters of many texts, each of them short enough to be read."""
    messages = [{"role": "user", "content": "hello world, and good night. " * 7000}] * 150
    request = Request.parse({"model": "gpt-4o", "messages": messages})
    tokens.preload("gpt-4o")
    start = time.thread_time()
    assert count_request(request).tokens > 5_000_000
    assert time.thread_time() - start < 2
