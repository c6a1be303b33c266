"""A daemon: `System.run()` serves until SIGTERM, stops everything in order, and says what it could not stop.

While it runs anybody with an account of its user may look at it with `python -m supervision tree`; here the program
does so itself, and then sends itself the signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import supervision as sup


class Journal(sup.Actor):
    """Written to by the others: so it is the first to start, and the last to stop.

    Its mailbox is drained: a stop overtakes the messages that wait, and the last words of others would be lost.
    """

    def on_start(self) -> None:
        self.lines: list[str] = []

    def on_receive(self, line: str) -> None:
        self.lines.append(line)

    def on_stop(self) -> None:
        print("journal closed:", self.lines)


class Sensor(sup.Actor):
    """Measures ten times a second. `on_stop` runs after the message at hand, within `shutdown` seconds."""

    def __init__(self, journal: Any) -> None:
        super().__init__()
        self.journal = journal

    def on_start(self) -> None:
        self.interval(self.actor_ref, "measure", 0.1)
        self.journal.tell("sensor up")

    def on_receive(self, message: Any) -> None: ...

    async def on_stop(self) -> None:
        self.journal.tell("sensor down")


def look_and_stop() -> None:
    """In a thread, for the main thread serves. Whoever looks before it does is answered by nobody, and looks again."""
    look = [sys.executable, "-m", "supervision", "tree", str(os.getpid())]
    while (told := subprocess.run(look, capture_output=True, text=True, check=False)).returncode != 0:
        time.sleep(0.1)
    print(told.stdout)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    system = sup.System("station")
    system.supervise(
        sup.ChildSpec("journal", Journal, mailbox=sup.Mailbox(drain=True)),
        sup.supervisor("sensors", sup.ChildSpec("roof", lambda: Sensor(system.whereis("journal")), shutdown=2)),
    )
    threading.Thread(target=look_and_stop).start()
    exit_code = system.run()  # 0 after a signal; 70 where the tree has given up, with a report on stderr
    print("exit code:", exit_code, "not stopped:", system.unstopped_report())
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
