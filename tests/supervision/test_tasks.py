"""Tasks under supervision: answered in any case, ended with their supervisor."""

from __future__ import annotations

import asyncio
import functools
import queue
import random
import threading
from collections import deque
from typing import Any

import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, ref_in, wait_for_timer

import supervision as sup


class Lost(Exception):
    """What an asker hears whose task ended with its supervisor."""


@pytest.fixture
def calls(system) -> Any:
    system.supervise(sup.tasks("calls", max_children=3, lost=lambda reason: Lost(str(reason))))
    return system.whereis("calls")


async def double(x: int) -> int:
    return 2 * x


async def fail(error: BaseException) -> None:
    raise error


def never(started: threading.Event, ended: queue.Queue[str]) -> Any:
    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.put("ended")

    return work


@pytest.fixture
def stuck(calls) -> Any:
    """A task that runs until it is cancelled: its future, and what it says at its end."""
    started, ended = threading.Event(), queue.Queue[str]()
    future = calls.run(never(started, ended))
    assert started.wait(30)
    return future, ended


def test_a_task_answers_with_its_result(calls):
    assert calls.run(double, 21).get(timeout=30) == 42
    assert calls.count().get(timeout=30) == 0


def test_a_failure_goes_to_the_asker_and_harms_no_other(calls, stuck):
    with pytest.raises(Boom):
        calls.run(fail, Boom("boom")).get(timeout=30)
    assert calls.count().get(timeout=30) == 1


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), asyncio.CancelledError()])
def test_no_asker_is_ended_by_what_ended_its_task(calls, error):
    """An asker was handed the CancelledError itself, and ended as if somebody had cancelled it."""
    with pytest.raises(sup.ActorDeadError) as caught:
        calls.run(fail, error).get(timeout=30)
    assert caught.value.reason.type == type(error).__name__


def test_beyond_max_children_there_is_a_refusal(calls):
    started, ended = threading.Event(), queue.Queue[str]()
    futures = [calls.run(never(started, ended)) for _ in range(3)]
    assert calls.run(double, 1).get(timeout=30) == sup.MaxChildren()
    assert not any(future.done for future in futures)


def test_a_task_that_nobody_waits_for_is_cancelled(calls, on_a_loop):
    started, ended = threading.Event(), queue.Queue[str]()

    async def ask_and_leave():
        future = calls.run(never(started, ended))
        asking = asyncio.ensure_future(_await(future))
        await asyncio.sleep(0)
        while not started.is_set():
            await asyncio.sleep(0.001)
        asking.cancel()
        await asyncio.wait([asking])

    on_a_loop(ask_and_leave())
    assert ended.get(timeout=30) == "ended"


async def _await(future: Any) -> Any:
    return await future


def test_a_task_may_answer_before_its_end(calls):
    go_on: queue.Queue[Any] = queue.Queue()

    async def early(reply: sup.Reply) -> None:
        reply.set("early")
        go_on.put("went on")

    assert calls.ask(sup.RunTask(early, (), takes_reply=True), timeout=30) == "early"
    assert go_on.get(timeout=30) == "went on"


def test_a_killed_task_supervisor_answers_for_its_tasks_and_ends_them(system, calls, stuck):
    future, ended = stuck
    system.kill(calls)
    with pytest.raises(Lost, match="killed"):
        future.get(timeout=30)
    assert ended.get(timeout=30) == "ended"
    assert calls.run(double, 1).get(timeout=30) == 2


def test_an_orderly_stop_cancels_the_tasks_and_answers(system, stuck):
    future, ended = stuck
    system.stop()
    with pytest.raises(Lost, match="shutdown"):
        future.get(timeout=30)
    assert ended.get(timeout=30) == "ended"


def test_a_task_that_ignores_its_cancellation_holds_the_stop_up_no_longer_than_allowed(timed, clock, caplog):
    timed.supervise(sup.tasks("calls", shutdown=3.0))
    started, release = threading.Event(), asyncio.Event()
    inside: queue.Queue[Any] = queue.Queue()

    async def deaf() -> None:
        inside.put(asyncio.get_running_loop())
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    future = timed.whereis("calls").run(deaf)
    assert started.wait(30)
    stopping = threading.Thread(target=timed.stop)
    stopping.start()
    wait_for_timer(clock, 3.0)
    clock.advance(3.0)
    with pytest.raises(sup.ActorDeadError):
        future.get(timeout=30)
    inside.get(timeout=30).call_soon_threadsafe(release.set)
    stopping.join(30)
    assert "ignored their cancellation" in caplog.text


