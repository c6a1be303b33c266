"""The ledger's actor: writes down what each attempt may cost before it is sent, and what it did cost after."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pykka

import supervision as sup
from rubberduck.actors.fence import Fence
from rubberduck.core.budget import BudgetEvent, BudgetOptions, Budgets, BudgetStatus, Refused
from rubberduck.core.ledger import AttemptRecord, Summary, Timeframe, period
from rubberduck.core.pricing import Tokens, to_pico
from rubberduck.errors import InvalidRequest
from rubberduck.storage import Ledger, LedgerUnavailable

MAX_BATCH = 512
"""So many writes go into one transaction; more would keep the first one waiting."""


@dataclass(frozen=True, slots=True)
class Intend(sup.Ask[bool | Refused]):
    """An attempt is about to be sent. The reply means: it is on the disk. False: that attempt is known already.

    Refused: what it reserves is not left in the budget of its tenant, and nothing was written.
    """

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Settle(sup.Ask[bool]):
    """An attempt has ended and its consumption is known (`record.settled(...)`). False: it had ended before."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class Void(sup.Ask[bool]):
    """An attempt has cost nothing. False: it had ended before."""

    record: AttemptRecord


@dataclass(frozen=True, slots=True)
class MarkUncertain(sup.Ask[bool]):
    """An attempt may have been executed; nobody says what it cost. False: it had ended before.

    `reserved` is the worst case in USD, by default what the record reserves.
    """

    record: AttemptRecord
    reserved: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Track(sup.Ask[Decimal | None]):
    """Tokens were used, outside of any call that announced itself. Replies what they cost, None if unknown.

    The cost is the usage's own where it has one. `call_id` may tie it to something of the sender's. The same
    message delivered twice is booked once.
    """

    provider: str
    model: str
    usage: Tokens
    call_id: str = ""
    attempt_id: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(frozen=True, slots=True)
class GetSummary(sup.Ask[Summary]):
    """What was spent? `timeframe` is "all", "day" or "hour" (the current ones, UTC), or (since, until).

    Everything told before this message is in the answer.
    """

    timeframe: Timeframe = "all"


@dataclass(frozen=True, slots=True)
class Rows(sup.Ask[tuple[AttemptRecord, ...]]):
    """The attempts that started in a timeframe, oldest first, those in flight included."""

    timeframe: Timeframe = "all"


@dataclass(frozen=True, slots=True)
class GetBudgets(sup.Ask[Mapping[str, BudgetStatus]]):
    """How do the budgets stand? By tenant; "all" is that of all together."""


@dataclass(frozen=True, slots=True)
class Health(sup.Ask["LedgerHealth"]):
    """Can the ledger be written, and what has it seen?"""


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """`error` is the last write's failure, None if it succeeded; the counts are this incarnation's.

    `late` entries came for attempts that had ended; `recovered` intents were left by processes that died.
    """

    error: str | None
    written: int
    late: int
    failed: int
    recovered: int

    @property
    def is_writable(self) -> bool:
        return self.error is None


@dataclass(frozen=True, slots=True)
class Flush:
    """To itself: write what has gathered since."""


def _nobody(_: object) -> None:
    """Whom a tracker on its own tells of its budgets."""


_TIMELY = object()
"""Stands for the answer that says whether the record came in time."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A record on its way to the disk, and whom to answer what once it is there.

    `holds`: money was set aside for it just now.
    """

    record: AttemptRecord
    reply: sup.Reply
    answer: object
    holds: bool


def _utcnow() -> datetime:
    return datetime.now(UTC)


