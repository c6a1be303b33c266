"""What one call costs in each way to do HTTP, in microseconds, alone and 64 at a time.

    python -m benchmarks.transport [--calls 2000] [--rounds 3]

All ways meet the same upstream in turn, round after round; the best round of each is shown, since a shared
machine only ever makes things slower. Read the figures as ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
from httpx_aiohttp import AiohttpTransport, HttpxAiohttpClient

from benchmarks._upstream import running
from rubberduck.core.sse import SSEDecoder
from rubberduck.transport import Transport

Call = Callable[[], Awaitable[object]]
Way = Callable[[str], AbstractAsyncContextManager[Call]]

BODY = b'{"model":"bench","messages":[{"role":"user","content":"Hi"}]}'
STREAM = BODY[:-1] + b',"stream":true}'
HEADERS = {"content-type": "application/json", "authorization": "Bearer bench"}


@asynccontextmanager
async def bare_carrier(url: str) -> AsyncIterator[Call]:
    async with AiohttpTransport() as transport:

        async def call() -> bytes:
            request = httpx.Request("POST", url, headers=HEADERS, content=BODY)
            response = await transport.handle_async_request(request)
            return await response.aread()

        yield call


@asynccontextmanager
async def client_over_aiohttp(url: str) -> AsyncIterator[Call]:
    async with HttpxAiohttpClient() as client:
        yield lambda: client.post(url, headers=HEADERS, content=BODY)


@asynccontextmanager
async def client_of_httpx(url: str) -> AsyncIterator[Call]:
    async with httpx.AsyncClient() as client:
        yield lambda: client.post(url, headers=HEADERS, content=BODY)


@asynccontextmanager
async def our_transport(url: str) -> AsyncIterator[Call]:
    transport = Transport(pool_size=100)
    yield lambda: transport.post(url, headers=HEADERS, content=BODY)
    await transport.aclose()


@asynccontextmanager
async def our_stream(url: str) -> AsyncIterator[Call]:
    transport = Transport(pool_size=100)

    async def call() -> int:
        decoder = SSEDecoder()
        reply = await transport.stream(url, headers=HEADERS, content=STREAM)
        return sum([len(decoder.feed(data)) async for data in reply])

    yield call
    await transport.aclose()


WAYS: dict[str, Way] = {
    "httpx-aiohttp, handle_async_request": bare_carrier,
    "httpx.AsyncClient over aiohttp": client_over_aiohttp,
    "httpx.AsyncClient, own pool": client_of_httpx,
    "rubberduck.Transport.post": our_transport,
    "rubberduck.Transport.stream, 24 events": our_stream,
}


async def cost(way: Way, url: str, calls: int, at_once: int) -> float:
    """Microseconds per call."""
    async with way(url) as call:
        left = iter(range(calls))

        async def work() -> None:
            for _ in left:
                await call()

        await asyncio.gather(*(call() for _ in range(at_once)))
        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(at_once)))
        return (time.perf_counter() - began) / calls * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    best: dict[tuple[str, int], float] = {}
    with running() as base:
        for _ in range(options.rounds):
            for name, way in WAYS.items():
                for at_once in (1, 64):
                    took = asyncio.run(cost(way, f"{base}/v1/chat/completions", options.calls, at_once))
                    best[name, at_once] = min(took, best.get((name, at_once), took))
    print(f"{'us per call':40} {'1':>8} {'64 at a time':>14}")
    for name in WAYS:
        print(f"{name:40} {best[name, 1]:8.0f} {best[name, 64]:14.0f}")


if __name__ == "__main__":
    main()
