"""A tree of every strategy in which everything goes wrong, and the books that must balance whatever happens.

The scenario is written once, as coroutines; a test runs them in threads of their own or on a deterministic scheduler.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pykka
from tree_rig import Boom

import supervision as sup
from supervision.testing import InjectedFault, delay, fault

ERRORS = (Boom, SystemExit, KeyboardInterrupt, asyncio.CancelledError, MemoryError)
WORKERS = ("a", "b", "log", "memory", "all/c", "all/d", "rest/e", "rest/f", "rest/g", "calls/h", "calls/i")
KILLED = (*WORKERS, "all", "rest", "calls", "pool")
GROUPS = {"root/all": ("c", "d"), "root/rest": ("e", "f", "g")}
WINDOW = {"max_restarts": 4, "max_seconds": 0.5}
PLENTY = {"max_restarts": 1_000_000, "max_seconds": 1.0}
POSTS = ("post 1", "post 2", "post 3")


@dataclass
class Books:
    """What was sent, what came of it, and all that was told about it."""

    begun: list[tuple[str, int, tuple[Any, int]]] = field(default_factory=list)
    asked: list[tuple[Any, Any]] = field(default_factory=list)
    told: list[tuple[str, Any]] = field(default_factory=list)
    lost: Counter[Any] = field(default_factory=Counter)
    calls: list[Any] = field(default_factory=list)
    events: list[sup.Event] = field(default_factory=list)
    restarts: list[tuple[str, float]] = field(default_factory=list)
    latest: dict[str, int] = field(default_factory=dict)
    outdated: list[str] = field(default_factory=list)
    monitors: set[int] = field(default_factory=set)
    downs: Counter[int] = field(default_factory=Counter)
    holders: dict[str, Any] = field(default_factory=dict)
    enlisted: set[Any] = field(default_factory=set)
    recorded: list[Any] = field(default_factory=list)
    given: list[int] = field(default_factory=list)
    restored: list[int] = field(default_factory=lambda: [0])
    replays: int = 0
    wrong: list[str] = field(default_factory=list)

    def listen(self, system: sup.System) -> None:
        """Hear of all events, and of which messages became dead letters."""
        system.events.subscribe(self.events.append)
        count = system.dead_letter

        def dead_letter(path: str, message: Any) -> None:
            self.lost[message] += 1
            count(path, message)

        system.dead_letter = dead_letter  # type: ignore[method-assign]


class _Fragile:
    """Notes what it handles; every so often it fails instead."""

    trap_exits = True

    def __init__(self, books: Books, seed: str) -> None:
        super().__init__()
        self._books = books
        self._rng = random.Random(seed)
        life = self._incarnation
        books.latest[life.name.path] = life.epoch
        if life.context.restart_reason is not None:
            books.restarts.append((life.name.path, life.started_at))

    def _note(self, message: Any) -> None:
        life = self._incarnation
        if self._books.latest[life.name.path] != life.epoch and not life.context.cancelled:
            self._books.outdated.append(f"{life.name.path} {life.epoch} handles {message}")
        self._books.begun.append((life.name.path, life.epoch, message))

    def _handle(self, message: Any) -> Any:
        if isinstance(message, sup.Down | sup.Exited):
            return None
        self._note(message)
        if self._rng.random() < 0.03:
            raise self._rng.choice(ERRORS)("chaos")
        return message


class FragileLoop(_Fragile, sup.Actor):
    """On a loop. Some answers it owes for a while, some messages take it a moment, now and then it will not die."""

    _reply: Any = None

    async def on_start(self) -> None:
        if self._rng.random() < 0.2:
            await asyncio.sleep(0.01)
        self._enlist()

    def _enlist(self) -> None:
        """Stand in the registry under everybody's key, and under one that only one can have."""
        life, registry = self._incarnation, self.context.system.registry
        post = self._rng.choice(POSTS)
        registry.register("everybody", self.actor_ref, unique=False)
        self._books.enlisted.add(life)
        if registry.register(post, self.actor_ref) == sup.Ok():
            before = self._books.holders.get(post)
            if before is not None and before.exit is None:
                self._books.wrong.append(f"{life} has got {post}, which {before} holds")
            self._books.holders[post] = life

    async def on_receive(self, message: Any) -> Any:
        chance = self._rng.random()
        if chance < 0.2:
            await self._take_a_moment(chance)
        result = self._handle(message)
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.set(reply.envelope.message)
        if 0.2 < chance < 0.25 and result is not None:
            self._reply = self.owe()
            self.send_after(self.actor_ref, None, 0.02)
        return self._reply if self._reply is not None else result

    async def _take_a_moment(self, chance: float) -> None:
        try:
            await asyncio.sleep(0 if chance < 0.15 else 0.005)
        except asyncio.CancelledError:
            if chance < 0.19:
                raise

    def on_stop(self) -> Any:
        if self._rng.random() < 0.1:
            raise Boom("on_stop")


