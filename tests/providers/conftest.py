"""Providers whose server is a function of the test's own, and streams cut into pieces of any size."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

import httpx
import pytest

from rubberduck.config import ProviderConfig
from rubberduck.providers import resolve
from rubberduck.providers.base import Provider
from rubberduck.types import Chunk, Request

T = TypeVar("T")


class Pieces(httpx.AsyncByteStream):
    """A body that arrives in pieces, and may then fail."""

    def __init__(self, body: bytes, size: int, failure: Exception | None = None) -> None:
        self.body, self.size, self.failure = body, size, failure
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), self.size):
            yield self.body[start : start + self.size]
        if self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        self.closed = True


class Vendor:
    """A vendor's server: answers each request with the next answer, and remembers what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def sent(self) -> dict[str, Any]:
        return json.loads(self.requests[-1].content)


def make(module: str, vendor: Vendor | None = None, **options: Any) -> Provider:
    options.setdefault("name", module)
    if vendor is not None:
        options["http_client"] = httpx.AsyncClient(transport=httpx.MockTransport(vendor))
        options.setdefault("api_keys", ["test-key"])
    return resolve(module).init(ProviderConfig(module=module, **options))


def run(story: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(story, 60))


async def gather(chunks: AsyncIterator[Chunk]) -> list[Chunk]:
    return [chunk async for chunk in chunks]


async def keep(chunks: AsyncIterator[Chunk], into: list[Chunk]) -> None:
    """As `gather`, for streams that break: what came before is kept."""
    async for chunk in chunks:
        into.append(chunk)  # noqa: PERF401  a comprehension would lose what came before an error


def ask(model: str = "gpt-4", **fields: Any) -> Request:
    fields.setdefault("messages", [{"role": "user", "content": "Hi"}])
    return Request.parse({"model": model, **fields})


def sse(*events: Any, done: bool = True) -> bytes:
    """Data-only events, as OpenAI sends them."""
    lines = [f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n"] if done else lines).encode()


def named(*events: dict[str, Any]) -> bytes:
    """Events with their type beside them, as Anthropic sends them."""
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()


# Test modules cannot import this file (they have no package), so its parts reach them as fixtures of one name each.


@pytest.fixture(name="make")
def _make() -> object:
    return make


@pytest.fixture(name="vendor")
def _vendor() -> object:
    return Vendor


@pytest.fixture(name="run")
def _run() -> object:
    return run


@pytest.fixture(name="gather")
def _gather() -> object:
    return gather


@pytest.fixture(name="ask")
def _ask() -> object:
    return ask


@pytest.fixture(name="sse")
def _sse() -> object:
    return sse


@pytest.fixture(name="named")
def _named() -> object:
    return named


@pytest.fixture(name="pieces")
def _pieces() -> object:
    return Pieces


@pytest.fixture(name="keep")
def _keep() -> object:
    return keep
