"""Fills `${VARIABLE}`, `${VARIABLE:-default}` and `${file:/path}` into the strings of a parsed configuration.

It works on values after parsing and before validation, so what a variable holds can never become structure.
`$${` is a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from rubberduck.config.problems import Path
from rubberduck.config.sources import read_bounded

MAX_SECRET_BYTES = 64 * 1024

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.ASCII | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Unresolved:
    """A reference that leads nowhere. `variable` is the environment variable that is missing, if one is."""

    path: Path
    text: str
    variable: str | None = None


class _Fault(Exception):
    def __init__(self, text: str, variable: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.variable = variable


@dataclass(slots=True)
class Interpolation:
    """Resolves references against an environment. `directory` is where relative files are sought.

    Files named without a directory are first sought in `$CREDENTIALS_DIRECTORY`, where systemd puts secrets.
    """

    environ: Mapping[str, str]
    directory: FilePath = FilePath()
    unresolved: list[Unresolved] = field(default_factory=list)

    def resolve(self, value: Any, path: Path = ()) -> Any:
        """The value with all references filled in; one that cannot be is noted and left as it is."""
        if isinstance(value, dict):
            return {key: self.resolve(part, (*path, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, (*path, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        try:
            return _REFERENCE.sub(self._filled, value)
        except _Fault as error:
            self.unresolved.append(Unresolved(path, error.text, error.variable))
            return value

    def _filled(self, match: re.Match[str]) -> str:
        if match[0] == "$${":
            return "${"
        reference = match[1]
        if reference is None:
            raise _Fault("has a ${ that is not closed; write $${ for the characters themselves")
        if reference.startswith("file:"):
            return self._file(reference.removeprefix("file:"))
        return self._variable(reference)

    def _variable(self, reference: str) -> str:
        match = _VARIABLE.fullmatch(reference)
        if match is None or "${" in reference:
            raise _Fault("has a reference that is none of ${VARIABLE}, ${VARIABLE:-default}, ${file:/path}")
        name, has_default, default = match.groups()
        value = self.environ.get(name)
        if has_default:
            return value or default
        if value is None:
            raise _Fault(f"environment variable {name} is not set", name)
        return value

    def _file(self, name: str) -> str:
        file = self._sought(name.strip())
        try:
            return read_bounded(file, MAX_SECRET_BYTES).decode().rstrip("\r\n")
        except OSError:
            raise _Fault(f"{file} not readable") from None
        except UnicodeDecodeError:
            raise _Fault(f"{file} is not UTF-8") from None
        except ValueError as error:
            raise _Fault(f"{file} {error}") from None

    def _sought(self, name: str) -> FilePath:
        if not name or "\0" in name:
            raise _Fault("${file:} needs the path of a file")
        credentials = self.environ.get("CREDENTIALS_DIRECTORY")
        if credentials and "/" not in name and (FilePath(credentials) / name).is_file():
            return FilePath(credentials) / name
        return self.directory / name


def references(value: Any) -> Iterator[str]:
    """The environment variables that a string refers to, whether or not they are set."""
    for match in _REFERENCE.finditer(value) if isinstance(value, str) else ():
        if match[1] and (variable := _VARIABLE.fullmatch(match[1])):
            yield variable[1]
