"""A provider behind an HTTP API: all the I/O and the naming of its failures, for who fills in the translation.

Fill in how a request and an answer look as bytes (`encode`, `decode`, `stream_decoder`, `classify`: no I/O in them),
and for embeddings and counts the pairs named after these.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import os
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import SplitResult, urlsplit, urlunsplit

from rubberduck import errors
from rubberduck.errors import ConfigError, InvalidRequest, MissingApiKey, RubberDuckError, StreamInterrupted
from rubberduck.providers.assembly import Assembly, as_chunks
from rubberduck.providers.base import Provider
from rubberduck.providers.model_names import with_asked
from rubberduck.providers.reading import as_dict, parse_json
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.transport import Reply, StreamReply, Timeouts, Transport, TransportError
from rubberduck.types import Chunk, EmbeddingRequest, Embeddings, Head, Request, Response, TokenCount, Usage
from rubberduck.types.request import Question

if TYPE_CHECKING:
    from rubberduck.config import ProviderConfig

_log = logging.getLogger("rubberduck.providers")
_END_MARK_S = 2.0
"""How long to wait for usage and end mark of an answer that gave its finish reason."""
_MOST_WARNINGS = 1000
_DRAIN_S = 1.0
"""How long to wait, after an answer's proper end, for the end of the HTTP body that makes the socket reusable."""

OnHeaders = Callable[[str, int, Mapping[str, str]], None]

_OWN_FIELDS = frozenset({"model", "messages", "input", "stream"})

Outgoing = tuple[str, dict[str, str], dict[str, Any]]
"""A request as it is sent: the path below `base_url`, headers, and the JSON object of the body."""
A = TypeVar("A")
Q = TypeVar("Q", bound=Question)


