"""Start-time fair queueing: who among many is served next, so that each gets its share.

Every flow has a start tag; the flow with the least tag is served, and its tag grows by what it was served,
divided by its weight. A flow that was empty starts again at the current virtual time: it neither saves share
up nor owes any. This is deficit round robin with its quantum made vanishingly small: no rounds, no
quantum to tune, and nobody waits while a deficit builds up.

Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", 1996; Shreedhar and Varghese, "Efficient Fair Queuing
using Deficit Round Robin", 1995.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import Any, Literal

Klass = Literal["high", "normal", "low"]
CLASSES: tuple[Klass, ...] = ("high", "normal", "low")
ANYWHERE: frozenset[str] = frozenset()
"""The routes of a job that may go as soon as anybody asks."""


@dataclass(frozen=True, slots=True)
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
    """A job in its place. Out of the queue it stays behind as a tombstone until its heaps come across it."""

    __slots__ = ("alive", "job", "order")

    def __init__(self, job: Job, order: tuple[float, int]) -> None:
        self.job = job
        self.order = order
        self.alive = True


class Heap:
    """Entries by key, least first. Tombstones are swept out when they outnumber the living."""

    __slots__ = ("_items", "_swept_at")

    def __init__(self) -> None:
        self._items: list[tuple[Any, int, Entry]] = []
        self._swept_at = 64

    def push(self, key: Any, tie: int, entry: Entry) -> None:
        if len(self._items) >= self._swept_at:
            self._items = [item for item in self._items if item[2].alive]
            heapq.heapify(self._items)
            self._swept_at = 2 * len(self._items) + 64
        heapq.heappush(self._items, (key, tie, entry))

    def first(self) -> Entry | None:
        items = self._items
        while items:
            entry = items[0][2]
            if entry.alive:
                return entry
            heapq.heappop(items)
        return None


class Tenant:
    """One tenant of one class: its jobs by route set, and its start tag."""

    __slots__ = ("depth", "lanes", "name", "tag", "tie")

    def __init__(self, name: str, tag: float, tie: int) -> None:
        self.name = name
        self.tag = tag
        self.tie = tie
        self.depth = 0
        self.lanes: dict[frozenset[str], Heap] = {}


Found = tuple[float, int, tuple[float, int], Tenant, Entry]
"""A tenant's next job, in the order of service: start tag, tie, place among the tenant's own."""


class FairClass:
    """One class: tenants, and for each route set the tenants that have jobs for it, by start tag."""

    __slots__ = ("_in_debt", "_ties", "by_routes", "depth", "newest", "tag", "tenants", "virtual_time", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.tag = 0.0
        self.virtual_time = 0.0
        self.depth = 0
        self.tenants: dict[str, Tenant] = {}
        self.by_routes: dict[frozenset[str], list[tuple[float, int, Tenant]]] = {}
        self.newest = Heap()
        self._in_debt: list[tuple[float, int, Tenant]] = []
        self._ties = 0

    def add(self, entry: Entry) -> None:
        job = entry.job
        tenant = self.tenants.get(job.tenant)
        if tenant is None:
            self._ties += 1
            tenant = self.tenants[job.tenant] = Tenant(job.tenant, self.virtual_time, self._ties)
        lane = tenant.lanes.get(job.routes)
        if lane is None:
            lane = tenant.lanes[job.routes] = Heap()
            heapq.heappush(self.by_routes.setdefault(job.routes, []), (tenant.tag, tenant.tie, tenant))
        lane.push(entry.order, 0, entry)
        tenant.depth += 1
        self.depth += 1

    def remove(self, entry: Entry) -> None:
        entry.alive = False
        self.depth -= 1
        tenant = self.tenants[entry.job.tenant]
        tenant.depth -= 1
        if not self.depth:
            self._start_afresh()
        elif not tenant.depth:
            # One that comes back at once must not find its last job forgotten, or it would always be first.
            heapq.heappush(self._in_debt, (tenant.tag, tenant.tie, tenant))
            self._forget_who_is_even()

    def next_for(self, routes: frozenset[str]) -> Found | None:
        """Who is next among the tenants with jobs for `routes`."""
        tenants = self.by_routes.get(routes)
        while tenants:
            tag, tie, tenant = tenants[0]
            lane = tenant.lanes[routes]
            entry = lane.first()
            if entry is None:
                heapq.heappop(tenants)
                del tenant.lanes[routes]
            elif tag < tenant.tag:
                heapq.heapreplace(tenants, (tenant.tag, tie, tenant))
            else:
                return tag, tie, entry.order, tenant, entry
        self.by_routes.pop(routes, None)
        return None

    def next_among(self, route_sets: Iterable[frozenset[str]]) -> Found | None:
        """Who is next among the tenants with jobs for any of `route_sets`."""
        best: Found | None = None
        for routes in route_sets:
            found = self.next_for(routes)
            if found is not None and (best is None or found[:3] < best[:3]):
                best = found
        return best

    def charge(self, tenant: Tenant, tokens: float) -> None:
        self.virtual_time = max(self.virtual_time, tenant.tag)
        tenant.tag = self.virtual_time + tokens
        self._forget_who_is_even()

    def _forget_who_is_even(self) -> None:
        while self._in_debt and self._in_debt[0][0] <= self.virtual_time:
            tenant = heapq.heappop(self._in_debt)[2]
            if not tenant.depth and self.tenants.get(tenant.name) is tenant and tenant.tag <= self.virtual_time:
                del self.tenants[tenant.name]

    def _start_afresh(self) -> None:
        """Among none, none owes anything."""
        self.tenants.clear()
        self.by_routes.clear()
        self._in_debt.clear()
        self.virtual_time = 0.0
