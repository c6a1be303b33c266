from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck.core.adaptive_lifo import AdaptiveLifo
from rubberduck.core.request_queue import CLASSES, Accepted, Job, QueueOptions, ReadyRoutes, Rejected, RequestQueue

A, B = frozenset({"a"}), frozenset({"b"})


def queue(now: float = 0.0, **options: object) -> RequestQueue:
    return RequestQueue(QueueOptions(**options), now)  # type: ignore[arg-type]


def job(name: str, klass: str = "normal", **details: object) -> Job:
    return Job(name, klass, **details)  # type: ignore[arg-type]


def drain(line: RequestQueue, ready: object = None, now: float = 0.0) -> list[str]:
    names = []
    while (each := line.dispatch(now, ready)) is not None:  # type: ignore[arg-type]
        names.append(each.id)
    return names


def test_one_tenants_jobs_leave_in_the_order_they_came() -> None:
    line = queue()
    for name in "abcde":
        line.enqueue(job(name), 0.0)
    assert drain(line) == list("abcde")
    assert line.dispatch(0.0) is None


def test_backlogged_classes_share_17_to_2_to_1() -> None:
    line = queue(max_queue_size=10_000)
    for klass in CLASSES:
        for number in range(1000):
            line.enqueue(job(f"{klass}{number}", klass, tokens=10.0), 0.0)
    order = [each.klass for _ in range(400) if (each := line.dispatch(0.0))]
    assert Counter(order) == {"high": 340, "normal": 40, "low": 20}
    assert Counter(order[:20]) == {"high": 17, "normal": 2, "low": 1}


def test_shares_are_in_tokens_not_in_jobs() -> None:
    line = queue(max_queue_size=10_000)
    for number in range(2000):
        line.enqueue(job(f"big{number}", tenant="big", tokens=100.0), 0.0)
        line.enqueue(job(f"small{number}", tenant="small", tokens=10.0), 0.0)
    order = [each.tenant for _ in range(1100) if (each := line.dispatch(0.0))]
    assert Counter(order)["big"] == pytest.approx(100, abs=2)


def test_a_high_job_that_finds_the_queue_full_of_low_ones_goes_next() -> None:
    line = queue()
    for number in range(100):
        line.enqueue(job(f"low{number}", "low"), 0.0)
    line.dispatch(0.0)
    line.enqueue(job("urgent", "high"), 0.0)
    assert drain(line)[0] == "urgent"


def test_an_idle_class_saves_nothing_up() -> None:
    line = queue(max_queue_size=10_000)
    for number in range(500):
        line.enqueue(job(f"low{number}", "low"), 0.0)
    for _ in range(300):
        line.dispatch(0.0)
    for number in range(500):
        line.enqueue(job(f"high{number}", "high"), 0.0)
    order = [each.klass for _ in range(90) if (each := line.dispatch(0.0))]
    assert Counter(order)["low"] == pytest.approx(5, abs=1)


def test_a_tenant_that_always_comes_back_at_once_does_not_starve_another() -> None:
    line = queue()
    for number in range(100):
        line.enqueue(job(f"patient{number}", tenant="patient"), 0.0)
    served: Counter[str] = Counter()
    for number in range(100):
        if not any(each.tenant == "pushy" for each in line.waiting()):
            line.enqueue(job(f"pushy{number}", tenant="pushy", enqueued_at=1.0), 1.0)
        dispatched = line.dispatch(1.0)
        assert dispatched is not None
        served[dispatched.tenant] += 1
    assert served["patient"] >= 49


def test_a_blocked_route_set_is_passed_over_and_keeps_its_place() -> None:
    line = queue()
    for name, routes in (("a1", A), ("b1", B), ("a2", A), ("both", A | B)):
        line.enqueue(job(name, routes=routes), 0.0)
    assert line.dispatch(0.0, set()) is None
    assert drain(line, {"b"}) == ["b1", "both"]
    assert drain(line, lambda route: route == "a") == ["a1", "a2"]


