"""Money and times as people read them."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.figures import money, size, span


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (None, "price unknown"),
        (Decimal(0), "free"),
        (Decimal("0.000033"), "$0.000033"),
        (Decimal("0.00003349"), "$0.000033"),
        (Decimal("0.5"), "$0.50"),
        (Decimal("0.123"), "$0.12"),
        (Decimal("1234.567"), "$1,234.57"),
        (Decimal("1e-12"), "$0.0000000000010"),
    ],
)
def test_money(amount: Decimal | None, told: str) -> None:
    assert money(amount) == told


@given(st.decimals(min_value="1e-12", max_value="1e6", places=12).filter(bool))
def test_money_is_never_told_as_nothing_nor_far_off(amount: Decimal) -> None:
    told = Decimal(money(amount)[1:].replace(",", ""))
    assert told > 0
    assert abs(told - amount) <= max(
        amount * Decimal("0.05"), Decimal("0.005") if amount >= Decimal("0.1") else Decimal(0)
    )


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0, "0.00 s"), (0.518, "0.52 s"), (12.3, "12 s"), (60, "1 min"), (185, "3 min 5 s")]
)
def test_span(seconds: float, told: str) -> None:
    assert span(seconds) == told


def test_size() -> None:
    assert (size(98_362_432), size(1_500)) == ("98.4 MB", "1.5 kB")
