"""Supervisors at work, with real loops and threads: the engine's own tests know the rules, these the doing."""

from __future__ import annotations

import threading
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising, wait_for_timer

import supervision as sup


class Journal:
    """What happens to children, in order, as they tell it themselves."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def child(self, id: str, actor: Any = Obedient, **options: Any) -> sup.ChildSpec:
        hooks = {
            "on_start": lambda _: self.entries.append(f"+{id}"),
            "on_stop": lambda _: self.entries.append(f"-{id}"),
        }
        return sup.ChildSpec(id, actor, kwargs=hooks, **options)

    def take(self) -> list[str]:
        taken, self.entries = self.entries, []
        return taken


@pytest.fixture
def journal() -> Journal:
    return Journal()


def epochs(system: sup.System, *ids: str) -> list[int]:
    return [system.whereis(id).ask(lambda actor: actor.context.epoch, timeout=5) for id in ids]


def test_children_start_in_order_and_stop_in_reverse(system, journal, obedient):
    system.supervise(*(journal.child(id, obedient) for id in "abc"))
    assert journal.take() == ["+a", "+b", "+c"]
    assert system.stop()
    assert journal.take() == ["-c", "-b", "-a"]


def test_a_nested_tree_starts_depth_first_and_stops_in_reverse(system, journal):
    system.supervise(
        journal.child("a"), sup.supervisor("mid", journal.child("b"), journal.child("c")), journal.child("d")
    )
    assert journal.take() == ["+a", "+b", "+c", "+d"]
    system.stop()
    assert journal.take() == ["-d", "-c", "-b", "-a"]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("one_for_one", [1, 2, 1]), ("rest_for_one", [1, 2, 2]), ("one_for_all", [2, 2, 2])],
)
def test_who_is_restarted_with_a_crashed_child_is_the_strategy(
    system, journal, obedient, strategy, expected, crash, eventually
):
    system.supervise(*(journal.child(id, obedient) for id in "abc"), strategy=strategy)
    with pytest.raises(Boom):
        system.whereis("b").ask(crash, timeout=5)
    eventually(lambda: epochs(system, "a", "b", "c") == expected)


@pytest.mark.parametrize(
    ("restart", "end", "follows"),
    [
        ("permanent", "stop", True),
        ("permanent", "crash", True),
        ("transient", "stop", False),
        ("transient", "crash", True),
        ("temporary", "stop", False),
        ("temporary", "crash", False),
    ],
)
def test_whether_a_restart_follows(system, obedient, restart, end, follows, crash):
    handle = system.supervise(sup.ChildSpec("it", obedient, restart=restart))
    ref = system.whereis("it")
    if end == "stop":
        ref.stop(timeout=5)
    else:
        with pytest.raises(Boom):
            ref.ask(crash, timeout=5)
    assert handle.count_children().get(timeout=5).specs == (0 if restart == "temporary" else 1)
    if follows:
        assert epochs(system, "it") == [2]
    else:
        assert system.whereis("it") is None


def test_the_restart_after_the_last_tolerated_one_gives_up_with_the_whole_chain(system, obedient, crash):
    handle = system.supervise(
        sup.supervisor("mid", sup.ChildSpec("it", obedient), max_restarts=2, restart="temporary"), max_restarts=0
    )
    ref = system.whereis("mid/it")
    mid = exit_of(system.whereis("mid"))
    for _ in range(3):
        with pytest.raises(Boom):
            ref.ask(crash, timeout=5)
    reason = mid.get(timeout=5).reason
    assert isinstance(reason, sup.GaveUp)
    assert [link.path for link in reason.chain] == ["root/mid/it", "root/mid"]
    assert handle.count_children().get(timeout=5).specs == 0


def test_restarts_outside_the_window_do_not_add_up(timed, clock, obedient, crash):
    timed.supervise(sup.ChildSpec("it", obedient), max_restarts=1, max_seconds=5.0)
    ref = timed.whereis("it")
    for _ in range(5):
        with pytest.raises(Boom):
            ref.ask(crash, block=False).get(timeout=5)
        clock.advance(5.1)
    assert ref.ask(lambda actor: actor.context.epoch, block=False).get(timeout=5) == 6


def test_a_backoff_waits_by_the_systems_clock(timed, clock, obedient, crash):
    handle = timed.supervise(sup.ChildSpec("it", obedient, backoff=sup.Backoff(min=2.0, max=60.0, jitter=0.0)))
    ref = timed.whereis("it")
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=5)
    assert handle.which_children().get(timeout=5) == [("it", sup.RESTARTING, sup.Kind.WORKER)]
    future = ref.ask("waits", block=False)
    wait_for_timer(clock, 2.0)
    clock.advance(2.0)
    assert future.get(timeout=5) == "waits"


def test_ignore_keeps_the_spec_without_an_incarnation(system, obedient):
    handle = system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": lambda actor: sup.IGNORE}))
    assert handle.which_children().get(timeout=5) == [("it", None, sup.Kind.WORKER)]
    assert system.whereis("it") is None


def test_a_failed_first_start_stops_the_started_and_names_the_child(system, journal):
    with pytest.raises(sup.StartFailedError, match="root/b could not be started"):
        system.supervise(
            journal.child("a"),
            sup.ChildSpec("b", Obedient, kwargs={"on_start": raising(Boom("no"))}),
            journal.child("c"),
        )
    assert journal.take() == ["+a", "-a"]
    assert system.tree().children == ()


def test_nothing_starts_if_any_spec_down_to_the_deepest_is_wrong(system, journal):
    with pytest.raises(sup.SpecError, match="already"):
        system.supervise(journal.child("a"), journal.child("a"))
    with pytest.raises(sup.SpecError):
        sup.supervisor("mid", sup.ChildSpec("it", dict))
    assert journal.take() == []


# -- children that hang --------------------------------------------------------------------------------


@pytest.fixture
def hang(gate) -> Any:
    """A hook or message that does not come back before the gate opens, on either host."""

    def hang(actor: Any) -> Any:
        return gate.wait() if isinstance(actor, pykka.ThreadingActor) else _forever()

    async def _forever() -> None:
        import asyncio

        await asyncio.Event().wait()

    return hang


def test_a_start_that_takes_too_long_fails(timed, clock, obedient, hang, gate, eventually):
    outcome: list[Any] = []

    def supervise() -> None:
        try:
            timed.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": hang}, start_timeout=30.0))
        except sup.StartFailedError as error:
            outcome.append(error)

    starting = threading.Thread(target=supervise)
    starting.start()
    wait_for_timer(clock, 30.0)
    clock.advance(30.0)
    starting.join(5)
    assert outcome[0].reason == sup.StartTimeout(30.0)
    assert pykka.ActorRegistry.get_all() == []
    gate.set()
    eventually(lambda: timed.unstopped_report() == [])
    assert pykka.ActorRegistry.get_all() == []


def test_a_restart_that_takes_too_long_is_tried_again(timed, clock, obedient, hang, gate, crash, eventually):
    lives: list[int] = []

    def hang_in_the_second_life(actor: Any) -> Any:
        lives.append(actor.context.epoch)
        return hang(actor) if actor.context.epoch == 2 else None

    timed.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": hang_in_the_second_life}, start_timeout=30.0))
    ref = timed.whereis("it")
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=5)
    future = ref.ask("patient", block=False)
    eventually(lambda: lives == [1, 2])
    wait_for_timer(clock, 30.0)
    clock.advance(30.0)
    assert future.get(timeout=5) == "patient"
    assert lives == [1, 2, 3]
    gate.set()


@pytest.mark.parametrize("where", ["handler", "on_stop"])
def test_a_child_that_will_not_stop_is_killed_or_left_behind_after_its_time(
    timed, clock, obedient, hang, gate, where, eventually
):
    hooks = {"on_stop": hang} if where == "on_stop" else {}
    handle = timed.supervise(sup.ChildSpec("it", obedient, kwargs=hooks, shutdown=7.0), sup.ChildSpec("next", Obedient))
    ref = timed.whereis("it")
    if where == "handler":
        ref.tell(lambda actor: hang(actor))
        eventually(lambda: ref.name.incarnation.current is not None)
    over = exit_of(ref)
    terminated = handle.terminate_child("it")
    wait_for_timer(clock, 7.0)
    clock.advance(7.0)
    assert terminated.get(timeout=5) == sup.Ok()
    expected = sup.Killed if obedient is Obedient else sup.Abandoned
    assert isinstance(over.get(timeout=5).reason, expected)
    assert timed.whereis("next").ask("fine", block=False).get(timeout=5) == "fine"
    gate.set()
    eventually(lambda: timed.unstopped_report() == [])


def test_brutal_kill_does_not_wait(system, obedient, hang, gate, eventually):
    handle = system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_stop": hang}, shutdown=sup.BRUTAL_KILL))
    assert handle.terminate_child("it").get(timeout=5) == sup.Ok()
    gate.set()


def test_a_stop_during_the_start_goes_first(system, hang, gate, eventually):
    parent = system.supervise()
    starting = parent.start_child(
        sup.supervisor("mid", sup.ChildSpec("slow", ObedientThread, kwargs={"on_start": hang}, shutdown=0.0))
    )
    eventually(lambda: (child := _child(system, "mid")) is not None and child.children)
    assert system.stop(5.0) is False  # the thread still hangs
    with pytest.raises(sup.ActorDeadError):
        starting.get(timeout=5)
    assert [left.path for left in system.unstopped_report()] == ["root/mid/slow"]
    gate.set()
    eventually(lambda: system.unstopped_report() == [])


def _child(system: sup.System, id: str) -> Any:
    (root,) = system.tree().children
    return next((node for node in root.children if node.path.endswith(id)), None)


# -- supervisors that die -------------------------------------------------------------------------------


def test_a_killed_supervisor_takes_its_subtree_along_before_it_is_restarted(system, journal):
    system.supervise(sup.supervisor("mid", journal.child("a"), sup.supervisor("low", journal.child("b"))))
    a, b = system.whereis("mid/a"), system.whereis("mid/low/b")
    overs = [exit_of(ref) for ref in (a, b)]
    over = exit_of(system.whereis("mid"))
    journal.take()
    system.kill(system.whereis("mid"))
    assert over.get(timeout=5).reason == sup.Killed()
    assert [each.done for each in overs] == [True, True]
    assert [ref.ask(lambda actor: actor.context.epoch, timeout=5) for ref in (a, b)] == [2, 2]
    assert journal.take() == ["+a", "+b"]
    assert system.audit() == []


def test_what_waits_below_a_killed_supervisor_waits_for_its_restart(system, gate):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", ObedientThread)))
    ref = system.whereis("mid/it")
    entered = threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(5)
    queued = ref.ask("queued", block=False)
    system.kill(system.whereis("mid"))
    assert queued.get(timeout=5) == "queued"
    gate.set()


def test_what_waits_below_a_supervisor_that_gave_up_waits_for_its_restart(system, obedient, crash):
    """A supervisor that gave up closed its children's names before anybody had decided about its own restart."""
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", obedient), max_restarts=0))
    ref = system.whereis("mid/it")
    first = ref.ask(crash, block=False)
    queued = ref.ask("queued", block=False)
    with pytest.raises(Boom):
        first.get(timeout=5)
    assert queued.get(timeout=5) == "queued"


