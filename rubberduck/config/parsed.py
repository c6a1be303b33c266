"""A configuration as it was written, whatever it was written in: values, places, and faults of the writing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rubberduck.config.problems import Path, Problem, error_for

MAX_FILE_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_VALUES = 50_000


@dataclass(frozen=True, slots=True)
class Parsed:
    """A configuration as written: its values, the line of each, and what is wrong with the writing."""

    tree: Any
    lines: Mapping[Path, int] = field(default_factory=dict)
    faults: tuple[tuple[Path, int | None, str], ...] = ()


def fault(where: object, text: str) -> Exception:
    """A ConfigError about a whole file."""
    return error_for([Problem(str(where), (), text)])
