"""A provider that answers from a script, for tests and demonstrations: same script, same answers.

    {"module": "mock", "responses": [
        {"content": "Hello there", "usage": {"prompt_tokens": 3, "completion_tokens": 2}, "delay": "50ms"},
        {"error": "rate_limited", "retry_after": "2s"},
        {"content": "one two three four", "error": "cut"},
        {"tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]},
        {"json": {"city": "Paris", "degrees": 21}},
    ]}

The responses are given in order and the last one repeats; without any, every request is answered. Durations
are those of a configuration: a bare number is milliseconds.

Requests for embeddings and for counts of tokens take their turn in the same script, and of a response what fits: its
delay, error and usage, or `tokens` as the count. Vectors are made of the texts alone: same text, same vector, of length
1. One that is shortened by `dimensions` points where the beginning of the whole one does.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import json
import math
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Self

from rubberduck import errors
from rubberduck.config.scalars import seconds
from rubberduck.errors import ConfigError, RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.base import Kind, Provider
from rubberduck.types import (
    Chunk,
    Delta,
    EmbeddingRequest,
    Embeddings,
    FinishReason,
    FunctionCall,
    Request,
    Response,
    TokenCount,
    ToolCall,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    from rubberduck.config import ProviderConfig

DIMENSIONS = 64
"""The length of a vector where the request does not say."""
_NUMBERS_PER_DIGEST = 16

_WORDS = re.compile(r"\s*\S+|\s+$")

FAILURES: dict[str, Callable[..., RubberDuckError]] = {
    "rate_limited": lambda text, **about: errors.RateLimited(text, status=429, **about),
    "quota": lambda text, **about: errors.QuotaExceeded(text, status=429, code="insufficient_quota", **about),
    "auth": lambda text, **about: errors.AuthenticationFailed(text, status=401, **about),
    "invalid_request": lambda text, **about: errors.InvalidRequest(text, **about),
    "context_length": lambda text, **about: errors.ContextLengthExceeded(text, **about),
    "content_filter": lambda text, **about: errors.ContentFiltered(text, **about),
    "model_not_found": lambda text, **about: errors.ModelNotFound(text, status=404, **about),
    "server_error": lambda text, **about: errors.ServiceUnavailable(text, status=500, **about),
    "overloaded": lambda text, **about: errors.Overloaded(text, status=529, **about),
    "unreachable": lambda text, **about: errors.ServiceUnavailable(text, phase="not_sent", **about),
    "timeout": lambda text, **about: errors.ProviderTimeout(text, phase="uncertain", spent=None, **about),
    "cut": lambda text, **about: errors.ServiceUnavailable(text, phase="uncertain", spent=None, **about),
}
"""The failures that a script can name, each as a real provider's would reach us."""


@dataclass(slots=True)
class MockCall:
    """One entry of the log: what was asked, how it ended, and what it would cost.

    `outcome` is "pending" until it ends, then "success", "cancelled" or the name of the error. `usage` is what
    the mock bills: None while nothing is owed. Times are seconds on the mock's clock.
    """

    request: Request | EmbeddingRequest
    model: str
    started: float
    usage: Usage | None = None
    outcome: str = "pending"
    finished: float | None = None

    @property
    def cancelled(self) -> bool:
        """Whether the caller gave it up."""
        return self.outcome == "cancelled"


@dataclass(frozen=True, slots=True)
class Scripted:
    """One response of the script. `after` is how many chunks a stream gives before its error; None is half of them."""

    content: str | None = None
    tokens: int | None = None
    usage: Usage | None = None
    delay: float = 0.0
    chunk_delay: float = 0.0
    error: str | BaseException | None = None
    retry_after: float | None = None
    after: int | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    chunks: tuple[str, ...] = ()

    @classmethod
    def read(cls, value: Any, place: str) -> Scripted:
        """A response as the configuration writes it. Raises ConfigError."""
        if isinstance(value, (str, BaseException)):
            value = {"content": value} if isinstance(value, str) else {"error": value}
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place} is a mapping or a text, not {type(value).__name__}")
        for name in value:
            if name not in _READERS and name != "json":
                near = get_close_matches(str(name), _READERS, n=1)
                raise ConfigError(f"{place}.{name} is unknown; " + (f"did you mean {near[0]}?" if near else _KNOWN))
        try:
            if "json" in value:
                value = {"content": json.dumps(value["json"])} | {name: value[name] for name in value if name != "json"}
            return cls(**{name: _READERS[name](item) for name, item in value.items() if item is not None})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{place} cannot be used: {error}") from error


