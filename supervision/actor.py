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
import itertools
import logging
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pykka

from supervision import handlers, pykka_registry, validation
from supervision.clock import RealClock
from supervision.construction import building
from supervision.errors import ActorDeadError, SpecError
from supervision.exits import Crash, Exit, Normal, Reason, Shutdown, StartFailed, is_orderly
from supervision.future import AskFuture
from supervision.hosts import LoopIncarnation
from supervision.incarnation import Context, Incarnation
from supervision.keeping import NO_LOG
from supervision.name import ActorRef, Name, no_proc
from supervision.scheduler import default_scheduler

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.clock import Timer
    from supervision.message import Reply

AnyRef = pykka.ActorRef[Any]
"""Any ref at all: ours, or one of Pykka's own."""

_tokens = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Down:
    """The message a monitor sends: the incarnation behind `ref` has ended."""

    token: int
    ref: ActorRef
    reason: Reason


@dataclass(frozen=True, slots=True)
class Exited:
    """The message a link sends to an actor that traps exits."""

    ref: ActorRef
    reason: Reason


class ActorTools:
    """What an actor may use of its own life, on either host. All of it is for the actor's own handlers."""

    trap_exits: bool = False
    _incarnation: Incarnation

    @property
    def context(self) -> Context:
        """Name, epoch, clock, and what is known about the restart that led here."""
        return self._incarnation.context

    def exit(self, reason: Reason | None = None) -> None:
        """End after the message at hand."""
        self._incarnation.ask_to_exit(reason or Normal())

    def owe(self) -> Reply:
        """Take the reply slot of the ask at hand, to be answered later or passed on; return it from the handler."""
        return self._incarnation.owe()

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
        record first, then apply: what was applied and not recorded is lost.

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
        """Be sent one `Down` when the present incarnation behind `ref` ends; at once if there is none."""
        token, own = next(_tokens), self._incarnation
        watched = ref.name.incarnation

        def report(exit: Exit) -> None:
            own.at_end.pop(token, None)
            own.tell(Down(token, ref, exit.reason))

        ended = no_proc(ref.path, own.name.now()) if watched is None else watched.watch(token, report)
        if ended is not None:
            own.tell(Down(token, ref, ended.reason))
        elif watched is not None:
            own.when_over(token, lambda: watched.unwatch(token))
        return token

    def demonitor(self, token: int, flush: bool = False) -> None:
        """Take a monitor back; with `flush` also its `Down`, if that waits already."""
        unwatch = self._incarnation.at_end.pop(token, None)
        if unwatch is not None:
            unwatch()
        if flush:
            self._incarnation.name.mailbox.remove(lambda each: isinstance(each, Down) and each.token == token)

    def link(self, ref: ActorRef) -> None:
        """Share fates with the present incarnation behind `ref`: a crash of either ends the other.

        Raises:
            ActorDeadError: there is none.
        """
        other, own = ref.name.incarnation, self._incarnation
        if other is None or other.exit is not None:
            raise ActorDeadError(ref.path, ref.name.last_exit.reason if ref.name.last_exit is not None else None)
        if other is own or other in own.links:
            return
        for one, two in ((own, other), (other, own)):
            token = one.links[two] = next(_tokens)
            ended = two.watch(token, functools.partial(_exit_of_link, one, two))
            if ended is not None:  # in this very moment
                _exit_of_link(one, two, ended)

    def unlink(self, ref: ActorRef) -> None:
        """Take a link back."""
        own = self._incarnation
        for other in [linked for linked in list(own.links) if linked.name is ref.name]:
            other.unwatch(own.links.pop(other, 0))
            own.unwatch(other.links.pop(own, 0))

    def send_after(self, ref: AnyRef, message: Any, delay: float) -> Timer:
        """Tell `ref` a message in `delay` seconds, unless this incarnation ends before or cancels it."""
        return _OwnTimer(self._incarnation, ref, message, validation.finite(delay, "send_after(delay)"))

    def interval(self, ref: AnyRef, message: Any, period: float) -> Timer:
        """Tell `ref` a message every `period` seconds until this incarnation ends or cancels it."""
        period = validation.seconds(period, "interval(period)", positive=True)
        return _OwnTimer(self._incarnation, ref, message, period, period)


