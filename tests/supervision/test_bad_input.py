"""Every public entry point, called wrongly: a typed error that says what is wrong and where, at once, and no harm done.

Each row is a call, the error it raises, and what the text must name. None may hang.
"""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pykka
import pytest
from tree_rig import Boom, Obedient, ObedientThread

import supervision as sup
from supervision.errors import SpecError

pytestmark = pytest.mark.timeout(15)

Row = tuple[str, Callable[..., Any], type[BaseException], str]


def rows(*table: Row) -> Any:
    return pytest.mark.parametrize(
        ("wrong", "error", "told"), [row[1:] for row in table], ids=[row[0] for row in table]
    )


class Worker(sup.Actor):
    def __init__(self, size: int = 1) -> None:
        super().__init__()


def spec(id: str = "w", actor: Any = Worker, **fields: Any) -> sup.ChildSpec:
    return sup.ChildSpec(id, actor, **fields)


class Bare(pykka.Actor):
    """Neither on a loop nor in a thread."""

    @staticmethod
    def _create_actor_inbox() -> Any: ...

    @staticmethod
    def _create_future() -> Any: ...

    def _start_actor_loop(self) -> None: ...


class OwnLoop(pykka.ThreadingActor):
    def _actor_loop(self) -> None: ...


# --- numbers, wherever there are any -----------------------------------------------------------------------------

NO_SECONDS = [True, "1", None, math.nan, math.inf, -1, -0.5, 1j, [1]]
NO_COUNTS = [True, "1", None, math.nan, 1.5, -1, [1]]

NUMBERS: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
    "shutdown": (lambda x: spec(shutdown=x), NO_SECONDS),
    "start_timeout": (lambda x: spec(start_timeout=x), [*NO_SECONDS, 0]),
    "max_handle_time": (lambda x: spec(max_handle_time=x), [*NO_SECONDS, 0]),
    "Backoff.min": (lambda x: sup.Backoff(min=x, max=2), [*NO_SECONDS, 0]),
    "Backoff.max": (lambda x: sup.Backoff(min=1, max=x), [*NO_SECONDS, 0]),
    "Backoff.jitter": (lambda x: sup.Backoff(min=1, max=2, jitter=x), NO_SECONDS),
    "Backoff.reset_after": (lambda x: sup.Backoff(min=1, max=2, reset_after=x), NO_SECONDS),
    "Mailbox.capacity": (lambda x: sup.Mailbox(capacity=x), [*NO_COUNTS, 0]),
    "Mailbox.redeliver": (lambda x: sup.Mailbox(redeliver=x), NO_COUNTS),
    "block(timeout)": (sup.block, NO_SECONDS),
    "pause(delay)": (sup.pause, [*NO_SECONDS, 0]),
    "snapshot(every_messages)": (lambda x: sup.snapshot(every_messages=x, every_seconds=1), [*NO_COUNTS, 0]),
    "snapshot(every_seconds)": (lambda x: sup.snapshot(every_seconds=x, every_messages=1), [*NO_SECONDS, 0]),
    "snapshot(quarantine)": (lambda x: sup.snapshot(every_messages=1, quarantine=x), NO_SECONDS),
    "event_log(quarantine)": (lambda x: sup.event_log("log", quarantine=x), NO_SECONDS),
    "max_restarts": (lambda x: sup.SupervisorOptions(max_restarts=x), NO_COUNTS),
    "max_seconds": (lambda x: sup.SupervisorOptions(max_seconds=x), [*NO_SECONDS, 0]),
    "loop_limit": (lambda x: sup.System("s", loop_limit=x), [*NO_SECONDS, 0]),
    "kill_grace": (lambda x: sup.System("s", kill_grace=x), NO_SECONDS),
    "max_zombies": (lambda x: sup.System("s", max_zombies=x), NO_COUNTS),
    "max_children": (lambda x: sup.tasks("t", max_children=x), NO_COUNTS),
}
MAY_BE_NONE = {"shutdown", "start_timeout", "max_handle_time", "Backoff.reset_after", "max_children"} | {
    "snapshot(every_messages)",
    "snapshot(every_seconds)",
}
SAYS_IT = {"Backoff.min": r"Backoff", "Backoff.max": r"Backoff", "pause(delay)": r"pause\(delay\)"}


