"""Actors that keep their state, the same on either host, and a disk that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pykka

import supervision as sup
from supervision.state.disk import Disk


class _Counts:
    """Counts by snapshot: a number is added, a callable is called with the actor."""

    def __init__(self, on_start: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self._on_start = on_start

    def on_start(self) -> None:
        self.count = self.context.snapshot or 0
        if self._on_start is not None:
            self._on_start(self)

    def snapshot(self) -> int:
        return self.count

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.count += message
        return self.count


class Counter(_Counts, sup.Actor):
    """On a loop."""


class CounterThread(_Counts, pykka.ThreadingActor):
    """In a thread."""


class _Logs:
    """Collects by event log: an entry is recorded, then applied; a callable is called with the actor."""

    def __init__(self, on_apply: Callable[[Any], Any] | None = None) -> None:
        super().__init__()
        self._on_apply = on_apply

    def on_start(self) -> None:
        self.applied: list[Any] = []

    def apply(self, entry: Any) -> None:
        if self._on_apply is not None:
            self._on_apply(entry)
        self.applied.append(entry)

    def on_receive(self, message: Any) -> Any:
        if callable(message):
            return message(self)
        self.record(message)
        self.apply(message)
        return len(self.applied)


class Ledger(_Logs, sup.Actor):
    """On a loop."""


class LedgerThread(_Logs, pykka.ThreadingActor):
    """In a thread."""


COUNTERS = {"loop": Counter, "thread": CounterThread}
LEDGERS = {"loop": Ledger, "thread": LedgerThread}


class DiskFull(OSError):
    """What a failing disk raises."""


class FailingDisk(Disk):
    """Fails at its nth step, counted from 1, and at those after it as long as `for_good`.

    A failing write leaves the first half of the data behind, as a full disk does.
    """

    def __init__(self, nth: int | None = None, *, for_good: bool = False) -> None:
        self.nth = nth
        self.for_good = for_good
        self.steps: list[str] = []

    def _passes(self, step: str) -> bool:
        self.steps.append(step)
        number = len(self.steps)
        return self.nth is None or (number < self.nth if self.for_good else number != self.nth)

    def _step(self, step: str) -> None:
        if not self._passes(step):
            raise DiskFull(step)

    def open(self, path: Path) -> BinaryIO:
        self._step("open")
        return super().open(path)

    def write(self, file: BinaryIO, at: int, data: bytes) -> None:
        if not self._passes("write"):
            super().write(file, at, data[: len(data) // 2])
            raise DiskFull("write")
        super().write(file, at, data)

    def sync(self, file: BinaryIO) -> None:
        self._step("sync")

    def truncate(self, file: BinaryIO, size: int) -> None:
        self._step("truncate")
        super().truncate(file, size)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename")
        super().rename(old, new)
