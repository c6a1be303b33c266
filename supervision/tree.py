"""The tree as it is now, read from the books of the names: no actor is asked, so that a stuck one still shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from supervision.exits import Exit

if TYPE_CHECKING:
    from supervision.name import Name
    from supervision.shell import Shell
    from supervision.system import System


@dataclass(frozen=True, slots=True)
class Node:
    """One address of the tree, times in seconds.

    `state` is starting, running, busy, restarting, stopping or stopped. `queue_age` is how long the oldest message
    has waited, `window` how many restarts count now and how many are tolerated.
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


@dataclass(frozen=True, slots=True)
class Tree:
    """All roots of a system, with what has gone astray in it."""

    name: str
    children: tuple[Node, ...]
    dead_letters: int
    zombies: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        lines = [self.name]
        for root in self.children:
            _draw(root, "", lines, is_last=root is self.children[-1])
        return "\n".join(lines)


def read_tree(system: System) -> Tree:
    roots = tuple(_node(system, root.name, root.shell) for root in system.roots)
    zombies = tuple(zombie.name.path for zombie in system.zombies)
    return Tree(system.name, roots, system.dead_letters, zombies)


def _node(system: System, name: Name, shell: Shell | None) -> Node:
    incarnation = name.incarnation
    now = system.clock.now()
    state, busy_with, busy_for = _state(name), None, None
    if incarnation is not None and incarnation.current is not None and state == "running":
        state = "busy"
        busy_with = type(incarnation.current.message).__name__
        busy_for = now - incarnation.busy_since
    children = () if shell is None else tuple(_children(system, shell))
    return Node(
        path=name.path,
        kind="supervisor" if shell is not None else getattr(incarnation, "kind", "loop"),
        actor=name.actor_class.__name__,
        state=state,
        epoch=name.epoch,
        uptime=None if incarnation is None else now - incarnation.started_at,
        busy_with=busy_with,
        busy_for=busy_for,
        queue=len(name.mailbox),
        owed=0 if incarnation is None else len(incarnation.owed),
        handled=name.handled,
        failed=name.failed,
        late=name.late,
        restarts=name.restarts,
        dead_letters=name.dead_letters,
        last_exit=name.last_exit,
        children=children,
        queue_age=_queue_age(name, now),
        window=None if shell is None else shell.window,
        monitors=0 if incarnation is None else len(incarnation.monitors),
        links=0 if incarnation is None else len(incarnation.links),
    )


def _queue_age(name: Name, now: float) -> float | None:
    oldest = name.mailbox.oldest()
    return None if oldest is None else now - oldest.sent_at


def _state(name: Name) -> str:
    if name.incarnation is not None:
        return name.incarnation.state
    return "restarting" if name.is_open else "stopped"


def _children(system: System, shell: Shell) -> Any:
    for name in list(shell.names.values()):
        actor = name.incarnation.actor if name.incarnation is not None else None
        yield _node(system, name, getattr(actor, "shell", None))


def _draw(node: Node, indent: str, lines: list[str], *, is_last: bool) -> None:
    facts = [node.state, f"#{node.epoch}"]
    if node.busy_with is not None:
        facts.append(f"{node.busy_with} for {node.busy_for:.1f} s")
    for label, number in (("queue", node.queue), ("owed", node.owed), ("restarts", node.restarts)):
        if number:
            facts.append(f"{label} {number}")
    if node.last_exit is not None:
        facts.append(f"last: {node.last_exit.reason}")
    id = node.path.rsplit("/", 1)[-1]
    lines.append(f"{indent}{'└─ ' if is_last else '├─ '}{id:<28} {node.actor:<22} {', '.join(facts)}")
    for child in node.children:
        _draw(child, indent + ("   " if is_last else "│  "), lines, is_last=child is node.children[-1])
