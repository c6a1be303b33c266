"""Calls as tasks: each owes one caller one answer, whatever becomes of it.

Here it is answered from the cache, joins an identical call, or goes its own course (drawn in course.py), and here
whatever has become of that is told: once, even where the task itself has been lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
import uuid
from dataclasses import replace
from typing import Any

import supervision as sup
from rubberduck.actors import request_queue
from rubberduck.actors.calls import endings, reports
from rubberduck.actors.calls.answers import Answers
from rubberduck.actors.calls.arrears import Arrears
from rubberduck.actors.calls.call import CHAT, EMBEDDINGS, Call, Given
from rubberduck.actors.calls.continuation import delivery_of
from rubberduck.actors.calls.course import Course, tell_queue
from rubberduck.actors.calls.flights import Flights, may_begin_anew
from rubberduck.actors.calls.rules import Rules
from rubberduck.actors.calls.trace import Trace
from rubberduck.actors.calls.trace_log import TraceLog
from rubberduck.actors.office import Office
from rubberduck.config import Config
from rubberduck.core.release import StreamPolicy
from rubberduck.errors import RubberDuckError
from rubberduck.types import Embeddings, Response, TokenCount, Usage
from rubberduck.wakers import Waker

TIME_TO_END = 5.0
"""Seconds that a cancelled call gets to give back what it holds."""


class CallRunner:
    """Takes calls through their course. Used on the actors' loop only, but for `lose`."""

    def __init__(self, config: Config, office: Office) -> None:
        self._office = office
        self.arrears = Arrears(office)
        self._rules = Rules.of(config)
        self._answers = Answers(config.cache)
        self._stream, self._default_policy = config.stream, config.stream.read(None)
        self._traces = TraceLog()
        self._flights = Flights(office, self.new_id, self._task, self._task_of) if config.single_flight else None
        self._in_flight: dict[str, tuple[asyncio.Task[Any], reports.CallReport]] = {}
        self._drained: Waker | None = None
        # Ids that grow are written into the ledger's index faster than random ones.
        self._id_prefix, self._numbers = uuid.uuid4().hex[:20], itertools.count(1)

    def new_id(self) -> str:
        """An id for a call, as no other call of any process has."""
        return f"{self._id_prefix}{next(self._numbers):012x}"

    def stream_policy(self, told: Any) -> StreamPolicy:
        """What becomes of a stream that breaks, by a call's own word or the configured one. Raises ValueError."""
        return self._default_policy if told is None else self._stream.read(told)

    def calls(self) -> sup.ActorRef:
        """Where calls become tasks."""
        return self._office.calls()

    def explain(self, request_id: str) -> Trace:
        """Why a call that runs, or ended not long ago, goes or went its way. On any thread.

        Raises:
            KeyError: it is not known, or not any more.
        """
        _, report = self._in_flight.get(request_id, (None, None))
        if report is None or request_id in self._traces:  # it has been answered, though its task may not have ended
            return self._traces.find(request_id)
        return report.call.trace(self._office.now())

    async def drain(self, until: float) -> None:
        """Wait until no call is in flight; those that are at `until` (real monotonic time) are cancelled."""
        loop = asyncio.get_running_loop()
        self._drained = Waker(loop, loop.create_future())
        if self._in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._drained.future, max(0.0, until - time.monotonic()))
        for task in (left := {task for task, _ in list(self._in_flight.values())}):
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=TIME_TO_END)

    # -- the answer that is owed -------------------------------------------------------------------

    async def run(self, reply: sup.Reply, call: Call) -> None:
        """Answer one call exactly once: with what it asks for, or with an error of our tree."""
        task = asyncio.current_task()
        assert task is not None
        if call.is_lost:
            return
        report = (reports.CallReport if not call.is_flight else reports.NoReport)(self._office.system.name, call)
        self._in_flight[call.id] = (task, report)
        try:
            async with sup.TimeLimit(self._office.clock, None if call.is_flight else call.deadline):
                response = await self._answer(call, reply)
                answer = response if call.output is None else await self._read(call, response)
        except asyncio.CancelledError:
            self._fail(call, reply, report, endings.of_cancellation(call, reply))
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller is owed an answer)
            self._fail(call, reply, report, endings.of_error(call, error, self._office.now()))
        else:
            if not call.is_lost:
                self._traces.keep(response.trace)
                endings.succeed(call, reply, answer)
                report.success(response)
        finally:
            self._leave(call)

    def lose(self, call: Call, reply: sup.Reply, reason: sup.Reason) -> None:
        """The call's task has been left behind. Answer and book what it will not, on whichever thread.

        The task may come back at any moment, this one included. From here on it sends nothing, and whatever it
        gives back is given back twice at most, which all who get it bear.
        """
        out = call.lose()
        if self._flights is not None and may_begin_anew(call, reply):
            fresh = replace(
                call, id=self.new_id(), attempts=list(call.attempts), is_lost=False, is_second=True, parts=[]
            )
            reply.forward(self.calls(), self._task(fresh))
        _, report = self._in_flight.get(call.id, (None, None))
        lost = [run.lose(is_culprit=run.task is not None and _is_running(run.task)) for run in out]
        tell_queue(self._office, call, request_queue.Cancel(call.id))
        tell_queue(self._office, call, request_queue.Done(call.id, ok=False))
        error = endings.of_loss(call, reason, was_sent=any(lost))
        self._tell(call, reply, error)
        if report is not None:
            report.failure(error)
        self._leave(call)

    def _fail(self, call: Call, reply: sup.Reply, report: reports.CallReport, error: RubberDuckError) -> None:
        if not call.is_lost:
            self._tell(call, reply, error)
            report.failure(error)
        elif call.pipe is not None:  # it may have been opened in the moment of the loss
            call.pipe.fail(error)

    def _tell(self, call: Call, reply: sup.Reply, error: RubberDuckError) -> None:
        """Fail the call. Its trace is kept before, for whoever gets the error may ask for it at once."""
        self._traces.keep(endings.explain(call, error, self._office.now()))
        endings.fail(call, reply, error)

    def _task(self, call: Call) -> sup.RunTask:
        """What makes a task of a call."""
        return sup.RunTask(self.run, (call,), takes_reply=True, on_lost=functools.partial(self.lose, call))

    def _task_of(self, call_id: str) -> asyncio.Task[Any] | None:
        return self._in_flight.get(call_id, (None, None))[0]

    def _leave(self, call: Call) -> None:
        self._in_flight.pop(call.id, None)
        call.out = []  # they know the call: a circle, which only the garbage collector would find
        if self._drained is not None and not self._in_flight:
            self._drained.wake()

    async def _answer(self, call: Call, reply: sup.Reply) -> Given:
        if call.output is not None:
            await call.output.ask_in(call)
        key = self._answers.key(call)
        if key is not None and not call.is_flight:
            kept = self._answers.find(key, call, self._office.now())
            if call.output is not None and isinstance(kept, Response) and not await call.output.fits(kept):
                kept = None  # nobody has asked for a value of this type before
            reports.looked_up(self._office.system.name, call, is_hit=kept is not None)
            if kept is not None:
                return kept
        if self._flights is not None and (shared := self._flights.key(call)) is not None:
            return await self._flights.answer(call, shared, reply)
        make = Course if call.kind == CHAT and call.output is None else _course_of(call)
        course = make(self._office, self.arrears, self._rules, call, delivery_of(call, reply))
        given, usage = await course.answer()
        now = self._office.now()
        trace = call.trace(now, "success")
        if isinstance(given, TokenCount):
            return replace(given, attempts=trace.attempts, request_id=call.id, trace=trace)
        answer = _as_answer(given, usage, trace) if isinstance(given, Response) else _as_vectors(given, usage, trace)
        self._answers.keep(key, answer, now)
        return answer

    async def _read(self, call: Call, response: Given) -> Any:
        """The value that the caller wants of the answer. A shared one is read by each who shares it."""
        assert call.output is not None
        assert isinstance(response, Response)
        return response if call.is_flight else await call.output.read(response)


