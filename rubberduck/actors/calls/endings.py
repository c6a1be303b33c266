"""How a call ends for its caller: with the answer, or with one error of our tree that says what it may have cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import supervision as sup
from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import Call
from rubberduck.actors.calls.trace import Trace
from rubberduck.core.request_queue import Rejected
from rubberduck.errors import (
    CallInterrupted,
    Cancelled,
    CircuitOpen,
    DeadlineExceeded,
    NoAvailableProvider,
    QueueFull,
    RubberDuckError,
)

logger = logging.getLogger("rubberduck")


def succeed(call: Call, reply: sup.Reply, answer: Any) -> None:
    """Give the caller the whole answer, or what was read from it."""
    if call.pipe is not None:
        call.pipe.end(answer)
    elif not reply.is_used:
        reply.set(answer)


def explain(call: Call, error: RubberDuckError, now: float) -> Trace:
    """Write into the error all that is known about the call."""
    error.attempts = tuple(call.attempts)
    error.request_id = error.request_id or call.id
    error.trace = trace = call.trace(now, type(error).__name__)
    if not isinstance(error, CallInterrupted):  # which knows less than the attempts that ended
        error.spent = call.spent
    return trace


def fail(call: Call, reply: sup.Reply, error: RubberDuckError) -> None:
    """Tell the caller."""
    if call.pipe is not None:
        call.pipe.fail(error)
    elif not reply.is_used:
        reply.fail(error)


def of_error(call: Call, error: Exception, now: float) -> RubberDuckError:
    """The error of our tree for whatever ended the course of a call."""
    if isinstance(error, RubberDuckError):
        return error
    if isinstance(error, TimeoutError):
        waited = now - call.accepted_at
        return DeadlineExceeded(f"no answer within the {waited:.1f} s that the call had", model=call.request.model)
    logger.error("a bug in the course of call %s", call.id, exc_info=error)
    return CallInterrupted(f"RubberDuck failed in its own code: {type(error).__name__}: {error}", spent=None)


def of_plan(error: BaseException, routes: Sequence[Route]) -> BaseException:
    """The error that a plan ended with; where there was but one route, by the name of what stood in its way."""
    if type(error) is not NoAvailableProvider or len(routes) != 1:
        return error
    reason = error.reasons.get(routes[0].name, "")
    if not reason.startswith("circuit "):
        return error
    route = routes[0]
    return CircuitOpen(
        f"the circuit breaker of {route} is {reason.removeprefix('circuit ')}",
        reasons=error.reasons,
        retry_after=error.retry_after,
        provider=route.provider,
        model=route.model,
    )


def of_cancellation(call: Call, reply: sup.Reply) -> RubberDuckError:
    """The error for a call whose task was cancelled: by its caller, or because RubberDuck stops."""
    when = "after it may have been sent" if call.attempts else "before it was sent"
    if call.pipe.is_closed if call.pipe is not None else not (reply.is_used or reply.is_wanted):
        return Cancelled(f"the call was given up by its caller {when}", spent=call.spent)
    return CallInterrupted(f"the call was interrupted {when}", spent=call.spent)


def of_loss(call: Call, reason: sup.Exit | object, *, was_sent: bool) -> RubberDuckError:
    """The error for a call whose task was left behind, as when somebody's code has blocked the loop."""
    when = "after it may have been sent" if was_sent or call.attempts else "before it was sent"
    spent = None if was_sent else call.spent
    return CallInterrupted(f"the call was lost {when}, for its loop does not come back ({reason})", spent=spent)


def of_refusal(answer: Rejected) -> RubberDuckError:
    """The error for a call that the queue did not take."""
    if answer.reason == "expired":
        return DeadlineExceeded("the call's time was over before its turn came")
    if answer.reason == "shutdown":
        return CallInterrupted("the queue is closed and takes no further calls")
    return QueueFull(
        f"too many calls wait already ({answer.reason})", reason=answer.reason, retry_after=answer.retry_after
    )
