"""The tree of a running program, for whoever looks from outside: served on a Unix socket that only its owner may use.

The socket lies in a directory of the user's own, named after the system and the process. A request is one word and
a line feed, the answer one JSON object: `who` tells pid and system, `tree` the tree as data and drawn besides. A
thread of its own serves, so that blocked loops still show; one client at a time, and each has a few seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import re
import selectors
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from supervision.errors import SupervisionError

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.system import System

logger = logging.getLogger("supervision")

PATIENCE = 2.0
"""Seconds that a client has to ask, and again to read its answer."""

LONGEST_PATH = 100
"""In bytes: what fits into a socket's address on every system (Linux: 107, macOS: 103)."""


class PublishError(SupervisionError):
    """The tree cannot be published there, or nobody publishes one there; the text says why."""


class Publication:
    """One system's tree on one socket, until `close`, at the latest until the system has stopped. A context manager."""

    def __init__(self, system: System, directory: str | os.PathLike[str] | None = None) -> None:
        self._system = system
        self._pid = os.getpid()
        self._is_over = False
        self._client: socket.socket | None = None
        self._listener, self.path = _listen(system.name, own_directory(directory))
        self._awaken, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"supervision-publish-{system.name}", daemon=True)
        try:
            self._thread.start()
        except BaseException:
            self._release()
            raise

    def __repr__(self) -> str:
        return f"Publication({self._system.name!r}, at {str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the socket and end the thread, also in the middle of an answer. Idempotent, from any thread."""
        self._is_over = True
        with contextlib.suppress(OSError):  # it has been closed already
            self._awaken.send(b".")
        if (client := self._client) is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def lose_after_fork(self) -> None:
        """In the child of a fork: the socket is the parent's, and stays."""
        for each in (self._listener, self._awaken, self._woken, self._client):
            if each is not None:
                each.close()

    def _release(self) -> None:
        with contextlib.suppress(ValueError):  # it was not yet in the list
            self._system.publications.remove(self)
        if os.getpid() == self._pid:
            self.path.unlink(missing_ok=True)
        self.lose_after_fork()

    def _serve(self) -> None:
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self._listener, selectors.EVENT_READ)
                selector.register(self._woken, selectors.EVENT_READ)
                while not self._is_over:
                    ready = [key.fileobj for key, _ in selector.select()]
                    if self._listener in ready:
                        self._answer_next()
        finally:
            self._release()

    def _answer_next(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:  # it has gone again
            return
        with client:
            self._client = client
            try:
                client.settimeout(PATIENCE)
                if not self._is_over and _is_ours(client):
                    client.sendall(self._answer(client.recv(64).strip()))
            except OSError as error:  # whoever asked does not listen any more
                logger.debug("%s: a client went away: %r", self.path, error)
            except Exception:  # a mistake here must cost an answer, not the publication
                logger.exception("%s: the tree could not be told", self.path)
            finally:
                self._client = None

    def _answer(self, request: bytes) -> bytes:
        told: dict[str, Any] = {"pid": self._pid, "system": self._system.name}
        if request == b"tree":
            tree = self._system.tree()
            told |= {"text": str(tree), "tree": tree.to_dict()}
        elif request != b"who":
            told = {"error": "asked for neither tree nor who"}
        return json.dumps(told).encode() + b"\n"


def _is_ours(client: socket.socket) -> bool:
    """Whether the other end is of our user, or root. The socket's mode says so already; where there is more, ask."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    _, uid, _ = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (os.getuid(), 0)


# -- where sockets lie ---------------------------------------------------------------------------------------------


def usual_directories() -> list[Path]:
    """Where sockets are looked for; the first is where they are put."""
    # No parents are made on the way: a runtime directory that is not there belongs to a session that is over.
    runtime, shared = os.environ.get("XDG_RUNTIME_DIR", ""), Path(tempfile.gettempdir())
    first = [Path(runtime, "supervision")] if os.path.isabs(runtime) and os.path.isdir(runtime) else []
    return [*first, shared / f"supervision-{os.getuid()}"]


def own_directory(directory: str | os.PathLike[str] | None = None) -> Path:
    """The directory for a socket, made if need be.

    Raises:
        PublishError: it is not, or might not be, this user's alone.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise PublishError("publishing a tree needs Unix sockets, which this platform does not have")
    faults = []
    for path in usual_directories() if directory is None else [Path(directory).absolute()]:
        try:
            path.mkdir(mode=0o700, parents=directory is not None, exist_ok=True)
        except FileExistsError:
            pass  # something else than a directory: told below
        except OSError as error:
            faults.append(f"{path} cannot be made ({error.strerror})")
            continue
        if (why := why_unsafe(path)) is None:
            return path
        faults.append(f"{path} {why}")
    raise PublishError("no place for a socket: " + "; ".join(faults))


def why_unsafe(path: Path) -> str | None:
    """What is wrong with a directory for sockets; None if it is this user's alone.

    Asked of the entry itself, not of what a symbolic link there points to: in a directory for all users anybody may
    have put it there before us.
    """
    try:
        found = os.lstat(path)
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if not stat.S_ISDIR(found.st_mode):
        return "is no directory"
    if found.st_uid != os.getuid():
        return "belongs to another user"
    if found.st_mode & 0o022:
        return f"may be written to by others (mode {stat.S_IMODE(found.st_mode):o}, wanted 700)"
    return None


def _listen(system: str, directory: Path) -> tuple[socket.socket, Path]:
    """A socket of our own, listening, at a path that appears only once it does."""
    clean_up(directory)
    path = _free_path(directory, f"{re.sub(r'[^A-Za-z0-9_-]', '_', system)[:32]}.{os.getpid()}")
    making = path.with_name(f".{path.name}")
    if len(os.fsencode(making)) > LONGEST_PATH:
        raise PublishError(f"{path} is too long for a socket, which may have {LONGEST_PATH - 1} bytes")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(making))
        try:
            os.chmod(making, 0o600)
            listener.listen(8)
            os.rename(making, path)
        except BaseException:
            making.unlink(missing_ok=True)
            raise
    except OSError as error:
        listener.close()
        raise PublishError(f"no socket can be made in {directory}: {error.strerror}") from error
    except BaseException:
        listener.close()
        raise
    return listener, path


