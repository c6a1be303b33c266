"""A thread that runs an event loop, on which actors live."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from supervision.hosting.loop_timer import LoopTimer
    from supervision.incarnation import Incarnation

from supervision.hosting.event_loop import new_loop

logger = logging.getLogger("supervision")

_scheduler_threads: set[int] = set()
_running_here: dict[int, Scheduler] = {}


def on_scheduler_thread() -> bool:
    """True where blocking would stop a scheduler."""
    return get_ident() in _scheduler_threads


def scheduler_here() -> Scheduler | None:
    """The scheduler whose thread this is."""
    return _running_here.get(get_ident())


LAST_WAIT = 0.5
"""Seconds that a scheduler's end waits for the threads of `asyncio.to_thread`."""


class Scheduler:
    """One event loop in one daemon thread.

    `post` may be called from any thread; everything else of the loop only from its own. A stray task that
    lets a SystemExit or KeyboardInterrupt out ends `run_forever`; the loop is then entered again, for one
    actor's fault must not stop the others.

    A scheduler whose thread does not come back can be given up: `abandon`. Who keeps hold of a scheduler for longer
    goes by `present`, which is then another one.
    """

    hosts_everything = False
    """True where the supervisors live on it too, and there is no thread but the caller's: see the test kit."""

    _door: Any
    _successor: Scheduler | None
    lives: set[Incarnation]
    """Those whose code is on this loop, zombies included. From any thread."""

    timers: dict[LoopTimer, None]
    """Calls that others may wait for, arranged on this loop."""

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        # Here, because a scheduler without a thread of its own does without the `__init__` below.
        self = super().__new__(cls)
        self.lives, self.timers = set(), {}
        self._successor = None
        self._is_closed = self._stopping = False
        self._door = threading.RLock()  # reentrant: what the garbage collector calls in the middle may post too
        return self

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = new_loop()
        self._thread = threading.Thread(target=self._run, name=f"supervision-{name}", daemon=True)
        self._running = threading.Event()
        try:
            self._thread.start()
        except RuntimeError:  # the machine has no more threads to give
            self.loop.close()
            raise
        self._running.wait()
        _schedulers.add(self)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    @property
    def is_current(self) -> bool:
        # Not by its number: a thread that has ended leaves that to the next one.
        return threading.current_thread() is self._thread

    @property
    def is_ending(self) -> bool:
        """True once it is about to end, or has: what begins a life there now would not see it through."""
        return self._stopping

    @property
    def is_over(self) -> bool:
        """True once its thread has ended."""
        return not self._thread.is_alive()

    def post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call `function` soon on the loop's thread. False if the scheduler has ended, or been given up.

        What has been accepted is carried out, unless the scheduler is given up before.
        """
        # In a context of its own: that of the caller, perhaps a dying actor's, would be handed on from call to call.
        context = contextvars.Context()
        with self._door:
            if self._is_closed:
                return False
            if get_ident() == self._thread.ident:
                self.loop.call_soon(function, *arguments, context=context)
            else:
                self.loop.call_soon_threadsafe(function, *arguments, context=context)
            return True

    def _run(self) -> None:
        ident = get_ident()
        _scheduler_threads.add(ident)
        _running_here[ident] = self
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._running.set)
        try:
            while not self._stopping:
                try:
                    self.loop.run_forever()
                except BaseException as error:  # let out by a stray task: see the class
                    logger.warning("%s: %r left a task; the loop goes on", self.name, error)
        finally:
            self._close()
            _scheduler_threads.discard(ident)
            _running_here.pop(ident, None)

    def _close(self) -> None:
        """Cancel what is left, give it a second, and carry out what had been posted by then."""
        loop, self._stopping = self.loop, True
        self._run_guarded(self._cancel_leftover)
        self._run_guarded(loop.shutdown_asyncgens)
        with self._door:
            self._is_closed = True
        self._run_guarded(_let_all_pass)
        _end_executor(loop)
        asyncio.set_event_loop(None)
        loop.close()
        for life in list(self.lives):
            life.make_up_exit()

    def _run_guarded(self, function: Callable[[], Any]) -> None:
        try:
            self.loop.run_until_complete(function())
        except BaseException as error:  # let out by a stray task, once more
            logger.warning("%s: %r left a task while the loop was closed", self.name, error)

    async def _cancel_leftover(self) -> None:
        leftover = asyncio.all_tasks(self.loop) - {asyncio.current_task(self.loop)}
        for task in leftover:
            task.cancel()
        if not leftover:
            return
        _, deaf = await asyncio.wait(leftover, timeout=1.0)
        for task in deaf:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # as asyncio.gather: told here instead
        if deaf:
            names = sorted(task.get_name() for task in deaf)
            logger.warning("%s: %d tasks ignored their cancellation: %s", self.name, len(deaf), ", ".join(names[:10]))

    def stop(self, timeout: float | None = 5.0) -> bool:
        """End the loop and wait for its thread. False if the thread is still there after `timeout` seconds.

        Of a scheduler that has been given up the present one is ended, and not waited for the other.
        """
        if self._successor is not None:
            return self._successor.stop(timeout) and self.is_over
        self.begin_stop()
        if not self.is_current:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def begin_stop(self) -> None:
        """End the loop as soon as it comes round."""

        def end() -> None:
            if not self._stopping:  # a second one would cut short what is waited for while the loop is closed
                self._stopping = True
                self.loop.stop()

        self.post(end)

    # -- given up ----------------------------------------------------------------------------------

    @property
    def is_abandoned(self) -> bool:
        """True once it has been given up: its thread may be there for ever, and does nothing that counts."""
        return self._successor is not None

    @property
    def present(self) -> Scheduler:
        """The scheduler that takes this one's place, which is mostly this one."""
        scheduler = self
        while scheduler._successor is not None:
            scheduler = scheduler._successor
        return scheduler

    def abandon(self, incident: Hashable = None) -> bool:
        """Give it up, because its thread does not come back: whoever lives there ends `Abandoned("scheduler")`.

        From here on it accepts nothing; timers that others wait for go to a fresh scheduler, `present`. Should the
        thread come back, its tasks are cancelled and it ends. May be called from any other thread. False if somebody
        has done so already, or it has ended.

        Raises:
            RuntimeError: there is no thread for a fresh one; nothing has changed.
        """
        with _abandoning:
            if self._successor is not None or self._is_closed:
                return False
            fresh = Scheduler(_next_name(self.name))
            with self._door:
                self._is_closed = self._stopping = True
                self.loop.call_soon_threadsafe(self._end_after_return, context=contextvars.Context())
            self._successor = fresh
        for timer in list(self.timers):
            timer.move(self, fresh)
        for life in list(self.lives):
            life.abandon("scheduler", incident)
        return True

    def _end_after_return(self) -> None:
        # Before anything else: tasks that have become ready in the meantime are to find themselves cancelled.
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.stop()


