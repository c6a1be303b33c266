"""The tracker in a real tree: group commit, a disk that fails, restarts while calls are in flight."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pykka
import pytest

import supervision as sup
from rubberduck.actors import fence
from rubberduck.actors.cost_tracker import (
    CostTrackerActor,
    GetBudgets,
    GetSummary,
    Health,
    Intend,
    MarkUncertain,
    Rows,
    Settle,
    Track,
    Void,
)
from rubberduck.actors.fence import Fence
from rubberduck.core.budget import BudgetOptions, Refused
from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.errors import InvalidRequest
from rubberduck.storage import LedgerUnavailable
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import Usage

NOON = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
USAGE = Usage(100, 20)


class Disk(SqliteLedger):
    """A ledger that can be told to fail, to wait, and how its batches were cut."""

    opened: list[Disk]

    def __init__(self, path, **options):
        super().__init__(path, **options)
        self.batches = []
        self.fails = False
        self.breaks = False
        self.writing = threading.Event()
        self.may_write = threading.Event()
        self.may_write.set()
        self.closed_as = None

    def write(self, records):
        self.writing.set()
        assert self.may_write.wait(60)
        if self.breaks:
            raise RuntimeError("a mistake in our own code")
        if self.fails:
            raise LedgerUnavailable("the disk is full; make room")
        self.batches.append(len(records))
        return super().write(records)

    def close(self, *, end_run=True):
        self.closed_as = end_run
        super().close(end_run=end_run)


@pytest.fixture
def system():
    with sup.System("books") as system:
        yield system


@pytest.fixture
def clock():
    class Wall:
        now = NOON

        def __call__(self):
            return self.now

    return Wall()


@pytest.fixture
def disks():
    return []


@pytest.fixture
def tracker(system, tmp_path, disks, clock):
    def open_ledger():
        disks.append(Disk(tmp_path / "ledger.db", run="this run"))
        return disks[-1]

    def price(provider, model, usage):
        return Decimal("0.25") if model == "listed" else None

    options = {"price": price, "utcnow": clock}
    system.supervise(sup.ChildSpec("cost_tracker", CostTrackerActor, args=(open_ledger,), kwargs=options))
    return system.whereis("cost_tracker")


def intent(n=1, **fields):
    given = {"attempt_id": f"a{n}", "call_id": f"c{n}", "provider": "openai", "model": "gpt-4o", "started_at": NOON}
    return AttemptRecord(**given | {"reserved": Decimal(2)} | fields)


def end(n=1, cost=Decimal("0.5")):
    return intent(n).settled(USAGE, cost, at=NOON)


def test_an_attempt_is_announced_and_settled_once(tracker):
    assert tracker.ask(Intend(intent())) is True
    assert tracker.ask(Settle(end())) is True
    assert tracker.ask(Settle(end())) is False
    assert tracker.ask(Void(intent())) is False
    health = tracker.ask(Health())
    assert (health.written, health.late, health.is_writable) == (2, 2, True)
    assert tracker.ask(GetSummary()).cost == Decimal("0.5")


def test_void_and_uncertain_ends_bear_the_time_and_the_worst_case(tracker):
    for n in (1, 2, 3):
        tracker.ask(Intend(intent(n)))
    tracker.ask(Void(intent(1)))
    tracker.ask(MarkUncertain(intent(2)))
    tracker.ask(MarkUncertain(intent(3), reserved=Decimal(1)))
    rows = tracker.ask(Rows())
    assert [(row.state, row.ended_at) for row in rows] == [(State.VOID, NOON), *[(State.UNCERTAIN, NOON)] * 2]
    assert tracker.ask(GetSummary()).uncertain == 3


def test_usage_tracked_without_a_call_costs_its_own_word_or_the_list_or_nobody_knows(tracker):
    assert tracker.ask(Track("openai", "gpt-4o", Usage(1, 1, cost=Decimal("0.125")))) == Decimal("0.125")
    assert tracker.ask(Track("openai", "listed", USAGE)) == Decimal("0.25")
    assert tracker.ask(Track("openai", "unheard-of", USAGE)) is None
    tracker.tell(Track("openai", "listed", USAGE))
    summary = tracker.ask(GetSummary())
    assert (summary.cost, summary.unknown, summary.tokens) == (Decimal("0.625"), 1, 362)
    assert summary.by_model["openai", "listed"].calls == 2


def test_usage_delivered_twice_is_booked_once(tracker):
    message = Track("openai", "listed", USAGE)
    assert tracker.ask(message) == tracker.ask(message) == Decimal("0.25")
    assert tracker.ask(GetSummary()).cost == Decimal("0.25")


def test_a_summary_contains_everything_told_before_it(tracker):
    for n in range(20):
        tracker.tell(Settle(end(n)))
    assert tracker.ask(GetSummary()).cost == 10


def test_hour_and_day_are_the_current_ones_and_any_other_word_is_refused(tracker, clock):
    for n, age in enumerate([0, 33, 35, 12 * 60, 13 * 60]):
        early = intent(n, started_at=NOON - timedelta(minutes=age))
        tracker.ask(Settle(early.settled(USAGE, Decimal(1), at=NOON)))
    assert [tracker.ask(GetSummary(word)).cost for word in ("all", "day", "hour")] == [5, 4, 2]
    assert tracker.ask(GetSummary((NOON - timedelta(minutes=35), NOON))).cost == 2
    clock.now = NOON + timedelta(days=1)
    assert tracker.ask(GetSummary("day")).cost == 0
    for wrong in ("week", None, 7, (1, 2), (NOON.replace(tzinfo=None), None)):
        with pytest.raises(InvalidRequest, match=r"timeframe|time zone"):
            tracker.ask(GetSummary(wrong))
    assert tracker.ask(Health()).written == 5, "a wrong question must not restart the tracker"


def test_writes_that_arrive_during_a_write_share_the_next_one(tracker, disks):
    tracker.ask(Intend(intent(0)))
    disk = disks[0]
    disk.may_write.clear()
    disk.writing.clear()
    first = tracker.ask(Intend(intent(1)), block=False)
    assert disk.writing.wait(60)
    others = [tracker.ask(Intend(intent(n)), block=False) for n in range(2, 102)]
    disk.may_write.set()
    assert first.get(timeout=60) is True
    assert [other.get(timeout=60) for other in others] == [True] * 100
    assert disk.batches == [1, 1, 100]


def test_a_batch_has_a_largest_size(tracker, disks):
    tracker.ask(Health())
    disk = disks[0]
    disk.may_write.clear()
    asked = [tracker.ask(Intend(intent(n)), block=False) for n in range(1200)]
    disk.may_write.set()
    assert all(future.get(timeout=60) for future in asked)
    assert max(disk.batches) <= 512
    assert len(disk.batches) <= 6


def test_a_disk_that_fails_is_told_to_every_sender_and_the_same_writes_succeed_later(tracker, disks):
    tracker.ask(Intend(intent(0)))
    disks[0].fails = True
    futures = [tracker.ask(message, block=False) for message in (Intend(intent(1)), Settle(end(0)))]
    errors = []
    for future in futures:
        with pytest.raises(LedgerUnavailable, match="make room") as caught:
            future.get(timeout=60)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    health = tracker.ask(Health())
    assert (health.is_writable, health.failed) == (False, 2)
    assert "make room" in health.error
    disks[0].fails = False
    assert tracker.ask(Intend(intent(1))) is True
    assert tracker.ask(Settle(end(0))) is True
    assert tracker.ask(Health()).is_writable
    assert len(disks) == 1, "a full disk must not restart the tracker"


def test_a_crash_answers_what_it_owes_and_the_next_incarnation_keeps_the_books(tracker, disks):
    tracker.ask(Intend(intent(1)))
    disks[0].breaks = True
    with pytest.raises((RuntimeError, sup.ActorDeadError)):
        tracker.ask(Settle(end(1)), timeout=60)
    assert disks[0].closed_as is False
    assert tracker.ask(Settle(end(1)), timeout=60) is True
    assert len(disks) == 2
    assert tracker.ask(GetSummary()).cost == Decimal("0.5")


def test_a_restart_leaves_the_intents_of_running_calls_alone(tracker, system, disks, tmp_path):
    """The calls outlive the tracker; had a restart declared them uncertain, their settling would be refused."""
    tracker.ask(Intend(intent(1)))
    system.kill(tracker)
    assert tracker.ask(Health(), timeout=60).recovered == 0
    stranger = SqliteLedger(tmp_path / "ledger.db", run="another run")
    assert stranger.recover(NOON) == 0
    stranger.close()
    assert tracker.ask(Settle(end(1)), timeout=60) is True
    assert len(disks) == 2


def test_intents_of_a_run_that_ended_become_uncertain_at_the_start(system, tmp_path, clock):
    earlier = SqliteLedger(tmp_path / "ledger.db", run="an earlier run")
    earlier.write([intent(1), intent(2)])
    earlier.close()
    spec = sup.ChildSpec("cost_tracker", CostTrackerActor, args=(lambda: Disk(tmp_path / "ledger.db"),))
    system.supervise(spec)
    tracker = system.whereis("cost_tracker")
    assert tracker.ask(Health()).recovered == 2
    assert tracker.ask(GetSummary()).uncertain == 4


def test_stopping_writes_what_was_taken_but_not_yet_written(system, tmp_path):
    """The order to stop overtakes the tracker's own Flush; the clock, read while a message is taken, holds it there."""
    taking, go_on = threading.Event(), threading.Event()
    disks = []

    def open_ledger():
        disks.append(Disk(tmp_path / "ledger.db"))
        return disks[-1]

    def slow_clock():
        if disks and disks[0].batches:
            taking.set()
            assert go_on.wait(60)
        return NOON

    spec = sup.ChildSpec("cost_tracker", CostTrackerActor, args=(open_ledger,), kwargs={"utcnow": slow_clock})
    handle = system.supervise(spec)
    tracker = system.whereis("cost_tracker")
    tracker.ask(Intend(intent(1)))
    voided = tracker.ask(Void(intent(1)), block=False)
    assert taking.wait(60)
    stopping = handle.terminate_child("cost_tracker")
    go_on.set()
    stopping.get(timeout=60)
    assert voided.get(timeout=60) is True
    assert disks[0].closed_as is True
    kept = SqliteLedger(tmp_path / "ledger.db")
    assert [row.state for row in kept.rows()] == [State.VOID]
    kept.close()


