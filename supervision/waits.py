"""Who waits for whom, so that a circle is noticed before it closes.

An edge exists while a handler waits for a reply: from the incarnation whose handler it is to the name that owes
the reply. Plain threads and tasks cannot be asked anything, so they are in no circle and cost nothing. What a
handler started and left running waits on its own account once that handler is over: its edges count no more.
"""

from __future__ import annotations

import contextvars
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from supervision.errors import DeadlockError

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.future import AskFuture
    from supervision.incarnation import Incarnation
    from supervision.name import Name


class Turn(NamedTuple):
    """One message in the hands of one incarnation, or one of its hooks; `number` tells it from the next."""

    incarnation: Incarnation
    number: int

    @property
    def is_over(self) -> bool:
        return self.incarnation.turn != self.number or self.incarnation.exit is not None


current: contextvars.ContextVar[Turn | None] = contextvars.ContextVar("supervision.current", default=None)
"""The turn that runs in this context; tasks which a handler creates inherit it."""

_lock = threading.Lock()


class edge:  # noqa: N801  (a context manager, read as a word)
    """`with edge(future):` while a handler waits for it. Raises DeadlockError if that would never end."""

    __slots__ = ("_entry", "_future")

    def __init__(self, future: AskFuture[Any]) -> None:
        self._future = future
        self._entry: tuple[Turn, AskFuture[Any]] | None = None

    def __enter__(self) -> None:
        turn = current.get()
        if turn is None or self._future.debtor is None or turn.is_over:
            return
        with _lock:
            circle = _circle(turn.incarnation.name, self._future.debtor)
            if circle is None:
                self._entry = (turn, self._future)
                turn.incarnation.waiting.append(self._entry)
        if circle is not None:
            self._future.give_up()
            raise DeadlockError(" waits for ".join(name.path for name in circle))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._entry is not None:
            with _lock:
                self._entry[0].incarnation.waiting.remove(self._entry)


def _circle(start: Name, debtor: Name) -> list[Name] | None:
    """The path from `debtor` back to `start` along present edges, if there is one."""
    if debtor is start:
        return [start, debtor]
    if debtor.incarnation is None or not debtor.incarnation.waiting:  # as good as always
        return None
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
        for turn, future in incarnation.waiting
        if future.debtor is not None and not future.done and not turn.is_over
    ]


def _new_lock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)
