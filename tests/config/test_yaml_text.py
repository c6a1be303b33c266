"""YAML is read as plain values: no surprises of YAML 1.1, no tags, no bombs."""

from __future__ import annotations

import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.config.yaml_text import parse_yaml
from rubberduck.errors import ConfigError


def value_of(text: str) -> Any:
    return parse_yaml(f"x: {text}\n", "f.yaml").tree["x"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("false", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("True", "True"),
        ("~", None),
        ("null", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2023-06-01", "2023-06-01"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.e-2", 0.01),
        ("-.inf", -math.inf),
        ("60s", "60s"),
        ('"12"', "12"),
        ("'true'", "true"),
        ("=", "="),
    ],
)
def test_a_plain_scalar_is_what_it_looks_like(text: str, value: Any) -> None:
    read = value_of(text)
    assert read == value
    assert type(read) is type(value)


def test_nan_is_read_so_that_validation_can_refuse_it() -> None:
    assert math.isnan(value_of(".nan"))


def test_a_key_given_twice_is_told_with_both_lines() -> None:
    parsed = parse_yaml("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "f.yaml")
    assert parsed.faults == (
        (("b", "c"), 4, "is given twice; first in line 3"),
        (("a",), 5, "is given twice; first in line 1"),
    )


def test_numbers_and_booleans_are_words_where_they_are_keys() -> None:
    assert parse_yaml("models: {1: a, true: b}\n", "f.yaml").tree == {"models": {"1": "a", "true": "b"}}


@pytest.mark.parametrize("text", ["? [a, b]\n: 1\n", "~: 1\n"])
def test_a_key_that_is_no_word_is_a_fault(text: str) -> None:
    assert "has a key that is not a plain word" in parse_yaml(text, "f.yaml").faults[0][2]


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!binary aGk=",
        "!mine x",
        "!!int yes",
        "!!set {a: }",
        "!!timestamp x",
    ],
)
def test_tags_are_refused_and_never_run(text: str) -> None:
    assert parse_yaml(f"x: {text}\n", "f.yaml").faults


def test_aliases_and_merges_share_what_was_written_once() -> None:
    text = "a: &base {x: 1, y: 2}\nb:\n  <<: *base\n  y: 3\nc: *base\nd: {<<: [{y: 9}, *base]}\n"
    tree = parse_yaml(text, "f.yaml").tree
    assert tree["b"] == {"x": 1, "y": 3}
    assert tree["c"] == {"x": 1, "y": 2}
    assert tree["d"] == {"x": 1, "y": 9}


def test_a_merge_of_something_else_is_a_fault() -> None:
    assert parse_yaml("a: {<<: 5}\n", "f.yaml").faults == ((("a",), 1, "<< merges mappings only"),)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merging_bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [bomb(9), merging_bomb(9), "a: &x " + "y" * 100_000 + "\nb: [" + "*x, " * 100 + "]"],
    ids=["lists", "merges", "one long text"],
)
def test_a_small_file_cannot_grow_into_a_large_configuration(text: str) -> None:
    with pytest.raises(ConfigError, match="is too large with its aliases"):
        parse_yaml(text, "f.yaml")


def test_an_alias_within_its_own_anchor_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"f\.yaml:1: contains itself"):
        parse_yaml("a: &a [*a]\n", "f.yaml")


@pytest.mark.parametrize(
    "secret", ["*sk-secret-1234", "!sk-secret-1234", "@sk-secret-1234", "%sk-secret-1234", "`sk-secret-1234"]
)
def test_a_complaint_never_quotes_what_was_written(secret: str) -> None:
    for text in (f"api_key: {secret}\n", f"{secret}\n", f"a: {{b: {secret}", f'a: "\\z{secret}'):
        try:
            faults: Any = parse_yaml(text, "f.yaml").faults
        except ConfigError as error:
            faults = str(error)
        assert "secret" not in str(faults)
        assert faults or text.startswith("%")


# PyYAML writes the text "1e3" without quotes, because it would not read it as a number; digits are left out for that.
words = st.text(st.characters(codec="utf-8", exclude_categories=["Nd", "Cs"]), max_size=12)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(words, plain, min_size=1, max_size=4))
def test_what_yaml_writes_is_read_back(tree: dict[str, Any]) -> None:
    parsed = parse_yaml(yaml.safe_dump(tree), "f.yaml")
    assert parsed.faults == ()
    assert parsed.tree == tree


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`?,<~ \n\t\\01.\x00é", max_size=60))
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    try:
        parse_yaml(text, "f.yaml")
    except ConfigError as error:
        assert str(error).startswith("f.yaml")  # noqa: PT017 - most texts raise nothing, and may


def test_each_value_knows_its_line() -> None:
    text = "a:\n  b: 1\n  c:\n    - x\n    - y: 2\nd: {e: 1,\n  f: 2}\n"
    lines = parse_yaml(text, "f.yaml").lines
    assert lines[("a",)] == 1
    assert lines[("a", "b")] == 2
    assert lines[("a", "c", 1)] == 5
    assert lines[("a", "c", 1, "y")] == 5
    assert lines[("d", "f")] == 7
