"""Has another attempt go on with an answer that broke off, where its reader has asked for that."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import ceil

import supervision as sup
from rubberduck.actors.board import ProviderDesk, Route
from rubberduck.actors.calls.attempts import AttemptRun
from rubberduck.actors.calls.call import Call, Given
from rubberduck.actors.calls.delivery import Delivery, HeldBack
from rubberduck.actors.calls.race import Answer
from rubberduck.actors.calls.usages import together
from rubberduck.config import ProviderConfig
from rubberduck.core.limiter import Amounts
from rubberduck.core.splice import Splice, prefill
from rubberduck.core.written import about_tokens
from rubberduck.errors import RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly
from rubberduck.types import Chunk, Delta, Message, Request, Response, Usage

logger = logging.getLogger("rubberduck")

NO_PLAIN_TEXT = frozenset(
    {"tools", "functions", "tool_choice", "thinking", "reasoning", "response_format", "grammar", "json_schema",
     "modalities", "audio", "logprobs", "n"}
)  # fmt: skip
"""Parameters in a request's `extra` that make more, or something else, of an answer than text."""


class Continued(Delivery):
    """Hands on at once, and joins what a further attempt writes to what its reader has.

    Of an answer that broke off the next attempt is sent what came, as the assistant's own last message, and may write
    so much less. Each attempt is billed by itself; the usage of the answer is that of all who wrote it. If nobody goes
    on, its reader gets the error of the break, whatever became of the attempts after it.
    """

    __slots__ = ("_asked", "_broken", "_run", "_splice", "_told", "_used", "_wrote")

    def __init__(self, call: Call, reply: sup.Reply) -> None:
        super().__init__(call, reply)
        assert isinstance(call.request, Request)  # only a chat is streamed
        call.continues = is_plain(call.request)
        self._asked = call.request
        self._told = Assembly()
        self._run: AttemptRun | None = None
        self._wrote: AttemptRun | None = None
        self._splice: Splice | None = None
        self._used: list[Usage] = []
        self._broken: RubberDuckError | None = None

    # -- handing on --------------------------------------------------------------------------------

    async def deliver(self, run: AttemptRun, chunk: Chunk) -> None:
        if run is not self._run:
            self._run = run
            self._splice = None if self._broken is None else Splice(self._told.text)
        joined = chunk if self._splice is None else self._joined(self._splice, chunk)
        if joined is not None:
            self._note(run, joined)
            await super().deliver(run, joined)

    def _joined(self, splice: Splice, chunk: Chunk) -> Chunk | None:
        """A chunk of a continuation as its reader gets it; None if nothing is left of it for now."""
        text = splice.feed(chunk.delta.content)
        if chunk.finish_reason is not None:
            text += splice.rest()
        delta = replace(chunk.delta, content=text, role=None)
        if delta == Delta() and chunk.finish_reason is None and chunk.usage is None:
            return None
        return replace(chunk, delta=delta, usage=None if chunk.usage is None else together([*self._used, chunk.usage]))

    def _note(self, run: AttemptRun, chunk: Chunk) -> None:
        self._told.add(chunk)
        self._wrote = run
        if self._broken is not None:
            self._call.spliced = True
        delta = chunk.delta
        if delta.tool_calls or delta.reasoning or delta.refusal or chunk.index or chunk.finish_reason is not None:
            self._call.continues = False  # nobody could go on with that, or nothing is missing

    # -- going on ----------------------------------------------------------------------------------

    def interrupted(self, run: AttemptRun, error: RubberDuckError) -> RubberDuckError:
        """The break that its reader is to be told of. Until then another attempt may go on."""
        if self._wrote is run:
            self._wrote = None
            self._used.append(self._usage_of(run, error))
            self._broken = self._told_of(run, error)
            if self._call.continues:
                self._go_on()
        return self._broken or run.interrupted(error)

    def _told_of(self, run: AttemptRun, error: RubberDuckError) -> RubberDuckError:
        told = run.interrupted(error)
        if not isinstance(told, StreamInterrupted):
            if self._broken is None:
                return told
            told = StreamInterrupted(str(error), provider=run.route.provider, model=run.route.model)
            told.__cause__ = error
        told.text = self._told.text
        if self._broken is not None:
            told.usage = together(self._used)
        return told

    def _usage_of(self, run: AttemptRun, error: RubberDuckError) -> Usage:
        """What an attempt that broke off has used, with its cost; estimated, for an unknown cost, where nobody said."""
        usage = run.usage_told(error)
        if usage is not None:
            return replace(usage, cost=run.office.cost(run.desk, run.route, usage)[0])
        written = about_tokens(self._told.text) - sum(each.completion_tokens for each in self._used)
        return Usage(ceil(self._call.amounts.input), max(0, round(written)), estimated=True)

    def _go_on(self) -> None:
        """From here on an attempt of this call is asked to continue."""
        call, asked, text = self._call, self._asked, self._told.text
        written = max(ceil(about_tokens(text)), sum(each.completion_tokens for each in self._used))
        rest = None if asked.max_tokens is None else max(1, asked.max_tokens - written)
        call.request = asked.model_copy(update={"messages": _with_beginning(asked, text), "max_tokens": rest})
        amounts = call.amounts
        call.amounts = Amounts(
            amounts.requests, amounts.input + about_tokens(text), rest or amounts.output, amounts.concurrency
        )

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, given: Given, usage: Usage) -> Answer:
        if self._splice is not None and (rest := self._splice.rest()) and self._call.pipe is not None:
            self._told.add(last := Chunk(delta=Delta(content=rest)))
            self._call.pipe.write_all([last])
        if not self._call.spliced:
            return given, usage
        assert isinstance(given, Response)
        return replace(given, choices=self._told.response().choices, spliced=True), together([*self._used, usage])


def delivery_of(call: Call, reply: sup.Reply) -> Delivery:
    """The delivery that a call's policy asks for. An answer that is wanted whole is not delivered piece by piece."""
    if not call.is_stream or call.policy.name == "error":
        return Delivery(call, reply)
    return Continued(call, reply) if call.policy.continues else HeldBack(call, reply)


def goes_on(configs: Mapping[str, ProviderConfig], desk: ProviderDesk, route: Route) -> bool:
    """Whether a route is known to go on with an answer that another one began."""
    told = configs[route.provider].prefill
    if told is not None:
        return told
    try:
        return bool(desk.provider.accepts_prefill(route.model))
    except Exception:  # a third party's code runs here
        logger.exception("%s: accepts_prefill failed", route)
        return False


def is_plain(request: Request) -> bool:
    """Whether its answer is text and nothing else, as far as the question tells."""
    wanted = request.response_format
    return (
        request.n == 1
        and not request.tools
        and (wanted is None or wanted.get("type") == "text")
        and request.reasoning_effort in (None, "none")
        and not request.reasoning_budget
        and not request.logprobs
        and not NO_PLAIN_TEXT & request.extra.keys()
        # What is meant for one provider stands under its name; by whichever name, the answer may be its own.
        and not any(NO_PLAIN_TEXT & told.keys() for told in request.extra.values() if isinstance(told, dict))
    )


def _with_beginning(request: Request, text: str) -> tuple[Message, ...]:
    """Its conversation with the beginning of the answer at the end, in one with what the user had put there."""
    messages = request.messages
    if messages[-1].role == "assistant" and not messages[-1].tool_calls:
        text, messages = messages[-1].text + text, messages[:-1]
    beginning = prefill(text)
    return (*messages, Message(role="assistant", content=beginning)) if beginning else messages
