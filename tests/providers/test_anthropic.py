"""The Anthropic provider: both versions of its API, the shape of its conversations, and its streams."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from rubberduck import errors
from rubberduck.types import FinishReason

MESSAGE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hello!"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 10, "output_tokens": 20, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2},
}
TOOL = {"function": {"name": "look", "description": "see", "parameters": {"type": "object", "properties": {"x": {}}}}}
CLAUDE = "claude-sonnet-4-5"


def answer(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json={**MESSAGE, **fields})


@pytest.fixture
def encode(make: Any, ask: Any) -> Any:
    def encoded(
        messages: list[dict[str, Any]] | None = None, version: str | None = None, **fields: Any
    ) -> dict[str, Any]:
        fields |= {"messages": messages} if messages else {}
        provider = make("anthropic", api_keys=["k"], version=version)
        body: dict[str, Any] = provider.encode(ask(**{"model": CLAUDE, **fields}))[2]
        return body

    return encoded


# --- complete


def test_completes_a_request(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(answer())
    response = run(make("anthropic", server, name="second").complete(ask(CLAUDE)))
    assert str(server.requests[0].url) == "https://api.anthropic.com/v1/messages"
    assert server.sent == {
        "model": CLAUDE,
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }
    assert response.text == "Hello!"
    assert response.choices[0].finish_reason is FinishReason.STOP
    assert (response.provider, response.id, response.model) == ("second", "msg_1", "claude-sonnet-4-5-20250929")


def test_all_input_counts_as_prompt_cached_or_not(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    usage = run(make("anthropic", vendor(answer())).complete(ask(CLAUDE))).usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (17, 20)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == (5, 2, None)


@pytest.mark.parametrize("base_url", ["http://x.example", "http://x.example/v1", "http://x.example/"])
def test_a_base_url_may_end_in_the_version_or_not(make: Any, vendor: Any, run: Any, ask: Any, base_url: str) -> None:
    server = vendor(answer())
    run(make("anthropic", server, base_url=base_url).complete(ask(CLAUDE)))
    assert str(server.requests[0].url) == "http://x.example/v1/messages"


def test_each_version_has_its_way_of_showing_the_key(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(answer())
    run(make("anthropic", server).complete(ask(CLAUDE)))
    run(make("anthropic", server, version="2026-10-21").complete(ask(CLAUDE)))
    old, new = (request.headers for request in server.requests)
    assert (old["anthropic-version"], old["x-api-key"]) == ("2023-06-01", "test-key")
    assert "authorization" not in old
    assert (new["anthropic-version"], new["authorization"]) == ("2026-10-21", "Bearer test-key")
    assert "x-api-key" not in new


def test_a_version_is_a_date(make: Any) -> None:
    with pytest.raises(errors.ConfigError, match="2023-06-01"):
        make("anthropic", api_keys=["k"], version="latest")


def test_reads_thinking_text_and_tools_in_any_order(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    content = [
        {"type": "text", "text": "Let me "},
        {"type": "thinking", "thinking": "hmm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "look."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"x": 1}},
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web", "input": {}},
    ]
    choice = run(
        make("anthropic", vendor(answer(content=content, stop_reason="tool_use"))).complete(ask(CLAUDE))
    ).choices[0]
    assert (choice.message.content, choice.message.reasoning) == ("Let me look.", "hmm")
    assert [(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [
        ("toolu_1", "look", '{"x": 1}')
    ]
    assert choice.finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("stop_sequence", FinishReason.STOP),
        ("max_tokens", FinishReason.LENGTH),
        ("model_context_window_exceeded", FinishReason.LENGTH),
        ("refusal", FinishReason.CONTENT_FILTER),
        ("pause_turn", FinishReason.PAUSE),
        ("something_new", FinishReason.UNKNOWN),
    ],
)
def test_stop_reasons_are_one_vocabulary(
    make: Any, vendor: Any, run: Any, ask: Any, raw: str, expected: FinishReason
) -> None:
    choice = run(make("anthropic", vendor(answer(content=[], stop_reason=raw))).complete(ask(CLAUDE))).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason, choice.message.content) == (expected, raw, "")


@pytest.mark.parametrize("body", [b"", b"ok", b"[]", b"{}", b'{"type":"message","content":"x"}'])
def test_a_200_that_is_no_message_is_a_protocol_error(make: Any, vendor: Any, run: Any, ask: Any, body: bytes) -> None:
    with pytest.raises(errors.ProtocolError):
        run(make("anthropic", vendor(httpx.Response(200, content=body))).complete(ask(CLAUDE)))


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", errors.InvalidRequest),
        (401, "authentication_error", errors.AuthenticationFailed),
        (402, "billing_error", errors.QuotaExceeded),
        (403, "permission_error", errors.AuthenticationFailed),
        (404, "not_found_error", errors.ModelNotFound),
        (413, "request_too_large", errors.InvalidRequest),
        (429, "rate_limit_error", errors.RateLimited),
        (500, "api_error", errors.ServiceUnavailable),
        (504, "timeout_error", errors.ServiceUnavailable),
        (529, "overloaded_error", errors.Overloaded),
    ],
)
def test_an_error_has_its_own_class_as_an_answer_and_in_mid_stream(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, named: Any, status: int, kind: str, expected: type
) -> None:
    said = {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "req_9"}
    with pytest.raises(errors.RubberDuckError) as whole:
        run(make("anthropic", vendor(httpx.Response(status, json=said))).complete(ask(CLAUDE)))
    stream = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=named(said))
    with pytest.raises(errors.RubberDuckError) as streamed:
        run(gather(make("anthropic", vendor(stream)).stream(ask(CLAUDE))))
    assert type(whole.value) is expected
    assert type(streamed.value) is expected
    assert getattr(whole.value, "provider_request_id", "req_9") == "req_9"


# --- encode


def test_system_text_at_the_start_stands_apart(encode: Any) -> None:
    body = encode(
        [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "Hi"},
        ]
    )
    assert body["system"] == "Be brief.\n\nBe kind."
    assert [turn["role"] for turn in body["messages"]] == ["user"]


def test_system_text_in_the_middle_stays_in_its_place(encode: Any) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "system", "content": "Now rhyme."},
        {"role": "user", "content": "Bye"},
    ]
    old = encode(messages)["messages"]
    assert [turn["role"] for turn in old] == ["user", "assistant", "user"]
    assert [block["text"] for block in old[2]["content"]] == ["<system>Now rhyme.</system>", "Bye"]
    new = encode(messages, model="claude-opus-5")["messages"]
    assert [turn["role"] for turn in new] == ["user", "assistant", "system", "user"]


def test_turns_of_one_role_are_merged_and_empty_ones_left_out(encode: Any) -> None:
    turns = encode(
        [
            {"role": "user", "content": "one"},
            {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": " "}]},
            {"role": "assistant", "content": ""},
            {"role": "user", "content": "three"},
        ]
    )["messages"]
    assert [(turn["role"], [block["text"] for block in turn["content"]]) for turn in turns] == [
        ("user", ["one", "two", "three"])
    ]


def test_nothing_but_system_text_is_no_request(encode: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="beside the system text"):
        encode([{"role": "system", "content": "Be brief."}])


def test_tool_results_go_first_into_one_user_turn(encode: Any) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    turns = encode(
        [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": "I will.", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
            {"role": "tool", "tool_call_id": "a", "content": "sun"},
            {"role": "user", "content": "And?"},
            {"role": "tool", "tool_call_id": "b", "content": [{"type": "text", "text": "rain"}, image]},
        ]
    )["messages"]
    assert turns[1]["content"] == [
        {"type": "text", "text": "I will."},
        {"type": "tool_use", "id": "a", "name": "look", "input": {"x": 1}},
        {"type": "tool_use", "id": "b", "name": "look", "input": {"x": 1}},
    ]
    assert [block["type"] for block in turns[2]["content"]] == ["tool_result", "tool_result", "text"]
    assert turns[2]["content"][0] == {"type": "tool_result", "tool_use_id": "a", "content": "sun"}
    source = {"type": "url", "url": "https://x.example/a.png"}
    assert turns[2]["content"][1]["content"] == [{"type": "text", "text": "rain"}, {"type": "image", "source": source}]


def test_foreign_ids_become_valid_and_still_belong_together(encode: Any) -> None:
    call = {"id": "call:1/ä", "type": "function", "function": {"name": "look"}}
    turns = encode(
        [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call:1/ä", "content": "x"}]
    )["messages"]
    used, answered = turns[0]["content"][0]["id"], turns[1]["content"][0]["tool_use_id"]
    assert used == answered
    assert used.replace("_", "").isalnum()


def test_function_messages_of_old_become_tool_use_and_result(encode: Any) -> None:
    turns = encode(
        [
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "sun"},
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "rain"},
        ]
    )["messages"]
    first, second = turns[0]["content"][0]["id"], turns[2]["content"][0]["id"]
    assert first != second
    assert (turns[1]["content"][0]["tool_use_id"], turns[3]["content"][0]["tool_use_id"]) == (first, second)


@pytest.mark.parametrize("arguments", ["{broken", "[1]", '"text"', "1"])
def test_arguments_that_are_no_object_are_kept_as_text(encode: Any, arguments: str) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": arguments}}
    turns = encode([{"role": "assistant", "tool_calls": [call]}])["messages"]
    assert turns[0]["content"][0]["input"] == {"INVALID_JSON": arguments}


def test_images_come_as_data_or_by_address(encode: Any) -> None:
    def sent(url: str) -> Any:
        part = {"type": "image_url", "image_url": {"url": url}}
        return encode([{"role": "user", "content": [part]}])["messages"][0]["content"][0]["source"]

    assert sent("data:image/png;base64,aGk=") == {"type": "base64", "media_type": "image/png", "data": "aGk="}
    assert sent("https://x.example/a.png") == {"type": "url", "url": "https://x.example/a.png"}
    for url in ("http://x.example/a.png", "data:image/svg+xml,<svg/>", "file:///etc/passwd"):
        with pytest.raises(errors.InvalidRequest):
            sent(url)


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("required", None, {"type": "any"}),
        ("none", False, {"type": "none"}),
        ({"function": {"name": "look"}}, None, {"type": "tool", "name": "look"}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
    ],
)
def test_tool_choices_have_a_counterpart(encode: Any, choice: Any, parallel: bool | None, expected: Any) -> None:
    body = encode(tools=[TOOL], tool_choice=choice, parallel_tool_calls=parallel)
    assert body.get("tool_choice") == expected
    assert body["tools"] == [
        {"name": "look", "description": "see", "input_schema": {"type": "object", "properties": {"x": {}}}}
    ]


def test_a_tool_without_parameters_takes_an_empty_object(encode: Any) -> None:
    tool = {"function": {"name": "now"}}
    assert encode(tools=[tool])["tools"] == [{"name": "now", "input_schema": {"type": "object", "properties": {}}}]


def test_other_parameters_have_a_counterpart(encode: Any) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}
    body = encode(
        stop=["END"], user="u1", max_tokens=7, response_format=schema, reasoning_effort="high", stream=True, top_p=0.5,
        temperature=0.2, extra={"service_tier": "auto"}, model="claude-opus-4-6",
    )  # fmt: skip
    assert body["stop_sequences"] == ["END"]
    assert body["metadata"] == {"user_id": "u1"}
    assert body["max_tokens"] == 7
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "high"}
    assert (body["stream"], body["temperature"], body["top_p"]) == (True, 0.2, 0.5)
    assert body["service_tier"] == "auto"


def test_what_has_no_counterpart_and_matters_is_refused(encode: Any) -> None:
    for fields in ({"n": 2}, {"response_format": {"type": "json_object"}}, {"extra": {"model": "x"}}):
        with pytest.raises(errors.InvalidRequest):
            encode(**fields)


@pytest.mark.parametrize(
    ("version", "model", "expected"),
    [
        ("2023-06-01", CLAUDE, {"temperature": 0.3, "top_p": 0.9}),
        ("2026-10-21", CLAUDE, {}),
        ("2023-06-01", "claude-opus-4-7", {}),
        ("2023-06-01", "claude-sonnet-5", {}),
    ],
)
def test_sampling_is_sent_only_where_version_and_model_take_it(
    encode: Any, version: str, model: str, expected: dict[str, float]
) -> None:
    body = encode(version=version, model=model, temperature=0.3, top_p=0.9)
    assert {name: body[name] for name in ("temperature", "top_p") if name in body} == expected


def test_what_is_not_honoured_is_said_once(
    make: Any, vendor: Any, run: Any, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = vendor(answer())
    provider = make("anthropic", server)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            run(provider.complete(ask(CLAUDE, temperature=1.7, seed=3)))
    assert server.sent["temperature"] == 1.0
    assert "seed" not in server.sent
    assert [record.message.split(" is ")[0] for record in caplog.records] == [
        "anthropic: seed",
        "anthropic: temperature over 1",
    ]


def test_knows_claude_and_the_configured_names(make: Any) -> None:
    provider = make("anthropic", api_keys=["k"], models=["my-tune"])
    assert provider.supports_model("claude-3-opus")
    assert provider.supports_model("my-tune")
    assert not provider.supports_model("gpt-4")


# --- stream

FIRST_USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0, "output_tokens": 1}
START = {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None, "usage": FIRST_USAGE}}
STOP = {"type": "message_stop"}


def begin(index: int, **block: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index: int, **change: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": change}


def end(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def last(reason: str, **usage: int) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


@pytest.fixture
def streamed(make: Any, vendor: Any, run: Any, ask: Any, gather: Any, named: Any) -> Any:
    def chunks(*events: dict[str, Any]) -> Any:
        answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=named(*events))
        return run(gather(make("anthropic", vendor(answer)).stream(ask(CLAUDE))))

    return chunks


def test_streams_text_and_thinking_and_ends_with_the_usage(streamed: Any) -> None:
    chunks = streamed(
        START,
        {"type": "ping"},
        begin(0, type="thinking", thinking="", signature=""),
        delta(0, type="thinking_delta", thinking="hm"),
        delta(0, type="signature_delta", signature="sig"),
        end(0),
        begin(1, type="text", text="He"),
        delta(1, type="text_delta", text="llo"),
        delta(1, type="citations_delta", citation={}),
        end(1),
        {"type": "an_event_of_the_future"},
        last("end_turn", output_tokens=7),
        STOP,
    )
    assert "".join(chunk.delta.content for chunk in chunks) == "Hello"
    assert "".join(chunk.delta.reasoning for chunk in chunks) == "hm"
    assert chunks[0].delta.role == "assistant"
    assert (chunks[-1].finish_reason, chunks[-1].raw_finish_reason) == (FinishReason.STOP, "end_turn")
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (15, 5, 7)


def test_later_counts_replace_earlier_ones(streamed: Any) -> None:
    chunks = streamed(
        START, last("end_turn", input_tokens=100, output_tokens=3), last("end_turn", output_tokens=9), STOP
    )
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (105, 9)


def test_a_null_count_is_no_count(streamed: Any) -> None:
    end_turn = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    usage = {"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 4}
    last_usage = streamed(START, {**end_turn, "usage": usage}, STOP)[-1].usage
    assert (last_usage.prompt_tokens, last_usage.cached_tokens, last_usage.completion_tokens) == (15, 5, 4)


def test_streams_tool_calls_with_and_without_arguments(streamed: Any) -> None:
    chunks = streamed(
        START,
        begin(0, type="text", text=""),
        begin(1, type="tool_use", id="toolu_a", name="look", input={}),
        delta(1, type="input_json_delta", partial_json=""),
        delta(1, type="input_json_delta", partial_json='{"x"'),
        delta(1, type="input_json_delta", partial_json=": 1}"),
        end(1),
        begin(2, type="server_tool_use", id="srv", name="web", input={}),
        delta(2, type="input_json_delta", partial_json='{"q": 1}'),
        end(2),
        begin(3, type="tool_use", id="toolu_b", name="now", input={}),
        delta(3, type="input_json_delta", partial_json=""),
        end(3),
        begin(4, type="tool_use", id="toolu_c", name="all", input={"y": 2}),
        end(4),
        last("tool_use", output_tokens=7),
        STOP,
    )
    calls: dict[int, list[Any]] = {}
    for fragment in (fragment for chunk in chunks for fragment in chunk.delta.tool_calls):
        call = calls.setdefault(fragment.index, [fragment.id, fragment.name, ""])
        call[2] += fragment.arguments
    assert calls == {
        0: ["toolu_a", "look", '{"x": 1}'],
        1: ["toolu_b", "now", "{}"],
        2: ["toolu_c", "all", '{"y": 2}'],
    }
    assert chunks[-1].finish_reason is FinishReason.TOOL_CALLS


@pytest.mark.parametrize("count", range(6))
def test_only_message_stop_makes_the_answer_whole(streamed: Any, count: int) -> None:
    events = [START, begin(0, type="text", text=""), delta(0, type="text_delta", text="Hi"), end(0)]
    events += [last("end_turn", output_tokens=2), STOP]
    with pytest.raises(errors.StreamInterrupted) as caught:
        streamed(*events[:count])
    assert caught.value.text == ("Hi" if count > 2 else "")
    assert (caught.value.usage is None) is (count == 0)


def test_an_error_event_keeps_its_name_and_what_had_come(streamed: Any) -> None:
    with pytest.raises(errors.Overloaded) as caught:
        streamed(
            START,
            delta(0, type="text_delta", text="Hi"),
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        )
    assert (caught.value.status, caught.value.phase, caught.value.type) == (200, "after_output", "overloaded_error")
    cause = caught.value.__cause__
    assert isinstance(cause, errors.StreamInterrupted)
    assert (cause.text, cause.usage and cause.usage.prompt_tokens) == ("Hi", 15)
