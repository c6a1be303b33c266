"""What every call needs at hand: the clock, the board, the prices, and the actors by what they do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck.actors.board import Board, ProviderDesk, Route
from rubberduck.core import pricing
from rubberduck.errors import CallInterrupted
from rubberduck.prices import PriceBook
from rubberduck.types import Usage


class Office:
    """The surroundings of the calls of one tree. Used on the actors' loop."""

    def __init__(self, system: sup.System, board: Board, prices: PriceBook) -> None:
        self.system = system
        self.board = board
        self.clock = system.clock
        self._prices = prices
        self._refs: dict[str, sup.ActorRef] = {}

    def now(self) -> float:
        return self.clock.now()

    # -- who is who --------------------------------------------------------------------------------

    def calls(self) -> sup.ActorRef:
        return self._ref("calls")

    def tracker(self) -> sup.ActorRef:
        return self._ref("cost_tracker")

    def queue(self) -> sup.ActorRef:
        return self._ref("request_queue")

    def limiter(self, route: Route) -> sup.ActorRef:
        return self._ref(f"providers/provider:{route.provider}/rate_limiter:{route.provider}")

    def breaker(self, route: Route) -> sup.ActorRef:
        return self._ref(f"providers/provider:{route.provider}/circuit_breaker:{route.provider}")

    def _ref(self, path: str) -> sup.ActorRef:
        ref = self._refs.get(path)
        if ref is None:
            found = self.system.whereis(path)
            if found is None:
                raise CallInterrupted(f"the actor {path} is not there")
            ref = self._refs[path] = found
        return ref

    def actor_names(self) -> list[str]:
        """The names of the tree, for those who asked for another."""
        names = ["service", "calls", "request_queue", "cost_tracker", "providers"]
        for name in self.board.desks:
            names += [f"provider:{name}", f"circuit_breaker:{name}", f"rate_limiter:{name}"]
        return names

    # -- money -------------------------------------------------------------------------------------

    def cost(self, desk: ProviderDesk, route: Route, usage: Usage) -> tuple[Decimal | None, pricing.Price | None]:
        """What `usage` costs in USD and by which price; None where nobody knows."""
        price = self._prices.price(desk.vendor, route.model, route=str(route))
        if price is not None:
            return pricing.cost(usage, price), price
        return desk.provider.estimate_cost(usage, route.model), None

    def price_of(self, provider: str, model: str, usage: Any) -> Decimal | None:
        """The same by the provider's name, for costs told from outside."""
        desk = self.board.desks.get(provider)
        return None if desk is None else self.cost(desk, Route(provider, model), usage)[0]
