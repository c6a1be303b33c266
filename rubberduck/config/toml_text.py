"""TOML, with the line of each key, which the standard library's reader does not tell."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from rubberduck.config.parsed import Parsed, fault
from rubberduck.config.problems import Path

_KEY = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:[ \t]*\.[ \t]*{_KEY})*"
_TABLE = re.compile(rf"[ \t]*\[[ \t]*({_DOTTED})[ \t]*\]")
_ARRAY = re.compile(rf"[ \t]*\[\[[ \t]*({_DOTTED})[ \t]*\]\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_DOTTED})[ \t]*=")
_AT_LINE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")
_MARKS = re.compile(r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#.*|[\[\]]')


def parse_toml(text: str, name: str) -> Parsed:
    """Read TOML.

    Raises:
        ConfigError: the text is not TOML.
    """
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _as_config_error(error, name, text) from None
    except RecursionError:
        raise fault(name, "is nested too deeply") from None
    if not tree:
        raise fault(name, "is empty; it needs at least [providers.<name>]")
    return Parsed(tree, dict(_lines(text)))


def _as_config_error(error: tomllib.TOMLDecodeError, name: str, text: str) -> Exception:
    message = str(error)
    line = text.count("\n") + 1
    if match := _AT_LINE.search(message):
        message = message[: match.start()]
        line = int(match[1] or line)
    return fault(f"{name}:{line}", f"is not TOML: {message[:1].lower()}{message[1:]}")


def _lines(text: str) -> Iterator[tuple[Path, int]]:
    """The line of each table and key. A table of an array gets the index it has in it."""
    table: Path = ()
    counts: dict[Path, int] = {}
    inside = _Inside()
    for number, line in enumerate(text.splitlines(), 1):
        if inside.begins_statement():
            if match := _ARRAY.match(line):
                array = _path(match[1])
                table = (*array, counts.get(array, 0))
                counts[array] = counts.get(array, 0) + 1
                yield array, number
                yield table, number
                continue
            if match := _TABLE.match(line):
                table = _path(match[1])
                yield table, number
                continue
            if match := _ASSIGNMENT.match(line):
                yield (*table, *_path(match[1])), number
        inside.read(line)


def _path(dotted: str) -> Path:
    return tuple(key[1:-1] if key[0] in "\"'" else key for key in re.findall(_KEY, dotted))


class _Inside:
    """Whether a line continues a value that an earlier line began."""

    def __init__(self) -> None:
        self._quotes = ""
        self._brackets = 0

    def begins_statement(self) -> bool:
        return not self._quotes and self._brackets == 0

    def read(self, line: str) -> None:
        position = 0
        while position < len(line):
            if self._quotes:
                end = line.find(self._quotes, position)
                if end < 0:
                    return
                position, self._quotes = end + 3, ""
                continue
            match = _MARKS.search(line, position)
            if match is None:
                return
            position = match.end()
            self._note(match[0])

    def _note(self, mark: str) -> None:
        if mark in ('"""', "'''"):
            self._quotes = mark
        elif mark == "[":
            self._brackets += 1
        elif mark == "]":
            self._brackets -= 1
