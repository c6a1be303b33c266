"""What type checkers say about programs that use `supervision`: mypy --strict, and pyright as most editors run it.

Each line that ends in `# error` must be an error for both, and no other line for either.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAM = """
from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, assert_type

import pykka
import supervision as sup


@dataclass(frozen=True, slots=True)
class Get(sup.Ask[int]):
    pass


@dataclass(frozen=True, slots=True)
class Name(sup.Ask["str | None"]):
    pass


class Plain(sup.Actor):
    expected_errors = (ValueError, KeyError)

    def __init__(self, n: int = 0) -> None:
        super().__init__()
        self.n = n

    def on_start(self) -> None: ...

    def on_receive(self, message: Any) -> int:
        if message == "later":
            self.reply = self.owe()
        self.exit(sup.Shutdown("enough"))
        return self.n

    def on_stop(self) -> None: ...


class Coroutines(sup.Actor):
    trap_exits = True

    async def on_start(self) -> None:
        self.timer = self.send_after(self.actor_ref, Get(), 1.0)
        self.token = self.monitor(self.actor_ref)
        assert_type(self.context.epoch, int)

    async def on_receive(self, message: Any) -> int | None:
        match message:
            case sup.Down(token=token, reason=sup.Crash(type=name)):
                assert_type(token, int)
                assert_type(name, str)
            case sup.Exited(ref=ref):
                assert_type(ref, sup.ActorRef)
            case _:
                assert_type(await sup.ask(self.actor_ref, Get()), int)
                return await sup.ask(self.actor_ref, Get(), timeout=1.5)
        return None

    async def on_stop(self) -> None:
        self.timer.cancel()

    async def on_failure(self, *args: Any) -> None: ...

    async def recover(self) -> None: ...


class Threaded(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> str:
        return "yes"


def make() -> Plain:
    return Plain(3)


async def ask(ref: sup.ActorRef) -> None:
    assert_type(await sup.ask(ref, Name()), "str | None")
    name: int = await sup.ask(ref, Name())  # error
    await sup.ask(ref, "no Ask")  # error
    await sup.ask(ref, Get(), timeout="1s")  # error
    await sup.ask("root/counter", Get())  # error


SPECS = [
    sup.ChildSpec("a", Plain, (1,), {"n": 1}, restart="transient", shutdown="brutal_kill", kind="worker"),
    sup.ChildSpec("b", Coroutines, restart=sup.Restart.TEMPORARY, shutdown=sup.BRUTAL_KILL, start_timeout=sup.INFINITY),
    sup.ChildSpec("c", Threaded, backoff=sup.Backoff(min=0.1, max=5), on_exhausted=sup.pause("1s"), max_handle_time=3),
    sup.ChildSpec("d", make, mailbox=sup.Mailbox(overflow=sup.block(1)), expected_errors=(ValueError,)),
    sup.ChildSpec("e", lambda: Plain(3), state=sup.snapshot(every_messages=1), on_exhausted=sup.DROP_CHILD),
    sup.ChildSpec("f", functools.partial(Plain, 3), state=sup.event_log("log")),
    sup.supervisor("g", sup.ChildSpec("a", Plain), strategy="one_for_all", max_restarts=3),
    sup.tasks("h"),
]
sup.ChildSpec(3, Plain)  # error
sup.ChildSpec("a", 3)  # error
sup.ChildSpec("a", Plain, restart=True)  # error
sup.ChildSpec("a", Plain, shutdown=b"now")  # error
sup.ChildSpec("a", Plain, backoff=3)  # error
sup.ChildSpec("a", Plain, mailbox=sup.Mailbox)  # error
sup.Backoff(min="1s", max=2)  # error


def main() -> None:
    with sup.System("typed", loop_limit=0.5) as system:
        assert_type(system, sup.System)
        handle = system.supervise(*SPECS, strategy=sup.Strategy.ONE_FOR_ALL)
        assert_type(handle, sup.SupervisorHandle)
        assert_type(handle.ended.get(), sup.Exit)
        match handle.start_child(SPECS[0]).get(timeout=1):
            case sup.Started(ref=ref, info=_):
                assert_type(ref, "sup.ActorRef | None")
            case sup.AlreadyStarted(ref=ref):
                assert_type(ref, sup.ActorRef)
            case sup.AlreadyPresent() | sup.Refused():
                pass
            case sup.StartError(reason=reason):
                print(reason)
        assert_type(handle.count_children().get(), sup.Counts)
        assert_type(handle.terminate_child("a").get(), "sup.Ok | sup.NotFound")
        assert_type(handle.delete_child("a").get(), "sup.Ok | sup.Running | sup.Restarting | sup.NotFound")
        assert_type(handle.get_childspec("a").get(), "sup.ChildSpec | sup.NotFound")
        assert_type(system.stop(5.0), bool)
        assert_type(system.unstopped_report(), "list[sup.Unstopped]")
        assert_type(system.audit(), "list[sup.Finding]")
        assert_type(Plain.start(), sup.ActorRef)
        handle.start_child(Plain)  # error
        handle.terminate_child(3)  # error
        handle.no_such_call()  # error
        Plain().no_such_method()  # error
        system.supervise(Plain)  # error
        system.stop("soon")  # error
        sup.System(3)  # error


async def use(handle: sup.SupervisorHandle) -> None:
    assert_type(await handle.count_children(), sup.Counts)
    exit = await handle.ended
    assert_type(exit.reason, sup.Reason)
"""


def lines_with_errors_of_mypy(file: Path) -> dict[int, str]:
    pytest.importorskip("mypy.api")
    from mypy import api

    cache = ROOT / ".mypy_cache"  # the one of the everyday check, so that only the program is new
    options = ["--strict", "--config-file", "", "--cache-dir", str(cache), "--no-error-summary", "--no-pretty"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MYPYPATH", str(ROOT))
        output, errors, _ = api.run([*options, str(file)])
    assert not errors
    found = re.findall(r"^(.+?):(\d+): error: (.+)$", output, re.MULTILINE)
    return {int(line): text for path, line, text in found if file.name in path}


def lines_with_errors_of_pyright(file: Path) -> dict[int, str]:
    pytest.importorskip("pyright")
    (file.parent / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)], "pythonVersion": "3.11"}))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(file.parent)],
        env=os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
        cwd=file.parent,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {each["range"]["start"]["line"] + 1: each["message"] for each in found if each["severity"] == "error"}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("typing") / "program.py"
    file.write_text(PROGRAM)
    return file


@pytest.mark.timeout(600)  # a whole check by mypy where its cache is empty, and other work for the processor
@pytest.mark.parametrize("check", [lines_with_errors_of_mypy, lines_with_errors_of_pyright])
def test_a_users_program_is_clean_but_for_its_mistakes(check: Callable[[Path], dict[int, str]], program: Path) -> None:
    found = check(program)
    lines = PROGRAM.splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
    assert {line: text for line, text in found.items() if line not in expected} == {}
    assert [lines[number - 1] for number in sorted(expected - set(found))] == []
    assert len(expected) > 15
