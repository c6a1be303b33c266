"""Lets calls wait for their turn, by class and tenant, until a route has a free slot for them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import supervision as sup
from rubberduck.core.bookings import Bookings, Limits
from rubberduck.core.request_queue import (
    CLASSES,
    Accepted,
    Job,
    Klass,
    QueueOptions,
    QueueStats,
    ReadyRoutes,
    Reason,
    Rejected,
    RequestQueue,
)
from rubberduck.core.values import value
from rubberduck.errors import InvalidRequest

LOOK_EVERY = 0.25
"""Seconds after which a limiter is looked at that has not told of a change: a new incarnation knows of no watcher."""
PULLED = frozenset({"*pulled*"})
"""The routes of jobs that wait for ProcessNext: no route's slot moves them."""


@dataclass(frozen=True, slots=True)
class Enqueue(sup.Ask[Accepted | Rejected]):
    """Let a request wait until somebody asks for it with ProcessNext."""

    request: Any
    priority: Klass = "normal"
    tenant: str = ""
    tokens: float = 1.0
    deadline: float = inf


@dataclass(frozen=True, slots=True)
class Queued:
    """A request handed out by ProcessNext."""

    id: str
    request: Any
    priority: Klass


@dataclass(frozen=True, slots=True)
class ProcessNext(sup.Ask[Queued | None]):
    """The next request that was enqueued, or None."""


@value(frozen=True, slots=True)
class TakeTurn(sup.Ask["Turn | Rejected"]):
    """Wait until one of `job.routes` has a free slot. Repeating it keeps the place."""

    job: Job


@value(frozen=True, slots=True)
class Turn:
    """Go. A slot of `route` is held until Done, or until Moved takes it elsewhere.

    `place` is how many waited already when it came.
    """

    id: str
    route: str
    waited: float
    place: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Moved(sup.Ask[None]):
    """The call of this id uses `route` now."""

    id: str
    route: str


@value(frozen=True, slots=True)
class Done(sup.Ask[None]):
    """The call of this id has ended."""

    id: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Cancel(sup.Ask[bool]):
    """Take a waiting job out."""

    id: str


@dataclass(frozen=True, slots=True)
class Stats(sup.Ask[QueueStats]):
    """How many wait, and what became of the others."""


@dataclass(frozen=True, slots=True)
class Close(sup.Ask[int]):
    """Turn away all who wait and whoever comes from now on, for the reason shutdown. The reply is how many waited."""


@dataclass(slots=True)
class _Waiter:
    """A call that waits: `seq` and `since` are its place. After a restart nobody listens until it asks again."""

    job: Job
    seq: int
    since: float
    place: int
    reply: sup.Reply | None


@dataclass(frozen=True, slots=True)
class _Expire:
    """A deadline has come."""

    at: float


@dataclass(frozen=True, slots=True)
class _Look:
    """Somebody was held back for the sake of who went before; that may be over."""

    is_timer: bool = False


