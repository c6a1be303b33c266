"""Reads the live view from the books: no actor is asked and no lock of an actor is waited for long.

May be called from any thread while everything changes. Each number is true of some moment of the reading; a node
does not tell of one single moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import pykka

from supervision.kinds import is_supervisor
from supervision.state.keeping import kept_by
from supervision.view.stacks import stack_of
from supervision.view.tree import Node, Tree

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import Name
    from supervision.shell import Shell
    from supervision.system import System

T = TypeVar("T")


def read_tree(system: System) -> Tree:
    """The tree of `system` as it is now."""
    reading = _Reading(system)
    roots = tuple(reading.node(root.name) for root in system.roots[:])
    zombies = tuple(reading.zombie(incarnation) for incarnation in system.zombies[:])
    return Tree(system.name, roots, system.dead_letters, zombies, system.events.dropped, reading.now)


class _Reading:
    """One look at one system."""

    def __init__(self, system: System) -> None:
        self.now = system.clock.now()
        self._below: dict[str, dict[str, Name]] = {}
        for name in unchanged(system.names.all):
            parent, _, id = name.path.rpartition("/")
            self._below.setdefault(parent, {})[id] = name

    def node(self, name: Name, parent: Shell | None = None) -> Node:
        incarnation = name.incarnation
        shell = getattr(incarnation.actor, "shell", None) if incarnation is not None else None
        attempt, next_at = (0, None) if parent is None else _retry(parent, name)
        return self._node(
            name,
            incarnation,
            _state(name, incarnation),
            children=tuple(self.node(child, shell) for child in self._children(name, shell)),
            window=None if shell is None else unchanged(lambda: shell.window),
            attempt=attempt,
            next_at=next_at,
        )

    def zombie(self, incarnation: Incarnation) -> Node:
        return self._node(incarnation.name, incarnation, "zombie")

    def _node(
        self,
        name: Name,
        incarnation: Incarnation | None,
        state: str,
        *,
        children: tuple[Node, ...] = (),
        window: tuple[int, int] | None = None,
        attempt: int = 0,
        next_at: float | None = None,
    ) -> Node:
        envelope = None if incarnation is None else incarnation.current
        is_busy = incarnation is not None and envelope is not None and state == "running"
        queue_age = None if state == "zombie" else self._queue_age(name)
        return Node(
            path=name.path,
            kind=_kind(name.actor_class),
            actor=name.actor_class.__name__,
            state="busy" if is_busy else state,
            epoch=name.epoch if incarnation is None else incarnation.epoch,
            uptime=None if incarnation is None else max(0.0, self.now - incarnation.started_at),
            busy_with=type(envelope.message).__name__ if is_busy and envelope is not None else None,
            busy_for=max(0.0, self.now - incarnation.work.busy_since) if is_busy and incarnation is not None else None,
            queue=0 if state == "zombie" else len(name.mailbox),
            owed=0 if incarnation is None else len(incarnation.work.owed),
            handled=name.handled,
            failed=name.failed,
            late=name.late,
            restarts=name.restarts,
            dead_letters=name.dead_letters,
            last_exit=name.last_exit,
            children=children,
            queue_age=queue_age,
            window=window,
            monitors=0 if incarnation is None else len(incarnation.monitors),
            links=0 if incarnation is None else len(incarnation.links),
            attempt=attempt,
            next_at=next_at,
            kept=kept_by(name),
            stack=stack_of(incarnation) if incarnation is not None and (is_busy or state != "running") else (),
        )

    def _queue_age(self, name: Name) -> float | None:
        oldest = name.mailbox.oldest()
        return None if oldest is None else max(0.0, self.now - oldest.sent_at)

    def _children(self, name: Name, shell: Shell | None) -> Iterable[Name]:
        """In start order, as far as the supervisor is there to tell; names left over come last."""
        names = self._below.get(name.path, {})
        order = () if shell is None else unchanged(lambda: shell.engine.child_ids)
        first = [names[id] for id in order if id in names]
        known = set(order)
        return [*first, *(child for id, child in names.items() if id not in known)]


def _kind(actor_class: type[pykka.Actor]) -> str:
    if is_supervisor(actor_class):
        return "supervisor"
    return "thread" if issubclass(actor_class, pykka.ThreadingActor) else "loop"


def _state(name: Name, incarnation: Incarnation | None) -> str:
    if incarnation is not None and incarnation.exit is None:
        return incarnation.state
    return "restarting" if name.is_open else "stopped"


def _retry(parent: Shell, name: Name) -> tuple[int, float | None]:
    """How often its restart has been tried, and when the next try is due."""
    outlook = parent.engine.look(name.path.rpartition("/")[2])
    if outlook is None:
        return 0, None
    return outlook.attempt, parent.due(outlook.timer) if outlook.phase == "waiting" else None


def unchanged(read: Callable[[], T]) -> T:
    """What `read` gives. It copies a container that others change; where that is noticed, it is tried again."""
    while True:
        try:
            return read()
        except RuntimeError:
            continue
