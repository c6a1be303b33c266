"""What a route's recent attempts tell about the next one: health, latency, pace.

Sources: peak EWMA as in twitter/finagle, PeakEwma.scala: a slower answer counts at once, faster ones are
believed only with time.
"""

from __future__ import annotations

from collections import deque
from math import exp, isfinite
from typing import TypeGuard

from rubberduck.core.breaker import Outcome

HALF_LIFE = 10.0
"""Seconds after which an outcome counts half."""
UNKNOWN_TTFT = 1.0
UNKNOWN_TPOT = 0.02
"""Seconds assumed of a route that never answered: time to first token, time per output token."""
RAMP_SECONDS = 30.0
RAMP_FLOOR = 0.1
RECENT = 128
"""How many durations the quantiles are taken from."""


class RouteStats:
    """The memory of one route. Outcomes are the breaker's; `ttft` and `tpot` are seconds."""

    __slots__ = (
        "_all",
        "_at",
        "_durations",
        "_good",
        "_ramp_from",
        "_ttft",
        "_ttft_at",
        "answered",
        "inflight",
        "tpot",
    )

    def __init__(self, now: float) -> None:
        self.inflight = 0
        self.answered = 0
        self.tpot = UNKNOWN_TPOT
        self._ttft = UNKNOWN_TTFT
        self._ttft_at = now
        self._good = self._all = 0.0
        self._at = now
        self._ramp_from: float | None = None
        self._durations: deque[float] = deque(maxlen=RECENT)

    def started(self) -> None:
        self.inflight += 1

    def ended(
        self,
        outcome: Outcome,
        now: float,
        *,
        ttft: float | None = None,
        tpot: float | None = None,
        duration: float | None = None,
    ) -> None:
        """One attempt is over. Only a success teaches latency: a fast refusal is no fast answer."""
        self.inflight = max(0, self.inflight - 1)
        if outcome is Outcome.SUCCESS or outcome is Outcome.FAILURE:
            self._decay(now)
            self._all += 1
            self._good += outcome is Outcome.SUCCESS
        if outcome is not Outcome.SUCCESS:
            return
        if _is_time(ttft):
            self._learn_ttft(ttft, now)
        if _is_time(tpot):
            self.tpot = tpot if not self.answered else self.tpot + 0.1 * (tpot - self.tpot)
        if _is_time(duration):
            self._durations.append(duration)
        self.answered += 1

    def reclosed(self, now: float) -> None:
        """The route's circuit has just closed: its weight grows back from a tenth within 30 s."""
        self._ramp_from = now

    def health(self, now: float) -> float:
        """The share of successes, younger ones counting more; one success is assumed to begin with."""
        self._decay(now)
        return (self._good + 1) / (self._all + 1)

    def ttft(self, now: float) -> float:
        return self._ttft

    def ramp(self, now: float) -> float:
        """The share of its weight that the route is given, 0.1 to 1."""
        if self._ramp_from is None:
            return 1.0
        share = max(RAMP_FLOOR, (now - self._ramp_from) / RAMP_SECONDS)
        if share >= 1:
            self._ramp_from = None
        return min(1.0, share)

    @property
    def is_proven(self) -> bool:
        """Whether it has answered at all; until then it gets one attempt at a time."""
        return self.answered > 0

    def quantile(self, q: float) -> float | None:
        """The q-quantile of recent whole durations in seconds; None without any."""
        if not self._durations:
            return None
        ordered = sorted(self._durations)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]

    def _learn_ttft(self, ttft: float, now: float) -> None:
        if ttft >= self._ttft or not self.answered:
            self._ttft = ttft
        else:
            believed = exp(-max(0.0, now - self._ttft_at) / HALF_LIFE)
            self._ttft = self._ttft * believed + ttft * (1 - believed)
        self._ttft_at = now

    def _decay(self, now: float) -> None:
        if now > self._at:
            kept = 0.5 ** ((now - self._at) / HALF_LIFE)
            self._good *= kept
            self._all *= kept
            self._at = now


def _is_time(seconds: float | None) -> TypeGuard[float]:
    return seconds is not None and isfinite(seconds) and seconds >= 0
