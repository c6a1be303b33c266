"""Event logs: what was recorded is applied again, whatever cut the file, the disk or the process short."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_rig import LEDGERS, DiskFull, FailingDisk, Ledger, LedgerThread
from tree_rig import Boom, Obedient, raising

import supervision as sup
from supervision.state.event_logs import LogKeeper
from supervision.state.log_file import LogFile, Retired
from supervision.state.log_format import HEADER, Record, encode, read_record
from supervision.testing import Probe, fault

ROOT = Path(__file__).resolve().parent.parent.parent
CRASH = raising(Boom("boom"))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.log"


@pytest.fixture(params=sorted(LEDGERS))
def ledger(request):
    """A ledger on either host."""
    return LEDGERS[request.param]


@pytest.fixture
def keeping(system, ledger, path):
    """Starts a ledger that logs to `path`, and gives its ref."""

    def start(**options: Any) -> Any:
        state = sup.event_log(path, **{"quarantine": 0, **options})
        system.supervise(sup.ChildSpec("it", ledger, state=state), max_restarts=100)
        return system.whereis("it")

    return start


def applied(ref: Any) -> list[Any]:
    return ref.ask(lambda actor: list(actor.applied), timeout=30)


def crash(ref: Any, message: Any = CRASH) -> None:
    with pytest.raises(Boom):
        ref.ask(message, timeout=30)


def opened(path: Path, owner: Any = "owner", **options: Any) -> LogFile:
    log = LogFile(path, owner, **options)
    log.open()
    return log


def read_all(log: LogFile) -> list[Any]:
    entries: list[Any] = []
    while batch := log.read(2):
        entries += batch
    return entries


def recovered(path: Path) -> tuple[list[Any], LogFile]:
    """What a log has, and the log, ready to be appended to."""
    log = opened(path)
    return read_all(log), log


def entries_of(path: Path) -> list[Any]:
    """What a log has, which is free again."""
    found, log = recovered(path)
    log.retire()
    return found


def write_log(path: Path, entries: list[Any]) -> bytes:
    data = HEADER + b"".join(encode(entry) for entry in entries)
    path.write_bytes(data)
    return data


# -- the format ------------------------------------------------------------------------------------------


@given(json_values)
def test_an_entry_comes_back_as_it_was(entry):
    data = encode(entry)
    match read_record(io.BytesIO(data), len(data)):
        case Record(entry=found, size=size):
            assert (found, size, str(found)) == (entry, len(data), str(entry))
        case damage:
            pytest.fail(str(damage))


@pytest.mark.parametrize(
    "entry",
    [
        (1, 2),
        {"deep": [{"in": {1, 2}}]},
        {1: "a number for a key"},
        b"bytes",
        float("nan"),
        [float("inf")],
        object(),
        10**5000,
    ],
    ids=lambda entry: type(entry).__name__,
)
def test_what_would_come_back_as_something_else_is_refused(entry):
    with pytest.raises(sup.EntryNotJson, match="JSON") as refused:
        encode(entry)
    assert isinstance(refused.value, TypeError)


def test_an_entry_that_contains_itself_is_refused():
    entry: list[Any] = []
    entry.append(entry)
    with pytest.raises(sup.EntryNotJson):
        encode(entry)


# -- damage ----------------------------------------------------------------------------------------------


def boundaries(entries: list[Any]) -> list[int]:
    ends = [len(HEADER)]
    for entry in entries:
        ends.append(ends[-1] + len(encode(entry)))
    return ends


@settings(max_examples=8)
@given(st.lists(json_values, max_size=3))
def test_a_file_cut_anywhere_gives_the_longest_whole_prefix_and_can_be_appended_to(entries):
    ends = boundaries(entries)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.log"
        whole = write_log(path, entries)
        for size in range(len(whole) + 1):
            path.write_bytes(whole[:size])
            found, log = recovered(path)
            log.append(encode("next"))
            log.retire()
            prefix = entries[: sum(end <= size for end in ends[1:])]
            assert found == prefix
            assert (log.cut is None) == (size in ends or size < ends[0])
            again, log = recovered(path)
            log.retire()
            assert again == [*prefix, "next"]
        assert os.listdir(folder) == ["it.log"]


@settings(max_examples=6)
@given(st.lists(json_values, min_size=1, max_size=3), st.integers(min_value=1, max_value=255))
def test_a_damaged_byte_never_gives_a_wrong_entry_and_nothing_behind_it_is_lost(entries, flip):
    ends = boundaries(entries)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "it.log"
        whole = write_log(path, entries)
        for at in range(len(HEADER), len(whole)):
            damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            path.write_bytes(damaged)
            found, log = recovered(path)
            log.append(encode("next"))
            log.retire()
            kept = sum(end <= at for end in ends[1:])
            assert found == entries[:kept]
            assert log.cut is not None
            assert path.read_bytes() == damaged[: ends[kept]] + encode("next")
            if log.cut.moved_to is None:
                assert kept == len(entries) - 1  # cut, for it was the last record
            else:
                assert log.cut.moved_to.read_bytes() == damaged[ends[kept] :]
                log.cut.moved_to.unlink()


@pytest.mark.parametrize("at", range(len(HEADER)))
def test_what_does_not_begin_as_a_log_is_left_alone(path, at):
    """It may be anybody's file, or that of a later version: nothing is read, written or moved."""
    whole = bytearray(write_log(path, ["a", "b"]))
    whole[at] ^= 0xFF
    path.write_bytes(whole)
    log = LogFile(path, "owner")
    with pytest.raises(sup.EventLogError, match="does not begin"):
        log.open()
    assert path.read_bytes() == whole
    write_log(path, ["a"])
    assert entries_of(path) == ["a"]


