"""A route that has grown slow, and the second one that is asked beside it: one answer, both on the bill."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tests_system_rig import PRICE, REQUEST, StartDuck

from rubberduck import RubberDuck, telemetry
from rubberduck.config import ProviderConfig
from rubberduck.core.hedge import ENOUGH_ANSWERS
from rubberduck.errors import Cancelled, Overloaded, RubberDuckError
from rubberduck.providers.assembly import as_chunks
from rubberduck.providers.base import Provider
from rubberduck.telemetry import names
from rubberduck.types import Choice, Chunk, FinishReason, Message, Request, Response, Usage
from supervision.testing import ManualClock

Eventually = Callable[..., Any]
DELAY = 0.03
"""Until a second route is asked, on a clock that stands still while the first answers."""
HEDGE = {"share": 1, "least_delay": "30ms"}


class Moody(Provider):
    """Answers at once in its own name; while `is_slow` not before `release`, or with `error`. `cancelled` counts."""

    def __init__(self) -> None:
        self.is_slow = False
        self.asked = self.asked_before_it_was_slow = self.cancelled = 0
        self.error: RubberDuckError | None = None
        self._gate: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    @classmethod
    def init(cls, config: ProviderConfig) -> Moody:
        return cls()

    def supports_model(self, model: str) -> bool:
        return model == "any"

    def release(self) -> None:
        assert self._gate is not None
        loop, gate = self._gate
        loop.call_soon_threadsafe(gate.set)

    async def complete(self, request: Request) -> Response:
        self.asked += 1
        if self.is_slow:
            self._gate = (asyncio.get_running_loop(), asyncio.Event())
            try:
                await self._gate[1].wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        if self.error is not None:
            raise self.error
        choice = Choice(0, Message(role="assistant", content=self.name), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(3, 2), provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        for chunk in as_chunks(await self.complete(request)):
            yield chunk


@pytest.fixture
def duck(start_duck: StartDuck) -> RubberDuck:
    """The first provider is known to be quick, for calls and for streams; the second is its equal."""
    return started(start_duck)


def started(start_duck: StartDuck, **sections: Any) -> RubberDuck:
    providers = {"first": {"module": Moody, "priority": 1}, "second": {"module": Moody, "priority": 2}}
    prices = {"first/any": PRICE, "second/any": PRICE}
    duck = start_duck(providers, prices=prices, **{"hedge": HEDGE, **sections})
    for _ in range(ENOUGH_ANSWERS):
        # Not to be hedged, however long a busy machine takes over them.
        assert completed(duck, replayable=False) == streamed(duck, replayable=False) == "first"
    return duck


def completed(duck: RubberDuck, **options: Any) -> str:
    return duck.complete(REQUEST, timeout=60, **options).text


def streamed(duck: RubberDuck, **options: Any) -> str:
    with duck.stream(REQUEST, timeout=60, **options) as stream:
        return "".join([chunk.delta.content for chunk in stream])


def moody(duck: RubberDuck, name: str) -> Moody:
    provider = duck.provider(name)
    assert isinstance(provider, Moody)
    return provider


def make_slow(duck: RubberDuck, *names: str) -> None:
    for name in names:
        moody(duck, name).is_slow = True
        moody(duck, name).asked_before_it_was_slow = moody(duck, name).asked


def let_pass(duck: RubberDuck, clock: ManualClock, eventually: Eventually, seconds: float, calls: int = 1) -> None:
    """The time of calls that wait for the first route; then whoever was due has been heard."""
    before = moody(duck, "first").asked_before_it_was_slow
    eventually(lambda: moody(duck, "first").asked - before == calls and len(clock.pending()) >= 2 * calls)
    clock.advance(seconds)
    for _ in range(5):
        duck.status()


@pytest.mark.parametrize("ask", [completed, streamed])
def test_a_second_route_answers_where_the_first_has_grown_slow(duck: RubberDuck, ask: Any) -> None:
    make_slow(duck, "first")
    assert ask(duck) == "second"
    assert moody(duck, "first").cancelled == 1


def test_both_attempts_are_on_the_bill_and_the_loser_as_uncertain(duck: RubberDuck) -> None:
    before = duck.costs()
    make_slow(duck, "first")
    response = duck.complete(REQUEST)
    assert [(each.provider, each.outcome) for each in response.attempts] == [
        ("first", "Cancelled"),
        ("second", "success"),
    ]
    after = duck.costs()
    assert after.cost - before.cost == response.usage.cost
    assert after.uncertain > before.uncertain == 0


def test_nothing_of_the_loser_is_held_after_the_answer(duck: RubberDuck) -> None:
    make_slow(duck, "first")
    completed(duck)
    streamed(duck)
    status = duck.status()
    for provider in status.providers.values():
        assert (provider.inflight, provider.limiter.in_flight) == (0, 0)
        assert all(breaker.permits_out == 0 for breaker in provider.breakers.values())


@pytest.mark.parametrize("ask", [completed, streamed])
def test_the_first_answers_itself_if_it_speaks_before_the_second(
    duck: RubberDuck, ask: Any, eventually: Eventually
) -> None:
    make_slow(duck, "first", "second")

    async def race() -> str:
        answer = asyncio.create_task(asyncio.to_thread(ask, duck))
        await asyncio.to_thread(eventually, lambda: moody(duck, "second").asked == 1)
        moody(duck, "first").release()
        return await answer

    assert asyncio.run(race()) == "first"
    assert moody(duck, "second").cancelled == 1


@pytest.mark.parametrize("ask", [completed, streamed])
@pytest.mark.parametrize(("failing", "answering"), [("first", "second"), ("second", "first")])
def test_the_failure_of_one_leaves_the_answer_to_the_other(
    duck: RubberDuck, ask: Any, failing: str, answering: str, eventually: Eventually
) -> None:
    make_slow(duck, "first", "second")
    moody(duck, failing).error = Overloaded("too many", provider=failing, status=529, phase="answered")

    async def race() -> str:
        answer = asyncio.create_task(asyncio.to_thread(ask, duck))
        await asyncio.to_thread(eventually, lambda: moody(duck, "second").asked == 1)
        moody(duck, failing).release()
        await asyncio.to_thread(eventually, lambda: duck.status().providers[failing].inflight == 0)
        moody(duck, answering).release()
        return await answer

    assert asyncio.run(race()) == answering


def test_a_caller_who_gives_up_ends_both(duck: RubberDuck, eventually: Eventually) -> None:
    make_slow(duck, "first", "second")

    async def give_up() -> None:
        answer = asyncio.create_task(duck.acomplete(REQUEST))
        await asyncio.to_thread(eventually, lambda: moody(duck, "second").asked == 1)
        answer.cancel()
        await asyncio.wait([answer])

    asyncio.run(give_up())
    eventually(lambda: (moody(duck, "first").cancelled, moody(duck, "second").cancelled) == (1, 1))
    eventually(lambda: duck.status().calls == 0)


def test_closing_the_stream_of_the_winner_ends_the_call(duck: RubberDuck, eventually: Eventually) -> None:
    make_slow(duck, "first")
    with duck.stream(REQUEST) as stream:
        assert stream.provider == "second"
    eventually(lambda: duck.status().calls == 0)
    assert duck.system.audit() == []


def test_the_deadline_ends_both(start_duck: StartDuck, eventually: Eventually) -> None:
    clock = ManualClock()
    duck = started(start_duck, clock=clock)
    make_slow(duck, "first", "second")
    future = duck.service.ask({"complete": REQUEST, "timeout": 3}, block=False)
    let_pass(duck, clock, eventually, DELAY)
    eventually(lambda: moody(duck, "second").asked == 1)
    clock.advance(3)
    with pytest.raises(RubberDuckError, match="no answer within"):
        future.get(timeout=30)
    assert moody(duck, "first").cancelled == moody(duck, "second").cancelled == 1


@pytest.mark.parametrize("victim", ["rate_limiter:second", "circuit_breaker:second", "cost_tracker", "request_queue"])
def test_a_hedge_survives_the_death_of_any_actor(duck: RubberDuck, victim: str, eventually: Eventually) -> None:
    make_slow(duck, "first", "second")

    async def race() -> str:
        answer = asyncio.create_task(asyncio.to_thread(completed, duck))
        await asyncio.to_thread(eventually, lambda: moody(duck, "second").asked == 1)
        duck.system.kill(duck.actor(victim))
        moody(duck, "second").release()
        return await answer

    assert asyncio.run(race()) == "second"
    assert duck.system.audit() == []


def test_hedges_keep_to_their_share(start_duck: StartDuck, eventually: Eventually) -> None:
    clock = ManualClock()
    duck = started(start_duck, hedge={"share": 0.05, "least_delay": "30ms"}, max_queue_size=1000, clock=clock)
    make_slow(duck, "first")
    hedged: list[Any] = []
    telemetry.attach("hedges", [names.HEDGE], lambda *told: hedged.append(told))
    try:
        calls = [duck.service.ask({"complete": REQUEST, "timeout": 3}, block=False) for _ in range(60)]
        let_pass(duck, clock, eventually, DELAY, len(calls))
        eventually(lambda: moody(duck, "second").asked)
        clock.advance(3)
        for call in calls:
            with contextlib.suppress(RubberDuckError):
                call.get(timeout=30)
        assert telemetry.flush(30)
    finally:
        telemetry.detach("hedges")
    # 40 quick calls and 60 slow ones have earned five.
    assert 1 <= len(hedged) == moody(duck, "second").asked <= 5


@pytest.mark.parametrize(
    ("hedge", "option"), [(HEDGE, {"replayable": False}), (None, {})], ids=["not to be done twice", "no such section"]
)
def test_what_is_not_to_be_hedged_is_asked_for_once(
    start_duck: StartDuck, eventually: Eventually, hedge: Any, option: dict[str, Any]
) -> None:
    clock = ManualClock()
    duck = started(start_duck, hedge=hedge, clock=clock)
    make_slow(duck, "first")
    future = duck.service.ask({"complete": REQUEST, "timeout": 3, **option}, block=False)
    let_pass(duck, clock, eventually, 1)
    clock.advance(2)
    with pytest.raises(RubberDuckError):
        future.get(timeout=30)
    assert moody(duck, "second").asked == 0


def test_a_stream_that_its_reader_closes_is_no_failure_of_a_route(duck: RubberDuck) -> None:
    with duck.stream(REQUEST) as stream:
        stream.close()
        with pytest.raises((Cancelled, StopIteration)):
            next(stream)
    assert duck.status().providers["first"].state == "closed"
