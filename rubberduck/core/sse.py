"""Cuts the bytes of a stream into its events, wherever the network happened to split them.

`SSEDecoder` reads server-sent events, `NDJSONDecoder` one JSON text a line. Feed either with bytes as
they arrive and call `end` when the body is over. Both split bytes and decode whole lines only: U+2028
and U+0085 are text inside a line, not line ends, and a character may arrive in halves.

An error is raised only after the events before it were handed out, so that the outcome does not depend
on how the bytes were split. Once found, it is raised by every later call.

Source: WHATWG HTML, section 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import codecs
import re
from typing import NamedTuple

MAX_EVENT_BYTES = 16 * 1024 * 1024
"""The largest event accepted by default, in bytes: far more than any provider puts into one."""

_BOM = codecs.BOM_UTF8
_LINE_END = re.compile(rb"\r\n|\n|\r")


class MalformedStream(ValueError):
    """The bytes cannot be a stream of events: not UTF-8, or an event beyond the size limit."""


class Event(NamedTuple):  # a tuple, for one is made per token: a frozen dataclass takes three times as long
    """One event of a stream. `id` is the last id that the stream gave, as SSE wants it.

    `partial` marks a last event whose line was never ended: the body may have been cut inside it.
    """

    event: str
    data: str
    id: str = ""
    partial: bool = False


class _Decoder:
    """What both formats share: the bytes of what is unfinished, their bound, and errors kept in order.

    `max_event` is that bound, in bytes.
    """

    def __init__(self, *, max_event: int = MAX_EVENT_BYTES) -> None:
        self.max_event = max_event
        self._pending = bytearray()
        self._scanned = 0
        self._fault: MalformedStream | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events they complete. Raises MalformedStream."""
        self.check()
        events: list[Event] = []
        try:
            self._read(data, events)
        except MalformedStream as fault:
            self._fault = fault
            if not events:
                raise
        return events

    def check(self) -> None:
        """Raise what was found wrong behind the events of the last `feed`, if anything was."""
        if self._fault is not None:
            raise self._fault

    def end(self) -> list[Event]:
        """Say that the body is over; a last event is delivered even where its end is missing."""
        self.check()
        events: list[Event] = []
        self._close(events)
        return events

    def _read(self, data: bytes, events: list[Event]) -> None:
        raise NotImplementedError

    def _close(self, events: list[Event]) -> None:
        raise NotImplementedError

    def _bound(self, size: int) -> None:
        if size > self.max_event:
            raise MalformedStream(f"an event of the stream has more than {self.max_event:,} bytes")


