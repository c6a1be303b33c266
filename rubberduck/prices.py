"""What models cost: the configuration's word first, then bundled list prices, then an honest "unknown".

The list prices are those that come with the genai-prices package; nothing here ever asks the network. They
belong to vendors, so they are looked up by the vendor's word ("openai", "anthropic"), not by the name that a
provider has in the configuration. The local model costs nothing. The mock, and every vendor or model that is
not listed, has no price unless the configuration gives one: its cost is None, never zero.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from rubberduck.core import pricing
from rubberduck.core.pricing import Price, Tokens
from rubberduck.errors import ConfigError

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

LOCAL = Price(Decimal(0), Decimal(0), source="local")
FREE_VENDORS = frozenset({"local"})
UNPRICED_VENDORS = frozenset({"mock"})
MAX_REMEMBERED = 10_000
"""Model names come from users; beyond so many the memory of lookups starts anew."""
_RATES = {"input", "output", "cached_input", "cache_write"}

_Listed = Price | tuple["ModelInfo", str] | None


class PriceBook:
    """Prices with the configuration's `prices` on top: `{"<route or model>": {"input", "output", "cached_input"}}`.

    Any thread may use it. `price` and `cost` are fast from the second call for a model on.

    Raises:
        ConfigError: when made, naming every override that is no price.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._overrides = _parse(overrides or {})
        self._known: dict[tuple[str, str], _Listed] = {}

    def price(self, vendor: str, model: str, *, route: str = "", at: datetime | None = None) -> Price | None:
        """The price of `model`; `route` ("<provider name>/<model>") finds an override of that route alone.

        `at` is the time of the call (default: now), for the few prices that change with the hour or the date.
        """
        if self._overrides:
            override = self._overrides.get(route) or self._overrides.get(model)
            if override is not None:
                return override
        key = (vendor, model)
        try:
            listed = self._known[key]
        except KeyError:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            listed = self._known[key] = _listed(vendor, model)
        return listed if listed is None or isinstance(listed, Price) else _price_at(listed, at or datetime.now(UTC))

    def cost(
        self, vendor: str, model: str, usage: Tokens, *, route: str = "", at: datetime | None = None
    ) -> Decimal | None:
        """What `usage` costs in USD; None where the price is unknown."""
        return pricing.cost(usage, self.price(vendor, model, route=route, at=at))


@cache
def _list_prices() -> PriceBook:
    return PriceBook()


def cost(vendor: str, model: str, usage: Tokens) -> Decimal | None:
    """What `usage` costs at list price, in USD; None where the price is unknown."""
    return _list_prices().cost(vendor, model, usage)


def _parse(overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Price]:
    prices, problems = {}, []
    for name, rates in overrides.items():
        try:
            prices[name] = _override(rates)
        except (ValueError, TypeError) as error:
            problems.append(f"prices.{name}: {error}")
    if problems:
        raise ConfigError("; ".join(problems), problems=tuple(problems))
    return prices


def _override(rates: Mapping[str, Any]) -> Price:
    if not isinstance(rates, Mapping):
        raise TypeError("a price is a table of input, output and cached_input, in USD per million tokens")
    if unknown := rates.keys() - _RATES:
        raise ValueError(f"unknown: {', '.join(sorted(map(str, unknown)))}; known are {', '.join(sorted(_RATES))}")
    if "input" not in rates:
        raise ValueError("input is missing")
    output, cached, written = (
        None if rates.get(name) is None else _number(name, rates[name])
        for name in ("output", "cached_input", "cache_write")
    )
    return Price(_number("input", rates["input"]), output, cached, written, source="config")


def _number(name: str, value: Any) -> Decimal:
    """A float is taken for the digits it was written with: 0.1 is a tenth."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise TypeError(f"{name} is a number of USD per million tokens, not {value!r}")
    try:
        return Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"{name} is a number of USD per million tokens, not {value!r}") from None


_import = threading.Lock()


def is_listed(vendor: str) -> bool:
    """Whether the bundled list may know what a vendor's models cost; empty is nobody."""
    return bool(vendor) and vendor not in FREE_VENDORS and vendor not in UNPRICED_VENDORS


def preload() -> None:
    """Load the bundled list, which takes about 0.15 s: too long for an event loop at its first price."""
    with _import:
        from genai_prices.data_snapshot import get_snapshot

        get_snapshot()


def _listed(vendor: str, model: str) -> _Listed:
    """What the bundled list says: a price, a model whose price depends on the time (with its source), or nothing."""
    if vendor in FREE_VENDORS:
        return LOCAL
    if not is_listed(vendor):
        return None
    info = _entry(vendor, model)
    if info is None:
        return None
    from genai_prices import __version__

    source = f"genai-prices {__version__}"
    return (info, source) if isinstance(info.prices, list) else _converted(_Same(info.prices), source)


@lru_cache(maxsize=MAX_REMEMBERED)
def context_window(vendor: str, model: str) -> int | None:
    """How many tokens a vendor's model can read and write together, by the bundled list; None where it does not say."""
    info = _entry(vendor, model) if is_listed(vendor) else None
    return None if info is None else info.context_window


def _entry(vendor: str, model: str) -> ModelInfo | None:
    """What the list holds of a vendor's model. It also matches names that contain the vendor's: these are not meant."""
    preload()
    from genai_prices.data_snapshot import get_snapshot

    try:
        seller, info = get_snapshot().find_provider_model(model, None, vendor, None)
    except LookupError:
        return None
    return info if seller.id == vendor else None


def _price_at(listed: tuple[ModelInfo, str], at: datetime) -> Price | None:
    info, source = listed
    price = _converted(_Same(info.get_prices(at)), source)
    starts = [
        start
        for conditional in (info.prices if isinstance(info.prices, list) else ())
        if (start := getattr(conditional.constraint, "start_date", None)) is not None and start <= at.date()
    ]
    return replace(price, date=max(starts).isoformat()) if price and starts else price


class _Same:
    """A price of the list as a cache key: by identity, for its own equality is slow and it has no hash."""

    __slots__ = ("prices",)

    def __init__(self, prices: ModelPrice) -> None:
        self.prices = prices

    def __hash__(self) -> int:
        return id(self.prices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.prices is self.prices


@cache
def _converted(key: _Same, source: str) -> Price | None:
    """One entry of the list as our Price; None for what is sold by other units than tokens."""
    rates = {name: value for name, value in vars(key.prices).items() if value is not None}
    if "input_mtok" not in rates:
        return None
    thresholds = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    tiers = tuple((start, _flat(rates, start, source)) for start in thresholds)
    return replace(_flat(rates, -1, source), tiers=tiers)


def _flat(rates: Mapping[str, Any], start: int, source: str) -> Price:
    """The rates that hold just above `start` input tokens."""

    def rate(name: str) -> Decimal | None:
        value = rates.get(name)
        if value is None or isinstance(value, Decimal):
            return value
        reached = [tier.price for tier in value.tiers if tier.start <= start]
        chosen: Decimal = reached[-1] if reached else value.base
        return chosen

    return Price(
        input=rate("input_mtok") or Decimal(0),
        output=rate("output_mtok"),
        cached_input=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok"),
        reasoning=rate("output_reasoning_mtok"),
        per_request=(rate("requests_kcount") or Decimal(0)) / 1000,
        source=source,
    )
