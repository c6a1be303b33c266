"""A handler that does not come back is told, asked, cancelled and at last left behind; a lost exit is made up."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
from tree_rig import Obedient, ObedientThread, exit_of

import supervision as sup
from supervision.hosting.hosts import LoopIncarnation, ThreadIncarnation
from supervision.testing import ManualClock

GRACE = 0.05


@pytest.fixture
def still(make_system, clock, events, monkeypatch):
    """A system whose time stands still, and whose watchdog looks when the test says so."""
    monkeypatch.setattr("supervision.stuck.watchdog.Watchdog.start", lambda self: None)
    system = make_system(clock=clock, kill_grace=GRACE, loop_limit=3600.0)  # no real loop is judged by a test's time
    system.events.subscribe(events.append)
    return system


class Looks:
    """Calls a watchdog's ticks at times of the test's own."""

    def __init__(self, system: sup.System) -> None:
        self._watchdog, self._now = system.watchdog, 1000.0

    def __call__(self, seconds: float = 0.0) -> None:
        """Look, `seconds` of real time later; no look comes late."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(end, self._now + GRACE)
            self._watchdog.tick(self._now)
        if not seconds:
            self._watchdog.tick(self._now)

    def after_a_gap(self, seconds: float) -> None:
        """Look once, as late as this."""
        self._now += seconds
        self._watchdog.tick(self._now)


@pytest.fixture
def look(still) -> Looks:
    return Looks(still)


def names_of(events: list[sup.Event]) -> list[str]:
    return [event.name for event in events]


def block(gate: threading.Event, entered: threading.Event, seen: list[Any] | None = None) -> Any:
    def handler(actor: Any) -> Any:
        entered.set()
        while not gate.wait(0.005):
            if seen is not None:
                seen.append(actor.context.cancelled)
        return "late"

    return handler


def suspend(entered: threading.Event, deaf: bool = False) -> Any:
    """A handler that waits for ever; a deaf one takes no notice of its first cancellations."""

    async def handler(actor: Any) -> Any:
        entered.set()
        for _ in range(2 if deaf else 0):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    return handler


