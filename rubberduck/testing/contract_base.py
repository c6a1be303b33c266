"""What all parts of a provider's contract stand on: the provider, its server, and how a promise is held."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

from rubberduck.config import ProviderConfig
from rubberduck.errors import RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.providers.base import Provider
from rubberduck.providers.http import HTTPProvider
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.testing.contract_exchanges import Exchange
from rubberduck.types import Chunk, Request, Response

KEY = "sk-contract-5up3r-s3cr3t-duck"
"""The key that the provider is given."""
NOWHERE = "http://127.0.0.1:9"
"""Where nobody listens: for what asks no server."""
PATIENCE_S = 60.0
"""How long one story may take: the machine may be busy, and only a provider that hangs makes anybody wait so long."""

T = TypeVar("T")


class Promises:
    """A provider under contract, and the material that it is held against."""

    provider: ClassVar[type[Provider] | str] = ""
    """The class, or its name in a configuration."""
    model: ClassVar[str] = "contract-model"
    """A model that it has."""
    options: ClassVar[dict[str, Any]] = {}
    """Options of its configuration, beside `base_url` and the key."""
    exchanges: ClassVar[Sequence[Exchange]] = ()
    """What its server says, and what that means."""

    def make(self, base_url: str) -> Provider:
        """A provider that asks the server at `base_url`; one that asks no server needs not look at it."""
        options = {"api_keys": (KEY,), "base_url": base_url, **self.options}
        return resolve(self.provider).init(ProviderConfig(name="contract", module=self.provider, **options))

    @contextmanager
    def made(self, base_url: str = NOWHERE) -> Iterator[Provider]:
        """A provider, closed at the end. For what does not wait."""
        provider = self.make(base_url)
        try:
            yield provider
        finally:
            asyncio.run(provider.aclose())

    def ask(self, **fields: Any) -> Request:
        """A request to the model; without `messages` it asks for a quack."""
        fields.setdefault("messages", [{"role": "user", "content": "Say quack."}])
        return Request.parse({"model": self.model, **fields})

    def promise(self, is_kept: bool, otherwise: str) -> None:
        """Hold the provider to something."""
        if not is_kept:
            raise AssertionError(otherwise)

    def of(self, *kinds: str, failures: bool = False) -> list[Exchange]:
        """The exchanges of these kinds that succeed, or those that fail."""
        return [each for each in self.exchanges if each.kind in kinds and each.is_failure == failures]

    @classmethod
    def broken(cls, only: str = "") -> dict[str, str]:
        """What does not hold, by the name of the test; nothing where all is well. For use without pytest.

        `only` is a part of the names of the tests to run.
        """
        found = {}
        for name, _ in inspect.getmembers(cls, inspect.isfunction):
            if name.startswith("test_") and only in name:
                try:
                    getattr(cls(), name)()
                except AssertionError as error:
                    found[name] = str(error)
                except Exception as error:  # noqa: BLE001 - whatever a stranger's provider raises is what is told here
                    found[name] = f"{type(error).__name__}: {error}"
        return found


async def then_closed(provider: Provider, story: Coroutine[Any, Any, T]) -> T:
    """Tell the story, and close its provider however it ends: what is left open hits whatever runs next."""
    try:
        return await story
    finally:
        await provider.aclose()


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run to the end, with an end to patience."""
    return asyncio.run(asyncio.wait_for(story, PATIENCE_S))


class Reading:
    """What became of one answer: the chunks, what they add up to, the error that ended it, or the whole response."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.assembly = Assembly()
        self.error: RubberDuckError | None = None
        self.whole: Response | None = None

    def take(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            self.chunks.append(chunk)
            self.assembly.add(chunk)

    @property
    def response(self) -> Response:
        return self.whole if self.whole is not None else self.assembly.response()

    def __repr__(self) -> str:
        return f"{self.error!r}" if self.error else f"{self.response!r}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reading) and self._told == other._told

    __hash__ = None  # type: ignore[assignment]

    @property
    def _told(self) -> Any:
        error = (type(self.error), str(self.error)) if self.error else None
        return self.chunks, self.whole, error


def read_pieces(decoder: StreamDecoder, pieces: Iterable[bytes]) -> Reading:
    """What a decoder makes of a stream, fed as the runtime does."""
    reading = Reading()
    try:
        for piece in pieces:
            reading.take(decoder.feed(piece))
            decoder.check()
            if decoder.done:
                return reading
        reading.take(decoder.end())
    except RubberDuckError as error:
        reading.error = error
    return reading


def read_whole(provider: HTTPProvider, exchange: Exchange, body: bytes) -> Reading:
    """What a provider makes of a whole answer."""
    reading = Reading()
    try:
        reading.whole = provider.decode(exchange.status, exchange.headers, body)
    except RubberDuckError as error:
        reading.error = error
    return reading


async def asked(provider: Provider, request: Request, *, streamed: bool) -> Reading:
    """What comes of asking for real."""
    reading = Reading()
    try:
        if streamed:
            async for chunk in provider.stream(request):
                reading.take((chunk,))
        else:
            reading.whole = await provider.complete(request)
    except RubberDuckError as error:
        reading.error = error
    return reading


def cut(body: bytes, size: int | None) -> list[bytes]:
    """The body in pieces of a size."""
    step = size or len(body) or 1
    return [body[start : start + step] for start in range(0, len(body), step)]
