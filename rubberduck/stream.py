"""A streamed answer on its way from the call to its reader: a small bounded buffer between two threads.

The call writes on its own loop and waits while the buffer is full, so that a slow reader slows the socket.
The reader is a plain thread, or a coroutine on any event loop. A stream that does not come to its proper end
raises in the reader; closing it ends the call and its socket.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable
from enum import StrEnum
from types import TracebackType
from typing import Any, Self, cast

from rubberduck.errors import Cancelled, DeadlineExceeded, StreamInterrupted
from rubberduck.types import Chunk, Response, Usage
from rubberduck.wakers import ThreadWaker, Waker

CAPACITY = 64
"""How many chunks wait for a slow reader before the socket is no longer read."""


class StreamState(StrEnum):
    """What has become of a streamed answer: it is being written, or has ended in one of four ways.

    It is whole; or it broke off; or nobody wanted it any more, its deadline among them; or it failed otherwise.
    """

    OPEN = "open"
    COMPLETE = "complete"
    TRUNCATED = "truncated"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Pipe:
    """The buffer between one call and one reader. `cancel` ends the call, from any thread."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        # Reentrant, because the collector may close a forgotten stream in the middle of anything.
        self._lock = threading.RLock()
        self._chunks: deque[Chunk] = deque()
        self._reader: Waker | ThreadWaker | None = None
        self._writer: Waker | None = None
        self._error: BaseException | None = None
        self.response: Response | None = None
        self.is_over = False
        self.is_closed = False

    # -- the call's side ---------------------------------------------------------------------------

    async def write(self, chunk: Chunk) -> None:
        """Hand a chunk to the reader; waits while the buffer is full. Raises Cancelled once it was closed."""
        while (room := self._write_or_wait(chunk)) is not None:
            await room

    def write_all(self, chunks: Iterable[Chunk]) -> None:
        """Hand over chunks that have waited elsewhere, however many. Raises Cancelled once it was closed."""
        with self._lock:
            self._refuse_if_over()
            self._chunks.extend(chunks)
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.wake()

    def _refuse_if_over(self) -> None:
        if self.is_closed:
            raise Cancelled("the stream was closed by its reader")
        if self.is_over:
            raise Cancelled("the stream has ended for its reader")

    def _write_or_wait(self, chunk: Chunk) -> asyncio.Future[None] | None:
        """None if the chunk was taken; else what will be done when there may be room."""
        with self._lock:
            self._refuse_if_over()
            if len(self._chunks) >= CAPACITY:
                self._writer = _waker_here()
                return self._writer.future
            self._chunks.append(chunk)
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.wake()
        return None

    def end(self, response: Response) -> None:
        """The answer is whole."""
        self._finish(response, None)

    def fail(self, error: BaseException) -> None:
        """The answer will not become whole; the reader gets what came, then the error."""
        self._finish(None, error)

    def _finish(self, response: Response | None, error: BaseException | None) -> None:
        with self._lock:
            if self.is_over:
                return
            self.is_over = True
            self.response = response
            self._error = error
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.wake()

    @property
    def error(self) -> BaseException | None:
        """Why the answer will not become whole, once that is known."""
        return self._error

    @property
    def state(self) -> StreamState:
        """How far it is."""
        if self.response is not None:
            return StreamState.COMPLETE
        match self._error:
            case None:
                return StreamState.CANCELLED if self.is_closed else StreamState.OPEN
            case StreamInterrupted():
                return StreamState.TRUNCATED
            case Cancelled() | DeadlineExceeded() | asyncio.CancelledError():
                return StreamState.CANCELLED
            case _:
                return StreamState.CANCELLED if self.is_closed else StreamState.FAILED

    # -- the reader's side -------------------------------------------------------------------------

    def take(self, make_waker: Callable[[], Waker | ThreadWaker]) -> Chunk | Waker | ThreadWaker | None:
        """The next chunk, a waker that is woken when there is one, or None at the end. Raises how it failed."""
        with self._lock:
            if self._chunks:
                chunk = self._chunks.popleft()
                writer, self._writer = self._writer, None
            elif self.is_closed:
                return None
            elif self.is_over:
                if self._error is not None:
                    raise self._error
                return None
            elif self._reader is not None:
                raise RuntimeError("somebody else is reading this stream: a stream has one reader")
            else:
                self._reader = make_waker()
                return self._reader
        if writer is not None:
            writer.wake()
        return chunk

    def leave(self, waker: Waker | ThreadWaker) -> None:
        """Who waited for a chunk no longer does."""
        with self._lock:
            if self._reader is waker:
                self._reader = None

    def close(self) -> None:
        """Stop reading: end the call, unless it has ended."""
        with self._lock:
            if self.is_closed:
                return
            self.is_closed = True
            self._chunks.clear()
            wakers = (self._reader, self._writer)
            self._reader = self._writer = None
        for waker in wakers:
            if waker is not None:
                waker.wake()
        if not self.is_over:
            self._cancel()


