"""Messages that name their reply, and the reply that is owed for later."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from supervision.errors import ActorDeadError, MailboxFull
from supervision.waiting import waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from supervision.future import AskFuture
    from supervision.incarnation import Incarnation
    from supervision.mailbox import Envelope
    from supervision.name import ActorRef

R = TypeVar("R")


class Ask(Generic[R]):
    """The base of messages that expect a reply of type R.

    With `class Acquire(Ask[Permit])`, `await ask(ref, Acquire())` is a Permit for the type checker too.
    """

    __slots__ = ()


async def ask(ref: ActorRef, message: Ask[R], *, timeout: float | None = None) -> R:
    """Send `message` and await its reply; raises what the actor raised. `timeout` is in seconds."""
    return cast("R", await ref.ask(message, block=False, timeout=timeout))


class Reply:
    """The reply to the message at hand, owed for later. Answer it once, from any thread, or pass it on.

    If the actor ends before, the asker gets an ActorDeadError with the reason.
    """

    __slots__ = ("_envelope", "_incarnation", "_is_fenced", "_used")

    def __init__(self, incarnation: Incarnation, envelope: Envelope) -> None:
        self._incarnation = incarnation
        self._envelope = envelope
        self._used = False
        self._is_fenced = False

    @property
    def envelope(self) -> Envelope:
        """The message that this is the reply to."""
        return self._envelope

    @property
    def is_wanted(self) -> bool:
        """False once nobody waits for the answer any more."""
        future = self._envelope.reply_to
        return future is not None and not future.abandoned and not future.done

    @property
    def deadline(self) -> float | None:
        """When the asker stops waiting, by the system's clock."""
        return self._envelope.deadline

    @property
    def is_used(self) -> bool:
        """True once it has been answered or passed on."""
        return self._used

    def on_unwanted(self, callback: Callable[[], object]) -> None:
        """Have `callback` called, on whichever thread, when nobody waits for the answer any more."""
        future = self._envelope.reply_to
        if future is not None:
            future.on_abandon(callback)

    def set(self, value: Any = None) -> None:
        """Answer with a value. Raises queue.Full if this reply has been used before."""
        if self._close():
            self._settle(value, None)

    def fail(self, error: BaseException) -> None:
        """Answer with an error. Raises queue.Full if this reply has been used before."""
        if self._close():
            self._settle(None, error)

    def forward(self, ref: ActorRef, message: Any) -> None:
        """Pass the debt on: send `message` to `ref`, whose reply answers the original asker.

        From now on it is that actor's debt; the end of this one leaves it untouched.
        """
        if not self._close():
            return
        envelope = type(self._envelope)(message, self._envelope.reply_to, self._envelope.deadline)
        self._let_go()
        if envelope.reply_to is not None and not waits.pass_on(envelope.reply_to, ref.name):
            return
        try:
            ref.name.mailbox.put(envelope)
        except (ActorDeadError, MailboxFull) as error:  # the asker must hear it, the forwarder need not
            ref.name.dead_letter(envelope, error)

    def _close(self) -> bool:
        if self._used:
            raise queue.Full("this reply has been given already")
        self._used = True
        if self._is_fenced:
            self._incarnation.name.late += 1
            return False
        self._incarnation.work.owed.discard(self)
        return True

    def fence(self) -> None:
        """The debtor has been abandoned: whatever its code still says is late, and the runtime answers."""
        self._is_fenced = True

    def _settle(self, value: Any, error: BaseException | None) -> None:
        future = self._let_go()
        if future is not None and not future.settle(value, error):
            self._incarnation.name.late += 1

    def _let_go(self) -> AskFuture[Any] | None:
        """The future that is answered now; from here on only who asked keeps it, and the answer in it."""
        envelope = self._envelope
        self._envelope = type(envelope)(None, None, envelope.deadline)
        return envelope.reply_to

    def default(self, error: BaseException) -> None:
        """The debtor has ended: answer for it, unless it has done so itself."""
        future = self._envelope.reply_to
        if (self._is_fenced or not self._used) and future is not None:
            future.settle(error=error)
        self._used = self._used or not self._is_fenced
