"""What a number of tokens costs: exact decimal arithmetic, and an honest None where nobody knows.

Money is USD in `Decimal`, never a float. The smallest amount told apart is one pico-dollar (1e-12 USD):
published prices of up to six decimals per million tokens are exact in it, finer ones are rounded
half-even, once, at the end. The ledger keeps the same unit, so what an answer says it cost is what the
ledger sums up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any, Protocol

PICO = Decimal("1e-12")
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)  # wide enough that no product or sum below is ever rounded
ORDINARY_TIERS = frozenset({"default", "standard", "standard_only", "auto", "on_demand"})
"""Words of OpenAI, Anthropic and Groq for a call that was served at the ordinary price."""


class Tokens(Protocol):
    """The counts that a price is applied to: `rubberduck.Usage`, or anything with its fields.

    `prompt_tokens` is all input, cached and cache-written included, and `completion_tokens` all output, reasoning
    included; of these the others are parts. None means that the provider did not say.
    """

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int | None: ...
    @property
    def cache_write_tokens(self) -> int | None: ...
    @property
    def reasoning_tokens(self) -> int | None: ...
    @property
    def cache_write_1h_tokens(self) -> int | None: ...
    @property
    def prompt_audio_tokens(self) -> int | None: ...
    @property
    def completion_audio_tokens(self) -> int | None: ...
    @property
    def service_tier(self) -> str | None: ...
    @property
    def raw(self) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs, in USD per million tokens, and where we know it from.

    A rate that is None has no price of its own: cached, cache-written and audio input then cost what other input
    costs, reasoning and spoken output what other output costs, input that is kept for an hour what other cache-written
    input costs, cached audio what other audio costs. `output=None` means that no output is sold (embeddings): a
    usage that has some has no known cost. `per_request` is USD for each call, whatever its tokens.

    `tiers` are prices above a number of input tokens, in rising order: above it, all tokens of the call cost that.
    `service_tiers` are prices by the provider's word for how the call was served ("flex", "priority", "batch"); under
    a word that is neither here nor ordinary the cost is unknown. So it is of audio with `is_audio_known` False: it has
    a price of its own, and nobody told us. `uses` is USD for each use of a server's tool, by the name of its counter;
    what is used and not named there makes the cost unknown.
    """

    input: Decimal
    output: Decimal | None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    source: str = ""
    date: str | None = None
    reasoning: Decimal | None = None
    per_request: Decimal = Decimal(0)
    tiers: tuple[tuple[int, Price], ...] = ()
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    cached_audio: Decimal | None = None
    audio_output: Decimal | None = None
    service_tiers: tuple[tuple[str, Price], ...] = ()
    uses: tuple[tuple[str, Decimal], ...] = ()
    is_audio_known: bool = True

    def __post_init__(self) -> None:
        for rate in (*self._input_rates, *self._output_rates, self.per_request, *(usd for _, usd in self.uses)):
            if rate is not None and not (rate.is_finite() and rate >= 0):
                raise ValueError(f"a price is a finite number of USD that is not below zero, not {rate}")

    @property
    def _input_rates(self) -> tuple[Decimal | None, ...]:
        cached = self.cached_input, self.cached_audio
        return (self.input, *cached, self.cache_write, self.cache_write_1h, self.audio_input)

    @property
    def _output_rates(self) -> tuple[Decimal | None, ...]:
        return (self.output, self.reasoning, self.audio_output)

    def for_input(self, prompt_tokens: int) -> Price:
        """The price that a call with so many input tokens pays."""
        applicable = self
        for threshold, price in self.tiers:
            if prompt_tokens > threshold:
                applicable = price
        return applicable

    def served(self, tier: str | None) -> Price | None:
        """The price of a call that was served so; None if it is unknown."""
        if not tier:
            return self
        word = tier.lower()
        for name, price in self.service_tiers:
            if name == word:
                return price
        return self if word in ORDINARY_TIERS or self._is_free else None

    @property
    def _is_free(self) -> bool:
        """Whatever is made of nothing is nothing."""
        return not any((*self._input_rates, *self._output_rates, self.per_request)) and not self.tiers


