"""What a provider's response headers tell about its rate limits.

Sources: OpenAI, "Rate limits" (`x-ratelimit-*`; a reset is a Go duration and means "full again"); Anthropic,
"Rate limits" (`anthropic-ratelimit-*`; a reset is an RFC 3339 time); RFC 9110, 10.2.3 (Retry-After).
Whatever cannot be read with certainty is None: a server's slip must not block anybody.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite
from typing import Any

OPENAI = "x-ratelimit-"
ANTHROPIC = "anthropic-ratelimit-"
DIMENSIONS = {
    "requests": "requests",
    "tokens": "tokens",
    "project-tokens": "project_tokens",
    "input-tokens": "input",
    "output-tokens": "output",
}
"""The limits that headers name, and our words for them. `tokens` are input and output together."""

_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,  # the micro sign
    "\u03bcs": 1e-6,  # the Greek letter, which Go accepts too
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_PARTS = re.compile(_PART, re.ASCII)
_DURATION = re.compile(f"(?:{_PART})+", re.ASCII)
_COUNT = re.compile(r"\d{1,15}(\.\d{1,9})?", re.ASCII)
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_LONGEST = 80
"""Characters of a value that are worth reading."""


@dataclass(frozen=True, slots=True)
class Quota:
    """One limit as the provider sees it: `reset` is in seconds from the response on. None: it did not say."""

    limit: float | None = None
    remaining: float | None = None
    reset: float | None = None


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """What one response said of the limits, by our words for them."""

    quotas: tuple[tuple[str, Quota], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.quotas)

    @property
    def by_name(self) -> dict[str, Quota]:
        return dict(self.quotas)


def read(headers: Mapping[Any, Any]) -> RateHeaders:
    """The limits that `headers` tell of. Names may be in any case, values text or bytes; junk is nothing."""
    told: dict[str, dict[str, str]] = {}
    date = ""
    for raw_name, raw_value in headers.items():
        name = _text(raw_name).lower()
        if name == "date":
            date = _text(raw_value)
        elif name.startswith((OPENAI, ANTHROPIC)):
            family, _, rest = name.partition("-ratelimit-")
            _note(told, family, rest, _text(raw_value))
    quotas = ((dimension, _quota(fields, date)) for dimension, fields in told.items())
    return RateHeaders(tuple([(dimension, quota) for dimension, quota in quotas if quota != Quota()]))


def _note(told: dict[str, dict[str, str]], family: str, rest: str, value: str) -> None:
    """OpenAI puts the kind of number before what is counted, Anthropic behind."""
    if family == "x":
        kind, _, counted = rest.partition("-")
    else:
        counted, _, kind = rest.rpartition("-")
    if counted in DIMENSIONS and kind in ("limit", "remaining", "reset"):
        told.setdefault(DIMENSIONS[counted], {})[f"{family}-{kind}"] = value


def _quota(fields: Mapping[str, str], date: str) -> Quota:
    limit = _count(fields.get("x-limit", fields.get("anthropic-limit", "")))
    remaining = _count(fields.get("x-remaining", fields.get("anthropic-remaining", "")))
    if "x-reset" in fields:
        reset = parse_duration(fields["x-reset"])
    else:
        reset = seconds_until(fields.get("anthropic-reset", ""), date)
    return Quota(limit or None, remaining, reset)


def _count(text: str) -> float | None:
    text = text.strip()
    return float(text) if _COUNT.fullmatch(text) else None


def parse_duration(text: str) -> float | None:
    """Seconds of a Go duration, such as `6m0s` or `20ms`; None for anything else, `7`, `-1s` and `1d` included."""
    text = text.strip()
    if len(text) > _LONGEST or not _DURATION.fullmatch(text):
        return None
    return sum([float(number) * _SECONDS[unit] for number, unit in _PARTS.findall(text)])


def seconds_until(reset: str, date: str) -> float | None:
    """Seconds from the response's own `Date` to an RFC 3339 time, never below 0; None unless both can be read.

    Our own clock is never asked: it may be wrong, and the server's too, but then in both.
    """
    at, then = _rfc3339(reset), _http_date(date)
    return None if at is None or then is None else max(0.0, (at - then).total_seconds())


def _rfc3339(text: str) -> datetime | None:
    found = _RFC3339.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if found is None:
        return None
    day, time, fraction, zone = found.groups()
    try:
        return datetime.fromisoformat(f"{day}T{time}{(fraction or '.0')[:7]:0<7}{zone.upper()}")
    except ValueError:
        return None


# --- hints: when to ask again


def parse_retry_after(headers: Mapping[str, str], now_utc: datetime) -> float | None:
    """Seconds until the provider wants to be asked again; None where it names no time in the future.

    Understands `retry-after-ms`, then `retry-after` in seconds (with a fraction) or as an HTTP date. A date is
    compared with the response's own `Date` where there is one: then neither clock need be right. `now_utc` is aware.
    """
    values = {_text(name).lower(): _text(value) for name, value in headers.items()}
    milliseconds = _positive(values.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = values.get("retry-after")
    seconds = _positive(value)
    if seconds is not None or value is None:
        return seconds
    until = _http_date(value)
    if until is None:
        return None
    wait = (until - (_http_date(values.get("date")) or now_utc)).total_seconds()
    return wait if wait > 0 else None


def _positive(value: str | None) -> float | None:
    if value is None or "_" in value or len(value) > 40:
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and number > 0 else None


def _http_date(value: str | None) -> datetime | None:
    if value is None or len(value) > _LONGEST:
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.decode("latin-1")
    return value if isinstance(value, str) else ""
