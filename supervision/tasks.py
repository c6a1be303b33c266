"""Coroutines as supervised work: for calls in flight, which are many and short, and for work in the background.

A task that is run has no mailbox and cannot be asked anything: who ran it is answered in any case, and it ends by
itself, or when nobody waits for it any more, or with its supervisor. A task that is started has a ref, and is
restarted if that was asked for. Rules: elixir-lang/elixir lib/elixir/lib/task/supervisor.ex.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable
from typing import Any, cast

from supervision.actor import Actor
from supervision.clock import TimeLimit
from supervision.dynamic import TerminateRef
from supervision.engine import vocabulary as say
from supervision.engine.vocabulary import MaxChildren
from supervision.errors import ActorDeadError, SpecError
from supervision.exits import Crash, Killed, Reason, Shutdown
from supervision.hosting.hosts import LoopIncarnation
from supervision.message import Reply
from supervision.specs import validation
from supervision.specs.child import INFINITY, ChildSpec, Kind, SupervisorOptions
from supervision.supervisor import FIELDS_OF_SPEC, NotUnderstood
from supervision.task_actor import StartedTasksOwner, TaskActor, TaskFunction, leave_behind
from supervision.task_calls import CountTasks, RunTask, StartTask, TasksHandle

logger = logging.getLogger("supervision")


class TasksIncarnation(LoopIncarnation):
    """A task supervisor's life: should it end by force, its tasks end before its exit is reported."""

    async def _before_exit(self, reason: Reason) -> None:
        if getattr(self.actor, "can_have_tasks", False):
            await self.actor.sweep(reason)
        await super()._before_exit(reason)

    def _give_grace(self) -> None:
        """It is not abandoned for being slow to die: what it waits for has a time limit of its own."""


