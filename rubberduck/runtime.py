"""RubberDuck as a user holds it: starts the tree, takes calls, stops in order."""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import supervision as sup
from rubberduck import telemetry
from rubberduck.actors import cost_tracker, request_queue, service, tree
from rubberduck.actors.board import Board, ProviderDesk
from rubberduck.actors.calls import CallRunner
from rubberduck.actors.office import Office
from rubberduck.config import Config, ProviderConfig
from rubberduck.core.breaker import BreakerOptions, BreakerStats, Event, State
from rubberduck.core.ledger import Summary
from rubberduck.core.limiter import LimiterOptions, LimiterStats
from rubberduck.core.request_queue import QueueStats
from rubberduck.errors import CallInterrupted, ConfigError, RubberDuckError
from rubberduck.prices import PriceBook
from rubberduck.providers import resolve
from rubberduck.providers.base import Provider
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.stream import Stream
from rubberduck.telemetry import names as events
from rubberduck.types import Request, Response

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """One provider's health: the worst state of its breakers, its balances, and its routes one by one."""

    state: str
    breakers: Mapping[str, BreakerStats]
    limiter: LimiterStats
    inflight: int


@dataclass(frozen=True, slots=True)
class Status:
    """What `duck.status()` tells. `ok` is False if no provider can be called or the ledger cannot be written."""

    ok: bool
    providers: Mapping[str, ProviderStatus]
    queue: QueueStats
    ledger: cost_tracker.LedgerHealth
    calls: int


