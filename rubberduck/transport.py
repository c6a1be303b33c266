"""The only place that does HTTP: sends one request, hands back its answer, and says exactly how it failed.

It follows no redirect, repeats nothing, keeps no cookie and writes no log: whether and where to send again
is decided elsewhere, and tenants share nothing. httpx is the interface; the carrier below it is aiohttp,
because httpx's own pool collapses under load (encode/httpcore issue 1002). RUBBERDUCK_HTTP=httpx switches.
"""

from __future__ import annotations

import asyncio
import inspect
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

import httpx

from rubberduck.core.inflate import PIECE_BYTES, Inflater, MalformedEncoding
from rubberduck.transport_carriers import CURRENT, Sender, senders
from rubberduck.transport_failures import TEXTS, TransportError, detail, meaning
from rubberduck.transport_patience import Patience

__all__ = ["Reply", "StreamReply", "Timeouts", "Transport", "TransportError"]

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_STREAM_BYTES = 256 * 1024 * 1024
MAX_ERROR_BYTES = 1024 * 1024
LARGE_BODY_BYTES = 1024 * 1024
CLOSING_S = 1.0
"""How long another thread's loop gets to close its connections."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for each step, in seconds; None means no limit.

    `connect` covers name, TCP and TLS, but not waiting for a free connection; `first_byte` runs from the
    call until the response's headers, `idle` between pieces of its body, `total` from the call to the end.
    """

    connect: float | None = 5.0
    first_byte: float | None = None
    idle: float | None = 15.0
    total: float | None = None


