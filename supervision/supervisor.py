"""The supervisor as an actor, so that it is a child like any other, and what users hold of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from threading import get_ident
from typing import Any, cast

from supervision import engine_types as say
from supervision.child import ChildSpec, Kind, SupervisorOptions
from supervision.errors import SpecError
from supervision.exits import Exit, Reason, Shutdown
from supervision.future import AskFuture
from supervision.incarnation import StopOrder
from supervision.kinds import Supervising, check_children
from supervision.name import ActorRef, no_proc
from supervision.shell import Shell

logger = logging.getLogger("supervision")


class NotUnderstood(TypeError):
    """A supervisor was sent a message that is not one of its calls."""


class SupervisorHandle(ActorRef):
    """A ref to a supervisor, with its calls. Each returns a future; refusals are values, not exceptions."""

    def start_child(self, spec: ChildSpec) -> AskFuture[Any]:
        """Add a child. -> Started | AlreadyStarted | AlreadyPresent | StartError | Refused."""
        if not isinstance(spec, ChildSpec):
            raise SpecError(f"{spec!r} is not a ChildSpec")
        check_children([spec], SupervisorOptions(auto_shutdown="any_significant"))  # type: ignore[arg-type]
        return self._call(say.StartChild(spec))

    def restart_child(self, id: str) -> AskFuture[Any]:
        """Start a stopped child again. -> Started | StartError | Running | Restarting | NotFound."""
        return self._call(say.RestartChild(id))

    def terminate_child(self, id: str) -> AskFuture[Any]:
        """Stop a child and keep its spec. -> Ok | NotFound."""
        return self._call(say.TerminateChild(id))

    def delete_child(self, id: str) -> AskFuture[Any]:
        """Forget the spec of a stopped child. -> Ok | Running | Restarting | NotFound."""
        return self._call(say.DeleteChild(id))

    def which_children(self) -> AskFuture[Any]:
        """-> [(id, ref | None | RESTARTING, kind)], newest first."""
        return self._call(say.WhichChildren())

    def count_children(self) -> AskFuture[Any]:
        """-> Counts(specs, active, supervisors, workers)."""
        return self._call(say.CountChildren())

    def get_childspec(self, id: str) -> AskFuture[Any]:
        """-> ChildSpec | NotFound."""
        return self._call(say.GetChildSpec(id))

    def reconfigure(self, options: SupervisorOptions, specs: Iterable[ChildSpec]) -> AskFuture[Any]:
        """Live by other options and specs, all or nothing. -> Ok | Refused."""
        specs = tuple(specs)
        check_children(specs, options)
        return self._call(say.Reconfigure(options, specs))

    @property
    def ended(self) -> AskFuture[Exit]:
        """A future of the exit of the present incarnation; done at once if there is none."""
        future: AskFuture[Exit] = AskFuture()
        incarnation = self._name.incarnation
        exit = self._name.last_exit if incarnation is None else incarnation.watch(id(future), future.settle)
        if exit is not None or incarnation is None:
            future.settle(exit or no_proc(self.path, self._name.now()))
        return future

    def _call(self, request: say.Request) -> AskFuture[Any]:
        return cast("AskFuture[Any]", self.ask(request, block=False))


class Supervisor(Supervising):
    """Starts its children in order, restarts them by its strategy, and stops them in reverse.

    A child like any other: `ChildSpec("mid", Supervisor, args=(spec, ...), kwargs={options}, kind="supervisor")`.
    Asks: no one, and waits for no one. Restart: starts anew with the specs it was given.
    """

    ref_class = SupervisorHandle
    expected_errors = (NotUnderstood,)

    def __init__(self, *specs: ChildSpec, **options: Any) -> None:
        super().__init__()
        self._options = SupervisorOptions(**options)
        check_children(specs, self._options)
        self._specs = specs

    @classmethod
    def check_spec(cls, spec: ChildSpec) -> None:
        if cls.__init__ is Supervisor.__init__:  # else its arguments are its own affair
            check_children(spec.args, SupervisorOptions(**spec.kwargs))

    async def on_start(self) -> None:
        name = self._incarnation.name
        assert name.system is not None, "a supervisor lives in a System"
        shell = self.shell = Shell(self._incarnation, name.system, self._specs, self._options)
        shell.started_all = asyncio.get_running_loop().create_future()
        shell.on_finish = self._engine_finished
        shell.handle(say.StartAll())
        try:
            await self._unless_stopped(shell.started_all)
        finally:
            if not shell.started_all.cancel() and not shell.started_all.cancelled():
                shell.started_all.exception()  # seen, even where a kill came first

    async def _unless_stopped(self, started: asyncio.Future[None]) -> None:
        """Wait until the children are up; an order to stop meanwhile goes first."""
        mailbox, lease, loop = self._incarnation.name.mailbox, self._incarnation.lease, asyncio.get_running_loop()
        while not started.done():
            waiter = loop.create_future()
            order = mailbox.take_order(lease, (loop, waiter, get_ident()))
            if isinstance(order, StopOrder):
                assert self.shell is not None
                self.shell.shut_down(order.reason)
                await asyncio.wait([started])
                break
            await asyncio.wait([started, waiter], return_when=asyncio.FIRST_COMPLETED)
        started.result()

    def _engine_finished(self, reason: Reason) -> None:
        self._incarnation.order_stop(reason)

    def on_receive(self, message: Any) -> Any:
        assert self.shell is not None
        if not isinstance(message, say.Request):  # a stray message is no reason to end a whole subtree
            logger.warning("%s: a supervisor does not understand %s", self.shell.path, type(message).__name__)
            raise NotUnderstood(f"a supervisor does not understand {type(message).__name__}")
        reply = self.owe()
        self.shell.call(message, reply)
        return reply

    async def on_stop(self) -> None:
        assert self.shell is not None
        if not self.shell.finished.done():
            self.shell.shut_down(Shutdown())
            await self.shell.finished


def supervisor(id: str, *specs: ChildSpec, restart: str = "permanent", **options: Any) -> ChildSpec:
    """The spec of a supervisor over `specs`."""
    check_children(specs, SupervisorOptions(**options))
    return ChildSpec(id, Supervisor, args=specs, kwargs=options, kind=Kind.SUPERVISOR, restart=restart)