class TaskSupervisor(Actor):
    """Runs coroutines, each as a task of its own on this actor's loop.

    `max_children` bounds them, run and started together; `shutdown` is how many seconds a task gets to end after its
    cancellation; one that goes on all the same is left behind and listed as unstopped. `lost(reason)` makes the error
    for those whose task ended because this supervisor did. `max_restarts` in `max_seconds` bounds the restarts of
    started tasks: beyond it this supervisor gives up.
    Asks: no one. Restart: the tasks of the former incarnation have been cancelled and answered.
    """

    ref_class = TasksHandle
    expected_errors = (NotUnderstood,)  # a stray message is no reason to end all tasks
    _supervision_host = TasksIncarnation
    can_have_tasks = False

    def __init__(
        self,
        *,
        max_children: int | None = None,
        shutdown: float = 5.0,
        lost: Callable[[Reason], Exception] | None = None,
        max_restarts: int = 3,
        max_seconds: float = 5.0,
    ) -> None:
        super().__init__()
        _check_options(max_children, shutdown)
        self._max_children = max_children
        self._shutdown = shutdown
        self._lost = lost
        self._restarts = {"max_restarts": max_restarts, "max_seconds": max_seconds}
        self._tasks: dict[asyncio.Task[Any], tuple[Reply, RunTask]] = {}
        self._started: StartedTasksOwner | None = None
        # Each number has one writer: the first this actor's loop, the second that of the supervisors.
        self._ever_started = self._ever_gone = 0
        self._end: Reason | None = None

    def on_start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.can_have_tasks = True
        self._incarnation.when_over("tasks", self._abandon_tasks)

    def on_receive(self, message: Any) -> Any:
        if isinstance(message, RunTask):
            return MaxChildren() if self._is_full else self._run(message)
        if isinstance(message, StartTask):
            return MaxChildren() if self._is_full else self._start(message)
        if isinstance(message, CountTasks):
            return len(self._tasks) + self._in_background
        if isinstance(message, TerminateRef):
            return self._terminate(message)
        calls = "RunTask, StartTask, TerminateRef and CountTasks"
        raise NotUnderstood(f"a TaskSupervisor understands {calls}, not {type(message).__name__}")

    @property
    def _is_full(self) -> bool:
        return self._max_children is not None and len(self._tasks) + self._in_background >= self._max_children

    @property
    def _path(self) -> str:
        return self._incarnation.name.path

    # -- tasks that are started --------------------------------------------------------------------

    @property
    def _in_background(self) -> int:
        return self._ever_started - self._ever_gone

    def _start(self, message: StartTask) -> Reply:
        if self._started is None:
            self._started = StartedTasksOwner(self._incarnation, self._count_gone, self._restarts)
        spec = ChildSpec(
            _id_of(message.function),
            TaskActor,
            args=(message.function, *message.arguments),
            restart=message.restart,
            shutdown=self._shutdown,
        )
        self._ever_started += 1
        reply = self.owe()
        reply.forward(self._started.ref, say.StartChild(spec))
        return reply

    def _count_gone(self) -> None:
        self._ever_gone += 1

    def _terminate(self, message: TerminateRef) -> Any:
        if self._started is None:
            return say.NotFound() if message.ref.is_alive() else say.Ok()
        reply = self.owe()
        reply.forward(self._started.ref, message)
        return reply

    # -- tasks that are run ------------------------------------------------------------------------

    def _run(self, message: RunTask) -> Reply:
        reply = self.owe()
        # A context of its own: the task is nobody's handler.
        task = self._loop.create_task(_guarded(message, reply), context=contextvars.Context())
        self._tasks[task] = (reply, message)
        reply.on_unwanted(lambda: self._cancel(task))
        task.add_done_callback(self._done)
        return reply

    def _cancel(self, task: asyncio.Task[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
            self._loop.call_soon_threadsafe(task.cancel)

    def _done(self, task: asyncio.Task[Any]) -> None:
        reply, _ = self._tasks.pop(task, (None, None))
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

    # -- the end -----------------------------------------------------------------------------------

    async def on_stop(self) -> None:
        """Cancel what still runs and give it `shutdown` seconds to end."""
        self._end = Shutdown()
        if self._started is not None:
            self._started.incarnation.order_stop(Shutdown())
        running = self._cancel_all()
        if running:
            with contextlib.suppress(TimeoutError):
                async with TimeLimit(self.context.clock, self.context.clock.now() + self._shutdown):
                    await asyncio.wait(running)
        self._leave_behind()
        if self._started is not None:
            await self._started.over

    async def sweep(self, reason: Reason) -> None:
        """No task outlives its supervisor, however that ends: they get its `kill_grace` if it ends by force."""
        self._end = self._end or reason
        if self._started is not None:
            self._started.incarnation.kill()
        running = self._cancel_all()
        until = self._loop.time() + self._incarnation.kill_grace
        while not all(task.done() for task in running) and (left := until - self._loop.time()) > 0:
            await _in_spite_of_kills(asyncio.wait(running, timeout=left))
        self._leave_behind()
        while self._started is not None and not self._started.over.done:
            await _in_spite_of_kills(self._started.over)

    def _cancel_all(self) -> list[asyncio.Task[Any]]:
        running = list(self._tasks)
        for task in running:
            task.cancel()
        return running

    def _leave_behind(self) -> None:
        """Answer for the tasks that ignored their cancellation, and let it be known that they are still there."""
        left = {task: message.function for task, (_, message) in self._tasks.items() if not task.done()}
        if left:
            names = [_id_of(function) for function in left.values()]
            logger.warning("%s: %d tasks ignored their cancellation: %s", self._path, len(left), names[:10])
        for task, function in left.items():
            leave_behind(cast("LoopIncarnation", self._incarnation), task, _id_of(function))
        self._answer_lost(self._end or Killed())

    def _abandon_tasks(self) -> None:
        """The actor has ended, by whatever means and on whichever thread: so do its tasks."""
        for task in list(self._tasks):
            self._cancel(task)
        if self._started is not None:
            self._started.incarnation.kill()
        exit = self._incarnation.exit
        self._answer_lost(Killed() if exit is None else exit.reason)

    def _answer_lost(self, reason: Reason) -> None:
        tasks, self._tasks = self._tasks, {}
        for task, (reply, message) in tasks.items():
            if message.on_lost is not None and not task.done():
                self._tell_lost(message.on_lost, reply, reason)
            if not reply.is_used:
                reply.fail(self._error_of_lost(reason))

    def _tell_lost(self, on_lost: Callable[[Reply, Reason], object], reply: Reply, reason: Reason) -> None:
        try:
            on_lost(reply, reason)
        except Exception:  # the other tasks must be answered for all the same
            logger.exception("%s: on_lost of a task failed", self._path)

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


def _check_options(max_children: int | None, shutdown: float) -> None:
    if max_children is not None:
        validation.count(max_children, "TaskSupervisor max_children")
    validation.seconds(shutdown, "TaskSupervisor shutdown")


async def _in_spite_of_kills(awaitable: Any) -> None:
    """Await in a life that is ending already: to kill it once more would only leave orphans."""
    with contextlib.suppress(asyncio.CancelledError):
        await awaitable


def _id_of(function: TaskFunction) -> str:
    """What a task is called after its function, as far as a name may look like that."""
    return str(getattr(function, "__name__", type(function).__name__)).replace("/", "_")


def tasks(id: str, **options: Any) -> ChildSpec:
    """The spec of a TaskSupervisor; fields of the spec itself, such as `restart`, may stand among `options`.

    But `shutdown` is that of each task: the supervisor has all the time it needs.
    """
    own = FIELDS_OF_SPEC - {"shutdown"}
    fields = {name: value for name, value in options.items() if name in own}
    kwargs = {name: value for name, value in options.items() if name not in own}
    unknown = set(kwargs) - {"max_children", "shutdown", "lost", "max_restarts", "max_seconds"}
    if unknown:
        raise SpecError(f"child {id!r}: a TaskSupervisor has no option {min(unknown)!r}")
    _check_options(kwargs.get("max_children"), kwargs.get("shutdown", 0.0))
    SupervisorOptions(**{name: kwargs[name] for name in ("max_restarts", "max_seconds") if name in kwargs})
    return ChildSpec(id, TaskSupervisor, kwargs=kwargs, kind=Kind.SUPERVISOR, shutdown=INFINITY, **fields)
