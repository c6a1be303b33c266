"""What the configuration says about the course of every call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from rubberduck.actors.calls.habits import Habits
from rubberduck.config import Config, ProviderConfig
from rubberduck.core.hedge import HedgeOptions, Hedges
from rubberduck.core.retry import RetryOptions
from rubberduck.telemetry.debug import DebugLog


@dataclass(frozen=True, slots=True)
class Rules:
    """Read once, at the start. `permit_ttl` is in seconds; None leaves it to the time of the attempt.

    `hedges` is what all calls together may spend on second attempts; None means that there are none. `habits` is what
    is remembered of conversations. `leaves_filters`: another route may be asked what a content policy has stopped.
    """

    providers: Mapping[str, ProviderConfig]
    retry: RetryOptions
    permit_ttl: float | None
    debug: DebugLog
    hedges: Hedges | None
    habits: Habits
    leaves_filters: bool

    @classmethod
    def of(cls, config: Config) -> Self:
        options = dict(config.retry)
        retry = RetryOptions(**{name: options[name] for name in RetryOptions.__slots__})
        hedges = None if config.hedge is None else Hedges(HedgeOptions(config.hedge.share, config.hedge.least_delay))
        ttl, habits = config.circuit_breaker.permit_ttl, Habits(config.choice)
        leaves_filters = config.retry.failover_on_content_filter
        return cls(config.providers, retry, ttl, DebugLog.of(config), hedges, habits, leaves_filters)
