"""The frames of another thread, taken in one piece."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from itertools import accumulate, chain, repeat, starmap
from operator import methodcaller
from types import FrameType


def frames_of(ident: int | None) -> list[FrameType]:
    """The frames of a thread at one moment, innermost first; empty if there is no such thread.

    Python code that follows `f_back` lets the other thread go on between two steps, and the interpreter has been seen
    to crash over frames that went away meanwhile. So all of it is one call into C, in which no other thread runs. The
    collector pauses: in CPython 3.11 a collection inside `sys._current_frames` can lock up the interpreter.

    Source: python/cpython issues 99110, 106883 and 111363.
    """
    top = map(methodcaller("get", ident), starmap(sys._current_frames, [()]))
    found: list[FrameType | None] = []
    collects = gc.isenabled()
    gc.disable()
    try:
        with suppress(AttributeError):  # behind the outermost frame there is None, which has no frame behind it
            found.extend(accumulate(chain(top, repeat("f_back")), getattr))
    finally:
        if collects:
            gc.enable()
    return [frame for frame in found if frame is not None]
