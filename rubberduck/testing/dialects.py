"""Small, valid answers in the two dialects that a fault server speaks, written by hand.

The path of a request says which one: Anthropic's ends in `/messages`, every other is OpenAI's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

PROMPT_TOKENS = 12
"""What every answer here claims to have read; it claims to have written one token a word."""


def is_anthropic(path: str) -> bool:
    return path.partition("?")[0].endswith("/messages")


def answer(path: str, model: str, text: str) -> bytes:
    """A whole answer."""
    if is_anthropic(path):
        usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": len(text.split())}
        message = {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None}
        return _json(_anthropic_message(model) | message | {"usage": usage})
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _json(_openai_head(model, "chat.completion") | {"choices": [choice], "usage": _openai_usage(text)})


def events(path: str, model: str, text: str) -> list[bytes]:
    """The same answer as a stream, one block an event; OpenAI's ends in usage and `[DONE]`."""
    return list(_anthropic_events(model, text) if is_anthropic(path) else _openai_events(model, text))


def error(path: str, status: int, *, type: str = "", code: str | None = None, message: str = "scripted fault") -> bytes:
    """The body of an error. Without `type` it is the one that belongs to the status."""
    if is_anthropic(path):
        fault = {"type": type or _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return _json({"type": "error", "error": fault, "request_id": "req_fault"})
    kind = type or _OPENAI_TYPES.get(status, "server_error")
    return _json({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_event(path: str, status: int, *, type: str = "") -> bytes:
    """An error in the middle of a stream that began with status 200."""
    body = error(path, status, type=type)
    return _event("error", body) if is_anthropic(path) else b"data: " + body + b"\n\n"


def words(text: str) -> list[str]:
    """The pieces in which a stream delivers `text`."""
    return [word if i == 0 else f" {word}" for i, word in enumerate(text.split(" "))]


_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
}
_ANTHROPIC_TYPES |= {404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error"}
_ANTHROPIC_TYPES |= {529: "overloaded_error"}
_OPENAI_TYPES = {400: "invalid_request_error", 401: "invalid_request_error", 404: "invalid_request_error"}
_OPENAI_TYPES |= {429: "requests"}


def _openai_head(model: str, kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-fault", "object": kind, "created": 1_700_000_000, "model": model}


def _openai_usage(text: str) -> dict[str, int]:
    written = len(text.split())
    return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": written, "total_tokens": PROMPT_TOKENS + written}


def _openai_events(model: str, text: str) -> Iterable[bytes]:
    head = _openai_head(model, "chat.completion.chunk")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": w} for w in words(text)), {}]
    for delta in deltas:
        choice = {"index": 0, "delta": delta, "finish_reason": None if delta else "stop"}
        yield b"data: " + _json(head | {"choices": [choice], "usage": None}) + b"\n\n"
    yield b"data: " + _json(head | {"choices": [], "usage": _openai_usage(text)}) + b"\n\n"
    yield b"data: [DONE]\n\n"


def _anthropic_message(model: str) -> dict[str, Any]:
    return {"id": "msg_fault", "type": "message", "role": "assistant", "model": model}


def _anthropic_events(model: str, text: str) -> Iterable[bytes]:
    message: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
    usage = {"usage": {"input_tokens": PROMPT_TOKENS, "output_tokens": 1}}
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    steps: list[tuple[str, dict[str, Any]]] = [
        ("message_start", {"message": _anthropic_message(model) | message | usage}),
        ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        *[("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": w}}) for w in words(text)],
        ("content_block_stop", {"index": 0}),
        ("message_delta", {"delta": stop, "usage": {"output_tokens": len(text.split())}}),
        ("message_stop", {}),
    ]
    for name, body in steps:
        yield _event(name, _json({"type": name} | body))


def _event(name: str, body: bytes) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + body + b"\n\n"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
