"""Format, lint and types, side by side: `./duck check`. With `--tests` also the tests, with branch coverage.

Shows the output of the checks that fail, and fails if one did. Runs in the environment that holds the tools.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "ruff format": ["ruff", "format", "--check", "--diff", "--quiet", "."],
    "ruff check": ["ruff", "check", "--quiet", "."],
    "mypy --strict": ["mypy"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
}
# pyright would otherwise look on the network for a newer release of itself
ENVIRONMENT = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}


def main(options: Sequence[str]) -> int:
    with ThreadPoolExecutor(max_workers=2) as pool:
        failures = [title for title, passed in zip(CHECKS, pool.map(passes, CHECKS), strict=True) if not passed]
    if "--tests" in options and subprocess.run(command("pytest", "--cov"), cwd=ROOT, check=False).returncode:
        failures.append("tests")
    print(f"check: failed: {', '.join(failures)}" if failures else "check: all passed")
    return 1 if failures else 0


def passes(title: str) -> bool:
    started = time.monotonic()
    done = subprocess.run(
        command(*CHECKS[title]), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    passed = done.returncode == 0
    output = "" if passed else f"\n{done.stdout}{done.stderr}".rstrip()
    print(f"check: {title}: {'passed' if passed else 'failed'}, {time.monotonic() - started:.0f} s{output}", flush=True)
    return passed


def command(tool: str, *arguments: str) -> list[str]:
    return [sys.executable, "-P", "-m", tool, *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
