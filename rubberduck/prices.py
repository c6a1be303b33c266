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
    from genai_prices.types import ModelInfo

    from rubberduck.price_list import Listed

LOCAL = Price(Decimal(0), Decimal(0), source="local")
FREE_VENDORS = frozenset({"local"})
UNPRICED_VENDORS = frozenset({"mock"})
MAX_REMEMBERED = 10_000
"""Model names come from users; beyond so many the memory of lookups starts anew."""
_RATES = frozenset({
    *("input", "cached_input", "cache_write", "cache_write_1h", "audio_input", "cached_audio"),
    *("output", "reasoning", "audio_output"),
})  # fmt: skip
_OPTIONS = _RATES | {"service_tiers"}


class PriceBook:
    """Prices with the configuration's `prices` on top: `{"<route or model>": {"input", "output", ...}}`.

    The rates are those of `Price`, without thresholds; `service_tiers` holds prices by the provider's word for them.

    Any thread may use it. `price` and `cost` are fast from the second call for a model on.

    Raises:
        ConfigError: when made, naming every override that is no price.
    """

    def __init__(self, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._overrides = _parse(overrides or {})
        self._known: dict[tuple[str, str], Price | Listed | None] = {}

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
        return listed if listed is None or isinstance(listed, Price) else listed.at(at or datetime.now(UTC))

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
        raise TypeError("a price is a table of input, output and other rates, in USD per million tokens")
    if unknown := rates.keys() - _OPTIONS:
        raise ValueError(f"unknown: {', '.join(sorted(map(str, unknown)))}; known are {', '.join(sorted(_OPTIONS))}")
    if rates.get("input") is None:
        raise ValueError("input is missing")
    given: dict[str, Any] = {
        name: _number(name, value) for name, value in rates.items() if value is not None and name in _RATES
    }
    tiers = rates.get("service_tiers") or {}
    if not isinstance(tiers, Mapping):
        raise TypeError("service_tiers is a table of prices by the name of the tier")
    served = tuple([(str(tier).lower(), _override(own)) for tier, own in tiers.items()])
    bare = Price(given.pop("input"), given.pop("output", None), source="config", service_tiers=served)
    return replace(bare, **given)


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


def _listed(vendor: str, model: str) -> Price | Listed | None:
    """What the bundled list says: a price, one that depends on the time, or nothing."""
    if vendor in FREE_VENDORS:
        return LOCAL
    if not is_listed(vendor):
        return None
    info = _entry(vendor, model)
    if info is None:
        return None
    from genai_prices import __version__

    from rubberduck import price_list

    return price_list.listed(info, vendor, f"genai-prices {__version__}")


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
