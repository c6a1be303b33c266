"""The window of tolerated restarts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervision.engine.intensity import Intensity


def test_as_many_restarts_as_said_are_tolerated_and_one_more_is_not() -> None:
    window = Intensity(3, 5.0)
    assert [window.allow(now) for now in (0.0, 1.0, 2.0, 3.0)] == [True, True, True, False]


def test_a_refused_restart_is_not_counted() -> None:
    window = Intensity(1, 5.0)
    window.allow(0.0)
    assert not window.allow(4.0)
    assert window.used(4.0) == 1
    assert window.allow(5.1)


@pytest.mark.parametrize(("later", "tolerated"), [(4.9, False), (5.0, False), (5.001, True)])
def test_a_restart_counts_until_it_is_older_than_the_period(later: float, tolerated: bool) -> None:
    window = Intensity(1, 5.0)
    window.allow(0.0)
    assert window.allow(later) is tolerated


def test_zero_tolerates_none() -> None:
    assert not Intensity(0, 5.0).allow(0.0)


def test_restarts_that_share_an_incident_count_once_while_it_is_in_the_window() -> None:
    window = Intensity(1, 5.0)
    assert [window.tolerates(now, "lost loop") for now in (0.0, 1.0, 5.0)] == [True, True, True]
    assert not window.tolerates(5.0, "another")
    assert not window.tolerates(5.0)
    assert window.tolerates(5.1, "another")


def test_an_incident_that_was_not_tolerated_excuses_nobody() -> None:
    window = Intensity(0, 5.0)
    assert not window.tolerates(0.0, "lost loop")
    assert not window.tolerates(0.0, "lost loop")


def test_cleared_it_begins_anew() -> None:
    window = Intensity(1, 5.0)
    window.allow(0.0)
    window.clear()
    assert window.used(0.0) == 0
    assert window.allow(0.0)


def test_other_bounds_apply_to_what_was_counted_before() -> None:
    window = Intensity(3, 5.0)
    for now in (0.0, 1.0, 2.0):
        window.allow(now)
    window.resize(1, 5.0)
    assert not window.allow(6.5)
    window.resize(1, 1.0)
    assert window.allow(6.5)


@given(
    gaps=st.lists(st.floats(0, 3), max_size=60),
    max_restarts=st.integers(0, 5),
    max_seconds=st.floats(0.1, 10),
)
def test_it_agrees_with_counting_every_time_by_hand(gaps: list[float], max_restarts: int, max_seconds: float) -> None:
    window, allowed, now = Intensity(max_restarts, max_seconds), [], 100.0
    for gap in gaps:
        now += gap
        fits = sum(then >= now - max_seconds for then in allowed) + 1 <= max_restarts
        assert window.allow(now) is fits
        if fits:
            allowed.append(now)
