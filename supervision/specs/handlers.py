"""Whether a class's handler and hooks can be called as they will be: a wrong signature is told when it is supervised.

What cannot be told from the class is let through: anything callable that keeps its parameters to itself. So are
defaults, `*args`, decorators, `functools.partialmethod` and mocks.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import pykka

from supervision.errors import SpecError

CALLED_WITH: dict[str, tuple[str, ...]] = {
    "on_receive": ("message",),
    "on_start": (),
    "on_stop": (),
    "on_failure": ("exception_type", "exception_value", "traceback"),
    "recover": (),
    "on_cancel": (),
}
"""The methods that the runtime calls, and with what."""


def check(actor_class: Any) -> None:
    """Raise SpecError for a handler or hook of `actor_class` that cannot work."""
    for fault in _faults(actor_class):
        raise SpecError(fault)


@functools.cache
def _faults(actor_class: type[Any]) -> tuple[str, ...]:
    return tuple(fault for name in CALLED_WITH for fault in _faults_of(actor_class, name))


def _faults_of(actor_class: type[Any], name: str) -> Iterator[str]:
    expected = f"{name}({', '.join(('self', *CALLED_WITH[name]))})"
    where = f"{actor_class.__name__}.{name}"
    raw = inspect.getattr_static(actor_class, name, None)
    if raw is None:
        return
    function, arguments = _as_called(actor_class, name, raw)
    if function is None:
        if not hasattr(type(raw), "__get__"):
            yield f"{where} is {raw!r}, which cannot be called; expected {expected}"
        return
    if inspect.isasyncgenfunction(function) or (name != "on_receive" and inspect.isgeneratorfunction(function)):
        yield f"{where} is a generator function: nobody would run its body; expected {expected} without `yield`"
    elif inspect.iscoroutinefunction(function) and issubclass(actor_class, pykka.ThreadingActor):
        yield f"{where} is `async def`, but a ThreadingActor has no event loop: derive from supervision.Actor"
    elif (signature := _signature(function)) is not None and not _takes(signature, arguments):
        yield f"{where}{signature} cannot be called with {_said(name)}; expected {expected}"


def _as_called(actor_class: type[Any], name: str, raw: Any) -> tuple[Callable[..., Any] | None, tuple[str, ...]]:
    """What is called, and with which arguments; None where nobody can know without an instance."""
    arguments = CALLED_WITH[name]
    if isinstance(raw, staticmethod):
        return raw.__func__, arguments
    if isinstance(raw, classmethod):
        return getattr(actor_class, name), arguments
    if isinstance(raw, FunctionType | functools.partialmethod):
        return getattr(actor_class, name), ("self", *arguments)
    if callable(raw) and not hasattr(type(raw), "__get__"):
        return raw, arguments
    return None, ()


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function, follow_wrapped=False)  # a decorator takes what it takes itself
    except (ValueError, TypeError):  # written in C, or a mock: it does not say
        return None


def _takes(signature: inspect.Signature, arguments: tuple[str, ...]) -> bool:
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _said(name: str) -> str:
    return " and ".join(("self", *CALLED_WITH[name]))
