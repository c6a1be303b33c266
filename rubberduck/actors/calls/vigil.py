"""Watches over an answer as it comes, and ends the wait for it when it is late: one timer for all of its limits."""

from __future__ import annotations

from math import inf

import supervision as sup
from rubberduck.core.pulse import Pulse

STALL = 0.5
"""Seconds by which our own loop may be late before a limit that ran out meanwhile is its fault, not the provider's."""


class Vigil(sup.Interruption):
    """`async with Vigil(clock, pulse):` ends the block with TimeoutError once the pulse is late.

    The timer is not moved at each sign of life, but looks again when it fires: a chunk costs no timer. If it fires much
    later than it was due, nothing could be heard meanwhile either: the provider gets that time once more, and if it
    stays silent `was_stalled` says that this proves nothing. The loop's own time tells, for a clock may be a test's.
    """

    __slots__ = ("_armed_for", "_pulse", "was_stalled")

    def __init__(self, clock: sup.Clock, pulse: Pulse) -> None:
        super().__init__(clock)
        self._pulse = pulse
        self._armed_for = inf
        self.was_stalled = False

    def _arm(self) -> None:
        self.look()

    def look(self) -> None:
        """Arrange the next look, or end the block. To be called when it may have become late earlier than before."""
        if self._task is None or self._is_over:
            return
        now = self._clock.now()
        due = self._pulse.due(now)
        if due <= now:
            self._interrupt()
        elif due < inf:
            self._armed_for = self._loop.time() + (due - now)
            self._call_at(due, self._look_again)

    def _look_again(self) -> None:
        late = self._loop.time() - self._armed_for
        if late > STALL:
            self._pulse.forgive(2 * late)  # what has passed unheard, and as much to hear what waits in the sockets
            self.was_stalled = True
        self.look()

    @property
    def why(self) -> str:
        """What the answer is late with."""
        return self._pulse.why(self._clock.now())
