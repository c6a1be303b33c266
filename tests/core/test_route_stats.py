from __future__ import annotations

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.breaker import Outcome
from rubberduck.core.route_stats import UNKNOWN_TTFT, RouteStats


def test_health_falls_with_failures_and_comes_back_with_time() -> None:
    stats = RouteStats(0.0)
    assert stats.health(0.0) == 1.0
    for _ in range(3):
        stats.ended(Outcome.FAILURE, 0.0)
    assert stats.health(0.0) == 0.25
    assert stats.health(10.0) == pytest.approx(1 / 2.5)
    assert stats.health(1000.0) == pytest.approx(1.0)


def test_ignored_and_cancelled_say_nothing_about_health() -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.IGNORED, 0.0)
    stats.ended(Outcome.CANCELLED, 0.0)
    assert stats.health(0.0) == 1.0
    assert not stats.is_proven


def test_a_slower_first_token_counts_at_once_and_a_faster_one_with_time() -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.SUCCESS, 0.0, ttft=0.2)
    assert stats.ttft(0.0) == 0.2
    stats.ended(Outcome.SUCCESS, 1.0, ttft=4.0)
    assert stats.ttft(1.0) == 4.0
    stats.ended(Outcome.SUCCESS, 1.1, ttft=0.2)
    assert stats.ttft(1.1) > 3.9
    stats.ended(Outcome.SUCCESS, 60.0, ttft=0.2)
    assert stats.ttft(60.0) < 0.3


@pytest.mark.parametrize("junk", [nan, inf, -1.0, None])
def test_junk_and_failures_never_feed_latency(junk: float | None) -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.SUCCESS, 0.0, ttft=junk, tpot=junk, duration=junk)
    stats.ended(Outcome.FAILURE, 0.0, ttft=0.001, tpot=0.001, duration=0.001)
    assert stats.ttft(0.0) == UNKNOWN_TTFT
    assert stats.quantile(0.5) is None


def test_weight_ramps_from_a_tenth_to_the_whole_after_closing() -> None:
    stats = RouteStats(0.0)
    assert stats.ramp(0.0) == 1.0
    stats.reclosed(100.0)
    assert [stats.ramp(now) for now in (100.0, 103.0, 115.0, 130.0, 131.0)] == pytest.approx([0.1, 0.1, 0.5, 1.0, 1.0])


def test_in_flight_counts_those_out() -> None:
    stats = RouteStats(0.0)
    stats.started()
    stats.started()
    stats.ended(Outcome.CANCELLED, 0.0)
    assert stats.inflight == 1


def test_quantiles_are_of_recent_durations() -> None:
    stats = RouteStats(0.0)
    for number in range(1000):
        stats.ended(Outcome.SUCCESS, 0.0, duration=float(number))
    median, slow = stats.quantile(0.5), stats.quantile(0.95)
    assert median is not None
    assert slow is not None
    assert 900 < median < slow <= 999


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0, 30)), max_size=50))
def test_health_is_always_a_share(outcomes: list[tuple[Outcome, float]]) -> None:
    stats, now = RouteStats(0.0), 0.0
    for outcome, wait in outcomes:
        now += wait
        stats.ended(outcome, now)
        assert 0 < stats.health(now) <= 1.0