def test_children_added_later_are_forgotten_by_a_restart_and_leave_no_orphan(system):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("kept", Obedient)))
    mid = system.whereis("mid")
    mid.start_child(sup.supervisor("added", sup.ChildSpec("deep", Obedient))).get(timeout=5)
    deep = system.whereis("mid/added/deep")
    over = exit_of(mid)
    system.kill(mid)
    over.get(timeout=5)
    assert system.whereis("mid/kept").ask("up", timeout=5) == "up"
    with pytest.raises(sup.ActorDeadError):
        deep.ask("gone", timeout=5)
    assert system.whereis("mid/added") is None
    assert system.audit() == []


def test_a_mistake_of_the_shell_restarts_the_supervisor_clean(system):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)))
    mid = system.whereis("mid")
    ref = system.whereis("mid/it")
    former = mid.name.incarnation
    former.actor.shell.engine.decide = raising(Boom("a mistake"))  # takes the place of its decisions
    over = exit_of(mid)
    mid.count_children()
    assert over.get(timeout=5).reason.type == "TypeError"
    assert ref.ask(lambda actor: actor.context.epoch, timeout=5) == 2
    assert system.audit() == []


def test_a_stray_message_to_a_supervisor_is_refused_and_harms_nobody(system):
    handle = system.supervise(sup.ChildSpec("it", Obedient))
    handle.tell("hello?")
    with pytest.raises(TypeError, match="does not understand"):
        handle.ask("hello?", timeout=5)
    assert epochs(system, "it") == [1]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_kill_before_the_first_step_ends_a_life_too(system, steps, eventually):
    """A task cancelled before its first step never ran, and so never reported its end: its parent waited for ever."""
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)), max_restarts=10)
    ref = system.whereis("mid/it")

    def kill_twice(victim: sup.ActorRef) -> None:
        """On the loop where the next life begins, `steps` rounds after its beginning has been arranged."""
        former = victim.name.incarnation

        def kill_next(left: int) -> None:
            if victim.name.incarnation in (None, former):
                system.supervisors.post(kill_next, left)
            elif left:
                system.supervisors.post(kill_next, left - 1)
            else:
                system.kill(victim)

        system.kill(victim)
        system.supervisors.post(kill_next, steps)

    for victim in (system.whereis("mid"), ref):
        kill_twice(victim)
        eventually(lambda victim=victim: victim.name.epoch >= 3)
        assert ref.ask("whole again", block=False).get(timeout=5) == "whole again"


