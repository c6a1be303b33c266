"""What is remembered of conversations: where they were, how much was cached, and for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.sticky import Sticky, kept_keys, prefix_keys, session_key

messages = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(max_size=8)), min_size=1)


def test_a_session_is_where_it_was_answered_last_for_five_minutes_from_then_on() -> None:
    sticky = Sticky()
    sticky.answered(["s"], "a/m", 0.0, None, 100)
    sticky.answered(["s"], "b/m", 200.0, None, 100)
    for now, route in ((200.0, "b/m"), (499.9, "b/m")):
        habit = sticky.find(["s"], now)
        assert habit is not None
        assert habit.route == route
    assert sticky.find(["s"], 500.0) is None
    assert len(sticky) == 0


def test_the_share_that_came_out_of_the_cache_is_learned_and_forgotten_with_the_route() -> None:
    sticky = Sticky()
    hits = []
    for cached in (0, 80, 80, 80, None):
        sticky.answered(["s"], "a/m", 0.0, cached, 100)
        habit = sticky.find(["s"], 0.0)
        assert habit is not None
        hits.append(round(habit.hit, 3))
    assert hits == [0.0, 0.4, 0.6, 0.7, 0.7]
    sticky.answered(["s"], "b/m", 0.0, None, 100)
    habit = sticky.find(["s"], 0.0)
    assert habit is not None
    assert habit.hit == 0.0


def test_the_least_recently_used_goes_first() -> None:
    sticky = Sticky(most=2)
    for key in ("a", "b", "a", "c"):
        sticky.answered([key], "r", 0.0, None, 1)
    assert sticky.find(["b"], 0.0) is None
    assert [sticky.find([key], 0.0) is not None for key in ("a", "c")] == [True, True]


def test_the_next_turn_of_a_conversation_finds_the_last_one_without_a_session() -> None:
    sticky = Sticky()
    first = [("system", "be brief"), ("user", "hi")]
    keys = prefix_keys("", "m", first)
    sticky.answered(kept_keys(keys, 1), "a/m", 0.0, None, 10)
    second = prefix_keys("", "m", [*first, ("assistant", "ho"), ("user", "and now?")])
    sticky_route = sticky.find(second, 1.0)
    assert sticky_route is not None
    assert sticky_route.route == "a/m"


def test_the_same_instructions_find_where_they_were_read_last() -> None:
    sticky = Sticky()
    keys = prefix_keys("", "m", [("system", "be brief"), ("user", "hi")])
    sticky.answered(kept_keys(keys, 1), "a/m", 0.0, None, 10)
    assert sticky.find(prefix_keys("", "m", [("system", "be brief"), ("user", "something else")]), 0.0) is not None
    assert sticky.find(prefix_keys("", "m", [("system", "be long"), ("user", "hi")]), 0.0) is None


def test_tenants_and_models_do_not_share() -> None:
    assert len({session_key(tenant, model, "s") for tenant in ("", "t") for model in ("", "t")}) == 4
    assert len({prefix_keys(tenant, model, [("user", "x")])[0] for tenant in ("", "t") for model in ("", "t")}) == 4


@given(one=messages, other=messages)
def test_two_prompts_share_a_key_for_each_message_that_they_begin_with_alike(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    shared = 0
    for here, there in zip(one, other, strict=False):
        if here != there:
            break
        shared += 1
    keys = prefix_keys("", "m", one)
    assert len(set(keys) & set(prefix_keys("", "m", other))) == shared
    assert len(keys) == len(one)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("xy"), st.floats(0, 200), st.integers(-5, 300)), max_size=60
    )
)
def test_it_never_holds_more_than_it_may_and_a_hit_is_a_share(steps: list[tuple[str, str, float, int]]) -> None:
    sticky, now = Sticky(most=3), 0.0
    last: dict[str, tuple[str, float]] = {}
    for key, route, wait, cached in steps:
        now += wait
        sticky.answered([key], route, now, cached, 100)
        last[key] = (route, now)
        assert len(sticky) <= 3
        for known, (where, when) in last.items():
            habit = sticky.find([known], now)
            if habit is not None:
                assert habit.route == where
                assert now - when < 300.0
                assert 0.0 <= habit.hit <= 1.0
