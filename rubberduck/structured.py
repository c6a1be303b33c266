"""Answers as values of a Python type: the schema to ask with, the answer read, and the question that mends it.

    request = {..., "response_format": schema_of(Person)}
    person = read(Person, response)

A type is a pydantic model or anything else that pydantic can check: a dataclass, a TypedDict, `list[int]`, a union.
Providers want an object at the root, so what is none is asked for, and read, as `{"value": ...}`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from decimal import Decimal
from typing import Any, TypeVar, overload

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic.json_schema import GenerateJsonSchema

from rubberduck.core.json_in_text import candidates, is_json
from rubberduck.core.shown import shown
from rubberduck.core.strict_schema import rooted, strict
from rubberduck.errors import InvalidRequest, OutputInvalid
from rubberduck.types import FinishReason, Message, Request, Response
from rubberduck.types.request import written_length

T = TypeVar("T")

MAX_PROBLEMS, MAX_PROBLEM = 8, 200
"""How many problems are told of an answer, and how long each is, in characters."""
MAX_TYPES = 256
"""So many types are remembered with their schemas: the last ones, whether or not anybody else still has them."""
_WRAPPED = "value"


def schema_of(model: Any) -> dict[str, Any]:
    """The `response_format` that asks for a value of the type. Do not change it: it is shared.

    It is strict where OpenAI's subset of JSON Schema can say the type, and `strict: False` where it cannot (an open
    dict, `Any`, a tuple of several types). Strictly, every property is required, also those with a default.

    Raises:
        InvalidRequest: if JSON has no schema for the type.
    """
    return _form_of(model).response_format


def known_schema_of(model: Any) -> dict[str, Any] | None:
    """The same, if it has been made before; None if it has not. Runs none of the type's code that describes it."""
    form = _find(model)
    return None if form is None else form.response_format


@overload
def read(model: type[T], response: Response) -> T: ...
@overload
def read(model: Any, response: Response) -> Any: ...


def read(model: Any, response: Response) -> Any:
    """The first choice's text as a value of the type.

    As a last resort, where the text as a whole is no JSON, the value is looked for in a fenced block and in the prose:
    the last that fits. An answer that was cut off or filtered counts only if all of it is JSON.

    Raises:
        OutputInvalid: says whether the model refused, was cut off, wrote no JSON, or wrote JSON that does not fit.
    """
    form = _form_of(model)
    if not response.choices:
        raise _invalid(response, "empty", "the answer is empty: it has no choices")
    choice = response.choices[0]
    text = choice.message.text.strip()
    if choice.message.refusal and not text:
        raise _invalid(response, "refusal", f"the model refused to answer: {_brief(choice.message.refusal)}")
    is_cut = choice.finish_reason in _CUT
    written = [text] if is_json(text) else [] if is_cut else candidates(text)
    faults: list[ValidationError] = []
    for each in written:
        try:
            return form.value(each)
        except ValidationError as fault:
            faults.append(fault)
    if is_cut:
        raise _invalid(response, *_CUT[choice.finish_reason])
    if faults:
        raise _misfit(response, form.name, faults[0])
    raise _without_json(response, text)


def repair_request(request: Request, response: Response, error: OutputInvalid) -> Request:
    """The conversation with the answer that did not do, and a word on what is wrong with it."""
    turns = list(request.messages)
    if response.choices and response.text:
        # Calls that nobody answers are refused by providers, and verbatim parts would bring them back.
        answer = response.choices[0].message
        turns.append(answer.model_copy(update={"tool_calls": (), "native": None}) if answer.tool_calls else answer)
    told = "\n".join(f"- {problem}" for problem in error.problems[:MAX_PROBLEMS])
    turns.append(Message(role="user", content=f"{_MEND}\n{told}\n{_ONLY}"))
    return request.model_copy(update={"messages": tuple(turns), "n": 1})


_MEND = "Your answer cannot be used:"
_ONLY = "Answer again, with the whole corrected JSON value that the schema asks for and nothing else."
_CUT = {
    FinishReason.LENGTH: ("length", "the answer was cut off before its JSON was whole: allow more with `max_tokens`"),
    FinishReason.CONTENT_FILTER: ("content_filter", "a content policy stopped the answer before its JSON was whole"),
}
_MENDABLE = frozenset({"empty", "no_json", "mismatch"})


# -- types -----------------------------------------------------------------------------------------


