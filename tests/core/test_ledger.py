"""The rule of states, the meaning of timeframes, and sums against a literal model."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.ledger import AttemptRecord, State, from_us, may_follow, period, summarise, to_us
from rubberduck.core.pricing import Price
from rubberduck.types import Usage

NOON = datetime(2026, 3, 1, 12, 34, 56, 789, tzinfo=UTC)


def intent(**fields):
    given = {"attempt_id": "a", "call_id": "c", "provider": "openai", "model": "gpt-4o", "started_at": NOON}
    return AttemptRecord(**given | fields)


def test_only_an_open_intent_may_end_and_only_once():
    ends = {State.SETTLED, State.VOID, State.UNCERTAIN}
    allowed = {(current, new) for current in [None, *State] for new in State if may_follow(current, new)}
    assert allowed == {(None, state) for state in State} | {(State.INTENT, end) for end in ends}


def test_a_settled_record_says_where_its_cost_comes_from():
    price = Price(Decimal(1), Decimal(1), source="config", date="2026-01-01")
    usage = Usage(5, 6, cached_tokens=1, cache_write_tokens=2, reasoning_tokens=3)
    record = intent(reserved=Decimal(9)).settled(usage, Decimal("0.1"), price, at=NOON)
    assert (record.state, record.cost, record.price_source, record.price_date) == (
        State.SETTLED,
        Decimal("0.1"),
        "config",
        "2026-01-01",
    )
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 6, 1)
    assert (record.cache_write_tokens, record.reasoning_tokens, record.ended_at) == (2, 3, NOON)


def test_a_settled_record_says_what_else_its_price_depends_on():
    usage = Usage(9, 9, cache_write_1h_tokens=4, prompt_audio_tokens=5, completion_audio_tokens=6, service_tier="flex")
    record = intent().settled(usage, None, at=NOON)
    assert (record.cache_write_1h_tokens, record.prompt_audio_tokens, record.completion_audio_tokens) == (4, 5, 6)
    assert record.service_tier == "flex"
    assert intent().settled(Usage(1, 1, service_tier="x" * 10_000), None, at=NOON).service_tier == "x" * 64
    assert intent().settled(Usage(1, 1, service_tier=""), None, at=NOON).service_tier is None


def test_an_unknown_cost_has_no_source():
    record = intent().settled(Usage(1, 1), None, Price(Decimal(1), None, source="list"), at=NOON)
    assert (record.cost, record.price_source) == (None, None)


def test_a_count_that_cannot_be_is_no_count():
    record = intent().settled(Usage(-1, 10**30), None, at=NOON)
    assert (record.prompt_tokens, record.completion_tokens) == (None, None)


@pytest.mark.parametrize("wrong", [Decimal("-0.01"), Decimal("NaN"), Decimal(10_000_000)])
def test_an_impossible_amount_is_refused_where_it_is_made(wrong):
    with pytest.raises(ValueError, match="between 0 and"):
        intent(reserved=wrong)
    with pytest.raises(ValueError, match="between 0 and"):
        intent().settled(Usage(1, 1), wrong, at=NOON)


def test_a_time_without_a_zone_is_no_point_in_time():
    with pytest.raises(ValueError, match="time zone"):
        intent(started_at=NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="time zone"):
        to_us(NOON.replace(tzinfo=None))


@given(st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(timezone(timedelta(hours=-7)))))  # noqa: DTZ001 - Hypothesis wants it naive
def test_microseconds_keep_every_point_in_time(moment):
    assert from_us(to_us(moment)) == moment
    assert from_us(to_us(moment)).tzinfo is UTC


def test_day_and_hour_are_the_current_ones_of_utc_wherever_the_clock_stands():
    tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    hour = datetime(2026, 3, 1, 12, tzinfo=UTC)
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    assert period("hour", tokyo) == (hour, hour + timedelta(hours=1))
    assert period("day", tokyo) == (midnight, midnight + timedelta(days=1))
    assert period("all", tokyo) == (None, None)
    assert period((hour, None), tokyo) == (hour, None)


def test_hours_and_days_are_keyed_by_their_aware_start():
    records = [
        intent(started_at=NOON + timedelta(hours=hours)).settled(Usage(1, 1), Decimal(1), at=NOON)
        for hours in (0, 0.1, 1, 12)
    ]
    summary = summarise(records)
    assert summary.hourly == {
        datetime(2026, 3, 1, 12, tzinfo=UTC): 2,
        datetime(2026, 3, 1, 13, tzinfo=UTC): 1,
        datetime(2026, 3, 2, 0, tzinfo=UTC): 1,
    }
    assert summary.daily == {datetime(2026, 3, 1, tzinfo=UTC): 3, datetime(2026, 3, 2, tzinfo=UTC): 1}


def test_an_empty_ledger_has_cost_nothing():
    summary = summarise([intent(), intent().voided(at=NOON)])
    assert (summary.cost, summary.tokens, summary.unknown, summary.uncertain) == (0, 0, 0, 0)
    assert (summary.by_model, summary.hourly, summary.daily) == ({}, {}, {})


amounts = st.one_of(st.none(), st.integers(0, 10**15).map(lambda pico: Decimal(pico).scaleb(-12)))


@st.composite
def records(draw):
    record = intent(
        provider=draw(st.sampled_from(["openai", "anthropic"])),
        model=draw(st.sampled_from(["small", "large"])),
        started_at=NOON + timedelta(seconds=draw(st.integers(-200_000, 200_000))),
        reserved=draw(amounts),
    )
    match draw(st.sampled_from(list(State))):
        case State.SETTLED:
            return record.settled(Usage(draw(st.integers(0, 99)), 7), draw(amounts), at=NOON)
        case State.VOID:
            return record.voided(at=NOON)
        case State.UNCERTAIN:
            return record.uncertain(at=NOON)
    return record


@given(st.lists(records(), max_size=30), st.integers(-200_000, 200_000), st.integers(0, 200_000))
def test_a_summary_is_what_adding_up_by_hand_gives(records, start, length):
    since = NOON + timedelta(seconds=start)
    until = since + timedelta(seconds=length)
    summary = summarise(records, since, until)
    inside = [record for record in records if since <= record.started_at < until]
    settled = [record for record in inside if record.state is State.SETTLED]
    doubtful = [record for record in inside if record.state is State.UNCERTAIN]

    def known(some):
        return sum((record.cost for record in some if record.cost is not None), Decimal(0))

    assert summary.cost == known(settled) == sum(summary.hourly.values()) == sum(summary.daily.values())
    assert summary.tokens == sum(record.prompt_tokens + record.completion_tokens for record in settled)
    assert summary.uncertain == sum(record.reserved or 0 for record in doubtful)
    assert summary.unknown == sum(r.cost is None for r in settled) + sum(r.reserved is None for r in doubtful)
    for (provider, model), share in summary.by_model.items():
        mine = [r for r in settled if (r.provider, r.model) == (provider, model)]
        assert (share.cost, share.calls) == (known(mine), len(mine))
    assert sum(share.cost for share in summary.by_model.values()) == summary.cost


@given(st.lists(records(), max_size=20), st.randoms(use_true_random=False), st.integers(-100_000, 100_000))
def test_the_order_of_records_and_the_cut_of_periods_do_not_change_the_total(records, rng, second):
    shuffled = rng.sample(records, len(records))
    assert summarise(shuffled) == summarise(records)
    cut = NOON + timedelta(seconds=second)
    before, after, whole = summarise(records, None, cut), summarise(records, cut, None), summarise(records)
    assert before.cost + after.cost == whole.cost
    assert before.unknown + after.unknown == whole.unknown
