"""The outermost holder of supervision trees: their schedulers, their clock, their names, their end."""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import signal
import sys
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pykka

from supervision import waits
from supervision.child import ChildSpec, SupervisorOptions
from supervision.clock import Clock, RealClock
from supervision.errors import BlockingInScheduler, StartFailedError, SystemClosed
from supervision.events import Event, EventStream
from supervision.exits import Abandoned, Crash, Exit, Reason, Shutdown, StartFailed, is_orderly
from supervision.future import AskFuture
from supervision.incarnation import Incarnation
from supervision.name import ActorRef, Name
from supervision.scheduler import Scheduler, on_scheduler_thread
from supervision.supervisor import Shell, Supervisor, SupervisorHandle, SupervisorIncarnation, check_children
from supervision.tree import Tree, read_tree

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.child import Mailbox as MailboxSpec

logger = logging.getLogger("supervision")


@dataclass(frozen=True, slots=True)
class Unstopped:
    """Something that could not be stopped, and why."""

    path: str
    why: str


class RootHandle(SupervisorHandle):
    """The handle of a root. Stopping it, as Pykka's `stop_all` does, stops the whole system."""

    is_root = True

    def stop(self, *, block: bool = True, timeout: float | None = None) -> Any:
        system = self._name.system
        assert system is not None
        stopped: AskFuture[bool] = AskFuture()
        was_alive = self.is_alive()

        def stop_system() -> None:
            system.stop(timeout)
            stopped.settle(was_alive)

        threading.Thread(target=stop_system, name="supervision-stop", daemon=True).start()
        return stopped.get() if block else stopped


class _RootSupervisor(Supervisor):
    ref_class = RootHandle


