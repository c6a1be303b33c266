"""Turns what a provider said went wrong into the error of that name.

A provider's `code` and `type` decide before the HTTP status: a used-up account and too many requests are both
a 429, and an error inside a stream arrives under a 200. The message decides only where servers give no other
sign, and then only between refusals of one kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rubberduck import errors
from rubberduck.core.rate_headers import parse_retry_after
from rubberduck.errors import InvalidRequest, ProviderError, RubberDuckError
from rubberduck.providers.reading import as_dict, as_list, as_name, as_text, parse_json

LONGEST_MESSAGE = 500

_BY_WORD: dict[str, type[RubberDuckError]] = {
    "insufficient_quota": errors.QuotaExceeded,
    "billing_error": errors.QuotaExceeded,
    "billing_hard_limit_reached": errors.QuotaExceeded,
    "insufficient_balance": errors.QuotaExceeded,
    "context_length_exceeded": errors.ContextLengthExceeded,
    "exceed_context_size_error": errors.ContextLengthExceeded,
    "content_filter": errors.ContentFiltered,
    "content_policy_violation": errors.ContentFiltered,
    "image_content_policy_violation": errors.ContentFiltered,
    "misalignment_policy_violation": errors.ContentFiltered,
    "bio_policy": errors.ContentFiltered,
    "responsibleaipolicyviolation": errors.ContentFiltered,
    "model_not_found": errors.ModelNotFound,
    "deploymentnotfound": errors.ModelNotFound,
    "rate_limit_exceeded": errors.RateLimited,
    "rate_limit_error": errors.RateLimited,
    "ratelimitreached": errors.RateLimited,
    "overloaded_error": errors.Overloaded,
    "overloaded": errors.Overloaded,
    "engine_overloaded": errors.Overloaded,
    "invalid_api_key": errors.AuthenticationFailed,
}
"""Words that mean one thing under any status, in lower case."""

_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "api_error": 500,
    "server_error": 500,
    "internalservererror": 500,
    "timeout_error": 504,
}
"""Words too general to overrule a status, used where there is none: inside a 200."""
_REFUSALS_BY_CODE = frozenset({
    "invalid_prompt", "data_residency_mismatch", "invalid_image", "invalid_image_format", "invalid_base64_image",
    "invalid_image_url", "invalid_image_mode", "image_too_large", "image_too_small", "image_parse_error",
    "image_file_too_large", "image_file_not_found", "image_content_policy_violation", "misalignment_policy_violation",
    "bio_policy", "unsupported_image_media_type", "empty_image_file", "failed_to_download_image",
})  # fmt: skip
"""Codes that OpenAI's Responses API tells a refused request by, without a type, inside a 200."""

_BY_STATUS: dict[int, type[RubberDuckError]] = {
    401: errors.AuthenticationFailed,
    402: errors.QuotaExceeded,
    403: errors.AuthenticationFailed,
    404: errors.ModelNotFound,
    408: errors.ProviderTimeout,
    409: errors.ProviderError,
    410: errors.ModelNotFound,
    425: errors.ProviderError,
    429: errors.RateLimited,
    503: errors.Overloaded,
    529: errors.Overloaded,
}

_TOO_LONG = re.compile(
    r"prompt is too long|maximum context length|context (window|length|size)\b.{0,40}\bexceed"
    r"|exceeds the (available )?context (length|size)",
    re.IGNORECASE,
)
# Anchored, because a message may quote the request: nobody may have a key quarantined by writing this in a prompt.
_BAD_KEY = re.compile(r"\s*((incorrect|invalid) (x-)?api[- ]key|api key not valid)", re.IGNORECASE)
# Anthropic says these three with the type and the status of any invalid request.
_SPENT = re.compile(
    r"\s*(your credit balance is too low|you have reached your specified api usage limits)", re.IGNORECASE
)
_FILTERED = re.compile(r"\s*output blocked by content filtering policy", re.IGNORECASE)
_BY_MESSAGE: tuple[tuple[re.Pattern[str], type[RubberDuckError]], ...] = (
    (_BAD_KEY, errors.AuthenticationFailed),
    (_SPENT, errors.QuotaExceeded),
    (_FILTERED, errors.ContentFiltered),
)

