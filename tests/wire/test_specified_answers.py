"""What each field of an answer becomes, told in the servers' own JSON: usage first, then all the rest, then habits."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from rubberduck.config import ProviderConfig
from rubberduck.errors import ServiceUnavailable
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import Response, Usage

Fields = dict[str, Any]


@cache
def adapter(word: str) -> HTTPProvider:
    return resolve(word).init(ProviderConfig(name=word, module=word, api_keys=("k",)))


def read(word: str, said: Fields | bytes) -> Response:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return adapter(word).decode(200, {}, body)


def streamed(word: str, body: bytes) -> Response:
    decoder, answer = adapter(word).stream_decoder(), Assembly()
    for chunk in [*decoder.feed(body), *decoder.end()]:
        answer.add(chunk)
    return answer.response()


def sse(*events: Any, named: bool = False) -> bytes:
    heads = [f"event: {each['type']}\n" if named else "" for each in events]
    return "".join(f"{head}data: {json.dumps(each)}\n\n" for head, each in zip(heads, events, strict=True)).encode()


# --- usage

CHAT_USAGE = {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
    "prompt_tokens_details": {
        "cached_tokens": 60, "cache_write_tokens": 7, "audio_tokens": 5, "image_tokens": 4, "text_tokens": 3,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 20, "audio_tokens": 6, "text_tokens": 2,
        "accepted_prediction_tokens": 1, "rejected_prediction_tokens": 8,
    },
}  # fmt: skip
RESPONSES_USAGE = {
    "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 7},
    "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}, "total_tokens": 150,
}  # fmt: skip
CLAUDE_USAGE = {
    "input_tokens": 30, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 10,
    "cache_creation": {"ephemeral_5m_input_tokens": 8, "ephemeral_1h_input_tokens": 2},
    "output_tokens": 50, "output_tokens_details": {"thinking_tokens": 20},
    "server_tool_use": {"web_search_requests": 1}, "service_tier": "priority",
}  # fmt: skip
OLLAMA_USAGE = {
    "total_duration": 9, "load_duration": 1, "prompt_eval_count": 100, "prompt_eval_duration": 3,
    "eval_count": 50, "eval_duration": 4,
}  # fmt: skip


def whole(word: str, usage: Fields | None) -> Fields:
    """An answer with this usage and nothing to say."""
    match word:
        case "openai":
            return {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}], "usage": usage}
        case "openai_responses":
            return {"status": "completed", "output": [], "usage": usage}
        case "anthropic":
            return {"type": "message", "content": [], "stop_reason": "end_turn", "usage": usage}
        case _:
            return {"message": {"content": "Hi"}, "done": True, "done_reason": "stop", **(usage or {})}


def in_a_stream(word: str, usage: Fields | None) -> bytes:
    match word:
        case "openai":
            first = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "usage": None}
            return sse(first, {"choices": [], "usage": usage}) + b"data: [DONE]\n\n"
        case "openai_responses":
            return sse({"type": "response.completed", "response": {"id": "r", **whole(word, usage)}}, named=True)
        case "anthropic":
            start = {"type": "message_start", "message": {"id": "m", "usage": usage}}
            end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
            return sse(start, end, {"type": "message_stop"}, named=True)
        case _:
            return json.dumps(whole(word, usage)).encode()


USAGES = [
    # all of it
    ("openai", CHAT_USAGE, Usage(100, 50, 60, 7, 20, prompt_audio_tokens=5, completion_audio_tokens=6)),
    ("openai_responses", RESPONSES_USAGE, Usage(100, 50, 60, 7, 20)),
    ("anthropic", CLAUDE_USAGE, Usage(100, 50, 60, 10, 20, cache_write_1h_tokens=2, service_tier="priority")),
    ("ollama", OLLAMA_USAGE, Usage(100, 50)),
    # what is not told is unknown, and not 0
    ("openai", {"prompt_tokens": 9, "completion_tokens": 3}, Usage(9, 3)),
    ("openai", {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {}}, Usage(9, 3)),
    ("openai", {"prompt_tokens": 9, "completion_tokens": 3, "completion_tokens_details": None}, Usage(9, 3)),
    ("openai_responses", {"input_tokens": 9, "output_tokens": 3}, Usage(9, 3)),
    ("anthropic", {"input_tokens": 9, "output_tokens": 3}, Usage(9, 3)),
    ("anthropic", {"input_tokens": 9, "output_tokens": 3, "cache_creation": None}, Usage(9, 3)),
    # nothing is nothing where it is told
    (
        "openai",
        {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}},
        Usage(9, 3, cached_tokens=0),
    ),
    ("anthropic", {"input_tokens": 9, "output_tokens": 3, "cache_read_input_tokens": 0}, Usage(9, 3, cached_tokens=0)),
    # counters that are left out are 0 here
    ("ollama", {"eval_count": 3}, Usage(0, 3)),
    ("ollama", {"prompt_eval_count": 9}, Usage(9, 0)),
]


@pytest.mark.parametrize(("word", "told", "expected"), USAGES)
def test_usage_says_all_that_was_told(word: str, told: Fields, expected: Usage) -> None:
    for answer in (read(word, whole(word, told)), streamed(word, in_a_stream(word, told))):
        assert answer.usage == expected
        assert answer.usage.raw is not None
        assert told.items() >= {name: value for name, value in answer.usage.raw.items() if value is not None}.items()


@pytest.mark.parametrize("word", ["openai", "openai_responses", "anthropic", "ollama"])
def test_usage_that_was_not_told_is_no_usage_but_an_estimate(word: str) -> None:
    assert read(word, whole(word, None)).usage.estimated
    assert streamed(word, in_a_stream(word, None)).usage.estimated


# --- the other fields


def test_every_field_of_a_chat_completion_has_its_place() -> None:
    token = {"token": "No", "logprob": -0.5, "bytes": [78, 111], "top_logprobs": [{"token": "Hm", "logprob": -2}]}
    answer = read("openai", {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "gpt-4.1-2025",
        "system_fingerprint": "fp_1", "service_tier": "default", "usage": CHAT_USAGE,
        "choices": [
            {
                "index": 1, "finish_reason": "stop", "logprobs": {"content": None, "refusal": [token]},
                "message": {"role": "assistant", "content": None, "refusal": "No.", "annotations": []},
            },
            {
                "index": 0, "finish_reason": "tool_calls", "logprobs": None,
                "message": {
                    "role": "assistant", "content": "Hi", "tool_calls": [
                        {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}},
                        {"id": "b", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
                    ],
                },
            },
        ],
    })  # fmt: skip
    assert (answer.id, answer.created, answer.model) == ("chatcmpl-1", 1700000000, "gpt-4.1-2025")
    assert (answer.system_fingerprint, answer.service_tier) == ("fp_1", "default")
    refusal, calls = answer.choices
    assert (refusal.index, refusal.message.content, refusal.message.refusal) == (1, None, "No.")
    assert refusal.logprobs is not None
    (told,) = refusal.logprobs.refusal
    assert (told.token, told.logprob, told.bytes, told.top[0].token) == ("No", -0.5, (78, 111), "Hm")
    assert refusal.logprobs.content == ()
    assert (calls.index, calls.message.role, calls.message.text) == (0, "assistant", "Hi")
    assert [(call.id, call.type, call.function.name, call.function.arguments) for call in calls.message.tool_calls] == [
        ("a", "function", "look", '{"x": 1}'),
        ("b", "custom", "shell", "ls"),
    ]


def test_every_field_of_a_message_has_its_place() -> None:
    answer = read("anthropic", {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-6", "usage": CLAUDE_USAGE,
        "content": [
            {"type": "text", "text": "Hi", "citations": [
                {"type": "char_location", "cited_text": "c", "document_title": "T", "start_char_index": 0},
                {"type": "web_search_result_location", "url": "https://a.example", "title": "A", "cited_text": "d"},
            ]},
        ],
        "stop_reason": "refusal", "stop_sequence": None,
        "stop_details": {"type": "refusal", "category": "cyber", "explanation": None},
    })  # fmt: skip
    assert (answer.id, answer.model, answer.service_tier) == ("msg_1", "claude-opus-4-6", "priority")
    message = answer.choices[0].message
    assert [(each.type, each.url, each.title, each.cited_text) for each in message.annotations] == [
        ("char_location", None, "T", "c"),
        ("web_search_result_location", "https://a.example", "A", "d"),
    ]
    assert (message.text, message.refusal) == ("Hi", "cyber")


def test_every_delta_of_a_message_has_its_place() -> None:
    """Text may come before thinking, a signature comes whole, JSON is padded, and what is unknown is passed over."""
    cited = {"type": "page_location", "cited_text": "c", "document_title": "T"}
    body = sse(
        {"type": "message_start", "message": {"id": "m", "model": "claude-opus-4-6", "usage": {"input_tokens": 5}}},
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": cited}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "signature_delta", "signature": "old"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "signature_delta", "signature": "new"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "redacted_thinking", "data": "eHh4"}},
        {"type": "content_block_stop", "index": 2},
        {"type": "content_block_start", "index": 3, "content_block": {"type": "compaction", "content": None}},
        {"type": "content_block_delta", "index": 3, "delta": {"type": "compaction_delta", "content": "So far."}},
        {"type": "content_block_stop", "index": 3},
        {"type": "content_block_start", "index": 4, "content_block": {"type": "tool_use", "id": "t", "name": "now"}},
        {"type": "content_block_delta", "index": 4, "delta": {"type": "input_json_delta", "partial_json": ""}},
        {"type": "content_block_stop", "index": 4},
        {"type": "quack_start"},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 7}},
        {"type": "message_stop"},
        named=True,
    ).replace(b"}\n\n", b"}      \n\n")
    answer = streamed("anthropic", body)
    choice = answer.choices[0]
    assert (choice.message.text, choice.message.reasoning, choice.finish_reason) == ("Hi", "Hm.", "tool_calls")
    assert [each.title for each in choice.message.annotations] == ["T"]
    assert [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls] == [
        ("t", "now", "{}"),
    ]
    assert choice.message.native is not None
    assert choice.message.native.items[1:4] == (
        {"type": "thinking", "thinking": "Hm.", "signature": "new"},
        {"type": "redacted_thinking", "data": "eHh4"},
        {"type": "compaction", "content": "So far."},
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 7)


def test_every_field_of_a_line_of_ollama_has_its_place() -> None:
    said = {
        "model": "qwen3", "created_at": "2026-11-02T10:00:00.123456789Z", "done": True, "done_reason": "stop",
        "message": {
            "role": "assistant", "content": "Hi", "thinking": "Hm.",
            "tool_calls": [{"id": "c", "function": {"name": "look", "arguments": {"x": 1}}}],
        },
        "logprobs": [{"token": "Hi", "logprob": -0.5, "top_logprobs": [{"token": "Ho", "logprob": -2}]}],
        **OLLAMA_USAGE,
    }  # fmt: skip
    answer = read("ollama", said)
    choice = answer.choices[0]
    assert (answer.model, answer.created) == ("qwen3", 1793613600)
    assert (choice.message.text, choice.message.reasoning, choice.finish_reason) == ("Hi", "Hm.", "tool_calls")
    assert [(call.id, call.function.name, call.function.arguments) for call in choice.message.tool_calls] == [
        ("c", "look", '{"x": 1}'),
    ]
    assert choice.logprobs is not None
    assert [(each.token, each.top[0].token) for each in choice.logprobs.content] == [("Hi", "Ho")]
    assert streamed("ollama", json.dumps(said).encode()).choices == answer.choices


# --- habits of servers with OpenAI's format


def test_blank_lines_before_an_answer_are_no_part_of_it() -> None:
    body = b"\n\n \r\n" + json.dumps(whole("openai", CHAT_USAGE)).encode()
    assert read("openai", body).text == "Hi"


def test_a_filtered_choice_may_have_no_message() -> None:
    choice = {"index": 0, "finish_reason": "content_filter", "content_filter_results": {"hate": {"filtered": True}}}
    answer = read("openai", {"choices": [choice], "prompt_filter_results": []}).choices[0]
    assert (answer.finish_reason, answer.message.text) == ("content_filter", "")
    streamed_choice = streamed("openai", sse({"choices": [choice]})).choices[0]
    assert streamed_choice.finish_reason == "content_filter"


def test_an_engines_timings_are_passed_over() -> None:
    last = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "timings": {"prompt_n": 9, "predicted_n": 3},
    }
    answer = streamed("llama_server", sse({"choices": [{"index": 0, "delta": {"reasoning_content": "Hm."}}]}, last))
    assert (answer.choices[0].message.reasoning, answer.choices[0].finish_reason) == ("Hm.", "stop")


def test_usage_that_is_told_twice_counts_once() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    said = whole("openai", usage) | {"x_groq": {"id": "req", "usage": usage}}
    assert read("groq", said).usage == Usage(9, 3)
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": usage, "x_groq": {"usage": usage}}
    assert streamed("groq", sse(last)).usage == Usage(9, 3)


def test_an_error_counts_whatever_else_its_chunk_holds() -> None:
    decoder = adapter("openai").stream_decoder()
    both = {"choices": [{"index": 0, "delta": {"content": "lost"}, "finish_reason": "stop"}], "error": {"code": 502}}
    chunks = decoder.feed(sse({"choices": [{"index": 0, "delta": {"content": "Hi"}}]}, both))
    assert [chunk.delta.content for chunk in chunks] == ["Hi"]
    with pytest.raises(ServiceUnavailable):
        decoder.check()


@pytest.mark.parametrize("nothing", [None, False, "", {}])
def test_an_error_that_is_none_is_none(nothing: object) -> None:
    said: Fields = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}], "error": nothing}
    assert streamed("openai", sse(said)).text == "Hi"
