"""The seats of a flight, told as stories and held against a model that keeps everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from rubberduck.core.flight import OFTEN_ENOUGH, Flight, Flights, Seat

MOST = 300
KEYS = st.sampled_from(["a", "b", "c"])


def taken(flight: Flight[Any], seat: Seat) -> list[Any]:
    """All that the seat can have now."""
    pieces = []
    while (piece := flight.take(seat)) is not None:
        pieces.append(piece)
    return pieces


def test_who_joins_late_gets_everything_from_the_first_piece() -> None:
    flight: Flight[str] = Flight()
    first = flight.sit()
    flight.add("one", 3)
    assert taken(flight, first) == ["one"]
    late = flight.sit()
    flight.add("two", 3)
    assert taken(flight, late) == ["one", "two"]
    assert taken(flight, first) == ["two"]


def test_as_long_as_somebody_may_join_everything_is_kept() -> None:
    flight: Flight[int] = Flight()
    first = flight.sit()
    for number in range(10 * OFTEN_ENOUGH):
        flight.add(number, 1)
    assert taken(flight, first) == taken(flight, flight.sit()) == list(range(10 * OFTEN_ENOUGH))


def test_nobody_joins_a_flight_that_has_grown_too_large_and_the_next_begins_another() -> None:
    flights: Flights[Flight[str]] = Flights()
    grown, seat = flights.join("key", lambda: Flight(10))
    grown.add("ten bytes.", 10)
    assert flights.find("key") is grown
    grown.add("!", 1)
    assert flights.find("key") is None
    with pytest.raises(ValueError, match="join"):
        grown.sit()
    other, _ = flights.join("key", lambda: Flight(10))
    assert other is not grown
    assert flights.leave("key", grown, seat)
    assert flights.find("key") is other  # the end of the one leaves the other where it is


def test_what_all_have_taken_is_dropped_once_nobody_can_join() -> None:
    flight: Flight[int] = Flight(0)
    quick, slow = flight.sit(), flight.sit()
    for number in range(10 * OFTEN_ENOUGH):
        flight.add(number, 1)
        assert flight.take(quick) == number
    assert flight.kept == 10 * OFTEN_ENOUGH
    assert taken(flight, slow) == list(range(10 * OFTEN_ENOUGH))
    assert flight.kept <= OFTEN_ENOUGH


def test_the_last_to_leave_is_told_so_once() -> None:
    flights: Flights[Flight[str]] = Flights()
    flight, one = flights.join("key", Flight)
    _, two = flights.join("key", Flight)
    assert [flights.leave("key", flight, seat) for seat in (one, one, two, two)] == [False, False, True, False]
    assert len(flights) == 0
    assert not flight.is_open


def test_there_is_one_bill() -> None:
    flight: Flight[str] = Flight()
    assert [flight.pay() for _ in range(3)] == [True, False, False]


@dataclass(eq=False)
class Shadow:
    """A flight as one would keep it with endless memory."""

    key: str
    pieces: list[int] = field(default_factory=list)
    size: int = 0
    is_open: bool = True
    seats: dict[Seat, int] = field(default_factory=dict)


class FlightsAgainstTheModel(RuleBasedStateMachine):
    """Any order of joining, growing, taking, leaving and closing, for three questions at once."""

    seats: Bundle[tuple[Flight[int], Seat]] = Bundle("seats")

    def __init__(self) -> None:
        super().__init__()
        self.flights: Flights[Flight[int]] = Flights()
        self.shadows: dict[Flight[int], Shadow] = {}
        self.number = 0

    @rule(target=seats, key=KEYS)
    def join(self, key: str) -> tuple[Flight[int], Seat]:
        expected = [each for each in self.shadows.values() if each.key == key and each.is_open]
        flight, seat = self.flights.join(key, lambda: Flight(MOST))
        shadow = self.shadows.setdefault(flight, Shadow(key))
        assert expected in ([], [shadow])
        assert bool(expected) == (flight.waiting > 1)
        shadow.seats[seat] = 0
        return flight, seat

    @rule(place=seats, sizes=st.lists(st.integers(0, 40), max_size=100))
    def add(self, place: tuple[Flight[int], Seat], sizes: list[int]) -> None:
        flight, shadow = place[0], self.shadows[place[0]]
        for size in sizes if shadow.seats else []:
            self.number += 1
            flight.add(self.number, size)
            shadow.pieces.append(self.number)
            shadow.size += size
            shadow.is_open = shadow.is_open and shadow.size <= MOST

    @rule(place=seats, count=st.integers(1, 200))
    def take(self, place: tuple[Flight[int], Seat], count: int) -> None:
        flight, seat = place
        shadow = self.shadows[flight]
        at = shadow.seats[seat]
        expected = shadow.pieces[at : at + count]
        got = [piece for piece in [flight.take(seat) for _ in range(count)] if piece is not None]
        assert got == expected
        shadow.seats[seat] += len(got)

    @rule(place=consumes(seats))
    def leave(self, place: tuple[Flight[int], Seat]) -> None:
        flight, seat = place
        shadow = self.shadows[flight]
        del shadow.seats[seat]
        assert self.flights.leave(shadow.key, flight, seat) == (not shadow.seats)
        if not shadow.seats:
            shadow.is_open = False

    @rule(place=seats)
    def close(self, place: tuple[Flight[int], Seat]) -> None:
        place[0].close()
        self.shadows[place[0]].is_open = False

    @invariant()
    def the_books_hold_no_more_than_they_must(self) -> None:
        for flight, shadow in self.shadows.items():
            assert flight.is_open == shadow.is_open
            assert flight.waiting == len(shadow.seats)
            if not shadow.seats:
                assert flight.kept == 0
        waited_for = {shadow.key for shadow in self.shadows.values() if shadow.seats}
        assert len(self.flights) <= len(waited_for)

    def teardown(self) -> None:
        for flight, shadow in self.shadows.items():
            for seat in list(shadow.seats):
                self.flights.leave(shadow.key, flight, seat)
        assert len(self.flights) == 0


TestFlightsAgainstTheModel = FlightsAgainstTheModel.TestCase
TestFlightsAgainstTheModel.settings = settings(max_examples=60, stateful_step_count=30)
