"""A provider that fails on command: a real HTTP server on a loopback port, scripted request by request.

    with FaultServer(Status(503), CutStream(after=2), Ok("Quack.")) as server:
        ...                        # point a provider's base_url at server.base_url
        assert server.calls[0].json["model"] == "gpt-4o"

Each request takes the next behaviour of the script; the last one repeats. It runs in a thread of its own, so
that blocking and asyncio tests can use it alike, and leaves no thread and no socket behind.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from rubberduck.testing.exchange import Behaviour, Call, Reply
from rubberduck.testing.faults import Ok

TLS_HANDSHAKE = b"\x16\x03"
ENTERING_TURNS = 3
"""How many turns of the loop pass from accepting a connection until its protocol hears of it; one to spare."""
PATIENCE_S = 30.0
"""How long what should happen at once may take: the machine may be busy, and only a test that fails waits so long."""


class FaultServer:
    """Serves a script of behaviours on 127.0.0.1 while its `with` block lasts.

    `calls` is the log. A behaviour that raises makes the end of the block raise. All methods may be called
    from any thread.
    """

    def __init__(self, *script: Behaviour, certificate: ssl.SSLContext | None = None) -> None:
        self._script: list[Behaviour] = list(script) or [Ok()]
        self._certificate = certificate
        self._log: list[Call] = []
        self._changed = threading.Condition()
        self._is_ready = threading.Event()
        self._mistakes: list[BaseException] = []
        self._connections: set[_Connection] = set()
        self._opened = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="fault-server", daemon=True)
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"{'https' if self._certificate else 'http'}://127.0.0.1:{self.port}"

    @property
    def calls(self) -> list[Call]:
        """The requests so far, in order of arrival."""
        with self._changed:
            return list(self._log)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def play(self, *script: Behaviour) -> None:
        """Put a new script in place of what is left of the old."""
        with self._changed:
            self._script = list(script) or [Ok()]

    def release(self) -> None:
        """Let go every request that a `Hold` keeps, now and from now on."""
        self._loop.call_soon_threadsafe(self._released.set)

    def wait_for(self, condition: Callable[[list[Call]], object], timeout: float = PATIENCE_S) -> None:
        """Block until `condition(calls)` holds. Raises TimeoutError with the log."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self._log), timeout):
                raise TimeoutError(f"not within {timeout} s; the log is {self._log}")

    async def until(self, condition: Callable[[list[Call]], object], timeout: float = PATIENCE_S) -> None:
        """The same for asyncio code."""
        await asyncio.to_thread(self.wait_for, condition, timeout)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._is_ready.wait(PATIENCE_S):
            raise RuntimeError("the fault server did not start")
        return self

    def __exit__(self, error_type: object, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise RuntimeError("the fault server does not stop: a behaviour of its script blocks, or does not let go")
        if self._mistakes and error_type is None:
            raise RuntimeError("a behaviour of the fault server failed") from self._mistakes[0]

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", ssl=self._certificate)
        self.port = server.sockets[0].getsockname()[1]
        self._is_ready.set()
        await self._stop.wait()
        await self._close(server)
        for connection in list(self._connections):
            connection.drop(gently=False)
        while self._connections:  # noqa: ASYNC110 - the loop closes the last socket within a turn or two
            await asyncio.sleep(0)

    async def _close(self, server: asyncio.Server) -> None:
        """Let nobody in any more; whoever was let in just now becomes one of ours first, and so is closed with them."""
        for listening in server.sockets:
            with suppress(NotImplementedError):  # loops that do not wait for sockets to be readable
                self._loop.remove_reader(listening.fileno())
        for _ in range(ENTERING_TURNS):
            await asyncio.sleep(0)
        server.close()

    def _enter(self, connection: _Connection) -> int:
        self._connections.add(connection)
        self._opened += 1
        return self._opened

    def _leave(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._note()

    def _accept(self, call: Call) -> Behaviour:
        with self._changed:
            self._log.append(call)
            behaviour = call.behaviour = self._script.pop(0) if len(self._script) > 1 else self._script[0]
            self._changed.notify_all()
        return behaviour

    def _note(self, mistake: BaseException | None = None) -> None:
        with self._changed:
            if mistake is not None:
                self._mistakes.append(mistake)
            self._changed.notify_all()


class _Connection(asyncio.Protocol):
    """One TCP connection: reads requests one after the other, runs a behaviour for each."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._call: Call | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._is_dropped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._number = self._server._enter(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.startswith(TLS_HANDSHAKE):  # whoever wants TLS of a plain server is told what others tell
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()
            return
        self._next_request()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, _: Exception | None) -> None:
        if self._call is not None and not self._is_dropped:
            self._call.disconnected_at = time.monotonic()
        if self._task is not None:
            self._task.cancel()
        self._server._leave(self)

    async def write(self, data: bytes) -> None:
        self._transport.write(data)
        await self._may_write.wait()

    def drop(self, *, gently: bool) -> None:
        self._is_dropped = True
        self._transport.close() if gently else self._transport.abort()

    def note(self) -> None:
        self._server._note()

    def _next_request(self) -> None:
        if self._task is not None or (call := self._parse()) is None:
            return
        self._call = call
        behaviour = self._server._accept(call)
        reply = Reply(self, call, self._server._released)
        self._task = asyncio.get_running_loop().create_task(self._play(behaviour, call, reply))

    async def _play(self, behaviour: Behaviour, call: Call, reply: Reply) -> None:
        try:
            await behaviour.answer(call, reply)
        except Exception as mistake:  # noqa: BLE001 - whatever a scripted behaviour raises is the test's to see
            self._server._note(mistake)
            self.drop(gently=False)
        else:
            call.finished_at = None if self._is_dropped else time.monotonic()
            self._server._note()
        self._task = self._call = None
        self._next_request()

    def _parse(self) -> Call | None:
        head, found, rest = bytes(self._received).partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self._received = bytearray(rest[length:])
        method, path, _ = first.split(" ", 2)
        call = Call(method, path, headers, rest[:length], time.monotonic(), self._number)
        if "json" in headers.get("content-type", "json") and call.body:
            call.json = _json_or_none(call.body)
        return call


def _json_or_none(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
