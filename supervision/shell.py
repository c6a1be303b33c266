"""Carries out what a supervisor's engine decides: starts, stops, timers, names, answers.

It hears of exits on the supervisors' scheduler, one event at a time, and never waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from supervision.child_owner import ChildOwner
from supervision.engine import vocabulary as say
from supervision.engine.engine import Engine
from supervision.errors import ActorDeadError, SpecError
from supervision.exits import Crash, Failure, GaveUp, Reason, Shutdown
from supervision.kinds import how_to_make, make_incarnation
from supervision.specs.child import RESTARTING, ChildSpec, SupervisorOptions
from supervision.specs.exclusive import exclusive

if TYPE_CHECKING:
    from supervision.clock import Timer
    from supervision.incarnation import Incarnation
    from supervision.message import Reply
    from supervision.name import ActorRef, Name
    from supervision.system import System

logger = logging.getLogger("supervision")


@dataclass(frozen=True, slots=True)
class Started:
    """The child runs behind `ref`; None if it declined by IGNORE. `info` is what its `on_start` returned."""

    ref: ActorRef | None
    info: Any = None


@dataclass(frozen=True, slots=True)
class AlreadyStarted:
    """A child of this id runs behind `ref`."""

    ref: ActorRef


class RefusedStart(Exception):
    """The engine gave up during the first start; `exit_reason` is what the parent gets to hear."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.exit_reason = reason


