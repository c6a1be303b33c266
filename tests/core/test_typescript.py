"""Functions as models are shown them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.typescript import MAX_DEPTH, rendered


def fields(schema: dict) -> str:
    return rendered([("f", None, schema)]).split("type f = (_: {\n")[1].split("\n}) => any;")[0]


def test_a_function_is_a_type_with_its_description_as_a_comment():
    schema = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Where\nit is"},
            "days": {"type": "integer"},
            "unit": {"type": "string", "enum": ["C", "F"]},
        },
        "required": ["city"],
    }
    assert rendered([("weather", "Tells it", schema), ("now", None, None)]) == (
        "namespace functions {\n\n"
        "// Tells it\ntype weather = (_: {\n// Where\n// it is\ncity: string,\ndays?: number,\n"
        'unit?: "C" | "F",\n}) => any;\n\ntype now = () => any;\n\n} // namespace functions'
    )


def test_every_kind_of_schema_has_a_type():
    kinds = {
        "array": ({"type": "array", "items": {"type": "boolean"}}, "boolean[]"),
        "open": ({"type": "array"}, "any[]"),
        "object": ({"type": "object"}, "object"),
        "union": ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "string | null"),
        "several": ({"type": ["integer", "null"]}, "number | null"),
        "const": ({"const": 5}, "5"),
        "ref": ({"$ref": "#/$defs/City"}, "City"),
        "any": ({}, "any"),
        "strange": ({"type": 5}, "any"),
        "no schema": ("what", "any"),
    }
    for name, (schema, told) in kinds.items():
        assert fields({"properties": {name: schema}}) == f"{name}?: {told},"
    inner = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}
    assert fields({"properties": {"a": inner}}) == "a?: {\n  b: string,\n},"


KEYS = st.sampled_from(
    ["type", "properties", "items", "enum", "anyOf", "required", "description", "const", "$ref", "a"]
)
Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, Json, max_size=5))
def test_whatever_a_schema_holds_it_can_be_shown(schema):
    assert rendered([("f", "d", schema)]).endswith("// namespace functions")


def test_a_schema_without_end_is_cut():
    schema = {"type": "object", "properties": {}}
    for _ in range(500):
        schema = {"type": "object", "properties": {"x": schema}}
    assert rendered([("f", None, schema)]).count("x?:") == MAX_DEPTH + 1
