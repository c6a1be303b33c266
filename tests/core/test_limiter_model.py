"""The limiter beside a literal model: a list of all that was ever taken, and every question answered by adding up."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait

CAPACITY, RATE, SLOTS, TTL = 8.0, 0.5, 2, 90.0
MINUTE = {"requests": 18.0, "input": 60.0, "output": 40.0}
OPTIONS = LimiterOptions(
    capacity=CAPACITY,
    refill_rate=RATE,
    requests_per_min=MINUTE["requests"],
    input_tokens_per_min=MINUTE["input"],
    output_tokens_per_min=MINUTE["output"],
    max_concurrency=SLOTS,
    reservation_ttl=TTL,
)
Lane = tuple[str, str]


@dataclass
class Out:
    """A reservation that is out. `entries` is where it stands in the minutes; a restart forgets that."""

    amounts: Amounts
    model: str
    since: float
    entries: dict[str, list[float]] | None
    number: int | None


@dataclass
class Literal:
    """Nothing but lists: what flowed in and out of the bucket, what each minute counts, and who stands where."""

    flow: list[tuple[float, float]] = field(default_factory=list)  # when, and what it added to the bucket
    full_before: list[bool] = field(default_factory=list)
    granting: set[int] = field(default_factory=set)
    minutes: dict[str, list[list[float]]] = field(default_factory=lambda: {name: [] for name in MINUTE})
    out: dict[str, Out] = field(default_factory=dict)
    lines: dict[Lane, list[tuple[str, Amounts]]] = field(default_factory=dict)
    booked: list[Lane] = field(default_factory=list)
    blocked: float = -inf

    def balance(self, now: float) -> float:
        balance, at = CAPACITY, 0.0
        for when, added in [*self.flow, (now, 0.0)]:
            balance = min(CAPACITY, balance + (when - at) * RATE)
            balance, at = min(CAPACITY, balance + added), when
        return balance

    def used(self, name: str, now: float) -> float:
        return sum(amount for start, amount in self.minutes[name] if now < start + 61)

    def has_slot(self, model: str) -> bool:
        return sum(each.model == model for each in self.out.values()) < SLOTS

    def fits(self, amounts: Amounts, now: float) -> bool:
        if now < self.blocked or amounts.requests > self.balance(now) + 1e-9:
            return False
        needs = {name: getattr(amounts, name) for name in MINUTE if getattr(amounts, name)}
        return all(self.used(name, now) + need <= MINUTE[name] + 1e-9 for name, need in needs.items())

    def may_enter_at_once(self, amounts: Amounts, model: str, now: float) -> bool:
        if any(first == model or self.has_slot(first) for _, first in self.booked):
            return False
        return self.has_slot(model) and self.fits(amounts, now)

    def grant(self, name: str, amounts: Amounts, model: str, now: float) -> None:
        self.full_before.append(self.balance(now) >= CAPACITY)
        self.granting.add(len(self.flow))
        self.flow.append((now, -amounts.requests))
        entries = {name: [float(floor(now)), getattr(amounts, name)] for name in MINUTE}
        for counts, entry in entries.items():
            self.minutes[counts].append(entry)
        self.out[name] = Out(amounts, model, now, entries, len(self.full_before))

    def stand(self, name: str, amounts: Amounts, lane: Lane) -> None:
        line = self.lines.setdefault(lane, [])
        line.append((name, amounts))
        if len(line) == 1:
            self.booked.append(lane)

    def leave(self, name: str) -> None:
        for lane, line in list(self.lines.items()):
            was_first = bool(line) and line[0][0] == name
            line[:] = [each for each in line if each[0] != name]
            if was_first:
                self.booked.remove(lane)
                if line:
                    self.booked.append(lane)

    def poll(self, now: float) -> list[str]:
        for name in [name for name, each in self.out.items() if each.since + TTL <= now]:
            del self.out[name]  # lost: the slot is free, the charge stays
        granted: list[str] = []
        while (found := self._next(now)) is not None:
            name, amounts = self.lines[found][0]
            self.leave(name)
            self.grant(name, amounts, found[1], now)
            granted.append(name)
        return granted

    def _next(self, now: float) -> Lane | None:
        passed_over = set()
        for lane in self.booked:
            if lane[1] in passed_over:
                continue
            if self.has_slot(lane[1]):
                return lane if self.fits(self.lines[lane][0][1], now) else None
            passed_over.add(lane[1])
        return None

    def settle(self, name: str, actual: Amounts, now: float) -> None:
        out = self.out.pop(name)
        surplus = out.amounts.requests - actual.requests
        overflowed = out.number is not None and any(self.full_before[out.number :])
        if surplus < 0 or not overflowed:
            self.flow.append((now, surplus))
        for counts in MINUTE:
            surplus = getattr(out.amounts, counts) - getattr(actual, counts)
            if surplus < 0:
                self.minutes[counts].append([float(floor(now)), -surplus])
            elif out.entries is not None:
                out.entries[counts][1] -= surplus

    def restart(self) -> None:
        self.lines.clear()
        self.booked.clear()
        for out in self.out.values():
            out.entries = out.number = None


AMOUNTS = st.builds(
    Amounts, st.sampled_from([1, 1, 2, 6]), st.sampled_from([0, 0, 5, 35]), st.sampled_from([0, 0, 3, 25]), st.just(1)
)


class LimiterAgainstLiteral(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.count = 0.0, 0
        self.real, self.model = Limiter(OPTIONS, 0.0), Literal()
        self.admitted: dict[str, tuple[float, Amounts]] = {}

    # -- what happens

    @rule(step=st.sampled_from([0.25, 1.0, 3.75, 16.0, 59.5]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.poll()

    @rule(amounts=AMOUNTS, klass=st.sampled_from(["high", "normal", "low"]), model=st.sampled_from("ab"))
    def reserve(self, amounts: Amounts, klass: Any, model: str) -> None:
        self.count += 1
        name = str(self.count)
        at_once = self.model.may_enter_at_once(amounts, model, self.now)
        answer = self.real.reserve(name, amounts, self.now, klass=klass, model=model)
        if at_once:
            assert answer == Granted(name)
            self.model.grant(name, amounts, model, self.now)
            self.admit(name, amounts)
        else:
            assert isinstance(answer, Wait)
            self.model.stand(name, amounts, (klass, model))
        assert type(self.real.reserve(name, amounts, self.now, model=model)) is type(answer), (
            "asked again, charged once"
        )

    @rule(amounts=AMOUNTS, model=st.sampled_from("ab"))
    def try_at_once(self, amounts: Amounts, model: str) -> None:
        """A refusal takes nothing; its time is exact where nobody else waits."""
        self.count += 1
        name, before = str(self.count), self.real.snapshot(self.now)
        at_once = self.model.may_enter_at_once(amounts, model, self.now)
        answer = self.real.reserve(name, amounts, self.now, deadline=self.now, model=model)
        if at_once:
            assert answer == Granted(name)
            self.model.grant(name, amounts, model, self.now)
            self.admit(name, amounts)
            return
        if isinstance(answer, Wait):  # only a slot is lacking, and nobody can tell when one will be free
            assert answer.at is None
            assert self.real.cancel(name, self.now)
        else:
            assert isinstance(answer, Refused)
        assert self.real.snapshot(self.now) == before
        if isinstance(answer, Refused) and not self.model.booked and self.model.has_slot(model):
            assert answer.retry_after is not None
            self.comes_true(answer.retry_after, amounts, model)

    def comes_true(self, wait: float, amounts: Amounts, model: str) -> None:
        for early, expected in ((0.0, Granted), (1e-6, Refused)):
            if wait > 2e-6 or not early:
                at = self.now + wait - early
                answer = copy.deepcopy(self.real).reserve("later", amounts, at, deadline=at, model=model)
                assert isinstance(answer, expected)

    @rule(tokens=st.integers(1, 6))
    def check(self, tokens: int) -> None:
        amounts = Amounts(tokens, 0, 0, 0)
        may = self.model.fits(amounts, self.now) and not any(
            self.model.has_slot(model) for _, model in self.model.booked
        )
        answer = self.real.check(tokens, self.now)
        assert isinstance(answer, Granted) == may
        if may:
            self.count += 1
            self.model.grant(str(self.count), amounts, "none", self.now)
            del self.model.out[str(self.count)]
            self.admit(str(self.count), amounts)

    @precondition(lambda self: self.model.out)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0, 1.5]), cancels=st.booleans())
    def end(self, data: st.DataObject, share: float, cancels: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.out)))
        taken = self.model.out[name].amounts
        share = 0.0 if cancels else share
        actual = Amounts(taken.requests * share, taken.input * share, taken.output * share, 1)
        settle = self.real.cancel if cancels else lambda id, now: self.real.commit(id, actual, now)
        assert settle(name, self.now)
        assert not settle(name, self.now), "settled once"
        if not cancels:
            assert self.real.reserve(name, taken, self.now) == Granted(name), "a question repeated late"
        was_restored = self.model.out[name].entries is None
        self.model.settle(name, actual, self.now)
        if share < 1 and not was_restored:
            at, _ = self.admitted[name]
            self.admitted[name] = at, Amounts(actual.requests, actual.input, actual.output, 0)
        self.poll()

    @precondition(lambda self: any(self.model.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for line in self.model.lines.values() for name, _ in line]))
        assert self.real.cancel(name, self.now)
        assert not self.real.cancel(name, self.now)
        self.model.leave(name)
        self.poll()

    @rule(seconds=st.sampled_from([0.5, 7.0]))
    def penalise(self, seconds: float) -> None:
        self.real.penalise(self.now + seconds)
        self.model.blocked = max(self.model.blocked, self.now + seconds)

    @rule()
    def crash(self) -> None:
        """It admits no more than without: the model goes on, but for the line and for what could have returned."""
        self.real = Limiter.restore(self.real.snapshot(self.now), OPTIONS, self.now)
        self.model.restart()

    def poll(self) -> None:
        waiting = {name: amounts for line in self.model.lines.values() for name, amounts in line}
        expected = self.model.poll(self.now)
        assert self.real.poll(self.now) == [Granted(name) for name in expected]
        assert self.real.poll(self.now) == [], "one wake-up for each"
        for name in expected:
            self.admit(name, waiting[name])

    def admit(self, name: str, amounts: Amounts) -> None:
        """Granted now: together with what was used of the last 60 s it is no more than a minute's limit."""
        self.admitted[name] = self.now, amounts
        for counts, limit in MINUTE.items():
            recent = [getattr(each, counts) for at, each in self.admitted.values() if at > self.now - 60]
            assert sum(recent) <= limit + 1e-6

    # -- what holds at any time

    @invariant()
    def the_books_are_the_same(self) -> None:
        stats = self.real.stats(self.now)
        assert stats.tokens == pytest.approx(self.model.balance(self.now), abs=1e-6)
        assert stats.tokens <= CAPACITY
        for name, used in stats.used_this_minute.items():
            assert used == pytest.approx(self.model.used(name, self.now), abs=1e-6)
        assert stats.in_flight == len([each for each in self.model.out.values() if each.since + TTL > self.now])
        assert stats.waiting == sum(map(len, self.model.lines.values()))

    @invariant()
    def the_next_time_is_never_too_late(self) -> None:
        """Nothing that time alone brings happens before: else nobody would be woken for it."""
        due = self.real.next_at(self.now)
        for early in (0.25, 1.0, 20.0):
            if due is None or self.now + early < due:
                assert copy.deepcopy(self.model).poll(self.now + early) == []

    @invariant()
    def no_interval_lets_through_more_than_the_burst_and_the_refill(self) -> None:
        """Net of what has returned. What was used beyond a reservation is owed, and counts at the next grant."""
        flow = self.model.flow
        for first, (since, _) in enumerate(flow):
            net = 0.0
            for number, (at, added) in enumerate(flow[first:], first):
                net -= added
                if number in self.model.granting:
                    assert net <= CAPACITY + RATE * (at - since) + 1e-6

    def teardown(self) -> None:
        """At rest nothing is out."""
        for name in list(self.model.out):
            self.real.cancel(name, self.now)
        for line in self.model.lines.values():
            for name, _ in line:
                self.real.cancel(name, self.now)
        stats = self.real.stats(self.now)
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert self.real.next_at(self.now) is None


TestLimiterAgainstLiteral = LimiterAgainstLiteral.TestCase
TestLimiterAgainstLiteral.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
