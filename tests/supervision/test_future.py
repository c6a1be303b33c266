"""Futures: any thread may wait for one and any event loop may await it, for as long as somebody wants the answer."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, raising, started, wait_for_timer

import supervision as sup


def test_a_future_can_be_awaited_on_any_event_loop_and_fetched_by_any_thread(system, on_a_loop):
    ref = started(system, Obedient)
    future = ref.ask(1, block=False)

    async def awaiting():
        return await future

    assert on_a_loop(awaiting()) == 1
    assert asyncio.run(awaiting()) == 1
    assert future.get(timeout=0) == 1


def test_awaiting_does_not_block_the_loop(on_a_loop):
    future: sup.AskFuture[int] = sup.AskFuture()

    async def together():
        waiting = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        future.set(5)
        return await waiting

    assert on_a_loop(together()) == 5


async def _await(future: Any) -> Any:
    return await future


def test_the_first_answer_of_the_runtime_counts_and_a_second_set_raises():
    future: sup.AskFuture[int] = sup.AskFuture()
    assert future.settle(1)
    assert not future.settle(2)
    with pytest.raises(queue.Full):
        future.set(3)
    assert future.get() == 1


def test_an_answer_from_many_threads_at_once_is_given_once():
    future: sup.AskFuture[int] = sup.AskFuture()
    wins: list[bool] = []
    start = threading.Barrier(8)

    def answer(n: int) -> None:
        start.wait()
        wins.append(future.settle(n))

    threads = [threading.Thread(target=answer, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wins.count(True) == 1


def test_get_times_out_and_may_be_asked_again():
    future: sup.AskFuture[int] = sup.AskFuture()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)
    future.set(1)
    assert future.get(timeout=0) == 1


def test_waiting_on_a_scheduler_thread_is_refused_before_anything_is_sent(system):
    handle = system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient))
    a, b = system.whereis("a"), system.whereis("b")
    with pytest.raises(sup.BlockingInScheduler):
        a.ask(lambda actor: b.ask("hello"), timeout=30)
    assert b.ask(lambda actor: actor.seen, timeout=30) == []
    assert handle.count_children().get().active == 2


def test_a_finished_future_may_be_fetched_on_a_scheduler_thread(system):
    ref = started(system, Obedient)
    future: sup.AskFuture[int] = sup.AskFuture()
    future.set(3)
    assert ref.ask(lambda actor: future.get(), timeout=30) == 3


@pytest.mark.parametrize("how", ["get", "await"])
def test_derived_futures_work_both_ways(how, on_a_loop):
    one: sup.AskFuture[Any] = sup.AskFuture()
    two: sup.AskFuture[Any] = sup.AskFuture()
    foreign: pykka.ThreadingFuture[int] = pykka.ThreadingFuture()
    derived = {
        "map": (one.map(len), 3),
        "filter": (one.filter(lambda x: x > 1), [2, 3]),
        "reduce": (one.reduce(lambda x, y: x + y, 10), 16),
        "join": (one.join(two, foreign), [[1, 2, 3], 7, 8]),
        "chain": (one.map(sum).map(str), "6"),
    }
    one.set([1, 2, 3])
    two.set(7)
    foreign.set(8)
    for future, expected in derived.values():
        assert (future.get(timeout=30) if how == "get" else on_a_loop(_await(future))) == expected


def test_awaiting_a_derived_future_of_ours_takes_no_thread(on_a_loop):
    future: sup.AskFuture[int] = sup.AskFuture()
    mapped = future.map(lambda x: x + 1)
    before = threading.active_count()

    async def together():
        waiting = asyncio.ensure_future(_await(mapped))
        await asyncio.sleep(0)
        assert threading.active_count() == before
        future.set(1)
        return await waiting

    assert on_a_loop(together()) == 2


def test_a_foreign_hook_runs_outside_every_lock(on_a_loop, gate):
    future: sup.AskFuture[str] = sup.AskFuture()
    future.set_get_hook(lambda timeout: gate.wait(30) and "late")
    results: queue.Queue[Any] = queue.Queue()
    blocked = threading.Thread(target=lambda: results.put(future.get()))
    blocked.start()
    with pytest.raises(queue.Full):
        _set_twice(future)
    gate.set()
    blocked.join()
    assert results.get() == "late"
    assert on_a_loop(_await(future)) == "late"


def _set_twice(future: Any) -> None:
    future.set(1)
    raise AssertionError("a future with a hook takes no answer")


def test_join_has_one_time_limit_for_all(gate):
    waits: list[float | None] = []
    never: list[sup.AskFuture[Any]] = []
    for _ in range(3):
        future: sup.AskFuture[Any] = sup.AskFuture()
        future.set_get_hook(lambda timeout: waits.append(timeout))
        never.append(future)
    never[0].join(*never[1:]).get(timeout=1.0)
    assert waits == sorted(waits, reverse=True)
    assert all(0 <= timeout <= 1.0 for timeout in waits)


def test_an_error_is_raised_where_it_is_waited_for(system, on_a_loop):
    ref = started(system, Obedient, expected_errors=(Boom,))
    future = ref.ask(raising(Boom("boom")), block=False)
    with pytest.raises(Boom):
        future.get(timeout=30)
    with pytest.raises(Boom):
        on_a_loop(_await(future))


def test_a_cancelled_awaiter_has_its_message_skipped(system, on_a_loop, gate):
    ref = started(system, ObedientThread)
    ref.tell(lambda actor: gate.wait())

    async def ask_and_leave():
        asking = asyncio.ensure_future(_await(ref.ask("unwanted", block=False, timeout=60)))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])

    on_a_loop(ask_and_leave())
    gate.set()
    assert ref.ask(lambda actor: actor.seen, timeout=30) == []


def test_a_message_past_its_deadline_is_skipped(timed, clock, gate):
    ref = started(timed, ObedientThread)
    ref.tell(lambda actor: gate.wait())
    future = ref.ask("late", block=False, timeout=10)
    clock.advance(11)
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)
    gate.set()
    assert ref.ask(lambda actor: actor.seen, block=False).get(timeout=30) == []


def test_a_blocking_ask_times_out_by_the_systems_clock(timed, clock, gate, eventually):
    ref = started(timed, ObedientThread)
    ref.tell(lambda actor: gate.wait())
    outcome: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        try:
            outcome.put(ref.ask("hello", timeout=30))
        except pykka.Timeout as error:
            outcome.put(error)

    asking = threading.Thread(target=ask)
    asking.start()
    wait_for_timer(clock, 30)
    clock.advance(30)
    assert isinstance(outcome.get(timeout=30), pykka.Timeout)
    asking.join()


def test_an_answer_in_time_leaves_no_timer_behind(timed, clock, on_a_loop):
    ref = started(timed, Obedient)
    assert ref.ask("now", block=False, timeout=60).get(timeout=30) == "now"
    assert clock.next_at() is None


def test_a_late_answer_is_ignored_and_counted(timed, clock, gate, eventually):
    ref = started(timed, ObedientThread)
    entered = threading.Event()
    future = ref.ask(lambda actor: entered.set() or gate.wait(), block=False, timeout=1)
    entered.wait(30)
    clock.advance(2)
    gate.set()
    eventually(lambda: ref.name.late == 1)
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)


def test_a_failing_callback_disturbs_neither_the_answer_nor_the_one_who_gives_it():
    future: sup.AskFuture[int] = sup.AskFuture()
    future.on_done(lambda: 1 / 0)  # type: ignore[func-returns-value]
    future.set(1)
    assert future.get(timeout=0) == 1


def test_an_exception_keeps_the_traceback_it_was_given():
    future: sup.AskFuture[int] = sup.AskFuture()
    try:
        raise Boom("here")
    except Boom:
        future.set_exception(sys.exc_info())
    with pytest.raises(Boom, match="here"):
        future.get()


# -- circles ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair(system, obedient):
    """Two actors on either host that may have to wait for each other."""
    system.supervise(*(sup.ChildSpec(id, obedient, restart="temporary") for id in "abc"))
    return [system.whereis(id) for id in "abc"]


def waiting_for(ref: Any, message: Any) -> Any:
    """A message that makes the actor wait for `ref`'s answer to `message`, on whichever host."""

    def handler(actor: Any) -> Any:
        return ref.ask(message, block=False).get() if isinstance(actor, pykka.ThreadingActor) else _ask(ref, message)

    return handler


