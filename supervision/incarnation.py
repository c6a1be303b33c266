"""One life behind a name, from construction to its exit, on whichever host it runs.

The life is written once, as a coroutine. On an event loop it is a task; in a thread it is driven to its end
without ever being suspended, because there every wait blocks. Whatever happens in it, `_finish` is reached
and reports exactly one exit.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from inspect import iscoroutine
from threading import get_ident
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Protocol

import pykka
from pykka import messages
from pykka._introspection import get_attr_directly

from supervision import faults, waits
from supervision.child import IGNORE
from supervision.errors import ActorDeadError, ActorStuck
from supervision.exits import Abandoned, Crash, Exit, Killed, Normal, Reason, StartFailed
from supervision.mailbox import Envelope, Fenced
from supervision.message import Reply

if TYPE_CHECKING:
    from supervision.mailbox import Lease
    from supervision.name import Name

logger = logging.getLogger("supervision")

building: contextvars.ContextVar[Incarnation | None] = contextvars.ContextVar("supervision.building", default=None)
"""The incarnation that an actor under construction belongs to."""

MESSAGES_PER_TURN = 64
"""How many messages an actor handles before others on its loop get a turn."""


@dataclass(frozen=True, slots=True)
class StopOrder:
    """The supervisor's order to end; `drain` has the waiting messages handled first."""

    reason: Reason
    drain: bool = False


class Owner(Protocol):
    """Who started the incarnation and hears what becomes of it. Called on the incarnation's host."""

    def started(self, incarnation: Incarnation, info: Any) -> None: ...

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        """It has ended. Call `incarnation.release()` when its askers may hear of it."""

    def zombie_ended(self, incarnation: Incarnation) -> None:
        """The code of an abandoned incarnation has come to its end after all."""


@dataclass(slots=True)
class Context:
    """What an actor may know about its own life. `attempt` counts the restarts in a row."""

    name: str
    epoch: int
    clock: Any
    restart_reason: Reason | None = None
    attempt: int = 0
    snapshot: Any = None
    cancelled: bool = False


