"""The sums of the ledger as people read them: a line for each model, then the total."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rubberduck.core.figures import money

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rubberduck.core.ledger import Summary


def told(summary: Summary) -> str:
    """A table, and below it what is in none of its sums."""
    models = [(f"{provider}/{model}", share) for (provider, model), share in summary.by_model.items()]
    calls = sum(share.calls for _, share in models)
    rows = [
        ("model", "answers", "tokens", "cost"),
        *[(name, f"{share.calls:,}", f"{share.tokens:,}", money(share.cost)) for name, share in models],
        ("total", f"{calls:,}", f"{summary.tokens:,}", money(summary.cost)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join([*[_aligned(row, widths) for row in rows], *_not_counted(summary)])


def _not_counted(summary: Summary) -> Iterator[str]:
    if summary.unknown:
        yield f"not counted: {summary.unknown} attempts whose cost nobody can tell"
    if summary.uncertain:
        yield f"not counted: up to {money(summary.uncertain)} for attempts whose end nobody saw"


def _aligned(row: tuple[str, ...], widths: list[int]) -> str:
    """The name to the left, the figures to the right."""
    figures = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
    return "  ".join((row[0].ljust(widths[0]), *figures))
