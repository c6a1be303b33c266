"""What a provider's own responses taught about the limits of one model.

The headers are the truth: a balance is never above what they say remains. But others may share the key, and
requests of ours may be on their way that the provider has not counted yet, so that its number is not ours.
"""

from __future__ import annotations

import heapq
import operator
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from rubberduck.core.bucket import WINDOW_SECONDS, MinuteWindow
from rubberduck.core.pace import Pace
from rubberduck.core.rate_headers import Quota
from rubberduck.core.sliding import TIME_TOLERANCE
from rubberduck.core.waiting_line import Amounts

LONGEST_BLOCK = 86_400.0
"""Seconds that a reset or a hint is believed for at most; the response after that teaches anew."""
LONGEST_BACKOFF = 60.0
_MOST_ENTRIES = 64

Taken = tuple["ObservedWindow", list[float] | None, float]


@dataclass(frozen=True, slots=True)
class WindowSnapshot:
    """A window by times relative to now."""

    limit: float
    ages: list[tuple[float, float]]
    foreign: list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class LearnedSnapshot:
    """What was learned of one model, by times relative to now; `sent_before` None: nothing was applied yet."""

    blocked_for: float
    dimensions_blocked_for: dict[str, float]
    pace: tuple[float, float]
    refusals: int
    refused_before: float | None
    sent_before: float | None
    windows: dict[str, WindowSnapshot] = field(default_factory=dict)


class ObservedWindow(MinuteWindow):
    """A limit per minute that the headers taught, with what others have used of it.

    What others used counts until the provider's reset, our own for the whole minute.
    """

    __slots__ = ("_foreign", "amount_of", "counts")

    def __init__(self, counts: str, limit: float, pace: Pace) -> None:
        super().__init__(limit, pace)
        self.counts = counts
        self.amount_of = amount_of(counts)
        self._foreign: deque[list[float]] = deque()  # (until, amount), the first to end first

    def used(self, now: float) -> float:
        foreign = self._foreign
        while foreign and foreign[0][0] <= now + TIME_TOLERANCE:
            foreign.popleft()
        used = self._sum.total(now)
        return used + sum([amount for _, amount in foreign]) if foreign else used

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

    def _when_at_most(self, amount: float, now: float) -> float:
        excess = self.used(now) - amount
        if excess <= 1e-9:
            return now
        at = now
        for at, held in heapq.merge(self._sum.expiries(now), map(tuple, self._foreign)):  # noqa: B007 (the last one)
            excess -= held
            if excess <= 1e-9:
                break
        return at

    def snapshot(self, now: float) -> WindowSnapshot:
        self.used(now)
        foreign = [(until - now, amount) for until, amount in self._foreign]
        return WindowSnapshot(self.most, self.ages(now), foreign)

    @classmethod
    def again(cls, counts: str, snapshot: WindowSnapshot, pace: Pace, now: float) -> ObservedWindow:
        """The window that `snapshot` was taken of."""
        window = cls(counts, snapshot.limit, pace)
        window.restore(snapshot.ages, now)
        window._foreign = deque([now + remaining, amount] for remaining, amount in snapshot.foreign)
        return window


