"""Supervisors at work, with real loops and threads: the engine's own tests know the rules, these the doing."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pykka
import pytest
from tree_rig import WHO_IS_RESTARTED, Boom, Obedient, ObedientThread, exit_of, raising, wait_for_timer

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
    return [system.whereis(id).ask(lambda actor: actor.context.epoch, timeout=30) for id in ids]


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
        system.whereis("b").ask(crash, timeout=30)
    eventually(lambda: epochs(system, "a", "b", "c") == expected)


@pytest.mark.parametrize(("restart", "end", "follows"), WHO_IS_RESTARTED)
def test_whether_a_restart_follows(system, obedient, restart, end, follows, crash):
    handle = system.supervise(sup.ChildSpec("it", obedient, restart=restart))
    ref = system.whereis("it")
    if end == "stop":
        ref.stop(timeout=30)
    else:
        with pytest.raises(Boom):
            ref.ask(crash, timeout=30)
    assert handle.count_children().get(timeout=30).specs == (0 if restart == "temporary" else 1)
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
            ref.ask(crash, timeout=30)
    reason = mid.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp)
    assert [link.path for link in reason.chain] == ["root/mid/it", "root/mid"]
    assert handle.count_children().get(timeout=30).specs == 0


def test_restarts_outside_the_window_do_not_add_up(timed, clock, obedient, crash):
    timed.supervise(sup.ChildSpec("it", obedient), max_restarts=1, max_seconds=5.0)
    ref = timed.whereis("it")
    for _ in range(5):
        with pytest.raises(Boom):
            ref.ask(crash, block=False).get(timeout=30)
        clock.advance(5.1)
    assert ref.ask(lambda actor: actor.context.epoch, block=False).get(timeout=30) == 6


def test_a_backoff_waits_by_the_systems_clock(timed, clock, obedient, crash):
    handle = timed.supervise(sup.ChildSpec("it", obedient, backoff=sup.Backoff(min=2.0, max=60.0, jitter=0.0)))
    ref = timed.whereis("it")
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=30)
    assert handle.which_children().get(timeout=30) == [("it", sup.RESTARTING, sup.Kind.WORKER)]
    future = ref.ask("waits", block=False)
    wait_for_timer(clock, 2.0)
    clock.advance(2.0)
    assert future.get(timeout=30) == "waits"


def test_ignore_keeps_the_spec_without_an_incarnation(system, obedient):
    handle = system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": lambda actor: sup.IGNORE}))
    assert handle.which_children().get(timeout=30) == [("it", None, sup.Kind.WORKER)]
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
    starting.join(30)
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
        ref.ask(crash, block=False).get(timeout=30)
    future = ref.ask("patient", block=False)
    eventually(lambda: lives == [1, 2])
    wait_for_timer(clock, 30.0)
    clock.advance(30.0)
    assert future.get(timeout=30) == "patient"
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
    assert terminated.get(timeout=30) == sup.Ok()
    expected = sup.Killed if obedient is Obedient else sup.Abandoned
    assert isinstance(over.get(timeout=30).reason, expected)
    assert timed.whereis("next").ask("fine", block=False).get(timeout=30) == "fine"
    gate.set()
    eventually(lambda: timed.unstopped_report() == [])


def test_brutal_kill_does_not_wait(system, obedient, hang, gate, eventually):
    handle = system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_stop": hang}, shutdown=sup.BRUTAL_KILL))
    assert handle.terminate_child("it").get(timeout=30) == sup.Ok()
    gate.set()


def test_a_stop_during_the_start_goes_first(system, hang, gate, eventually):
    parent = system.supervise()
    starting = parent.start_child(
        sup.supervisor("mid", sup.ChildSpec("slow", ObedientThread, kwargs={"on_start": hang}, shutdown=0.0))
    )
    eventually(lambda: (child := _child(system, "mid")) is not None and child.children)
    assert system.stop(60) is False  # the thread still hangs
    with pytest.raises(sup.ActorDeadError):
        starting.get(timeout=30)
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
    assert over.get(timeout=30).reason == sup.Killed()
    assert [each.done for each in overs] == [True, True]
    assert [ref.ask(lambda actor: actor.context.epoch, timeout=30) for ref in (a, b)] == [2, 2]
    assert journal.take() == ["+a", "+b"]
    assert system.audit() == []


def test_what_waits_below_a_killed_supervisor_waits_for_its_restart(system, gate):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", ObedientThread)))
    ref = system.whereis("mid/it")
    entered = threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    queued = ref.ask("queued", block=False)
    system.kill(system.whereis("mid"))
    assert queued.get(timeout=30) == "queued"
    gate.set()


def test_what_waits_below_a_supervisor_that_gave_up_waits_for_its_restart(system, obedient, crash):
    """A supervisor that gave up closed its children's names before anybody had decided about its own restart."""
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", obedient), max_restarts=0))
    ref = system.whereis("mid/it")
    first = ref.ask(crash, block=False)
    queued = ref.ask("queued", block=False)
    with pytest.raises(Boom):
        first.get(timeout=30)
    assert queued.get(timeout=30) == "queued"