class _OwnTimer:
    """A message to come, once or again and again; it dies with the incarnation that arranged it."""

    def __init__(self, own: Incarnation, ref: AnyRef, message: Any, delay: float, period: float | None = None) -> None:
        self._own, self._ref, self._message, self._period = own, ref, message, period
        self._token = next(_tokens)
        self._is_over = False
        self._next = own.name.now() + delay
        own.when_over(self._token, self.cancel)
        self._arm()

    def _arm(self) -> None:
        if not self._is_over:
            self._timer: Timer = self._own.name.clock.call_at(self._next, self._fire)
            if self._is_over:  # cancelled by another thread in between
                self._timer.cancel()

    def _fire(self) -> None:
        if self._is_over:
            return
        if self._period is None:
            self._end()
        else:  # a late one never piles up: what was missed is left out
            late = max(0.0, self._own.name.now() - self._next)
            self._next += self._period * (1 + late // self._period)
        _tell_if_open(self._ref, self._message)
        self._arm()

    def cancel(self) -> None:
        if not self._is_over:
            self._end()
            if (timer := getattr(self, "_timer", None)) is not None:
                timer.cancel()

    def _end(self) -> None:
        self._is_over = True
        self._own.at_end.pop(self._token, None)


def _tell_if_open(ref: AnyRef, message: Any) -> None:
    try:
        ref.tell(message)
    except pykka.ActorDeadError:  # counted there as a dead letter; a timer has nobody to tell
        pass


def _exit_of_link(own: Incarnation, other: Incarnation, exit: Exit) -> None:
    if own.links.pop(other, None) is None or own.exit is not None:
        return
    if getattr(own.actor, "trap_exits", False):
        own.tell(Exited(other.name.ref, exit.reason))
    elif not is_orderly(exit.reason):
        own.order_stop(Crash("LinkedExit", f"{exit.path} ended: {exit.reason}"))


def _own_ref(actor: Any) -> ActorRef:
    return cast("ActorRef", actor._incarnation.name.ref)


def _join_incarnation(actor: Any, _pykkas_own: Any) -> None:
    """Called by Pykka's `__init__` when it assigns `_actor_ref`: here the actor meets its incarnation."""
    incarnation = building.get()
    if incarnation is None or incarnation.actor is not None or not isinstance(actor, incarnation.name.actor_class):
        incarnation = _standalone(type(actor))
    incarnation.actor = actor
    setattr(actor, "_incarnation", incarnation)  # noqa: B010  (to a type checker this is any Pykka actor)
    actor.actor_inbox = incarnation.name.mailbox
    actor.actor_urn = incarnation.name.urn


_ref_property = property(_own_ref, _join_incarnation)


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
    _actor_ref = _ref_property

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
        "_actor_ref": _ref_property,
        "_create_actor_inbox": staticmethod(Actor._create_actor_inbox),
        "_create_future": staticmethod(Actor._create_future),
        "_start_actor_loop": Actor._start_actor_loop,
        "__module__": actor_class.__module__,
        "__qualname__": actor_class.__qualname__,
    }
    make: Any = type(actor_class)
    return cast("type[pykka.Actor]", make(actor_class.__name__, (actor_class, ActorTools), members))


class _Standalone:
    """The owner of an actor started outside a tree: nobody restarts it, Pykka's rules and log lines hold."""

    def started(self, incarnation: Incarnation, info: Any) -> None:
        pass

    def ignored(self, incarnation: Incarnation) -> None:
        pass

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        incarnation.release()
        incarnation.name.close(exit.reason)

    def zombie_ended(self, incarnation: Incarnation) -> None:
        pass


class _StandaloneLife(LoopIncarnation):
    """A life whose failures are logged as Pykka does, for there is no supervisor to do it."""

    def _failed_to_start(self, error: BaseException) -> Reason:
        self._log_as_pykka()
        return super()._failed_to_start(error)

    async def _fail(self, error: BaseException) -> Reason:
        if not self._killed:
            if self.current is not None and self.current.reply_to is not None:
                logging.getLogger("pykka").info("Exception returned from %s to caller:", self.actor, exc_info=error)
            else:
                self._log_as_pykka()
        return await super()._fail(error)

    def _note_failed_hook(self, hook: str, error: BaseException) -> None:
        self._log_as_pykka()

    def _log_as_pykka(self) -> None:
        kind, error, trace = sys.exc_info()
        if self.actor is not None:
            cast("pykka.Actor", self.actor)._handle_failure(kind, error, cast("TracebackType", trace))


def _standalone(actor_class: type[Any]) -> Incarnation:
    scheduler = default_scheduler()
    number = next(_tokens)
    name = Name(f"{actor_class.__name__}-{number}", actor_class, clock=RealClock(scheduler))
    return _StandaloneLife(name, actor_class, _Standalone(), scheduler=scheduler)


pykka_registry.install()
__all__ = ["Actor", "ActorTools", "Down", "Exited", "Shutdown", "StartFailed", "supervised"]
