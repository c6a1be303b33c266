"""What a node asks the store of a limit that several share, and what the store tells it."""

from __future__ import annotations

from dataclasses import dataclass

from rubberduck.core.bucket import WINDOW_SECONDS

SEEN = 10.0
"""Seconds for which a node counts that has not been heard of again."""


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """A limit by the name that all nodes know it by: `most` in every sliding `window` (seconds).

    With a `refill_rate` it is a bucket instead: of `most` tokens, refilled by so many per second.
    """

    name: str
    most: float
    refill_rate: float = 0.0
    window: float = WINDOW_SECONDS

    @property
    def lease(self) -> float:
        """Seconds for which a slice may be spent."""
        return self.window / 30

    @property
    def cell(self) -> float:
        """Seconds that the store counts as one."""
        return self.window / 60

    @property
    def kept(self) -> float:
        """Seconds after the beginning of its cell for which a charge counts."""
        return self.window + self.lease + self.cell


@dataclass(frozen=True, slots=True)
class Ask:
    """What a node wants of the store: `amount`, but nothing rather than less than `least`.

    `owed` is what it has spent already without having been granted it: it is charged in any case.
    """

    amount: float = 0.0
    least: float = 0.0
    owed: float = 0.0


@dataclass(frozen=True, slots=True)
class Told:
    """What the store answered: a slice of `amount`, 0 for none, which can be given back by its `slice` id.

    `used` are (age in seconds, amount) of what all nodes have been charged, `tokens` the balance of a bucket. `nodes`
    have been heard of in the last seconds. A store `is_young` while it may not know what was spent before it began.
    """

    slice: str
    amount: float
    used: tuple[tuple[float, float], ...] = ()
    tokens: float = 0.0
    nodes: int = 1
    is_young: bool = False
