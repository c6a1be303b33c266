"""Reads what Anthropic's Messages API answers: blocks, why an answer ended, and what it consumed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rubberduck.providers.anthropic.messages import FORMAT
from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_list, as_name, as_text, made_id
from rubberduck.types import (
    Annotation,
    Choice,
    FinishReason,
    FunctionCall,
    Message,
    Native,
    Response,
    ToolCall,
    Usage,
)

Block = dict[str, Any]

_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
    "pause_turn": FinishReason.PAUSE,
}
_HELD = ("text", "tool_use")
"""The blocks that our own fields hold whole."""


def decode_message(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed `message`. Usage that the server did not tell is marked `estimated`, and zero."""
    blocks = [block for block in said["content"] if isinstance(block, dict)]
    answer_id, model, raw = as_text(said.get("id")), as_text(said.get("model")), as_name(said.get("stop_reason"))
    usage = usage_of(as_dict(said.get("usage"))) or Usage(estimated=True)
    refusal = refusal_of(raw, said)
    message = _message(blocks, answer_id, refusal).model_copy(update={"native": native_of(blocks, model, raw)})
    reason = finish_reason(raw, has_tools=bool(message.tool_calls))
    return Response(
        id=answer_id,
        model=model,
        choices=(Choice(0, message, reason, raw, as_name(said.get("stop_sequence"))),),
        usage=usage,
        provider=provider,
        service_tier=usage.service_tier,
    )


def _message(blocks: list[Block], answer_id: str, refusal: str | None) -> Message:
    texts, annotations, length = [], [], 0
    for block in blocks:
        if block.get("type") == "text":
            texts.append(as_text(block.get("text")))
            annotations += annotations_of(as_list(block.get("citations")), length, length + len(texts[-1]))
            length += len(texts[-1])
    reasoning = "".join([as_text(block.get("thinking")) for block in blocks if block.get("type") == "thinking"])
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    calls = tuple(_tool_call(use, answer_id, number) for number, use in enumerate(uses))
    text = "".join(texts)
    return Message(
        role="assistant",
        content=text if text or not (calls or refusal) else None,
        tool_calls=calls,
        reasoning=reasoning or None,
        refusal=refusal,
        annotations=tuple(annotations),
    )


def _tool_call(use: Block, answer_id: str, number: int) -> ToolCall:
    name = as_text(use.get("name"))
    function = FunctionCall(name=name, arguments=as_json_text(use.get("input")) or "{}")
    return ToolCall(id=as_name(use.get("id")) or made_call_id(answer_id, number, name), function=function)


def made_call_id(answer_id: str, number: int, name: str) -> str:
    """An id for a call that came without one."""
    return made_id(answer_id, number, name, prefix="toolu_")


def annotations_of(citations: Iterable[object], start: int, end: int) -> list[Annotation]:
    """The sources of a block of text, which stands at these characters of the answer.

    The places that they name themselves are places in the sources; these stay in `raw`.
    """
    return [_annotation(each, start, end) for each in citations if isinstance(each, dict) and as_name(each.get("type"))]


def _annotation(said: dict[str, Any], start: int, end: int) -> Annotation:
    return Annotation(
        type=as_text(said["type"]) or "citation",
        url=as_name(said.get("url")) or as_name(said.get("source")),
        title=as_name(said.get("document_title")) or as_name(said.get("title")),
        cited_text=as_name(said.get("cited_text")),
        start=start,
        end=end,
        raw=said,
    )


def finish_reason(raw: str | None, *, has_tools: bool) -> FinishReason:
    """Why an answer ended, in our vocabulary."""
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and has_tools else reason


def refusal_of(raw: str | None, said: dict[str, Any]) -> str | None:
    """Why an answer was refused, in the words of the API; what it wrote of the answer is no refusal."""
    if raw != "refusal":
        return None
    details = as_dict(said.get("stop_details"))
    return as_name(details.get("explanation")) or as_name(details.get("category"))


def must_go_back(blocks: list[Block], raw: str | None) -> bool:
    """Whether something in them has to go back that our own fields do not hold."""
    return raw == "pause_turn" or not all(block.get("type") in _HELD for block in blocks)


def native_of(blocks: list[Block], model: str, raw: str | None) -> Native | None:
    """The blocks as they came, if they must go back so."""
    if not must_go_back(blocks, raw):
        return None
    try:
        json.dumps(blocks, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None  # nothing that could be sent
    return Native(format=FORMAT, model=model, items=tuple(blocks))


# --- usage


def usage_of(said: dict[str, Any]) -> Usage | None:
    """The usage in our terms, where all input counts as prompt: `input_tokens` leaves the cached part out.

    Of several `iterations` it is the last, as the API counts; `steps_of` tells them all.
    """
    fresh, output = as_count(said.get("input_tokens")), as_count(said.get("output_tokens"))
    if fresh is None and output is None:
        return None
    read, wrote = as_count(said.get("cache_read_input_tokens")), as_count(said.get("cache_creation_input_tokens"))
    kept = as_dict(said.get("cache_creation"))
    short, long = as_count(kept.get("ephemeral_5m_input_tokens")), as_count(kept.get("ephemeral_1h_input_tokens"))
    if wrote is None and (short is not None or long is not None):
        wrote = (short or 0) + (long or 0)
    return Usage(
        prompt_tokens=(fresh or 0) + (read or 0) + (wrote or 0),
        completion_tokens=output or 0,
        cached_tokens=read,
        cache_write_tokens=wrote,
        reasoning_tokens=as_count(as_dict(said.get("output_tokens_details")).get("thinking_tokens")),
        cache_write_1h_tokens=None if long is None else min(long, wrote or 0),
        service_tier="fast" if said.get("speed") == "fast" else as_name(said.get("service_tier")),
        raw=said,
    )


def steps_of(usage: Usage, model: str) -> list[tuple[str, Usage]]:
    """What is billed, step by step with the model of each, where an answer took several; else nothing.

    A conversation that is shortened on the way takes a step of its own, which the counts of the answer leave out.
    """
    said = usage.raw or {}
    steps = [each for each in as_list(said.get("iterations")) if isinstance(each, dict)]
    about = {name: said.get(name) for name in ("service_tier", "speed")}
    told = [(as_name(step.get("model")) or model, usage_of(about | step)) for step in steps]
    billed = [(name, step) for name, step in told if step is not None]
    if billed and said.get("server_tool_use"):
        name, last = billed[-1]
        fees = {**(last.raw or {}), "server_tool_use": said["server_tool_use"]}
        billed[-1] = name, usage_of(fees) or last
    return billed
