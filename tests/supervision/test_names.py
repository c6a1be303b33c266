"""Names and refs: what stays when an incarnation goes."""

from __future__ import annotations

import gc
import os
import weakref

import pykka
import pytest
from tree_rig import Obedient, ObedientThread

import supervision as sup
from supervision.testing import ManualClock


def test_a_ref_survives_a_restart(system, obedient, crash):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    ref.tell(crash)
    assert ref.ask("hello", timeout=30) == "hello"
    assert ref is system.whereis("it")
    assert ref.is_alive()


def test_a_closed_name_refuses_at_once_and_nobody_finds_it(system, obedient):
    handle = system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    handle.terminate_child("it").get(timeout=30)
    assert system.whereis("it") is None
    assert not ref.is_alive()
    with pytest.raises(sup.ActorDeadError):
        ref.ask("hello")
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("hello")
    assert ref.name.dead_letters == system.dead_letters == 1


@pytest.mark.parametrize("forget", [False, True])
def test_a_ref_works_again_when_its_name_reopens(system, obedient, forget):
    spec = sup.ChildSpec("it", obedient)
    handle = system.supervise(spec)
    ref = system.whereis("it")
    handle.terminate_child("it").get(timeout=30)
    if forget:
        assert handle.delete_child("it").get(timeout=30) == sup.Ok()
        assert isinstance(handle.start_child(spec).get(timeout=30), sup.Started)
    else:
        assert isinstance(handle.restart_child("it").get(timeout=30), sup.Started)
    assert ref.ask("again", timeout=30) == "again"
    assert ref is system.whereis("it")
    assert ref.ask(lambda actor: actor.context.epoch, timeout=30) == 2


def test_a_forgotten_name_that_nobody_holds_is_gone(system, eventually):
    handle = system.supervise()
    handle.start_child(sup.ChildSpec("it", Obedient, restart="temporary")).get(timeout=30)
    name = weakref.ref(system.whereis("it").name)
    handle.terminate_child("it").get(timeout=30)
    handle.which_children().get(timeout=30)
    # The thread it lived on, or one that looks, may just be letting go of it.
    eventually(lambda: gc.collect() is not None and name() is None)


def test_whereis_knows_ids_paths_and_supervisors(system):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("worker", Obedient)), sup.ChildSpec("top", Obedient))
    assert system.whereis("mid/worker").path == "root/mid/worker"
    assert system.whereis("root/top").path == "root/top"
    assert isinstance(system.whereis("mid"), sup.SupervisorHandle)
    assert system.whereis("worker") is None
    assert system.whereis("nobody") is None


def test_a_second_root_has_a_name_of_its_own(system):
    system.supervise(sup.ChildSpec("a", Obedient))
    second = system.supervise(sup.ChildSpec("b", Obedient))
    assert second.path == "root2"
    assert system.whereis("b").ask(1, timeout=30) == 1


def test_a_proxy_survives_a_restart(system, crash):
    class Counter(sup.Actor):
        n = 0

        def add(self, k: int) -> int:
            self.n += k
            return self.n

        def on_receive(self, message):
            return message(self)

    system.supervise(sup.ChildSpec("it", Counter))
    proxy = system.whereis("it").proxy()
    assert proxy.add(2).get(timeout=30) == 2
    assert proxy.n.get(timeout=30) == 2
    system.whereis("it").tell(crash)
    assert proxy.add(1).get(timeout=30) == 1
    with pytest.raises(AttributeError):
        proxy.no_such_attribute.get(timeout=30)
    assert proxy.actor_ref.name.epoch == 2


def test_a_thousand_crashes_leave_nothing_behind(make_system, eventually):
    clock = ManualClock()
    system = make_system(clock=clock)
    system.supervise(
        sup.ChildSpec("it", Obedient), sup.ChildSpec("watcher", Obedient), max_restarts=10_000, max_seconds=1.0
    )
    ref, watcher = system.whereis("it"), system.whereis("watcher")

    def crash_after_arranging(actor):
        actor.send_after(watcher, "never", 1000.0)
        actor.interval(watcher, "never", 1000.0)
        raise ValueError("boom")

    def books() -> list[int]:
        incarnation = watcher.name.incarnation
        return [
            len(system.names._names),
            len(incarnation.at_end),
            len(incarnation.monitors),
            len(clock.pending()),
            len(pykka.ActorRegistry.get_all()),
            len(system.supervisors.loop._scheduled),
            len(system.workers.loop._scheduled),
        ]

    def cycles(n: int) -> None:
        for _ in range(n):
            watcher.ask(lambda actor: actor.monitor(ref), block=False).get(timeout=30)
            with pytest.raises(ValueError):
                ref.ask(crash_after_arranging, block=False).get(timeout=30)

    cycles(10)
    ref.ask("settled", block=False).get(timeout=30)
    eventually(lambda: clock.pending() == [])
    eventually(lambda: not (system.supervisors.loop._scheduled or system.workers.loop._scheduled))
    before = books()
    cycles(990)
    ref.ask("settled", block=False).get(timeout=30)
    eventually(lambda: books() == before)
    assert ref.name.epoch == 1001
    former = weakref.ref(ref.name.incarnation)
    with pytest.raises(ValueError):
        ref.ask(crash_after_arranging, block=False).get(timeout=30)
    ref.ask("settled", block=False).get(timeout=30)
    eventually(lambda: gc.collect() is not None and former() is None)


