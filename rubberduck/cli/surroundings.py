"""What a command finds around it; tests give their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


def start_duck(config: Any, **options: Any) -> Any:
    """Start the runtime; imports it only now. Its log is for `--verbose`: a command tells what failed by itself."""
    import logging

    import rubberduck

    if not logging.getLogger().handlers:
        for name in ("rubberduck", "supervision"):
            logging.getLogger(name).addHandler(logging.NullHandler())
    return rubberduck.RubberDuck.start(config, **options)


@dataclass(slots=True)
class Surroundings:
    """The environment, how a runtime is started, and whether the user wants to see tracebacks."""

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    start: Callable[..., Any] = start_duck
    verbose: bool = False
