"""The lines of TOML keys are found by scanning, whatever surrounds them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.config.toml_text import parse_toml
from rubberduck.errors import ConfigError

TEXT = '''\
top = 1
[providers."my.name"]
module = "mock"  # [not.a.table]
script = """
[neither.this]
module = "no"
"""
literal = \'\'\'
top = 2 \'\'\'
list = [
  "a]", # ]
  [1, 2],
  "[providers.x]",
]
'quoted key' = "x = 1"
a . b.c = 3
[[jobs]]
name = "one"
[[jobs]]
name = "two"
[ after ]
last = {x = 1}
'''


def test_each_key_knows_its_line() -> None:
    parsed = parse_toml(TEXT, "f.toml")
    provider = ("providers", "my.name")
    assert dict(parsed.lines) == {
        ("top",): 1,
        provider: 2,
        (*provider, "module"): 3,
        (*provider, "script"): 4,
        (*provider, "literal"): 8,
        (*provider, "list"): 10,
        (*provider, "quoted key"): 15,
        (*provider, "a", "b", "c"): 16,
        ("jobs",): 19,
        ("jobs", 0): 17,
        ("jobs", 0, "name"): 18,
        ("jobs", 1): 19,
        ("jobs", 1, "name"): 20,
        ("after",): 21,
        ("after", "last"): 22,
    }


def test_the_scan_and_the_parser_agree_on_what_there_is() -> None:
    parsed = parse_toml(TEXT, "f.toml")
    for path in parsed.lines:
        value = parsed.tree
        for step in path:
            value = value[step]


@pytest.mark.parametrize(("text", "line"), [("a = \n", 1), ("a = 1\n\nb = [1,\n", 4), ("[x\n", 1), ("a=1\na=2\n", 2)])
def test_what_is_not_toml_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"^f\.toml:{line}: is not TOML: "):
        parse_toml(text, "f.toml")


@given(st.text(alphabet="ab=[]{}.'\"# \n\\1,é", max_size=60))
def test_any_text_is_read_or_refused_with_a_config_error(text: str) -> None:
    try:
        parse_toml(text, "f.toml")
    except ConfigError as error:
        assert str(error).startswith("f.toml")  # noqa: PT017 - most texts raise nothing, and may
