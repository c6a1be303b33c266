"""Code that runs on after its actor was abandoned: listed until it ends, and not without limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervision.specs.exclusive import exclusive

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation


class Zombies(list["Incarnation"]):
    """The zombies of one system. Changed under the system's lock, read from any thread."""

    def __init__(self, at_most: int) -> None:
        super().__init__()
        self._at_most = at_most

    @property
    def excess(self) -> str | None:
        """Why there are too many; None if there are not. All that hang on one lost scheduler count as one."""
        number = len({zombie.zombie_key for zombie in self[:]})
        if number <= self._at_most:
            return None
        return f"{number} zombies, and max_zombies is {self._at_most}"

    def holding(self, wanted: tuple[str, ...]) -> str | None:
        """Which zombie holds one of these resources, as text; None if none does."""
        for zombie in self[:]:
            for resource in exclusive(zombie.name.actor_class):
                if resource in wanted:
                    return f"{resource!r} is held by a zombie, {zombie.name.path} (incarnation {zombie.epoch})"
        return None