class Incarnation:
    """One life. Hosts subclass it with how to run, wait, and end by force."""

    kind = "?"

    def __init__(
        self,
        name: Name,
        make: Callable[[], pykka.Actor],
        owner: Owner,
        *,
        expected_errors: tuple[type[BaseException], ...] | None = None,
        restart_reason: Reason | None = None,
        attempt: int = 0,
        kill_grace: float = 1.0,
    ) -> None:
        name.epoch += 1
        self.name = name
        self.epoch = name.epoch
        self.lease: Lease = name.mailbox.grant(self.epoch)
        self.owner = owner
        self.actor: Any = None
        self.context = Context(name.path, self.epoch, name.clock, restart_reason, attempt, name.state_blob)
        self.state = "starting"
        self.started_at = name.now()
        self.current: Envelope | None = None
        self.busy_since = 0.0
        self.owed: set[Reply] = set()
        self.exit: Exit | None = None
        self.exit_asked: Reason | None = None
        self.at_end: dict[Any, Callable[[], object]] = {}
        self.links: dict[Any, Any] = {}
        self.kill_grace = kill_grace
        self._expected = expected_errors
        self._make = make
        self._stop_asks: list[Envelope] = []
        self._pending: list[tuple[Envelope, BaseException]] = []
        self._killed = False
        self._finish_lock = threading.Lock()
        name.incarnation = self

    # -- for hosts ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start living. Does not wait."""
        raise NotImplementedError

    async def _next(self) -> Any:
        """The next order or message; waits for it."""
        raise NotImplementedError

    async def _yield(self) -> None:
        """Let others have a turn."""

    def kill(self) -> None:
        """End it by force, from any thread; where that is impossible, abandon it."""
        raise NotImplementedError

    # -- the life ----------------------------------------------------------------------------------

    async def live(self) -> None:
        """The whole life. Raises nothing and reports one exit."""
        reason: Reason = Killed()
        try:
            reason = await self._live()
        except BaseException as error:  # the exit signal: whatever ended the life becomes its reason
            reason = self._reason_of(error)
        finally:
            if not self._finish(reason):
                self.owner.zombie_ended(self)

    async def _live(self) -> Reason:
        waits.current.set(self)
        try:
            if faults.armed:
                await faults.hit("before_start", self.name.path)
            actor: Any = self.actor or self._construct()
            self.actor = actor
            info = await self._call(actor.on_start)
            if faults.armed:
                await faults.hit("after_start", self.name.path)
        except BaseException as error:  # see live()
            return self._failed_to_start(error)
        if info is IGNORE:
            self.owner.ignored(self)
            return Normal()
        self.state = "running"
        self.owner.started(self, info)
        try:
            await self._call(actor.recover)
            reason = await self._receive()
        except Fenced:
            raise
        except BaseException as error:  # see live()
            return await self._fail(error)
        return await self._stop(reason)

    def _construct(self) -> pykka.Actor:
        token = building.set(self)
        try:
            actor = self._make()
        finally:
            building.reset(token)
        if not isinstance(actor, pykka.Actor):
            raise TypeError(f"the factory of {self.name.path} made {type(actor).__name__}, which is no pykka.Actor")
        if actor.__dict__.get("_incarnation") is not self:
            raise TypeError(f"{type(actor).__name__}.__init__ must call super().__init__()")
        return actor

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a hook or handler, plain or async."""
        result = function(*arguments)
        if iscoroutine(result):
            return await result
        return result

    async def _receive(self) -> Reason:
        """Handle one message at a time until there is a reason to end."""
        mailbox, lease, turn = self.name.mailbox, self.lease, 0
        while True:
            item = mailbox.take(lease)
            if item is None:
                turn = 0
                item = await self._next()
            if type(item) is not Envelope:
                if isinstance(item, StopOrder):
                    if item.drain:
                        await self._drain()
                    return item.reason
                continue
            if type(item.message) is messages._ActorStop:
                self._stop_asks.append(item)
                return Normal()
            await self._handle(item)
            if self.exit_asked is not None:
                return self.exit_asked
            turn += 1
            if turn >= MESSAGES_PER_TURN:
                turn = 0
                await self._yield()

    async def _drain(self) -> None:
        while (envelope := self.name.mailbox.take_user(self.lease)) is not None:
            if type(envelope.message) is messages._ActorStop:
                self._stop_asks.append(envelope)
            else:
                await self._handle(envelope)

    async def _handle(self, envelope: Envelope) -> None:
        """Handle one message and answer it. An exception that is not expected leaves here, and ends the life."""
        name, future = self.name, envelope.reply_to
        if envelope.deadline is not None and envelope.deadline < name.now():
            name.dead_letter(envelope, pykka.Timeout("the message waited past its deadline"))
            return
        if future is not None and (future.abandoned or future.done):
            future.settle(error=pykka.Timeout("nobody waited for the answer any more"))
            return
        envelope.deliveries += 1
        self.current = envelope
        self.busy_since = name.now()
        if faults.armed:
            await faults.hit("before_handle", name.path)
        try:
            result = self.actor._handle_receive(envelope.message)
            if type(result) is CoroutineType:
                result = await result
        except BaseException as error:
            if not self._is_expected(error, envelope.message):
                raise
            self._expected_failure(envelope, error)
            return
        if faults.armed:
            await faults.hit("after_handle_before_reply", name.path)
        name.handled += 1
        if self.current is envelope and future is not None and not future.settle(result):
            name.late += 1
        self.current = None

    def _is_expected(self, error: BaseException, message: Any) -> bool:
        expected = self._expected if self._expected is not None else getattr(self.actor, "expected_errors", ())
        if expected and isinstance(error, expected):
            return True
        return isinstance(error, AttributeError) and _asks_for_nothing(self.actor, message)

    def _expected_failure(self, envelope: Envelope, error: BaseException) -> None:
        self.current = None
        self.name.failed += 1
        if envelope.reply_to is None:
            logger.warning("%s: expected error for a message nobody waits for: %r", self.name.path, error)
        else:
            envelope.reply_to.settle(error=error)

    def owe(self) -> Reply:
        """Take the reply slot of the message at hand."""
        envelope = self.current
        if envelope is None:
            raise RuntimeError(f"{self.name.path}: owe() is for a handler, while it handles a message")
        reply = Reply(self, envelope)
        self.owed.add(reply)
        self.current = Envelope(envelope.message)
        return reply

    # -- the end -----------------------------------------------------------------------------------

    def _reason_of(self, error: BaseException) -> Reason:
        if self._killed or isinstance(error, Fenced):
            return Killed()
        return Crash.of(error)

    def _failed_to_start(self, error: BaseException) -> Reason:
        self.name.failed += 1
        reason = getattr(error, "exit_reason", None) or self._reason_of(error)
        if isinstance(reason, Crash) and self.actor is not None:
            self._leave_registry()
        return StartFailed(reason)

    async def _fail(self, error: BaseException) -> Reason:
        """A handler raised: the actor ends. `on_failure` is its last word, and may fail too."""
        reason = self._reason_of(error)
        self.state = "stopping"
        self._leave_registry()
        if isinstance(reason, Killed):
            return reason
        self.name.failed += 1
        if self.current is not None:
            answer = error if isinstance(error, Exception) else ActorDeadError(self.name.path, reason)
            self._pending.append((self.current, answer))
            self.current = None
        try:
            await self._call(self.actor.on_failure, type(error), error, error.__traceback__)
        except BaseException as second:  # the crash before it is what counts
            logger.warning("%s: on_failure failed: %r", self.name.path, second)
        return reason

    async def _stop(self, reason: Reason) -> Reason:
        self.state = "stopping"
        self._leave_registry()
        try:
            if faults.armed:
                await faults.hit("in_on_stop", self.name.path)
            await self._call(self.actor.on_stop)
        except BaseException as error:  # see live()
            self._handle_standalone_failure()
            return self._reason_of(error)
        return reason

    def _leave_registry(self) -> None:
        pykka.ActorRegistry.unregister(self.name.ref)
        if self.actor is not None:
            self.actor.actor_stopped.set()

    def _handle_standalone_failure(self) -> None:
        logger.debug("%s: on_stop failed", self.name.path, exc_info=sys.exc_info())

    def _finish(self, reason: Reason) -> bool:
        """Report the exit, once. False if that has been done, by an abandonment."""
        with self._finish_lock:
            if self.exit is not None:
                return False
            name = self.name
            self.exit = Exit(name.path, self.epoch, reason, name.now())
        self.state = "ended"
        name.mailbox.revoke(self.lease)
        if self.actor is not None:
            self._leave_registry()
        self._settle_in_flight(reason)
        for callback in list(self.at_end.values()):
            callback()
        self.at_end.clear()
        if name.incarnation is self:
            name.incarnation = None
        self.owner.ended(self, self.exit)
        name.report_exit(self.exit)
        return True

    def _settle_in_flight(self, reason: Reason) -> None:
        """Decide what becomes of the message at hand and of the replies still owed."""
        name = self.name
        dead: BaseException = ActorDeadError(name.path, reason)
        if isinstance(reason, Abandoned):
            dead = ActorStuck(name.path, reason)
        if self.current is not None:
            self._pending.append((self.current, dead))
            self.current = None
        keep = []
        for envelope, error in self._pending:
            if envelope.deliveries and envelope.deliveries <= name.mailbox.spec.redeliver:
                name.mailbox.put_back(envelope)
            else:
                keep.append((envelope, error))
        self._pending = keep
        for envelope in self._stop_asks:
            if envelope.reply_to is not None:
                envelope.reply_to.settle(None)

    @property
    def has_pending(self) -> bool:
        """True while somebody waits to hear of the end."""
        return bool(self._pending or self.owed)

    def release(self) -> None:
        """Let those hear of the end who waited for an answer. Idempotent."""
        pending, self._pending = self._pending, []
        for envelope, error in pending:
            self.name.dead_letter(envelope, error)
        reason = self.exit.reason if self.exit is not None else Killed()
        owed, self.owed = self.owed, set()
        for reply in owed:
            reply.default(ActorDeadError(self.name.path, reason))

    def order_stop(self, reason: Reason, *, drain: bool = False) -> None:
        """Ask it, from any thread, to end after the message at hand."""
        self.name.mailbox.put_control(StopOrder(reason, drain))

    def abandon(self, kind: str) -> None:
        """Leave it behind: fenced off, its exit reported, its code maybe still running."""
        if self._finish(Abandoned(kind)):
            self.context.cancelled = True


def _asks_for_nothing(actor: pykka.Actor, message: Any) -> bool:
    """True for a proxy's message that names an attribute which the actor does not have."""
    if not isinstance(message, messages.ProxyCall | messages.ProxyGetAttr):
        return False
    try:
        get_attr_directly(actor, message.attr_path)
    except AttributeError:
        return True
    return False


