"""Finding a provider's class by what the configuration calls it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from rubberduck import providers
from rubberduck.config import BUILT_IN_MODULES
from rubberduck.errors import ConfigError
from rubberduck.providers.base import Provider
from rubberduck.providers.mock import Mock


class Custom(Mock):
    """Somebody else's provider."""


@pytest.mark.parametrize(("word", "name"), [("openai", "OpenAI"), ("anthropic", "Anthropic"), ("mock", "Mock")])
def test_built_in_words_are_known(word: str, name: str) -> None:
    found = providers.resolve(word)
    assert found.__name__ == name
    assert issubclass(found, Provider)


def test_a_class_stands_for_itself() -> None:
    assert providers.resolve(Custom) is Custom


def test_a_path_leads_to_a_class() -> None:
    assert providers.resolve("rubberduck.providers.mock:Mock") is Mock


def test_an_installed_entry_point_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(*, group: str) -> list[EntryPoint]:
        return [EntryPoint("quack", "rubberduck.providers.mock:Mock", group)]

    monkeypatch.setattr(providers, "entry_points", installed)
    assert providers.resolve("quack") is Mock
    with pytest.raises(ConfigError, match="did you mean 'quack'"):
        providers.resolve("quak")


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("opnai", "did you mean 'openai'"),
        ("Anthropic", "did you mean 'anthropic'"),
        ("zzz", "known: anthropic, azure, deepseek"),
        ("no.such.module:Thing", "cannot be loaded"),
        ("rubberduck.providers.mock:Nothing", "cannot be loaded"),
        ("json:dumps", "no provider"),
        (dict, "no provider"),
        (":", "cannot be loaded"),
        ("", "known"),
    ],
)
def test_what_is_no_provider_is_refused_with_a_hint(module: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        providers.resolve(module)


def test_only_the_module_asked_for_is_imported() -> None:
    code = """if True:
        import sys
        from rubberduck.providers import resolve
        assert not any(name.startswith("rubberduck.providers.") for name in sys.modules)
        resolve("anthropic")
        assert "rubberduck.providers.anthropic.provider" in sys.modules
        assert "rubberduck.providers.openai.provider" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=110)


@pytest.mark.parametrize("word", BUILT_IN_MODULES)
def test_each_word_that_a_configuration_knows_is_a_providers(word: str) -> None:
    assert issubclass(providers.resolve(word), Provider)