def test_a_tenants_jobs_keep_their_order_across_route_sets() -> None:
    line = queue()
    for number in range(6):
        line.enqueue(job(str(number), routes=(A, B, A | B)[number % 3]), 0.0)
    assert drain(line) == ["0", "1", "2", "3", "4", "5"]


def test_of_classes_that_are_free_again_together_the_higher_goes_first() -> None:
    line = queue()
    for number, (klass, tokens) in enumerate((("high", 340.0), ("low", 1.0), ("high", 1.0), ("low", 1.0))):
        line.enqueue(job(str(number), klass, tokens=tokens, routes=A), 0.0)
    assert [line.dispatch(0.0, A).id for _ in range(2)] == ["0", "1"]  # type: ignore[union-attr]
    for number in range(10, 14):
        line.enqueue(job(str(number), tokens=500.0, routes=B), 0.0)
    assert drain(line, B) == ["10", "11", "12", "13"]
    assert drain(line) == ["2", "3"]


def test_being_blocked_costs_no_share_and_saves_none_up() -> None:
    line = queue(max_queue_size=10_000)
    for number in range(200):
        line.enqueue(job(f"blocked{number}", tenant="x", routes=A), 0.0)
        line.enqueue(job(f"free{number}", tenant="y", routes=B), 0.0)
    for _ in range(100):
        line.dispatch(0.0, B)
    order = [each.tenant for _ in range(50) if (each := line.dispatch(0.0))]
    assert Counter(order)["x"] == pytest.approx(25, abs=1)


def test_a_blocked_class_does_not_take_everything_when_it_is_free_again() -> None:
    line = queue(max_queue_size=10_000)
    for number in range(500):
        line.enqueue(job(f"low{number}", "low", routes=A), 0.0)
        line.enqueue(job(f"normal{number}", "normal", routes=B), 0.0)
    for _ in range(300):
        line.dispatch(0.0, B)
    order = [each.klass for _ in range(30) if (each := line.dispatch(0.0))]
    assert Counter(order)["low"] == pytest.approx(10, abs=1)


def test_a_full_queue_rejects_and_says_when_to_come_back() -> None:
    line = queue(max_queue_size=2)
    line.enqueue(job("a"), 0.0)
    line.enqueue(job("b"), 0.0)
    answer = line.enqueue(job("c"), 0.0)
    assert isinstance(answer, Rejected)
    assert answer.reason == "full"
    assert answer.retry_after is not None
    assert answer.retry_after > 0
    assert line.cancel("a")
    assert isinstance(line.enqueue(job("c"), 0.0), Accepted)


def test_the_drain_estimate_follows_the_pace_of_dispatch() -> None:
    line = queue(max_queue_size=20)
    for number in range(20):
        line.enqueue(job(str(number)), 0.0)
    for second in range(10):
        line.dispatch(second * 0.5)
    for number in range(20, 30):
        line.enqueue(job(str(number)), 5.0)
    answer = line.enqueue(job("late"), 5.0)
    assert isinstance(answer, Rejected)
    assert answer.retry_after == pytest.approx(10.0)


def test_bounds_of_class_tenant_and_tokens() -> None:
    line = queue(max_per_class={"low": 1}, max_per_tenant=2, max_tokens=100.0)
    assert isinstance(line.enqueue(job("l1", "low", tenant="x"), 0.0), Accepted)
    answers = [
        line.enqueue(job("l2", "low", tenant="y"), 0.0),
        line.enqueue(job("n1", tenant="x", tokens=9.0), 0.0),
        line.enqueue(job("n2", tenant="x"), 0.0),
        line.enqueue(job("n3", tenant="z", tokens=91.0), 0.0),
    ]
    assert [getattr(answer, "reason", "accepted") for answer in answers] == [
        "class_full",
        "accepted",
        "tenant_full",
        "full",
    ]


def test_a_single_job_above_the_token_bound_is_let_into_an_empty_queue() -> None:
    assert isinstance(queue(max_tokens=10.0).enqueue(job("huge", tokens=1e6), 0.0), Accepted)


