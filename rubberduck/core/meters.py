"""Several meters as one: a request is granted by all of them or by none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, gt

from rubberduck.core.bucket import Cell, Meter
from rubberduck.core.waiting_line import Amounts, Needs


class Meters:
    """Meters in a row. `needs` picks what each of them is asked for out of a request's amounts."""

    __slots__ = ("_meters", "_units", "needs")

    def __init__(self) -> None:
        self._units: list[str] = []
        self._meters: list[Meter] = []
        self.needs: Callable[[Amounts], Needs] = _picker([])

    def __len__(self) -> int:
        return len(self._meters)

    def add(self, unit: str, meter: Meter) -> None:
        """One more, at the end. `unit` is what it counts: the name of a field of Amounts."""
        self._units.append(unit)
        self._meters.append(meter)
        self.needs = _picker(self._units)

    def can_ever_fit(self, needs: Needs) -> bool:
        return not any(map(gt, needs, [meter.most for meter in self._meters]))

    def wait(self, needs: Needs, now: float) -> float:
        """Seconds until each has what one request needs of it."""
        longest = 0.0
        for meter, need in zip(self._meters, needs):  # noqa: B905 (as many by the picker; the check costs as much again)
            if need > 0 and (wait := meter.wait(need, now)) > longest:
                longest = wait
        return longest

    def wait_for_all(self, needs: Needs, now: float) -> float:
        """About how many seconds it takes until so much in all has been taken, by several requests."""
        waits = [meter.wait_for_all(need, now) for meter, need in zip(self._meters, needs, strict=True) if need > 0]
        return max(waits, default=0.0)

    def take(self, needs: Needs, now: float) -> list[Cell]:
        """Take without asking; what it returns is needed to settle."""
        return [meter.take(need, now) for meter, need in zip(self._meters, needs)]  # noqa: B905 (as in `wait`)

    def settle(self, taken: Needs, cells: Sequence[Cell], actual: Amounts, now: float) -> None:
        """Correct an earlier taking. A meter that was added since then was asked for nothing."""
        for meter, need, cell, used in zip(self._meters, taken, cells, self.needs(actual)):  # noqa: B905 (see above)
            if need != used:
                meter.settle(cell, need, used, now)


def _picker(units: list[str]) -> Callable[[Amounts], Needs]:
    """What picks the needs of these units out of a vector: at every decision, so it must be quick."""
    if not units:
        return lambda amounts: ()
    if len(units) == 1:
        only = attrgetter(units[0])
        return lambda amounts: (only(amounts),)
    return attrgetter(*units)
