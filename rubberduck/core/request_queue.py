"""Decides which waiting call is sent next.

Classes share what is dispatched by weight (17:2:1, in estimated tokens), tenants within a class by theirs (1 unless
told otherwise), and a tenant's own calls go first come, first served. Calls are kept by their set of routes. A set
whose routes are all blocked is passed over as a whole; nobody looks at the calls in it, they pay nothing and keep
their place.

Weights are shares of what is short. A class that asks for less than its share gets all that it asks for, and the
others divide the rest; so a weight is chosen by the demand that is to be met in any case. With 17:2:1, `high` is served
as if it were alone, but for one largest job of each other class, while it asks for up to 17/20 of what can be sent.
Who expects more of it gives it more weight. The weight does not follow the demand by itself: those who call all that
they send urgent would starve the others.

A call whose time will not do is not sent while others wait for the same routes: it would take a slot from one that can
still be answered, and at three times the load nearly all that is sent would be such calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Literal, Union

from rubberduck.core.adaptive_lifo import AdaptiveLifo
from rubberduck.core.fair_share import ANYWHERE, CLASSES, Entry, FairClass, Heap, Job, Klass, Tenant
from rubberduck.core.service_times import ServiceTimes
from rubberduck.core.values import value

__all__ = [
    "ANYWHERE",
    "CLASSES",
    "Accepted",
    "Job",
    "Klass",
    "QueueOptions",
    "QueueStats",
    "ReadyRoutes",
    "Reason",
    "Rejected",
    "RequestQueue",
]

WEIGHTS: Mapping[str, float] = {"high": 17.0, "normal": 2.0, "low": 1.0}
FIRST_DRAIN_GUESS = 1.0
LONGEST_DRAIN_GUESS = 60.0
CUT_SHORT = 1.5
"""How many times as long a call is taken to have needed as it had, if it had too little."""

Reason = Literal["full", "class_full", "tenant_full", "expired", "infeasible", "evicted", "restarted", "shutdown"]
Ready = Union[Callable[[str], bool], AbstractSet[str], "ReadyRoutes", None]


@dataclass(frozen=True, slots=True)
class QueueOptions:
    """How much may wait, who goes first, and who gives way. None means no bound of that kind.

    `when_full`: "reject" the newcomer, or "evict_lower": the newest call of the lowest class below the newcomer's. One
    goes for one: where tokens are what is short, it is the newest of the lowest class in which that makes room enough.

    `tenants` are weights by name, 1 for those it does not name. `adaptive_lifo` gives, for each class that may turn to
    newest first, the time in seconds that a call of it usually has. A call is taken to need what `service_quantile` of
    the answers from the same routes stayed below.
    """

    max_queue_size: int = 1000
    max_per_class: Mapping[str, int] | None = None
    max_per_tenant: int | None = None
    max_tokens: float | None = None
    when_full: Literal["reject", "evict_lower"] = "reject"
    weights: Mapping[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    tenants: Mapping[str, float] = field(default_factory=dict)
    adaptive_lifo: Mapping[str, float] = field(default_factory=dict)
    service_quantile: float = 0.9

    def __post_init__(self) -> None:
        if self.max_queue_size < 1:
            raise ValueError("max_queue_size is at least 1")
        if set(self.weights) != set(CLASSES) or not all(weight > 0 for weight in self.weights.values()):
            raise ValueError(f"weights name {', '.join(CLASSES)}, each > 0")
        if not all(0 < weight < inf for weight in self.tenants.values()):
            raise ValueError("a tenant's weight is a number above 0")
        if not set(self.adaptive_lifo) <= set(CLASSES) or not all(time > 0 for time in self.adaptive_lifo.values()):
            raise ValueError(f"adaptive_lifo gives some of {', '.join(CLASSES)} a time above 0")
        if not 0 < self.service_quantile < 1:
            raise ValueError("service_quantile lies between 0 and 1")


@value(frozen=True, slots=True)
class Accepted:
    """The job waits. Keep `seq` for a restart. `evicted` had to go for it and must be told."""

    id: str
    seq: int
    evicted: Job | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """The job does not wait, or no longer.

    `reason`: full, class_full and tenant_full name the bound that was hit; expired, that its time is over; infeasible,
    that its time is shorter than such answers take; evicted, that it had to go for one of a higher class; restarted,
    that its place was lost with the queue's own memory; shutdown, that no more is sent.

    `retry_after` is how many seconds what waits now should take to drain, None where trying again cannot help.
    """

    id: str
    reason: Reason
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A queue as an operator sees it. `oldest_wait` is in seconds; the classes in `newest_first` have turned over."""

    enqueued: int
    processed: int
    failed: int
    rejected: int
    expired: int
    cancelled: int
    evicted: int
    depth: dict[str, int]
    in_process: int
    oldest_wait: float
    infeasible: int = 0
    newest_first: tuple[Klass, ...] = ()


