"""What every part of a request has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A checked value that cannot be changed; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


def unicode(text: str) -> str:
    """Half a surrogate pair is no text: neither a provider nor the ledger can be told of it."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("is not valid Unicode")
    return text
