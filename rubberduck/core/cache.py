"""Remembers whole answers to identical requests for a while, within bounds of number and size.

The least recently used entry goes first, but never before one that has expired. A key holds the tenant, so
that no tenant is answered with what another was told.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

V = TypeVar("V")

DEFAULT_MAX_BYTES = 64 * 1024 * 1024


def canonical_json(value: object) -> str:
    """One text for equal values, whatever the order of their keys.

    Raises:
        ValueError, TypeError: the value is not JSON; NaN and the infinities are not.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def cache_key(canonical: str | bytes, tenant: str | None = None) -> str:
    """The key of a request in canonical JSON, as a tenant sends it; no tenant is not the empty tenant."""
    content = canonical.encode("utf-8", "surrogatepass") if isinstance(canonical, str) else canonical
    owner = b"-" if tenant is None else b"+" + tenant.encode("utf-8", "surrogatepass")
    # The length keeps one tenant's name from running into another's request.
    return hashlib.sha256(b"%d:%b%b" % (len(owner), owner, content)).hexdigest()


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What the cache holds, and what it did since it was made."""

    entries: int
    size_bytes: int
    hits: int
    misses: int
    evicted: int
    expired: int


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    size: int
    expires_at: float


class ResponseCache(Generic[V]):
    """A least-recently-used cache whose entries live for `ttl` seconds after they were put.

    Values are handed out as they were put in, so they must be immutable. `size` is what the caller says, in
    bytes. Times are monotonic seconds. Not safe for threads: its owner is one actor.
    """

    def __init__(self, ttl: float = 300.0, max_entries: int = 10_000, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        if not (ttl > 0 and max_entries > 0 and max_bytes > 0):
            raise ValueError("ttl, max_entries and max_bytes must be positive")
        self._ttl = ttl
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._by_use: OrderedDict[str, _Entry[V]] = OrderedDict()
        # All live equally long, so the order of putting is the order of expiring.
        self._by_age: OrderedDict[str, None] = OrderedDict()
        self._size = self._hits = self._misses = self._evicted = self._expired = 0

    def __len__(self) -> int:
        return len(self._by_use)

    @property
    def stats(self) -> CacheStats:
        return CacheStats(len(self), self._size, self._hits, self._misses, self._evicted, self._expired)

    def get(self, key: str, now: float) -> V | None:
        """The value, or None where there is none or its time is over; a hit does not lengthen its life."""
        self.expire(now)
        entry = self._by_use.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._by_use.move_to_end(key)
        self._hits += 1
        return entry.value

    def put(self, key: str, value: V, size: int, now: float) -> bool:
        """Keep a value, in place of an older one; False if it alone is larger than the whole cache.

        An older value of the key is dropped even then: it is no longer the newest answer.
        """
        if size < 0:
            raise ValueError(f"a size is not negative: {size}")
        self.expire(now)
        self.discard(key)
        if size > self._max_bytes:
            return False
        self._by_use[key] = _Entry(value, size, now + self._ttl)
        self._by_age[key] = None
        self._size += size
        while len(self._by_use) > self._max_entries or self._size > self._max_bytes:
            self._remove(next(iter(self._by_use)))
            self._evicted += 1
        return True

    def discard(self, key: str) -> bool:
        """Forget one entry; True if there was one."""
        if key not in self._by_use:
            return False
        self._remove(key)
        return True

    def expire(self, now: float) -> int:
        """Forget all entries whose time is over, and say how many that were."""
        count = 0
        while self._by_age and self._by_use[oldest := next(iter(self._by_age))].expires_at <= now:
            self._remove(oldest)
            count += 1
        self._expired += count
        return count

    def clear(self) -> None:
        """Forget all entries; the counts of hits and misses stay."""
        self._by_use.clear()
        self._by_age.clear()
        self._size = 0

    def _remove(self, key: str) -> None:
        self._size -= self._by_use.pop(key).size
        del self._by_age[key]
