"""Schemas for providers that enforce types and names, but no bounds: these are told to the model in words.

Anthropic refuses a request whose schema bounds a number, the length of a text or of a list, or leaves an object open.
Sources: what its SDK takes out of a schema (anthropic 2.12.0); its own words, "For 'integer' type, property 'minimum'
is not supported" (agentjido/req_llm, issue 302).
"""

from __future__ import annotations

from typing import Any

from rubberduck.core.strict_schema import brief

_BOUNDS = (
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"),
    *("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties"),
)
_FEW = (0, 1)
"""So many `minItems` can be enforced."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_DEEPEST = 200


def without_bounds(schema: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """The same schema, its bounds moved into the descriptions, and each object with properties closed."""
    if depth > _DEEPEST:
        return schema
    told = [key for key in (*_BOUNDS, "format") if key in schema and not _is_enforced(key, schema[key])]
    made = {key: _within(key, value, depth) for key, value in schema.items() if key not in told}
    if isinstance(made.get("properties"), dict):
        made.setdefault("additionalProperties", False)
    if told:
        words = f"({', '.join(f'{key} {brief(schema[key])}' for key in told)})"
        said = schema.get("description")
        made["description"] = f"{said} {words}" if isinstance(said, str) and said else words
    return made


def _is_enforced(key: str, value: object) -> bool:
    if key == "format":
        return value in _FORMATS if isinstance(value, str) else False
    return key == "minItems" and value in _FEW


def _within(key: str, value: Any, depth: int) -> Any:
    """What of a schema is made of other schemas, made anew."""
    if key in ("properties", "$defs", "definitions") and isinstance(value, dict):
        return {
            name: without_bounds(each, depth + 1) if isinstance(each, dict) else each for name, each in value.items()
        }
    if key in ("anyOf", "oneOf", "allOf", "prefixItems") and isinstance(value, list):
        return [without_bounds(each, depth + 1) if isinstance(each, dict) else each for each in value]
    if key in ("items", "additionalProperties", "not") and isinstance(value, dict):
        return without_bounds(value, depth + 1)
    return value