def test_a_ledger_that_cannot_be_opened_stops_the_start_with_the_reason(system, tmp_path):
    spec = sup.ChildSpec("cost_tracker", CostTrackerActor, args=(lambda: SqliteLedger(tmp_path),))
    with pytest.raises(sup.StartFailedError, match="is a directory; name a file in it"):
        system.supervise(spec)


def test_a_message_it_does_not_understand_is_answered_and_ends_nothing(tracker):
    with pytest.raises(InvalidRequest, match="does not understand str"):
        tracker.ask("what did it cost?")
    assert tracker.name.epoch == 1
    assert tracker.ask(GetSummary()).tokens == 0


# --- budgets -----------------------------------------------------------------------------------------------------

USD = 10**12


@pytest.fixture
def told():
    return []


@pytest.fixture
def bounded(system, tmp_path, disks, clock, told):
    """A tracker that lets each tenant spend 5 USD an hour; an intent reserves 2 of them."""

    def open_ledger():
        disks.append(Disk(tmp_path / "ledger.db", run="this run"))
        return disks[-1]

    options = {
        "utcnow": clock,
        "budgets": {"*": BudgetOptions(5 * USD, "hour")},
        "fence": Fence(),
        "on_budget_event": lambda event: told.append((event.kind, event.whose)),
    }
    spec = sup.ChildSpec(
        "bounded", CostTrackerActor, args=(open_ledger,), kwargs=options, mailbox=sup.Mailbox(redeliver=3)
    )
    system.supervise(spec, max_restarts=1000, max_seconds=1)
    return system.whereis("bounded")


