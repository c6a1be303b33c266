"""A question to a model, checked once, where it enters."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from rubberduck.errors import InvalidRequest
from rubberduck.types.content import AudioPart, CacheControl, FilePart, ImagePart, Part, TextPart
from rubberduck.types.frozen import Frozen, unicode
from rubberduck.types.messages import Message
from rubberduck.types.tools import AnyTool, Tool, ToolChoice

MAX_REQUEST_CHARS = 32 * 1024 * 1024
"""The largest request accepted, in characters of its JSON: more than any provider takes."""
MAX_OUTPUT_TOKENS = 10_000_000

ModelName = Annotated[str, AfterValidator(unicode), Field(min_length=1, max_length=256)]


def _listed(value: Any, name: str) -> Any:
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"{name} is a list, not {type(value).__name__}")


class Question(Frozen):
    """Something that a provider is asked, whatever it is to give."""

    model: ModelName

    def require_json(self) -> None:
        """Raise InvalidRequest unless it can be sent as JSON of a sane size."""
        raise NotImplementedError


Q = TypeVar("Q", bound=Question)


class Request(Question):
    """One question to a model.

    `model` is a model's name, a route `provider/model`, or a name from the configuration's `models`.
    `extra` holds parameters that only some provider knows: under a provider's name, or its module's, those for it
    alone; all others are sent to whichever provider answers. `functions` is the old spelling of `tools` and is turned
    into it. `system` is put before the messages.

    `reasoning_budget` is in tokens. `cache_control` asks for a mark behind the last part that can carry one.
    What a provider cannot be told is named in the answer's `warnings`, or refused.
    """

    messages: tuple[Message, ...] = Field(min_length=1, max_length=100_000)
    max_tokens: int | None = Field(default=None, ge=1, le=MAX_OUTPUT_TOKENS)
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    top_k: int | None = Field(default=None, ge=1, le=1_000_000)
    stop: tuple[str, ...] = ()
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    logit_bias: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: tuple[AnyTool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    reasoning_budget: int | None = Field(default=None, ge=0, le=MAX_OUTPUT_TOKENS)
    reasoning_summary: Literal["auto", "concise", "detailed", "none"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    cache_control: CacheControl | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
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
        return parsed(cls, value)

    def require_json(self) -> None:
        """Raise InvalidRequest unless the request can be sent as JSON of a sane size."""
        size = sum([_letters(message) for message in self.messages])
        raw: list[Any] = [message.native.items for message in self.messages if message.native is not None]
        raw += [each.raw for message in self.messages for each in message.annotations]
        if self.extra or self.response_format or self.tools or raw:
            schemas = [
                tool.function.parameters if isinstance(tool, Tool) else tool.custom.format for tool in self.tools
            ]
            free = {"extra": self.extra, "response_format": self.response_format, "tools": schemas, "messages": raw}
            size += sum([written_length(value, field) for field, value in free.items() if value])
        require_size(size, "messages")


def _letters(message: Message) -> int:
    """How long a turn is, in characters of what can be long in it."""
    size = sum([len(call.function.arguments) for call in message.tool_calls]) if message.tool_calls else 0
    if message.audio is not None:
        size += len(message.audio.data)
    if isinstance(message.content, str):
        return size + len(message.content)
    return size + sum([_part_letters(part) for part in message.content or ()])


def _part_letters(part: Part) -> int:
    match part:
        case TextPart():
            return len(part.text)
        case ImagePart():
            return len(part.image_url.url)
        case AudioPart():
            return len(part.input_audio.data)
        case FilePart():
            return len(part.file.file_data or "") + len(part.context or "")


def parsed(kind: type[Q], value: Q | dict[str, Any]) -> Q:
    """A question of some kind, checked. Raises InvalidRequest."""
    # One that was made already is checked too: `model_copy` and `model_construct` put anything into it.
    told = value.__dict__ if isinstance(value, kind) else value
    if not isinstance(told, dict):
        raise InvalidRequest(f"a request is a dict or a rubberduck.{kind.__name__}, not {type(value).__name__}")
    try:
        request = kind.model_validate(told)
    except ValidationError as error:
        raise _as_invalid_request(error, kind) from None
    except RecursionError:
        raise InvalidRequest("the request is nested too deeply to be read") from None
    request.require_json()
    return request


def written_length(free_form: object, field: str | None = None) -> int:
    """How many characters this is as JSON. Raises InvalidRequest where it is none, with the name of its `field`."""
    try:
        return len(json.dumps(free_form, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}", field=field) from None


def require_size(size: int, field: str) -> None:
    """Raise InvalidRequest for what no provider would take."""
    if size > MAX_REQUEST_CHARS:
        raise InvalidRequest(
            f"the request has {size:,} characters; at most {MAX_REQUEST_CHARS:,} are accepted", field=field
        )


def _as_invalid_request(error: ValidationError, kind: type[Frozen]) -> InvalidRequest:
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    places = [_place(fault["loc"]) for fault in faults]
    problems = []
    for fault, place in zip(faults, places, strict=True):
        if any(other[: len(place)] == place and other != place for other in places):
            continue  # it only says that something within is wrong
        problems.append((".".join(map(str, place)) or "request", _told(fault["type"], fault["msg"], place, kind)))
    problems = problems[:5]
    message = "; ".join(f"{place}: {text}" for place, text in problems)
    return InvalidRequest(f"the request is not valid: {message}", field=problems[0][0])


def _place(told: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Where a fault is, in the words of who wrote the request: without the tags that tell kinds apart."""
    return tuple([step for step in told if not (isinstance(step, str) and step.startswith("~"))])


def _told(fault: str, message: str, place: tuple[int | str, ...], kind: type[Frozen]) -> str:
    """A fault in the words of who wrote the request."""
    if fault == "tuple_type":
        return "must be a list"
    if fault == "too_short" and place == ("messages",):
        return "must have at least one message"
    if fault != "extra_forbidden":
        return message
    near = get_close_matches(str(place[-1]), kind.model_fields, n=1, cutoff=0.75) if len(place) == 1 else []
    hint = f"did you mean {near[0]!r}?" if near else "provider-specific parameters go into `extra`"
    return f"unknown field; {hint}"
