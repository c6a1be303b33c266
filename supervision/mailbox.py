"""The queue of messages that belongs to a name, whoever lives behind it at the moment.

An incarnation takes messages under a `Lease`. Once its lease is revoked it gets nothing more, whatever it
still does: that is what makes a replacement safe while the old code may still run.

Two lanes: *control* (orders of the supervisor; never bounded, never dropped, overtakes) and *user*.
"""

from __future__ import annotations

import time
from _thread import allocate_lock
from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Any

import pykka
from pykka._envelope import Envelope as PykkaEnvelope
from pykka.messages import _ActorStop

from supervision.child import Block
from supervision.child import Mailbox as MailboxSpec
from supervision.errors import ActorDeadError, MailboxFull
from supervision.future import _wake

if TYPE_CHECKING:
    from supervision.future import AskFuture
    from supervision.name import Name


class Envelope(PykkaEnvelope[Any]):
    """A message on its way. `deadline` is a time of the system's clock; `deliveries` counts how often it was taken."""

    __slots__ = ("deadline", "deliveries")

    reply_to: AskFuture[Any] | None

    def __init__(self, message: Any, reply_to: AskFuture[Any] | None = None, deadline: float | None = None) -> None:
        self.message = message
        self.reply_to = reply_to
        self.deadline = deadline
        self.deliveries = 0


class Fenced(BaseException):
    """An incarnation whose lease was revoked tried to take a message. Internal; ends that incarnation."""


class Lease:
    """The right of one incarnation to take messages."""

    __slots__ = ("epoch",)

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch


