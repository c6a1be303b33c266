"""One line in the log for every crash, whatever crashed and however."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_rig import HOSTS, Boom, Obedient, ObedientThread, raising

import supervision as sup
from supervision.view.crash_log import LONGEST_REASON, log_exit, one_line, where


class Mute(Exception):
    def __str__(self) -> str:
        raise Boom("no text")


ERRORS = {
    "Exception": Boom("boom"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "CancelledError": asyncio.CancelledError(),
    "MemoryError": MemoryError(),
    "without text": Mute(),
    "of several lines": Boom("one\ntwo\r\n\x1b[31mthree\u2028four"),
    "very long": Boom("x" * 100_000),
    "group": ExceptionGroup("several", [Boom("boom"), ValueError("bad")]),
}


@pytest.fixture
def lines(caplog):
    """The lines of level ERROR so far."""
    caplog.set_level(logging.DEBUG, "supervision")

    def at_error() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]

    return at_error


@pytest.mark.parametrize("host", sorted(HOSTS))
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_crash_in_a_handler_is_one_line(system, lines, eventually, host, error):
    system.supervise(sup.ChildSpec("it", HOSTS[host]))
    system.whereis("it").tell(raising(error))
    eventually(lambda: (node := system.tree().find("it")).epoch == 2 and node.state == "running" and lines())
    (line,) = lines()
    assert line.isprintable()
    assert len(line) < LONGEST_REASON + 300
    assert line.startswith(f"root/it (incarnation 1): crash: {type(error).__name__}: ")
    place = f"tree_rig.py:{raising.__code__.co_firstlineno + 4} in handler"
    assert line.endswith(f"{place}; restarting now (1 of 3 restarts used)")


@pytest.mark.parametrize("host", sorted(HOSTS))
@pytest.mark.parametrize("hook", ["on_stop", "on_failure", "recover"])
def test_a_crash_in_a_hook_is_one_line(make_system, lines, eventually, host, hook):
    system = make_system()
    failing = type("Failing", (HOSTS[host],), {hook: lambda self, *_: raising(Boom(hook))(self)})
    handle = system.supervise(sup.ChildSpec("it", failing, restart="temporary"))
    if hook == "on_stop":
        system.whereis("it").stop()
    elif hook == "on_failure":
        system.whereis("it").tell(raising(Boom("first")))
    eventually(lambda: handle.count_children().get(timeout=30).specs == 0 and lines())
    (line,) = lines()
    assert f"Boom: {'first' if hook == 'on_failure' else hook} at " in line


@pytest.mark.parametrize("host", sorted(HOSTS))
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_a_failed_start_is_one_line(make_system, lines, host, error):
    with pytest.raises(sup.StartFailedError):
        make_system().supervise(sup.ChildSpec("it", HOSTS[host], kwargs={"on_start": raising(error)}))
    (line,) = lines()
    assert line.startswith(f"root/it (incarnation 1): start failed: crash: {type(error).__name__}: ")
    assert "its supervisor root ends: shutdown: child 'it' failed to start" in line


def test_what_follows_is_told(timed, clock, lines, eventually):
    timed.supervise(
        sup.ChildSpec("waits", Obedient, backoff=sup.Backoff(min=9.0, max=9.0, jitter=0.0)),
        sup.ChildSpec("over", Obedient, restart="temporary"),
        sup.ChildSpec("dropped", Obedient, on_exhausted=sup.DROP_CHILD),
        sup.ChildSpec("paused", Obedient, on_exhausted=sup.pause(60.0)),
        max_restarts=0,
    )
    for id in ("waits", "over", "dropped", "paused"):
        timed.whereis(id).tell(raising(Boom("boom")))
    eventually(lambda: len(lines()) == 4)
    follows = {line.split()[0]: line.split("; ")[1] for line in lines()}
    assert follows["root/waits"] == "restarting in 9 s (0 of 0 restarts used)"
    assert follows["root/over"] == "removed (0 of 0 restarts used)"
    assert follows["root/dropped"] == "stopped (0 of 0 restarts used)"
    assert follows["root/paused"].startswith("restarting in ")


def test_a_batch_and_its_bystanders_are_one_line(system, lines, eventually):
    system.supervise(sup.ChildSpec("a", Obedient), sup.ChildSpec("b", Obedient), strategy="one_for_all", max_restarts=5)
    system.whereis("a").tell(raising(Boom("boom")))
    eventually(lambda: (node := system.tree().find("b")).epoch == 2 and node.state == "running" and lines())
    (line,) = lines()
    assert "restarting with its group (1 of 5" in line


def test_each_step_of_an_escalation_is_one_line(make_system, caplog, lines):
    system = make_system()
    handle = system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Obedient), max_restarts=0), max_restarts=0)
    ended = handle.ended
    system.whereis("mid/it").tell(raising(Boom("boom")))
    ended.get(timeout=30)
    assert [line.split(": ")[0] for line in lines()] == ["root/mid/it (incarnation 1)", "root/mid (incarnation 1)"]
    assert "its supervisor root/mid ends: gave up" in lines()[0]
    (last,) = [each.getMessage() for each in caplog.records if each.levelno == logging.CRITICAL]
    assert last.startswith("root (incarnation 1): gave up: root: ")


def test_a_supervisor_that_crashes_is_one_line_and_its_children_are_none(system, lines, eventually, monkeypatch):
    system.supervise(sup.supervisor("mid", sup.ChildSpec("a", Obedient), sup.ChildSpec("b", ObedientThread)))
    shell = system.whereis("mid").name.incarnation.actor.shell

    def fail(*arguments, **options):
        raise Boom("the engine")

    shell.engine.decide = fail
    system.whereis("mid").count_children()
    eventually(lambda: (node := system.tree().find("mid")).epoch == 2 and node.state == "running" and lines())
    assert [line.split(": ")[0] for line in lines()] == ["root/mid (incarnation 1)"]


def test_a_crash_that_its_crashed_supervisor_does_not_hear_of_is_told_all_the_same(system, lines, eventually):
    """The child crashes while its supervisor is swept."""
    system.supervise(
        sup.supervisor("mid", sup.ChildSpec("it", Obedient, kwargs={"on_stop": raising(Boom("late"))})),
    )
    shell = system.whereis("mid").name.incarnation.actor.shell

    def fail(event, *arguments, **options):
        raise Boom("the engine")

    shell.engine.decide = fail
    system.whereis("mid/it").tell(raising(Boom("first")))
    eventually(lambda: (node := system.tree().find("mid/it")).epoch == 2 and node.state == "running" and lines()[1:])
    told = sorted(line.split("; ")[0] for line in lines())
    assert len(told) == 2
    assert told[0].startswith("root/mid (incarnation 1): crash: Boom: the engine")
    assert told[1].startswith("root/mid/it (incarnation 1): crash: Boom: first")
    assert any("its supervisor root/mid has crashed" in line for line in lines())


def test_a_child_that_is_killed_because_it_should_be_is_no_crash(make_system, lines):
    system = make_system()
    system.supervise(sup.ChildSpec("it", Obedient, shutdown="brutal_kill"), sup.ChildSpec("other", Obedient))
    system.whereis("it").ask("ready", timeout=30)
    system.stop()
    assert lines() == []


def test_a_child_that_was_abandoned_is_one_line(make_system, lines, gate, eventually):
    system = make_system()
    system.supervise(sup.ChildSpec("it", ObedientThread))
    entered = threading.Event()
    system.whereis("it").tell(lambda actor: entered.set() or gate.wait())
    assert entered.wait(30)
    system.kill(system.whereis("it"))
    eventually(lambda: lines())
    gate.set()
    assert lines()[0].startswith("root/it (incarnation 1): abandoned: a thread cannot be killed; restarting now")


def test_the_traceback_is_told_at_debug(system, caplog, lines, eventually):
    system.supervise(sup.ChildSpec("it", Obedient))
    system.whereis("it").tell(raising(Boom("boom")))
    eventually(lambda: system.tree().find("it").epoch == 2 and lines())
    assert any(each.levelno == logging.DEBUG and "Traceback" in each.getMessage() for each in caplog.records)


def test_a_log_handler_that_fails_costs_no_restart(system, eventually):
    class Failing(logging.Handler):
        def emit(self, record):
            raise Boom("the disk is full")

    handler = Failing()
    logging.getLogger("supervision").addHandler(handler)
    try:
        system.supervise(sup.ChildSpec("it", Obedient))
        system.whereis("it").tell(raising(Boom("boom")))
        eventually(lambda: (node := system.tree().find("it")).epoch == 2 and node.state == "running")
    finally:
        logging.getLogger("supervision").removeHandler(handler)


def test_a_flood_of_crashes_loses_no_line(system, lines, eventually):
    system.supervise(sup.ChildSpec("it", Obedient), max_restarts=10**6)
    ref = system.whereis("it")
    for number in range(200):
        ref.tell(raising(Boom(str(number))))
    eventually(lambda: len(lines()) == 200)
    assert [line.split("Boom: ")[1].split()[0] for line in lines()] == [str(number) for number in range(200)]


@given(st.text(max_size=700))
def test_any_text_becomes_one_printable_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert "\n" not in line


def test_an_orderly_end_is_no_line(caplog):
    log_exit(sup.Exit("it", 1, sup.Normal(), 0.0), "")
    assert caplog.records == []


def test_where_a_crash_was_is_the_innermost_place():
    def inner():
        raise Boom("x")

    try:
        inner()
    except Boom as error:
        crash = sup.Crash.of(error)
    assert where(crash).endswith("in inner")
    assert where(sup.Crash("Boom", "x")) == where(None) == ""


def test_a_wait_before_the_restart_is_told_in_time(timed, lines, eventually):
    timed.supervise(sup.ChildSpec("it", Obedient, backoff=sup.Backoff(min=300.0, max=300.0, jitter=0.0)))
    timed.whereis("it").tell(raising(Boom("boom")))
    assert "restarting in 5 min" in eventually(lines)[0]