class SSEDecoder(_Decoder):
    """Reads server-sent events; events without data and comments are passed over.

    While the stream ends its lines with LF, whole blocks up to a blank line are taken at once. The first
    CR switches to reading line by line, for good: JSON cannot contain one, so it is a line end.
    """

    def __init__(self, *, max_event: int = MAX_EVENT_BYTES) -> None:
        super().__init__(max_event=max_event)
        self._at_start = True
        self._has_cr = False
        self._drop_lf = False
        self._size = 0
        self._event = ""
        self._id = ""
        self._data: list[str] = []

    def _read(self, data: bytes, events: list[Event]) -> None:
        if self._at_start:
            data = self._without_bom(data)
            if self._at_start:
                return
        if not self._has_cr and b"\r" in data:
            self._has_cr = True
            self._scanned = 0
        if self._has_cr:
            self._pending += data
            self._read_lines(events)
        else:
            self._read_blocks(data, events)

    def _without_bom(self, data: bytes) -> bytes:
        head = bytes(self._pending) + data
        del self._pending[:]
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._pending += head
            return b""
        self._at_start = False
        return head.removeprefix(_BOM)

    def _read_blocks(self, data: bytes, events: list[Event]) -> None:
        if self._pending:
            self._pending += data
            end = self._pending.find(b"\n\n", self._scanned)
            if end < 0:
                self._scanned = len(self._pending) - 1
                self._bound(self._scanned)
                return
            data = bytes(self._pending)
            del self._pending[:]
            self._scanned = 0
        if data.endswith(b"\n\n") and data.find(b"\n\n") == len(data) - 2:  # most often a piece is one event
            self._read_block(data[:-2], events)
            return
        *blocks, rest = data.split(b"\n\n")
        for block in blocks:
            self._read_block(block.lstrip(b"\n"), events)
        self._pending += rest.lstrip(b"\n")
        self._scanned = max(len(self._pending) - 1, 0)
        self._bound(self._scanned)

    def _read_block(self, block: bytes, events: list[Event]) -> None:
        """One event: `data` alone (OpenAI), `event` and `data` (Anthropic, Responses), or whatever else is allowed."""
        self._bound(len(block))
        try:
            before, _, data = block.decode().partition("data: ")
        except UnicodeDecodeError:
            return self._read_by_lines(block, events)  # in a comment it would be no mistake
        is_name = before.startswith("event: ") and before.find("\n") == len(before) - 1
        if not data or "\n" in data or (before and not is_name):
            return self._read_by_lines(block, events)
        if not data.isspace():
            events.append(Event(before[7:-1] or "message", data, self._id))
        return None

    def _read_by_lines(self, block: bytes, events: list[Event]) -> None:
        for line in block.split(b"\n"):
            self._take_line(line, events)
        self._take_line(b"", events)

    def _read_lines(self, events: list[Event]) -> None:
        start = 0
        if self._drop_lf and self._pending:
            start = int(self._pending.startswith(b"\n"))
            self._drop_lf = False
        view = self._pending
        self._scanned = max(self._scanned, start)
        while found := _LINE_END.search(view, self._scanned):
            line = bytes(view[start : found.start()])
            start = self._scanned = found.end()
            self._drop_lf = found.group() == b"\r" and start == len(view)
            self._size += len(line) + 1
            if not line:
                self._bound(self._size - 2)
            self._take_line(line, events)
        del view[:start]
        self._scanned = len(view)
        self._bound(self._size + len(view) - 1)

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if not line:
            self._size = 0
            data, self._data = "\n".join(self._data), []
            self._emit(data, events)
            self._event = ""
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(_text(value))
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id" and b"\0" not in value:
            self._id = _text(value)

    def _emit(self, data: str, events: list[Event], *, partial: bool = False) -> None:
        if data and not data.isspace():
            events.append(Event(self._event or "message", data, self._id, partial))

    def _close(self, events: list[Event]) -> None:
        *lines, last = bytes(self._pending).split(b"\n")
        del self._pending[:]
        self._bound(self._size + sum(map(len, lines)) + len(lines) + len(last) - (not last))
        for line in lines:
            self._take_line(line, events)
        if last:
            self._take_line(_whole_characters(last), events)
        self._emit("\n".join(self._data), events, partial=bool(last))
        self._data = []


class NDJSONDecoder(_Decoder):
    """Reads one JSON text a line; blank lines are passed over. Each line is the `data` of an event."""

    def _read(self, data: bytes, events: list[Event]) -> None:
        end = data.find(b"\n")
        if end < 0:
            self._pending += data
            self._bound(len(self._pending))
            return
        if end == len(data) - 1 and not self._pending:  # most often a piece is one line
            self._take_line(data[:end], events)
            return
        first, *others = data.split(b"\n")
        self._pending += first
        lines = [bytes(self._pending), *others]
        self._pending[:] = lines.pop()
        for line in lines:
            self._take_line(line, events)
        self._bound(len(self._pending))

    def _take_line(self, line: bytes, events: list[Event], *, partial: bool = False) -> None:
        self._bound(len(line))
        data = _text(line)
        if data and not data.isspace():
            events.append(Event("message", data.removesuffix("\r"), partial=partial))

    def _close(self, events: list[Event]) -> None:
        last = bytes(self._pending)
        del self._pending[:]
        self._take_line(_whole_characters(last), events, partial=True)


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise MalformedStream(f"the stream is not UTF-8: {error.reason} at byte {error.start} of a line") from None


def _whole_characters(line: bytes) -> bytes:
    """`line` without the beginning of a character at its end: what a cut leaves there is no mistake."""
    for length in range(1, min(4, len(line) + 1)):
        lead = line[-length]
        if lead & 0xC0 == 0x80:
            continue
        wanted = 2 if lead >> 5 == 0b110 else 3 if lead >> 4 == 0b1110 else 4 if lead >> 3 == 0b11110 else 1
        return line[:-length] if wanted > length else line
    return line