@pytest.fixture
def fine_grained() -> Iterator[None]:
    """Threads change place very often, so that anything may come between anything."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


# -- the ladder -------------------------------------------------------------------------------------------


def test_a_handler_within_its_time_is_let_alone(still, clock, look, events, gate, entered):
    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=10.0))
    asked = still.whereis("it").ask(block(gate, entered), block=False)
    assert entered.wait(30)
    clock.advance(9.9)
    look(1.0)
    gate.set()
    assert asked.get(timeout=30) == "late"
    assert "long_turn" not in names_of(events)


def test_the_first_step_tells_where_it_is(still, clock, look, events, gate, entered, eventually):
    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=10.0))
    still.whereis("it").tell(block(gate, entered))
    assert entered.wait(30)
    clock.advance(12.0)
    look()
    (event,) = eventually(lambda: [each for each in events if each.name == "long_turn"])
    assert (event.path, event.epoch, event.info["message"], event.info["seconds"]) == ("root/it", 1, "function", 12.0)
    assert "in handler" in event.info["stack"]
    look()
    assert names_of(events).count("long_turn") == 1


def test_a_suspended_handler_shows_where_it_waits(still, clock, look, events, entered, eventually):
    still.supervise(sup.ChildSpec("it", Obedient, max_handle_time=1.0))
    still.whereis("it").tell(suspend(entered))
    assert entered.wait(30)
    clock.advance(1.0)
    look()
    (event,) = eventually(lambda: [each for each in events if each.name == "long_turn"])
    assert "in handler" in event.info["stack"]
    look(GRACE * 2)


def test_the_second_step_asks_it_to_end_and_may_close_what_it_waits_for(still, clock, look, gate, entered, eventually):
    class Reader(ObedientThread):
        def on_cancel(self) -> None:
            gate.set()  # as one closes a socket

    still.supervise(sup.ChildSpec("it", Reader, max_handle_time=1.0))
    ref, seen = still.whereis("it"), []
    asked = ref.ask(block(gate, entered, seen), block=False)
    assert entered.wait(30)
    eventually(lambda: seen)
    clock.advance(1.0)
    look()
    assert not any(seen)
    look(GRACE)
    assert asked.get(timeout=30) == "late"
    assert ref.ask(lambda actor: actor.context.cancelled, timeout=30) is False
    assert ref.name.epoch == 1


def test_a_handler_can_see_that_it_is_to_end(still, clock, look, entered):
    def until_cancelled(actor: Any) -> str:
        entered.set()
        while not actor.context.cancelled:
            time.sleep(0.001)
        return "gave up by myself"

    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=1.0))
    asked = still.whereis("it").ask(until_cancelled, block=False)
    assert entered.wait(30)
    clock.advance(1.0)
    look(GRACE * 2)
    assert asked.get(timeout=30) == "gave up by myself"


@pytest.mark.parametrize("hook", ["raises", "hangs", "is async"])
def test_a_bad_on_cancel_holds_nothing_up(still, clock, look, gate, entered, hook):
    class Bad(ObedientThread):
        def on_cancel(self) -> Any:
            if hook == "raises":
                raise SystemExit("no")
            if hook == "hangs":
                gate.wait()
            return asyncio.sleep(0) if hook == "is async" else None

    still.supervise(sup.ChildSpec("it", Bad, max_handle_time=1.0))
    ref = still.whereis("it")
    ref.tell(block(gate, entered))
    assert entered.wait(30)
    clock.advance(1.0)
    look()
    look(GRACE * 4)
    assert ref.ask("replaced", timeout=30) == "replaced"


def test_the_third_step_cancels_and_the_exit_says_that_it_was_stuck(still, clock, look, entered, eventually):
    still.supervise(sup.ChildSpec("it", Obedient, max_handle_time=1.0))
    ref = still.whereis("it")
    over = exit_of(ref)
    asked = ref.ask(suspend(entered), block=False)
    assert entered.wait(30)
    clock.advance(2.0)
    look()
    look(GRACE)
    assert ref.name.incarnation.exit is None
    look(GRACE)
    reason = over.get(timeout=30).reason
    assert (reason.type, reason.message) == ("Stuck", "function for 2 s, with a max_handle_time of 1 s")
    assert "in handler" in reason.traceback_text
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert ref.ask("replaced", timeout=30) == "replaced"
    eventually(lambda: still.unstopped_report() == [])


def test_the_fourth_step_leaves_it_behind(still, clock, look, events, gate, entered, eventually):
    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=1.0))
    ref = still.whereis("it")
    over = exit_of(ref)
    asked = ref.ask(block(gate, entered), block=False)
    assert entered.wait(30)
    for n in range(3):
        ref.tell(n)
    clock.advance(1.0)
    look()
    look(GRACE * 3)
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.Abandoned)
    assert "stuck" in reason.kind
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert ref.ask(lambda actor: actor.seen, timeout=30) == [0, 1, 2]
    eventually(lambda: [zombie.name.path for zombie in still.zombies] == ["root/it"])
    gate.set()
    eventually(lambda: still.zombies == [] and "zombie_ended" in names_of(events))


def test_one_that_ignores_its_cancellation_is_left_behind_too(still, clock, look, entered, eventually):
    still.supervise(sup.ChildSpec("it", Obedient, max_handle_time=1.0))
    ref = still.whereis("it")
    over = exit_of(ref)
    ref.tell(suspend(entered, deaf=True))
    assert entered.wait(30)
    clock.advance(1.0)
    look()
    look(GRACE * 2)
    assert isinstance(over.get(timeout=30).reason, sup.Abandoned)
    assert ref.ask("replaced", timeout=30) == "replaced"


def test_each_message_begins_at_the_foot_of_the_ladder(still, clock, look, events, entered, eventually):
    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=1.0))
    ref = still.whereis("it")
    for n in range(1, 4):
        gate = threading.Event()
        entered.clear()
        asked = ref.ask(block(gate, entered), block=False)
        assert entered.wait(30)
        clock.advance(1.0)
        look()
        eventually(lambda n=n: names_of(events).count("long_turn") == n)
        gate.set()
        assert asked.get(timeout=30) == "late"
        look(GRACE)
    assert ref.name.epoch == 1


def test_late_looks_push_nobody_up_the_ladder(still, clock, look, gate, entered):
    still.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=1.0))
    ref = still.whereis("it")
    asked = ref.ask(block(gate, entered), block=False)
    assert entered.wait(30)
    clock.advance(1.0)
    look()
    for _ in range(10):
        look.after_a_gap(30.0)
    gate.set()
    assert asked.get(timeout=30) == "late"


def test_a_pure_python_loop_that_allows_it_is_interrupted(still, clock, look, entered, eventually):
    class Computes(ObedientThread):
        interruptible = True

    def forever(actor: Any) -> None:
        entered.set()
        while True:
            try:
                sum(range(10))
            except Exception:  # noqa: BLE001  (the point: Stuck is none)
                continue

    still.supervise(sup.ChildSpec("it", Computes, max_handle_time=1.0))
    ref = still.whereis("it")
    over = exit_of(ref)
    asked = ref.ask(forever, block=False)
    assert entered.wait(30)
    clock.advance(3.0)
    look()
    look(GRACE * 2)
    assert (over.get(timeout=30).reason.type, over.get().reason.message) == (
        "Stuck",
        "function for 3 s, with a max_handle_time of 1 s",
    )
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert ref.ask("replaced", timeout=30) == "replaced"
    assert still.zombies == []


def test_an_interrupt_never_gets_into_the_runtime(make_system, fine_grained):
    """It may come in the very moment the handler ends: the message is answered, and exactly one exit reported."""

    class Quick(ObedientThread):
        interruptible = True

    system = make_system()
    system.supervise(sup.ChildSpec("it", Quick), max_restarts=10**6)
    ref, entered = system.whereis("it"), threading.Event()

    def spin(rounds: int) -> Any:
        def handler(actor: Any) -> int:
            entered.set()
            return sum(1 for _ in range(rounds))

        return handler

    for n in range(200):
        rounds = 400 * n
        entered.clear()
        asked = ref.ask(spin(rounds), block=False)
        assert entered.wait(30)
        if (life := ref.name.incarnation) is not None:
            life.interrupt(life.work.turn, "for a test")
        with contextlib.suppress(sup.ActorStuck):
            assert asked.get(timeout=30) == rounds
    assert ref.ask("well", timeout=30) == "well"
    assert ref.name.epoch > 1


def test_a_handler_without_a_limit_is_only_told_when_its_asker_has_gone(
    still, clock, look, events, gate, entered, eventually
):
    still.supervise(sup.ChildSpec("it", ObedientThread))
    ref = still.whereis("it")
    ref.ask(block(gate, entered), block=False, timeout=5.0)
    assert entered.wait(30)
    clock.advance(4.0)
    look(1.5)
    assert "long_turn" not in names_of(events)
    clock.advance(2.0)
    look(3.0)
    gate.set()
    assert ref.ask("still the same", block=False).get(timeout=30) == "still the same"
    eventually(lambda: names_of(events).count("long_turn") == 1)
    assert ref.name.epoch == 1


def test_an_actor_that_owes_its_answer_is_not_stuck(still, clock, look, events):
    still.supervise(sup.ChildSpec("it", Obedient, max_handle_time=1.0))
    ref = still.whereis("it")
    asked = ref.ask(lambda actor: actor.owe(), block=False, timeout=2.0)
    assert ref.ask("next", block=False).get(timeout=30) == "next"
    clock.advance(3.0)
    look(3.0)
    assert "long_turn" not in names_of(events)
    assert ref.name.epoch == 1
    with pytest.raises(pykka.Timeout):
        asked.get(timeout=30)


def test_a_supervisor_has_no_max_handle_time(still):
    with pytest.raises(sup.SpecError, match="max_handle_time"):
        still.supervise(sup.ChildSpec("mid", sup.Supervisor, kind="supervisor", max_handle_time=1.0))


# -- lost exits -------------------------------------------------------------------------------------------


def test_a_thread_that_ended_without_a_word_gets_its_exit_made_up(still, look, monkeypatch, eventually):
    monkeypatch.setattr(ThreadIncarnation, "_run", lambda self: None)
    failures: list[BaseException] = []

    def supervise() -> None:
        try:
            still.supervise(sup.ChildSpec("it", ObedientThread))
        except sup.StartFailedError as error:
            failures.append(error)

    starting = threading.Thread(target=supervise)
    starting.start()
    eventually(lambda: (name := still.names.known("root/it")) and name.incarnation and name.incarnation.is_host_gone)
    look(2.0)
    starting.join(30)
    assert "ExitLost" in str(failures[0])


def test_a_task_that_ended_without_a_word_gets_its_exit_made_up(still, look, monkeypatch, eventually):
    still.supervise(sup.ChildSpec("it", Obedient))
    ref = still.whereis("it")
    former = ref.name.incarnation
    with monkeypatch.context() as patch:
        patch.setattr(LoopIncarnation, "_before_exit", forgets_everything)
        former.scheduler.post(former._task.cancel)
        eventually(lambda: former.is_host_gone)
    assert former.exit is None
    waiting = ref.ask("kept", block=False)
    look(2.0)
    assert waiting.get(timeout=30) == "kept"
    assert (former.exit.reason.type, ref.name.epoch) == ("ExitLost", 2)


async def forgets_everything(self: Any, reason: Any) -> None:
    """In place of what reports an exit."""


def test_a_supervisor_that_ended_without_a_word_leaves_no_orphan(still, look, monkeypatch, eventually):
    from supervision.kinds import SupervisorIncarnation

    still.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient)))
    mid, ref = still.whereis("mid"), still.whereis("mid/it")
    former, orphan = mid.name.incarnation, ref.name.incarnation
    with monkeypatch.context() as patch:
        patch.setattr(SupervisorIncarnation, "_before_exit", forgets_everything)
        former.scheduler.post(former._task.cancel)
        eventually(lambda: former.is_host_gone)
    look(2.0)
    eventually(lambda: ref.name.epoch == 2)
    assert orphan.exit is not None
    assert ref.ask("again", timeout=30) == "again"


def test_the_sweep_leaves_the_living_alone(still, look):
    still.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", ObedientThread))
    look(5.0)
    assert [still.whereis(id).name.epoch for id in "ab"] == [1, 1]


# -- the thread itself ------------------------------------------------------------------------------------


def watchdogs(system: sup.System) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == f"supervision-watchdog-{system.name}"]


def test_it_begins_with_the_first_tree_and_ends_with_the_system(system):
    assert watchdogs(system) == []
    system.supervise(sup.ChildSpec("it", Obedient))
    system.supervise(sup.ChildSpec("it", Obedient))
    assert len(watchdogs(system)) == 1
    assert system.stop(60)
    assert watchdogs(system) == []


def test_whatever_goes_wrong_with_one_look_it_looks_again(make_system, monkeypatch, eventually):
    looks: list[float] = []

    def stumble(self: Any, now: float) -> None:
        looks.append(now)
        raise RuntimeError("stumbled")

    monkeypatch.setattr("supervision.stuck.watchdog.Watchdog.tick", stumble)
    system = make_system(loop_limit=0.05)
    system.supervise(sup.ChildSpec("it", Obedient))
    eventually(lambda: len(looks) > 2)


def test_it_works_on_real_time_from_end_to_end(make_system, gate, entered):
    # Time enough for a handler that does nothing, on a busy machine, too.
    system = make_system(loop_limit=0.5, kill_grace=0.1)
    system.supervise(sup.ChildSpec("it", ObedientThread, max_handle_time=0.3))
    ref = system.whereis("it")
    asked = ref.ask(block(gate, entered), block=False)
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert ref.ask("replaced", timeout=30) == "replaced"


def test_looking_at_an_idle_system_costs_next_to_nothing(still, look):
    still.supervise(*(sup.ChildSpec(f"n{i}", Obedient) for i in range(200)))
    seconds = []
    for _ in range(5):  # a busy neighbour makes CPU time dearer, and nothing makes less of it
        before = time.thread_time()
        look(2.0)
        seconds.append(time.thread_time() - before)
    assert min(seconds) < 0.05
    assert isinstance(still.clock, ManualClock)
