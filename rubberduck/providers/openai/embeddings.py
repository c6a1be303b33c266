"""Asks a server with OpenAI's API for vectors, and reads them: numbers, or packed as base64.

Source: OpenAI API reference, "Create embeddings"; packed vectors are little-endian floats of four bytes.
"""

from __future__ import annotations

import base64
import binascii
import math
import sys
from array import array
from typing import Any

from rubberduck.providers.openai import dialects
from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.providers.reading import as_dict, as_list, as_text
from rubberduck.types import EmbeddingRequest, Embeddings, Usage

Vector = tuple[float, ...]


def encode_embedding(request: EmbeddingRequest, extra: dict[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The body of a call."""
    body: dict[str, Any] = {"model": request.model, "input": list(request.input)}
    if request.dimensions is not None:
        body[dialect.renamed.get("dimensions", "dimensions")] = request.dimensions
    if request.user is not None and "user" in dialect.fields:
        body["user"] = request.user
    if dialect.has_base64:
        body["encoding_format"] = "base64"
    return body | extra


def warnings_for(request: EmbeddingRequest, dialect: Dialect) -> tuple[str, ...]:
    """What is not sent of a request."""
    if request.user is None or "user" in dialect.fields:
        return ()
    return (f"user is not sent: {dialect.word} has no such field",)


def decode_embeddings(said: dict[str, Any], *, provider: str) -> Embeddings | None:
    """Parsed vectors, in the order of the texts; None where something is missing, twice there, or no number."""
    items = [as_dict(item) for item in as_list(said.get("data"))]
    found: dict[int, Vector] = {}
    for item in items:
        index, vector = item.get("index"), _vector(item.get("embedding"))
        if not isinstance(index, int) or isinstance(index, bool) or vector is None:
            return None
        found[index] = vector
    if not found or len(found) < len(items) or found.keys() != set(range(len(found))):
        return None
    vectors = tuple([found[index] for index in range(len(found))])
    if len({len(vector) for vector in vectors}) > 1:
        return None
    usage = dialects.usage_of(said) or Usage(estimated=True)
    return Embeddings(as_text(said.get("model")), vectors, usage, provider=provider)


def _vector(said: object) -> Vector | None:
    if isinstance(said, str):
        vector = _unpacked(said)
    elif isinstance(said, list) and all(type(number) in (float, int) for number in said):
        vector = _floats(said)
    else:
        return None
    return vector if vector and all(map(math.isfinite, vector)) else None


def _floats(said: list[Any]) -> Vector:
    try:
        return tuple(map(float, said))
    except OverflowError:
        return ()


def _unpacked(said: str) -> Vector:
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(said, validate=True))
    except (binascii.Error, ValueError):
        return ()
    if sys.byteorder == "big":
        numbers.byteswap()
    return tuple(numbers)
