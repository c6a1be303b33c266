"""A stream between a writer on one loop and a reader anywhere, without any tree around it."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest

from rubberduck.errors import Cancelled, DeadlineExceeded, RubberDuckError, ServiceUnavailable, StreamInterrupted
from rubberduck.stream import CAPACITY, OpeningStream, Pipe, Stream, StreamState
from rubberduck.types import Chunk, Delta, Response, Usage


def chunk(text: str) -> Chunk:
    return Chunk(delta=Delta(content=text))


def whole(text: str = "") -> Response:
    return Response("id", "m", (), Usage(1, 2))


class Cancels:
    """Counts how often the call was cancelled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def cancels() -> Cancels:
    return Cancels()


def stream_over(pipe: Pipe) -> Stream:
    return Stream(pipe, "p", "m", "r")


async def write_all(pipe: Pipe, texts: list[str]) -> None:
    for text in texts:
        await pipe.write(chunk(text))


def written_by_a_thread(pipe: Pipe, texts: list[str], *, error: BaseException | None = None) -> threading.Thread:
    def work() -> None:
        asyncio.run(write_all(pipe, texts))
        pipe.fail(error) if error else pipe.end(whole())

    thread = threading.Thread(target=work)
    thread.start()
    return thread


TEXTS = [str(number) for number in range(3 * CAPACITY)]


def test_a_thread_reads_what_another_loop_writes_in_order(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    writer = written_by_a_thread(pipe, TEXTS)
    stream = stream_over(pipe)
    assert [each.delta.content for each in stream] == TEXTS
    writer.join()
    assert stream.usage == Usage(1, 2)
    assert list(stream) == []
    assert cancels.count == 0


def test_a_coroutine_reads_what_another_loop_writes_in_order(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    writer = written_by_a_thread(pipe, TEXTS)

    async def read() -> list[str]:
        return [each.delta.content async for each in stream_over(pipe)]

    assert asyncio.run(read()) == TEXTS
    writer.join()


def test_writer_and_reader_may_share_a_loop(cancels: Cancels) -> None:
    pipe = Pipe(cancels)

    async def both() -> list[str]:
        async def write() -> None:
            await write_all(pipe, TEXTS)
            pipe.end(whole())

        writing = asyncio.create_task(write())
        read = [each.delta.content async for each in stream_over(pipe)]
        await writing
        return read

    assert asyncio.run(both()) == TEXTS


def test_a_writer_waits_while_the_buffer_is_full(cancels: Cancels) -> None:
    pipe = Pipe(cancels)

    async def story() -> None:
        await write_all(pipe, TEXTS[:CAPACITY])
        extra = asyncio.create_task(pipe.write(chunk("extra")))
        await asyncio.sleep(0)
        assert not extra.done()
        stream = stream_over(pipe)
        await anext(stream)
        await extra

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_failure_comes_after_all_that_was_written_and_stays(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    writer = written_by_a_thread(pipe, ["a", "b"], error=ServiceUnavailable("gone"))
    stream = stream_over(pipe)
    received: list[str] = []
    for _ in range(2):
        with pytest.raises(ServiceUnavailable, match="gone"):
            received.extend(each.delta.content for each in stream)
    writer.join()
    assert received == ["a", "b"]
    assert (stream.response, stream.usage, stream.text) == (None, None, "")


def test_the_first_end_counts(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    pipe.end(whole())
    pipe.fail(ServiceUnavailable("too late"))
    assert list(stream_over(pipe)) == []


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (StreamInterrupted("cut"), StreamState.TRUNCATED),
        (Cancelled("given up"), StreamState.CANCELLED),
        (DeadlineExceeded("too late"), StreamState.CANCELLED),
        (ServiceUnavailable("gone"), StreamState.FAILED),
    ],
)
def test_it_says_in_which_way_it_ended(cancels: Cancels, error: RubberDuckError, state: StreamState) -> None:
    good, bad, left = Pipe(cancels), Pipe(cancels), Pipe(cancels)
    assert stream_over(good).state is StreamState.OPEN
    good.end(whole())
    bad.fail(error)
    left.close()
    assert stream_over(good).state is StreamState.COMPLETE
    assert (stream_over(bad).state, stream_over(bad).error) == (state, error)
    assert stream_over(left).state is StreamState.CANCELLED
    good.close()
    assert (stream_over(good).state, stream_over(good).error) == (StreamState.COMPLETE, None)


def test_closing_cancels_the_call_once_and_ends_the_iteration(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    stream = stream_over(pipe)
    asyncio.run(write_all(pipe, ["a", "b"]))
    with stream:
        assert next(stream).delta.content == "a"
    stream.close()
    assert cancels.count == 1
    assert list(stream) == []
    with pytest.raises(Cancelled):
        asyncio.run(write_all(pipe, ["c"]))


def test_closing_after_the_end_cancels_nothing(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    pipe.end(whole())
    stream_over(pipe).close()
    assert cancels.count == 0


def test_closing_wakes_a_waiting_reader_and_a_waiting_writer(cancels: Cancels) -> None:
    reading, writing = Pipe(cancels), Pipe(cancels)

    async def story() -> None:
        reader = asyncio.ensure_future(anext(stream_over(reading), None))
        await write_all(writing, TEXTS[:CAPACITY])
        writer = asyncio.create_task(writing.write(chunk("extra")))
        await asyncio.sleep(0)
        for pipe in (reading, writing):
            threading.Thread(target=pipe.close).start()
        assert await reader is None
        with pytest.raises(Cancelled):
            await writer

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_forgotten_stream_of_a_reader_closes_itself(cancels: Cancels) -> None:
    pipe = Pipe(cancels)
    stream = stream_over(pipe)
    del stream
    gc.collect()
    assert (pipe.is_closed, cancels.count) == (True, 1)


def test_a_second_reader_is_told_that_there_is_one(cancels: Cancels) -> None:
    pipe = Pipe(cancels)

    async def story() -> None:
        stream = stream_over(pipe)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one reader"):
            await anext(stream)
        await pipe.write(chunk("a"))
        assert (await first).delta.content == "a"

    asyncio.run(asyncio.wait_for(story(), 30))


def test_a_reader_that_was_cancelled_may_come_back(cancels: Cancels) -> None:
    pipe = Pipe(cancels)

    async def story() -> None:
        stream = stream_over(pipe)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.001)
        await pipe.write(chunk("a"))
        assert (await anext(stream)).delta.content == "a"

    asyncio.run(asyncio.wait_for(story(), 30))


def test_iterating_plainly_on_a_loop_is_refused_rather_than_blocking_it(cancels: Cancels) -> None:
    async def story() -> None:
        with pytest.raises(RuntimeError, match="async for"):
            next(stream_over(Pipe(cancels)))

    asyncio.run(story())


def test_an_opening_stream_asks_once_and_iterates_with_or_without_its_block(cancels: Cancels) -> None:
    asked: list[Any] = []

    async def story() -> None:
        async def ask() -> Stream:
            pipe = Pipe(cancels)
            asked.append(pipe)
            await pipe.write(chunk("a"))
            pipe.end(whole())
            return stream_over(pipe)

        assert [each.delta.content async for each in OpeningStream(ask)] == ["a"]
        opening = OpeningStream(ask)
        async with opening as stream:
            assert [each.delta.content async for each in stream] == ["a"]
            assert [each async for each in opening] == []

    asyncio.run(story())
    assert len(asked) == 2
