"""The live view as data: what there is in a system, what it does, and what needs attention."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from supervision.exits import Exit, is_orderly
from supervision.state.keeping import Kept

SLOW = 5.0
"""Seconds from which on a message at hand, or one that waits, is worth a look."""


@dataclass(frozen=True, slots=True)
class Node:
    """One address of the tree, or the zombie of one. Times are seconds; `next_at` and `last_exit.at` of the clock.

    `state` is starting, running, busy, restarting, stopping, stopped or zombie. `busy_with` is the type of the
    message at hand and `stack` where its code is, innermost last. `queue_age` is how long the oldest message has
    waited, `window` how many restarts count now and how many are tolerated. `attempt` counts the tries of the
    restart under way, `next_at` says when the next is due. `kept` is what the next incarnation would find.
    """

    path: str
    kind: str
    actor: str
    state: str
    epoch: int
    uptime: float | None
    busy_with: str | None
    busy_for: float | None
    queue: int
    owed: int
    handled: int
    failed: int
    late: int
    restarts: int
    dead_letters: int
    last_exit: Exit | None
    children: tuple[Node, ...] = ()
    queue_age: float | None = None
    window: tuple[int, int] | None = None
    monitors: int = 0
    links: int = 0
    attempt: int = 0
    next_at: float | None = None
    stack: tuple[str, ...] = ()
    kept: Kept | None = None

    @property
    def id(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def attention(self) -> str | None:
        """Why somebody should look at this one; None if there is no need."""
        return next((why for why, is_so in _alarms(self) if is_so), None)

    def walk(self) -> Iterator[Node]:
        """This node and all below it, in the order they are drawn in."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_dict(self) -> dict[str, Any]:
        """What `json.dumps` takes, with `attention` and the exit's reason in words."""
        data = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        data["last_exit"] = None if self.last_exit is None else _exit_to_dict(self.last_exit)
        data["children"] = [child.to_dict() for child in self.children]
        data["window"] = None if self.window is None else list(self.window)
        data["stack"] = list(self.stack)
        data["kept"] = None if self.kept is None else self.kept.to_dict()
        return {**data, "attention": self.attention}


def _alarms(node: Node) -> Iterator[tuple[str, bool]]:
    yield "zombie", node.state == "zombie"
    yield "restarting", node.state == "restarting"
    yield "stuck", node.busy_for is not None and node.busy_for >= SLOW
    yield "queue", node.queue_age is not None and node.queue_age >= SLOW
    yield "window", node.window is not None and 0 < node.window[1] <= node.window[0]
    yield "ended", node.state == "stopped" and node.last_exit is not None and not is_orderly(node.last_exit.reason)


def _exit_to_dict(exit: Exit) -> dict[str, Any]:
    return {"epoch": exit.epoch, "kind": type(exit.reason).__name__, "reason": str(exit.reason), "at": exit.at}


@dataclass(frozen=True, slots=True)
class Tree:
    """All roots of a system, with what has gone astray in it. `str()` draws it; `at` is the clock's time of reading.

    `zombies` are abandoned incarnations whose code has not ended; `events_dropped` counts those that came too fast
    for the listeners.
    """

    name: str
    children: tuple[Node, ...]
    dead_letters: int
    zombies: tuple[Node, ...] = ()
    events_dropped: int = 0
    at: float = 0.0

    def walk(self) -> Iterator[Node]:
        """All nodes but zombies, in the order they are drawn in."""
        for root in self.children:
            yield from root.walk()

    def find(self, path: str) -> Node | None:
        """The node at `path`, whole or without its root as in `System.whereis`; None if there is none."""
        nodes = {node.path: node for node in self.walk()}
        candidates = (path, *(f"{root.path}/{path}" for root in self.children))
        return next((nodes[each] for each in candidates if each in nodes), None)

    def to_dict(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        data = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        data["children"] = [root.to_dict() for root in self.children]
        data["zombies"] = [zombie.to_dict() for zombie in self.zombies]
        return data

    def __str__(self) -> str:
        from supervision.view.drawing import draw

        return draw(self)
