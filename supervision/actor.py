"""What an actor can do about its own life, and the actor type that lives on an event loop.

`Actor` is a Pykka actor type. What a Pykka user knows keeps working: `MyActor.start()`, `ref.ask`, `tell`,
`proxy`, `stop`, the `ActorRegistry`. It adds `async def` handlers, replies owed for later, timers and monitors.

    class Counter(Actor):
        def on_start(self):
            self.n = 0

        async def on_receive(self, message):
            self.n += message
            return self.n
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any, cast

import pykka

from supervision import links, monitors, pykka_registry
from supervision.construction import building
from supervision.context import Context
from supervision.errors import SpecError
from supervision.exits import Normal, Reason
from supervision.future import AskFuture
from supervision.incarnation import Incarnation
from supervision.name import ActorRef
from supervision.specs import handlers, validation
from supervision.standalone import standalone
from supervision.state.keeping import NO_LOG
from supervision.timers import BoundTo, MessageTimer

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.clock import Timer
    from supervision.message import Reply

AnyRef = pykka.ActorRef[Any]
"""Any ref at all: ours, or one of Pykka's own."""


class ActorTools:
    """What an actor may use of its own life, on either host. All of it is for the actor's own handlers."""

    trap_exits: bool = False
    _incarnation: Incarnation

    @property
    def context(self) -> Context:
        """Name, epoch, clock, and what is known about the restart that led here."""
        return self._incarnation.context

    def exit(self, reason: Reason | None = None) -> None:
        """End after the message at hand; the reason is Normal() unless given."""
        if reason is not None and not isinstance(reason, Reason):
            raise SpecError(f"exit(reason): {reason!r} is no reason of an exit, such as Normal() or Shutdown(info)")
        self._incarnation.ask_to_exit(reason or Normal())

    def owe(self) -> Reply:
        """Take the reply slot of the ask at hand, to be answered later or passed on; return it from the handler."""
        return self._incarnation.work.owe()

    def remember(self, value: Any) -> None:
        """Leave `value` to the next incarnation, which finds it as `self.context.snapshot`.

        At any time, whatever the spec's `state` is; where that is a `snapshot(...)`, it takes the place of the last
        one. It must be immutable, or a copy that this incarnation does not change any more; or the actor must stand
        by its being changed up to the crash. It is kept in memory, and goes when the name is closed for good.
        """
        if (keeper := self._incarnation.name.keeper) is not None:
            keeper.leave(self._incarnation, value)

    def record(self, entry: Any) -> None:
        """Append `entry`, a JSON value, to the actor's event log, before it does what the entry says.

        With `state=event_log(path)`. Once this has returned, the next incarnation, also one in another process, is
        given the entry again: `apply(entry)` is called with each, in order, before its first message. The rule is
        record first, then apply: what was applied and not recorded is lost. `record` does not call `apply` itself.

        Raises:
            RuntimeError: there is no log, or no message at hand.
            EntryNotJson: the entry would not come back as the same value; a tuple, for one, would be a list.
            OSError: it could not be written. It will not come back.
            ActorDeadError: this incarnation has been abandoned, and has no say any more.
        """
        own = self._incarnation
        if own.keeping is None:
            raise RuntimeError(f"{own.name.path}: {NO_LOG}")
        own.keeping.record(entry)

    def recover(self) -> Any:
        """Bring lost state back, before the first message and without the supervisor waiting. May be async."""

    def monitor(self, ref: ActorRef) -> int:
        """Be sent one `Down` when the present incarnation behind `ref` ends; at once if there is none.

        To hear of later incarnations too there is `watch_name`: who answers each Down by a new monitor goes round
        and round while nobody lives there. Returns the token by which the message is known, and the monitor taken back.
        """
        return monitors.monitor(self._incarnation, ref)

    def watch_name(self, ref: ActorRef) -> int:
        """Be sent a `Down` at the end of each incarnation behind `ref` and an `Up` once a later one has started.

        A Down comes at once if nobody is there. It goes on through restarts, and if the name closes and is opened
        again, until `demonitor`. Returns the token.
        """
        return monitors.watch_name(self._incarnation, ref)

    def demonitor(self, token: int, flush: bool = False) -> None:
        """Take a monitor or a watch of a name back; with `flush` also what it has sent and still waits."""
        monitors.demonitor(self._incarnation, token, flush=flush)

    def link(self, ref: ActorRef) -> None:
        """Share fates with the present incarnation behind `ref`: a crash of either ends the other.

        With `trap_exits` an `Exited` comes instead, and after an orderly end too.

        Raises:
            ActorDeadError: there is none.
        """
        links.link(self._incarnation, ref)

    def unlink(self, ref: ActorRef) -> None:
        """Take a link back."""
        links.unlink(self._incarnation, ref)

    def send_after(self, ref: AnyRef, message: Any, delay: float, *, bound_to: BoundTo = "incarnation") -> Timer:
        """Tell `ref` a message in `delay` seconds, unless this incarnation ends before or cancels it.

        A delay below 0 is one that is over: what `at - now` gives where the time has come.
        With `bound_to="name"` it outlives restarts of this actor and ends when its name is closed.

        Raises:
            SpecError: `delay` is no finite number of seconds.
        """
        delay = max(0.0, validation.finite(delay, "send_after(delay)"))
        ref = validation.ref(ref, "send_after(ref)")
        return MessageTimer(self._incarnation, ref, message, delay, bound_to=bound_to)

    def interval(self, ref: AnyRef, message: Any, period: float, *, bound_to: BoundTo = "incarnation") -> Timer:
        """Tell `ref` a message every `period` seconds until this incarnation ends or cancels it.

        The ticks keep to the times that are multiples of the period from now; one that comes late takes the place
        of those that were missed. `bound_to` as in `send_after`.

        Raises:
            SpecError: `period` is no finite number of seconds > 0.
        """
        period = validation.seconds(period, "interval(period)", positive=True)
        ref = validation.ref(ref, "interval(ref)")
        return MessageTimer(self._incarnation, ref, message, period, period, bound_to)


