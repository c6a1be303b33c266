"""The last words of a system whose root has given up: for whoever has to find out why in the morning."""

from __future__ import annotations

import faulthandler
import io
import json
from typing import TYPE_CHECKING, Any, TextIO

from supervision.exits import Exit, GaveUp
from supervision.view.crash_log import crash_of

if TYPE_CHECKING:
    from supervision.system import System


def write_report(system: System, exit: Exit, file: TextIO) -> None:
    """One line of JSON; and where zombies are left, the stacks of all threads, as `faulthandler` shows them."""
    reason = exit.reason
    chain = reason.chain if isinstance(reason, GaveUp) else ()
    report = {
        "system": system.name,
        "gave_up": exit.path,
        "reason": str(reason),
        "path": exit.path,
        "chain": [{"path": link.path, "reason": str(link.reason)} for link in chain],
        "last_crash": _crash(chain[0].reason if chain else reason),
        "unstopped": [{"path": left.path, "why": left.why} for left in system.unstopped_report()],
        "zombies": [{"path": each.name.path, "epoch": each.epoch} for each in system.zombies[:]],
    }
    print(json.dumps(report), file=file, flush=True)
    if system.zombies:
        try:
            faulthandler.dump_traceback(file, all_threads=True)
        except (io.UnsupportedOperation, AttributeError, ValueError):  # no file of the operating system
            print("no stacks: this stream has no file descriptor", file=file, flush=True)


def _crash(reason: Any) -> dict[str, str] | None:
    """The crash that began it all; None where it was none, such as a kill."""
    crash = crash_of(reason)
    return None if crash is None else {"type": crash.type, "message": crash.message, "traceback": crash.traceback_text}
