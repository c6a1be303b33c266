"""Messages to come: once after a delay, or again and again; on the system's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pykka

from supervision.errors import SpecError

if TYPE_CHECKING:
    from supervision.clock import Timer
    from supervision.incarnation import Incarnation

BoundTo = Literal["incarnation", "name"]
"""What a timer ends with: the incarnation that arranged it, or its name, when that is closed."""


def tick_after(first: float, period: float, now: float) -> float:
    """The first time after `now` that lies a whole number of periods after `first`.

    Counted from `first` each time, so that no rounding adds up; what was missed is left out, so that none pile up.
    """
    missed = max(0.0, (now - first) // period)
    at = first + (missed + 1) * period
    return at if at > now else first + (missed + 2) * period


class MessageTimer:
    """A message to come, once or with a `period` again and again. `cancel` may be called from any thread."""

    def __init__(
        self,
        own: Incarnation,
        ref: pykka.ActorRef[Any],
        message: Any,
        delay: float,
        period: float | None = None,
        bound_to: BoundTo = "incarnation",
    ) -> None:
        self._name = own.name
        self._books = _books_of(own, bound_to)
        self._ref, self._message, self._period = ref, message, period
        self._is_over = False
        self._timer: Timer | None = None
        self._first = self._name.now() + delay
        if bound_to == "incarnation":
            own.when_over(self, self.cancel)
        elif own.exit is None:  # what has been left behind arranges nothing for its successors
            self._name.when_closed(self, self.cancel)
        else:
            self._is_over = True
        self._arm(self._first)

    def _arm(self, at: float) -> None:
        if not self._is_over:
            timer = self._timer = self._name.clock.call_at(at, self._fire)
            if self._is_over:  # cancelled by another thread in between
                timer.cancel()

    def _fire(self) -> None:
        if self._is_over:
            return
        if self._period is None:
            self._end()
        _tell_if_open(self._ref, self._message)
        if self._period is not None:
            self._arm(tick_after(self._first, self._period, self._name.now()))

    def cancel(self) -> None:
        """Send nothing any more; without effect once it has all been sent."""
        self._end()
        if self._timer is not None:
            self._timer.cancel()

    def _end(self) -> None:
        self._is_over = True
        self._books().pop(self, None)


def _books_of(own: Incarnation, bound_to: BoundTo) -> Any:
    """How to get at what is to be cleaned up with a life, or with its name: these dicts are replaced at their end."""
    if bound_to == "incarnation":
        return lambda: own.at_end
    if bound_to == "name":
        return lambda: own.name.at_close
    raise SpecError(f"bound_to: {bound_to!r} is neither 'incarnation' nor 'name'")


def _tell_if_open(ref: pykka.ActorRef[Any], message: Any) -> None:
    try:
        ref.tell(message)
    except pykka.ActorDeadError:  # counted there as a dead letter; a timer has nobody to tell
        pass
