"""Who may write: a thread cannot be killed, so an incarnation that was given up may still be at it beside the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rubberduck.errors import LedgerUnavailable

LONGEST_WRITE = 5.0
"""Seconds that another one's write is waited for."""


class Fence:
    """Lets the present incarnation alone write, where several share one: the one before may still run in its thread.

    What that one writes, or holds, after the present one has read the ledger would be in nobody's budgets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: object = None

    @contextmanager
    def entered_by(self, writer: object) -> Iterator[None]:
        """From here on `writer` is the present one; who came before has written its last within."""
        with self._locked():
            self._present = writer
            yield

    @contextmanager
    def writing(self, writer: object) -> Iterator[bool]:
        """Whether `writer` is the present one, and remains it within."""
        with self._locked():
            yield self._present is writer

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=LONGEST_WRITE):
            raise LedgerUnavailable("somebody has been writing into the ledger for too long; look at the disk")
        try:
            yield
        finally:
            self._lock.release()
