"""Functions as OpenAI's models are shown them: as types of TypeScript, so that they can be counted.

The form is not published. It was found out by asking models and by comparing counts (hmarr/openai-chat-tokens, 2023;
OpenAI community, 2023), so a count by it comes within a few percent and is an estimate.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

MAX_DEPTH = 32
"""A schema nested more deeply is taken for anything at all from there on."""


def rendered(functions: Iterable[tuple[str, str | None, Mapping[str, Any] | None]]) -> str:
    """All functions, each a name, a description and a schema of its parameters."""
    lines = ["namespace functions {", ""]
    for name, description, parameters in functions:
        lines += _comment(description, "")
        properties = dict(_properties(parameters or {}))
        if properties:
            lines += [f"type {name} = (_: {{", *_fields(parameters or {}, 0), "}) => any;", ""]
        else:
            lines += [f"type {name} = () => any;", ""]
    return "\n".join([*lines, "} // namespace functions"])


def _comment(text: object, indent: str) -> list[str]:
    return [f"{indent}// {line}" for line in text.splitlines()] if isinstance(text, str) and text else []


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        for name, each in properties.items():
            yield str(name), each if isinstance(each, Mapping) else {}


def _fields(schema: Mapping[str, Any], depth: int) -> Iterator[str]:
    indent = "  " * depth
    told = schema.get("required")
    required = set(map(str, told)) if isinstance(told, list | tuple) else set()
    for name, each in _properties(schema):
        if depth < 2:
            yield from _comment(each.get("description"), indent)
        yield f"{indent}{name}{'' if name in required else '?'}: {_type(each, depth)},"


def _type(schema: object, depth: int) -> str:
    if not isinstance(schema, Mapping) or depth >= MAX_DEPTH:
        return "any"
    if isinstance(schema.get("enum"), list):
        return " | ".join(map(_literal, schema["enum"]))
    if "const" in schema:
        return _literal(schema["const"])
    for union in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(union), list):
            return " | ".join([_type(each, depth + 1) for each in schema[union]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return " | ".join([_type({**schema, "type": each}, depth + 1) for each in kind])
    if kind == "array":
        return f"{_type(schema['items'], depth + 1)}[]" if "items" in schema else "any[]"
    if kind == "object":
        fields = list(_fields(schema, depth + 1))
        return "\n".join(["{", *fields, "  " * depth + "}"]) if fields else "object"
    if isinstance(schema.get("$ref"), str):
        return str(schema["$ref"].rpartition("/")[2])
    return {"integer": "number"}.get(kind, kind) if isinstance(kind, str) else "any"


def _literal(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
