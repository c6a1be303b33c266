"""Dynamic supervisors: children known by their refs, bounded, forgotten when they end."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from typing import Any

import pykka
import pytest
from tree_rig import WHO_IS_RESTARTED, Boom, Obedient, ObedientThread, exit_of, raising, ref_in, wait_for_timer

import supervision as sup
from supervision.engine import vocabulary as say
from supervision.testing import ManualClock


@pytest.fixture
def pool(system: sup.System) -> Any:
    system.supervise(sup.dynamic("pool"), sup.ChildSpec("elsewhere", Obedient))
    return system.whereis("pool")


def start(pool: Any, id: str = "it", actor: Any = Obedient, **options: Any) -> Any:
    """A child's ref."""
    answer = pool.start_child(sup.ChildSpec(id, actor, **options)).get(timeout=30)
    assert isinstance(answer, sup.Started), answer
    return answer.ref


def count(pool: Any) -> tuple[int, int]:
    counts = pool.count_children().get(timeout=30)
    return counts.specs, counts.active


def test_children_of_one_id_are_told_apart_by_their_refs(pool, obedient):
    refs = [start(pool, "it", obedient) for _ in range(3)]
    assert [ref.path for ref in refs] == ["root/pool/it", "root/pool/it-2", "root/pool/it-3"]
    assert [row[:2] for row in pool.which_children().get(timeout=30)] == [
        ("it-3", refs[2]),
        ("it-2", refs[1]),
        ("it", refs[0]),
    ]
    assert [ref.ask("hello", timeout=30) for ref in refs] == ["hello"] * 3


def test_a_ref_that_somebody_holds_never_comes_to_mean_another_child(pool):
    first = start(pool)
    assert pool.terminate_child(first).get(timeout=30) == sup.Ok()
    second = start(pool)
    assert second.path != first.path
    with pytest.raises(sup.ActorDeadError):
        first.ask("hello", timeout=30)


def test_an_id_that_looks_like_a_numbered_one_is_numbered_in_its_turn(pool):
    assert [start(pool, id).path for id in ("it", "it-2", "it")] == ["root/pool/it", "root/pool/it-2", "root/pool/it-3"]


def test_the_starter_hears_what_on_start_returned(pool):
    answer = pool.start_child(sup.ChildSpec("it", Obedient, kwargs={"on_start": lambda _: "info"})).get(timeout=30)
    assert answer.info == "info"


def test_a_child_that_declines_is_not_kept(pool, system):
    answer = pool.start_child(sup.ChildSpec("it", Obedient, kwargs={"on_start": lambda _: sup.IGNORE})).get(timeout=30)
    assert answer == sup.Started(None)
    assert count(pool) == (0, 0)
    assert system.whereis("pool/it") is None


def test_a_child_that_fails_to_start_is_not_kept(pool, obedient):
    spec = sup.ChildSpec("it", obedient, kwargs={"on_start": raising(Boom("no"))})
    answer = pool.start_child(spec).get(timeout=30)
    assert isinstance(answer, sup.StartError)
    assert answer.reason.type == "Boom"
    assert count(pool) == (0, 0)
    start(pool)


@pytest.mark.parametrize(("restart", "end", "follows"), WHO_IS_RESTARTED)
def test_whether_a_restart_follows_and_else_the_child_is_forgotten(pool, restart, end, follows, crash, eventually):
    ref = start(pool, restart=restart)
    if end == "stop":
        ref.stop(timeout=30)
    else:
        with pytest.raises(Boom):
            ref.ask(crash, timeout=30)
    eventually(lambda: count(pool) == ((1, 1) if follows else (0, 0)))
    if follows:
        assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2
    else:
        assert not ref.is_alive()


def test_what_waits_for_a_child_that_is_terminated_is_answered(pool, gate):
    ref = start(pool, actor=ObedientThread, shutdown="brutal_kill")
    ref.tell(lambda _: gate.wait())
    waiting = ref.ask("hello", block=False)
    pool.terminate_child(ref).get(timeout=30)
    with pytest.raises(sup.ActorDeadError):
        waiting.get(timeout=30)
    gate.set()


def test_terminate_child_knows_its_own_the_dead_and_the_others(pool, system):
    ref = start(pool)
    assert pool.terminate_child(ref).get(timeout=30) == sup.Ok()
    assert pool.terminate_child(ref).get(timeout=30) == sup.Ok()
    assert pool.terminate_child(system.whereis("elsewhere")).get(timeout=30) == sup.NotFound()
    assert pool.terminate_child(pool).get(timeout=30) == sup.NotFound()
    assert system.whereis("elsewhere").ask("unharmed", timeout=30) == "unharmed"


