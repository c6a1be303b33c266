"""What is set aside for a call: never less than it can cost, however its tokens turn out and however it is served."""

from __future__ import annotations

import base64
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck.actors.board import Route
from rubberduck.actors.calls.worst_case import _UNSEEN, worst_case
from rubberduck.core import pricing
from rubberduck.core.pricing import Price
from rubberduck.errors import InvalidRequest
from rubberduck.types import Request, Usage

ROUTE = Route("it", "gpt-4o-mini")
DEAR = Price(
    Decimal(1),
    Decimal(2),
    cache_write=Decimal("1.25"),
    cache_write_1h=Decimal(3),
    audio_input=Decimal(40),
    audio_output=Decimal(80),
    service_tiers=(("flex", Price(Decimal("0.5"), Decimal(1))), ("priority", Price(Decimal(50), Decimal(100)))),
)
TEXT = Price(Decimal(1), Decimal(0))


class Told:
    """A provider that reads `extra` as all do, and knows prices of its own."""

    default_max_tokens = None

    def extra_of(self, request: Request) -> dict[str, Any]:
        if "broken" in request.extra:
            raise InvalidRequest("extra.it")
        return request.extra


class Office:
    """Prices tokens by a price of ours, or as a provider's own class would."""

    def __init__(self, price: Price | None, own: Price | None = None) -> None:
        self.board = SimpleNamespace(desks={"it": SimpleNamespace(vendor="", provider=Told())})
        self.price, self.own = price, own

    def cost(self, desk: Any, route: Route, usage: Usage) -> tuple[Decimal | None, Price | None]:
        return pricing.cost(usage, self.price or self.own), self.price


def asked(content: Any = "Hi", **options: Any) -> Request:
    messages = [{"role": "user", "content": content}]
    return Request.parse({"model": "gpt-4o-mini", "messages": messages, "max_tokens": 100} | options)


def worst(request: Request, price: Price | None = DEAR, own: Price | None = None) -> Decimal | None:
    return worst_case(Office(price, own), ROUTE, request)  # type: ignore[arg-type]


def input_of(*parts: Any) -> int:
    """How many tokens are set aside for parts."""
    return int((worst(asked([*parts]), TEXT) - worst(asked([]), TEXT)) * 10**6)  # type: ignore[operator]


@given(
    st.integers(0, 28),
    st.integers(0, 100),
    st.data(),
    st.sampled_from([(None, None), ("flex", None), ("flex", "flex"), ("priority", "priority"), ("auto", "priority")]),
    st.booleans(),
)
def test_no_answer_costs_more(prompt: int, output: int, data: Any, tiers: tuple[Any, Any], by_own_class: bool) -> None:
    wish, served = tiers
    written = data.draw(st.integers(0, prompt))
    usage = Usage(
        prompt,
        output,
        cache_write_tokens=written,
        cache_write_1h_tokens=data.draw(st.integers(0, written)),
        prompt_audio_tokens=data.draw(st.integers(0, prompt - written)),
        completion_audio_tokens=data.draw(st.integers(0, output)),
        service_tier=served,
    )
    if by_own_class and wish == "auto":
        return  # nobody but the provider knows which tiers there are
    request = asked(**({} if wish is None else {"service_tier": wish}))
    bound = worst(request, *((None, DEAR) if by_own_class else (DEAR,)))
    assert bound is not None
    assert pricing.cost(usage, DEAR) <= bound


@pytest.mark.parametrize("own_class", [False, True])
@pytest.mark.parametrize(
    "kind", ["input", "cache_write", "cache_write_1h", "audio_input", "output", "reasoning", "audio_output"]
)
def test_the_dearest_kind_is_what_counts_whoever_knows_the_price(kind: str, own_class: bool) -> None:
    dear = replace(Price(Decimal(1), Decimal(1)), **{kind: Decimal(1000)})
    bound = worst(asked(), *((None, dear) if own_class else (dear,)))
    assert bound is not None
    assert bound >= (28 if kind in ("input", "cache_write", "cache_write_1h", "audio_input") else 100) * Decimal(
        "0.001"
    )


def test_a_tier_is_taken_into_account_wherever_it_is_asked_for() -> None:
    plain = worst(asked())
    assert plain is not None
    for dear in (
        {"service_tier": "priority"},
        {"extra": {"service_tier": "priority"}},
        {"extra": {"speed": "priority"}},
    ):
        assert worst(asked(**dear)) > plain
    assert worst(asked(service_tier="flex")) == worst(asked(service_tier="default")) == plain
    assert worst(asked(service_tier="standard_only")) == plain
    assert worst(asked(service_tier="unheard-of")) is None
    assert worst(asked(extra={"broken": 1})) is not None
    assert worst(asked(extra={"service_tier": 5})) is not None


def test_without_a_price_the_worst_case_is_unknown() -> None:
    assert worst(asked(), None, None) is None
    assert worst(asked(), None, Price(Decimal(1), None)) is None


def test_media_are_taken_for_the_most_that_they_can_be() -> None:
    data = base64.b64encode(bytes(3000)).decode()
    picture = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    recording = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
    document = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{data}"}}
    assert input_of(picture) == 2833 + 8 * 5667
    assert input_of(recording) == 4000
    assert input_of(document) >= 4000
    assert input_of({"type": "file", "file": {"file_id": "file-1"}}) == _UNSEEN


@pytest.mark.parametrize("field", ["reasoning", "native"])
def test_what_goes_back_beside_the_text_counts(field: str) -> None:
    odd = {"reasoning": "x" * 500, "native": {"format": "responses", "model": "m", "items": [{"data": "x" * 500}]}}
    said = {"role": "assistant", "content": "Hi"}
    plain, more = (
        worst(asked(messages=[{"role": "user", "content": "Hi"}, turn]), TEXT)
        for turn in (said, said | {field: odd[field]})
    )
    assert more - plain >= Decimal("0.0005")  # type: ignore[operator]
