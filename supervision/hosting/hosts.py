"""Where a life runs: as a task on a scheduler's loop, or in a daemon thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from _thread import allocate_lock
from collections.abc import Awaitable, Callable, Generator, Hashable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, cast

from supervision import faults
from supervision.exits import Crash, Killed, Reason, StartFailed
from supervision.incarnation import Incarnation

if TYPE_CHECKING:
    from supervision.hosting.scheduler import Scheduler
    from supervision.mailbox import Envelope, Waiter


STANDSTILL = 0.1
"""Seconds by which a loop may be late before it counts as having stood still."""


class Stuck(BaseException):
    """Raised in the middle of a handler that took too long, in actors that declare themselves `interruptible`."""

    why = ""

    def __str__(self) -> str:
        return self.why


class _Awake:
    """Nothing to wait for: in a thread the wait is over when the call returns."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_AWAKE: Final = _Awake()


class LoopIncarnation(Incarnation):
    """A life as a task on a scheduler's loop."""

    kind = "loop"

    def __init__(self, *arguments: Any, scheduler: Scheduler, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.scheduler = scheduler
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        while self.exit is None and not self._is_taken_in():
            fresh = self.scheduler.present
            if fresh is self.scheduler:
                self._finish(StartFailed(Crash("SystemClosed", "the scheduler has ended")))
            self.scheduler = fresh

    def _is_taken_in(self) -> bool:
        """Ask the scheduler for a task. It knows of this life before, so that it can tell if it is given up."""
        self.scheduler.lives.add(self)
        self._has_begun = self.scheduler.post(self._begin)
        if not self._has_begun or (self.exit is not None and not self.has_code_running):
            self.scheduler.lives.discard(self)
        return self._has_begun

    def _begin(self) -> None:
        if self.exit is not None:
            return
        if self.scheduler.is_ending:
            self._finish(StartFailed(Crash("SystemClosed", "the scheduler has ended")))
            return
        # A context of its own: what the starter had set there is not the actor's business.
        context = contextvars.Context()
        self._task = self.scheduler.loop.create_task(self.live(), name=self.name.path, context=context)

    def _finish(self, reason: Reason) -> bool:
        is_first = super()._finish(reason)
        if not self.has_code_running:
            self.scheduler.lives.discard(self)
        return is_first

    async def _before_exit(self, reason: Reason) -> None:
        await super()._before_exit(reason)
        self.scheduler.lives.discard(self)

    @property
    def is_host_gone(self) -> bool:
        if self._task is not None and self._task.done():
            return True
        return self._has_begun and self.scheduler.is_over

    @property
    def zombie_key(self) -> Hashable:
        is_lost = self.scheduler is not None and self.scheduler.is_abandoned
        return self.scheduler if is_lost else self

    def cancel_turn(self, turn: int, why: Crash) -> None:
        """End it by cancellation, for the reason `why`, if it is at this turn still. From any thread."""
        self.scheduler.post(self._cancel_turn, turn, why)

    def _cancel_turn(self, turn: int, why: Crash) -> None:
        if self.work.turn == turn and self.current is not None and self.exit is None:
            self.crash(why)

    def waiter(self) -> Waiter:
        loop = self.scheduler.loop
        return loop, loop.create_future(), get_ident()

    def sleep(self, waiter: Waiter) -> Awaitable[None]:
        return cast("Awaitable[None]", waiter[1])

    async def give_way(self) -> None:
        await asyncio.sleep(0)

    def kill(self) -> None:
        self.is_killed = True
        self.context.cancelled = True
        self.exit_asked = self._forced or Killed()
        if not self.scheduler.post(self._cancel):
            self.abandon("scheduler")

    def _cancel(self) -> None:
        if self._cancel_task(self._forced or Killed()):
            self._give_grace()

    def _cancel_task(self, reason: Reason) -> bool:
        """Cancel it, on its loop. True if its code has begun and is yet to end; else it ends here, for `reason`."""
        if self.exit is not None:
            return False
        if self._task is not None:
            self._task.cancel()
        if not self.has_code_running:  # a task that is cancelled before its first step never takes one
            self._finish(reason)
        return self.has_code_running

    def _give_grace(self) -> None:
        if "kill" not in self.at_end:
            why = "ignored its cancellation"
            if self._forced is not None:
                why = f"{why}, which was for: {self._forced}"
            self._await_end(why)

    def _await_end(self, why: str) -> None:
        loop = self.scheduler.loop
        until = loop.time() + self.kill_grace
        self.at_end["kill"] = loop.call_at(until, self._lose_patience, until, why).cancel

    def _lose_patience(self, until: float, why: str) -> None:
        """Leave it behind. Where the loop stood still meanwhile it had no time to end, and gets its grace anew."""
        if self.exit is None and self.scheduler.loop.time() - until > STANDSTILL:
            self._await_end(why)
        else:
            self.abandon(why)


class ThreadIncarnation(Incarnation):
    """A life in a daemon thread of its own, where it may block."""

    kind = "thread"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.thread: threading.Thread | None = None
        self._interrupted: Envelope | None = None
        self._gate = allocate_lock()  # closed; each sleep passes it once, and it closes again behind
        self._gate.acquire()

    def begin(self) -> None:
        if self.exit is not None:  # killed before its begin
            return
        thread = threading.Thread(target=self._run, name=f"supervision-actor-{self.name.path}", daemon=True)
        self.has_code_running = True
        try:
            if faults.armed:
                faults.starts_thread(self)
            thread.start()
            self.thread = thread  # not before: a thread that has not been started looks like one that has ended
        except (RuntimeError, faults.InjectedFault) as error:  # the machine has no more threads to give
            self.has_code_running = False
            self._finish(StartFailed(Crash.of(error)))

    def _run(self) -> None:
        life = self.live()
        try:
            life.send(None)  # runs to the end: in a thread every wait blocks
            while True:
                life.throw(RuntimeError(f"{self.name.path} lives in a thread and has no event loop to await on"))
        except StopIteration:
            pass

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)

    def waiter(self) -> Waiter:
        return None, self._gate.release, 0

    def sleep(self, waiter: Waiter) -> Awaitable[None]:
        self._gate.acquire()
        return _AWAKE

    @property
    def is_host_gone(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()

    def kill(self) -> None:
        self.is_killed = True
        self.abandon("a thread cannot be killed")

    def interrupt(self, turn: int, why: str) -> bool:
        """Raise Stuck in its handler if it is at this turn still; it comes with the next Python instruction.

        Not before one: code that waits in C, for a socket or a lock, is not interrupted. From any thread.
        """
        kind = type("Stuck", (Stuck,), {"why": why})
        # The lock keeps it in its turn until the exception is on its way.
        with self.lock:
            if self.work.turn != turn or self.current is None or self.exit is not None or self.thread is None:
                return False
            self._interrupted = self.current
            ident = ctypes.c_ulong(self.thread.ident or 0)
            return bool(ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(kind)))

    async def _fail(self, error: BaseException) -> Reason:
        if isinstance(error, Stuck) and self.current is None:
            self._answer_interrupted(error)
        return await super()._fail(error)

    def _answer_interrupted(self, error: Stuck) -> None:
        """The exception came when the message had been let go of already, and nobody has answered it."""
        envelope = self._interrupted
        if envelope is not None and envelope.reply_to is not None and not envelope.reply_to.done:
            self.work.leave(envelope, self.error_of(Crash.of(error)))
