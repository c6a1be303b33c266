"""The ledger as tables: the schema with its history, and one attempt as one row."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from rubberduck.core.ledger import AttemptRecord, State, Tally, from_us, to_us
from rubberduck.core.pricing import from_pico, to_pico

_SCHEMA_1 = (
    """create table runs(
        run integer primary key autoincrement,  -- also the offset of its lock: a number is never given out twice
        name text not null unique
    ) strict""",
    """create table attempts(
        id integer primary key,
        attempt_id text not null unique,
        call_id text not null,
        provider text not null,
        model text not null,
        state text not null check (state in ('intent', 'settled', 'void', 'uncertain')),
        started_at_us integer not null,         -- microseconds since 1970, UTC
        ended_at_us integer,
        prompt_tokens integer,
        completion_tokens integer,
        cached_tokens integer,
        cache_write_tokens integer,
        reasoning_tokens integer,
        cost_pico integer,                      -- 1e-12 USD; NULL: nobody knows
        price_source text,
        price_date text,
        reserved_pico integer,
        tenant text not null,
        tags text not null,                     -- a JSON object
        run integer not null references runs
    ) strict""",
    "create index attempts_by_start on attempts(started_at_us)",
    "create index attempts_open on attempts(run) where state = 'intent'",
    """create trigger attempts_end_once before update on attempts when old.state <> 'intent' or new.state = 'intent'
       begin select raise(abort, 'the attempt is in the ledger already'); end""",
    "create trigger attempts_stay before delete on attempts begin select raise(abort, 'append-only'); end",
)
_SCHEMA_2 = (
    "alter table attempts add column cache_write_1h_tokens integer",
    "alter table attempts add column prompt_audio_tokens integer",
    "alter table attempts add column completion_audio_tokens integer",
    "alter table attempts add column service_tier text",  # the provider's word for how it was served
)
V = TypeVar("V")
R = TypeVar("R")
FIRST, LAST = -(2**63), 2**63 - 1

MIGRATIONS: tuple[tuple[str, ...], ...] = (_SCHEMA_1, _SCHEMA_2)
"""The statements that lead from each schema version to the next; `pragma user_version` is the version."""

COLUMNS = (
    *("attempt_id", "call_id", "provider", "model", "state", "started_at_us", "ended_at_us"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens"),
    *("cost_pico", "price_source", "price_date", "reserved_pico", "tenant", "tags", "run"),
    *("cache_write_1h_tokens", "prompt_audio_tokens", "completion_audio_tokens", "service_tier"),
)


def encode(record: AttemptRecord, run: int) -> tuple[Any, ...]:
    """A record as a row of `COLUMNS`."""
    return (
        _storable(record.attempt_id),
        _storable(record.call_id),
        _storable(record.provider),
        _storable(record.model),
        record.state.value,
        to_us(record.started_at),
        _optional(to_us, record.ended_at),
        record.prompt_tokens,
        record.completion_tokens,
        record.cached_tokens,
        record.cache_write_tokens,
        record.reasoning_tokens,
        _optional(to_pico, record.cost),
        record.price_source,
        record.price_date,
        _optional(to_pico, record.reserved),
        _storable(record.tenant),
        json.dumps(dict(record.tags)) if record.tags else "{}",
        run,
        record.cache_write_1h_tokens,
        record.prompt_audio_tokens,
        record.completion_audio_tokens,
        _optional(_storable, record.service_tier),
    )


def decode(row: Sequence[Any]) -> AttemptRecord:
    """A row as the record it was."""
    value = dict(zip(COLUMNS, row, strict=True))
    return AttemptRecord(
        attempt_id=value["attempt_id"],
        call_id=value["call_id"],
        provider=value["provider"],
        model=value["model"],
        state=State(value["state"]),
        started_at=from_us(value["started_at_us"]),
        ended_at=_optional(from_us, value["ended_at_us"]),
        prompt_tokens=value["prompt_tokens"],
        completion_tokens=value["completion_tokens"],
        cached_tokens=value["cached_tokens"],
        cache_write_tokens=value["cache_write_tokens"],
        reasoning_tokens=value["reasoning_tokens"],
        cost=_optional(from_pico, value["cost_pico"]),
        price_source=value["price_source"],
        price_date=value["price_date"],
        reserved=_optional(from_pico, value["reserved_pico"]),
        tenant=value["tenant"],
        tags=json.loads(value["tags"]),
        cache_write_1h_tokens=value["cache_write_1h_tokens"],
        prompt_audio_tokens=value["prompt_audio_tokens"],
        completion_audio_tokens=value["completion_audio_tokens"],
        service_tier=value["service_tier"],
    )


def _optional(convert: Callable[[V], R], value: V | None) -> R | None:
    return None if value is None else convert(value)


def _storable(text: str) -> str:
    """UTF-8 has no half surrogates, and a name that a user made up may contain one."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def tally(
    provider: str,
    model: str,
    hour_us: int,
    calls: int,
    cost_micro: int,
    cost_rest: int,
    tokens: int,
    unknown: int,
    uncertain_micro: int,
    uncertain_rest: int,
) -> Tally:
    """One group of the summary's query, its sums put together again."""
    cost = cost_micro * 1_000_000 + cost_rest
    uncertain = uncertain_micro * 1_000_000 + uncertain_rest
    return Tally(provider, model, hour_us, calls, cost, tokens, unknown, uncertain)


def bounds(since: datetime | None, until: datetime | None) -> tuple[int, int]:
    """A period in microseconds, its open sides closed by the ends of time."""
    return (FIRST if since is None else to_us(since)), (LAST if until is None else to_us(until))