def test_children_added_later_are_forgotten_by_a_restart_and_leave_no_orphan(system):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("kept", Obedient)))
    mid = system.whereis("mid")
    mid.start_child(sup.supervisor("added", sup.ChildSpec("deep", Obedient))).get(timeout=30)
    deep = system.whereis("mid/added/deep")
    over = exit_of(mid)
    system.kill(mid)
    over.get(timeout=30)
    assert system.whereis("mid/kept").ask("up", timeout=30) == "up"
    with pytest.raises(sup.ActorDeadError):
        deep.ask("gone", timeout=30)
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
    assert over.get(timeout=30).reason.type == "TypeError"
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert system.audit() == []


def test_a_stray_message_to_a_supervisor_is_refused_and_harms_nobody(system):
    handle = system.supervise(sup.ChildSpec("it", Obedient))
    handle.tell("hello?")
    with pytest.raises(TypeError, match="does not understand"):
        handle.ask("hello?", timeout=30)
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
        assert ref.ask("whole again", block=False).get(timeout=30) == "whole again"


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
    assert handle.terminate_child("stopped").get(timeout=30) == sup.Ok()
    ref = timed.whereis("running")

    def answers(call: Any, *ids: str) -> list[Any]:
        return [call(id).get(timeout=30) for id in ids]

    ids = ("running", "stopped", "restarting", "unknown")
    starts = answers(lambda id: handle.start_child(sup.ChildSpec(id, Obedient, restart="temporary")), *ids)
    assert starts[:3] == [sup.AlreadyStarted(ref), sup.AlreadyPresent(), sup.AlreadyPresent()]
    assert starts[3] == sup.Started(timed.whereis("unknown"))
    handle.terminate_child("unknown").get(timeout=30)
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
    assert [row[:2] for row in handle.which_children().get(timeout=30)] == [
        ("restarting", sup.RESTARTING),
        ("stopped", None),
        ("running", ref),
    ]
    assert handle.count_children().get(timeout=30) == sup.Counts(specs=3, active=1, supervisors=0, workers=3)
    assert handle.get_childspec("running").get(timeout=30).actor is Obedient
    assert handle.get_childspec("unknown").get(timeout=30) == sup.NotFound()
    assert isinstance(handle.restart_child("stopped").get(timeout=30), sup.Started)
    assert handle.terminate_child("restarting").get(timeout=30) == sup.Ok()
    assert handle.delete_child("restarting").get(timeout=30) == sup.Ok()
    assert handle.terminate_child("unknown").get(timeout=30) == sup.NotFound()


def test_start_child_gives_the_starter_what_on_start_returned(system, obedient):
    handle = system.supervise()
    started = handle.start_child(sup.ChildSpec("it", obedient, kwargs={"on_start": lambda actor: "info"})).get(
        timeout=30
    )
    assert started == sup.Started(system.whereis("it"), "info")


