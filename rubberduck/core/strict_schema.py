"""JSON Schemas in the subset that a provider can hold a model to, token by token.

OpenAI's "strict" takes objects that are closed and need all their properties, unions by `anyOf`, references, and some
bounds. What it does not take is told to the model in the description instead: `read` checks the answer against all of
it. A schema that the subset cannot say (an open object, a tuple, anything at all) is given up as a whole.
Source: OpenAI, "Structured model outputs", supported schemas (as of February 2026).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_PROPERTIES, MAX_ENUM_VALUES = 5_000, 1_000
MAX_TOLD = 100
"""Characters of a keyword's value that are told in a description."""

_KEPT = frozenset({
    *("type", "description", "title", "enum", "const", "format", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems"),
})  # fmt: skip
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_OUT_OF_REACH = frozenset({
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "patternProperties", "propertyNames"),
    *("prefixItems", "contains", "unevaluatedProperties", "unevaluatedItems"),
})  # fmt: skip


class _NotStrict(Exception):
    """The subset has no words for this."""


def strict(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same schema in the strict subset; None if it cannot be said there. Every property becomes required."""
    try:
        said = _node(schema)
        said |= {"$defs": {name: _node(each) for name, each in schema["$defs"].items()}} if "$defs" in schema else {}
    except (_NotStrict, RecursionError):
        return None
    properties, values = _size(said)
    return said if properties <= MAX_PROPERTIES and values <= MAX_ENUM_VALUES else None


def rooted(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same schema without a reference as its root, which providers do not take."""
    root = dict(schema)
    seen = set()
    while (ref := root.get("$ref")) and ref not in seen:
        seen.add(ref)
        definition = schema.get("$defs", {}).get(ref.removeprefix("#/$defs/"))
        if definition is None:
            break
        rest = {key: value for key, value in root.items() if key not in ("$ref", "$defs")}
        root = {**definition, **rest, "$defs": schema["$defs"]}
    if "$defs" in root and not _refers(root):
        del root["$defs"]
    return root


def _refers(node: object) -> bool:
    """Whether there is a reference anywhere in it."""
    if isinstance(node, list):
        return any(_refers(each) for each in node)
    return isinstance(node, dict) and (
        isinstance(node.get("$ref"), str) or any(_refers(each) for each in node.values())
    )


def _node(schema: object) -> dict[str, Any]:
    if not isinstance(schema, Mapping) or not _OUT_OF_REACH.isdisjoint(schema):
        raise _NotStrict
    said = {key: value for key, value in schema.items() if key in _KEPT and _is_known(key, value)}
    told = [f"{key} {brief(value)}" for key, value in schema.items() if key not in said and _is_bound(key, value)]
    if told:
        said["description"] = " ".join([*filter(None, [said.get("description")]), f"({', '.join(told)})"])
    said |= _composed(schema)
    if not said.keys() & {"type", "$ref", "anyOf", "enum", "const"}:
        raise _NotStrict
    return _alone(said)


def _composed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """What of a schema is made of other schemas."""
    made: dict[str, Any] = {}
    if "$ref" in schema:
        made["$ref"] = schema["$ref"]
    if variants := schema.get("anyOf") or schema.get("oneOf"):
        made["anyOf"] = [_node(variant) for variant in variants]
    if "allOf" in schema:
        if len(schema["allOf"]) != 1 or made:
            raise _NotStrict
        made |= _node(schema["allOf"][0])
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "object" in kinds:
        made |= _object(schema)
    if "array" in kinds:
        made["items"] = _node(schema.get("items"))
    return made


def _object(schema: Mapping[str, Any]) -> dict[str, Any]:
    if "properties" not in schema or schema.get("additionalProperties", False) is not False:
        raise _NotStrict
    properties = {name: _node(each) for name, each in schema["properties"].items()}
    return {"properties": properties, "required": list(properties), "additionalProperties": False}


def _alone(said: dict[str, Any]) -> dict[str, Any]:
    """A reference may have no neighbours: with a description it goes into a union of one."""
    if "$ref" not in said or len(said) == 1:
        return said
    return {"anyOf": [{"$ref": said.pop("$ref")}], **said}


def _is_known(key: str, value: object) -> bool:
    if key == "format":
        return value in _FORMATS
    return key != "pattern" or "(?" not in str(value)  # no look-around is taken


def _is_bound(key: str, value: object) -> bool:
    """Whether a keyword that cannot be kept says something that the model should know."""
    if key == "default":
        return value is not None
    return key in ("format", "pattern", "minLength", "maxLength", "uniqueItems", "minProperties", "maxProperties")


def brief(value: object) -> str:
    """A keyword's value as it is told to a model."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return written if len(written) <= MAX_TOLD else f"{written[:MAX_TOLD]}..."


def _size(node: object) -> tuple[int, int]:
    """How many properties and how many values of enumerations there are in all."""
    if isinstance(node, list):
        inner = [_size(each) for each in node]
    elif isinstance(node, dict):
        inner = [_size(each) for each in node.values()]
        own = node.get("properties"), node.get("enum")
        inner.append((len(own[0]) if isinstance(own[0], dict) else 0, len(own[1]) if isinstance(own[1], list) else 0))
    else:
        return 0, 0
    return sum(properties for properties, _ in inner), sum(values for _, values in inner)
