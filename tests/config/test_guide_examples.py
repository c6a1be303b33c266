"""The design's own configuration examples, as a dict, as YAML and as TOML, mean what they say there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rubberduck.config import Config
from rubberduck.errors import MissingApiKey

KEYS = {"OPENAI_API_KEY": "sk-openai", "ANTHROPIC_API_KEY": "sk-ant"}

BASIC: dict[str, Any] = {
    "providers": {
        "openai": {"module": "openai", "api_key": "${OPENAI_API_KEY}"},
        "anthropic": {"module": "anthropic", "api_key": "${ANTHROPIC_API_KEY}"},
    },
    "rate_limits": {
        "openai": {"capacity": 100, "refill_rate": 10},
        "anthropic": {"capacity": 50, "refill_rate": 5},
    },
}

ADVANCED: dict[str, Any] = {
    "providers": {
        "primary": {"module": "openai", "api_key": "${OPENAI_API_KEY}", "priority": 1},
        "fallback": {"module": "anthropic", "api_key": "${ANTHROPIC_API_KEY}", "priority": 2},
        "local": {"module": "local", "model_path": "/path/to/model", "priority": 3},
    },
    "circuit_breaker": {"failure_threshold": 5, "reset_timeout": 60_000, "success_threshold": 3},
    "retry": {"max_attempts": 3, "base_delay": 1000, "max_delay": 10_000, "jitter": True},
}

ADVANCED_YAML = """
providers:
  primary:
    module: openai
    api_key: ${OPENAI_API_KEY}
    priority: 1
  fallback:
    module: anthropic
    api_key: ${ANTHROPIC_API_KEY}
    priority: 2
  local:
    module: local
    model_path: /path/to/model
    priority: 3
circuit_breaker:
  failure_threshold: 5
  reset_timeout: 60000
  success_threshold: 3
retry:
  max_attempts: 3
  base_delay: 1000
  max_delay: 10000
  jitter: true
"""

ADVANCED_TOML = """
[providers.primary]
module = "openai"
api_key = "${OPENAI_API_KEY}"
priority = 1

[providers.fallback]
module = "anthropic"
api_key = "${ANTHROPIC_API_KEY}"
priority = 2

[providers.local]
module = "local"
model_path = "/path/to/model"
priority = 3

[circuit_breaker]
failure_threshold = 5
reset_timeout = 60_000
success_threshold = 3

[retry]
max_attempts = 3
base_delay = 1000
max_delay = 10_000
jitter = true
"""

OPERATIONS_YAML = """
providers:
  primary:  {module: openai, api_key: "${OPENAI_API_KEY}", organization: "${OPENAI_ORG:-}", priority: 1, timeout: 30s}
  fallback: {module: anthropic, api_key: "${file:anthropic.key}", version: "2023-06-01", priority: 2}
