"""The limiter's actor through its messages: granting, waiting, giving back, and never fuller after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from rubberduck.actors.rate_limiter import Cancel, CheckRate, Commit, GetStats, Penalise, RateLimiterActor, Reserve
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused
from rubberduck.errors import InvalidRequest, RateLimited
from supervision.testing import ManualClock

ONE = Amounts()
BUCKET = LimiterOptions(capacity=2, refill_rate=0.5, max_concurrency=10)
SLOTS = LimiterOptions(max_concurrency=1)


@pytest.fixture
def bucket(start_actor: Any) -> Any:
    return start_actor(RateLimiterActor, "openai", BUCKET)


def waiting(limiter: Any) -> int:
    return int(limiter.ask(GetStats()).waiting)


def test_check_rate_grants_until_the_bucket_is_empty_and_then_says_when(bucket: Any, clock: ManualClock) -> None:
    assert [type(bucket.ask(CheckRate())) for _ in range(2)] == [Granted] * 2
    refusal = bucket.ask(CheckRate())
    assert isinstance(refusal, RateLimited)
    assert (refusal.provider, refusal.retry_after) == ("openai", 2)
    clock.advance(2)
    assert isinstance(bucket.ask(CheckRate()), Granted)
    assert bucket.ask(CheckRate(5)).retry_after is None


def test_who_cannot_have_it_now_is_answered_when_it_can(bucket: Any, clock: ManualClock) -> None:
    futures = [bucket.ask(Reserve(str(number)), block=False) for number in range(4)]
    assert waiting(bucket) == 2
    clock.advance(2)
    assert [future.get(timeout=5) for future in futures[:3]] == [Granted("0"), Granted("1"), Granted("2")]
    assert waiting(bucket) == 1
    clock.advance(2)
    assert futures[3].get(timeout=5) == Granted("3")


def test_a_wait_past_the_deadline_is_refused_at_once(bucket: Any) -> None:
    for number in range(2):
        bucket.ask(Reserve(str(number)))
    assert bucket.ask(Reserve("late", deadline=1.0)) == Refused("late", "past_deadline", 2)
    assert bucket.ask(Reserve("big", Amounts(requests=3))) == Refused("big", "never_fits", None)


def test_a_slot_that_comes_free_goes_to_who_waits_longest(start_actor: Any) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    first, second, third = (limiter.ask(Reserve(name), block=False) for name in "abc")
    assert first.get(timeout=5) == Granted("a")
    assert limiter.ask(Commit("a", ONE)) is True
    assert second.get(timeout=5) == Granted("b")
    assert limiter.ask(Cancel("b")) is True
    assert third.get(timeout=5) == Granted("c")
    assert [limiter.ask(Commit("c", ONE)), limiter.ask(Commit("c", ONE))] == [True, False]
    assert limiter.ask(GetStats()).in_flight == 0


def test_asking_twice_with_one_id_charges_once(bucket: Any) -> None:
    assert [bucket.ask(Reserve("a")) for _ in range(3)] == [Granted("a")] * 3
    assert bucket.ask(GetStats()).tokens == 1


def test_who_no_longer_waits_takes_nothing(bucket: Any, clock: ManualClock) -> None:
    futures = [bucket.ask(Reserve(str(number)), block=False) for number in range(4)]
    assert waiting(bucket) == 2
    assert bucket.ask(Cancel("2")) is True
    clock.advance(2)
    assert futures[3].get(timeout=5) == Granted("3")


def test_a_penalty_stops_all_until_it_is_over(start_actor: Any, clock: ManualClock) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    limiter.ask(Penalise(5))
    future = limiter.ask(Reserve("a"), block=False)
    clock.advance(4.9)
    assert waiting(limiter) == 1
    clock.advance(0.2)
    assert future.get(timeout=5) == Granted("a")


def test_after_a_restart_it_is_never_fuller_than_before(bucket: Any, clock: ManualClock, kill: Any) -> None:
    bucket.ask(Reserve("a"))
    kill(bucket)
    stats = bucket.ask(GetStats())
    assert (stats.tokens, stats.in_flight) == (1, 1)
    assert bucket.ask(Reserve("a")) == Granted("a")
    assert bucket.ask(GetStats()).tokens == 1
    assert bucket.ask(Commit("a", ONE)) is True
    clock.advance(100)
    assert bucket.ask(GetStats()).tokens == 2


def test_after_a_restart_a_penalty_still_holds(bucket: Any, clock: ManualClock, kill: Any) -> None:
    bucket.ask(Penalise(5))
    clock.advance(2)
    kill(bucket)
    assert bucket.ask(GetStats()).blocked_for == 3


def test_it_publishes_its_books_for_those_who_peek(start_actor: Any, clock: ManualClock, kill: Any) -> None:
    published: list[tuple[int, Limiter]] = []
    limiter = start_actor(RateLimiterActor, "openai", BUCKET, publish=lambda *books: published.append(books))
    limiter.ask(Reserve("a", Amounts(requests=2)))
    assert published[-1][1].peek(ONE, clock.now()) == 2
    kill(limiter)
    limiter.ask(GetStats())
    assert len(published) == 2
    assert published[-1][1].peek(ONE, clock.now()) == 2


def test_a_message_that_it_does_not_know_restarts_nobody(bucket: Any) -> None:
    for message in ("take", None, CheckRate(-1)):
        with pytest.raises(InvalidRequest):
            bucket.ask(message)
    assert bucket.name.restarts == 0
