"""One request at a fault server: what it was, and the means to answer it or not."""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

LONGEST_SAID = 1_000_000
"""How many bytes of each answer the log keeps."""

_READ = re.compile(rb'"(?:prompt|input)_tokens": ?(\d+)')
_WRITTEN = re.compile(rb'"(?:completion|output)_tokens": ?(\d+)')


@dataclass(slots=True)
class Call:
    """What the server saw of one request. Times are of `time.monotonic`.

    `disconnected_at` is set if the client left before the answer was complete, `finished_at` if it was complete.
    `connection` numbers the connection, from 1, that it came on. `behaviour` is what answered it, and `said` the
    beginning of the answer's body as it was written, at most `LONGEST_SAID` bytes.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    arrived_at: float
    connection: int
    json: Any = None
    bytes_sent: int = 0
    status: int | None = None
    disconnected_at: float | None = None
    finished_at: float | None = None
    behaviour: Behaviour | None = None
    said: bytes = field(default=b"", repr=False)

    @property
    def key(self) -> str:
        """The API key that the request was made with, empty without one."""
        return self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def usage(self) -> tuple[int, int] | None:
        """Tokens in and out as the answer has told them so far, the last word of each; None if it told none."""
        said = self.said
        if said.startswith(b"\x1f\x8b"):
            said = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16).decompress(said, LONGEST_SAID)
        read, written = _READ.findall(said), _WRITTEN.findall(said)
        return (int(read[-1]), int(written[-1])) if read and written else None


class Behaviour(Protocol):
    """How one request is answered. Anything with this method can stand in a script."""

    async def answer(self, call: Call, reply: Reply) -> None: ...


class Line(Protocol):
    """The connection below a reply."""

    async def write(self, data: bytes) -> None: ...

    def drop(self, *, gently: bool) -> None: ...

    def note(self) -> None: ...


class Reply:
    """What a behaviour does to the client: write an answer, or part of one, or drop the line."""

    def __init__(self, line: Line, call: Call, released: asyncio.Event) -> None:
        self._line = line
        self._call = call
        self._released = released
        self._is_chunked = False

    async def head(self, status: int, headers: Mapping[str, str], *, length: int | None = None) -> None:
        """Status line and headers. Without `length` the body is chunked, and open-ended until `end`."""
        self._call.status = status
        self._is_chunked = length is None
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers.items()), framing]
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def body(self, data: bytes) -> None:
        """A piece of the body; waits while the client does not read."""
        if len(self._call.said) < LONGEST_SAID:
            self._call.said += data
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked and data else data)

    async def end(self) -> None:
        """The proper end of a chunked body."""
        if self._is_chunked:
            await self.raw(b"0\r\n\r\n")

    async def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        await self.head(status, headers, length=len(body))
        await self.body(body)

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        await self._line.write(data)
        self._call.bytes_sent += len(data)
        self._line.note()

    def reset(self) -> None:
        """Drop the line with a TCP reset; what was written may be lost with it."""
        self._line.drop(gently=False)

    def hang_up(self) -> None:
        """Close the line after what was written."""
        self._line.drop(gently=True)

    async def wait(self, seconds: float | None = None) -> None:
        """Say nothing for a while; None: until the client leaves or the server stops."""
        await asyncio.sleep(seconds) if seconds is not None else await asyncio.Event().wait()

    async def until_released(self) -> None:
        """Say nothing until the test calls `FaultServer.release`."""
        await self._released.wait()
