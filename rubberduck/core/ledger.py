"""The books: what one attempt is, how its entry may change, and what many of them add up to.

    intent ──▶ settled     an answer, or an error that the provider answered: tokens and cost are known
       ├─────▶ void        nothing was sent, or nothing is charged for it
       └─────▶ uncertain   it may have been executed, and nobody said what it cost

An intent is written before the socket opens; one of the three ends follows, once: the first wins and later
ones change nothing. An end without an intent before it is accepted, because money that was spent must not be
lost for want of an announcement. An attempt is known by its id alone, so sending an entry twice is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from rubberduck.core.pricing import Price, Tokens, from_pico, to_pico
from rubberduck.core.values import value

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOUR = timedelta(hours=1)
HOUR_US = 3_600_000_000
MAX_COUNT = 10**12
"""More tokens than any call has; a count above it, or below zero, is no count."""
MAX_WORD = 64
"""So many characters of a provider's own word are kept."""
MAX_AMOUNT = Decimal(9_000_000)
"""The most USD that one attempt may cost or reserve; sums have no limit."""


class State(StrEnum):
    """Where an attempt stands; see the drawing above."""

    INTENT = "intent"
    SETTLED = "settled"
    VOID = "void"
    UNCERTAIN = "uncertain"


def may_follow(current: State | None, new: State) -> bool:
    """The whole rule: may an entry in state `new` be written for an attempt in state `current` (None: unknown)?"""
    return current is None or (current is State.INTENT and new is not State.INTENT)


@value(frozen=True, slots=True)
class AttemptRecord:
    """One request on the wire, as the ledger keeps it. `reserved` is the worst case it may cost, in USD.

    Make one with the state INTENT, then derive its end from it: `settled`, `voided`, `uncertain`. `cost` is
    None where the price is unknown, token counts where the provider did not say. `service_tier` is the provider's word
    for how it was served. Times are aware.
    """

    attempt_id: str
    call_id: str
    provider: str
    model: str
    started_at: datetime
    state: State = State.INTENT
    ended_at: datetime | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    price_source: str | None = None
    price_date: str | None = None
    reserved: Decimal | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    cache_write_1h_tokens: int | None = None
    prompt_audio_tokens: int | None = None
    completion_audio_tokens: int | None = None
    service_tier: str | None = None

    def __post_init__(self) -> None:
        for moment in (self.started_at, self.ended_at):
            if moment is not None and moment.tzinfo is None:
                raise ValueError(f"{moment!r} has no time zone, so it is no point in time; give an aware datetime")
        for amount in (self.cost, self.reserved):
            if amount is not None and not (amount.is_finite() and 0 <= amount <= MAX_AMOUNT):
                raise ValueError(f"one attempt costs between 0 and {MAX_AMOUNT} USD, not {amount}")

    def settled(
        self, usage: Tokens, cost: Decimal | None, price: Price | None = None, *, at: datetime
    ) -> AttemptRecord:
        """The end of an attempt whose consumption is known. `cost` is what `price` made of `usage`."""
        return AttemptRecord(  # every attempt ends so: `replace` would take twenty times as long
            self.attempt_id,
            self.call_id,
            self.provider,
            self.model,
            self.started_at,
            State.SETTLED,
            ended_at=at,
            prompt_tokens=_count(usage.prompt_tokens),
            completion_tokens=_count(usage.completion_tokens),
            cached_tokens=_count(usage.cached_tokens),
            cache_write_tokens=_count(usage.cache_write_tokens),
            reasoning_tokens=_count(usage.reasoning_tokens),
            cost=cost,
            price_source=price.source if price and cost is not None else None,
            price_date=price.date if price and cost is not None else None,
            reserved=self.reserved,
            tenant=self.tenant,
            tags=self.tags,
            cache_write_1h_tokens=_count(usage.cache_write_1h_tokens),
            prompt_audio_tokens=_count(usage.prompt_audio_tokens),
            completion_audio_tokens=_count(usage.completion_audio_tokens),
            service_tier=usage.service_tier[:MAX_WORD] if usage.service_tier else None,
        )

    def voided(self, *, at: datetime) -> AttemptRecord:
        """The end of an attempt that cost nothing."""
        return replace(self, state=State.VOID, ended_at=at)

    def uncertain(self, *, at: datetime, reserved: Decimal | None = None) -> AttemptRecord:
        """The end of an attempt that may have cost up to `reserved` (by default what was reserved for it)."""
        worst = self.reserved if reserved is None else reserved
        return replace(self, state=State.UNCERTAIN, ended_at=at, reserved=worst)


def _count(tokens: int | None) -> int | None:
    return tokens if tokens is not None and 0 <= tokens <= MAX_COUNT else None


def to_us(moment: datetime) -> int:
    """Microseconds since 1970 in UTC.

    Raises:
        ValueError: for a naive datetime, which is no point in time.
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone, so it is no point in time; give an aware datetime")
    return (moment - EPOCH) // MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The aware UTC datetime so many microseconds after the start of 1970."""
    return EPOCH + microseconds * MICROSECOND


Timeframe = str | tuple[datetime | None, datetime | None]
"""`"all"`, `"day"`, `"hour"`, or (since, until): aware datetimes, end excluded, None for an open side."""


