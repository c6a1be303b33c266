"""The health of a whole tree at one moment, as data and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rubberduck.actors.cost_tracker import LedgerHealth
from rubberduck.core.breaker import BreakerStats, State
from rubberduck.core.keys import QuarantineStats
from rubberduck.core.limiter import LimiterStats
from rubberduck.core.request_queue import QueueStats

_PUT_AWAY = {"key": "refused", "quota": "its account is used up", "route": "not known to the provider"}


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One provider's health: the worst state of its breakers, its balances, and its routes one by one.

    `limiter` is of all keys together, `keys` of each by its public name. `quarantines` are the keys and models that are
    not used for a while.
    """

    state: str
    breakers: Mapping[str, BreakerStats]
    limiter: LimiterStats
    inflight: int
    keys: Mapping[str, LimiterStats] = field(default_factory=dict)
    quarantines: tuple[QuarantineStats, ...] = ()

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> Iterator[str]:
        """How it stands, then one line for each thing that is not as it should be."""
        waiting = f", {self.limiter.waiting} wait for its limits" if self.limiter.waiting else ""
        yield f"{self.state}, {self.inflight} in flight{waiting}"
        if self.limiter.blocked_for > 0:
            yield f"rate limited for another {self.limiter.blocked_for:.1f} s"
        if self.limiter.pace < 1:
            yield f"slowed down to {self.limiter.pace:.0%} of its rates"
        for model, breaker in self.breakers.items():
            if breaker.state is not State.CLOSED or breaker.consecutive_failures:
                yield f"{model or 'circuit'}: {_breaker(breaker)}"
        for each in self.quarantines:
            yield _quarantine(each)


@dataclass(frozen=True, slots=True)
class Status:
    """What `duck.status()` tells; `str()` for people.

    `ok` is False if no provider can be called or the ledger cannot be written.
    """

    ok: bool
    providers: Mapping[str, ProviderStatus]
    queue: QueueStats
    ledger: LedgerHealth
    calls: int

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{'well' if self.ok else 'NOT WELL'}: {self.calls} calls under way"
        width = max(len(name) for name in ("queue", "ledger", *self.providers))
        for name, provider in self.providers.items():
            state, *troubles = provider.lines()
            yield f"  {name:{width}}  {state}"
            yield from [f"  {'':{width}}    {trouble}" for trouble in troubles]
        yield f"  {'queue':{width}}  {_queue(self.queue)}"
        ledger = "can be written" if self.ledger.is_writable else f"CANNOT BE WRITTEN: {self.ledger.error}"
        yield f"  {'ledger':{width}}  {ledger}"


def _breaker(stats: BreakerStats) -> str:
    rest = f" for another {stats.retry_after:.1f} s" if stats.retry_after else ""
    count = stats.consecutive_failures
    failures = f", {count} failure{'' if count == 1 else 's'} in a row" if count else ""
    return f"{stats.state}{rest}{failures}"


def _quarantine(stats: QuarantineStats) -> str:
    what = f"model {stats.model}" if stats.key is None else stats.key or "its key"
    with_model = f" with {stats.model}" if stats.key is not None and stats.model is not None else ""
    rest = f"left alone for another {stats.remaining:.0f} s" if stats.remaining else "looked at again by the next call"
    return f"{what}{with_model}: {_PUT_AWAY[stats.kind]}; {rest}"


def _queue(stats: QueueStats) -> str:
    waiting = sum(stats.depth.values())
    oldest = f", the oldest for {stats.oldest_wait:.1f} s" if waiting else ""
    turned_away = stats.rejected + stats.evicted + stats.infeasible
    refused = f", {turned_away} turned away so far" if turned_away else ""
    return f"{waiting} wait{oldest}{refused}"
