"""One timer bounds every wait for a piece of an answer, and is no more than a look now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from rubberduck.transport_patience import Patience


class Timer:
    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Time:
    """A loop's time, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[Timer] = []
        self.made = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        self.made += 1
        self.timers.append(Timer(when, callback))
        return self.timers[-1]

    def call_soon(self, callback: Callable[[], None]) -> asyncio.Handle:
        return asyncio.get_running_loop().call_soon(callback)

    @property
    def armed(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.is_cancelled]

    def passes(self, seconds: float) -> None:
        self.now += seconds
        while due := [timer for timer in self.armed if timer.when <= self.now]:
            self.timers.remove(due[0])
            due[0].callback()


@pytest.fixture
def time() -> Time:
    return Time()


def patience(time: Any, idle: float | None = None, until: float | None = None) -> Patience:
    return Patience(time, idle, until)


async def wait(it: Patience, time: Time, seconds: float) -> bool:
    """Wait for so long at most; whether it was ended before."""
    it.begin()
    try:
        time.passes(seconds)
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        if not it.has_ended_it():
            raise
        return True
    finally:
        it.rest()
    return False


async def test_a_wait_that_is_too_long_is_ended_and_its_task_is_not_left_cancelled(time: Time) -> None:
    it, task = patience(time, idle=5), asyncio.current_task()
    assert await wait(it, time, 5)
    assert task is not None
    assert task.cancelling() == 0


async def test_a_thousand_waits_make_hardly_any_timers(time: Time) -> None:
    it = patience(time, idle=5)
    for _ in range(1000):
        assert not await wait(it, time, 0.01)
    assert time.made <= 4
    assert await wait(it, time, 5)


async def test_each_wait_has_the_whole_time(time: Time) -> None:
    it = patience(time, idle=5)
    for _ in range(10):
        assert not await wait(it, time, 4.9)
        time.passes(7)  # nobody waits: the reader is busy
    assert await wait(it, time, 5)


async def test_all_waits_together_have_no_more_than_the_time_for_all(time: Time) -> None:
    it = patience(time, idle=5, until=110.0)
    assert not await wait(it, time, 4)
    assert not await wait(it, time, 4)
    assert await wait(it, time, 2)


async def test_without_a_bound_on_one_wait_the_time_for_all_holds(time: Time) -> None:
    it = patience(time, until=110.0)
    assert not await wait(it, time, 9.9)
    assert await wait(it, time, 0.1)


async def test_who_cancels_the_task_in_the_same_moment_is_obeyed(time: Time) -> None:
    async def story() -> None:
        it, task = patience(time, idle=5), asyncio.current_task()
        assert task is not None
        it.begin()
        try:
            task.cancel()
            time.passes(5)
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            assert not it.has_ended_it()
            assert task.cancelling() == 1
            raise

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(story())


async def test_a_piece_that_comes_all_the_same_leaves_nothing_cancelled(time: Time) -> None:
    it, task = patience(time, idle=5), asyncio.current_task()
    assert task is not None
    it.begin()
    time.passes(5)
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass  # a carrier that keeps it to itself
    it.rest()
    assert task.cancelling() == 0


async def test_a_piece_that_came_while_the_loop_was_blocked_is_not_too_late(time: Time) -> None:
    """The timer was due and the piece was there, and the call was lost for having waited on a loop that stood still."""
    it, piece = patience(time, idle=5), asyncio.get_running_loop().create_future()
    it.begin()
    asyncio.get_running_loop().call_soon(piece.set_result, b"quack")
    asyncio.get_running_loop().call_soon(time.passes, 60)
    assert await piece == b"quack"
    it.rest()
    assert not await wait(it, time, 4.9)
    assert await wait(it, time, 5)


async def test_after_the_end_no_timer_is_left(time: Time) -> None:
    it = patience(time, idle=5)
    await wait(it, time, 1)
    it.end()
    it.end()
    assert time.armed == []
