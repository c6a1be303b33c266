"""Single keys set from the environment: `RUBBERDUCK__RETRY__MAX_ATTEMPTS=5`.

Names are compared without regard to case, and with `_` for `-` and `.`, since shells allow no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rubberduck.config.problems import Path

PREFIX = "RUBBERDUCK__"


@dataclass(frozen=True, slots=True)
class Override:
    """One key set from outside: the variable's name, the value it sets, and where what it had to add begins."""

    variable: str
    path: Path
    added: Path
    fault: str | None = None


def apply_overrides(tree: dict[str, Any], environ: Mapping[str, str]) -> list[Override]:
    """Set in `tree` what the environment sets. A variable that names no place is returned with its fault."""
    return [_apply(tree, name, environ[name]) for name in sorted(environ) if name.upper().startswith(PREFIX)]


def _apply(tree: dict[str, Any], variable: str, value: str) -> Override:
    steps = variable[len(PREFIX) :].lower().split("__")
    if not all(steps):
        return Override(variable, (), (), f"names no key; write {PREFIX}SECTION__KEY")
    path: tuple[str, ...] = ()
    added: Path = ()
    at = tree
    for step in steps[:-1]:
        path = (*path, _key_in(at, step))
        if at.get(path[-1]) is None:
            at[path[-1]] = {}
            added = added or path
        at = at[path[-1]]
        if not isinstance(at, dict):
            return Override(variable, path, path, "holds no keys that could be set")
    path = (*path, _key_in(at, steps[-1]))
    if isinstance(at.get(path[-1]), dict):
        return Override(variable, path, path, "is a section; set its keys one by one")
    at[path[-1]] = value
    return Override(variable, path, added or path)


def _key_in(mapping: Mapping[str, Any], step: str) -> str:
    same = [key for key in mapping if key.lower().replace("-", "_").replace(".", "_") == step]
    return same[0] if same else step
