"""How long a crashed child waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervision.errors import SpecError
from supervision.specs.backoff import Backoff


@pytest.mark.parametrize(
    ("n", "delay"), [(0, 1.0), (1, 2.0), (2, 4.0), (3, 8.0), (4, 10.0), (5, 10.0), (100_000, 10.0)]
)
def test_waits_double_up_to_the_greatest(n: int, delay: float) -> None:
    assert Backoff(min=1, max=10).delay(n, rand=0.0) == pytest.approx(delay)


def test_jitter_lengthens_a_wait_by_up_to_its_share() -> None:
    backoff = Backoff(min=1, max=10, jitter=0.5)
    assert backoff.delay(1, rand=0.5) == pytest.approx(2.5)


def test_it_starts_over_after_the_middle_of_its_bounds_unless_told_otherwise() -> None:
    assert Backoff(min=1, max=9).reset_after == 5.0
    assert Backoff(min=1, max=9, reset_after=60).reset_after == 60.0


@pytest.mark.parametrize(("steady_for", "n"), [(4.9, 3), (5.0, 0), (100.0, 0)])
def test_a_child_that_ran_long_enough_waits_as_for_the_first_time(steady_for: float, n: int) -> None:
    assert Backoff(min=1, max=9).step_after(3, steady_for) == n


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"min": 0, "max": 1}, "Backoff.min"),
        ({"min": 2, "max": 1}, "min 2.0 is greater than max 1.0"),
        ({"min": 1, "max": float("inf")}, "Backoff.max"),
        ({"min": 1, "max": 2, "jitter": -1}, "Backoff.jitter"),
        ({"min": 1, "max": 2, "reset_after": "soon"}, "Backoff.reset_after"),
        ({"min": True, "max": 2}, "Backoff.min"),
    ],
)
def test_wrong_bounds_are_refused_by_name(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(SpecError, match=named):
        Backoff(**fields)


@given(
    bounds=st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)),
    n=st.integers(0, 5000),
    rand=st.floats(0, 1, exclude_max=True),
    jitter=st.floats(0, 2),
)
def test_every_wait_is_within_bounds_and_none_is_shorter_than_the_one_before(
    bounds: tuple[float, float], n: int, rand: float, jitter: float
) -> None:
    least, greatest = sorted(bounds)
    backoff = Backoff(min=least, max=greatest, jitter=jitter)
    delay = backoff.delay(n, rand)
    assert least <= delay * (1 + 1e-9)
    assert delay <= greatest * (1 + jitter) * (1 + 1e-9)
    assert backoff.delay(n + 1, rand) >= delay * (1 - 1e-9)
