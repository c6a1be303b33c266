"""How many restarts a supervisor tolerates: a sliding window over the times they were counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable


class Intensity:
    """At most `max_restarts` in any `max_seconds`; one more is exhausted and not to be performed.

    An entry exactly `max_seconds` old still counts, as in OTP (lib/stdlib/src/supervisor.erl, `in_period`).
    """

    __slots__ = ("_entries", "_incidents", "max_restarts", "max_seconds")

    def __init__(self, max_restarts: int, max_seconds: float) -> None:
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
        self._entries: deque[float] = deque()
        self._incidents: dict[Hashable, float] = {}

    def tolerates(self, now: float, incident: Hashable = None) -> bool:
        """As `allow`, but of the restarts that share an `incident` only the first in the window counts."""
        oldest = now - self.max_seconds
        self._incidents = {known: at for known, at in self._incidents.items() if at >= oldest}
        if incident in self._incidents:
            return True
        if not self.allow(now):
            return False
        if incident is not None:
            self._incidents[incident] = now
        return True

    def allow(self, now: float) -> bool:
        """Count one restart at `now`; False, and nothing counted, if that would be one too many."""
        if self.used(now) >= self.max_restarts:
            return False
        self._entries.append(now)
        return True

    def used(self, now: float) -> int:
        """How many restarts the window holds at `now`."""
        oldest = now - self.max_seconds
        while self._entries and self._entries[0] < oldest:
            self._entries.popleft()
        return len(self._entries)

    def look(self, now: float) -> int:
        """As `used`, but nothing is forgotten over it, so that any thread may look."""
        oldest = now - self.max_seconds
        return sum(at >= oldest for at in self._entries.copy())

    def clear(self) -> None:
        """Forget every restart: a pause is over."""
        self._entries.clear()

    def resize(self, max_restarts: int, max_seconds: float) -> None:
        """Apply other bounds to the restarts already counted."""
        self.max_restarts = max_restarts
        self.max_seconds = max_seconds
