"""The transport over real sockets: what comes back, what stays apart, what is let go."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import httpx
import pytest

import rubberduck.transport
from rubberduck.core.sse import SSEDecoder
from rubberduck.testing import Behaviour, Call, FaultServer, faults
from rubberduck.transport import StreamReply, Transport, TransportError

CARRIERS = ["aiohttp", "httpx"]
BODY = json.dumps({"model": "m-1"}).encode()
STREAM = json.dumps({"model": "m-1", "stream": True}).encode()
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def url(server: FaultServer) -> str:
    return f"{server.base_url}/v1/chat/completions"


async def post(transport: Transport, server: FaultServer, content: bytes = BODY) -> bytes:
    return (await transport.post(url(server), headers=HEADERS, content=content)).body


async def open_stream(transport: Transport, server: FaultServer) -> StreamReply:
    return await transport.stream(url(server), headers=HEADERS, content=STREAM)


async def test_post_brings_status_headers_and_body(carrier: str) -> None:
    with FaultServer(faults.Status(429, retry_after=2)) as server:
        transport = Transport(carrier=carrier)
        reply = await transport.post(url(server), headers={**HEADERS, "Authorization": "Bearer k"}, content=BODY)
        await transport.aclose()
        [call] = server.calls
    assert (reply.status, reply.headers["Retry-After"]) == (429, "2")
    assert json.loads(reply.body)["error"]["message"] == "scripted fault"
    assert (call.method, call.path, call.json) == ("POST", "/v1/chat/completions", {"model": "m-1"})
    assert call.headers["authorization"] == "Bearer k"
    assert call.headers["accept-encoding"] == "gzip, deflate"


async def test_get_sends_no_body(carrier: str) -> None:
    with FaultServer(faults.Raw(200, {}, b"[]")) as server:
        transport = Transport(carrier=carrier)
        reply = await transport.get(f"{server.base_url}/v1/models?limit=3", headers={})
        await transport.aclose()
        [call] = server.calls
    assert reply.body == b"[]"
    assert (call.method, call.path, call.body) == ("GET", "/v1/models?limit=3", b"")


async def test_stream_arrives_as_it_is_sent(carrier: str) -> None:
    """The first event is there while the server still holds back the rest."""
    with FaultServer(faults.Stall(after=1)) as server:
        transport = Transport(carrier=carrier)
        reply = await open_stream(transport, server)
        first = await anext(aiter(reply))
        await reply.aclose()
        await transport.aclose()
    assert reply.status == 200
    assert json.loads(SSEDecoder().feed(first)[0].data)["choices"][0]["delta"]["role"] == "assistant"


@pytest.mark.parametrize("piece", [1, 3, None])
async def test_split_characters_come_through_whole(carrier: str, piece: int | None) -> None:
    with FaultServer(faults.Ok("Ente 🦆 é\u2028", piece=piece)) as server:
        transport, decoder = Transport(carrier=carrier), SSEDecoder()
        reply = await open_stream(transport, server)
        events = [event async for data in reply for event in decoder.feed(data)]
        await transport.aclose()
    deltas = [choice["delta"] for event in events[:-1] for choice in json.loads(event.data)["choices"]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Ente 🦆 é\u2028"


async def test_connections_are_used_again(carrier: str) -> None:
    with FaultServer() as server:
        transport = Transport(carrier=carrier)
        for content in [BODY, STREAM, BODY]:
            await post(transport, server, content)
        reply = await open_stream(transport, server)
        await reply.read()
        await post(transport, server)
        await transport.aclose()
        assert {call.connection for call in server.calls} == {1}


async def test_large_body_is_sent_whole_with_its_length(carrier: str) -> None:
    content = json.dumps({"model": "m-1", "image": "x" * 3_000_000}).encode()
    with FaultServer() as server:
        transport = Transport(carrier=carrier)
        await post(transport, server, content)
        await transport.aclose()
        assert server.calls[0].body == content


@pytest.mark.parametrize("way", [*CARRIERS, "injected"])
async def test_redirect_is_handed_back_not_followed(way: str) -> None:
    client = httpx.AsyncClient(follow_redirects=True)
    with FaultServer() as elsewhere, FaultServer(faults.Redirect(elsewhere.base_url)) as server:
        transport = Transport(http_client=client) if way == "injected" else Transport(carrier=way)
        reply = await transport.post(url(server), headers=HEADERS, content=BODY)
        await transport.aclose()
        await client.aclose()
        assert reply.status == 307
        assert elsewhere.calls == []
        assert len(server.calls) == 1


@pytest.mark.parametrize("way", [*CARRIERS, "injected"])
async def test_cookies_of_one_call_never_reach_the_next(way: str) -> None:
    client = httpx.AsyncClient()
    with FaultServer(faults.Raw(200, {"set-cookie": "tenant=a; Path=/"}, b"")) as server:
        transport = Transport(http_client=client) if way == "injected" else Transport(carrier=way)
        for _ in range(2):  # by name: aiohttp's own jar keeps none of a bare address
            await transport.post(f"http://localhost:{server.port}/", headers=HEADERS, content=BODY)
        await transport.aclose()
        await client.aclose()
        assert ["cookie" in call.headers for call in server.calls] == [False, False]


async def test_get_on_a_connection_that_proves_dead_is_not_repeated(carrier: str) -> None:
    with FaultServer(faults.Ok(), faults.HangUp(), faults.Ok()) as server:
        transport = Transport(carrier=carrier)
        await transport.get(url(server), headers={})
        with pytest.raises(TransportError):
            await transport.get(url(server), headers={})
        await transport.aclose()
        assert len(server.calls) == 2


async def test_proxy_of_the_environment_is_used(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer() as proxy, FaultServer() as direct:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        transport = Transport(carrier=carrier)
        await transport.post("http://api.example.com/v1/chat/completions", headers=HEADERS, content=BODY)
        await post(transport, direct)
        await transport.aclose()
        assert [call.path for call in proxy.calls] == ["http://api.example.com/v1/chat/completions"]
        assert [call.path for call in direct.calls] == ["/v1/chat/completions"]


async def test_servers_of_this_machine_are_asked_without_the_proxy(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local model's prompts, and its key, once went to the proxy of the environment."""
    with FaultServer() as proxy, FaultServer() as direct:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.base_url)
        transport = Transport(carrier=carrier)
        for host in ("127.0.0.1", "localhost"):
            address = f"http://{host}:{direct.port}/v1/chat/completions"
            await transport.post(address, headers=HEADERS, content=BODY)
        await transport.aclose()
        assert (len(direct.calls), proxy.calls) == (2, [])


