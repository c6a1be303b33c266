"""Writes the body of a call to Anthropic's Messages API, and says what of a request is left out of it.

`warnings` and `encode_request` decide alike, for both ask `_Thinking` and `sampling`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from rubberduck.core.schema_bounds import without_bounds
from rubberduck.errors import InvalidRequest
from rubberduck.providers.anthropic.messages import encode_messages, is_begun_answer, split_system
from rubberduck.providers.anthropic.models import takes
from rubberduck.providers.anthropic.parts import cache_mark, is_image
from rubberduck.providers.http import merge_extra
from rubberduck.providers.reading import as_count, as_dict
from rubberduck.providers.tool_choice import require_tools
from rubberduck.types import AllowedTools, FilePart, ImagePart, NamedTool, Part, Request, Tool

BEARER_VERSION = "2026-10-21"
"""From this version on the key is a bearer token, and nobody takes sampling parameters."""
DEFAULT_MAX_TOKENS = 1024
"""Sent where the request names no limit, because the API wants one; on top of what may be thought."""
LEAST_BUDGET = 1024
FILES_BETA = "files-api-2025-04-14"

_SAMPLING = ("temperature", "top_p", "top_k")
_UNKNOWN = (
    *("seed", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"),
    *("verbosity", "prompt_cache_key", "metadata"),
)
_TIERS = ("auto", "standard_only")
_BETA = re.compile(r"[A-Za-z0-9._-]{1,128}")
_COUNTED = {
    *("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed"),
    *("context_management", "mcp_servers"),
}
"""What the count endpoint takes of a request (anthropic 2.12.0, MessageCountTokensParams and its beta)."""


def encode_request(request: Request, extra: dict[str, Any], *, version: str, prefill: bool) -> dict[str, Any]:
    """The body of a call; `prefill` says that the model goes on with an answer. Raises InvalidRequest."""
    if request.n > 1:
        raise InvalidRequest("Anthropic gives one answer to a request: n must be 1", field="n")
    if not prefill and is_begun_answer(request.messages):
        raise InvalidRequest(
            f"{request.model} does not go on with an answer: the last message must not be the assistant's",
            field="messages",
        )
    if request.tool_choice is not None:
        require_tools(request, extra)
    system, turns = split_system(request.messages)
    thinking = _Thinking.of(request)
    _require_room(request, thinking)
    optional = {
        "system": system,
        "stop_sequences": list(request.stop) or None,
        "tools": _tools(request),
        "tool_choice": _tool_choice(request, thinking, has_tools=bool(request.tools or extra.get("tools"))),
        "thinking": thinking.sent,
        "output_config": _output_config(request, thinking, as_dict(extra.get("output_config"))),
        "metadata": {"user_id": request.user} if request.user else None,
        "service_tier": request.service_tier if request.service_tier in _TIERS else None,
        "cache_control": cache_mark(request.cache_control) if request.cache_control is not None else None,
        "stream": True if request.stream else None,
    }
    body = {
        "model": request.model,
        "max_tokens": most_output(request, extra),
        "messages": encode_messages(turns, request.model, documents_in_answers=version < BEARER_VERSION),
        **sampling(request, version).values,
        **{name: value for name, value in optional.items() if value is not None},
    }
    return merge_extra(body, {name: value for name, value in extra.items() if name not in ("betas", "output_config")})


def encode_count(request: Request, extra: dict[str, Any], *, version: str, prefill: bool) -> dict[str, Any]:
    """The body of a question how many tokens a call would be: what of it is read, and not how it is answered."""
    body = encode_request(request, extra, version=version, prefill=prefill)
    return {name: value for name, value in body.items() if name in _COUNTED}


def most_output(request: Request, extra: dict[str, Any]) -> int:
    """The limit that is sent: a thinking budget counts against it."""
    thinking = _Thinking.of(request).sent or {}
    told = as_count(as_dict(extra.get("thinking")).get("budget_tokens")) or thinking.get("budget_tokens", 0)
    return request.max_tokens or DEFAULT_MAX_TOKENS + int(told)


def betas(request: Request, extra: dict[str, Any]) -> list[str]:
    """The betas to ask for: those in `extra.betas`, and the one without which no file can be named."""
    told = extra.get("betas", [])
    if not isinstance(told, list | tuple) or not all(isinstance(name, str) and _BETA.fullmatch(name) for name in told):
        raise InvalidRequest('extra.betas is a list of names, such as ["files-api-2025-04-14"]', field="extra.betas")
    own = [FILES_BETA] if _names_a_file(request) else []
    return list(dict.fromkeys([*told, *own]))


def _names_a_file(request: Request) -> bool:
    return any(
        isinstance(part, FilePart) and part.file.file_id is not None
        for message in request.messages
        if isinstance(message.content, tuple)
        for part in message.content
    )


# --- warnings


def warnings(request: Request, version: str) -> tuple[str, ...]:
    """What the API does not know, and what this version or model takes no longer; each text begins with the field."""
    unknown = [
        name
        for name in _UNKNOWN
        if (value := getattr(request, name)) is not None and value is not False and value != {}
    ]
    texts = [f"{name} is not sent: the Messages API has no such parameter" for name in unknown]
    texts += sampling(request, version).warnings
    texts += _Thinking.of(request).warnings
    if request.service_tier not in (None, *_TIERS):
        texts.append("service_tier is not sent: Anthropic's are auto and standard_only")
    if as_dict((request.response_format or {}).get("json_schema")).get("description") is not None:
        texts.append("response_format.json_schema.description is not sent: Anthropic takes the schema alone")
    return (*texts, *_message_warnings(request))


def _message_warnings(request: Request) -> Iterator[str]:
    parts = [part for message in request.messages if isinstance(message.content, tuple) for part in message.content]
    marked = (("", [request]), ("tools.", request.tools), ("messages.content.", parts))
    for place, each in marked:
        if any(getattr(getattr(it, "cache_control", None), "ttl", None) == "30m" for it in each):
            yield f"{place}cache_control.ttl '30m' is sent as '1h', which Anthropic has"
    if any(message.name and message.role != "function" for message in request.messages):
        yield "messages.name is not sent: Anthropic's turns have no names"
    if any(message.audio is not None for message in request.messages):
        yield "messages.audio is sent as its transcript: Anthropic knows no speech"
    if parts:
        yield from _part_warnings(parts)


def _part_warnings(parts: list[Part]) -> Iterator[str]:
    if any(isinstance(part, ImagePart) and part.image_url.detail not in (None, "auto") for part in parts):
        yield "messages.content.image_url.detail is not sent: Anthropic chooses it"
    files = [part for part in parts if isinstance(part, FilePart)]
    pictures = [part for part in files if is_image(part)]
    for name in ("title", "context", "citations"):
        if any(getattr(part, name) is not None for part in pictures):
            yield f"messages.content.{name} is not sent: a file that is an image has none"
    if any(part.file.filename and (part.title or part.file.file_data) for part in pictures) or any(
        part.file.filename and part.title for part in files
    ):
        yield "messages.content.file.filename is not sent: documents have a title, and images none"


class Sampling(NamedTuple):
    """The sampling parameters that can be sent, and what had to be changed for it."""

    values: dict[str, float]
    warnings: list[str]


def sampling(request: Request, version: str) -> Sampling:
    """What to send of temperature, top_p and top_k: nothing where version or model has none.

    While a model thinks its temperature is 1, and neither of the others can be chosen.
    """
    values = {name: value for name in _SAMPLING if (value := getattr(request, name)) is not None}
    if not values:
        return Sampling({}, [])
    if version >= BEARER_VERSION:
        return Sampling({}, [f"{name} is not sent: version {version} of the API has none" for name in values])
    if not takes(request.model).sampling:
        return Sampling({}, [f"{name} is not sent: {request.model} takes none" for name in values])
    if (_Thinking.of(request).sent or {}).get("type") in ("enabled", "adaptive"):
        return Sampling(
            {}, [f"{name} is not sent: it cannot be chosen while {request.model} thinks" for name in values]
        )
    if values.get("temperature", 0) > 1:
        values["temperature"] = 1.0
        return Sampling(values, ["temperature over 1 is sent as 1, the most that Anthropic takes"])
    return Sampling(values, [])


# --- thinking


@dataclass(frozen=True, slots=True)
class _Thinking:
    """How a request's wish for reasoning is told to its model: `sent` is `thinking`, `effort` an output setting."""

    sent: dict[str, Any] | None
    effort: str | None
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, request: Request) -> _Thinking:
        if request.reasoning_effort is None and request.reasoning_budget is None and request.reasoning_summary is None:
            return _AS_IT_LIKES
        texts: list[str] = []
        effort = _effort(request, texts)
        sent = _how(request, texts)
        if request.reasoning_summary is not None:
            sent = _shown(request, sent, texts)
        if sent is not None and sent["type"] == "adaptive" and _is_forced(request):
            if request.reasoning_effort is not None:
                texts.append("reasoning_effort is sent, but no thinking: who must call a tool does not think before")
            if request.reasoning_summary is not None:
                texts.append("reasoning_summary is not sent: a model that must call a tool does not think before")
            sent = None
        return cls(sent, effort, tuple(texts))


