"""OpenAI's Responses API under the contract of all providers; the answers are written by hand."""

from __future__ import annotations

import json
from typing import Any

from rubberduck.errors import AuthenticationFailed, InvalidRequest, ModelNotFound, Overloaded, RateLimited
from rubberduck.testing import ProviderContract, contract

WEATHER = {"city": "Zürich \u2028"}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4, "cached_tokens": 3, "reasoning_tokens": 2}
USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 2},
}
THOUGHT = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "Hm."}]}
TEXT = {
    "type": "message",
    "id": "m",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "Quack \u2028🦆.", "annotations": []}],
}
CALL = {"type": "function_call", "id": "f", "call_id": "c", "name": "weather", "arguments": json.dumps(WEATHER)}


def response(*output: dict[str, Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    head = {"id": "resp", "object": "response", "created_at": 1, "model": "gpt-5.1", "status": status}
    return {**head, "output": list(output), "usage": USAGE, **more}


def events(*said: dict[str, Any]) -> str:
    return "".join(f"event: {each['type']}\ndata: {json.dumps(each, ensure_ascii=False)}\n\n" for each in said)


def delta(kind: str, words: str, slot: int = 0) -> dict[str, Any]:
    return {"type": f"response.{kind}.delta", "delta": words, "output_index": slot}


def item(slot: int, said: dict[str, Any]) -> dict[str, Any]:
    begun = {
        name: type(value)() if name in ("content", "arguments", "summary") else value for name, value in said.items()
    }
    return {"type": "response.output_item.added", "output_index": slot, "item": begun}


BEGIN = {"type": "response.created", "response": response(status="in_progress", usage=None)}
SPEAKING = [BEGIN, item(0, TEXT), delta("output_text", "Quack"), delta("output_text", " \u2028🦆.")]


class TestResponses(ProviderContract):
    provider = "openai_responses"
    model = "gpt-5.1"
    refuses = ({"n": 2}, {"extra": {"background": True}})
    exchanges = (
        contract.answer("text", response(TEXT), text="Quack \u2028🦆.", usage=COUNTS),
        contract.answer(
            "a call after thought",
            response(THOUGHT, CALL),
            reasoning="Hm.",
            tool_calls=[("weather", WEATHER)],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.answer(
            "an answer cut short",
            response(TEXT, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
            text="Quack \u2028🦆.",
            finish_reason="length",
        ),
        contract.stream(
            "text",
            events(*SPEAKING, {"type": "response.completed", "response": response(TEXT)}),
            text="Quack \u2028🦆.",
            usage=COUNTS,
        ),
        contract.stream(
            "a call after thought",
            events(
                BEGIN,
                item(0, THOUGHT),
                delta("reasoning_summary_text", "H"),
                delta("reasoning_summary_text", "m."),
                item(1, CALL),
                *[delta("function_call_arguments", letter, 1) for letter in CALL["arguments"]],
                {"type": "response.completed", "response": response(THOUGHT, CALL)},
            ),
            reasoning="Hm.",
            tool_calls=[("weather", WEATHER)],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.failure(
            "an error in a stream",
            200,
            events(*SPEAKING, {"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None}),
            RateLimited,
            inside_stream=True,
        ),
        contract.failure(
            "a failed stream",
            200,
            events(
                *SPEAKING,
                {
                    "type": "response.failed",
                    "response": response(status="failed", error={"code": "invalid_prompt", "message": "no"}),
                },
            ),
            InvalidRequest,
            inside_stream=True,
        ),
        contract.failure(
            "a bad key", 401, {"error": {"message": "no", "code": "invalid_api_key"}}, AuthenticationFailed
        ),
        contract.failure("no such model", 400, {"error": {"message": "no", "code": "model_not_found"}}, ModelNotFound),
        contract.failure("busy", 503, {"error": {"message": "busy"}}, Overloaded),
        contract.vectors(
            "two", {"data": [{"index": 1, "embedding": [3, 4]}, {"index": 0, "embedding": [1, 2]}]}, [1, 2], [3, 4]
        ),
    )
