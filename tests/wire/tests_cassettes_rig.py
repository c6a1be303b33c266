"""Recorded exchanges, what they are expected to mean, and the adapter that fits the path of each request.

The recordings are not part of this project. They are looked for in $RUBBERDUCK_CASSETTES, then beside the
repository in shared/cassettes. Nothing here knows a file by its name.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rubberduck.config import ProviderConfig
from rubberduck.errors import RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.http import HTTPProvider
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, EmbeddingRequest, Request

BESIDE = Path(__file__).resolve().parents[2].parent / "shared" / "cassettes"
FOLDER = Path(os.environ.get("RUBBERDUCK_CASSETTES") or BESIDE)
ADAPTERS = {
    "/chat/completions": ("openai", "chat"),
    "/embeddings": ("openai", "embeddings"),
    "/responses": ("openai_responses", "chat"),
    "/messages": ("anthropic", "chat"),
    "/messages/count_tokens": ("anthropic", "count"),
    "/api/chat": ("ollama", "chat"),
    "/api/generate": ("ollama", "chat"),
}
"""How a path ends, whose format that is, and what is asked for there."""


class Cassette:
    """One exchange. `kind` is what was asked for, `expected` what the answer means, overrides included."""

    def __init__(self, name: str, said: dict[str, Any], expected: dict[str, Any]) -> None:
        self.name = name
        self.asked: dict[str, Any] = said["request"].get("json") or {}
        self.path: str = said["request"]["path"].partition("?")[0]
        self.ending = next(ending for ending in sorted(ADAPTERS, key=len, reverse=True) if self.path.endswith(ending))
        self.module, self.kind = ADAPTERS[self.ending]
        self.status: int = said["response"]["status"]
        self.headers: dict[str, str] = said["response"]["headers"]
        self.body: bytes = said["response"]["body"].encode()
        self.expected = expected
        # Ollama streams unless it is told not to.
        self.streams = bool(self.asked.get("stream", self.module == "ollama"))

    def __repr__(self) -> str:
        return self.name

    @property
    def is_whole_stream(self) -> bool:
        return self.streams and self.status == 200 and not self.expected["error"]

    def provider(self, base_url: str = "http://127.0.0.1") -> HTTPProvider:
        config = ProviderConfig(
            name="vendor",
            module=self.module,
            base_url=base_url,
            api_keys=("test-key",),
            options={"count_tokens": True} if self.kind == "count" else {},
        )
        provider = resolve(self.module).init(config)
        assert isinstance(provider, HTTPProvider)
        return provider

    @property
    def request(self) -> Request:
        return Request.parse({"model": self.asked["model"], "messages": [{"role": "user", "content": "Hi"}]})

    @property
    def texts(self) -> EmbeddingRequest:
        return EmbeddingRequest.parse({"model": self.asked["model"], "input": self.asked["input"]})


def found() -> list[Cassette]:
    if not (FOLDER / "ORACLE.json").is_file():
        return []
    oracle = json.loads((FOLDER / "ORACLE.json").read_text())
    cassettes = []
    for file in sorted(FOLDER.glob("*/*.json")):
        name = file.relative_to(FOLDER).with_suffix("").as_posix()
        expected = oracle["files"][name] | oracle["overrides"].get(name, {})
        cassettes.append(Cassette(name, json.loads(file.read_text()), expected))
    return cassettes


CASSETTES = found()
are_here = pytest.mark.skipif(not CASSETTES, reason=f"cassettes: none found in {FOLDER.name}; set RUBBERDUCK_CASSETTES")


NONE = pytest.param(None, marks=pytest.mark.skip(reason="cassettes: none of this kind"))


def each(cassettes: list[Cassette]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("cassette", cassettes or [NONE], ids=repr)


def pieces(body: bytes, size: int | None) -> Iterator[bytes]:
    """The body cut up; whole without a size."""
    for at in range(0, len(body), size or max(1, len(body))):
        yield body[at : at + size] if size else body


def read(provider: HTTPProvider, body: bytes, size: int | None) -> tuple[list[Chunk], RubberDuckError | None]:
    """The chunks of a stream that comes in pieces, and the error that ended it."""
    decoder = provider.stream_decoder()
    chunks: list[Chunk] = []
    try:
        for piece in pieces(body, size):
            chunks += decoder.feed(piece)
        chunks += decoder.end()
    except RubberDuckError as error:
        return chunks, error
    return chunks, None


def ended(decoder: StreamDecoder) -> tuple[list[Chunk], RubberDuckError | None]:
    """What would come if the body ended here; the decoder itself goes on."""
    try:
        return copy.deepcopy(decoder).end(), None
    except RubberDuckError as error:
        return [], error


def put_together(chunks: list[Chunk]) -> Assembly:
    so_far = Assembly()
    for chunk in chunks:
        so_far.add(chunk)
    return so_far
