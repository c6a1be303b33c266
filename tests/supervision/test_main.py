"""`python -m supervision tree`: the tree of a running program, from outside, and only for its own user."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from tree_rig import Obedient

import supervision as sup
from supervision.__main__ import main
from supervision.view import published

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
import sys, time, pykka, threading
import supervision as sup
class Hog(sup.Actor):
    def on_receive(self, message): time.sleep(60)
class Idle(sup.Actor): pass
"""


@pytest.fixture
def directory(tmp_path_factory, monkeypatch):
    """Where sockets usually lie, for this test and the programs it starts."""
    directory = tmp_path_factory.mktemp("run")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", None)
    return directory


@pytest.fixture
def start_program(directory):
    programs = []

    def start(source):
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM + textwrap.dedent(source)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        programs.append(program)
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        return program

    yield start
    for program in programs:
        program.kill()
        program.communicate()


def look(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "supervision", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


SERVED = """
system = sup.System("shop", loop_limit=1000.0)
system.supervise(sup.ChildSpec("hog", Hog), sup.ChildSpec("idle", Idle))
system.whereis("hog").tell("block the loop")
while system.tree().find("hog").state != "busy": time.sleep(0.01)
def say_when_served():
    while not system.publications: time.sleep(0.005)
    print("ready", flush=True)
threading.Thread(target=say_when_served, daemon=True).start()
sys.exit(system.run(deadline=0.3))
"""


def test_a_program_whose_loop_is_blocked_is_looked_at_from_outside(start_program, directory):
    program = start_program(SERVED)
    for target in ([], ["shop"], [str(program.pid)], [str(directory / "supervision" / f"shop.{program.pid}.sock")]):
        seen = look("tree", *target)
        assert (seen.returncode, seen.stderr) == (0, "")
        (line,) = [line for line in seen.stdout.splitlines() if "─ hog " in line]
        assert "busy" in line
    assert "in on_receive" in seen.stdout
    data = json.loads(look("tree", "shop", "--json").stdout)
    assert data["children"][0]["children"][0]["stack"][-1].endswith("in on_receive")
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == 0
    assert list((directory / "supervision").iterdir()) == []


def test_a_suspended_program_is_said_to_give_no_answer(start_program, directory):
    program = start_program(SERVED)
    (path,) = published.sockets()
    program.send_signal(signal.SIGSTOP)
    os.waitpid(program.pid, os.WUNTRACED)
    with pytest.raises(sup.PublishError, match=r"no answer within 0\.2 s"):
        published.ask(path, "tree", timeout=0.2)


# -- the command line, in this process ---------------------------------------------------------------------------


def test_nobody_there_is_said(directory, capsys):
    assert main(["tree"]) == 1
    assert "system.publish()" in capsys.readouterr().err


def test_of_several_programs_there_is_a_list(directory, make_system, capfd):
    for _ in range(2):
        make_system().publish()
    assert main(["tree"]) == 3
    said = capfd.readouterr()
    assert [line.split()[1] for line in said.out.splitlines()] == ["test0", "test1"]
    assert main(["tree", "--json"]) == 3
    assert [json.loads(line)["system"] for line in capfd.readouterr().out.splitlines()] == ["test0", "test1"]
    assert main(["tree", "test1"]) == 0
    assert "test1" in capfd.readouterr().out
    assert main(["tree", str(os.getpid())]) == 3
    assert main(["tree", "other"]) == 1
    assert "nobody is called 'other'" in capfd.readouterr().err


def test_a_path_where_nobody_listens_is_said(directory, capsys):
    assert main(["tree", str(directory / "none.sock")]) == 1
    assert "No such file" in capsys.readouterr().err


def test_a_watch_draws_again_until_it_is_interrupted(directory, system, capsys, monkeypatch):
    system.publish()
    pauses = []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", pause)
    assert main(["tree", "--watch", "0.5"]) == 0
    assert pauses == [0.5] * 3
    assert capsys.readouterr().out.count("test0") == 3


def test_a_watch_ends_when_the_program_does(directory, system, capsys, monkeypatch):
    publication = system.publish()
    monkeypatch.setattr("time.sleep", lambda seconds: publication.close())
    assert main(["tree", "--watch"]) == 1


@pytest.mark.parametrize("bad", [["tree", "--watch", "0"], ["tree", "--watch", "soon"], [], ["leaf"]])
def test_a_wrong_command_line_is_refused(bad, capsys):
    with pytest.raises(SystemExit) as ended:
        main(bad)
    assert ended.value.code == 2


# -- the socket --------------------------------------------------------------------------------------------------


def test_the_socket_is_its_owners_alone_and_goes_with_the_system(directory, make_system):
    system = make_system()
    path = system.publish().path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    system.stop()
    assert list(path.parent.iterdir()) == []
    with pytest.raises(sup.SystemClosed):
        system.publish()


def test_a_publication_is_a_context_manager_and_may_be_closed_twice(system, tmp_path):
    with system.publish(tmp_path / "d") as publication:
        assert published.ask(publication.path, "who") == {"pid": os.getpid(), "system": "test0"}
    assert not publication.path.exists()
    publication.close()


def test_without_a_runtime_directory_it_lies_in_a_directory_of_the_users_own(directory, system, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    path = system.publish().path
    assert path.parent == directory / f"supervision-{os.getuid()}"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(published.sockets()) == [path]


@pytest.mark.parametrize("trap", ["a link", "a file", "writable", "foreign"])
def test_a_place_that_another_user_may_have_laid_is_refused(directory, system, trap, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    place = directory / f"supervision-{os.getuid()}"
    if trap == "a link":
        (directory / "elsewhere").mkdir()
        place.symlink_to(directory / "elsewhere")
    elif trap == "a file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777 if trap == "writable" else 0o700)
    if trap == "foreign":
        uid = os.getuid()
        monkeypatch.setattr(published, "usual_directories", lambda: [place])
        monkeypatch.setattr("os.getuid", lambda: uid + 1)
    with pytest.raises(sup.PublishError, match="no place for a socket"):
        system.publish()
    assert not any(thread.name.startswith("supervision-publish") for thread in threading.enumerate())


def test_a_path_too_long_for_a_socket_is_refused(system, tmp_path):
    with pytest.raises(sup.PublishError, match="too long"):
        system.publish(tmp_path / ("d" * 100))


def test_sockets_of_killed_processes_are_cleaned_up_and_those_of_living_ones_stay(directory, system, start_program):
    program = start_program(SERVED)
    place = directory / "supervision"
    (alive,) = place.iterdir()
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    for name in (f"killed.{gone.pid}.sock", f".half.{gone.pid}.sock", f"other.{os.getpid()}.sock"):
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(place / name))
    (place / f"no-socket.{gone.pid}.sock").write_text("")
    path = system.publish().path
    assert {each.name for each in place.iterdir()} == {
        alive.name,
        path.name,
        f"other.{os.getpid()}.sock",
        f"no-socket.{gone.pid}.sock",
    }
    assert program.poll() is None


def test_two_systems_of_one_name_do_not_take_each_others_place(directory):
    with sup.System("same") as one, sup.System("same") as two:
        paths = {one.publish().path, two.publish().path}
        assert len(paths) == 2
        assert all(published.ask(path, "who")["system"] == "same" for path in paths)


@pytest.mark.parametrize("rude", [b"", b"nonsense\n", b"x" * 1000, None])
def test_a_rude_client_costs_the_next_one_nothing(system, tmp_path, rude, monkeypatch, eventually):
    monkeypatch.setattr(published, "PATIENCE", 0.1)
    publication = system.publish(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(publication.path))
        if rude is None:
            eventually(lambda: (served := publication._client) is not None and served.gettimeout() == 0.1)
        monkeypatch.setattr(published, "PATIENCE", 30.0)  # of the others, and of those who send something
        if rude:
            client.sendall(rude)
        elif rude is None:  # silent, and stays
            assert published.ask(publication.path, "who")["system"] == "test0"
    assert published.ask(publication.path, "who")["system"] == "test0"


def test_a_client_that_does_not_read_does_not_hold_up_the_end(system, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "PATIENCE", 60.0)
    system.supervise(*(sup.ChildSpec(f"child{number}", Obedient) for number in range(500)))
    publication = system.publish(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(publication.path))
        client.sendall(b"tree\n")
        client.recv(1)
        begin = time.monotonic()
        publication.close()
    assert time.monotonic() - begin < 30
    assert not publication.path.exists()


def test_nothing_is_left_open(system, tmp_path):
    def count():
        return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0

    before = count()
    for _ in range(20):
        with system.publish(tmp_path / "d") as publication:
            published.ask(publication.path, "tree")
    assert count() == before


def test_the_child_of_a_fork_leaves_the_parents_socket_alone(start_program, directory):
    program = start_program(
        """
        import os
        system = sup.System("parent")
        system.supervise(sup.ChildSpec("idle", Idle))
        system.publish()
        child = os.fork()
        if child == 0:
            system.stop()
            sys.exit(7)
        assert os.waitpid(child, 0)[1] == 7 << 8
        print("ready", flush=True)
        sys.stdin.readline(); time.sleep(60)
        """
    )
    assert look("tree", str(program.pid)).returncode == 0
