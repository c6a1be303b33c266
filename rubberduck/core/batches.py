"""How many of many texts go into one request for their vectors."""

from __future__ import annotations

from collections.abc import Sequence

MOST_TOKENS = 250_000.0
"""The most tokens of one request, as estimated here. OpenAI refuses more than 300,000 of all texts together (page
"Create embeddings" of its API reference)."""

_LETTERS_PER_TOKEN, _BYTES_PER_TOKEN = 3, 2
"""Fewer than most texts have, in ASCII and in other scripts: a request that is refused costs more than one too many."""

Text = str | Sequence[int]


def about_tokens(text: Text) -> float:
    """About how many tokens a text is, rather too many."""
    if not isinstance(text, str):
        return len(text)
    if text.isascii():
        return len(text) / _LETTERS_PER_TOKEN
    return len(text.encode("utf-8", "replace")) / _BYTES_PER_TOKEN


def batch_end(texts: Sequence[Text], start: int, most_texts: int, most_tokens: float = MOST_TOKENS) -> int:
    """Where the batch ends that begins at `start`: it holds at least one text, whatever its size."""
    end, tokens = start, 0.0
    while end < len(texts) and end - start < max(1, most_texts):
        tokens += about_tokens(texts[end])
        if tokens > most_tokens and end > start:
            break
        end += 1
    return end
