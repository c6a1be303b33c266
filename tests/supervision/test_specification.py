"""What is promised of supervision, sentence by sentence: each test's name is the sentence, each class one subject.

The other files try each part in depth; here every promise stands once, on running trees, so that the list can be read
from top to bottom as the contract.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread, exit_of, raising, started

import supervision as sup
from supervision import testing


def child(id: str, actor: Any = Obedient, on_start: Any = None, on_stop: Any = None, **fields: Any) -> sup.ChildSpec:
    return sup.ChildSpec(id, actor, kwargs={"on_start": on_start, "on_stop": on_stop}, **fields)


def epoch(actor: Any) -> int:
    return actor.context.epoch


def held(obedient: Any, gate: threading.Event, entered: threading.Event, then: Any = None) -> Any:
    """A message whose handler says that it has been entered, waits for the gate, and then does something."""

    async def on_loop(actor: Any) -> Any:
        entered.set()
        while not gate.is_set():
            await asyncio.sleep(0.001)
        return None if then is None else then(actor)

    def in_thread(actor: Any) -> Any:
        entered.set()
        gate.wait(60)
        return None if then is None else then(actor)

    return on_loop if issubclass(obedient, Obedient) else in_thread


@pytest.fixture
def events(system: sup.System) -> list[sup.Event]:
    heard: list[sup.Event] = []
    system.events.subscribe(heard.append)
    return heard


class Rig:
    """One child `it` with a message in hand and two in its queue."""

    def __init__(self, system: Any, obedient: Any, gate: Any, *, then: Any = None, how: str = "ask", **fields: Any):
        self.system, self.gate = system, gate
        supervise = fields.pop("supervise", {})
        siblings = fields.pop("siblings", ())
        self.handle = system.supervise(child("it", obedient, **fields), *siblings, **supervise)
        self.ref = system.whereis("it")
        entered = threading.Event()
        message = held(obedient, gate, entered, then)
        self.in_flight = None
        if how == "ask":
            self.in_flight = self.ref.ask(message, block=False)
        else:
            self.ref.tell(message)
        assert entered.wait(30)
        self.queued = [self.ref.ask(n, block=False) for n in (1, 2)]
        self.ref.tell("told")

    def go(self) -> None:
        self.gate.set()


def is_waiting(thread: threading.Thread) -> bool:
    """Whether it is seen to wait for a condition."""
    return sys._current_frames()[thread.ident or 0].f_code is threading.Condition.wait.__code__


def outcome(future: Any) -> Any:
    """The value, or the error, of a future."""
    try:
        return future.get(timeout=30)
    except Exception as error:  # noqa: BLE001  (which one is what the test looks at)
        return error


class TestDelivery:
    """What becomes of the message in hand and of those that wait, whatever happens to the actor."""

    def test_restart_in_flight_ask_gets_the_error_once_and_the_queue_is_kept_in_order(self, system, obedient, gate):
        rig = Rig(system, obedient, gate, then=raising(Boom("x")))
        rig.go()
        assert isinstance(outcome(rig.in_flight), Boom)
        assert [outcome(each) for each in rig.queued] == [1, 2]
        assert rig.ref.ask(lambda actor: (actor.seen, epoch(actor))) == ([1, 2, "told"], 2)
        assert system.dead_letters == 0

    def test_restart_in_flight_tell_is_a_dead_letter(self, system, obedient, gate, eventually):
        rig = Rig(system, obedient, gate, then=raising(Boom("x")), how="tell")
        rig.go()
        assert [outcome(each) for each in rig.queued] == [1, 2]
        eventually(lambda: system.dead_letters == 1)

    def test_restart_with_on_restart_drop_rejects_the_queue(self, system, obedient, gate, eventually):
        rig = Rig(system, obedient, gate, then=raising(Boom("x")), mailbox=sup.Mailbox(on_restart="drop"))
        rig.go()
        assert isinstance(outcome(rig.in_flight), Boom)
        assert [type(outcome(each)) for each in rig.queued] == [sup.ActorDeadError] * 2
        eventually(lambda: system.dead_letters == 1)
        assert rig.ref.ask(lambda actor: actor.seen, timeout=30) == []

    def test_bystanders_of_a_group_restart_finish_what_they_have_in_hand_and_keep_their_queue(
        self, system, obedient, gate, crash
    ):
        rig = Rig(system, obedient, gate, siblings=[child("other")], supervise={"strategy": "one_for_all"})
        system.whereis("other").ask(crash, block=False)
        rig.go()
        assert outcome(rig.in_flight) is None
        assert [outcome(each) for each in rig.queued] == [1, 2]

    def test_abandoned_as_stuck_in_flight_is_of_unknown_outcome_and_the_queue_is_kept(self, system, gate, eventually):
        rig = Rig(system, ObedientThread, gate)
        system.kill(rig.ref)
        assert isinstance(outcome(rig.in_flight), sup.ActorStuck)
        assert [outcome(each) for each in rig.queued] == [1, 2]
        rig.go()
        eventually(lambda: not system.zombies)
        assert rig.ref.ask(lambda actor: actor.seen) == [1, 2, "told"]

    def test_abandoned_in_flight_tell_is_a_dead_letter(self, system, gate, eventually):
        rig = Rig(system, ObedientThread, gate, how="tell")
        system.kill(rig.ref)
        assert [outcome(each) for each in rig.queued] == [1, 2]
        eventually(lambda: system.dead_letters == 1)
        rig.go()

    @pytest.mark.parametrize("n", [1, 2])
    def test_redelivered_it_comes_back_at_the_head_and_after_n_times_is_poison(self, system, obedient, gate, n):
        seen: list[Any] = []

        def poison(actor: Any) -> None:
            seen.append(epoch(actor))
            raise Boom("again")

        rig = Rig(system, obedient, gate, then=poison, mailbox=sup.Mailbox(redeliver=n))
        rig.go()
        error = outcome(rig.in_flight)
        assert isinstance(error, sup.PoisonMessage)
        assert "poison" in str(error)
        assert seen == list(range(1, n + 2))
        assert [outcome(each) for each in rig.queued] == [1, 2]

    def test_redelivered_tell_is_a_dead_letter_after_n_times(self, system, obedient, gate, eventually):
        rig = Rig(system, obedient, gate, then=raising(Boom("x")), how="tell", mailbox=sup.Mailbox(redeliver=1))
        rig.go()
        assert [outcome(each) for each in rig.queued] == [1, 2]
        eventually(lambda: system.dead_letters == 1)
        assert rig.ref.ask(epoch) == 3

    def test_redelivered_after_an_abandonment_too(self, system, gate):
        rig = Rig(system, ObedientThread, gate, then=epoch, mailbox=sup.Mailbox(redeliver=1))
        system.kill(rig.ref)
        rig.go()
        assert outcome(rig.in_flight) == 2

    def test_in_a_backoff_past_its_deadline_an_ask_times_out_and_is_skipped(self, timed, clock, obedient, crash):
        timed.supervise(child("it", obedient, backoff=sup.Backoff(min=10, max=10, jitter=0)))
        ref = timed.whereis("it")
        with pytest.raises(Boom):
            ref.ask(crash)
        late, patient = ref.ask("late", block=False, timeout=1), ref.ask("patient", block=False, timeout=100)
        clock.advance(2)
        assert isinstance(outcome(late), pykka.Timeout)
        clock.advance(8.5)
        assert outcome(patient) == "patient"
        assert ref.ask(lambda actor: actor.seen) == ["patient"]

    def test_in_a_pause_past_its_deadline_too(self, timed, clock, obedient, crash):
        timed.supervise(child("it", obedient), max_restarts=0, on_exhausted=sup.pause(10))
        ref = timed.whereis("it")
        with pytest.raises(Boom):
            ref.ask(crash)
        late = ref.ask("late", block=False, timeout=1)
        clock.advance(2)
        assert isinstance(outcome(late), pykka.Timeout)
        clock.advance(15)
        assert ref.ask(lambda actor: actor.seen) == []

    @pytest.mark.parametrize("end", ["terminate_child", "stop"])
    def test_terminated_the_message_in_hand_is_finished_and_the_queue_rejected(
        self, system, obedient, gate, end, eventually
    ):
        rig = Rig(system, obedient, gate)
        ended = exit_of(rig.ref)
        if end == "stop":
            threading.Thread(target=system.stop, daemon=True).start()
        else:
            done = rig.handle.terminate_child("it")
        eventually(lambda: rig.ref.name.mailbox._control)  # the order to stop, behind the message in hand
        rig.go()
        assert outcome(rig.in_flight) is None
        assert [type(outcome(each)) for each in rig.queued] == [sup.ActorDeadError] * 2
        assert outcome(ended).reason == sup.Shutdown()
        if end != "stop":
            assert outcome(done) == sup.Ok()
        system.stop()
        assert system.dead_letters == 1

    def test_terminated_and_not_finished_in_time_the_message_in_hand_gets_an_error(self, system, gate, eventually):
        rig = Rig(system, ObedientThread, gate, shutdown=0.02)
        assert outcome(rig.handle.terminate_child("it")) == sup.Ok()
        assert isinstance(outcome(rig.in_flight), sup.ActorDeadError)
        assert [type(outcome(each)) for each in rig.queued] == [sup.ActorDeadError] * 2

    def test_terminated_with_drain_the_queue_is_handled(self, system, obedient, gate):
        rig = Rig(system, obedient, gate, mailbox=sup.Mailbox(drain=True))
        done = rig.handle.terminate_child("it")
        rig.go()
        assert outcome(done) == sup.Ok()
        assert [outcome(each) for each in (rig.in_flight, *rig.queued)] == [None, 1, 2]
        assert system.dead_letters == 0

    @pytest.mark.parametrize("why", ["temporary", "dropped"])
    def test_without_a_restart_the_asker_gets_its_error_and_the_queue_is_rejected(
        self, system, obedient, gate, why, eventually
    ):
        fields: dict[str, Any] = {"restart": "temporary"} if why == "temporary" else {"on_exhausted": sup.DROP_CHILD}
        rig = Rig(system, obedient, gate, then=raising(Boom("x")), supervise={"max_restarts": 0}, **fields)
        rig.go()
        assert isinstance(outcome(rig.in_flight), Boom)
        errors = [outcome(each) for each in rig.queued]
        assert [type(each) for each in errors] == [sup.ActorDeadError] * 2
        assert all(isinstance(each.reason, sup.Crash) for each in errors)
        eventually(lambda: system.dead_letters == 1)

    def test_after_a_give_up_the_queue_hears_the_chain(self, system, obedient, gate, eventually):
        rig = Rig(system, obedient, gate, then=raising(Boom("x")), supervise={"max_restarts": 0})
        rig.go()
        assert isinstance(outcome(rig.in_flight), Boom)
        for each in rig.queued:
            error = outcome(each)
            assert isinstance(error, sup.ActorDeadError)
            assert isinstance(error.reason, sup.GaveUp)
            assert error.reason.chain[0].path == "root/it"
        eventually(lambda: system.dead_letters == 1)

    def test_a_ref_to_a_closed_name_fails_at_once_and_works_again_if_the_name_reopens(self, system, obedient):
        handle = system.supervise(child("it", obedient))
        ref = system.whereis("it")
        assert outcome(handle.terminate_child("it")) == sup.Ok()
        assert isinstance(outcome(ref.ask(1, block=False)), sup.ActorDeadError)
        with pytest.raises(pykka.ActorDeadError):
            ref.tell(1)
        assert system.dead_letters == 1
        assert not ref.is_alive()
        assert outcome(handle.restart_child("it")) == sup.Started(ref)
        assert ref.ask(1) == 1
        handle.terminate_child("it").get()
        assert outcome(handle.delete_child("it")) == sup.Ok()
        assert isinstance(outcome(ref.ask(1, block=False)), sup.ActorDeadError)
        assert outcome(handle.start_child(child("it", obedient))).ref is ref
        assert ref.ask(epoch) == 3


class TestOverflow:
    """What a full mailbox does. `stop()` is exempt."""

    @pytest.fixture
    def full(self, system, obedient, gate):
        def make(overflow: Any) -> Any:
            system.supervise(child("it", obedient, restart="temporary", mailbox=sup.Mailbox(2, overflow=overflow)))
            entered = threading.Event()
            ref = system.whereis("it")
            ref.tell(held(obedient, gate, entered))
            assert entered.wait(30)
            return ref, [ref.ask(n, block=False) for n in (1, 2)]

        return make

    @pytest.mark.parametrize("overflow", ["fail", "drop_new"])
    def test_fail_and_drop_new_answer_an_ask_with_an_error_and_make_a_tell_a_dead_letter(
        self, system, full, gate, overflow
    ):
        ref, waiting = full(overflow)
        assert isinstance(outcome(ref.ask(3, block=False)), sup.MailboxFull)
        ref.tell(4)
        assert system.dead_letters == 1
        stopped = ref.stop(block=False)
        gate.set()
        assert [outcome(each) for each in waiting] == [1, 2]
        assert stopped.get(timeout=30) is True

    def test_drop_old_makes_room(self, full, gate):
        ref, (first, second) = full("drop_old")
        third = ref.ask(3, block=False)
        assert isinstance(outcome(first), sup.MailboxFull)
        gate.set()
        assert [outcome(second), outcome(third)] == [2, 3]

    def test_block_waits_for_room_in_a_thread_and_by_send_on_a_loop(self, full, gate, on_a_loop):
        ref, _waiting = full(sup.block(60.0))
        threading.Timer(0.02, gate.set).start()
        assert ref.ask(3, timeout=30) == 3
        on_a_loop(ref.send(4))
        assert ref.ask(lambda actor: actor.seen) == [1, 2, 3, 4]

    def test_block_fails_once_its_time_is_over(self, full):
        ref, _ = full(sup.block(0.01))
        assert isinstance(outcome(ref.ask(3, block=False)), sup.MailboxFull)

    @pytest.mark.parametrize("by", ["start_child", "reconfigure"])
    def test_a_mailbox_is_as_its_present_spec_says(self, system, crash, by):
        """A spec that says nothing of the mailbox used to leave the bounds of the spec before in force."""
        handle = system.supervise(child("it", mailbox=sup.Mailbox(1)))
        ref = system.whereis("it")
        if by == "reconfigure":
            assert outcome(handle.reconfigure(sup.SupervisorOptions(), [child("it")])) == sup.Ok()
            with pytest.raises(Boom):
                ref.ask(crash)
        else:
            handle.terminate_child("it").get()
            handle.delete_child("it").get()
            handle.start_child(child("it")).get()
        assert ref.ask(epoch) == 2
        assert ref.name.mailbox.spec == sup.Mailbox()


class TestErrors:
    """An exception in a handler."""

    def test_an_expected_error_is_replied_without_a_crash_and_from_a_tell_logged_and_counted(
        self, system, obedient, caplog
    ):
        class Picky(obedient):
            expected_errors = (Boom,)

        system.supervise(child("it", Picky))
        ref = system.whereis("it")
        with pytest.raises(Boom):
            ref.ask(raising(Boom("asked")))
        ref.tell(raising(Boom("told")))
        assert ref.ask(epoch) == 1
        assert "told" in caplog.text
        assert (ref.name.failed, system.dead_letters) == (2, 0)

    @pytest.mark.parametrize(("of_spec", "epoch_after"), [(None, 1), ((), 2), ((KeyError,), 2)])
    def test_the_spec_s_expected_errors_take_the_place_of_the_class_s(self, system, obedient, of_spec, epoch_after):
        class Picky(obedient):
            expected_errors = (Boom,)

        system.supervise(child("it", Picky, expected_errors=of_spec))
        ref = system.whereis("it")
        with pytest.raises(Boom):
            ref.ask(raising(Boom("asked")))
        assert ref.ask(epoch) == epoch_after

    def test_a_retry_meets_the_new_state(self, system, obedient, crash):
        system.supervise(child("it", obedient), max_restarts=100)
        ref = system.whereis("it")
        for number in range(1, 30):
            with pytest.raises(Boom):
                ref.ask(crash)
            assert ref.ask(epoch) == number + 1

    def test_a_retry_after_the_end_for_good_fails_at_once(self, system, obedient, crash):
        ref = started(system, obedient)
        with pytest.raises(Boom):
            ref.ask(crash)
        assert not ref.is_alive()
        assert system.whereis("it") is None

    @pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()])
    def test_a_base_exception_in_a_handler_is_a_crash_of_that_actor_alone(self, system, obedient, error):
        system.supervise(child("it", obedient), child("other"))
        ref, other = system.whereis("it"), system.whereis("other")
        ended = exit_of(ref)
        assert isinstance(outcome(ref.ask(raising(error), block=False)), sup.ActorDeadError)
        assert isinstance(outcome(ended).reason, sup.Crash)
        assert (ref.ask(epoch), other.ask(epoch)) == (2, 1)

    def test_a_stopped_permanent_child_is_restarted(self, system, obedient):
        system.supervise(child("it", obedient))
        ref = system.whereis("it")
        assert ref.stop() is True
        assert ref.ask(epoch) == 2

    def test_a_users_second_set_raises(self, system):
        ref = started(system, Obedient)
        replies: list[sup.Reply] = []

        def owe(actor: Any) -> Any:
            replies.append(actor.owe())
            return replies[0]

        future = ref.ask(owe, block=False)
        assert ref.ask(1) == 1
        replies[0].set(7)
        assert future.get(timeout=30) == 7
        with pytest.raises(Exception, match="given already"):
            replies[0].set(8)


class TestLife:
    """From construction to the exit."""

    def test_ignore_keeps_the_spec_without_an_incarnation(self, system, obedient):
        handle = system.supervise(child("it", obedient, on_start=lambda _: sup.IGNORE), child("next"))
        assert handle.which_children().get() == [
            ("next", system.whereis("next"), sup.Kind.WORKER),
            ("it", None, sup.Kind.WORKER),
        ]
        assert system.whereis("it") is None
        assert outcome(handle.restart_child("it")) == sup.Started(None)
        assert handle.count_children().get() == sup.Counts(2, 1, 0, 2)

    def test_ignore_drops_a_temporary_child(self, system, obedient):
        handle = system.supervise(child("it", obedient, on_start=lambda _: sup.IGNORE, restart="temporary"))
        assert handle.which_children().get() == []

    def test_ignore_on_restart_keeps_the_spec_stopped_and_rejects_the_queue(self, system, obedient, gate):
        starts: list[int] = []

        def ignore_later(actor: Any) -> Any:
            starts.append(1)
            return sup.IGNORE if len(starts) > 1 else None

        rig = Rig(system, obedient, gate, then=raising(Boom("x")), on_start=ignore_later)
        rig.go()
        assert isinstance(outcome(rig.in_flight), Boom)
        assert [type(outcome(each)) for each in rig.queued] == [sup.ActorDeadError] * 2
        assert [row[1] for row in rig.handle.which_children().get()] == [None]

    def test_ignore_in_a_dynamic_supervisor_forgets_the_child(self, system, obedient):
        system.supervise(sup.dynamic("pool"))
        pool = system.whereis("pool")
        assert outcome(pool.start_child(child("it", obedient, on_start=lambda _: sup.IGNORE))) == sup.Started(None)
        assert pool.which_children().get() == []

    def test_info_goes_to_the_starter(self, system, obedient):
        handle = system.supervise()
        answer = outcome(handle.start_child(child("it", obedient, on_start=lambda _: {"port": 1})))
        assert answer == sup.Started(system.whereis("it"), {"port": 1})
        handle.terminate_child("it").get()
        assert outcome(handle.restart_child("it")).info == {"port": 1}

    def test_construction_and_on_start_run_on_the_childs_host(self, system, obedient):
        where: list[str] = []

        class Telling(obedient):
            def __init__(self) -> None:
                super().__init__(on_start=lambda _: where.append(threading.current_thread().name))
                where.append(threading.current_thread().name)

        system.supervise(sup.ChildSpec("it", Telling))
        here = system.whereis("it").ask(lambda _: threading.current_thread().name)
        assert where == [here, here]
        assert here != threading.current_thread().name

    def test_exit_ends_after_the_current_message_which_is_answered(self, system, obedient):
        order: list[str] = []
        system.supervise(child("it", obedient, on_stop=lambda _: order.append("on_stop"), restart="transient"))
        ref = system.whereis("it")
        exit = exit_of(ref)
        exit.on_done(lambda: order.append("exit"))

        def leave(actor: Any) -> str:
            actor.exit(sup.Shutdown("enough"))
            order.append("rest of the handler")
            return "answered"

        assert ref.ask(leave) == "answered"
        assert exit.get(timeout=30).reason == sup.Shutdown("enough")
        assert order == ["rest of the handler", "on_stop", "exit"]

    def test_the_exit_comes_after_on_failure(self, system, obedient, crash):
        order: list[str] = []

        class Failing(obedient):
            def on_failure(self, *args: Any) -> None:
                order.append("on_failure")

        ref = started(system, Failing)
        exit = exit_of(ref)
        exit.on_done(lambda: order.append("exit"))
        with pytest.raises(Boom):
            ref.ask(crash)
        exit.get(timeout=30)
        assert order == ["on_failure", "exit"]

    def test_the_context_says_name_epoch_reason_attempt_snapshot_clock_and_cancelled(self, timed, clock, obedient):
        timed.supervise(child("it", obedient))
        ref = timed.whereis("it")

        def look(actor: Any) -> Any:
            seen = actor.context
            return seen.name, seen.epoch, seen.restart_reason, seen.attempt, seen.snapshot, seen.cancelled

        assert ref.ask(look) == ("root/it", 1, None, 0, None, False)
        assert ref.ask(lambda actor: actor.context.clock) is clock
        with pytest.raises(Boom):
            ref.ask(raising(Boom("x")))
        name, number, reason, attempt, *_ = ref.ask(look)
        assert (name, number, type(reason), attempt) == ("root/it", 2, sup.Crash, 1)

    def test_recover_may_fail_which_is_a_crash_and_counted(self, system, obedient, eventually):
        class Hopeless(obedient):
            def recover(self) -> None:
                raise Boom("no")

        handle = system.supervise(child("it", Hopeless))
        reason = outcome(handle.ended).reason
        assert isinstance(reason, sup.GaveUp)
        assert reason.chain[0].reason.type == "Boom"


CALLS = ["start_child", "restart_child", "terminate_child", "delete_child"]


class TestCallsInEveryState:
    """What each call answers while the child runs, stands stopped, waits for its restart, or is unknown."""

    TABLE = {
        "start_child": ["AlreadyStarted", "AlreadyPresent", "AlreadyPresent", "Started"],
        "restart_child": ["Running", "Started", "Restarting", "NotFound"],
        "terminate_child": ["Ok", "Ok", "Ok", "NotFound"],
        "delete_child": ["Running", "Ok", "Restarting", "NotFound"],
    }

    def prepared(self, handle: Any, system: Any, state: str) -> None:
        ref = system.whereis("it")
        if state in ("backoff", "pause"):
            with pytest.raises(Boom):
                ref.ask(raising(Boom("x")))
        if state in ("stopped", "unknown"):
            handle.terminate_child("it").get(timeout=30)
        if state == "unknown":
            handle.delete_child("it").get(timeout=30)

    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("state", ["running", "stopped", "backoff", "pause", "unknown"])
    def test_the_table(self, timed, clock, state, call):
        spec = child("it", backoff=sup.Backoff(min=10, max=10) if state == "backoff" else None)
        options: dict[str, Any] = {"max_restarts": 0, "on_exhausted": sup.pause(10)} if state == "pause" else {}
        handle = timed.supervise(spec, **options)
        self.prepared(handle, timed, state)
        answer = outcome(getattr(handle, call)(spec if call == "start_child" else "it"))
        column = {"running": 0, "stopped": 1, "backoff": 2, "pause": 2, "unknown": 3}[state]
        assert type(answer).__name__ == self.TABLE[call][column]
        if call == "terminate_child" and column == 2:
            clock.advance(100)
            assert handle.which_children().get() == [("it", None, sup.Kind.WORKER)]

    def test_reads_during_a_backoff_say_restarting_and_count_only_what_runs(self, timed, crash):
        handle = timed.supervise(child("it", backoff=sup.Backoff(min=10, max=10)), child("other"))
        with pytest.raises(Boom):
            timed.whereis("it").ask(crash)
        rows = handle.which_children().get(timeout=30)
        assert rows == [("other", timed.whereis("other"), sup.Kind.WORKER), ("it", sup.RESTARTING, sup.Kind.WORKER)]
        assert handle.count_children().get() == sup.Counts(specs=2, active=1, supervisors=0, workers=2)

    @pytest.mark.parametrize("call", CALLS)
    def test_a_dead_supervisor_answers_at_once(self, system, call):
        handle = system.supervise(child("it"))
        system.stop()
        answer = outcome(getattr(handle, call)(child("it") if call == "start_child" else "it"))
        assert isinstance(answer, sup.ActorDeadError)


class TestWindow:
    """How many restarts are tolerated."""

    def crash(self, ref: Any) -> None:
        with pytest.raises(Boom):
            ref.ask(raising(Boom("x")), timeout=30)

    def test_three_are_tolerated_and_a_fourth_is_not_performed(self, timed, clock, obedient):
        handle = timed.supervise(child("it", obedient))
        ref = timed.whereis("it")
        for _ in range(4):
            self.crash(ref)
        assert isinstance(outcome(handle.ended).reason, sup.GaveUp)
        assert ref.name.epoch == 4

    @pytest.mark.parametrize(("after", "gives_up"), [(5.0, True), (5.0001, False)])
    def test_an_entry_exactly_max_seconds_old_still_counts(self, timed, clock, after, gives_up):
        handle = timed.supervise(child("it"), max_restarts=1, max_seconds=5.0)
        ref = timed.whereis("it")
        self.crash(ref)
        clock.advance(after)
        self.crash(ref)
        if gives_up:
            assert isinstance(outcome(handle.ended).reason, sup.GaveUp)
        else:
            assert ref.ask(epoch) == 3

    def test_a_group_restart_counts_one_and_each_failed_retry_one_more(self, timed, clock):
        fails = [0, 0, 1, 1]  # of the second child: its first start, then a restart, two failing, and one more

        def start(_: Any) -> None:
            if fails and fails.pop(0):
                raise Boom("no")

        handle = timed.supervise(
            child("a"), child("b", on_start=start), strategy="one_for_all", max_restarts=10, max_seconds=100
        )
        used = lambda: timed.tree().children[0].window  # noqa: E731
        self.crash(timed.whereis("a"))
        assert timed.whereis("b").ask(epoch) == 2
        assert used() == (1, 10)
        self.crash(timed.whereis("a"))
        assert timed.whereis("b").ask(epoch) == 5
        assert used() == (4, 10)
        handle.terminate_child("a").get()
        handle.restart_child("a").get()
        assert used() == (4, 10)

    def test_a_backoff_is_counted_when_it_fires(self, timed, clock):
        timed.supervise(child("it", backoff=sup.Backoff(min=10, max=10, jitter=0)), max_seconds=100)
        ref = timed.whereis("it")
        self.crash(ref)
        assert timed.tree().children[0].window == (0, 3)
        clock.advance(10)
        assert ref.ask(epoch) == 2
        assert timed.tree().children[0].window == (1, 3)

    def test_a_backoff_begins_anew_after_reset_after_without_a_restart_also_of_one_that_stood_stopped(
        self, timed, clock
    ):
        """A start by hand used to count as the last restart, so that an hour of standing stopped was for nothing."""
        backoff = sup.Backoff(min=1, max=64, jitter=0, reset_after=5)
        handle = timed.supervise(child("it", backoff=backoff), max_restarts=100)
        ref = timed.whereis("it")

        def wait() -> float:
            self.crash(ref)
            due = timed.tree().find("it").next_at
            assert due is not None
            return due - clock.now()

        def wait_and_return() -> float:
            seconds = wait()
            clock.advance(seconds)
            ref.ask(epoch)
            assert handle.count_children().get().active == 1  # by now the supervisor knows, too
            return seconds

        waits = [wait_and_return() for _ in range(3)]
        clock.advance(4.9)
        waits.append(wait_and_return())
        clock.advance(5.1)
        waits.append(wait())
        handle.terminate_child("it").get()
        clock.advance(3600)
        handle.restart_child("it").get()
        waits.append(wait())
        assert waits == pytest.approx([1, 2, 4, 8, 1, 1])


class TestTermination:
    """Which ends of a child that was asked to stop are as they should be."""

    @pytest.mark.parametrize(
        ("fields", "message", "is_error"),
        [
            ({}, None, False),
            ({"shutdown": "brutal_kill"}, None, False),
            ({"shutdown": 0}, "swallow", True),
            ({}, "fail in on_stop", True),
        ],
    )
    def test_an_unexpected_end_is_told_and_stopping_goes_on(
        self, system, events, eventually, fields, message, is_error
    ):
        def on_stop(_: Any) -> None:
            if message == "fail in on_stop":
                raise Boom("x")

        entered, gate = threading.Event(), threading.Event()
        handle = system.supervise(child("first"), child("it", on_stop=on_stop, **fields))
        if message == "swallow":
            system.whereis("it").tell(held(Obedient, gate, entered))
            entered.wait(30)
        assert outcome(handle.terminate_child("it")) == sup.Ok()
        eventually(lambda: any(each.name == "child_exited" for each in events))
        assert system.stop()
        eventually(lambda: any(each.name == "stopped" for each in events))
        assert [each.path for each in events if each.name == "shutdown_error"] == (["root/it"] if is_error else [])


class TestOtherParts:
    def test_a_dynamic_supervisor_counts_those_that_wait_for_their_restart(self, timed, crash):
        timed.supervise(sup.dynamic("pool", max_children=1))
        pool = timed.whereis("pool")
        one = outcome(pool.start_child(child("it", backoff=sup.Backoff(min=10, max=10)))).ref
        with pytest.raises(Boom):
            one.ask(crash)
        assert outcome(pool.start_child(child("it"))) == sup.MaxChildren()
        assert outcome(pool.terminate_child(one)) == sup.Ok()
        assert outcome(pool.terminate_child(one)) == sup.Ok()
        assert isinstance(outcome(pool.start_child(child("it"))), sup.Started)

    def test_a_dynamic_supervisor_does_not_know_a_live_non_child(self, system):
        system.supervise(sup.dynamic("pool"), child("it"))
        assert outcome(system.whereis("pool").terminate_child(system.whereis("it"))) == sup.NotFound()

    def test_a_dynamic_supervisors_restart_forgets_its_children(self, system, eventually):
        system.supervise(sup.dynamic("pool"))
        pool = system.whereis("pool")
        ref = outcome(pool.start_child(child("it"))).ref
        system.kill(pool)
        eventually(lambda: pool.name.epoch == 2 and pool.name.incarnation is not None)
        assert pool.which_children().get(timeout=30) == []
        assert not ref.is_alive()

    def test_a_partition_is_an_int_modulo_n_else_a_stable_hash(self, system):
        system.supervise(sup.partition("p", child("each"), partitions=3))
        pool = system.whereis("p")
        refs = [system.whereis(f"p/{n}") for n in range(3)]
        assert [pool.route(n) for n in (0, 1, 2, 3, -1)] == [refs[0], refs[1], refs[2], refs[0], refs[2]]
        assert pool.route("key") is pool.route("key") is pool.route(b"key")
        assert outcome(pool.resize(0)) == sup.Ok()
        with pytest.raises(sup.NoPartitions):
            pool.route(0)
        assert outcome(pool.resize(3)) == sup.Ok()
        assert isinstance(outcome(pool.resize(4)), sup.SpecError)
        with pytest.raises(sup.SpecError):
            pool.resize(-1)

    def test_a_registrys_dead_owner_is_replaced_and_its_lock_freed(self, system, crash, eventually):
        system.supervise(child("a"), child("b"))
        a, b, registry = system.whereis("a"), system.whereis("b"), system.registry
        assert registry.register("key", a, 1) == sup.Ok()
        assert registry.register("key", b) == sup.AlreadyRegistered(a)
        assert (registry.lookup("key"), registry.keys(a)) == ([(a, 1)], ["key"])
        entered, gate = threading.Event(), threading.Event()

        async def hold(actor: Any) -> None:
            async with registry.lock("door"):
                entered.set()
                while not gate.is_set():
                    await asyncio.sleep(0.001)
                raise Boom("x")

        a.tell(hold)
        entered.wait(30)
        gate.set()
        with registry.lock("door"):
            eventually(lambda: a.ask(epoch) == 2)
        assert registry.lookup("key") == []
        assert registry.register("key", b) == sup.Ok()

    def test_one_down_per_monitor_and_noproc_at_once(self, system, crash, eventually):
        handle = system.supervise(child("watcher"), child("it", restart="temporary"))
        watcher, it = system.whereis("watcher"), system.whereis("it")
        token = watcher.ask(lambda actor: actor.monitor(it))
        with pytest.raises(Boom):
            it.ask(crash)
        eventually(lambda: watcher.ask(lambda actor: actor.seen))
        [down] = watcher.ask(lambda actor: list(actor.seen))
        assert (down.token, down.ref, type(down.reason)) == (token, it, sup.Crash)
        again = watcher.ask(lambda actor: actor.monitor(it))
        eventually(lambda: len(watcher.ask(lambda actor: list(actor.seen))) == 2)
        assert watcher.ask(lambda actor: actor.seen[1]) == sup.Down(again, it, sup.NoProc())
        assert handle.count_children().get().specs == 1

    @pytest.mark.parametrize("host", [Obedient, ObedientThread])
    def test_crashes_go_through_links_and_orderly_ends_do_not(self, system, crash, eventually, host):
        system.supervise(child("a", host, restart="transient"), child("b", host), child("c", restart="transient"))
        a, b, c = (system.whereis(id) for id in "abc")
        b.ask(lambda actor: (actor.link(a), actor.link(c)))
        c.stop()
        assert b.ask(epoch) == 1
        with pytest.raises(Boom):
            a.ask(crash)
        eventually(lambda: b.ask(epoch) == 2)

    def test_trap_exits_makes_messages_of_both(self, system, crash, eventually):
        system.supervise(child("a", restart="temporary"), child("b"), child("c", restart="transient"))
        a, b, c = (system.whereis(id) for id in "abc")

        def begin(actor: Any) -> None:
            actor.trap_exits = True
            actor.link(a)
            actor.link(c)

        b.ask(begin)
        c.stop()
        with pytest.raises(Boom):
            a.ask(crash)
        eventually(lambda: len(b.ask(lambda actor: list(actor.seen))) == 2)
        first, second = b.ask(lambda actor: list(actor.seen))
        assert first == sup.Exited(c, sup.Normal())
        assert (second.ref, type(second.reason)) == (a, sup.Crash)

    def test_timers_die_with_the_incarnation_unless_bound_to_the_name(self, timed, clock, obedient, crash, eventually):
        timed.supervise(child("it", obedient))
        ref = timed.whereis("it")

        def arm(actor: Any) -> None:
            actor.send_after(ref, "gone", 1)
            actor.send_after(ref, "kept", 1, bound_to="name")
            actor.interval(ref, "gone too", 1)
            actor.send_after(ref, "cancelled", 1, bound_to="name").cancel()

        ref.ask(arm)
        with pytest.raises(Boom):
            ref.ask(crash)
        assert ref.ask(epoch) == 2
        clock.advance(3)
        eventually(lambda: ref.ask(lambda actor: list(actor.seen)) == ["kept"])


class TestWaiting:
    """Futures, deadlines, and circles."""

    def test_get_of_an_unfinished_future_on_a_scheduler_thread_is_refused_and_of_a_finished_one_is_not(self, system):
        system.supervise(child("a"), child("b"))
        a, b = system.whereis("a"), system.whereis("b")

        async def finished(_: Any) -> Any:
            future = b.ask(1, block=False)
            await future
            return future.get()

        assert isinstance(a.ask(lambda _: outcome(b.ask(raising(Boom("x")), block=False))), sup.BlockingInScheduler)
        assert a.ask(finished) == 1

    def test_derived_futures_are_awaited_without_blocking_and_a_foreign_hook_runs_in_a_side_thread(self, system):
        system.supervise(child("a"), child("b"))
        b = system.whereis("b")
        foreign: pykka.ThreadingFuture[str] = pykka.ThreadingFuture()
        foreign.set_get_hook(lambda timeout: threading.current_thread().name)

        async def derive(_: Any) -> Any:
            first, second = b.ask(1, block=False), b.ask(2, block=False)
            return await first.map(lambda n: n * 10), await second.join(first), (await first.join(foreign))[1]

        mapped, joined, where = system.whereis("a").ask(derive, timeout=30)
        assert (mapped, joined) == (10, [2, 1])
        assert "workers" not in where

    def test_asking_oneself_or_in_a_circle_is_an_error_at_once_and_passing_a_future_on_is_not(self, system, obedient):
        system.supervise(child("a", obedient), child("b"))
        a, b = system.whereis("a"), system.whereis("b")
        kept: list[Any] = []
        assert a.ask(lambda _: kept.append(a.ask("later", block=False))) is None
        assert outcome(kept[0]) == "later"
        assert isinstance(a.ask(lambda _: outcome(a.ask(1, block=False))), sup.DeadlockError)

        async def ask_back(_: Any) -> Any:
            return await a.ask(1, block=False)

        async def on_loop(_: Any) -> Any:
            return await b.ask(ask_back, block=False)

        ask_b = on_loop if obedient is Obedient else lambda _: b.ask(ask_back)
        assert isinstance(outcome(a.ask(ask_b, block=False)), sup.DeadlockError)

    def test_a_message_past_its_deadline_or_whose_awaiter_was_cancelled_is_skipped(self, system, gate, on_a_loop):
        system.supervise(child("it", ObedientThread))
        ref, entered = system.whereis("it"), threading.Event()
        ref.tell(held(ObedientThread, gate, entered))
        assert entered.wait(30)
        with pytest.raises(pykka.Timeout):
            ref.ask("late", timeout=0.01)

        async def cancelled() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sup.ask(ref, "unwanted"), 0.01)  # type: ignore[arg-type]

        on_a_loop(cancelled())
        gate.set()
        assert ref.ask(lambda actor: actor.seen) == []

    def test_a_late_answer_is_ignored_and_counted(self, timed, clock):
        timed.supervise(child("it"))
        ref, owed = timed.whereis("it"), []

        def owe(actor: Any) -> Any:
            owed.append(actor.owe())
            return owed[0]

        future = ref.ask(owe, block=False, timeout=1)
        assert ref.ask("in between") == "in between"
        assert timed.tree().find("it").owed == 1
        clock.advance(2)
        assert isinstance(outcome(future), pykka.Timeout)
        owed[0].set("late")
        assert timed.tree().find("it").late == 1


class TestAutoShutdown:
    """It looks only at significant children that end by themselves."""

    def pair(self, system: Any, rule: str, **mid: Any) -> Any:
        significant = {"restart": "transient", "significant": True}
        spec = sup.supervisor(
            "mid", child("a", **significant), child("b", **significant), child("c"), auto_shutdown=rule, **mid
        )
        system.supervise(spec)
        return system.whereis("mid")

    @pytest.mark.parametrize(("rule", "ends"), [("any_significant", "a"), ("all_significant", "ab")])
    def test_any_ends_with_the_first_and_all_when_none_is_left(self, system, rule, ends):
        mid = self.pair(system, rule, restart="temporary")
        ended = mid.ended
        for id in ends:
            assert not ended.done
            system.whereis(f"mid/{id}").stop()
        assert outcome(ended).reason == sup.Shutdown()

    def test_a_terminated_one_and_one_that_is_restarted_end_nobody(self, system, crash):
        mid = self.pair(system, "any_significant")
        assert outcome(mid.terminate_child("a")) == sup.Ok()
        with pytest.raises(Boom):
            system.whereis("mid/b").ask(crash)
        assert system.whereis("mid/b").ask(epoch) == 2
        assert mid.count_children().get() == sup.Counts(3, 2, 0, 3)


class TestSystem:
    """The outermost calls."""

    def test_whereis_takes_an_id_below_a_root_or_a_path(self, system):
        handle = system.supervise(child("a"), sup.supervisor("mid", child("worker")))
        assert system.whereis("mid/worker").path == "root/mid/worker"
        assert isinstance(system.whereis("mid"), sup.SupervisorHandle)
        assert (system.whereis("root"), system.whereis("nobody")) == (handle, None)

    def test_a_failed_start_names_child_and_reason_and_leaves_nothing(self, system):
        with pytest.raises(sup.StartFailedError) as failed:
            system.supervise(child("a"), child("b", on_start=raising(Boom("no"))))
        assert (failed.value.path, failed.value.reason.type) == ("root/b", "Boom")
        assert system.tree().children == ()

    def test_kill_is_killed_on_a_loop_and_abandoned_in_a_thread(self, system):
        system.supervise(child("a"), child("t", ObedientThread))
        for id, kind in (("a", sup.Killed), ("t", sup.Abandoned)):
            exit = exit_of(system.whereis(id))
            system.kill(system.whereis(id))
            assert isinstance(outcome(exit).reason, kind)

    def test_a_second_stop_waits_for_the_first(self, system, gate, eventually):
        system.supervise(child("it", ObedientThread, on_stop=lambda _: gate.wait(60) and None))
        stopped: list[bool] = []
        callers = [threading.Thread(target=lambda: stopped.append(system.stop()), daemon=True) for _ in range(2)]
        callers[0].start()
        eventually(lambda: system.tree().find("it").state == "stopping")
        callers[1].start()
        eventually(lambda: is_waiting(callers[1]))
        assert stopped == []
        gate.set()
        for caller in callers:
            caller.join(30)
        assert stopped == [True, True]

    def test_supervisors_have_a_scheduler_of_their_own(self, system):
        where: list[str] = []

        class Telling(sup.Supervisor):
            async def on_start(self) -> None:
                where.append(threading.current_thread().name)
                await super().on_start()

        system.supervise(sup.ChildSpec("mid", Telling, args=(child("it"),), kind="supervisor"))
        where.append(system.whereis("mid/it").ask(lambda _: threading.current_thread().name))
        assert where[0].endswith("-supervisors")
        assert where[1].endswith("-workers")

    def test_the_tree_asks_nobody_and_says_what_everybody_does(self, timed, clock, gate, crash):
        backoff = sup.Backoff(min=5, max=5, jitter=0)
        timed.supervise(
            child("busy", ObedientThread), child("waiting", backoff=backoff), child("done", restart="transient")
        )
        entered = threading.Event()
        timed.whereis("busy").tell(held(ObedientThread, gate, entered))
        assert entered.wait(30)
        timed.whereis("busy").tell("queued")
        with pytest.raises(Boom):
            timed.whereis("waiting").ask(crash)
        timed.whereis("done").stop()
        clock.advance(1)
        tree = timed.tree()
        busy, waiting, done = (tree.find(id) for id in ("busy", "waiting", "done"))
        assert (busy.state, busy.busy_for, busy.queue, busy.queue_age) == ("busy", 1, 1, 1)
        assert busy.stack
        assert (waiting.state, waiting.next_at, type(waiting.last_exit.reason)) == ("restarting", 5, sup.Crash)
        assert (done.state, tree.children[0].window, tree.dead_letters) == ("stopped", (0, 3), 0)


def parameters(callable_: Any) -> str:
    """The parameters of a callable as they are written, without annotations."""
    signature = inspect.signature(callable_)
    plain = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    plain = [each for each in plain if each.name != "self"]
    return str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))


class TestNames:
    """Every name and default is spelled as promised."""

    @pytest.mark.parametrize(
        ("what", "expected"),
        [
            (sup.Shutdown, "(info=None)"),
            (sup.Crash, "(type, message, traceback_text='')"),
            (sup.Abandoned, "(kind)"),
            (sup.GaveUp, "(chain)"),
            (sup.FailedToStart, "(id, reason)"),
            (sup.pause, "(delay)"),
            (sup.block, "(timeout)"),
            (sup.supervisor, "(id, *specs, **options)"),
            (sup.dynamic, "(id, **options)"),
            (sup.tasks, "(id, **options)"),
            (sup.partition, "(id, spec, *, partitions=None, **options)"),
            (sup.Backoff, "(*, min, max, jitter=0.2, reset_after=None)"),
            (sup.Mailbox, "(capacity=100000, overflow='fail', on_restart='keep', redeliver=0, drain=False)"),
            (sup.fresh, "()"),
            (sup.snapshot, "(*, every_messages=None, every_seconds=None, quarantine=5.0)"),
            (sup.event_log, "(path, quarantine=5.0, *, sync=False)"),
            (sup.System, "(name, *, clock=None, scheduler=None, loop_limit=1.0, kill_grace=1.0, max_zombies=16)"),
            (sup.System.supervise, "(*specs, **options)"),
            (sup.System.whereis, "(path)"),
            (sup.System.kill, "(ref)"),
            (sup.System.stop, "(deadline=None)"),
            (sup.System.unstopped_report, "()"),
            (sup.System.audit, "()"),
            (sup.System.tree, "()"),
            (sup.Actor.exit, "(reason=None)"),
            (sup.Actor.owe, "()"),
            (sup.Actor.monitor, "(ref)"),
            (sup.Actor.demonitor, "(token, flush=False)"),
            (sup.Actor.watch_name, "(ref)"),
            (sup.Actor.link, "(ref)"),
            (sup.Actor.unlink, "(ref)"),
            (sup.Actor.send_after, "(ref, message, delay, *, bound_to='incarnation')"),
            (sup.Actor.interval, "(ref, message, period, *, bound_to='incarnation')"),
            (sup.Registry.register, "(key, owner, value=None, unique=True)"),
            (sup.Registry.unregister, "(key, owner)"),
            (sup.Registry.lookup, "(key)"),
            (sup.Registry.keys, "(owner)"),
            (sup.Registry.listen, "(callback)"),
            (sup.Registry.lock, "(key)"),
            (sup.Down, "(token, ref, reason)"),
            (sup.Exited, "(ref, reason)"),
            (sup.AlreadyRegistered, "(owner)"),
            (sup.Started, "(ref, info=None)"),
            (sup.ask, "(ref, message, *, timeout=None)"),
            (testing.DeterministicScheduler, "(seed=0, *, start=0.0)"),
            (testing.Probe.wait, "(n=1, timeout=5.0)"),
            (testing.ManualClock.advance, "(seconds)"),
            (testing.ManualClock.now, "()"),
            (
                sup.ChildSpec,
                (
                    "(id, actor, args=(), kwargs=<factory>, *, restart=<Restart.PERMANENT: 'permanent'>, "
                    "shutdown=None, significant=False, kind=<Kind.WORKER: 'worker'>, start_timeout=None, "
                    "backoff=None, on_exhausted=None, expected_errors=None, mailbox=None, scheduler=None, "
                    "max_handle_time=None, state=None)"
                ),
            ),
            (
                sup.SupervisorOptions,
                (
                    "(*, strategy=<Strategy.ONE_FOR_ONE: 'one_for_one'>, max_restarts=3, max_seconds=5.0, "
                    "auto_shutdown=<AutoShutdown.NEVER: 'never'>, on_exhausted=<ExhaustedWord.ESCALATE: 'escalate'>)"
                ),
            ),
        ],
        ids=lambda value: getattr(value, "__qualname__", None),
    )
    def test_a_signature(self, what, expected):
        assert parameters(what) == expected