class Shell:
    """Carries out one engine's effects. All methods run on the supervisor's loop."""

    def __init__(
        self,
        own: Incarnation,
        system: System,
        specs: tuple[ChildSpec, ...],
        options: SupervisorOptions,
        **engine_options: Any,
    ) -> None:
        self.system = system
        self.path = own.name.path
        self._own = own
        kept = {spec.id for spec in specs}
        if own.epoch > 1:  # else there has been nobody to leave strangers behind
            system.names.close_strangers(self.path, kept)
        self.names: dict[str, Name] = {id: name for id in kept if (name := self._name_of(id)) is not None}
        epochs = {id: self._last_epoch(id) for id in kept}
        self.engine = Engine(options, specs, path=self.path, epochs=epochs, **engine_options)
        self.options = options
        self.live: dict[str, ChildOwner] = {}
        self.timers: dict[Any, tuple[Timer, float]] = {}
        self.started_all: asyncio.Future[None] | None = None
        self.finished: asyncio.Future[Reason] = system.supervisors.loop.create_future()
        self.on_finish: Callable[[Reason], object] | None = None
        self._ending = False
        self._crashed = False
        self._one_less: asyncio.Future[None] | None = None

    def _name_of(self, id: str) -> Name | None:
        return self.system.names.known(self._child_path(id))

    def _last_epoch(self, id: str) -> int:
        return self.system.names.last_epoch(self._child_path(id))

    def handle(self, event: say.Event) -> None:
        """Let the engine decide and do what it says. A crashed supervisor decides nothing more."""
        if self._crashed:
            return
        try:
            for effect in self.engine.decide(event, self.system.clock.now(), rand=self.system.random()):
                self._do(effect)
        except Exception as error:
            self.crash(error)

    def crash(self, error: Exception) -> None:
        """End this supervisor for a mistake in its own books; the one above it begins anew."""
        self._crashed = True
        self._own.crash(Crash.of(error))
        logger.debug("%s failed", self.path, exc_info=error)

    def call(self, request: say.Request, reply: Reply) -> None:
        """Carry out a call; its answer may come later."""

        def answer(value: Any) -> None:
            if isinstance(value, say.Ended):
                reply.fail(ActorDeadError(self.path, value.reason))
            else:
                reply.set(self._for_users(value))

        self.handle(say.Call(answer, self.with_epochs(request)))

    def with_epochs(self, request: say.Request) -> say.Request:
        """What the names of children to come have lived through: epochs go on, they never begin again."""
        if isinstance(request, say.StartChild):
            return replace(request, last_epoch=self._last_epoch(request.spec.id))
        if isinstance(request, say.Reconfigure):
            return replace(request, last_epochs={spec.id: self._last_epoch(spec.id) for spec in request.specs})
        return request

    @property
    def is_swept(self) -> bool:
        """True once this supervisor itself has crashed: its children are ended by force."""
        return self._crashed

    @property
    def window(self) -> tuple[int, int]:
        """How many restarts count now, and how many are tolerated."""
        return self.engine.window(self.system.clock.now())

    def _do(self, effect: say.Effect) -> None:  # noqa: C901  (one arm for each effect)
        match effect:
            case say.Start():
                self._start(effect)
            case say.RequestStop(id=id, epoch=epoch, reason=reason):
                if (owner := self._owner(id, epoch)) is not None:
                    owner.incarnation.order_stop(reason, drain=owner.drain)
            case say.Kill(id=id, epoch=epoch):
                if (owner := self._owner(id, epoch)) is not None:
                    owner.incarnation.kill()
            case say.ArmTimer(key=key, delay=delay):
                self._arm(key, delay)
            case say.CancelTimer(key=key):
                if (armed := self.timers.pop(key, None)) is not None:
                    armed[0].cancel()
            case say.Reply(token=token, value=value):
                token(value)
            case say.Emit(name=name, id=id, fields=fields):
                self.system.emit(name, self._child_path(id), **fields)
            case say.Hold(id=id):
                self._hold(id)
            case say.Close(id=id, forgotten=forgotten):
                self._close(id, forgotten=forgotten)
            case say.StartedAll():
                if self.started_all is not None and not self.started_all.done():
                    self.started_all.set_result(None)
            case say.Finish(reason=reason):
                self._finish(reason)

    # -- starting ----------------------------------------------------------------------------------

    def _start(self, order: say.Start) -> None:
        spec = order.spec
        try:
            actor_class, make = how_to_make(spec)
        except SpecError as error:
            self._refuse_start(order, Crash.of(error))
            return
        name = self.names[order.id] = self.system.names.open(self._child_path(order.id), actor_class, spec)
        name.epoch = order.epoch - 1
        if (held := self.system.zombies.holding(exclusive(name.actor_class))) is not None:
            self._refuse_start(order, Crash("ResourceHeld", held))
            return
        if order.restart_reason is not None:
            name.restarts += 1
        owner = ChildOwner(self, order.id, order.epoch, drain=name.mailbox.spec.drain)
        options: dict[str, Any] = {
            "expected_errors": spec.expected_errors,
            "restart_reason": order.restart_reason,
            "attempt": order.attempt,
            "kill_grace": self.system.kill_grace,
        }
        try:
            owner.incarnation = make_incarnation(self.system, name, spec, make, owner, **options)
        except RuntimeError as error:  # there is no thread for its scheduler
            self._refuse_start(order, Crash.of(error))
            return
        self.live[order.id] = owner
        owner.incarnation.begin()

    def _refuse_start(self, order: say.Start, why: Crash) -> None:
        """It does not start now; where a replacement must not stand beside a zombie, this supervisor gives up."""
        post = self.system.supervisors.post
        if why.type == "ResourceHeld" and order.restart_reason is not None:
            post(self.give_up, order.id, order.restart_reason, why.message)
        post(self.handle, say.ChildStartFailed(order.id, order.epoch, why))

    def give_up(self, id: str, reason: Reason, why: str) -> None:
        """End with a GaveUp for a reason that no restart would mend, unless it is ending."""
        if not self.engine.is_ending:
            path = self._child_path(id)
            self.system.emit("exhausted", path, reason=reason, action="escalate", why=why)
            self.handle(say.ShutdownRequested(GaveUp((Failure(path, reason), Failure(self.path, why)))))

    def _owner(self, id: str, epoch: int) -> ChildOwner | None:
        owner = self.live.get(id)
        return owner if owner is not None and owner.epoch == epoch else None

    def forget(self, owner: ChildOwner) -> None:
        """This incarnation is gone."""
        if self.live.get(owner.id) is owner:
            del self.live[owner.id]
        if self._one_less is not None and not self._one_less.done():
            self._one_less.set_result(None)

    def _child_path(self, id: str) -> str:
        return f"{self.path}/{id}" if id else self.path

    # -- what becomes of names ---------------------------------------------------------------------

    def _hold(self, id: str) -> None:
        name = self.names.get(id)
        if name is not None and name.mailbox.spec.on_restart == "drop":
            reason = name.last_exit.reason if name.last_exit is not None else None
            for envelope in name.mailbox.drop_waiting():
                name.dead_letter(envelope, ActorDeadError(name.path, reason))

    def _close(self, id: str, *, forgotten: bool) -> None:
        if not (self._ending or self.engine.is_ending):
            self._close_name(id, forgotten=forgotten)
        elif forgotten:  # while this supervisor itself ends, its own supervisor decides whether names live on
            self.names.pop(id, None)

    def _close_name(self, id: str, *, forgotten: bool) -> None:
        name = self.names.pop(id, None) if forgotten else self.names.get(id)
        if name is None:
            return
        reason = name.last_exit.reason if name.last_exit is not None else Shutdown()
        self.system.names.close(name, reason, forgotten=forgotten)

    # -- timers ------------------------------------------------------------------------------------

    def _arm(self, key: Any, delay: float) -> None:
        if delay <= 0:
            self.system.supervisors.post(self.handle, say.TimerFired(key))
            return

        def fire() -> None:
            self.system.supervisors.post(self._fired, key)

        at = self.system.clock.now() + delay
        self.timers[key] = (self.system.clock.call_at(at, fire), at)

    def _fired(self, key: Any) -> None:
        if self.timers.pop(key, None) is not None:
            self.handle(say.TimerFired(key))

    def due(self, key: Any) -> float | None:
        """When the timer `key` fires, by the clock; None if it is not armed, or about to fire. From any thread."""
        armed = self.timers.get(key)
        return None if armed is None else armed[1]

    # -- the end -----------------------------------------------------------------------------------

    def shut_down(self, reason: Reason) -> None:
        self._ending = True
        if not self.finished.done():
            self.handle(say.ShutdownRequested(reason))

    def _finish(self, reason: Reason) -> None:
        self._ending = True
        if not self.finished.done():
            self.finished.set_result(reason)
        if self.started_all is not None and not self.started_all.done():
            self.started_all.set_exception(RefusedStart(reason))
        elif self.on_finish is not None:
            self.on_finish(reason)

    async def sweep(self) -> None:
        """End all children by force, because the supervisor itself has crashed; return when they are gone."""
        self._ending = self._crashed = True
        for timer, _ in self.timers.values():
            timer.cancel()
        self.timers.clear()
        for owner in list(self.live.values()):
            owner.incarnation.kill()
        while self.live:
            self._one_less = asyncio.get_running_loop().create_future()
            try:
                await self._one_less
            except asyncio.CancelledError:  # killed once more; there is no other way to leave no orphan
                continue

    # -- for users ---------------------------------------------------------------------------------

    def _for_users(self, value: Any) -> Any:
        match value:
            case say.Started(id=id, info=info):
                return Started(None if id is None else self.names[id].ref, info)
            case say.AlreadyStarted(id=id):
                return AlreadyStarted(self.names[id].ref)
            case tuple():
                return [(row.id, self._ref_or_state(row), row.kind) for row in value]
        return value

    def _ref_or_state(self, row: say.ChildInfo) -> Any:
        if row.state == "running":
            return self.names[row.id].ref
        return RESTARTING if row.state == "restarting" else None
