"""The engine against a literal model of OTP, and its promises whatever the order of events.

A machine that notices nothing is worth nothing: each mutation below breaks one rule, and must be caught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from engine_rig import Rig, child
from hypothesis import HealthCheck, Phase, settings

from supervision.engine.engine import Engine
from supervision.engine.intensity import Intensity
from supervision.engine.roster import Child, Purpose, Roster
from supervision.engine.roster import Phase as ChildPhase
from supervision.engine.sequence import Sequence
from supervision.engine.vocabulary import ChildExited, Finish, StartChild, TerminateChild
from supervision.exits import Shutdown
from supervision.specs.strategy import AutoShutdown, Restart, Strategy
from supervision.testing.engine_machine import AnyOrderMachine, EngineMachine, check_engine

TestAgainstOtp = EngineMachine.TestCase
TestAgainstOtp.settings = settings(max_examples=150, stateful_step_count=30)

TestInAnyOrder = AnyOrderMachine.TestCase
TestInAnyOrder.settings = settings(max_examples=200, stateful_step_count=40)


@pytest.mark.parametrize("strategy", ["one_for_one", "rest_for_one", "one_for_all"])
def test_a_run_without_faults_needs_no_more_than_its_starts_and_stops(strategy: str) -> None:
    rig = Rig([child(id) for id in "abcde"], strategy=strategy)
    rig.shut_down()
    assert rig.log == [f"+{id}" for id in "abcde"] + [f"-{id}" for id in reversed("abcde")]
    assert Finish(Shutdown()).reason == rig.finished


# --- mutations ---------------------------------------------------------------------------------------------------


class WindowOffByOne(Intensity):
    """Tolerates one restart more than it may."""

    def allow(self, now: float) -> bool:
        self.max_restarts += 1
        try:
            return super().allow(now)
        finally:
            self.max_restarts -= 1


class WindowForgetsEarly(Intensity):
    """An entry exactly `max_seconds` old counts no more."""

    def used(self, now: float) -> int:
        return super().used(now + 1e-9)


def counting_with(intensity: type[Intensity]) -> Callable[..., Engine]:
    class Mutant(Engine):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            right = self._roster.intensity
            self._roster.intensity = intensity(right.max_restarts, right.max_seconds)

    return Mutant


class RestartsTemporary(Engine):
    """A temporary child is restarted as a bystander."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        roster = self._roster
        right = roster.stand_by

        def stand_by(child: Child) -> None:
            if child.restart is Restart.TEMPORARY:
                roster.disarm(child)
                if child.phase is not ChildPhase.STOPPED:
                    roster.hold(child)
                roster.enter(child, ChildPhase.STOPPED)
            else:
                right(child)

        roster.stand_by = stand_by  # type: ignore[method-assign]


class RestartsTransientAlways(Engine):
    """An orderly exit of a transient child is taken for a crash."""

    def _decide_exit(self, child: Child, event: ChildExited) -> None:
        if child.restart is Restart.TRANSIENT and self._final is None and not self._must_wait():
            self._roster.hold(child)
            self._restart(child)
        else:
            super()._decide_exit(child, event)


class StopsLeftToRight(Engine):
    """The stop order is not reversed."""

    def _run(self, sequence: Sequence | None) -> None:
        if sequence is not None:
            sequence._to_stop.reverse()
        super()._run(sequence)


class LeavesStoppedOnesStopped(Engine):
    """A group restart does not start a child that stood stopped."""

    def _run(self, sequence: Sequence | None) -> None:
        if sequence is not None and sequence.purpose is Purpose.BATCH:
            sequence._batch = tuple(each for each in sequence._batch if each.phase is not ChildPhase.STOPPED)
        super()._run(sequence)


class CountsEachOfAGroup(Engine):
    """A restart of all counts twice."""

    def _is_tolerated(self, child: Child) -> bool:
        first = super()._is_tolerated(child)
        if first and self._roster.options.strategy is Strategy.ONE_FOR_ALL:
            self._roster.intensity.allow(self._now)
        return first