class Learned:
    """The limits of one model, as far as its responses told, and how it is treated after a refusal."""

    __slots__ = ("_blocked", "_refusals", "_refused_at", "_sent_at", "blocked_until", "pace", "windows")

    def __init__(self) -> None:
        self.blocked_until = -inf
        self.pace = Pace()
        self.windows: dict[str, ObservedWindow] = {}
        self._blocked: dict[str, float] = {}
        self._refusals = 0
        self._refused_at = -inf
        self._sent_at = -inf

    # -- asking --------------------------------------------------------------------------------------------

    def wait(self, amounts: Amounts, now: float) -> float:
        """Seconds until one request of `amounts` may go. One larger than a limit goes when nothing else counts."""
        return self._wait(amounts, now, is_one=True)

    def wait_for_all(self, amounts: Amounts, now: float) -> float:
        """About how many seconds it takes until requests of `amounts` together have gone."""
        return self._wait(amounts, now, is_one=False)

    def _wait(self, amounts: Amounts, now: float, *, is_one: bool) -> float:
        longest = self.blocked_until - now if self.blocked_until > now else 0.0
        for counts, until in self._blocked.items():
            if until - now > longest and amount_of(counts)(amounts) > 0:
                longest = until - now
        for window in self.windows.values():
            need = window.amount_of(amounts)
            if need <= 0:
                continue
            wait = window.wait(min(need, window.most) if is_one else need, now)
            if wait > longest:
                longest = wait
        return longest

    def take(self, amounts: Amounts, now: float) -> list[Taken]:
        taken: list[Taken] = []
        for window in self.windows.values():
            need = window.amount_of(amounts)
            taken.append((window, window.take(need, now), need))
        return taken

    # -- learning ------------------------------------------------------------------------------------------

    def is_news(self, sent_at: float) -> bool:
        """Whether a response to a request of that time tells anything: not if a younger one has been heard."""
        return sent_at >= self._sent_at

    def observe(self, quotas: tuple[tuple[str, Quota], ...], sent_at: float, unseen: Amounts, now: float) -> None:
        """Believe what a response says, but for `unseen`: what is on its way and not in the provider's count."""
        self._sent_at = sent_at
        for counts, quota in quotas:
            reset = None if quota.reset is None else min(quota.reset, LONGEST_BLOCK)
            if quota.remaining == 0 and reset:
                self._blocked[counts] = max(self._blocked.get(counts, -inf), now + reset)
            window = self._window(counts, quota, unseen, now)
            if window is not None and quota.remaining is not None:
                until = now + (WINDOW_SECONDS if reset is None else reset)
                window.room_at_most(quota.remaining - window.amount_of(unseen), until, now)

    def _window(self, counts: str, quota: Quota, unseen: Amounts, now: float) -> ObservedWindow | None:
        window = self.windows.get(counts)
        if window is None and quota.limit is not None:
            window = self.windows[counts] = ObservedWindow(counts, quota.limit, self.pace)
            window.take(window.amount_of(unseen), now)
        elif window is not None and quota.limit is not None:
            window.most = quota.limit
        return window

    # -- refusals ------------------------------------------------------------------------------------------

    def refused(self, sent_at: float, hint: float | None, now: float) -> bool:
        """A 429: nothing goes before `hint` seconds, without one 1, 2, 4 .. 60. True if it is the first of its round.

        What was sent before the last refusal was known says nothing new: one round trip slows down once.
        """
        is_new = sent_at > self._refused_at
        if is_new:
            self._refusals += 1
            self._refused_at = now
            self.pace.halve(now)
        if hint is None:
            hint = min(LONGEST_BACKOFF, 2.0 ** max(0, min(self._refusals - 1, 10)))
        self.blocked_until = max(self.blocked_until, now + min(hint, LONGEST_BLOCK))
        return is_new

    def answered(self, sent_at: float) -> None:
        """An answer ends a row of refusals, if it was asked for after the last one."""
        if sent_at > self._refused_at:
            self._refusals = 0

    # -- what survives -------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> LearnedSnapshot:
        return LearnedSnapshot(
            blocked_for=max(0.0, self.blocked_until - now),
            dimensions_blocked_for={counts: until - now for counts, until in self._blocked.items() if until > now},
            pace=self.pace.snapshot(now),
            refusals=self._refusals,
            refused_before=None if self._refused_at == -inf else now - self._refused_at,
            sent_before=None if self._sent_at == -inf else now - self._sent_at,
            windows={counts: window.snapshot(now) for counts, window in self.windows.items()},
        )

    @classmethod
    def restore(cls, snapshot: LearnedSnapshot, now: float) -> Learned:
        learned = cls()
        learned.blocked_until = now + snapshot.blocked_for if snapshot.blocked_for else -inf
        learned._blocked = {counts: now + wait for counts, wait in snapshot.dimensions_blocked_for.items()}
        learned.pace = Pace.restore(snapshot.pace, now)
        learned._refusals = snapshot.refusals
        learned._refused_at = -inf if snapshot.refused_before is None else now - snapshot.refused_before
        learned._sent_at = -inf if snapshot.sent_before is None else now - snapshot.sent_before
        learned.windows = {
            counts: ObservedWindow.again(counts, window, learned.pace, now)
            for counts, window in snapshot.windows.items()
        }
        return learned


def amount_of(counts: str) -> Callable[[Amounts], float]:
    """What reads from amounts that which a limit of this name is about."""
    return _READERS.get(counts, _READERS["tokens"])


_READERS: dict[str, Callable[[Amounts], float]] = {
    name: operator.attrgetter(name) for name in ("requests", "input", "output", "tokens")
}