def test_zeros_at_the_end_are_moved_aside(path):
    """As a file system may leave them after a power cut: the size was written, the data was not."""
    whole = write_log(path, ["a"])
    path.write_bytes(whole + bytes(100))
    found, log = recovered(path)
    log.retire()
    assert found == ["a"]
    assert log.cut is not None
    assert log.cut.moved_to == path.with_name("it.log.bad-1")
    assert path.read_bytes() == whole


def test_a_record_that_is_whole_but_no_json_is_moved_aside(path):
    """Its sums are right, so that no crash has cut it short: somebody has written it."""
    length = (3).to_bytes(4, "big")
    sums = [zlib.crc32(part).to_bytes(4, "big") for part in (length, b"a b")]
    path.write_bytes(write_log(path, ["a"]) + length + b"".join(sums) + b"a b")
    found, log = recovered(path)
    log.retire()
    assert found == ["a"]
    assert log.cut is not None
    assert log.cut.moved_to is not None


def test_what_was_moved_aside_before_is_not_overwritten(path):
    path.with_name("it.log.bad-1").write_text("older")
    path.write_bytes(write_log(path, ["a"]) + bytes(100))
    recovered(path)[1].retire()
    assert path.with_name("it.log.bad-1").read_text() == "older"
    assert path.with_name("it.log.bad-2").exists()


# -- failing at every step -------------------------------------------------------------------------------


