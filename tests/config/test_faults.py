"""Every mistake is told at once, each with its place, none with its value."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from rubberduck.config import Config
from rubberduck.errors import ConfigError, MissingApiKey


def problems(source: Any, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        Config.load(source, environ=environ)
    return caught.value.problems


def with_mock(**sections: Any) -> dict[str, Any]:
    return {"providers": {"mock": {}}, **sections}


NO_DURATION = 'is not a duration; write "30s", "500ms", "5m" or "1h" (a bare number is milliseconds)'
THERE_ARE = "(there are: primary, fallback, third)"

MANY_FAULTS_YAML = """\
providers:
  primary: {module: openai, api_key: "${NO_SUCH_KEY}"}
  fallback: {module: anthropic, api_key: "${file:/nowhere/anthropic}"}
  third:
    module: mock
    weigth: 2
    timeout: soon
models:
  smart:
    - third/x
    - forth/x
retry: {max_atempts: 3}
circuit_breaker:
  reset_timeout: -5s
rate_limits:
  primry: {capacity: 10, refill_rate: 1}
"""

MANY_FAULTS_TOML = """\
max_queue_size = 0

[providers.primary]
module = "openai"
api_key = "${NO_SUCH_KEY}"

[providers.third]
module = "mock"
responses = [
  "[not.a.table]",
]
weigth = 2
pool = { size = 0 }

[models]
smart = ["third/x",
         "forth/x"]