def test_a_failing_start_child_discards_the_spec(system, obedient):
    handle = system.supervise()
    answer = handle.start_child(sup.ChildSpec("it", obedient, kwargs={"on_start": raising(Boom("no"))})).get(timeout=30)
    assert isinstance(answer, sup.StartError)
    assert answer.reason.type == "Boom"
    assert handle.count_children().get(timeout=30).specs == 0
    assert system.whereis("it") is None


def test_reconfigure_keeps_what_runs_and_starts_nothing(system):
    handle = system.supervise(sup.ChildSpec("old", Obedient))
    specs = [sup.ChildSpec("new", Obedient), sup.ChildSpec("old", Obedient, restart="transient")]
    assert handle.reconfigure(sup.SupervisorOptions(max_restarts=9), specs).get(timeout=30) == sup.Ok()
    assert [row[0] for row in handle.which_children().get(timeout=30)] == ["old", "new"]
    assert epochs(system, "old") == [1]
    assert system.whereis("new") is None
    assert handle.get_childspec("old").get(timeout=30).restart == "transient"


def test_a_significant_child_is_refused_where_it_means_nothing(system):
    handle = system.supervise()
    spec = sup.ChildSpec("it", Obedient, restart="transient", significant=True)
    assert isinstance(handle.start_child(spec).get(timeout=30), sup.Refused)


def test_a_dead_supervisor_answers_at_once(system):
    handle = system.supervise()
    system.stop()
    with pytest.raises(sup.ActorDeadError):
        handle.which_children().get(timeout=30)
    assert handle.ended.get(timeout=0).reason == sup.Shutdown()


def test_auto_shutdown_ends_the_supervisor_with_its_significant_child(system, journal):
    handle = system.supervise(
        journal.child("a"),
        journal.child("b", restart="transient", significant=True),
        auto_shutdown="any_significant",
    )
    ended = handle.ended
    system.whereis("b").stop(timeout=30)
    assert ended.get(timeout=30).reason == sup.Shutdown()
    assert journal.take() == ["+a", "+b", "-b", "-a"]
    assert system.gave_up is None


# -- starts and restarts that fail further down ----------------------------------------------------------


def test_a_child_that_fails_below_a_supervisor_being_restarted_fails_that_restart_which_is_tried_again(
    system, crash, eventually
):
    """At its first start such a failure ends the supervisor for good; here it counts as one try of its parent's."""
    fails: list[int] = []

    def fail_twice(actor: Any) -> None:
        if actor.context.epoch > 1 and len(fails) < 2:
            fails.append(actor.context.epoch)
            raise Boom("not yet")

    handle = system.supervise(
        sup.supervisor(
            "mid", sup.ChildSpec("first", Obedient), sup.ChildSpec("it", Obedient, kwargs={"on_start": fail_twice})
        ),
        max_restarts=3,
    )
    system.kill(system.whereis("mid"))
    eventually(lambda: len(fails) == 2)
    assert system.whereis("mid/it").ask("up", timeout=30) == "up"
    assert system.whereis("mid").name.epoch == 4
    assert handle.name.incarnation.actor.shell.window == (3, 3)


def test_restarts_that_keep_failing_further_down_exhaust_the_parent(system):
    def fail_later(actor: Any) -> None:
        if actor.context.epoch > 1:
            raise Boom("never again")

    handle = system.supervise(
        sup.supervisor("mid", sup.ChildSpec("it", Obedient, kwargs={"on_start": fail_later})), max_restarts=2
    )
    over = handle.ended
    system.kill(system.whereis("mid"))
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp)
    failed = reason.chain[0].reason
    assert reason.chain[0].path == "root/mid"
    assert (failed.info.id, failed.info.reason.type) == ("it", "Boom")


def test_a_nested_first_start_that_fails_names_every_level(system, journal):
    with pytest.raises(sup.StartFailedError, match=r"root/mid could not be started: .*'it' failed to start: .*Boom"):
        system.supervise(
            journal.child("a"),
            sup.supervisor(
                "mid", journal.child("b"), sup.ChildSpec("it", Obedient, kwargs={"on_start": raising(Boom())})
            ),
        )
    assert journal.take() == ["+a", "+b", "-b", "-a"]