class _Root:
    """The owner of a root: there is nobody above it but the system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.start: AskFuture[Any] = AskFuture()
        self.has_ended = False
        self.name: Name
        self.incarnation: Incarnation

    @property
    def shell(self) -> Shell | None:
        return getattr(self.incarnation.actor, "shell", None)

    def started(self, incarnation: Incarnation, info: Any) -> None:
        self.start.settle(incarnation.name.ref)

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        try:
            self.system.root_ended(self, exit)
        finally:
            incarnation.release()

    def zombie_ended(self, incarnation: Incarnation) -> None:
        self.system.zombie_ended(incarnation)


class System:
    """A name space of supervised actors, and the threads they live on.

        with System("demo") as system:
            system.supervise(ChildSpec("counter", Counter))
            system.whereis("counter").ask(1)

    `clock` measures every timeout, backoff and window of the trees; only `kill_grace` and the joining of threads
    are real time. Actors live on the scheduler `workers`, supervisors on one of their own, so that no handler can
    delay a restart. A system that was never stopped is stopped when the interpreter ends.
    """

    def __init__(
        self,
        name: str,
        *,
        clock: Clock | None = None,
        scheduler: Scheduler | None = None,
        loop_limit: float = 1.0,
        kill_grace: float = 1.0,
        max_zombies: int = 16,
    ) -> None:
        self.name = name
        self.supervisors = Scheduler(f"{name}-supervisors")
        self._owns_workers = scheduler is None
        self.workers = scheduler or Scheduler(f"{name}-workers")
        self.clock: Clock = clock or RealClock(self.supervisors)
        self.events = EventStream(name)
        self.loop_limit = loop_limit
        self.kill_grace = kill_grace
        self.max_zombies = max_zombies
        self.roots: list[_Root] = []
        self.zombies: list[Incarnation] = []
        self.dead_letters = 0
        self.gave_up: Exit | None = None
        self._names: dict[str, Name] = {}
        self._forgotten: weakref.WeakValueDictionary[str, Name] = weakref.WeakValueDictionary()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._changed = threading.Condition()
        self._stopping = False
        self._until: float | None = None
        self._kill_at: float | None = None
        self._leave_at: float | None = None
        self._is_stopped = False
        self._is_forked = False
        self._has_deaf_listener = False
        self._wanted = threading.Event()
        _systems.add(self)

    # -- starting ----------------------------------------------------------------------------------

    def supervise(self, *specs: ChildSpec, **options: Any) -> SupervisorHandle:
        """Start a tree of these children and wait until they are up.

        Raises:
            SpecError: a spec or an option is wrong; nothing has started.
            StartFailedError: a child did not start; what had started was stopped again.
        """
        checked = SupervisorOptions(**options)
        check_children(specs, checked)
        if on_scheduler_thread():
            raise BlockingInScheduler("supervise() waits for the start: use start_child of a supervisor's handle")
        root = _Root(self)
        with self._lock:
            if self._stopping:
                raise SystemClosed(f"system {self.name!r} has been stopped")
            number = next(self._numbers)
            root.name = self.open_name("root" if number == 1 else f"root{number}", _RootSupervisor, None)
            root.incarnation = SupervisorIncarnation(
                root.name, lambda: _RootSupervisor(*specs, **options), root, scheduler=self.supervisors
            )
            self.roots.append(root)
        root.incarnation.begin()
        handle: SupervisorHandle = root.start.get()
        return handle

    # -- names -------------------------------------------------------------------------------------

    def open_name(self, path: str, actor_class: type[Any], mailbox: MailboxSpec | None) -> Name:
        """The name at `path`, made or opened anew. What waits in its mailbox stays, and refs to it work again."""
        name = self.known_name(path)
        if name is None or not _same_kind(name.actor_class, actor_class):
            name = self._names[path] = Name(path, actor_class, mailbox, clock=self.clock, system=self)
            return name
        self._names[path] = name
        if not issubclass(name.actor_class, actor_class):
            name.is_made_by(actor_class)
        if mailbox is not None:
            name.mailbox.spec = mailbox
        name.mailbox.reopen()
        return name

    def known_name(self, path: str) -> Name | None:
        """The name at `path`, also one that is only known by the refs to it."""
        return self._names.get(path) or self._forgotten.get(path)

    def close_names(self, name: Name, reason: Reason, *, forgotten: bool = False) -> None:
        """Close a name and all below it; answer what waits there."""
        for each in [*(self._below(name.path) if _is_supervisor(name) else ()), name]:
            each.close(reason)
            if forgotten and self._names.pop(each.path, None) is not None:
                self._forgotten[each.path] = each

    def close_strangers(self, path: str, kept: set[str]) -> None:
        """A supervisor begins anew with the children `kept`: nobody will ever be behind the others' names."""
        for name in self._below(path):
            if name.path[len(path) + 1 :].partition("/")[0] not in kept:
                self.close_names(name, Shutdown(), forgotten=True)

    def _below(self, path: str) -> list[Name]:
        return [name for known, name in list(self._names.items()) if known.startswith(path + "/")]

    # -- finding -----------------------------------------------------------------------------------

    def whereis(self, path: str) -> Any:
        """The ref at `path`: an id below a root, a path such as "mid/worker", or None."""
        for candidate in (path, *(f"{root.name.path}/{path}" for root in self.roots[:])):
            if (name := self._names.get(candidate)) is not None and name.is_open:
                return name.ref
        return None

    def tree(self) -> Tree:
        """What there is and what it does, as data; `str()` of it draws it."""
        return read_tree(self)

    def kill(self, ref: ActorRef) -> None:
        """End the present incarnation behind `ref` as an outside hand would: killed, or abandoned if it is a thread."""
        if (incarnation := ref.name.incarnation) is not None:
            incarnation.kill()

    def audit(self) -> list[Unstopped]:
        """What is wrong with the books at rest: nothing, one hopes."""
        names = list(self._names.values())
        known = {name.path for name in names}
        refs: list[Any] = pykka.ActorRegistry.get_all()
        registered = [ref for ref in refs if getattr(ref, "name", None) in names]
        faults = [Unstopped(name.path, why) for name in names for why in _faults(name, known)]
        faults += [Unstopped(ref.path, "registered, but dead") for ref in registered if ref.name.incarnation is None]
        return faults

    # -- what happens ------------------------------------------------------------------------------

    def emit(self, event: str, path: str, *, epoch: int | None = None, reason: Any = None, **info: Any) -> None:
        """Tell the listeners of `events`."""
        if self.events.has_listeners:
            self.events.emit(Event(event, path, self.clock.now(), epoch, reason, info))

    def dead_letter(self, path: str, message: Any) -> None:
        """A message that nobody will handle has been counted at `path`."""
        with self._lock:
            self.dead_letters += 1
        self.emit("dead_letter", path, message=type(message).__name__)

    def child_exited(self, incarnation: Incarnation, exit: Exit) -> None:
        """Bookkeeping of every end: one event, and one log line where something went wrong."""
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=exit.reason)
        reason = exit.reason.cause if isinstance(exit.reason, StartFailed) else exit.reason
        if not is_orderly(reason):
            logger.error("%s (incarnation %d) ended: %s%s", exit.path, exit.epoch, exit.reason, _where(reason))
            logger.debug("%s", getattr(reason, "traceback_text", ""))
        if isinstance(exit.reason, Abandoned):
            self._keep_zombie(incarnation)

    def _keep_zombie(self, incarnation: Incarnation) -> None:
        self.emit("abandoned", incarnation.name.path, epoch=incarnation.epoch)
        with self._lock:
            if incarnation.has_code_running:
                self.zombies.append(incarnation)

    def zombie_ended(self, incarnation: Incarnation) -> None:
        """The code of an abandoned incarnation has ended after all."""
        with self._lock:
            if incarnation in self.zombies:
                self.zombies.remove(incarnation)
        self.emit("zombie_ended", incarnation.name.path, epoch=incarnation.epoch)

    def root_ended(self, root: _Root, exit: Exit) -> None:
        reason = exit.reason
        self.close_names(root.name, reason, forgotten=True)
        with self._lock:
            if root in self.roots:
                self.roots.remove(root)
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=reason)
        was_starting = root.start.settle(error=_start_error(root.name.path, getattr(reason, "cause", reason)))
        if not (is_orderly(reason) or was_starting or self._stopping):
            logger.critical("system %s: its root gave up: %s", self.name, reason)
            self.gave_up = exit
            self._wanted.set()
        with self._changed:
            root.has_ended = True
            self._changed.notify_all()

    # -- stopping ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self) -> int:
        """Serve in the main thread until SIGTERM, SIGINT or a root's give-up; then stop. Returns the exit code."""
        former = {
            number: signal.signal(number, lambda *_: self._wanted.set()) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            while not self._wanted.wait(1.0):  # a signal that another thread was given does not end a longer wait
                pass
            self.stop()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
        if self.gave_up is None:
            return 0
        json.dump({"system": self.name, "gave_up": self.gave_up.path, "reason": str(self.gave_up.reason)}, sys.stderr)
        return 70

    def stop(self, deadline: float | None = None) -> bool:
        """Stop all trees, the newest first, within `deadline` seconds in all; then end the threads.

        Idempotent: a second call waits for the first, and its deadline holds for both. False if something could
        not be stopped: see `unstopped_report`. The system's own actors and listeners cannot wait for their own end:
        there the call only begins it, and returns False.
        """
        with self._changed:
            is_first = not self._stopping
            with self._lock:
                self._stopping = True
            self._tighten(deadline)
        if self._is_called_from_within():
            if is_first:
                self._begin_stop()
            return False
        if is_first and not self._begin_stop():
            self._stop_all()
        return self._wait_stopped()

    def _tighten(self, deadline: float | None) -> None:
        """Plan the steps of a stop within `deadline` seconds, unless an earlier call leaves even less time."""
        until = None if deadline is None else time.monotonic() + deadline
        if deadline is not None and until is not None and (self._until is None or until < self._until):
            self._until = until
            self._leave_at = until - min(0.1, deadline / 10)
            self._kill_at = self._leave_at - min(self.kill_grace, deadline / 4)
            self._changed.notify_all()

    def _is_called_from_within(self) -> bool:
        turn = waits.current.get()
        is_in_handler = turn is not None and turn.incarnation.name.system is self and not turn.is_over
        return is_in_handler or any(thread.is_current for thread in (self.workers, self.supervisors, self.events))

    def _begin_stop(self) -> bool:
        """Stop in a thread of its own, so that a Ctrl-C for the one who waits leaves no half-stopped system."""
        try:
            threading.Thread(target=self._stop_all, name=f"supervision-stop-{self.name}", daemon=True).start()
        except RuntimeError:  # the interpreter is on its way out and starts no threads any more
            return False
        return True

    def _wait_stopped(self) -> bool:
        with self._changed:
            while not self._is_stopped and self._is_before(self._until):
                pass
        return self._is_stopped and not self.unstopped_report()

    def _is_before(self, at: float | None) -> bool:
        """Wait for a change until `at`, by real time. False if it is past."""
        left = None if at is None else at - time.monotonic()
        if left is not None and left <= 0:
            return False
        self._changed.wait(left)
        return True

    def _stop_all(self) -> None:
        try:
            for root in reversed(self.roots[:]):
                self._stop_root(root)
            self._end_threads()
        finally:
            with self._changed:
                self._is_stopped = True
                self._changed.notify_all()
            self._wanted.set()

    def _stop_root(self, root: _Root) -> None:
        """Ask; where a deadline comes near, kill; at last leave behind what still has not ended."""
        root.incarnation.order_stop(Shutdown())
        with self._changed:
            while not root.has_ended and self._is_before(self._kill_at):
                pass
        if root.has_ended:
            return
        root.incarnation.kill()
        with self._changed:
            while not root.has_ended and self._is_before(self._leave_at):
                pass
        for name in self._below(root.name.path):
            if not _is_supervisor(name) and (incarnation := name.incarnation) is not None:
                incarnation.abandon("not stopped by the deadline")
        with self._changed:  # nothing can hold it up any more: supervisors run nobody's code
            self._changed.wait_for(lambda: root.has_ended, 1.0)

    def _end_threads(self) -> None:
        for zombie in self.zombies[:]:
            self.emit("unstopped", zombie.name.path, epoch=zombie.epoch)
        self.emit("stopped", self.name)
        self._has_deaf_listener = not self.events.close(self._seconds_left(2.0))
        own = [self.supervisors, self.workers] if self._owns_workers else [self.supervisors]
        for scheduler in own:
            scheduler.begin_stop()
        for scheduler in own:
            scheduler.stop(self._seconds_left(5.0))

    def _seconds_left(self, at_most: float) -> float:
        return at_most if self._until is None else max(0.02, min(at_most, self._until - time.monotonic()))

    def unstopped_report(self) -> list[Unstopped]:
        """What has been left behind and is still there; after `stop`, all that it could not end."""
        left = [
            Unstopped(zombie.name.path, f"its code still runs: {zombie.exit.reason if zombie.exit else None}")
            for zombie in self.zombies[:]
        ]
        if not self._stopping or self._is_forked:
            return left
        living = [(name.path, name.incarnation) for name in list(self._names.values())]
        left += [Unstopped(path, f"still {each.state}") for path, each in living if each is not None]
        if self._has_deaf_listener:
            left.append(Unstopped("events", "a listener has not come back"))
        schedulers = [self.workers, self.supervisors] if self._owns_workers else [self.supervisors]
        left += [Unstopped(each.name, "its thread is blocked") for each in schedulers if each.thread.is_alive()]
        return left

    def lose_after_fork(self) -> None:
        """In the child of a fork there is nothing to stop: the threads are in the parent."""
        self._lock, self._changed = threading.Lock(), threading.Condition()
        self._stopping = self._is_stopped = self._is_forked = True
        self.roots.clear()
        self.zombies.clear()


def _is_supervisor(name: Name) -> bool:
    return issubclass(name.actor_class, Supervisor)


def _faults(name: Name, known: set[str]) -> list[str]:
    parent, incarnation = name.path.rpartition("/")[0], name.incarnation
    faults = {
        "its supervisor is unknown": bool(parent) and parent not in known,
        "it is dead, and still behind its name": incarnation is not None and incarnation.exit is not None,
        "nobody is behind it, but somebody may take its messages": incarnation is None
        and name.mailbox.lease is not None,
        "its name is closed, and it lives": incarnation is not None and not name.is_open,
        "its name is closed, and messages wait": not name.is_open and len(name.mailbox) > 0,
    }
    return [why for why, is_so in faults.items() if is_so]


def _same_kind(one: type[Any], other: type[Any]) -> bool:
    return getattr(one, "ref_class", ActorRef) is getattr(other, "ref_class", ActorRef)


def _where(reason: Any) -> str:
    """The last line of code of a crash, for its log line."""
    if not isinstance(reason, Crash):
        return ""
    frames = [line.strip() for line in reason.traceback_text.splitlines() if line.strip().startswith("File ")]
    return f" ({frames[-1]})" if frames else ""


def _start_error(path: str, reason: Any) -> StartFailedError:
    """The error of a failed `supervise`: names the child at fault."""
    failed = getattr(reason, "info", None)
    if failed is not None and hasattr(failed, "id"):
        return StartFailedError(f"{path}/{failed.id}", failed.reason)
    return StartFailedError(path, reason)


_systems: weakref.WeakSet[System] = weakref.WeakSet()


def _stop_all_at_exit() -> None:
    for system in list(_systems):
        system.stop(10.0)


atexit.register(_stop_all_at_exit)


def _lose_all_after_fork() -> None:
    for system in list(_systems):
        system.lose_after_fork()
    _systems.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
