"""The kinds of single values a configuration has, each with its range and a text that says it.

A value may come from an environment variable, so each kind also reads the string form of itself. What none
of them reads is a boolean as a number, or anything but `true` and `false` as a boolean.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DAY = 86400.0
UNITS_BYTES = {
    "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "GB": 10**9, "MB": 10**6, "kB": 10**3, "KB": 10**3, "B": 1, "": 1
}  # fmt: skip

_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,9})?) ?(ms|s|m|h|d)?", re.ASCII)
_SIZE = re.compile(r"(\d{1,15}) ?(GiB|MiB|KiB|GB|MB|kB|KB|B)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INTERPOLATED = {"type": "string", "pattern": r"\$\{"}


def seconds(value: object) -> float:
    """Read a duration: a bare number is milliseconds, "1.5s" says its unit, a timedelta is what it is.

    Raises:
        ValueError: the value is no duration. Signs and ranges are the caller's to check.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _milliseconds(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('is not a duration; write "30s", "500ms", "5m" or "1h" (a bare number is milliseconds)')
    return float(match[1]) * UNITS_S[match[2] or "ms"]


def _milliseconds(value: float) -> float:
    try:
        return float(value) / 1000
    except OverflowError:
        return math.inf


def as_text(duration: float) -> str:
    """A duration in seconds as a configuration writes it, in the largest unit that leaves it whole."""
    for unit in ("h", "m", "s"):
        if duration >= UNITS_S[unit] and duration % UNITS_S[unit] == 0:
            return f"{duration / UNITS_S[unit]:.0f}{unit}"
    return f"{duration * 1000:.9g}ms"


def as_size(size_bytes: int) -> str:
    """A size as a configuration writes it, in the largest binary unit that leaves it whole."""
    for unit in ("GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % UNITS_BYTES[unit] == 0:
            return f"{size_bytes // UNITS_BYTES[unit]}{unit}"
    return f"{size_bytes}B"


def _refused(text: str) -> PydanticCustomError:
    # The text goes in as a value: pydantic would read braces in a template as names.
    return PydanticCustomError("refused", "{text}", {"text": text})


class _Scalar:
    """A kind of value, as the annotation of a model's field."""

    def read(self, value: Any) -> Any:
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        raise NotImplementedError

    def written(self, value: Any) -> Any:
        """The value in a JSON dump of the model."""
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.read,
            serialization=core_schema.plain_serializer_function_ser_schema(self.written, when_used="json-unless-none"),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self.json_schema(), _INTERPOLATED]}


@dataclass(frozen=True)
class Duration(_Scalar):
    """A length of time, kept as seconds. `low` and `high` are in seconds and both allowed."""

    low: float = 0.001
    high: float = DAY

    def read(self, value: Any) -> float:
        try:
            duration = seconds(value)
        except ValueError as error:
            raise _refused(str(error)) from None
        if not self.low <= duration <= self.high:
            span = f"from {as_text(self.low)} to {as_text(self.high)}"
            raise _refused(f"must be {span} (a bare number is milliseconds)")
        return duration

    def written(self, value: Any) -> Any:
        return as_text(value)

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "number", "minimum": self.low * 1000, "maximum": self.high * 1000}
        text = {"type": "string", "pattern": rf"^{_DURATION.pattern}$"}
        return {"description": "a duration; a bare number is milliseconds", "anyOf": [number, text]}


@dataclass(frozen=True)
class Whole(_Scalar):
    """A whole number from `low` to `high`, both allowed."""

    low: int = 1
    high: int = 1_000_000_000

    def read(self, value: Any) -> int:
        if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise _refused(f"must be a whole number from {self.low} to {self.high}")
        return value

    def json_schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True)
class Size(_Scalar):
    """How many bytes, kept as a whole number: "16MiB" says its unit, a bare number is bytes."""

    low: int = 1
    high: int = 1 << 40

    def read(self, value: Any) -> int:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        size = int(match[1]) * UNITS_BYTES[match[2] or ""] if match else value
        if not isinstance(size, int) or isinstance(size, bool):
            raise _refused('is not a size; write "16MiB", "500KiB" or "1GiB" (a bare number is bytes)')
        if not self.low <= size <= self.high:
            raise _refused(f"must be from {as_size(self.low)} to {as_size(self.high)} (a bare number is bytes)")
        return size

    def written(self, value: Any) -> Any:
        return as_size(value)

    def json_schema(self) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        text = {"type": "string", "pattern": rf"^{_SIZE.pattern}$"}
        return {"description": "a size; a bare number is bytes", "anyOf": [number, text]}


@dataclass(frozen=True)
class Number(_Scalar):
    """A number from `low` to `high`, both allowed; with `above`, `low` itself is not."""

    low: float = 0.0
    high: float = 1e9
    above: bool = False

    def read(self, value: Any) -> float:
        if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not self._holds(value):
            span = f"above {self.low:g}, at most {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"
            raise _refused(f"must be a number {span}")
        return float(value)

    def _holds(self, value: float) -> bool:
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def json_schema(self) -> dict[str, Any]:
        return {"type": "number", ("exclusiveMinimum" if self.above else "minimum"): self.low, "maximum": self.high}


@dataclass(frozen=True)
class Share(Number):
    """A part of a whole, from 0 to 1; "20%" is read as 0.2."""

    high: float = 1.0

    def read(self, value: Any) -> float:
        if isinstance(value, str) and value.strip().endswith("%"):
            text = value.strip()[:-1].strip()
            value = float(text) / 100 if _NUMBER.fullmatch(text) else value
        return super().read(value)


@dataclass(frozen=True)
class Flag(_Scalar):
    """Yes or no: `true` or `false`, and no other word."""

    def read(self, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        if value in ("true", "false"):
            return bool(value == "true")
        raise _refused("must be true or false")

    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}
