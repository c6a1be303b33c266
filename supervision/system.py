"""The outermost holder of supervision trees: their schedulers, their clock, their names, their end."""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import os
import random
import threading
import weakref
from typing import TYPE_CHECKING, Any, Self

from supervision.clock import Clock, RealClock
from supervision.errors import BlockingInScheduler, SystemClosed
from supervision.exits import Abandoned, Exit, Killed, is_orderly
from supervision.hosting.scheduler import Scheduler, on_scheduler_thread
from supervision.hosting.schedulers import Schedulers
from supervision.kinds import SupervisorIncarnation, check_children
from supervision.names import Names
from supervision.registry import Registry
from supervision.root import Root, RootSupervisor, start_error
from supervision.running import close_publications, serve
from supervision.specs import validation
from supervision.specs.child import ChildSpec, SupervisorOptions
from supervision.stopping import Stopping, Unstopped
from supervision.stuck.watchdog import Watchdog
from supervision.stuck.zombies import Zombies
from supervision.view.audit import Finding, audit
from supervision.view.crash_log import log_exit
from supervision.view.events import Event, EventStream
from supervision.view.published import Publication
from supervision.view.reading import read_tree
from supervision.view.tree import Tree
from supervision.waiting.flag import Flag

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
        self.name = validation.path_part(name, "system name")
        if clock is not None:
            validation.with_methods(clock, "System clock", "a clock", "now", "call_at")
        if scheduler is not None:
            validation.with_methods(scheduler, "System scheduler", "a scheduler", "post")
        self.loop_limit = validation.seconds(loop_limit, "System loop_limit", positive=True)
        self.kill_grace = validation.seconds(kill_grace, "System kill_grace")
        self.max_zombies = validation.count(max_zombies, "System max_zombies")
        whole: Any = scheduler if scheduler is not None and scheduler.hosts_everything else None
        self.supervisors: Scheduler = Scheduler(f"{name}-supervisors") if whole is None else whole.supervisors
        try:
            self.schedulers = Schedulers(name, scheduler)
        except RuntimeError:  # the machine has no more threads to give
            self.supervisors.stop()
            raise
        self.clock: Clock = clock or (RealClock(self.supervisors) if whole is None else whole.clock)
        self.random: Callable[[], float] = random.random if whole is None else whole.random.random
        self.events = EventStream(name, None if whole is None else functools.partial(whole.post_in, "events"))
        self.whole = whole
        """The scheduler that hosts everything, in the thread of whoever waits; None where there are real threads."""
        self.roots: list[Root] = []
        self.zombies = Zombies(self.max_zombies)
        self.dead_letters = 0
        self.gave_up: Exit | None = None
        self.names = Names(self)
        self.registry = Registry(name)
        self.stopping = Stopping(self)
        self.wanted = Flag()
        self.lock = threading.RLock()  # reentrant: a signal handler may call here in the middle
        self.watchdog = Watchdog(self)
        self.publications: list[Publication] = []
        self.has_supervised = False
        self._numbers = itertools.count(1)
        _systems.add(self)

    @property
    def workers(self) -> Scheduler:
        """The scheduler of actors that ask for no other."""
        return self.schedulers.workers

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
                why = "lives in the parent of this fork" if self.stopping.is_forked else "has been stopped"
                raise SystemClosed(f"system {self.name!r} {why}")
            number = next(self._numbers)
            root.name = self.names.open("root" if number == 1 else f"root{number}", RootSupervisor)
            root.start.debtor = root.name
            root.incarnation = SupervisorIncarnation(
                root.name, lambda: RootSupervisor(*specs, **options), root, scheduler=self.supervisors
            )
            self.roots.append(root)
            self.has_supervised = True
        try:
            root.incarnation.begin()
        except BaseException:  # a Ctrl-C in this very moment: nobody must wait for the end of what has not begun
            root.incarnation.kill()
            raise
        if self.whole is None:
            self.watchdog.start()
        else:
            self.whole.drive(lambda: root.start.done)
        handle: SupervisorHandle = root.start.get()
        return handle

    # -- finding -----------------------------------------------------------------------------------

    def whereis(self, path: str) -> Any:
        """The ref at `path`: an id below a root, a path such as "mid/worker", or None."""
        validation.text(path, "whereis(path)")
        for candidate in (path, *(f"{root.name.path}/{path}" for root in self.roots[:])):
            if (name := self.names.open_at(candidate)) is not None:
                return name.ref
        return None

    def tree(self) -> Tree:
        """What there is and what it does, as data; `str()` of it draws it."""
        return read_tree(self)

    def kill(self, ref: ActorRef) -> None:
        """End the present incarnation behind `ref` as an outside hand would: killed, or abandoned if it is a thread."""
        if (incarnation := validation.own_ref(ref, "kill(ref)").name.incarnation) is not None:
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

    def child_exited(self, incarnation: Incarnation, exit: Exit) -> str | None:
        """Bookkeeping of every end: one event. Returns why it cannot go on, if so: there are too many zombies now."""
        self.emit("child_exited", exit.path, epoch=exit.epoch, reason=exit.reason)
        if isinstance(exit.reason, Abandoned):
            return self._keep_zombie(incarnation)
        return None

    def _keep_zombie(self, incarnation: Incarnation) -> str | None:
        reason = None if incarnation.exit is None else incarnation.exit.reason
        self.emit("abandoned", incarnation.name.path, epoch=incarnation.epoch, reason=reason)
        with self.lock:
            if not incarnation.has_code_running:
                return None
            self.zombies.append(incarnation)
            return self.zombies.excess

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
            log_exit(exit, f"system {self.name} ends", level=logging.CRITICAL)
            self.gave_up = exit
            self.wanted.set()
        elif self.stopping.has_begun and not isinstance(reason, Killed):
            log_exit(exit, f"system {self.name} is being stopped")
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
        there the call only begins it, and returns False. So it is in a signal handler or a finalizer that came in
        the middle of something of the runtime's own, which has to be finished before anything can stop.
        """
        return self.stopping.stop(None if deadline is None else validation.seconds(deadline, "stop(deadline)"))

    def unstopped_report(self) -> list[Unstopped]:
        """What has been left behind and is still there; after `stop`, all that it could not end."""
        return self.stopping.report()

    def run(self, *, deadline: float | None = None, publish: bool = True) -> int:
        """Serve in the main thread until SIGTERM, SIGINT, the end of the last tree or a root's give-up; then stop.

        Returns the exit code: 0, or 70 after a give-up, with a report in JSON on stderr. `deadline` is that of
        `stop`; a second signal meanwhile ends the process at once, with a report, and 128 and the signal's number
        as exit code. The tree is published as by `publish()`, unless told otherwise.

        Raises:
            CannotRun: this is not the main thread, or nothing has been supervised yet.
        """
        return serve(self, deadline, publish=publish)

    def publish(self, directory: str | os.PathLike[str] | None = None) -> Publication:
        """Let this user look at the tree from outside: `python -m supervision tree`.

        It is served on a Unix socket in `directory`, else in $XDG_RUNTIME_DIR/supervision or a directory of the
        user's own in that for temporary files, until the system has stopped or the publication is closed.

        Raises:
            PublishError: there is no place for the socket that is safe from others.
        """
        if self.stopping.has_begun:
            raise SystemClosed(f"system {self.name!r} has been stopped")
        publication = Publication(self, directory)
        self.publications.append(publication)
        if self.stopping.is_over:  # in this very moment
            publication.close()
        return publication

    def lose_after_fork(self) -> None:
        """In the child of a fork there is nothing to stop: the threads are in the parent."""
        self.lock = threading.RLock()
        self.stopping.lose_after_fork()
        for publication in self.publications:
            publication.lose_after_fork()
        self.registry.lose_after_fork()
        self.roots.clear()
        self.zombies.clear()


_systems: weakref.WeakSet[System] = weakref.WeakSet()


def _stop_all_at_exit() -> None:
    for system in list(_systems):
        system.stop(10.0)
        close_publications(system)


atexit.register(_stop_all_at_exit)


def _lose_all_after_fork() -> None:
    for system in list(_systems):
        system.lose_after_fork()
    _systems.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_all_after_fork)
