"""A pretend shell: carries out what an engine decides on children that follow a script, in virtual time.

It keeps the promises a shell makes (every start and stop is answered) and asserts those the engine makes, whatever the
test is about: no start beside a live incarnation, none while ending, one reply per call, nothing after the end.
"""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

from supervision.engine.engine import Engine
from supervision.engine.vocabulary import (
    ArmTimer,
    Call,
    CancelTimer,
    ChildExited,
    ChildIgnored,
    ChildStarted,
    ChildStartFailed,
    Close,
    Effect,
    Emit,
    Event,
    Finish,
    Hold,
    Kill,
    Reply,
    Request,
    RequestStop,
    ShutdownRequested,
    Start,
    StartAll,
    StartedAll,
    TimerFired,
)
from supervision.exits import Crash, Killed, Normal, Reason, Shutdown
from supervision.specs.child import ChildSpec, SupervisorOptions

BOOM = Crash("Boom", "it broke")
NORMAL = Normal()


def child(id: str, **fields: Any) -> ChildSpec:
    """A spec whose actor nobody will ever make."""
    return ChildSpec(id, object, **fields)


class PretendShell:
    """One engine, its children and its clock. `engine` makes the engine: the class, or one of your own.

    `starts[id]` lists how the next starts of a child go: "ok" (also when the list is empty), "ignore", "fail", "hang".
    `stops[id]` is how it takes being asked to stop: "ok" (default), "hang" until killed, or the reason it ends with.
    """

    def __init__(
        self,
        specs: Iterable[ChildSpec] = (),
        *,
        start: bool = True,
        engine: Callable[..., Engine] = Engine,
        **options: Any,
    ) -> None:
        engine_options = {key: options.pop(key) for key in ("is_dynamic", "max_children", "path") if key in options}
        self.engine = engine(SupervisorOptions(**options), specs, **engine_options)
        self.now = 1000.0
        self.rand = 0.0
        self.starts: dict[str, list[str]] = defaultdict(list)
        self.stops: dict[str, Any] = {}
        self.live: dict[str, int] = {}  # from Start until its end has been reported
        self.stopping: set[str] = set()
        self.open: set[str] = set()
        self.held: set[str] = set()
        self.log: list[str] = []
        self.emitted: list[Emit] = []
        self.replies: dict[int, Any] = {}
        self.finished: Reason | None = None
        self.is_started = False
        self.asked_to_end = False
        self.restart_times: dict[str, list[float]] = defaultdict(list)
        self.last_start: dict[str, Start] = {}
        self.inbox: deque[Event] = deque()
        self._timers: dict[Any, float] = {}
        self._order: list[tuple[float, int, Any]] = []
        self._serial = itertools.count()
        self._tokens = itertools.count(1)
        if start:
            self.tell(StartAll())
            self.settle()

    # What happens to the supervisor

    def tell(self, event: Event) -> None:
        """Let the engine decide about one event, now."""
        for effect in self.engine.decide(event, self.now, self.rand):
            self._do(effect)

    def settle(self) -> None:
        """Deliver all that is on its way."""
        for _ in range(10_000):
            if not self.inbox:
                return
            self.deliver(0)
        raise AssertionError("never comes to rest")

    def deliver(self, index: int) -> None:
        """Deliver one of the events on their way."""
        self.inbox.rotate(-index)
        event = self.inbox.popleft()
        self.inbox.rotate(index)
        self._leave(event)
        self.tell(event)

    def exit(self, id: str, reason: Reason = BOOM, **fields: Any) -> None:
        """The child ends by itself and everything that follows is done."""
        self.exit_only(id, reason, **fields)
        self.settle()

    def exit_only(self, id: str, reason: Reason = BOOM, **fields: Any) -> None:
        event = ChildExited(id, self.live[id], reason, **fields)
        self._leave(event)
        self.tell(event)

    def call(self, request: Request) -> Any:
        """Ask and settle; the answer, or None if there is none yet."""
        token = self.call_only(request)
        self.settle()
        return self.replies.get(token)

    def call_only(self, request: Request) -> int:
        token = next(self._tokens)
        self.tell(Call(token, request))
        return token

    def shut_down(self, reason: Reason | None = None) -> None:
        self.asked_to_end = True
        self.tell(ShutdownRequested(reason or Shutdown()))
        self.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, timers in order."""
        end = self.now + seconds
        while self._order and self._order[0][0] <= end:
            due, _, key = heapq.heappop(self._order)
            if self._timers.get(key) == due:
                self.now = due
                del self._timers[key]
                self.tell(TimerFired(key))
                self.settle()
        self.now = end

    # What can be seen

    @property
    def running(self) -> list[str]:
        return sorted(self.live)

    @property
    def armed(self) -> list[Any]:
        return list(self._timers)

    def names_emitted(self) -> list[str]:
        return [event.name for event in self.emitted]

    def take_log(self) -> list[str]:
        """What was started (+), asked to stop (-) and killed (!) since the last look."""
        log, self.log = self.log, []
        return log

    # Carrying out

    def _do(self, effect: Effect) -> None:
        assert self.finished is None or isinstance(effect, Reply), f"{effect} after the end"
        match effect:
            case Start():
                self._start(effect)
            case RequestStop(id=id, epoch=epoch):
                self._request_stop(id, epoch)
            case Kill(id=id, epoch=epoch):
                assert self.live.get(id) == epoch, f"killed {id} {epoch}, which does not live"
                self.log.append(f"!{id}")
                self.stopping.add(id)
                self._forget_unanswered(id)
                self.inbox.append(ChildExited(id, epoch, Killed()))
            case ArmTimer(key=key, delay=delay):
                self._arm(key, delay)
            case CancelTimer(key=key):
                self._timers.pop(key, None)
            case Reply(token=token, value=value):
                assert token not in self.replies, f"answered {token} twice"
                self.replies[token] = value
            case Emit():
                self.emitted.append(effect)
            case Hold(id=id):
                assert id in self.open
                assert id not in self.live, f"held {id} while it lives"
                self.held.add(id)
            case Close(id=id):
                assert id not in self.live, f"closed {id} while it lives"
                self.open.discard(id)
                self.held.discard(id)
            case StartedAll():
                self.is_started = True
            case Finish(reason=reason):
                assert not self.live, f"ended with {sorted(self.live)} alive"
                assert not self.open, f"ended with {sorted(self.open)} open"
                self.finished = reason

    def _start(self, effect: Start) -> None:
        assert effect.id not in self.live, f"started {effect.id} beside its old incarnation"
        assert not self.asked_to_end, f"started {effect.id} while ending"
        assert effect.id not in self.open or effect.id in self.held, f"{effect.id} was neither held nor closed"
        self.held.discard(effect.id)
        self.log.append(f"+{effect.id}")
        if effect.restart_reason is not None:
            self.restart_times[effect.id].append(self.now)
        self.live[effect.id] = effect.epoch
        self.last_start[effect.id] = effect
        self.open.add(effect.id)
        script = self.starts[effect.id]
        match script.pop(0) if script else "ok":
            case "ok":
                self.inbox.append(ChildStarted(effect.id, effect.epoch, f"info of {effect.id}"))
            case "ignore":
                self.inbox.append(ChildIgnored(effect.id, effect.epoch))
            case "fail":
                self.inbox.append(ChildStartFailed(effect.id, effect.epoch, BOOM))

    def _request_stop(self, id: str, epoch: int) -> None:
        assert self.live.get(id) == epoch, f"asked {id} {epoch} to stop, which does not live"
        self.log.append(f"-{id}")
        self.stopping.add(id)
        how = self.stops.get(id, "ok")
        if how != "hang":
            self._forget_unanswered(id)
            self.inbox.append(ChildExited(id, epoch, Shutdown() if how == "ok" else how))

    def _forget_unanswered(self, id: str) -> None:
        """It will end another way than it was going to."""
        ends = (ChildExited, ChildIgnored, ChildStartFailed)
        self.inbox = deque(event for event in self.inbox if not (isinstance(event, ends) and event.id == id))

    def _leave(self, event: Event) -> None:
        if isinstance(event, ChildExited | ChildIgnored | ChildStartFailed):
            if self.live.get(event.id) == event.epoch:
                del self.live[event.id]
                self.stopping.discard(event.id)

    def _arm(self, key: Any, delay: float) -> None:
        assert key not in self._timers, f"armed {key} twice"
        if delay == 0:
            self.inbox.append(TimerFired(key))
            return
        self._timers[key] = self.now + delay
        heapq.heappush(self._order, (self.now + delay, next(self._serial), key))
