"""Ollama's own API: what is sent, what is read at any splitting of the bytes, and what is said of the rest."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck import RubberDuck, errors
from rubberduck.config import ProviderConfig
from rubberduck.errors import ConfigError, InvalidRequest, MissingApiKey, RubberDuckError
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.ollama.provider import CONTEXT_TOKENS, Ollama
from rubberduck.providers.ollama.stream import OllamaStreamDecoder
from rubberduck.types import Chunk, EmbeddingRequest, FinishReason, Request, Response, TokenLogprob, Usage

COUNTERS = {"total_duration": 9, "load_duration": 1, "prompt_eval_count": 7, "eval_count": 3, "eval_duration": 5}
LAST = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **COUNTERS}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
OTHER = {"type": "function", "function": {"name": "time", "description": "What time it is"}}


def line(content: str = "", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"model": "llama", "created_at": "2026-01-02T03:04:05.678901234Z", "message": message, "done": False}


def ndjson(*lines: dict[str, Any]) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines).encode()


def called(*calls: dict[str, Any]) -> dict[str, Any]:
    return line(tool_calls=[{"function": call} for call in calls])


def read(body: bytes, size: int = 10**9) -> tuple[list[Chunk], Any]:
    decoder = OllamaStreamDecoder("ollama")
    chunks: list[Chunk] = []
    try:
        for at in range(0, len(body), size):
            chunks += decoder.feed(body[at : at + size])
            decoder.check()
        return chunks + decoder.end(), None
    except RubberDuckError as error:
        return chunks, error


def answer(*lines: dict[str, Any]) -> Response:
    """The one answer that these lines are, however they are split."""
    body = ndjson(*lines)
    chunks, error = read(body)
    assert error is None, error
    for size in (1, 2, 3, 7):
        assert read(body, size) == (chunks, None)
    so_far = Assembly()
    for chunk in chunks:
        so_far.add(chunk)
    return so_far.response()


def provider(**options: Any) -> Ollama:
    return Ollama.init(ProviderConfig(name="ollama", module="ollama", **options))


def sent(ask: Any = None, given: Ollama | None = None, **fields: Any) -> dict[str, Any]:
    fields.setdefault("messages", [{"role": "user", "content": "Hi"}])
    return (given or provider()).encode(Request.parse({"model": "llama", **fields}))[2]


def warned(**fields: Any) -> tuple[str, ...]:
    fields.setdefault("messages", [{"role": "user", "content": "Hi"}])
    return provider().warnings(Request.parse({"model": "llama", **fields}))


# --- streams


def test_text_comes_line_by_line_and_the_last_line_tells_why_and_at_what_cost() -> None:
    response = answer(line("Grü"), line("ße 🦆\u2028"), LAST)
    assert response.text == "Grüße 🦆\u2028"
    assert (response.model, response.choices[0].raw_finish_reason) == ("llama", "stop")
    assert response.choices[0].finish_reason is FinishReason.STOP
    assert response.usage == Usage(7, 3)
    assert response.usage.raw == COUNTERS


def test_the_role_comes_once_and_an_empty_line_is_no_progress() -> None:
    chunks, _ = read(ndjson(line(), line("a"), line("b"), LAST))
    assert [(chunk.delta.role, chunk.delta.content) for chunk in chunks] == [
        ("assistant", "a"),
        (None, "b"),
        (None, ""),
    ]


def test_thinking_is_reasoning() -> None:
    message = answer(line(thinking="h"), line(thinking="m"), line("Hi"), LAST).choices[0].message
    assert (message.reasoning, message.content) == ("hm", "Hi")


def test_whole_tool_calls_come_before_the_last_line_and_are_given_ids() -> None:
    weather = {"name": "weather", "arguments": {"city": "Köln", "days": 2}}
    response = answer(called(weather), called(weather, {"name": "time"}), LAST)
    calls = response.choices[0].message.tool_calls
    assert [(call.function.name, json.loads(call.function.arguments)) for call in calls] == [
        ("weather", {"city": "Köln", "days": 2}),
        ("weather", {"city": "Köln", "days": 2}),
        ("time", {}),
    ]
    assert len({call.id for call in calls} - {""}) == 3
    assert response.choices[0].finish_reason is FinishReason.TOOL_CALLS


def test_an_id_that_a_server_gave_is_kept() -> None:
    response = answer(line(tool_calls=[{"id": "call_7", "function": {"name": "f", "arguments": {}}}]), LAST)
    assert response.choices[0].message.tool_calls[0].id == "call_7"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("load", FinishReason.UNKNOWN),
        ("unload", FinishReason.UNKNOWN),
        ("", FinishReason.UNKNOWN),
        (None, FinishReason.UNKNOWN),
    ],
)
def test_reasons_to_end(raw: str | None, reason: FinishReason) -> None:
    assert answer(line("a"), LAST | {"done_reason": raw}).choices[0].finish_reason is reason


def test_arguments_may_be_cut_by_length() -> None:
    response = answer(called({"name": "f", "arguments": {}}), LAST | {"done_reason": "length"})
    assert response.choices[0].finish_reason is FinishReason.LENGTH


def test_a_counter_that_is_left_out_is_zero_and_no_counter_at_all_is_an_unknown_usage() -> None:
    assert answer(line("a"), {"done": True, "eval_count": 3, "total_duration": 9}).usage == Usage(0, 3)
    assert answer(line("a"), {"done": True}).usage.estimated


def test_log_probabilities_stand_beside_the_message() -> None:
    said = {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "I", "logprob": -1}]}
    logprobs = answer(line("H") | {"logprobs": [said]}, line("i"), LAST).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content == (TokenLogprob("H", -0.5, (72,), (TokenLogprob("I", -1.0),)),)


def test_the_last_line_may_say_something_too() -> None:
    assert answer(line("a"), line("b") | LAST | {"message": {"content": "c"}}).text == "ac"


def test_lines_of_generate_have_their_text_in_themselves() -> None:
    lines = [{"response": "a", "done": False}, {"thinking": "hm", "response": "b", "done": False}]
    message = answer(*lines, {"response": "", **COUNTERS, "done": True, "done_reason": "stop"}).choices[0].message
    assert (message.content, message.reasoning) == ("ab", "hm")


def test_every_cut_before_the_end_is_an_interruption() -> None:
    body = ndjson(line("Grüße 🦆"), LAST)
    for cut in range(len(body) - 1):
        assert isinstance(read(body[:cut])[1], errors.StreamInterrupted), body[:cut]
    assert read(body[:-1])[1] is None  # the line break behind the last line says nothing


def test_an_error_after_text_is_the_servers() -> None:
    for size in (1, 3, 10**9):
        chunks, error = read(ndjson(line("Yes"), {"error": "the model broke"}, line("lost"), LAST), size)
        assert [chunk.delta.content for chunk in chunks] == ["Yes"]
        assert type(error) is errors.ServiceUnavailable
        assert "the model broke" in error.message


@pytest.mark.parametrize("body", [b"ok", b"<html></html>\n", b"[1]\n", b'{"status":"up"}\n', b"data: {}\n\n"])
def test_what_is_no_answer_is_a_protocol_error(body: bytes) -> None:
    assert type(read(body, 1)[1]) is errors.ProtocolError


@pytest.mark.parametrize("body", [b"", b"{", b'\n  {"mod', b" "])
def test_the_beginning_of_a_line_is_an_interruption(body: bytes) -> None:
    assert type(read(body, 1)[1]) is errors.StreamInterrupted


WORDS = [
    "message", "content", "thinking", "tool_calls", "function", "name", "arguments", "id", "done", "done_reason",
    "error", "logprobs", "token", "logprob", "bytes", "top_logprobs", "eval_count", "response", "model", "\ud800",
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)
)


@given(
    lines=st.lists(st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=6), max_size=4), size=st.integers(1, 50)
)
def test_strange_lines_raise_our_errors_only_and_leave_sound_text(lines: list[Any], size: int) -> None:
    body = "".join(json.dumps(each) + "\n" for each in lines).encode()
    chunks, error = read(body, size)
    again, other = read(body)
    assert (repr(again), str(other)) == (repr(chunks), str(error))  # a NaN is not equal to itself
    so_far = Assembly()
    for chunk in chunks:
        so_far.add(chunk)
    so_far.response().text.encode()


@given(body=st.binary(max_size=200), size=st.integers(1, 50))
def test_arbitrary_bytes_raise_our_errors_only(body: bytes, size: int) -> None:
    read(body, size)


# --- whole answers


def test_a_whole_answer_is_one_object() -> None:
    call = {"function": {"name": "f", "arguments": {"x": 1}}}
    said = line("Hi", thinking="hm", tool_calls=[call]) | {"done": True, "done_reason": "stop", **COUNTERS}
    response = provider().decode(200, {}, json.dumps(said).encode())
    choice = response.choices[0]
    assert (response.text, choice.message.reasoning, response.created) == ("Hi", "hm", 1767323045)
    assert choice.message.tool_calls[0].function.arguments == '{"x": 1}'
    assert (choice.finish_reason, choice.raw_finish_reason) == (FinishReason.TOOL_CALLS, "stop")
    assert response.usage == Usage(7, 3)


@pytest.mark.parametrize("said", [{}, line("half"), {"done": False}, {"status": "ok"}, []])
def test_an_object_that_is_no_whole_answer_is_a_protocol_error(said: Any) -> None:
    with pytest.raises(errors.ProtocolError):
        provider().decode(200, {}, json.dumps(said).encode())


OVERFLOW = {"code": 400, "message": "request (8889 tokens) exceeds the available context size (4096 tokens)"}


@pytest.mark.parametrize(
    ("status", "text", "expected"),
    [
        (404, "model 'x' not found", errors.ModelNotFound),
        (400, "registry.ollama.ai/library/x does not support tools", errors.InvalidRequest),
        (400, "the input length exceeds the context length", errors.ContextLengthExceeded),
        (400, json.dumps({"error": OVERFLOW | {"type": "exceed_context_size_error"}}), errors.ContextLengthExceeded),
        (401, "unauthorized", errors.AuthenticationFailed),
        (429, "too many concurrent requests", errors.RateLimited),
        (500, "llama runner process has terminated", errors.ServiceUnavailable),
        (503, "server busy, please try again", errors.Overloaded),
        (502, "upstream is away", errors.ServiceUnavailable),
    ],
)
def test_errors_are_a_text_and_a_status(status: int, text: str, expected: type) -> None:
    error = provider().classify(status, {}, json.dumps({"error": text}).encode())
    assert type(error) is expected
    assert error.status == status


# --- requests


def test_what_is_sent_says_that_nothing_may_be_cut_and_how_much_fits() -> None:
    assert sent() == {
        "model": "llama",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "truncate": False,
        "options": {"num_ctx": CONTEXT_TOKENS},
    }
    assert sent(stream=True)["stream"] is True


def test_the_context_is_configured_or_left_to_the_server() -> None:
    assert sent(given=provider(options={"num_ctx": 32768}))["options"] == {"num_ctx": 32768}
    assert "options" not in sent(given=provider(options={"num_ctx": 0}))
    assert sent(given=provider(options={"keep_alive": "10m"}))["keep_alive"] == "10m"
    assert "options" not in sent(model="gpt-oss:120b-cloud")


def test_sampling_goes_into_options() -> None:
    fields = {
        "max_tokens": 5, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "seed": 0, "stop": ["x"],
        "presence_penalty": 0.0, "frequency_penalty": 1.0,
    }  # fmt: skip
    options = {name: value for name, value in fields.items() if name != "max_tokens"}
    assert sent(**fields)["options"] == {"num_ctx": CONTEXT_TOKENS, "num_predict": 5, **options}


def test_a_conversation_with_tools_and_pictures() -> None:
    call = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "See"}, image]},
        {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "20"},
    ]
    called = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
    assert sent(messages=messages, tools=[TOOL])["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "See", "images": ["AAAA"]},
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [called]},
        {"role": "tool", "content": "20", "tool_name": "weather", "tool_call_id": "c1"},
    ]


def test_calls_and_results_of_old_have_names_only() -> None:
    call = {"name": "f", "arguments": "{}"}
    messages = [{"role": "assistant", "function_call": call}, {"role": "function", "name": "f", "content": "1"}]
    assert sent(messages=messages)["messages"] == [
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "1", "tool_name": "f"},
    ]


@pytest.mark.parametrize("arguments", ["{broken", "[1]", "5"])
def test_arguments_that_are_no_object_are_kept_as_text(arguments: str) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    turn = sent(messages=[{"role": "assistant", "tool_calls": [call]}])["messages"][0]
    assert turn["tool_calls"][0]["function"]["arguments"] == {"INVALID_JSON": arguments}


def test_formats() -> None:
    schema = {"type": "object"}
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    assert sent(response_format=wanted)["format"] == schema
    assert sent(response_format={"type": "json_object"})["format"] == "json"
    assert "format" not in sent(response_format={"type": "text"})


@pytest.mark.parametrize(
    ("effort", "think"),
    [("none", False), ("minimal", "low"), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max")],
)
def test_effort_is_thinking(effort: str, think: bool | str) -> None:
    assert sent(reasoning_effort=effort)["think"] == think
    assert bool(warned(reasoning_effort=effort)) is (effort == "minimal")


def test_a_budget_is_thinking_or_none() -> None:
    assert (sent(reasoning_budget=0)["think"], sent(reasoning_budget=2048)["think"]) == (False, True)
    assert "reasoning_budget" in warned(reasoning_budget=2048)[0]


def test_a_probability_beyond_all_numbers_is_no_crash() -> None:
    said = {"token": "H", "logprob": -(10**400), "bytes": [72]}
    logprobs = answer(line("H") | {"logprobs": [said]}, LAST).choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content == (TokenLogprob("H", -1e300, (72,)),)


def test_logprobs_are_asked_for() -> None:
    body = sent(logprobs=True, top_logprobs=2)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)
    assert "logprobs" not in sent()


def names(body: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", ())]


def test_a_choice_of_tools_is_a_choice_of_what_is_sent() -> None:
    tools = [TOOL, OTHER]
    named = {"type": "function", "function": {"name": "time"}}
    allowed = {"type": "allowed_tools", "mode": "auto", "names": ["weather"]}
    assert names(sent(tools=tools)) == names(sent(tools=tools, tool_choice="auto")) == ["weather", "time"]
    assert names(sent(tools=tools, tool_choice="none")) == []
    assert names(sent(tools=tools, tool_choice=named)) == ["time"]
    assert names(sent(tools=tools, tool_choice=allowed)) == ["weather"]
    assert not warned(tools=tools, tool_choice=allowed)
    for choice in ("required", named, allowed | {"mode": "required"}):
        assert "tool_choice" in warned(tools=tools, tool_choice=choice)[0]


def test_a_tool_without_parameters_takes_none() -> None:
    assert sent(tools=[OTHER])["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "time",
                "parameters": {"type": "object", "properties": {}},
                "description": "What time it is",
            },
        }
    ]


AUDIO = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
PDF = {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}
REMOTE = {"type": "image_url", "image_url": {"url": "http://example.org/a.png"}}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n": 2}, "n"),
        ({"messages": [{"role": "user", "content": [AUDIO]}]}, "messages.content"),
        ({"messages": [{"role": "user", "content": [PDF]}]}, "messages.content"),
        ({"messages": [{"role": "user", "content": [REMOTE]}]}, "messages.content.image_url.url"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools"),
        ({"extra": {"model": "other"}}, "extra.model"),
        ({"extra": {"ollama": {"messages": []}}}, "extra.messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_field(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        sent(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_bias", {"5": 1.0}),
        ("verbosity", "low"),
        ("prompt_cache_key", "k"),
        ("cache_control", {}),
        ("service_tier", "flex"),
        ("metadata", {"a": "b"}),
        ("user", "u"),
        ("reasoning_summary", "auto"),
    ],
)
def test_what_is_not_sent_is_named(name: str, value: Any) -> None:
    assert [text.split()[0] for text in warned(**{name: value})] == [name]
    assert sent(**{name: value}) == sent()


def test_what_is_not_sent_of_tools_and_messages_is_named() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "high"}}
    text = {"type": "text", "text": "a", "cache_control": {}}
    result = {"role": "tool", "tool_call_id": "c", "content": "no", "is_error": True}
    messages = [{"role": "user", "name": "Ann", "content": [text, image]}, result]
    strict = {"function": {"name": "f", "strict": True}, "cache_control": {}}
    told = warned(messages=messages, tools=[strict], parallel_tool_calls=False)
    assert {text.split()[0] for text in told} == {
        "messages.name", "messages.content.cache_control", "messages.content.image_url.detail", "messages.is_error",
        "tools.function.strict", "tools.cache_control", "parallel_tool_calls",
    }  # fmt: skip
    assert warned(tools=[TOOL], parallel_tool_calls=True) == ()


def test_extra_parameters_find_their_place() -> None:
    body = sent(temperature=0.5, extra={"min_p": 0.1, "keep_alive": -1, "truncate": True, "options": {"num_gpu": 1}})
    assert (body["keep_alive"], body["truncate"]) == (-1, True)
    assert body["options"] == {"num_ctx": CONTEXT_TOKENS, "temperature": 0.5, "num_gpu": 1, "min_p": 0.1}


# --- keys, addresses, prices


def test_only_ollama_com_gets_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "secret")
    assert provider().key is None
    assert provider(base_url="http://example.org").key is None
    assert provider(base_url="https://ollama.com").key == "secret"
    headers = provider(api_keys=["mine"]).encode(Request.parse({"model": "m", "messages": [user()]}))[1]
    assert headers == {"Authorization": "Bearer mine"}
    monkeypatch.delenv("OLLAMA_API_KEY")
    with pytest.raises(MissingApiKey):
        provider(base_url="https://ollama.com")


def user(content: str = "Hi") -> dict[str, str]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("base_url", "path"), [(None, "/api/chat"), ("http://h:1/api", "/chat"), ("http://h/ollama", "/api/chat")]
)
def test_the_path_fits_the_address(base_url: str | None, path: str) -> None:
    given = provider(base_url=base_url)
    assert given.encode(Request.parse({"model": "m", "messages": [user()]}))[0] == path


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"base_url": "http://h/v1"}, "leave /v1 away"),
        ({"options": {"num_ctx": -1}}, "num_ctx"),
        ({"options": {"num_ctx": True}}, "num_ctx"),
        ({"options": {"keep_alive": []}}, "keep_alive"),
        ({"options": {"num_gpu": 1}}, "unknown"),
    ],
)
def test_a_wrong_configuration_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        provider(**options)


def test_ones_own_machine_costs_nothing_and_the_cloud_an_unknown_sum() -> None:
    assert provider().estimate_cost(Usage(1, 1), "llama") == Decimal(0)
    assert provider().estimate_cost(Usage(1, 1), "gpt-oss:120b-cloud") is None
    assert provider(base_url="https://ollama.com", api_keys=["k"]).estimate_cost(Usage(1, 1), "gpt-oss:120b") is None


def test_any_model_unless_some_are_listed() -> None:
    assert provider().supports_model("llama3.2:1b")
    assert not provider(models=["a"]).supports_model("b")


# --- embeddings


def test_texts_become_vectors(make: Any, vendor: Any, run: Any) -> None:
    said = {"model": "nomic", "embeddings": [[0.5, 1], [0.0, -1.5]], "prompt_eval_count": 4, "total_duration": 9}
    server = vendor(httpx.Response(200, json=said))
    request = EmbeddingRequest.parse({"model": "nomic", "input": ["a", "b"], "dimensions": 2})
    got = run(make("ollama", server).embed(request))
    assert server.requests[0].url.path == "/api/embed"
    assert server.sent == {"model": "nomic", "input": ["a", "b"], "truncate": False, "dimensions": 2}
    assert got.vectors == ((0.5, 1.0), (0.0, -1.5))
    assert got.usage == Usage(4, 0)


def test_vectors_come_with_a_word_on_what_was_not_sent(make: Any, vendor: Any, run: Any) -> None:
    server = vendor(httpx.Response(200, json={"embeddings": [[0.5]]}))
    got = run(make("ollama", server).embed(EmbeddingRequest.parse({"model": "m", "input": "a", "user": "u"})))
    assert got.warnings == ("user is not sent: Ollama has no such field",)


def test_token_numbers_are_no_texts() -> None:
    with pytest.raises(InvalidRequest) as refused:
        provider().encode_embedding(EmbeddingRequest.parse({"model": "m", "input": [[1, 2]]}))
    assert refused.value.field == "input"


@pytest.mark.parametrize("said", [{}, {"embeddings": []}, {"embeddings": [["x"]]}, {"embeddings": [[]]}])
def test_what_holds_no_vectors_is_a_protocol_error(said: Any) -> None:
    with pytest.raises(errors.ProtocolError):
        provider().decode_embedding(200, {}, json.dumps(said).encode())


# --- over the transport


def test_a_call_and_a_stream_over_http(make: Any, vendor: Any, run: Any, ask: Any, gather: Any, pieces: Any) -> None:
    whole = httpx.Response(200, json=line("Hi") | LAST | {"message": {"role": "assistant", "content": "Hi"}})
    parts = pieces(ndjson(line("H"), line("i"), LAST), 5)
    streamed = httpx.Response(200, headers={"content-type": "application/x-ndjson"}, stream=parts)

    async def story() -> None:
        ollama = make("ollama", server := vendor(whole, streamed))
        response = await ollama.complete(ask("llama", user="u"))
        assert (response.text, response.usage.total_tokens, response.provider) == ("Hi", 10, "ollama")
        assert response.warnings == ("user is not sent: Ollama has no such parameter",)
        chunks = await gather(ollama.stream(ask("llama")))
        assert "".join(chunk.delta.content for chunk in chunks) == "Hi"
        assert chunks[-1].usage == Usage(7, 3)
        assert server.sent["stream"] is True
        await ollama.aclose()

    run(story())


def test_a_duck_speaks_to_ollama(tmp_path: Path) -> None:
    """Calls, streams, failures and embeddings, through the whole tree; the machine is one's own, so all is free."""
    embedded = {"model": "llama", "embeddings": [[0.5, 1.0]], "prompt_eval_count": 4}

    def serve(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        if request.url.path == "/api/embed":
            return httpx.Response(200, json=embedded)
        if asked["model"] == "gone":
            return httpx.Response(404, json={"error": "model 'gone' not found"})
        if asked["stream"]:
            lines = ndjson(called({"name": "weather", "arguments": {"city": "Rome"}}), LAST)
            return httpx.Response(200, headers={"content-type": "application/x-ndjson"}, content=lines)
        return httpx.Response(200, json=line("Hi") | {"done": True, "done_reason": "stop", **COUNTERS})

    config = {"providers": {"ollama": {}}, "ledger": {"path": str(tmp_path / "ledger.sqlite")}}
    with RubberDuck.start(config, transport=httpx.MockTransport(serve)) as duck:
        asking = {"model": "ollama/llama", "messages": [user()]}
        response = duck.complete(asking | {"user": "u"})
        assert (response.text, response.usage.total_tokens, response.usage.cost) == ("Hi", 10, 0)
        assert response.warnings == ("user is not sent: Ollama has no such parameter",)
        with duck.stream(asking | {"tools": [TOOL]}) as stream:
            calls = [call for chunk in stream for call in chunk.delta.tool_calls]
            assert [(call.name, call.arguments) for call in calls] == [("weather", '{"city": "Rome"}')]
        with pytest.raises(errors.ModelNotFound):
            duck.complete(asking | {"model": "ollama/gone"})
        assert duck.embed({"model": "ollama/llama", "input": "a"}).vectors == ((0.5, 1.0),)
        assert duck.costs().tokens == 24
