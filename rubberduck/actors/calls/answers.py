"""Whole answers kept for identical questions: a hit costs nothing and says so."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from rubberduck.actors.calls.call import COUNT, Call
from rubberduck.config.sections import CacheConfig
from rubberduck.core.cache import ResponseCache, cache_key
from rubberduck.types import Embeddings, Response

Kept = Response | Embeddings


class Answers:
    """The cache of one tree; without a configuration it keeps nothing."""

    def __init__(self, config: CacheConfig | None) -> None:
        self._cache: ResponseCache[Kept] | None = None
        if config is not None:
            self._cache = ResponseCache(config.ttl, config.max_entries)

    def key(self, call: Call) -> str | None:
        """What identifies the question; None where it is not to be kept."""
        if self._cache is None or call.is_stream or call.kind == COUNT:
            return None
        return key_of(call)

    def find(self, key: str | None, call: Call, now: float) -> Kept | None:
        """A kept answer as the answer to `call`."""
        kept = None if key is None or self._cache is None else self._cache.get(key, now)
        if kept is None:
            return None
        usage = replace(kept.usage, cost=Decimal(0))
        return replace(kept, usage=usage, cached=True, attempts=(), request_id=call.id, trace=call.trace(now, "cached"))

    def keep(self, key: str | None, given: Kept, now: float) -> None:
        """Remember a whole answer, unless several have written it."""
        if key is None or self._cache is None or (isinstance(given, Response) and given.spliced):
            return
        self._cache.put(key, given, _size(given), now)


def key_of(call: Call) -> str | None:
    """The same for all calls of one tenant that ask the same of the same providers; None if it cannot be compared."""
    try:
        canonical = call.request.model_dump_json(exclude_defaults=True)
    except ValueError:  # text that is no valid Unicode: it may be sent, but not be compared
        return None
    return cache_key(f"{canonical}|{call.providers}", call.tenant)


def _size(given: Kept) -> int:
    """About how many bytes the answer takes."""
    if isinstance(given, Embeddings):
        return 512 + _PER_NUMBER * sum([len(vector) for vector in given.vectors])
    return 512 + sum(len(choice.message.text) for choice in given.choices)


_PER_NUMBER = 32
"""Bytes that a number in a tuple takes: itself, and where it is."""