class Clerk(FragileLoop):
    """Records each message before it fails or not; what an earlier life has recorded must come back, all in order."""

    async def on_start(self) -> None:
        self.applied: list[Any] = []
        await super().on_start()

    def apply(self, entry: Any) -> None:
        self.applied.append(entry)

    def recover(self) -> None:
        self._books.replays += bool(self.applied)
        if self.applied != self._books.recorded:
            self._books.wrong.append(f"the log has {self.applied}, but {self._books.recorded} was recorded")

    def _handle(self, message: Any) -> Any:
        if isinstance(message, tuple):
            self.record(list(message))
            self._books.recorded.append(list(message))
        result = super()._handle(message)
        if isinstance(message, tuple):
            self.apply(list(message))
        return result


class Rememberer(FragileLoop):
    """Counts what it handled well; what it begins with must be a count that it gave, and never an older one."""

    async def on_start(self) -> None:
        self.count = self.context.snapshot or 0
        books = self._books
        if self.count and self.count not in books.given:
            books.wrong.append(f"restored {self.count}, which no snapshot was")
        if self.count < books.restored[-1]:
            books.wrong.append(f"restored {self.count} after {books.restored[-1]}")
        books.restored.append(self.count)
        await super().on_start()

    def snapshot(self) -> int:
        self._books.given.append(self.count)
        return self.count

    def _handle(self, message: Any) -> Any:
        result = super()._handle(message)
        self.count += 1
        return result


class FragileThread(_Fragile, pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return self._handle(message)


class Watcher(sup.Actor):
    """Monitors whoever it is told to, links to some, and ticks."""

    trap_exits = True

    def __init__(self, books: Books) -> None:
        super().__init__()
        self._books = books

    def on_start(self) -> None:
        self.interval(self.actor_ref, "tick", 0.05)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, sup.Down):
            self._books.downs[message.token] += 1
        elif isinstance(message, sup.ActorRef):
            self._books.monitors.add(self.monitor(message))
            with contextlib.suppress(sup.ActorDeadError):
                self.link(message)


def tree(books: Books, seed: str, thread: Any, folder: Path) -> tuple[list[sup.ChildSpec], dict[str, Any]]:
    """All strategies, nested; `thread` is the class of what may live in a thread, `folder` is where its log goes."""

    def worker(id: str, actor: Any = FragileLoop, **options: Any) -> sup.ChildSpec:
        options = {"start_timeout": 0.5, "shutdown": 0.5, **options}
        return sup.ChildSpec(id, actor, args=(books, f"{seed} {id}"), **options)

    specs = [
        worker("a"),
        worker("b", thread),
        worker("log", Clerk, state=sup.event_log(folder / "log", quarantine=0)),
        worker("memory", Rememberer, state=sup.snapshot(every_messages=3, every_seconds=0.1, quarantine=0)),
        sup.ChildSpec("watcher", Watcher, args=(books,)),
        sup.supervisor("all", worker("c"), worker("d", restart="transient"), strategy="one_for_all", **WINDOW),
        sup.supervisor(
            "rest",
            worker("e", backoff=sup.Backoff(min=0.01, max=0.1)),
            worker("f", thread),
            worker("g", shutdown=sup.BRUTAL_KILL),
            strategy="rest_for_one",
            **WINDOW,
        ),
        sup.supervisor("calls", worker("h", restart="transient"), worker("i"), **PLENTY),
        sup.dynamic("pool", max_children=5, **PLENTY),
    ]
    return specs, PLENTY


# --- what goes on ------------------------------------------------------------------------------------------------


