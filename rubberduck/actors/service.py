"""The door: takes a request from a caller and gives it to a task that answers it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import supervision as sup
from rubberduck.actors.call import Call
from rubberduck.actors.calls import CallRunner
from rubberduck.errors import CallInterrupted, InvalidRequest, RubberDuckError
from rubberduck.stream import Stream
from rubberduck.types import Request, Response

PRIORITIES = ("high", "normal", "low")
LONGEST_TIMEOUT = 86_400.0
"""A day, in seconds: a longer timeout is a mistake in its unit."""
LONGEST_TEXT = 1000
"""The most characters of a tenant, a tag, or a provider's name."""


@dataclass(frozen=True, slots=True)
class Order:
    """A question and how it is to be answered: `timeout` seconds for everything, `providers` the only ones allowed.

    Calls of one `session` stay on one route while that is not much worse than the best.

    `replayable` False says that to send it twice could do something twice: it is neither hedged, nor sent again once
    it may have been executed.
    """

    request: Request | dict[str, Any]
    priority: Literal["high", "normal", "low"] = "normal"
    timeout: float | None = None
    providers: tuple[str, ...] | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    replayable: bool = True
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Complete(Order, sup.Ask[Response]):
    """Answer the request as a whole."""


@dataclass(frozen=True, slots=True)
class OpenStream(Order, sup.Ask[Stream]):
    """Answer the request as a stream; the reply comes with its first chunk."""


@dataclass(frozen=True, slots=True)
class Drain(sup.Ask[None]):
    """Accept no further calls; those in flight go on."""


_VERBS: dict[str, type[Complete | OpenStream]] = {"complete": Complete, "stream": OpenStream}
_OPTIONS = ("priority", "timeout", "providers", "tenant", "tags", "session", "replayable")


class ServiceActor(sup.Actor):
    """Accepts calls: `ask({"complete": request})`, `ask({"stream": request})`, or the typed messages.

    Why an actor: one address for all callers, in whatever thread, that survives restarts.
    Asks: no one; each call becomes a task under `calls`, which owes the reply from then on.
    Restart: forgets nothing, for it keeps nothing.
    """

    expected_errors = (RubberDuckError,)

    def __init__(self, runner: CallRunner, *, default_timeout: float) -> None:
        super().__init__()
        self._runner = runner
        self._default_timeout = default_timeout

    def on_start(self) -> None:
        self._draining = bool(self.context.snapshot)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Drain):
            self._draining = True
            self.remember(True)
            return None
        order = message if isinstance(message, Complete | OpenStream) else _read(message)
        if self._draining:
            raise CallInterrupted("RubberDuck is stopping and takes no further calls")
        call = self._call(order)
        reply = self.owe()
        if reply.deadline is not None:
            call.deadline = min(call.deadline, reply.deadline)
        on_lost = functools.partial(self._runner.lose, call)
        reply.forward(self._runner.calls(), sup.RunTask(self._runner.run, (call,), takes_reply=True, on_lost=on_lost))
        return reply

    def _call(self, order: Complete | OpenStream) -> Call:
        request = Request.parse(order.request)
        if order.priority not in PRIORITIES:
            known = ", ".join(PRIORITIES)
            raise InvalidRequest(f"priority is one of {known}, not {order.priority!r}", field="priority")
        now = self.context.clock.now()
        return Call(
            id=self._runner.new_id(),
            request=request,
            is_stream=isinstance(order, OpenStream),
            klass=order.priority,
            accepted_at=now,
            deadline=now + _timeout(order.timeout, self._default_timeout),
            providers=_providers(order.providers),
            tenant=_text(order.tenant, "tenant"),
            tags=_tags(order.tags),
            session=None if order.session is None else _text(order.session, "session"),
            replayable=_flag(order.replayable, "replayable"),
        )


def _read(message: Any) -> Complete | OpenStream:
    """A plain dict as one of the typed messages."""
    if not isinstance(message, Mapping):
        raise InvalidRequest(
            f'ask the service {{"complete": request}} or {{"stream": request}}, not a {type(message).__name__}'
        )
    verbs = [verb for verb in _VERBS if verb in message]
    if len(verbs) != 1:
        wanted, found = " or ".join(_VERBS), " and ".join(verbs) or "neither"
        raise InvalidRequest(f"a message to the service has one of the keys {wanted}; this has {found}")
    if unknown := set(message) - {*_VERBS, *_OPTIONS}:
        known = ", ".join(_OPTIONS)
        raise InvalidRequest(f"unknown option {min(map(str, unknown))!r}; there are {known}")
    options = {name: message[name] for name in _OPTIONS if message.get(name) is not None}
    return _VERBS[verbs[0]](message[verbs[0]], **options)


def _timeout(value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_TIMEOUT:
        raise InvalidRequest(
            f"timeout is a number of seconds above 0 and at most {LONGEST_TIMEOUT:.0f}, not {value!r}", field="timeout"
        )
    return float(value)


def _providers(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        raise InvalidRequest(f"providers is a list of names, not {type(value).__name__}", field="providers")
    return tuple([_text(name, "providers") for name in value])


def _tags(value: Any) -> dict[str, str]:
    if not value:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"tags is a mapping of texts to texts, not {type(value).__name__}", field="tags")
    return {_text(name, "tags"): _text(tag, "tags") for name, tag in value.items()}


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} is true or false, not {value!r}", field=field)
    return value


def _text(value: Any, field: str) -> str:
    """A short text that the ledger can be told of."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}: expected a text, not {type(value).__name__}", field=field)
    if len(value) > LONGEST_TEXT or (not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value)):
        raise InvalidRequest(f"{field}: a text has at most {LONGEST_TEXT} characters of valid Unicode", field=field)
    return value
