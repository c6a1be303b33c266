"""Where a life runs: as a task on a scheduler's loop, or in a daemon thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from _thread import allocate_lock
from collections.abc import Awaitable, Callable, Generator
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, cast

from supervision import faults
from supervision.exits import Crash, Killed, StartFailed
from supervision.incarnation import Incarnation

if TYPE_CHECKING:
    from supervision.mailbox import Waiter


class _Awake:
    """Nothing to wait for: in a thread the wait is over when the call returns."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


_AWAKE: Final = _Awake()


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
            context = contextvars.Context()
            self._task = self.scheduler.loop.create_task(self.live(), name=self.name.path, context=context)

    def _waiter(self) -> Waiter:
        loop = self.scheduler.loop
        return loop, loop.create_future(), get_ident()

    def _sleep(self, waiter: Waiter) -> Awaitable[None]:
        return cast("Awaitable[None]", waiter[1])

    async def _yield(self) -> None:
        await asyncio.sleep(0)

    def kill(self) -> None:
        self._killed = True
        self.context.cancelled = True
        self.exit_asked = self._forced or Killed()
        if not self.scheduler.post(self._cancel):
            self.abandon("its scheduler has ended")

    def _cancel(self) -> None:
        if self.exit is not None:
            return
        if self._task is not None:
            self._task.cancel()
        if not self.has_code_running:  # a task that is cancelled before its first step never takes one
            self._finish(self._forced or Killed())
        else:
            self._give_grace()

    def _give_grace(self) -> None:
        if "kill" not in self.at_end:
            loop = self.scheduler.loop
            self.at_end["kill"] = loop.call_later(self.kill_grace, self.abandon, "ignored its cancellation").cancel


class ThreadIncarnation(Incarnation):
    """A life in a daemon thread of its own, where it may block."""

    kind = "thread"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.thread: threading.Thread | None = None
        self._gate = allocate_lock()  # closed; each sleep passes it once, and it closes again behind
        self._gate.acquire()

    def begin(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"supervision-actor-{self.name.path}", daemon=True)
        self.has_code_running = True
        try:
            if faults.armed:
                faults.starts_thread(self)
            self.thread.start()
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

    def _waiter(self) -> Waiter:
        return None, self._gate.release, 0

    def _sleep(self, waiter: Waiter) -> Awaitable[None]:
        self._gate.acquire()
        return _AWAKE

    def kill(self) -> None:
        self._killed = True
        self.abandon("a thread cannot be killed")
