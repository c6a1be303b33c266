"""Values that somebody gave, as they are shown in a message about them."""

from __future__ import annotations

LONGEST = 120
"""The most letters of a value that are shown."""


def shown(value: object) -> str:
    """A value as Python writes it, shortened; its kind where it cannot be written, such as a number of 5,000 digits."""
    try:
        told = repr(value)
    except Exception:  # noqa: BLE001 - whatever somebody's own code does there, it must not hide the message
        return f"a value of the type {type(value).__qualname__}"
    return told if len(told) <= LONGEST else f"{told[:LONGEST]}..."
