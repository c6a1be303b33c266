"""Watching a name: every end and every start behind it, in order, each once."""

from __future__ import annotations

import contextlib
import threading
from types import SimpleNamespace

import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup
from supervision.monitors import NameWatch


@pytest.fixture
def make_pair(system, obedient):
    def make(**options):
        handle = system.supervise(
            sup.ChildSpec("watcher", Obedient), sup.ChildSpec("watched", obedient, **options), max_restarts=1_000_000
        )
        return handle, system.whereis("watcher"), system.whereis("watched")

    return make


def do(ref, function):
    return ref.ask(function, timeout=30)


def heard(watcher):
    """What has come: a reason for each Down, an epoch for each Up."""
    seen = do(watcher, lambda actor: list(actor.seen))
    return [each.reason if isinstance(each, sup.Down) else each.epoch for each in seen]


def watch(watcher, watched):
    return do(watcher, lambda actor: actor.watch_name(watched))


def end(system, ref):
    over = exit_of(ref)
    system.kill(ref)
    return over.get(timeout=30).reason


def test_a_watch_tells_of_each_end_and_each_new_start(system, make_pair, eventually):
    _, watcher, watched = make_pair()
    token = watch(watcher, watched)
    assert heard(watcher) == []
    reasons = []
    for epoch in (2, 3):
        reasons.append(end(system, watched))
        eventually(lambda epoch=epoch: len(heard(watcher)) == 2 * (epoch - 1))
    assert heard(watcher) == [reasons[0], 2, reasons[1], 3]
    assert {(each.token, each.ref) for each in do(watcher, lambda actor: list(actor.seen))} == {(token, watched)}


def test_a_failed_start_is_an_end_without_a_start(system, make_pair, eventually):
    starts = iter(range(100))

    def on_start(actor):
        if next(starts) == 1:
            raise Boom("once")

    _, watcher, watched = make_pair(kwargs={"on_start": on_start})
    watch(watcher, watched)
    reason = end(system, watched)
    eventually(lambda: len(heard(watcher)) == 3)
    first, failed, epoch = heard(watcher)
    assert (first, type(failed), epoch) == (reason, sup.StartFailed, 3)


def test_a_watch_of_a_name_where_nobody_is_says_so_at_once_and_goes_on(make_pair, eventually):
    handle, watcher, watched = make_pair()
    handle.terminate_child("watched").get(timeout=30)
    watch(watcher, watched)
    assert heard(watcher) == [sup.NoProc()]
    handle.restart_child("watched").get(timeout=30)
    eventually(lambda: heard(watcher) == [sup.NoProc(), 2])


def test_a_name_that_closes_is_heard_of_again_only_when_it_opens_again(make_pair, eventually):
    handle, watcher, watched = make_pair()
    watch(watcher, watched)
    spec = handle.get_childspec("watched").get(timeout=30)
    handle.terminate_child("watched").get(timeout=30)
    handle.delete_child("watched").get(timeout=30)
    eventually(lambda: heard(watcher) == [sup.Shutdown()])
    handle.start_child(spec).get(timeout=30)
    eventually(lambda: len(heard(watcher)) == 2)
    assert heard(watcher) == [sup.Shutdown(), watched.name.epoch]


def test_a_watch_that_was_taken_back_says_nothing_and_leaves_nothing(system, make_pair, eventually):
    _, watcher, watched = make_pair()
    token = watch(watcher, watched)
    do(watcher, lambda actor: actor.demonitor(token))
    end(system, watched)
    do(watched, lambda actor: None)
    assert heard(watcher) == []
    assert watched.name.watchers == watcher.name.incarnation.at_end == {}


def test_taking_a_watch_back_with_flush_removes_what_has_come(system, make_pair):
    handle, watcher, watched = make_pair()
    handle.terminate_child("watched").get(timeout=30)
    do(watcher, lambda actor: actor.demonitor(actor.watch_name(watched), flush=True))
    assert heard(watcher) == []


def test_a_watch_ends_with_the_life_that_set_it(system, make_pair):
    _, watcher, watched = make_pair()
    watch(watcher, watched)
    end(system, watcher)
    do(watcher, lambda actor: None)
    assert watched.name.watchers == {}
    end(system, watched)
    do(watched, lambda actor: None)
    assert heard(watcher) == []


def test_the_outside_refs_of_pykka_cannot_be_watched(system, make_pair):
    _, watcher, _ = make_pair()
    for function in ("watch_name", "monitor", "link", "unlink"):
        with pytest.raises(TypeError, match=r"no supervision\.ActorRef"):
            do(watcher, lambda actor, function=function: getattr(actor, function)(object()))


