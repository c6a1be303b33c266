"""How many texts go into one request for their vectors."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.batches import MOST_TOKENS, about_tokens, batch_end

Texts = st.lists(st.text(min_size=1, max_size=40) | st.lists(st.integers(0, 9), min_size=1).map(tuple), max_size=30)


def batches(texts: Sequence[str], most_texts: int, most_tokens: float) -> list[Sequence[str]]:
    found, start = [], 0
    while start < len(texts):
        end = batch_end(texts, start, most_texts, most_tokens)
        found.append(texts[start:end])
        start = end
    return found


@given(Texts, st.integers(1, 8), st.floats(0.1, 40))
def test_the_batches_are_the_texts_in_their_order(texts: list[str], most_texts: int, most_tokens: float) -> None:
    assert [text for batch in batches(texts, most_texts, most_tokens) for text in batch] == texts


@given(Texts, st.integers(1, 8), st.floats(0.1, 40))
def test_a_batch_holds_as_much_as_it_may_and_no_more(texts: list[str], most_texts: int, most_tokens: float) -> None:
    found = batches(texts, most_texts, most_tokens)
    for number, batch in enumerate(found, start=1):
        size, following = sum(map(about_tokens, batch)), [text for each in found[number:] for text in each]
        assert len(batch) <= most_texts
        assert size <= most_tokens * (1 + 1e-9) or len(batch) == 1
        if following:
            assert len(batch) == most_texts or size + about_tokens(following[0]) > most_tokens * (1 - 1e-9)


def test_a_text_that_is_too_large_for_any_request_is_sent_alone() -> None:
    huge = "x" * 3_000_000
    assert batches(["a", huge, "b"], 2048, MOST_TOKENS) == [["a"], [huge], ["b"]]


def test_many_texts_stay_below_what_openai_takes_in_one_request() -> None:
    # About four letters to a token: 2,000 texts of 2,000 letters are a million tokens.
    found = batches(["word " * 400] * 2000, 2048, MOST_TOKENS)
    assert all(sum(len(text) / 4 for text in batch) < 300_000 for batch in found)
    assert len(found) <= 7


def test_texts_of_other_scripts_are_taken_for_more_tokens_than_english_ones() -> None:
    assert about_tokens("鴨子" * 100) >= 200
    assert about_tokens((1, 2, 3)) == 3
