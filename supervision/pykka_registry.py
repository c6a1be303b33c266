"""Pykka's registry with a container whose cost does not grow with the number of actors.

Pykka keeps its refs in a list: each unregistration searches it. `stop_all` goes through it from the newest
to the oldest, so that a supervisor would revive the children stopped before it. Here the refs are in a dict,
and the roots of supervision trees always come last in the listing, which `stop_all` reverses.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pykka


class OrderedRefs:
    """The part of a list that Pykka's registry uses, with everything but slicing in constant time."""

    def __init__(self) -> None:
        self._refs: dict[Any, None] = {}
        self._roots: dict[Any, None] = {}

    def _shelf(self, ref: Any) -> dict[Any, None]:
        return self._roots if getattr(ref, "is_root", False) else self._refs

    def append(self, ref: Any) -> None:
        self._shelf(ref)[ref] = None

    def remove(self, ref: Any) -> None:
        try:
            del self._shelf(ref)[ref]
        except KeyError:
            raise ValueError(f"{ref} is not in the registry") from None

    def __contains__(self, ref: object) -> bool:
        return ref in self._refs or ref in self._roots

    def __iter__(self) -> Iterator[Any]:
        yield from list(self._refs)
        yield from list(self._roots)

    def __len__(self) -> int:
        return len(self._refs) + len(self._roots)

    def __getitem__(self, where: slice | int) -> Any:
        return [*self._refs, *self._roots][where]


def install() -> None:
    """Give Pykka's registry this container, with what it holds at the moment. Idempotent."""
    with pykka.ActorRegistry._actor_refs_lock:
        present = pykka.ActorRegistry._actor_refs
        if isinstance(present, OrderedRefs):
            return
        refs = OrderedRefs()
        for ref in present:
            refs.append(ref)
        pykka.ActorRegistry._actor_refs = refs  # type: ignore[assignment]
