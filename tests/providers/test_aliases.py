"""Models that are asked by an alias answer by another name, and still get their sealed thoughts back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

ASKED, ANSWERED, OTHER = "the-latest", "some-model-3-preview", "some-model-2"
SEAL = {"google": {"thought_signature": "s"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_content": SEAL}
DETAILS = [{"type": "reasoning.text", "text": "hm", "signature": "s", "index": 0}]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "s"}
SPOKEN = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
SPOKEN |= {"content": [{"type": "output_text", "text": "Quack", "annotations": []}]}


def chat(**message: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": "Quack", **message}, "finish_reason": "stop"}
    return {"id": "1", "model": ANSWERED, "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}


def chat_stream(**delta: Any) -> list[Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": "Quack", **delta}, "finish_reason": "stop"}
    return [{"id": "1", "model": ANSWERED, "choices": [choice]}]


RESPONSES = {"id": "resp_1", "object": "response", "model": ANSWERED, "status": "completed"}
RESPONSES |= {"output": [REASONING, SPOKEN], "usage": {"input_tokens": 1, "output_tokens": 1}}
ANTHROPIC = {"id": "msg_1", "type": "message", "role": "assistant", "model": ANSWERED, "stop_reason": "end_turn"}
ANTHROPIC |= {"content": [THOUGHT, {"type": "text", "text": "Quack"}], "usage": {"input_tokens": 1, "output_tokens": 1}}
WHOLE = {
    "gemini": chat(tool_calls=[CALL]),
    "openrouter": chat(reasoning_details=DETAILS),
    "anthropic": ANTHROPIC,
    "openai_responses": RESPONSES,
}
STREAMS = {
    "gemini": chat_stream(tool_calls=[{"index": 0, **CALL}]),
    "openrouter": chat_stream(reasoning_details=DETAILS),
    "anthropic": [
        {"type": "message_start", "message": ANTHROPIC | {"content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": THOUGHT},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "Quack"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ],
    "openai_responses": [
        {"type": "response.output_item.done", "output_index": 0, "item": REASONING},
        {"type": "response.output_item.done", "output_index": 1, "item": SPOKEN},
        {"type": "response.completed", "response": RESPONSES},
    ],
}
WORDS = pytest.mark.parametrize("word", WHOLE)


def goes_back(make: Any, word: str, ask: Any, model: str, message: Any) -> bool:
    """Whether a model is sent what is sealed in a message."""
    messages = [{"role": "user", "content": "Hi"}, message.model_dump(), {"role": "user", "content": "Go on"}]
    body = make(word, api_keys=["k"]).encode(ask(model, messages=messages, max_tokens=9))[2]
    return "'s'" in str(body)


def test_a_whole_answer_keeps_the_name_that_was_asked_for(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    for word, body in WHOLE.items():
        server = vendor(httpx.Response(200, json=body))
        response = run(make(word, server).complete(ask(ASKED, max_tokens=9)))
        message = response.choices[0].message
        assert (response.model, message.native.model, message.native.asked) == (ANSWERED, ANSWERED, ASKED), word
        sent = [goes_back(make, word, ask, model, message) for model in (ASKED, ANSWERED, OTHER)]
        assert sent == [True, True, False], word


@WORDS
def test_a_stream_keeps_the_name_that_was_asked_for(
    word: str, make: Any, vendor: Any, run: Any, gather: Any, ask: Any, sse: Any, named: Any
) -> None:
    events = STREAMS[word]
    stream = sse(*events) if "choices" in events[0] else named(*events)
    for headers, content in (
        ({"content-type": "text/event-stream"}, stream),
        ({"content-type": "application/json"}, httpx.Response(200, json=WHOLE[word]).content),  # it does not stream
    ):
        server = vendor(httpx.Response(200, headers=headers, content=content))
        chunks = run(gather(make(word, server).stream(ask(ASKED, max_tokens=9))))
        (native,) = [chunk.delta.native for chunk in chunks if chunk.delta.native is not None]
        assert (native.model, native.asked) == (ANSWERED, ASKED)


@WORDS
def test_a_model_that_answers_by_its_own_name_is_not_named_twice(
    word: str, make: Any, vendor: Any, run: Any, ask: Any
) -> None:
    server = vendor(httpx.Response(200, json=WHOLE[word]))
    message = run(make(word, server).complete(ask(ANSWERED, max_tokens=9))).choices[0].message
    assert message.native.asked == ""
    assert not goes_back(make, word, ask, ASKED, message)
