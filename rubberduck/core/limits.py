"""The terms of a limiter: what it is told to hold to, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rubberduck.core.values import value


@dataclass(frozen=True, slots=True)
class LimiterOptions:
    """What a provider allows. None means that no such limit is configured; the headers may teach one.

    `capacity` and `refill_rate` (per second) are a burst of requests, or of tokens with unit="tokens". The
    limits per minute are hard in every sliding 60 s. `max_concurrency` is per model. `reservation_ttl` is the time in
    seconds after which the slot of a holder that never came back is given to others; what it was charged stays charged.
    """

    capacity: float | None = None
    refill_rate: float | None = None
    unit: Literal["requests", "tokens"] = "requests"
    requests_per_min: float | None = None
    input_tokens_per_min: float | None = None
    output_tokens_per_min: float | None = None
    max_concurrency: int = 100
    reservation_ttl: float = 125.0

    def __post_init__(self) -> None:
        if (self.capacity is None) != (self.refill_rate is None):
            raise ValueError("capacity and refill_rate belong together: a burst, and how fast it comes back")
        if self.max_concurrency < 1:
            raise ValueError("max_concurrency is at least 1")


@value(frozen=True, slots=True)
class Granted:
    """Go. Commit or cancel `id` afterwards."""

    id: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Not yet; `poll` will answer. `at` is the expected time, None while only a freed slot can tell."""

    id: str
    at: float | None


@dataclass(frozen=True, slots=True)
class Refused:
    """No. `reason` is never_fits (larger than the limit itself), past_deadline, or key_quarantined; nothing was taken.

    `retry_after` is in seconds, None where no waiting helps or nobody can tell.
    """

    id: str
    reason: Literal["never_fits", "past_deadline", "key_quarantined"]
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class LimiterStats:
    """A limiter as an operator sees it. `tokens` is None without a bucket.

    `pace` is the share of the configured rates that is used, below 1 for a while after a refusal; `learned` are the
    limits per minute that the headers taught, by model.
    """

    in_flight: int
    waiting: int
    tokens: float | None
    used_this_minute: dict[str, float]
    blocked_for: float
    granted: int
    refused: int
    lost: int
    pace: float = 1.0
    learned: dict[str, dict[str, float]] = field(default_factory=dict)