_DEFAULT_TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer of whatever status, its body decoded."""

    status: int
    headers: httpx.Headers
    body: bytes


class Transport:
    """Sends requests over pooled connections. One instance serves any number of event loops and threads.

    One event loop uses at most `pool_size` connections to one host at a time, further calls wait; idle ones
    are kept for `pool_idle` seconds. Whole bodies above `max_body` decoded bytes are refused, streams above
    `max_stream`; of an error's body `max_error` bytes are read. Whoever injects `http_client` or `transport` closes it.

    Proxies come from the environment (HTTPS_PROXY, NO_PROXY); certificates are verified.
    """

    def __init__(
        self,
        *,
        pool_size: int = 50,
        pool_idle: float = 30.0,
        carrier: str | None = None,
        http_client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        max_body: int = MAX_BODY_BYTES,
        max_stream: int = MAX_STREAM_BYTES,
        max_error: int = MAX_ERROR_BYTES,
    ) -> None:
        self._pool_size = pool_size
        self._max_body = max_body
        self._max_stream = max_stream
        self._max_error = max_error
        self._new_sender = senders(carrier, pool_size, pool_idle, http_client, transport)
        self._homes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Home] = weakref.WeakKeyDictionary()
        self._is_closed = False

    async def post(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeouts: Timeouts = _DEFAULT_TIMEOUTS
    ) -> Reply:
        """Send `content` and wait for the whole answer, of whatever status. Raises TransportError."""
        return await self._whole(await self._open("POST", url, headers, content, timeouts, self._max_body))

    async def get(self, url: str, *, headers: Mapping[str, str], timeouts: Timeouts = _DEFAULT_TIMEOUTS) -> Reply:
        """Fetch the whole answer to a GET, of whatever status. Raises TransportError."""
        return await self._whole(await self._open("GET", url, headers, b"", timeouts, self._max_body))

    async def _whole(self, reply: StreamReply) -> Reply:
        return Reply(reply.status, reply.headers, await reply.read(self._max_error if reply.status >= 400 else None))

    async def stream(
        self, url: str, *, headers: Mapping[str, str], content: bytes, timeouts: Timeouts = _DEFAULT_TIMEOUTS
    ) -> StreamReply:
        """Send `content` and return as soon as the answer's headers are there. Raises TransportError.

        Close what is returned, whatever happens: it holds a connection.
        """
        # To compress a stream, a server holds tokens back until a block is full.
        headers = {"accept-encoding": "identity", **_lower(headers)}
        return await self._open("POST", url, headers, content, timeouts, self._max_stream)

    async def aclose(self) -> None:
        """Close every connection; calls in flight fail. Idempotent."""
        self._is_closed = True
        homes, self._homes = list(self._homes.items()), weakref.WeakKeyDictionary()
        for loop, home in homes:
            if loop is asyncio.get_running_loop():
                await home.sender.aclose()
            elif loop.is_running():
                with suppress(TimeoutError):  # a loop that is blocked closes nothing, and must not hold up the others
                    await asyncio.wait_for(asyncio.wrap_future(_closing_on(loop, home.sender)), CLOSING_S)
            elif not loop.is_closed():  # stopped; it may be run from any thread, but not inside a running loop
                await asyncio.to_thread(_close_on_stopped, loop, home.sender)

    async def _open(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes, timeouts: Timeouts, limit: int
    ) -> StreamReply:
        loop = asyncio.get_running_loop()
        home = await self._home(loop)
        request = _request(method, url, {**home.sender.headers, **_lower(headers)}, content, timeouts)
        exchange = _Exchange(
            loop, request.url.netloc.decode("ascii"), timeouts, limit, can_tell_sent=home.sender.can_tell_sent
        )
        await exchange.take(home.slots(request.url))
        try:
            return StreamReply(await exchange.send(home.sender.send, request), exchange)
        except BaseException:
            exchange.release()
            raise

    async def _home(self, loop: asyncio.AbstractEventLoop) -> _Home:
        if self._is_closed:
            raise TransportError("the transport is closed", phase="not_sent", kind="connect")
        home = self._homes.get(loop)
        if home is None:
            home = self._homes[loop] = _Home(self._new_sender(), self._pool_size)
            await anext(home.end)  # does not wait
        return home


class StreamReply:
    """An answer whose body is still arriving: iterate over it for decoded bytes, then close it.

    A reader that is slow slows the sender down. Read to the end where possible: closed before it, the
    connection is aborted, since there is no other way to make the sender stop.
    """

    def __init__(self, response: httpx.Response, exchange: _Exchange) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._exchange = exchange
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._encoded = aiter(response.stream)
        coding = response.headers.get("content-encoding", "").strip().lower()
        self._coding = "" if coding == "identity" else coding
        self._inflater: Inflater | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if piece := await self.receive():
            return piece
        raise StopAsyncIteration

    async def receive(self) -> bytes:
        """The next decoded bytes, empty at the end of the body. Raises TransportError."""
        if self._is_closed:
            return b""
        try:
            piece = await (self._inflated() if self._coding else self._exchange.receive(self._encoded))
            self._exchange.count(len(piece))
        except MalformedEncoding as error:
            await self.aclose()
            raise self._exchange.error(str(error), "malformed") from None
        except BaseException as error:
            self._exchange.release()  # at once, also where the task is being cancelled
            if isinstance(error, TransportError):
                await self.aclose()
            raise
        if not piece:
            await self.aclose()
        return piece

    async def read(self, limit: int | None = None) -> bytes:
        """The body, or its first `limit` bytes; then the reply is closed.

        Of an error's body what arrived is returned even where it was cut: the status has said the main thing.
        """
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in self:
                pieces.append(piece)
                size += len(piece)
                if limit is not None and size >= limit:
                    break
        except TransportError:
            if self.status < 400:
                raise
        finally:
            await self.aclose()
        return b"".join(pieces)[:limit]

    async def aclose(self) -> None:
        """Let the connection go: back to the pool if the body is over, else closed at once. Idempotent."""
        if self._is_closed:
            return
        self._is_closed = True
        self._exchange.release()
        with suppress(Exception):  # the connection is gone or given back; how its remains fail matters to nobody
            close = getattr(self._encoded, "aclose", None)
            if close is not None and not self._exchange.is_over:
                await close()
            await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _inflated(self) -> bytes:
        while True:
            if piece := next(self._pieces, b""):
                return piece
            encoded = await self._exchange.receive(self._encoded)
            if not encoded:
                break
            if self._inflater is None:
                self._inflater = Inflater(self._coding)
            self._pieces = self._inflater.feed(encoded)
        if self._inflater is not None and not self._inflater.is_whole:
            raise self._exchange.error("the compressed body ended too early", "cut")
        return b""


class _Exchange:
    """One request on its way: its limits, how far it came, and the connection it holds."""

    __slots__ = (
        "_can_tell_sent", "_connection", "_headers_by", "_host", "_limit",
        "_patience", "_size", "_slots", "_socket", "is_over", "was_sent",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, timeouts: Timeouts, limit: int, *, can_tell_sent: bool
    ) -> None:
        now = loop.time()
        self._host = host
        until = None if timeouts.total is None else now + timeouts.total
        self._headers_by = _earlier(None if timeouts.first_byte is None else now + timeouts.first_byte, until)
        self._patience = None if timeouts.idle is None and until is None else Patience(loop, timeouts.idle, until)
        self._limit = limit
        self._size = 0
        self._can_tell_sent = can_tell_sent
        self._slots: asyncio.Semaphore | None = None
        self._connection: Any = None
        self._socket: asyncio.Transport | None = None
        self.was_sent = False
        self.is_over = False

    async def take(self, slots: asyncio.Semaphore) -> None:
        """Wait for the right to use a connection."""
        try:
            if slots.locked():
                async with asyncio.timeout_at(self._headers_by):
                    await slots.acquire()
            else:
                await slots.acquire()  # does not wait, and so needs no timer, which is not free
        except TimeoutError:
            raise TransportError(
                f"{self._host}: no connection of the pool became free in time", phase="not_sent", kind="timeout"
            ) from None
        self._slots = slots

    def leaves_by(self, connection: Any) -> None:
        """Called by the carrier with the connection that the request is about to be written to."""
        self.was_sent = True
        self._connection = connection
        self._socket = connection.transport

    async def send(
        self, send: Callable[[httpx.Request], Awaitable[httpx.Response]], request: httpx.Request
    ) -> httpx.Response:
        token = CURRENT.set(self)
        timer = None if self._headers_by is None else asyncio.timeout_at(self._headers_by)
        try:
            if timer is None:
                return await send(request)
            async with timer:
                return await send(request)
        except Exception as failure:  # noqa: BLE001 - the libraries share no base; what is not theirs is raised again
            if timer is not None and timer.expired():
                raise self.error("no answer in time", "timeout") from None
            raise self._translate(failure, lost="reset") from None
        finally:
            CURRENT.reset(token)

    async def receive(self, encoded: AsyncIterator[bytes]) -> bytes:
        """The next bytes of the body, empty at its end."""
        patience = self._patience
        try:
            if patience is not None:
                patience.begin()
            async for data in encoded:
                if data:
                    return data
        except (Exception, asyncio.CancelledError) as failure:
            if patience is not None and patience.has_ended_it():
                raise self.error("the answer stalled, or took too long", "timeout") from None
            if isinstance(failure, asyncio.CancelledError):
                raise
            raise self._translate(failure, lost="cut") from None
        finally:
            if patience is not None:
                patience.rest()
        self.is_over = True
        return b""

    def count(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise self.error(f"the answer has more than {self._limit:,} bytes", "too_large")

    def release(self) -> None:
        """Give the right back, and close the connection at once unless the body is over. Idempotent."""
        if self._slots is not None:
            self._slots.release()
            self._slots = None
        if self._patience is not None:
            self._patience.end()
        if self.is_over or self._socket is None:
            return
        # Once the last byte of a body is in, aiohttp may have lent the connection to another call already.
        if self._connection.transport is self._socket or self._socket.is_closing():
            self._socket.abort()  # not close(), which first waits for the peer to take what is still to be written
        self._socket = None

    def error(self, text: str, kind: str) -> TransportError:
        was_sent = self.was_sent or not self._can_tell_sent
        phase = "after_output" if self._size else "uncertain" if was_sent else "not_sent"
        return TransportError(f"{self._host}: {text}", phase=phase, kind=kind)

    def _translate(self, failure: Exception, lost: str) -> Exception:
        found = meaning(failure)
        if found is None:
            return failure
        phase, kind = found
        kind = lost if kind in ("reset", "cut") else kind
        if self._can_tell_sent and not self.was_sent:
            phase, kind = "not_sent", "connect" if kind == "reset" else kind
        elif self._size:
            phase = "after_output"
        return TransportError(f"{self._host}: {TEXTS[kind]}{detail(failure)}", phase=phase, kind=kind)


class _Home:
    """What one event loop has: a sender and, for each host, the rights to use a connection."""

    def __init__(self, sender: Sender, pool_size: int) -> None:
        self.sender = sender
        self.end = _closed_with_its_loop(sender)
        self._pool_size = pool_size
        self._slots: dict[bytes, asyncio.Semaphore] = {}

    def slots(self, url: httpx.URL) -> asyncio.Semaphore:
        found = self._slots.get(url.netloc)
        if found is None:
            found = self._slots[url.netloc] = asyncio.Semaphore(self._pool_size)
        return found


async def _closed_with_its_loop(sender: Sender) -> AsyncGenerator[None]:
    """Closes the connections of a loop that ends without `aclose`, as one does that was given up for being blocked.

    A generator, since a loop closes those it has begun when it ends, and nobody takes one for a task left behind.
    """
    try:
        yield
    finally:
        await sender.aclose()


def _closing_on(loop: asyncio.AbstractEventLoop, sender: Sender) -> Future[None]:
    """Close the connections of a loop that runs in another thread; done when they are.

    A loop that ends in this very moment closes them itself and never comes to this, so nothing is made before it does.
    """
    done: Future[None] = Future()

    def begin() -> None:
        loop.create_task(sender.aclose()).add_done_callback(tell)

    def tell(closing: asyncio.Task[None]) -> None:
        error = asyncio.CancelledError() if closing.cancelled() else closing.exception()
        if not done.set_running_or_notify_cancel():  # nobody waits for it any more
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    try:
        loop.call_soon_threadsafe(begin)
    except RuntimeError:  # it has ended
        done.set_result(None)
    return done


def _close_on_stopped(loop: asyncio.AbstractEventLoop, sender: Sender) -> None:
    """Close the connections of a loop that nobody runs. One that is run or closed meanwhile sees to it itself."""
    closing = sender.aclose()
    try:
        loop.run_until_complete(closing)
    except RuntimeError:
        if inspect.getcoroutinestate(closing) != inspect.CORO_CREATED:
            raise
        closing.close()


@lru_cache(maxsize=256)
def _url(url: str) -> httpx.URL:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
        raise httpx.InvalidURL("not an address of HTTP")
    return parsed


def _request(method: str, url: str, headers: dict[str, str], content: bytes, timeouts: Timeouts) -> httpx.Request:
    limits = {"connect": timeouts.connect, "pool": timeouts.connect, "read": None, "write": None}
    extensions = {"timeout": limits}
    try:
        target = _url(url)
        if not content:
            return httpx.Request(method, target, headers=headers, extensions=extensions)
        # What it is not told it would find out by itself, which takes as long as all else that it does here.
        headers = {"host": target.netloc.decode("ascii"), **headers, "content-length": str(len(content))}
        if len(content) >= LARGE_BODY_BYTES:
            return httpx.Request(method, target, headers=headers, stream=_Upload(content), extensions=extensions)
        body = httpx.ByteStream(content)
        request = httpx.Request(method, target, headers=headers, stream=body, extensions=extensions)
        request.read()
        return request
    except (httpx.InvalidURL, UnicodeEncodeError) as error:
        text = "the URL is not valid" if isinstance(error, httpx.InvalidURL) else "a header is not ASCII"
        raise TransportError(f"{text}; nothing was sent", phase="not_sent", kind="malformed") from None


class _Upload(httpx.AsyncByteStream):
    """A large body in pieces: written at once it would block the loop, and aiohttp warns of that."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._content), PIECE_BYTES):
            yield self._content[start : start + PIECE_BYTES]


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names in one spelling, so that the caller's replace ours. Refuses values that would split the header."""
    lower = {name.lower(): value for name, value in headers.items()}
    for name, value in lower.items():
        if "\n" in value or "\r" in value:
            raise TransportError(f"header {name} has a line break", phase="not_sent", kind="malformed")
    return lower


def _earlier(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)
