"""What reading a vendor's event stream has in common, whatever the events mean.

A decoder is fed bytes, however they are split, and gives the same chunks and the same error in the same order.
That is why an error is kept until the chunks before it were handed out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

from rubberduck.core.sse import Event, MalformedStream, NDJSONDecoder, SSEDecoder
from rubberduck.errors import ProtocolError, RubberDuckError, StreamInterrupted
from rubberduck.providers import failures
from rubberduck.providers.reading import parse_json
from rubberduck.types import Chunk, Head, Usage

_BEGINNINGS = {SSEDecoder: (b"data", b"event", b"id", b"retry", b":"), NDJSONDecoder: (b"{",)}
"""How the first line of a stream can begin, by how its events are told apart."""


class StreamDecoder(ABC):
    """Turns the bytes of one stream into chunks; the last chunk carries the usage.

    `done` is true once the stream's own end came. `is_whole` is true when nothing would be missing if the
    connection were lost now. `usage` is what the stream has told so far. `framing` tells events apart; `end_mark` is
    what the last of them says, where that is no JSON. `asked` is the model in the request.
    """

    framing: ClassVar[type[SSEDecoder | NDJSONDecoder]] = SSEDecoder
    end_mark: ClassVar[str | None] = None

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._events = self.framing()
        self._beginning = b""
        self._has_begun = False
        self._has_head = False
        self._fault: RubberDuckError | None = None
        self.usage: Usage | None = None
        self.done = False
        self.asked = ""

    def bound(self, max_event: int) -> None:
        """Take no event larger than this, in bytes. To be called before the first `feed`."""
        self._events.max_event = max_event

    @property
    @abstractmethod
    def is_whole(self) -> bool:
        """Whether the answer is complete."""

    @abstractmethod
    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        """The chunks in one event."""

    def _head(self, said: dict[str, Any]) -> Head | None:
        """What the answer says of itself beside what it says; asked with the event that brings the first chunk."""
        return None

    @abstractmethod
    def _finish(self) -> list[Chunk]:
        """The last chunks of a whole answer; makes the decoder `done`."""

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that these bytes complete. Raises what is wrong with the stream, or what the server reports."""
        self.check()
        if not self._has_begun:
            self._note_beginning(data)
        chunks: list[Chunk] = []
        try:
            for event in self._events.feed(data):
                if not self.done:
                    chunks += self._read_event(event)
            self._events.check()
        except MalformedStream as error:
            if not self.done:  # what follows the end is read or not, as the network cut it, and counts for nothing
                self._fault = self._nonsense(str(error))
        except RubberDuckError as error:
            self._fault = error
        if not chunks:
            self.check()
        return chunks

    def check(self) -> None:
        """Raise the error found behind the chunks of the last `feed`, if there is one."""
        if self._fault is not None:
            raise self._fault

    def end(self) -> list[Chunk]:
        """The last chunks, when no more bytes come.

        Raises:
            StreamInterrupted: when the answer is not whole.
            ProtocolError: when what came was no event stream at all.
        """
        self.check()
        chunks: list[Chunk] = []
        try:
            for event in self._events.end():
                if not self.done:
                    chunks += self._read_event(event)
        except MalformedStream as error:
            if not self.is_whole:
                raise self._nonsense(str(error)) from None
        if self.done:
            return chunks
        if not self._has_begun and self._is_no_event_stream():
            raise self._nonsense("the answer is no event stream")
        if not self.is_whole:
            raise self._cut_off()
        return chunks + self._finish()

    def _read_event(self, event: Event) -> list[Chunk]:
        try:
            said = parse_json(event.data)
        except ValueError:
            if event.data.strip() == self.end_mark:
                return self._finish()
            if event.partial:
                return []
            if event.event == "error":
                raise self._reported(event.data) from None
            raise self._nonsense("an event is no JSON") from None
        if not isinstance(said, dict):
            raise self._reported(said) if event.event == "error" else self._nonsense("an event is no JSON object")
        self._has_begun = True
        chunks = self._read(event.event, said)
        if chunks and not self._has_head:
            self._has_head = True
            chunks[0] = replace(chunks[0], head=self._head(said))
        return chunks

    def _reported(self, said: object) -> RubberDuckError:
        return failures.make_error(failures.read_fault(said), 200, {}, self._provider)

    def _cut_off(self) -> StreamInterrupted:
        return StreamInterrupted(
            f"{self._provider} ended the stream before the answer was complete",
            usage=self.usage,
            provider=self._provider,
            status=200,
            spent=None,
        )

    def _nonsense(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"{self._provider} sent what is not its format: {what}", provider=self._provider, status=200, spent=None
        )

    def _note_beginning(self, data: bytes) -> None:
        if len(self._beginning) < 16:
            self._beginning = (self._beginning + data).removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")[:16]

    def _is_no_event_stream(self) -> bool:
        """Whether the first line is none that an event stream can have, however short it was cut."""
        line = self._beginning.lstrip() if self.framing is NDJSONDecoder else self._beginning
        return not any(line.startswith(known) or known.startswith(line) for known in _BEGINNINGS[self.framing])
