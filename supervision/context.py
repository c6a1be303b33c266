"""What an actor may know about its own life: its `context`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from supervision.exits import Reason


@dataclass(slots=True)
class Context:
    """What an actor may know about its own life. `attempt` counts the restarts in a row."""

    name: str
    epoch: int
    clock: Any
    restart_reason: Reason | None = None
    attempt: int = 0
    snapshot: Any = None
    is_ending: bool = False
    system: Any = None
    turn: Callable[[], int] | None = None
    _cancelled_turn: int = -2

    @property
    def cancelled(self) -> bool:
        """True where whatever runs should come to its end: this life is over, or the handler takes too long."""
        return self.is_ending or (self.turn is not None and self.turn() == self._cancelled_turn)

    @cancelled.setter
    def cancelled(self, is_so: bool) -> None:
        self.is_ending = is_so

    def cancel_turn(self, turn: int) -> None:
        """Have `cancelled` be True as long as this turn goes on."""
        self._cancelled_turn = turn
