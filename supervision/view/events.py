"""What happens in a tree, told to whoever wants to know; a listener can neither break nor delay it.

event               of whom                 epoch  reason  further fields, in `info`
child_started       who is up               yes    -       -
child_exited        who has ended           yes    yes     -
child_restarted     who is up again         yes    of end  attempt: the n-th try
child_start_failed  who did not start       yes    yes     attempt
backoff             who waits               yes    -       delay: seconds; step: the n-th wait in a row
paused              who waits               yes    -       delay: seconds
exhausted           whose restart is not    yes    of end  action: escalate, drop_child or the pause
                    tolerated               -      of end  action: escalate; why: what forbids a replacement
dropped             who is given up         yes    of end  -
shutdown_error      who did not stop as     yes    yes     -
                    its spec promises
long_turn           who is at it for long,  yes    -       message: type; seconds; stack: text
                    or a scheduler          -      -       message: None; seconds; stack
scheduler_blocked   a scheduler             -      -       actor: path or None; seconds; stack
abandoned           who was left behind     yes    yes     -
zombie_ended        whose code has ended    yes    -       -
dead_letter         whose message it was    -      -       message: type
state_quarantined   whose state was bad     yes    yes     state: where it is now
snapshot_failed     whose snapshot failed   yes    yes     -
log_cut             whose event log it is   yes    -       size_bytes; why
log_damaged         whose event log it is   yes    -       size_bytes; why; moved_to
unstopped           who is left at the end  yes    -       -
stopped             the system              -      -       -
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from supervision.errors import SpecError

logger = logging.getLogger("supervision")

CAPACITY = 10_000
"""How many events wait for slow listeners before further ones are dropped and counted."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `name` is a word such as child_restarted, `at` the system clock's time in seconds."""

    name: str
    path: str
    at: float
    epoch: int | None = None
    reason: Any = None
    info: Mapping[str, Any] = field(default_factory=lambda: _NOTHING)


Listener = Callable[[Event], object]


class EventStream:
    """Delivers events in order, on a thread of its own that exists while there are listeners.

    `post`, where given, is what calls a function later in that thread's place.
    """

    def __init__(self, name: str, post: Callable[[Callable[[], object]], object] | None = None) -> None:
        self._name = name
        self._post = post
        self._listeners: dict[int, Listener] = {}
        self._count = 0
        self._lock = threading.Lock()
        self._queue: queue.Queue[Event | None] = queue.Queue(CAPACITY)
        self._thread: threading.Thread | None = None
        self._closed: threading.Thread | None = None
        self.dropped = 0

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Have `listener` called with every event from now on. Returns the function that ends it."""
        if not callable(listener):
            raise SpecError(f"subscribe(listener): {listener!r} cannot be called with an event")
        with self._lock:
            self._count += 1
            key = self._count
            self._listeners[key] = listener
            if self._thread is None and self._post is None:
                self._start_thread(key)
        return lambda: self._unsubscribe(key)

    def _start_thread(self, key: int) -> None:
        thread = threading.Thread(target=self._deliver, name=f"supervision-events-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the machine has no more threads to give: nobody listens
            del self._listeners[key]
            raise
        self._thread = thread

    def _unsubscribe(self, key: int) -> None:
        with self._lock:
            was_last = self._listeners.pop(key, None) is not None and not self._listeners
        if was_last:
            self.close()

    @property
    def has_listeners(self) -> bool:
        return bool(self._listeners)

    @property
    def is_current(self) -> bool:
        """True in a listener."""
        return threading.current_thread() is self._thread

    @property
    def is_hanging(self) -> bool:
        """True while a listener has still not come back after the end."""
        return self._closed is not None and self._closed.is_alive() and self._thread is None

    def emit(self, event: Event) -> None:
        """Tell all listeners, later."""
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self.dropped += 1
            return
        if self._post is not None:
            self._post(self._deliver_next)

    def close(self, timeout: float = 2.0) -> bool:
        """Deliver what is waiting and end the thread. A later subscription starts anew.

        False if a listener still has not come back after `timeout` seconds.
        """
        with self._lock:
            thread, self._thread = self._thread, None
            self._closed = thread or self._closed
        if thread is None:
            while self._post is not None and not self._queue.empty():
                self._deliver_next()
            return True
        self._put_end()
        if thread is not threading.current_thread():
            thread.join(timeout)
            return not thread.is_alive()
        return True

    def _put_end(self) -> None:
        while True:
            try:
                return self._queue.put_nowait(None)
            except queue.Full:  # a listener hangs: the end goes before what nobody will hear
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                    self.dropped += 1

    def _deliver(self) -> None:
        while (event := self._queue.get()) is not None:
            self._tell(event)

    def _deliver_next(self) -> None:
        with contextlib.suppress(queue.Empty):  # delivered already, when the stream was closed
            if (event := self._queue.get_nowait()) is not None:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(event)
            except BaseException:  # a listener's fault is its own, a SystemExit too: others want to hear more
                logger.exception("a listener failed on %s of %s", event.name, event.path)
