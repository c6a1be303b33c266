"""Lets a call that waits look again, from time to time, whether it had better go elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import supervision as sup

EVERY = 1.0
"""Seconds between two looks."""


class Left(Exception):
    """The wait was given up, for something better has come."""


class SecondLook(sup.Interruption):
    """`async with SecondLook(clock, leaves):` ends the block with Left once `leaves()` says so.

    It is asked each second, on the loop of the task that waits, and must not wait itself.
    """

    __slots__ = ("_leaves",)
    error = Left

    def __init__(self, clock: sup.Clock, leaves: Callable[[], bool]) -> None:
        super().__init__(clock)
        self._leaves = leaves

    def _arm(self) -> None:
        self._call_at(self._clock.now() + EVERY, self._look)

    def _look(self) -> None:
        if self._task is None:
            return
        if self._leaves():
            self._interrupt()
        else:
            self._arm()
