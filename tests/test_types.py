"""Requests as they enter, and the small promises of the values that come back."""

from __future__ import annotations

import copy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.errors import InvalidRequest
from rubberduck.types import Choice, FinishReason, ImagePart, Message, Request, Response, Usage

HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def test_the_smallest_request_has_plain_defaults() -> None:
    request = Request.parse(HELLO)
    assert (request.model, request.messages[0].text, request.n, request.stream) == ("m", "Hi", 1, False)
    assert Request.parse(request) == request


def test_a_mapping_is_not_changed_by_being_read() -> None:
    value = {**HELLO, "system": "Be kind", "stop": "END", "functions": [{"name": "f"}]}
    before = copy.deepcopy(value)
    Request.parse(value)
    assert value == before


def test_older_spellings_are_understood() -> None:
    request = Request.parse({**HELLO, "system": "Be kind", "stop": "END", "functions": [{"name": "f"}]})
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.stop == ("END",)
    assert request.tools[0].function.name == "f"


def test_parts_of_a_message_are_told_apart_by_their_type() -> None:
    parts = [{"type": "text", "text": "see "}, {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]
    message = Request.parse({**HELLO, "messages": [{"role": "user", "content": parts}]}).messages[0]
    assert message.text == "see "
    assert isinstance(message.content, tuple)
    assert isinstance(message.content[1], ImagePart)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"model": "\ud800"}, "model"),
        ({"nonsense": 1}, "nonsense"),
        ({"tools": [{"function": {"name": ""}}]}, "tools.0.function.name"),
    ],
)
def test_the_first_wrong_value_is_named_by_its_path(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Request.parse({**HELLO, **change})
    assert caught.value.field is not None
    assert caught.value.field.startswith(field)
    assert field.split(".")[0] in str(caught.value)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from([*Request.model_fields, "functions", "system", "other"])


@given(
    value=anything | st.dictionaries(fields, anything, max_size=5) | st.dictionaries(fields, anything).map(HELLO.__or__)
)
def test_whatever_comes_in_is_a_request_or_one_typed_error(value: Any) -> None:
    assert isinstance(parsed(value), Request | InvalidRequest)


def parsed(value: Any) -> Request | InvalidRequest:
    try:
        return Request.parse(value)
    except InvalidRequest as error:
        return error


@given(prompt=st.integers(0, 10**9), completion=st.integers(0, 10**9))
def test_total_tokens_are_input_and_output(prompt: int, completion: int) -> None:
    assert Usage(prompt, completion, cached_tokens=prompt, reasoning_tokens=completion).total_tokens == (
        prompt + completion
    )


def test_the_text_of_a_response_is_its_first_choices() -> None:
    choices = tuple(
        Choice(number, Message(role="assistant", content=text), FinishReason.STOP) for number, text in enumerate("ab")
    )
    assert Response("id", "m", choices, Usage()).text == "a"
    assert Response("id", "m", (), Usage()).text == ""


def test_an_unknown_cost_is_none_and_never_zero() -> None:
    assert Usage().cost is None
    assert Usage(cost=Decimal(0)).cost == 0
