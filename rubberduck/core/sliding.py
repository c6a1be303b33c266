"""Sums over the recent past, in constant space.

Both windows keep cells instead of single events. A cell counts until it lies wholly outside, so that a
sum never misses an event of the window; it may include events up to one cell older.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import floor

TIME_TOLERANCE = 1e-7
"""Seconds that a caller's own sum of `now` and a wait may fall short of the instant it was told."""


class SlidingSum:
    """Adds amounts up and forgets each `span` seconds after its cell ended.

    `add` returns the cell that took the amount, so that a part of it can be taken back later.
    """

    __slots__ = ("_cell", "_cells", "_keep", "_total")

    def __init__(self, span: float, cell: float = 1.0) -> None:
        self._cell = cell
        self._keep = span + cell
        self._cells: deque[list[float]] = deque()
        self._total = 0.0

    def add(self, amount: float, now: float) -> list[float]:
        cells = self._cells
        if cells and now - cells[-1][0] < self._cell:
            cell = cells[-1]
        else:
            self.total(now)  # who only adds must not pile up what has passed
            cell = [floor(now / self._cell) * self._cell, 0.0]
            cells.append(cell)
        cell[1] += amount
        self._total += amount
        return cell

    def take_back(self, cell: list[float], amount: float, now: float) -> None:
        """Undo a part of an earlier `add`; does nothing once its cell has passed."""
        if cell[0] + self._keep > now + TIME_TOLERANCE:
            cell[1] -= amount
            self._total -= amount

    def total(self, now: float) -> float:
        cells = self._cells
        while cells and cells[0][0] + self._keep <= now + TIME_TOLERANCE:
            self._total -= cells.popleft()[1]
        if not cells:
            self._total = 0.0
        return self._total

    def when_at_most(self, amount: float, now: float) -> float:
        """The first instant at which no more than `amount` is in the window, if nothing is added."""
        excess = self.total(now) - amount
        if excess <= 1e-9:
            return now
        for start, held in self._cells:
            excess -= held
            if excess <= 1e-9:
                return start + self._keep
        return (self._cells[-1][0] if self._cells else now) + self._keep

    def expiries(self, now: float) -> Iterator[tuple[float, float]]:
        """(when it leaves the window, amount) of each cell, the first to leave first."""
        self.total(now)
        return ((start + self._keep, held) for start, held in self._cells)

    def ages(self, now: float) -> list[tuple[float, float]]:
        """(age of the cell's start, amount) of each cell, oldest first: all there is to know."""
        self.total(now)
        return [(now - start, held) for start, held in self._cells]

    def restore(self, ages: list[tuple[float, float]], now: float) -> None:
        """Take over what `ages` reported, as if no time had passed since."""
        self._cells = deque([now - age, held] for age, held in ages)
        self._total = sum(held for _, held in ages)


class CountWindow:
    """Failures and slow calls among the last `size` outcomes."""

    __slots__ = ("_outcomes", "calls", "failures", "size", "slow")

    def __init__(self, size: int) -> None:
        self.size = size
        self._outcomes: deque[tuple[bool, bool]] = deque()
        self.calls = self.failures = self.slow = 0

    def record(self, failed: bool, slow: bool, now: float) -> None:
        if self.calls == self.size:
            old_failed, old_slow = self._outcomes.popleft()
            self.failures -= old_failed
            self.slow -= old_slow
        else:
            self.calls += 1
        self._outcomes.append((failed, slow))
        self.failures += failed
        self.slow += slow

    def advance(self, now: float) -> None:
        """Nothing: this window moves with calls, not with time."""


class TimeWindow:
    """Failures and slow calls among the outcomes of the last `span` seconds, in 20 cells."""

    __slots__ = ("_calls", "_failures", "_slow", "calls", "failures", "slow")

    def __init__(self, span: float, cells: int = 20) -> None:
        self._calls = SlidingSum(span, span / cells)
        self._failures = SlidingSum(span, span / cells)
        self._slow = SlidingSum(span, span / cells)
        self.calls = self.failures = self.slow = 0

    def record(self, failed: bool, slow: bool, now: float) -> None:
        self._calls.add(1, now)
        self._failures.add(failed, now)
        self._slow.add(slow, now)
        self.advance(now)

    def advance(self, now: float) -> None:
        self.calls = round(self._calls.total(now))
        self.failures = round(self._failures.total(now))
        self.slow = round(self._slow.total(now))
