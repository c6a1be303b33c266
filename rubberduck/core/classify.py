"""What the end of an attempt means: for the breaker, the limiter, the key, and for trying again.

The whole policy is the table `DISPOSITIONS`; `classify` finds the row and applies what the particular error
says. Rows are found by the type of the error, then by its HTTP status: adapters raise the type that the
provider's own code and type mean, so that an error inside a 200 counts as what it is.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from enum import StrEnum

from rubberduck.core.breaker import Outcome
from rubberduck.errors import (
    AuthenticationFailed,
    Cancelled,
    ContentFiltered,
    ContextLengthExceeded,
    InvalidRequest,
    ModelNotFound,
    Overloaded,
    ProtocolError,
    ProviderError,
    ProviderTimeout,
    QuotaExceeded,
    RateLimited,
    Refused,
    ServiceUnavailable,
    StreamInterrupted,
)


class Settlement(StrEnum):
    """What the limiter keeps of a reservation."""

    COMMIT = "commit"
    """What was really used."""
    CANCEL = "cancel"
    """Nothing: it was never sent."""
    KEEP_INPUT = "keep_input"
    """The request and its input; the output returns."""
    KEEP_RECEIVED = "keep_received"
    """The request, its input, and the output received so far."""
    RETURN_TOKENS = "return_tokens"
    """The request alone: providers count refusals."""
    BLOCK = "block"
    """The request alone, and nothing is granted until the provider's hint."""


class SameRoute(StrEnum):
    """Whether the same route may be tried again."""

    NEVER = "never"
    REPEAT = "repeat"
    """`same_route_repeats` times, and up to `max_attempts` where there is no other candidate."""
    IF_ALONE = "if_alone"
    """Only where there is no other candidate."""
    OTHER_KEY = "other_key"
    """With another key: once where the key was refused, with each where its account was used up."""


class OtherRoute(StrEnum):
    """Whether another route may be tried."""

    NEVER = "never"
    YES = "yes"
    IF_LARGER = "if_larger"
    """If its context window is larger or unknown."""
    IF_DIFFERENT = "if_different"
    """If its capabilities differ or are unknown."""


class Quarantine(StrEnum):
    """What must not be used for a while."""

    NOTHING = "nothing"
    KEY = "key"
    """The key was refused."""
    QUOTA = "quota"
    """The key's account is used up."""
    ROUTE = "route"
    """The provider does not know the model: off for 5 minutes."""


