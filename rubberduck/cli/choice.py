"""Which provider a command uses where several could be meant: decided from what is there, and told.

a configuration file     wins
OPENAI_API_KEY           or ANTHROPIC_API_KEY; with both, OpenAI answers and Anthropic stands in for it
the local model          if it is installed
the mock                 only on request
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rubberduck.config import BUILT_IN_MODULES
from rubberduck.errors import ConfigError, MissingApiKey

KEYS = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
MODELS = {
    "openai": "gpt-4.1-mini",
    "anthropic": "claude-haiku-4-5",
    "local": "smollm2",
    "mock": "mock",
}
"""What each built-in provider is asked for where no model is named: cheap, and known for its price."""
ALIAS = "chat"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the user asked for, each None or False if not said."""

    provider: str | None = None
    model: str | None = None
    mock: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """A configuration to start with, the model to ask for (None: what the file says), and the reason in words."""

    source: Path | Mapping[str, Any]
    model: str | None
    why: str


def choose(wanted: Wanted, environ: Mapping[str, str], file: Path | None, *, has_local: bool) -> Choice:
    """The provider to use. `file` is the configuration that was found or named.

    Raises:
        MissingApiKey: the provider asked for has no key here.
        ConfigError: there is nobody to ask; says what to do.
    """
    if wanted.mock:
        return _single("mock", wanted, "--mock")
    if file is not None:
        return Choice(file, wanted.model, f"configuration {file}")
    if named := wanted.provider or _provider_in(wanted.model):
        return _named(named, wanted, environ)
    if keyed := [provider for provider, variable in KEYS.items() if environ.get(variable)]:
        return _keyed(keyed, wanted)
    if has_local:
        return _single("local", wanted, "the local model: no configuration and no API key here")
    raise ConfigError(nobody())


def nobody() -> str:
    """What to tell who has no provider at all."""
    from rubberduck.providers.local.model import INSTALL_LINE

    return (
        "there is no model to ask here: set OPENAI_API_KEY or ANTHROPIC_API_KEY, give a configuration with --config, "
        f"install the local model (132 MB: {INSTALL_LINE}), or try --mock"
    )


def _provider_in(model: str | None) -> str | None:
    """The provider in a route such as `local/smollm2`."""
    provider, slash, _ = (model or "").partition("/")
    return provider if slash and provider in BUILT_IN_MODULES else None


def _named(provider: str, wanted: Wanted, environ: Mapping[str, str]) -> Choice:
    if provider in BUILT_IN_MODULES and provider not in MODELS and wanted.model:
        return Choice({"providers": {provider: {"module": provider}}}, wanted.model, "as asked")
    if provider not in MODELS:
        known = ", ".join(MODELS)
        raise ConfigError(f"there is no provider {provider!r} without a configuration file; there are {known}")
    if (variable := KEYS.get(provider)) and not environ.get(variable):
        raise MissingApiKey(f"{provider} needs a key: the variable {variable} is not set", variable=variable)
    return _single(provider, wanted, "as asked")


def _single(provider: str, wanted: Wanted, why: str) -> Choice:
    return Choice({"providers": {provider: _options(provider, 1)}}, wanted.model or MODELS[provider], why)


def _keyed(providers: list[str], wanted: Wanted) -> Choice:
    source = {
        "providers": {name: _options(name, place) for place, name in enumerate(providers, 1)},
        "models": {ALIAS: [f"{name}/{MODELS[name]}" for name in providers]},
    }
    return Choice(source, wanted.model or ALIAS, " and ".join(KEYS[name] for name in providers))


def _options(provider: str, priority: int) -> dict[str, Any]:
    key = {"api_key": f"${{{KEYS[provider]}}}"} if provider in KEYS else {}
    return {"module": provider, "priority": priority} | key


def default_model(config: Any, provider: str | None = None) -> str:
    """The model to ask for where a configuration was given and no model named: its first alias, else its first model.

    Raises:
        ConfigError: the configuration names none.
    """
    if provider is None and config.models:
        return str(next(iter(config.models)))
    offered = [config.providers[provider]] if provider in config.providers else config.providers.values()
    for candidate in sorted(offered, key=lambda each: each.priority):
        if model := next(iter(candidate.models), None) or MODELS.get(candidate.module):
            return f"{candidate.name}/{model}"
    raise ConfigError("the configuration names no model to ask for: give one with --model")
