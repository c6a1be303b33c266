"""How many slots of each model of a provider are taken: one for each attempt, until it has ended.

What a model bears has nothing to do with which limiter granted it, so all limiters of a provider share one count. A
model without a free slot holds up nobody who asks for another.
"""

from __future__ import annotations

from collections.abc import Callable

from rubberduck.core.concurrency import Concurrency


class Slots:
    """Counts what is taken of each model, against the limit that `concurrency_of` gives it at the moment.

    It remembers only models of which something is taken. A restart counts anew what its reservations hold.
    """

    __slots__ = ("_concurrency_of", "_taken")

    def __init__(self, concurrency_of: Callable[[str], Concurrency]) -> None:
        self._concurrency_of = concurrency_of
        self._taken: dict[str, int] = {}

    @classmethod
    def up_to(cls, ceiling: int) -> Slots:
        """So many for each model, for ever."""
        concurrency = Concurrency(ceiling)
        return cls(lambda model: concurrency)

    def limit_of(self, model: str) -> int:
        """How many there are of `model` at the moment."""
        return self._concurrency_of(model).limit

    def taken(self, model: str) -> int:
        return self._taken.get(model, 0)

    def has_room(self, model: str, wanted: int) -> bool:
        """Whether `wanted` more may be taken now.

        What wants more than there are goes when it is alone: a limit that has shrunk is no refusal.
        """
        taken = self._taken.get(model)
        return not taken or not wanted or taken + wanted <= self._concurrency_of(model).limit

    def take(self, model: str, wanted: int) -> None:
        """Take `wanted` without asking."""
        if wanted:
            self._taken[model] = self._taken.get(model, 0) + wanted

    def give_back(self, model: str, held: int) -> None:
        left = self._taken.get(model, 0) - held
        if left > 0:
            self._taken[model] = left
        else:
            self._taken.pop(model, None)
