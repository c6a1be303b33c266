"""Links: a crash of either end ends the other, once; an orderly end does not."""

from __future__ import annotations

import threading

import pytest
from tree_rig import HOSTS, Boom, Obedient, ObedientThread, exit_of, raising

import supervision as sup


@pytest.fixture(params=[("loop", "thread"), ("thread", "loop"), ("loop", "loop"), ("thread", "thread")])
def pair(request, system):
    """Two temporary actors on all pairs of hosts."""
    system.supervise(
        *(sup.ChildSpec(id, HOSTS[host], restart="temporary") for id, host in zip("ab", request.param, strict=True))
    )
    return system.whereis("a"), system.whereis("b")


@pytest.fixture
def chain(system, obedient):
    system.supervise(*(sup.ChildSpec(id, obedient, restart="temporary") for id in "abc"))
    return [system.whereis(id) for id in "abc"]


def do(ref, function):
    return ref.ask(function, timeout=30)


def link(one, other):
    do(one, lambda actor: actor.link(other))


def crash_of(over):
    reason = over.get(timeout=30).reason
    return (reason.type, reason.message)


@pytest.mark.parametrize("by", ["crash", "kill"])
@pytest.mark.parametrize("first", [0, 1])
def test_an_abnormal_end_of_either_ends_the_other(system, pair, first, by):
    one, other = pair[first], pair[1 - first]
    link(*pair)
    over = exit_of(other)
    one.tell(raising(Boom("boom"))) if by == "crash" else system.kill(one)
    kind, message = crash_of(over)
    assert kind == "LinkedExit"
    assert message.startswith(f"{one.path} ended: ")


@pytest.mark.parametrize("first", [0, 1])
def test_an_orderly_end_of_either_leaves_the_other_alone_and_without_a_link(pair, first, eventually):
    one, other = pair[first], pair[1 - first]
    link(*pair)
    one.stop(timeout=30)
    eventually(lambda: other.name.incarnation.links == {})
    assert do(other, lambda actor: "alive") == "alive"
    assert other.name.incarnation.monitors == {}


@pytest.mark.parametrize("order", [lambda ref: ref.stop(timeout=30), lambda ref: ref.tell(raising(Boom("boom")))])
@pytest.mark.parametrize("first", [0, 1])
def test_who_traps_exits_hears_of_both_kinds_of_end_on_either_side(pair, first, order, eventually):
    one, other = pair[first], pair[1 - first]
    do(other, lambda actor: setattr(actor, "trap_exits", True))
    link(*pair)
    over = exit_of(one)
    order(one)
    reason = over.get(timeout=30).reason
    eventually(lambda: do(other, lambda actor: list(actor.seen)) == [sup.Exited(one, reason)])


def test_a_chain_goes_down_once_each(chain):
    a, b, c = chain
    link(a, b)
    link(b, c)
    ends = []
    for ref in chain:
        ref.name.incarnation.watch("test", ends.append)
    overs = [exit_of(ref) for ref in chain]
    a.tell(raising(Boom("boom")))
    assert overs[0].get(timeout=30).reason.type == "Boom"
    assert crash_of(overs[1])[1].startswith("root/a ended: ")
    assert crash_of(overs[2])[1].startswith("root/b ended: ")
    assert sorted(exit.path for exit in ends) == ["root/a", "root/b", "root/c"]


def test_a_ring_of_links_goes_down_once_each(chain):
    for one, other in zip(chain, [*chain[1:], chain[0]], strict=True):
        link(one, other)
    overs = [exit_of(ref) for ref in chain]
    chain[1].tell(raising(Boom("boom")))
    assert [over.get(timeout=30).reason.type for over in overs] == ["LinkedExit", "Boom", "LinkedExit"]


def test_a_link_with_oneself_is_none(chain):
    a, _, _ = chain
    link(a, a)
    do(a, lambda actor: actor.unlink(a))
    assert a.name.incarnation.links == a.name.incarnation.monitors == {}


def test_a_link_twice_is_a_link_once(chain):
    a, b, _ = chain
    link(a, b)
    link(a, b)
    link(b, a)
    assert len(a.name.incarnation.links) == len(a.name.incarnation.monitors) == 1
    do(b, lambda actor: actor.unlink(a))
    assert [ref.name.incarnation.links or ref.name.incarnation.monitors for ref in (a, b)] == [{}, {}]


def test_a_link_that_was_taken_back_by_either_holds_no_more(pair):
    a, b = pair
    link(a, b)
    do(b, lambda actor: actor.unlink(a))
    over = exit_of(b)
    b.tell(raising(Boom("boom")))
    over.get(timeout=30)
    assert do(a, lambda actor: "alive") == "alive"


def test_a_link_with_the_dead_is_refused_with_the_reason_of_its_end(chain):
    a, b, _ = chain
    over = exit_of(b)
    b.tell(raising(Boom("boom")))
    over.get(timeout=30)

    def try_to_link(actor):
        with pytest.raises(sup.ActorDeadError, match="root/b") as refused:
            actor.link(b)
        return refused.value.reason.type

    assert do(a, try_to_link) == "Boom"


def test_a_new_life_has_none_of_the_links_of_the_old(system, obedient):
    system.supervise(sup.ChildSpec("a", obedient), sup.ChildSpec("b", obedient), max_restarts=10)
    a, b = system.whereis("a"), system.whereis("b")
    link(a, b)
    overs = [exit_of(ref) for ref in (a, b)]
    a.tell(raising(Boom("boom")))
    for over in overs:
        over.get(timeout=30)
    for ref in (a, b):
        do(ref, lambda actor: None)
        assert (ref.name.epoch, ref.name.incarnation.links) == (2, {})
    over = exit_of(a)
    a.tell(raising(Boom("boom")))
    over.get(timeout=30)
    do(a, lambda actor: None)
    assert (a.name.epoch, b.name.epoch) == (3, 2)


def test_links_that_are_made_from_both_sides_while_actors_crash_leave_nothing(system):
    """Made from both sides at once a link had two watches, of which `unlink` took one back."""
    system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", ObedientThread), max_restarts=1_000_000)
    a, b = system.whereis("a"), system.whereis("b")

    def tie_and_untie(own, other):
        def message(actor):
            try:
                actor.link(other)
            except sup.ActorDeadError:
                return
            actor.unlink(other)

        for _ in range(300):
            own.ask(message, block=False).on_done(int)

    threads = [threading.Thread(target=tie_and_untie, args=each) for each in ((a, b), (b, a))]
    for thread in threads:
        thread.start()
    for _ in range(20):
        over = exit_of(a)
        system.kill(a)
        over.get(timeout=30)
        do(a, lambda actor: None)
    for thread in threads:
        thread.join()
    for ref in (a, b):
        do(ref, lambda actor: None)
    assert [(ref.name.incarnation.links, ref.name.incarnation.monitors) for ref in (a, b)] == [({}, {}), ({}, {})]


def test_an_end_that_is_on_its_way_when_the_link_is_taken_back_is_nothing_to_the_other(chain):
    a, b, _ = chain
    do(a, lambda actor: setattr(actor, "trap_exits", True))
    link(a, b)
    one, other = a.name.incarnation, b.name.incarnation
    tie = one.links[other]
    do(a, lambda actor: actor.unlink(b))
    tie.ended(one, other, sup.Exit(b.path, 1, sup.Killed(), 0.0))
    assert do(a, lambda actor: list(actor.seen)) == []
