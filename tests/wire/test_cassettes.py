"""Recorded exchanges, replayed over a real socket through the adapter that fits the path of the request.

The recordings are not part of this project. They are looked for in $RUBBERDUCK_CASSETTES, then beside the
repository in shared/cassettes. Nothing here knows a file by its name.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.errors import RubberDuckError, StreamInterrupted
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import Chunk, FinishReason, Request, Response

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "cassettes"
FOLDER = Path(os.environ.get("RUBBERDUCK_CASSETTES") or BESIDE)
ADAPTERS = {"/chat/completions": "openai", "/v1/messages": "anthropic"}

FINISH = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "length": "length", "tool_calls": "tool_calls",
    "function_call": "tool_calls", "content_filter": "content_filter",
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "model_context_window_exceeded": "length", "refusal": "content_filter", "pause_turn": "pause",
}  # fmt: skip

CLASSES = {
    "BadRequestError": errors.InvalidRequest,
    "ContentTooLargeError": errors.InvalidRequest,
    "UnprocessableEntityError": errors.InvalidRequest,
    "AuthenticationError": errors.AuthenticationFailed,
    "PermissionDeniedError": errors.AuthenticationFailed,
    "NotFoundError": errors.ModelNotFound,
    "RateLimitError": errors.RateLimited,
    "InternalServerError": errors.ServiceUnavailable,
    "OverloadedError": errors.Overloaded,
}
TYPES = {
    "protocol_error": errors.ProtocolError,
    "incomplete_stream": errors.StreamInterrupted,
    "overloaded_error": errors.Overloaded,
    "invalid_request_error": errors.InvalidRequest,
}


class Cassette:
    def __init__(self, name: str, said: dict[str, Any], expected: dict[str, Any]) -> None:
        self.name = name
        self.asked: dict[str, Any] = said["request"].get("json") or {}
        self.path: str = said["request"]["path"].partition("?")[0]
        self.module = next((module for ending, module in ADAPTERS.items() if self.path.endswith(ending)), None)
        self.status: int = said["response"]["status"]
        self.headers: dict[str, str] = said["response"]["headers"]
        self.body: bytes = said["response"]["body"].encode()
        self.expected = expected
        self.streams = bool(self.asked.get("stream"))

    def __repr__(self) -> str:
        return self.name

    def provider(self, base_url: str = "http://127.0.0.1") -> HTTPProvider:
        assert self.module
        config = ProviderConfig(name="vendor", module=self.module, base_url=base_url, api_keys=("test-key",))
        provider = resolve(self.module).init(config)
        assert isinstance(provider, HTTPProvider)
        return provider

    @property
    def request(self) -> Request:
        return Request.parse({"model": self.asked["model"], "messages": [{"role": "user", "content": "Hi"}]})


def found() -> list[Cassette]:
    if not (FOLDER / "ORACLE.json").is_file():
        return []
    oracle = json.loads((FOLDER / "ORACLE.json").read_text())
    cassettes = []
    for file in sorted(FOLDER.glob("*/*.json")):
        name = file.relative_to(FOLDER).with_suffix("").as_posix()
        expected = oracle["files"][name] | oracle["overrides"].get(name, {})
        cassettes.append(Cassette(name, json.loads(file.read_text()), expected))
    return [cassette for cassette in cassettes if cassette.module]


CASSETTES = found()
WHOLE_STREAMS = [c for c in CASSETTES if c.streams and c.status == 200 and not c.expected["error"]]
pytestmark = pytest.mark.skipif(
    not CASSETTES, reason=f"cassettes: none found in {FOLDER.name}; set RUBBERDUCK_CASSETTES"
)


def each(cassettes: list[Cassette]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("cassette", cassettes or [None], ids=repr)


async def collect(provider: HTTPProvider, request: Request, into: Assembly) -> None:
    async for chunk in provider.stream(request):
        into.add(chunk)


async def replay(cassette: Cassette, serve: Any, answer: Any, size: int | None) -> Response | RubberDuckError:
    async with serve(answer(cassette.status, cassette.headers, cassette.body, size)) as url:
        provider = cassette.provider(url + cassette.path.removesuffix("/v1/messages").removesuffix("/chat/completions"))
        try:
            if not cassette.streams:
                return await provider.complete(cassette.request)
            so_far = Assembly()
            await collect(provider, cassette.request, so_far)
            return so_far.response()
        except RubberDuckError as error:
            return error
        finally:
            await provider.aclose()


@pytest.mark.parametrize("size", [1, 3, None], ids=["bytewise", "by-threes", "whole"])
@each(CASSETTES)
def test_a_recorded_answer_means_what_the_vendors_sdk_says(
    cassette: Cassette, size: int | None, serve: Any, answer: Any
) -> None:
    got = asyncio.run(asyncio.wait_for(replay(cassette, serve, answer, size), 30))
    if cassette.expected["error"]:
        check_error(got, cassette)
    else:
        assert isinstance(got, Response), got
        check_answer(got, cassette.expected)


def check_error(got: Any, cassette: Cassette) -> None:
    expected = cassette.expected["error"]
    wanted = CLASSES.get(expected.get("class", "")) or TYPES[expected["type"]]
    assert isinstance(got, wanted), got
    assert got.provider == "vendor"
    assert got.model == cassette.asked["model"]
    assert got.status == cassette.status
    if "class" in expected:
        assert got.type == expected["type"]
        assert got.code == expected.get("code")


def check_answer(got: Response, expected: dict[str, Any]) -> None:
    choices = expected.get("choices") or [expected]
    assert len(got.choices) == len(choices)
    for choice, wanted in zip(got.choices, choices, strict=True):
        message = choice.message
        assert message.text == wanted["text"]
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
        assert calls == [(call["name"], call["arguments"]) for call in wanted["tool_calls"]]
        assert all(call.id for call in message.tool_calls)
        assert choice.finish_reason == FinishReason(FINISH.get(wanted["finish_reason"], "unknown"))
        assert (message.reasoning or "") == wanted.get("reasoning_text", "")
        assert message.refusal == wanted.get("refusal")
    check_usage(got, expected["usage"])


def check_usage(got: Response, expected: dict[str, Any] | None) -> None:
    if expected is None:
        assert got.usage.estimated
        return
    assert not got.usage.estimated
    assert got.usage.prompt_tokens == expected.get("input_total", expected["input"])
    assert got.usage.completion_tokens == expected["output"]
    assert got.usage.cached_tokens == expected["cached"]
    assert got.usage.reasoning_tokens == expected["reasoning"]
    if "cache_write" in expected:
        assert got.usage.cache_write_tokens == expected["cache_write"]


def read(provider: HTTPProvider, body: bytes, size: int) -> tuple[list[Chunk], RubberDuckError | None]:
    decoder = provider.stream_decoder()
    chunks: list[Chunk] = []
    try:
        for at in range(0, len(body), size):
            chunks += decoder.feed(body[at : at + size])
        chunks += decoder.end()
    except RubberDuckError as error:
        return chunks, error
    return chunks, None


@each([c for c in CASSETTES if c.streams and c.status == 200])
def test_where_a_stream_is_split_makes_no_difference(cassette: Cassette) -> None:
    provider = cassette.provider()
    chunks, error = read(provider, cassette.body, len(cassette.body))
    for size in (1, 3, 7):
        again, other = read(provider, cassette.body, size)
        assert again == chunks
        assert str(other) == str(error)
        assert type(other) is type(error)


def ends_of(cassette: Cassette) -> int:
    """Where the stream first holds all that makes it whole, found by reading the text and not by our decoder."""
    text = cassette.body.decode()
    if cassette.module == "anthropic":
        found = re.search(r'\{"type": ?"message_stop"\s*\}', text)
        assert found
        return len(text[: found.end()].encode())
    lines = [(line.end(), line.group(1)) for line in re.finditer(r"^data: ?(.+?)\r?$", text, re.MULTILINE)]
    seen: set[int] = set()
    finished: set[int] = set()
    for end, data in lines:
        choices = [] if data == "[DONE]" else json.loads(data)["choices"]
        seen |= {choice["index"] for choice in choices}
        finished |= {choice["index"] for choice in choices if choice.get("finish_reason")}
        if data == "[DONE]" or (seen and finished == seen):
            return len(text[:end].encode()) - text[:end].endswith("\r")
    raise AssertionError("no end")


@each(WHOLE_STREAMS)
def test_a_stream_cut_before_its_end_is_never_a_clean_short_answer(cassette: Cassette) -> None:
    """At each of many bytes: all of the last few hundred before the end, and samples before those."""
    provider, end = cassette.provider(), ends_of(cassette)
    step = max(1, end // 25)
    for cut in sorted({*range(0, end, step), *range(max(0, end - 60), end)}):
        chunks, error = read(provider, cassette.body[:cut], 4096)
        assert isinstance(error, StreamInterrupted), (cut, chunks[-1:], error)
    chunks, error = read(provider, cassette.body[:end], 4096)
    assert error is None
    assert chunks[-1].finish_reason or chunks[-1].usage


@each(WHOLE_STREAMS)
def test_a_connection_lost_before_the_end_says_what_had_come(cassette: Cassette, serve: Any, answer: Any) -> None:
    async def story() -> None:
        middle = ends_of(cassette) * 2 // 3
        cut = answer(200, cassette.headers, cassette.body[:middle], whole=False)
        so_far = Assembly()
        async with serve(cut) as url:
            provider = cassette.provider(url)
            with pytest.raises(RubberDuckError) as caught:
                await collect(provider, cassette.request, so_far)
            await provider.aclose()
        if so_far.has_output:
            assert isinstance(caught.value, StreamInterrupted)
            assert caught.value.text == so_far.text
        assert caught.value.spent is None

    asyncio.run(asyncio.wait_for(story(), 30))


@each([c for c in CASSETTES if not c.streams and c.status == 200 and not c.expected["error"]])
def test_an_answer_cut_in_its_json_is_a_protocol_error(cassette: Cassette) -> None:
    provider = cassette.provider()
    for cut in range(0, len(cassette.body.rstrip()) - 1, max(1, len(cassette.body) // 20)):
        with pytest.raises(errors.ProtocolError):
            provider.decode(200, httpx.Headers(cassette.headers), cassette.body[:cut])


def request_of(asked: dict[str, Any]) -> dict[str, Any]:
    """A recorded request in our fields; what only some vendor knows goes into `extra`."""
    known = Request.model_fields.keys() | {"functions"}
    ours = {name: value for name, value in asked.items() if name in known and value is not None}
    if "max_completion_tokens" in asked:
        ours["max_tokens"] = asked["max_completion_tokens"]
    foreign = asked.keys() - known - {"stream_options", "max_completion_tokens"}
    return ours | {"extra": {name: asked[name] for name in foreign if asked[name] is not None}}


def plain(body: dict[str, Any]) -> dict[str, Any]:
    """A request without what makes no difference: defaults, empty lists, and a null beside tool calls."""
    tools = [*body.pop("tools", []), *({"type": "function", "function": f} for f in body.pop("functions", []))]
    messages = [{k: v for k, v in message.items() if v is not None} for message in body.pop("messages")]
    limit = body.pop("max_tokens", None) or body.pop("max_completion_tokens", None)
    rest = {name: body[name] for name in body.keys() - {"stream", "stream_options"} if body[name] is not None}
    if rest.get("n") == 1:
        del rest["n"]
    return rest | {"tools": tools, "messages": messages, "limit": limit}


def has_audio(cassette: Cassette) -> bool:
    """Audio has no place in our requests."""
    return "input_audio" in json.dumps(cassette.asked["messages"])


@each([c for c in CASSETTES if c.module == "openai" and not has_audio(c)])
def test_a_recorded_request_can_be_asked_through_us(cassette: Cassette) -> None:
    body = cassette.provider().encode(Request.parse(request_of(cassette.asked)))[2]
    recorded = json.loads(json.dumps(cassette.asked))
    for message in recorded["messages"]:
        message["role"] = message["role"].replace("developer", "system")
    assert plain(body) == plain(recorded)