def test_evict_lower_takes_the_newest_of_the_lowest_class() -> None:
    line = queue(max_queue_size=3, when_full="evict_lower")
    for number, (name, klass) in enumerate((("n", "normal"), ("l1", "low"), ("l2", "low"))):
        line.enqueue(job(name, klass, enqueued_at=float(number)), float(number))
    answer = line.enqueue(job("h", "high"), 3.0)
    assert isinstance(answer, Accepted)
    assert answer.evicted is not None
    assert answer.evicted.id == "l2"
    assert isinstance(line.enqueue(job("l3", "low"), 3.0), Rejected), "nobody is below low"
    assert line.stats(3.0).evicted == 1


def test_a_job_fails_at_its_deadline_and_is_never_dispatched_after() -> None:
    line = queue()
    line.enqueue(job("late", deadline=5.0), 0.0)
    line.enqueue(job("later", deadline=9.0), 0.0)
    assert line.next_deadline() == 5.0
    assert line.expire(4.999) == []
    dispatched = line.dispatch(5.0)
    assert dispatched is not None
    assert dispatched.id == "later"
    assert [each.id for each in line.expire(5.0)] == ["late"]
    assert line.expire(5.0) == []
    assert line.next_deadline() is None
    assert isinstance(line.enqueue(job("dead", deadline=5.0), 5.0), Rejected)


def test_cancel_and_dispatch_race_and_exactly_one_wins() -> None:
    line = queue()
    line.enqueue(job("a"), 0.0)
    assert line.dispatch(0.0) is not None
    assert not line.cancel("a")
    line.enqueue(job("b"), 0.0)
    assert line.cancel("b")
    assert not line.cancel("b")
    assert line.dispatch(0.0) is None


def test_done_is_counted_once() -> None:
    line = queue()
    for name in "ab":
        line.enqueue(job(name), 0.0)
        line.dispatch(0.0)
    assert [line.done("a", True), line.done("a", True), line.done("b", False), line.done("c", True)] == [
        True,
        False,
        True,
        False,
    ]
    stats = line.stats(0.0)
    assert (stats.processed, stats.failed, stats.in_process) == (1, 1, 0)


def test_asking_twice_for_a_place_gives_one() -> None:
    line = queue()
    first = line.enqueue(job("a"), 0.0)
    assert line.enqueue(job("a"), 0.0) == first
    assert drain(line) == ["a"]


def test_after_a_restart_everyone_gets_the_old_place_whoever_asks_first() -> None:
    before = queue()
    kept = []
    for number in range(5):
        each = job(str(number), enqueued_at=float(number))
        answer = before.enqueue(each, float(number))
        assert isinstance(answer, Accepted)
        kept.append(replace(each, seq=answer.seq))
    after = queue(10.0)
    after.enqueue(job("new", enqueued_at=10.0), 10.0)
    for each in reversed(kept):
        after.enqueue(each, 10.0)
    assert drain(after) == ["0", "1", "2", "3", "4", "new"]


def test_after_a_restart_nobody_who_waited_is_refused_for_want_of_room() -> None:
    """One larger than the bound had been let into the empty queue; coming back after another it was refused."""
    before, after = [queue(max_tokens=10.0, max_per_tenant=2) for _ in range(2)]
    places = [before.enqueue(job(name, tokens=tokens), 0.0) for name, tokens in (("huge", 50.0), ("small", 1.0))]
    assert isinstance(places[1], Rejected)
    for name, tokens in (("small", 1.0), ("huge", 50.0), ("third", 1.0)):
        assert isinstance(after.enqueue(job(name, tokens=tokens, seq=7), 0.0), Accepted)
    assert isinstance(after.enqueue(job("new"), 0.0), Rejected)


def test_stats_tell_depth_and_the_oldest_wait() -> None:
    line = queue()
    line.enqueue(job("a", "low", enqueued_at=1.0), 1.0)
    line.enqueue(job("b", "high", enqueued_at=3.0), 3.0)
    stats = line.stats(4.0)
    assert stats.depth == {"high": 1, "normal": 0, "low": 1}
    assert stats.oldest_wait == 3.0
    assert [each.id for each in line.waiting()] == ["a", "b"]


