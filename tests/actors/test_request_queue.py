"""The queue's actor through its messages: turns for calls, requests to be pulled, and its memory after a restart."""

from __future__ import annotations

from typing import Any

import pytest

from rubberduck.actors.request_queue import (
    Cancel,
    Close,
    Done,
    Enqueue,
    Moved,
    ProcessNext,
    Queued,
    RequestQueueActor,
    Stats,
    TakeTurn,
    Turn,
)
from rubberduck.core.request_queue import Accepted, Job, QueueOptions, Rejected
from rubberduck.errors import InvalidRequest
from supervision.errors import ActorDeadError
from supervision.testing import ManualClock


@pytest.fixture
def queue(start_actor: Any) -> Any:
    return start_actor(RequestQueueActor, QueueOptions(max_queue_size=5), {"a": 1, "b": 1}.__getitem__)


def job(id: str, routes: str = "a", **about: Any) -> Job:
    return Job(id, routes=frozenset(routes), **about)


def take(queue: Any, *jobs: Job) -> list[Any]:
    return [queue.ask(TakeTurn(job), block=False) for job in jobs]


def test_a_free_slot_is_a_turn_at_once_and_it_is_held_until_done(queue: Any) -> None:
    first, second = take(queue, job("1"), job("2"))
    assert first.get(timeout=30) == Turn("1", "a", 0.0)
    assert queue.ask(Stats()).depth["normal"] == 1
    queue.ask(Done("1"))
    assert second.get(timeout=30).id == "2"


def test_who_can_go_elsewhere_does_not_wait_for_the_one_that_is_busy(queue: Any) -> None:
    turns = take(queue, job("1"), job("2"), job("3", "ab"))
    assert turns[2].get(timeout=30).route == "b"
    assert not turns[1].done


def test_a_call_that_moves_takes_its_slot_along(queue: Any) -> None:
    take(queue, job("1"))[0].get(timeout=30)
    waiting = take(queue, job("2", "a"), job("3", "b"))
    assert waiting[1].get(timeout=30).route == "b"
    queue.ask(Moved("1", "b"))
    assert waiting[0].get(timeout=30).route == "a"
    for id in "123":
        queue.ask(Done(id))
    assert queue.ask(Stats()).in_process == 0


def test_repeating_a_question_keeps_the_turn(queue: Any) -> None:
    assert [take(queue, job("1"))[0].get(timeout=30).route for _ in range(2)] == ["a", "a"]


def test_a_deadline_is_told_on_time(queue: Any, clock: ManualClock) -> None:
    _, late = take(queue, job("1"), job("2", deadline=5.0))
    queue.ask(Stats())
    clock.advance(4.9)
    assert queue.ask(Stats()).depth["normal"] == 1
    clock.advance(0.1)
    assert late.get(timeout=30) == Rejected("2", "expired", None)


def test_a_full_queue_refuses_with_a_time(queue: Any) -> None:
    futures = take(queue, *[job(str(number)) for number in range(7)])
    refusal = futures[6].get(timeout=30)
    assert (refusal.reason, refusal.retry_after > 0) == ("full", True)


def test_who_is_evicted_is_told_whatever_evicted_it(start_actor: Any) -> None:
    queue = start_actor(RequestQueueActor, QueueOptions(max_queue_size=1, when_full="evict_lower"), lambda _: 1)
    _, low = take(queue, job("1"), job("2", klass="low"))
    assert isinstance(queue.ask(Enqueue("pulled", "normal")), Accepted)
    refusal = low.get(timeout=30)
    assert (refusal.id, refusal.reason) == ("2", "evicted")
    assert refusal.retry_after > 0
    take(queue, job("3", klass="high"))
    assert queue.ask(ProcessNext()) is None


def test_a_cancelled_call_leaves_its_place(queue: Any) -> None:
    _, second, third = take(queue, job("1"), job("2"), job("3"))
    assert queue.ask(Cancel("2")) is True
    assert queue.ask(Cancel("2")) is False
    queue.ask(Done("1"))
    assert third.get(timeout=30).id == "3"
    assert not second.done


