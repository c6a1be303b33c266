"""What every store of jobs promises. A new backend joins in `STORES`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rubberduck.core.jobs import Job, JobState
from rubberduck.errors import ConfigError, LedgerUnavailable
from rubberduck.storage.jobs import SqliteJobs

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(seconds=30)
STORES: dict[str, Callable[[Path], Any]] = {
    "sqlite": lambda folder: SqliteJobs(folder / "jobs.db"),
    "sqlite-memory": lambda _: SqliteJobs(":memory:"),
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteJobs]:
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()


def job(id: str, **fields: Any) -> Job:
    return Job(id, '{"model":"m"}', "{}", NOON, **fields)


def test_a_job_is_kept_as_it_was_submitted(store: SqliteJobs) -> None:
    accepted = store.submit(job("a", tenant="acme", key="k"))
    assert accepted == replace(job("a", tenant="acme", key="k"), ready_at=NOON)
    assert store.find("a") == accepted
    assert store.find("b") is None


def test_the_same_key_of_the_same_tenant_is_the_same_job(store: SqliteJobs) -> None:
    store.submit(job("a", tenant="acme", key="k"))
    assert store.submit(job("b", tenant="acme", key="k")).id == "a"
    assert store.submit(job("c", tenant="other", key="k")).id == "c"
    assert store.submit(job("d", tenant="acme")).id == "d"
    assert store.counts()["ready"] == 3


def test_submitting_twice_is_submitting_once(store: SqliteJobs) -> None:
    assert store.submit(job("a")) == store.submit(job("a"))
    assert store.counts()["ready"] == 1


def test_of_many_jobs_those_that_have_not_ended_are_told_apart(store: SqliteJobs) -> None:
    for id in "abc":
        store.submit(job(id))
    first, _ = store.lease(NOON, LATER, 2)
    store.finish(first, JobState.DONE, "{}", NOON)
    assert store.open_among(["a", "b", "c", "nobody"]) == {"b", "c"}
    assert store.open_among([]) == set()


def test_a_job_is_leased_to_one(store: SqliteJobs) -> None:
    for id in "abc":
        store.submit(job(id))
    assert [leased.id for leased in store.lease(NOON, LATER, 2)] == ["a", "b"]
    assert [leased.id for leased in store.lease(NOON, LATER, 2)] == ["c"]
    assert store.lease(NOON, LATER, 2) == []


def test_a_lease_lapses_only_after_its_time_and_renewing_lengthens_it(store: SqliteJobs) -> None:
    store.submit(job("a"))
    (leased,) = store.lease(NOON, LATER, 1)
    assert store.lapsed(LATER) == []
    assert [each.id for each in store.lapsed(LATER + timedelta(microseconds=1))] == ["a"]
    assert store.renew([leased], LATER + timedelta(seconds=30)) == [leased]
    assert store.lapsed(LATER + timedelta(seconds=1)) == []


def test_who_comes_back_after_his_job_was_given_to_another_changes_nothing(store: SqliteJobs) -> None:
    store.submit(job("a"))
    (first,) = store.lease(NOON, LATER, 1)
    assert store.give_back(first, NOON)
    (second,) = store.lease(NOON, LATER, 1)
    assert (first.deliveries, second.deliveries) == (1, 2)
    assert store.renew([first], LATER) == []
    assert not store.finish(first, JobState.DONE, "{}", LATER)
    assert not store.give_back(first, NOON)
    assert store.finish(second, JobState.DONE, '{"answer":42}', LATER)
    assert not store.finish(second, JobState.DEAD, "{}", LATER)
    found = store.find("a")
    assert found is not None
    assert (found.state, found.outcome) == (JobState.DONE, '{"answer":42}')


def test_a_job_that_was_turned_away_waits_until_it_is_ready_again(store: SqliteJobs) -> None:
    store.submit(job("a"))
    (leased,) = store.lease(NOON, LATER, 1)
    assert store.give_back(leased, LATER, turned_away=True)
    assert store.lease(LATER - timedelta(microseconds=1), LATER, 1) == []
    (again,) = store.lease(LATER, LATER, 1)
    assert (again.deliveries, again.turned_away) == (2, 1)


def test_only_what_has_ended_is_forgotten(store: SqliteJobs) -> None:
    for id in "abc":
        store.submit(job(id))
    first, second, _ = store.lease(NOON, LATER, 3)
    store.finish(first, JobState.DONE, "{}", NOON)
    store.finish(second, JobState.DEAD, "{}", LATER)
    assert store.forget(LATER) == 1
    assert store.counts() == {"ready": 0, "leased": 1, "done": 0, "dead": 1}


def test_jobs_outlive_their_process(tmp_path: Path) -> None:
    first = SqliteJobs(tmp_path / "jobs.db")
    first.submit(job("a"))
    first.lease(NOON, LATER, 1)
    first.close()
    second = SqliteJobs(tmp_path / "jobs.db")
    assert [each.id for each in second.lapsed(LATER + timedelta(seconds=1))] == ["a"]
    second.close()


def test_a_file_that_is_no_store_of_jobs_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, whatever it may be called" * 100)
    with pytest.raises(ConfigError, match="the jobs"):
        SqliteJobs(tmp_path / "text")
    with pytest.raises(ConfigError, match="is a directory"):
        SqliteJobs(tmp_path)


def test_a_disk_that_fails_is_told_as_such(tmp_path: Path) -> None:
    store = SqliteJobs(tmp_path / "jobs.db")
    store._db.execute("pragma query_only = on")
    with pytest.raises(LedgerUnavailable, match="cannot write the jobs"):
        store.submit(job("a"))
    store.close()


class StoreMachine(RuleBasedStateMachine):
    """The store beside a literal model: a dictionary of jobs, and who holds which delivery."""

    leases = Bundle("leases")

    def __init__(self) -> None:
        super().__init__()
        self.store = SqliteJobs(":memory:")
        self.model: dict[str, Job] = {}
        self.now = NOON

    def teardown(self) -> None:
        self.store.close()

    @rule(number=st.integers(0, 30), key=st.sampled_from([None, "k", "l"]))
    def submit(self, number: int, key: str | None) -> None:
        new = replace(job(f"j{number}", key=key), ready_at=NOON)
        same = self.model.get(new.id)
        twins = [each for each in self.model.values() if key is not None and each.key == key]
        expected = same or (twins[0] if twins else new)
        self.model.setdefault(expected.id, expected)
        assert self.store.submit(new) == expected

    @rule(target=leases, most=st.integers(1, 3))
    def lease(self, most: int) -> Job | None:
        until = self.now + timedelta(seconds=10)
        ready = [each for each in self.model.values() if each.state is JobState.READY and each.ready_at <= self.now]
        expected = [
            replace(
                each,
                state=JobState.LEASED,
                deliveries=each.deliveries + 1,
                leased_at=self.now,
                lease_until=until,
            )
            for each in ready[:most]
        ]
        self.model |= {each.id: each for each in expected}
        assert sorted(self.store.lease(self.now, until, most), key=repr) == sorted(expected, key=repr)
        return expected[0] if expected else None

    def holds(self, lease: Job | None) -> bool:
        current = None if lease is None else self.model[lease.id]
        return current is not None and current.state is JobState.LEASED and current.deliveries == lease.deliveries

    @rule(lease=leases, state=st.sampled_from([JobState.DONE, JobState.DEAD]))
    def finish(self, lease: Job | None, state: JobState) -> None:
        if lease is None:
            return
        assert self.store.finish(lease, state, "{}", self.now) is self.holds(lease)
        if self.holds(lease):
            self.model[lease.id] = replace(self.model[lease.id], state=state, outcome="{}")

    @rule(lease=consumes(leases), pause=st.integers(0, 20), turned_away=st.booleans())
    def give_back(self, lease: Job | None, pause: int, turned_away: bool) -> None:
        if lease is None:
            return
        ready_at = self.now + timedelta(seconds=pause)
        assert self.store.give_back(lease, ready_at, turned_away=turned_away) is self.holds(lease)
        if self.holds(lease):
            was = self.model[lease.id]
            self.model[lease.id] = replace(
                was, state=JobState.READY, ready_at=ready_at, turned_away=was.turned_away + turned_away
            )

    @rule(lease=leases)
    def renew(self, lease: Job | None) -> None:
        if lease is None:
            return
        until = self.now + timedelta(seconds=10)
        assert (self.store.renew([lease], until) == [lease]) is self.holds(lease)
        if self.holds(lease):
            self.model[lease.id] = replace(self.model[lease.id], lease_until=until)

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def agree(self) -> None:
        for id, expected in self.model.items():
            assert self.store.find(id) == expected
        lapsed = {
            id for id, each in self.model.items() if each.state is JobState.LEASED and each.lease_until < self.now
        }
        assert {each.id for each in self.store.lapsed(self.now)} == lapsed
        counted = self.store.counts()
        assert {state: counted[state] for state in JobState} == {
            state: sum(each.state is state for each in self.model.values()) for state in JobState
        }


StoreMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestStoreMachine = StoreMachine.TestCase
