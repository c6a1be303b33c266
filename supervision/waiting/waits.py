"""Who waits for whom, so that a circle is noticed before it closes.

An edge exists while a handler waits for a reply: from the incarnation whose handler it is to the name that owes
the reply. Plain threads and tasks cannot be asked anything, so they are in no circle and cost nothing. What a
handler started and left running waits on its own account: once that handler is over its edges count no more, and
before only while the handler awaits it. A circle that hangs on such an edge is suspect: it is looked at again until
it is certain, or gone.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from asyncio import _get_running_loop
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from supervision.errors import DeadlockError
from supervision.waiting.awaiting import waits_for

if TYPE_CHECKING:
    from supervision.future import AskFuture
    from supervision.incarnation import Incarnation
    from supervision.name import Name

FIRST_LOOK, LAST_LOOK = 0.001, 0.25
"""Seconds of the loop's time between two looks at a suspect circle: they double from the one to the other."""


class Turn:
    """One message in the hands of one incarnation, or one of its hooks; `number` tells it from the next."""

    __slots__ = ("incarnation", "number")

    def __init__(self, incarnation: Incarnation, number: int) -> None:
        self.incarnation = incarnation
        self.number = number

    @property
    def is_over(self) -> bool:
        return self.incarnation.work.turn != self.number or self.incarnation.exit is not None


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
        _refuse_circle(edge, own)
    return edge


def leave(edge: Edge) -> None:
    """The wait is over."""
    edge[0].incarnation.waiting.remove(edge)


def pass_on(future: AskFuture[Any], debtor: Name) -> bool:
    """The reply to `future` is owed by `debtor` from now on.

    False if that closes a circle: then whoever waits for it has been answered, with a DeadlockError.
    """
    future.debtor = debtor  # before looking: see `enter`
    if debtor.incarnation is None or not debtor.incarnation.waiting:
        return True
    with _lock:
        suspect = _circle(future, _is_present)
        circle = suspect and _circle(future, _is_certain)
    if circle:
        future.expire(_error(circle))
        return False
    if suspect:
        _look_again(future, suspect)
    return True


# -- circles ---------------------------------------------------------------------------------------


def _refuse_circle(edge: Edge, own: Incarnation) -> None:
    future = edge[1]
    with _lock:  # one at a time: whoever finds the circle leaves it, and the next finds none
        suspect = _circle(future, _is_present)
        circle = None
        if suspect and _is_in_handler(own):
            circle = _circle(future, lambda each: each is edge or _is_certain(each))
        if circle:
            own.waiting.remove(edge)
    if circle:
        future.give_up()
        raise _error(circle)
    if suspect:
        _look_again(future, suspect)


def _circle(future: AskFuture[Any], counts: Callable[[Edge], bool]) -> list[Edge] | None:
    """The edges by which the debtor of `future` waits, in the end, for `future` itself, if there are such."""
    if future.debtor is None:
        return None
    seen = {future.debtor}
    stack: list[tuple[Name, list[Edge]]] = [(future.debtor, [])]
    while stack:
        name, path = stack.pop()
        for edge in [edge for edge in _edges_of(name) if counts(edge)]:
            if edge[1] is future:
                return [*path, edge]
            following = edge[1].debtor
            if following is not None and following not in seen:
                seen.add(following)
                stack.append((following, [*path, edge]))
    return None


def _edges_of(name: Name) -> list[Edge]:
    # A copy: others add to it and take from it meanwhile.
    return [] if name.incarnation is None else list(name.incarnation.waiting)


def _is_present(edge: Edge) -> bool:
    return not edge[1].done and not edge[0].is_over


def _is_certain(edge: Edge) -> bool:
    """True if the handler itself waits, or in a thread; False if that is a task which it has not come to await."""
    if not _is_present(edge):
        return False
    task = _task_of(edge[0].incarnation)
    waiters = list(edge[1]._waiters or ())
    return task is None or any(loop is None or waits_for(task, waiter) for loop, waiter, _ in waiters)


def _is_in_handler(own: Incarnation) -> bool:
    """True if the code that runs here is that of the handler, or such as it awaits."""
    task = _task_of(own)
    running = None if task is None or _get_running_loop() is None else asyncio.current_task()
    return task is None or running is None or running is task or waits_for(task, running)


def _task_of(incarnation: Incarnation) -> asyncio.Task[None] | None:
    return getattr(incarnation, "_task", None)


def _error(circle: list[Edge]) -> DeadlockError:
    names = [turn.incarnation.name.path for turn, _ in circle]
    return DeadlockError(" waits for ".join((names[-1], *names)))


# -- circles that may not be any -------------------------------------------------------------------


def _look_again(future: AskFuture[Any], suspect: list[Edge]) -> None:
    """Have the circle looked at from a loop on which one of its tasks lives: there it stands still meanwhile."""
    schedulers = [getattr(turn.incarnation, "scheduler", None) for turn, _ in suspect]
    scheduler = next((each for each in schedulers if each is not None), None)
    if scheduler is not None:
        scheduler.post(_look, future, scheduler.loop, FIRST_LOOK)


def _look(future: AskFuture[Any], loop: asyncio.AbstractEventLoop, delay: float) -> None:
    with _lock:
        suspect = _circle(future, _is_present)
        circle = suspect and _circle(future, _is_certain)
    if circle:
        future.expire(_error(circle))
    elif suspect:
        loop.call_later(delay, _look, future, loop, min(2 * delay, LAST_LOOK))


def _new_lock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)
