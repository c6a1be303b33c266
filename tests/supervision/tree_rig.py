"""Actors that do as they are told, and what a test wants to know of them."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pykka

import supervision as sup
from supervision.testing import ManualClock


class Boom(Exception):
    """What goes wrong in these tests."""


class _Obeys:
    """Answers a message by calling it with itself; so a test says in one line what a handler does."""

    def __init__(
        self, on_start: Callable[[Any], Any] | None = None, on_stop: Callable[[Any], Any] | None = None
    ) -> None:
        super().__init__()
        self._on_start, self._on_stop = on_start, on_stop
        self.seen: list[Any] = []

    def on_start(self) -> Any:
        return self._on_start(self) if self._on_start is not None else None

    def on_stop(self) -> Any:
        return self._on_stop(self) if self._on_stop is not None else None

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.seen.append(message)
        return message


class Obedient(_Obeys, sup.Actor):
    """On a loop; what it is told to do may be a coroutine function."""


class ObedientThread(_Obeys, pykka.ThreadingActor):
    """In a thread; what it is told to do may block."""


HOSTS = {"loop": Obedient, "thread": ObedientThread}


def raising(error: BaseException) -> Any:
    """A message, or hook, that raises `error`."""

    def handler(actor: Any) -> None:
        raise error

    return handler


def started(system: sup.System, actor: Any, **options: Any) -> Any:
    """The ref of one temporary child, so that its end is for good."""
    system.supervise(sup.ChildSpec("it", actor, restart="temporary", **options))
    return system.whereis("it")


def exit_of(ref: sup.ActorRef) -> sup.AskFuture[sup.Exit]:
    """A future of the exit of the present incarnation."""
    future: sup.AskFuture[sup.Exit] = sup.AskFuture()
    incarnation = ref.name.incarnation
    assert incarnation is not None
    if (exit := incarnation.watch(-1, future.settle)) is not None:
        future.settle(exit)
    return future


def wait_for_timer(clock: ManualClock, at: float, timeout: float = 30.0) -> None:
    """Wait until the next timer is due `at` this time: others, such as that of a start, have been taken back then."""
    limit = time.monotonic() + timeout
    while (found := clock.next_at()) != at:
        assert time.monotonic() < limit, f"the next timer is due at {found}, not at {at}"
        time.sleep(0.001)


def once_served(action: Callable[[], object]) -> None:
    """Do it as soon as a `System.run` hears signals: earlier ones would end the process of the tests."""
    former = signal.getsignal(signal.SIGTERM)

    def wait() -> None:
        while signal.getsignal(signal.SIGTERM) is former:
            time.sleep(0.002)
        action()

    threading.Thread(target=wait, daemon=True).start()


def ref_in(answer: Any) -> Any:
    """The ref of what was started, if the call that was to start it had one for an answer."""
    try:
        value = answer.get(timeout=0)
    except sup.ActorDeadError:
        return None
    return value.ref if isinstance(value, sup.Started) else None


WHO_IS_RESTARTED = [
    ("permanent", "stop", True),
    ("permanent", "crash", True),
    ("transient", "stop", False),
    ("transient", "crash", True),
    ("temporary", "stop", False),
    ("temporary", "crash", False),
]
"""A child's `restart`, how it ends, and whether a restart follows."""
