"""Actors on a loop and in threads: messages, replies owed for later, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising, started

import supervision as sup
from supervision.testing import fault


def test_an_actor_answers_on_either_host(system, obedient):
    ref = started(system, obedient)
    assert ref.ask("hello", timeout=30) == "hello"


def test_an_async_handler_is_awaited_before_the_next_message_is_taken(system):
    ref = started(system, Obedient)
    order = []

    async def slow(actor):
        order.append("in")
        await asyncio.sleep(0)
        order.append("out")

    futures = [ref.ask(slow, block=False) for _ in range(2)]
    for future in futures:
        future.get(timeout=30)
    assert order == ["in", "out", "in", "out"]


def test_an_actor_outside_any_tree_works_as_with_pykka():
    ref = Obedient.start()
    assert ref.ask("hello") == "hello"
    assert ref.stop() is True
    assert ref.stop() is False
    assert not ref.is_alive()


def test_an_actor_may_start_another_while_it_is_being_built(system):
    class Builder(sup.Actor):
        def __init__(self) -> None:
            self.helper = Obedient.start()
            super().__init__()

        def on_receive(self, message: Any) -> Any:
            return self.helper

    ref = started(system, Builder)
    helper = ref.ask("helper")
    assert helper.ask(1) == 1
    assert ref.actor_class is Builder
    helper.stop()


# -- owed replies --------------------------------------------------------------------------------------


def test_a_reply_may_be_owed_and_given_later_by_any_thread(system, obedient):
    ref = started(system, obedient)
    taken: queue.Queue[sup.Reply] = queue.Queue()
    future = ref.ask(lambda actor: taken.put(actor.owe()), block=False)
    reply = taken.get(timeout=30)
    assert ref.ask("another", timeout=30) == "another"
    reply.set(42)
    assert future.get(timeout=30) == 42
    with pytest.raises(queue.Full):
        reply.set(43)


def test_what_an_actor_owes_at_its_end_is_answered_with_the_reason(system, obedient, crash):
    ref = started(system, obedient)
    future = ref.ask(lambda actor: actor.owe() and None, block=False)
    ref.tell(crash)
    with pytest.raises(sup.ActorDeadError) as caught:
        future.get(timeout=30)
    assert isinstance(caught.value.reason, sup.Crash)


def test_a_debt_that_was_passed_on_outlives_its_first_debtor(system, crash):
    handle = system.supervise(
        sup.ChildSpec("front", Obedient, restart="temporary"), sup.ChildSpec("back", Obedient, restart="temporary")
    )
    front, back = system.whereis("front"), system.whereis("back")
    taken: queue.Queue[sup.Reply] = queue.Queue()
    future = front.ask(lambda actor: actor.owe().forward(back, lambda other: taken.put(other.owe())), block=False)
    reply = taken.get(timeout=30)
    over = exit_of(front)
    front.tell(crash)
    over.get(timeout=30)
    reply.set("from the back")
    assert future.get(timeout=30) == "from the back"
    assert handle.count_children().get().specs == 1


def test_a_debt_that_nobody_wants_any_more_takes_no_room(system):
    """An actor that dropped the replies of those who had gone kept each for the rest of its life."""
    ref = started(system, Obedient)
    wanted = [ref.ask(lambda actor: actor.owe() and None, block=False) for _ in range(5)]
    for _ in range(1000):
        future = ref.ask(lambda actor: actor.owe() and None, block=False)
        ref.ask("in order", timeout=30)
        future.abandon()
    owed = ref.name.incarnation.work.owed
    assert 5 <= len(owed) < 100
    ref.stop()
    for future in wanted:
        with pytest.raises(sup.ActorDeadError):
            future.get(timeout=30)


def test_passing_a_debt_to_a_dead_actor_answers_the_asker(system, crash):
    system.supervise(sup.ChildSpec("front", Obedient), sup.ChildSpec("back", Obedient, restart="temporary"))
    front, back = system.whereis("front"), system.whereis("back")
    back.stop()
    with pytest.raises(sup.ActorDeadError):
        front.ask(lambda actor: actor.owe().forward(back, "anybody?"), timeout=30)


def test_a_message_has_one_reply_to_owe(system):
    ref = started(system, Obedient)
    with pytest.raises(RuntimeError, match="owed already"):
        ref.ask(lambda actor: (actor.owe(), actor.owe()), timeout=30)


def test_work_left_running_cannot_take_the_reply_of_a_later_message(system, gate):
    ref = started(system, Obedient)
    outcome: queue.Queue[Any] = queue.Queue()
    go = asyncio.Event()

    async def late(actor):
        await go.wait()
        try:
            outcome.put(actor.owe())
        except RuntimeError as error:
            outcome.put(error)

    async def leave_something_running(actor):
        actor.task = asyncio.create_task(late(actor))

    async def let_it_run(actor):
        go.set()
        await actor.task
        return "mine"

    ref.ask(leave_something_running, timeout=30)
    assert ref.ask(let_it_run, timeout=30) == "mine"
    assert isinstance(outcome.get(timeout=30), RuntimeError)


def test_who_works_on_an_answer_hears_when_nobody_wants_it_any_more(system, on_a_loop):
    ref = started(system, Obedient)
    unwanted: queue.Queue[str] = queue.Queue()
    taken: queue.Queue[sup.Reply] = queue.Queue()

    def owe(actor):
        reply = actor.owe()
        reply.on_unwanted(lambda: unwanted.put("unwanted"))
        taken.put(reply)

    async def ask_and_leave():
        asking = asyncio.ensure_future(_awaited(ref.ask(owe, block=False)))
        await asyncio.sleep(0)
        while taken.empty():
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])

    on_a_loop(ask_and_leave())
    assert unwanted.get(timeout=30) == "unwanted"
    assert not taken.get(timeout=30).is_wanted


async def _awaited(future: Any) -> Any:
    return await future


def test_a_timeout_too_says_that_nobody_wants_the_answer(timed, clock):
    ref = started(timed, Obedient)
    unwanted: queue.Queue[str] = queue.Queue()
    future = ref.ask(lambda actor: actor.owe().on_unwanted(lambda: unwanted.put("unwanted")), block=False, timeout=3)
    ref.ask("handled", timeout=30)
    clock.advance(3)
    assert unwanted.get(timeout=30) == "unwanted"
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0)


# -- ends ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [Boom("boom"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), MemoryError(), GeneratorExit()],
)
def test_whatever_a_handler_raises_ends_its_actor_alone(system, obedient, error):
    system.supervise(
        sup.ChildSpec("it", obedient, restart="temporary"), sup.ChildSpec("bystander", obedient, restart="temporary")
    )
    ref, bystander = system.whereis("it"), system.whereis("bystander")
    over = exit_of(ref)
    with pytest.raises(type(error) if isinstance(error, Exception) else sup.ActorDeadError):
        ref.ask(raising(error), timeout=30)
    assert type(over.get(timeout=30).reason) in (sup.Crash, sup.Killed)
    assert bystander.ask("alive", timeout=30) == "alive"


def test_a_cancellation_raised_by_the_handler_is_a_crash_and_one_by_a_kill_is_not(system):
    ref = started(system, Obedient)
    over = exit_of(ref)
    ref.tell(raising(asyncio.CancelledError()))
    assert over.get(timeout=30).reason.type == "CancelledError"


def test_a_killed_actor_ends_killed_and_its_asker_hears_it(system):
    ref = started(system, Obedient)
    over = exit_of(ref)
    future = ref.ask(lambda actor: asyncio.Event().wait(), block=False)
    ref.name.incarnation.kill()
    assert over.get(timeout=30).reason == sup.Killed()
    with pytest.raises(sup.ActorDeadError):
        future.get(timeout=30)


def test_a_handler_that_swallows_its_cancellation_for_a_moment_ends_killed_all_the_same(system):
    ref = started(system, Obedient)
    over = exit_of(ref)
    inside: queue.Queue[None] = queue.Queue()

    async def stubborn(actor):
        inside.put(None)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    ref.tell(stubborn)
    inside.get(timeout=30)
    system.kill(ref)
    assert over.get(timeout=30).reason == sup.Killed()


def test_time_in_which_its_loop_stood_still_is_no_grace_that_a_killed_actor_had(system):
    """On a machine that was busy elsewhere an actor in the middle of its clearing up was left behind as a zombie."""
    ref = started(system, Obedient)
    over = exit_of(ref)
    inside: queue.Queue[None] = queue.Queue()

    async def clear_up(actor):
        inside.put(None)
        try:
            await asyncio.Event().wait()
        finally:
            time.sleep(system.kill_grace + 0.2)  # as if the process had been stopped
            for _ in range(5):
                await asyncio.sleep(0)

    ref.tell(clear_up)
    inside.get(timeout=30)
    system.kill(ref)
    assert over.get(timeout=30).reason == sup.Killed()
    assert system.zombies == []


def test_a_handler_that_swallows_it_for_longer_is_abandoned_and_listed_until_it_ends(system, eventually):
    ref = started(system, Obedient)
    over = exit_of(ref)
    inside: queue.Queue[Any] = queue.Queue()

    async def deaf(actor):
        release = asyncio.Event()
        inside.put((asyncio.get_running_loop(), release))
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    ref.tell(deaf)
    loop, release = inside.get(timeout=30)
    system.kill(ref)
    assert isinstance(over.get(timeout=30).reason, sup.Abandoned)
    eventually(lambda: [zombie.path for zombie in system.tree().zombies] == [ref.path])
    assert [left.path for left in system.unstopped_report()] == [ref.path]
    loop.call_soon_threadsafe(release.set)
    eventually(lambda: system.tree().zombies == () and system.unstopped_report() == [])


def test_a_killed_thread_is_abandoned_and_does_nothing_visible_afterwards(system, gate, eventually):
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref = system.whereis("it")
    entered: queue.Queue[Any] = queue.Queue()

    def stuck(actor):
        entered.put(actor)
        gate.wait()
        actor.exit(sup.Crash("Late", "from beyond"))
        return "too late"

    over = exit_of(ref)
    future = ref.ask(stuck, block=False)
    entered.get(timeout=30)
    system.kill(ref)
    assert over.get(timeout=30).reason == sup.Abandoned("a thread cannot be killed")
    with pytest.raises(sup.ActorStuck):
        future.get(timeout=30)
    assert ref.ask("the next life", timeout=30) == "the next life"
    handled = ref.name.handled
    gate.set()
    eventually(lambda: system.tree().zombies == ())
    assert (ref.name.handled, ref.name.epoch) == (handled, 2)
    assert ref in pykka.ActorRegistry.get_all()


@pytest.mark.parametrize("message", ["ask", "stop"])
def test_what_a_life_took_in_the_moment_of_its_abandonment_is_answered(system, message):
    """It was in nobody's books then, and its asker waited for ever."""
    ref = started(system, ObedientThread)
    take = ref.name.mailbox.take

    def take_and_be_abandoned(lease: Any, waiter: Any = None) -> Any:
        item = take(lease, waiter)
        if item is not None:
            system.kill(ref)
        return item

    ref.name.mailbox.take = take_and_be_abandoned
    if message == "stop":
        assert ref.stop(timeout=30) is True
    else:
        with pytest.raises(sup.ActorDeadError):
            ref.ask("hello", timeout=30)


