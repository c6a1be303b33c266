"""Every error a user of RubberDuck can meet, as one tree.

    RubberDuckError
    ├─ ConfigError                 the configuration is wrong; nothing was started
    │  └─ MissingApiKey            a provider has no key; names the variable to set
    ├─ InvalidRequest              the request is wrong; sending it again cannot help
    │  ├─ ContextLengthExceeded    the conversation is longer than the model reads
    │  └─ ContentFiltered          a content policy stopped the question or the answer
    ├─ Refused                     RubberDuck did not send it
    │  ├─ NoAvailableProvider      no provider could take it; says why for each
    │  │  └─ CircuitOpen           the only provider that could take it has its breaker open
    │  ├─ QueueFull                too many calls wait already
    │  ├─ BudgetExceeded           the money set aside for this is spent
    │  └─ DeadlineExceeded         the caller's time was over before an answer came
    ├─ ProviderError               the provider, or the way to it, failed
    │  ├─ RateLimited              too many requests or tokens for now
    │  ├─ QuotaExceeded            the account's credit or spend limit is used up
    │  ├─ AuthenticationFailed     the key was refused
    │  ├─ ModelNotFound            the provider does not know this model
    │  ├─ ServiceUnavailable       5xx, refused connections, answers that are none
    │  │  ├─ Overloaded            the provider says that it lacks capacity (503, 529)
    │  │  └─ ProtocolError         an answer came that is not of the provider's format
    │  ├─ ProviderTimeout          no answer, no first token, or no further token in time
    │  └─ StreamInterrupted        a stream ended without its proper end
    ├─ OutputInvalid               the answer is not what the schema asks for, or is none
    ├─ LedgerUnavailable           the ledger cannot be written or read; nothing was sent
    ├─ CallInterrupted             RubberDuck lost the call; it may have been sent
    └─ Cancelled                   the caller gave the call up

An error says what happened, to what, and what to do. `retryable` and `retry_after` say whether and when
the same request may succeed; `spent` says what it may have cost although no answer came.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rubberduck.types import Attempt, Response, Usage


class RubberDuckError(Exception):
    """The base of all errors that RubberDuck raises.

    `retry_after` is in seconds, `spent` in USD: None where it is unknown, zero where nothing was sent.
    `trace` is the call's decision trace where the call got far enough to have one.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        attempts: tuple[Attempt, ...] = (),
        spent: Decimal | None = Decimal(0),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider = provider
        self.model = model
        self.retryable = type(self).retryable if retryable is None else retryable
        self.retry_after = retry_after
        self.attempts = attempts
        self.spent = spent
        self.request_id = request_id
        self.trace: Any = None

    def __str__(self) -> str:
        return self.message


class ConfigError(RubberDuckError):
    """The configuration cannot be used. `problems` lists every fault found, each with its place."""

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), **details: Any) -> None:
        super().__init__(message, **details)
        self.problems = problems or (message,)


