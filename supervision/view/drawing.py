"""Draws the live view as text of at most `WIDTH` columns, a mark before each line that needs attention."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from supervision.exits import is_orderly

if TYPE_CHECKING:
    from supervision.view.tree import Node, Tree

WIDTH = 100
MARK = "! "
WIDEST_ID = 44
WIDEST_ACTOR = 22
MOST_SIBLINGS = 40
"""Of more children the inconspicuous ones in the middle are only counted."""


def draw(tree: Tree) -> str:
    """The whole tree, its zombies below it."""
    rows = [row for root in tree.children for row in _rows(root, "", is_last=root is tree.children[-1], now=tree.at)]
    rows += [row for zombie in tree.zombies for row in _lines_of(zombie, "zombie ", "       ", tree.at, zombie.path)]
    widths = [min(most, max((len(row[column]) for row in rows if row[2]), default=0)) for column, most in _COLUMNS]
    return "\n".join([_headline(tree), *(_aligned(row, widths) for row in rows)])


Row = tuple[str, str, str, str, str]
"""The mark, the id behind its branches, the actor, the state, and whatever else there is to say."""

_COLUMNS = ((1, WIDEST_ID), (2, WIDEST_ACTOR), (3, 20))


def age(seconds: float) -> str:
    """A length of time with a unit that a person would choose."""
    if seconds < 1:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def plain(text: str) -> str:
    """On one line, and without what a terminal would obey."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) != "Zs" else " "


def _headline(tree: Tree) -> str:
    counts = (
        (tree.dead_letters, "dead letter"),
        (len(tree.zombies), "zombie"),
        (tree.events_dropped, "dropped event"),
    )
    said = [f"{number} {what}{'s' if number > 1 else ''}" for number, what in counts if number]
    return plain(tree.name) + (f" ({', '.join(said)})" if said else "")


def _rows(node: Node, indent: str, *, is_last: bool, now: float) -> Iterator[Row]:
    below = indent + ("   " if is_last else "│  ")
    yield from _lines_of(node, indent + ("└─ " if is_last else "├─ "), below, now, node.id)
    shown = _shown(node.children)
    for position, child in enumerate(shown):
        if child is None:
            left_out = len(node.children) - len(shown) + 1
            yield ("  ", f"{below}│  … {left_out} more, in which nothing stands out", "", "", "")
        else:
            yield from _rows(child, below, is_last=position == len(shown) - 1, now=now)


def _shown(children: Sequence[Node]) -> list[Node | None]:
    """The children to draw; None stands for those left out."""
    if len(children) <= MOST_SIBLINGS:
        return list(children)
    head, tail = children[: MOST_SIBLINGS // 2], children[-MOST_SIBLINGS // 4 :]
    middle = [child for child in children[len(head) : -len(tail)] if any(each.attention for each in child.walk())]
    if len(head) + len(middle[:MOST_SIBLINGS]) + len(tail) == len(children):
        return list(children)
    return [*head, *middle[:MOST_SIBLINGS], None, *tail]


def _lines_of(node: Node, branch: str, below: str, now: float, label: str) -> Iterator[Row]:
    mark = MARK if node.attention else "  "
    yield (mark, branch + plain(label), plain(node.actor), _state(node, now), ", ".join(_facts(node)))
    if node.stack and (node.attention or node.state == "busy"):
        yield ("  ", f"{below}     {plain(_places(node.stack, WIDTH - len(below) - 7))}", "", "", "")
    if node.last_exit is not None and not is_orderly(node.last_exit.reason):
        ago = age(max(0.0, now - node.last_exit.at))
        yield ("  ", f"{below}     last exit {ago} ago: {plain(str(node.last_exit.reason))}", "", "", "")


def _state(node: Node, now: float) -> str:
    if node.busy_for is not None:
        return f"busy {age(node.busy_for)}"
    if node.next_at is not None:
        return f"restarting in {age(max(0.0, node.next_at - now))}"
    return node.state


def _facts(node: Node) -> Iterator[str]:
    if node.busy_with is not None:
        yield f"with {plain(node.busy_with)}"
    if node.epoch > 1:
        yield f"#{node.epoch}"
    if node.attempt > 1:
        yield f"try {node.attempt}"
    if node.queue:
        yield f"queue {node.queue}" + (f" (oldest {age(node.queue_age)})" if node.queue_age is not None else "")
    if node.window is not None and node.window[0]:
        yield f"window {node.window[0]}/{node.window[1]}"
    for label in ("owed", "restarts", "failed", "late", "monitors", "links"):
        if number := getattr(node, label):
            yield f"{label} {number}"
    if node.dead_letters:
        yield f"dead letters {node.dead_letters}"
    if node.kept is not None and str(node.kept):
        yield str(node.kept)
    if node.uptime is not None:
        yield f"up {age(node.uptime)}"


def _places(stack: Sequence[str], width: int) -> str:
    """As many places as fit, the innermost last."""
    text = "at " + " > ".join(map(_short, stack[-3:]))
    return text if len(text) <= width else "at …" + text[len(text) - width + 4 :]


def _short(place: str) -> str:
    """A place in code without its folders; the data has them."""
    return place.rpartition("/")[2]


def _aligned(row: Row, widths: list[int]) -> str:
    mark, *cells, facts = row
    if not any(cells[1:]) and not facts:  # a line that belongs to the one above
        return _cut(mark + cells[0], WIDTH)
    line = mark + "  ".join(_cut(cell, width).ljust(width) for cell, width in zip(cells, widths, strict=True))
    return _cut(f"{line}  {facts}".rstrip(), WIDTH)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
