"""The backends that the conformance suite is run on, and a way to make records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from rubberduck.core.ledger import AttemptRecord
from rubberduck.storage import Ledger
from rubberduck.storage.sqlite import SqliteLedger

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
Open = Callable[..., Ledger]


def _sqlite_file(tmp_path: Any) -> Open:
    return lambda run="run-1": SqliteLedger(tmp_path / "ledger.db", run=run)


def _sqlite_memory(tmp_path: Any) -> Open:
    return lambda run="run-1": SqliteLedger(":memory:", run=run)


BACKENDS = {"sqlite": _sqlite_file, "sqlite-memory": _sqlite_memory}
KEEPS = ("sqlite",)


@pytest.fixture(params=BACKENDS)
def open_ledger(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Open]:
    """Opens a ledger of each backend; opened twice, it is the same one where the backend keeps anything."""
    yield from opening(BACKENDS[request.param](tmp_path))


@pytest.fixture(params=KEEPS)
def open_kept(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Open]:
    """As `open_ledger`, without the backends that forget when closed."""
    yield from opening(BACKENDS[request.param](tmp_path))


def opening(factory: Open) -> Iterator[Open]:
    opened: list[Ledger] = []

    def open_it(run: str = "run-1") -> Ledger:
        opened.append(factory(run))
        return opened[-1]

    yield open_it
    for ledger in opened:
        ledger.close()


@pytest.fixture
def ledger(open_ledger: Open) -> Ledger:
    return open_ledger()


@pytest.fixture
def intent() -> Callable[..., AttemptRecord]:
    """Makes the intent of attempt number n, which starts n minutes after noon."""

    def make(n: int, **fields: Any) -> AttemptRecord:
        given: dict[str, Any] = {
            "attempt_id": f"a{n}",
            "call_id": f"c{n}",
            "provider": "openai",
            "model": "gpt-4o",
            "started_at": NOON + timedelta(minutes=n),
            "reserved": Decimal("0.5"),
        }
        return AttemptRecord(**given | fields)

    return make
