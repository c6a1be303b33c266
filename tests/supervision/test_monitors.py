"""Monitors: who hears of an end."""

from __future__ import annotations

import contextlib
import threading

import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup


@pytest.fixture
def pair(system, obedient):
    system.supervise(*(sup.ChildSpec(id, obedient, restart="temporary") for id in ("watcher", "watched")))
    return system.whereis("watcher"), system.whereis("watched")


def do(ref, function):
    return ref.ask(function, timeout=30)


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
    watched.stop(timeout=30)
    token = do(watcher, lambda actor: actor.monitor(watched))
    assert downs(watcher) == [(token, "root/watched", sup.NoProc())]


def test_a_monitor_that_was_taken_back_says_nothing(pair):
    watcher, watched = pair
    do(watcher, lambda actor: actor.demonitor(actor.monitor(watched)))
    watched.stop(timeout=30)
    assert downs(watcher) == []
    assert watcher.name.incarnation.at_end == {}


def test_taking_a_monitor_back_with_flush_removes_what_has_come_already(pair):
    watcher, watched = pair
    watched.stop(timeout=30)
    do(watcher, lambda actor: actor.demonitor(actor.monitor(watched), flush=True))
    assert downs(watcher) == []


def test_a_monitor_ends_with_its_life(pair, crash, eventually):
    watcher, watched = pair
    do(watcher, lambda actor: actor.monitor(watched))
    over = exit_of(watcher)
    watcher.tell(crash)
    over.get(timeout=30)
    eventually(lambda: watched.name.incarnation.monitors == {})


def test_a_full_mailbox_still_takes_a_down(system, crash, gate, eventually):
    system.supervise(
        sup.ChildSpec("watcher", ObedientThread, mailbox=sup.Mailbox(capacity=1)),
        sup.ChildSpec("watched", Obedient, restart="temporary"),
    )
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    entered = threading.Event()
    watcher.tell(lambda actor: (actor.monitor(watched) and entered.set()) or gate.wait())
    assert entered.wait(30)
    watcher.tell("fills it")
    watched.stop(timeout=30)
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
    over.get(timeout=30)
    do(watched, lambda actor: None)
    assert all(len(epochs) <= 1 for epochs in heard.values())
    assert sum(len(epochs) for epochs in heard.values()) > 0


def test_a_monitor_on_every_kind_of_host_hears_of_every_kind_of_end(system, eventually):
    """The watcher and the watched on either host; the end orderly, by a crash, by an outside hand."""
    ends = {"stop": lambda ref: ref.stop(timeout=30), "crash": lambda ref: ref.tell(boom), "kill": system.kill}
    boom = raising(Boom("boom"))
    hosts = {"loop": Obedient, "thread": ObedientThread}
    system.supervise(
        *(sup.ChildSpec(f"watcher-{host}", actor) for host, actor in hosts.items()),
        *(sup.ChildSpec(f"{host}-{end}", actor, restart="temporary") for host, actor in hosts.items() for end in ends),
    )
    watchers = [system.whereis(f"watcher-{host}") for host in hosts]
    for watched in [system.whereis(f"{host}-{end}") for host in hosts for end in ends]:
        tokens = [do(watcher, lambda actor, watched=watched: actor.monitor(watched)) for watcher in watchers]
        over = exit_of(watched)
        ends[watched.path.rpartition("-")[2]](watched)
        reason = over.get(timeout=30).reason
        for watcher, token in zip(watchers, tokens, strict=True):
            eventually(lambda w=watcher, t=token, p=watched.path, r=reason: downs(w)[-1:] == [(t, p, r)])
    assert [len(downs(watcher)) for watcher in watchers] == [6, 6]
    assert [watcher.name.incarnation.at_end for watcher in watchers] == [{}, {}]


def test_a_monitor_of_a_closed_name_says_so_at_once(system, obedient):
    handle = system.supervise(sup.ChildSpec("watcher", obedient), sup.ChildSpec("watched", obedient))
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    handle.terminate_child("watched").get(timeout=30)
    handle.delete_child("watched").get(timeout=30)
    token = do(watcher, lambda actor: actor.monitor(watched))
    assert downs(watcher) == [(token, "root/watched", sup.NoProc())]
    assert watcher.name.incarnation.at_end == {}


