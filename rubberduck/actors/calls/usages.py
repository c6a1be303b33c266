"""What several attempts for one answer have used together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from rubberduck.core.pricing import plain
from rubberduck.types import Usage


def together(usages: Sequence[Usage]) -> Usage:
    """All of it; what nobody told of is left out, but a cost that one leaves open stays open."""
    costs = [each.cost for each in usages]
    return Usage(
        sum([each.prompt_tokens for each in usages]),
        sum([each.completion_tokens for each in usages]),
        _known([each.cached_tokens for each in usages]),
        _known([each.cache_write_tokens for each in usages]),
        _known([each.reasoning_tokens for each in usages]),
        None if None in costs else plain(sum([cost for cost in costs if cost is not None], Decimal(0))),
        any(each.estimated for each in usages),
        _known([each.cache_write_1h_tokens for each in usages]),
        _known([each.prompt_audio_tokens for each in usages]),
        _known([each.completion_audio_tokens for each in usages]),
    )


def _known(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
