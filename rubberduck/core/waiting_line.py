"""Who waits for a limiter, and in which order they go.

First come, first served within a class and model. The first of each books its start, in the order in which they
became first; a later booking waits for the earlier ones, whatever its class, unless those wait for their model.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from rubberduck.core.values import value

Klass = Literal["high", "normal", "low"]
CLASSES: tuple[Klass, ...] = ("high", "normal", "low")
Needs = Sequence[float]
"""What each meter is asked for, in the order of the meters."""


@value(frozen=True, slots=True)
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
    model: str = ""
    is_waiting: bool = True

    @property
    def lane(self) -> tuple[str, str]:
        return self.klass, self.model


class WaitingLine:
    """All waiters of one limiter. Entering, leaving and the next in turn cost the same however long it is."""

    def __init__(self, meters: int) -> None:
        self._by_id: dict[str, Waiter] = {}
        self._lanes: dict[tuple[str, str], OrderedDict[str, Waiter]] = {}
        # What a lane needs of each meter, then its requests, input and output: what a model's own limits are about.
        self._sums: dict[tuple[str, str], list[float]] = {}
        self._meters = meters
        # The first of each lane, in the order in which they go. To be read only: it is looked at before every grant.
        self.booked: list[Waiter] = []
        self._deadlines: list[tuple[float, int, Waiter]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, id_: str) -> Waiter | None:
        return self._by_id.get(id_)

    def waiting_for(self, model: str) -> int:
        """How many wait for `model`, in all classes."""
        return sum([len(self._lanes.get((klass, model), ())) for klass in CLASSES])

    def needs_until(self, waiter: Waiter) -> tuple[Needs, Amounts]:
        """What must be granted until a newcomer has had its turn: its lane, and what the others booked.

        The amounts are those of its own model.
        """
        total = list(self._sums.get(waiter.lane, (0.0,) * (self._meters + 3)))
        for other in (waiter, *self.booked):
            if other is waiter or other.lane != waiter.lane:
                is_same = other.model == waiter.model
                for index, need in enumerate(_all_needs(other) if is_same else other.needs):
                    total[index] += need
        return self._split(total)

    def needs_of_lane(self, waiter: Waiter) -> tuple[Needs, Amounts]:
        """What all in the lane of a waiter need together."""
        return self._split(self._sums[waiter.lane])

    def _split(self, total: list[float]) -> tuple[Needs, Amounts]:
        requests, input_, output = total[self._meters :]
        return total[: self._meters], Amounts(requests, input_, output)

    def enter(self, waiter: Waiter) -> None:
        members = self._lanes.get(waiter.lane)
        if members is None:
            members = self._lanes[waiter.lane] = OrderedDict()
            self._sums[waiter.lane] = [0.0] * (self._meters + 3)
            self.booked.append(waiter)
        members[waiter.id] = self._by_id[waiter.id] = waiter
        self._add_up(waiter, 1.0)
        if waiter.deadline < inf:
            self._sweep()
            self._arrivals += 1
            heapq.heappush(self._deadlines, (waiter.deadline, self._arrivals, waiter))

    def leave(self, waiter: Waiter) -> None:
        waiter.is_waiting = False
        members = self._lanes[waiter.lane]
        was_first = next(iter(members)) == waiter.id
        del members[waiter.id], self._by_id[waiter.id]
        if was_first:
            self.booked.remove(waiter)
            if members:
                self.booked.append(next(iter(members.values())))
        if members:
            self._add_up(waiter, -1.0)
        else:  # an empty lane needs nothing, exactly: no remainder of floating point may stay
            del self._lanes[waiter.lane], self._sums[waiter.lane]

    def next_deadline(self) -> float:
        """When the next one has waited too long; inf if nobody ever will have."""
        while self._deadlines and not self._deadlines[0][2].is_waiting:
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else inf

    def leave_expired(self, now: float) -> list[Waiter]:
        """Those whose deadline has come; they have left."""
        expired = []
        while self.next_deadline() <= now:
            waiter = heapq.heappop(self._deadlines)[2]
            self.leave(waiter)
            expired.append(waiter)
        return expired

    def _add_up(self, waiter: Waiter, sign: float) -> None:
        sums = self._sums[waiter.lane]
        for index, need in enumerate(_all_needs(waiter)):
            sums[index] += sign * need

    def _sweep(self) -> None:
        if len(self._deadlines) > 2 * len(self._by_id) + 64:
            self._deadlines = [entry for entry in self._deadlines if entry[2].is_waiting]
            heapq.heapify(self._deadlines)


def _all_needs(waiter: Waiter) -> Needs:
    amounts = waiter.amounts
    return (*waiter.needs, amounts.requests, amounts.input, amounts.output)
