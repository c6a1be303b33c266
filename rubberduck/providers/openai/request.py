"""Writes a request for a server with OpenAI's chat format, by its dialect, and tells what is lost of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.http import merge_extra
from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.providers.openai.messages import encode_messages, mark_end, marks_of
from rubberduck.providers.openai.messages import warnings_for as message_warnings
from rubberduck.providers.openai.reasoning import encode_reasoning
from rubberduck.providers.openai.reasoning import warnings_for as reasoning_warnings
from rubberduck.providers.reading import as_dict
from rubberduck.providers.tool_choice import name_of, require_tools
from rubberduck.types import AllowedTools, AnyTool, CacheControl, CustomTool, NamedTool, Request, Tool

_PLAIN = (
    "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "verbosity",
    "metadata", "service_tier", "prompt_cache_key", "user",
)  # fmt: skip
"""What is sent as it stands, where it is known."""

_REASONS = re.compile(r"(?:ft:)?(?:o[134]\b|gpt-5(?!-chat)(?:\.(\d+))?(-pro|-codex)?)")
_NEVER_STOPS = re.compile(r"(?:ft:)?o(?:3(?!-mini)|4-mini)\b")
"""Of OpenAI's models those that take no `stop` (API reference, "Create chat completion": o3 and o4-mini)."""
_NEVER = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "logit_bias": {}}
_NOT_WHILE_REASONING = {"temperature": 1.0, "top_p": 1.0, "logprobs": False, "top_logprobs": 0}
"""What OpenAI's reasoning models refuse, and the value that says nothing."""
_SAYS_NOTHING: dict[str, Any] = _NEVER | _NOT_WHILE_REASONING | {"stop": ()}
_IDLE_BY_DEFAULT = frozenset({"1", "2", "4"})
"""The minor versions of GPT-5 that do not reason unless they are asked to."""

_WHY = {
    "reasoning_budget": "ask by reasoning_effort",
    "reasoning_summary": "it shows its reasoning in its own way, or not at all",
}


def refused_by(request: Request, dialect: Dialect) -> frozenset[str]:
    """The fields that the model behind this request takes no values for."""
    found = _REASONS.match(request.model) if dialect.reasoning_rules else None
    if found is None:
        return frozenset()
    minor, kind = found[1], found[2]
    idle = minor is not None and (
        request.reasoning_effort == "none"
        or (request.reasoning_effort is None and minor in _IDLE_BY_DEFAULT and kind is None)
    )
    refused = frozenset(_NEVER) if idle else frozenset(_NEVER | _NOT_WHILE_REASONING)
    return refused | {"stop"} if _NEVER_STOPS.match(request.model) else refused


