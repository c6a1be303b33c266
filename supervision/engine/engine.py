"""The decisions of a supervisor, and nothing else: no thread, no clock, no randomness, no user code.

`Engine.decide(event, now, rand)` says what to do about an event; the shell does it and reports back with further
events. One engine serves one incarnation of one supervisor. What a decision costs does not grow with the number of
children, apart from those it concerns and the calls that list them all.

Rules: erlang/otp lib/stdlib/src/supervisor.erl; for `is_dynamic`, elixir-lang/elixir
lib/elixir/lib/dynamic_supervisor.ex.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import assert_never

from supervision.engine.backlog import Backlog
from supervision.engine.calls import READS, Calls, child_id_of, is_busy_with_call
from supervision.engine.roster import Child, Phase, Purpose, Roster
from supervision.engine.sequence import ParallelStop, Sequence
from supervision.engine.vocabulary import (
    Answer,
    ArmTimer,
    Call,
    ChildExited,
    ChildIgnored,
    ChildStarted,
    ChildStartFailed,
    Effect,
    Ended,
    Event,
    Finish,
    Kill,
    Ok,
    Outlook,
    Reply,
    ShutdownRequested,
    StartAll,
    Started,
    StartedAll,
    StartError,
    TimerFired,
    TimerKey,
)
from supervision.exits import (
    Abandoned,
    FailedToStart,
    Failure,
    GaveUp,
    Killed,
    Normal,
    Reason,
    Shutdown,
    StartTimeout,
)
from supervision.specs.child import BRUTAL_KILL, ChildSpec
from supervision.specs.strategy import DROP_CHILD, AutoShutdown, Pause, Restart, Strategy, SupervisorOptions


class Engine:
    """One supervisor's mind.

    `path` names it in the chain of a GaveUp. `epochs`: the last epoch each child's name has had, where it had one.
    `is_dynamic`: children are forgotten when they end, stopped all at once, and at most `max_children` at a time.
    Raises SpecError if the specs and options do not fit together.
    """

    def __init__(
        self,
        options: SupervisorOptions,
        specs: Iterable[ChildSpec] = (),
        *,
        path: str = "",
        epochs: Mapping[str, int] | None = None,
        is_dynamic: bool = False,
        max_children: int | None = None,
    ) -> None:
        self._path = path
        self._roster = Roster(options, specs, epochs or {}, is_dynamic=is_dynamic)
        self._calls = Calls(self._roster, max_children)
        self._sequence: Sequence | None = None
        self._parallel_stop: ParallelStop | None = None
        self._is_up = False
        self._is_over = False
        self._final: Reason | None = None
        self._backlog = Backlog(self._roster)
        self._now = 0.0
        self._rand = 0.0

    def decide(self, event: Event, now: float, rand: float = 0.5) -> list[Effect]:
        """What to do about `event`, in order. `now` is monotonic seconds; `rand` is drawn from [0, 1) for jitter."""
        self._now, self._rand = now, rand
        effects: list[Effect] = []
        self._roster.effects = effects
        self._handle(event)
        waiting = self._backlog.events
        while waiting and not self._must_wait():
            self._handle(waiting.popleft())
        self._backlog.settle()
        return effects

    @property
    def is_ending(self) -> bool:
        """True from the decision to end on: whether the children's names live on is then decided further up."""
        return self._final is not None

    @property
    def final(self) -> Reason | None:
        """What it ends with, once it has decided to end."""
        return self._final

    @property
    def is_replacing(self) -> bool:
        """True while several children are being replaced together."""
        return self._sequence is not None and self._sequence.purpose is Purpose.BATCH

    def window(self, now: float) -> tuple[int, int]:
        """How many restarts count at `now`, and how many are tolerated. From any thread."""
        return self._roster.intensity.look(now), self._roster.intensity.max_restarts

    def look(self, child_id: str) -> Outlook | None:
        """How a child stands, from any thread; None if there is no such child."""
        child = self._roster.children.get(child_id)
        if child is None:
            return None
        return Outlook(child.epoch, child.phase.value, child.attempt, child.timer, child.reason, child.spec.shutdown)

    @property
    def child_ids(self) -> tuple[str, ...]:
        """All children in start order, from any thread."""
        return tuple(self._roster.children)

    def _handle(self, event: Event) -> None:
        match event:
            case ChildExited():
                self._child_exited(event)
            case ChildStarted():
                self._child_started(event)
            case ChildStartFailed():
                self._child_start_failed(event)
            case ChildIgnored():
                self._child_ignored(event)
            case TimerFired(key=key):
                self._timer_fired(event, key)
            case Call():
                self._call(event)
            case StartAll():
                self._run(Sequence(self._roster, Purpose.FIRST, to_start=self._roster.children.values()))
            case ShutdownRequested(reason=reason):
                self._shut_down(reason)
            case _:
                assert_never(event)

    def _must_wait(self) -> bool:
        """True while an exit, a retry or a call could meet children halfway through something of several steps."""
        roster = self._roster
        return not self._is_up or self._sequence is not None or (roster.is_grouped and roster.in_transit > 0)

    # Starts

    def _child_started(self, event: ChildStarted) -> None:
        child = self._roster.current(event.id, event.epoch)
        if child is None or child.phase is not Phase.STARTING:
            return
        self._roster.disarm(child)
        self._roster.enter(child, Phase.RUNNING)
        if child.restart is Restart.TEMPORARY:
            child.spec = child.spec.without_arguments()
        if child.purpose in (Purpose.RESTART, Purpose.BATCH):
            child.steady_since = self._now
            self._roster.emit("child_restarted", child, reason=child.reason, attempt=child.attempt)
        child.attempt = 0
        self._start_is_done(child, Started(child.id, event.info))

    def _child_ignored(self, event: ChildIgnored) -> None:
        child = self._gone_before_its_start(event)
        if child is not None:
            self._roster.retire(child)
            self._start_is_done(child, Started(None))

    def _gone_before_its_start(self, event: ChildIgnored | ChildStartFailed) -> Child | None:
        """The child if somebody waits for this start of it; one that was being stopped is stopped by it."""
        child = self._roster.current(event.id, event.epoch)
        if child is not None and child.phase is Phase.STOPPING:
            self._stopped(child)
            return None
        return child if child is not None and child.phase is Phase.STARTING else None

    def _start_is_done(self, child: Child, answer: Started) -> None:
        child.is_new = False
        self._answer(child, answer)
        if self._is_awaited(child):
            self._advance()

    def _child_start_failed(self, event: ChildStartFailed) -> None:
        child = self._gone_before_its_start(event)
        if child is not None:
            self._start_failed(child, event.reason)

    def _start_failed(self, child: Child, reason: Reason) -> None:
        self._roster.disarm(child)
        self._roster.emit("child_start_failed", child, reason=reason, attempt=child.attempt)
        child.reason = reason
        if self._final is not None:
            self._roster.retire(child)
        elif child.purpose is Purpose.CALL:
            self._roster.remove(child) if child.is_new else self._roster.shelve(child)
            self._answer(child, StartError(reason))
        elif child.purpose is Purpose.FIRST:
            self._roster.retire(child)
            self._shut_down(Shutdown(FailedToStart(child.id, reason)))
        else:
            self._run(None)
            self._roster.hold(child)
            self._retry(child)

    # Ends

    def _child_exited(self, event: ChildExited) -> None:
        child = self._roster.current(event.id, event.epoch)
        if child is None:
            return
        match child.phase:
            case Phase.STARTING:
                child.incident = event.incident
                self._start_failed(child, event.reason)
            case Phase.STOPPING:
                self._stopped(child, event.reason)
            case Phase.RUNNING:
                child.reason, child.incident = event.reason, event.incident
                self._roster.enter(child, Phase.EXITED)
                self._decide_exit(child, event)
            case Phase.EXITED:
                self._decide_exit(child, event)
            case Phase.STOPPED | Phase.WAITING:
                pass
            case _:
                assert_never(child.phase)

    def _decide_exit(self, child: Child, event: ChildExited) -> None:
        """It ended by itself."""
        if self._final is not None:
            self._roster.retire(child)
        elif self._must_wait():
            self._backlog.add(event)
        elif child.restart.follows(event.reason):
            self._roster.hold(child)
            self._restart(child)
        else:
            self._roster.retire(child)
            self._check_auto_shutdown(child)

    def _check_auto_shutdown(self, child: Child) -> None:
        if not child.spec.significant:
            return
        rule = self._roster.options.auto_shutdown
        is_last = not self._roster.has_significant
        if rule is AutoShutdown.ANY_SIGNIFICANT or (rule is AutoShutdown.ALL_SIGNIFICANT and is_last):
            self._shut_down(Shutdown())

    def _stopped(self, child: Child, reason: Reason | None = None) -> None:
        """It is gone, and we had asked for it; `reason` is None if it had not even started."""
        self._roster.disarm(child)
        if child.verdict is not None:
            verdict, child.verdict = child.verdict, None
            self._start_failed(child, verdict)
            return
        if reason is not None:
            child.reason = reason
            if not _is_expected(child, reason):
                self._roster.emit("shutdown_error", child, reason=reason)
        if child.purpose is Purpose.BATCH and self._final is None:
            self._roster.stand_by(child)
        else:
            self._roster.retire(child)
        self._answer(child, Ok())
        self._after_stop(child)

    def _after_stop(self, child: Child) -> None:
        if self._is_awaited(child):
            self._advance()
        elif self._parallel_stop is not None and not self._roster.children:
            self._finish()

    # Restarts

    def _restart(self, child: Child) -> None:
        backoff = child.spec.backoff
        if backoff is None:
            self._count_and_replace(child)
            return
        child.backoff_step = backoff.step_after(child.backoff_step, self._now - child.steady_since)
        self._retry(child)

    def _retry(self, child: Child) -> None:
        """Try it after its backoff; without one, after the events that wait already."""
        backoff = child.spec.backoff
        if backoff is None:
            self._roster.wait(child, "retry", 0.0)
            return
        delay = backoff.delay(child.backoff_step, self._rand)
        child.backoff_step += 1
        self._roster.wait(child, "retry", delay)
        self._roster.emit("backoff", child, delay=delay, step=child.backoff_step)

    def _count_and_replace(self, child: Child) -> None:
        if self._is_tolerated(child):
            self._replace(child)
        else:
            self._exhausted(child)

    def _is_tolerated(self, child: Child) -> bool:
        incident, child.incident = child.incident, None
        return self._roster.intensity.tolerates(self._now, incident)

    def _replace(self, child: Child) -> None:
        match self._roster.options.strategy:
            case Strategy.ONE_FOR_ONE:
                self._roster.start(child, Purpose.RESTART)
            case Strategy.REST_FOR_ONE:
                self._run(Sequence(self._roster, Purpose.BATCH, to_stop=self._roster.from_child_on(child)))
            case Strategy.ONE_FOR_ALL:
                self._run(Sequence(self._roster, Purpose.BATCH, to_stop=self._roster.children.values()))
            case strategy:
                assert_never(strategy)

    def _exhausted(self, child: Child) -> None:
        action = child.spec.on_exhausted or self._roster.options.on_exhausted
        self._roster.emit("exhausted", child, reason=child.reason, action=str(action))
        if isinstance(action, Pause):
            delay = action.seconds(self._rand)
            self._roster.wait(child, "pause", delay)
            self._roster.emit("paused", child, delay=delay)
        elif action == DROP_CHILD:
            self._roster.retire(child)
            self._roster.emit("dropped", child, reason=child.reason)
        else:
            self._shut_down(GaveUp(self._chain(child)))

    def _chain(self, child: Child) -> tuple[Failure, ...]:
        """From the first failure, perhaps supervisors further down, to this supervisor."""
        reason = child.reason
        child_path = f"{self._path}/{child.id}" if self._path else child.id
        causes = reason.chain if isinstance(reason, GaveUp) else (Failure(child_path, reason),)
        options = self._roster.options
        why = f"more than {options.max_restarts} restarts in {options.max_seconds:g} s"
        return (*causes, Failure(self._path or "supervisor", why))

    # Timers

    def _timer_fired(self, event: TimerFired, key: TimerKey) -> None:
        if key[0] == "stop_all":
            self._kill_late(key)
            return
        child = self._roster.children.get(str(key[1]))
        if child is None or child.timer != key:
            return
        if child.phase is Phase.WAITING:
            self._wait_is_over(child, event)
            return
        child.timer = None
        if child.phase is Phase.STARTING:
            assert isinstance(child.spec.start_timeout, float)  # else it had no timer
            self._roster.kill_unstarted(child, StartTimeout(child.spec.start_timeout))
        else:
            self._roster.effects.append(Kill(child.id, child.epoch))

    def _wait_is_over(self, child: Child, event: TimerFired) -> None:
        if self._final is not None:
            return
        if self._must_wait():
            self._backlog.add(event)
            return
        child.timer = None
        if event.key[0] == "pause":
            self._roster.intensity.clear()
            self._replace(child)
        else:
            self._count_and_replace(child)

    def _kill_late(self, key: TimerKey) -> None:
        if self._parallel_stop is not None and isinstance(key[1], float):
            self._roster.effects.extend(Kill(child.id, child.epoch) for child in self._parallel_stop.late(key[1]))

    # Calls

    def _call(self, call: Call) -> None:
        if self._final is not None:
            self._roster.effects.append(Reply(call.token, Ended(self._final)))
            return
        is_read = isinstance(call.request, READS)
        if not self._is_up or (self._must_wait() and not is_read):
            self._backlog.add(call)
            return
        child = self._roster.children.get(child_id_of(call) or "")
        if child is not None and is_busy_with_call(child):
            self._backlog.park(child, call)
        else:
            self._calls.handle(call)

    def _answer(self, child: Child, answer: Answer) -> None:
        """Answer the call that waited for `child`, then carry out those that waited behind it."""
        self._roster.reply(child, answer)
        for call in self._backlog.unpark(child):
            self._call(call)

    def _refuse_waiting_calls(self, reason: Reason) -> None:
        waiting = self._backlog.clear()
        for child in self._roster.children.values():
            self._roster.reply(child, Ended(reason))
        self._roster.effects.extend(Reply(call.token, Ended(reason)) for call in waiting)

    # Sequences

    def _run(self, sequence: Sequence | None) -> None:
        """Make `sequence` the one under way and begin it; None: the one under way is called off."""
        self._sequence = sequence
        self._calls.is_batch_running = sequence is not None and sequence.purpose is Purpose.BATCH
        if sequence is not None:
            self._advance()

    def _is_awaited(self, child: Child) -> bool:
        return self._sequence is not None and self._sequence.awaited is child

    def _advance(self) -> None:
        sequence = self._sequence
        if sequence is None or sequence.advance():
            return
        self._run(None)
        match sequence.purpose:
            case Purpose.FIRST:
                self._is_up = True
                self._roster.effects.append(StartedAll())
            case Purpose.SHUTDOWN:
                self._finish()

    def _shut_down(self, reason: Reason) -> None:
        """Stop everything and end with `reason`; if that has begun already, its own reason stands."""
        if self._final is not None:
            return
        self._final = reason
        self._refuse_waiting_calls(reason)
        if self._roster.is_dynamic:
            self._stop_in_parallel()
        else:
            self._run(Sequence(self._roster, Purpose.SHUTDOWN, to_stop=self._roster.children.values()))

    def _stop_in_parallel(self) -> None:
        self._run(None)
        self._parallel_stop = ParallelStop(self._roster)
        timeouts = self._parallel_stop.by_timeout
        self._roster.effects.extend(ArmTimer(("stop_all", timeout), timeout) for timeout in timeouts)
        if not self._roster.children:
            self._finish()

    def _finish(self) -> None:
        assert self._final is not None
        self._is_over = True
        self._roster.effects.append(Finish(self._final))


def _is_expected(child: Child, reason: Reason) -> bool:
    """True if a child that was asked to stop did so as its spec promises."""
    match reason:
        case Shutdown():
            return True
        case Normal():
            return child.restart is not Restart.PERMANENT
        case Killed() | Abandoned():
            return child.spec.shutdown == BRUTAL_KILL
        case _:
            return False
