"""The door: takes a request from a caller and gives it to a task that answers it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

import supervision as sup
from rubberduck.actors import jobs
from rubberduck.actors.calls.call import CHAT, COUNT, EMBEDDINGS, Asked, Call
from rubberduck.actors.calls.runner import CallRunner
from rubberduck.core.jobs import Job, Safety
from rubberduck.core.ledger import MAX_AMOUNT
from rubberduck.core.release import StreamPolicy
from rubberduck.core.shown import shown
from rubberduck.core.values import value
from rubberduck.errors import CallInterrupted, ConfigError, InvalidRequest, RubberDuckError
from rubberduck.providers.base import Kind
from rubberduck.stream import Stream
from rubberduck.types import EmbeddingRequest, Embeddings, Request, TokenCount

if TYPE_CHECKING:
    from rubberduck.actors.calls.output import Output

PRIORITIES = ("high", "normal", "low")
LONGEST_TIMEOUT = 86_400.0
"""A day, in seconds: a longer timeout is a mistake in its unit."""
NO_JOBS = "durable jobs are kept nowhere: add the section `jobs: {}` to the configuration"
LONGEST_TEXT = 1000
"""The most characters of a tenant, a tag, or a provider's name."""


@value(frozen=True, slots=True)
class Order:
    """A question and how it is to be answered: `timeout` seconds for everything, `providers` the only ones allowed.

    Calls of one `session` stay on one route while that is not much worse than the best.

    `max_cost` is the most that all attempts may cost together, in USD.

    `replayable` False says that to send it twice could do something twice: it is neither hedged, nor sent again once
    it may have been executed. `stream_policy` is "error", "buffer", "continue" or {"buffer": "end" | "2s" | "20
    tokens"}, None what is configured; an answer that is wanted whole is buffered to its end whatever it says.
    """

    request: Asked | dict[str, Any]
    priority: Literal["high", "normal", "low"] = "normal"
    timeout: float | None = None
    providers: tuple[str, ...] | None = None
    tenant: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    replayable: bool = True
    max_cost: Decimal | float | str | None = None
    session: str | None = None
    call_id: str | None = None
    stream_policy: Any = None


@value(frozen=True, slots=True)
class Complete(Order, sup.Ask[Any]):
    """Answer the request as a whole: with a `Response`, or with a value of the type `response_model`.

    `repair`: if the answer cannot be read as such a value, the model is told what is wrong, once, and asked again.
    """

    response_model: Any = None
    repair: bool = False


@value(frozen=True, slots=True)
class OpenStream(Order, sup.Ask[Stream]):
    """Answer the request as a stream; the reply comes with its first chunk."""


@value(frozen=True, slots=True)
class Embed(Order, sup.Ask[Embeddings]):
    """Turn the texts of the request, which is an EmbeddingRequest, into vectors."""


@value(frozen=True, slots=True)
class CountTokens(Order, sup.Ask[TokenCount]):
    """Say how many input tokens the request is, without answering it."""


@value(frozen=True, slots=True)
class SubmitJob(Order, sup.Ask[Job]):
    """Accept the request as a durable job, which is answered even if this process ends before.

    `key` is the submitter's own: a second job of the same tenant with the same key is the first one. `safety` says
    whether a job that may have been executed may be sent again: "at_most_once" or "at_least_once".
    """

    key: str | None = None
    safety: str = Safety.AT_MOST_ONCE


@dataclass(frozen=True, slots=True)
class Drain(sup.Ask[None]):
    """Accept no further calls; those in flight go on."""


_VERBS: dict[str, type[Complete | OpenStream | SubmitJob | Embed | CountTokens]] = {
    "complete": Complete,
    "stream": OpenStream,
    "submit": SubmitJob,
    "embed": Embed,
    "count": CountTokens,
}
_KINDS: dict[type[Order], Kind] = {Embed: EMBEDDINGS, CountTokens: COUNT}
_OPTIONS = ("priority", "timeout", "providers", "tenant", "tags", "session", "replayable", "max_cost", "stream_policy")

