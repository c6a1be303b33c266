"""Coroutines as supervised, temporary work: for calls in flight, which are many and short.

A task has no mailbox and cannot be asked anything. It ends by itself, or when its supervisor ends; the one who
started it through `run` is answered in any case.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from supervision.actor import Actor
from supervision.child import INFINITY, ChildSpec, Kind
from supervision.clock import TimeLimit
from supervision.engine_types import MaxChildren
from supervision.errors import ActorDeadError
from supervision.exits import Crash, Killed, Reason, Shutdown
from supervision.future import AskFuture
from supervision.message import Reply
from supervision.name import ActorRef

logger = logging.getLogger("supervision")

TaskFunction = Callable[..., Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class RunTask:
    """Run `function(*arguments)` as a task; the reply is its result, or its exception.

    With `takes_reply` the function's first argument is the Reply, which it may answer before its end.
    When nobody waits for the reply any more the task is cancelled.
    """

    function: TaskFunction
    arguments: tuple[Any, ...] = ()
    takes_reply: bool = False


@dataclass(frozen=True, slots=True)
class CountTasks:
    """How many tasks are running? The reply is an int."""


class TasksHandle(ActorRef):
    """A ref to a TaskSupervisor, with its calls. They may be made from any thread."""

    def run(self, function: TaskFunction, *arguments: Any) -> AskFuture[Any]:
        """Run `function(*arguments)` as a task. A future of its result; MaxChildren if there is no room.

        If the task supervisor ends before, the future fails with the error that its `lost` made.
        """
        return cast("AskFuture[Any]", self.ask(RunTask(function, arguments), block=False))

    def count(self) -> AskFuture[int]:
        """A future of the number of tasks in flight."""
        return cast("AskFuture[int]", self.ask(CountTasks(), block=False))


class TaskSupervisor(Actor):
    """Runs coroutines, each as a task of its own on this actor's loop.

    `max_children` bounds them; `shutdown` is how many seconds a task gets to end after its cancellation;
    `lost(reason)` makes the error for those whose task ended because this supervisor did.
    Asks: no one. Restart: the tasks of the former incarnation have been cancelled and answered.
    """

    ref_class = TasksHandle

    def __init__(
        self,
        *,
        max_children: int | None = None,
        shutdown: float = 5.0,
        lost: Callable[[Reason], Exception] | None = None,
    ) -> None:
        super().__init__()
        self._max_children = max_children
        self._shutdown = shutdown
        self._lost = lost
        self._tasks: dict[asyncio.Task[Any], Reply] = {}
        self._end: Reason | None = None

    def on_start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._incarnation.when_over("tasks", self._abandon_tasks)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, CountTasks):
            return len(self._tasks)
        if not isinstance(message, RunTask):
            raise TypeError(f"a TaskSupervisor understands RunTask and CountTasks, not {type(message).__name__}")
        if self._max_children is not None and len(self._tasks) >= self._max_children:
            return MaxChildren()
        reply = self.owe()
        # A context of its own: the task is nobody's handler.
        task = self._loop.create_task(_guarded(message, reply), context=contextvars.Context())
        self._tasks[task] = reply
        reply.on_unwanted(lambda: self._cancel(task))
        task.add_done_callback(self._done)
        return reply

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
            self._loop.call_soon_threadsafe(task.cancel)

    def _done(self, task: asyncio.Task[Any]) -> None:
        reply = self._tasks.pop(task, None)
        if reply is None:
            return
        value, error = (None, asyncio.CancelledError("the task was cancelled")) if task.cancelled() else task.result()
        if reply.is_used:
            self._log_late(error)
        elif task.cancelled() and self._end is not None:
            reply.fail(self._error_of_lost(self._end))
        elif error is None:
            reply.set(value)
        else:
            reply.fail(self._for_asker(error))

    def _for_asker(self, error: BaseException) -> Exception:
        """An asker who was handed a CancelledError or a SystemExit would end in the task's place."""
        return error if isinstance(error, Exception) else ActorDeadError(self._path, Crash.of(error))

    def _log_late(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, asyncio.CancelledError):
            logger.error("%s: a task failed after its answer: %r", self._path, error, exc_info=error)

    @property
    def _path(self) -> str:
        return self._incarnation.name.path

    async def on_stop(self) -> None:
        """Cancel what still runs and give it `shutdown` seconds to end."""
        self._end = Shutdown()
        running = list(self._tasks)
        for task in running:
            task.cancel()
        if running:
            try:
                async with TimeLimit(self.context.clock, self.context.clock.now() + self._shutdown):
                    await asyncio.wait(running)
            except TimeoutError:
                left = [task.get_name() for task in running if not task.done()]
                logger.warning("%s: %d tasks ignored their cancellation: %s", self._path, len(left), left[:10])
        self._answer_lost(self._end)

    def _abandon_tasks(self) -> None:
        """The actor has ended, by whatever means and on whichever thread: so do its tasks."""
        for task in list(self._tasks):
            self._cancel(task)
        exit = self._incarnation.exit
        self._answer_lost(Killed() if exit is None else exit.reason)

    def _answer_lost(self, reason: Reason) -> None:
        tasks, self._tasks = self._tasks, {}
        for reply in [reply for reply in tasks.values() if not reply.is_used]:
            reply.fail(self._error_of_lost(reason))

    def _error_of_lost(self, reason: Reason) -> Exception:
        return self._lost(reason) if self._lost is not None else ActorDeadError(self._path, reason)


async def _guarded(message: RunTask, reply: Reply) -> tuple[Any, BaseException | None]:
    """The task's body: an exception becomes its result, so that none ever reaches the loop."""
    try:
        if message.takes_reply:
            return await message.function(reply, *message.arguments), None
        return await message.function(*message.arguments), None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # handed to the asker, whatever it is
        return None, error


def tasks(id: str, **options: Any) -> ChildSpec:
    """The spec of a TaskSupervisor."""
    return ChildSpec(id, TaskSupervisor, kwargs=options, kind=Kind.SUPERVISOR, shutdown=INFINITY)