async def test_https_goes_through_the_proxy_as_a_tunnel(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FaultServer(faults.Status(502)) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.base_url)
        transport = Transport(carrier=carrier)
        with pytest.raises(TransportError) as caught:
            await transport.post("https://api.example.com/", headers={"authorization": "Bearer k"}, content=BODY)
        await transport.aclose()
        [call] = proxy.calls
    assert (call.method, call.path) == ("CONNECT", "api.example.com:443")
    assert "authorization" not in call.headers
    assert (caught.value.phase, caught.value.kind) == ("not_sent", "connect")


async def test_injected_client_is_used_with_its_headers_and_left_open() -> None:
    seen: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    client = httpx.AsyncClient(transport=httpx.MockTransport(handle), headers={"X-Team": "ducks"})
    transport = Transport(http_client=client)
    reply = await transport.post("https://api.example.com/v1", headers=HEADERS, content=BODY)
    await transport.aclose()
    assert reply.body == b'{"ok":true}'
    assert (seen[0].headers["x-team"], seen[0].content) == ("ducks", BODY)
    assert not client.is_closed
    await client.aclose()


async def test_injected_transport_is_used() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one "
        yield b""
        yield b"two"

    transport = Transport(transport=httpx.MockTransport(lambda _: httpx.Response(200, content=pieces())))
    reply = await transport.stream("https://api.example.com/v1", headers=HEADERS, content=BODY)
    assert [data async for data in reply] == [b"one ", b"two"]
    await transport.aclose()


async def test_compressed_body_is_decoded(carrier: str) -> None:
    with FaultServer(faults.Gzip("Quack. " * 10_000)) as server:
        transport = Transport(carrier=carrier)
        answer = json.loads(await post(transport, server))
        reply = await open_stream(transport, server)
        streamed = await reply.read()
        await transport.aclose()
    assert answer["choices"][0]["message"]["content"] == "Quack. " * 10_000
    assert streamed.endswith(b"data: [DONE]\n\n")


async def test_bomb_is_stopped_at_the_bound_of_decoded_bytes(carrier: str, peak: Callable[[], float]) -> None:
    with FaultServer(faults.Gzip(bomb=50_000_000)) as server:
        transport = Transport(carrier=carrier, max_body=1_000_000)
        with pytest.raises(TransportError, match="1,000,000 bytes") as caught:
            await post(transport, server)
        await transport.aclose()
    assert caught.value.kind == "too_large"
    assert peak() < 10e6


async def test_endless_body_is_stopped_with_memory_flat(carrier: str, peak: Callable[[], float]) -> None:
    with FaultServer(faults.Endless()) as server:
        transport = Transport(carrier=carrier, max_body=3_000_000, max_stream=20_000_000)
        with pytest.raises(TransportError) as caught:
            await post(transport, server)
        reply = await open_stream(transport, server)
        with pytest.raises(TransportError) as of_stream:
            await _drain(reply)
        await server.until(lambda calls: len(calls) == 2 and all(call.disconnected_at for call in calls))
        await transport.aclose()
    assert (caught.value.kind, of_stream.value.kind) == ("too_large", "too_large")
    assert peak() < 15e6


