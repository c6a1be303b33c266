"""How the transport fails: each failure by what it leaves open (phase) and what happened (kind)."""

from __future__ import annotations

import asyncio
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rubberduck.testing import Behaviour, Call, FaultServer, Reply, faults
from rubberduck.transport import Timeouts, Transport, TransportError

STREAM = b'{"model": "m-1", "stream": true}'
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-secret"}
SHORT = 0.1
TRIES = 10


@pytest.fixture(params=["aiohttp", "httpx"])
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


NO_LIMITS = Timeouts()


async def failure(
    url: str,
    carrier: str = "aiohttp",
    timeouts: Timeouts = NO_LIMITS,
    transport: httpx.AsyncBaseTransport | None = None,
) -> tuple[str, str]:
    """Phase and kind of the failure of one stream, read to its end."""
    sender = Transport(carrier=carrier, transport=transport)

    async def read_stream() -> None:
        async with await sender.stream(url, headers=HEADERS, content=STREAM, timeouts=timeouts) as reply:
            async for _ in reply:
                pass

    with pytest.raises(TransportError) as caught:
        await read_stream()
    await sender.aclose()
    assert "secret" not in f"{caught.value!r}{caught.value.__cause__!r}"
    return caught.value.phase, caught.value.kind


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (faults.HangUp(), ("uncertain", "reset")),
        (faults.HangUp(reset=False), ("uncertain", "reset")),
        (faults.NotHttp(), ("uncertain", "malformed")),
        (faults.NotHttp(b"HTTP/1.1 200 OK\r\nContent-Le"), ("uncertain", "reset")),
        (faults.NotHttp(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), ("uncertain", "cut")),
        (faults.NotHttp(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nquac"), ("after_output", "cut")),
        (faults.Cut(after=0), ("uncertain", "cut")),
        (faults.Cut(after=2), ("after_output", "cut")),
        (faults.Gzip(keep=0.7), ("after_output", "cut")),
        (faults.Raw(200, {"content-encoding": "gzip"}, b"no gzip"), ("uncertain", "malformed")),
        (faults.Raw(200, {"content-encoding": "br"}, b"\x0b\x02\x80"), ("uncertain", "malformed")),
    ],
    ids=repr,
)
async def test_server_that_breaks_off(carrier: str, fault: Behaviour, outcome: tuple[str, str]) -> None:
    with FaultServer(fault) as server:
        assert await failure(f"{server.base_url}/v1/chat/completions", carrier) == outcome
        assert len(server.calls) == 1


@dataclass
class InHalves:
    """A stream whose second half waits for the test."""

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream"})
        await reply.body(b"data: one\n\n")
        await reply.until_released()
        await reply.body(b"data: two\n\n")
        await reply.end()


@pytest.mark.parametrize(
    ("fault", "timeouts", "phase"),
    [
        (faults.Silence(), Timeouts(first_byte=SHORT), "uncertain"),
        (faults.Silence(), Timeouts(total=SHORT), "uncertain"),
        (faults.Stall(after=0), Timeouts(idle=SHORT), "uncertain"),
        (faults.Stall(after=2), Timeouts(idle=SHORT), "after_output"),
        (faults.Drip(0.01), Timeouts(idle=5, total=SHORT), "after_output"),
    ],
    ids=repr,
)
async def test_each_limit_of_time_ends_the_call(carrier: str, fault: Behaviour, timeouts: Timeouts, phase: str) -> None:
    async def outcome() -> tuple[tuple[str, str], float]:
        with FaultServer(fault) as server:
            began = time.monotonic()
            told = await failure(f"{server.base_url}/v1/chat/completions", carrier, timeouts)
            took = time.monotonic() - began
            await server.until(lambda calls: all(call.disconnected_at for call in calls))
        return told, took

    seen = [await outcome()]
    while len(seen) < TRIES and seen[-1][0] != (phase, "timeout"):  # the server, too, may have stood still for so long
        seen.append(await outcome())
    told, took = seen[-1]
    assert told == (phase, "timeout"), seen
    assert SHORT <= took < 10  # the next limit is that of 15 s between two pieces


async def test_what_came_while_the_readers_loop_was_blocked_is_not_too_late(
    carrier: str, time_passes: Callable[[float], None]
) -> None:
    """The limit was over and the piece was there; the call failed, although its server had not been late."""
    with FaultServer(InHalves()) as server:
        transport = Transport(carrier=carrier)
        timeouts = Timeouts(idle=20)
        reply = await transport.stream(server.base_url, headers=HEADERS, content=STREAM, timeouts=timeouts)
        assert await anext(aiter(reply)) == b"data: one\n\n"
        reading = asyncio.create_task(reply.read())
        await asyncio.sleep(0)
        server.release()
        server.wait_for(lambda calls: calls[0].finished_at)  # blocks the loop
        time_passes(25)
        assert await reading == b"data: two\n\n"
        await transport.aclose()


