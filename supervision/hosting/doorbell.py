"""Wakes sleepers on another thread's event loop: one ring for all that are to be woken before it is heard.

Each `call_soon_threadsafe` costs a system call on either side. Where many replies reach one loop at a time, the
first rings and the others only join the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import weakref
from collections import deque

_bells: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Doorbell] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


class Doorbell:
    """The bell of one loop. `wake` may be called from any thread."""

    __slots__ = ("__weakref__", "_is_rung", "_loop", "_sleepers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        self._sleepers: deque[asyncio.Future[None]] = deque()
        self._is_rung = False

    def wake(self, sleeper: asyncio.Future[None]) -> None:
        """Have `sleeper` done soon. Without effect if the loop is closed: nobody sleeps there any more."""
        self._sleepers.append(sleeper)
        if self._is_rung:
            return
        self._is_rung = True
        loop = self._loop()
        try:
            if loop is not None:
                # In an empty context: that of the caller, perhaps a dying actor's, would be kept alive by the loop.
                loop.call_soon_threadsafe(self._answer, context=contextvars.Context())
        except RuntimeError:
            self._is_rung = False
            self._sleepers.clear()

    def _answer(self) -> None:
        # Before looking: who comes from now on rings again, or is found below.
        self._is_rung = False
        with contextlib.suppress(IndexError):
            while True:
                sleeper = self._sleepers.popleft()
                if not sleeper.done():
                    sleeper.set_result(None)


def bell_of(loop: asyncio.AbstractEventLoop) -> Doorbell:
    """The bell of a loop, made at its first use."""
    bell = _bells.get(loop)
    if bell is None:
        with _lock:
            bell = _bells.setdefault(loop, Doorbell(loop))
    return bell
