"""Texts turned into vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from rubberduck.types.answers import Attempt, Usage
from rubberduck.types.frozen import unicode
from rubberduck.types.request import Question, parsed, require_size, written_length

MAX_INPUTS = 1_000_000

_Text = Annotated[str, AfterValidator(unicode), Field(min_length=1)]
_Tokens = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class EmbeddingRequest(Question):
    """Texts, or texts as token numbers, that a model is to turn into vectors.

    `input` may be one text. `dimensions` is the length of each vector, where the model can shorten them. Any number of
    texts may be given: a provider is sent as many at a time as it takes. `extra` as in `Request`.
    """

    input: tuple[_Text | _Tokens, ...] = Field(min_length=1, max_length=MAX_INPUTS)
    dimensions: int | None = Field(default=None, ge=1, le=1_000_000)
    user: str | None = None
    extra: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _accept_one_for_many(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("input"), str):
            value = value | {"input": (value["input"],)}
        return value

    @classmethod
    def parse(cls, value: EmbeddingRequest | dict[str, Any]) -> EmbeddingRequest:
        """Check a request where it enters.

        Raises:
            InvalidRequest: with the path of the first wrong value in `field`.
        """
        return parsed(cls, value)

    def require_json(self) -> None:
        """Raise InvalidRequest unless the request can be sent as JSON of a sane size."""
        size = sum([len(text) for text in self.input])
        require_size(size + (written_length(self.extra, "extra") if self.extra else 0), "input")


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text of the request, in its order. The other fields are as in `Response`."""

    model: str
    vectors: tuple[tuple[float, ...], ...]
    usage: Usage
    provider: str = ""
    attempts: tuple[Attempt, ...] = ()
    cached: bool = False
    request_id: str = ""
    trace: Any = field(default=None, repr=False, compare=False)
    warnings: tuple[str, ...] = ()
    shared: bool = False
