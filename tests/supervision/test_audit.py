"""Each fault that a book-keeping can have is found where it is planted; where none is, none is found."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, raising

import supervision as sup
from supervision.mailbox import Envelope, Lease


@pytest.fixture
def tree(system):
    """A system of one worker below a supervisor, which is `it`, found sound before."""
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)))
    ref = system.whereis("mid/it")
    ref.ask("ready", timeout=30)
    assert system.audit() == []
    mid = system.whereis("mid").name
    return SimpleNamespace(system=system, ref=ref, name=ref.name, life=ref.name.incarnation, mid=mid,
                           shell=mid.incarnation.actor.shell)  # fmt: skip


def planted(tree, *, why, path="root/mid/it"):
    """The only finding; `why` is part of what it says."""
    (found,) = tree.system.audit()
    assert found.path == path
    assert why in found.why


def test_an_orphan_whose_supervisor_does_not_know_it(tree):
    life = tree.shell.live.pop("it")
    planted(tree, why="orphan: it lives, and its supervisor does not know it")
    tree.shell.live["it"] = life


def test_an_orphan_whose_supervisor_is_gone(tree):
    life, tree.mid.incarnation = tree.mid.incarnation, None
    lease, tree.mid.mailbox.lease = tree.mid.mailbox.lease, None
    ref = tree.mid.ref
    pykka.ActorRegistry.unregister(ref)
    planted(tree, why="orphan: it lives, and its supervisor does not")
    tree.mid.incarnation, tree.mid.mailbox.lease = life, lease
    pykka.ActorRegistry.register(ref)


def test_a_root_that_the_system_does_not_know(tree):
    (root,) = tree.system.roots
    tree.system.roots.clear()
    planted(tree, why="orphan: the system does not know this root", path="root")
    tree.system.roots.append(root)


def test_an_open_name_behind_which_nobody_will_ever_be(tree):
    tree.system.names.open("root/mid/ghost", Obedient)
    planted(tree, why="its name is open, and nobody will ever be behind it", path="root/mid/ghost")
    tree.system.names.close(tree.system.names.known("root/mid/ghost"), sup.Shutdown(), forgotten=True)


def test_a_closed_name_whose_actor_lives(tree):
    tree.name.mailbox.closed = sup.Shutdown()
    planted(tree, why="its name is closed, and it lives")
    tree.name.mailbox.reopen()


def test_messages_that_wait_behind_a_closed_name(tree):
    tree.shell.system.whereis("mid").terminate_child("it").get(timeout=30)
    assert tree.system.audit() == []
    tree.name.mailbox._user.append(Envelope("nobody"))
    planted(tree, why="1 messages wait that nobody will answer")
    tree.name.mailbox._user.clear()


def test_a_second_lease(tree):
    lease, tree.name.mailbox.lease = tree.name.mailbox.lease, Lease(2)
    planted(tree, why="double lease")
    tree.name.mailbox.lease = lease


def test_a_lease_lost(tree):
    lease, tree.name.mailbox.lease = tree.name.mailbox.lease, None
    planted(tree, why="may not take its messages")
    tree.name.mailbox.lease = lease


def test_a_lease_of_nobody(tree):
    tree.shell.system.whereis("mid").terminate_child("it").get(timeout=30)
    tree.name.mailbox.lease = Lease(1)
    planted(tree, why="nobody is behind it, and somebody may take its messages")
    tree.name.mailbox.lease = None


def test_two_lives_under_one_name(tree):
    life = tree.shell.live["it"]
    tree.shell.live["it"] = SimpleNamespace(epoch=7, incarnation=SimpleNamespace(exit=None, name=tree.name))
    planted(tree, why="two lives: its supervisor knows incarnation 7, and behind the name is 1")
    tree.shell.live["it"] = life


def test_a_dead_one_behind_its_name(tree):
    tree.shell.system.whereis("mid").terminate_child("it").get(timeout=30)
    tree.name.incarnation = tree.life
    planted(tree, why="it is dead, and still behind its name")
    tree.name.incarnation = None


def test_a_dead_one_that_its_supervisor_takes_for_alive(tree):
    life = tree.shell.live["it"]
    tree.shell.system.whereis("mid").terminate_child("it").get(timeout=30)
    tree.shell.live["it"] = life
    planted(tree, why="its supervisor takes it for alive")
    del tree.shell.live["it"]


@pytest.fixture
def zombie(system, gate, eventually):
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref, entered = system.whereis("it"), threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    system.kill(ref)
    (zombie,) = eventually(lambda: system.zombies[:])
    eventually(lambda: (node := system.tree().find("it")).epoch == 2 and node.state == "running")
    assert system.audit() == []
    yield SimpleNamespace(system=system, life=zombie, name=ref.name)
    gate.set()
    eventually(lambda: system.zombies == [])


def test_an_unanswered_debt_of_an_ended_incarnation(zombie):
    reply = object()
    zombie.life.work.owed.add(reply)
    planted(zombie, why="1 replies that it owed are not answered", path="root/it")
    zombie.life.work.owed.clear()


def test_an_unanswered_ask_in_the_hands_of_an_ended_incarnation(zombie):
    zombie.life.work.leave(Envelope("ask", sup.AskFuture()), Boom("never told"))
    planted(zombie, why="1 messages in its hands are not answered", path="root/it")
    zombie.life.work._pending.clear()


def test_a_timer_of_an_ended_incarnation(zombie):
    zombie.life.at_end["timer"] = lambda: None
    planted(zombie, why="1 timers or monitors of it are still held", path="root/it")
    zombie.life.at_end.clear()


def test_a_zombie_with_a_lease(zombie):
    lease, own = zombie.name.mailbox.lease, zombie.life.lease
    zombie.life.lease = lease
    planted(zombie, why="a zombie may still take messages", path="root/it")
    zombie.life.lease = own


def test_a_zombie_whose_code_has_ended(zombie):
    zombie.life.has_code_running = False
    planted(zombie, why="listed as a zombie, and its code has ended", path="root/it")
    zombie.life.has_code_running = True


def test_a_timer_that_a_supervisor_holds_for_a_dead_incarnation(tree):
    tree.shell.timers["stop", "it", 0] = (SimpleNamespace(cancel=lambda: None), 0.0)
    planted(tree, why="a timer (stop) is held for a dead incarnation")
    tree.shell.timers.clear()


def test_a_stale_entry_of_pykkas_registry(tree):
    tree.shell.system.whereis("mid").terminate_child("it").get(timeout=30)
    pykka.ActorRegistry.register(tree.ref)
    planted(tree, why="it is in Pykka's registry, and dead")
    pykka.ActorRegistry.unregister(tree.ref)


def test_a_stale_entry_of_the_systems_registry(tree, monkeypatch):
    found = sup.Finding("root/mid/it", "still registered under 'key'")
    monkeypatch.setattr(tree.system.registry, "stale", lambda: [found])
    planted(tree, why="still registered under 'key'")


def test_nothing_is_found_while_ten_actors_crash_and_restart_all_the_time(make_system, eventually):
    system = make_system()
    workers = [
        sup.ChildSpec(f"it{number}", Obedient if number % 2 else ObedientThread, on_exhausted=sup.ESCALATE)
        for number in range(10)
    ]
    system.supervise(sup.supervisor("mid", *workers, max_restarts=10**6))
    refs, over = [system.whereis(f"mid/it{number}") for number in range(10)], threading.Event()

    def disturb() -> None:
        while not over.wait(0.002):
            for ref in refs:
                ref.tell(raising(Boom("again")))

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        found = []
        eventually(lambda: found.append(system.audit()) or sum(ref.name.restarts for ref in refs) > 1000, timeout=100)
    finally:
        over.set()
        disturber.join(30)
    assert [each for each in found if each] == []
    assert len(found) > 10


def test_nothing_is_found_while_a_supervisor_and_its_children_wait_for_a_restart(timed, clock, eventually):
    waiting = sup.Backoff(min=9.0, max=9.0, jitter=0.0)
    timed.supervise(
        sup.ChildSpec("mid", sup.Supervisor, args=(sup.ChildSpec("it", Obedient),), kwargs={"max_restarts": 0},
                      kind="supervisor", backoff=waiting),
        sup.ChildSpec("it", Obedient, backoff=waiting),
    )  # fmt: skip
    for path in ("it", "mid/it"):
        timed.whereis(path).tell(raising(Boom("boom")))
    eventually(lambda: {node.state for node in timed.tree().children[0].children} == {"restarting"})
    assert timed.audit() == []
    clock.advance(9.0)
    eventually(lambda: timed.tree().find("mid/it").state == "running")


def test_what_a_handler_sees_is_told_at_once(system):
    """It must not wait: it would stop its scheduler."""
    system.supervise(sup.ChildSpec("it", Obedient))
    assert system.whereis("it").ask(lambda actor: system.audit(), timeout=30) == []