class HTTPProvider(Provider):
    """A provider behind an HTTP API. Subclasses translate; this class does the I/O and names its failures.

    `on_headers` is called with the model, the status and the headers of each answer as they arrive: a rate limiter
    learns from them. It must not block.
    """

    on_headers: OnHeaders | None = None

    default_base_url: ClassVar[str]
    key_variable: ClassVar[str]

    def __init__(self, config: ProviderConfig) -> None:
        self.config = config
        self.name = config.name
        self.base_url = (config.base_url or self.default_base_url).rstrip("/")
        self.key = self._find_key(config)
        self._keys = tuple(key.get_secret_value() for key in config.api_keys) or ((self.key,) if self.key else ())
        self.key_names = tuple(f"key {number}" for number in range(1, len(self._keys) + 1)) or ("",)
        self._warned: set[str] = set()
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"providers.{self.name}.base_url must be an http(s) URL, not {self.base_url!r}")
        self._aim_at(url)
        self._timeouts = _timeouts(config)
        self._stream_timeouts = replace(self._timeouts, first_byte=config.first_token_timeout)
        self._transport = Transport(
            pool_size=config.pool.size,
            pool_idle=config.pool.idle,
            http_client=config.http_client,
            transport=config.transport,
            max_body=config.answer_limits.body,
            max_stream=config.answer_limits.stream,
            max_error=config.answer_limits.error,
        )

    @property
    def is_at_vendor(self) -> bool:
        """Whether it is the vendor's own server, for which the list prices hold."""
        return urlsplit(self.base_url).hostname == urlsplit(self.default_base_url).hostname

    @classmethod
    def init(cls, config: ProviderConfig) -> Self:
        return cls(config)

    def _aim_at(self, url: SplitResult) -> None:
        """Send to this address from now on; paths go before the question mark that it may have."""
        self._url_before = urlunsplit(url._replace(query="", fragment=""))
        self._url_after = urlunsplit(("", "", "", url.query, url.fragment))

    def _find_key(self, config: ProviderConfig) -> str | None:
        """The first configured key, or the environment's; the latter never goes to a server of another name."""
        if config.api_keys:
            return config.api_keys[0].get_secret_value()
        if not self._may_have_environments_key:
            return None
        if (key := os.environ.get(self.key_variable)) or not self._needs_key:
            return key or None
        raise MissingApiKey(
            f"providers.{config.name} has no api_key: set it, or the environment variable {self.key_variable}",
            variable=self.key_variable,
            provider=config.name,
        )

    @property
    def _may_have_environments_key(self) -> bool:
        """Whether the server is one that the key in the environment is meant for."""
        return self.config.base_url is None

    @property
    def _needs_key(self) -> bool:
        """Whether such a server answers nobody without a key."""
        return True

    def timed_by_caller(self) -> None:
        """Leave the times of streams to who reads them, and can tell a word from a sign of life."""
        self._stream_timeouts = Timeouts(connect=self._timeouts.connect, first_byte=None, idle=None, total=None)

    def for_key(self, index: int) -> Self:
        """A view that asks with another key, over the same connections. It is good for one attempt."""
        if index == 0:
            return self
        view = copy.copy(self)
        view.key = self._keys[index]
        return view

    # --- to be filled in: pure translation

    @abstractmethod
    def encode(self, request: Request) -> Outgoing:
        """The path below `base_url`, the headers and the body of a call. Raises InvalidRequest."""

    @abstractmethod
    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response. Raises what `classify` says, or ProtocolError."""

    @abstractmethod
    def stream_decoder(self) -> StreamDecoder:
        """A reader for one stream."""

    @abstractmethod
    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""

    def said_in(self, status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """The JSON object of an answer, empty where there is none. Raises what `classify` says of a failure."""
        if status != 200:
            raise self.classify(status, headers, body)
        try:
            said = as_dict(parse_json(body))
        except ValueError:
            said = {}
        if said.get("error"):
            raise self.classify(status, headers, body)
        return said

    def encode_embedding(self, request: EmbeddingRequest) -> Outgoing:
        """As `encode`, for vectors."""
        raise InvalidRequest(f"{self.name} offers no embeddings", field="model")

    def embedding_warnings(self, request: EmbeddingRequest) -> tuple[str, ...]:
        """As `warnings`."""
        return ()

    def decode_embedding(self, status: int, headers: Mapping[str, str], body: bytes) -> Embeddings:
        """As `decode`. Vectors are in the order of the texts."""
        raise NotImplementedError

    def encode_count(self, request: Request) -> Outgoing:
        """As `encode`, for a count of tokens."""
        raise InvalidRequest(f"{self.name} counts no tokens", field="model")

    def decode_count(self, status: int, headers: Mapping[str, str], body: bytes) -> TokenCount:
        """As `decode`."""
        raise NotImplementedError

    # --- the doing

    async def complete(self, request: Request) -> Response:
        request = _with_stream(request, False)
        warnings = self._warn(self.warnings(request))
        response = with_asked(await self._asked(request.model, self.encode, self.decode, request), request.model)
        if response.usage.estimated:
            await self.ready_to_count(request.model)
            response = self._with_usage(response, request)
        return replace(response, warnings=warnings) if warnings else response

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        warnings = self._warn(self.embedding_warnings(request))
        given = await self._asked(request.model, self.encode_embedding, self.decode_embedding, request)
        warnings += self._warn(_unheeded(request, given))
        return replace(given, warnings=warnings) if warnings else given

    async def count(self, request: Request) -> TokenCount:
        return await self._asked(request.model, self.encode_count, self.decode_count, request)

    async def _asked(
        self,
        model: str,
        encode: Callable[[Q], Outgoing],
        decode: Callable[[int, Mapping[str, str], bytes], A],
        request: Q,
    ) -> A:
        """One question, and its whole answer."""
        url, headers, content = self._outgoing(encode, request)
        try:
            reply = await self._transport.post(url, headers=headers, content=content, timeouts=self._timeouts)
            self._show(model, reply)
            return decode(reply.status, reply.headers, reply.body)
        except TransportError as error:
            raise self._lost(error, model) from error
        except RubberDuckError as error:
            raise self._labelled(error, model) from None

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        request = _with_stream(request, True)
        warnings = self._warn(self.warnings(request))
        answer, most = Assembly(), self.config.answer_limits.body
        try:
            async with (
                await self._opened(request) as reply,
                aclosing(await self._read(request, reply, answer)) as pieces,
            ):
                async for chunks in pieces:
                    if warnings and chunks:
                        chunks[0], warnings = _with_warnings(chunks[0], warnings), ()
                    for chunk in chunks:
                        answer.add(chunk)
                        if answer.size > most:
                            raise self._too_large()
                        yield chunk
        except TransportError as error:
            raise self._lost(error, request.model, answer) from error
        except RubberDuckError as error:
            raise self._broken(error, request.model, answer) from error.__cause__
        except asyncio.CancelledError:
            if answer.usage is None:
                raise
            # Who gives it up learns from the cause what it has cost so far.
            raise asyncio.CancelledError from self._interrupted("the stream was given up", request.model, answer)
        if answer.usage is None:
            await self.ready_to_count(request.model)
            yield Chunk(usage=self._estimate(request, answer.written))

    async def _opened(self, request: Request) -> StreamReply:
        url, headers, content = self._outgoing(self.encode, request)
        return await self._transport.stream(url, headers=headers, content=content, timeouts=self._stream_timeouts)

    async def _read(self, request: Request, reply: StreamReply, answer: Assembly) -> AsyncGenerator[list[Chunk]]:
        """The chunks of an answer, those of a piece together: each generator that they pass one by one costs time."""
        limits = self.config.answer_limits
        self._show(request.model, reply)
        if reply.status != 200:
            raise self.classify(reply.status, reply.headers, await reply.read(limits.error))
        if reply.headers.get("content-type", "").startswith("application/json"):
            # Some servers do not stream, whatever they are asked.
            response = self.decode(reply.status, reply.headers, await reply.read(limits.body))
            return _at_once(as_chunks(with_asked(response, request.model)))
        decoder = self.stream_decoder()
        decoder.asked = request.model
        decoder.bound(limits.event)
        return _decoded(reply, decoder, answer)

    async def aclose(self) -> None:
        await self._transport.aclose()

    def _warn(self, warnings: tuple[str, ...]) -> tuple[str, ...]:
        """What is not sent of a request; told in the log once."""
        for warning in warnings:
            if warning not in self._warned and len(self._warned) < _MOST_WARNINGS:
                self._warned.add(warning)
                _log.warning("%s: %s", self.name, warning)
        return warnings

    def _outgoing(self, encode: Callable[[Q], Outgoing], request: Q) -> tuple[str, dict[str, str], bytes]:
        try:
            path, headers, body = encode(request)
        except RubberDuckError as error:
            raise self._labelled(error, request.model) from None
        url = f"{self._url_before}{path}{self._url_after}"
        return url, {"Content-Type": "application/json"} | headers, _json_bytes(body)

    def _show(self, model: str, reply: Reply | StreamReply) -> None:
        if self.on_headers is not None:
            self.on_headers(model, reply.status, reply.headers)

    # --- naming what went wrong

    def _labelled(self, error: RubberDuckError, model: str) -> RubberDuckError:
        """The error with provider and model filled in, and our keys removed from what the server wrote."""
        error.provider, error.model = self.name, model
        for key in (self.key, *self._keys):
            if key and key in error.message:
                error.message = error.message.replace(key, "***")
                error.args = (error.message,)
        return error

    def _lost(self, error: TransportError, model: str, answer: Assembly | None = None) -> RubberDuckError:
        """The error for a connection that failed, by how far the call had come."""
        if answer is not None and answer.has_output:
            return self._interrupted(f"the stream broke off ({error.kind})", model, answer)
        kinds: dict[str, type[errors.ProviderError]] = {
            "timeout": errors.ProviderTimeout,
            "too_large": errors.ProtocolError,
            "malformed": errors.ProtocolError,
            "cut": errors.ProtocolError,  # an answer had begun: more than an outage, and it may be billed
        }
        phase = "uncertain" if error.phase == "after_output" else error.phase
        return kinds.get(error.kind, errors.ServiceUnavailable)(
            f"{self.name} did not answer ({error.kind}): {error}",
            provider=self.name,
            model=model,
            phase=phase,
            spent=Decimal(0) if phase == "not_sent" else None,
        )

    def _too_large(self) -> errors.ProtocolError:
        text = f"{self.name} sent an answer of more than {self.config.answer_limits.body:,} letters"
        return errors.ProtocolError(text, status=200, spent=None)

    def _interrupted(self, what: str, model: str, answer: Assembly) -> StreamInterrupted:
        return StreamInterrupted(
            f"{self.name}: {what}; what came before is in `text`",
            text=answer.text,
            usage=answer.usage,
            provider=self.name,
            model=model,
            spent=None,
        )

    def _broken(self, error: RubberDuckError, model: str, answer: Assembly) -> RubberDuckError:
        """The error that ended a stream, with what had come before it: as its own, or as its cause."""
        self._labelled(error, model)
        if isinstance(error, StreamInterrupted):
            error.text, error.usage = answer.text, error.usage or answer.usage
            error.phase = "after_output" if answer.has_output else "uncertain"
        elif answer.has_output:
            error.__cause__ = self._interrupted("the server reported an error in its answer", model, answer)
            error.spent = None
            if isinstance(error, errors.ProviderError):
                error.phase = "after_output"
        return error

    # --- usage that the server did not tell

    def _with_usage(self, response: Response, request: Request) -> Response:
        written = "".join(
            (choice.message.reasoning or "")
            + choice.message.text
            + "".join(call.function.arguments for call in choice.message.tool_calls)
            for choice in response.choices
        )
        return replace(response, usage=self._estimate(request, written))

    def _estimate(self, request: Request, written: str) -> Usage:
        asked = sum(self.count_tokens(message.text, request.model) for message in request.messages)
        return Usage(asked, self.count_tokens(written, request.model), estimated=True)


def merge_extra(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The body with a provider's own parameters in it; `tools` of both are put together.

    Raises:
        InvalidRequest: what routes and bills a call cannot be changed so.
    """
    if not extra:
        return body
    for name in _OWN_FIELDS & extra.keys():
        raise InvalidRequest(f"extra.{name}: set `{name}` in the request itself", field=f"extra.{name}")
    merged: dict[str, Any] = body | extra
    if isinstance(body.get("tools"), list) and isinstance(extra.get("tools"), list):
        merged["tools"] = body["tools"] + extra["tools"]
    return merged


