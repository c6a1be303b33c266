"""OpenAI's Responses API: what is sent for a conversation, what an answer means, and streams however they are cut."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest, ProtocolError, RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly, as_chunks
from rubberduck.providers.responses.items import input_items, native_of, read_output
from rubberduck.providers.responses.provider import OpenAIResponses, decode_response
from rubberduck.providers.responses.stream import ResponsesStreamDecoder
from rubberduck.types import Chunk, FinishReason, FunctionCall, Message, Request, Response, ToolCall

HI = {"role": "user", "content": "Hi"}
USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5},
    "output_tokens": 20,
    "output_tokens_details": {"reasoning_tokens": 12},
    "total_tokens": 50,
}
SEALED = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "One."}, {"type": "summary_text", "text": "Two."}],
    "encrypted_content": "gAAA",
}
CALL = {
    "type": "function_call", "id": "fc_1", "status": "completed", "call_id": "call_1", "name": "weather",
    "arguments": '{"place": "Ulm"}',
}  # fmt: skip
NOTE = {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_2", "name": "shell", "input": "ls -l"}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}
CITED = {"type": "url_citation", "url": "https://a.example/", "title": "A", "start_index": 1, "end_index": 3}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []} | more


def message(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    item = {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": list(content)}
    return item | more


def answer(*output: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1700000000, "model": "gpt-5.1-2025-11-13",
        "status": "completed", "error": None, "incomplete_details": None, "output": list(output), "usage": USAGE,
        "service_tier": "default", "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    } | more  # fmt: skip


def provider(**options: Any) -> OpenAIResponses:
    options = {"api_keys": ("k",)} | options
    return OpenAIResponses.init(ProviderConfig(name="vendor", module="openai_responses", **options))


VENDOR = provider()


def body(model: str = "gpt-4.1", **fields: Any) -> dict[str, Any]:
    """What is sent of these fields, without what every request has."""
    fields.setdefault("messages", [HI])
    _, _, sent = VENDOR.encode(Request.parse({"model": model, **fields}))
    return sent


def items(*messages: dict[str, Any], model: str = "gpt-5.1", **more: Any) -> list[dict[str, Any]]:
    return input_items(Request.parse({"model": model, "messages": messages}).messages, model, **more)


def read(said: dict[str, Any]) -> Response:
    return decode_response(said, provider="vendor")


# --- what is sent


def test_asks_with_the_whole_conversation_and_lets_nothing_be_stored(
    make: Any, vendor: Any, run: Any, ask: Any
) -> None:
    server = vendor(httpx.Response(200, json=answer(message(said("Hello!")))))
    response = run(make("openai_responses", server, organization="org-1").complete(ask("gpt-4.1", max_tokens=50)))
    assert str(server.requests[0].url) == "https://api.openai.com/v1/responses"
    assert server.requests[0].headers["authorization"] == "Bearer test-key"
    assert server.requests[0].headers["openai-organization"] == "org-1"
    assert server.sent == {"model": "gpt-4.1", "input": [HI], "max_output_tokens": 50, "store": False}
    assert response.text == "Hello!"
    assert response.provider == "openai_responses"


def test_a_model_that_reasons_is_asked_for_its_sealed_thoughts() -> None:
    assert body("gpt-5-mini")["include"] == ["reasoning.encrypted_content"]
    assert body("o3")["include"] == ["reasoning.encrypted_content"]
    assert "include" not in body("gpt-4.1")
    assert "include" not in body("gpt-5-chat-latest")


def test_system_texts_stay_in_their_places_and_roles() -> None:
    turns = [{"role": "system", "content": "A"}, {"role": "developer", "content": "B"}, HI]
    assert items(*turns) == turns


def test_parts_of_all_kinds() -> None:
    parts = [
        {"type": "text", "text": "See:"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_url": "https://a.example/b.pdf"}},
    ]
    expected = [
        {"type": "input_text", "text": "See:"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"},
        {"type": "input_file", "file_url": "https://a.example/b.pdf"},
    ]
    assert items({"role": "user", "content": parts}) == [{"role": "user", "content": expected}]
    call = {"id": "c", "function": {"name": "look"}}
    turns = items(
        {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": parts[:2]}
    )
    assert turns[1] == {"type": "function_call_output", "call_id": "c", "output": expected[:2]}


def test_audio_is_refused_and_a_spoken_answer_goes_back_as_its_transcript() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with pytest.raises(InvalidRequest) as caught:
        items({"role": "user", "content": [sound]})
    assert caught.value.field == "messages.content"
    spoken = {"role": "assistant", "audio": {"id": "a", "transcript": "Hello."}}
    assert items(HI, spoken)[1] == {"role": "assistant", "content": "Hello."}


def test_calls_follow_the_words_before_them_and_results_name_their_calls() -> None:
    calls = [
        {"id": "c1", "function": {"name": "weather", "arguments": "{"}},
        {"id": "c2", "type": "custom", "function": {"name": "shell", "arguments": "ls"}},
    ]
    assert items(
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Rain."}]},
        {"role": "tool", "tool_call_id": "c2", "content": "a b"},
    ) == [
        {"role": "assistant", "content": "Let me see."},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "shell", "input": "ls"},
        {"type": "function_call_output", "call_id": "c1", "output": "Rain."},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": "a b"},
    ]


def test_ids_that_are_too_long_are_shortened_and_still_belong_together() -> None:
    long, most = "c" * 65, "d" * 64
    calls = [{"id": each, "function": {"name": "f", "arguments": "{}"}} for each in (long, most)]
    results = [{"role": "tool", "tool_call_id": each, "content": "r"} for each in (most, long)]
    first, second, *answers = items({"role": "assistant", "tool_calls": calls}, *results)
    assert second["call_id"] == most
    assert len(first["call_id"]) <= 64
    assert [each["call_id"] for each in answers] == [most, first["call_id"]]


def test_a_call_of_old_and_its_result_find_each_other() -> None:
    call, result = items(
        {"role": "assistant", "function_call": {"name": "now", "arguments": "{}"}},
        {"role": "function", "name": "now", "content": "noon"},
    )
    assert call["type"] == "function_call"
    assert result == {"type": "function_call_output", "call_id": call["call_id"], "output": "noon"}


def test_a_refusal_goes_back_as_one() -> None:
    (item,) = items({"role": "assistant", "content": None, "refusal": "No."})
    assert item["content"] == [{"type": "refusal", "refusal": "No."}]


def test_tools_are_flat_and_strict_only_where_asked() -> None:
    tools = [
        {"function": {"name": "a", "description": "A.", "parameters": {"type": "object"}}},
        {"function": {"name": "b", "strict": True}},
        {
            "type": "custom",
            "custom": {
                "name": "c",
                "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "x+"}},
            },
        },
    ]
    sent = body(tools=tools, parallel_tool_calls=False)
    assert sent["parallel_tool_calls"] is False
    assert sent["tools"] == [
        {"type": "function", "name": "a", "description": "A.", "parameters": {"type": "object"}, "strict": False},
        {"type": "function", "name": "b", "parameters": {"type": "object", "properties": {}}, "strict": True},
        {"type": "custom", "name": "c", "format": {"type": "grammar", "syntax": "regex", "definition": "x+"}},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("required", "required"),
        ({"function": {"name": "a"}}, {"type": "function", "name": "a"}),
        ({"function": {"name": "c"}}, {"type": "custom", "name": "c"}),
        (
            {"type": "allowed_tools", "mode": "required", "names": ["a", "c"]},
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "a"}, {"type": "custom", "name": "c"}],
            },
        ),
    ],
)
def test_tool_choice_is_flat(choice: Any, expected: Any) -> None:
    tools = [{"function": {"name": "a"}}, {"type": "custom", "custom": {"name": "c"}}]
    assert body(tools=tools, tool_choice=choice)["tool_choice"] == expected


def test_form_and_length_of_the_text_stand_together() -> None:
    schema = {"name": "t", "description": "T.", "schema": {"type": "object"}, "strict": True}
    sent = body(response_format={"type": "json_schema", "json_schema": schema}, verbosity="low")
    assert sent["text"] == {"format": {"type": "json_schema", **schema}, "verbosity": "low"}
    assert body(response_format={"type": "json_object"})["text"] == {"format": {"type": "json_object"}}


def test_reasoning_is_asked_for_in_one_place() -> None:
    sent = body("gpt-5.1", reasoning_effort="high", reasoning_summary="detailed")
    assert sent["reasoning"] == {"effort": "high", "summary": "detailed"}
    assert "reasoning" not in body("gpt-5.1", reasoning_summary="none")


def test_log_probabilities_are_asked_for_by_name() -> None:
    sent = body(logprobs=True, top_logprobs=2)
    assert sent["top_logprobs"] == 2
    assert sent["include"] == ["message.output_text.logprobs"]


def test_extra_adds_to_lists_and_objects_and_decides_what_is_stored() -> None:
    extra = {"include": ["web_search_call.results"], "reasoning": {"mode": "pro"}, "tools": [{"type": "web_search"}]}
    sent = body("gpt-5", reasoning_effort="low", extra={"openai_responses": extra}, tool_choice="required")
    assert sent["include"] == ["reasoning.encrypted_content", "web_search_call.results"]
    assert sent["reasoning"] == {"effort": "low", "mode": "pro"}
    assert (sent["tools"], sent["tool_choice"], sent["store"]) == ([{"type": "web_search"}], "required", False)
    assert body(extra={"store": True})["store"] is True
    assert "store" not in body(extra={"previous_response_id": "resp_0"})
    assert "truncation" not in body(extra={"openai": {"truncation": "auto"}})


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"),
        ({"extra": {"background": True}}, "extra.background"),
        ({"extra": {"input": "Hi"}}, "extra.input"),
        ({"extra": {"model": "x"}}, "extra.model"),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        body(**fields)
    assert caught.value.field == field


def warned(model: str, **fields: Any) -> list[str]:
    fields.setdefault("messages", [HI])
    return [text.split()[0] for text in VENDOR.warnings(Request.parse({"model": model, **fields}))]


def test_what_is_not_sent_is_named() -> None:
    penalties = {"presence_penalty": 0.5, "frequency_penalty": 0.5, "logit_bias": {"1": 1.0}}
    fields = {"stop": ["X"], "seed": 1, "top_k": 2, "reasoning_budget": 3, **penalties}
    assert sorted(warned("gpt-4.1", **fields)) == sorted(fields)
    assert body(**fields).keys() == body().keys()
    named = [HI | {"name": "Ann"}, {"role": "tool", "tool_call_id": "a", "content": "b", "is_error": True}]
    assert warned("gpt-4.1", messages=named) == ["messages.name", "messages.is_error"]
    assert warned("gpt-4.1") == []


def test_a_model_that_reasons_is_not_told_how_to_choose_its_words() -> None:
    fields = {"temperature": 0.5, "top_p": 0.5, "logprobs": True}
    assert warned("gpt-5", **fields) == list(fields)
    assert not body("gpt-5", **fields).keys() & fields.keys()
    for model, effort in (("gpt-4.1", None), ("gpt-5.2", None), ("gpt-5.5", "none")):
        assert warned(model, reasoning_effort=effort, **fields) == []
        assert body(model, reasoning_effort=effort, **fields)["temperature"] == 0.5


def test_marks_for_the_cache_go_to_models_that_know_them() -> None:
    part = {"type": "text", "text": "Long.", "cache_control": {"ttl": "30m"}}
    fields: dict[str, Any] = {"messages": [{"role": "system", "content": [part]}, HI], "cache_control": {}}
    system, user = body("gpt-5.6", **fields)["input"]
    assert system["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit", "ttl": "30m"}
    assert user["content"] == [
        {"type": "input_text", "text": "Hi", "prompt_cache_breakpoint": {"mode": "explicit"}},
    ]
    assert warned("gpt-5.6", **fields) == []
    assert warned("gpt-5.5", **fields) == ["cache_control", "messages.content.cache_control"]
    assert "prompt_cache_breakpoint" not in json.dumps(body("gpt-5.5", **fields))


def test_a_mark_is_not_put_into_an_answer_that_goes_back() -> None:
    turn = read(answer(SEALED, message(said("a")))).choices[0].message
    request = Request.parse({"model": "gpt-5.6", "messages": [HI], "cache_control": {}})
    sent = input_items([*request.messages, turn], "gpt-5.1", marks=True, mark=request.cache_control)
    assert sent[1:] == [SEALED, message(said("a"))]
    assert "prompt_cache_breakpoint" in sent[0]["content"][0]


# --- what goes back


def goes_back(turn: Message, model: str = "gpt-5.1", *, stored: bool = False) -> list[dict[str, Any]]:
    return input_items([turn], model, stored=stored)


def test_sealed_thoughts_go_back_before_the_calls_they_led_to() -> None:
    turn = read(answer(SEALED, CALL)).choices[0].message
    assert goes_back(turn) == [SEALED, CALL]


def test_native_items_go_only_to_the_model_that_wrote_them() -> None:
    turn = read(answer(SEALED, CALL)).choices[0].message
    ours = [{"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"place": "Ulm"}'}]
    assert goes_back(turn, "gpt-5.1-mini") == ours
    assert goes_back(turn, "gpt-5.1-2025-12-01") == ours
    assert goes_back(turn, "gpt-5.1-2025-11-13") == [SEALED, CALL]


def test_native_items_that_say_something_else_than_the_message_stay_here() -> None:
    turn = read(answer(SEALED, message(said("Hello.")))).choices[0].message
    assert goes_back(turn) == [SEALED, message(said("Hello."))]
    assert goes_back(turn.model_copy(update={"content": "Bye."})) == [{"role": "assistant", "content": "Bye."}]
    called = turn.model_copy(update={"tool_calls": (ToolCall(id="x", function=FunctionCall(name="y")),)})
    assert goes_back(called) == [
        {"role": "assistant", "content": "Hello."},
        {"type": "function_call", "call_id": "x", "name": "y", "arguments": "{}"},
    ]


def test_thoughts_that_are_only_named_go_back_only_where_they_are_stored() -> None:
    named = {"type": "reasoning", "id": "rs_1", "summary": []}
    turn = read(answer(named, message(said("a")))).choices[0].message
    assert goes_back(turn) == [{"role": "assistant", "content": "a"}]
    assert goes_back(turn, stored=True) == [named, message(said("a"))]


@pytest.mark.parametrize(
    ("output", "is_kept"),
    [
        ([message(said("a"))], False),
        ([message(said("a")), CALL], False),
        ([NOTE, CALL], False),
        ([message({"type": "refusal", "refusal": "No."})], False),
        ([SEALED, message(said("a"))], True),
        ([SEARCH, message(said("a"))], True),
        ([message(said("a"), phase="commentary")], True),
        ([message(said("a")), message(said("b"))], True),
        ([CALL, message(said("a"))], True),
        ([message(said("a", annotations=[CITED]))], True),
        ([CALL | {"namespace": "n"}], True),
        ([SEALED, CALL | {"call_id": None}], False),
    ],
)
def test_native_items_are_kept_where_our_fields_hold_less(output: list[dict[str, Any]], is_kept: bool) -> None:
    assert (native_of(output, "m") is not None) == is_kept


# --- what an answer means


def test_an_answer_with_everything() -> None:
    logprobs = [{"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "B", "logprob": -2}]}]
    first = message(said("Hi", logprobs=logprobs))
    response = read(answer(SEALED, SEARCH, first, message(said("there", annotations=[CITED]), id="msg_2"), CALL, NOTE))
    choice = response.choices[0]
    assert choice.message.text == "Hithere"
    assert choice.message.reasoning == "One.\n\nTwo."
    assert [(c.id, c.type, c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [
        ("call_1", "function", "weather", '{"place": "Ulm"}'),
        ("call_2", "custom", "shell", "ls -l"),
    ]
    (cited,) = choice.message.annotations
    assert (cited.type, cited.url, cited.title, cited.start, cited.end) == (
        "url_citation", "https://a.example/", "A", 3, 5,
    )  # fmt: skip
    assert cited.raw == CITED
    assert choice.logprobs is not None
    (token,) = choice.logprobs.content
    assert (token.token, token.logprob, token.bytes, token.top[0].token) == ("H", -0.5, (72,), "B")
    assert (choice.finish_reason, choice.raw_finish_reason) == (FinishReason.TOOL_CALLS, "completed")
    assert (response.id, response.model, response.created) == ("resp_1", "gpt-5.1-2025-11-13", 1700000000)
    usage = response.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (30, 20)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (10, 5, 12)
    assert (usage.service_tier, usage.raw) == ("default", USAGE)
    assert len(choice.message.native.items) == 6


def incomplete(why: str | None) -> dict[str, Any]:
    return {"status": "incomplete", "incomplete_details": {"reason": why} if why else None}


REFUSED = message({"type": "refusal", "refusal": "No."})
ENDINGS = [
    ([message(said("a"))], {}, "stop", "completed"),
    ([CALL], {}, "tool_calls", "completed"),
    ([REFUSED], {}, "content_filter", "completed"),
    ([CALL], incomplete("max_output_tokens"), "length", "incomplete:max_output_tokens"),
    ([], incomplete("max_output_tokens"), "length", "incomplete:max_output_tokens"),
    ([message(said("a"))], incomplete("content_filter"), "content_filter", "incomplete:content_filter"),
    ([message(said("a"))], incomplete("steered"), "unknown", "incomplete:steered"),
    ([message(said("a"))], incomplete(None), "unknown", "incomplete"),
]


@pytest.mark.parametrize(("output", "more", "reason", "raw"), ENDINGS)
def test_why_an_answer_ended(output: list[Any], more: dict[str, Any], reason: str, raw: str) -> None:
    whole = answer(*output, **more)
    choice = read(whole).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (FinishReason(reason), raw)
    streamed = assembled(stream_of(whole)).choices[0]
    assert (streamed.finish_reason, streamed.raw_finish_reason) == (FinishReason(reason), raw)


def test_usage_that_was_not_told_is_estimated() -> None:
    assert read(answer(message(said("a")), usage=None)).usage.estimated


FAULTS = [
    ({"code": "rate_limit_exceeded", "message": "slow"}, errors.RateLimited),
    ({"code": "server_error", "message": "oops"}, errors.ServiceUnavailable),
    ({"code": "invalid_prompt", "message": "no"}, InvalidRequest),
    ({"code": "image_too_large", "message": "no"}, InvalidRequest),
    ({"code": "image_content_policy_violation", "message": "no"}, errors.ContentFiltered),
    ({"code": "insufficient_quota", "message": "spent"}, errors.QuotaExceeded),
]


@pytest.mark.parametrize(("fault", "expected"), FAULTS)
def test_a_failed_answer_is_the_error_of_its_code(fault: dict[str, Any], expected: type[RubberDuckError]) -> None:
    failed = answer(status="failed", error=fault)
    with pytest.raises(expected) as caught:
        VENDOR.decode(200, {}, json.dumps(failed).encode())
    assert caught.value.code == fault["code"]
    for event in (
        {"type": "response.failed", "response": failed},
        {"type": "error", "sequence_number": 3, "param": None, **fault},
        {"type": "error", "error": fault},
        {"error": fault},
    ):
        _, error = decoded(events({"type": "response.created", "response": answer()}, event))
        assert type(error) is expected, event
        assert error.code == fault["code"]
        assert fault["message"] in str(error)


def test_a_failure_without_words_is_the_servers() -> None:
    with pytest.raises(errors.ServiceUnavailable):
        VENDOR.decode(200, {}, json.dumps(answer(status="failed")).encode())


@pytest.mark.parametrize("status", ["queued", "in_progress", "cancelled"])
def test_an_answer_that_is_not_there_is_no_answer(status: str) -> None:
    with pytest.raises(ProtocolError, match=status):
        VENDOR.decode(200, {}, json.dumps(answer(status=status)).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"ok", b'{"choices": []}', b'{"output": "x"}'])
def test_what_is_no_response_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        VENDOR.decode(200, {}, body)


@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_http(make: Any, vendor: Any, run: Any, gather: Any, ask: Any, stream: bool) -> None:
    for status, fault, expected in [
        (401, {"code": "invalid_api_key", "type": "invalid_request_error"}, errors.AuthenticationFailed),
        (400, {"code": "model_not_found", "type": "invalid_request_error"}, errors.ModelNotFound),
        (400, {"code": "decimal_below_min_value", "param": "temperature"}, InvalidRequest),
    ]:
        server = vendor(httpx.Response(status, json={"error": {"message": "no", **fault}}))
        asked = make("openai_responses", server)
        with pytest.raises(expected) as caught:
            run(gather(asked.stream(ask())) if stream else asked.complete(ask()))
        assert (caught.value.status, caught.value.code) == (status, fault["code"])


def test_tokens_are_counted_by_openai_itself(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json={"object": "response.input_tokens", "input_tokens": 11}))
    asked = make("openai_responses", server)
    assert "count" in asked.offers
    assert run(asked.count(ask("gpt-4.1", max_tokens=9, user="u"))).tokens == 11
    assert server.requests[0].url.path == "/v1/responses/input_tokens"
    assert server.sent == {"model": "gpt-4.1", "input": [HI]}
    assert "count" not in provider(base_url="http://gpu.example/v1").offers


def test_the_address_is_given_without_its_last_step() -> None:
    with pytest.raises(ValueError, match="leave /responses away"):
        provider(base_url="https://a.example/v1/responses")


def test_prices_are_the_vendors() -> None:
    assert VENDOR.estimate_cost(read(answer(message(said("a")))).usage, "gpt-4.1") is not None


# --- streams


def events(*each: dict[str, Any]) -> bytes:
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
        if "type" in event
        else f"data: {json.dumps(event)}\n\n".encode()
        for event in each
    )


def pieces(text: str) -> list[str]:
    return [text[at : at + 3] for at in range(0, len(text), 3)]


def told(slot: int, item: dict[str, Any]) -> list[dict[str, Any]]:
    """The events in which the server tells of an item."""
    at = {"item_id": item.get("id"), "output_index": slot}
    begun = {name: value for name, value in item.items() if name not in ("encrypted_content", "annotations")}
    begun |= {name: type(item[name])() for name in ("content", "summary", "arguments", "input") if name in item}
    found: list[dict[str, Any]] = [{"type": "response.output_item.added", "output_index": slot, "item": begun}]
    if "call_id" in item:
        kind, name = (
            ("custom_tool_call_input", "input") if "input" in item else ("function_call_arguments", "arguments")
        )
        found += [{"type": f"response.{kind}.delta", "delta": piece, **at} for piece in pieces(item[name])]
        found.append({"type": f"response.{kind}.done", name: item[name], **at})
    for number, part in enumerate(item.get("summary", [])):
        here = at | {"summary_index": number}
        kind = "response.reasoning_summary_text"
        found += [{"type": f"{kind}.delta", "delta": piece, **here} for piece in pieces(part["text"])]
        found.append({"type": f"{kind}.done", "text": part["text"], **here})
        found.append({"type": "response.reasoning_summary_part.done", "part": part, **here})
    for number, part in enumerate(item.get("content", [])):
        found += told_part(at | {"content_index": number}, part)
    return [*found, {"type": "response.output_item.done", "output_index": slot, "item": item}]


def told_part(here: dict[str, Any], part: dict[str, Any]) -> list[dict[str, Any]]:
    name = "refusal" if part["type"] == "refusal" else "text"
    kind = f"response.{part['type']}"
    found = [{"type": "response.content_part.added", "part": {**part, name: ""}, **here}]
    logprobs = list(part.get("logprobs", []))
    for piece in pieces(part[name]):
        found.append({"type": f"{kind}.delta", "delta": piece, "logprobs": logprobs, "obfuscation": "xyz", **here})
        logprobs = []
    found += [
        {"type": "response.output_text.annotation.added", "annotation": each, **here}
        for each in part.get("annotations", [])
    ]
    found.append({"type": f"{kind}.done", name: part[name], "logprobs": part.get("logprobs", []), **here})
    return [*found, {"type": "response.content_part.done", "part": part, **here}]


def events_of(whole: dict[str, Any]) -> list[dict[str, Any]]:
    head = whole | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    found = [{"type": "response.created", "response": head}, {"type": "response.in_progress", "response": head}]
    for slot, item in enumerate(whole["output"]):
        found += told(slot, item)
    found.append({"type": f"response.{whole['status']}", "response": whole})
    return [event | {"sequence_number": number * 2} for number, event in enumerate(found)]


def stream_of(whole: dict[str, Any]) -> bytes:
    return events(*events_of(whole))


def decoded(body: bytes, size: int = 10**9) -> tuple[list[Chunk], Any]:
    decoder, chunks = ResponsesStreamDecoder("vendor"), []
    try:
        for at in range(0, len(body), size):
            chunks += decoder.feed(body[at : at + size])
            decoder.check()
        chunks += decoder.end()
    except RubberDuckError as error:
        return chunks, error
    return chunks, None


def put_together(chunks: list[Chunk]) -> Response:
    answer = Assembly()
    for chunk in chunks:
        answer.add(chunk)
    return answer.response()


def assembled(body: bytes) -> Response:
    chunks, error = decoded(body)
    assert error is None, error
    return put_together(chunks)


LOGPROBS = [{"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": []}]
EVERYTHING = answer(
    SEALED,
    SEARCH,
    message(said("Hi thére 🦆", logprobs=LOGPROBS, annotations=[CITED])),
    {"type": "reasoning", "id": "rs_2", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm, so."}]},
    message(said("and more", annotations=[CITED]), id="msg_2", phase="final_answer"),
    CALL,
    NOTE,
    CALL | {"id": "fc_2", "call_id": "call_3", "arguments": ""},
)


def same(streamed: Response, whole: Response) -> None:
    assert streamed.choices == whole.choices
    assert (streamed.id, streamed.model, streamed.usage) == (whole.id, whole.model, whole.usage)
    assert streamed.service_tier == whole.service_tier


def test_a_stream_says_what_the_whole_answer_says() -> None:
    chunks, error = decoded(stream_of(EVERYTHING))
    assert error is None
    same(put_together(chunks), read(EVERYTHING))
    assert [chunk.delta.role for chunk in chunks] == ["assistant", *[None] * (len(chunks) - 1)]
    assert len(chunks) > 20
    heads = [call for chunk in chunks for call in chunk.delta.tool_calls if call.id]
    assert [(call.index, call.id, call.name, call.arguments) for call in heads] == [
        (0, "call_1", "weather", ""),
        (1, "call_2", "shell", ""),
        (2, "call_3", "weather", ""),
    ]
    last = chunks[-1]
    assert (last.finish_reason, last.usage, last.delta.native) == (
        FinishReason.TOOL_CALLS, read(EVERYTHING).usage, read(EVERYTHING).choices[0].message.native,
    )  # fmt: skip


@settings(max_examples=40)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_where_a_stream_is_split_makes_no_difference(sizes: list[int]) -> None:
    body, chunks, at = stream_of(EVERYTHING), [], 0
    decoder = ResponsesStreamDecoder("vendor")
    while at < len(body):
        for size in sizes:
            chunks += decoder.feed(body[at : at + size])
            at += size
    assert chunks == decoded(body)[0]


def test_every_cut_before_the_end_is_an_interruption() -> None:
    whole = answer(SEALED, message(said("Hi")), CALL)
    body = stream_of(whole)
    for cut in range(len(body) - 2):
        chunks, error = decoded(body[:cut], 512)
        assert isinstance(error, StreamInterrupted), (cut, error)
        assert not any(chunk.finish_reason for chunk in chunks)
    assert decoded(body[:-2])[1] is None  # the last event counts without its blank line


KINDS = sorted({event["type"] for event in events_of(EVERYTHING)} - {"response.completed"})


@settings(max_examples=60)
@given(st.sets(st.sampled_from(KINDS)))
def test_what_some_events_leave_out_others_tell_and_nothing_is_said_twice(missing: set[str]) -> None:
    """Servers do not send all kinds of events; deltas and wholes of them all say the same in the end."""
    some = [event for event in events_of(EVERYTHING) if event["type"] not in missing]
    streamed, whole = assembled(events(*some)).choices[0], read(EVERYTHING).choices[0]
    assert streamed.message.text.replace("and more", "") == "Hi thére 🦆"
    assert sorted(call.id for call in streamed.message.tool_calls) == ["call_1", "call_2", "call_3"]
    by_id = {call.id: call for call in whole.message.tool_calls}
    assert all(call == by_id[call.id] for call in streamed.message.tool_calls)
    assert sorted((streamed.message.reasoning or "").split("\n\n")) == ["Hm, so.", "One.", "Two."]
    assert len(streamed.message.annotations) == 2
    assert streamed.message.native == whole.message.native
    assert streamed.logprobs == whole.logprobs


def test_items_are_kept_where_the_last_event_holds_none() -> None:
    *some, last = events_of(EVERYTHING)
    streamed = assembled(events(*some, last | {"response": EVERYTHING | {"output": []}}))
    same(streamed, read(EVERYTHING))


def test_the_whole_may_leave_items_out_or_name_them_anew() -> None:
    """Some servers tell other ids in each event, and leave reasoning out of the whole."""
    whole = answer(SEALED, message(said("Hi")), CALL)
    *some, last = events_of(whole)
    fewer = [message(said("Hi"), id="other"), CALL | {"id": "another"}]
    streamed = assembled(events(*some, last | {"response": whole | {"output": fewer}}))
    assert streamed.text == "Hi"
    assert len(streamed.choices[0].message.tool_calls) == 1


def test_items_may_all_have_one_place() -> None:
    found = [event | ({"output_index": 0} if "output_index" in event else {}) for event in events_of(EVERYTHING)]
    same(assembled(events(*found)), read(EVERYTHING))


def test_items_may_be_known_by_their_ids_alone() -> None:
    found = [
        {name: value for name, value in event.items() if name != "output_index"} for event in events_of(EVERYTHING)
    ]
    same(assembled(events(*found)), read(EVERYTHING))


def test_pieces_that_are_not_the_answer_are_a_protocol_error() -> None:
    """A gap in the deltas must not become an answer with a hole in it."""
    found = events_of(answer(message(said("Hello there"))))
    lost = next(event for event in found if event.get("delta") == "lo ")
    _, error = decoded(events(*[event for event in found if event is not lost]))
    assert isinstance(error, ProtocolError)


def test_arguments_may_be_written_otherwise_as_a_whole() -> None:
    found = events_of(answer(CALL))
    last = found[-1] | {"response": answer(CALL | {"arguments": '{"place":"Ulm"}'})}
    (call,) = assembled(events(*found[:-1], last)).choices[0].message.tool_calls
    assert call.function.arguments == CALL["arguments"]


def test_events_that_are_not_known_and_done_marks_are_passed_over() -> None:
    strange = {"type": "response.quack.delta", "delta": "quack", "output_index": 0}
    body = events(strange, *events_of(answer(message(said("Hi")))), strange) + b"data: [DONE]\n\n"
    assert assembled(body).text == "Hi"
    _, error = decoded(events(*events_of(answer(message(said("Hi"))))[:-1]) + b"data: [DONE]\n\n")
    assert isinstance(error, StreamInterrupted)


def test_usage_of_a_failed_answer_is_known() -> None:
    decoder = ResponsesStreamDecoder("vendor")
    failed = answer(status="failed", error={"code": "server_error", "message": "oops"})
    with pytest.raises(errors.ServiceUnavailable):
        decoder.feed(events({"type": "response.failed", "response": failed}))
    assert decoder.usage is not None
    assert decoder.usage.completion_tokens == 20


def test_an_empty_end_is_no_answer() -> None:
    _, error = decoded(events({"type": "response.completed"}))
    assert isinstance(error, ProtocolError)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted({
        "type", "text", "id", "item", "delta", "part", "response", "output", "content", "summary", "call_id", "name",
        "arguments", "output_index", "content_index", "annotations", "logprobs", "error", "usage", "status",
    })), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
TYPES = st.sampled_from([*KINDS, "response.completed", "response.failed", "error"])


@settings(max_examples=150)
@given(st.lists(st.tuples(TYPES, st.dictionaries(st.text(max_size=3), JSON) | JSON), max_size=5))
def test_strange_events_raise_our_errors_only(strange: list[tuple[str, Any]]) -> None:
    body = events(
        *[(event if isinstance(event, dict) else {"item": event}) | {"type": kind} for kind, event in strange]
    )
    chunks, error = decoded(body)
    put_together(chunks)
    assert (chunks, type(error)) == (decoded(body, 7)[0], type(decoded(body, 7)[1]))


@settings(max_examples=100)
@given(st.lists(JSON, max_size=4), JSON, JSON)
def test_strange_answers_are_read_without_a_crash(output: list[Any], usage: Any, status: Any) -> None:
    try:
        VENDOR.decode(200, {}, json.dumps(answer(*output, usage=usage, status=status)).encode())
    except RubberDuckError:
        pass


# --- there and back


TEXTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
NAMES = st.text("abc_", min_size=1, max_size=4)
CALLS = st.builds(
    lambda name, words, kind: {"type": kind, "function": {"name": name, "arguments": words}},
    NAMES, TEXTS, st.sampled_from(["function", "custom"]),
)  # fmt: skip
TURNS = st.builds(
    lambda text, refusal, calls: {"content": text, "refusal": refusal, "tool_calls": calls},
    st.none() | TEXTS, st.none() | TEXTS, st.lists(CALLS, max_size=3),
).filter(lambda turn: any(turn.values()))  # fmt: skip


@settings(max_examples=100)
@given(TURNS)
def test_a_turn_that_is_sent_and_read_again_is_the_same(turn: dict[str, Any]) -> None:
    calls = [{"id": f"call_{number}", **call} for number, call in enumerate(turn["tool_calls"])]
    before = Message.model_validate({"role": "assistant", **turn, "tool_calls": calls})
    sent = input_items([before], "m")
    for item in sent:
        item.setdefault("type", "message")
        if isinstance(item.get("content"), str):
            item["content"] = [said(item["content"])]
    assert read_output(sent).message(native_of(sent, "m")) == before


OUTPUT = st.lists(
    st.builds(lambda text: message(said(text)), TEXTS)
    | st.builds(lambda text: CALL | {"arguments": json.dumps({"a": text})}, TEXTS)
    | st.builds(lambda text: NOTE | {"input": text}, TEXTS)
    | st.builds(lambda text: SEALED | {"summary": [{"type": "summary_text", "text": text}]}, TEXTS)
    | st.just(SEARCH)
    | st.just(REFUSED),
    max_size=5,
).map(lambda found: [item | {"id": f"item_{number}"} for number, item in enumerate(found)])


@settings(max_examples=100)
@given(OUTPUT)
def test_an_answer_streams_and_goes_back_as_it_came(output: list[dict[str, Any]]) -> None:
    whole = read(answer(*output))
    same(assembled(stream_of(answer(*output))), whole)
    same(put_together(as_chunks(whole)), whole)
    turn = whole.choices[0].message
    sent = goes_back(turn)
    if turn.native is not None:
        assert sent == output
    else:
        again = [item if "type" in item else message(said(item["content"])) for item in sent]
        assert read_output(again).message(None) == turn
