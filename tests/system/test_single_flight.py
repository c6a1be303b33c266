"""Identical calls under way share one request: one bill, and to each caller his own pace, deadline and end."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncGenerator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests_system_rig import COST_OF_HELLO, HELLO, PRICE, REQUEST, Delays, StartDuck, ledger, provider_log

from rubberduck import RubberDuck, telemetry
from rubberduck.actors.calls.call import Call
from rubberduck.actors.circuit_breaker import ForceOpen
from rubberduck.config import ProviderConfig
from rubberduck.errors import (
    CallInterrupted,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    RubberDuckError,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.providers.base import Provider
from rubberduck.telemetry import names
from rubberduck.testing import FaultServer
from rubberduck.testing.faults import Ok
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Request, Response, Usage
from supervision.testing import ManualClock, fault

Eventually = Callable[..., Any]
WORDS = ("one ", "two ", "three ", "four")
COST = Decimal("0.000011")
"""Of three tokens in and four out at PRICE."""


class Stepwise(Provider):
    """Says one word for each step that the test gives; `error` comes in place of a further word.

    `asked` are the texts of all requests; `said` counts words, `ended` says how each request ended.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.said = 0
        self.ended: list[str] = []
        self.words: tuple[str, ...] = WORDS
        self.error: BaseException | None = None
        self._steps = 0
        self._moved = threading.Condition()
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @classmethod
    def init(cls, config: ProviderConfig) -> Stepwise:
        return cls()

    def supports_model(self, model: str) -> bool:
        return model == "any"

    def step(self, count: int = 1) -> None:
        with self._moved:
            self._steps += count
            for loop, event in self._sleepers:
                loop.call_soon_threadsafe(event.set)
            self._sleepers.clear()

    def finish(self) -> None:
        self.step(1_000_000)

    async def _next_step(self) -> None:
        while True:
            with self._moved:
                if self._steps:
                    self._steps -= 1
                    return
                event = asyncio.Event()
                self._sleepers.append((asyncio.get_running_loop(), event))
            await event.wait()

    async def complete(self, request: Request) -> Response:
        words = [chunk.delta.content async for chunk in self.stream(request)]
        choice = Choice(0, Message(role="assistant", content="".join(words)), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(3, 4), provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        self.asked.append(request.messages[-1].text)
        try:
            for word in self.words:
                await self._next_step()
                if self.error is not None:
                    raise self.error
                self.said += 1
                yield Chunk(delta=Delta(content=word))
            yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(3, 4))
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("answered")


@pytest.fixture
def rig(start_duck: StartDuck) -> tuple[RubberDuck, Stepwise]:
    return shared_duck(start_duck)


def shared_duck(start_duck: StartDuck, **sections: Any) -> tuple[RubberDuck, Stepwise]:
    retry = {"base_delay": "2ms", "max_delay": "2ms"}
    sections = {"single_flight": True, "prices": {"slow/any": PRICE}, "retry": retry, **sections}
    duck = start_duck({"slow": {"module": Stepwise}}, **sections)
    provider: Any = duck.provider("slow")
    return duck, provider


class Reader:
    """One caller in a task of its own: what it has read so far, and how that ended."""

    def __init__(self, duck: RubberDuck, *, stream: bool = True, **options: Any) -> None:
        self.text = ""
        self.response: Response | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._duck = duck
        self._options = options
        self.task = asyncio.create_task(self._read() if stream else self._complete())

    async def _complete(self) -> Response:
        self.response = await self._duck.acomplete(REQUEST, **self._options)
        self.text = self.response.text
        return self.response

    async def _read(self) -> Response:
        async with self._duck.astream(REQUEST, **self._options) as stream:
            async for chunk in stream:
                self.text += chunk.delta.content
                await self.may_read.wait()
        assert stream.response is not None
        self.response = stream.response
        return stream.response

    async def error(self) -> BaseException:
        await asyncio.wait([self.task])
        error = self.task.exception()
        assert error is not None
        return error


async def until(condition: Callable[[], Any], timeout: float = 30.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.001)


def waiters(duck: RubberDuck) -> int:
    """How many calls wait for the answers of others, as far as the actors' loop has come."""
    return duck.status().calls


async def seated(duck: RubberDuck, count: int) -> None:
    """Until `count` callers and their one flight are under way."""
    await until(lambda: waiters(duck) == count + 1)
    await asyncio.sleep(0)


def has_come_to_rest(duck: RubberDuck) -> bool:
    status = duck.status()
    held = sum(each.limiter.in_flight + each.inflight for each in status.providers.values())
    return (status.calls, status.queue.in_process, held, len(duck._runner._flights or ())) == (0, 0, 0, 0)


