"""A system that is the whole program: signals, exit codes, and the report of a tree that gave up."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest
from tree_rig import Obedient, once_served

import supervision as sup

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import signal, sys, time, threading, pykka
import supervision as sup
class Deaf(pykka.ThreadingActor):
    def on_receive(self, message): time.sleep(60)
class Worker(sup.Actor):
    def on_receive(self, message): raise ValueError(message)
def when(is_so, then):
    def wait():
        while not is_so(): time.sleep(0.005)
        then()
    threading.Thread(target=wait, daemon=True).start()
def say(word): return lambda: print(word, flush=True)
def is_served(): return signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
"""


@pytest.fixture
def start_program(monkeypatch):
    folder = Path(tempfile.mkdtemp(prefix="rd-"))  # a socket's path may have about 100 bytes, and `tmp_path` is long
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    programs = []

    def start(source):
        command = [sys.executable, "-c", PROGRAM + textwrap.dedent(source)]
        programs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT))
        assert programs[-1].stdout.readline() == "ready\n", programs[-1].stderr.read()
        return programs[-1]

    yield start
    for program in programs:
        program.kill()
        program.communicate()
    left = list(folder.glob("supervision/*"))
    shutil.rmtree(folder)
    assert left == []


def end_of(program, timeout=60):
    _, said = program.communicate(timeout=timeout)
    return program.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_with_exit_code_0(start_program, number):
    program = start_program(
        """
        system = sup.System("calm")
        system.supervise(sup.ChildSpec("it", Worker))
        when(is_served, say("ready"))
        sys.exit(system.run())
        """
    )
    program.send_signal(number)
    assert end_of(program) == (0, "")


STUCK = """
system = sup.System("stuck", kill_grace=0.05)
system.supervise(sup.ChildSpec("deaf", Deaf, shutdown=60.0))
system.whereis("deaf").tell("hang")
when(lambda: is_served() and system.tree().find("deaf").state == "busy", say("ready"))
when(lambda: system.stopping.has_begun, say("stopping"))
sys.exit(system.run(deadline={deadline}))
"""


def test_a_second_signal_ends_it_at_once_and_says_what_was_left(start_program, eventually):
    program = start_program(STUCK.format(deadline=60.0))
    program.send_signal(signal.SIGINT)
    assert program.stdout.readline() == "stopping\n"  # two signals at a time would be one
    assert program.poll() is None
    program.send_signal(signal.SIGINT)
    code, said = end_of(program)
    told = json.loads(said)
    assert (code, told["system"], told["signal"]) == (130, "stuck", "SIGINT")
    assert {"path": "root/deaf", "why": "still running"} in told["unstopped"]


def test_what_did_not_stop_within_the_deadline_is_told(start_program):
    program = start_program(STUCK.format(deadline=0.3))
    program.send_signal(signal.SIGTERM)
    code, said = end_of(program)
    told = json.loads(said.splitlines()[-1])
    assert code == 0
    assert [left["path"] for left in told["unstopped"]] == ["root/deaf"]


def test_a_give_up_ends_it_with_exit_code_70_and_a_report(start_program):
    program = start_program(
        """
        system = sup.System("frail")
        system.supervise(sup.supervisor("mid", sup.ChildSpec("it", Worker), max_restarts=0), max_restarts=0)
        when(is_served, lambda: (print("ready", flush=True), system.whereis("mid/it").tell("no\\nnumber")))
        sys.exit(system.run())
        """
    )
    code, said = end_of(program)
    (line,) = [line for line in said.splitlines() if line.startswith("{")]
    told = json.loads(line)
    assert code == 70
    assert (told["system"], told["path"]) == ("frail", "root")
    assert [link["path"] for link in told["chain"]] == ["root/mid/it", "root/mid", "root"]
    assert told["chain"][1]["reason"] == "more than 0 restarts in 5 s"
    assert (told["last_crash"]["type"], told["last_crash"]["message"]) == ("ValueError", "no\nnumber")
    assert "Traceback" in told["last_crash"]["traceback"]
    assert told["unstopped"] == told["zombies"] == []


def test_it_ends_when_its_last_tree_has_ended_by_itself(make_system):
    system = make_system()
    system.supervise(
        sup.ChildSpec("it", Obedient, restart="transient", significant=True), auto_shutdown="any_significant"
    )
    once_served(lambda: system.whereis("it").tell(lambda actor: actor.exit()))
    assert system.run(publish=False) == 0


def test_it_ends_at_once_when_its_last_tree_has_ended_before(make_system, eventually):
    system = make_system()
    system.supervise(
        sup.ChildSpec("it", Obedient, restart="transient", significant=True), auto_shutdown="any_significant"
    )
    system.whereis("it").tell(lambda actor: actor.exit())
    eventually(lambda: system.roots == [])
    assert system.run() == 0


def test_it_serves_only_in_the_main_thread(system):
    system.supervise(sup.ChildSpec("it", Obedient))
    raised = []

    def run() -> None:
        try:
            system.run()
        except sup.CannotRun as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert "main thread" in raised[0]


def test_it_serves_only_what_is_supervised(system):
    with pytest.raises(sup.CannotRun, match=r"supervise\(\) comes before run\(\)"):
        system.run()


def test_a_stopped_system_has_run(system):
    system.supervise(sup.ChildSpec("it", Obedient))
    system.stop()
    assert system.run() == 0


def test_no_place_for_a_socket_is_no_reason_not_to_serve(system, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("supervision.view.published.usual_directories", lambda: [tmp_path / "no" / "parent"])
    system.supervise(sup.ChildSpec("it", Obedient))
    once_served(system.wanted.set)
    assert system.run() == 0
    assert "cannot be looked at from outside: no place for a socket" in caplog.text
