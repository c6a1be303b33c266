"""What servers that speak OpenAI's chat format do differently, read into one meaning.

Each function takes a piece of a parsed answer. The habits named here were seen in recorded exchanges with the
servers named beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rubberduck.providers.reading import (
    as_count,
    as_dict,
    as_json_text,
    as_list,
    as_name,
    as_text,
    is_whole_json,
    made_id,
)
from rubberduck.types import FinishReason, ToolCallDelta, Usage

_FINISH = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


def finish_reason(raw: str | None, *, has_tools: bool, refused: bool) -> FinishReason:
    """Why an answer ended. `length` stays `length` beside tool calls, because their arguments may be cut."""
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    if reason is FinishReason.STOP and refused:
        return FinishReason.CONTENT_FILTER
    if reason is FinishReason.STOP and has_tools:
        return FinishReason.TOOL_CALLS
    return reason


def content_of(said: dict[str, Any]) -> tuple[str, str]:
    """The text and the reasoning of a message or delta.

    Reasoning stands in `reasoning_content` (DeepSeek, z.ai, GPUStack), in `reasoning` (Groq, Ollama, OpenRouter),
    or in an array of `thinking` and `text` parts that takes the place of the text (Mistral).
    """
    content = said.get("content")
    reasoning = as_text(said.get("reasoning_content")) or as_text(said.get("reasoning"))
    if not isinstance(content, list):
        return as_text(content), reasoning
    text = []
    for part in map(as_dict, content):
        if part.get("type") == "thinking":
            reasoning += _thinking(part.get("thinking"))
        else:
            text.append(as_text(part.get("text")))
    return "".join(text), reasoning


def _thinking(said: object) -> str:
    return as_text(said) or "".join(as_text(as_dict(part).get("text")) for part in as_list(said))


def tool_calls_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls, or fragments of them, in a message or delta; a `function_call` of old counts as one."""
    calls = [call for call in as_list(said.get("tool_calls")) if isinstance(call, dict)]
    if calls or not isinstance(said.get("function_call"), dict):
        return calls
    return [{"index": 0, "function": said["function_call"]}]


def function_of(call: dict[str, Any]) -> tuple[str, str]:
    """The name and the arguments in a tool call; a custom tool's input counts as its arguments."""
    custom = as_dict(call.get("custom"))
    function = as_dict(call.get("function")) or custom
    arguments = function.get("input") if function is custom else function.get("arguments")
    return as_text(function.get("name")), as_json_text(arguments)


def usage_of(said: dict[str, Any]) -> Usage | None:
    """The usage in an answer or chunk: in `usage`, or in `x_groq.usage` (Groq). None where there is none."""
    usage = as_dict(said.get("usage")) or as_dict(as_dict(said.get("x_groq")).get("usage"))
    prompt, completion = as_count(usage.get("prompt_tokens")), as_count(usage.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    read, wrote = as_dict(usage.get("prompt_tokens_details")), as_dict(usage.get("completion_tokens_details"))
    return Usage(
        prompt_tokens=prompt or 0,
        completion_tokens=completion or 0,
        cached_tokens=as_count(read.get("cached_tokens")),
        cache_write_tokens=as_count(read.get("cache_write_tokens")),
        reasoning_tokens=as_count(wrote.get("reasoning_tokens")),
    )


@dataclass(slots=True)
class _OpenCall:
    index: int
    id: str
    name: str
    arguments: str = ""
    id_is_ours: bool = False


class ToolFragments:
    """Sorts the fragments of one answer's tool calls, and gives each call its own index and an id.

    The format's `index` alone does not tell calls apart: vLLM and SGLang send two calls under index 0 with
    different ids; Gemini-compatible servers send whole calls without index or id; some repeat the name, or the
    whole head of the call, in every fragment.
    """

    def __init__(self) -> None:
        self._open: dict[object, _OpenCall] = {}
        self._latest: _OpenCall | None = None
        self._calls: list[_OpenCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragment: dict[str, Any], answer_id: str) -> ToolCallDelta:
        """The fragment as ours. `answer_id` is what an id is made from where the server sends none."""
        slot = fragment.get("index")
        slot = slot if isinstance(slot, int) else None
        call_id, (name, arguments) = as_name(fragment.get("id")), function_of(fragment)
        call = self._latest if slot is None else self._open.get(slot)
        if call is None or _begins_another(call, call_id, name, arguments):
            call = self._begin(slot, call_id, name, answer_id)
            call.arguments = arguments
            return ToolCallDelta(call.index, call.id, name or None, arguments)
        self._latest = call
        call.arguments += arguments
        late_name = name if name and not call.name else None
        call.name = call.name or name
        return ToolCallDelta(call.index, name=late_name, arguments=arguments)

    def unsaid(self) -> tuple[ToolCallDelta, ...]:
        """What completes the calls that came without any arguments: an empty object, as in a whole answer."""
        bare = [call for call in self._calls if not call.arguments]
        for call in bare:
            call.arguments = "{}"
        return tuple(ToolCallDelta(call.index, arguments="{}") for call in bare)

    def _begin(self, slot: int | None, call_id: str | None, name: str, answer_id: str) -> _OpenCall:
        number = len(self._calls)
        call = _OpenCall(number, call_id or made_id(answer_id, number, name), name, id_is_ours=call_id is None)
        self._calls.append(call)
        self._open[slot] = self._latest = call
        return call


def _begins_another(call: _OpenCall, call_id: str | None, name: str, arguments: str) -> bool:
    """Whether a fragment in an open call's place starts the next one."""
    if not name or not call.name:
        return False
    if call_id is not None and not call.id_is_ours:
        return call_id != call.id
    return bool(arguments) and is_whole_json(call.arguments)
