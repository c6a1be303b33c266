"""What a number of tokens costs: exact decimal arithmetic, and an honest None where nobody knows.

Money is USD in `Decimal`, never a float. The smallest amount told apart is one pico-dollar (1e-12 USD):
published prices of up to six decimals per million tokens are exact in it, finer ones are rounded
half-even, once, at the end. The ledger keeps the same unit, so what an answer says it cost is what the
ledger sums up.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Protocol

PICO = Decimal("1e-12")
_EXACT = Context(prec=80, rounding=ROUND_HALF_EVEN)  # wide enough that no product or sum below is ever rounded


class Tokens(Protocol):
    """The counts that a price is applied to: `rubberduck.Usage`, or anything with its fields.

    `prompt_tokens` is all input, cached and cache-written included; `completion_tokens` all output,
    reasoning included. None means that the provider did not say.
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


@dataclass(frozen=True, slots=True)
class Price:
    """What one model costs, in USD per million tokens, and where we know it from.

    A rate that is None has no price of its own: cached and cache-written input then cost what other input
    costs, reasoning what other output costs. `output=None` means that no output is sold (embeddings): a
    usage that has some has no known cost. `per_request` is USD for each call, whatever its tokens.

    `tiers` holds (threshold, price), thresholds rising: a call with more input tokens than a threshold pays
    that price for all its tokens, not only for those above it. `source` and `date` stand in the ledger
    beside each cost.
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

    def __post_init__(self) -> None:
        for rate in (self.input, self.output, self.cached_input, self.cache_write, self.reasoning, self.per_request):
            if rate is not None and not (rate.is_finite() and rate >= 0):
                raise ValueError(f"a price is a finite number of USD that is not below zero, not {rate}")

    def for_input(self, prompt_tokens: int) -> Price:
        """The price that a call with so many input tokens pays."""
        applicable = self
        for threshold, price in self.tiers:
            if prompt_tokens > threshold:
                applicable = price
        return applicable


def cost(usage: Tokens, price: Price | None) -> Decimal | None:
    """What `usage` costs at `price`, in USD; None where that cannot be known, never a guess.

    Counts that contradict each other (more cached tokens than input) are each charged as they are told; a
    negative count is no count, and the cost is unknown.
    """
    if price is None:
        return None
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    cached, written, reasoning = usage.cached_tokens or 0, usage.cache_write_tokens or 0, usage.reasoning_tokens or 0
    if min(prompt, completion, cached, written, reasoning) < 0:
        return None
    due = price.for_input(prompt) if price.tiers else price
    millionths = _charge(prompt, due.input, ((cached, due.cached_input), (written, due.cache_write)))
    if completion:
        if due.output is None:
            return None
        millionths = _EXACT.add(millionths, _charge(completion, due.output, ((reasoning, due.reasoning),)))
    return _usd(millionths, due.per_request)


def _charge(total: int, rate: Decimal, special: tuple[tuple[int, Decimal | None], ...]) -> Decimal:
    """`total` tokens in millionths of a USD, those of them that have a rate of their own charged at that."""
    charge = Decimal(0)
    for count, own_rate in special:
        if count and own_rate is not None:
            charge = _EXACT.fma(count, own_rate, charge)
            total -= count
    return _EXACT.fma(max(0, total), rate, charge)


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