@pytest.mark.parametrize("hook", ["__init__", "on_start"])
def test_a_start_that_fails_leaves_nothing_and_says_why(system, obedient, hook):
    class Failing(obedient):
        def __init__(self) -> None:
            if hook == "__init__":
                raise Boom("in the constructor")
            super().__init__(on_start=raising(Boom("in on_start")))

    with pytest.raises(sup.StartFailedError, match=r"root/it could not be started.*Boom"):
        system.supervise(sup.ChildSpec("it", Failing))
    assert system.whereis("it") is None
    assert system.tree().children == ()


def test_an_exception_in_on_stop_is_the_reason_of_the_end(system, obedient):
    ref = started(system, obedient, kwargs={"on_stop": raising(Boom("in on_stop"))})
    over = exit_of(ref)
    assert ref.stop(timeout=30) is True
    assert over.get(timeout=30).reason.type == "Boom"


def test_an_actor_may_end_itself_with_a_reason_of_its_own(system, obedient):
    ref = started(system, obedient)
    over = exit_of(ref)
    assert ref.ask(lambda actor: actor.exit(sup.Shutdown("done")) or "said", timeout=30) == "said"
    assert over.get(timeout=30).reason == sup.Shutdown("done")


def test_an_exit_asked_for_in_on_start_happens_before_any_message(system, obedient, eventually):
    seen: list[Any] = []

    def leave(actor: Any) -> None:
        actor.seen = seen
        actor.actor_ref.tell("too late")
        actor.exit()

    started(system, obedient, kwargs={"on_start": leave})
    eventually(lambda: system.whereis("it") is None)
    assert seen == []
    assert system.dead_letters == 1