async def test_slow_reader_slows_the_server(carrier: str) -> None:
    with FaultServer(faults.Endless()) as server:
        transport = Transport(carrier=carrier)
        reply = await open_stream(transport, server)
        await anext(aiter(reply))
        sent, looks = 0, 0
        while looks < 20:  # without any more: the server can send nothing until somebody reads
            await asyncio.sleep(0.01)
            looks = looks + 1 if sent == server.calls[0].bytes_sent else 0
            sent = server.calls[0].bytes_sent
        await reply.aclose()
        await transport.aclose()
    assert 65_000 < sent < 16e6


async def test_error_body_is_read_up_to_a_limit(carrier: str) -> None:
    with FaultServer(faults.Raw(500, {}, b"x" * 100_000)) as server:
        transport = Transport(carrier=carrier)
        reply = await open_stream(transport, server)
        assert await reply.read(1000) == b"x" * 1000
        await transport.aclose()


async def test_error_whose_body_is_cut_still_tells_its_status(carrier: str) -> None:
    body = gzip.compress(b"too many requests")[:-9]
    headers = {"content-encoding": "gzip", "retry-after": "7"}
    with FaultServer(faults.Raw(429, headers, body)) as server:
        transport = Transport(carrier=carrier)
        reply = await transport.post(url(server), headers=HEADERS, content=BODY)
        await transport.aclose()
    assert (reply.status, reply.headers["retry-after"]) == (429, "7")


@pytest.mark.parametrize(
    "fault", [faults.Silence(), faults.Stall(after=0), faults.Stall(after=2), faults.Endless()], ids=repr
)
async def test_cancelled_call_closes_its_socket_at_once(carrier: str, fault: faults.Silence) -> None:
    async def left_behind() -> float:
        transport, number = Transport(carrier=carrier), len(server.calls)
        task = asyncio.create_task(_read_stream(transport, server))
        await server.until(
            lambda calls: len(calls) > number and (calls[number].bytes_sent or isinstance(fault, faults.Silence))
        )
        left = time.monotonic()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await server.until(lambda calls: calls[number].disconnected_at)
        await transport.aclose()
        return (server.calls[number].disconnected_at or 0) - left

    with FaultServer(fault) as server:
        assert await _at_once(left_behind)


async def test_cancelled_upload_does_not_linger_until_the_server_reads(carrier: str) -> None:
    size = 20_000_000
    with socket.create_server(("127.0.0.1", 0)) as listening:
        transport = Transport(carrier=carrier)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        task = asyncio.create_task(transport.post(address, headers={}, content=bytes(size)))
        peer, _ = await asyncio.to_thread(listening.accept)
        with peer:
            await asyncio.to_thread(peer.recv, 10)
            task.cancel()
            await asyncio.wait([task])
            peer.settimeout(30)
            assert await asyncio.to_thread(_read_to_the_end, peer) < size
        await transport.aclose()


async def test_closed_stream_closes_its_socket_at_once_and_twice_is_no_mistake(carrier: str) -> None:
    async def left_behind() -> float:
        transport, number = Transport(carrier=carrier), len(server.calls)
        async with await open_stream(transport, server) as reply:
            await anext(aiter(reply))
            left = time.monotonic()
        await reply.aclose()
        await server.until(lambda calls: calls[number].disconnected_at)
        assert [data async for data in reply] == []
        await transport.aclose()
        return (server.calls[number].disconnected_at or 0) - left

    with FaultServer(faults.Stall()) as server:
        assert await _at_once(left_behind)


async def test_closing_a_stream_late_does_not_hurt_the_next_call_on_its_connection() -> None:
    """aiohttp hands a connection on when the last byte is in, which may be before the reader asked for the end."""
    with FaultServer(faults.Ok(), faults.Hold(faults.Ok())) as server:
        transport = Transport()
        reply = await open_stream(transport, server)
        async for data in reply:
            if b"[DONE]" in data:
                break
        await server.until(lambda calls: calls[0].finished_at)
        next_call = asyncio.create_task(post(transport, server))
        await server.until(lambda calls: len(calls) == 2)
        await reply.aclose()
        server.release()
        assert b"Hello" in await next_call
        assert [call.connection for call in server.calls] == [1, 1]
        await transport.aclose()


