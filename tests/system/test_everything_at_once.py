"""The whole promise at once: everything is switched on, everything fails, everybody dies, and the books agree.

Scenarios are made from seeds; a seed says what was configured, asked and done, though not how the threads raced. To
look for more, run other seeds: `run(seed, chaos, folder)` of the rig.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tests_everything_rig import run


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("chaos", ["calm", "actors", "tasks", "all"])
def test_every_call_is_answered_once_and_the_books_agree_whatever_happens(
    tmp_path: Path, seed: int, chaos: str
) -> None:
    run(seed, chaos, tmp_path, calls=30)


@pytest.mark.parametrize("chaos", ["actors", "all"])
def test_it_holds_on_real_sockets_too(tmp_path: Path, chaos: str) -> None:
    run(3, chaos, tmp_path, over_http=True, calls=30)
