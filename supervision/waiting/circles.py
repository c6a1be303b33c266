"""The circles of waiting that a supervisor is in: with its child that starts, and with a child that ends itself.

A supervisor asks no one, so `waits` would not see them. They would end all the same, when a time limit of the child's
spec is over; with these edges the child hears of its mistake at once, as a DeadlockError.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.future import AskFuture
    from supervision.incarnation import Incarnation
    from supervision.name import Name
    from supervision.shell import Shell


def note_start(own: Incarnation, shell: Shell) -> None:
    """A starting supervisor takes no calls before its children are up: until then it waits for the one that starts."""
    edge: Any = (WhileStarting(own), ChildToStart(shell))
    own.waiting.append(edge)


class WhileStarting:
    """In the place of a turn: this wait is over when the start is, not when a handler is."""

    is_over = False

    def __init__(self, incarnation: Incarnation) -> None:
        self.incarnation = incarnation


class ChildToStart:
    """In the place of a future: the debtor is whichever child of `shell` is starting at the moment."""

    _waiters = ((None, None, None),)  # as of a thread that blocks: there is no doubt that it waits

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    @property
    def done(self) -> bool:
        started = self._shell.started_all
        return started is None or started.done()

    @property
    def debtor(self) -> Name | None:
        starting = (life.incarnation for life in list(self._shell.live.values()))
        return next((each.name for each in starting if each.state == "starting"), None)


def reply_follows_end_of(path: str, future: AskFuture[Any]) -> None:
    """The answer comes after the end of what lives at `path`: who waits for it there, or below, waits for itself."""
    turn = waits.current.get()
    if turn is not None and not turn.is_over and f"{turn.incarnation.name.path}/".startswith(f"{path}/"):
        future.debtor = turn.incarnation.name
