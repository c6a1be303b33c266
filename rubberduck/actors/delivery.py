"""Takes the chunks of an answer to the caller, from the moment on that the caller may see them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Any

import supervision as sup
from rubberduck.actors.board import Route
from rubberduck.actors.call import Call
from rubberduck.stream import Pipe, Stream
from rubberduck.types import Chunk


class Delivery:
    """What one call hands on of its answer; the first chunk answers the call with the stream."""

    __slots__ = ("_call", "_reply", "_task")

    def __init__(self, call: Call, reply: sup.Reply) -> None:
        self._call = call
        self._reply = reply
        # A reader who closes the stream ends the whole call, whichever attempt it reads.
        self._task = asyncio.current_task()

    async def deliver(self, route: Route, chunk: Chunk) -> None:
        """Hand a chunk that came from `route` to the reader; waits while the reader is slow."""
        pipe = self._call.pipe or self._open(route)
        await pipe.write(chunk)

    def _open(self, route: Route) -> Pipe:
        task, loop = self._task, asyncio.get_running_loop()
        assert task is not None
        pipe = self._call.pipe = Pipe(functools.partial(_cancel_on, loop, task))
        if not (self._reply.is_used or self._call.is_lost):
            self._reply.set(Stream(pipe, route.provider, route.model, self._call.id))
        return pipe


def _cancel_on(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has been closed, and the task with it
        loop.call_soon_threadsafe(task.cancel)
