"""The checked configuration: its defaults, that it does not change, and what it keeps to itself."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from rubberduck.config import (
    CacheConfig,
    CircuitBreakerConfig,
    Config,
    LimiterConfig,
    ProviderConfig,
    RetryConfig,
    SupervisionConfig,
    schema,
)
from rubberduck.errors import ConfigError

CANARY = "sk-canary-4711-do-not-print"


class Mine:
    """A provider of the user's own."""


def test_defaults_are_those_of_the_design() -> None:
    breaker, retry, limits = CircuitBreakerConfig(), RetryConfig(), LimiterConfig()
    assert (breaker.failure_threshold, breaker.reset_timeout, breaker.success_threshold) == (5, 60.0, 3)
    assert (breaker.half_open_max_probes, breaker.half_open_max_wait, breaker.permit_ttl) == (1, None, None)
    assert (breaker.open_multiplier, breaker.open_max, breaker.open_jitter) == (1.0, 300.0, 0.0)
    assert (breaker.minimum_calls, breaker.failure_rate) == (10, 0.5)
    assert (breaker.slow_call_after, breaker.slow_call_rate) == (None, 1.0)
    assert (retry.max_attempts, retry.max_attempts_total) == (3, 6)
    assert (retry.base_delay, retry.max_delay, retry.jitter) == (1.0, 10.0, True)
    assert (retry.same_route_repeats, retry.max_wait_for_preferred) == (1, 3.0)
    assert (retry.retry_budget, retry.retry_budget_floor) == (0.2, 3)
    assert retry.failover_on_content_filter is False
    assert (limits.capacity, limits.unit, limits.max_concurrency) == (None, "requests", 100)
    assert (SupervisionConfig().max_restarts, SupervisionConfig().max_seconds) == (30, 10.0)
    assert SupervisionConfig().loop_limit == 1.0
    assert (CacheConfig().ttl, CacheConfig().max_entries) == (300.0, 10_000)
    assert Config.load(environ={}).timeout == 120.0


def test_a_provider_has_the_attributes_that_adapters_read() -> None:
    provider = ProviderConfig(name="mock")
    assert provider.module == "mock"
    assert provider.api_keys == provider.models == provider.responses == ()
    assert (provider.priority, provider.weight) == (1, 1.0)
    assert (provider.pool.size, provider.pool.idle) == (50, 30.0)
    empty = ("base_url", "timeout", "connect_timeout", "first_token_timeout", "idle_timeout", "organization", "version")
    assert all(getattr(provider, name) is None for name in (*empty, "model_path", "http_client", "transport"))
    assert provider.options == {}


def test_a_provider_takes_classes_and_objects_from_python() -> None:
    client = object()
    source = {"providers": {"mine": {"module": Mine, "http_client": client, "transport": client, "options": {"x": 1}}}}
    provider = Config.load(source, environ={}).providers["mine"]
    assert provider.module is Mine
    assert provider.http_client is provider.transport is client
    assert provider.options == {"x": 1}
    assert provider.model_dump(mode="json")["module"].endswith(":Mine")


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://", "http://a b/", "http://x:99999", "//x", 5])
def test_a_base_url_is_one(url: Any) -> None:
    with pytest.raises(ValidationError):
        ProviderConfig(name="mock", base_url=url)


def test_a_base_url_loses_its_last_slash_and_never_carries_a_password() -> None:
    assert ProviderConfig(name="mock", base_url="https://host:8443/v1/").base_url == "https://host:8443/v1"
    with pytest.raises(ValidationError, match="must not carry a user or password") as caught:
        ProviderConfig(name="mock", base_url=f"https://user:{CANARY}@host/")
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("window", "given", "kept"), [("count", None, None), ("count", 50, 50), ("time", "30s", 30.0), ("time", 5000, 5.0)]
)
def test_a_window_is_counted_or_timed(window: Any, given: Any, kept: Any) -> None:
    section = {"window": window} if given is None else {"window": window, "window_size": given}
    assert CircuitBreakerConfig.model_validate(section).window_size == kept


def test_a_long_reset_timeout_lifts_the_usual_longest_opening() -> None:
    assert CircuitBreakerConfig.model_validate({"reset_timeout": "10m"}).open_max == 600.0


def test_what_is_dumped_as_json_can_be_loaded_again() -> None:
    source = {
        "providers": {"mock": {"timeout": "1.5s", "models": "a", "pool": {"idle": "2m"}}, "mine": {"module": "mock"}},
        "models": {"smart": ["mock/a", "mine/b"]},
        "rate_limits": {"mock": {"capacity": 5, "refill_rate": 0.5, "unit": "tokens"}},
        "circuit_breaker": {"window": "time", "window_size": "10s", "half_open_max_wait": "90s"},
        "retry": {"base_delay": 250, "retry_budget": "10%"},
        "prices": {"mock/a": {"input": "0.15", "output": 1}},
        "cache": {},
    }
    config = Config.load(source, environ={})
    assert Config.load(config.model_dump(mode="json"), environ={}) == config