def test_terminate_child_of_plain_pykka_actors_and_of_other_pools(pool, system):
    system.supervise(sup.dynamic("pool"))
    other = start(system.whereis("root2/pool"))
    mine = start(pool)
    assert other.path.endswith("pool/it")
    assert pool.terminate_child(other).get(timeout=30) == sup.NotFound()
    plain = type("Plain", (pykka.ThreadingActor,), {}).start()
    assert pool.terminate_child(plain).get(timeout=30) == sup.NotFound()
    plain.stop()
    assert pool.terminate_child(plain).get(timeout=30) == sup.Ok()
    assert mine.is_alive()


def test_two_calls_to_terminate_one_child_are_both_ok(pool):
    ref = start(pool, kwargs={"on_stop": lambda _: asyncio.sleep(0.01)})
    both = [pool.terminate_child(ref) for _ in range(2)]
    assert [each.get(timeout=30) for each in both] == [sup.Ok(), sup.Ok()]


def test_terminating_a_child_calls_its_restart_off(timed: sup.System, clock: ManualClock, crash):
    timed.supervise(sup.dynamic("pool"))
    pool = timed.whereis("pool")
    ref = start(pool, backoff=sup.Backoff(min=5.0, max=5.0, jitter=0.0))
    waiting = ref.ask(crash, block=False), ref.ask("next", block=False)
    with pytest.raises(Boom):
        waiting[0].get(timeout=30)
    wait_for_timer(clock, 5.0)
    assert pool.which_children().get(timeout=30) == [("it", sup.RESTARTING, sup.Kind.WORKER)]
    assert pool.terminate_child(ref).get(timeout=30) == sup.Ok()
    with pytest.raises(sup.ActorDeadError):
        waiting[1].get(timeout=30)
    assert count(pool) == (0, 0)


@pytest.mark.parametrize("ref", ["it", None, 3])
def test_what_is_no_ref_is_refused_at_the_call(pool, ref):
    with pytest.raises(TypeError, match="takes the child's ref"):
        pool.terminate_child(ref)


def test_max_children_counts_those_that_wait_for_a_restart(timed: sup.System, clock: ManualClock, crash):
    timed.supervise(sup.dynamic("pool", max_children=2))
    pool = timed.whereis("pool")
    waits = start(pool, backoff=sup.Backoff(min=5.0, max=5.0, jitter=0.0))
    with pytest.raises(Boom):
        waits.ask(crash, block=False).get(timeout=30)
    other = start(pool)
    assert pool.start_child(sup.ChildSpec("it", Obedient)).get(timeout=30) == sup.MaxChildren()
    pool.terminate_child(other).get(timeout=30)
    start(pool)


def test_no_children_at_all_may_be_allowed(system):
    system.supervise(sup.dynamic("pool", max_children=0))
    spec = sup.ChildSpec("it", Obedient)
    assert system.whereis("pool").start_child(spec).get(timeout=30) == sup.MaxChildren()


@pytest.mark.parametrize("call", ["restart_child", "delete_child"])
def test_calls_that_need_a_kept_spec_say_that_there_is_none(pool, call):
    with pytest.raises(sup.NoSuchCall, match="keeps no spec"):
        getattr(pool, call)("it")


def test_requests_that_only_other_supervisors_understand_harm_nobody(pool):
    ref = start(pool)
    for request in (say.DeleteChild("it"), say.TerminateChild("it"), "stray"):
        with pytest.raises(TypeError, match="does not understand"):
            pool.ask(request, timeout=30)
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "one_for_all"},
        {"auto_shutdown": "any_significant"},
        {"max_children": -1},
        {"max_children": True},
        {"max_childern": 1},
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_starts(system, options):
    with pytest.raises(sup.SpecError):
        sup.dynamic("pool", **options)
    with pytest.raises(sup.SpecError):
        system.supervise(sup.ChildSpec("pool", sup.DynamicSupervisor, kwargs=options, kind="supervisor"))


def test_specs_are_no_arguments_of_a_dynamic_supervisor(system):
    spec = sup.ChildSpec("pool", sup.DynamicSupervisor, args=(sup.ChildSpec("it", Obedient),), kind="supervisor")
    with pytest.raises(sup.SpecError, match="use start_child"):
        system.supervise(spec)


def test_a_significant_child_is_refused(pool):
    spec = sup.ChildSpec("it", Obedient, restart="transient", significant=True)
    assert isinstance(pool.start_child(spec).get(timeout=30), sup.Refused)
    with pytest.raises(sup.SpecError):
        pool.start_child("no spec")


