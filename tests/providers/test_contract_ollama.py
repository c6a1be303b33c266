"""Ollama's own API under the contract of all providers; the answers are written by hand."""

from __future__ import annotations

import json
from typing import Any

from rubberduck.errors import InvalidRequest, ModelNotFound, RateLimited, ServiceUnavailable
from rubberduck.testing import ProviderContract, contract

WEATHER = {"city": "Zürich \u2028"}
LINES = {"content-type": "application/x-ndjson"}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4}


def line(*, done: bool = False, **message: Any) -> dict[str, Any]:
    said = {
        "model": "m",
        "created_at": "2026-01-02T03:04:05Z",
        "message": {"role": "assistant", "content": "", **message},
    }
    counts = {"prompt_eval_count": 9, "eval_count": 4, "total_duration": 5}
    return {**said, "done": done, **({"done_reason": "stop", **counts} if done else {})}


def ndjson(*said: dict[str, Any]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in said)


def call(**arguments: Any) -> dict[str, Any]:
    return {"function": {"name": "weather", "arguments": arguments}}


class TestOllama(ProviderContract):
    provider = "ollama"
    model = "llama3.2"
    exchanges = (
        contract.answer("text", line(done=True, content="Quack 🦆."), text="Quack 🦆.", usage=COUNTS),
        contract.answer(
            "a tool call after thought",
            line(done=True, thinking="Hm.", tool_calls=[call(**WEATHER)]),
            reasoning="Hm.",
            tool_calls=[("weather", WEATHER)],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.stream(
            "text",
            ndjson(line(content="Quack"), line(content=" \u2028🦆."), line(done=True)),
            headers=LINES,
            text="Quack \u2028🦆.",
            usage=COUNTS,
        ),
        contract.stream(
            "tool calls after thought",
            ndjson(
                line(thinking="H"), line(thinking="m."), line(tool_calls=[call(**WEATHER), call()]), line(done=True)
            ),
            headers=LINES,
            reasoning="Hm.",
            tool_calls=[("weather", WEATHER), ("weather", {})],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.vectors(
            "two texts",
            {"model": "m", "embeddings": [[0.5, -1.0], [0.25, 2.0]], "prompt_eval_count": 4},
            (0.5, -1),
            (0.25, 2),
        ),
        contract.failure("no such model", 404, {"error": 'model "m" not found'}, ModelNotFound),
        contract.failure("a bad request", 400, {"error": "invalid options: temperature"}, InvalidRequest),
        contract.failure("too many requests", 429, {"error": "slow down"}, RateLimited),
        contract.failure("a crash", 500, {"error": "llama runner process has terminated"}, ServiceUnavailable),
        contract.failure(
            "a crash inside",
            200,
            ndjson(line(content="Qua"), {"error": "an error was encountered while running the model"}),
            ServiceUnavailable,
            headers=LINES,
            inside_stream=True,
        ),
    )
