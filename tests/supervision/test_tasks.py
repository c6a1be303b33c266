"""Tasks under supervision: answered in any case, ended with their supervisor."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from tree_rig import Boom, wait_for_timer

import supervision as sup


class Lost(Exception):
    """What an asker hears whose task ended with its supervisor."""


@pytest.fixture
def calls(system) -> Any:
    system.supervise(sup.tasks("calls", max_children=3, lost=lambda reason: Lost(str(reason))))
    return system.whereis("calls")


async def double(x: int) -> int:
    return 2 * x


async def fail(error: BaseException) -> None:
    raise error


def never(started: threading.Event, ended: queue.Queue[str]) -> Any:
    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.put("ended")

    return work


@pytest.fixture
def stuck(calls) -> Any:
    """A task that runs until it is cancelled: its future, and what it says at its end."""
    started, ended = threading.Event(), queue.Queue[str]()
    future = calls.run(never(started, ended))
    assert started.wait(5)
    return future, ended


def test_a_task_answers_with_its_result(calls):
    assert calls.run(double, 21).get(timeout=5) == 42
    assert calls.count().get(timeout=5) == 0


def test_a_failure_goes_to_the_asker_and_harms_no_other(calls, stuck):
    with pytest.raises(Boom):
        calls.run(fail, Boom("boom")).get(timeout=5)
    assert calls.count().get(timeout=5) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_no_asker_is_ended_by_what_ended_its_task(calls, error):
    """An asker was handed the CancelledError itself, and ended as if somebody had cancelled it."""
    with pytest.raises(sup.ActorDeadError) as caught:
        calls.run(fail, error).get(timeout=5)
    assert caught.value.reason.type == type(error).__name__


def test_beyond_max_children_there_is_a_refusal(calls):
    started, ended = threading.Event(), queue.Queue[str]()
    futures = [calls.run(never(started, ended)) for _ in range(3)]
    assert calls.run(double, 1).get(timeout=5) == sup.MaxChildren()
    assert not any(future.done for future in futures)


def test_a_task_that_nobody_waits_for_is_cancelled(calls, on_a_loop):
    started, ended = threading.Event(), queue.Queue[str]()

    async def ask_and_leave():
        future = calls.run(never(started, ended))
        asking = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        while not started.is_set():
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])

    on_a_loop(ask_and_leave())
    assert ended.get(timeout=5) == "ended"


async def _await(future: Any) -> Any:
    return await future


def test_a_task_may_answer_before_its_end(calls):
    go_on: queue.Queue[Any] = queue.Queue()

    async def early(reply: sup.Reply) -> None:
        reply.set("early")
        go_on.put("went on")

    assert calls.ask(sup.RunTask(early, (), takes_reply=True), timeout=5) == "early"
    assert go_on.get(timeout=5) == "went on"


def test_a_killed_task_supervisor_answers_for_its_tasks_and_ends_them(system, calls, stuck):
    future, ended = stuck
    system.kill(calls)
    with pytest.raises(Lost, match="killed"):
        future.get(timeout=5)
    assert ended.get(timeout=5) == "ended"
    assert calls.run(double, 1).get(timeout=5) == 2


def test_an_orderly_stop_cancels_the_tasks_and_answers(system, stuck):
    future, ended = stuck
    system.stop()
    with pytest.raises(Lost, match="shutdown"):
        future.get(timeout=5)
    assert ended.get(timeout=5) == "ended"


def test_a_task_that_ignores_its_cancellation_holds_the_stop_up_no_longer_than_allowed(timed, clock, caplog):
    timed.supervise(sup.tasks("calls", shutdown=3.0))
    started, release = threading.Event(), asyncio.Event()
    inside: queue.Queue[Any] = queue.Queue()

    async def deaf() -> None:
        inside.put(asyncio.get_running_loop())
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    future = timed.whereis("calls").run(deaf)
    assert started.wait(5)
    stopping = threading.Thread(target=timed.stop)
    stopping.start()
    wait_for_timer(clock, 3.0)
    clock.advance(3.0)
    with pytest.raises(sup.ActorDeadError):
        future.get(timeout=5)
    inside.get(timeout=5).call_soon_threadsafe(release.set)
    stopping.join(5)
    assert "ignored their cancellation" in caplog.text


def test_a_task_may_ask_its_own_supervisor(calls):
    async def ask_back() -> int:
        count: int = await calls.count()
        return count

    assert calls.run(ask_back).get(timeout=5) == 1