def test_an_exit_asked_for_by_work_in_the_background_wakes_an_idle_actor(system):
    ref = started(system, Obedient)
    over = exit_of(ref)
    ref.tell(lambda actor: asyncio.get_running_loop().call_soon(actor.exit))
    assert over.get(timeout=30).reason == sup.Normal()


def test_an_expected_error_is_answered_without_a_crash(system, obedient):
    ref = started(system, obedient, expected_errors=(Boom,))
    with pytest.raises(Boom):
        ref.ask(raising(Boom("expected")), timeout=30)
    ref.tell(raising(Boom("expected")))
    assert ref.ask("alive", timeout=30) == "alive"
    assert (ref.name.epoch, ref.name.failed) == (1, 2)


def test_a_thread_that_awaits_crashes_instead_of_ending_unnoticed(system):
    async def wait_for_nothing(actor: Any) -> None:
        await _Suspend()

    ref = started(system, ObedientThread)
    with pytest.raises(RuntimeError, match="no event loop"):
        ref.ask(wait_for_nothing, timeout=30)


class _Suspend:
    def __await__(self) -> Any:
        yield


def test_a_stray_task_that_lets_a_system_exit_out_stops_no_one(system, eventually):
    ref = started(system, Obedient)

    async def stray():
        raise SystemExit(1)

    async def leave_it(actor):
        actor.task = asyncio.get_running_loop().create_task(stray())

    ref.ask(leave_it, timeout=30)
    assert ref.ask("alive", timeout=30) == "alive"

    async def look(actor):
        return actor.task.done() and type(actor.task.exception())

    eventually(lambda: ref.ask(look, timeout=30) is SystemExit)


