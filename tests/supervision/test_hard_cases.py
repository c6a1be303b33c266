"""What broke the runtime once, on real threads and loops: each test's docstring tells what went wrong."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest
from tree_rig import raising

import supervision as sup
from supervision.future import AskFuture
from supervision.kinds import SupervisorIncarnation
from supervision.mailbox import Envelope
from supervision.specs.child import Mailbox
from supervision.waiting.flag import Flag


class Doer(sup.Actor):
    """Calls what it is sent, and says what that gave."""

    def on_receive(self, message: Any) -> Any:
        return message() if callable(message) else message


def started(system: sup.System, id: str = "doer", **options: Any) -> Any:
    system.supervise(sup.ChildSpec(id, Doer, **options))
    return system.whereis(id)


@pytest.fixture
def no_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`no_thread(part)`: from now on the machine refuses threads with this in their name; "" refuses none."""
    refused: list[str] = []
    start = threading.Thread.start

    def start_or_refuse(thread: threading.Thread) -> None:
        if any(part in thread.name for part in refused):
            raise RuntimeError("can't start new thread")
        start(thread)

    def refuse(part: str) -> None:
        refused[:] = [part] if part else []

    monkeypatch.setattr(threading.Thread, "start", start_or_refuse)
    yield refuse
    refused.clear()


@pytest.fixture
def every_millisecond() -> Iterator[Callable[[Callable[[], Any]], None]]:
    """`every_millisecond(function)`: a signal handler of the main thread calls it, each millisecond."""
    former = signal.getsignal(signal.SIGALRM)

    def begin(function: Callable[[], Any]) -> None:
        signal.signal(signal.SIGALRM, lambda *_: function())
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)


# --- signal handlers ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(120, method="thread")
def test_a_signal_handler_may_tell_the_actor_that_the_interrupted_code_tells(system, every_millisecond):
    """The lock of the mailbox was held by the code below the handler, in the same thread: both stood still."""
    ref, heard = started(system, mailbox=Mailbox(capacity=10**7)), []
    every_millisecond(lambda: heard.append(ref.tell("from the handler")))
    while len(heard) < 300:
        ref.tell("from below")


@pytest.mark.timeout(120, method="thread")
def test_a_stop_in_the_middle_of_a_tell_only_begins(make_system, every_millisecond):
    """The handler waited for trees that needed the lock of a mailbox, which the code below the handler held."""
    for _ in range(10):
        system = make_system()
        ref, waits = started(system, mailbox=Mailbox(capacity=10**7)), []

        def stop(system: sup.System = system, waits: list[float] = waits) -> None:
            since = time.monotonic()
            system.stop(90.0)
            waits.append(time.monotonic() - since)

        every_millisecond(stop)
        while not waits:
            try:
                ref.tell("from below")
            except pykka.ActorDeadError:
                break
        assert system.stop(90.0)
        assert max(waits, default=0.0) < 45.0


