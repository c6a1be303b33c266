"""The end of a system: all trees within one deadline, and an honest list of what could not be ended."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from supervision.exits import Shutdown
from supervision.kinds import is_supervisor
from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.root import Root
    from supervision.system import System


logger = logging.getLogger("supervision")

LONGEST_WAIT = 1.0
"""Seconds. A signal that another thread is given, or that comes just before a wait, does not end it in Python: its
handler runs afterwards, and may be the second Ctrl-C of somebody who does not want to wait."""


@dataclass(frozen=True, slots=True)
class Unstopped:
    """Something that could not be stopped, and why."""

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class _Wait:
    """A step on the way: wait for something, until a time that a later call may bring forward."""

    is_done: Callable[[], bool]
    until: Callable[[], float | None]


class Stopping:
    """One system's way to its end. Deadlines are real time; virtual where the scheduler has no thread."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.has_begun = False
        self.is_over = False
        self.is_forked = False
        self._is_carried_out = False
        self._now: Callable[[], float] = time.monotonic if system.whole is None else system.whole.clock.now
        self._changed = threading.Condition()
        self._task: asyncio.Task[None] | None = None
        self._sleeper: asyncio.Future[None] | None = None
        self._when_over: list[Callable[[], object]] = []
        self._until: float | None = None
        self._kill_at: float | None = None
        self._leave_at: float | None = None

    def stop(self, deadline: float | None = None) -> bool:
        """See `System.stop`."""
        self._note(deadline)
        if self._is_called_from_within() or _is_in_the_middle():
            self._begin_stop()
            return False
        if not self._begin_stop():
            self._stop_all()
        return self._wait_stopped()

    def begin(self, deadline: float | None, when_over: Callable[[], object]) -> None:
        """Only begin to stop; `when_over` is called once all is done, at once if it is."""
        self._note(deadline)
        if self.is_over:
            when_over()
            return
        self._when_over.append(when_over)
        self._begin_stop()

    def _note(self, deadline: float | None) -> None:
        """From here on nothing new is started."""
        with self._changed:
            with self.system.lock:
                self.has_begun = True
            self._tighten(deadline)

    def _tighten(self, deadline: float | None) -> None:
        """Plan the steps of a stop within `deadline` seconds, unless an earlier call leaves even less time."""
        until = None if deadline is None else self._now() + deadline
        if deadline is not None and until is not None and (self._until is None or until < self._until):
            self._until = until
            self._leave_at = until - min(0.1, deadline / 10)
            self._kill_at = self._leave_at - min(self.system.kill_grace, deadline / 4)
            self._notify()

    def _notify(self) -> None:
        """Have those look again who wait for a change. Holds the lock."""
        self._changed.notify_all()
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)

    def _is_called_from_within(self) -> bool:
        turn = waits.current.get()
        is_in_handler = turn is not None and turn.incarnation.name.system is self.system and not turn.is_over
        schedulers = (*self.system.schedulers.in_use(), self.system.supervisors)
        return is_in_handler or self.system.events.is_current or any(each.is_current for each in schedulers)

    def _begin_stop(self) -> bool:
        """Stop in a thread of its own, so that a Ctrl-C for the one who waits leaves no half-stopped system.

        Idempotent. False if there is no thread for it: then who calls next has to see to it.
        """
        if self._is_carried_out or self.is_over:
            return True
        if self.system.whole is not None:
            return self._begin_task()
        try:
            threading.Thread(target=self._stop_all, name=f"supervision-stop-{self.system.name}", daemon=True).start()
        except RuntimeError:  # the interpreter is on its way out and starts no threads any more
            return False
        return True

    def _begin_task(self) -> bool:
        self._is_carried_out = True
        loop = self.system.supervisors.loop
        if loop.is_closed():  # with all that was on it
            self._end()
        else:
            self._task = loop.create_task(self._stop_all_in_task(), name="stop", context=contextvars.Context())
        return True

    def _wait_stopped(self) -> bool:
        whole = self.system.whole
        if whole is not None and not self.is_over:
            whole.drive(lambda: self.is_over or (self._until is not None and self._now() >= self._until))
        with self._changed:
            while not self.is_over and self._is_before(self._until):
                pass
        return self.is_over and not self.report()

    def _is_before(self, at: float | None) -> bool:
        """Wait for a change until `at`, or for a while. False if it is past."""
        left = LONGEST_WAIT if at is None else at - self._now()
        if left <= 0:
            return False
        self._changed.wait(min(left, LONGEST_WAIT))
        return True

    def _stop_all(self) -> None:
        with self._changed:  # claimed here, not by who starts the thread: a Ctrl-C could come between the two
            if self._is_carried_out:
                return
            self._is_carried_out = True
        try:
            for wait in self._steps():
                with self._changed:
                    while not wait.is_done() and self._is_before(wait.until()):
                        pass
        finally:
            self._end()

    async def _stop_all_in_task(self) -> None:
        try:
            for wait in self._steps():
                while not wait.is_done() and await self._sleeps_before(wait.until()):
                    pass
        finally:
            self._end()

    async def _sleeps_before(self, at: float | None) -> bool:
        """As `_is_before`, on a loop without threads."""
        if at is not None and at <= self._now():
            return False
        loop = asyncio.get_running_loop()
        self._sleeper = loop.create_future()
        alarm = None if at is None else loop.call_at(at, self._wake_up)
        await self._sleeper
        if alarm is not None:
            alarm.cancel()
        return True

    def _wake_up(self) -> None:
        with self._changed:
            self._notify()

    def _end(self) -> None:
        for publication in self.system.publications[:]:
            _guarded(publication.close)
        with self._changed:
            self.is_over = True
            self._notify()
            callbacks, self._when_over = self._when_over, []
        self.system.wanted.set()
        for callback in callbacks:
            _guarded(callback)

    def _steps(self) -> Iterator[_Wait]:
        for root in reversed(self.system.roots[:]):
            yield from self._stop_root(root)
        self._end_threads()

    def _stop_root(self, root: Root) -> Iterator[_Wait]:
        """Ask; where a deadline comes near, kill; at last leave behind what still has not ended."""
        root.incarnation.order_stop(Shutdown())
        yield _Wait(lambda: root.has_ended, lambda: self._kill_at)
        if root.has_ended:
            return
        root.incarnation.kill()
        yield _Wait(lambda: root.has_ended, lambda: self._leave_at)
        for name in self.system.names.below(root.name.path):
            if not is_supervisor(name.actor_class) and (incarnation := name.incarnation) is not None:
                incarnation.abandon("not stopped by the deadline")
        at_last = self._now() + 1.0  # nothing can hold it up any more: supervisors run nobody's code
        yield _Wait(lambda: root.has_ended, lambda: at_last)

    def _end_threads(self) -> None:
        _guarded(lambda: self.system.watchdog.stop(self._seconds_left(2.0)))
        for zombie in self.system.zombies[:]:
            self.system.emit("unstopped", zombie.name.path, epoch=zombie.epoch)
        self.system.emit("stopped", self.system.name)
        _guarded(self.system.registry.close)
        _guarded(lambda: self.system.events.close(self._seconds_left(2.0)))
        own = [self.system.supervisors, *self.system.schedulers.own()]
        for scheduler in own:
            scheduler.begin_stop()
        for scheduler in own:
            scheduler.stop(self._seconds_left(5.0))

    def _seconds_left(self, at_most: float) -> float:
        # Half of what is left: whoever comes next, and the report, need some too.
        return at_most if self._until is None else max(0.02, min(at_most, (self._until - self._now()) / 2))

    def report(self) -> list[Unstopped]:
        """What has been left behind and is still there; after `stop`, all that it could not end."""
        left = [
            Unstopped(zombie.name.path, f"its code still runs: {zombie.exit.reason if zombie.exit else None}")
            for zombie in self.system.zombies[:]
        ]
        left += [Unstopped(each.name, "its thread is blocked") for each in self.system.schedulers.given_up()]
        if not self.has_begun or self.is_forked:
            return left
        living = [(name.path, name.incarnation) for name in self.system.names.all()]
        left += [Unstopped(path, f"still {each.state}") for path, each in living if each is not None]
        if self.system.events.is_hanging:
            left.append(Unstopped("events", "a listener has not come back"))
        if self.system.watchdog.is_hanging:
            left.append(Unstopped("watchdog", "it has not come back from a callback"))
        schedulers = self.system.schedulers.own()
        if self.system.whole is None:
            schedulers.append(self.system.supervisors)
        return left + [Unstopped(each.name, "its thread is blocked") for each in schedulers if each.thread.is_alive()]

    def root_ended(self, root: Root) -> None:
        """A root has ended, for whatever reason: whoever waits for it may go on."""
        with self._changed:
            root.has_ended = True
            self._notify()

    def lose_after_fork(self) -> None:
        """In the child of a fork there is nothing to stop."""
        self._changed = threading.Condition()
        self.has_begun = self.is_over = self.is_forked = True


def _is_in_the_middle() -> bool:
    """True in a signal handler or finalizer that has come while this thread holds a lock of the runtime.

    Whoever waited there would wait for himself: he who is to stop the trees needs that lock too.
    """
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).startswith("supervision."):
            owner = frame.f_locals.get("self")
            if any(_is_locked(getattr(owner, name, None)) for name in ("lock", "_lock", "_changed")):
                return True
        frame = frame.f_back
    return False


def _is_locked(lock: Any) -> bool:
    """True if a lock is held; a reentrant one: by this thread."""
    is_held = getattr(lock, "_is_owned", None) or getattr(lock, "locked", None)
    return is_held is not None and bool(is_held())


def _guarded(step: Callable[[], object]) -> None:
    try:
        step()
    except Exception:  # what comes after has to be ended too
        logger.exception("a step of a stop failed")
