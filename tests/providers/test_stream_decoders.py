"""The habits of compatible servers, seen in small streams written by hand, and streams that are no streams."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import errors
from rubberduck.errors import RubberDuckError
from rubberduck.providers.anthropic.stream import AnthropicStreamDecoder
from rubberduck.providers.assembly import Assembly, as_chunks
from rubberduck.providers.openai.provider import decode_response
from rubberduck.providers.openai.stream import OpenAIStreamDecoder
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, FinishReason, Response


def read(body: bytes, size: int = 10**9, decoder: StreamDecoder | None = None) -> tuple[list[Chunk], Any]:
    decoder = decoder or OpenAIStreamDecoder("vendor")
    chunks: list[Chunk] = []
    try:
        for at in range(0, len(body), size):
            chunks += decoder.feed(body[at : at + size])
        return chunks + decoder.end(), None
    except RubberDuckError as error:
        return chunks, error


def answer(body: bytes) -> Response:
    """The one answer that a stream is, however it is split."""
    chunks, error = read(body)
    assert error is None, error
    for size in (1, 2, 3):
        assert read(body, size) == (chunks, None)
    so_far = Assembly()
    for chunk in chunks:
        so_far.add(chunk)
    return so_far.response()


def part(delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": index, "delta": delta or {}, "finish_reason": reason}], **more}


def tool(index: int | None, call_id: str | None, name: str | None, arguments: Any) -> dict[str, Any]:
    call: dict[str, Any] = {"function": {"name": name, "arguments": arguments}, "id": call_id, "index": index}
    call = {key: value for key, value in call.items() if value is not None}
    return part({"tool_calls": [call]})


def calls(*events: dict[str, Any], sse: Any) -> list[tuple[str, str]]:
    message = answer(sse(*events, part(reason="tool_calls"))).choices[0].message
    ids = [call.id for call in message.tool_calls]
    assert len(set(ids)) == len(ids)
    assert all(ids)
    return [(call.function.name, call.function.arguments) for call in message.tool_calls]


USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


# --- where the end is


def test_a_finish_reason_without_done_is_an_end(sse: Any) -> None:
    assert answer(sse(part({"content": "Hi"}), part(reason="stop"), done=False)).text == "Hi"


def test_done_without_a_finish_reason_is_an_end_with_an_unknown_reason(sse: Any) -> None:
    response = answer(sse(part({"content": "Hi"})))
    assert (response.choices[0].finish_reason, response.choices[0].raw_finish_reason) == (FinishReason.UNKNOWN, None)


def test_neither_is_an_interruption(sse: Any) -> None:
    chunks, error = read(sse(part({"content": "Hi"}), done=False))
    assert chunks[0].delta.content == "Hi"
    assert isinstance(error, errors.StreamInterrupted)


def test_one_finished_choice_of_two_is_an_interruption(sse: Any) -> None:
    body = sse(part({"content": "a"}), part({"content": "b"}, index=1), part(reason="stop"), done=False)
    assert isinstance(read(body)[1], errors.StreamInterrupted)


def test_a_choice_ends_once(sse: Any) -> None:
    chunks, _ = read(sse(part({"content": "Hi"}, "length"), part(reason="length"), part(reason="stop")))
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [FinishReason.LENGTH]


def test_what_follows_done_is_nothing(sse: Any) -> None:
    assert answer(sse(part({"content": "Hi"}, "stop")) + b"data: {broken\n\n").text == "Hi"


def test_a_last_event_without_its_blank_line_counts(sse: Any) -> None:
    assert answer(sse(part({"content": "Hi"}), part(reason="stop"), done=False).rstrip(b"\n")).text == "Hi"


def test_every_cut_before_the_end_is_an_interruption(sse: Any) -> None:
    body = b": ping\r\n\r\n" + sse(part({"content": "Grüße 🦆"}), part(reason="stop"), part(usage=USAGE))
    end = body.index(b'"stop"') + len(b'"stop"}]}')
    for cut in range(end):
        assert isinstance(read(body[:cut])[1], errors.StreamInterrupted), body[:cut]
    for cut in range(end, len(body)):
        assert read(body[:cut])[1] is None


# --- usage


@pytest.mark.parametrize(
    "events",
    [
        [part({"content": "Hi"}, "stop"), {"choices": [], "usage": USAGE}],
        [part({"content": "Hi"}, "stop", usage=USAGE)],
        [part({"content": "Hi"}, "stop", x_groq={"usage": USAGE})],
        [part({"content": "Hi"}, "stop"), part(usage=USAGE), part(usage=USAGE)],
        [part({"content": "Hi"}, usage={"prompt_tokens": 3, "completion_tokens": 1}), part(reason="stop", usage=USAGE)],
        [part({"content": "Hi"}, usage=None), part(reason="stop", usage=USAGE)],
    ],
    ids=["own chunk", "finish chunk", "x_groq", "after the finish", "every chunk", "null before"],
)
def test_usage_counts_wherever_it_stands(sse: Any, events: list[Any]) -> None:
    chunks, _ = read(sse(*events))
    assert [bool(chunk.usage) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1].usage
    assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 2)
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [FinishReason.STOP]


# --- what the chunks hold


def test_a_first_chunk_without_choices_says_nothing(sse: Any) -> None:
    body = sse(
        {"id": "", "model": "", "choices": [], "prompt_filter_results": []}, part({"content": "Hi"}, "stop", model="m")
    )
    response = answer(body)
    assert (response.id, response.model, response.text) == ("c1", "m", "Hi")


def test_the_role_alone_is_no_progress_and_comes_with_the_first_text(sse: Any) -> None:
    events = [part({"role": "assistant", "content": ""}), part({"content": "a"}), part({"content": "b"}, "stop")]
    chunks, _ = read(sse(*events))
    assert [(chunk.delta.role, chunk.delta.content) for chunk in chunks] == [("assistant", "a"), (None, "b")]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_stands_under_either_name(sse: Any, name: str) -> None:
    message = answer(sse(part({name: "hm"}), part({"content": "Hi"}, "stop"))).choices[0].message
    assert (message.reasoning, message.content) == ("hm", "Hi")


def test_arrays_and_strings_mix_in_one_stream(sse: Any) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    events = [
        part({"content": [thinking]}),
        part({"content": [{"type": "text", "text": "a"}]}),
        part({"content": "b"}, "stop"),
    ]
    message = answer(sse(*events)).choices[0].message
    assert (message.reasoning, message.content) == ("hm", "ab")


def test_a_refusal_is_a_filtered_answer(sse: Any) -> None:
    choice = answer(sse(part({"refusal": "No"}), part({"refusal": "."}), part(reason="stop"))).choices[0]
    assert (choice.message.refusal, choice.finish_reason) == ("No.", FinishReason.CONTENT_FILTER)


def test_a_whole_message_beside_the_delta_is_not_said_twice(sse: Any) -> None:
    said = part({"content": "Hi"}, "stop")
    said["choices"][0]["message"] = {"content": "Hi"}
    assert answer(sse(said)).text == "Hi"


def test_choices_interleave(sse: Any) -> None:
    events = [part({"content": text}, index=index) for text, index in (("a", 0), ("b", 1), ("c", 0), ("d", 1))]
    response = answer(sse(*events, part(reason="stop", index=1), part(reason="length")))
    assert [(choice.message.content, choice.finish_reason) for choice in response.choices] == [
        ("ac", FinishReason.LENGTH),
        ("bd", FinishReason.STOP),
    ]


def test_line_ends_and_unicode_line_separators_do_not_matter(sse: Any) -> None:
    choice = '{"index":0,"delta":{"content":"a\u2028b\u0085c"},"finish_reason":"stop"}'
    raw = 'data: {"choices":[' + choice + "]}\n\ndata: [DONE]\n\n"
    for end in ("\n", "\r\n", "\r"):
        assert answer(raw.replace("\n", end).encode()).text == "a\u2028b\u0085c"


def test_half_a_character_is_replaced_since_no_encoder_would_take_it() -> None:
    body = b'data: {"choices":[{"delta":{"content":"\\ud83e\\udd86 \\ud83e!"},"finish_reason":"stop"}]}\n\n'
    assert answer(body).text == "🦆 \ufffd!"
    later = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\ud83e"}}]}\n\n'
    assert answer(later + body).text == "a\ufffd🦆 \ufffd!"


# --- tool calls


def test_arguments_come_in_fragments(sse: Any) -> None:
    events = [tool(0, "a", "f", ""), tool(0, None, None, '{"x"'), tool(0, None, None, ":1}"), tool(1, "b", "g", "{}")]
    assert calls(*events, sse=sse) == [("f", '{"x":1}'), ("g", "{}")]


def test_head_repeated_in_every_fragment(sse: Any) -> None:
    events = [tool(0, "0", "f", None), tool(0, "0", "f", '{"x"'), tool(0, "0", "f", ":1}")]
    assert calls(*events, sse=sse) == [("f", '{"x":1}')]


def test_two_calls_under_one_index_are_told_apart_by_their_ids(sse: Any) -> None:
    events = [
        tool(0, "a", "f", '{"x"'),
        tool(0, None, None, ":1}"),
        tool(0, "b", "f", '{"y"'),
        tool(0, None, None, ":2}"),
    ]
    assert calls(*events, sse=sse) == [("f", '{"x":1}'), ("f", '{"y":2}')]


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("call_id", [None, ""])
def test_whole_calls_without_ids(sse: Any, index: int | None, call_id: str | None) -> None:
    events = [tool(index, call_id, "f", '{"x":1}'), tool(index, call_id, "f", '{"x":2}')]
    assert calls(*events, sse=sse) == [("f", '{"x":1}'), ("f", '{"x":2}')]


def test_arguments_may_be_missing_or_an_object(sse: Any) -> None:
    assert calls(tool(0, "a", "f", None), tool(1, "b", "g", {"x": 1}), sse=sse) == [("f", "{}"), ("g", '{"x": 1}')]


def test_indices_need_not_begin_at_zero_nor_come_in_order(sse: Any) -> None:
    events = [
        tool(5, "a", "f", '{"x"'),
        tool(2, "b", "g", '{"y"'),
        tool(5, None, None, ":1}"),
        tool(2, None, None, ":2}"),
    ]
    assert calls(*events, sse=sse) == [("f", '{"x":1}'), ("g", '{"y":2}')]


def test_a_whole_call_with_the_finish_reason_in_one_chunk(sse: Any) -> None:
    call = {"index": 0, "id": "abcdefghi", "function": {"name": "f", "arguments": "{}"}}
    choice = answer(sse(part({"tool_calls": [call]}, "tool_calls"), done=False)).choices[0]
    assert choice.message.tool_calls[0].id == "abcdefghi"
    assert choice.finish_reason is FinishReason.TOOL_CALLS


def test_a_function_call_of_old_streams_as_a_tool_call(sse: Any) -> None:
    events = [
        part({"function_call": {"name": "f", "arguments": ""}}),
        part({"function_call": {"arguments": '{"x":1}'}}),
    ]
    assert calls(*events, sse=sse) == [("f", '{"x":1}')]


def test_stop_with_tool_calls_is_tool_calls_and_length_stays(sse: Any) -> None:
    for reason, expected in (("stop", FinishReason.TOOL_CALLS), ("length", FinishReason.LENGTH)):
        response = answer(sse(tool(0, "a", "f", "{}"), part(reason=reason)))
        assert response.choices[0].finish_reason is expected


# --- what few streams have


def test_probabilities_come_with_their_tokens(sse: Any) -> None:
    def said(text: str, logprob: float) -> dict[str, Any]:
        event = part({"content": text})
        event["choices"][0]["logprobs"] = {"content": [{"token": text, "logprob": logprob, "bytes": None}]}
        return event

    choice = answer(sse(part({"role": "assistant", "content": ""}), said("a", -1), said("b", -2), part(reason="stop")))
    told = choice.choices[0].logprobs
    assert told
    assert [(token.token, token.logprob) for token in told.content] == [("a", -1.0), ("b", -2.0)]


def test_sources_and_speech_come_in_deltas(sse: Any) -> None:
    source = {"type": "url_citation", "url_citation": {"url": "u", "title": "t", "start_index": 0, "end_index": 1}}
    events = [
        part({"content": "a"}),
        part({"annotations": [source]}),
        part({"audio": {"id": "audio_1", "transcript": "a"}}),
        part({"audio": {"data": "AA"}}),
        part({"audio": {"data": "BB", "expires_at": 9}}, "stop"),
    ]
    message = answer(sse(*events)).choices[0].message
    assert [cited.url for cited in message.annotations] == ["u"]
    assert message.audio
    assert (message.audio.id, message.audio.data, message.audio.expires_at) == ("audio_1", "AABB", 9)


def test_calls_of_free_text_stream_too(sse: Any) -> None:
    def custom(**call: Any) -> dict[str, Any]:
        return part({"tool_calls": [{"index": 0, **call}]})

    head = custom(id="c", type="custom", custom={"name": "shell", "input": ""})
    (call,) = (
        answer(sse(head, custom(custom={"input": "l"}), custom(custom={"input": "s"}), part(reason="tool_calls")))
        .choices[0]
        .message.tool_calls
    )
    assert (call.type, call.function.name, call.function.arguments) == ("custom", "shell", "ls")
    (bare,) = answer(sse(head, part(reason="tool_calls"))).choices[0].message.tool_calls
    assert bare.function.arguments == ""


def test_fragments_of_sealed_reasoning_are_one_again(sse: Any) -> None:
    def detail(**said: Any) -> dict[str, Any]:
        return {"type": "reasoning.text", "index": 0, **said}

    events = [
        part({"reasoning": "h", "reasoning_details": [detail(text="h", signature=None)]}, model="m"),
        part({"reasoning": "m", "reasoning_details": [detail(text="m")]}),
        part({"reasoning_details": [detail(signature="s")]}),
        part({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "x"}]}),
        part({"reasoning_details": [{"type": "reasoning.encrypted", "index": 1, "data": "y"}]}),
        part({"content": "Hi"}, "stop"),
    ]
    message = answer(sse(*events)).choices[0].message
    assert (message.reasoning, message.content) == ("hm", "Hi")
    assert message.native
    assert (message.native.format, message.native.model) == ("openrouter", "m")
    assert message.native.items == (
        {"type": "reasoning.text", "index": 0, "text": "hm", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
        {"type": "reasoning.encrypted", "index": 1, "data": "y"},
    )


def test_reasoning_that_stands_in_its_details_only_is_read_there(sse: Any) -> None:
    details = [{"type": "reasoning.summary", "summary": "hm"}]
    assert (
        answer(sse(part({"reasoning_details": details}), part({"content": "Hi"}, "stop"))).choices[0].message.reasoning
        == "hm"
    )


def test_a_signature_in_a_call_is_kept_for_its_way_back(sse: Any) -> None:
    call = {"function": {"name": "f", "arguments": "{}"}, "extra_content": {"google": {"thought_signature": "s"}}}
    for body in (sse(part({"tool_calls": [call]}, "stop")), sse(part({"tool_calls": [call]}))):
        message = answer(body).choices[0].message
        assert message.native
        assert message.native.items == ({"id": message.tool_calls[0].id, "extra_content": call["extra_content"]},)


def test_the_tier_that_a_call_was_served_in_stands_in_its_usage(sse: Any) -> None:
    body = sse(part({"content": "Hi"}, "stop"), {"choices": [], "usage": USAGE, "service_tier": "flex"})
    assert answer(body).usage.service_tier == "flex"


def test_a_server_that_says_everything_in_every_chunk(sse: Any) -> None:
    def said(text: str, whole: str, reason: str | None = None) -> dict[str, Any]:
        event = part({"role": "assistant", "content": text}, reason, usage=USAGE, citations=["u"])
        event["choices"][0]["message"] = {"role": "assistant", "content": whole}
        return event

    body = sse(said("a", "a"), said("b", "ab"), said("", "ab", "stop"), done=False).replace(b"\n", b"\r\n")
    response = answer(body)
    assert (response.text, response.usage.prompt_tokens) == ("ab", 3)


def test_a_server_without_ids_reasons_or_times(sse: Any) -> None:
    events = [
        {"id": "", "created": 0, "choices": [{"delta": {"content": text, "refusal": ""}, "index": 0}]} for text in "ab"
    ]
    response = answer(sse(*events))
    assert (response.id, response.text) == ("", "ab")
    assert response.choices[0].finish_reason is FinishReason.UNKNOWN


@pytest.mark.parametrize(("raw", "expected"), [("eos", FinishReason.STOP), ("strange", FinishReason.UNKNOWN)])
def test_unknown_words_for_the_end_are_kept_beside_ours(sse: Any, raw: str, expected: FinishReason) -> None:
    choice = answer(sse(part({"content": "a"}), part(reason=raw))).choices[0]
    assert (choice.finish_reason, choice.raw_finish_reason) == (expected, raw)


def test_an_empty_list_of_calls_is_no_call(sse: Any) -> None:
    choice = answer(sse(part({"content": "a", "tool_calls": []}), part({"tool_calls": []}, "stop"))).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == (FinishReason.STOP, ())


def test_padding_and_signs_of_life_say_nothing(sse: Any) -> None:
    waiting = b": OPENROUTER PROCESSING\n\n" * 50
    body = waiting + sse(part({"content": "a"}, obfuscation="xyz"), part({"content": "b"}, "stop", p="abcdef"))
    assert answer(body).text == "ab"


# --- errors


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (b'data: {"error":{"message":"m","type":"server_error"}}\n\n', errors.ServiceUnavailable),
        (b'event: error\ndata: {"error":{"message":"m","type":"invalid_request_error"}}\n\n', errors.InvalidRequest),
        (b'data: {"error":{"code":429,"message":"m"},"choices":[]}\n\n', errors.RateLimited),
        (b'data: {"object":"error","message":"m","code":400}\n\n', errors.InvalidRequest),
        (b"event: error\ndata: out of memory\n\n", errors.ServiceUnavailable),
        (b"data: {broken\n\n", errors.ProtocolError),
        (b"data: 5\n\n", errors.ProtocolError),
        (b'data: "\xff"\n\n', errors.ProtocolError),
    ],
)
def test_an_error_comes_after_what_came_before_it_however_it_is_split(sse: Any, event: bytes, expected: type) -> None:
    body = sse(part({"content": "Hi"}), done=False) + event + sse(part({"content": "lost"}))
    for size in (1, 3, len(body)):
        chunks, error = read(body, size)
        assert [chunk.delta.content for chunk in chunks] == ["Hi"]
        assert type(error) is expected


def test_an_error_after_the_finish_reason_is_an_error_with_its_usage(sse: Any) -> None:
    decoder = OpenAIStreamDecoder("vendor")
    body = sse(
        part({"content": "Hi"}, "length"), {"error": {"code": 502, "message": "m"}, "usage": USAGE, "choices": []}
    )
    assert isinstance(read(body, decoder=decoder)[1], errors.ServiceUnavailable)
    assert decoder.usage
    assert decoder.usage.prompt_tokens == 3


@pytest.mark.parametrize("body", [b"ok", b"<html></html>", b'{"a":1}', b"[DONE]", b"\n\nhello\n\n", b"dat", b"data:"])
def test_what_is_no_event_stream_is_a_protocol_error_and_the_beginning_of_one_an_interruption(body: bytes) -> None:
    expected = errors.StreamInterrupted if b"data:".startswith(body) else errors.ProtocolError
    assert type(read(body, 1)[1]) is expected


def test_a_stream_without_any_answer_is_a_protocol_error() -> None:
    assert isinstance(read(b"data: [DONE]\n\n")[1], errors.ProtocolError)
    decoder = AnthropicStreamDecoder("vendor")
    assert isinstance(read(b'data: {"type":"message_stop"}\n\n', decoder=decoder)[1], errors.ProtocolError)


@pytest.mark.parametrize("event", [b"data: {broken\n\n", b'data: "\xff"\n\n'])
def test_a_broken_stream_stays_broken(sse: Any, event: bytes) -> None:
    decoder = OpenAIStreamDecoder("vendor")
    decoder.feed(sse(part({"content": "Hi"}), done=False) + event)
    for again in (decoder.check, lambda: decoder.feed(b""), decoder.end):
        with pytest.raises(errors.ProtocolError):
            again()


# --- anything at all

DECODERS = st.sampled_from([OpenAIStreamDecoder, AnthropicStreamDecoder])
WORDS = [
    "choices", "delta", "content", "tool_calls", "function", "name", "arguments", "index", "id", "finish_reason",
    "usage", "prompt_tokens", "error", "type", "message", "content_block", "text", "partial_json", "message_start",
    "message_stop", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "tool_use",
    "input_json_delta", "text_delta", "input", "stop", "output_tokens", "\ud800", "[DONE]",
    "reasoning_details", "reasoning.text", "extra_content", "annotations", "audio", "logprobs", "logprob", "custom",
]  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(max_size=3)
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=6)
)
EVENTS = st.lists(st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=6), max_size=5)


@given(make=DECODERS, body=st.binary(max_size=200), size=st.integers(1, 50))
def test_arbitrary_bytes_raise_our_errors_only(make: type[StreamDecoder], body: bytes, size: int) -> None:
    read(b"data: " + body, size, make("vendor"))
    read(body, size, make("vendor"))


@settings(max_examples=50)
@given(make=DECODERS, events=EVENTS, size=st.integers(1, 50))
def test_strange_events_raise_our_errors_only_and_leave_sound_text(
    make: type[StreamDecoder], events: list[Any], size: int
) -> None:
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode()
    chunks, error = read(body, size, make("vendor"))
    again, other = read(body, 10**9, make("vendor"))
    assert (again, str(other)) == (chunks, str(error))
    so_far = Assembly()
    for chunk in chunks:
        so_far.add(chunk)
    so_far.response().text.encode()


@settings(max_examples=50)
@given(said=st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=8), choice=ANYTHING, message=ANYTHING)
def test_strange_completions_are_read_without_a_crash(said: dict[str, Any], choice: Any, message: Any) -> None:
    fields = choice if isinstance(choice, dict) else {}
    response = decode_response(said | {"choices": [fields | {"message": message}]}, provider="vendor")
    response.text.encode()


def test_a_whole_answer_survives_as_chunks(sse: Any) -> None:
    events = [part({"content": "a"}), tool(0, "i", "f", "{}"), part(reason="tool_calls", usage=USAGE)]
    whole = answer(sse(*events, part({"refusal": "no"}, "stop", index=1)))
    so_far = Assembly()
    for chunk in as_chunks(whole):
        so_far.add(chunk)
    assert so_far.response() == whole
