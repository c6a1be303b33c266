"""What the queue reads of the limiters: whether a route is limited, and whether somebody waits for it already."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rubberduck.actors.board import Board
from rubberduck.core.limiter import Amounts, Limiter


class RouteLimits:
    """The published books of the limiters, by names of routes. Belongs to the loop of the actors, as they do.

    Where a provider has several keys, a route is as free as the freest of them.
    """

    __slots__ = ("_board",)

    def __init__(self, board: Board) -> None:
        self._board = board

    def is_limited(self, route: str, now: float) -> bool:
        # Asked for every turn, and nearly always answered with no: without a generator, a list, or a look at the keys.
        provider, _, model = route.partition("/")
        desk = self._board.desks.get(provider)
        if desk is not None:
            for limiter in desk.limiters.values():
                if limiter.is_limited(model, now):
                    return True
        return False

    def is_booked(self, route: str, now: float) -> bool:
        model, limiters = self._of(route, now)
        waiting = [limiter.waiting_for(model) for limiter in limiters]
        return bool(waiting) and all(waiting)

    def has_asked(self, route: str, job_id: str) -> bool:
        """The first attempt of a call is the one that its turn was for."""
        return any(limiter.knows(f"{job_id}-1") for limiter in self._all(route))

    def wait(self, route: str, amounts: Amounts, now: float) -> float:
        model, limiters = self._of(route, now)
        return min([limiter.peek(amounts, now, model=model) for limiter in limiters], default=0.0)

    def watch(self, routes: Iterable[str], wake: Callable[[], object]) -> None:
        for route in routes:
            for limiter in self._all(route):
                limiter.on_change = wake

    def _all(self, route: str) -> Iterable[Limiter]:
        desk = self._board.desks.get(route.partition("/")[0])
        return () if desk is None else desk.limiters.values()

    def _of(self, route: str, now: float) -> tuple[str, Iterable[Limiter]]:
        """The model, and the limiters of the keys that may be used with it."""
        provider, _, model = route.partition("/")
        desk = self._board.desks.get(provider)
        if desk is None:
            return model, ()
        limiters = desk.limiters
        if len(limiters) == 1:
            return model, limiters.values()
        return model, [limiters[key] for key in desk.keys.usable(model, now) if key in limiters]