def test_a_group_restart_that_fails_midway_leaves_the_first_up_and_goes_on_from_the_failed(system, crash, eventually):
    fails: list[int] = []

    def fail_once(actor: Any) -> None:
        if actor.context.epoch == 2 and not fails:
            fails.append(1)
            raise Boom("not yet")

    system.supervise(
        sup.ChildSpec("a", Obedient),
        sup.ChildSpec("b", Obedient, kwargs={"on_start": fail_once}),
        sup.ChildSpec("c", Obedient),
        strategy="rest_for_one",
    )
    with pytest.raises(Boom):
        system.whereis("a").ask(crash, timeout=30)
    eventually(lambda: epochs(system, "a", "b", "c") == [2, 3, 2])


def test_temporary_bystanders_of_a_group_restart_are_gone(system, crash, eventually):
    handle = system.supervise(
        sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient, restart="temporary"), strategy="one_for_all"
    )
    bystander = system.whereis("b")
    with pytest.raises(Boom):
        system.whereis("a").ask(crash, timeout=30)
    eventually(lambda: epochs(system, "a") == [2])
    assert [row[0] for row in handle.which_children().get(timeout=30)] == ["a"]
    with pytest.raises(sup.ActorDeadError):
        bystander.ask("gone", timeout=30)


def test_a_transient_supervisor_that_gave_up_is_restarted_one_that_stopped_is_not(system, crash, eventually):
    system.supervise(
        sup.supervisor("mid", sup.ChildSpec("it", Obedient), max_restarts=0, restart="transient"), max_restarts=9
    )
    mid = system.whereis("mid")
    with pytest.raises(Boom):
        system.whereis("mid/it").ask(crash, timeout=30)
    eventually(lambda: mid.name.epoch == 2)
    assert system.whereis("mid/it").ask("up", timeout=30) == "up"
    mid.stop(timeout=30)
    eventually(lambda: system.whereis("mid") is None)
    assert mid.name.epoch == 2


@pytest.mark.parametrize("significant", [True, False])
def test_auto_shutdown_rises_only_through_significant_supervisors(system, significant, eventually):
    handle = system.supervise(
        sup.supervisor(
            "mid",
            sup.ChildSpec("it", Obedient, restart="transient", significant=True),
            auto_shutdown="any_significant",
            restart="transient",
            significant=significant,
        ),
        sup.ChildSpec("other", Obedient),
        auto_shutdown="any_significant",
    )
    ended, over = handle.ended, exit_of(system.whereis("mid"))
    system.whereis("mid/it").stop(timeout=30)
    assert over.get(timeout=30).reason == sup.Shutdown()
    if significant:
        assert ended.get(timeout=30).reason == sup.Shutdown()
        assert system.gave_up is None
    else:
        assert system.whereis("other").ask("up", timeout=30) == "up"
        assert handle.which_children().get(timeout=30)[-1] == ("mid", None, sup.Kind.SUPERVISOR)


def test_a_killed_supervisors_retry_starts_nobody_later(timed, clock, crash, eventually):
    """A retry that was due after its supervisor had been killed would have started a second life beside the new one."""
    backoff = sup.Backoff(min=5.0, max=5.0, jitter=0.0)
    timed.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient, backoff=backoff)))
    ref = timed.whereis("mid/it")
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=30)
    wait_for_timer(clock, 5.0)
    timed.kill(timed.whereis("mid"))
    assert ref.ask(lambda actor: actor.context.epoch, block=False).get(timeout=30) == 2
    clock.advance(10.0)
    assert ref.ask(lambda actor: actor.context.epoch, block=False).get(timeout=30) == 2
    assert timed.audit() == []


