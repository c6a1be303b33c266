"""One life behind a name, from construction to its exit, on whichever host it runs.

The life is written once, as a coroutine. On an event loop it is a task; in a thread it is driven to its end
without ever being suspended, because there every wait blocks. Whatever happens in it, `_finish` is reached
and reports exactly one exit.
"""

from __future__ import annotations

import logging
import threading
from _thread import allocate_lock
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from inspect import iscoroutine
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import pykka
from pykka import messages

from supervision import faults
from supervision.construction import asks_for_nothing, construct
from supervision.errors import ActorDeadError, ActorStuck, PoisonMessage
from supervision.exits import Abandoned, Crash, Exit, ForkLost, Killed, Normal, Reason, StartFailed, is_stuck
from supervision.mailbox import Envelope, Fenced
from supervision.message import Reply
from supervision.specs.child import IGNORE
from supervision.state.keeping import QuietPoint
from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.links import Link
    from supervision.mailbox import Lease, Waiter
    from supervision.name import Name

logger = logging.getLogger("supervision")

_KILLED: Final = Killed()
_NONE_OWED: Final[Any] = frozenset()

MESSAGES_PER_TURN = 64
"""How many messages an actor handles before others on its loop get a turn."""


@dataclass(frozen=True, slots=True)
class StopOrder:
    """The supervisor's order to end; `drain` has the waiting messages handled first.

    `unless` is asked in the moment the order is taken: where it says True, the order is void.
    """

    reason: Reason
    drain: bool = False
    unless: Callable[[], bool] | None = None


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
    is_ending: bool = False
    system: Any = None
    turn: Callable[[], int] | None = None
    _cancelled_turn: int = -2

    @property
    def cancelled(self) -> bool:
        """True where whatever runs should come to its end: this life is over, or the handler takes too long."""
        return self.is_ending or (self.turn is not None and self.turn() == self._cancelled_turn)

    @cancelled.setter
    def cancelled(self, is_so: bool) -> None:
        self.is_ending = is_so

    def cancel_turn(self, turn: int) -> None:
        """Have `cancelled` be True as long as this turn goes on."""
        self._cancelled_turn = turn


