"""What can go wrong with a file: no space, no right, no database, another owner, a process that is shot."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from rubberduck.core.ledger import State
from rubberduck.errors import ConfigError
from rubberduck.storage import LedgerUnavailable
from rubberduck.storage.sqlite import APPLICATION_ID, SqliteLedger
from rubberduck.types import Usage

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
USAGE = Usage(100, 20)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.db"


@contextmanager
def without_rights():
    """File permissions bind everyone but the superuser: stop being it for a while."""
    effective = os.geteuid()
    if effective == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(effective)


def test_a_write_is_synced_to_the_disk_unless_asked_otherwise(path):
    for word, level in [("full", 2), ("normal", 1), ("off", 0)]:
        ledger = SqliteLedger(path, synchronous=word)
        assert ledger._db.execute("pragma synchronous").fetchone() == (level,)
        assert ledger._db.execute("pragma journal_mode").fetchone() == ("wal",)
        ledger.close()


def test_a_batch_takes_one_step_of_sqlite(path, intent):
    """Each step gives up the interpreter's lock; a group commit must not pay it once for each row."""
    ledger = SqliteLedger(path)
    statements = []
    ledger._db.set_trace_callback(statements.append)
    ledger.write([intent(n) for n in range(64)] + [intent(n).voided(at=NOON) for n in range(64)])
    assert len(set(statements)) == 1, "begin, commit or a second statement was needed"  # a trigger repeats the text
    ledger.close()


def test_a_full_disk_is_said_and_the_same_write_succeeds_once_there_is_room(path, intent):
    ledger = SqliteLedger(path)
    used = ledger._db.execute("pragma page_count").fetchone()[0]
    ledger._db.execute(f"pragma max_page_count = {used + 1}")
    batch = [intent(n, tags={"pad": "x" * 500}) for n in range(50)]
    with pytest.raises(LedgerUnavailable, match="disk is full; make room, then send the same write again"):
        ledger.write(batch)
    assert list(ledger.rows()) == []
    ledger._db.execute("pragma max_page_count = 1000000")
    assert ledger.write(batch) == [True] * 50
    assert list(ledger.rows()) == batch
    ledger.close()


@pytest.mark.parametrize("extra", range(0, 11, 2))
def test_a_disk_that_fills_up_at_any_page_leaves_all_or_nothing(path, intent, extra):
    ledger = SqliteLedger(path)
    used = ledger._db.execute("pragma page_count").fetchone()[0]
    ledger._db.execute(f"pragma max_page_count = {used + extra}")
    batch = [intent(n, tags={"pad": "x" * 900}) for n in range(45)] + [intent(1).voided(at=NOON), intent(1)]
    with pytest.raises(LedgerUnavailable):
        ledger.write(batch)
    assert list(ledger.rows()) == []
    assert ledger.write([intent(99)]) == [True]
    ledger.close()


