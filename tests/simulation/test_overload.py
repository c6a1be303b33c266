"""More calls than can be answered: what can be is, and each class and route gets its share."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from statistics import mean

import pytest
from simulator import Scenario, Simulation, simulate

SEEDS = range(20)
SLOTS = 4
TOKENS = 128
SECONDS_PER_CALL = 0.5 * 1.083 + 0.02 * TOKENS
"""The mean time to the first token (that of a lognormal with sigma 0.4), and the time to write."""
CAPACITY = 4 * SLOTS / SECONDS_PER_CALL
OURS = Scenario(rate=CAPACITY * 3, seconds=44.0, slots=SLOTS, tokens=TOKENS, timeout=20.0)
"""The limit is our own: so many at once, the others wait in the queue."""
THEIRS = replace(OURS, slots=100, bears=SLOTS)
"""The limit is theirs, and nobody told us: whoever is one too many is answered 529."""


def goodput(run: Simulation) -> float:
    """Answers per second once the queue is full, as a share of what can be answered."""
    return run.answered_per_second(22.0, 44.0) / CAPACITY


@pytest.mark.parametrize(("times", "seed"), [(3.0, seed) for seed in SEEDS] + [(1.5, seed) for seed in SEEDS[:4]])
@pytest.mark.parametrize("limits", [OURS, THEIRS], ids=["ours", "theirs"])
def test_too_many_calls_leave_most_of_the_capacity_to_answers(limits: Scenario, times: float, seed: int) -> None:
    run = simulate(replace(limits, rate=CAPACITY * times), seed)
    assert goodput(run) >= 0.85
    assert run.at_rest()


def test_what_is_too_late_would_take_the_capacity_if_it_were_not_turned_away() -> None:
    """The control, with answers of many lengths: a call sent with too little time left takes a slot for nothing."""
    mixed = replace(OURS, tokens=None, seconds=70.0)
    assert goodput(Simulation(replace(mixed, sheds=False), 1)) <= goodput(simulate(mixed, 1)) - 0.1


@pytest.mark.parametrize("seed", [0, 3])
def test_an_open_circuit_costs_its_own_capacity_and_no_more(seed: int) -> None:
    """At first nobody knows what they bear: of so many refusals one circuit opens. Its free slots must draw nobody."""
    run = simulate(replace(THEIRS, bears=16, rate=CAPACITY * 12, seconds=40.0), seed)
    assert run.answered_per_second(15.0, 40.0) / CAPACITY / 4 >= 0.55


def test_a_fixed_number_at_once_would_close_all_circuits() -> None:
    """The control: refusals for want of capacity are failures, and so many of them open every circuit."""
    assert goodput(Simulation(replace(THEIRS, adaptive=False), 1)) <= 0.3


def class_shares(seed: int) -> dict[str, float]:
    run = simulate(replace(OURS, classes=("high", "normal", "low"), timeout=30.0), seed)
    begun = Counter(record.klass for record in run.records if record.tried and 15.0 <= record.tried[0][0] < 44.0)
    return {name: begun[name] / begun.total() for name in ("high", "normal", "low")}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_class_starves(seed: int) -> None:
    shares = class_shares(seed)
    assert shares["low"] >= 0.035
    assert shares["normal"] >= 0.08


def test_classes_share_by_weight() -> None:
    for name, weight in (("high", 17), ("normal", 2), ("low", 1)):
        assert mean(class_shares(seed)[name] for seed in SEEDS) == pytest.approx(weight / 20, rel=0.05)


def test_at_saturation_shares_follow_the_weights() -> None:
    """Long answers, so that some 200 are being written: peaks of the time to the first token hardly matter then."""
    weights = (1.0, 2.0, 3.0, 4.0)
    full = Scenario(rate=20.0, seconds=60.0, slots=100, tokens=500, weights=weights)
    runs = [simulate(full, seed) for seed in SEEDS[:3]]
    for name, weight in zip("abcd", weights, strict=True):
        share = mean(run.share(name, 15.0, 60.0) for run in runs)
        assert share == pytest.approx(weight / 10, rel=0.05)