# -- calls -----------------------------------------------------------------------------------------------


def test_what_each_call_says_of_a_child_in_each_state(timed, clock, crash):
    backoff = sup.Backoff(min=5.0, max=5.0, jitter=0.0)
    handle = timed.supervise(
        sup.ChildSpec("running", Obedient),
        sup.ChildSpec("stopped", Obedient),
        sup.ChildSpec("restarting", Obedient, backoff=backoff),
    )
    timed.whereis("restarting").tell(crash)
    wait_for_timer(clock, 5.0)
    assert handle.terminate_child("stopped").get(timeout=5) == sup.Ok()
    ref = timed.whereis("running")

    def answers(call: Any, *ids: str) -> list[Any]:
        return [call(id).get(timeout=5) for id in ids]

    ids = ("running", "stopped", "restarting", "unknown")
    starts = answers(lambda id: handle.start_child(sup.ChildSpec(id, Obedient, restart="temporary")), *ids)
    assert starts[:3] == [sup.AlreadyStarted(ref), sup.AlreadyPresent(), sup.AlreadyPresent()]
    assert starts[3] == sup.Started(timed.whereis("unknown"))
    handle.terminate_child("unknown").get(timeout=5)
    assert answers(handle.delete_child, "running", "restarting", "unknown") == [
        sup.Running(),
        sup.Restarting(),
        sup.NotFound(),
    ]
    assert answers(handle.restart_child, "running", "restarting", "unknown") == [
        sup.Running(),
        sup.Restarting(),
        sup.NotFound(),
    ]
    assert [row[:2] for row in handle.which_children().get(timeout=5)] == [
        ("restarting", sup.RESTARTING),
        ("stopped", None),
        ("running", ref),
    ]
    assert handle.count_children().get(timeout=5) == sup.Counts(specs=3, active=1, supervisors=0, workers=3)
    assert handle.get_childspec("running").get(timeout=5).actor is Obedient
    assert handle.get_childspec("unknown").get(timeout=5) == sup.NotFound()
    assert isinstance(handle.restart_child("stopped").get(timeout=5), sup.Started)
    assert handle.terminate_child("restarting").get(timeout=5) == sup.Ok()
    assert handle.delete_child("restarting").get(timeout=5) == sup.Ok()
    assert handle.terminate_child("unknown").get(timeout=5) == sup.NotFound()


