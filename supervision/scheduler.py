"""A thread that runs an event loop, on which actors live."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import threading
import weakref
from collections.abc import Callable
from threading import get_ident
from typing import Any

from supervision.event_loop import new_loop

logger = logging.getLogger("supervision")

_scheduler_threads: set[int] = set()


def on_scheduler_thread() -> bool:
    """True where blocking would stop a scheduler."""
    return get_ident() in _scheduler_threads


class Scheduler:
    """One event loop in one daemon thread.

    `post` may be called from any thread; everything else of the loop only from its own. A stray task that
    lets a SystemExit or KeyboardInterrupt out ends `run_forever`; the loop is then entered again, for one
    actor's fault must not stop the others.
    """

    hosts_everything = False
    """True where the supervisors live on it too, and there is no thread but the caller's: see the test kit."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = new_loop()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"supervision-{name}", daemon=True)
        self._running = threading.Event()
        self._thread.start()
        self._running.wait()
        _schedulers.add(self)

    @property
    def thread(self) -> threading.Thread:
        return self._thread

    @property
    def is_current(self) -> bool:
        # Not by its number: a thread that has ended leaves that to the next one.
        return threading.current_thread() is self._thread

    def post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        """Call `function` soon on the loop's thread. False if the scheduler has ended."""
        # In a context of its own: that of the caller, perhaps a dying actor's, would be handed on from call to call.
        context = contextvars.Context()
        try:
            if get_ident() == self._thread.ident:
                self.loop.call_soon(function, *arguments, context=context)
            else:
                self.loop.call_soon_threadsafe(function, *arguments, context=context)
        except RuntimeError:  # the loop is closed
            return False
        return True

    def _run(self) -> None:
        ident = get_ident()
        _scheduler_threads.add(ident)
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

    def _close(self) -> None:
        """Cancel what is left, give it a second, and carry out what had been posted by then."""
        loop = self.loop
        try:
            leftover = asyncio.all_tasks(loop)
            for task in leftover:
                task.cancel()
            if leftover:
                loop.run_until_complete(asyncio.wait(leftover, timeout=1.0))
            loop.run_until_complete(loop.shutdown_asyncgens())
        except BaseException as error:  # let out by a stray task, once more
            logger.warning("%s: %r left a task while the loop was closed", self.name, error)
        finally:
            executor = getattr(loop, "_default_executor", None)
            if executor is not None:  # asyncio's own way of closing it waits for ever
                executor.shutdown(wait=False, cancel_futures=True)
            asyncio.set_event_loop(None)
            loop.close()

    def stop(self, timeout: float | None = 5.0) -> bool:
        """End the loop and wait for its thread. False if the thread is still there after `timeout` seconds."""
        self.begin_stop()
        if not self.is_current:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def begin_stop(self) -> None:
        """End the loop as soon as it comes round."""

        def end() -> None:
            self._stopping = True
            self.loop.stop()

        self.post(end)


_schedulers: weakref.WeakSet[Scheduler] = weakref.WeakSet()
_default: Scheduler | None = None
_default_lock = threading.Lock()


def default_scheduler() -> Scheduler:
    """The scheduler of actors that were started outside any system; made at the first use."""
    global _default
    with _default_lock:
        if _default is None or not _default.thread.is_alive():
            _default = Scheduler("default")
        return _default


def _lose_all_after_fork() -> None:
    """The threads are in the parent: here every `post` is refused, as by a scheduler that has ended."""
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()
    _scheduler_threads.clear()
    for scheduler in list(_schedulers):
        scheduler.loop = asyncio.new_event_loop()
        scheduler.loop.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
