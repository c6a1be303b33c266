"""What a limiter has granted and not heard of again, and what of late was settled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from rubberduck.core.bucket import Cell
from rubberduck.core.learned import Learned
from rubberduck.core.waiting_line import Amounts, Needs

REMEMBERED = 4096
"""How many settled ids are remembered at least, so that a repeated question is recognised; twice as many at most."""


@dataclass(slots=True)
class Reservation:
    """One that is out, or asked for. Times are monotonic seconds.

    `needs` and `cells` are what is charged to the configured limits, and where in time that stands; `learned_needs` and
    `learned_cells` the same to what is `learned` of the model by then. `is_seen`: a response has told of it.
    """

    amounts: Amounts
    needs: Needs
    model: str
    since: float
    expires_at: float
    learned: Learned | None
    learned_needs: Needs
    cells: Sequence[Cell] = ()
    learned_cells: Sequence[Cell] = ()
    is_seen: bool = False


class Reservations:
    """Those that are out, by id, the oldest first."""

    __slots__ = ("_earlier", "_settled", "no_loss_before", "out")

    def __init__(self) -> None:
        self.out: dict[str, Reservation] = {}
        # When the first of them may have to be given up for lost. Its holder may have come back since.
        self.no_loss_before = inf
        self._settled: dict[str, None] = {}
        self._earlier: dict[str, None] = {}

    def was_granted(self, id: str) -> bool:
        """Whether it is out, or was until a while ago."""
        return id in self.out or id in self._settled or id in self._earlier

    def add(self, id: str, reservation: Reservation) -> None:
        self.out[id] = reservation
        if reservation.expires_at < self.no_loss_before:
            self.no_loss_before = reservation.expires_at

    def remember(self, id: str) -> None:
        """It was settled: asking with this id again is no new question."""
        self._settled[id] = None
        if len(self._settled) >= REMEMBERED:
            self._earlier, self._settled = self._settled, {}

    def lose_expired(self, now: float) -> list[Reservation]:
        """Those whose holders never came back; they are out no more. Looks at all, so not before `no_loss_before`."""
        expired = {id: each for id, each in self.out.items() if each.expires_at <= now}
        for id in expired:
            del self.out[id]
            self.remember(id)
        self.no_loss_before = min([each.expires_at for each in self.out.values()], default=inf)
        return list(expired.values())

    def unseen(self, model: str, answered: str | None, sent_at: float) -> Amounts:
        """What was granted to `model` after the request that was `answered`: it may be too young for that answer.

        Where that one is out no more, what was granted after `sent_at`.
        """
        is_out = answered in self.out
        requests = input_ = output = 0.0
        for id, other in reversed(self.out.items()):
            if id == answered or (not is_out and other.since <= sent_at):
                break
            if other.model == model and not other.is_seen:
                requests += other.amounts.requests
                input_ += other.amounts.input
                output += other.amounts.output
        return Amounts(requests, input_, output, 0)
