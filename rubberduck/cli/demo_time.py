"""The two kinds of time that the demonstration can run on."""

from __future__ import annotations

import functools
import time
from contextlib import suppress
from typing import Any

import pykka

import supervision as sup

LONGEST_WAIT_S = 60.0
_STEP_S = 0.05
_SETTLE_S = 0.004
"""Real seconds in which the actors do what a step of virtual time made due."""
_BUSY_S = 0.5
"""Real seconds that a step waits for an actor that is busy, as with a slow disk; it may wait for time to pass, too."""


class RealTime:
    """Seconds as they are."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass."""
        time.sleep(seconds)

    def govern(self, mock: Any) -> None:
        """A provider's pretended delays are real ones already."""

    def heed(self, actor: Any, question: Any) -> None:
        """Real time waits for nobody."""

    def result(self, future: Any) -> Any:
        """Wait for an answer. Raises what was raised, or pykka.Timeout."""
        return future.get(timeout=LONGEST_WAIT_S)


class VirtualTime:
    """Seconds that pass when nobody has anything to do."""

    def __init__(self) -> None:
        from supervision.testing import ManualClock  # the test kit, which nothing else here needs

        self.clock = ManualClock()
        self._begun = self.clock.now()
        self._heeded: list[tuple[Any, Any]] = []

    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return float(self.clock.now() - self._begun)

    def wait(self, seconds: float) -> None:
        """Let so many virtual seconds pass, a step at a time."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self._step()
            time.sleep(_SETTLE_S)

    def govern(self, mock: Any) -> None:
        """Have a provider's pretended delays pass in this time."""
        mock.now = self.clock.now
        mock.sleep = functools.partial(sup.sleep, self.clock)

    def heed(self, actor: Any, question: Any) -> None:
        """Let no time pass while this actor has something to do: until it has answered this question."""
        self._heeded.append((actor, question))

    def _step(self) -> None:
        for actor, question in self._heeded:
            with suppress(Exception):  # whatever it says, or what was done to it: it has nothing more to do
                actor.ask(question, block=False).get(timeout=_BUSY_S)
        self.clock.advance(_STEP_S)

    def result(self, future: Any) -> Any:
        """Let time pass until there is an answer. Raises what was raised, or pykka.Timeout."""
        end = self.clock.now() + LONGEST_WAIT_S
        while True:
            try:
                return future.get(timeout=_SETTLE_S)
            except pykka.Timeout:
                if self.clock.now() > end:
                    raise
                self._step()
