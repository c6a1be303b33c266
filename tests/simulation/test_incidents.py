"""One provider of four is in trouble, at 18 calls a second: what callers notice, and would notice of simpler rules."""

from __future__ import annotations

import pytest
from simulator import Incident, Kind, Policy, Scenario, Simulation, p99, simulate, success

SEEDS = range(20)
START = 10.0
ENDS: dict[Kind, float] = {"black_hole": 25.0, "flaky": 25.0, "slow": 55.0, "hang": 40.0}


def during(kind: Kind, seed: int, policy: Policy = "ours") -> Simulation:
    end = ENDS[kind]
    return simulate(Scenario(Incident(kind, START, end), seconds=end, policy=policy), seed)


def without(seed: int) -> Simulation:
    return simulate(Scenario(seconds=max(ENDS.values())), seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("kind", "least"), [("black_hole", 0.95), ("flaky", 0.95), ("slow", 0.98), ("hang", 0.98)])
def test_an_incident_costs_few_answers_and_everything_taken_comes_back(kind: Kind, least: float, seed: int) -> None:
    run = during(kind, seed)
    assert success(run.arrived(START, ENDS[kind])) >= least
    assert run.at_rest()


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["slow", "hang"])
def test_a_provider_without_answers_in_time_gets_few_calls_and_slows_few(kind: Kind, seed: int) -> None:
    run, end = during(kind, seed), ENDS[kind]
    assert run.share("a", START, end) <= 0.05
    assert p99(run.arrived(START, end)) <= 2 * p99(without(seed).arrived(START, end))
    assert run.held_at_the_end_of_the_incident["a/m"] <= 6, "its slots have come back"


@pytest.mark.parametrize("seed", SEEDS)
def test_without_an_incident_all_are_answered_and_share_the_calls(seed: int) -> None:
    run = without(seed)
    assert success(run.records) == 1.0
    assert all(run.share(name, 0.0, 55.0) == pytest.approx(0.25, abs=0.06) for name in run.names)


WHAT_OTHERS_LOSE: list[tuple[Policy, Kind, float, float]] = [
    ("round_robin", "black_hole", 0.70, 0.80),
    ("round_robin", "flaky", 0.85, 0.95),
    ("round_robin", "hang", 0.70, 0.80),
    ("least_in_flight", "black_hole", 0.05, 0.30),
    ("least_in_flight", "flaky", 0.80, 0.92),
    ("least_in_flight", "hang", 0.93, 0.975),
    ("weighted_sum", "black_hole", 0.00, 0.30),
    ("weighted_sum", "flaky", 0.50, 0.70),
    ("weighted_sum", "hang", 0.50, 0.85),
]


@pytest.mark.parametrize(("policy", "kind", "least", "most"), WHAT_OTHERS_LOSE)
def test_the_same_incident_does_harm_to_simpler_rules(policy: Policy, kind: Kind, least: float, most: float) -> None:
    """The control: an incident that harmed nobody would prove nothing."""
    run = during(kind, 1, policy)
    assert least <= success(run.arrived(START, ENDS[kind])) <= most


@pytest.mark.parametrize(("policy", "share"), [("round_robin", 0.2), ("least_in_flight", 0.05), ("weighted_sum", 0.4)])
def test_simpler_rules_keep_calling_the_slow_one(policy: Policy, share: float) -> None:
    run, end = during("slow", 1, policy), ENDS["slow"]
    assert run.share("a", START, end) >= share
    assert p99(run.arrived(START, end)) > 2 * p99(without(1).arrived(START, end))


def test_the_same_seed_is_the_same_run() -> None:
    scenario = Scenario(Incident("flaky", 2.0, 8.0), seconds=10.0)
    assert Simulation(scenario, 7).records == Simulation(scenario, 7).records != Simulation(scenario, 8).records
