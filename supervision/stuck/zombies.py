"""Code that runs on after its actor was abandoned: listed until it ends, and not without limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervision.errors import SpecError

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


def exclusive(actor_class: type) -> tuple[str, ...]:
    """What an actor class declares: `exclusive = ("port 8080",)` says that no two of its lives may overlap.

    The words mean what the user takes them for; two classes with a word in common exclude each other. After an
    abandonment no replacement starts beside the zombie.

    Raises:
        SpecError: it is no tuple of texts.
    """
    words = getattr(actor_class, "exclusive", ())
    if not isinstance(words, tuple) or not all(isinstance(each, str) for each in words):
        raise SpecError(f"{actor_class.__name__}.exclusive: {words!r} is not a tuple of texts")
    return words
