"""What every ledger promises, whatever it is kept in. A new backend joins in `conftest.BACKENDS`."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubberduck.core.ledger import State, may_follow, summarise
from rubberduck.core.pricing import Price
from rubberduck.types import Usage

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(seconds=9)
USAGE = Usage(
    prompt_tokens=100,
    completion_tokens=20,
    cached_tokens=40,
    cache_write_tokens=30,
    reasoning_tokens=5,
    cache_write_1h_tokens=10,
    prompt_audio_tokens=3,
    completion_audio_tokens=2,
    service_tier="flex",
)
PRICE = Price(Decimal("2.5"), Decimal(10), source="config", date="2026-01-01")


def test_an_intent_and_its_end_are_one_row_with_everything_in_it(ledger, intent):
    begun = intent(1, tenant="acme", tags={"team": "search", "ключ": "\ud800"})
    ended = begun.settled(USAGE, Decimal("0.00045"), PRICE, at=LATER)
    assert ledger.write([begun]) == [True]
    assert list(ledger.rows()) == [begun]
    assert ledger.write([ended]) == [True]
    assert list(ledger.rows()) == [ended]


@pytest.mark.parametrize("end", ["settled", "voided", "uncertain"])
@pytest.mark.parametrize("second", ["intent", "settled", "voided", "uncertain"])
def test_the_first_end_wins_and_later_entries_change_nothing(ledger, intent, end, second):
    def entry(word):
        if word == "settled":
            return intent(1).settled(USAGE, Decimal(1), at=LATER)
        return intent(1) if word == "intent" else getattr(intent(1), word)(at=LATER)

    assert ledger.write([intent(1), entry(end)]) == [True, True]
    before = list(ledger.rows())
    assert ledger.write([entry(second)]) == [False]
    assert list(ledger.rows()) == before
    assert ledger.late == 1


def test_sending_a_batch_twice_books_it_once(ledger, intent):
    batch = [intent(n).settled(USAGE, Decimal("0.1"), at=LATER) for n in range(5)]
    assert ledger.write(batch) == [True] * 5
    assert ledger.write(batch) == [False] * 5
    assert ledger.summary().cost == Decimal("0.5")


def test_a_late_entry_does_not_keep_its_neighbours_out(ledger, intent):
    ledger.write([intent(1).voided(at=LATER)])
    assert ledger.write([intent(0), intent(1), intent(2), intent(2)]) == [True, False, True, False]
    assert [row.attempt_id for row in ledger.rows()] == ["a0", "a1", "a2"]


def test_money_without_an_announcement_is_still_booked(ledger, intent):
    assert ledger.write([intent(1).settled(USAGE, Decimal(1), at=LATER)]) == [True]
    assert ledger.write([intent(1)]) == [False]
    assert ledger.summary().cost == 1


def test_an_empty_batch_is_no_batch(ledger):
    assert ledger.write([]) == []


def test_a_batch_larger_than_any_statement_is_one_transaction(ledger, intent):
    batch = [intent(n % 700) for n in range(1500)]
    assert ledger.write(batch) == [True] * 700 + [False] * 800
    assert len(list(ledger.rows())) == 700


def test_rows_come_in_the_order_of_their_starts_and_page_after_page(ledger, intent):
    ledger.write([intent(n, started_at=NOON + timedelta(seconds=n // 3)) for n in reversed(range(2500))])
    rows = list(ledger.rows())
    assert len({row.attempt_id for row in rows}) == 2500
    assert [row.started_at for row in rows] == sorted(row.started_at for row in rows)


def test_rows_may_be_read_while_more_are_written(ledger, intent):
    ledger.write([intent(n) for n in range(1200)])
    seen = 0
    for row in ledger.rows():
        seen += 1
        if row.state is State.INTENT and seen <= 3:
            ledger.write([row.voided(at=LATER)])
    assert seen == 1200


def test_a_period_includes_its_start_and_excludes_its_end(ledger, intent):
    ledger.write([intent(n).settled(USAGE, Decimal(1), at=LATER) for n in range(10)])
    since, until = intent(3).started_at, intent(7).started_at
    assert [row.attempt_id for row in ledger.rows(since, until)] == ["a3", "a4", "a5", "a6"]
    assert ledger.summary(since, until).cost == 4


def test_a_period_may_be_told_in_any_time_zone(ledger, intent):
    ledger.write([intent(0).settled(USAGE, Decimal(1), at=LATER)])
    kathmandu = NOON.astimezone(timezone(timedelta(hours=5, minutes=45)))
    assert ledger.summary(kathmandu, kathmandu + timedelta(seconds=1)).cost == 1
    with pytest.raises(ValueError, match="time zone"):
        ledger.summary(datetime(2026, 3, 1))  # noqa: DTZ001 - the naive datetime is the point


def test_an_unknown_cost_is_counted_and_never_taken_for_zero(ledger, intent):
    ledger.write([intent(1).settled(USAGE, None, at=LATER), intent(2).settled(USAGE, Decimal(0), at=LATER)])
    assert [row.cost for row in ledger.rows()] == [None, Decimal(0)]
    summary = ledger.summary()
    assert (summary.cost, summary.unknown, summary.tokens) == (0, 1, 240)


def test_what_may_have_been_spent_stands_apart_from_what_was(ledger, intent):
    ledger.write([intent(1).uncertain(at=LATER), intent(2).uncertain(at=LATER, reserved=Decimal("0.25")), intent(3)])
    ledger.write([intent(4, reserved=None).uncertain(at=LATER)])
    summary = ledger.summary()
    assert (summary.cost, summary.uncertain, summary.unknown) == (0, Decimal("0.75"), 1)
    assert summary.hourly == {}


def test_sums_are_exact_far_beyond_what_one_row_can_hold(ledger, intent):
    big = Decimal(9_000_000) - Decimal("1e-12")
    ledger.write([intent(n).settled(USAGE, big, at=LATER) for n in range(3)])
    assert ledger.summary().cost == 3 * big


def test_half_a_surrogate_in_a_name_does_not_stop_the_books(ledger, intent):
    assert ledger.write([intent(1, model="gpt\ud800", attempt_id="\udfff")]) == [True]
    assert ledger.write([intent(1, model="gpt\ud800", attempt_id="\udfff")]) == [False]
    assert [row.model for row in ledger.rows()] == ["gpt\\ud800"]


amounts = st.one_of(st.none(), st.integers(0, 10**18).map(lambda pico: Decimal(pico).scaleb(-12)))
ends = st.tuples(
    st.sampled_from(["intent", "settled", "voided", "uncertain"]),
    st.integers(0, 5),
    st.integers(-(10**6), 10**6),
    st.sampled_from(["gpt-4o", "claude"]),
    amounts,
)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(ends, max_size=6), max_size=4), st.data())
def test_any_story_of_batches_ends_as_the_rule_says_and_adds_up_as_in_memory(open_ledger, intent, batches, data):
    """The literal model: a dict from attempt to its record, changed by `may_follow` alone."""
    story = data.draw(st.uuids().map(str))
    ledger = open_ledger()
    model = {row.attempt_id: row for row in ledger.rows()}
    for batch in batches:
        records, expected = [], []
        for word, n, second, name, amount in batch:
            begun = intent(n, attempt_id=f"{story}-{n}", model=name, started_at=NOON + timedelta(seconds=second))
            match word:
                case "settled":
                    record = begun.settled(USAGE, amount, at=LATER)
                case "intent":
                    record = begun
                case _:
                    record = getattr(begun, word)(at=LATER)
            known = model.get(record.attempt_id)
            if known:  # an end is derived from its intent, so it bears what the intent bore
                record = replace(record, model=known.model, started_at=known.started_at)
            records.append(record)
            expected.append(may_follow(known.state if known else None, record.state))
            if expected[-1]:
                model[record.attempt_id] = record
        assert ledger.write(records) == expected
    assert {row.attempt_id: row for row in ledger.rows()} == model
    for since, until in [(None, None), (NOON, None), (NOON - timedelta(days=3), NOON + timedelta(hours=5))]:
        assert ledger.summary(since, until) == summarise(model.values(), since, until)


def test_what_was_written_is_there_after_reopening(open_kept, intent):
    first = open_kept()
    first.write([intent(1).settled(USAGE, Decimal("0.1"), PRICE, at=LATER), intent(2)])
    rows = list(first.rows())
    first.close()
    assert list(open_kept().rows()) == rows


def test_intents_of_a_run_that_ended_become_uncertain_once(open_kept, intent):
    first = open_kept(run="run-1")
    first.write([intent(1), intent(2), intent(3).voided(at=LATER)])
    first.close()
    second = open_kept(run="run-2")
    second.write([intent(4)])
    assert second.recover(LATER) == 2
    assert [row.state for row in second.rows()] == ["uncertain", "uncertain", "void", "intent"]
    assert next(second.rows()) == intent(1).uncertain(at=LATER)
    assert second.recover(LATER) == 0
    assert second.summary().uncertain == 1
    assert second.write([intent(1).settled(USAGE, Decimal(1), at=LATER)]) == [False]


def test_intents_of_living_runs_are_left_alone(open_kept, intent):
    mine, other = open_kept(run="run-1"), open_kept(run="run-2")
    mine.write([intent(1)])
    assert other.recover(LATER) == 0
    assert other.write([intent(1).settled(USAGE, Decimal(1), at=LATER)]) == [True]


def test_a_run_goes_on_when_its_ledger_is_opened_again(open_kept, intent):
    """A restart of the tracker: calls of this run are still in flight, so nothing of theirs is lost."""
    crashed = open_kept(run="run-1")
    crashed.write([intent(1)])
    crashed.close(end_run=False)
    bystander = open_kept(run="run-2")
    assert bystander.recover(LATER) == 0
    restarted = open_kept(run="run-1")
    assert restarted.recover(LATER) == 0
    assert restarted.write([intent(1).voided(at=LATER)]) == [True]


def test_closing_twice_is_closing_once(ledger):
    ledger.close()
    ledger.close()


def test_spending_adds_up_by_tenant_what_ended_and_lists_what_is_out(ledger, intent):
    worst = Decimal(2)
    one = {"tenant": "one", "reserved": worst}
    ledger.write([intent(1, **one).settled(USAGE, Decimal("0.25"), at=LATER), intent(2, **one).uncertain(at=LATER)])
    ledger.write([intent(3, **one).settled(USAGE, None, at=LATER), intent(4, **one).voided(at=LATER)])
    ledger.write([intent(5, **one), intent(6, tenant="two", reserved=None), intent(7, tenant="two", reserved=None)])
    ledger.write([intent(7, tenant="two", reserved=None).uncertain(at=LATER)])
    ledger.write([intent(8, **one, started_at=NOON - timedelta(microseconds=1)).uncertain(at=LATER)])
    found = ledger.spending(NOON)
    assert found.spent == {"one": 4_250_000_000_000, "two": 0}
    assert sorted(found.out) == [("a5", "one", 2_000_000_000_000), ("a6", "two", 0)]


def test_spending_has_no_largest_sum(ledger, intent):
    ledger.write([intent(n).settled(USAGE, Decimal(9_000_000), at=LATER) for n in range(3)])
    assert ledger.spending(NOON).spent == {"": 27_000_000 * 10**12}
