"""Why a call went the way it did: what it could choose from, what it waited for, what it took, what that cost.

While a call runs, it only keeps what it has at hand anyway; words and terms are made of it when somebody asks. No
prompt and no answer is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite
from typing import Any

from rubberduck.core.limiter import Amounts
from rubberduck.core.plan import Fail, Sleep, Try
from rubberduck.core.score import Candidate, Choice, terms
from rubberduck.types import Attempt


@dataclass(slots=True)
class Leg:
    """One attempt, from asking the limiter to its end. Times are the system clock's; None has not happened.

    `asked` is what the limiter was asked for, `settled` what was kept of it (None: all came back). `refused` says why
    it never began.
    """

    route: str
    number: int
    asked: Amounts
    granted_at: float | None = None
    sent_at: float | None = None
    settled: Amounts | None = None
    attempt: Attempt | None = None
    refused: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """Nothing could be tried any more: why not, route by route."""

    reasons: dict[str, str]
    views: tuple[Candidate, ...]


Step = Try | Sleep | GaveUp | Choice | Leg
"""A decision of the plan, a second route chosen beside a silent one, or an attempt."""


def noted(step: Try | Sleep | Fail) -> Step:
    """What is kept of a decision: of a failure not the error, which holds on to all that it has passed through."""
    return GaveUp(step.reasons, step.views) if isinstance(step, Fail) else step


@dataclass(frozen=True, slots=True)
class Trace:
    """Why a call went the way it did; `str()` tells it to people, `as_dict()` is ready for JSON.

    Times within it are seconds since the call was accepted. `ended_after` is None while it runs; `outcome` is then what
    it is doing, else "success", "cached" or the name of its error. `place` is how many waited before it in the queue,
    `spliced`: the answer was put together of several attempts. Of several calls that shared an answer, `flight` is the
    id of the one that was made for all, as the ledger has it.
    """

    request_id: str
    model: str
    priority: str
    tenant: str
    accepted_at: float
    looked_at: float
    ended_after: float | None
    outcome: str
    queue_wait: float
    place: int | None
    steps: tuple[tuple[float, Step], ...]
    attempts: tuple[Attempt, ...]
    spent: Decimal | None
    spliced: bool = False
    flight: str | None = None

    @property
    def choices(self) -> tuple[Choice, ...]:
        """Each choice of a route, with all candidates as they looked then."""
        made = [step.choice if isinstance(step, Try) else step for _, step in self.steps]
        return tuple([each for each in made if isinstance(each, Choice)])

    @property
    def legs(self) -> tuple[Leg, ...]:
        """Each attempt, those included that never began."""
        return tuple([step for _, step in self.steps if isinstance(step, Leg)])

    @property
    def is_running(self) -> bool:
        return self.ended_after is None

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "request_id": self.request_id,
            **({} if self.flight is None else {"flight": self.flight}),
            "model": self.model,
            "priority": self.priority,
            "tenant": self.tenant,
            "outcome": self.outcome,
            "ended_after": _plain(self.ended_after),
            "spliced": self.spliced,
            "queue": {"waited": _plain(self.queue_wait), "place": self.place},
            "steps": [self._step(at, step) for at, step in self.steps],
            "bill": {
                "spent": None if self.spent is None else format(self.spent, "f"),
                "attempts": [_attempt(each) for each in self.attempts],
            },
        }

    def __str__(self) -> str:
        from rubberduck.actors.calls.telling import tell  # it is needed by who reads traces only

        return tell(self)

    def after(self, at: float) -> float:
        """Seconds since the call was accepted."""
        return at - self.accepted_at

    def _step(self, at: float, step: Step) -> dict[str, Any]:
        return {"at": _plain(self.after(at)), **self._told(step, at)}

    def _told(self, step: Step, at: float) -> dict[str, Any]:
        match step:
            case Try():
                return {"what": "repeat" if step.is_repeat else "choice", "route": step.route} | _try(step)
            case Choice():
                return {"what": "hedge", "route": step.route, "candidates": _choice(step)}
            case Sleep():
                waits = {"what": "sleep", "for": _plain(step.until - at), "route": step.route}
                return waits | {"candidates": _views(step.views)}
            case GaveUp():
                return {"what": "gave_up", "reasons": step.reasons, "candidates": _views(step.views)}
            case Leg():
                return {"what": "attempt"} | self._leg(step, at)

    def _leg(self, leg: Leg, at: float) -> dict[str, Any]:
        return {
            "route": leg.route,
            "number": leg.number,
            "asked": _amounts(leg.asked),
            "waited": None if leg.granted_at is None else _plain(leg.granted_at - at),
            "sent_at": None if leg.sent_at is None else _plain(self.after(leg.sent_at)),
            "settled": None if leg.settled is None else _amounts(leg.settled),
            "refused": leg.refused,
            "retry_after": _plain(leg.retry_after),
            "outcome": None if leg.attempt is None else leg.attempt.outcome,
            "duration": None if leg.attempt is None else _plain(leg.attempt.duration),
            "cost": None if leg.attempt is None or leg.attempt.cost is None else format(leg.attempt.cost, "f"),
        }


def doing(steps: Sequence[tuple[float, Step]], queue_wait: float | None) -> str:
    """What a call that runs is waiting for."""
    if not steps:
        return "waits for its turn in the queue" if queue_wait is None else "chooses a route"
    match steps[-1][1]:
        case Leg(refused=str()) | Leg(attempt=Attempt()) | GaveUp():
            return "chooses what to do next"
        case Leg(sent_at=float()) as leg:
            return f"waits for the answer of {leg.route}"
        case Leg(granted_at=float()) as leg:
            return f"waits for the circuit breaker and the ledger, to be sent to {leg.route}"
        case Leg() as leg:
            return f"waits for the rate limiter of {leg.route}"
        case Sleep(route=None):
            return "waits for any route to come free"
        case Sleep(route=route):
            return f"waits before the next attempt on {route}"
        case Try(route=route) | Choice(route=route):
            return f"is about to be sent to {route}"


def _try(step: Try) -> dict[str, Any]:
    told: dict[str, Any] = {"attempt": step.attempt}
    if step.is_last_resort:
        told["is_last_resort"] = True
    return told if step.choice is None else told | {"sticky": step.choice.sticky, "candidates": _choice(step.choice)}


def _choice(choice: Choice) -> list[dict[str, Any]]:
    return [_numbers(each) for each in choice.trace()]


def _views(views: Sequence[Candidate]) -> list[dict[str, Any]]:
    return [_numbers(terms(each, 0.0)) for each in views]


def _numbers(told: dict[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in told.items()}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "provider": attempt.provider,
        "model": attempt.model,
        "outcome": attempt.outcome,
        "started": _plain(attempt.started),
        "duration": _plain(attempt.duration),
        "cost": None if attempt.cost is None else format(attempt.cost, "f"),
    }


def _amounts(amounts: Amounts) -> dict[str, float]:
    return {
        "requests": amounts.requests,
        "input": amounts.input,
        "output": amounts.output,
        "concurrency": amounts.concurrency,
    }


def _plain(value: Any) -> Any:
    """Numbers as JSON knows them: no infinity, and no digits that say nothing."""
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else None
    return value
