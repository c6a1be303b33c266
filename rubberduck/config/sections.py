"""The sections of a configuration, apart from the providers: names, defaults and ranges.

Every duration is kept in seconds. Names and defaults are those of the design's option tables; what an option
does is told where it is used.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_serializer, field_validator, model_validator

from rubberduck.config.scalars import Duration, Flag, Number, Share, Whole, as_text

_HOUR = 3600.0


class Section(BaseModel):
    """A group of options. Unknown names are refused, and an error never shows the value it is about."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, protected_namespaces=(), arbitrary_types_allowed=True
    )


class CircuitBreakerConfig(Section):
    """When a provider's breaker opens, how long it stays open, and what closes it.

    `failure_threshold`: consecutive failures that open; None turns the rule off. `permit_ttl` None means the
    attempt's timeout and five seconds. `window_size` counts outcomes where `window` is "count" (100 by default)
    and is in seconds where it is "time" (30 by default).
    """

    failure_threshold: Annotated[int, Whole(1, 1_000_000)] | None = 5
    reset_timeout: Annotated[float, Duration()] = 60.0
    success_threshold: Annotated[int, Whole(1, 1_000_000)] = 3
    half_open_max_probes: Annotated[int, Whole(1, 10_000)] = 1
    half_open_max_wait: Annotated[float, Duration()] | None = None
    half_open_wait_leads_to: Literal["open", "closed"] = "open"
    permit_ttl: Annotated[float, Duration()] | None = None
    open_multiplier: Annotated[float, Number(1, 100)] = 1.0
    open_max: Annotated[float, Duration()] = 300.0
    open_jitter: Annotated[float, Share()] = 0.0
    window: Literal["count", "time"] | None = None
    window_size: float | None = None
    minimum_calls: Annotated[int, Whole(1, 1_000_000)] = 10
    failure_rate: Annotated[float, Share(above=True)] = 0.5
    slow_call_after: Annotated[float, Duration()] | None = None
    slow_call_rate: Annotated[float, Share(above=True)] = 1.0

    @field_validator("window_size", mode="plain")
    @classmethod
    def _read_window_size(cls, value: Any, info: Any) -> float | None:
        if value is None:
            return None
        match info.data.get("window"):
            case "count":
                return Whole(1, 1_000_000).read(value)
            case "time":
                return Duration(1.0, _HOUR).read(value)
        raise ValueError('says nothing without `window`; add window: "count" or window: "time"')

    @field_serializer("window_size", when_used="json-unless-none")
    def _write_window_size(self, size: float) -> int | str:
        return as_text(size) if self.window == "time" else int(size)

    @model_validator(mode="after")
    def _opening_fits(self) -> Self:
        if self.open_max >= self.reset_timeout:
            return self
        if "open_max" in self.model_fields_set:
            raise ValueError("open_max must not be shorter than reset_timeout")
        # The model is frozen for its readers, who see it only after this.
        object.__setattr__(self, "open_max", self.reset_timeout)
        return self


class RetryConfig(Section):
    """How often, and after what wait, a call is tried again.

    `max_attempts` is for one route and counts the first attempt; `max_attempts_total` is for all routes of a
    call. `retry_budget` is the share of first attempts that may be repeated, beside `retry_budget_floor`
    repeats that are always allowed, both for one route in ten seconds. `failover_on_content_filter`: what the content
    policy of one provider stops is asked of the others.
    """

    max_attempts: Annotated[int, Whole(1, 100)] = 3
    max_attempts_total: Annotated[int, Whole(1, 1000)] = 6
    base_delay: Annotated[float, Duration(high=_HOUR)] = 1.0
    max_delay: Annotated[float, Duration(high=_HOUR)] = 10.0
    jitter: Annotated[bool, Flag()] = True
    same_route_repeats: Annotated[int, Whole(0, 100)] = 1
    max_wait_for_preferred: Annotated[float, Duration(low=0.0, high=_HOUR)] = 3.0
    retry_budget: Annotated[float, Share()] = 0.2
    retry_budget_floor: Annotated[int, Whole(0, 1_000_000)] = 3
    failover_on_content_filter: Annotated[bool, Flag()] = False

    @model_validator(mode="after")
    def _delays_fit(self) -> Self:
        if {"base_delay", "max_delay"} <= self.model_fields_set and self.max_delay < self.base_delay:
            raise ValueError("max_delay must not be shorter than base_delay")
        return self


