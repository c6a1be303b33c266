"""What a provider's server says, beside what that means: the material that a contract is held against.

Take the bytes from the vendor's documentation or from a recorded call, as short as they can be, and write down by hand
what they mean. Of a meaning only what is given is compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from rubberduck.errors import RubberDuckError
from rubberduck.types import FinishReason, Message, Response, Usage

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}

Written = bytes | str | dict[str, Any] | list[Any]
"""A body: bytes as they are, text in UTF-8, anything else as JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer means.

    `tool_calls` are pairs of a name and the arguments: parsed, or as text where they are no JSON. `usage` names the
    fields of `Usage` that are known. `reasoning` and `refusal` are compared unless None.
    """

    text: str = ""
    finish_reason: FinishReason | str = FinishReason.STOP
    tool_calls: Sequence[tuple[str, Any]] = ()
    usage: Mapping[str, Any] = field(default_factory=dict)
    reasoning: str | None = None
    refusal: str | None = None

    def differences(self, response: Response) -> list[str]:
        """What of a response is not as it should be, each in a sentence."""
        if not response.choices:
            return ["the response has no choice"]
        choice = response.choices[0]
        wanted = {
            "text": (self.text, choice.message.text),
            "finish_reason": (str(self.finish_reason), str(choice.finish_reason)),
            "tool calls": ([(name, said) for name, said in self.tool_calls], calls_of(choice.message)),
        }
        if self.reasoning is not None:
            wanted["reasoning"] = (self.reasoning, choice.message.reasoning or "")
        if self.refusal is not None:
            wanted["refusal"] = (self.refusal, choice.message.refusal or "")
        wanted |= {f"usage.{name}": (value, getattr(response.usage, name)) for name, value in self.usage.items()}
        return [f"{name} is {got!r}, not {due!r}" for name, (due, got) in wanted.items() if due != got]


Kind = Literal["answer", "stream", "embeddings", "count"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One answer of the server, and what it means: an `Answer`, an error's class, vectors, or a count.

    `kind` is what was asked for. `details` are attributes that an error must have, such as `retry_after`.
    """

    name: str
    kind: Kind
    body: bytes
    means: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_failure(self) -> bool:
        return isinstance(self.means, type)


def answer(name: str, body: Written, *, headers: Mapping[str, str] = JSON, **means: Any) -> Exchange:
    """A whole answer; `means` are the fields of `Answer`."""
    return Exchange(name, "answer", _bytes(body), Answer(**means), headers=headers)


def stream(name: str, body: Written, *, headers: Mapping[str, str] = EVENTS, **means: Any) -> Exchange:
    """A streamed answer; `means` are the fields of `Answer`."""
    return Exchange(name, "stream", _bytes(body), Answer(**means), headers=headers)


def failure(
    name: str,
    status: int,
    body: Written,
    error: type[RubberDuckError],
    *,
    headers: Mapping[str, str] | None = None,
    inside_stream: bool = False,
    **details: Any,
) -> Exchange:
    """An answer that stands for an error; with `inside_stream`, a stream that began well and reports one."""
    usual = EVENTS if inside_stream else JSON
    kind: Kind = "stream" if inside_stream else "answer"
    return Exchange(name, kind, _bytes(body), error, status, usual | dict(headers or {}), details)


def vectors(name: str, body: Written, *of_texts: Sequence[float]) -> Exchange:
    """The answer to a request for embeddings of as many texts as vectors are given, in the order of the texts."""
    return Exchange(name, "embeddings", _bytes(body), tuple(tuple(vector) for vector in of_texts))


def count(name: str, body: Written, tokens: int) -> Exchange:
    """The answer to the question how many tokens a request is."""
    return Exchange(name, "count", _bytes(body), tokens)


def calls_of(message: Message) -> list[tuple[str, Any]]:
    """The tool calls of a message as pairs of name and arguments, parsed where they are JSON."""
    return [(call.function.name, _arguments(call.function.arguments)) for call in message.tool_calls]


def faults_of(usage: Usage) -> list[str]:
    """What no usage may say."""
    counts = {name: getattr(usage, name) for name in usage.__slots__ if name.endswith("_tokens")}
    return [f"usage.{name} is {told!r}" for name, told in counts.items() if told is not None and told < 0]


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _bytes(body: Written) -> bytes:
    if isinstance(body, bytes):
        return body
    return (body if isinstance(body, str) else json.dumps(body)).encode()
