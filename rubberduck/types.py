"""What goes into a call and what comes out, the same for every provider.

A request is validated once, where it enters (`Request.parse`). What comes back is made of frozen
dataclasses: cheap to build, safe to share between threads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rubberduck.errors import InvalidRequest

MAX_REQUEST_CHARS = 32 * 1024 * 1024
"""The largest request accepted, in characters of its JSON: more than any provider takes."""
MAX_OUTPUT_TOKENS = 10_000_000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class TextPart(_Frozen):
    """A piece of text in a message of several parts."""

    type: Literal["text"] = "text"
    text: str


class ImageUrl(_Frozen):
    """Where an image is: an https URL, or a data: URL that carries it."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class ImagePart(_Frozen):
    """An image in a message."""

    type: Literal["image_url"] = "image_url"
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class FunctionCall(_Frozen):
    """The function a model wants called. `arguments` is the JSON text as the model wrote it, valid or not."""

    name: str
    arguments: str = "{}"


class ToolCall(_Frozen):
    """A model's wish to have a tool called; answer it with a `tool` message of the same id."""

    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(_Frozen):
    """One turn of a conversation. `reasoning` and `refusal` appear in answers only."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """All text of the message, without its other parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, TextPart))

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs the tool_call_id that it answers")
        if self.content is None and not (self.role == "assistant" or self.tool_calls):
            raise ValueError(f"a {self.role} message needs content")
        return self


class FunctionDef(_Frozen):
    """A function that a model may ask to have called; `parameters` is a JSON Schema."""

    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Frozen):
    """A tool that a model may use."""

    type: Literal["function"] = "function"
    function: FunctionDef


class NamedFunction(_Frozen):
    name: str


class NamedTool(_Frozen):
    """The one tool that the model must use."""

    type: Literal["function"] = "function"
    function: NamedFunction


