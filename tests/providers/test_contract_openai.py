"""OpenAI's Chat Completions under the contract of all providers; the answers are written by hand."""

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
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 5}


def whole(message: dict[str, Any], reason: str) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": reason}
    return {"id": "c1", "model": "m", "created": 7, "choices": [choice], "usage": USAGE}


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "c1", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def sse(*events: Any, end: str = "data: [DONE]\n\n") -> str:
    return "".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events) + end


def call(arguments: str, **head: Any) -> dict[str, Any]:
    return {"tool_calls": [{"index": 0, **head, "function": {**head.pop("function", {}), "arguments": arguments}}]}


def tool(arguments: str) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


LAST = {"id": "c1", "model": "m", "choices": [], "usage": USAGE}


class TestOpenAI(ProviderContract):
    provider = "openai"
    model = "gpt-4o-mini"
    exchanges = (
        contract.answer("text", whole({"content": "Quack 🦆."}, "stop"), text="Quack 🦆.", usage=COUNTS),
        contract.answer(
            "a tool call",
            whole({"tool_calls": [tool(json.dumps(WEATHER))]}, "tool_calls"),
            tool_calls=[("weather", WEATHER)],
            finish_reason="tool_calls",
        ),
        contract.answer(
            "a refusal", whole({"refusal": "No."}, "stop"), finish_reason="content_filter", refusal="No.", usage=COUNTS
        ),
        contract.stream(
            "text",
            ": waking\n\n"
            + sse(
                chunk({"role": "assistant", "content": ""}),
                chunk({"content": "Quack"}),
                chunk({"content": " 🦆."}),
                chunk({}, "stop"),
                LAST,
            ),
            text="Quack 🦆.",
            usage=COUNTS,
        ),
        contract.stream(
            "tool calls",
            sse(
                chunk({"tool_calls": [tool("") | {"index": 0}]}),
                chunk(call('{"city": ')),
                chunk(call('"Bern"}')),
                chunk({"tool_calls": [tool("{}") | {"index": 1, "id": "call_2"}]}),
                chunk({}, "tool_calls"),
                LAST,
            ),
            tool_calls=[("weather", {"city": "Bern"}), ("weather", {})],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.vectors(
            "packed vectors",
            {"data": [{"index": 1, "embedding": "AACAvw=="}, {"index": 0, "embedding": "AAAAPw=="}], "model": "m"},
            [0.5],
            [-1.0],
        ),
        contract.vectors(
            "two texts, in another order",
            {
                "data": [{"index": 1, "embedding": [0.25, 2.0]}, {"index": 0, "embedding": [0.5, -1.0]}],
                "model": "m",
                "usage": {"prompt_tokens": 4, "total_tokens": 4},
            },
            (0.5, -1),
            (0.25, 2),
        ),
        contract.failure(
            "too many requests",
            429,
            {"error": {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}},
            RateLimited,
            headers={"retry-after": "2", "x-request-id": "req_1"},
            retry_after=2.0,
            provider_request_id="req_1",
            code="rate_limit_exceeded",
        ),
        contract.failure(
            "no money",
            429,
            {"error": {"message": "Quota.", "type": "insufficient_quota"}},
            QuotaExceeded,
            retryable=False,
        ),
        contract.failure(
            "a bad parameter",
            400,
            {"error": {"message": "Unsupported.", "type": "invalid_request_error", "param": "stop", "code": None}},
            InvalidRequest,
            field="stop",
        ),
        contract.failure(
            "too long", 400, {"error": {"message": "Long.", "code": "context_length_exceeded"}}, ContextLengthExceeded
        ),
        contract.failure(
            "a bad key", 401, {"error": {"message": "No.", "code": "invalid_api_key"}}, AuthenticationFailed
        ),
        contract.failure("a proxy", 502, "<html>Bad Gateway</html>", ServiceUnavailable),
        contract.failure(
            "overloaded inside",
            200,
            sse(chunk({"content": "Qua"}), {"error": {"message": "Busy.", "type": "overloaded_error"}}, end=""),
            Overloaded,
            inside_stream=True,
            phase="after_output",
        ),
    )