def test_cancelled_jobs_do_not_pile_up_behind_one_that_stays() -> None:
    line = queue()
    line.enqueue(job("stays", deadline=1e9), 0.0)
    for number in range(20_000):
        line.enqueue(job(str(number), deadline=1e9), 0.0)
        line.cancel(str(number))
    lane = line._classes["normal"].tenants[""].lanes[frozenset()]
    assert len(lane.oldest._items) < 200
    assert len(line._deadlines._items) < 200


def test_tenants_that_left_are_forgotten() -> None:
    line = queue()
    for number in range(5000):
        line.enqueue(job(f"one{number}", tenant=f"tenant{number}"), 0.0)
        line.enqueue(job(f"busy{number}", tenant="busy"), 0.0)
        line.dispatch(0.0)
        if number % 2:
            line.dispatch(0.0)
            line.dispatch(0.0)
    assert len(line._classes["normal"].tenants) <= len(line) + 3
    assert len(line._per_tenant) <= len(line)


def test_who_asks_and_gives_up_for_ever_leaves_nothing_behind() -> None:
    """What is remembered of a tenant that owes its last job was noted again each time it left: without end."""
    line = queue()
    line.enqueue(job("owes", tenant="x", tokens=1e9), 0.0)
    line.enqueue(job("stays", tenant="y", routes=A), 0.0)
    line.dispatch(0.0)
    for number in range(5000):
        line.enqueue(job(str(number), tenant="x"), 0.0)
        line.cancel(str(number))
    normal = line._classes["normal"]
    assert len(normal._in_debt) <= 2
    assert len(normal.tenants) <= 2


def test_routes_that_nobody_waits_for_any_more_are_forgotten() -> None:
    """They were looked through at each decision for as long as their class was not empty."""
    line = queue()
    line.enqueue(job("stays", routes=A), 0.0)
    for number in range(5000):
        line.enqueue(job(str(number), tenant=f"tenant {number}", routes=frozenset({f"model {number}"})), 0.0)
        line.enqueue(job(f"a{number}", tenant=f"tenant {number}", routes=A), 0.0)
        line.cancel(str(number))
        line.cancel(f"a{number}")
    normal = line._classes["normal"]
    assert list(normal.by_routes) == [A]
    assert len(normal.by_routes[A]._heap) < 200