async def test_calls_beyond_the_pool_wait_and_another_host_does_not() -> None:
    with FaultServer(faults.Hold()) as server, FaultServer() as other:
        transport = Transport(pool_size=2)
        calls = [asyncio.create_task(post(transport, server)) for _ in range(4)]
        await server.until(lambda calls: len(calls) == 2)
        assert b"Hello" in await post(transport, other)
        assert len(server.calls) == 2
        server.release()
        await asyncio.gather(*calls)
        await transport.aclose()
        assert len({call.connection for call in server.calls}) == 2


@pytest.mark.parametrize("end", ["read", "close", "cancel", "fail"])
async def test_place_in_the_pool_is_given_back_however_a_call_ends(carrier: str, end: str) -> None:
    faulty: dict[str, Behaviour] = {
        "read": faults.Ok(),
        "close": faults.Stall(),
        "cancel": faults.Silence(),
        "fail": faults.HangUp(),
    }
    with FaultServer(faulty[end], faulty[end], faults.Ok()) as server:
        transport = Transport(carrier=carrier, pool_size=1)
        for number in (1, 2):
            task = asyncio.create_task(_read_stream(transport, server, stop=end == "close"))
            if end == "cancel":
                await server.until(partial(_has, number))
                task.cancel()
            await asyncio.wait([task])
        async with asyncio.timeout(30):
            assert b"Hello" in await post(transport, server)
        await transport.aclose()


async def test_closing_the_transport_ends_calls_in_flight_and_refuses_new_ones(carrier: str) -> None:
    with FaultServer(faults.Stall()) as server:
        transport = Transport(carrier=carrier)
        reply = await open_stream(transport, server)
        await anext(aiter(reply))
        await transport.aclose()
        await transport.aclose()
        await server.until(lambda calls: calls[0].disconnected_at)
        with pytest.raises(TransportError) as caught:
            await post(transport, server)
        assert caught.value.phase == "not_sent"
        await reply.aclose()


def test_one_transport_serves_one_loop_after_the_other(carrier: str) -> None:
    with FaultServer() as server:
        transport = Transport(carrier=carrier)
        with asyncio.Runner() as one, asyncio.Runner() as other:
            assert one.run(post(transport, server)) == other.run(post(transport, server))
            other.run(transport.aclose())


@pytest.mark.parametrize("seems", ["is_running", "is_closed"])
def test_a_loop_that_ends_just_when_it_is_to_close_is_left_to_its_end(
    carrier: str, seems: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A coroutine was made for it that nobody ever awaited."""
    with FaultServer() as server:
        transport = Transport(carrier=carrier)
        with asyncio.Runner() as runner:
            runner.run(post(transport, server))
            loop = runner.get_loop()
        monkeypatch.setattr(loop, seems, lambda: seems == "is_running")  # as it looked a moment before
        asyncio.run(transport.aclose())
        gc.collect()


def test_a_blocked_loop_closes_its_connections_when_it_comes_back(
    carrier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rubberduck.transport, "CLOSING_S", 0.01)
    back = threading.Event()

    async def blocks() -> None:
        reply = await open_stream(transport, server)
        is_open.set()
        back.wait(60)
        await server.until(lambda calls: calls[0].disconnected_at)
        await reply.aclose()

    with FaultServer(faults.Stall(after=1)) as server:
        transport, is_open = Transport(carrier=carrier), threading.Event()
        with ThreadPoolExecutor() as pool:
            blocked = pool.submit(asyncio.run, blocks())
            assert is_open.wait(60)
            asyncio.run(transport.aclose())
            back.set()
            blocked.result(60)


async def test_nothing_is_logged(carrier: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), FaultServer(faults.Ok(), faults.HangUp()) as server:
        transport = Transport(carrier=carrier)
        await post(transport, server)
        with pytest.raises(TransportError):
            await post(transport, server)
        await transport.aclose()
    assert caplog.messages == []


def test_unknown_carrier_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUBBERDUCK_HTTP", "pigeon")
    with pytest.raises(ValueError, match=r"pigeon.*aiohttp, httpx"):
        Transport()


async def _at_once(left_behind: Callable[[], Awaitable[float]]) -> bool:
    """Whether a connection is seen to be gone within 0.1 s, at one of several times: the machine may be busy."""
    for _ in range(20):
        if await left_behind() < 0.1:
            return True
    return False


async def _read_stream(transport: Transport, server: FaultServer, *, stop: bool = False) -> None:
    async with await open_stream(transport, server) as reply:
        async for _ in reply:
            if stop:
                break


def _has(number: int, calls: list[Call]) -> bool:
    return len(calls) == number


async def _drain(reply: StreamReply) -> None:
    async for _ in reply:
        pass


def _read_to_the_end(peer: socket.socket) -> int:
    """How many bytes came before the other side was gone; a timeout if it is not."""
    count = 0
    with suppress(ConnectionResetError):
        while data := peer.recv(1_000_000):
            count += len(data)
    return count
