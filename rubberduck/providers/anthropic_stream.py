"""Reads a stream of Anthropic's Messages API.

Only `message_stop` makes the answer whole. Usage arrives in two parts: the input with `message_start`, the rest
with `message_delta`, whose counts are cumulative and replace those before them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_name, as_text, made_id
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, Delta, FinishReason, ToolCallDelta, Usage

_FINISH = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_use": FinishReason.TOOL_CALLS,
    "refusal": FinishReason.CONTENT_FILTER,
    "pause_turn": FinishReason.PAUSE,
}


def finish_reason(raw: str | None, *, has_tools: bool) -> FinishReason:
    """Why an answer ended, in our vocabulary."""
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and has_tools else reason


def usage_of(said: dict[str, Any]) -> Usage | None:
    """The usage in our terms, where all input counts as prompt: `input_tokens` leaves the cached part out."""
    fresh, output = as_count(said.get("input_tokens")), as_count(said.get("output_tokens"))
    if fresh is None and output is None:
        return None
    read, wrote = as_count(said.get("cache_read_input_tokens")), as_count(said.get("cache_creation_input_tokens"))
    return Usage(
        prompt_tokens=(fresh or 0) + (read or 0) + (wrote or 0),
        completion_tokens=output or 0,
        cached_tokens=read,
        cache_write_tokens=wrote,
        reasoning_tokens=as_count(as_dict(said.get("output_tokens_details")).get("thinking_tokens")),
    )


@dataclass(slots=True)
class _ToolUse:
    index: int
    whole_input: str
    has_fragments: bool = False


class AnthropicStreamDecoder(StreamDecoder):
    """Turns message events into chunks. Unknown events, blocks and deltas are passed over.

    The role comes with the first chunk that says more than it.
    """

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._id = ""
        self._model = ""
        self._counts: dict[str, Any] = {}
        self._tools: dict[int, _ToolUse] = {}
        self._tools_seen = 0
        self._raw: str | None = None
        self._has_spoken = False

    @property
    def is_whole(self) -> bool:
        return self.done

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        index = as_count(said.get("index")) or 0
        match as_name(said.get("type")) or event:
            case "message_start":
                return self._start(as_dict(said.get("message")))
            case "content_block_start":
                return self._start_block(index, as_dict(said.get("content_block")))
            case "content_block_delta":
                return self._add(index, as_dict(said.get("delta")))
            case "content_block_stop":
                return self._stop_block(index)
            case "message_delta":
                self._raw = as_name(as_dict(said.get("delta")).get("stop_reason")) or self._raw
                self._count(said)
                return []
            case "message_stop":
                return self._finish()
            case "error":
                raise self._reported(said)
            case _:
                return []

    def _start(self, message: dict[str, Any]) -> list[Chunk]:
        self._id, self._model = as_text(message.get("id")), as_text(message.get("model"))
        self._count(message)
        return []

    def _count(self, said: dict[str, Any]) -> None:
        counts = as_dict(said.get("usage"))
        self._counts |= {name: value for name, value in counts.items() if value is not None}
        self.usage = usage_of(self._counts)

    def _start_block(self, index: int, block: dict[str, Any]) -> list[Chunk]:
        if block.get("type") == "tool_use":
            return [self._start_tool(index, block)]
        self._tools.pop(index, None)
        return self._add(index, block | {"type": f"{block.get('type')}_delta"})  # its first text may stand here

    def _start_tool(self, index: int, block: dict[str, Any]) -> Chunk:
        tool = self._tools[index] = _ToolUse(self._tools_seen, as_json_text(block.get("input") or {}))
        self._tools_seen += 1
        name = as_text(block.get("name"))
        call_id = as_name(block.get("id")) or made_id(self._id, tool.index, name, prefix="toolu_")
        return self._chunk(Delta(tool_calls=(ToolCallDelta(tool.index, call_id, name),)))

    def _add(self, index: int, delta: dict[str, Any]) -> list[Chunk]:
        match delta.get("type"):
            case "text_delta" if text := as_text(delta.get("text")):
                return [self._chunk(Delta(content=text))]
            case "thinking_delta" if thinking := as_text(delta.get("thinking")):
                return [self._chunk(Delta(reasoning=thinking))]
            case "input_json_delta" if (part := as_text(delta.get("partial_json"))) and index in self._tools:
                self._tools[index].has_fragments = True
                return [self._arguments(self._tools[index], part)]
            case _:
                return []

    def _stop_block(self, index: int) -> list[Chunk]:
        tool = self._tools.pop(index, None)
        return [self._arguments(tool, tool.whole_input)] if tool and not tool.has_fragments else []

    def _arguments(self, tool: _ToolUse, part: str) -> Chunk:
        return self._chunk(Delta(tool_calls=(ToolCallDelta(tool.index, arguments=part),)))

    def _finish(self) -> list[Chunk]:
        if not self._id and not self._counts and self._raw is None:
            raise self._nonsense("the stream holds no message")
        self.done = True
        reason = finish_reason(self._raw, has_tools=self._tools_seen > 0)
        return [self._chunk(Delta(), reason, self.usage, self._raw)]

    def _chunk(
        self, delta: Delta, reason: FinishReason | None = None, usage: Usage | None = None, raw: str | None = None
    ) -> Chunk:
        if not self._has_spoken:
            self._has_spoken = True
            delta = replace(delta, role="assistant")
        return Chunk(0, delta, reason, usage, raw, self._id or None, self._model or None)
