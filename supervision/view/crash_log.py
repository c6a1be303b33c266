"""One line in the log for every crash: who, why, where, and what follows. The traceback is told at DEBUG.

The line is written once the supervisor has decided, and before the asker hears of the crash. Ends that were asked
for, such as that of a child which is to be killed at once, are told at DEBUG.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from supervision.exits import Abandoned, Crash, Exit, Killed, StartFailed, is_orderly
from supervision.specs.child import BRUTAL_KILL
from supervision.view.drawing import age, plain

if TYPE_CHECKING:
    from supervision.engine.vocabulary import Outlook
    from supervision.shell import Shell

logger = logging.getLogger("supervision")

LONGEST_REASON = 500
"""How many characters of an exception's text go into its line."""

_PLACE = re.compile(r'^(?:[ |]*) File "(.+)", line (\d+), in (.+)$', re.MULTILINE)


def log_exit(exit: Exit, follows: str, *, level: int = logging.ERROR) -> None:
    """Tell of an end in which something went wrong; `follows` says what becomes of the name. Never raises."""
    if is_orderly(exit.reason):
        return
    crash = crash_of(exit.reason)
    try:
        logger.log(level, "%s (incarnation %d): %s%s; %s", *_facts(exit, crash), follows)
        if crash is not None and crash.traceback_text:
            logger.debug("%s (incarnation %d): %s", exit.path, exit.epoch, crash.traceback_text)
    except Exception:  # noqa: S110  (a log handler's fault must not cost a restart, and there is nobody left to tell)
        pass


def _facts(exit: Exit, crash: Crash | None) -> tuple[str, int, str, str]:
    place = where(crash)
    return plain(exit.path), exit.epoch, one_line(str(exit.reason)), f" at {place}" if place else ""


def one_line(text: str) -> str:
    """A text of somebody else's, fit for a log: bounded, on one line, nothing in it that a terminal would obey."""
    cut = text[:LONGEST_REASON]
    return plain(cut) + ("…" if len(text) > len(cut) else "")


def crash_of(reason: Any) -> Crash | None:
    """The crash behind a reason, if there is one."""
    while isinstance(reason, StartFailed):
        reason = reason.cause
    return reason if isinstance(reason, Crash) else None


def where(crash: Crash | None) -> str:
    """File, line and function in which a crash began; empty where that is not known."""
    found = [] if crash is None else _PLACE.findall(crash.traceback_text)
    return plain("{}:{} in {}".format(*found[-1])) if found else ""


def level_of(exit: Exit, shell: Shell, id: str) -> int:
    """How loud to tell of the end of a child, before its supervisor has heard of it."""
    if not isinstance(exit.reason, Killed | Abandoned):
        return logging.ERROR
    if shell.is_swept:
        return logging.DEBUG
    child = shell.engine.look(id)
    was_asked = child is not None and child.epoch == exit.epoch and child.phase == "stopping"
    return logging.DEBUG if was_asked and child is not None and child.shutdown == BRUTAL_KILL else logging.ERROR


def what_follows(shell: Shell, id: str, epoch: int) -> str:
    """What the supervisor has decided about a child whose incarnation `epoch` has ended."""
    used, most = shell.window
    return f"{_decision(shell, id, epoch)} ({used} of {most} restarts used)"


def _decision(shell: Shell, id: str, epoch: int) -> str:
    if shell.is_swept:
        return f"its supervisor {shell.path} has crashed"
    if shell.engine.is_ending:
        return f"its supervisor {shell.path} ends: {one_line(str(shell.engine.final))}"
    child = shell.engine.look(id)
    return "removed" if child is None else _outlook(shell, child, epoch)


def _outlook(shell: Shell, child: Outlook, epoch: int) -> str:
    if child.epoch > epoch:
        return "restarting now"
    if child.phase == "waiting":
        at = shell.due(child.timer)
        return "restarting now" if at is None else f"restarting in {age(max(0.0, at - shell.system.clock.now()))}"
    if shell.engine.is_replacing and child.phase in ("exited", "stopped"):
        return "restarting with its group"
    if child.phase == "exited":
        return "to be decided when what the supervisor is at has been done"
    return child.phase