def stand(tracker, tenant=""):
    status = tracker.ask(GetBudgets())[tenant]
    return status.spent, status.held


def test_an_intent_sets_its_worst_case_aside_and_one_that_does_not_fit_is_not_written(bounded):
    assert bounded.ask(Intend(intent(1))) is True
    assert bounded.ask(Intend(intent(2))) is True
    refused = bounded.ask(Intend(intent(3)))
    assert (refused.limit, refused.used, refused.is_held) == (5, 4, True)
    assert refused.retry_after == 1504
    assert len(bounded.ask(Rows())) == 2
    assert bounded.ask(Intend(intent(4, tenant="other"))) is True
    bounded.ask(Settle(end(1)))
    assert stand(bounded) == (Decimal("0.5"), 2)
    assert bounded.ask(Intend(intent(3))) is True


def test_an_intent_delivered_twice_is_held_once(bounded):
    assert [bounded.ask(Intend(intent(1))) for _ in range(3)] == [True, False, False]
    assert stand(bounded) == (0, 2)
    bounded.ask(Void(intent(1)))
    assert bounded.ask(Intend(intent(1))) is False
    assert stand(bounded) == (0, 0)


def test_an_end_delivered_twice_is_charged_once(bounded):
    bounded.ask(Intend(intent(1)))
    bounded.ask(MarkUncertain(intent(1)))
    bounded.ask(MarkUncertain(intent(1)))
    bounded.ask(Settle(end(1)))
    assert stand(bounded) == (2, 0)


