"""Every error of this package.

SpecError(ValueError)               a child spec or an option is wrong; nothing has started
SupervisionError
├─ StartFailedError                 a child could not be started
├─ BlockingInScheduler              blocking would stop every actor of this scheduler
├─ DeadlockError                    the reply waited for waits, in the end, for the waiter
├─ MixedKey                         the key is registered as the other kind, unique or not
├─ MailboxFull                      the actor has too many messages waiting
├─ SystemClosed                     the system has been stopped
└─ EventLogError                    an actor's event log cannot be read or written
   ├─ EntryNotJson(TypeError)       what was to be recorded is no JSON value
   └─ LogInUse                      another actor, or another process, writes this log
ActorDeadError(pykka.ActorDeadError)  nobody will answer; says why in `reason`
├─ ActorStuck                       the actor was abandoned in the middle of this message
└─ PoisonMessage                    each incarnation that was given this message has ended over it
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pykka

if TYPE_CHECKING:
    from supervision.exits import Reason


class SpecError(ValueError):
    """A child spec or an option is wrong. The text names the field, the value and what is allowed."""


class SupervisionError(Exception):
    """The base of what can go wrong while a tree runs."""


class StartFailedError(SupervisionError):
    """The child at `path` could not be started, for `reason`; what had been started before it was stopped."""

    def __init__(self, path: str, reason: object) -> None:
        super().__init__(f"{path} could not be started: {reason}")
        self.path = path
        self.reason = reason


class BlockingInScheduler(SupervisionError):
    """A future was waited for with `get()` on the thread that would have to finish it; `await` it instead."""


class DeadlockError(SupervisionError):
    """Waiting for this reply would never end: it waits, in the end, for the one who asks."""


class MixedKey(SupervisionError):
    """A key of the registry is unique or has many owners, as long as anybody is registered under it; not both."""

    def __init__(self, key: object, *, is_unique: bool) -> None:
        super().__init__(
            f"{key!r} is registered as {'a unique key' if is_unique else 'a key of many owners'}, "
            f"so nobody can register it with unique={not is_unique}"
        )
        self.key = key


class MailboxFull(SupervisionError):
    """The mailbox is at its capacity and its policy is to refuse."""


class CannotRun(SupervisionError):
    """`System.run()` was called outside the main thread, or before anything was supervised."""


class SystemClosed(SupervisionError):
    """The system has been stopped and starts nothing any more."""


class EventLogError(SupervisionError):
    """An event log cannot be read or written, for a reason that is not the disk's (that is an OSError)."""


class EntryNotJson(EventLogError, TypeError):
    """What was to be recorded is no JSON value, or would come back as another one. Nothing has been written."""


class LogInUse(EventLogError):
    """Another actor, or another process, writes this event log: it has one writer."""


class ActorDeadError(pykka.ActorDeadError):
    """The actor at `path` will not answer; `reason` is the reason of its end, where one is known."""

    def __init__(self, path: str, reason: Reason | None = None) -> None:
        super().__init__(f"{path} is dead" + (f": {reason}" if reason is not None else ""))
        self.path = path
        self.reason = reason


class ActorStuck(ActorDeadError):
    """The actor was abandoned while it handled this message: what the message did is unknown."""


class PoisonMessage(ActorDeadError):
    """A poison message: it was delivered again and again, and each time the actor ended over it.

    The last end is the `__cause__`.
    """

    def __init__(self, path: str, last: BaseException, redelivered: int) -> None:
        super().__init__(path, getattr(last, "reason", None))
        self.args = (f"poison: {path} ended over this message {redelivered + 1} times, the last time with {last!r}",)
        self.__cause__ = last
