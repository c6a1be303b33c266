"""What the choice of a route takes into account beside the routes' state: where the conversation was, and the price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import Call
from rubberduck.actors.office import Office
from rubberduck.config.sections import ChoiceConfig
from rubberduck.core.plan import Panic
from rubberduck.core.score import Candidate
from rubberduck.core.sticky import Sticky, kept_keys, prefix_keys, session_key
from rubberduck.types import EmbeddingRequest, Request, Usage


class Habits:
    """The memory that all calls of one tree share. On the actors' loop."""

    def __init__(self, config: ChoiceConfig) -> None:
        self._by = config.sticky
        self._sticky = Sticky(config.sticky_for)
        self.price_weight = config.price_weight
        self.panic: Panic = config.panic

    def of(self, call: Call) -> Conversation | None:
        """What one call has of it; None if nothing is to be known, as where no session is named."""
        request = call.request
        if self._by == "off" or isinstance(request, EmbeddingRequest):
            return None
        if call.session is not None:
            key = [session_key(call.tenant, call.request.model, call.session)]
            return Conversation(self._sticky, key, key)
        if self._by != "prefix":
            return None
        keys = prefix_keys(call.tenant, request.model, _parts(request))
        return Conversation(self._sticky, keys, kept_keys(keys, _instructions(request)))


class Conversation:
    """One conversation: where it was answered last, and how that is remembered."""

    __slots__ = ("_found", "_kept", "_sticky")

    def __init__(self, sticky: Sticky, found: Sequence[str], kept: Sequence[str]) -> None:
        self._sticky = sticky
        self._found = found
        self._kept = kept

    def route(self, now: float) -> str | None:
        """Where it was answered last."""
        habit = self._sticky.find(self._found, now)
        return None if habit is None else habit.route

    def expecting(self, candidates: list[Candidate], now: float) -> list[Candidate]:
        """The candidates, with what the provider of the last answer should still have in its cache."""
        habit = self._sticky.find(self._found, now)
        if habit is None or not habit.hit:
            return candidates
        return [replace(each, hit=habit.hit) if each.route == habit.route else each for each in candidates]

    def answered(self, route: str, usage: Usage, now: float) -> None:
        """It has been answered on `route`."""
        self._sticky.answered(self._kept, route, now, usage.cached_tokens, usage.prompt_tokens)


def priced(office: Office, call: Call, routes: Sequence[Route], candidates: list[Candidate]) -> list[Candidate]:
    """The candidates with the price of an attempt. One that nobody knows is reckoned as the dearest that is known."""
    prices: list[float | None] = []
    for route, candidate in zip(routes, candidates, strict=True):
        input_, output = int(call.amounts.input), int(call.amounts.output)
        usage = Usage(input_, output, cached_tokens=int(input_ * candidate.hit))
        cost = office.cost(office.board.desks[route.provider], route, usage)[0]
        prices.append(None if cost is None else float(cost))
    dearest = max([price for price in prices if price is not None], default=0.0)
    return [
        replace(each, usd=dearest if price is None else price) for each, price in zip(candidates, prices, strict=True)
    ]


def _parts(request: Request) -> list[tuple[str, str]]:
    # Not as JSON, which does not bear all texts that may be sent.
    return [(message.role, repr(message.model_dump(exclude_defaults=True))) for message in request.messages]


def _instructions(request: Request) -> int:
    """How many messages come before what the user said."""
    count = 0
    for message in request.messages:
        if message.role not in ("system", "developer"):
            break
        count += 1
    return count
