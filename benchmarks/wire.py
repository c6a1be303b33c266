"""What a chunk of a stream and a request cost on their way between bytes and values, beside the official SDKs.

    ./duck bench wire [--deltas 1000] [--rounds 9]

Both read the same bytes from memory, one event a piece. First the reading alone: the SDK's plain client over a
transport in memory, and our decoder fed the same pieces. Then all of it: the SDK's asyncio client, and
`provider.stream`, both over an asyncio transport in memory. A request is measured from the dict that a user writes to
the moment when its bytes reach the transport. Figures are medians of rounds that take turns, in microseconds of CPU
time: neighbours of a shared machine do not count. The target is held against the SDK of OpenAI, whose format most
servers speak.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx

from benchmarks import _wire_sdks as sdks
from benchmarks._wire_requests import OURS, THEIRS
from benchmarks._wire_streams import Stream, streams
from rubberduck.config import BUILT_IN_MODULES, ProviderConfig
from rubberduck.errors import RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider
from rubberduck.types import Request

TARGET = 5.0
"""How many times faster than OpenAI's SDK our decoder is to be."""
REQUEST = Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True})


class Pieces(httpx.AsyncByteStream):
    """A body that is there already, in pieces."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def provider_of(module: str, transport: httpx.AsyncBaseTransport) -> HTTPProvider:
    config = ProviderConfig(
        name="bench", module=module, base_url="http://127.0.0.1:1", api_keys=("k",), transport=transport
    )
    provider = resolve(module).init(config)
    assert isinstance(provider, HTTPProvider)
    return provider


# --- streams


def our_decoder(stream: Stream) -> Callable[[], int]:
    provider = provider_of(stream.module, httpx.MockTransport(lambda _: httpx.Response(500)))

    def once() -> int:
        decoder = provider.stream_decoder()
        count = 0
        for piece in stream.pieces:
            count += len(decoder.feed(piece))
        return count + (0 if decoder.done else len(decoder.end()))

    return once


def our_stream(stream: Stream) -> Callable[[], int]:
    headers = {"content-type": stream.content_type}

    async def story() -> int:
        answer = httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=Pieces(stream.pieces)))
        provider = provider_of(stream.module, answer)
        count = sum([1 async for _ in provider.stream(REQUEST)])
        await provider.aclose()
        return count

    return lambda: asyncio.run(story())


WAYS: dict[str, Callable[[Stream], Callable[[], int]]] = {
    "SDK": sdks.reading,
    "ours": our_decoder,
    "SDK, asyncio": sdks.reading_async,
    "ours, whole": our_stream,
}


def time_streams(deltas: int, rounds: int) -> None:
    print(f"{'us per chunk':24} {'SDK':>8} {'decoder':>8} {'times':>6}   {'SDK':>8} {'stream':>8} {'times':>6}")
    for stream in streams(deltas):
        if stream.module not in BUILT_IN_MODULES:
            continue
        ways = {name: way(stream) for name, way in WAYS.items()}
        for once in ways.values():
            assert once() >= stream.deltas
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, once in ways.items():
                took[name].append(seconds(once) / stream.deltas * 1e6)
        sdk, ours, whole_sdk, whole = (statistics.median(took[name]) for name in WAYS)
        is_missed = stream.module.startswith("openai") and sdk / ours < TARGET
        verdict = f"   below {TARGET:g}" if is_missed else ""
        print(
            f"{stream.name:24} {sdk:8.2f} {ours:8.2f} {sdk / ours:6.1f}   "
            f"{whole_sdk:8.2f} {whole:8.2f} {whole_sdk / whole:6.1f}{verdict}"
        )


def seconds(once: Callable[[], object]) -> float:
    """How long it takes, with the collector's own rounds in it: they are part of what many objects cost."""
    gc.collect()
    began = time.process_time()
    once()
    return time.process_time() - began


# --- requests


def our_asking(module: str, asked: dict[str, Any]) -> Callable[[], float]:
    clock = sdks.Clock()
    loop = asyncio.new_event_loop()
    provider = provider_of(module, httpx.MockTransport(clock.old))

    async def story() -> float:
        began = time.process_time()
        try:
            await provider.complete(Request.parse(asked))
        except RubberDuckError:
            return clock.at - began
        raise AssertionError("the transport refuses")

    return lambda: loop.run_until_complete(story())


def our_encoding(module: str, asked: dict[str, Any]) -> Callable[[], float]:
    provider = provider_of(module, httpx.MockTransport(lambda _: httpx.Response(500)))
    request = Request.parse(asked)

    def once() -> float:
        began = time.process_time()
        provider.encode(request)
        return time.process_time() - began

    return once


def time_requests(times: int, rounds: int) -> None:
    print(f"\n{'us per request':24} {'SDK':>8} {'ours':>8} {'times':>6}   {'encode alone':>12}")
    for module, kwargs in THEIRS.items():
        if module not in BUILT_IN_MODULES:
            continue
        ways = [sdks.asking(module, kwargs), our_asking(module, OURS), our_encoding(module, OURS)]
        took: list[list[float]] = [[], [], []]
        for _ in range(rounds):
            for number, once in enumerate(ways):
                took[number].append(statistics.median(once() for _ in range(times)) * 1e6)
        sdk, ours, alone = map(statistics.median, took)
        print(f"{module:24} {sdk:8.0f} {ours:8.0f} {sdk / ours:6.1f}   {alone:12.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deltas", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    time_streams(options.deltas, options.rounds)
    time_requests(50, options.rounds)


if __name__ == "__main__":
    main()
