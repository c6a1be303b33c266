from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.score import Candidate, Choice, choose, cost, score

times = st.floats(0, 100)
candidates = st.builds(
    Candidate,
    route=st.uuids().map(str),
    priority=st.integers(1, 3),
    weight=st.floats(0.1, 10),
    obstacle=st.sampled_from([None, None, None, "open"]),
    wait=times,
    inflight=st.integers(0, 50),
    health=st.floats(0, 1),
    ttft=st.floats(0.01, 60),
    tpot=st.floats(0.001, 1),
    hit=st.floats(0, 1),
    usd=st.floats(0, 1),
)


def pick(routes: list[Candidate], seed: int = 1, **details: float) -> Choice:
    choice = choose(routes, random.Random(seed), **details)  # type: ignore[arg-type]
    assert choice is not None
    return choice


def shares(routes: list[Candidate], times: int = 2000, **details: float) -> Counter[str]:
    rng = random.Random(5)
    return Counter(choice.route for _ in range(times) if (choice := choose(routes, rng, **details)))  # type: ignore[arg-type]


def test_a_lower_priority_number_comes_first_whatever_it_costs() -> None:
    routes = [Candidate("slow", priority=1, ttft=50.0, inflight=9), Candidate("fast", priority=2, ttft=0.1)]
    assert shares(routes) == {"slow": 2000}


def test_within_a_tier_the_cheapest_in_seconds_wins() -> None:
    routes = [
        Candidate("busy", inflight=5),
        Candidate("slow", ttft=9.0),
        Candidate("sick", health=0.5),
        Candidate("ok"),
    ]
    assert shares(routes) == {"ok": 2000}


def test_no_able_candidate_is_no_choice() -> None:
    assert choose([Candidate("a", obstacle="open")], random.Random(1)) is None
    assert choose([], random.Random(1)) is None


def test_equals_share_evenly() -> None:
    got = shares([Candidate("a"), Candidate("b"), Candidate("c")])
    assert min(got.values()) > 550


def test_a_tier_that_lost_half_its_weight_spills_the_rest() -> None:
    routes = [Candidate("a"), Candidate("b", obstacle="open"), Candidate("next", priority=2)]
    assert shares(routes)["next"] / 2000 == pytest.approx(0.3, abs=0.04)
    healthy = [Candidate("a", weight=0.75), Candidate("b", weight=0.25, obstacle="open"), Candidate("next", priority=2)]
    assert shares(healthy)["next"] == 0


def test_a_long_wait_spills_to_the_next_tier_and_only_if_that_is_better() -> None:
    routes = [Candidate("first", wait=5.0), Candidate("second", priority=2)]
    assert pick(routes, longest_wait=3.0).route == "second"
    assert pick(routes, longest_wait=5.0).route == "first"
    assert pick([routes[0], replace(routes[1], wait=9.0)], longest_wait=3.0).route == "first"


def test_many_candidates_are_compared_two_at_a_time() -> None:
    routes = [Candidate(str(number), inflight=number) for number in range(8)]
    got = shares(routes, 4000)
    assert got["7"] == 0
    assert got["0"] / 4000 == pytest.approx(0.25, abs=0.03)


def test_an_unproven_route_gets_one_attempt_at_a_time_unless_all_are_unproven() -> None:
    busy = Candidate("new", inflight=1, is_proven=False, ttft=0.01)
    assert pick([busy, Candidate("old", inflight=30)]).route == "old"
    assert pick([busy]).route == "new"
    assert pick([replace(busy, inflight=0), Candidate("old")]).route == "new"


def test_a_sticky_route_is_kept_while_it_costs_at_most_half_as_much_again() -> None:
    routes = [Candidate("best", tpot=0.0, ttft=1.0), Candidate("mine", tpot=0.0, ttft=1.5)]
    assert choose(routes, random.Random(1), sticky="mine").route == "mine"  # type: ignore[union-attr]
    routes[1] = replace(routes[1], ttft=1.51)
    assert choose(routes, random.Random(1), sticky="mine").route == "best"  # type: ignore[union-attr]
    routes[1] = replace(routes[1], obstacle="open")
    assert choose(routes, random.Random(1), sticky="mine").route == "best"  # type: ignore[union-attr]


def test_at_saturation_shares_follow_the_weights() -> None:
    rng, weights = random.Random(3), {"a": 1.0, "b": 2.0, "c": 5.0}
    inflight = dict.fromkeys(weights, 0)
    for _ in range(400):
        routes = [Candidate(name, weight=weight, inflight=inflight[name]) for name, weight in weights.items()]
        choice = choose(routes, rng)
        assert choice is not None
        inflight[choice.route] += 1
    for name, weight in weights.items():
        assert inflight[name] / 400 == pytest.approx(weight / 8, rel=0.05)


def test_the_trace_explains_every_candidate() -> None:
    trace = pick([Candidate("a"), Candidate("b", obstacle="open", retry_after=3.0)]).trace()
    assert trace[0]["chosen"]
    assert {"priority", "health", "load", "wait", "ttft", "output", "health_factor", "price", "cost"} <= set(trace[0])
    assert (trace[1]["obstacle"], trace[1]["retry_after"], trace[1]["chosen"]) == ("open", 3.0, False)
    assert trace[1].keys() == trace[0].keys()


