"""Answers that are too large, too slow or never over: each ends by a configured bound, and lets its socket go."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from rubberduck import errors
from rubberduck.config import Config, ProviderConfig
from rubberduck.errors import ConfigError
from rubberduck.providers import resolve
from rubberduck.providers.base import Provider
from rubberduck.testing import Call, FaultServer, Reply, faults
from rubberduck.types import Request

KIB = 1024
LIMITS = {"body": "64KiB", "stream": "256KiB", "event": "32KiB", "error": "16KiB"}
EVENTS = {"content-type": "text/event-stream"}
JSON = {"content-type": "application/json"}
CHUNK = {"id": "c", "choices": [{"index": 0, "delta": {"content": "Quack"}, "finish_reason": None}]}
END = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
STREAM = b"".join(b"data: %s\n\n" % json.dumps(each).encode() for each in (CHUNK, END)) + b"data: [DONE]\n\n"
MESSAGE = {"role": "assistant", "content": "Quack"}
ANSWER = json.dumps({"id": "c", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}).encode()


@pytest.fixture(params=["aiohttp", "httpx"], autouse=True)
def carrier(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RUBBERDUCK_HTTP", request.param)
    return str(request.param)


@dataclass(frozen=True, slots=True)
class Forever:
    """`first`, then `block` again and again, as fast as it is read; with a `length` that was promised, or none."""

    block: bytes
    first: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: EVENTS)
    status: int = 200
    length: int | None = None
    pause: float = 0

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(self.status, self.headers, length=self.length)
        await reply.body(self.first)
        while True:
            await reply.body(self.block)
            await reply.wait(self.pause)


@dataclass(frozen=True, slots=True)
class Framed:
    """A body with the length that is claimed for it, and then the end of the line."""

    body: bytes
    length: int
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, self.headers, length=self.length)
        await reply.body(self.body)
        reply.hang_up()


def packed(encoding: str, body: bytes, headers: Mapping[str, str] = JSON) -> faults.Raw:
    return faults.Raw(200, {**headers, "content-encoding": encoding}, body)


def bare(body: bytes) -> bytes:
    squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return squeeze.compress(body) + squeeze.flush()


@asynccontextmanager
async def provider_of(server: FaultServer, module: str = "openai", **options: Any) -> AsyncIterator[Provider]:
    options = {"answer_limits": LIMITS, "timeout": "50s", **options}
    config = ProviderConfig(name="vendor", module=module, base_url=server.base_url, api_keys=("k",), **options)
    provider = resolve(module).init(config)
    yield provider
    await provider.aclose()


async def outcome(provider: Provider, *, streamed: bool) -> Any:
    """The text of the answer, or the error in its place."""
    request = Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
    try:
        if streamed:
            return "".join([chunk.delta.content async for chunk in provider.stream(request)])
        return (await provider.complete(request)).text
    except errors.RubberDuckError as error:
        return error


async def told(behaviour: Any, *, streamed: bool, **options: Any) -> Any:
    """What comes of an answer. Of one that never ends, the connection must be gone with the call."""
    with FaultServer(behaviour) as server:
        async with provider_of(server, **options) as provider:
            found = await outcome(provider, streamed=streamed)
            if isinstance(behaviour, Forever):
                await server.until(lambda _: server.open_connections == 0)
        await server.until(lambda _: server.open_connections == 0)
    return found


ENDLESS_STREAMS = {
    "comments": Forever(b": still here\n\n" * 1000),
    "blank lines": Forever(b"\n" * 9000),
    "blank lines of CR": Forever(b"\r\n" * 9000),
    "pings": Forever(b'event: ping\ndata: {"type": "ping"}\n\n' * 1000),
    "empty chunks": Forever(b'data: {"choices": []}\n\n' * 1000),
    "an event without an end": Forever(b"x" * 9000, first=b"data: "),
    "an event of many lines": Forever(b"data: x\n" * 1000),
    "a name without an end": Forever(b"x" * 9000, first=b"event: "),
    "words behind words": Forever(b"data: %s\n\n" % json.dumps(CHUNK).encode() * 100),
    "no stream at all": Forever(b"x" * 9000),
    "JSON without an end": Forever(b'"x", ' * 2000, first=b"[", headers=JSON),
}


@pytest.mark.parametrize("module", ["openai", "anthropic"])
@pytest.mark.parametrize("name", ENDLESS_STREAMS)
async def test_a_stream_without_end_is_ended(name: str, module: str, peak: Callable[[], float]) -> None:
    error = await told(ENDLESS_STREAMS[name], streamed=True, module=module)
    assert isinstance(error, errors.ProtocolError | errors.StreamInterrupted), error
    assert peak() < 8_000_000


@pytest.mark.parametrize("length", [None, 10**15])
async def test_a_body_without_end_is_ended(length: int | None, peak: Callable[[], float]) -> None:
    error = await told(Forever(b" " * 9000, headers=JSON, length=length), streamed=False)
    assert isinstance(error, errors.ProtocolError)
    assert "65,536 bytes" in error.message
    assert peak() < 8_000_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_of_an_endless_failure_the_beginning_is_read(streamed: bool) -> None:
    """The status has said the main thing; the rest is not waited for."""
    error = await told(Forever(b"x" * 9000, b"Busy. ", {}, 503), streamed=streamed)
    assert isinstance(error, errors.Overloaded)
    assert "Busy. xxx" in error.message


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_bomb_is_ended_at_the_bound_of_what_it_unfolds_to(streamed: bool, peak: Callable[[], float]) -> None:
    before = peak()
    error = await told(faults.Gzip(bomb=40_000_000), streamed=streamed)
    assert isinstance(error, errors.ProtocolError)
    assert peak() - before < 8_000_000


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "identity, br", "what"])
async def test_an_encoding_that_was_not_asked_for_is_told_of(encoding: str, streamed: bool) -> None:
    error = await told(packed(encoding, b"\x1b\x07\x00"), streamed=streamed)
    assert isinstance(error, errors.ProtocolError)
    assert "not asked for" in error.message


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("encoding", "squeeze"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", bare),
        ("Identity", bytes),
    ],
)
async def test_what_was_squeezed_is_read(encoding: str, squeeze: Callable[[bytes], bytes], streamed: bool) -> None:
    headers, body = (EVENTS, STREAM) if streamed else (JSON, ANSWER)
    assert await told(packed(encoding, squeeze(body), headers), streamed=streamed) == "Quack"


async def test_a_slow_drip_ends_with_the_time_of_the_attempt() -> None:
    for streamed in (False, True):
        drip = Forever(b":" if streamed else b" ", headers=EVENTS if streamed else JSON, pause=0.02)
        begun = time.monotonic()
        error = await told(drip, streamed=streamed, timeout="200ms")
        assert isinstance(error, errors.ProviderTimeout)
        assert time.monotonic() - begun < 30  # a drip never ends, and no other limit is as short


async def test_a_length_that_is_wrong_is_no_answer() -> None:
    short = await told(Framed(ANSWER, len(ANSWER) + 10), streamed=False)
    assert isinstance(short, errors.ProtocolError)
    cut = await told(Framed(ANSWER, len(ANSWER) - 10), streamed=False)
    assert isinstance(cut, errors.ProtocolError)
    stream = await told(Framed(STREAM[:-40], len(STREAM), EVENTS), streamed=True)
    assert stream == "Quack" or isinstance(stream, errors.StreamInterrupted)


async def test_what_is_within_the_bounds_is_taken() -> None:
    text = "x" * 60 * KIB
    body = ANSWER.replace(b"Quack", text.encode())
    assert await told(faults.Raw(200, JSON, body), streamed=False) == text
    pings = b": ping\n\n" * 20 * KIB
    assert await told(faults.Raw(200, EVENTS, pings + STREAM), streamed=True) == "Quack"


async def test_bounds_can_be_raised() -> None:
    text = "x" * 100 * KIB
    body = ANSWER.replace(b"Quack", text.encode())
    found = await told(faults.Raw(200, JSON, body), streamed=False, answer_limits={"body": "1MiB"})
    assert found == text


def test_bounds_are_checked_where_they_are_written() -> None:
    def problem(limits: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            Config.load({"providers": {"mock": {"answer_limits": limits}}}, environ={})
        return str(caught.value)

    assert "answer_limits.body: is not a size" in problem({"body": "much"})
    assert "answer_limits.event: must be from 1KiB" in problem({"event": 0})
    assert "did you mean body" in problem({"boddy": 1})
    kept = Config.load({"providers": {"mock": {"answer_limits": None}}}, environ={}).providers["mock"].answer_limits
    assert (kept.body, kept.stream, kept.event, kept.error) == (16 << 20, 256 << 20, 16 << 20, 1 << 20)
