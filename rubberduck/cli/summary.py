"""The one line after an answer: who gave it, how long it is, what it cost, how long it took."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from rubberduck.core.figures import money, span
from rubberduck.types import Attempt, FinishReason, Usage


def line(
    *,
    provider: str,
    model: str,
    usage: Usage | None,
    seconds: float,
    finish_reason: FinishReason | None = None,
    attempts: Iterable[Attempt] = (),
) -> str:
    """For example: `openai/gpt-4.1-mini · 35 + 12 tokens · $0.000033 · 0.52 s`."""
    parts = [f"{provider}/{model}" if provider else model, *_figures(usage), span(seconds)]
    if failed := [attempt for attempt in attempts if attempt.outcome != "success"]:
        parts.append("after " + ", ".join(f"{attempt.outcome} at {attempt.provider}" for attempt in failed))
    if finish_reason is FinishReason.LENGTH:
        parts.append("cut off at its length limit (--max-tokens)")
    elif finish_reason is FinishReason.CONTENT_FILTER:
        parts.append("cut off by a content policy")
    return " · ".join(parts)


def _figures(usage: Usage | None) -> list[str]:
    if usage is None:
        return ["tokens unknown", money(None)]
    about = "about " if usage.estimated else ""
    return [f"{about}{usage.prompt_tokens} + {usage.completion_tokens} tokens", money(usage.cost)]


def totals(calls: int, tokens: int, cost: Decimal | None) -> str:
    """For the end of a conversation."""
    return f"{calls} answers · {tokens} tokens · {money(cost)}"