_AS_IT_LIKES = _Thinking(None, None, ())


def _effort(request: Request, texts: list[str]) -> str | None:
    """The nearest level that the model has, none above the one asked for beyond its highest."""
    asked, levels = request.reasoning_effort, takes(request.model).efforts
    if asked in (None, "none"):
        return None
    if not levels:
        texts.append(f"reasoning_effort is not sent: {request.model} has no levels of it, only a reasoning_budget")
        return None
    if asked in levels:
        return asked
    nearest = levels[0] if asked == "minimal" else "high"
    texts.append(f"reasoning_effort {asked} is sent as {nearest}: {request.model} has no such level")
    return nearest


def _how(request: Request, texts: list[str]) -> dict[str, Any] | None:
    model = takes(request.model)
    if request.reasoning_budget == 0 or (request.reasoning_effort == "none" and request.reasoning_budget is None):
        return _kept_quiet(request, texts)
    if request.reasoning_budget is None:
        return {"type": "adaptive"} if model.adaptive_by_effort and request.reasoning_effort is not None else None
    if model.budget:
        return {"type": "enabled", "budget_tokens": _budget(request.reasoning_budget, texts)}
    texts.append(f"reasoning_budget is not sent: {request.model} decides how long it thinks, by reasoning_effort")
    return {"type": "adaptive"}


