from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rubberduck.core.concurrency import Concurrency


def test_a_route_starts_at_its_ceiling() -> None:
    slots = Concurrency(3)
    assert [slots.has_room(inflight) for inflight in range(5)] == [True, True, True, False, False]


def test_a_sign_of_too_much_leaves_seven_tenths_and_never_less_than_one() -> None:
    slots = Concurrency(10)
    seen = []
    for second in range(9):
        slots.overloaded(slots.limit, float(second), float(second))
        seen.append(slots.limit)
    assert seen == [7, 4, 2, 1, 1, 1, 1, 1, 1]


def test_a_cut_starts_from_what_is_out_where_that_is_less_than_the_limit() -> None:
    slots = Concurrency(100)
    assert slots.overloaded(10, 0.0, 0.1)
    assert slots.limit == 7


def test_one_burst_cuts_once() -> None:
    slots = Concurrency(100)
    assert slots.overloaded(100, 1.0, 2.0)
    assert not slots.overloaded(99, 1.5, 2.1), "it was sent before the cut"
    assert slots.limit == 70
    assert slots.overloaded(70, 2.0, 3.0), "it was sent after it"
    assert slots.limit == 49


def test_as_many_answers_as_the_limit_raise_it_by_one() -> None:
    slots = Concurrency(100)
    slots.overloaded(10, 0.0, 0.0)
    for _ in range(7):
        slots.answered(7)
    assert slots.limit == 7
    slots.answered(7)
    assert slots.limit == 8


def test_answers_while_less_than_half_is_in_use_prove_nothing() -> None:
    slots = Concurrency(100)
    slots.overloaded(100, 0.0, 0.0)
    for _ in range(1000):
        slots.answered(34)
    assert slots.limit == 70


def test_it_comes_back_to_the_ceiling_and_no_further() -> None:
    slots = Concurrency(8)
    slots.overloaded(8, 0.0, 0.0)
    for _ in range(200):
        slots.answered(slots.limit)
    assert slots.limit == 8


def test_a_ceiling_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Concurrency(0)


@given(st.integers(1, 40))
def test_it_settles_near_what_the_route_bears(bears: int) -> None:
    """A caller that always uses the whole limit stays between a cut below what is borne and one above it."""
    slots, seen = Concurrency(100), []
    for second in range(60 * bears):
        if slots.limit > bears:
            slots.overloaded(slots.limit, float(second), float(second))
        else:
            slots.answered(slots.limit)
        seen.append(slots.limit)
    late = seen[len(seen) // 2 :]
    assert max(late) <= bears + 1
    assert min(late) >= max(1, int(0.7 * bears))


class AgainstATable(RuleBasedStateMachine):
    """The limit beside a literal model: whole steps, no cleverness."""

    def __init__(self) -> None:
        super().__init__()
        self.slots = Concurrency(20)
        self.limit, self.now, self.cut_at = 20.0, 0.0, -1.0
        self.out: list[float] = []

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: len(self.out) < int(self.limit))
    @rule()
    def send(self) -> None:
        assert self.slots.has_room(len(self.out))
        self.out.append(self.now)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0, 100), is_too_much=st.booleans())
    def end(self, index: int, is_too_much: bool) -> None:
        inflight = len(self.out)
        started = self.out.pop(index % inflight)
        if not is_too_much:
            self.slots.answered(inflight)
            if inflight * 2 >= self.limit:
                self.limit = min(20.0, self.limit + 1 / self.limit)
        elif started >= self.cut_at:
            assert self.slots.overloaded(inflight, started, self.now)
            self.limit, self.cut_at = max(1.0, 0.7 * min(inflight, self.limit)), self.now
        else:
            assert not self.slots.overloaded(inflight, started, self.now)

    @invariant()
    def is_the_model(self) -> None:
        assert self.slots.limit == int(self.limit)
        assert 1 <= self.slots.limit <= self.slots.ceiling


TestAgainstATable = AgainstATable.TestCase