def test_a_task_may_ask_its_own_supervisor(calls):
    async def ask_back() -> int:
        count: int = await calls.count()
        return count

    assert calls.run(ask_back).get(timeout=30) == 1


@pytest.mark.parametrize("call", ["run", "run_nolink", "start"])
def test_what_is_no_coroutine_function_is_refused_at_the_call(calls, call):
    coroutine = double(1)
    for wrong in (lambda: None, coroutine, 3, None):
        with pytest.raises(sup.NotACoroutineFunction, match="coroutine function"):
            getattr(calls, call)(wrong)
    coroutine.close()
    assert calls.count().get(timeout=30) == 0


def test_everything_that_gives_a_coroutine_when_called_is_welcome(calls):
    class Doubles:
        async def method(self, x: int) -> int:
            return 2 * x

        __call__ = method

    for function in (Doubles().method, Doubles(), functools.partial(double)):
        assert calls.run(function, 21).get(timeout=30) == 42


# -- tasks that actors run ---------------------------------------------------------------------------------


class Trapper(Obedient):
    trap_exits = True


@pytest.fixture
def caller(system, calls) -> Any:
    """An actor that runs tasks as it is told; what it receives besides is kept."""
    return started_caller(system, Obedient)


def started_caller(system: sup.System, actor: Any) -> Any:
    system.supervise(sup.ChildSpec("caller", actor, restart="temporary"))
    return system.whereis("caller")


def seen(caller: Any) -> list[Any]:
    found: list[Any] = caller.ask(lambda actor: actor.seen, timeout=30)
    return found


async def fail_at(gate: Any) -> None:
    await asyncio.get_running_loop().run_in_executor(None, gate.wait)
    raise Boom("boom")


def test_a_task_that_fails_ends_the_actor_that_ran_it(calls, caller):
    over = exit_of(caller)
    future = caller.ask(lambda _: [calls.run(fail, Boom("boom"))], timeout=30)[0]
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.Crash)
    assert "boom" in reason.message
    with pytest.raises(Boom):
        future.get(timeout=30)


@pytest.mark.parametrize("call", ["run", "run_nolink"])
@pytest.mark.parametrize("wait_first", [False, True])
def test_a_failure_that_the_actor_catches_is_dealt_with(calls, caller, call, wait_first):
    """Whether it fails before or while the actor waits for it."""

    async def catch(_: Any) -> str:
        future = getattr(calls, call)(fail, Boom("boom"))
        if wait_first:
            while not future.done:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        try:
            await future
        except Boom:
            return "caught"
        return "not raised"

    assert caller.ask(catch, timeout=30) == "caught"
    assert seen(caller) == []


def test_a_blocking_actor_may_catch_it_too(system, calls):
    caller = started_caller(system, ObedientThread)

    def catch(_: Any) -> str:
        try:
            calls.run(fail, Boom("boom")).get(timeout=30)
        except Boom:
            return "caught"
        return "not raised"

    assert caller.ask(catch, timeout=30) == "caught"
    assert seen(caller) == []


def test_a_failure_that_is_not_caught_is_the_actors_own(calls, caller):
    async def await_it(_: Any) -> None:
        await calls.run(fail, Boom("boom"))

    over = exit_of(caller)
    with pytest.raises(Boom):
        caller.ask(await_it, timeout=30)
    assert over.get(timeout=30).reason.type == "Boom"


def test_an_actor_that_traps_exits_is_sent_the_failure(system, calls, eventually):
    caller = started_caller(system, Trapper)
    caller.ask(lambda _: [calls.run(fail, Boom("boom"))], timeout=30)
    (exited,) = eventually(lambda: seen(caller))
    assert isinstance(exited, sup.Exited)
    assert exited.ref is calls
    assert exited.reason.type == "Boom"


def test_an_unlinked_failure_is_one_down_with_the_futures_token(calls, caller, eventually):
    future = caller.ask(lambda _: [calls.run_nolink(fail, Boom("boom"))], timeout=30)[0]
    (down,) = eventually(lambda: seen(caller))
    assert (type(down), down.token, down.ref) == (sup.Down, future.token, calls)
    assert down.reason.type == "Boom"
    with pytest.raises(Boom):
        future.get(timeout=30)
    assert len(seen(caller)) == 1