async def test_slow_reader_is_not_taken_for_an_idle_server(time_passes: Callable[[float], None]) -> None:
    """`idle` counts waiting for bytes, not the time the reader spends between two of them."""
    with FaultServer(faults.Ok(piece=1)) as server:
        transport = Transport()
        timeouts = Timeouts(idle=20)
        reply = await transport.stream(server.base_url, headers=HEADERS, content=STREAM, timeouts=timeouts)
        await anext(aiter(reply))
        await server.until(lambda calls: calls[0].finished_at)
        time_passes(25)
        await asyncio.sleep(0.01)  # the loop looks at its timers
        assert (await reply.read()).endswith(b"[DONE]\n\n")
        await transport.aclose()


async def test_waiting_for_a_place_in_the_pool_is_not_sent() -> None:
    with FaultServer(faults.Silence()) as server:
        transport = Transport(pool_size=1)
        first = asyncio.create_task(transport.post(server.base_url, headers={}, content=STREAM))
        await server.until(lambda calls: calls)
        with pytest.raises(TransportError) as caught:
            await transport.post(server.base_url, headers={}, content=STREAM, timeouts=Timeouts(total=SHORT))
        first.cancel()
        await asyncio.wait([first])
        await transport.aclose()
        assert (caught.value.phase, caught.value.kind) == ("not_sent", "timeout")
        assert len(server.calls) == 1


async def test_refused_connection_is_not_sent(carrier: str) -> None:
    with socket.socket() as taken:  # by us, who do not listen: nobody else does
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        assert await failure(f"http://127.0.0.1:{port}/", carrier) == ("not_sent", "connect")


async def test_connection_that_is_never_accepted_times_out_and_is_not_sent(carrier: str) -> None:
    """A listener whose queue is full leaves further connections without an answer."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        waiting = [_begin_to_connect(port) for _ in range(4)]
        assert await failure(f"http://127.0.0.1:{port}/", carrier, Timeouts(connect=SHORT)) == ("not_sent", "timeout")
        by_first_byte = await failure(f"http://127.0.0.1:{port}/", "aiohttp", Timeouts(first_byte=SHORT))
        assert by_first_byte == ("not_sent", "timeout")
        for one in waiting:
            one.close()


async def test_unknown_name_is_not_sent(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    assert await failure("https://api.example.invalid/", carrier) == ("not_sent", "dns")


async def test_plain_server_behind_https_is_not_sent(carrier: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        asking = asyncio.create_task(failure(f"https://127.0.0.1:{port}/", carrier))
        peer, _ = await asyncio.to_thread(listening.accept)
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            assert await asking == ("not_sent", "tls")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl program to make a certificate")
async def test_certificate_that_nobody_vouches_for_is_refused(carrier: str, tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=127.0.0.1"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    certificate = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with FaultServer(certificate=certificate) as server:
        assert await failure(server.base_url, carrier) == ("not_sent", "tls")
        assert server.calls == []


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "no url", "http://127.0.0.1:99999/"])
async def test_url_that_is_none_is_not_sent(carrier: str, url: str) -> None:
    assert await failure(url, carrier) == ("not_sent", "malformed")


@pytest.mark.parametrize("value", ["Bearer clé-secret", "Bearer secret\r\nX-Admin: 1"])
async def test_header_that_cannot_be_sent_is_refused_without_showing_it(carrier: str, value: str) -> None:
    with FaultServer() as server:
        transport = Transport(carrier=carrier)
        with pytest.raises(TransportError) as caught:
            await transport.post(server.base_url, headers={"authorization": value}, content=STREAM)
        await transport.aclose()
        assert (caught.value.phase, caught.value.kind) == ("not_sent", "malformed")
        assert "secret" not in str(caught.value)
        assert server.calls == []


async def test_failures_of_an_injected_transport_are_told_by_httpx_names() -> None:
    class Breaking(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"quack"
            raise httpx.ReadError("")

    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("")

    async def outcome(handler: httpx.MockTransport) -> tuple[str, str]:
        return await failure("http://a.example/", transport=handler)

    assert await outcome(httpx.MockTransport(refuse)) == ("not_sent", "connect")
    assert await outcome(httpx.MockTransport(lambda _: httpx.Response(200, stream=Breaking()))) == (
        "after_output",
        "cut",
    )


async def test_programmers_mistake_below_is_not_dressed_as_a_network_failure() -> None:
    def wrong(_: httpx.Request) -> httpx.Response:
        raise LookupError("a mistake")

    transport = Transport(transport=httpx.MockTransport(wrong))
    with pytest.raises(LookupError):
        await transport.post("http://a.example/", headers={}, content=STREAM)
    await transport.aclose()


def _begin_to_connect(port: int) -> socket.socket:
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex(("127.0.0.1", port))
    return one
