"""What is known about each route at the moment, for reading: OTP would keep it in an ETS table.

The actors own their books and alone change them; they publish them here, so that choosing among routes
peeks at all of them without one message. Everything here belongs to the loop of the actors.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import TypeVar

from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Rejected
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.estimate import OutputEstimate
from rubberduck.core.keys import Barred, KeyPool
from rubberduck.core.limiter import Amounts, Klass, Limiter, LimiterOptions
from rubberduck.core.retry import RetryBudget
from rubberduck.core.route_stats import RouteStats
from rubberduck.core.score import Candidate
from rubberduck.errors import NoAvailableProvider
from rubberduck.prices import context_window
from rubberduck.providers.base import Kind, Provider

logger = logging.getLogger("rubberduck")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Route:
    """One way to an answer: a configured provider and one of its models. `name` is the two as one word."""

    provider: str
    model: str
    name: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", f"{self.provider}/{self.model}")

    def __str__(self) -> str:
        return self.name


REMEMBERED = 10_000
"""Model names come from users; beyond so many the memory of routes starts anew."""


@dataclass(slots=True)
class Typical:
    """The median duration of a route's attempts, looked up anew after every few answers only.

    It is believed from 20 answers on and for 30 s after the last: else a route that was slow once would be
    refused for ever by all who have less time, and nobody would notice that it is fast again.
    """

    at: float
    answered: int = 0
    looked_up: int = 0
    median: float = 0.0

    def seconds(self, stats: RouteStats, now: float) -> float:
        if stats.answered != self.answered:
            self.answered, self.at = stats.answered, now
            if self.answered >= max(20, self.looked_up + 16):
                self.looked_up, self.median = self.answered, stats.quantile(0.5) or 0.0
        return self.median if now - self.at <= 30.0 else 0.0


@dataclass(slots=True)
class ProviderDesk:
    """One provider with what its actors have published, and what past calls to its routes were like.

    `vendor` is whose list prices hold, empty for nobody's; `has_own_prices` says that the provider's own class
    tells its prices. `kind` tells which providers can do the same with the same model.
    `retry_budget` is the share of repeats among first attempts that is affordable, and how many are in any case.
    `concurrencies` is how many calls each model bears at once, as far as its refusals have told.
    """

    provider: Provider
    vendor: str
    kind: str
    priority: int
    weight: float
    breaker_options: BreakerOptions
    limiter_options: LimiterOptions
    breakers: dict[str, CircuitBreaker] = field(default_factory=dict)
    limiters: dict[int, Limiter] = field(default_factory=dict)
    keys: KeyPool = field(default_factory=KeyPool)
    stats: dict[str, RouteStats] = field(default_factory=dict)
    budgets: dict[str, RetryBudget] = field(default_factory=dict)
    retry_budget: tuple[float, float] = (0.2, 3.0)
    inflight: int = 0
    has_own_prices: bool = True
    typical: dict[str, Typical] = field(default_factory=dict)
    concurrencies: dict[str, Concurrency] = field(default_factory=dict)
    outputs: dict[str, OutputEstimate] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.provider.name

    def forget(self, model: str) -> None:
        """Its circuit has been forgotten as one of too many: so is what else is known of an idle route."""
        self.breakers.pop(model, None)
        stats = self.stats.get(model)
        if stats is not None and not stats.inflight:
            del self.stats[model]
            self.typical.pop(model, None)

    def peek_breaker(self, model: str, now: float) -> Rejected | None:
        """Why the circuit would refuse a call now, or None."""
        breaker = self.breakers.get(model)
        return None if breaker is None else breaker.peek(now)

    def concurrency_of(self, model: str) -> Concurrency:
        """How many calls this route bears at once."""
        concurrency = self.concurrencies.get(model)
        if concurrency is None:
            concurrency = _remember(self.concurrencies, model, Concurrency(self.limiter_options.max_concurrency))
        return concurrency

    def peek_wait(self, amounts: Amounts, now: float, klass: Klass, model: str = "") -> float:
        """About how many seconds the limiter would have a call wait, with the key that has the least to wait.

        Infinite where it can never fit.
        """
        limiters = self.limiters
        if len(limiters) == 1:
            return limiters[0].peek(amounts, now, klass, model)
        usable = [limiters[key] for key in self.keys.usable(model, now) if key in limiters]
        return min([limiter.peek(amounts, now, klass, model) for limiter in usable], default=0.0)

    def pick_key(self, amounts: Amounts, now: float, klass: Klass, model: str) -> int | None:
        """The key for a call to this route: one that may be used, with the least to wait. None if there is none."""
        if len(self.keys.names) == 1:
            return self.keys.pick(model, now)

        def wait_of(key: int) -> float:
            limiter = self.limiters.get(key)
            return 0.0 if limiter is None else limiter.peek(amounts, now, klass, model)

        return self.keys.pick(model, now, wait_of)

    def counts_tokens(self, model: str) -> bool:
        """Whether a limit, configured or learned, can use the number of a request's tokens."""
        return any(limiter.counts_tokens(model) for limiter in self.limiters.values())

    def input_limit(self, model: str) -> float | None:
        """The smallest limit that input counts against, configured or learned; None without any."""
        limits = [limiter.input_limit(model) for limiter in self.limiters.values()]
        return min([limit for limit in limits if limit is not None], default=None)

    def output_of(self, model: str) -> OutputEstimate:
        """How much of what they may write past answers of this route have written."""
        estimate = self.outputs.get(model)
        if estimate is None:
            estimate = _remember(self.outputs, model, OutputEstimate())
        return estimate

    def amounts(self, worst: Amounts, max_tokens: int | None, n: int, model: str) -> Amounts:
        """What to reserve here for a request that takes `worst` at most, with `n` answers of `max_tokens` each."""
        limit = None if max_tokens is not None else self._output_limit(model)
        output = self.output_of(model).reserve(max_tokens, limit) * n
        return Amounts(worst.requests, worst.input, output, worst.concurrency)

    def _output_limit(self, model: str) -> float | None:
        limits = [limiter.output_limit(model) for limiter in self.limiters.values()]
        return min([limit for limit in limits if limit is not None], default=None)

    def stats_of(self, model: str, now: float) -> RouteStats:
        """What past calls to this route were like."""
        stats = self.stats.get(model)
        if stats is None:
            if len(self.stats) >= REMEMBERED:
                self.stats = {name: each for name, each in self.stats.items() if each.inflight}
            stats = self.stats[model] = RouteStats(now)
        return stats

    def typical_of(self, model: str, stats: RouteStats, now: float) -> float:
        """The median duration of an attempt in seconds; 0 while too few have ended, or none has for a while."""
        known = self.typical.get(model)
        if known is None:
            known = _remember(self.typical, model, Typical(now))
        return known.seconds(stats, now)

    def budget_of(self, model: str) -> RetryBudget:
        """How many repeats this route can still afford."""
        budget = self.budgets.get(model)
        if budget is None:
            ratio, floor = self.retry_budget
            budget = _remember(self.budgets, model, RetryBudget(ratio, floor))
        return budget


