"""A duck that answers from a list, and a way to run commands against it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any, Self

import pytest

from rubberduck.cli import main
from rubberduck.cli.surroundings import Surroundings
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Response, Usage


class FakeStream:
    """An answer in pieces; an exception among them is raised in its place."""

    def __init__(self, pieces: Sequence[str | BaseException | FinishReason]) -> None:
        self._pieces = pieces
        self.provider, self.model, self.usage = "fake", "parrot", Usage(3, 4, cost=Decimal("0.00012"))
        self.response: Response | None = None
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def __iter__(self) -> Iterator[Chunk]:
        for piece in self._pieces:
            if isinstance(piece, BaseException):
                raise piece
            if isinstance(piece, FinishReason):
                yield Chunk(finish_reason=piece)
            else:
                yield Chunk(delta=Delta(content=piece))


@dataclass
class FakeDuck:
    """Answers with `answers` in turn; keeps what it was asked."""

    answers: list[Any] = field(default_factory=lambda: [["Quack", "!"]])
    config: Any = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    options: list[dict[str, Any]] = field(default_factory=list)
    streams: list[FakeStream] = field(default_factory=list)
    stopped: bool = False

    @contextmanager
    def start(self, config: Any, **_: Any) -> Iterator[FakeDuck]:
        self.config = config
        try:
            yield self
        finally:
            self.stopped = True

    def _next(self, request: dict[str, Any], options: dict[str, Any]) -> list[Any]:
        self.requests.append(request)
        self.options.append(options)
        return list(self.answers.pop(0))

    def stream(self, request: dict[str, Any], **options: Any) -> FakeStream:
        self.streams.append(FakeStream(self._next(request, options)))
        return self.streams[-1]

    def complete(self, request: dict[str, Any], **options: Any) -> Response:
        stream = FakeStream(self._next(request, options))
        message = Message(role="assistant", content="".join(chunk.delta.content for chunk in stream))
        choice = Choice(0, message, FinishReason.STOP)
        return Response("1", "parrot", (choice,), stream.usage, provider="fake", request_id="req-7")


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def duck() -> FakeDuck:
    return FakeDuck()


@pytest.fixture
def command(
    duck: FakeDuck, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    """Run `rubberduck WORDS`, in an empty directory, with this stdin and these variables."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, stdin: str = "", tty: bool = False, **environ: str) -> Outcome:
        source = StringIO(stdin)
        source.isatty = lambda: tty  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", source)
        surroundings = Surroundings({"HOME": str(tmp_path), "NO_COLOR": "1"} | environ, duck.start)
        code = main(list(words), surroundings=surroundings)
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return run
