"""One life behind a name, from construction to its exit, on whichever host it runs.

The life is written once, as a coroutine. On an event loop it is a task; in a thread it is driven to its end
without ever being suspended, because there every wait blocks. Whatever happens in it, `_finish` is reached
and reports exactly one exit.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from _thread import allocate_lock
from collections.abc import Awaitable, Callable, Hashable
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, Final, Protocol

import pykka

from supervision import faults
from supervision.construction import construct
from supervision.context import Context
from supervision.errors import ActorDeadError, ActorStuck
from supervision.exits import Abandoned, Crash, Exit, ForkLost, Killed, Normal, Reason, StartFailed, is_stuck
from supervision.mailbox import Fenced
from supervision.specs.child import IGNORE
from supervision.work import StopOrder, Work

if TYPE_CHECKING:
    from supervision.links import Link
    from supervision.mailbox import Envelope, Lease, Waiter
    from supervision.name import Name
    from supervision.waiting import waits

logger = logging.getLogger("supervision")

_KILLED: Final = Killed()


class Owner(Protocol):
    """Who started the incarnation and hears what becomes of it. Called on the incarnation's host."""

    def started(self, incarnation: Incarnation, info: Any) -> None: ...

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        """It has ended. Call `incarnation.release()` when its askers may hear of it."""

    def zombie_ended(self, incarnation: Incarnation) -> None:
        """The code of an abandoned incarnation has come to its end after all."""


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
        self.lock = allocate_lock()
        self.work = Work(self, expected_errors)
        self._stopped: threading.Event | None = None
        self.keeping = None if name.keeper is None else name.keeper.begin(self)
        left = None if name.keeper is None else name.keeper.value
        self.context = Context(name.path, self.epoch, name.clock, restart_reason, attempt, left)
        self.context.turn = self.work.present_turn
        self.context.system = name.system
        self.state = "starting"
        self.started_at = name.now()
        self.waiting: list[tuple[waits.Turn, Any]] = []
        self.is_acknowledged = False
        self.exit: Exit | None = None
        self.exit_asked: Reason | None = None
        self.at_end: dict[Any, Callable[[], object]] = {}
        self.monitors: dict[Any, Callable[[Exit], object]] = {}
        self.links: dict[Incarnation, Link] = {}
        self.has_code_running = False
        self.incident: Hashable = None
        self.kill_grace = kill_grace
        self._make = make
        self.is_killed = False
        self._forced: Reason | None = None
        name.incarnation = self

    @property
    def current(self) -> Envelope | None:
        """The message it handles now."""
        return self.work.current

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

    def waiter(self) -> Waiter:
        """What is to wake it from its next sleep."""
        raise NotImplementedError

    def sleep(self, waiter: Waiter) -> Awaitable[None]:
        """Wait to be woken: a thread in this call, a task where it awaits what is returned."""
        raise NotImplementedError

    async def give_way(self) -> None:
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
        self.work.begin_turn()
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
        if self.is_killed or self.exit is not None:
            return self._forced or Killed()
        if self.keeping is not None:
            reason = await self.keeping.before_stop(reason)
        return await self._stop(reason)

    def _is_up(self, info: Any) -> None:
        """Acknowledge the start, unless this life has been abandoned in the middle of it."""
        with self.lock:
            if self.exit is not None:
                raise Fenced
            self.state = "running"
            self.is_acknowledged = True
            pykka.ActorRegistry.register(self.name.ref)
        self.owner.started(self, info)
        for watch in list(self.name.watchers.values()):
            _guarded(watch.started, self)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a hook or handler, plain or async."""
        result = function(*arguments)
        if iscoroutine(result):
            return await result
        return result

    async def _receive(self) -> Reason:
        return await self.work.receive()

    # -- the end -----------------------------------------------------------------------------------

    def _reason_of(self, error: BaseException) -> Reason:
        if self.is_killed or isinstance(error, Fenced | GeneratorExit):
            return self._forced or Killed()
        return Crash.of(error)

    def _failed_to_start(self, error: BaseException) -> Reason:
        self.name.failed += 1
        return StartFailed(getattr(error, "exit_reason", None) or self._reason_of(error))

    async def _fail(self, error: BaseException) -> Reason:
        """A handler raised: the actor ends. `on_failure` is its last word, and may fail too."""
        reason = self._reason_of(error)
        self._begin_end()
        if self.is_killed:
            return reason
        self.name.failed += 1
        answer = error if isinstance(error, Exception) else self.error_of(reason)
        with self.lock:
            self.work.give_back(answer)
        try:
            await self._call(self.actor.on_failure, type(error), error, error.__traceback__)
        except BaseException as second:  # the crash before it is what counts
            self._note_failed_hook("on_failure", second)
        return reason

    async def _stop(self, reason: Reason) -> Reason:
        self._begin_end()
        self.work.begin_turn()
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
        with self.lock:
            if self.exit is not None:
                raise Fenced
            self.state = "stopping"
            self._leave_registry()

    @property
    def stopped(self) -> threading.Event:
        """Pykka's `actor_stopped`: set once the actor takes no more messages. Made for who asks."""
        with self.lock:
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
        with self.lock:
            if self.exit is not None:
                return False
            exit = self.exit = Exit(name.path, self.epoch, reason, name.now())
            self.state = "ended"
            self.work.give_back(self.error_of(reason))
            monitors, self.monitors = self.monitors, {}
            at_end, self.at_end = self.at_end, {}
            self._leave_registry()
        # Each step by itself: who waits for this end must hear of it, whatever goes wrong on the way.
        _guarded(name.mailbox.revoke, self.lease)
        _guarded(self.work.put_back)
        if self.keeping is not None:
            _guarded(self.keeping.ended, exit)
        for cleanup in list(at_end.values()):
            _guarded(cleanup)
        if isinstance(reason, Abandoned):
            _guarded(self.work.fence_replies)
        name.last_exit = exit
        if name.incarnation is self:
            name.incarnation = None
        for watch in list(name.watchers.values()):  # before anybody can start a successor
            _guarded(watch.ended, self, exit)
        self.owner.ended(self, exit)
        for report in list(monitors.values()):
            _guarded(report, exit)
        return True

    def error_of(self, reason: Reason) -> BaseException:
        """What those are told whose message this life has not answered."""
        kind = ActorStuck if is_stuck(reason) else ActorDeadError
        return kind(self.name.path, reason)

    def release(self) -> None:
        """Let those hear of the end who waited for an answer. Idempotent."""
        self.work.release()

    def unanswered(self) -> list[Envelope]:
        """The messages in its hands; for the child of a fork, where it does not live."""
        self.exit = Exit(self.name.path, self.epoch, ForkLost(), 0.0)
        return [*self.work.unfinished, *(reply.envelope for reply in self.work.owed)]

    # -- from outside ------------------------------------------------------------------------------

    def watch(self, token: Any, report: Callable[[Exit], object]) -> Exit | None:
        """Have `report` called once with the exit of this life. If it is over, nothing is called: the exit is here."""
        with self.lock:
            if self.exit is None:
                self.monitors[token] = report
            return self.exit

    def unwatch(self, token: Any) -> None:
        self.monitors.pop(token, None)

    def when_over(self, token: Any, cleanup: Callable[[], object]) -> None:
        """Have `cleanup` called at the end of this life; at once if it is over."""
        with self.lock:
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
        with contextlib.suppress(Exception):  # a log handler's fault neither
            logger.exception("a callback at the end of an actor failed")