def rows(duck: RubberDuck) -> list[str]:
    from rubberduck.actors.cost_tracker import Rows

    return [str(row.state) for row in duck.actor("cost_tracker").ask(Rows())]


def flights(duck: RubberDuck) -> list[tuple[asyncio.Task[Any], Call]]:
    """The task of each flight, and the call that it makes."""
    known = list(duck._runner._flights._flights._by_key.values())
    tasks = [(duck._runner._task_of(each.call.id), each.call) for each in known]
    return [(task, call) for task, call in tasks if task is not None]


def depth(duck: RubberDuck) -> dict[str, int]:
    return dict(duck.status().queue.depth)


def flight_task(duck: RubberDuck) -> asyncio.Task[Any]:
    """The task of the only flight."""
    [(task, _)] = flights(duck)
    return task


def kill_flight(duck: RubberDuck) -> None:
    task = flight_task(duck)
    task.get_loop().call_soon_threadsafe(task.cancel)


def on_bill(responses: list[Response]) -> Decimal:
    return sum((response.usage.cost or Decimal(0) for response in responses), Decimal(0))


# --- one answer for all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_hundred_identical_calls_are_one_request_and_one_bill(rig: tuple[RubberDuck, Stepwise], stream: bool) -> None:
    duck, provider = rig

    async def go() -> list[Response]:
        readers = [Reader(duck, stream=stream) for _ in range(100)]
        await seated(duck, 100)
        provider.finish()
        return await asyncio.gather(*(reader.task for reader in readers))

    responses = asyncio.run(go())
    assert [response.text for response in responses] == ["one two three four"] * 100
    assert provider.asked == ["Hi"]
    assert on_bill(responses) == duck.costs().cost == COST
    assert sorted(response.usage.cost or 0 for response in responses) == [0] * 99 + [COST]
    assert [response.shared for response in responses].count(False) == 1
    assert sum(len(response.attempts) for response in responses) == 1
    assert len({response.request_id for response in responses}) == 100
    assert rows(duck) == ["settled"]
    assert has_come_to_rest(duck)
    assert duck.system.audit() == []


