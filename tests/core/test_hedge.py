from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.hedge import ENOUGH_ANSWERS, HedgeOptions, Hedges


def test_nothing_is_hedged_on_a_route_that_is_hardly_known() -> None:
    hedges = Hedges(HedgeOptions())
    assert hedges.delay(ENOUGH_ANSWERS - 1, 3.0) is None
    assert hedges.delay(ENOUGH_ANSWERS, None) is None


def test_a_hedge_waits_for_the_95th_percentile_and_at_least_for_the_least_delay() -> None:
    hedges = Hedges(HedgeOptions(least_delay=1.0))
    assert hedges.delay(ENOUGH_ANSWERS, 3.0) == 3.0
    assert hedges.delay(ENOUGH_ANSWERS, 0.2) == 1.0


@given(st.floats(0.01, 1), st.lists(st.booleans(), max_size=400))
def test_hedges_never_exceed_their_share_of_the_calls(share: float, wishes: list[bool]) -> None:
    hedges, made = Hedges(HedgeOptions(share=share)), 0
    for calls, wish in enumerate(wishes, start=1):
        hedges.call()
        made += wish and hedges.spend()
        assert made <= calls * share + 1e-6


def test_a_quiet_hour_does_not_pay_for_a_storm() -> None:
    hedges = Hedges(HedgeOptions(share=0.5, most_kept=3))
    for _ in range(1000):
        hedges.call()
    assert [hedges.spend() for _ in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("options", [{"share": 0}, {"share": 1.1}, {"least_delay": -1}, {"most_kept": 0}])
def test_options_that_make_no_sense_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="share"):
        HedgeOptions(**options)