class MissingApiKey(ConfigError):
    """A provider needs a key and has none. `variable` is the environment variable that would supply it."""

    def __init__(self, message: str, *, variable: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.variable = variable


class InvalidRequest(RubberDuckError):
    """The request itself is wrong. `field` is the path of the offending value, where one can be named.

    `status`, `type`, `code`, `should_retry` and `meant_status` are as of a ProviderError; None if it was refused here.
    """

    def __init__(self, message: str, *, field: str | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.field = field
        self.status: int | None = None
        self.type: str | None = None
        self.code: str | None = None
        self.should_retry: bool | None = None
        self.meant_status: int | None = None


class ContextLengthExceeded(InvalidRequest):
    """The conversation does not fit the model's context window."""


class ContentFiltered(InvalidRequest):
    """A content policy stopped the question or the answer."""


class Refused(RubberDuckError):
    """RubberDuck decided not to send the request."""

    retryable = True


class NoAvailableProvider(Refused):
    """No provider can take the request. `reasons` maps each candidate route to why it was refused."""

    def __init__(self, message: str, *, reasons: Mapping[str, str] | None = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.reasons = dict(reasons or {})


class CircuitOpen(NoAvailableProvider):
    """The only provider that could take it has its breaker open; `retry_after` says when it lets a probe through."""


class QueueFull(Refused):
    """Too many calls wait already. `reason` is one of full, class_full, tenant_full, evicted, infeasible."""

    def __init__(self, message: str, *, reason: str = "full", **details: Any) -> None:
        super().__init__(message, **details)
        self.reason = reason


class BudgetExceeded(Refused):
    """The money set aside for this caller is spent, or held by calls that still run.

    `limit` is the budget and `used` what of it is spent or held, in USD; `retry_after` is when a new period begins,
    None where that is no help, as with the `max_cost` of a call.
    """

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        tenant: str = "",
        limit: Decimal | None = None,
        used: Decimal | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.tenant = tenant
        self.limit = limit
        self.used = used


class DeadlineExceeded(Refused):
    """The caller's time was over before an answer came."""

    retryable = False


class ProviderError(RubberDuckError):
    """A provider, or the way to it, failed.

    `status` is the HTTP status, None where no status line came. `type` and `code` are the provider's own
    words. `provider_request_id` is the id under which the provider's support can find the exchange.
    `phase` says what the failure leaves open: "not_sent" (the request never left), "uncertain" (it may have
    been executed), "answered" (the provider refused it itself) or "after_output" (part of an answer came).
    `meant_status` is the status that the error would have had, where it came inside an answer of good status.
    """

    retryable = True

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        type: str | None = None,
        code: str | None = None,
        provider_request_id: str | None = None,
        phase: str = "answered",
        should_retry: bool | None = None,
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.status = status
        self.type = type
        self.code = code
        self.provider_request_id = provider_request_id
        self.phase = phase
        self.should_retry = should_retry
        self.meant_status: int | None = None


class RateLimited(ProviderError):
    """Too many requests or tokens for now, by the provider's word or by our own limiter's."""


class QuotaExceeded(ProviderError):
    """The account's credit or spend limit is used up; waiting a little does not help."""

    retryable = False


class AuthenticationFailed(ProviderError):
    """The provider refused the key."""

    retryable = False


class ModelNotFound(ProviderError):
    """The provider does not know the model."""

    retryable = False


class ServiceUnavailable(ProviderError):
    """The provider failed or could not be reached."""


class Overloaded(ServiceUnavailable):
    """The provider says that it lacks capacity for now."""


class ProtocolError(ServiceUnavailable):
    """An answer came that is not of the provider's format."""


class ProviderTimeout(ProviderError):
    """The provider did not answer, did not begin, or did not go on in time."""


class StreamInterrupted(ProviderError):
    """A stream ended without its proper end. `text` and `usage` are what had been received by then."""

    def __init__(self, message: str, *, text: str = "", usage: Usage | None = None, **details: Any) -> None:
        details.setdefault("phase", "after_output")
        super().__init__(message, **details)
        self.text = text
        self.usage = usage


class OutputInvalid(RubberDuckError):
    """The answer came and cannot be read as the type that was asked for.

    `reason` is one of refusal, length, content_filter, tool_calls, empty, no_json, mismatch; the last three are
    retryable, for another answer may do. `problems` tells each fault with its path.
    `response` is the answer itself, which was paid for; None where only the error was kept of a call.
    """

    def __init__(
        self,
        message: str,
        *,
        response: Response | None = None,
        reason: str = "mismatch",
        problems: tuple[str, ...] = (),
        **details: Any,
    ) -> None:
        super().__init__(message, **details)
        self.response = response
        self.reason = reason
        self.problems = problems or (message,)


class LedgerUnavailable(RubberDuckError):
    """The ledger could not be written or read; nothing of the batch was kept, so the same write may be sent again."""

    retryable = True


class CallInterrupted(RubberDuckError):
    """RubberDuck itself lost the call, by a crash or because it is stopping. It may have been sent."""


class Cancelled(RubberDuckError):
    """The caller gave the call up."""