@pytest.mark.parametrize("point", ["before_start", "after_start"])
def test_a_fault_in_the_start_is_a_failed_start(system, obedient, point):
    with fault(point, path="it"), pytest.raises(sup.StartFailedError):
        system.supervise(sup.ChildSpec("it", obedient))


@pytest.mark.parametrize("point", ["before_handle", "after_handle_before_reply"])
def test_a_fault_around_a_handler_answers_the_asker(system, obedient, point):
    ref = started(system, obedient)
    with fault(point, path="it"), pytest.raises(Exception, match=point):
        ref.ask("hello", timeout=30)


def test_a_fault_right_before_the_exit_does_not_hide_the_exit(system, obedient):
    ref = started(system, obedient)
    over = exit_of(ref)
    with fault("before_exit_emit", path="it"):
        ref.stop(timeout=30)
        assert over.get(timeout=30).reason == sup.Normal()


# -- remembering -----------------------------------------------------------------------------------------


def test_the_next_life_finds_what_the_last_one_left_and_why_it_ended(system, obedient, crash):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    ref.ask(lambda actor: actor.remember({"n": 7}), timeout=30)
    ref.tell(crash)
    context = ref.ask(lambda actor: actor.context, timeout=30)
    assert context.snapshot == {"n": 7}
    assert (context.epoch, context.attempt, context.restart_reason.type) == (2, 1, "Boom")


def test_recover_runs_before_any_queued_message_while_the_supervisor_goes_on(system, gate):
    order: list[str] = []

    class Recovering(ObedientThread):
        def recover(self) -> None:
            gate.wait()
            order.append("recovered")

    system.supervise(sup.ChildSpec("it", Recovering), sup.ChildSpec("next", Obedient))
    ref = system.whereis("it")
    future = ref.ask(lambda actor: order.append("message"), block=False)
    assert system.whereis("next").ask("up", timeout=30) == "up"
    gate.set()
    future.get(timeout=30)
    assert order == ["recovered", "message"]


# -- what may be hosted -------------------------------------------------------------------------------


def test_a_factory_may_make_an_actor_and_its_class_is_known_afterwards(system):
    ref = started(system, lambda: Obedient())
    assert ref.actor_class is Obedient


def test_a_factory_that_makes_a_threading_actor_is_told_what_to_do_instead(system):
    with pytest.raises(sup.StartFailedError, match="put its class into the spec"):
        system.supervise(sup.ChildSpec("it", lambda: ObedientThread()))


def test_a_class_that_forgets_super_init_is_told_so(system, obedient):
    class Forgetful(obedient):
        def __init__(self) -> None:
            pass

    with pytest.raises(sup.StartFailedError, match="super"):
        system.supervise(sup.ChildSpec("it", Forgetful))


def test_a_class_with_a_loop_of_its_own_is_refused_before_anything_starts(system):
    class Own(pykka.ThreadingActor):
        def _actor_loop(self) -> None: ...

    with pytest.raises(sup.SpecError, match="_actor_loop"):
        system.supervise(sup.ChildSpec("it", Own))
    assert system.tree().children == ()
