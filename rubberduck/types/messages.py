"""The turns of a conversation, with everything that has to survive from one to the next."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rubberduck.types.content import Part, TextPart
from rubberduck.types.frozen import Frozen


class FunctionCall(Frozen):
    """The function a model wants called. `arguments` is the JSON text as the model wrote it, valid or not.

    Of a custom tool it is the text that the tool is to be given.
    """

    name: str
    arguments: str = "{}"


class ToolCall(Frozen):
    """A model's wish to have a tool called; answer it with a `tool` message of the same id."""

    id: str
    type: Literal["function", "custom"] = "function"
    function: FunctionCall


class Annotation(Frozen):
    """Where something in an answer comes from: a web page, a file, a place in a document that was given.

    `start` and `end` are characters of the answer's text, where the provider says so. `raw` is the provider's own word.
    """

    type: str
    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None
    raw: dict[str, Any] = Field(default_factory=dict)


class Audio(Frozen):
    """A spoken answer: base64, its transcript, and the id under which the provider knows it until `expires_at`."""

    id: str = ""
    data: str = ""
    transcript: str = ""
    expires_at: int | None = None


class Native(Frozen):
    """An answer's parts as its provider wrote them, to go back to it unchanged, such as signed reasoning.

    `format` is the language they are in ("anthropic", "responses", ...), `model` who wrote them, and `asked` the name
    it was asked by, where that is another one (an alias, a deployment). Only a request to the same model in the same
    language carries them; to all others goes what the message says in our own fields.
    """

    format: str
    model: str
    asked: str = ""
    items: tuple[dict[str, Any], ...]


class Message(Frozen):
    """One turn of a conversation.

    `refusal`, `reasoning`, `annotations`, `audio` and `native` appear in answers; put the whole message back into the
    conversation, and what its provider wants to see again goes back to it. `is_error` marks a tool's result as failed.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | tuple[Part, ...] | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    function_call: FunctionCall | None = None
    refusal: str | None = None
    reasoning: str | None = None
    annotations: tuple[Annotation, ...] = ()
    audio: Audio | None = None
    is_error: bool = False
    native: Native | None = None

    @property
    def text(self) -> str:
        """All text of the message, without its other parts."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, TextPart))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The content in parts, whichever way it was given; a text is one part, empty content none."""
        if isinstance(self.content, str):
            return (TextPart(text=self.content),) if self.content else ()
        return self.content or ()

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.role == "tool" and not self.tool_call_id:
            raise ValueError("a tool message needs the tool_call_id that it answers")
        if self.content is None and not (self.role == "assistant" or self.tool_calls):
            raise ValueError(f"a {self.role} message needs content")
        return self
