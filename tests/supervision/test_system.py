"""A system from its start to its end, which keeps its deadline whatever hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, once_served, raising

import supervision as sup

ROOT = Path(__file__).resolve().parent.parent.parent

AT_MOST = 15.0
"""Seconds that a stop within less than half a second may take where the machine is busy: what hangs does so for longer.
"""


def elapsed(function: Any, *arguments: Any) -> tuple[Any, float]:
    start = time.monotonic()
    return function(*arguments), time.monotonic() - start


async def forever(actor: Any = None) -> None:
    await asyncio.Event().wait()


async def deaf(actor: Any = None) -> None:
    """Ignores its cancellation, but for the last one, which ends its loop."""
    for _ in range(2):
        with contextlib.suppress(asyncio.CancelledError):
            await forever()


# -- the end within its deadline -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["handler", "on_stop"])
def test_a_hanging_thread_is_left_behind_and_reported(make_system, gate, where, eventually):
    hooks = {"on_stop": lambda actor: gate.wait()} if where == "on_stop" else {}
    system = make_system()
    system.supervise(
        sup.ChildSpec("hung", ObedientThread, kwargs=hooks, shutdown=60.0), sup.ChildSpec("fine", Obedient)
    )
    if where == "handler":
        entered = threading.Event()
        system.whereis("hung").tell(lambda actor: entered.set() or gate.wait())
        assert entered.wait(30)
    stopped, seconds = elapsed(system.stop, 0.4)
    assert stopped is False
    assert seconds < AT_MOST
    eventually(lambda: [left.path for left in system.unstopped_report()] == ["root/hung"])
    eventually(lambda: pykka.ActorRegistry.get_all() == [])
    gate.set()
    eventually(lambda: system.unstopped_report() == [])
    assert system.stop() is True


@pytest.mark.parametrize("what", [forever, deaf])
@pytest.mark.parametrize("where", ["handler", "on_stop"])
def test_a_hanging_coroutine_is_ended_in_time(make_system, what, where, eventually):
    hooks = {"on_stop": what} if where == "on_stop" else {}
    system = make_system()
    system.supervise(sup.ChildSpec("hung", Obedient, kwargs=hooks, shutdown="infinity"))
    if where == "handler":
        system.whereis("hung").tell(what)
    _, seconds = elapsed(system.stop, 0.4)
    assert seconds < AT_MOST
    eventually(lambda: system.unstopped_report() == [])


def test_a_blocked_loop_is_left_behind_and_reported(make_system, gate, eventually):
    system = make_system()
    system.supervise(sup.ChildSpec("hog", Obedient), sup.ChildSpec("starved", Obedient))
    entered = threading.Event()
    asked = system.whereis("hog").ask(lambda actor: entered.set() or gate.wait(), block=False)
    assert entered.wait(30)
    starved = system.whereis("starved").ask("anybody?", block=False)
    stopped, seconds = elapsed(system.stop, 0.4)
    assert stopped is False
    assert seconds < AT_MOST
    those_left = {"root/hog", "root/starved", f"{system.name}-workers"}
    eventually(lambda: {left.path for left in system.unstopped_report()} == those_left)
    for future in (asked, starved):
        with pytest.raises(sup.ActorDeadError):
            future.get(timeout=30)
    gate.set()
    eventually(lambda: system.unstopped_report() == [])


def test_a_later_call_with_a_deadline_hurries_an_earlier_one_without(make_system, gate, eventually):
    system = make_system()
    system.supervise(
        sup.ChildSpec("hung", ObedientThread, kwargs={"on_stop": lambda actor: gate.wait()}, shutdown=60.0)
    )
    patient = threading.Thread(target=system.stop)
    patient.start()
    eventually(lambda: system.tree().children[0].children[0].state == "stopping")
    stopped, seconds = elapsed(system.stop, 0.3)
    assert (stopped, seconds < AT_MOST) == (False, True)
    patient.join(30)
    assert not patient.is_alive()
    gate.set()


def test_a_signal_that_another_thread_is_given_is_heard_by_who_waits_for_a_stop(make_system, gate):
    """It was heard when the wait was over: a second Ctrl-C, which is to end a program at once, came to nothing."""
    system = make_system()
    system.supervise(sup.ChildSpec("hung", ObedientThread, kwargs={"on_stop": lambda _: gate.wait()}, shutdown=600.0))
    former = signal.signal(signal.SIGUSR1, lambda number, frame: gate.set())

    def send_to_itself() -> None:
        looks = 0
        while looks < 50:  # in the same place whenever it is looked at: it is not only on its way into the wait
            looks = looks + 1 if waits_for_a_condition(threading.main_thread()) else 0
            time.sleep(0.002)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)

    threading.Thread(target=send_to_itself, daemon=True).start()
    try:
        stopped, seconds = elapsed(system.stop, 60)
    finally:
        signal.signal(signal.SIGUSR1, former)
    assert stopped
    assert seconds < 45


def waits_for_a_condition(thread: threading.Thread) -> bool:
    return sys._current_frames()[thread.ident or 0].f_code is threading.Condition.wait.__code__


def test_many_callers_at_once_all_wait_for_the_one_stop(make_system):
    system = make_system()
    stops: list[int] = []
    system.supervise(sup.ChildSpec("it", Obedient, kwargs={"on_stop": lambda actor: stops.append(1)}))
    results: list[bool] = []
    callers = [threading.Thread(target=lambda: results.append(system.stop(60))) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(30)
    assert results == [True] * 8
    assert stops == [1]


def test_a_handler_may_begin_the_stop_but_does_not_wait_for_it(make_system, obedient, eventually):
    system = make_system()
    system.supervise(sup.ChildSpec("it", obedient))
    assert system.whereis("it").ask(lambda actor: system.stop(), timeout=30) is False
    assert system.stop(60) is True
    assert system.whereis("it") is None


def test_a_stopped_system_starts_nothing(make_system):
    system = make_system()
    system.stop()
    with pytest.raises(sup.SystemClosed):
        system.supervise(sup.ChildSpec("it", Obedient))


def test_supervise_in_a_handler_is_refused_instead_of_blocking_for_ever(system, crash):
    system.supervise(sup.ChildSpec("it", Obedient, expected_errors=(sup.BlockingInScheduler,)))
    with pytest.raises(sup.BlockingInScheduler):
        system.whereis("it").ask(lambda actor: system.supervise(sup.ChildSpec("other", Obedient)), timeout=30)


def test_a_stop_while_the_tree_still_starts_ends_the_start_too(make_system, gate, eventually):
    system = make_system()
    outcome: queue.Queue[Any] = queue.Queue()

    def supervise() -> None:
        try:
            outcome.put(
                system.supervise(sup.ChildSpec("slow", ObedientThread, kwargs={"on_start": lambda _: gate.wait()}))
            )
        except sup.StartFailedError as error:
            outcome.put(error)

    starting = threading.Thread(target=supervise)
    starting.start()
    eventually(lambda: system.tree().children and system.tree().children[0].children)
    assert system.stop(0.3) is False
    assert isinstance(outcome.get(timeout=30), sup.StartFailedError)
    starting.join(30)
    gate.set()


def test_stop_all_of_pykka_stops_the_systems_and_leaves_nothing(make_system):
    system = make_system()
    system.supervise(sup.supervisor("mid", sup.ChildSpec("a", Obedient), sup.ChildSpec("b", ObedientThread)))
    lone = Obedient.start()
    pykka.ActorRegistry.stop_all()
    assert pykka.ActorRegistry.get_all() == []
    assert not lone.is_alive()
    assert system.tree().children == ()
    assert system.stop() is True


def test_a_root_that_gives_up_is_reported_with_its_reason(make_system, crash, capsys):
    system = make_system()
    handle = system.supervise(sup.ChildSpec("it", Obedient), max_restarts=0)
    ended = handle.ended
    system.whereis("it").tell(crash)
    assert isinstance(ended.get(timeout=30).reason, sup.GaveUp)
    assert system.run() == 70
    assert '"gave_up": "root"' in capsys.readouterr().err


def test_run_serves_until_a_signal_and_gives_the_handlers_back(make_system):
    system = make_system()
    former = signal.getsignal(signal.SIGTERM)
    system.supervise(sup.ChildSpec("it", Obedient))
    once_served(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert system.run() == 0
    assert signal.getsignal(signal.SIGTERM) is former


def test_the_reason_of_a_refused_start_names_the_deepest_child(system):
    with pytest.raises(sup.StartFailedError) as caught:
        system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient, kwargs={"on_start": raising(Boom("no"))})))
    assert "root/mid" in str(caught.value)
    assert "Boom: no" in str(caught.value)


# -- the interpreter's end ---------------------------------------------------------------------------------


def run_program(source: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    program = "import supervision as sup, pykka, sys, threading, time\n" + textwrap.dedent(source)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=timeout, cwd=ROOT)


ACTORS = """
class Loop(sup.Actor):
    def on_stop(self): print("loop stopped", flush=True)
