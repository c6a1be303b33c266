"""What is wrong with a configuration, each fault with the place to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rubberduck.errors import ConfigError, MissingApiKey

Path = tuple[str | int, ...]
"""The way to a value: mapping keys and list indexes, from the root."""

_LONGEST_STEP = 60


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: where it is written, which key it concerns, what is wrong with it.

    `missing_key` is the environment variable that would supply a provider's missing API key; None for all
    other faults. The value itself is never part of the text, since any value may be a secret.
    """

    where: str
    path: Path
    text: str
    missing_key: str | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, dotted(self.path), self.text) if part)


def dotted(path: Path) -> str:
    """A path as people write it: `models.smart[0]`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{_shortened(step)}"
    return text.removeprefix(".")


def _shortened(step: str) -> str:
    printable = step if step.isprintable() else ascii(step)
    return printable if len(printable) <= _LONGEST_STEP else printable[:_LONGEST_STEP] + "..."


def error_for(problems: Sequence[Problem]) -> ConfigError:
    """The one exception that tells all faults; MissingApiKey where absent keys are all that is wrong."""
    lines = tuple(dict.fromkeys(str(problem) for problem in problems))
    message = lines[0] if len(lines) == 1 else "\n  ".join([f"the configuration has {len(lines)} faults:", *lines])
    missing = [problem.missing_key for problem in problems]
    if all(missing):
        return MissingApiKey(message, variable=missing[0], problems=lines)
    return ConfigError(message, problems=lines)
