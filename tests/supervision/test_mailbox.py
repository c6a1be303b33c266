"""Mailboxes: order, bounds, and what becomes of messages when lives end."""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import Any

import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, started, wait_for_timer

import supervision as sup


@pytest.fixture
def busy(timed, gate):
    """Makes an actor with a mailbox that handles nothing before the gate opens."""

    def make(mailbox: sup.Mailbox, **options: Any) -> Any:
        ref = started(timed, ObedientThread, mailbox=mailbox, **options)
        entered = threading.Event()
        ref.tell(lambda actor: entered.set() or gate.wait())
        assert entered.wait(30)
        return ref

    return make


def seen(ref: Any) -> Any:
    return ref.ask(lambda actor: actor.seen, block=False).get(timeout=30)


def test_messages_of_one_sender_are_handled_in_order(system, obedient):
    ref = started(system, obedient)
    for n in range(1000):
        ref.tell(n)
    assert seen(ref) == list(range(1000))


def test_a_full_mailbox_answers_an_ask_and_counts_a_tell(busy, gate):
    ref = busy(sup.Mailbox(capacity=2))
    for n in range(3):
        ref.tell(n)
    with pytest.raises(sup.MailboxFull):
        ref.ask("no room", block=False).get(timeout=0)
    assert ref.name.dead_letters == 1
    gate.set()
    ref.stop(timeout=30)


def test_a_stop_is_never_refused_for_want_of_room(busy, gate):
    ref = busy(sup.Mailbox(capacity=1))
    ref.tell(1)
    stopped = ref.stop(block=False)
    gate.set()
    assert stopped.get(timeout=30) is True


@pytest.mark.parametrize(("policy", "kept"), [("fail", [0, 1]), ("drop_new", [0, 1]), ("drop_old", [3, 4])])
def test_what_a_full_mailbox_drops_is_its_policy(busy, gate, policy, kept):
    ref = busy(sup.Mailbox(capacity=2, overflow=policy))
    for n in range(5):
        ref.tell(n)
    assert ref.name.dead_letters == 3
    gate.set()
    exit = exit_of(ref)
    actor = ref.name.incarnation.actor
    ref.stop(timeout=30)
    exit.get(timeout=30)
    assert actor.seen == kept


def test_drop_old_never_drops_a_stop_and_answers_who_asked(busy, gate):
    ref = busy(sup.Mailbox(capacity=1, overflow="drop_old"))
    asked = ref.ask("the oldest", block=False)
    stopped = ref.stop(block=False)
    ref.tell("new")
    with pytest.raises(sup.MailboxFull):
        asked.get(timeout=0)
    gate.set()
    assert stopped.get(timeout=30) is True


def test_who_is_told_of_a_dropped_message_may_send_another(busy, gate):
    """A dropped ask was answered under the mailbox's lock, so that a callback that sent a message hung."""
    ref = busy(sup.Mailbox(capacity=1, overflow="drop_old"))
    ref.ask("the oldest", block=False).on_done(lambda: ref.tell("from the callback"))
    ref.tell("new")
    gate.set()
    ref.stop(timeout=30)


def test_block_makes_a_plain_thread_wait_for_room(busy, gate):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))
    ref.tell(0)
    sender = threading.Thread(target=lambda: [ref.tell(n) for n in range(1, 20)])
    sender.start()
    gate.set()
    sender.join(30)
    assert not sender.is_alive()
    assert seen(ref) == list(range(20))


def test_block_gives_up_after_its_time_by_the_systems_clock(busy, clock):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))
    ref.tell(0)
    sender = threading.Thread(target=lambda: ref.tell(1))
    sender.start()
    wait_for_timer(clock, 60)
    clock.advance(60)
    sender.join(30)
    assert not sender.is_alive()
    assert (len(ref.name.mailbox), ref.name.dead_letters) == (1, 1)


def test_block_never_blocks_an_event_loop(busy, on_a_loop):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))

    async def sending():
        ref.tell(0)
        ref.tell(1)

    on_a_loop(sending())
    assert ref.name.dead_letters == 1


def test_send_waits_for_room_in_a_coroutine_and_gives_up_in_time(busy, clock, gate, on_a_loop):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))

    async def sending():
        await ref.send("fits")
        late = asyncio.ensure_future(ref.send("too late"))
        await asyncio.sleep(0)
        clock.advance(60)
        await late
        patient = asyncio.ensure_future(ref.send("patient"))
        await asyncio.sleep(0)
        gate.set()
        await patient

    on_a_loop(sending())
    assert ref.name.dead_letters == 1
    assert seen(ref) == ["fits", "patient"]


def test_a_sender_who_gives_up_passes_the_room_on(busy, gate, on_a_loop):
    """The room was offered to one who had been cancelled, and the others waited for ever."""
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))

    async def sending():
        await ref.send(0)
        senders = [asyncio.ensure_future(ref.send(n)) for n in range(1, 6)]
        await asyncio.sleep(0)
        senders[0].cancel()
        senders[2].cancel()
        gate.set()
        await asyncio.wait(senders, timeout=30)
        return [sender.done() for sender in senders]

    assert all(on_a_loop(sending()))
    assert seen(ref) == [0, 2, 4, 5]


def test_send_to_a_dead_actor_raises(busy, gate, on_a_loop):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))
    gate.set()
    ref.stop(timeout=30)
    with pytest.raises(sup.ActorDeadError):
        on_a_loop(ref.send("anybody?"))