def test_fields_of_its_own_spec_may_stand_among_the_options():
    spec = sup.dynamic("pool", restart="transient", shutdown=3, max_restarts=9)
    assert (spec.restart, spec.shutdown, dict(spec.kwargs)) == ("transient", 3.0, {"max_restarts": 9})


def test_a_dropped_child_is_forgotten_and_its_siblings_live_on(system, crash):
    system.supervise(sup.dynamic("pool", max_restarts=0, on_exhausted=sup.DROP_CHILD))
    pool = system.whereis("pool")
    bad, good = start(pool), start(pool)
    with pytest.raises(Boom):
        bad.ask(crash, timeout=30)
    assert count(pool) == (1, 1)
    assert not bad.is_alive()
    assert good.ask("well", timeout=30) == "well"


def test_a_childs_own_rule_for_exhausted_restarts_goes_first(timed: sup.System, clock: ManualClock, crash):
    timed.supervise(sup.dynamic("pool", max_restarts=0))
    pool = timed.whereis("pool")
    ref = start(pool, on_exhausted=sup.pause(10.0))
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=30)
    assert pool.which_children().get(timeout=30)[0][1] is sup.RESTARTING
    answer = ref.ask("back", block=False)
    wait_for_timer(clock, clock.next_at())
    clock.advance(15.0)
    assert answer.get(timeout=30) == "back"


# -- its end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["kill", "give up", "stop"])
def test_its_own_restart_forgets_its_children_and_answers_for_them(system, end, gate, crash):
    system.supervise(sup.dynamic("pool", max_restarts=0), max_restarts=9)
    pool = system.whereis("pool")
    busy, other = start(pool, "busy", ObedientThread, shutdown="brutal_kill"), start(pool, "other")
    busy.tell(lambda _: gate.wait())
    waiting = busy.ask("hello", block=False)
    over = exit_of(pool)
    if end == "kill":
        system.kill(pool)
    elif end == "give up":
        other.tell(crash)
    else:
        pool.stop(block=False)
    over.get(timeout=30)
    with pytest.raises(sup.ActorDeadError):
        waiting.get(timeout=30)
    assert count(pool) == (0, 0)
    assert not other.is_alive()
    assert start(pool, "other").path != other.path
    gate.set()


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_nobody_waits_for_a_forgotten_child_until_its_supervisor_is_back(timed, clock, end, crash):
    timed.supervise(sup.dynamic("pool", backoff=sup.Backoff(min=60.0, max=60.0, jitter=0.0)))
    pool = timed.whereis("pool")
    ref = start(pool, backoff=sup.Backoff(min=90.0, max=90.0, jitter=0.0))
    with pytest.raises(Boom):
        ref.ask(crash, block=False).get(timeout=30)
    waiting = ref.ask("hello", block=False)
    wait_for_timer(clock, 90.0)
    timed.kill(pool) if end == "kill" else pool.stop(block=False)
    with pytest.raises(sup.ActorDeadError):
        waiting.get(timeout=30)
    assert not ref.is_alive()


def test_what_waits_below_a_supervisor_among_its_children_is_answered_too(system, gate):
    system.supervise(sup.dynamic("pool"))
    pool = system.whereis("pool")
    pool.start_child(sup.supervisor("mid", sup.ChildSpec("it", ObedientThread))).get(timeout=30)
    ref = system.whereis("pool/mid/it")
    ref.tell(lambda _: gate.wait())
    waiting = ref.ask("hello", block=False)
    system.kill(pool)
    with pytest.raises(sup.ActorDeadError):
        waiting.get(timeout=30)
    gate.set()


def test_all_children_stop_at_the_same_time(system, eventually):
    """One after the other would never end: each waits until all have begun."""
    together = threading.Barrier(3, timeout=30)
    system.supervise(sup.dynamic("pool"))
    pool = system.whereis("pool")
    refs = [start(pool, actor=ObedientThread, kwargs={"on_stop": lambda _: together.wait()}) for _ in range(3)]
    overs = [exit_of(ref) for ref in refs]
    assert system.stop(10.0)
    assert [over.get(timeout=30).reason for over in overs] == [sup.Shutdown()] * 3


def test_a_stop_arms_one_timer_for_each_distinct_timeout(timed: sup.System, clock: ManualClock, eventually):
    timed.supervise(sup.dynamic("pool"))
    pool = timed.whereis("pool")
    forever = {"on_stop": lambda _: asyncio.Event().wait()}
    overs = [exit_of(start(pool, kwargs=forever, shutdown=seconds)) for seconds in (3.0, 7.0, 3.0)]
    stopping = threading.Thread(target=timed.stop)
    stopping.start()
    eventually(lambda: clock.pending() == [3.0, 7.0])
    clock.advance(7.0)
    stopping.join(30)
    assert [over.get(timeout=30).reason for over in overs] == [sup.Killed()] * 3


