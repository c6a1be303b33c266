from __future__ import annotations

from datetime import UTC, datetime

import pytest

from rubberduck.core.jobs import Job, JobState, Safety, Sent, may_be_delivered_again, sent_by
from rubberduck.core.ledger import State

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ONCE, AGAIN = Safety.AT_MOST_ONCE, Safety.AT_LEAST_ONCE


def job(**fields: object) -> Job:
    return Job("j", "{}", "{}", NOON, **fields)


@pytest.mark.parametrize(
    ("entries", "sent"),
    [
        ([], Sent.NOTHING),
        ([State.VOID, State.VOID], Sent.NOTHING),
        ([State.VOID, State.INTENT], Sent.PERHAPS),
        ([State.UNCERTAIN], Sent.PERHAPS),
        ([State.SETTLED], Sent.PERHAPS),
    ],
)
def test_the_ledger_tells_what_a_lost_delivery_has_done(entries: list[State], sent: Sent) -> None:
    assert sent_by(entries) is sent


@pytest.mark.parametrize(
    ("sent", "safety", "again"),
    [
        (Sent.NOTHING, ONCE, True),
        (Sent.NOTHING, AGAIN, True),
        (Sent.PERHAPS, ONCE, False),
        (Sent.PERHAPS, AGAIN, True),
        (Sent.OUTPUT, ONCE, False),
        (Sent.OUTPUT, AGAIN, False),
    ],
)
def test_what_may_have_been_executed_is_sent_again_only_where_that_was_allowed(
    sent: Sent, safety: Safety, again: bool
) -> None:
    assert may_be_delivered_again(job(safety=safety, deliveries=1), sent, 3) is again


def test_a_job_that_kills_whoever_delivers_it_is_dead_after_so_many() -> None:
    assert may_be_delivered_again(job(deliveries=2), Sent.NOTHING, 3)
    assert not may_be_delivered_again(job(deliveries=3), Sent.NOTHING, 3)


def test_being_turned_away_is_no_failed_delivery() -> None:
    assert may_be_delivered_again(job(deliveries=9, turned_away=7), Sent.NOTHING, 3)


def test_each_delivery_has_an_id_of_its_own() -> None:
    assert job(deliveries=1).delivery != job(deliveries=2).delivery


def test_done_and_dead_are_ends() -> None:
    assert [job(state=state).has_ended for state in JobState] == [False, False, True, True]