def test_a_pause_and_a_drop_may_be_one_childs_own(timed, clock, crash, eventually):
    handle = timed.supervise(
        sup.ChildSpec("pauses", Obedient, on_exhausted=sup.pause(10.0)),
        sup.ChildSpec("dropped", Obedient, on_exhausted=sup.DROP_CHILD),
        max_restarts=0,
    )
    pauses, dropped = timed.whereis("pauses"), timed.whereis("dropped")
    for ref in (pauses, dropped):
        with pytest.raises(Boom):
            ref.ask(crash, block=False).get(timeout=30)
    assert handle.which_children().get(timeout=30) == [
        ("dropped", None, sup.Kind.WORKER),
        ("pauses", sup.RESTARTING, sup.Kind.WORKER),
    ]
    assert not dropped.is_alive()
    answer = pauses.ask("back", block=False)
    clock.advance(15.0)
    assert answer.get(timeout=30) == "back"
    assert isinstance(handle.restart_child("dropped").get(timeout=30), sup.Started)


# -- calls, once more ------------------------------------------------------------------------------------


def test_calls_while_a_group_restart_runs_hear_restarting_or_wait(system, gate, crash, eventually):
    """`b` is being stopped for a restart of all, and takes its time."""
    handle = system.supervise(
        sup.ChildSpec("a", Obedient),
        sup.ChildSpec("b", ObedientThread, kwargs={"on_stop": lambda _: gate.wait()}, shutdown="infinity"),
        strategy="one_for_all",
    )
    b = system.whereis("b")
    system.whereis("a").tell(crash)
    eventually(lambda: b.name.incarnation.state == "stopping")
    assert [row[1] for row in handle.which_children().get(timeout=30)] == [sup.RESTARTING, sup.RESTARTING]
    assert handle.count_children().get(timeout=30) == sup.Counts(2, 0, 0, 2)
    assert handle.get_childspec("b").get(timeout=30).id == "b"
    waiting = [
        handle.terminate_child("b"),
        handle.restart_child("b"),
        handle.start_child(sup.ChildSpec("c", Obedient)),
        handle.delete_child("a"),
    ]
    assert not any(each.done for each in waiting)
    gate.set()
    answers = [each.get(timeout=30) for each in waiting]
    assert answers[0] == sup.Ok()
    assert [type(each) for each in answers[1:]] == [sup.Started, sup.Started, sup.Running]
    assert epochs(system, "a", "b", "c") == [2, 3, 1]


def test_get_childspec_gives_all_fields_as_they_were_given(system):
    class Remembers(Obedient):
        def snapshot(self) -> None: ...

    given = sup.ChildSpec(
        "it",
        Remembers,
        kwargs={"on_stop": None},
        restart="transient",
        shutdown=1.5,
        significant=True,
        start_timeout=9.0,
        backoff=sup.Backoff(min=1, max=2),
        on_exhausted=sup.pause(3),
        expected_errors=(Boom,),
        mailbox=sup.Mailbox(capacity=7),
        max_handle_time=4.0,
        state=sup.snapshot(every_messages=5),
    )
    handle = system.supervise(auto_shutdown="all_significant")
    options = sup.SupervisorOptions(auto_shutdown="all_significant")
    assert handle.reconfigure(options, [given]).get(timeout=30) == sup.Ok()
    assert handle.get_childspec("it").get(timeout=30) == given
    assert handle.get_childspec("nobody").get(timeout=30) == sup.NotFound()


def test_the_arguments_of_a_temporary_child_do_not_live_on(system, eventually):
    class Argument:
        pass

    class Forgets(sup.Actor):
        def __init__(self, argument: Any) -> None:
            super().__init__()

    argument = Argument()
    alive = weakref.ref(argument)
    handle = system.supervise()
    handle.start_child(sup.ChildSpec("it", Forgets, args=(argument,), restart="temporary")).get(timeout=30)
    handle.count_children().get(timeout=30)
    del argument
    assert handle.get_childspec("it").get(timeout=30).args == ()
    eventually(lambda: gc.collect() is not None and alive() is None)