@given(candidates, times, st.sampled_from(["inflight", "ttft", "tpot", "wait", "usd", "health"]), st.floats(0, 10))
def test_more_of_anything_bad_never_improves_the_cost(one: Candidate, out: float, term: str, more: float) -> None:
    now = getattr(one, term)
    worse = now - min(now, more / 10) if term == "health" else now + (int(more) if term == "inflight" else more)
    assert cost(replace(one, **{term: worse}), out, 2.0) >= cost(one, out, 2.0)


@given(st.lists(candidates, max_size=8, unique_by=lambda each: each.route), st.integers())
def test_the_choice_is_able_and_in_four_or_fewer_the_cheapest_of_its_tier(routes: list[Candidate], seed: int) -> None:
    choice = choose(routes, random.Random(seed))
    able = [each for each in routes if each.obstacle is None]
    assert (choice is None) == (not able)
    if choice is not None:
        chosen = next(each for each in able if each.route == choice.route)
        rivals = [each for each in able if each.priority == chosen.priority]
        if len(rivals) <= 4:
            assert cost(chosen, 256.0) <= min(cost(each, 256.0) for each in rivals) * 1.01
        assert choose(routes, random.Random(seed)) == choice, "the same seed chooses the same"


@given(st.lists(candidates, min_size=2, max_size=4), st.floats(1, 500))
def test_doubling_all_times_keeps_the_order(routes: list[Candidate], out: float) -> None:
    doubled = [replace(each, wait=2 * each.wait, ttft=2 * each.ttft, tpot=2 * each.tpot) for each in routes]
    assert [cost(each, out) * 2 for each in routes] == [cost(each, out) for each in doubled]


@given(candidates, times)
def test_the_terms_make_the_cost(one: Candidate, out: float) -> None:
    terms = score(one, out, 3.0)
    total = (terms.wait + terms.ttft + terms.output) * terms.load * terms.health_factor + terms.price
    assert terms.cost == pytest.approx(total)
    assert terms.cost < inf


TERMS = ("wait", "inflight", "ttft", "tpot", "usd")


def dominates(one: Candidate, other: Candidate) -> bool:
    """Whether `one` is better in everything, and much better in something."""
    no_worse = all(getattr(one, term) <= getattr(other, term) for term in TERMS)
    no_worse = no_worse and one.health >= other.health and one.hit >= other.hit and one.weight >= other.weight
    return no_worse and cost(one, 256.0, 1.0) * 1.02 < cost(other, 256.0, 1.0)


@given(st.lists(candidates, min_size=1, max_size=4, unique_by=lambda each: each.route), st.integers())
def test_no_able_route_of_the_tier_is_better_in_everything_than_the_chosen(routes: list[Candidate], seed: int) -> None:
    choice = choose(routes, random.Random(seed), price_weight=1.0)
    if choice is not None:
        chosen = next(each for each in routes if each.route == choice.route)
        rivals = [each for each in routes if each.obstacle is None and each.priority == chosen.priority]
        assert not any(dominates(each, chosen) for each in rivals)


def test_a_route_that_was_never_asked_is_tried_beside_one_that_is_quicker_than_any_guess() -> None:
    """By the guess of a second to the first token it was never asked, and could be the quicker one."""
    known = Candidate("known", ttft=0.3, tpot=0.001)
    new = Candidate("new", is_proven=False, ttft=1.0, tpot=0.02)
    chosen = [choose([known, new], random.Random(seed)) for seed in range(100)]
    assert 20 < sum(choice is not None and choice.route == "new" for choice in chosen) < 80


def test_a_route_that_was_never_asked_gets_one_call_at_a_time_and_none_while_it_fails() -> None:
    known = Candidate("known", ttft=0.3, tpot=0.001)
    for new in (
        Candidate("new", is_proven=False, ttft=1.0, inflight=1),
        Candidate("new", is_proven=False, ttft=1.0, health=0.5),
    ):
        chosen = [choose([known, new], random.Random(seed)) for seed in range(100)]
        assert all(choice is not None and choice.route == "known" for choice in chosen)


@given(
    st.lists(candidates, min_size=5, max_size=12, unique_by=lambda each: each.route),
    st.integers(),
)
def test_among_many_the_dearest_is_never_chosen(routes: list[Candidate], seed: int) -> None:
    routes = [replace(each, priority=1, obstacle=None) for each in routes]
    costs = sorted(cost(each, 256.0) for each in routes)
    choice = choose(routes, random.Random(seed))
    assert choice is not None
    chosen = next(each for each in routes if each.route == choice.route)
    assert cost(chosen, 256.0) <= costs[-2] * 1.01


@given(st.lists(candidates, min_size=2, max_size=4, unique_by=lambda each: each.route), st.integers(0, 100))
def test_doubling_all_times_chooses_the_same(routes: list[Candidate], seed: int) -> None:
    doubled = [replace(each, wait=2 * each.wait, ttft=2 * each.ttft, tpot=2 * each.tpot) for each in routes]
    one, two = choose(routes, random.Random(seed)), choose(doubled, random.Random(seed))
    assert (one and one.route) == (two and two.route)
