"""Money: exact, in one unit, and unknown where it is unknown."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.core.pricing import Price, cost, from_pico, plain, to_pico, worst_case
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


# -- audio, caches that are kept longer, tiers, tools ------------------------------------------------

SPEAKS = Price(
    Decimal(2), Decimal(10), Decimal("0.5"), audio_input=Decimal(40), cached_audio=Decimal(4), audio_output=Decimal(80)
)
KEEPS = Price(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"), cache_write_1h=Decimal(6))
FLEX = Price(Decimal(1), Decimal(4))
TIERED = Price(Decimal(2), Decimal(8), service_tiers=(("flex", FLEX),))


@pytest.mark.parametrize(
    ("usage", "price", "millionths"),
    [
        (Usage(100, 50, prompt_audio_tokens=30, completion_audio_tokens=20), SPEAKS, 70 * 2 + 30 * 40 + 300 + 20 * 80),
        (Usage(100, 0, cached_tokens=70, prompt_audio_tokens=30), SPEAKS, 35 + 30 * 40),
        (Usage(100, 0, cached_tokens=80, prompt_audio_tokens=30), SPEAKS, 35 + 10 * 4 + 20 * 40),
        (Usage(100, 0, cached_tokens=100, prompt_audio_tokens=100), SPEAKS, 400),
        (Usage(100, 0, prompt_audio_tokens=30), GPT, 250),
        (Usage(100, 0, cache_write_tokens=60, cache_write_1h_tokens=20), KEEPS, 120 + 150 + 120),
        (Usage(100, 0, cache_write_1h_tokens=20), KEEPS, 240 + 120),
        (Usage(100, 0, cache_write_tokens=60, cache_write_1h_tokens=20), CLAUDE, 120 + 60 * Decimal("3.75")),
        (Usage(100, 10, service_tier="flex"), TIERED, 140),
        (Usage(100, 10, service_tier="FLEX"), TIERED, 140),
        (Usage(100, 10, service_tier="default"), TIERED, 280),
        (Usage(100, 10, service_tier="standard"), TIERED, 280),
        (Usage(100, 10), TIERED, 280),
    ],
)
def test_what_is_dearer_or_cheaper_than_plain_text_is_charged_at_its_own_rate(usage, price, millionths):
    assert cost(usage, price) == Decimal(millionths).scaleb(-6)


def test_a_tier_without_a_price_has_no_known_cost_unless_the_model_is_free():
    assert cost(Usage(100, 10, service_tier="priority"), TIERED) is None
    assert cost(Usage(100, 10, service_tier="priority"), Price(Decimal(0), Decimal(0))) == 0
    assert cost(Usage(100, 10, service_tier="priority"), Price(Decimal(0), None, per_request=Decimal(1))) is None


def test_audio_whose_price_nobody_told_has_no_known_cost():
    mute = Price(Decimal(1), Decimal(1), is_audio_known=False)
    assert cost(Usage(9, 9, prompt_audio_tokens=1), mute) is None
    assert cost(Usage(9, 9, completion_audio_tokens=1), mute) is None
    assert cost(Usage(9, 9, prompt_audio_tokens=0), mute) == Decimal("0.000018")


@pytest.mark.parametrize(
    ("used", "usd"),
    [
        ({"web_search_requests": 3}, "0.031"),
        ({"web_search_requests": 0, "code_execution_requests": 0}, "0.001"),
        ({}, "0.001"),
        (None, "0.001"),
        ({"code_execution_requests": 1}, None),
        ({"web_search_requests": "many"}, None),
        ({"web_search_requests": -1}, None),
        ("what is this", None),
    ],
)
def test_the_uses_of_a_servers_tools_are_charged_and_unknown_ones_make_the_cost_unknown(used, usd):
    price = Price(Decimal(1), Decimal(1), uses=(("web_search_requests", Decimal("0.01")),))
    usage = Usage(1000, 0, raw={"server_tool_use": used})
    assert cost(usage, price) == (None if usd is None else Decimal(usd))


@pytest.mark.parametrize("kind", ["cache_write_1h_tokens", "prompt_audio_tokens", "completion_audio_tokens"])
def test_no_kind_of_token_can_be_fewer_than_none(kind):
    assert cost(Usage(5, 5, **{kind: -1}), GPT) is None


parts = st.integers(0, 10**6)
rate_or_none = st.none() | rates


@given(st.lists(parts, min_size=8, max_size=8), st.lists(rate_or_none, min_size=7, max_size=7), rates, rates)
def test_every_kind_of_token_pays_its_rate_or_that_of_its_kin(counts, own, text, out):
    """Against the sum written down kind by kind, in fractions."""
    fresh, cached, written, long, heard, said, thought, spoken = counts
    cached_rate, write_rate, hour_rate, audio_rate, cached_audio, thought_rate, spoken_rate = own
    price = Price(
        text, out, cached_rate, write_rate, reasoning=thought_rate, cache_write_1h=hour_rate,
        audio_input=audio_rate, cached_audio=cached_audio, audio_output=spoken_rate,
    )  # fmt: skip
    usage = Usage(
        fresh + cached + written + long + heard,
        said + thought + spoken,
        cached,
        written + long,
        thought,
        cache_write_1h_tokens=long,
        prompt_audio_tokens=heard,
        completion_audio_tokens=spoken,
    )

    def of(*some):
        return Fraction(next(rate for rate in some if rate is not None))

    expected = (
        fresh * of(text)
        + cached * of(cached_rate, text)
        + written * of(write_rate, text)
        + long * of(hour_rate, write_rate, text)
        + heard * of(audio_rate, text)
        + said * of(out)
        + thought * of(thought_rate, out)
        + spoken * of(spoken_rate, out)
    )
    assert Fraction(cost(usage, price)) == expected / 10**6


@given(st.data(), st.lists(rate_or_none, min_size=9, max_size=9), rates, rates, st.integers(0, 5000))
def test_nothing_costs_more_than_the_worst_case(data, own, text, out, threshold):
    def price(*own):
        cached, write, hour, audio, again, thought, spoken = own
        return Price(
            text, out, cached, write, reasoning=thought, cache_write_1h=hour, audio_input=audio, cached_audio=again,
            audio_output=spoken,
        )  # fmt: skip

    whole = replace(price(*own[:7]), tiers=((threshold, price(*own[2:])),), service_tiers=(("flex", price(*own[1:8])),))
    prompt, output = data.draw(st.integers(0, 10_000)), data.draw(st.integers(0, 10_000))
    cached = data.draw(st.integers(0, prompt))
    written = data.draw(st.integers(0, prompt - cached))
    thought = data.draw(st.integers(0, output))
    usage = Usage(
        prompt, output, cached, written, thought,
        cache_write_1h_tokens=data.draw(st.integers(0, written)),
        prompt_audio_tokens=data.draw(st.integers(0, prompt - written)),
        completion_audio_tokens=data.draw(st.integers(0, output - thought)),
        service_tier=data.draw(st.sampled_from([None, "flex", "default"])),
    )  # fmt: skip
    more = data.draw(st.integers(0, 1000))
    assert cost(usage, whole) <= worst_case(whole, prompt + more, output + more, (None, "flex"))


KINDS = {
    "input": {},
    "cached_input": {"cached_tokens": 50},
    "cache_write": {"cache_write_tokens": 50},
    "cache_write_1h": {"cache_write_tokens": 50, "cache_write_1h_tokens": 50},
    "audio_input": {"prompt_audio_tokens": 50},
    "cached_audio": {"prompt_audio_tokens": 50, "cached_tokens": 50},
    "output": {},
    "reasoning": {"reasoning_tokens": 20},
    "audio_output": {"completion_audio_tokens": 20},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["ordinary", "above a threshold", "in a tier"])
def test_the_worst_case_knows_each_kind_that_may_be_the_dearest(kind, where):
    cheap = Price(Decimal(1), Decimal(1), audio_input=Decimal(1))
    dear = replace(cheap, **{kind: Decimal(1000)})
    tier = "flex" if where == "in a tier" else None
    price = {
        "ordinary": dear,
        "above a threshold": replace(cheap, tiers=((49, dear),)),
        "in a tier": replace(cheap, service_tiers=(("flex", dear),)),
    }[where]
    usage = Usage(50, 20, **KINDS[kind], service_tier=tier)
    assert cost(usage, price) > Decimal("0.02") - Decimal("1e-12")
    assert cost(usage, price) == worst_case(price, 50, 20, (None, "flex") if tier else (None,))


def test_the_worst_case_is_unknown_where_a_cost_may_be():
    assert worst_case(TIERED, 10, 10, (None, "priority")) is None
    assert worst_case(Price(Decimal(1), None), 10, 10) is None
    assert worst_case(Price(Decimal(1), None), 10, 0) == Decimal("0.00001")
    assert worst_case(Price(Decimal(1), None, per_request=Decimal(2)), 10, 0) == Decimal("2.00001")


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
