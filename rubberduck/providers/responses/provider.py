"""OpenAI's Responses API: for models that think between calls, and whatever chat completions are not told of.

Nothing is stored at the server: the whole conversation is sent each time, and what a model thought comes sealed in the
answer (`Message.native`) and goes back with it. System texts stay messages in their places, and do not become
`instructions`: so several keep their borders, their roles (system or developer) and their marks for the cache.

Source: OpenAI API reference, "Create a model response"; the types of its official SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest, ProtocolError
from rubberduck.providers import failures
from rubberduck.providers.http import Outgoing, merge_extra
from rubberduck.providers.openai.compatible_table import OPENAI
from rubberduck.providers.openai.messages import breakpoint_warnings
from rubberduck.providers.openai.provider import OpenAI
from rubberduck.providers.openai.request import refused_by
from rubberduck.providers.reading import as_count, as_dict, as_list, as_name, as_text
from rubberduck.providers.responses.items import input_items, native_of, read_output
from rubberduck.providers.responses.stream import ResponsesStreamDecoder, failure_of, finish_of, usage_of
from rubberduck.providers.tool_choice import require_tools
from rubberduck.types import (
    AllowedTools,
    AnyTool,
    CacheControl,
    Choice,
    CustomTool,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    Request,
    Response,
    TextPart,
    TokenCount,
    Usage,
)

FAMILIES = ("codex-", "computer-use-")
"""How the names of models begin that OpenAI serves through this API only."""

_THINKS = re.compile(r"(ft:)?(o[1-9]|gpt-5|codex-)")
_ONLY_TALKS = re.compile(r"(ft:)?gpt-5[\d.]*-chat")
_VERSION = re.compile(r"(?:ft:)?gpt-(\d+)(?:\.(\d+))?")
_NOT_THERE = ("queued", "in_progress", "cancelled")
_SEALED = "reasoning.encrypted_content"
_WITH_LOGPROBS = "message.output_text.logprobs"
_COUNTED = (
    "model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "reasoning", "text",
    "truncation", "conversation", "previous_response_id",
)  # fmt: skip
"""What the server takes for a count of tokens; it refuses the rest."""
_NO_PLACE = ("top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "reasoning_budget")
_SAMPLING = ("temperature", "top_p")


class OpenAIResponses(OpenAI):
    """Speaks to OpenAI, or to a server with its Responses API."""

    word = "openai_responses"
    vendor = "openai"

    def __init__(self, config: ProviderConfig) -> None:
        super().__init__(config)
        if self.is_openai_itself:
            self.offers = self.offers.union(("count",))

    @cached_property
    def is_openai_itself(self) -> bool:
        """Whether the server is OpenAI's own."""
        return f".{urlsplit(self.base_url).hostname}".endswith(".api.openai.com")

    def supports_model(self, model: str) -> bool:
        """Own names and `models` at OpenAI; elsewhere `models`, or any name if none is listed."""
        return super().supports_model(model) or (self.is_openai_itself and model.startswith(FAMILIES))

    def encode(self, request: Request) -> Outgoing:
        """The path, headers and body of a call. Raises InvalidRequest for what the API cannot do."""
        return "/responses", self._headers(), encode_request(request, self.extra_of(request))

    def decode(self, status: int, headers: Mapping[str, str], body: bytes) -> Response:
        """The answer in a whole HTTP response.

        Raises:
            ProtocolError: when a 200 holds no answer, or one that is not there yet; otherwise what `classify` says.
        """
        said = self.said_in(status, headers, body)
        state = as_name(said.get("status"))
        if not isinstance(said.get("output"), list) or state in _NOT_THERE:
            raise self._nothing_there(state, status, headers)
        if state == "failed":
            raise failure_of(said, self.name)
        return decode_response(said, provider=self.name)

    def _nothing_there(self, state: str | None, status: int, headers: Mapping[str, str]) -> ProtocolError:
        return failures.no_answer(f"response (status {state})" if state else "response", status, headers, self.name)

    def stream_decoder(self) -> ResponsesStreamDecoder:  # type: ignore[override]  # another API, another reader
        """A reader of one stream."""
        return ResponsesStreamDecoder(self.name)

    def encode_count(self, request: Request) -> Outgoing:
        """As `encode`, for a count of tokens, which only OpenAI itself is known to give."""
        if not self.is_openai_itself:
            return super().encode_count(request)
        path, headers, body = self.encode(request)
        return f"{path}/input_tokens", headers, {name: body[name] for name in _COUNTED if name in body}

    def decode_count(self, status: int, headers: Mapping[str, str], body: bytes) -> TokenCount:
        """As `decode`."""
        tokens = as_count(self.said_in(status, headers, body).get("input_tokens"))
        if tokens is None:
            raise failures.no_answer("count of tokens", status, headers, self.name)
        return TokenCount(tokens, estimated=False, provider=self.name)

    def warnings(self, request: Request) -> tuple[str, ...]:
        """What is not sent of a request."""
        return tuple(_unsent(request))


