"""Start-time fair queueing: who among many is served next, so that each gets its share.

Every flow has a start tag; the flow with the least tag is served, and its tag grows by what it was served,
divided by its weight. A flow that was empty starts again at the current virtual time: it neither saves share
up nor owes any. This is deficit round robin with its quantum made vanishingly small: no rounds, no
quantum to tune, and nobody waits while a deficit builds up. A job that is larger than what the others are charged
meanwhile keeps its place at the head until its turn comes.

Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", 1996; Shreedhar and Varghese, "Efficient Fair Queuing
using Deficit Round Robin", 1995.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Literal

from rubberduck.core.adaptive_lifo import AdaptiveLifo
from rubberduck.core.values import value

Klass = Literal["high", "normal", "low"]
CLASSES: tuple[Klass, ...] = ("high", "normal", "low")
ANYWHERE: frozenset[str] = frozenset()
"""The routes of a job that may go as soon as anybody asks."""
MOST_DEBTORS = 10_000
"""So many tenants without a job are remembered for what they owe; beyond, who owes least is forgiven. As long as new
ones keep coming, each served at once, nobody's debt is ever paid."""


@value(frozen=True, slots=True)
class Job:
    """A call that waits. Times are monotonic seconds; `tokens` is the estimate it is charged with.

    `routes` are those that could take it; empty means any. A job enqueued again after a restart brings its old
    `enqueued_at` and `seq` and with them its old place; a new one leaves `seq` None.
    """

    id: str
    klass: Klass = "normal"
    tenant: str = ""
    tokens: float = 1.0
    routes: frozenset[str] = ANYWHERE
    deadline: float = inf
    enqueued_at: float = 0.0
    seq: int | None = None


class Entry:
    """A job in its place. Out of the queue it stays behind as a tombstone until its heaps come across it.

    `number` is another for each entry, so that no two are ever equal in a heap.
    """

    __slots__ = ("alive", "job", "number", "order")

    def __init__(self, job: Job, order: tuple[float, int], number: int) -> None:
        self.job = job
        self.order = order
        self.number = number
        self.alive = True

    @property
    def newest_first(self) -> tuple[float, int]:
        """The reverse of `order`."""
        return -self.order[0], -self.order[1]


class Heap:
    """Entries by key, least first. Tombstones are swept out when they outnumber the living."""

    __slots__ = ("_items", "_swept_at")

    def __init__(self) -> None:
        self._items: list[tuple[Any, int, Entry]] = []
        self._swept_at = 64

    def push(self, key: Any, entry: Entry) -> None:
        if len(self._items) >= self._swept_at:
            self._items = [item for item in self._items if item[2].alive]
            heapq.heapify(self._items)
            self._swept_at = 2 * len(self._items) + 64
        heapq.heappush(self._items, (key, entry.number, entry))

    def first(self) -> Entry | None:
        items = self._items
        while items:
            entry = items[0][2]
            if entry.alive:
                return entry
            heapq.heappop(items)
        return None


class Lane:
    """One tenant's jobs for one set of routes; from the newest on, too, where that may be asked for."""

    __slots__ = ("depth", "newest", "oldest")

    def __init__(self, may_turn: bool) -> None:
        self.oldest = Heap()
        self.newest = Heap() if may_turn else None
        self.depth = 0

    def add(self, entry: Entry) -> None:
        self.oldest.push(entry.order, entry)
        if self.newest is not None:
            self.newest.push(entry.newest_first, entry)
        self.depth += 1


class Tenant:
    """One tenant of one class: its jobs by route set, and its start tag."""

    __slots__ = ("depth", "is_in_debt", "lanes", "name", "tag", "tie", "weight")

    def __init__(self, name: str, weight: float, tag: float, tie: int) -> None:
        self.name = name
        self.weight = weight
        self.tag = tag
        self.tie = tie
        self.depth = 0
        self.is_in_debt = False
        self.lanes: dict[frozenset[str], Lane] = {}


class Queuers:
    """The tenants of one class that have jobs for one set of routes, by start tag; `depth` is how many jobs."""

    __slots__ = ("_heap", "_routes", "_swept_at", "depth")

    def __init__(self, routes: frozenset[str]) -> None:
        self._routes = routes
        self._heap: list[tuple[float, int, Tenant]] = []
        self._swept_at = 64
        self.depth = 0

    def add(self, tenant: Tenant) -> None:
        """A tenant has a job for them again. What it left here before may still be about."""
        if len(self._heap) >= self._swept_at:
            present = {tie: tenant for _, tie, tenant in self._heap if self._routes in tenant.lanes}
            self._heap = [(tenant.tag, tie, tenant) for tie, tenant in present.items()]
            heapq.heapify(self._heap)
            self._swept_at = 2 * len(self._heap) + 64
        heapq.heappush(self._heap, (tenant.tag, tenant.tie, tenant))

    def first(self) -> Tenant:
        """The one with the least tag. There is one: nobody asks where no job is."""
        heap = self._heap
        while True:
            tag, tie, tenant = heap[0]
            if self._routes not in tenant.lanes:
                heapq.heappop(heap)
            elif tag < tenant.tag:
                heapq.heapreplace(heap, (tenant.tag, tie, tenant))
            else:
                return tenant


