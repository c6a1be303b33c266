"""What is told to the world about calls and attempts: telemetry, and a log line where something went wrong."""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from typing import Any

from rubberduck import telemetry
from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import CHAT, Call, Given
from rubberduck.core.budget import BudgetEvent
from rubberduck.core.classify import Quarantine
from rubberduck.core.keys import Quarantined
from rubberduck.errors import RubberDuckError
from rubberduck.telemetry import names as events
from rubberduck.types import Attempt, TokenCount, Usage

logger = logging.getLogger("rubberduck")


class CallReport:
    """Tells of one call: one start, then one stop or one exception. Costs next to nothing while nobody listens."""

    __slots__ = ("_call", "_started", "_system")

    def __init__(self, system: str, call: Call) -> None:
        self._system = system
        self._call = call
        self._started = time.perf_counter_ns()
        if telemetry.is_attached(events.REQUEST_START):
            telemetry.execute(events.REQUEST_START, {"system_time": time.time_ns()}, self._about(None))

    @property
    def call(self) -> Call:
        return self._call

    def success(self, given: Given) -> None:
        if not telemetry.is_attached(events.REQUEST_STOP):
            return
        if isinstance(given, TokenCount):  # which takes no tokens, whatever their number
            told: dict[str, Any] = {"tokens": 0, "cost": Decimal(0), "cached": False, "shared": False}
        else:
            told = {"tokens": given.usage.total_tokens, "cost": given.usage.cost}
            told |= {"cached": given.cached, "shared": given.shared}
        told["attempts"] = len(given.attempts)
        telemetry.execute(events.REQUEST_STOP, self._duration(), self._about(given.provider) | told)

    def failure(self, error: RubberDuckError) -> None:
        if not telemetry.is_attached(events.REQUEST_EXCEPTION):
            return
        told = {
            "error": type(error).__name__,
            "message": str(error),
            "attempts": len(self._call.attempts),
            "spent": error.spent,
            "trace": error.trace,
        }
        telemetry.execute(events.REQUEST_EXCEPTION, self._duration(), self._about(error.provider) | told)

    def _about(self, provider: str | None) -> dict[str, Any]:
        call = self._call
        about = {"system": self._system, "request_id": call.id, "model": call.request.model, "provider": provider}
        return about if call.kind == CHAT else about | {"kind": call.kind}

    def _duration(self) -> dict[str, int]:
        return {"duration": time.perf_counter_ns() - self._started}


class NoReport(CallReport):
    """Of a call that is made for several others, each of which is told of."""

    def __init__(self, system: str, call: Call) -> None:
        pass

    def success(self, given: Given) -> None:
        pass

    def failure(self, error: RubberDuckError) -> None:
        pass


def attempt_ended(system: str, call: Call, attempt: Attempt, usage: Usage | None) -> None:
    """Tell of one settled attempt, and of its cost."""
    tells_end, tells_cost = telemetry.is_attached(events.ATTEMPT_STOP), telemetry.is_attached(events.COST)
    if not (tells_end or tells_cost):
        return
    who: dict[str, Any] = {"provider": attempt.provider, "model": attempt.model, "system": system}
    if tells_end:
        told = {"request_id": call.id, "outcome": attempt.outcome}
        telemetry.execute(events.ATTEMPT_STOP, {"duration": int(attempt.duration * 1e9)}, who | told)
    if usage is not None and tells_cost:
        measured = {"cost": attempt.cost, "tokens": usage.total_tokens}
        telemetry.execute(events.COST, measured, who | {"tenant": call.tenant})


def tried_again(system: str, call: Call, provider: str, model: str, now: float, *, is_repeat: bool) -> None:
    """Tell that a failed attempt is followed by another one: on the same route, or on the one named here."""
    event = events.RETRY if is_repeat else events.FALLBACK
    if not call.attempts or not telemetry.is_attached(event):
        return
    failed = call.attempts[-1]
    delay = now - (call.accepted_at + failed.started + failed.duration)
    told = {"system": system, "request_id": call.id, "reason": failed.outcome}
    told |= {"provider": failed.provider, "model": failed.model}
    if not is_repeat:
        told["to"] = f"{provider}/{model}"
    telemetry.execute(event, {"delay": max(0, int(delay * 1e9))}, told)


