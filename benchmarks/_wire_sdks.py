"""The official SDKs, fed from memory: what they make of a stream's pieces, and when a request reaches the transport."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anthropic
import httpx
import httpx2
import ollama
import openai

from benchmarks._wire_streams import Stream

HI = [{"role": "user", "content": "Hi"}]


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that is there already, in pieces; for httpx2, on which openai and anthropic are built."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


class OldPieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """The same for httpx, on which ollama is built."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


def _serving(stream: Stream) -> httpx2.MockTransport:
    headers = {"content-type": stream.content_type}
    return httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, stream=Pieces(stream.pieces)))


def _old_serving(stream: Stream) -> httpx.MockTransport:
    headers = {"content-type": stream.content_type}
    return httpx.MockTransport(lambda _: httpx.Response(200, headers=headers, stream=OldPieces(stream.pieces)))


def reading(stream: Stream) -> Callable[[], int]:
    """A function that reads the stream once with the SDK's plain client, and says how many chunks it gave."""
    if stream.module == "ollama":
        old = ollama.Client(transport=_old_serving(stream))
        return lambda: sum(1 for _ in old.chat("m", HI, stream=True))
    client = httpx2.Client(transport=_serving(stream))
    if stream.module == "anthropic":
        claude = anthropic.Anthropic(api_key="k", http_client=client)
        return lambda: sum(1 for _ in claude.messages.create(model="m", max_tokens=9, messages=HI, stream=True))
    gpt: Any = openai.OpenAI(api_key="k", http_client=client)
    if stream.module == "openai_responses":
        return lambda: sum(1 for _ in gpt.responses.create(model="m", input=HI, stream=True))
    return lambda: sum(1 for _ in gpt.chat.completions.create(model="m", messages=HI, stream=True))


def reading_async(stream: Stream) -> Callable[[], int]:
    """The same with the SDK's asyncio client, on a loop of its own."""

    async def story() -> int:
        chunks = await _open(stream)
        return sum([1 async for _ in chunks])

    return lambda: asyncio.run(story())


async def _open(stream: Stream) -> Any:
    if stream.module == "ollama":
        return await ollama.AsyncClient(transport=_old_serving(stream)).chat("m", HI, stream=True)
    client = httpx2.AsyncClient(transport=_serving(stream))
    if stream.module == "anthropic":
        claude = anthropic.AsyncAnthropic(api_key="k", http_client=client)
        return await claude.messages.create(model="m", max_tokens=9, messages=HI, stream=True)
    gpt: Any = openai.AsyncOpenAI(api_key="k", http_client=client)
    if stream.module == "openai_responses":
        return await gpt.responses.create(model="m", input=HI, stream=True)
    return await gpt.chat.completions.create(model="m", messages=HI, stream=True)


class Clock:
    """A transport that notes when a request reaches it, whole, and refuses it."""

    def __init__(self) -> None:
        self.at = 0.0

    def new(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        self.at = time.process_time()
        return httpx2.Response(400, json={"error": {"message": "measured"}})

    def old(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.at = time.process_time()
        return httpx.Response(400, json={"error": "measured"})


def asking(module: str, kwargs: dict[str, Any]) -> Callable[[], float]:
    """A function that asks once and gives the CPU seconds until the request reached the transport."""
    clock = Clock()
    if module == "ollama":
        ask: Callable[..., Any] = ollama.Client(transport=httpx.MockTransport(clock.old)).chat
    else:
        client = httpx2.Client(transport=httpx2.MockTransport(clock.new))
        if module == "anthropic":
            ask = anthropic.Anthropic(api_key="k", max_retries=0, http_client=client).messages.create
        else:
            gpt = openai.OpenAI(api_key="k", max_retries=0, http_client=client)
            ask = gpt.responses.create if module == "openai_responses" else gpt.chat.completions.create

    def once() -> float:
        began = time.process_time()
        try:
            ask(**kwargs)
        except (openai.APIStatusError, anthropic.APIStatusError, ollama.ResponseError):
            return clock.at - began
        raise AssertionError("the transport refuses")

    return once
