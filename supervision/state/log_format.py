"""How an event log looks on the disk. Nothing here opens a file.

    file   = header record*
    header = "sup-log" version            8 bytes
    record = length length_crc crc data   three big-endian 32-bit numbers, then `length` bytes of JSON

Both sums are CRC-32. The length has one of its own: only a length that can be trusted tells a record that was cut
off at the end of the file, as a crash in the middle of writing leaves it, from damage in the middle.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from dataclasses import dataclass
from typing import Any, BinaryIO

from supervision.errors import EntryNotJson

HEADER = b"sup-log\x01"
_HEAD = struct.Struct(">III")
_LENGTH = struct.Struct(">I")
MAX_BYTES = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Record:
    """A whole and sound record: what was recorded, and how many bytes it takes in the file."""

    entry: Any
    size: int


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no sound record. `is_torn` if they can only be the unfinished end of the file."""

    is_torn: bool
    why: str


def encode(entry: Any) -> bytes:
    """The record of a JSON value.

    Raises:
        EntryNotJson: it would not come back as the same value, or is too large.
    """
    try:
        _check(entry, "entry")
        data = json.dumps(entry, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:  # such as a number of 5000 digits, or a list in itself
        raise EntryNotJson(f"record() takes JSON values: {error}") from error
    if len(data) > MAX_BYTES:
        raise EntryNotJson(f"record() takes JSON values of up to {MAX_BYTES} bytes, not {len(data)}")
    length = _LENGTH.pack(len(data))
    return length + struct.pack(">II", zlib.crc32(length), zlib.crc32(data)) + data


def _check(value: Any, where: str) -> None:
    """Refuse what `json` would turn into something else: a tuple into a list, a number as key into text."""
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} in {where} is no text")
            _check(each, f"{where}[{key!r}]")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            _check(each, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{where} is {value!r}")
    elif value is not None and not isinstance(value, str | int | float):
        raise TypeError(f"{where} is a {type(value).__name__}")


def read_record(stream: BinaryIO, left: int) -> Record | Damage:
    """The next record of a stream in which `left` bytes, at least one, are left."""
    head = stream.read(min(_HEAD.size, left))
    if len(head) < _HEAD.size:
        return Damage(True, "the head of a record is cut off")
    length, length_crc, crc = _HEAD.unpack(head)
    if zlib.crc32(head[: _LENGTH.size]) != length_crc:
        return Damage(False, "the length of a record is damaged")
    if length > left - _HEAD.size:
        return Damage(True, "a record is cut off")
    data = stream.read(length)
    if zlib.crc32(data) != crc:
        return Damage(length == left - _HEAD.size, "a record is damaged")
    try:
        return Record(json.loads(data), _HEAD.size + length)
    except ValueError as error:
        return Damage(False, f"a record is no JSON: {error}")