def events(decide: Callable[[], object]) -> int:
    """How many calls, of Python and of C, a decision makes: its cost, whatever else the machine does."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        decide()
    finally:
        sys.setprofile(before)
    return count


def cost_at(depth: int, **options: Any) -> float:
    """Mean cost of coming, going, giving up and ending while `depth` others wait, of all classes and ten tenants."""
    line = queue(max_queue_size=2 * depth, **options)

    def come(number: int) -> None:
        about = {"tenant": f"tenant {number % 10}", "routes": (A, B, A | B)[number // 3 % 3], "deadline": 1e9}
        line.enqueue(job(str(number), CLASSES[number % 3], tokens=5.0, enqueued_at=float(number), **about), 0.0)

    for number in range(depth):
        come(number)

    def decide() -> None:
        for number in range(depth, depth + 200):
            come(number)
            sent = line.dispatch(0.0, A | B)
            assert sent is not None
            line.done(sent.id, True)
        for number in range(depth + 150, depth + 160):
            line.cancel(str(number))

    return events(decide) / 200


@pytest.mark.parametrize(
    "options", [{}, {"when_full": "evict_lower"}, {"adaptive_lifo": dict.fromkeys(CLASSES, 60.0)}], ids=str
)
def test_a_decision_costs_the_same_however_many_wait(options: dict[str, Any]) -> None:
    assert cost_at(10_000, **options) <= 1.1 * cost_at(100, **options)


# -- shares -------------------------------------------------------------------------------------------------


def test_another_tenants_job_goes_within_its_share_however_many_jobs_one_floods_the_queue_with() -> None:
    line = queue(max_queue_size=20_000)
    for number in range(10_000):
        line.enqueue(job(f"flood {number}", tenant="flood", tokens=800.0), 0.0)
    for number in range(100):
        line.dispatch(0.0)
        line.enqueue(job(f"other {number}", tenant="other", tokens=800.0), 0.0)
        gone = [each.id for _ in range(2) if (each := line.dispatch(0.0))]
        assert f"other {number}" in gone


def test_tenants_share_by_their_weights() -> None:
    line = queue(max_queue_size=10_000, tenants={"gold": 3.0})
    for number in range(1000):
        for tenant in ("gold", "plain", "other"):
            line.enqueue(job(f"{tenant} {number}", tenant=tenant, tokens=10.0), 0.0)
    order = [each.tenant for _ in range(500) if (each := line.dispatch(0.0))]
    assert Counter(order) == {"gold": 300, "plain": 100, "other": 100}


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 50)), min_size=60, max_size=60))
@settings(deadline=None)
def test_no_tenant_falls_behind_its_share_by_more_than_one_largest_job(jobs: list[tuple[str, int]]) -> None:
    weights = {"x": 1.0, "y": 1.0, "z": 5.0}
    line = queue(tenants=weights)
    for number, (tenant, tokens) in enumerate(jobs):
        line.enqueue(job(str(number), tenant=tenant, tokens=float(tokens)), 0.0)
    left = Counter(tenant for tenant, _ in jobs)
    backlogged = set(left)
    served = dict.fromkeys(weights, 0.0)
    largest = {name: max((t for n, t in jobs if n == name), default=0) / weights[name] for name in weights}
    while all(left[name] for name in backlogged):
        each = line.dispatch(0.0)
        assert each is not None
        left[each.tenant] -= 1
        served[each.tenant] += each.tokens / weights[each.tenant]
        for one in backlogged:
            for other in backlogged:
                assert served[one] - served[other] <= largest[one] + largest[other] + 1e-9


@given(st.lists(st.integers(1, 40), min_size=5, max_size=40))
@settings(deadline=None)
def test_high_waits_for_one_job_of_each_while_it_asks_for_no_more_than_its_share(sizes: list[int]) -> None:
    """Its share is 17/20; one that is served token by token, one a second, is asked for no more than that."""
    line = queue(max_queue_size=10_000)
    for number in range(400):
        line.enqueue(job(f"normal {number}", tokens=40.0), 0.0)
        line.enqueue(job(f"low {number}", "low", tokens=40.0), 0.0)
    now, coming, owed = 0.0, 0.0, list(enumerate(sizes))
    while owed or any(each.klass == "high" for each in line.waiting()):
        while owed and coming <= now:
            number, tokens = owed.pop(0)
            line.enqueue(job(f"high {number}", "high", tokens=float(tokens), enqueued_at=coming), now)
            coming += tokens * 20 / 17
        each = line.dispatch(now)
        assert each is not None
        if each.klass == "high":
            assert now - each.enqueued_at <= 2 * 40 + 40 + 1e-6
        now += each.tokens


def test_a_job_far_above_all_others_keeps_its_place_until_its_turn_comes() -> None:
    line = queue()
    line.enqueue(job("huge", tenant="x", tokens=1e6), 0.0)
    line.enqueue(job("after it", tenant="x"), 0.0)
    for number in range(50):
        line.enqueue(job(f"small {number}", tenant="y"), 0.0)
    order = drain(line)
    assert order.index("huge") <= 1
    assert order[-1] == "after it", "its tenant has had its share for long"


# -- newest first -------------------------------------------------------------------------------------------


def overloaded(line: RequestQueue, seconds: int, begin: float = 0.0) -> list[float]:
    """Four come in a second and two go; the wait of each that went."""
    waits = []
    for step in range(seconds * 4):
        now = begin + step / 4
        line.enqueue(job(f"{now}", enqueued_at=now, deadline=now + 100.0), now)
        if step % 2 and (each := line.dispatch(now)):
            waits.append(now - each.enqueued_at)
    return waits


def test_a_class_in_which_all_wait_too_long_turns_to_newest_first() -> None:
    line = queue(adaptive_lifo={"normal": 100.0})
    waits = overloaded(line, 30)
    assert max(waits) == pytest.approx(5.5, abs=1.0), "5 % of its time, and the second in which it showed"
    assert waits[-20:] == [0.0] * 20
    assert line.stats(30.0).newest_first == ("normal",)


def test_without_the_option_a_class_stays_in_its_order() -> None:
    line = queue(adaptive_lifo={"low": 100.0})
    assert overloaded(line, 30)[-1] > 10.0
    assert line.stats(30.0).newest_first == ()


def test_one_who_hardly_waited_in_a_second_keeps_the_order() -> None:
    line = queue(adaptive_lifo={"normal": 100.0})
    for number in range(40):
        now = 10.0 + number / 4
        line.enqueue(job(f"old {number}", enqueued_at=0.0, tenant="x"), now)
        line.enqueue(job(f"new {number}", enqueued_at=now, tenant="y"), now)
        for _ in range(2):
            line.dispatch(now)
        line.enqueue(job(f"stays {number}", routes=A), now)
    assert line.stats(20.0).newest_first == ()


def test_a_class_turns_back_when_its_oldest_wait_less_than_half_of_that() -> None:
    line = queue(adaptive_lifo={"normal": 100.0})
    overloaded(line, 30)
    line.expire(130.0)
    assert len(line) == 0
    overloaded(line, 2, begin=200.0)
    assert line.stats(202.0).newest_first == (), "nobody was left, so it began anew"
    overloaded(line, 28, begin=202.0)
    for name in [each.id for each in line.waiting()][:-4]:
        line.cancel(name)
    overloaded(line, 3, begin=230.0)
    assert line.stats(233.0).newest_first == ()


def test_between_half_of_the_limit_and_the_whole_everything_stays_as_it_is() -> None:
    for first, then, expected in (
        (6.0, 2.4, [True, False]),
        (6.0, 2.6, [True, True]),
        (4.9, 2.4, [False, False]),
        (2.6, 5.1, [False, True]),
    ):
        lifo, seen = AdaptiveLifo(100.0), []
        for second, wait in enumerate((first, then, 0.0)):
            lifo.waited(wait, float(second))
            if second:
                seen.append(lifo.is_on)
        assert seen == expected


def test_newest_first_leaves_shares_and_deadlines_alone() -> None:
    line = queue(adaptive_lifo={"normal": 100.0}, max_queue_size=10_000)
    overloaded(line, 30)
    for number in range(100):
        line.enqueue(job(f"x{number}", tenant="x", enqueued_at=30.0 + number / 1000), 30.2)
    order = [each for _ in range(40) if (each := line.dispatch(30.25))]
    assert Counter(each.tenant for each in order) == {"": 20, "x": 20}
    assert [each.id for each in order if each.tenant == "x"] == [f"x{number}" for number in range(99, 79, -1)]
    assert len(line.expire(1e6)) == 40
    assert {each.tenant for each in line.waiting()} == {"x"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue_size": 0},
        {"weights": {"high": 1}},
        {"weights": dict.fromkeys(CLASSES, 0)},
        {"tenants": {"x": 0}},
        {"adaptive_lifo": {"urgent": 1.0}},
        {"adaptive_lifo": {"low": 0.0}},
        {"service_quantile": 1.0},
    ],
)
def test_senseless_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|weight|adaptive_lifo|service_quantile"):
        queue(**wrong)


@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), st.sampled_from("xy"), st.integers(1, 50)), min_size=60, max_size=60)
)
@settings(deadline=None)
def test_no_class_falls_behind_its_share_by_more_than_one_largest_job(jobs: list[tuple[str, str, int]]) -> None:
    weights = {"high": 17.0, "normal": 2.0, "low": 1.0}
    line = queue()
    for number, (klass, tenant, tokens) in enumerate(jobs):
        line.enqueue(job(str(number), klass, tenant=tenant, tokens=float(tokens)), 0.0)
    backlogged = {klass for klass, _, _ in jobs}
    served = dict.fromkeys(CLASSES, 0.0)
    largest = {klass: max((t for k, _, t in jobs if k == klass), default=0) / weights[klass] for klass in CLASSES}
    while all(line.stats(0.0).depth[klass] for klass in backlogged):
        each = line.dispatch(0.0)
        assert each is not None
        served[each.klass] += each.tokens / weights[each.klass]
        for one in backlogged:
            for other in backlogged:
                assert served[one] - served[other] <= largest[one] + largest[other] + 1e-9


# -- calls whose time will not do -----------------------------------------------------------------------------


def experienced(seconds: float = 5.0, answers: int = 40) -> RequestQueue:
    """A queue that has seen answers which took up to `seconds`, evenly spread; it is `seconds` o'clock."""
    line = RequestQueue(QueueOptions(), 0.0)
    for number in range(answers):
        line.enqueue(Job(f"past {number}"), 0.0)
    for number in range(answers):
        past = line.dispatch(0.0)
        assert past is not None
        line.done(past.id, True, seconds * (number + 1) / answers)
    return line


