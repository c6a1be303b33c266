"""Money: exact, in one unit, and unknown where it is unknown."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.pricing import Price, cost, from_pico, plain, to_pico
from rubberduck.types import Usage

GPT = Price(Decimal("2.5"), Decimal(10), cached_input=Decimal("1.25"), source="list")
CLAUDE = Price(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"))
counts = st.integers(0, 10**9)
rates = st.integers(0, 10**9).map(lambda millionths: Decimal(millionths).scaleb(-6))


@pytest.mark.parametrize(
    ("usage", "price", "usd"),
    [
        (Usage(1000, 500), GPT, "0.0075"),
        (Usage(1000, 0, cached_tokens=400), GPT, "0.002"),
        (Usage(1000, 100, cached_tokens=200, cache_write_tokens=300), CLAUDE, "0.004185"),
        (Usage(0, 0), GPT, "0"),
        (Usage(1_000_000, 0), GPT, "2.5"),
        (Usage(1, 0), GPT, "0.0000025"),
        (Usage(10, 10, cached_tokens=20), GPT, "0.000125"),  # more cached than sent: each charged as told
    ],
)
def test_a_usage_costs_what_the_price_list_says(usage, price, usd):
    assert cost(usage, price) == Decimal(usd)
    assert str(cost(usage, price)) == str(plain(Decimal(usd)))


def test_without_a_price_the_cost_is_unknown_and_not_zero():
    assert cost(Usage(1000, 500), None) is None


def test_a_negative_count_is_no_count():
    assert cost(Usage(-1, 5), GPT) is None
    assert cost(Usage(5, 5, cached_tokens=-1), GPT) is None


def test_kinds_without_a_rate_of_their_own_cost_what_their_side_costs():
    bare = Price(Decimal(3), Decimal(15))
    usage = Usage(1000, 100, cached_tokens=200, cache_write_tokens=300, reasoning_tokens=50)
    assert cost(usage, bare) == cost(Usage(1000, 100), bare)
    dear = Price(Decimal(3), Decimal(15), reasoning=Decimal(30))
    assert cost(usage, dear) == Decimal("0.00525")


def test_output_that_is_not_sold_has_no_known_cost():
    embedding = Price(Decimal("0.02"), None)
    assert cost(Usage(1000, 0), embedding) == Decimal("0.00002")
    assert cost(Usage(1000, 1), embedding) is None


def test_above_a_threshold_all_tokens_pay_the_higher_rate():
    tiered = Price(Decimal(3), Decimal(15), tiers=((200_000, Price(Decimal(6), Decimal("22.5"))),))
    assert cost(Usage(200_000, 1000), tiered) == Decimal("0.615")
    assert cost(Usage(200_001, 1000), tiered) == Decimal("1.222506")


def test_a_call_may_cost_something_by_itself():
    assert cost(Usage(0, 0), Price(Decimal(1), Decimal(1), per_request=Decimal("0.012"))) == Decimal("0.012")


def test_a_rate_finer_than_the_unit_is_rounded_once_half_even():
    third = Price(Decimal("0.041666666666666664"), Decimal(0))
    assert cost(Usage(1, 0), third) == Decimal("0.000000041667")
    assert cost(Usage(10**6, 0), third) == Decimal("0.041666666667")
    half = Price(Decimal("0.0000005"), Decimal(0))
    assert [cost(Usage(n, 0), half) for n in (1, 3)] == [0, Decimal("2e-12")]


def test_the_callers_decimal_context_has_no_say():
    with localcontext() as context:
        context.prec = 3
        assert cost(Usage(123_456_789, 987_654_321), GPT) == Decimal("10185.1851825")


@given(counts, counts, counts, counts, rates, rates, rates, rates)
def test_cost_is_the_exact_sum_of_its_parts(plain_input, cached, written, output, rate, out, cached_rate, write_rate):
    usage = Usage(plain_input + cached + written, output, cached_tokens=cached, cache_write_tokens=written)
    price = Price(rate, out, cached_rate, write_rate)
    parts = [(plain_input, rate), (cached, cached_rate), (written, write_rate), (output, out)]
    expected = sum(Fraction(n) * Fraction(usd) for n, usd in parts) / 10**6
    assert Fraction(cost(usage, price)) == expected
    assert from_pico(to_pico(cost(usage, price))) == cost(usage, price)


@given(counts, counts, counts)
def test_more_tokens_never_cost_less(prompt, completion, more):
    assert cost(Usage(prompt, completion), GPT) <= cost(Usage(prompt + more, completion + more), GPT)


@given(st.integers(0, 10**22))
def test_pico_dollars_and_usd_are_two_spellings_of_one_amount(pico):
    usd = from_pico(pico)
    assert to_pico(usd) == pico
    assert "E+" not in str(usd)
    assert not ("." in str(usd) and str(usd).endswith("0") and "E" not in str(usd))


@pytest.mark.parametrize("wrong", ["-1", "NaN", "Infinity"])
def test_what_is_no_amount_of_money_is_refused(wrong):
    with pytest.raises(ValueError, match="finite number of USD"):
        to_pico(Decimal(wrong))
    with pytest.raises(ValueError, match="finite number of USD"):
        Price(Decimal(1), Decimal(wrong))
