"""Decides whether a route may be called now, from how its recent calls ended.

                 failures reach a threshold           open time over, next acquire
        CLOSED ------------------------------> OPEN -----------------------------> HALF_OPEN
          ^                                      ^                                     |
          |                                      +---- a probe fails, or is too late --+
          +------------------- success_threshold probes succeed -----------------------+

    FORCED_OPEN, DISABLED, METRICS_ONLY: entered and left only by an operator; `reset` leads to CLOSED.

Where nobody else is left to be called, an OPEN circuit can be asked for one extra probe at a time. Its success leads
to HALF_OPEN at once, as the first of the probes; its failure changes nothing.

The breaker never runs a call. It hands out a permit and is told later how the call ended. A permit carries
the generation it was issued in; every transition raises the generation, so the result of a call from an
earlier life of the circuit is recognised as late and moves nothing.

Source: Nygard, "Release It!", 2nd ed., "Circuit Breaker"; generations as in sony/gobreaker.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from rubberduck.core.breaker_counts import BreakerOptions, Counts
from rubberduck.core.sliding import TIME_TOLERANCE
from rubberduck.core.values import value

__all__ = [
    "BreakerOptions",
    "BreakerSnapshot",
    "BreakerStats",
    "CircuitBreaker",
    "Event",
    "Outcome",
    "Permit",
    "Rejected",
    "State",
]

PROBE_CHECK_DELAY = 1.0
"""Seconds after which to ask again while probes are out: about as long as a probe takes to be answered."""
LONGEST_HINT = 86_400.0
"""The longest that a server's word keeps a circuit open, in seconds: a day."""


