"""Writes a request the way Ollama's /api/chat wants it: pictures beside the text, arguments as objects.

Pure translation: a picture that is somewhere else has been fetched before, or is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.http import merge_extra
from rubberduck.providers.reading import as_dict, parse_json
from rubberduck.providers.tool_choice import name_of, names_in, require_tools
from rubberduck.types import (
    AllowedTools,
    FunctionCall,
    ImagePart,
    Message,
    NamedTool,
    Part,
    Request,
    TextPart,
    Tool,
    ToolCall,
)

_DATA_URL = re.compile(r"data:image/[\w.+-]+(?:;[\w.+=-]+)*;base64,(.*)", re.DOTALL)
_OWN_FIELDS = frozenset(
    {"tools", "format", "options", "think", "keep_alive", "truncate", "shift", "logprobs", "top_logprobs"}
)
"""What stands in the request itself. Of the body all else is unknown to the server, which says nothing of it."""
_UNSENT = (
    "logit_bias", "verbosity", "prompt_cache_key", "cache_control", "service_tier", "metadata",
    "user", "reasoning_summary",
)  # fmt: skip
_THINK: dict[str, bool | str] = {
    "none": False, "minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "max", "max": "max",
}  # fmt: skip


def encode_request(request: Request, own: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    """The body of a call; `own` are the configured options. Raises InvalidRequest for what cannot be left out."""
    if request.n > 1:
        raise InvalidRequest("Ollama gives one answer to a request: n must be 1", field="n")
    if request.tool_choice is not None:
        require_tools(request, extra)
    optional = {
        "tools": _tools(request) or None,
        "format": _format(request),
        "think": _think(request),
        "keep_alive": own.get("keep_alive"),
        "logprobs": True if request.logprobs or request.top_logprobs else None,
        "top_logprobs": request.top_logprobs or None,
        "options": _options(request, own) or None,
    }
    body = {
        "model": request.model,
        "messages": encode_messages(request.messages),
        "stream": request.stream,
        "truncate": False,
        **{name: value for name, value in optional.items() if value is not None},
    }
    return _with_extra(body, extra) if extra else body


def _with_extra(body: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
    fields = {name: value for name, value in extra.items() if name in _OWN_FIELDS}
    options = {name: value for name, value in extra.items() if name not in _OWN_FIELDS}
    merge_extra({}, options)  # raises for what routes and bills a call
    options = as_dict(body.get("options")) | as_dict(fields.pop("options", None)) | options
    return merge_extra(body, fields) | ({"options": options} if options else {})


def _options(request: Request, own: dict[str, Any]) -> dict[str, Any]:
    options = {
        "num_ctx": own.get("num_ctx") or None,
        "num_predict": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
    }
    return {name: value for name, value in options.items() if value is not None}


def _tools(request: Request) -> list[dict[str, Any]]:
    """The tools that may be used now, which is all that can be said of a choice."""
    if request.tool_choice == "none":
        return []
    names = names_in(request.tool_choice)
    return [_tool(tool) for tool in request.tools if names is None or name_of(tool) in names]


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        raise InvalidRequest("Ollama has no custom tools: give a function with parameters", field="tools")
    function = tool.function
    said = {"name": function.name, "parameters": function.parameters or {"type": "object", "properties": {}}}
    if function.description is not None:
        said["description"] = function.description
    return {"type": "function", "function": said}


def _format(request: Request) -> Any:
    wanted = request.response_format or {"type": "text"}
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            return "json"
        case "json_schema":
            return as_dict(wanted.get("json_schema")).get("schema") or "json"
        case other:
            raise InvalidRequest(f"Ollama has no response_format {other!r}", field="response_format")


def _think(request: Request) -> bool | str | None:
    if request.reasoning_effort is not None:
        return _THINK[request.reasoning_effort]
    return None if request.reasoning_budget is None else request.reasoning_budget > 0


# --- the conversation


def encode_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The turns. A tool's result says by name whose it is, which the calls before it tell."""
    names: dict[str, str] = {}
    turns = []
    for message in messages:
        names |= {call.id: call.function.name for call in message.tool_calls}
        turns.append(_turn(message, names))
    return turns


def _turn(message: Message, names: dict[str, str]) -> dict[str, Any]:
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    turn: dict[str, Any] = {"role": role, "content": _text(message)}
    if images := _images(message):
        turn["images"] = images
    if message.reasoning:
        turn["thinking"] = message.reasoning
    if calls := _calls(message):
        turn["tool_calls"] = calls
    if role == "tool":
        turn |= _answered(message, names)
    return turn


def _text(message: Message) -> str:
    spoken = message.audio.transcript if message.audio is not None else ""
    return "\n\n".join(filter(None, (message.text, message.refusal))) or spoken


def _answered(message: Message, names: dict[str, str]) -> dict[str, Any]:
    name = names.get(message.tool_call_id or "") or message.name
    said = {"tool_name": name, "tool_call_id": message.tool_call_id}
    return {field: value for field, value in said.items() if value}


