"""What a test left behind."""

from __future__ import annotations

import asyncio
import threading
import time

import pykka

from supervision.hosting.driving import drivers
from supervision.hosting.scheduler import Scheduler, _schedulers

ALWAYS_THERE = ("supervision-default",)
"""The thread of actors that were started outside any system; it lives as long as the interpreter."""


def leak_check(timeout: float = 2.0, *, allow: tuple[str, ...] = ALWAYS_THERE) -> None:
    """Raise AssertionError that names the actors, tasks and threads of this package that are left.

    They have up to `timeout` seconds of grace. `allow` names threads and tasks that may stay, and the schedulers
    whose tasks may.
    """
    limit = time.monotonic() + timeout
    while (left := _left(allow)) and time.monotonic() < limit and not drivers:
        time.sleep(0.01)
    if left:
        raise AssertionError("left behind: " + ", ".join(left))


def _left(allow: tuple[str, ...]) -> list[str]:
    actors = [f"actor {ref}" for ref in pykka.ActorRegistry.get_all()]
    threads = [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread.name.startswith("supervision") and thread.name not in allow
    ]
    return [*actors, *_tasks(allow), *threads]


def _tasks(allow: tuple[str, ...]) -> list[str]:
    open_ones = [each for each in list(_schedulers) if not each.loop.is_closed() and _full_name(each) not in allow]
    names = [(scheduler.name, name) for scheduler in open_ones for name in _tasks_of(scheduler)]
    return [f"task {name} on {where}" for where, name in sorted(names) if name not in allow]


def _full_name(scheduler: Scheduler) -> str:
    return f"supervision-{scheduler.name}"


def _tasks_of(scheduler: Scheduler) -> list[str]:
    try:
        return [task.get_name() for task in asyncio.all_tasks(scheduler.loop)]
    except RuntimeError:  # its thread keeps adding some: the next look will tell
        return []