def test_closing_wakes_those_who_wait_for_room(busy, timed, gate, on_a_loop):
    ref = busy(sup.Mailbox(capacity=1, overflow=sup.block(60)))

    async def sending():
        await ref.send(0)
        waiting = asyncio.ensure_future(ref.send(1))
        await asyncio.sleep(0)
        timed.kill(ref)
        with pytest.raises(sup.ActorDeadError):
            await waiting

    on_a_loop(sending())


# -- across restarts -----------------------------------------------------------------------------------


def crash_with_three_waiting(system: sup.System, gate: threading.Event, mailbox: sup.Mailbox) -> Any:
    system.supervise(sup.ChildSpec("it", ObedientThread, mailbox=mailbox))
    ref = system.whereis("it")
    entered = threading.Event()

    def crash(actor: Any) -> None:
        entered.set()
        gate.wait()
        raise Boom("boom")

    ref.tell(crash)
    assert entered.wait(30)
    for n in range(2):
        ref.tell(n)
    asked = ref.ask(2, block=False)
    gate.set()
    return ref, asked


def test_what_waits_survives_a_restart_in_order(system, gate):
    ref, asked = crash_with_three_waiting(system, gate, sup.Mailbox())
    assert asked.get(timeout=30) == 2
    assert seen(ref) == [0, 1, 2]
    assert ref.name.epoch == 2


def test_on_restart_drop_rejects_what_waits(system, gate, eventually):
    ref, asked = crash_with_three_waiting(system, gate, sup.Mailbox(on_restart="drop"))
    with pytest.raises(sup.ActorDeadError):
        asked.get(timeout=30)
    assert seen(ref) == []
    eventually(lambda: ref.name.dead_letters == 3)


def test_a_message_that_ends_its_actor_is_not_delivered_again(system, obedient, crash):
    system.supervise(sup.ChildSpec("it", obedient))
    ref = system.whereis("it")
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert ref.ask("next", timeout=30) == "next"
    assert ref.name.epoch == 2


def test_redeliver_brings_it_back_to_the_head_until_it_is_poison(system, obedient):
    system.supervise(sup.ChildSpec("it", obedient, mailbox=sup.Mailbox(redeliver=2)), max_restarts=10)
    ref = system.whereis("it")
    lives: queue.Queue[int] = queue.Queue()

    def poison(actor: Any) -> None:
        lives.put(actor.context.epoch)
        raise Boom("boom")

    with pytest.raises(sup.PoisonMessage, match="poison"):
        ref.ask(poison, timeout=30)
    assert [lives.get() for _ in range(3)] == [1, 2, 3]
    assert lives.empty()


def test_redeliver_brings_back_what_a_second_try_can_handle(system, obedient):
    system.supervise(sup.ChildSpec("it", obedient, mailbox=sup.Mailbox(redeliver=1)))
    ref = system.whereis("it")

    def second_time_lucky(actor: Any) -> Any:
        if actor.context.epoch == 1:
            raise Boom("boom")
        return "done"

    assert ref.ask(second_time_lucky, timeout=30) == "done"


def test_a_poisonous_tell_becomes_a_dead_letter(system, obedient, crash, eventually):
    system.supervise(sup.ChildSpec("it", obedient, mailbox=sup.Mailbox(redeliver=1)))
    ref = system.whereis("it")
    ref.tell(crash)
    eventually(lambda: ref.name.epoch == 3 and ref.name.dead_letters == 1)


@pytest.mark.parametrize(("drain", "handled"), [(True, [0, 1, 2]), (False, [])])
def test_drain_handles_what_waits_before_an_orderly_end(system, gate, drain, handled):
    handle = system.supervise(sup.ChildSpec("it", ObedientThread, mailbox=sup.Mailbox(drain=drain)))
    ref = system.whereis("it")
    entered = threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    for n in range(2):
        ref.tell(n)
    asked = ref.ask(2, block=False)
    actor = ref.name.incarnation.actor
    terminated = handle.terminate_child("it")
    handle.which_children().get(timeout=30)  # the order to stop has been given
    gate.set()
    assert terminated.get(timeout=30) == sup.Ok()
    assert actor.seen == handled
    if drain:
        assert asked.get(timeout=30) == 2
    else:
        with pytest.raises(sup.ActorDeadError):
            asked.get(timeout=30)
        assert ref.name.dead_letters == 2


def test_orders_overtake_messages(system, gate, eventually):
    ref = started(system, ObedientThread)
    entered = threading.Event()
    ref.tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    ref.tell("waits")
    over = exit_of(ref)
    ref.name.incarnation.order_stop(sup.Shutdown("now"))
    gate.set()
    assert over.get(timeout=30).reason == sup.Shutdown("now")
    eventually(lambda: ref.name.dead_letters == 1)


def test_an_order_for_one_life_never_reaches_the_next(system, crash):
    """An order that came late was put into the mailbox all the same and ended the replacement."""
    system.supervise(sup.ChildSpec("it", Obedient))
    ref = system.whereis("it")
    former = ref.name.incarnation
    with pytest.raises(Boom):
        ref.ask(crash, timeout=30)
    assert ref.ask("next", timeout=30) == "next"
    former.order_stop(sup.Shutdown("too late"))
    assert ref.ask("still there", timeout=30) == "still there"
    assert ref.name.epoch == 2


def test_a_message_is_put_before_the_end_or_refused_never_lost(system):
    """Senders race with the end: each ask is answered, by the actor or by its death."""
    ref = started(system, Obedient)
    answers: list[Any] = []

    def send() -> None:
        answers.extend(ref.ask(n, block=False) for n in range(300))

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    ref.stop(timeout=30)
    for sender in senders:
        sender.join()
    for future in answers:
        try:
            assert isinstance(future.get(timeout=30), int)
        except sup.ActorDeadError:
            pass
