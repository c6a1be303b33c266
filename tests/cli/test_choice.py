"""Who answers, where several could."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rubberduck.cli.choice import KEYS, MODELS, Choice, Wanted, choose, default_model
from rubberduck.config import Config
from rubberduck.errors import ConfigError, MissingApiKey

OPENAI = {"OPENAI_API_KEY": "sk-1"}
ANTHROPIC = {"ANTHROPIC_API_KEY": "sk-2"}


def chosen(environ: dict[str, str], file: Path | None = None, *, has_local: bool = True, **wanted: Any) -> Choice:
    return choose(Wanted(**wanted), environ, file, has_local=has_local)


def providers(choice: Choice) -> list[str]:
    assert not isinstance(choice.source, Path)
    return list(choice.source["providers"])


@pytest.mark.parametrize(
    ("environ", "asked"),
    [
        (OPENAI, ["openai"]),
        (ANTHROPIC, ["anthropic"]),
        (ANTHROPIC | OPENAI, ["openai", "anthropic"]),
        ({}, ["local"]),
        ({"OPENAI_API_KEY": ""}, ["local"]),
    ],
)
def test_keys_decide_and_the_local_model_is_the_last_resort(environ: dict[str, str], asked: list[str]) -> None:
    assert providers(chosen(environ)) == asked


def test_configuration_file_wins_over_everything_but_the_mock(tmp_path: Path) -> None:
    file = tmp_path / "rubberduck.yaml"
    assert chosen(OPENAI, file).source == file
    assert providers(chosen(OPENAI, file, mock=True)) == ["mock"]


def test_mock_is_never_chosen_by_itself() -> None:
    with pytest.raises(ConfigError, match=r"OPENAI_API_KEY.*--config.*pip install.*--mock"):
        chosen({}, has_local=False)


@pytest.mark.parametrize("provider", list(MODELS))
def test_named_provider_is_asked_alone(provider: str) -> None:
    choice = chosen(OPENAI | ANTHROPIC, provider=provider)
    assert (providers(choice), choice.model) == ([provider], MODELS[provider])


def test_route_names_its_provider() -> None:
    choice = chosen(OPENAI, model="local/smollm2")
    assert (providers(choice), choice.model) == (["local"], "local/smollm2")


def test_route_may_name_any_built_in_provider() -> None:
    choice = chosen({}, model="groq/some-model")
    assert (providers(choice), choice.model) == (["groq"], "groq/some-model")
    with pytest.raises(ConfigError, match="groq"):
        chosen({}, provider="groq")  # and which model?


@pytest.mark.parametrize("provider", list(KEYS))
def test_named_provider_without_a_key_names_the_variable(provider: str) -> None:
    with pytest.raises(MissingApiKey) as missing:
        chosen({}, provider=provider)
    assert missing.value.variable == KEYS[provider]


def test_unknown_provider_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="openai, anthropic, local"):
        chosen({}, provider="skynet")


@pytest.mark.parametrize("environ", [OPENAI, ANTHROPIC, OPENAI | ANTHROPIC])
def test_what_is_chosen_is_a_valid_configuration(environ: dict[str, str]) -> None:
    choice = chosen(environ)
    assert not isinstance(choice.source, Path)
    config = Config.load(choice.source, environ=environ)
    assert choice.model in config.models
    assert all(provider.api_keys for provider in config.providers.values())


@pytest.mark.parametrize(
    ("source", "provider", "model"),
    [
        ({"providers": {"mock": {}}, "models": {"smart": ["mock/a"]}}, None, "smart"),
        ({"providers": {"mock": {}}, "models": {"smart": ["mock/a"]}}, "mock", "mock/mock"),
        (
            {"providers": {"a": {"module": "mock", "priority": 2}, "b": {"module": "mock", "models": ["m"]}}},
            None,
            "b/m",
        ),
        ({"providers": {"a": {"module": "mock"}, "b": {"module": "mock"}}}, "b", "b/mock"),
    ],
)
def test_model_that_was_not_named_comes_from_the_configuration(
    source: dict[str, Any], provider: str | None, model: str
) -> None:
    assert default_model(Config.load(source, environ={}), provider) == model


def test_configuration_without_any_model_asks_for_one() -> None:
    config = Config.load({"providers": {"x": {"module": "some.plugin"}}}, environ={})
    with pytest.raises(ConfigError, match="--model"):
        default_model(config)
