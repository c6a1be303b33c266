"""The real small model through the whole tree: calls and answers that keep to a schema, exact counts, vectors.

One duck serves all of these tests; the model loads in half a second and writes about a hundred tokens in one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rubberduck import RubberDuck
from rubberduck.errors import ContextLengthExceeded, InvalidRequest
from rubberduck.providers.local import model as local_model
from rubberduck.types import Delta, FinishReason, Response

pytestmark = pytest.mark.local_model

CITY = {"type": "string", "maxLength": 20}
WEATHER = {
    "type": "object",
    "properties": {
        "city": CITY,
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "days", "unit"],
    "additionalProperties": False,
}
PLACE = {
    "type": "object",
    "properties": {"at": {"$ref": "#/$defs/place"}},
    "required": ["at"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"city": CITY},
            "required": ["city"],
            "additionalProperties": False,
        }
    },
}
TOOLS = [
    {"function": {"name": "get_weather", "description": "The weather of a city", "parameters": WEATHER}},
    {"function": {"name": "get_map", "description": "A map of a place", "parameters": PLACE}},
    {"function": {"name": "get_time", "description": "The time of day"}},
]
CAPITAL = {
    "type": "object",
    "properties": {"city": CITY, "is_capital": {"type": "boolean"}},
    "required": ["city", "is_capital"],
    "additionalProperties": False,
}


def is_weather(value: Any) -> bool:
    return (
        value.keys() == {"city", "days", "unit"}
        and isinstance(value["city"], str)
        and isinstance(value["days"], int)
        and 1 <= value["days"] <= 9
        and value["unit"] in ("celsius", "fahrenheit")
    )


@pytest.fixture(scope="module")
def duck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RubberDuck]:
    if not local_model.is_available():
        pytest.skip(f"the local model is not installed: {local_model.INSTALL_LINE}")
    folder = tmp_path_factory.mktemp("local")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    options = {"context_tokens": 1024, "threads": 1, "embeddings": True}
    config = {
        "providers": {"local": {"module": "local", "options": options}},
        "ledger": {"path": str(folder / "ledger.sqlite")},
    }
    with RubberDuck.start(config) as duck:
        yield duck
    patch.undo()


def question(text: str = "What is the weather in Paris?", **fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "smollm2", "messages": messages, "temperature": 0, "max_tokens": 90} | fields


def streamed(duck: RubberDuck, request: dict[str, Any]) -> tuple[list[Delta], Response]:
    with duck.stream(request, timeout=90) as stream:
        deltas = [chunk.delta for chunk in stream]
        assert stream.response is not None
        return deltas, stream.response


def test_a_tool_that_must_be_called_is_called_with_arguments_of_its_types(duck: RubberDuck) -> None:
    request = question(tools=TOOLS[:1], tool_choice="required")
    for _ in range(2):  # the same at each time
        choice = duck.complete(request, timeout=90).choices[0]
        (call,) = choice.message.tool_calls
        assert (call.function.name, choice.message.content) == ("get_weather", None)
        assert is_weather(json.loads(call.function.arguments)), call.function.arguments
        assert json.loads(call.function.arguments)["city"] == "Paris"
        assert choice.finish_reason is FinishReason.TOOL_CALLS


def test_a_call_is_streamed_as_it_is_written_and_is_the_same(duck: RubberDuck) -> None:
    request = question(tools=TOOLS[:1], tool_choice="required")
    deltas, response = streamed(duck, request)
    (call,) = response.choices[0].message.tool_calls
    whole = duck.complete(request, timeout=90).choices[0]
    assert call.function == whole.message.tool_calls[0].function
    assert response.choices[0].finish_reason is FinishReason.TOOL_CALLS
    assert not any(delta.content for delta in deltas)
    assert len([fragment for delta in deltas for fragment in delta.tool_calls]) > 5
    assert response.usage.completion_tokens > 5


@pytest.mark.parametrize("name", ["get_weather", "get_map", "get_time"])
def test_a_tool_that_is_named_is_called_and_no_other(duck: RubberDuck, name: str) -> None:
    choice = {"type": "function", "function": {"name": name}}
    response = duck.complete(question(tools=TOOLS, tool_choice=choice), timeout=90)
    (call,) = response.choices[0].message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == name
    match name:
        case "get_weather":
            assert is_weather(arguments)
        case "get_map":
            assert arguments.keys() == {"at"}
            assert arguments["at"].keys() == {"city"}
        case _:
            assert arguments == {}


def test_of_several_tools_one_is_called(duck: RubberDuck) -> None:
    response = duck.complete(question("Draw a map of Berlin", tools=TOOLS, tool_choice="required"), timeout=90)
    (call,) = response.choices[0].message.tool_calls
    assert call.function.name in {"get_weather", "get_map", "get_time"}
    assert isinstance(json.loads(call.function.arguments), dict)


def test_the_answer_to_a_call_is_read(duck: RubberDuck) -> None:
    request = question(tools=TOOLS[:1], tool_choice="required")
    asked = duck.complete(request, timeout=90).choices[0].message
    result = {"role": "tool", "tool_call_id": asked.tool_calls[0].id, "content": "It is sunny, 20 degrees."}
    messages = [*request["messages"], asked, result]
    told = duck.complete(question(tools=TOOLS[:1], max_tokens=30) | {"messages": messages}, timeout=90)
    assert "sunny" in told.text


def test_a_cut_call_stays_cut(duck: RubberDuck) -> None:
    request = question(tools=TOOLS[:1], tool_choice="required", max_tokens=25)
    for response in (duck.complete(request, timeout=90), streamed(duck, request)[1]):
        (call,) = response.choices[0].message.tool_calls
        assert response.choices[0].finish_reason is FinishReason.LENGTH
        assert call.function.arguments.startswith("{")


def test_an_answer_keeps_to_a_schema_streamed_or_not(duck: RubberDuck) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": CAPITAL}}
    request = question("Is Rome the capital of Italy?", response_format=form)
    response = duck.complete(request, timeout=90)
    said = json.loads(response.text)
    assert said.keys() == {"city", "is_capital"}
    assert isinstance(said["is_capital"], bool)
    assert streamed(duck, request)[1].text == response.text


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 🦆"}]},
        {"tools": TOOLS, "tool_choice": "required"},
        {"tools": TOOLS[:2]},
        {"response_format": {"type": "json_object"}},
    ],
    ids=["plain", "system", "tools", "tools as it likes", "json"],
)
def test_a_count_is_what_an_answer_costs(duck: RubberDuck, fields: dict[str, Any]) -> None:
    request = question(max_tokens=1) | fields
    count = duck.count_tokens(request, timeout=90)
    assert (count.tokens, count.estimated) == (duck.complete(request, timeout=90).usage.prompt_tokens, False)
    assert count.tokens > 10


def test_a_count_does_not_write_anything(duck: RubberDuck) -> None:
    before = duck.costs().tokens
    duck.count_tokens(question(), timeout=90)
    assert duck.costs().tokens == before


def test_vectors_of_like_texts_are_alike(duck: RubberDuck) -> None:
    texts = ["The cat sat on the mat", "A cat is sitting on a mat", "Quarterly tax forms are due"]
    answer = duck.embed({"model": "smollm2", "input": texts}, timeout=90)
    cat, like, other = answer.vectors
    assert len(cat) == len(like) == len(other) == 576

    def likeness(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(cat, like) > likeness(cat, other) + 0.05
    assert answer.usage.prompt_tokens > 15


def test_a_text_that_is_too_long_for_a_vector_is_refused_as_such(duck: RubberDuck) -> None:
    with pytest.raises(ContextLengthExceeded):
        duck.embed({"model": "smollm2", "input": "word " * 1500}, timeout=90)


def test_sampling_and_probabilities_are_the_engines(duck: RubberDuck) -> None:
    fields = {"logprobs": True, "top_logprobs": 2, "seed": 7, "top_k": 5, "presence_penalty": 0.1}
    request = question("Say hello", max_tokens=4, **fields, extra={"local": {"min_p": 0.1}})
    response = duck.complete(request | {"temperature": 1.0}, timeout=90)
    again = duck.complete(request | {"temperature": 1.0}, timeout=90)
    assert response.text == again.text
    assert response.usage.completion_tokens == 4
    assert response.choices[0].logprobs
    tokens = response.choices[0].logprobs.content
    assert "".join(token.token for token in tokens) == response.text
    assert all(token.logprob <= 0 and len(token.top) == 2 for token in tokens)


def test_pictures_are_refused_before_the_engine_sees_them(duck: RubberDuck) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(InvalidRequest) as refused:
        duck.complete(question() | {"messages": [{"role": "user", "content": [image]}]})
    assert refused.value.field == "messages.content"
