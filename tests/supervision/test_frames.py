"""The frames of another thread, as a watchdog sees them."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator

import pytest

from supervision.view.frames import frames_of


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns as often as the interpreter can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_frames_are_told_innermost_first() -> None:
    entered, over = threading.Event(), threading.Event()

    def inner() -> None:
        entered.set()
        over.wait(10)

    def outer() -> None:
        inner()

    thread = threading.Thread(target=outer)
    thread.start()
    try:
        assert entered.wait(10)
        names = [frame.f_code.co_name for frame in frames_of(thread.ident)]
    finally:
        over.set()
        thread.join()
    assert names.index("inner") < names.index("outer") < names.index("_bootstrap")


def test_a_thread_that_is_not_there_has_no_frames() -> None:
    assert frames_of(None) == []
    assert frames_of(0) == []


@pytest.mark.parametrize("collects", [True, False])
def test_the_collector_is_left_as_it_was(collects: bool) -> None:
    was = gc.isenabled()
    try:
        gc.enable() if collects else gc.disable()
        frames_of(threading.get_ident())
        assert gc.isenabled() is collects
    finally:
        gc.enable() if was else gc.disable()


def test_what_is_seen_of_a_busy_thread_is_always_one_whole_stack(quick_switches: None) -> None:
    """Followed step by step in Python, a stack could change on the way, and its end could be another stack's."""
    over = threading.Event()

    def down(depth: int) -> int:
        return down(depth - 1) if depth else 0

    def work() -> None:
        while not over.is_set():
            down(20)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        seen = 0
        while seen < 300:
            names = [frame.f_code.co_name for frame in frames_of(thread.ident)]
            assert names[-1] == "_bootstrap", names
            depth = names.count("down")
            assert "down" not in names or names[names.index("down") :][:depth] == ["down"] * depth
            seen += depth > 1
    finally:
        over.set()
        thread.join()
