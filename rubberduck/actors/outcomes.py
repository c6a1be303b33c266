"""How a call ended, as JSON and back: what a durable job keeps of it."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from typing import Any

from pydantic import TypeAdapter

from rubberduck import errors
from rubberduck.errors import CallInterrupted, RubberDuckError
from rubberduck.types import Attempt, Response

NOTHING = Decimal(0)

_KEPT = (
    "provider",
    "model",
    "retryable",
    "retry_after",
    "request_id",
    "reason",
    "status",
    "type",
    "code",
    "field",
    "phase",
)


@functools.cache
def _responses() -> TypeAdapter[Response]:
    return TypeAdapter(Response)


@functools.cache
def _attempts() -> TypeAdapter[tuple[Attempt, ...]]:
    return TypeAdapter(tuple[Attempt, ...])


def of_response(response: Response) -> str:
    """A whole answer; its trace is not kept."""
    return _responses().dump_json(response, exclude={"trace"}).decode()


def of_error(error: RubberDuckError) -> str:
    """An error with what it says about itself."""
    told: dict[str, Any] = {name: value for name in _KEPT if (value := getattr(error, name, None)) is not None}
    told["spent"] = None if error.spent is None else str(error.spent)
    told["attempts"] = _attempts().dump_python(error.attempts, mode="json")
    return json.dumps({"error": type(error).__name__, "message": error.message, **told})


def response_in(outcome: str) -> Response:
    """The answer that `of_response` wrote."""
    return _responses().validate_json(outcome)


def error_in(outcome: str) -> RubberDuckError:
    """The error that `of_error` wrote."""
    told = json.loads(outcome)
    kind = getattr(errors, told.pop("error"), CallInterrupted)
    error: RubberDuckError = kind(told.pop("message"))
    spent = told.pop("spent")
    error.spent = None if spent is None else Decimal(spent)
    error.attempts = _attempts().validate_python(told.pop("attempts"))
    for name, value in told.items():
        setattr(error, name, value)
    return error
