"""How many tokens a request is: asked of who serves the model, else counted on this machine.

It is the number for the route that comes first: of the highest priority, and among those in the order of the
configuration. Where its provider counts, it is asked through the whole tree, as for an answer, but for no tokens and
no money. If it does not tell after all attempts, the number is estimated: a count is advice. A request that is wrong,
and a key that is refused, are told all the same, for an answer would fail just so.
"""

from __future__ import annotations

import asyncio
from decimal import Decimal

from rubberduck import tokens
from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import COUNT, Call
from rubberduck.actors.calls.course import Course
from rubberduck.actors.calls.race import Answer
from rubberduck.core.limiter import Amounts
from rubberduck.errors import (
    AuthenticationFailed,
    CallInterrupted,
    Cancelled,
    DeadlineExceeded,
    InvalidRequest,
    RubberDuckError,
)
from rubberduck.types import Request, TokenCount, Usage

TOLD = (InvalidRequest, AuthenticationFailed, DeadlineExceeded, CallInterrupted, Cancelled)
"""The errors for which nobody is given an estimate."""


class CountCourse(Course):
    """The way of a count: to the routes of the model that comes first."""

    __slots__ = ("_first",)

    async def answer(self) -> Answer:
        """The number of tokens. Raises one of `TOLD`, or NoAvailableProvider for a model that nobody serves."""
        first = self._first = self._preferred()
        if first.provider in self._office.board.unable[COUNT]:
            return await _offline(self._call, first)
        try:
            return await super().answer()
        except TOLD:
            raise
        except RubberDuckError:
            return await _offline(self._call, first, is_fallback=True)

    def _preferred(self) -> Route:
        routes, desks = super()._find_routes(), self._office.board.desks
        return min(routes, key=lambda route: desks[route.provider].priority)

    def _able(self, routes: tuple[Route, ...]) -> tuple[Route, ...]:
        return routes

    def _find_routes(self) -> tuple[Route, ...]:
        first, unable = self._first, self._office.board.unable[COUNT]
        routes = self._office.board.routes(self._call.request.model, self._call.providers)
        return tuple([each for each in routes if each.model == first.model and each.provider not in unable])

    async def _estimate(self) -> Amounts:
        return Amounts(1, 0, 0, 1)


async def _offline(call: Call, route: Route, *, is_fallback: bool = False) -> Answer:
    """Counted in a thread, for a long conversation takes its time; an estimate where others would have known better."""
    assert isinstance(call.request, Request)
    request = call.request.model_copy(update={"model": route.model})
    counted = await asyncio.to_thread(tokens.count_request, request)
    is_estimate = counted.estimated or is_fallback
    return TokenCount(counted.tokens, is_estimate, model=route.model), Usage(cost=Decimal(0))