def period(timeframe: Timeframe, now: datetime) -> tuple[datetime | None, datetime | None]:
    """The (since, until) that a timeframe means at `now`; day and hour are the current ones of UTC.

    Raises:
        ValueError: for any other word, and for datetimes without a time zone.
    """
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    match timeframe:
        case "all":
            return None, None
        case "hour":
            return hour, hour + HOUR
        case "day":
            return hour.replace(hour=0), hour.replace(hour=0) + 24 * HOUR
        case (since, until) if all(side is None or isinstance(side, datetime) for side in (since, until)):
            for side in (since, until):
                if side is not None:
                    to_us(side)
            return since, until
    raise ValueError(f"a timeframe is 'all', 'day', 'hour' or a pair of aware datetimes, not {timeframe!r}")


@dataclass(frozen=True, slots=True)
class Share:
    """One part of the bill; the fields as in `Summary`. `calls` counts its settled attempts."""

    cost: Decimal
    tokens: int
    calls: int
    unknown: int
    uncertain: Decimal


@dataclass(frozen=True, slots=True)
class Summary:
    """What was spent in a period, in USD, known and unknown kept apart.

    `cost` is the sum of the known costs and `tokens` all tokens of settled attempts. `by_model` is keyed by
    (provider, model). `hourly` and `daily` hold the known cost of each hour and day of UTC that has settled
    attempts, keyed by its aware start. `unknown` counts the attempts whose cost nobody can tell: settled
    without a price, or uncertain without a worst case. `uncertain` is what else may have been spent, at worst.
    Attempts in flight are in none of these; an attempt belongs to the period in which it started. `str()` is a table.
    """

    cost: Decimal
    tokens: int
    by_model: Mapping[tuple[str, str], Share]
    hourly: Mapping[datetime, Decimal]
    daily: Mapping[datetime, Decimal]
    unknown: int
    uncertain: Decimal
    since: datetime | None
    until: datetime | None

    def __str__(self) -> str:
        from rubberduck.core import bill  # it is needed by who reads sums only

        return bill.told(self)


@dataclass(slots=True)
class Tally:
    """A running sum for one (provider, model, hour). Money in pico-dollars, hours as microseconds since 1970."""

    provider: str
    model: str
    hour_us: int
    calls: int = 0
    cost_pico: int = 0
    tokens: int = 0
    unknown: int = 0
    uncertain_pico: int = 0

    def add(self, record: AttemptRecord) -> None:
        """Count one attempt; those in flight and void ones cost nothing."""
        match record.state:
            case State.SETTLED:
                self.calls += 1
                self.tokens += (record.prompt_tokens or 0) + (record.completion_tokens or 0)
                self.cost_pico += 0 if record.cost is None else to_pico(record.cost)
                self.unknown += record.cost is None
            case State.UNCERTAIN:
                self.uncertain_pico += 0 if record.reserved is None else to_pico(record.reserved)
                self.unknown += record.reserved is None

    def merge(self, other: Tally) -> None:
        """Add another sum to this one."""
        self.calls += other.calls
        self.cost_pico += other.cost_pico
        self.tokens += other.tokens
        self.unknown += other.unknown
        self.uncertain_pico += other.uncertain_pico

    @property
    def share(self) -> Share:
        """This sum in USD."""
        return Share(from_pico(self.cost_pico), self.tokens, self.calls, self.unknown, from_pico(self.uncertain_pico))


def summarise(
    records: Iterable[AttemptRecord], since: datetime | None = None, until: datetime | None = None
) -> Summary:
    """Add up the records that started in [since, until); the order they come in does not matter."""
    tallies: dict[tuple[str, str, int], Tally] = {}
    for record in records:
        started = record.started_at
        if (since is None or started >= since) and (until is None or started < until):
            hour = to_us(started) // HOUR_US * HOUR_US
            key = (record.provider, record.model, hour)
            tallies.setdefault(key, Tally(*key)).add(record)
    return summary_of(tallies.values(), since, until)


def summary_of(tallies: Iterable[Tally], since: datetime | None, until: datetime | None) -> Summary:
    """The summary that sums by model and hour, made in memory or by a database, add up to."""
    total = Tally("", "", 0)
    by_model: dict[tuple[str, str], Tally] = {}
    hourly: dict[datetime, int] = {}
    daily: dict[datetime, int] = {}
    for tally in tallies:
        key = (tally.provider, tally.model)
        by_model.setdefault(key, Tally(*key, 0)).merge(tally)
        total.merge(tally)
        if tally.calls:
            hour = from_us(tally.hour_us)
            day = hour.replace(hour=0)
            hourly[hour] = hourly.get(hour, 0) + tally.cost_pico
            daily[day] = daily.get(day, 0) + tally.cost_pico
    return Summary(
        cost=from_pico(total.cost_pico),
        tokens=total.tokens,
        by_model={
            key: sums.share
            for key, sums in sorted(by_model.items())
            if sums.calls or sums.unknown or sums.uncertain_pico
        },
        hourly={hour: from_pico(pico) for hour, pico in sorted(hourly.items())},
        daily={day: from_pico(pico) for day, pico in sorted(daily.items())},
        unknown=total.unknown,
        uncertain=from_pico(total.uncertain_pico),
        since=since,
        until=until,
    )
