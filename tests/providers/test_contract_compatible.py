"""Every server that speaks OpenAI's chat format in its own way, under the contract of all providers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rubberduck.config import BUILT_IN_MODULES
from rubberduck.errors import AuthenticationFailed, InvalidRequest, RateLimited, ServiceUnavailable
from rubberduck.testing import ProviderContract, contract

WORDS = [word for word, place in BUILT_IN_MODULES.items() if ".compatible:" in place]
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
COUNTS = {"prompt_tokens": 9, "completion_tokens": 4}
WEATHER = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}


def whole(reason: str, **message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "", **message}, "finish_reason": reason}
    return {"id": "c", "model": "m", "created": 7, "choices": [choice], "usage": USAGE}


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def sse(*events: dict[str, Any]) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


class Compatible(ProviderContract):
    """What any of them may say; each test below is of one server."""

    provider = "vllm"
    model = "any-model"
    options = {"models": ("any-model",), "version": "2024-10-21"}
    tries = 30
    exchanges = (
        contract.answer("text", whole("stop", content="Quack 🦆."), text="Quack 🦆.", usage=COUNTS),
        contract.answer(
            "a call",
            whole("tool_calls", tool_calls=[WEATHER]),
            tool_calls=[("weather", {"city": "Bern"})],
            finish_reason="tool_calls",
        ),
        contract.stream(
            "text after thought",
            ": waking\n\n"
            + sse(chunk(role="assistant", content="", reasoning_content="Hm."), chunk(content="Quack"), chunk("stop"))
            .replace("data: [DONE]", f"data: {json.dumps({'id': 'c', 'choices': [], 'usage': USAGE})}\n\ndata: [DONE]"),
            text="Quack",
            reasoning="Hm.",
            usage=COUNTS,
        ),
        contract.stream(
            "a whole call in one chunk, with the usage",
            sse(chunk("tool_calls", tool_calls=[WEATHER | {"index": 0}]) | {"usage": USAGE}),
            tool_calls=[("weather", {"city": "Bern"})],
            finish_reason="tool_calls",
            usage=COUNTS,
        ),
        contract.vectors("a text", {"data": [{"index": 0, "embedding": [0.5, -1.0]}], "usage": USAGE}, (0.5, -1)),
        contract.failure("too many", 429, {"error": {"message": "Later."}}, RateLimited),
        contract.failure("a number for a code", 401, {"error": {"message": "No.", "code": 401}}, AuthenticationFailed),
        contract.failure("a plain text", 422, {"error": "Unknown field."}, InvalidRequest),
        contract.failure("a proxy", 502, "<html>", ServiceUnavailable),
    )  # fmt: skip


STOPS = {"messages": [{"role": "user", "content": "Hi"}], "stop": [f"s{number}" for number in range(17)]}
LIMITED = ("azure", "groq", "openrouter", "deepseek")


@pytest.mark.parametrize("word", WORDS)
def test_a_server_of_its_own_dialect_keeps_the_contract(word: str) -> None:
    own = {"provider": word, "refuses": (STOPS,) if word in LIMITED else ()}
    assert type(f"{word}Contract", (Compatible,), own).broken() == {}