def test_a_call_without_the_time_of_nine_in_ten_answers_gives_way_to_others() -> None:
    """At three times the load nearly all that was sent was too late to be answered, and half the capacity was lost."""
    line = experienced()
    for name, deadline in (("late", 9.0), ("in time", 30.0)):
        assert isinstance(line.enqueue(Job(name, deadline=deadline), 0.0), Accepted)
    found = line.dispatch(5.0)
    assert found is not None
    assert found.id == "in time"
    assert [job.id for job in line.take_shed()] == ["late"]
    assert line.take_shed() == []
    assert (line.stats(5.0).infeasible, line.stats(5.0).expired) == (1, 0)


def test_a_call_that_nobody_waits_behind_is_sent_however_little_time_it_has() -> None:
    line = experienced()
    assert isinstance(line.enqueue(Job("late", deadline=6.0), 5.0), Accepted)
    found = line.dispatch(5.0)
    assert found is not None
    assert found.id == "late"


def test_where_others_wait_a_call_without_the_time_is_refused_at_the_door() -> None:
    line = experienced()
    line.enqueue(Job("waits", deadline=60.0), 5.0)
    refusal = line.enqueue(Job("late", deadline=6.0), 5.0)
    assert isinstance(refusal, Rejected)
    assert refusal.reason == "infeasible"
    assert isinstance(line.enqueue(Job("in time", deadline=11.0), 5.0), Accepted)


