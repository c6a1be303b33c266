"""The future of a task that an actor has run, and what becomes of a failure that the actor does not take out of it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, TypeVar

from supervision.errors import ActorDeadError
from supervision.exits import Crash, Reason, is_orderly
from supervision.future import AskFuture
from supervision.links import Exited
from supervision.monitors import Down

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import ActorRef, Name

T = TypeVar("T")

_tokens = itertools.count(1)


class TaskFuture(AskFuture[T]):
    """The result of a task, and a bond between it and the actor that ran it.

    A failure is told once: to who takes it out of the future, by `await` or `get()`, before the handler at hand is
    over; else to the actor, as a `Down` with this `token`, or by the link. One that is taken later is taken back
    from the mailbox, should it still wait there.
    """

    def __init__(self, debtor: Name | None = None) -> None:
        super().__init__(debtor)
        self.token = 0
        self._caller: Incarnation | None = None
        self._is_linked = False
        self._is_heard = False
        self._notice: Down | Exited | None = None

    def bind(self, caller: Incarnation, *, is_linked: bool) -> None:
        """From now on `caller` hears of a failure; if linked, the task is cancelled at the caller's end."""
        self.token = -next(_tokens)  # those of monitors are positive
        self._caller, self._is_linked = caller, is_linked
        if is_linked:
            caller.when_over(("task", self.token), self.abandon)
        self.on_done(self._settled)

    # Who waits for it, or has looked, hears of its failure.

    def _enlist(self, entry: Any) -> bool:
        is_waiting = super()._enlist(entry)
        self._is_heard = self._is_heard or is_waiting
        return is_waiting

    def _forget(self, entry: Any) -> bool:
        was_last = super()._forget(entry)
        self._is_heard = self._is_heard and not was_last
        return was_last

    def _outcome(self) -> Any:
        if self._error is not None:
            self._is_heard = True
            self._take_back()
        return super()._outcome()

    def _settled(self) -> None:
        caller, error = self._caller, self._error
        assert caller is not None
        caller.at_end.pop(("task", self.token), None)
        if error is None or self.abandoned or self.debtor is None:
            return
        ref = self.debtor.ref
        reason = _reason_of(error, ref)
        if not self._is_linked:
            self._tell(caller, Down(self.token, ref, reason))
        elif getattr(caller.actor, "trap_exits", False):
            self._tell(caller, Exited(ref, reason))
        elif not is_orderly(reason):
            linked_exit = Crash("LinkedExit", f"a task of {ref.path} failed: {reason}")
            caller.order_stop(linked_exit, unless=lambda: self._is_heard)

    def _tell(self, caller: Incarnation, notice: Down | Exited) -> None:
        self._notice = notice
        caller.tell(notice, lambda: not self._is_heard)

    def _take_back(self) -> None:
        notice, self._notice = self._notice, None
        if notice is not None and self._caller is not None:
            self._caller.name.mailbox.remove(lambda message: message is notice)


def _reason_of(error: BaseException, tasks: ActorRef) -> Reason:
    """Why the task ended; where its supervisor says so, in its words."""
    if isinstance(error, ActorDeadError) and error.path == tasks.path and error.reason is not None:
        return error.reason
    return Crash.of(error)
