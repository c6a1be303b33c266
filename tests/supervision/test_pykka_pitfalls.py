"""What goes wrong in Pykka 4.5 and must not go wrong here: a test or more for each of the 18 pitfalls we know."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import socket
import threading
import weakref
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising, started

import supervision as sup
from supervision.pykka_registry import OrderedRefs


def test_01_a_failed_ask_ends_the_actor_with_its_half_changed_state(system, obedient):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")

    def half_change(actor: Any) -> None:
        actor.seen.append("half")
        raise Boom("boom")

    with pytest.raises(Boom):
        ref.ask(half_change, timeout=30)
    assert ref.ask(lambda actor: actor.seen, timeout=30) == []


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()])
def test_02_a_base_exception_ends_one_actor_and_answers_its_asker(system, obedient, error):
    system.supervise(*(sup.ChildSpec(id, obedient) for id in "ab"))
    a, b = system.whereis("a"), system.whereis("b")
    lone = Obedient.start()
    with pytest.raises(sup.ActorDeadError):
        a.ask(raising(error), timeout=30)
    assert [each.ask("alive", timeout=30) for each in (a, b, lone)] == ["alive"] * 3
    assert b.name.epoch == 1
    lone.stop()


@pytest.mark.parametrize("error", [Boom("no"), SystemExit(1)])
def test_03_a_failed_on_start_is_told_and_leaves_nothing(system, obedient, error):
    with pytest.raises(sup.StartFailedError):
        system.supervise(sup.ChildSpec("it", obedient, kwargs={"on_start": raising(error)}))
    assert pykka.ActorRegistry.get_all() == []
    assert system.whereis("it") is None


@pytest.mark.parametrize("error", [Boom("no"), SystemExit(1)])
def test_04_a_failing_on_failure_changes_nothing_about_the_end(system, obedient, error, crash):
    calls: list[int] = []

    class Failing(obedient):
        def on_failure(self, *args: Any) -> None:
            calls.append(1)
            raise error

    ref = started(system, Failing)
    over = exit_of(ref)
    ref.tell(crash)
    queued = ref.ask("queued", block=False)
    assert over.get(timeout=30).reason.type == "Boom"
    with pytest.raises(sup.ActorDeadError):
        queued.get(timeout=30)
    assert calls == [1]


@pytest.mark.parametrize("error", [Boom("no"), SystemExit(1)])
def test_04_a_failing_on_stop_runs_once_and_the_queue_is_answered(system, obedient, error):
    calls: list[int] = []

    def on_stop(actor: Any) -> None:
        calls.append(1)
        raise error

    ref = started(system, obedient, kwargs={"on_stop": on_stop})
    over = exit_of(ref)
    stopped = ref.stop(block=False)
    queued = ref.ask("behind the stop", block=False)
    assert stopped.get(timeout=30) is True
    assert over.get(timeout=30).reason.type == type(error).__name__
    with pytest.raises(sup.ActorDeadError):
        queued.get(timeout=30)
    assert calls == [1]


def test_05_a_refused_thread_is_a_failed_start(system, monkeypatch):
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("supervision-actor"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(sup.StartFailedError, match="can't start new thread"):
        system.supervise(sup.ChildSpec("it", ObedientThread))
    assert pykka.ActorRegistry.get_all() == []


def test_06_a_message_is_accepted_and_answered_or_refused_while_an_actor_ends(make_system, obedient):
    for _ in range(5):
        system = make_system()
        ref = started(system, obedient)
        futures: list[Any] = []
        sender = threading.Thread(target=lambda: futures.extend(ref.ask(n, block=False) for n in range(200)))  # noqa: B023
        sender.start()
        ref.stop(timeout=30)
        sender.join()
        for n, future in enumerate(futures):
            try:
                assert future.get(timeout=30) == n
            except sup.ActorDeadError:
                pass


def test_07_tells_that_nobody_handled_are_dead_letters(system, gate, eventually):
    ref = started(system, ObedientThread)
    ref.tell(lambda actor: gate.wait())
    ref.stop(block=False)
    for n in range(3):
        ref.tell(n)
    gate.set()
    eventually(lambda: ref.name.dead_letters == 3)
    assert system.tree().dead_letters == 3


def test_08_a_supervisors_stop_overtakes_the_queue_and_takes_the_subtree_along(system, gate, eventually):
    handle = system.supervise(sup.supervisor("mid", sup.ChildSpec("it", ObedientThread)))
    ref = system.whereis("mid/it")
    entered = threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    queued = ref.ask("queued", block=False)
    terminated = handle.terminate_child("mid")
    eventually(lambda: system.tree().children[0].children[0].state == "stopping")
    handle.which_children().get(timeout=30)  # by now the order has reached the child
    gate.set()
    assert terminated.get(timeout=30) == sup.Ok()
    with pytest.raises(sup.ActorDeadError):
        queued.get(timeout=30)


def test_09_the_replacement_starts_after_the_whole_end_so_that_a_port_is_free_again(system, crash):
    class Server(ObedientThread):
        def on_start(self) -> None:
            self.socket = socket.socket()
            self.socket.bind(("127.0.0.1", self.context.snapshot or 0))
            self.socket.listen()
            self.remember(self.socket.getsockname()[1])

        def on_failure(self, *args: Any) -> None:
            self.socket.close()

        def on_stop(self) -> None:
            self.socket.close()

    system.supervise(sup.ChildSpec("it", Server), max_restarts=20)
    ref = system.whereis("it")
    ports = set()
    for n in range(10):
        ports.add(ref.ask(lambda actor: actor.socket.getsockname()[1], timeout=30))
        if n % 2:
            ref.stop(timeout=30)
        else:
            ref.tell(crash)
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 11
    assert len(ports) == 1


def test_10_construction_and_start_run_on_the_childs_host_and_are_waited_for(system, obedient):
    where: list[str] = []

    class Telling(obedient):
        def __init__(self) -> None:
            super().__init__(on_start=lambda actor: where.append(threading.current_thread().name))
            where.append(threading.current_thread().name)

    system.supervise(sup.ChildSpec("it", Telling))
    assert len(where) == 2
    assert len(set(where)) == 1
    assert where[0] != threading.current_thread().name


def test_11_awaiting_never_blocks_the_loop_and_a_late_answer_never_raises(system, on_a_loop, gate):
    ref = started(system, ObedientThread)
    slow = ref.ask(lambda actor: gate.wait() and "slow", block=False)

    async def together():
        waiting = asyncio.ensure_future(_await(slow))
        await asyncio.sleep(0)
        gate.set()  # reached only if the loop is not blocked
        return await waiting

    assert on_a_loop(together()) == "slow"
    assert slow.settle("late") is False
    with pytest.raises(queue.Full):
        slow.set("again")


async def _await(future: Any) -> Any:
    return await future


def test_12_there_are_bounds_priorities_monitors_links_parents_and_systems(system, obedient):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", obedient, mailbox=sup.Mailbox(capacity=1))))
    (root,) = system.tree().children
    assert [child.path for child in root.children[0].children] == ["root/mid/it"]


def test_13_the_registry_has_constant_cost_and_stop_all_meets_the_roots_first(make_system, obedient):
    system = make_system()
    system.supervise(sup.ChildSpec("it", obedient))
    lone = Obedient.start()
    refs = pykka.ActorRegistry.get_all()
    assert isinstance(pykka.ActorRegistry._actor_refs, OrderedRefs)
    assert refs[-1].path == "root"
    restarts = system.whereis("it").name
    pykka.ActorRegistry.stop_all()
    assert pykka.ActorRegistry.get_all() == []
    assert restarts.epoch == 1
    assert not lone.is_alive()


def test_14_a_proxy_pins_no_dead_actor_and_an_unknown_attribute_is_an_error_without_a_crash(
    system, obedient, eventually
):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    proxy = ref.proxy()
    proxy.seen.get(timeout=30)
    former = weakref.ref(ref.name.incarnation.actor)
    ref.stop(timeout=30)  # it is permanent: another follows
    with pytest.raises(AttributeError):
        proxy.nothing_of_this_name.get(timeout=30)
    assert ref.name.epoch == 2
    eventually(lambda: gc.collect() >= 0 and former() is None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_15_in_a_forks_child_an_ask_fails_instead_of_hanging():
    ref = Obedient.start()
    child = os.fork()
    if child == 0:
        try:
            ref.ask("anybody?", timeout=30)
        except sup.ActorDeadError as error:
            os._exit(0 if error.reason == sup.ForkLost() and not ref.is_alive() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert ref.ask("alive", timeout=30) == "alive"
    ref.stop()


def test_16_asking_oneself_is_an_error_at_once(system, obedient):
    ref = started(system, obedient)
    with pytest.raises(sup.DeadlockError):
        ref.ask(lambda actor: ref.ask("never"), timeout=30)


def test_17_a_thread_that_waits_for_ever_is_left_behind_and_replaced(system):
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref = system.whereis("it")
    forever: queue.Queue[None] = queue.Queue()
    entered = threading.Event()
    stuck = ref.ask(lambda actor: entered.set() or forever.get(), block=False)
    assert entered.wait(30)
    system.kill(ref)
    with pytest.raises(sup.ActorStuck):
        stuck.get(timeout=30)
    assert ref.ask("the next life", timeout=30) == "the next life"
    forever.put(None)


def test_18_hosts_are_daemons_and_the_exit_hook_stops_what_is_left(system, obedient):
    """That it does so is tried with whole programs, in test_system.py."""
    system.supervise(sup.ChildSpec("it", obedient))
    ours = [thread for thread in threading.enumerate() if thread.name.startswith("supervision")]
    assert ours
    assert all(thread.daemon for thread in ours)
