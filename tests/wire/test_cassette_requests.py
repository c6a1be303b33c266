"""What was asked in a recorded exchange can be asked through us, and is then the same JSON.

Each recorded request is first written in our fields (`..._asked`), as its sender would; what only that vendor knows
goes into `extra`.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from tests_cassettes_rig import CASSETTES, Cassette, are_here, each

from rubberduck.types import EmbeddingRequest, Request

pytestmark = are_here
Body = dict[str, Any]


def encoded(cassette: Cassette, asked: Body) -> Body:
    return cassette.provider().encode(Request.parse(asked))[2]


def with_extra(ours: Body, asked: Body, told: set[str]) -> Body:
    """Everything of the request that is not `told` yet goes into `extra`."""
    return ours | {"extra": {name: asked[name] for name in asked.keys() - told if asked[name] is not None}}


def without_nothing(body: Body) -> Body:
    """A request without what makes no difference: null, empty texts, lists and objects."""
    return {name: value for name, value in body.items() if value not in (None, "", [], {})}


def chats(module: str) -> list[Cassette]:
    return [cassette for cassette in CASSETTES if (cassette.module, cassette.kind) == (module, "chat")]


# --- OpenAI's chat, and compatible servers


def chat_asked(asked: Body) -> Body:
    known = Request.model_fields.keys() | {"functions"}
    ours = {name: value for name, value in asked.items() if name in known and value is not None}
    if "max_completion_tokens" in asked:
        ours["max_tokens"] = asked["max_completion_tokens"]
    return with_extra(ours, asked, known | {"stream_options", "max_completion_tokens"})


def plain_chat(body: Body) -> Body:
    """Without defaults, empty lists, and a null beside tool calls."""
    tools = [*body.pop("tools", []), *({"type": "function", "function": f} for f in body.pop("functions", []))]
    messages = [{k: v for k, v in message.items() if v is not None} for message in body.pop("messages")]
    limit = body.pop("max_tokens", None) or body.pop("max_completion_tokens", None)
    rest = {name: body[name] for name in body.keys() - {"stream", "stream_options"} if body[name] is not None}
    rest = {name: value for name, value in rest.items() if (name, value) not in (("n", 1), ("logprobs", False))}
    return rest | {"tools": tools, "messages": messages, "limit": limit}


@each(chats("openai"))
def test_a_recorded_chat_can_be_asked_through_us(cassette: Cassette) -> None:
    body = encoded(cassette, chat_asked(cassette.asked))
    recorded = json.loads(json.dumps(cassette.asked))
    for message in recorded["messages"]:
        message["role"] = message["role"].replace("developer", "system")
    assert plain_chat(body) == plain_chat(recorded)


@each([cassette for cassette in CASSETTES if cassette.kind == "embeddings"])
def test_recorded_texts_can_be_embedded_through_us(cassette: Cassette) -> None:
    told = EmbeddingRequest.model_fields.keys() | {"encoding_format"}
    ours = {name: cassette.asked[name] for name in cassette.asked.keys() & EmbeddingRequest.model_fields.keys()}
    body = cassette.provider().encode_embedding(EmbeddingRequest.parse(with_extra(ours, cassette.asked, told)))[2]
    wanted = cassette.asked["input"]
    recorded = cassette.asked | {"input": [wanted] if isinstance(wanted, str) else wanted}
    coded = {"encoding_format": None}  # how the numbers are written down makes no difference to them
    assert without_nothing(body | coded) == without_nothing(recorded | coded)


# --- Anthropic's messages


def messages_asked(asked: Body) -> Body:
    ours = {name: asked[name] for name in asked.keys() & {"model", "max_tokens", "temperature", "stream"}}
    ours["messages"] = [message for turn in asked["messages"] for message in _our_turns(turn)]
    if "system" in asked:
        ours["system"] = asked["system"]
    if "tools" in asked:
        ours["tools"] = [_our_tool(tool) for tool in asked["tools"]]
    if choice := asked.get("tool_choice"):
        ours["tool_choice"] = {"function": {"name": choice["name"]}}
    if output := asked.get("output_config"):
        schema = {"name": "answer", "schema": output["format"]["schema"]}
        ours["response_format"] = {"type": "json_schema", "json_schema": schema}
    if "stop_sequences" in asked:
        ours["stop"] = asked["stop_sequences"]
    if "cache_control" in asked:
        ours["cache_control"] = asked["cache_control"]
    told = {*ours, "stop_sequences", "output_config"}
    if asked.get("thinking", {}).keys() == {"type", "budget_tokens"}:
        ours["reasoning_budget"] = asked["thinking"]["budget_tokens"]
        told.add("thinking")
    return with_extra(ours, asked, told)


def _our_turns(turn: Body) -> list[Body]:
    if isinstance(turn["content"], str):
        return [turn]
    results = [block for block in turn["content"] if block["type"] == "tool_result"]
    uses = [block for block in turn["content"] if block["type"] == "tool_use"]
    parts = [_our_part(block) for block in turn["content"] if block not in (*results, *uses)]
    calls = [
        {"id": use["id"], "function": {"name": use["name"], "arguments": json.dumps(use["input"])}} for use in uses
    ]
    said = {"role": turn["role"], "content": parts or None, "tool_calls": calls}
    answers = [{"role": "tool", "tool_call_id": each["tool_use_id"], "content": each["content"]} for each in results]
    return [*answers, *([said] if parts or calls else [])]


def _our_part(block: Body) -> Body:
    match block["type"]:
        case "image":
            source = block["source"]
            return {
                "type": "image_url",
                "image_url": {"url": f"data:{source['media_type']};base64,{source['data']}"},
            }
        case "document":
            named = {"title": block.get("title"), "citations": block.get("citations", {}).get("enabled")}
            data = base64.b64encode(block["source"]["data"].encode()).decode()
            return {"type": "file", "file": {"file_data": f"data:text/plain;base64,{data}"}} | named
        case _:
            return block


def _our_tool(tool: Body) -> Body:
    told = {"name": tool["name"], "description": tool.get("description"), "parameters": tool["input_schema"]}
    return {"function": told, "cache_control": tool.get("cache_control")}


def plain_messages(body: Body) -> Body:
    """A text and a single part that is this text say the same; so do defaults and nothing."""
    defaults = {"stream": False, "temperature": 1.0}
    body = {name: value for name, value in without_nothing(body).items() if defaults.get(name) != value}
    for turn in body["messages"]:
        if isinstance(turn["content"], str):
            turn["content"] = [{"type": "text", "text": turn["content"]}]
    if isinstance(body.get("system"), str):
        body["system"] = [{"type": "text", "text": body["system"]}]
    return body


@each([cassette for cassette in CASSETTES if cassette.module == "anthropic"])
def test_a_recorded_message_can_be_asked_through_us(cassette: Cassette) -> None:
    recorded = plain_messages(json.loads(json.dumps(cassette.asked)))
    asked = messages_asked(json.loads(json.dumps(cassette.asked)))
    if cassette.kind == "count":
        body = cassette.provider().encode_count(Request.parse(asked))[2]
    else:
        body = encoded(cassette, asked)
    assert plain_messages(body) == recorded


# --- OpenAI's responses


def responses_asked(asked: Body) -> Body:
    ours: Body = {name: asked[name] for name in asked.keys() & {"model", "stream"}}
    items = [{"role": "user", "content": asked["input"]}] if isinstance(asked["input"], str) else asked["input"]
    ours["messages"] = [_our_message(item) for item in items]
    if asked.get("instructions"):
        ours["system"] = asked["instructions"]
    if "temperature" in asked:
        ours["temperature"] = max(0, asked["temperature"])  # a negative one we refuse ourselves
    if "reasoning" in asked:
        ours["reasoning_effort"] = asked["reasoning"]["effort"]
    if "tools" in asked:
        ours["tools"] = [{"function": {k: v for k, v in tool.items() if k != "type"}} for tool in asked["tools"]]
    told = {*ours, "input", "instructions", "reasoning", "store", "include"}
    if "message.output_text.logprobs" in asked.get("include", []):
        ours["logprobs"] = True
    return with_extra(ours, asked, told)


def _our_message(item: Body) -> Body:
    match item.get("type"):
        case "function_call":
            function = {"name": item["name"], "arguments": item["arguments"]}
            return {"role": "assistant", "tool_calls": [{"id": item["call_id"], "function": function}]}
        case "function_call_output":
            return {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
        case _:
            return item


def plain_responses(body: Body) -> Body:
    """Without what we always ask for (nothing kept, thoughts sealed), and instructions as the first message."""
    items = body["input"] if isinstance(body["input"], list) else [{"role": "user", "content": body["input"]}]
    if body.get("instructions"):
        items = [{"role": "system", "content": body["instructions"]}, *items]
    tools = [{"strict": False} | tool for tool in body.get("tools", [])]
    rest = {name: body[name] for name in body.keys() - {"instructions", "store", "include"}}
    logprobs = "message.output_text.logprobs" in body.get("include", [])
    return without_nothing(rest | {"input": items, "tools": tools, "logprobs": logprobs, "stream": rest.get("stream")})


@each(chats("openai_responses"))
def test_a_recorded_response_can_be_asked_for_through_us(cassette: Cassette) -> None:
    body = encoded(cassette, responses_asked(cassette.asked))
    recorded = cassette.asked | {"stream": bool(cassette.asked.get("stream"))}
    if recorded.get("temperature", 0) < 0:
        recorded["temperature"] = 0
    assert plain_responses({"stream": False} | body) == plain_responses(recorded)


# --- Ollama's chat


def ollama_asked(asked: Body) -> Body:
    ours: Body = {name: asked[name] for name in asked.keys() & {"model", "stream", "tools"}}
    ours["messages"] = []
    for turn in asked["messages"]:
        calls = [
            {"id": "c", "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
            for call in turn.get("tool_calls", [])
        ]
        answers = {"tool_call_id": "c"} if turn["role"] == "tool" else {}
        ours["messages"].append(turn | {"tool_calls": calls} | answers)
    return ours


def plain_ollama(body: Body) -> Body:
    """Without the size of the context, which we always set, and the names and ids by which results find their calls."""
    body = {name: value for name, value in without_nothing(body).items() if name not in ("options", "truncate")}
    for turn in body["messages"]:
        for name in ("tool_name", "tool_call_id"):
            turn.pop(name, None)
        for call in turn.get("tool_calls", []):
            call.pop("id", None)
    return body


@each([cassette for cassette in chats("ollama") if "messages" in cassette.asked])
def test_a_recorded_chat_with_ollama_can_be_asked_through_us(cassette: Cassette) -> None:
    body = encoded(cassette, ollama_asked(cassette.asked))
    assert plain_ollama(body) == plain_ollama(json.loads(json.dumps(cassette.asked)))
