"""Which handlers and hooks are refused when they are supervised, and which are not."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from unittest import mock

import pykka
import pytest

import supervision as sup
from supervision.actor import supervised
from supervision.errors import SpecError


def plain(self: Any) -> None: ...


def two(self: Any, a: Any, b: Any) -> None: ...


def named_only(self: Any, *, message: Any) -> None: ...


async def coroutine(self: Any, message: Any) -> None: ...


async def async_generator(self: Any, message: Any) -> Any:
    yield message


def generator_hook(self: Any) -> Any:
    yield


def with_argument(self: Any, x: Any) -> None: ...


async def coroutine_hook(self: Any) -> None: ...


def short_failure(self: Any, error: BaseException) -> None: ...


def actor_with(base: type[Any], **members: Any) -> Any:
    return type("Worker", (base,), members)


WRONG: list[tuple[str, type[Any], dict[str, Any], str]] = [
    ("no message", sup.Actor, {"on_receive": plain}, r"Worker\.on_receive\(self.*expected on_receive\(self, message\)"),
    ("too many", sup.Actor, {"on_receive": two}, r"Worker\.on_receive\(.*b: .*expected on_receive\(self, message\)"),
    ("by name only", sup.Actor, {"on_receive": named_only}, r"expected on_receive\(self, message\)"),
    ("no method", sup.Actor, {"on_receive": 3}, r"Worker\.on_receive is 3, which cannot be called; expected on"),
    ("a stream", sup.Actor, {"on_receive": async_generator}, r"Worker\.on_receive is a generator function"),
    ("static with self", sup.Actor, {"on_receive": staticmethod(two)}, r"expected on_receive\(self, message\)"),
    ("on_start", sup.Actor, {"on_start": with_argument}, r"Worker\.on_start\(self.*x.*expected on_start\(self\)"),
    ("on_start yields", sup.Actor, {"on_start": generator_hook}, r"Worker\.on_start is a generator function"),
    ("on_stop", sup.Actor, {"on_stop": with_argument}, r"expected on_stop\(self\)"),
    ("recover", sup.Actor, {"recover": with_argument}, r"expected recover\(self\)"),
    ("on_failure", sup.Actor, {"on_failure": short_failure}, r"expected on_failure\(self, exception_type, exception_"),
    ("thread awaits", pykka.ThreadingActor, {"on_receive": coroutine}, r"Worker\.on_receive is `async def`, but a Thr"),
    ("thread awaits in a hook", pykka.ThreadingActor, {"on_start": coroutine_hook}, r"Worker\.on_start is `async def`"),
    ("thread, no message", pykka.ThreadingActor, {"on_receive": plain}, r"expected on_receive\(self, message\)"),
]  # fmt: skip


@pytest.mark.parametrize(("base", "members", "told"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_a_handler_that_cannot_work_is_refused_naming_class_and_signature(
    system: sup.System, base: type[Any], members: dict[str, Any], told: str
) -> None:
    with pytest.raises(SpecError, match=rf"^child 'w': .*{told}"):
        system.supervise(sup.ChildSpec("w", actor_with(base, **members)))
    assert system.whereis("w") is None
    with pytest.raises(SpecError, match="child 'w'"):
        system.supervise(sup.supervisor("mid")).start_child(sup.ChildSpec("w", actor_with(base, **members)))


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args, "more")

    return wrapper


class CallableObject:
    def __call__(self, message: Any) -> Any:
        return message


RIGHT: dict[str, dict[str, Any]] = {
    "nothing at all": {},
    "any arguments": {"on_receive": lambda *args: args[1]},
    "another name": {"on_receive": lambda self, m: m},
    "a default more": {"on_receive": lambda self, message, more=1: message},
    "a decorator that adds an argument": {"on_receive": decorated(lambda self, message, more: message)},
    "a partial method": {"on_receive": functools.partialmethod(lambda self, more, message: message, 1)},
    "a static method": {"on_receive": staticmethod(lambda message: message)},
    "a class method": {"on_receive": classmethod(lambda cls, message: message)},
    "an object": {"on_receive": CallableObject()},
    "a property": {"on_receive": property(lambda self: CallableObject())},
    "hooks that want nothing more": {"on_start": lambda *a, **k: None, "on_failure": lambda self, *error: None},
}


@pytest.mark.parametrize("base", [sup.Actor, pykka.ThreadingActor])
@pytest.mark.parametrize("members", RIGHT.values(), ids=RIGHT)
def test_what_can_work_is_let_through_and_works(system: sup.System, members: dict[str, Any], base: type[Any]) -> None:
    system.supervise(sup.ChildSpec("w", actor_with(base, **members)))
    if "on_receive" in members:
        assert system.whereis("w").ask("echo", timeout=30) == "echo"


@pytest.mark.parametrize("make", [mock.Mock, mock.MagicMock, mock.AsyncMock])
def test_a_mock_is_let_through(make: Any) -> None:
    assert issubclass(supervised(actor_with(sup.Actor, on_receive=make(), on_start=make())), sup.Actor)


@pytest.mark.parametrize("function", [coroutine, async_generator])
def test_a_loop_actor_may_await_but_not_yield(function: Any) -> None:
    if function is coroutine:
        supervised(actor_with(sup.Actor, on_receive=function, on_start=coroutine_hook))
    else:
        with pytest.raises(SpecError):
            supervised(actor_with(sup.Actor, on_receive=function))


def test_the_class_a_factory_makes_is_looked_at_when_it_starts(system: sup.System) -> None:
    with pytest.raises(sup.StartFailedError, match=r"root/w .*Worker\.on_receive\(self.*expected on_receive"):
        system.supervise(sup.ChildSpec("w", lambda: actor_with(sup.Actor, on_receive=plain)()))
