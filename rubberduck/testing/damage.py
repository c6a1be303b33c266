"""Spoils an answer's bytes in the ways that servers, proxies and networks do, always the same for the same dice.

    dice = random.Random(7)
    spoilt = damaged(body, dice)

Half of the kinds work on bytes, the other half on the JSON within: in the body as a whole, or in one line of a stream.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 10**30, -(10**30), float("nan"), float("inf"), "", " ", "0", "stop", "\ud800",
    "\u2028", "🦆", [], {}, [None], [[]], [{}], {"": None}, {"error": "x"}, [1, "two", None], {"type": "text"},
)  # fmt: skip
"""What may stand where something else should."""

NOISE = (
    b"\x00", b"\xff", b"\xc3", b"\xf0\x9f", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b"\r\n", b"\n\n",
    b": ping\n\n", b"data:", b"data: \n\n", b"data: [DONE]\n\n", b"data: {}\n\n", b"event: error\n", b"event: x\n\n",
    b"id: 1\n", b"retry: 1\n\n", b"{}", b"[]", b"null", b"{", b"}", b'"', b"\\", b"\\ud800", b"\\u0000", b"<html>",
    b"[" * 5000, b'{"a":' * 3000,
)  # fmt: skip
"""What may stand between the bytes of an answer."""


def damaged(body: bytes, dice: random.Random) -> bytes:
    """The body, spoilt in one to four places."""
    for _ in range(dice.choice((1, 1, 2, 4))):
        body = dice.choice(_KINDS)(body, dice)
    return body


def pieces(body: bytes, dice: random.Random) -> Iterator[bytes]:
    """The body in pieces of changing size, as a network might hand it over."""
    start = 0
    while start < len(body):
        size = dice.choice((1, 2, 3, 7, 64, 1024, len(body)))
        yield body[start : start + size]
        start += size


def _span(body: bytes, dice: random.Random) -> tuple[int, int]:
    start = dice.randrange(len(body) + 1)
    return start, min(len(body), start + dice.choice((1, 2, 8, 40, 300)))


def _flip(body: bytes, dice: random.Random) -> bytes:
    spoilt = bytearray(body)
    for _ in range(dice.randint(1, 4)):
        if spoilt:
            spoilt[dice.randrange(len(spoilt))] = dice.randrange(256)
    return bytes(spoilt)


def _cut_out(body: bytes, dice: random.Random) -> bytes:
    start, end = _span(body, dice)
    return body[:start] + body[end:]


def _repeat(body: bytes, dice: random.Random) -> bytes:
    start, end = _span(body, dice)
    return body[:end] + body[start:end] + body[end:]


def _insert(body: bytes, dice: random.Random) -> bytes:
    start, _ = _span(body, dice)
    return body[:start] + dice.choice(NOISE) + body[start:]


def _shorten(body: bytes, dice: random.Random) -> bytes:
    return body[: dice.randrange(len(body) + 1)]


def _other_line_ends(body: bytes, dice: random.Random) -> bytes:
    return body.replace(b"\n", dice.choice((b"\r\n", b"\r", b"\n\n", b"\n\r")), dice.choice((-1, 1, 3)))


def _shuffle_events(body: bytes, dice: random.Random) -> bytes:
    mark = dice.choice((b"\n\n", b"\n"))
    events = body.split(mark)
    match dice.randrange(4):
        case 0:
            events.insert(dice.randrange(len(events) + 1), dice.choice(events))
        case 1:
            del events[dice.randrange(len(events))]
        case 2:
            dice.shuffle(events)
        case _:
            events.reverse()
    return mark.join(events)


def _twist_json(body: bytes, dice: random.Random) -> bytes:
    """One value of the JSON within put in the place of another, taken out, or made strange."""
    head, sep = b"", b""
    lines = [body]
    if _parsed(body) is None:
        sep = b"\n"
        lines = body.split(sep)
    known = [number for number, line in enumerate(lines) if isinstance(_parsed(_payload(line)[1]), dict | list)]
    if not known:
        return body
    number = dice.choice(known)
    head, payload = _payload(lines[number])
    value = json.loads(payload)
    places = list(_places(value))
    holder, key = dice.choice(places) if places else ([value], 0)
    match dice.randrange(4):
        case 0:
            del holder[key]
        case 1:
            other, name = dice.choice(places) if places else (holder, key)
            holder[key] = json.loads(json.dumps(other[name])) if other is not holder else None
        case _:
            holder[key] = dice.choice(STRANGE)
    lines[number] = head + json.dumps(value, ensure_ascii=dice.random() < 0.5).encode("utf-8", "surrogatepass")
    return sep.join(lines)


def _payload(line: bytes) -> tuple[bytes, bytes]:
    return (b"data: ", line[6:]) if line.startswith(b"data: ") else (b"", line)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


_KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip, _cut_out, _repeat, _insert, _insert, _shorten, _other_line_ends, _shuffle_events,
    _twist_json, _twist_json, _twist_json, _twist_json, _twist_json, _twist_json,
)  # fmt: skip