async def send(sender: int, refs: dict[str, Any], books: Books, seed: str, count: int) -> None:
    """Ask and tell numbered messages, to one actor after the other."""
    rng = random.Random(f"{seed} sender {sender}")
    for n in range(count):
        path = rng.choice(WORKERS)
        message = (sender, n)
        try:
            if rng.random() < 0.5:
                timeout = 0.05 if rng.random() < 0.1 else None
                books.asked.append((message, refs[path].ask(message, block=False, timeout=timeout)))
            else:
                refs[path].tell(message)
                books.told.append((path, message))
        except pykka.ActorDeadError:
            books.told.append((path, message))
        except InjectedFault:  # the sender was refused: nothing is on its way
            pass
        if rng.random() < 0.2:
            await asyncio.sleep(rng.choice((0, 0.001, 0.01)))


async def kill(system: sup.System, seed: str, count: int) -> None:
    rng = random.Random(f"{seed} killer")
    for _ in range(count):
        if (ref := system.whereis(rng.choice(KILLED))) is not None:
            system.kill(ref)
        await asyncio.sleep(rng.choice((0, 0.002, 0.02)))


async def watch(system: sup.System, refs: dict[str, Any], seed: str, count: int) -> None:
    rng = random.Random(f"{seed} watch")
    for _ in range(count):
        system.whereis("watcher").tell(refs[rng.choice(WORKERS)])
        await asyncio.sleep(rng.choice((0, 0.003)))


async def hire(system: sup.System, books: Books, seed: str, count: int) -> None:
    """Have the dynamic supervisor start children, tell each a word, and end some of them."""
    rng = random.Random(f"{seed} hirer")
    for n in range(count):
        spec = sup.ChildSpec("p", FragileLoop, args=(books, f"{seed} p {n}"), restart="transient", start_timeout=0.5)
        handle = system.whereis("pool")
        if handle is None:
            continue
        with contextlib.suppress(InjectedFault):
            books.calls.append(handle.start_child(spec))
        started = [each._value for each in books.calls if isinstance(each._value, sup.Started)]
        hired = [each.ref for each in started if each.ref is not None and each.ref.path.startswith("root/pool/")]
        if hired and rng.random() < 0.5:
            ref = rng.choice(hired)
            books.told.append((ref.path, ("hirer", n)))
            with contextlib.suppress(pykka.ActorDeadError):
                ref.tell(("hirer", n))
        if hired and rng.random() < 0.3:
            with contextlib.suppress(InjectedFault):
                books.calls.append(handle.terminate_child(rng.choice(hired)))
        await asyncio.sleep(rng.choice((0, 0.005)))


async def call(system: sup.System, books: Books, seed: str, count: int) -> None:
    """Terminate, restart, delete and start children while all that goes on."""
    rng = random.Random(f"{seed} caller")
    spec = sup.ChildSpec("new", FragileLoop, args=(books, f"{seed} new"), restart="temporary", start_timeout=0.5)
    for _ in range(count):
        handle = system.whereis("calls")
        id = rng.choice("hi")
        action = rng.choice(
            [
                lambda h, id=id: h.terminate_child(id),
                lambda h, id=id: h.restart_child(id),
                lambda h, id=id: h.restart_child(id),
                lambda h: h.start_child(spec),
                lambda h: h.terminate_child("new"),
                lambda h: h.count_children(),
                lambda h: h.which_children(),
            ]
        )
        if handle is not None:
            with contextlib.suppress(InjectedFault):  # the call was refused: nothing is on its way
                books.calls.append(action(handle))
        await asyncio.sleep(rng.choice((0, 0.005)))


@contextlib.contextmanager
def faults(seed: str, threads: bool) -> Iterator[None]:
    """A few faults of all kinds, anywhere below the root."""
    rng = random.Random(f"{seed} faults")
    with contextlib.ExitStack() as stack:
        for number in range(6):
            point, actions = rng.choice(sorted(ACTIONS.items()))
            action = rng.choice(actions)
            if threads and action == "hang":
                continue
            stack.enter_context(
                fault(point, action, path=rng.choice(KILLED), probability=0.15, seed=f"{seed} {number}")
            )
        stack.enter_context(fault("clock_late", delay(0.01), probability=0.1, seed=seed))
        yield


