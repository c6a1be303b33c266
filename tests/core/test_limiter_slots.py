"""Slots belong to models: who waits for one model's slot holds up nobody who asks for another."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rubberduck.core.concurrency import Concurrency
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait
from rubberduck.core.slots import Slots

ONE = Amounts()


def limiter(slots: Slots | None = None, **options: object) -> Limiter:
    return Limiter(LimiterOptions(**options), 0.0, slots)  # type: ignore[arg-type]


def granted(answers: list[Granted | Refused]) -> list[str]:
    return [answer.id for answer in answers if isinstance(answer, Granted)]


def test_each_model_has_as_many_slots_as_are_configured() -> None:
    books = limiter(max_concurrency=1)
    assert books.reserve("big", ONE, 0.0, model="big") == Granted("big")
    assert books.reserve("big 2", ONE, 0.0, model="big") == Wait("big 2", None)
    assert books.reserve("small", ONE, 0.0, model="small") == Granted("small")
    assert books.stats(0.0).in_flight == 2


def test_who_waits_for_a_slot_is_passed_by_those_of_another_model_and_not_by_those_of_its_own() -> None:
    books = limiter(max_concurrency=1, capacity=9, refill_rate=0)
    for name in ("big", "big 2"):
        books.reserve(name, ONE, 0.0, model="big")
    assert isinstance(books.reserve("big 3", ONE, 0.0, klass="high", model="big"), Wait)
    assert books.reserve("small", ONE, 0.0, klass="low", model="small") == Granted("small")
    books.commit("big", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["big 2"]


def test_a_slot_that_comes_free_wakes_the_one_who_waits_for_it() -> None:
    books = limiter(max_concurrency=1)
    for model in ("a", "b"):
        for number in range(2):
            books.reserve(f"{model}{number}", ONE, 0.0, model=model)
    books.commit("b0", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["b1"]
    books.commit("a0", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["a1"]


def test_who_waits_for_tokens_is_still_passed_by_nobody() -> None:
    books = limiter(max_concurrency=5, capacity=10, refill_rate=1)
    books.reserve("first", Amounts(9), 0.0, model="a")
    assert books.reserve("big", Amounts(10), 0.0, model="a") == Wait("big", 9.0)
    assert isinstance(books.reserve("small", ONE, 0.0, model="b"), Wait)
    assert granted(books.poll(9.0)) == ["big"]


def test_the_next_time_is_that_of_the_model_that_only_time_holds_up() -> None:
    books = limiter(max_concurrency=1, capacity=2, refill_rate=1)
    books.reserve("big", ONE, 0.0, model="big")
    books.reserve("big 2", ONE, 0.0, model="big")
    books.reserve("small", Amounts(2), 0.0, model="small")
    assert books.next_at(0.0) == 1.0
    assert granted(books.poll(1.0)) == ["small"]


def test_a_check_is_not_held_up_by_who_waits_for_a_models_slot() -> None:
    books = limiter(max_concurrency=1, capacity=9, refill_rate=1)
    for name in ("big", "big 2"):
        books.reserve(name, ONE, 0.0, model="big")
    assert books.check(1, 0.0) == Granted("")


def test_the_estimated_wait_for_a_slot_counts_those_who_wait_for_the_same_model() -> None:
    books = limiter(max_concurrency=1)
    for number in range(3):
        books.reserve(f"a{number}", ONE, 0.0, model="a")
    books.reserve("b0", ONE, 0.0, model="b")
    assert 0 < books.peek(ONE, 0.0, model="b") < books.peek(ONE, 0.0, model="a")
    assert books.peek(ONE, 0.0, model="c") == 0


def test_limiters_of_one_provider_share_its_slots() -> None:
    slots = Slots.up_to(2)
    mine, yours = limiter(slots), limiter(slots)
    assert isinstance(mine.reserve("a", ONE, 0.0, model="m"), Granted)
    assert isinstance(yours.reserve("b", ONE, 0.0, model="m"), Granted)
    assert isinstance(yours.reserve("c", ONE, 0.0, model="m"), Wait)
    mine.commit("a", ONE, 1.0)
    assert granted(yours.poll(1.0)) == ["c"]
    assert (mine.stats(1.0).in_flight, yours.stats(1.0).in_flight, slots.taken("m")) == (0, 2, 2)


def test_each_model_has_a_limit_of_its_own_that_others_move() -> None:
    limits: defaultdict[str, Concurrency] = defaultdict(lambda: Concurrency(4))
    books = limiter(Slots(limits.__getitem__), max_concurrency=4)
    limits["slow"].overloaded(2, 0.0, 0.0)
    for model, most in (("slow", 1), ("quick", 4)):
        answers = [books.reserve(f"{model}{number}", ONE, 1.0, model=model) for number in range(5)]
        assert sum(isinstance(answer, Granted) for answer in answers) == most


def test_a_restart_counts_the_slots_of_what_is_still_out() -> None:
    options = LimiterOptions(max_concurrency=2)
    before = Limiter(options, 0.0)
    for number in range(2):
        before.reserve(f"a{number}", ONE, 0.0, model="a")
    slots = Slots.up_to(2)
    books = Limiter.restore(before.snapshot(1.0), options, 1.0, slots)
    assert slots.taken("a") == 2
    assert isinstance(books.reserve("a2", ONE, 1.0, model="a"), Wait)
    assert isinstance(books.reserve("b", ONE, 1.0, model="b"), Granted)
    books.commit("a0", ONE, 2.0)
    assert granted(books.poll(2.0)) == ["a2"]


def test_a_holder_with_little_time_is_given_up_when_that_is_over_whoever_was_granted_before_it() -> None:
    """Only the oldest used to be looked at: behind one that may take an hour nobody was ever given up."""
    books = limiter(max_concurrency=2)
    books.reserve("long", ONE, 0.0, ttl=3600.0)
    books.reserve("short", ONE, 0.0, ttl=10.0)
    assert isinstance(books.reserve("next", ONE, 0.0, ttl=3600.0), Wait)
    assert books.next_at(0.0) == 10.0
    assert granted(books.poll(10.0)) == ["next"]
    assert books.stats(10.0).lost == 1


def test_nothing_is_remembered_of_a_model_of_which_nothing_is_out() -> None:
    slots = Slots.up_to(3)
    books = limiter(slots)
    for number in range(100):
        books.reserve(str(number), ONE, 0.0, model=f"model {number}")
        books.commit(str(number), ONE, 0.0)
    assert not slots._taken


class SlotsAgainstAList(RuleBasedStateMachine):
    """Two limiters with one count of slots, beside a list of what is out and one line for each model."""

    MODELS = ("a", "b", "c")

    def __init__(self) -> None:
        super().__init__()
        self.limits = {model: Concurrency(3) for model in self.MODELS}
        self.slots = Slots(self.limits.__getitem__)
        self.books = [limiter(self.slots, max_concurrency=3, reservation_ttl=1e9) for _ in range(2)]
        self.out: dict[str, tuple[int, str]] = {}
        self.lines: dict[tuple[int, str], list[str]] = {(which, model): [] for which in (0, 1) for model in self.MODELS}
        self.count, self.now = 0, 0.0

    def taken(self, model: str) -> int:
        return sum(of == model for _, of in self.out.values())

    def has_room(self, model: str) -> bool:
        return self.taken(model) < max(1, self.limits[model].limit)

    @rule(which=st.integers(0, 1), model=st.sampled_from(MODELS))
    def reserve(self, which: int, model: str) -> None:
        self.count += 1
        name, line = str(self.count), self.lines[which, model]
        answer = self.books[which].reserve(name, ONE, self.now, model=model)
        if not line and self.has_room(model):
            assert answer == Granted(name)
            self.out[name] = which, model
        else:
            assert isinstance(answer, Wait)
            line.append(name)

    def poll(self, which: int) -> None:
        expected = []
        for (of, model), line in self.lines.items():
            while of == which and line and self.has_room(model):
                name = line.pop(0)
                self.out[name] = which, model
                expected.append(name)
        assert Counter(granted(self.books[which].poll(self.now))) == Counter(expected)

    @precondition(lambda self: self.out)
    @rule(data=st.data(), is_too_much=st.booleans())
    def end(self, data: st.DataObject, is_too_much: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.out)))
        which, model = self.out[name]
        self.now += 1.0
        if is_too_much:
            self.limits[model].overloaded(self.taken(model), self.now, self.now)
        else:
            self.limits[model].answered(self.taken(model))
        assert self.books[which].commit(name, ONE, self.now)
        assert not self.books[which].commit(name, ONE, self.now)
        del self.out[name]
        for each in data.draw(st.permutations([0, 1])):
            self.poll(each)

    @rule()
    def crash(self) -> None:
        """Both begin anew from what they hold, as the actor that has them does; who waited asks again."""
        self.slots = Slots(self.limits.__getitem__)
        options = LimiterOptions(max_concurrency=3, reservation_ttl=1e9)
        self.books = [Limiter.restore(books.snapshot(self.now), options, self.now, self.slots) for books in self.books]
        for line in self.lines.values():
            line.clear()

    @invariant()
    def same_count(self) -> None:
        assert [self.slots.taken(model) for model in self.MODELS] == [self.taken(model) for model in self.MODELS]
        for which, books in enumerate(self.books):
            stats = books.stats(self.now)
            assert stats.in_flight == sum(of == which for of, _ in self.out.values())
            assert stats.waiting == sum(len(line) for (of, _), line in self.lines.items() if of == which)


TestSlotsAgainstAList = SlotsAgainstAList.TestCase


@pytest.mark.parametrize("held", [0, 1, 3])
def test_what_wants_none_always_has_room(held: int) -> None:
    slots = Slots.up_to(1)
    slots.take("m", held)
    assert slots.has_room("m", 0)
    assert slots.has_room("m", 1) is (held == 0)
