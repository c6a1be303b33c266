"""The supervisor as an actor, so that it is a child like any other, and what users hold of it.

Rules and words are those of erlang/otp lib/stdlib/src/supervisor.erl. What differs:

    subject                | OTP                                | here
    -----------------------+------------------------------------+---------------------------------------------------
    killing a child        | always possible                    | a thread is abandoned: fenced off, replaced, listed
    starting, stopping     | the supervisor waits               | it goes on with other children and with calls
    calls in group restart | wait until it is over              | reads are answered, with RESTARTING; others wait
    exhausted restarts     | it ends                            | also: pause(delay), or DROP_CHILD for this child
    after a restart        | another pid, an empty mailbox      | the same ref and mailbox, the next epoch
    giving up              | `shutdown`: transient is left off  | GaveUp with the chain of causes: transient restarts
    unknown spec fields    | ignored in a map                   | SpecError, before anything has started
    restart intensity      | 1 in 5 s, whole seconds            | 3 in 5 s (as in Elixir), fractions of a second
    waiting between tries  | none                               | none, or a Backoff for this child
    many children at once  | simple_one_for_one                 | DynamicSupervisor (as in Elixir)
    a start that takes long| waited for, whatever it takes      | StartTimeout after 30 s, except of a supervisor
    asking who is down     | fails at once                      | waits for the restart while the name is open
    a link to who is dead  | an exit signal, noproc             | ActorDeadError
    one cause, many ends   | each restart counts                | those of one lost scheduler count once
    too many left behind   | -                                  | the supervisor gives up, as System(max_zombies=) says
    a killed supervisor    | its children die when they hear it | its children have ended before it is restarted
    stopping everything    | each child has its own time        | and System.stop(deadline) bounds the whole
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, Literal, cast

from supervision.engine import vocabulary as say
from supervision.engine.vocabulary import (
    AlreadyPresent,
    Counts,
    NotFound,
    Ok,
    Refused,
    Restarting,
    Running,
    StartError,
)
from supervision.errors import SpecError
from supervision.exits import Exit, Reason, Shutdown
from supervision.future import AskFuture
from supervision.kinds import Supervising, check_children
from supervision.name import ActorRef, no_proc
from supervision.shell import AlreadyStarted, Shell, Started
from supervision.specs import validation
from supervision.specs.child import ChildSpec, Kind, Signal, SupervisorOptions
from supervision.waiting import circles
from supervision.work import StopOrder

if TYPE_CHECKING:
    from supervision.message import Reply
    from supervision.system import System

logger = logging.getLogger("supervision")

ChildRow = tuple[str, ActorRef | Literal[Signal.RESTARTING] | None, Kind]
"""One line of which_children: its id, its ref (None where it stands stopped), and what it is."""


MAX_DEPTH = 100
"""How deep supervisors may be nested. One that makes itself its own child would else be started without end."""


class NotUnderstood(TypeError):
    """A supervisor was sent a message that is not one of its calls."""


class SupervisingHandle(ActorRef):
    """What can be asked of every kind of supervisor. Each call returns a future."""

    def which_children(self) -> AskFuture[list[ChildRow]]:
        """-> [(id, ref | None | RESTARTING, kind)], newest first."""
        return self._call(say.WhichChildren())

    def count_children(self) -> AskFuture[Counts]:
        """-> Counts(specs, active, supervisors, workers)."""
        return self._call(say.CountChildren())

    @property
    def ended(self) -> AskFuture[Exit]:
        """A future of the exit of the present incarnation; done at once if there is none."""
        future: AskFuture[Exit] = AskFuture()
        incarnation = self._name.incarnation
        exit = self._name.last_exit if incarnation is None else incarnation.watch(id(future), future.settle)
        if exit is not None or incarnation is None:
            future.settle(exit or no_proc(self.path, self._name.now()))
        return future

    def _call(self, request: Any) -> AskFuture[Any]:
        return cast("AskFuture[Any]", self.ask(request, block=False))


class SupervisorHandle(SupervisingHandle):
    """A ref to a supervisor, with its calls. Each returns a future; refusals are values, not exceptions."""

    def start_child(
        self, spec: ChildSpec
    ) -> AskFuture[Started | AlreadyStarted | AlreadyPresent | StartError | Refused]:
        """Add a child. -> Started | AlreadyStarted | AlreadyPresent | StartError | Refused."""
        if not isinstance(spec, ChildSpec):
            raise SpecError(f"{spec!r} is not a ChildSpec")
        check_children([spec], SupervisorOptions(auto_shutdown="any_significant"))  # type: ignore[arg-type]
        return self._call(say.StartChild(spec))

    def restart_child(self, id: str) -> AskFuture[Started | StartError | Running | Restarting | NotFound]:
        """Start a stopped child again. -> Started | StartError | Running | Restarting | NotFound."""
        return self._call(say.RestartChild(validation.text(id, "restart_child(id)")))

    def terminate_child(self, id: str) -> AskFuture[Ok | NotFound]:
        """Stop a child and keep its spec. -> Ok | NotFound.

        A child may have itself terminated, but waiting for it is a DeadlockError.
        """
        terminated = self._call(say.TerminateChild(validation.text(id, "terminate_child(id)")))
        circles.reply_follows_end_of(f"{self.path}/{id}", terminated)
        return terminated

    def delete_child(self, id: str) -> AskFuture[Ok | Running | Restarting | NotFound]:
        """Forget the spec of a stopped child. -> Ok | Running | Restarting | NotFound."""
        return self._call(say.DeleteChild(validation.text(id, "delete_child(id)")))

    def get_childspec(self, id: str) -> AskFuture[ChildSpec | NotFound]:
        """-> ChildSpec | NotFound."""
        return self._call(say.GetChildSpec(validation.text(id, "get_childspec(id)")))

    def reconfigure(self, options: SupervisorOptions, specs: Iterable[ChildSpec]) -> AskFuture[Ok | Refused]:
        """Live by other options and specs, all or nothing. -> Ok | Refused."""
        if not isinstance(options, SupervisorOptions):
            raise SpecError(f"reconfigure(options): {options!r} is not SupervisorOptions")
        if not isinstance(specs, Iterable):
            raise SpecError(f"reconfigure(specs): {specs!r} is not a sequence of ChildSpec")
        specs = tuple(specs)
        check_children(specs, options)
        return self._call(say.Reconfigure(options, specs))


class Supervisor(Supervising):
    """Starts its children in order, restarts them by its strategy, and stops them in reverse.

    A child like any other: `ChildSpec("mid", Supervisor, args=(spec, ...), kwargs={options}, kind="supervisor")`.
    Asks: no one, and waits for no one. Restart: starts anew with the specs it was given.
    """

    ref_class: type[SupervisingHandle] = SupervisorHandle
    expected_errors: tuple[type[BaseException], ...] = (NotUnderstood,)
    understands: Any = say.Request

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
        if name.path.count("/") >= MAX_DEPTH:
            raise SpecError(f"supervisors are nested {MAX_DEPTH} deep here: does one contain itself?")
        shell = self.shell = self._make_shell(name.system)
        shell.started_all = asyncio.get_running_loop().create_future()
        shell.on_finish = self._engine_finished
        circles.note_start(self._incarnation, shell)
        shell.handle(say.StartAll())
        try:
            await self._unless_stopped(shell.started_all)
        finally:
            if not shell.started_all.cancel() and not shell.started_all.cancelled():
                shell.started_all.exception()  # seen, even where a kill came first

    def _make_shell(self, system: System) -> Shell:
        return Shell(self._incarnation, system, self._specs, self._options)

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
        if not isinstance(message, self.understands):  # a stray message is no reason to end a whole subtree
            why = f"a {type(self).__name__} does not understand {type(message).__name__}"
            logger.warning("%s: %s", self.shell.path, why)
            raise NotUnderstood(why)
        reply = self.owe()
        self._carry_out(message, reply)
        return reply

    def _carry_out(self, request: Any, reply: Reply) -> None:
        assert self.shell is not None
        self.shell.call(request, reply)

    async def on_stop(self) -> None:
        assert self.shell is not None
        if not self.shell.finished.done():
            self.shell.shut_down(Shutdown())
            await self.shell.finished


FIELDS_OF_SPEC = frozenset(
    ("restart", "shutdown", "significant", "start_timeout", "backoff", "expected_errors", "mailbox", "max_handle_time")
)
"""What the short forms hand on to the supervisor's own spec; everything else is an option of the supervisor."""


def split_options(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of the supervisor's own spec, and its options."""
    fields = {name: value for name, value in options.items() if name in FIELDS_OF_SPEC}
    return fields, {name: value for name, value in options.items() if name not in FIELDS_OF_SPEC}


def supervisor(id: str, *specs: ChildSpec, **options: Any) -> ChildSpec:
    """The spec of a supervisor over `specs`; fields of that spec, such as `restart`, may stand among `options`."""
    fields, options = split_options(options)
    check_children(specs, SupervisorOptions(**options))
    return ChildSpec(id, Supervisor, args=specs, kwargs=options, kind=Kind.SUPERVISOR, **fields)
