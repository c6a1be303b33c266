"""Actors of both kinds crash in every way and are killed, while others ask and tell: the books must balance.

Twice with real threads, and a thousand times in an order drawn from a seed.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import pykka
import pytest
from chaos_rig import WORKERS, Books, FragileLoop, FragileThread, tree
from chaos_run import be_quiet, chaos, deterministic, try_seeds

import supervision as sup
from supervision.child_owner import ChildOwner
from supervision.engine.sequence import Sequence
from supervision.incarnation import Incarnation
from supervision.mailbox import Mailbox
from supervision.message import Reply
from supervision.name import Name
from supervision.registry import Registry
from supervision.shell import Shell
from supervision.state.log_file import LogFile
from supervision.state.snapshots import SnapshotKeeper
from supervision.testing import DeterministicScheduler
from supervision.work import Work

SEEDS = 1_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Crashes are what this is about: nobody wants to read thousands of them."""
    logger = logging.getLogger("supervision")
    before = logger.level
    be_quiet()
    yield
    logger.setLevel(before)


# --- in threads --------------------------------------------------------------------------------------------------


def in_threads(*coroutines: Coroutine[Any, Any, None]) -> None:
    threads = [threading.Thread(target=asyncio.run, args=(each,)) for each in coroutines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_balance_in_threads(make_system, seed, eventually, tmp_path):
    books = chaos(
        make_system(),
        str(seed),
        in_threads,
        lambda condition: eventually(condition, timeout=60.0),
        tmp_path,
        thread=FragileThread,
        scale=10,
    )
    assert len(books.begun) > 100


# --- a thousand orders -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)  # it takes a quarter of a minute where nothing else runs
def test_the_books_balance_in_a_thousand_orders():
    failures, happened, missing = [], Counter(), set(range(SEEDS))
    try:
        for seed, failure, counts in try_seeds(range(SEEDS)):
            missing.remove(seed)
            happened += counts
            if failure:
                failures.append(f"seed {seed}: {failure}")
            assert len(failures) < 10, "\n".join(failures)
    finally:
        if missing:  # it may be one of them that never ended
            print("not told of: the seeds", *sorted(missing))
    assert failures == [], "\n".join(failures)
    assert happened["messages"] > 100 * SEEDS
    assert happened["restored"] > SEEDS
    assert happened["replayed"] > SEEDS


def test_a_thousand_crashes_leave_nothing_behind(tmp_path):
    """Neither tasks nor timers, names, links or registrations become more."""
    with DeterministicScheduler(1) as scheduler, sup.System("x", scheduler=scheduler) as system:
        books = Books()
        specs, options = tree(books, "1", FragileLoop, tmp_path)
        system.supervise(*specs, **{**options, "max_restarts": 10_000})
        refs = {path: system.whereis(path) for path in WORKERS}

        def size() -> tuple[int, ...]:
            incarnation = system.whereis("watcher").name.incarnation
            scheduler.advance(1.0)
            return (
                len(scheduler.tasks_left()),
                len(scheduler.loop._timers),
                len(system.names.all()),
                len(pykka.ActorRegistry.get_all()),
                len(incarnation.at_end) + len(incarnation.links),
            )

        before = size()
        for n in range(1_000):
            ref = refs[WORKERS[n % 2]]
            system.whereis("watcher").tell(ref)
            scheduler.settle()
            system.kill(ref)
            scheduler.settle()
        assert size() == before
        assert refs["a"].name.epoch > 400


# --- and a broken runtime is found out ---------------------------------------------------------------------------


def reports_its_end_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ChildOwner.ended

    def ended(self: Any, incarnation: Any, exit: Any) -> None:
        right(self, incarnation, exit)
        right(self, incarnation, exit)

    monkeypatch.setattr(ChildOwner, "ended", ended)


def forgets_what_it_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reply, "default", lambda self, error: None)


def sweeps_only_where_a_child_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Shell.sweep

    async def sweep(self: Any) -> None:
        if self.live:
            await right(self)

    monkeypatch.setattr(Shell, "sweep", sweep)


def loses_the_message_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_back(self: Any, error: BaseException) -> None:
        self.current = None

    monkeypatch.setattr(Work, "give_back", give_back)


def counts_dead_letters_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Name.count_dead_letter

    def count(self: Any, message: Any) -> None:
        right(self, message)
        right(self, message)

    monkeypatch.setattr(Name, "count_dead_letter", count)


def takes_the_newest_message_first(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Mailbox.take

    def take(self: Any, lease: Any, waiter: Any = None) -> Any:
        self._user.reverse()
        try:
            return right(self, lease, waiter)
        finally:
            self._user.reverse()

    monkeypatch.setattr(Mailbox, "take", take)


def never_tells_the_monitors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Incarnation, "watch", lambda self, token, report: self.exit)


def stops_nobody_before_a_batch_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequence, "_stop_next", lambda self: None)


def loses_a_record(monkeypatch: pytest.MonkeyPatch) -> None:
    right, numbers = LogFile.append, itertools.count(1)
    monkeypatch.setattr(LogFile, "append", lambda self, data: right(self, data) if next(numbers) % 10 else None)


def hands_on_an_older_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    right = SnapshotKeeper.leave
    monkeypatch.setattr(SnapshotKeeper, "leave", lambda self, own, state: right(self, own, state % 4))


def gives_a_key_away_that_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Registry, "_living", lambda self, key: None)


@pytest.mark.parametrize(
    "break_it",
    [
        reports_its_end_twice,
        forgets_what_it_owes,
        sweeps_only_where_a_child_lives,
        loses_the_message_at_hand,
        counts_dead_letters_twice,
        takes_the_newest_message_first,
        never_tells_the_monitors,
        stops_nobody_before_a_batch_starts,
        loses_a_record,
        hands_on_an_older_snapshot,
        gives_a_key_away_that_is_taken,
    ],
)
def test_a_broken_runtime_is_caught_by_one_of_the_first_hundred_seeds(monkeypatch, break_it):
    break_it(monkeypatch)
    caught = None
    for seed in range(100):
        try:
            deterministic(seed)
        except (AssertionError, TimeoutError, sup.SupervisionError, RuntimeError) as error:
            caught = error
            break
    for ref in pykka.ActorRegistry.get_all():  # what it left in its disorder
        pykka.ActorRegistry.unregister(ref)
    assert caught is not None
    assert f"to replay this run: DeterministicScheduler({seed})" in caught.__notes__
