"""The limits of the configuration, which all models of a provider share, and what is left of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rubberduck.core.bucket import Meter, MinuteWindow, TokenBucket
from rubberduck.core.limits import LimiterOptions
from rubberduck.core.meters import Meters
from rubberduck.core.pace import Pace

Sharing = Callable[[str, Meter], Meter]
"""Makes, of what a meter counts and the meter itself, the one of what other processes leave of the same limit."""


@dataclass(frozen=True, slots=True)
class ConfiguredSnapshot:
    """The balances by times relative to now. `tokens` is None without a bucket."""

    tokens: float | None
    minutes: dict[str, list[tuple[float, float]]]
    pace: tuple[float, float]


class Configured:
    """A bucket and up to three minutes, as far as they are configured; full at first. A refusal slows all of them.

    With `sharing` each has a second meter beside it, of what is this process's own share of the limit.
    """

    __slots__ = ("_bucket", "_minutes", "meters", "pace")

    def __init__(
        self,
        options: LimiterOptions,
        now: float,
        *,
        tokens: float | None = None,
        pace: Pace | None = None,
        sharing: Sharing | None = None,
    ) -> None:
        self.pace = pace or Pace()
        self.meters = Meters()
        self._bucket: TokenBucket | None = None
        if options.capacity is not None and options.refill_rate is not None:
            self._bucket = TokenBucket(options.capacity, options.refill_rate, now, tokens=tokens, pace=self.pace)
            self.meters.add(options.unit, self._bucket)
        self._minutes: dict[str, MinuteWindow] = {}
        for name, limit in (
            ("requests", options.requests_per_min),
            ("input", options.input_tokens_per_min),
            ("output", options.output_tokens_per_min),
        ):
            if limit is not None:
                self._minutes[name] = MinuteWindow(limit, self.pace)
                self.meters.add(name, self._minutes[name])
        if sharing is not None:
            self._share(options.unit, sharing)

    def _share(self, unit: str, sharing: Sharing) -> None:
        if self._bucket is not None:
            self.meters.add(unit, sharing(unit, self._bucket))
        for name, window in self._minutes.items():
            self.meters.add(name, sharing(name, window))

    def halve(self, now: float) -> None:
        """The provider refused for its rate: go at half the speed, and back to the whole of it bit by bit."""
        if self._bucket is not None:
            self._bucket.tokens(now)  # what has flowed so far came at the old pace
        self.pace.halve(now)

    def tokens(self, now: float) -> float | None:
        return self._bucket.tokens(now) if self._bucket is not None else None

    def used_this_minute(self, now: float) -> dict[str, float]:
        return {name: window.used(now) for name, window in self._minutes.items()}

    def snapshot(self, now: float) -> ConfiguredSnapshot:
        ages = {name: window.ages(now) for name, window in self._minutes.items()}
        return ConfiguredSnapshot(self.tokens(now), ages, self.pace.snapshot(now))

    @classmethod
    def restore(
        cls,
        snapshot: ConfiguredSnapshot | None,
        options: LimiterOptions,
        now: float,
        sharing: Sharing | None = None,
    ) -> Configured:
        """As `snapshot` tells, and empty as far as it does not. None: nothing is known."""
        known = snapshot or ConfiguredSnapshot(None, {}, (1.0, 0.0))
        pace = Pace.restore(known.pace, now)
        configured = cls(options, now, tokens=known.tokens or 0.0, pace=pace, sharing=sharing)
        for name, window in configured._minutes.items():
            ages = known.minutes.get(name)
            if ages is None:
                window.use_up(now)
            else:
                window.restore(ages, now)
        return configured
