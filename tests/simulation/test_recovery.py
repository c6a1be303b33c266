"""A provider is well again: it gets its share back slowly, and nobody suffers from that."""

from __future__ import annotations

import functools
from statistics import mean

import pytest
from simulator import Incident, Scenario, Simulation, p99, simulate, success

SEEDS = range(20)
FAIR = 0.25
SCENARIO = Scenario(Incident("hang", 3.0, 8.0), seconds=70.0, reset_timeout=3.0)


@functools.cache
def closed_at(seed: int) -> float:
    closings = [at for at, name in simulate(SCENARIO, seed).closed_at if name == "a"]
    assert len(closings) == 1
    return closings[0]


def share(run: Simulation, seed: int, after: float, until: float) -> float:
    return run.share("a", closed_at(seed) + after, closed_at(seed) + until)


@pytest.mark.parametrize("seed", SEEDS)
def test_who_recovers_never_gets_more_than_its_share_in_the_first_half_minute(seed: int) -> None:
    run = simulate(SCENARIO, seed)
    seen = min(30, int(SCENARIO.seconds - closed_at(seed)))
    shares = [share(run, seed, after, after + 5.0) for after in range(0, seen - 4, 5)]
    # Some 90 attempts fall into 5 s: two standard deviations are 0.09.
    assert max(shares) <= FAIR + 0.09
    assert shares[0] <= 0.06


def test_on_the_whole_the_share_grows_with_the_ramp() -> None:
    runs = [(simulate(SCENARIO, seed), seed) for seed in SEEDS if closed_at(seed) <= SCENARIO.seconds - 30.0]
    assert len(runs) >= 15
    shares = [mean(share(run, seed, after, after + 5.0) for run, seed in runs) for after in range(0, 30, 5)]
    assert shares == sorted(shares)
    for number, each in enumerate(shares):
        assert each <= FAIR * max(0.1, (number + 1) * 5.0 / 30.0) + 0.02
    assert shares[-1] >= 0.15, "and it does come back"


@pytest.mark.parametrize("seed", SEEDS)
def test_nobody_waits_longer_because_another_comes_back(seed: int) -> None:
    run, calm = simulate(SCENARIO, seed), simulate(Scenario(seconds=55.0), seed)
    after = run.arrived(closed_at(seed), closed_at(seed) + 30.0)
    assert success(after) == 1.0
    assert p99(after) <= 1.5 * p99(calm.records)


def test_without_the_ramp_it_would_be_called_at_once() -> None:
    """The control."""
    seeds = SEEDS[:3]
    at_once = [share(Simulation(_without_ramp(), seed), seed, 0.0, 2.0) for seed in seeds]
    slowly = [share(simulate(SCENARIO, seed), seed, 0.0, 2.0) for seed in seeds]
    assert mean(at_once) >= 0.08
    assert mean(slowly) <= 0.02


def _without_ramp() -> Scenario:
    return Scenario(SCENARIO.incident, seconds=SCENARIO.seconds, reset_timeout=SCENARIO.reset_timeout, ramps=False)


@pytest.mark.parametrize("seed", range(3))
def test_a_route_that_was_slow_at_little_load_is_found_to_be_fast_again(seed: int) -> None:
    """At little load the others are always the better choice: only because its memory fades is it asked again."""
    scenario = Scenario(Incident("slow", 20.0, 60.0), rate=1.0, seconds=400.0)
    run = simulate(scenario, seed)
    assert run.share("a", 300.0, 400.0) >= 0.08
    assert run.share("a", 25.0, 60.0) <= 0.12
