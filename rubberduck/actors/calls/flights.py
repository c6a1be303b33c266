"""Identical calls under way share one answer: one request to the provider, one bill, each with its own patience.

The answer is fetched by a call of its own, which nobody owns: a *flight*. Those who wait for it are calls as any other,
each with its deadline, its reader and its end; the last one to leave ends the flight.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import supervision as sup
from rubberduck.actors.calls import reports
from rubberduck.actors.calls.answers import Kept, key_of
from rubberduck.actors.calls.call import COUNT, ONE_REQUEST, Call
from rubberduck.actors.office import Office
from rubberduck.core import flight
from rubberduck.core.limiter import Klass
from rubberduck.errors import CallInterrupted, Refused, RubberDuckError
from rubberduck.stream import Pipe, Stream
from rubberduck.types import Chunk
from rubberduck.wakers import Waker, cancel_on

_BEST_FIRST: tuple[Klass, ...] = ("high", "normal", "low")

MORE_TIME = 0.1
"""The share of its time by which a waiter's must exceed that of a refused flight to be worth another one."""

Run = Callable[[Call], "sup.RunTask"]
TaskOf = Callable[[str], "asyncio.Task[Any] | None"]


class Flight(flight.Flight[Chunk]):
    """One call for several callers, on the loop of all of them.

    `call` is what is asked, `began_for` the deadline that it began with, which grows with those who join. A stream is
    read by those who wait for it: whoever is first in want of a chunk fetches it for all, so the fastest sets the pace.
    """

    def __init__(self, call: Call, future: sup.AskFuture[Any]) -> None:
        super().__init__()
        self.call = call
        self.began_for = call.deadline
        self.is_superseded = False
        self._future = future
        self._stream: Stream | None = None
        self._outcome: Kept | RubberDuckError | None = None
        self._is_fetching = False
        self._sleepers: dict[Waker, None] = {}
        self._loop = asyncio.get_running_loop()
        future.on_done(self._hear)

    # -- what is waited for ------------------------------------------------------------------------

    async def bring(self, seat: flight.Seat, call: Call, reply: sup.Reply) -> Kept | RubberDuckError:
        """Hand all chunks to a waiter, then return how the flight has ended."""
        while True:
            if isinstance(self._outcome, CallInterrupted) and not call.delivered:
                return self._outcome  # who has seen nothing of a flight that died may get another answer
            if (chunk := self.take(seat)) is not None:
                await (call.pipe or self._open(call, reply)).write(chunk)
            elif self._outcome is None:
                await self._further()
            else:
                return self._outcome

    def _open(self, call: Call, reply: sup.Reply) -> Pipe:
        """Answer a waiter with a stream of its own, whose end is that of the waiter's task alone."""
        task, stream = asyncio.current_task(), self._stream
        assert task is not None
        assert stream is not None
        pipe = call.pipe = Pipe(functools.partial(cancel_on, self._loop, task))
        if not (reply.is_used or call.is_lost):
            reply.set(Stream(pipe, stream.provider, stream.model, call.id))
        return pipe

    @property
    def is_over(self) -> bool:
        """Whether its end is known."""
        return self._outcome is not None

    async def _further(self) -> None:
        """Until there may be more: fetched by who comes first, for all."""
        if self._stream is None or self._is_fetching:
            await self._sleep()
            return
        self._is_fetching = True
        try:
            self._fetched(self._stream, await anext(self._stream, None))
        except RubberDuckError as error:
            self.end(error)
        finally:
            self._is_fetching = False
            self._wake()

    async def _sleep(self) -> None:
        waker = Waker(self._loop, self._loop.create_future())
        self._sleepers[waker] = None
        try:
            await waker.future
        finally:
            self._sleepers.pop(waker, None)

    def _fetched(self, stream: Stream, chunk: Chunk | None) -> None:
        if chunk is not None:
            self.add(chunk, _size(chunk))
        else:
            self.end(stream.response or CallInterrupted("the shared stream was closed", spent=None))

    # -- what has come -----------------------------------------------------------------------------

    def _hear(self) -> None:
        """The call has been answered, on whichever thread."""
        if asyncio._get_running_loop() is self._loop:
            self._answered()
        else:
            with contextlib.suppress(RuntimeError):  # the loop has been closed; nobody waits there any more
                self._loop.call_soon_threadsafe(self._answered)

    def _answered(self) -> None:
        try:
            got = self._future.get(timeout=0)
        except RubberDuckError as error:
            self.end(error)
        except Exception as error:  # noqa: BLE001  (the end of the actor that ran it)
            self.end(CallInterrupted(f"RubberDuck lost the call: {error}", spent=None))
        else:
            if isinstance(got, Stream):
                self._stream = got
                self._wake()
            else:
                self.end(got)

    def end(self, outcome: Kept | RubberDuckError) -> None:
        """This is what becomes of it, if nothing has so far."""
        self.close()
        if self._outcome is None:
            self._outcome = outcome
        self._wake()

    def _wake(self) -> None:
        sleepers, self._sleepers = self._sleepers, {}
        for waker in sleepers:
            waker.wake()

    def cancel(self) -> None:
        """Nobody waits any more: end the call, and its socket with it."""
        self.close()
        self._future.abandon()
        if self._stream is None and self._future.done:
            self._answered()
        if self._stream is not None:
            self._stream.close()


