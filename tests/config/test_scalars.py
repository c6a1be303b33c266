"""Durations, numbers and flags: what is read, what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from rubberduck.config import seconds
from rubberduck.config.scalars import Duration, Flag, Number, Share, Size, Whole, as_text


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (60_000, 60.0),
        (1500.0, 1.5),
        ("60s", 60.0),
        ("500ms", 0.5),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1.5s", 1.5),
        ("0.5 s", 0.5),
        (" 250 ", 0.25),
        (timedelta(minutes=2), 120.0),
    ],
)
def test_a_bare_number_is_milliseconds_and_a_unit_is_itself(written: Any, value: float) -> None:
    assert seconds(written) == pytest.approx(value)


@pytest.mark.parametrize(
    "junk", ["", "s", "5 parsecs", "-5s", "1m30s", "1e3s", ".5s", "5.s", "٥s", "inf", "nan", True, None, [], b"5s"]
)
def test_what_is_no_duration_is_refused(junk: Any) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(junk)


@given(st.integers(1, 86_400_000))
def test_a_duration_written_as_text_is_read_back(milliseconds: int) -> None:
    assert seconds(as_text(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.text(alphabet="0123456789.msh d-+e", max_size=12))
def test_any_text_is_a_finite_duration_or_refused(text: str) -> None:
    try:
        assert 0 <= seconds(text) < 1e20
    except ValueError:
        pass


@given(st.integers() | st.floats() | st.text(alphabet="0123456789.eE+-inf ", max_size=8) | st.booleans() | st.none())
def test_a_number_is_within_its_range_or_refused(value: Any) -> None:
    for kind, low, high in ((Whole(1, 10), 1, 10), (Number(0, 5), 0, 5), (Share(), 0, 1), (Duration(1, 60), 1, 60)):
        try:
            assert low <= kind.read(value) <= high
        except ValueError as error:
            assert "must be" in str(error) or "is not a duration" in str(error)  # noqa: PT017 - either way is right


def test_the_edges_of_a_range_belong_to_it_unless_it_says_above() -> None:
    assert Number(0, 1).read(0) == 0.0
    assert Number(0, 1).read(1) == 1.0
    assert Duration(1, 60).read("1s") == 1.0
    assert Duration(1, 60).read("60s") == 60.0
    with pytest.raises(ValueError, match="above 0, at most 1"):
        Number(0, 1, above=True).read(0)


def test_a_share_may_be_written_in_percent() -> None:
    assert Share().read("20%") == pytest.approx(0.2)
    assert Share().read(0.2) == 0.2
    with pytest.raises(ValueError, match="from 0 to 1"):
        Share().read("120%")


@pytest.mark.parametrize("value", [1, 0, "yes", "True", "", None])
def test_a_flag_is_true_or_false(value: Any) -> None:
    assert Flag().read("true") is True
    assert Flag().read("false") is False
    with pytest.raises(ValueError, match="must be true or false"):
        Flag().read(value)


def test_durations_are_dumped_as_text_that_can_be_loaded() -> None:
    from typing import Annotated

    class Timed(BaseModel):
        wait: Annotated[float, Duration()] | None = None

    dumped = Timed.model_validate({"wait": "90s"}).model_dump(mode="json")
    assert dumped == {"wait": "90s"}
    assert Timed.model_validate(dumped).wait == 90.0
    assert Timed().model_dump(mode="json") == {"wait": None}


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4KiB", 4096),
        ("4 kB", 4000),
        ("16MiB", 16 << 20),
        ("1MB", 10**6),
        ("2GiB", 2 << 30),
    ],
)
def test_a_size_is_read_with_its_unit_and_written_so_that_it_is_read_again(written: Any, size_bytes: int) -> None:
    kind = Size(1024, 1 << 40)
    assert kind.read(written) == size_bytes
    assert kind.read(kind.written(size_bytes)) == size_bytes


@pytest.mark.parametrize("wrong", ["16 Mib", "1.5MiB", "-1KiB", "", "MiB", True, 4096.0, None, "1023", 1023, "2048GiB"])
def test_what_is_no_size_is_refused(wrong: Any) -> None:
    with pytest.raises(PydanticCustomError, match=r"size|must be from 1KiB to 1024GiB"):
        Size(1024, 1 << 40).read(wrong)
