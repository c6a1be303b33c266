"""Money, times and counts as people read them."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal


def money(amount: Decimal | None) -> str:
    """US dollars to the cent, small amounts to two digits that say something; None is an unknown price."""
    if amount is None:
        return "price unknown"
    if amount == 0:
        return "free"
    places = 2 if abs(amount) >= 1 else max(2, 1 - amount.adjusted())
    return f"${amount.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_UP):,f}"


def span(seconds: float) -> str:
    """A length of time: "0.52 s", "12 s", "3 min 5 s"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if rest else f"{minutes} min"


def size(size_bytes: int) -> str:
    """A file's size: "98.4 MB"."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 100_000 else f"{size_bytes / 1e3:.1f} kB"
