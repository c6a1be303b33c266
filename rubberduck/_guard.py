"""Refuses to go on with someone else's `supervision` package in the place of ours.

Roboflow's computer vision library is imported under the same name, and whichever of the two distributions is installed
last overwrites the other's files without a word. What would follow is a riddle; this says what happened instead.
"""

from __future__ import annotations

import os
from importlib.machinery import ModuleSpec
from importlib.util import find_spec

MARKER = "# rubberduck-llm: supervision"


def check() -> None:
    """Raises ImportError unless `supervision` is ours; reads the first line of its file and runs nothing of it."""
    spec = find_spec("supervision")
    if spec is None:
        raise ImportError(
            "rubberduck needs its package `supervision`, and there is none.\n"
            "Both come with the distribution rubberduck-llm: pip install --force-reinstall --no-deps rubberduck-llm"
        )
    if _first_line(spec) not in (MARKER, None):
        raise ImportError(
            f"rubberduck needs its own package `supervision`, but this name leads to {_place(spec)}.\n"
            "Two distributions bring a package of that name: rubberduck-llm (ours) and supervision (Roboflow's); the"
            " one installed last overwrites the other. Give each a virtual environment of its own. To mend this one:\n"
            "  pip uninstall supervision\n"
            "  pip install --force-reinstall --no-deps rubberduck-llm"
        )


def _first_line(spec: ModuleSpec) -> str | None:
    """None where there is no source to read, as in a frozen application, which chose its modules itself."""
    if spec.origin is None:  # a mere folder of that name
        return ""
    try:
        with open(spec.origin, encoding="utf-8", errors="replace") as lines:
            return lines.readline().rstrip()
    except OSError:
        return None


def _place(spec: ModuleSpec) -> str:
    return spec.origin or os.pathsep.join(spec.submodule_search_locations or [])
