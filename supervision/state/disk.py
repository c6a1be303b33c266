"""The few steps by which something is kept on a disk, and the lock that keeps other processes from it."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path
from typing import BinaryIO, cast

from supervision.errors import LogInUse

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows: there only the names of one process are kept apart)
    fcntl = None  # type: ignore[assignment]

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Disk:
    """What a log does to the disk, a step each; a test's disk fails at one of them."""

    def open(self, path: Path) -> BinaryIO:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)
        return cast("BinaryIO", os.fdopen(os.open(path, flags, 0o666), "r+b", buffering=0))

    def write(self, file: BinaryIO, at: int, data: bytes) -> None:
        """Write all of `data` at this position; what the process does from here on cannot harm it."""
        file.seek(at)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]

    def sync(self, file: BinaryIO) -> None:
        """Return when a power cut cannot harm what has been written."""
        os.fsync(file.fileno())

    def truncate(self, file: BinaryIO, size: int) -> None:
        file.truncate(size)

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)


DISK = Disk()


def lock_out_others(file: BinaryIO, path: Path) -> None:
    """Have `file`, which was opened at `path`, for this process alone. The lock goes with the file when it is moved.

    Raises:
        LogInUse: somebody else has it. A file system without locks has no such error.
    """
    if fcntl is None:
        return  # pragma: no cover
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise LogInUse(f"{path} is the event log of somebody else, maybe of another process") from None
        if error.errno not in _NO_LOCKS:
            raise
    if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
        raise LogInUse(f"{path} has just been moved by another process")


def unlock(file: BinaryIO) -> None:
    """Let others have it, also where a program that was just being started holds a copy of the open file."""
    if fcntl is not None:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)
        except OSError:  # a file system without locks
            pass


def free_path(path: Path, word: str) -> Path:
    """The first of path.word-1, path.word-2, ... that is free."""
    candidates = (path.with_name(f"{path.name}.{word}-{number}") for number in itertools.count(1))
    return next(each for each in candidates if not os.path.lexists(each))


def sync_folder(folder: Path) -> None:
    """Make it survive a power cut that there is such a file."""
    if fcntl is None:
        return  # pragma: no cover  (Windows cannot, and need not)
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
