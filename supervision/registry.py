"""Actors under keys: found by what they are for, and gone from the books with their life.

An entry belongs to an incarnation, not to its name: what a crashed owner had registered is not its successor's.
Source of the semantics: Elixir, lib/elixir/lib/registry.ex.
"""

from __future__ import annotations

import itertools
from _thread import allocate_lock
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from supervision.engine.vocabulary import Ok
from supervision.errors import ActorDeadError, MixedKey, SpecError
from supervision.locks import KeyLock, Locks
from supervision.monitors import name_behind
from supervision.view.audit import Finding
from supervision.view.listeners import Listeners
from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import ActorRef

RegistryListener = Callable[[Literal["register", "unregister"], Any, "ActorRef"], object]


@dataclass(frozen=True, slots=True)
class AlreadyRegistered:
    """The key is unique, and `owner` has it."""

    owner: ActorRef


@dataclass(slots=True)
class _Key:
    """What is registered under one key: entries by their number, in the order of their registration."""

    is_unique: bool
    entries: dict[int, tuple[Incarnation, Any]] = field(default_factory=dict)


class Registry:
    """Keys and the actors that registered under them. All of it may be called from any thread and any handler.

    A key is unique or has many owners (`unique=False`), as long as anybody is registered under it. An owner's entries
    are gone when it ends; before anybody hears of that end.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._listeners = Listeners(name)
        self._clear()

    def _clear(self) -> None:
        self._lock = allocate_lock()
        self._locks = Locks()
        self._numbers = itertools.count(1)
        self._keys: dict[Hashable, _Key] = {}
        self._owned: dict[Incarnation, dict[Hashable, list[int]]] = {}

    # -- writing -----------------------------------------------------------------------------------

    def register(
        self, key: Hashable, owner: ActorRef, value: Any = None, unique: bool = True
    ) -> Ok | AlreadyRegistered:
        """Put `owner`'s present incarnation under `key`. Under a key that is not unique it may stand several times.

        Raises:
            ActorDeadError: there is no incarnation behind `owner`.
            MixedKey: somebody is registered under this key as the other kind, unique or not.
        """
        life = _life_of(owner)
        try:
            with self._lock:
                found = self._living(key)
                if found is not None and found.is_unique is not unique:
                    raise MixedKey(key, is_unique=found.is_unique)
                if found is not None and unique:
                    holder, _ = next(iter(found.entries.values()))
                    return AlreadyRegistered(holder.name.ref)
                self._add(key, found, life, value, unique)
        finally:
            self._listeners.ring()
        life.when_over(self, partial(self._forget, life))
        if life.exit is not None:
            raise ActorDeadError(life.name.path, life.exit.reason)
        return Ok()

    def _living(self, key: Hashable) -> _Key | None:
        """What stands under `key`; if the first owner there has ended in this moment, its entries are struck first."""
        while (found := self._keys.get(key)) is not None:
            life, _ = next(iter(found.entries.values()))
            if life.exit is None:
                return found
            self._strike(life)
        return None

    def _add(self, key: Hashable, found: _Key | None, life: Incarnation, value: Any, unique: bool) -> None:
        if found is None:
            found = self._keys[key] = _Key(unique)
        number = next(self._numbers)
        found.entries[number] = (life, value)
        self._owned.setdefault(life, {}).setdefault(key, []).append(number)
        self._listeners.put("register", key, life.name.ref)

    def unregister(self, key: Hashable, owner: ActorRef) -> bool:
        """Take all that `owner` has registered under `key` out of the books. False if there was nothing."""
        life = _present_life(owner)
        with self._lock:
            owned = None if life is None else self._owned.get(life)
            if life is None or owned is None or key not in owned:
                return False
            self._take_out(key, life, owned.pop(key))
            if not owned:
                del self._owned[life]
        self._listeners.ring()
        return True

    def update(self, key: Hashable, owner: ActorRef, value: Any) -> bool:
        """Give what `owner` has registered under `key` another value. False if there is nothing."""
        life = _present_life(owner)
        with self._lock:
            numbers = [] if life is None else self._owned.get(life, {}).get(key, [])
            for number in numbers:
                assert life is not None
                self._keys[key].entries[number] = (life, value)
            return bool(numbers)

    def _take_out(self, key: Hashable, life: Incarnation, numbers: list[int]) -> None:
        entries = self._keys[key].entries
        for number in numbers:
            del entries[number]
            self._listeners.put("unregister", key, life.name.ref)
        if not entries:
            del self._keys[key]

    def _strike(self, life: Incarnation) -> None:
        for key, numbers in self._owned.pop(life, {}).items():
            self._take_out(key, life, numbers)

    def _forget(self, life: Incarnation) -> None:
        """`life` has ended."""
        with self._lock:
            self._strike(life)
        self._listeners.ring()

    # -- reading -----------------------------------------------------------------------------------

    def lookup(self, key: Hashable) -> list[tuple[ActorRef, Any]]:
        """Who lives and is registered under `key`, with their values, in the order of registration."""
        with self._lock:
            found = self._keys.get(key)
            entries = [] if found is None else list(found.entries.values())
        return [(life.name.ref, value) for life, value in entries if life.exit is None]

    def whereis(self, key: Hashable) -> ActorRef | None:
        """Who lives and is registered under `key`; the first, if there are several."""
        return next((owner for owner, _ in self.lookup(key)), None)

    def keys(self, owner: ActorRef) -> list[Any]:
        """The keys that `owner`'s present incarnation is registered under, in the order of registration."""
        life = _present_life(owner)
        with self._lock:
            return [] if life is None else list(self._owned.get(life, ()))

    def listen(self, callback: RegistryListener) -> Callable[[], None]:
        """Have `callback("register" | "unregister", key, owner)` called from now on, on a thread for listeners.

        Returns the function that ends it.
        """
        if not callable(callback):
            raise SpecError(f"listen(callback): {callback!r} cannot be called with what happened")
        return self._listeners.listen(callback)

    def lock(self, key: Hashable) -> KeyLock:
        """Exclude all others who lock `key`, which need not be registered: `with` in threads, `async with` on a loop.

        It is freed when its block is left, when the actor that holds it ends, by whatever means, and when the thread
        that holds it ends. Who waits is served in turn.
        """
        return self._locks.lock(key)

    # -- bookkeeping -------------------------------------------------------------------------------

    def stale(self) -> list[Finding]:
        """What contradicts itself in the books: at rest nothing."""
        with self._lock:
            entries = [(key, *entry) for key, found in self._keys.items() for entry in found.entries.items()]
            owned = {number for keys in self._owned.values() for numbers in keys.values() for number in numbers}
        faults = [
            Finding(life.name.path, f"it is dead (incarnation {life.epoch}), and still registered under {key!r}")
            for key, _, (life, _) in entries
            if life.exit is not None
        ]
        faults += [
            Finding(life.name.path, f"it is registered under {key!r}, and its own list does not say so")
            for key, number, (life, _) in entries
            if number not in owned
        ]
        return faults + [
            Finding(
                life.name.path, f"it is dead (incarnation {life.epoch}), and still in the line for the lock {key!r}"
            )
            for key, life in self._locks.of_the_dead()
        ]

    def close(self) -> None:
        """The system has ended: tell the listeners what there is to tell, and end their thread."""
        self._listeners.close()

    def lose_after_fork(self) -> None:
        """In the child of a fork nobody lives who is registered here."""
        self._listeners = Listeners(self._name)
        self._clear()


def _life_of(owner: ActorRef) -> Incarnation:
    """The incarnation that acts as `owner`.

    Raises:
        ActorDeadError: there is none.
    """
    life, name = _present_life(owner), owner.name
    if life is None or life.exit is not None:
        raise ActorDeadError(name.path, name.last_exit.reason if name.last_exit is not None else None)
    return life


def _present_life(owner: ActorRef) -> Incarnation | None:
    """The incarnation behind `owner`; in its own code that one, even if another has taken its place meanwhile."""
    name, turn = name_behind(owner), waits.current.get()
    if turn is not None and turn.incarnation.name is name:
        return turn.incarnation
    return name.incarnation
