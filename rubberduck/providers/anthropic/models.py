"""What each of Anthropic's models takes, told from its name, for no answer of the API says it beforehand.

A name that is none of Anthropic's stands for a model of which nothing is known: it is sent whatever is asked for, and
its server decides. Sources: Anthropic, "Effort", "Extended thinking", "Adaptive thinking" and "Versions" (pages of
2026); release notes of 2026-02-05 (prefill); the model names of anthropic 2.12.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_NAME = re.compile(
    r"claude-(?P<kind>opus|sonnet|haiku|fable|mythos|instant)?-?"
    r"(?P<major>\d{1,2}|preview)?(?:[-.](?P<minor>\d{1,2}))?(?!\d)(?:-(?P<old>opus|sonnet|haiku))?"
)
_ALL_EFFORTS = ("low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Takes:
    """What a model takes.

    `efforts` are its levels in rising order. `budget` is thinking with a number of tokens, `adaptive` thinking as the
    model sees fit, `adaptive_by_effort` that it does so for whoever asks for effort. `quiet` says that it can be kept
    from thinking, `forcing` that it can be made to call a tool.
    """

    sampling: bool = True
    system_turns: bool = False
    prefill: bool = True
    efforts: tuple[str, ...] = _ALL_EFFORTS
    budget: bool = True
    adaptive: bool = False
    adaptive_by_effort: bool = False
    quiet: bool = True
    forcing: bool = True


@lru_cache(maxsize=1000)
def takes(model: str) -> Takes:
    """What this model takes."""
    generation = _generation(model)
    if generation is None:
        return Takes()
    kind, version = generation
    always_thinks = kind in ("fable", "mythos")
    return Takes(
        sampling=version < (4, 7),
        system_turns=version >= (4, 8),
        prefill=version <= (4, 5),
        efforts=_efforts(kind, version),
        budget=version < (4, 7),
        adaptive=version >= (4, 6),
        adaptive_by_effort=version >= (4, 7),
        quiet=not always_thinks,
        forcing=not (always_thinks and version >= (5, 0)),
    )


def is_known(model: str) -> bool:
    """Whether the name tells which model it is."""
    return _generation(model) is not None


def _generation(model: str) -> tuple[str, tuple[int, int]] | None:
    """The family and the version in a name, such as opus and (4, 6)."""
    found = _NAME.search(model)
    if found is None:
        return None
    kind, major = found["kind"] or found["old"] or "", found["major"]
    if kind == "mythos" and major == "preview":
        return kind, (4, 6)
    if not (major or "").isdigit():
        return None
    return kind, (int(major), int(found["minor"] or 0))


def _efforts(kind: str, version: tuple[int, int]) -> tuple[str, ...]:
    if version >= (4, 7):
        return _ALL_EFFORTS
    if version >= (4, 6):
        return ("low", "medium", "high", "max")
    return ("low", "medium", "high") if (kind, version) == ("opus", (4, 5)) else ()
