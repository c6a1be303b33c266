"""Event logs: an actor's state as the list of what has happened to it, in a file that survives the process.

A handler first appends what it is about to do (`self.record(entry)`) and then does it; after a crash the entries are
done again, in order, by the actor's `apply(entry)`, and so lead to the same state. Nothing that was recorded is lost:

    class Account(sup.Actor):
        def on_start(self):
            self.balance = 0

        def apply(self, entry):
            self.balance += entry["amount"]

        def on_receive(self, deposit):
            entry = {"amount": deposit.amount}
            self.record(entry)
            self.apply(entry)

An entry counts from the moment `record` has returned: if the actor crashes before it has applied it, the next
incarnation does. Whoever asked hears of a crash and cannot know how far it came, as with any message in flight.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from supervision import faults
from supervision.errors import ActorDeadError
from supervision.exits import Exit
from supervision.specs.child import EventLog, StateSpec
from supervision.state.disk import DISK, Disk
from supervision.state.keeping import Keeper, Keeping, Kept, Probation, check_state, tell_of_quarantine
from supervision.state.log_file import Cut, LogFile, Retired
from supervision.state.log_format import encode

if TYPE_CHECKING:
    from supervision.incarnation import Incarnation

logger = logging.getLogger("supervision")

T = TypeVar("T")

BATCH = 256
"""How many entries are read and applied before others on the actor's loop get a turn."""


class LogKeeper(Keeper):
    """Knows which log belongs to a name, and whether the next incarnation may read it. The log is on the disk."""

    kind = "event_log"
    disk: Disk = DISK

    def __init__(self, spec: StateSpec | None) -> None:
        super().__init__(spec)
        self.is_condemned = False
        self.log: LogFile | None = None
        self.path = ""

    def __str__(self) -> str:
        return self.path

    def goes_on_with(self, spec: StateSpec | None) -> bool:
        return cast("EventLog", spec).path == cast("EventLog", self.spec).path

    def begin(self, incarnation: Incarnation) -> Keeping:
        super().begin(incarnation)
        self.path = incarnation.name.path
        return LogKeeping(self, incarnation)

    def kept(self) -> Kept:
        entries = None if self.log is None else self.log.entries
        return Kept(self.kind, self.at, entries, self.quarantined)


class LogKeeping(Keeping):
    """One life's use of its log. A zombie has none: its records are refused, and it cannot hold the file."""

    def __init__(self, keeper: LogKeeper, own: Incarnation) -> None:
        self._keeper = keeper
        self._own = own
        spec = cast("EventLog", keeper.spec)
        self._log = LogFile(spec.path, keeper, sync=spec.sync, disk=keeper.disk)
        self._probation = Probation(spec.quarantine)

    async def open(self) -> None:
        own, keeper = self._own, self._keeper
        check_state(keeper.spec, type(own.actor), own.name.path)
        moved_to = await self._aside(lambda: self._log.open(afresh=keeper.is_condemned))
        keeper.is_condemned = False
        if moved_to is not None:
            keeper.quarantined = moved_to
            logger.error("%s: the log that was restored before the crash is now %s", own.name.path, moved_to)
            self._tell("log_moved", moved_to=str(moved_to))

    async def replay(self) -> None:
        own = self._own
        self._keeper.log = self._log
        while entries := await self._read():
            self._probation.begin(own.name.now())
            for entry in entries:
                await own._call(own.actor.apply, entry)
        if self._log.entries:
            self._probation.begin(own.name.now())
        if self._log.cut is not None:
            self._tell_of_cut(self._log.cut)

    async def _read(self) -> list[Any]:
        if faults.armed:
            await faults.hit("snapshot_write", self._own.name.path)
        try:
            return await self._aside(lambda: self._log.read(BATCH))
        except OSError:
            self._probation.end()  # the disk's failure says nothing of the state
            raise

    async def _aside(self, work: Callable[[], T]) -> T:
        """Do disk work where it holds up nobody but this actor."""
        system = self._own.name.system
        if self._own.kind == "thread" or (system is not None and system.supervisors.hosts_everything):
            return work()
        return await in_side_thread(work)

    def record(self, entry: Any) -> None:
        own = self._own
        if own.exit is not None:
            raise ActorDeadError(own.name.path, own.exit.reason)
        if not own.work.is_handling_here:
            raise RuntimeError(f"{own.name.path}: record() is for a handler, while it handles a message")
        data = encode(entry)
        try:
            if faults.armed:
                _pass_fault(own.name.path)
            self._log.append(data)
        except Retired:
            raise ActorDeadError(own.name.path, None if own.exit is None else own.exit.reason) from None
        except OSError:
            self._probation.end()
            raise

    def ended(self, exit: Exit) -> None:
        if self._probation.condemns(exit):
            self._keeper.is_condemned = True
            self._keeper.forget()
            tell_of_quarantine(self._own, exit, str(self._log.path))
        self._log.retire()

    def _tell_of_cut(self, cut: Cut) -> None:
        path, log = self._own.name.path, self._log.path
        if cut.moved_to is None:
            logger.warning("%s: cut %d bytes of an unfinished record off %s: %s", path, cut.size, log, cut.why)
            self._tell("log_cut", size_bytes=cut.size, why=cut.why)
        else:
            logger.error("%s: %s in %s; moved %d bytes from there on to %s", path, cut.why, log, cut.size, cut.moved_to)
            self._tell("log_damaged", size_bytes=cut.size, why=cut.why, moved_to=str(cut.moved_to))

    def _tell(self, event: str, **info: Any) -> None:
        if (system := self._own.name.system) is not None:
            system.emit(event, self._own.name.path, epoch=self._own.epoch, **info)


def _pass_fault(path: str) -> None:
    """A fault point where nothing can wait: on a loop, an action that would have to is left out."""
    passing = faults.hit("snapshot_write", path)
    try:
        passing.send(None)
    except StopIteration:
        return
    passing.close()


async def in_side_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a daemon thread of its own: a disk that hangs holds up neither the loop nor its end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def deliver(value: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(cast("T", value))
        else:
            done.set_exception(error)

    def run() -> None:
        outcome: tuple[T | None, BaseException | None]
        try:
            outcome = (work(), None)
        except BaseException as error:  # handed to who awaits, whatever it is
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(deliver, *outcome)
        except RuntimeError:  # the loop has been closed
            pass

    threading.Thread(target=run, name="supervision-disk", daemon=True).start()
    return await done