def steps_of(work: Any) -> int:
    disk = FailingDisk()
    work(disk)
    return len(disk.steps)


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
@pytest.mark.parametrize("sync", [False, True])
def test_an_append_that_fails_at_any_step_leaves_the_old_log_or_the_new(tmp_path, sync, for_good):
    def work(disk: FailingDisk, path: Path) -> list[str]:
        """Open, read, and append three; those that were said to be there."""
        said: list[str] = []
        log = LogFile(path, "owner", sync=sync, disk=disk)
        try:
            log.open()
            read_all(log)
            for entry in ("b", "c", "d"):
                try:
                    log.append(encode(entry))
                    said.append(entry)
                except (DiskFull, sup.EventLogError):
                    pass
        except DiskFull:
            pass
        finally:
            log.retire()
        return said

    def fresh(name: str) -> Path:
        write_log(tmp_path / name, ["a"])
        return tmp_path / name

    steps = steps_of(lambda disk: work(disk, fresh("counted")))
    assert steps == (7 if sync else 4)
    for nth in range(1, steps + 1):
        path = fresh(f"log-{nth}")
        said = work(FailingDisk(nth, for_good=for_good), path)
        found, log = recovered(path)
        log.retire()
        # For good: the record whose sync failed could not be taken back, and is there, whole.
        unsaid = found[len(said) + 1 :]
        assert found[: len(said) + 1] == ["a", *said]
        assert unsaid == [] or (for_good and sync and len(unsaid) == 1)
        if not for_good:
            assert len(said) >= (2 if nth > 1 else 0)


@pytest.mark.parametrize("ending", [bytes(40), encode("torn")[:-1]], ids=["damaged", "torn"])
def test_a_recovery_that_fails_at_any_step_loses_nothing_and_can_be_tried_again(tmp_path, ending):
    def damaged(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(write_log(path, ["a", "b"]) + ending)
        return path

    def recover(disk: FailingDisk, path: Path) -> list[Any]:
        log = LogFile(path, "owner", disk=disk)
        try:
            log.open()
            return read_all(log)
        finally:
            log.retire()

    steps = steps_of(lambda disk: recover(disk, damaged("counted")))
    for nth in range(1, steps + 1):
        path = damaged(f"log-{nth}")
        before = path.read_bytes()
        with pytest.raises(DiskFull):
            recover(FailingDisk(nth), path)
        assert path.read_bytes() == before
        assert recover(FailingDisk(), path) == ["a", "b"]
        if ending == bytes(40):
            assert path.with_name(f"{path.name}.bad-1").read_bytes() == ending


def test_a_log_whose_making_fails_at_any_step_can_be_made_again(tmp_path):
    def make(disk: FailingDisk, path: Path) -> None:
        log = LogFile(path, "owner", sync=True, disk=disk)
        try:
            log.open()
        finally:
            log.retire()

    for nth in range(1, steps_of(lambda disk: make(disk, tmp_path / "counted")) + 1):
        path = tmp_path / f"log-{nth}"
        with pytest.raises(DiskFull):
            make(FailingDisk(nth), path)
        make(FailingDisk(), path)
        assert path.read_bytes() == HEADER


def test_after_a_record_that_could_not_be_taken_back_nothing_more_is_written(path):
    disk = FailingDisk()
    log = opened(path, disk=disk)
    disk.nth, disk.for_good = len(disk.steps) + 1, True
    with pytest.raises(DiskFull):
        log.append(encode("a long record, of which half is left"))
    disk.nth = None
    with pytest.raises(sup.EventLogError, match="taken back"):
        log.append(encode("short"))
    log.retire()
    assert entries_of(path) == []


# -- one writer ------------------------------------------------------------------------------------------


def test_two_names_cannot_have_one_log(system, ledger, path, tmp_path):
    state = sup.event_log(path)
    (tmp_path / "link").symlink_to(path)
    root = system.supervise(sup.ChildSpec("one", ledger, state=state))
    refused = root.start_child(sup.ChildSpec("two", ledger, state=state)).get(timeout=30)
    assert refused.reason.type == "LogInUse"
    assert "root/one" in refused.reason.message
    by_link = sup.ChildSpec("three", ledger, state=sup.event_log(tmp_path / "link"))
    assert root.start_child(by_link).get(timeout=30).reason.type == "LogInUse"
    assert system.whereis("one").ask("still", timeout=30) == 1


def test_a_log_is_free_once_its_actor_has_ended(system, ledger, path):
    root = system.supervise(sup.ChildSpec("one", ledger, state=sup.event_log(path)))
    system.whereis("one").ask("a", timeout=30)
    root.terminate_child("one").get(timeout=30)
    root.start_child(sup.ChildSpec("two", ledger, state=sup.event_log(path))).get(timeout=30)
    assert applied(system.whereis("two")) == ["a"]


def test_another_process_cannot_have_the_log(path):
    log = opened(path)
    program = f"""
    from supervision.state.log_file import LogFile
    LogFile({str(path)!r}, "other").open()
    """
    tried = run_python(program)
    assert "LogInUse" in tried.stderr
    log.retire()
    assert run_python(program).returncode == 0


def run_python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, text=True, timeout=30
    )