def test_a_slow_model_says_nothing_about_a_fast_one() -> None:
    """Judged by one figure for all, the calls for the fast one were turned away for want of time."""
    line = queue()
    for number in range(60):
        line.enqueue(job(str(number), routes=B if number % 2 else A), 0.0)
    for _ in range(60):
        line.dispatch(0.0)
    for number in range(60):
        line.done(str(number), True, 20.0 if number % 2 else 1.0)
    for number, routes in enumerate((A, B)):
        line.enqueue(job(f"waits {number}", routes=routes), 20.0)
    short = {"deadline": 25.0}
    assert isinstance(line.enqueue(job("fast", routes=A, **short), 20.0), Accepted)
    assert line.enqueue(job("slow", routes=B, **short), 20.0).reason == "infeasible"  # type: ignore[union-attr]


def test_who_takes_nothing_from_those_who_wait_may_go_whatever_its_time() -> None:
    line = experienced()
    line.enqueue(job("waits for another", routes=B), 5.0)
    for number in range(20):
        line.enqueue(job(str(number), routes=A), 5.0)
        line.dispatch(5.0, A)
        line.done(str(number), True, 10.0)
    assert isinstance(line.enqueue(job("short", routes=A, deadline=11.0), 10.0), Accepted)
    assert line.dispatch(10.0, A).id == "short"  # type: ignore[union-attr]


