"""State machines for Hypothesis that drive a supervisor's decisions: against a literal model of OTP, and in any order.

For whoever changes the engine, or brings one of their own:

    class MyEngine(Engine): ...

    class MyMachine(EngineMachine):
        engine = MyEngine

    TestMyEngine = MyMachine.TestCase

or, both machines at once, `check_engine(MyEngine)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

try:
    from hypothesis import settings
    from hypothesis import strategies as st
    from hypothesis.stateful import (
        RuleBasedStateMachine,
        initialize,
        invariant,
        precondition,
        rule,
        run_state_machine_as_test,
    )
except ImportError as error:
    raise ImportError("supervision.testing.EngineMachine needs hypothesis: pip install hypothesis") from error

from supervision.engine.engine import Engine
from supervision.engine.vocabulary import (
    AlreadyPresent,
    AlreadyStarted,
    ChildExited,
    ChildIgnored,
    ChildStarted,
    ChildStartFailed,
    CountChildren,
    DeleteChild,
    Ended,
    NotFound,
    Ok,
    RestartChild,
    Restarting,
    Running,
    ShutdownRequested,
    StartAll,
    StartChild,
    Started,
    StartError,
    TerminateChild,
    WhichChildren,
)
from supervision.exits import FailedToStart, GaveUp, Reason, Shutdown
from supervision.specs.child import Backoff, pause
from supervision.testing.otp_model import Model, ModelChild
from supervision.testing.pretend_shell import BOOM, NORMAL, PretendShell, child

IDS = list("abcde")
an_id = st.sampled_from(IDS)
a_restart = st.sampled_from(["permanent", "permanent", "transient", "temporary"])
a_strategy = st.sampled_from(["one_for_one", "rest_for_one", "one_for_all"])
an_auto_shutdown = st.sampled_from(["never", "any_significant", "all_significant"])
REASONS: dict[str, Reason] = {"normal": NORMAL, "shutdown": Shutdown(), "crash": BOOM}
an_outcome = st.sampled_from(["ok", "ok", "ignore", "fail"])
some_children = st.lists(
    st.tuples(an_id, a_restart, st.booleans()), min_size=2, max_size=5, unique_by=lambda row: row[0]
)


def word(answer: Any) -> str:
    """An answer of the engine in the words of the model."""
    match answer:
        case Started(id=None):
            return "ignore"
        case Started() | Ok():
            return "ok"
        case StartError():
            return "fail"
        case AlreadyStarted():
            return "already_started"
        case AlreadyPresent():
            return "already_present"
        case Running():
            return "running"
        case Restarting():
            return "restarting"
        case NotFound():
            return "not_found"
    raise AssertionError(answer)


class EngineMachine(RuleBasedStateMachine):
    """Everything is delivered at once, so that the engine must do what OTP does, in the same order."""

    engine: Callable[..., Engine] = Engine
    """What makes the engine under test, called as the class `Engine`."""
    rig: PretendShell
    model: Model

    @initialize(
        strategy=a_strategy,
        auto_shutdown=an_auto_shutdown,
        max_restarts=st.integers(0, 4),
        children=some_children,
        outcomes=st.dictionaries(an_id, st.lists(an_outcome, max_size=3), max_size=1),
    )
    def begin(
        self,
        strategy: str,
        auto_shutdown: str,
        max_restarts: int,
        children: list[tuple[str, str, bool]],
        outcomes: dict[str, list[str]],
    ) -> None:
        rows = [self.allowed(row, auto_shutdown) for row in children]
        specs = [child(id, restart=restart, significant=significant) for id, restart, significant in rows]
        options: dict[str, Any] = {
            "strategy": strategy,
            "max_restarts": max_restarts,
            "max_seconds": 5.0,
            "auto_shutdown": auto_shutdown,
        }
        self.model = Model(**options)
        self.rig = PretendShell(specs, engine=type(self).engine, start=False, **options)
        self.model.now = self.rig.now
        self.will_go(outcomes)
        self.rig.tell(StartAll())
        self.rig.settle()
        self.model.init([ModelChild(*row) for row in rows])

    @staticmethod
    def allowed(row: tuple[str, str, bool], auto_shutdown: str) -> tuple[str, str, bool]:
        id, restart, significant = row
        return id, restart, significant and restart != "permanent" and auto_shutdown != "never"

    def will_go(self, outcomes: dict[str, list[str]]) -> None:
        for id, coming in outcomes.items():
            self.rig.starts[id] = list(coming)
            self.model.outcomes[id] = list(coming)

    def is_up(self) -> bool:
        return self.model.end is None

    @precondition(is_up)
    @rule(id=an_id, coming=st.lists(an_outcome, max_size=5))
    def next_starts_will_go(self, id: str, coming: list[str]) -> None:
        self.will_go({id: coming})

    @precondition(is_up)
    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5, 5.0, 6.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.advance(seconds)
        self.model.now = self.rig.now

    @precondition(lambda self: self.model.end is None and self.model.window)
    @rule()
    def time_passes_to_the_edge_of_the_window(self) -> None:
        """The oldest restart counts for the last time."""
        self.time_passes(max(0.0, self.model.window[0] + self.model.max_seconds - self.rig.now))

    @precondition(lambda self: self.model.end is None and self.rig.live)
    @rule(
        data=st.data(),
        reason=st.sampled_from(["crash", "crash", *sorted(REASONS)]),
        coming=st.dictionaries(an_id, st.lists(an_outcome, max_size=3), max_size=2),
    )
    def a_child_ends(self, data: st.DataObject, reason: str, coming: dict[str, list[str]]) -> None:
        id = data.draw(st.sampled_from(sorted(self.rig.live)))
        self.will_go(coming)
        self.rig.exit(id, REASONS[reason])
        self.model.exit(id, reason)

    @precondition(is_up)
    @rule(id=an_id, restart=a_restart, significant=st.booleans())
    def start_child(self, id: str, restart: str, significant: bool) -> None:
        row = self.allowed((id, restart, significant), self.model.auto_shutdown)
        answer = self.rig.call(StartChild(child(id, restart=restart, significant=row[2])))
        assert word(answer) == self.model.start_child(ModelChild(*row))

    @precondition(is_up)
    @rule(id=an_id)
    def restart_child(self, id: str) -> None:
        assert word(self.rig.call(RestartChild(id))) == self.model.restart_child(id)

    @precondition(is_up)
    @rule(id=an_id)
    def terminate_child(self, id: str) -> None:
        assert word(self.rig.call(TerminateChild(id))) == self.model.terminate_child(id)

    @precondition(is_up)
    @rule(id=an_id)
    def delete_child(self, id: str) -> None:
        assert word(self.rig.call(DeleteChild(id))) == self.model.delete_child(id)

    @precondition(is_up)
    @rule(chance=st.integers(0, 9))
    def shut_down(self, chance: int) -> None:
        if chance == 9:  # or most runs would be short
            self.rig.shut_down()
            self.model.finish("shutdown")

    @rule()
    def look(self) -> None:
        answer = self.rig.call(CountChildren())
        if self.model.end is None:
            running = sum(each.state == "running" for each in self.model.children)
            assert (answer.specs, answer.active) == (len(self.model.children), running)
        else:
            assert isinstance(answer, Ended)

    @invariant()
    def both_did_the_same_in_the_same_order(self) -> None:
        assert self.rig.log == self.model.log

    @invariant()
    def both_ended_for_the_same_reason_or_not_at_all(self) -> None:
        match self.rig.finished:
            case None:
                ended = None
            case Shutdown(info=FailedToStart(id=id)):
                ended = f"failed_to_start {id}"
            case GaveUp(chain=chain):
                ended = f"gave_up {chain[0].path}"
            case _:
                ended = "shutdown"
        assert ended == self.model.end

    @invariant()
    def both_list_the_same_children(self) -> None:
        if self.rig.finished is None:
            rows = [(row.id, row.state) for row in self.rig.call(WhichChildren())]
            assert rows == [(each.id, each.state) for each in reversed(self.model.children)]
            assert self.rig.open == {each.id for each in self.model.children if each.state == "running"}
            assert self.rig.armed == []


class AnyOrderMachine(RuleBasedStateMachine):
    """Acknowledgments and exits are late and in any order; the rig checks each effect, here is what must come of it."""

    engine: Callable[..., Engine] = Engine
    rig: PretendShell
    asked: list[int]

    @initialize(
        strategy=a_strategy,
        is_dynamic=st.booleans(),
        max_restarts=st.integers(0, 3),
        on_exhausted=st.sampled_from(["escalate", "escalate", pause(3)]),
        children=some_children,
        outcomes=st.lists(st.sampled_from(["ok", "ok", "ok", "ok", "ignore", "fail", "hang"]), max_size=60),
        stops=st.dictionaries(an_id, st.sampled_from(["ok", "hang", BOOM]), max_size=3),
    )
    def begin(
        self,
        strategy: str,
        is_dynamic: bool,
        max_restarts: int,
        on_exhausted: Any,
        children: list[tuple[str, str, bool]],
        outcomes: list[str],
        stops: dict[str, Any],
    ) -> None:
        specs = [self.spec(*row) for row in children]
        self.strategy = "one_for_one" if is_dynamic else strategy
        self.max_restarts = max_restarts
        self.rig = PretendShell(
            () if is_dynamic else specs,
            engine=type(self).engine,
            start=False,
            strategy=self.strategy,
            is_dynamic=is_dynamic,
            max_restarts=max_restarts,
            on_exhausted=on_exhausted,
        )
        self.rig.stops = stops
        for index, outcome in enumerate(outcomes):
            self.rig.starts[IDS[index % len(IDS)]].append(outcome)
        self.asked = []
        self.rig.tell(StartAll())

    @staticmethod
    def spec(id: str, restart: str, has_backoff: bool) -> Any:
        backoff = Backoff(min=1, max=4) if has_backoff else None
        return child(id, restart=restart, backoff=backoff, start_timeout=2, shutdown=3)

    def is_up(self) -> bool:
        return self.rig.finished is None

    @precondition(lambda self: self.rig.inbox)
    @rule(data=st.data())
    def something_arrives(self, data: st.DataObject) -> None:
        self.rig.deliver(data.draw(st.sampled_from(self.deliverable())))

    def deliverable(self) -> list[int]:
        """What may come next: events about one child stay in order, all else overtakes."""
        seen: set[Any] = set()
        free = []
        for index, event in enumerate(self.rig.inbox):
            about = getattr(event, "id", index)
            if about not in seen:
                free.append(index)
            seen.add(about)
        return free

    @precondition(lambda self: self.rig.finished is None and self.may_end())
    @rule(data=st.data(), orderly=st.booleans())
    def a_child_ends(self, data: st.DataObject, orderly: bool) -> None:
        self.rig.exit_only(data.draw(st.sampled_from(self.may_end())), NORMAL if orderly else BOOM)

    def may_end(self) -> list[str]:
        """Those that live, with nothing on its way about them."""
        coming = {getattr(event, "id", None) for event in self.rig.inbox}
        return sorted(self.rig.live.keys() - coming)

    @precondition(is_up)
    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 4.0]))
    def time_passes(self, seconds: float) -> None:
        settle, self.rig.settle = self.rig.settle, lambda: None  # type: ignore[method-assign]
        self.rig.advance(seconds)
        self.rig.settle = settle  # type: ignore[method-assign]

    @rule(id=an_id, restart=a_restart, has_backoff=st.booleans())
    def start_child(self, id: str, restart: str, has_backoff: bool) -> None:
        self.asked.append(self.rig.call_only(StartChild(self.spec(id, restart, has_backoff), self.last_epoch(id))))

    def last_epoch(self, id: str) -> int:
        return self.rig.last_start[id].epoch if id in self.rig.last_start else 0

    @rule(id=an_id, request=st.sampled_from([RestartChild, TerminateChild, DeleteChild]))
    def call(self, id: str, request: Any) -> None:
        self.asked.append(self.rig.call_only(request(id)))

    @rule(request=st.sampled_from([WhichChildren(), CountChildren()]))
    def look(self, request: Any) -> None:
        self.asked.append(self.rig.call_only(request))

    @precondition(is_up)
    @rule(chance=st.integers(0, 9))
    def shut_down(self, chance: int) -> None:
        if chance == 9:  # or most runs would be short
            self.rig.asked_to_end = True
            self.rig.tell(ShutdownRequested(Shutdown()))

    @invariant()
    def late_word_of_an_earlier_incarnation_changes_nothing(self) -> None:
        for id, start in self.rig.last_start.items():
            old = start.epoch - 1
            for event in (ChildStarted(id, old), ChildExited(id, old, BOOM), ChildStartFailed(id, old, BOOM)):
                assert self.rig.engine.decide(event, self.rig.now, self.rig.rand) == []

    @invariant()
    def no_child_is_restarted_more_often_than_tolerated(self) -> None:
        """A pause empties the window, so what it lets pass is left out."""
        if any(event.name == "paused" for event in self.rig.emitted):
            return
        for times in self.rig.restart_times.values():
            for time in times:
                assert sum(time - 5.0 <= other <= time for other in times) <= self.max_restarts

    @invariant()
    def a_batch_or_a_shutdown_stops_one_at_a_time(self) -> None:
        if self.strategy != "one_for_one":
            kinds = (ChildStarted, ChildIgnored, ChildStartFailed)
            starting = [event for event in self.rig.inbox if isinstance(event, kinds)]
            alive = [event for event in starting if self.rig.live.get(event.id) == event.epoch]
            busy = {event.id for event in alive} | self.rig.stopping
            assert len(busy) <= 1, busy

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        self.comes_to_rest()
        self.rig.shut_down()
        self.rig.advance(100.0)
        assert self.rig.finished is not None
        assert self.rig.armed == []
        assert Counter(self.rig.replies.keys()) == Counter(self.asked)

    def comes_to_rest(self) -> None:
        """Left alone, every child runs or is stopped, each name is open only if it runs, all calls are answered."""
        self.rig.starts.clear()
        self.rig.settle()
        self.rig.advance(100.0)
        assert self.rig.armed == []
        assert set(self.rig.replies) == set(self.asked)
        if self.rig.finished is None:
            rows = self.rig.replies[self.rig.call_only(WhichChildren())]
            self.asked.append(max(self.rig.replies))
            states = {row.id: row.state for row in rows}
            assert set(states.values()) <= {"running", "stopped"}
            assert {id for id, state in states.items() if state == "running"} == set(self.rig.live) == self.rig.open


def check_engine(
    engine: Callable[..., Engine], *, examples: int = 100, steps: int = 30, machines: Any = None, **options: Any
) -> None:
    """Drive what `engine` makes through both machines; raises what Hypothesis raises of a failing one.

    `examples` are runs, `steps` the longest of them; further `options` are settings of Hypothesis.
    """
    chosen = settings(max_examples=examples, stateful_step_count=steps, deadline=None, **options)
    for machine in machines or (EngineMachine, AnyOrderMachine):
        made = type(machine.__name__, (machine,), {"engine": staticmethod(engine)})
        run_state_machine_as_test(made, settings=chosen)
