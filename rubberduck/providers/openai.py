"""OpenAI's Chat Completions, as OpenAI serves it and as compatible servers do (set `base_url`).

Source: OpenAI API reference, "Create chat completion"; the dialects are in `dialects`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from rubberduck.errors import RubberDuckError
from rubberduck.providers import dialects, failures
from rubberduck.providers.base import HTTPProvider, merge_extra
from rubberduck.providers.openai_stream import OpenAIStreamDecoder
from rubberduck.providers.reading import as_count, as_dict, as_list, as_name, as_text, made_id
from rubberduck.types import (
    Choice,
    FunctionCall,
    ImagePart,
    Message,
    NamedTool,
    Request,
    Response,
    TextPart,
    ToolCall,
    Usage,
)

FAMILIES = ("gpt-", "chatgpt-", "o1", "o3", "o4", "ft:gpt-")
"""How the names of OpenAI's own chat models begin."""


class OpenAI(HTTPProvider):
    """Speaks to OpenAI, or to any server with its chat API."""

    word = "openai"
    default_base_url = "https://api.openai.com/v1"
    key_variable = "OPENAI_API_KEY"

    @cached_property
    def is_openai_itself(self) -> bool:
        """Whether the server is OpenAI's own, so that its newest spellings are understood."""
        return f".{urlsplit(self.base_url).hostname}".endswith(".api.openai.com")

    def supports_model(self, model: str) -> bool:
        """Own names and `models` at OpenAI; elsewhere `models`, or any name if none is listed."""
        if model in self.config.models:
            return True
        if self.is_openai_itself:
            return model.startswith(FAMILIES)
        return not self.config.models

    def encode(self, request: Request) -> tuple[str, dict[str, str], dict[str, Any]]:
        """The path, headers and body of a call."""
        body = encode_request(request, modern=self.is_openai_itself)
        return "/chat/completions", self._headers(), body

    def _headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        if self.config.organization:
            headers["OpenAI-Organization"] = self.config.organization
        return headers

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no completion; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        if not any(isinstance(choice, dict) for choice in as_list(said.get("choices"))):
            raise failures.no_answer("chat completion", status, headers, self.name)
        return decode_response(said, provider=self.name)

    def classify(self, status: int, headers: Mapping[str, str], body: bytes) -> RubberDuckError:
        """The error that an HTTP response stands for."""
        return failures.make_error(failures.read_body(body), status, headers, self.name)

    def stream_decoder(self) -> OpenAIStreamDecoder:
        """A reader of one stream."""
        return OpenAIStreamDecoder(self.name)


# --- what we send


def encode_request(request: Request, *, modern: bool) -> dict[str, Any]:
    """The body of a call. `modern` is for OpenAI itself: compatible servers know only the older spellings."""
    body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.messages, modern=modern)}
    optional = {
        "max_completion_tokens" if modern else "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop) or None,
        "n": request.n if request.n > 1 else None,
        "seed": request.seed,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "tools": [tool.model_dump(exclude_none=True) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request) if request.tools else None,
        "parallel_tool_calls": request.parallel_tool_calls if request.tools else None,
        "response_format": request.response_format,
        "reasoning_effort": request.reasoning_effort,
        "user": request.user,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    body = merge_extra(body, request)
    if request.stream:
        body["stream"] = True
        body["stream_options"] = as_dict(body.get("stream_options")) | {"include_usage": True}
    return body


def _tool_choice(request: Request) -> Any:
    choice = request.tool_choice
    return choice.model_dump() if isinstance(choice, NamedTool) else choice


def encode_messages(messages: Iterable[Message], *, modern: bool) -> list[dict[str, Any]]:
    """The conversation. Images in tool results follow as a user message, since tool messages hold text only."""
    encoded: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for message in messages:
        if images and message.role != "tool":
            encoded.append({"role": "user", "content": images})
            images = []
        if message.role == "tool" and isinstance(message.content, tuple):
            images += [_part(part) for part in message.content if isinstance(part, ImagePart)]
        encoded.append(_message(message, modern=modern))
    if images:
        encoded.append({"role": "user", "content": images})
    return encoded


def _message(message: Message, *, modern: bool) -> dict[str, Any]:
    role = "system" if message.role == "developer" and not modern else message.role
    encoded: dict[str, Any] = {"role": role, "content": _content(message)}
    if message.name is not None:
        encoded["name"] = message.name
    if message.tool_call_id is not None:
        encoded["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        encoded["tool_calls"] = [call.model_dump() for call in message.tool_calls]
    elif message.function_call is not None:
        encoded["function_call"] = message.function_call.model_dump()
    if message.refusal is not None:
        encoded["refusal"] = message.refusal
    return encoded


def _content(message: Message) -> str | list[dict[str, Any]] | None:
    if message.role == "tool":
        return message.text
    if isinstance(message.content, tuple):
        return [_part(part) for part in message.content]
    if message.content is None and not (message.tool_calls or message.function_call or message.refusal):
        return ""
    return message.content


def _part(part: TextPart | ImagePart) -> dict[str, Any]:
    return part.model_dump(exclude_none=True)


# --- what we read


def decode_response(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed `chat.completion`. Usage that the server did not tell is marked `estimated`, and zero."""
    answer_id = as_text(said.get("id"))
    choices = [choice for choice in as_list(said["choices"]) if isinstance(choice, dict)]
    return Response(
        id=answer_id,
        model=as_text(said.get("model")),
        choices=tuple(_choice(position, choice, answer_id) for position, choice in enumerate(choices)),
        usage=dialects.usage_of(said) or Usage(estimated=True),
        created=as_count(said.get("created")) or 0,
        provider=provider,
    )


def _choice(position: int, choice: dict[str, Any], answer_id: str) -> Choice:
    said = as_dict(choice.get("message"))
    text, reasoning = dialects.content_of(said)
    refusal = as_text(said.get("refusal")) or None
    calls = tuple(
        _tool_call(call, f"{answer_id}/{position}/{number}") for number, call in enumerate(dialects.tool_calls_of(said))
    )
    raw = as_name(choice.get("finish_reason"))
    index = as_count(choice.get("index"))
    message = Message(
        role="assistant",
        content=text if text or not (calls or refusal) else None,
        tool_calls=calls,
        function_call=calls[0].function if calls and not as_list(said.get("tool_calls")) else None,
        refusal=refusal,
        reasoning=reasoning or None,
    )
    reason = dialects.finish_reason(raw, has_tools=bool(calls), refused=refusal is not None)
    return Choice(position if index is None else index, message, reason, raw)


def _tool_call(call: dict[str, Any], place: str) -> ToolCall:
    name, arguments = dialects.function_of(call)
    return ToolCall(
        id=as_name(call.get("id")) or made_id(place, name),
        function=FunctionCall(name=name, arguments=arguments or "{}"),
    )
