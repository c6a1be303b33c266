"""The reply to an ask: a Pykka future that any thread can wait for and any event loop can await."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import queue
import sys
import threading
import time
from _thread import allocate_lock
from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine, Generator, Iterable
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pykka

from supervision.errors import BlockingInScheduler
from supervision.hosting import driving
from supervision.hosting.doorbell import bell_of
from supervision.hosting.scheduler import on_scheduler_thread
from supervision.specs import validation
from supervision.waiting import waits

if TYPE_CHECKING:
    from types import TracebackType

    from supervision.name import Name

T = TypeVar("T")

_ExcInfo = tuple["type[BaseException] | None", "BaseException | None", "TracebackType | None"]
_UNSET: Any = object()

logger = logging.getLogger("supervision")


class AskFuture(pykka.ThreadingFuture[T]):
    """A promised reply. The first answer counts; a later one from the runtime is ignored.

    Unlike its base it makes no Condition: one per ask would cost more than the ask. `debtor` is the name
    that owes the reply, None where nobody particular does. `abandoned` says that the only one who waited
    has been cancelled, so that the message need not be handled at all.
    """

    def __init__(self, debtor: Name | None = None) -> None:
        # The base's __init__ is left out on purpose: all it does is to make the Condition.
        self._get_hook = None
        self._await_hook: Callable[[], Coroutine[Any, Any, Any]] | None = None
        self._hook_outcome: Any = _UNSET
        self._lock = allocate_lock()
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._waiters: list[Any] | None = None
        self._callbacks: list[Callable[[], object]] | None = None
        self._on_abandon: Callable[[], object] | None = None
        self.debtor = debtor
        self.abandoned = False

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
            callbacks, self._callbacks = self._callbacks, None
        if waiters:
            for waiter in waiters:
                wake(*waiter)
        if callbacks:
            for callback in callbacks:
                _call_guarded(callback)
        return True

    def expire(self, error: BaseException) -> None:
        """The time for an answer is over: answer with `error`, and let who works on it know."""
        if self.settle(error=error):
            self.abandon()

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
                self._callbacks = self._callbacks or []
                self._callbacks.append(callback)
                return
        _call_guarded(callback)

    # -- waiting -----------------------------------------------------------------------------------

    def get(self, *, timeout: float | None = None) -> T:
        if not self._done:
            if self._get_hook is not None:
                return cast("T", self._from_hook(timeout))
            edge = waits.enter(self)
            try:
                if on_scheduler_thread():
                    raise BlockingInScheduler("get() would block this scheduler and all its actors: await the future")
                self._block(timeout)
            finally:
                if edge is not None:
                    waits.leave(edge)
        return cast("T", self._outcome())

    def _block(self, timeout: float | None) -> None:
        timeout = validation.timeout(timeout, "get(timeout)")
        if driving.drivers and (driver := _driver_for(self.debtor)) is not None:
            if not driver.drive(lambda: self._done, timeout):
                raise pykka.Timeout(f"{timeout} virtual seconds")
            return
        gate = allocate_lock()
        gate.acquire()
        entry = (None, gate.release, 0)
        if not self._enlist(entry):
            return
        if not gate.acquire(timeout=-1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            self._forget(entry)
            if not self._done:  # not abandoned: who has the future may ask it again
                raise pykka.Timeout(f"{timeout} seconds")

    def _from_hook(self, timeout: float | None) -> Any:
        # The hook runs outside any lock: it may itself wait for other futures.
        if self._hook_outcome is _UNSET:
            assert self._get_hook is not None
            self._keep(self._get_hook(timeout))
        return self._hook_outcome

    def _keep(self, outcome: Any) -> None:
        """Note what the hook gave; of several who asked at the same time, all see the first outcome."""
        with self._lock:
            if self._hook_outcome is _UNSET:
                self._hook_outcome = outcome

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value

    def __await__(self) -> Generator[Any, None, T]:
        if not self._done:
            loop = _get_running_loop()
            if loop is None:  # an event loop that is not asyncio's: what Pykka does
                yield
                return self.get()
            if self._get_hook is not None:
                return cast("T", (yield from self._await_derived(loop)))
            edge = waits.enter(self)
            try:
                yield from self._suspend(loop)
            finally:
                if edge is not None:
                    waits.leave(edge)
        return cast("T", self._outcome())

    __iter__ = __await__

    def _await_derived(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, None, Any]:
        if self._hook_outcome is _UNSET:
            if self._await_hook is None:
                return (yield from _in_side_thread(loop, self.get).__await__())
            self._keep((yield from self._await_hook().__await__()))
        return self._hook_outcome

    def _suspend(self, loop: asyncio.AbstractEventLoop) -> Generator[Any, None, None]:
        waiter = loop.create_future()
        entry = (loop, waiter, get_ident())
        if not self._enlist(entry):
            return
        try:
            yield from waiter
        except BaseException:
            if self._forget(entry):
                self.abandon()
            raise

    def _enlist(self, entry: Any) -> bool:
        """Be woken by the answer. False if it is there already."""
        with self._lock:
            if self._done:
                return False
            if self._waiters is None:
                self._waiters = [entry]
            else:
                self._waiters.append(entry)
            return True

    def _forget(self, entry: Any) -> bool:
        """Somebody waits no longer. True if nobody is left who does."""
        with self._lock:
            if self._waiters and entry in self._waiters:
                self._waiters.remove(entry)
                return not self._waiters
            return False

    # -- nobody waits any more ---------------------------------------------------------------------

    def abandon(self) -> None:
        """Nobody wants the answer any more: the message need not be handled, and who works on it may stop."""
        with self._lock:
            self.abandoned = True
            callback, self._on_abandon = self._on_abandon, None
        if callback is not None:
            _call_guarded(callback)

    def give_up(self) -> None:
        """Somebody who was about to wait will not: abandon it, unless others wait."""
        if not self._waiters:
            self.abandon()

    def on_abandon(self, callback: Callable[[], object]) -> None:
        """Call `callback` once, on whichever thread, when nobody wants the answer any more. The last one set counts."""
        with self._lock:
            if not self.abandoned:
                self._on_abandon = None if self._done else callback
                return
        _call_guarded(callback)

    def after_fork(self, error: BaseException) -> None:
        """In the child of a fork: nobody will answer. The lock may be held by a thread that is gone."""
        self._lock = allocate_lock()
        self._waiters = self._callbacks = None
        self.settle(error=error)

    # -- derived futures: awaiting one takes no thread -----------------------------------------------

    def derive(self, hook: Callable[[float | None], Any], awaits: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """A future whose value `hook` computes where it is waited for, or `awaits` where it is awaited."""
        derived: AskFuture[Any] = self.__class__()
        derived.set_get_hook(hook)
        derived._await_hook = awaits
        return derived

    def _then(self, function: Callable[[Any], Any]) -> Any:
        async def awaits() -> Any:
            return function(await self)

        return self.derive(lambda timeout: function(self.get(timeout=timeout)), awaits)

    def map(self, func: Callable[[T], Any]) -> pykka.Future[Any]:
        return cast("pykka.Future[Any]", self._then(func))

    def filter(self, func: Callable[[Any], bool]) -> pykka.Future[Any]:
        return cast("pykka.Future[Any]", self._then(lambda items: list(filter(func, items))))

    def reduce(self, func: Callable[[Any, Any], Any], *args: Any) -> pykka.Future[Any]:
        return cast("pykka.Future[Any]", self._then(lambda items: functools.reduce(func, items, *args)))

    def join(self, *futures: pykka.Future[Any]) -> pykka.Future[Iterable[Any]]:
        """As Pykka's, but `get(timeout=)` is one time limit for all of them together."""
        all_of_them = (cast("pykka.Future[Any]", self), *futures)

        def get_all(timeout: float | None) -> list[Any]:
            deadline = None if timeout is None else time.monotonic() + timeout
            return [
                future.get(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
                for future in all_of_them
            ]

        async def await_all() -> list[Any]:
            return [await awaitable(future) for future in all_of_them]

        return cast("pykka.Future[Iterable[Any]]", self.derive(get_all, await_all))


def _driver_for(debtor: Name | None) -> driving.Driver | None:
    return driving.driver_here(None if debtor is None else debtor.system)


def awaitable(future: pykka.Future[Any]) -> Any:
    """What to await for `future` on an asyncio loop; a future that is not ours is waited for in a side thread."""
    return future if isinstance(future, AskFuture) else _in_side_thread(asyncio.get_running_loop(), future.get)


def _call_guarded(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:  # whose answer this is must not suffer for it
        logger.exception("a callback of a future failed")


def wake(loop: asyncio.AbstractEventLoop | None, waiter: Any, thread: int = 0) -> None:
    """Wake who sleeps on `waiter`, a future of `loop`, which runs in `thread`; without a loop, call `waiter`."""
    if thread == get_ident():  # not asyncio's own question for the running loop: that costs a system call
        if not waiter.done():
            try:
                waiter.set_result(None)
            except RuntimeError:  # the loop has been closed: nobody sleeps there any more
                pass
    elif loop is None:
        waiter()
    else:
        bell_of(loop).wake(waiter)


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

    context = contextvars.copy_context()  # so that waiting in a circle is noticed there too

    def work() -> None:
        outcome: tuple[Any, BaseException | None]
        try:
            outcome = (context.run(function), None)
        except StopIteration as error:  # no future of asyncio takes it
            outcome = (None, RuntimeError(f"the function of a future raised {error!r}"))
        except BaseException as error:  # handed to the awaiter, whatever it is
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(deliver, *outcome)
        except RuntimeError:
            pass

    threading.Thread(target=work, name="supervision-get", daemon=True).start()
    return result