def encode_request(request: Request, extra: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The body of a call. Raises InvalidRequest for what cannot be left out."""
    if request.n > 1 and "n" not in dialect.fields:
        raise InvalidRequest(f"{dialect.word} gives one answer to a request: n must be 1", field="n")
    body: dict[str, Any] = {
        "model": request.model,
        "messages": encode_messages(request.messages, dialect, request.model),
    }
    known, refused = dialect.fields, refused_by(request, dialect)
    for name in _PLAIN:
        value = getattr(request, name)
        if value is not None and name in known and name not in refused:
            body[dialect.renamed.get(name, name)] = value
    if request.max_tokens is not None:
        body[dialect.limit] = request.max_tokens
    if request.stop and "stop" in known and "stop" not in refused:
        body["stop"] = _stops(request.stop, dialect)
    if request.n > 1:
        body["n"] = request.n
    if (request.logprobs or request.top_logprobs is not None) and "logprobs" not in refused:
        body |= _logprobs(request, dialect)
    if request.tool_choice is not None:
        require_tools(request, extra)
    if request.tools or extra.get("tools"):
        body |= _tools(request, dialect)
    if request.response_format is not None:
        _hold(body, request.response_format, dialect)
    body |= encode_reasoning(request, dialect)
    if request.cache_control is not None:
        _cache(body, request.cache_control, dialect)
    if dialect.effort == "reasoning":
        body["usage"] = {"include": True}
    body = merge_extra(body, extra)
    if request.stream:
        body["stream"] = True
        if dialect.asks_usage:
            body["stream_options"] = as_dict(body.get("stream_options")) | {"include_usage": True}
    return body


def _stops(stops: tuple[str, ...], dialect: Dialect) -> list[str]:
    """Where to stop. Which of too many could be left out, nobody but who asked can know."""
    if dialect.most_stops is not None and len(stops) > dialect.most_stops:
        raise InvalidRequest(
            f"{dialect.word} takes {dialect.most_stops} stop sequences at most, not {len(stops)}", field="stop"
        )
    return list(stops)


def _logprobs(request: Request, dialect: Dialect) -> dict[str, Any]:
    if "logprobs" not in dialect.fields:
        return {}
    if dialect.counts_logprobs:
        count = 0 if request.logprobs is False else request.top_logprobs or int(request.logprobs or 0)
        return {"logprobs": count} if count else {}
    told = {"logprobs": request.logprobs, "top_logprobs": request.top_logprobs}
    return {name: value for name, value in told.items() if value is not None}


def _hold(body: dict[str, Any], wanted: dict[str, Any], dialect: Dialect) -> None:
    """Ask for an answer of a form; where a schema cannot be enforced, by telling it."""
    if wanted.get("type") != "json_schema" or dialect.has_schemas:
        body["response_format"] = wanted
        return
    schema = as_dict(wanted.get("json_schema")).get("schema") or {}
    text = f"Answer with one JSON object that matches this JSON Schema:\n{json.dumps(schema, ensure_ascii=False)}"
    body["messages"] = [{"role": "system", "content": text}, *body["messages"]]
    body["response_format"] = {"type": "json_object"}


def _cache(body: dict[str, Any], control: CacheControl, dialect: Dialect) -> None:
    match marks_of(dialect, body["model"]):
        case "breakpoint":
            body["prompt_cache_options"] = {"mode": "implicit"} | ({"ttl": "30m"} if control.ttl else {})
        case "cache_control":
            mark_end(body["messages"], control)


# --- tools


def _tools(request: Request, dialect: Dialect) -> dict[str, Any]:
    if request.tools and not dialect.has_tools:
        if request.tool_choice == "none":
            return {}
        raise InvalidRequest(f"{dialect.word} calls no tools", field="tools")
    tools, choice = _choice(request, dialect)
    body: dict[str, Any] = {"tools": [_tool(tool, dialect) for tool in tools]} if tools else {}
    if choice is not None:
        body["tool_choice"] = choice
    if request.parallel_tool_calls is not None and "parallel_tool_calls" in dialect.fields:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    return body


def _tool(tool: AnyTool, dialect: Dialect) -> dict[str, Any]:
    if isinstance(tool, Tool):
        shown = {"type": "function", "function": tool.function.model_dump(exclude_none=True)}
        if tool.cache_control is not None and dialect.caches == "cache_control":
            shown["cache_control"] = tool.cache_control.model_dump(exclude_none=True)
        return shown
    if dialect.has_custom_tools:
        return {"type": "custom", "custom": tool.custom.model_dump(exclude_none=True)}
    raise InvalidRequest(f"{dialect.word} has no custom tools: give a function with parameters", field="tools")


def _choice(request: Request, dialect: Dialect) -> tuple[tuple[AnyTool, ...], Any]:
    """The tools to show and what to say of them: who cannot be told which ones are meant is shown no others."""
    match request.tool_choice:
        case NamedTool(function=function):
            if dialect.has_named_choice:
                return request.tools, _named(function.name, request.tools)
            return _only(request, (function.name,)), dialect.required
        case AllowedTools() as allowed:
            choice = dialect.required if allowed.mode == "required" else "auto"
            if not dialect.has_allowed_tools:
                return _only(request, allowed.names), choice
            names = [_named(name, request.tools) for name in allowed.names]
            return request.tools, {"type": "allowed_tools", "allowed_tools": {"mode": allowed.mode, "tools": names}}
        case "required":
            return request.tools, dialect.required
        case choice:
            return request.tools, choice


def _only(request: Request, names: tuple[str, ...]) -> tuple[AnyTool, ...]:
    return tuple([tool for tool in request.tools if name_of(tool) in names])


def _named(name: str, tools: tuple[AnyTool, ...]) -> dict[str, Any]:
    is_custom = any(isinstance(tool, CustomTool) and tool.custom.name == name for tool in tools)
    kind = "custom" if is_custom else "function"
    return {"type": kind, kind: {"name": name}}


# --- what is lost


def warnings_for(request: Request, dialect: Dialect) -> tuple[str, ...]:
    """What the server is not told of a request, or is told otherwise; each text begins with the field."""
    texts = [
        f"{name} is not sent: {_WHY.get(name) or f'{dialect.word} has no such parameter'}"
        for name in dialect.unknown
        if (value := getattr(request, name)) is not None and _says_something(name, value, request)
    ]
    if dialect.reasoning_rules:
        texts += _refused(request, dialect)
    if request.cache_control is not None:
        texts += _cache_warnings(request, request.cache_control, dialect)
    if request.response_format is not None and not dialect.has_schemas:
        if request.response_format.get("type") == "json_schema":
            texts.append(f"response_format is told in a system text: {dialect.word} does not hold answers to a schema")
    if request.reasoning_effort or dialect.effort in ("thinking", "google"):
        texts += reasoning_warnings(request, dialect)
    marked = any(isinstance(tool, Tool) and tool.cache_control is not None for tool in request.tools)
    if marked and dialect.caches != "cache_control":
        texts.append(f"tools.cache_control is not sent: {dialect.word} has no such field")
    texts += message_warnings(request.messages, dialect, request.model)
    return tuple(texts)


def _says_something(name: str, value: Any, request: Request) -> bool:
    """Whether it would be missed. What asks for more than one answer is refused instead."""
    if name == "n":
        return False
    if name == "parallel_tool_calls":
        return bool(request.tools)
    return value != () and value is not False and (name, value) != ("reasoning_summary", "none")


def _refused(request: Request, dialect: Dialect) -> Iterator[str]:
    for name in sorted(refused_by(request, dialect)):
        value = getattr(request, name)
        if value is not None and value != _SAYS_NOTHING[name]:
            yield f"{name} is not sent: {request.model} takes none while it reasons"


def _cache_warnings(request: Request, control: CacheControl, dialect: Dialect) -> Iterator[str]:
    marks = marks_of(dialect, request.model)
    if marks == "cache_control" and not any(message.text for message in request.messages):
        yield "cache_control is not sent: there is no text that could be marked"
    if not marks:
        yield f"cache_control is not sent: {dialect.word} caches by itself, or not at all"
    elif marks == "breakpoint" and control.ttl in ("5m", "1h"):
        yield f"cache_control.ttl {control.ttl!r} is sent as '30m', the only one for a whole request"
