from __future__ import annotations

from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait

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
