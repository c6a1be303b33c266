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

from supervision.child import ChildSpec, SupervisorOptions
from supervision.clock import Clock, RealClock
from supervision.errors import StartFailedError, SystemClosed
from supervision.events import Event, EventStream
from supervision.exits import Abandoned, Crash, Exit, GaveUp, Reason, Shutdown, StartFailed, is_orderly
from supervision.future import AskFuture
from supervision.incarnation import Incarnation, ThreadIncarnation
from supervision.name import ActorRef, Name
from supervision.scheduler import Scheduler
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
        return stopped.get(timeout=None if timeout is None else timeout + 5) if block else stopped


class _RootSupervisor(Supervisor):
    ref_class = RootHandle


class _Root:
    """The owner of a root: there is nobody above it but the system."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.start: AskFuture[Any] = AskFuture()
        self.ended_event = threading.Event()
        self.name: Name
        self.incarnation: Incarnation

    @property
    def shell(self) -> Shell | None:
        return getattr(self.incarnation.actor, "shell", None)

    def started(self, incarnation: Incarnation, info: Any) -> None:
        pykka.ActorRegistry.register(incarnation.name.ref)
        self.start.settle(incarnation.name.ref)

    def ignored(self, incarnation: Incarnation) -> None: ...

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        self.system.root_ended(self, exit)
        incarnation.release()
        self.ended_event.set()

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
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._stopping = False
        self._stopped = threading.Event()
        self._wanted = threading.Event()
        self._unstopped: list[Unstopped] = []
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
        if self._stopping:
            raise SystemClosed(f"system {self.name!r} has been stopped")
        number = next(self._numbers)
        root = _Root(self)
        root.name = self.open_name("root" if number == 1 else f"root{number}", _RootSupervisor, None)
        root.incarnation = SupervisorIncarnation(
            root.name, lambda: _RootSupervisor(*specs, **options), root, scheduler=self.supervisors
        )
        with self._lock:
            self.roots.append(root)
        root.incarnation.begin()
        handle: SupervisorHandle = root.start.get()
        return handle

    def open_name(self, path: str, actor_class: type[pykka.Actor], mailbox: MailboxSpec | None) -> Name:
        """The name at `path`, made or opened anew. What waits in its mailbox stays."""
        name = self._names.get(path)
        if name is None or not _same_kind(name.actor_class, actor_class):
            name = self._names[path] = Name(path, actor_class, mailbox, clock=self.clock, system=self)
            return name
        if name.actor_class is not actor_class:
            name.actor_class = name.ref.actor_class = actor_class
        if mailbox is not None:
            name.mailbox.spec = mailbox
        name.mailbox.reopen()
        return name

    def close_names(self, name: Name, reason: Reason, *, forgotten: bool = False) -> None:
        """Close a name and all below it; answer what waits there."""
        below = name.path + "/"
        subtree = [path for path in list(self._names) if path.startswith(below)] if _is_supervisor(name) else []
        for path in [*subtree, name.path]:
            self._names[path].close(reason)
            if forgotten:
                del self._names[path]

    # -- finding -----------------------------------------------------------------------------------

    def whereis(self, path: str) -> Any:
        """The ref at `path`: an id below a root, a path such as "mid/worker", or None."""
        for candidate in (path, *(f"{root.name.path}/{path}" for root in self.roots)):
            if (name := self._names.get(candidate)) is not None:
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
        """What is wrong with the books at rest: nothing, one hopes. Orphans, and mailboxes held by the dead."""
        known = {name.path for name in self._names.values()}
        faults = []
        for name in list(self._names.values()):
            parent = name.path.rpartition("/")[0]
            if parent and parent not in known:
                faults.append(Unstopped(name.path, "its supervisor is unknown"))
            if name.incarnation is not None and name.incarnation.exit is not None:
                faults.append(Unstopped(name.path, "it is dead, and still behind its name"))
        return faults

    # -- what happens ------------------------------------------------------------------------------

    def emit(self, event: str, path: str, *, epoch: int | None = None, reason: Any = None, **info: Any) -> None:
        """Tell the listeners of `events`."""
        self.events.emit(Event(event, path, self.clock.now(), epoch, reason, info))

    def dead_letter(self, path: str, message: Any) -> None:
        """A message that nobody will handle has been counted at `path`."""
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
        still_there = not isinstance(incarnation, ThreadIncarnation) or incarnation.is_running
        if still_there:
            self.zombies.append(incarnation)

    def zombie_ended(self, incarnation: Incarnation) -> None:
        """The code of an abandoned incarnation has ended after all."""
        if incarnation in self.zombies:
            self.zombies.remove(incarnation)
        self.emit("zombie_ended", incarnation.name.path, epoch=incarnation.epoch)

    def root_ended(self, root: _Root, exit: Exit) -> None:
        reason = exit.reason
        if isinstance(reason, StartFailed):
            root.start.settle(error=_start_error(root.name.path, reason.cause))
        self.close_names(root.name, reason)
        with self._lock:
            if root in self.roots:
                self.roots.remove(root)
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=reason)
        if isinstance(reason, GaveUp) or not (is_orderly(reason) or isinstance(reason, StartFailed)):
            logger.critical("system %s: its root gave up: %s", self.name, reason)
            self.gave_up = exit
            self._wanted.set()

    # -- stopping ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def run(self) -> int:
        """Serve in the main thread until SIGTERM, SIGINT or a root's give-up; then stop. Returns the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._wanted.set())
        while not self._wanted.wait(3600):
            pass
        self.stop()
        if self.gave_up is None:
            return 0
        json.dump({"system": self.name, "gave_up": self.gave_up.path, "reason": str(self.gave_up.reason)}, sys.stderr)
        return 70

    def stop(self, deadline: float | None = None) -> bool:
        """Stop all trees, the newest first, within `deadline` seconds in all; then end the threads.

        Idempotent: a second call waits for the first. False if something could not be stopped: see
        `unstopped_report`.
        """
        with self._lock:
            first = not self._stopping
            self._stopping = True
        if not first:
            return self._stopped.wait(deadline) and not self._unstopped
        until = None if deadline is None else time.monotonic() + deadline
        for root in reversed(self.roots[:]):
            self._stop_root(root, until)
        self._report_zombies()
        self.emit("stopped", self.name)
        self.events.close()
        if self._owns_workers:
            self.workers.stop()
        self.supervisors.stop()
        self._wanted.set()
        self._stopped.set()
        return not self._unstopped

    def _stop_root(self, root: _Root, until: float | None) -> None:
        root.incarnation.order_stop(Shutdown())
        if root.ended_event.wait(None if until is None else max(0.0, until - time.monotonic())):
            return
        for path, name in list(self._names.items()):
            if path.startswith(root.name.path) and name.incarnation is not None:
                self._unstopped.append(Unstopped(path, f"still {name.incarnation.state} at the deadline"))
        root.incarnation.kill()
        root.ended_event.wait(2 * self.kill_grace + 1)

    def _report_zombies(self) -> None:
        for zombie in self.zombies:
            if isinstance(zombie, ThreadIncarnation) and not zombie.is_running:
                continue
            self._unstopped.append(Unstopped(zombie.name.path, f"abandoned: {zombie.exit and zombie.exit.reason}"))
            self.emit("unstopped", zombie.name.path)

    def unstopped_report(self) -> list[Unstopped]:
        """What was still there when `stop` gave up on it."""
        return list(self._unstopped)


def _is_supervisor(name: Name) -> bool:
    return issubclass(name.actor_class, Supervisor)


def _same_kind(one: type[pykka.Actor], other: type[pykka.Actor]) -> bool:
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
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_systems.clear)
