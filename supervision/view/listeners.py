"""Tells listeners of one thing after another, on a thread of their own: they can neither break nor delay who tells."""

from __future__ import annotations

import itertools
import logging
import threading
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("supervision")

Listener = Callable[..., object]


class Listeners:
    """Calls every listener with what is `put`, in that order, and drops nothing. There is a thread while there are any.

    `put` may be called under a lock: it wakes nobody. `ring` does, and is called afterwards.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._numbers = itertools.count(1)
        self._lock = allocate_lock()
        self._audience: _Audience | None = None

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with all news from now on. Returns the function that ends it."""
        with self._lock:
            if self._audience is None:
                self._audience = _Audience()
                name = f"supervision-listeners-{self._name}"
                threading.Thread(target=self._audience.run, name=name, daemon=True).start()
            audience, number = self._audience, next(self._numbers)
            audience.listeners[number] = listener
        return lambda: self._unlisten(audience, number)

    def _unlisten(self, audience: _Audience, number: int) -> None:
        with self._lock:
            audience.listeners.pop(number, None)
            if audience.listeners:
                return
            if self._audience is audience:
                self._audience = None
        audience.end()

    def put(self, *news: Any) -> None:
        """Add something to tell, if anybody listens."""
        if (audience := self._audience) is not None:
            audience.news.append(news)

    def ring(self) -> None:
        """Have what was put told soon."""
        if (audience := self._audience) is not None and audience.news:
            audience.bell.set()

    def close(self) -> None:
        """Tell what has been put, and end the thread. Does not wait for it."""
        with self._lock:
            audience, self._audience = self._audience, None
        if audience is not None:
            audience.end()


class _Audience:
    """Those who listen from the first one's coming to the last one's going, and what they have yet to hear."""

    def __init__(self) -> None:
        self.listeners: dict[int, Listener] = {}
        self.news: deque[tuple[Any, ...]] = deque()
        self.bell = threading.Event()
        self._is_over = False

    def end(self) -> None:
        self._is_over = True
        self.bell.set()

    def run(self) -> None:
        is_last = False
        while not is_last:
            self.bell.wait()
            self.bell.clear()
            is_last = self._is_over
            while self.news:
                self._tell(self.news.popleft())

    def _tell(self, news: tuple[Any, ...]) -> None:
        for listener in list(self.listeners.values()):
            try:
                listener(*news)
            except BaseException:  # a listener's fault is its own, and ends nobody's news
                logger.exception("a listener failed on %s", news)
