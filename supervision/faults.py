"""Named places in an actor's life where a test can make something go wrong. Free where nothing is armed.

point                        who passes it
before_start                 an actor, before it is constructed
after_start                  an actor whose `on_start` has returned, before that is acknowledged
before_handle                an actor with a message in hand
after_handle_before_reply    an actor whose handler has returned
in_on_stop                   an actor, before its `on_stop`
before_exit_emit             an actor whose code has ended, before anybody hears of it
thread_start                 the supervisor that starts an actor's thread
mailbox_put                  a sender, before its message is in the mailbox of `path`
clock_late                   a timer while it is arranged; its path is "clock"
snapshot_write               whoever writes an actor's snapshot or log
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from supervision.errors import SpecError
from supervision.waiting import waits

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation
    from supervision.mailbox import Envelope
    from supervision.name import Name


@dataclass(frozen=True, slots=True)
class delay:  # noqa: N801  (an action, read as a word)
    """The action of being `seconds` late, by the clock of the actor concerned."""

    seconds: float

    def __post_init__(self) -> None:
        if isinstance(self.seconds, bool) or not isinstance(self.seconds, int | float):
            raise SpecError(f"a delay is a number of seconds, not {self.seconds!r}")
        if not 0 <= self.seconds < math.inf:
            raise SpecError(f"a delay is 0 seconds or longer, and finite, not {self.seconds!r}")


IN_A_LIFE = ("raise", "hang", "kill", "delay")
ACTIONS: dict[str, tuple[str, ...]] = {
    "before_start": IN_A_LIFE,
    "after_start": IN_A_LIFE,
    "before_handle": IN_A_LIFE,
    "after_handle_before_reply": IN_A_LIFE,
    "in_on_stop": IN_A_LIFE,
    "before_exit_emit": IN_A_LIFE,
    "snapshot_write": IN_A_LIFE,
    "thread_start": ("raise", "kill"),  # the supervisor passes here: it must not wait
    "mailbox_put": ("raise", "kill", "drop"),  # nor must a sender
    "clock_late": ("delay",),
}
"""What can be done at each point, besides raising a given exception or calling a function (neither at clock_late)."""

POINTS = frozenset(ACTIONS)


class InjectedFault(Exception):
    """What the action "raise" raises, unless it is given an exception of its own."""


@dataclass
class Plan:
    """A fault that has been armed. `seen` counts who passed by its filters, `done` how often it was carried out."""

    point: str
    action: Any
    nth: int | None
    probability: float | None
    path: str | None
    message: type[Any] | tuple[type[Any], ...] | None
    rng: random.Random = field(repr=False)
    seen: int = 0
    done: int = 0

    def is_due(self, point: str, path: str, message: Any) -> bool:
        """Count who passes; True if it is their turn."""
        if point != self.point or (self.path is not None and path != self.path and not path.endswith("/" + self.path)):
            return False
        if self.message is not None and not isinstance(message, self.message):
            return False
        self.seen += 1
        if self.nth is not None and self.seen != self.nth:
            return False
        if self.probability is not None and self.rng.random() >= self.probability:
            return False
        self.done += 1
        return True


armed: list[Plan] = []
"""What is to go wrong; hosts look only whether this is empty."""
_lock = threading.Lock()


@contextmanager
def fault(
    point: str,
    action: str | BaseException | type[BaseException] | delay | Callable[[str], Any] = "raise",
    *,
    nth: int | None = None,
    probability: float | None = None,
    path: str | None = None,
    message: type[Any] | tuple[type[Any], ...] | None = None,
    seed: int | str = 0,
) -> Iterator[Plan]:
    """While the block runs, do `action` whenever somebody passes `point`. Gives the plan, which counts.

    `action` is "raise", "hang", "kill" (the actor concerned), "drop" (the message), an exception to raise,
    `delay(seconds)`, or a function of the path. Of those that pass, `path` (an actor's full path, or the end of it)
    and `message` (its type) choose some; of these `nth`, counted from 1, takes one and `probability` each by chance,
    drawn from `seed`.

    Raises:
        SpecError: no such point, an action that cannot be done there, or a filter that can never hold.
    """
    _check(point, action, nth, probability)
    plan = Plan(point, action, nth, probability, path, message, random.Random(f"{point} {seed}"))
    with _lock:
        armed.append(plan)
    try:
        yield plan
    finally:
        with _lock:  # by identity: two may be equal
            armed[:] = [each for each in armed if each is not plan]


def _check(point: str, action: Any, nth: Any, probability: Any) -> None:
    if point not in ACTIONS:
        raise SpecError(f"{point!r} is no fault point; there are {', '.join(sorted(POINTS))}")
    word = "delay" if isinstance(action, delay) else action
    is_own = isinstance(action, BaseException) or callable(action)
    if word not in ACTIONS[point] if isinstance(word, str) else not is_own or point == "clock_late":
        allowed = ", ".join(ACTIONS[point])
        raise SpecError(f"{action!r} cannot be done at {point}: there it is one of {allowed}")
    if action == "delay":
        raise SpecError("how late? the action is delay(seconds)")
    if nth is not None and (isinstance(nth, bool) or not isinstance(nth, int) or nth < 1):
        raise SpecError(f"nth counts from 1, and is not {nth!r}")
    if probability is not None and not (isinstance(probability, int | float) and 0 <= probability <= 1):
        raise SpecError(f"a probability is between 0 and 1, not {probability!r}")


def _due(point: str, path: str, message: Any) -> list[Plan]:
    with _lock:
        return [plan for plan in armed if plan.is_due(point, path, message)]


def _raise(plan: Plan, path: str) -> None:
    """Do what raises or calls; every other action is left to the place."""
    action = plan.action
    if action == "raise":
        raise InjectedFault(f"{plan.point} of {path}")
    if isinstance(action, BaseException) or (isinstance(action, type) and issubclass(action, BaseException)):
        raise action
    if callable(action):
        action(path)


async def hit(point: str, path: str) -> None:
    """An actor at `path` passes `point` of its life."""
    own = _passer(path)
    message = own.current.message if own is not None and own.current is not None else None
    for plan in _due(point, path, message):
        if plan.action == "hang":
            await _hang()
        elif plan.action == "kill":
            await _be_killed(own)
        elif isinstance(plan.action, delay):
            await _be_late(own, plan.action.seconds)
        else:
            _raise(plan, path)


def _passer(path: str) -> Incarnation | None:
    turn = waits.current.get()
    return turn.incarnation if turn is not None and turn.incarnation.name.path == path else None


def _is_on_loop() -> bool:
    return asyncio._get_running_loop() is not None


async def _hang() -> None:
    """Never come back, on a loop or in a thread."""
    if not _is_on_loop():
        threading.Event().wait()
    await asyncio.get_running_loop().create_future()


async def _be_killed(own: Incarnation | None) -> None:
    """On a loop the kill arrives right here; a thread, which is only abandoned by it, goes on."""
    if own is not None:
        own.kill()
        if _is_on_loop():
            await _hang()


async def _be_late(own: Incarnation | None, seconds: float) -> None:
    from supervision.clock import sleep  # which looks here itself, for clock_late

    if own is None:
        return
    clock = own.context.clock
    if _is_on_loop():
        await sleep(clock, seconds)
    else:
        over = threading.Event()
        clock.call_at(clock.now() + seconds, over.set)
        over.wait()


def starts_thread(incarnation: Incarnation) -> None:
    """The thread of `incarnation` is about to be started. What this raises is why it is not."""
    path = incarnation.name.path
    for plan in _due("thread_start", path, None):
        if plan.action == "kill":
            incarnation.kill()
        else:
            _raise(plan, path)


def takes(name: Name, envelope: Envelope) -> bool:
    """A message is about to be put into the mailbox of `name`. True if it is lost here, and has been seen to."""
    for plan in _due("mailbox_put", name.path, envelope.message):
        if plan.action == "drop":
            name.dead_letter(envelope, InjectedFault(f"a message to {name.path} was dropped"))
            return True
        if plan.action == "kill":
            if name.incarnation is not None:
                name.incarnation.kill()
        else:
            _raise(plan, name.path)
    return False


def lateness() -> float:
    """How many seconds late the timer that is being arranged will be."""
    return float(sum(plan.action.seconds for plan in _due("clock_late", "clock", None)))
