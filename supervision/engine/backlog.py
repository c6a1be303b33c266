"""What an engine cannot attend to yet: events in their order, and calls behind the call that holds their child."""

from __future__ import annotations

from collections import deque

from supervision.engine.calls import may_start
from supervision.engine.roster import Child, Roster
from supervision.engine.vocabulary import Call, Event


class Backlog:
    """The events that wait for several steps to end, and for each child the calls that wait for the one before."""

    def __init__(self, roster: Roster) -> None:
        self.events: deque[Event] = deque()
        self._parked: dict[str, deque[Call]] = {}
        self._roster = roster

    def add(self, event: Event) -> None:
        """Let `event` wait for all that is under way."""
        if isinstance(event, Call):
            self._expect(event)
        self.events.append(event)

    def park(self, child: Child, call: Call) -> None:
        """Let `call` wait for another call that is under way for the same child."""
        self._expect(call)
        self._parked.setdefault(child.id, deque()).append(call)

    def unpark(self, child: Child) -> deque[Call]:
        """The calls whose turn comes, for the one that held the child has its answer."""
        return self._parked.pop(child.id, None) or deque()

    def _expect(self, call: Call) -> None:
        """It waits: what it knows of epochs may be out of date when its turn comes."""
        for child_id in may_start(call):
            self._roster.expected.setdefault(child_id, 0)

    def settle(self) -> None:
        """A decision has been made: where nothing waits any more, nothing is expected."""
        if self._roster.expected and not (self.events or self._parked):
            self._roster.expected.clear()

    def clear(self) -> list[Call]:
        """Give up all that waits, and return the calls among it."""
        calls = [event for event in self.events if isinstance(event, Call)]
        calls += [call for parked in self._parked.values() for call in parked]
        self.events.clear()
        self._parked.clear()
        return calls
