"""Who waits for whom, so that a circle is noticed before it closes.

An edge exists while a handler waits for a reply: from the actor whose handler it is to the name that owes
the reply. Plain threads and tasks cannot be asked anything, so they are in no circle and cost nothing.
"""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

from supervision.errors import DeadlockError

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.future import AskFuture
    from supervision.name import Name

current: contextvars.ContextVar[Any] = contextvars.ContextVar("supervision.current", default=None)
"""The incarnation whose handler runs in this context; child tasks of a handler inherit it."""

_lock = threading.Lock()


class edge:  # noqa: N801  (a context manager, read as a word)
    """`with edge(future):` while a handler waits for it. Raises DeadlockError if that would never end."""

    __slots__ = ("_future", "_waiter")

    def __init__(self, future: AskFuture[Any]) -> None:
        self._future = future
        self._waiter: Any = current.get()

    def __enter__(self) -> None:
        waiter = self._waiter
        if waiter is None or self._future.debtor is None:
            self._waiter = None
            return
        with _lock:
            if circle := _circle(waiter.name, self._future.debtor):
                self._waiter = None
                raise DeadlockError(" waits for ".join(name.path for name in circle))
            waiter.name.waiting.append(self._future)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiter is not None:
            with _lock:
                self._waiter.name.waiting.remove(self._future)


def _circle(start: Name, debtor: Name) -> list[Name] | None:
    """The path from `debtor` back to `start` along present edges, if there is one."""
    path = [start, debtor]
    if debtor is start:
        return path
    seen = {debtor}
    stack = [(debtor, path)]
    while stack:
        name, path = stack.pop()
        for future in name.waiting:
            following = future.debtor
            if following is start:
                return [*path, start]
            if following is not None and following not in seen:
                seen.add(following)
                stack.append((following, [*path, following]))
    return None
