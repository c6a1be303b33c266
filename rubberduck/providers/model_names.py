"""Whether two names mean one model: who is asked by one name often answers by a longer one.

    gpt-5.1                          answers as  gpt-5.1-2025-11-13
    claude-opus-4-6                              claude-opus-4-6-20260205
    anthropic/claude-sonnet-4 (OpenRouter)       anthropic/claude-4-sonnet-20250522

What a model has signed or sealed goes back to that model alone, so a doubt counts as no.
"""

from __future__ import annotations

import re
from functools import lru_cache

_UNSAID = re.compile(r"[-@](\d{8}|\d{4}-\d{2}-\d{2}|latest|default|0|v\d+)(?=$|[-@])")
"""What a name may have behind it without meaning another model: a date, an edition."""
_DATE = re.compile(r"\d{8}|\d{4}-\d{2}-\d{2}")


@lru_cache(maxsize=1000)
def is_same_model(one: str, other: str) -> bool:
    """By words in any order and numbers in theirs; vendors and dates count where both names have one."""
    (vendor, _, name), (other_vendor, _, other_name) = one.rpartition("/"), other.rpartition("/")
    if vendor and other_vendor and vendor != other_vendor:
        return False
    date, other_date = _DATE.search(name), _DATE.search(other_name)
    if date and other_date and date[0] != other_date[0]:
        return False
    return _told(name) == _told(other_name)


def _told(name: str) -> tuple[list[str], list[str]]:
    """The words of a name, sorted, and its numbers; what a cloud puts before Claude's and behind a colon is no part."""
    bare = name.lower().partition(":")[0]
    bare = _UNSAID.sub("", bare[max(0, bare.find("claude-")) :])
    return sorted(re.findall(r"[^\W\d_]+", bare)), re.findall(r"\d+", bare)
