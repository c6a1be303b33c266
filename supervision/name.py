"""An address in the tree, and the ref that points to it: what stays when an incarnation goes."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import uuid
import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

import pykka
from pykka import messages

from supervision.clock import Clock, RealClock, TimeLimit
from supervision.errors import ActorDeadError, BlockingInScheduler, DeadlockError, MailboxFull
from supervision.exits import Exit, ForkLost, NoProc
from supervision.future import AskFuture
from supervision.hosting.scheduler import on_scheduler_thread
from supervision.mailbox import Envelope, Mailbox
from supervision.specs import validation
from supervision.specs.child import Block
from supervision.waiting import waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervision.incarnation import Incarnation
    from supervision.monitors import NameWatch
    from supervision.specs.child import Mailbox as MailboxSpec
    from supervision.state.keeping import Keeper
    from supervision.system import System

logger = logging.getLogger("supervision")

_live_names: weakref.WeakSet[Name] = weakref.WeakSet()
_count_lock = threading.RLock()  # reentrant, as that of a mailbox


class Name:
    """One address, its mailbox, its counters, and the incarnation behind it, if there is one now.

    `clock` is what deadlines are measured by. `system` is None for an actor that was started outside any.
    """

    def __init__(
        self,
        path: str,
        actor_class: type[pykka.Actor],
        mailbox: MailboxSpec | None = None,
        *,
        clock: Clock,
        system: System | None = None,
    ) -> None:
        self.path = path
        self.system = system
        self._urn: str | None = None
        self.actor_class = actor_class
        self.clock = clock
        self.now = clock.now
        self.mailbox = Mailbox(self, mailbox)
        self.epoch = 0
        self.incarnation: Incarnation | None = None
        self.last_exit: Exit | None = None
        self.restarts = 0
        self.handled = 0
        self.failed = 0
        self.late = 0
        self.dead_letters = 0
        self.watchers: dict[int, NameWatch] = {}
        self.at_close: dict[Any, Callable[[], object]] = {}
        self.keeper: Keeper | None = None
        self.ref: ActorRef = getattr(actor_class, "ref_class", ActorRef)(self)
        _live_names.add(self)

    @property
    def urn(self) -> str:
        """What Pykka's users know an actor by; made for who asks, since few do and it costs a system call."""
        if self._urn is None:
            with _count_lock:
                self._urn = self._urn or uuid.uuid4().urn
        return self._urn

    @functools.cached_property
    def never_started_event(self) -> threading.Event:
        """Stands for the `actor_stopped` of an actor that is not there."""
        return threading.Event()

    @property
    def is_open(self) -> bool:
        return self.mailbox.closed is None

    def dead_error(self, reason: Any) -> ActorDeadError:
        """What a sender hears once the name is closed; outside a tree in Pykka's words."""
        error = ActorDeadError(self.path, reason)
        if self.system is None:
            error.args = (f"{self.ref} not found",)
        return error

    def is_made_by(self, actor_class: type[pykka.Actor]) -> None:
        """The class that really runs here, which a factory does not tell before."""
        self.actor_class = self.ref.actor_class = actor_class

    # -- messages that nobody will handle ----------------------------------------------------------

    def dead_letter(self, envelope: Envelope, error: BaseException) -> None:
        """Nobody will handle this message: answer who asks, count what was told."""
        if envelope.reply_to is None:
            self.count_dead_letter(envelope.message)
        elif envelope.is_stop and isinstance(error, pykka.ActorDeadError):
            envelope.reply_to.settle(None)
        else:
            envelope.reply_to.settle(error=error)

    def count_dead_letter(self, message: Any) -> None:
        if type(message) is messages._ActorStop:
            return  # a wish that has come true
        with _count_lock:
            self.dead_letters += 1
        if self.system is not None:
            self.system.dead_letter(self.path, message)

    def close(self, reason: Any) -> None:
        """End this address: what waits is answered, what comes is refused. A later `reopen` revives it."""
        for envelope in self.mailbox.close(reason):
            self.dead_letter(envelope, ActorDeadError(self.path, reason))
        at_close, self.at_close = self.at_close, {}
        for cleanup in list(at_close.values()):
            cleanup()

    def when_closed(self, token: Any, cleanup: Callable[[], object]) -> None:
        """Have `cleanup` called when this address is closed; at once if it is."""
        self.at_close[token] = cleanup
        if not self.is_open:
            self.at_close.pop(token, None)
            cleanup()

    def after_fork(self) -> None:
        """In the child of a fork: whoever was behind this name is in the other process."""
        incarnation, self.incarnation = self.incarnation, None
        self.last_exit = Exit(self.path, self.epoch, ForkLost(), self.now())
        waiting = self.mailbox.after_fork(ForkLost())
        if incarnation is not None:
            waiting += incarnation.unanswered()
        for envelope in waiting:
            if envelope.reply_to is not None:
                envelope.reply_to.after_fork(ActorDeadError(self.path, ForkLost()))


