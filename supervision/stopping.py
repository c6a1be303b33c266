"""The end of a system: all trees within one deadline, and an honest list of what could not be ended."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from supervision import waits
from supervision.exits import Shutdown
from supervision.kinds import is_supervisor

if TYPE_CHECKING:
    from supervision.root import Root
    from supervision.system import System


@dataclass(frozen=True, slots=True)
class Unstopped:
    """Something that could not be stopped, and why."""

    path: str
    why: str


class Stopping:
    """One system's way to its end; deadlines are real time."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.has_begun = False
        self.is_over = False
        self.is_forked = False
        self._changed = threading.Condition()
        self._until: float | None = None
        self._kill_at: float | None = None
        self._leave_at: float | None = None
        self._has_deaf_listener = False

    def stop(self, deadline: float | None = None) -> bool:
        """See `System.stop`."""
        with self._changed:
            is_first = not self.has_begun
            with self.system.lock:
                self.has_begun = True
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
            self._kill_at = self._leave_at - min(self.system.kill_grace, deadline / 4)
            self._changed.notify_all()

    def _is_called_from_within(self) -> bool:
        turn = waits.current.get()
        is_in_handler = turn is not None and turn.incarnation.name.system is self.system and not turn.is_over
        return is_in_handler or any(
            thread.is_current for thread in (self.system.workers, self.system.supervisors, self.system.events)
        )

    def _begin_stop(self) -> bool:
        """Stop in a thread of its own, so that a Ctrl-C for the one who waits leaves no half-stopped system."""
        try:
            threading.Thread(target=self._stop_all, name=f"supervision-stop-{self.system.name}", daemon=True).start()
        except RuntimeError:  # the interpreter is on its way out and starts no threads any more
            return False
        return True

    def _wait_stopped(self) -> bool:
        with self._changed:
            while not self.is_over and self._is_before(self._until):
                pass
        return self.is_over and not self.report()

    def _is_before(self, at: float | None) -> bool:
        """Wait for a change until `at`, by real time. False if it is past."""
        left = None if at is None else at - time.monotonic()
        if left is not None and left <= 0:
            return False
        self._changed.wait(left)
        return True

    def _stop_all(self) -> None:
        try:
            for root in reversed(self.system.roots[:]):
                self._stop_root(root)
            self._end_threads()
        finally:
            with self._changed:
                self.is_over = True
                self._changed.notify_all()
            self.system.wanted.set()

    def _stop_root(self, root: Root) -> None:
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
        for name in self.system.names.below(root.name.path):
            if not is_supervisor(name.actor_class) and (incarnation := name.incarnation) is not None:
                incarnation.abandon("not stopped by the deadline")
        with self._changed:  # nothing can hold it up any more: supervisors run nobody's code
            self._changed.wait_for(lambda: root.has_ended, 1.0)

    def _end_threads(self) -> None:
        for zombie in self.system.zombies[:]:
            self.system.emit("unstopped", zombie.name.path, epoch=zombie.epoch)
        self.system.emit("stopped", self.system.name)
        self._has_deaf_listener = not self.system.events.close(self._seconds_left(2.0))
        own = [self.system.supervisors, self.system.workers] if self.system.owns_workers else [self.system.supervisors]
        for scheduler in own:
            scheduler.begin_stop()
        for scheduler in own:
            scheduler.stop(self._seconds_left(5.0))

    def _seconds_left(self, at_most: float) -> float:
        return at_most if self._until is None else max(0.02, min(at_most, self._until - time.monotonic()))

    def report(self) -> list[Unstopped]:
        """What has been left behind and is still there; after `stop`, all that it could not end."""
        left = [
            Unstopped(zombie.name.path, f"its code still runs: {zombie.exit.reason if zombie.exit else None}")
            for zombie in self.system.zombies[:]
        ]
        if not self.has_begun or self.is_forked:
            return left
        living = [(name.path, name.incarnation) for name in self.system.names.all()]
        left += [Unstopped(path, f"still {each.state}") for path, each in living if each is not None]
        if self._has_deaf_listener:
            left.append(Unstopped("events", "a listener has not come back"))
        schedulers = (
            [self.system.workers, self.system.supervisors] if self.system.owns_workers else [self.system.supervisors]
        )
        left += [Unstopped(each.name, "its thread is blocked") for each in schedulers if each.thread.is_alive()]
        return left

    def root_ended(self, root: Root) -> None:
        """A root has ended, for whatever reason: whoever waits for it may go on."""
        with self._changed:
            root.has_ended = True
            self._changed.notify_all()

    def lose_after_fork(self) -> None:
        """In the child of a fork there is nothing to stop."""
        self._changed = threading.Condition()
        self.has_begun = self.is_over = self.is_forked = True
