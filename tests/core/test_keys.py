"""Which key a request takes, and for how long a refused one, a used-up one or an unknown model is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from rubberduck.core.classify import Quarantine
from rubberduck.core.keys import REMEMBERED, Barred, KeyPool, Use

KEY, QUOTA, ROUTE = Quarantine.KEY, Quarantine.QUOTA, Quarantine.ROUTE


def pool(count: int = 2) -> KeyPool:
    return KeyPool([f"key {number}" for number in range(1, count + 1)])


def use(keys: KeyPool, key: int = 0, model: str = "m", now: float = 0.0, until: float = 1e9) -> Use:
    claimed = keys.claim(key, model, now, until)
    assert isinstance(claimed, Use)
    return claimed


def refuse(keys: KeyPool, now: float = 0.0, key: int = 0, kind: Quarantine = KEY, **about: object) -> float:
    """Use a key, have it refused, and for how long it is put away."""
    used = use(keys, key, now=now)
    told = keys.refused(used, kind, now, **about)  # type: ignore[arg-type]
    keys.give_back(used)
    assert told is not None
    return told.seconds


def test_a_pool_has_at_least_one_key() -> None:
    with pytest.raises(ValueError, match="one without a name"):
        KeyPool([])
    assert KeyPool().pick("m", 0.0) == 0


def test_keys_take_turns_while_none_has_to_wait() -> None:
    keys = pool(3)
    assert [keys.pick("m", 0.0) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_key_with_the_least_wait_is_taken_and_ties_go_to_the_one_that_rested_longest() -> None:
    keys = pool(3)
    assert keys.pick("m", 0.0, [5.0, 1.0, 1.0].__getitem__) == 1
    assert keys.pick("m", 0.0, [5.0, 1.0, 1.0].__getitem__) == 2
    assert keys.pick("m", 0.0, [5.0, 1.0, 1.0].__getitem__) == 1
    assert keys.pick("m", 0.0, [0.5, 1.0, 1.0].__getitem__) == 0


def test_a_refused_key_is_left_alone_for_five_minutes_and_the_others_go_on() -> None:
    keys = pool()
    assert refuse(keys, now=10.0) == 300
    assert [keys.pick("m", 10.0), keys.pick("other", 309.9)] == [1, 1]
    assert keys.usable("m", 309.9) == [1]
    assert keys.usable("m", 310.0) == [0, 1]


def test_while_a_key_goes_on_being_refused_its_time_doubles_up_to_an_hour() -> None:
    keys, now, times = pool(1), 0.0, []
    for _ in range(7):
        times.append(refuse(keys, now))
        now += times[-1]
    assert times == [300, 600, 1200, 2400, 3600, 3600, 3600]


def test_an_answer_ends_the_row() -> None:
    keys = pool(1)
    refuse(keys, 0.0)
    refuse(keys, 300.0)
    keys.accepted(use(keys, now=900.0))
    assert keys.stats(900.0) == ()
    assert refuse(keys, 901.0) == 300


def test_a_single_key_is_put_away_just_the_same() -> None:
    keys = pool(1)
    refuse(keys, 5.0)
    assert keys.pick("m", 6.0) is None
    assert keys.obstacle("m", 6.0) == Barred("key quarantined (refused)", 299.0)
    assert keys.obstacle("m", 305.0) is None


def test_with_several_keys_away_the_obstacle_tells_of_the_first_to_come_back() -> None:
    keys = pool()
    refuse(keys, 0.0, key=0, kind=QUOTA)
    refuse(keys, 100.0, key=1)
    assert keys.obstacle("m", 100.0) == Barred("key quarantined (refused)", 300.0)


def test_a_key_that_was_refused_for_one_model_serves_the_others() -> None:
    keys = pool()
    told = keys.refused(use(keys, 0, "m"), KEY, 0.0, for_model=True)
    assert told is not None
    assert (told.key, told.model, told.seconds) == ("key 1", "m", 300)
    assert [list(keys.usable(model, 1.0)) for model in ("m", "other")] == [[1], [0, 1]]


@pytest.mark.parametrize(("hint", "seconds"), [(None, 3600), (7200.0, 7200), (2.0, 2), (1e9, 86_400)])
def test_a_used_up_account_comes_back_at_its_stated_reset_or_after_an_hour(hint: float | None, seconds: float) -> None:
    keys = pool()
    assert refuse(keys, kind=QUOTA, hint=hint) == seconds
    assert keys.obstacle("m", 0.0) is None
    assert refuse(keys, key=1, kind=QUOTA, hint=hint) == seconds
    assert keys.obstacle("m", 0.0) == Barred("key quarantined (quota)", seconds)


def test_an_unknown_model_is_off_with_every_key_and_others_are_not() -> None:
    keys = pool()
    told = keys.refused(use(keys), ROUTE, 0.0)
    assert told is not None
    assert (told.key, told.model, told.seconds) == (None, "m", 300)
    assert keys.obstacle("m", 299.0) == Barred("model not found", 1.0)
    assert keys.obstacle("other", 299.0) is None
    assert keys.obstacle("m", 300.0) is None


def test_requests_that_were_under_way_together_count_as_one_refusal() -> None:
    """All at one reading of the clock, as on a fast machine: the order decides, not the time."""
    keys = pool(1)
    together = [use(keys) for _ in range(10)]
    told = [keys.refused(each, KEY, 0.0) for each in together]
    assert [each is None for each in told] == [False] + [True] * 9
    assert keys.obstacle("m", 0.0) == Barred("key quarantined (refused)", 300.0)


def test_an_answer_to_a_request_from_before_the_refusal_changes_nothing() -> None:
    keys = pool(1)
    early, late = use(keys), use(keys)
    keys.refused(late, KEY, 0.0)
    keys.accepted(early)
    assert keys.pick("m", 1.0) is None


def test_when_its_time_is_over_one_request_at_a_time_looks_again() -> None:
    keys = pool(1)
    refuse(keys)
    first = use(keys, now=300.0)
    refusal = Barred("key quarantined (refused)", 1.0)
    assert [keys.claim(0, "m", 300.0), keys.claim(0, "other", 300.0)] == [refusal, refusal]
    assert keys.obstacle("m", 300.0) == refusal
    keys.give_back(first)  # a 500, say: it decided nothing
    second = use(keys, now=301.0)
    assert keys.claim(0, "m", 301.0) == refusal
    keys.accepted(second)
    assert [isinstance(keys.claim(0, "m", 301.0), Use) for _ in range(100)] == [True] * 100


def test_who_looks_and_never_comes_back_is_not_waited_for_for_ever() -> None:
    keys = pool(1)
    refuse(keys)
    use(keys, now=300.0, until=320.0)
    assert isinstance(keys.claim(0, "m", 320.0), Barred)
    assert isinstance(keys.claim(0, "m", 320.1), Use)


def test_giving_back_twice_takes_nothing_from_the_next() -> None:
    keys = pool(1)
    refuse(keys)
    first = use(keys, now=300.0)
    keys.give_back(first)
    use(keys, now=300.0)
    keys.give_back(first)
    assert isinstance(keys.claim(0, "m", 300.0), Barred)


def test_a_replaced_key_is_good_at_once() -> None:
    keys = pool()
    refuse(keys, key=0)
    refuse(keys, key=1)
    assert keys.readmit(1) == 1
    assert keys.usable("m", 1.0) == [1]
    assert (keys.readmit(), keys.usable("m", 1.0)) == (1, range(2))


def test_an_operator_sees_what_is_away_and_for_how_long() -> None:
    keys = pool()
    refuse(keys, key=1)
    keys.refused(use(keys, 0, "x"), ROUTE, 10.0)
    first, second = keys.stats(100.0)
    assert (first.key, first.model, first.kind, first.remaining, first.times) == ("key 2", None, "key", 200.0, 1)
    assert (second.key, second.model, second.kind, second.remaining) == (None, "x", "route", 210.0)
    assert [each.remaining for each in keys.stats(1000.0)] == [0.0, 0.0]


def test_unknown_models_are_forgotten_before_refused_keys() -> None:
    keys = pool(1)
    early = [use(keys, 0, f"m{number}") for number in range(REMEMBERED + 50)]
    refuse(keys)
    for each in early:
        keys.refused(each, ROUTE, 0.0)
    assert len(keys.stats(0.0)) == REMEMBERED
    assert keys.pick("any", 1.0) is None


def test_nothing_is_put_away_for_nothing() -> None:
    keys = pool(1)
    assert keys.refused(use(keys), Quarantine.NOTHING, 0.0) is None
    assert keys.stats(0.0) == ()


@given(
    waits=st.lists(st.floats(0, 100) | st.just(float("inf")), min_size=1, max_size=6),
    away=st.sets(st.integers(0, 5)),
    rounds=st.integers(1, 20),
)
def test_the_key_that_is_picked_is_usable_and_none_that_is_waits_less(
    waits: list[float], away: set[int], rounds: int
) -> None:
    keys = pool(len(waits))
    for key in away & set(range(len(waits))):
        refuse(keys, key=key)
    left = set(range(len(waits))) - away
    for _ in range(rounds):
        picked = keys.pick("m", 1.0, waits.__getitem__)
        if not left:
            assert picked is None
        else:
            assert picked in left
            assert waits[picked] == min(waits[key] for key in left)


class Ledgered(RuleBasedStateMachine):
    """A pool against a literal model: every quarantine as (until, times), every probe by its holder."""

    uses = Bundle("uses")

    @initialize(count=st.integers(1, 3))
    def begin(self, count: int) -> None:
        self.keys, self.count, self.now = pool(count), count, 0.0
        self.model: dict[tuple[int | None, str | None], dict[str, object]] = {}
        self.laid: dict[tuple[int | None, str | None], int] = {}
        self.step = 0
        self.born: dict[int, int] = {}

    def about(self, key: int, model: str) -> list[tuple[int | None, str | None]]:
        return [place for place in ((key, None), (key, model), (None, model)) if place in self.model]

    def admits(self, key: int, model: str) -> bool:
        terms = [self.model[place] for place in self.about(key, model)]
        return all(self.now >= term["until"] and term["probe"] is None for term in terms)  # type: ignore[operator]

    @rule(seconds=st.sampled_from([0.5, 60.0, 300.0, 599.0, 3600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=uses, key=st.integers(0, 2), model=st.sampled_from("ab"))
    def claim(self, key: int, model: str) -> object:
        key %= self.count
        may = self.admits(key, model)
        got = self.keys.claim(key, model, self.now)
        assert isinstance(got, Use) is may
        if not isinstance(got, Use):
            return None
        self.step += 1
        self.born[id(got)] = self.step
        for place in self.about(key, model):
            self.model[place]["probe"] = got
        return got

    @rule(used=consumes(uses), end=st.sampled_from(["lost", "accepted", "key", "model", "quota", "route"]))
    def end(self, used: Use | None, end: str) -> None:
        if used is None:
            return
        born = self.born[id(used)]
        if end == "accepted":
            self.keys.accepted(used)
            for place in self.about(used.key, used.model):
                if born > self.laid[place]:
                    del self.model[place]
        elif end != "lost":
            self.refuse(used, end, born)
        self.keys.give_back(used)
        for term in self.model.values():
            if term["probe"] is used:
                term["probe"] = None

    def refuse(self, used: Use, end: str, born: int) -> None:
        kind = {"key": KEY, "model": KEY, "quota": QUOTA, "route": ROUTE}[end]
        place = {"route": (None, used.model), "model": (used.key, used.model)}.get(end, (used.key, None))
        told = self.keys.refused(used, kind, self.now, for_model=end == "model")
        former = self.model.get(place)
        if former is not None and born < self.laid[place]:
            assert told is None
            return
        times = 1 if former is None else int(str(former["times"])) + 1
        seconds = {"quota": 3600.0, "route": 300.0}.get(end, min(3600.0, 300.0 * 2.0 ** (times - 1)))
        until = max(self.now + seconds, 0.0 if former is None else float(str(former["until"])))
        self.step += 1
        self.laid[place] = self.step
        self.model[place] = {"until": until, "times": times, "probe": None}
        assert told is not None
        assert (told.times, told.seconds) == (times, until - self.now)

    @precondition(lambda self: hasattr(self, "keys"))
    @invariant()
    def the_same_keys_are_usable(self) -> None:
        for model in "ab":
            usable = [key for key in range(self.count) if self.admits(key, model)]
            assert list(self.keys.usable(model, self.now)) == usable
            barred = self.keys.obstacle(model, self.now)
            assert (barred is None) is bool(usable)
            assert barred is None or barred.retry_after > 0
            assert (self.keys.pick(model, self.now) is None) is not bool(usable)


Ledgered.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_quarantines_are_as_a_literal_model_keeps_them = Ledgered.TestCase
