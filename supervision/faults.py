"""Named places in an actor's life where a test can make something go wrong. Free where nothing is armed."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

POINTS = frozenset(
    {"before_start", "after_start", "before_handle", "after_handle_before_reply", "in_on_stop", "before_exit_emit"}
)


class InjectedFault(Exception):
    """What the action "raise" raises, unless it is given an exception of its own."""


@dataclass
class _Plan:
    point: str
    action: Any
    nth: int | None
    probability: float | None
    path: str | None
    seen: int = 0
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def due(self, point: str, path: str) -> bool:
        if point != self.point or (self.path is not None and path != self.path and not path.endswith("/" + self.path)):
            return False
        self.seen += 1
        if self.nth is not None and self.seen != self.nth:
            return False
        return self.probability is None or self.rng.random() < self.probability


armed: list[_Plan] = []
"""What is to go wrong; hosts look only whether this is empty."""
_lock = threading.Lock()


@contextmanager
def fault(
    point: str,
    action: str | BaseException | Callable[[str], Any] = "raise",
    *,
    nth: int | None = None,
    probability: float | None = None,
    path: str | None = None,
) -> Iterator[_Plan]:
    """While the block runs, do `action` whenever an actor passes `point`.

    `action` is "raise", "hang", an exception to raise, or a function of the path. `nth` counts from 1;
    `path` is an actor's full path or the end of it.
    """
    if point not in POINTS:
        raise ValueError(f"{point!r} is no fault point; there are {', '.join(sorted(POINTS))}")
    plan = _Plan(point, action, nth, probability, path)
    armed.append(plan)
    try:
        yield plan
    finally:
        armed.remove(plan)


async def hit(point: str, path: str) -> None:
    """An actor at `path` passes `point`."""
    with _lock:
        due = [plan for plan in armed if plan.due(point, path)]
    for plan in due:
        if isinstance(plan.action, BaseException):
            raise plan.action
        if plan.action == "raise":
            raise InjectedFault(f"{point} of {path}")
        if plan.action == "hang":
            await _hang()
        elif callable(plan.action):
            plan.action(path)


async def _hang() -> None:
    """Never come back, on a loop or in a thread."""
    if asyncio._get_running_loop() is None:
        threading.Event().wait()
    await asyncio.get_running_loop().create_future()
