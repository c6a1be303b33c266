from __future__ import annotations

from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rubberduck.core.concurrency import Concurrency
from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait
from rubberduck.core.slots import Slots

ONE = Amounts()


def limiter(now: float = 0.0, **options: object) -> Limiter:
    return Limiter(LimiterOptions(**options), now)  # type: ignore[arg-type]


def granted(answers: list[Granted | Refused]) -> list[str]:
    return [answer.id for answer in answers if isinstance(answer, Granted)]


def test_without_limits_only_concurrency_counts() -> None:
    books = limiter(max_concurrency=2)
    assert books.reserve("a", ONE, 0.0) == Granted("a")
    assert books.reserve("b", ONE, 0.0) == Granted("b")
    assert books.reserve("c", ONE, 0.0) == Wait("c", None)
    assert books.poll(0.0) == []
    assert books.commit("a", ONE, 1.0)
    assert books.poll(1.0) == [Granted("c")]
    assert books.poll(1.0) == []


def test_the_guides_bucket_of_requests() -> None:
    books = limiter(capacity=2, refill_rate=0.5)
    assert [books.check(1, 0.0) for _ in range(3)] == [Granted(""), Granted(""), Refused("", "past_deadline", 2.0)]
    assert books.check(1, 2.0) == Granted("")
    assert books.check(3, 1e6) == Refused("", "never_fits", None)


def test_a_bucket_of_tokens_counts_input_and_output() -> None:
    books = limiter(capacity=100, refill_rate=10, unit="tokens")
    assert books.reserve("a", Amounts(1, 60, 40), 0.0) == Granted("a")
    assert books.reserve("b", Amounts(1, 10, 10), 0.0) == Wait("b", 2.0)


def test_the_vector_is_all_or_nothing() -> None:
    books = limiter(requests_per_min=10, input_tokens_per_min=100, output_tokens_per_min=100)
    assert books.reserve("a", Amounts(1, 10, 90), 0.5) == Granted("a")
    answer = books.reserve("b", Amounts(1, 10, 20), 0.5, deadline=10.0)
    assert answer == Refused("b", "past_deadline", 60.5)
    assert books.stats(0.5).used_this_minute == {"requests": 1, "input": 10, "output": 90}
    assert books.reserve("c", Amounts(1, 101, 0), 0.5) == Refused("c", "never_fits", None)


def test_a_wait_past_the_deadline_is_refused_at_once() -> None:
    books = limiter(capacity=1, refill_rate=0.1)
    books.reserve("a", ONE, 0.0)
    assert books.reserve("b", ONE, 0.0, deadline=9.9) == Refused("b", "past_deadline", 10.0)
    assert books.reserve("c", ONE, 0.0, deadline=10.0) == Wait("c", 10.0)
    assert books.reserve("d", ONE, 0.0, deadline=15.0) == Refused("d", "past_deadline", 20.0), "c is ahead"


def test_who_asks_after_the_deadline_gets_nothing_and_pays_nothing() -> None:
    books = limiter(capacity=1, refill_rate=0)
    assert books.reserve("late", ONE, 5.0, deadline=4.9) == Refused("late", "past_deadline", None)
    assert books.reserve("on time", ONE, 5.0, deadline=5.0) == Granted("on time")


def test_first_come_first_served_and_one_wake_up_each() -> None:
    books = limiter(capacity=1, refill_rate=1)
    books.reserve("a", ONE, 0.0)
    assert [books.reserve(name, ONE, 0.0) for name in "bcd"] == [Wait("b", 1.0), Wait("c", 2.0), Wait("d", 3.0)]
    assert books.next_at(0.0) == 1.0
    assert [granted(books.poll(float(now))) for now in (0, 1, 2, 3, 4)] == [[], ["b"], ["c"], ["d"], []]


def test_a_big_request_is_never_starved_by_small_ones() -> None:
    books = limiter(capacity=100, refill_rate=10, unit="tokens")
    books.reserve("first", Amounts(1, 100, 0), 0.0)
    assert books.reserve("big", Amounts(1, 100, 0), 0.0) == Wait("big", 10.0)
    got = []
    for second in range(1, 30):
        books.reserve(f"small{second}", Amounts(1, 5, 0), float(second), klass="high")
        got.extend(granted(books.poll(float(second))))
    assert got[0] == "big"
    assert len(got) > 15


