"""A recorded stream that is cut anywhere is never a clean short answer.

All bytes of small streams; of others two bytes about each line's ends, and samples between. $RUBBERDUCK_EVERY_BYTE=1
cuts at all bytes of all, which takes a minute or two.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests_cassettes_rig import CASSETTES, Cassette, are_here, each, ended, put_together

from rubberduck.errors import RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly

EVERY_BYTE = bool(os.environ.get("RUBBERDUCK_EVERY_BYTE"))
SMALL = 700
SAMPLES = 60

STREAMS = [c for c in CASSETTES if c.streams and c.status == 200]
pytestmark = are_here


def ends_of(cassette: Cassette) -> int | None:
    """Where the stream first holds all that makes it whole, found by reading the text and not by our decoder."""
    text = cassette.body.decode()
    pattern = r"^(.+?)\s*?$" if cassette.module == "ollama" else r"^data: ?(.+?)\s*?$"
    seen: dict[int, bool] = {}
    for line in re.finditer(pattern, text, re.MULTILINE):
        if is_end(cassette.module, line.group(1), seen):
            return len(text[: line.end(1)].encode())
    return None


def is_end(module: str, data: str, seen: dict[int, bool]) -> bool:
    """Whether this event makes the answer whole. `seen` says which choices of a chat have finished so far."""
    if data == "[DONE]":
        return True
    said = json.loads(data)
    if module == "ollama":
        return bool(said.get("done"))
    if module == "anthropic":
        return bool(said["type"] == "message_stop")
    if module == "openai_responses":
        return said["type"] in ("response.completed", "response.incomplete", "response.failed")
    for choice in said.get("choices", []):
        seen[choice["index"]] = seen.get(choice["index"], False) or bool(choice.get("finish_reason"))
    return bool(seen) and all(seen.values())


def cuts_of(body: bytes) -> list[int]:
    if EVERY_BYTE or len(body) < SMALL:
        return list(range(len(body) + 1))
    borders = [match.start() for match in re.finditer(rb"[\r\n]+", body)]
    near = {at + step for at in borders for step in (-2, -1, 0, 1, 2)}
    near |= {*range(0, len(body), len(body) // SAMPLES), *range(len(body) - 2, len(body) + 1)}
    return sorted(cut for cut in near if 0 <= cut <= len(body))


def prefixes(cassette: Cassette) -> Iterator[tuple[int, Assembly, RubberDuckError | None]]:
    """What each prefix gives: its answer so far, and the error with which it ends."""
    decoder, chunks, fed = cassette.provider().stream_decoder(), [], 0
    for cut in cuts_of(cassette.body):
        try:
            if cut > fed:
                chunks += decoder.feed(cassette.body[fed:cut])
            decoder.check()
        except RubberDuckError as error:
            yield cut, put_together(chunks), error
            return
        fed = cut
        last, broken = ended(decoder)
        yield cut, put_together([*chunks, *last]), broken


@each([c for c in STREAMS if c.is_whole_stream])
def test_a_stream_cut_before_its_end_is_never_a_clean_short_answer(cassette: Cassette) -> None:
    end, was_whole = ends_of(cassette), False
    assert end is not None
    for cut, answer, error in prefixes(cassette):
        if cut < end:
            assert isinstance(error, StreamInterrupted), cut
        else:
            was_whole = True
            assert error is None, cut
            check_whole(answer, cassette.expected)
    assert was_whole


def check_whole(answer: Assembly, expected: dict[str, Any]) -> None:
    got = answer.response()
    choices = expected.get("choices") or [expected]
    assert [choice.message.text for choice in got.choices] == [choice["text"] for choice in choices]
    assert [len(choice.message.tool_calls) for choice in got.choices] == [len(c["tool_calls"]) for c in choices]


@each([c for c in STREAMS if c.expected["error"]])
def test_a_stream_with_an_error_in_it_is_an_error_wherever_it_is_cut(cassette: Cassette) -> None:
    outcomes = [error for _, _, error in prefixes(cassette)]
    assert all(outcomes)
    assert isinstance(outcomes[0], StreamInterrupted)


def test_the_ends_are_found_by_what_the_formats_say() -> None:
    """Else the tests above would compare nothing."""
    assert all(ends_of(cassette) for cassette in STREAMS if cassette.is_whole_stream)
    assert len({cassette.module for cassette in STREAMS}) >= 2


@pytest.mark.parametrize("body", [b"data: 1\n\ndata: 2\n\n" * 100])
def test_a_large_stream_is_cut_about_each_line_and_between(body: bytes) -> None:
    cuts = cuts_of(body)
    assert {0, 6, 7, 8, 9, len(body)} <= set(cuts)
