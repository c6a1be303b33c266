"""Checks that turn a wrong field into a SpecError saying what is wrong, where, and what would be right."""

from __future__ import annotations

import difflib
import inspect
import math
import re
from enum import StrEnum
from typing import Any, TypeVar

from supervision.errors import SpecError

_Word = TypeVar("_Word", bound=StrEnum)
_Class = TypeVar("_Class", bound=type)

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def member(kind: type[_Word], value: Any, where: str) -> _Word:
    """`value` as a member of `kind`; its lower-case word is as good as the member."""
    try:
        return kind(value)
    except ValueError:
        words = ", ".join(repr(str(word)) for word in kind)
        raise SpecError(f"{where}: {value!r} is not one of {words}") from None


def seconds(value: Any, where: str, *, positive: bool = False) -> float:
    """`value` as a finite number of seconds, zero allowed unless `positive`."""
    wanted = "a number of seconds > 0" if positive else "a number of seconds >= 0"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SpecError(f"{where}: {value!r} is not {wanted}{_in_seconds(value)}")
    if not _is_finite(value) or value < 0 or (positive and value == 0):
        raise SpecError(f"{where}: {value!r} is not {wanted} (and finite)")
    return float(value)


def duration(value: Any, where: str, *, positive: bool = False) -> float:
    """Seconds, written as a number or as text with a unit: "500ms", "1s", "2m", "1h"."""
    if not isinstance(value, str):
        return seconds(value, where, positive=positive)
    parsed = _DURATION.fullmatch(value)
    if parsed is None:
        raise SpecError(f'{where}: {value!r} is not a duration; write seconds, or a number with ms, s, m or h ("1s")')
    return seconds(float(parsed[1]) * _UNIT_SECONDS[parsed[2]], where, positive=positive)


def _in_seconds(value: Any) -> str:
    """What to write for a text that would be a duration elsewhere."""
    parsed = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return "" if parsed is None else f"; write {float(parsed[1]) * _UNIT_SECONDS[parsed[2]]:g}"


def timeout(value: Any, where: str) -> float | None:
    """`value` as seconds to wait: None and infinity are no limit, and what is negative is over already."""
    if value is None or value == math.inf:
        return None
    return finite(value, where)


def finite(value: Any, where: str) -> float:
    """`value` as a finite number of seconds, be it negative: what is due in the past is due now."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise SpecError(f"{where}: {value!r} is not a number of seconds (and finite)")
    return float(value)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def path_part(value: Any, where: str) -> str:
    """`value` if it can stand in a path."""
    if not isinstance(value, str) or not value or "/" in value:
        raise SpecError(f"{where}: {value!r} is not a non-empty text without '/'")
    return value


def with_methods(value: Any, where: str, what: str, *methods: str) -> Any:
    """`value` if it is an object, not a class, that has these methods."""
    if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in methods):
        raise SpecError(f"{where}: {value!r} is not {what} (an object with {' and '.join(methods)})")
    return value


def ref(value: Any, where: str) -> Any:
    """`value` if messages can be sent to it."""
    if isinstance(value, type) or not callable(getattr(value, "tell", None)):
        raise SpecError(f"{where}: {value!r} is no ref")
    return value


def own_ref(value: Any, where: str) -> Any:
    """`value` if it is a ref whose incarnations can be followed: one of this package's."""
    if not hasattr(ref(value, where), "name"):
        raise SpecError(f"{where}: {value!r} is a ref of Pykka's own, and of such an actor no end is told")
    return value


def text(value: Any, where: str) -> str:
    """`value` if it is a text."""
    if not isinstance(value, str):
        raise SpecError(f"{where}: {value!r} is not a text")
    return value


def count(value: Any, where: str, *, at_least: int = 0) -> int:
    """`value` as a whole number, `at_least` or more."""
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise SpecError(f"{where}: {value!r} is not a whole number >= {at_least}")
    return value


def flag(value: Any, where: str) -> bool:
    """`value` if it is True or False."""
    if not isinstance(value, bool):
        raise SpecError(f"{where}: {value!r} is neither True nor False")
    return value


def known_fields(cls: type, args: tuple[Any, ...], fields: dict[str, Any], where: str, *, positional: int) -> None:
    """Refuse a field `cls` does not have, naming the nearest it does, and more positional arguments than it takes."""
    known: tuple[str, ...] = tuple(vars(cls)["__dataclass_fields__"])
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise SpecError(f"{where}: there is no field {name!r}; {hint}")
    if len(args) > positional:
        raise SpecError(f"{where}: {len(args)} positional arguments; after the first {positional}, name them")


def shown_by_fields(cls: _Class) -> _Class:
    """Have `help()` and editors show the fields of `cls`, and not the `*args` of a `__new__` that checks them."""
    whole = inspect.signature(vars(cls)["__init__"])
    cls.__signature__ = whole.replace(parameters=list(whole.parameters.values())[1:])  # type: ignore[attr-defined]
    return cls
