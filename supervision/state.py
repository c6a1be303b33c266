"""What one life leaves to the next behind the same name."""

from __future__ import annotations

from typing import Protocol

from supervision.child import StateSpec


class Keeper(Protocol):
    """Keeps the state of one name while its incarnations come and go."""


def keeper_for(spec: StateSpec | None, present: Keeper | None) -> Keeper | None:
    """Who keeps the state of a name: nobody, where every incarnation starts with nothing."""
    return present
