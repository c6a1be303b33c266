"""A whole RubberDuck over scripted providers, and the comparison of its books with theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rubberduck import RubberDuck
from rubberduck.config import ProviderConfig
from rubberduck.providers.assembly import as_chunks
from rubberduck.providers.base import Provider
from rubberduck.types import Choice, Chunk, FinishReason, Message, Request, Response, Usage

HELLO = {"content": "hello there", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
REQUEST: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
PRICE = {"input": 1, "output": 2}
COST_OF_HELLO = Decimal("0.000007")

StartDuck = Callable[..., RubberDuck]


@pytest.fixture
def start_duck(tmp_path: Path, eventually: Callable[..., Any]) -> Iterator[StartDuck]:
    """`start_duck(providers, **sections)`: a duck with a ledger of its own, stopped after the test.

    Loops that were given up must have come to their end by then: no stop waits for them.
    """
    started: list[RubberDuck] = []

    def start(
        providers: dict[str, Any] | None = None, *, clock: Any = None, transport: Any = None, **sections: Any
    ) -> RubberDuck:
        config = {
            "providers": providers or {"mock": {"module": "mock", "responses": [HELLO]}},
            "ledger": {"path": str(tmp_path / f"ledger-{len(started)}.sqlite")},
            **sections,
        }
        duck = RubberDuck.start(config, clock=clock, transport=transport)
        started.append(duck)
        return duck

    yield start
    for duck in started:
        eventually(lambda duck=duck: not duck.system.unstopped_report())
        assert duck.stop(), duck.system.unstopped_report()


def provider_log(duck: RubberDuck, name: str = "mock") -> tuple[int, int]:
    """What the provider itself says that it has billed: calls and tokens."""
    billed = [call for call in duck.provider(name).calls if call.usage is not None]
    return len(billed), sum(call.usage.total_tokens for call in billed)


def ledger(duck: RubberDuck, name: str = "mock") -> tuple[int, int]:
    """What our books say about the same."""
    shares = [share for (provider, _), share in duck.costs().by_model.items() if provider == name]
    return sum(share.calls for share in shares), sum(share.tokens for share in shares)


class Gated(Provider):
    """Answers each call when the test lets it, in the order of arrival; `arrived` are the texts asked so far."""

    def __init__(self) -> None:
        self.arrived: list[str] = []
        self.answered: list[str] = []
        self._gates: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._opened = 0

    @classmethod
    def init(cls, config: ProviderConfig) -> Gated:
        return cls()

    def supports_model(self, model: str) -> bool:
        return model == "any"

    def open(self, count: int = 1) -> None:
        """Let the next `count` calls through, those to come included."""
        opened, self._opened = self._opened, self._opened + count  # first: who comes just now looks at it
        for loop, gate in self._gates[opened : self._opened]:
            loop.call_soon_threadsafe(gate.set)

    async def complete(self, request: Request) -> Response:
        gate = asyncio.Event()
        text = request.messages[-1].text
        self.arrived.append(text)
        self._gates.append((asyncio.get_running_loop(), gate))
        if len(self._gates) > self._opened:
            await gate.wait()
        self.answered.append(text)
        choice = Choice(0, Message(role="assistant", content=f"re: {text}"), FinishReason.STOP)
        return Response("id", request.model, (choice,), Usage(1, 1), provider=self.name)

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        for chunk in as_chunks(await self.complete(request)):
            yield chunk


class Delays:
    """Answers of a mock that have a `delay` wait until the test lets them all go, however long they were to wait."""

    def __init__(self, duck: RubberDuck, name: str = "mock") -> None:
        self._are_over = threading.Event()
        provider: Any = duck.provider(name)
        provider.sleep = self._sleep

    async def _sleep(self, seconds: float) -> None:
        while not self._are_over.is_set():
            await asyncio.sleep(0.001)

    def end(self) -> None:
        self._are_over.set()


def ask_for(text: str) -> dict[str, Any]:
    return {"model": "any", "messages": [{"role": "user", "content": text}], "max_tokens": 1}