def test_a_higher_class_passes_those_who_wait_but_not_a_booked_start() -> None:
    books = limiter(capacity=1, refill_rate=1)
    books.reserve("first", ONE, 0.0)
    for name in ("low1", "low2", "low3"):
        books.reserve(name, ONE, 0.0, klass="low")
    books.reserve("high", ONE, 0.5, klass="high")
    order = [name for now in (1.0, 2.0, 3.0, 4.0) for name in granted(books.poll(now))]
    assert order == ["low1", "high", "low2", "low3"]


def test_the_expected_time_counts_what_other_classes_have_booked() -> None:
    books = limiter(capacity=1, refill_rate=1)
    books.reserve("first", ONE, 0.0)
    assert books.reserve("normal", ONE, 0.0) == Wait("normal", 1.0)
    assert books.reserve("high", ONE, 0.0, klass="high") == Wait("high", 2.0)


def test_a_check_does_not_overtake_one_who_waits_for_a_slot() -> None:
    books = limiter(capacity=10, refill_rate=1, max_concurrency=1)
    books.reserve("a", ONE, 0.0)
    books.reserve("b", ONE, 0.0)
    assert books.check(1, 0.0) == Refused("", "past_deadline", None)


def test_when_the_first_gives_up_the_next_goes_in_the_same_poll() -> None:
    books = limiter(max_concurrency=2)
    books.reserve("a", ONE, 0.0)
    books.reserve("wide", Amounts(concurrency=2), 0.0, deadline=5.0)
    books.reserve("narrow", ONE, 0.0)
    assert books.poll(4.9) == []
    assert books.poll(5.0) == [Refused("wide", "past_deadline", 0.0), Granted("narrow")]


def test_newcomers_do_not_overtake_those_who_wait() -> None:
    books = limiter(capacity=2, refill_rate=1)
    books.reserve("a", Amounts(2), 0.0)
    books.reserve("b", Amounts(2), 0.0)
    assert isinstance(books.reserve("c", ONE, 1.5), Wait)
    assert isinstance(books.check(1, 1.5), Refused)
    assert granted(books.poll(2.0)) == ["b"]


def test_a_surplus_returns_and_an_excess_is_paid_first() -> None:
    books = limiter(capacity=100, refill_rate=1, unit="tokens")
    books.reserve("a", Amounts(1, 50, 50), 0.0)
    assert books.commit("a", Amounts(1, 50, 20), 0.0)
    assert books.stats(0.0).tokens == 30
    books.reserve("b", Amounts(1, 30, 0), 0.0)
    books.commit("b", Amounts(1, 30, 25), 0.0)
    assert books.reserve("c", Amounts(1, 1, 0), 0.0) == Wait("c", 26.0)


def test_a_surplus_is_dropped_once_the_bucket_has_been_full_again() -> None:
    """It would have run over. Given back all the same, a burst could be had twice at once."""
    books = limiter(capacity=10, refill_rate=1)
    books.reserve("slow", Amounts(10), 0.0)
    books.reserve("next", Amounts(10), 10.0)
    books.commit("slow", Amounts(1), 10.0)
    assert books.stats(10.0).tokens == 0
    books.commit("next", Amounts(1), 15.0)
    assert books.stats(15.0).tokens == 10, "5 have flowed since, and it was not full"


def test_settling_is_idempotent_and_so_is_asking_again() -> None:
    books = limiter(capacity=10, refill_rate=0)
    for _ in range(3):
        assert books.reserve("a", ONE, 0.0) == Granted("a")
    assert books.stats(0.0).tokens == 9
    assert [books.commit("a", ONE, 0.0), books.commit("a", ONE, 0.0), books.cancel("a", 0.0)] == [True, False, False]
    assert books.reserve("a", ONE, 0.0) == Granted("a"), "a question repeated late is answered as before"
    assert books.stats(0.0).tokens == 9
    assert books.stats(0.0).in_flight == 0


def test_a_cancelled_id_is_free_again_and_no_free_pass() -> None:
    books = limiter(capacity=1, refill_rate=1)
    books.reserve("a", ONE, 0.0)
    assert [books.cancel("a", 0.0), books.cancel("a", 0.0)] == [True, False]
    assert books.stats(0.0).tokens == 1
    assert books.reserve("a", ONE, 0.0) == Granted("a")
    assert books.stats(0.0).tokens == 0
    assert books.stats(0.0).in_flight == 1


