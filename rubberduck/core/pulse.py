"""Whether an answer makes progress: its first output, its next one, and how much of it comes in a while.

    pulse.heard(tokens, now)    a chunk has come, with about so much content; 0 for one that says nothing
    pulse.asks(now)             its provider is waited for again
    pulse.due(now)              when it will be late, if nothing more comes

Only content is progress: a ping, a comment or half an event shows that a line is open, not that anybody answers. And
only time in which the provider is waited for counts against it: while our own reader is slow, nobody asks it for more.
"""

from __future__ import annotations

from collections import deque
from math import inf

RATE_WINDOW = 20.0
"""Seconds over which the least rate is measured."""
CELL = 1.0
"""Seconds of output that are remembered as one, and counted until wholly out of the window."""
TIME_FOR_USAGE = 3.0
"""The least that is waited after a finish reason, in seconds: for the usage, which is not worth the answer."""

A_MOMENT = 0.05


class Pulse:
    """The progress of one attempt, in seconds from `began` on; None is no limit.

    `whole` is for the attempt, `first_token` until its first output, `idle` between one output and the next, and
    `min_rate` in tokens per second over any `RATE_WINDOW` seconds after the first.
    """

    __slots__ = (
        "_asked",
        "_begin_by",
        "_cells",
        "_end_by",
        "_first",
        "_idle",
        "_is_asking",
        "_min_rate",
        "_spoke",
        "_waited",
    )

    def __init__(
        self,
        began: float,
        *,
        whole: float | None = None,
        first_token: float | None = None,
        idle: float | None = None,
        min_rate: float | None = None,
    ) -> None:
        self._end_by = inf if whole is None else began + whole
        self._begin_by = inf if first_token is None else began + first_token
        self._idle = inf if idle is None else idle
        self._min_rate = min_rate or 0.0
        # Here time is what the provider was waited for: `_waited` in all, `_first` and `_spoke` when something came.
        self._asked, self._is_asking = began, True
        self._waited = self._spoke = 0.0
        self._first: float | None = None
        self._cells: deque[list[float]] = deque()

    def heard(self, tokens: float, now: float) -> None:
        """A chunk has come, worth about `tokens`; with 0 the provider is waited for on."""
        if self._is_asking:
            self._waited += max(0.0, now - self._asked)
            self._is_asking = False
        if tokens <= 0:
            return
        self._spoke = self._waited
        if self._first is None:
            self._first = self._waited
        if self._min_rate:
            self._note(tokens)

    def asks(self, now: float) -> None:
        """From now on the provider is waited for."""
        self._asked, self._is_asking = now, True

    def finished(self) -> None:
        """The provider has said why it ends: no more output is to come, at most a word about usage."""
        self._spoke = self._waited
        self._first = self._waited if self._first is None else self._first
        self._idle, self._min_rate = max(self._idle, TIME_FOR_USAGE), 0.0

    def forgive(self, seconds: float) -> None:
        """For so long we could not have heard anything: it does not count against the provider."""
        self._begin_by += seconds
        self._asked += seconds

    @property
    def has_begun(self) -> bool:
        """Whether any output has come."""
        return self._first is not None

    def due(self, now: float) -> float:
        """When it will be late if nothing more comes; while nobody waits for it, the earliest time that this could be.

        It never becomes earlier again but with the first output.
        """
        if self._first is None:
            return min(self._begin_by, self._end_by)
        left = min(self._spoke + self._idle, self._slow_at()) - self._waited
        return min(self._end_by, self._asked + left if self._is_asking else now + max(left, A_MOMENT))

    def why(self, now: float) -> str:
        """What it is late with."""
        if now >= self._end_by:
            return "did not finish in time"
        if self._first is None:
            return "did not begin in time"
        if self._spoke + self._idle <= self._slow_at():
            return f"said nothing more for {self._idle:g} s"
        return f"wrote less than {self._min_rate:g} tokens a second for {RATE_WINDOW:g} s"

    # -- rate --------------------------------------------------------------------------------------

    def _note(self, tokens: float) -> None:
        cells, now = self._cells, self._waited
        if cells and now - (last := cells[-1])[0] < CELL:
            last[1] = now
            last[2] += tokens
            return
        cells.append([now, now, tokens])
        while cells[0][1] <= now - RATE_WINDOW - CELL:
            cells.popleft()

    def _slow_at(self) -> float:
        """When too little will have come in the window that ends then, if nothing more does."""
        if not self._min_rate or self._first is None:
            return inf
        missing = self._min_rate * RATE_WINDOW
        for _, last, tokens in reversed(self._cells):
            missing -= tokens
            if missing <= 0:
                return last + RATE_WINDOW + CELL
        return self._first + RATE_WINDOW + CELL
