"""In the child of a fork nobody lives: each use of what the parent started is an error that says so, at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pykka
import pytest

import supervision as sup
from supervision import links
from supervision.waiting import waits

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.timeout(30),
]


class Echo(sup.Actor):
    def on_receive(self, message: Any) -> Any:
        return self.owe() if message == "owe" else message


class EchoThread(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message


def in_child(story: Callable[[], Any]) -> str:
    """What `story` returns in the child of a fork, as text, or what it raised there; it has five seconds."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        try:
            said = str(story())
        except BaseException as error:  # noqa: BLE001  (told to the parent, whatever it is)
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return said if status == 0 else f"ended by {status}: it hung"


@pytest.fixture
def tree(system: sup.System) -> sup.System:
    system.supervise(
        sup.ChildSpec("echo", Echo),
        sup.ChildSpec("thread", EchoThread),
        sup.supervisor("mid", sup.ChildSpec("below", Echo)),
        sup.tasks("tasks"),
    )
    return system


async def awaiting(future: Any) -> Any:
    return await future


async def nothing() -> None: ...


def lost(error: str = "ActorDeadError") -> str:
    return f"^{error}: .*(parent|fork)"


USES: dict[str, tuple[Callable[[sup.System], Any], str]] = {
    "ask": (lambda s: s.names.known("root/echo").ref.ask("hello"), lost()),
    "ask a thread": (lambda s: s.names.known("root/thread").ref.ask("hello"), lost()),
    "ask for a future": (lambda s: s.names.known("root/echo").ref.ask("hello", block=False).get(), lost()),
    "await": (lambda s: asyncio.run(awaiting(s.names.known("root/echo").ref.ask("hello", block=False))), lost()),
    "tell": (lambda s: s.names.known("root/echo").ref.tell("hello"), lost()),
    "proxy": (lambda s: s.names.known("root/echo").ref.proxy().anything.get(), lost()),
    "supervise": (lambda s: s.supervise(sup.ChildSpec("new", Echo)), lost("SystemClosed")),
    "start_child": (lambda s: s.names.known("root").ref.start_child(sup.ChildSpec("new", Echo)).get(), lost()),
    "a call below": (lambda s: s.names.known("root/mid").ref.which_children().get(), lost()),
    "a task": (lambda s: s.names.known("root/tasks").ref.run(nothing).get(), lost()),
    "is_alive": (lambda s: [name.ref.is_alive() for name in s.names.all()], r"^\[(False, )*False\]$"),
    "whereis": (lambda s: s.whereis("echo"), "^None$"),
    "stop an actor": (lambda s: s.names.known("root/echo").ref.stop(), "^False$"),
    "the end": (lambda s: s.names.known("root").ref.ended.get(), "ForkLost"),
    "stop the system": (lambda s: (s.stop(1), s.unstopped_report()), r"\[\]"),
    "audit": (lambda s: s.audit(), r"^\[\]$"),
    "tree": (lambda s: s.tree(), ""),
    "the registry": (lambda s: pykka.ActorRegistry.get_all(), r"^\[\]$"),
    "stop_all": (lambda s: pykka.ActorRegistry.stop_all(), r"^\[\]$"),
}


@pytest.mark.parametrize("use", USES)
def test_in_a_forks_child_it_is_an_answer_at_once_and_the_parent_lives_on(tree: sup.System, use: str) -> None:
    call, told = USES[use]
    said = in_child(lambda: call(tree))
    assert re.search(told, said), said
    assert tree.whereis("echo").ask("still here", timeout=30) == "still here"
    assert tree.whereis("mid/below").ask("still here", timeout=30) == "still here"


def test_a_question_that_was_on_its_way_is_answered_in_the_child_too(tree: sup.System) -> None:
    future = tree.whereis("echo").ask("owe", block=False)
    tree.whereis("echo").ask("it has been taken up", timeout=30)
    assert in_child(lambda: future.get(timeout=4)).startswith("ActorDeadError: root/echo")
    assert not future.done


def test_the_child_may_have_a_tree_of_its_own(tree: sup.System) -> None:
    def story() -> Any:
        with sup.System("child") as system:
            system.supervise(sup.ChildSpec("echo", Echo), sup.ChildSpec("thread", EchoThread))
            answers = [system.whereis(id).ask(f"hello {id}", timeout=4) for id in ("echo", "thread")]
            alone = Echo.start()
            answers.append(alone.ask("alone", timeout=4))
            alone.stop()
        return answers, system.unstopped_report()

    assert in_child(story) == "(['hello echo', 'hello thread', 'alone'], [])"


@pytest.mark.parametrize("module", [links, waits], ids=["links", "waits"])
def test_a_lock_of_all_actors_that_was_held_at_the_fork_is_free_in_the_child(module: Any) -> None:
    """Only its holder could free it, and that thread is not in the child."""
    with module._lock:
        assert in_child(lambda: module._lock.acquire(timeout=2)) == "True"


@pytest.fixture
def many_switches() -> Iterator[None]:
    """Threads take turns fifty times as often: more places to fork at, and nobody waits long for a turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    yield
    sys.setswitchinterval(before)


def test_a_fork_in_the_middle_of_traffic_leaves_no_lock_behind(tree: sup.System, many_switches: None) -> None:
    """A lock that another thread held at the fork stays held in the child for ever."""
    ref, thread, over = tree.whereis("echo"), tree.whereis("thread"), threading.Event()

    def traffic() -> None:
        while not over.is_set():
            futures = [each.ask("x", block=False) for each in (ref, thread) for _ in range(20)]
            for future in futures:
                future.get(timeout=10)

    busy = [threading.Thread(target=traffic) for _ in range(2)]
    for each in busy:
        each.start()
    try:
        for _ in range(15):
            assert in_child(lambda: (ref.ask("x", block=False).get(timeout=4), "answered")).startswith("ActorDead")
            assert in_child(lambda: [str(tree.tree()), tree.audit()][1]) == "[]"
    finally:
        over.set()
        for each in busy:
            each.join()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork here")
def test_multiprocessing_by_fork_ends_by_itself(tree: sup.System) -> None:
    import multiprocessing

    process = multiprocessing.get_context("fork").Process(target=len, args=("x",))
    process.start()
    process.join(10)
    assert process.exitcode == 0
