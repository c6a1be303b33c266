"""Real loops and threads for a long while, in a process of their own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
from soak_run import soak


@pytest.mark.timeout(600)
def test_two_hundred_thousand_messages_survive_every_kind_of_crash():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        pool.submit(soak).result()
