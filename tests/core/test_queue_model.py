"""The queue's whole interface against a slow, literal model: lists that are looked through at every question."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rubberduck.core.request_queue import CLASSES, Accepted, Job, QueueOptions, RequestQueue

A, B = frozenset({"a"}), frozenset({"b"})
ROUTES = [A, B, A | B, frozenset()]
WEIGHT = {"high": 17.0, "normal": 2.0, "low": 1.0}
TENANTS = {"x": 1.0, "y": 1.0, "z": 3.0}
SLOW = 3.0
"""Seconds that all answers took, where they are known."""


class Literal:
    """What the queue is to do, said as plainly as possible."""

    def __init__(self, options: QueueOptions) -> None:
        self.options = options
        self.jobs: list[Job] = []
        self.overdue: list[Job] = []
        self.shed: list[Job] = []
        self.usual: dict[frozenset[str], float] = {}
        self.class_tag = dict.fromkeys(CLASSES, 0.0)
        self.class_time = 0.0
        self.tenants: dict[tuple[str, str], list[float]] = {}  # start tag, and the number of its coming
        self.tenant_time = dict.fromkeys(CLASSES, 0.0)
        self.comings = dict.fromkeys(CLASSES, 0)
        self.turned: dict[str, bool] = dict.fromkeys(CLASSES, False)
        self.waits: dict[str, list[tuple[float, float]]] = {name: [] for name in CLASSES}

    # -- in

    def refusal(self, job: Job, now: float) -> str | None:
        options = self.options
        if job.deadline <= now:
            return "expired"
        if self.is_too_late(job, now):
            return "infeasible"
        if sum(each.tenant == job.tenant for each in self.jobs) >= (options.max_per_tenant or 10**9):
            return "tenant_full"
        if sum(each.klass == job.klass for each in self.jobs) >= (options.max_per_class or {}).get(job.klass, 10**9):
            return "class_full"
        return None if self.has_room(job) else "full"

    def has_room(self, job: Job) -> bool:
        tokens = sum(each.tokens for each in self.jobs) + job.tokens
        return len(self.jobs) < self.options.max_queue_size and (not self.jobs or tokens <= self.max_tokens)

    @property
    def max_tokens(self) -> float:
        return inf if self.options.max_tokens is None else self.options.max_tokens

    def is_too_late(self, job: Job, now: float) -> bool:
        rivals = [each for each in self.jobs if each.id != job.id and shares(each.routes, job.routes)]
        return bool(rivals) and job.deadline - now < self.usual.get(job.routes, 0.0)

    def victim(self, job: Job) -> Job | None:
        if self.options.when_full == "reject":
            return None
        for klass in reversed(CLASSES[CLASSES.index(job.klass) + 1 :]):
            newest = [each for each in self.jobs if each.klass == klass][-1:]
            tokens = sum(each.tokens for each in self.jobs) + job.tokens
            if newest and tokens - newest[0].tokens <= self.max_tokens:
                return newest[0]
        return None

    def add(self, job: Job) -> None:
        klass = job.klass
        if not any(each.klass == klass for each in self.jobs):
            self.class_tag[klass] = max(self.class_tag[klass], self.class_time)
        if (klass, job.tenant) not in self.tenants:
            self.comings[klass] += 1
            self.tenants[klass, job.tenant] = [self.tenant_time[klass], self.comings[klass]]
        self.jobs.append(job)
        self.jobs.sort(key=lambda each: each.enqueued_at)

    # -- out

    def drop(self, job: Job) -> None:
        self.jobs.remove(job)
        self.tidy()

    def tidy(self) -> None:
        """Who has nothing waiting and owes nothing is forgotten; where a class is empty, nobody owes anything."""
        for klass in CLASSES:
            if not any(each.klass == klass for each in self.jobs):
                self.tenant_time[klass] = 0.0
                self.tenants = {key: about for key, about in self.tenants.items() if key[0] != klass}
                self.turned[klass], self.waits[klass] = False, []
        waiting = {(each.klass, each.tenant) for each in self.jobs}
        for key, (tag, _) in list(self.tenants.items()):
            if key not in waiting and tag <= self.tenant_time[key[0]]:
                del self.tenants[key]

    def next(self, ready: frozenset[str]) -> Job | None:
        able = [each for each in self.jobs if not each.routes or each.routes & ready]
        if not able:
            return None
        tags = {name: max(self.class_tag[name], self.class_time) for name in CLASSES}
        klass = min({each.klass for each in able}, key=lambda name: (tags[name], CLASSES.index(name)))
        able = [each for each in able if each.klass == klass]
        tenant = min({each.tenant for each in able}, key=lambda name: self.tenants[klass, name])
        own = [each for each in able if each.tenant == tenant]
        return own[-1] if self.turned[klass] else own[0]

    def dispatch(self, ready: frozenset[str], now: float) -> Job | None:
        while (job := self.next(ready)) is not None:
            if job.deadline <= now:
                self.overdue.append(job)
                self.drop(job)
            elif self.is_too_late(job, now):
                self.shed.append(job)
                self.drop(job)
            else:
                self.take(job, now)
                return job
        return None

    def take(self, job: Job, now: float) -> None:
        klass, about = job.klass, self.tenants[job.klass, job.tenant]
        self.class_time = max(self.class_time, self.class_tag[klass])
        self.class_tag[klass] = self.class_time + job.tokens / WEIGHT[klass]
        self.tenant_time[klass] = max(self.tenant_time[klass], about[0])
        about[0] = self.tenant_time[klass] + job.tokens / TENANTS[job.tenant]
        self.note_wait(job, now)
        self.drop(job)

    def note_wait(self, job: Job, now: float) -> None:
        klass, waits = job.klass, self.waits[job.klass]
        timeout = self.options.adaptive_lifo.get(klass)
        if timeout is None:
            return
        told = next(each for each in self.jobs if each.klass == klass) if self.turned[klass] else job
        if waits and now - waits[0][0] >= 1.0:
            least = min(wait for _, wait in waits)
            if least > 0.05 * timeout:
                self.turned[klass] = True
            elif least < 0.025 * timeout:
                self.turned[klass] = False
            waits.clear()
        waits.append((now, now - told.enqueued_at))


def shares(routes: frozenset[str], others: frozenset[str]) -> bool:
    return not routes or not others or bool(routes & others)


class QueueAgainstModel(RuleBasedStateMachine):
    """Every answer of the queue is the model's, and every job ends in exactly one way."""

    now = 0.0
    count = 0
    real: RequestQueue
    model: Literal

    @initialize(
        size=st.sampled_from([4, 12]),
        per_tenant=st.sampled_from([None, 3]),
        per_class=st.sampled_from([None, {"normal": 3}]),
        tokens=st.sampled_from([None, 90.0]),
        when_full=st.sampled_from(["reject", "evict_lower"]),
        lifo=st.sampled_from([{}, {"normal": 40.0}, dict.fromkeys(CLASSES, 40.0)]),
    )
    def begin(self, size: int, per_tenant: Any, per_class: Any, tokens: Any, when_full: Any, lifo: Any) -> None:
        self.options = QueueOptions(size, per_class, per_tenant, tokens, when_full, WEIGHT, TENANTS, lifo)
        self.begin_anew()

    def begin_anew(self) -> None:
        self.real, self.model = RequestQueue(self.options, self.now), Literal(self.options)
        self.out: list[Job] = []
        self.ends = dict.fromkeys(("enqueued", "processed", "failed", "cancelled", "evicted", "rejected"), 0)
        self.ends |= {"expired": 0, "infeasible": 0}

    @rule(step=st.sampled_from([0.25, 1.0, 5.0]))
    def time_passes(self, step: float) -> None:
        self.now += step

    @rule(routes=st.sampled_from(ROUTES))
    def answers_grow_slow(self, routes: frozenset[str]) -> None:
        """Told of by calls that came before all that wait, when the routes were free."""
        self.now += 31.0  # what was known before is believed no longer
        self.model.usual = {routes: SLOW}
        self.expire()
        self.real._service.__init__()  # type: ignore[misc]
        for _ in range(20):
            self.real._service.learn(routes, SLOW, self.now)
        self.learned_at = self.now

    @rule(
        klass=st.sampled_from(["normal", "normal", "normal", "high", "low"]),
        tenant=st.sampled_from("xyz"),
        tokens=st.sampled_from([1.0, 3.0, 40.0]),
        routes=st.sampled_from(ROUTES),
        patience=st.sampled_from([1000.0, 1000.0, inf, 20.0, 2.0, 0.0]),
    )
    def enqueue(self, klass: Any, tenant: str, tokens: float, routes: frozenset[str], patience: float) -> None:
        self.forget_old_times()
        self.count += 1
        job = Job(str(self.count), klass, tenant, tokens, routes, self.now + patience, self.now)
        refusal, model = self.model.refusal(job, self.now), self.model
        victim = model.victim(job) if refusal == "full" else None
        answer = self.real.enqueue(job, self.now)
        if refusal is not None and victim is None:
            self.ends["rejected"] += 1
            assert getattr(answer, "reason", "accepted") == refusal
            assert (answer.retry_after is None) == (refusal == "expired")  # type: ignore[union-attr]
            return
        assert isinstance(answer, Accepted)
        assert answer.evicted == victim
        if victim is not None:
            self.ends["evicted"] += 1
            model.drop(victim)
        self.ends["enqueued"] += 1
        model.add(job)
        assert self.real.enqueue(job, self.now) == Accepted(job.id, answer.seq), "asking twice gives one place"

    def forget_old_times(self) -> None:
        if self.model.usual and self.now - self.learned_at > 30.0:
            self.model.usual = {}

    @rule(ready=st.sampled_from([A | B, A | B, A, B, frozenset()]))
    def dispatch(self, ready: frozenset[str]) -> None:
        self.forget_old_times()
        expected = self.model.dispatch(ready, self.now)
        assert self.real.dispatch(self.now, ready) == expected
        if expected is not None:
            self.out.append(expected)
        shed = self.real.take_shed()
        assert shed == self.model.shed
        self.ends["infeasible"] += len(shed)
        self.model.shed = []

    @rule()
    def expire(self) -> None:
        due = [each for each in self.model.jobs if each.deadline <= self.now]
        ids = [each.id for each in due + self.model.overdue]
        assert sorted(each.id for each in self.real.expire(self.now)) == sorted(ids)
        self.ends["expired"] += len(ids)
        self.model.overdue = []
        for each in due:
            self.model.drop(each)

    @precondition(lambda self: self.count)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        name = str(data.draw(st.integers(max(1, self.count - 12), self.count)))
        waiting = [each for each in self.model.jobs if each.id == name]
        assert self.real.cancel(name) == bool(waiting)
        for each in waiting:
            self.ends["cancelled"] += 1
            self.model.drop(each)

    @precondition(lambda self: self.out)
    @rule(ok=st.booleans())
    def done(self, ok: bool) -> None:
        job = self.out.pop()
        assert self.real.done(job.id, ok)
        assert not self.real.done(job.id, ok), "and counted once"
        self.ends["processed" if ok else "failed"] += 1

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        """Whoever comes first, all who waited are in again, at their old places, though it was full."""
        self.expire()
        places = [replace(job, seq=self.real.enqueue(job, self.now).seq) for job in self.model.jobs]  # type: ignore[union-attr]
        self.begin_anew()
        for job in data.draw(st.permutations(places)):
            assert isinstance(self.real.enqueue(job, self.now), Accepted)
            self.ends["enqueued"] += 1
            self.model.add(job)
            self.model.jobs.sort(key=lambda each: (each.enqueued_at, each.seq))

    @rule()
    def close(self) -> None:
        assert self.real.close() == self.model.jobs
        refused = self.real.enqueue(Job("late"), self.now)
        assert (refused.reason, refused.retry_after) == ("shutdown", None)  # type: ignore[union-attr]
        assert self.real.dispatch(self.now) is None
        assert self.real.stats(self.now).cancelled == self.ends["cancelled"] + len(self.model.jobs)
        self.begin_anew()

    @invariant()
    def same_jobs(self) -> None:
        if not hasattr(self, "real"):
            return
        model, stats = self.model, self.real.stats(self.now)
        assert [each.id for each in self.real.waiting()] == [each.id for each in model.jobs]
        assert len(self.real) == len(model.jobs) <= self.options.max_queue_size
        assert stats.depth == {klass: sum(each.klass == klass for each in model.jobs) for klass in CLASSES}
        assert stats.newest_first == tuple(klass for klass in CLASSES if model.turned[klass])
        assert {name: getattr(stats, name) for name in self.ends} == self.ends
        ended = sum(self.ends.values()) - self.ends["enqueued"] - self.ends["rejected"]
        assert stats.in_process == len(self.out)
        assert self.ends["enqueued"] == len(model.jobs) + len(model.overdue) + len(self.out) + ended
        due = [each.deadline for each in model.jobs + model.overdue if each.deadline < inf]
        if model.overdue:
            due = [each.deadline for each in model.overdue]
        assert self.real.next_deadline() == min(due, default=None)
        oldest = min((each.enqueued_at for each in model.jobs), default=self.now)
        assert stats.oldest_wait == self.now - oldest


TestQueueAgainstModel = QueueAgainstModel.TestCase
TestQueueAgainstModel.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