class ChoiceConfig(Section):
    """How a route is chosen among several, beside priority, weight, health and speed.

    `price_weight` is how many seconds are worth waiting to save one USD. `sticky`: a conversation stays on its route
    while that is not much worse than the best: by the `session` that the call names, by what its prompt begins with
    ("prefix", if it names none), or "off"; for `sticky_for` after its last answer. `panic` is what to do while the
    circuits of all routes are open: fail at once ("fail_fast"; a short wait is waited), "wait" as long as the deadline
    allows, or "probe_best": ask the best of them, one call at a time.
    """

    price_weight: Annotated[float, Number(0, 1e9)] = 0.0
    sticky: Literal["session", "prefix", "off"] = "session"
    sticky_for: Annotated[float, Duration(high=86400.0)] = 300.0
    panic: Literal["fail_fast", "wait", "probe_best"] = "fail_fast"


class HedgeConfig(Section):
    """Asking a second route where the first one is slow to answer.

    It happens after the route's own 95th percentile, at least after `least_delay`, for at most `share` of all calls.
    """

    share: Annotated[float, Share(above=True)] = 0.05
    least_delay: Annotated[float, Duration(low=0.0, high=_HOUR)] = 1.0


class LimiterConfig(Section):
    """What one provider may be sent.

    `capacity` and `refill_rate` describe a token bucket: its burst, and units per second, where a unit is a
    request or, with `unit` "tokens", a token. Limits per minute that are None are learned from the provider's
    headers. `max_concurrency` is per route.
    """

    capacity: Annotated[float, Number(1)] | None = None
    refill_rate: Annotated[float, Number(0, above=True)] | None = None
    unit: Literal["requests", "tokens"] = "requests"
    requests_per_min: Annotated[int, Whole()] | None = None
    input_tokens_per_min: Annotated[int, Whole(1, 10**12)] | None = None
    output_tokens_per_min: Annotated[int, Whole(1, 10**12)] | None = None
    max_concurrency: Annotated[int, Whole(1, 100_000)] = 100

    @model_validator(mode="after")
    def _bucket_is_whole(self) -> Self:
        if (self.capacity is None) != (self.refill_rate is None):
            raise ValueError("capacity and refill_rate describe one bucket; give both or neither")
        return self


class ClassWeights(Section):
    """The shares of the three classes of the queue while all of them wait."""

    high: Annotated[int, Whole(1, 1000)] = 17
    normal: Annotated[int, Whole(1, 1000)] = 2
    low: Annotated[int, Whole(1, 1000)] = 1


class ClassBounds(Section):
    """The most calls of one class that may wait; None leaves the class to the common bound."""

    high: Annotated[int, Whole(1, 10_000_000)] | None = None
    normal: Annotated[int, Whole(1, 10_000_000)] | None = None
    low: Annotated[int, Whole(1, 10_000_000)] | None = None


class ClassTimes(Section):
    """The time that calls of a class usually have; None leaves the class as it is."""

    high: Annotated[float, Duration()] | None = None
    normal: Annotated[float, Duration()] | None = None
    low: Annotated[float, Duration()] | None = None


class QueueConfig(Section):
    """How calls wait for a provider, beside the common bound `max_queue_size`. `max_tokens` are estimated ones.

    `tenants` are the weights of tenants among those of their class, 1 for all that are not named. A class in
    `adaptive_lifo` is served from the newest call on while even the shortest wait in a second exceeds 5 % of the time
    that is given for it. While others wait, a call is turned away whose time is shorter than `service_quantile` of the
    answers from its routes took.
    """

    when_full: Literal["reject", "evict_lower"] = "reject"
    max_per_class: ClassBounds = ClassBounds()
    max_per_tenant: Annotated[int, Whole(1, 10_000_000)] | None = None
    max_tokens: Annotated[int, Whole(1, 10**12)] | None = None
    weights: ClassWeights = ClassWeights()
    tenants: dict[str, Annotated[float, Number(0, 1000, above=True)]] = Field(default_factory=dict)
    adaptive_lifo: ClassTimes = ClassTimes()
    service_quantile: Annotated[float, Number(0.5, 0.99)] = 0.9


class CacheConfig(Section):
    """The cache of whole answers to identical requests."""

    ttl: Annotated[float, Duration(high=30 * 86400.0)] = 300.0
    max_entries: Annotated[int, Whole(1, 10_000_000)] = 10_000


