"""Entries that the ledger could not take when they were due: the money is spent, so they must get there yet."""

from __future__ import annotations

import functools
import threading
from typing import Any

from rubberduck.actors import components
from rubberduck.actors.calls import reports
from rubberduck.actors.office import Office
from rubberduck.errors import RubberDuckError

PAUSE = 1.0
"""Seconds until the ledger is tried again."""


class Arrears:
    """Tries entries again until the ledger takes them. Any thread may use it.

    They are few: while the ledger refuses to be written, no attempt is begun.
    """

    def __init__(self, office: Office) -> None:
        self._office = office
        self._lock = threading.Lock()
        self._entries: list[tuple[str, Any]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, subject: str, entry: Any, error: RubberDuckError) -> None:
        """Keep an entry that failed with `error`; `subject` names the attempt."""
        reports.bookkeeping_failed(self._office.system.name, subject, error)
        with self._lock:
            self._entries.append((subject, entry))
            is_first = len(self._entries) == 1
        if is_first:
            self._office.clock.call_at(self._office.now() + PAUSE, self.settle)

    def settle(self) -> None:
        """Try all of them now. Those that fail again come back."""
        with self._lock:
            entries, self._entries = self._entries, []
        for subject, entry in entries:
            components.deliver(self._office.tracker(), entry, functools.partial(self.add, subject, entry))
