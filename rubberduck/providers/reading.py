"""Reads vendors' JSON without trusting it: a field of the wrong type counts as absent.

Nothing here raises on strange values. Text comes back free of lone surrogates, which no encoder would take.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

LARGEST_COUNT = 2**53
"""Counters beyond this are nonsense, and would not survive a JSON or SQL round trip."""

_DECODER = json.JSONDecoder()
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_BYTES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def parse_json(body: bytes | str) -> Any:
    """The value that a body holds. Raises ValueError where it is no JSON, or nested beyond reading.

    Halves of surrogate pairs are replaced, in what is kept as it came too: no ledger and no provider takes them.
    """
    try:
        value = _read(body)
        return _mended(value) if _may_hold_halves(body) else value
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _read(body: bytes | str) -> Any:
    if isinstance(body, str) and body.startswith("{"):
        value, end = _DECODER.raw_decode(body)  # what `json.loads` does around this takes longer than a token's JSON
        if end == len(body):
            return value
    return json.loads(body)


def _may_hold_halves(body: bytes | str) -> bool:
    """Whether a surrogate was written in the body, be it one of a pair: by its number, or as if it were a letter."""
    if isinstance(body, str):
        return "\\u" in body and _SURROGATE.search(body) is not None
    return (b"\\u" in body or b"\xed" in body) and _SURROGATE_BYTES.search(body) is not None


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, list):
        return [_mended(each) for each in value]
    if isinstance(value, dict):
        return {as_text(name): _mended(each) for name, each in value.items()}
    return value


def as_dict(value: object) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """The value if it is an array, else an empty one."""
    return value if isinstance(value, list) else []


def as_text(value: object) -> str:
    """The value if it is a string, else an empty one."""
    if not isinstance(value, str) or value.isascii():
        return value if isinstance(value, str) else ""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def as_name(value: object) -> str | None:
    """The value if it is a string that says something, else None. Numbers are written out."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if abs(value) <= LARGEST_COUNT else None
    return as_text(value) or None


def as_count(value: object) -> int | None:
    """The value if it can be a number of things, else None."""
    if type(value) is int:  # not bool
        return value if 0 <= value <= LARGEST_COUNT else None
    if not isinstance(value, float) or not 0 <= value <= LARGEST_COUNT:
        return None
    return int(value)


def as_json_text(value: object) -> str:
    """Tool arguments as JSON text: strings as they are, objects written out, absent ones empty."""
    if value is None or isinstance(value, str):
        return as_text(value)
    try:
        return as_text(json.dumps(value, ensure_ascii=False))
    except (ValueError, RecursionError):
        return ""


def is_whole_json(text: str) -> bool:
    """Whether a text is one complete JSON value."""
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def made_id(*parts: object, prefix: str = "call_") -> str:
    """An id for something that came without one: the same parts give the same id."""
    digest = hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()
    return prefix + digest