def test_a_monitor_hears_of_the_life_it_was_set_on_and_of_no_other(system, obedient, crash, eventually):
    system.supervise(sup.ChildSpec("watcher", obedient), sup.ChildSpec("watched", obedient), max_restarts=10)
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    do(watcher, lambda actor: actor.monitor(watched))
    for _ in range(2):
        over = exit_of(watched)
        watched.tell(crash)
        over.get(timeout=30)
        do(watched, lambda actor: None)
    assert len(downs(watcher)) == 1


@pytest.mark.parametrize("watcher_class", [Obedient, ObedientThread])
def test_two_thousand_monitors_hear_once_each_while_their_targets_crash(system, watcher_class, eventually):
    """Some ends came while `monitor` was at work; what it then noted for the watcher's own end was never taken out."""
    targets = 4
    system.supervise(
        sup.ChildSpec("watcher", watcher_class),
        *(sup.ChildSpec(f"t{n}", (Obedient, ObedientThread)[n % 2]) for n in range(targets)),
        max_restarts=1_000_000,
    )
    watcher, refs = system.whereis("watcher"), [system.whereis(f"t{n}") for n in range(targets)]
    stop = threading.Event()

    def keep_killing(ref):
        while not stop.is_set():
            system.kill(ref)
            with contextlib.suppress(sup.ActorDeadError):
                ref.ask(lambda actor: None, timeout=30)

    def monitor_all(actor):
        return [actor.monitor(ref) for ref in refs for _ in range(10)]

    threads = [threading.Thread(target=keep_killing, args=(ref,)) for ref in refs]
    for thread in threads:
        thread.start()
    try:
        tokens = []
        for _ in range(50):
            tokens += do(watcher, monitor_all)
            target = min(ref.name.epoch for ref in refs) + 1
            eventually(lambda target=target: max(ref.name.epoch for ref in refs) >= target)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for ref in refs:
        do(ref, lambda actor: None)
        over = exit_of(ref)
        system.kill(ref)
        over.get(timeout=30)
    eventually(lambda: len(downs(watcher)) >= len(tokens))
    assert sorted(token for token, _, _ in downs(watcher)) == sorted(tokens)
    assert len(tokens) == 2000
    assert watcher.name.incarnation.at_end == {}


def test_no_down_comes_after_a_flush_however_it_meets_the_end(system):
    """A Down on its way from another thread came in behind the flush."""
    system.supervise(sup.ChildSpec("watcher", Obedient), sup.ChildSpec("watched", ObedientThread), max_restarts=10**6)
    watcher, watched = system.whereis("watcher"), system.whereis("watched")

    def monitor(actor):
        return actor.monitor(watched)

    for _ in range(150):
        token = do(watcher, monitor)
        over = exit_of(watched)
        killer = threading.Thread(target=system.kill, args=(watched,))
        killer.start()
        do(watcher, lambda actor, token=token: actor.demonitor(token, flush=True))
        came_before = len(downs(watcher))
        over.get(timeout=30)
        killer.join()
        do(watched, lambda actor: None)
        assert len(downs(watcher)) == came_before


def test_a_watcher_that_restarts_hears_nothing_of_what_its_former_life_watched(system, obedient, crash):
    system.supervise(sup.ChildSpec("watcher", obedient), sup.ChildSpec("watched", obedient), max_restarts=10)
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    do(watcher, lambda actor: actor.monitor(watched))
    for ref in (watcher, watched):
        over = exit_of(ref)
        ref.tell(crash)
        over.get(timeout=30)
        do(ref, lambda actor: None)
    assert downs(watcher) == []


def test_an_end_in_the_midst_of_monitoring_is_told_once_and_leaves_nothing(system, pair, monkeypatch):
    _, watched = pair
    incarnation = watched.name.incarnation
    watch = incarnation.watch

    def watch_and_die(token, report):
        found = watch(token, report)
        if token != -1:  # that of exit_of
            over = exit_of(watched)
            system.kill(watched)
            over.get(timeout=30)
        return found

    monkeypatch.setattr(incarnation, "watch", watch_and_die)
    system.supervise(sup.ChildSpec("third", ObedientThread))
    third = system.whereis("third")  # in a thread, so that it may wait for the end
    token = do(third, lambda actor: actor.monitor(watched))
    assert [(heard, path) for heard, path, _ in downs(third)] == [(token, "root/watched")]
    assert third.name.incarnation.at_end == {}