Found = tuple[float, int, tuple[float, int], Tenant, Entry]
"""A tenant's next job, in the order of service: start tag, tie, place among the tenant's own."""


class FairClass:
    """One class: tenants, and for each route set the tenants that have jobs for it.

    `weights` are those of tenants by name, 1 where it says nothing. With `lifo` it may turn to newest first.
    """

    __slots__ = (
        "_in_debt",
        "_oldest",
        "_ties",
        "_weights",
        "by_routes",
        "depth",
        "lifo",
        "newest",
        "tag",
        "tenants",
        "virtual_time",
        "weight",
    )

    def __init__(self, weight: float, weights: Mapping[str, float], lifo: AdaptiveLifo | None = None) -> None:
        self.weight = weight
        self.lifo = lifo
        self.tag = 0.0
        self.virtual_time = 0.0
        self.depth = 0
        self.tenants: dict[str, Tenant] = {}
        self.by_routes: dict[frozenset[str], Queuers] = {}
        self.newest = Heap()
        self._oldest = Heap()
        self._weights = weights
        self._in_debt: list[tuple[float, int, Tenant]] = []
        self._ties = 0

    def add(self, entry: Entry) -> None:
        job = entry.job
        tenant = self.tenants.get(job.tenant)
        if tenant is None:
            tenant = self._arrives(job.tenant)
        queuers = self.by_routes.get(job.routes)
        if queuers is None:
            queuers = self.by_routes[job.routes] = Queuers(job.routes)
        lane = tenant.lanes.get(job.routes)
        if lane is None:
            lane = tenant.lanes[job.routes] = Lane(self.lifo is not None)
            queuers.add(tenant)
        lane.add(entry)
        if self.lifo is not None:
            self._oldest.push(entry.order, entry)
        tenant.depth += 1
        queuers.depth += 1
        self.depth += 1

    def _arrives(self, name: str) -> Tenant:
        self._ties += 1
        tenant = self.tenants[name] = Tenant(name, self._weights.get(name, 1.0), self.virtual_time, self._ties)
        return tenant

    def remove(self, entry: Entry) -> None:
        entry.alive = False
        self.depth -= 1
        if not self.depth:
            self._start_afresh()
            return
        routes = entry.job.routes
        tenant = self.tenants[entry.job.tenant]
        lane, queuers = tenant.lanes[routes], self.by_routes[routes]
        lane.depth -= 1
        if not lane.depth:
            del tenant.lanes[routes]
        queuers.depth -= 1
        if not queuers.depth:
            del self.by_routes[routes]
        tenant.depth -= 1
        if not tenant.depth:
            # One that comes back at once must not find its last job forgotten, or it would always be first.
            self._note_debt(tenant)
            self._forget_who_is_even()

    def next_among(self, route_sets: Iterable[frozenset[str]]) -> Found | None:
        """Who is next among the tenants with jobs for any of `route_sets`."""
        best: Found | None = None
        is_turned = self.lifo is not None and self.lifo.is_on
        for routes in route_sets:
            tenant = self.by_routes[routes].first()
            lane = tenant.lanes[routes]
            entry = lane.newest.first() if is_turned and lane.newest is not None else lane.oldest.first()
            assert entry is not None  # a lane without a job is taken away with its last one
            place = entry.newest_first if is_turned else entry.order
            if best is None or (tenant.tag, tenant.tie, place) < best[:3]:
                best = tenant.tag, tenant.tie, place, tenant, entry
        return best

    def waiting_for(self, routes: frozenset[str]) -> int:
        """How many jobs could take one of `routes`."""
        queuers = self.by_routes.items()
        return sum([each.depth for own, each in queuers if not own or not routes or not own.isdisjoint(routes)])

    def charge(self, tenant: Tenant, tokens: float) -> None:
        self.virtual_time = max(self.virtual_time, tenant.tag)
        tenant.tag = self.virtual_time + tokens / tenant.weight
        if self._in_debt:
            self._forget_who_is_even()

    def note_wait(self, entry: Entry, now: float) -> None:
        """One goes. Once the newest go first, how long these wait says nothing; the oldest still tells."""
        if self.lifo is not None:
            oldest = self._oldest.first() if self.lifo.is_on else None
            self.lifo.waited(now - (oldest or entry).job.enqueued_at, now)

    def _note_debt(self, tenant: Tenant) -> None:
        if not tenant.is_in_debt:
            tenant.is_in_debt = True
            heapq.heappush(self._in_debt, (tenant.tag, tenant.tie, tenant))

    def _forget_who_is_even(self) -> None:
        in_debt = self._in_debt
        while in_debt and (in_debt[0][0] <= self.virtual_time or len(in_debt) > MOST_DEBTORS):
            tenant = heapq.heappop(in_debt)[2]
            tenant.is_in_debt = False
            if not tenant.depth:
                del self.tenants[tenant.name]

    def _start_afresh(self) -> None:
        """Among none, none owes anything."""
        self.tenants.clear()
        self.by_routes.clear()
        self._in_debt.clear()
        self.virtual_time = 0.0
        if self.lifo is not None:
            self.lifo.reset()
