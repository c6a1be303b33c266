"""Several nodes, one limit: what they spend together, with the store, without it, and while it comes and goes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck.core.bucket import MinuteWindow, TokenBucket
from rubberduck.core.configured import Configured
from rubberduck.core.leases import BEAT, LeasedMeter
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions
from rubberduck.core.shared_limit import SEEN, Ask, SharedLimit, Told
from rubberduck.storage.shared import MemoryBooks, MemoryLimits

ONE = Amounts()
HUNDRED = SharedLimit("it", 100)


class Meter:
    """A leased meter beside its own, and what it called for."""

    def __init__(self, limit: SharedLimit = HUNDRED, **options: Any) -> None:
        bucket = TokenBucket(limit.most, limit.refill_rate, 0.0) if limit.refill_rate else None
        self.own = bucket or MinuteWindow(limit.most)
        self.calls = 0
        self.leased = LeasedMeter(limit, self.own, self._called, **options)

    def _called(self) -> None:
        self.calls += 1

    def spend(self, amount: float, now: float) -> Any:
        assert max(self.own.wait(amount, now), self.leased.wait(amount, now)) == 0
        self.own.take(amount, now)
        return self.leased.take(amount, now)

    def hear(self, now: float, amount: float = 0.0, *, slice: str = "s", **told: Any) -> Ask:
        ask = self.leased.ask(now)
        self.leased.answered(ask, Told(slice, amount, **told), now, now)
        return ask


# --- one node


def test_who_has_nothing_at_hand_waits_a_moment_and_it_is_asked_for_once():
    meter = Meter()
    assert 0 < meter.leased.wait(1, 0.0) < 0.05
    assert meter.leased.wait(3, 0.0) > 0
    assert meter.calls == 1
    assert meter.hear(0.0, 5) == Ask(amount=5, least=1)
    assert meter.leased.wait(5, 0.0) == 0
    assert meter.leased.wait(6, 0.0) > 0


def test_what_a_large_call_needs_is_asked_for_at_once():
    meter = Meter()
    meter.leased.wait(40, 0.0)
    assert meter.hear(0.0) == Ask(amount=40, least=40)


def test_before_the_last_of_a_slice_is_spent_the_next_is_asked_for():
    meter = Meter()
    meter.leased.wait(1, 0.0)
    meter.hear(0.0, 5)
    meter.spend(2, 0.0)
    assert meter.calls == 1
    meter.spend(1, 0.0)
    assert meter.calls == 2
    assert meter.leased.at_hand(0.0) == 2


def test_a_slice_is_spent_within_its_lease_and_not_after():
    meter = Meter()
    meter.hear(10.0, 5)
    assert meter.leased.at_hand(11.999) == 5
    assert meter.leased.at_hand(12.0) == 0
    assert meter.leased.wait(1, 12.0) > 0


def test_what_is_left_of_a_slice_is_given_back_before_it_ends_and_not_spent_any_more():
    meter = Meter()
    meter.hear(10.0, 5, slice="a")
    meter.spend(2, 10.0)
    assert meter.leased.give_back(11.0) == []
    assert meter.leased.give_back(11.6) == [("a", 3)]
    assert meter.leased.give_back(11.6) == []
    assert meter.leased.at_hand(11.6) == 0


def test_a_surplus_returns_to_its_slice_while_that_may_be_spent():
    meter = Meter()
    meter.hear(10.0, 5)
    cell = meter.spend(4, 10.0)
    meter.leased.settle(cell, 4, 1, 11.0)
    assert meter.leased.at_hand(11.0) == 4
    meter.leased.settle(cell, 4, 0, 12.5)
    assert meter.leased.at_hand(12.5) == 0


def test_an_excess_is_told_to_the_store_once():
    meter = Meter()
    meter.hear(10.0, 5)
    meter.leased.settle(meter.spend(5, 10.0), 5, 12, 10.5)
    assert meter.hear(11.0).owed == 7
    assert meter.hear(11.5).owed == 0


def test_what_the_store_may_not_have_heard_is_told_again_while_it_is_of_this_minute():
    meter = Meter()
    meter.leased.lost(0.0)
    meter.spend(3, 0.0)
    assert meter.leased.ask(1.0).owed == 3
    meter.spend(4, 1.0)
    meter.leased.failed(1.0)
    assert meter.leased.ask(30.0).owed == 7
    meter.leased.failed(30.0)
    assert meter.leased.ask(61.5).owed == 4


def test_a_store_without_room_is_asked_again_when_it_may_have_some():
    meter = Meter()
    meter.leased.wait(1, 100.0)
    meter.hear(100.0, 0, used=((20.0, 40.0), (10.0, 60.0)))
    calls = meter.calls
    assert meter.leased.wait(1, 100.0) == pytest.approx(43)
    assert meter.leased.wait(60, 100.0) == pytest.approx(53)
    assert meter.calls == calls
    assert 0 < meter.leased.wait(1, 143.0) < 0.1
    assert meter.calls == calls + 1


# --- one node alone


def test_without_the_store_a_node_spends_its_share_of_four_fifths():
    meter = Meter()
    meter.hear(0.0, nodes=4)
    meter.leased.lost(1.0)
    meter.spend(20, 1.0)
    assert meter.leased.wait(1, 1.0) == pytest.approx(61), "a cell counts until it is wholly out"


def test_what_a_node_spent_before_the_store_went_counts_for_its_share():
    meter = Meter()
    meter.leased.wait(15, 0.0)
    meter.hear(0.0, 15, nodes=4, used=((0.0, 15.0),))
    meter.spend(15, 0.0)
    meter.leased.lost(1.0)
    meter.spend(5, 1.0)
    assert meter.leased.wait(1, 1.0) > 50


def test_a_node_without_the_store_takes_of_what_others_left_only_its_part():
    meter = Meter()
    meter.hear(0.0, nodes=2, used=((0.0, 90.0),))
    meter.leased.lost(1.0)
    meter.spend(5, 1.0)
    assert meter.leased.wait(1, 1.0) == pytest.approx(62)
    meter.spend(35, 63.0)


def test_what_is_larger_than_a_share_goes_alone():
    meter = Meter()
    meter.hear(0.0, nodes=8)
    meter.leased.lost(0.0)
    meter.spend(50, 0.0)
    assert meter.leased.wait(1, 10.0) == pytest.approx(51)


def test_a_node_that_never_saw_the_store_counts_the_nodes_it_was_told():
    meter = Meter(least_nodes=8)
    meter.leased.lost(0.0)
    meter.spend(10, 0.0)
    assert meter.leased.wait(1, 0.0) > 50


def test_a_store_that_may_have_forgotten_is_believed_only_within_the_share():
    meter = Meter()
    meter.hear(0.0, 60, nodes=2, is_young=True)
    meter.spend(40, 0.0)
    assert meter.leased.wait(1, 0.0) > 50
    meter.hear(1.0, nodes=2)
    assert meter.leased.wait(1, 1.0) == 0


def test_back_with_the_store_a_node_keeps_to_its_share_until_the_others_are_back_too():
    meter = Meter()
    meter.hear(0.0, nodes=2)
    meter.leased.lost(1.0)
    meter.hear(10.0, 60, nodes=1)
    assert not meter.leased.is_away
    assert meter.leased.wait(50, 10.0) == 0, "it goes alone"
    meter.spend(40, 10.0)
    assert meter.leased.wait(1, 10.0) > 50
    meter.hear(15.0, 60, nodes=2)
    assert meter.leased.wait(1, 15.0) == 0


def test_the_share_of_a_bucket_begins_empty_and_fills_at_its_part_of_the_rate():
    meter = Meter(SharedLimit("it", 100, 10.0))
    meter.hear(0.0, nodes=2)
    meter.leased.lost(0.0)
    assert meter.leased.wait(4, 0.0) == pytest.approx(1)
    meter.spend(40, 10.0)
    assert meter.leased.wait(40, 10.0) == pytest.approx(10)
    meter.leased.settle([0.0, 1.0], 40, 0, 10.0)
    assert meter.leased.wait(40, 10.0) == 0


# --- several nodes


class Node:
    """One process: a whole limiter on a clock of its own, and who asks the store for it, a step at a time."""

    def __init__(self, fleet: Fleet, number: int, options: LimiterOptions, skew: float) -> None:
        self.fleet, self.skew = fleet, skew
        self.store = MemoryLimits(f"node-{number}", fleet.books)
        self.meters: list[LeasedMeter] = []
        self.failures = 0
        self.retry_at = -inf
        self.beat_at = fleet.now + fleet.rng.random() * BEAT
        self.serial = 0
        self.waiting: dict[str, Amounts] = {}
        self.spent: list[tuple[float, Amounts]] = []

        def sharing(unit: str, own: Any) -> LeasedMeter:
            rate = own.refill_rate if isinstance(own, TokenBucket) else 0.0
            meter = LeasedMeter(SharedLimit(unit, own.most, rate), own, lambda: self.short.append(meter))
            self.meters.append(meter)
            return meter

        self.short: deque[LeasedMeter] = deque()
        self.limiter = Limiter(options, self.now, configured=Configured(options, self.now, sharing=sharing))

    @property
    def now(self) -> float:
        return self.fleet.now + self.skew

    def ask_for(self, amounts: Amounts) -> None:
        self.serial += 1
        answer = self.limiter.reserve(str(self.serial), amounts, self.now)
        if isinstance(answer, Granted):
            self._go(answer.id, amounts)
        else:
            self.waiting[str(self.serial)] = amounts

    def _go(self, id: str, amounts: Amounts) -> None:
        self.spent.append((self.fleet.now, amounts))
        self.limiter.commit(id, amounts, self.now)

    def step(self) -> None:
        if self.fleet.now >= self.beat_at:
            self.beat_at += BEAT
            for meter in self.meters:
                self._give_back(meter)
                self._exchange(meter)
        while self.short:
            self._exchange(self.short.popleft())
        for answer in self.limiter.poll(self.now):
            self._go(answer.id, self.waiting.pop(answer.id))

    def _give_back(self, meter: LeasedMeter) -> None:
        for slice, amount in meter.give_back(self.now):
            if self.fleet.is_up:
                asyncio.run(self.store.release(meter.limit, slice, amount))

    def _exchange(self, meter: LeasedMeter) -> None:
        if self.fleet.now < self.retry_at:
            meter.lost(self.now)
            meter.failed(self.now)
            return
        ask = meter.ask(self.now)
        if self.fleet.is_up:
            self.failures = 0
            told = asyncio.run(self.store.take(meter.limit, ask))
            if self.fleet.rng.random() < self.fleet.loses_answers:
                meter.failed(self.now)
            else:
                meter.answered(ask, told, self.now, self.now)
        else:
            meter.failed(self.now)
            self.failures += 1
            if self.failures >= 3:
                meter.lost(self.now)
                self.retry_at = self.fleet.now + 1.0


class Fleet:
    """Nodes that share one store, on a virtual clock that goes in steps of 50 ms."""

    STEP = 0.05

    def __init__(self, nodes: int, options: LimiterOptions, seed: int = 0, loses_answers: float = 0.0) -> None:
        self.now = 1000.0
        self.rng = random.Random(seed)
        self.loses_answers = loses_answers
        self.is_up = True
        self.books = MemoryBooks(lambda: self.now)
        skews = [0.0, 3600.0, -777.25, 0.4, 86_400.0]
        self.nodes = [Node(self, number, options, skews[number]) for number in range(nodes)]

    def run(self, seconds: float, rate: float, amounts: Amounts = ONE, *, to: slice = slice(None)) -> None:
        """Each second `rate` calls come, each to one of the nodes, as long as not very many wait there."""
        until = self.now + seconds
        while self.now < until:
            self.now += self.STEP
            for node in self.nodes:
                node.step()
            due = rate * self.STEP
            for _ in range(int(due) + (self.rng.random() < due % 1)):
                node = self.rng.choice(self.nodes[to])
                if len(node.waiting) < 20:
                    node.ask_for(amounts)

    def forget(self) -> None:
        """The store comes up again with nothing in it."""
        books = MemoryBooks(lambda: self.now)
        self.books = books
        for number, node in enumerate(self.nodes):
            node.store = MemoryLimits(f"node-{number}", books)

    def most_in_a_minute(self, unit: str = "requests", span: float = 60.0) -> float:
        """The most that was granted by all nodes in any sliding minute."""
        spent = sorted((at, getattr(amounts, unit)) for node in self.nodes for at, amounts in node.spent)
        most = total = 0.0
        first = 0
        for at, amount in spent:
            total += amount
            while spent[first][0] <= at - span + 1e-6:
                total -= spent[first][1]
                first += 1
            most = max(most, total)
        return most

    def granted(self, since: float = 0.0, unit: str = "requests") -> float:
        return sum(getattr(amounts, unit) for node in self.nodes for at, amounts in node.spent if at > since)


PER_MINUTE = LimiterOptions(requests_per_min=600, max_concurrency=10_000)


@pytest.mark.parametrize("nodes", [2, 5])
def test_no_minute_of_all_nodes_exceeds_the_limit_and_hardly_any_of_it_is_wasted(nodes):
    fleet = Fleet(nodes, PER_MINUTE)
    fleet.run(65, rate=30)
    begun = fleet.now
    fleet.run(126, rate=30)
    assert fleet.most_in_a_minute() <= 600
    assert fleet.granted(begun) >= 2 * 600 * 0.95, "a charge counts for 63 s instead of 60"


@pytest.mark.parametrize("nodes", [2, 5])
def test_one_busy_node_may_have_all_of_it(nodes):
    fleet = Fleet(nodes, PER_MINUTE)
    fleet.run(70, rate=0.5)
    begun = fleet.now
    fleet.run(62, rate=100, to=slice(1))
    assert fleet.granted(begun) >= 560
    assert fleet.most_in_a_minute() <= 600


@pytest.mark.parametrize("nodes", [2, 5])
def test_while_the_store_is_away_the_nodes_keep_to_their_shares_and_nobody_hangs(nodes):
    fleet = Fleet(nodes, PER_MINUTE)
    fleet.run(70, rate=30)
    fleet.is_up = False
    begun = fleet.now
    fleet.run(130, rate=30)
    assert fleet.granted(begun + 64) >= 0.8 * 600 * 0.95
    for node in fleet.nodes:
        assert node.limiter.stats(node.now).used_this_minute["requests"] <= 0.8 * 600 / nodes
    fleet.is_up = True
    fleet.run(70, rate=30)
    begun = fleet.now
    fleet.run(63, rate=30)
    assert fleet.granted(begun) >= 570
    assert fleet.most_in_a_minute() <= 1.05 * 600


@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize("keeps_its_memory", [True, False])
def test_a_store_that_comes_back_is_not_drained_a_second_time(nodes, keeps_its_memory):
    fleet = Fleet(nodes, PER_MINUTE)
    fleet.run(70, rate=15)
    for seconds in (3, 20):
        fleet.is_up = False
        fleet.run(seconds, rate=30)
        fleet.is_up = True
        if not keeps_its_memory:
            fleet.forget()
        fleet.run(33, rate=30)
    fleet.run(63, rate=30)
    assert fleet.most_in_a_minute() <= 1.05 * 600


def test_a_store_that_forgets_at_once_is_not_drained_a_second_time():
    fleet = Fleet(3, PER_MINUTE)
    fleet.run(70, rate=30)
    fleet.is_up = False
    fleet.run(0.3, rate=30)
    fleet.is_up = True
    fleet.forget()
    fleet.run(80, rate=30)
    assert fleet.most_in_a_minute() <= 1.05 * 600


def test_a_load_that_moves_to_an_idle_node_when_the_store_goes_is_not_served_twice():
    fleet = Fleet(2, PER_MINUTE)
    fleet.run(70, rate=0.2)
    fleet.run(20, rate=60, to=slice(1))
    fleet.run(1, rate=0.0)
    fleet.is_up = False
    fleet.run(70, rate=60, to=slice(1, 2))
    assert fleet.most_in_a_minute() <= 1.05 * 600


def test_tokens_and_requests_are_leased_side_by_side():
    options = LimiterOptions(requests_per_min=300, input_tokens_per_min=60_000, max_concurrency=10_000)
    fleet = Fleet(3, options)
    fleet.run(130, rate=10, amounts=Amounts(input=900))
    assert 0.9 * 60_000 <= fleet.most_in_a_minute("input") <= 60_000
    assert fleet.most_in_a_minute() <= 300


def test_a_bucket_of_all_nodes_gives_its_burst_once_and_then_its_rate():
    fleet = Fleet(3, LimiterOptions(capacity=60, refill_rate=5, max_concurrency=10_000))
    fleet.run(70, rate=0.2)
    begun = fleet.now
    fleet.run(60, rate=40)
    spent = fleet.granted(begun)
    assert 0.95 * (60 + 5 * 60) <= spent <= 1.05 * (60 + 5 * 60)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32),
    nodes=st.sampled_from([2, 3, 5]),
    phases=st.lists(
        st.tuples(
            st.sampled_from(["up", "away", "forgets"]),
            st.floats(0.5, 40),
            st.sampled_from([0.5, 4.0, 15.0]),
            st.booleans(),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_whatever_happens_to_the_store_and_its_answers_no_minute_exceeds_the_limit(seed, nodes, phases):
    options = LimiterOptions(requests_per_min=200, max_concurrency=10_000)
    fleet = Fleet(nodes, options, seed, loses_answers=0.05)
    fleet.run(SEEN / 2, rate=1)
    for store, seconds, rate, at_one_node in phases:
        if store == "forgets":
            fleet.forget()
        fleet.is_up = store != "away"
        fleet.run(seconds, rate, to=slice(1) if at_one_node else slice(None))
    assert fleet.most_in_a_minute() <= 1.05 * 200
