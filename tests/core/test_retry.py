from __future__ import annotations

import random
from collections import deque
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.retry import RetryBudget, RetryOptions, backoff, hinted, parse_retry_after

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


def test_delays_double_up_to_the_longest() -> None:
    options = RetryOptions(jitter=False)
    assert [backoff(n, options, random.Random(1)) for n in range(1, 7)] == [1, 2, 4, 8, 10, 10]
    assert backoff(10**9, options, random.Random(1)) == 10


@given(st.integers(1, 100), st.integers())
def test_full_jitter_stays_between_nothing_and_the_delay(repeat: int, seed: int) -> None:
    longest = backoff(repeat, RetryOptions(jitter=False), random.Random(seed))
    assert 0 <= backoff(repeat, RetryOptions(), random.Random(seed)) <= longest


def test_full_jitter_uses_the_whole_range() -> None:
    rng = random.Random(7)
    delays = [backoff(2, RetryOptions(), rng) for _ in range(1000)]
    assert min(delays) < 0.05
    assert max(delays) > 1.95


@given(st.floats(0, 1e4), st.floats(0, 1e4), st.integers())
def test_a_hint_is_kept_and_lengthened_by_at_most_a_tenth(own: float, hint: float, seed: int) -> None:
    wait = hinted(own, hint, random.Random(seed))
    assert max(own, hint) <= wait <= max(own, hint) * 1.1 + 1e-9


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0.5"}, 0.0005),
        ({"retry-after-ms": "-250", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "0", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "nan", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "250", "retry-after": "soon"}, 0.25),
        ({"retry-after-ms": "0"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:30 GMT", "date": "Sun, 01 Mar 2026 12:00:20 GMT"}, 10.0),
        ({"retry-after": "Sun, 01 Mar 2026 13:00:30 +0100"}, 30.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e999"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "Sun, 99 Zzz 2026 12:00:30 GMT"}, None),
        ({}, None),
    ],
)
def test_hints_are_read_and_junk_is_none(headers: dict[str, str], seconds: float | None) -> None:
    assert parse_retry_after(headers, NOW) == seconds


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date"]), st.text(max_size=60)))
def test_no_header_can_raise_or_name_a_time_that_is_none(headers: dict[str, str]) -> None:
    seconds = parse_retry_after(headers, NOW)
    assert seconds is None or 0 < seconds < float("inf")


@given(st.integers(1, 10**6))
def test_a_date_says_the_same_as_its_seconds(seconds: int) -> None:
    date = (NOW + timedelta(seconds=seconds)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    assert parse_retry_after({"retry-after": date}, NOW) == seconds


def test_an_idle_route_affords_its_floor_and_no_more() -> None:
    budget = RetryBudget()
    assert [budget.spend(0.0) for _ in range(5)] == [True, True, True, False, False]
    assert not budget.spend(9.99)
    assert budget.spend(11.0)


def test_traffic_earns_a_fifth_of_a_repeat_each() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.first(0.0)
    assert sum(budget.spend(0.0) for _ in range(100)) == 23


def test_traffic_of_more_than_ten_seconds_ago_earns_nothing() -> None:
    budget = RetryBudget()
    for _ in range(100):
        budget.first(0.5)
    assert sum(budget.spend(10.6) for _ in range(100)) == 3


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=120))
def test_extras_never_exceed_the_budget_of_the_last_ten_seconds(events: list[tuple[float, bool]]) -> None:
    budget, now = RetryBudget(), 0.0
    firsts: deque[float] = deque()
    extras: deque[float] = deque()
    for wait, is_first in events:
        now += wait
        if is_first:
            budget.first(now)
            firsts.append(now)
        elif budget.spend(now):
            extras.append(now)
            recent = [sum(now - at < 10 for at in kind) for kind in (extras, firsts)]
            assert recent[0] <= 3 + 0.2 * recent[1] + 1e-9


@pytest.mark.parametrize("wrong", [{"max_attempts": 0}, {"max_attempts_total": 0}, {"base_delay": -1.0}])
def test_senseless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at least|>= 0"):
        RetryOptions(**wrong)  # type: ignore[arg-type]
