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
import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from rubberduck.core.budget import Spending
from rubberduck.core.ledger import AttemptRecord, State, Summary, may_follow, summary_of, to_us
from rubberduck.errors import ConfigError
from rubberduck.storage import LedgerUnavailable, runs
from rubberduck.storage.schema import COLUMNS, MIGRATIONS, bounds, decode, encode, tally
from rubberduck.storage.sqlite_file import MEMORY, SqliteFile, Synchronous

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
        synchronous: Synchronous = "full",
        busy_timeout: float = 5.0,
        run: str | None = None,
    ) -> None:
        self.late = 0
        self._closed = False
        self._file = SqliteFile(
            path,
            purpose="the ledger",
            application_id=APPLICATION_ID,
            migrations=MIGRATIONS,
            synchronous=synchronous,
            busy_timeout=busy_timeout,
        )
        self.path = self._file.path
        self._db = self._file.db
        try:
            with self._file.failing_as(ConfigError, "open"):
                self._run = self._enter_run(run or run_of_this_process())
        except BaseException:
            self._file.close()
            raise

    def write(self, records: Sequence[AttemptRecord]) -> list[bool]:
        """Keep all records in one transaction; on the disk when it returns.

        False marks a record whose attempt is in the ledger already, in a state that it may not follow: it
        changes nothing and is counted in `late`.
        """
        rows = [encode(record, self._run) for record in records]
        with self._file.failing_as(LedgerUnavailable, "write"):
            if 0 < len(rows) <= ROWS_PER_STATEMENT:
                try:
                    self._insert(rows)
                    return [True] * len(rows)
                except sqlite3.IntegrityError:
                    pass  # something is late; the statement was undone as a whole, find out what it was
            with self._file.transaction():
                return self._write_timely(records, rows)

    def recover(self, now: datetime) -> int:
        """Turn the intents that dead runs left into uncertain entries; says how many there were."""
        with self._file.failing_as(LedgerUnavailable, "recover"), self._file.transaction():
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
        with self._file.failing_as(LedgerUnavailable, "read"):
            (text,) = self._db.execute(_SUMMARY, bounds(since, until)).fetchone()
        return summary_of((tally(*sums) for sums in json.loads(text)), since, until)

    def spending(self, since: datetime) -> Spending:
        """What the attempts that started since then have spent, or may yet, tenant by tenant."""
        first = (to_us(since),)
        with self._file.failing_as(LedgerUnavailable, "read"), self._file.transaction():
            spent = self._db.execute(_SPENT, first).fetchall()
            out = self._db.execute(_OUT, first).fetchall()
        return Spending({tenant: micro * 1_000_000 + rest for tenant, micro, rest in spent}, out)

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[AttemptRecord]:
        """The attempts that started in [since, until), oldest first; read in pages, so writing may go on."""
        first, end = bounds(since, until)
        after = (first, -1)
        while True:
            with self._file.failing_as(LedgerUnavailable, "read"):
                page = self._db.execute(_PAGE, (*after, end)).fetchall()
            yield from (decode(row[1:]) for row in page)
            if len(page) < ROWS_PER_PAGE:
                return
            after = (page[-1][6], page[-1][0])

    def open_intents(self) -> int:
        """How many attempts are in flight, those of other living processes included."""
        with self._file.failing_as(LedgerUnavailable, "read"):
            return int(self._db.execute("select count(*) from attempts where state = 'intent'").fetchone()[0])

    def close(self, *, end_run: bool = True) -> None:
        """Let go of the file; idempotent. `end_run=False` if calls of this run may still be in flight."""
        if self._closed:
            return
        self._closed = True
        self._file.close()
        if end_run and self.path != MEMORY:
            runs.let_go(self._runs_path, self._run)

    # -- runs

    @property
    def _runs_path(self) -> str:
        return f"{self.path}-runs"

    def _enter_run(self, name: str) -> int:
        """Our run's number; held before any intent bears it, so that no one ever sees it dead."""
        self._db.execute("insert into runs(name) values (?) on conflict do nothing", (name,))
        run = int(self._db.execute("select run from runs where name = ?", (name,)).fetchone()[0])
        if self.path != MEMORY:
            runs.hold(self._runs_path, run)
        return run

    def _is_alive(self, run: int) -> bool:
        """Our own run is: we hold it. Nothing in memory has another owner."""
        return self.path == MEMORY or runs.is_alive(self._runs_path, run)

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