class Mock(Provider):
    """Answers from a script, and keeps a log that a test can hold against the ledger.

    Attributes:
        calls: every call so far, in order.
        sleep: how scripted delays are waited for; seconds in, awaitable out.
        now: the clock of the log.
    """

    word = "mock"
    offers: frozenset[Kind] = frozenset({"chat", "embeddings", "count"})

    def __init__(self, config: ProviderConfig) -> None:
        self.name = config.name
        self.models = config.models
        self.script = tuple(
            Scripted.read(value, f"providers.{config.name}.responses[{number}]")
            for number, value in enumerate(config.responses)
        )
        self.calls: list[MockCall] = []
        self.sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
        self.now: Callable[[], float] = time.monotonic

    @classmethod
    def init(cls, config: ProviderConfig) -> Self:
        return cls(config)

    def supports_model(self, model: str) -> bool:
        """Any model, unless the configuration lists some."""
        return not self.models or model in self.models

    def accepts_prefill(self, model: str) -> bool:
        """Its script goes on whatever it is asked."""
        return True

    async def complete(self, request: Request) -> Response:
        scripted, call = self._begin(request)
        try:
            await self._wait(scripted.delay)
            if scripted.error is not None:
                call.usage = scripted.usage
                raise self._failure(scripted, request)
            call.usage = await self._usage(scripted, request)
            answer = Assembly()
            for chunk in self._chunks(scripted, request, call.usage):
                answer.add(chunk)
            response = answer.response(provider=self.name, model=request.model)
        except BaseException as error:
            self._end(call, error)
            raise
        self._end(call, None)
        return response

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        scripted, call = self._begin(request)
        answer = Assembly()
        try:
            await self._wait(scripted.delay)
            if scripted.error is not None and scripted.error != "cut" and scripted.after is None:
                call.usage = scripted.usage
                raise self._failure(scripted, request)
            usage = await self._usage(scripted, request)
            if scripted.error is not None:
                await self.ready_to_count(request.model)
            chunks = self._chunks(scripted, request, usage)
            for chunk in chunks[: self._reach(scripted, len(chunks))]:
                await self._wait(scripted.chunk_delay)
                answer.add(chunk)
                call.usage = chunk.usage
                yield chunk
            if scripted.error is not None:
                raise self._break(scripted, request, answer)
        except BaseException as error:
            if answer.has_output and call.usage is None:
                call.usage = self._so_far(scripted, request, answer)
            self._end(call, error)
            raise
        self._end(call, None)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        scripted, call = self._begin(request)
        try:
            await self._wait(scripted.delay)
            call.usage = scripted.usage
            if scripted.error is not None:
                raise self._failure(scripted, request)
            await self.ready_to_count(request.model)
            asked = [len(text) if not isinstance(text, str) else self._tokens(text, request) for text in request.input]
            call.usage = scripted.usage or Usage(sum(asked))
            vectors = tuple([vector_of(text, request.dimensions or DIMENSIONS) for text in request.input])
        except BaseException as error:
            self._end(call, error)
            raise
        self._end(call, None)
        return Embeddings(request.model, vectors, call.usage, self.name)

    async def count(self, request: Request) -> TokenCount:
        scripted, call = self._begin(request)
        try:
            await self._wait(scripted.delay)
            if scripted.error is not None:
                raise self._failure(scripted, request)
            await self.ready_to_count(request.model)
            tokens = self._asked(request) if scripted.tokens is None else scripted.tokens
        except BaseException as error:
            self._end(call, error)
            raise
        call.usage = Usage()
        self._end(call, None)
        return TokenCount(tokens, estimated=False, provider=self.name, model=request.model)

    # --- the log

    def _begin(self, request: Request | EmbeddingRequest) -> tuple[Scripted, MockCall]:
        number = len(self.calls)
        call = MockCall(request, request.model, self.now())
        self.calls.append(call)
        if not self.script:
            return Scripted(content=_echo(request) if isinstance(request, Request) else None), call
        return self.script[min(number, len(self.script) - 1)], call

    def _end(self, call: MockCall, error: BaseException | None) -> None:
        given_up = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        call.outcome = "success" if error is None else "cancelled" if given_up else type(error).__name__
        call.finished = self.now()

    async def _wait(self, delay: float) -> None:
        if delay > 0:
            await self.sleep(delay)

    # --- answers

    def _chunks(self, scripted: Scripted, request: Request, usage: Usage) -> list[Chunk]:
        """The answer in chunks of a word each; every choice says the same."""
        pieces = scripted.chunks or tuple(_WORDS.findall(scripted.content or ""))
        answer_id = f"mock-{len(self.calls)}"
        reason = scripted.finish_reason or (FinishReason.TOOL_CALLS if scripted.tool_calls else FinishReason.STOP)
        deltas = [Delta(content=piece) for piece in pieces]
        deltas += [
            Delta(tool_calls=(ToolCallDelta(number, call.id, call.function.name, call.function.arguments),))
            for number, call in enumerate(scripted.tool_calls)
        ]
        deltas = deltas or [Delta()]
        deltas[0] = replace(deltas[0], role="assistant")
        everyone = range(request.n)
        chunks = [Chunk(index, delta, id=answer_id, model=request.model) for delta in deltas for index in everyone]
        ends = [Chunk(index, Delta(), reason, None, str(reason), answer_id, request.model) for index in everyone]
        return [*chunks, *ends[:-1], replace(ends[-1], usage=usage)]

    async def _usage(self, scripted: Scripted, request: Request) -> Usage:
        if scripted.usage is not None:
            return scripted.usage
        await self.ready_to_count(request.model)
        written = scripted.tokens
        if written is None:
            text = "".join(scripted.chunks) or scripted.content or ""
            text += "".join(call.function.arguments for call in scripted.tool_calls)
            written = self.count_tokens(text, request.model) * request.n
        return Usage(self._asked(request), written)

    def _so_far(self, scripted: Scripted, request: Request, answer: Assembly) -> Usage:
        """What a call costs that ends now: the whole prompt, and the output that got out."""
        asked = self._asked(request) if scripted.usage is None else scripted.usage.prompt_tokens
        return Usage(asked, self.count_tokens(answer.written, request.model))

    def _asked(self, request: Request) -> int:
        return sum(self._tokens(message.text, request) for message in request.messages)

    def _tokens(self, text: str, request: Request | EmbeddingRequest) -> int:
        return self.count_tokens(text, request.model)

    # --- failures

    def _failure(self, scripted: Scripted, request: Request | EmbeddingRequest) -> BaseException:
        error = scripted.error
        if isinstance(error, RubberDuckError):
            error = copy.copy(error)  # the callers of several calls must not write into one object
            error.provider, error.model = error.provider or self.name, error.model or request.model
            return error
        if isinstance(error, BaseException):
            return error
        assert error is not None
        about = {"provider": self.name, "model": request.model, "retry_after": scripted.retry_after}
        return FAILURES[error](f"{self.name} was told to fail: {error}", **about)

    def _break(self, scripted: Scripted, request: Request, answer: Assembly) -> BaseException:
        """The error that ends a stream in its middle: a cut says what had come, others keep their name."""
        if scripted.error == "cut":
            return StreamInterrupted(
                f"{self.name} was told to cut the stream",
                text=answer.text,
                usage=self._so_far(scripted, request, answer),
                provider=self.name,
                model=request.model,
                spent=None,
            )
        error = self._failure(scripted, request)
        if isinstance(error, errors.ProviderError) and answer.has_output:
            error.phase = "after_output"
        return error

    def _reach(self, scripted: Scripted, count: int) -> int:
        if scripted.error is None:
            return count
        return min(count - 1, count // 2 if scripted.after is None else scripted.after)


def _echo(request: Request) -> str:
    said = next((message.text for message in reversed(request.messages) if message.role == "user"), "")
    return f"You said: {said[:200]}" if said else "Hello from the mock provider."


def vector_of(text: str | tuple[int, ...], dimensions: int) -> tuple[float, ...]:
    """Numbers that depend on the text alone, as one direction in so many dimensions: a vector of length 1."""
    written = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else repr(text).encode()
    numbers: list[float] = []
    for part in range(-(-dimensions // _NUMBERS_PER_DIGEST)):
        digest = hashlib.sha256(b"%d:%b" % (part, written)).digest()
        pairs = zip(digest[::2], digest[1::2], strict=True)
        numbers += [(high * 256 + low - 32767.5) / 32768 for high, low in pairs]
    length = math.sqrt(sum([number * number for number in numbers[:dimensions]]))
    return tuple([number / length for number in numbers[:dimensions]])


# --- reading the script


def _read_usage(value: Any) -> Usage:
    usage = value if isinstance(value, Usage) else Usage(**value)
    if usage.prompt_tokens < 0 or usage.completion_tokens < 0:
        raise ValueError("tokens cannot be negative")
    return usage


def _read_count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no number of things")
    return value


def _read_error(value: Any) -> str | BaseException:
    if isinstance(value, type) and issubclass(value, BaseException):
        value = value("the mock was told to fail")
    if isinstance(value, BaseException) or value in FAILURES:
        return value  # type: ignore[no-any-return]
    raise ValueError(f"error {value!r} is none of {', '.join(FAILURES)}, and no exception")


def _read_tool_calls(value: Any) -> tuple[ToolCall, ...]:
    return tuple(_read_tool_call(number, call) for number, call in enumerate(value))


def _read_tool_call(number: int, call: Any) -> ToolCall:
    if isinstance(call, ToolCall):
        return call
    function = call.get("function", call)
    arguments = function.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ToolCall(id=call.get("id") or f"call_{number}", function=FunctionCall(name=function["name"], arguments=text))


_READERS: dict[str, Callable[[Any], Any]] = {
    "content": str,
    "tokens": _read_count,
    "usage": _read_usage,
    "delay": seconds,
    "chunk_delay": seconds,
    "error": _read_error,
    "retry_after": seconds,
    "after": _read_count,
    "tool_calls": _read_tool_calls,
    "finish_reason": FinishReason,
    "chunks": lambda value: tuple(str(piece) for piece in value),
}
_KNOWN = f"known: {', '.join([*_READERS, 'json'])}"
