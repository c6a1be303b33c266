"""Watches over an answer as it comes, and ends the wait for it when it is late: one timer for all of its limits."""

from __future__ import annotations

import asyncio
import contextlib
from math import inf
from types import TracebackType
from typing import Any, Self

import supervision as sup
from rubberduck.core.pulse import Pulse

STALL = 0.5
"""Seconds by which our own loop may be late before a limit that ran out meanwhile is its fault, not the provider's."""


class Vigil:
    """`async with Vigil(clock, pulse):` ends the block with TimeoutError once the pulse is late.

    The timer is not moved at each sign of life, but looks again when it fires: a chunk costs no timer. If it fires much
    later than it was due, nothing could be heard meanwhile either: the provider gets that time once more, and if it
    stays silent `was_stalled` says that this proves nothing. The loop's own time tells, for a clock may be a test's.
    """

    __slots__ = ("_armed_for", "_cancelling", "_clock", "_is_over", "_loop", "_pulse", "_task", "_timer", "was_stalled")

    def __init__(self, clock: sup.Clock, pulse: Pulse) -> None:
        self._clock = clock
        self._pulse = pulse
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[Any] | None = None
        self._timer: sup.Timer | None = None
        self._armed_for = inf
        self._cancelling = 0
        self._is_over = False
        self.was_stalled = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task()
        self._cancelling = 0 if self._task is None else self._task.cancelling()
        self.look()
        return self

    def look(self) -> None:
        """Arrange the next look, or end the block. To be called when it may have become late earlier than before."""
        if self._task is None or self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock.now()
        due = self._pulse.due(now)
        if due <= now:
            self._is_over = True
            self._task.cancel()
        elif due < inf:
            self._armed_for = self._loop.time() + (due - now)
            self._timer = self._clock.call_at(due, self._fired)

    def _fired(self) -> None:
        """The timer's call, on whichever thread."""
        if asyncio._get_running_loop() is self._loop:
            self._look_again()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._look_again)

    def _look_again(self) -> None:
        late = self._loop.time() - self._armed_for
        if late > STALL:
            self._pulse.forgive(2 * late)  # what has passed unheard, and as much to hear what waits in the sockets
            self.was_stalled = True
        self.look()

    @property
    def why(self) -> str:
        """What the answer is late with."""
        return self._pulse.why(self._clock.now())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        # Somebody else may have cancelled the task too, and then it must stay cancelled.
        if self._is_over and task is not None and task.uncancel() <= self._cancelling:
            if kind is asyncio.CancelledError:
                raise TimeoutError from error
