"""Providers of two priorities: the second is for what the first cannot take, and for no more than that."""

from __future__ import annotations

from dataclasses import replace
from statistics import mean

import pytest
from simulator import Incident, Scenario, simulate, success

SEEDS = range(4)
TWO_AND_TWO = Scenario(priorities=(1, 1, 2, 2), seconds=90.0, rate=8.0)
"""So few calls that one provider could answer all of them."""
ONE_OF_TWO_IS_OUT = replace(TWO_AND_TWO, incident=Incident("black_hole", 20.0, 60.0, "a"), reset_timeout=10.0)


def spilled(scenario: Scenario, seed: int, start: float, end: float) -> float:
    run = simulate(scenario, seed)
    return run.share("c", start, end) + run.share("d", start, end)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_second_tier_rests_while_the_first_is_well(seed: int) -> None:
    assert spilled(TWO_AND_TWO, seed, 0.0, 90.0) == 0.0


def test_what_lacks_of_the_first_tier_spills_and_no_more() -> None:
    """Half of its weight is eligible: 1 - 1.4 * 0.5 of the calls go to the second."""
    assert mean(spilled(ONE_OF_TWO_IS_OUT, seed, 25.0, 60.0) for seed in SEEDS) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_comes_back_when_the_first_tier_has_recovered(seed: int) -> None:
    run = simulate(ONE_OF_TWO_IS_OUT, seed)
    assert spilled(ONE_OF_TWO_IS_OUT, seed, 75.0, 90.0) == 0.0
    assert success(run.records) >= 0.99
    assert run.at_rest()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_first_tier_without_slots_lets_calls_go_that_would_be_kept_long(seed: int) -> None:
    """Beyond what the first tier can take at once, the second one works too, and nobody waits for minutes."""
    crowded = Scenario(priorities=(1, 1, 2, 2), slots=4, rate=5.0, tokens=128, seconds=40.0)
    run = simulate(crowded, seed)
    assert run.share("c", 10.0, 40.0) + run.share("d", 10.0, 40.0) >= 0.3
    assert success(run.records) == 1.0
