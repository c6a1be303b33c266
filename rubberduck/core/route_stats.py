"""What a route's recent attempts tell about the next one: health, latency, pace.

Sources: peak EWMA as in twitter/finagle, PeakEwma.scala: a slower answer counts at once, faster ones are believed
only with time, and what is known of a route that nobody asks any more fades, so that it is asked again.
"""

from __future__ import annotations

from collections import deque
from math import exp, isfinite
from typing import TypeGuard

from rubberduck.core.breaker import Outcome

HALF_LIFE = 10.0
"""Seconds after which an outcome counts half."""
FADE = 30.0
"""Seconds without an attempt after which a route's latency is believed to be a third of what it was."""
UNKNOWN_TTFT = 1.0
UNKNOWN_TPOT = 0.02
"""Seconds assumed of a route that never answered: time to first token, time per output token."""
RAMP_SECONDS = 30.0
RAMP_FLOOR = 0.1
RECENT = 128
"""How many durations the quantiles are taken from."""


class RouteStats:
    """The memory of one route. Outcomes are the breaker's; times to the first token and per token are seconds."""

    __slots__ = (
        "_all",
        "_at",
        "_durations",
        "_first_tokens",
        "_good",
        "_idle_since",
        "_numbers",
        "_ramp_from",
        "_silent",
        "_tpot",
        "_tpot_at",
        "_ttft",
        "_ttft_at",
        "answered",
        "inflight",
    )

    def __init__(self, now: float) -> None:
        self.inflight = 0
        self.answered = 0
        self._tpot, self._ttft = UNKNOWN_TPOT, UNKNOWN_TTFT
        self._tpot_at = self._ttft_at = self._idle_since = now
        self._numbers = 0
        self._silent: dict[int, float] = {}
        self._good = self._all = 0.0
        self._at = now
        self._ramp_from: float | None = None
        self._durations: deque[float] = deque(maxlen=RECENT)
        self._first_tokens: deque[float] = deque(maxlen=RECENT)

    def started(self, silent_since: float | None = None) -> int:
        """One attempt is out; its number. A streamed one is silent from `silent_since` until `first_token`."""
        self.inflight += 1
        self._numbers += 1
        if silent_since is not None:
            self._silent[self._numbers] = silent_since
        return self._numbers

    def first_token(self, attempt: int, now: float) -> None:
        """A streamed attempt has begun to answer: that is learned now, for its end may be far."""
        since = self._silent.pop(attempt, None)
        if since is not None and _is_time(now - since):
            self._learn_ttft(now - since, now)
            self._first_tokens.append(now - since)

    def outwaited(self, attempt: int, started: float, now: float) -> None:
        """An attempt begun at `started` is given up while still silent: a first token takes at least so long."""
        self._silent.pop(attempt, None)
        if _is_time(now - started) and now - started > self._ttft:
            self._learn_ttft(now - started, now)

    def ended(
        self,
        outcome: Outcome,
        now: float,
        *,
        ttft: float | None = None,
        tpot: float | None = None,
        duration: float | None = None,
        attempt: int | None = None,
    ) -> None:
        """One attempt is over. Only a success teaches latency: a fast refusal is no fast answer.

        `ttft` is None where `first_token` has told it.
        """
        self.inflight = max(0, self.inflight - 1)
        self._idle_since = now
        if attempt is not None:
            self._silent.pop(attempt, None)
        if outcome is Outcome.SUCCESS or outcome is Outcome.FAILURE:
            self._decay(now)
            self._all += 1
            self._good += outcome is Outcome.SUCCESS
        if outcome is not Outcome.SUCCESS:
            return
        if _is_time(ttft):
            self._learn_ttft(ttft, now)
        if _is_time(tpot):
            self._learn_tpot(tpot, now)
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
        """Seconds to the first token that are to be expected: at least as long as somebody has waited in vain."""
        expected = self._ttft * self._trust(now)
        if self._silent:
            return max(expected, now - next(iter(self._silent.values())))
        return expected

    def tpot(self, now: float) -> float:
        """Seconds per output token that are to be expected."""
        return self._tpot * self._trust(now)

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
        return _quantile(self._durations, q)

    def ttft_quantile(self, q: float) -> float | None:
        """The q-quantile of recent times to the first token of streams, in seconds; None without any."""
        return _quantile(self._first_tokens, q)

    def _learn_ttft(self, ttft: float, now: float) -> None:
        if ttft >= self._ttft or not self.answered:
            self._ttft = ttft
        else:
            believed = exp(-max(0.0, now - self._ttft_at) / HALF_LIFE)
            self._ttft = self._ttft * believed + ttft * (1 - believed)
        self._ttft_at = now

    def _learn_tpot(self, tpot: float, now: float) -> None:
        believed = min(0.9, exp(-max(0.0, now - self._tpot_at) / HALF_LIFE)) if self.answered else 0.0
        self._tpot = self._tpot * believed + tpot * (1 - believed)
        self._tpot_at = now

    def _trust(self, now: float) -> float:
        """How far latencies are still believed: less and less while nobody asks, else a route slow once stays so."""
        if self.inflight or not self.answered or now <= self._idle_since:
            return 1.0
        return exp((self._idle_since - now) / FADE)

    def _decay(self, now: float) -> None:
        if now > self._at:
            kept = 0.5 ** ((now - self._at) / HALF_LIFE)
            self._good *= kept
            self._all *= kept
            self._at = now


def _quantile(times: deque[float], q: float) -> float | None:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None


def _is_time(seconds: float | None) -> TypeGuard[float]:
    return seconds is not None and isfinite(seconds) and seconds >= 0
