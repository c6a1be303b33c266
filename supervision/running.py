"""A system that is the whole program: serves in the main thread until it is told to stop, or its tree gives up."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from supervision.errors import CannotRun
from supervision.view.published import PublishError
from supervision.view.report import write_report

if TYPE_CHECKING:
    from supervision.system import System

logger = logging.getLogger("supervision")

GAVE_UP = 70
"""EX_SOFTWARE of sysexits.h."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def serve(system: System, deadline: float | None, *, publish: bool) -> int:
    """See `System.run`."""
    if threading.current_thread() is not threading.main_thread():
        raise CannotRun("run() serves in the main thread, which alone hears signals; elsewhere: supervise() and stop()")
    if not (system.has_supervised or system.wanted.is_set()):
        raise CannotRun(f"system {system.name!r} supervises nothing yet: supervise() comes before run()")
    with _signals(system):
        if publish and not (system.publications or system.stopping.has_begun):
            _publish(system)
        if system.whole is not None:
            system.whole.drive(system.wanted.is_set)
        while system.roots and not system.wanted.wait(1.0):  # a signal in another thread does not end a longer wait
            pass
        if system.gave_up is not None:
            write_report(system, system.gave_up, sys.stderr)
        if not system.stop(deadline):
            print(json.dumps(_left(system)), file=sys.stderr, flush=True)
        close_publications(system)
    return 0 if system.gave_up is None else GAVE_UP


def _publish(system: System) -> None:
    try:
        system.publish()
    except (PublishError, RuntimeError) as error:  # RuntimeError: no more threads; what is served matters more
        logger.warning("%s: its tree cannot be looked at from outside: %s", system.name, error)


def close_publications(system: System) -> None:
    """Remove the sockets, also where the stop did not come to its end in time."""
    for publication in system.publications[:]:
        publication.close()


@contextmanager
def _signals(system: System) -> Iterator[None]:
    """SIGTERM and SIGINT stop the system; the second one ends the process at once."""
    is_told = False

    def told(number: int, frame: FrameType | None) -> None:
        nonlocal is_told
        if is_told:
            _end_at_once(system, number)
        is_told = True
        system.wanted.set()

    former = {number: signal.signal(number, told) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end_at_once(system: System, number: int) -> None:
    """Somebody does not want to wait for what still has not stopped: say what that is, and go.

    Written past `sys.stderr`: the code that this signal interrupted may be in the middle of using it.
    """
    text = json.dumps({**_left(system), "signal": signal.Signals(number).name}) + "\n"
    try:
        os.write(2, text.encode())
    except OSError:  # nobody reads it
        pass
    for publication in system.publications[:]:
        publication.path.unlink(missing_ok=True)
    os._exit(128 + number)


def _left(system: System) -> dict[str, Any]:
    """What could not be stopped, for `json.dumps`. Takes no lock: a signal handler calls it."""
    unstopped = [{"path": left.path, "why": left.why} for left in system.unstopped_report()]
    return {"system": system.name, "unstopped": unstopped}