def hedged(system: str, call: Call, silent: Route, route: Route, waited: float) -> None:
    """Tell that a second route is asked beside one that has been silent for `waited` seconds."""
    if telemetry.is_attached(events.HEDGE):
        told = {"system": system, "request_id": call.id, "provider": silent.provider, "model": silent.model}
        telemetry.execute(events.HEDGE, {"delay": int(waited * 1e9)}, told | {"to": route.name})


def not_queued(system: str, call: Call, reason: str, retry_after: float | None) -> None:
    """Tell that the queue did not take a call."""
    if telemetry.is_attached(events.QUEUE_REJECTED):
        told = {"request_id": call.id, "model": call.request.model, "reason": reason, "retry_after": retry_after}
        telemetry.execute(events.QUEUE_REJECTED, {}, {"system": system, **told})


def put_away(system: str, route: Route, what: Quarantined, status: int | None) -> None:
    """Tell that a key, or a model, will not be used for a while: somebody has to do something about it."""
    subject = "the model" if what.key is None else what.key or "its key"
    scope = "" if what.model is None else f" {what.model}" if what.key is None else f" with {what.model}"
    why = f"{_PUT_AWAY[what.kind]}{'' if status is None else f' ({status})'}"
    level = logging.WARNING if what.kind is Quarantine.ROUTE else logging.ERROR
    times = "" if what.times == 1 else f", for the {what.times}. time in a row"
    text = "%s: %s%s is left alone for %.0f s%s: %s"
    logger.log(level, text, route.provider, subject, scope, what.seconds, times, why)
    if telemetry.is_attached(events.KEY_QUARANTINED):
        told = {"provider": route.provider, "key": what.key, "model": what.model, "reason": str(what.kind)}
        measured = {"duration": int(what.seconds * 1e9), "times": what.times}
        telemetry.execute(events.KEY_QUARANTINED, measured, {"system": system, "status": status, **told})


_PUT_AWAY = {
    Quarantine.KEY: "the provider refused the key; check the provider's api_key",
    Quarantine.QUOTA: "the account's credit or spend limit is used up",
    Quarantine.ROUTE: "the provider does not know the model; check its name and the provider's base_url",
}


def joined(system: str, call: Call, flight: Call) -> None:
    """Tell that a call shares the answer of one under way."""
    if telemetry.is_attached(events.SHARED):
        told = {"request_id": call.id, "model": call.request.model, "flight": flight.id}
        telemetry.execute(events.SHARED, {}, {"system": system, **told})


def looked_up(system: str, call: Call, *, is_hit: bool) -> None:
    """Tell whether the cache had the answer."""
    event = events.CACHE_HIT if is_hit else events.CACHE_MISS
    if telemetry.is_attached(event):
        telemetry.execute(event, {}, {"system": system, "request_id": call.id, "model": call.request.model})


def budget_event(system: str, event: BudgetEvent) -> None:
    """Tell, once in a period, that most of a budget is spent, or that an attempt found no room in it."""
    status = event.status
    if event.kind == "exceeded":
        logger.warning(
            "the budget of %r has no room for an attempt: %s of %s USD are spent and %s set aside; the next period: %s",
            *(event.whose, status.spent, status.limit, status.held, status.resets_at),
        )
    name = events.BUDGET_EXCEEDED if event.kind == "exceeded" else events.BUDGET_WARNING
    measured = {"limit": status.limit, "spent": status.spent, "held": status.held}
    told = {"system": system, "tenant": event.whose, "per": status.per, "resets_at": status.resets_at}
    telemetry.execute(name, measured, told)


def bookkeeping_failed(system: str, subject: str, error: BaseException) -> None:
    """An end could not be written down: the answer is not lost for it, but somebody must know."""
    logger.error("%s: its end could not be written down: %s", subject, error)
    telemetry.execute(events.LEDGER_FAILED, {}, {"system": system, "subject": subject, "error": str(error)})
