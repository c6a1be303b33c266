"""Which of a provider's keys a request takes, and what must not be used for a while.

    refused key          5 minutes, twice as long each further time, 1 hour at most
    refused for a model  the same, for that key with that model alone
    used-up account      until the reset that the provider stated, else 1 hour
    unknown model        5 minutes, with every key

A quarantine that is over is not forgotten. First one request at a time may look whether the provider has changed its
mind: an answer ends it, a refusal lays it anew. Whatever else a request comes to decides nothing.

Nothing here knows a secret: a key is its place in the configuration, and a name by which people speak of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf

from rubberduck.core.classify import Quarantine
from rubberduck.core.sliding import TIME_TOLERANCE

REFUSED_SECONDS = 300.0
LONGEST_REFUSED_SECONDS = 3600.0
QUOTA_SECONDS = 3600.0
LONGEST_RESET_SECONDS = 86_400.0
"""A stated reset is believed for a day at most; then one request looks again."""
MODEL_SECONDS = 300.0
LOOK_AGAIN_SECONDS = 1.0
"""When to come back while somebody else's request is looking whether a quarantine may end."""
REMEMBERED = 1000
"""Names of models come from users; beyond so many quarantines the oldest is forgotten."""

REASONS = {
    Quarantine.KEY: "key quarantined (refused)",
    Quarantine.QUOTA: "key quarantined (quota)",
    Quarantine.ROUTE: "model not found",
}

Place = tuple[int | None, str | None]
"""What a quarantine is about: a key, a model, or a key with a model; None is any."""


@dataclass(frozen=True, slots=True)
class Barred:
    """Why nothing can be sent now, and in how many seconds that may be different."""

    reason: str
    retry_after: float


@dataclass(slots=True, eq=False)  # not frozen, which would cost each attempt half a microsecond
class Use:
    """One request's right to use a key; after `until` nobody counts on it any more. `number` tells what came first."""

    key: int
    model: str
    number: int
    until: float


@dataclass(frozen=True, slots=True)
class Quarantined:
    """What has just been put away, for how many seconds, and how often in a row.

    `key` is the public name, None where every key is meant; `model` None is every model.
    """

    key: str | None
    model: str | None
    kind: Quarantine
    seconds: float
    times: int


@dataclass(frozen=True, slots=True)
class QuarantineStats:
    """A quarantine as an operator sees it. `remaining` 0: one request at a time may look whether it can end."""

    key: str | None
    model: str | None
    kind: str
    remaining: float
    times: int


@dataclass(slots=True)
class _Term:
    kind: Quarantine
    number: int
    until: float
    times: int = 1
    probe: Use | None = None

    def is_probed(self, now: float) -> bool:
        return self.probe is not None and now <= self.probe.until

    def wait(self, now: float) -> float:
        """Seconds until it admits somebody, 0 if it does; an estimate while somebody is looking."""
        if self.until - now > TIME_TOLERANCE:
            return self.until - now
        return LOOK_AGAIN_SECONDS if self.is_probed(now) else 0.0


