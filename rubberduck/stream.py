"""A streamed answer on its way from the call to its reader: a small bounded buffer between two threads.

The call writes on its own loop and waits while the buffer is full, so that a slow reader slows the socket.
The reader is a plain thread, or a coroutine on any event loop. A stream that does not come to its proper end
raises in the reader; closing it ends the call and its socket.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from rubberduck.errors import Cancelled
from rubberduck.types import Chunk, Response, Usage
from rubberduck.wakers import ThreadWaker, Waker

W = TypeVar("W", Waker, ThreadWaker)

CAPACITY = 64
"""How many chunks wait for a slow reader before the socket is no longer read."""


class Stream:
    """Chunks of one answer, for one reader. A context manager and an iterator, plain and async.

        with duck.stream(request) as stream:
            for chunk in stream:
                print(chunk.delta.content, end="")

    `provider` and `model` say who answers. After the end `usage` and `response` hold the whole answer.
    """

    def __init__(self, provider: str, model: str, request_id: str, cancel: Callable[[], object]) -> None:
        self.provider = provider
        self.model = model
        self.request_id = request_id
        self.response: Response | None = None
        self._cancel = cancel
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._ended = False
        self._error: BaseException | None = None
        self._closed = False
        self._reader: Waker | ThreadWaker | None = None
        self._writer: Waker | None = None

    @property
    def usage(self) -> Usage | None:
        """What the answer consumed; None before its end."""
        return self.response.usage if self.response is not None else None

    @property
    def text(self) -> str:
        """The whole text; empty before the end."""
        return self.response.text if self.response is not None else ""

    # -- the call's side ---------------------------------------------------------------------------

    async def write(self, chunk: Chunk) -> None:
        """Hand a chunk to the reader; waits while the buffer is full. Raises Cancelled once it was closed."""
        while (room := self._write_or_wait(chunk)) is not None:
            await room

    def _write_or_wait(self, chunk: Chunk) -> asyncio.Future[None] | None:
        """None if the chunk was taken; else what will be done when there may be room."""
        with self._lock:
            if self._closed:
                raise Cancelled("the stream was closed by its reader")
            if len(self._chunks) >= CAPACITY:
                loop = asyncio.get_running_loop()
                self._writer = Waker(loop, loop.create_future())
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
            if self._ended:
                return
            self._ended = True
            self.response = response
            self._error = error
            reader, self._reader = self._reader, None
        if reader is not None:
            reader.wake()

    # -- the reader's side -------------------------------------------------------------------------

    def _take(self, waker: W) -> Chunk | W:
        """The next chunk, or `waker`, which is woken when there is one. Raises at the end."""
        with self._lock:
            if self._chunks:
                chunk = self._chunks.popleft()
                writer, self._writer = self._writer, None
            elif self._closed:
                raise _End
            elif self._ended:
                if self._error is not None:
                    raise self._error
                raise _End
            else:
                self._reader = waker
                return waker
        if writer is not None:
            writer.wake()
        return chunk

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Chunk:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this would block the event loop: use `async for` and duck.astream")
        while True:
            try:
                taken = self._take(ThreadWaker())
            except _End:
                raise StopIteration from None
            if isinstance(taken, Chunk):
                return taken
            taken.wait()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Chunk:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken = self._take(Waker(loop, loop.create_future()))
            except _End:
                raise StopAsyncIteration from None
            if isinstance(taken, Chunk):
                return taken
            await taken.future

    def close(self) -> None:
        """Stop reading: the call is cancelled and its socket closed. Without effect after the end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            ended = self._ended
            self._chunks.clear()
            reader, writer, self._reader, self._writer = self._reader, self._writer, None, None
        for waker in (reader, writer):
            if waker is not None:
                waker.wake()
        if not ended:
            self._cancel()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # A reader that forgot its stream must not leave the provider talking to nobody.
        if not getattr(self, "_ended", True) and not self._closed:
            self.close()


class _End(Exception):
    """There is nothing more to read."""
