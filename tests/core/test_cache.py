"""The cache of answers: what it keeps, for how long, and what goes first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rubberduck.core.cache import ResponseCache, cache_key, canonical_json

TTL = 10.0
MAX_ENTRIES = 4
MAX_BYTES = 20


def test_an_answer_is_found_until_its_time_is_over() -> None:
    cache: ResponseCache[str] = ResponseCache(ttl=300)
    cache.put("k", "answer", 6, now=100.0)
    assert cache.get("k", now=399.999) == "answer"
    assert cache.get("k", now=400.0) is None
    assert (cache.stats.entries, cache.stats.size_bytes, cache.stats.expired) == (0, 0, 1)


def test_a_hit_keeps_an_answer_from_eviction_but_not_from_expiry() -> None:
    cache: ResponseCache[str] = ResponseCache(ttl=10, max_entries=2)
    cache.put("a", "A", 1, now=0.0)
    cache.put("b", "B", 1, now=1.0)
    assert cache.get("a", now=2.0) == "A"
    cache.put("c", "C", 1, now=3.0)
    assert cache.get("b", now=3.0) is None
    assert cache.get("a", now=9.9) == "A"
    assert cache.get("a", now=10.0) is None


def test_what_has_expired_makes_room_before_what_is_still_good() -> None:
    cache: ResponseCache[str] = ResponseCache(ttl=10, max_entries=2)
    cache.put("old", "O", 1, now=0.0)
    cache.put("new", "N", 1, now=5.0)
    cache.get("old", now=6.0)
    cache.put("next", "X", 1, now=11.0)
    assert cache.get("new", now=11.0) == "N"
    assert cache.stats.evicted == 0


def test_large_answers_push_out_as_many_as_they_need() -> None:
    cache: ResponseCache[str] = ResponseCache(max_bytes=10)
    for key in "abc":
        cache.put(key, key, 3, now=0.0)
    cache.put("d", "d", 6, now=0.0)
    assert [cache.get(key, now=0.0) for key in "abcd"] == [None, None, "c", "d"]


def test_an_answer_larger_than_the_cache_is_not_kept_and_drops_the_stale_one() -> None:
    cache: ResponseCache[str] = ResponseCache(max_bytes=10)
    cache.put("a", "old", 3, now=0.0)
    cache.put("b", "other", 3, now=0.0)
    assert cache.put("a", "new", 11, now=0.0) is False
    assert cache.get("a", now=0.0) is None
    assert cache.get("b", now=0.0) == "other"


def test_replacing_an_answer_counts_its_size_once_and_renews_its_time() -> None:
    cache: ResponseCache[str] = ResponseCache(ttl=10)
    cache.put("a", "old", 3, now=0.0)
    cache.put("a", "new", 5, now=8.0)
    assert cache.stats.size_bytes == 5
    assert cache.get("a", now=17.0) == "new"


def test_clearing_forgets_answers_and_keeps_counts() -> None:
    cache: ResponseCache[str] = ResponseCache()
    cache.put("a", "A", 1, now=0.0)
    cache.get("a", now=0.0)
    cache.clear()
    assert cache.get("a", now=0.0) is None
    assert (cache.stats.hits, cache.stats.misses, cache.stats.size_bytes) == (1, 1, 0)


@pytest.mark.parametrize("bounds", [{"ttl": 0}, {"max_entries": 0}, {"max_bytes": -1}, {"ttl": float("nan")}])
def test_a_cache_without_room_or_time_is_a_mistake(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        ResponseCache(**bounds)  # type: ignore[arg-type]


def test_no_size_is_negative() -> None:
    with pytest.raises(ValueError, match="negative"):
        ResponseCache[str]().put("a", "A", -1, now=0.0)


def test_no_tenant_is_answered_from_anothers_entry() -> None:
    assert len({cache_key("{}", tenant) for tenant in (None, "", "a", "b", "-")}) == 5
    assert cache_key("b{}", "a") != cache_key("{}", "ab")
    assert cache_key("{}", "a") == cache_key(b"{}", "a")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _JSON, max_size=5))
def test_the_order_of_keys_does_not_change_the_canonical_text(value: dict[str, object]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical_json(turned) == canonical_json(value)
    assert json.loads(canonical_json(value)) == value


@given(st.text(), st.none() | st.text(), st.text(), st.none() | st.text())
def test_two_requests_share_a_key_only_if_they_are_one(a: str, tenant_a: str | None, b: str, tenant_b: str) -> None:
    assert (cache_key(a, tenant_a) == cache_key(b, tenant_b)) == ((a, tenant_a) == (b, tenant_b))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_has_no_key(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json({"x": value})


class AgainstALiteralModel(RuleBasedStateMachine):
    """The cache beside a plain list, in order of use, that is searched and rebuilt at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.cache: ResponseCache[int] = ResponseCache(TTL, MAX_ENTRIES, MAX_BYTES)
        self.model: list[tuple[str, int, int, float]] = []
        self.now = 0.0
        self.serial = 0

    def _live(self) -> list[tuple[str, int, int, float]]:
        return [entry for entry in self.model if self.now < entry[3] + TTL]

    @rule(step=st.sampled_from([0.0, 0.5, 3.0, 9.5, 10.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(key=st.sampled_from("abcdef"), size=st.integers(0, MAX_BYTES + 2))
    def put(self, key: str, size: int) -> None:
        self.serial += 1
        self.model = [entry for entry in self._live() if entry[0] != key]
        fits = size <= MAX_BYTES
        if fits:
            self.model.append((key, self.serial, size, self.now))
        while len(self.model) > MAX_ENTRIES or sum(entry[2] for entry in self.model) > MAX_BYTES:
            self.model.pop(0)
        assert self.cache.put(key, self.serial, size, self.now) is fits

    @rule(key=st.sampled_from("abcdef"))
    def get(self, key: str) -> None:
        self.model = self._live()
        found = [entry for entry in self.model if entry[0] == key]
        self.model = [entry for entry in self.model if entry[0] != key] + found
        assert self.cache.get(key, self.now) == (found[0][1] if found else None)

    @rule(key=st.sampled_from("abcdef"))
    def discard(self, key: str) -> None:
        known = any(entry[0] == key for entry in self.model)
        self.model = [entry for entry in self.model if entry[0] != key]
        assert self.cache.discard(key) is known

    @rule()
    def expire(self) -> None:
        gone = len(self.model) - len(self._live())
        self.model = self._live()
        assert self.cache.expire(self.now) == gone

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        assert len(self.cache) == len(self.model)
        assert self.cache.stats.size_bytes == sum(entry[2] for entry in self.model) <= MAX_BYTES


TestAgainstALiteralModel = AgainstALiteralModel.TestCase
TestAgainstALiteralModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
