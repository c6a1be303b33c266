"""From a configuration to what a tree is made of: providers with their desks, prices, ledger and jobs."""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rubberduck.actors.board import ProviderDesk
from rubberduck.actors.shared_limits import Leases, fingerprint
from rubberduck.config import Config, ProviderConfig
from rubberduck.core.breaker import BreakerOptions
from rubberduck.core.keys import KeyPool
from rubberduck.core.limiter import LimiterOptions
from rubberduck.errors import ConfigError, RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.base import Provider
from rubberduck.providers.http import HTTPProvider
from rubberduck.storage import Ledger
from rubberduck.storage.jobs import SqliteJobs
from rubberduck.storage.shared import open_limits
from rubberduck.storage.sqlite import SqliteLedger
from rubberduck.storage.sqlite_file import MEMORY


def provider_of(config: ProviderConfig, transport: Any, peers: frozenset[str] = frozenset()) -> Provider:
    """The provider that is configured so, beside `peers`. Raises ConfigError with what its class says against it."""
    if transport is not None and config.transport is None and config.http_client is None:
        config = config.model_copy(update={"transport": transport})
    try:
        provider: Any = resolve(config.module).init(config)
        if not isinstance(provider, Provider):
            text = f"providers.{config.name}: init of {config.module!r} gave {provider!r}, which is no provider"
            raise ConfigError(f"{text}; implement the classmethod init(config) and return the provider")
        provider.peers = peers
        provider.name = config.name  # the one that routes, books and errors go by
    except RubberDuckError:
        raise
    except Exception as error:  # a third party's class
        text = f"providers.{config.name}: {config.module!r} could not be made: {type(error).__name__}: {error}"
        raise ConfigError(text) from error
    return provider


def desk_of(provider: Provider, config: Config) -> ProviderDesk:
    """What is known of a provider from the start: its keys, limits, prices and rank."""
    own = config.providers[provider.name]
    limits = config.rate_limits.get(provider.name)
    attempt = own.timeout if own.timeout is not None else config.timeout
    return ProviderDesk(
        provider=provider,
        vendor=_vendor(provider),
        kind=_kind(provider),
        keys=KeyPool(provider.key_names),
        has_own_prices=type(provider).estimate_cost is not Provider.estimate_cost,
        priority=own.priority,
        weight=own.weight,
        breaker_options=_breaker_options(config, attempt),
        retry_budget=(config.retry.retry_budget, float(config.retry.retry_budget_floor)),
        limiter_options=LimiterOptions(**(dict(limits) if limits else {}), reservation_ttl=attempt + 5),
    )


def _vendor(provider: Provider) -> str:
    """Whose list prices hold. Servers that merely speak a vendor's language have prices of their own."""
    if isinstance(provider, HTTPProvider) and not provider.is_at_vendor:
        return ""
    return provider.vendor or provider.word


def _kind(provider: Provider) -> str:
    """What can do the same with the same model: one class, at one host."""
    host = _host(provider.base_url) if isinstance(provider, HTTPProvider) else ""
    return f"{type(provider).__qualname__}@{host}"


def _host(url: str) -> str | None:
    return urlsplit(url).hostname


def _breaker_options(config: Config, attempt_timeout: float) -> BreakerOptions:
    options = dict(config.circuit_breaker)
    if options.get("permit_ttl") is None:
        options["permit_ttl"] = attempt_timeout + 5
    return BreakerOptions(**options)


def prices_of(config: Config) -> dict[str, dict[str, Any]]:
    """The user's own prices, by route or by model."""
    return {name: price.model_dump() for name, price in config.prices.items()}


def ledger_of(config: Config) -> Callable[[], Ledger]:
    """What opens the ledger, in the thread that will use it."""
    if config.ledger.url is not None:
        raise ConfigError("ledger.url: only a file is supported yet; set ledger.path")
    path = config.ledger.path or str(_default_ledger())
    return functools.partial(SqliteLedger, path, synchronous=config.ledger.synchronous)


def jobs_of(config: Config) -> Callable[[], SqliteJobs]:
    """What opens the store of durable jobs: a file of its own beside the ledger, unless it is told where."""
    ledger = config.ledger.path or str(_default_ledger())
    beside = ledger if ledger == MEMORY else f"{ledger}-jobs"
    path = (config.jobs.path if config.jobs is not None else None) or beside
    return functools.partial(SqliteJobs, path, synchronous=config.ledger.synchronous)


def leases_of(config: Config) -> Leases | None:
    """The leases of limits that are shared with other processes; None if they are not."""
    if config.shared is None:
        return None
    url, node = config.shared.url.get_secret_value(), uuid.uuid4().hex[:16]
    open_store = functools.partial(open_limits, url, node, prefix=config.shared.prefix)
    open_store()  # says now what is wrong with it; nothing is connected yet
    keys = {
        name: tuple([fingerprint(key.get_secret_value()) for key in provider.api_keys])
        for name, provider in config.providers.items()
    }
    return Leases(open_store, keys=keys, least_nodes=config.shared.nodes)


def _default_ledger() -> Path:
    """The ledger of a RubberDuck that was not told where: the user's own state directory."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    directory = Path(base) / "rubberduck"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"the ledger's directory {directory} cannot be made: {error}; set ledger.path") from None
    return directory / "ledger.sqlite"