def test_a_failure_taken_out_of_the_future_later_is_taken_back_from_the_mailbox(calls, caller):
    """The Down waits in the mailbox while the handler goes on; then the handler looks into the future."""

    async def look_late(_: Any) -> None:
        future = calls.run_nolink(fail, Boom("boom"))
        while len(caller.name.mailbox) == 0:
            await asyncio.sleep(0.001)
        with pytest.raises(Boom):
            await future

    caller.ask(look_late, timeout=30)
    assert seen(caller) == []


@pytest.mark.parametrize("call", ["run", "run_nolink"])
def test_success_is_told_in_the_future_alone(calls, caller, call):
    future = caller.ask(lambda _: [getattr(calls, call)(double, 21)], timeout=30)[0]
    assert future.get(timeout=30) == 42
    assert seen(caller) == []


@pytest.mark.parametrize("end", ["stop", "kill", "crash"])
def test_a_linked_task_is_cancelled_when_its_actor_ends(system, calls, caller, crash, end):
    started, ended = threading.Event(), queue.Queue[str]()
    caller.ask(lambda _: [calls.run(never(started, ended))], timeout=30)
    assert started.wait(30)
    {"stop": lambda: caller.stop(), "kill": lambda: system.kill(caller), "crash": lambda: caller.tell(crash)}[end]()
    assert ended.get(timeout=30) == "ended"
    assert calls.count().get(timeout=30) == 0


def test_a_task_without_a_link_goes_on_when_its_actor_has_ended(calls, caller):
    started, ended = threading.Event(), queue.Queue[str]()
    caller.ask(lambda _: [calls.run_nolink(never(started, ended))], timeout=30)
    assert started.wait(30)
    caller.stop(timeout=30)
    assert calls.count().get(timeout=30) == 1
    assert ended.empty()


def test_a_refusal_is_no_failure(calls, caller, gate):
    started, ended = threading.Event(), queue.Queue[str]()
    for _ in range(3):
        calls.run(never(started, ended))
    future = caller.ask(lambda _: [calls.run(double, 1)], timeout=30)[0]
    assert future.get(timeout=30) == sup.MaxChildren()
    assert seen(caller) == []


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_an_orderly_end_of_the_task_supervisor_ends_no_caller_a_kill_does(system, caller, end):
    handle = system.supervise(sup.tasks("plain"))
    plain = system.whereis("plain")
    started, ended = threading.Event(), queue.Queue[str]()
    over = exit_of(caller)
    future = caller.ask(lambda _: [plain.run(never(started, ended))], timeout=30)[0]
    assert started.wait(30)
    if end == "stop":
        handle.terminate_child("plain").get(timeout=30)
    else:
        system.kill(plain)
        assert "killed" in over.get(timeout=30).reason.message
    with pytest.raises(sup.ActorDeadError):
        future.get(timeout=30)
    if end == "stop":
        assert caller.ask("alive", timeout=30) == "alive"


def test_a_dead_task_supervisor_is_a_failure_too(system, calls, caller, eventually):
    handle = system.supervise(sup.tasks("plain", restart="temporary"))
    plain = system.whereis("plain")
    handle.terminate_child("plain").get(timeout=30)
    caller.ask(lambda _: [plain.run_nolink(double, 1)], timeout=30)
    (down,) = eventually(lambda: seen(caller))
    assert down.ref is plain


# -- tasks that are started --------------------------------------------------------------------------------


def start(calls: Any, function: Any, *arguments: Any, **options: Any) -> Any:
    answer = calls.start(function, *arguments, **options).get(timeout=30)
    assert isinstance(answer, sup.Started), answer
    return answer.ref


def test_a_started_task_runs_once_and_is_forgotten(calls, eventually):
    done = queue.Queue[int]()

    async def work(x: int) -> None:
        done.put(await double(x))

    ref = start(calls, work, 21)
    assert ref.path == "root/calls/started/work"
    assert done.get(timeout=30) == 42
    eventually(lambda: not ref.is_alive())
    eventually(lambda: calls.count().get(timeout=30) == 0)


