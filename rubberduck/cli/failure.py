"""An error as a user reads it: what happened, what was tried, what to do, and the id to ask about it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from rubberduck import errors
from rubberduck.core.figures import money, span
from rubberduck.errors import RubberDuckError

_ADVICE: tuple[tuple[type[RubberDuckError], str], ...] = (
    (errors.AuthenticationFailed, "check the provider's API key; `rubberduck doctor` shows which ones are set"),
    (errors.QuotaExceeded, "add credit at the provider, or use another one with --provider"),
    (errors.ModelNotFound, "see `rubberduck models`, or name another with --model"),
    (errors.ContextLengthExceeded, "shorten the conversation, or use a model that reads more"),
    (errors.ContentFiltered, "reword the question, or ask another provider with --provider"),
    (errors.BudgetExceeded, "raise the budget in the configuration"),
    (errors.NoAvailableProvider, "see `rubberduck doctor`, or name a provider with --provider"),
    (errors.ProviderTimeout, "try again, or give the provider more time with `timeout` in the configuration"),
    (errors.StreamInterrupted, "ask again; what was printed above is all that came"),
    (errors.Refused, "try again later"),
    (errors.ServiceUnavailable, "try again, or use another provider with --provider"),
    (errors.CallInterrupted, "look into the log, then ask again"),
)


def text(error: BaseException, *, verbose: bool = False) -> str:
    """All lines about an error."""
    if isinstance(error, RubberDuckError):
        return "\n".join(_lines(error))
    hint = "" if verbose else "\nto do: run it again with --verbose, and report what it shows"
    return f"error: {type(error).__name__}: {error}{hint}"


def _lines(error: RubberDuckError) -> Iterator[str]:
    yield f"error: {error.message or type(error).__name__}"
    if isinstance(error, errors.ConfigError) and len(error.problems) > 1:
        yield from (f"  {problem}" for problem in error.problems if problem not in error.message)
    if isinstance(error, errors.NoAvailableProvider):
        yield from (f"  {route}: {reason}" for route, reason in error.reasons.items() if reason not in error.message)
    for attempt in error.attempts:
        yield f"tried: {attempt.provider}/{attempt.model}: {attempt.outcome} after {span(attempt.duration)}"
    if todo := _advice(error):
        yield f"to do: {todo}"
    if spent := _spent(error):
        yield spent
    if error.request_id:
        yield f"request id: {error.request_id}"


def _advice(error: RubberDuckError) -> str:
    if isinstance(error, errors.MissingApiKey) and error.variable:
        return f"set {error.variable}, choose another provider with --provider, or try --mock"
    if error.retry_after is not None and error.retryable:
        return f"try again in {span(error.retry_after)}"
    return next((advice for kind, advice in _ADVICE if isinstance(error, kind)), "")


def _spent(error: RubberDuckError) -> str:
    if error.spent is None:
        return "cost: unknown; it may have been charged for"
    return f"cost: up to {money(error.spent)}" if error.spent > Decimal(0) else ""