def _with_stream(request: Request, stream: bool) -> Request:
    return request if request.stream is stream else request.model_copy(update={"stream": stream})


def _unheeded(request: EmbeddingRequest, given: Embeddings) -> tuple[str, ...]:
    """What vectors show of a length that was asked for: a server that cannot shorten them may well say nothing."""
    length = len(given.vectors[0]) if given.vectors else None
    if request.dimensions in (None, length):
        return ()
    return (f"dimensions is not heeded: the vectors have {length} numbers, not {request.dimensions}",)


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _json_bytes(body: dict[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(body).encode()
    except UnicodeEncodeError:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None


def _timeouts(config: ProviderConfig) -> Timeouts:
    defaults = Timeouts(total=config.timeout)
    connect = defaults.connect if config.connect_timeout is None else config.connect_timeout
    idle = defaults.idle if config.idle_timeout is None else config.idle_timeout
    return replace(defaults, connect=connect, idle=idle)


def _with_warnings(chunk: Chunk, warnings: tuple[str, ...]) -> Chunk:
    return replace(chunk, head=replace(chunk.head or Head(), warnings=warnings))


async def _at_once(chunks: list[Chunk]) -> AsyncGenerator[list[Chunk]]:
    yield chunks


async def _decoded(reply: StreamReply, decoder: StreamDecoder, answer: Assembly) -> AsyncGenerator[list[Chunk]]:
    """The chunks of a stream, up to its proper end."""
    end_by = None
    try:
        while data := await (reply.receive() if end_by is None else _more(reply, end_by)):
            if chunks := decoder.feed(data):
                yield chunks
            decoder.check()
            if decoder.done:
                await _drain(reply)
                return
            if end_by is None and decoder.is_whole:
                end_by = asyncio.get_running_loop().time() + _END_MARK_S
        yield decoder.end()
    finally:
        answer.usage = answer.usage or decoder.usage


async def _more(reply: StreamReply, by: float) -> bytes:
    """What comes behind a whole answer until then: it waits no longer for its end mark, and is whole without one."""
    try:
        async with asyncio.timeout_at(by):
            return await reply.receive()
    except (TransportError, TimeoutError):
        return b""


async def _drain(reply: StreamReply) -> None:
    """Read past the answer's end, so that the socket can be used again. The answer is whole: failures are nothing."""
    try:
        async with asyncio.timeout(_DRAIN_S):
            async for _ in reply:
                pass
    except (TransportError, TimeoutError):
        pass
