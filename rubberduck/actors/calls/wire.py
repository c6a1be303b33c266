"""One question to a provider and its answer, within its times: the only I/O of a call, outside every actor."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any

import supervision as sup
from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import CHAT, EMBEDDINGS, Asked, Given
from rubberduck.actors.calls.vigil import Vigil
from rubberduck.core.pulse import Pulse
from rubberduck.core.values import value
from rubberduck.core.written import about_tokens
from rubberduck.errors import (
    ProtocolError,
    ProviderError,
    ProviderTimeout,
    RubberDuckError,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.base import Kind, Provider
from rubberduck.providers.http import HTTPProvider, OnHeaders
from rubberduck.types import Chunk, EmbeddingRequest, Embeddings, Request, Response, TokenCount, Usage

_ON_THE_WIRE: ContextVar[Exchange | None] = ContextVar("rubberduck_exchange", default=None)
"""The exchange that a provider is working for, so that the headers it shows can be told whose they are."""

Deliver = Callable[[Chunk], Awaitable[None]]


@value(frozen=True, slots=True)
class Limits:
    """How long an attempt may take, until its first output and from one to the next, in seconds. None: as the call.

    `min_rate` is the tokens per second that a stream must keep up. `permit_ttl` is how long the breaker waits for its
    permit to be settled; None is what it is configured to.
    """

    whole: float | None
    first_token: float | None
    permit_ttl: float | None = None
    idle: float | None = None
    min_rate: float | None = None


@dataclass(slots=True)
class Exchange:
    """Asks a provider once, for what `kind` says. Whatever it raises is of our tree, or a cancellation.

    `on_head(status, headers)` hears the head of the answer, `on_first_token(now)` when a stream begins to speak.
    `answer` is what has come so far. `was_stalled` says that it ran out of time while our own loop stood still.
    """

    clock: sup.Clock
    provider: Provider
    route: Route
    request: Asked
    limits: Limits
    on_head: Callable[[int, Mapping[str, str]], object]
    on_first_token: Callable[[float], object]
    kind: Kind = CHAT
    answer: Assembly = field(default_factory=Assembly)
    first_token_at: float | None = None
    was_stalled: bool = False
    _vigil: Vigil | None = None

    async def complete(self) -> Given:
        """The whole answer, of whatever kind."""
        return await self._guarded(self._ask_for_all)

    async def stream(self, deliver: Deliver) -> Response:
        """The same, handing on each chunk as it comes."""
        whole = await self._guarded(functools.partial(self._ask_for_chunks, deliver))
        assert isinstance(whole, Response)
        return whole

    def partial_usage(self, error: BaseException) -> Usage | None:
        """What a broken answer had consumed by the provider's own word."""
        broken = error if isinstance(error, StreamInterrupted) else error.__cause__
        for usage in (getattr(broken, "usage", None), self.answer.usage):
            if isinstance(usage, Usage) and not usage.estimated:
                return usage
        return None

    async def _ask_for_all(self) -> Given:
        if self.limits.whole is None:
            return self._checked(await self._asked())
        async with self._watch(Pulse(self.clock.now(), whole=self.limits.whole)):
            return self._checked(await self._asked())

    def _asked(self) -> Awaitable[Given]:
        request = self._request()
        if isinstance(request, EmbeddingRequest):
            return self.provider.embed(request)
        return self.provider.complete(request) if self.kind == CHAT else self.provider.count(request)

    def _checked(self, given: Any) -> Given:
        """A provider's answer, if it is one."""
        if self.kind == CHAT:
            return _whole(given)
        return self._vectors(given) if self.kind == EMBEDDINGS else self._number(given)

    def _vectors(self, given: Any) -> Embeddings:
        if not isinstance(given, Embeddings):
            raise TypeError(f"embed() returned {type(given).__name__}, not Embeddings")
        _require_usage(given.usage)
        assert isinstance(self.request, EmbeddingRequest)
        told, asked = len(given.vectors), len(self.request.input)
        if told != asked:
            self.answer.usage = given.usage  # it has been billed all the same
            names: dict[str, Any] = {"provider": self.route.provider, "model": self.route.model, "spent": None}
            raise ProtocolError(f"{self.route} gave {told} vectors for {asked} texts", status=200, **names)
        return given

    def _number(self, count: Any) -> TokenCount:
        if not isinstance(count, TokenCount):
            raise TypeError(f"count() returned {type(count).__name__}, not a TokenCount")
        if count.tokens < 0:
            raise ValueError(f"count() returned a negative number: {count.tokens}")
        return replace(count, provider=self.route.provider, model=self.route.model)

    async def _ask_for_chunks(self, deliver: Deliver) -> Response:
        limits, now = self.limits, self.clock.now
        request = self._request()
        assert isinstance(request, Request)
        pulse = Pulse(
            now(), whole=limits.whole, first_token=limits.first_token, idle=limits.idle, min_rate=limits.min_rate
        )
        async with self._watch(pulse) as vigil, aclosing(self.provider.stream(request)) as chunks:
            await self._hand_on(chunks, deliver, pulse, vigil)
        return _whole(self.answer.response(provider=self.route.provider, model=self.route.model))

    async def _hand_on(self, chunks: AsyncIterator[Chunk], deliver: Deliver, pulse: Pulse, vigil: Vigil) -> None:
        """Deliver chunk by chunk. Those before the first output are held back: until then another route may answer."""
        now, held = self.clock.now, list[Chunk]()
        async for chunk in chunks:
            pulse.heard(content_of(_chunk(chunk)), now())
            if chunk.finish_reason is not None:
                pulse.finished()
            if self.first_token_at is None:
                held.append(chunk)
                if pulse.has_begun:
                    self._begin(vigil)
                    for each in held:
                        self.answer.add(each)
                        await deliver(each)
            else:
                vigil.was_stalled = False
                self.answer.add(chunk)
                await deliver(chunk)
            pulse.asks(now())
        if self.first_token_at is None:
            raise TypeError("stream() ended without any output")

    def _begin(self, vigil: Vigil) -> None:
        self.first_token_at = now = self.clock.now()
        vigil.look()
        self.on_first_token(now)

    def _request(self) -> Asked:
        request = self.request
        return request if request.model == self.route.model else request.model_copy(update={"model": self.route.model})

    def _watch(self, pulse: Pulse) -> Vigil:
        self._vigil = Vigil(self.clock, pulse)
        return self._vigil

    async def _guarded(self, on_the_wire: Callable[[], Awaitable[Given]]) -> Given:
        """Only errors of our tree, and cancellation, leave the wire."""
        _ON_THE_WIRE.set(self)  # each call is a task of its own, so nobody else sees it
        try:
            return await on_the_wire()
        except TimeoutError as error:
            raise self._timed_out(error) from error
        except (RubberDuckError, asyncio.CancelledError):
            raise
        except Exception as error:  # a provider's bug: a third party's code runs here
            raise ServiceUnavailable(
                f"{self.route} failed in its own code: {type(error).__name__}: {error}",
                provider=self.route.provider,
                model=self.route.model,
                phase="uncertain",
                spent=None,
            ) from error
        finally:
            _ON_THE_WIRE.set(None)
            # Whose methods they are holds this exchange: a circle, which only the garbage collector would find.
            self.on_head = self.on_first_token = _nobody

    def _timed_out(self, error: TimeoutError) -> ProviderError:
        names: dict[str, Any] = {"provider": self.route.provider, "model": self.route.model, "spent": None}
        self.was_stalled = self._vigil is not None and self._vigil.was_stalled
        if self.answer.has_output:
            why = "did not finish in time" if self._vigil is None else self._vigil.why
            usage = None if error.__cause__ is None else self.partial_usage(error.__cause__)
            return StreamInterrupted(f"{self.route} {why}", text=self.answer.text, usage=usage, **names)
        return ProviderTimeout(f"{self.route} did not answer in time", phase="uncertain", **names)