@pytest.mark.parametrize("where", NUMBERS)
def test_a_number_that_is_none_is_refused_by_its_name_and_value(where: str) -> None:
    make, wrong = NUMBERS[where]
    for value in wrong:
        if value is None and where in MAY_BE_NONE:
            continue
        if value == "1" and where == "pause(delay)":
            value = "1 week"  # a text may say it, with a unit
        with pytest.raises(SpecError) as caught:
            make(value)
        text = str(caught.value)
        assert where.split("(")[0] in text, (value, text)
        assert repr(value) in text, (value, text)


# --- specs -------------------------------------------------------------------------------------------------------


@rows(
    ("id with a slash", lambda: spec("a/b"), SpecError, "child id: 'a/b'"),
    ("id empty", lambda: spec(""), SpecError, "child id: ''"),
    ("id no text", lambda: spec(b"w"), SpecError, "child id: b'w'"),
    ("actor a name", lambda: spec(actor="Worker"), SpecError, "child 'w': actor 'Worker' is neither"),
    ("actor None", lambda: spec(actor=None), SpecError, "child 'w': actor None is neither"),
    ("actor an instance", lambda: spec(actor=Worker()), SpecError, "child 'w': actor .*give its class"),
    ("backoff a class", lambda: spec(backoff=sup.Backoff), SpecError, "child 'w': backoff: <class.* is not Backoff"),
    ("mailbox a class", lambda: spec(mailbox=sup.Mailbox), SpecError, "child 'w': mailbox: <class.* is not Mailbox"),
    ("state a function", lambda: spec(state=sup.fresh), SpecError, "child 'w': state: <function.* is not fresh"),
    ("scheduler a number", lambda: spec(scheduler=3), SpecError, "child 'w': scheduler: 3 is not a scheduler"),
    ("errors instances", lambda: spec(expected_errors=(ValueError(),)), SpecError, "child 'w': expected_errors"),
    ("errors a class of others", lambda: spec(expected_errors=int), SpecError, "child 'w': expected_errors"),
    ("restart a member of others", lambda: spec(restart=sup.Kind.WORKER), SpecError, "child 'w': restart: .*'perm"),
    ("strategy", lambda: sup.supervisor("m", strategy="one"), SpecError, "strategy: 'one' is not one of 'one_for_one'"),
    ("unknown option", lambda: sup.supervisor("m", max_restart=1), SpecError, "did you mean 'max_restarts'"),
    ("no spec below", lambda: sup.supervisor("m", Worker), SpecError, "Worker.* is not a ChildSpec"),
    ("doubled id below", lambda: sup.supervisor("m", spec(), spec()), SpecError, "child 'w': there is already"),
    ("tasks, unknown option", lambda: sup.tasks("t", max_child=1), SpecError, "child 't': .*max_child"),
    ("dynamic, a strategy", lambda: sup.dynamic("d", strategy="one_for_all"), SpecError, "strategy: a Dynamic"),
    ("dynamic, too few", lambda: sup.dynamic("d", max_children=-1), SpecError, "max_children: -1"),
    ("dynamic, unknown", lambda: sup.dynamic("d", max_child=1), SpecError, "no field 'max_child'"),
    ("partitions of nothing", lambda: sup.partition("p", Worker, partitions=2), SpecError, "is not a ChildSpec"),
    ("partitions by half", lambda: sup.partition("p", spec(), partitions=1.5), SpecError, "partitions: 1.5"),
    ("overflow", lambda: sup.Mailbox(overflow="explode"), SpecError, "Mailbox.overflow: 'explode'"),
    ("on_restart", lambda: sup.Mailbox(on_restart="lose"), SpecError, "Mailbox.on_restart: 'lose'"),
    ("drain", lambda: sup.Mailbox(drain=1), SpecError, "Mailbox.drain: 1"),
    ("min over max", lambda: sup.Backoff(min=2, max=1), SpecError, "min 2.0 is greater than max 1.0"),
    ("a snapshot of never", lambda: sup.snapshot(), SpecError, "every_messages= or every_seconds="),
    ("a log nowhere", lambda: sup.event_log(""), SpecError, r"event_log\(path\): ''"),
    ("a log in a number", lambda: sup.event_log(3), SpecError, r"event_log\(path\): 3"),
)  # fmt: skip
def test_a_wrong_description_is_refused_when_it_is_made(
    wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        wrong()


# --- systems -----------------------------------------------------------------------------------------------------


@rows(
    ("no name", lambda: sup.System(""), SpecError, "system name: ''"),
    ("a slash", lambda: sup.System("a/b"), SpecError, "system name: 'a/b'"),
    ("no text", lambda: sup.System(None), SpecError, "system name: None"),
    ("clock a class", lambda: sup.System("s", clock=Boom), SpecError, "System clock: .*now and call_at"),
    ("clock a function", lambda: sup.System("s", clock=lambda: 0), SpecError, "System clock: .*now and call_at"),
    ("scheduler a loop", lambda: sup.System("s", scheduler="loop"), SpecError, "System scheduler: 'loop' is not"),
)  # fmt: skip
def test_a_system_that_cannot_be_starts_no_thread(wrong: Callable[..., Any], error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        wrong()


class NotCalled:
    def __init__(self, *args: Any) -> None:
        raise AssertionError("it must not be constructed")


@rows(
    ("no spec", lambda s: s.supervise(Worker), SpecError, "Worker.* is not a ChildSpec"),
    ("a list", lambda s: s.supervise([spec()]), SpecError, "is not a ChildSpec"),
    ("unknown option", lambda s: s.supervise(strategi=1), SpecError, "no field 'strategi'; did you mean 'strategy'"),
    ("doubled id", lambda s: s.supervise(spec(), spec()), SpecError, "child 'w': there is already a child"),
    ("no actor class", lambda s: s.supervise(spec(actor=NotCalled)), SpecError, "child 'w': NotCalled is no"),
    ("neither kind", lambda s: s.supervise(spec(actor=Bare)), SpecError, "child 'w': Bare is neither"),
    ("a loop of its own", lambda s: s.supervise(spec(actor=OwnLoop)), SpecError, "child 'w': OwnLoop overrides _actor"),
    ("deep below", lambda s: s.supervise(sup.ChildSpec("m", sup.Supervisor, (3,))), SpecError, "3 is not a ChildSpec"),
    ("an option deep below",
     lambda s: s.supervise(sup.ChildSpec("m", sup.Supervisor, kwargs={"max_restarts": -1})), SpecError, "restarts: -1"),
    ("significant for nobody",
     lambda s: s.supervise(spec(restart="transient", significant=True)), SpecError, "child 'w': significant"),
    ("no such argument",
     lambda s: s.supervise(spec(args=(1, 2))), sup.StartFailedError, r"root/w could not .*__init__\(\) takes"),
    ("a factory of nothing",
     lambda s: s.supervise(spec(actor=lambda: None)), sup.StartFailedError, "the factory of root/w made NoneType"),
    ("a factory of threads",
     lambda s: s.supervise(spec(actor=lambda: ObedientThread())), sup.StartFailedError, "root/w .*put its class into"),
    ("a partial of no actor",
     lambda s: s.supervise(spec(actor=functools.partial(int, 3))), SpecError, "child 'w': int is"),
    ("stop: text", lambda s: s.stop("1"), SpecError, r"stop\(deadline\): '1'"),
    ("stop: negative", lambda s: s.stop(-1), SpecError, r"stop\(deadline\): -1"),
    ("stop: nan", lambda s: s.stop(math.nan), SpecError, r"stop\(deadline\): nan"),
    ("stop: bool", lambda s: s.stop(True), SpecError, r"stop\(deadline\): True"),
    ("whereis a ref", lambda s: s.whereis(s.supervise()), SpecError, r"whereis\(path\): <ActorRef"),
    ("kill a path", lambda s: s.kill("w"), SpecError, r"kill\(ref\): 'w'"),
    ("kill nobody", lambda s: s.kill(None), SpecError, r"kill\(ref\): None"),
    ("listen", lambda s: s.events.subscribe("print"), SpecError, r"subscribe\(listener\): 'print'"),
)  # fmt: skip
def test_a_system_refuses_what_cannot_be(
    system: sup.System, wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        wrong(system)
    assert system.whereis("w") is None
    handle = system.supervise(spec())
    assert handle.count_children().get(timeout=30).active == 1


def test_a_supervisor_is_nothing_that_starts_by_itself() -> None:
    with pytest.raises(SpecError, match=r"Supervisor.* lives in a System"):
        sup.Supervisor.start(spec())


def test_a_stopped_system_refuses_all_there_is(make_system: Callable[..., sup.System]) -> None:
    system = make_system()
    handle = system.supervise(spec(actor=Obedient))
    ref = system.whereis("w")
    system.stop(60)
    with pytest.raises(sup.SystemClosed, match="'test0' has been stopped"):
        system.supervise(spec())
    with pytest.raises(sup.ActorDeadError, match="root/w is dead"):
        ref.tell("anybody?")
    with pytest.raises(sup.ActorDeadError, match="root/w is dead"):
        ref.ask("anybody?")
    with pytest.raises(sup.ActorDeadError, match="root/w is dead"):
        ref.ask("anybody?", block=False).get(timeout=30)
    with pytest.raises(sup.ActorDeadError, match="root/w is dead"):
        ref.proxy().anything.get(timeout=30)
    with pytest.raises(sup.ActorDeadError, match="root is dead"):
        handle.start_child(spec("late")).get(timeout=30)
    assert (system.whereis("w"), ref.stop(), ref.is_alive(), handle.ended.get(timeout=30).path) == (
        None,
        False,
        False,
        "root",
    )
    assert system.stop() is True


# --- calls to a supervisor ---------------------------------------------------------------------------------------


@rows(
    ("start no spec", lambda h: h.start_child(Worker), SpecError, "Worker.* is not a ChildSpec"),
    ("start no actor", lambda h: h.start_child(spec(actor=int)), SpecError, "child 'w': int is no pykka.Actor"),
    ("start a supervisor of nothing",
     lambda h: h.start_child(sup.ChildSpec("m", sup.Supervisor, (3,))), SpecError, "3 is not a ChildSpec"),
    ("restart a ref", lambda h: h.restart_child(h), SpecError, r"restart_child\(id\): <ActorRef"),
    ("terminate a list", lambda h: h.terminate_child(["w"]), SpecError, r"terminate_child\(id\): \['w'\]"),
    ("delete nobody", lambda h: h.delete_child(None), SpecError, r"delete_child\(id\): None"),
    ("a spec of a spec", lambda h: h.get_childspec(spec()), SpecError, r"get_childspec\(id\): ChildSpec"),
    ("other options", lambda h: h.reconfigure({}, []), SpecError, r"reconfigure\(options\): \{\}"),
    ("other specs", lambda h: h.reconfigure(sup.SupervisorOptions(), [3]), SpecError, "3 is not a ChildSpec"),
    ("no specs", lambda h: h.reconfigure(sup.SupervisorOptions(), 3), SpecError, r"reconfigure\(specs\): 3"),
    ("one spec", lambda h: h.reconfigure(sup.SupervisorOptions(), spec()), SpecError, r"reconfigure\(specs\): Child"),
    ("a stray message", lambda h: h.ask("hello", timeout=30), TypeError, "does not understand str"),
)  # fmt: skip
def test_a_supervisor_refuses_what_cannot_be_and_lives_on(
    system: sup.System, wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    handle = system.supervise(spec("other"))
    with pytest.raises(error, match=told):
        wrong(handle)
    assert handle.count_children().get(timeout=30) == sup.Counts(1, 1, 0, 1)
    assert handle.name.epoch == 1


@rows(
    ("dynamic: no spec", lambda s: s.whereis("d").start_child(Worker), SpecError, "is not a ChildSpec"),
    ("dynamic: by id", lambda s: s.whereis("d").terminate_child("w"), TypeError, "of root/d takes the child's ref"),
    ("dynamic: no such call", lambda s: s.whereis("d").restart_child("w"), sup.NoSuchCall, "root/d .* use start_child"),
    ("partition: a key", lambda s: s.whereis("p").route(1.5), TypeError, "a key to route by .* not float: 1.5"),
    ("partition: by half", lambda s: s.whereis("p").resize(1.5), SpecError, "1.5"),
    ("registry: nobody", lambda s: s.registry.register("key", None), TypeError, "None"),
    ("registry: a list", lambda s: s.registry.register(["key"], s.whereis("d")), TypeError, "unhashable"),
    ("registry: listen", lambda s: s.registry.listen("print"), SpecError, r"listen\(callback\): 'print'"),
)
def test_the_other_kinds_refuse_what_cannot_be_and_live_on(
    system: sup.System, wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    system.supervise(sup.dynamic("d"), sup.partition("p", spec("w", Obedient), partitions=2))
    with pytest.raises(error, match=told):
        wrong(system)
    assert system.whereis("d").count_children().get(timeout=30).active == 0
    assert system.whereis("p").route("key").ask("still here", timeout=30) == "still here"
    assert (system.whereis("d").name.epoch, system.whereis("p").name.epoch) == (1, 1)


def test_refusals_that_depend_on_the_moment_are_values(system: sup.System) -> None:
    handle = system.supervise(spec())
    said = [
        handle.start_child(spec()),
        handle.restart_child("w"),
        handle.delete_child("w"),
        handle.terminate_child("nobody"),
        handle.terminate_child("w/below"),
        handle.get_childspec("nobody"),
        handle.start_child(spec("x", restart="transient", significant=True)),
        handle.start_child(spec("y", args=(1, 2))),
    ]
    names = [type(future.get(timeout=30)).__name__ for future in said]
    assert names == [
        "AlreadyStarted", "Running", "Running", "NotFound", "NotFound", "NotFound", "Refused", "StartError"
    ]  # fmt: skip


# --- asking and telling ------------------------------------------------------------------------------------------

NO_TIMEOUT = ["1", math.nan, True, [1], 1j]


@pytest.mark.parametrize("value", NO_TIMEOUT, ids=repr)
def test_a_timeout_that_is_no_number_is_refused_before_anything_is_sent(
    system: sup.System, obedient: Any, value: Any
) -> None:
    system.supervise(spec(actor=obedient))
    ref = system.whereis("w")
    for call in (
        lambda: ref.ask("a", timeout=value),
        lambda: ref.ask("a", block=False, timeout=value),
        lambda: ref.ask(lambda actor: actor.owe(), block=False).get(timeout=value),
        lambda: asyncio.run(sup.ask(ref, "a", timeout=value)),
        lambda: ref.stop(timeout=value),
    ):
        with pytest.raises(SpecError, match=r"timeout.* is not a number of seconds"):
            call()
    assert ref.ask(lambda actor: actor.seen, timeout=30) == []


def test_a_timeout_in_the_past_is_over_at_once_and_an_infinite_one_never(system: sup.System, obedient: Any) -> None:
    system.supervise(spec(actor=obedient))
    ref = system.whereis("w")
    for past in (-1, -0.0, -1e9):
        with pytest.raises(pykka.Timeout):
            ref.ask(lambda actor: actor.owe(), timeout=past)
    assert ref.ask("a", timeout=math.inf) == "a"
    assert ref.ask("b", block=False, timeout=math.inf).get(timeout=math.inf) == "b"


# --- in a handler ------------------------------------------------------------------------------------------------


@rows(
    ("monitor nobody", lambda a: a.monitor(None), TypeError, "None is no supervision.ActorRef"),
    ("monitor a path", lambda a: a.monitor("w"), TypeError, "'w' is no supervision.ActorRef"),
    ("watch a name", lambda a: a.watch_name("w"), TypeError, "'w' is no supervision.ActorRef"),
    ("link nobody", lambda a: a.link(None), TypeError, "None is no supervision.ActorRef"),
    ("unlink nobody", lambda a: a.unlink(None), TypeError, "None is no supervision.ActorRef"),
    ("a message to nobody", lambda a: a.send_after(None, "m", 1), SpecError, r"send_after\(ref\): None is no ref"),
    ("a delay in words", lambda a: a.send_after(a.actor_ref, "m", "1s"), SpecError, r"send_after\(delay\): '1s'"),
    ("a delay of nan", lambda a: a.send_after(a.actor_ref, "m", math.nan), SpecError, r"send_after\(delay\): nan"),
    ("a delay for ever", lambda a: a.send_after(a.actor_ref, "m", math.inf), SpecError, r"send_after\(delay\): inf"),
    ("a period of nothing", lambda a: a.interval(a.actor_ref, "m", 0), SpecError, r"interval\(period\): 0"),
    ("a period of nan", lambda a: a.interval(a.actor_ref, "m", math.nan), SpecError, r"interval\(period\): nan"),
    ("a period for nobody", lambda a: a.interval("w", "m", 1), SpecError, r"interval\(ref\): 'w' is no ref"),
    ("two replies", lambda a: (a.owe(), a.owe()), RuntimeError, "root/w: the reply to this message is owed already"),
    ("a reason in words", lambda a: a.exit("enough"), SpecError, r"exit\(reason\): 'enough' is no reason"),
    ("supervise", lambda a: a.tree.supervise(spec("x")), sup.BlockingInScheduler, "start_child of a supervisor"),
    ("asking oneself", lambda a: a.actor_ref.ask(1), sup.DeadlockError, "root/w waits for itself"),
)  # fmt: skip
def test_a_handler_hears_what_it_did_wrong(
    system: sup.System, wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    class Sees(Obedient):
        tree = system

    system.supervise(spec(actor=Sees, expected_errors=(Exception,)))
    with pytest.raises(error, match=told):
        system.whereis("w").ask(wrong, timeout=30)
    assert system.whereis("w").ask("still here", timeout=30) == "still here"


def test_tools_of_a_life_outside_a_handler_are_refused(system: sup.System) -> None:
    actor = Obedient()
    with pytest.raises(RuntimeError, match=r"owe\(\) is for a handler"):
        actor.owe()


# --- tasks -------------------------------------------------------------------------------------------------------


async def done() -> str:
    return "done"


@rows(
    ("a coroutine", lambda t: t.run(done()), TypeError, "is a coroutine function .*, not <coroutine"),
    ("no function", lambda t: t.start(3), TypeError, "is a coroutine function .*, not 3"),
    ("a plain function", lambda t: t.run_nolink(len, "x"), TypeError, "is a coroutine function .*, not <built-in"),
    ("a restart of never", lambda t: t.start(done, restart="never"), SpecError, r"start\(restart\): 'never'"),
    ("a path to terminate", lambda t: t.terminate_child("x"), TypeError, "terminate_child.*, not 'x'"),
    ("a stray message", lambda t: t.ask("hello", timeout=30), TypeError, "understands RunTask"),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_task_supervisor_refuses_what_is_no_task_and_lives_on(
    system: sup.System, wrong: Callable[..., Any], error: type[Exception], told: str
) -> None:
    system.supervise(sup.tasks("t"))
    handle = system.whereis("t")
    with pytest.raises(error, match=told):
        wrong(handle)
    assert handle.run(done).get(timeout=30) == "done"
    assert handle.name.epoch == 1


def test_a_path_of_a_log_may_be_a_text_or_a_path() -> None:
    assert sup.event_log("log") == sup.event_log(Path("log"))
