"""Who waits for what on a loop: the text of a failed wait."""

from __future__ import annotations

import asyncio
from typing import Any


def who_waits(loop: asyncio.AbstractEventLoop) -> list[str]:
    """One line for each task that has not ended, by name: where it stands, and for whose reply it waits."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
    return [f"  {_name(task)}{_business(task)}{_place(task)}" for task in tasks]


def _name(task: asyncio.Task[Any]) -> str:
    return task.get_name()


def _incarnation(task: asyncio.Task[Any]) -> Any:
    """The incarnation whose life this task is; None for a task that somebody made."""
    frame = getattr(task.get_coro(), "cr_frame", None)
    own = frame.f_locals.get("self") if frame is not None else None
    return own if own is not None and hasattr(own, "waiting") and hasattr(own, "lease") else None


def _business(task: asyncio.Task[Any]) -> str:
    incarnation = _incarnation(task)
    if incarnation is None:
        return ""
    text = f" ({incarnation.state}, {len(incarnation.name.mailbox)} messages waiting)"
    if incarnation.current is not None:
        text += f" handles {type(incarnation.current.message).__name__}"
    owing = [future.debtor.path for _, future in incarnation.waiting if future.debtor is not None]
    return text + (f" and waits for {', '.join(owing)}" if owing else "")


def _place(task: asyncio.Task[Any]) -> str:
    """The innermost frame that is not of the runtime itself, else the innermost."""
    frames = []
    step: Any = task.get_coro()
    while step is not None:
        frame = getattr(step, "cr_frame", None) or getattr(step, "gi_frame", None)
        if frame is None:
            break
        frames.append(frame)
        step = getattr(step, "cr_await", None) or getattr(step, "gi_yieldfrom", None)
    theirs = [frame for frame in frames if not frame.f_globals.get("__name__", "").startswith("supervision.")]
    if not (theirs or frames):
        return ""
    frame = (theirs or frames)[-1]
    return f", at {frame.f_code.co_qualname}, line {frame.f_lineno}"