def _nobody(*_: object) -> None:
    """Who listens to an exchange that is over."""


def listen_to(provider: Provider) -> None:
    """Let the limiters learn from the headers that a provider shows, beside whoever looks at them already.

    How long its streams may take is watched here from now on.
    """
    if isinstance(provider, HTTPProvider):
        provider.timed_by_caller()
        others = provider.on_headers
        provider.on_headers = _hear if others is None or others is _hear else functools.partial(_hear_too, others)


def _hear(model: str, status: int, headers: Mapping[str, str]) -> None:
    exchange = _ON_THE_WIRE.get()
    if exchange is not None:
        exchange.on_head(status, headers)


def _hear_too(others: OnHeaders, model: str, status: int, headers: Mapping[str, str]) -> None:
    _hear(model, status, headers)
    others(model, status, headers)


def _whole(response: Any) -> Response:
    """A provider's answer, if it is one. What it is not, a third party's code has to answer for."""
    if not isinstance(response, Response) or not isinstance(response.usage, Usage):
        raise TypeError(f"complete() returned {type(response).__name__} without a usage, not a Response")
    _require_usage(response.usage)
    return response


def _require_usage(usage: Any) -> None:
    if not isinstance(usage, Usage):
        raise TypeError(f"its usage is {type(usage).__name__}, not a Usage")
    if min(usage.prompt_tokens, usage.completion_tokens) < 0:
        raise ValueError(f"its usage is negative: {usage}")


def _chunk(chunk: Any) -> Chunk:
    if not isinstance(chunk, Chunk):
        raise TypeError(f"stream() gave {type(chunk).__name__}, not a Chunk")
    return chunk


def content_of(chunk: Chunk) -> float:
    """About how many tokens of an answer it brings: what a caller learns something from."""
    delta = chunk.delta
    if not (delta.tool_calls or delta.reasoning or delta.refusal):
        return about_tokens(delta.content)
    tokens = about_tokens(delta.content) + about_tokens(delta.reasoning) + about_tokens(delta.refusal)
    for call in delta.tool_calls:
        tokens += max(1.0, about_tokens(call.arguments))
    return tokens
