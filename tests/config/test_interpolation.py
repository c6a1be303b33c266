"""References are filled into single values, after parsing, and say what they lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.config import Config
from rubberduck.config.interpolation import Interpolation
from rubberduck.errors import ConfigError


def resolved(value: Any, directory: Path = Path(), **environ: str) -> Any:
    interpolation = Interpolation(environ, directory)
    result = interpolation.resolve(value)
    assert not interpolation.unresolved
    return result


def refusal(value: str, directory: Path = Path(), **environ: str) -> str:
    interpolation = Interpolation(environ, directory)
    assert interpolation.resolve({"k": value}) == {"k": value}
    (unresolved,) = interpolation.unresolved
    assert unresolved.path == ("k",)
    return unresolved.text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${A}", "one"),
        ("x${A}y${B}z", "xoneytwoz"),
        ("${A:-other}", "one"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("$A $ {A}", "$A $ {A}"),
        ("$$", "$$"),
    ],
)
def test_a_reference_becomes_its_value(text: str, value: str) -> None:
    assert resolved(text, A="one", B="two", EMPTY="") == value


def test_what_a_variable_holds_is_not_looked_at_again() -> None:
    assert resolved("${A}", A="${B}", B="secret") == "${B}"


def test_values_at_any_depth_are_filled_and_keys_are_not() -> None:
    assert resolved({"${A}": [{"x": "${A}"}, 5, None, True]}, A="1") == {"${A}": [{"x": "1"}, 5, None, True]}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("${NONE}", "environment variable NONE is not set"),
        ("${A", "has a ${ that is not closed"),
        ("${}", "has a reference that is none of"),
        ("${1A}", "has a reference that is none of"),
        ("${A-x}", "has a reference that is none of"),
        ("${a b}", "has a reference that is none of"),
        ("${A:-${B}}", "has a reference that is none of"),
        ("${file:}", "needs the path of a file"),
        ("${file:/nowhere/at/all}", "/nowhere/at/all not readable"),
        ("${file:a\0b}", "needs the path of a file"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused(text: str, told: str) -> None:
    assert told in refusal(text, A="one")


def test_a_file_gives_its_text_without_the_last_line_break(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("sk-1\nx\r\n")
    assert resolved(f"${{file:{tmp_path}/key}}") == "sk-1\nx"
    assert resolved("${file:key}", tmp_path) == "sk-1\nx"


def test_a_bare_file_name_is_first_sought_among_the_credentials(tmp_path: Path) -> None:
    (tmp_path / "creds").mkdir()
    (tmp_path / "creds" / "key").write_text("from systemd")
    (tmp_path / "key").write_text("beside the configuration")
    (tmp_path / "other").write_text("other")
    credentials = str(tmp_path / "creds")
    assert resolved("${file:key}", tmp_path, CREDENTIALS_DIRECTORY=credentials) == "from systemd"
    assert resolved("${file:other}", tmp_path, CREDENTIALS_DIRECTORY=credentials) == "other"


def test_a_file_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "latin").write_bytes(b"\xe9")
    assert refusal(f"${{file:{tmp_path}/big}}").endswith("big is larger than 64 KiB")
    assert refusal(f"${{file:{tmp_path}/latin}}").endswith("latin is not UTF-8")
    assert refusal(f"${{file:{tmp_path}}}").endswith("not readable")


@given(st.text(max_size=40))
def test_escaping_every_reference_gives_the_text_back(text: str) -> None:
    # "$" before an escape would be taken for part of it, as in every language of this kind.
    assert resolved(text.replace("$", " ").replace(" {", "$${"), X="") == text.replace("$", " ").replace(" {", "${")


NASTY = ["a: {b: c}", "x, y: z", "]", "\n  priority: 9", "*alias", "!!python/name:os.system", "# gone", "'\""]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("style", ["{}", '"{}"', "'{}'"])
def test_a_value_cannot_inject_structure(tmp_path: Path, value: str, style: str) -> None:
    file = tmp_path / "rubberduck.yaml"
    file.write_text(f"providers:\n  mock:\n    model_path: {style.format('${NASTY}')}\n")
    provider = Config.load(file, environ={"NASTY": value}).providers["mock"]
    assert provider.model_path == value
    assert provider.priority == 1


def test_a_filled_in_value_is_read_as_the_option_needs_it() -> None:
    source = {
        "providers": {"mock": {"priority": "${P}", "weight": "${W}", "timeout": "${T}"}},
        "retry": {"jitter": "${J}", "retry_budget": "${R}"},
        "prices": {"mock/x": {"input": "${PRICE}", "output": 1}},
    }
    config = Config.load(source, environ={"P": "2", "W": "0.5", "T": "1.5s", "J": "false", "R": "10%", "PRICE": "0.1"})
    provider = config.providers["mock"]
    assert (provider.priority, provider.weight, provider.timeout) == (2, 0.5, 1.5)
    assert (config.retry.jitter, config.retry.retry_budget) == (False, 0.1)
    assert str(config.prices["mock/x"].input) == "0.1"


def test_a_missing_variable_is_told_once_and_without_a_second_complaint() -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load({"providers": {"mock": {"timeout": "${T}"}}}, environ={})
    assert caught.value.problems == ("config: providers.mock.timeout: environment variable T is not set",)
