"""Answers as each vendor's API gives them, whole and as the events in which they would have come."""

from __future__ import annotations

import json
from typing import Any

Json = dict[str, Any]

# --- OpenAI's chat

USAGE = {
    "prompt_tokens": 20, "completion_tokens": 9, "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 16}, "completion_tokens_details": {"reasoning_tokens": 4},
}  # fmt: skip
CALLS = [
    {"id": f"call_{place}", "type": "function", "function": {"name": "weather", "arguments": f'{{"place": "{place}"}}'}}
    for place in ("Ulm", "Köln")
]


def chat(*messages: Json, reason: str = "stop") -> Json:
    choices = [
        {"index": at, "message": {"role": "assistant", "content": None} | message, "finish_reason": reason}
        for at, message in enumerate(messages)
    ]
    head = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    return head | {"choices": choices, "usage": USAGE}


def chat_stream(*deltas: tuple[int, Json | str]) -> bytes:
    """Each delta with its choice; a text instead of one is a finish reason."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    chunks = []
    for index, said in deltas:
        delta, reason = (said, None) if isinstance(said, dict) else ({}, said)
        chunks.append(head | {"choices": [{"index": index, "delta": delta, "finish_reason": reason}], "usage": None})
    events = [*chunks, head | {"choices": [], "usage": USAGE}]
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events) + b"data: [DONE]\n\n"


def fragment(index: int, **said: Any) -> Json:
    function = {name: said.pop(name) for name in ("name", "arguments") if name in said}
    return {"tool_calls": [{"index": index, "function": function} | said]}


CHATS = {
    "a text": chat({"content": "Grüße 🦆"}),
    "two calls": chat({"tool_calls": CALLS}, reason="tool_calls"),
    "a refusal": chat({"refusal": "No."}),
    "two answers": chat({"content": "One"}, {"content": "Two"}, reason="length"),
}
CHAT_STREAMS = {
    "a text": chat_stream(
        (0, {"role": "assistant", "content": ""}), (0, {"content": "Grüße "}), (0, {"content": "🦆"}), (0, "stop")
    ),
    "two calls": chat_stream(
        (0, fragment(0, id="a", type="function", name="weather", arguments="")),
        (0, fragment(0, arguments='{"place": ')),
        (0, fragment(0, arguments='"Ulm"}')),
        (0, fragment(1, id="b", type="function", name="weather", arguments='{"place": "Köln"}')),
        (0, "tool_calls"),
    ),
    "a refusal": chat_stream((0, {"role": "assistant", "refusal": "N"}), (0, {"refusal": "o."}), (0, "stop")),
    "two answers": chat_stream(
        (0, {"content": "O"}), (1, {"content": "Tw"}), (0, {"content": "ne"}),
        (0, "length"), (1, {"content": "o"}), (1, "stop"),
    ),
}  # fmt: skip


# --- OpenAI's responses

RESPONSES_USAGE = {
    "input_tokens": 20, "input_tokens_details": {"cached_tokens": 16, "cache_write_tokens": 0}, "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 29,
}  # fmt: skip
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]}
SAID = {
    "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
    "content": [{"type": "output_text", "text": "Grüße 🦆", "annotations": [], "logprobs": []}],
}  # fmt: skip
NO = SAID | {"content": [{"type": "refusal", "refusal": "No."}]}
CALLED = {
    "type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather",
    "arguments": '{"place": "Ulm"}', "status": "completed",
}  # fmt: skip


def response(*items: Json, **said: Any) -> Json:
    head = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed", "error": None}
    rest = {"incomplete_details": None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    return head | rest | {"output": list(items), "usage": RESPONSES_USAGE} | said


RESPONSES = {
    "a text": response(SAID),
    "thoughts and a call": response(THOUGHT, CALLED),
    "a refusal": response(NO),
    "cut short": response(SAID, status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
}


def events_of(said: Json) -> bytes:
    """The events in which this response would have come, each text in two deltas."""
    events: list[Json] = [{"type": "response.created", "response": said | {"output": [], "status": "in_progress"}}]
    for at, item in enumerate(said["output"]):
        place = {"output_index": at, "item_id": item["id"]}
        bare = {name: [] if isinstance(value, list) else value for name, value in item.items()}
        events.append({"type": "response.output_item.added", "output_index": at, "item": bare | _unsaid(item)})
        events += [event | place for event in _deltas(item)]
        events.append({"type": "response.output_item.done", "output_index": at, "item": item})
    events.append({"type": f"response.{said['status']}", "response": said})
    written = [event | {"sequence_number": number} for number, event in enumerate(events)]
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in written)


def _unsaid(item: Json) -> Json:
    return {"arguments": ""} if item["type"] == "function_call" else {}


def _deltas(item: Json) -> list[Json]:
    match item["type"]:
        case "function_call":
            return [
                {"type": "response.function_call_arguments.delta", "delta": item["arguments"][:4]},
                {"type": "response.function_call_arguments.delta", "delta": item["arguments"][4:]},
                {"type": "response.function_call_arguments.done", "arguments": item["arguments"], "name": "weather"},
            ]
        case "reasoning":
            part = {"summary_index": 0, "part": {"type": "summary_text", "text": ""}}
            return [
                {"type": "response.reasoning_summary_part.added"} | part,
                {"type": "response.reasoning_summary_text.delta", "summary_index": 0, "delta": "Hm."},
                {"type": "response.reasoning_summary_text.done", "summary_index": 0, "text": "Hm."},
            ]
        case _:
            (part,) = item["content"]
            kind, word = ("refusal", "refusal") if part["type"] == "refusal" else ("output_text", "text")
            added = {"type": "response.content_part.added", "content_index": 0, "part": part | {word: ""}}
            done = {"type": f"response.{kind}.done", "content_index": 0, word: part[word], "logprobs": []}
            halves = [part[word][:2], part[word][2:]]
            deltas = [
                {"type": f"response.{kind}.delta", "content_index": 0, "delta": half, "logprobs": []} for half in halves
            ]
            return [added, *deltas, done]


# --- Anthropic's messages

CLAUDE_USAGE = {
    "input_tokens": 4, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 16, "output_tokens": 9,
    "output_tokens_details": {"thinking_tokens": 4},
}  # fmt: skip
THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
TEXT = {"type": "text", "text": "Grüße 🦆", "citations": None}
USES = [{"type": "tool_use", "id": f"toolu_{at}", "name": "weather", "input": {"place": at}} for at in ("Ulm", "Köln")]
BARE = {"type": "tool_use", "id": "toolu_3", "name": "clock", "input": {}}


def message(*blocks: Json, reason: str = "end_turn") -> Json:
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return head | {"content": list(blocks), "stop_reason": reason, "usage": CLAUDE_USAGE}


MESSAGES = {
    "a text": message(TEXT),
    "thoughts, a text and calls": message(THINKING, TEXT, *USES, BARE, reason="tool_use"),
    "nothing": message(),
    "cut short": message(TEXT, reason="max_tokens"),
    "a pause": message(TEXT, reason="pause_turn"),
    "a refusal": message(TEXT, reason="refusal"),
}


def claude_events(said: Json) -> bytes:
    """The events in which this message would have come, each text in two deltas."""
    begun = said | {"content": [], "stop_reason": None, "usage": CLAUDE_USAGE | {"output_tokens": 1}}
    events: list[Json] = [{"type": "message_start", "message": begun}, {"type": "ping"}]
    for at, block in enumerate(said["content"]):
        bare, deltas = _claude_deltas(block)
        events.append({"type": "content_block_start", "index": at, "content_block": bare})
        events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": at})
    delta = {"stop_reason": said["stop_reason"], "stop_sequence": None}
    events.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 9}})
    events.append({"type": "message_stop"})
    return b"".join(b"event: %b\ndata: %b\n\n" % (e["type"].encode(), json.dumps(e).encode()) for e in events)


def _claude_deltas(block: Json) -> tuple[Json, list[Json]]:
    match block["type"]:
        case "text":
            halves = [block["text"][:2], block["text"][2:]]
            return block | {"text": ""}, [{"type": "text_delta", "text": half} for half in halves]
        case "thinking":
            said = {"type": "thinking_delta", "thinking": block["thinking"]}
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return block | {"thinking": "", "signature": ""}, [said, signed]
        case _:
            written = json.dumps(block["input"]) if block["input"] else ""
            parts = [written[:3], written[3:]] if written else [""]
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": part} for part in parts]


# --- Ollama

COUNTERS = {"prompt_eval_count": 20, "eval_count": 9, "total_duration": 5}
OLLAMA_CALLS = [{"function": {"name": "weather", "arguments": {"place": "Ulm"}}}]
OLLAMA_HEAD = {"model": "m", "created_at": "2026-11-23T03:00:00Z"}
OLLAMAS = {
    "a text": {"content": "Grüße 🦆"},
    "thoughts and a call": {"content": "", "thinking": "Hm.", "tool_calls": OLLAMA_CALLS},
}
