"""What a TaskSupervisor can be asked for: its messages, and the handle that sends them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from supervision.actor import AnyRef
from supervision.dynamic import TerminateRef
from supervision.errors import SpecError
from supervision.exits import Reason
from supervision.future import AskFuture
from supervision.mailbox import Envelope
from supervision.message import Reply
from supervision.name import ActorRef
from supervision.specs import validation
from supervision.specs.child import Restart
from supervision.task_actor import TaskFunction
from supervision.task_future import TaskFuture
from supervision.waiting import waits


class NotACoroutineFunction(SpecError, TypeError):
    """A task was to be made of something else than a coroutine function."""


@dataclass(frozen=True, slots=True)
class RunTask:
    """Run `function(*arguments)` as a task; the reply is its result, or its exception.

    With `takes_reply` the function's first argument is the Reply, which it may answer before its end.
    When nobody waits for the reply any more the task is cancelled.

    Where its supervisor ends and the task does not, because the loop is blocked or it ignores its cancellation,
    `on_lost(reply, reason)` is called, on whichever thread: the place to see to what the task had begun. It may
    answer the reply; what the task itself still does with that has no effect.
    """

    function: TaskFunction
    arguments: tuple[Any, ...] = ()
    takes_reply: bool = False
    on_lost: Callable[[Reply, Reason], object] | None = None


@dataclass(frozen=True, slots=True)
class StartTask:
    """Start `function(*arguments)` as a child with a ref; the reply is Started, or MaxChildren."""

    function: TaskFunction
    arguments: tuple[Any, ...]
    restart: Restart


@dataclass(frozen=True, slots=True)
class CountTasks:
    """How many tasks are there? The reply is an int."""


class TasksHandle(ActorRef):
    """A ref to a TaskSupervisor, with its calls. They may be made from any thread, and each returns a future.

    What is to run is a coroutine function; for anything else they raise NotACoroutineFunction.
    """

    def start(
        self, function: TaskFunction, *arguments: Any, restart: Restart | str = Restart.TEMPORARY
    ) -> AskFuture[Any]:
        """Start `function(*arguments)` as a child that has a ref. -> Started(ref) | MaxChildren.

        The ref can be monitored, linked and killed. A `transient` task is called anew if it fails, a `permanent` one
        also when it returns.
        """
        _check_function(function)
        how = validation.member(Restart, restart, "start(restart)")
        return cast("AskFuture[Any]", self.ask(StartTask(function, arguments, how), block=False))

    def run(self, function: TaskFunction, *arguments: Any) -> AskFuture[Any]:
        """Run `function(*arguments)` as a task. A future of its result; MaxChildren if there is no room.

        In an actor's handler the two are linked. The task is cancelled when the actor ends. If it fails, then the
        actor ends too, or, if it traps exits, is sent an `Exited`; unless the handler has taken the failure out of
        the future, by `await` or `get()`, before it is over. So an error that was caught is dealt with, as
        everywhere in Python (in Elixir it ends the caller all the same), and one that nobody looked at is not lost.

        If the task supervisor ends before, the future fails with the error that its `lost` made.
        """
        return self._run(function, arguments, is_linked=True)

    def run_nolink(self, function: TaskFunction, *arguments: Any) -> AskFuture[Any]:
        """As `run`, but a failure ends nobody else.

        Called in an actor's handler, it is sent to the actor as one `Down`, unless it was taken out of the future
        before. Its `token` is that of the future, its `ref` that of the task supervisor.
        """
        return self._run(function, arguments, is_linked=False)

    def _run(self, function: TaskFunction, arguments: tuple[Any, ...], *, is_linked: bool) -> AskFuture[Any]:
        _check_function(function)
        future: TaskFuture[Any] = TaskFuture(self._name)
        turn = waits.current.get()
        if turn is not None and turn.incarnation.exit is None:
            future.bind(turn.incarnation, is_linked=is_linked)
        self._put(Envelope(RunTask(function, arguments), future))
        return future

    def terminate_child(self, ref: AnyRef) -> AskFuture[Any]:
        """Cancel the started task behind `ref` and forget it. -> Ok, also if it is over | NotFound: not ours."""
        if not hasattr(ref, "actor_urn"):
            raise TypeError(f"terminate_child() of {self.path} takes the task's ref, not {ref!r}")
        return cast("AskFuture[Any]", self.ask(TerminateRef(ref), block=False))

    def count(self) -> AskFuture[int]:
        """A future of the number of tasks, run and started; those that wait for a restart are among them."""
        return cast("AskFuture[int]", self.ask(CountTasks(), block=False))


def _check_function(function: object) -> None:
    call = getattr(function, "__call__", None)  # noqa: B004  (not whether it is callable, but what a call of it gives)
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)):
        is_called = " (pass the function and its arguments, do not call it)" if inspect.iscoroutine(function) else ""
        raise NotACoroutineFunction(f"a task is a coroutine function (async def), not {function!r}{is_called}")
