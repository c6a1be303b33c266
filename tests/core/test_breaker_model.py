"""The breaker against a literal telling of its rules: every lever, window and clock, in any order."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from math import floor, inf
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rubberduck.core.breaker import BreakerOptions, CircuitBreaker, Outcome, Permit, Rejected

OPTIONS = [
    BreakerOptions(failure_threshold=2, success_threshold=2, reset_timeout=8.0, permit_ttl=16.0),
    BreakerOptions(
        failure_threshold=3, success_threshold=1, half_open_max_probes=2, reset_timeout=4.0, permit_ttl=4.0,
        half_open_max_wait=8.0,
    ),
    BreakerOptions(
        failure_threshold=2, success_threshold=3, half_open_max_probes=3, reset_timeout=4.0, half_open_max_wait=2.0,
        half_open_wait_leads_to="closed", open_multiplier=2.0, open_max=10.0,
    ),
    BreakerOptions(
        failure_threshold=None, reset_timeout=8.0, window="count", window_size=4, minimum_calls=6, failure_rate=0.5,
        slow_call_after=1.0, slow_call_rate=0.75,
    ),
    BreakerOptions(
        failure_threshold=4, reset_timeout=8.0, window="time", window_size=20.0, minimum_calls=3, failure_rate=0.5,
        slow_call_after=1.0, slow_call_rate=0.5, success_threshold=1,
    ),
]  # fmt: skip


@dataclass
class Literal:
    """The rules as plainly as they can be told: all outcomes are kept, all is looked up anew each time."""

    options: BreakerOptions
    state: str = "closed"
    life: int = 0
    since: float = 0.0
    open_until: float = 0.0
    failed_half_opens: int = 0
    history: list[tuple[float, bool, bool]] = field(default_factory=list)
    consecutive: int = 0
    out: dict[int, tuple[float, float]] = field(default_factory=dict)
    told: int = 0
    late: int = 0

    # -- time ------------------------------------------------------------------------------------------------

    def age(self, now: float) -> None:
        while self.state == "half_open":
            lapse = min((end for _, end in self.out.values()), default=inf)
            limit = inf if self.options.half_open_max_wait is None else self.since + self.options.half_open_max_wait
            if min(lapse, limit) > now:
                return
            if lapse <= limit:
                self.failed_half_opens += 1
                self.open(lapse)
            elif self.options.half_open_wait_leads_to == "open":
                self.open(limit)
            else:
                self.close(limit)

    def seen(self, now: float) -> str:
        self.age(now)
        return "half_open" if self.state == "open" and now >= self.open_until else self.state

    # -- transitions -----------------------------------------------------------------------------------------

    def enter(self, state: str, now: float) -> None:
        self.state, self.since, self.out, self.life = state, now, {}, self.life + 1
        if state != "open":
            self.history, self.consecutive, self.told = [], 0, 0

    def open(self, now: float, until: float | None = None) -> None:
        self.enter("open", now)
        grown = self.options.reset_timeout * self.options.open_multiplier**self.failed_half_opens
        self.open_until = now + min(self.options.open_max, grown) if until is None else until

    def close(self, now: float) -> None:
        self.enter("closed", now)
        self.failed_half_opens = 0

    # -- calls -----------------------------------------------------------------------------------------------

    def admits(self, now: float) -> bool:
        match self.seen(now):
            case "open" | "forced_open":
                return False
            case "half_open":
                return self.state == "open" or len(self.out) < self.options.half_open_max_probes
        return True

    def has_extra(self, now: float) -> bool:
        self.age(now)
        return self.state == "open" and all(end <= now for _, end in self.out.values())

    def admit(self, number: int, now: float, ttl: float, *, extra: bool) -> None:
        if self.state == "open" and not extra:
            self.enter("half_open", now)
        self.out = {key: held for key, held in self.out.items() if held[1] > now}
        self.out[number] = (now, now + ttl)

    def settle(self, number: int, life: int, outcome: str, now: float, duration: float, hint: float) -> bool:
        self.age(now)
        if life != self.life or self.out.pop(number, (0.0, -inf))[1] <= now:
            return False
        slow = self.options.slow_call_after is not None and duration > self.options.slow_call_after
        failed = outcome == "failure"
        if self.state == "disabled" or outcome not in ("success", "failure"):
            return True
        if self.state == "open":
            if not (failed or slow):
                self.enter("half_open", now)
                self.probe_succeeded(now)
        elif self.state == "half_open":
            if failed or slow:
                self.failed_half_opens += 1
                self.trip(now, hint)
            else:
                self.probe_succeeded(now)
        else:
            self.history.append((now, failed, slow))
            self.consecutive = self.consecutive + 1 if failed else 0
            if self.exceeds(now, failed):
                if self.state == "closed":
                    self.trip(now, hint)
                else:
                    self.told = 1
        return True

    def trip(self, now: float, hint: float) -> None:
        self.open(now)
        self.open_until = max(self.open_until, now + hint)

    def probe_succeeded(self, now: float) -> None:
        self.history.append((now, False, False))
        if len(self.history) >= self.options.success_threshold:
            self.close(now)

    def exceeds(self, now: float, failed: bool) -> bool:
        threshold = self.options.failure_threshold
        if threshold is not None and self.consecutive >= threshold:
            return True
        rates = self.rates(now)
        if rates is None:
            return False
        is_slow = self.options.slow_call_after is not None and rates[1] >= self.options.slow_call_rate
        return rates[0] >= self.options.failure_rate or is_slow

    def rates(self, now: float) -> tuple[float, float] | None:
        if self.options.window is None or self.state in ("half_open", "disabled", "forced_open"):
            return None
        size = self.options.window_size or 0.0
        if self.options.window == "count":
            kept = self.history[-int(size) :]
        else:
            cell = size / 20
            kept = [each for each in self.history if floor(each[0] / cell) * cell + cell + size > now]
        if len(kept) < min(self.options.minimum_calls, size if self.options.window == "count" else inf):
            return None
        return sum(each[1] for each in kept) / len(kept), sum(each[2] for each in kept) / len(kept)


class BreakerAgainstLiteral(RuleBasedStateMachine):
    @initialize(options=st.sampled_from(OPTIONS))
    def begin(self, options: BreakerOptions) -> None:
        self.now, self.options, self.generation = 0.0, options, -1
        self.real = CircuitBreaker(options, 0.0, random.Random(0))
        self.model = Literal(options)
        self.permits: list[tuple[Permit, int]] = []
        self.seen, self.exceeded = "closed", 0

    @rule(step=st.sampled_from([0.25, 1.0, 2.0, 4.0, 8.0, 16.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(ttl=st.sampled_from([None, 1.0, 6.0]), is_last_resort=st.booleans())
    def acquire(self, ttl: float | None, is_last_resort: bool) -> None:
        admits = self.model.admits(self.now)
        extra = not admits and is_last_resort and self.model.has_extra(self.now)
        answer = self.real.acquire(self.now, ttl, is_last_resort=is_last_resort)
        assert isinstance(answer, Permit) == (admits or extra)
        if isinstance(answer, Permit):
            self.model.admit(answer.id, self.now, self.options.permit_ttl if ttl is None else ttl, extra=extra)
            self.permits.append((answer, self.model.life))
            assert answer.is_probe == (self.model.state in ("half_open", "open"))
        else:
            self.check_refusal(answer)

    def check_refusal(self, refusal: Rejected) -> None:
        if self.model.state == "forced_open":
            assert refusal == Rejected("forced_open", None)
        elif self.model.state == "open":
            assert refusal == Rejected("open", self.model.open_until - self.now)
        else:
            assert refusal.reason == "half_open_full"
            assert refusal.retry_after is not None
            assert 0 <= refusal.retry_after <= 1

    @precondition(lambda self: self.permits)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([*Outcome, Outcome.FAILURE, Outcome.FAILURE, Outcome.SUCCESS]),
        duration=st.sampled_from([0.5, 1.0, 1.5]),
        hint=st.sampled_from([0.0, 0.0, 12.0]),
    )
    def settle(self, data: st.DataObject, outcome: Outcome, duration: float, hint: float) -> None:
        permit, life = data.draw(st.sampled_from(self.permits[-6:]))
        expected = self.model.settle(permit.id, life, outcome, self.now, duration, hint)
        assert self.real.settle(permit, outcome, self.now, duration, hint=hint or None) == expected

    @rule(times=st.integers(1, 4), outcome=st.sampled_from(["failure", "success"]), slow=st.booleans())
    def calls_end_at_once(self, times: int, outcome: str, slow: bool) -> None:
        for _ in range(times):
            self.acquire(None, False)
            if self.permits and self.permits[-1][0].id in self.model.out:
                permit, life = self.permits[-1]
                duration = 1.5 if slow else 0.0
                expected = self.model.settle(permit.id, life, outcome, self.now, duration, 0.0)
                assert self.real.settle(permit, Outcome(outcome), self.now, duration) == expected

    # -- levers ----------------------------------------------------------------------------------------------

    @rule(length=st.sampled_from([1.0, 6.0, 20.0]))
    def open_for(self, length: float) -> None:
        self.model.age(self.now)
        moved = self.model.state not in ("forced_open", "disabled", "metrics_only")
        assert self.real.open_for(length, self.now) == moved
        if moved and self.model.state == "open":
            self.model.open_until = max(self.model.open_until, self.now + length)
        elif moved:
            self.model.open(self.now, self.now + length)

    @rule(mode=st.sampled_from(["force_open", "disable", "metrics_only"]))
    def operator(self, mode: str) -> None:
        state = {"force_open": "forced_open", "disable": "disabled"}.get(mode, mode)
        getattr(self.real, mode)(self.now)
        self.model.age(self.now)
        if self.model.state != state:
            self.model.enter(state, self.now)

    @rule()
    def reset(self) -> None:
        self.real.reset(self.now)
        self.model.age(self.now)
        self.model.close(self.now)

    @rule()
    def restart(self) -> None:
        """What was counted within a window is forgotten, what is out is late, all else stays."""
        snapshot = self.real.snapshot(self.now)
        self.model.age(self.now)
        self.events_tell_each_transition_once()
        self.real = CircuitBreaker.restore(snapshot, self.options, self.now, random.Random(0))
        consecutive, until = self.model.consecutive, max(self.now, self.model.open_until)
        self.model.enter(self.model.state, self.now)
        self.model.history, self.model.told, self.model.consecutive = [], 0, consecutive
        self.model.open_until = until
        self.exceeded, self.generation = 0, self.generation

    # -- what must agree -------------------------------------------------------------------------------------

    @invariant()
    def they_look_the_same(self) -> None:
        stats = self.real.stats(self.now)
        assert stats.state.value == self.model.seen(self.now)
        assert (self.real.peek(self.now) is None) == self.model.admits(self.now)
        assert self.real.may_probe(self.now) == self.model.has_extra(self.now)
        rates = self.model.rates(self.now)
        if self.model.state in ("closed", "metrics_only"):
            assert (stats.failure_rate, stats.slow_call_rate) == (rates or (None, None))
            assert stats.consecutive_failures == self.model.consecutive

    @invariant()
    def generations_only_grow_and_probes_are_bounded(self) -> None:
        stats = self.real.stats(self.now)
        assert stats.generation >= self.generation
        self.generation = stats.generation
        if self.model.state == "half_open":
            assert stats.permits_out <= self.options.half_open_max_probes
        if self.model.state == "open":
            assert stats.permits_out <= 1

    @invariant()
    def events_tell_each_transition_once(self) -> None:
        for event in self.real.take_events():
            assert event.at <= self.now
            if event.name == "threshold_exceeded":
                self.exceeded += 1
                assert event.before == event.after == "metrics_only"
                continue
            assert event.before == self.seen
            assert event.after != self.seen
            self.seen, self.exceeded = event.after.value, 0
        assert self.seen == self.model.state
        if self.model.state == "metrics_only":
            assert self.exceeded == self.model.told


TestBreakerAgainstLiteral: Any = BreakerAgainstLiteral.TestCase
TestBreakerAgainstLiteral.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
