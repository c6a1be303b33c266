"""A whole RubberDuck over scripted providers, and the comparison of its books with theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rubberduck import RubberDuck

HELLO = {"content": "hello there", "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
REQUEST: dict[str, Any] = {"model": "any", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}
PRICE = {"input": 1, "output": 2}
COST_OF_HELLO = Decimal("0.000007")

StartDuck = Callable[..., RubberDuck]


@pytest.fixture
def start_duck(tmp_path: Path) -> Iterator[StartDuck]:
    """`start_duck(providers, **sections)`: a duck with a ledger of its own, stopped after the test."""
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
        assert duck.stop(), duck.system.unstopped_report()


def provider_log(duck: RubberDuck, name: str = "mock") -> tuple[int, int]:
    """What the provider itself says that it has billed: calls and tokens."""
    billed = [call for call in duck.provider(name).calls if call.usage is not None]
    return len(billed), sum(call.usage.total_tokens for call in billed)


def ledger(duck: RubberDuck, name: str = "mock") -> tuple[int, int]:
    """What our books say about the same."""
    shares = [share for (provider, _), share in duck.costs().by_model.items() if provider == name]
    return sum(share.calls for share in shares), sum(share.tokens for share in shares)
