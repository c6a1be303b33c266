"""The reply to an ask: a Pykka future that any thread can wait for and any event loop can await."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from _thread import allocate_lock
from asyncio import _get_running_loop
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pykka

from supervision import waits
from supervision.errors import BlockingInScheduler
from supervision.scheduler import on_scheduler_thread

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.name import Name

T = TypeVar("T")

_ExcInfo = tuple["type[BaseException] | None", "BaseException | None", "TracebackType | None"]
_UNSET: Any = object()


class AskFuture(pykka.ThreadingFuture[T]):
    """A promised reply. The first answer counts; a later one from the runtime is ignored.

    Unlike its base it makes no Condition: one per ask would cost more than the ask. `debtor` is the name
    that owes the reply, None where nobody particular does. `abandoned` says that the only one who waited
    has been cancelled, so that the message need not be handled at all.
    """

    def __init__(self, debtor: Name | None = None) -> None:
        # The base's __init__ is left out on purpose: all it does is to make the Condition.
        self._get_hook = None
        self._hook_outcome: Any = _UNSET
        self._lock = allocate_lock()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[Any] | None = None
        self.debtor = debtor
        self.abandoned = False
        self.on_abandon: Callable[[], object] | None = None

    # -- answering ---------------------------------------------------------------------------------

    def settle(self, value: Any = None, error: BaseException | None = None) -> bool:
        """Answer, if nobody has yet: the runtime's way. False for a late answer, which changes nothing."""
        with self._lock:
            if self._done or self._get_hook is not None:
                return False
            self._value = value
            self._error = error
            self._done = True
            waiters, self._waiters = self._waiters, None
        if waiters:
            running = _get_running_loop()
            for loop, waiter in waiters:
                _wake(running, loop, waiter)
        return True

    def set(self, value: Any = None) -> None:
        if not self.settle(value):
            raise queue.Full

    def set_exception(self, exc_info: _ExcInfo | None = None) -> None:
        kind, error, trace = sys.exc_info() if exc_info is None else exc_info
        if error is None:
            assert kind is not None, "set_exception() needs an exception, or to be called in an except block"
            error = kind()
        if error.__traceback__ is not trace:
            error = error.with_traceback(trace)
        if not self.settle(error=error):
            raise queue.Full

    def set_get_hook(self, func: Callable[[float | None], Any]) -> None:
        with self._lock:
            if self._done:
                raise queue.Full
            self._get_hook = func

    @property
    def done(self) -> bool:
        """True once there is an answer. A derived future has none before it is asked for."""
        return self._done or self._hook_outcome is not _UNSET

    def on_done(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when there is an answer: at once, or on the thread that answers."""
        with self._lock:
            if not self._done:
                self._waiters = self._waiters or []
                self._waiters.append((None, callback))
                return
        callback()

    # -- waiting -----------------------------------------------------------------------------------

    def get(self, *, timeout: float | None = None) -> Any:
        if not self._done:
            if self._get_hook is not None:
                return self._from_hook(timeout)
            if on_scheduler_thread():
                raise BlockingInScheduler("get() would block this scheduler and all its actors: await the future")
            with waits.edge(self):
                self._block(timeout)
        return self._outcome()

    def _block(self, timeout: float | None) -> None:
        gate = allocate_lock()
        gate.acquire()
        entry = (None, gate.release)
        with self._lock:
            if self._done:
                return
            self._waiters = self._waiters or []
            self._waiters.append(entry)
        if not gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._forget(entry)
            if not self._done:  # not abandoned: who has the future may ask it again
                raise pykka.Timeout(f"{timeout} seconds")

    def _from_hook(self, timeout: float | None) -> Any:
        # The hook runs outside any lock: it may itself wait for other futures.
        if self._hook_outcome is _UNSET:
            assert self._get_hook is not None
            self._hook_outcome = self._get_hook(timeout)
        return self._hook_outcome

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            loop = _get_running_loop()
            if loop is None:  # an event loop that is not asyncio's: what Pykka does
                yield
                return cast("T", self.get())
            if self._get_hook is not None:
                return cast("T", (yield from _in_side_thread(loop, self.get).__await__()))
            with waits.edge(self):
                yield from self._suspend(loop)
        return cast("T", self._outcome())

    __iter__ = __await__

    def _suspend(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, None, None]:
        waiter = loop.create_future()
        entry = (loop, waiter)
        with self._lock:
            if self._done:
                return
            if self._waiters is None:
                self._waiters = [entry]
            else:
                self._waiters.append(entry)
        try:
            yield from waiter
        except BaseException:
            if self._forget(entry):
                self.abandon()
            raise

    def _forget(self, entry: Any) -> bool:
        """Somebody waits no longer. True if nobody is left who does."""
        with self._lock:
            if self._waiters and entry in self._waiters:
                self._waiters.remove(entry)
                return not self._waiters
            return False

    def abandon(self) -> None:
        """Nobody wants the answer any more: the message need not be handled, and who works on it may stop."""
        self.abandoned = True
        if self.on_abandon is not None and not self._done:
            self.on_abandon()

    # -- derived futures ---------------------------------------------------------------------------

    def join(self, *futures: pykka.Future[Any]) -> pykka.Future[Iterable[Any]]:
        """As Pykka's, but `get(timeout=)` is one time limit for all of them together."""

        def get_all(timeout: float | None) -> list[Any]:
            deadline = None if timeout is None else time.monotonic() + timeout
            return [
                future.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                for future in (cast("pykka.Future[Any]", self), *futures)
            ]

        joined: AskFuture[Any] = AskFuture()
        joined.set_get_hook(get_all)
        return joined


def _wake(running: Any, loop: Any, waiter: Any) -> None:
    if loop is None:
        waiter()
    elif loop is running:
        if not waiter.done():
            waiter.set_result(None)
    else:
        try:
            loop.call_soon_threadsafe(_release, waiter)
        except RuntimeError:  # the loop has been closed; nobody waits there any more
            pass


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _in_side_thread(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> asyncio.Future[Any]:
    """Run a blocking function in a daemon thread of its own: a hook may block for ever, the loop must not."""
    result = loop.create_future()

    def deliver(value: Any, error: BaseException | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)

    def work() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (function(), None)
        except BaseException as error:  # handed to the awaiter, whatever it is
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(deliver, *outcome)
        except RuntimeError:
            pass

    threading.Thread(target=work, name="supervision-get", daemon=True).start()
    return result