def test_a_file_size_limit_of_the_system_is_a_full_disk_too(path):
    script = f"""
import resource, signal, sys
from datetime import UTC, datetime
from rubberduck.core.ledger import AttemptRecord
from rubberduck.storage import LedgerUnavailable
from rubberduck.storage.sqlite import SqliteLedger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = SqliteLedger({str(path)!r})
def batch(start): return [AttemptRecord(f"a{{start + n}}", "c", "p", "m" * 200, datetime.now(UTC)) for n in range(100)]
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
written = 0
try:
    while True:
        ledger.write(batch(written)); written += 100
except LedgerUnavailable as error: print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert len(list(ledger.rows())) == written
assert all(ledger.write(batch(written)))
assert len(list(ledger.rows())) == written + 100
ledger.close()
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cannot write the ledger" in done.stdout


def test_a_directory_is_no_ledger(tmp_path):
    with pytest.raises(ConfigError, match="is a directory; name a file in it"):
        SqliteLedger(tmp_path)


def test_a_parent_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot open the ledger .*directory"):
        SqliteLedger(tmp_path / "file" / "ledger.db")


def test_a_directory_without_write_permission_is_said(tmp_path):
    tmp_path.chmod(0o555)
    with without_rights(), pytest.raises(ConfigError, match=r"cannot open the ledger .*writable for this user"):
        SqliteLedger(tmp_path / "ledger.db")
    tmp_path.chmod(0o755)


def test_a_read_only_file_is_said():
    with tempfile.TemporaryDirectory() as directory:  # pytest's own lies below one that only its user may enter
        path = Path(directory, "ledger.db")
        SqliteLedger(path).close()
        path.chmod(0o444)
        path.parent.chmod(0o555)
        with without_rights(), pytest.raises(ConfigError, match=r"write access|writable for this user"):
            SqliteLedger(path)
        path.parent.chmod(0o755)


def test_a_file_that_is_no_database_is_left_alone(path):
    path.parent.mkdir()
    path.write_text("dear diary, " * 1000)
    with pytest.raises(ConfigError, match="is no SQLite database; move it away"):
        SqliteLedger(path)
    assert path.read_text().startswith("dear diary")


def test_the_database_of_another_program_is_left_alone(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as foreign:
        foreign.execute("create table precious(x)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="the database of another program"):
        SqliteLedger(path)
    assert path.read_bytes() == before


def test_a_damaged_page_is_said(path, intent):
    ledger = SqliteLedger(path)
    ledger.write([intent(n, tags={"pad": "x" * 200}) for n in range(200)])
    ledger.close()
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises((ConfigError, LedgerUnavailable), match="damaged; restore a backup"):
        list(SqliteLedger(path).rows())


def test_a_ledger_of_a_newer_version_is_refused(path):
    SqliteLedger(path).close()
    with sqlite3.connect(path) as db:
        db.execute("pragma user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match=r"newer RubberDuck .schema 99"):
        SqliteLedger(path)


def test_an_older_schema_is_brought_up_to_date_and_keeps_its_rows(path, intent, monkeypatch):
    ledger = SqliteLedger(path)
    ledger.write([intent(1)])
    ledger.close()
    from rubberduck.storage import sqlite

    more = (*sqlite.MIGRATIONS, ("create table notes(text text)", "insert into notes values ('moved')"))
    monkeypatch.setattr(sqlite, "MIGRATIONS", more)
    ledger = SqliteLedger(path)
    assert ledger._db.execute("select text from notes").fetchall() == [("moved",)]
    assert list(ledger.rows()) == [intent(1)]
    ledger.close()
    broken = (*more, ("create table half(x)", "no sql at all"))
    monkeypatch.setattr(sqlite, "MIGRATIONS", broken)
    with pytest.raises(ConfigError, match="cannot open"):
        SqliteLedger(path)
    monkeypatch.setattr(sqlite, "MIGRATIONS", more)
    ledger = SqliteLedger(path)
    assert ledger._db.execute("select count(*) from sqlite_schema where name = 'half'").fetchone() == (0,)
    ledger.close()


FIRST_SCHEMA = """
    create table runs(
        run integer primary key autoincrement,
        name text not null unique
    ) strict;
    create table attempts(
        id integer primary key,
        attempt_id text not null unique,
        call_id text not null,
        provider text not null,
        model text not null,
        state text not null check (state in ('intent', 'settled', 'void', 'uncertain')),
        started_at_us integer not null,
        ended_at_us integer,
        prompt_tokens integer,
        completion_tokens integer,
        cached_tokens integer,
        cache_write_tokens integer,
        reasoning_tokens integer,
        cost_pico integer,
        price_source text,
        price_date text,
        reserved_pico integer,
        tenant text not null,
        tags text not null,
        run integer not null references runs
    ) strict;
    create index attempts_by_start on attempts(started_at_us);
    create index attempts_open on attempts(run) where state = 'intent';
    create trigger attempts_end_once before update on attempts when old.state <> 'intent' or new.state = 'intent'
       begin select raise(abort, 'the attempt is in the ledger already'); end;
    create trigger attempts_stay before delete on attempts begin select raise(abort, 'append-only'); end;
