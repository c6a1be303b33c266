"""Keeps durable jobs: accepts them, hands them out on lease, and tells who waits how they ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pykka

import supervision as sup
from rubberduck.core.jobs import Job, JobState
from rubberduck.errors import InvalidRequest, LedgerUnavailable
from rubberduck.storage.jobs import SqliteJobs


@dataclass(frozen=True, slots=True)
class Submit(sup.Ask[Job]):
    """Accept `job`: it is on the disk when the answer comes. The answer is the job that its key stands for."""

    job: Job


@dataclass(frozen=True, slots=True)
class Lease(sup.Ask[tuple[Job, ...]]):
    """Hold what is `held` longer, and take up to `most` more. The answer is all that is held now.

    Asked for twice under one `id`, it is one lease.
    """

    id: str
    held: tuple[Job, ...]
    most: int


@dataclass(frozen=True, slots=True)
class Finish(sup.Ask[bool]):
    """The delivery has ended for good, in DONE or DEAD, with `outcome` as JSON."""

    job: Job
    state: JobState
    outcome: str


@dataclass(frozen=True, slots=True)
class GiveBack(sup.Ask[bool]):
    """The delivery has ended without an answer; the job may be delivered again after `delay` seconds."""

    job: Job
    delay: float = 0.0
    turned_away: bool = False


@dataclass(frozen=True, slots=True)
class Lapsed(sup.Ask[tuple[Job, ...]]):
    """The jobs whose owners have let their leases run out."""


@dataclass(frozen=True, slots=True)
class Find(sup.Ask[Job | None]):
    """The job as it stands now; None if there is none of this id."""

    id: str


@dataclass(frozen=True, slots=True)
class WaitFor(sup.Ask[Job | None]):
    """The job once it has ended; None if there is none of this id."""

    id: str


@dataclass(frozen=True, slots=True)
class CountJobs(sup.Ask[dict[str, int]]):
    """How many jobs are ready, leased, done and dead."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Others may have ended jobs that somebody waits for here, and old ones may be forgotten."""


def _utcnow() -> datetime:
    return datetime.now(UTC)


class JobsActor(pykka.ThreadingActor):
    """Keeps durable jobs in their store.

    Why an actor: one writer. Why a thread: the disk blocks. Asks: no one.
    Restart: opens the store again, so nothing is forgotten; who waited for a job's end asks again.

    `lease` is seconds; `keep` seconds for which a job that has ended can be asked for. `on_ready` is called when there
    is something to deliver.
    """

    expected_errors = (LedgerUnavailable, InvalidRequest)

    if TYPE_CHECKING:  # from `supervision`, for every actor in a tree

        def owe(self) -> sup.Reply: ...

    def __init__(
        self,
        open_store: Callable[[], SqliteJobs],
        *,
        lease: float,
        keep: float,
        on_ready: Callable[[], object] = lambda: None,
        utcnow: Callable[[], datetime] = _utcnow,
    ) -> None:
        super().__init__()
        self._open_store = open_store
        self._lease = timedelta(seconds=lease)
        self._keep = timedelta(seconds=keep)
        self._on_ready = on_ready
        self._utcnow = utcnow
        self._waiting: dict[str, list[sup.Reply]] = {}
        self._last_lease: tuple[str, tuple[Job, ...]] = ("", ())

    def on_start(self) -> None:
        self._store = self._open_store()

    def on_stop(self) -> None:
        self._store.close()

    def on_failure(self, *_: object) -> None:
        self._store.close()

    def on_receive(self, message: Any) -> Any:
        match message:
            case Submit(job):
                return self._submit(job)
            case Lease(id, held, most):
                return self._take(id, held, most)
            case Finish(job, state, outcome):
                return self._finish(job, state, outcome)
            case GiveBack(job, delay, turned_away):
                ready_at = self._utcnow() + timedelta(seconds=delay)
                return self._store.give_back(job, ready_at, turned_away=turned_away)
            case Lapsed():
                return tuple(self._store.lapsed(self._utcnow()))
            case Find(id):
                return self._store.find(id)
            case WaitFor(id):
                return self._wait_for(id)
            case CountJobs():
                return self._store.counts()
            case LookAgain():
                return self._look_again()
            case _:
                raise InvalidRequest(f"a keeper of jobs does not understand {type(message).__name__}")

    def _submit(self, job: Job) -> Job:
        accepted = self._store.submit(job)
        self._on_ready()
        return accepted

    def _take(self, id: str, held: Sequence[Job], most: int) -> tuple[Job, ...]:
        last, taken = self._last_lease
        if last == id:
            return taken
        now = self._utcnow()
        until = now + self._lease
        kept = self._store.renew(held, until) if held else []
        fresh = self._store.lease(now, until, most) if most > 0 else []
        self._last_lease = (id, (*kept, *fresh))
        return self._last_lease[1]

    def _finish(self, job: Job, state: JobState, outcome: str) -> bool:
        is_ours = self._store.finish(job, state, outcome, self._utcnow())
        self._tell(job.id)
        return is_ours

    def _wait_for(self, id: str) -> Any:
        job = self._store.find(id)
        if job is None or job.has_ended:
            return job
        reply = self.owe()
        self._waiting.setdefault(id, []).append(reply)
        return reply

    def _look_again(self) -> None:
        self._store.forget(self._utcnow() - self._keep)
        for id, replies in list(self._waiting.items()):
            if not any(reply.is_wanted for reply in replies):
                del self._waiting[id]
        for id in self._waiting.keys() - self._store.open_among(self._waiting):
            self._tell(id)

    def _tell(self, id: str) -> None:
        if id not in self._waiting:
            return
        job = self._store.find(id)
        if job is None or job.has_ended:
            for reply in self._waiting.pop(id):
                if not reply.is_used:
                    reply.set(job)