_ADVICE = {
    errors.AuthenticationFailed: "check the api_key of this provider",
    errors.QuotaExceeded: "check the account's credit and spend limit",
    errors.ModelNotFound: "check the model's name and the provider's base_url",
    errors.ProtocolError: "check the provider's base_url",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What a provider said went wrong, whatever shape it said it in. `status` is one named in the body."""

    message: str = ""
    type: str | None = None
    code: str | None = None
    field: str | None = None
    status: int | None = None
    request_id: str | None = None


def read_body(body: bytes) -> Fault:
    """The fault in the body of an error answer, JSON or not."""
    try:
        return read_fault(parse_json(body))
    except ValueError:
        text = body[:4000].decode("utf-8", "replace").strip()
        return Fault(message="" if text.startswith("<") else text)


def read_fault(said: object) -> Fault:
    """The fault in parsed JSON.

    Seen: `{"error": {..}}`, `{"error": "text"}`, `{"detail": ..}`, `{"message": ..}`, an array around any of these.
    """
    if isinstance(said, list) and said:
        return read_fault(said[0])
    if isinstance(said, str):
        return Fault(message=as_text(said))
    outer = as_dict(said)
    error = outer.get("error")
    inner = error if isinstance(error, dict) else outer
    deeper = as_dict(inner.get("innererror"))
    return Fault(
        message=_message(inner, error),
        type=as_name(inner.get("type")),
        code=as_name(deeper.get("code")) or as_name(inner.get("code")),
        field=as_name(inner.get("param")),
        status=_status(inner),
        request_id=as_name(outer.get("request_id")),
    )


def _message(inner: dict[str, Any], error: object) -> str:
    for said in (inner.get("message"), inner.get("detail"), error):
        if isinstance(said, str):
            return as_text(said)
        if isinstance(said, dict) and said.get("detail"):
            said = said["detail"]
        parts = [as_text(item) or as_text(as_dict(item).get("msg")) for item in as_list(said)]
        if any(parts):
            return "; ".join(part for part in parts if part)
    return ""


def _status(inner: dict[str, Any]) -> int | None:
    for name in ("status_code", "code", "status"):
        value = inner.get(name)
        if isinstance(value, int) and 400 <= value < 600:
            return value
    return None


def error_class(fault: Fault, status: int) -> type[RubberDuckError]:
    """Which error a fault is, under an HTTP status."""
    if status != 200 and status < 400:
        return errors.ProtocolError
    for word in (fault.code, fault.type):
        if word and word.lower() in _BY_WORD:
            return _BY_WORD[word.lower()]
    if status < 400:
        status = _meant_status(fault)
    if status not in _BY_STATUS and status >= 500:
        return errors.ServiceUnavailable
    chosen = _BY_STATUS.get(status, InvalidRequest)
    if chosen is not InvalidRequest:
        return chosen
    for pattern, meant in _BY_MESSAGE:
        if pattern.match(fault.message):
            return meant
    return errors.ContextLengthExceeded if _TOO_LONG.search(fault.message) else InvalidRequest


def _meant_status(fault: Fault) -> int:
    """What a fault inside a good answer would have been sent with."""
    unknown = 400 if fault.code in _REFUSALS_BY_CODE else 500
    return fault.status or _STATUS_OF_TYPE.get((fault.type or "").lower(), unknown)


def make_error(
    fault: Fault, status: int, headers: Mapping[str, str], provider: str, *, phase: str = "answered"
) -> RubberDuckError:
    """The error for a fault. `headers` has lower-case names, or ignores case."""
    chosen = error_class(fault, status)
    message = _explain(chosen, fault, status, provider)
    should_retry = {"true": True, "false": False}.get(headers.get("x-should-retry", "").lower())
    meant = _meant_status(fault) if status == 200 else None
    if issubclass(chosen, InvalidRequest):
        refusal = chosen(message, field=fault.field, provider=provider)
        refusal.status, refusal.type, refusal.code = status, fault.type, fault.code
        refusal.should_retry, refusal.meant_status = should_retry, meant
        return refusal
    assert issubclass(chosen, ProviderError)
    failure = chosen(
        message,
        provider=provider,
        status=status,
        type=fault.type,
        code=fault.code,
        phase=phase,
        provider_request_id=request_id(headers) or fault.request_id,
        retry_after=retry_after(headers),
        should_retry=should_retry,
    )
    failure.meant_status = meant
    return failure


def no_answer(wanted: str, status: int, headers: Mapping[str, str], provider: str) -> errors.ProtocolError:
    """The error for an answer of good status that does not hold what was `wanted`."""
    return errors.ProtocolError(
        f"{provider} answered {status} with something that is no {wanted}",
        provider=provider,
        status=status,
        provider_request_id=request_id(headers),
    )


def _explain(chosen: type[RubberDuckError], fault: Fault, status: int, provider: str) -> str:
    said = fault.message[:LONGEST_MESSAGE] or fault.code or fault.type or "no explanation"
    where = f"answered {status}" if status != 200 else "reported an error in its answer"
    advice = f" ({_ADVICE[chosen]})" if chosen in _ADVICE else ""
    return f"{provider} {where}: {said}{advice}"


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id under which the provider's support can find the exchange."""
    return headers.get("x-request-id") or headers.get("request-id") or None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the provider's word. Zero, negative and unreadable hints are none."""
    return parse_retry_after(headers, datetime.now(UTC))