def test_start_child_gives_the_starter_what_on_start_returned(system, obedient):
    handle = system.supervise()
    started = handle.start_child(sup.ChildSpec("it", obedient, kwargs={"on_start": lambda actor: "info"})).get(
        timeout=5
    )
    assert started == sup.Started(system.whereis("it"), "info")


def test_a_failing_start_child_discards_the_spec(system, obedient):
    handle = system.supervise()
    answer = handle.start_child(sup.ChildSpec("it", obedient, kwargs={"on_start": raising(Boom("no"))})).get(timeout=5)
    assert isinstance(answer, sup.StartError)
    assert answer.reason.type == "Boom"
    assert handle.count_children().get(timeout=5).specs == 0
    assert system.whereis("it") is None


def test_reconfigure_keeps_what_runs_and_starts_nothing(system):
    handle = system.supervise(sup.ChildSpec("old", Obedient))
    specs = [sup.ChildSpec("new", Obedient), sup.ChildSpec("old", Obedient, restart="transient")]
    assert handle.reconfigure(sup.SupervisorOptions(max_restarts=9), specs).get(timeout=5) == sup.Ok()
    assert [row[0] for row in handle.which_children().get(timeout=5)] == ["old", "new"]
    assert epochs(system, "old") == [1]
    assert system.whereis("new") is None
    assert handle.get_childspec("old").get(timeout=5).restart == "transient"


def test_a_significant_child_is_refused_where_it_means_nothing(system):
    handle = system.supervise()
    spec = sup.ChildSpec("it", Obedient, restart="transient", significant=True)
    assert isinstance(handle.start_child(spec).get(timeout=5), sup.Refused)


def test_a_dead_supervisor_answers_at_once(system):
    handle = system.supervise()
    system.stop()
    with pytest.raises(sup.ActorDeadError):
        handle.which_children().get(timeout=5)
    assert handle.ended.get(timeout=0).reason == sup.Shutdown()


def test_auto_shutdown_ends_the_supervisor_with_its_significant_child(system, journal):
    handle = system.supervise(
        journal.child("a"),
        journal.child("b", restart="transient", significant=True),
        auto_shutdown="any_significant",
    )
    ended = handle.ended
    system.whereis("b").stop(timeout=5)
    assert ended.get(timeout=5).reason == sup.Shutdown()
    assert journal.take() == ["+a", "+b", "-b", "-a"]
    assert system.gave_up is None
