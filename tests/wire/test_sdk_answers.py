"""What an answer means to us is what it means to the vendor's own SDK, whole and streamed.

The answers are our own, a few lines each; recorded ones are compared in `test_cassettes`.
"""

from __future__ import annotations

import base64
import json
import struct
from typing import Any, NamedTuple

import httpx
import pytest
from tests_cassettes_rig import put_together, read
from tests_sdk_rig import EVENTS, HI, JSON, LINES, claude_client, ollama_client, openai_client, provider_of
from tests_wire_answers import (
    CHAT_STREAMS,
    CHATS,
    COUNTERS,
    MESSAGES,
    OLLAMA_HEAD,
    OLLAMAS,
    RESPONSES,
    claude_events,
    events_of,
)

from rubberduck.types import Response


class Meaning(NamedTuple):
    """What there is to compare. Usage is input, output, cached and reasoning tokens as the vendor counts them."""

    texts: list[str]
    calls: list[tuple[str, Any]]
    reasoning: str
    refusal: str
    reasons: list[str | None]
    usage: tuple[int | None, ...]


def ours(module: str, body: bytes, *, streams: bool) -> Meaning:
    if not streams:
        return meaning(provider_of(module).decode(200, httpx.Headers(JSON), body))
    chunks, error = read(provider_of(module), body, 3)
    assert error is None, error
    return meaning(put_together(chunks).response())


def meaning(response: Response) -> Meaning:
    messages = [choice.message for choice in response.choices]
    usage = response.usage
    return Meaning(
        [message.text for message in messages],
        [(call.function.name, json.loads(call.function.arguments)) for each in messages for call in each.tool_calls],
        "".join(message.reasoning or "" for message in messages),
        "".join(message.refusal or "" for message in messages),
        [choice.raw_finish_reason for choice in response.choices],
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens),
    )


def meant_by_chat(said: Any) -> Meaning:
    messages = [choice.message for choice in said.choices]
    read, wrote = said.usage.prompt_tokens_details, said.usage.completion_tokens_details
    return Meaning(
        [message.content or "" for message in messages],
        [(c.function.name, json.loads(c.function.arguments)) for each in messages for c in each.tool_calls or ()],
        "",
        "".join(message.refusal or "" for message in messages),
        [choice.finish_reason for choice in said.choices],
        (said.usage.prompt_tokens, said.usage.completion_tokens, read.cached_tokens, wrote.reasoning_tokens),
    )


@pytest.mark.parametrize("name", CHATS)
def test_a_chat_means_the_same(name: str) -> None:
    body = json.dumps(CHATS[name]).encode()
    with openai_client(body, JSON) as client:
        theirs = meant_by_chat(client.chat.completions.create(model="m", messages=HI))
    assert ours("openai", body, streams=False) == theirs


@pytest.mark.parametrize("name", CHAT_STREAMS)
def test_a_streamed_chat_means_the_same(name: str) -> None:
    """Put together by the SDK's own accumulator."""
    body = CHAT_STREAMS[name]
    with openai_client(body, EVENTS) as client, client.chat.completions.stream(model="m", messages=HI) as stream:
        stream.until_done()
        theirs = meant_by_chat(stream.current_completion_snapshot)
    assert ours("openai", body, streams=True) == theirs


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors_are_the_same(encoding: str) -> None:
    vectors: list[list[float]] = [[0.5, -0.25, 1.0], [0.125, 0.0, -2.0]]
    coded: list[Any] = [base64.b64encode(struct.pack("<3f", *vector)).decode() for vector in vectors]
    data = [
        {"object": "embedding", "index": at, "embedding": vector}
        for at, vector in enumerate(vectors if encoding == "float" else coded)
    ]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    body = json.dumps({"object": "list", "model": "m", "data": data, "usage": usage}).encode()
    with openai_client(body, JSON) as client:
        theirs = client.embeddings.create(model="m", input=["a", "b"])
    got = provider_of("openai").decode_embedding(200, httpx.Headers(JSON), body)
    assert [list(vector) for vector in got.vectors] == [each.embedding for each in theirs.data]
    assert got.usage.prompt_tokens == theirs.usage.prompt_tokens


