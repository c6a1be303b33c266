"""A thread that looks, a few times a second, for handlers and loops that do not come back, and for lost exits."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from supervision.stuck.ladder import Ladder, overdue_turn, tell_long_turn
from supervision.stuck.pulse import Pulse

if TYPE_CHECKING:
    from supervision.hosting.scheduler import Scheduler
    from supervision.incarnation import Incarnation
    from supervision.system import System

logger = logging.getLogger("supervision")

SWEEP_SECONDS = 1.0
"""How often the books are compared with the threads and tasks that there are."""

LONGEST_PERIOD = 0.25


class Watchdog:
    """Watches over one system from a thread of its own.

    - Handlers with a `max_handle_time`: see `Ladder`. Where a handler without one is still running at its message's
      deadline, the event `long_turn` is all that comes of it.
    - Loops: whoever keeps one to himself for half of `loop_limit`, in real seconds, is told as `long_turn`; at
      `loop_limit` the scheduler is given up, with the event `scheduler_blocked` and the stack. All who lived there
      end `Abandoned("scheduler")`, as one incident, and are restarted on a fresh scheduler.
    - The supervisors' own scheduler runs nobody's code, so that only a logging handler, a clock's callback or the
      hook of a derived supervisor can block it. There is nobody to restart it: event and log say where it hangs.
    - Exits that got lost, with the thread or task that should have reported them, are made up.

    Real time that this thread did not see counts for nothing: a C call that holds the interpreter, or a machine that
    is busy elsewhere, silences everybody, and nobody is at fault. `tick` may be called by hand, with any `now`.
    """

    def __init__(self, system: System) -> None:
        self._system = system
        limit = system.loop_limit
        self.period = LONGEST_PERIOD if limit is None else min(LONGEST_PERIOD, limit / 5)
        self._limit = limit
        self._ladders: dict[Incarnation, Ladder] = {}
        self._pulses: dict[Scheduler, Pulse] = {}
        self._told: dict[Incarnation, int] = {}
        self._last: float | None = None
        self._swept = 0.0
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._lock = threading.Lock()

    def watch(self, life: Incarnation) -> None:
        """Have an eye on a life with a `max_handle_time`, until it ends."""
        self._ladders[life] = Ladder(life, self._system.kill_grace)

    # -- its thread --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look. Idempotent. Where the machine has no thread left for it, nobody looks."""
        with self._lock:
            if self._thread is not None or self._over.is_set():
                return
            thread = threading.Thread(target=self._run, name=f"supervision-watchdog-{self._system.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                logger.error("%s has no watchdog: %s", self._system.name, error)
                return
            self._thread = thread

    def stop(self, timeout: float | None = 2.0) -> bool:
        """End it for good. False if it is still there after `timeout` seconds."""
        with self._lock:
            self._over.set()
            thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    @property
    def is_hanging(self) -> bool:
        """True if it was to end, and has not: something that an exit calls has not come back."""
        return self._over.is_set() and self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        while not self._over.wait(self.period):
            try:
                self.tick(time.monotonic())
            except Exception:  # whatever goes wrong with one look, there will be another
                logger.exception("%s: the watchdog stumbled", self._system.name)

    # -- looking -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        """One look at everything. `now` is real monotonic time."""
        gap = 0.0 if self._last is None else now - self._last
        self._last = now
        is_late = gap > 2 * self.period
        if is_late:
            self._forgive(gap)
        for life, ladder in list(self._ladders.items()):
            if life.exit is not None:
                self._ladders.pop(life, None)
            elif not is_late:
                ladder.climb(now)
        self._feel_pulses(now)
        if now - self._swept >= SWEEP_SECONDS:
            self._swept = now
            self._sweep()

    def _forgive(self, seconds: float) -> None:
        for pulse in self._pulses.values():
            pulse.forget()
        for ladder in list(self._ladders.values()):
            ladder.wait_longer(seconds)

    # -- loops -------------------------------------------------------------------------------------

    def _feel_pulses(self, now: float) -> None:
        if self._limit is None:
            return
        watched = {*self._system.schedulers.in_use(), self._system.supervisors}
        for gone in self._pulses.keys() - watched:
            self._lose(self._pulses.pop(gone))
        for scheduler in watched:
            if scheduler.is_over or scheduler.hosts_everything:
                continue
            pulse = self._pulses.get(scheduler) or self._pulses.setdefault(scheduler, Pulse(scheduler))
            self._judge(pulse, pulse.feel(now), self._limit)

    def _lose(self, pulse: Pulse) -> None:
        """Others that share the scheduler may have given it up before this watchdog came to see it."""
        if pulse.scheduler.is_abandoned and not pulse.is_condemned:
            self._system.emit("scheduler_blocked", pulse.scheduler.name, actor=None, seconds=None, stack=pulse.stack())

    def _judge(self, pulse: Pulse, seconds: float, limit: float) -> None:
        if seconds >= limit and not pulse.is_condemned:
            self._give_up(pulse, seconds)
        elif seconds >= limit / 2 and not pulse.has_warned:
            pulse.has_warned = True
            self._warn(pulse, seconds)

    def _warn(self, pulse: Pulse, seconds: float) -> None:
        life, stack = pulse.culprit(), pulse.stack()
        envelope = None if life is None else life.current
        if life is not None and envelope is not None:
            tell_long_turn(life, envelope, seconds, stack)
        else:
            path = pulse.scheduler.name if life is None else life.name.path
            logger.warning("%s has kept its loop for %.3g s", path, seconds)
            self._system.emit("long_turn", path, message=None, seconds=seconds, stack=stack)

    def _give_up(self, pulse: Pulse, seconds: float) -> None:
        scheduler, life, stack = pulse.scheduler, pulse.culprit(), pulse.stack()
        path = None if life is None else life.name.path
        is_supervisors = scheduler is self._system.supervisors
        what = "it cannot be replaced" if is_supervisors else "all on it are restarted elsewhere"
        logger.error("%s has been blocked for %.3g s by %s; %s", scheduler.name, seconds, path or "a task", what)
        logger.error("%s", stack)
        self._system.emit("scheduler_blocked", scheduler.name, actor=path, seconds=seconds, stack=stack)
        pulse.is_condemned = True
        if is_supervisors:
            return
        try:
            scheduler.abandon(incident=("scheduler", scheduler.name, id(scheduler)))
        except RuntimeError as error:  # the machine has no thread for another one
            logger.error("%s cannot be replaced yet: %s", scheduler.name, error)
            pulse.is_condemned = False

    # -- lost exits --------------------------------------------------------------------------------

    def _sweep(self) -> None:
        lives = [life for name in self._system.names.all() if (life := name.incarnation) is not None]
        for life in (*lives, *self._system.zombies[:]):
            # In this order: a host that has ended has reported before, if it was going to.
            if life.is_host_gone and (life.exit is None or life.has_code_running):
                life.make_up_exit()
        self._tell_overdue(lives)

    def _tell_overdue(self, lives: list[Incarnation]) -> None:
        told: dict[Incarnation, int] = {}
        for life in lives:
            if life.current is None or life in self._ladders or (overdue := overdue_turn(life)) is None:
                continue
            turn, envelope, seconds = overdue
            if self._told.get(life) != turn:
                tell_long_turn(life, envelope, seconds)
            told[life] = turn
        self._told = told
