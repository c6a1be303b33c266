"""Actors of both kinds crash in every way and are killed, while others ask and tell: the books must balance.

Twice with real threads, and a thousand times in an order drawn from a seed.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pykka
import pytest
from chaos_rig import (
    KILLED,
    WORKERS,
    Books,
    FragileLoop,
    FragileThread,
    call,
    check_intensity,
    check_lives,
    check_messages,
    check_monitors,
    faults,
    hire,
    kill,
    send,
    tree,
    watch,
)

import supervision as sup
from supervision.engine.sequence import Sequence
from supervision.incarnation import Incarnation
from supervision.mailbox import Mailbox
from supervision.message import Reply
from supervision.name import Name
from supervision.shell import Life, Shell
from supervision.testing import DeterministicScheduler, leak_check

SEEDS = 1_000


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Crashes are what this is about: nobody wants to read thousands of them."""
    logger = logging.getLogger("supervision")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(before)


def all_at_once(system: sup.System, refs: Any, books: Books, seed: str, scale: int) -> list[Coroutine[Any, Any, None]]:
    return [
        *(send(n, refs, books, seed, 40 * scale) for n in range(3)),
        kill(system, seed, 10 * scale),
        watch(system, refs, seed, 5 * scale),
        call(system, books, seed, 8 * scale),
        hire(system, books, seed, 5 * scale),
    ]


def is_at_rest(refs: dict[str, Any], books: Books) -> bool:
    return all(
        len(ref.name.mailbox) == 0 and ((life := ref.name.incarnation) is None or life.current is None)
        for ref in refs.values()
    ) and all(future.done for _, future in books.asked)


def chaos(system: sup.System, seed: str, run: Callable[..., Any], wait: Callable[..., Any], **how: Any) -> Books:
    """The scenario. `run` runs coroutines beside each other, `wait` waits for a condition."""
    books = Books()
    books.listen(system)
    thread = how.get("thread", FragileLoop)
    specs, options = tree(books, seed, thread)
    system.supervise(*specs, **options)
    refs = {path: system.whereis(path) for path in WORKERS}
    with faults(seed, threads=thread is not FragileLoop):
        run(*all_at_once(system, refs, books, seed, how.get("scale", 1)))
    calms_down(system, refs, books, wait)
    assert system.stop(20.0), system.unstopped_report()
    check_messages(books, refs)
    check_lives(books)
    check_intensity(books)
    check_monitors(books)
    assert pykka.ActorRegistry.get_all() == []
    return books


def calms_down(system: sup.System, refs: dict[str, Any], books: Books, wait: Callable[..., Any]) -> None:
    """What hangs is killed, what is stopped is left; then all that was sent has come to its end."""
    for path in KILLED:
        if (ref := system.whereis(path)) is not None:
            system.kill(ref)
    wait(lambda: all(future.done for future in books.calls))
    wait(lambda: is_at_rest(refs, books))
    for path in WORKERS:  # so that each monitor has something to tell
        system.kill(refs[path])
    wait(lambda: len(books.downs) == len(books.monitors))
    wait(lambda: is_at_rest(refs, books))
    wait(lambda: system.audit() == [])


# --- in threads --------------------------------------------------------------------------------------------------


def in_threads(*coroutines: Coroutine[Any, Any, None]) -> None:
    threads = [threading.Thread(target=asyncio.run, args=(each,)) for each in coroutines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_books_balance_in_threads(make_system, seed, eventually):
    books = chaos(
        make_system(),
        str(seed),
        in_threads,
        lambda condition: eventually(condition, timeout=20.0),
        thread=FragileThread,
        scale=10,
    )
    assert len(books.begun) > 100


# --- a thousand orders -------------------------------------------------------------------------------------------


def deterministic(seed: int) -> tuple[Books, int]:
    with DeterministicScheduler(seed) as scheduler:
        system = sup.System("chaos", scheduler=scheduler, kill_grace=0.1)
        books = chaos(system, str(seed), scheduler.run, lambda condition: scheduler.run_until(condition, timeout=60.0))
        assert scheduler.tasks_left() == []
        assert scheduler.loop.next_timer() is None, list(scheduler.loop._timers)
        leak_check(timeout=0)
        return books, scheduler.fingerprint


@pytest.mark.slow
@pytest.mark.timeout(300)  # it takes half a minute where nothing else runs
def test_the_books_balance_in_a_thousand_orders():
    for seed in range(SEEDS):
        deterministic(seed)


def test_a_thousand_crashes_leave_nothing_behind():
    """Neither tasks nor timers, names, links or registrations become more."""
    with DeterministicScheduler(1) as scheduler, sup.System("x", scheduler=scheduler) as system:
        books = Books()
        specs, options = tree(books, "1", FragileLoop)
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
    right = Life.ended

    def ended(self: Any, incarnation: Any, exit: Any) -> None:
        right(self, incarnation, exit)
        right(self, incarnation, exit)

    monkeypatch.setattr(Life, "ended", ended)


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

    monkeypatch.setattr(Incarnation, "_give_back", give_back)


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
