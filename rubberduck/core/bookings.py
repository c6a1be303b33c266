"""Decides whether one more call may leave the queue for a route whose limits may be used up.

A call that leaves although only tokens lack books them: in the limiter it is the first, so smaller ones cannot starve
it. But it holds a slot while it waits there, and a limiter serves who waits in an order of its own. So one leaves at a
time: while somebody waits in the limiter of a route, all others for that route wait in the queue, where classes and
tenants have their shares and where waiting takes no slot. A hundred calls of the lowest class that came at once kept an
urgent one waiting until the tokens had come for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rubberduck.core.fair_share import Job
from rubberduck.core.waiting_line import Amounts

LOST_AFTER = 0.25
"""Seconds after which a call that has not asked its limiter is not on its way to it, but somewhere else."""


class Limits(Protocol):
    """What is known of the limits of routes, by their names."""

    def is_limited(self, route: str, now: float) -> bool: ...

    def is_booked(self, route: str, now: float) -> bool:
        """Whether somebody waits for them."""

    def has_asked(self, route: str, job_id: str) -> bool:
        """Whether the limiter has heard of the job."""

    def wait(self, route: str, amounts: Amounts, now: float) -> float:
        """Seconds that one who asks for so much now would wait."""

    def watch(self, routes: Iterable[str], wake: Callable[[], object]) -> None:
        """Call `wake` once when another may have become able to go."""


class Bookings:
    """The calls that are between the queue and the limiters of their routes."""

    __slots__ = ("_limits", "_under_way")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._under_way: dict[str, dict[str, tuple[float, float]]] = {}

    def is_open(self, route: str, now: float) -> bool:
        """Whether one more may leave for `route`: to go on at once, or to be the one who books."""
        limits = self._limits
        if not limits.is_limited(route, now):
            return True
        if limits.is_booked(route, now):
            return False
        under_way = self._still_under_way(route, now)
        if not under_way:
            return True
        tokens = sum([tokens for _, tokens in under_way.values()])
        return limits.wait(route, _amounts(1 + len(under_way), 1 + tokens), now) <= 0

    def left(self, job: Job, route: str, now: float) -> None:
        """`job` has left for `route`."""
        if self._limits.is_limited(route, now):
            self._under_way.setdefault(route, {})[job.id] = now, job.tokens

    def forget(self, job_id: str, route: str) -> None:
        """It has gone elsewhere, or has ended."""
        under_way = self._under_way.get(route)
        if under_way is not None:
            under_way.pop(job_id, None)
            if not under_way:
                del self._under_way[route]

    def is_hopeless(self, job: Job, now: float) -> bool:
        """Whether the limits of all its routes would make it wait beyond its deadline, so that no queue helps it."""
        limits, remaining = self._limits, job.deadline - now
        for route in job.routes:
            if not limits.is_booked(route, now) or limits.wait(route, _amounts(1, job.tokens), now) <= remaining:
                return False
        return bool(job.routes)

    def watch(self, routes: Iterable[str], wake: Callable[[], object]) -> None:
        """Call `wake` once when it may have become open whether one more leaves for one of `routes`."""
        self._limits.watch(routes, wake)

    def _still_under_way(self, route: str, now: float) -> dict[str, tuple[float, float]]:
        under_way = self._under_way.get(route, {})
        for id, (since, _) in list(under_way.items()):
            if now - since > LOST_AFTER or self._limits.has_asked(route, id):
                self.forget(id, route)
        return under_way


def _amounts(requests: float, tokens: float) -> Amounts:
    """The queue knows only the sum of input and output; of what a moment decides, half of each is near enough."""
    return Amounts(requests, tokens / 2, tokens / 2, 0)
