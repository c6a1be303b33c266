"""About how many tokens a piece of an answer is, where nobody has counted them yet."""

from __future__ import annotations

BYTES_PER_TOKEN = 4.0
"""English text in the vocabularies of today; other scripts have more bytes to a letter, and more tokens."""


def about_tokens(text: str) -> float:
    """Tokens in a piece of text that came at once: at least 1, but 0 where there is none."""
    if not text:
        return 0.0
    size = len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
    return max(1.0, size / BYTES_PER_TOKEN)
