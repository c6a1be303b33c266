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


def test_the_first_token_of_a_stream_is_learned_when_it_comes() -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.SUCCESS, 0.0, ttft=0.2)
    attempt = stats.started(silent_since=10.0)
    stats.first_token(attempt, 14.0)
    assert stats.ttft(14.0) == 4.0
    stats.ended(Outcome.SUCCESS, 30.0, attempt=attempt)
    assert stats.ttft(30.0) == 4.0, "its end says nothing more about its beginning"


def test_a_stream_that_is_silent_counts_as_long_as_it_is_silent() -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.SUCCESS, 0.0, ttft=0.5)
    oldest, _ = stats.started(silent_since=1.0), stats.started(silent_since=3.0)
    assert [stats.ttft(now) for now in (1.2, 2.0, 9.0)] == [0.5, 1.0, 8.0]
    stats.ended(Outcome.FAILURE, 9.0, attempt=oldest)
    assert stats.ttft(9.0) == 6.0, "a failure teaches nothing, and the next is silent too"


def test_a_whole_answer_is_not_silent_while_it_is_written() -> None:
    stats = RouteStats(0.0)
    stats.ended(Outcome.SUCCESS, 0.0, ttft=0.5)
    stats.started()
    assert stats.ttft(50.0) == 0.5


def test_what_is_known_of_a_route_that_nobody_asks_fades_and_is_learned_anew() -> None:
    """A route that was slow once was never asked again, for nothing ever told that it had become fast."""
    stats = RouteStats(0.0)
    stats.started()
    stats.ended(Outcome.SUCCESS, 10.0, ttft=8.0, tpot=0.16)
    assert (stats.ttft(10.0), stats.tpot(10.0)) == (8.0, 0.16)
    assert stats.ttft(40.0) == pytest.approx(8.0 / 2.718, rel=0.01)
    assert stats.tpot(100.0) < 0.01
    stats.started()
    assert stats.ttft(100.0) == 8.0, "somebody asks: it is seen what comes"
    stats.ended(Outcome.SUCCESS, 100.0, ttft=0.5, tpot=0.02)
    assert stats.ttft(100.0) == pytest.approx(0.5, abs=0.01)
    assert stats.tpot(100.0) == pytest.approx(0.02, abs=0.001)


def test_the_pace_follows_the_answers() -> None:
    stats = RouteStats(0.0)
    for second in range(60):
        stats.ended(Outcome.SUCCESS, float(second), tpot=0.02 if second < 30 else 0.16)
    assert stats.tpot(59.0) > 0.14


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


@given(st.lists(st.tuples(st.sampled_from(["start", "token", "end"]), st.integers(0, 9), st.floats(0, 5))))
def test_whatever_happens_latencies_are_times_and_the_memory_is_bounded(
    steps: list[tuple[str, int, float]],
) -> None:
    stats, now = RouteStats(0.0), 0.0
    out: list[int] = []
    for step, index, wait in steps:
        now += wait
        if step == "start":
            out.append(stats.started(now))
        elif out and step == "token":
            stats.first_token(out[index % len(out)], now)
        elif out:
            stats.ended(Outcome.SUCCESS, now, duration=wait, attempt=out.pop(index % len(out)))
        assert 0 <= stats.ttft(now) < inf
        assert stats.tpot(now) >= 0
        assert stats.inflight == len(out)
    for number in out:
        stats.ended(Outcome.CANCELLED, now, attempt=number)
    assert stats.ttft(now) <= max(UNKNOWN_TTFT, now), "nobody is silent any more"
