"""A limit per minute that a provider's headers taught, with what others have used of it."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass

from rubberduck.core.bucket import MinuteWindow
from rubberduck.core.pace import Pace
from rubberduck.core.sliding import TIME_TOLERANCE

_MOST_ENTRIES = 64


@dataclass(frozen=True, slots=True)
class WindowSnapshot:
    """A window by times relative to now."""

    limit: float
    ages: list[tuple[float, float]]
    foreign: list[tuple[float, float]]


class ObservedWindow(MinuteWindow):
    """A limit per minute that the headers taught, with what others have used of it.

    What others used counts until the provider's reset, our own for the whole minute.
    """

    __slots__ = ("_foreign",)

    def __init__(self, limit: float, pace: Pace) -> None:
        super().__init__(limit, pace)
        self._foreign: deque[list[float]] = deque()  # (until, amount), the first to end first

    def used(self, now: float) -> float:
        foreign = self._foreign
        if foreign and foreign[0][0] <= now + TIME_TOLERANCE:
            while foreign and foreign[0][0] <= now + TIME_TOLERANCE:
                foreign.popleft()
            self._add_up()
        return self.total(now) + self._others

    def _add_up(self) -> None:
        self._others = sum([amount for _, amount in self._foreign])

    def room_at_most(self, balance: float, until: float, now: float) -> None:
        """Lower the room to `balance`, if it is above; what it is lowered by comes back at `until`."""
        excess = self.most - self.used(now) - balance
        if excess <= 1e-9:
            return
        self._foreign.append([until, excess])
        self._foreign = deque(sorted(self._foreign))
        if len(self._foreign) > _MOST_ENTRIES:
            # The two whose ends lie closest become one, with the later end: that errs on the safe side.
            ends = self._foreign
            closest = min(range(len(ends) - 1), key=lambda index: ends[index + 1][0] - ends[index][0])
            ends[closest + 1][1] += ends[closest][1]
            del ends[closest]
        self._add_up()

    def _when_used_is(self, amount: float, now: float) -> float:
        excess = self.used(now) - amount
        if excess <= 1e-9:
            return now
        at = now
        for at, held in heapq.merge(self.expiries(now), map(tuple, self._foreign)):  # noqa: B007 (the last one)
            excess -= held
            if excess <= 1e-9:
                break
        return at

    def snapshot(self, now: float) -> WindowSnapshot:
        self.used(now)
        foreign = [(until - now, amount) for until, amount in self._foreign]
        return WindowSnapshot(self.most, self.ages(now), foreign)

    @classmethod
    def again(cls, snapshot: WindowSnapshot, pace: Pace, now: float) -> ObservedWindow:
        """The window that `snapshot` was taken of."""
        window = cls(snapshot.limit, pace)
        window.restore(snapshot.ages, now)
        window._foreign = deque([now + remaining, amount] for remaining, amount in snapshot.foreign)
        window._add_up()
        return window
