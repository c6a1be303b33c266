"""Bounds that a provider refuses are told in words, wherever they stand; all else stays as it was."""

from __future__ import annotations

import copy

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from rubberduck.core.schema_bounds import without_bounds
from rubberduck.structured import schema_of


def test_bounds_go_into_the_description_wherever_they_stand():
    class Line(BaseModel):
        count: int = Field(ge=1, le=9, description="how many")
        code: str = Field(pattern="^[a-z]+$")

    class Order(BaseModel):
        lines: list[Line] = Field(min_length=2)
        size: float | None = Field(None, gt=0)

    schema = schema_of(Order)["json_schema"]["schema"]
    before = copy.deepcopy(schema)
    made = without_bounds(schema)
    assert schema == before
    line = made["$defs"]["Line"]["properties"]
    assert line["count"] == {"type": "integer", "description": "how many (minimum 1, maximum 9)"}
    assert line["code"] == {"type": "string", "description": "(pattern ^[a-z]+$)"}
    assert made["properties"]["lines"]["description"] == "(minItems 2)"
    assert made["properties"]["size"]["anyOf"][0] == {"type": "number", "description": "(exclusiveMinimum 0)"}
    assert (made["required"], made["additionalProperties"]) == (schema["required"], False)


def test_what_can_be_enforced_stays():
    kept = {
        "type": "object",
        "properties": {
            "when": {"type": "string", "format": "date"},
            "some": {"type": "array", "items": {"enum": ["a"]}, "minItems": 1},
            "minimum": {"type": "integer"},
        },
        "additionalProperties": False,
    }
    assert without_bounds(kept) == kept
    assert without_bounds({"type": "string", "format": "binary"}) == {
        "type": "string",
        "description": "(format binary)",
    }


def test_an_object_with_properties_is_closed_and_an_open_one_is_left_as_it_is_wished():
    assert without_bounds({"type": "object", "properties": {}})["additionalProperties"] is False
    assert without_bounds({"type": "object"}) == {"type": "object"}
    openly = {"type": "object", "properties": {}, "additionalProperties": {"type": "integer", "minimum": 1}}
    assert without_bounds(openly)["additionalProperties"] == {"type": "integer", "description": "(minimum 1)"}


KEYS = st.sampled_from(
    ["type", "properties", "items", "anyOf", "minimum", "minItems", "format", "description", "$defs"]
)
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, Json, max_size=5))
def test_whatever_a_schema_holds_it_is_bounded_no_more(schema):
    made = without_bounds(schema)
    assert "minimum" not in made
    assert made.get("minItems") in (None, 0, 1)


def test_a_schema_nested_without_end_is_left_alone():
    schema = {"type": "integer", "minimum": 1}
    for _ in range(900):
        schema = {"items": schema}
    assert without_bounds(schema)["items"] is not None
