"""Abandoned code may run on for as long as it likes: it counts for nothing, and there cannot be too much of it."""

from __future__ import annotations

import io
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pykka
import pytest
from tree_rig import Obedient, ObedientThread

import supervision as sup
from supervision.hosting.hosts import ThreadIncarnation
from supervision.name import Name
from supervision.view.report import write_report


def block(gate: threading.Event, entered: threading.Event, then: Any = None) -> Any:
    def handler(actor: Any) -> Any:
        entered.set()
        gate.wait()
        return then(actor) if then is not None else "too late"

    return handler


def abandon(system: sup.System, ref: Any, gate: threading.Event, then: Any = None) -> Any:
    """Leave one life of `ref` behind in the middle of a message; the future of that message."""
    entered = threading.Event()
    asked = ref.ask(block(gate, entered, then), block=False)
    assert entered.wait(30)
    system.kill(ref)
    return asked


# -- does nothing that counts -----------------------------------------------------------------------------


def test_what_a_zombie_still_answers_reaches_nobody(system, gate, eventually):
    """Neither what it returns, nor what it sets on the reply at hand, nor on one it owed from before."""
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref, owed = system.whereis("it"), []
    early = ref.ask(lambda actor: owed.append(actor.owe()) or owed[0], block=False)
    ref.ask("has been handled", timeout=30)

    def answer_all(actor: Any) -> str:
        owed[0].set("from beyond")
        owed[1].set("from beyond")
        over.set()
        return "from beyond"

    def take_slot(actor: Any) -> Any:
        owed.append(actor.owe())
        entered.set()
        gate.wait()
        return answer_all(actor)

    entered, over = threading.Event(), threading.Event()
    late = ref.ask(take_slot, block=False)
    assert entered.wait(30)
    system.kill(ref)
    gate.set()
    assert over.wait(30)
    for future in (early, late):
        with pytest.raises(sup.ActorDeadError) as caught:
            future.get(timeout=30)
        assert isinstance(caught.value.reason, sup.Abandoned)
    assert ref.name.late == 2
    eventually(lambda: system.zombies == [])


def test_a_zombie_cannot_pass_its_debts_on(system, gate, eventually):
    system.supervise(sup.ChildSpec("it", ObedientThread), sup.ChildSpec("other", Obedient))
    ref, other, over = system.whereis("it"), system.whereis("other"), threading.Event()

    def forward(actor: Any) -> Any:
        reply.append(actor.owe())
        entered.set()
        gate.wait()
        reply[0].forward(other, "passed on")
        over.set()

    reply: list[Any] = []
    entered = threading.Event()
    asked = ref.ask(forward, block=False)
    assert entered.wait(30)
    system.kill(ref)
    gate.set()
    assert over.wait(30)
    with pytest.raises(sup.ActorStuck):
        asked.get(timeout=30)
    assert other.ask(lambda actor: actor.seen, timeout=30) == []


def test_a_zombie_takes_no_message_and_leaves_no_trace_in_the_counters(system, gate, eventually):
    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref = system.whereis("it")
    abandon(system, ref, gate)
    assert ref.ask(1, timeout=30) == 1
    counters = (ref.name.handled, ref.name.failed)
    gate.set()
    eventually(lambda: system.zombies == [])
    assert (ref.name.handled, ref.name.failed) == counters
    assert ref.ask(lambda actor: actor.seen, timeout=30) == [1]


def test_its_epoch_tells_it_from_its_replacement(system, gate):
    """Fencing: whoever keeps the highest epoch it has seen refuses the writes of a zombie."""
    writes: list[tuple[int, str]] = []
    highest = [0]

    def write(epoch: int, what: str) -> None:
        if epoch >= highest[0]:
            highest[0] = epoch
            writes.append((epoch, what))

    over = threading.Event()

    def late(actor: Any) -> None:
        assert actor.context.cancelled
        write(actor.context.epoch, "zombie")
        over.set()

    system.supervise(sup.ChildSpec("it", ObedientThread))
    ref = system.whereis("it")
    abandon(system, ref, gate, late)
    ref.ask(lambda actor: write(actor.context.epoch, "replacement"), timeout=30)
    gate.set()
    assert over.wait(30)
    assert writes == [(2, "replacement")]


