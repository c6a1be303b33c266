"""What an answer says beside its text reaches the caller of a stream as it does who waits for the whole."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from rubberduck.config import ProviderConfig
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly, as_chunks
from rubberduck.providers.base import Provider
from rubberduck.types import Chunk, Request, Response

HEAD = {"id": "c", "created": 1_764_000_000, "model": "m", "service_tier": "default", "system_fingerprint": "fp_1"}
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
SAID = {
    "id": "r", "object": "response", "created_at": 1_764_000_000, "model": "m", "status": "completed", "error": None,
    "output": [{"id": "i", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}],
    "service_tier": "flex", "usage": {"input_tokens": 1, "output_tokens": 2},
}  # fmt: skip
BLOCKS = {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn"}
CLAUDE = {"id": "a", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None} | {
    "usage": {"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"}
}
LLAMA = {"model": "m", "created_at": "2026-11-23T03:00:00Z", "prompt_eval_count": 1, "eval_count": 2}


def events(*said: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % (each if isinstance(each, bytes) else json.dumps(each).encode()) for each in said)


def choice(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0} | said]}


ANSWERS: dict[str, tuple[dict[str, Any], bytes]] = {
    "openai": (
        HEAD | choice(message={"role": "assistant", "content": "Hi"}, finish_reason="stop") | {"usage": USAGE},
        events(
            {"id": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": []},  # Azure's first event
            HEAD | choice(delta={"role": "assistant", "content": ""}),
            HEAD | choice(delta={"content": "Hi"}),
            HEAD | choice(delta={}, finish_reason="stop"),
            HEAD | {"choices": [], "usage": USAGE},
            b"[DONE]",
        ),
    ),
    "openai_responses": (
        SAID,
        events(
            {"type": "response.created", "response": SAID | {"output": [], "service_tier": "auto", "usage": None}},
            {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hi"},
            {"type": "response.completed", "response": SAID},
        ),
    ),
    "anthropic": (
        CLAUDE | BLOCKS,
        events(
            {"type": "message_start", "message": CLAUDE | {"content": [], "stop_reason": None}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
            {"type": "message_stop"},
        ),
    ),
    "ollama": (
        LLAMA | {"message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop"},
        b"".join(
            json.dumps(line).encode() + b"\n"
            for line in (
                LLAMA | {"message": {"role": "assistant", "content": "Hi"}, "done": False},
                LLAMA | {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"},
            )
        ),
    ),
}
WARNED = {
    "openai": {"top_k": 3},
    "openai_responses": {"seed": 1},
    "anthropic": {"seed": 1},
    "ollama": {"user": "u"},
}
each = pytest.mark.parametrize("module", ANSWERS)


class Pieces(httpx.AsyncByteStream):
    def __init__(self, body: bytes, size: int) -> None:
        self.body, self.size = body, size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), self.size):
            yield self.body[start : start + self.size]


def answering(module: str, answer: httpx.Response) -> Provider:
    transport = httpx.MockTransport(lambda _: answer)
    return resolve(module).init(ProviderConfig(name=module, module=module, api_keys=("k",), transport=transport))


def whole(module: str, **fields: Any) -> Response:
    return asyncio.run(answering(module, httpx.Response(200, json=ANSWERS[module][0])).complete(asked(**fields)))


def streamed(module: str, answer: httpx.Response, **fields: Any) -> list[Chunk]:
    async def story() -> list[Chunk]:
        return [chunk async for chunk in answering(module, answer).stream(asked(**fields))]

    return asyncio.run(story())


def in_pieces(module: str, size: int = 10_000) -> httpx.Response:
    kind = "application/x-ndjson" if module == "ollama" else "text/event-stream"
    return httpx.Response(200, headers={"content-type": kind}, stream=Pieces(ANSWERS[module][1], size))


def asked(**fields: Any) -> Request:
    return Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9} | fields)


def put_together(chunks: list[Chunk], module: str) -> Response:
    answer = Assembly()
    for chunk in chunks:
        answer.add(chunk)
    return answer.response(provider=module)


@each
@pytest.mark.parametrize("size", [7, 10_000])
def test_a_stream_says_of_itself_what_the_whole_answer_does(module: str, size: int) -> None:
    assert put_together(streamed(module, in_pieces(module, size)), module) == whole(module)


@each
def test_what_there_is_to_say_comes_with_the_first_chunk_alone(module: str) -> None:
    first, *others = streamed(module, in_pieces(module), **WARNED[module])
    assert first.head is not None
    assert len(first.head.warnings) == 1
    assert first.head.created == whole(module).created
    assert [chunk.head for chunk in others] == [None] * len(others)


@each
def test_a_stream_warns_of_what_a_whole_answer_warns_of(module: str) -> None:
    chunks = streamed(module, in_pieces(module), **WARNED[module])
    assert put_together(chunks, module).warnings == whole(module, **WARNED[module]).warnings != ()


@each
def test_a_server_that_does_not_stream_says_no_less(module: str) -> None:
    chunks = streamed(module, httpx.Response(200, json=ANSWERS[module][0]), **WARNED[module])
    assert put_together(chunks, module) == whole(module, **WARNED[module])


@each
def test_a_whole_answer_is_the_same_after_it_was_told_in_chunks(module: str) -> None:
    answer = whole(module, **WARNED[module])
    assert put_together(as_chunks(answer), module) == answer
