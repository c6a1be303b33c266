"""The outermost holder of supervision trees: their schedulers, their clock, their names, their end."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import logging
import os
import random
import signal
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self

from supervision.audit import Finding, audit
from supervision.child import ChildSpec, SupervisorOptions
from supervision.clock import Clock, RealClock
from supervision.errors import BlockingInScheduler, SystemClosed
from supervision.events import Event, EventStream
from supervision.exits import Abandoned, Exit, StartFailed, is_orderly, where_it_crashed
from supervision.kinds import SupervisorIncarnation, check_children
from supervision.names import Names
from supervision.registry import Registry
from supervision.root import Root, RootSupervisor, start_error
from supervision.scheduler import Scheduler, on_scheduler_thread
from supervision.stopping import Stopping, Unstopped
from supervision.tree import Tree, read_tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from supervision.incarnation import Incarnation
    from supervision.name import ActorRef
    from supervision.supervisor import SupervisorHandle

logger = logging.getLogger("supervision")


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
        whole: Any = scheduler if scheduler is not None and scheduler.hosts_everything else None
        self.supervisors: Scheduler = Scheduler(f"{name}-supervisors") if whole is None else whole.supervisors
        self.owns_workers = scheduler is None
        self.workers = scheduler or Scheduler(f"{name}-workers")
        self.clock: Clock = clock or (RealClock(self.supervisors) if whole is None else whole.clock)
        self.random: Callable[[], float] = random.random if whole is None else whole.random.random
        self.events = EventStream(name, None if whole is None else functools.partial(whole.post_in, "events"))
        self.whole = whole
        """The scheduler that hosts everything, in the thread of whoever waits; None where there are real threads."""
        self.loop_limit = loop_limit
        self.kill_grace = kill_grace
        self.max_zombies = max_zombies
        self.roots: list[Root] = []
        self.zombies: list[Incarnation] = []
        self.dead_letters = 0
        self.gave_up: Exit | None = None
        self.names = Names(self)
        self.registry = Registry(name)
        self.stopping = Stopping(self)
        self.wanted = threading.Event()
        self.lock = threading.Lock()
        self._numbers = itertools.count(1)
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
        if self.whole is not None:
            self.whole.refuse_threads(specs)
        if on_scheduler_thread():
            raise BlockingInScheduler("supervise() waits for the start: use start_child of a supervisor's handle")
        root = Root(self)
        with self.lock:
            if self.stopping.has_begun:
                raise SystemClosed(f"system {self.name!r} has been stopped")
            number = next(self._numbers)
            root.name = self.names.open("root" if number == 1 else f"root{number}", RootSupervisor)
            root.incarnation = SupervisorIncarnation(
                root.name, lambda: RootSupervisor(*specs, **options), root, scheduler=self.supervisors
            )
            self.roots.append(root)
        root.incarnation.begin()
        if self.whole is not None:
            self.whole.drive(lambda: root.start.done)
        handle: SupervisorHandle = root.start.get()
        return handle

    # -- finding -----------------------------------------------------------------------------------

    def whereis(self, path: str) -> Any:
        """The ref at `path`: an id below a root, a path such as "mid/worker", or None."""
        for candidate in (path, *(f"{root.name.path}/{path}" for root in self.roots[:])):
            if (name := self.names.open_at(candidate)) is not None:
                return name.ref
        return None

    def tree(self) -> Tree:
        """What there is and what it does, as data; `str()` of it draws it."""
        return read_tree(self)

    def kill(self, ref: ActorRef) -> None:
        """End the present incarnation behind `ref` as an outside hand would: killed, or abandoned if it is a thread."""
        if (incarnation := ref.name.incarnation) is not None:
            incarnation.kill()

    def audit(self) -> list[Finding]:
        """What is wrong with the books at rest: nothing, one hopes."""
        return audit(self)

    # -- what happens ------------------------------------------------------------------------------

    def emit(self, event: str, path: str, *, epoch: int | None = None, reason: Any = None, **info: Any) -> None:
        """Tell the listeners of `events`."""
        if self.events.has_listeners:
            self.events.emit(Event(event, path, self.clock.now(), epoch, reason, info))

    def dead_letter(self, path: str, message: Any) -> None:
        """A message that nobody will handle has been counted at `path`."""
        with self.lock:
            self.dead_letters += 1
        self.emit("dead_letter", path, message=type(message).__name__)

    def child_exited(self, incarnation: Incarnation, exit: Exit) -> None:
        """Bookkeeping of every end: one event, and one log line where something went wrong."""
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=exit.reason)
        reason = exit.reason.cause if isinstance(exit.reason, StartFailed) else exit.reason
        if not is_orderly(reason):
            logger.error(
                "%s (incarnation %d) ended: %s%s", exit.path, exit.epoch, exit.reason, where_it_crashed(reason)
            )
            logger.debug("%s", getattr(reason, "traceback_text", ""))
        if isinstance(exit.reason, Abandoned):
            self._keep_zombie(incarnation)

    def _keep_zombie(self, incarnation: Incarnation) -> None:
        self.emit("abandoned", incarnation.name.path, epoch=incarnation.epoch)
        with self.lock:
            if incarnation.has_code_running:
                self.zombies.append(incarnation)

    def zombie_ended(self, incarnation: Incarnation) -> None:
        """The code of an abandoned incarnation has ended after all."""
        with self.lock:
            if incarnation in self.zombies:
                self.zombies.remove(incarnation)
        self.emit("zombie_ended", incarnation.name.path, epoch=incarnation.epoch)

    def root_ended(self, root: Root, exit: Exit) -> None:
        reason = exit.reason
        self.names.close(root.name, reason, forgotten=True)
        with self.lock:
            if root in self.roots:
                self.roots.remove(root)
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=reason)
        was_starting = root.start.settle(error=start_error(root.name.path, getattr(reason, "cause", reason)))
        if not (is_orderly(reason) or was_starting or self.stopping.has_begun):
            logger.critical("system %s: its root gave up: %s", self.name, reason)
            self.gave_up = exit
            self.wanted.set()
        self.stopping.root_ended(root)

    # -- stopping ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, deadline: float | None = None) -> bool:
        """Stop all trees, the newest first, within `deadline` seconds in all; then end the threads.

        Idempotent: a second call waits for the first, and its deadline holds for both. False if something could
        not be stopped: see `unstopped_report`. The system's own actors and listeners cannot wait for their own end:
        there the call only begins it, and returns False.
        """
        return self.stopping.stop(deadline)

    def unstopped_report(self) -> list[Unstopped]:
        """What has been left behind and is still there; after `stop`, all that it could not end."""
        return self.stopping.report()

    def run(self) -> int:
        """Serve in the main thread until SIGTERM, SIGINT or a root's give-up; then stop. Returns the exit code."""
        former = {
            number: signal.signal(number, lambda *_: self.wanted.set()) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            if self.whole is not None:
                self.whole.drive(self.wanted.is_set)
            while not self.wanted.wait(1.0):  # a signal that another thread was given does not end a longer wait
                pass
            self.stop()
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
        if self.gave_up is None:
            return 0
        json.dump({"system": self.name, "gave_up": self.gave_up.path, "reason": str(self.gave_up.reason)}, sys.stderr)
        return 70

    def lose_after_fork(self) -> None:
        """In the child of a fork there is nothing to stop: the threads are in the parent."""
        self.lock = threading.Lock()
        self.stopping.lose_after_fork()
        self.registry.lose_after_fork()
        self.roots.clear()
        self.zombies.clear()


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