@pytest.mark.parametrize(("function", "reason"), [(double, "normal"), (fail, "Boom")])
def test_a_started_task_can_be_monitored(calls, caller, gate, eventually, function, reason):
    async def work(*arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(None, gate.wait)
        await function(*arguments)

    ref = start(calls, work, 1 if function is double else Boom("boom"))
    token = caller.ask(lambda actor: actor.monitor(ref), timeout=30)
    gate.set()
    (down,) = eventually(lambda: seen(caller))
    assert (down.token, down.ref) == (token, ref)
    assert reason in str(down.reason)


def test_a_started_task_can_be_linked_both_ways(system, calls, caller, gate):
    ref = start(calls, fail_at, gate)
    caller.ask(lambda actor: actor.link(ref), timeout=30)
    over = exit_of(caller)
    gate.set()
    assert over.get(timeout=30).reason.type == "LinkedExit"


def test_a_linked_actors_crash_cancels_the_started_task(calls, caller, crash):
    started, ended = threading.Event(), queue.Queue[str]()
    ref = start(calls, never(started, ended))
    assert started.wait(30)
    over = exit_of(ref)
    caller.ask(lambda actor: actor.link(ref), timeout=30)
    caller.tell(crash)
    assert ended.get(timeout=30) == "ended"
    assert over.get(timeout=30).reason.type == "LinkedExit"


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_a_started_task_can_be_killed_and_terminated(system, calls, how):
    started, ended = threading.Event(), queue.Queue[str]()
    ref = start(calls, never(started, ended))
    assert started.wait(30)
    over = exit_of(ref)
    if how == "kill":
        system.kill(ref)
    else:
        assert calls.terminate_child(ref).get(timeout=30) == sup.Ok()
        assert calls.terminate_child(ref).get(timeout=30) == sup.Ok()
    assert ended.get(timeout=30) == "ended"
    assert over.get(timeout=30).reason == (sup.Killed() if how == "kill" else sup.Shutdown())


def test_a_ref_that_is_no_task_of_ours_is_not_terminated(calls, caller):
    assert calls.terminate_child(caller).get(timeout=30) == sup.NotFound()
    start(calls, never(threading.Event(), queue.Queue()))
    assert calls.terminate_child(caller).get(timeout=30) == sup.NotFound()
    assert seen(caller) == []


@pytest.mark.parametrize(
    ("restart", "outcomes", "runs"),
    [
        ("temporary", [Boom("1")], 1),
        ("transient", [Boom("1"), Boom("2"), None], 3),
        ("permanent", [None, Boom("2"), "hang"], 3),
    ],
)
def test_a_started_task_is_called_anew_by_the_usual_rules(calls, eventually, restart, outcomes, runs):
    called: list[Any] = []

    async def work() -> None:
        called.append(outcome := outcomes[len(called)])
        if outcome == "hang":
            await asyncio.Event().wait()
        if outcome is not None:
            raise outcome

    ref = start(calls, work, restart=restart)
    eventually(lambda: len(called) == runs)
    if restart != "permanent":
        eventually(lambda: not ref.is_alive())
    assert len(called) == runs
    assert calls.count().get(timeout=30) == (1 if restart == "permanent" else 0)


def test_a_wrong_restart_is_refused_at_the_call(calls):
    with pytest.raises(sup.SpecError, match="restart"):
        calls.start(double, 1, restart="always")


def test_started_and_run_tasks_share_the_bound(calls, stuck, eventually):
    started, ended = threading.Event(), queue.Queue[str]()
    refs = [start(calls, never(started, ended)) for _ in range(2)]
    assert calls.count().get(timeout=30) == 3
    assert calls.start(double, 1).get(timeout=30) == sup.MaxChildren()
    assert calls.run(double, 1).get(timeout=30) == sup.MaxChildren()
    calls.terminate_child(refs[0]).get(timeout=30)
    assert calls.run(double, 1).get(timeout=30) == 2


def test_restarts_beyond_the_window_end_the_task_supervisor_with_the_whole_chain(system, eventually):
    system.supervise(sup.tasks("plain", max_restarts=1), max_restarts=9)
    plain = system.whereis("plain")
    over = exit_of(plain)
    plain.start(fail, Boom("boom"), restart="permanent")
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp)
    assert [link.path for link in reason.chain] == ["root/plain/started/fail", "root/plain/started"]
    assert plain.run(double, 21).get(timeout=30) == 42
    assert plain.count().get(timeout=30) == 0


@pytest.mark.parametrize("end", ["kill", "stop", "terminate"])
def test_no_task_survives_its_supervisor(system, end):
    """Its exit is reported when all tasks have ended."""
    handle = system.supervise(sup.tasks("plain"))
    plain = system.whereis("plain")
    started, ended = [threading.Event() for _ in range(2)], queue.Queue[str]()
    ref = start(plain, never(started[0], ended))
    plain.run(never(started[1], ended))
    assert all(each.wait(30) for each in started)
    task_over, over = exit_of(ref), exit_of(plain)
    if end == "kill":
        system.kill(plain)
    elif end == "stop":
        plain.stop(block=False)
    else:
        handle.terminate_child("plain")
    over.get(timeout=30)
    assert ended.qsize() == 2
    assert task_over.done
    assert not ref.is_alive()


