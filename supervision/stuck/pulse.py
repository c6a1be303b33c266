"""Whether an event loop still comes round: the pulse of one scheduler, felt from another thread."""

from __future__ import annotations

import asyncio
import traceback
from itertools import takewhile
from types import FrameType
from typing import TYPE_CHECKING

from supervision.hosting.hosts import LoopIncarnation
from supervision.view.frames import frames_of

if TYPE_CHECKING:
    from supervision.hosting.scheduler import Scheduler
    from supervision.incarnation import Incarnation

_CALLBACK = asyncio.events.Handle._run.__code__
_DEPTH = 20


class Pulse:
    """Tells for how long one and the same piece of code has kept a loop to itself.

    At each `feel` the loop is asked for a sign of life, unless one is outstanding. That it has not come yet proves
    little, for it waits in line like everybody: a loop that is merely busy, with many short callbacks or one actor's
    many short messages, answers late. So from then on the callback that runs, and how many messages have been handled,
    are compared as well. While either changes nobody hogs the loop. A loop that answers is not looked into.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.has_warned = self.is_condemned = False
        self._beat: _Beat | None = None
        self._since = 0.0
        # A frame object, not its number, which another could have next. It is let go of at the next look.
        self._callback: FrameType | None = None
        self._turns = 0

    def feel(self, now: float) -> float:
        """How many seconds the code that runs now has kept the loop, as far as looks like this one can tell."""
        if self._beat is None or self._beat.is_heard:
            self._beat = _Beat()
            self._begin_anew(None, 0, now)
            self.scheduler.post(self._beat.hear)
            return 0.0
        callback = _callback_of(self.scheduler)
        turns = 0 if callback is None else self._count_turns()
        if callback is None or (callback, turns) != (self._callback, self._turns):
            self._begin_anew(callback, turns, now)
        return now - self._since

    def _begin_anew(self, callback: FrameType | None, turns: int, now: float) -> None:
        """Nobody has been seen to hog the loop so far."""
        self.has_warned = self.is_condemned = False
        self._callback, self._turns, self._since = callback, turns, now

    def forget(self) -> None:
        """What has been felt counts no more: this thread itself was not there to look."""
        self._callback = None

    def _count_turns(self) -> int:
        return sum(life.work.turn for life in list(self.scheduler.lives))

    def culprit(self) -> Incarnation | None:
        """Whose code is running now, where it is an actor's."""
        task = asyncio.current_task(self.scheduler.loop)
        if task is None:
            return None
        lives = [life for life in list(self.scheduler.lives) if isinstance(life, LoopIncarnation)]
        return next((life for life in lives if life._task is task), None)

    def stack(self) -> str:
        """Where the code that keeps the loop is, innermost last."""
        return stack_text(frames_of(self.scheduler.thread.ident))


class _Beat:
    """One sign of life."""

    is_heard = False

    def hear(self) -> None:
        self.is_heard = True


def stack_text(frames: list[FrameType]) -> str:
    """A stack as Python prints it, from the callback of the loop on; the innermost part of a deep one."""
    inner = list(takewhile(lambda frame: frame.f_code is not _CALLBACK, frames))
    lines = [(each, each.f_lineno) for each in reversed(inner[:_DEPTH])]
    return "".join(traceback.StackSummary.extract(iter(lines)).format())


def _callback_of(scheduler: Scheduler) -> FrameType | None:
    """The call of the loop that its thread is in; None where the loop waits for something to do."""
    return next((frame for frame in frames_of(scheduler.thread.ident) if frame.f_code is _CALLBACK), None)
