"""Where an actor's code is at this moment, seen from another thread."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pykka

from supervision.hosting.hosts import LoopIncarnation, ThreadIncarnation
from supervision.view.frames import frames_of

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation

LIMIT = 6
"""How many frames are told, innermost last."""

_RUNTIME = (
    *(f"{Path(str(file)).parent}/" for file in (pykka.__file__, asyncio.__file__, __file__)),
    str(threading.__file__),
)

Place = tuple[str, int, str]
"""File, line, function."""


def stack_of(incarnation: Incarnation) -> tuple[str, ...]:
    """The innermost places of its code, from where it leaves the runtime; empty where it has none now.

    Only places are kept: a frame would keep alive all that its function holds.
    """
    if isinstance(incarnation, ThreadIncarnation):
        places = _of_thread(incarnation.thread)
    elif isinstance(incarnation, LoopIncarnation):
        places = _of_task(incarnation)
    else:
        places = []
    return tuple(f"{file}:{line} in {function}" for file, line, function in _users_part(places)[-LIMIT:])


def _of_thread(thread: threading.Thread | None) -> list[Place]:
    if thread is None or thread.ident is None or not thread.is_alive():  # its number may be another's by now
        return []
    places = [(each.f_code.co_filename, each.f_lineno, each.f_code.co_name) for each in frames_of(thread.ident)]
    return places[::-1]


def _of_task(incarnation: LoopIncarnation) -> list[Place]:
    task, scheduler = incarnation._task, incarnation.scheduler
    if task is None:
        return []
    if asyncio.current_task(scheduler.loop) is task:
        return _of_thread(scheduler.thread)
    return _awaited(task.get_coro())


def _awaited(awaitable: Any) -> list[Place]:
    """Along the chain of a suspended coroutine: each waits for the next."""
    places: list[Place] = []
    while awaitable is not None and len(places) < 1000:
        frame = getattr(awaitable, "cr_frame", None) or getattr(awaitable, "gi_frame", None)
        if frame is not None:
            places.append((frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
        awaitable = getattr(awaitable, "cr_await", None) or getattr(awaitable, "gi_yieldfrom", None)
    return places


def _users_part(places: list[Place]) -> list[Place]:
    """Without the runtime's own frames around it; where there are no others, the innermost of these."""
    for position, (file, _, _) in enumerate(places):
        if not file.startswith(_RUNTIME):
            return places[position:]
    return places[-1:]
