"""Values of a Python type: what is asked for, what is read, and what is said of answers that do not do."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, RootModel
from typing_extensions import TypedDict

from rubberduck.core.json_in_text import MOST, candidates, is_json
from rubberduck.core.strict_schema import rooted, strict
from rubberduck.errors import InvalidRequest, OutputInvalid
from rubberduck.structured import MAX_PROBLEM, MAX_PROBLEMS, read, repair_request, schema_of
from rubberduck.types import Attempt, Choice, FinishReason, FunctionCall, Message, Request, Response, ToolCall, Usage


class Child(BaseModel):
    name: str = Field(min_length=2)
    born: date


class Person(BaseModel):
    """Someone we know."""

    name: str
    age: int = 30
    mate: Person | None = None
    children: list[Child] = []
    eldest: Child | None = Field(None, description="of the children")


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: float = Field(gt=0)


class Square(BaseModel):
    kind: Literal["square"]
    side: float


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Named(TypedDict):
    name: str


@dataclass
class Point:
    x: int
    y: int


class Names(RootModel[list[str]]):
    pass


Shape = Annotated[Circle | Square, Field(discriminator="kind")]
ASKED = Request.parse({"model": "m", "messages": [{"role": "user", "content": "Who?"}], "n": 3})


def answer(text: str | None = None, finish: str = "stop", **message: Any) -> Response:
    turn = Message(role="assistant", content=text, **message)
    return Response("id", "m-1", (Choice(0, turn, FinishReason(finish)),), Usage(5, 7, cost=Decimal("0.5")))


def fault(model: Any, response: Response) -> OutputInvalid:
    with pytest.raises(OutputInvalid) as caught:
        read(model, response)
    return caught.value


def schema(model: Any) -> dict[str, Any]:
    return schema_of(model)["json_schema"]["schema"]


def objects(node: Any) -> list[dict[str, Any]]:
    """Every schema of an object in a schema."""
    if isinstance(node, list):
        return [found for each in node for found in objects(each)]
    if not isinstance(node, dict):
        return []
    own = [node] if node.get("type") == "object" else []
    return own + [found for each in node.values() for found in objects(each)]


# -- asking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Person, Child, Point, Named, Names, Shape, Colour, list[Person], int | None, bool])
def test_what_openai_can_be_held_to_is_asked_for_strictly(model: Any) -> None:
    asked = schema_of(model)
    assert asked["type"] == "json_schema"
    assert asked["json_schema"]["strict"] is True
    root = asked["json_schema"]["schema"]
    assert root["type"] == "object"
    for each in objects(root):
        assert each["additionalProperties"] is False
        assert each["required"] == list(each["properties"])
    written = json.dumps(root)
    for unknown in ('"default"', '"oneOf"', '"discriminator"', '"minLength"', '"allOf"'):
        assert unknown not in written


@pytest.mark.parametrize(
    "model", [dict[str, int], Any, list[Any], tuple[int, str], list[dict[str, int]], dict, list], ids=str
)
def test_what_strict_schemas_cannot_say_is_asked_for_without_strictness(model: Any) -> None:
    asked = schema_of(model)["json_schema"]
    assert asked["strict"] is False
    assert asked["schema"]["type"] == "object"


def test_an_open_model_is_not_strict() -> None:
    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")
        name: str

    assert schema_of(Open)["json_schema"]["strict"] is False


def test_a_recursive_model_is_an_object_at_the_root_and_refers_to_itself() -> None:
    asked = schema(Person)
    assert "$ref" not in asked
    assert asked["properties"]["mate"] == {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]}
    assert asked["$defs"]["Person"]["properties"].keys() == asked["properties"].keys()


def test_a_reference_stands_alone() -> None:
    class Pair(BaseModel):
        one: Child = Field(description="the first")

    assert schema(Pair)["properties"]["one"] == {"anyOf": [{"$ref": "#/$defs/Child"}], "description": "the first"}


def test_bounds_that_cannot_be_enforced_are_told_in_words() -> None:
    class Order(BaseModel):
        code: str = Field(min_length=2, max_length=5, description="its code")
        count: int = Field(default=3, ge=1)
        look: str = Field(json_schema_extra={"pattern": "^(?!x).*$"})
        plain: str = Field(pattern="^[a-z]+$")

    properties = schema(Order)["properties"]
    assert properties["code"] == {"type": "string", "description": "its code (maxLength 5, minLength 2)"}
    assert properties["count"] == {"type": "integer", "minimum": 1, "description": "(default 3)"}
    assert properties["look"] == {"type": "string", "description": "(pattern ^(?!x).*$)"}
    assert properties["plain"] == {"type": "string", "pattern": "^[a-z]+$"}


@pytest.mark.parametrize("model", [list[int], int | None, Names, Shape, bool])
def test_what_is_no_object_is_wrapped_into_one(model: Any) -> None:
    assert list(schema(model)["properties"]) == ["value"]


def test_names_are_such_as_providers_take() -> None:
    long = type("N" * 100, (BaseModel,), {})
    strange = type("Größe", (BaseModel,), {})
    annotated = Annotated[list[int], Field(min_length=1)]
    for model in (Person, list[Person], int | None, Shape, annotated, long, strange, Any, dict[str, list[int]]):
        assert re.fullmatch("[a-zA-Z0-9_-]{1,64}", schema_of(model)["json_schema"]["name"])
    assert schema_of(Person)["json_schema"]["name"] == "Person"
    assert schema_of(list[Person])["json_schema"]["name"] == "list_Person"


def test_a_type_is_looked_at_once() -> None:
    assert schema_of(Person) is schema_of(Person)


def test_what_json_cannot_say_is_refused() -> None:
    for model in (object(), type("Plain", (), {}), Callable[[int], int]):
        with pytest.raises(InvalidRequest) as caught:
            schema_of(model)
        assert caught.value.field == "response_format"


def test_too_large_a_schema_is_not_strict() -> None:
    properties = {f"p{number}": {"type": "string"} for number in range(5001)}
    assert strict({"type": "object", "properties": properties}) is None
    assert strict({"type": "string", "enum": [str(number) for number in range(1001)]}) is None


def test_a_reference_to_itself_alone_ends() -> None:
    turning = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert rooted(turning)["$ref"] == "#/$defs/A"
    assert rooted({"$ref": "#/elsewhere", "$defs": {}})["$ref"] == "#/elsewhere"


# -- reading ---------------------------------------------------------------------------------------

ANN = Person(name="Ann", age=3)
WRITTEN = ANN.model_dump_json()


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        f"\n {WRITTEN} \n",
        f"```json\n{WRITTEN}\n```",
        f"Here she is:\n```\n{WRITTEN}\n```\nAnything else?",
        f"She is {WRITTEN}, I think.",
        f'First I thought of {{"name": "Bob", "age": 1}} [sic], but it is {WRITTEN}',
        f"{{not this}} {WRITTEN} {{nor this}}",
        f'```json\n{{"name": 1}}\n```\nor rather\n```json\n{WRITTEN}\n```',
    ],
)
def test_a_value_is_found_in_whatever_surrounds_it(text: str) -> None:
    assert read(Person, answer(text)) == ANN


@pytest.mark.parametrize(
    ("model", "text", "value"),
    [
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (list[int], "[1, 2]", [1, 2]),
        (int | None, '{"value": null}', None),
        (bool, "true", True),
        (Shape, '{"value": {"kind": "square", "side": 2}}', Square(kind="square", side=2)),
        (Shape, '{"kind": "square", "side": 2}', Square(kind="square", side=2)),
        (Colour, '{"value": "red"}', Colour.RED),
        (Named, '{"name": "x"}', {"name": "x"}),
        (Point, '{"x": 1, "y": 2}', Point(1, 2)),
        (Names, '{"value": ["a"]}', Names(["a"])),
        (dict[str, int], '{"value": 1}', {"value": 1}),
        (set[date], '{"value": ["2024-01-02"]}', {date(2024, 1, 2)}),
    ],
)
def test_any_type_is_read(model: Any, text: str, value: Any) -> None:
    assert read(model, answer(text)) == value


def test_only_the_whole_counts_of_what_was_cut() -> None:
    cut = f'{{"people": [{WRITTEN}, {{"na'
    error = fault(Person, answer(cut, "length"))
    assert error.reason == "length"
    assert "max_tokens" in str(error)
    assert not error.retryable
    assert read(Person, answer(WRITTEN, "length")) == ANN
    assert fault(Person, answer(cut, "content_filter")).reason == "content_filter"


def test_each_way_not_to_answer_has_its_own_words() -> None:
    call = ToolCall(id="1", function=FunctionCall(name="f"))
    faults = {
        "refusal": fault(Person, answer(None, refusal="I will not")),
        "empty": fault(Person, answer("  ")),
        "tool_calls": fault(Person, answer(None, "tool_calls", tool_calls=(call,))),
        "no_json": fault(Person, answer("She is called Ann.")),
        "mismatch": fault(Person, answer('{"age": "old", "children": [{"name": "B"}]}')),
        "length": fault(Person, answer('{"name"', "length")),
    }
    assert {error.reason for error in faults.values()} == set(faults)
    assert len({str(error) for error in faults.values()}) == len(faults)
    assert "I will not" in str(faults["refusal"])
    assert "She is called Ann." in str(faults["no_json"])
    assert [reason for reason, error in faults.items() if error.retryable] == ["empty", "no_json", "mismatch"]
    assert all(error.problems for error in faults.values())
    assert fault(Person, Response("i", "m", (), Usage())).reason == "empty"


def test_problems_name_their_paths() -> None:
    error = fault(Person, answer('{"age": "old", "children": [{"name": "B"}]}'))
    paths = [problem.partition(": ")[0] for problem in error.problems]
    assert paths == ["name", "age", "children.0.name", "children.0.born"]
    assert "age" in str(error)
    assert "Person" in str(error)
    assert fault(list[int], answer('{"value": [1, "x"]}')).problems[0].startswith("value.1: ")
    assert fault(Person, answer("[]")).problems[0].startswith("the value: ")


def test_the_error_tells_who_answered_and_what_it_cost() -> None:
    tried = Attempt("a", "m-1", "success", 0.0, 1.0, Decimal("0.25"))
    response = Response(
        "i", "m-1", answer("x").choices, Usage(), provider="a", attempts=(tried, tried), request_id="r-1", trace="t"
    )
    error = fault(Person, response)
    assert (error.provider, error.model, error.attempts) == ("a", "m-1", (tried, tried))
    assert (error.spent, error.request_id, error.trace, error.response) == (Decimal("0.50"), "r-1", "t", response)
    assert fault(Person, answer("x")).spent == Decimal("0.5")
    unknown = Attempt("a", "m-1", "success", 0.0, 1.0, None)
    assert fault(Person, Response("i", "m", answer("x").choices, Usage(), attempts=(tried, unknown))).spent is None


def test_what_a_job_keeps_of_the_error_can_be_read_again() -> None:
    from rubberduck.actors.outcomes import error_in, of_error

    kept = error_in(of_error(fault(Person, answer("x"))))
    assert isinstance(kept, OutputInvalid)
    assert (kept.reason, kept.retryable, kept.spent, kept.response) == ("no_json", True, Decimal("0.5"), None)


@given(st.text(alphabet='{}[]",:0123aA` \nnull\\', max_size=80))
@settings(max_examples=200)
def test_whatever_a_model_writes_is_a_value_or_the_one_error(text: str) -> None:
    reason = None
    try:
        assert isinstance(read(list[int], answer(text)), list)
    except OutputInvalid as error:
        reason = error.reason
    assert reason in (None, "empty", "no_json", "mismatch")


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
Prose = st.text(alphabet="abc .,\n!?'", max_size=30)


@given(Json.filter(lambda value: isinstance(value, list | dict)), Prose, Prose)
@settings(max_examples=100)
def test_an_object_in_prose_is_found_whole(value: Any, before: str, after: str) -> None:
    assert [json.loads(found) for found in candidates(f"{before}{json.dumps(value)}{after}")] == [value]


def test_a_model_that_thinks_aloud_for_long_is_read_at_the_end() -> None:
    thoughts = "I see [a], {b} and [1]; " * 500
    assert read(Person, answer(f"{thoughts}\nSo it is {WRITTEN}")) == ANN


def test_brackets_without_end_do_not_hold_the_thread() -> None:
    assert candidates("[" * 50_000) == []
    assert not is_json("[" * 50_000)
    assert len(candidates("[1]" * 1000)) == MOST
    start = time.thread_time()
    blanks = ("```" + " " * 50_000, "```" + "\t \r" * 50_000, "```" + "a" * 50_000, "```json\n" * 20_000)
    for long in (*blanks, '["' * 20_000, "[1," * 20_000, "[1, " + "2, " * 60_000, '{"a":' * 20_000):
        assert candidates(long) == []
    assert time.thread_time() - start < 2


# -- mending ---------------------------------------------------------------------------------------


def test_a_repair_repeats_the_answer_and_names_what_is_wrong() -> None:
    response = answer('{"age": "old"}')
    request = repair_request(ASKED, response, fault(Person, response))
    assert request.messages[:2] == (*ASKED.messages, response.choices[0].message)
    assert request.messages[2].role == "user"
    assert "name: Field required" in request.messages[2].text
    assert "age: " in request.messages[2].text
    assert request.n == 1
    assert ASKED.n == 3
    Request.parse(request.model_dump())


def test_a_repair_leaves_out_an_answer_that_said_nothing_and_calls_that_nobody_answered() -> None:
    empty = answer("")
    assert [turn.role for turn in repair_request(ASKED, empty, fault(Person, empty)).messages] == ["user", "user"]
    called = answer("Well", tool_calls=(ToolCall(id="1", function=FunctionCall(name="f")),))
    assert repair_request(ASKED, called, fault(Person, called)).messages[1] == Message(role="assistant", content="Well")


def test_a_repair_is_short_however_much_is_wrong() -> None:
    response = answer(json.dumps({"value": ["x" * 10_000] * 1000}))
    error = fault(list[int], response)
    assert len(error.problems) == MAX_PROBLEMS + 1
    assert error.problems[-1] == f"and {1000 - MAX_PROBLEMS} more"
    told = repair_request(ASKED, response, error).messages[-1].text
    assert len(told) < (MAX_PROBLEM + 10) * (MAX_PROBLEMS + 1) + 200


def test_long_field_names_are_cut_in_what_is_told() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

    error = fault(Strict, answer(json.dumps({"k" * 5000: 1})))
    assert len(error.problems[0]) < MAX_PROBLEM + 10
    assert len(str(error)) < 400