# --- what we send


def encode_request(request: Request, extra: dict[str, Any]) -> dict[str, Any]:
    """The body of a call. Raises InvalidRequest."""
    _require_possible(request, extra)
    stored = _is_stored(extra)
    body: dict[str, Any] = {
        "model": request.model,
        "input": input_items(
            request.messages,
            request.model,
            marks=_knows_marks(request.model),
            mark=request.cache_control,
            stored=stored,
        ),
    }
    has_tools = bool(request.tools or extra.get("tools"))
    optional = {
        "max_output_tokens": request.max_tokens,
        **({name: getattr(request, name) for name in _SAMPLING} if takes_sampling(request) else {}),
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request) if has_tools else None,
        "parallel_tool_calls": request.parallel_tool_calls if has_tools else None,
        "reasoning": _reasoning(request),
        "text": _text(request),
        "top_logprobs": request.top_logprobs if takes_sampling(request) else None,
        "include": _include(request) or None,
        "store": None if stored else False,
        "service_tier": request.service_tier,
        "prompt_cache_key": request.prompt_cache_key,
        "metadata": request.metadata,
        "user": request.user,
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    body = merge_extra(body, _with_ours(extra, body))
    if request.stream:
        body["stream"] = True
    return body


def _require_possible(request: Request, extra: dict[str, Any]) -> None:
    if request.n > 1:
        raise InvalidRequest("the Responses API gives one answer; ask n times, or through `openai`", field="n")
    if "input" in extra:
        raise InvalidRequest("extra.input: put it into `messages`", field="extra.input")
    if extra.get("background"):
        raise InvalidRequest("extra.background: an answer for later cannot be waited for", field="extra.background")
    if request.tool_choice is not None:
        require_tools(request, extra)


def _is_stored(extra: dict[str, Any]) -> bool:
    """Whether the server is to keep the answer: where it is told so, or where the call builds on kept ones."""
    told = extra.get("store")
    return bool(told) if told is not None else bool(extra.get("previous_response_id") or extra.get("conversation"))