def test_the_first_to_ask_has_the_bill(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> list[Response]:
        readers = []
        for count in range(1, 5):
            readers.append(Reader(duck, stream=False))
            await seated(duck, count)
        readers.pop(0).task.cancel()  # of those who get the answer
        await until(lambda: waiters(duck) == 4)
        provider.finish()
        return await asyncio.gather(*(reader.task for reader in readers))

    assert [response.shared for response in asyncio.run(go())] == [False, True, True]


def test_the_trace_of_each_says_under_which_id_the_ledger_has_it(rig: tuple[RubberDuck, Stepwise]) -> None:
    from rubberduck.actors.cost_tracker import Rows

    duck, provider = rig

    async def go() -> list[Response]:
        readers = [Reader(duck) for _ in range(3)]
        await seated(duck, 3)
        provider.finish()
        return await asyncio.gather(*(reader.task for reader in readers))

    responses = asyncio.run(go())
    [row] = duck.actor("cost_tracker").ask(Rows())
    assert {response.trace.flight for response in responses} == {row.call_id}


def test_who_joins_late_gets_the_stream_from_its_first_word(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> list[str]:
        readers = []
        for said in range(len(WORDS)):
            readers.append(Reader(duck))
            await seated(duck, said + 1)
            provider.step()
            await until(lambda: all(reader.text == "".join(WORDS[: said + 1]) for reader in readers))  # noqa: B023
        await asyncio.gather(*(reader.task for reader in readers))
        return [reader.text for reader in readers]

    assert asyncio.run(go()) == ["one two three four"] * 4
    assert provider.asked == ["Hi"]


def test_a_slow_reader_holds_up_nobody_else_and_misses_nothing(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig
    provider.words = tuple(f"{number} " for number in range(1000))
    text = "".join(provider.words)

    async def go() -> None:
        slow, quick = Reader(duck), Reader(duck)
        slow.may_read.clear()
        await seated(duck, 2)
        provider.finish()
        await quick.task
        assert quick.text == text
        assert slow.text == "0 "
        slow.may_read.set()
        await slow.task
        assert slow.text == text

    asyncio.run(go())


def test_as_long_as_all_are_slow_the_provider_is_read_no_faster(
    rig: tuple[RubberDuck, Stepwise], eventually: Eventually
) -> None:
    duck, provider = rig
    provider.words = tuple(f"{number} " for number in range(1000))

    async def go() -> None:
        readers = [Reader(duck) for _ in range(3)]
        for reader in readers:
            reader.may_read.clear()
        await seated(duck, 3)
        provider.finish()
        await until(lambda: provider.said > 64)
        said = -1
        while said != provider.said:
            said = provider.said
            await asyncio.sleep(0.02)
        assert said < 300
        for reader in readers:
            reader.may_read.set()
        await asyncio.gather(*(reader.task for reader in readers))

    asyncio.run(go())


def test_nobody_joins_a_stream_that_has_grown_large(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig
    provider.words = ("x" * 600_000, "y" * 600_000, "z")

    async def go() -> None:
        first, second = Reader(duck), Reader(duck)
        await seated(duck, 2)
        provider.step(2)
        await until(lambda: len(first.text) == len(second.text) == 1_200_000)
        late = Reader(duck)
        await until(lambda: len(provider.asked) == 2)
        provider.finish()
        responses = await asyncio.gather(first.task, second.task, late.task)
        assert len({response.text for response in responses}) == 1
        assert [response.shared for response in responses].count(False) == 2

    asyncio.run(go())


# --- who shares with whom ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tenant": "a"}, {"tenant": "b"}),
        ({"tenant": "a"}, {}),
        ({"providers": ["slow"]}, {}),
        ({"stream": True}, {"stream": False}),
        ({"replayable": False}, {"replayable": False}),
        ({"replayable": False}, {}),
        ({"stream": True, "stream_policy": "buffer"}, {"stream": True}),
    ],
)
def test_calls_that_differ_share_nothing(rig: tuple[RubberDuck, Stepwise], one: Any, other: Any) -> None:
    duck, provider = rig

    async def go() -> None:
        readers = [Reader(duck, **{"stream": False, **options}) for options in (one, other)]
        await until(lambda: len(provider.asked) == 2)
        provider.finish()
        responses = await asyncio.gather(*(reader.task for reader in readers))
        assert on_bill(responses) == 2 * COST

    asyncio.run(go())


@pytest.mark.parametrize("options", [{"tags": {"job": "7"}}, {"timeout": 7}, {"priority": "low"}])
def test_calls_that_ask_the_same_of_the_same_share_whatever_else_they_say(
    rig: tuple[RubberDuck, Stepwise], options: Any
) -> None:
    duck, provider = rig

    async def go() -> None:
        readers = [Reader(duck, stream=False)]
        await seated(duck, 1)
        readers.append(Reader(duck, stream=False, **options))
        await seated(duck, 2)
        provider.finish()
        await asyncio.gather(*(reader.task for reader in readers))

    asyncio.run(go())
    assert len(provider.asked) == 1


def test_a_durable_job_is_sent_for_itself_for_the_ledger_knows_it_by_its_own_id(
    start_duck: StartDuck, tmp_path: Path
) -> None:
    duck, provider = shared_duck(start_duck, jobs={"path": str(tmp_path / "jobs.sqlite")})

    async def go() -> None:
        reader = Reader(duck, stream=False)
        await seated(duck, 1)
        job = await duck.asubmit(REQUEST)
        await until(lambda: len(provider.asked) == 2)
        provider.finish()
        responses = [await reader.task, await duck.aresult(job, timeout=30)]
        assert [response.shared for response in responses] == [False, False]

    asyncio.run(go())


def test_a_stream_that_is_held_back_is_held_back_from_all_and_then_the_same_for_all(
    rig: tuple[RubberDuck, Stepwise],
) -> None:
    duck, provider = rig

    async def go() -> None:
        readers = [Reader(duck, stream_policy="buffer") for _ in range(3)]
        await seated(duck, 3)
        provider.step(3)
        await until(lambda: provider.said == 3)
        assert [reader.text for reader in readers] == [""] * 3
        provider.finish()
        responses = await asyncio.gather(*(reader.task for reader in readers))
        assert {response.text for response in responses} == {"".join(reader.text for reader in readers[:1])}
        assert on_bill(responses) == COST

    asyncio.run(go())
    assert len(provider.asked) == 1


def test_without_the_option_each_call_is_a_request(start_duck: StartDuck) -> None:
    duck, provider = shared_duck(start_duck, single_flight=False)
    provider.finish()

    async def go() -> None:
        await asyncio.gather(*(duck.acomplete(REQUEST) for _ in range(5)))

    asyncio.run(go())
    assert len(provider.asked) == 5


def test_calls_one_after_the_other_are_requests_of_their_own(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig
    provider.finish()
    assert [duck.complete(REQUEST).shared for _ in range(3)] == [False] * 3
    assert len(provider.asked) == 3


def test_with_a_cache_too_the_answer_is_kept_once_and_found_afterwards(start_duck: StartDuck) -> None:
    duck, provider = shared_duck(start_duck, cache={})
    told: list[Any] = []
    telemetry.attach("seen", [names.CACHE_HIT, names.CACHE_MISS], lambda event, *_: told.append(event))

    async def go() -> list[Response]:
        readers = [Reader(duck, stream=False) for _ in range(5)]
        await seated(duck, 5)
        provider.finish()
        return await asyncio.gather(*(reader.task for reader in readers))

    responses = asyncio.run(go())
    assert [response.cached for response in responses] == [False] * 5
    again = duck.complete(REQUEST)
    assert telemetry.flush()
    telemetry.detach("seen")
    assert told == [names.CACHE_MISS] * 5 + [names.CACHE_HIT]
    assert (again.cached, again.shared, again.usage.cost) == (True, False, 0)
    assert len(provider.asked) == 1


def test_each_request_is_told_of_once_and_its_cost_once(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig
    told: list[tuple[Any, Any]] = []
    seen = [names.REQUEST_START, names.REQUEST_STOP, names.COST, names.SHARED]
    telemetry.attach("seen", seen, lambda event, measured, about, *_: told.append((event, {**measured, **about})))
    try:

        async def go() -> None:
            readers = [Reader(duck, stream=False) for _ in range(3)]
            await seated(duck, 3)
            provider.finish()
            await asyncio.gather(*(reader.task for reader in readers))
            await until(lambda: [event for event, _ in told].count(names.REQUEST_STOP) == 3)

        asyncio.run(go())
    finally:
        telemetry.detach("seen")
    events = [event for event, _ in told]
    assert [events.count(event) for event in seen] == [3, 3, 1, 2]
    stops = [about for event, about in told if event == names.REQUEST_STOP]
    assert sum(about["cost"] for about in stops) == COST
    assert sorted(about["shared"] for about in stops) == [False, True, True]


# --- to each his own end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_only_the_last_who_leaves_ends_the_request(
    rig: tuple[RubberDuck, Stepwise], order: tuple[int, ...], stream: bool, eventually: Eventually
) -> None:
    duck, provider = rig

    async def go() -> None:
        readers = [Reader(duck, stream=stream) for _ in range(3)]
        await seated(duck, 3)
        provider.step()
        if stream:
            await until(lambda: all(reader.text == "one " for reader in readers))
        for left, number in enumerate(order, 1):
            assert not provider.ended
            readers[number].task.cancel()
            await until(lambda: waiters(duck) == (4 - left if left < 3 else 0))  # noqa: B023
            if left < 3 and stream:
                provider.step()
                stay = [readers[each] for each in order[left:]]
                await until(lambda: all(reader.text == "".join(WORDS[: left + 1]) for reader in stay))  # noqa: B023
        await asyncio.wait([reader.task for reader in readers])

    asyncio.run(go())
    assert len(provider.ended) == len(provider.asked) == 1
    assert rows(duck) == ["uncertain"]
    eventually(lambda: has_come_to_rest(duck))


def test_callers_that_come_and_go_leave_nothing_in_a_flight_that_goes_on(rig: tuple[RubberDuck, Stepwise]) -> None:
    """Each that gave up left behind what would have woken it, until the flight ended."""
    duck, provider = rig

    async def go() -> None:
        steady = Reader(duck, stream=False)
        await seated(duck, 1)
        passing = [Reader(duck, stream=False) for _ in range(50)]
        await seated(duck, 51)
        for reader in passing:
            reader.task.cancel()
        await asyncio.wait([reader.task for reader in passing])
        await seated(duck, 1)
        [shared] = duck._runner._flights._flights._by_key.values()
        assert (shared.waiting, len(shared._sleepers)) == (1, 1)
        provider.finish()
        await steady.task

    asyncio.run(go())


def test_a_killed_caller_hurts_nobody_else(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> None:
        first = Reader(duck)
        await seated(duck, 1)
        [leader] = [task for task, _ in duck._runner._in_flight.values() if task is not flight_task(duck)]
        others = [Reader(duck) for _ in range(2)]
        await seated(duck, 3)
        leader.get_loop().call_soon_threadsafe(leader.cancel)
        assert isinstance(await first.error(), CallInterrupted)
        provider.finish()
        responses = await asyncio.gather(*(reader.task for reader in others))
        assert on_bill(responses) == COST

    asyncio.run(go())
    assert provider.ended == ["answered"]


@pytest.mark.parametrize("stream", [False, True])
def test_each_deadline_is_its_callers_own(start_duck: StartDuck, stream: bool) -> None:
    clock = ManualClock()
    duck, provider = shared_duck(start_duck, clock=clock)

    async def go() -> None:
        hasty = Reader(duck, stream=stream, timeout=6)
        await seated(duck, 1)
        patient = Reader(duck, stream=stream, timeout=9)
        hastier = Reader(duck, stream=stream, timeout=3)
        await seated(duck, 3)
        for reader in (hastier, hasty):
            clock.advance(3)
            error = await reader.error()
            assert isinstance(error, DeadlineExceeded)
            assert error.spent == 0  # somebody else still pays
            assert error.attempts == ()
        provider.finish()
        response = await patient.task
        assert (response.text, response.usage.cost) == ("one two three four", COST)

    asyncio.run(go())
    assert provider.asked == ["Hi"]


def test_the_last_whose_time_is_over_hears_what_it_may_have_cost(start_duck: StartDuck) -> None:
    clock = ManualClock()
    duck, provider = shared_duck(start_duck, clock=clock)

    async def go() -> list[Any]:
        readers = [Reader(duck, timeout=timeout) for timeout in (3, 6)]
        await seated(duck, 2)
        await until(lambda: provider.asked)
        errors = []
        for reader in readers:
            clock.advance(3)
            errors.append(await reader.error())
        return errors

    first, last = asyncio.run(go())
    assert (type(last), last.spent, len(last.attempts)) == (DeadlineExceeded, None, 1)
    assert (type(first), first.spent, len(first.attempts)) == (DeadlineExceeded, 0, 0)
    assert rows(duck) == ["uncertain"]
    assert has_come_to_rest(duck)


def test_who_has_more_time_is_tried_for_after_the_time_of_the_first(start_duck: StartDuck) -> None:
    clock = ManualClock()
    duck, provider = shared_duck(start_duck, clock=clock)

    async def go() -> None:
        hasty = Reader(duck, timeout=3)
        await seated(duck, 1)
        patient = Reader(duck, timeout=9)
        await seated(duck, 2)
        await until(lambda: provider.asked)
        clock.advance(3)
        assert isinstance(await hasty.error(), DeadlineExceeded)
        provider.error = Overloaded("for a moment", status=529)
        provider.step()
        await until(lambda: len(provider.asked) == 2 or clock.advance(0.001))
        provider.error = None
        provider.finish()
        assert [attempt.outcome for attempt in (await patient.task).attempts] == ["Overloaded", "success"]

    asyncio.run(go())


ONE_AT_A_TIME = {"rate_limits": {"slow": {"max_concurrency": 1}}}
OTHER = {**REQUEST, "max_tokens": 19}


def test_who_has_more_time_gets_an_answer_although_the_first_ran_out_of_it_in_the_queue(start_duck: StartDuck) -> None:
    clock = ManualClock()
    duck, provider = shared_duck(start_duck, clock=clock, **ONE_AT_A_TIME)

    async def go() -> None:
        busy = asyncio.create_task(duck.acomplete(OTHER))
        await until(lambda: len(provider.asked) == 1)
        hasty = Reader(duck, stream=False, timeout=3)
        await until(lambda: waiters(duck) == 4)
        patient = [Reader(duck, stream=False, timeout=timeout) for timeout in (60, 58, 56)]
        await until(lambda: waiters(duck) == 7)
        clock.advance(3)
        assert isinstance(await hasty.error(), DeadlineExceeded)
        provider.finish()
        await busy
        responses = await asyncio.gather(*(reader.task for reader in patient))
        assert on_bill(responses) == COST

    asyncio.run(go())
    assert len(provider.asked) == 2
    assert has_come_to_rest(duck)


def test_a_call_of_a_higher_class_takes_those_who_ask_the_same_with_it_through_the_queue(start_duck: StartDuck) -> None:
    duck, provider = shared_duck(start_duck, **ONE_AT_A_TIME)

    async def go() -> None:
        busy = asyncio.create_task(duck.acomplete(OTHER))
        await until(lambda: len(provider.asked) == 1)
        low = [Reader(duck, stream=False, priority="low") for _ in range(3)]
        await until(lambda: waiters(duck) == 6)
        between = asyncio.create_task(duck.acomplete({**REQUEST, "messages": [{"role": "user", "content": "between"}]}))
        await until(lambda: waiters(duck) == 8)
        high = Reader(duck, stream=False, priority="high")
        await until(lambda: depth(duck) == {"high": 1, "normal": 1, "low": 0} and waiters(duck) == 9)
        [waiting] = [task for task, call in flights(duck) if call.klass == "high"]
        waiting.get_loop().call_soon_threadsafe(waiting.cancel)
        await until(waiting.done)
        # Begun anew, for all of them and in the same class: to change over has cost nobody the one restart.
        await until(lambda: depth(duck) == {"high": 1, "normal": 1, "low": 0} and waiters(duck) == 9)
        provider.finish()
        responses = await asyncio.gather(*(reader.task for reader in [*low, high]))
        assert on_bill(responses) == COST
        await asyncio.gather(busy, between)

    asyncio.run(go())
    assert provider.asked == ["Hi", "Hi", "between"]
    assert has_come_to_rest(duck)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_everybodys_and_its_cost_that_of_one(rig: tuple[RubberDuck, Stepwise], stream: bool) -> None:
    duck, provider = rig
    provider.error = ServiceUnavailable("broken", phase="uncertain", spent=None, retryable=False)

    async def go() -> list[Any]:
        readers = [Reader(duck, stream=stream) for _ in range(5)]
        await seated(duck, 5)
        provider.finish()
        return [await reader.error() for reader in readers]

    errors = asyncio.run(go())
    assert {type(error) for error in errors} == {ServiceUnavailable}
    assert len({id(error) for error in errors}) == 5
    assert len({error.request_id for error in errors}) == 5
    assert sorted(len(error.attempts) for error in errors)[:4] == [0] * 4
    assert [error.spent for error in errors].count(None) == 1
    assert [error.spent for error in errors].count(Decimal(0)) == 4
    assert len(provider.asked) == len(rows(duck)) == max(len(error.attempts) for error in errors)
    assert has_come_to_rest(duck)


def test_a_stream_that_breaks_gives_everybody_what_had_come(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> list[Any]:
        readers = [Reader(duck) for _ in range(3)]
        await seated(duck, 3)
        provider.step(2)
        await until(lambda: all(reader.text == "one two " for reader in readers))
        late = Reader(duck)
        await until(lambda: late.text == "one two ")
        provider.error = Overloaded("enough", status=529)
        provider.step()
        return [await reader.error() for reader in [*readers, late]]

    errors = asyncio.run(go())
    assert [(type(error), error.text) for error in errors] == [(StreamInterrupted, "one two ")] * 4
    assert len(provider.asked) == 1


def test_a_refusal_is_everybodys_and_nobody_asks_again_for_a_moment_more(start_duck: StartDuck) -> None:
    """Whoever came a moment later had a moment more, and all of them began anew together."""
    duck, provider = shared_duck(start_duck, **ONE_AT_A_TIME)

    async def go() -> list[BaseException]:
        busy = asyncio.create_task(duck.acomplete(OTHER))
        await until(lambda: len(provider.asked) == 1)
        readers = [Reader(duck, stream=False) for _ in range(20)]
        await until(lambda: waiters(duck) == 23)
        duck.actor("circuit_breaker:slow").ask(ForceOpen("any"))
        provider.finish()
        await busy
        return [await reader.error() for reader in readers]

    errors = asyncio.run(go())
    assert {type(error) for error in errors} == {CircuitOpen}
    assert len(provider.asked) == 1
    assert duck.status().queue.enqueued == 2


class Peculiar(RubberDuckError):
    """An error that cannot be made without what it wants to know."""

    def __init__(self, message: str, *, color: str) -> None:
        super().__init__(message)
        self.color = color


def test_even_an_error_of_a_peculiar_make_reaches_everybody(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig
    provider.error = Peculiar("odd", color="blue")

    async def go() -> list[Any]:
        readers = [Reader(duck) for _ in range(3)]
        await seated(duck, 3)
        provider.finish()
        return [await reader.error() for reader in readers]

    assert [(str(error), error.color) for error in asyncio.run(go())] == [("odd", "blue")] * 3


# --- the end of a flight -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_those_who_have_seen_nothing_share_one_restart(rig: tuple[RubberDuck, Stepwise], stream: bool) -> None:
    duck, provider = rig

    async def go() -> list[Response]:
        readers = [Reader(duck, stream=stream) for _ in range(5)]
        await seated(duck, 5)
        await until(lambda: len(provider.asked) == 1)
        kill_flight(duck)
        await until(lambda: len(provider.asked) == 2)
        provider.finish()
        return await asyncio.gather(*(reader.task for reader in readers))

    responses = asyncio.run(go())
    assert {response.text for response in responses} == {"one two three four"}
    assert on_bill(responses) == COST
    assert sorted(len(response.attempts) for response in responses) in ([0, 0, 0, 0, 2], [0, 0, 0, 1, 1])
    assert sorted(rows(duck)) == ["settled", "uncertain"]
    assert has_come_to_rest(duck)


def test_there_is_no_second_restart(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> list[Any]:
        readers = [Reader(duck) for _ in range(3)]
        await seated(duck, 3)
        for asked in (1, 2):
            await until(lambda: len(provider.asked) == asked)  # noqa: B023
            kill_flight(duck)
        return [await reader.error() for reader in readers]

    errors = asyncio.run(go())
    assert {type(error) for error in errors} == {CallInterrupted}
    assert len(provider.asked) == 2
    assert rows(duck) == ["uncertain"] * 2
    assert sum(len(error.attempts) for error in errors) == 2
    assert all(error.spent == (None if error.attempts else 0) for error in errors)
    assert has_come_to_rest(duck)


def test_those_who_have_seen_a_part_are_told_that_there_is_no_more(rig: tuple[RubberDuck, Stepwise]) -> None:
    duck, provider = rig

    async def go() -> list[Any]:
        readers = [Reader(duck) for _ in range(3)]
        await seated(duck, 3)
        provider.step()
        await until(lambda: all(reader.text == "one " for reader in readers))
        kill_flight(duck)
        return [await reader.error() for reader in readers]

    assert {type(error) for error in asyncio.run(go())} == {CallInterrupted}
    assert len(provider.asked) == 1
    assert has_come_to_rest(duck)


@pytest.mark.parametrize("message", range(1, 6))
@pytest.mark.parametrize("victim", ["request_queue", "rate_limiter:mock", "circuit_breaker:mock", "cost_tracker"])
def test_whenever_the_flight_is_killed_all_are_answered_and_all_is_booked(
    start_duck: StartDuck, victim: str, message: int, eventually: Eventually
) -> None:
    providers = {"mock": {"module": "mock", "responses": [{**HELLO, "delay": "10ms"}]}}
    duck = start_duck(providers, single_flight=True, prices={"mock/any": PRICE})
    delays, passed = Delays(duck), itertools.count(1)

    def strike(path: str) -> None:
        if next(passed) == message:
            kill_flight(duck)

    async def go() -> list[Response]:
        async with asyncio.timeout(30):
            calls = [asyncio.create_task(duck.acomplete(REQUEST)) for _ in range(5)]
            await until(lambda: len(duck._runner._in_flight) == 5 + 1)  # without a word to any actor
            delays.end()
            return await asyncio.gather(*calls)

    with fault("before_handle", strike, path=victim):
        responses = asyncio.run(go())
    assert {response.text for response in responses} == {"hello there"}
    assert on_bill(responses) == COST_OF_HELLO
    eventually(lambda: has_come_to_rest(duck))
    mock: Any = duck.provider("mock")
    assert len(mock.calls) <= 2
    assert len([row for row in rows(duck) if row != "void"]) >= len(mock.calls)
    assert duck.system.audit() == []


@pytest.mark.parametrize("victim", ["service", "request_queue", "rate_limiter:mock", "circuit_breaker:mock"])
def test_identical_calls_are_answered_and_booked_once_while_an_actor_keeps_being_killed(
    start_duck: StartDuck, victim: str
) -> None:
    duck = start_duck(
        {"mock": {"module": "mock", "responses": [{**HELLO, "delay": "1ms"}]}},
        single_flight=True,
        prices={"mock/any": PRICE},
        supervision={"max_restarts": 1_000_000, "max_seconds": 1},
    )
    ref, passed = duck.actor(victim), itertools.count(1)

    def strike(path: str) -> None:
        if next(passed) % 5 == 0:
            duck.system.kill(ref)

    async def caller() -> list[Response]:
        return [await duck.acomplete(REQUEST) for _ in range(10)]

    async def go() -> list[Response]:
        async with asyncio.timeout(30):
            return [each for some in await asyncio.gather(*(caller() for _ in range(20))) for each in some]

    with fault("before_handle", strike, path=victim):
        responses = asyncio.run(go())
    assert {response.text for response in responses} == {"hello there"}
    calls, _ = provider_log(duck)
    assert provider_log(duck) == ledger(duck)
    assert on_bill(responses) == duck.costs().cost == calls * COST_OF_HELLO
    assert has_come_to_rest(duck)
    assert duck.system.audit() == []


@pytest.mark.parametrize("stream", [False, True])
def test_stopping_ends_open_flights_with_all_who_wait(start_duck: StartDuck, stream: bool) -> None:
    duck, provider = shared_duck(start_duck)

    async def go() -> list[Any]:
        readers = [Reader(duck, stream=stream) for _ in range(5)]
        await seated(duck, 5)
        assert await asyncio.to_thread(duck.stop, 0.1)
        return [await reader.error() for reader in readers]

    errors = asyncio.run(go())
    assert {type(error) for error in errors} == {CallInterrupted}
    assert len(provider.asked) == len(provider.ended) == 1
    assert sum(len(error.attempts) for error in errors) <= 1


def test_stopping_lets_open_flights_come_to_their_end(start_duck: StartDuck) -> None:
    duck, provider = shared_duck(start_duck)

    async def go() -> list[Response]:
        readers = [Reader(duck) for _ in range(5)]
        await seated(duck, 5)
        stopping = asyncio.create_task(asyncio.to_thread(duck.stop, 10))
        await asyncio.sleep(0)
        provider.finish()
        responses = await asyncio.gather(*(reader.task for reader in readers))
        assert await stopping
        return responses

    assert on_bill(asyncio.run(go())) == COST


def test_the_end_of_all_tasks_ends_flights_and_callers_with_an_error(
    rig: tuple[RubberDuck, Stepwise], eventually: Eventually
) -> None:
    duck, provider = rig

    async def go() -> list[Any]:
        readers = [Reader(duck) for _ in range(5)]
        await seated(duck, 5)
        await until(lambda: len(provider.asked) == 1)
        duck.system.kill(duck.actor("calls"))
        return [await reader.error() for reader in readers]

    assert {type(error) for error in asyncio.run(go())} == {CallInterrupted}
    eventually(lambda: has_come_to_rest(duck))
    provider.finish()
    assert duck.complete(REQUEST).text == "one two three four"
    assert len(provider.asked) == 2


class Stubborn(Provider):
    """Blocks the loop of all actors at its first request, until the test lets it go."""

    def __init__(self) -> None:
        self.may_block, self.is_stuck, self.gate = threading.Event(), threading.Event(), threading.Event()
        self.asked = 0

    @classmethod
    def init(cls, config: ProviderConfig) -> Stubborn:
        return cls()

    def supports_model(self, model: str) -> bool:
        return model == "any"

    async def complete(self, request: Request) -> Response:
        self.asked += 1
        while not self.may_block.is_set():
            await asyncio.sleep(0.001)
        self.is_stuck.set()
        self.gate.wait(60)
        raise AssertionError("nobody waits for this any more")

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        await self.complete(request)
        yield Chunk()


@pytest.mark.parametrize("stream", [False, True])
def test_callers_share_one_restart_after_the_loop_was_lost(
    start_duck: StartDuck, stream: bool, eventually: Eventually
) -> None:
    duck = start_duck(
        {
            "stubborn": {"module": Stubborn, "priority": 1},
            "mock": {"module": "mock", "responses": [HELLO], "priority": 2},
        },
        single_flight=True,
        supervision={"loop_limit": "200ms"},
        prices={"mock/any": PRICE},
        timeout="20s",
    )
    stubborn: Any = duck.provider("stubborn")

    async def go() -> list[Response]:
        readers = [Reader(duck, stream=stream) for _ in range(5)]
        await seated(duck, 5)
        stubborn.may_block.set()
        return await asyncio.gather(*(reader.task for reader in readers))

    try:
        responses = asyncio.run(go())
        assert {response.text for response in responses} == {"hello there"}
        assert on_bill(responses) == COST_OF_HELLO
        outcomes = sorted(attempt.outcome for response in responses for attempt in response.attempts)
        assert outcomes == ["CallInterrupted", "success"]
        assert provider_log(duck) == ledger(duck) == (1, 5)
        assert (stubborn.asked, sorted(rows(duck))) == (1, ["settled", "uncertain"])
    finally:
        stubborn.gate.set()
        eventually(lambda: not duck.system.zombies)
    eventually(lambda: has_come_to_rest(duck))
    assert duck.complete(REQUEST).text == "hello there"


# --- real sockets ------------------------------------------------------------------------------------------------


def test_on_real_sockets_too_the_last_reader_closes_the_one_connection(
    start_duck: StartDuck, eventually: Eventually
) -> None:
    with FaultServer(Ok("quack " * 3000, between=0.02)) as server:  # for a minute
        providers = {"up": {"module": "openai", "api_key": "k", "base_url": f"{server.base_url}/v1", "models": ["any"]}}
        duck = start_duck(providers, single_flight=True)

        async def go() -> None:
            readers = [Reader(duck) for _ in range(20)]
            await until(lambda: all(reader.text for reader in readers))
            assert len(server.calls) == 1
            for reader in readers[1:]:
                reader.task.cancel()
            await asyncio.wait([reader.task for reader in readers[1:]])
            assert not server.calls[0].disconnected_at
            readers[0].task.cancel()
            await until(lambda: server.calls[0].disconnected_at)

        asyncio.run(go())
        assert server.calls[0].finished_at is None
        eventually(lambda: has_come_to_rest(duck))
