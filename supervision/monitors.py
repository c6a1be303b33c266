"""Who hears of an end: monitors of one life, and watches of a name through all its lives.

The books are kept with the watcher's life, under the token: whoever takes the token out of them has the say. A
message that was not wanted any more when it was to be put into the mailbox is not put there, so that after
`demonitor(flush=True)` none can come.
"""

from __future__ import annotations

import functools
import itertools
from _thread import allocate_lock
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from supervision.exits import NoProc
from supervision.name import ActorRef

if TYPE_CHECKING:
    from supervision.exits import Exit, Reason
    from supervision.incarnation import Incarnation
    from supervision.name import Name

_tokens = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Down:
    """The message a monitor sends: the incarnation behind `ref` has ended."""

    token: int
    ref: ActorRef
    reason: Reason


@dataclass(frozen=True, slots=True)
class Up:
    """The message a watch of a name sends: its incarnation number `epoch` has started."""

    token: int
    ref: ActorRef
    epoch: int


def name_behind(ref: Any) -> Name:
    """The name that `ref` points to.

    Raises:
        TypeError: it is no ref of this package; Pykka's own tell nobody of an end.
    """
    if not isinstance(ref, ActorRef):
        raise TypeError(f"{ref!r} is no supervision.ActorRef, so nobody would hear of its end")
    return ref.name


def monitor(own: Incarnation, ref: ActorRef) -> int:
    """Send `own` one Down when the present incarnation behind `ref` ends; at once if there is none."""
    watched, token = name_behind(ref).incarnation, next(_tokens)

    def report(reason: Reason) -> None:
        own.tell(Down(token, ref, reason), lambda: own.at_end.pop(token, None) is not None)

    own.when_over(token, functools.partial(_unwatch, watched, token))
    ended = None if watched is None else watched.watch(token, lambda exit: report(exit.reason))
    if watched is None or ended is not None:
        report(NoProc() if ended is None else ended.reason)
    elif own.exit is not None:  # it ended before there was anything to take back
        watched.unwatch(token)
    return token


def _unwatch(watched: Incarnation | None, token: int) -> None:
    if watched is not None:
        watched.unwatch(token)


def watch_name(own: Incarnation, ref: ActorRef) -> int:
    """Send `own` a Down at each end behind `ref` and an Up at each later start; a Down at once if nobody is there."""
    token = next(_tokens)
    NameWatch(own, ref, name_behind(ref), token).begin()
    return token


def demonitor(own: Incarnation, token: int, *, flush: bool) -> None:
    """Take a monitor or watch back; with `flush` also what it has sent and waits."""
    take_back = own.at_end.pop(token, None)
    if take_back is not None:
        take_back()
    if flush:
        own.name.mailbox.remove(lambda each: isinstance(each, Down | Up) and each.token == token)


class NameWatch:
    """Tells one watcher of each end and start behind a name, in their order and each once.

    The ends and starts are reported by whichever threads they happen on. They are told apart by their epochs, and
    handed to the watcher by one thread at a time, outside the lock.
    """

    def __init__(self, own: Incarnation, ref: ActorRef, name: Name, token: int) -> None:
        self._own, self._ref, self._name, self._token = own, ref, name, token
        self._lock = allocate_lock()
        self._up = self._down = 0  # the last epochs of which a start, an end was told
        self._news: deque[Down | Up] = deque()
        self._is_handing_out = False

    def begin(self) -> None:
        name = self._name
        self._own.when_over(self._token, lambda: name.watchers.pop(self._token, None))
        with self._lock:
            name.watchers[self._token] = self  # before looking: the end of whom it then finds will find this watch
            life, last = _present(name)
            if last is not None and (life is None or last.epoch < life.epoch):
                self._down = last.epoch
            if life is None:
                self._news.append(Down(self._token, self._ref, NoProc()))
            elif life.is_acknowledged:
                self._up = life.epoch
        if self._own.exit is not None:  # it ended before there was anything to take back
            name.watchers.pop(self._token, None)
        self._hand_out()

    def started(self, life: Incarnation) -> None:
        """The start of `life` has been acknowledged."""
        with self._lock:
            self._note_start(life)
        self._hand_out()

    def ended(self, life: Incarnation, exit: Exit) -> None:
        """`life` has ended."""
        with self._lock:
            if life.epoch > self._down:
                if life.is_acknowledged:  # who reports the start may come later
                    self._note_start(life)
                self._down = life.epoch
                self._news.append(Down(self._token, self._ref, exit.reason))
        self._hand_out()

    def _note_start(self, life: Incarnation) -> None:
        if life.epoch > max(self._up, self._down):
            last = self._name.last_exit
            if last is not None and self._down < last.epoch < life.epoch:  # who reports that end may come later
                self._down = last.epoch
                self._news.append(Down(self._token, self._ref, last.reason))
            self._up = life.epoch
            self._news.append(Up(self._token, self._ref, life.epoch))

    def _hand_out(self) -> None:
        while (message := self._next()) is not None:
            self._own.tell(message, self._is_wanted)
            self._is_handing_out = False

    def _next(self) -> Down | Up | None:
        """What to hand out now; None where there is nothing, or another thread sees to it."""
        with self._lock:
            if self._is_handing_out or not self._news:
                return None
            self._is_handing_out = True
            return self._news.popleft()

    def _is_wanted(self) -> bool:
        return self._token in self._own.at_end


def _present(name: Name) -> tuple[Incarnation | None, Exit | None]:
    """The life behind `name` and the last exit before it, as they were in one moment."""
    while True:
        last, life = name.last_exit, name.incarnation
        if name.last_exit is last:
            return life, last
