"""Where configurations come from: a file, or a mapping given in Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from rubberduck.config.parsed import MAX_DEPTH, MAX_FILE_BYTES, Parsed, fault
from rubberduck.config.problems import Path


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of one configuration are written. `directory` is what relative files are relative to."""

    name: str = "config"
    directory: FilePath = FilePath()
    lines: Mapping[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest thing above it that is written down; 0 where there is none."""
        return next((line for n in range(len(path), -1, -1) if (line := self.lines.get(path[:n]))), 0)

    def where(self, path: Path) -> str:
        """The place to look at for a value."""
        line = self.line(path)
        return f"{self.name}:{line}" if line else self.name


def read_mapping(source: Mapping[str, Any]) -> tuple[Parsed, Origin]:
    """Copy a mapping, so that neither side sees what the other does to it."""
    faults: list[tuple[Path, int | None, str]] = []
    tree = _copied(source, (), faults)
    return Parsed(tree, faults=tuple(faults)), Origin()


def _copied(value: Any, path: Path, faults: list[tuple[Path, int | None, str]]) -> Any:
    if len(path) > MAX_DEPTH:
        faults.append((path[:3], None, f"is nested more than {MAX_DEPTH} levels deep"))
        return None
    if isinstance(value, Mapping):
        copy = {}
        for key, part in value.items():
            if isinstance(key, str):
                copy[key] = _copied(part, (*path, key), faults)
            else:
                faults.append((path, None, f"has a key that is not a string but {type(key).__name__}"))
        return copy
    if isinstance(value, list | tuple):
        return [_copied(part, (*path, index), faults) for index, part in enumerate(value)]
    return value


def read_file(path: str | FilePath) -> tuple[Parsed, Origin]:
    """Read a YAML or TOML file.

    Raises:
        ConfigError: the file cannot be read, or not understood from some line on.
    """
    file = FilePath(path)
    text = _text_of(file)
    match file.suffix.lower():
        case ".yaml" | ".yml":
            from rubberduck.config.yaml_text import parse_yaml as parse
        case ".toml":
            from rubberduck.config.toml_text import parse_toml as parse
        case suffix:
            raise fault(file, f"is neither .yaml nor .toml but {suffix or 'without a suffix'}")
    parsed = parse(text, str(file))
    return parsed, Origin(str(file), file.parent, parsed.lines)


def _text_of(file: FilePath) -> str:
    try:
        content = read_bounded(file, MAX_FILE_BYTES)
    except OSError as error:
        raise fault(file, _reason(error)) from None
    except ValueError as error:
        raise fault(file, str(error)) from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise fault(f"{file}:{line}", "is not UTF-8") from None


def read_bounded(file: FilePath, most: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a regular file (a pipe would block), or has more than `most` bytes.
    """
    if file.is_dir():
        raise IsADirectoryError(str(file))
    if file.exists() and not file.is_file():
        raise ValueError("is not a regular file")
    with file.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"is larger than {most // 1024} KiB")
    return content


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "is a directory; name the file in it"
    if isinstance(error, PermissionError):
        return "may not be read by this user"
    return f"cannot be read: {error.strerror or type(error).__name__}"