def test_prices_are_exact() -> None:
    prices: Any = {"mock/x": {"input": 0.1, "output": "0.30", "cached_input": Decimal("0.05")}}
    price = Config.load({"providers": {"mock": {}}, "prices": prices}, environ={}).prices["mock/x"]
    assert (price.input, price.output, price.cached_input) == (Decimal("0.1"), Decimal("0.30"), Decimal("0.05"))


def test_a_section_that_is_written_but_empty_has_its_defaults() -> None:
    empty = dict.fromkeys(
        ("models", "rate_limits", "circuit_breaker", "retry", "queue", "ledger", "prices", "supervision")
    )
    assert Config.load({"providers": {"mock": None}, **empty}, environ={}) == Config.load(None, environ={})


def test_nothing_can_be_changed() -> None:
    config = Config.load(environ={})
    for model, field in ((config, "timeout"), (config.retry, "jitter"), (config.providers["mock"], "weight")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, field, 1)


def test_a_config_built_by_hand_is_checked_as_well() -> None:
    with pytest.raises(ValidationError, match="is not a configured provider"):
        Config(providers={"mock": ProviderConfig(name="mock")}, rate_limits={"other": LimiterConfig()})


def secretive() -> Config:
    source = {
        "providers": {"openai": {"api_key": CANARY}, "mock": {"options": {"password": CANARY}, "api_keys": [CANARY]}},
        "ledger": {"url": f"postgresql://user:{CANARY}@host/db"},
    }
    return Config.load(source, environ={})


def test_secrets_stay_out_of_every_form_of_a_config() -> None:
    config = secretive()
    for form in (
        repr(config),
        str(config),
        f"{config.providers}",
        str(config.ledger),
        config.model_dump_json(exclude={"providers": {"mock"}}),
    ):
        assert CANARY not in form
    assert {secret.get_secret_value() for secret in config.secrets()} == {CANARY, f"postgresql://user:{CANARY}@host/db"}


def test_secrets_stay_out_of_every_complaint() -> None:
    wrong: list[Any] = [
        {"providers": {"openai": {"api_key": CANARY, "timeout": CANARY, "priority": CANARY, "pool": CANARY}}},
        {"providers": {"openai": {"api_key": [CANARY, 5]}}},
        {"providers": {"openai": {"api_key": {CANARY: CANARY}, "base_url": CANARY, "organization": CANARY + "\n"}}},
        {"providers": {"openai": {"api_key": CANARY + " x"}}},
        {"providers": {"openai": CANARY}},
        {"providers": {"mock": {}}, "ledger": {"url": CANARY, "path": CANARY, "synchronous": CANARY}},
        {"providers": {"mock": {}}, "models": {"m": [CANARY, f"mock{CANARY}"]}, "retry": {"jitter": CANARY}},
        {"providers": {"mock": {}}, "prices": {"x": {"input": CANARY, "output": CANARY}}, "cache": CANARY},
    ]
    for source in wrong:
        with pytest.raises(Exception, match=r"config: |faults") as caught:
            Config.load(source, environ={})
        assert CANARY not in f"{caught.value!s} {caught.value!r} {caught.value.__cause__!r}"


def test_a_config_can_be_copied_and_pickled() -> None:
    config = secretive()
    assert copy.deepcopy(config) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_a_key_may_be_given_as_a_secret() -> None:
    provider = ProviderConfig.model_validate({"name": "openai", "api_key": SecretStr("k")})
    assert provider.api_keys == (SecretStr("k"),)


def test_the_schema_knows_what_a_file_may_say() -> None:
    described = schema()
    json.dumps(described)
    assert described["additionalProperties"] is False
    assert described["required"] == ["providers"]
    provider = described["$defs"]["ProviderConfig"]
    assert {"api_key", "api_keys", "base_url", "timeout", "pool"} <= set(provider["properties"])
    assert not {"name", "http_client", "transport"} & set(provider["properties"])
    assert provider["required"] == []
    for section in described["$defs"].values():
        assert section["additionalProperties"] is False
        assert section["description"]


def test_importing_it_reads_no_yaml_no_toml_and_no_structlog() -> None:
    code = "import sys, rubberduck.config; print(*{'yaml', 'tomllib', 'structlog'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=110)
    assert done.stdout.strip() == ""


def test_a_budget_is_an_exact_amount_in_each_period() -> None:
    written = {"*": {"limit": 0.1}, "acme": {"limit": "0.000001", "per": "hour"}, "": {"limit": 0, "per": "total"}}
    budgets = Config.load({"providers": {"mock": {}}, "budgets": written}, environ={}).budgets
    assert [(each.limit, each.per) for each in budgets.values()] == [
        (Decimal("0.1"), "day"),
        (Decimal("0.000001"), "hour"),
        (Decimal(0), "total"),
    ]


@pytest.mark.parametrize("wrong", [{"limit": -1}, {"limit": "much"}, {"limit": True}, {"limit": 1, "per": "week"}, {}])
def test_what_is_no_budget_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="budgets"):
        Config.load({"providers": {"mock": {}}, "budgets": {"acme": wrong}}, environ={})
