"""Who may leave the queue for a route whose limits are used up."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from rubberduck.core.bookings import LOST_AFTER, Bookings
from rubberduck.core.fair_share import Job
from rubberduck.core.limiter import Amounts


class Told:
    """Limits as the test tells them: `left` tokens, of which each second brings one more, for the route r."""

    def __init__(self, left: float | None) -> None:
        self.left = left
        self.asked: set[str] = set()
        self.waiting = 0
        self.wakers: list[Callable[[], object]] = []

    def is_limited(self, route: str, now: float) -> bool:
        return route == "r" and self.left is not None

    def is_booked(self, route: str, now: float) -> bool:
        return self.waiting > 0

    def has_asked(self, route: str, job_id: str) -> bool:
        return job_id in self.asked

    def wait(self, route: str, amounts: Amounts, now: float) -> float:
        assert amounts.concurrency == 0, "slots are the queue's own affair"
        return 0.0 if self.left is None else max(0.0, amounts.tokens - self.left)

    def watch(self, routes: Iterable[str], wake: Callable[[], object]) -> None:
        self.wakers.append(wake)


def job(id: str, tokens: float = 10.0, deadline: float = 100.0, routes: str = "r") -> Job:
    return Job(id, tokens=tokens, routes=frozenset(routes), deadline=deadline)


def leave(bookings: Bookings, limits: Told, count: int, now: float = 0.0) -> int:
    """How many of `count` leave at once, before their limiter has heard of any."""
    gone = 0
    while gone < count and bookings.is_open("r", now):
        bookings.left(job(f"{now} {gone}"), "r", now)
        gone += 1
    return gone


@pytest.mark.parametrize(("left", "expected"), [(None, 50), (0.0, 1), (9.0, 1), (10.0, 1), (11.0, 2), (95.0, 10)])
def test_as_many_leave_at_once_as_have_their_tokens_and_one_who_books(left: float | None, expected: int) -> None:
    limits = Told(left)
    assert leave(Bookings(limits), limits, 50) == expected


def test_while_one_waits_in_the_limiter_nobody_leaves() -> None:
    limits = Told(1000.0)
    limits.waiting = 1
    bookings = Bookings(limits)
    assert not bookings.is_open("r", 0.0)
    assert bookings.is_open("other", 0.0)
    limits.waiting = 0
    assert bookings.is_open("r", 0.0)


def test_what_the_limiter_has_heard_of_is_not_counted_twice() -> None:
    limits = Told(10.0)
    bookings = Bookings(limits)
    assert leave(bookings, limits, 50) == 1
    limits.asked.add("0.0 0")
    assert bookings.is_open("r", 0.0)


@pytest.mark.parametrize("is_told", [True, False])
def test_who_went_elsewhere_holds_nobody_back_for_long(is_told: bool) -> None:
    limits = Told(0.0)
    bookings = Bookings(limits)
    assert leave(bookings, limits, 50) == 1
    if is_told:
        bookings.forget("0.0 0", "r")
        assert bookings.is_open("r", 0.0)
    assert not bookings.is_open("r", LOST_AFTER) or is_told
    assert bookings.is_open("r", LOST_AFTER + 1e-6)
    assert not bookings._under_way


def test_no_queue_helps_who_would_be_too_late_on_every_route() -> None:
    limits = Told(0.0)
    bookings = Bookings(limits)
    assert not bookings.is_hopeless(job("it can book", 50.0, deadline=9.0), 0.0)
    limits.waiting = 1
    assert bookings.is_hopeless(job("late", 50.0, deadline=49.0), 0.0)
    assert not bookings.is_hopeless(job("in time", 50.0, deadline=50.0), 0.0)
    assert not bookings.is_hopeless(job("anywhere", 50.0, deadline=9.0, routes=""), 0.0)