def _end_executor(loop: asyncio.AbstractEventLoop) -> None:
    """End the threads of `asyncio.to_thread`: the idle ones are gone after this, a busy one is waited for briefly.

    Asyncio's own way of closing it would wait for ever.
    """
    executor = getattr(loop, "_default_executor", None)
    if executor is None:
        return
    executor.shutdown(wait=False, cancel_futures=True)
    until = time.monotonic() + LAST_WAIT
    for thread in list(getattr(executor, "_threads", ())):
        thread.join(max(0.0, until - time.monotonic()))


async def _let_all_pass() -> None:
    """Be the last in the queue twice: what was posted runs, and what it posts to its own loop."""
    for _ in range(2):
        await asyncio.sleep(0)


def _next_name(name: str) -> str:
    stem, _, number = name.rpartition("#")
    return f"{stem}#{int(number) + 1}" if stem and number.isdigit() else f"{name}#2"


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()
_default: Scheduler | None = None
_default_lock = threading.Lock()
_abandoning = threading.Lock()


def default_scheduler() -> Scheduler:
    """The scheduler of actors that were started outside any system; made at the first use."""
    global _default
    with _default_lock:
        if _default is not None:
            _default = _default.present
        if _default is None or _default.is_over:
            _default = Scheduler("default")
        return _default


def _lose_all_after_fork() -> None:
    """The threads are in the parent: here every `post` is refused, as by a scheduler that has ended."""
    global _default, _default_lock, _abandoning
    _default, _default_lock, _abandoning = None, threading.Lock(), threading.Lock()
    _scheduler_threads.clear()
    _running_here.clear()
    for scheduler in list(_schedulers):
        scheduler._door, scheduler._is_closed = threading.RLock(), True
        scheduler.loop = asyncio.new_event_loop()
        scheduler.loop.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