class RequestQueue:
    """The calls that wait for a route. Not a mailbox: it decides order, bounds and deadlines, and runs nothing."""

    def __init__(self, options: QueueOptions, now: float) -> None:
        self._options = options
        self._classes = {name: _class(options, name) for name in CLASSES}
        self._virtual_time = 0.0
        self._entries: dict[str, Entry] = {}
        self._per_tenant: dict[str, int] = {}
        self._tokens = 0.0
        self._deadlines = Heap()
        self._overdue: list[Job] = []
        self._shed: list[Job] = []
        self._service = ServiceTimes(options.service_quantile)
        self._next_seq = self._next_number = 1
        self._is_closed = False
        self._in_process: dict[str, tuple[float, Job]] = {}
        self._drained_at = now
        self._was_backlogged = False
        self._seconds_per_job: float | None = None
        self._enqueued = self._processed = self._failed = self._rejected = 0
        self._expired = self._cancelled = self._evicted = self._infeasible = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._entries

    # -- in ------------------------------------------------------------------------------------------------

    def enqueue(self, job: Job, now: float) -> Accepted | Rejected:
        """Let `job` wait; a job that waits already keeps its place and is accepted again.

        One that brings its `seq` was let in before a restart: the bounds have been applied to it.
        """
        known = self._entries.get(job.id)
        if known is not None:
            return Accepted(job.id, known.order[1])
        if self._is_closed:
            return self._reject(job, "shutdown")
        if job.deadline <= now:
            return self._reject(job, "expired")
        if job.seq is not None:
            return Accepted(job.id, self._place(job))
        if self._entries and self._is_too_late(job, now):
            return self._reject(job, "infeasible")
        evicted = None
        refusal = self._bound_hit(job)
        if refusal == "full" and self._options.when_full == "evict_lower":
            evicted = self._evict_below(job)
        if refusal is not None and evicted is None:
            return self._reject(job, refusal)
        return Accepted(job.id, self._place(job), evicted)

    def _place(self, job: Job) -> int:
        seq = self._next_seq if job.seq is None else job.seq
        self._next_seq = max(self._next_seq, seq + 1)
        entry = Entry(job, (job.enqueued_at, seq), self._next_number)
        self._next_number += 1
        self._entries[job.id] = entry
        line = self._classes[job.klass]
        line.add(entry)
        if self._options.when_full == "evict_lower":
            line.newest.push(entry.newest_first, entry)
        if job.deadline < inf:
            self._deadlines.push(job.deadline, entry)
        self._per_tenant[job.tenant] = self._per_tenant.get(job.tenant, 0) + 1
        self._tokens += job.tokens
        self._enqueued += 1
        return seq

    def _bound_hit(self, job: Job) -> Literal["full", "class_full", "tenant_full"] | None:
        options = self._options
        if options.max_per_tenant is not None and self._per_tenant.get(job.tenant, 0) >= options.max_per_tenant:
            return "tenant_full"
        if options.max_per_class is not None:
            most = options.max_per_class.get(job.klass)
            if most is not None and self._classes[job.klass].depth >= most:
                return "class_full"
        if len(self._entries) >= options.max_queue_size:
            return "full"
        if options.max_tokens is not None and self._entries and self._tokens + job.tokens > options.max_tokens:
            return "full"
        return None

    def _evict_below(self, job: Job) -> Job | None:
        for name in reversed(CLASSES[CLASSES.index(job.klass) + 1 :]):
            entry = self._classes[name].newest.first()
            if entry is not None and self._fits_instead_of(entry.job, job):
                self._remove(entry)
                self._evicted += 1
                return entry.job
        return None

    def _fits_instead_of(self, old: Job, new: Job) -> bool:
        limit = self._options.max_tokens
        return limit is None or self._tokens - old.tokens + new.tokens <= limit

    def _is_too_late(self, job: Job, now: float) -> bool:
        """Whether `job` has less time left than such answers take, and others wait for one of its routes."""
        if job.deadline - now >= self._service.usual(job.routes, now):
            return False
        rivals = sum([line.waiting_for(job.routes) for line in self._classes.values()])
        return rivals > (job.id in self._entries)

    def _reject(self, job: Job, reason: Reason) -> Rejected:
        self._rejected += 1
        return self.refusal(job, reason)

    def refusal(self, job: Job, reason: Reason) -> Rejected:
        """What one hears who does not wait any more."""
        return Rejected(job.id, reason, None if reason in ("expired", "shutdown") else self.drain_seconds())

    # -- out -----------------------------------------------------------------------------------------------

    def dispatch(self, now: float, ready: Ready = None) -> Job | None:
        """Take out the job to send next, among those that have a ready route; None if there is none.

        `ready` tells which routes can take a job now: a set of them, or a question; None means all. A job past its
        deadline is never handed out; `expire` returns it. Nor is one, while others wait for its routes, that has less
        time left than nine in ten answers take: `take_shed` returns it.
        """
        while True:
            found = self._next(ready)
            if found is None:
                return None
            line, tenant, entry = found
            job = entry.job
            if job.deadline <= now:
                self._remove(entry)
                self._overdue.append(job)
                continue
            if len(self._entries) > 1 and self._is_too_late(job, now):
                self._remove(entry)
                self._shed.append(job)
                continue
            self._virtual_time = max(self._virtual_time, line.tag)
            line.tag = self._virtual_time + job.tokens / line.weight
            line.charge(tenant, job.tokens)
            line.note_wait(entry, now)
            self._remove(entry)
            self._in_process[job.id] = (now, job)
            self._note_drain(now)
            return job

    def done(self, job_id: str, ok: bool, now: float | None = None) -> bool:
        """A dispatched job has ended. False if it was not out, or has been reported before.

        `now`, where it is given, teaches how long an answer takes.
        """
        out = self._in_process.pop(job_id, None)
        if out is None:
            return False
        since, job = out
        if now is not None and ok:
            self._service.learn(job.routes, now - since, now)
        elif now is not None and now >= job.deadline:
            # It would have taken longer. Were only those counted that made it, the less time they are given the
            # quicker they would seem.
            self._service.learn(job.routes, CUT_SHORT * (now - since), now)
        self._processed += ok
        self._failed += not ok
        return True

    def cancel(self, job_id: str) -> bool:
        """Take a waiting job out; its room is free at once. False if it does not wait: dispatched, or gone."""
        entry = self._entries.get(job_id)
        if entry is None:
            return False
        self._remove(entry)
        self._cancelled += 1
        return True

    def expire(self, now: float) -> list[Job]:
        """Take out every job whose deadline has come. Each is returned once."""
        overdue, self._overdue = self._overdue, []
        while (entry := self._deadlines.first()) is not None and entry.job.deadline <= now:
            self._remove(entry)
            overdue.append(entry.job)
        self._expired += len(overdue)
        return overdue

    def take_shed(self) -> list[Job]:
        """Those that `dispatch` took out because their time will not do. Each is returned once."""
        shed, self._shed = self._shed, []
        self._infeasible += len(shed)
        return shed

    def close(self) -> list[Job]:
        """Take out all that waits, and refuse what comes from now on."""
        left = self.waiting()
        for job in left:
            self._remove(self._entries[job.id])
        self._cancelled += len(left)
        self._is_closed = True
        return left

    def next_deadline(self) -> float | None:
        """When `expire` has something to do next; None if no waiting job has a deadline."""
        if self._overdue:
            return min(job.deadline for job in self._overdue)
        entry = self._deadlines.first()
        return None if entry is None else entry.job.deadline

    # -- what others see -----------------------------------------------------------------------------------

    def drain_seconds(self) -> float:
        """How long what waits now should take to be dispatched, by the pace of the last dispatches."""
        pace = FIRST_DRAIN_GUESS if self._seconds_per_job is None else self._seconds_per_job * len(self._entries)
        return min(LONGEST_DRAIN_GUESS, max(0.0, pace))

    def stats(self, now: float) -> QueueStats:
        heads = [
            entry.job.enqueued_at
            for line in self._classes.values()
            for tenant in line.tenants.values()
            for lane in tenant.lanes.values()
            if (entry := lane.oldest.first()) is not None
        ]
        return QueueStats(
            enqueued=self._enqueued,
            processed=self._processed,
            failed=self._failed,
            rejected=self._rejected,
            expired=self._expired,
            cancelled=self._cancelled,
            evicted=self._evicted,
            depth={name: line.depth for name, line in self._classes.items()},
            in_process=len(self._in_process),
            oldest_wait=max(0.0, now - min(heads, default=now)),
            infeasible=self._infeasible,
            newest_first=tuple([name for name, line in self._classes.items() if line.lifo and line.lifo.is_on]),
        )

    def waiting(self) -> list[Job]:
        """All that waits, oldest first."""
        return [entry.job for entry in sorted(self._entries.values(), key=lambda entry: entry.order)]

    # -- within --------------------------------------------------------------------------------------------

    def _next(self, ready: Ready) -> tuple[FairClass, Tenant, Entry] | None:
        best: tuple[FairClass, Tenant, Entry] | None = None
        best_tag = inf
        for line in self._classes.values():
            if not line.depth:
                continue
            tag = max(line.tag, self._virtual_time)
            if tag >= best_tag:
                continue
            found = line.next_among([routes for routes in line.by_routes if _is_ready(routes, ready)])
            if found is not None:
                best, best_tag = (line, found[3], found[4]), tag
        return best

    def _remove(self, entry: Entry) -> None:
        job = entry.job
        del self._entries[job.id]
        self._classes[job.klass].remove(entry)
        self._tokens = self._tokens - job.tokens if self._entries else 0.0
        self._per_tenant[job.tenant] -= 1
        if not self._per_tenant[job.tenant]:
            del self._per_tenant[job.tenant]

    def _note_drain(self, now: float) -> None:
        """Learn the pace from dispatches between which jobs waited; an idle queue teaches nothing."""
        if self._was_backlogged:
            seconds, known = max(0.0, now - self._drained_at), self._seconds_per_job
            self._seconds_per_job = seconds if known is None else known + 0.05 * (seconds - known)
        self._drained_at = now
        self._was_backlogged = bool(self._entries)


def _class(options: QueueOptions, name: Klass) -> FairClass:
    timeout = options.adaptive_lifo.get(name)
    return FairClass(options.weights[name], options.tenants, None if timeout is None else AdaptiveLifo(timeout))


@dataclass(frozen=True, slots=True)
class ReadyRoutes:
    """Which routes can take a job: those with a slot; a blocked one only where all of a job's routes are.

    The slots of a route whose circuit is open stay free. If they counted, they would draw jobs out of the queue that
    then wait for other routes all the same, but no longer in their order, and for those alone.
    """

    has_slot: Callable[[str], bool]
    is_blocked: Callable[[str], bool]

    def among(self, routes: AbstractSet[str]) -> list[str]:
        able = [route for route in routes if not self.is_blocked(route)]
        return [route for route in (able or routes) if self.has_slot(route)]


def _is_ready(routes: frozenset[str], ready: Ready) -> bool:
    if ready is None or not routes:
        return True
    if isinstance(ready, ReadyRoutes):
        return bool(ready.among(routes))
    if callable(ready):
        return any(ready(route) for route in routes)
    return not routes.isdisjoint(ready)
