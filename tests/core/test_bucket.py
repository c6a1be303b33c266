from __future__ import annotations

from math import inf

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rubberduck.core.bucket import MinuteWindow, TokenBucket
from rubberduck.core.sliding import SlidingSum

starts = st.floats(0, 1e6)
steps = st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 12)), min_size=1, max_size=40)


def test_a_bucket_starts_full_and_refills_up_to_its_capacity() -> None:
    bucket = TokenBucket(10, 2, 0.0)
    bucket.take(10, 0.0)
    assert [bucket.tokens(now) for now in (0.0, 1.0, 4.5, 5.0, 1e9)] == [0, 2, 9, 10, 10]


def test_a_bucket_without_refill_never_gives_more_than_its_burst() -> None:
    bucket = TokenBucket(3, 0, 0.0)
    assert [bucket.try_take(1, float(second)) for second in range(5)] == [True, True, True, False, False]
    assert bucket.wait(1, 5.0) == inf


def test_an_excess_is_a_debt_that_the_refill_pays_first() -> None:
    bucket = TokenBucket(10, 1, 0.0)
    bucket.take(10, 0.0)
    bucket.settle(None, 10, 15, 0.0)
    assert bucket.tokens(0.0) == -5
    assert bucket.wait(1, 0.0) == 6


def test_a_surplus_returns_but_not_above_the_capacity() -> None:
    bucket = TokenBucket(10, 1, 0.0)
    bucket.take(8, 0.0)
    bucket.settle(None, 8, 3, 0.0)
    assert bucket.tokens(0.0) == 7
    bucket.settle(None, 50, 0, 0.0)
    assert bucket.tokens(0.0) == 10


@example(0.0, 964656.990234375, 0.001, 0.5866858118889192)  # a wait of 18 years
@given(starts, st.floats(1, 1e6), st.floats(1e-3, 1e6), st.floats(0, 1))
def test_waiting_exactly_as_told_succeeds_and_a_microsecond_less_fails(
    now: float, capacity: float, rate: float, share: float
) -> None:
    bucket = TokenBucket(capacity, rate, now)
    bucket.take(capacity, now)
    need = capacity * share
    wait = bucket.wait(need, now)
    assume(wait > 2e-6)
    assert not bucket.try_take(need, now + wait - 1e-6)
    assert bucket.try_take(need, now + wait)


@given(steps, st.floats(1, 12), st.floats(0, 5))
@example([(0.0, 2.0)], 1.0, 5e-324)  # neither the wait nor what the clock cannot tell apart is a number then
def test_no_interval_grants_more_than_capacity_plus_refill(
    steps: list[tuple[float, float]], capacity: float, rate: float
) -> None:
    bucket, now, grants = TokenBucket(capacity, rate, 0.0), 0.0, []
    for wait, amount in steps:
        now += wait
        if bucket.try_take(amount, now):
            grants.append((now, amount))
        assert bucket.tokens(now) <= capacity
    for i, (since, _) in enumerate(grants):
        for j in range(i, len(grants)):
            taken = sum(amount for _, amount in grants[i : j + 1])
            assert taken <= capacity + rate * (grants[j][0] - since) + 1e-5


@given(starts, steps, st.floats(5, 30))
def test_no_sliding_minute_admits_more_than_its_limit(
    start: float, steps: list[tuple[float, float]], limit: float
) -> None:
    window, now, grants = MinuteWindow(limit), start, []
    for wait, amount in steps:
        now += wait
        if amount <= limit and window.wait(amount, now) <= 0:
            window.take(amount, now)
            grants.append((now, amount))
    for since, _ in grants:
        assert sum(amount for at, amount in grants if since <= at < since + 60 - 1e-6) <= limit + 1e-6


@given(starts, steps, st.floats(5, 30), st.floats(0.1, 5))
def test_a_minutes_wait_is_exact(start: float, steps: list[tuple[float, float]], limit: float, need: float) -> None:
    window, now = MinuteWindow(limit), start
    for wait, amount in steps:
        now += wait
        window.take(min(amount, limit), now)
    wait = window.wait(need, now)
    assume(wait > 2e-6)
    assert window.wait(need, now + wait - 1e-6) > 0
    assert window.wait(need, now + wait) == 0


def test_a_cell_counts_until_it_is_wholly_out() -> None:
    window = MinuteWindow(10)
    window.take(10, 5.9)
    assert window.wait(1, 65.95) == pytest.approx(0.05), "60.05 s later, but the cell [5, 6) still reaches in"
    assert window.wait(1, 66.0) == 0


def test_a_surplus_is_dropped_once_its_minute_has_passed() -> None:
    window = MinuteWindow(10)
    cell = window.take(10, 0.0)
    window.take(10, 100.0)
    window.settle(cell, 10, 0, 100.0)
    assert window.used(100.0) == 10
    fresh = window.take(0, 100.0)
    window.settle(fresh, 10, 4, 100.0)
    assert window.used(100.0) == 4


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 9)), max_size=40))
def test_a_sliding_sum_equals_the_sum_of_the_cells_not_wholly_out(events: list[tuple[float, int]]) -> None:
    total, now, seen = SlidingSum(10.0, 1.0), 0.0, []
    for wait, amount in events:
        now += wait
        total.add(amount, now)
        seen.append((now, amount))
        assert total.total(now) == sum(held for at, held in seen if int(at) + 11 > now + 1e-7)


@pytest.mark.parametrize(("capacity", "rate"), [(0, 1), (-1, 1), (1, -1), (float("nan"), 1)])
def test_senseless_buckets_are_refused(capacity: float, rate: float) -> None:
    with pytest.raises(ValueError, match="capacity"):
        TokenBucket(capacity, rate, 0.0)
