"""A real server on loopback that answers with given bytes, cut into pieces of a given size."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


class Answer:
    """What the server sends. Without `whole`, the connection breaks off in the middle of the body.

    The end of the body waits for `may_end`, which is set unless a test clears it.
    """

    def __init__(
        self, status: int, headers: Mapping[str, str], body: bytes, size: int | None = None, *, whole: bool = True
    ) -> None:
        self.head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items())
        self.pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body] * bool(body)
        self.whole = whole
        self.connections = 0
        self.hung_up = asyncio.Event()
        self.may_end = asyncio.Event()
        self.may_end.set()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """The URL of a server that gives this answer to everything; at the end it has let go of everybody."""
    answering: set[asyncio.Task[None] | None] = set()

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer.connections += 1
        answering.add(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(length)
                writer.write(f"{answer.head}transfer-encoding: chunked\r\n\r\n".encode())
                for number, piece in enumerate(answer.pieces):
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    if number % 64 == 0:
                        await writer.drain()
                if not answer.whole:
                    break
                await answer.may_end.wait()
                writer.write(b"0\r\n\r\n")
        except (ConnectionError, asyncio.IncompleteReadError):
            answer.hung_up.set()
        finally:
            writer.close()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in filter(None, answering):
            task.cancel()
        await asyncio.gather(*filter(None, answering), return_exceptions=True)


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def serve() -> object:
    return serving
