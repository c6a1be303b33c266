"""Whose word counts about a price, and that nobody asks the network for one."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rubberduck import prices
from rubberduck.errors import ConfigError
from rubberduck.prices import PriceBook, context_window
from rubberduck.types import Usage

ROOT = Path(__file__).resolve().parents[1]
USAGE = Usage(1000, 100)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a price was asked of the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_listed_model_has_a_price_with_its_source():
    price = PriceBook().price("openai", "gpt-4o")
    assert (price.input, price.output, price.cached_input) == (Decimal("2.5"), Decimal(10), Decimal("1.25"))
    assert price.source.startswith("genai-prices ")
    assert prices.cost("openai", "gpt-4o-2024-08-06", USAGE) == Decimal("0.0035")


def test_a_long_context_pays_its_tier():
    book = PriceBook()
    rate = book.price("anthropic", "claude-sonnet-4-5")
    ((threshold, above),) = rate.tiers
    assert threshold == 200_000
    assert above.input > rate.input
    assert book.cost("anthropic", "claude-sonnet-4-5", Usage(threshold + 1, 0)) == (threshold + 1) * above.input / 10**6


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("mock", "gpt-4o"),
        ("openai", "a-model-of-tomorrow"),
        ("ollama", "llama3"),
        ("not-openai-at-all", "gpt-4o"),
        ("openai", "whisper-1"),
        ("", ""),
    ],
)
def test_what_nobody_lists_has_no_price_and_no_cost(vendor, model):
    assert PriceBook().price(vendor, model) is None
    assert PriceBook().cost(vendor, model, USAGE) is None


def test_the_local_model_costs_nothing_and_says_why():
    assert PriceBook().cost("local", "anything", USAGE) == 0
    assert PriceBook().price("local", "anything").source == "local"


def test_the_configuration_wins_over_the_list_and_the_route_over_the_model():
    book = PriceBook({"gpt-4o": {"input": 1, "output": "2"}, "second/gpt-4o": {"input": 3, "output": 4}})
    assert book.price("openai", "gpt-4o", route="first/gpt-4o").input == 1
    assert book.price("openai", "gpt-4o", route="second/gpt-4o").input == 3
    assert book.price("openai", "gpt-4o").source == "config"
    assert book.cost("mock", "gpt-4o", USAGE) == Decimal("0.0012")
    assert book.cost("openai", "gpt-4.1", USAGE) == PriceBook().cost("openai", "gpt-4.1", USAGE)


def test_a_float_is_the_digits_it_was_written_with():
    assert PriceBook({"m": {"input": 0.1, "output": 0.2, "cached_input": 0.3}}).cost(
        "x", "m", Usage(10, 10, cached_tokens=1)
    ) == Decimal("0.0000032")


def test_every_wrong_override_is_named():
    wrong = {
        "a": {"output": 1},
        "b": {"input": "much"},
        "c": {"input": -1},
        "d": {"input": float("nan")},
        "e": {"input": True},
        "f": {"input": 1, "ouput": 2},
        "g": 5,
        "fine": {"input": 1, "output": None},
    }
    with pytest.raises(ConfigError) as caught:
        PriceBook(wrong)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [f"prices.{name}" for name in "abcdefg"]
    assert "ouput" in str(caught.value)


def test_a_price_that_depends_on_the_hour_is_asked_for_the_hour():
    book = PriceBook()
    night, day = datetime(2026, 1, 1, 20, tzinfo=UTC), datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert book.cost("deepseek", "deepseek-chat", USAGE, at=night) < book.cost(
        "deepseek", "deepseek-chat", USAGE, at=day
    )


@settings(deadline=None)
@given(st.integers(0, 300_000), st.integers(0, 10**6), st.integers(0, 1000), st.integers(0, 1000))
def test_our_arithmetic_agrees_with_the_lists_own(prompt, completion, cached, written):
    import genai_prices

    cached, written = min(cached, prompt // 2), min(written, prompt // 2)
    usage = Usage(prompt, completion, cached_tokens=cached, cache_write_tokens=written)
    theirs = genai_prices.Usage(
        input_tokens=prompt, output_tokens=completion, cache_read_tokens=cached, cache_write_tokens=written
    )
    for vendor, model in [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]:
        listed = genai_prices.calc_price(theirs, model, provider_id=vendor).total_price
        assert prices.cost(vendor, model, usage) == listed


AUTUMN, LATER = datetime(2026, 9, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)


def test_a_listed_tier_has_a_price_from_the_day_on_that_the_list_knows_it():
    book, flex = PriceBook(), Usage(1000, 100, service_tier="flex")
    assert book.cost("openai", "gpt-5", flex, at=LATER) == book.cost("openai", "gpt-5", USAGE, at=LATER) / 2
    assert book.cost("openai", "gpt-5", flex, at=AUTUMN) is None
    for ordinary in ("default", "auto", "standard"):
        assert book.cost("openai", "gpt-5", Usage(1000, 100, service_tier=ordinary), at=AUTUMN) == Decimal("0.00225")
    assert book.cost("openai", "gpt-5", Usage(1000, 100, service_tier="scale"), at=LATER) is None


@settings(deadline=None)
@given(
    st.sampled_from(["flex", "priority", "batch", "default"]),
    st.sampled_from([("openai", "gpt-5"), ("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5")]),
    st.integers(0, 300_000),
    st.integers(0, 10**6),
)
def test_a_tier_costs_what_the_list_itself_says(tier, route, prompt, completion):
    import genai_prices

    ours = PriceBook().cost(*route, Usage(prompt, completion, service_tier=tier), at=LATER)
    context = {"processing": "batch"} if tier == "batch" else {"service_tier": tier}
    theirs = genai_prices.calc_price(
        genai_prices.Usage(input_tokens=prompt, output_tokens=completion),
        route[1],
        provider_id=route[0],
        genai_request_timestamp=LATER,
        price_context=context,
    ).total_price
    is_listed = (
        tier == "default" or (route[0] == "openai" and (tier, route[1]) != ("flex", "gpt-4o")) or tier == "batch"
    )
    assert ours == (theirs if is_listed else None)


def test_input_that_anthropic_keeps_for_an_hour_costs_twice_as_much():
    usage = Usage(1000, 0, cache_write_tokens=1000, cache_write_1h_tokens=400)
    for model in ("claude-sonnet-4-5", "claude-3-5-sonnet-20241022", "claude-fable-5"):
        price = PriceBook().price("anthropic", model)
        assert price.cache_write_1h == 2 * price.input
        assert prices.cost("anthropic", model, usage) == (600 * price.cache_write + 400 * price.cache_write_1h) / 10**6


def test_whoever_sells_claude_keeps_it_for_an_hour_at_twice_the_price():
    price = PriceBook().price("openrouter", "anthropic/claude-haiku-4.5")
    assert price.cache_write_1h == 2 * price.input
    other = PriceBook().price("openai", "gpt-5.6")
    assert other.cache_write_1h is None


def test_listed_audio_has_its_own_price_and_what_the_list_leaves_out_none():
    heard = Usage(1000, 100, prompt_audio_tokens=400, completion_audio_tokens=100)
    assert prices.cost("openai", "gpt-audio", heard) == (600 * Decimal("2.5") + 400 * 32 + 100 * 64) / 10**6
    assert prices.cost("openai", "gpt-4o-audio-preview", USAGE) is not None
    assert prices.cost("openai", "gpt-4o-audio-preview", heard) is None
    assert prices.cost("google", "gemini-2.5-pro", heard) is not None


def test_web_searches_are_charged_as_listed():
    searched = Usage(1000, 100, raw={"server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}})
    model = "claude-sonnet-4-5"
    assert prices.cost("anthropic", model, searched) - prices.cost("anthropic", model, USAGE) == Decimal("0.02")


def test_the_configuration_may_name_every_rate_and_every_tier():
    rates = {"input": 1, "output": 2, "cached_input": 3, "cache_write": 4, "cache_write_1h": 5}
    rates |= {"audio_input": 6, "cached_audio": 7, "reasoning": 8, "audio_output": 9}
    price = PriceBook({"m": {**rates, "service_tiers": {"Flex": {"input": 0.5, "output": 1}}}}).price("x", "m")
    assert {name: getattr(price, name) for name in rates} == rates
    assert price.served("flex").input == Decimal("0.5")
    assert price.served("priority") is None
    for wrong in (5, {"flex": 5}, {"flex": {"output": 1}}, {"flex": {"input": -1}}):
        with pytest.raises(ConfigError, match=r"prices\.m"):
            PriceBook({"m": {**rates, "service_tiers": wrong}})


def test_a_whole_configuration_may_name_the_price_of_a_tier():
    from rubberduck.config import Config
    from rubberduck.wiring import prices_of

    tiers = {"flex": {"input": 0.1, "output": "0.2"}}
    told = {"providers": {"mock": {}}, "prices": {"mock/x": {"input": 1, "output": 2, "service_tiers": tiers}}}
    book = PriceBook(prices_of(Config.load(told)))
    flex = Usage(10, 10, service_tier="flex")
    assert book.cost("mock", "x", flex, route="mock/x") == Decimal("0.000003")


def test_a_model_that_writes_nothing_needs_no_price_for_it():
    """Vectors cost their input. What is written all the same has an unknown price, which is never zero."""
    from rubberduck.config import Config
    from rubberduck.wiring import prices_of

    told = {
        "providers": {"mock": {}},
        "prices": {"vectors": {"input": "0.02", "service_tiers": {"batch": {"input": 0.01}}}},
    }
    book = PriceBook(prices_of(Config.load(told)))
    assert book.cost("mock", "vectors", Usage(1_000_000, 0)) == Decimal("0.02")
    assert book.cost("mock", "vectors", Usage(1_000_000, 0, service_tier="batch")) == Decimal("0.01")
    assert book.cost("mock", "vectors", Usage(0, 0)) == 0
    assert book.cost("mock", "vectors", Usage(1_000_000, 1)) is None
    assert book.cost("mock", "vectors", Usage(1_000_000, 1, service_tier="batch")) is None


def test_a_cost_takes_microseconds_once_the_model_is_known():
    """The promise is 10 us; the bound is loose because test machines are busy. The best of five runs counts."""
    book = PriceBook()
    book.cost("openai", "gpt-4o", USAGE)

    def run():
        start = time.perf_counter()
        for _ in range(1000):
            book.cost("openai", "gpt-4o", USAGE)
        return (time.perf_counter() - start) / 1000

    assert min(run() for _ in range(5)) < 50e-6


def test_model_names_made_up_by_users_do_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(prices, "MAX_REMEMBERED", 10)
    book = PriceBook()
    for n in range(50):
        assert book.price("openai", f"made-up-{n}") is None
    assert len(book._known) <= 10


def test_importing_prices_does_not_load_the_list():
    script = "import sys, rubberduck.prices; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == 0


def test_the_list_knows_how_much_a_model_can_read_and_says_nothing_of_others() -> None:
    assert context_window("openai", "gpt-4o") == 128_000
    assert context_window("openai", "made-up") is None
    assert context_window("mock", "gpt-4o") is None
    assert context_window("", "gpt-4o") is None
