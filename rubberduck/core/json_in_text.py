"""Where the JSON is in what a model wrote, if it wrote more than that."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

MAX_STARTS = 64
"""So many brackets are tried as the begin of a value: text full of brackets must not hold a thread for long."""
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
    found = [body for body in reversed(fenced) if is_json(body)]
    return found or list(reversed(list(_in_prose(text))))


def _in_prose(text: str) -> Iterator[str]:
    """Objects and lists in the text, outermost only."""
    at = 0
    for _ in range(MAX_STARTS):
        start = _START.search(text, at)
        if start is None:
            return
        at = start.start()
        try:
            _, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
            continue
        yield text[at:end]
        at = end