def _unicode(text: str) -> str:
    """Half a surrogate pair is no text: neither a provider nor the ledger can be told of it."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("is not valid Unicode")
    return text


def _listed(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"{name} is a list, not {type(value).__name__}")


class Request(_Frozen):
    """One question to a model.

    `model` is a model's name, a route `provider/model`, or a name from the configuration's `models`.
    `extra` holds parameters that only some provider knows; they are sent as they are.
    `functions` is the old spelling of `tools` and is turned into it. `system` is put before the messages.
    """

    model: Annotated[str, AfterValidator(_unicode)] = Field(min_length=1, max_length=256)
    messages: tuple[Message, ...] = Field(min_length=1, max_length=100_000)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    stop: tuple[str, ...] = ()
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    tools: tuple[Tool, ...] = ()
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    user: str | None = None
    stream: bool = False
    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_older_spellings(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        value = dict(value)
        if isinstance(value.get("stop"), str):
            value["stop"] = (value["stop"],)
        if functions := value.pop("functions", None):
            tools = _listed(value.get("tools") or (), "tools")
            value["tools"] = [*tools, *({"function": function} for function in _listed(functions, "functions"))]
        if (system := value.pop("system", None)) is not None:
            messages = _listed(value.get("messages", ()), "messages")
            value["messages"] = [{"role": "system", "content": system}, *messages]
        return value

    @classmethod
    def parse(cls, value: Request | dict[str, Any]) -> Request:
        """Check a request where it enters.

        Raises:
            InvalidRequest: with the path of the first wrong value in `field`.
        """
        if isinstance(value, Request):
            value.require_json()
            return value
        if not isinstance(value, dict):
            raise InvalidRequest(f"a request is a dict or a rubberduck.Request, not {type(value).__name__}")
        try:
            request = cls.model_validate(value)
        except ValidationError as error:
            raise _as_invalid_request(error) from None
        except RecursionError:
            raise InvalidRequest("the request is nested too deeply to be read") from None
        request.require_json()
        return request

    def require_json(self) -> None:
        """Raise InvalidRequest unless the request can be sent as JSON of a sane size."""
        size = sum(len(message.content) for message in self.messages if isinstance(message.content, str))
        free_form = [self.extra, self.response_format, [tool.function.parameters for tool in self.tools]]
        if any(free_form[:2]) or self.tools:
            try:
                size += len(json.dumps(free_form, allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidRequest(f"the request cannot be written as JSON: {error}") from None
        size += sum(
            len(part.text) if isinstance(part, TextPart) else len(part.image_url.url)
            for message in self.messages
            if isinstance(message.content, tuple)
            for part in message.content
        )
        if size > MAX_REQUEST_CHARS:
            raise InvalidRequest(
                f"the request has {size:,} characters; at most {MAX_REQUEST_CHARS:,} are accepted", field="messages"
            )


def _as_invalid_request(error: ValidationError) -> InvalidRequest:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    places = [fault["loc"] for fault in faults]
    problems = []
    for fault in faults:
        place = fault["loc"]
        if any(other[: len(place)] == place and other != place for other in places):
            continue  # it only says that something within is wrong
        problems.append((".".join(map(str, place)) or "request", _told(fault["type"], fault["msg"], place)))
    problems = problems[:5]
    message = "; ".join(f"{place}: {text}" for place, text in problems)
    return InvalidRequest(f"the request is not valid: {message}", field=problems[0][0])


def _told(kind: str, message: str, place: tuple[int | str, ...]) -> str:
    """A fault in the words of who wrote the request."""
    if kind == "tuple_type":
        return "must be a list"
    if kind == "too_short" and place == ("messages",):
        return "must have at least one message"
    if kind != "extra_forbidden":
        return message
    near = get_close_matches(str(place[-1]), Request.model_fields, n=1, cutoff=0.75) if len(place) == 1 else []
    hint = f"did you mean {near[0]!r}?" if near else "provider-specific parameters go into `extra`"
    return f"unknown field; {hint}"


class FinishReason(StrEnum):
    """Why an answer ended, in one vocabulary for all providers."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    PAUSE = "pause"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call consumed, in tokens, and what that costs in USD.

    `prompt_tokens` is all input, cached or not; `completion_tokens` all output, reasoning included.
    None means that the provider did not say; `cost` is None where the price is unknown, never 0.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request. `raw_finish_reason` is the provider's own word."""

    index: int
    message: Message
    finish_reason: FinishReason
    raw_finish_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request on the wire: where it went, how it ended, how long it took, what it cost.

    `started` is seconds since the call was accepted, `duration` seconds. `outcome` is "success" or the
    name of the error. `cost` is None where it is unknown or still uncertain. `key` is the public name of the
    provider's key, such as "key 2", where it has several.
    """

    provider: str
    model: str
    outcome: str
    started: float
    duration: float
    cost: Decimal | None = None
    key: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer. `created` is a Unix time. `provider` is the name from the configuration.

    `cached` and `shared` answers cost nothing: they were given before, or another call that asked the same pays.
    `spliced` says that it was begun by one route and continued by another, after the first broke off.
    """

    id: str
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    created: int = 0
    provider: str = ""
    attempts: tuple[Attempt, ...] = ()
    cached: bool = False
    request_id: str = ""
    trace: Any = field(default=None, repr=False, compare=False)
    spliced: bool = False
    shared: bool = False

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.text if self.choices else ""

    def __str__(self) -> str:
        """The text, and a line that says where it comes from and at what price."""
        usage, marks = self.usage, ("cached", "shared", "spliced")
        cost = "cost unknown" if usage.cost is None else f"{usage.cost:f} USD"
        told = [f"{self.provider}/{self.model}", f"{usage.prompt_tokens} + {usage.completion_tokens} tokens", cost]
        told += [f"after {each.outcome} at {each.provider}" for each in self.attempts if each.outcome != "success"]
        told += [mark for mark in marks if getattr(self, mark)]
        return f"{self.text}\n({', '.join(told)})"


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A fragment of a tool call. Fragments with one `index` belong together; `arguments` are concatenated."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """What one chunk adds to an answer."""

    content: str = ""
    role: str | None = None
    tool_calls: tuple[ToolCallDelta, ...] = ()
    reasoning: str = ""
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One step of a stream. `usage` is cumulative and comes with the last chunk, or never."""

    index: int = 0
    delta: Delta = Delta()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    raw_finish_reason: str | None = None
    id: str | None = None
    model: str | None = None