def _free_path(directory: Path, stem: str) -> Path:
    """Other systems of this process may bear the same name."""
    names = itertools.chain([f"{stem}.sock"], (f"{stem}.{number}.sock" for number in itertools.count(2)))

    def is_free(name: str) -> bool:
        return not any(os.path.lexists(directory / each) for each in (name, f".{name}"))

    return directory / next(filter(is_free, names))


def clean_up(directory: Path) -> None:
    """Remove the sockets that processes left which have been killed."""
    for path in (*directory.glob("*.sock"), *directory.glob(".*.sock")):
        with contextlib.suppress(OSError):  # another process removes it at the same time
            if stat.S_ISSOCK(os.lstat(path).st_mode) and _is_stale(path):
                path.unlink()


def _is_stale(path: Path) -> bool:
    """Nobody listens, and the process of that number is gone: one without the other may be a matter of time."""
    number = path.name.removeprefix(".").split(".")[1:2]
    if not number or not number[0].isdigit() or _is_running(int(number[0])):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


# -- asking --------------------------------------------------------------------------------------------------------


def sockets(directory: str | os.PathLike[str] | None = None) -> Iterator[Path]:
    """The sockets of this user's programs, in `directory` or where they usually lie."""
    for each in usual_directories() if directory is None else [Path(directory)]:
        if each.is_dir() and (directory is not None or why_unsafe(each) is None):
            yield from sorted(path for path in each.glob("*.sock") if not path.name.startswith("."))


def ask(path: str | os.PathLike[str], request: str, timeout: float = 5.0) -> dict[str, Any]:
    """What the program behind a socket answers.

    Raises:
        PublishError: it does not.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(timeout)
            client.connect(os.fspath(path))
            client.sendall(request.encode() + b"\n")
            parts = list(iter(lambda: client.recv(65_536), b""))
        told = json.loads(b"".join(parts))
    except TimeoutError:
        raise PublishError(
            f"{path}: no answer within {timeout:g} s; the process is suspended, or code in C holds its interpreter"
        ) from None
    except (OSError, ValueError) as error:
        raise PublishError(f"{path}: {_why(error)}") from error
    if not isinstance(told, dict) or "error" in told:
        raise PublishError(f"{path}: an answer that is not understood")
    return told


def _why(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nobody listens there any more"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"an answer that is not understood ({error})"
