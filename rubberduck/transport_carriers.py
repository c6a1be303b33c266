"""The ways to put a request on the wire: over aiohttp, over httpx's own pool, or over what was injected.

A sender belongs to one event loop. It works at httpx's transport level, below `AsyncClient`, whose redirects,
cookies and hooks are not wanted and cost as much as the transport itself.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import httpx

CARRIERS = ("aiohttp", "httpx")
NO_PROXY: Mapping[str, None] = dict.fromkeys(("all://127.0.0.1", "all://localhost", "all://[::1]"))
"""This machine's own servers are asked directly, whatever proxy is set: prompts and keys must not leave it."""
HEADERS = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "rubberduck"}


class Traveller(Protocol):
    """A request that wants to know when it leaves, and over which connection."""

    def leaves_by(self, connection: Any) -> None: ...


CURRENT: ContextVar[Traveller | None] = ContextVar("rubberduck_exchange", default=None)


@dataclass(frozen=True, slots=True)
class Sender:
    """A way to send requests from one event loop. `headers` are sent unless the caller gives others."""

    send: Callable[[httpx.Request], Awaitable[httpx.Response]]
    aclose: Callable[[], Coroutine[Any, Any, None]]
    headers: Mapping[str, str]
    can_tell_sent: bool = False


def senders(
    carrier: str | None,
    pool_size: int,
    pool_idle: float,
    client: httpx.AsyncClient | None,
    transport: httpx.AsyncBaseTransport | None,
) -> Callable[[], Sender]:
    if client is not None:
        return lambda: _client_sender(client)
    if transport is not None:
        return lambda: Sender(transport.handle_async_request, _leave_open, HEADERS)
    carrier = carrier or os.environ.get("RUBBERDUCK_HTTP") or CARRIERS[0]
    if carrier not in CARRIERS:
        raise ValueError(f"RUBBERDUCK_HTTP: {carrier!r} is no known carrier; known are {', '.join(CARRIERS)}")
    certificates = _certificates(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    if carrier == "aiohttp":
        return _aiohttp_senders(pool_idle, certificates)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=pool_size, keepalive_expiry=pool_idle)

    def client_of_httpx() -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=certificates, limits=limits, mounts=NO_PROXY)

    return lambda: _own_sender(client_of_httpx(), can_tell_sent=False)


@lru_cache(maxsize=8)
def _certificates(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Whom to trust, as the environment says, which takes 20 ms to read: once for all providers of a process."""
    return httpx.create_ssl_context()


def _own_sender(client: httpx.AsyncClient, *, can_tell_sent: bool) -> Sender:
    async def send(request: httpx.Request) -> httpx.Response:
        # Private, but the only way to httpx's own reading of the proxy variables below its client.
        return await client._transport_for_url(request.url).handle_async_request(request)

    return Sender(send, client.aclose, HEADERS, can_tell_sent)


def _client_sender(client: httpx.AsyncClient) -> Sender:
    """Someone else's client, with its headers, auth and hooks. Its cookies stay out: tenants would share them."""

    async def send(request: httpx.Request) -> httpx.Response:
        return await client.send(request, stream=True, follow_redirects=False)

    headers = {**HEADERS, **client.headers, "accept-encoding": HEADERS["accept-encoding"]}
    return Sender(send, _leave_open, headers)


async def _leave_open() -> None:
    pass


def _aiohttp_senders(pool_idle: float, certificates: ssl.SSLContext) -> Callable[[], Sender]:
    import aiohttp  # here, for it takes long to import and an injected transport does without it
    from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient

    class Connector(aiohttp.TCPConnector):
        async def connect(self, *args: Any, **kwargs: Any) -> aiohttp.connector.Connection:
            connection = await super().connect(*args, **kwargs)
            if (exchange := CURRENT.get()) is not None:
                exchange.leaves_by(connection)
            return connection

    def session() -> aiohttp.ClientSession:
        connector = Connector(limit=0, keepalive_timeout=pool_idle, ssl=certificates)
        session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        session._retry_connection = False  # else it repeats a GET by itself on a connection that proves dead
        return session

    class Client(HttpxAiohttpClient):  # a client, not `transport=`, with which httpx would ignore HTTPS_PROXY
        def _init_transport(self, *_: Any, **__: Any) -> httpx.AsyncBaseTransport:
            return AiohttpTransport(verify=certificates, client=session)

        def _init_proxy_transport(self, proxy: httpx.Proxy, *_: Any, **__: Any) -> httpx.AsyncBaseTransport:
            return AiohttpTransport(verify=certificates, client=session, proxy=proxy)

    return lambda: _own_sender(Client(mounts=NO_PROXY), can_tell_sent=True)