def test_a_disk_that_fails_leaves_no_money_set_aside_and_charges_nothing_yet(bounded, disks):
    bounded.ask(Intend(intent(1)))
    disks[0].fails = True
    for message in (Intend(intent(2)), Settle(end(1))):
        with pytest.raises(LedgerUnavailable):
            bounded.ask(message)
    assert stand(bounded) == (0, 2)
    disks[0].fails = False
    bounded.ask(Settle(end(1)))
    assert stand(bounded) == (Decimal("0.5"), 0)


def test_after_each_crash_the_budgets_are_what_the_ledger_says(bounded, system, disks):
    bounded.ask(Intend(intent(1)))
    bounded.ask(Settle(end(1, Decimal("1.5"))))
    bounded.ask(Intend(intent(2)))
    for _ in range(3):
        system.kill(bounded)
        assert stand(bounded) == (Decimal("1.5"), 2)
    assert isinstance(bounded.ask(Intend(intent(3))), Refused)
    bounded.ask(Void(intent(2)))
    assert bounded.ask(Intend(intent(3))) is True
    assert len(disks) == 4


def test_what_an_incarnation_that_was_given_up_still_writes_is_in_the_budgets_of_the_next(
    bounded, system, disks, eventually
):
    """A thread cannot be killed: what the old one wrote after the new one had read the ledger was in no budget."""
    bounded.ask(Intend(intent(1)))
    disks[0].may_write.clear()
    disks[0].writing.clear()
    in_the_write = bounded.ask(Intend(intent(2)), block=False)
    assert disks[0].writing.wait(60)
    system.kill(bounded)
    eventually(lambda: len(disks) == 2)
    asked = bounded.ask(GetBudgets(), block=False)
    with pytest.raises(pykka.Timeout):
        asked.get(timeout=0.3)  # nobody can say it before that write has ended
    disks[0].may_write.set()
    assert asked.get(timeout=60)[""].held == 4
    with suppress(sup.ActorDeadError):
        in_the_write.get(timeout=60)
    assert len(bounded.ask(Rows())) == 2


def test_an_incarnation_that_was_given_up_begins_no_further_write(monkeypatch):
    shared = Fence()
    for writer, other in (("old", "new"), ("new", "old")):
        with shared.entered_by(writer):
            pass
        for each, may_write in ((writer, True), (other, False)):
            with shared.writing(each) as is_present:
                assert is_present is may_write
    monkeypatch.setattr(fence, "LONGEST_WRITE", 0.01)
    with shared.writing("new"), pytest.raises(LedgerUnavailable, match="too long"), shared.entered_by("newer"):
        pass


def test_what_an_earlier_run_left_open_counts_with_its_worst_case(system, tmp_path, clock):
    earlier = SqliteLedger(tmp_path / "ledger.db", run="an earlier run")
    earlier.write([intent(1), end(2), intent(3, started_at=NOON - timedelta(hours=1))])
    earlier.close()
    options = {"utcnow": clock, "budgets": {"*": BudgetOptions(5 * USD, "hour")}}
    spec = sup.ChildSpec("cost_tracker", CostTrackerActor, args=(lambda: Disk(tmp_path / "ledger.db"),), kwargs=options)
    system.supervise(spec)
    assert stand(system.whereis("cost_tracker")) == (Decimal("2.5"), 0)


def test_a_new_hour_begins_without_what_was_spent_in_the_last(bounded, clock):
    bounded.ask(Settle(end(1, Decimal(5))))
    assert isinstance(bounded.ask(Intend(intent(2))), Refused)
    clock.now = NOON + timedelta(hours=1)
    assert bounded.ask(Intend(intent(2, started_at=clock.now))) is True
    assert stand(bounded) == (0, 2)


def test_an_attempt_whose_price_is_unknown_is_refused_where_money_is_counted(bounded):
    refused = bounded.ask(Intend(intent(1, reserved=None)))
    assert refused.reason == "price unknown"
    assert bounded.ask(Rows()) == ()


def test_usage_told_from_outside_is_charged(bounded):
    bounded.ask(Track("openai", "gpt-4o", Usage(1, 1, cost=Decimal("4.5"))))
    assert stand(bounded) == (Decimal("4.5"), 0)
    assert isinstance(bounded.ask(Intend(intent(1))), Refused)


def test_what_happens_to_a_budget_is_told_once(bounded, told):
    bounded.ask(Settle(end(1, Decimal(4))))
    for n in (2, 3):
        bounded.ask(Intend(intent(n)))
    assert told == [("warning", ""), ("exceeded", "")]


def test_a_tracker_without_budgets_has_none_to_show(tracker):
    assert tracker.ask(GetBudgets()) == {}