def meant_by_sdk(said: Any) -> Meaning:
    content = [part for item in said.output if item.type == "message" for part in item.content]
    calls = [item for item in said.output if item.type == "function_call"]
    details = said.incomplete_details
    usage = said.usage
    return Meaning(
        [said.output_text],
        [(call.name, json.loads(call.arguments)) for call in calls],
        "".join(part.text for item in said.output if item.type == "reasoning" for part in item.summary),
        "".join(part.refusal for part in content if part.type == "refusal"),
        [f"incomplete:{details.reason}" if details else said.status],
        (
            usage.input_tokens,
            usage.output_tokens,
            usage.input_tokens_details.cached_tokens,
            usage.output_tokens_details.reasoning_tokens,
        ),
    )


@pytest.mark.parametrize("name", RESPONSES)
def test_a_response_means_the_same(name: str) -> None:
    body = json.dumps(RESPONSES[name]).encode()
    with openai_client(body, JSON) as client:
        theirs = meant_by_sdk(client.responses.create(model="m", input="Hi"))
    assert ours("openai_responses", body, streams=False) == theirs


@pytest.mark.parametrize("name", RESPONSES)
def test_a_streamed_response_means_the_same(name: str) -> None:
    body = events_of(RESPONSES[name])
    with openai_client(body, EVENTS) as client:
        last = list(client.responses.create(model="m", input="Hi", stream=True))[-1]
    assert ours("openai_responses", body, streams=True) == meant_by_sdk(last.response)


def meant_by_claude(said: Any) -> Meaning:
    usage = said.usage
    whole = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
    return Meaning(
        ["".join(block.text for block in said.content if block.type == "text")],
        [(block.name, block.input) for block in said.content if block.type == "tool_use"],
        "".join(block.thinking for block in said.content if block.type == "thinking"),
        "",
        [said.stop_reason],
        (whole, usage.output_tokens, usage.cache_read_input_tokens, usage.output_tokens_details.thinking_tokens),
    )


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_means_the_same(name: str) -> None:
    body = json.dumps(MESSAGES[name]).encode()
    with claude_client(body, JSON) as client:
        theirs = meant_by_claude(client.messages.create(model="m", max_tokens=9, messages=HI))
    assert ours("anthropic", body, streams=False) == theirs


@pytest.mark.parametrize("name", MESSAGES)
def test_a_streamed_message_means_the_same(name: str) -> None:
    """Put together by the SDK's own accumulator."""
    body = claude_events(MESSAGES[name])
    with (
        claude_client(body, EVENTS) as client,
        client.messages.stream(model="m", max_tokens=9, messages=HI) as stream,
    ):
        theirs = meant_by_claude(stream.get_final_message())
    assert ours("anthropic", body, streams=True) == theirs


def meant_by_ollama(parts: list[Any]) -> Meaning:
    last = parts[-1]
    calls = [call.function for part in parts for call in part.message.tool_calls or ()]
    return Meaning(
        ["".join(part.message.content or "" for part in parts)],
        [(call.name, call.arguments) for call in calls],
        "".join(part.message.thinking or "" for part in parts),
        "",
        [last.done_reason],
        (last.prompt_eval_count, last.eval_count, None, None),
    )


@pytest.mark.parametrize("name", OLLAMAS)
def test_an_answer_of_ollama_means_the_same(name: str) -> None:
    said = {"role": "assistant"} | OLLAMAS[name]
    body = json.dumps(OLLAMA_HEAD | {"message": said, "done": True, "done_reason": "stop"} | COUNTERS).encode()
    theirs = meant_by_ollama([ollama_client(body, JSON).chat("m", HI)])
    assert ours("ollama", body, streams=False) == theirs


@pytest.mark.parametrize("name", OLLAMAS)
def test_a_streamed_answer_of_ollama_means_the_same(name: str) -> None:
    said = {"role": "assistant"} | OLLAMAS[name]
    halves = [said | {"content": half} for half in (said["content"][:2], said["content"][2:])]
    halves[1].pop("tool_calls", None)
    halves[1].pop("thinking", None)
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"} | COUNTERS
    lines = [*({"message": half, "done": False} for half in halves), end]
    body = b"".join(json.dumps(OLLAMA_HEAD | line).encode() + b"\n" for line in lines)
    theirs = meant_by_ollama(list(ollama_client(body, LINES).chat("m", HI, stream=True)))
    assert ours("ollama", body, streams=True) == theirs
