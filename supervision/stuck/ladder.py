"""What is done about a handler that does not come back: told, asked, cancelled, left behind."""

from __future__ import annotations

import inspect
import logging
import threading
from typing import TYPE_CHECKING, Any

from supervision.exits import Crash
from supervision.hosting.hosts import LoopIncarnation, ThreadIncarnation
from supervision.view.stacks import stack_of

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.mailbox import Envelope

logger = logging.getLogger("supervision")


class Ladder:
    """How far matters have come with one life whose handlers have a `max_handle_time`.

    By the system's clock a handler is overdue once it has run for `max_handle_time`, or its message's deadline is
    past. What is done then goes by real time, one step every `kill_grace` seconds while the same handler still runs:

    1. the event `long_turn`, with the stack;
    2. `context.cancelled` is True until the handler ends, and `on_cancel()` is called in a thread of its own: the
       place to close the socket that a blocking handler waits for;
    3. on a loop the task is cancelled; in a thread, where the actor says `interruptible = True`, Stuck is raised;
    4. it is abandoned.
    """

    def __init__(self, life: Incarnation, grace: float) -> None:
        self.life = life
        self._grace = grace
        self._turn = -1
        self._step = 0
        self._next_at = 0.0

    def climb(self, now: float) -> None:
        """Do what is due at `now`, by real time."""
        overdue = overdue_turn(self.life)
        if overdue is None:
            self._turn = -1
            return
        turn, envelope, seconds = overdue
        if turn != self._turn:
            self._turn, self._step, self._next_at = turn, 0, now
        if now < self._next_at:
            return
        self._step, self._next_at = self._step + 1, now + self._grace
        match self._step:
            case 1:
                tell_long_turn(self.life, envelope, seconds)
            case 2:
                self._ask()
            case 3:
                self._cancel(self._why(envelope, seconds))
            case _:
                self.life.abandon(f"stuck: {self._why(envelope, seconds)}")

    def wait_longer(self, seconds: float) -> None:
        """Real time has passed in which the handler may not have run either."""
        self._next_at += seconds

    def _why(self, envelope: Envelope, seconds: float) -> str:
        limit = self.life.max_handle_time
        return f"{type(envelope.message).__name__} for {seconds:.3g} s, with a max_handle_time of {limit:g} s"

    def _ask(self) -> None:
        self.life.context.cancel_turn(self._turn)
        on_cancel = getattr(self.life.actor, "on_cancel", None)
        if on_cancel is not None:
            name = f"supervision-cancel-{self.life.name.path}"
            threading.Thread(target=_call_hook, args=(self.life, on_cancel), name=name, daemon=True).start()

    def _cancel(self, why: str) -> None:
        life = self.life
        if isinstance(life, LoopIncarnation):
            life.cancel_turn(self._turn, Crash("Stuck", why, "\n".join(stack_of(life))))
        elif isinstance(life, ThreadIncarnation) and getattr(life.actor, "interruptible", False):
            life.interrupt(self._turn, why)


def overdue_turn(life: Incarnation) -> tuple[int, Envelope, float] | None:
    """The turn, message and seconds of a handler that runs for too long or for nobody; None if all is well."""
    work = life.work
    turn, envelope, since = work.turn, work.current, work.busy_since
    if envelope is None or work.turn != turn or life.exit is not None:
        return None
    now, limit = life.name.now(), life.max_handle_time
    is_late = envelope.deadline is not None and envelope.deadline < now
    is_long = limit is not None and now - since >= limit
    return (turn, envelope, now - since) if is_late or is_long else None


def tell_long_turn(life: Incarnation, envelope: Envelope, seconds: float, stack: str | None = None) -> None:
    """The event `long_turn`, and a line in the log."""
    stack = "\n".join(stack_of(life)) if stack is None else stack
    message = type(envelope.message).__name__
    logger.warning("%s has been handling %s for %.3g s", life.name.path, message, seconds)
    logger.debug("%s", stack)
    if life.name.system is not None:
        life.name.system.emit(
            "long_turn", life.name.path, epoch=life.epoch, message=message, seconds=seconds, stack=stack
        )


def _call_hook(life: Incarnation, on_cancel: Any) -> None:
    try:
        result = on_cancel()
        if inspect.iscoroutine(result):
            result.close()
            logger.error("%s: on_cancel must be a plain function: the loop may be what hangs", life.name.path)
    except BaseException as error:  # the handler is in trouble already; its helper must add none
        logger.warning("%s: on_cancel failed: %r", life.name.path, error)
