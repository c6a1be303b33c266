"""Reads what Ollama answers: one JSON object a line, or a single one where the answer is not streamed.

Only the line with `done: true` makes an answer whole; it holds the counters, of which those that are zero are left
out. Lines of /api/generate have `response` and `thinking` where those of /api/chat have a `message`.
Source: Ollama API reference, "Generate a chat message", "Errors" and "Usage".
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rubberduck.core.sse import NDJSONDecoder
from rubberduck.errors import RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.openai.dialects import logprobs_of
from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_list, as_name, as_text, made_id, parse_json
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import (
    Chunk,
    Delta,
    FinishReason,
    FunctionCall,
    Head,
    Logprobs,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_NOTHING = Delta()
_FINISH = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
_COUNTERS = (
    "total_duration", "load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration",
)  # fmt: skip


def is_answer(said: dict[str, Any]) -> bool:
    """Whether an object is a line of an answer, and not something else in JSON."""
    return "message" in said or "response" in said or "done" in said


def message_of(said: dict[str, Any]) -> dict[str, Any]:
    """The message in a line; text that stands in the line itself counts as one."""
    message = said.get("message")
    if isinstance(message, dict):
        return message
    return {"content": said.get("response"), "thinking": said.get("thinking")}


def created_of(said: dict[str, Any]) -> int:
    """When a line was written, in seconds of Unix time; 0 where it does not say."""
    try:
        return int(datetime.fromisoformat(as_text(said.get("created_at"))).timestamp())
    except (ValueError, OverflowError):
        return 0


def tool_calls_of(said: dict[str, Any], message: dict[str, Any], before: int = 0) -> list[ToolCall]:
    """The whole calls in a line, `before` others of its answer; one that came without an id is given one."""
    calls = [call for call in as_list(message.get("tool_calls")) if isinstance(call, dict)]
    return [_tool_call(call, (as_text(said.get("created_at")), before + at)) for at, call in enumerate(calls)]


def _tool_call(call: dict[str, Any], place: tuple[object, ...]) -> ToolCall:
    function = as_dict(call.get("function"))
    name, arguments = as_text(function.get("name")), as_json_text(function.get("arguments")) or "{}"
    call_id = as_name(call.get("id")) or made_id(*place, name, arguments)
    return ToolCall(id=call_id, function=FunctionCall(name=name, arguments=arguments))


def finish_reason(raw: str | None, *, has_tools: bool) -> FinishReason:
    """Why an answer ended. Ollama says `stop` after tool calls too; `load`, `unload` and nothing are no reasons."""
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and has_tools else reason


def usage_of(said: dict[str, Any]) -> Usage | None:
    """The counters of a last line; None where it has none at all. A prompt that was cached whole counts as zero."""
    told = {name: said[name] for name in _COUNTERS if as_count(said.get(name)) is not None}
    if not told:
        return None
    return Usage(as_count(told.get("prompt_eval_count")) or 0, as_count(told.get("eval_count")) or 0, raw=told)


def fault_in(said: object) -> failures.Fault:
    """What went wrong. The text may itself be the JSON of the runner's error, which says more (type, status)."""
    text = as_dict(said).get("error")
    if isinstance(text, str) and text.startswith("{"):
        try:
            inner = failures.read_fault(parse_json(text))
        except ValueError:
            return failures.read_fault(said)
        return inner if inner.message else failures.read_fault(said)
    return failures.read_fault(said)


class OllamaStreamDecoder(StreamDecoder):
    """Turns lines into chunks. The role comes with the first chunk, the usage with the last."""

    framing = NDJSONDecoder

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._model = ""
        self._calls = 0
        self._has_spoken = False
        self._last: dict[str, Any] = {}

    @property
    def is_whole(self) -> bool:
        return self.done

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        if said.get("error"):
            raise self._reported(said)
        if not self._model:
            self._begin(said)
        message = message_of(said)
        delta = Delta(as_text(message.get("content")), None, (), as_text(message.get("thinking")))
        if message.get("tool_calls"):
            delta = self._with_calls(delta, said, message)
        logprobs = logprobs_of({"content": said["logprobs"]}) if "logprobs" in said else None
        if said.get("done") is True:
            self._last = said
            return self._finish(delta, logprobs)
        if not (delta.content or delta.reasoning or delta.tool_calls or logprobs):
            return []  # a chunk that is handed on is a sign of progress
        return [self._chunk(delta, logprobs)]

    def _head(self, said: dict[str, Any]) -> Head:
        return Head(created=created_of(said))

    def _begin(self, said: dict[str, Any]) -> None:
        if not is_answer(said):
            raise self._nonsense("a line holds no answer")
        self._model = as_text(said.get("model"))

    def _with_calls(self, delta: Delta, said: dict[str, Any], message: dict[str, Any]) -> Delta:
        first, calls = self._calls, tool_calls_of(said, message, self._calls)
        self._calls += len(calls)
        fragments = [
            ToolCallDelta(first + at, call.id, call.function.name, call.function.arguments)
            for at, call in enumerate(calls)
        ]
        return Delta(delta.content, None, tuple(fragments), delta.reasoning)

    def _finish(self, delta: Delta = _NOTHING, logprobs: Logprobs | None = None) -> list[Chunk]:
        self.done = True
        self.usage = usage_of(self._last)
        raw = as_name(self._last.get("done_reason"))
        reason = finish_reason(raw, has_tools=self._calls > 0)
        return [self._chunk(delta, logprobs, reason, self.usage, raw)]

    def _chunk(
        self,
        delta: Delta,
        logprobs: Logprobs | None,
        reason: FinishReason | None = None,
        usage: Usage | None = None,
        raw: str | None = None,
    ) -> Chunk:
        if not self._has_spoken:
            self._has_spoken = True
            delta = Delta(delta.content, "assistant", delta.tool_calls, delta.reasoning)
        return Chunk(0, delta, reason, usage, raw, None, self._model or None, logprobs)

    def _reported(self, said: object) -> RubberDuckError:
        return failures.make_error(fault_in(said), 200, {}, self._provider)