"""


def test_all_faults_of_a_yaml_file_come_at_once_with_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rubberduck.yaml").write_text(MANY_FAULTS_YAML)
    assert problems("rubberduck.yaml") == (
        "rubberduck.yaml:2: providers.primary.api_key: environment variable NO_SUCH_KEY is not set",
        "rubberduck.yaml:3: providers.fallback.api_key: /nowhere/anthropic not readable",
        "rubberduck.yaml:6: providers.third.weigth: unknown option; did you mean weight?",
        f"rubberduck.yaml:7: providers.third.timeout: {NO_DURATION}",
        f"rubberduck.yaml:11: models.smart[1]: names a provider that is not configured {THERE_ARE}",
        "rubberduck.yaml:12: retry.max_atempts: unknown option; did you mean max_attempts?",
        f"rubberduck.yaml:14: circuit_breaker.reset_timeout: {NO_DURATION}",
        f"rubberduck.yaml:16: rate_limits.primry: is not a configured provider {THERE_ARE}",
    )


def test_all_faults_of_a_toml_file_come_at_once_with_their_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rubberduck.toml").write_text(MANY_FAULTS_TOML)
    places = [" ".join(problem.split(": ")[:2]) for problem in problems("rubberduck.toml")]
    assert places == [
        "rubberduck.toml:1 max_queue_size",
        "rubberduck.toml:5 providers.primary.api_key",
        "rubberduck.toml:12 providers.third.weigth",
        "rubberduck.toml:13 providers.third.pool.size",
        "rubberduck.toml:16 models.smart[1]",
    ]


def test_faults_of_a_dict_name_the_key() -> None:
    assert problems({"providers": {"x": {"module": "mock", "weight": 0}}}) == (
        "config: providers.x.weight: must be a number above 0, at most 1e+06",
    )


def test_one_fault_is_the_message_and_several_are_a_list() -> None:
    with pytest.raises(ConfigError) as one:
        Config.load(with_mock(max_queue_size=0), environ={})
    assert str(one.value) == "config: max_queue_size: must be a whole number from 1 to 10000000"
    with pytest.raises(ConfigError) as two:
        Config.load(with_mock(max_queue_size=0, retri={}), environ={})
    assert str(two.value).startswith("the configuration has 2 faults:\n  config: max_queue_size: ")


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"retri": {}}, "retri: unknown option; did you mean retry?"),
        ({"providers": {"timeout": {"module": "mock", "poool": {}}}}, "did you mean pool?"),
        (
            {"providers": {"pool": {"module": "mock", "pool": {"siz": 1}}}},
            "pool.pool.siz: unknown option; did you mean size?",
        ),
        ({"providers": {"mock": {"api_kye": "x"}}}, "did you mean api_key?"),
        ({"providers": {"mock": {"http_clinet": 1}}}, "unknown option; known here: answer_limits, api_key"),
        ({"cache": {"tll": 1}}, "cache.tll: unknown option; did you mean ttl?"),
        ({"prices": {"mock/x": {"inptu": 1, "output": 1}}}, "prices.mock/x.inptu: unknown option; did you mean input?"),
        ({"queue": {"weights": {"hgih": 1}}}, "queue.weights.hgih: unknown option; did you mean high?"),
        ({"zzzzz": 1}, "zzzzz: unknown option; known here: budgets, cache"),
        ({"providers": {"mock": {"name": "other"}}}, "providers.mock.name: is not an option"),
    ],
)
def test_unknown_options_are_refused_with_the_nearest_known(sections: dict[str, Any], told: str) -> None:
    assert any(told in problem for problem in problems({**with_mock(), **sections}))


BAD_NUMBERS = [0, -1, float("nan"), float("inf"), float("-inf"), True, "much", None, [1], 10**400]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=repr)
@pytest.mark.parametrize(
    ("section", "option"),
    [
        ("circuit_breaker", "reset_timeout"),
        ("circuit_breaker", "success_threshold"),
        ("circuit_breaker", "half_open_max_probes"),
        ("circuit_breaker", "open_multiplier"),
        ("retry", "max_attempts"),
        ("retry", "base_delay"),
        ("supervision", "max_seconds"),
        ("cache", "ttl"),
        ("cache", "max_entries"),
    ],
)
def test_values_out_of_range_are_refused_with_the_range(section: str, option: str, value: Any) -> None:
    (problem,) = problems(with_mock(**{section: {option: value}}))
    assert problem.startswith(f"config: {section}.{option}: ")
    assert re.search(r"must be .*( to |at most )|is not a duration", problem)


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "much"], ids=repr)
@pytest.mark.parametrize(
    "option", ["capacity", "refill_rate", "requests_per_min", "input_tokens_per_min", "max_concurrency"]
)
def test_limits_out_of_range_are_refused(option: str, value: Any) -> None:
    limits = {"capacity": 1, "refill_rate": 1, option: value}
    (problem,) = problems(with_mock(rate_limits={"mock": limits}))
    assert problem.startswith(f"config: rate_limits.mock.{option}: must be ")


def test_keys_under_both_names_hide_no_other_fault() -> None:
    """The whole provider was refused at once, and its other faults were told one run later."""
    provider = {"module": "mock", "api_key": "a", "api_keys": ["b"], "priorty": 1}
    told = " ".join(problems({"providers": {"mine": provider}}))
    assert "providers.mine.api_key: give api_key or api_keys, not both" in told
    assert "did you mean priority?" in told


@pytest.mark.parametrize("value", ["yes", "no", "on", "True", 1, 0, "", None])
def test_only_true_and_false_are_booleans(value: Any) -> None:
    assert problems(with_mock(retry={"jitter": value})) == ("config: retry.jitter: must be true or false",)


@pytest.mark.parametrize(
    ("sections", "told"),
    [
        ({"rate_limits": {"mock": {"capacity": 5}}}, "rate_limits.mock: capacity and refill_rate describe one bucket"),
        ({"retry": {"base_delay": "5s", "max_delay": "1s"}}, "retry: max_delay must not be shorter than base_delay"),
        ({"circuit_breaker": {"open_max": "5s"}}, "circuit_breaker: open_max must not be shorter"),
        ({"circuit_breaker": {"window_size": 5}}, "circuit_breaker.window_size: says nothing without `window`"),
        ({"ledger": {"path": "a", "url": "b"}}, "ledger: give path or url, not both"),
        ({"providers": {}}, "providers: name at least one provider"),
        ({"providers": {"mock": 5}}, "providers.mock: must be a mapping of options"),
        ({"providers": []}, "providers: must be a mapping of options"),
        ({"providers": {"a/b": {"module": "mock"}}}, "providers.a/b: a provider's name has"),
        ({"providers": {"mine": {}}}, "providers.mine: needs `module`"),
        ({"models": {"smart": []}}, "models.smart: "),
        ({"models": {"smart": "mock"}}, "models.smart: is not a route; write provider/model"),
        ({"models": {"smart": ["mock/"]}}, "models.smart[0]: is not a route"),
        ({"models": {"smart": ["/x", "mock/x"]}}, "models.smart[0]: is not a route"),
        ({"models": {"smart": [5]}}, "models.smart[0]: must be a string"),
        ({"prices": {"x": {"output": 1}}}, "prices.x.input: is needed"),
        ({"prices": {"x": {"input": -1, "output": 1}}}, "prices.x.input: must be a number from 0"),
        ({"ledger": {"synchronous": "off"}}, "ledger.synchronous: must be 'full' or 'normal'"),
        (
            {"providers": {"mock": {"organization": 5}}},
            "providers.mock.organization: must be a string; put it in quotes",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(sections: dict[str, Any], told: str) -> None:
    found = problems({**with_mock(), **sections})
    assert any(f"config: {told}" in problem for problem in found), found


def test_providers_are_needed() -> None:
    assert problems({}) == ("config: providers: is needed; the simplest is {mock: {module: mock}}",)


@pytest.mark.parametrize("source", [5, ["providers"], b"rubberduck.yaml"])
def test_a_source_of_another_kind_is_refused(source: Any) -> None:
    assert "give a dict, a Config, or the path" in problems(source)[0]


def test_keys_that_are_not_strings_are_refused() -> None:
    assert problems({"providers": {"mock": {}}, 5: 1}) == ("config: has a key that is not a string but int",)


def test_a_dict_that_contains_itself_is_refused() -> None:
    loop: dict[str, Any] = {"module": "mock"}
    loop["options"] = loop
    assert any("nested more than" in problem for problem in problems({"providers": {"mock": loop}}))


def test_loading_leaves_the_given_dict_alone() -> None:
    source = {"providers": {"openai": {"api_key": "${K}", "models": ["a"]}, "mock": None}}
    Config.load(source, environ={"K": "v", "RUBBERDUCK__PROVIDERS__OPENAI__PRIORITY": "5"})
    assert source == {"providers": {"openai": {"api_key": "${K}", "models": ["a"]}, "mock": None}}


# --- files that cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("missing.yaml", None, "there is no such file"),
        ("empty.yaml", b"", "is empty"),
        ("comment.yaml", b"# nothing\n", "is empty"),
        ("empty.toml", b"", "is empty"),
        ("list.yaml", b"- a\n", ":1: is not a mapping of options"),
        ("word.yaml", b"hello\n", ":1: is not a mapping of options"),
        ("latin.yaml", b"providers:\n  mock: {model_path: \xe9}\n", ":2: is not UTF-8"),
        ("nul.yaml", b"a: \x00\n", "control character"),
        ("open.yaml", b"providers: {\n", ":2: is not YAML"),
        ("tab.yaml", b"providers:\n\tmock: {}\n", ":2: is not YAML: tabs cannot indent"),
        ("two.yaml", b"a: 1\n---\nb: 2\n", "more than one document"),
        ("bad.toml", b"[providers\n", ":1: is not TOML"),
        ("bad2.toml", b"a = 1\nb = \n", ":2: is not TOML"),
        ("twice.toml", b"a = 1\na = 2\n", "is not TOML"),
        ("duck.json", b"{}", "is neither .yaml nor .toml but .json"),
        ("duck", b"{}", "is neither .yaml nor .toml"),
        ("big.yaml", b"#" * 300_000, "is larger than 256 KiB"),
        ("deep.yaml", b"a: " + b"[" * 5000, "nested more than"),
        ("deep.toml", b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_cannot_be_used_says_why_and_where(
    tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    (problem,) = problems(file)
    assert problem.startswith(str(file))
    assert told in problem


def test_a_directory_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").mkdir()
    assert "is a directory" in problems(tmp_path / "d.yaml")[0]


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "is not a regular file" in problems(tmp_path / "pipe.yaml")[0]


def test_a_file_of_somebody_else_says_that_it_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rubberduck.yaml"
    file.write_text("a: 1")
    file.chmod(0)
    if os.geteuid() == 0:  # who may read every file is told no by the system all the same
        monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read by this user" in problems(file)[0]


def refuse(path: object, *_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    file = tmp_path / "rubberduck.yaml"
    file.write_bytes(b"\xef\xbb\xbfproviders: {mock: {}}\n")
    assert list(Config.load(file, environ={}).providers) == ["mock"]


# --- keys ---------------------------------------------------------------------------------------------------------


def test_only_missing_keys_make_it_a_missing_api_key() -> None:
    keyless = {"providers": {"a": {"module": "openai", "api_key": "${A_KEY}"}, "anthropic": {}}}
    with pytest.raises(MissingApiKey) as caught:
        Config.load(keyless, environ={})
    assert caught.value.variable == "A_KEY"
    assert len(caught.value.problems) == 2
    with pytest.raises(ConfigError) as mixed:
        Config.load({**keyless, "max_queue_size": 0}, environ={})
    assert not isinstance(mixed.value, MissingApiKey)


def test_a_variable_that_is_set_to_nothing_is_a_missing_key() -> None:
    with pytest.raises(MissingApiKey) as caught:
        Config.load({"providers": {"openai": {"api_key": "${MY_KEY}"}}}, environ={"MY_KEY": ""})
    assert caught.value.variable == "MY_KEY"


def test_a_built_in_without_key_takes_its_usual_variable() -> None:
    config = Config.load({"providers": {"main": {"module": "openai"}}}, environ={"OPENAI_API_KEY": " sk-1\n"})
    assert config.providers["main"].api_keys[0].get_secret_value() == "sk-1"


def test_a_vendors_key_is_not_sent_to_an_address_of_somebody_else() -> None:
    source = {"providers": {"vllm": {"module": "openai", "base_url": "http://localhost:8000/v1"}}}
    assert Config.load(source, environ={"OPENAI_API_KEY": "sk-1"}).providers["vllm"].api_keys == ()


def test_several_keys_keep_their_order_and_lose_their_doubles() -> None:
    source = {"providers": {"openai": {"api_keys": ["${A}", "two", "${A}"]}}}
    keys = Config.load(source, environ={"A": "one"}).providers["openai"].api_keys
    assert [key.get_secret_value() for key in keys] == ["one", "two"]


@pytest.mark.parametrize("key", ["with space", "line\nbroken", "schlüssel", 12345, {"a": 1}, ["ok", 5]])
def test_a_key_that_could_not_be_sent_is_refused_unseen(key: Any) -> None:
    (problem,) = problems({"providers": {"openai": {"api_key": key}}})
    assert problem.startswith("config: providers.openai.api_key: a key ")
    for value in ("with space", "broken", "schl", "12345"):
        assert value not in problem
