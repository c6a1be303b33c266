"""Who owns one incarnation of a supervisor's child, and brings what becomes of it to the supervisor."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, cast

from supervision.engine import vocabulary as say
from supervision.exits import Exit, Reason, StartFailed
from supervision.view.crash_log import level_of, log_exit, what_follows

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.shell import Shell

DECISION_SECONDS = 0.1
"""How long, in real time, those who wait for an answer of a child that has ended wait for the decision about it."""


class ChildOwner:
    """Hears of one incarnation on whichever thread it lives, and tells the shell on the supervisors' loop."""

    __slots__ = ("_ignored", "drain", "epoch", "id", "incarnation", "shell")

    def __init__(self, shell: Shell, id: str, epoch: int, *, drain: bool) -> None:
        self.shell = shell
        self.id = id
        self.epoch = epoch
        self.drain = drain
        self.incarnation: Incarnation = cast("Incarnation", None)
        self._ignored = False

    def started(self, incarnation: Incarnation, info: Any) -> None:
        self.shell.system.emit("child_started", incarnation.name.path, epoch=incarnation.epoch)
        self.shell.system.supervisors.post(self.shell.handle, say.ChildStarted(self.id, self.epoch, info))

    def ignored(self, incarnation: Incarnation) -> None:
        self._ignored = True

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        system = self.shell.system
        if not system.supervisors.post(self._ended, exit):
            log_exit(exit, "its system has been stopped")
            incarnation.release()
        elif incarnation.work.is_awaited and not (workers := system.workers).hosts_everything:
            # Something, such as a log handler, may hold the supervisors up.
            workers.post(workers.loop.call_later, DECISION_SECONDS, _release, weakref.ref(incarnation))

    def zombie_ended(self, incarnation: Incarnation) -> None:
        self.shell.system.zombie_ended(incarnation)

    def _ended(self, exit: Exit) -> None:
        """The asker of a crash hears of it after the decision, so that a retry meets the new state."""
        try:
            self._settle(exit)
        except Exception as error:  # whatever it is: an end that the engine never heard of would never be acted on
            self.shell.crash(error)
        finally:
            self.incarnation.release()

    def _settle(self, exit: Exit) -> None:
        shell = self.shell
        shell.forget(self)
        level = level_of(exit, shell, self.id)
        try:
            why = shell.system.child_exited(self.incarnation, exit)
            if why is not None:
                shell.give_up(self.id, exit.reason, why)
            shell.handle(self._event(exit.reason))
        finally:
            log_exit(exit, what_follows(shell, self.id, self.epoch), level=level)

    def _event(self, reason: Reason) -> say.Event:
        if self._ignored:
            return say.ChildIgnored(self.id, self.epoch)
        if isinstance(reason, StartFailed):
            return say.ChildStartFailed(self.id, self.epoch, reason.cause)
        return say.ChildExited(self.id, self.epoch, reason, self.incarnation.incident)


def _release(life: weakref.ref[Incarnation]) -> None:
    # Weak: the end of a life is mostly settled at once, and nothing is to keep it until then.
    if (incarnation := life()) is not None:
        incarnation.release()
