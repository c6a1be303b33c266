"""The event loops that schedulers run: asyncio's own, with a selector that is not asked more often than is of use."""

from __future__ import annotations

import asyncio
import selectors
import sys
from time import monotonic
from typing import Final


class BusySelector(selectors.DefaultSelector):
    """Looks at the sockets no more than every tenth of a millisecond while callbacks wait to be run.

    asyncio asks the system for them before each round of callbacks, and two actors that talk to each other take two
    rounds for one reply: looking each time would be a tenth of the cost of an ask.
    """

    INTERVAL: Final = 0.0001

    def __init__(self) -> None:
        super().__init__()
        self._look_again_at = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0 and monotonic() < self._look_again_at:
            return []
        ready = super().select(timeout)
        self._look_again_at = monotonic() + self.INTERVAL
        return ready


def new_loop() -> asyncio.AbstractEventLoop:
    """An event loop of the platform's usual kind."""
    return asyncio.new_event_loop() if sys.platform == "win32" else asyncio.SelectorEventLoop(BusySelector())
