"""Whether two names mean one model: who is asked by one name often answers by a longer one.

    gpt-5.1                          answers as  gpt-5.1-2025-11-13
    claude-opus-4-6                              claude-opus-4-6-20260205
    anthropic/claude-sonnet-4 (OpenRouter)       anthropic/claude-4-sonnet-20250522

An alias tells nothing of the model behind it, so the name that was asked for is kept beside the one that answered:

    gemini-flash-latest              answers as  gemini-3-flash-preview

What a model has signed or sealed goes back to that model alone, so a doubt counts as no.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache

from rubberduck.types import Message, Native, Response

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


def is_written_by(native: Native, model: str) -> bool:
    """Whether these parts are a model's own: it answered by this name, or to it."""
    return is_same_model(native.model, model) or (native.asked != "" and is_same_model(native.asked, model))


def with_asked(response: Response, model: str) -> Response:
    """The answer with the name that was asked for in its native parts, where another one answered."""
    if all(choice.message.native is None for choice in response.choices):
        return response
    choices = [replace(choice, message=_asked_as(choice.message, model)) for choice in response.choices]
    return replace(response, choices=tuple(choices))


def _asked_as(message: Message, model: str) -> Message:
    native = asked_as(message.native, model)
    return message if native is message.native else message.model_copy(update={"native": native})


def asked_as(native: Native | None, model: str) -> Native | None:
    """The native parts with the name that was asked for, where it does not mean the one that answered."""
    if native is None or not model or is_same_model(native.model, model):
        return native
    return native.model_copy(update={"asked": model})


def _told(name: str) -> tuple[list[str], list[str]]:
    """The words of a name, sorted, and its numbers; what a cloud puts before Claude's and behind a colon is no part."""
    bare = name.lower().partition(":")[0]
    bare = _UNSAID.sub("", bare[max(0, bare.find("claude-")) :])
    return sorted(re.findall(r"[^\W\d_]+", bare)), re.findall(r"\d+", bare)
