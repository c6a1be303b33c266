"""What a provider gives back: an answer, why it ended, and what it consumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from rubberduck.types.messages import Message


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

    `prompt_tokens` is all input, cached or not; `completion_tokens` all output, reasoning included. The others say how
    much of these was read from a cache, written to one (`cache_write_1h_tokens`: for an hour), reasoning or audio.
    None means that the provider did not say; `cost` is None where the price is unknown, never 0. `service_tier` is the
    provider's word for how the call was served, where the price depends on it, and `raw` the whole of what it said.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: Decimal | None = None
    estimated: bool = False
    cache_write_1h_tokens: int | None = None
    prompt_audio_tokens: int | None = None
    completion_audio_tokens: int | None = None
    service_tier: str | None = None
    raw: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def priced(self, cost: Decimal | None) -> Usage:
        """The same at this cost. Field by field, for `replace` takes several times as long."""
        return Usage(
            self.prompt_tokens,
            self.completion_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
            self.reasoning_tokens,
            cost,
            self.estimated,
            self.cache_write_1h_tokens,
            self.prompt_audio_tokens,
            self.completion_audio_tokens,
            self.service_tier,
            self.raw,
        )


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """How likely a token of an answer was: the natural logarithm of its probability, and the likeliest in its place."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    top: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class Logprobs:
    """The tokens of an answer's text and of its refusal, each with its probability."""

    content: tuple[TokenLogprob, ...] = ()
    refusal: tuple[TokenLogprob, ...] = ()

    def __add__(self, other: Logprobs) -> Logprobs:
        return Logprobs(self.content + other.content, self.refusal + other.refusal)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the answers to a request.

    `raw_finish_reason` is the provider's own word, `stop_sequence` the text that ended the answer, where it says so.
    """

    index: int
    message: Message
    finish_reason: FinishReason
    raw_finish_reason: str | None = None
    stop_sequence: str | None = None
    logprobs: Logprobs | None = None


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
    `spliced` says that it was begun by one route and continued by another, after the first broke off. `warnings` name
    what the provider was not told of the request, or was told otherwise.
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
    warnings: tuple[str, ...] = ()
    service_tier: str | None = None
    system_fingerprint: str | None = None

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return self.choices[0].message.text if self.choices else ""

    def __str__(self) -> str:
        """What was said, or is to be called, and a line that says where it comes from and at what price."""
        usage, marks = self.usage, ("cached", "shared", "spliced")
        cost = "cost unknown" if usage.cost is None else f"{usage.cost:f} USD"
        told = [f"{self.provider}/{self.model}", f"{usage.prompt_tokens} + {usage.completion_tokens} tokens", cost]
        told += [f"after {each.outcome} at {each.provider}" for each in self.attempts if each.outcome != "success"]
        told += [mark for mark in marks if getattr(self, mark)]
        return f"{self._said}\n({', '.join(told)})"

    @property
    def _said(self) -> str:
        calls = self.choices[0].message.tool_calls if self.choices else ()
        refusal = self.choices[0].message.refusal if self.choices else None
        said = [self.text or refusal or "", *(f"{call.function.name}({call.function.arguments})" for call in calls)]
        return "\n".join(filter(None, said))


@dataclass(frozen=True, slots=True)
class TokenCount:
    """How many input tokens a request is. `estimated` unless it is what the model itself would count.

    `provider` and `model` say who counted. Where it was counted offline `provider` is empty, and `attempts` are those
    that did not bring the number, if any.
    """

    tokens: int
    estimated: bool
    provider: str = ""
    model: str = ""
    attempts: tuple[Attempt, ...] = ()
    request_id: str = ""
    trace: Any = field(default=None, repr=False, compare=False)
