"""Who may be declared dead: only those whose process is gone, or who said so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rubberduck.storage import runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "runs")


def in_another_process(script):
    command = [sys.executable, "-c", "import os, sys\nfrom rubberduck.storage import runs\n" + script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_lives_until_it_was_let_go_as_often_as_held(path):
    seen = f"print(runs.is_alive({path!r}, 7))"
    runs.hold(path, 7)
    runs.hold(path, 7)
    runs.let_go(path, 7)
    assert runs.is_alive(path, 7)
    assert in_another_process(seen) == "True"
    runs.let_go(path, 7)
    assert not runs.is_alive(path, 7)
    assert in_another_process(seen) == "False"


def test_runs_in_one_file_are_told_apart(path):
    runs.hold(path, 1)
    runs.hold(path, 2)
    runs.let_go(path, 1)
    assert in_another_process(f"print(runs.is_alive({path!r}, 1), runs.is_alive({path!r}, 2))") == "False True"
    runs.let_go(path, 2)


def test_a_run_dies_with_its_process(path):
    in_another_process(f"runs.hold({path!r}, 5); assert runs.is_alive({path!r}, 5); os._exit(0)")
    assert not runs.is_alive(path, 5)


def test_letting_go_of_what_is_not_held_does_nothing(path):
    runs.let_go(path, 9)
    runs.hold(path, 1)
    runs.let_go(path, 9)
    assert runs.is_alive(path, 1)
    runs.let_go(path, 1)


def test_a_run_of_another_process_cannot_be_held(path):
    runs.hold(path, 3)
    refused = f"""
try: runs.hold({path!r}, 3)
except OSError: print("refused")
"""
    assert in_another_process(refused) == "refused"
    runs.let_go(path, 3)


def test_a_forked_child_knows_what_its_parent_holds_and_when_it_lets_go(path):
    """It inherits the parent's memory but not its locks: neither may be taken for its own."""
    script = f"""
path = {path!r}
runs.hold(path, 1)
told, tell = os.pipe()
looked, has_looked = os.pipe()
child = os.fork()
if child == 0:
    runs.let_go(path, 1)
    assert runs.is_alive(path, 1)
    os.write(has_looked, b"x")
    assert os.read(told, 1) == b"x"
    os._exit(3 if runs.is_alive(path, 1) else 0)
assert os.read(looked, 1) == b"x"
runs.let_go(path, 1)
os.write(tell, b"x")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert in_another_process(script) == "0"
