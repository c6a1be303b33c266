"""Single keys can be set from the environment, in every kind of configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rubberduck.config import Config
from rubberduck.errors import ConfigError

MOCK: dict[str, Any] = {"providers": {"My-Mock.1": {"module": "mock", "weight": 2}}}


def test_a_key_is_set_whether_or_not_its_section_was_written() -> None:
    config = Config.load(
        MOCK,
        environ={
            "RUBBERDUCK__MAX_QUEUE_SIZE": "7",
            "RUBBERDUCK__RETRY__MAX_ATTEMPTS": "5",
            "RUBBERDUCK__CACHE__TTL": "1m",
            "RUBBERDUCK__DEBUG_LLM_REQUESTS": "true",
            "RUBBERDUCK_CONFIG": "elsewhere",
            "RUBBERDUCK_": "nothing",
        },
    )
    assert (config.max_queue_size, config.retry.max_attempts, config.debug_llm_requests) == (7, 5, True)
    assert config.cache is not None
    assert config.cache.ttl == 60.0


def test_names_that_no_variable_can_spell_are_met_half_way() -> None:
    config = Config.load(MOCK, environ={"RUBBERDUCK__PROVIDERS__MY_MOCK_1__WEIGHT": "3"})
    assert config.providers["My-Mock.1"].weight == 3.0
    assert list(config.providers) == ["My-Mock.1"]


def test_it_goes_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rubberduck.yaml"
    file.write_text("providers: {mock: {priority: 1}}\nmax_queue_size: ${NOT_SET}\n")
    environ = {"RUBBERDUCK__PROVIDERS__MOCK__PRIORITY": "4", "RUBBERDUCK__MAX_QUEUE_SIZE": "8"}
    config = Config.load(file, environ=environ)
    assert (config.providers["mock"].priority, config.max_queue_size) == (4, 8)


def test_its_value_is_taken_literally() -> None:
    environ = {"RUBBERDUCK__PROVIDERS__MY_MOCK_1__MODEL_PATH": "${HOME}", "HOME": "/root"}
    assert Config.load(MOCK, environ=environ).providers["My-Mock.1"].model_path == "${HOME}"


def test_a_key_given_so_is_a_key() -> None:
    environ = {"RUBBERDUCK__PROVIDERS__OPENAI__API_KEY": "sk-1"}
    config = Config.load({"providers": {"openai": {"api_key": "${NOT_SET}"}}}, environ=environ)
    assert config.providers["openai"].api_keys[0].get_secret_value() == "sk-1"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("RUBBERDUCK__MAX_QUEUE_SIZE", "no", "max_queue_size: must be a whole number"),
        ("RUBBERDUCK__RETRI__X", "1", "retri: unknown option; did you mean retry?"),
        ("RUBBERDUCK__RETRY", "1", "retry: must be a mapping of options"),
        ("RUBBERDUCK__PROVIDERS", "1", "providers: is a section; set its keys one by one"),
        ("RUBBERDUCK__PROVIDERS__MY_MOCK_1__WEIGHT__X", "1", "weight: holds no keys that could be set"),
        ("RUBBERDUCK__", "1", "names no key"),
        ("RUBBERDUCK__RETRY____X", "1", "names no key"),
    ],
)
def test_a_wrong_one_is_told_by_the_variables_name(variable: str, value: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(MOCK, environ={variable: value})
    (problem,) = caught.value.problems
    assert problem.startswith(f"environment variable {variable}: ")
    assert told in problem
