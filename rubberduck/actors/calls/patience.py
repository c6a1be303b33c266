"""How long an attempt is waited for: for its first output, and for its end."""

from __future__ import annotations

from rubberduck.actors.board import Route
from rubberduck.actors.calls.call import EMBEDDINGS, Call
from rubberduck.actors.calls.rules import Rules
from rubberduck.actors.calls.wire import Limits
from rubberduck.actors.office import Office

FIRST_TOKEN_LIMIT = 10.0
FIRST_TOKEN_LIMIT_ALONE = 60.0
"""How long an answer may take to begin, in seconds: with another route at hand, and without."""
SLOW_PACE = 0.05
"""Seconds per token at which an answer that is not streamed is still waited for while another route is at hand."""
SLOW_READING = 0.0002
"""Seconds per token of input at which vectors are still waited for then."""
IDLE_LIMIT = 15.0
"""Seconds without any further output after which a stream counts as broken off."""
RAISED_TO = 3.0
"""A route that usually needs long to begin gets so many times the 95th percentile of that time."""
TIME_TO_SETTLE = 5.0
"""Seconds beyond its time that an attempt gets to give back its permit."""


def limits_of(office: Office, rules: Rules, call: Call, route: Route, *, is_alone: bool) -> Limits:
    """The times of one attempt; `is_alone` says that no other route could answer in its place.

    An answer that is not streamed shows no first token: it has the time for that and for its whole output.
    """
    config, now = rules.providers[route.provider], office.now()
    whole, stats = config.timeout, office.board.desks[route.provider].stats_of(route.model, now)
    first = config.first_token_timeout or (FIRST_TOKEN_LIMIT_ALONE if is_alone else FIRST_TOKEN_LIMIT)
    if call.is_stream:
        first = max(first, RAISED_TO * (stats.ttft_quantile(0.95) or 0.0))
    elif whole is None and not is_alone:
        slowest = stats.quantile(0.95) or 0.0
        amounts = call.amounts
        work = SLOW_READING * amounts.input if call.kind == EMBEDDINGS else SLOW_PACE * amounts.output
        whole = max(first + work, 3 * slowest)
    remaining = call.deadline - now
    ttl = None
    if rules.permit_ttl is None:
        ttl = TIME_TO_SETTLE + (remaining if whole is None else min(whole, remaining))
    return Limits(whole, first, ttl, config.idle_timeout or IDLE_LIMIT, config.min_rate)