class KeyPool:
    """The keys of one provider. `names` are public, in the order of the configuration; one that has none is "".

    `now` is monotonic seconds.
    """

    def __init__(self, names: Sequence[str] = ("",)) -> None:
        if not names:
            raise ValueError("a provider without keys has one without a name")
        self.names = tuple(names)
        self._terms: dict[Place, _Term] = {}
        self._last_used = [0] * len(self.names)
        # Counts picks, uses and quarantines: several may fall on one reading of the clock.
        self._number = 0

    # -- choosing ------------------------------------------------------------------------------------------

    def obstacle(self, model: str, now: float) -> Barred | None:
        """Why no key can be used with `model` now, and when the first one can; None if one can."""
        if not self._terms:
            return None
        barred = [self._barred(key, model, now) for key in range(len(self.names))]
        soonest: Barred | None = None
        for each in barred:
            if each is None:
                return None
            if soonest is None or each.retry_after < soonest.retry_after:
                soonest = each
        return soonest

    def usable(self, model: str, now: float) -> Sequence[int]:
        """The keys that can be used with `model` now."""
        every = range(len(self.names))
        return [key for key in every if self._barred(key, model, now) is None] if self._terms else every

    def pick(self, model: str, now: float, wait_of: Callable[[int], float] | None = None) -> int | None:
        """The key that has the least to wait, of several that which was picked longest ago; None if all are barred."""
        if not self._terms and len(self.names) == 1:
            return 0
        usable = self.usable(model, now)
        if len(usable) < 2 or wait_of is None:
            key = min(usable, key=self._last_used.__getitem__, default=None)
        else:
            key = min(usable, key=lambda each: (wait_of(each), self._last_used[each]))
        if key is not None and len(self.names) > 1:
            self._last_used[key] = self._next_number()
        return key

    # -- using ---------------------------------------------------------------------------------------------

    def claim(self, key: int, model: str, now: float, until: float = inf) -> Use | Barred:
        """Begin to use a key, at the last moment before something is sent: give it back by `until`.

        Where a quarantine has just ended this is the one request that looks whether it may.
        """
        use = Use(key, model, self._next_number(), until)
        if self._terms:
            barred = self._barred(key, model, now)
            if barred is not None:
                return barred
            for _, term in self._about(key, model):
                term.probe = use
        return use

    def give_back(self, use: Use) -> None:
        """The request is over, or was never sent; who looks next may. Idempotent."""
        if self._terms:
            for _, term in self._about(use.key, use.model):
                if term.probe is use:
                    term.probe = None

    def accepted(self, use: Use) -> None:
        """The provider has begun to answer: what is known of this key and model is good again.

        Unless it was put away after this request had been sent.
        """
        if self._terms:
            for place, term in list(self._about(use.key, use.model)):
                if use.number > term.number:
                    del self._terms[place]

    def refused(
        self, use: Use, kind: Quarantine, now: float, *, hint: float | None = None, for_model: bool = False
    ) -> Quarantined | None:
        """The provider refused the key, the account, or the model. What has been put away for it; None: nothing new.

        `hint` is the stated reset in seconds, `for_model` says that the key was refused for this model alone. All
        requests that were under way when the first of them was refused count as one refusal.
        """
        if kind is Quarantine.NOTHING:
            return None
        place = self._place(use, kind, for_model)
        former = self._terms.get(place)
        if former is not None and use.number < former.number:
            return None
        times = 1 if former is None else former.times + 1
        seconds = _seconds(kind, times, hint)
        until = now + seconds if former is None else max(now + seconds, former.until)
        self._put_away(place, _Term(kind, self._next_number(), until, times))
        key, model = place
        return Quarantined(None if key is None else self.names[key], model, kind, until - now, times)

    # -- looking -------------------------------------------------------------------------------------------

    def readmit(self, key: int | None = None) -> int:
        """Forget the quarantines of a key, or (None) all, as after it was replaced. How many there were."""
        gone = [place for place in self._terms if key is None or place[0] == key]
        for place in gone:
            del self._terms[place]
        return len(gone)

    def stats(self, now: float) -> tuple[QuarantineStats, ...]:
        return tuple(
            QuarantineStats(
                None if key is None else self.names[key], model, str(term.kind), max(0.0, term.until - now), term.times
            )
            for (key, model), term in list(self._terms.items())  # who looks may be on another thread
        )

    # -- the terms -----------------------------------------------------------------------------------------

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def _place(self, use: Use, kind: Quarantine, for_model: bool) -> Place:
        if kind is Quarantine.ROUTE:
            return None, use.model
        return use.key, use.model if for_model and kind is Quarantine.KEY else None

    def _put_away(self, place: Place, term: _Term) -> None:
        self._terms.pop(place, None)
        self._terms[place] = term
        if len(self._terms) > REMEMBERED:
            # Those of whole keys stay: there are few, and nobody's spelling mistakes may bring a bad key back.
            del self._terms[next(place for place in self._terms if place[1] is not None)]

    def _about(self, key: int, model: str) -> Iterator[tuple[Place, _Term]]:
        places: tuple[Place, ...] = (key, None), (key, model), (None, model)
        for place in places:
            term = self._terms.get(place)
            if term is not None:
                yield place, term

    def _barred(self, key: int, model: str, now: float) -> Barred | None:
        longest: Barred | None = None
        for _, term in self._about(key, model):
            wait = term.wait(now)
            if wait > 0 and (longest is None or wait > longest.retry_after):
                longest = Barred(REASONS[term.kind], wait)
        return longest


def _seconds(kind: Quarantine, times: int, hint: float | None) -> float:
    if kind is Quarantine.QUOTA:
        return QUOTA_SECONDS if hint is None else min(hint, LONGEST_RESET_SECONDS)
    if kind is Quarantine.ROUTE:
        return MODEL_SECONDS
    return min(LONGEST_REFUSED_SECONDS, REFUSED_SECONDS * 2.0 ** min(times - 1, 10))
