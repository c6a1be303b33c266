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
    kill,
    send,
    tree,
    watch,
)

import supervision as sup
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


def test_the_books_balance_in_a_thousand_orders():
    for seed in range(SEEDS):
        deterministic(seed)
