"""What the bundled list says of a model, as our `Price`: its rates, its thresholds, and its prices by service tier.

Rates may change with the date or the hour, and those of a tier may be known from some date on only; before it their
price is unknown. Input that Claude keeps for an hour costs twice what other input costs, where the list does not name
it, whoever sells it (Anthropic, "Prompt caching", pricing: 1.25 times for 5 minutes, 2 times for an hour).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from rubberduck.core.pricing import Price

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, StartDateConstraint, TimeOfDateConstraint

_TIERS: Mapping[tuple[str, str], str] = {("processing", "batch"): "batch", ("speed", "fast"): "fast"}
"""What the list calls otherwise than by `service_tier`, in the words that we use for it."""
_KEPT_FOR_AN_HOUR = {"claude": 2}
_AUDIO_IS_DEARER = {"openai", "azure", "openrouter"}
"""The list has some of their audio models without rates for audio, which cost a multiple of those for text."""
_FREE_USES = (("web_fetch_requests", Decimal(0)),)
"""Anthropic, "Web fetch tool": no charge beside the tokens."""


class _Origin(NamedTuple):
    """What a price is of, and where we know it from."""

    vendor: str
    model: str
    source: str


class Listed:
    """A model whose price depends on the time; each price that it has had is made once."""

    __slots__ = ("_constraints", "_info", "_origin", "_prices")

    def __init__(self, info: ModelInfo, vendor: str, source: str) -> None:
        self._info, self._origin = info, _Origin(vendor, info.id, source)
        self._constraints = _distinct(_constraints(info))
        self._prices: dict[tuple[bool, ...], Price | None] = {}

    def at(self, moment: datetime) -> Price | None:
        """The price of a call that starts then."""
        active = tuple([constraint.active(moment) for constraint in self._constraints])
        try:
            return self._prices[active]
        except KeyError:
            price = self._prices[active] = self._made(moment)
            return price

    @property
    def is_constant(self) -> bool:
        return not self._constraints

    def _made(self, moment: datetime) -> Price | None:
        price = _converted(vars(self._info.get_prices(moment)), self._origin)
        if price is None:
            return None
        served = []
        for tier, context in _served(self._info, moment):
            own = _converted(vars(self._info.get_prices(moment, context)), self._origin)
            if own is not None:
                served.append((tier, own))
        return replace(price, date=self._since(moment), service_tiers=tuple(served))

    def _since(self, moment: datetime) -> str | None:
        """Since when the ordinary price holds, where the list says so."""
        prices = self._info.prices if isinstance(self._info.prices, list) else ()
        begun = [each.constraint for each in prices if each.constraint is not None and each.constraint.active(moment)]
        starts = [start for each in begun if (start := getattr(each, "start_date", None)) is not None]
        return max(starts).isoformat() if starts else None


def listed(info: ModelInfo, vendor: str, source: str) -> Price | Listed | None:
    """A price, or one that depends on the time; None for what is sold by other units than tokens."""
    entry = Listed(info, vendor, source)
    return entry.at(datetime.now(UTC)) if entry.is_constant else entry


def _constraints(info: ModelInfo) -> Iterable[StartDateConstraint | TimeOfDateConstraint | None]:
    yield from (each.constraint for each in (info.prices if isinstance(info.prices, list) else ()))
    yield from (each.constraint for each in info.price_variants or ())


def _distinct(
    constraints: Iterable[StartDateConstraint | TimeOfDateConstraint | None],
) -> tuple[StartDateConstraint | TimeOfDateConstraint, ...]:
    found: list[StartDateConstraint | TimeOfDateConstraint] = []
    for each in constraints:
        if each is not None and each not in found:
            found.append(each)
    return tuple(found)


def _served(info: ModelInfo, moment: datetime) -> Iterable[tuple[str, dict[str, str]]]:
    """The tiers that the list knows at that time, and how it calls them."""
    seen = set()
    for variant in info.price_variants or ():
        if len(variant.when) != 1 or not (variant.constraint is None or variant.constraint.active(moment)):
            continue
        ((key, value),) = variant.when.items()
        tier = value if key == "service_tier" else _TIERS.get((key, value))
        if tier is not None and tier not in seen:
            seen.add(tier)
            yield tier.lower(), dict(variant.when)


def _converted(rates: Mapping[str, Any], origin: _Origin) -> Price | None:
    """One entry of the list as our Price; None for what is sold by other units than tokens."""
    rates = {name: value for name, value in rates.items() if value is not None}
    if "input_mtok" not in rates:
        return None
    thresholds = sorted({tier.start for rate in rates.values() for tier in getattr(rate, "tiers", ())})
    tiers = tuple((start, _flat(rates, start, origin)) for start in thresholds)
    return replace(_flat(rates, -1, origin), tiers=tiers)


def _flat(rates: Mapping[str, Any], start: int, origin: _Origin) -> Price:
    """The rates that hold just above `start` input tokens."""

    def rate(name: str) -> Decimal | None:
        value = rates.get(name)
        if value is None or isinstance(value, Decimal):
            return value
        reached = [tier.price for tier in value.tiers if tier.start <= start]
        chosen: Decimal = reached[-1] if reached else value.base
        return chosen

    plain, long, search = rate("input_mtok") or Decimal(0), rate("cache_write_1h_mtok"), rate("web_searches_kcount")
    if long is None and rate("cache_write_mtok") is not None:
        factors = [factor for name, factor in _KEPT_FOR_AN_HOUR.items() if name in origin.model]
        long = plain * factors[0] if factors else None
    sold = {"input_audio_mtok", "output_audio_mtok"} & rates.keys()
    searches = () if search is None else (("web_search_requests", search / 1000),)
    return Price(
        input=plain,
        output=rate("output_mtok"),
        cached_input=rate("cache_read_mtok"),
        cache_write=rate("cache_write_mtok"),
        cache_write_1h=long,
        audio_input=rate("input_audio_mtok"),
        cached_audio=rate("cache_audio_read_mtok"),
        audio_output=rate("output_audio_mtok"),
        reasoning=rate("output_reasoning_mtok"),
        per_request=(rate("requests_kcount") or Decimal(0)) / 1000,
        uses=searches + _FREE_USES,
        is_audio_known=bool(sold) or origin.vendor not in _AUDIO_IS_DEARER,
        source=origin.source,
    )