def test_it_is_a_child_like_any_other_and_can_be_listed(system):
    handle = system.supervise(
        sup.ChildSpec("pool", sup.DynamicSupervisor, kwargs={"max_children": 1}, kind="supervisor")
    )
    pool = system.whereis("pool")
    assert isinstance(pool, sup.DynamicHandle)
    assert handle.which_children().get(timeout=30) == [("pool", pool, sup.Kind.SUPERVISOR)]


def test_names_of_children_that_have_gone_do_not_pile_up(system, pool):
    before = len(system.names.all())
    for _ in range(50):
        ref = start(pool)
        pool.terminate_child(ref).get(timeout=30)
    assert len(system.names.all()) == before
    assert pool.name.incarnation.actor.shell.names == {}
    assert pool.name.incarnation.actor.shell.live == {}


# -- one child delays no other ---------------------------------------------------------------------------


async def _forever(_: Any) -> None:
    await asyncio.Event().wait()


@pytest.fixture(params=["dynamic", "one_for_one"])
def parent(request, system) -> Any:
    if request.param == "one_for_one":
        return system.supervise(max_restarts=9)
    system.supervise(sup.dynamic("pool", max_restarts=9))
    return system.whereis("pool")


def test_a_start_that_never_ends_delays_no_other_child(parent, crash):
    hanging = parent.start_child(sup.ChildSpec("hangs", Obedient, kwargs={"on_start": _forever}, shutdown=0.01))
    ref = start(parent, "other")
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert count(parent) == (1, 1)
    assert not hanging.done


def test_a_restart_that_never_ends_delays_no_other_child(parent, crash):
    def hang_later(actor: Any) -> Any:
        return _forever(actor) if actor.context.epoch > 1 else None

    hanging = start(parent, "hangs", kwargs={"on_start": hang_later}, shutdown=0.01)
    with pytest.raises(Boom):
        hanging.ask(crash, timeout=30)
    ref = start(parent, "other")
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert {row[1] for row in parent.which_children().get(timeout=30)} == {ref, sup.RESTARTING}


def test_a_stop_that_never_ends_delays_no_other_child(parent, gate, crash):
    hanging = start(parent, "hangs", ObedientThread, kwargs={"on_stop": lambda _: gate.wait()}, shutdown="infinity")
    ended = parent.terminate_child(hanging if isinstance(parent, sup.DynamicHandle) else "hangs")
    ref = start(parent, "other")
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2
    assert not ended.done
    gate.set()
    assert ended.get(timeout=30) == sup.Ok()


# -- everything at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_at_the_same_time_every_call_is_answered_and_the_books_balance(system, seed, eventually):
    """Four threads start, terminate, crash and kill; now and then the supervisor itself is killed."""
    system.supervise(sup.dynamic("pool", max_restarts=10_000, max_children=20), max_restarts=10_000)
    pool = system.whereis("pool")
    answers: list[Any] = []
    known: deque[Any] = deque(maxlen=30)

    def stir(draw: random.Random) -> None:
        for _ in range(60):
            what = draw.random()
            ref = draw.choice(known) if known else None
            if what < 0.45 or ref is None:
                answer = pool.start_child(sup.ChildSpec("it", Obedient, restart=draw.choice(list(sup.Restart))))
                answer.on_done(lambda answer=answer: known.append(ref) if (ref := ref_in(answer)) else None)
                answers.append(answer)
            elif what < 0.65:
                answers.append(pool.terminate_child(ref))
            elif what < 0.8:
                answers.append(ref.ask(raising(Boom("boom")), block=False))
            elif what < 0.9:
                system.kill(ref)
            elif what < 0.98:
                answers.append(pool.which_children())
            else:
                system.kill(pool)

    threads = [threading.Thread(target=stir, args=(random.Random(seed * 10 + n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    eventually(lambda: all(answer.done for answer in answers))
    pool.start_child(sup.ChildSpec("it", Obedient)).get(timeout=30)  # so that there is at least one
    listed = eventually(lambda: settled(pool))
    assert len(listed) <= 20
    assert {ref.path for _, ref, _ in listed} == {
        name.path for name in system.names.below("root/pool") if name.incarnation is not None
    }
    assert [ref.ask("well", timeout=30) for _, ref, _ in listed] == ["well"] * len(listed)
    assert system.audit() == []


def settled(pool: Any) -> list[Any] | None:
    """The children, once none waits for its restart any more."""
    listed: list[Any] = pool.which_children().get(timeout=30)
    return listed if listed and not any(ref is sup.RESTARTING for _, ref, _ in listed) else None