def _course_of(call: Call) -> type[Course]:
    """The way of a call that asks for something else than an answer as it comes."""
    if call.kind == CHAT:
        from rubberduck.actors.calls.output import OutputCourse  # its schemas take time to import

        return OutputCourse
    from rubberduck.actors.calls import counting, embedding

    return embedding.EmbeddingCourse if call.kind == EMBEDDINGS else counting.CountCourse


def _as_vectors(given: Embeddings, usage: Usage, trace: Trace) -> Embeddings:
    """A provider's vectors as their caller gets them."""
    return replace(given, usage=usage, attempts=trace.attempts, request_id=trace.request_id, trace=trace)


def _as_answer(response: Response, usage: Usage, trace: Trace) -> Response:
    """A provider's answer as its caller gets it. By name, for `replace` takes several times as long."""
    return Response(
        id=response.id,
        model=response.model,
        choices=response.choices,
        usage=usage,
        created=response.created,
        provider=response.provider,
        attempts=trace.attempts,
        cached=response.cached,
        request_id=trace.request_id,
        trace=trace,
        spliced=response.spliced,
        shared=response.shared,
        warnings=response.warnings,
        service_tier=response.service_tier,
        system_fingerprint=response.system_fingerprint,
    )


def _is_running(task: asyncio.Task[Any]) -> bool:
    """Whether its code runs in this very moment, as on a blocked loop that of who blocks it does."""
    return asyncio.current_task(task.get_loop()) is task
