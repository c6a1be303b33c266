"""What the limiter makes of a provider's headers and refusals: it believes them, and never more than them."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rubberduck.core.limiter import Amounts, Granted, Limiter, LimiterOptions, Refused, Wait
from rubberduck.core.rate_headers import Quota, RateHeaders

ONE = Amounts()


def limiter(now: float = 0.0, **options: object) -> Limiter:
    return Limiter(LimiterOptions(**options), now)  # type: ignore[arg-type]


def said(**quotas: tuple[float | None, float | None, float | None]) -> RateHeaders:
    return RateHeaders(tuple([(name, Quota(*quota)) for name, quota in quotas.items()]))


def tokens(amount: float) -> Amounts:
    return Amounts(1, amount, 0)


# -- headers


def test_a_limit_in_the_headers_holds_where_none_is_configured() -> None:
    books = limiter()
    books.reserve("a", ONE, 0.0)
    books.observe(said(requests=(3, 2, 20.0)), 0.0, 0.5, reservation="a")
    assert books.stats(0.5).learned == {"": {"requests": 3}}
    assert [books.reserve(name, ONE, 0.5) for name in "bc"] == [Granted("b"), Granted("c")]
    assert books.reserve("d", ONE, 0.5) == Wait("d", 20.5), "what others used comes back at the reset"
    assert books.poll(20.4) == []
    assert books.poll(20.5) == [Granted("d")]
    assert books.reserve("e", ONE, 20.5) == Wait("e", 61.0), "what we used, when it is out of the minute"


def test_of_a_configured_and_a_learned_limit_the_tighter_one_holds() -> None:
    for configured, learned in ((2, 9), (9, 2)):
        books = limiter(requests_per_min=configured)
        books.observe(said(requests=(learned, learned, 0.0)), 0.0, 0.0)
        answers = [books.reserve(str(number), ONE, 0.0) for number in range(3)]
        assert [type(answer) for answer in answers] == [Granted, Granted, Wait]


def test_headers_lower_a_balance_and_never_raise_it() -> None:
    books = limiter()
    books.observe(said(tokens=(100, 10, 30.0)), 0.0, 0.0)
    assert books.peek(tokens(10), 0.0) == 0
    assert books.peek(tokens(11), 0.0) == 30
    books.observe(said(tokens=(100, 90, 1.0)), 1.0, 1.0)
    assert books.peek(tokens(10), 1.0) == 0
    assert books.peek(tokens(11), 1.0) == 29


def test_what_the_provider_has_not_seen_is_taken_off_what_it_says_remains() -> None:
    books = limiter()
    books.observe(said(tokens=(100, 100, 0.0)), 0.0, 0.0)
    for name in ("before", "asked", "after"):
        books.reserve(name, tokens(20), 1.0)
    books.observe(said(tokens=(100, 50, 60.0)), 1.0, 2.0, reservation="asked")
    assert books.peek(tokens(30), 2.0) == 0, "50 remain there, 20 of them for what is on its way"
    assert books.peek(tokens(31), 2.0) > 0


def test_what_has_answered_itself_is_no_longer_on_its_way() -> None:
    books = limiter()
    for name in ("first", "second"):
        books.reserve(name, tokens(20), 0.0)
    books.observe(said(tokens=(100, 60, 60.0)), 0.0, 1.0, reservation="second")
    books.observe(said(tokens=(100, 60, 60.0)), 0.0, 1.0, reservation="first")
    assert books.peek(tokens(60), 1.0) == 0


def test_a_response_to_an_older_request_is_ignored() -> None:
    books = limiter()
    books.observe(said(requests=(100, 50, 60.0)), 5.0, 6.0)
    books.observe(said(requests=(100, 0, 60.0)), 4.9, 7.0)
    assert books.peek(ONE, 7.0) == 0
    books.observe(said(requests=(100, 0, 60.0)), 5.0, 7.0)
    assert books.peek(ONE, 7.0) == 60


@pytest.mark.parametrize("limit", [100, None])
def test_nothing_left_blocks_that_dimension_until_its_reset(limit: float | None) -> None:
    books = limiter()
    books.observe(said(output=(limit, 0, 12.0)), 0.0, 0.0)
    assert books.peek(Amounts(1, 50, 0), 0.0) == 0, "it takes no output"
    assert books.reserve("a", Amounts(1, 50, 1), 0.0) == Wait("a", 12.0)
    assert books.poll(12.0 - 1e-6) == []
    assert books.poll(12.0) == [Granted("a")]


def test_nothing_left_without_a_reset_blocks_for_a_minute_at_most() -> None:
    books = limiter()
    books.observe(said(requests=(5, 0, None)), 0.0, 0.0)
    assert books.peek(ONE, 0.0) == 60
    books.observe(said(tokens=(None, 0, None)), 0.0, 0.0, model="no limit either")
    assert books.peek(tokens(9), 0.0, model="no limit either") == 0


@given(st.integers(1, 50), st.integers(1, 50), st.none() | st.floats(0, 1e9))
def test_as_long_as_something_is_left_nobody_sleeps(limit: int, remaining: int, reset: float | None) -> None:
    books = limiter()
    books.observe(said(requests=(max(limit, remaining), remaining, reset)), 0.0, 0.0)
    for number in range(remaining):
        assert books.reserve(str(number), ONE, 0.0) == Granted(str(number))


def test_a_reset_in_a_far_future_blocks_for_a_day_at_most() -> None:
    books = limiter()
    books.observe(said(requests=(5, 0, 1e12)), 0.0, 0.0)
    assert books.peek(ONE, 0.0) == 86_400


def test_steady_use_by_others_is_forgotten_as_it_ends() -> None:
    """Each response shows a little more that others used; kept as one sum it would never have ended."""
    books = limiter()
    for second in range(300):
        books.observe(said(requests=(100, 50, 30.0)), second, second)
    assert books.peek(Amounts(50), 299.0) == 0
    for second in range(300, 3000):
        books.observe(said(requests=(100, 90 - second % 50, 30.0 + second % 7 / 100)), second, second)
    assert books.peek(Amounts(100), 3031.0) == 0


def test_a_request_beyond_a_learned_limit_goes_when_nothing_else_counts() -> None:
    books = limiter()
    books.observe(said(tokens=(100, 60, 10.0)), 0.0, 0.0)
    assert books.reserve("big", tokens(150), 0.0) == Wait("big", 10.0)
    assert books.poll(10.0) == [Granted("big")]


# -- models


def test_one_models_limits_are_not_anothers() -> None:
    books = limiter()
    books.observe(said(requests=(5, 0, 60.0)), 0.0, 0.0, model="large")
    assert books.peek(ONE, 0.0, model="large") == 60
    assert books.reserve("a", ONE, 0.0, model="small") == Granted("a")


def test_who_waits_for_its_own_model_holds_up_nobody_else() -> None:
    books = limiter(requests_per_min=3)
    books.observe(said(requests=(5, 0, 30.0)), 0.0, 0.0, model="large")
    assert books.reserve("a", ONE, 0.0, model="large") == Wait("a", 30.0)
    assert books.reserve("b", ONE, 0.0, klass="low", model="large") == Wait("b", 30.0)
    assert [books.reserve(name, ONE, 0.0, model="small") for name in "cd"] == [Granted("c"), Granted("d")]
    assert books.next_at(0.0) == 30.0
    assert books.poll(30.0) == [Granted("a")]
    assert books.next_at(30.0) == 61.0
    assert isinstance(books.reserve("e", ONE, 30.0, model="small"), Wait), "b books what all share"


def test_who_waits_for_what_all_share_passes_those_who_wait_for_their_model() -> None:
    books = limiter(requests_per_min=1)
    books.observe(said(requests=(5, 0, 300.0)), 0.0, 0.0, model="large")
    books.reserve("a", ONE, 0.0, model="small")
    books.reserve("b", ONE, 0.0, model="large")
    assert books.reserve("c", ONE, 0.0, model="small") == Wait("c", 61.0)
    assert books.next_at(0.0) == 61.0
    assert books.poll(61.0) == [Granted("c")]
    assert books.next_at(61.0) == 300.0
    assert books.poll(300.0) == [Granted("b")]


def test_next_at_never_names_a_moment_at_which_nobody_goes() -> None:
    """A smaller request of another class stood behind a larger one of its model, and was named for now."""
    books = limiter()
    books.observe(said(tokens=(100, 10, 30.0)), 0.0, 0.0)
    books.reserve("large", tokens(50), 0.0)
    books.reserve("small", tokens(5), 0.0, klass="high")
    assert books.next_at(0.0) == 30.0
    assert books.poll(30.0) == [Granted("large"), Granted("small")]


def test_only_so_many_models_are_remembered() -> None:
    books = limiter()
    for number in range(1500):
        books.observe(said(requests=(5, 0, 60.0)), 0.0, 0.0, model=str(number))
    assert len(books.stats(0.0).learned) == 1000
    assert books.peek(ONE, 0.0, model="1499") == 60


# -- refusals


def test_a_refusal_with_a_hint_blocks_its_model_for_that_long() -> None:
    books = limiter()
    books.throttle(0.0, 2.0, model="large")
    assert (books.peek(ONE, 0.0, model="large"), books.peek(ONE, 0.0, model="small")) == (2.0, 0.0)


def test_without_a_hint_the_waits_double_up_to_a_minute_until_an_answer_comes() -> None:
    books, now, waits = limiter(), 0.0, []
    for _ in range(8):
        books.throttle(now, sent_at=now)
        waits.append(books.peek(ONE, now))
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    books.reserve("a", ONE, now)
    books.commit("a", Amounts(1, 5, 5), now)
    books.throttle(now + 1, sent_at=now)
    assert books.peek(ONE, now + 1) == 1


def test_a_refusal_told_twice_counts_once() -> None:
    books = limiter()
    for _ in range(3):
        books.throttle(5.0, sent_at=5.0)
    assert (books.peek(ONE, 5.0), books.stats(5.0).pace) == (1, 0.5)


def test_a_refusal_halves_the_rates_and_each_quiet_ten_seconds_give_a_twentieth_back() -> None:
    books = limiter(requests_per_min=100)
    books.throttle(0.0, 0.001)
    for now, room in ((1.0, 50), (9.9, 50), (10.0, 55), (35.0, 65), (95.0, 95), (100.0, 100)):
        assert books.peek(Amounts(room), now) == 0
        assert books.stats(now).pace == pytest.approx(room / 100)
        books.reserve("half", Amounts(30), now)
        assert books.peek(Amounts(room - 30 + 1), now) > 0
        books.cancel("half", now)


def test_a_bucket_fills_at_the_pace_of_the_moment() -> None:
    books = limiter(capacity=100, refill_rate=1)
    books.reserve("a", Amounts(100), 0.0)
    books.throttle(0.0, 0.001)
    assert books.peek(Amounts(5), 0.0) == 10
    assert books.peek(Amounts(10), 0.0) == pytest.approx(10 + 5 / 0.55)
    assert books.stats(20.0).tokens == pytest.approx(10.5)
    assert books.stats(200.0).tokens == pytest.approx(100)


def test_all_that_was_under_way_at_a_refusal_slows_down_once() -> None:
    books = limiter(requests_per_min=100)
    for second in (1.0, 1.1, 1.2):
        books.throttle(second, sent_at=0.0)
    assert books.stats(2.0).pace == 0.5
    assert books.peek(ONE, 1.2) == pytest.approx(1.0)
    books.throttle(3.0, sent_at=2.5)
    assert books.stats(3.0).pace == 0.25


def test_a_large_request_is_not_shut_out_while_the_rates_are_low() -> None:
    books = limiter(requests_per_min=100)
    books.throttle(0.0, 0.001)
    assert books.reserve("large", Amounts(90), 1.0) == Granted("large")
    assert isinstance(books.reserve("next", ONE, 1.0, deadline=1.0), Refused)


def test_a_lack_of_capacity_blocks_and_leaves_the_balances_alone() -> None:
    books = limiter(requests_per_min=100)
    books.observe(said(tokens=(100, 70, 30.0)), 0.0, 0.0, model="m")
    books.penalise(5.0, "m")
    assert books.peek(tokens(70), 0.0, model="m") == 5
    assert (books.peek(tokens(70), 5.0, model="m"), books.stats(5.0).pace) == (0, 1)
    assert books.peek(ONE, 0.0, model="other") == 0


# -- a restart


def test_a_restart_forgets_nothing_that_was_learned() -> None:
    options = LimiterOptions(requests_per_min=100)
    first = Limiter(options, 100.0)
    first.reserve("a", tokens(20), 100.0, model="m")
    first.observe(said(tokens=(100, 50, 30.0), output=(None, 0, 40.0)), 100.0, 101.0, model="m", reservation="a")
    first.reserve("b", tokens(20), 101.0, model="m")
    first.throttle(102.0, 4.0, sent_at=100.0, model="m")
    again = Limiter.restore(first.snapshot(103.0), options, 9003.0)
    for books, base in ((first, 103.0), (again, 9003.0)):
        assert books.stats(base).learned == {"m": {"tokens": 100}}
        assert books.peek(ONE, base, model="m") == 3
        assert books.peek(tokens(10), base, model="m") == 28
        assert books.peek(Amounts(1, 0, 1), base, model="m") == 38
        assert books.peek(tokens(30), base + 10, model="m") == 18
        assert books.stats(base).pace == 0.5
        books.observe(said(requests=(100, 0, 1000.0)), base - 3.5, base, model="m")
        assert books.peek(ONE, base + 10, model="m") == 0, "older than what was applied"


# -- properties


STEPS = st.tuples(
    st.sampled_from(["reserve", "reserve", "reserve", "commit", "cancel", "observe", "throttle", "poll"]),
    st.floats(0, 15),
    st.integers(1, 10),
    st.floats(0, 1),
)


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=80))
def test_no_sliding_minute_admits_more_than_its_limit(story: list[tuple[str, float, int, float]]) -> None:
    books, now, count = limiter(requests_per_min=20), 0.0, 0
    admitted: dict[str, tuple[float, float]] = {}
    wanted: dict[str, int] = {}
    open_: list[str] = []
    for action, wait, amount, share in story:
        now += wait * share
        due: list[Granted | Refused] = []
        if action == "reserve":
            count += 1
            wanted[str(count)] = amount
            answer = books.reserve(str(count), Amounts(amount), now)
            due = [answer] if isinstance(answer, Granted) else []
        elif action == "commit" and open_:
            name = open_.pop(int(share * (len(open_) - 1)))
            used = int(wanted[name] * share)
            books.commit(name, Amounts(used), now)
            admitted[name] = (admitted[name][0], used)
        elif action == "cancel" and open_:
            name = open_.pop()
            books.cancel(name, now)
            del admitted[name]
        elif action == "observe":
            books.observe(said(requests=(amount * 5, int(share * amount * 5), wait)), now - wait, now)
        elif action == "throttle":
            books.throttle(now, wait or None, sent_at=now - wait)
        for answer in [*due, *books.poll(now)]:
            if isinstance(answer, Granted):
                admitted[answer.id] = (now, wanted[answer.id])
                open_.append(answer.id)
        assert sum(taken for at, taken in admitted.values() if at > now - 60) <= 20


class LiteralLearner:
    """The same rules with a list of all that was ever taken, and every question answered by adding up."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.own: dict[str, list[float]] = {}
        self.foreign: list[tuple[float, float]] = []
        self.blocked = self.rests = -inf
        self.applied = -inf
        self.halvings: list[float] = []
        self.shares: list[float] = []

    def used(self, now: float) -> float:
        own = sum(amount for start, amount in self.own.values() if start + 61 > now)
        return own + sum(amount for until, amount in self.foreign if until > now)

    def share(self, now: float) -> float:
        if not self.halvings:
            return 1.0
        return min(1.0, self.shares[-1] + 0.05 * ((now - self.halvings[-1]) // 10))

    def fits(self, amount: float, now: float) -> bool:
        if now < self.blocked or now < self.rests:
            return False
        if self.limit is None:
            return True
        amount = min(amount, self.limit)
        return self.used(now) + amount <= max(self.limit * self.share(now), amount) + 1e-6


class LearningAgainstModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now, self.count = 0.0, 0
        self.real = limiter(reservation_ttl=1e9)
        self.model = LiteralLearner()
        self.held: dict[str, tuple[float, float, bool]] = {}  # amount, since, was charged to the window

    @rule(step=st.sampled_from([0.25, 0.5, 1.0, 7.0, 30.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(amount=st.integers(1, 25))
    def reserve(self, amount: int) -> None:
        self.count += 1
        name = str(self.count)
        answer = self.real.reserve(name, tokens(amount), self.now, deadline=self.now)
        assert isinstance(answer, Granted) == self.model.fits(amount, self.now)
        if isinstance(answer, Granted):
            self.held[name] = (amount, self.now, self.model.limit is not None)
            if self.model.limit is not None:
                self.model.own[name] = [self.now // 1, amount]
            return
        assert answer.retry_after is not None
        assert self.model.fits(amount, self.now + answer.retry_after + 1e-6)
        if answer.retry_after > 2e-3:
            assert not self.model.fits(amount, self.now + answer.retry_after - 1e-3)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.5, 1.0, 2.0]), cancels=st.booleans())
    def settle(self, data: st.DataObject, share: float, cancels: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.held)))
        amount, since, was_charged = self.held.pop(name)
        actual = 0.0 if cancels else amount * share
        assert self.real.cancel(name, self.now) if cancels else self.real.commit(name, tokens(actual), self.now)
        if not was_charged:
            return
        if actual <= amount:
            self.model.own[name] = [since // 1, actual]
        else:
            self.model.own[f"{name} excess"] = [self.now // 1, actual - amount]

    @rule(
        limit=st.sampled_from([None, 20, 40]),
        remaining=st.sampled_from([None, 0, 3, 15, 40]),
        reset=st.sampled_from([None, 0.0, 0.5, 10.0, 45.0]),
        age=st.sampled_from([0.0, 0.25, 5.0]),
    )
    def observe(self, limit: float | None, remaining: float | None, reset: float | None, age: float) -> None:
        sent_at = self.now - age
        self.real.observe(said(tokens=(limit, remaining, reset)), sent_at, self.now)
        model = self.model
        if sent_at < model.applied:
            return
        model.applied = sent_at
        unseen = sum(amount for amount, since, _ in self.held.values() if since > sent_at)
        if remaining == 0 and reset:
            model.blocked = max(model.blocked, self.now + reset)
        if model.limit is None and limit is not None:
            model.own[f"learned {self.now}"] = [self.now // 1, unseen]
        model.limit = limit or model.limit
        if model.limit is not None and remaining is not None:
            excess = model.limit - model.used(self.now) - (remaining - unseen)
            if excess > 0:
                model.foreign.append((self.now + (60 if reset is None else reset), excess))

    @rule(hint=st.sampled_from([0.5, 3.0]), age=st.sampled_from([0.0, 2.0]))
    def refused(self, hint: float, age: float) -> None:
        self.real.throttle(self.now, hint, sent_at=self.now - age)
        model = self.model
        model.rests = max(model.rests, self.now + hint)
        if not model.halvings or self.now - age > model.halvings[-1]:
            model.shares.append(max(0.01, model.share(self.now) / 2))
            model.halvings.append(self.now)

    @rule()
    def crash(self) -> None:
        """A restart is not fuller, and with nothing outstanding it is just the same."""
        if not self.held:
            self.real = Limiter.restore(self.real.snapshot(self.now), LimiterOptions(reservation_ttl=1e9), self.now)

    @invariant()
    def same_slots(self) -> None:
        assert self.real.stats(self.now).in_flight == len(self.held)


TestLearningAgainstModel = LearningAgainstModel.TestCase
TestLearningAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