"""
"""As the first release wrote it."""
FIRST_ROWS = """
    insert into runs(run, name) values (1, 'run-of-old');
    insert into attempts(attempt_id, call_id, provider, model, state, started_at_us, ended_at_us, prompt_tokens,
            completion_tokens, cached_tokens, cost_pico, price_source, tenant, tags, run) values
        ('a1', 'c1', 'openai', 'gpt-4o', 'settled', 1772366460000000, 1772366461000000, 5, 7, 3, 90000000, 'list', '',
            '{"team": "search"}', 1),
        ('a2', 'c2', 'openai', 'gpt-4o', 'intent', 1772366520000000, null, null, null, null, null, null, '', '{}', 1);
"""


@pytest.fixture
def of_old(path):
    """A ledger as the first schema left it, and a program that still has it open."""
    path.parent.mkdir()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode = wal")
    db.executescript(FIRST_SCHEMA)
    db.execute(f"pragma application_id = {APPLICATION_ID}")
    db.execute("pragma user_version = 1")
    db.executescript(FIRST_ROWS)
    yield db
    db.close()


def test_a_ledger_of_the_first_schema_keeps_its_rows_and_learns_the_new_columns(path, of_old, intent):
    ledger = SqliteLedger(path)
    first, second = ledger.rows()
    assert (first.prompt_tokens, first.cost, first.tags) == (5, Decimal("0.00009"), {"team": "search"})
    assert (first.service_tier, first.prompt_audio_tokens, first.cache_write_1h_tokens) == (None, None, None)
    usage = Usage(5, 7, prompt_audio_tokens=2, completion_audio_tokens=1, cache_write_1h_tokens=3, service_tier="flex")
    ended = second.settled(usage, Decimal("0.1"), at=NOON)
    assert ledger.write([ended, intent(9)]) == [True, True]
    assert list(ledger.rows())[1:] == [ended, intent(9)]
    assert ledger.summary().cost == Decimal("0.10009")
    ledger.close()


def test_the_rules_of_the_first_schema_hold_on(path, of_old):
    SqliteLedger(path).close()
    for statement in ("delete from attempts", "update attempts set service_tier = 'flex' where attempt_id = 'a1'"):
        with pytest.raises(sqlite3.IntegrityError):
            of_old.execute(statement)


def test_a_program_of_the_first_schema_goes_on_writing_beside_a_newer_one(path, of_old):
    ledger = SqliteLedger(path)
    of_old.executescript(FIRST_ROWS.partition(";")[2].replace("'a1'", "'a3'").replace("'a2'", "'a4'"))
    assert sorted(row.attempt_id for row in ledger.rows()) == ["a1", "a2", "a3", "a4"]
    ledger.close()


def test_a_lock_of_another_program_is_said_and_passes(path, intent):
    ledger = SqliteLedger(path, busy_timeout=0.01)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(LedgerUnavailable, match="another process keeps it locked"):
        ledger.write([intent(1)])
    with pytest.raises(ConfigError, match="another process keeps it locked"):
        SqliteLedger(path, busy_timeout=0.01, run="other")
    other.execute("rollback")
    other.close()
    assert ledger.write([intent(1)]) == [True]
    ledger.close()


def test_rows_can_neither_be_removed_nor_changed_by_any_client(path, intent):
    ledger = SqliteLedger(path)
    ledger.write([intent(1).voided(at=NOON)])
    ledger.close()
    db = sqlite3.connect(path)
    for statement in ("delete from attempts", "update attempts set cost_pico = 0"):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(statement)
    db.close()


def test_a_closed_ledger_is_the_callers_mistake(path, intent):
    ledger = SqliteLedger(path)
    ledger.close()
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.write([intent(1)])


def test_the_home_directory_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    SqliteLedger("~/deep/ledger.db").close()
    assert (tmp_path / "deep" / "ledger.db").exists()


WRITER = """
import sys
from datetime import UTC, datetime
from decimal import Decimal
from rubberduck.core.ledger import AttemptRecord
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.types import Usage
path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = SqliteLedger(path)
for n in range(count):
    now = datetime.now(UTC)
    intents = [AttemptRecord(f"{name}-{n}-{k}", "call", "p", "m", now, reserved=Decimal(1)) for k in range(3)]
    assert ledger.write(intents) == [True] * 3
    print("intent", n, flush=True)
    if name == "silent":
        sys.stdin.read()
    ends = [intent.settled(Usage(1, 1), Decimal("0.001"), at=now) for intent in intents]
    assert ledger.write(ends) == [True] * 3
    print("settled", n, flush=True)