class Stream:
    """Chunks of one answer, for one reader. A context manager and an iterator, plain and async.

        with duck.stream(request) as stream:
            for chunk in stream:
                print(chunk.delta.content, end="")

    `provider` and `model` say who answers. After the end `usage`, `text` and `response` hold the whole answer.
    A stream that is forgotten without being closed closes itself.
    """

    def __init__(self, pipe: Pipe, provider: str, model: str, request_id: str) -> None:
        self._pipe = pipe
        self.provider = provider
        self.model = model
        self.request_id = request_id

    def __repr__(self) -> str:
        return f"<Stream of {self.provider}/{self.model}, {self.state}, request_id {self.request_id}>"

    @property
    def state(self) -> StreamState:
        """Whether the answer is still being written, and if not, in which of four ways it ended."""
        return self._pipe.state

    @property
    def error(self) -> BaseException | None:
        """Why the answer is not whole; None before its end, and after a good one. The reader is raised the same."""
        return self._pipe.error

    @property
    def response(self) -> Response | None:
        """The whole answer; None before its end."""
        return self._pipe.response

    @property
    def usage(self) -> Usage | None:
        """What the answer consumed; None before its end."""
        response = self._pipe.response
        return None if response is None else response.usage

    @property
    def text(self) -> str:
        """The whole text; empty before the end."""
        response = self._pipe.response
        return "" if response is None else response.text

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this would block the event loop: use `async for` and duck.astream")
        while True:
            taken = self._pipe.take(ThreadWaker)
            if taken is None:
                raise StopIteration
            if isinstance(taken, Chunk):
                return taken
            assert isinstance(taken, ThreadWaker)
            try:
                taken.wait()
            finally:
                self._pipe.leave(taken)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Chunk:
        while True:
            taken = self._pipe.take(_waker_here)
            if taken is None:
                raise StopAsyncIteration
            if isinstance(taken, Chunk):
                return taken
            assert isinstance(taken, Waker)
            try:
                await taken.future
            finally:
                self._pipe.leave(taken)

    def close(self) -> None:
        """Stop reading: the call is cancelled and its socket closed. Without effect after the end."""
        self._pipe.close()

    async def aclose(self) -> None:
        """As `close`."""
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pipe.close()

    def __del__(self) -> None:
        # A reader that forgot its stream must not leave the provider talking to nobody.
        self._pipe.close()


class OpeningStream:
    """A stream that has not been asked for yet: `async with` it, or iterate over it at once."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._stream: Stream | None = None

    async def __aenter__(self) -> Stream:
        if self._stream is None:
            self._stream = cast("Stream", await self._ask())
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def __aiter__(self) -> OpeningStream:
        return self

    async def __anext__(self) -> Chunk:
        stream = self._stream or await self.__aenter__()
        return await stream.__anext__()


def _waker_here() -> Waker:
    loop = asyncio.get_running_loop()
    return Waker(loop, loop.create_future())
