"""Decides, for one call, what to do next: try a route, wait, or give up.

    plan = Plan(deadline, options, rng)
    loop:   match plan.next(now, candidates):
                Try     make the attempt; then `succeeded`, `failed`, or `refused` if it never began
                Sleep   be back at `until`
                Fail    raise its error

One deadline and one count of attempts bound everything; changing the route renews neither. A route that failed
is repeated or left for another as the disposition of its error says; of the routes already tried, those that
may be repeated are the last resort, and the one that is ready first is taken.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

from rubberduck.core.classify import Disposition, OtherRoute, Quarantine, SameRoute
from rubberduck.core.retry import RetryOptions, backoff, hinted
from rubberduck.core.score import Candidate, Choice, choose, cost, with_obstacle
from rubberduck.core.values import value
from rubberduck.errors import DeadlineExceeded, NoAvailableProvider, RubberDuckError

Panic = Literal["fail_fast", "wait", "probe_best"]


@value(frozen=True, slots=True)
class Try:
    """Make an attempt on `route`: the `attempt`-th there, from 1. A repeat is charged to the retry budget.

    `with_other_key`: the last key was refused, take another one; that is charged to no budget. `choice` explains the
    route where it was chosen. `is_last_resort`: every circuit is open, ask this one for its extra probe.
    """

    route: str
    attempt: int
    is_repeat: bool
    with_other_key: bool = False
    choice: Choice | None = field(default=None, repr=False, compare=False)
    is_last_resort: bool = False


@dataclass(frozen=True, slots=True)
class Sleep:
    """Nothing to do before `until`. `route` is what is waited for, None if it is whichever comes free first.

    `views` are the candidates as they looked to the call.
    """

    until: float
    route: str | None
    views: tuple[Candidate, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Fail:
    """The call ends with `error`. `reasons` says for each route why it was not tried (again).

    `views` are the candidates as they looked to the call.
    """

    error: BaseException
    reasons: dict[str, str]
    views: tuple[Candidate, ...] = field(default=(), repr=False, compare=False)


Step = Try | Sleep | Fail


@dataclass(slots=True)
class _Tried:
    """What this call knows of a route it has tried."""

    attempts: int = 0
    same: SameRoute = SameRoute.NEVER
    kind: str = ""
    ready_at: float = -inf
    hinted_wait: float = 0.0
    keys_refused: int = 0
    other_key: bool = False


class Plan:
    """The course of one call. `now` and `deadline` are monotonic seconds.

    `panic` says what to do while every candidate is blocked for a time: "fail_fast" gives up unless the
    wait is at most `max_wait_for_preferred`, "wait" waits as long as the deadline allows, "probe_best" asks the best of
    those whose circuit is open for its extra probe, and where none is to be had does as "fail_fast".
    """

    def __init__(
        self,
        deadline: float,
        options: RetryOptions,
        rng: random.Random,
        *,
        out_est: float = 256.0,
        price_weight: float = 0.0,
        panic: Panic = "fail_fast",
        sticky: str | None = None,
    ) -> None:
        self.deadline = deadline
        self.attempts = 0
        self.last_error: BaseException | None = None
        self._options = options
        self._rng = rng
        self._out_est = out_est
        self._price_weight = price_weight
        self._panic = panic
        self._sticky = sticky
        self._tried: dict[str, _Tried] = {}
        self._set_aside: dict[str, tuple[str, float | None]] = {}
        self._pending: str | None = None
        self._has_probed = False
        self._is_over = False
        self._needs_more_than: tuple[int, str] | None = None
        self._needs_other_family: set[str] = set()
        self._blocked_since: float | None = None
        self._seen: dict[str, Candidate] = {}

    # -- what to do ----------------------------------------------------------------------------------------

    def next(self, now: float, candidates: Sequence[Candidate]) -> Step:
        """The next step. `candidates` are the routes as they look now, in the order of the configuration."""
        views = [self._view(each, now) for each in candidates]
        self._seen = {each.route: each for each in views}
        if self._is_over or self.attempts >= self._options.max_attempts_total:
            return self._fail(now, {})
        if now >= self.deadline:
            return self._fail(now, {each.route: "deadline" for each in candidates})
        fresh = [each for each in views if each.obstacle is None and each.route not in self._tried]
        step = self._repeat_pending(now, bool(fresh)) if self._pending is not None else None
        if step is None and fresh:
            step = self._try_fresh(views, fresh)
        if step is None:
            step = self._repeat_any(now)
        if step is None:
            step = self._wait_or_fail(now, views)
        return step

    def hedge(self, now: float, candidates: Sequence[Candidate], silent: str) -> Choice | None:
        """Another route for the same question, beside the `silent` one; None if none could begin at once."""
        if self._is_over or self.attempts + 2 > self._options.max_attempts_total:
            return None
        ready = [
            each
            if each.route != silent and each.route not in self._tried and each.wait <= 0 and each.repeat_allowed
            else with_obstacle(each, each.obstacle or "no hedge")
            for each in [self._view(each, now) for each in candidates]
        ]
        return choose(ready, self._rng, self._out_est, price_weight=self._price_weight)

    def leaves(
        self, now: float, candidates: Sequence[Candidate], route: str, waited: float, still: float | None
    ) -> bool:
        """Whether a call that has `waited` for the limiter of `route` had better go to another one now.

        `still` is how long it will have to wait, as far as that is known: another one must have it begin sooner. In its
        own tier or an earlier one that must be the better choice, too; after `max_wait_for_preferred` any tier will do.
        """
        here = next((each for each in candidates if each.route == route), None)
        if here is None:
            return False
        here = replace(here, wait=here.wait if still is None else still)
        is_kept_long = waited >= self._options.max_wait_for_preferred
        limit = cost(here, self._out_est, self._price_weight)
        for each in candidates:
            if each.route == route or each.route in self._tried:
                continue
            view = self._view(each, now)
            if view.obstacle is not None or view.wait >= here.wait:
                continue
            if is_kept_long or (
                view.priority <= here.priority and cost(view, self._out_est, self._price_weight) < limit
            ):
                return True
        return False

    # -- what happened -------------------------------------------------------------------------------------

    def refused(self, route: str, reason: str, retry_after: float | None, now: float) -> None:
        """The attempt never began: breaker, limiter or retry budget said no. It counts as no attempt.

        The route is left out until `retry_after` has passed (None: for the rest of the call).
        """
        self._set_aside[route] = (reason, None if retry_after is None else now + retry_after)
        if self._pending == route:
            self._pending = None

    def succeeded(self, route: str) -> None:
        """The attempt brought the whole answer; the plan is done."""
        self._note(route)
        self._is_over = True

    def failed(
        self,
        route: str,
        disposition: Disposition,
        now: float,
        error: BaseException,
        retry_after: float | None = None,
        *,
        has_other_key: bool = False,
    ) -> None:
        """The attempt failed. `retry_after` is the provider's hint in seconds.

        `has_other_key`: another key of the same provider is at hand, should this one be refused or its account spent.
        """
        tried = self._note(route)
        tried.same, tried.kind = disposition.same_route, disposition.kind
        tried.other_key = False
        self._has_probed = False
        self.last_error = error
        self._restrict_others(route, disposition)
        self._is_over = self._is_over or disposition.is_final  # of two at once the first may have ended it already
        if tried.same is SameRoute.OTHER_KEY:
            self._plan_other_key(tried, route, now, disposition.quarantine is Quarantine.KEY, has_other_key)
        elif tried.same is not SameRoute.NEVER:
            self._plan_repeat(tried, route, now, retry_after)
            if tried.same is SameRoute.REPEAT:
                self._pending = route

    # -- repeats -------------------------------------------------------------------------------------------

    def _repeat_pending(self, now: float, another_is_eligible: bool) -> Step | None:
        """The route that failed last, if it may be repeated before anything else is tried."""
        route = self._pending
        assert route is not None
        tried = self._tried[route]
        allowed = self._may_repeat(route)
        if allowed and another_is_eligible:
            is_soon = max(tried.hinted_wait, self._seen[route].wait) <= self._options.max_wait_for_preferred
            allowed = is_soon and (tried.other_key or tried.attempts <= self._options.same_route_repeats)
        if allowed:
            return self._go_or_sleep(route, now)
        self._pending = None
        return None

    def _repeat_any(self, now: float) -> Step | None:
        """With nothing fresh left: the tried route that is ready first."""
        ready = [
            (self._tried[route].ready_at, order, route)
            for order, route in enumerate(self._seen)
            if route in self._tried and self._may_repeat(route)
        ]
        if not ready:
            return None
        self._pending = min(ready)[2]
        return self._go_or_sleep(self._pending, now)

    def _may_repeat(self, route: str) -> bool:
        tried, seen = self._tried[route], self._seen.get(route)
        if seen is None or seen.obstacle is not None:
            return False
        # The retry budget spares who is overloaded. A key that was not tried is rather like a route that was not.
        if not (seen.repeat_allowed or tried.other_key):
            return False
        # No sleep starts that leaves no time for an attempt after it.
        if tried.ready_at + seen.typical >= self.deadline:
            return False
        return tried.same is not SameRoute.NEVER and tried.attempts < self._options.max_attempts

    def _go_or_sleep(self, route: str, now: float) -> Step:
        tried = self._tried[route]
        if now < tried.ready_at:
            return Sleep(tried.ready_at, route, tuple(self._seen.values()))
        self._blocked_since = None
        return Try(route, tried.attempts + 1, True, tried.other_key)

    def _plan_repeat(self, tried: _Tried, route: str, now: float, hint: float | None) -> None:
        if hint is None:
            tried.hinted_wait = 0.0
            tried.ready_at = now + backoff(tried.attempts, self._options, self._rng)
        else:
            seen = self._seen.get(route)
            tried.hinted_wait = hint
            tried.ready_at = now + hinted(seen.wait if seen else 0.0, hint, self._rng)

    def _plan_other_key(self, tried: _Tried, route: str, now: float, is_refused: bool, has_other_key: bool) -> None:
        # One re-authentication at most: two refused keys are no accident. A spent account says nothing of the others.
        tried.keys_refused += is_refused
        tried.same = SameRoute.REPEAT if has_other_key and tried.keys_refused <= 1 else SameRoute.NEVER
        tried.other_key = tried.same is SameRoute.REPEAT
        tried.ready_at, tried.hinted_wait = now, 0.0
        self._pending = route if tried.other_key else None

    # -- other routes --------------------------------------------------------------------------------------

    def _try_fresh(self, views: list[Candidate], fresh: list[Candidate]) -> Try | None:
        open_to_choice = [
            with_obstacle(each, f"tried: {self._tried[each.route].kind}")
            if each.obstacle is None and each.route in self._tried
            else each
            for each in views
        ]
        choice = choose(
            open_to_choice,
            self._rng,
            self._out_est,
            price_weight=self._price_weight,
            longest_wait=self._options.max_wait_for_preferred,
            sticky=self._sticky,
        )
        if choice is None:
            return None
        self._pending = self._blocked_since = None
        return Try(choice.route, 1, False, choice=choice)

    def _restrict_others(self, route: str, disposition: Disposition) -> None:
        failed = self._seen.get(route)
        if failed is None:
            return
        if disposition.other_route is OtherRoute.IF_LARGER and failed.context_limit is not None:
            if self._needs_more_than is None or failed.context_limit > self._needs_more_than[0]:
                self._needs_more_than = (failed.context_limit, disposition.kind)
        elif disposition.other_route is OtherRoute.IF_DIFFERENT and failed.family is not None:
            self._needs_other_family.add(failed.family)

    def _view(self, candidate: Candidate, now: float) -> Candidate:
        """The candidate with what this call has learned: it may have an obstacle that others do not see."""
        if candidate.obstacle is not None:
            return candidate
        if candidate.route in self._set_aside:
            reason, until = self._set_aside[candidate.route]
            if until is None or now < until:
                return with_obstacle(candidate, reason, None if until is None else until - now)
            del self._set_aside[candidate.route]
        remaining = self.deadline - now
        if candidate.wait > remaining:
            return with_obstacle(candidate, "rate_limited", candidate.wait if candidate.wait < inf else None)
        if candidate.typical > remaining:
            return with_obstacle(candidate, "too_late")
        if candidate.route not in self._tried:
            limit = candidate.context_limit
            if self._needs_more_than is not None and limit is not None and limit <= self._needs_more_than[0]:
                return with_obstacle(candidate, self._needs_more_than[1])
            if candidate.family in self._needs_other_family:
                return with_obstacle(candidate, "invalid_here_too")
        return candidate

    # -- the end -------------------------------------------------------------------------------------------

    def _wait_or_fail(self, now: float, views: list[Candidate]) -> Step:
        """Every route is blocked: wait for the one that frees itself first, if that is soon enough."""
        if self._panic == "probe_best" and not self._has_probed:
            probe = self._last_resort(now, views)
            if probe is not None:
                return probe
        waits = [each.retry_after for each in views if self._frees_itself(each)]
        soonest = min((wait for wait in waits if wait is not None), default=None)
        # Not at the very instant: what frees itself must have done so when we look.
        if soonest is not None and (until := now + max(soonest, 0.001)) < self.deadline:
            since = now if self._blocked_since is None else self._blocked_since
            if self._panic == "wait" or now + soonest - since <= self._options.max_wait_for_preferred:
                self._blocked_since, self._has_probed = since, False
                return Sleep(until, None, tuple(views))
        return self._fail(now, {each.route: self._reason(each) for each in views}, soonest)

    def _last_resort(self, now: float, views: list[Candidate]) -> Try | None:
        """One look at the best of the open circuits, though it is not its time; None where no probe is to be had."""
        # Whatever has no obstacle and is not tried all the same, as it may not be repeated, is none for a probe either.
        open_to_probes = [
            replace(each, obstacle=None)
            if each.may_probe and each.route not in self._tried
            else with_obstacle(each, each.obstacle or "not open")
            for each in views
        ]
        choice = choose(open_to_probes, self._rng, self._out_est, price_weight=self._price_weight)
        if choice is None:
            return None
        self._has_probed = True
        self._set_aside.pop(choice.route, None)
        return Try(choice.route, 1, False, choice=choice, is_last_resort=True)

    def _frees_itself(self, view: Candidate) -> bool:
        if view.obstacle is None or view.retry_after is None:
            return False
        tried = self._tried.get(view.route)
        return tried is None or (tried.same is not SameRoute.NEVER and tried.attempts < self._options.max_attempts)

    def _reason(self, view: Candidate) -> str:
        tried = self._tried.get(view.route)
        if tried is not None:
            return f"{tried.kind} after {tried.attempts} attempt{'s' if tried.attempts > 1 else ''}"
        return view.obstacle or "not tried"

    def _fail(self, now: float, reasons: dict[str, str], retry_after: float | None = None) -> Fail:
        self._is_over = True
        if self.last_error is not None:
            return Fail(self.last_error, reasons, tuple(self._seen.values()))
        error: RubberDuckError
        if now >= self.deadline:
            error = DeadlineExceeded("the call's time was over before an attempt could be made")
        else:
            told = ", ".join(f"{route}: {reason}" for route, reason in reasons.items()) or "there is no candidate"
            error = NoAvailableProvider(
                f"no provider can take the call ({told})", reasons=reasons, retry_after=retry_after
            )
        return Fail(error, reasons, tuple(self._seen.values()))

    def _note(self, route: str) -> _Tried:
        self.attempts += 1
        self._pending = None
        tried = self._tried.setdefault(route, _Tried())
        tried.attempts += 1
        return tried