@pytest.mark.timeout(120, method="thread")
def test_a_stop_that_was_interrupted_before_it_began_is_begun_by_the_next_call(system, monkeypatch):
    """A Ctrl-C right after the first call had been noted: nobody carried it out, and every later call waited."""
    started(system)
    begin = type(system.stopping)._begin_stop
    monkeypatch.setattr(type(system.stopping), "_begin_stop", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        system.stop()
    monkeypatch.setattr(type(system.stopping), "_begin_stop", begin)
    assert system.stop()


@pytest.mark.timeout(120, method="thread")
def test_a_tree_whose_start_was_interrupted_before_it_began_does_not_hold_up_the_stop(system, monkeypatch):
    """A Ctrl-C between the entry of a root and its begin: the stop waited for the end of what had never lived."""
    monkeypatch.setattr(SupervisorIncarnation, "begin", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        system.supervise(sup.ChildSpec("doer", Doer))
    assert system.stop()


@pytest.mark.timeout(120, method="thread")
def test_a_flag_can_be_set_where_the_code_below_waits_for_it(every_millisecond):
    """The handler of `run` set an Event: its lock may be held by the wait which the signal has interrupted."""
    flag, count = Flag(), iter(range(300))
    every_millisecond(lambda: flag.set() if next(count, None) is None else None)
    while not flag.wait(0.0):
        pass


# --- no more threads ---------------------------------------------------------------------------------------------


def test_a_system_that_gets_no_thread_for_its_workers_leaves_none_behind(no_thread):
    """The thread of its supervisors stayed for ever."""
    no_thread("workers")
    with pytest.raises(RuntimeError):
        sup.System("half")
    assert [each.name for each in threading.enumerate() if "half" in each.name] == []


def test_a_listener_that_got_no_thread_does_not_spoil_the_stop(system, no_thread):
    """A thread that had never begun was joined: the stop broke off, and the schedulers' threads stayed."""
    started(system)
    no_thread("events")
    with pytest.raises(RuntimeError):
        system.events.subscribe(lambda _: None)
    assert not system.events.has_listeners
    assert system.stop(60), system.unstopped_report()


@pytest.mark.timeout(120, method="thread")
def test_a_stop_from_within_that_gets_no_thread_is_carried_out_by_the_next_call(system, no_thread):
    """It counted as begun, nobody did it, and whoever called next waited for ever."""
    ref = started(system)
    no_thread("stop")
    assert ref.ask(system.stop, timeout=30) is False
    no_thread("")
    assert system.stop(), system.unstopped_report()


@pytest.mark.timeout(120, method="thread")
def test_a_blocked_scheduler_is_replaced_as_soon_as_there_is_a_thread(make_system, no_thread, eventually):
    """At the first refusal the scheduler counted as dealt with: its actors waited for the one that blocked it."""
    system, gate, blocked = make_system(loop_limit=0.1), threading.Event(), []
    system.supervise(sup.ChildSpec("hog", Doer), sup.ChildSpec("other", Doer))
    system.events.subscribe(lambda event: blocked.append(event.name) if event.name == "scheduler_blocked" else None)
    no_thread("workers")
    system.whereis("hog").tell(gate.wait)
    eventually(lambda: blocked)
    no_thread("")
    try:
        assert system.whereis("other").ask("here", timeout=30) == "here"
    finally:
        gate.set()


# --- listeners and futures ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_listener_that_exits_costs_the_others_nothing(system, error, eventually):
    """It took the thread of all listeners with it: nobody heard of anything any more."""
    heard: list[str] = []
    system.events.subscribe(raising(error()))
    system.events.subscribe(lambda event: heard.append(event.name))
    ref = started(system)
    with pytest.raises(ZeroDivisionError):
        ref.ask(lambda: 1 / 0)
    eventually(lambda: "child_restarted" in heard)


@pytest.mark.timeout(120, method="thread")
def test_a_hook_that_raises_stop_iteration_is_heard_of_by_who_awaits_it(on_a_loop):
    """No future of asyncio takes a StopIteration: handing it over failed, and the awaiter slept on."""
    future: AskFuture[Any] = AskFuture()
    future.set_get_hook(raising(StopIteration("no more")))

    async def wait_for_it() -> Any:
        return await future

    with pytest.raises(RuntimeError, match="no more"):
        on_a_loop(wait_for_it())


# --- mistakes of the runtime's own -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["revoke", "put_back"])
@pytest.mark.timeout(120, method="thread")
def test_an_end_is_reported_though_a_step_of_it_runs_out_of_memory(system, step, monkeypatch):
    """The supervisor was never told: it took the dead actor for alive, and could not be stopped."""
    ref = started(system)
    owner: Any = ref.name.mailbox if step == "revoke" else ref.name.incarnation.work
    function, calls = getattr(type(owner), step), iter(range(10))

    def fail_once(*arguments: Any) -> Any:
        if next(calls) == 0:
            raise MemoryError(step)
        return function(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(type(owner), step, fail_once)
        with pytest.raises(ZeroDivisionError):
            ref.ask(lambda: 1 / 0, timeout=30)
        assert ref.ask("again", timeout=30) == "again"


# --- the interpreter's end ---------------------------------------------------------------------------------------

DEAF = """
import asyncio, supervision as sup

class Nurse(sup.Actor):
    async def on_receive(self, message):
        self.child = asyncio.get_running_loop().create_task(deaf())

async def deaf():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

system = sup.System("ward")
system.supervise(sup.ChildSpec("nurse", Nurse))
system.whereis("nurse").ask("go")
"""


@pytest.mark.timeout(120, method="thread")
def test_a_task_that_ignores_its_cancellation_is_told_of_in_one_line_at_the_end():
    """asyncio complained, in many lines, that a task had been destroyed while it was pending."""
    ended = subprocess.run([sys.executable, "-c", DEAF], capture_output=True, text=True, timeout=60.0)
    assert ended.returncode == 0
    assert [line for line in ended.stderr.splitlines() if "ignored their cancellation" in line] != []
    assert "destroyed" not in ended.stderr
    assert "Traceback" not in ended.stderr


# --- mailboxes ---------------------------------------------------------------------------------------------------


def test_what_comes_to_a_full_mailbox_as_it_closes_is_answered(system):
    """With `drop_old` a message that found the box full was put in even if the name had been closed in between."""
    ref = started(system, mailbox=Mailbox(capacity=1, overflow="drop_old"))
    name = ref.name
    name.close(sup.Shutdown())
    with pytest.raises(pykka.ActorDeadError):
        name.mailbox._overflow(Envelope("too late"))
    assert len(name.mailbox) == 0
    name.mailbox.reopen()
