"""Whether an asyncio task goes on only once a future is done, be it through gather, wait_for, a task group or a shield.

asyncio does not say so. But a future knows its callbacks, and each leads to what it will finish: the task to be woken,
or the future that `gather` and its like have made for whoever awaits them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from types import CellType
from typing import Any

Future = asyncio.Future[Any]


def waits_for(task: Future, future: Future) -> bool:
    """True if `task` is suspended and `future` is what it waits for, in the end. May be asked from any thread."""
    seen, left = {id(future)}, [future]
    while left:
        for following in _finished_by(left.pop()):
            if following is task:
                return True
            if id(following) not in seen and not following.done():
                seen.add(id(following))
                left.append(following)
    return False


def _finished_by(future: Future) -> Iterator[Future]:
    """The tasks and futures that a callback of `future` may wake or finish."""
    for callback, _ in getattr(future, "_callbacks", None) or ():
        for thing in _held_by(callback):
            if asyncio.isfuture(thing):
                yield thing
            elif not isinstance(thing, type):  # such as a task group
                yield from (each for each in list(getattr(thing, "__dict__", {}).values()) if asyncio.isfuture(each))


def _held_by(callback: Any) -> Iterator[Any]:
    if isinstance(callback, partial):
        yield from (*callback.args, *callback.keywords.values())
        callback = callback.func
    yield getattr(callback, "__self__", None)
    for cell in getattr(callback, "__closure__", None) or ():
        yield _content(cell)


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return None
