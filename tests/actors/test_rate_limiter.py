"""The limiter's actor through its messages: granting, waiting, giving back, and never fuller after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from rubberduck.actors.rate_limiter import (
    Cancel,
    CheckRate,
    Commit,
    GetStats,
    Penalise,
    RateLimiterActor,
    Reserve,
    TurnAway,
)
from rubberduck.core.concurrency import Concurrency
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait
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
    assert [future.get(timeout=30) for future in futures[:3]] == [Granted("0"), Granted("1"), Granted("2")]
    assert waiting(bucket) == 1
    clock.advance(2)
    assert futures[3].get(timeout=30) == Granted("3")


def test_a_wait_past_the_deadline_is_refused_at_once(bucket: Any) -> None:
    for number in range(2):
        bucket.ask(Reserve(str(number)))
    assert bucket.ask(Reserve("late", deadline=1.0)) == Refused("late", "past_deadline", 2)
    assert bucket.ask(Reserve("big", Amounts(requests=3))) == Refused("big", "never_fits", None)


def test_a_slot_that_comes_free_goes_to_who_waits_longest(start_actor: Any) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    first, second, third = (limiter.ask(Reserve(name), block=False) for name in "abc")
    assert first.get(timeout=30) == Granted("a")
    assert limiter.ask(Commit("a", ONE)) is True
    assert second.get(timeout=30) == Granted("b")
    assert limiter.ask(Cancel("b")) is True
    assert third.get(timeout=30) == Granted("c")
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
    assert futures[3].get(timeout=30) == Granted("3")


def test_a_penalty_stops_all_until_it_is_over(start_actor: Any, clock: ManualClock) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    limiter.ask(Penalise(5))
    future = limiter.ask(Reserve("a"), block=False)
    clock.advance(4.9)
    assert waiting(limiter) == 1
    clock.advance(0.2)
    assert future.get(timeout=30) == Granted("a")


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


def two_keys(start_actor: Any, options: LimiterOptions) -> Any:
    concurrency = Concurrency(options.max_concurrency)
    return start_actor(RateLimiterActor, "openai", options, keys=2, concurrency_of=lambda model: concurrency)


def test_each_key_has_books_of_its_own_and_the_slots_are_common(start_actor: Any, clock: ManualClock) -> None:
    limiter = two_keys(start_actor, BUCKET)
    assert [limiter.ask(Reserve(f"{key}{number}", key=key)).id for key in (0, 1) for number in (1, 2)]
    assert [limiter.ask(GetStats(key)).tokens for key in (None, 0, 1)] == [0, 0, 0]
    assert limiter.ask(Cancel("11", key=1)) is True
    assert [limiter.ask(GetStats(key)).tokens for key in (None, 0, 1)] == [1, 0, 1]
    assert isinstance(limiter.ask(CheckRate()), Granted)
    assert limiter.ask(CheckRate()).retry_after == 2
    with pytest.raises(InvalidRequest):
        limiter.ask(Reserve("x", key=2))


def test_a_slot_of_one_key_goes_to_who_waits_with_another(start_actor: Any, clock: ManualClock) -> None:
    limiter = two_keys(start_actor, SLOTS)
    assert limiter.ask(Reserve("a", ttl=5.0)) == Granted("a")
    second, third = (limiter.ask(Reserve(name, key=1), block=False) for name in "bc")
    assert waiting(limiter) == 2
    limiter.ask(Commit("a", ONE))
    assert second.get(timeout=30) == Granted("b")
    limiter.ask(Commit("b", ONE, key=1))
    assert third.get(timeout=30) == Granted("c")


def test_a_slot_lost_with_one_key_goes_to_who_waits_with_another(start_actor: Any, clock: ManualClock) -> None:
    limiter = two_keys(start_actor, SLOTS)
    limiter.ask(Reserve("lost", ttl=5.0))
    second = limiter.ask(Reserve("b", key=1), block=False)
    assert waiting(limiter) == 1
    clock.advance(5)
    assert second.get(timeout=30) == Granted("b")


def test_who_waits_for_a_key_and_a_model_is_turned_away_and_nobody_else(start_actor: Any, clock: ManualClock) -> None:
    limiter = two_keys(start_actor, BUCKET)
    for key in (0, 1):
        limiter.ask(Penalise(60.0, key=key))
    names = [("a", "m", 0), ("b", "n", 0), ("c", "m", 1)]
    futures = [limiter.ask(Reserve(id, model=model, key=key), block=False) for id, model, key in names]
    assert limiter.ask(TurnAway(0, "m")) == 1
    assert futures[0].get(timeout=30) == Refused("a", "key_quarantined", 0.0)
    assert (waiting(limiter), limiter.ask(TurnAway(0, "m"))) == (2, 0)
    assert (limiter.ask(TurnAway(0)), waiting(limiter)) == (1, 1)


def test_every_key_comes_back_no_fuller_than_it_was(start_actor: Any, clock: ManualClock, kill: Any) -> None:
    limiter = two_keys(start_actor, BUCKET)
    limiter.ask(Reserve("a", key=1))
    kill(limiter)
    assert [limiter.ask(GetStats(key)).tokens for key in (0, 1)] == [2, 1]
    assert limiter.ask(Commit("a", ONE, key=1)) is True


def test_who_hears_that_it_has_to_wait_keeps_what_comes_free_before_it_asks_again(start_actor: Any) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    assert limiter.ask(Reserve("out")) == Granted("out")
    assert isinstance(limiter.ask(Reserve("told", tells_wait=True)), Wait)
    later = limiter.ask(Reserve("later"), block=False)
    assert waiting(limiter) == 2
    limiter.ask(Commit("out", ONE))
    assert limiter.ask(Reserve("told")) == Granted("told")
    assert not later.done
    limiter.ask(Commit("told", ONE))
    assert later.get(timeout=30) == Granted("later")


def test_who_hears_that_it_has_to_wait_and_gives_up_leaves_the_line(start_actor: Any) -> None:
    limiter = start_actor(RateLimiterActor, "openai", SLOTS)
    limiter.ask(Reserve("out"))
    limiter.ask(Reserve("told", tells_wait=True))
    limiter.ask(Cancel("told"))
    later = limiter.ask(Reserve("later"), block=False)
    limiter.ask(Commit("out", ONE))
    assert later.get(timeout=30) == Granted("later")
