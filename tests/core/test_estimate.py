"""How much output is reserved: what answers used before, within what is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.estimate import BELIEVED_FROM, OutputEstimate


def taught(*shares: float, max_tokens: int = 1000) -> OutputEstimate:
    estimate = OutputEstimate()
    for share in shares:
        estimate.learn(share * max_tokens, max_tokens)
    return estimate


def test_without_a_past_all_that_is_allowed_is_reserved() -> None:
    assert OutputEstimate().reserve(800) == 800
    assert taught(*[0.1] * (BELIEVED_FROM - 1)).reserve(800) == 800


def test_the_90th_percentile_and_a_fifth_more_is_reserved() -> None:
    assert taught(*[0.1] * 50).reserve(800) == pytest.approx(96)
    assert taught(*[0.1] * 85, *[0.5] * 15).reserve(800) == pytest.approx(480)
    assert taught(*[0.1] * 95, *[0.5] * 5).reserve(800) == pytest.approx(96)


def test_never_more_than_allowed_and_never_less_than_one() -> None:
    assert taught(*[1.0] * 30).reserve(800) == 800
    assert taught(*[0.0] * 30).reserve(800) == 1


def test_without_max_tokens_a_share_of_the_smallest_limit_is_reserved() -> None:
    estimate = taught(*[0.1] * 30)
    assert estimate.reserve(None) == 1024
    assert estimate.reserve(None, 100_000) == 1024
    assert estimate.reserve(None, 400) == 100
    assert estimate.reserve(None, 2) == 1


def test_it_forgets_what_is_long_past() -> None:
    assert taught(*[0.9] * 300, *[0.1] * 300).reserve(1000) == pytest.approx(120)


def test_an_answer_without_a_limit_teaches_nothing() -> None:
    estimate = OutputEstimate()
    for _ in range(30):
        estimate.learn(5, None)
        estimate.learn(5, 0)
        estimate.learn(float("nan"), 100)
    assert estimate.reserve(100) == 100


@given(
    st.lists(st.tuples(st.floats(allow_nan=True), st.integers(0, 10**9))),
    st.none() | st.integers(1, 10**9),
    st.none() | st.floats(0.001, 1e12),
)
def test_a_reservation_is_at_least_one_and_within_what_is_allowed(
    past: list[tuple[float, int]], max_tokens: int | None, limit: float | None
) -> None:
    estimate = OutputEstimate()
    for actual, allowed in past:
        estimate.learn(actual, allowed)
    assert 1 <= estimate.reserve(max_tokens, limit) <= (max_tokens or 1024)
