"""What comes back from Anthropic goes back to it as it came, streamed or not; and what it cost is counted whole."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rubberduck
from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.providers.anthropic.provider import Anthropic
from rubberduck.providers.anthropic.stream import AnthropicStreamDecoder
from rubberduck.providers.assembly import Assembly
from rubberduck.types import Chunk, Message, Request, Response

MODEL = "claude-sonnet-4-5"
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "First. "},
    THOUGHT,
    {"type": "redacted_thinking", "data": "eHh4"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"q": "ducks"}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
    {
        "type": "text",
        "text": "Then.",
        "citations": [{"type": "char_location", "cited_text": "x", "document_title": "T"}],
    },
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"x": 1}},
]
USAGE = {"input_tokens": 3, "output_tokens": 2}


def provider(**options: Any) -> Anthropic:
    return Anthropic(ProviderConfig(**{"name": "anthropic", "module": "anthropic", "api_keys": ("k",), **options}))


def whole(blocks: list[dict[str, Any]], reason: str = "tool_use", **more: Any) -> Response:
    said = {"id": "m", "type": "message", "model": MODEL, "content": blocks, "stop_reason": reason, "usage": USAGE}
    return provider().decode(200, httpx.Headers(), json.dumps(said | more).encode())


def events(blocks: list[dict[str, Any]], reason: str = "tool_use", **more: Any) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "model": MODEL, "usage": USAGE}}]
    for index, block in enumerate(blocks):
        start, deltas = _in_pieces(block)
        told.append({"type": "content_block_start", "index": index, "content_block": start})
        told += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        told.append({"type": "content_block_stop", "index": index})
    ending = {"type": "message_delta", "delta": {"stop_reason": reason, **more}, "usage": USAGE}
    return [*told, ending, {"type": "message_stop"}]


def _in_pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    match block["type"]:
        case "text":
            cited = [{"type": "citations_delta", "citation": each} for each in block.get("citations", [])]
            start = {name: value for name, value in block.items() if name != "citations"}
            return start | {"text": ""}, [*cited, *_texts("text_delta", "text", block["text"])]
        case "thinking":
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return block | {"thinking": "", "signature": ""}, [
                *_texts("thinking_delta", "thinking", block["thinking"]),
                signed,
            ]
        case "tool_use" | "server_tool_use":
            parts = _texts("input_json_delta", "partial_json", json.dumps(block["input"], ensure_ascii=False))
            return block | {"input": {}}, [{"type": "input_json_delta", "partial_json": ""}, *parts]
        case _:
            return block, []


def _texts(kind: str, field: str, text: str) -> list[dict[str, Any]]:
    return [{"type": kind, field: text[at : at + 3]} for at in range(0, len(text), 3)]


def written(told: list[dict[str, Any]]) -> bytes:
    return "".join([f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in told]).encode()


def read(body: bytes, size: int | None = None) -> list[Chunk]:
    decoder, chunks = AnthropicStreamDecoder("anthropic"), []
    for at in range(0, len(body), size or len(body)):
        chunks += decoder.feed(body[at : at + (size or len(body))])
    return chunks + decoder.end()


def streamed(told: list[dict[str, Any]]) -> Response:
    answer = Assembly()
    for chunk in read(written(told)):
        answer.add(chunk)
    return answer.response(provider="anthropic")


def sent(*messages: Message | dict[str, Any], model: str = MODEL, version: str | None = None, **more: Any) -> Any:
    asked = {"model": model, "messages": [{"role": "user", "content": "Hi"}, *messages], **more}
    return provider(version=version).encode(Request.parse(asked))[2]


@pytest.mark.parametrize("answer", [whole(BLOCKS), streamed(events(BLOCKS))], ids=["whole", "streamed"])
def test_blocks_that_our_fields_do_not_hold_go_back_unmodified_and_in_order(answer: Response) -> None:
    message = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "sun"}
    assert sent(message, result)["messages"][1]["content"] == BLOCKS
    assert (message.text, message.reasoning) == ("First. Then.", "Hm.")
    assert [(each.start, each.end, each.title) for each in message.annotations] == [(7, 12, "T")]
    changed = message.model_copy(update={"content": "Other."})
    assert [block["type"] for block in sent(changed, result)["messages"][1]["content"]] == ["text", "tool_use"]
    assert len(sent(message, result, model="claude-opus-4-5")["messages"][1]["content"]) == 2


def test_an_answer_that_our_fields_hold_has_nothing_native() -> None:
    plain = [BLOCKS[0], BLOCKS[-1]]
    assert whole(plain).choices[0].message.native is None
    assert streamed(events(plain)).choices[0].message.native is None


def test_a_paused_turn_is_sent_back_though_the_model_takes_no_begun_answer() -> None:
    message = whole(BLOCKS[:5], "pause_turn", model="claude-opus-5").choices[0].message
    assert sent(message, model="claude-opus-5")["messages"][1]["content"] == BLOCKS[:5]
    with pytest.raises(errors.InvalidRequest) as caught:
        sent({"role": "assistant", "content": "Well,"}, model="claude-opus-5")
    assert caught.value.field == "messages"


def test_a_refusal_says_why_and_a_stop_text_which() -> None:
    details = {"stop_details": {"type": "refusal", "category": "bio", "explanation": "Too risky."}}
    for answer in (whole([], "refusal", **details), streamed(events([], "refusal", **details))):
        assert (answer.choices[0].message.refusal, answer.choices[0].finish_reason) == ("Too risky.", "content_filter")
    for answer in (
        whole([], "stop_sequence", stop_sequence="END"),
        streamed(events([], "stop_sequence", stop_sequence="END")),
    ):
        assert answer.choices[0].stop_sequence == "END"


LETTERS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
TEXT_BLOCKS = LETTERS.map(lambda text: {"type": "text", "text": text})
THOUGHTS = LETTERS.map(lambda text: {"type": "thinking", "thinking": text, "signature": "s"})
USES = st.dictionaries(st.sampled_from("abc"), LETTERS | st.integers(-9, 9), max_size=2).map(
    lambda given: {"type": "tool_use", "name": "look", "input": given}
)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXT_BLOCKS | THOUGHTS, max_size=4), st.lists(USES, max_size=3))
def test_any_answer_streamed_is_the_same_as_whole_and_goes_back_the_same(
    said: list[dict[str, Any]], uses: list[dict[str, Any]]
) -> None:
    blocks = said + [use | {"id": f"toolu_{number}"} for number, use in enumerate(uses)]
    one, other = whole(blocks), streamed(events(blocks))
    assert one.choices == other.choices
    if not blocks:
        return
    turns = sent(one.choices[0].message, {"role": "user", "content": "Go on"})["messages"]
    back = turns[1]["content"] if turns[1:] else []
    assert [block for block in back if block["type"] == "tool_use"] == blocks[len(said) :]
    if any(block["type"] == "thinking" for block in said):
        assert back == [block for block in blocks if block["type"] != "text" or block["text"].strip()]


def test_every_prefix_of_a_stream_is_interrupted_and_where_it_is_cut_makes_no_difference() -> None:
    body = written(events(BLOCKS))
    chunks = read(body)
    assert read(body, 1) == read(body, 7) == chunks
    end = body.rindex(b"data:")
    for cut in range(0, end, 5):
        with pytest.raises(errors.StreamInterrupted):
            read(body[:cut]) if cut else AnthropicStreamDecoder("anthropic").end()


def test_a_shortened_conversation_is_billed_step_by_step() -> None:
    steps = [
        {"type": "compaction", "input_tokens": 100, "output_tokens": 83, "cache_read_input_tokens": 50},
        {"type": "message", "input_tokens": 18, "output_tokens": 8},
    ]
    usage = whole([], "end_turn", usage={"input_tokens": 18, "output_tokens": 8, "iterations": steps}).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (18, 8)
    billed = [step for _, step in provider().billed(usage, MODEL)]
    assert [(step.prompt_tokens, step.cached_tokens, step.completion_tokens) for step in billed] == [
        (150, 50, 83),
        (18, None, 8),
    ]
    assert not provider().billed(whole([]).usage, MODEL)


def test_a_step_costs_what_its_tokens_cost() -> None:
    """The counts of the answer leave the shortening out, which is most of what it costs."""
    steps = [{"input_tokens": 900, "output_tokens": 83}, {"input_tokens": 100, "output_tokens": 17}]
    told = {"input_tokens": 100, "output_tokens": 17}
    prices = {MODEL: {"input": 1, "output": 10}}
    plain = {"id": "m", "type": "message", "model": MODEL, "content": [], "stop_reason": "end_turn"}
    for usage, millionths in ((told, 270), (told | {"iterations": steps}, 2000)):
        answer = httpx.Response(200, json=plain | {"usage": usage})
        options = {"api_keys": ["k"], "transport": httpx.MockTransport(lambda _, answer=answer: answer)}
        with rubberduck.RubberDuck.start({"providers": {"anthropic": options}, "prices": prices}) as duck:
            got = duck.complete({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]})
        assert (got.usage.total_tokens, got.usage.cost) == (117, Decimal(millionths) / 1_000_000)


def test_caches_kept_for_an_hour_and_the_tier_are_told() -> None:
    kept = {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 5}
    told = {**USAGE, "cache_creation_input_tokens": 7, "cache_creation": kept, "service_tier": "batch"}
    usage = whole([], usage=told).usage
    assert (usage.prompt_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) == (10, 7, 5)
    assert usage.service_tier == "batch"
    assert usage.cost is None or usage.cost >= Decimal(0)


@pytest.mark.parametrize(
    ("model", "asked", "expected", "warned"),
    [
        (MODEL, {"reasoning_budget": 2000}, {"type": "enabled", "budget_tokens": 2000}, ()),
        (MODEL, {"reasoning_budget": 5}, {"type": "enabled", "budget_tokens": 1024}, ("reasoning_budget",)),
        (MODEL, {"reasoning_effort": "high"}, None, ("reasoning_effort",)),
        (MODEL, {"reasoning_effort": "none"}, None, ()),
        ("claude-opus-4-7", {"reasoning_budget": 2000}, {"type": "adaptive"}, ("reasoning_budget",)),
        ("claude-opus-4-7", {"reasoning_effort": "none"}, {"type": "disabled"}, ()),
        ("claude-sonnet-5", {"reasoning_summary": "auto"}, {"type": "adaptive", "display": "summarized"}, ()),
        ("claude-fable-5", {"reasoning_effort": "none"}, None, ("reasoning_effort",)),
    ],
)
def test_reasoning_is_asked_for_as_the_model_takes_it(model: str, asked: Any, expected: Any, warned: Any) -> None:
    body = sent(model=model, **asked)
    assert body.get("thinking") == expected
    assert body["max_tokens"] == 1024 + (expected or {}).get("budget_tokens", 0)
    request = Request.parse({"model": model, "messages": [{"role": "user", "content": "Hi"}], **asked})
    assert tuple(text.split()[0] for text in provider().warnings(request)) == warned


LOOK = {"function": {"name": "look"}}
NOTE = {"type": "file", "file": {"file_data": "data:text/plain,Qu%C3%A4k", "filename": "a.txt"}}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"reasoning_budget": 2000, "max_tokens": 2000}, "reasoning_budget"),
        ({"reasoning_budget": 2000, "tools": [LOOK], "tool_choice": "required"}, "tool_choice"),
        ({"model": "claude-fable-5", "tools": [LOOK], "tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [LOOK], "tool_choice": {"type": "allowed_tools", "names": ["no"]}}, "tool_choice"),
        ({"extra": {"betas": "files"}}, "extra.betas"),
        ({"extra": {"betas": ["a\r\nb: c"]}}, "extra.betas"),
    ],
)
def test_what_the_model_would_refuse_is_refused_here(asked: dict[str, Any], field: str) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        sent(**{"model": MODEL, **asked})
    assert caught.value.field == field


def test_only_allowed_tools_are_sent() -> None:
    choice = {"type": "allowed_tools", "names": ["look"], "mode": "required"}
    body = sent(tools=[LOOK, {"function": {"name": "hide"}}], tool_choice=choice)
    assert [tool["name"] for tool in body["tools"]] == ["look"]
    assert body["tool_choice"] == {"type": "any"}


def test_a_text_file_is_a_document_and_none_in_an_answer_of_the_later_version() -> None:
    body = sent({"role": "user", "content": [NOTE]})
    source = {"type": "text", "media_type": "text/plain", "data": "Quäk"}
    assert body["messages"][0]["content"][1] == {"type": "document", "source": source, "title": "a.txt"}
    answer = {"role": "assistant", "content": [NOTE]}
    assert sent(answer)["messages"][1]["content"][0]["type"] == "document"
    with pytest.raises(errors.InvalidRequest):
        sent(answer, version="2026-10-21")


def test_results_stand_right_behind_their_calls_one_for_each() -> None:
    call = {"function": {"name": "look", "arguments": "{}"}}
    turns = sent(
        {"role": "assistant", "tool_calls": [{"id": "0", **call}, {"id": "1", **call}]},
        {"role": "tool", "tool_call_id": "0", "content": "a"},
        {"role": "system", "content": "Hurry."},
        {"role": "tool", "tool_call_id": "1", "content": "b", "is_error": True},
        {"role": "assistant", "tool_calls": [{"id": "0", **call}]},
        {"role": "tool", "tool_call_id": "0", "content": "c"},
        model="claude-opus-5",
    )["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user", "system", "assistant", "user"]
    assert [block["content"] for block in turns[2]["content"]] == ["a", "b"]
    uses = [block["id"] for turn in turns for block in turn["content"] if block["type"] == "tool_use"]
    results = [b["tool_use_id"] for turn in turns for b in turn["content"] if b["type"] == "tool_result"]
    assert uses == results
    assert len(set(uses)) == 3


def test_tokens_are_counted_at_anthropic_and_where_a_server_says_so() -> None:
    asked = Request.parse(
        {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "user": "u"}
    )
    path, _, body = provider().encode_count(asked)
    assert (path, sorted(body)) == ("/v1/messages/count_tokens", ["messages", "model"])
    assert provider().decode_count(200, httpx.Headers(), b'{"input_tokens": 5}').tokens == 5
    with pytest.raises(errors.ProtocolError):
        provider().decode_count(200, httpx.Headers(), b"{}")
    assert "count" not in provider(base_url="http://x.example").offers
    assert "count" in provider(base_url="http://x.example", options={"count_tokens": True}).offers
