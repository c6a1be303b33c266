"""An address in the tree, and the ref that points to it: what stays when an incarnation goes."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
import weakref
from typing import TYPE_CHECKING, Any, cast

import pykka
from pykka.messages import _ActorStop

from supervision.errors import ActorDeadError, BlockingInScheduler, MailboxFull
from supervision.exits import Exit, ForkLost, NoProc
from supervision.future import AskFuture
from supervision.mailbox import Envelope, Mailbox
from supervision.scheduler import on_scheduler_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervision.child import Mailbox as MailboxSpec
    from supervision.incarnation import Incarnation
    from supervision.system import System

logger = logging.getLogger("supervision")

_live_names: weakref.WeakSet[Name] = weakref.WeakSet()


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
        clock: Any = None,
        system: System | None = None,
    ) -> None:
        self.path = path
        self.system = system
        self.urn = uuid.uuid4().urn
        self.actor_class = actor_class
        self.clock = clock
        self.mailbox = Mailbox(self, mailbox)
        self.epoch = 0
        self.incarnation: Incarnation | None = None
        self.never_started_event = threading.Event()
        self.last_exit: Exit | None = None
        self.restarts = 0
        self.handled = 0
        self.failed = 0
        self.late = 0
        self.dead_letters = 0
        self.waiting: list[AskFuture[Any]] = []
        self.state_blob: Any = None
        self.monitors: dict[int, Callable[[Exit], object]] = {}
        self.ref: ActorRef = getattr(actor_class, "ref_class", ActorRef)(self)
        _live_names.add(self)

    def now(self) -> float:
        return cast("float", self.clock.now()) if self.clock is not None else time.monotonic()

    @property
    def is_open(self) -> bool:
        return self.mailbox.closed is None

    # -- messages that nobody will handle ----------------------------------------------------------

    def dead_letter(self, envelope: Envelope, error: BaseException) -> None:
        """Nobody will handle this message: answer who asks, count what was told."""
        if envelope.reply_to is not None:
            if type(envelope.message) is _ActorStop and isinstance(error, pykka.ActorDeadError):
                envelope.reply_to.settle(None)
            else:
                envelope.reply_to.settle(error=error)
            return
        self.dead_letters += 1
        if self.system is not None:
            self.system.dead_letter(self.path, envelope.message)

    def close(self, reason: Any) -> None:
        """End this address: what waits is answered, what comes is refused. A later `open` revives it."""
        for envelope in self.mailbox.close(reason):
            self.dead_letter(envelope, ActorDeadError(self.path, reason))

    # -- ends ----------------------------------------------------------------------------------------

    def on_exit(self, token: int, callback: Callable[[Exit], object]) -> bool:
        """Have `callback` called with the exit of the present incarnation. False if there is none."""
        if self.incarnation is None or self.incarnation.exit is not None:
            return False
        self.monitors[token] = callback
        return True

    def report_exit(self, exit: Exit) -> None:
        self.last_exit = exit
        callbacks, self.monitors = self.monitors, {}
        for callback in callbacks.values():
            callback(exit)


class ActorRef(pykka.ActorRef[Any]):
    """A handle on a name. It stays valid when the actor behind the name is replaced.

    It is a Pykka ref: `ask`, `tell`, `stop`, `proxy`, `is_alive`. Between a crash and the restart messages
    wait; `is_alive` is True as long as messages are accepted.
    """

    def __init__(self, name: Name) -> None:
        # Not the base's __init__: it would hold on to one incarnation.
        self._name = name
        self.actor_class = name.actor_class
        self.actor_urn = name.urn
        self.actor_inbox = name.mailbox

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
        return f"{self.actor_class.__name__} ({self._name.path})"

    def is_alive(self) -> bool:
        return self._name.is_open

    def tell(self, message: Any) -> None:
        """Send a message and expect nothing. Raises ActorDeadError if the name is closed."""
        name = self._name
        envelope = Envelope(message)
        try:
            name.mailbox.put(envelope)
        except MailboxFull as full:  # the sender never crashes for the receiver's sake
            name.dead_letter(envelope, full)
        except ActorDeadError:
            name.dead_letters += 1
            if name.system is not None:
                name.system.dead_letter(name.path, message)
            raise

    def ask(self, message: Any, *, block: bool = True, timeout: float | None = None) -> Any:
        """Send a message and get its reply, or with `block=False` an AskFuture of it.

        `timeout` (seconds) is the message's deadline too: past it, it is not handled any more.
        """
        name = self._name
        future: AskFuture[Any] = AskFuture(name)
        if timeout is None:
            envelope = Envelope(message, future)
        else:
            envelope = Envelope(message, future, name.now() + timeout)
        try:
            name.mailbox.put(envelope)
        except (ActorDeadError, MailboxFull) as error:
            future.settle(error=error)
        if not block:
            if timeout is not None and name.clock is not None:
                _arm_timeout(name, future, timeout)
            return future
        if not future.done and on_scheduler_thread():
            raise BlockingInScheduler(f"asking {name.path} would block this scheduler: use block=False, and await")
        try:
            return future.get(timeout=timeout)
        except pykka.Timeout:
            future.abandon()  # nobody else has this future
            raise

    async def send(self, message: Any) -> None:
        """As `tell`, in a coroutine: with the policy `block` it waits there for room, not the thread."""
        loop = asyncio.get_running_loop()
        while (room := self._name.mailbox.wait_for_room(loop)) is not None:
            await room
        self.tell(message)

    def proxy(self) -> Any:
        """A Pykka proxy; for a supervised actor one that survives restarts."""
        from supervision.proxy import NamedProxy

        if self._name.system is None:
            return pykka.ActorProxy(actor_ref=self)
        return NamedProxy(self)


def _arm_timeout(name: Name, future: AskFuture[Any], timeout: float) -> None:
    timer = name.clock.call_at(name.now() + timeout, lambda: future.settle(error=pykka.Timeout(f"{timeout} seconds")))
    future.on_done(timer.cancel)


def no_proc(path: str, at: float) -> Exit:
    """The exit of somebody who was not there."""
    return Exit(path, 0, NoProc(), at)


def _lose_all_after_fork() -> None:
    for name in list(_live_names):
        name.mailbox.after_fork(ForkLost())


import os  # noqa: E402  (only for the hook below)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