def test_a_task_that_ignores_its_cancellation_is_listed_until_it_ends(system, eventually):
    system.supervise(sup.tasks("plain", shutdown=0.01))
    plain = system.whereis("plain")
    loops: queue.Queue[Any] = queue.Queue()
    release = asyncio.Event()

    async def deaf() -> None:
        loops.put(asyncio.get_running_loop())
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                pass

    start(plain, deaf)
    plain.run(deaf)
    loop, _ = loops.get(timeout=30), loops.get(timeout=30)
    over = exit_of(plain)
    system.kill(plain)
    over.get(timeout=30)
    paths = [left.path for left in system.unstopped_report()]
    assert sorted(paths) == ["root/plain/deaf", "root/plain/started/deaf"]
    assert plain.run(double, 21).get(timeout=30) == 42
    loop.call_soon_threadsafe(release.set)
    eventually(lambda: system.unstopped_report() == [])


def test_a_task_that_waits_for_others_it_has_run_is_told_of_their_failure(calls, gate):
    """A started task is an actor to the tasks that it runs."""
    outcomes: queue.Queue[str] = queue.Queue()

    async def outer() -> None:
        try:
            await calls.run(fail, Boom("boom"))
        except Boom:
            outcomes.put("caught")
        calls.run(fail_at, gate)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            outcomes.put("ended by the link")
            raise

    ref = start(calls, outer)
    over = exit_of(ref)
    assert outcomes.get(timeout=30) == "caught"
    gate.set()
    assert outcomes.get(timeout=30) == "ended by the link"
    assert over.get(timeout=30).reason.type == "LinkedExit"


def test_tasks_show_in_the_tree(system, calls, stuck):
    start(calls, never(threading.Event(), queue.Queue()))
    text = str(system.tree())
    assert "never" not in text  # the function is called `work`
    assert "work" in text


def test_wrong_options_in_a_plain_spec_are_a_failed_start(system):
    with pytest.raises(sup.StartFailedError, match="max_children"):
        system.supervise(sup.ChildSpec("calls", sup.TaskSupervisor, kwargs={"max_children": -1}))


def test_fields_of_the_spec_may_stand_among_the_options():
    spec = sup.tasks("calls", restart="transient", shutdown=3.0)
    assert (spec.restart, spec.shutdown, dict(spec.kwargs)) == ("transient", sup.INFINITY, {"shutdown": 3.0})


# -- everything at once ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_whatever_happens_at_the_same_time_every_call_is_answered_and_no_task_is_left(system, seed, eventually):
    """Threads run, start, terminate, forget and kill tasks of all sorts; now and then the supervisor itself."""
    system.supervise(sup.tasks("plain", max_restarts=10_000, max_children=20), max_restarts=10_000)
    plain = system.whereis("plain")
    answers: list[Any] = []
    known: deque[Any] = deque(maxlen=30)
    running: list[object] = []

    async def work(how: float) -> None:
        running.append(me := object())
        try:
            await asyncio.sleep(how / 20)
            if how < 0.5:
                raise Boom("boom")
        finally:
            running.remove(me)

    def stir(draw: random.Random) -> None:
        for _ in range(60):
            what = draw.random()
            ref = draw.choice(known) if known else None
            if what < 0.3:
                answers.append(plain.run(work, draw.random()))
            elif what < 0.4:
                plain.run(work, draw.random()).abandon()
            elif what < 0.7 or ref is None:
                answer = plain.start(work, draw.random(), restart=draw.choice(list(sup.Restart)))
                answer.on_done(lambda answer=answer: known.append(ref) if (ref := ref_in(answer)) else None)
                answers.append(answer)
            elif what < 0.85:
                answers.append(plain.terminate_child(ref))
            elif what < 0.95:
                system.kill(ref)
            else:
                system.kill(plain)

    threads = [threading.Thread(target=stir, args=(random.Random(seed * 10 + n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    eventually(lambda: all(answer.done for answer in answers))
    assert plain.count().get(timeout=30) <= 20
    for ref in known:
        plain.terminate_child(ref).get(timeout=30)
    system.kill(plain)
    eventually(lambda: plain.count().get(timeout=30) == 0)
    assert running == []
    assert system.audit() == []
