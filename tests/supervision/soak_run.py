"""Real loops and threads for a long while: crashes of every kind, hangs and kills under load, and nothing is lost.

A module of its own, for a process of its own: what other tests have left on the heap is not what is measured.

What is kept of the messages does not grow with their number, so that the memory measured is the runtime's own.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pykka
from tree_rig import Boom

import supervision as sup
from supervision.incarnation import Incarnation

SENDERS = 8
MESSAGES = 200_000
IN_FLIGHT = 100
CRASHES = (Boom, SystemExit, KeyboardInterrupt, asyncio.CancelledError, MemoryError)
P_CRASH = 0.01
P_HANG = 0.0003
HANDLE_LIMIT = 0.1  # seconds
LOOP_LIMIT = 0.2  # seconds
BLOCKS = (0.2, 0.45, 0.7)  # when a handler keeps its loop to itself: after these parts of all messages
KILL_PERIOD = 0.005  # seconds
P_DEADLINE = 0.1
IDS = ("loop-a", "loop-b", "thread-a", "mid/loop-c", "mid/loop-d", "mid/thread-b")
SPARED = ("loop-b", "thread-a")
"""Never killed from outside, so that somebody hangs for long enough to be dealt with as stuck."""

ANSWERS = (Boom, MemoryError, pykka.ActorDeadError, pykka.Timeout)
LIVES_KEPT = 32
"""How many lives may still be in memory out of thousands: those of the tree, and a few that a frame or an exception
of one that has just ended still holds."""

GROWTH_MB = 12.0
"""How much memory more than 1,000 crashes may take. Each makes an incarnation, a lease, an exit, a task or a thread,
and the text of a traceback: 10 kB and more, if they were kept. What the allocator itself keeps, and the stacks of the
threads that hang to the end, came to 4 to 5 MB in runs of 4,500 lives where no life was kept."""


class Books:
    """What has been handled so far: the last number of each sender at each name, and how many in all."""

    def __init__(self) -> None:
        self.last: dict[tuple[str, int], int] = {}
        self.noted: Counter[tuple[str, str]] = Counter()
        self.crashed: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.epochs: dict[str, int] = {}
        self.hung: Counter[str] = Counter()
        self.blocks_to_come = [part * MESSAGES for part in BLOCKS]
        self.events: Counter[str] = Counter()
        self.out_of_order: list[Any] = []
        self.end = threading.Event()

    def note(self, path: str, epoch: int, sender: int, n: int, kind: str) -> None:
        """Called by the one incarnation that lives at `path`, or by the code of one that was left behind.

        The epoch is the fencing token of what is written outside: the runtime has answered for the older one.
        """
        with self.lock:
            if epoch < self.epochs.get(path, 0):
                return
            self.epochs[path] = epoch
            if self.last.get((path, sender), -1) >= n:
                self.out_of_order.append((path, sender, n))
            self.last[path, sender] = n
            self.noted[path, kind] += 1

    def hear(self, event: sup.Event) -> None:
        self.events[event.name] += 1

    def is_block_due(self) -> bool:
        """Called on the one loop there is."""
        if not self.blocks_to_come or self.total("ask", "tell") < self.blocks_to_come[0]:
            return False
        del self.blocks_to_come[0]
        return True

    def block(self) -> None:
        """Keep this thread until that has been noticed, as far as it is at all."""
        noticed, limit = self.events["scheduler_blocked"], time.monotonic() + 20.0
        while self.events["scheduler_blocked"] == noticed and time.monotonic() < limit:
            time.sleep(0.01)

    def total(self, *kinds: str) -> int:
        return sum(count for (_, kind), count in list(self.noted.items()) if kind in kinds)


class _Frail:
    """Notes each message; some it crashes on instead, in one of all the ways there are, or hangs on."""

    def __init__(self, books: Books, seed: int) -> None:
        super().__init__()
        self.books, self.rng = books, random.Random(seed + self.context.epoch)

    def fate(self, message: Any) -> Any:
        """The message if it is handled, None if the handler is to hang."""
        luck = self.rng.random()
        if luck < P_HANG:
            self.books.hung[self.context.name.rpartition("/")[2]] += 1
            return None
        if luck < P_HANG + P_CRASH:
            error = self.rng.choice(CRASHES)
            self.books.crashed[error.__name__] += 1
            raise error("soak")
        self.books.note(self.context.name, self.context.epoch, *message)
        return message


class FrailOnLoop(_Frail, sup.Actor):
    async def on_receive(self, message: Any) -> Any:
        if self.rng.random() < 0.05:
            await asyncio.sleep(0)
        if message[1] % 64 == 0 and self.books.is_block_due():
            self.books.block()
        if (answer := self.fate(message)) is None:
            await asyncio.get_running_loop().create_future()
        return answer


class FrailInThread(_Frail, pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        if (answer := self.fate(message)) is None:
            self.books.end.wait()
        return answer


class Sender:
    """Asks and tells one numbered message after the other, with a bound on the asks that are not answered yet."""

    def __init__(self, number: int, refs: dict[str, Any]) -> None:
        self.number, self.refs = number, refs
        self.rng = random.Random(number)
        self.waiting: deque[tuple[Any, Any]] = deque()
        self.answers: Counter[str] = Counter()
        self.told = self.refused = 0

    def run(self) -> None:
        for n in range(MESSAGES // SENDERS):
            self.send(n, self.refs[self.rng.choice(IDS)])
        while self.waiting:
            self.collect()

    def send(self, n: int, ref: Any) -> None:
        if self.rng.random() < 0.5:
            message, timeout = (self.number, n, "ask"), 0.05 if self.rng.random() < P_DEADLINE else None
            self.waiting.append((message, ref.ask(message, block=False, timeout=timeout)))
            if len(self.waiting) > IN_FLIGHT:
                self.collect()
        else:
            self.told += 1
            ref.tell((self.number, n, "tell"))

    def collect(self) -> None:
        """Wait for the oldest answer: it is the one to this very message, or an error, and the only one."""
        message, future = self.waiting.popleft()
        try:
            answer = future.get(timeout=60)
        except ANSWERS as error:
            self.answers[type(error).__name__] += 1
        else:
            assert answer == message
            self.answers["answered"] += 1
        assert future.settle("a second answer") is False


def disturb(system: sup.System, books: Books) -> None:
    """Kill a worker or a supervisor every few milliseconds."""
    rng, victims = random.Random(99), [*(set(IDS) - set(SPARED)), "mid"]
    while not books.end.wait(KILL_PERIOD):
        if (ref := system.whereis(rng.choice(victims))) is not None:
            system.kill(ref)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def spec(id: str, books: Books) -> sup.ChildSpec:
    actor = FrailInThread if "thread" in id else FrailOnLoop
    return sup.ChildSpec(id.rpartition("/")[2], actor, args=(books, len(id)), max_handle_time=HANDLE_LIMIT)


def soak() -> None:
    """Send all the messages under every kind of trouble, and check the books, the memory and the end."""
    logging.getLogger("supervision").setLevel(logging.CRITICAL)
    plenty = {"max_restarts": 1_000_000, "max_seconds": 1.0}
    books = Books()
    system = sup.System("soak", kill_grace=0.05, loop_limit=LOOP_LIMIT, max_zombies=10_000)
    system.events.subscribe(books.hear)
    specs = {id: spec(id, books) for id in IDS}
    system.supervise(
        *(specs[id] for id in IDS if "/" not in id),
        sup.supervisor("mid", *(specs[id] for id in IDS if "/" in id), strategy="one_for_all", **plenty),
        **plenty,
    )
    refs = {id: system.whereis(id) for id in IDS}
    senders = [Sender(number, refs) for number in range(SENDERS)]
    with ThreadPoolExecutor(SENDERS + 1) as pool:
        runs = [pool.submit(sender.run) for sender in senders]
        disturbance = pool.submit(disturb, system, books)
        early = memory_once(lambda: books.total("ask", "tell") > MESSAGES / 10)
        wait(runs)
        late = memory_once(lambda: True)  # before those that hang are let go, with their stacks
        books.end.set()
    for run in (*runs, disturbance):
        run.result()

    wait_until(lambda: all(is_idle(ref) for ref in refs.values()), timeout=60.0)
    assert books.out_of_order == []
    assert set(books.crashed) == {error.__name__ for error in CRASHES}
    assert sum(ref.name.epoch for ref in refs.values()) > 1_000
    assert books.hung["loop-b"]
    assert books.hung["thread-a"]
    assert books.events["long_turn"]
    assert books.blocks_to_come == []
    assert books.events["scheduler_blocked"] >= len(BLOCKS)
    asked = sum(sum(sender.answers.values()) for sender in senders)
    assert asked + sum(sender.told for sender in senders) == MESSAGES
    wait_until(lambda: books_balance(books, senders, refs), timeout=60.0)
    wait_until(lambda: system.audit() == [], timeout=60.0)
    wait_until(lambda: system.zombies == [], timeout=60.0)
    assert late - early < GROWTH_MB
    wait_until(lambda: lives_kept(system) <= LIVES_KEPT, timeout=60.0)
    assert system.stop(60.0), system.unstopped_report()
    assert pykka.ActorRegistry.get_all() == []


def is_idle(ref: Any) -> bool:
    life = ref.name.incarnation
    return len(ref.name.mailbox) == 0 and life is not None and life.state == "running" and life.current is None


def books_balance(books: Books, senders: list[Sender], refs: dict[str, Any]) -> bool:
    """Each tell was noted or is a dead letter, and maybe both: an actor can be killed just after it has noted one."""
    told = sum(sender.told for sender in senders)
    dead = sum(ref.name.dead_letters for ref in refs.values())
    answered = sum(sender.answers["answered"] for sender in senders)
    asked = sum(sum(sender.answers.values()) for sender in senders)
    return told - dead <= books.total("tell") <= told and answered <= books.total("ask") <= asked


def memory_once(condition: Any, timeout: float = 120.0) -> float:
    """Resident megabytes once the condition holds, without what only waits to be collected."""
    wait_until(condition, timeout)
    gc.collect()
    return resident_mb()


def lives_kept(system: sup.System) -> int:
    """How many lives of this system are still somewhere; those of other tests are not its affair."""
    gc.collect()
    return sum(isinstance(each, Incarnation) and each.name.system is system for each in gc.get_objects())


def wait_until(condition: Callable[[], object], timeout: float) -> None:
    """Returns once the condition holds."""
    limit = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < limit, "the condition never held"
        time.sleep(0.01)
