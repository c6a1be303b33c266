"""Tool calls that a local model must make: its answer is held to a grammar, and the call is read out of it.

The engine's own `tool_choice: required` lets a model write any text before the call, and a small one then finds no end;
one that names a tool is taken as `auto`. A schema that only a call fits holds from the first token on, and for every
model, whatever its template knows of tools.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.reading import is_whole_json, made_id
from rubberduck.providers.tool_choice import names_in
from rubberduck.types import (
    AllowedTools,
    Choice,
    Chunk,
    Delta,
    FinishReason,
    FunctionCall,
    Request,
    Response,
    Tool,
    ToolCall,
    ToolCallDelta,
)

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*(?=\S)')
_NO_ARGUMENTS: dict[str, Any] = {"const": {}}
"""Of an object that may hold anything a small model finds no end."""
_PLAIN = frozenset({"type", "properties", "required", "additionalProperties", "title", "description"})


def must_call(request: Request) -> bool:
    """Whether the answer has to be a tool call."""
    choice = request.tool_choice
    if not request.tools or choice is None or choice in ("none", "auto"):
        return False
    return not isinstance(choice, AllowedTools) or choice.mode == "required"


def usable(request: Request) -> tuple[Tool, ...]:
    """The tools that may be called now. Raises InvalidRequest where one is none that the engine knows."""
    names = names_in(request.tool_choice)
    tools = []
    for tool in request.tools:
        if not isinstance(tool, Tool):
            raise InvalidRequest("a local model has no custom tools: give a function", field="tools")
        if names is None or tool.function.name in names:
            tools.append(tool)
    if request.tools and not tools:
        raise InvalidRequest("tool_choice names none of the tools", field="tool_choice")
    return tuple(tools)


def held_to_a_call(request: Request) -> Request:
    """The request that asks for the call as JSON. The model is shown the tools that it may call."""
    tools = usable(request)
    form = {"type": "json_schema", "json_schema": {"name": "call", "strict": True, "schema": schema_of(tools)}}
    changes = {"tools": tools, "tool_choice": "none", "response_format": form, "parallel_tool_calls": None}
    return request.model_copy(update=changes)


def schema_of(tools: tuple[Tool, ...]) -> dict[str, Any]:
    """What a call of one of these tools looks like. References within a tool's parameters stay within them."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "arguments": {"$ref": f"#/$defs/tool{at}"}},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for at, tool in enumerate(tools)
    ]
    parameters = {f"tool{at}": _parameters(tool, f"#/$defs/tool{at}") for at, tool in enumerate(tools)}
    return (calls[0] if len(calls) == 1 else {"anyOf": calls}) | {"$defs": parameters}


def _parameters(tool: Tool, place: str) -> Any:
    schema = tool.function.parameters or {}
    says_nothing = not schema.get("properties") and not schema.get("additionalProperties")
    return _NO_ARGUMENTS if says_nothing and schema.keys() <= _PLAIN else _moved(schema, place)


def _moved(schema: Any, place: str) -> Any:
    """The schema with its references to itself as they are where it stands now."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {name: _moved(value, place) for name, value in schema.items()}
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        moved["$ref"] = place + reference[1:]
    return moved


# --- what comes back


class CallReader:
    """Reads one call out of the text `{"name": ..., "arguments": {...}}`, wherever it is split."""

    def __init__(self) -> None:
        self.name: str | None = None
        self._held = ""
        self._arguments = ""

    def add(self, text: str, place: object) -> tuple[ToolCallDelta, ...]:
        """The fragments of the call that this text completes. Its id is made from `place`."""
        self._held += text
        fragments: list[ToolCallDelta] = []
        if self.name is None:
            if (found := _HEAD.match(self._held)) is None:
                return ()
            self.name = str(json.loads(found[1]))
            self._held = self._held[found.end() :]
            fragments.append(ToolCallDelta(0, made_id(place, self.name), self.name))
        kept = len(self._held.rstrip("} \t\r\n"))  # the last brace is not the arguments'
        return (*fragments, *self._said(self._held[:kept], self._held[kept:]))

    def end(self) -> tuple[ToolCallDelta, ...]:
        """The last fragment, at the end of the text."""
        rest = self._held.rstrip()
        if not is_whole_json(self._arguments + rest):
            rest = rest.removesuffix("}").rstrip()
        return self._said(rest, "") if self.name is not None else ()

    @property
    def unread(self) -> str:
        """The text, where no call was found in it."""
        return self._held if self.name is None else ""

    def _said(self, arguments: str, held: str) -> tuple[ToolCallDelta, ...]:
        self._held = held
        self._arguments += arguments
        return (ToolCallDelta(0, arguments=arguments),) if arguments else ()


def with_call(response: Response) -> Response:
    """The answer with its text read as the call that it is."""
    return replace(response, choices=tuple([_choice(choice, response.id) for choice in response.choices]))


def _choice(choice: Choice, answer_id: str) -> Choice:
    reader = CallReader()
    fragments = reader.add(choice.message.text, (answer_id, choice.index)) + reader.end()
    if reader.name is None:
        return choice
    function = FunctionCall(name=reader.name, arguments="".join([each.arguments for each in fragments]))
    call = ToolCall(id=fragments[0].id or "", function=function)
    message = choice.message.model_copy(update={"content": None, "tool_calls": (call,)})
    return replace(choice, message=message, finish_reason=_reason(choice.finish_reason))


def _reason(reason: FinishReason) -> FinishReason:
    return FinishReason.TOOL_CALLS if reason is FinishReason.STOP else reason


class StreamReader:
    """Reads the texts of a stream's chunks as the calls that they are, one for each choice."""

    def __init__(self) -> None:
        self._readers: dict[int, CallReader] = {}

    def read(self, chunk: Chunk) -> Chunk:
        """The chunk with what it adds to the call in place of its text."""
        if not chunk.delta.content and chunk.finish_reason is None:
            return chunk
        return _read(chunk, self._readers.setdefault(chunk.index, CallReader()))


def _read(chunk: Chunk, reader: CallReader) -> Chunk:
    fragments = reader.add(chunk.delta.content, (chunk.id, chunk.index))
    if chunk.finish_reason is None:
        return replace(chunk, delta=_delta(chunk.delta, fragments))
    delta = _delta(chunk.delta, fragments + reader.end(), reader.unread)
    reason = chunk.finish_reason if reader.name is None else _reason(chunk.finish_reason)
    return replace(chunk, delta=delta, finish_reason=reason)


def _delta(delta: Delta, fragments: tuple[ToolCallDelta, ...], content: str = "") -> Delta:
    return replace(delta, content=content, tool_calls=fragments)
