"""Runs the chaos of `chaos_rig` and checks its books: in whatever way the caller has, or in an order drawn from a seed.

A module of its own, for processes beside that of the tests: they try many seeds at once.
"""

from __future__ import annotations

import gc
import logging
import multiprocessing
import os
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pykka
from chaos_rig import (
    KILLED,
    POSTS,
    WORKERS,
    Books,
    FragileLoop,
    call,
    check_intensity,
    check_lives,
    check_messages,
    check_monitors,
    check_registry,
    check_state,
    faults,
    hire,
    kill,
    send,
    tree,
    watch,
)

import supervision as sup
from supervision.testing import DeterministicScheduler, leak_check

CHUNK = 10
"""How many seeds a process tries before it tells."""


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


def chaos(
    system: sup.System,
    seed: str,
    run: Callable[..., Any],
    wait: Callable[..., Any],
    folder: Path,
    thread: Any = FragileLoop,
    scale: int = 1,
) -> Books:
    """The scenario. `run` runs coroutines beside each other, `wait` waits for a condition."""
    books = Books()
    books.listen(system)
    specs, options = tree(books, seed, thread, folder)
    system.supervise(*specs, **options)
    refs = {path: system.whereis(path) for path in WORKERS}
    with faults(seed, threads=thread is not FragileLoop):
        run(*all_at_once(system, refs, books, seed, scale))
    calms_down(system, refs, books, wait)
    check_registry(system, books)
    assert system.stop(20.0), system.unstopped_report()
    assert [system.registry.lookup(key) for key in ("everybody", *POSTS)] == [[], [], [], []]
    check_messages(books, refs)
    check_lives(books)
    check_intensity(books)
    check_monitors(books)
    check_state(books)
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


# --- an order drawn from a seed ----------------------------------------------------------------------------------


def deterministic(seed: int) -> tuple[Books, int]:
    """The scenario on virtual time; its books, and the fingerprint of the run."""
    with tempfile.TemporaryDirectory() as folder, DeterministicScheduler(seed) as scheduler:
        system = sup.System("chaos", scheduler=scheduler, kill_grace=0.1)

        def wait(condition: Callable[[], object]) -> None:
            scheduler.run_until(condition, timeout=60.0)

        books = chaos(system, str(seed), scheduler.run, wait, Path(folder))
        assert scheduler.tasks_left() == []
        assert scheduler.loop.next_timer() is None, list(scheduler.loop._timers)
        leak_check(timeout=0)
        return books, scheduler.fingerprint


def try_seed(seed: int) -> tuple[int, str, Counter[str]]:
    """The seed, what failed with it, and how often that happened which must happen for the checks to mean anything."""
    try:
        books, _ = deterministic(seed)
    except BaseException:  # noqa: BLE001  (told in the test's own process, whatever it is)
        return seed, traceback.format_exc(), Counter()
    restored = sum(count > 0 for count in books.restored)
    return seed, "", Counter(messages=len(books.begun), restored=restored, replayed=books.replays)


def try_seeds(seeds: range) -> Iterator[tuple[int, str, Counter[str]]]:
    """Try each in one of as many fresh processes as there are cores. Left early, by a timeout too, it ends them."""
    processes = min(os.cpu_count() or 1, 8)
    with multiprocessing.get_context("spawn").Pool(processes, begin) as pool:
        yield from pool.imap_unordered(try_seed, seeds, chunksize=CHUNK)


def begin() -> None:
    """In each new process: spare the garbage collector what will never be any."""
    be_quiet()
    gc.freeze()


def be_quiet() -> None:
    """Crashes are what this is about: nobody wants to read thousands of them."""
    logging.getLogger("supervision").setLevel(logging.CRITICAL + 1)
