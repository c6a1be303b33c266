"""What RubberDuck is told: read from a dict, YAML or TOML, checked as a whole, then never changed.

    config = Config.load("rubberduck.yaml")
    config.providers["openai"].timeout          # seconds

A bare number for a duration is milliseconds; "30s", "500ms" and "5m" say their unit.
"""

from __future__ import annotations

from typing import Any

from rubberduck.config.modules import BUILT_IN_MODULES, ENTRY_POINT_GROUP
from rubberduck.config.provider import PoolConfig, ProviderConfig
from rubberduck.config.root import Config
from rubberduck.config.scalars import seconds
from rubberduck.config.search import find_config, searched
from rubberduck.config.sections import (
    CacheConfig,
    CircuitBreakerConfig,
    ClassBounds,
    ClassWeights,
    LedgerConfig,
    LimiterConfig,
    PriceConfig,
    QueueConfig,
    RetryConfig,
    SupervisionConfig,
)

__all__ = [
    "BUILT_IN_MODULES",
    "ENTRY_POINT_GROUP",
    "CacheConfig",
    "CircuitBreakerConfig",
    "ClassBounds",
    "ClassWeights",
    "Config",
    "LedgerConfig",
    "LimiterConfig",
    "PoolConfig",
    "PriceConfig",
    "ProviderConfig",
    "QueueConfig",
    "RetryConfig",
    "SupervisionConfig",
    "find_config",
    "schema",
    "searched",
    "seconds",
]


def schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, for editors."""
    described = Config.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "title": "RubberDuck configuration"}
