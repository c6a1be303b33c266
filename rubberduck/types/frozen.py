"""What every part of a request has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """A checked value that cannot be changed; unknown fields are refused.

    One that stands in another is checked again with it: `model_copy` and `model_construct` put anything into it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, revalidate_instances="always")


def unicode(text: str) -> str:
    """Half a surrogate pair is no text: neither a provider nor the ledger can be told of it."""
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("is not valid Unicode")
    return text
