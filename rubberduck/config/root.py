"""The configuration as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from rubberduck.config.problems import Path, dotted
from rubberduck.config.provider import ProviderConfig
from rubberduck.config.scalars import Duration, Flag, Whole
from rubberduck.config.sections import (
    BudgetConfig,
    CacheConfig,
    ChoiceConfig,
    CircuitBreakerConfig,
    HedgeConfig,
    JobsConfig,
    LedgerConfig,
    LimiterConfig,
    PriceConfig,
    QueueConfig,
    RetryConfig,
    Section,
    SharedConfig,
    SupervisionConfig,
)
from rubberduck.config.stream import StreamConfig

Source = Mapping[str, Any] | str | FilePath | None
"""What a configuration is read from: a mapping, a path to YAML or TOML, or nothing (the mock provider)."""

_MAY_BE_EMPTY = (
    "models",
    "choice",
    "rate_limits",
    "circuit_breaker",
    "retry",
    "queue",
    "stream",
    "ledger",
    "budgets",
    "prices",
    "supervision",
)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_Routes = Annotated[tuple[str, ...], BeforeValidator(_listed), Field(min_length=1, max_length=1000)]


class Config(Section):
    """Everything RubberDuck was told, checked; `Config.load` reads one.

    `models` maps a name of the user's to routes `provider/model`, tried in the order of the providers'
    priority. `timeout` is the time for a whole call, in seconds. `cache` None means that nothing is cached,
    `hedge` None that no second route is asked beside a slow one, `jobs` None that no durable jobs are kept,
    `shared` None that limits are this process's own.
    `budgets` is by tenant: "*" is one for each tenant without an entry of its own, "all" one for all together.
    `single_flight` has identical calls of one tenant that are under way at the same time share one answer, which one of
    them pays.
    """

    providers: dict[str, ProviderConfig]
    models: dict[str, _Routes] = Field(default_factory=dict)
    rate_limits: dict[str, LimiterConfig] = Field(default_factory=dict)
    circuit_breaker: CircuitBreakerConfig = CircuitBreakerConfig()
    retry: RetryConfig = RetryConfig()
    choice: ChoiceConfig = ChoiceConfig()
    max_queue_size: Annotated[int, Whole(1, 10_000_000)] = 1000
    queue: QueueConfig = QueueConfig()
    cache: CacheConfig | None = None
    hedge: HedgeConfig | None = None
    jobs: JobsConfig | None = None
    shared: SharedConfig | None = None
    single_flight: Annotated[bool, Flag()] = False
    stream: StreamConfig = StreamConfig()
    ledger: LedgerConfig = LedgerConfig()
    budgets: dict[str, BudgetConfig] = Field(default_factory=dict)
    prices: dict[str, PriceConfig] = Field(default_factory=dict)
    supervision: SupervisionConfig = SupervisionConfig()
    timeout: Annotated[float, Duration()] = 120.0
    debug_llm_requests: Annotated[bool, Flag()] = False
    debug_llm_responses: Annotated[bool, Flag()] = False

    @classmethod
    def load(cls, source: Source | Config = None, *, environ: Mapping[str, str] | None = None) -> Config:
        """Read a configuration, with `${...}` resolved and overrides from the environment applied.

        Without a source it is the mock provider alone. A Config is returned as it is. `environ` replaces the
        process's environment.

        Raises:
            ConfigError: with every fault found in `problems`, each with its place.
            MissingApiKey: a provider's key is absent, and nothing else is wrong.
        """
        from rubberduck.config.loading import load  # it builds this class, so it cannot come first

        return source if isinstance(source, Config) else load(source, environ)

    def secrets(self) -> tuple[SecretStr, ...]:
        """Every secret value that the configuration holds, for a redactor to look out for."""
        keys = [key for provider in self.providers.values() for key in provider.api_keys]
        urls = [self.ledger.url, self.shared.url if self.shared is not None else None]
        return (*keys, *[url for url in urls if url])

    @model_validator(mode="before")
    @classmethod
    def _drop_empty_sections(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {key: part for key, part in value.items() if not (part is None and key in _MAY_BE_EMPTY)}

    @field_validator("providers", mode="before")
    @classmethod
    def _name_providers(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        if not value:
            raise ValueError("name at least one provider")
        return {name: _named(name, options) for name, options in value.items()}

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        if faults := list(disagreements(dict(self))):
            raise ValueError("; ".join(f"{dotted(path)}: {text}" for path, text in faults))
        return self


def _named(name: Any, options: Any) -> Any:
    if options is None:
        return {"name": name}
    if isinstance(options, Mapping):
        return {**options, "name": name}
    return options


def disagreements(tree: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Where sections contradict each other about the providers' names. Parts of a wrong shape are passed over."""
    providers = tree.get("providers")
    if not isinstance(providers, Mapping):
        return
    for name, options in providers.items():
        if "name" in _mapping(options):
            yield ("providers", name, "name"), "is not an option; a provider's name is the key it stands under"
    known = ", ".join(str(name) for name in providers) or "none"
    for name in _mapping(tree.get("rate_limits")):
        if name not in providers:
            yield ("rate_limits", name), f"is not a configured provider (there are: {known})"
    for alias, routes in _mapping(tree.get("models")).items():
        several = isinstance(routes, list | tuple)
        for index, route in enumerate(routes if several else [routes]):
            place: Path = ("models", alias, index) if several else ("models", alias)
            if isinstance(route, str) and (fault := _route_fault(route, providers, known)):
                yield place, fault


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _route_fault(route: str, providers: Mapping[str, Any], known: str) -> str | None:
    provider, slash, model = route.partition("/")
    if not slash or not provider or not model or route != route.strip():
        return "is not a route; write provider/model"
    return None if provider in providers else f"names a provider that is not configured (there are: {known})"
