"""Who waits for a limiter, and in which order they go.

First come, first served within a class. The first of each class books its start, in the order in which they
became first; a later booking waits for the earlier ones, whatever its class.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

CLASSES = ("high", "normal", "low")

Klass = Literal["high", "normal", "low"]
Needs = Sequence[float]
"""What each meter is asked for, in the order of the meters."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a call takes, or what it took: requests, tokens, and slots held until it ends."""

    requests: float = 1
    input: float = 0
    output: float = 0
    concurrency: int = 1

    @property
    def tokens(self) -> float:
        return self.input + self.output


@dataclass(slots=True, eq=False)
class Waiter:
    """One who asked and could not be served at once. Times are monotonic seconds, `ttl` a length."""

    id: str
    amounts: Amounts
    needs: Needs
    deadline: float
    klass: Klass
    ttl: float
    is_waiting: bool = True


class WaitingLine:
    """All waiters of one limiter. Entering, leaving and the next in turn cost the same however long it is."""

    def __init__(self, meters: int) -> None:
        self._by_id: dict[str, Waiter] = {}
        self._by_class: dict[str, OrderedDict[str, Waiter]] = {klass: OrderedDict() for klass in CLASSES}
        self._sums: dict[str, list[float]] = {klass: [0.0] * meters for klass in CLASSES}
        self._booked: list[Waiter] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, id_: str) -> Waiter | None:
        return self._by_id.get(id_)

    @property
    def first(self) -> Waiter | None:
        """Who goes next."""
        return self._booked[0] if self._booked else None

    def needs_until(self, waiter: Waiter) -> Needs:
        """What must be granted until a newcomer has had its turn: its class, and what the other classes booked."""
        total: Needs = self._sums[waiter.klass]
        for other in (waiter, *self._booked):
            if other is waiter or other.klass != waiter.klass:
                total = [so_far + need for so_far, need in zip(total, other.needs, strict=True)]
        return total

    def needs_of_class(self, klass: Klass) -> Needs:
        """What all waiters of a class need together."""
        return self._sums[klass]

    def enter(self, waiter: Waiter) -> None:
        members = self._by_class[waiter.klass]
        if not members:
            self._booked.append(waiter)
        members[waiter.id] = self._by_id[waiter.id] = waiter
        self._add_up(waiter, 1)
        if waiter.deadline < inf:
            self._sweep()
            self._arrivals += 1
            heapq.heappush(self._deadlines, (waiter.deadline, self._arrivals, waiter))

    def leave(self, waiter: Waiter) -> None:
        waiter.is_waiting = False
        members = self._by_class[waiter.klass]
        was_first = next(iter(members)) == waiter.id
        del members[waiter.id], self._by_id[waiter.id]
        self._add_up(waiter, -1)
        if was_first:
            self._booked.remove(waiter)
            if members:
                self._booked.append(next(iter(members.values())))

    def next_deadline(self) -> float | None:
        while self._deadlines and not self._deadlines[0][2].is_waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def leave_expired(self, now: float) -> list[Waiter]:
        """Those whose deadline has come; they have left."""
        expired = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            self.leave(waiter)
            expired.append(waiter)
        return expired

    def _add_up(self, waiter: Waiter, sign: int) -> None:
        members, sums = self._by_class[waiter.klass], self._sums[waiter.klass]
        for index, need in enumerate(waiter.needs):
            # An empty line needs nothing, exactly: no remainder of floating point may stay.
            sums[index] = sums[index] + sign * need if members else 0.0

    def _sweep(self) -> None:
        if len(self._deadlines) > 2 * len(self._by_id) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_waiting]
            heapq.heapify(self._deadlines)