class _Form:
    """A type as providers are asked for it and as its values are read."""

    __slots__ = ("_plain", "_wrapped", "name", "response_format")

    def __init__(self, model: Any) -> None:
        self.name = _name_of(model)
        self._plain: TypeAdapter[Any] = TypeAdapter(model)
        self._wrapped: type[BaseModel] | None = None
        schema = self._described(self._plain)
        if schema.get("type") != "object":
            self._wrapped = create_model(self.name, __config__=ConfigDict(extra="forbid"), value=(model, ...))
            schema = self._described(TypeAdapter(self._wrapped))
            schema.pop("title", None)
        said = strict(schema)
        body = {"name": self.name, "schema": schema if said is None else said, "strict": said is not None}
        self.response_format: dict[str, Any] = {"type": "json_schema", "json_schema": body}

    def value(self, written: str) -> Any:
        """Raises ValidationError. A value without its wrapping will do as well."""
        if self._wrapped is None:
            return self._plain.validate_json(written)
        try:
            return getattr(self._wrapped.model_validate_json(written), _WRAPPED)
        except ValidationError as fault:
            try:
                return self._plain.validate_json(written)
            except ValidationError:
                raise fault from None

    @staticmethod
    def _described(adapter: TypeAdapter[Any]) -> dict[str, Any]:
        return rooted(adapter.json_schema(schema_generator=_Schemas))


class _Schemas(GenerateJsonSchema):
    """Pydantic's schemas without the titles that only repeat a field's name."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


_forms: dict[Any, _Form] = {}
# By type and not weakly: a form validates, so it holds its type, and nothing would ever be forgotten.
_keeping = threading.Lock()


def _find(model: Any) -> _Form | None:
    try:
        return _forms.get(model)
    except Exception:  # noqa: BLE001 - an annotation with something in it that has no hash
        return None


def _form_of(model: Any) -> _Form:
    return _find(model) or _kept(model, _made(model))


def _kept(model: Any, form: _Form) -> _Form:
    with contextlib.suppress(Exception), _keeping:  # without a hash it is made anew each time
        if len(_forms) >= MAX_TYPES:
            del _forms[next(iter(_forms))]
        _forms[model] = form
    return form


def _made(model: Any) -> _Form:
    try:
        form = _Form(model)
        written_length(form.response_format)
    except Exception as error:  # a type may have code of its own that describes it
        fault = str(error).partition("\n")[0] or type(error).__name__
        raise InvalidRequest(
            f"JSON has no schema for {shown(model)}: {_brief(fault)}", field="response_format"
        ) from error
    return form


def _name_of(model: Any) -> str:
    if hasattr(model, "__metadata__"):  # Annotated
        return _name_of(model.__origin__)
    told = model.__name__ if isinstance(model, type) and not hasattr(model, "__origin__") else str(model)
    told = re.sub(r"[\w<>]+\.", "", told)  # where it is defined is no concern of the provider
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", told).strip("_")[:64] or "output"


# -- what is told of an answer ---------------------------------------------------------------------


def _misfit(response: Response, name: str, fault: ValidationError) -> OutputInvalid:
    problems = _problems(fault)
    return _invalid(response, "mismatch", f"the answer does not fit {name}: {'; '.join(problems)}", problems)


def _without_json(response: Response, text: str) -> OutputInvalid:
    if text:
        return _invalid(response, "no_json", f"the answer holds no JSON; it begins with: {_brief(text)}")
    if response.choices[0].message.tool_calls:
        return _invalid(response, "tool_calls", "the answer calls tools and says nothing: answer the calls first")
    return _invalid(response, "empty", "the answer is empty")


def _problems(fault: ValidationError) -> tuple[str, ...]:
    faults = fault.errors(include_url=False, include_context=False, include_input=False)
    places = [".".join(map(str, each["loc"])) or "the value" for each in faults[:MAX_PROBLEMS]]
    told = [_brief(f"{place}: {each['msg']}") for place, each in zip(places, faults, strict=False)]
    rest = len(faults) - len(told)
    return (*told, f"and {rest} more") if rest else tuple(told)


def _brief(text: str) -> str:
    return text if len(text) <= MAX_PROBLEM else f"{text[:MAX_PROBLEM]}..."


def _invalid(response: Response, reason: str, message: str, problems: tuple[str, ...] = ()) -> OutputInvalid:
    costs = [attempt.cost for attempt in response.attempts] or [response.usage.cost]
    error = OutputInvalid(
        message,
        reason=reason,
        response=response,
        problems=problems or (message,),
        provider=response.provider or None,
        model=response.model or None,
        retryable=reason in _MENDABLE,
        attempts=response.attempts,
        spent=None if None in costs else sum(filter(None, costs), start=Decimal(0)),
        request_id=response.request_id or None,
    )
    error.trace = response.trace
    return error
