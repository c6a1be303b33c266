"""Takes the chunks of an answer to the caller, from the moment on that the caller may see them."""

from __future__ import annotations

import asyncio
import functools

import supervision as sup
from rubberduck.actors.board import Route
from rubberduck.actors.calls.attempts import AttemptRun
from rubberduck.actors.calls.call import Call, Given
from rubberduck.actors.calls.race import Answer
from rubberduck.actors.calls.wire import content_of
from rubberduck.core.release import Release
from rubberduck.errors import RubberDuckError
from rubberduck.stream import Pipe, Stream
from rubberduck.types import Chunk, Usage
from rubberduck.wakers import cancel_on


class Delivery:
    """What one call hands on of its answer; the first chunk answers the call with the stream."""

    __slots__ = ("_call", "_reply", "_task")

    def __init__(self, call: Call, reply: sup.Reply) -> None:
        self._call = call
        self._reply = reply
        # A reader who closes the stream ends the whole call, whichever attempt it reads.
        self._task = asyncio.current_task()

    async def deliver(self, run: AttemptRun, chunk: Chunk) -> None:
        """Hand a chunk that came by `run` to the reader; waits while the reader is slow."""
        pipe = self._call.pipe or self._open(run.route)
        await pipe.write(chunk)

    def interrupted(self, run: AttemptRun, error: RubberDuckError) -> RubberDuckError:
        """What the reader is told, who has seen a part of the answer, if there will be no more of it."""
        return run.interrupted(error)

    def finish(self, given: Given, usage: Usage) -> Answer:
        """The answer is whole: hand on what is left of it. The answer as its reader has it."""
        return given, usage

    def _open(self, route: Route) -> Pipe:
        task, loop = self._task, asyncio.get_running_loop()
        assert task is not None
        pipe = self._call.pipe = Pipe(functools.partial(cancel_on, loop, task))
        if not (self._reply.is_used or self._call.is_lost):
            self._reply.set(Stream(pipe, route.provider, route.model, self._call.id))
        return pipe


class HeldBack(Delivery):
    """Keeps an answer back until its policy lets it go: a break until then is nobody's but ours.

    What is let go is handed over at once, for it lies in our memory anyhow; after that a slow reader slows the socket.
    """

    __slots__ = ("_held", "_release", "_run")

    def __init__(self, call: Call, reply: sup.Reply) -> None:
        super().__init__(call, reply)
        self._run: AttemptRun | None = None
        self._held: list[Chunk] = []

    async def deliver(self, run: AttemptRun, chunk: Chunk) -> None:
        if self._call.pipe is not None:
            await self._call.pipe.write(chunk)
            return
        if run is not self._run:  # what another attempt has left is of no use
            self._run, self._held, self._release = run, [], Release(self._call.policy)
        self._held.append(chunk)
        if self._release.allows(content_of(chunk), run.office.now()):
            self._let_go(run.route)

    def finish(self, given: Given, usage: Usage) -> Answer:
        if self._call.pipe is None and self._run is not None:
            self._let_go(self._run.route)
        return given, usage

    def _let_go(self, route: Route) -> None:
        held, self._held = self._held, []
        self._open(route).write_all(held)