class Incarnation:
    """One life. Hosts subclass it with how to run, wait, and end by force."""

    kind = "?"
    max_handle_time: float | None = None
    thread: threading.Thread | None = None

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
        self._stopped: threading.Event | None = None
        self.keeping = None if name.keeper is None else name.keeper.begin(self)
        left = None if name.keeper is None else name.keeper.value
        self.context = Context(name.path, self.epoch, name.clock, restart_reason, attempt, left)
        self.context.turn = self._present_turn
        self.context.system = name.system
        self.state = "starting"
        self.started_at = name.now()
        self.current: Envelope | None = None
        self.busy_since = 0.0
        self.turn = 0
        self.waiting: list[tuple[waits.Turn, Any]] = []
        self.is_acknowledged = False
        self.owed: set[Reply] = _NONE_OWED
        self.exit: Exit | None = None
        self.exit_asked: Reason | None = None
        self.at_end: dict[Any, Callable[[], object]] = {}
        self.monitors: dict[Any, Callable[[Exit], object]] = {}
        self.links: dict[Incarnation, Link] = {}
        self.has_code_running = False
        self.incident: Hashable = None
        self.kill_grace = kill_grace
        self._expected = expected_errors
        self._make = make
        self._stop_asks: list[Envelope] = []
        self._pending: list[tuple[Envelope, BaseException]] = []
        self._slot: Reply | None = None
        self._killed = False
        self._forced: Reason | None = None
        self._lock = allocate_lock()
        name.incarnation = self

    def _present_turn(self) -> int:
        return self.turn

    # -- for hosts ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start living. Does not wait."""
        raise NotImplementedError

    @property
    def is_host_gone(self) -> bool:
        """True once its task or thread has ended, which should have reported an exit before. From any thread."""
        raise NotImplementedError

    @property
    def zombie_key(self) -> Hashable:
        """Zombies of the same key are held up by the same thing and count as one."""
        return self

    def _waiter(self) -> Waiter:
        """What is to wake it from its next sleep."""
        raise NotImplementedError

    def _sleep(self, waiter: Waiter) -> Awaitable[None]:
        """Wait to be woken: a thread in this call, a task where it awaits what is returned."""
        raise NotImplementedError

    async def _yield(self) -> None:
        """Let others have a turn."""

    def kill(self) -> None:
        """End it by force, from any thread; where that is impossible, abandon it."""
        raise NotImplementedError

    # -- the life ----------------------------------------------------------------------------------

    async def live(self) -> None:
        """The whole life. Raises nothing and reports one exit."""
        self.has_code_running = True
        reason: Reason = _KILLED
        try:
            reason = await self._live()
        except BaseException as error:  # the exit signal: whatever ended the life becomes its reason
            reason = self._reason_of(error)
        finally:
            await self._before_exit(reason)

    async def _before_exit(self, reason: Reason) -> None:
        """The code has come to its end: report it, unless an abandonment has done so."""
        try:
            if faults.armed:
                await faults.hit("before_exit_emit", self.name.path)
        except BaseException as error:  # the exit must be reported in any case
            logger.debug("%s: %r before its exit", self.name.path, error)
        is_first = self._finish(reason)
        self.has_code_running = False
        if not is_first:
            self.release()  # what it had taken in the moment of its abandonment
            self.owner.zombie_ended(self)

    async def _live(self) -> Reason:
        if self.exit is not None:
            raise Fenced
        self._begin_turn()
        try:
            if faults.armed:
                await faults.hit("before_start", self.name.path)
            actor: Any = self.actor or construct(self, self._make)
            self.actor = actor
            del self._make  # whether the arguments live on is for the actor to say
            if self.keeping is not None:
                await self.keeping.open()
            info = await self._call(actor.on_start)
            if faults.armed:
                await faults.hit("after_start", self.name.path)
        except BaseException as error:  # see live()
            return self._failed_to_start(error)
        if info is IGNORE:
            self.owner.ignored(self)
            return Normal()
        self._is_up(info)
        try:
            if self.keeping is not None:
                await self.keeping.replay()
            await self._call(actor.recover)
            reason = await self._receive()
        except Fenced:
            raise
        except BaseException as error:  # see live()
            return await self._fail(error)
        if self._killed or self.exit is not None:
            return self._forced or Killed()
        if self.keeping is not None:
            reason = await self.keeping.before_stop(reason)
        return await self._stop(reason)

    def _is_up(self, info: Any) -> None:
        """Acknowledge the start, unless this life has been abandoned in the middle of it."""
        with self._lock:
            if self.exit is not None:
                raise Fenced
            self.state = "running"
            self.is_acknowledged = True
            pykka.ActorRegistry.register(self.name.ref)
        self.owner.started(self, info)
        for watch in list(self.name.watchers.values()):
            _guarded(watch.started, self)

    def _begin_turn(self) -> None:
        """What runs from here on waits on account of this message or hook, and of no earlier one."""
        self.turn += 1
        waits.current.set(waits.Turn(self, self.turn))

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a hook or handler, plain or async."""
        result = function(*arguments)
        if iscoroutine(result):
            return await result
        return result

    async def _receive(self) -> Reason:
        """Handle one message at a time until there is a reason to end."""
        mailbox, lease, turns = self.name.mailbox, self.lease, 0
        waiter = self._waiter()
        while self.exit_asked is None:
            item = mailbox.take(lease, waiter)
            if item is None:
                turns = 0
                await self._sleep(waiter)
                waiter = self._waiter()
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
            if type(item.message) is messages._ActorStop:
                self._stop_asks.append(item)
                return Normal()
            if (going_on := self._handle(item)) is not None:
                await going_on
            turns += 1
            if turns >= MESSAGES_PER_TURN:
                turns = 0
                await self._yield()
        return self.exit_asked

    async def _drain(self) -> None:
        while (envelope := self.name.mailbox.take_message(self.lease)) is not None and not self._killed:
            if envelope.is_stop:
                self._stop_asks.append(envelope)
            elif (going_on := self._handle(envelope)) is not None:
                await going_on

    def _handle(self, envelope: Envelope) -> Coroutine[Any, Any, None] | None:
        """Handle one message and answer it; what an `async def` handler has left to do is returned, to be awaited.

        An exception that is not expected leaves here, and ends the life.
        """
        name, future = self.name, envelope.reply_to
        now = self.busy_since = name.now()
        if envelope.deadline is not None and envelope.deadline < now:
            name.dead_letter(envelope, pykka.Timeout("the message waited past its deadline"))
            return None
        if future is not None and (future.abandoned or future.done):
            future.settle(error=pykka.Timeout("nobody waited for the answer any more"))
            return None
        self._take_up(envelope)
        self._begin_turn()
        if faults.armed:
            return self._handle_with_faults(envelope)
        try:
            result = self.actor._handle_receive(envelope.message)
        except BaseException as error:
            if not self._is_answered(envelope, error):
                raise
            return None
        if type(result) is CoroutineType:
            return self._go_on(envelope, result)
        return self._answer(envelope, result)

    async def _go_on(self, envelope: Envelope, handling: Coroutine[Any, Any, Any]) -> None:
        try:
            result = await handling
        except BaseException as error:
            if not self._is_answered(envelope, error):
                raise
        else:
            if (going_on := self._answer(envelope, result)) is not None:
                await going_on

    async def _handle_with_faults(self, envelope: Envelope) -> None:
        try:
            await faults.hit("before_handle", self.name.path)
            result = self.actor._handle_receive(envelope.message)
            if type(result) is CoroutineType:
                result = await result
            await faults.hit("after_handle_before_reply", self.name.path)
        except BaseException as error:
            if not self._is_answered(envelope, error):
                raise
        else:
            if (going_on := self._answer(envelope, result)) is not None:
                await going_on

    def _answer(self, envelope: Envelope, result: Any) -> Coroutine[Any, Any, None] | None:
        if not self._let_go():
            raise Fenced
        name, future = self.name, envelope.reply_to
        name.handled += 1
        if future is not None and self._slot is None and not future.settle(result):
            name.late += 1
        if self.keeping is not None and self.keeping.handled():
            return self.keeping.keep()
        return None

    def _is_answered(self, envelope: Envelope, error: BaseException) -> bool:
        """True if the error was expected, and has been replied; any other ends the life."""
        if self.exit is not None:
            raise Fenced from error
        if not self._is_expected(error, envelope.message):
            return False
        self._expected_failure(envelope, error)
        return True

    def _take_up(self, envelope: Envelope) -> None:
        """From here on the message shares the fate of this life, which may just have been abandoned."""
        envelope.deliveries += 1
        self._slot = None
        self.current = envelope  # before looking: an abandonment that comes from here on finds it
        if self.exit is None:
            return
        with self._lock:
            if self.current is envelope:  # it came just before, and has not found it
                self.current = None
                self._pending.append((envelope, self._answer_of_the_dead(self.exit.reason)))
        raise Fenced

    def _let_go(self) -> bool:
        """The message at hand is done with. False if it has been taken away, by an abandonment."""
        with self._lock:
            if self.exit is not None:
                return False
            self.current = None
            self.turn += 1
            return True

    def _is_expected(self, error: BaseException, message: Any) -> bool:
        expected = self._expected if self._expected is not None else getattr(self.actor, "expected_errors", ())
        if expected and isinstance(error, expected):
            return True
        return isinstance(error, AttributeError) and asks_for_nothing(self.actor, message)

    def _expected_failure(self, envelope: Envelope, error: BaseException) -> None:
        if not self._let_go():
            return
        self.name.failed += 1
        self.name.handled += 1
        if envelope.reply_to is None:
            logger.warning("%s: expected error for a message nobody waits for: %r", self.name.path, error)
        else:
            envelope.reply_to.settle(error=error)

    def owe(self) -> Reply:
        """Take the reply slot of the message at hand."""
        envelope, turn = self.current, waits.current.get()
        if envelope is None or (turn is not None and turn.incarnation is self and turn.is_over):
            raise RuntimeError(f"{self.name.path}: owe() is for a handler, while it handles a message")
        if self._slot is not None:
            raise RuntimeError(f"{self.name.path}: the reply to this message is owed already")
        reply = self._slot = Reply(self, envelope)
        self.owed = self.owed or set()
        self.owed.add(reply)
        return reply

    # -- the end -----------------------------------------------------------------------------------

    def _reason_of(self, error: BaseException) -> Reason:
        if self._killed or isinstance(error, Fenced | GeneratorExit):
            return self._forced or Killed()
        return Crash.of(error)

    def _failed_to_start(self, error: BaseException) -> Reason:
        self.name.failed += 1
        return StartFailed(getattr(error, "exit_reason", None) or self._reason_of(error))

    async def _fail(self, error: BaseException) -> Reason:
        """A handler raised: the actor ends. `on_failure` is its last word, and may fail too."""
        reason = self._reason_of(error)
        self._begin_end()
        if self._killed:
            return reason
        self.name.failed += 1
        answer = error if isinstance(error, Exception) else self._answer_of_the_dead(reason)
        with self._lock:
            self._give_back(answer)
        try:
            await self._call(self.actor.on_failure, type(error), error, error.__traceback__)
        except BaseException as second:  # the crash before it is what counts
            self._note_failed_hook("on_failure", second)
        return reason

    async def _stop(self, reason: Reason) -> Reason:
        self._begin_end()
        self._begin_turn()
        try:
            if faults.armed:
                await faults.hit("in_on_stop", self.name.path)
            await self._call(self.actor.on_stop)
        except BaseException as error:  # see live()
            self._note_failed_hook("on_stop", error)
            return self._reason_of(error)
        return reason

    def _begin_end(self) -> None:
        """From here on it takes no message. An abandoned life has no say about its name any more."""
        with self._lock:
            if self.exit is not None:
                raise Fenced
            self.state = "stopping"
            self._leave_registry()

    @property
    def stopped(self) -> threading.Event:
        """Pykka's `actor_stopped`: set once the actor takes no more messages. Made for who asks."""
        with self._lock:
            if self._stopped is None:
                self._stopped = threading.Event()
                if self.state in ("stopping", "ended"):
                    self._stopped.set()
            return self._stopped

    def _leave_registry(self) -> None:
        pykka.ActorRegistry.unregister(self.name.ref)
        if self._stopped is not None:
            self._stopped.set()

    def _note_failed_hook(self, hook: str, error: BaseException) -> None:
        logger.warning("%s: %s failed: %r", self.name.path, hook, error)

    def _finish(self, reason: Reason) -> bool:
        """Report the exit, once. False if that has been done, by an abandonment."""
        name = self.name
        with self._lock:
            if self.exit is not None:
                return False
            exit = self.exit = Exit(name.path, self.epoch, reason, name.now())
            self.state = "ended"
            self._give_back(self._answer_of_the_dead(reason))
            monitors, self.monitors = self.monitors, {}
            at_end, self.at_end = self.at_end, {}
            self._leave_registry()
        name.mailbox.revoke(self.lease)
        self._settle_in_flight()
        if self.keeping is not None:
            _guarded(self.keeping.ended, exit)
        for cleanup in list(at_end.values()):
            _guarded(cleanup)
        for reply in list(self.owed) if isinstance(reason, Abandoned) else ():
            reply.fence()
        name.last_exit = exit
        if name.incarnation is self:
            name.incarnation = None
        for watch in list(name.watchers.values()):  # before anybody can start a successor
            _guarded(watch.ended, self, exit)
        self.owner.ended(self, exit)
        for report in list(monitors.values()):
            _guarded(report, exit)
        return True

    def _answer_of_the_dead(self, reason: Reason) -> BaseException:
        kind = ActorStuck if is_stuck(reason) else ActorDeadError
        return kind(self.name.path, reason)

    def _give_back(self, error: BaseException) -> None:
        """The message at hand will not be finished: `error` is for its asker, unless that has been seen to."""
        envelope, self.current = self.current, None
        if envelope is None or (self._slot is not None and self._slot.is_used):
            return
        if self._slot is not None:
            self.owed.discard(self._slot)
            self._slot.fence()
        self._pending.append((envelope, error))

    def _settle_in_flight(self) -> None:
        """Decide what becomes of the message at hand."""
        again = self.name.mailbox.spec.redeliver
        left, self._pending = self._pending, []
        for envelope, error in left:
            if envelope.deliveries > again or not self.name.mailbox.put_back(envelope):
                is_poison = again > 0 and envelope.deliveries > again
                self._pending.append((envelope, PoisonMessage(self.name.path, error, again) if is_poison else error))

    def release(self) -> None:
        """Let those hear of the end who waited for an answer. Idempotent."""
        pending, self._pending = self._pending, []
        for envelope, error in pending:
            self.name.dead_letter(envelope, error)
        for envelope in self._stop_asks:
            if envelope.reply_to is not None:
                envelope.reply_to.settle(None)
        reason = self.exit.reason if self.exit is not None else Killed()
        owed, self.owed = self.owed, set()
        for reply in owed:
            reply.default(ActorDeadError(self.name.path, reason))

    def unanswered(self) -> list[Envelope]:
        """The messages in its hands; for the child of a fork, where it does not live."""
        self.exit = Exit(self.name.path, self.epoch, ForkLost(), 0.0)
        in_hand = [] if self.current is None else [self.current]
        return [*in_hand, *(envelope for envelope, _ in self._pending), *(reply.envelope for reply in self.owed)]

    # -- from outside ------------------------------------------------------------------------------

    def watch(self, token: Any, report: Callable[[Exit], object]) -> Exit | None:
        """Have `report` called once with the exit of this life. If it is over, nothing is called: the exit is here."""
        with self._lock:
            if self.exit is None:
                self.monitors[token] = report
            return self.exit

    def unwatch(self, token: Any) -> None:
        self.monitors.pop(token, None)

    def when_over(self, token: Any, cleanup: Callable[[], object]) -> None:
        """Have `cleanup` called at the end of this life; at once if it is over."""
        with self._lock:
            if self.exit is None:
                self.at_end[token] = cleanup
                return
        cleanup()

    def order_stop(self, reason: Reason, *, drain: bool = False, unless: Callable[[], bool] | None = None) -> None:
        """Ask it, from any thread, to end after the message at hand; `unless` as in StopOrder."""
        self.name.mailbox.put_order(self.lease, StopOrder(reason, drain, unless))

    def tell(self, message: Any, is_wanted: Callable[[], bool] | None = None) -> None:
        """Send the actor a message of the runtime, from any thread, unless this life is over or `is_wanted` says no."""
        self.name.mailbox.put_signal(self.lease, message, is_wanted)

    def ask_to_exit(self, reason: Reason) -> None:
        """The actor's own wish to end after the message at hand."""
        self.exit_asked = reason
        if self.current is None:
            self.order_stop(reason)

    def crash(self, reason: Reason) -> None:
        """End it by force, for a reason of its own."""
        self._forced = reason
        self.kill()

    def abandon(self, kind: str, incident: Hashable = None) -> None:
        """Leave it behind: fenced off, its exit reported, its code maybe still running.

        Abandonments with one cause outside the actors, such as a lost scheduler, carry the same `incident`.
        """
        self.context.cancelled = True
        if self.exit is None:
            self.incident = incident
        self._finish(Abandoned(kind))

    def make_up_exit(self) -> None:
        """Its host has ended and said nothing: say it instead. A zombie of which that is so is one no more."""
        is_first = self._finish(Crash("ExitLost", f"the {self.kind} it lived on ended without a word"))
        had_code_running, self.has_code_running = self.has_code_running, False
        if not is_first and had_code_running:
            self.release()
            self.owner.zombie_ended(self)


def _guarded(function: Callable[..., object], *arguments: Any) -> None:
    try:
        function(*arguments)
    except Exception:  # whose end this is must be reported all the same
        logger.exception("a callback at the end of an actor failed")
