"""Stories of single calls, told in virtual time: what fails when, and what is tried next."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import errors as e
from rubberduck.core.classify import classify
from rubberduck.core.plan import Fail, Plan, Sleep, Try
from rubberduck.core.retry import RetryBudget, RetryOptions
from rubberduck.core.score import Candidate

Ends = list[BaseException | None]
"""How the attempts on a route end, in order; the last one goes on for ever. None is an answer."""

OK: Ends = [None]


def rate_limited(hint: float | None = None) -> e.RateLimited:
    return e.RateLimited("slow down", status=429, retry_after=hint)


def down(status: int = 503) -> e.ServiceUnavailable:
    return e.ServiceUnavailable("down", status=status)


def timeout() -> e.ProviderTimeout:
    return e.ProviderTimeout("no first token", phase="uncertain")


@dataclass
class Story:
    """Runs a plan as the shell would, against scripted routes, and writes down what was tried and when."""

    routes: dict[str, Ends]
    candidates: list[Candidate] = field(default_factory=list)
    options: RetryOptions = field(default_factory=RetryOptions)
    timeout: float = 120.0
    duration: float = 0.0
    seed: int = 1
    keys: int = 1
    refusals: dict[str, tuple[str, float | None]] = field(default_factory=dict)
    look: Callable[[Candidate, float], Candidate] = lambda candidate, now: candidate
    panic: str = "fail_fast"
    tried: list[tuple[float, str]] = field(default_factory=list)
    other_keys: int = 0
    now: float = 0.0

    def run(self) -> BaseException | str:
        candidates = self.candidates or [Candidate(name, priority=n) for n, name in enumerate(self.routes)]
        plan = Plan(self.timeout, self.options, random.Random(self.seed), panic=self.panic)  # type: ignore[arg-type]
        for _ in range(200):
            step = plan.next(self.now, [self.look(each, self.now) for each in candidates])
            match step:
                case Fail(error=error):
                    self.reasons = step.reasons
                    return error
                case Sleep(until=until):
                    assert self.now < until < self.timeout
                    self.now = until
                case Try(route=route) if route in self.refusals:
                    plan.refused(route, *self.refusals.pop(route), self.now)
                case Try(route=route, with_other_key=other):
                    self.other_keys += other
                    if self.attempt(plan, route):
                        return route
        raise AssertionError("the plan never ends")

    def attempt(self, plan: Plan, route: str) -> bool:
        ends = self.routes[route]
        self.tried.append((self.now, route))
        self.now += self.duration
        error = ends.pop(0) if len(ends) > 1 else ends[0]
        if error is None:
            plan.succeeded(route)
            return True
        hint = getattr(error, "retry_after", None)
        plan.failed(route, classify(error), self.now, error, hint, has_other_key=self.keys > 1)
        return False

    @property
    def order(self) -> list[str]:
        return [route for _, route in self.tried]


# -- the faults a gateway must survive ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_f01_a_429_with_retry_after_is_repeated_after_that_time(seed: int) -> None:
    story = Story({"a": [rate_limited(2.0), None], "b": OK}, seed=seed)
    assert story.run() == "a"
    assert story.order == ["a", "a"]
    assert 2.0 <= story.tried[1][0] <= 2.2


@pytest.mark.parametrize("error", [rate_limited(), rate_limited(1.0), down(503)])
def test_f02_f04_a_lasting_429_or_503_is_tried_twice_and_then_left_for_the_fallback(error: BaseException) -> None:
    story = Story({"a": [error], "b": OK})
    assert story.run() == "b"
    assert story.order == ["a", "a", "b"]


@pytest.mark.parametrize("error", [rate_limited(), down(503)])
def test_f02_f04_without_a_fallback_the_original_error_comes_back_after_max_attempts(error: BaseException) -> None:
    story = Story({"a": [error]})
    assert story.run() is error
    assert story.order == ["a"] * 3


@pytest.mark.parametrize("error", [down(500), e.ServiceUnavailable("reset", phase="uncertain")])
def test_f03_f05_a_single_500_or_reset_is_repeated_on_the_same_route(error: BaseException) -> None:
    story = Story({"a": [error, None], "b": OK})
    assert story.run() == "a"
    assert story.order == ["a", "a"]
    assert story.tried[1][0] <= 1.0


def test_f06_no_first_token_means_one_attempt_and_then_the_fallback() -> None:
    story = Story({"a": [timeout()], "b": OK}, duration=10.0)
    assert story.run() == "b"
    assert story.tried == [(0.0, "a"), (10.0, "b")]


def test_f08_a_cut_answer_of_which_nothing_was_delivered_goes_to_the_fallback() -> None:
    story = Story({"a": [e.StreamInterrupted("cut")], "b": OK})
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_f12_too_long_a_context_is_tried_once_and_only_where_the_window_is_larger_or_unknown() -> None:
    error = e.ContextLengthExceeded("8000 tokens are too many")
    candidates = [
        Candidate("a", priority=1, context_limit=4096),
        Candidate("smaller", priority=2, context_limit=2048),
        Candidate("same", priority=3, context_limit=4096),
        Candidate("unknown", priority=4, context_limit=None),
        Candidate("larger", priority=5, context_limit=200_000),
    ]
    routes: dict[str, Ends] = {"a": [error], "smaller": OK, "same": OK, "unknown": [error], "larger": OK}
    story = Story(routes, candidates)
    assert story.run() == "larger"
    assert story.order == ["a", "unknown", "larger"]


def test_f12_with_nothing_larger_the_callers_error_comes_back_after_one_attempt() -> None:
    error = e.ContextLengthExceeded("too long")
    candidates = [Candidate("a", context_limit=4096), Candidate("b", context_limit=4096)]
    story = Story({"a": [error], "b": [error]}, candidates)
    assert story.run() is error
    assert len(story.order) == 1


def test_f13_a_content_filter_ends_the_call() -> None:
    error = e.ContentFiltered("no")
    story = Story({"a": [error], "b": OK})
    assert story.run() is error
    assert story.order == ["a"]


def test_f31_used_up_quota_is_one_attempt_and_then_another_route() -> None:
    story = Story({"a": [e.QuotaExceeded("no credit", status=429)], "b": OK})
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_a_refused_key_is_replaced_once_and_then_another_route_is_tried() -> None:
    error = e.AuthenticationFailed("who are you", status=401)
    alone = Story({"a": [error], "b": OK})
    assert alone.run() == "b"
    assert alone.order == ["a", "b"]
    story = Story({"a": [error], "b": OK}, keys=2)
    assert story.run() == "b"
    assert (story.order, story.other_keys) == (["a", "a", "b"], 1)
    healed = Story({"a": [error, None]}, keys=2)
    assert healed.run() == "a"


def test_f31_each_key_is_tried_while_their_accounts_are_used_up() -> None:
    error = e.QuotaExceeded("no credit", status=429)
    story = Story({"a": [error, error, None], "b": OK}, keys=3)
    assert story.run() == "a"
    assert (story.order, story.other_keys, story.now) == (["a"] * 3, 2, 0.0)
    spent = Story({"a": [error], "b": OK}, keys=9)
    assert spent.run() == "b"
    assert spent.order == ["a"] * 3 + ["b"]


def test_another_key_needs_no_retry_budget_but_has_to_be_free_soon_while_there_is_another_route() -> None:
    error = e.AuthenticationFailed("who are you", status=401)
    broke = Story({"a": [error, None]}, [Candidate("a", repeat_allowed=False)], keys=2)
    assert broke.run() == "a"
    busy = Story({"a": [error, None], "b": OK}, keys=2)
    busy.look = lambda each, now: replace(each, wait=10.0) if each.route == "a" and busy.tried else each
    assert busy.run() == "b"


# -- hints, deadlines, caps --------------------------------------------------------------------------------


def test_a_hint_longer_than_is_worth_waiting_goes_to_the_other_route_first() -> None:
    story = Story({"a": [rate_limited(30.0), None], "b": OK})
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_a_long_wait_for_our_own_limiter_goes_to_the_other_route_first() -> None:
    story = Story({"a": [down(500)], "b": OK})
    story.look = lambda each, now: replace(each, wait=10.0) if each.route == "a" and story.tried else each
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_a_long_hint_is_waited_for_where_there_is_nothing_else() -> None:
    story = Story({"a": [rate_limited(30.0), None], "b": [e.QuotaExceeded("no credit")]})
    assert story.run() == "a"
    assert story.order == ["a", "b", "a"]
    assert 30.0 <= story.tried[2][0] <= 33.0


def test_a_hint_past_the_deadline_fails_now_with_the_providers_error() -> None:
    error = rate_limited(30.0)
    story = Story({"a": [error]}, timeout=20.0)
    assert story.run() is error
    assert story.now == 0.0


def test_the_last_providers_error_is_the_calls_error() -> None:
    first, last = down(503), down(500)
    story = Story({"a": [first], "b": [last]})
    error = story.run()
    assert error in (first, last)
    assert error is {"a": first, "b": last}[story.order[-1]]
    assert story.order[:4] == ["a", "a", "b", "b"] or story.order[:3] == ["a", "a", "b"]
    assert len(story.order) == 6


def test_max_attempts_total_bounds_all_routes_together() -> None:
    story = Story({name: [timeout()] for name in "abcdefghij"}, options=RetryOptions(max_attempts_total=4))
    story.run()
    assert story.order == ["a", "b", "c", "d"]


def test_a_crash_of_an_adapter_is_not_repeated_there() -> None:
    story = Story({"a": [KeyError("choices")], "b": OK})
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_an_attempt_does_not_start_without_the_time_it_usually_takes() -> None:
    candidates = [Candidate("a", priority=1), Candidate("slow", priority=2, typical=50.0)]
    error = timeout()
    story = Story({"a": [error], "slow": OK}, candidates, timeout=55.0, duration=10.0)
    story.options = RetryOptions(max_attempts=1)
    assert story.run() is error
    assert story.reasons["slow"] == "too_late"


def test_a_call_whose_time_is_over_before_anything_was_tried_says_so() -> None:
    story = Story({"a": OK}, timeout=5.0, now=5.0)
    assert isinstance(story.run(), e.DeadlineExceeded)


# -- refusals before the wire ------------------------------------------------------------------------------


def test_a_refusal_by_the_breaker_is_no_attempt_and_leads_to_the_next_route() -> None:
    story = Story({"a": OK, "b": OK}, refusals={"a": ("open", 60.0)}, options=RetryOptions(max_attempts_total=1))
    assert story.run() == "b"


def test_nothing_available_names_every_reason_and_the_least_wait() -> None:
    candidates = [
        Candidate("a", obstacle="open", retry_after=40.0),
        Candidate("b", obstacle="open", retry_after=25.0),
        Candidate("c", obstacle="no_vision"),
        Candidate("d", wait=500.0),
    ]
    error = Story(dict.fromkeys("abcd", OK), candidates).run()
    assert isinstance(error, e.NoAvailableProvider)
    assert error.reasons == {"a": "open", "b": "open", "c": "no_vision", "d": "rate_limited"}
    assert error.retry_after == 25.0


def test_a_circuit_that_opens_soon_is_waited_for() -> None:
    def look(candidate: Candidate, now: float) -> Candidate:
        return candidate if now >= 2.0 else replace(candidate, obstacle="open", retry_after=2.0 - now)

    story = Story({"a": OK}, look=look)
    assert story.run() == "a"
    assert story.tried[0][0] == 2.0


def test_waiting_for_what_never_comes_ends() -> None:
    def look(candidate: Candidate, now: float) -> Candidate:
        return replace(candidate, obstacle="half_open_full", retry_after=0.5)

    story = Story({"a": OK}, look=look)
    assert isinstance(story.run(), e.NoAvailableProvider)
    assert 2.0 <= story.now <= 3.0
    patient = Story({"a": OK}, look=look, panic="wait", timeout=20.0)
    patient.run()
    assert 19.0 <= patient.now < 20.0


def test_a_repeat_that_the_retry_budget_refuses_becomes_a_failover() -> None:
    story = Story({"a": [down(500)], "b": OK})
    story.look = lambda each, now: replace(each, repeat_allowed=False)
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_a_circuit_that_opens_during_the_backoff_is_not_waited_for_where_another_route_is_free() -> None:
    story = Story({"a": [down(500)], "b": OK})
    story.look = lambda each, now: (
        replace(each, obstacle="open", retry_after=60.0) if each.route == "a" and story.tried else each
    )
    assert story.run() == "b"
    assert story.order == ["a", "b"]


def test_an_invalid_request_goes_only_to_another_kind_of_provider() -> None:
    error = e.InvalidRequest("unknown parameter")
    candidates = [
        Candidate("a", priority=1, family="openai"),
        Candidate("b", priority=2, family="openai"),
        Candidate("c", priority=3, family="anthropic"),
    ]
    story = Story({"a": [error], "b": OK, "c": OK}, candidates)
    assert story.run() == "c"
    assert story.order == ["a", "c"]


FAILURES: list[BaseException | None] = [
    None,
    rate_limited(),
    rate_limited(4.0),
    down(500),
    timeout(),
    e.QuotaExceeded("x"),
    e.ModelNotFound("x"),
    e.InvalidRequest("x"),
    e.ContentFiltered("x"),
    e.AuthenticationFailed("x"),
    KeyError("x"),
]


@given(
    routes=st.dictionaries(
        st.sampled_from("abcd"), st.lists(st.sampled_from(FAILURES), min_size=1, max_size=4), min_size=1
    ),
    seed=st.integers(),
    timeout=st.floats(0.5, 60),
    duration=st.floats(0, 5),
    keys=st.integers(1, 2),
)
@settings(max_examples=300)
def test_whatever_fails_the_call_ends_within_its_caps(
    routes: dict[str, Ends], seed: int, timeout: float, duration: float, keys: int
) -> None:
    given_ends = {name: list(ends) for name, ends in routes.items()}
    story = Story(routes, timeout=timeout, duration=duration, seed=seed, keys=keys)
    end = story.run()
    assert len(story.tried) <= 6
    assert all(story.order.count(name) <= 3 for name in routes)
    assert all(at < timeout for at, _ in story.tried)
    if isinstance(end, str):
        assert story.order[-1] == end
    else:
        last = story.order[-1]
        ends = given_ends[last]
        assert end is ends[min(story.order.count(last), len(ends)) - 1], "the final error is the last provider's"
    for name, ends in given_ends.items():
        for index in range(story.order.count(name) - 1):
            error = ends[min(index, len(ends) - 1)]
            assert not isinstance(error, e.ModelNotFound | e.InvalidRequest | KeyError)
            assert keys > 1 or not isinstance(error, e.QuotaExceeded | e.AuthenticationFailed)


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.dictionaries(st.sampled_from("ab"), st.sampled_from(FAILURES), min_size=2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(),
)
@settings(max_examples=100)
def test_repeats_of_all_calls_together_stay_within_the_budget_of_their_route(
    calls: list[tuple[float, dict[str, BaseException | None]]], seed: int
) -> None:
    """Calls come one after another and each runs to its end; what they share is the budget of each route.

    It is held at the moment of each repeat: what earned it may leave the last ten seconds before the repeat does.
    """
    budgets = {name: RetryBudget() for name in "ab"}
    made: dict[str, list[tuple[float, bool]]] = {"a": [], "b": []}
    rng, now = random.Random(seed), 0.0
    for gap, ends in calls:
        now += gap
        plan = Plan(now + 30.0, RetryOptions(base_delay=0.1, max_delay=0.5), rng)
        while True:
            views = [Candidate(name, repeat_allowed=budgets[name].affords(now)) for name in "ab"]
            step = plan.next(now, views)
            if isinstance(step, Fail):
                break
            if isinstance(step, Sleep):
                now = step.until
                continue
            made[step.route].append((now, step.is_repeat))
            if step.is_repeat:
                assert budgets[step.route].spend(now)
            else:
                budgets[step.route].first(now)
            error = ends[step.route]
            if error is None:
                plan.succeeded(step.route)
                break
            plan.failed(step.route, classify(error), now, error)
    for attempts in made.values():
        for number, (end, is_repeat) in enumerate(attempts):
            if is_repeat:
                recent = [each for at, each in attempts[: number + 1] if end - at < 10]
                assert recent.count(True) <= 3 + 0.2 * recent.count(False) + 1e-9


# -- when all circuits are open ----------------------------------------------------------------------------


def opened(name: str, *, may_probe: bool = True, **details: float) -> Candidate:
    return Candidate(name, obstacle="circuit open", retry_after=50.0, may_probe=may_probe, **details)  # type: ignore[arg-type]


def plan_of(panic: str, **options: float) -> Plan:
    return Plan(120.0, RetryOptions(**options), random.Random(1), panic=panic)  # type: ignore[arg-type]


def test_probe_best_asks_the_best_open_circuit_and_where_that_fails_the_next() -> None:
    plan, views = plan_of("probe_best"), [opened("slow", ttft=9.0), opened("fast", ttft=0.1)]
    order = []
    for _ in range(2):
        step = plan.next(0.0, views)
        assert isinstance(step, Try)
        assert step.is_last_resort
        order.append(step.route)
        plan.failed(step.route, classify(down()), 0.0, down())
    assert order == ["fast", "slow"]
    assert isinstance(plan.next(0.0, views), Fail)


def test_a_probe_that_another_call_has_taken_is_not_asked_for_again_and_again() -> None:
    plan, views = plan_of("probe_best"), [opened("a"), opened("b")]
    step = plan.next(0.0, views)
    assert isinstance(step, Try)
    plan.refused(step.route, "circuit open", 50.0, 0.0)
    end = plan.next(0.0, views)
    assert isinstance(end, Fail)
    assert isinstance(end.error, e.NoAvailableProvider)
    assert end.error.retry_after == 50.0


def test_probes_are_for_when_nobody_else_can_take_the_call() -> None:
    step = plan_of("probe_best").next(0.0, [opened("a"), Candidate("b", priority=2)])
    assert isinstance(step, Try)
    assert (step.route, step.is_last_resort) == ("b", False)
    for panic in ("fail_fast", "wait"):
        assert not isinstance(plan_of(panic).next(0.0, [opened("a")]), Try)
    assert isinstance(plan_of("probe_best").next(0.0, [opened("a", may_probe=False)]), Fail)


# -- waiting for a limiter ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "waited", "still", "leaves"),
    [
        (Candidate("b"), 0.0, 5.0, True),
        (Candidate("b", wait=5.0), 0.0, 5.0, False),
        (Candidate("b", wait=4.0), 0.0, 5.0, True),
        (Candidate("b", ttft=20.0), 0.0, 5.0, False),
        (Candidate("b", ttft=20.0), 3.0, 5.0, True),
        (Candidate("b", priority=2), 2.9, 5.0, False),
        (Candidate("b", priority=2), 3.0, 5.0, True),
        (Candidate("b", priority=0), 0.0, 5.0, True),
        (Candidate("b", obstacle="circuit open"), 9.0, 5.0, False),
        (Candidate("b"), 9.0, 0.0, False),
        (Candidate("b"), 0.0, None, True),
    ],
)
def test_who_waits_leaves_for_what_begins_sooner(
    other: Candidate, waited: float, still: float | None, leaves: bool
) -> None:
    here = Candidate("a", wait=8.0)
    assert plan_of("fail_fast").leaves(0.0, [here, other], "a", waited, still) is leaves


def test_nobody_leaves_for_a_route_that_has_failed_it() -> None:
    plan, views = plan_of("fail_fast", same_route_repeats=0), [Candidate("a", wait=2.0), Candidate("b")]
    assert isinstance(plan.next(0.0, views), Try)
    plan.failed("b", classify(timeout()), 0.0, timeout())
    assert not plan.leaves(0.0, views, "a", 60.0, 5.0)


def test_after_a_short_wait_it_may_ask_for_a_probe_once_more() -> None:
    plan, view = plan_of("probe_best"), replace(opened("a"), retry_after=2.0)
    first = plan.next(0.0, [view])
    assert isinstance(first, Try)
    plan.refused("a", "circuit open", 2.0, 0.0)
    sleep = plan.next(0.0, [replace(view, may_probe=False)])
    assert isinstance(sleep, Sleep)
    again = plan.next(sleep.until, [view])
    assert isinstance(again, Try)
    assert again.is_last_resort


@pytest.mark.parametrize("error", [e.InvalidRequest("no"), e.ModelNotFound("who"), e.AuthenticationFailed("bad key")])
def test_what_may_not_be_repeated_is_no_last_resort_either(error: BaseException) -> None:
    """A route that had failed for good, and had no obstacle, was taken for one with a probe to give: six times."""
    story = Story({"a": [error]}, panic="probe_best")
    assert story.run() is error
    assert story.order == ["a"]


def test_a_call_that_one_of_two_attempts_has_ended_is_not_begun_anew_by_the_other() -> None:
    """The second one's failure, which another route may make good, was taken for the last word."""
    plan = Plan(60.0, RetryOptions(), random.Random(1))
    views = [Candidate(name) for name in "abc"]
    first = plan.next(0.0, views)
    assert isinstance(first, Try)
    second = plan.hedge(0.0, views, first.route)
    assert second is not None
    plan.failed(first.route, classify(e.ContentFiltered("no")), 1.0, e.ContentFiltered("no"))
    plan.failed(second.route, classify(down()), 2.0, down())
    assert isinstance(plan.next(2.0, views), Fail)


def test_no_wait_however_short_ends_after_the_deadline() -> None:
    """A wait of no time is lengthened to a millisecond, and a call had less than that."""
    plan = Plan(0.0005, RetryOptions(), random.Random(1))
    step = plan.next(0.0, [Candidate("a", obstacle="circuit open", retry_after=0.0)])
    assert isinstance(step, Fail)
