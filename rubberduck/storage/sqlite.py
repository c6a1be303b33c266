"""The ledger in one SQLite file: the default, crash-safe, without a server.

WAL with `synchronous=FULL`: what `write` returned from is on the disk. A batch is one statement in one
transaction, because each step of SQLite gives up the interpreter's lock and, in a busy process, waits
milliseconds to get it back. A trigger makes the table append-only: an attempt's row is written as an
intent, completed once, and never changed or removed again.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from rubberduck.core.budget import Spending
from rubberduck.core.ledger import AttemptRecord, State, Summary, may_follow, summary_of, to_us
from rubberduck.errors import ConfigError, RubberDuckError
from rubberduck.storage import LedgerUnavailable, runs
from rubberduck.storage.schema import COLUMNS, MIGRATIONS, bounds, decode, encode, tally

APPLICATION_ID = 0x4475636B  # "Duck": marks the file as ours, so that no other program's database is touched
ROWS_PER_STATEMENT = 512
ROWS_PER_PAGE = 1000

_AT_START = {"attempt_id", "call_id", "provider", "model", "started_at_us", "run"}
_NAMES = ", ".join(COLUMNS)
_ONE_ROW = "(" + ", ".join("?" * len(COLUMNS)) + ")"
_END = ", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _AT_START)

# The sums are taken of millionths and of the rest apart: a plain sum would overflow at 9.2 million USD.
_SUMMARY = """
    select json_group_array(json_array(
        provider, model, hour, calls, cost_micro, cost_rest, tokens, unknown, uncertain_micro, uncertain_rest))
    from (select provider, model, started_at_us / 3600000000 * 3600000000 as hour,
        count(*) filter (where state = 'settled') as calls,
        sum(iif(state = 'settled', coalesce(cost_pico, 0), 0) / 1000000) as cost_micro,
        sum(iif(state = 'settled', coalesce(cost_pico, 0), 0) % 1000000) as cost_rest,
        sum(iif(state = 'settled', coalesce(prompt_tokens, 0) + coalesce(completion_tokens, 0), 0)) as tokens,
        count(*) filter (where (state = 'settled' and cost_pico is null)
            or (state = 'uncertain' and reserved_pico is null)) as unknown,
        sum(iif(state = 'uncertain', coalesce(reserved_pico, 0), 0) / 1000000) as uncertain_micro,
        sum(iif(state = 'uncertain', coalesce(reserved_pico, 0), 0) % 1000000) as uncertain_rest
    from attempts where started_at_us >= ? and started_at_us < ? group by 1, 2, 3)"""
_SPENT = """
    select tenant, sum(pico / 1000000), sum(pico % 1000000)
    from (select tenant, coalesce(iif(state = 'settled', cost_pico, null), reserved_pico, 0) as pico
        from attempts where started_at_us >= ? and state in ('settled', 'uncertain')) group by 1"""
_OUT = """
    select attempt_id, tenant, coalesce(reserved_pico, 0) from attempts
    where started_at_us >= ? and state = 'intent'"""
_PAGE = f"""
    select id, {_NAMES} from attempts
    where (started_at_us, id) > (?, ?) and started_at_us < ? order by started_at_us, id limit {ROWS_PER_PAGE}"""  # noqa: S608 - our own column names

_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; make room, then send the same write again",
    sqlite3.SQLITE_READONLY: "it may not be written; give this user write access to the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; the directory must exist and be writable for this user",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; move it away, or set another `ledger: {path: ...}`",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore a backup, or move it away and start a new one",
    sqlite3.SQLITE_BUSY: "another process keeps it locked; end that process, or use a ledger file of your own",
    sqlite3.SQLITE_IOERR: "reading or writing it failed; look at the disk and the kernel's log",
}
_process_run: tuple[int, str] = (0, "")


def run_of_this_process() -> str:
    """A name for this run of the program that no other run has; a forked child is a run of its own."""
    global _process_run
    if _process_run[0] != os.getpid():
        _process_run = (os.getpid(), uuid.uuid4().hex)
    return _process_run[1]


class SqliteLedger:
    """The ledger in the file at `path`, or in memory for ":memory:".

    Used by the thread that made it. `run` names the run whose calls write here; `recover` never touches the
    intents of runs that live. Several processes may share a file on one machine.

    Raises:
        ConfigError: when made, if the file cannot be a ledger; says why and what to do.
        LedgerUnavailable: by every later call that the file or the disk refuses.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["full", "normal", "off"] = "full",
        busy_timeout: float = 5.0,
        run: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        if self.path != ":memory:":
            self.path = str(Path(self.path).expanduser().absolute())
        self.late = 0
        self._closed = False
        with self._failing_as(ConfigError, "open"):
            self._open(synchronous, busy_timeout, run or run_of_this_process())

    def write(self, records: Sequence[AttemptRecord]) -> list[bool]:
        """Keep all records in one transaction; on the disk when it returns.

        False marks a record whose attempt is in the ledger already, in a state that it may not follow: it
        changes nothing and is counted in `late`.
        """
        rows = [encode(record, self._run) for record in records]
        with self._failing_as(LedgerUnavailable, "write"):
            if 0 < len(rows) <= ROWS_PER_STATEMENT:
                try:
                    self._insert(rows)
                    return [True] * len(rows)
                except sqlite3.IntegrityError:
                    pass  # something is late; the statement was undone as a whole, find out what it was
            with self._transaction():
                return self._write_timely(records, rows)

    def recover(self, now: datetime) -> int:
        """Turn the intents that dead runs left into uncertain entries; says how many there were."""
        with self._failing_as(LedgerUnavailable, "recover"), self._transaction():
            left = self._db.execute("select distinct run from attempts where state = 'intent'").fetchall()
            dead = [run for (run,) in left if not self._is_alive(run)]
            if not dead:
                return 0
            return self._db.execute(
                "update attempts set state = 'uncertain', ended_at_us = ?"
                " where state = 'intent' and run in (select value from json_each(?))",
                (to_us(now), json.dumps(dead)),
            ).rowcount

    def summary(self, since: datetime | None = None, until: datetime | None = None) -> Summary:
        """Add up the attempts that started in [since, until), exactly."""
        with self._failing_as(LedgerUnavailable, "read"):
            (text,) = self._db.execute(_SUMMARY, bounds(since, until)).fetchone()
        return summary_of((tally(*sums) for sums in json.loads(text)), since, until)

    def spending(self, since: datetime) -> Spending:
        """What the attempts that started since then have spent, or may yet, tenant by tenant."""
        first = (to_us(since),)
        with self._failing_as(LedgerUnavailable, "read"), self._transaction():
            spent = self._db.execute(_SPENT, first).fetchall()
            out = self._db.execute(_OUT, first).fetchall()
        return Spending({tenant: micro * 1_000_000 + rest for tenant, micro, rest in spent}, out)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[AttemptRecord]:
        """The attempts that started in [since, until), oldest first; read in pages, so writing may go on."""
        first, end = bounds(since, until)
        after = (first, -1)
        while True:
            with self._failing_as(LedgerUnavailable, "read"):
                page = self._db.execute(_PAGE, (*after, end)).fetchall()
            yield from (decode(row[1:]) for row in page)
            if len(page) < ROWS_PER_PAGE:
                return
            after = (page[-1][6], page[-1][0])

    def open_intents(self) -> int:
        """How many attempts are in flight, those of other living processes included."""
        with self._failing_as(LedgerUnavailable, "read"):
            return int(self._db.execute("select count(*) from attempts where state = 'intent'").fetchone()[0])

    def close(self, *, end_run: bool = True) -> None:
        """Let go of the file; idempotent. `end_run=False` if calls of this run may still be in flight."""
        if self._closed:
            return
        self._closed = True
        self._db.close()
        if end_run and self.path != ":memory:":
            runs.let_go(self._runs_path, self._run)

    # -- opening

    @property
    def _runs_path(self) -> str:
        return f"{self.path}-runs"

    def _open(self, synchronous: str, busy_timeout: float, run: str) -> None:
        if self.path != ":memory:":
            if os.path.isdir(self.path):
                raise ConfigError(f"the ledger {self.path} is a directory; name a file in it")
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
        give_up_at = time.monotonic() + busy_timeout
        while True:
            self._db = sqlite3.connect(self.path, timeout=busy_timeout, isolation_level=None)
            try:
                return self._prepare(synchronous, run)
            except BaseException as error:
                self._db.close()
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                    raise
            time.sleep(0.01)  # SQLite does not wait by itself while others enter or leave WAL

    def _prepare(self, synchronous: str, run: str) -> None:
        self._require_ours(self._db)
        self._db.execute("pragma journal_mode = wal")
        self._db.execute(f"pragma synchronous = {synchronous}")
        self._migrate()
        self._run = self._enter_run(run)

    def _require_ours(self, db: sqlite3.Connection) -> None:
        """Refuse a file of another program before changing anything in it."""
        tables = db.execute("select count(*) from sqlite_schema").fetchone()[0]
        owner = db.execute("pragma application_id").fetchone()[0]  # read last: it is set together with our tables
        if tables and owner != APPLICATION_ID:
            raise ConfigError(f"{self.path} is the database of another program; name another file for the ledger")

    def _migrate(self) -> None:
        """Bring the file's schema up to date; two processes may try at once, one does it."""
        if self._version() == len(MIGRATIONS):
            return
        with self._transaction():
            version = self._version()
            if version > len(MIGRATIONS):
                raise ConfigError(
                    f"the ledger {self.path} was written by a newer RubberDuck (schema {version}, this one knows"
                    f" {len(MIGRATIONS)}); upgrade, or name another file"
                )
            for statements in MIGRATIONS[version:]:
                for statement in statements:
                    self._db.execute(statement)
            self._db.execute(f"pragma application_id = {APPLICATION_ID}")
            self._db.execute(f"pragma user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        return int(self._db.execute("pragma user_version").fetchone()[0])

    def _enter_run(self, name: str) -> int:
        """Our run's number; held before any intent bears it, so that no one ever sees it dead."""
        self._db.execute("insert into runs(name) values (?) on conflict do nothing", (name,))
        run = int(self._db.execute("select run from runs where name = ?", (name,)).fetchone()[0])
        if self.path != ":memory:":
            runs.hold(self._runs_path, run)
        return run

    def _is_alive(self, run: int) -> bool:
        """Our own run is: we hold it. Nothing in memory has another owner."""
        return self.path == ":memory:" or runs.is_alive(self._runs_path, run)

    # -- writing

    def _insert(self, rows: Sequence[Sequence[Any]]) -> None:
        places = ", ".join([_ONE_ROW] * len(rows))
        self._db.execute(
            f"insert into attempts({_NAMES}) values {places} on conflict(attempt_id) do update set {_END}",  # noqa: S608 - our own column names
            [value for row in rows for value in row],
        )

    def _write_timely(self, records: Sequence[AttemptRecord], rows: Sequence[Sequence[Any]]) -> list[bool]:
        """Insert what may follow on what the ledger holds, inside a transaction."""
        ids = json.dumps([row[0] for row in rows])
        (known,) = self._db.execute(
            "select json_group_object(attempt_id, state) from attempts"
            " where attempt_id in (select value from json_each(?))",
            (ids,),
        ).fetchone()
        states = {attempt_id: State(state) for attempt_id, state in json.loads(known).items()}
        timely = []
        for row, record in zip(rows, records, strict=True):
            timely.append(may_follow(states.get(row[0]), record.state))
            if timely[-1]:
                states[row[0]] = record.state
        good = [row for row, in_time in zip(rows, timely, strict=True) if in_time]
        for start in range(0, len(good), ROWS_PER_STATEMENT):
            self._insert(good[start : start + ROWS_PER_STATEMENT])
        self.late += len(rows) - len(good)
        return timely

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("begin immediate")
        try:
            yield
            self._db.execute("commit")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("rollback")
            raise

    @contextmanager
    def _failing_as(self, error_class: type[RubberDuckError], verb: str) -> Iterator[None]:
        """Say what a failure of the disk or the file means, and what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise  # a closed ledger, a wrong thread: the caller's mistake
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            advice = _ADVICE.get(code, "see the message of SQLite")
            raise error_class(f"cannot {verb} the ledger {self.path}: {advice} ({error})") from error
        except OSError as error:
            advice = "the directory must exist and be writable for this user"
            raise error_class(f"cannot {verb} the ledger {self.path}: {error.strerror}; {advice}") from error
