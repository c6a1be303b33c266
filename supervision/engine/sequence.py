"""Several children stopped, then several started, strictly one after another.

The supervisor's own start, the restart of a batch and the supervisor's end are such sequences. Each step waits until
the child has been started, or is gone; meanwhile other events wait in the engine, all but a request to shut down.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from supervision.engine.roster import Child, Phase, Purpose, Roster


class Sequence:
    """Stops `to_stop` in reverse, then starts `to_start`, or what is left of `to_stop`, in order."""

    __slots__ = ("_batch", "_roster", "_to_start", "_to_stop", "awaited", "purpose")

    def __init__(
        self, roster: Roster, purpose: Purpose, *, to_stop: Iterable[Child] = (), to_start: Iterable[Child] = ()
    ) -> None:
        self._roster = roster
        self.purpose = purpose
        self._to_stop = list(to_stop)
        self._batch = tuple(self._to_stop) if purpose is Purpose.BATCH else ()
        self._to_start = deque(to_start)
        self.awaited: Child | None = None

    def advance(self) -> bool:
        """Do what can be done at once and begin the next step; False when there is none left."""
        self.awaited = self._stop_next() or self._start_next()
        return self.awaited is not None

    def _stop_next(self) -> Child | None:
        while self._to_stop:
            child = self._to_stop.pop()
            if child.phase in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
                self._roster.stop(child, self.purpose)
                return child
            self._settle(child)
        self._to_start.extend(child for child in self._batch if child.id in self._roster.children)
        self._batch = ()
        return None

    def _settle(self, child: Child) -> None:
        """A child with nothing to stop: stopped, waiting for a retry, or just gone by itself."""
        if self.purpose is Purpose.BATCH:
            self._roster.stand_by(child)
        elif child.id in self._roster.children:
            self._roster.retire(child)

    def _start_next(self) -> Child | None:
        if not self._to_start:
            return None
        child = self._to_start.popleft()
        self._roster.start(child, self.purpose)
        return child


class ParallelStop:
    """Stops all children of a dynamic supervisor at once, with one timer for each distinct timeout."""

    purpose = Purpose.SHUTDOWN

    def __init__(self, roster: Roster) -> None:
        self._roster = roster
        self.by_timeout: dict[float, list[Child]] = {}
        for child in list(roster.children.values()):
            self._stop(child)

    def _stop(self, child: Child) -> None:
        if child.phase not in (Phase.STARTING, Phase.RUNNING, Phase.STOPPING):
            self._roster.retire(child)
            return
        had_own_timer = child.phase is Phase.STOPPING
        self._roster.stop(child, self.purpose, timed=False)
        if not had_own_timer and isinstance(child.spec.shutdown, float):
            self.by_timeout.setdefault(child.spec.shutdown, []).append(child)

    def late(self, timeout: float) -> list[Child]:
        """The children that had `timeout` seconds and are still there."""
        return [child for child in self.by_timeout.pop(timeout, []) if child.phase is Phase.STOPPING]
