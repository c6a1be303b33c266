"""Who waits for whom, so that a circle is noticed before it closes.

An edge exists while a handler waits for a reply: from the incarnation whose handler it is to the name that owes
the reply. Plain threads and tasks cannot be asked anything, so they are in no circle and cost nothing. What a
handler started and left running waits on its own account once that handler is over: its edges count no more.
"""

from __future__ import annotations

import contextvars
import os
import threading
from typing import TYPE_CHECKING, Any

from supervision.errors import DeadlockError

if TYPE_CHECKING:
    from supervision.future import AskFuture
    from supervision.incarnation import Incarnation
    from supervision.name import Name


class Turn:
    """One message in the hands of one incarnation, or one of its hooks; `number` tells it from the next."""

    __slots__ = ("incarnation", "number")

    def __init__(self, incarnation: Incarnation, number: int) -> None:
        self.incarnation = incarnation
        self.number = number

    @property
    def is_over(self) -> bool:
        return self.incarnation.turn != self.number or self.incarnation.exit is not None


current: contextvars.ContextVar[Turn | None] = contextvars.ContextVar("supervision.current", default=None)
"""The turn that runs in this context; tasks which a handler creates inherit it."""

_lock = threading.Lock()

Edge = tuple[Turn, "AskFuture[Any]"]


def enter(future: AskFuture[Any]) -> Edge | None:
    """Note that a handler is about to wait for `future`; `leave` the edge afterwards. None where nobody need know.

    Raises:
        DeadlockError: the wait would never end.
    """
    turn, debtor = current.get(), future.debtor
    if turn is None or debtor is None or turn.is_over:
        return None
    own = turn.incarnation
    edge = (turn, future)
    # Noted before looking: of several that close a circle at one time the last finds all the others' edges. So a
    # debtor who waits for nobody, as good as every one, is in no circle yet, and nothing need be locked.
    own.waiting.append(edge)
    other = debtor.incarnation
    if debtor is own.name or (other is not None and other.waiting):
        _refuse_circle(edge, own, debtor)
    return edge


def leave(edge: Edge) -> None:
    """The wait is over."""
    edge[0].incarnation.waiting.remove(edge)


def _refuse_circle(edge: Edge, own: Incarnation, debtor: Name) -> None:
    with _lock:  # one at a time: whoever finds the circle leaves it, and the next finds none
        circle = _circle(own.name, debtor)
        if circle is not None:
            own.waiting.remove(edge)
    if circle is not None:
        edge[1].give_up()
        raise DeadlockError(" waits for ".join(name.path for name in circle))


def _circle(start: Name, debtor: Name) -> list[Name] | None:
    """The path from `debtor` back to `start` along present edges, if there is one."""
    if debtor is start:
        return [start, debtor]
    seen = {debtor}
    stack = [(debtor, [start, debtor])]
    while stack:
        name, path = stack.pop()
        for following in _waited_for_by(name):
            if following is start:
                return [*path, start]
            if following not in seen:
                seen.add(following)
                stack.append((following, [*path, following]))
    return None


def _waited_for_by(name: Name) -> list[Name]:
    incarnation = name.incarnation
    if incarnation is None:
        return []
    return [
        future.debtor
        for turn, future in list(incarnation.waiting)  # others add to it and take from it meanwhile
        if future.debtor is not None and not future.done and not turn.is_over
    ]


def _new_lock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)