rate_limits: {primary: {capacity: 100, refill_rate: 10}}  # per second
circuit_breaker: {failure_threshold: 5, reset_timeout: 60s, success_threshold: 3}
retry: {max_attempts: 3, base_delay: 1s, max_delay: 10s, jitter: true}
max_queue_size: 1000
cache: {ttl: 5m}
debug_llm_requests: false
debug_llm_responses: false
"""


def test_basic_usage() -> None:
    config = Config.load(BASIC, environ=KEYS)
    assert [key.get_secret_value() for key in config.providers["openai"].api_keys] == ["sk-openai"]
    assert config.rate_limits["openai"].capacity == 100
    assert config.rate_limits["anthropic"].refill_rate == 5
    assert (config.circuit_breaker.failure_threshold, config.circuit_breaker.reset_timeout) == (5, 60.0)
    assert config.max_queue_size == 1000


def test_advanced_configuration_is_the_same_from_every_source(tmp_path: Path) -> None:
    (tmp_path / "duck.yaml").write_text(ADVANCED_YAML)
    (tmp_path / "duck.toml").write_text(ADVANCED_TOML)
    from_dict = Config.load(ADVANCED, environ=KEYS)
    assert Config.load(tmp_path / "duck.yaml", environ=KEYS) == from_dict
    assert Config.load(str(tmp_path / "duck.toml"), environ=KEYS) == from_dict
    assert [provider.priority for provider in from_dict.providers.values()] == [1, 2, 3]
    assert from_dict.providers["local"].model_path == "/path/to/model"
    assert (from_dict.retry.base_delay, from_dict.retry.max_delay, from_dict.retry.jitter) == (1.0, 10.0, True)
    assert from_dict.circuit_breaker.reset_timeout == 60.0


def test_environment_specific_configuration() -> None:
    """`{:system, var}` is a variable that must be set, `{:system, var, nil}` one that need not be."""
    providers = {
        "openai": {"api_key": "${OPENAI_API_KEY}", "organization": "${OPENAI_ORG:-}", "timeout": 30_000},
        "anthropic": {"api_key": "${ANTHROPIC_API_KEY}", "version": "2023-06-01"},
    }
    config = Config.load({"providers": providers}, environ=KEYS)
    assert config.providers["openai"].organization is None
    assert config.providers["openai"].timeout == 30.0
    assert config.providers["openai"].module == "openai"
    assert config.providers["anthropic"].version == "2023-06-01"
    organized = Config.load({"providers": providers}, environ=KEYS | {"OPENAI_ORG": "org-1"})
    assert organized.providers["openai"].organization == "org-1"


def test_a_provider_without_its_key_names_the_variable() -> None:
    with pytest.raises(MissingApiKey, match=r"providers\.openai\.api_key.*OPENAI_API_KEY") as caught:
        Config.load({"providers": {"openai": {"module": "openai"}}}, environ={})
    assert caught.value.variable == "OPENAI_API_KEY"


def test_scripted_mock_of_the_integration_test() -> None:
    script = [{"content": "Test response", "tokens": 100}]
    config = Config.load({"providers": {"mock": {"module": "mock", "responses": script}}}, environ={})
    assert config.providers["mock"].responses == tuple(script)


def test_troubleshooting_values() -> None:
    config = Config.load(
        {
            "providers": {"openai": {"api_key": "k"}},
            "circuit_breaker": {"failure_threshold": 10, "reset_timeout": 30_000, "success_threshold": 2},
            "rate_limits": {"openai": {"capacity": 200, "refill_rate": 20}},
            "debug_llm_requests": True,
            "debug_llm_responses": True,
            "cache": {"ttl": 5 * 60 * 1000},
        },
        environ={},
    )
    assert config.circuit_breaker.reset_timeout == 30.0
    assert config.rate_limits["openai"].capacity == 200
    assert config.debug_llm_requests
    assert config.debug_llm_responses
    assert config.cache is not None
    assert (config.cache.ttl, config.cache.max_entries) == (300.0, 10_000)


def test_connection_pool_of_the_performance_chapter() -> None:
    pool = {"size": 50, "idle": 30_000}
    config = Config.load({"providers": {"mock": {"pool": pool}}}, environ={})
    assert config.providers["mock"].pool == Config.load(None, environ={}).providers["mock"].pool
    assert (config.providers["mock"].pool.size, config.providers["mock"].pool.idle) == (50, 30.0)


def test_the_operations_example(tmp_path: Path) -> None:
    (tmp_path / "rubberduck.yaml").write_text(OPERATIONS_YAML)
    (tmp_path / "anthropic.key").write_text("sk-ant-from-file\n")
    config = Config.load(tmp_path / "rubberduck.yaml", environ=KEYS)
    assert config.providers["fallback"].api_keys[0].get_secret_value() == "sk-ant-from-file"
    assert config.providers["primary"].timeout == 30.0
    assert config.cache is not None


def test_the_architecture_example() -> None:
    config = Config.load(
        {
            "providers": {
                "openai": {"module": "openai", "api_key": "${OPENAI_API_KEY}", "priority": 1},
                "anthropic": {"module": "anthropic", "api_key": "${ANTHROPIC_API_KEY}", "priority": 2},
                "local": {"module": "local", "model_path": "model.gguf", "priority": 3},
            },
            "models": {"smart": ["openai/gpt-4o", "anthropic/claude-sonnet-4-5", "local/smollm2"]},
            "rate_limits": {"openai": {"capacity": 100, "refill_rate": 10}},
            "circuit_breaker": {"failure_threshold": 5, "reset_timeout": "60s", "success_threshold": 3},
            "retry": {"max_attempts": 3, "base_delay": "1s", "max_delay": "10s", "jitter": True},
        },
        environ=KEYS,
    )
    assert config.models["smart"][1] == "anthropic/claude-sonnet-4-5"


def test_nothing_configured_is_the_mock_provider() -> None:
    config = Config.load(environ={})
    assert list(config.providers) == ["mock"]
    assert config.providers["mock"].module == "mock"
    assert config.cache is None


def test_a_config_is_taken_as_it_is() -> None:
    config = Config.load(BASIC, environ=KEYS)
    assert Config.load(config, environ={"RUBBERDUCK__MAX_QUEUE_SIZE": "7"}) is config
