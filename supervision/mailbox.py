"""The queue of messages that belongs to a name, whoever lives behind it at the moment.

An incarnation takes messages under a `Lease`. Once its lease is revoked it gets nothing more, whatever it
still does: that is what makes a replacement safe while the old code may still run.

Two lanes: *control* (orders of the supervisor; never bounded, never dropped, overtakes) and *user*.
"""

from __future__ import annotations

import threading
from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import pykka
from pykka._envelope import Envelope as PykkaEnvelope
from pykka.messages import _ActorStop

from supervision import faults
from supervision.errors import MailboxFull
from supervision.future import wake
from supervision.hosting.driving import wait_for
from supervision.specs.child import Block
from supervision.specs.child import Mailbox as MailboxSpec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from supervision.future import AskFuture
    from supervision.name import Name


DEFAULT: Final = MailboxSpec()
"""What a mailbox is like where nobody says anything else."""

_NONE_YET: Final[Any] = ()
"""Stands for the two queues that most mailboxes never use: an empty deque takes 600 bytes."""

Waiter = tuple["asyncio.AbstractEventLoop | None", Any, int]
"""Who sleeps, see `future.wake`: a future of a loop, with the loop and its thread; or None, a callable, and 0."""


class Envelope(PykkaEnvelope[Any]):
    """A message on its way. `sent_at` and `deadline` are times of the system's clock, 0 where not known.

    `deliveries` counts how often it was taken.
    """

    __slots__ = ("deadline", "deliveries", "sent_at")

    reply_to: AskFuture[Any] | None

    def __init__(self, message: Any, reply_to: AskFuture[Any] | None = None, deadline: float | None = None) -> None:
        self.message = message
        self.reply_to = reply_to
        self.deadline = deadline
        self.deliveries = 0
        self.sent_at = 0.0

    @property
    def is_stop(self) -> bool:
        return type(self.message) is _ActorStop


class Fenced(BaseException):
    """An incarnation whose lease was revoked tried to take a message. Internal; ends that incarnation."""


