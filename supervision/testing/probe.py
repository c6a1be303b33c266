"""A ref that a test listens with."""

from __future__ import annotations

import threading
import uuid
from types import TracebackType
from typing import Any, Self

import pykka
from pykka.messages import _ActorStop

from supervision.future import AskFuture
from supervision.hosting.driving import driver_here, drivers


class _Recorder(pykka.ThreadingActor):
    """The class that a probe's ref tells of; none is ever started."""

    @staticmethod
    def _create_future() -> AskFuture[Any]:
        return AskFuture()


class _Inbox:
    """Where a probe's messages go: recorded in the thread that sends them."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def put(self, envelope: Any) -> None:
        if isinstance(envelope.message, _ActorStop):
            self._probe.stop()
        else:
            self._probe.record(envelope.message)
        if envelope.reply_to is not None:
            envelope.reply_to.set(None)


class _ProbeRef(pykka.ActorRef[Any]):
    def __init__(self, probe: Probe) -> None:
        # Not the base's __init__: there is no actor.
        self.actor_class = _Recorder
        self.actor_urn = uuid.uuid4().urn
        self.actor_inbox = _Inbox(probe)  # type: ignore[assignment]  # nothing is ever taken out
        self.actor_stopped = threading.Event()


class Probe:
    """Records the messages told to `probe.ref`, and waits for them. It has no thread: who sends, records.

    `record` may also be given to whoever wants a function to call, such as `system.events.subscribe`. An ask is
    recorded too, and answered with None.
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self._changed = threading.Condition()
        self.ref: pykka.ActorRef[Any] = _ProbeRef(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def record(self, message: Any) -> None:
        """Note a message. From any thread."""
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def wait(self, n: int = 1, timeout: float = 5.0) -> list[Any]:
        """The messages, once there are `n` of them. Under a deterministic scheduler it lets things happen meanwhile.

        Raises:
            TimeoutError: they did not come within `timeout` seconds (there: virtual ones). Names those that came.
        """
        if not self._wait(n, timeout):
            raise TimeoutError(f"{len(self.messages)} of {n} messages came within {timeout} s: {self.messages}")
        with self._changed:
            return list(self.messages)

    def _wait(self, n: int, timeout: float) -> bool:
        driver = driver_here() if drivers else None
        if driver is not None:
            return driver.drive(lambda: len(self.messages) >= n, timeout)
        with self._changed:
            return self._changed.wait_for(lambda: len(self.messages) >= n, timeout)

    def stop(self) -> None:
        """Refuse messages from now on, as a dead actor does."""
        self.ref.actor_stopped.set()
