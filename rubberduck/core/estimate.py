"""How much output to reserve for a request: what its kind used before, rather than the most it allows.

Reserving `max_tokens` for everybody would leave most of a limit unused, for few answers come near it.
"""

from __future__ import annotations

from collections import deque
from math import inf

MARGIN = 1.2
QUANTILE = 0.9
UNBOUNDED_OUTPUT = 1024.0
"""Tokens assumed of a request without `max_tokens`, if no limit is small."""
LARGEST_SHARE = 0.25
"""The most of the smallest limit that such a request reserves."""
BELIEVED_FROM = 20
"""So many answers must have been seen."""
RECENT = 256
_EVERY = 8


class OutputEstimate:
    """The memory of one route: which share of `max_tokens` its recent answers used."""

    __slots__ = ("_learned", "_looked_up", "_share", "_shares")

    def __init__(self) -> None:
        self._shares: deque[float] = deque(maxlen=RECENT)
        self._learned = self._looked_up = 0
        self._share = 1.0

    def learn(self, actual: float, max_tokens: float | None) -> None:
        """An attempt has been settled, with `actual` tokens of output."""
        if max_tokens is not None and max_tokens > 0 and 0 <= actual < inf:
            self._shares.append(min(1.0, actual / max_tokens))
            self._learned += 1

    def reserve(self, max_tokens: float | None, smallest_limit: float | None = None) -> float:
        """Tokens to reserve for a request, at least 1; `smallest_limit` is the smallest that output counts against."""
        if max_tokens is not None:
            return max(1.0, min(max_tokens, MARGIN * self.share * max_tokens))
        return max(1.0, min(UNBOUNDED_OUTPUT, LARGEST_SHARE * (inf if smallest_limit is None else smallest_limit)))

    @property
    def share(self) -> float:
        """The 90th percentile of the shares used; 1 until enough is known. Looked up anew after every few answers."""
        if self._learned >= max(BELIEVED_FROM, self._looked_up + _EVERY):
            self._looked_up = self._learned
            ordered = sorted(self._shares)
            self._share = ordered[min(len(ordered) - 1, int(QUANTILE * len(ordered)))]
        return self._share
