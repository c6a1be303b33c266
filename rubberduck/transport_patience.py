"""How long the pieces of an answer may take: a wait that lasts too long is ended by cancelling who waits."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any


class Patience:
    """Bounds each wait to `idle` seconds and all of them to the loop's time `until`; None is no bound.

    One timer serves all waits: it is not moved at each piece, but looks again when it fires, since pieces come by
    the thousand and hardly a wait is too long. As with `asyncio.timeout`, who cancels the task beside it is obeyed.

    A loop that was blocked itself finds the timer due and the piece there, both at once: then the piece counts.
    """

    __slots__ = ("_by", "_cancelling", "_has_fired", "_idle", "_loop", "_task", "_timer", "_until")

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: float | None, until: float | None) -> None:
        self._loop = loop
        self._idle = idle
        self._until = until
        self._by = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._has_fired = False
        self._timer: asyncio.Handle | None = None

    def begin(self) -> None:
        """The running task is going to wait."""
        task = self._task = asyncio.current_task()
        assert task is not None
        self._cancelling = task.cancelling()
        by = self._until
        if self._idle is not None:
            due = self._loop.time() + self._idle
            by = due if by is None or due < by else by
        assert by is not None
        self._by = by
        if self._timer is None:
            self._timer = self._loop.call_at(by, self._look)

    def has_ended_it(self) -> bool:
        """Whether the wait that just failed did so for us alone. Takes our cancellation back."""
        if not self._has_fired or self._task is None:
            return False
        self._has_fired = False
        return self._task.uncancel() <= self._cancelling

    def rest(self) -> None:
        """The wait is over."""
        if self._has_fired:  # and yet something came
            self.has_ended_it()
        self._task = None

    def end(self) -> None:
        """No wait is to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, *, is_sure: bool = False) -> None:
        self._timer = None
        if self._task is None:
            return
        if self._loop.time() < self._by:
            self._timer = self._loop.call_at(self._by, self._look)
        elif is_sure:
            self._has_fired = True
            self._task.cancel()
        else:  # it may have been woken by a piece in this very turn, and then goes first
            self._timer = self._loop.call_soon(partial(self._look, is_sure=True))
