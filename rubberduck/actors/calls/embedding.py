"""Texts become vectors: as many requests as they need, one after the other, within one call.

A request holds as many texts as each of the routes takes, and as many tokens as a provider and our own limits bear.
Vectors of different models have nothing to do with each other, so the first batch that is answered binds the rest to
routes of the same model, to that very route in the first place; if those fail, the call fails, and says what the
batches before it have cost.
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
from rubberduck.core.limiter import Amounts
from rubberduck.core.score import Candidate
from rubberduck.types import Attempt, EmbeddingRequest, Embeddings, Usage

OTHER_MODEL = "is another model than that of the vectors so far"
FIRST = -1
"""The priority of the route that has answered the last batch: before all that can be configured."""
_LETTERS_PER_TOKEN = 4


class EmbeddingCourse(Course):
    """The way of a call for vectors."""

    __slots__ = ("_kept",)

    async def _estimate(self) -> Amounts:
        """Of all that is asked, for the queue."""
        return Amounts(1, _about(_asked(self._call)), 0, 1)

    async def _rounds(self) -> Answer:
        call, whole = self._call, _asked(self._call)
        self._kept: Route | None = None
        answers: list[tuple[Embeddings, Usage]] = []
        start = 0
        while start < len(whole.input):
            end = batch_end(whole.input, start, self._most_texts(), self._most_tokens())
            if answers and call.money is not None:
                call.money.begin_round()
            if end - start < len(whole.input):
                call.request = whole.model_copy(update={"input": whole.input[start:end]})
            call.amounts = Amounts(1, await self._tokens(), 0, 1)
            given, usage = await self._round()
            assert isinstance(given, Embeddings)
            answers.append((given, usage))
            self._bind(call.attempts[-1])
            start = end
        return answers[0] if len(answers) == 1 else _joined(answers)

    def _bind(self, answered: Attempt) -> None:
        """From here on only routes of this model will do, and the others only if this one does not."""
        model, routes = answered.model, self._routes
        if len(routes) > 1:
            self._kept = Route(answered.provider, model)
            self._left_out |= {route: OTHER_MODEL for route in routes if route.model != model}
            self._routes = tuple([route for route in routes if route.model == model])

    def _candidate(self, route: Route, now: float) -> Candidate:
        candidate = super()._candidate(route, now)
        return replace(candidate, priority=FIRST) if route == self._kept else candidate

    def _most_texts(self) -> int:
        desks = self._office.board.desks
        return min([desks[route.provider].provider.embedding_batch for route in self._routes])

    def _most_tokens(self) -> float:
        desks = self._office.board.desks
        limits = [desks[route.provider].input_limit(route.model) for route in self._routes]
        return min([limit for limit in limits if limit is not None], default=MOST_TOKENS)

    async def _tokens(self) -> float:
        """Input tokens of the batch; counted only where a limit on tokens can use the number."""
        request, desks = _asked(self._call), self._office.board.desks
        for route in self._routes:
            if desks[route.provider].counts_tokens(route.model):
                return float(await asyncio.to_thread(_counted, request, route.model))
        return _about(request)


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
