"""How one of several processes (nodes) spends a limit that all of them share through a store.

A node takes slices of the limit ahead of its calls, 5 % at a time or what a large call needs. The store charges a slice
when it grants it; the node spends it without asking again, for 2 s at most, and then gives back what is left. The
store counts a charge for as long after the minute as a slice may be spent, so that no minute sees more than the limit.

    PRESENT   leases only
    CAREFUL   leases, and within a share: the store is young and may have forgotten, or it has just come back
    AWAY      within a share, and without leases; what is spent is told when the store is back

The share is four fifths of the limit, divided by the nodes last seen. While the store is away it grows only by
what, as the store last told, the others' spending leaves free. What is larger than a share goes alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf

from rubberduck.core.bucket import Cell, Meter, MinuteWindow, TokenBucket
from rubberduck.core.shared_limit import Ask, SharedLimit, Told
from rubberduck.core.sliding import SlidingSum

SLICE = 0.05
"""The part of a limit that is taken at once, unless a call needs more."""
SHARE = 0.8
"""The part of a limit that all nodes together spend while they cannot ask the store."""
BEAT = 0.5
"""Seconds after which a node that needs nothing still asks: so it is seen, and hears what others have used."""
CAREFUL = 5.0
"""Seconds within which all nodes find out that the store is back, and tell it what they have spent."""
ROUND_TRIP = 0.01
"""Seconds in which a slice should come."""
LEAST_RETRY = 0.05
"""Seconds after which the store is asked again at the earliest when it had no room."""
_WANTS = 100
"""Of how many calls it is remembered what they lacked, until the store has answered."""
_DUST = 1e-9


class _Mode(Enum):
    PRESENT = 1
    CAREFUL = 2
    AWAY = 3


@dataclass(slots=True)
class _Slice:
    id: str
    left: float
    expires_at: float


class LeasedMeter:
    """A meter of what this node has at hand of a shared limit. `own` is the meter of what it has itself taken.

    Decides at once, by what is at hand; `on_short` is called when there is too little, once until the store was heard.
    `least_nodes` are assumed where nobody has been seen.
    """

    def __init__(
        self,
        limit: SharedLimit,
        own: Meter,
        on_short: Callable[[], object] = lambda: None,
        *,
        least_nodes: int = 1,
    ) -> None:
        self.limit = limit
        self._own = own
        self._on_short = on_short
        self._mode = _Mode.PRESENT
        self._hand: deque[_Slice] = deque()
        self._wanted: list[float] = []
        self._is_short = False
        self._was_refused = False
        self._told_at = -inf
        self._tokens = 0.0
        self._nodes = least_nodes
        self._least_nodes = least_nodes
        self._used = SlidingSum(limit.window + limit.lease, limit.cell)
        self._share: Meter | None = None
        self._careful_until = -inf
        self._untold = SlidingSum(limit.window)
        self._in_telling: SlidingSum | None = None

    @property
    def most(self) -> float:
        return self._own.most

    @property
    def is_away(self) -> bool:
        """Whether it spends without the store."""
        return self._mode is _Mode.AWAY

    @property
    def nodes(self) -> int:
        """How many share the limit, this one included, as far as was heard."""
        return self._nodes

    def at_hand(self, now: float) -> float:
        """What may be spent at once."""
        while self._hand and self._hand[0].expires_at <= now:
            self._hand.popleft()
        return sum([each.left for each in self._hand])

    # -- as a meter ----------------------------------------------------------------------------------------

    def wait(self, amount: float, now: float) -> float:
        """As of every meter; but a wait for the store is an estimate, and others may be quicker."""
        wait = 0.0 if self._share is None else self._share.wait(min(amount, self._share.most), now)
        if self._mode is _Mode.AWAY:
            return wait
        lacking = min(amount, self.most) - self.at_hand(now)
        return wait if lacking <= _DUST else max(wait, self._run_short(lacking, now))

    def wait_for_all(self, amount: float, now: float) -> float:
        return self.wait(amount, now)

    def _run_short(self, lacking: float, now: float) -> float:
        """See that so much more is asked for, once there may be room for it. Seconds until it may be here."""
        room_at = self._room_at(lacking, now)
        if room_at <= now and len(self._wanted) < _WANTS:
            self._wanted.append(self.at_hand(now) + lacking)
        if room_at <= now and not self._is_short:
            self._is_short = True
            self._on_short()
        return max(ROUND_TRIP, room_at - now)

    def _room_at(self, lacking: float, now: float) -> float:
        """When the store may have room for `lacking`, by what it last told."""
        if not self._was_refused:
            return now
        if self.limit.refill_rate:
            at = self._told_at + (lacking - self._tokens) / self.limit.refill_rate
        else:
            at = self._used.when_at_most(self.limit.most - lacking, now)
        return max(at, self._told_at + LEAST_RETRY)

    def take(self, amount: float, now: float) -> Cell:
        """Which slice it came from first, by the end of its lease (0: from none), and whether the share was charged."""
        if self._share is not None:
            self._share.take(amount, now)
        expires_at = self._spend(min(amount, self.most), now)
        return [expires_at, 0.0 if self._share is None else 1.0]

    def _spend(self, amount: float, now: float) -> float:
        """Take from the slices at hand, the oldest first; what they lack is owed. The end of the first one's lease."""
        left = amount
        first = 0.0
        if self._mode is not _Mode.AWAY:
            at_hand = self.at_hand(now)
            for each in self._hand:
                if left > 0 < each.left:
                    first = first or each.expires_at
                    taken = min(left, each.left)
                    each.left -= taken
                    left -= taken
            if at_hand - amount < SLICE * self.limit.most / 2:
                self._run_short(_DUST, now)
        if left > _DUST:
            self._untold.add(left, now)
        return first

    def settle(self, cell: Cell, taken: float, actual: float, now: float) -> None:
        """A surplus goes back to its slice, and is lost once that has expired; an excess is owed to the store."""
        if self._share is not None and (actual > taken or (cell is not None and cell[1])):
            self._share.settle(None, taken, actual, now)
        if actual > taken:
            self._spend(actual - taken, now)
        elif cell is not None:
            self.at_hand(now)
            for each in self._hand:
                if each.expires_at == cell[0]:
                    each.left += taken - actual
                    return

    # -- with the store ------------------------------------------------------------------------------------

    def ask(self, now: float) -> Ask:
        """What to ask the store for now; to be followed by `answered` or `failed`."""
        if self._in_telling is not None:
            self.failed(now)  # the last question was never followed up
        self._in_telling, self._untold = self._untold, SlidingSum(self.limit.window)
        owed = self._in_telling.total(now)
        if not self._wanted:
            return Ask(owed=owed)
        at_hand = self.at_hand(now)
        amount = max(SLICE * self.limit.most, max(self._wanted) - at_hand)
        return Ask(amount, max(0.0, min(self._wanted) - at_hand), owed)

    def answered(self, ask: Ask, told: Told, sent_at: float, now: float) -> None:
        """The store has answered what was asked at `sent_at`."""
        self._in_telling = None
        self._is_short = False
        self._wanted.clear()
        self._used.restore([*told.used], now)
        self._tokens, self._told_at = told.tokens, now
        if told.amount > 0:
            self._hand.append(_Slice(told.slice, told.amount, sent_at + self.limit.lease))
        if ask.amount:
            self._was_refused = told.amount <= 0
        self._hear(told, now)

    def _hear(self, told: Told, now: float) -> None:
        """Decide by an answer how far the store can be relied on."""
        if self._mode is _Mode.AWAY:
            self._enter(_Mode.CAREFUL, now)
            self._careful_until = now + CAREFUL
        if told.is_young and self._mode is _Mode.PRESENT:
            self._nodes = max(self._nodes, told.nodes)
            self._enter(_Mode.CAREFUL, now)
        if self._mode is _Mode.CAREFUL and not told.is_young and now >= self._careful_until:
            self._enter(_Mode.PRESENT, now)
        nodes = max(told.nodes, self._least_nodes)
        if self._mode is _Mode.PRESENT:
            self._nodes = nodes
        elif nodes > self._nodes:  # who has not come back yet still spends its share
            self._nodes = nodes
            self._enter(self._mode, now)

    def failed(self, now: float) -> None:
        """The store did not answer, or not in time: whatever it may have granted is not used."""
        self._is_short = False
        self._wanted.clear()
        if (telling := self._in_telling) is not None:
            telling.add(self._untold.total(now), now)
            self._untold, self._in_telling = telling, None

    def lost(self, now: float) -> None:
        """The store is away: go on within the share. What is at hand waits for it to come back soon, or expires."""
        if self._mode is not _Mode.AWAY:
            self._enter(_Mode.AWAY, now)

    def give_back(self, now: float, *, everything: bool = False) -> list[tuple[str, float]]:
        """The slices that end before the next beat, by id, and what is left of each; they can be spent no more."""
        self.at_hand(now)
        back = []
        soon = inf if everything else now + min(BEAT, self.limit.lease / 4)
        while self._hand and self._hand[0].expires_at <= soon:
            each = self._hand.popleft()
            if each.left > _DUST:
                back.append((each.id, each.left))
        return back

    # -- the share -----------------------------------------------------------------------------------------

    def _enter(self, mode: _Mode, now: float) -> None:
        """The one way from mode to mode. A share that is in use stays as full as it is."""
        before, self._mode = self._mode, mode
        if mode is _Mode.PRESENT:
            self._share = None
        elif isinstance(self._own, MinuteWindow):
            self._share = _MinuteShare(self._own, self._nodes, self if mode is _Mode.AWAY else None)
        else:
            self._share = self._bucket_share(0.0 if mode is _Mode.AWAY else inf, before, now)

    def _bucket_share(self, tokens: float, before: _Mode, now: float) -> TokenBucket:
        part = SHARE / self._nodes
        if before is not _Mode.PRESENT and isinstance(self._share, TokenBucket):
            tokens = self._share.tokens(now)
        return TokenBucket(
            self.limit.most * part, self.limit.refill_rate * part, now, tokens=min(tokens, self.limit.most * part)
        )

    def wait_for_room(self, amount: float, nodes: int, now: float) -> float:
        """Seconds until what was in use when the store was last heard leaves so much to each of `nodes`."""
        if not self._used.total(now):
            return 0.0
        spent = self._untold.total(now) + (self._in_telling.total(now) if self._in_telling is not None else 0.0)
        return self._used.when_at_most(self.limit.most - nodes * (spent + amount), now) - now


class _MinuteShare:
    """A part of a limit per minute, for one who can ask nobody. What this node has taken counts, however it did."""

    def __init__(self, own: MinuteWindow, nodes: int, leases: LeasedMeter | None) -> None:
        self._own = own
        self._nodes = nodes
        self._leases = leases

    @property
    def most(self) -> float:
        return SHARE * self._own.most / self._nodes

    def wait(self, amount: float, now: float) -> float:
        wait = self._own.when_at_most(self.most - amount, now) - now
        return wait if self._leases is None else max(wait, self._leases.wait_for_room(amount, self._nodes, now))

    def wait_for_all(self, amount: float, now: float) -> float:
        return self.wait(min(amount, self.most), now)

    def take(self, amount: float, now: float) -> Cell:
        return None

    def settle(self, cell: Cell, taken: float, actual: float, now: float) -> None:
        """Nothing: the node's own meter knows."""
