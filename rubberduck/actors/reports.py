"""What is told to the world about calls and attempts: telemetry, and a log line where something went wrong."""

from __future__ import annotations

import logging
import time
from decimal import Decimal
from typing import Any

from rubberduck import telemetry
from rubberduck.actors.call import Call
from rubberduck.errors import RubberDuckError
from rubberduck.telemetry import names as events
from rubberduck.types import Attempt, Response, Usage

logger = logging.getLogger("rubberduck")


class CallReport:
    """Tells of one call: one start, then one stop or one exception."""

    __slots__ = ("_call", "_started", "_who")

    def __init__(self, system: str, call: Call) -> None:
        self._call = call
        self._started = time.perf_counter_ns()
        self._who = {"system": system, "request_id": call.id, "model": call.request.model}
        telemetry.execute(events.REQUEST_START, {"system_time": time.time_ns()}, {**self._who, "provider": None})

    def success(self, response: Response) -> None:
        told = {
            "provider": response.provider,
            "tokens": response.usage.total_tokens,
            "cost": response.usage.cost,
            "attempts": len(response.attempts),
            "cached": response.cached,
        }
        telemetry.execute(events.REQUEST_STOP, self._duration(), self._who | told)

    def failure(self, error: RubberDuckError) -> None:
        told = {
            "provider": error.provider,
            "error": type(error).__name__,
            "message": str(error),
            "attempts": len(self._call.attempts),
            "spent": error.spent,
        }
        telemetry.execute(events.REQUEST_EXCEPTION, self._duration(), self._who | told)

    def _duration(self) -> dict[str, int]:
        return {"duration": time.perf_counter_ns() - self._started}


def attempt_ended(system: str, call: Call, attempt: Attempt, usage: Usage | None, cost: Decimal | None) -> None:
    """Tell of one settled attempt, and of its cost."""
    who: dict[str, Any] = {"provider": attempt.provider, "model": attempt.model, "system": system}
    told = {"request_id": call.id, "outcome": attempt.outcome}
    telemetry.execute(events.ATTEMPT_STOP, {"duration": int(attempt.duration * 1e9)}, who | told)
    if usage is not None:
        telemetry.execute(events.COST, {"cost": cost, "tokens": usage.total_tokens}, who | {"tenant": call.tenant})


def bookkeeping_failed(system: str, subject: str, error: BaseException) -> None:
    """An end could not be written down: the answer is not lost for it, but somebody must know."""
    logger.error("%s: its end could not be written down: %s", subject, error)
    telemetry.execute(events.LEDGER_FAILED, {}, {"system": system, "subject": subject, "error": str(error)})
