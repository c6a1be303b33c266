"""What every store of shared limits promises, memory included. A new backend joins in BACKENDS."""

from __future__ import annotations

import asyncio
import builtins
import importlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rubberduck.core.shared_limit import SEEN, Ask, SharedLimit, Told
from rubberduck.errors import ConfigError
from rubberduck.storage.shared import (
    MemoryBooks,
    MemoryLimits,
    SharedLimits,
    SharedLimitsUnavailable,
    open_limits,
)

MINUTE = SharedLimit("it", 100)
QUICK = SharedLimit("quick", 100, window=0.9)
"""A limit whose lease is 30 ms and whose charges count for 945 ms."""


class Memory:
    """Nodes of one process, on a clock that is moved."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._books = MemoryBooks(lambda: self.now)

    def open(self, node: str) -> SharedLimits:
        return MemoryLimits(node, self._books)

    async def pause(self, seconds: float) -> None:
        self.now += seconds


class Redis:
    """Nodes of a server, whose clock nobody moves."""

    def __init__(self, server: Any) -> None:
        self._url = server.url

    def open(self, node: str) -> SharedLimits:
        return open_limits(self._url, node)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


BACKENDS = ("memory", "redis")


class Stories:
    """Runs a story with a store of each node that it asks for."""

    def __init__(self, backend: Memory | Redis) -> None:
        self.pause = backend.pause
        self._backend = backend
        self._opened: list[SharedLimits] = []

    def node(self, name: str = "one") -> SharedLimits:
        self._opened.append(self._backend.open(name))
        return self._opened[-1]

    def run(self, story: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                async with asyncio.timeout(100):
                    await story()
            finally:
                for store in self._opened:
                    await store.aclose()

        asyncio.run(whole())


@pytest.fixture(params=BACKENDS)
def stories(request: pytest.FixtureRequest) -> Stories:
    backend = Memory() if request.param == "memory" else Redis(request.getfixturevalue("redis_server"))
    return Stories(backend)


def amount(told: Told) -> float:
    return pytest.approx(told.amount, abs=1e-6)  # type: ignore[no-any-return]


def charged(told: Told) -> float:
    return sum(held for _, held in told.used)


def test_grants_go_on_until_the_limit_and_no_further(stories: Stories) -> None:
    async def story() -> None:
        one, other = stories.node("one"), stories.node("other")
        assert [(await store.take(MINUTE, Ask(40, 40))).amount for store in (one, other, one)] == [40, 40, 0]
        told = await other.take(MINUTE, Ask(40, 5))
        assert told.amount == 20
        assert charged(told) == 100
        assert (await one.take(MINUTE, Ask(1))).amount == 0

    stories.run(story)


def test_a_question_without_an_amount_only_tells(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        await store.take(MINUTE, Ask(30))
        told = await store.take(MINUTE, Ask())
        assert (told.amount, charged(told)) == (0, 30)
        assert 0 <= told.used[0][0] <= 30

    stories.run(story)


def test_each_limit_is_one_of_its_own(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        await store.take(MINUTE, Ask(100))
        assert (await store.take(SharedLimit("another", 5), Ask(9))).amount == 5

    stories.run(story)


def test_what_is_owed_is_charged_whether_there_is_room_or_not(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        told = await store.take(MINUTE, Ask(10, owed=95))
        assert (told.amount, charged(told)) == (5, 100)
        assert charged(await store.take(MINUTE, Ask(owed=50))) == 150
        assert (await store.take(MINUTE, Ask(1))).amount == 0

    stories.run(story)


def test_what_is_given_back_can_be_had_by_others_and_is_given_back_once(stories: Stories) -> None:
    async def story() -> None:
        one, other = stories.node("one"), stories.node("other")
        slice = (await one.take(MINUTE, Ask(100))).slice
        assert await one.release(MINUTE, slice, 30)
        assert not await one.release(MINUTE, slice, 30)
        assert not await one.release(MINUTE, "nobody's", 30)
        assert (await other.take(MINUTE, Ask(100))).amount == 30

    stories.run(story)


@pytest.mark.parametrize("returned", [-5.0, 7.0, 1e9])
def test_no_more_is_given_back_than_was_granted(stories: Stories, returned: float) -> None:
    async def story() -> None:
        store = stories.node()
        slice = (await store.take(MINUTE, Ask(10))).slice
        assert await store.release(MINUTE, slice, returned)
        assert charged(await store.take(MINUTE, Ask())) == 10 - max(0, min(returned, 10))

    stories.run(story)


def test_a_release_after_the_lease_does_nothing(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        began = time.monotonic()
        slice = (await store.take(QUICK, Ask(60))).slice
        await stories.pause(QUICK.lease + 0.01)
        assert not await store.release(QUICK, slice, 60)
        assert charged(await store.take(QUICK, Ask())) == 60 or time.monotonic() - began > QUICK.kept

    stories.run(story)


def test_a_charge_counts_for_the_window_and_as_long_as_a_slice_may_be_spent(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        await store.take(QUICK, Ask(100))
        began = time.monotonic()
        await stories.pause(QUICK.window / 2)
        told = await store.take(QUICK, Ask(1))
        assert told.amount == 0 or time.monotonic() - began > QUICK.window
        await stories.pause(QUICK.kept - QUICK.window / 2)
        assert (await store.take(QUICK, Ask(100))).amount == 100

    stories.run(story)


def test_a_bucket_is_full_at_first_and_refills(stories: Stories) -> None:
    bucket = SharedLimit("bucket", 10, 20.0)

    async def story() -> None:
        store = stories.node()
        told = await store.take(bucket, Ask(8))
        assert (told.amount, told.tokens) == (8, 2)
        told = await store.take(bucket, Ask(5, 5))
        assert told.amount == 0 or told.tokens > 0
        await stories.pause(0.3)
        told = await store.take(bucket, Ask(owed=4))
        assert 3.9 < told.tokens <= 6.01
        await store.take(bucket, Ask(owed=4000))
        assert (await store.take(bucket, Ask(1))).amount == 0

    stories.run(story)


def test_what_returns_to_a_bucket_that_was_full_since_would_have_run_over(stories: Stories) -> None:
    bucket = SharedLimit("bucket", 10, 100.0)

    async def story() -> None:
        store = stories.node()
        early = (await store.take(bucket, Ask(10))).slice
        await stories.pause(0.2)
        began = time.monotonic()
        late = await store.take(bucket, Ask(10))
        assert late.amount == 10
        assert await store.release(bucket, early, 10)
        assert (await store.take(bucket, Ask(10, 10))).amount == 0 or time.monotonic() - began >= 0.1
        slow = SharedLimit("slow", 10, 0.001)
        slice = (await store.take(slow, Ask(10))).slice
        assert await store.release(slow, slice, 4)
        assert (await store.take(slow, Ask())).tokens == pytest.approx(4, abs=0.1)

    stories.run(story)


def test_nodes_are_those_that_were_heard_of_and_have_not_left(stories: Stories) -> None:
    async def story() -> None:
        one, other = stories.node("one"), stories.node("other")
        assert (await one.take(MINUTE, Ask())).nodes == 1
        assert (await other.take(MINUTE, Ask())).nodes == 2
        assert await one.nodes() == 2
        await other.leave()
        assert (await one.take(MINUTE, Ask())).nodes == 1

    stories.run(story)


def test_a_store_is_young_until_nothing_can_count_that_it_has_not_seen(stories: Stories) -> None:
    async def story() -> None:
        store = stories.node()
        assert (await store.take(QUICK, Ask())).is_young
        await stories.pause(QUICK.kept)
        assert not (await store.take(QUICK, Ask())).is_young
        assert (await store.take(MINUTE, Ask())).is_young

    stories.run(story)


def test_many_who_ask_at_once_get_no_more_than_there_is(stories: Stories) -> None:
    async def story() -> None:
        stores = [stories.node(f"node-{number}") for number in range(8)]

        async def greedy(store: SharedLimits) -> float:
            return sum([(await store.take(MINUTE, Ask(1.5, 1))).amount for _ in range(20)])

        assert sum(await asyncio.gather(*map(greedy, stores))) == pytest.approx(100, abs=1)

    stories.run(story)


# --- memory


def test_a_node_that_is_silent_for_long_is_none() -> None:
    clock = Memory()
    one, other = clock.open("one"), clock.open("other")

    async def story() -> None:
        await one.take(MINUTE, Ask())
        await other.take(MINUTE, Ask())
        clock.now += SEEN + 0.01
        assert (await other.take(MINUTE, Ask())).nodes == 1

    asyncio.run(story())


def test_a_store_whose_clock_is_set_back_forgets_nothing_and_is_well_again_after_a_minute() -> None:
    clock = Memory()
    store = clock.open("one")

    async def story() -> None:
        slice = (await store.take(MINUTE, Ask(100))).slice
        clock.now -= 3600
        assert (await store.take(MINUTE, Ask(1))).amount == 0
        assert not await store.release(MINUTE, slice, 100)
        clock.now += MINUTE.kept
        assert (await store.take(MINUTE, Ask(100))).amount == 100

    asyncio.run(story())


# --- Redis


def test_the_clock_of_a_node_means_nothing_to_redis(redis_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store = stories.node()
        await store.take(MINUTE, Ask(100))
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 3600)
        told = await store.take(MINUTE, Ask(1))
        assert (told.amount, told.used[0][0]) == (0, pytest.approx(0, abs=60))

    stories.run(story)


def test_all_keys_in_redis_have_a_time_to_live(redis_server: Any) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store: Any = stories.node()
        await store.take(MINUTE, Ask(10))
        told = await store.take(SharedLimit("bucket", 10, 0.5), Ask(5))
        await store.release(SharedLimit("bucket", 10, 0.5), told.slice, 1)
        keys = await store._client.keys("*")
        assert sorted(keys) == [f"rubberduck:{{limits}}:{name}" for name in ("born", "bucket", "it", "nodes")]
        assert all([0 < await store._client.pttl(key) <= 86_400_000 for key in keys])

    stories.run(story)


def test_a_slice_that_nobody_gave_back_leaves_nothing_in_redis(redis_server: Any) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store: Any = stories.node()
        for _ in range(20):
            await store.take(QUICK, Ask(1))
        await stories.pause(QUICK.kept + 0.01)
        await store.take(QUICK, Ask())
        assert len(await store._client.hkeys("rubberduck:{limits}:quick")) == 1

    stories.run(story)


def test_scripts_that_a_server_has_forgotten_are_sent_again(redis_server: Any) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store: Any = stories.node()
        await store.connect()
        slice = (await store.take(MINUTE, Ask(10))).slice
        await store._client.script_flush()
        assert (await store.take(MINUTE, Ask(10))).amount == 10
        assert await store.release(MINUTE, slice, 10)

    stories.run(story)


def test_a_server_that_is_away_says_so_without_its_address_and_is_found_again(redis_server: Any) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store = stories.node()
        slice = (await store.take(MINUTE, Ask(10))).slice
        redis_server.kill()
        for asking in (
            store.connect(),
            store.take(MINUTE, Ask(1)),
            store.release(MINUTE, slice, 1),
            store.nodes(),
            store.leave(),
        ):
            with pytest.raises(SharedLimitsUnavailable) as failure:
                await asking
            assert redis_server.url.removeprefix("unix://") not in str(failure.value)
        redis_server.start()
        told = await store.take(MINUTE, Ask(1))
        assert (told.amount, told.is_young) == (1, True)

    stories.run(story)


def test_a_question_that_was_given_up_does_not_answer_the_next_one(redis_server: Any) -> None:
    stories = Stories(Redis(redis_server))

    async def story() -> None:
        store = stories.node()
        await store.take(MINUTE, Ask(1))
        redis_server.stall()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await store.take(MINUTE, Ask(7))
        redis_server.go_on()
        assert (await store.take(MINUTE, Ask(2))).amount == 2

    stories.run(story)


# --- opening one


@pytest.mark.parametrize("url", ["http://host", "redis", "", "redis://host:port/0"])
def test_an_address_of_no_store_is_a_fault_of_the_configuration(url: str) -> None:
    if url.startswith("redis://"):
        pytest.importorskip("redis", reason="redis-server: the package redis is not installed")
    with pytest.raises(ConfigError, match=r"^shared\.url"):
        open_limits(url, "one")


def test_the_fault_in_an_address_does_not_tell_the_password() -> None:
    pytest.importorskip("redis", reason="redis-server: the package redis is not installed")
    with pytest.raises(ConfigError) as failure:
        open_limits("redis://:se/cret@host:6379/0", "one")
    assert "cret" not in str(failure.value)


def test_without_the_client_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("redis"):
            raise builtins.ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"rubberduck-llm\[redis\]"):
        open_limits("redis://localhost", "one")
