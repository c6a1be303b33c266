"""Mutual exclusion by key, between threads, handlers and coroutines, that survives the death of who holds it."""

from __future__ import annotations

import asyncio
import sys
import threading
from _thread import allocate_lock
from asyncio import _get_running_loop
from collections import OrderedDict
from collections.abc import Hashable
from threading import get_ident
from typing import TYPE_CHECKING, Any

from supervision.errors import ActorDeadError, BlockingInScheduler, DeadlockError
from supervision.future import wake
from supervision.waiting import waits

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.incarnation import Incarnation


class _Claim:
    """One who stands in the line for a key. The first in the line has it.

    `life` is the incarnation in whose code this is; None in a thread or task of nobody's. `waiter` is what
    `future.wake` takes.
    """

    __slots__ = ("has_it", "key", "life", "locks", "task", "thread", "waiter")

    def __init__(self, locks: Locks, key: Hashable) -> None:
        turn = waits.current.get()
        self.locks, self.key = locks, key
        self.life: Incarnation | None = None if turn is None else turn.incarnation
        self.thread = get_ident()
        self.task = None if _get_running_loop() is None else asyncio.current_task()
        self.waiter: Any = None
        self.has_it = False

    def is_of_same_code(self, other: _Claim) -> bool:
        """True if who made the other claim is the very code that made this one, and so cannot wait for it."""
        return self.task is other.task and (self.task is not None or self.thread == other.thread)

    @property
    def is_of_the_dead(self) -> bool:
        """True if nobody will ever be there to take what this claims."""
        if self.life is not None and self.life.exit is not None:
            return True
        loop = None if self.waiter is None else self.waiter[0]
        return loop is not None and bool(loop.is_closed())


class Locks:
    """The lines for all keys; a key that nobody wants has none. Nobody is woken under the lock."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lines: dict[Hashable, OrderedDict[_Claim, None]] = {}

    def lock(self, key: Hashable) -> KeyLock:
        return KeyLock(self, key)

    def claim(self, key: Hashable, waiter: Any, why_not_wait: str | None = None) -> _Claim:
        """Stand in the line for `key`.

        Raises:
            ActorDeadError: whose code this is has ended.
            DeadlockError: this code has the key already.
            BlockingInScheduler: it would have to wait, and `why_not_wait`.
        """
        claim = _Claim(self, key)
        claim.waiter = waiter
        with self._lock:
            line = self._lines.setdefault(key, OrderedDict())
            first = next(iter(line), None)
            if first is None:
                claim.has_it = True
            elif claim.is_of_same_code(first):
                raise DeadlockError(f"the lock {key!r} is held by the code that asks for it")
            elif why_not_wait is not None:
                raise BlockingInScheduler(f"the lock {key!r} is taken: {why_not_wait}")
            line[claim] = None
        if claim.life is not None:
            claim.life.when_over(claim, lambda: self.leave(claim))
            self.refuse_the_dead(claim)
        elif claim.task is None:
            _of_this_thread.claims.all.add(claim)
        return claim

    def refuse_the_dead(self, claim: _Claim) -> None:
        """Raise ActorDeadError if the life whose code this is has ended, so that its claim counts no more."""
        if claim.life is not None and (exit := claim.life.exit) is not None:
            self.leave(claim)
            raise ActorDeadError(claim.life.name.path, exit.reason)

    def release(self, claim: _Claim) -> None:
        """Its owner needs it no more."""
        if claim.life is not None:
            claim.life.at_end.pop(claim, None)
        elif claim.task is None:
            _of_this_thread.claims.all.discard(claim)
        self.leave(claim)

    def leave(self, claim: _Claim) -> None:
        """Strike a claim from its line; if it was the first, the next has the key. Idempotent."""
        woken = []
        with self._lock:
            line = self._lines.get(claim.key)
            if line is None or claim not in line:
                return
            del line[claim]
            if claim.has_it:
                woken += self._serve_next(line)
            if not line:
                del self._lines[claim.key]
        if not claim.has_it:  # it waits perhaps, in code that has been left behind
            woken.append(claim)
        for each in woken:
            wake(*each.waiter)

    def _serve_next(self, line: dict[_Claim, None]) -> list[_Claim]:
        while (following := next(iter(line), None)) is not None:
            if not following.is_of_the_dead:
                following.has_it = True
                return [following]
            del line[following]
        return []

    def of_the_dead(self) -> list[tuple[Hashable, Incarnation]]:
        """The keys that are claimed by lives which have ended: at rest none."""
        with self._lock:
            claims = [claim for line in self._lines.values() for claim in line]
        return [(each.key, each.life) for each in claims if each.life is not None and each.life.exit is not None]


class KeyLock:
    """The lock of one key, for one block at a time: `with` in threads, `async with` on an event loop."""

    __slots__ = ("_claim", "_key", "_locks")

    def __init__(self, locks: Locks, key: Hashable) -> None:
        self._locks = locks
        self._key = key
        self._claim: _Claim | None = None

    def __enter__(self) -> None:
        """Wait for the lock in this thread.

        Raises:
            BlockingInScheduler: on an event loop, if it would have to wait.
            DeadlockError: the same code holds it.
            ActorDeadError: the actor whose code this is has ended meanwhile.
        """
        self._check_unused()
        is_on_loop = _get_running_loop() is not None
        gate = allocate_lock()
        gate.acquire()
        claim = self._locks.claim(self._key, (None, gate.release, 0), "use async with" if is_on_loop else None)
        try:
            if not claim.has_it:
                gate.acquire()
            self._locks.refuse_the_dead(claim)
        except BaseException:
            self._locks.release(claim)
            raise
        self._claim = claim

    async def __aenter__(self) -> None:
        """As `__enter__`, without blocking the loop."""
        self._check_unused()
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        claim = self._locks.claim(self._key, (loop, waiter, get_ident()))
        try:
            if not claim.has_it:
                await waiter
            self._locks.refuse_the_dead(claim)
        except BaseException:
            self._locks.release(claim)
            raise
        self._claim = claim

    def _check_unused(self) -> None:
        if self._claim is not None:
            raise RuntimeError(f"this lock of {self._key!r} is in use: call lock(key) for each block")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        claim, self._claim = self._claim, None
        if claim is not None:
            self._locks.release(claim)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class _Claims:
    """What one plain thread has claimed. Dropped with the thread's local data, when the thread has ended."""

    def __init__(self) -> None:
        self.all: set[_Claim] = set()

    def __del__(self) -> None:
        if self.all and not sys.is_finalizing():
            for claim in list(self.all):
                claim.locks.leave(claim)


class _ThreadClaims(threading.local):
    def __init__(self) -> None:
        self.claims = _Claims()


_of_this_thread = _ThreadClaims()
