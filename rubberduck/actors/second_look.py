"""Lets a call that waits look again, from time to time, whether it had better go elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import supervision as sup

EVERY = 1.0
"""Seconds between two looks."""


class Left(Exception):
    """The wait was given up, for something better has come."""


class SecondLook:
    """`async with SecondLook(clock, leaves):` ends the block with Left once `leaves()` says so.

    It is asked each second, on the loop of the task that waits, and must not wait itself.
    """

    def __init__(self, clock: sup.Clock, leaves: Callable[[], bool]) -> None:
        self._clock = clock
        self._leaves = leaves
        self._timer: Any = None
        self._has_left = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._wait()
        return self

    def _wait(self) -> None:
        self._timer = self._clock.call_at(self._clock.now() + EVERY, self._due)

    def _due(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        if self._task is None:
            return
        if self._leaves():
            self._has_left = True
            self._task.cancel()
        else:
            self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        # Somebody else may have cancelled the task too, and then it must stay cancelled.
        if self._has_left and task is not None and task.uncancel() <= self._cancelling:
            if kind is asyncio.CancelledError:
                raise Left from error
