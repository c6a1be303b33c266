"""What is known about each route at the moment, for reading: OTP would keep it in an ETS table.

The actors own their books and alone change them; they publish them here, so that choosing among routes
peeks at all of them without one message. Everything here belongs to the loop of the actors.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Rejected
from rubberduck.core.limiter import Amounts, Klass, Limiter, LimiterOptions
from rubberduck.core.retry import RetryBudget
from rubberduck.core.route_stats import RouteStats
from rubberduck.errors import NoAvailableProvider
from rubberduck.providers.base import Provider


@dataclass(frozen=True, slots=True)
class Route:
    """One way to an answer: a configured provider and one of its models."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


@dataclass(slots=True)
class ProviderDesk:
    """One provider with what its actors have published, and what past calls to its routes were like.

    `retry_budget` is the share of repeats among first attempts that is affordable, and how many are in any case.
    """

    provider: Provider
    vendor: str
    priority: int
    weight: float
    breaker_options: BreakerOptions
    limiter_options: LimiterOptions
    breakers: dict[str, CircuitBreaker] = field(default_factory=dict)
    limiter: Limiter | None = None
    stats: dict[str, RouteStats] = field(default_factory=dict)
    budgets: dict[str, RetryBudget] = field(default_factory=dict)
    retry_budget: tuple[float, float] = (0.2, 3.0)
    inflight: int = 0

    @property
    def name(self) -> str:
        return self.provider.name

    def peek_breaker(self, model: str, now: float) -> Rejected | None:
        """Why the circuit would refuse a call now, or None."""
        breaker = self.breakers.get(model)
        return None if breaker is None else breaker.peek(now)

    def peek_wait(self, amounts: Amounts, now: float, klass: Klass) -> float:
        """About how many seconds the limiter would have a call wait; infinite where it can never fit."""
        return 0.0 if self.limiter is None else self.limiter.peek(amounts, now, klass)

    def stats_of(self, model: str, now: float) -> RouteStats:
        """What past calls to this route were like."""
        stats = self.stats.get(model)
        if stats is None:
            stats = self.stats[model] = RouteStats(now)
        return stats

    def budget_of(self, model: str) -> RetryBudget:
        """How many repeats this route can still afford."""
        budget = self.budgets.get(model)
        if budget is None:
            ratio, floor = self.retry_budget
            budget = self.budgets[model] = RetryBudget(ratio, floor)
        return budget


class Board:
    """All providers, and the names that lead to their routes."""

    def __init__(
        self, desks: Mapping[str, ProviderDesk], aliases: Mapping[str, Iterable[str]], rng: random.Random
    ) -> None:
        self.desks = dict(desks)
        self.rng = rng
        self._aliases = {name: tuple(_route(text) for text in routes) for name, routes in aliases.items()}

    def routes(self, model: str, only: Iterable[str] | None = None) -> tuple[Route, ...]:
        """The routes that `model` may take: an alias's, the one it names, or every provider that knows the model.

        Raises:
            NoAvailableProvider: there is none; `reasons` says why for each provider.
        """
        allowed = set(self.desks) if only is None else set(only)
        found = tuple(route for route in self._all_routes(model) if route.provider in allowed)
        if found:
            return found
        reasons = {name: self._why_not(name, model, allowed) for name in self.desks}
        for name in allowed - set(self.desks):
            reasons[name] = "is not configured"
        details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NoAvailableProvider(
            f"no provider serves the model {model!r} ({details})", reasons=reasons, model=model, retryable=False
        )

    def _all_routes(self, model: str) -> tuple[Route, ...]:
        if model in self._aliases:
            return self._aliases[model]
        provider, slash, rest = model.partition("/")
        if slash and rest and provider in self.desks:
            return (Route(provider, rest),)
        return tuple(Route(name, model) for name, desk in self.desks.items() if desk.provider.supports_model(model))

    def _why_not(self, name: str, model: str, allowed: set[str]) -> str:
        if name not in allowed:
            return "is not among the providers that the call allows"
        return f"does not support the model {model!r}"


def _route(text: str) -> Route:
    provider, _, model = text.partition("/")
    return Route(provider, model)
