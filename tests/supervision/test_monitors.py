"""Monitors and links: who hears of an end, and who shares it."""

from __future__ import annotations

import threading

import pytest
from tree_rig import Boom, Obedient, exit_of

import supervision as sup


@pytest.fixture
def pair(system, obedient):
    system.supervise(*(sup.ChildSpec(id, obedient, restart="temporary") for id in ("watcher", "watched")))
    return system.whereis("watcher"), system.whereis("watched")


def do(ref, function):
    return ref.ask(function, timeout=5)


def downs(ref):
    return [(each.token, each.ref.path, each.reason) for each in do(ref, lambda actor: list(actor.seen))]


def test_a_monitor_says_once_that_and_why_an_actor_has_ended(pair, crash, eventually):
    watcher, watched = pair
    token = do(watcher, lambda actor: actor.monitor(watched))
    watched.tell(crash)
    eventually(lambda: downs(watcher))
    ((heard, path, reason),) = downs(watcher)
    assert (heard, path, reason.type) == (token, "root/watched", "Boom")


def test_a_monitor_of_a_dead_actor_says_so_at_once(pair):
    watcher, watched = pair
    watched.stop(timeout=5)
    token = do(watcher, lambda actor: actor.monitor(watched))
    assert downs(watcher) == [(token, "root/watched", sup.NoProc())]


def test_a_monitor_that_was_taken_back_says_nothing(pair):
    watcher, watched = pair
    do(watcher, lambda actor: actor.demonitor(actor.monitor(watched)))
    watched.stop(timeout=5)
    assert downs(watcher) == []
    assert watcher.name.incarnation.at_end == {}


def test_taking_a_monitor_back_with_flush_removes_what_has_come_already(pair):
    watcher, watched = pair
    watched.stop(timeout=5)
    do(watcher, lambda actor: actor.demonitor(actor.monitor(watched), flush=True))
    assert downs(watcher) == []


def test_a_monitor_ends_with_its_life(pair, crash, eventually):
    watcher, watched = pair
    do(watcher, lambda actor: actor.monitor(watched))
    over = exit_of(watcher)
    watcher.tell(crash)
    over.get(timeout=5)
    eventually(lambda: watched.name.incarnation.monitors == {})


def test_a_full_mailbox_still_takes_a_down(system, crash, gate, eventually):
    from tree_rig import ObedientThread

    system.supervise(
        sup.ChildSpec("watcher", ObedientThread, mailbox=sup.Mailbox(capacity=1)),
        sup.ChildSpec("watched", Obedient, restart="temporary"),
    )
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    entered = threading.Event()
    watcher.tell(lambda actor: (actor.monitor(watched) and entered.set()) or gate.wait())
    assert entered.wait(5)
    watcher.tell("fills it")
    watched.stop(timeout=5)
    eventually(lambda: len(watcher.name.mailbox) == 2)
    gate.set()
    eventually(lambda: len(watcher.name.mailbox) == 0)
    assert isinstance(do(watcher, lambda actor: actor.seen[-1]), sup.Down)


def test_each_monitor_hears_once_while_actors_crash_and_are_watched_at_the_same_time(system):
    """A monitor set in the moment of an end heard of the next life's end, or of none."""
    system.supervise(sup.ChildSpec("watched", Obedient), sup.ChildSpec("watcher", Obedient), max_restarts=10_000)
    watched, watcher = system.whereis("watched"), system.whereis("watcher")
    heard: dict[int, list[int]] = {}

    def watch(actor):
        incarnation = watched.name.incarnation
        token = len(heard)
        heard[token] = []
        if incarnation is not None and (
            exit := incarnation.watch(-token, lambda exit: heard[token].append(exit.epoch))
        ):
            heard[token].append(exit.epoch)

    def crash(actor):
        raise Boom("boom")

    crashing = threading.Thread(target=lambda: [watched.ask(crash, block=False).on_done(int) for _ in range(200)])
    crashing.start()
    for _ in range(500):
        do(watcher, watch)
    crashing.join()
    do(watched, lambda actor: None)
    over = exit_of(watched)
    system.kill(watched)
    over.get(timeout=5)
    do(watched, lambda actor: None)
    assert all(len(epochs) <= 1 for epochs in heard.values())
    assert sum(len(epochs) for epochs in heard.values()) > 0


# -- links -----------------------------------------------------------------------------------------------


def test_a_crash_ends_whom_it_is_linked_with_and_an_orderly_end_does_not(pair, crash, eventually):
    one, other = pair
    do(one, lambda actor: actor.link(other))
    over = exit_of(one)
    other.tell(crash)
    assert over.get(timeout=5).reason.type == "LinkedExit"


def test_an_orderly_end_leaves_the_linked_alone(pair, eventually):
    one, other = pair
    do(one, lambda actor: actor.link(other))
    other.stop(timeout=5)
    eventually(lambda: one.name.incarnation.links == {})
    assert do(one, lambda actor: "alive") == "alive"


def test_who_traps_exits_is_told_instead(pair, crash, eventually):
    one, other = pair

    def trap_and_link(actor):
        actor.trap_exits = True
        actor.link(other)

    do(one, trap_and_link)
    other.tell(crash)
    eventually(lambda: do(one, lambda actor: list(actor.seen)))
    (exited,) = do(one, lambda actor: actor.seen)
    assert (exited.ref, exited.reason.type) == (other, "Boom")


def test_a_link_holds_both_ways_and_can_be_taken_back(pair, crash):
    one, other = pair
    do(one, lambda actor: actor.link(other))
    do(one, lambda actor: actor.unlink(other))
    assert one.name.incarnation.monitors == other.name.incarnation.monitors == {}
    do(one, lambda actor: actor.link(other))
    over = exit_of(other)
    one.tell(crash)
    assert over.get(timeout=5).reason.type == "LinkedExit"


def test_a_link_with_the_dead_is_an_error(pair):
    one, other = pair
    other.stop(timeout=5)
    with pytest.raises(sup.ActorDeadError):
        do(one, lambda actor: actor.link(other))
