"""The bytes that both sides read: a stream for each format and kind of delta, one event a piece, as servers send it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WORDS = [" the", " duck", " swims", " über", " den", " pond", " and", " says", ":", " quack", ".", "\n", " 🦆"]
HEAD = {"id": "chatcmpl-Bx7QK2", "object": "chat.completion.chunk", "created": 1_764_000_000, "model": "gpt-4.1-2025"}


@dataclass(frozen=True, slots=True)
class Stream:
    """One answer on the wire. `deltas` is how many of its pieces add to the answer."""

    name: str
    module: str
    pieces: tuple[bytes, ...]
    deltas: int

    @property
    def content_type(self) -> str:
        return "application/x-ndjson" if self.module == "ollama" else "text/event-stream"


def streams(deltas: int) -> list[Stream]:
    """One of each kind, with so many deltas."""
    return [
        Stream("OpenAI chat, text", "openai", _chat(_chat_texts(deltas), "stop"), deltas),
        Stream("OpenAI chat, tool call", "openai", _chat(_chat_arguments(deltas), "tool_calls"), deltas),
        Stream("Responses, text", "openai_responses", _responses_text(deltas), deltas),
        Stream("Responses, tool call", "openai_responses", _responses_call(deltas), deltas),
        Stream("Anthropic, text", "anthropic", _anthropic_text(deltas), deltas),
        Stream("Anthropic, tool call", "anthropic", _anthropic_call(deltas), deltas),
        Stream("Ollama, text", "ollama", _ollama(deltas), deltas),
    ]


def _data(said: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode()


def _event(said: dict[str, Any]) -> bytes:
    return b"event: %b\n%b" % (said["type"].encode(), _data(said))


def _words(count: int) -> list[str]:
    return [WORDS[number % len(WORDS)] for number in range(count)]


def _fragments(count: int) -> list[str]:
    """Fragments of arguments that are JSON when put together."""
    inner = [f"q{number}" for number in range(count - 2)]
    return ['{"text":"', *inner, '"}']


def _chat_chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _data(HEAD | {"system_fingerprint": "fp_44", "choices": [choice], "usage": None})


def _chat_texts(count: int) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": "", "refusal": None}, *({"content": word} for word in _words(count))]


def _chat_arguments(count: int) -> list[dict[str, Any]]:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "forecast", "arguments": ""}}
    rest = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in _fragments(count)]
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, *rest]


def _chat(deltas: list[dict[str, Any]], reason: str) -> tuple[bytes, ...]:
    usage = {"prompt_tokens": 20, "completion_tokens": len(deltas), "total_tokens": 20 + len(deltas)}
    last = [_chat_chunk({}, reason), _data(HEAD | {"choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return (*(_chat_chunk(delta) for delta in deltas), *last)


def _responses(item: dict[str, Any], between: list[dict[str, Any]], done: dict[str, Any]) -> tuple[bytes, ...]:
    answer = {"id": "resp_1", "object": "response", "created_at": 1_764_000_000, "model": "gpt-5.1", "error": None}
    answer |= {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    usage = {"input_tokens": 20, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": len(between)}
    usage |= {"output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 20 + len(between)}
    begun = answer | {"status": "in_progress", "output": [], "usage": None}
    whole = answer | {"status": "completed", "output": [done], "usage": usage}
    events = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *between,
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": whole},
    ]
    return tuple(_event(event | {"sequence_number": number}) for number, event in enumerate(events))


def _responses_text(count: int) -> tuple[bytes, ...]:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    words = _words(count)
    deltas = [{"type": "response.output_text.delta", **place, "delta": word, "logprobs": []} for word in words]
    between = [{"type": "response.content_part.added", **place, "part": part}, *deltas]
    done = item | {"status": "completed", "content": [part | {"text": "".join(words)}]}
    return _responses(item, between, done)


def _responses_call(count: int) -> tuple[bytes, ...]:
    item = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "forecast", "arguments": ""}
    place = {"item_id": "fc_1", "output_index": 0}
    parts = _fragments(count)
    deltas = [{"type": "response.function_call_arguments.delta", **place, "delta": part} for part in parts]
    done = item | {"status": "completed", "arguments": "".join(parts)}
    return _responses(item | {"status": "in_progress"}, deltas, done)


def _anthropic(block: dict[str, Any], deltas: list[dict[str, Any]], reason: str) -> tuple[bytes, ...]:
    usage = {"input_tokens": 20, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-6", "content": []}
    message |= {"stop_reason": None, "stop_sequence": None, "usage": usage}
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return tuple(map(_event, events))


def _anthropic_text(count: int) -> tuple[bytes, ...]:
    deltas = [{"type": "text_delta", "text": word} for word in _words(count)]
    return _anthropic({"type": "text", "text": ""}, deltas, "end_turn")


def _anthropic_call(count: int) -> tuple[bytes, ...]:
    block = {"type": "tool_use", "id": "toolu_1", "name": "forecast", "input": {}}
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in _fragments(count)]
    return _anthropic(block, deltas, "tool_use")


def _ollama(count: int) -> tuple[bytes, ...]:
    head = {"model": "qwen3", "created_at": "2026-11-23T03:00:00.123456Z"}
    lines = [head | {"message": {"role": "assistant", "content": word}, "done": False} for word in _words(count)]
    times = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 20, "prompt_eval_duration": 2}
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    lines.append(head | last | times | {"eval_count": count, "eval_duration": 5})
    return tuple(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
