"""Reads a stream of Anthropic's Messages API.

Only `message_stop` makes the answer whole. Usage arrives in two parts: the input with `message_start`, the rest
with `message_delta`, whose counts are cumulative and replace those before them. The blocks are put together on the
way, because thoughts, and what the server's own tools did, must go back as they came.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from rubberduck.providers.anthropic.answers import (
    annotations_of,
    finish_reason,
    made_call_id,
    must_go_back,
    native_of,
    refusal_of,
    usage_of,
)
from rubberduck.providers.anthropic.messages import input_of
from rubberduck.providers.model_names import asked_as
from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_list, as_name, as_text
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, Delta, Native, ToolCallDelta

_WRITTEN = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
"""The field of a delta that adds to a block, by its type."""


@dataclass(slots=True)
class _Block:
    """A block as far as it has come. `call` is the number of a tool call among the answer's, if it is one."""

    said: dict[str, Any]
    start: int
    call: int | None = None
    pieces: list[str] = field(default_factory=list)
    citations: list[Any] = field(default_factory=list)

    def whole(self) -> dict[str, Any]:
        """The block as it would stand in an answer that was not streamed."""
        said, written = self.said, "".join(self.pieces)
        match said.get("type"):
            case "text":
                citations = as_list(said.get("citations")) + self.citations
                cited = {"citations": citations} if citations else {}
                return said | {"text": as_text(said.get("text")) + written} | cited
            case "thinking":
                return said | {"thinking": as_text(said.get("thinking")) + written}
            case _:
                return said | {"input": input_of(written)} if written else said


class AnthropicStreamDecoder(StreamDecoder):
    """Turns message events into chunks. Unknown events are passed over; an unknown delta leaves its block untold.

    The role comes with the first chunk that says more than it.
    """

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._id: str | None = None
        self._model: str | None = None
        self._counts: dict[str, Any] = {}
        self._blocks: list[_Block] = []
        self._open: dict[int, _Block] = {}
        self._is_verbatim = True
        self._length = 0
        self._calls = 0
        self._ending: dict[str, Any] = {}
        self._has_spoken = False

    @property
    def is_whole(self) -> bool:
        return self.done

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        kind = said.get("type")
        match kind if isinstance(kind, str) and kind else event:
            case "content_block_delta":
                return self._add(as_count(said.get("index")) or 0, as_dict(said.get("delta")))
            case "content_block_start":
                return self._start_block(as_count(said.get("index")) or 0, as_dict(said.get("content_block")))
            case "content_block_stop":
                return self._stop_block(as_count(said.get("index")) or 0)
            case "message_start":
                self._start(as_dict(said.get("message")))
            case "message_delta":
                ending = as_dict(said.get("delta"))
                self._ending |= {name: value for name, value in ending.items() if value is not None}
                self._count(said)
            case "message_stop":
                return self._finish()
            case "error":
                raise self._reported(said)
        return []

    def _start(self, message: dict[str, Any]) -> None:
        self._id, self._model = as_text(message.get("id")) or None, as_text(message.get("model")) or None
        self._count(message)

    def _count(self, said: dict[str, Any]) -> None:
        counts = as_dict(said.get("usage"))
        self._counts = self._counts | {name: value for name, value in counts.items() if value is not None}
        self.usage = usage_of(self._counts)

    # --- blocks

    def _start_block(self, index: int, said: dict[str, Any]) -> list[Chunk]:
        chunks = self._stop_block(index) if index in self._open else []
        block = self._opened(index, said)
        match said.get("type"):
            case "tool_use":
                block.call, self._calls = self._calls, self._calls + 1
                name = as_text(said.get("name"))
                call_id = as_name(said.get("id")) or made_call_id(self._id or "", block.call, name)
                return [*chunks, self._chunk(Delta(tool_calls=(ToolCallDelta(block.call, call_id, name),)))]
            case "text" if text := as_text(said.get("text")):  # its first words may stand here
                self._length += len(text)
                return [*chunks, self._chunk(Delta(content=text))]
            case "thinking" if thinking := as_text(said.get("thinking")):
                return [*chunks, self._chunk(Delta(reasoning=thinking))]
        return chunks

    def _opened(self, index: int, said: dict[str, Any]) -> _Block:
        block = self._open[index] = _Block(said, self._length)
        self._blocks.append(block)
        return block

    def _add(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        kind = delta.get("type")
        written = _WRITTEN.get(kind) if isinstance(kind, str) else None
        if written is None:
            return self._add_rare(index, kind, delta)
        text = as_text(delta.get(written))
        if not text:
            return []
        block = self._open.get(index)
        if written == "text":
            self._length += len(text)
            (block or self._opened(index, {"type": "text"})).pieces.append(text)
            return [self._chunk(Delta(text))]
        if written == "thinking":
            (block or self._opened(index, {"type": "thinking"})).pieces.append(text)
            return [self._chunk(Delta(reasoning=text))]
        if block is None:
            return []
        block.pieces.append(text)
        return [] if block.call is None else [self._arguments(block.call, text)]

    def _add_rare(self, index: int, kind: object, delta: dict[str, Any]) -> list[Chunk]:
        block = self._open.get(index)
        if block is None:
            return []
        if kind == "signature_delta":
            block.said = block.said | {"signature": as_text(delta.get("signature"))}
        elif kind == "citations_delta":
            block.citations.append(delta.get("citation"))
        elif kind == "compaction_delta":
            block.said = block.said | {name: value for name, value in delta.items() if name != "type"}
        else:
            self._is_verbatim = False
        return []

    def _stop_block(self, index: int) -> list[Chunk]:
        block = self._open.pop(index, None)
        if block is None:
            return []
        if block.call is not None and not block.pieces:
            return [self._arguments(block.call, as_json_text(block.said.get("input") or {}))]
        citations = as_list(block.said.get("citations")) + block.citations
        if block.said.get("type") != "text" or not citations:
            return []
        annotations = annotations_of(citations, block.start, self._length)
        return [self._chunk(Delta(annotations=tuple(annotations)))] if annotations else []

    def _arguments(self, call: int, part: str) -> Chunk:
        return self._chunk(Delta(tool_calls=(ToolCallDelta(call, arguments=part),)))

    # --- the end

    def _finish(self) -> list[Chunk]:
        if not self._id and not self._counts and not self._ending:
            raise self._nonsense("the stream holds no message")
        self.done = True
        chunks = [chunk for index in list(self._open) for chunk in self._stop_block(index)]
        raw = as_name(self._ending.get("stop_reason"))
        delta = Delta(refusal=refusal_of(raw, self._ending) or "", native=self._native(raw))
        reason = finish_reason(raw, has_tools=self._calls > 0)
        last = self._chunk(delta)
        return [
            *chunks,
            replace(
                last,
                finish_reason=reason,
                raw_finish_reason=raw,
                usage=self.usage,
                stop_sequence=as_name(self._ending.get("stop_sequence")),
            ),
        ]

    def _native(self, raw: str | None) -> Native | None:
        if not self._is_verbatim or not must_go_back([block.said for block in self._blocks], raw):
            return None
        native = native_of([block.whole() for block in self._blocks], self._model or "", raw)
        return asked_as(native, self.asked)

    def _chunk(self, delta: Delta) -> Chunk:
        if not self._has_spoken:
            self._has_spoken = True
            delta = replace(delta, role="assistant")
        return Chunk(0, delta, None, None, None, self._id, self._model)