_OF_ALL = ("priority", "timeout", "providers", "tenant", "tags", "replayable")
_READ = ("response_model", "repair")
_OPTIONS_OF = {
    "complete": (*_OPTIONS, *_READ),
    "stream": _OPTIONS,
    "submit": (*_OPTIONS, "key", "safety"),
    "embed": (*_OF_ALL, "max_cost"),
    "count": _OF_ALL,
}
_WORDS_OF = {verb: frozenset({verb, *options}) for verb, options in _OPTIONS_OF.items()}


class ServiceActor(sup.Actor):
    """Accepts calls: `ask({"complete": request})`, the same with "stream", "embed", "count", or the typed messages.

    Why an actor: one address for all callers, in whatever thread, that survives restarts.
    Asks: no one; each call becomes a task under `calls`, which owes the reply from then on.
    Restart: forgets nothing, for it keeps nothing.
    """

    expected_errors = (RubberDuckError,)

    def __init__(
        self, runner: CallRunner, *, default_timeout: float, keeper: Callable[[], sup.ActorRef] | None = None
    ) -> None:
        """`keeper()` is who keeps durable jobs; None if nobody does."""
        super().__init__()
        self._keeper = keeper
        self._runner = runner
        self._default_timeout = default_timeout

    def on_start(self) -> None:
        self._draining = bool(self.context.snapshot)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, Drain):
            self._draining = True
            self.remember(True)
            return None
        try:
            order = message if isinstance(message, Order) else _read(message)
            call = self._call(order)
        except RubberDuckError:
            raise
        except Exception as error:  # callers' objects run code of their own where they are looked at
            told = f"the call cannot be read: {type(error).__name__}: {error}"
            raise InvalidRequest(told) from error
        if self._draining:
            raise CallInterrupted("RubberDuck is stopping and takes no further calls")
        reply = self.owe()
        if isinstance(order, SubmitJob):
            reply.forward(self._keeper_of_jobs(), jobs.Submit(self._job(order, call)))
            return reply
        if reply.deadline is not None:
            call.deadline = min(call.deadline, reply.deadline)
        on_lost = functools.partial(self._runner.lose, call)
        reply.forward(self._runner.calls(), sup.RunTask(self._runner.run, (call,), takes_reply=True, on_lost=on_lost))
        return reply

    def _keeper_of_jobs(self) -> sup.ActorRef:
        if self._keeper is None:
            raise ConfigError(NO_JOBS)
        return self._keeper()

    def _job(self, order: SubmitJob, call: Call) -> Job:
        """The job of an order whose options have been found good."""
        if not isinstance(order.safety, str) or order.safety not in list(Safety):
            raise InvalidRequest(f"safety is one of {', '.join(Safety)}, not {shown(order.safety)}", field="safety")
        if order.key == "":  # what an unset variable leaves: all that were submitted with it would be one job
            raise InvalidRequest("key: an empty text tells no job from another; leave it out", field="key")
        kept: dict[str, Any] = {"priority": call.klass, "timeout": order.timeout, "replayable": call.replayable}
        kept |= {"providers": call.providers, "tags": call.tags, "session": order.session}
        kept |= {"max_cost": None if call.max_cost is None else str(call.max_cost)}
        return Job(
            id=call.id,
            request=_kept(call.request),
            options=json.dumps({name: value for name, value in kept.items() if value is not None}),
            submitted_at=datetime.now(UTC),
            tenant=call.tenant,
            key=None if order.key is None else _text(order.key, "key"),
            safety=Safety(order.safety),
        )

    def _call(self, order: Order) -> Call:
        kind = _KINDS.get(type(order), CHAT)
        request = _question(order, kind)
        output = None
        if isinstance(order, Complete) and (order.response_model is not None or order.repair is not False):
            output = _output(order, request)
        if not isinstance(order.priority, str) or order.priority not in PRIORITIES:
            known = ", ".join(PRIORITIES)
            raise InvalidRequest(f"priority is one of {known}, not {shown(order.priority)}", field="priority")
        now = self.context.clock.now()
        return Call(
            id=order.call_id or self._runner.new_id(),
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
            max_cost=_money(order.max_cost),
            policy=self._policy(order.stream_policy),
            # Who gives it an id looks for it in the ledger; who bounds its cost does not pay for others.
            may_share=order.call_id is None and order.max_cost is None,
            kind=kind,
            output=output,
        )

    def _policy(self, told: Any) -> StreamPolicy:
        try:
            return self._runner.stream_policy(told)
        except ValueError as error:
            raise InvalidRequest(f"stream_policy {error}", field="stream_policy") from None


