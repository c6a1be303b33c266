"""Budgets: what is set aside, what is charged, and that nothing is spent twice or beyond the limit."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rubberduck.core.budget import (
    ALL,
    EACH,
    PRICE_UNKNOWN,
    SPENT,
    Budget,
    BudgetOptions,
    Budgets,
    Held,
    Per,
    Refused,
    Spending,
    charge_of,
    period_of,
)
from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.core.pricing import from_pico, to_pico
from rubberduck.types import Usage

NOON = datetime(2026, 3, 1, 12, 34, 56, tzinfo=UTC)
USD = 10**12


def record(id: str, tenant: str = "acme", reserved: int = 0, at: datetime = NOON) -> AttemptRecord:
    return AttemptRecord(id, f"call of {id}", "mock", "any", at, reserved=from_pico(reserved), tenant=tenant)


def settled(id: str, cost: int, **about: Any) -> AttemptRecord:
    return record(id, **about).settled(Usage(1, 1), from_pico(cost), at=NOON)


class Books:
    """The ledger that budgets ask: a list of records, the last of each attempt."""

    def __init__(self) -> None:
        self.records: dict[str, AttemptRecord] = {}
        self.asked: list[datetime] = []
        self.fails = False

    def write(self, entry: AttemptRecord) -> bool:
        known = self.records.get(entry.attempt_id)
        if known is not None and (known.state is not State.INTENT or entry.state is State.INTENT):
            return False
        self.records[entry.attempt_id] = entry
        return True

    def spending(self, since: datetime) -> Spending:
        if self.fails:
            raise OSError("no ledger")
        self.asked.append(since)
        found = Spending()
        for each in self.records.values():
            if each.started_at < since:
                continue
            if each.state is State.INTENT:
                found.out.append((each.attempt_id, each.tenant, to_pico(each.reserved or Decimal(0))))
            else:
                found.spent[each.tenant] = found.spent.get(each.tenant, 0) + charge_of(each)
        return found


def budgets(options: dict[str, BudgetOptions], books: Books | None = None, now: datetime = NOON) -> Budgets:
    return Budgets(options, (books or Books()).spending, now)


# --- periods -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "start", "until"),
    [
        ("hour", "2026-03-01T12:00:00+00:00", "2026-03-01T13:00:00+00:00"),
        ("day", "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ("month", "2026-03-01T00:00:00+00:00", "2026-04-01T00:00:00+00:00"),
        ("total", "1970-01-01T00:00:00+00:00", None),
    ],
)
def test_periods_are_those_of_the_calendar_in_utc(per: Per, start: str, until: str | None) -> None:
    assert period_of(per, NOON) == (
        datetime.fromisoformat(start),
        None if until is None else datetime.fromisoformat(until),
    )


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_period_holds_its_moment_and_its_end_is_the_start_of_the_next(microseconds: int) -> None:
    now = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    for per in ("hour", "day", "month"):
        start, until = period_of(per, now)
        assert until is not None
        assert start <= now < until
        assert period_of(per, until)[0] == until
        assert period_of(per, until - timedelta(microseconds=1)) == (start, until)


# --- one budget --------------------------------------------------------------------------------------------------


def test_what_is_held_is_charged_with_what_it_cost_and_the_rest_returns() -> None:
    budget = Budget(100)
    assert budget.hold("a", 60, NOON) == Held()
    assert budget.charge("a", 25)
    assert (budget.spent, budget.held) == (25, 0)
    assert budget.hold("b", 75, NOON) == Held()


def test_what_is_held_is_settled_once() -> None:
    budget = Budget(100)
    budget.hold("a", 60, NOON)
    assert budget.hold("a", 60, NOON) == Held(is_new=False)
    assert budget.charge("a", 25)
    assert not budget.charge("a", 25)
    assert not budget.release("a")
    assert (budget.spent, budget.held) == (25, 0)


def test_when_nobody_knows_the_cost_all_that_was_set_aside_is_charged() -> None:
    budget = Budget(100)
    budget.hold("a", 60, NOON)
    assert budget.charge("a", None)
    assert budget.spent == 60


def test_the_whole_limit_can_be_held_and_not_one_pico_dollar_more() -> None:
    budget = Budget(100)
    assert budget.hold("a", 100, NOON) == Held()
    assert isinstance(budget.hold("b", 1, NOON), Refused)


def test_a_refusal_changes_nothing_and_says_when_the_period_ends() -> None:
    budget = Budget(3 * USD, NOON + timedelta(seconds=7))
    budget.hold("a", 2 * USD, NOON)
    budget.charge("a", USD)
    budget.hold("b", USD, NOON)
    refused = budget.hold("c", 2 * USD, NOON, "acme")
    assert refused == Refused(SPENT, "acme", Decimal(3), Decimal(2), 7.0, is_held=True)
    assert (budget.spent, budget.held) == (USD, USD)
    budget.charge("b", USD)
    assert budget.hold("c", 2 * USD, NOON, "acme") == Refused(SPENT, "acme", Decimal(3), Decimal(2), 7.0)


def test_more_than_the_whole_limit_never_fits_and_a_total_never_ends() -> None:
    for budget, amount in ((Budget(5, NOON + timedelta(hours=1)), 6), (Budget(0), 1)):
        refused = budget.hold("a", amount, NOON)
        assert isinstance(refused, Refused)
        assert refused.retry_after is None


def test_a_bill_beyond_the_worst_case_is_debt_in_which_only_what_is_free_still_goes() -> None:
    budget = Budget(100)
    budget.hold("a", 100, NOON)
    budget.charge("a", 130)
    assert isinstance(budget.hold("b", 1, NOON), Refused)
    assert budget.hold("free", 0, NOON) == Held()


class OneBudget(RuleBasedStateMachine):
    """Against a list of entries that is added up anew for every question."""

    LIMIT = 1000

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(self.LIMIT)
        self.open: dict[str, int] = {}
        self.charged: list[int] = []
        self.debt = 0

    ids = st.sampled_from("abcdef")

    @rule(id=ids, amount=st.integers(0, 600))
    def hold(self, id: str, amount: int) -> None:
        answer = self.budget.hold(id, amount, NOON)
        if id in self.open:
            assert answer == Held(is_new=False)
        elif amount == 0 or sum(self.charged) + sum(self.open.values()) + amount <= self.LIMIT:
            assert answer == Held()
            self.open[id] = amount
        else:
            assert isinstance(answer, Refused)
            assert answer.is_held == (sum(self.charged) + amount <= self.LIMIT)

    @rule(id=ids, part=st.one_of(st.none(), st.floats(0, 1.2)))
    def charge(self, id: str, part: float | None) -> None:
        worst = self.open.pop(id, None)
        actual = None if part is None else int((worst or 0) * part)
        assert self.budget.charge(id, actual) == (worst is not None)
        if worst is not None:
            self.charged.append(worst if actual is None else actual)
            self.debt += max(0, self.charged[-1] - worst)

    @rule(id=ids)
    def release(self, id: str) -> None:
        assert self.budget.release(id) == (self.open.pop(id, None) is not None)

    @invariant()
    def spent_and_held_are_what_the_entries_say_and_within_the_limit(self) -> None:
        assert self.budget.spent == sum(self.charged)
        assert self.budget.held == sum(self.open.values())
        assert self.budget.spent + self.budget.held <= self.LIMIT + self.debt


TestOneBudget = OneBudget.TestCase


# --- all budgets -------------------------------------------------------------------------------------------------


def test_each_tenant_has_a_budget_of_its_own_and_named_ones_another() -> None:
    all_of_them = budgets({EACH: BudgetOptions(10), "acme": BudgetOptions(50)})
    assert all_of_them.hold("a", "acme", 50, NOON) == Held()
    assert all_of_them.hold("b", "one", 10, NOON) == Held()
    assert all_of_them.hold("c", "", 10, NOON) == Held()
    assert isinstance(all_of_them.hold("d", "one", 1, NOON), Refused)


def test_without_an_entry_that_concerns_it_a_tenant_is_not_bounded() -> None:
    only_acme = budgets({"acme": BudgetOptions(0)})
    assert not only_acme.is_bounded("other")
    assert only_acme.hold("a", "other", None, NOON) == Held(is_new=False)
    assert only_acme.peek("other", None, NOON) is None


def test_an_attempt_is_held_in_its_tenants_budget_and_in_that_of_all_or_in_none() -> None:
    both = budgets({EACH: BudgetOptions(10), ALL: BudgetOptions(15)})
    both.hold("a", "one", 10, NOON)
    refused = both.hold("b", "two", 6, NOON)
    assert isinstance(refused, Refused)
    assert refused.whose == ALL
    assert both.statuses(NOON)["two"].held == 0
    assert both.hold("c", "two", 5, NOON) == Held()
    both.book(settled("a", 1, tenant="one"))
    assert both.hold("d", "two", 5, NOON) == Held()


def test_a_tenant_that_is_called_all_has_the_budget_of_all_and_no_second_one() -> None:
    named = budgets({EACH: BudgetOptions(10), ALL: BudgetOptions(15)})
    assert named.hold("a", ALL, 15, NOON) == Held()
    named.book(settled("a", 3, tenant=ALL))
    assert named.statuses(NOON)[ALL].spent == from_pico(3)
    assert budgets({EACH: BudgetOptions(10)}).hold("a", ALL, 10, NOON) == Held()


def test_an_unknown_price_is_refused_where_money_is_counted() -> None:
    bounded = budgets({EACH: BudgetOptions(10)})
    refused = bounded.hold("a", "acme", None, NOON)
    assert isinstance(refused, Refused)
    assert refused.reason == PRICE_UNKNOWN
    assert bounded.peek("acme", None, NOON) == refused


def test_peeking_says_what_holding_would_say_and_changes_nothing() -> None:
    peeked = budgets({EACH: BudgetOptions(10)})
    assert peeked.peek("acme", 10, NOON) is None
    assert isinstance(peeked.peek("acme", 11, NOON), Refused)
    peeked.hold("a", "acme", 6, NOON)
    assert peeked.peek("acme", 5, NOON) == peeked.hold("b", "acme", 5, NOON)
    assert peeked.peek("acme", 5, NOON + timedelta(days=1)) is None


@pytest.mark.parametrize("per", ["hour", "day", "month"])
def test_a_new_period_begins_with_what_the_ledger_knows_of_it_and_not_a_microsecond_earlier(per: Per) -> None:
    books = Books()
    several = budgets({"acme": BudgetOptions(10, per)}, books)
    until = period_of(per, NOON)[1]
    assert until is not None
    several.hold("a", "acme", 10, NOON)
    several.book(settled("a", 10))
    assert isinstance(several.hold("b", "acme", 1, until - timedelta(microseconds=1)), Refused)
    assert not several.is_over(until - timedelta(microseconds=1))
    assert several.is_over(until)
    books.write(settled("other process", 4, at=until))
    assert isinstance(several.hold("b", "acme", 7, until), Refused)
    assert several.hold("b", "acme", 6, until) == Held()


def test_an_attempt_of_the_last_period_is_no_matter_of_this_one() -> None:
    hourly = budgets({"acme": BudgetOptions(10, "hour")})
    hourly.hold("a", "acme", 10, NOON)
    later = NOON + timedelta(hours=1)
    hourly.hold("b", "acme", 4, later)
    hourly.book(settled("a", 10))
    assert hourly.statuses(later)["acme"].spent == 0
    assert hourly.statuses(later)["acme"].held == from_pico(4)


def test_an_attempt_that_was_announced_just_before_the_period_counts_in_the_one_in_which_it_is_held() -> None:
    hourly = budgets({"acme": BudgetOptions(10, "hour")})
    until = NOON.replace(hour=13, minute=0, second=0)
    late = record("a", at=until - timedelta(microseconds=1))
    hourly.hold("a", "acme", 10, until)
    assert hourly.began_at(late) == until
    hourly.book(late.settled(Usage(1, 1), from_pico(7), at=until))
    assert hourly.statuses(until)["acme"].spent == from_pico(7)


def test_a_clock_that_is_set_back_brings_no_period_back() -> None:
    hourly = budgets({"acme": BudgetOptions(10, "hour")})
    later = NOON + timedelta(hours=1)
    hourly.hold("a", "acme", 10, later)
    refused = hourly.hold("b", "acme", 1, NOON)
    assert isinstance(refused, Refused)
    assert refused.retry_after == (NOON.replace(hour=14, minute=0, second=0) - NOON).total_seconds()


def test_a_ledger_that_cannot_be_read_lets_no_period_begin() -> None:
    books = Books()
    hourly = budgets({"acme": BudgetOptions(10, "hour")}, books)
    books.fails = True
    later = NOON + timedelta(hours=1)
    for _ in range(2):
        with pytest.raises(OSError, match="no ledger"):
            hourly.hold("a", "acme", 1, later)
    books.fails = False
    assert hourly.hold("a", "acme", 10, later) == Held()


def test_money_without_an_announcement_is_charged_if_it_is_of_this_period() -> None:
    hourly = budgets({"acme": BudgetOptions(10, "hour")})
    hourly.book(settled("a", 3))
    hourly.book(settled("b", 4, at=NOON - timedelta(hours=1)))
    assert hourly.statuses(NOON)["acme"].spent == from_pico(3)


def test_void_uncertain_and_unpriced_ends_charge_nothing_or_what_was_set_aside() -> None:
    daily = budgets({"acme": BudgetOptions(100)})
    for id in ("void", "uncertain", "unpriced"):
        daily.hold(id, "acme", 20, NOON)
    daily.book(record("void", reserved=20).voided(at=NOON))
    assert daily.statuses(NOON)["acme"].spent == 0
    daily.book(record("uncertain", reserved=20).uncertain(at=NOON))
    daily.book(record("unpriced", reserved=20).settled(Usage(1, 1), None, at=NOON))
    status = daily.statuses(NOON)["acme"]
    assert (status.spent, status.held, status.remaining) == (from_pico(40), 0, from_pico(60))


def test_the_first_refusal_and_four_fifths_of_the_limit_are_told_once_in_a_period() -> None:
    hourly = budgets({"acme": BudgetOptions(100, "hour")})

    def spend(id: str, amount: int, now: datetime) -> list[str]:
        hourly.hold(id, "acme", amount, now)
        hourly.book(settled(id, amount, at=now))
        return [event.kind for event in hourly.events()]

    assert spend("a", 79, NOON) == []
    assert isinstance(hourly.hold("x", "acme", 22, NOON), Refused)
    assert [event.kind for event in hourly.events()] == ["exceeded"]
    assert spend("b", 1, NOON) == ["warning"]
    assert spend("c", 15, NOON) == []
    assert isinstance(hourly.hold("x", "acme", 22, NOON), Refused)
    assert spend("d", 80, NOON + timedelta(hours=1)) == ["warning"]


def test_money_that_others_hold_is_no_exhausted_budget() -> None:
    daily = budgets({"acme": BudgetOptions(100)})
    daily.hold("a", "acme", 60, NOON)
    assert isinstance(daily.hold("b", "acme", 60, NOON), Refused)
    assert daily.events() == []


class RestartedAtAnyTime(RuleBasedStateMachine):
    """Budgets over a ledger, thrown away and made anew at any moment, against sums over the ledger's records."""

    OPTIONS = {EACH: BudgetOptions(100, "hour"), "acme": BudgetOptions(150, "day"), ALL: BudgetOptions(400, "total")}
    tenants = st.sampled_from(["acme", "one", ""])
    ids = st.sampled_from([f"a{n}" for n in range(12)])

    def __init__(self) -> None:
        super().__init__()
        self.books = Books()
        self.now = NOON
        self.budgets = self.made()

    def made(self) -> Budgets:
        return Budgets(self.OPTIONS, self.books.spending, self.now)

    def used(self, scope: str) -> int:
        options = self.OPTIONS.get(scope, self.OPTIONS[EACH])
        since = period_of(options.per, self.now)[0]
        return sum(
            to_pico(each.reserved or Decimal(0)) if each.state is State.INTENT else charge_of(each)
            for each in self.books.records.values()
            if each.started_at >= since and scope in (ALL, each.tenant)
        )

    @rule(id=ids, tenant=tenants, worst=st.integers(0, 90))
    def intend(self, id: str, tenant: str, worst: int) -> None:
        if id in self.books.records:
            return
        limits = {scope: self.OPTIONS.get(scope, self.OPTIONS[EACH]).limit for scope in (tenant, ALL)}
        fits = worst == 0 or all(self.used(scope) + worst <= limit for scope, limit in limits.items())
        assert isinstance(self.budgets.hold(id, tenant, worst, self.now), Held) == fits
        if fits:
            self.books.write(record(id, tenant, worst, self.now))

    @rule(id=ids, share=st.floats(0, 1), end=st.sampled_from(["settled", "void", "uncertain"]))
    def end(self, id: str, share: float, end: str) -> None:
        known = self.books.records.get(id)
        if known is None:
            return
        cost = int(to_pico(known.reserved or Decimal(0)) * share)
        entry = {
            "settled": known.settled(Usage(1, 1), from_pico(cost), at=self.now),
            "void": known.voided(at=self.now),
            "uncertain": known.uncertain(at=self.now),
        }[end]
        if self.books.write(entry):
            self.budgets.book(entry)

    @rule(minutes=st.integers(1, 90))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule()
    def restart(self) -> None:
        self.budgets = self.made()

    @invariant()
    def what_is_spent_and_held_is_what_the_ledger_says(self) -> None:
        for scope, status in self.budgets.statuses(self.now).items():
            assert to_pico(status.spent + status.held) == self.used(scope)
            assert status.spent + status.held <= status.limit


TestRestartedAtAnyTime = RestartedAtAnyTime.TestCase
