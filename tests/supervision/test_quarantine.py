"""Quarantine: state that an actor crashes of soon after it was restored is set aside, and the next one starts fresh."""

from __future__ import annotations

from typing import Any

import pytest
from state_rig import COUNTERS, LEDGERS, DiskFull, FailingDisk
from tree_rig import Boom, raising

import supervision as sup
from supervision.testing import Probe

CRASH = raising(Boom("boom"))
EVERY = sup.snapshot(every_messages=1)


@pytest.fixture(params=sorted(COUNTERS))
def host(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    return tmp_path / "it.log"


@pytest.fixture
def counter(timed, host):
    """The ref of a counter that has counted to 5, crashed, and been restored a moment ago."""
    timed.supervise(sup.ChildSpec("it", COUNTERS[host], state=EVERY), max_restarts=100)
    ref = timed.whereis("it")
    ref.ask(5, timeout=30)
    ref.ask(lambda actor: None, timeout=30)
    crash(ref)
    assert count(ref) == 5
    return ref


@pytest.fixture
def ledger(timed, host, path):
    """The ref of a ledger that has recorded "a", crashed, and been restored a moment ago."""
    timed.supervise(sup.ChildSpec("it", LEDGERS[host], state=sup.event_log(path)), max_restarts=100)
    ref = timed.whereis("it")
    ref.ask("a", timeout=30)
    crash(ref)
    assert applied(ref) == ["a"]
    return ref


def crash(ref: Any, message: Any = CRASH) -> None:
    with pytest.raises(Boom):
        ref.ask(message, timeout=30)


def count(ref: Any) -> int:
    return ref.ask(lambda actor: actor.count, timeout=30)


def applied(ref: Any) -> list[Any]:
    return ref.ask(lambda actor: list(actor.applied), timeout=30)


# -- snapshots -------------------------------------------------------------------------------------------


def test_a_crash_soon_after_a_restore_makes_the_next_start_fresh(counter, clock):
    clock.advance(4.9)
    crash(counter)
    assert count(counter) == 0


def test_a_later_crash_keeps_the_state(counter, clock):
    clock.advance(5.0)
    crash(counter)
    assert count(counter) == 5


def test_a_crash_without_any_restore_before_it_keeps_the_state(timed, host):
    """Which the first crash of a young actor is: nothing was restored."""
    timed.supervise(sup.ChildSpec("it", COUNTERS[host], state=EVERY))
    ref = timed.whereis("it")
    ref.ask(5, timeout=30)
    ref.ask(lambda actor: None, timeout=30)
    crash(ref)
    assert count(ref) == 5


def test_after_a_fresh_start_snapshots_begin_anew(counter):
    crash(counter)
    counter.ask(2, timeout=30)
    counter.ask(lambda actor: None, timeout=30)
    crash(counter)
    assert count(counter) == 2


def test_what_was_taken_since_the_restore_is_as_suspect(counter):
    counter.ask(1, timeout=30)
    crash(counter)
    assert count(counter) == 0


def test_the_bad_state_is_kept_for_inspection_and_told_of(timed, counter, eventually, caplog):
    probe = Probe()
    timed.events.subscribe(probe.record)
    crash(counter)
    assert count(counter) == 0
    assert counter.name.keeper.quarantined == 5
    told = eventually(lambda: [each for each in probe.messages if each.name == "state_quarantined"])
    assert (told[0].path, told[0].info["state"]) == ("root/it", 5)
    assert "starts fresh" in caplog.text
    probe.stop()


def test_the_tree_shows_what_is_kept_and_what_was_set_aside(timed, counter, eventually):
    def seen() -> Any:
        return timed.tree().find("root/it").kept

    assert (seen().kind, seen().at, seen().quarantined) == ("snapshot", 0.0, None)
    crash(counter)
    assert count(counter) == 0
    eventually(lambda: seen() == sup.Kept("snapshot", at=0.0, quarantined=5))
    assert seen().to_dict() == {"kind": "snapshot", "at": 0.0, "entries": None, "quarantined": "int"}
    assert "snapshot, bad state set aside" in str(timed.tree())


def test_the_tree_shows_the_log_and_its_entries(timed, ledger, path):
    ledger.ask("b", timeout=30)
    assert timed.tree().find("root/it").kept == sup.Kept("event_log", entries=2)
    crash(ledger)
    assert applied(ledger) == []
    kept = timed.tree().find("root/it").kept.to_dict()
    assert kept == {"kind": "event_log", "at": None, "entries": 0, "quarantined": f"{path}.quarantined-1"}
    assert "event log 0, bad state set aside" in str(timed.tree())


def test_a_crash_in_on_start_over_the_state_counts_and_the_next_attempt_succeeds(timed, host):
    def choke(actor: Any) -> None:
        if actor.count:
            raise Boom("such a number")

    timed.supervise(sup.ChildSpec("it", COUNTERS[host], kwargs={"on_start": choke}, state=EVERY))
    ref = timed.whereis("it")
    ref.ask(5, timeout=30)
    ref.ask(lambda actor: None, timeout=30)
    crash(ref)
    assert count(ref) == 0


def test_an_orderly_end_keeps_the_state(counter):
    counter.ask(lambda actor: actor.exit(), timeout=30)
    assert count(counter) == 5


def test_to_be_killed_keeps_the_state(timed, counter, eventually):
    epoch = counter.name.epoch
    timed.kill(counter)
    eventually(lambda: counter.name.epoch > epoch)
    assert count(counter) == 5


def test_to_be_stuck_in_a_handler_is_the_actors_own_fault(make_system, gate, eventually):
    system = make_system()
    spec = sup.ChildSpec("it", COUNTERS["thread"], state=EVERY, max_handle_time=0.05)
    system.supervise(spec, max_restarts=100)
    ref = system.whereis("it")
    ref.ask(5, timeout=30)
    ref.ask(lambda actor: None, timeout=30)
    crash(ref)
    assert count(ref) == 5
    ref.tell(lambda actor: gate.wait())
    eventually(lambda: ref.name.epoch == 3)
    assert count(ref) == 0


def test_a_bystander_of_a_group_restart_keeps_its_state(timed, host):
    specs = [sup.ChildSpec(id, COUNTERS[host], state=EVERY, shutdown="brutal_kill") for id in ("bad", "bystander")]
    timed.supervise(*specs, strategy="one_for_all", max_restarts=100)
    bad, bystander = timed.whereis("bad"), timed.whereis("bystander")
    bystander.ask(5, timeout=30)
    bystander.ask(lambda actor: None, timeout=30)
    for _ in range(3):
        crash(bad)
        assert count(bystander) == 5


def test_to_be_ended_by_a_link_keeps_the_state(timed, host, counter, eventually):
    root = timed.whereis("root")
    root.start_child(sup.ChildSpec("linked", COUNTERS[host])).get(timeout=30)
    other = timed.whereis("linked")
    counter.ask(lambda actor: actor.link(other), timeout=30)
    epoch = counter.name.epoch
    crash(other)
    eventually(lambda: counter.name.epoch > epoch)
    assert count(counter) == 5


def test_what_an_actor_remembers_without_a_spec_is_never_quarantined(timed, obedient):
    timed.supervise(sup.ChildSpec("it", obedient))
    ref = timed.whereis("it")
    ref.ask(lambda actor: actor.remember("this"), timeout=30)
    for _ in range(2):
        crash(ref)
    assert ref.ask(lambda actor: actor.context.snapshot, timeout=30) == "this"


# -- logs ------------------------------------------------------------------------------------------------


def test_a_crash_soon_after_a_replay_moves_the_log_aside(ledger, path, clock):
    whole = path.read_bytes()
    clock.advance(4.9)
    crash(ledger)
    assert applied(ledger) == []
    assert path.with_name("it.log.quarantined-1").read_bytes() == whole
    assert str(ledger.name.keeper.quarantined) == f"{path}.quarantined-1"


def test_a_crash_longer_after_a_replay_keeps_the_log(ledger, path, clock):
    clock.advance(5.0)
    crash(ledger)
    assert applied(ledger) == ["a"]
    assert not path.with_name("it.log.quarantined-1").exists()


def test_after_a_fresh_start_a_new_log_begins(ledger, path):
    crash(ledger)
    ledger.ask("b", timeout=30)
    crash(ledger)
    assert applied(ledger) == ["b"]
    crash(ledger)
    assert applied(ledger) == []
    assert path.with_name("it.log.quarantined-2").exists()


def test_a_crash_while_an_entry_is_applied_counts(timed, host, path):
    """The log leads to a crash each time: without quarantine the actor would never come up again."""

    def choke(entry: Any) -> None:
        if entry == "bad" and "armed" in armed:
            raise Boom("cannot be applied")

    armed: list[str] = []
    timed.supervise(
        sup.ChildSpec("it", LEDGERS[host], kwargs={"on_apply": choke}, state=sup.event_log(path)), max_restarts=2
    )
    ref = timed.whereis("it")
    ref.ask("good", timeout=30)
    ref.ask("bad", timeout=30)
    armed.append("armed")
    crash(ref)
    assert applied(ref) == []
    assert ref.name.epoch == 3


def test_a_crash_in_recover_counts(timed, host, path):
    class Chokes(LEDGERS[host]):  # type: ignore[misc]
        def recover(self) -> None:
            if self.applied:
                raise Boom("cannot go on from there")

    timed.supervise(sup.ChildSpec("it", Chokes, state=sup.event_log(path)))
    ref = timed.whereis("it")
    ref.ask("a", timeout=30)
    crash(ref)
    assert applied(ref) == []


def test_an_orderly_end_keeps_the_log(ledger):
    ledger.ask(lambda actor: actor.exit(), timeout=30)
    assert applied(ledger) == ["a"]


def test_to_be_killed_keeps_the_log(timed, ledger, eventually):
    epoch = ledger.name.epoch
    timed.kill(ledger)
    eventually(lambda: ledger.name.epoch > epoch)
    assert applied(ledger) == ["a"]


def test_a_full_disk_says_nothing_of_the_state(ledger):
    ledger.name.keeper.log._disk = FailingDisk(1)
    with pytest.raises(DiskFull):
        ledger.ask("b", timeout=30)
    assert applied(ledger) == ["a"]


def test_a_log_that_cannot_be_moved_aside_is_not_read_either(ledger, path, eventually):
    """The next attempt tries again: whatever happens, the condemned log is never applied."""
    disk = ledger.name.keeper.disk = FailingDisk(2)  # opening is the first step, moving the second
    crash(ledger)
    assert applied(ledger) == []
    assert disk.steps[:4] == ["open", "rename", "open", "rename"]
    assert path.with_name("it.log.quarantined-1").exists()


@pytest.mark.parametrize("nth", range(1, 5))
def test_whichever_step_of_moving_aside_fails_the_old_log_is_whole_and_the_new_one_empty(ledger, path, nth):
    whole = path.read_bytes()
    ledger.name.keeper.disk = FailingDisk(nth)
    crash(ledger)
    assert applied(ledger) == []
    assert path.with_name("it.log.quarantined-1").read_bytes() == whole
    ledger.ask("b", timeout=30)
    assert applied(ledger) == ["b"]