def test_requests_are_handed_out_by_class_and_in_order(queue: Any) -> None:
    for text, priority in (("l", "low"), ("n1", "normal"), ("h", "high"), ("n2", "normal")):
        assert isinstance(queue.ask(Enqueue(text, priority)), Accepted)
    handed = [queue.ask(ProcessNext()) for _ in range(5)]
    assert handed[-1] is None
    texts = [each.request for each in handed[:-1] if isinstance(each, Queued)]
    assert sorted(texts) == ["h", "l", "n1", "n2"]
    assert texts.index("n1") < texts.index("n2")


def test_after_a_restart_slots_in_use_and_requests_are_remembered(queue: Any, kill: Any) -> None:
    take(queue, job("1"))[0].get(timeout=30)
    for text in ("first", "second"):
        queue.ask(Enqueue(text))
    kill(queue)
    again, behind = take(queue, job("1"), job("2"))
    assert again.get(timeout=30) == Turn("1", "a", 0.0)
    assert [queue.ask(ProcessNext()).request for _ in range(2)] == ["first", "second"]
    assert not behind.done
    queue.ask(Done("1"))
    assert behind.get(timeout=30).id == "2"


def test_after_a_restart_those_who_ask_again_get_the_place_of_their_arrival(queue: Any, kill: Any) -> None:
    take(queue, job("0"))[0].get(timeout=30)
    early, late = job("early", enqueued_at=1.0), job("late", enqueued_at=2.0)
    lost = take(queue, early, late)
    queue.ask(Stats())
    kill(queue)
    for future in lost:
        with pytest.raises(ActorDeadError):
            future.get(timeout=30)
    after = dict(zip(("late", "early"), take(queue, late, early), strict=True))
    queue.ask(Done("0"))
    assert after["early"].get(timeout=30).id == "early"
    assert not after["late"].done


def test_after_a_restart_a_full_queue_still_has_room_for_all_who_waited(queue: Any, kill: Any) -> None:
    """Who came first after the crash took the places of those who had waited, and they were refused as too many."""
    jobs = [job(str(number), enqueued_at=float(number)) for number in range(6)]
    lost = take(queue, *jobs)
    lost[0].get(timeout=30)
    queue.ask(Stats())
    kill(queue)
    assert queue.ask(TakeTurn(job("new", routes="b", deadline=9.0))).reason == "full"
    again = take(queue, *reversed(jobs))[::-1]
    for number in range(6):
        assert again[number].get(timeout=30).id == str(number)
        queue.ask(Done(str(number)))


def test_a_turn_that_comes_before_its_call_asks_again_is_kept_for_it(queue: Any, kill: Any) -> None:
    take(queue, job("0"))[0].get(timeout=30)
    take(queue, job("1"), job("2"))
    queue.ask(Stats())
    kill(queue)
    queue.ask(Done("0"))
    second, first = take(queue, job("2"), job("1"))
    assert first.get(timeout=30).route == "a"
    assert not second.done
    queue.ask(Done("1"))
    assert second.get(timeout=30).route == "a"


def test_who_is_away_after_a_restart_hears_later_what_became_of_it(
    start_actor: Any, kill: Any, clock: ManualClock
) -> None:
    options = QueueOptions(max_queue_size=2, when_full="evict_lower")
    queue = start_actor(RequestQueueActor, options, {"a": 1}.__getitem__)
    jobs = [job("0"), job("evicted", klass="low"), job("late", deadline=5.0)]
    take(queue, *jobs)
    queue.ask(Stats())
    kill(queue)
    take(queue, job("urgent", klass="high"))
    queue.ask(Stats())
    clock.advance(6.0)
    _, evicted, late = take(queue, *jobs)
    assert evicted.get(timeout=30).reason == "evicted"
    assert late.get(timeout=30) == Rejected("late", "expired", None)


def test_who_gave_up_while_it_was_away_leaves_nothing_behind(queue: Any, kill: Any) -> None:
    take(queue, job("0"), job("1"), job("2"))
    queue.ask(Stats())
    kill(queue)
    assert queue.ask(Cancel("1")) is True
    queue.ask(Done("1", ok=False))
    queue.ask(Done("0"))
    for message in (Cancel("2"), Done("2", ok=False)):  # it holds a slot by now, and gives back both
        queue.ask(message)
    assert take(queue, job("3"))[0].get(timeout=30) == Turn("3", "a", 0.0)