def test_a_program_that_is_being_started_does_not_hold_the_log(path):
    """Between fork and exec it has a copy of every open file, and with it the lock."""
    log = opened(path)
    copy = os.dup(log._file.fileno())
    log.retire()
    opened(path, "another").retire()
    os.close(copy)


def test_a_life_that_is_over_cannot_append(path):
    log = opened(path)
    log.retire()
    with pytest.raises(Retired):
        log.append(encode("late"))


def test_who_takes_over_waits_for_the_record_that_is_just_being_written(path):
    """So that it finds it, and no record can come in behind its back."""
    writing, going_on = threading.Event(), threading.Event()

    class SlowDisk(FailingDisk):
        def write(self, file: Any, at: int, data: bytes) -> None:
            if data == encode("slow"):
                writing.set()
                assert going_on.wait(30)
            super().write(file, at, data)

    old = opened(path, disk=SlowDisk())
    writer = threading.Thread(target=old.append, args=(encode("slow"),))
    writer.start()
    assert writing.wait(30)
    refused: list[bool] = []

    def append_too_late() -> None:
        with pytest.raises(Retired):
            old.append(encode("late"))
        refused.append(True)

    too_late = threading.Thread(target=append_too_late)
    too_late.start()
    old.retire()
    found: list[Any] = []
    heir = threading.Thread(target=lambda: found.append(recovered(path)))
    heir.start()
    heir.join(0.05)
    assert not found
    going_on.set()
    for thread in (writer, too_late, heir):
        thread.join(30)
    assert refused
    (entries, new) = found[0]
    new.retire()
    assert entries == ["slow"]


