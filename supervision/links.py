"""Who shares an end: a link ties two lives, so that a crash of either ends the other."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from supervision.errors import ActorDeadError
from supervision.exits import Crash, is_orderly
from supervision.monitors import name_behind

if TYPE_CHECKING:
    from supervision.exits import Exit, Reason
    from supervision.incarnation import Incarnation
    from supervision.name import ActorRef

_lock = threading.Lock()
"""Held for the books of both ends at once, and for nothing else."""


@dataclass(frozen=True, slots=True)
class Exited:
    """The message a link sends to an actor that traps exits."""

    ref: ActorRef
    reason: Reason


class Link:
    """One tie between two lives. It breaks once: when it is taken back, or at the end of either."""

    __slots__ = ("_ends",)

    def __init__(self, one: Incarnation, two: Incarnation) -> None:
        self._ends = (one, two)

    def take_back(self) -> bool:
        """Strike the link from all books. False if it was broken before."""
        one, two = self._ends
        with _lock:
            if one.links.get(two) is not self:
                return False
            del one.links[two], two.links[one]
        one.unwatch(self)
        two.unwatch(self)
        return True

    def ended(self, survivor: Incarnation, other: Incarnation, exit: Exit) -> None:
        """`other` has ended: `survivor` shares its fate, or hears of it."""
        if not self.take_back() or survivor.exit is not None:
            return
        if getattr(survivor.actor, "trap_exits", False):
            survivor.tell(Exited(other.name.ref, exit.reason))
        elif not is_orderly(exit.reason):
            survivor.order_stop(Crash("LinkedExit", f"{exit.path} ended: {exit.reason}"))


def link(own: Incarnation, ref: ActorRef) -> None:
    """Tie `own` to the present incarnation behind `ref`. Nothing happens if they are one, or tied already.

    Raises:
        ActorDeadError: there is none.
    """
    name = name_behind(ref)
    other = name.incarnation
    if other is own or own.exit is not None:
        return
    if other is None:
        raise ActorDeadError(ref.path, None if name.last_exit is None else name.last_exit.reason)
    tie = Link(own, other)
    with _lock:
        if other in own.links:
            return
        own.links[other] = other.links[own] = tie
    if (exit := other.watch(tie, partial(tie.ended, own, other))) is not None:
        tie.take_back()
        raise ActorDeadError(ref.path, exit.reason)
    if (exit := own.watch(tie, partial(tie.ended, other, own))) is not None:  # in this very moment
        tie.ended(other, own, exit)


def unlink(own: Incarnation, ref: ActorRef) -> None:
    """Take the link with the present incarnation behind `ref` back, if there is one."""
    name = name_behind(ref)
    for tie in [tie for other, tie in list(own.links.items()) if other.name is name]:
        tie.take_back()


def _new_lock_after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock_after_fork)