def test_it_is_listed_until_its_code_ends(system, gate, eventually):
    events: list[sup.Event] = []
    system.events.subscribe(events.append)
    system.supervise(sup.ChildSpec("it", ObedientThread))
    abandon(system, system.whereis("it"), gate)
    eventually(lambda: [(left.path, "runs" in left.why) for left in system.unstopped_report()] == [("root/it", True)])
    gate.set()
    eventually(lambda: [event.epoch for event in events if event.name == "zombie_ended"] == [1])
    assert system.unstopped_report() == []


def test_one_killed_before_it_began_starts_no_thread(system):
    owner = SimpleNamespace(ended=lambda life, exit: None, zombie_ended=lambda life: None)
    life = ThreadIncarnation(Name("it", ObedientThread, clock=system.clock), ObedientThread, owner)
    life.kill()
    life.begin()
    assert life.thread is None
    assert life.exit.reason == sup.Abandoned("a thread cannot be killed")


# -- not without limit --------------------------------------------------------------------------------------


def gave_up(system: sup.System, handle: Any) -> Any:
    reason = handle.ended.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp), reason
    return reason


def test_too_many_zombies_end_their_supervisor_and_it_says_why(make_system, gate):
    system = make_system(max_zombies=2)
    handle = system.supervise(sup.ChildSpec("it", ObedientThread), max_restarts=100)
    ref = system.whereis("it")
    for _ in range(2):
        abandon(system, ref, gate)
        assert ref.ask("replaced", timeout=30) == "replaced"
    over = handle.ended
    abandon(system, ref, gate)
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp)
    assert [link.path for link in reason.chain] == ["root/it", "root"]
    assert isinstance(reason.chain[0].reason, sup.Abandoned)
    assert reason.chain[1].reason == "3 zombies, and max_zombies is 2"


def test_the_supervisor_above_starts_it_anew(make_system, gate, eventually):
    system = make_system(max_zombies=1)
    system.supervise(sup.supervisor("mid", sup.ChildSpec("it", ObedientThread), max_restarts=100))
    ref, mid = system.whereis("mid/it"), system.whereis("mid")
    abandon(system, ref, gate)
    assert ref.ask("replaced", timeout=30) == "replaced"
    abandon(system, ref, gate)
    eventually(lambda: mid.name.epoch == 2)
    assert isinstance(mid.name.last_exit.reason, sup.GaveUp)
    assert ref.ask("replaced", timeout=30) == "replaced"


def test_all_that_hang_on_one_lost_scheduler_are_one_zombie(make_system, gate, entered, eventually):
    system = make_system(max_zombies=1, loop_limit=0.1)
    system.supervise(*(sup.ChildSpec(f"n{i}", Obedient) for i in range(5)))
    system.whereis("n0").tell(block(gate, entered))
    eventually(lambda: len(system.zombies) == 5)
    assert system.whereis("n4").ask("up", timeout=30) == "up"
    assert system.zombies.excess is None
    assert system.tree().children[0].epoch == 1


class HoldsPort(ObedientThread):
    exclusive = ("port 8080",)


def test_no_replacement_starts_beside_a_zombie_that_holds_what_it_needs(make_system, gate, capfd):
    system = make_system()
    handle = system.supervise(sup.supervisor("mid", sup.ChildSpec("it", HoldsPort), sup.ChildSpec("else", Obedient)))
    over, ref = handle.ended, system.whereis("mid/it")
    abandon(system, ref, gate)
    reason = over.get(timeout=30).reason
    assert isinstance(reason, sup.GaveUp)
    assert "'port 8080' is held by a zombie, root/mid/it (incarnation 1)" in str(reason)
    assert system.run() == 70
    report, stacks = capfd.readouterr().err.split("\n", 1)
    report = json.loads(report)
    assert (report["gave_up"], report["zombies"]) == ("root", [{"path": "root/mid/it", "epoch": 1}])
    assert len(report["chain"]) >= 2
    assert "in handler" in stacks


