"""A coroutine as a supervised child: it has a ref, and can be monitored, linked, killed and restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from supervision.actor import Actor
from supervision.dynamic import DynamicShell, DynamicSupervisor
from supervision.exits import Exit, Killed, Normal, Reason, Shutdown
from supervision.future import AskFuture
from supervision.hosting.hosts import LoopIncarnation
from supervision.kinds import SupervisorIncarnation
from supervision.name import ActorRef, Name

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.shell import Shell
    from supervision.system import System

TaskFunction = Callable[..., Coroutine[Any, Any, Any]]


class TaskIncarnation(LoopIncarnation):
    """A life that handles no messages: its coroutine is all of it, and an order to stop cancels that."""

    kind = "task"
    _ordered: Reason | None = None

    async def _receive(self) -> Reason:
        try:
            await self.actor.work()
        except asyncio.CancelledError:
            if self._ordered is None or self.is_killed:
                raise
        return self._ordered or Normal()

    def order_stop(self, reason: Reason, *, drain: bool = False, unless: Callable[[], bool] | None = None) -> None:
        if unless is not None and unless():
            return
        self._ordered = self._ordered or reason
        self.context.cancelled = True
        if not self.scheduler.post(self._cancel_work):
            self.abandon("its scheduler has ended")

    def _cancel_work(self) -> None:
        self._cancel_task(self._ordered or Killed())


class TaskActor(Actor):
    """Runs one coroutine function and ends with it: Normal if it returns, a crash if it raises.

    Asks: whomever the function asks. Restart: calls the function anew.
    """

    _supervision_host = TaskIncarnation

    def __init__(self, function: TaskFunction, *arguments: Any) -> None:
        super().__init__()
        self._function, self._arguments = function, arguments

    async def work(self) -> None:
        await self._function(*self._arguments)


class StartedTasks(DynamicSupervisor):
    """The supervisor of the tasks that a TaskSupervisor has started; `on_gone` is called as each is forgotten.

    Asks: no one. Restart: never, its end is the end of its TaskSupervisor.
    """

    def __init__(self, on_gone: Callable[[], object], **options: Any) -> None:
        super().__init__(**options)
        self._on_gone = on_gone

    def _make_shell(self, system: System) -> Shell:
        shell = DynamicShell(self._incarnation, system, self._options, None)
        shell.on_gone = self._on_gone
        return shell


class StartedTasksOwner:
    """Ties the life of a StartedTasks to that of its TaskSupervisor, `own`: where one ends so does the other."""

    def __init__(self, own: Incarnation, on_gone: Callable[[], object], options: dict[str, Any]) -> None:
        system = own.name.system
        assert system is not None, "tasks are started in a System"
        self._own, self._system = own, system
        self._name = system.names.open(f"{own.name.path}/started", StartedTasks)
        self.over: AskFuture[Exit] = AskFuture()
        self.incarnation = SupervisorIncarnation(
            self._name, lambda: StartedTasks(on_gone, **options), self, scheduler=system.supervisors
        )
        self.incarnation.begin()

    @property
    def ref(self) -> ActorRef:
        return self._name.ref

    def started(self, incarnation: Incarnation, info: Any) -> None: ...

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        if self._name.incarnation is None:  # else the next TaskSupervisor has it already
            self._system.names.close(self._name, exit.reason, forgotten=True)
        self._system.child_exited(incarnation, exit)
        self._own.order_stop(exit.reason)
        incarnation.release()
        self.over.settle(exit)

    def zombie_ended(self, incarnation: Incarnation) -> None: ...

    async def stop(self) -> None:
        """Have all started tasks cancelled, and wait until they have ended or been left behind."""
        self.incarnation.order_stop(Shutdown())
        await self.over


class _Nobody:
    """The owner of a record that nothing follows from."""

    def started(self, incarnation: Incarnation, info: Any) -> None: ...

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None: ...

    def zombie_ended(self, incarnation: Incarnation) -> None: ...


def leave_behind(own: LoopIncarnation, task: asyncio.Task[Any], called: str) -> None:
    """List a task that goes on in spite of its cancellation among what could not be stopped, until it ends."""
    system = own.name.system
    if system is None or task.done():
        return
    actor_class: Any = TaskActor
    name = Name(f"{own.name.path}/{called}", actor_class, clock=own.name.clock, system=system)
    left = TaskIncarnation(name, actor_class, _Nobody(), scheduler=own.scheduler)
    left.has_code_running = True
    left.abandon("ignored its cancellation")
    assert left.exit is not None
    system.child_exited(left, left.exit)

    def ended(_: asyncio.Task[Any]) -> None:
        left.has_code_running = False
        system.zombie_ended(left)

    task.add_done_callback(ended)