class Flights:
    """All flights of one tree. Used on the actors' loop; what a former, blocked loop has left behind stays there.

    `run(call)` says how a call is run as a task, `task_of(id)` which task that is.
    """

    def __init__(self, office: Office, new_id: Callable[[], str], run: Run, task_of: TaskOf) -> None:
        self._office = office
        self._new_id = new_id
        self._run = run
        self._task_of = task_of
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flights: flight.Flights[Flight] = flight.Flights()

    def __len__(self) -> int:
        return len(self._flights)

    def key(self, call: Call) -> str | None:
        """What identifies what is asked and how; None if the call shares with nobody."""
        if call.is_flight or not (call.replayable and call.may_share):  # what does something is done for each
            return None
        if call.kind == COUNT:
            return None
        key = key_of(call)
        return None if key is None else f"{_manner(call)} {key}"

    async def answer(self, call: Call, key: str, reply: sup.Reply) -> Kept:
        """The answer to `call` from the flight of `key`, which begins where there is none. Raises how it ended."""
        if self._loop is not (loop := asyncio.get_running_loop()):
            self._loop, self._flights = loop, flight.Flights()
        flights = self._flights
        former = call.flight
        if former is not None:  # it was lost together with the task that waited for it
            _charge(call, former)
        while True:
            shared, seat = self._join(flights, key, call, former)
            try:
                outcome = await shared.bring(seat, call, reply)
                if not isinstance(outcome, RubberDuckError):
                    return _answer_to(call, shared, outcome, self._office.now())
                if not _goes_on(call, shared, outcome):
                    raise _error_to(call, shared, outcome) from outcome.__cause__
            finally:
                if flights.leave(key, shared, seat) and not shared.is_over:
                    await self._end(call, shared)
            former = shared

    # -- joining -----------------------------------------------------------------------------------

    def _join(
        self, flights: flight.Flights[Flight], key: str, call: Call, former: Flight | None
    ) -> tuple[Flight, flight.Seat]:
        found = flights.find(key)
        if found is not None and found.call.begun == 0 and _better(call.klass, found.call.klass) != found.call.klass:
            # It waits in the queue for less than this call may ask for; nothing is lost by beginning anew.
            found.is_superseded = True
            found.end(CallInterrupted("another call of a higher class asks the same"))
            found.cancel()
            former, found = found, None
        if found is not None:
            reports.joined(self._office.system.name, call, found.call)
        shared, seat = flights.join(key, functools.partial(self._begin, call, former))
        shared.call.prolong(call.deadline)
        shared.call.klass = _better(shared.call.klass, call.klass)
        call.flight = shared
        return shared, seat

    def _begin(self, call: Call, former: Flight | None) -> Flight:
        """A flight for `call`, and for all who waited for the `former` one, which came to nothing."""
        asked = replace(
            call,
            id=self._new_id(),
            amounts=ONE_REQUEST,
            queue_wait=None,
            place=None,
            begun=0,
            attempts=[],
            steps=[],
            out=[],
            parts=[],
            continues=False,
            spliced=False,
            is_flight=True,
            is_second=False,
            flight=None,
        )
        if former is not None:
            asked.accepted_at = min(asked.accepted_at, former.call.accepted_at)
            asked.deadline = max(asked.deadline, former.call.deadline)
            asked.klass = _better(asked.klass, former.call.klass)
        return Flight(asked, self._office.calls().ask(self._run(asked), block=False))

    async def _end(self, call: Call, shared: Flight) -> None:
        """Who leaves last sees to it that nothing stays open, and hears what that has cost."""
        task = self._task_of(shared.call.id)
        shared.cancel()
        if task is not None:
            await asyncio.wait([task])
        if not call.is_lost:
            _charge(call, shared)