@pytest.mark.parametrize("watched_class", [Obedient, ObedientThread])
def test_nothing_is_missed_or_doubled_however_a_watch_and_a_restart_meet(system, watched_class, eventually):
    """Each watch hears all that has happened from some moment on, and a NoProc before if nobody was there then."""
    happened = []
    system.events.subscribe(lambda event: happened.append((event.name, event.path, event.epoch)))
    system.supervise(
        sup.ChildSpec("watcher", Obedient), sup.ChildSpec("watched", watched_class), max_restarts=1_000_000
    )
    watcher, watched = system.whereis("watcher"), system.whereis("watched")
    stop, crash = threading.Event(), raising(Boom("boom"))

    def keep_crashing():
        while not stop.is_set():
            with contextlib.suppress(Boom, sup.ActorDeadError):
                watched.ask(crash, timeout=30)
            system.kill(watched)

    crashing = threading.Thread(target=keep_crashing)
    crashing.start()
    try:
        tokens = []
        while watched.name.epoch < 60 and len(tokens) < 1000:
            tokens.append(watch(watcher, watched))
            for _ in range(10):
                do(watcher, lambda actor: None)
    finally:
        stop.set()
        crashing.join()
    eventually(lambda: watched.name.incarnation is not None and watched.name.incarnation.state == "running")
    do(watched, lambda actor: None)
    last = watched.name.epoch
    eventually(lambda: ("child_started", "root/watched", last) in happened)
    started = {epoch for name, path, epoch in happened if (name, path) == ("child_started", "root/watched")}
    expected = [
        news
        for epoch in range(1, last + 1)
        for news in ((epoch,) if epoch in started else ()) + (("down",) if epoch < last else ())
    ]

    def heard_by_each():
        news = {token: [] for token in tokens}
        for each in do(watcher, lambda actor: list(actor.seen)):
            is_first_noproc = isinstance(each, sup.Down) and each.reason == sup.NoProc() and not news[each.token]
            if not is_first_noproc:
                news[each.token].append("down" if isinstance(each, sup.Down) else each.epoch)
        return list(news.values())

    eventually(lambda: all(news[-1:] in ([], [last]) for news in heard_by_each()))
    for news in heard_by_each():
        assert news == expected[len(expected) - len(news) :]
    assert max(len(news) for news in heard_by_each()) > 10


class Watcher:
    """In the place of a watcher's life: keeps what it is told, after whatever happens in that moment."""

    exit = None

    def __init__(self):
        self.at_end = {}
        self.news = []
        self.meanwhile = []

    def when_over(self, token, cleanup):
        self.at_end[token] = cleanup

    def tell(self, message, is_wanted):
        while self.meanwhile:
            self.meanwhile.pop()()
        self.news.append("down" if isinstance(message, sup.Down) else message.epoch)


def life(epoch, is_acknowledged=True):
    return SimpleNamespace(epoch=epoch, is_acknowledged=is_acknowledged, exit=None)


def watch_of(present, last=None):
    """A watch that begins with this life and this last exit, and its watcher."""
    watcher, name = Watcher(), SimpleNamespace(watchers={}, incarnation=present, last_exit=last)
    watch = NameWatch(watcher, "ref", name, 1)
    watch.begin()
    return watch, watcher


ENDED = SimpleNamespace(epoch=1, reason=sup.Normal())


def test_an_end_that_is_reported_after_the_watch_found_nobody_is_the_same_end():
    watch, watcher = watch_of(None, ENDED)
    watch.ended(life(1), ENDED)
    assert watcher.news == ["down"]


def test_an_end_that_is_reported_twice_is_told_once():
    one = life(1)
    watch, watcher = watch_of(one)
    watch.ended(one, ENDED)
    watch.ended(one, ENDED)
    assert watcher.news == ["down"]


def test_an_end_that_is_reported_after_the_next_start_and_end_is_told_before_them_and_once():
    """Its successor may be started while the thread that reports the end is kept waiting."""
    one, two = life(1), life(2)
    watch, watcher = watch_of(one)
    name = watch._name
    name.last_exit, name.incarnation = ENDED, two
    watch.started(two)
    name.last_exit = SimpleNamespace(epoch=2, reason=sup.Normal())
    watch.ended(two, name.last_exit)
    watch.ended(one, ENDED)
    assert watcher.news == ["down", 2, "down"]


def test_an_end_before_the_watch_is_no_news():
    watch, watcher = watch_of(life(2, is_acknowledged=False), ENDED)
    watch.started(life(2))
    assert watcher.news == [2]


def test_a_start_that_is_reported_after_its_end_is_told_before_it_and_once():
    """An abandonment may overtake the thread that is about to report the start."""
    watch, watcher = watch_of(None, ENDED)
    two = life(2)
    watch.ended(two, ENDED)
    watch.started(two)
    assert watcher.news == ["down", 2, "down"]


def test_what_happens_while_the_watcher_is_told_is_told_afterwards():
    one, two = life(1), life(2)
    watch, watcher = watch_of(one)
    watcher.meanwhile.append(lambda: watch.started(two))
    watch.ended(one, ENDED)
    assert watcher.news == ["down", 2]
