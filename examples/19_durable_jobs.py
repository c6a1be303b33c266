"""A job outlives the process that took it: killed in the middle, its work is done by the next one.

A job that may have been executed when its process died is not sent again, unless that was asked for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rubberduck import RubberDuck
from rubberduck.errors import CallInterrupted

QUESTION = {"model": "any", "messages": [{"role": "user", "content": "Summarise the report."}]}


def config(folder: Path, delay: str) -> dict[str, object]:
    """A provider that takes so long, and a ledger with its jobs in `folder`."""
    answer = {"content": "It was a good year.", "delay": delay}
    return {
        "providers": {"mock": {"models": ["any"], "responses": [answer]}},
        "ledger": {"path": str(folder / "ledger.sqlite")},
        "jobs": {"lease": "500ms", "max_running": 1},
    }


def accept(folder: Path) -> None:
    """What the process does that will be killed: it takes two jobs, and one of them is under way for a minute."""
    duck = RubberDuck.start(config(folder, "60s"))
    jobs = duck.submit(QUESTION, key="first"), duck.submit(QUESTION, key="second")
    while not duck.status().providers["mock"].inflight:
        time.sleep(0.01)
    print(*jobs, flush=True)
    sys.stdin.read()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, str(folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first, second = process.stdout.readline().split()
            os.kill(process.pid, signal.SIGKILL)
        print("accepted two jobs, then killed")
        with RubberDuck.start(config(folder, "0s")) as duck:
            print(f"second: {duck.result(second, timeout=30).text}")
            try:
                print(f"first: {duck.result(first, timeout=30).text}")
            except CallInterrupted as error:
                print(f"first: {error}")
            print(f"submitted again: {duck.submit(QUESTION, key='second') == second}")


if __name__ == "__main__":
    accept(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