def test_asking_again_while_waiting_keeps_the_place() -> None:
    books = limiter(capacity=1, refill_rate=1)
    for name in ("a", "b", "c", "b"):
        answer = books.reserve(name, ONE, 0.0)
    assert answer == Wait("b", 1.0)
    assert books.reserve("c", ONE, 0.0) == Wait("c", 2.0)
    assert granted(books.poll(1.0)) == ["b"]
    assert granted(books.poll(2.0)) == ["c"]


def test_who_gives_up_waiting_leaves_no_trace() -> None:
    books = limiter(capacity=1, refill_rate=1)
    for name in ("a", "b", "c"):
        books.reserve(name, ONE, 0.0)
    assert books.cancel("b", 0.0)
    assert not books.cancel("b", 0.0)
    assert granted(books.poll(1.0)) == ["c"]


def test_a_waiter_whose_deadline_passes_is_told_once_and_makes_way() -> None:
    books = limiter(max_concurrency=1)
    books.reserve("a", ONE, 0.0)
    books.reserve("b", ONE, 0.0, deadline=5.0)
    books.reserve("c", ONE, 0.0, deadline=50.0)
    assert books.next_at(0.0) == 5.0
    assert books.poll(5.0) == [Refused("b", "past_deadline", 0.0)]
    books.cancel("a", 6.0)
    assert books.poll(6.0) == [Granted("c")]


def test_the_slot_of_a_lost_holder_returns_and_its_charge_stays() -> None:
    books = limiter(max_concurrency=1, capacity=10, refill_rate=0)
    books.reserve("lost", ONE, 0.0, ttl=30.0)
    books.reserve("next", ONE, 0.0)
    assert books.next_at(0.0) == 30.0
    assert books.poll(29.9) == []
    assert books.poll(30.0) == [Granted("next")]
    assert not books.commit("lost", ONE, 31.0)
    assert books.stats(31.0).tokens == 8


def test_nothing_is_granted_before_a_penalty_ends() -> None:
    books = limiter()
    books.penalise(until=10.0)
    books.penalise(until=5.0)
    assert books.peek(ONE, 0.0) == 10.0
    assert books.reserve("a", ONE, 0.0, deadline=9.0) == Refused("a", "past_deadline", 10.0)
    assert books.reserve("b", ONE, 0.0) == Wait("b", 10.0)
    assert books.poll(10.0 - 1e-6) == []
    assert books.poll(10.0) == [Granted("b")]


def test_peek_counts_those_who_wait_and_takes_nothing() -> None:
    books = limiter(capacity=1, refill_rate=1)
    assert [books.peek(ONE, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    books.reserve("a", ONE, 0.0)
    books.reserve("b", ONE, 0.0)
    assert books.peek(ONE, 0.0) == 2.0
    assert books.peek(Amounts(2), 0.0) == inf


def test_peek_estimates_the_wait_for_a_slot() -> None:
    books = limiter(max_concurrency=1)
    books.reserve("a", ONE, 0.0)
    assert books.peek(ONE, 0.0) > 0


def test_a_restart_is_pessimistic() -> None:
    options = LimiterOptions(capacity=10, refill_rate=1, requests_per_min=20, max_concurrency=3)
    first = Limiter(options, 0.0)
    for name in "ab":
        first.reserve(name, Amounts(2), 0.0)
    first.penalise(until=3.0)
    again = Limiter.restore(first.snapshot(1.0), options, 5000.0)
    assert again.stats(5000.0).tokens == 7
    assert again.stats(5000.0).in_flight == 2
    assert again.stats(5000.0).blocked_for == 2.0
    assert again.reserve("a", Amounts(2), 5000.0) == Granted("a"), "held before, and not charged again"
    assert again.commit("a", Amounts(1), 5000.0)
    assert again.stats(5000.0).tokens == 8
    assert again.stats(5000.0).used_this_minute == {"requests": 4}
    assert again.stats(5060.5).used_this_minute == {"requests": 0}


def test_a_restart_that_knows_nothing_begins_empty() -> None:
    options = LimiterOptions(capacity=10, refill_rate=1, requests_per_min=20)
    again = Limiter.restore(None, options, 100.0)
    assert again.stats(100.0).tokens == 0
    assert again.peek(ONE, 100.0) == 61.0


@pytest.mark.parametrize("wrong", [{"capacity": 5}, {"refill_rate": 5}, {"max_concurrency": 0}])
def test_senseless_options_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"belong together|at least 1"):
        LimiterOptions(**wrong)  # type: ignore[arg-type]


@given(
    now=st.floats(0, 1e6),
    before=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), max_size=12),
    need=st.integers(1, 50),
)
def test_waiting_exactly_as_told_is_granted_and_a_microsecond_less_is_not(
    now: float, before: list[tuple[float, int]], need: int
) -> None:
    books = limiter(now, capacity=60, refill_rate=7, unit="tokens", requests_per_min=5, input_tokens_per_min=100)
    for number, (wait, tokens) in enumerate(before):
        now += wait
        books.reserve(str(number), Amounts(1, tokens, 0), now, deadline=now)
    answer = books.reserve("me", Amounts(1, need, 0), now)
    assume(isinstance(answer, Wait))
    assert isinstance(answer, Wait)
    assert answer.at is not None
    assert books.next_at(now) == answer.at
    assume(answer.at - now > 2e-6)
    assert books.poll(answer.at - 1e-6) == []
    assert books.poll(answer.at) == [Granted("me")]


