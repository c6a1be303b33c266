"""What a circuit counts of its calls, and when that is too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rubberduck.core.sliding import CountWindow, TimeWindow


@dataclass(frozen=True, slots=True)
class BreakerOptions:
    """When a circuit opens and how it comes back. Times are seconds; None switches a rule off.

    Open time is min(open_max, reset_timeout * open_multiplier ** k), plus up to `open_jitter` of itself, where
    k counts the failed half-opens since the last close. `slow_call_after` compares with the time to first token.
    `window_size` is calls for a "count" window (100) and seconds for a "time" window (30).
    """

    failure_threshold: int | None = 5
    reset_timeout: float = 60.0
    success_threshold: int = 3
    half_open_max_probes: int = 1
    half_open_max_wait: float | None = None
    half_open_wait_leads_to: Literal["open", "closed"] = "open"
    permit_ttl: float = 125.0
    open_multiplier: float = 1.0
    open_max: float = 300.0
    open_jitter: float = 0.0
    window: Literal["count", "time"] | None = None
    window_size: float | None = None
    minimum_calls: int = 10
    failure_rate: float = 0.5
    slow_call_after: float | None = None
    slow_call_rate: float = 1.0

    def __post_init__(self) -> None:
        at_least_one = (self.failure_threshold or 1, self.success_threshold, self.half_open_max_probes)
        if min(*at_least_one, self.minimum_calls) < 1 or self.failure_threshold == 0:
            raise ValueError("thresholds, half_open_max_probes and minimum_calls are at least 1")
        if not (
            self.reset_timeout >= 0 and self.permit_ttl > 0 and self.open_multiplier >= 1 and self.open_jitter >= 0
        ):
            raise ValueError("reset_timeout and open_jitter are >= 0, permit_ttl > 0, open_multiplier >= 1")
        if not (0 < self.failure_rate <= 1 and 0 < self.slow_call_rate <= 1):
            raise ValueError("failure_rate and slow_call_rate are above 0 and at most 1")


class Counts:
    """The outcomes since a circuit last entered a state: failures in a row, successful probes, rates."""

    __slots__ = ("_options", "consecutive", "probe_successes", "reported", "window")

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self.consecutive = 0
        self.probe_successes = 0
        self.reported = False
        self.window = _window(options)

    def is_slow(self, duration: float) -> bool:
        limit = self._options.slow_call_after
        return limit is not None and duration > limit

    def add(self, failed: bool, slow: bool, now: float) -> str | None:
        """Count one call; the name of the rule that is exceeded now, if one is."""
        self.consecutive = self.consecutive + 1 if failed else 0
        if self.window is not None:
            self.window.record(failed, slow, now)
        elif not failed:
            return None
        return self._exceeded(now)

    def rates(self, now: float) -> tuple[float | None, float | None]:
        """Shares of failures and of slow calls; None while too few calls were counted."""
        window = self.window
        if window is None:
            return None, None
        window.advance(now)
        minimum = self._options.minimum_calls
        if isinstance(window, CountWindow):
            minimum = min(minimum, window.size)
        if window.calls < minimum:
            return None, None
        return window.failures / window.calls, window.slow / window.calls

    def are_good(self, now: float) -> bool:
        """Whether nothing is remembered that could help to open the circuit."""
        if self.window is None:
            return not self.consecutive
        self.window.advance(now)
        return not (self.consecutive or self.window.failures or self.window.slow)

    def _exceeded(self, now: float) -> str | None:
        options = self._options
        if options.failure_threshold is not None and self.consecutive >= options.failure_threshold:
            return "failure_threshold"
        failure_rate, slow_rate = self.rates(now)
        if failure_rate is not None and failure_rate >= options.failure_rate:
            return "failure_rate"
        if slow_rate is not None and options.slow_call_after is not None and slow_rate >= options.slow_call_rate:
            return "slow_call_rate"
        return None


def _window(options: BreakerOptions) -> CountWindow | TimeWindow | None:
    if options.window == "count":
        return CountWindow(int(options.window_size or 100))
    if options.window == "time":
        return TimeWindow(options.window_size or 30.0)
    return None
