"""YAML as configurations use it: plain values, each key once, `true` and `false` as the only booleans.

Of YAML 1.1's implicit types only null, true, false, decimal numbers and the merge key remain: `no` is a word,
2023-06-01 is a version and 1:30 is no number. Tags are refused. Aliases are followed up to a bound, so that a
small file cannot grow into a large configuration.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn

import yaml

from rubberduck.config.parsed import MAX_DEPTH, MAX_FILE_BYTES, MAX_VALUES, Parsed, fault
from rubberduck.config.problems import Path

_NULL = "tag:yaml.org,2002:null"
_BOOL = "tag:yaml.org,2002:bool"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"
_STR = "tag:yaml.org,2002:str"
_MERGE = "tag:yaml.org,2002:merge"

_TYPES = (  # tag, pattern, and the characters it may begin with: PyYAML looks up the first one
    (_NULL, r"~|null|", ["~", "n", ""]),
    (_BOOL, r"true|false", ["t", "f"]),
    (_INT, r"[-+]?[0-9]+", list("-+0123456789")),
    (
        _FLOAT,
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        list("-+0123456789."),
    ),
    (_MERGE, r"<<", ["<"]),
)

_MAX_CHARACTERS = 4 * MAX_FILE_BYTES


class _TooDeep(Exception):
    pass


class _Composer(yaml.SafeLoader):
    """PyYAML up to nodes; values are made of them by `_Reading`, which knows bounds and lines."""

    yaml_implicit_resolvers: dict[str | None, list[Any]] = {}
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _TooDeep(self.line)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in _TYPES:
    _Composer.add_implicit_resolver(_tag, re.compile(f"(?:{_pattern})$", re.ASCII), _first)


def parse_yaml(text: str, name: str) -> Parsed:
    """Read YAML.

    Raises:
        ConfigError: the text is no YAML, or passes a bound. Lesser faults are in the result.
    """
    loader = None
    try:
        loader = _Composer(text)
        node = loader.get_single_node()
    except _TooDeep as error:
        raise fault(f"{name}:{error.args[0] + 1}", f"is nested more than {MAX_DEPTH} levels deep") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise fault(f"{name}:{mark.line + 1}" if mark else name, f"is not YAML: {_explained(error)}") from None
    except yaml.reader.ReaderError:
        raise fault(name, "is not YAML: it contains a control character") from None
    finally:
        if loader is not None:
            loader.dispose()
    if node is None:
        raise fault(name, "is empty; it needs at least `providers`")
    reading = _Reading(name)
    tree = reading.value_of(node, ())
    return Parsed(tree, reading.lines, tuple(reading.faults))


def _explained(error: Any) -> str:
    # What PyYAML quotes may be part of a secret: only the texts known to quote nothing are passed on.
    problem = str(error.problem or "")
    if "undefined alias" in problem:
        return "a value that begins with * is an alias; put it in quotes"
    if "'\\t'" in problem:
        return "tabs cannot indent; use spaces"
    if "cannot start any token" in problem:
        return "a value that begins with this character must be put in quotes"
    if "single document" in str(error.context or ""):
        return "it holds more than one document"
    return "tag or directive not allowed" if "tag" in problem else re.sub(r"'[^']{4,}'", "...", problem)


class _Reading:
    """Makes plain values of nodes, notes their lines, and counts what aliases add."""

    def __init__(self, name: str) -> None:
        self.lines: dict[Path, int] = {}
        self.faults: list[tuple[Path, int | None, str]] = []
        self._name = name
        self._values = 0
        self._characters = 0
        self._open: set[int] = set()

    def value_of(self, node: Any, path: Path) -> Any:
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        self._values += 1
        self._characters += len(node.value) if isinstance(node, yaml.ScalarNode) else 0
        if self._values > MAX_VALUES or self._characters > _MAX_CHARACTERS:
            self._give_up(line, f"is too large with its aliases; {MAX_VALUES:,} values are the most")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, line)
        if id(node) in self._open or len(path) > MAX_DEPTH:
            self._give_up(line, "contains itself through an alias, or is nested too deeply")
        self._open.add(id(node))
        try:
            return self._collection(node, path, line)
        finally:
            self._open.discard(id(node))

    def _collection(self, node: Any, path: Path, line: int) -> Any:
        if isinstance(node, yaml.SequenceNode):
            self._refuse_tag(node, "tag:yaml.org,2002:seq", path, line)
            return [self.value_of(part, (*path, index)) for index, part in enumerate(node.value)]
        self._refuse_tag(node, "tag:yaml.org,2002:map", path, line)
        return self._mapping(node, path)

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        written: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, part in node.value:
            if key.tag == _MERGE:
                merged.update(self._merged(part, path))
            elif (name := self._key(key, path)) is not None:
                place = (*path, name)
                if name in written:
                    first = self.lines[place]
                    self.faults.append((place, key.start_mark.line + 1, f"is given twice; first in line {first}"))
                    continue
                self.lines[place] = key.start_mark.line + 1
                written[name] = self.value_of(part, place)
        return {**merged, **written}

    def _key(self, node: Any, path: Path) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag != _NULL:
            return str(node.value)
        self.faults.append((path, node.start_mark.line + 1, "has a key that is not a plain word"))
        return None

    def _merged(self, node: Any, path: Path) -> dict[str, Any]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Any] = {}
        for part in reversed(parts):
            value = self.value_of(part, path)
            if isinstance(value, dict):
                found.update(value)
            else:
                self.faults.append((path, part.start_mark.line + 1, "<< merges mappings only"))
        return found

    def _scalar(self, node: Any, path: Path, line: int) -> Any:
        text = node.value
        try:
            match node.tag:
                case t if t == _NULL:
                    return None
                case t if t == _BOOL:
                    return {"true": True, "false": False}[text]
                case t if t == _INT:
                    return int(text)
                case t if t == _FLOAT:
                    return float(text.replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError):
            self.faults.append((path, line, "is not a value that can be read"))
            return None
        if node.tag != _MERGE:
            self._refuse_tag(node, _STR, path, line)
        return text

    def _refuse_tag(self, node: Any, expected: str, path: Path, line: int) -> None:
        if node.tag != expected:
            self.faults.append((path, line, "has a tag (!); configurations are plain values"))

    def _give_up(self, line: int, text: str) -> NoReturn:
        raise fault(f"{self._name}:{line}", text)