def _with_ours(extra: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """`extra` with what stands under the same names in the body, where both are lists or objects to be joined."""
    if not extra:
        return extra
    joined: dict[str, Any] = {
        name: body[name] | extra[name]
        for name in ("reasoning", "text")
        if isinstance(extra.get(name), dict) and name in body
    }
    if isinstance(extra.get("include"), list) and "include" in body:
        joined["include"] = [*body["include"], *(each for each in extra["include"] if each not in body["include"])]
    return extra | joined


def thinks(model: str) -> bool:
    """Whether it is known to reason, by its name."""
    return _THINKS.match(model) is not None and _ONLY_TALKS.match(model) is None


def takes_sampling(request: Request) -> bool:
    """Whether the model can be told how to choose its words; while it reasons, it refuses to be."""
    return not request.model.startswith(FAMILIES) and "temperature" not in refused_by(request, OPENAI)


def _knows_marks(model: str) -> bool:
    """Whether the model takes marks for the cache: GPT-5.6 and later."""
    found = _VERSION.match(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= (5, 6)


def _include(request: Request) -> list[str]:
    """What the server leaves out unless it is asked; a model that does not reason refuses to be asked for thoughts."""
    sealed = [_SEALED] if thinks(request.model) else []
    return sealed + ([_WITH_LOGPROBS] if _wants_logprobs(request) and takes_sampling(request) else [])


def _wants_logprobs(request: Request) -> bool:
    return bool(request.logprobs or request.top_logprobs)


def _reasoning(request: Request) -> dict[str, Any] | None:
    summary = None if request.reasoning_summary == "none" else request.reasoning_summary
    told = {"effort": request.reasoning_effort, "summary": summary}
    return {name: value for name, value in told.items() if value is not None} or None


def _text(request: Request) -> dict[str, Any] | None:
    told: dict[str, Any] = {}
    if (wanted := request.response_format) is not None:
        schema = as_dict(wanted.get("json_schema"))
        told["format"] = {"type": wanted.get("type"), **schema} if schema else wanted
    if request.verbosity is not None:
        told["verbosity"] = request.verbosity
    return told or None


def _tool(tool: AnyTool) -> dict[str, Any]:
    """A tool in the flat spelling. Where nothing is said, this API makes functions strict, and all others do not."""
    if isinstance(tool, CustomTool):
        custom = tool.custom.model_dump(exclude_none=True)
        if grammar := as_dict(as_dict(custom.get("format")).get("grammar")):
            custom["format"] = {"type": "grammar", **grammar}
        return {"type": "custom", **custom}
    function = tool.function
    told: dict[str, Any] = {"type": "function", "name": function.name}
    if function.description is not None:
        told["description"] = function.description
    told["parameters"] = {"type": "object", "properties": {}} if function.parameters is None else function.parameters
    return told | {"strict": bool(function.strict)}


def _tool_choice(request: Request) -> Any:
    choice = request.tool_choice
    if isinstance(choice, NamedTool):
        return _named(choice.function.name, request)
    if isinstance(choice, AllowedTools):
        tools = [_named(name, request) for name in choice.names]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice


def _named(name: str, request: Request) -> dict[str, str]:
    is_custom = any(isinstance(tool, CustomTool) and tool.custom.name == name for tool in request.tools)
    return {"type": "custom" if is_custom else "function", "name": name}


def _unsent(request: Request) -> Iterator[str]:
    """What the API is not told, each with its field first."""
    for name in _NO_PLACE:
        if getattr(request, name) is not None:
            yield f"{name} is not sent: the Responses API has no place for it"
    if request.stop:
        yield "stop is not sent: the Responses API has no place for it"
    if not takes_sampling(request):
        for name in (*_SAMPLING, "logprobs", "top_logprobs"):
            value = getattr(request, name)
            if value is not None and value is not False:
                yield f"{name} is not sent: {request.model} refuses it while it reasons"
    yield from _unsent_marks(request)
    if any(not isinstance(tool, CustomTool) and tool.cache_control for tool in request.tools):
        yield "tools.cache_control is not sent: the Responses API caches tools by itself"
    yield from _unsent_of_messages(request)


def _unsent_marks(request: Request) -> Iterator[str]:
    answers: list[CacheControl] = []
    others: list[CacheControl] = []
    for message in request.messages:
        if isinstance(message.content, tuple):
            (answers if message.role == "assistant" else others).extend(_marks_in(message))
    if _knows_marks(request.model):
        yield from breakpoint_warnings("cache_control", [request.cache_control])
        yield from breakpoint_warnings("messages.content.cache_control", others)
        if answers:
            yield "messages.content.cache_control is not sent of an answer: only what a model is given can be marked"
        return
    if request.cache_control is not None:
        yield f"cache_control is not sent: {request.model} caches by itself"
    if answers or others:
        yield f"messages.content.cache_control is not sent: {request.model} caches by itself"


def _marks_in(message: Message) -> list[CacheControl]:
    parts = [part for part in message.content or () if isinstance(part, TextPart | ImagePart | FilePart)]
    return [part.cache_control for part in parts if part.cache_control is not None]


def _unsent_of_messages(request: Request) -> Iterator[str]:
    messages = request.messages
    if any(message.name is not None and message.role != "function" for message in messages):
        yield "messages.name is not sent: the Responses API has no place for it"
    if any(message.is_error for message in messages):
        yield "messages.is_error is not sent: the Responses API has no place for it"
    if any(message.audio is not None for message in messages):
        yield "messages.audio is sent as its transcript: the Responses API knows no speech"
    files = [
        part
        for message in messages
        if isinstance(message.content, tuple)
        for part in message.content
        if isinstance(part, FilePart)
    ]
    for name in ("title", "context", "citations"):
        if any(getattr(part, name) is not None for part in files):
            yield f"messages.content.{name} is not sent: the Responses API has no place for it"


# --- what we read


def decode_response(said: dict[str, Any], *, provider: str) -> Response:
    """A parsed `response`. Usage that the server did not tell is marked `estimated`, and zero."""
    items = [item for item in as_list(said.get("output")) if isinstance(item, dict)]
    output, model = read_output(items), as_text(said.get("model"))
    message = output.message(native_of(items, model))
    reason, raw = finish_of(
        said, as_name(said.get("status")), refused=message.refusal is not None, has_tools=bool(message.tool_calls)
    )
    return Response(
        id=as_text(said.get("id")),
        model=model,
        choices=(Choice(0, message, reason, raw, logprobs=output.logprobs),),
        usage=usage_of(said) or Usage(estimated=True),
        created=as_count(said.get("created_at")) or 0,
        provider=provider,
        service_tier=as_name(said.get("service_tier")),
    )
