"""How answers end, in each format: the tables of finish reasons and of ends, whole and streamed.

Each row is told in the server's own bytes. A stream that lacks its end is an interruption, wherever it was cut.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from rubberduck.config import ProviderConfig
from rubberduck.errors import ProtocolError, RubberDuckError, StreamInterrupted
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import Choice, Chunk, FinishReason

Fields = dict[str, Any]


@cache
def adapter(word: str) -> HTTPProvider:
    return resolve(word).init(ProviderConfig(name=word, module=word, api_keys=("k",)))


def events(*said: Any, named: bool = False) -> bytes:
    head = (lambda each: f"event: {each['type']}\n") if named else (lambda each: "")
    return "".join([f"{head(each)}data: {json.dumps(each)}\n\n" for each in said]).encode()


# --- the same answer in each format: text or not, a call or not, refused or not


def chat(raw: str | None, text: str, *, calls: bool, refused: bool) -> tuple[Fields, bytes]:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    message: Fields = {"content": text or None}
    message |= {"tool_calls": [call]} if calls else {}
    message |= {"refusal": "No."} if refused else {}
    whole = {"id": "c", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": raw}]}
    delta = message | ({"tool_calls": [{"index": 0, **call}]} if calls else {})
    first = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    last = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": raw}]}
    return whole, events(first, last) + b"data: [DONE]\n\n"


def response(raw: str | None, text: str, *, calls: bool, refused: bool) -> tuple[Fields, bytes]:
    said = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    said += [{"type": "refusal", "refusal": "No."}] if refused else []
    output: list[Fields] = [{"type": "message", "id": "msg", "role": "assistant", "content": said}] if said else []
    output += [{"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}] if calls else []
    status, _, why = (raw or "").partition(":")
    whole = {"id": "r", "model": "m", "status": status, "output": output} | (
        {"incomplete_details": {"reason": why}} if why else {}
    )
    start = {"type": "response.created", "response": whole | {"status": "in_progress", "output": []}}
    return whole, events(start, {"type": f"response.{status}", "response": whole}, named=True)


def claude(raw: str | None, text: str, *, calls: bool, refused: bool) -> tuple[Fields, bytes]:
    blocks: list[Fields] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}] if calls else []
    ending = {"stop_reason": raw, "stop_sequence": "END" if raw == "stop_sequence" else None}
    ending |= {"stop_details": {"type": "refusal", "explanation": "No."}} if refused else {}
    whole = {"id": "m", "type": "message", "model": "m", "content": blocks, **ending}
    told: list[Fields] = [{"type": "message_start", "message": {"id": "m", "model": "m", "content": []}}]
    for index, block in enumerate(blocks):
        told.append({"type": "content_block_start", "index": index, "content_block": block})
        told.append({"type": "content_block_stop", "index": index})
    told += [{"type": "message_delta", "delta": ending}, {"type": "message_stop"}]
    return whole, events(*told, named=True)


def ollama(raw: str | None, text: str, *, calls: bool, refused: bool) -> tuple[Fields, bytes]:
    message: Fields = {"role": "assistant", "content": text}
    message |= {"tool_calls": [{"function": {"name": "look", "arguments": {}}}]} if calls else {}
    end = {"done": True} | ({} if raw is None else {"done_reason": raw})
    lines = [{"model": "m", "message": message, "done": False}, {"model": "m", "message": {"content": ""}, **end}]
    body = "".join([json.dumps(line) + "\n" for line in lines]).encode()
    return {"model": "m", "message": message, **end}, body


FORMATS = {"openai": chat, "openai_responses": response, "anthropic": claude, "ollama": ollama}


def read_whole(word: str, said: Fields) -> Choice:
    return adapter(word).decode(200, {}, json.dumps(said).encode()).choices[0]


def read(word: str, body: bytes) -> tuple[list[Chunk], RubberDuckError | None]:
    decoder = adapter(word).stream_decoder()
    chunks: list[Chunk] = []
    try:
        chunks += decoder.feed(body)
        decoder.check()
        chunks += decoder.end()
    except RubberDuckError as error:
        return chunks, error
    return chunks, None


def read_stream(word: str, body: bytes) -> Choice:
    answer = Assembly()
    chunks, error = read(word, body)
    assert error is None
    for chunk in chunks:
        answer.add(chunk)
    return answer.response().choices[0]


# --- why an answer ended

TEXT: Fields = {"text": "Hi", "calls": False, "refused": False}
CALLS: Fields = {"text": "", "calls": True, "refused": False}
REFUSED: Fields = {"text": "", "calls": False, "refused": True}

REASONS = [
    # format, the server's word, what was said, ours
    ("openai", "stop", TEXT, "stop"),
    ("openai", "eos", TEXT, "stop"),
    ("openai", "eos_token", TEXT, "stop"),
    ("openai_responses", "completed", TEXT, "stop"),
    ("anthropic", "end_turn", TEXT, "stop"),
    ("anthropic", "stop_sequence", TEXT, "stop"),
    ("ollama", "stop", TEXT, "stop"),
    ("openai", "length", TEXT, "length"),
    ("openai_responses", "incomplete:max_output_tokens", TEXT, "length"),
    ("anthropic", "max_tokens", TEXT, "length"),
    ("anthropic", "model_context_window_exceeded", TEXT, "length"),
    ("ollama", "length", TEXT, "length"),
    ("openai", "tool_calls", CALLS, "tool_calls"),
    ("openai", "function_call", CALLS, "tool_calls"),
    ("openai", "stop", CALLS, "tool_calls"),
    ("openai_responses", "completed", CALLS, "tool_calls"),
    ("anthropic", "tool_use", CALLS, "tool_calls"),
    ("anthropic", "end_turn", CALLS, "tool_calls"),
    ("ollama", "stop", CALLS, "tool_calls"),
    ("openai", "length", CALLS, "length"),
    ("openai_responses", "incomplete:max_output_tokens", CALLS, "length"),
    ("anthropic", "max_tokens", CALLS, "length"),
    ("ollama", "length", CALLS, "length"),
    ("openai", "content_filter", TEXT, "content_filter"),
    ("openai", "stop", REFUSED, "content_filter"),
    ("openai_responses", "incomplete:content_filter", TEXT, "content_filter"),
    ("openai_responses", "completed", REFUSED, "content_filter"),
    ("anthropic", "refusal", REFUSED, "content_filter"),
    ("anthropic", "refusal", TEXT, "content_filter"),
    ("anthropic", "pause_turn", TEXT, "pause"),
    ("openai", "quacked", TEXT, "unknown"),
    ("openai", None, TEXT, "unknown"),
    ("openai_responses", "incomplete:max_messages", TEXT, "unknown"),
    ("openai_responses", "incomplete:steered", TEXT, "unknown"),
    ("anthropic", "quacked", TEXT, "unknown"),
    ("anthropic", None, TEXT, "unknown"),
    ("ollama", "load", TEXT, "unknown"),
    ("ollama", "unload", TEXT, "unknown"),
    ("ollama", "", TEXT, "unknown"),
    ("ollama", None, TEXT, "unknown"),
]


@pytest.mark.parametrize(("word", "raw", "said", "expected"), REASONS)
def test_each_reason_has_one_name_and_keeps_its_own(word: str, raw: str | None, said: Fields, expected: str) -> None:
    whole, body = FORMATS[word](raw, said["text"], calls=said["calls"], refused=said["refused"])
    for choice in (read_whole(word, whole), read_stream(word, body)):
        assert (choice.finish_reason, choice.raw_finish_reason) == (FinishReason(expected), raw or None)
        assert (choice.message.text, len(choice.message.tool_calls)) == (said["text"], int(said["calls"]))
        assert choice.message.refusal == ("No." if said["refused"] else None)
        assert choice.stop_sequence == ("END" if raw == "stop_sequence" else None)


# --- where a stream ends

CUT: dict[str, list[tuple[str, bytes]]] = {
    "openai": [
        ("a finish reason", events({"choices": [{"delta": {"content": "Hi"}, "finish_reason": "stop"}]})),
        ("the mark", events({"choices": [{"delta": {"content": "Hi"}}]}) + b"data: [DONE]\n\n"),
    ],
    "openai_responses": [
        ("completed", FORMATS["openai_responses"]("completed", **TEXT)[1]),
        ("incomplete", FORMATS["openai_responses"]("incomplete:max_output_tokens", **TEXT)[1]),
    ],
    "anthropic": [("message_stop", FORMATS["anthropic"]("end_turn", **TEXT)[1])],
    "ollama": [("done: true", FORMATS["ollama"]("stop", **TEXT)[1])],
}
ENDS = [(word, name, body) for word, bodies in CUT.items() for name, body in bodies]


@pytest.mark.parametrize(("word", "name", "body"), ENDS, ids=[f"{word}-{name}" for word, name, _ in ENDS])
def test_an_answer_is_whole_with_its_end_and_interrupted_without(word: str, name: str, body: bytes) -> None:
    chunks, error = read(word, body)
    assert error is None
    assert any(chunk.finish_reason is not None for chunk in chunks)
    for cut in range(len(body.rstrip())):
        chunks, error = read(word, body[:cut])
        assert type(error) is StreamInterrupted, body[:cut]
        assert all(chunk.finish_reason is None for chunk in chunks)


@pytest.mark.parametrize("word", FORMATS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"ok",
        b"<html>Welcome</html>",
        b"[]",
        b"{}",
        b"null",
        b'{"status": "up"}',
        b'{"object": "list", "data": []}',
    ],
)
def test_a_good_status_over_something_else_is_a_protocol_error(word: str, body: bytes) -> None:
    with pytest.raises(ProtocolError):
        adapter(word).decode(200, {"content-type": "text/html"}, body)


@pytest.mark.parametrize(("word", "name", "body"), ENDS, ids=[f"{word}-{name}" for word, name, _ in ENDS])
def test_where_the_bytes_are_split_makes_no_difference(word: str, name: str, body: bytes) -> None:
    expected = read(word, body)[0]
    for size in (1, 2, 7):
        decoder, chunks = adapter(word).stream_decoder(), []
        for at in range(0, len(body), size):
            chunks += decoder.feed(body[at : at + size])
        assert chunks + decoder.end() == expected