async def _ask(ref: Any, message: Any) -> Any:
    return await ref.ask(message, block=False)


def test_asking_oneself_is_an_error_at_once(pair):
    a, _, _ = pair
    with pytest.raises(sup.DeadlockError, match="root/a waits for root/a"):
        a.ask(waiting_for(a, "never"), timeout=30)


def test_a_blocking_ask_of_oneself_is_an_error_at_once_and_nothing_is_sent(system, obedient):
    ref = started(system, obedient, expected_errors=(sup.DeadlockError,))
    with pytest.raises(sup.DeadlockError):
        ref.ask(lambda actor: ref.ask("never"), timeout=30)
    assert ref.ask(lambda actor: actor.seen, timeout=30) == []


def test_a_circle_of_three_is_an_error_at_once(pair):
    a, b, c = pair
    with pytest.raises(sup.DeadlockError, match="root/c waits for root/a"):
        a.ask(waiting_for(b, waiting_for(c, waiting_for(a, "never"))), timeout=30)


def test_a_circle_through_an_owed_reply_is_an_error_at_once(pair):
    a, b, _ = pair
    owed = threading.Event()
    b.tell(waiting_for(a, lambda actor: actor.owe() and owed.set()))
    assert owed.wait(30)
    with pytest.raises(sup.DeadlockError):
        a.ask(waiting_for(b, "never"), timeout=30)