class RequestQueueActor(sup.Actor):
    """Lets calls wait by class and tenant until a route can take them.

    Why an actor: one order for all calls, whichever thread they come from.
    Asks: no one. Restart: who waits, slots in use and requests to be pulled are remembered with their places; calls
    that wait ask again, and hear what has become of them meanwhile. The numbers of Stats begin anew, and so does what
    was learned of times. A crash over ProcessNext loses the request that it was about to hand out: it is handed out at
    most once. A message that it does not know, or cannot use, is answered with InvalidRequest.

    `slots_of` tells how many calls a route takes at once; it is asked anew each time. `is_blocked` tells of a route
    that would refuse any call now: its free slots do not count for calls that can go elsewhere. Of `limits` it reads
    whether somebody waits for those of a route: then all others for that route wait here, in their order.
    """

    expected_errors = (InvalidRequest,)

    def __init__(
        self,
        options: QueueOptions,
        slots_of: Callable[[str], int],
        is_blocked: Callable[[str], bool] = lambda _: False,
        limits: Limits | None = None,
    ) -> None:
        super().__init__()
        self._limits = limits
        self._held_back: frozenset[str] = frozenset()
        self._is_looking = False
        self._ready = ReadyRoutes(self._has_slot, is_blocked)
        self._options = options
        self._slots_of = slots_of
        self._pulled: dict[str, tuple[Enqueue, Job]] = {}
        self._waiting: dict[str, _Waiter] = {}
        self._unheard: dict[str, Rejected] = {}
        self._expire_at: float | None = None
        self._ids = itertools.count(1)

    def on_start(self) -> None:
        self._queue = RequestQueue(self._options, self.context.clock.now())
        self._bookings = None if self._limits is None else Bookings(self._limits)
        self._holders: dict[str, str] = {}
        if self.context.snapshot is not None:
            self._holders, pulled, waiting, self._unheard, self._ids = self.context.snapshot
            self._put_back(pulled, waiting, self.context.clock.now())
        self._in_use = Counter(self._holders.values())
        self.remember((self._holders, self._pulled, self._waiting, self._unheard, self._ids))

    def _put_back(self, pulled: dict[str, tuple[Enqueue, Job]], waiting: dict[str, _Waiter], now: float) -> None:
        """All who waited, at their old places. Whose time is over meanwhile hears it when it asks again."""
        for id, entry in pulled.items():
            if isinstance(self._queue.enqueue(entry[1], now), Accepted):
                self._pulled[id] = entry
        for id, waiter in waiting.items():
            if id not in self._holders:
                job = replace(waiter.job, seq=waiter.seq)
                if isinstance(self._queue.enqueue(job, now), Accepted):
                    self._waiting[id] = _Waiter(job, waiter.seq, waiter.since, waiter.place, None)
        self._wake_at_deadline(now)

    def on_receive(self, message: Any) -> Any:
        now = self.context.clock.now()
        match message:
            case TakeTurn(job=job):
                return self._take_turn(job, now)
            case Done(id=id, ok=ok):
                self._unheard.pop(id, None)
                self._release(id)
                self._queue.done(id, ok, now)
                self._dispatch(now)
            case Moved(id=id, route=route):
                self._release(id)
                self._hold(id, route)
                self._dispatch(now)
            case Cancel(id=id):
                return self._cancel(id)
            case Enqueue():
                return self._enqueue(f"queued-{next(self._ids)}", message, now)
            case ProcessNext():
                return self._process_next(now)
            case Stats():
                return self._queue.stats(now)
            case Close():
                return self._close()
            case _Look(is_timer=is_timer):
                self._is_looking = self._is_looking and not is_timer
                self._dispatch(now)
            case _Expire(at=at):
                if self._expire_at == at:
                    self._expire_at = None
                self._expire(now)
            case _:
                raise InvalidRequest(f"a request queue does not understand {type(message).__name__}")
        return None

    # -- calls, which are told when it is their turn -----------------------------------------------

    def _take_turn(self, job: Job, now: float) -> Any:
        if job.id in self._holders:
            return Turn(job.id, self._holders[job.id], 0.0)
        if job.id in self._unheard:
            return self._unheard.pop(job.id)
        if self._bookings is not None and job.id not in self._queue and self._bookings.is_hopeless(job, now):
            # It would be over before the limiter lets it go. There it hears so at once, and when it could.
            self._hold(job.id, min(job.routes))
            return Turn(job.id, self._holders[job.id], 0.0)
        answer = self._queue.enqueue(job, now)
        if isinstance(answer, Rejected):
            return answer
        if answer.evicted is not None:
            self._turn_away(answer.evicted, "evicted")
        reply = self.owe()
        known = self._waiting.get(job.id)
        if known is not None:
            known.reply = reply
        else:
            self._waiting[job.id] = _Waiter(job, answer.seq, now, len(self._waiting), reply)
        self._dispatch(now)
        self._wake_at_deadline(now)
        return reply

    def _dispatch(self, now: float) -> None:
        """Hand out turns as long as somebody who waits could use a free slot."""
        while self._waiting and (job := self._queue.dispatch(now, self._ready)) is not None:
            waiter = self._waiting[job.id]
            if waiter.reply is not None and not waiter.reply.is_wanted:
                del self._waiting[job.id]
                self._queue.done(job.id, False)
                continue
            if len(job.routes) == 1:
                (route,) = job.routes
            else:
                route = min(self._ready.among(job.routes), key=self._in_use.__getitem__)
            # At each moment it is known to wait or to hold a slot: a crash between the two must not lose it.
            self._hold(job.id, route)
            del self._waiting[job.id]
            if self._bookings is not None:
                self._bookings.left(job, route, now)
            if waiter.reply is not None:  # else it will ask again, and hear of the slot that it holds
                waiter.reply.set(Turn(job.id, route, now - waiter.since, waiter.place))
        self._turn_away_shed()
        if self._held_back:
            self._look_again()

    def _has_slot(self, route: str) -> bool:
        if route in PULLED or self._in_use[route] >= self._slots_of(route):
            return False
        if self._bookings is None or self._bookings.is_open(route, self.context.clock.now()):
            return True
        self._held_back |= {route}
        return False

    def _look_again(self) -> None:
        """When a limiter has heard of those who went, or let one of them go; or after a while, should it not tell."""
        held_back, self._held_back = self._held_back, frozenset()
        if self._bookings is not None:
            self._bookings.watch(held_back, self._wake)
        if not self._is_looking:
            self._is_looking = True
            self.send_after(self.actor_ref, _Look(is_timer=True), LOOK_EVERY)

    def _wake(self) -> None:
        with suppress(sup.ActorDeadError):
            self.actor_ref.tell(_Look())

    def _hold(self, id: str, route: str) -> None:
        if id not in self._holders:
            self._holders[id] = route
            self._in_use[route] += 1

    def _release(self, id: str) -> None:
        route = self._holders.pop(id, None)
        if route is not None:
            if self._bookings is not None:
                self._bookings.forget(id, route)
            self._in_use[route] -= 1
            if not self._in_use[route]:
                del self._in_use[route]

    def _cancel(self, id: str) -> bool:
        self._pulled.pop(id, None)
        self._waiting.pop(id, None)
        self._unheard.pop(id, None)
        return bool(self._queue.cancel(id))

    def _close(self) -> int:
        left = self._queue.close()
        for job in left:
            self._turn_away(job, "shutdown")
        return len(left)

    def _turn_away_shed(self) -> None:
        """Their time will not do: they hear it now, not when it is over."""
        for job in self._queue.take_shed():
            self._turn_away(job, "infeasible")

    def _turn_away(self, job: Job, reason: Reason) -> None:
        """It does not wait any more: whoever waits for it must hear of it, if only when it asks again."""
        self._pulled.pop(job.id, None)
        waiter = self._waiting.pop(job.id, None)
        if waiter is None:
            return
        refusal = self._queue.refusal(job, reason)
        if waiter.reply is not None:
            waiter.reply.set(refusal)
        else:
            self._unheard[job.id] = refusal

    # -- deadlines ---------------------------------------------------------------------------------

    def _expire(self, now: float) -> None:
        for job in self._queue.expire(now):
            self._turn_away(job, "expired")
        self._wake_at_deadline(now)

    def _wake_at_deadline(self, now: float) -> None:
        at = self._queue.next_deadline() if self._waiting or self._pulled else None
        if at is not None and (self._expire_at is None or at < self._expire_at):
            self._expire_at = at
            self.send_after(self.actor_ref, _Expire(at), max(0.0, at - now))

    # -- requests that wait to be asked for --------------------------------------------------------

    def _enqueue(self, id: str, message: Enqueue, now: float) -> Accepted | Rejected:
        if message.priority not in CLASSES or not message.tokens > 0:
            raise InvalidRequest(
                f"priority is one of {', '.join(CLASSES)} and tokens above 0, "
                f"not {message.priority!r} and {message.tokens!r}"
            )
        job = Job(id, message.priority, message.tenant, message.tokens, PULLED, message.deadline, enqueued_at=now)
        answer = self._queue.enqueue(job, now)
        if isinstance(answer, Accepted):
            if answer.evicted is not None:
                self._turn_away(answer.evicted, "evicted")
            self._pulled[id] = message, replace(job, seq=answer.seq)
            self._wake_at_deadline(now)
        return answer

    def _process_next(self, now: float) -> Queued | None:
        job = self._queue.dispatch(now, PULLED)
        self._turn_away_shed()
        if job is None:
            return None
        message, _ = self._pulled.pop(job.id)
        self._queue.done(job.id, True)
        return Queued(job.id, message.request, message.priority)
