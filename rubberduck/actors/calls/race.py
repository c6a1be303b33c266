"""Attempts side by side for one answer: whoever speaks first wins, the other is cancelled and paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import supervision as sup
from rubberduck.actors.calls.attempts import AttemptRun, NotBegun
from rubberduck.actors.calls.call import Given
from rubberduck.errors import Cancelled, RubberDuckError
from rubberduck.types import Usage

Answer = tuple[Given, Usage]
Result = Answer | NotBegun | RubberDuckError
"""What became of an attempt: an answer, or how it was refused or failed."""

TIME_TO_LOSE = 1.0
"""Real seconds that the answer waits for the loser to give back what it holds. Who needs longer does so alone."""

_stragglers: set[asyncio.Task[Any]] = set()


class Race:
    """The attempts of one call that are out at once. Each runs in a task of its own, started and ended here.

    `send(race, run)` makes an attempt and returns its result; it raises only what ends the whole call.
    """

    __slots__ = ("_send", "_tasks", "_winner")

    def __init__(self, send: Callable[[Race, AttemptRun], Awaitable[Result]]) -> None:
        self._send = send
        self._tasks: dict[asyncio.Task[Result], AttemptRun] = {}
        self._winner: AttemptRun | None = None

    def start(self, run: AttemptRun) -> None:
        """Let one more attempt run."""
        run.task = asyncio.create_task(self._enter(run))
        self._tasks[run.task] = run

    async def _enter(self, run: AttemptRun) -> Result:
        return await self._send(self, run)

    @property
    def is_won(self) -> bool:
        """Whether one of them has begun to answer."""
        return self._winner is not None

    @property
    def is_over(self) -> bool:
        """Whether nobody is left whose result is still to come."""
        return not self._tasks

    def claim(self, run: AttemptRun) -> None:
        """`run` has something to say. Raises Cancelled if another one spoke before it."""
        if self._winner is None:
            self._winner = run
            self._cancel(but=run)
        elif self._winner is not run:
            raise Cancelled("another attempt has begun to answer before this one")

    async def wait(self, clock: sup.Clock, until: float | None = None) -> tuple[AttemptRun, Result] | None:
        """The next result that counts, or None at `until`, or if only losers were left."""
        while self._tasks:
            try:
                async with sup.TimeLimit(clock, until):
                    done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                return None
            task = next(iter(done))
            run = self._tasks.pop(task)
            if self._winner is None or self._winner is run:
                return run, task.result()
        return None

    async def end(self) -> None:
        """Cancel who is still out, and let them give back what they hold."""
        self._cancel()
        if self._tasks:
            _, slow = await asyncio.wait(self._tasks, timeout=TIME_TO_LOSE)
            for task in slow:
                _stragglers.add(task)
                task.add_done_callback(_stragglers.discard)

    def _cancel(self, but: AttemptRun | None = None) -> None:
        for task, run in self._tasks.items():
            if run is not but:
                run.outrun()
                task.cancel()
