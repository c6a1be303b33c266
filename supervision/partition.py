"""One child many times over, so that work which would queue at one actor is spread by key.

Rules: elixir-lang/elixir lib/elixir/lib/partition_supervisor.ex.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from supervision.engine import vocabulary as say
from supervision.errors import ActorDeadError, SpecError, SupervisionError
from supervision.future import AskFuture
from supervision.kinds import check_children
from supervision.specs import validation
from supervision.specs.child import ChildSpec, Kind, Restart, SupervisorOptions
from supervision.supervisor import SupervisingHandle, Supervisor, split_options

if TYPE_CHECKING:
    from supervision.message import Reply
    from supervision.name import ActorRef

Key = int | str | bytes


class NoPartitions(SupervisionError):
    """There is nobody to route to: the partitions have been resized to 0."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Run this many partitions from now on."""

    partitions: int


class PartitionHandle(SupervisingHandle):
    """A ref to a PartitionSupervisor. `route` may be called from any thread and asks nobody."""

    _routes: tuple[ActorRef, ...] | None = None  # replaced as a whole, by the supervisor

    def route(self, key: Key) -> ActorRef:
        """The partition for `key`: an int modulo their number, text and bytes by their CRC-32, on every machine alike.

        The same key leads to the same partition until the next resize. A partition that is being restarted is routed
        to as well: its messages wait.

        Raises:
            TypeError: the key is none of these types.
            NoPartitions: there are 0 partitions.
            ActorDeadError: the supervisor is dead.
        """
        number, routes = _number_of(key), self._live_routes()
        if not routes:
            raise NoPartitions(f"{self.path} has 0 partitions now: resize it before routing to it")
        return routes[number % len(routes)]

    @property
    def partitions(self) -> int:
        """How many partitions keys are spread over."""
        return len(self._live_routes())

    def resize(self, partitions: int) -> AskFuture[Any]:
        """Run another number of partitions, at most as many as at first. -> Ok | StartError of the first that failed.

        Partitions that are too many get no keys any more, then stop, and those that are added get keys once they run.

        Raises:
            SpecError: it is no whole number, or beyond the initial one.
        """
        self._live_routes()
        return self._call(Resize(validation.count(partitions, f"{self.path}: partitions")))

    def _live_routes(self) -> tuple[ActorRef, ...]:
        if self._routes is None or not self._name.is_open:
            last = self._name.last_exit
            raise ActorDeadError(self.path, None if last is None else last.reason)
        return self._routes


def _number_of(key: object) -> int:
    match key:
        case bool():
            pass
        case int():
            return key
        case str():
            return zlib.crc32(key.encode("utf-8", "surrogatepass"))
        case bytes():
            return zlib.crc32(key)
    raise TypeError(f"a key to route by is an int, str or bytes, not {type(key).__name__}: {key!r}")