def _kept_quiet(request: Request, texts: list[str]) -> dict[str, Any] | None:
    """No thinking. Models with a budget do not think unless told."""
    model = takes(request.model)
    if model.budget:
        return None
    if model.quiet:
        return {"type": "disabled"}
    name = "reasoning_effort" if request.reasoning_effort == "none" else "reasoning_budget"
    texts.append(f"{name} is not sent: {request.model} always thinks")
    return None


def _budget(asked: int, texts: list[str]) -> int:
    if asked >= LEAST_BUDGET:
        return asked
    texts.append(f"reasoning_budget is sent as {LEAST_BUDGET}, the least that Anthropic takes")
    return LEAST_BUDGET


def _require_room(request: Request, thinking: _Thinking) -> None:
    """Refuse a budget that the limit leaves no room for: a higher limit could cost more than the caller would pay."""
    budget = (thinking.sent or {}).get("budget_tokens", 0)
    if request.max_tokens is not None and budget >= request.max_tokens:
        raise InvalidRequest(
            f"max_tokens must be over the thinking budget of {budget}, which is a part of it", field="reasoning_budget"
        )


def _shown(request: Request, sent: dict[str, Any] | None, texts: list[str]) -> dict[str, Any] | None:
    """Whether thoughts are shown. Asking for them makes a model think that does so as it sees fit."""
    asked = request.reasoning_summary
    if (sent or {}).get("type") == "disabled":
        return sent
    if sent is None and takes(request.model).adaptive and asked != "none":
        sent = {"type": "adaptive"}
    if sent is None:
        if asked != "none":
            texts.append(f"reasoning_summary is not sent: {request.model} thinks with a reasoning_budget only")
        return None
    if asked in ("concise", "detailed"):
        texts.append(f"reasoning_summary {asked} is sent as summarized: Anthropic has one length")
    return sent | {"display": "omitted" if asked == "none" else "summarized"}


