"""An event that a signal handler may set while the very thread it interrupts waits for it."""

from __future__ import annotations

import contextlib
import queue


class Flag:
    """As `threading.Event`, for one thread that waits: that one's lock may be held where the signal comes.

    Source: the documentation of `queue.SimpleQueue`, whose `put` is reentrant for this purpose.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        self._is_set = True
        self._news.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds. True if it is set."""
        if not self._is_set:
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=timeout)
        return self._is_set
