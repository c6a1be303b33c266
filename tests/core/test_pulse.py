"""When an answer is late: it has not begun, has stopped, or goes on too slowly to be worth the wait."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.pulse import CELL, RATE_WINDOW, TIME_FOR_USAGE, Pulse
from rubberduck.core.written import about_tokens


def pulse(began: float = 0.0, **limits: float | None) -> Pulse:
    return Pulse(began, **{"first_token": 10.0, "idle": 15.0, "min_rate": 1.0, **limits})


def hear(each: Pulse, now: float, tokens: float = 1.0, taken: float = 0.0) -> None:
    """A chunk at `now`, which its reader takes `taken` seconds over."""
    each.heard(tokens, now)
    each.asks(now + taken)


def test_a_stream_has_its_time_to_begin_from_the_start_of_the_attempt() -> None:
    silent = pulse(began=100.0)
    assert silent.due(100.0) == 110.0
    assert silent.why(110.0) == "did not begin in time"


def test_what_says_nothing_does_not_begin_an_answer_and_keeps_none_alive() -> None:
    pinging = pulse()
    for second in range(1, 9):
        hear(pinging, second, tokens=0)
    assert pinging.due(9) == 10
    hear(pinging, 9)
    for second in range(10, 24):
        hear(pinging, second, tokens=0)
    assert pinging.due(23) == 9 + 15
    assert pinging.why(24) == "said nothing more for 15 s"


def test_each_output_gives_the_idle_time_anew() -> None:
    talking = pulse(min_rate=None)
    for now in (1.0, 8.0, 20.0):
        hear(talking, now)
        assert talking.due(now) == now + 15


def test_the_time_of_a_slow_reader_is_not_its_providers() -> None:
    held_up = pulse()
    hear(held_up, 1.0, tokens=50, taken=600.0)
    assert held_up.due(601.0) == 601 + 15
    held_up.heard(50, 610.0)
    assert held_up.due(5000.0) > 5000.0
    held_up.asks(9000.0)
    assert held_up.due(9000.0) == 9015.0


def test_while_a_reader_is_slow_only_the_time_for_the_whole_runs() -> None:
    held_up = pulse(whole=60.0)
    held_up.heard(5, 1.0)
    assert held_up.due(59.0) == 60.0
    assert held_up.why(60.0) == "did not finish in time"


@pytest.mark.parametrize("gap", [2.0, 4.0, 10.0])
def test_a_drip_below_the_least_rate_is_late_after_one_window(gap: float) -> None:
    dripping = pulse()
    now = 1.0
    while dripping.due(now) > now:
        hear(dripping, now)
        now = min(now + gap, dripping.due(now))
    assert 1 + RATE_WINDOW <= now <= 1 + RATE_WINDOW + 2 * CELL
    assert dripping.why(now) == "wrote less than 1 tokens a second for 20 s"


def test_who_keeps_the_least_rate_is_never_late() -> None:
    steady = pulse()
    for second in range(1, 500):
        assert steady.due(second) > second
        hear(steady, second, tokens=1)


def test_a_fast_beginning_does_not_excuse_a_slow_rest() -> None:
    tired = pulse()
    for step in range(100):
        hear(tired, 1 + step / 100, tokens=10)
    now = 2.0
    while tired.due(now) > now:
        now = min(now + 5, tired.due(now))
        if tired.due(now) > now:
            hear(tired, now)
    assert 2 + RATE_WINDOW - CELL <= now <= 2 + RATE_WINDOW + 2 * CELL


def test_without_a_least_rate_a_drip_may_go_on() -> None:
    for off in (None, 0.0):
        dripping = pulse(min_rate=off)
        for step in range(1, 50):
            assert dripping.due(step * 9.0) > step * 9.0
            hear(dripping, step * 9.0)


def test_after_its_last_word_only_a_moment_is_waited_for_the_usage() -> None:
    ended = pulse(idle=0.4)
    hear(ended, 1.0)
    ended.heard(0, 1.2)
    ended.finished()
    ended.asks(1.2)
    assert ended.due(1.2) == pytest.approx(1.2 + TIME_FOR_USAGE)


def test_an_answer_without_a_word_has_begun_with_its_end() -> None:
    empty = pulse()
    empty.heard(0, 2.0)
    empty.finished()
    assert empty.has_begun


def test_time_in_which_we_could_not_hear_is_given_once_more() -> None:
    silent = pulse()
    silent.forgive(0.7)
    assert silent.due(10.0) == pytest.approx(10.7)
    hear(silent, 10.5)
    silent.forgive(2.0)
    assert silent.due(11.0) == pytest.approx(27.5)


def test_without_limits_nothing_is_ever_late() -> None:
    free = Pulse(0.0)
    assert free.due(0.0) == inf
    hear(free, 1.0)
    assert free.due(1e9) == inf


STEPS = st.lists(
    st.tuples(st.floats(0, 12), st.sampled_from([0.0, 1.0, 3.0, 40.0]), st.floats(0, 8)), min_size=1, max_size=40
)


@given(STEPS, st.sampled_from([None, 0.5, 1.0, 4.0]))
def test_a_literal_reading_of_the_limits_agrees(steps: list[tuple[float, float, float]], rate: float | None) -> None:
    """Until it is late, every output came in the idle time, and every window but the last had enough of it.

    Time is that in which the provider was waited for. A window may be judged by what is up to two seconds off its edge.
    """
    watched, now, waited = pulse(min_rate=rate), 0.0, 0.0
    said: list[tuple[float, float]] = []
    for gap, tokens, taken in steps:
        arrives = now + gap
        if watched.due(now) <= arrives:
            due = waited + watched.due(now) - now
            _must_be_late(said, due, rate)
            return
        waited += gap
        taken = taken if said else 0.0  # before the first output nobody reads
        if tokens:
            assert waited - said[-1][0] <= 15 if said else waited <= 10
            said.append((waited, tokens))
        hear(watched, arrives, tokens, taken)
        now = arrives + taken
        for edge in [at + RATE_WINDOW + 2 * CELL for at, _ in said if rate]:
            if edge <= waited:
                came = sum(count for at, count in said if edge - RATE_WINDOW - 2 * CELL <= at <= edge)
                assert came >= (rate or 0) * RATE_WINDOW


def _must_be_late(said: list[tuple[float, float]], due: float, rate: float | None) -> None:
    if not said:
        assert due == pytest.approx(10)
        return
    is_silent = due >= said[-1][0] + 15 - 1e-6
    came = sum(tokens for at, tokens in said if at > due - RATE_WINDOW)
    is_slow = rate is not None and due >= said[0][0] + RATE_WINDOW - 1e-6 and came < rate * RATE_WINDOW
    assert is_silent or is_slow


@given(STEPS)
def test_it_becomes_due_earlier_only_with_the_first_output(steps: list[tuple[float, float, float]]) -> None:
    """That is what lets one timer look again when it fires, rather than be moved with each chunk."""
    watched, now = pulse(), 0.0
    for gap, tokens, taken in steps:
        before, had_begun = watched.due(now), watched.has_begun
        if before <= now + gap:
            return
        watched.heard(tokens, now + gap)
        if had_begun:
            assert watched.due(now + gap) >= before - 1e-6 or watched.due(now + gap) > now + gap
        now += gap + taken
        watched.asks(now)
        if had_begun:
            assert watched.due(now) >= before - 1e-6


def test_about_four_bytes_are_a_token_and_a_letter_is_one_too() -> None:
    assert about_tokens("") == 0
    assert about_tokens("a") == about_tokens("four") == 1
    assert about_tokens("x" * 400) == 100
    assert about_tokens("水" * 4) == 3
    assert about_tokens("\ud800") >= 1
