"""Waiting in the very thread that everything runs in: there a wait goes on with the work instead of blocking.

A thread has a driver while a scheduler without a thread of its own, such as the test kit's, is open in it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from supervision.system import System


class Driver(Protocol):
    """A scheduler that runs in whichever thread waits for it."""

    def drive(self, is_done: Callable[[], bool], timeout: float | None = None) -> bool:
        """Go on with the work until `is_done()`. False if `timeout` seconds of its clock have passed before."""
        ...


drivers: list[tuple[int, Driver]] = []
"""The open drivers and the threads they belong to; who waits looks only whether this is empty."""


def driver_here(system: System | None = None) -> Driver | None:
    """The driver of this thread: that of `system`, else the one opened last. None where waiting blocks."""
    if system is not None and system.whole is None:  # it has threads, and goes on by itself
        return None
    own: object = getattr(system, "workers", None)
    here = get_ident()
    found: Driver | None = None
    for thread, driver in drivers:
        if thread == here:
            if driver is own:
                return driver
            found = driver
    return found


def wait_for(event: threading.Event, system: System | None = None) -> None:
    """Wait in a plain thread until `event` is set, working where that is what sets it."""
    driver = driver_here(system) if drivers else None
    if driver is None:
        event.wait()
    else:
        driver.drive(event.is_set)