class LedgerConfig(Section):
    """Where attempts and their costs are written: a SQLite file, or the URL of a database.

    Neither means the runtime's own default. The URL is a secret because it may carry a password.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    url: SecretStr | None = None
    synchronous: Literal["full", "normal"] = "full"

    @model_validator(mode="after")
    def _has_one_place(self) -> Self:
        if self.path is not None and self.url is not None:
            raise ValueError("give path or url, not both")
        return self


class JobsConfig(Section):
    """Durable jobs: where they are kept, and how they are delivered.

    `path` None is a file beside the ledger. `lease` is how long a process that says nothing is believed alive. A job
    is dead after `max_deliveries` that came to nothing, and not answered any more `expire` after it was submitted. One
    that has ended can be asked for during `keep`. `max_running` are delivered at once.
    """

    path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    lease: Annotated[float, Duration(low=0.1, high=_HOUR)] = 30.0
    max_deliveries: Annotated[int, Whole(1, 1000)] = 3
    max_running: Annotated[int, Whole(1, 10_000)] = 10
    expire: Annotated[float, Duration(high=365 * 86400.0)] = 86400.0
    keep: Annotated[float, Duration(high=365 * 86400.0)] = 7 * 86400.0


class SharedConfig(Section):
    """The limits of `rate_limits` are shared with all processes that name the same store: a Redis or Valkey server.

    `url` begins with redis://, rediss:// or unix://, and is a secret because it may carry a password. Those that share
    give the same `prefix`, and the same names to their providers. While the store is away each process spends its
    share, for which at least `nodes` are counted. Budgets and the cache are each process's own.
    """

    url: SecretStr
    prefix: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.:-]+$")] = "rubberduck"
    nodes: Annotated[int, Whole(1, 10_000)] = 1

    @field_validator("url")
    @classmethod
    def _is_known(cls, value: SecretStr) -> SecretStr:
        if value.get_secret_value().partition("://")[0] not in ("redis", "rediss", "unix"):
            raise ValueError("begins with redis://, rediss:// (TLS) or unix:// (a socket's path)")
        return value


class BudgetConfig(Section):
    """What a tenant may spend: `limit` USD in each `per`, which is one of UTC's calendar, or all the time ("total")."""

    limit: Decimal
    per: Literal["hour", "day", "month", "total"] = "day"

    @field_validator("limit", mode="before")
    @classmethod
    def _read_limit(cls, value: Any) -> Decimal:
        number = Number(0, 1_000_000_000).read(float(value) if isinstance(value, Decimal) else value)
        return Decimal(str(value).strip()) if not isinstance(value, float) else Decimal(repr(number))


class TierPriceConfig(Section):
    """What a model costs, in USD per million tokens; a rate that is None is that of other input, or of other output.

    `output` may be left out for a model that writes none, as one for embeddings: what it writes all the same has no
    known cost. `cache_write_1h` is for input that is kept for an hour, and None that of `cache_write`; `cached_audio`
    None is `audio_input`.
    """

    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    cached_audio: Decimal | None = None
    reasoning: Decimal | None = None
    audio_output: Decimal | None = None

    @field_validator(
        *("input", "output", "cached_input", "cache_write", "cache_write_1h"),
        *("audio_input", "cached_audio", "reasoning", "audio_output"),
        mode="before",
    )
    @classmethod
    def _read_price(cls, value: Any) -> Decimal | None:
        if value is None:
            return None
        # The check is the number's; the value is the written one: 0.1 as a float is not a tenth.
        number = Number(0, 1_000_000).read(float(value) if isinstance(value, Decimal) else value)
        return Decimal(str(value).strip()) if not isinstance(value, float) else Decimal(repr(number))


class PriceConfig(TierPriceConfig):
    """What a model costs; `service_tiers` are its prices by the provider's word for how a call was served.

    A call that was served under a word which is not there, as "flex" or "priority", has no known cost.
    """

    service_tiers: dict[str, TierPriceConfig] = Field(default_factory=dict)


class SupervisionConfig(Section):
    """How many restarts RubberDuck's own tree takes in how much time before it gives up.

    `loop_limit` is for how long a provider's code may keep the event loop to itself. Beyond it all actors and calls
    go on elsewhere, and those calls that were under way are lost.
    """

    max_restarts: Annotated[int, Whole(0, 1_000_000)] = 30
    max_seconds: Annotated[float, Number(0, 86400, above=True)] = 10.0
    loop_limit: Annotated[float, Duration(low=0.05, high=_HOUR)] = 1.0
