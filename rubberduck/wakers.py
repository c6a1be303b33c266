"""Something that sleeps until another thread wakes it: a plain thread, or a coroutine on some event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any


class Waker:
    """Wakes one future of one loop, from any thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self.future = future

    def wake(self) -> None:
        if asyncio._get_running_loop() is self._loop:
            self._set()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed; nobody sleeps there any more
                self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


class ThreadWaker:
    """Wakes one plain thread."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()

    def wake(self) -> None:
        self._gate.release()

    def wait(self) -> None:
        """Sleep until woken."""
        self._gate.acquire()


def cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel a task of `loop`, from any thread."""
    with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)
