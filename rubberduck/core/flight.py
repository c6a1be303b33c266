"""Who waits for what, where identical questions that are asked at the same time share one answer: a *flight*.

    join      a seat in the flight under way, or in a new one
    add       a piece of the answer has come; it is recorded once, for all
    take      each seat takes the pieces at its own pace, from the first one on
    leave     who leaves hurts nobody; the last one learns that it was the last

Nobody owns a flight, and who began it is a seat as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

P = TypeVar("P")

MOST_RECORDED = 1024 * 1024
"""Bytes of an answer that are kept for who may still join. Beyond, nobody does, and what all have taken is dropped."""

OFTEN_ENOUGH = 64
"""A seat so many pieces behind the first one kept looks whether some can be dropped."""


class Seat:
    """One waiter's place in a flight. `taken` counts the pieces it has had."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class Flight(Generic[P]):
    """One answer and those who wait for it. Not safe for threads: it belongs to one loop.

    `is_open` says whether one more may join, who then gets all of it from the first piece on.
    """

    def __init__(self, most_recorded: int = MOST_RECORDED) -> None:
        self.is_open = True
        self._most = most_recorded
        self._seats: dict[Seat, None] = {}
        self._pieces: list[P] = []
        self._dropped = self._size = 0
        self._is_paid = False

    @property
    def waiting(self) -> int:
        """How many seats are taken."""
        return len(self._seats)

    @property
    def kept(self) -> int:
        """How many pieces are kept."""
        return len(self._pieces)

    def close(self) -> None:
        """Let nobody join any more."""
        self.is_open = False

    def sit(self) -> Seat:
        """A seat for one more."""
        if not self.is_open:
            raise ValueError("nobody can join this flight any more")
        seat = Seat()
        self._seats[seat] = None
        return seat

    def stand_up(self, seat: Seat) -> bool:
        """Give a seat back; True if nobody is left. Nobody can join then, either."""
        if seat not in self._seats:
            return False
        del self._seats[seat]
        if not self._seats:
            self.close()
            self._pieces.clear()
        return not self._seats

    def add(self, piece: P, size: int) -> None:
        """Record a piece of `size` bytes."""
        self._pieces.append(piece)
        self._size += size
        if self._size > self._most:
            self.close()

    def take(self, seat: Seat) -> P | None:
        """The next piece for a seat; None if there is no further one so far."""
        place = seat.taken - self._dropped
        if place >= len(self._pieces):
            return None
        piece = self._pieces[place]
        seat.taken += 1
        if place >= OFTEN_ENOUGH and not self.is_open:
            self._drop_what_all_have()
        return piece

    def _drop_what_all_have(self) -> None:
        count = min([seat.taken for seat in self._seats]) - self._dropped
        if count:
            del self._pieces[:count]
            self._dropped += count

    def pay(self) -> bool:
        """Take the bill, which there is once: True for the first who comes for it."""
        is_first, self._is_paid = not self._is_paid, True
        return is_first


F = TypeVar("F", bound=Flight[Any])


class Flights(Generic[F]):
    """The flights that are under way, by what is asked. Not safe for threads."""

    def __init__(self) -> None:
        self._by_key: dict[str, F] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, key: str) -> F | None:
        """The flight that can be joined."""
        flight = self._by_key.get(key)
        return flight if flight is not None and flight.is_open else None

    def join(self, key: str, begin: Callable[[], F]) -> tuple[F, Seat]:
        """A seat in the flight of `key`; where there is none that can be joined, in the one that `begin()` makes."""
        flight = self.find(key)
        if flight is None:
            flight = self._by_key[key] = begin()
        return flight, flight.sit()

    def leave(self, key: str, flight: F, seat: Seat) -> bool:
        """Give a seat back; True if nobody is left who waits for this flight."""
        is_last = flight.stand_up(seat)
        if is_last and self._by_key.get(key) is flight:
            del self._by_key[key]
        return is_last
