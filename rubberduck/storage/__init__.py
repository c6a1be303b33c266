"""Where the ledger is kept. Each backend passes the same conformance suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Protocol

from rubberduck.core.budget import Spending
from rubberduck.core.ledger import AttemptRecord, Summary
from rubberduck.errors import LedgerUnavailable

__all__ = ["Ledger", "LedgerUnavailable"]


class Ledger(Protocol):
    """A store of attempts. One thread uses it at a time; every method raises LedgerUnavailable if the store fails."""

    def write(self, records: Sequence[AttemptRecord]) -> list[bool]:
        """Keep all records in one transaction, durable on return. False marks those that came too late."""
        ...

    def recover(self, now: datetime) -> int:
        """Turn the intents that dead processes left into uncertain entries; says how many."""
        ...

    def summary(self, since: datetime | None = None, until: datetime | None = None) -> Summary:
        """Add up the attempts that started in [since, until)."""
        ...

    def spending(self, since: datetime) -> Spending:
        """What the attempts that started since then have spent, or may yet, tenant by tenant."""
        ...

    def rows(self, since: datetime | None = None, until: datetime | None = None) -> Iterator[AttemptRecord]:
        """The attempts that started in [since, until), oldest first, those in flight included."""
        ...

    def close(self, *, end_run: bool = True) -> None:
        """Let go of the store; idempotent. `end_run=False` if calls of this run may still be in flight."""
        ...