class LoopIncarnation(Incarnation):
    """A life as a task on a scheduler's loop."""

    kind = "loop"

    def __init__(self, *arguments: Any, scheduler: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scheduler = scheduler
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        if not self.scheduler.post(self._begin):
            self._finish(StartFailed(Crash("SystemClosed", "the scheduler has ended")))

    def _begin(self) -> None:
        # A context of its own: what the starter had set there is not the actor's business.
        if self.exit is None:
            task = self.scheduler.loop.create_task(self.live(), name=self.name.path, context=contextvars.Context())
            self._task = task
            if self._killed:
                task.cancel()

    async def _next(self) -> Any:
        loop, mailbox, lease = self.scheduler.loop, self.name.mailbox, self.lease
        while True:
            waiter = loop.create_future()
            item = mailbox.take(lease, (loop, waiter))
            if item is not None:
                return item
            await waiter

    async def _yield(self) -> None:
        await asyncio.sleep(0)

    def kill(self) -> None:
        self._killed = True
        self.context.cancelled = True
        if not self.scheduler.post(self._cancel):
            self.abandon("scheduler ended")

    def _cancel(self) -> None:
        if self.exit is not None:
            return
        if self._task is None:
            self._finish(Killed())
            return
        self._task.cancel()
        self.scheduler.loop.call_later(self.kill_grace, self.abandon, "ignored its cancellation")


_thread_numbers: dict[str, int] = {}


class ThreadIncarnation(Incarnation):
    """A life in a daemon thread of its own, where it may block."""

    kind = "thread"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.thread: threading.Thread | None = None

    def begin(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"supervision-actor-{self.name.path}", daemon=True)
        try:
            self.thread.start()
        except RuntimeError as error:  # the machine has no more threads to give
            self._finish(StartFailed(Crash.of(error)))

    def _run(self) -> None:
        life = self.live()
        with contextlib.suppress(StopIteration):
            life.send(None)  # runs to the end: in a thread nothing suspends

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    async def _next(self) -> Any:
        mailbox, lease = self.name.mailbox, self.lease
        gate = threading.Lock()
        gate.acquire()
        while True:
            item = mailbox.take(lease, (None, gate.release))
            if item is not None:
                return item
            gate.acquire()

    def kill(self) -> None:
        self._killed = True
        self.context.cancelled = True
        self.abandon("a thread cannot be killed")

    @property
    def is_running(self) -> bool:
        """True while the code may still run, fenced off or not."""
        return self.thread is not None and self.thread.is_alive() and self.thread.ident != get_ident()