# -- fork ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_in_a_forks_child_every_ref_is_dead_and_the_parent_goes_on(system, gate, obedient):
    system.supervise(sup.ChildSpec("it", obedient), sup.ChildSpec("busy", ObedientThread))
    ref, busy = system.whereis("it"), system.whereis("busy")
    pending = busy.ask(lambda actor: gate.wait(), block=False)
    queued = busy.ask("queued", block=False)
    child = os.fork()
    if child == 0:
        os._exit(_what_the_child_sees(system, ref, pending, queued))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    gate.set()
    assert queued.get(timeout=30) == "queued"
    assert ref.ask("alive", timeout=30) == "alive"


def _what_the_child_sees(system, ref, *asked) -> int:
    """0 if all is as it should be, else the number of the first thing that is not."""
    if ref.is_alive() or system.whereis("it") is not None or ref in pykka.ActorRegistry.get_all():
        return 1
    for number, future in enumerate([ref.ask("anybody?", block=False), *asked], 2):
        try:
            future.get(timeout=30)
        except sup.ActorDeadError as error:
            if error.reason != sup.ForkLost():
                return 10 + number
        except pykka.Timeout:
            return 20 + number
    try:
        system.supervise(sup.ChildSpec("new", Obedient))
    except sup.SystemClosed:
        pass
    system.stop()
    with sup.System("in the child") as own:
        own.supervise(sup.ChildSpec("new", Obedient))
        return 0 if own.whereis("new").ask(1, timeout=30) == 1 else 5


def test_no_path_sees_an_epoch_twice_though_nobody_remembers_who_lived_there(system, eventually):
    """A name that was forgotten with its last ref once began again at 1, beside a zombie of the first epoch 1."""
    calls = system.supervise(sup.ChildSpec("first", Obedient), sup.dynamic("pool"))
    pool = system.whereis("pool")
    epochs = []
    for _ in range(3):
        ref = pool.start_child(sup.ChildSpec("it", Obedient)).get(timeout=30).ref
        epochs.append((ref.path, ref.ask(lambda actor: actor.context.epoch)))
        assert pool.terminate_child(ref).get(timeout=30) == sup.Ok()
        del ref
        eventually(lambda: gc.collect() is not None and system.names.known("root/pool/it") is None)
    calls.restart_child("pool").get(timeout=30)
    assert len(set(epochs)) == 3
    assert [path for path, _ in epochs] == ["root/pool/it"] * 3
    assert system.names.last_epoch("root/pool/it") >= 3


def test_a_name_below_one_that_is_forgotten_too_never_begins_again(system):
    handle = system.supervise()
    for expected in (1, 2, 3):
        handle.start_child(sup.supervisor("mid", sup.ChildSpec("leaf", Obedient))).get(timeout=30)
        assert system.whereis("mid/leaf").ask(lambda actor: actor.context.epoch) >= expected
        handle.terminate_child("mid").get(timeout=30)
        handle.delete_child("mid").get(timeout=30)
        gc.collect()
    assert system.names.below("root") == []


def test_what_lies_below_a_name_is_found_without_looking_at_its_neighbours(system):
    """Closing ten thousand supervisors looked at all names ten thousand times."""
    names = system.names
    for path in ("root", "root/a", "root/a/b", "root/a/b/c", "root/a2", "root/a2/d"):
        names.open(path, Obedient)
    assert [name.path for name in names.below("root/a")] == ["root/a/b/c", "root/a/b"]
    assert {name.path for name in names.below("root")} == {"root/a", "root/a/b", "root/a/b/c", "root/a2", "root/a2/d"}
    for name in [*names.below("root"), names.known("root")]:
        names.close(name, sup.Normal(), forgotten=True)
    assert names.all() == []
