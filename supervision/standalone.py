"""The life of an actor that was started outside any tree, by `MyActor.start()`: nobody restarts it."""

from __future__ import annotations

import itertools
import logging
import sys
from typing import TYPE_CHECKING, Any, cast

import pykka

from supervision.clock import RealClock
from supervision.exits import Exit, Reason
from supervision.hosting.hosts import LoopIncarnation
from supervision.hosting.scheduler import default_scheduler
from supervision.name import Name

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.incarnation import Incarnation

_numbers = itertools.count(1)


class _Standalone:
    """The owner of an actor started outside a tree: nobody restarts it, Pykka's rules and log lines hold."""

    def started(self, incarnation: Incarnation, info: Any) -> None:
        pass

    def ignored(self, incarnation: Incarnation) -> None:
        pass

    def ended(self, incarnation: Incarnation, exit: Exit) -> None:
        incarnation.release()
        incarnation.name.close(exit.reason)

    def zombie_ended(self, incarnation: Incarnation) -> None:
        pass


class _StandaloneLife(LoopIncarnation):
    """A life whose failures are logged as Pykka does, for there is no supervisor to do it."""

    def _failed_to_start(self, error: BaseException) -> Reason:
        self._log_as_pykka()
        return super()._failed_to_start(error)

    async def _fail(self, error: BaseException) -> Reason:
        if not self.is_killed:
            if self.current is not None and self.current.reply_to is not None:
                logging.getLogger("pykka").info("Exception returned from %s to caller:", self.actor, exc_info=error)
            else:
                self._log_as_pykka()
        return await super()._fail(error)

    def _note_failed_hook(self, hook: str, error: BaseException) -> None:
        self._log_as_pykka()

    def _log_as_pykka(self) -> None:
        kind, error, trace = sys.exc_info()
        if self.actor is not None:
            cast("pykka.Actor", self.actor)._handle_failure(kind, error, cast("TracebackType", trace))


def standalone(actor_class: type[Any]) -> Incarnation:
    """The life of an actor of this class that is made outside a tree."""
    scheduler = default_scheduler()
    number = next(_numbers)
    name = Name(f"{actor_class.__name__}-{number}", actor_class, clock=RealClock(scheduler))
    return _StandaloneLife(name, actor_class, _Standalone(), scheduler=scheduler)
