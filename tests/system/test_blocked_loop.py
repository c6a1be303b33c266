"""Somebody's code blocks the loop of all actors: the tree goes on elsewhere, calls are answered and booked once."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from tests_system_rig import HELLO, PRICE, StartDuck, ledger, provider_log

from rubberduck import RubberDuck, telemetry
from rubberduck.config import ProviderConfig
from rubberduck.errors import CallInterrupted, RubberDuckError
from rubberduck.providers.base import Provider
from rubberduck.telemetry import names as events
from rubberduck.testing import FaultServer
from rubberduck.testing.faults import Ok
from rubberduck.types import Choice, Chunk, Delta, FinishReason, Message, Request, Response, Usage

LIMIT = "200ms"
ASK_STUBBORN = {"model": "slow", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
ASK_MOCK = {**ASK_STUBBORN, "model": "any"}
MOMENTS = ("before it is sent", "while it waits", "after the answer")


class Stubborn(Provider):
    """Blocks the thread that it is called in at one moment, until the test lets it go.

    `sent` and `answered` count what the server behind it would have seen.
    """

    def __init__(self) -> None:
        self.moment = "while it waits"
        self.is_stuck = threading.Event()
        self.gate = threading.Event()
        self.sent = self.answered = 0
        self.ended: list[str] = []

    @classmethod
    def init(cls, config: ProviderConfig) -> Stubborn:
        return cls()

    def supports_model(self, model: str) -> bool:
        return model == "slow"

    def block_at(self, moment: str) -> None:
        if moment == self.moment:
            self.moment = ""  # once
            self.is_stuck.set()
            self.gate.wait(60)

    async def complete(self, request: Request) -> Response:
        try:
            self.block_at("before it is sent")
            self.sent += 1
            self.block_at("while it waits")
            await asyncio.sleep(0)
            self.answered += 1
            self.block_at("after the answer")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        self.ended.append("answered")
        choice = Choice(0, Message(role="assistant", content="at last"), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(1, 1), provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        self.sent += 1
        yield Chunk(delta=Delta(content="one "))
        self.block_at("while it streams")
        yield Chunk(delta=Delta(content="two"))
        yield Chunk(delta=Delta(), finish_reason=FinishReason.STOP, usage=Usage(1, 2))
        self.answered += 1

    def estimate_cost(self, usage: Usage, model: str) -> Any:
        self.block_at("in its price")
        return None


@pytest.fixture
def rig(start_duck: StartDuck, eventually: Callable[..., Any]) -> Iterator[tuple[RubberDuck, Stubborn]]:
    duck = start_duck(
        {
            "stubborn": {"module": f"{__name__}:Stubborn"},
            "mock": {"module": "mock", "responses": [HELLO], "models": ["any"]},
        },
        supervision={"loop_limit": LIMIT},
        prices={"mock/any": PRICE},
        timeout="20s",
    )
    provider: Any = duck.provider("stubborn")
    yield duck, provider
    provider.gate.set()
    eventually(lambda: not duck.system.zombies)


@contextmanager
def caller(duck: RubberDuck, *requests: dict[str, Any]) -> Iterator[list[Any]]:
    """Futures of calls that threads of their own are making."""
    with ThreadPoolExecutor(max(1, len(requests))) as pool:
        yield [pool.submit(duck.complete, request) for request in requests]


def uncertain_calls(duck: RubberDuck) -> int:
    from rubberduck.actors.cost_tracker import Rows

    return sum(row.state == "uncertain" for row in duck.actor("cost_tracker").ask(Rows()))


def rows(duck: RubberDuck) -> list[tuple[str, str, str]]:
    from rubberduck.actors.cost_tracker import Rows

    return sorted((row.attempt_id, row.provider, str(row.state)) for row in duck.actor("cost_tracker").ask(Rows()))


def has_come_to_rest(duck: RubberDuck) -> bool:
    status = duck.status()
    limiters = sum(each.limiter.in_flight + each.inflight for each in status.providers.values())
    return (status.calls, status.queue.in_process, limiters) == (0, 0, 0)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_call_that_blocks_the_loop_is_answered_and_booked_once(
    rig: tuple[RubberDuck, Stubborn], moment: str, eventually: Callable[..., Any]
) -> None:
    duck, stubborn = rig
    stubborn.moment = moment
    with caller(duck, ASK_STUBBORN) as [call], pytest.raises(CallInterrupted, match="may have been sent") as failure:
        call.result(30)
    assert failure.value.spent is None
    assert [attempt.provider for attempt in failure.value.attempts] == ["stubborn"]
    assert duck.complete(ASK_MOCK).text == "hello there"
    books = rows(duck)
    assert [state for _, provider, state in books if provider == "stubborn"] == ["uncertain"]
    assert provider_log(duck) == ledger(duck) == (1, 5)
    eventually(lambda: has_come_to_rest(duck))
    stubborn.gate.set()
    eventually(lambda: stubborn.ended and not duck.system.zombies)
    assert rows(duck) == books
    assert duck.status().ledger.late <= 1
    assert has_come_to_rest(duck)
    assert duck.system.audit() == []


def test_calls_to_others_go_on_soon_after(rig: tuple[RubberDuck, Stubborn], eventually: Callable[..., Any]) -> None:
    duck, stubborn = rig
    with caller(duck, ASK_STUBBORN, *[ASK_MOCK] * 20) as calls:
        assert stubborn.is_stuck.wait(30)
        started = time.monotonic()
        with caller(duck, *[ASK_MOCK] * 10) as later:
            answers = [_outcome(call) for call in later]
        assert time.monotonic() - started < 30  # of the minute for which it is blocked
        answers += [_outcome(call) for call in calls[1:]]
    assert set(answers) <= {"hello there", "CallInterrupted"}
    sent, _ = provider_log(duck)
    assert answers.count("hello there") <= sent
    assert ledger(duck)[0] + uncertain_calls(duck) - 1 == sent
    assert duck.complete(ASK_MOCK).text == "hello there"
    eventually(lambda: has_come_to_rest(duck))


def _outcome(call: Any) -> str:
    try:
        return str(call.result(30).text)
    except RubberDuckError as error:
        return type(error).__name__


def test_a_provider_that_blocks_the_loop_is_left_alone(rig: tuple[RubberDuck, Stubborn]) -> None:
    duck, _ = rig
    with caller(duck, ASK_STUBBORN) as [call], pytest.raises(CallInterrupted):
        call.result(30)
    assert duck.status().providers["stubborn"].state == "open"
    assert duck.status().providers["mock"].state == "closed"


def test_a_stream_that_blocks_the_loop_ends_with_an_error_of_ours(
    rig: tuple[RubberDuck, Stubborn], eventually: Callable[..., Any]
) -> None:
    duck, stubborn = rig
    stubborn.moment = "while it streams"
    with duck.stream(ASK_STUBBORN) as stream:
        assert next(stream).delta.content == "one "
        with pytest.raises(CallInterrupted, match="may have been sent"):
            next(stream)
    books = rows(duck)
    assert [state for _, _, state in books] == ["uncertain"]
    stubborn.gate.set()
    eventually(lambda: not duck.system.zombies)
    assert rows(duck) == books
    assert stubborn.answered == 0
    assert has_come_to_rest(duck)


def test_another_providers_stream_ends_with_an_error_of_ours_too(rig: tuple[RubberDuck, Stubborn]) -> None:
    duck, _ = rig
    mock: Any = duck.provider("mock")
    mock.script = (type(mock.script[0])(content="quack " * 5000, chunk_delay=0.05, usage=Usage(1, 4)),)
    with pytest.raises(CallInterrupted), duck.stream(ASK_MOCK) as stream, caller(duck, ASK_STUBBORN):
        for _ in stream:
            pass
    assert sorted(state for _, _, state in rows(duck)) == ["uncertain", "uncertain"]


def test_a_price_that_blocks_the_loop_leaves_an_uncertain_entry(
    rig: tuple[RubberDuck, Stubborn], eventually: Callable[..., Any]
) -> None:
    duck, stubborn = rig
    stubborn.moment = "in its price"
    with caller(duck, ASK_STUBBORN) as [call], pytest.raises(CallInterrupted):
        call.result(30)
    stubborn.gate.set()
    eventually(lambda: not duck.system.zombies)
    assert duck.complete(ASK_MOCK).text == "hello there"
    assert all(state in ("void", "uncertain", "settled") for _, _, state in rows(duck))
    assert has_come_to_rest(duck)


@pytest.mark.parametrize("event", [events.REQUEST_START, events.ATTEMPT_STOP, events.REQUEST_STOP])
def test_a_hook_that_blocks_the_loop_costs_no_more_than_the_calls_under_way(
    rig: tuple[RubberDuck, Stubborn], event: Any, eventually: Callable[..., Any]
) -> None:
    duck, stubborn = rig
    stuck = threading.Event()

    def hook(*_: Any) -> None:
        if not stuck.is_set():
            stuck.set()
            stubborn.gate.wait(60)

    telemetry.attach("blocks", [event], hook, inline=True)
    try:
        with caller(duck, ASK_MOCK) as [call]:
            outcome = _outcome(call)
        sent = provider_log(duck)[0]
        assert outcome == ("hello there" if event == events.REQUEST_STOP else "CallInterrupted")
        assert ledger(duck)[0] + uncertain_calls(duck) == sent
        eventually(lambda: has_come_to_rest(duck))
        assert duck.complete(ASK_MOCK).text == "hello there"
        stubborn.gate.set()
        eventually(lambda: not duck.system.zombies)
        assert provider_log(duck)[0] == sent + 1
        assert ledger(duck)[0] + uncertain_calls(duck) == sent + 1
    finally:
        telemetry.detach("blocks")
    assert has_come_to_rest(duck)


def test_a_call_that_was_about_to_be_sent_never_is(
    rig: tuple[RubberDuck, Stubborn], eventually: Callable[..., Any]
) -> None:
    """Its turn came while the loop was blocked; the loop came back when the call had long been answered."""
    duck, stubborn = rig
    with caller(duck, ASK_STUBBORN, *[ASK_MOCK] * 30) as calls:
        outcomes = [_outcome(call) for call in calls]
    sent = provider_log(duck)[0]
    stubborn.gate.set()
    eventually(lambda: not duck.system.zombies)
    assert provider_log(duck)[0] == sent
    assert outcomes[0] == "CallInterrupted"
    assert ledger(duck)[0] + uncertain_calls(duck) == sent + 1


def test_all_who_lived_there_are_one_incident(rig: tuple[RubberDuck, Stubborn]) -> None:
    duck, _ = rig
    with caller(duck, ASK_STUBBORN) as [call], pytest.raises(CallInterrupted):
        call.result(30)
    duck.complete(ASK_MOCK)
    used = {node.path: node.window[0] for node in duck.tree().walk() if node.window is not None}
    providers = ("root/providers/provider:mock", "root/providers/provider:stubborn")
    assert used == {"root": 1, "root/providers": 0, **dict.fromkeys(providers, 1)}


def test_stop_comes_back_in_its_time_and_names_who_is_left(start_duck: StartDuck) -> None:
    duck = RubberDuck.start(
        {
            "providers": {"stubborn": {"module": f"{__name__}:Stubborn"}},
            "supervision": {"loop_limit": LIMIT},
            "ledger": {"path": ":memory:"},
        }
    )
    provider: Any = duck.provider("stubborn")
    with caller(duck, ASK_STUBBORN) as [call]:
        assert provider.is_stuck.wait(30)
        started = time.monotonic()
        assert duck.stop(1.0) is False
        assert time.monotonic() - started < 30  # of the minute for which it is blocked
        with pytest.raises(RubberDuckError):
            call.result(30)
    assert duck.system.unstopped_report()
    provider.gate.set()


def test_connections_of_the_lost_loop_are_not_shared_with_the_next(
    start_duck: StartDuck, eventually: Callable[..., Any]
) -> None:
    """A hook on the answers' headers blocks; meanwhile an idle connection to the other server is in the pool."""
    gate = threading.Event()
    with FaultServer(Ok()) as first, FaultServer(Ok()) as second:
        duck = start_duck(
            {
                name: {"module": "openai", "base_url": f"{server.base_url}/v1", "api_key": "k", "models": [name]}
                for name, server in (("first", first), ("second", second))
            },
            supervision={"loop_limit": LIMIT},
            prices=dict.fromkeys(("first", "second"), PRICE),
        )
        ask_first, ask_second = ({**ASK_MOCK, "model": name} for name in ("first", "second"))
        assert duck.complete(ask_second).text
        hooked: Any = duck.provider("first")
        hooked.on_headers = lambda *_: gate.wait(60)
        try:
            with caller(duck, ask_first) as [call], pytest.raises(CallInterrupted, match="may have been sent"):
                call.result(30)
            assert duck.complete(ask_second).text
            assert (len(first.calls), len(second.calls)) == (1, 2)
            assert [(provider, state) for _, provider, state in rows(duck)].count(("first", "uncertain")) == 1
        finally:
            hooked.on_headers = None
            gate.set()
        eventually(lambda: not duck.system.zombies)
        assert (len(first.calls), len(second.calls)) == (1, 2)
        assert sorted(state for _, _, state in rows(duck)) == ["settled", "settled", "uncertain"]
        assert duck.stop()
        gc.collect()
        eventually(lambda: first.open_connections == second.open_connections == 0)


def test_what_a_lost_call_held_is_free_while_its_thread_still_hangs() -> None:
    """A provider with one slot can be asked again, and nobody waits for the lost call when all is stopped."""
    duck = RubberDuck.start(
        {
            "providers": {"stubborn": {"module": f"{__name__}:Stubborn"}},
            "rate_limits": {"stubborn": {"capacity": 10, "refill_rate": 10, "max_concurrency": 1}},
            "circuit_breaker": {"reset_timeout": "1ms"},
            "supervision": {"loop_limit": LIMIT},
            "ledger": {"path": ":memory:"},
        }
    )
    provider: Any = duck.provider("stubborn")
    try:
        with caller(duck, ASK_STUBBORN) as [call], pytest.raises(CallInterrupted):
            call.result(30)
        assert duck.complete(ASK_STUBBORN, timeout=30).text == "at last"
        started = time.monotonic()
        duck.stop(60.0)
        assert time.monotonic() - started < 30  # of the minute that it might have waited
    finally:
        provider.gate.set()
