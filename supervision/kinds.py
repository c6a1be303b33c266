"""What a spec's actor is, a worker on a loop, one in a thread, or a supervisor, and how each is made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import pykka

from supervision.actor import Actor, supervised
from supervision.child import ChildSpec, Kind, SupervisorOptions, validate_children
from supervision.errors import SpecError
from supervision.exits import Reason
from supervision.hosts import LoopIncarnation, ThreadIncarnation

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.name import Name
    from supervision.shell import Shell
    from supervision.system import System
    from supervision.testing.deterministic import DeterministicScheduler


class SupervisorIncarnation(LoopIncarnation):
    """A supervisor's life: should it end by force, its children end before its exit is reported."""

    async def _before_exit(self, reason: Reason) -> None:
        shell = getattr(self.actor, "shell", None)
        if shell is not None and shell.live:
            await shell.sweep()
        await super()._before_exit(reason)

    def _give_grace(self) -> None:
        """It is never abandoned: its children would be orphans."""


class Supervising(Actor):
    """The base of actors that are supervisors: they live beside each other, on a scheduler without users' code."""

    shell: Shell | None = None

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
        return supervised(actor_class)
    except SpecError as error:
        raise SpecError(f"child {spec.id!r}: {error}") from None


def make_incarnation(
    system: System, name: Name, spec: ChildSpec, make: Callable[[], pykka.Actor], owner: Any, **options: Any
) -> Incarnation:
    """The incarnation that fits the class behind `name`: a task on a scheduler, or a thread."""
    if system.supervisors.hosts_everything:
        make = cast("DeterministicScheduler", system.workers).checked(spec, make)
    if is_supervisor(name.actor_class):
        return SupervisorIncarnation(name, make, owner, scheduler=system.supervisors, **options)
    if issubclass(name.actor_class, pykka.ThreadingActor) and not system.supervisors.hosts_everything:
        return ThreadIncarnation(name, make, owner, **options)
    return LoopIncarnation(name, make, owner, scheduler=spec.scheduler or system.workers, **options)


def check_children(specs: Iterable[ChildSpec], options: SupervisorOptions) -> None:
    """All that can be known to be wrong before anything is started, down to the deepest supervisor.

    Raises:
        SpecError
    """
    specs = tuple(specs)
    validate_children(specs, options)
    for spec in specs:
        actor_class: Any = how_to_make(spec)[0]
        if is_supervisor(actor_class):
            actor_class.check_spec(spec)
