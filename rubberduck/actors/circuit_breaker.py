"""Keeps the circuit breakers of one provider's routes, so that all calls see the same circuit."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, assert_never

import supervision as sup
from rubberduck.core.breaker import (
    BreakerOptions,
    BreakerSnapshot,
    BreakerStats,
    CircuitBreaker,
    Event,
    Outcome,
    Permit,
    Rejected,
    State,
)
from rubberduck.core.values import value
from rubberduck.errors import InvalidRequest

_WORST_FIRST = (State.FORCED_OPEN, State.OPEN, State.HALF_OPEN, State.METRICS_ONLY, State.DISABLED, State.CLOSED)
MOST_CIRCUITS = 10_000


@value(frozen=True, slots=True)
class Acquire(sup.Ask[Permit | Rejected]):
    """May I call `model` now? The permit must be settled within `ttl` seconds.

    `is_last_resort` says that nobody else is left to be called: an open circuit then gives one extra probe at a time.
    """

    model: str | None = None
    ttl: float | None = None
    is_last_resort: bool = False


@value(frozen=True, slots=True)
class Settle(sup.Ask[bool]):
    """How the permitted call ended. `duration` is seconds to the first token, `hint` the server's retry-after."""

    permit: Permit
    outcome: Outcome
    model: str | None = None
    duration: float = 0.0
    kind: str | None = None
    hint: float | None = None


