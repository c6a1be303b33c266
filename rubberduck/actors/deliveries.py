"""Delivers durable jobs: takes them on lease, makes each a call, and sees to those that others have left behind."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import supervision as sup
from rubberduck.actors import components, cost_tracker, jobs, outcomes
from rubberduck.actors.office import Office
from rubberduck.actors.service import Complete
from rubberduck.core.jobs import Job, JobState, Sent, may_be_delivered_again, sent_by
from rubberduck.errors import CallInterrupted, DeadlineExceeded, LedgerUnavailable, RubberDuckError
from rubberduck.types import Response

logger = logging.getLogger("rubberduck")

LONGEST_PAUSE = 60.0
"""Seconds after which a job that was turned away is tried again at the latest, without a hint."""
NOT_WRITABLE = 1.0
"""Seconds after which the disk is tried again."""
LOOKS_PER_LEASE = 3
"""How often within a lease it is renewed, and left ones are looked for."""


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """`lease` and `expire` are seconds: how long a silent owner is believed alive, and a job worth answering.

    `base_delay`, in seconds and doubling, is the pause before a job is tried again.
    """

    lease: float = 30.0
    max_deliveries: int = 3
    max_running: int = 10
    expire: float = 86_400.0
    base_delay: float = 1.0


@dataclass(frozen=True, slots=True)
class Go:
    """There may be something to deliver."""


@dataclass(frozen=True, slots=True)
class Rest(sup.Ask[None]):
    """Begin no further deliveries; the answer comes when those under way have ended."""


@dataclass(frozen=True, slots=True)
class _Tick:
    """Time to renew the leases and to look for work."""

    number: int


class Deliveries:
    """The deliveries under way in this process, whichever incarnation of their actor began them.

    Belongs to the actors' loop.
    """

    def __init__(self, office: Office, options: DeliveryOptions) -> None:
        self._office = office
        self.options = options
        self.running: dict[str, tuple[Job, sup.AskFuture[Any]]] = {}
        self.is_told = False

    def wake(self) -> None:
        """There may be something to deliver. On any thread.

        One word will do until it is heard: each has the disk written.
        """
        if self.is_told or not self._office.is_open:
            return
        self.is_told = True
        with contextlib.suppress(sup.ActorDeadError):  # the system is being stopped
            self._office.deliveries().tell(Go())

    def begin(self, job: Job) -> None:
        """Let the job be delivered, in a task of its own; told twice, it is begun once."""
        if job.delivery in self.running:
            return
        ended = self._office.calls().ask(sup.RunTask(self._deliver, (job,)), block=False)
        self.running[job.delivery] = (job, ended)
        ended.on_done(functools.partial(self._ended, job.delivery))

    def give_up(self, delivery: str) -> None:
        """The lease of a delivery has been lost: its task is cancelled, for the job may be another's by now."""
        _, ended = self.running.pop(delivery, (None, None))
        if ended is not None:
            ended.abandon()

    def _ended(self, delivery: str) -> None:
        self.running.pop(delivery, None)
        self.wake()

    async def settled(self) -> None:
        """Wait until nothing is under way."""
        for _, ended in list(self.running.values()):
            with contextlib.suppress(Exception):  # its end is all that is wanted, and the keeper has been told of it
                await ended

    async def _deliver(self, job: Job) -> None:
        told = await self._delivered(job)
        await self._tell(told)
        if isinstance(told, jobs.GiveBack):
            self._office.clock.call_at(self._office.now() + told.delay, self.wake)

    async def _tell(self, told: sup.Ask[bool]) -> None:
        """The answer has been paid for: where the disk refuses it, it is kept here until it does not."""
        while True:
            try:
                await components.ask(self._office.jobs(), told)
                return
            except LedgerUnavailable as error:
                logger.warning("%s: the end of a job is not on the disk yet: %s", self._office.system.name, error)
            await sup.sleep(self._office.clock, NOT_WRITABLE)

    async def _delivered(self, job: Job) -> sup.Ask[bool]:
        """What the keeper is to be told of it."""
        if datetime.now(UTC) >= job.submitted_at + timedelta(seconds=self.options.expire):
            late = DeadlineExceeded(f"no answer within the {self.options.expire:.0f} s that a job has")
            return jobs.Finish(job, JobState.DEAD, outcomes.of_error(late))
        order = Complete(json.loads(job.request), tenant=job.tenant, call_id=job.delivery, **json.loads(job.options))
        try:
            response: Response = await self._office.service().ask(order, block=False)
        except RubberDuckError as error:
            return self._failed(job, error)
        except Exception as error:  # noqa: BLE001  (the crash that took the call with it)
            return self._failed(job, CallInterrupted(f"RubberDuck lost the call: {error}", spent=None))
        return jobs.Finish(job, JobState.DONE, outcomes.of_response(response))

    def _failed(self, job: Job, error: RubberDuckError) -> sup.Ask[bool]:
        may_pass = error.retryable or isinstance(error, CallInterrupted)
        if may_pass and not error.attempts and error.spent == 0:
            pause = error.retry_after or self._pause(job.turned_away)
            return jobs.GiveBack(job, pause, turned_away=True)
        sent = Sent.NOTHING if error.spent == 0 else Sent.PERHAPS
        if may_pass and may_be_delivered_again(job, sent, self.options.max_deliveries):
            return jobs.GiveBack(job, error.retry_after or self._pause(job.deliveries))
        return jobs.Finish(job, JobState.DEAD, outcomes.of_error(error))

    def _pause(self, times: int) -> float:
        """Seconds until a job is tried again that has been so many times without a word when to come back."""
        return min(LONGEST_PAUSE, self.options.base_delay * 2.0 ** min(times, 20))

    async def resolve(self, job: Job) -> None:
        """Decide about a job whose owner has let its lease run out: by what the ledger knows of its last delivery."""
        since = job.leased_at or job.submitted_at
        rows = await components.ask(self._office.tracker(), cost_tracker.Rows((since - timedelta(seconds=1), None)))
        sent = sent_by(row.state for row in rows if row.call_id == job.delivery)
        if may_be_delivered_again(job, sent, self.options.max_deliveries):
            await components.ask(self._office.jobs(), jobs.GiveBack(job))
            return
        what = "may have been executed" if sent is Sent.PERHAPS else "was sent nowhere"
        spent = None if sent is Sent.PERHAPS else outcomes.NOTHING
        error = CallInterrupted(f"the job was interrupted in its delivery {job.deliveries}; it {what}", spent=spent)
        await components.ask(self._office.jobs(), jobs.Finish(job, JobState.DEAD, outcomes.of_error(error)))