def cost(usage: Tokens, price: Price | None) -> Decimal | None:
    """What `usage` costs at `price`, in USD; None where that cannot be known, never a guess.

    Counts that contradict each other (more cached tokens than input) are each charged as they are told; a
    negative count is no count, and the cost is unknown.
    """
    if price is not None and usage.service_tier:
        price = price.served(usage.service_tier)
    if price is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached, written, reasoning = usage.cached_tokens or 0, usage.cache_write_tokens or 0, usage.reasoning_tokens or 0
    long, heard, spoken = usage.cache_write_1h_tokens, usage.prompt_audio_tokens, usage.completion_audio_tokens
    if min(prompt, completion, cached, written, reasoning, long or 0, heard or 0, spoken or 0) < 0:
        return None
    if (heard or spoken) and not price.is_audio_known:
        return None
    due = price.for_input(prompt) if price.tiers else price
    if long or heard:
        parts = _rare_input(due, prompt, cached, written, long or 0, heard or 0)
    else:
        parts = ((cached, due.cached_input), (written, due.cache_write))
    millionths = _charge(prompt, due.input, parts)
    if completion:
        if due.output is None:
            return None
        out = ((reasoning, due.reasoning), (spoken or 0, due.audio_output))
        millionths = _EXACT.add(millionths, _charge(completion, due.output, out))
    fees = due.per_request
    if usage.raw and (used := usage.raw.get("server_tool_use")):
        extra = _fees(used, due)
        if extra is None:
            return None
        fees = _EXACT.add(fees, extra)
    return _usd(millionths, fees)


_Parts = tuple[tuple[int, Decimal | None], ...]


def _rare_input(due: Price, prompt: int, cached: int, written: int, long: int, heard: int) -> _Parts:
    """Input of which some is audio, or is written to a cache for an hour.

    Providers do not say how much of the audio was cached: as little as the other counts allow.
    """
    written = max(written, long)
    heard_again = min(heard, cached, max(0, cached + written + heard - prompt)) if due.audio_input is not None else 0
    return (
        (cached - heard_again, due.cached_input),
        (heard_again, due.audio_input if due.cached_audio is None else due.cached_audio),
        (heard - heard_again, due.audio_input),
        (written - long, due.cache_write),
        (long, due.cache_write if due.cache_write_1h is None else due.cache_write_1h),
    )


def _charge(total: int, rate: Decimal, special: _Parts) -> Decimal:
    """`total` tokens in millionths of a USD, those of them that have a rate of their own charged at that."""
    charge = Decimal(0)
    for count, own_rate in special:
        if count and own_rate is not None:
            charge = _EXACT.fma(count, own_rate, charge)
            total -= count
    return _EXACT.fma(max(0, total), rate, charge)


def _fees(used: object, due: Price) -> Decimal | None:
    """What the uses of a server's tools cost beside the tokens; None if one of them has no known price."""
    if not isinstance(used, Mapping):
        return None
    fees, known = Decimal(0), dict(due.uses)
    for name, times in used.items():
        if not times:
            continue
        if name not in known or not isinstance(times, int) or times < 0:
            return None
        fees = _EXACT.fma(times, known[name], fees)
    return fees


def worst_case(price: Price, prompt: int, output: int, served: Iterable[str | None] = (None,)) -> Decimal | None:
    """The most that at most so many tokens can cost, of whatever kind they turn out to be; None if that is unknown.

    `served` are the tiers that may serve the call. The uses of a server's tools are beside it.
    """
    most = Decimal(0)
    for tier in served:
        whole = price.served(tier)
        if whole is None:
            return None
        for due in (whole, *(above for threshold, above in whole.tiers if threshold < prompt)):
            if output and due.output is None:
                return None
            millionths = _charge(prompt, max(filter(None, due._input_rates), default=Decimal(0)), ())
            out = _charge(output, max(filter(None, due._output_rates), default=Decimal(0)), ())
            most = max(most, _usd(_EXACT.add(millionths, out), due.per_request))
    return most


def _usd(millionths: Decimal, per_request: Decimal) -> Decimal:
    usd = _EXACT.add(_EXACT.scaleb(millionths, -6), per_request)
    exponent = usd.as_tuple().exponent
    assert isinstance(exponent, int)  # only NaN and infinities have none, and no price is one
    return plain(usd if exponent >= -12 else _EXACT.quantize(usd, PICO))


def to_pico(usd: Decimal) -> int:
    """USD as whole pico-dollars, rounded half-even.

    Raises:
        ValueError: for what is no amount of money: not finite, or below zero.
    """
    if not usd.is_finite() or usd < 0:
        raise ValueError(f"an amount of money is a finite number of USD that is not below zero, not {usd}")
    return int(_EXACT.to_integral_value(_EXACT.scaleb(usd, 12)))


def from_pico(pico: int) -> Decimal:
    """Whole pico-dollars as USD, without trailing zeros."""
    return plain(_EXACT.scaleb(Decimal(pico), -12))


def plain(amount: Decimal) -> Decimal:
    """The same amount without trailing zeros and without an exponent: 0.5, not 0.500; 100, not 1E+2."""
    short = _EXACT.normalize(amount)
    return _EXACT.quantize(short, Decimal(1)) if short == short.to_integral_value() else short