class ActorRef(pykka.ActorRef[Any]):
    """A handle on a name. It stays valid when the actor behind the name is replaced.

    It is a Pykka ref: `ask`, `tell`, `stop`, `proxy`, `is_alive`. Between a crash and the restart messages
    wait; `is_alive` is True as long as messages are accepted.
    """

    def __init__(self, name: Name) -> None:
        # Not the base's __init__: it would hold on to one incarnation.
        self._name = name
        self.actor_class = name.actor_class
        self.actor_inbox = name.mailbox

    @property
    def actor_urn(self) -> str:  # type: ignore[override]  # it is made when it is asked for
        return self._name.urn

    @property
    def path(self) -> str:
        """The address in the tree."""
        return self._name.path

    @property
    def name(self) -> Name:
        return self._name

    @property
    def _actor_weakref(self) -> Any:  # type: ignore[override]  # it changes with the incarnation
        """Pykka's proxies look at the actor through this."""
        incarnation = self._name.incarnation
        return lambda: None if incarnation is None else incarnation.actor

    @property
    def actor_stopped(self) -> threading.Event:  # type: ignore[override]  # as above
        incarnation = self._name.incarnation
        if incarnation is None or incarnation.actor is None:
            return self._name.never_started_event
        return cast("threading.Event", incarnation.actor.actor_stopped)

    def __repr__(self) -> str:
        return f"<ActorRef for {self}>"

    def __str__(self) -> str:
        where = self.actor_urn if self._name.system is None else self._name.path
        return f"{self.actor_class.__name__} ({where})"

    def is_alive(self) -> bool:
        name = self._name
        if name.system is not None or not name.is_open:
            return name.is_open
        incarnation = name.incarnation  # outside a tree nobody follows: it is as dead as if it were gone
        return incarnation is not None and incarnation.state in ("starting", "running")

    def tell(self, message: Any) -> None:
        """Send a message and expect nothing. Raises ActorDeadError if the name is closed."""
        name = self._name
        envelope = Envelope(message)
        try:
            name.mailbox.put(envelope)
        except MailboxFull as full:  # the sender never crashes for the receiver's sake
            name.dead_letter(envelope, full)
        except ActorDeadError:
            name.count_dead_letter(message)
            raise

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and get its reply, or with `block=False` an AskFuture of it.

        `timeout` (seconds) is the message's deadline too: past it, it is not handled any more.

        Raises:
            BlockingInScheduler: blocking here would stop every actor of this thread; nothing has been sent.
            DeadlockError: blocking here would wait for the asker itself; nothing has been sent.
            SpecError: the timeout is no number of seconds; nothing has been sent.
        """
        if timeout is not None:
            timeout = validation.timeout(timeout, "ask(timeout)")
        if block:
            return self._ask_blocking(message, timeout)
        name = self._name
        future: AskFuture[Any] = AskFuture(name)
        if timeout is None:
            self._put(Envelope(message, future))
        else:
            self._put(Envelope(message, future, name.now() + timeout))
            if not future.done:
                _arm_timeout(name, future, timeout)
        return future

    def _put(self, envelope: Envelope) -> None:
        try:
            self._name.mailbox.put(envelope)
        except (ActorDeadError, MailboxFull) as error:
            assert envelope.reply_to is not None
            envelope.reply_to.settle(error=error)

    def _ask_blocking(self, message: Any, timeout: float | None) -> Any:
        name = self._name
        if name.is_open:
            self._refuse_to_block()
        future: AskFuture[Any] = AskFuture(name)
        self._put(Envelope(message, future, None if timeout is None else name.now() + timeout))
        if timeout is not None and not isinstance(name.clock, RealClock):
            # Time is what the injected clock says, also for who waits.
            _arm_timeout(name, future, timeout)
            timeout = None
        try:
            return future.get(timeout=timeout)
        except pykka.Timeout:
            future.abandon()  # nobody else has this future
            raise

    def _refuse_to_block(self) -> None:
        turn = waits.current.get()
        if turn is not None and turn.incarnation.name is self._name and not turn.is_over:
            raise DeadlockError(f"{self.path} waits for itself")
        if on_scheduler_thread():
            raise BlockingInScheduler(f"asking {self.path} would block this scheduler: use block=False, and await")

    async def send(self, message: Any) -> None:
        """As `tell`, in a coroutine: with the policy `block` it waits there for room, not the thread."""
        mailbox, policy = self._name.mailbox, self._name.mailbox.spec.overflow
        if not isinstance(policy, Block) or len(mailbox) < mailbox.spec.capacity:
            self.tell(message)
            return
        envelope = Envelope(message)
        try:
            async with TimeLimit(self._name.clock, self._name.now() + policy.timeout):
                await _put_when_there_is_room(mailbox, envelope)
        except TimeoutError:
            self._name.dead_letter(envelope, mailbox.full())
        except ActorDeadError:
            self._name.count_dead_letter(message)
            raise

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        """Have the actor end when it has handled what waits already. True once it has, False if it was dead."""
        timeout = validation.timeout(timeout, "stop(timeout)")
        answer: AskFuture[Any] = self.ask(messages._ActorStop(), block=False)

        def was_alive(timeout: float | None) -> bool:
            try:
                answer.get(timeout=timeout)
            except pykka.ActorDeadError:
                return False
            return True

        async def await_was_alive() -> bool:
            try:
                await answer
            except pykka.ActorDeadError:
                return False
            return True

        stopped = answer.derive(was_alive, await_was_alive)
        return stopped.get(timeout=timeout) if block else stopped

    def proxy(self) -> Any:
        """A Pykka proxy; for a supervised actor one that survives restarts."""
        from supervision.proxy import NamedProxy

        if self._name.system is None:
            return pykka.ActorProxy(actor_ref=self)
        return NamedProxy(self)


async def _put_when_there_is_room(mailbox: Mailbox, envelope: Envelope) -> None:
    loop = asyncio.get_running_loop()
    while True:
        room = loop.create_future()
        waiter = (loop, room, get_ident())
        if mailbox.put_or_queue(envelope, waiter):
            return
        try:
            await room
        except asyncio.CancelledError:
            mailbox.leave_queue(waiter)
            raise


def _arm_timeout(name: Name, future: AskFuture[Any], timeout: float) -> None:
    timer = name.clock.call_at(name.now() + timeout, lambda: future.expire(pykka.Timeout(f"{timeout} seconds")))
    future.on_done(timer.cancel)


def no_proc(path: str, at: float) -> Exit:
    """The exit of somebody who was not there."""
    return Exit(path, 0, NoProc(), at)


def _lose_all_after_fork() -> None:
    global _count_lock
    _count_lock = threading.RLock()
    pykka.ActorRegistry._actor_refs_lock = threading.RLock()
    for ref in pykka.ActorRegistry.get_all():
        if isinstance(ref, ActorRef):
            pykka.ActorRegistry.unregister(ref)
    for name in list(_live_names):
        name.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
