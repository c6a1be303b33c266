"""Durable jobs in one SQLite file: accepted means committed, a claim is one statement.

Several processes of one machine may share a file: a job has one owner at a time, for as long as its lease holds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rubberduck.core.jobs import Job, JobState, Safety
from rubberduck.core.ledger import from_us, to_us
from rubberduck.errors import LedgerUnavailable
from rubberduck.storage.sqlite_file import SqliteFile, Synchronous

APPLICATION_ID = 0x4475636A  # "Ducj"

_SCHEMA_1 = (
    """create table jobs(
        number integer primary key,             -- the order of acceptance
        id text not null unique,
        tenant text not null,
        key text,
        safety text not null check (safety in ('at_most_once', 'at_least_once')),
        request text not null,                  -- JSON
        options text not null,                  -- JSON
        state text not null check (state in ('ready', 'leased', 'done', 'dead')),
        deliveries integer not null,
        turned_away integer not null,
        ready_at_us integer not null,
        submitted_at_us integer not null,       -- microseconds since 1970, UTC
        leased_at_us integer,
        lease_until_us integer,
        ended_at_us integer,
        outcome text                            -- JSON: a response, or an error
    ) strict""",
    "create unique index jobs_by_key on jobs(tenant, key) where key is not null",
    "create index jobs_open on jobs(state, number) where state in ('ready', 'leased')",
    "create index jobs_by_end on jobs(ended_at_us) where ended_at_us is not null",
)

_COLUMNS = (
    "id, request, options, submitted_at_us, tenant, key, safety, state, deliveries, turned_away, ready_at_us,"
    " leased_at_us, lease_until_us, outcome"
)
_LEASE = f"""
    update jobs set state = 'leased', deliveries = deliveries + 1, leased_at_us = ?, lease_until_us = ?
    where number in (select number from jobs where state = 'ready' and ready_at_us <= ? order by number limit ?)
    returning {_COLUMNS}"""  # noqa: S608 - our own column names


class SqliteJobs:
    """The jobs in the file at `path`. Used by the thread that made it; every method is one transaction.

    Raises:
        ConfigError: when made, if the file cannot be used.
        LedgerUnavailable: by every later call that the file or the disk refuses; nothing of it was kept.
    """

    def __init__(self, path: str | os.PathLike[str], *, synchronous: Synchronous = "full") -> None:
        self._file = SqliteFile(
            path, purpose="the jobs", application_id=APPLICATION_ID, migrations=(_SCHEMA_1,), synchronous=synchronous
        )
        self._db = self._file.db

    def submit(self, job: Job) -> Job:
        """Accept a job; on the disk when it returns. The one accepted before it, if its tenant has used the key."""
        with self._failing("write"), self._file.transaction():
            self._db.execute(
                "insert into jobs(id, tenant, key, safety, request, options, state, deliveries, turned_away,"
                " submitted_at_us, ready_at_us) values (?, ?, ?, ?, ?, ?, 'ready', 0, 0, ?, ?) on conflict do nothing",
                (job.id, job.tenant, job.key, job.safety, job.request, job.options, *[to_us(job.submitted_at)] * 2),
            )
            found = self._one("id = ?", job.id) or self._one("tenant = ? and key = ?", job.tenant, job.key)
        assert found is not None
        return found

    def lease(self, now: datetime, until: datetime, most: int) -> list[Job]:
        """Take up to `most` jobs that are ready, the oldest first; each begins a delivery."""
        with self._failing("write"), self._file.transaction():
            rows = self._db.execute(_LEASE, (to_us(now), to_us(until), to_us(now), most)).fetchall()
        return sorted(map(_job, rows), key=lambda job: job.submitted_at)

    def renew(self, deliveries: Sequence[Job], until: datetime) -> list[Job]:
        """Hold these leases longer; those that others have taken meanwhile are left out of the answer.

        A lease that has lapsed and was taken by nobody is held on to: clocks jump.
        """
        with self._failing("write"), self._file.transaction():
            return [job for job in deliveries if self._change(job, "lease_until_us = ?", to_us(until))]

    def finish(self, job: Job, state: JobState, outcome: str, now: datetime) -> bool:
        """Keep how a delivery ended. False, and no effect, if the job is no longer that delivery's."""
        with self._failing("write"), self._file.transaction():
            return self._change(job, "state = ?, outcome = ?, ended_at_us = ?", state, outcome, to_us(now))

    def give_back(self, job: Job, ready_at: datetime, *, turned_away: bool = False) -> bool:
        """The delivery has ended without an answer: let the job be delivered again from `ready_at` on."""
        with self._failing("write"), self._file.transaction():
            changes = "state = 'ready', ready_at_us = ?, turned_away = turned_away + ?"
            return self._change(job, changes, to_us(ready_at), int(turned_away))

    def lapsed(self, now: datetime) -> list[Job]:
        """The jobs whose owners have let their lease run out."""
        with self._failing("read"):
            rows = self._db.execute(
                f"select {_COLUMNS} from jobs where state = 'leased' and lease_until_us < ? order by number",  # noqa: S608
                (to_us(now),),
            ).fetchall()
        return [_job(row) for row in rows]

    def find(self, id: str) -> Job | None:
        """The job as it stands now."""
        with self._failing("read"):
            return self._one("id = ?", id)

    def open_among(self, ids: Iterable[str]) -> set[str]:
        """Those of these jobs that have not ended; in one query, for there may be many."""
        with self._failing("read"):
            rows = self._db.execute(
                "select id from jobs where id in (select value from json_each(?)) and state in ('ready', 'leased')",
                (json.dumps(list(ids)),),
            ).fetchall()
        return {id for (id,) in rows}

    def counts(self) -> dict[str, int]:
        """How many jobs are in which state."""
        with self._failing("read"):
            found = self._db.execute("select state, count(*) from jobs group by 1").fetchall()
        return {str(state): 0 for state in JobState} | dict(found)

    def forget(self, before: datetime) -> int:
        """Remove the jobs that ended before that; says how many."""
        with self._failing("write"), self._file.transaction():
            return int(self._db.execute("delete from jobs where ended_at_us < ?", (to_us(before),)).rowcount)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _failing(self, verb: str) -> Any:
        return self._file.failing_as(LedgerUnavailable, verb)

    def _one(self, condition: str, *values: Any) -> Job | None:
        row = self._db.execute(f"select {_COLUMNS} from jobs where {condition}", values).fetchone()  # noqa: S608
        return None if row is None else _job(row)

    def _change(self, job: Job, changes: str, *values: Any) -> bool:
        """Change a job if it still is with this very delivery."""
        return bool(
            self._db.execute(
                f"update jobs set {changes} where id = ? and state = 'leased' and deliveries = ?",  # noqa: S608
                (*values, job.id, job.deliveries),
            ).rowcount
        )


def _job(row: Sequence[Any]) -> Job:
    id, request, options, submitted, tenant, key, safety, state, deliveries, turned_away, ready_at, *rest = row
    leased, until, outcome = rest
    return Job(
        id,
        request,
        options,
        from_us(submitted),
        tenant,
        key,
        Safety(safety),
        JobState(state),
        deliveries,
        turned_away,
        from_us(ready_at),
        None if leased is None else from_us(leased),
        None if until is None else from_us(until),
        outcome,
    )
