"""The file of an event log: one writer, and after every step that can fail either the old file or the new.

An append that fails is taken back. Whatever cannot be taken back, for the power is gone, is a torn record at the end,
which the next `read` cuts off. Damage anywhere else is moved to a file beside it, and nothing after it is read.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from supervision.errors import EventLogError, LogInUse
from supervision.state.disk import DISK, Disk, free_path, lock_out_others, sync_folder, unlock
from supervision.state.log_format import HEADER, Damage, Record, read_record

COPY_BYTES = 1 << 20


class Retired(Exception):
    """The life that this log was opened for is over."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What reading a log found at its end: `size` bytes were no sound records, for the reason `why`.

    `moved_to` is where they are now, None if they were an unfinished record and are gone.
    """

    size: int
    why: str
    moved_to: Path | None


class LogFile:
    """One life's hold on a log. Nothing but `retire` may be called on an event loop without thought: it is disk work.

    Life after life of one `owner` takes the file over, and waits for what its predecessor is just writing; anybody
    else is refused while it is held.
    """

    def __init__(self, path: Path, owner: Any, *, sync: bool = False, disk: Disk = DISK) -> None:
        self.path = path
        self.owner = owner
        self.end = len(HEADER)
        self.entries = 0
        self.cut: Cut | None = None
        self._sync = sync
        self._disk = disk
        self._key = os.path.realpath(path)
        self._lock = threading.Lock()
        self._file: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        self._size = 0
        self._is_retired = False
        self._is_broken = False

    # -- taking hold -------------------------------------------------------------------------------

    def open(self, *, afresh: bool = False) -> Path | None:
        """Take hold of the file, and make it if there is none.

        With `afresh`, a log that has entries is moved aside first. Returns where it is then, else None.

        Raises:
            LogInUse: somebody else writes it.
            EventLogError: it is something else than an event log. It has not been touched.
            OSError
        """
        try:
            with self._lock:
                self._claim()
                try:
                    return self._open(afresh)
                except BaseException:
                    self._close()
                    raise
        finally:
            self._retire_if_asked()

    def _claim(self) -> None:
        while (holder := self._place()) is not None:
            if holder.owner is not self.owner:
                raise LogInUse(f"{self.path} is the event log of {holder.owner} already")
            holder.wait_and_close()

    def _place(self) -> LogFile | None:
        with _held_lock:
            return None if (holder := _held.setdefault(self._key, self)) is self else holder

    def _open(self, afresh: bool) -> Path | None:
        self._file = self._disk.open(self.path)
        lock_out_others(self._file, self.path)
        moved_to = None
        if afresh and os.fstat(self._file.fileno()).st_size > len(HEADER):
            moved_to = free_path(self.path, "quarantined")
            self._disk.rename(self.path, moved_to)
            old, self._file = self._file, self._disk.open(self.path)
            old.close()
            lock_out_others(self._file, self.path)
        self._size = os.fstat(self._file.fileno()).st_size
        self._check_header(self._file)
        self._reader = open(self._file.fileno(), "rb", closefd=False)  # noqa: SIM115  (lives as long as this)
        self._reader.seek(self.end)
        return moved_to

    def _check_header(self, file: BinaryIO) -> None:
        start = file.read(len(HEADER))
        if start == HEADER:
            return
        if not HEADER.startswith(start):
            raise EventLogError(
                f"{self.path} does not begin as an event log of version {HEADER[-1]} does; move it away"
            )
        self._disk.write(file, 0, HEADER)  # a new file, or one whose making was interrupted
        self._size = len(HEADER)
        if self._sync:
            self._disk.sync(file)
            sync_folder(self.path.parent)

    # -- reading -----------------------------------------------------------------------------------

    def read(self, limit: int) -> list[Any]:
        """The next entries, at most `limit`; none at the end, where what is unsound is cut off first: see `cut`."""
        try:
            with self._lock:
                return self._read(self._held_file(), limit)
        finally:
            self._retire_if_asked()

    def _read(self, file: BinaryIO, limit: int) -> list[Any]:
        entries: list[Any] = []
        while self.end < self._size and len(entries) < limit:
            assert self._reader is not None
            match read_record(self._reader, self._size - self.end):
                case Record(entry=entry, size=size):
                    entries.append(entry)
                    self.end += size
                case Damage() as damage:
                    if not entries:  # else those first: the next call comes here again
                        self._cut_off(file, damage)
                    else:
                        self._reader.seek(self.end)
                    break
        self.entries += len(entries)
        return entries

    def _cut_off(self, file: BinaryIO, damage: Damage) -> None:
        moved_to = None if damage.is_torn else free_path(self.path, "bad")
        if moved_to is not None:
            self._copy_rest(file, moved_to)
        self._disk.truncate(file, self.end)
        if self._sync:
            self._disk.sync(file)
        self.cut = Cut(self._size - self.end, damage.why, moved_to)
        self._size = self.end

    def _copy_rest(self, file: BinaryIO, to: Path) -> None:
        """Whole on the disk before anything is cut off here."""
        copy = self._disk.open(to)
        try:
            with copy:
                file.seek(self.end)
                at = 0
                while block := file.read(COPY_BYTES):
                    self._disk.write(copy, at, block)
                    at += len(block)
                self._disk.sync(copy)
        except BaseException:
            os.unlink(to)
            raise

    # -- writing -----------------------------------------------------------------------------------

    def append(self, record: bytes) -> None:
        """Add a record; it is there when this returns, and not there if it raises.

        Raises:
            Retired: the life that this was opened for is over.
            EventLogError: an earlier append failed, and could not be taken back.
            OSError
        """
        try:
            with self._lock:
                self._append(self._held_file(), record)
        finally:
            self._retire_if_asked()

    def _append(self, file: BinaryIO, record: bytes) -> None:
        if self._is_broken:
            raise EventLogError(f"{self.path}: a record that could not be written could not be taken back either")
        try:
            self._disk.write(file, self.end, record)
            if self._sync:
                self._disk.sync(file)
        except BaseException:
            self._take_back(file)
            raise
        self.end += len(record)
        self.entries += 1

    def _take_back(self, file: BinaryIO) -> None:
        try:
            self._disk.truncate(file, self.end)
        except OSError:
            self._is_broken = True

    def _held_file(self) -> BinaryIO:
        if self._file is None or self._is_retired:
            raise Retired
        return self._file

    # -- letting go --------------------------------------------------------------------------------

    def retire(self) -> None:
        """Let go of the file, at once or as soon as whoever is at it has finished. Never waits; from any thread."""
        self._is_retired = True
        self._retire_if_asked()

    def _retire_if_asked(self) -> None:
        """After every use of the lock: `retire` may have found it taken."""
        if self._is_retired and self._lock.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._lock.release()

    def wait_and_close(self) -> None:
        """Let go of the file, once whoever is at it has finished."""
        self._is_retired = True
        with self._lock:
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        self._reader = None
        if file is not None:
            unlock(file)
            file.close()
        with _held_lock:
            if _held.get(self._key) is self:
                del _held[self._key]

    def lose_after_fork(self) -> None:
        """In the child of a fork: let go of the file, and leave the lock on it to the parent."""
        self._lock = threading.Lock()
        self._is_retired = True
        if self._file is not None:
            self._file.close()
        self._file = self._reader = None


_held: dict[str, LogFile] = {}
_held_lock = threading.Lock()


def _lose_all_after_fork() -> None:
    global _held_lock
    _held_lock = threading.Lock()
    for log in _held.values():
        log.lose_after_fork()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