class State(StrEnum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    FORCED_OPEN = "forced_open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics_only"


class Outcome(StrEnum):
    """How a permitted call ended, in the breaker's terms."""

    SUCCESS = "success"
    FAILURE = "failure"
    IGNORED = "ignored"
    CANCELLED = "cancelled"


@value(frozen=True, slots=True)
class Permit:
    """Leave to make one call. Settle it once, whatever happens."""

    id: int
    generation: int
    issued_at: float
    is_probe: bool


@dataclass(frozen=True, slots=True)
class Rejected:
    """No call now. `reason` is open, half_open_full or forced_open.

    `retry_after` is in seconds, None where only an operator knows.
    """

    reason: str
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Event:
    """One real transition, or (once per entry into metrics_only) a threshold that would have opened the circuit.

    `name` is opened, half_opened, closed, forced_open, disabled, metrics_only or threshold_exceeded.
    """

    name: str
    before: State
    after: State
    generation: int
    at: float
    cause: str


@dataclass(frozen=True, slots=True)
class BreakerSnapshot:
    """What survives a restart. `remaining` is the open time still to go, in seconds."""

    state: State
    generation: int
    remaining: float
    failed_half_opens: int
    consecutive_failures: int


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """A circuit as an operator sees it. Rates are None while too few calls were counted."""

    state: State
    generation: int
    retry_after: float | None
    consecutive_failures: int
    calls: int
    failure_rate: float | None
    slow_call_rate: float | None
    permits_out: int
    probe_successes: int
    rejected: int
    late: int
    settled_twice: int


_EVENT_NAMES = {State.OPEN: "opened", State.HALF_OPEN: "half_opened"}
_BY_OPERATOR = {State.FORCED_OPEN, State.DISABLED, State.METRICS_ONLY}
# Where a circuit may open or half-open from. CLOSED and the operator's modes are reached from anywhere.
_LEGAL_FROM = {State.OPEN: (State.CLOSED, State.HALF_OPEN), State.HALF_OPEN: (State.OPEN,)}


class CircuitBreaker:
    """The books of one route's circuit. Each call is O(1); `now` is monotonic seconds."""

    def __init__(self, options: BreakerOptions, now: float, rng: random.Random, generation: int = 0) -> None:
        self._options = options
        self._rng = rng
        self._state = State.CLOSED
        self._generation = generation
        self._open_until = now
        self._failed_half_opens = 0
        self._half_open_until: float | None = None
        self._next_permit = 0
        self._out: dict[int, float] = {}
        self._events: list[Event] = []
        self._rejected = self._late = self._settled_twice = 0
        self._counts = Counts(options)

    # -- calls ---------------------------------------------------------------------------------------------

    def acquire(self, now: float, ttl: float | None = None, *, is_last_resort: bool = False) -> Permit | Rejected:
        """May I call now? `ttl` is how long the permit may stay unsettled: the attempt's timeout plus 5 s.

        `is_last_resort` asks an open circuit for its extra probe.
        """
        refusal = self.peek(now)
        is_extra = is_last_resort and refusal is not None and self.may_probe(now)
        if refusal is not None and not is_extra:
            self._rejected += 1
            return refusal
        if self._state is State.OPEN and not is_extra:
            self._enter(State.HALF_OPEN, now, "open_time_over")
        self._next_permit = number = self._next_permit + 1
        self._out[number] = now + (self._options.permit_ttl if ttl is None else ttl)
        return Permit(number, self._generation, now, self._state is State.HALF_OPEN or is_extra)

    def settle(
        self,
        permit: Permit,
        outcome: Outcome,
        now: float,
        duration: float = 0.0,
        kind: str | None = None,
        hint: float | None = None,
    ) -> bool:
        """Tell how the call ended; True if this is the permit's first settlement and not late.

        `duration` is the time to first token. `kind` names the failure in the event. `hint` is the server's own
        retry-after; if this failure opens the circuit, it stays open at least as long.
        """
        self._advance(now)
        if permit.generation != self._generation:
            self._late += 1
            return False
        expires_at = self._out.pop(permit.id, None)
        if expires_at is None:
            self._settled_twice += 1
            return False
        if expires_at <= now:
            self._late += 1
            return False
        if self._state is not State.DISABLED and (outcome is Outcome.SUCCESS or outcome is Outcome.FAILURE):
            slow = self._counts.is_slow(duration)
            self._count(outcome is Outcome.FAILURE, slow, now, kind or outcome.value, hint)
        return True

    def peek(self, now: float) -> Rejected | None:
        """Why `acquire` would refuse now, or None. Takes nothing."""
        self._advance(now)
        state = self._state
        if state is State.OPEN:
            left = self._open_until - now
            return None if left <= TIME_TOLERANCE else Rejected("open", left)
        if state is State.FORCED_OPEN:
            return Rejected("forced_open", None)
        if state is State.HALF_OPEN and len(self._out) >= self._options.half_open_max_probes:
            return Rejected("half_open_full", max(0.0, min(PROBE_CHECK_DELAY, min(self._out.values()) - now)))
        return None

    def may_probe(self, now: float) -> bool:
        """Whether an open circuit has its extra probe to give: none is out."""
        self._advance(now)
        return self._state is State.OPEN and not self._out

    def state(self, now: float) -> State:
        """The state as `acquire` would find it: an open circuit whose time is over reads half_open."""
        self._advance(now)
        if self._state is State.OPEN and self._open_until - now <= TIME_TOLERANCE:
            return State.HALF_OPEN
        return self._state

    # -- the operator's levers -----------------------------------------------------------------------------

    def open_for(self, duration: float, now: float, cause: str = "open_for") -> bool:
        """Open for exactly `duration` seconds; an open circuit is lengthened, never shortened.

        Returns False where an operator's mode stands in the way.
        """
        self._advance(now)
        if self._state in _BY_OPERATOR:
            return False
        if self._state is State.OPEN:
            self._open_until = max(self._open_until, now + duration)
        else:
            self._enter(State.OPEN, now, cause)
            self._open_until = now + duration
        return True

    def force_open(self, now: float) -> None:
        """Reject everything until `reset`."""
        self._set_mode(State.FORCED_OPEN, now)

    def disable(self, now: float) -> None:
        """Admit everything and count nothing until `reset`."""
        self._set_mode(State.DISABLED, now)

    def metrics_only(self, now: float) -> None:
        """Admit everything, count, and report once when the circuit would have opened."""
        self._set_mode(State.METRICS_ONLY, now)

    def reset(self, now: float) -> None:
        """Close, from wherever it is, and forget all counts and all permits out."""
        self._enter(State.CLOSED, now, "reset")

    @property
    def generation(self) -> int:
        return self._generation

    def is_at_rest(self, now: float) -> bool:
        """Whether it is closed, nothing is out, and nothing bad counts: a new one would do the same."""
        self._advance(now)
        return self._state is State.CLOSED and not self._out and self._counts.are_good(now)

    @property
    def is_by_operator(self) -> bool:
        """Whether an operator has put it where it is."""
        return self._state in _BY_OPERATOR

    # -- what others see -----------------------------------------------------------------------------------

    def take_events(self) -> list[Event]:
        """What happened since the last time; each event is handed out once."""
        events, self._events = self._events, []
        return events

    def stats(self, now: float) -> BreakerStats:
        refusal = self.peek(now)
        failure_rate, slow_rate = self._counts.rates(now)
        return BreakerStats(
            state=self.state(now),
            generation=self._generation,
            retry_after=refusal.retry_after if refusal else 0.0,
            consecutive_failures=self._counts.consecutive,
            calls=self._counts.window.calls if self._counts.window else 0,
            failure_rate=failure_rate,
            slow_call_rate=slow_rate,
            permits_out=len(self._out),
            probe_successes=self._counts.probe_successes,
            rejected=self._rejected,
            late=self._late,
            settled_twice=self._settled_twice,
        )

    def snapshot(self, now: float) -> BreakerSnapshot:
        self._advance(now)
        remaining = max(0.0, self._open_until - now) if self._state is State.OPEN else 0.0
        return BreakerSnapshot(
            self._state, self._generation, remaining, self._failed_half_opens, self._counts.consecutive
        )

    @classmethod
    def restore(
        cls, snapshot: BreakerSnapshot | None, options: BreakerOptions, now: float, rng: random.Random
    ) -> CircuitBreaker:
        """The circuit after a restart: open keeps what remained, half_open has no probe out.

        None means that it crashed and left nothing behind: one careful probe first.
        """
        breaker = cls(options, now, rng)
        if snapshot is None:
            snapshot = BreakerSnapshot(State.OPEN, 0, 0.0, 0, 0)
        breaker._state = snapshot.state
        breaker._generation = snapshot.generation + 1
        breaker._open_until = now + snapshot.remaining
        breaker._failed_half_opens = snapshot.failed_half_opens
        breaker._counts.consecutive = snapshot.consecutive_failures
        breaker._start_half_open_clock(now)
        return breaker

    # -- transitions ---------------------------------------------------------------------------------------

    def _enter(self, state: State, now: float, cause: str, hint: float | None = None) -> None:
        """The one way from state to state."""
        before = self._state
        if before not in _LEGAL_FROM.get(state, State):
            raise ValueError(f"a {before} circuit cannot become {state}")
        self._state = state
        self._generation += 1
        self._out.clear()
        if state is State.CLOSED:
            self._failed_half_opens = 0
        elif state is State.OPEN:
            self._open_until = now + max(self._open_time(), min(hint or 0.0, LONGEST_HINT))
        if state is not State.OPEN:
            self._counts = Counts(self._options)
        self._start_half_open_clock(now)
        if state is not before:
            name = _EVENT_NAMES.get(state, state.value)
            self._events.append(Event(name, before, state, self._generation, now, cause))

    def _set_mode(self, mode: State, now: float) -> None:
        self._advance(now)
        if self._state is not mode:
            self._enter(mode, now, "operator")

    def _advance(self, now: float) -> None:
        """Apply what became due by time alone, as of the instant it was due: the time of a look changes nothing."""
        if not self._out and self._half_open_until is None:
            return
        if self._state is not State.HALF_OPEN:
            self._forget_lost_permits(now)
            return
        lapse = min(self._out.values(), default=None)
        limit = self._half_open_until
        if lapse is not None and lapse <= now and (limit is None or lapse <= limit):
            self._failed_half_opens += 1
            self._enter(State.OPEN, lapse, "probe_lost")
        elif limit is not None and limit <= now:
            self._enter(State(self._options.half_open_wait_leads_to), limit, "half_open_max_wait")

    def _forget_lost_permits(self, now: float) -> None:
        oldest = next(iter(self._out))
        while self._out[oldest] <= now:
            del self._out[oldest]
            if not self._out:
                return
            oldest = next(iter(self._out))

    def _start_half_open_clock(self, now: float) -> None:
        wait = self._options.half_open_max_wait
        self._half_open_until = now + wait if self._state is State.HALF_OPEN and wait is not None else None

    def _open_time(self) -> float:
        options = self._options
        try:
            grown = options.reset_timeout * options.open_multiplier**self._failed_half_opens
        except OverflowError:
            grown = options.open_max
        # A reset_timeout above open_max is the user's explicit wish.
        base = min(max(options.open_max, options.reset_timeout), grown)
        return base * (1 + self._rng.uniform(0, options.open_jitter)) if options.open_jitter else base

    # -- counting ------------------------------------------------------------------------------------------

    def _count(self, failed: bool, slow: bool, now: float, kind: str, hint: float | None) -> None:
        if self._state is State.HALF_OPEN:
            self._count_probe(failed, slow, now, kind, hint)
            return
        if self._state is State.OPEN:
            self._count_extra_probe(failed or slow, now)
            return
        exceeded = self._counts.add(failed, slow, now)
        if exceeded is None:
            return
        if self._state is State.CLOSED:
            self._enter(State.OPEN, now, f"{exceeded}: {kind}", hint)
        elif not self._counts.reported:
            self._counts.reported = True
            self._events.append(
                Event("threshold_exceeded", self._state, self._state, self._generation, now, f"{exceeded}: {kind}")
            )

    def _count_extra_probe(self, failed: bool, now: float) -> None:
        # A failure says what the open circuit knew: it neither prolongs the open time nor counts as a half-open.
        if not failed:
            self._enter(State.HALF_OPEN, now, "extra_probe_succeeded")
            self._count_probe(False, False, now, "", None)

    def _count_probe(self, failed: bool, slow: bool, now: float, kind: str, hint: float | None) -> None:
        if failed or slow:
            self._failed_half_opens += 1
            self._enter(State.OPEN, now, f"probe_failed: {kind}" if failed else "probe_slow", hint)
            return
        self._counts.probe_successes += 1
        if self._counts.probe_successes >= self._options.success_threshold:
            self._enter(State.CLOSED, now, "probes_succeeded")
