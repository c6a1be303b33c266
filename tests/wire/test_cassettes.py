"""Recorded answers mean what the vendors' SDKs make of them, however they are cut, from memory and over a socket."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from tests_cassettes_rig import CASSETTES, Cassette, are_here, each, put_together, read

from rubberduck import errors
from rubberduck.errors import RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly
from rubberduck.types import Embeddings, FinishReason, Response, TokenCount

FINISH = {
    "stop": "stop", "eos": "stop", "eos_token": "stop", "length": "length", "tool_calls": "tool_calls",
    "function_call": "tool_calls", "content_filter": "content_filter",
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "model_context_window_exceeded": "length", "refusal": "content_filter", "pause_turn": "pause",
    "completed": "stop", "incomplete:max_output_tokens": "length", "incomplete:content_filter": "content_filter",
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
STATUSES = {404: errors.ModelNotFound, 200: errors.ServiceUnavailable}
"""For errors that are told of in words only."""
CODES = {"model_not_found": errors.ModelNotFound}
"""These say more than the status, by which the SDKs choose their classes."""

SIZES = ((1200, 1), (4000, 3))
"""Up to how many bytes a body comes over a socket in pieces of which size; of larger ones memory shows the same."""

ALL_WAYS = [(c, size) for c in CASSETTES for size in ((1, 3, None) if c.streams and c.status == 200 else (None,))]
"""What does not stream is read when it is there as a whole."""

Answer = Response | Embeddings | TokenCount
pytestmark = are_here


# --- how an answer is got


def from_memory(cassette: Cassette, size: int | None) -> Answer | RubberDuckError:
    provider = cassette.provider()
    try:
        if cassette.streams and cassette.status == 200:
            chunks, error = read(provider, cassette.body, size)
            return error or put_together(chunks).response()
        decode: Any = {"count": provider.decode_count, "embeddings": provider.decode_embedding}
        return decode.get(cassette.kind, provider.decode)(
            cassette.status, httpx.Headers(cassette.headers), cassette.body
        )
    except RubberDuckError as error:
        return error


async def over_a_socket(cassette: Cassette, serve: Any, answer: Any, size: int | None) -> Answer | RubberDuckError:
    async with serve(answer(cassette.status, cassette.headers, cassette.body, size)) as url:
        provider = cassette.provider(url + cassette.path.removesuffix(cassette.ending))
        try:
            if cassette.kind == "count":
                return await provider.count(cassette.request)
            if cassette.kind == "embeddings":
                return await provider.embed(cassette.texts)
            if not cassette.streams:
                return await provider.complete(cassette.request)
            so_far = Assembly()
            async for chunk in provider.stream(cassette.request):
                so_far.add(chunk)
            return so_far.response()
        except RubberDuckError as error:
            return error
        finally:
            await provider.aclose()


@pytest.mark.parametrize(("cassette", "size"), ALL_WAYS or [(None, None)], ids=lambda value: repr(value or "whole"))
def test_a_recorded_answer_means_what_the_vendors_sdk_says(cassette: Cassette, size: int | None) -> None:
    check(from_memory(cassette, size), cassette)


@each(CASSETTES)
def test_over_a_socket_it_means_the_same(cassette: Cassette, serve: Any, answer: Any) -> None:
    size = next((size for most, size in SIZES if len(cassette.body) <= most), None)
    got = asyncio.run(asyncio.wait_for(over_a_socket(cassette, serve, answer, size), 30))
    check(got, cassette)
    if isinstance(got, RubberDuckError):
        assert (got.provider, got.model) == ("vendor", cassette.asked["model"])


@each([c for c in CASSETTES if c.is_whole_stream and c.ending == "/chat/completions"])
def test_a_recorded_stream_keeps_what_it_says_beside_its_text(cassette: Cassette) -> None:
    events = [json.loads(line[6:]) for line in cassette.body.splitlines() if line.startswith(b"data: {")]
    got = from_memory(cassette, None)
    for name in ("created", "service_tier", "system_fingerprint"):
        told = {event[name] for event in events if event.get(name)}
        assert (getattr(got, name) or None) in (told or {None}), name


# --- what is expected of it


def check(got: Answer | RubberDuckError, cassette: Cassette) -> None:
    if cassette.expected["error"]:
        return check_error(got, cassette)
    assert not isinstance(got, RubberDuckError), got
    match got:
        case TokenCount():
            assert (got.tokens, got.estimated) == (cassette.expected["usage"]["input"], False)
        case Embeddings():
            check_vectors(got, cassette.expected)
        case Response():
            check_answer(got, cassette.expected)
    return None


def check_error(got: Any, cassette: Cassette) -> None:
    expected = cassette.expected["error"]
    assert isinstance(got, expected_class(cassette)), got
    assert got.provider == "vendor"
    assert got.status == cassette.status
    if "class" in expected:
        assert got.type == expected["type"]
        assert got.code in (expected.get("code"), code_beside(cassette))
    elif "message" in expected:
        assert expected["message"] in got.message


def code_beside(cassette: Cassette) -> str | None:
    """A code that stands beside the error and not in it, which the SDK does not read."""
    try:
        said = json.loads(cassette.body)
    except ValueError:
        return None
    return said.get("code") if isinstance(said, dict) else None


def expected_class(cassette: Cassette) -> type[RubberDuckError]:
    expected = cassette.expected["error"]
    if b"Incorrect API key" in cassette.body:
        return errors.AuthenticationFailed  # under whatever status: one server answers 400
    if expected.get("code") in CODES:
        return CODES[expected["code"]]
    wanted = CLASSES.get(expected.get("class", "")) or TYPES.get(expected["type"])
    return wanted or STATUSES[cassette.status]


def check_answer(got: Response, expected: dict[str, Any]) -> None:
    choices = expected.get("choices") or [expected]
    assert len(got.choices) == len(choices)
    for choice, wanted in zip(got.choices, choices, strict=True):
        message = choice.message
        assert message.text == wanted["text"]
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in message.tool_calls]
        assert calls == [(call["name"], call["arguments"]) for call in wanted["tool_calls"]]
        assert all(call.id for call in message.tool_calls)
        assert choice.finish_reason == expected_reason(wanted)
        assert (message.reasoning or "") == wanted.get("reasoning_text", "")
        assert message.refusal == wanted.get("refusal")
        assert choice.stop_sequence == wanted.get("stop_sequence")
    check_usage(got, expected["usage"])


def expected_reason(wanted: dict[str, Any]) -> FinishReason:
    """By the mapping; a call for tools that is said to be done, or stopped, waits for their results."""
    reason = FinishReason(FINISH.get(wanted["finish_reason"], "unknown"))
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and wanted["tool_calls"] else reason


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


def check_vectors(got: Embeddings, expected: dict[str, Any]) -> None:
    wanted = expected["embeddings"]
    assert len(got.vectors) == wanted["count"]
    assert {len(vector) for vector in got.vectors} == {wanted["dim"]}
    first = got.vectors[0][: len(wanted["first"])]
    assert first == pytest.approx(wanted["first"], abs=1e-6)
    assert got.usage.prompt_tokens == expected["usage"]["input"]


# --- what comes in other pieces, or not whole


@each([c for c in CASSETTES if c.streams and c.status == 200])
def test_where_a_stream_is_split_makes_no_difference(cassette: Cassette) -> None:
    provider = cassette.provider()
    chunks, error = read(provider, cassette.body, None)
    for size in (1, 3, 7):
        again, other = read(provider, cassette.body, size)
        assert again == chunks
        assert str(other) == str(error)
        assert type(other) is type(error)


@each([c for c in CASSETTES if c.is_whole_stream])
def test_a_connection_lost_before_the_end_says_what_had_come(cassette: Cassette, serve: Any, answer: Any) -> None:
    async def into(so_far: Assembly, provider: Any) -> None:
        async for chunk in provider.stream(cassette.request):
            so_far.add(chunk)

    async def story() -> None:
        middle = len(cassette.body) // 2
        cut = answer(200, cassette.headers, cassette.body[:middle], whole=False)
        so_far = Assembly()
        async with serve(cut) as url:
            provider = cassette.provider(url)
            with pytest.raises(RubberDuckError) as caught:
                await into(so_far, provider)
            await provider.aclose()
        if so_far.has_output:
            assert isinstance(caught.value, StreamInterrupted)
            assert caught.value.text == so_far.text
        assert caught.value.spent is None

    asyncio.run(asyncio.wait_for(story(), 30))


@each([c for c in CASSETTES if not c.streams and c.status == 200 and not c.expected["error"]])
def test_an_answer_cut_in_its_json_is_a_protocol_error(cassette: Cassette) -> None:
    provider = cassette.provider()
    decode: Any = {"count": provider.decode_count, "embeddings": provider.decode_embedding}
    for cut in range(0, len(cassette.body.rstrip()) - 1, max(1, len(cassette.body) // 20)):
        with pytest.raises(errors.ProtocolError):
            decode.get(cassette.kind, provider.decode)(200, httpx.Headers(cassette.headers), cassette.body[:cut])
