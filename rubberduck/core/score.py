"""Chooses the route for one attempt: by priority, then by expected cost in seconds.

    C = (wait + ttft * (1 - 0.8 * hit) + out_est * tpot) * load * health_factor + lambda * usd
    load = (inflight + 1) / weight          health_factor = 1 / max(health, 0.02) ** 4

Routes of the lowest priority number come first. As their eligible share of weight falls, a growing share of the
traffic spills to the next number. A weighted sum of priority, health and load was tried in simulation: it sent
everything to one provider.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001; Envoy, "Priority levels".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from rubberduck.core.values import value

CACHED_SHARE = 0.8
"""How much of the time to first token an expected cache hit saves."""
LEAST_HEALTH = 0.02
OVERPROVISION = 1.4
"""A tier keeps all traffic until less than 1 / 1.4 of its weight is eligible."""
SCAN_ALL = 4
TIE = 0.01
STICKY_SLACK = 1.5


@value(frozen=True, slots=True)
class Candidate:
    """A route as it looks at one moment. Times are seconds, `usd` the estimated price of the attempt.

    `obstacle` names why the route cannot take the call now, `retry_after` when that may end (None: not by
    waiting). `wait` is what its limiter would make the call wait. `health` is the decayed share of successes,
    `hit` the share of the prompt expected in the provider's cache. `context_limit` and `family` say how
    the route differs from others: tokens it can read, and whose capabilities it has; None is unknown.
    `typical` is the median duration of a whole attempt. `may_probe`: its open circuit has an extra probe to give.
    """

    route: str
    priority: int = 1
    weight: float = 1.0
    obstacle: str | None = None
    retry_after: float | None = None
    wait: float = 0.0
    inflight: int = 0
    health: float = 1.0
    ttft: float = 1.0
    tpot: float = 0.02
    hit: float = 0.0
    usd: float = 0.0
    is_proven: bool = True
    repeat_allowed: bool = True
    context_limit: int | None = None
    family: str | None = None
    typical: float = 0.0
    may_probe: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """What a candidate would cost, in seconds, with every term of the sum."""

    route: str
    priority: int
    health: float
    load: float
    wait: float
    ttft: float
    output: float
    health_factor: float
    price: float
    cost: float


@value(frozen=True, slots=True)
class Choice:
    """The chosen route, and all that is needed to explain why it was chosen, or to choose again.

    `sticky` is the route that was to be kept if it cost little more than the best.
    """

    route: str
    candidates: tuple[Candidate, ...]
    out_est: float
    price_weight: float
    sticky: str | None = None

    def trace(self) -> list[dict[str, Any]]:
        """For each candidate all terms of its score, and the obstacle that kept it out."""
        return [
            terms(each, self.out_est, self.price_weight) | {"chosen": each.route == self.route}
            for each in self.candidates
        ]


def cost(candidate: Candidate, out_est: float, price_weight: float = 0.0) -> float:
    """Seconds a call is expected to cost on this route; lower is better."""
    health = max(LEAST_HEALTH, candidate.health)
    seconds = (candidate.wait + candidate.ttft * (1 - CACHED_SHARE * candidate.hit) + out_est * candidate.tpot) * (
        candidate.inflight + 1
    )
    return seconds / (candidate.weight * health**4) + price_weight * candidate.usd


def score(candidate: Candidate, out_est: float, price_weight: float = 0.0) -> Score:
    """The same with its terms."""
    return Score(
        route=candidate.route,
        priority=candidate.priority,
        health=candidate.health,
        load=(candidate.inflight + 1) / candidate.weight,
        wait=candidate.wait,
        ttft=candidate.ttft * (1 - CACHED_SHARE * candidate.hit),
        output=out_est * candidate.tpot,
        health_factor=1 / max(candidate.health, LEAST_HEALTH) ** 4,
        price=price_weight * candidate.usd,
        cost=cost(candidate, out_est, price_weight),
    )


def choose(
    candidates: Sequence[Candidate],
    rng: random.Random,
    out_est: float = 256.0,
    *,
    price_weight: float = 0.0,
    longest_wait: float = inf,
    sticky: str | None = None,
) -> Choice | None:
    """The route for the next attempt; None if every candidate has an obstacle.

    `out_est` is the expected output in tokens, `price_weight` the seconds worth waiting to save one USD. A tier all
    of whose routes would make the call wait longer than `longest_wait` is passed over while another can do better.
    `sticky` is kept while it costs at most half as much again as the best. A route that has never answered is taken to
    be as quick as the best of its priority: by a guess it would be left untried beside any that is quicker than that.
    """
    if not all(each.is_proven for each in candidates):
        candidates = [_given_a_chance(each, candidates) for each in candidates]
    tier = _tier(candidates, rng, longest_wait)
    if not tier:
        return None
    best = _cheapest(tier, rng, out_est, price_weight)
    if sticky is not None and sticky != best.route:
        limit = STICKY_SLACK * cost(best, out_est, price_weight)
        best = next((c for c in tier if c.route == sticky and cost(c, out_est, price_weight) <= limit), best)
    return Choice(best.route, tuple(candidates), out_est, price_weight, sticky)


def with_obstacle(candidate: Candidate, obstacle: str, retry_after: float | None = None) -> Candidate:
    """The candidate, kept out for a further reason: not even a probe of its circuit is to be sent there."""
    return replace(candidate, obstacle=obstacle, retry_after=retry_after, may_probe=False)


def _given_a_chance(candidate: Candidate, candidates: Sequence[Candidate]) -> Candidate:
    """A route without history as it is to be judged beside those that have one."""
    if candidate.is_proven:
        return candidate
    known = [each for each in candidates if each.is_proven and each.priority == candidate.priority]
    if not known:
        return candidate
    best_ttft, best_tpot = min([each.ttft for each in known]), min([each.tpot for each in known])
    return replace(candidate, ttft=min(candidate.ttft, best_ttft), tpot=min(candidate.tpot, best_tpot))


def _tier(candidates: Sequence[Candidate], rng: random.Random, longest_wait: float) -> list[Candidate]:
    able: dict[int, list[Candidate]] = {}
    weights: dict[int, float] = {}
    for each in candidates:
        weights[each.priority] = weights.get(each.priority, 0.0) + each.weight
        if each.obstacle is None:
            able.setdefault(each.priority, []).append(each)
    if not able:
        return []
    tiers = sorted(able)
    if len(tiers) > 1:
        prompt = [number for number in tiers if any(each.wait <= longest_wait for each in able[number])]
        tiers = prompt or tiers
    for number in tiers[:-1]:
        share = sum(each.weight for each in able[number]) / weights[number]
        kept = OVERPROVISION * share
        if kept >= 1 or rng.random() < kept:
            return able[number]
    return able[tiers[-1]]


def _cheapest(tier: list[Candidate], rng: random.Random, out_est: float, price_weight: float) -> Candidate:
    # One attempt at a time on a route that has not answered yet, unless all are like that.
    settled = [each for each in tier if each.is_proven or each.inflight == 0] or tier
    if len(settled) == 1:
        return settled[0]
    compared = settled if len(settled) <= SCAN_ALL else rng.sample(settled, 2)
    costs = [cost(each, out_est, price_weight) for each in compared]
    limit = min(costs) * (1 + TIE)
    tied = [each for each, seconds in zip(compared, costs, strict=True) if seconds <= limit]
    return tied[0] if len(tied) == 1 else tied[int(rng.random() * len(tied))]


def terms(candidate: Candidate, out_est: float, price_weight: float = 0.0) -> dict[str, Any]:
    """Every term of a candidate's score by name, and the obstacle that keeps it out, if there is one."""
    known = score(candidate, out_est, price_weight)
    told: dict[str, Any] = {name: getattr(known, name) for name in Score.__slots__}
    told |= {"inflight": candidate.inflight, "weight": candidate.weight, "hit": candidate.hit, "usd": candidate.usd}
    return told | {"obstacle": candidate.obstacle, "retry_after": candidate.retry_after}
