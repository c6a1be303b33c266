"""The six callbacks of the OpenAI provider, and what it sends, held against a server made of a function."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck import errors
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.openai.embeddings import decode_embeddings
from rubberduck.types import EmbeddingRequest, FinishReason, Message, Request, Response

COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-123",
    "object": "chat.completion",
    "created": 1700000000,
    "model": "gpt-4-0613",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
}
WEATHER = {"function": {"name": "weather", "description": "now", "parameters": {"type": "object", "properties": {}}}}


def answering(message: dict[str, Any], reason: str | None = "stop", **more: Any) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    return httpx.Response(200, json={**COMPLETION, "choices": [choice], **more})


# --- init


def test_a_key_is_needed_and_the_error_names_the_variable(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(errors.MissingApiKey) as caught:
        make("openai")
    assert caught.value.variable == "OPENAI_API_KEY"


def test_the_key_may_come_from_the_environment(
    make: Any, vendor: Any, run: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    server = vendor(httpx.Response(200, json=COMPLETION))
    run(make("openai", server, api_keys=()).complete(ask()))
    assert server.requests[0].headers["authorization"] == "Bearer from-environment"


def test_the_environments_key_is_never_sent_to_another_server(
    make: Any, vendor: Any, run: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    server = vendor(httpx.Response(200, json=COMPLETION))
    run(make("openai", server, api_keys=(), base_url="http://gpu.example/v1").complete(ask()))
    assert "authorization" not in server.requests[0].headers


# --- complete


def test_completes_a_request(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json=COMPLETION))
    response = run(make("openai", server, name="primary").complete(ask("gpt-4")))
    assert str(server.requests[0].url) == "https://api.openai.com/v1/chat/completions"
    assert server.sent == {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
    assert response.choices[0].message.content == "Hello!"
    assert response.choices[0].finish_reason is FinishReason.STOP
    assert (response.id, response.model, response.created) == ("chatcmpl-123", "gpt-4-0613", 1700000000)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens) == (10, 20, 30)
    assert response.usage.cost is None
    assert response.provider == "primary"


def test_sends_key_organization_and_content_type(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json=COMPLETION))
    run(make("openai", server, organization="org-1").complete(ask()))
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer test-key"
    assert headers["openai-organization"] == "org-1"
    assert headers["content-type"] == "application/json"


def test_a_base_url_may_carry_a_query(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json=COMPLETION))
    run(make("openai", server, base_url="https://x.example/models?api-version=1").complete(ask()))
    assert str(server.requests[0].url) == "https://x.example/models/chat/completions?api-version=1"


@pytest.mark.parametrize(
    ("message", "reason", "expected"),
    [
        ({"content": "cut"}, "length", FinishReason.LENGTH),
        ({"content": "hm"}, "eos", FinishReason.STOP),
        ({"content": "hm"}, "strange", FinishReason.UNKNOWN),
        ({"content": "hm"}, None, FinishReason.UNKNOWN),
        ({"content": None, "refusal": "I cannot."}, "stop", FinishReason.CONTENT_FILTER),
        ({"content": None, "tool_calls": [{"id": "a", "function": {"name": "f"}}]}, "stop", FinishReason.TOOL_CALLS),
        ({"content": None, "tool_calls": [{"id": "a", "function": {"name": "f"}}]}, "length", FinishReason.LENGTH),
        ({"content": "hm", "tool_calls": []}, "stop", FinishReason.STOP),
    ],
)
def test_finish_reasons_are_one_vocabulary(
    make: Any, vendor: Any, run: Any, ask: Any, message: dict[str, Any], reason: str, expected: FinishReason
) -> None:
    choice = run(make("openai", vendor(answering(message, reason))).complete(ask())).choices[0]
    assert choice.finish_reason is expected
    assert choice.raw_finish_reason == reason


def test_reads_refusals_reasoning_and_details_of_usage(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 5},
        "completion_tokens_details": {"reasoning_tokens": 40},
    }
    server = vendor(answering({"content": None, "refusal": "No.", "reasoning_content": "Hmm."}, usage=usage))
    response = run(make("openai", server).complete(ask()))
    assert response.choices[0].message.content is None
    assert response.choices[0].message.refusal == "No."
    assert response.choices[0].message.reasoning == "Hmm."
    assert (response.usage.cached_tokens, response.usage.cache_write_tokens, response.usage.reasoning_tokens) == (
        80,
        5,
        40,
    )


def test_a_function_call_of_old_is_a_tool_call_too(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(
        answering({"content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}}, "function_call")
    )
    message = run(make("openai", server).complete(ask())).choices[0].message
    assert message.tool_calls[0].function == message.function_call
    assert message.tool_calls[0].id


def test_a_choice_without_a_message_is_an_empty_one(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json={**COMPLETION, "choices": [{"finish_reason": "content_filter"}]}))
    choice = run(make("openai", server).complete(ask())).choices[0]
    assert choice.message.content == ""
    assert choice.finish_reason is FinishReason.CONTENT_FILTER


def test_an_array_of_parts_is_split_into_text_and_thinking(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "12*12"}]}, {"type": "text", "text": "144"}]
    message = run(make("openai", vendor(answering({"content": parts}))).complete(ask())).choices[0].message
    assert (message.content, message.reasoning) == ("144", "12*12")


def test_usage_that_nobody_told_is_estimated_and_says_so(
    make: Any, vendor: Any, run: Any, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make("openai", vendor(answering({"content": "one two three"}, usage=None)))
    monkeypatch.setattr(provider, "count_tokens", lambda text, model: len(text.split()))
    usage = run(provider.complete(ask())).usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (1, 3, True)


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"<html>", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[1]}', b"[" * 100_000, b"\xff\xfe\x00"],
)
def test_a_200_that_is_no_completion_is_a_protocol_error(
    make: Any, vendor: Any, run: Any, ask: Any, body: bytes
) -> None:
    with pytest.raises(errors.ProtocolError) as caught:
        run(make("openai", vendor(httpx.Response(200, content=body))).complete(ask()))
    assert caught.value.provider == "openai"
    assert caught.value.model == "gpt-4"


def test_rate_limiting_says_how_long_to_wait(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    error = {"error": {"message": "Rate limit exceeded", "type": "rate_limit_error"}}
    headers = {"retry-after": "7", "x-request-id": "req_1", "x-should-retry": "true"}
    with pytest.raises(errors.RateLimited) as caught:
        run(make("openai", vendor(httpx.Response(429, json=error, headers=headers))).complete(ask()))
    got = caught.value
    assert (got.status, got.type, got.retry_after, got.phase) == (429, "rate_limit_error", 7.0, "answered")
    assert (got.provider_request_id, got.should_retry, got.retryable) == ("req_1", True, True)


def test_a_key_that_the_server_repeats_is_not_in_the_error(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    error = {"error": {"message": "Incorrect API key provided: test-key."}}
    with pytest.raises(errors.AuthenticationFailed) as caught:
        run(make("openai", vendor(httpx.Response(401, json=error))).complete(ask()))
    assert "test-key" not in str(caught.value)
    assert "test-key" not in repr(caught.value)


@pytest.mark.parametrize(
    ("failure", "expected", "phase"),
    [
        (httpx.ConnectError("refused"), errors.ServiceUnavailable, "not_sent"),
        (httpx.ReadTimeout("slow"), errors.ProviderTimeout, "uncertain"),
        (httpx.RemoteProtocolError("gone"), errors.ServiceUnavailable, "uncertain"),
    ],
)
def test_a_failing_connection_says_whether_the_request_left(
    make: Any, vendor: Any, run: Any, ask: Any, failure: Exception, expected: type[errors.ProviderError], phase: str
) -> None:
    with pytest.raises(expected) as caught:
        run(make("openai", vendor(failure)).complete(ask()))
    assert caught.value.phase == phase
    assert (caught.value.spent == 0) is (phase == "not_sent")
    assert (caught.value.provider, caught.value.model) == ("openai", "gpt-4")


# --- stream


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "chatcmpl-1", "model": "gpt-4", "choices": [choice], **more}


WORDS = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"content": "Hel"}),
    chunk({"content": "lo"}),
    chunk({}, "stop"),
)
USAGE = {"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


def events(body: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body)


def test_streams_an_answer_and_ends_with_its_usage(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any
) -> None:
    server = vendor(events(sse(*WORDS, USAGE)))
    chunks = run(gather(make("openai", server).stream(ask())))
    assert server.sent["stream"] is True
    assert server.sent["stream_options"] == {"include_usage": True}
    assert "".join(chunk.delta.content for chunk in chunks) == "Hello"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["stop"]
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 2)
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_closing_a_stream_closes_the_connection(
    make: Any, vendor: Any, run: Any, ask: Any, sse: Any, pieces: Any
) -> None:
    body = pieces(sse(*WORDS, USAGE), 80)

    async def story() -> None:
        stream = make("openai", vendor(httpx.Response(200, stream=body))).stream(ask())
        await anext(stream)
        assert not body.closed
        await stream.aclose()
        assert body.closed

    run(story())


def test_a_stream_lost_after_output_says_what_had_come(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any, pieces: Any
) -> None:
    body = pieces(sse(*WORDS[:2], done=False), 1000, httpx.ReadError("reset"))
    with pytest.raises(errors.StreamInterrupted) as caught:
        run(gather(make("openai", vendor(httpx.Response(200, stream=body))).stream(ask())))
    assert (caught.value.text, caught.value.phase, caught.value.spent) == ("Hel", "after_output", None)


def test_a_connection_lost_behind_the_end_loses_nothing(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any, pieces: Any
) -> None:
    body = pieces(sse(*WORDS, USAGE, done=False), 1000, httpx.ReadError("reset"))
    chunks = run(gather(make("openai", vendor(httpx.Response(200, stream=body))).stream(ask())))
    assert chunks[-1].usage.prompt_tokens == 3


def test_a_stream_that_never_began_may_be_tried_elsewhere(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any
) -> None:
    with pytest.raises(errors.StreamInterrupted) as caught:
        run(gather(make("openai", vendor(events(b""))).stream(ask())))
    assert caught.value.phase == "uncertain"


def test_an_error_in_mid_stream_keeps_its_name_and_what_had_come(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any
) -> None:
    broken = {"error": {"message": "busy", "type": "overloaded_error"}}
    with pytest.raises(errors.Overloaded) as caught:
        run(gather(make("openai", vendor(events(sse(*WORDS[:2], USAGE, broken)))).stream(ask())))
    assert (caught.value.status, caught.value.phase, caught.value.spent) == (200, "after_output", None)
    cause = caught.value.__cause__
    assert isinstance(cause, errors.StreamInterrupted)
    assert (cause.text, cause.usage and cause.usage.prompt_tokens) == ("Hel", 3)


def test_an_error_before_the_stream_is_the_error_of_the_answer(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any
) -> None:
    refusal = httpx.Response(429, json={"error": {"code": "insufficient_quota"}})
    with pytest.raises(errors.QuotaExceeded):
        run(gather(make("openai", vendor(refusal)).stream(ask())))


def test_the_headers_of_every_answer_are_shown_to_who_wants_them(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any
) -> None:
    limits = {"x-ratelimit-remaining-requests": "9"}
    answers = [httpx.Response(429, headers=limits), httpx.Response(200, headers=limits, content=sse(*WORDS, USAGE))]
    provider, seen = make("openai", vendor(*answers)), []
    provider.on_headers = lambda model, status, headers: seen.append((model, status, headers[next(iter(limits))]))
    with pytest.raises(errors.RateLimited):
        run(provider.complete(ask("gpt-4")))
    run(gather(provider.stream(ask("gpt-4o"))))
    assert seen == [("gpt-4", 429, "9"), ("gpt-4o", 200, "9")]


def test_a_server_that_does_not_stream_is_read_all_the_same(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any
) -> None:
    chunks = run(gather(make("openai", vendor(httpx.Response(200, json=COMPLETION))).stream(ask())))
    assert [chunk.delta.content for chunk in chunks] == ["Hello!", ""]
    assert chunks[-1].usage.completion_tokens == 20


def test_a_stream_without_usage_ends_with_an_estimate(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = make("openai", vendor(events(sse(*WORDS))))
    monkeypatch.setattr(provider, "count_tokens", lambda text, model: len(text))
    usage = run(gather(provider.stream(ask())))[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.estimated) == (2, 5, True)


def test_a_whole_stream_does_not_wait_for_a_server_that_keeps_the_line_open(
    make: Any, run: Any, ask: Any, sse: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rubberduck.providers.http._DRAIN_S", 0.01)

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield sse(*WORDS, USAGE)
            await asyncio.Event().wait()

    client = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless())))

    async def story() -> list[Any]:
        return [chunk async for chunk in make("openai", http_client=client, api_keys=["k"]).stream(ask())]

    assert run(story())[-1].usage


# --- encode


def encode(make: Any, request: Request, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = make("openai", api_keys=["k"], **options).encode(request)[2]
    return body


def test_every_parameter_arrives_under_its_name(make: Any, ask: Any) -> None:
    fields = {
        "temperature": 0.5, "top_p": 0.9, "n": 2, "seed": 7, "presence_penalty": 0.1, "frequency_penalty": 0.2,
        "parallel_tool_calls": False, "response_format": {"type": "json_object"},
        "reasoning_effort": "low", "user": "u",
    }  # fmt: skip
    body = encode(make, ask(**fields, stop=["a", "b"], max_tokens=9, tools=[WEATHER], tool_choice="required"))
    assert {name: body[name] for name in fields} == fields
    assert body["stop"] == ["a", "b"]
    assert body["max_completion_tokens"] == 9
    assert body["tools"] == [{"type": "function", **WEATHER}]
    assert body["tool_choice"] == "required"
    assert "stream" not in body


def test_compatible_servers_get_the_older_spellings(make: Any, ask: Any) -> None:
    request = ask(messages=[{"role": "developer", "content": "Be brief"}], max_tokens=9)
    elsewhere = encode(make, request, base_url="http://gpu.example/v1")
    assert elsewhere["max_tokens"] == 9
    assert "max_completion_tokens" not in elsewhere
    assert elsewhere["messages"][0]["role"] == "system"
    assert encode(make, request)["messages"][0]["role"] == "developer"
    assert "max_completion_tokens" in encode(make, request, base_url="https://eu.api.openai.com/v1")


def test_a_named_tool_is_asked_for_by_name(make: Any, ask: Any) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    assert encode(make, ask(tools=[WEATHER], tool_choice=choice))["tool_choice"] == choice


def test_nothing_about_tools_is_sent_without_tools(make: Any, ask: Any) -> None:
    body = encode(make, ask(tool_choice="auto", parallel_tool_calls=True))
    assert body.keys() == {"model", "messages"}


def test_extra_is_sent_as_it_is_but_cannot_change_what_is_billed(make: Any, ask: Any) -> None:
    body = encode(make, ask(extra={"service_tier": "flex", "logit_bias": {"1": 2}}))
    assert (body["service_tier"], body["logit_bias"]) == ("flex", {"1": 2})
    for field in ("model", "messages", "stream"):
        with pytest.raises(errors.InvalidRequest) as caught:
            encode(make, ask(extra={field: "x"}))
        assert caught.value.field == f"extra.{field}"
    streamed = encode(make, ask(stream=True, extra={"stream_options": {"include_obfuscation": False}}))
    assert streamed["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_a_conversation_with_tools_and_images_keeps_its_shape(make: Any, ask: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "See"}, image], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        {"role": "assistant", "content": "done"},
    ]
    assert encode(make, ask(messages=messages))["messages"] == messages


def test_images_in_tool_results_follow_as_a_user_message_after_all_results(make: Any, ask: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    call = {"function": {"name": "look"}, "type": "function"}
    messages = [
        {"role": "assistant", "tool_calls": [{"id": "a", **call}, {"id": "b", **call}]},
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "here"}, image]},
        {"role": "tool", "tool_call_id": "b", "content": "nothing"},
    ]
    sent = encode(make, ask(messages=messages))["messages"]
    assert [message["role"] for message in sent] == ["assistant", "tool", "tool", "user"]
    assert sent[1]["content"] == "here"
    assert sent[3]["content"] == [image]


def test_an_answer_can_be_sent_back_as_it_came(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    answer: Response = run(make("openai", vendor(answering({"content": None, "tool_calls": [call]}))).complete(ask()))
    request = ask(messages=[Message(role="user", content="Hi"), answer.choices[0].message])
    assert encode(make, request)["messages"][1] == {"role": "assistant", "content": None, "tool_calls": [call]}


def test_text_beyond_ascii_is_sent_as_it_is(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    server = vendor(httpx.Response(200, json=COMPLETION))
    run(make("openai", server).complete(ask(messages=[{"role": "user", "content": "Ente 🦆"}])))
    assert "Ente 🦆".encode() in server.requests[0].content
    assert json.loads(server.requests[0].content)["messages"][0]["content"] == "Ente 🦆"


# --- models and prices


def test_knows_its_own_families_and_the_configured_names(make: Any) -> None:
    provider = make("openai", api_keys=["k"], models=["my-tune"])
    assert all(map(provider.supports_model, ["gpt-4", "gpt-4o-mini", "o3", "o4-mini", "chatgpt-4o-latest", "my-tune"]))
    assert not provider.supports_model("claude-sonnet-4-5")


def test_another_server_has_the_configured_models_or_any(make: Any) -> None:
    anything = make("openai", api_keys=["k"], base_url="http://gpu.example/v1")
    assert anything.supports_model("qwen3")
    listed = make("openai", api_keys=["k"], base_url="http://gpu.example/v1", models=["qwen3"])
    assert listed.supports_model("qwen3")
    assert not listed.supports_model("gpt-4")


# --- what OpenAI takes, and what it does not


def warned(make: Any, request: Request, **options: Any) -> list[str]:
    return [text.split()[0] for text in make("openai", api_keys=["k"], **options).warnings(request)]


def shown(make: Any, ask: Any, part: dict[str, Any]) -> dict[str, Any]:
    body = encode(make, ask("gpt-5.6", messages=[{"role": "user", "content": [part]}]))
    return body["messages"][0]["content"][0]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "original"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf"}},
    ],
)
def test_every_part_is_sent_as_it_is(make: Any, ask: Any, part: dict[str, Any]) -> None:
    assert shown(make, ask, part) == part


def test_a_file_elsewhere_is_refused(make: Any, ask: Any) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        shown(make, ask, {"type": "file", "file": {"file_url": "https://x.example/a.pdf"}})
    assert caught.value.field == "messages.content.file.file_url"


@pytest.mark.parametrize(("ttl", "kept"), [(None, {}), ("5m", {}), ("30m", {"ttl": "30m"}), ("1h", {"ttl": "12h"})])
def test_a_place_to_cache_up_to_is_a_breakpoint(make: Any, ask: Any, ttl: str | None, kept: dict[str, str]) -> None:
    part = {"type": "text", "text": "a", "cache_control": {"ttl": ttl}}
    assert shown(make, ask, part)["prompt_cache_breakpoint"] == {"mode": "explicit", **kept}


def test_older_models_cache_by_themselves(make: Any, ask: Any) -> None:
    part = {"type": "text", "text": "a", "cache_control": {}}
    request = ask("gpt-4o", messages=[{"role": "user", "content": [part]}], cache_control={})
    assert encode(make, request)["messages"][0]["content"] == [{"type": "text", "text": "a"}]
    assert warned(make, request) == ["cache_control", "messages.content.cache_control"]
    newer = ask("gpt-5.6", cache_control={"ttl": "1h"})
    assert encode(make, newer)["prompt_cache_options"] == {"mode": "implicit", "ttl": "30m"}
    assert warned(make, newer) == ["cache_control.ttl"]


SAMPLING = {"temperature": 0.2, "top_p": 0.5, "logprobs": True, "presence_penalty": 0.5}


@pytest.mark.parametrize(
    ("model", "effort", "unsent"),
    [
        ("gpt-4o", None, []),
        ("gpt-5-chat-latest", None, []),
        ("o3-mini", None, ["logprobs", "presence_penalty", "temperature", "top_p"]),
        ("ft:o4-mini:me", None, ["logprobs", "presence_penalty", "temperature", "top_p"]),
        ("gpt-5-nano", "low", ["logprobs", "presence_penalty", "temperature", "top_p"]),
        ("gpt-5.1", None, ["presence_penalty"]),
        ("gpt-5.1", "low", ["logprobs", "presence_penalty", "temperature", "top_p"]),
        ("gpt-5.5", None, ["logprobs", "presence_penalty", "temperature", "top_p"]),
        ("gpt-5.5", "none", ["presence_penalty"]),
        ("gpt-5.2-pro", None, ["logprobs", "presence_penalty", "temperature", "top_p"]),
    ],
)
def test_models_that_reason_take_no_sampling(
    make: Any, ask: Any, model: str, effort: str | None, unsent: list[str]
) -> None:
    request = ask(model, **SAMPLING, reasoning_effort=effort)
    assert warned(make, request) == unsent
    assert SAMPLING.keys() - encode(make, request).keys() == set(unsent)


def test_what_a_reasoning_model_does_anyway_needs_no_warning(make: Any, ask: Any) -> None:
    assert warned(make, ask("o3", temperature=1, top_p=1, presence_penalty=0)) == []


def test_what_has_no_field_is_named(make: Any, ask: Any) -> None:
    request = ask("gpt-4o", top_k=3, reasoning_budget=9, reasoning_summary="auto")
    assert encode(make, request).keys() == {"model", "messages"}
    assert warned(make, request) == ["reasoning_budget", "reasoning_summary", "top_k"]
    assert warned(make, ask("gpt-4o", reasoning_summary="none")) == []
    assert encode(make, ask(top_k=3), base_url="http://gpu.example/v1")["top_k"] == 3


def test_tools_of_free_text_and_a_choice_among_tools(make: Any, ask: Any) -> None:
    shell = {"type": "custom", "custom": {"name": "shell", "format": {"type": "text"}}}
    chosen = encode(make, ask(tools=[WEATHER, shell], tool_choice={"function": {"name": "shell"}}))
    assert chosen["tools"][1] == shell
    assert chosen["tool_choice"] == {"type": "custom", "custom": {"name": "shell"}}
    allowed = {"type": "allowed_tools", "mode": "required", "names": ["weather", "shell"]}
    assert encode(make, ask(tools=[WEATHER, shell], tool_choice=allowed))["tool_choice"] == {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "required",
            "tools": [
                {"type": "function", "function": {"name": "weather"}},
                {"type": "custom", "custom": {"name": "shell"}},
            ],
        },
    }


def test_a_recording_is_no_result_of_a_tool(make: Any, ask: Any) -> None:
    audio = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    with pytest.raises(errors.InvalidRequest) as caught:
        encode(make, ask(messages=[{"role": "tool", "tool_call_id": "a", "content": [audio]}]))
    assert caught.value.field == "messages.content"


def test_what_was_said_aloud_goes_back_by_its_id_and_elsewhere_as_text(make: Any, ask: Any) -> None:
    spoken = {"role": "assistant", "audio": {"id": "audio_1", "data": "AAAA", "transcript": "Quack"}}
    request = ask(messages=[spoken, {"role": "user", "content": "Again"}])
    assert encode(make, request)["messages"][0] == {
        "role": "assistant", "content": None, "audio": {"id": "audio_1"},
    }  # fmt: skip
    elsewhere = encode(make, request, base_url="http://gpu.example/v1")
    assert elsewhere["messages"][0] == {"role": "assistant", "content": "Quack"}


# --- what few answers have


def test_reads_probabilities_sources_speech_and_the_tier(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    source = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 1, "end_index": 4}}
    token = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": [{"token": "Yo", "logprob": -2}]}
    message = {
        "content": "Hi", "annotations": [source],
        "audio": {"id": "audio_1", "data": "AAAA", "transcript": "Hi", "expires_at": 9},
    }  # fmt: skip
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": [token], "refusal": None}}
    usage = {
        "prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"audio_tokens": 3},
        "completion_tokens_details": {"audio_tokens": 4},
    }  # fmt: skip
    more = {"choices": [choice], "usage": usage, "service_tier": "flex", "system_fingerprint": "fp"}
    answer = run(make("openai", vendor(httpx.Response(200, json={**COMPLETION, **more}))).complete(ask()))
    got = answer.choices[0]
    assert got.logprobs.content[0].bytes == (72, 105)
    assert [(top.token, top.logprob) for top in got.logprobs.content[0].top] == [("Yo", -2.0)]
    (cited,) = got.message.annotations
    assert (cited.url, cited.title, cited.start, cited.end, cited.raw) == ("u", "t", 1, 4, source)
    assert (got.message.audio.transcript, got.message.audio.expires_at) == ("Hi", 9)
    assert (answer.service_tier, answer.system_fingerprint, answer.usage.service_tier) == ("flex", "fp", "flex")
    assert (answer.usage.prompt_audio_tokens, answer.usage.completion_audio_tokens) == (3, 4)
    assert answer.usage.raw == usage


def test_a_call_of_free_text_keeps_its_kind_and_its_text(make: Any, vendor: Any, run: Any, ask: Any) -> None:
    call = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": ""}}
    message = run(make("openai", vendor(answering({"content": None, "tool_calls": [call]}))).complete(ask())).choices[0]
    (read,) = message.message.tool_calls
    assert (read.type, read.function.name, read.function.arguments) == ("custom", "shell", "")
    assert encode(make, ask(messages=[message.message]))["messages"][0]["tool_calls"] == [call]


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_cache_hit_tokens": 4}, (10, 5, 4, None)),
        ({"completion_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 22}, (10, 12, None, 7)),
        ({"completion_tokens_details": {"reasoning_tokens": 3}, "total_tokens": 15}, (10, 5, None, 3)),
        ({"total_tokens": 22}, (10, 12, None, 7)),
        ({"reasoning_tokens": 2, "total_tokens": 15}, (10, 5, None, 2)),
    ],
    ids=["DeepSeek's cache", "reasoning beside the output", "reasoning within the output", "Gemini's", "Perplexity's"],
)
def test_usage_has_dialects(
    make: Any, vendor: Any, run: Any, ask: Any, usage: dict[str, Any], expected: tuple[int | None, ...]
) -> None:
    told = {"prompt_tokens": 10, "completion_tokens": 5, **usage}
    got = run(make("openai", vendor(answering({"content": "a"}, usage=told))).complete(ask())).usage
    assert (got.prompt_tokens, got.completion_tokens, got.cached_tokens, got.reasoning_tokens) == expected


PAGES = [{"title": "Ducks", "url": "https://ducks.example", "date": "2026-01-02"}, "no page"]


@pytest.mark.parametrize(
    ("beside", "expected"),
    [
        ({"search_results": PAGES, "citations": ["https://other.example"]}, [("Ducks", "https://ducks.example")]),
        ({"citations": ["https://ducks.example", 7]}, [(None, "https://ducks.example")]),
        ({"citations": None, "search_results": {}}, []),
    ],
)
def test_pages_told_beside_an_answer_are_its_sources_whole_or_streamed(
    make: Any, vendor: Any, run: Any, ask: Any, gather: Any, sse: Any, beside: Any, expected: Any
) -> None:
    whole = run(make("openai", vendor(answering({"content": "a"}, **beside))).complete(ask()))
    first = {"index": 0, "delta": {"role": "assistant", "content": "a"}}
    last = {"index": 0, "delta": {}, "finish_reason": "stop"}
    body = sse({"id": "c", "choices": [first], **beside}, {"id": "c", "choices": [last], **beside})
    so_far = Assembly()
    for chunk in run(gather(make("openai", vendor(httpx.Response(200, content=body))).stream(ask()))):
        so_far.add(chunk)
    for response in (whole, so_far.response()):
        found = response.choices[0].message.annotations
        assert [(each.title, each.url) for each in found] == expected


# --- vectors

TEXTS = EmbeddingRequest.parse({"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 2, "user": "u"})


def test_texts_become_vectors_in_their_order(make: Any, vendor: Any, run: Any) -> None:
    data = [{"index": 1, "embedding": [0.5, 1]}, {"index": 0, "embedding": "AACAPwAAAMA="}]
    usage = {"prompt_tokens": 4, "total_tokens": 4}
    server = vendor(httpx.Response(200, json={"data": data, "model": "m", "usage": usage}))
    got = run(make("openai", server).embed(TEXTS))
    assert str(server.requests[0].url) == "https://api.openai.com/v1/embeddings"
    assert server.sent == {
        "model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 2, "user": "u",
        "encoding_format": "base64",
    }  # fmt: skip
    assert got.vectors == ((1.0, -2.0), (0.5, 1.0))
    assert (got.model, got.usage.prompt_tokens, got.usage.completion_tokens) == ("m", 4, 0)


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_packed_vectors_are_read_to_the_bit(numbers: list[float]) -> None:
    packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    read = decode_embeddings({"data": [{"index": 0, "embedding": packed}]}, provider="p")
    assert read
    assert struct.pack(f"<{len(numbers)}f", *read.vectors[0]) == struct.pack(f"<{len(numbers)}f", *numbers)


@pytest.mark.parametrize(
    "data",
    [
        None, [], [1], [{"embedding": [1.0]}], [{"index": 1, "embedding": [1.0]}],
        [{"index": True, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}],
        [{"index": 0, "embedding": []}], [{"index": 0, "embedding": ""}], [{"index": 0, "embedding": ["1"]}],
        [{"index": 0, "embedding": "AAA"}], [{"index": 0, "embedding": "AAA="}], [{"index": 0, "embedding": "!"}],
        [{"index": 0, "embedding": "AADAfw=="}], [{"index": 0, "embedding": [10**400]}],
        [{"index": 0, "embedding": [True]}], [{"index": 0, "embedding": None}],
    ],
)  # fmt: skip
def test_what_holds_no_vectors_is_a_protocol_error(make: Any, vendor: Any, run: Any, data: Any) -> None:
    with pytest.raises(errors.ProtocolError):
        run(make("openai", vendor(httpx.Response(200, json={"data": data}))).embed(TEXTS))


def test_a_vector_that_is_no_number_is_a_protocol_error(make: Any, vendor: Any, run: Any) -> None:
    body = b'{"data": [{"index": 0, "embedding": [NaN]}]}'
    with pytest.raises(errors.ProtocolError):
        run(make("openai", vendor(httpx.Response(200, content=body))).embed(TEXTS))
