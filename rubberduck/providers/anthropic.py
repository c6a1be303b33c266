"""Anthropic's Messages API, versions 2023-06-01 and 2026-10-21.

The later version takes the key as a bearer token and no longer knows temperature, top_p and top_k; answers are
the same in both. Source: Anthropic API reference, "Messages", "Versions" and "Errors".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from rubberduck.errors import ConfigError, InvalidRequest, RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.anthropic_messages import encode_messages, split_system
from rubberduck.providers.anthropic_stream import AnthropicStreamDecoder, finish_reason, usage_of
from rubberduck.providers.base import HTTPProvider, merge_extra
from rubberduck.providers.reading import as_dict, as_json_text, as_name, as_text, made_id
from rubberduck.types import Choice, FunctionCall, Message, NamedTool, Request, Response, ToolCall, Usage

DEFAULT_VERSION = "2023-06-01"
"""The version that still takes a temperature."""
BEARER_VERSION = "2026-10-21"
DEFAULT_MAX_TOKENS = 1024
"""Sent where the request names no limit, because the API wants one."""

_NEWEST = ("claude-opus-4-8", "claude-opus-5", "claude-sonnet-5", "claude-haiku-5", "claude-fable-5", "claude-mythos-5")
_FIXED_SAMPLING = ("claude-opus-4-7", *_NEWEST)
"""Models that refuse sampling parameters under any version."""
_TAKES_PREFILL = re.compile(r"claude-(3|(opus|sonnet)-4-(0|1|5|20\d{6})|haiku-4-5)(-|$)")
"""Models up to 4.5; those from 4.6 on answer a last message of the assistant with 400 (release notes of 2026-02-05)."""


class Anthropic(HTTPProvider):
    """Speaks to Anthropic, or to any server with its Messages API."""

    word = "anthropic"
    default_max_tokens = DEFAULT_MAX_TOKENS
    default_base_url = "https://api.anthropic.com"
    key_variable = "ANTHROPIC_API_KEY"

    def __init__(self, config: Any) -> None:
        self.version = config.version or DEFAULT_VERSION
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", self.version):
            raise ConfigError(
                f"providers.{config.name}.version must be a date such as {DEFAULT_VERSION}, not {self.version!r}"
            )
        super().__init__(config)

    def supports_model(self, model: str) -> bool:
        """Own names and `models` at Anthropic; elsewhere `models`, or any name if none is listed."""
        if self.config.base_url is not None:
            return model in self.config.models or not self.config.models
        return model.startswith("claude-") or model in self.config.models

    def accepts_prefill(self, model: str) -> bool:
        return _TAKES_PREFILL.match(model) is not None

    def encode(self, request: Request) -> tuple[str, dict[str, str], dict[str, Any]]:
        """The path, headers and body of a call."""
        path = "/messages" if self.base_url.endswith("/v1") else "/v1/messages"
        return path, self._headers(), encode_request(request, self._sampling(request))

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What the API does not know, and what this version or model takes no longer."""
        unknown = [
            name for name in ("seed", "presence_penalty", "frequency_penalty") if getattr(request, name) is not None
        ]
        texts = [f"{name} is not sent: the Messages API has no such parameter" for name in unknown]
        texts += self._sampling(request).warnings
        if request.reasoning_effort in ("none", "minimal"):
            texts.append(f"reasoning_effort {request.reasoning_effort!r} has no equal in the Messages API")
        return tuple(texts)

    def _sampling(self, request: Request) -> Sampling:
        return sampling(request, fixed=self.version >= BEARER_VERSION or request.model.startswith(_FIXED_SAMPLING))

    def _headers(self) -> dict[str, str]:
        headers = {"anthropic-version": self.version}
        if self.key and self.version >= BEARER_VERSION:
            headers["Authorization"] = f"Bearer {self.key}"
        elif self.key:
            headers["X-Api-Key"] = self.key
        return headers

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no message; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        if not isinstance(said.get("content"), list):
            raise failures.no_answer("message", status, headers, self.name)
        return decode_message(said, provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""
        return failures.make_error(failures.read_body(body), status, headers, self.name)

    def stream_decoder(self) -> AnthropicStreamDecoder:
        """A reader of one stream."""
        return AnthropicStreamDecoder(self.name)


class Sampling(NamedTuple):
    """The sampling parameters that can be sent, and what had to be changed for it."""

    values: dict[str, float]
    warnings: list[str]


def sampling(request: Request, *, fixed: bool) -> Sampling:
    """What to send of temperature and top_p: nothing where they are `fixed`, and no temperature over 1."""
    asked = {"temperature": request.temperature, "top_p": request.top_p}
    values = {name: value for name, value in asked.items() if value is not None}
    if fixed:
        return Sampling({}, [f"{name} is not sent: {request.model} takes none here" for name in values])
    if values.get("temperature", 0) > 1:
        values["temperature"] = 1.0
        return Sampling(values, ["temperature over 1 is sent as 1, the most that Anthropic takes"])
    return Sampling(values, [])


# --- what we send


def encode_request(request: Request, chosen: Sampling) -> dict[str, Any]:
    """The body of a call. Raises InvalidRequest for what has no counterpart and cannot be left out."""
    if request.n > 1:
        raise InvalidRequest("Anthropic gives one answer to a request: n must be 1", field="n")
    system, turns = split_system(request.messages)
    optional = {
        "system": system,
        "stop_sequences": list(request.stop) or None,
        "tools": [_tool(tool.function) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request) if request.tools else None,
        "output_config": _output_config(request),
        "metadata": {"user_id": request.user} if request.user else None,
        "stream": True if request.stream else None,
    }
    body = {
        "model": request.model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": encode_messages(turns, takes_system=request.model.startswith(_NEWEST)),
        **chosen.values,
        **{name: value for name, value in optional.items() if value is not None},
    }
    return merge_extra(body, request)


def _tool(function: Any) -> dict[str, Any]:
    schema = function.parameters or {"type": "object", "properties": {}}
    optional = {"description": function.description, "strict": function.strict}
    return {"name": function.name, "input_schema": schema} | {k: v for k, v in optional.items() if v is not None}


def _tool_choice(request: Request) -> dict[str, Any] | None:
    choice = request.tool_choice
    if choice == "none":
        return {"type": "none"}
    alone = {"disable_parallel_tool_use": True} if request.parallel_tool_calls is False else {}
    if isinstance(choice, NamedTool):
        return {"type": "tool", "name": choice.function.name} | alone
    if choice is None and not alone:
        return None
    return {"type": "any" if choice == "required" else "auto"} | alone


def _output_config(request: Request) -> dict[str, Any] | None:
    wanted = request.response_format or {"type": "text"}
    config: dict[str, Any] = {}
    if wanted.get("type") == "json_schema":
        schema = as_dict(wanted.get("json_schema")).get("schema")
        config["format"] = {"type": "json_schema", "schema": schema}
    elif wanted.get("type") != "text":
        raise InvalidRequest(
            f"Anthropic has no response_format {wanted.get('type')!r}: use json_schema", field="response_format"
        )
    if request.reasoning_effort not in (None, "none", "minimal"):
        config["effort"] = request.reasoning_effort
    return config or None


# --- what we read


def decode_message(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed `message`. Usage that the server did not tell is marked `estimated`, and zero."""
    blocks = [block for block in said["content"] if isinstance(block, dict)]
    answer_id = as_text(said.get("id"))
    text = "".join(as_text(block.get("text")) for block in blocks if block.get("type") == "text")
    reasoning = "".join(as_text(block.get("thinking")) for block in blocks if block.get("type") == "thinking")
    uses = [block for block in blocks if block.get("type") == "tool_use"]
    calls = tuple(_tool_call(use, f"{answer_id}/{number}") for number, use in enumerate(uses))
    raw = as_name(said.get("stop_reason"))
    message = Message(
        role="assistant", content=text if text or not calls else None, tool_calls=calls, reasoning=reasoning or None
    )
    return Response(
        id=answer_id,
        model=as_text(said.get("model")),
        choices=(Choice(0, message, finish_reason(raw, has_tools=bool(calls)), raw),),
        usage=usage_of(as_dict(said.get("usage"))) or Usage(estimated=True),
        provider=provider,
    )


def _tool_call(use: dict[str, Any], place: str) -> ToolCall:
    name = as_text(use.get("name"))
    function = FunctionCall(name=name, arguments=as_json_text(use.get("input")) or "{}")
    return ToolCall(id=as_name(use.get("id")) or made_id(place, name, prefix="toolu_"), function=function)