def _own_ref(actor: Any) -> ActorRef:
    return cast("ActorRef", actor._incarnation.name.ref)


def _join_incarnation(actor: Any, _pykkas_own: Any) -> None:
    """Called by Pykka's `__init__` when it assigns `_actor_ref`: here the actor meets its incarnation."""
    incarnation = building.get()
    if incarnation is None or incarnation.actor is not None or not isinstance(actor, incarnation.name.actor_class):
        incarnation = standalone(type(actor))
    incarnation.actor = actor
    setattr(actor, "_incarnation", incarnation)  # noqa: B010  (to a type checker this is any Pykka actor)
    actor.actor_inbox = incarnation.name.mailbox


# Both are None only for the ref that Pykka's `__init__` makes, and that is not kept.


def _own_urn(actor: Any) -> str | None:
    life: Incarnation | None = actor.__dict__.get("_incarnation")
    return None if life is None else life.name.urn


def _own_stopped(actor: Any) -> threading.Event | None:
    life: Incarnation | None = actor.__dict__.get("_incarnation")
    return None if life is None else life.stopped


def _not_kept(actor: Any, _pykkas_own: Any) -> None:
    """Pykka's `__init__` assigns one that it has made."""


_FROM_INCARNATION = {
    "_actor_ref": property(_own_ref, _join_incarnation),
    "actor_urn": property(_own_urn, _not_kept),
    "actor_stopped": property(_own_stopped, _not_kept),
}
"""What an actor has from its life; the last two are made for who asks, since a thousand actors need none of them."""


if TYPE_CHECKING:

    class _PykkaActor:
        """What `pykka.Actor` offers, with hooks that may also be `async def`: Pykka's own say they return None."""

        actor_urn: str
        actor_inbox: Any
        actor_stopped: threading.Event

        def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

        @classmethod
        def start(cls, *args: Any, **kwargs: Any) -> ActorRef: ...

        @property
        def actor_ref(self) -> ActorRef: ...

        def stop(self) -> None: ...

        def on_failure(
            self,
            exception_type: type[BaseException] | None,
            exception_value: BaseException | None,
            traceback: TracebackType | None,
            /,  # so that an override may name them as it likes
        ) -> Any: ...

        def on_receive(self, message: Any) -> Any: ...
else:
    _PykkaActor = pykka.Actor


class Actor(ActorTools, _PykkaActor):
    """An actor on an event loop. Handlers and hooks may be plain or `async def`; plain ones must not block.

    It handles one message at a time, awaits included. An exception in a handler ends it, and the asker hears
    the exception; those named in `expected_errors` are only replied.
    """

    expected_errors: tuple[type[BaseException], ...] = ()
    if not TYPE_CHECKING:
        _actor_ref, actor_urn, actor_stopped = _FROM_INCARNATION.values()

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        # Pykka's own would make a URN, an inbox and an event first, of which nothing is kept here.
        _join_incarnation(self, None)

    @classmethod
    def start(cls, *args: Any, **kwargs: Any) -> ActorRef:
        """Start an actor outside any tree, on a scheduler that all such actors share: nobody restarts it."""
        token = building.set(None)  # it is not the actor under construction, should one start others
        try:
            return super().start(*args, **kwargs)
        finally:
            building.reset(token)

    def on_start(self) -> Any:
        """Prepare for messages. May be async, and return IGNORE, or something for the starter."""

    def on_stop(self) -> Any:
        """Clean up after an orderly end. May be async. Not called after a crash or a kill."""

    @staticmethod
    def _create_actor_inbox() -> Any:
        return None  # the mailbox belongs to the name: see _join_incarnation

    @staticmethod
    def _create_future() -> AskFuture[Any]:
        return AskFuture()

    def _start_actor_loop(self) -> None:
        self._incarnation.begin()


@functools.cache
def supervised(actor_class: type[Any]) -> type[pykka.Actor]:
    """The class that runs under supervision: the class itself, or a subclass made of a `ThreadingActor`.

    Raises:
        SpecError: for other kinds of Pykka actors, and for a class that brings a main loop of its own.
    """
    if issubclass(actor_class, pykka.Actor):
        handlers.check(actor_class)
    if issubclass(actor_class, Actor):
        return cast("type[pykka.Actor]", actor_class)
    if not issubclass(actor_class, pykka.ThreadingActor):
        raise SpecError(f"{actor_class.__name__} is neither a supervision.Actor nor a pykka.ThreadingActor")
    if actor_class._actor_loop is not pykka.Actor._actor_loop:
        raise SpecError(f"{actor_class.__name__} overrides _actor_loop, so that its end could not be noticed")
    members = {
        **_FROM_INCARNATION,
        "_create_actor_inbox": staticmethod(Actor._create_actor_inbox),
        "_create_future": staticmethod(Actor._create_future),
        "_start_actor_loop": Actor._start_actor_loop,
        "__module__": actor_class.__module__,
        "__qualname__": actor_class.__qualname__,
    }
    make: Any = type(actor_class)
    return cast("type[pykka.Actor]", make(actor_class.__name__, (actor_class, ActorTools), members))


pykka_registry.install()
__all__ = ["Actor", "ActorTools", "supervised"]
