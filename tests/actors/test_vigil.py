"""The one timer that watches over an answer: it looks again, ends what is late, and knows when it was late itself."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from rubberduck.actors.calls.vigil import Vigil
from rubberduck.core.pulse import Pulse

T = TypeVar("T")


class Jumps(selectors.DefaultSelector):
    """Waits for nothing: its loop's time is what would have been waited for."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(timeout if timeout is None else 0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes while it has nothing to do, and when the test lets it stand still; then at once."""

    def __init__(self) -> None:
        self._jumps = Jumps()
        super().__init__(self._jumps)

    def time(self) -> float:
        return self._jumps.now

    def stand_still(self, seconds: float) -> None:
        self._jumps.now += seconds


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(coroutine)


def stand_still(seconds: float) -> None:
    """As if a callback of the loop took so long, or the machine were suspended."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, JumpingLoop)
    loop.stand_still(seconds)


class LoopClock:
    """The time of the running loop; counts the timers."""

    def __init__(self) -> None:
        self.armed = 0

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        self.armed += 1
        return asyncio.get_running_loop().call_at(when, callback)


def test_silence_ends_the_block_in_its_time() -> None:
    async def wait() -> None:
        clock = LoopClock()
        vigil = Vigil(clock, Pulse(clock.now(), first_token=0.02))
        with pytest.raises(TimeoutError):
            async with vigil:
                await asyncio.sleep(5)
        assert vigil.why == "did not begin in time"
        assert not vigil.was_stalled

    run(wait())


def test_without_limits_no_timer_is_arranged_and_a_chunk_arranges_none() -> None:
    async def talk(**limits: float) -> int:
        clock = LoopClock()
        pulse = Pulse(clock.now(), **limits)
        async with Vigil(clock, pulse):
            for _ in range(100):
                pulse.heard(1, clock.now())
                pulse.asks(clock.now())
        return clock.armed

    assert run(talk()) == 0
    assert run(talk(idle=15, first_token=10)) == 1


def test_who_cancels_the_task_from_outside_is_not_taken_for_a_limit() -> None:
    async def give_up() -> None:
        clock = LoopClock()

        async def wait() -> None:
            async with Vigil(clock, Pulse(clock.now(), first_token=5)):
                await asyncio.sleep(5)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(give_up())


def test_after_a_standstill_there_is_time_to_hear_what_came_meanwhile() -> None:
    async def lives_through_it() -> str:
        clock = LoopClock()
        pulse = Pulse(clock.now(), first_token=0.05, idle=5)
        vigil = Vigil(clock, pulse)
        async with vigil:
            stand_still(0.65)
            await asyncio.sleep(0.1)
            assert vigil.was_stalled
            return "heard"

    assert run(lives_through_it()) == "heard"


def test_who_stays_silent_after_a_standstill_is_given_up_without_blame() -> None:
    async def lives_through_it() -> bool:
        clock = LoopClock()
        vigil = Vigil(clock, Pulse(clock.now(), first_token=0.05))

        async def wait() -> None:
            async with vigil:
                stand_still(0.6)
                await asyncio.sleep(5)

        with pytest.raises(TimeoutError):
            await wait()
        return vigil.was_stalled

    assert run(lives_through_it())
