"""Chunks and their like are made quickly, and are in all else what a frozen dataclass is."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Any

import pytest

from rubberduck.types import Chunk, Delta, ToolCallDelta
from rubberduck.types.guarded import guarded

ONES: list[Any] = [Chunk(1, Delta("a"), id="x"), Delta("a", reasoning="b"), ToolCallDelta(2, arguments="{")]
each = pytest.mark.parametrize("one", ONES, ids=lambda one: type(one).__name__)


@each
def test_nobody_changes_one(one: Any) -> None:
    for field in fields(one):
        with pytest.raises(FrozenInstanceError):
            setattr(one, field.name, None)
        with pytest.raises(FrozenInstanceError):
            delattr(one, field.name)
    assert not hasattr(one, "__dict__")


@each
def test_it_is_copied_and_written_as_it_is(one: Any) -> None:
    for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one), replace(one)):
        assert other == one
        assert type(other) is type(one)
        assert hash(other) == hash(one)
        assert repr(other) == repr(one)


def test_replacing_a_field_leaves_the_others() -> None:
    assert replace(ONES[0], index=3) == Chunk(3, Delta("a"), id="x")


def test_its_arguments_are_those_of_a_dataclass() -> None:
    @guarded(frozen=True, slots=True)
    class Quick:
        name: str
        place: tuple[int, ...] = ()

    @dataclass(frozen=True, slots=True)
    class Plain:
        name: str
        place: tuple[int, ...] = ()

    for args, kwargs in ((("a",), {}), ((), {"name": "a", "place": (1,)}), (("a", (2,)), {})):
        quick, plain = Quick(*args, **kwargs), Plain(*args, **kwargs)
        assert (quick.name, quick.place) == (plain.name, plain.place)
    for args, kwargs in (((), {}), (("a", (), 1), {}), (("a",), {"nope": 1}), (("a",), {"name": "b"})):
        with pytest.raises(TypeError, match=r"Quick\.__init__\(\)"):
            Quick(*args, **kwargs)