def test_reconfigure_that_is_refused_changes_nothing(system):
    """A kept child that would not fit the new options is a reason, as are the new specs."""
    handle = system.supervise(
        sup.ChildSpec("it", Obedient, restart="transient", significant=True), auto_shutdown="any_significant"
    )
    before = handle.get_childspec("it").get(timeout=30)
    answer = handle.reconfigure(sup.SupervisorOptions(max_restarts=9), [sup.ChildSpec("new", Obedient)]).get(timeout=30)
    assert isinstance(answer, sup.Refused)
    with pytest.raises(sup.SpecError):
        handle.reconfigure(sup.SupervisorOptions(), [sup.ChildSpec("new", Obedient), sup.ChildSpec("new", Obedient)])
    assert [row[0] for row in handle.which_children().get(timeout=30)] == ["it"]
    assert handle.get_childspec("it").get(timeout=30) == before
    assert handle.name.incarnation.actor.shell.window == (0, 3)


def test_reconfigure_orders_the_new_list_before_what_is_kept_and_stops_in_reverse(system, journal):
    handle = system.supervise(*(journal.child(id) for id in "abc"))
    handle.reconfigure(sup.SupervisorOptions(), [journal.child("n"), journal.child("c")]).get(timeout=30)
    assert [row[0] for row in reversed(handle.which_children().get(timeout=30))] == ["n", "c", "a", "b"]
    assert isinstance(handle.restart_child("n").get(timeout=30), sup.Started)
    journal.take()
    system.stop()
    assert journal.take() == ["-b", "-a", "-c", "-n"]


def test_a_supervisor_is_not_started_outside_a_tree_nor_made_of_a_ref(system):
    with pytest.raises(sup.SpecError):
        sup.Supervisor.start()
    handle = system.supervise(sup.ChildSpec("it", Obedient))
    for no_class in (system.whereis("it"), handle):
        with pytest.raises(sup.SpecError, match="it"):
            sup.ChildSpec("it", no_class)


def test_a_supervisor_that_contains_itself_is_refused_and_leaves_nothing(system):
    """It was started deeper and deeper, faster than an order to stop could follow."""

    class Endless(sup.Supervisor):
        def __init__(self) -> None:
            super().__init__(sup.ChildSpec("again", Endless, kind="supervisor"))

    handle = system.supervise(sup.ChildSpec("it", Obedient))
    answer = handle.start_child(sup.ChildSpec("again", Endless, kind="supervisor")).get(timeout=30)
    assert isinstance(answer, sup.StartError)
    assert "does one contain itself?" in str(answer.reason)
    assert epochs(system, "it") == [1]
    assert system.names.below("root/again") == []


def test_one_spec_may_serve_several_supervisors(system):
    spec = sup.ChildSpec("it", Obedient)
    system.supervise(sup.supervisor("one", spec), sup.supervisor("two", spec))
    assert system.whereis("one/it") is not system.whereis("two/it")
    assert [system.whereis(path).ask("up", timeout=30) for path in ("one/it", "two/it")] == ["up", "up"]


def test_who_asked_a_crashed_actor_waits_no_longer_for_a_decision_that_is_held_up(system, crash, gate):
    """Whatever blocked the supervisors, such as a log handler, also kept the crash from those who had asked."""
    system.supervise(sup.ChildSpec("it", Obedient))
    ref = system.whereis("it")
    system.supervisors.post(gate.wait)
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert not gate.is_set()
    gate.set()
    assert ref.ask("again", timeout=30) == "again"


@pytest.mark.parametrize("step", ["child_exited", "emit"])
def test_a_supervisor_that_cannot_note_an_end_ends_itself_and_is_begun_anew(
    system, crash, step, monkeypatch, eventually
):
    """An error in the bookkeeping left a dead child in the supervisor's books for ever, and its asker waiting."""
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)))
    ref, mid = system.whereis("mid/it"), system.whereis("mid")

    def fails_once(*arguments, **options):
        monkeypatch.undo()
        raise MemoryError("no room for the books")

    monkeypatch.setattr(system, step, fails_once)
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    eventually(lambda: mid.name.epoch == 2 and ref.is_alive())
    assert ref.ask("again", timeout=30) == "again"
