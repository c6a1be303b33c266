"""Fetches from one address under one name, for what strangers name: nothing in it can lead anywhere else.

The address was looked up and judged before; a second look-up could give another. TLS is checked against the name.
No redirect, proxy, cookie or kept connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx

from rubberduck.transport import Reply
from rubberduck.transport_failures import TEXTS, TransportError, meaning


async def fetch_pinned(
    url: str,
    address: str,
    *,
    headers: Mapping[str, str],
    most_bytes: int,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Reply:
    """The answer to a GET of an https URL, asked at this address; of its body at most so many bytes, as they come.

    Raises:
        TransportError: no whole answer came, or a larger one.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        target = httpx.URL(scheme="https", host=address, path=parts.path or "/", query=parts.query.encode() or None)
        named = {"accept-encoding": "identity", **headers, "host": host}
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, transport=transport) as client,
            client.stream("GET", target, headers=named, extensions={"sni_hostname": host}) as reply,
        ):
            return Reply(reply.status_code, reply.headers, await _read(reply, most_bytes))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        phase, kind = meaning(error) or ("uncertain", "malformed")
        raise TransportError(TEXTS.get(kind, kind), phase=phase, kind=kind) from error


async def _read(reply: httpx.Response, most_bytes: int) -> bytes:
    body = bytearray()
    if reply.headers.get("content-encoding", "identity") != "identity":
        raise TransportError("the answer is packed, which was not asked for", phase="after_output", kind="malformed")
    async for piece in reply.aiter_bytes():
        body += piece
        if len(body) > most_bytes:
            raise TransportError(f"more than {most_bytes:,} bytes", phase="after_output", kind="too_large")
    return bytes(body)