def _images(message: Message) -> list[str]:
    if not isinstance(message.content, tuple):
        return []
    return [_image(part) for part in message.content if not isinstance(part, TextPart)]


def _image(part: Part) -> str:
    if not isinstance(part, ImagePart):
        raise InvalidRequest(f"Ollama takes text and images, no {part.type} part", field="messages.content")
    if found := _DATA_URL.fullmatch(part.image_url.url):
        return found[1]
    raise InvalidRequest(
        "Ollama takes images as base64 data: URLs; with options.fetch_images those at https URLs are fetched",
        field="messages.content.image_url.url",
    )


def _calls(message: Message) -> list[dict[str, Any]]:
    calls = [{"id": call.id, "function": _called(call)} for call in message.tool_calls]
    if not calls and message.function_call is not None:
        return [{"function": _function(message.function_call)}]
    return calls


def _called(call: ToolCall) -> dict[str, Any]:
    """A call; the free text of a custom tool's, which is not to be taken for bad JSON, becomes its one argument."""
    if call.type == "custom":
        return {"name": call.function.name, "arguments": {"input": call.function.arguments}}
    return _function(call.function)


def _function(function: FunctionCall) -> dict[str, Any]:
    return {"name": function.name, "arguments": _arguments(function.arguments)}


def _arguments(text: str) -> dict[str, Any]:
    """Arguments as the object that the API wants; what a model wrote amiss is kept as text in one."""
    try:
        value = parse_json(text or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": text}


# --- what is lost of it


def warnings_for(request: Request) -> tuple[str, ...]:
    """What Ollama is not told of a request, or is told otherwise."""
    unsent = [name for name in _UNSENT if getattr(request, name) not in (None, {}, "none")]
    texts = [f"{name} is not sent: Ollama has no such parameter" for name in unsent]
    if request.reasoning_effort in ("minimal", "xhigh"):
        texts.append(f"reasoning_effort {request.reasoning_effort!r} is sent as {_THINK[request.reasoning_effort]!r}")
    if _has_description(request.response_format):
        texts.append("response_format.json_schema.description is not sent: Ollama takes the schema alone")
    if request.reasoning_budget:
        texts.append("reasoning_budget is not sent as a number: Ollama thinks, or does not")
    if request.tools or request.tool_choice not in (None, "none", "auto"):  # the tools may stand in `extra`
        texts += _tool_warnings(request)
    texts += _message_warnings(request.messages)
    return tuple(texts)


def _has_description(wanted: dict[str, Any] | None) -> bool:
    return wanted is not None and as_dict(wanted.get("json_schema")).get("description") is not None


def _tool_warnings(request: Request) -> Iterator[str]:
    choice = request.tool_choice
    if choice == "required" or (isinstance(choice, AllowedTools) and choice.mode == "required"):
        yield "tool_choice 'required' is not sent: Ollama lets the model choose, and it may call none"
    if isinstance(choice, NamedTool):
        yield f"tool_choice is not sent: of the tools only {choice.function.name!r} is, but it may not be called"
    if request.parallel_tool_calls is False:
        yield "parallel_tool_calls is not sent: Ollama lets the model call as many tools as it likes"
    if any(isinstance(tool, Tool) and tool.function.strict for tool in request.tools):
        yield "tools.function.strict is not sent: Ollama does not hold arguments to their schema"
    if any(isinstance(tool, Tool) and tool.cache_control for tool in request.tools):
        yield "tools.cache_control is not sent: Ollama keeps what it has read by itself"


def _message_warnings(messages: Iterable[Message]) -> Iterator[str]:
    parts = [part for message in messages if isinstance(message.content, tuple) for part in message.content]
    if any(getattr(part, "cache_control", None) for part in parts):
        yield "messages.content.cache_control is not sent: Ollama keeps what it has read by itself"
    if any(isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto") for part in parts):
        yield "messages.content.image_url.detail is not sent: Ollama has no such parameter"
    if any(message.name and message.role not in ("tool", "function") for message in messages):
        yield "messages.name is not sent: Ollama's turns have no names"
    if any(message.name and message.role == "tool" for message in messages) and _renames_tools(messages):
        yield "messages.name is not sent of a tool's result: the call that it answers has another"
    if any(message.is_error for message in messages):
        yield "messages.is_error is not sent: say in the content that the tool failed"
    if any(message.audio is not None for message in messages):
        yield "messages.audio is sent as its transcript: Ollama knows no speech"


def _renames_tools(messages: Iterable[Message]) -> bool:
    """Whether a result has another name than the tool of its call."""
    called: dict[str | None, str] = {call.id: call.function.name for message in messages for call in message.tool_calls}
    results = [message for message in messages if message.role == "tool" and message.name]
    return any(called.get(result.tool_call_id, result.name) != result.name for result in results)
