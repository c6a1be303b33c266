"""Tells handlers what happens, without making what happens wait for them.

Modelled on Erlang's `telemetry` (hexdocs.pm/telemetry): events are tuples, handlers are attached under an id,
one that raises is detached. Unlike there, handlers run on a thread of their own, so that a slow one delays no
call; only those attached with `inline=True` run where the event happens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

from rubberduck.telemetry.names import HANDLER_FAILED, Event

SLOTS = 10_000
THREAD_NAME = "duck-telemetry"

Handler = Callable[[Event, Mapping[str, Any], Mapping[str, Any], Any], object]
"""Called with (event, measurements, metadata, config)."""

_NOTHING: Mapping[str, Any] = {}
_logger = logging.getLogger("rubberduck.telemetry")


class AlreadyAttached(ValueError):
    """A handler of this id is attached; detach it first, or use another id."""


@dataclass(frozen=True, slots=True)
class HandlerInfo:
    """An attached handler, as `Bus.handlers` lists it."""

    id: str
    events: tuple[Event, ...]
    inline: bool


@dataclass(slots=True, eq=False)
class _Attachment:
    info: HandlerInfo
    handler: Handler
    config: Any
    worker: _Worker | None
    is_attached: bool = True


@dataclass(frozen=True, slots=True)
class _Delivery:
    attachment: _Attachment
    event: Event
    measurements: Mapping[str, Any]
    metadata: Mapping[str, Any]


class Bus:
    """The way from those who tell of events to those who listen. All methods may be called from any thread."""

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._lock = threading.RLock()
        self._attachments: dict[str, _Attachment] = {}
        # Replaced as a whole and never changed, so that `execute` reads it without the lock.
        self._by_event: dict[Event, tuple[_Attachment, ...]] = {}
        self._worker: _Worker | None = None
        self._dropped = 0

    def attach(
        self,
        id: str,
        events: Iterable[Event],
        handler: Handler,
        config: Any = None,
        *,
        inline: bool = False,
    ) -> None:
        """Call `handler(event, measurements, metadata, config)` for each of `events`, exact names only.

        With `inline` it runs where the event happens and must be quick; otherwise on the telemetry thread.

        Raises:
            AlreadyAttached: the id is taken.
            ValueError: there are no events, or one is not a tuple of words.
        """
        info = HandlerInfo(id, _checked(events), inline)
        with self._lock:
            if id in self._attachments:
                raise AlreadyAttached(f"a telemetry handler {id!r} is attached already")
            worker = None if inline else self._started_worker()
            self._attachments[id] = _Attachment(info, handler, config, worker)
            self._rebuild()

    def detach(self, id: str) -> bool:
        """Call a handler no more, not even for events that wait for it; True if it was attached.

        A call that is running finishes. With the last handler the telemetry thread ends.
        """
        with self._lock:
            attachment = self._attachments.pop(id, None)
            if attachment is None:
                return False
            attachment.is_attached = False
            self._rebuild()
            idle = self._worker if all(other.info.inline for other in self._attachments.values()) else None
            if idle:
                self._worker = None
        if idle:
            idle.stop()
        return True

    def execute(
        self, event: Event, measurements: Mapping[str, Any] = _NOTHING, metadata: Mapping[str, Any] = _NOTHING
    ) -> None:
        """Tell of an event. Never raises, never waits; costs next to nothing while nobody listens.

        The mappings are handed on as they are: the teller must not change them afterwards.
        """
        attachments = self._by_event.get(event)
        if attachments is None:
            return
        for attachment in attachments:
            delivery = _Delivery(attachment, event, measurements, metadata)
            if attachment.worker is None:
                self._deliver(delivery)
            elif not attachment.worker.offer(delivery):
                self._count_dropped()

    def is_attached(self, event: Event) -> bool:
        """Whether anybody listens to `event`: for those whom it would cost something to put together what to tell."""
        return event in self._by_event

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all events told so far have been handled; False if that took longer, in seconds.

        On the telemetry thread itself it cannot wait, and returns False.
        """
        worker = self._worker
        return True if worker is None else worker.flush(timeout)

    @property
    def dropped(self) -> int:
        """How many deliveries found no slot."""
        return self._dropped

    def handlers(self) -> list[HandlerInfo]:
        """What is attached, in the order of attaching."""
        with self._lock:
            return [attachment.info for attachment in self._attachments.values()]

    def _started_worker(self) -> _Worker:
        if self._worker is None:
            self._worker = _Worker(self._slots, self._deliver)
        return self._worker

    def _rebuild(self) -> None:
        table: dict[Event, tuple[_Attachment, ...]] = {}
        for attachment in self._attachments.values():
            for event in attachment.info.events:
                table[event] = (*table.get(event, ()), attachment)
        self._by_event = table

    def _count_dropped(self) -> None:
        with self._lock:
            self._dropped += 1

    def _deliver(self, delivery: _Delivery) -> None:
        attachment = delivery.attachment
        if not attachment.is_attached:
            return
        try:
            attachment.handler(delivery.event, delivery.measurements, delivery.metadata, attachment.config)
        except Exception as error:  # noqa: BLE001 - a handler is foreign code; whatever it raises must end here
            self._remove_failed(delivery, error)

    def _remove_failed(self, delivery: _Delivery, error: Exception) -> None:
        info = delivery.attachment.info
        with self._lock:
            # Two threads may fail in one inline handler, or its id may have a new owner by now.
            if not delivery.attachment.is_attached:
                return
            self.detach(info.id)
        kind = type(error).__name__
        # Not the error's text: it may hold what the event was about.
        _logger.error("telemetry handler %r raised %s on %s and was detached", info.id, kind, ".".join(delivery.event))
        self.execute(HANDLER_FAILED, {}, {"handler_id": info.id, "event": delivery.event, "error": kind})


def _checked(events: Iterable[Event]) -> tuple[Event, ...]:
    checked = tuple(dict.fromkeys(events))
    if not checked:
        raise ValueError("a telemetry handler needs at least one event")
    for event in checked:
        if not isinstance(event, tuple) or not event or not all(isinstance(word, str) for word in event):
            raise ValueError(f"an event is a tuple of words, not {event!r}")
    return checked


@dataclass(slots=True, eq=False)
class _Worker:
    """The telemetry thread and the slots before it."""

    slots: int
    deliver: Callable[[_Delivery], None]
    queue: SimpleQueue[_Delivery | threading.Event | None] = field(default_factory=SimpleQueue)
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self.thread.start()

    def offer(self, delivery: _Delivery) -> bool:
        # Looking and putting are two steps, so threads that tell at once may pass the bound by one each.
        if self.queue.qsize() >= self.slots:
            return False
        self.queue.put(delivery)
        return True

    def flush(self, timeout: float) -> bool:
        if threading.current_thread() is self.thread:
            return False
        reached = threading.Event()
        self.queue.put(reached)
        return reached.wait(timeout)

    def stop(self) -> None:
        self.queue.put(None)
        if threading.current_thread() is not self.thread:
            self.thread.join(timeout=1.0)

    def _run(self) -> None:
        while (item := self.queue.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
            else:
                self.deliver(item)
