"""What one life does with its messages: takes one at a time, has it handled, answers it, or gives it back.

A life may be abandoned from another thread at any moment. Whose the message at hand is, this life's or the one's who
abandons it, is therefore decided under the life's lock, in `_take_up` and `_let_go` here and in `give_back` there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, cast

import pykka
from pykka.messages import _ActorStop

from supervision import faults
from supervision.construction import asks_for_nothing
from supervision.errors import ActorDeadError, PoisonMessage
from supervision.exits import Killed, Normal, Reason
from supervision.mailbox import Envelope, Fenced
from supervision.message import Reply
from supervision.state.keeping import QuietPoint
from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation

logger = logging.getLogger("supervision")

MESSAGES_PER_TURN = 64
"""How many messages an actor handles before others on its loop get a turn."""

_NONE_OWED: Final[Any] = frozenset()
MANY_OWED = 64
"""From so many owed replies on they are looked through for those that nobody wants."""


@dataclass(frozen=True, slots=True)
class StopOrder:
    """The supervisor's order to end; `drain` has the waiting messages handled first.

    `unless` is asked in the moment the order is taken: where it says True, the order is void.
    """

    reason: Reason
    drain: bool = False
    unless: Callable[[], bool] | None = None


class Work:
    """The messages in the hands of one life. `turn` tells each message or hook that runs from the one before."""

    __slots__ = (
        "_expected",
        "_life",
        "_lock",
        "_look_through_at",
        "_pending",
        "_slot",
        "_stop_asks",
        "busy_since",
        "current",
        "owed",
        "turn",
    )

    def __init__(self, life: Incarnation, expected_errors: tuple[type[BaseException], ...] | None) -> None:
        self.current: Envelope | None = None
        self.busy_since = 0.0
        self.turn = 0
        self.owed: set[Reply] = _NONE_OWED
        self._look_through_at = MANY_OWED
        self._life = life
        self._lock = life.lock
        self._expected = expected_errors
        self._slot: Reply | None = None
        self._pending: list[tuple[Envelope, BaseException]] = []
        self._stop_asks: list[Envelope] = []

    # -- one after the other -----------------------------------------------------------------------

    async def receive(self) -> Reason:
        """Handle one message at a time until there is a reason to end."""
        life, turns = self._life, 0
        mailbox, lease = life.name.mailbox, life.lease
        waiter = life.waiter()
        while life.exit_asked is None:
            item = mailbox.take(lease, waiter)
            if item is None:
                turns = 0
                await life.sleep(waiter)
                waiter = life.waiter()
                continue
            if type(item) is not Envelope:
                if type(item) is QuietPoint:
                    await item.keeping.quiet_point()
                    continue
                if item.unless is not None and item.unless():
                    continue
                if item.drain:
                    await self._drain()
                return cast("Reason", item.reason)
            if type(item.message) is _ActorStop:
                self._stop_asks.append(item)
                return Normal()
            if (going_on := self._handle(item)) is not None:
                await going_on
            turns += 1
            if turns >= MESSAGES_PER_TURN:
                turns = 0
                await life.give_way()
        return life.exit_asked

    async def _drain(self) -> None:
        life = self._life
        while (envelope := life.name.mailbox.take_message(life.lease)) is not None and not life.is_killed:
            if envelope.is_stop:
                self._stop_asks.append(envelope)
            elif (going_on := self._handle(envelope)) is not None:
                await going_on

    def begin_turn(self) -> None:
        """What runs from here on waits on account of this message or hook, and of no earlier one."""
        self.turn += 1
        waits.current.set(waits.Turn(self._life, self.turn))

    def present_turn(self) -> int:
        return self.turn

    # -- one message -------------------------------------------------------------------------------

    def _handle(self, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
        """Handle one message and answer it; what an `async def` handler has left to do is returned, to be awaited.

        An exception that is not expected leaves here, and ends the life.
        """
        life, future = self._life, envelope.reply_to
        now = self.busy_since = life.name.now()
        if envelope.deadline is not None and envelope.deadline < now:
            life.name.dead_letter(envelope, pykka.Timeout("the message waited past its deadline"))
            return None
        if future is not None and (future.abandoned or future.done):
            future.settle(error=pykka.Timeout("nobody waited for the answer any more"))
            return None
        self._take_up(envelope)
        self.begin_turn()
        if faults.armed:
            return self._go_on(envelope, self._pass_faults(envelope))
        try:
            result = life.actor._handle_receive(envelope.message)
        except BaseException as error:  # sorted there: answered, or the end of this life
            if not self._is_answered(envelope, error):
                raise
            return None
        if type(result) is CoroutineType:
            return self._go_on(envelope, result)
        return self._answer(envelope, result)

    async def _go_on(self, envelope: Envelope, handling: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await handling
        except BaseException as error:  # as in _handle
            if not self._is_answered(envelope, error):
                raise
        else:
            if (going_on := self._answer(envelope, result)) is not None:
                await going_on

    async def _pass_faults(self, envelope: Envelope) -> Any:
        life = self._life
        await faults.hit("before_handle", life.name.path)
        result = life.actor._handle_receive(envelope.message)
        if type(result) is CoroutineType:
            result = await result
        await faults.hit("after_handle_before_reply", life.name.path)
        return result

    def _answer(self, envelope: Envelope, result: Any) -> Coroutine[Any, Any, None] | None:
        if not self._let_go():
            raise Fenced
        life, future = self._life, envelope.reply_to
        name = life.name
        name.handled += 1
        if future is not None and self._slot is None and not future.settle(result):
            name.late += 1
        if life.keeping is not None and life.keeping.handled():
            return life.keeping.keep()
        return None

    def _is_answered(self, envelope: Envelope, error: BaseException) -> bool:
        """True if the error was expected, and has been replied; any other ends the life."""
        if self._life.exit is not None:
            raise Fenced from error
        if not self._is_expected(error, envelope.message):
            return False
        self._expected_failure(envelope, error)
        return True

    def _is_expected(self, error: BaseException, message: Any) -> bool:
        actor = self._life.actor
        expected = self._expected if self._expected is not None else getattr(actor, "expected_errors", ())
        if expected and isinstance(error, expected):
            return True
        return isinstance(error, AttributeError) and asks_for_nothing(actor, message)

    def _expected_failure(self, envelope: Envelope, error: BaseException) -> None:
        if not self._let_go():
            return
        name = self._life.name
        name.failed += 1
        name.handled += 1
        if envelope.reply_to is None:
            logger.warning("%s: expected error for a message nobody waits for: %r", name.path, error)
        else:
            envelope.reply_to.settle(error=error)

    # -- in whose hands it is ----------------------------------------------------------------------

    def _take_up(self, envelope: Envelope) -> None:
        """From here on the message shares the fate of this life, which may just have been abandoned."""
        envelope.deliveries += 1
        self._slot = None
        self.current = envelope  # before looking: an abandonment that comes from here on finds it
        exit = self._life.exit
        if exit is None:
            return
        with self._lock:
            if self.current is envelope:  # it came just before, and has not found it
                self.current = None
                self._pending.append((envelope, self._life.error_of(exit.reason)))
        raise Fenced

    def _let_go(self) -> bool:
        """The message at hand is done with. False if it has been taken away, by an abandonment."""
        with self._lock:
            if self._life.exit is not None:
                return False
            self.current = None
            self.turn += 1
            return True

    @property
    def is_handling_here(self) -> bool:
        """True where a message is at hand, and the code that asks is not left over from an earlier one."""
        turn = waits.current.get()
        return self.current is not None and (turn is None or turn.incarnation is not self._life or not turn.is_over)

    def owe(self) -> Reply:
        """Take the reply slot of the message at hand."""
        envelope = self.current
        if envelope is None or not self.is_handling_here:
            raise RuntimeError(f"{self._life.name.path}: owe() is for a handler, while it handles a message")
        if self._slot is not None:
            raise RuntimeError(f"{self._life.name.path}: the reply to this message is owed already")
        reply = self._slot = Reply(self._life, envelope)
        self.owed = self.owed or set()
        self.owed.add(reply)
        if len(self.owed) >= self._look_through_at:
            self._forget_unwanted()
        return reply

    def _forget_unwanted(self) -> None:
        """An actor may drop a reply that nobody waits for any more; each is looked at a few times at most."""
        for reply in list(self.owed):  # others discard theirs meanwhile
            if not reply.is_wanted:
                self.owed.discard(reply)
        self._look_through_at = max(MANY_OWED, 2 * len(self.owed))

    # -- at the end --------------------------------------------------------------------------------

    def give_back(self, error: BaseException) -> None:
        """The message at hand will not be finished: `error` is for its asker, unless that has been seen to.

        Under the life's lock.
        """
        envelope, self.current = self.current, None
        if envelope is None or (self._slot is not None and self._slot.is_used):
            return
        if self._slot is not None:
            self.owed.discard(self._slot)
            self._slot.fence()
        self.leave(envelope, error)

    def leave(self, envelope: Envelope, error: BaseException) -> None:
        """A message that this life had taken is to be delivered again, or its asker told of `error`."""
        self._pending.append((envelope, error))

    def put_back(self) -> None:
        """Put the message that was given back into the mailbox, where that is wanted; it may be poison."""
        mailbox = self._life.name.mailbox
        again = mailbox.spec.redeliver
        left, self._pending = self._pending, []
        for envelope, error in left:
            if envelope.deliveries > again or not mailbox.put_back(envelope):
                is_poison = again > 0 and envelope.deliveries > again
                self.leave(envelope, PoisonMessage(self._life.name.path, error, again) if is_poison else error)

    def fence_replies(self) -> None:
        """What an abandoned life still says comes too late: the runtime answers in its place."""
        for reply in list(self.owed):
            reply.fence()

    def release(self) -> None:
        """Let those hear of the end who waited for an answer. Idempotent, from any thread."""
        life = self._life
        with self._lock:
            pending, self._pending = self._pending, []
            stop_asks, self._stop_asks = self._stop_asks, []
            owed, self.owed = self.owed, set()
        for envelope, error in pending:
            life.name.dead_letter(envelope, error)
        for envelope in stop_asks:
            if envelope.reply_to is not None:
                envelope.reply_to.settle(None)
        reason = life.exit.reason if life.exit is not None else Killed()
        for reply in owed:
            reply.default(ActorDeadError(life.name.path, reason))

    @property
    def is_awaited(self) -> bool:
        """True while somebody waits to hear of this life's end."""
        return bool(self._stop_asks or self.owed) or any(envelope.reply_to for envelope, _ in self._pending)

    @property
    def unfinished(self) -> list[Envelope]:
        """The messages it has taken and not finished; of those whose reply is owed only the debt is left."""
        in_hand = [] if self.current is None else [self.current]
        return [*in_hand, *(envelope for envelope, _ in self._pending)]
