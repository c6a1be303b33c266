"""What a provider's own responses taught about the limits of one model.

The headers are the truth: a balance is never above what they say remains. But others may share the key, and
requests of ours may be on their way that the provider has not counted yet, so that its number is not ours.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from math import inf

from rubberduck.core.bucket import WINDOW_SECONDS
from rubberduck.core.meters import Meters
from rubberduck.core.observed import ObservedWindow, WindowSnapshot
from rubberduck.core.pace import Pace
from rubberduck.core.rate_headers import Quota
from rubberduck.core.sliding import TIME_TOLERANCE
from rubberduck.core.waiting_line import Amounts, Needs

LONGEST_BLOCK = 86_400.0
"""Seconds that a reset or a hint is believed for at most; the response after that teaches anew."""
LONGEST_BACKOFF = 60.0
EVERYTHING = "everything"
"""What a block counts that is not about one limit only."""
MODELS = 1000
"""Of how many models the limits are remembered; names come from users."""


@dataclass(frozen=True, slots=True)
class LearnedSnapshot:
    """What was learned of one model, by times relative to now; `sent_before` None: nothing was applied yet."""

    blocked_for: dict[str, float]
    pace: tuple[float, float]
    refusals: int
    refused_before: float | None
    sent_before: float | None
    windows: dict[str, WindowSnapshot] = field(default_factory=dict)


class Learned:
    """The limits of one model, as far as its responses told, and how it is treated after a refusal."""

    __slots__ = ("_blocked", "_refusals", "_refused_at", "_rests_until", "_sent_at", "meters", "pace", "windows")

    def __init__(self) -> None:
        self.pace = Pace()
        self.meters = Meters()
        self.windows: dict[str, ObservedWindow] = {}
        self._blocked: dict[str, float] = {}  # until when, by what it counts
        self._rests_until = -inf
        self._refusals = 0
        self._refused_at = -inf
        self._sent_at = -inf

    # -- asking --------------------------------------------------------------------------------------------

    def wait(self, amounts: Amounts, now: float) -> float:
        """Seconds until one request of `amounts` may go. One larger than a limit goes when nothing else counts."""
        return self.wait_for(self.meters.needs(amounts), amounts, now)

    def wait_for(self, needs: Needs, amounts: Amounts, now: float) -> float:
        """The same, for who has picked the needs of its `meters` already."""
        wait = self.meters.wait(needs, now)
        return wait if now >= self._rests_until else max(wait, self._rest(amounts, now))

    def wait_for_all(self, amounts: Amounts, now: float) -> float:
        """About how many seconds it takes until requests of `amounts` together have gone."""
        return max(self.meters.wait_for_all(self.meters.needs(amounts), now), self._rest(amounts, now))

    def _rest(self, amounts: Amounts, now: float) -> float:
        """Seconds for which the provider said to wait, whatever we have used."""
        waits = [
            until - now
            for counts, until in self._blocked.items()
            if until - now > TIME_TOLERANCE and (counts == EVERYTHING or getattr(amounts, unit_of(counts)) > 0)
        ]
        return max(waits, default=0.0)

    def _block(self, counts: str, until: float) -> None:
        self._blocked[counts] = max(until, self._blocked.get(counts, -inf))
        self._rests_until = max(until, self._rests_until)

    def output_limits(self) -> list[float]:
        """The limits that output counts against."""
        return [window.most for counts, window in self.windows.items() if counts not in ("requests", "input")]

    def input_limits(self) -> list[float]:
        """The limits that input counts against."""
        return [window.most for counts, window in self.windows.items() if counts not in ("requests", "output")]

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
                self._block(counts, now + reset)
            window = self._window(counts, quota, unseen, now)
            if window is not None and quota.remaining is not None:
                until = now + (WINDOW_SECONDS if reset is None else reset)
                window.room_at_most(quota.remaining - getattr(unseen, unit_of(counts)), until, now)

    def _window(self, counts: str, quota: Quota, unseen: Amounts, now: float) -> ObservedWindow | None:
        window = self.windows.get(counts)
        if window is None and quota.limit is not None:
            window = ObservedWindow(quota.limit, self.pace)
            window.take(getattr(unseen, unit_of(counts)), now)
            self._add(counts, window)
        elif window is not None and quota.limit is not None:
            window.most = quota.limit
        return window

    def _add(self, counts: str, window: ObservedWindow) -> None:
        self.windows[counts] = window
        self.meters.add(unit_of(counts), window)

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
        self._block(EVERYTHING, now + min(hint, LONGEST_BLOCK))
        return is_new

    def penalise(self, until: float) -> None:
        """Nothing goes before `until`: the provider said so. Never shortens an earlier penalty."""
        self._block(EVERYTHING, until)

    def answered(self, sent_at: float) -> None:
        """An answer ends a row of refusals, if it was asked for after the last one."""
        if sent_at > self._refused_at:
            self._refusals = 0

    # -- what survives -------------------------------------------------------------------------------------

    def snapshot(self, now: float) -> LearnedSnapshot:
        return LearnedSnapshot(
            blocked_for={counts: until - now for counts, until in self._blocked.items() if until > now},
            pace=self.pace.snapshot(now),
            refusals=self._refusals,
            refused_before=None if self._refused_at == -inf else now - self._refused_at,
            sent_before=None if self._sent_at == -inf else now - self._sent_at,
            windows={counts: window.snapshot(now) for counts, window in self.windows.items()},
        )

    @classmethod
    def restore(cls, snapshot: LearnedSnapshot, now: float) -> Learned:
        learned = cls()
        for counts, seconds in snapshot.blocked_for.items():
            learned._block(counts, now + seconds)
        learned.pace = Pace.restore(snapshot.pace, now)
        learned._refusals = snapshot.refusals
        learned._refused_at = -inf if snapshot.refused_before is None else now - snapshot.refused_before
        learned._sent_at = -inf if snapshot.sent_before is None else now - snapshot.sent_before
        for counts, window in snapshot.windows.items():
            learned._add(counts, ObservedWindow.again(window, learned.pace, now))
        return learned


def unit_of(counts: str) -> str:
    """Which field of Amounts a limit of this name is about: some count all tokens of a project."""
    return counts if counts in ("requests", "input", "output") else "tokens"


class LearnedModels:
    """What was learned, by model. Those heard of last are remembered."""

    __slots__ = ("_models",)

    def __init__(self) -> None:
        self._models: OrderedDict[str, Learned] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._models)

    def get(self, model: str) -> Learned | None:
        return self._models.get(model)

    def of(self, model: str) -> Learned:
        """What is known of `model`, beginning with nothing."""
        learned = self._models.get(model)
        if learned is None:
            learned = self._models[model] = Learned()
            if len(self._models) > MODELS:
                self._models.popitem(last=False)
        else:
            self._models.move_to_end(model)
        return learned

    def limits(self) -> dict[str, dict[str, float]]:
        """The limits per minute, by model and by what they count."""
        return {
            model: {counts: window.most for counts, window in learned.windows.items()}
            for model, learned in self._models.items()
        }

    def snapshot(self, now: float) -> dict[str, LearnedSnapshot]:
        return {model: learned.snapshot(now) for model, learned in self._models.items()}

    @classmethod
    def restore(cls, snapshot: dict[str, LearnedSnapshot], now: float) -> LearnedModels:
        models = cls()
        for model, learned in snapshot.items():
            models._models[model] = Learned.restore(learned, now)
        return models
