"""The live view: read from the books, so that a stuck actor still shows."""

from __future__ import annotations

import threading

import pytest
from tree_rig import Boom, Obedient, ObedientThread, wait_for_timer

import supervision as sup


def test_the_tree_shows_who_is_there_and_what_they_do(timed, clock, gate, crash):
    timed.supervise(
        sup.supervisor("mid", sup.ChildSpec("stuck", ObedientThread), max_restarts=5),
        sup.ChildSpec("idle", Obedient),
        sup.ChildSpec("waits", Obedient, backoff=sup.Backoff(min=9.0, max=9.0, jitter=0.0)),
    )
    stuck = timed.whereis("mid/stuck")
    with pytest.raises(Boom):
        stuck.ask(crash, block=False).get(timeout=5)
    stuck.ask("up again", block=False).get(timeout=5)
    entered = threading.Event()
    stuck.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(5)
    stuck.tell("waiting")
    timed.whereis("waits").tell(crash)
    wait_for_timer(clock, 9.0)
    clock.advance(3.0)
    tree = timed.tree()
    (root,) = tree.children
    mid, idle, waits = root.children
    (node,) = mid.children
    assert (node.path, node.kind, node.state, node.busy_with, node.busy_for) == (
        "root/mid/stuck",
        "thread",
        "busy",
        "function",
        3.0,
    )
    assert (node.queue, node.queue_age, node.handled, node.failed, node.restarts, node.epoch) == (1, 3.0, 1, 1, 1, 2)
    assert node.last_exit.reason.type == "Boom"
    assert (idle.kind, idle.state, idle.uptime) == ("loop", "running", 3.0)
    assert (waits.state, waits.uptime) == ("restarting", None)
    assert (mid.kind, mid.window, root.window) == ("supervisor", (1, 5), (0, 3))
    drawn = str(tree)
    assert drawn.startswith("test0\n")
    assert "stuck" in drawn
    assert "restarting" in drawn
    clock.advance(6.0)


def test_a_terminated_child_is_shown_stopped_and_dead_letters_are_counted(system, obedient):
    handle = system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    handle.terminate_child("it").get(timeout=5)
    with pytest.raises(sup.ActorDeadError):
        ref.tell("nobody")
    tree = system.tree()
    assert [node.state for node in tree.children[0].children] == ["stopped"]
    assert tree.dead_letters == 1


def test_the_tree_of_a_stopped_system_is_bare(system):
    system.supervise(sup.ChildSpec("it", Obedient))
    system.stop()
    assert system.tree().children == ()


def test_monitors_and_debts_show(system):
    system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient))
    a, b = system.whereis("a"), system.whereis("b")
    a.ask(lambda actor: actor.monitor(b), timeout=5)
    future = b.ask(lambda actor: actor.owe() and None, block=False)
    b.ask("next", timeout=5)
    node = system.tree().children[0].children[1]
    assert (node.monitors, node.links, node.owed) == (1, 0, 1)
    assert not future.done
