"""Money that may be spent: set aside before each attempt, charged when it is known what the attempt has cost.

    hold(id, worst case) -> Held ─▶ charge(id, actual)     the rest returns
                                └─▶ release(id)            nothing was spent
                         -> Refused                        nothing has changed

At every moment spent + held <= limit, but for what a provider bills beyond the worst case: that is debt, and nothing
that costs anything is held before a new period. Amounts are whole pico-dollars, so that nothing is ever rounded; times
are aware datetimes, for a budget's day is the calendar's, in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

from rubberduck.core.ledger import AttemptRecord, State
from rubberduck.core.pricing import from_pico, to_pico

Per = Literal["hour", "day", "month", "total"]
PERIODS: tuple[Per, ...] = ("hour", "day", "month", "total")
EACH = "*"
"""Stands for each tenant that has no budget of its own name: each of them has one of this size for itself."""
ALL = "all"
"""Stands for all tenants together."""
WARN_AT = 80
"""Percent of a limit whose spending is told once in a period."""
PRICE_UNKNOWN = "price unknown"
SPENT = "budget exceeded"


@dataclass(frozen=True, slots=True)
class Held:
    """The money is set aside. `is_new` False: it was before, under the same id."""

    is_new: bool = True


@dataclass(frozen=True, slots=True)
class Refused:
    """The money is not there. `whose` is the tenant or "all"; `retry_after` is in seconds, when the period ends.

    `retry_after` None: waiting is no help, for the amount is above the whole limit or the period has no end.
    `is_held`: only money that others hold is missing, so it may be back before. `limit` and `used` (spent and held) are
    USD.
    """

    reason: str
    whose: str
    limit: Decimal
    used: Decimal
    retry_after: float | None
    is_held: bool = False


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """So many pico-dollars in each period."""

    limit: int
    per: Per = "day"


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """How a budget stands, in USD. `remaining` is what can still be set aside; `resets_at` None: never."""

    limit: Decimal
    spent: Decimal
    held: Decimal
    remaining: Decimal
    resets_at: datetime | None
    per: Per


@dataclass(frozen=True, slots=True)
class BudgetEvent:
    """`kind` "warning": 80 % are spent; "exceeded": the rest is too little for an attempt. Once each in a period."""

    kind: Literal["warning", "exceeded"]
    whose: str
    status: BudgetStatus


@dataclass(slots=True)
class Spending:
    """What a ledger knows of the attempts that began since a moment, in pico-dollars.

    `spent` is by tenant; an uncertain attempt has spent what it had reserved. `out` are those that have not ended:
    (attempt's id, tenant, reserved).
    """

    spent: dict[str, int] = field(default_factory=dict)
    out: list[tuple[str, str, int]] = field(default_factory=list)


def period_of(per: Per, now: datetime) -> tuple[datetime, datetime | None]:
    """The running period's start and its end, which belongs to the next one; None: it has no end."""
    start = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    match per:
        case "hour":
            return start, start + timedelta(hours=1)
        case "day":
            start = start.replace(hour=0)
            return start, start + timedelta(days=1)
        case "month":
            start = start.replace(day=1, hour=0)
            return start, (start + timedelta(days=31)).replace(day=1)
        case "total":
            return datetime(1970, 1, 1, tzinfo=UTC), None


class Budget:
    """One limit in one period."""

    __slots__ = ("_held", "_until", "held", "limit", "spent")

    def __init__(self, limit: int, until: datetime | None = None) -> None:
        self.limit = limit
        self.spent = self.held = 0
        self._held: dict[str, int] = {}
        self._until = until

    def fits(self, amount: int) -> bool:
        """Whether so much could be set aside now. What costs nothing always can, even in debt."""
        return amount == 0 or self.spent + self.held + amount <= self.limit

    def hold(self, id: str, amount: int, now: datetime, whose: str = "") -> Held | Refused:
        """Set aside what an attempt costs at worst. An id is held once, however often that is asked."""
        if id in self._held:
            return Held(is_new=False)
        if not self.fits(amount):
            return self.refusal(amount, now, whose)
        self.take(id, amount)
        return Held()

    def take(self, id: str, amount: int) -> None:
        """Set it aside without a question: it is out already."""
        if id not in self._held:
            self._held[id] = amount
            self.held += amount

    def charge(self, id: str, actual: int | None) -> bool:
        """It has cost so much, or nobody knows (None): then all that was set aside. The rest returns.

        False: nothing is held under this id, and nothing was changed.
        """
        worst = self._held.get(id)
        if worst is None:
            return False
        self.release(id)
        self.spent += worst if actual is None else actual
        return True

    def release(self, id: str) -> bool:
        """It has cost nothing. False: nothing is held under this id."""
        amount = self._held.pop(id, None)
        if amount is None:
            return False
        self.held -= amount
        return True

    def refusal(self, amount: int, now: datetime, whose: str) -> Refused:
        wait = None
        if self._until is not None and amount <= self.limit:
            wait = max(0.0, (self._until - now).total_seconds())
        is_held = self.spent + amount <= self.limit
        return Refused(SPENT, whose, from_pico(self.limit), from_pico(self.spent + self.held), wait, is_held)

    @property
    def until(self) -> datetime | None:
        """When a new period begins."""
        return self._until

    def __contains__(self, id: str) -> bool:
        return id in self._held


@dataclass(slots=True)
class _Kept:
    """A tenant's budget in the running period, and what has been told of it."""

    whose: str
    per: Per
    budget: Budget
    warned: bool = False
    exceeded: bool = False

    @property
    def is_spent_to_warn(self) -> bool:
        return self.budget.spent * 100 >= self.budget.limit * WARN_AT

    def status(self) -> BudgetStatus:
        budget = self.budget
        return BudgetStatus(
            limit=from_pico(budget.limit),
            spent=from_pico(budget.spent),
            held=from_pico(budget.held),
            remaining=from_pico(max(0, budget.limit - budget.spent - budget.held)),
            resets_at=budget.until,
            per=self.per,
        )


class Budgets:
    """All budgets of one configuration; an attempt needs room in its tenant's and in that of all together.

    `spending(since)` asks the ledger, at the start and whenever a period begins: what it knows is the truth, so a
    restart forgets nothing. An attempt belongs to the period in which it began. A wall clock that is set back does not
    bring back a period that is over. `peek` may be called from another thread, all else by the owner only.
    """

    def __init__(
        self, options: Mapping[str, BudgetOptions], spending: Callable[[datetime], Spending], now: datetime
    ) -> None:
        self._options = dict(options)
        self._spending = spending
        self._kept: dict[str, _Kept] = {}
        self._periods: dict[Per, tuple[datetime, datetime | None]] = {}
        self._events: list[BudgetEvent] = []
        self._begin({each.per for each in self._options.values()}, now)

    # -- asking ------------------------------------------------------------------------------------

    def is_bounded(self, tenant: str) -> bool:
        """Whether money is counted for this tenant's calls at all."""
        return bool(self._scopes(tenant))

    def peek(self, tenant: str, amount: int | None, now: datetime) -> Refused | None:
        """Why an attempt that costs so much at worst would be refused at this moment; None: it may not be."""
        for scope, options in self._scopes(tenant):
            if amount is None:
                return _unpriced(scope, options)
            kept = self._kept.get(scope)
            until = self._periods[options.per][1]
            if until is not None and now >= until:
                continue  # a new period begins with the next attempt
            budget = Budget(options.limit, until) if kept is None else kept.budget
            if not budget.fits(amount):
                return budget.refusal(amount, now, scope)
        return None

    def statuses(self, now: datetime) -> dict[str, BudgetStatus]:
        """How each budget stands: those of the configuration, and those of tenants that have spent something."""
        self.roll(now)
        named = [name for name in self._options if name != EACH]
        return {scope: self._keep(scope).status() for scope in dict.fromkeys([*named, *self._kept])}

    def events(self) -> list[BudgetEvent]:
        """What has happened since the last time this was asked."""
        events, self._events = self._events, []
        return events

    # -- booking -----------------------------------------------------------------------------------

    def hold(self, id: str, tenant: str, amount: int | None, now: datetime) -> Held | Refused:
        """Set aside what an attempt costs at worst (None: nobody knows), in all its budgets or in none."""
        self.roll(now)
        scopes = self._scopes(tenant)
        for scope, options in scopes:
            if amount is None:
                return _unpriced(scope, options)
            kept = self._keep(scope)
            if id not in kept.budget and not kept.budget.fits(amount):
                refused = kept.budget.refusal(amount, now, scope)
                if not refused.is_held:
                    self._note_exceeded(kept)
                return refused
        answers = [self._keep(scope).budget.hold(id, amount or 0, now) for scope, _ in scopes]
        return Held(any(isinstance(answer, Held) and answer.is_new for answer in answers))

    def release(self, id: str, tenant: str) -> None:
        """The attempt did not begin after all."""
        for scope, _ in self._scopes(tenant):
            self._keep(scope).budget.release(id)

    def book(self, record: AttemptRecord) -> None:
        """An entry has been written into the ledger for the first time: charge what it says."""
        if record.state is State.INTENT:
            return
        actual = charge_of(record)
        for scope, options in self._scopes(record.tenant):
            kept = self._keep(scope)
            if not kept.budget.charge(record.attempt_id, actual) and record.started_at >= self._periods[options.per][0]:
                kept.budget.spent += actual  # it was never announced, but the money is gone
            if kept.is_spent_to_warn and not kept.warned:
                kept.warned = True
                self._events.append(BudgetEvent("warning", scope, kept.status()))

    def began_at(self, record: AttemptRecord) -> datetime:
        """When the attempt is to have begun, so that the ledger counts it in the periods in which it is held here."""
        starts = [self._periods[options.per][0] for _, options in self._scopes(record.tenant)]
        return max([record.started_at, *starts])

    # -- periods -----------------------------------------------------------------------------------

    def is_over(self, now: datetime) -> bool:
        """Whether some period has ended: before the next one begins, all entries must be in the ledger."""
        return any(until is not None and now >= until for _, until in self._periods.values())

    def roll(self, now: datetime) -> None:
        """Begin those periods anew that are over."""
        over: set[Per] = {per for per, (_, until) in self._periods.items() if until is not None and now >= until}
        if over:
            self._begin(over, now)

    def _begin(self, pers: Iterable[Per], now: datetime) -> None:
        begun = {per: period_of(per, now) for per in pers}
        known = {per: self._spending(start) for per, (start, _) in begun.items()}  # it may fail: nothing changed yet
        self._periods |= begun
        self._kept = {scope: kept for scope, kept in self._kept.items() if kept.per not in begun}
        for per, spending in known.items():
            for tenant, spent in spending.spent.items():
                for kept in self._concerned(tenant, per):
                    kept.budget.spent += spent
            for id, tenant, reserved in spending.out:
                for kept in self._concerned(tenant, per):
                    kept.budget.take(id, reserved)
        for kept in self._kept.values():
            kept.warned = kept.warned or kept.is_spent_to_warn

    def _concerned(self, tenant: str, per: Per) -> Iterator[_Kept]:
        return (self._keep(scope) for scope, options in self._scopes(tenant) if options.per == per)

    def _scopes(self, tenant: str) -> list[tuple[str, BudgetOptions]]:
        """The budgets that a tenant's attempts are held in. One that is called "all" has that of all together only."""
        scopes = {tenant: self._options.get(tenant, self._options.get(EACH)), ALL: self._options.get(ALL)}
        if tenant == ALL and scopes[ALL] is None:
            scopes[ALL] = self._options.get(EACH)
        return [(scope, options) for scope, options in scopes.items() if options is not None]

    def _keep(self, scope: str) -> _Kept:
        kept = self._kept.get(scope)
        if kept is None:
            options = self._options.get(scope) or self._options[EACH]
            budget = Budget(options.limit, self._periods[options.per][1])
            kept = self._kept[scope] = _Kept(scope, options.per, budget)
        return kept

    def _note_exceeded(self, kept: _Kept) -> None:
        if not kept.exceeded:
            kept.exceeded = True
            self._events.append(BudgetEvent("exceeded", kept.whose, kept.status()))


def charge_of(record: AttemptRecord) -> int:
    """What an ended attempt counts for, in pico-dollars: what it cost, or if nobody knows what had been set aside."""
    if record.state is State.VOID:
        return 0
    amount = record.cost if record.state is State.SETTLED and record.cost is not None else record.reserved
    return 0 if amount is None else to_pico(amount)


def _unpriced(scope: str, options: BudgetOptions) -> Refused:
    return Refused(PRICE_UNKNOWN, scope, from_pico(options.limit), Decimal(0), None)