def test_the_resource_of_a_zombie_that_has_ended_is_free(make_system, gate, eventually):
    system = make_system()
    backoff = sup.Backoff(min=0.02, max=0.02, jitter=0.0)
    handle = system.supervise(
        sup.supervisor("mid", sup.ChildSpec("it", HoldsPort), restart="permanent"),
        max_restarts=1000,
    )
    handle.start_child(
        sup.ChildSpec(
            "slow", sup.Supervisor, args=(sup.ChildSpec("it", HoldsPort),), kind="supervisor", backoff=backoff
        )
    ).get(timeout=30)
    ref = system.whereis("slow/it")
    abandon(system, ref, gate)
    eventually(lambda: system.names.known("root/slow").incarnation is None)
    gate.set()
    eventually(lambda: system.whereis("slow/it") is not None and ref.name.incarnation is not None)
    assert ref.ask("back", timeout=30) == "back"


def test_an_orderly_end_frees_the_resource_at_once(system):
    handle = system.supervise(sup.ChildSpec("it", HoldsPort))
    for _ in range(3):
        handle.terminate_child("it").get(timeout=30)
        assert type(handle.restart_child("it").get(timeout=30)).__name__ == "Started"


def test_what_is_no_list_of_resources_is_refused_before_anything_starts(system):
    class Wrong(Obedient):
        exclusive = "port 8080"

    with pytest.raises(sup.SpecError, match="exclusive"):
        system.supervise(sup.ChildSpec("it", Wrong))


def test_a_report_to_a_stream_without_a_descriptor_says_so(make_system, gate, eventually):
    system = make_system()
    system.supervise(sup.ChildSpec("it", ObedientThread))
    abandon(system, system.whereis("it"), gate)
    eventually(lambda: system.zombies)
    file = io.StringIO()
    write_report(system, sup.Exit("root", 1, sup.GaveUp(()), 0.0), file)
    lines = file.getvalue().splitlines()
    assert json.loads(lines[0])["gave_up"] == "root"
    assert "no stacks" in lines[1]


# -- the end of a system, whatever hangs ---------------------------------------------------------------------


async def deaf(actor: Any, gate: threading.Event) -> None:
    import asyncio

    while not gate.is_set():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            continue


class HangsInInit(ObedientThread):
    def __init__(self, gate: threading.Event, entered: threading.Event) -> None:
        super().__init__()
        entered.set()
        gate.wait()


class HangsInInitOnLoop(Obedient):
    def __init__(self, gate: threading.Event, entered: threading.Event) -> None:
        super().__init__()
        entered.set()
        gate.wait()


HANGS: dict[str, tuple[set[str], Any]] = {}


def hang(*left: str) -> Any:
    """Register a way to hang, with what `unstopped_report` must name."""

    def register(function: Any) -> Any:
        HANGS[function.__name__] = (set(left), function)
        return function

    return register


