"""The schedulers of one system's workers: its own, those with a name, those a user has handed in."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from supervision.hosting.scheduler import Scheduler


class Schedulers:
    """Who gives an actor its loop. May be used from any thread.

    A scheduler that is asked for by a name is made at its first use and ends with the system; one that a user has
    handed in is the user's to end. Of a scheduler that was given up the present one is meant everywhere here.
    """

    def __init__(self, system_name: str, workers: Scheduler | None) -> None:
        self._system_name = system_name
        self._lock = threading.RLock()  # reentrant: a signal handler may stop the system in the middle
        self.owns_workers = workers is None
        self._workers = workers or Scheduler(f"{system_name}-workers")
        self._named: dict[str, Scheduler] = {}
        self._in_use: dict[Scheduler, None] = {self._workers: None}

    @property
    def workers(self) -> Scheduler:
        """Where actors live that ask for nothing else."""
        return self._workers.present

    def find(self, wanted: Scheduler | str | None) -> Scheduler:
        """The scheduler that a spec asks for.

        Raises:
            RuntimeError: it has to be made, and the machine has no thread for it.
        """
        if wanted is None:
            return self.workers
        if isinstance(wanted, str):
            return self._by_name(wanted)
        with self._lock:
            self._in_use[wanted] = None
        return wanted.present

    def _by_name(self, name: str) -> Scheduler:
        with self._lock:
            scheduler = self._named.get(name)
            if scheduler is None:
                scheduler = self._named[name] = Scheduler(f"{self._system_name}-{name}")
                self._in_use[scheduler] = None
        return scheduler.present

    def own(self) -> list[Scheduler]:
        """Those that end with the system."""
        with self._lock:
            named = list(self._named.values())
        return [each.present for each in ([self._workers, *named] if self.owns_workers else named)]

    def in_use(self) -> list[Scheduler]:
        """All that a life of this system may be on, but for those given up."""
        with self._lock:
            for scheduler in [each for each in self._in_use if each.is_abandoned]:
                self._in_use[scheduler.present] = None
            return [each for each in self._in_use if not each.is_abandoned]

    def given_up(self) -> list[Scheduler]:
        """Those whose thread has not come back to this hour."""
        with self._lock:
            for scheduler in [each for each in self._in_use if each.is_abandoned]:
                self._in_use[scheduler.present] = None
                if scheduler.is_over:
                    del self._in_use[scheduler]
            return [each for each in self._in_use if each.is_abandoned]

    def any(self, is_so: Callable[[Scheduler], Any]) -> bool:
        """True if something holds for one of them."""
        return any(is_so(each) for each in self.in_use())
