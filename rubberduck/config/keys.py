"""Finds the API keys of providers that were given none, and says which variable would supply a missing one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rubberduck.config.interpolation import Unresolved, references
from rubberduck.config.problems import Path

KEY_VARIABLES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
"""The variables that the vendors' own libraries read."""


def supply_keys(tree: dict[str, Any], written: Any, environ: Mapping[str, str], failed: set[Path]) -> list[Unresolved]:
    """Give built-in providers without a key the one of their usual variable; return those that stay without.

    A provider with a `base_url` of its own is left alone: it may need no key, and the vendor's key must not be
    sent to somebody else. `written` is the configuration before interpolation; keys that `failed` to be
    interpolated have been reported already.
    """
    return list(_missing(tree.get("providers"), written, environ, failed))


def _missing(providers: Any, written: Any, environ: Mapping[str, str], failed: set[Path]) -> Iterator[Unresolved]:
    for name, options in providers.items() if isinstance(providers, dict) else ():
        if options is None:
            options = providers[name] = {}
        if not isinstance(options, dict) or _has_key(options) or _failed(name, failed):
            continue
        module = options.get("module", name)
        usual = KEY_VARIABLES.get(module) if isinstance(module, str) else None
        if usual is None or options.get("base_url"):
            continue
        if value := environ.get(usual, "").strip():
            options.pop("api_keys", None)
            options["api_key"] = value
            continue
        asked = next(references(_written_key(written, name)), usual)
        yield Unresolved(("providers", name, "api_key"), f"needs a key; set environment variable {asked}", asked)


def _has_key(options: dict[str, Any]) -> bool:
    given = [options.get("api_key"), options.get("api_keys")]
    listed = [key for value in given for key in (value if isinstance(value, list) else [value])]
    # What is neither a string nor absent is for validation to refuse.
    return any(key.strip() if isinstance(key, str) else key is not None for key in listed)


def _failed(name: str, failed: set[Path]) -> bool:
    return any(path[:2] == ("providers", name) and path[2:3] in (("api_key",), ("api_keys",)) for path in failed)


def _written_key(written: Any, name: str) -> Any:
    options = written["providers"][name] if isinstance(written, dict) else None
    return options.get("api_key") if isinstance(options, dict) else None


def is_key(path: Path) -> bool:
    """Whether a path leads to the API key, or one of the keys, of a provider."""
    return len(path) >= 3 and path[0] == "providers" and path[2] in ("api_key", "api_keys")