class LiteralLimiter:
    """The rules with a list of everything ever granted and one plain line for each class."""

    def __init__(self, capacity: int, rate: int, slots: int) -> None:
        self.capacity, self.rate, self.slots = capacity, rate, slots
        self.balance, self.at = float(capacity), 0.0
        self.held: dict[str, int] = {}
        self.lines: dict[str, list[tuple[str, int]]] = {"high": [], "normal": [], "low": []}
        self.firsts: list[str] = []

    def refill(self, now: float) -> None:
        self.balance, self.at = min(self.capacity, self.balance + (now - self.at) * self.rate), now

    def fits(self, amount: int) -> bool:
        return self.balance >= amount and len(self.held) < self.slots

    def grant(self, name: str, amount: int) -> None:
        self.balance -= amount
        self.held[name] = amount

    def book(self) -> None:
        for klass, line in self.lines.items():
            if line and klass not in self.firsts:
                self.firsts.append(klass)
        self.firsts = [klass for klass in self.firsts if self.lines[klass]]

    def poll(self) -> list[str]:
        answers = []
        while self.firsts and self.fits(self.lines[self.firsts[0]][0][1]):
            klass = self.firsts.pop(0)
            name, amount = self.lines[klass].pop(0)
            self.grant(name, amount)
            answers.append(name)
            self.book()
        return answers

    def leave(self, name: str) -> None:
        for klass, line in self.lines.items():
            if line and line[0][0] == name:
                self.firsts.remove(klass)
            line[:] = [entry for entry in line if entry[0] != name]
        self.book()


class LimiterAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.count = 0.0, 0
        self.real = limiter(capacity=8, refill_rate=1, max_concurrency=3, reservation_ttl=1e9)
        self.model = LiteralLimiter(8, 1, 3)

    @rule(step=st.sampled_from([0.25, 0.5, 1.0, 4.0]))
    def time_passes(self, step: float) -> None:
        self.now += step
        self.model.refill(self.now)

    @rule(amount=st.integers(1, 8), klass=st.sampled_from(["high", "normal", "low"]))
    def reserve(self, amount: int, klass: str) -> None:
        self.count += 1
        name = str(self.count)
        answer = self.real.reserve(name, Amounts(amount), self.now, klass=klass)  # type: ignore[arg-type]
        if not self.model.firsts and self.model.fits(amount):
            assert answer == Granted(name)
            self.model.grant(name, amount)
        else:
            assert isinstance(answer, Wait)
            self.model.lines[klass].append((name, amount))
            self.model.book()

    @rule()
    def poll(self) -> None:
        assert granted(self.real.poll(self.now)) == self.model.poll()

    @precondition(lambda self: self.model.held)
    @rule(data=st.data(), share=st.sampled_from([0, 0.5, 1, 2]))
    def commit(self, data: st.DataObject, share: float) -> None:
        name = data.draw(st.sampled_from(sorted(self.model.held)))
        actual = self.model.held[name] * share
        assert self.real.commit(name, Amounts(actual), self.now)
        taken = self.model.held.pop(name)
        self.model.balance = min(self.model.capacity, self.model.balance + taken - actual)

    @precondition(lambda self: any(self.model.lines.values()))
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([name for line in self.model.lines.values() for name, _ in line]))
        assert self.real.cancel(name, self.now)
        self.model.leave(name)

    @invariant()
    def same_books(self) -> None:
        stats = self.real.stats(self.now)
        assert stats.tokens == pytest.approx(self.model.balance)
        assert stats.in_flight == len(self.model.held)
        assert stats.waiting == sum(map(len, self.model.lines.values()))

    @invariant()
    def next_at_is_when_poll_answers(self) -> None:
        due = self.real.next_at(self.now)
        first = self.model.lines[self.model.firsts[0]][0][1] if self.model.firsts else None
        if first is None:
            assert due is None
        elif len(self.model.held) < 3:
            assert due == pytest.approx(self.now + max(0.0, first - self.model.balance))


