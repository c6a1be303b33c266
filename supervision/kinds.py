"""What a spec's actor is, a worker on a loop, one in a thread, or a supervisor, and how each is made."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import pykka

from supervision.actor import Actor, supervised
from supervision.errors import SpecError
from supervision.exits import Reason
from supervision.hosting.hosts import LoopIncarnation, ThreadIncarnation
from supervision.specs.child import ChildSpec, Kind, SupervisorOptions, validate_children
from supervision.specs.exclusive import exclusive
from supervision.state.keeping import check_state

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import ActorRef, Name
    from supervision.shell import Shell
    from supervision.system import System
    from supervision.testing.deterministic import DeterministicScheduler


class SupervisorIncarnation(LoopIncarnation):
    """A supervisor's life: should it end by force, its children end before its exit is reported."""

    _burial: asyncio.Task[None] | None = None

    async def _before_exit(self, reason: Reason) -> None:
        shell = getattr(self.actor, "shell", None)
        if shell is not None:  # even with no child alive: one may wait for its retry
            await shell.sweep()
        await super()._before_exit(reason)

    def _give_grace(self) -> None:
        """It is never abandoned: its children would be orphans."""

    def make_up_exit(self) -> None:
        if not self.scheduler.post(self._begin_burial):
            super().make_up_exit()

    def _begin_burial(self) -> None:
        if self._burial is None:
            self._burial = self.scheduler.loop.create_task(self._bury(), name=f"{self.name.path}, lost")

    async def _bury(self) -> None:
        if (shell := getattr(self.actor, "shell", None)) is not None:
            await shell.sweep()
        super().make_up_exit()


class Supervising(Actor):
    """The base of actors that are supervisors: they live beside each other, on a scheduler without users' code."""

    shell: Shell | None = None

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> ActorRef:
        """Refused: a supervisor needs a system above it."""
        raise SpecError(f"{cls.__name__} lives in a System: put it into a ChildSpec and supervise that")

    @classmethod
    def check_spec(cls, spec: ChildSpec) -> None:
        """Raise SpecError for what is wrong in the arguments that `spec` has for this class."""


def is_supervisor(actor_class: type[Any]) -> bool:
    return issubclass(actor_class, Supervising)


def how_to_make(spec: ChildSpec) -> tuple[type[pykka.Actor], Callable[[], pykka.Actor]]:
    """The class that will run, as far as it is known before, and the call that constructs it on its host.

    Raises:
        SpecError: the class cannot be supervised.
    """
    actor: Any = spec.actor
    if isinstance(actor, functools.partial) and isinstance(actor.func, type):
        made = _supervised(spec, actor.func)
        return made, functools.partial(made, *actor.args, *spec.args, **{**actor.keywords, **spec.kwargs})
    if isinstance(actor, type):
        if not issubclass(actor, pykka.Actor):
            raise SpecError(f"child {spec.id!r}: {actor.__name__} is no pykka.Actor")
        made = _supervised(spec, actor)
        return made, functools.partial(made, *spec.args, **spec.kwargs)
    host: Any = Supervising if spec.kind is Kind.SUPERVISOR else Actor
    return host, functools.partial(actor, *spec.args, **spec.kwargs)


def _supervised(spec: ChildSpec, actor_class: Any) -> type[pykka.Actor]:
    try:
        made = supervised(actor_class)
    except SpecError as error:
        raise SpecError(f"child {spec.id!r}: {error}") from None
    check_state(spec.state, made, spec.id)
    return made


def make_incarnation(
    system: System, name: Name, spec: ChildSpec, make: Callable[[], pykka.Actor], owner: Any, **options: Any
) -> Incarnation:
    """The incarnation that fits the class behind `name`: a task on a scheduler, or a thread.

    Raises:
        RuntimeError: it needs a scheduler that has yet to be made, and the machine has no thread for it.
    """
    if system.supervisors.hosts_everything:
        make = cast("DeterministicScheduler", system.workers).checked(spec, make)
    if is_supervisor(name.actor_class):
        return SupervisorIncarnation(name, make, owner, scheduler=system.supervisors, **options)
    if issubclass(name.actor_class, pykka.ThreadingActor) and not system.supervisors.hosts_everything:
        return _limited(system, spec, ThreadIncarnation(name, make, owner, **options))
    host = getattr(name.actor_class, "_supervision_host", LoopIncarnation)
    made: Incarnation = host(name, make, owner, scheduler=system.schedulers.find(spec.scheduler), **options)
    return _limited(system, spec, made)


def _limited(system: System, spec: ChildSpec, incarnation: Incarnation) -> Incarnation:
    if spec.max_handle_time is not None:
        incarnation.max_handle_time = spec.max_handle_time
        system.watchdog.watch(incarnation)
    return incarnation


def check_children(specs: Iterable[ChildSpec], options: SupervisorOptions) -> None:
    """All that can be known to be wrong before anything is started, down to the deepest supervisor.

    Raises:
        SpecError
    """
    specs = tuple(specs)
    validate_children(specs, options)
    for spec in specs:
        actor_class: Any = how_to_make(spec)[0]
        exclusive(actor_class)
        _check_host(spec, actor_class)
        if is_supervisor(actor_class):
            actor_class.check_spec(spec)


def _check_host(spec: ChildSpec, actor_class: type[Any]) -> None:
    if spec.scheduler is not None and (is_supervisor(actor_class) or issubclass(actor_class, pykka.ThreadingActor)):
        raise SpecError(f"child {spec.id!r}: a scheduler is for actors on loops, which {actor_class.__name__} is not")
    if spec.max_handle_time is not None and is_supervisor(actor_class):
        raise SpecError(f"child {spec.id!r}: a supervisor has no max_handle_time, for it runs nobody's code")
