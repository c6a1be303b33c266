"""How long a crashed child waits before it is started again: exponential, bounded, jittered.

The formula is that of Pekko's backoff supervision
(apache/pekko, actor-typed/src/main/scala/org/apache/pekko/actor/typed/internal/Supervision.scala):
`min(max, min * 2**n) * (1 + rand * jitter)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from supervision.errors import SpecError
from supervision.specs import validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """The waits between restarts of one child, in seconds.

    `n`, the exponent, is 0 again once the child has gone `reset_after` seconds without a restart; that is the middle
    of `min` and `max` unless given. `jitter` is the share by which a wait may be longer, drawn anew for each.
    """

    min: float
    max: float
    jitter: float = 0.2
    reset_after: float | None = None

    def __post_init__(self) -> None:
        for field in ("min", "max"):
            object.__setattr__(self, field, validation.seconds(getattr(self, field), f"Backoff.{field}", positive=True))
        if self.min > self.max:
            raise SpecError(f"Backoff: min {self.min} is greater than max {self.max}")
        object.__setattr__(self, "jitter", validation.seconds(self.jitter, "Backoff.jitter"))
        reset_after = (self.min + self.max) / 2 if self.reset_after is None else self.reset_after
        object.__setattr__(self, "reset_after", validation.seconds(reset_after, "Backoff.reset_after"))

    def delay(self, n: int, rand: float) -> float:
        """Seconds to wait before the restart after `n` earlier ones; `rand` is drawn from [0, 1)."""
        return self._base(n) * (1 + rand * self.jitter)

    def step_after(self, n: int, steady_for: float) -> int:
        """The exponent of the next wait, when the child has run for `steady_for` seconds since its last restart."""
        assert self.reset_after is not None  # resolved when made
        return 0 if steady_for >= self.reset_after else n

    def _base(self, n: int) -> float:
        # Compared as logarithms: 2**n overflows a float long before a crash loop ends.
        if n >= math.log2(self.max) - math.log2(self.min):
            return self.max
        return min(self.max, math.ldexp(self.min, n))