class RubberDuck:
    """A running RubberDuck.

        with RubberDuck.start(config) as duck:
            response = duck.complete({"model": "smart", "messages": [{"role": "user", "content": "Hi"}]})

    Its methods may be called from any thread. In a coroutine use those that begin with `a`.
    """

    def __init__(self, config: Config, office: Office) -> None:
        self.config = config
        self.system = office.system
        self._board = office.board
        self._office = office
        self._runner = CallRunner(config, office)
        self._closed = False

    @classmethod
    def start(
        cls,
        config: Config | Mapping[str, Any] | str | Path | None = None,
        *,
        clock: sup.Clock | None = None,
        transport: Any = None,
    ) -> RubberDuck:
        """Start a tree by a configuration: a dict, a Config, or a path to YAML or TOML. None is the mock provider.

        `clock` measures every delay and deadline. `transport` is an httpx transport for all providers.

        Raises:
            ConfigError: with all faults found; nothing is left running.
        """
        loaded = Config.load(config)
        providers = {name: _provider(each, transport) for name, each in loaded.providers.items()}
        rng = random.Random()
        board = Board({name: _desk(provider, loaded) for name, provider in providers.items()}, loaded.models, rng)
        system = sup.System(f"rubberduck-{next(_numbers)}", clock=clock)
        duck = cls(loaded, Office(system, board, PriceBook(_overrides(loaded))))
        try:
            duck._supervise()
        except BaseException:
            system.stop(5.0)
            raise
        return duck

    def _supervise(self) -> None:
        children = tree.children(self.config, self._office, self._runner, _ledger_of(self.config), self._breaker_event)
        limits = self.config.supervision
        try:
            self.system.supervise(*children, max_restarts=limits.max_restarts, max_seconds=limits.max_seconds)
        except sup.StartFailedError as error:
            raise ConfigError(f"RubberDuck could not start: {error}") from None

    # -- calls -------------------------------------------------------------------------------------

    @property
    def service(self) -> sup.ActorRef:
        """The ServiceActor's ref: `duck.service.ask({"complete": request})`."""
        return cast("sup.ActorRef", self.actor("service"))

    def complete(self, request: Request | dict[str, Any], **options: Any) -> Response:
        """Ask a model and wait for the whole answer. Options: priority, timeout (seconds), providers, tenant, tags.

        Raises:
            RubberDuckError: see `rubberduck.errors`.
        """
        return cast("Response", self._blocking({"complete": request, **options}))

    async def acomplete(self, request: Request | dict[str, Any], **options: Any) -> Response:
        """As `complete`, on any event loop. Cancelling the awaiting task cancels the call."""
        return cast("Response", await self._asking({"complete": request, **options}))

    def stream(self, request: Request | dict[str, Any], **options: Any) -> Stream:
        """Ask a model and get the answer piece by piece; returns when its first piece is there."""
        return cast("Stream", self._blocking({"stream": request, **options}))

    def astream(self, request: Request | dict[str, Any], **options: Any) -> OpeningStream:
        """As `stream`, on any event loop: `async with duck.astream(request) as stream: async for chunk in stream`."""
        return OpeningStream(functools.partial(self._asking, {"stream": request, **options}))

    def _blocking(self, message: dict[str, Any]) -> Any:
        if asyncio._get_running_loop() is not None:
            raise RuntimeError("this would block the event loop: use `duck.acomplete` or `duck.astream` in a coroutine")
        try:
            return self.service.ask(message)
        except RubberDuckError:
            raise
        except Exception as error:  # the crash of an actor on the call's way
            raise _interrupted(error) from error

    async def _asking(self, message: dict[str, Any]) -> Any:
        try:
            return await self.service.ask(message, block=False)
        except RubberDuckError:
            raise
        except Exception as error:  # the crash of an actor on the call's way
            raise _interrupted(error) from error

    # -- looking -----------------------------------------------------------------------------------

    def actor(self, name: str) -> Any:
        """The ref of an actor or supervisor of the tree, such as "circuit_breaker:openai"; it survives restarts."""
        for path in (name, f"providers/{name}", f"providers/provider:{name.partition(':')[2]}/{name}"):
            if (ref := self.system.whereis(path)) is not None:
                return ref
        known = ", ".join(self._office.actor_names())
        raise KeyError(f"there is no actor {name!r}; there are {known}")

    def provider(self, name: str) -> Provider:
        """The provider of this name in the configuration."""
        try:
            return self._board.desks[name].provider
        except KeyError:
            raise KeyError(f"there is no provider {name!r}; there are {', '.join(self._board.desks)}") from None

    def costs(self, timeframe: str | tuple[datetime, datetime] = "all") -> Summary:
        """What was spent: "all", "day", "hour" (the present ones, UTC), or (since, until) as aware datetimes."""
        return cast("Summary", self.actor("cost_tracker").ask(cost_tracker.GetSummary(cast("Any", timeframe))))

    def status(self) -> Status:
        """The health of providers, queue and ledger."""
        providers = {name: self._provider_status(name) for name in self._board.desks}
        ledger = self.actor("cost_tracker").ask(cost_tracker.Health())
        is_callable = any(each.state not in ("open", "forced_open") for each in providers.values())
        return Status(
            ok=is_callable and ledger.is_writable,
            providers=providers,
            queue=self.actor("request_queue").ask(request_queue.Stats()),
            ledger=ledger,
            calls=self.actor("calls").count().get(),
        )

    def _provider_status(self, name: str) -> ProviderStatus:
        from rubberduck.actors import circuit_breaker, rate_limiter

        breaker = self.actor(f"circuit_breaker:{name}")
        return ProviderStatus(
            state=str(breaker.ask(circuit_breaker.GetState())),
            breakers=breaker.ask(circuit_breaker.GetStats()),
            limiter=self.actor(f"rate_limiter:{name}").ask(rate_limiter.GetStats()),
            inflight=self._board.desks[name].inflight,
        )

    def tree(self) -> sup.Tree:
        """The live tree as data; `str()` draws it."""
        return self.system.tree()

    # -- the end -----------------------------------------------------------------------------------

    def stop(self, timeout: float = 30.0) -> bool:
        """Take no further calls, give those in flight `timeout` seconds, cancel the rest, close everything.

        Idempotent. False if something could not be stopped: see `duck.system.unstopped_report()`.
        """
        if not self._closed:
            self._closed = True
            try:
                self._drain(time.monotonic() + timeout)
            except (sup.ActorDeadError, KeyError):  # a part of the tree is gone already
                pass
        return self.system.stop(max(5.0, timeout))

    def _drain(self, until: float) -> None:
        self.service.ask(service.Drain(), timeout=5)
        calls = self.actor("calls")
        drained = calls.run(self._runner.drained, until)
        drained.get(timeout=max(1.0, until - time.monotonic() + 5))
        for desk in self._board.desks.values():
            calls.run(desk.provider.aclose).get(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _breaker_event(self, provider: str, model: str, event: Event) -> None:
        if event.after is State.CLOSED:
            desk = self._board.desks[provider]
            desk.stats_of(model, event.at).reclosed(event.at)
        telemetry.execute(
            events.BREAKER_TRANSITION,
            {},
            {"system": self.system.name, "provider": provider, "model": model, "event": event},
        )


class OpeningStream:
    """A stream that has not been asked for yet: `async with` it, or iterate over it at once."""

    def __init__(self, ask: Any) -> None:
        self._ask = ask
        self._stream: Stream | None = None

    async def __aenter__(self) -> Stream:
        self._stream = cast("Stream", await self._ask())
        return self._stream

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def __aiter__(self) -> OpeningStream:
        return self

    async def __anext__(self) -> Any:
        if self._stream is None:
            await self.__aenter__()
        assert self._stream is not None
        return await self._stream.__anext__()


def _interrupted(error: Exception) -> CallInterrupted:
    return CallInterrupted(f"RubberDuck lost the call: {error}", spent=None)


def _provider(config: ProviderConfig, transport: Any) -> Provider:
    if transport is not None and config.transport is None and config.http_client is None:
        config = config.model_copy(update={"transport": transport})
    return resolve(config.module).init(config)


def _desk(provider: Provider, config: Config) -> ProviderDesk:
    own = config.providers[provider.name]
    limits = config.rate_limits.get(provider.name)
    attempt = own.timeout if own.timeout is not None else config.timeout
    return ProviderDesk(
        provider=provider,
        vendor=own.module if isinstance(own.module, str) else own.name,
        priority=own.priority,
        weight=own.weight,
        breaker_options=_breaker_options(config, attempt),
        retry_budget=(config.retry.retry_budget, float(config.retry.retry_budget_floor)),
        limiter_options=LimiterOptions(**(dict(limits) if limits else {}), reservation_ttl=attempt + 5),
    )


def _breaker_options(config: Config, attempt_timeout: float) -> BreakerOptions:
    options = dict(config.circuit_breaker)
    if options.get("permit_ttl") is None:
        options["permit_ttl"] = attempt_timeout + 5
    return BreakerOptions(**options)


def _overrides(config: Config) -> dict[str, dict[str, Any]]:
    return {name: dict(price) for name, price in config.prices.items()}


def _ledger_of(config: Config) -> Any:
    path = config.ledger.path or str(_default_ledger())
    return functools.partial(SqliteLedger, path, synchronous=config.ledger.synchronous)


def _default_ledger() -> Path:
    """The ledger of a RubberDuck that was not told where: the user's own state directory."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    directory = Path(base) / "rubberduck"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the ledger's directory {directory} cannot be made: {error}; set ledger.path") from None
    return directory / "ledger.sqlite"


__all__ = ["OpeningStream", "ProviderStatus", "RubberDuck", "RubberDuckError", "Status"]
