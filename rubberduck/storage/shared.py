"""Where the limits are kept that several processes share. Each backend passes the same conformance suite.

The store alone decides, and by its own clock: what a node believes about the time changes nothing.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import floor
from typing import Protocol
from urllib.parse import urlsplit

from rubberduck.core.shared_limit import SEEN, Ask, SharedLimit, Told
from rubberduck.errors import ConfigError

__all__ = ["MemoryLimits", "SharedLimits", "SharedLimitsUnavailable", "open_limits"]

PREFIX = "rubberduck"
_TOLERANCE = 1e-9


class SharedLimitsUnavailable(Exception):
    """The store did not answer, or not with what was asked. Its text holds no address and no password."""


class SharedLimits(Protocol):
    """A store of what all nodes have been granted of each limit. Used on one event loop.

    Every method raises SharedLimitsUnavailable if the store fails. None has a limit of time: who asks sets it.
    """

    async def connect(self) -> None:
        """See that the store can be asked: what takes longer than a question."""
        ...

    async def take(self, limit: SharedLimit, ask: Ask) -> Told:
        """Charge what is owed, then as much of the amount as there is room for, and see this node as alive."""
        ...

    async def release(self, limit: SharedLimit, slice: str, amount: float) -> bool:
        """Give back what is left of a slice. False, and no effect, after its lease or for the second time."""
        ...

    async def nodes(self) -> int:
        """How many nodes have been heard of in the last seconds."""
        ...

    async def leave(self) -> None:
        """This node is one no longer."""
        ...

    async def aclose(self) -> None:
        """Let go of the store; idempotent."""
        ...


def open_limits(url: str, node: str, *, prefix: str = PREFIX) -> SharedLimits:
    """The store at `url`, for the node of this name. Nothing is asked of it yet.

    Raises:
        ConfigError: nothing like it is known, or what it needs is not installed.
    """
    if urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ConfigError("shared.url: begins with redis://, rediss:// (TLS) or unix:// (a socket's path)")
    from rubberduck.storage.redis import RedisLimits  # what it stands on is an extra

    return RedisLimits(url, node, prefix=prefix)


@dataclass(slots=True)
class _Granted:
    """A slice that may still be given back. `place` is the cell it is charged to, or how often the bucket was full."""

    amount: float
    at: float
    place: int


class _Charges:
    """What has been charged to one limit: by cells of time, or as the balance of a bucket."""

    def __init__(self, limit: SharedLimit, now: float) -> None:
        self.cells: dict[int, float] = {}
        self.tokens = limit.most
        self.slices: dict[str, _Granted] = {}
        self._at = now
        self._times_full = 1

    def advance(self, limit: SharedLimit, now: float) -> None:
        """Let go of what has passed. What seems to lie in the future, for the clock was set back, is of now."""
        present = floor(now / limit.cell)
        moved = sum([self.cells.pop(number) for number in [each for each in self.cells if each > present]])
        self.cells = {n: amount for n, amount in self.cells.items() if n * limit.cell + limit.kept > now}
        self.cells[present] = self.cells.get(present, 0.0) + moved
        self.slices = {id: each for id, each in self.slices.items() if now - limit.lease <= each.at <= now}
        self.tokens += max(0.0, now - self._at) * limit.refill_rate
        self._at = now
        if self.tokens >= limit.most:
            self.tokens = limit.most
            self._times_full += 1

    def room(self, limit: SharedLimit) -> float:
        return self.tokens if limit.refill_rate else limit.most - sum(self.cells.values())

    def charge(self, limit: SharedLimit, amount: float, now: float) -> None:
        if limit.refill_rate:
            self.tokens -= amount
        else:
            self.cells[floor(now / limit.cell)] += amount

    def grant(self, limit: SharedLimit, id: str, ask: Ask, now: float) -> float:
        """Charge as much as there is room for, as a slice; nothing if that is less than is of use."""
        amount = min(ask.amount, self.room(limit))
        if amount <= _TOLERANCE or amount + _TOLERANCE < ask.least:
            return 0.0
        self.charge(limit, amount, now)
        self.slices[id] = _Granted(amount, now, self._times_full if limit.refill_rate else floor(now / limit.cell))
        return amount

    def give_back(self, limit: SharedLimit, id: str, amount: float) -> bool:
        granted = self.slices.pop(id, None)
        if granted is None:
            return False
        amount = max(0.0, min(amount, granted.amount))
        if not limit.refill_rate:
            self.cells[granted.place] -= amount
        elif granted.place == self._times_full:  # else it would have run over since
            self.tokens += amount
        return True

    def used(self, limit: SharedLimit, now: float) -> tuple[tuple[float, float], ...]:
        return tuple([(now - number * limit.cell, amount) for number, amount in sorted(self.cells.items()) if amount])


class MemoryBooks:
    """What the nodes of one process share. `now` is the store's clock."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.now = now
        self.seen: dict[str, float] = {}
        self.numbers = itertools.count(1)
        self._born: float | None = None
        self._charges: dict[str, _Charges] = {}

    def of(self, limit: SharedLimit, now: float) -> _Charges:
        charges = self._charges.get(limit.name)
        if charges is None:
            charges = self._charges[limit.name] = _Charges(limit, now)
        charges.advance(limit, now)
        return charges

    def age(self, now: float) -> float:
        """Seconds since it began to know of anything."""
        self._born = now if self._born is None else min(now, self._born)
        return now - self._born


class MemoryLimits:
    """A store within one process: for tests, and the plainest way to read what every store does."""

    def __init__(self, node: str, books: MemoryBooks | None = None) -> None:
        self._node = node
        self._books = books or MemoryBooks()

    async def connect(self) -> None:
        """Nothing to connect to."""

    async def take(self, limit: SharedLimit, ask: Ask) -> Told:
        books, now = self._books, self._books.now()
        books.seen[self._node] = now
        charges = books.of(limit, now)
        charges.charge(limit, ask.owed, now)
        id = f"{self._node}:{next(books.numbers)}"
        amount = charges.grant(limit, id, ask, now)
        is_young = books.age(now) < limit.kept
        used = () if limit.refill_rate else charges.used(limit, now)
        return Told(id, amount, used, charges.tokens, await self.nodes(), is_young)

    async def release(self, limit: SharedLimit, slice: str, amount: float) -> bool:
        return self._books.of(limit, self._books.now()).give_back(limit, slice, amount)

    async def nodes(self) -> int:
        now = self._books.now()
        self._books.seen = {node: at for node, at in self._books.seen.items() if now - SEEN <= at <= now}
        return len(self._books.seen)

    async def leave(self) -> None:
        self._books.seen.pop(self._node, None)

    async def aclose(self) -> None:
        """Nothing to let go of."""