class CostTrackerActor(pykka.ThreadingActor):
    """Keeps the books of all calls.

    Why an actor: one writer batches the writes of all calls into one transaction, so that a sync of the disk
    is shared by those that arrived during the last one. Why a thread: the disk blocks. Asks: no one.
    Failure: while the disk refuses, each write is answered LedgerUnavailable and may be sent again; the actor
    stays up. Restart: opens the ledger again, so nothing is forgotten; what waited to be written is answered
    with an error and was not written. What is left of the budgets is what the ledger says.
    """

    expected_errors = (LedgerUnavailable, InvalidRequest)

    if TYPE_CHECKING:  # from `supervision`, for every actor in a tree

        def owe(self) -> sup.Reply: ...

    def __init__(
        self,
        open_ledger: Callable[[], Ledger],
        *,
        price: Callable[[str, str, Tokens], Decimal | None] | None = None,
        utcnow: Callable[[], datetime] = _utcnow,
        budgets: Mapping[str, BudgetOptions] | None = None,
        fence: Fence | None = None,
        publish: Callable[[Budgets], object] = _nobody,
        on_budget_event: Callable[[BudgetEvent], object] = _nobody,
    ) -> None:
        """`open_ledger` is called in the actor's thread at each start; `price(provider, model, usage)` serves Track.

        `fence` is shared by all incarnations, without which budgets hold in one incarnation only. `publish` is given
        the budgets at each start, for others to peek at.
        """
        super().__init__()
        self._open_ledger = open_ledger
        self._price = price
        self._utcnow = utcnow
        self._ledger: Ledger | None = None
        self._limits = budgets
        self._fence = fence or Fence()
        self._publish = publish
        self._on_budget_event = on_budget_event
        self._budgets: Budgets | None = None
        self._waiting: list[_Waiting] = []
        self._error: str | None = None
        self._written = self._late = self._failed = self._recovered = 0

    def on_start(self) -> None:
        self._ledger = self._open_ledger()
        with self._fence.entered_by(self):
            self._recovered = self._ledger.recover(self._utcnow())
            if self._limits:
                self._budgets = Budgets(self._limits, self._ledger.spending, self._utcnow())
                self._publish(self._budgets)

    def on_stop(self) -> None:
        self._flush()
        self._close(end_run=True)

    def on_failure(self, *_: object) -> None:
        self._close(end_run=False)  # calls of this run go on, and the next incarnation keeps their books

    def on_receive(self, message: Any) -> Any:
        match message:
            case Intend(record) if self._budgets is not None:
                return self._intend(record, self._budgets)
            case Intend(record) | Settle(record):
                return self._write(record)
            case Void(record):
                return self._write(record.voided(at=self._utcnow()))
            case MarkUncertain(record, reserved):
                return self._write(record.uncertain(at=self._utcnow(), reserved=reserved))
            case Track():
                return self._track(message)
            case GetSummary(timeframe):
                return self._flushed().summary(*self._period(timeframe))
            case Rows(timeframe):
                return tuple(self._flushed().rows(*self._period(timeframe)))
            case GetBudgets():
                return self._budget_statuses()
            case Health():
                return self._health()
            case Flush():
                return self._flush()
            case _:
                raise InvalidRequest(f"a cost tracker does not understand {type(message).__name__}")

    def _health(self) -> LedgerHealth:
        self._flush()
        return LedgerHealth(self._error, self._written, self._late, self._failed, self._recovered)

    def _intend(self, record: AttemptRecord, budgets: Budgets) -> sup.Reply | Refused:
        """Set the money aside with the announcement: the ledger keeps both or neither."""
        now = self._utcnow()
        self._begin_periods(budgets, now)
        reserved = None if record.reserved is None else to_pico(record.reserved)
        answer = budgets.hold(record.attempt_id, record.tenant, reserved, now)
        self._tell_of_budgets(budgets)
        if isinstance(answer, Refused):
            return answer
        began = budgets.began_at(record)
        record = record if began == record.started_at else replace(record, started_at=began)
        return self._write(record, holds=answer.is_new)

    def _begin_periods(self, budgets: Budgets, now: datetime) -> None:
        if budgets.is_over(now):
            self._flush()  # the new periods begin with what the ledger says
            budgets.roll(now)

    def _budget_statuses(self) -> Mapping[str, BudgetStatus]:
        if self._budgets is None:
            return {}
        now = self._utcnow()
        self._flush()
        self._begin_periods(self._budgets, now)
        return self._budgets.statuses(now)

    def _tell_of_budgets(self, budgets: Budgets) -> None:
        for event in budgets.events():
            self._on_budget_event(event)

    def _track(self, message: Track) -> sup.Reply:
        now, usage = self._utcnow(), message.usage
        cost: Decimal | None = getattr(usage, "cost", None)
        if cost is None and self._price is not None:
            cost = self._price(message.provider, message.model, usage)
        call = message.call_id or message.attempt_id
        record = AttemptRecord(message.attempt_id, call, message.provider, message.model, now)
        return self._write(record.settled(usage, cost, at=now), answer=cost)

    def _write(self, record: AttemptRecord, answer: object = _TIMELY, *, holds: bool = False) -> sup.Reply:
        """Owe the reply until the record is on the disk; the message to itself queues behind all that wait now."""
        reply = self.owe()
        if not self._waiting:
            self.actor_ref.tell(Flush())
        self._waiting.append(_Waiting(record, reply, answer, holds))
        if len(self._waiting) >= MAX_BATCH:
            self._flush()
        return reply

    def _flush(self) -> None:
        """Write all that waits in one transaction and answer everyone."""
        batch, self._waiting = self._waiting, []
        if not batch or self._ledger is None:
            return
        try:
            with self._fence.writing(self) as is_present:
                if not is_present:
                    return  # who waits for an answer has asked the next incarnation
                results = self._ledger.write([waiting.record for waiting in batch])
        except LedgerUnavailable as error:
            self._error = str(error)
            self._failed += len(batch)
            for waiting in batch:
                self._return_money(waiting)
                waiting.reply.fail(LedgerUnavailable(self._error))  # one for each asker: a traceback is not shared
            return
        self._error = None
        self._written += sum(results)
        self._late += len(results) - sum(results)
        self._book(batch, results)
        for waiting, is_timely in zip(batch, results, strict=True):
            waiting.reply.set(is_timely if waiting.answer is _TIMELY else waiting.answer)
        if self._budgets is not None:
            self._tell_of_budgets(self._budgets)

    def _book(self, batch: list[_Waiting], results: list[bool]) -> None:
        """Let the budgets know what is in the ledger now: what was late had been charged before."""
        if self._budgets is None:
            return
        for waiting, is_timely in zip(batch, results, strict=True):
            if is_timely:
                self._budgets.book(waiting.record)
            else:
                self._return_money(waiting)

    def _return_money(self, waiting: _Waiting) -> None:
        if waiting.holds and self._budgets is not None:
            self._budgets.release(waiting.record.attempt_id, waiting.record.tenant)

    def _flushed(self) -> Ledger:
        self._flush()
        assert self._ledger is not None  # opened by on_start, before any message
        return self._ledger

    def _period(self, timeframe: Timeframe) -> tuple[datetime | None, datetime | None]:
        try:
            return period(timeframe, self._utcnow())
        except ValueError as error:
            raise InvalidRequest(str(error), field="timeframe") from None

    def _close(self, *, end_run: bool) -> None:
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close(end_run=end_run)
