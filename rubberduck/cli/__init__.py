"""The command line: `rubberduck VERB`, also `python -m rubberduck VERB`.

Everything is imported when it is needed, so that `--version` and a mistyped option answer at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rubberduck.cli.surroundings import Surroundings


def main(arguments: Sequence[str] | None = None, *, surroundings: Surroundings | None = None) -> int:
    """Run one command and return its exit code: see `rubberduck.cli.exit_codes`."""
    from rubberduck.cli.run import run

    return run(arguments, surroundings)
