"""Anthropic's Messages API under the contract of all providers; the answers are written by hand."""

from __future__ import annotations

import json
from typing import Any

from rubberduck.errors import (
    AuthenticationFailed,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    ServiceUnavailable,
)
from rubberduck.testing import ProviderContract, contract

WEATHER = {"city": "Zürich \u2028"}
USAGE = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 4}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": WEATHER}


def message(*blocks: dict[str, Any], reason: str = "end_turn") -> dict[str, Any]:
    head = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return {**head, "content": list(blocks), "stop_reason": reason, "usage": USAGE}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def event(name: str, **said: Any) -> str:
    return f"event: {name}\ndata: {json.dumps({'type': name} | said, ensure_ascii=False)}\n\n"


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> str:
    middle = [event("content_block_delta", index=index, delta=delta) for delta in deltas]
    return "".join(
        [
            event("content_block_start", index=index, content_block=start),
            *middle,
            event("content_block_stop", index=index),
        ]
    )


def pieces(kind: str, field: str, *said: str) -> list[dict[str, Any]]:
    return [{"type": kind, field: piece} for piece in said]


def whole(*blocks: str, reason: str = "end_turn") -> str:
    start = {"id": "m1", "type": "message", "role": "assistant", "model": "m", "content": []}
    counts = {"input_tokens": 4, "cache_read_input_tokens": 5, "output_tokens": 1}
    end = event("message_delta", delta={"stop_reason": reason}, usage={"output_tokens": 4}) + event("message_stop")
    return event("message_start", message=start | {"usage": counts}) + event("ping") + "".join(blocks) + end


def fault(type: str, said: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": said}, "request_id": "req_1"}


class TestAnthropic(ProviderContract):
    provider = "anthropic"
    model = "claude-sonnet-4-5"
    exchanges = (
        contract.answer("text", message(text("Quack 🦆.")), text="Quack 🦆.", usage=COUNTS),
        contract.answer("nothing to say", message(), text=""),
        contract.answer(
            "a tool call after thought",
            message(THOUGHT, text("I look."), USE, reason="tool_use"),
            text="I look.",
            reasoning="Hm.",
            tool_calls=[("weather", WEATHER)],
            finish_reason="tool_calls",
        ),
        contract.answer("a refusal", message(text("No"), reason="refusal"), text="No", finish_reason="content_filter"),
        contract.stream(
            "text",
            whole(block(0, text(""), *pieces("text_delta", "text", "Quack", " 🦆."))),
            text="Quack 🦆.",
            usage=COUNTS,
        ),
        contract.stream(
            "tool calls after thought",
            whole(
                block(0, THOUGHT | {"thinking": ""}, *pieces("thinking_delta", "thinking", "H", "m.")),
                block(1, USE | {"input": {}}, *pieces("input_json_delta", "partial_json", "", '{"city": "Be', 'rn"}')),
                block(2, USE | {"input": {}, "id": "toolu_2"}, *pieces("input_json_delta", "partial_json", "")),
                reason="tool_use",
            ),
            reasoning="Hm.",
            tool_calls=[("weather", {"city": "Bern"}), ("weather", {})],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.count("a question", {"input_tokens": 17}, 17),
        contract.failure(
            "too many requests",
            429,
            fault("rate_limit_error", "Slow down."),
            RateLimited,
            headers={"retry-after": "2", "request-id": "req_1"},
            retry_after=2.0,
            provider_request_id="req_1",
            type="rate_limit_error",
        ),
        contract.failure("no money", 402, fault("billing_error", "Pay."), QuotaExceeded, retryable=False),
        contract.failure("a bad request", 400, fault("invalid_request_error", "max_tokens: needed"), InvalidRequest),
        contract.failure(
            "too long", 400, fault("invalid_request_error", "prompt is too long: 9 tokens > 8"), ContextLengthExceeded
        ),
        contract.failure("a bad key", 401, fault("authentication_error", "invalid x-api-key"), AuthenticationFailed),
        contract.failure("a proxy", 502, "<html>Bad Gateway</html>", ServiceUnavailable),
        contract.failure(
            "overloaded inside",
            200,
            whole().partition("event: message_delta")[0] + event("error", **fault("overloaded_error", "Busy.")),
            Overloaded,
            inside_stream=True,
        ),
    )