LACKS: Mapping[Kind, str] = {
    "chat": "offers no chat",
    "embeddings": "offers no embeddings",
    "count": "counts no tokens",
}


class Board:
    """All providers, and the names that lead to their routes.

    `unable` names, for each kind of question, the providers that do not offer it.
    """

    def __init__(
        self, desks: Mapping[str, ProviderDesk], aliases: Mapping[str, Iterable[str]], rng: random.Random
    ) -> None:
        self.desks = dict(desks)
        self.rng = rng
        self._known: dict[tuple[str, str], Route] = {}
        self._aliases = {name: tuple(_route(text) for text in routes) for name, routes in aliases.items()}
        self.unable: dict[Kind, frozenset[str]] = {
            kind: frozenset([name for name, desk in desks.items() if kind not in desk.provider.offers])
            for kind in LACKS
        }

    def slots_of(self, route: str) -> int:
        """How many calls the route of this name takes at once, as it stands at the moment; 0 if there is none."""
        provider, _, model = route.partition("/")
        desk = self.desks.get(provider)
        return 0 if desk is None else desk.concurrency_of(model).limit

    def is_blocked(self, route: str, now: float) -> bool:
        """Whether the circuit of the route of this name would refuse a call now, or no key can be used there."""
        provider, _, model = route.partition("/")
        desk = self.desks.get(provider)
        if desk is None:
            return False
        return desk.peek_breaker(model, now) is not None or desk.keys.obstacle(model, now) is not None

    def candidate(self, route: Route, amounts: Amounts, klass: Klass, now: float) -> Candidate:
        """How a route looks at this moment, to a call that needs `amounts`."""
        desk, model = self.desks[route.provider], route.model
        stats = desk.stats_of(model, now)
        blocked: Barred | Rejected | None = desk.keys.obstacle(model, now)
        obstacle = None if blocked is None else blocked.reason
        if blocked is None:
            blocked = desk.peek_breaker(model, now)
            obstacle = None if blocked is None else f"circuit {blocked.reason}"
        return Candidate(
            route=route.name,
            priority=desk.priority,
            weight=desk.weight * stats.ramp(now),
            obstacle=obstacle,
            retry_after=None if blocked is None else blocked.retry_after,
            wait=desk.peek_wait(amounts, now, klass, model),
            inflight=stats.inflight,
            health=stats.health(now),
            ttft=stats.ttft(now),
            tpot=stats.tpot(now),
            is_proven=stats.is_proven,
            repeat_allowed=desk.budget_of(model).affords(now),
            context_limit=context_window(desk.vendor, model),
            family=f"{desk.kind}/{model}",
            typical=desk.typical_of(model, stats, now),
            may_probe=isinstance(blocked, Rejected) and desk.breakers[model].may_probe(now),
        )

    def routes(self, model: str, only: Iterable[str] | None = None) -> tuple[Route, ...]:
        """The routes that `model` may take: an alias's, the one it names, or every provider that knows the model.

        Raises:
            NoAvailableProvider: there is none; `reasons` says why for each provider.
        """
        found = self._all_routes(model)
        if only is not None:
            only = set(only)
            found = tuple(route for route in found if route.provider in only)
        if found:
            return found
        allowed = set(self.desks) if only is None else only
        reasons = {name: self._why_not(name, model, allowed) for name in self.desks}
        for name in allowed - set(self.desks):
            reasons[name] = "is not configured"
        details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NoAvailableProvider(
            f"no provider serves the model {model!r} ({details})", reasons=reasons, model=model, retryable=False
        )

    def able(self, routes: tuple[Route, ...], kind: Kind) -> tuple[Route, ...]:
        """Those of the routes that offer what is asked for.

        Raises:
            NoAvailableProvider: there is none; `reasons` says so for each route.
        """
        able = tuple([route for route in routes if route.provider not in self.unable[kind]])
        if able:
            return able
        reasons = {route.name: self.lack(route, kind) for route in routes}
        details = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise NoAvailableProvider(
            f"no provider of the model offers that ({details})", reasons=reasons, model=routes[0].model, retryable=False
        )

    def lack(self, route: Route, kind: Kind) -> str:
        """Why a route is no good for what is asked for."""
        hint = self.desks[route.provider].provider.hints.get(kind)
        return LACKS[kind] if hint is None else f"{LACKS[kind]}: {hint}"

    def _all_routes(self, model: str) -> tuple[Route, ...]:
        if model in self._aliases:
            return self._aliases[model]
        provider, slash, rest = model.partition("/")
        if slash and rest and provider in self.desks:
            return (self._route(provider, rest),)
        return tuple([self._route(name, model) for name, desk in self.desks.items() if _supports(desk, model)])

    def _route(self, provider: str, model: str) -> Route:
        route = self._known.get((provider, model))
        if route is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            route = self._known[provider, model] = Route(provider, model)
        return route

    def _why_not(self, name: str, model: str, allowed: AbstractSet[str]) -> str:
        if name not in allowed:
            return "is not among the providers that the call allows"
        provider, slash, _ = model.partition("/")
        if slash and provider not in self.desks:
            return f"does not support the model {model!r}, and there is no provider {provider!r}"
        return f"does not support the model {model!r}"


def _remember(table: dict[str, V], model: str, fresh: V) -> V:
    """Put what is new about a model into a table, which is begun anew when it is full."""
    if len(table) >= REMEMBERED:
        table.clear()
    table[model] = fresh
    return fresh


def _supports(desk: ProviderDesk, model: str) -> bool:
    """What the provider says; one that fails over the question cannot serve the model either."""
    try:
        return bool(desk.provider.supports_model(model))
    except Exception:  # a third party's code runs here
        logger.exception("%s: supports_model(%r) failed", desk.name, model)
        return False


def _route(text: str) -> Route:
    provider, _, model = text.partition("/")
    return Route(provider, model)
