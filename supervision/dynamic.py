"""A supervisor of children that come and go by the thousand, each known by its ref and not by an id.

Rules: elixir-lang/elixir lib/elixir/lib/dynamic_supervisor.ex.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from supervision.actor import AnyRef
from supervision.engine import vocabulary as say
from supervision.errors import SpecError, SupervisionError
from supervision.future import AskFuture
from supervision.kinds import check_children
from supervision.shell import Shell
from supervision.specs import validation
from supervision.specs.child import AutoShutdown, ChildSpec, Kind, Strategy, SupervisorOptions
from supervision.supervisor import SupervisingHandle, Supervisor, split_options
from supervision.waiting import circles

if TYPE_CHECKING:
    from supervision.message import Reply
    from supervision.system import System


_ANY_CHILD = SupervisorOptions(auto_shutdown=AutoShutdown.ANY_SIGNIFICANT)
"""Options by which nothing is wrong with a spec but what would be wrong anywhere."""


class NoSuchCall(SupervisionError):
    """This kind of supervisor does not have the call; the text says what to do instead."""


@dataclass(frozen=True, slots=True)
class TerminateRef:
    """Stop the child behind `ref`, or its retries."""

    ref: AnyRef


class DynamicHandle(SupervisingHandle):
    """A ref to a DynamicSupervisor, with its calls. Each returns a future; refusals are values, not exceptions."""

    def start_child(self, spec: ChildSpec) -> AskFuture[Any]:
        """Add a child. -> Started | StartError | MaxChildren | Refused.

        Many children may have specs of the same id. Started(None) says that the child declined by IGNORE.
        """
        if not isinstance(spec, ChildSpec):
            raise SpecError(f"{spec!r} is not a ChildSpec")
        check_children([spec], _ANY_CHILD)
        return self._call(say.StartChild(spec))

    def terminate_child(self, ref: AnyRef) -> AskFuture[Any]:
        """Stop the child behind `ref` and forget it. -> Ok, also if it is dead already | NotFound: it lives elsewhere.

        Raises:
            TypeError: it is not a ref.
        """
        if not hasattr(ref, "actor_urn"):
            raise TypeError(f"terminate_child() of {self.path} takes the child's ref, not {ref!r}")
        terminated = self._call(TerminateRef(ref))
        circles.reply_follows_end_of(getattr(ref, "path", ""), terminated)
        return terminated

    def restart_child(self, _child: object = None) -> AskFuture[Any]:
        """Not here: a child that was stopped is forgotten. Raises NoSuchCall."""
        raise NoSuchCall(f"{self.path} is a DynamicSupervisor and keeps no spec to start again: use start_child")

    def delete_child(self, _child: object = None) -> AskFuture[Any]:
        """Not here: there are no specs of stopped children. Raises NoSuchCall."""
        raise NoSuchCall(f"{self.path} is a DynamicSupervisor and keeps no spec to delete: use terminate_child")


class DynamicSupervisor(Supervisor):
    """Starts children when asked to, restarts each by itself, forgets those that ended, stops all at the same time.

    `max_children` bounds them, those that wait for a restart included; None is no bound. Other options: `max_restarts`,
    `max_seconds`, `on_exhausted`. Its strategy is one_for_one and it never shuts down by itself.
    Asks: no one, and waits for no one. Restart: starts with no children; the former ones have ended with it, and who
    waits for their answers has been told.
    """

    ref_class = DynamicHandle
    understands = say.StartChild | TerminateRef | say.WhichChildren | say.CountChildren

    def __init__(self, *, max_children: int | None = None, **options: Any) -> None:
        self._max_children = _checked(max_children, options)
        super().__init__(**options)

    @classmethod
    def check_spec(cls, spec: ChildSpec) -> None:
        if cls.__init__ is not DynamicSupervisor.__init__:  # its arguments are its own affair
            return
        if spec.args:
            raise SpecError(f"child {spec.id!r}: a DynamicSupervisor starts without children: use start_child")
        options = dict(spec.kwargs)
        _checked(options.pop("max_children", None), options)

    def _make_shell(self, system: System) -> Shell:
        return DynamicShell(self._incarnation, system, self._options, self._max_children)


def _checked(max_children: int | None, options: dict[str, Any]) -> int | None:
    """`max_children` as it should be; raises SpecError for this and all other options."""
    checked = SupervisorOptions(**options)
    if checked.strategy is not Strategy.ONE_FOR_ONE:
        raise SpecError(f"supervisor option strategy: a DynamicSupervisor is one_for_one, not {checked.strategy}")
    if checked.auto_shutdown is not AutoShutdown.NEVER:
        raise SpecError(f"supervisor option auto_shutdown: never in a DynamicSupervisor, not {checked.auto_shutdown}")
    return None if max_children is None else validation.count(max_children, "supervisor option max_children")


class DynamicShell(Shell):
    """Gives each child a name of its own, and closes that name when the child is gone, whatever the reason."""

    on_gone: Callable[[], object] | None = None

    def __init__(self, own: Any, system: System, options: SupervisorOptions, max_children: int | None) -> None:
        super().__init__(own, system, (), options, is_dynamic=True, max_children=max_children)
        self._numbers = itertools.count(2)

    def call(self, request: Any, reply: Reply) -> None:
        match request:
            case say.StartChild(spec=spec):
                super().call(say.StartChild(self._with_own_id(spec)), reply)
            case TerminateRef(ref=ref) if (id := self._id_behind(ref)) is not None:
                super().call(say.TerminateChild(id), reply)
            case TerminateRef(ref=ref):
                reply.set(say.NotFound() if ref.is_alive() else say.Ok())
            case _:
                super().call(request, reply)

    def _with_own_id(self, spec: ChildSpec) -> ChildSpec:
        """`spec` with an id that no one else goes by, nor anybody still holds a ref to."""
        id = spec.id
        while self._name_of(id) is not None:
            id = f"{spec.id}-{next(self._numbers)}"
        return spec if id == spec.id else replace(spec, id=id)

    def _id_behind(self, ref: AnyRef) -> str | None:
        """The id of the child behind `ref`; None if it is not, or no longer, a child of this supervisor."""
        id = getattr(ref, "path", "").rpartition("/")[2]
        name = self.names.get(id)
        return id if name is not None and name is getattr(ref, "name", None) else None

    def _for_users(self, value: Any) -> Any:
        """A child that has gone meanwhile was stopped: the only call that finds nothing is terminate_child."""
        return say.Ok() if isinstance(value, say.NotFound) else super()._for_users(value)

    def _close(self, id: str, *, forgotten: bool) -> None:
        self._close_name(id, forgotten=True)
        if self.on_gone is not None:
            self.on_gone()

    async def sweep(self) -> None:
        await super().sweep()
        for id in list(self.names):
            self._close(id, forgotten=True)


def dynamic(id: str, **options: Any) -> ChildSpec:
    """The spec of a DynamicSupervisor; fields of the spec itself, such as `restart`, may stand among `options`."""
    fields, options = split_options(options)
    spec = ChildSpec(id, DynamicSupervisor, kwargs=options, kind=Kind.SUPERVISOR, **fields)
    DynamicSupervisor.check_spec(spec)
    return spec