class Lease:
    """The right of one incarnation to take messages."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


class Mailbox:
    """Messages waiting under one name. `put`, `close` and leases share one lock, so none falls between.

    Nothing is woken or answered under the lock: what that calls may put a message here.
    """

    def __init__(self, name: Name, spec: MailboxSpec | None = None) -> None:
        self.spec = spec or DEFAULT
        # Reentrant: a signal handler, or what the garbage collector calls, may put a message here in the middle.
        self.lock = threading.RLock()
        self._name = name
        self._control: deque[Any] = _NONE_YET
        self._user: deque[Envelope] = deque()
        self._waiter: Waiter | None = None
        self._room: deque[Waiter] = _NONE_YET
        self.lease: Lease | None = None
        self.closed: Any = None

    # -- senders -----------------------------------------------------------------------------------

    def put(self, envelope: Any) -> None:
        """Add a message; what a full mailbox does is its policy.

        Raises:
            ActorDeadError: the name is closed.
            MailboxFull: by the policies `fail` and `drop_new`, and `block` once its time is over. On an event
                loop `block` does not wait: `await ref.send(message)` does.
        """
        if not isinstance(envelope, Envelope):
            envelope = Envelope(envelope.message, envelope.reply_to)
        if faults.armed and faults.takes(self._name, envelope):
            return
        envelope.sent_at = self._name.now()
        waiter = None
        with self.lock:
            if self.closed is not None:
                raise self._name.dead_error(self.closed)
            is_full = len(self._user) >= self.spec.capacity and type(envelope.message) is not _ActorStop
            if not is_full:
                self._user.append(envelope)
                waiter, self._waiter = self._waiter, None
        if is_full:
            self._overflow(envelope)
        elif waiter is not None:
            wake(*waiter)

    def _overflow(self, envelope: Envelope) -> None:
        policy = self.spec.overflow
        if policy == "drop_old":
            self._put_for_oldest(envelope)
        elif isinstance(policy, Block) and _get_running_loop() is None:
            self._put_within(envelope, policy.timeout)
        else:
            raise self.full()

    def full(self) -> MailboxFull:
        """The error of a message for which there was no room."""
        return MailboxFull(f"{self._name.path} has {len(self._user)} messages waiting, its capacity")

    def _put_for_oldest(self, envelope: Envelope) -> None:
        with self.lock:
            if self.closed is not None:  # since it was found to be full
                raise self._name.dead_error(self.closed)
            oldest = next((each for each in list(self._user) if not each.is_stop), None)
            if oldest is not None:
                self._user.remove(oldest)
            self._user.append(envelope)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)
        if oldest is not None:
            self._name.dead_letter(oldest, MailboxFull(f"{self._name.path}: dropped as the oldest message"))

    def _put_within(self, envelope: Envelope, timeout: float) -> None:
        """Block this plain thread until there is room, at most `timeout` seconds of the name's clock."""
        woken, over = threading.Event(), threading.Event()
        entry = (None, woken.set, 0)

        def end_the_wait() -> None:
            over.set()
            woken.set()

        alarm = self._name.clock.call_at(self._name.now() + timeout, end_the_wait)
        try:
            while not self.put_or_queue(envelope, entry):
                wait_for(woken, self._name.system)
                woken.clear()
                if over.is_set():
                    self.leave_queue(entry)
                    raise self.full()
        finally:
            alarm.cancel()

    def put_or_queue(self, envelope: Envelope, entry: Waiter) -> bool:
        """Add a message if there is room; else have `entry`, a waiter as in `take`, woken when there may be."""
        with self.lock:
            if self.closed is not None:
                raise self._name.dead_error(self.closed)
            if len(self._user) >= self.spec.capacity:
                self._room = self._room or deque()
                self._room.append(entry)
                return False
            self._user.append(envelope)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)
        return True

    def leave_queue(self, entry: Waiter) -> None:
        """Who waited for room has given up; had it just been woken, the next in line is woken in its place."""
        with self.lock:
            if entry in self._room:
                self._room.remove(entry)
                return
            following = self._room.popleft() if self._room else None
        if following is not None:
            wake(*following)

    def put_order(self, lease: Lease, order: Any) -> None:
        """Add an order for the holder of `lease`; it overtakes all messages. Nothing happens if it has ended."""
        with self.lock:
            if lease is not self.lease:
                return
            self._control = self._control or deque()
            self._control.append(order)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)

    def put_signal(self, lease: Lease, message: Any, is_wanted: Callable[[], bool] | None = None) -> None:
        """Add a message of the runtime for the holder of `lease`, in its turn but beyond any capacity.

        `is_wanted` has the last word, under the lock: no message that is not wanted can come in behind `remove`.
        """
        with self.lock:
            if lease is not self.lease or (is_wanted is not None and not is_wanted()):
                return
            self._user.append(Envelope(message))
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)

    # -- the incarnation ---------------------------------------------------------------------------

    def take(self, lease: Lease, waiter: Waiter | None = None) -> Any:
        """The next order or message, or None. With None, `waiter` is woken when there is one."""
        with self.lock:
            if lease is not self.lease:
                raise Fenced
            if self._control:
                return self._control.popleft()
            if not self._user:
                self._waiter = waiter
                return None
            envelope = self._user.popleft()
            if not self._room:
                return envelope
            room = self._room.popleft()
        wake(*room)
        return envelope

    def take_order(self, lease: Lease, waiter: Waiter) -> Any:
        """The next order, or None, without regard to messages; `waiter` as in `take`."""
        with self.lock:
            if lease is not self.lease:
                raise Fenced
            if self._control:
                return self._control.popleft()
            self._waiter = waiter
            return None

    def take_message(self, lease: Lease) -> Envelope | None:
        """The next message without regard to orders: for draining before the end."""
        with self.lock:
            if lease is not self.lease or not self._user:
                return None
            return self._user.popleft()

    def put_back(self, envelope: Envelope) -> bool:
        """Put a message that was taken back to the head. False if the name has been closed."""
        with self.lock:
            if self.closed is not None:
                return False
            self._user.appendleft(envelope)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)
        return True

    def remove(self, is_unwanted: Callable[[Any], bool]) -> None:
        """Take out the waiting tells that `is_unwanted` says of, as if they had never been sent."""
        with self.lock:
            for each in list(self._user):
                if each.reply_to is None and is_unwanted(each.message):
                    self._user.remove(each)

    # -- the name's owner --------------------------------------------------------------------------

    def grant(self, epoch: int) -> Lease:
        """Let a new incarnation take messages, and only it. Orders meant for an earlier one are forgotten."""
        with self.lock:
            self.lease = Lease(epoch)
            self._control = _NONE_YET
            self._waiter = None
            return self.lease

    def revoke(self, lease: Lease) -> None:
        """End this lease, if it is the present one, and wake its holder so that it learns of it."""
        with self.lock:
            if self.lease is not lease:
                return
            self.lease = None
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake(*waiter)

    def reopen(self) -> None:
        with self.lock:
            self.closed = None

    def close(self, reason: Any) -> list[Envelope]:
        """Refuse all messages from now on. Returns those that had been waiting."""
        return self._empty(reason)

    def drop_waiting(self) -> list[Envelope]:
        """Take all waiting messages out; the mailbox stays open."""
        return self._empty(None)

    def _empty(self, reason: Any) -> list[Envelope]:
        fresh: deque[Envelope] = deque()
        with self.lock:
            self.closed = reason or self.closed
            left, self._user = self._user, fresh
            room, self._room = self._room, _NONE_YET
        for entry in room:
            wake(*entry)
        return list(left)

    def after_fork(self, reason: Any) -> list[Envelope]:
        """In the child of a fork nobody will ever take a message. The lock may be held by a thread that is gone."""
        self.lock = threading.RLock()
        self.lease = self._waiter = None
        self._room = self._control = _NONE_YET
        return self._empty(reason)

    # -- looking -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._user)

    def oldest(self) -> Envelope | None:
        """The message that has waited longest, or None."""
        with self.lock:
            return self._user[0] if self._user else None

    def empty(self) -> bool:
        """Part of Pykka's protocol: True, so that a Pykka teardown can never drain what belongs to the name."""
        return True

    def get(self) -> Any:
        """Part of Pykka's protocol, and not for users: only the incarnation takes messages."""
        raise pykka.ActorDeadError(f"messages of {self._name.path} are taken by its incarnation only")
