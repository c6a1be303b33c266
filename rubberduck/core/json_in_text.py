"""Where the JSON is in what a model wrote, if it wrote more than that."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator

MOST = 64
"""So many values are found at most: the last ones, for a model that thinks aloud answers at the end."""
_EFFORT = 16
"""How often the text may be read over, as far as values begun and not ended go: no text must hold a thread for long."""
_COUNTED = 256
"""An error counts the lines before it: so many characters in the time in which one is read."""
_FENCED = re.compile(r"```[ \t]*+(\w*+)[^\S\n]*+\n(.*?)```", re.DOTALL)  # possessive: no blanks are tried twice
_START = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()


def is_json(text: str) -> bool:
    """Whether the whole text is one JSON value."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def candidates(text: str) -> list[str]:
    """The values that the text may mean, the likeliest first: in a fence, else in the prose; of each the last first."""
    fenced = [body.strip() for word, body in _FENCED.findall(text) if word.lower() in ("", "json", "json5", "jsonc")]
    found = [body for body in fenced[-MOST:] if is_json(body)]
    return list(reversed(found or deque(_in_prose(text), maxlen=MOST)))


def _in_prose(text: str) -> Iterator[str]:
    """Objects and lists in the text, outermost only."""
    at, left = 0, _EFFORT * len(text)
    while left > 0 and (start := _START.search(text, at)) is not None:
        at = start.start()
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            left -= _read_by(error, at, len(text))
            at += 1
            continue
        yield text[at:end]
        at = end


def _read_by(error: ValueError | RecursionError, start: int, end: int) -> int:
    """How many characters were read before it turned out that no value begins here, at most."""
    if isinstance(error, json.JSONDecodeError) and not error.msg.startswith("Unterminated"):
        return error.pos - start + 1 + error.pos // _COUNTED
    return end - start