class PartitionSupervisor(Supervisor):
    """Runs `partitions` copies of `spec` under the ids "0", "1", ...; by default as many as there are processors.

    `with_number` names the keyword argument in which each copy gets its number, if it is to have it. Other options as
    of a Supervisor.
    Asks: no one, and waits for no one. Restart: starts anew with all partitions, also those resized away.
    """

    ref_class = PartitionHandle
    expected_errors = (*Supervisor.expected_errors, SpecError)
    understands = Resize | say.WhichChildren | say.CountChildren

    def __init__(
        self, spec: ChildSpec, *, partitions: int | None = None, with_number: str | None = None, **options: Any
    ) -> None:
        super().__init__(*copies(spec, partitions, with_number), **options)
        self._resizes: deque[tuple[int, Reply]] = deque()

    @classmethod
    def check_spec(cls, spec: ChildSpec) -> None:
        if cls.__init__ is not PartitionSupervisor.__init__:  # its arguments are its own affair
            return
        if len(spec.args) != 1:
            raise SpecError(f"child {spec.id!r}: a PartitionSupervisor takes one spec, not {len(spec.args)}")
        options = dict(spec.kwargs)
        partitions, with_number = options.pop("partitions", None), options.pop("with_number", None)
        check_children(copies(spec.args[0], partitions, with_number), SupervisorOptions(**options))

    async def on_start(self) -> None:
        await super().on_start()
        self._present = len(self._specs)
        self._route()

    def _route(self) -> None:
        """From now on keys are spread over the partitions present."""
        assert self.shell is not None
        names = self.shell.names
        handle = cast("PartitionHandle", self.actor_ref)
        handle._routes = tuple(names[str(number)].ref for number in range(self._present))

    # A resize takes several steps; between them the supervisor goes on with its work.

    def _carry_out(self, request: Any, reply: Reply) -> None:
        if not isinstance(request, Resize):
            super()._carry_out(request, reply)
        elif request.partitions > len(self._specs):
            most = len(self._specs)
            reply.fail(SpecError(f"partitions: {request.partitions} is more than {most}, the initial number"))
        else:
            self._resizes.append((request.partitions, reply))
            if len(self._resizes) == 1:
                self._resize(say.Ok())

    def _resize(self, outcome: Any) -> None:
        """One partition more or less, until there are as many as asked for or one has failed to start."""
        wanted, reply = self._resizes[0]
        if isinstance(outcome, say.Started):
            self._present += 1
            self._route()
        if isinstance(outcome, say.StartError) or wanted == self._present:
            self._resized(reply, outcome if isinstance(outcome, say.StartError) else say.Ok())
        elif wanted > self._present:
            self._call(say.StartChild(self._specs[self._present]), self._resize)
        else:
            self._present -= 1
            self._route()
            id = str(self._present)
            self._call(say.TerminateChild(id), lambda _: self._call(say.DeleteChild(id), self._resize))

    def _resized(self, reply: Reply, outcome: Any) -> None:
        self._resizes.popleft()
        reply.set(outcome)
        if self._resizes:
            self._resize(say.Ok())

    def _call(self, request: say.Request, then: Callable[[Any], object]) -> None:
        """Have the engine carry out one step; `then` is called with its answer once all that it decided is done."""
        shell = self.shell
        assert shell is not None

        def answer(value: Any) -> None:
            if not isinstance(value, say.Ended):  # else those who wait are answered by the end of this actor
                shell.system.supervisors.post(then, value)

        shell.handle(say.Call(answer, shell.with_epochs(request)))


def copies(spec: ChildSpec, partitions: int | None = None, with_number: str | None = None) -> tuple[ChildSpec, ...]:
    """The specs of all partitions. Raises SpecError if there is none to make them of."""
    if not isinstance(spec, ChildSpec):
        raise SpecError(f"{spec!r} is not a ChildSpec")
    if spec.restart is Restart.TEMPORARY:
        raise SpecError(f"child {spec.id!r}: a temporary partition would leave its keys to nobody when it ends")
    number = os.cpu_count() or 1 if partitions is None else partitions
    validation.count(number, "supervisor option partitions", at_least=1)
    if with_number is not None and not isinstance(with_number, str):
        raise SpecError(f"supervisor option with_number: {with_number!r} is not the name of an argument")
    return tuple(_copy(spec, each, with_number) for each in range(number))


def _copy(spec: ChildSpec, number: int, with_number: str | None) -> ChildSpec:
    kwargs = spec.kwargs if with_number is None else {**spec.kwargs, with_number: number}
    return replace(spec, id=str(number), kwargs=kwargs)


def partition(id: str, spec: ChildSpec, *, partitions: int | None = None, **options: Any) -> ChildSpec:
    """The spec of a PartitionSupervisor; fields of the spec itself, such as `restart`, may stand among `options`."""
    fields, options = split_options(options)
    made = ChildSpec(
        id,
        PartitionSupervisor,
        args=(spec,),
        kwargs={"partitions": partitions, **options},
        kind=Kind.SUPERVISOR,
        **fields,
    )
    PartitionSupervisor.check_spec(made)
    return made
