"""From a source to a checked Config: read, override, interpolate, validate; then tell all faults at once."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from rubberduck.config.interpolation import Interpolation, Unresolved
from rubberduck.config.keys import is_key, supply_keys
from rubberduck.config.overrides import Override, apply_overrides
from rubberduck.config.parsed import Parsed
from rubberduck.config.problems import Path, Problem, error_for
from rubberduck.config.provider import NOT_WRITTEN
from rubberduck.config.root import Config, Source, disagreements
from rubberduck.config.sources import Origin, read_file, read_mapping

UNCONFIGURED: Mapping[str, Any] = {"providers": {"mock": {"module": "mock"}}}
"""What runs when nothing is configured: no key, no network, no bill."""


def load(source: Source, environ: Mapping[str, str] | None = None) -> Config:
    """Read a configuration; see `Config.load`."""
    parsed, origin = _read(UNCONFIGURED if source is None else source)
    return _Loading(parsed, origin, os.environ if environ is None else environ).config()


def _read(source: Mapping[str, Any] | str | FilePath) -> tuple[Parsed, Origin]:
    if isinstance(source, Mapping):
        return read_mapping(source)
    if isinstance(source, str | FilePath):
        return read_file(source)
    text = f"is a {type(source).__name__}; give a dict, a Config, or the path of a YAML or TOML file"
    raise error_for([Problem("config", (), text)])


class _Loading:
    """One configuration on its way, and the faults found so far."""

    def __init__(self, parsed: Parsed, origin: Origin, environ: Mapping[str, str]) -> None:
        self._parsed = parsed
        self._origin = origin
        self._environ = environ
        self._overridden: dict[Path, str] = {}
        self._problems: list[Problem] = []
        self._failed: set[Path] = set()

    def config(self) -> Config:
        for path, line, text in self._parsed.faults:
            where = f"{self._origin.name}:{line}" if line else self._origin.where(path)
            self._problems.append(Problem(where, path, text))
        if not isinstance(self._parsed.tree, dict):
            raise error_for([*self._problems, Problem(self._origin.where(()), (), "is not a mapping of options")])
        config = self._validated(self._resolved(self._parsed.tree))
        if self._problems or config is None:
            raise error_for(sorted(self._problems, key=lambda problem: self._origin.line(problem.path)))
        return config

    def _resolved(self, written: dict[str, Any]) -> dict[str, Any]:
        # An override is taken as it is: what the environment holds is a value, not a template.
        interpolation = Interpolation(self._environ, self._origin.directory)
        tree: dict[str, Any] = interpolation.resolve(copy.copy(written))
        for override in apply_overrides(tree, self._environ):
            self._note_override(override)
        for unresolved in interpolation.unresolved:
            if unresolved.path not in self._overridden:
                self._note(unresolved)
        for unresolved in supply_keys(tree, written, self._environ, self._failed):
            self._note(unresolved)
        return tree

    def _note(self, unresolved: Unresolved) -> None:
        self._failed.add(unresolved.path)
        missing = unresolved.variable if is_key(unresolved.path) else None
        where = self._where(unresolved.path)
        self._problems.append(Problem(where, unresolved.path, unresolved.text, missing_key=missing))

    def _note_override(self, override: Override) -> None:
        for path in (override.added, override.path):
            self._overridden[path] = f"environment variable {override.variable}"
        if override.fault:
            where = f"environment variable {override.variable}"
            self._problems.append(Problem(where, override.path, override.fault))

    def _where(self, path: Path) -> str:
        prefixes = (path[:length] for length in range(len(path), 0, -1))
        return next((self._overridden[p] for p in prefixes if p in self._overridden), self._origin.where(path))

    def _validated(self, tree: dict[str, Any]) -> Config | None:
        config, found = None, {}
        try:
            config = Config.model_validate(tree)
        except ValidationError as error:
            found = dict(_faults(error, tree))
        for path, text in disagreements(tree):
            found.setdefault(path, text)
        self._problems += [Problem(self._where(path), path, text) for path, text in found.items() if self._is_new(path)]
        return config

    def _is_new(self, path: Path) -> bool:
        """A value that could not be resolved has been told of; what validation thinks of it adds nothing."""
        return not any(path[: len(failed)] == failed for failed in self._failed)


def _faults(error: ValidationError, tree: dict[str, Any]) -> Iterator[tuple[Path, str]]:
    for fault in error.errors(include_url=False, include_input=False):
        path = _as_written(fault["loc"], tree)
        # Of the whole only the agreement of names is checked, which the caller does with better places.
        if path:
            yield path, _told(fault, path)


def _as_written(loc: tuple[str | int, ...], tree: Any) -> Path:
    """The path under which the user wrote what validation complains of."""
    path: list[str | int] = []
    for step in loc:
        if step == "api_keys" and isinstance(tree, dict) and "api_key" in tree:
            step = "api_key"
        if isinstance(tree, dict) and isinstance(step, str):
            tree = tree.get(step)
        elif isinstance(tree, list) and isinstance(step, int) and step < len(tree):
            tree = tree[step]
        elif isinstance(step, int):
            break  # a single value that stands for a list of one
        path.append(step)
    # A provider's name is not written as an option but as the key that its options stand under.
    return tuple(path[:2]) if path[:1] == ["providers"] and path[2:] == ["name"] else tuple(path)


def _told(fault: Any, path: Path) -> str:
    match fault["type"]:
        case "extra_forbidden":
            return _unknown(path)
        case "missing" if path == ("providers",):
            return "is needed; the simplest is {mock: {module: mock}}"
        case "missing":
            return "is needed"
        case "value_error":
            return str(fault["ctx"]["error"])
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be a mapping of options"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "string_type":
            return "must be a string; put it in quotes"
        case _:
            text = str(fault["msg"])
            return text.replace("Input should be", "must be").replace("Value should", "must").strip()


def _unknown(path: Path) -> str:
    names = list(_options_at(path[:-1]))
    near = difflib.get_close_matches(str(path[-1]), names, n=1, cutoff=0.6)
    if near:
        return f"unknown option; did you mean {near[0]}?"
    return f"unknown option; known here: {', '.join(sorted(names))}"


def _options_at(path: Path) -> Iterator[str]:
    annotation: Any = Config
    for step in path:
        annotation = _below(_without_none(annotation), step)
    model = _without_none(annotation)
    for name in model.model_fields if _is_model(model) else ():
        if name not in NOT_WRITTEN:
            yield name
        if name == "api_keys":
            yield "api_key"


def _below(annotation: Any, step: str | int) -> Any:
    if _is_model(annotation):
        return annotation.model_fields[step].annotation
    return get_args(annotation)[-1] if get_origin(annotation) is dict else None


def _without_none(annotation: Any) -> Any:
    return next(
        (arg for arg in get_args(annotation) if _is_model(arg) and get_origin(annotation) is not dict), annotation
    )


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