class Mailbox:
    """Messages waiting under one name. `put`, `close` and leases share one lock, so none falls between."""

    def __init__(self, name: Name, spec: MailboxSpec | None = None) -> None:
        self.spec = spec or MailboxSpec()
        self.lock = allocate_lock()
        self._name = name
        self._control: deque[Any] = deque()
        self._user: deque[Envelope] = deque()
        self._waiter: Any = None
        self._room: deque[Any] = deque()
        self.lease: Lease | None = None
        self.closed: Any = None

    # -- senders -----------------------------------------------------------------------------------

    def put(self, envelope: Any) -> None:
        """Add a message; what a full mailbox does is its policy.

        Raises:
            ActorDeadError: the name is closed.
            MailboxFull: by the policies `fail`, and `block` once its time is over.
        """
        if not isinstance(envelope, Envelope):
            envelope = Envelope(envelope.message, envelope.reply_to)
        with self.lock:
            if self.closed is not None:
                raise ActorDeadError(self._name.path, self.closed)
            user = self._user
            if len(user) < self.spec.capacity or type(envelope.message) is _ActorStop:
                user.append(envelope)
                waiter, self._waiter = self._waiter, None
            else:
                waiter = self._overflow(envelope)
        if waiter is not None:
            _wake(_get_running_loop(), *waiter)

    def _overflow(self, envelope: Envelope) -> Any:
        """Full: apply the policy, under the lock."""
        policy = self.spec.overflow
        if policy == "drop_old":
            dropped = MailboxFull(f"{self._name.path}: dropped as the oldest message")
            self._name.dead_letter(self._user.popleft(), dropped)
            self._user.append(envelope)
            waiter, self._waiter = self._waiter, None
            return waiter
        full = MailboxFull(f"{self._name.path} has {len(self._user)} messages waiting, its capacity")
        if policy == "drop_new":
            self._name.dead_letter(envelope, full)
            return None
        if isinstance(policy, Block):
            return self._wait_for_room(envelope, policy.timeout, full)
        raise full

    def _wait_for_room(self, envelope: Envelope, timeout: float | None, full: MailboxFull) -> Any:
        """Block this plain thread, with the lock given up meanwhile, until there is room."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while len(self._user) >= self.spec.capacity:
            gate = allocate_lock()
            gate.acquire()
            self._room.append((None, gate.release))
            self.lock.release()
            try:
                remaining = -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
                woken = gate.acquire(timeout=remaining)
            finally:
                self.lock.acquire()
            if self.closed is not None:
                raise ActorDeadError(self._name.path, self.closed)
            if not woken and len(self._user) >= self.spec.capacity:
                raise full
        self._user.append(envelope)
        waiter, self._waiter = self._waiter, None
        return waiter

    def wait_for_room(self, loop: Any) -> Any:
        """A future of `loop` that is done when there may be room, or None if there is room now."""
        with self.lock:
            if len(self._user) < self.spec.capacity or self.closed is not None:
                return None
            waiter = loop.create_future()
            self._room.append((loop, waiter))
            return waiter

    def put_control(self, order: Any) -> None:
        """Add an order of the supervisor; it overtakes all messages and is never refused."""
        with self.lock:
            self._control.append(order)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _wake(_get_running_loop(), *waiter)

    # -- the incarnation ---------------------------------------------------------------------------

    def take(self, lease: Lease, waiter: Any = None) -> Any:
        """The next order or message, or None. With None, `waiter` is woken when there is one.

        `waiter` is a pair (loop, future of that loop) or (None, callable).
        """
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
        _wake(_get_running_loop(), *room)
        return envelope

    def take_control(self, lease: Lease, waiter: Any) -> Any:
        """The next order, or None, without regard to messages; `waiter` as in `take`."""
        with self.lock:
            if lease is not self.lease:
                raise Fenced
            if self._control:
                return self._control.popleft()
            self._waiter = waiter
            return None

    def take_user(self, lease: Lease) -> Envelope | None:
        """The next message without regard to orders: for draining before the end."""
        with self.lock:
            if lease is not self.lease or not self._user:
                return None
            return self._user.popleft()

    def put_back(self, envelope: Envelope) -> None:
        """Put a message that was taken back to the head."""
        with self.lock:
            self._user.appendleft(envelope)
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _wake(_get_running_loop(), *waiter)

    # -- the name's owner --------------------------------------------------------------------------

    def grant(self, epoch: int) -> Lease:
        """Let a new incarnation take messages, and only it. Orders meant for an earlier one are forgotten."""
        with self.lock:
            self.lease = Lease(epoch)
            self._control.clear()
            self._waiter = None
            return self.lease

    def revoke(self, lease: Lease) -> None:
        """End this lease, if it is the present one, and wake its holder so that it learns of it."""
        with self.lock:
            if self.lease is lease:
                self.lease = None
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            _wake(_get_running_loop(), *waiter)

    def reopen(self) -> None:
        with self.lock:
            self.closed = None

    def close(self, reason: Any) -> list[Envelope]:
        """Refuse all messages from now on. Returns those that had been waiting."""
        with self.lock:
            self.closed = reason
            left, self._user = list(self._user), deque()
            room, self._room = self._room, deque()
        for entry in room:
            _wake(_get_running_loop(), *entry)
        return left

    def drop_waiting(self) -> list[Envelope]:
        """Take all waiting messages out; the mailbox stays open."""
        with self.lock:
            left, self._user = list(self._user), deque()
            return left

    def after_fork(self, reason: Any) -> None:
        """In the child of a fork nobody will ever take a message. The lock may be held by a thread that is gone."""
        self.lock = allocate_lock()
        self.closed = reason
        self._user, self._control, self._waiter, self._room = deque(), deque(), None, deque()

    # -- looking -----------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._user)

    def oldest(self) -> Envelope | None:
        with self.lock:
            return self._user[0] if self._user else None

    def empty(self) -> bool:
        """Part of Pykka's protocol: True, so that a Pykka teardown can never drain what belongs to the name."""
        return True

    def get(self) -> Any:
        """Part of Pykka's protocol, and not for users: only the incarnation takes messages."""
        raise pykka.ActorDeadError(f"messages of {self._name.path} are taken by its incarnation only")