class Thread(pykka.ThreadingActor):
    def on_stop(self): print("thread stopped", flush=True)
system = sup.System("left")
system.supervise(sup.ChildSpec("a", Loop), sup.ChildSpec("b", Thread))
"""


def test_a_system_that_was_never_stopped_is_stopped_at_the_interpreters_end():
    done = run_program(ACTORS + "print('main is over', flush=True)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split("\n")[:3] == ["main is over", "thread stopped", "loop stopped"]


def test_an_exit_by_exception_stops_it_too():
    done = run_program(ACTORS + "sys.exit(3)")
    assert (done.returncode, done.stdout) == (3, "thread stopped\nloop stopped\n")


def test_code_that_hangs_does_not_keep_the_interpreter_alive():
    hang = """
class Hung(pykka.ThreadingActor):
    def on_receive(self, message): time.sleep(3600)
system = sup.System("left", kill_grace=0.05)
system.supervise(sup.ChildSpec("it", Hung, shutdown=0.05))
system.whereis("it").tell("hang")
lone = type("Lone", (sup.Actor,), {}).start()
print("main is over", flush=True)
"""
    done = run_program(hang)
    assert (done.returncode, done.stdout) == (0, "main is over\n")


def test_a_lone_actor_does_not_keep_the_interpreter_alive():
    done = run_program("class Lone(sup.Actor): pass\nLone.start().ask('hello')\nprint('over')")
    assert (done.returncode, done.stdout) == (0, "over\n")


def test_the_threads_of_to_thread_are_gone_when_the_system_has_stopped(make_system, gate):
    """They were told to end and not waited for, so that a program which looked right after found one of them."""

    class Threaded(sup.Actor):
        async def on_receive(self, message):
            self.work = asyncio.get_running_loop().run_in_executor(None, gate.wait)

        def on_stop(self):
            threading.Timer(0.05, gate.set).start()

    system = make_system()
    system.supervise(sup.ChildSpec("it", Threaded))
    system.whereis("it").ask("begin")
    assert system.stop()
    assert [each.name for each in threading.enumerate() if each.name.startswith("asyncio_")] == []
