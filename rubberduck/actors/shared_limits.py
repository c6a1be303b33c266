"""Sees that the limiters of this process have leases of the limits that they share with other processes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import supervision as sup
from rubberduck import telemetry
from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Outcome, Rejected, State
from rubberduck.core.bucket import Meter, TokenBucket
from rubberduck.core.configured import Sharing
from rubberduck.core.leases import BEAT, LeasedMeter
from rubberduck.core.shared_limit import SharedLimit
from rubberduck.storage.shared import SharedLimits, SharedLimitsUnavailable
from rubberduck.telemetry import names as events

logger = logging.getLogger("rubberduck")
R = TypeVar("R")

CALL_LIMIT = 0.02
"""Seconds that the store has for an answer."""
CONNECT_LIMIT = 1.0
"""Seconds that a connection may take to be made, which no decision waits for."""
BREAKER = BreakerOptions(failure_threshold=3, reset_timeout=1.0, success_threshold=1)


@dataclass(frozen=True, slots=True)
class Refill:
    """The limit of this name is short on leases."""

    name: str


@dataclass(frozen=True, slots=True)
class _Beat:
    """Time to be seen, and to give back what was not needed."""

    number: int


class Leases:
    """The leases of this process by the names of their limits, whichever limiter or asker lives. Of the actors' loop.

    `keys` tells for each provider how all nodes know its keys: by what they are, for each may list them differently.
    """

    def __init__(
        self, open_store: Callable[[], SharedLimits], *, keys: dict[str, tuple[str, ...]], least_nodes: int = 1
    ) -> None:
        self.open_store = open_store
        self.store: SharedLimits | None = None
        self.is_lost = False
        self.meters: dict[str, LeasedMeter] = {}
        self._keys = keys
        self._least_nodes = least_nodes
        self._refilled: dict[str, Callable[[], object]] = {}
        self.asker: sup.ActorRef | None = None

    def of(self, provider: str, key: int, refilled: Callable[[], object]) -> Sharing:
        """What makes the meters of one limiter; `refilled` is called when it should look again who may go."""
        known = self._keys.get(provider, ())
        prefix = f"{provider}:{known[key] if key < len(known) else key}"

        def share(unit: str, own: Meter) -> Meter:
            rate = own.refill_rate if isinstance(own, TokenBucket) else 0.0
            limit = SharedLimit(f"{prefix}:{'bucket' if rate else 'minute'}:{unit}", own.most, rate)
            meter = LeasedMeter(limit, own, lambda: self._wake(limit.name), least_nodes=self._least_nodes)
            self.meters[limit.name], self._refilled[limit.name] = meter, refilled
            return meter

        return share

    def _wake(self, name: str) -> None:
        if self.asker is not None:
            with contextlib.suppress(sup.ActorDeadError):  # the system is being stopped
                self.asker.tell(Refill(name))

    def tell_refilled(self, names: Iterable[str]) -> None:
        """Have those look again who wait for these limits, each limiter once."""
        for refilled in dict.fromkeys(self._refilled[name] for name in names):
            with contextlib.suppress(sup.ActorDeadError):  # the system is being stopped
                refilled()


def fingerprint(secret: str) -> str:
    """A name for a key that all nodes agree on and that tells nobody the key."""
    return hashlib.sha256(secret.encode()).hexdigest()[:16]


class SharedLimitsActor(sup.Actor):
    """Asks the store of shared limits: ahead of need, with little time, and not while it does not answer.

    Why an actor: the limiters must never wait for the store. Asks: no one of ours. Restart: connects anew; leases stay
    with their meters, and what was asked for just then is charged and not used.
    """

    def __init__(self, leases: Leases) -> None:
        super().__init__()
        self._leases = leases
        self._number = 0
        self._why = ""

    async def on_start(self) -> None:
        self._breaker = CircuitBreaker(BREAKER, self.context.clock.now(), random.Random())
        if self._leases.store is not None:
            await self._close(self._leases.store)
        self._leases.store = self._store = self._leases.open_store()
        if not await self._connected():
            self._lose()
        self._leases.asker = self.actor_ref
        self.actor_ref.tell(_Beat(0))

    async def on_stop(self) -> None:
        with contextlib.suppress(TimeoutError, SharedLimitsUnavailable):
            async with asyncio.timeout(5 * CALL_LIMIT):
                for meter in [] if self._leases.is_lost else self._leases.meters.values():
                    for slice, amount in meter.give_back(self.context.clock.now(), everything=True):
                        await self._store.release(meter.limit, slice, amount)
                await self._store.leave()
        await self._close(self._store)

    async def on_receive(self, message: Any) -> None:
        match message:
            case Refill(name=name):
                await self._exchange(name)
            case _Beat(number=number) if number == self._number:
                self._number += 1
                for name in list(self._leases.meters):
                    await self._give_back(name)
                    await self._exchange(name)
                self.send_after(self.actor_ref, _Beat(self._number), BEAT)

    # -- one question --------------------------------------------------------------------------------------

    async def _exchange(self, name: str) -> None:
        meter, sent_at = self._leases.meters[name], self.context.clock.now()
        permit = self._breaker.acquire(sent_at)
        if isinstance(permit, Rejected):
            self._lose()
            meter.failed(sent_at)
            return
        told = None
        ask = meter.ask(sent_at)
        if not self._leases.is_lost or await self._connected():
            sent_at = self.context.clock.now()
            outcome, told = await self._answer_of(self._store.take(meter.limit, ask))
        else:
            outcome = Outcome.FAILURE
        now = self.context.clock.now()
        self._breaker.settle(permit, outcome, now)
        if told is not None:
            meter.answered(ask, told, sent_at, now)
            self._find(told.nodes)
        else:
            meter.failed(now)
            if self._breaker.state(now) is not State.CLOSED:
                self._lose()
        self._leases.tell_refilled([name])

    async def _give_back(self, name: str) -> None:
        meter = self._leases.meters[name]
        for slice, amount in meter.give_back(self.context.clock.now()):
            if not self._leases.is_lost:  # never twice: a lost answer may have been a yes
                await self._answer_of(self._store.release(meter.limit, slice, amount))

    async def _answer_of(self, asking: Awaitable[R]) -> tuple[Outcome, R | None]:
        """How it went, in the breaker's terms. Where our own loop was late, that says nothing about the store."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(CALL_LIMIT):
                return Outcome.SUCCESS, await asking
        except SharedLimitsUnavailable as error:
            self._why = str(error)
            return Outcome.FAILURE, None
        except TimeoutError:
            self._why = f"silent for {CALL_LIMIT * 1000:.0f} ms"
            was_stalled = loop.time() - begun > 5 * CALL_LIMIT
            return Outcome.IGNORED if was_stalled else Outcome.FAILURE, None

    async def _connected(self) -> bool:
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await self._store.connect()
        except (SharedLimitsUnavailable, TimeoutError) as error:
            self._why = str(error) or "no connection"
            return False
        return True

    async def _close(self, store: SharedLimits) -> None:
        try:
            async with asyncio.timeout(5 * CALL_LIMIT):
                await store.aclose()
        except Exception as error:  # noqa: BLE001  (of a loop that is gone: nothing more can be done for it)
            logger.debug("the former store of shared limits could not be closed: %r", error)

    # -- away and back -------------------------------------------------------------------------------------

    def _lose(self) -> None:
        """Every limiter goes on with its share; the first time it is told."""
        now = self.context.clock.now()
        here = [name for name, meter in self._leases.meters.items() if not meter.is_away]
        for name in here:
            self._leases.meters[name].lost(now)
        self._leases.tell_refilled(here)
        if not self._leases.is_lost:
            self._leases.is_lost = True
            text = "the store of shared limits does not answer (%s): each node goes on with its share of four fifths"
            logger.error(text, self._why)
            telemetry.execute(events.SHARED_LIMITS_LOST, {}, {"system": self._system})

    def _find(self, nodes: int) -> None:
        if self._leases.is_lost:
            self._leases.is_lost = False
            logger.warning("the store of shared limits answers again; nodes: %d", nodes)
            telemetry.execute(events.SHARED_LIMITS_FOUND, {"nodes": nodes}, {"system": self._system})

    @property
    def _system(self) -> str:
        system = self.actor_ref.name.system
        return "" if system is None else system.name