def _manner(call: Call) -> str:
    """How an answer is wanted; who wants a value of another type may not be content with the same answer."""
    if call.is_stream:
        return str(call.policy)
    return "whole" if call.output is None else f"as {call.output.key}"


def _goes_on(call: Call, shared: Flight, error: RubberDuckError) -> bool:
    """Whether a waiter looks for another flight after this one has failed."""
    if call.delivered or call.is_lost:
        return False
    if shared.is_superseded:
        return True
    if isinstance(error, Refused) and not shared.call.attempts:
        # Perhaps for want of time that this call has. Nothing was sent, so it may begin anew for those who have it.
        return call.deadline - shared.began_for > MORE_TIME * (shared.began_for - shared.call.accepted_at)
    if not isinstance(error, CallInterrupted) or call.is_second:
        return False
    call.is_second = True  # one restart, which those who have lost the same flight share
    _charge(call, shared)
    return True


def may_begin_anew(call: Call, reply: sup.Reply) -> bool:
    """Whether a waiter whose task was left behind, with its flight, may be given another task."""
    is_waiter = call.flight is not None and not call.is_second
    return is_waiter and not call.delivered and reply.is_wanted and not reply.is_used


# -- to each his own -------------------------------------------------------------------------------


def _answer_to(call: Call, shared: Flight, response: Kept, now: float) -> Kept:
    """The answer as one waiter gets it: the first has the bill, for the others it is free."""
    is_payer = _charge(call, shared)
    usage = response.usage if is_payer else replace(response.usage, cost=Decimal(0))
    return replace(
        response,
        usage=usage,
        attempts=tuple(call.attempts),
        shared=not is_payer,
        request_id=call.id,
        trace=call.trace(now, "success" if is_payer else "shared"),
    )


def _charge(call: Call, shared: Flight) -> bool:
    """Put what was sent on a waiter's bill, unless another has it. Whether it is this one's."""
    is_payer = shared.pay()
    if is_payer:
        call.attempts.extend(shared.call.attempts)
    return is_payer


def _error_to(call: Call, shared: Flight, error: RubberDuckError) -> RubberDuckError:
    """The error as one waiter gets it: an object of his own, for his id and his bill are written into it."""
    twin = type(error).__new__(type(error), *error.args)
    twin.__dict__.update(error.__dict__)
    twin.request_id = None
    if not _charge(call, shared):
        twin.spent = call.spent
    return twin


def _better(one: Klass, other: Klass) -> Klass:
    return one if _BEST_FIRST.index(one) <= _BEST_FIRST.index(other) else other


def _size(chunk: Chunk) -> int:
    """About how many bytes the chunk takes."""
    delta = chunk.delta
    tools = sum([len(call.arguments) for call in delta.tool_calls])
    return 256 + len(delta.content) + len(delta.reasoning) + len(delta.refusal) + tools