@dataclass(frozen=True, slots=True)
class IsOpen(sup.Ask[bool]):
    """Would a call be refused now?"""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class GetState(sup.Ask[State]):
    """The state of one route, or with None the worst of all."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class GetStats(sup.Ask[Mapping[str, BreakerStats]]):
    """The books of every route."""


@dataclass(frozen=True, slots=True)
class ForceOpen(sup.Ask[None]):
    """Refuse everything until Reset; with None on every route."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class OpenFor(sup.Ask[None]):
    """Open for `duration` seconds; what is open for longer stays so."""

    duration: float
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Disable(sup.Ask[None]):
    """Admit everything and count nothing until Reset."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsOnly(sup.Ask[None]):
    """Admit everything, count, and only report."""

    model: str | None = None


@dataclass(frozen=True, slots=True)
class Reset(sup.Ask[None]):
    """Close, from wherever it is."""

    model: str | None = None


Lever = ForceOpen | OpenFor | Disable | MetricsOnly | Reset


class CircuitBreakerActor(sup.Actor):
    """Decides whether one provider may be called; it never runs the call.

    Why an actor: calls run side by side, and one circuit must count all their failures.
    Asks: no one. Restart: comes back as it was; open stays open for what remained, half-open gets new probes, and
    permits of the former incarnation are late: they move nothing. A message that it does not know, or cannot use, is
    answered with InvalidRequest: that is its sender's mistake.

    `publish(model, breaker)` lets readers peek without asking; `on_event(model, event)` hears transitions. The names of
    models come from users: beyond `most`, circuits that nobody would miss are forgotten, and `forget(model)` hears it.
    """

    expected_errors = (InvalidRequest,)

    def __init__(
        self,
        options: BreakerOptions,
        *,
        rng: random.Random | None = None,
        publish: Callable[[str, CircuitBreaker], object] | None = None,
        on_event: Callable[[str, Event], object] | None = None,
        forget: Callable[[str], object] | None = None,
        most: int = MOST_CIRCUITS,
    ) -> None:
        super().__init__()
        self._options = options
        self._rng = rng or random.Random()
        self._publish = publish
        self._on_event = on_event
        self._forget = forget
        self._most = most
        # Circuits begin above the generations of all that were forgotten, whose permits may still come back.
        self._first_generation = 0
        self._breakers: dict[str, CircuitBreaker] = {}
        self._for_all: Lever | None = None

    def on_start(self) -> None:
        now = self.context.clock.now()
        former, self._for_all, self._first_generation = self.context.snapshot or ({}, None, 0)
        for model, books in former.items():
            # A new generation: permits of the former incarnation are late, and mix up with none of ours.
            self._keep(model, CircuitBreaker.restore(_last_state(books, now), self._options, now, self._rng))
            self._report(model, books)  # what came with time, and was told to nobody yet
        # The books themselves are the snapshot: they are always whole between two messages.
        self._remember()

    def _remember(self) -> None:
        self.remember((self._breakers, self._for_all, self._first_generation))

    def on_receive(self, message: Any) -> Any:
        now = self.context.clock.now()
        match message:
            case Acquire(model=model, ttl=ttl):
                breaker = self._breaker(model, now)
                answer: Any = breaker.acquire(now, ttl, is_last_resort=message.is_last_resort)
            case Settle(model=model):
                breaker = self._breaker(model, now)
                answer = breaker.settle(
                    message.permit, message.outcome, now, message.duration, message.kind, message.hint
                )
            case IsOpen(model=model):
                return any(each.peek(now) is not None for each in self._of(model, now))
            case GetState(model=model):
                states = {each.state(now) for each in self._of(model, now)}
                return next(state for state in _WORST_FIRST if state in states)
            case GetStats():
                return {model: breaker.stats(now) for model, breaker in self._breakers.items()}
            case _:
                return self._operate(message, now)
        self._report(model or "", breaker)
        return answer

    def _operate(self, message: Any, now: float) -> None:
        """The operator's levers, on one route or on all."""
        if not isinstance(message, Lever):
            raise InvalidRequest(f"a circuit breaker does not understand {type(message).__name__}")
        if isinstance(message, OpenFor) and not 0 <= message.duration < inf:
            raise InvalidRequest(f"duration is seconds from 0 on, not {message.duration}", field="duration")
        if message.model is None and not isinstance(message, OpenFor):
            # Routes that are called for the first time later are meant too.
            self._for_all = None if isinstance(message, Reset) else message
            self._remember()
        for breaker in self._of(message.model, now):
            _pull(message, breaker, now)
        for model, breaker in self._breakers.items():
            self._report(model, breaker)

    def _breaker(self, model: str | None, now: float) -> CircuitBreaker:
        breaker = self._breakers.get(model or "")
        if breaker is None:
            if len(self._breakers) >= self._most:
                self._make_room(now)
            circuit = CircuitBreaker(self._options, now, self._rng, self._first_generation)
            breaker = self._keep(model or "", circuit)
            if self._for_all is not None:
                _pull(self._for_all, breaker, now)
        return breaker

    def _of(self, model: str | None, now: float) -> list[CircuitBreaker]:
        if model is None and self._breakers:
            return list(self._breakers.values())
        return [self._breaker(model, now)]

    def _keep(self, model: str, breaker: CircuitBreaker) -> CircuitBreaker:
        self._breakers[model] = breaker
        if self._publish is not None:
            self._publish(model, breaker)
        return breaker

    def _make_room(self, now: float) -> None:
        """Forget the circuits at rest; where they are few, the oldest closed ones, and an operator's last."""
        enough = max(1, self._most // 10)
        leaving = [model for model, breaker in self._breakers.items() if breaker.is_at_rest(now)]
        if len(leaving) < enough:
            leaving = sorted(self._breakers, key=lambda model: _worth(self._breakers[model], now))[:enough]
        for model in leaving:
            self._first_generation = max(self._first_generation, self._breakers.pop(model).generation + 1)
            if self._forget is not None:
                self._forget(model)
        self._remember()

    def _report(self, model: str, breaker: CircuitBreaker) -> None:
        """Tell who listens what has changed."""
        for event in breaker.take_events():
            if self._on_event is not None:
                self._on_event(model, event)


def _worth(breaker: CircuitBreaker, now: float) -> tuple[bool, bool]:
    """The more it would be missed, the greater."""
    return breaker.is_by_operator, breaker.state(now) is not State.CLOSED


def _pull(lever: Lever, breaker: CircuitBreaker, now: float) -> None:
    """Do what an operator's message says to one circuit."""
    match lever:
        case ForceOpen():
            breaker.force_open(now)
        case OpenFor(duration=duration):
            breaker.open_for(duration, now)
        case Disable():
            breaker.disable(now)
        case MetricsOnly():
            breaker.metrics_only(now)
        case Reset():
            breaker.reset(now)
        case _:
            assert_never(lever)


def _last_state(books: CircuitBreaker, now: float) -> BreakerSnapshot | None:
    """What the former incarnation's books say; nothing, if they cannot be read any more."""
    try:
        return books.snapshot(now)
    except Exception:  # noqa: BLE001  (books that a crash left torn: one careful probe first)
        return None