class DeliveryActor(sup.Actor):
    """Sees that jobs are delivered, at most `max_running` at once.

    Why an actor: one who leases for the whole process. Asks: the keeper of the jobs, the cost tracker.
    Restart: forgets nothing; deliveries under way are tasks of their own and go on.
    Failure: while the disk refuses, nothing is begun, and each look is made again with the next one.
    """

    expected_errors = (LedgerUnavailable,)

    def __init__(
        self, office: Office, deliveries: Deliveries, options: DeliveryOptions, *, new_id: Callable[[], str]
    ) -> None:
        super().__init__()
        self._office = office
        self._new_id = new_id
        self._deliveries = deliveries
        self._options = options
        self._number = 0
        self._rests = False
        self._suspects: set[str] = set()

    def on_start(self) -> None:
        self._deliveries.is_told = False  # that word may be lost
        self.actor_ref.tell(_Tick(0))

    async def on_receive(self, message: Any) -> None:
        match message:
            case Go():
                self._deliveries.is_told = False  # first, for who comes from now on may be missed
                await self._take()
            case Rest():
                self._rests = True
                await self._deliveries.settled()
            case _Tick(number=number) if number == self._number:
                self._number += 1
                self.send_after(self.actor_ref, _Tick(self._number), self._options.lease / LOOKS_PER_LEASE)
                await self._take()
                await self._resolve_lapsed()

    async def _take(self) -> None:
        """Renew what is held, and take what there is room for."""
        if self._rests or not self._office.is_open:  # the tree is just being stopped, or started
            return
        held = {delivery: job for delivery, (job, _) in list(self._deliveries.running.items())}
        room = self._options.max_running - len(held)
        lease = jobs.Lease(self._new_id(), tuple(held.values()), room)
        leased = {job.delivery: job for job in await components.ask(self._office.jobs(), lease)}
        for delivery in held.keys() - leased.keys():
            self._deliveries.give_up(delivery)
        for delivery in leased.keys() - held.keys():
            self._deliveries.begin(leased[delivery])

    async def _resolve_lapsed(self) -> None:
        """See to jobs that are found without an owner twice in a row: between two looks everybody renews.

        After a jump of the clock all leases seem to have lapsed, and nobody has died. Nor has this process, where the
        disk did not let it renew.
        """
        if self._rests or not self._office.is_open:
            return
        lapsed = await components.ask(self._office.jobs(), jobs.Lapsed())
        for job in lapsed:
            if job.delivery in self._suspects and job.delivery not in self._deliveries.running:
                await self._deliveries.resolve(job)
        self._suspects = {job.delivery for job in lapsed}
        self._office.jobs().tell(jobs.LookAgain())
