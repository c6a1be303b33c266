"""A broken answer and its continuation, joined as if one had written both."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rubberduck.core.splice import SHORTEST_ECHO, Splice, prefill


def joined(delivered: str, *pieces: str) -> str:
    splice = Splice(delivered)
    return delivered + "".join(splice.feed(piece) for piece in pieces) + splice.rest()


@pytest.mark.parametrize(
    ("delivered", "pieces", "whole"),
    [
        ("Hello from", [" the", " server"], "Hello from the server"),
        ("Hello from ", ["the", " server"], "Hello from the server"),
        ("Hello from ", [" the", " server"], "Hello from the server"),
        ("Title\n\n", ["\n", "\nText"], "Title\n\nText"),
        ("Title\n\n", ["\nText"], "Title\n\nText"),
        ("Hello from", ["Hello from the server"], "Hello from the server"),
        ("Hello from", ["Hel", "lo", " from the", " server"], "Hello from the server"),
        ("Hello from ", ["Hello", " from", " the server"], "Hello from the server"),
        ("Hello from", ["Hello", " there"], "Hello fromHello there"),
        ("Hello from", ["Hello"], "Hello fromHello"),
        ("Hello from", ["Hello from"], "Hello from"),
        ("ha ", ["ha ", "ha"], "ha ha ha"),
        ("ha", ["ha"], "haha"),
        ("  ", ["  Hello"], "  Hello"),
        ("Hello", [], "Hello"),
    ],
)
def test_what_is_repeated_comes_once_and_nothing_else_is_lost(delivered: str, pieces: list[str], whole: str) -> None:
    assert joined(delivered, *pieces) == whole


def test_a_beginning_that_is_no_echo_is_let_go_as_soon_as_that_is_known() -> None:
    splice = Splice("Hello from")
    assert [splice.feed(piece) for piece in ("Hel", "p", " me")] == ["", "Help", " me"]


def test_a_beginning_is_sent_without_the_white_space_at_its_end() -> None:
    assert [prefill(text) for text in ("Hello ", "Hello\n\n", "  Hello", " \n")] == ["Hello", "Hello", "  Hello", ""]


TEXT = st.text("ab \n", max_size=30)


def split(text: str, cuts: list[int]) -> list[str]:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[start:end] for start, end in pairwise(edges)]


@given(TEXT, TEXT, st.lists(st.integers(0, 30), max_size=6))
def test_how_a_continuation_is_split_makes_no_difference(delivered: str, said: str, cuts: list[int]) -> None:
    assert joined(delivered, *split(said, cuts)) == joined(delivered, said)


@given(TEXT, st.integers(0, 30), st.lists(st.integers(0, 30), max_size=6))
def test_who_goes_on_where_the_beginning_sent_ends_completes_the_answer(whole: str, at: int, cuts: list[int]) -> None:
    delivered = whole[:at]
    begun = prefill(delivered)
    said = whole[len(begun) :]
    assume(len(begun) < SHORTEST_ECHO or not begun.startswith(said[: len(begun)]))
    assert joined(delivered, *split(said, cuts)) == whole


@given(TEXT, st.integers(0, 30), st.lists(st.integers(0, 30), max_size=6))
def test_who_repeats_the_whole_beginning_completes_the_answer_too(whole: str, at: int, cuts: list[int]) -> None:
    delivered = whole[:at]
    assume(len(prefill(delivered)) >= SHORTEST_ECHO)
    assert joined(delivered, *split(whole, cuts)) == whole


@given(TEXT, TEXT)
def test_nothing_is_left_out_but_the_beginning_itself(delivered: str, said: str) -> None:
    told = joined(delivered, said)
    assert told.startswith(delivered)
    assert said.endswith(told.removeprefix(delivered))