def test_requests_to_be_pulled_keep_their_place_over_a_restart(queue: Any, kill: Any) -> None:
    for text in ("first", "second"):
        queue.ask(Enqueue(text))
    kill(queue)
    queue.ask(Enqueue("third"))
    kill(queue)
    assert [queue.ask(ProcessNext()).request for _ in range(3)] == ["first", "second", "third"]


def test_a_closed_queue_turns_all_away(queue: Any) -> None:
    _, waits = take(queue, job("1"), job("2"))
    assert queue.ask(Close()) == 1
    assert waits.get(timeout=30) == Rejected("2", "shutdown", None)
    assert queue.ask(TakeTurn(job("3", "b"))) == Rejected("3", "shutdown", None)


def test_a_message_that_it_does_not_know_restarts_nobody(queue: Any) -> None:
    for message in ("next", None, Enqueue("x", "urgent")):  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            queue.ask(message)
    assert queue.name.restarts == 0


def test_a_call_whose_time_will_not_do_hears_it_while_others_wait(start_actor: Any, clock: ManualClock) -> None:
    queue = start_actor(RequestQueueActor, QueueOptions(), lambda _: 1)
    for number in range(24):
        take(queue, job(str(number)))[0].get(timeout=30)
        clock.advance(1.0)
        queue.ask(Done(str(number)))
    take(queue, job("busy"))[0].get(timeout=30)
    late, fine = take(queue, job("late", deadline=clock.now() + 1.5), job("fine", deadline=clock.now() + 60.0))
    clock.advance(1.0)
    queue.ask(Done("busy"))
    assert fine.get(timeout=30).id == "fine"
    refusal = late.get(timeout=30)
    assert isinstance(refusal, Rejected)
    assert refusal.reason == "infeasible"
    assert queue.ask(Stats()).infeasible == 1


def test_the_number_of_slots_is_read_anew_each_time(start_actor: Any) -> None:
    slots = {"a": 3}
    queue = start_actor(RequestQueueActor, QueueOptions(), slots.__getitem__)
    take(queue, job("1"))[0].get(timeout=30)
    slots["a"] = 1
    second = take(queue, job("2"))[0]
    assert queue.ask(Stats()).depth["normal"] == 1
    slots["a"] = 2
    queue.ask(Done("unknown"))
    assert second.get(timeout=30).id == "2"


def test_a_call_waits_for_the_busy_route_rather_than_for_the_blocked_one(start_actor: Any) -> None:
    blocked: set[str] = {"b"}
    queue = start_actor(RequestQueueActor, QueueOptions(), {"a": 1, "b": 9}.__getitem__, blocked.__contains__)
    assert take(queue, job("1", "ab"))[0].get(timeout=30).route == "a"
    second = take(queue, job("2", "ab"))[0]
    assert queue.ask(Stats()).depth["normal"] == 1
    queue.ask(Done("1"))
    assert second.get(timeout=30).route == "a"
    assert take(queue, job("3", "b"))[0].get(timeout=30).route == "b", "who has no other choice is to hear why"


class OneBooks:
    """The limits of a provider for which somebody waits, until the test says otherwise."""

    def __init__(self) -> None:
        self.is_full = True
        self.wakers: list[Any] = []

    def is_limited(self, route: str, now: float) -> bool:
        return True

    def is_booked(self, route: str, now: float) -> bool:
        return self.is_full

    def has_asked(self, route: str, job_id: str) -> bool:
        return True

    def wait(self, route: str, amounts: Any, now: float) -> float:
        return 0.0

    def watch(self, routes: Any, wake: Any) -> None:
        self.wakers.append(wake)


@pytest.mark.parametrize("tells", [True, False])
def test_who_is_held_back_goes_when_the_limiter_tells_or_else_a_moment_later(
    start_actor: Any, clock: ManualClock, tells: bool
) -> None:
    limits = OneBooks()
    queue = start_actor(RequestQueueActor, QueueOptions(), lambda _: 5, lambda _: False, limits)
    turns = take(queue, job("1"), job("2", klass="high"))
    assert queue.ask(Stats()).depth == {"high": 1, "normal": 1, "low": 0}
    limits.is_full = False
    if tells:
        limits.wakers[0]()
    else:
        clock.advance(0.25)
    assert [turn.get(timeout=30).id for turn in turns] == ["1", "2"]
