"""One SQLite file of ours: opened, brought up to date, and its failures told with what to do about them.

WAL with `synchronous=FULL`: what a transaction returned from is on the disk.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rubberduck.errors import ConfigError, RubberDuckError

Synchronous = Literal["full", "normal", "off"]
MEMORY = ":memory:"

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, then send the same write again",
    sqlite3.SQLITE_READONLY: "it may not be written; give this user write access to the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; the directory must exist and be writable for this user",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; move it away, or set another path",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a backup, or move it away and start a new one",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; end that process, or use a file of your own",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; look at the disk and the kernel's log",
}


class SqliteFile:
    """A connection to the file at `path`, used by the thread that made it. ":memory:" keeps nothing.

    `purpose` names the file in messages, as in "the ledger". `application_id` marks it as ours, so that no other
    program's database is touched. `migrations` lead from each schema version to the next.

    Raises:
        ConfigError: when made, if the file cannot be used; says why and what to do.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        purpose: str,
        application_id: int,
        migrations: Sequence[Sequence[str]],
        synchronous: Synchronous = "full",
        busy_timeout: float = 5.0,
    ) -> None:
        self.path = os.fspath(path)
        if self.path != MEMORY:
            self.path = str(Path(self.path).expanduser().absolute())
        self._purpose = purpose
        self._application_id = application_id
        self._migrations = migrations
        with self.failing_as(ConfigError, "open"):
            self._open(synchronous, busy_timeout)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is kept together, or nothing of it."""
        self.db.execute("begin immediate")
        try:
            yield
            self.db.execute("commit")
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("rollback")
            raise

    @contextmanager
    def failing_as(self, error_class: type[RubberDuckError], verb: str) -> Iterator[None]:
        """Say what a failure of the disk or the file means, and what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a closed file, a wrong thread: the caller's mistake
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, "see the message of SQLite")
            raise error_class(f"cannot {verb} {self._purpose} {self.path}: {advice} ({error})") from error
        except OSError as error:
            advice = "the directory must exist and be writable for this user"
            raise error_class(f"cannot {verb} {self._purpose} {self.path}: {error.strerror}; {advice}") from error

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    # -- opening

    def _open(self, synchronous: Synchronous, busy_timeout: float) -> None:
        if self.path != MEMORY:
            if os.path.isdir(self.path):
                raise ConfigError(f"{self._purpose} {self.path} is a directory; name a file in it")
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        give_up_at = time.monotonic() + busy_timeout
        while True:
            self.db = sqlite3.connect(self.path, timeout=busy_timeout, isolation_level=None)
            try:
                return self._prepare(synchronous)
            except BaseException as error:
                self.db.close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                    raise
            time.sleep(0.01)  # SQLite does not wait by itself while others enter or leave WAL

    def _prepare(self, synchronous: Synchronous) -> None:
        self._require_ours()
        self.db.execute("pragma journal_mode = wal")
        self.db.execute(f"pragma synchronous = {synchronous}")
        self._migrate()

    def _require_ours(self) -> None:
        """Refuse a file of another program before changing anything in it."""
        tables = self.db.execute("select count(*) from sqlite_schema").fetchone()[0]
        owner = self.db.execute("pragma application_id").fetchone()[0]  # read last: it is set together with our tables
        if tables and owner != self._application_id:
            raise ConfigError(f"{self.path} is the database of another program; name another file for {self._purpose}")

    def _migrate(self) -> None:
        """Bring the file's schema up to date; two processes may try at once, one does it."""
        if self._version() == len(self._migrations):
            return
        with self.transaction():
            version = self._version()
            if version > len(self._migrations):
                raise ConfigError(
                    f"{self._purpose} {self.path} was written by a newer RubberDuck (schema {version}, this one knows"
                    f" {len(self._migrations)}); upgrade, or name another file"
                )
            for statements in self._migrations[version:]:
                for statement in statements:
                    self.db.execute(statement)
            self.db.execute(f"pragma application_id = {self._application_id}")
            self.db.execute(f"pragma user_version = {len(self._migrations)}")

    def _version(self) -> int:
        return int(self.db.execute("pragma user_version").fetchone()[0])
