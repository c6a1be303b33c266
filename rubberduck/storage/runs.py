"""Which runs of the program still live, so that no one declares their open calls lost.

A run is told to be alive by a lock on one byte of a file beside the ledger, at the offset of the run's
number. The kernel lets go of it when the process ends, however it ends: no clock, no process number that
could be given out again, and it holds between containers that share the file. (A lock of this kind is
released when the process closes *any* handle on the file; hence one handle for each file and process.)
"""

from __future__ import annotations

import fcntl
import os
import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class _LockFile:
    fd: int
    pid: int
    held: dict[int, int] = field(default_factory=dict)


_files: dict[str, _LockFile] = {}
_guard = threading.Lock()


def hold(path: str, run: int) -> None:
    """Declare `run` alive until `let_go` was called as often as this, or the process ends.

    Raises:
        OSError: the file cannot be opened, or another process holds this very run.
    """
    with _guard:
        file = _open(path)
        if run not in file.held:
            fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run)
        file.held[run] = file.held.get(run, 0) + 1


def let_go(path: str, run: int) -> None:
    """Take one `hold` back; what is not held is left alone."""
    with _guard:
        file = _files.get(path)
        if file is None or file.pid != os.getpid() or run not in file.held:
            return
        file.held[run] -= 1
        if not file.held[run]:
            del file.held[run]
            fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, run)
        if not file.held:
            os.close(file.fd)
            del _files[path]


def is_alive(path: str, run: int) -> bool:
    """True while some process, this one included, holds `run`."""
    with _guard:
        file = _open(path)
        if run in file.held:
            return True
        try:
            fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, run)
        except (BlockingIOError, PermissionError):  # POSIX leaves open which of the two says "held elsewhere"
            return True
        fcntl.lockf(file.fd, fcntl.LOCK_UN, 1, run)
        return False


def _open(path: str) -> _LockFile:
    """The one handle of this process on `path`; a forked child inherits no locks and starts anew."""
    file = _files.get(path)
    if file is None or file.pid != os.getpid():
        file = _files[path] = _LockFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), os.getpid())
    return file