# --- tools and formats


def _tools(request: Request) -> list[dict[str, Any]] | None:
    """The tools that may be used now."""
    tools = [_tool(tool) for tool in request.tools]
    if isinstance(request.tool_choice, AllowedTools):
        tools = [tool for tool in tools if tool["name"] in request.tool_choice.names]
    return tools or None


def _tool(tool: Any) -> dict[str, Any]:
    if not isinstance(tool, Tool):
        raise InvalidRequest("Anthropic's tools take JSON: describe this one as a function", field="tools")
    function = tool.function
    schema = function.parameters or {"type": "object", "properties": {}}
    optional = {
        "description": function.description,
        "strict": function.strict,
        "cache_control": cache_mark(tool.cache_control) if tool.cache_control is not None else None,
    }
    return {"name": function.name, "input_schema": schema} | {k: v for k, v in optional.items() if v is not None}


def _tool_choice(request: Request, thinking: _Thinking, *, has_tools: bool) -> dict[str, Any] | None:
    choice, is_forced = request.tool_choice, _is_forced(request)
    if is_forced:
        _refuse_forcing(request, thinking)
    if not has_tools:
        return None
    if choice == "none":
        return {"type": "none"}
    alone = {"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {}
    if isinstance(choice, NamedTool):
        return {"type": "tool", "name": choice.function.name} | alone
    if choice is None and not alone:
        return None
    return {"type": "any" if is_forced else "auto"} | alone


def _is_forced(request: Request) -> bool:
    choice = request.tool_choice
    return isinstance(choice, NamedTool) or "required" in (choice, getattr(choice, "mode", None))


def _refuse_forcing(request: Request, thinking: _Thinking) -> None:
    """Raise where a model cannot be made to call a tool. To let it choose would be another request."""
    if not takes(request.model).forcing:
        why = f"{request.model} cannot be made to call a tool"
    elif (thinking.sent or {}).get("type") == "enabled":
        why = "a model that thinks on a reasoning_budget cannot be made to call a tool"
    else:
        return
    raise InvalidRequest(f"{why}: use tool_choice auto", field="tool_choice")


def _output_config(request: Request, thinking: _Thinking, own: dict[str, Any]) -> dict[str, Any] | None:
    """Format and effort, and what the caller says of it in Anthropic's words."""
    wanted = request.response_format or {"type": "text"}
    config: dict[str, Any] = {}
    if wanted.get("type") == "json_schema":
        schema = as_dict(wanted.get("json_schema")).get("schema")
        if not isinstance(schema, dict):
            raise InvalidRequest("a json_schema needs a `schema`, which is an object", field="response_format")
        config["format"] = {"type": "json_schema", "schema": without_bounds(schema)}
    elif wanted.get("type") != "text":
        raise InvalidRequest(
            f"Anthropic has no response_format {wanted.get('type')!r}: use json_schema", field="response_format"
        )
    if thinking.effort is not None:
        config["effort"] = thinking.effort
    return config | own or None
