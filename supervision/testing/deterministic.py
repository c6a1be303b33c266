"""One seed, one interleaving: a whole system in the calling thread, on virtual time."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import pykka

from supervision import faults
from supervision.errors import BlockingInScheduler, SpecError, SupervisionError
from supervision.hosting import driving
from supervision.hosting.scheduler import Scheduler, _scheduler_threads, _schedulers
from supervision.incarnation import Incarnation
from supervision.kinds import how_to_make
from supervision.specs.child import ChildSpec
from supervision.testing.loop import OUTSIDE, VirtualLoop
from supervision.testing.stuck import who_waits

logger = logging.getLogger("supervision")
T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

PATIENCE = 3600.0
"""How many virtual seconds a wait without a timeout goes on before it counts as endless."""

STEPS_AT_ONE_TIME = 1_000_000
"""How much may happen while time stands still before that counts as endless."""


class Stuck(SupervisionError):
    """What was waited for can never come: nothing is left to do, or it goes round in circles. Says who waits."""


class VirtualClock:
    """The time of a deterministic scheduler."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self.now = loop.time

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        if faults.armed:
            when += faults.lateness()
        return self._loop.call_at(when, callback, context=contextvars.Context())


class DeterministicScheduler(Scheduler):
    """Runs a whole `System` in the thread that waits for it, in an order drawn from `seed`, on virtual time.

        with DeterministicScheduler(seed) as scheduler, System("x", scheduler=scheduler) as system:
            system.supervise(ChildSpec("counter", Counter))
            assert system.whereis("counter").ask(1) == 1

    It plays the workers', the supervisors' and the events' thread at once. Nothing happens but while somebody
    outside waits: in `supervise`, `ask`, a future's `get`, `stop`, `run_until`. Whatever waits for time, backoffs,
    `asyncio.sleep`, the grace of a kill, waits for virtual time, which costs nothing. The same seed gives the same
    run, in every process; an exception that leaves the `with` block carries the seed as a note.

    Which orders can be drawn is told in `supervision.testing.loop`. Actors in threads are refused with SpecError.
    """

    hosts_everything = True

    def __init__(self, seed: int | str = 0, *, start: float = 0.0) -> None:
        # Not the base's __init__: it starts a thread.
        self.seed = seed
        self.name = f"deterministic-{seed}"
        rng = random.Random(f"order {seed}")
        self.loop: VirtualLoop = VirtualLoop(rng, start)  # type: ignore[abstract]  # what it lacks it cannot have
        self.clock = VirtualClock(self.loop)
        self.random = random.Random(f"chance {seed}")
        """For whatever else is left to chance in a run; the jitter of backoffs is drawn from it too."""
        self.supervisors = _SupervisorsLane(self)
        self._thread = threading.current_thread()
        self._entry: tuple[int, driving.Driver] = (threading.get_ident(), self)
        driving.drivers.append(self._entry)
        _schedulers.add(self)

    def __repr__(self) -> str:
        return f"DeterministicScheduler({self.seed!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._sign(error)
        self.close()

    # -- going on ----------------------------------------------------------------------------------

    def run_until(self, condition: Callable[[], object], timeout: float | None = None) -> None:
        """Let things happen until `condition()`.

        Raises:
            TimeoutError: `timeout` virtual seconds have passed.
            Stuck: nothing can happen any more, and the condition is false.
        """
        if not self.drive(condition, timeout):
            raise self._sign(TimeoutError(f"not within {timeout} virtual seconds: {condition!r}"))

    def run(self, *coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
        """Run coroutines beside each other, as senders from different threads, and give their results."""
        tasks = [self._start(coroutine) for coroutine in coroutines]
        self.drive(lambda: all(task.done() for task in tasks))
        return [task.result() for task in tasks]

    def settle(self) -> None:
        """Let everything happen that can happen now, without time passing."""
        self.advance(0.0)

    def advance(self, seconds: float) -> None:
        """Let time pass and everything happen that is due by then."""
        end = self.loop.time() + seconds
        with _Turn(self):
            while self._go_on(end):
                pass
        self.loop.jump(end)

    @property
    def steps(self) -> int:
        """How many things have happened."""
        return self.loop.steps

    @property
    def fingerprint(self) -> int:
        """A number for the whole course so far: two runs that differ anywhere differ in it, as good as certainly."""
        return self.loop.fingerprint

    def drive(self, is_done: Callable[[], object], timeout: float | None = None) -> bool:
        """As `run_until`; False if the time is over."""
        end = self.loop.time() + (PATIENCE if timeout is None else timeout)
        since, budget = self.loop.time(), self.loop.steps + STEPS_AT_ONE_TIME
        with _Turn(self):
            while not is_done():
                if not self._go_on(end):
                    return self._give_up(end, timeout)
                if self.loop.time() != since:
                    since, budget = self.loop.time(), self.loop.steps + STEPS_AT_ONE_TIME
                elif self.loop.steps > budget:
                    raise self._stuck(f"{STEPS_AT_ONE_TIME} things have happened, and time stands still")
        return True

    def _go_on(self, end: float) -> bool:
        """Do one thing, or jump to the next timer. False if neither is possible by `end`."""
        loop = self.loop
        if loop.is_idle:
            due = loop.next_timer()
            if due is None or due > end:
                return False
            loop.jump(due)
            return True
        try:
            loop.step()
        except BaseException as error:  # let out by a stray task, as in a real scheduler; see there
            logger.warning("%s: %r left a task; the loop goes on", self.name, error)
        if loop.failures:
            self._log_failures()
        return True

    def _give_up(self, end: float, timeout: float | None) -> bool:
        if timeout is None and self.loop.next_timer() is None:
            raise self._stuck("nothing is left that could happen")
        if timeout is None:
            raise self._stuck(f"{PATIENCE} virtual seconds have passed")
        self.loop.jump(end)
        return False

    def _stuck(self, why: str) -> Stuck:
        lines = [f"{why}, and what is waited for has not come", *who_waits(self.loop)]
        return self._sign(Stuck("\n".join(lines)))

    def _sign(self, error: E) -> E:
        note = f"to replay this run: {self!r}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error

    def _log_failures(self) -> None:
        failures, self.loop.failures = self.loop.failures, []
        for context in failures:
            logger.error("%s: %s", self.name, context.get("message"), exc_info=context.get("exception"))

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self.loop.create_task(coroutine, context=contextvars.Context())
        task.lane = task
        return task

    # -- what a System asks of a scheduler -----------------------------------------------------------

    @property
    def is_current(self) -> bool:
        return self.loop.is_running()

    def post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        owner = getattr(function, "__self__", None)
        lane = owner if isinstance(owner, Incarnation) else self.loop.lane
        return self.post_in(lane, function, *arguments)

    def post_in(self, lane: Any, function: Callable[..., Any], *arguments: Any) -> bool:
        """As `post`, on account of `lane`: see `supervision.testing.loop`."""
        try:
            self.loop.call_in(lane, function, *arguments, context=contextvars.Context())
        except RuntimeError:  # the loop is closed
            return False
        return True

    def refuse_threads(self, specs: Iterable[ChildSpec]) -> None:
        """Raise SpecError if an actor of `specs`, or of the supervisors among them, would need a thread."""
        for spec in specs:
            actor_class = how_to_make(spec)[0]
            if issubclass(actor_class, pykka.ThreadingActor):
                raise SpecError(f"child {spec.id!r}: {actor_class.__name__} needs a thread, and {self!r} has none")
            if spec.scheduler is not None and spec.scheduler is not self:
                raise SpecError(f"child {spec.id!r} has a scheduler of its own, which {self!r} cannot wait for")
            below = (*spec.args, *spec.kwargs.values())
            self.refuse_threads(each for each in below if isinstance(each, ChildSpec))

    def checked(self, spec: ChildSpec, make: Callable[[], pykka.Actor]) -> Callable[[], pykka.Actor]:
        """As `make`, but refusing what `refuse_threads` does, so that a child added later fails to start."""

        def make_checked() -> pykka.Actor:
            self.refuse_threads([spec])
            return make()

        return make_checked

    def begin_stop(self) -> None:
        """It goes on as long as somebody waits: see `close`."""

    def stop(self, timeout: float | None = 5.0) -> bool:
        return True

    def close(self) -> None:
        """Cancel the tasks that are left, let them end, and refuse everything from now on. Idempotent."""
        if self._entry not in driving.drivers:
            return
        try:
            self._end_tasks()
        finally:
            driving.drivers.remove(self._entry)
            _schedulers.discard(self)
            self.loop.close()

    def _end_tasks(self) -> None:
        for _ in range(100):  # what ends may be restarted, or refuse to
            if not (left := self.tasks_left()):
                break
            for task in left:
                task.cancel()
            self.advance(1.0)
        for task in self.tasks_left():
            with contextlib.suppress(RuntimeError):  # it will not even be closed
                cast("Coroutine[Any, Any, Any]", task.get_coro()).close()

    def tasks_left(self) -> list[asyncio.Task[Any]]:
        """The tasks that have not ended, by name."""
        tasks = [] if self.loop.is_closed() else asyncio.all_tasks(self.loop)
        return sorted(tasks, key=lambda task: task.get_name())


class _SupervisorsLane(Scheduler):
    """The supervisors' side of a deterministic scheduler: they share one lane, as they share one real thread."""

    hosts_everything = True

    def __init__(self, whole: DeterministicScheduler) -> None:
        # Not the base's __init__: it starts a thread.
        self._whole = whole
        self.name = f"{whole.name}-supervisors"
        self.loop = whole.loop

    @property
    def thread(self) -> threading.Thread:
        return self._whole.thread

    @property
    def is_current(self) -> bool:
        return self._whole.is_current

    def post(self, function: Callable[..., Any], *arguments: Any) -> bool:
        return self._whole.post_in("supervisors", function, *arguments)

    def begin_stop(self) -> None:
        pass

    def stop(self, timeout: float | None = 5.0) -> bool:
        return True


class _Turn:
    """While the loop goes on, this thread is a scheduler's: whoever blocks in it is told off."""

    def __init__(self, scheduler: DeterministicScheduler) -> None:
        self._ident = threading.get_ident()
        if scheduler.is_current or asyncio._get_running_loop() is not None or self._ident in _scheduler_threads:
            raise BlockingInScheduler(f"{scheduler!r} is run from plain code, not from within a loop: await instead")
        if scheduler.loop.lane is not OUTSIDE or scheduler.loop.is_closed():
            raise RuntimeError(f"{scheduler!r} has been closed")

    def __enter__(self) -> None:
        _scheduler_threads.add(self._ident)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _scheduler_threads.discard(self._ident)
