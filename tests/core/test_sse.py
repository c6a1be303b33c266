from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rubberduck.core.sse import Event, MalformedStream, NDJSONDecoder, SSEDecoder

Outcome = tuple[list[Event], bool]


def outcome(decoder: SSEDecoder | NDJSONDecoder, pieces: list[bytes]) -> Outcome:
    """Every event handed out, and whether the stream was found malformed."""
    events: list[Event] = []
    try:
        for piece in pieces:
            events += decoder.feed(piece)
        events += decoder.end()
    except MalformedStream:
        return events, True
    return events, False


def read(stream: bytes) -> list[Event]:
    events, malformed = outcome(SSEDecoder(), [stream])
    assert not malformed
    return events


def datas(stream: bytes) -> list[str]:
    return [event.data for event in read(stream)]


def literal_reading(stream: bytes) -> list[Event]:
    """The standard's text, word for word, on a whole and valid stream."""
    events: list[Event] = []
    data: list[str] = []
    name = last_id = ""
    *lines, last = re.split(r"\r\n|\n|\r", stream.decode().removeprefix("\ufeff"))
    for line in [*lines, *([last] if last else []), ""]:
        if not line:
            if "\n".join(data).strip():
                events.append(Event(name or "message", "\n".join(data), last_id))
            data, name = [], ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                name = value
            elif field == "id" and "\0" not in value:
                last_id = value
    return events


lines = st.sampled_from(
    [
        "data: {}",
        "data:x",
        "data",
        "data: ",
        "data:  y",
        "event: error",
        "event:",
        ": ping",
        ":",
        "id: 7",
        "id",
        "id: \0",
        "retry: 10",
        "unknown: 1",
        "data: \u2028\u0085",
        "data: \U0001f986é",
        "\ufeffdata: a",
        "",
    ]
)
ends = st.sampled_from(["\n", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\r\r", "\n\r"])
streams = st.lists(st.tuples(lines, ends), max_size=12).map(lambda parts: "".join(a + b for a, b in parts).encode())
wild = st.lists(
    st.sampled_from(
        [b"data: ", b"\n", b"\n\n", b"\r", b"\r\n", b"\xff", b"\xc3", b"\xa9", b"\xf0\x9f", b"x", b"\xef\xbb\xbf"]
    )
    | st.binary(max_size=4),
    max_size=30,
).map(b"".join)


@st.composite
def cuts(draw: st.DrawFn, sources: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    stream = draw(sources)
    places = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return stream, [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]


@given(cuts(streams))
def test_events_are_those_of_the_standard_wherever_the_bytes_are_split(cut: tuple[bytes, list[bytes]]) -> None:
    stream, pieces = cut
    events, malformed = outcome(SSEDecoder(), pieces)
    assert not malformed
    assert [event._replace(partial=False) for event in events] == literal_reading(stream)


@given(cuts(wild), st.sampled_from([4, 10, 1000]))
@example((b"data: a\n\ndata: \xff\n\n", [b"data: a\n\ndata: \xff\n\n"]), 1000)
@example((b"\n\xff\0\0\0\n\r", [b"\n\xff\0\0\0\n\r"]), 4)
def test_arbitrary_bytes_have_one_outcome_for_every_split_and_raise_nothing_else(
    cut: tuple[bytes, list[bytes]], limit: int
) -> None:
    stream, pieces = cut
    for decoder in (SSEDecoder, NDJSONDecoder):
        whole = outcome(decoder(max_event=limit), [stream])
        assert outcome(decoder(max_event=limit), pieces) == whole
        assert outcome(decoder(max_event=limit), [stream[i : i + 1] for i in range(len(stream))]) == whole


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_of_the_three_line_ends_ends_an_event_at_once(end: str) -> None:
    decoder = SSEDecoder()
    assert decoder.feed(f"event: delta{end}data: 1{end}{end}".encode()) == [Event("delta", "1")]
    assert decoder.feed(f"data: 2{end}{end}".encode()) == [Event("message", "2")]


def test_crlf_split_between_its_bytes_is_one_line_end() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: 1\r") == []
    assert decoder.feed(b"\ndata: 2\r") == []
    assert decoder.feed(b"\n\r") == [Event("message", "1\n2")]
    assert decoder.feed(b"\ndata: 3\n\n") == [Event("message", "3")]


def test_byte_order_mark_in_pieces_does_not_cost_the_first_event() -> None:
    decoder = SSEDecoder()
    assert [decoder.feed(piece) for piece in (b"\xef", b"\xbb", b"\xbfdata: 1\n\n")] == [
        [],
        [],
        [Event("message", "1")],
    ]


def test_lines_of_data_are_joined() -> None:
    assert datas(b"data: a\ndata\ndata:  b\n\n") == ["a\n\n b"]


def test_comments_retry_and_empty_data_make_no_event() -> None:
    assert read(b": ping\n\nretry: 10\n\ndata:\n\nevent: lost\n\ndata: x\n\n") == [Event("message", "x")]


def test_id_stays_until_the_next() -> None:
    assert [event.id for event in read(b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n")] == ["1", "1", ""]


def test_unicode_line_separators_inside_data_are_text() -> None:
    text = '{"a":"x\u2028y\u0085z\x0b\x0c"}'
    assert datas(f"data: {text}\n\n".encode()) == [text]
    assert [event.data for event in NDJSONDecoder().feed(f"{text}\n".encode())] == [text]


def test_last_event_without_its_blank_line_is_delivered() -> None:
    assert read(b"data: [DONE]\n") == [Event("message", "[DONE]")]


def test_last_event_without_even_a_line_end_is_delivered_and_marked() -> None:
    assert read(b'data: {"a":"\xc3') == [Event("message", '{"a":"', partial=True)]
    decoder = NDJSONDecoder()
    assert decoder.feed(b'{"a":1}\r\n\n{"b') == [Event("message", '{"a":1}')]
    assert decoder.end() == [Event("message", '{"b', partial=True)]


def test_events_before_a_mistake_are_handed_out_first() -> None:
    decoder = SSEDecoder()
    assert decoder.feed(b"data: 1\n\ndata: \xff\n\ndata: 3\n\n") == [Event("message", "1")]
    for late in (decoder.end, lambda: decoder.feed(b"data: 4\n\n")):
        with pytest.raises(MalformedStream, match="UTF-8"):
            late()


@pytest.mark.parametrize("decoder", [SSEDecoder, NDJSONDecoder])
def test_event_without_end_is_stopped_at_the_bound(decoder: type[SSEDecoder | NDJSONDecoder]) -> None:
    endless, fed = decoder(max_event=100_000), 0

    def feed_a_line_that_never_ends() -> None:
        nonlocal fed
        while fed < 1_000_000:
            endless.feed(b"data: xxxx"[fed % 10 :] * 100)
            fed += 1000

    with pytest.raises(MalformedStream, match="100,000 bytes"):
        feed_a_line_that_never_ends()
    assert fed <= 101_000


def test_many_small_comments_are_no_large_event() -> None:
    decoder = SSEDecoder(max_event=100)
    assert [event for _ in range(1000) for event in decoder.feed(b": OPENROUTER PROCESSING\n\n")] == []
    assert decoder.feed(b"data: 1\n\n") == [Event("message", "1")]