class MistakesAnyForAll(Engine):
    """auto_shutdown any and all are swapped."""

    def _check_auto_shutdown(self, child: Child) -> None:
        if not child.spec.significant:
            return
        rule, is_last = self._roster.options.auto_shutdown, not self._roster.has_significant
        if rule is AutoShutdown.ALL_SIGNIFICANT or (rule is AutoShutdown.ANY_SIGNIFICANT and is_last):
            self._shut_down(Shutdown())


class NeverTriesAgain(Engine):
    """A failed restart is not retried: the child is left stopped."""

    def _retry(self, child: Child) -> None:
        self._roster.retire(child)


class BelievesTheDead(Engine):
    """A late acknowledgment, or exit, of an earlier incarnation is taken for one of the present."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._roster.current = lambda child_id, epoch: self._roster.children.get(child_id)  # type: ignore[method-assign]


class RestsForOneBefore(Engine):
    """rest_for_one stops those before the failed child too."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._roster.from_child_on = lambda child: list(self._roster.children.values())  # type: ignore[method-assign]


class GivesUpSilently(Engine):
    """Once exhausted it drops the child and goes on."""

    def _exhausted(self, child: Child) -> None:
        self._roster.retire(child)


class ForgetsTheLastCall(Engine):
    """A call that waits for a child is not answered when the child fails to start."""

    def _start_failed(self, child: Child, reason: Any) -> None:
        if child.purpose is Purpose.CALL and self._final is None:
            child.token = None
        super()._start_failed(child, reason)


class StartsBesideTheOld(Engine):
    """A batch does not wait for the one it stops."""

    def _run(self, sequence: Sequence | None) -> None:
        super()._run(sequence)
        if sequence is not None and sequence.purpose is Purpose.BATCH and self._sequence is sequence:
            self._advance()


MUTANTS = {
    "the window tolerates one more": counting_with(WindowOffByOne),
    "the window forgets early": counting_with(WindowForgetsEarly),
    **{
        str(mutant.__doc__).rstrip("."): mutant
        for mutant in (
            RestartsTemporary,
            RestartsTransientAlways,
            StopsLeftToRight,
            LeavesStoppedOnesStopped,
            CountsEachOfAGroup,
            MistakesAnyForAll,
            NeverTriesAgain,
            BelievesTheDead,
            RestsForOneBefore,
            GivesUpSilently,
            ForgetsTheLastCall,
            StartsBesideTheOld,
        )
    },
}

MACHINES = {BelievesTheDead: [AnyOrderMachine]}  # the one that can notice it; else it takes both in turn

QUICK: dict[str, Any] = {
    "derandomize": True,
    "database": None,
    "phases": [Phase.generate],
    "print_blob": False,
    "suppress_health_check": list(HealthCheck),
    "report_multiple_bugs": False,
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS)
def test_a_broken_engine_is_caught(mutant: Callable[..., Engine]) -> None:
    """The machines stop at the first finding. It takes 10 to 100 runs, whose order depends on what else was imported:
    with 300 at most, some orders found nothing; 4,000 are so many that none will."""
    with pytest.raises((AssertionError, KeyError, AttributeError, RuntimeError)):
        check_engine(mutant, examples=4_000, steps=30, machines=MACHINES.get(mutant), **QUICK)


def test_the_engine_itself_passes_in_the_same_way() -> None:
    check_engine(Engine, examples=50, steps=30, **QUICK)


def test_a_roster_is_what_the_mutations_above_take_it_for() -> None:
    """They reach into it: were a method renamed, a mutation would break nothing and this file tell nothing."""
    for name in ("stand_by", "current", "from_child_on", "retire", "hold", "enter", "disarm"):
        assert callable(getattr(Roster, name))


def test_a_start_that_waited_goes_on_counting_where_its_namesake_ended() -> None:
    """Its last epoch is looked up when it is asked for; while it waits behind others, the child may live once more."""
    rig = Rig()
    for request in (StartChild(child("n", restart="temporary")), TerminateChild("n")):
        rig.call_only(request)
    rig.call_only(StartChild(child("n", restart="temporary")))
    rig.settle()
    assert rig.last_start["n"].epoch == 2