def _kept(request: Asked) -> str:
    """A request as the store of jobs keeps it."""
    try:
        return request.model_dump_json()
    except (ValueError, TypeError, RecursionError) as error:  # half a surrogate pair, or what is no JSON at all
        raise InvalidRequest(f"the request cannot be kept as a job: {error}") from None


def _question(order: Order, kind: Kind) -> Asked:
    told: Any = order.request
    return EmbeddingRequest.parse(told) if kind == EMBEDDINGS else Request.parse(told)


def _output(order: Complete, request: Asked) -> Output:
    """How the answer is to be read."""
    repairs = _flag(order.repair, "repair")
    if order.response_model is None:
        raise InvalidRequest("repair: there is nothing to repair without a `response_model`", field="repair")
    assert isinstance(request, Request)
    if request.response_format is not None:
        both = "response_model makes the request's response_format; give one of them"
        raise InvalidRequest(both, field="response_format")
    from rubberduck.actors.calls.output import Output  # its schemas take time to import

    return Output(order.response_model, repairs=repairs)


def _read(message: Any) -> Order:
    """A plain dict as one of the typed messages."""
    if not isinstance(message, Mapping):
        raise InvalidRequest(
            f'ask the service {{"complete": request}} or {{"stream": request}}, not a {type(message).__name__}'
        )
    verbs = [verb for verb in _VERBS if verb in message]
    if len(verbs) != 1:
        wanted, found = " or ".join(_VERBS), " and ".join(verbs) or "neither"
        raise InvalidRequest(f"a message to the service has one of the keys {wanted}; this has {found}")
    verb = verbs[0]
    if not _WORDS_OF[verb].issuperset(message):
        if unread := [option for option in _READ if option in message]:
            told = f"{unread[0]}: only an answer that is waited for as a whole is read; use complete, not {verb}"
            raise InvalidRequest(told, field=unread[0])
        unknown, known = set(message) - _WORDS_OF[verb], ", ".join(_OPTIONS_OF[verb])
        raise InvalidRequest(f"unknown option {min(map(shown, unknown))}; there are {known}")
    options = {name: value for name, value in message.items() if name != verb and value is not None}
    return _VERBS[verb](message[verb], **options)


def _timeout(value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= LONGEST_TIMEOUT:
        raise InvalidRequest(
            f"timeout is a number of seconds above 0 and at most {LONGEST_TIMEOUT:.0f}, not {shown(value)}",
            field="timeout",
        )
    return float(value)


def _money(value: Any) -> Decimal | None:
    """An amount in USD; a float is taken for the digits it was written with."""
    if value is None:
        return None
    if isinstance(value, int | float | str | Decimal) and not isinstance(value, bool):
        try:
            amount = Decimal(str(value))
        except (ArithmeticError, ValueError):  # no number, or one of too many digits to be written
            amount = Decimal("NaN")
        if amount.is_finite() and 0 <= amount <= MAX_AMOUNT:
            return amount
    raise InvalidRequest(f"max_cost is an amount of USD from 0 to {MAX_AMOUNT}, not {shown(value)}", field="max_cost")


def _providers(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple | set | frozenset):
        raise InvalidRequest(f"providers is a list of names, not {type(value).__name__}", field="providers")
    return tuple([_text(name, "providers") for name in value])


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"tags is a mapping of texts to texts, not {type(value).__name__}", field="tags")
    return {_text(name, "tags"): _text(tag, "tags") for name, tag in value.items()}


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{field} is true or false, not {shown(value)}", field=field)
    return value


def _text(value: Any, field: str) -> str:
    """A short text that the ledger can be told of."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{field}: expected a text, not {type(value).__name__}", field=field)
    if len(value) > LONGEST_TEXT or (not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value)):
        raise InvalidRequest(f"{field}: a text has at most {LONGEST_TEXT} characters of valid Unicode", field=field)
    return value