@hang("root/it")
def a_handler_in_a_thread(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", ObedientThread))
    system.whereis("it").tell(block(gate, entered))


@hang("root/it", "workers")
def a_handler_that_blocks_its_loop(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(block(gate, entered))


@hang("root/it", "heavy")
def a_handler_that_blocks_a_named_scheduler(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", Obedient, scheduler="heavy"), sup.ChildSpec("else", Obedient))
    system.whereis("it").tell(block(gate, entered))


@hang()
def a_handler_that_swallows_its_cancellation(system: Any, gate: Any, entered: Any) -> None:
    def begin(actor: Any) -> Any:
        entered.set()
        return deaf(actor, gate)

    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(begin)


@hang("root/it")
def on_stop_in_a_thread(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", ObedientThread, kwargs={"on_stop": lambda actor: gate.wait()}))
    entered.set()


@hang("root/it", "workers")
def on_stop_on_a_loop(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", Obedient, kwargs={"on_stop": lambda actor: gate.wait()}))
    entered.set()


@hang()
def on_stop_that_swallows_its_cancellation(system: Any, gate: Any, entered: Any) -> None:
    system.supervise(sup.ChildSpec("it", Obedient, kwargs={"on_stop": lambda actor: deaf(actor, gate)}))
    entered.set()


def starting(system: Any, spec: sup.ChildSpec) -> None:
    def supervise() -> None:
        try:
            system.supervise(spec)
        except (sup.StartFailedError, sup.SystemClosed):
            pass

    threading.Thread(target=supervise, daemon=True).start()


@hang("root/it")
def on_start_in_a_thread(system: Any, gate: Any, entered: Any) -> None:
    starting(system, sup.ChildSpec("it", ObedientThread, kwargs={"on_start": block(gate, entered)}))


@hang("root/it", "workers")
def on_start_on_a_loop(system: Any, gate: Any, entered: Any) -> None:
    starting(system, sup.ChildSpec("it", Obedient, kwargs={"on_start": block(gate, entered)}))


@hang("root/it")
def a_constructor_in_a_thread(system: Any, gate: Any, entered: Any) -> None:
    starting(system, sup.ChildSpec("it", HangsInInit, args=(gate, entered)))


@hang("root/it", "workers")
def a_constructor_on_a_loop(system: Any, gate: Any, entered: Any) -> None:
    starting(system, sup.ChildSpec("it", HangsInInitOnLoop, args=(gate, entered)))


@hang("events")
def a_listener(system: Any, gate: Any, entered: Any) -> None:
    system.events.subscribe(lambda event: entered.set() or gate.wait())
    system.supervise(sup.ChildSpec("it", Obedient))


@hang("root/it")
def a_hook_called_on_the_way(system: Any, gate: Any, entered: Any) -> None:
    class Bad(ObedientThread):
        def on_cancel(self) -> None:
            entered.set()
            gate.wait()

    system.supervise(sup.ChildSpec("it", Bad, max_handle_time=0.01))
    system.whereis("it").tell(block(gate, threading.Event()))
    assert entered.wait(30)


@pytest.mark.parametrize("way", sorted(HANGS))
def test_the_end_of_a_system_comes_in_time_whatever_hangs(make_system, gate, entered, way, eventually):
    left, make_it_hang = HANGS[way]
    system = make_system(kill_grace=0.1)
    make_it_hang(system, gate, entered)
    assert entered.wait(30)
    begin = time.monotonic()
    system.stop(0.5)
    assert time.monotonic() - begin < 15  # on a busy machine; what hangs does so for ever

    def named() -> set[str]:
        return {unstopped.path.removeprefix(f"{system.name}-") for unstopped in system.unstopped_report()}

    # What only had no time left to end comes to its end; the workers' thread may still wait for deaf tasks.
    eventually(lambda: left <= named() <= left | {"root/it", "workers"})
    eventually(lambda: pykka.ActorRegistry.get_all() == [])
    gate.set()
    eventually(lambda: system.unstopped_report() == [])


def test_a_stop_without_a_deadline_gets_past_a_blocked_loop(make_system, gate, entered):
    system = make_system(loop_limit=0.2)
    system.supervise(sup.ChildSpec("it", Obedient, shutdown=0.05))
    system.whereis("it").tell(block(gate, entered))
    assert entered.wait(30)
    done = threading.Event()
    threading.Thread(target=lambda: (system.stop(), done.set()), daemon=True).start()
    assert done.wait(30)
