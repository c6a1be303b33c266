"""Texts become vectors: as many requests as they need, within one call.

A request holds as many texts as each of the routes takes, and as many tokens as a provider and our own limits bear.
Vectors of different models have nothing to do with each other, so the first part that is answered binds the rest to
routes of the same model, to that very route in the first place; if those fail, the call fails, and says what all parts
have cost.

    the first part ──▶ goes alone: it finds the model, and what is wrong with the request is wrong with all
    all others     ──▶ side by side, AT_ONCE at most, each through the limiter as any request
    one fails      ──▶ the others are given up, and what they may have cost is on the bill
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import Call
from rubberduck.actors.calls.course import Course
from rubberduck.actors.calls.race import Answer
from rubberduck.actors.calls.usages import together
from rubberduck.core.batches import MOST_TOKENS, batch_end
from rubberduck.core.breaker import State
from rubberduck.core.limiter import Amounts
from rubberduck.core.score import Candidate
from rubberduck.types import Attempt, EmbeddingRequest, Embeddings, Usage

AT_ONCE = 4
"""So many parts of one call are under way at most: enough to hide how long a request takes, and others get a turn."""
OTHER_MODEL = "is another model than that of the vectors so far"
FIRST = -1
"""The priority of the route that has answered the last part: before all that can be configured."""
_LETTERS_PER_TOKEN = 4
_PROBED = (State.OPEN, State.HALF_OPEN)


class EmbeddingCourse(Course):
    """The way of a call for vectors."""

    __slots__ = ("_answers", "_start", "_workers", "kept")

    async def _estimate(self) -> Amounts:
        """Of all that is asked, for the queue."""
        return Amounts(1, _about(_asked(self._call)), 0, 1)

    async def _rounds(self) -> Answer:
        call, whole = self._call, _asked(self._call)
        self.kept: Route | None = None
        if self._end(0) == len(whole.input):
            call.amounts = await self._amounts(whole)
            return await self._round()
        self._answers: dict[int, tuple[Embeddings, Usage]] = {}
        self._start, self._workers = 0, 1
        try:
            first = self._next()
            assert first is not None
            await self._ask(*first)
            await self._side_by_side()
        finally:
            call.attempts.sort(key=lambda attempt: attempt.started)
        return _joined([self._answers[start] for start in sorted(self._answers)])

    async def _side_by_side(self) -> None:
        """All that is left. Raises the first failure, when the others have been given up."""
        self._workers = AT_ONCE
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(AT_ONCE):
                    group.create_task(self._work())
            return
        except BaseExceptionGroup as failures:
            first = failures.exceptions[0]
        raise first

    async def _work(self) -> None:
        """Ask for one part after the other, until none is left, or fewer at once will do better."""
        while (part := self._next()) is not None:
            await self._ask(*part)

    def _next(self) -> tuple[int, Call] | None:
        """The next part and where it begins."""
        start, whole = self._start, _asked(self._call)
        if start == len(whole.input):
            return None
        end = self._end(start)
        part = self._call.part(whole.model_copy(update={"input": whole.input[start:end]}))
        part.money = None if self._call.money is None else self._call.money.of_part(part)
        if self._workers > 1 and not self._bears_more(part):
            self._workers -= 1
            self._call.leave(part)
            return None
        self._start = end
        return start, part

    def _bears_more(self, part: Call) -> bool:
        """Whether it may go beside others: where all must wait for one probe, or for money, one is enough."""
        if part.money is not None and part.money.is_tight(self._routes, AT_ONCE):
            return False
        desks, now = self._office.board.desks, self._office.now()
        breakers = [desks[route.provider].breakers.get(route.model) for route in self._routes]
        return any(breaker is None or breaker.state(now) not in _PROBED for breaker in breakers)

    async def _ask(self, start: int, part: Call) -> None:
        try:
            part.amounts = await self._amounts(_asked(part))
            given, usage = await _Part(self, part).answer()
            assert isinstance(given, Embeddings)
            self._answers[start] = given, usage
            self._bind(part.attempts[-1])
        finally:
            self._call.leave(part)

    def _bind(self, answered: Attempt) -> None:
        """From here on only routes of this model will do, and the others only if this one does not."""
        model, routes = answered.model, self._routes
        if len(routes) > 1:
            self.kept = Route(answered.provider, model)
            self._left_out |= {route: OTHER_MODEL for route in routes if route.model != model}
            self._routes = tuple([route for route in routes if route.model == model])

    def _end(self, start: int) -> int:
        """Where the part ends that begins at `start`."""
        desks = self._office.board.desks
        most = min([desks[route.provider].provider.embedding_batch for route in self._routes])
        limits = [desks[route.provider].input_limit(route.model) for route in self._routes]
        tokens = min([limit for limit in limits if limit is not None], default=MOST_TOKENS)
        return batch_end(_asked(self._call).input, start, most, tokens)

    async def _amounts(self, request: EmbeddingRequest) -> Amounts:
        """What one request takes; its tokens are counted only where a limit on them can use the number."""
        desks = self._office.board.desks
        for route in self._routes:
            if desks[route.provider].counts_tokens(route.model):
                return Amounts(1, float(await asyncio.to_thread(_counted, request, route.model)), 0, 1)
        return Amounts(1, _about(request), 0, 1)


class _Part(Course):
    """The way of one request of several. The whole call has its turn already, and what binds it binds this."""

    __slots__ = ("_course",)

    def __init__(self, course: EmbeddingCourse, part: Call) -> None:
        super().__init__(course._office, course._arrears, course._rules, part, course._delivery)
        self._course = course
        self._routes, self._left_out, self._holds = course._routes, course._left_out, course._holds

    async def answer(self) -> Answer:
        try:
            return await self._round()
        finally:
            self._course._holds = self._holds

    def _candidate(self, route: Route, now: float) -> Candidate:
        candidate = super()._candidate(route, now)
        return replace(candidate, priority=FIRST) if route == self._course.kept else candidate


def _asked(call: Call) -> EmbeddingRequest:
    assert isinstance(call.request, EmbeddingRequest)
    return call.request


def _about(request: EmbeddingRequest) -> float:
    return sum([len(each) / _LETTERS_PER_TOKEN if isinstance(each, str) else len(each) for each in request.input])


def _counted(request: EmbeddingRequest, model: str) -> int:
    """How many tokens the texts are. In a thread, for this takes a second for a million."""
    from rubberduck import tokens  # loads its vocabularies at the first use

    return sum([tokens.count(each, model) if isinstance(each, str) else len(each) for each in request.input])


def _joined(answers: list[tuple[Embeddings, Usage]]) -> Answer:
    vectors = tuple([vector for given, _ in answers for vector in given.vectors])
    warnings = dict.fromkeys([warning for given, _ in answers for warning in given.warnings])
    last = answers[-1][0]
    usage = together([usage for _, usage in answers])
    return Embeddings(last.model, vectors, usage, last.provider, warnings=tuple(warnings)), usage