def test_a_zombie_cannot_record(make_system, gate, path):
    entered, outcome = threading.Event(), []

    def stick(actor: Any) -> None:
        entered.set()
        gate.wait()
        try:
            actor.record("from beyond")
        except sup.ActorDeadError as error:
            outcome.append(error)

    system = make_system()
    system.supervise(sup.ChildSpec("it", LedgerThread, state=sup.event_log(path)))
    ref = system.whereis("it")
    ref.ask("a", timeout=30)
    ref.tell(stick)
    assert entered.wait(30)
    zombie = ref.name.incarnation
    system.kill(ref)
    assert applied(ref) == ["a"]
    gate.set()
    zombie.thread.join(30)
    assert isinstance(outcome[0].reason, sup.Abandoned)
    ref.ask("b", timeout=30)
    system.stop(60)
    assert entries_of(path) == ["a", "b"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_leaves_the_log_to_its_parent(path):
    program = f"""
    import os
    from supervision.state.log_file import LogFile
    from supervision.state.log_format import encode
    log = LogFile({str(path)!r}, "parent")
    log.open()
    if os.fork() == 0:
        try:
            log.append(encode("from the child"))
        except Exception as error:
            os._exit(0 if type(error).__name__ == "Retired" else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    log.append(encode("from the parent"))
    try:
        LogFile({str(path)!r}, "other").open()
    except Exception as error:
        print(type(error).__name__)
    """
    done = run_python(program)
    assert (done.stdout.strip(), done.stderr) == ("LogInUse", "")
    assert entries_of(path) == ["from the parent"]


# -- in an actor -----------------------------------------------------------------------------------------


def test_what_was_recorded_is_applied_again_in_order_after_a_crash(keeping):
    ref = keeping()
    for number in range(10):
        ref.ask({"number": number}, timeout=30)
    crash(ref)
    assert applied(ref) == [{"number": number} for number in range(10)]
    ref.ask("more", timeout=30)
    crash(ref)
    assert len(applied(ref)) == 11


def test_it_survives_the_system(make_system, ledger, path):
    for number in range(3):
        with make_system() as system:
            system.supervise(sup.ChildSpec("it", ledger, state=sup.event_log(path)))
            assert applied(system.whereis("it")) == list(range(number))
            system.whereis("it").ask(number, timeout=30)


def test_a_crash_between_recording_and_applying_applies_it_exactly_once(keeping):
    ref = keeping()

    def half(actor: Any) -> None:
        actor.record("recorded")
        raise Boom("before it was applied")

    crash(ref, half)
    assert applied(ref) == ["recorded"]
    crash(ref)
    assert applied(ref) == ["recorded"]


def test_entries_are_applied_after_on_start_and_before_recover_and_any_message(system, ledger, path):
    story: list[Any] = []

    class Tells(ledger):  # type: ignore[misc]
        def on_start(self) -> None:
            super().on_start()
            story.append("on_start")

        def apply(self, entry: Any) -> None:
            story.append(entry)

        def recover(self) -> None:
            story.append("recover")

    write_log(path, [1, 2])
    system.supervise(sup.ChildSpec("it", Tells, state=sup.event_log(path)))
    system.whereis("it").ask(lambda actor: story.append("message"), timeout=30)
    assert story == ["on_start", 1, 2, "recover", "message"]


def test_apply_may_be_async(system, path):
    class Async(Ledger):
        async def apply(self, entry: Any) -> None:
            await asyncio.sleep(0)
            self.applied.append(entry)

    write_log(path, [1, 2, 3])
    system.supervise(sup.ChildSpec("it", Async, state=sup.event_log(path)))
    assert applied(system.whereis("it")) == [1, 2, 3]


def test_a_long_log_is_read_without_stopping_the_neighbours(system, path, monkeypatch):
    """A neighbour on the same loop answers between two batches, and while the disk is slow."""
    write_log(path, list(range(2000)))
    slow, reading = threading.Event(), threading.Event()

    class SlowDisk(FailingDisk):
        def open(self, path: Path) -> Any:
            reading.set()
            assert slow.wait(30)
            return super().open(path)

    root = system.supervise(sup.ChildSpec("neighbour", Obedient))
    spec = sup.ChildSpec("it", Ledger, state=sup.event_log(path))
    monkeypatch.setattr(LogKeeper, "disk", SlowDisk())
    starting = root.start_child(spec)
    assert reading.wait(30)
    assert system.whereis("neighbour").ask("hello", timeout=30) == "hello"
    slow.set()
    ref = starting.get(timeout=30).ref
    assert applied(ref) == list(range(2000))


def test_a_record_that_cannot_be_written_is_not_there_and_the_next_one_is(keeping):
    ref = keeping()
    ref.ask("a", timeout=30)
    ref.name.keeper.log._disk = FailingDisk(1)
    with pytest.raises(DiskFull):
        ref.ask("b", timeout=30)
    assert applied(ref) == ["a"]
    ref.ask("c", timeout=30)
    crash(ref)
    assert applied(ref) == ["a", "c"]


def test_a_fault_while_recording_leaves_the_log_as_it_was(keeping):
    ref = keeping()
    ref.ask("a", timeout=30)
    with fault("snapshot_write", Boom("disk"), path="it", nth=1):
        crash(ref, "b")
    assert applied(ref) == ["a"]


def test_with_sync_it_works_the_same(keeping):
    ref = keeping(sync=True)
    ref.ask("a", timeout=30)
    crash(ref)
    assert applied(ref) == ["a"]


def test_an_entry_that_is_no_json_crashes_the_handler_and_is_not_there(keeping):
    ref = keeping()
    with pytest.raises(sup.EntryNotJson):
        ref.ask(("a", "tuple"), timeout=30)
    assert applied(ref) == []


def test_recording_without_a_log_says_what_the_spec_lacks(system, obedient):
    system.supervise(sup.ChildSpec("it", obedient))
    with pytest.raises(RuntimeError, match="event_log"):
        system.whereis("it").ask(lambda actor: actor.record("a"), timeout=30)


def test_recording_is_for_handlers(system, ledger, path):
    class Early(ledger):  # type: ignore[misc]
        def on_start(self) -> None:
            self.record("too early")

    with pytest.raises(sup.StartFailedError, match="handler"):
        system.supervise(sup.ChildSpec("it", Early, state=sup.event_log(path)))


def test_a_task_left_running_cannot_record_in_the_name_of_the_next_message(system, path):
    outcome: list[Any] = []

    async def leave_a_task(actor: Any) -> None:
        actor.is_next = asyncio.Event()

        async def record_later() -> None:
            await actor.is_next.wait()
            try:
                actor.record("late")
            except RuntimeError as error:
                outcome.append(error)

        actor.task = asyncio.create_task(record_later())

    async def let_it_try(actor: Any) -> None:
        actor.is_next.set()
        await actor.task

    system.supervise(sup.ChildSpec("it", Ledger, state=sup.event_log(path)))
    ref = system.whereis("it")
    ref.ask(leave_a_task, timeout=30)
    ref.ask(let_it_try, timeout=30)
    assert "while it handles a message" in str(outcome[0])


def test_a_class_without_apply_is_refused_before_anything_starts(system, obedient, path):
    with pytest.raises(sup.SpecError, match=f"apply.*{obedient.__name__}"):
        system.supervise(sup.ChildSpec("it", obedient, state=sup.event_log(path)))
    assert not path.exists()


def test_a_folder_that_is_not_there_fails_the_start(system, ledger, tmp_path):
    with pytest.raises(sup.StartFailedError, match="No such file"):
        system.supervise(sup.ChildSpec("it", ledger, state=sup.event_log(tmp_path / "no" / "it.log")))


@pytest.mark.parametrize(
    ("ending", "event"), [(b"\0" * 40, "log_damaged"), (encode("torn")[:-1], "log_cut")], ids=["damaged", "torn"]
)
def test_what_is_cut_off_is_told_of(make_system, ledger, path, eventually, caplog, ending, event):
    path.write_bytes(write_log(path, ["a"]) + ending)
    system, probe = make_system(), Probe()
    system.events.subscribe(probe.record)
    system.supervise(sup.ChildSpec("it", ledger, state=sup.event_log(path)))
    assert applied(system.whereis("it")) == ["a"]
    told = eventually(lambda: [each for each in probe.messages if each.name == event])
    assert (told[0].path, told[0].info["size_bytes"]) == ("root/it", len(ending))
    assert str(path) in caplog.text
    probe.stop()


# -- the end of the process ------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_nothing_that_was_acknowledged_is_lost_by_sigkill(path):
    program = f"""
    import itertools, sys
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from state_rig import Ledger
    import supervision as sup
    with sup.System("killed") as system:
        system.supervise(sup.ChildSpec("it", Ledger, state=sup.event_log({str(path)!r})))
        ref = system.whereis("it")
        for number in itertools.count():
            ref.ask(number)
            print(number, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process, process.stdout as acknowledged:
        for _ in range(200):
            acknowledged.readline()
        process.kill()
        last = 199 + sum(1 for line in acknowledged if line.endswith("\n"))
    found, log = recovered(path)
    log.retire()
    assert found == list(range(len(found)))
    assert len(found) > last