TestLimiterAgainstModel = LimiterAgainstModel.TestCase
TestLimiterAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(1, 9), st.booleans()), max_size=30))
def test_a_crash_and_restore_never_admits_more(story: list[tuple[float, int, bool]]) -> None:
    options = LimiterOptions(capacity=20, refill_rate=1, requests_per_min=30)
    steady, crashing, now = Limiter(options, 0.0), Limiter(options, 0.0), 0.0
    totals = [0, 0]
    for number, (wait, amount, crash) in enumerate(story):
        now += wait
        if crash:
            crashing = Limiter.restore(crashing.snapshot(now), options, now)
        for index, books in enumerate((steady, crashing)):
            if isinstance(books.reserve(str(number), Amounts(amount), now, deadline=now), Granted):
                totals[index] += amount
        assert crashing.stats(now).tokens == pytest.approx(steady.stats(now).tokens)
    assert totals[1] <= totals[0]


# -- a number of slots that others move -------------------------------------------------------------------------


def test_fewer_slots_let_those_out_end_and_grant_no_more_until_there_is_room() -> None:
    slots = Concurrency(4)
    books = Limiter(LimiterOptions(max_concurrency=4), 0.0, Slots(lambda _: slots))
    for number in range(4):
        assert isinstance(books.reserve(str(number), ONE, 0.0), Granted)
    slots.overloaded(4, 0.0, 0.0)
    assert slots.limit == 2
    assert isinstance(books.reserve("waits", ONE, 1.0), Wait)
    for number in range(2):
        books.commit(str(number), ONE, 1.0)
        assert books.poll(1.0) == []
    books.commit("2", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["waits"]


def test_slots_that_come_back_are_granted_at_the_next_end() -> None:
    slots = Concurrency(8)
    slots.overloaded(2, 0.0, 0.0)
    books = Limiter(LimiterOptions(max_concurrency=8), 0.0, Slots(lambda _: slots))
    books.reserve("0", ONE, 0.0)
    for number in (1, 2):
        assert isinstance(books.reserve(str(number), ONE, 0.0), Wait)
    slots.answered(1)
    books.commit("0", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["1", "2"]


def test_what_wants_more_slots_than_there_are_now_goes_alone() -> None:
    slots = Concurrency(8)
    slots.overloaded(1, 0.0, 0.0)
    books = Limiter(LimiterOptions(max_concurrency=8), 0.0, Slots(lambda _: slots))
    books.reserve("small", ONE, 0.0)
    assert isinstance(books.reserve("large", Amounts(concurrency=3), 0.0), Wait)
    books.commit("small", ONE, 1.0)
    assert granted(books.poll(1.0)) == ["large"]


def test_a_restart_keeps_the_number_of_slots_that_was_found() -> None:
    slots, options = Concurrency(8), LimiterOptions(max_concurrency=8)
    slots.overloaded(2, 0.0, 0.0)
    books = Limiter.restore(Limiter(options, 0.0, Slots(lambda _: slots)).snapshot(0.0), options, 0.0, Slots(lambda _: slots))
    assert isinstance(books.reserve("1", ONE, 0.0), Granted)
    assert isinstance(books.reserve("2", ONE, 0.0), Wait)