IN_A_LIFE: list[Any] = ["raise", "kill", delay(0.02), Boom("injected"), SystemExit, asyncio.CancelledError]
ACTIONS: dict[str, list[Any]] = {
    "before_start": [*IN_A_LIFE, "hang"],
    "after_start": [*IN_A_LIFE, "hang"],
    "before_handle": [*IN_A_LIFE, "hang"],
    "after_handle_before_reply": IN_A_LIFE,
    "in_on_stop": [*IN_A_LIFE, "hang"],
    "before_exit_emit": IN_A_LIFE,
    "thread_start": ["raise", "kill"],
    "mailbox_put": ["raise", "drop", "kill"],
    "snapshot_write": ["raise", "kill", delay(0.02), OSError],
}


# --- what must hold ------------------------------------------------------------------------------------------------


def check_messages(books: Books, refs: dict[str, Any]) -> None:
    """Answered once, in order, none twice, none lost."""
    begun = [message for _, _, message in books.begun if message is not None]
    assert len(begun) == len(set(begun)), [each for each, n in Counter(begun).items() if n > 1]
    for message, future in books.asked:
        assert future.done, f"{message} was never answered"
        if future._error is None:
            assert future._value == message
        assert future.settle("a second answer") is False
    last: dict[tuple[str, Any], int] = {}
    for path, _, message in books.begun:
        if message is not None:
            sender, n = message
            assert last.get((path, sender), -1) < n, f"{path} handled {message} after {last[path, sender]}"
            last[path, sender] = n
    handled = set(begun)
    for path, message in books.told:
        ways = (message in handled) + books.lost[message]
        assert ways >= 1, f"{message} to {path} is lost"
        assert books.lost[message] <= 1, f"{message} to {path} is a dead letter {books.lost[message]} times"
    assert not books.outdated
    assert all(len(ref.name.mailbox) == 0 for ref in refs.values())


def check_lives(books: Books) -> None:
    """One exit for each incarnation; never two beside each other; in groups the order of starts and stops."""
    alive: dict[str, int] = {}
    ended: set[tuple[str, int | None]] = set()
    for event in books.events:
        if event.name == "child_started":
            assert event.path not in alive, f"{event.path} {event.epoch} started beside {alive[event.path]}"
            assert not (later := _later(event.path, alive)), f"{event.path} started while {later} lived"
            alive[event.path] = event.epoch or 0
        elif event.name == "child_exited":
            key = (event.path, event.epoch)
            assert key not in ended, f"two exits of {key}"
            ended.add(key)
            if alive.get(event.path) == event.epoch:
                del alive[event.path]
            if isinstance(event.reason, sup.Shutdown):
                assert not (later := _later(event.path, alive)), f"{event.path} was stopped before {later}"
            assert not [path for path in alive if path.startswith(event.path + "/")], f"{event.path} left orphans"


def _later(path: str, alive: dict[str, int]) -> list[str]:
    group, _, id = path.rpartition("/")
    ids = GROUPS.get(group, ())
    return [each for each in ids[ids.index(id) + 1 :] if f"{group}/{each}" in alive] if id in ids else []


def check_intensity(books: Books) -> None:
    """No child is restarted more often than its supervisor tolerates, as long as that one lives."""
    ends = defaultdict(list)
    for event in books.events:
        if event.name == "child_exited" and event.path in GROUPS:
            ends[event.path].append(event.at)
    times = defaultdict(list)
    for path, at in books.restarts:
        times[path].append(at)
    for path, restarts in times.items():
        group = path.rpartition("/")[0]
        if group not in GROUPS:
            continue
        for at in restarts:
            since = max([at - WINDOW["max_seconds"], *(end for end in ends[group] if end <= at)])
            assert sum(since < each <= at for each in restarts) <= WINDOW["max_restarts"], f"{path} at {at}"


def check_monitors(books: Books) -> None:
    assert dict.fromkeys(books.monitors, 1) == books.downs


def check_registry(system: sup.System, books: Books) -> None:
    """At rest: who lives stands in it once, and nobody else; each post is with the one who got it last."""
    living = Counter(life.name.path for life in books.enlisted if life.exit is None)
    assert Counter(ref.path for ref, _ in system.registry.lookup("everybody")) == living
    for post in POSTS:
        last = books.holders.get(post)
        holders = [] if last is None or last.exit is not None else [last.name.ref]
        assert [ref for ref, _ in system.registry.lookup(post)] == holders


def check_state(books: Books) -> None:
    assert not books.wrong, books.wrong
