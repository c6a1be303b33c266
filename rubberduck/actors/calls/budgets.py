"""What one call may spend: by its tenant's budget, and by its own `max_cost` for all its attempts together.

before an attempt    its worst case is set aside: in `max_cost` here, in the budgets with the entry in the ledger
after it             what it has cost is charged; all of the worst case, if nobody knows
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal

from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import COUNT, Asked, Call
from rubberduck.actors.calls.worst_case import worst_case
from rubberduck.actors.office import Office
from rubberduck.core.budget import PRICE_UNKNOWN, SPENT, Budget, Held, Refused
from rubberduck.core.pricing import from_pico, to_pico
from rubberduck.core.retry import RetryOptions
from rubberduck.core.score import Candidate, with_obstacle
from rubberduck.errors import BudgetExceeded, NoAvailableProvider, RubberDuckError

RETURNS = 0.1
"""Seconds after which money that others hold is looked for again."""
THE_CALL = "max_cost of the call"


class Money:
    """The money of one call. Used on the actors' loop."""

    __slots__ = ("_call", "_final", "_office", "_own", "_refused", "_since", "_worst")

    def __init__(self, office: Office, call: Call) -> None:
        self._office = office
        self._call = call
        self._own = None if call.max_cost is None else Budget(to_pico(call.max_cost))
        self._refused: dict[Route, Refused] = {}
        self._final: dict[Route, Refused] = {}
        self._worst: tuple[Asked, dict[Route, Decimal | None]] = (call.request, {})
        self._since = 0

    @classmethod
    def of(cls, office: Office, call: Call) -> Money | None:
        """None if nothing bounds what it may spend."""
        is_bounded = office.budgets is not None and office.budgets.is_bounded(call.tenant)
        return cls(office, call) if is_bounded or call.max_cost is not None else None

    def of_part(self, part: Call) -> Money:
        """The same money, for a request beside others of the same call."""
        money = Money(self._office, part)
        money._own = self._own
        return money

    def begin_round(self) -> None:
        """The call has something else to ask: what was refused before does not count, what was spent does."""
        self._since = len(self._call.attempts)
        self._refused.clear()
        self._final.clear()

    def is_tight(self, routes: Sequence[Route], times: int) -> bool:
        """Whether on some route there may be too little for so many attempts like this one at once."""
        refusals = [self._obstacle(route, times) for route in routes]
        return any(refused is not None and refused.reason == SPENT for refused in refusals)

    # -- an attempt --------------------------------------------------------------------------------

    def worst_case(self, route: Route) -> Decimal | None:
        """The most that an attempt on a route can cost, in USD; None if its price is unknown."""
        if self._call.kind == COUNT:
            return Decimal(0)
        request, known = self._worst
        if request is not self._call.request:
            request, known = self._worst = (self._call.request, {})
        if route not in known:
            known[route] = worst_case(self._office, route, request)
        return known[route]

    def hold(self, id: str, route: Route) -> Refused | None:
        """Set an attempt's worst case aside in `max_cost`."""
        if self._own is None:
            return None
        worst = self.worst_case(route)
        if worst is None:
            return Refused(PRICE_UNKNOWN, THE_CALL, from_pico(self._own.limit), Decimal(0), None)
        answer = self._own.hold(id, to_pico(worst), _utcnow(), THE_CALL)
        return None if isinstance(answer, Held) else answer

    def charge(self, id: str, cost: Decimal | None) -> None:
        """The attempt has cost so much; None: nobody knows."""
        if self._own is not None:
            self._own.charge(id, None if cost is None else to_pico(cost))

    def release(self, id: str) -> None:
        """The attempt was not made."""
        if self._own is not None:
            self._own.release(id)

    def refused(self, route: Route, refused: Refused) -> None:
        """The tenant's budget has no room for an attempt there, and that is its last word to this call."""
        self._final[route] = refused

    # -- the choice of a route ---------------------------------------------------------------------

    def seen(self, candidate: Candidate, route: Route) -> Candidate:
        """The candidate, out of the question if there is no money for an attempt there at the moment."""
        refused = self._obstacle(route)
        if refused is None:
            self._refused.pop(route, None)
            return candidate
        self._refused[route] = refused
        if candidate.obstacle is not None:
            return candidate
        return with_obstacle(candidate, refused.reason, look_again_after(refused))

    def require_some(self, routes: Sequence[Route], retry: RetryOptions) -> None:
        """Raises BudgetExceeded, or NoAvailableProvider, if no route can be paid and that does not change soon."""
        refusals = [self._obstacle(route) for route in routes]
        waits = [0.0 if each is None else look_again_after(each) for each in refusals]
        if any(wait is not None and wait <= retry.max_wait_for_preferred for wait in waits):
            return
        for route, each in zip(routes, refusals, strict=True):
            if each is not None:
                self._refused[route] = each
        reasons = {route.name: refused.reason for route, refused in self._refused.items()}
        unpriced = NoAvailableProvider(
            "no route's price is known, so no budget can be kept there: name it under `prices` (0 where it is free)",
            reasons=reasons,
            model=self._call.request.model,
            retryable=False,
        )
        raise self.exceeded(routes, retry, None) or unpriced

    def exceeded(
        self, routes: Sequence[Route], retry: RetryOptions, last: BaseException | None
    ) -> BudgetExceeded | None:
        """The error of a call that ended for want of money only; `last` is what its last attempt failed with."""
        call, due = self._call, []
        if call.delivered or len(call.attempts) - self._since >= retry.max_attempts_total:
            return None
        for route in routes:
            refused, tried = self._final.get(route) or self._refused.get(route), self._tried(route)
            if refused is not None and refused.reason == SPENT and self._would_try(tried, retry, last):
                due.append(refused)
            elif not tried:
                return None
        is_tried = len(call.attempts) > self._since
        return _error(due, call, last if is_tried else None) if due else None

    def _tried(self, route: Route) -> int:
        made = [Route(each.provider, each.model) for each in self._call.attempts[self._since :]]
        return made.count(route)

    def _would_try(self, tried: int, retry: RetryOptions, last: BaseException | None) -> bool:
        if not tried:
            return True
        return tried < retry.max_attempts and isinstance(last, RubberDuckError) and last.retryable

    def _obstacle(self, route: Route, times: int = 1) -> Refused | None:
        worst, budgets = self.worst_case(route), self._office.budgets
        pico, now = None if worst is None else to_pico(worst) * times, _utcnow()
        if self._own is not None:
            if pico is None:
                return Refused(PRICE_UNKNOWN, THE_CALL, from_pico(self._own.limit), Decimal(0), None)
            if not self._own.fits(pico):
                return self._own.refusal(pico, now, THE_CALL)
        return None if budgets is None else budgets.peek(self._call.tenant, pico, now)


def look_again_after(refused: Refused) -> float | None:
    """Seconds until the money may be there; None if waiting is no help."""
    return RETURNS if refused.is_held else refused.retry_after


def _error(due: Sequence[Refused], call: Call, last: BaseException | None) -> BudgetExceeded:
    """What is told of the route that is soonest to be affordable."""
    refused = min(due, key=lambda each: float("inf") if each.retry_after is None else each.retry_after)
    whose = refused.whose if refused.whose == THE_CALL else f"budget of {refused.whose or 'calls without a tenant'!r}"
    worst = f"{refused.used} of {refused.limit} USD are spent or set aside, and the rest is less than it may cost"
    after = "" if last is None else f"; the last attempt failed: {last}"
    error = BudgetExceeded(
        f"the {whose} has no room for an attempt: {worst}{after}",
        tenant=call.tenant,
        limit=refused.limit,
        used=refused.used,
        retryable=refused.retry_after is not None,
        retry_after=refused.retry_after,
        model=call.request.model,
    )
    error.__cause__ = last
    return error


def _utcnow() -> datetime:
    return datetime.now(UTC)