@dataclass(frozen=True, slots=True)
class Disposition:
    """One row of the table. `shrinks` says that the route showed a lack of capacity: lower its concurrency."""

    kind: str
    breaker: Outcome
    limiter: Settlement
    same_route: SameRoute
    other_route: OtherRoute
    quarantine: Quarantine = Quarantine.NOTHING
    shrinks: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the call ends here."""
        return self.same_route is SameRoute.NEVER and self.other_route is OtherRoute.NEVER


def _rows(*rows: Disposition) -> dict[str, Disposition]:
    return {row.kind: row for row in rows}


_S, _F, _I, _C = Outcome
_N, _O, _Q = SameRoute, OtherRoute, Quarantine

DISPOSITIONS = _rows(
    Disposition("success", _S, Settlement.COMMIT, _N.NEVER, _O.NEVER),
    Disposition("connect", _F, Settlement.CANCEL, _N.REPEAT, _O.YES),
    Disposition("server_error", _F, Settlement.KEEP_INPUT, _N.REPEAT, _O.YES),
    Disposition("overloaded", _F, Settlement.KEEP_INPUT, _N.REPEAT, _O.YES, shrinks=True),
    Disposition("timeout", _F, Settlement.KEEP_RECEIVED, _N.IF_ALONE, _O.YES, shrinks=True),
    Disposition("cut", _F, Settlement.KEEP_RECEIVED, _N.IF_ALONE, _O.YES),
    Disposition("malformed", _F, Settlement.KEEP_RECEIVED, _N.IF_ALONE, _O.YES),
    Disposition("rate_limited", _I, Settlement.BLOCK, _N.REPEAT, _O.YES, shrinks=True),
    Disposition("quota", _I, Settlement.RETURN_TOKENS, _N.OTHER_KEY, _O.YES, _Q.QUOTA),
    Disposition("auth", _I, Settlement.RETURN_TOKENS, _N.OTHER_KEY, _O.YES, _Q.KEY),
    Disposition("invalid", _I, Settlement.RETURN_TOKENS, _N.NEVER, _O.IF_DIFFERENT),
    Disposition("too_long", _I, Settlement.RETURN_TOKENS, _N.NEVER, _O.IF_LARGER),
    Disposition("model_not_found", _I, Settlement.RETURN_TOKENS, _N.NEVER, _O.YES, _Q.ROUTE),
    Disposition("content_filter", _I, Settlement.RETURN_TOKENS, _N.NEVER, _O.NEVER),
    Disposition("conflict", _I, Settlement.RETURN_TOKENS, _N.REPEAT, _O.YES),
    Disposition("cancelled", _C, Settlement.COMMIT, _N.NEVER, _O.NEVER),
    # A bug, ours or a plug-in's: it counts against the route that showed it, and would only show again there.
    Disposition("unknown", _F, Settlement.KEEP_INPUT, _N.NEVER, _O.YES),
)

_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (RateLimited, "rate_limited"),
    (QuotaExceeded, "quota"),
    (AuthenticationFailed, "auth"),
    (ModelNotFound, "model_not_found"),
    (ContextLengthExceeded, "too_long"),
    (ContentFiltered, "content_filter"),
    (StreamInterrupted, "cut"),
    (ProtocolError, "malformed"),
    (Overloaded, "overloaded"),
    (Cancelled, "cancelled"),
    (asyncio.CancelledError, "cancelled"),
    (Refused, "cancelled"),
)

_BY_STATUS = {
    401: "auth",
    402: "quota",
    403: "auth",
    404: "model_not_found",
    408: "server_error",
    409: "conflict",
    413: "too_long",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}

_NEVER_PERSUADED = {"auth", "quota", "content_filter", "cancelled", "success"}
"""No `should_retry: true` makes these worth repeating: waiting changes neither a key, nor a bill, nor a policy."""


def classify(
    error: BaseException | None,
    *,
    sent: bool = True,
    delivered: bool = False,
    replayable: bool = True,
    local_stall: bool = False,
    failover_on_content_filter: bool = False,
) -> Disposition:
    """The row for how an attempt ended; `error` None is a complete answer.

    `sent`: whether any byte of the request left. `delivered`: whether the caller has seen a part of the answer;
    then nothing is repeated. `replayable` False: sending twice could do something twice. `local_stall`: our own
    loop lagged so much that a timeout says nothing about the provider.
    """
    row = DISPOSITIONS[_kind(error, sent)]
    if row.kind == "cancelled" and not sent:
        return replace(row, limiter=Settlement.CANCEL)
    # What the breaker ignores is a refusal: the provider read the request and did not execute it.
    may_have_happened = row.breaker is Outcome.FAILURE and row.kind != "connect"
    if local_stall and isinstance(error, ProviderTimeout | StreamInterrupted):
        row = replace(row, kind="local_stall", breaker=Outcome.IGNORED, shrinks=False)
    if row.kind == "content_filter" and failover_on_content_filter:
        row = replace(row, other_route=OtherRoute.YES)
    row = _as_the_provider_wishes(row, error)
    if delivered or (may_have_happened and not replayable):
        return replace(row, same_route=SameRoute.NEVER, other_route=OtherRoute.NEVER)
    return row


def of_a_count(row: Disposition) -> Disposition:
    """The row for a request that only counts tokens: it has limits of its own, and may not be offered at all.

    What a provider refuses there says nothing of the answers that it gives.
    """
    limiter = Settlement.RETURN_TOKENS if row.limiter is Settlement.BLOCK else row.limiter
    quarantine = Quarantine.NOTHING if row.quarantine is Quarantine.ROUTE else row.quarantine
    return replace(row, limiter=limiter, quarantine=quarantine, shrinks=False)


def _kind(error: BaseException | None, sent: bool) -> str:
    if error is None:
        return "success"
    for type_, kind in _BY_TYPE:
        if isinstance(error, type_):
            return kind
    status = status_of(error)
    if isinstance(error, InvalidRequest):
        return _BY_STATUS[status] if status in (409, 413) else "invalid"
    if not isinstance(error, ProviderError):
        return "unknown"
    if error.phase == "not_sent" or (not sent and error.status is None):
        return "connect"
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if isinstance(error, ProviderTimeout):
        return "timeout"
    if isinstance(error, ServiceUnavailable) or status is None or status >= 500:
        return "server_error"
    return "invalid" if 400 <= status < 500 else "malformed"


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error stands for, also where it came inside an answer of another one."""
    meant: int | None = getattr(error, "meant_status", None)
    if meant is not None:
        return meant
    status: int | None = getattr(error, "status", None)
    return status


def _as_the_provider_wishes(row: Disposition, error: BaseException | None) -> Disposition:
    wish = getattr(error, "should_retry", None)
    # What it says of this key says nothing of another one.
    if wish is False and row.same_route is not SameRoute.OTHER_KEY:
        return replace(row, same_route=SameRoute.NEVER)
    if wish is True and row.same_route is SameRoute.NEVER and row.kind not in _NEVER_PERSUADED:
        return replace(row, same_route=SameRoute.REPEAT, quarantine=Quarantine.NOTHING)
    return row
