"""What every call needs at hand: the clock, the board, the prices, and the actors by what they do."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck.actors.board import Board, ProviderDesk, Route
from rubberduck.actors.shared_limits import Leases
from rubberduck.core import pricing
from rubberduck.core.budget import Budgets
from rubberduck.core.ledger import MAX_AMOUNT
from rubberduck.errors import CallInterrupted
from rubberduck.prices import PriceBook
from rubberduck.types import Usage

logger = logging.getLogger("rubberduck")


class Office:
    """The surroundings of the calls of one tree. Used on the actors' loop. Without `leases` limits are its own."""

    def __init__(self, system: sup.System, board: Board, prices: PriceBook, leases: Leases | None = None) -> None:
        self.system = system
        self.board = board
        self.leases = leases
        self.clock = system.clock
        self._prices = prices
        self.now = system.clock.now
        self._mispriced: set[str] = set()
        # By concern, or by provider's name.
        self._refs: dict[str, sup.ActorRef] = {}
        self._limiters: dict[str, sup.ActorRef] = {}
        self._breakers: dict[str, sup.ActorRef] = {}
        self.is_open = False
        self.budgets: Budgets | None = None

    def open(self) -> None:
        """Look everybody up: the tree has been started. The refs stay good, whoever is restarted."""
        for name in ("calls", "cost_tracker", "request_queue", "service"):
            self._refs[name] = self._find(name)
        for name in ("jobs", "deliveries"):
            if (ref := self.system.whereis(name)) is not None:
                self._refs[name] = ref
        for name in self.board.desks:
            self._limiters[name] = self._find(f"providers/provider:{name}/rate_limiter:{name}")
            self._breakers[name] = self._find(f"providers/provider:{name}/circuit_breaker:{name}")
        self.is_open = True

    # -- who is who --------------------------------------------------------------------------------

    def calls(self) -> sup.ActorRef:
        return self._refs["calls"]

    def tracker(self) -> sup.ActorRef:
        return self._refs["cost_tracker"]

    def queue(self) -> sup.ActorRef:
        return self._refs["request_queue"]

    def service(self) -> sup.ActorRef:
        return self._refs["service"]

    def jobs(self) -> sup.ActorRef:
        return self._refs["jobs"]

    def deliveries(self) -> sup.ActorRef:
        return self._refs["deliveries"]

    def limiter(self, route: Route) -> sup.ActorRef:
        return self._limiters[route.provider]

    def breaker(self, route: Route) -> sup.ActorRef:
        return self._breakers[route.provider]

    def _find(self, path: str) -> sup.ActorRef:
        found: sup.ActorRef | None = self.system.whereis(path)
        if found is None:
            raise CallInterrupted(f"the actor {path} is not there", spent=None)
        return found

    def actor_names(self) -> list[str]:
        """The names of the tree, for those who asked for another."""
        names = ["service", "calls", "request_queue", "cost_tracker", "providers"]
        names += [name for name in ("jobs", "deliveries") if name in self._refs]
        for name in self.board.desks:
            names += [f"provider:{name}", f"circuit_breaker:{name}", f"rate_limiter:{name}"]
        return names

    # -- money -------------------------------------------------------------------------------------

    def cost(self, desk: ProviderDesk, route: Route, usage: Usage) -> tuple[Decimal | None, pricing.Price | None]:
        """What `usage` costs in USD and by which price; None where nobody knows."""
        price = self._prices.price(desk.vendor, route.model, route=route.name)
        if price is not None:
            steps = desk.provider.billed(usage, route.model) if usage.raw else ()
            return (self._sum(desk, route, steps) if steps else pricing.cost(usage, price)), price
        return (self._own_cost(desk, route, usage) if desk.has_own_prices else None), None

    def _sum(self, desk: ProviderDesk, route: Route, steps: Sequence[tuple[str, Usage]]) -> Decimal | None:
        """What an answer costs that took several steps, each at the price of its model."""
        total = Decimal(0)
        for model, usage in steps:
            name = route.name if model == route.model else ""
            cost = pricing.cost(usage, self._prices.price(desk.vendor, model, route=name))
            if cost is None:
                return None
            total += cost
        return total

    def _own_cost(self, desk: ProviderDesk, route: Route, usage: Usage) -> Decimal | None:
        """What the provider's own class says, if it is an amount: a mistake there must not cost the answer."""
        try:
            told: Any = desk.provider.estimate_cost(usage, route.model)
            cost = None if told is None else Decimal(str(told))
            if cost is None or 0 <= cost <= MAX_AMOUNT:
                return cost
            mistake = f"{told!r} is no amount in USD"
        except Exception as error:  # noqa: BLE001  (a third party's code runs here)
            mistake = f"{type(error).__name__}: {error}"
        if route.name not in self._mispriced:
            self._mispriced.add(route.name)
            logger.warning("%s: its price is unknown, for estimate_cost failed: %s", route, mistake)
        return None

    def price_of(self, provider: str, model: str, usage: Any) -> Decimal | None:
        """The same by the provider's name, for costs told from outside."""
        desk = self.board.desks.get(provider)
        return None if desk is None else self.cost(desk, Route(provider, model), usage)[0]
