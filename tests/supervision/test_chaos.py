"""Actors of both kinds crash in every way and are killed, while others ask and tell: the books must balance."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pykka
import pytest
from tree_rig import Boom

import supervision as sup

ERRORS = (Boom, SystemExit, KeyboardInterrupt, asyncio.CancelledError, MemoryError)
IDS = ("a", "b", "mid/c", "mid/d")


@dataclass
class Books:
    """What was sent, and what came of it."""

    handled: list[tuple[str, int, int]] = field(default_factory=list)
    asks: list[Any] = field(default_factory=list)
    tells: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)


class _Fragile:
    """Notes what it handles; every so often it fails instead."""

    def __init__(self, books: Books, rng: random.Random) -> None:
        super().__init__()
        self._books, self._rng = books, rng

    def _handle(self, message: Any) -> Any:
        if self._rng.random() < 0.02:
            error = self._rng.choice(ERRORS)
            raise error("chaos")
        self._books.handled.append((self.context.name, *message))
        return message


class FragileLoop(_Fragile, sup.Actor):
    async def on_receive(self, message: Any) -> Any:
        if self._rng.random() < 0.1:
            await asyncio.sleep(0)
        return self._handle(message)


class FragileThread(_Fragile, pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return self._handle(message)


def send(sender: int, refs: dict[str, Any], books: Books, until: float) -> None:
    """Ask and tell numbered messages, to one actor after the other."""
    rng, n = random.Random(sender), 0
    while time.monotonic() < until:
        n += 1
        id = rng.choice(IDS)
        if rng.random() < 0.5:
            books.asks.append(((sender, n), refs[id].ask((sender, n), block=False)))
        else:
            books.tells[id] += 1
            try:
                refs[id].tell((sender, n))
            except pykka.ActorDeadError:
                books.refused[id] += 1
        if n % 20 == 0:  # or the queues would only grow
            time.sleep(0.001)


def kill(system: sup.System, until: float) -> None:
    rng = random.Random(99)
    while time.monotonic() < until:
        if (ref := system.whereis(rng.choice((*IDS, "mid")))) is not None:
            system.kill(ref)
        time.sleep(0.01)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_ask_is_answered_once_and_every_tell_accounted_for(make_system, seed, caplog, eventually):
    caplog.set_level("CRITICAL", logger="supervision")
    system, books = make_system(), Books()
    spec = {
        id: sup.ChildSpec(
            id[-1], FragileThread if id in ("b", "mid/d") else FragileLoop, args=(books, random.Random(f"{seed}{id}"))
        )
        for id in IDS
    }
    plenty = {"max_restarts": 1_000_000, "max_seconds": 1.0}
    system.supervise(spec["a"], spec["b"], sup.supervisor("mid", spec["mid/c"], spec["mid/d"], **plenty), **plenty)
    refs = {id: system.whereis(id) for id in IDS}
    until = time.monotonic() + 1.0
    threads = [threading.Thread(target=send, args=(n, refs, books, until)) for n in range(3)]
    threads.append(threading.Thread(target=kill, args=(system, until)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = Counter(type(answer_of(future, message)).__name__ for message, future in books.asks)
    assert answered["tuple"] > 0
    assert sum(answered.values()) == len(books.asks)
    eventually(lambda: all(len(ref.name.mailbox) == 0 for ref in refs.values()), timeout=20.0)
    eventually(lambda: all((life := ref.name.incarnation) and life.current is None for ref in refs.values()))
    assert_in_order(books.handled)
    assert len(books.handled) == len(set(books.handled))
    assert_tells_accounted_for(books, refs, eventually)
    assert max(ref.name.epoch for ref in refs.values()) > 5
    eventually(lambda: system.audit() == [])
    assert system.stop(10.0), system.unstopped_report()
    assert pykka.ActorRegistry.get_all() == []


def answer_of(future: Any, message: Any) -> Any:
    """The answer, or the error that took its place; an answer must be that to this very message."""
    try:
        answer = future.get(timeout=20)
    except (Boom, MemoryError, pykka.ActorDeadError) as error:
        return error
    assert answer == message
    assert future.settle("a second answer") is False
    return answer


def assert_in_order(handled: list[tuple[str, int, int]]) -> None:
    """Each actor handles each sender's messages in the order they were sent, across all its lives."""
    last: dict[tuple[str, int], int] = {}
    for path, sender, n in handled:
        assert last.get((path, sender), 0) < n
        last[path, sender] = n


def assert_tells_accounted_for(books: Books, refs: dict[str, Any], eventually: Any) -> None:
    asked = {message for message, _ in books.asks}
    told = sum(books.tells.values())
    handled = sum((sender, n) not in asked for _, sender, n in books.handled)
    eventually(lambda: handled + sum(ref.name.dead_letters for ref in refs.values()) == told)