"""


@pytest.fixture
def start_writer():
    """Starts a process that writes to a ledger and tells each write it was given an answer for."""
    started = []

    def start(path, name, count):
        command = [sys.executable, "-c", WRITER, str(path), name, str(count)]
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_a_killed_process(path, seed, start_writer):
    """The process is shot after a random line; what it had reported is on the disk, what it left open is uncertain."""
    process = start_writer(path, "w", 10_000)
    lines = [process.stdout.readline().split() for _ in range(random.Random(seed).randrange(1, 60))]
    process.send_signal(signal.SIGKILL)
    lines += [line.split() for line in process.communicate(timeout=30)[0].splitlines()]
    lines = [line for line in lines if len(line) == 2 and line[1].isdigit()]

    ledger = SqliteLedger(path)
    recovered = ledger.recover(NOON)
    rows = {row.attempt_id: row for row in ledger.rows()}
    assert ledger._db.execute("pragma integrity_check").fetchone() == ("ok",)
    for word, n in lines:
        for k in range(3):
            state = rows[f"w-{n}-{k}"].state
            assert state in ({State.SETTLED} if word == "settled" else {State.SETTLED, State.UNCERTAIN})
    assert recovered in (0, 3)
    assert State.INTENT not in {row.state for row in rows.values()}
    assert len(rows) % 3 == 0
    ledger.close()


def test_intents_of_a_living_process_are_left_alone_and_become_uncertain_when_it_dies(path, start_writer):
    process = start_writer(path, "silent", 1)
    assert process.stdout.readline().strip() == "intent 0"
    ledger = SqliteLedger(path)
    assert ledger.recover(NOON) == 0
    process.kill()
    process.communicate(timeout=30)
    assert ledger.recover(NOON) == 3
    assert ledger.open_intents() == 0
    ledger.close()


def test_two_processes_write_one_file_without_losing_a_row(path, start_writer):
    SqliteLedger(path).close()
    writers = [start_writer(path, name, 25) for name in ("left", "right")]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    ledger = SqliteLedger(path)
    assert ledger.summary().cost == Decimal("0.15")
    assert ledger._db.execute("pragma integrity_check").fetchone() == ("ok",)
    ledger.close()


@pytest.mark.parametrize("attempt", range(5))
def test_ledgers_opened_at_the_same_moment_agree_on_one_schema(path, attempt):
    """The owner used to be read before the tables: a schema made in between passed for another program's."""
    errors, barrier = [], threading.Barrier(6)

    def open_and_write(n):
        try:
            barrier.wait(60)
            ledger = SqliteLedger(path, run=f"run-{n}")
            ledger.close()
        except ConfigError as error:
            errors.append(error)

    threads = [threading.Thread(target=open_and_write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []


def test_a_mistake_inside_a_transaction_leaves_none_open(path, intent):
    ledger = SqliteLedger(path, run="ours")
    earlier = SqliteLedger(path, run="earlier")
    earlier.write([intent(1)])
    earlier.close()
    with pytest.raises(ValueError, match="time zone"):
        ledger.recover(NOON.replace(tzinfo=None))
    assert not ledger._db.in_transaction
    assert ledger.write([intent(1).voided(at=NOON), intent(1)]) == [True, False]
    ledger.close()