def test_passing_on_the_future_of_a_self_ask_is_legal(pair):
    a, _, _ = pair
    assert a.ask(lambda actor: a.ask("later", block=False), timeout=30).get(timeout=30) == "later"


def test_a_derived_future_hides_no_circle(pair):
    a, _, _ = pair

    def through_map(actor: Any) -> Any:
        mapped = a.ask("never", block=False).map(str)
        return mapped.get() if isinstance(actor, pykka.ThreadingActor) else _await(mapped)

    with pytest.raises(sup.DeadlockError):
        a.ask(through_map, timeout=30)


def test_work_that_a_handler_left_running_is_in_no_circle(system):
    """A task started by a handler was taken for the handler, so that an answerable ask was refused."""
    system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient))
    a, b = system.whereis("a"), system.whereis("b")
    asked = threading.Event()

    async def ask_back(actor):
        asked.set()
        await go.wait()
        return await a.ask("answerable", block=False)

    async def leave_a_task(actor):
        actor.task = asyncio.create_task(_ask(b, ask_back))

    async def result(actor):
        return await actor.task

    go = asyncio.Event()
    a.ask(leave_a_task, timeout=30)
    assert asked.wait(30)

    async def open_the_gate(actor):
        go.set()

    a.ask(open_the_gate, timeout=30)
    assert a.ask(lambda actor: actor.task, block=False).get(timeout=30) is not None
    assert _eventually_done(a) == "answerable"


def _eventually_done(ref: Any) -> Any:
    finished: queue.Queue[Any] = queue.Queue()
    ref.tell(lambda actor: actor.task.add_done_callback(lambda task: finished.put(task.result())))
    return finished.get(timeout=30)


def test_an_abandoned_life_that_still_waits_is_in_no_circle(system, gate):
    system.supervise(sup.ChildSpec("a", ObedientThread), sup.ChildSpec("b", ObedientThread))
    a, b = system.whereis("a"), system.whereis("b")
    entered = threading.Event()
    a.tell(waiting_for(b, lambda actor: entered.set() or gate.wait() or waiting_for(a, "answerable")(actor)))
    assert entered.wait(30)
    system.kill(a)
    a.ask("the next life", timeout=30)
    future = b.ask(waiting_for(a, "answerable"), block=False)
    gate.set()
    assert future.get(timeout=30) == "answerable"