def test_a_stricter_quantile_turns_more_away() -> None:
    for quantile, expected in ((0.9, Accepted), (0.95, Rejected)):
        line = queue(service_quantile=quantile)
        for number in range(100):
            line.enqueue(job(str(number)), 0.0)
            line.dispatch(0.0)
            line.done(str(number), True, (number % 20 + 1) / 2)
        line.enqueue(job("waits"), 10.0)
        assert isinstance(line.enqueue(job("short", deadline=19.3), 10.0), expected)


def test_too_few_answers_and_old_ones_say_nothing() -> None:
    for line, now in ((experienced(answers=19), 5.0), (experienced(), 36.0)):
        line.enqueue(Job("waits", deadline=now + 60.0), now)
        assert isinstance(line.enqueue(Job("late", deadline=now + 1.0), now), Accepted)


def test_after_a_silence_the_old_times_are_forgotten() -> None:
    """The first answer after the silence must not bring back times because of which nothing was sent."""
    line = experienced(50.0)
    line.enqueue(Job("first"), 100.0)
    line.dispatch(100.0)
    line.done("first", True, 100.5)
    line.enqueue(Job("waits", deadline=200.0), 101.0)
    assert isinstance(line.enqueue(Job("next", deadline=103.0), 101.0), Accepted)


def test_what_is_shed_costs_its_class_nothing() -> None:
    line = experienced()
    for number in range(40):
        line.enqueue(Job(f"late {number}", "low", deadline=5.5), 0.0)
        line.enqueue(Job(f"low {number}", "low", deadline=99.0), 0.0)
        line.enqueue(Job(f"normal {number}", "normal", deadline=99.0), 0.0)
    order = [each.klass for _ in range(30) if (each := line.dispatch(5.0))]
    assert order.count("low") == pytest.approx(10, abs=1)


def test_failures_teach_no_time() -> None:
    line = RequestQueue(QueueOptions(), 0.0)
    for number in range(50):
        line.enqueue(Job(str(number)), 0.0)
        line.dispatch(0.0)
        line.done(str(number), False, 60.0)
    line.enqueue(Job("waits"), 60.0)
    assert isinstance(line.enqueue(Job("short", deadline=61.0), 60.0), Accepted)


def test_who_ran_out_of_time_counts_as_one_that_takes_longer() -> None:
    """When only those counted that were in time, the time that is needed was guessed shorter and shorter."""
    line = RequestQueue(QueueOptions(), 0.0)
    for number in range(40):
        line.enqueue(Job(str(number), deadline=4.0), 0.0)
        line.dispatch(0.0)
    for number in range(40):
        line.done(str(number), number < 30, 2.0 if number < 30 else 4.0)
    line.enqueue(Job("waits"), 4.0)
    assert isinstance(line.enqueue(Job("short", deadline=9.9), 4.0), Rejected)
    assert isinstance(line.enqueue(Job("long enough", deadline=10.1), 4.0), Accepted)


# -- free slots that nobody can use ---------------------------------------------------------------------------


def test_free_slots_of_a_blocked_route_draw_nobody_who_can_go_elsewhere() -> None:
    """They drew one call after another, which then all waited in line for the routes that were busy."""
    line, free, blocked = queue(), {"a"}, {"a"}
    ready = ReadyRoutes(free.__contains__, blocked.__contains__)
    line.enqueue(job("either", routes=frozenset({"a", "b"})), 0.0)
    assert line.dispatch(0.0, ready) is None
    line.enqueue(job("only a", routes=A), 0.0)
    assert line.dispatch(0.0, ready).id == "only a", "it is to hear that its circuit is open"  # type: ignore[union-attr]
    blocked.add("b")
    assert line.dispatch(0.0, ready).id == "either"  # type: ignore[union-attr]


def test_a_blocked_route_counts_again_when_it_is_blocked_no_more() -> None:
    line, blocked = queue(), {"a"}
    ready = ReadyRoutes({"a"}.__contains__, blocked.__contains__)
    line.enqueue(job("either", routes=frozenset({"a", "b"})), 0.0)
    assert line.dispatch(0.0, ready) is None
    blocked.clear()
    assert line.dispatch(0.0, ready).id == "either"  # type: ignore[union-attr]
