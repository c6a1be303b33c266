"""Which error it is: by code and type before the status, from every shape that errors come in."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck import errors
from rubberduck.errors import RubberDuckError
from rubberduck.providers import failures


def made(status: int, body: Any, **headers: str) -> RubberDuckError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return failures.make_error(failures.read_body(content), status, httpx.Headers(named), "vendor")


def invalid(message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.InvalidRequest),
        (401, errors.AuthenticationFailed),
        (402, errors.QuotaExceeded),
        (403, errors.AuthenticationFailed),
        (404, errors.ModelNotFound),
        (204, errors.ProtocolError),
        (302, errors.ProtocolError),
        (408, errors.ProviderTimeout),
        (409, errors.ProviderError),
        (413, errors.InvalidRequest),
        (422, errors.InvalidRequest),
        (429, errors.RateLimited),
        (500, errors.ServiceUnavailable),
        (502, errors.ServiceUnavailable),
        (503, errors.Overloaded),
        (504, errors.ServiceUnavailable),
        (529, errors.Overloaded),
    ],
)
def test_a_status_alone_is_enough(status: int, expected: type) -> None:
    for body in (b"", b"<html>Bad gateway</html>", b"{}", b"null", b"[]"):
        error = made(status, body)
        assert type(error) is expected
        assert error.status == status  # type: ignore[attr-defined]
        assert "<" not in str(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"code": "insufficient_quota", "type": "insufficient_quota"}}, errors.QuotaExceeded),
        (429, {"error": {"code": "rate_limit_exceeded", "type": "requests"}}, errors.RateLimited),
        (429, {"error": {"code": "RateLimitReached"}}, errors.RateLimited),
        (400, {"error": {"code": "context_length_exceeded"}}, errors.ContextLengthExceeded),
        (400, {"error": {"type": "exceed_context_size_error", "code": 400}}, errors.ContextLengthExceeded),
        (400, {"error": {"message": "prompt is too long: 9 tokens > 8 maximum"}}, errors.ContextLengthExceeded),
        (400, {"error": {"code": "content_filter", "message": "no"}}, errors.ContentFiltered),
        (400, {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, errors.ContentFiltered),
        (400, {"error": {"code": "model_not_found"}}, errors.ModelNotFound),
        (400, {"code": "bad", "error": "Incorrect API key provided."}, errors.AuthenticationFailed),
        (400, invalid("Your credit balance is too low to access the Anthropic API."), errors.QuotaExceeded),
        (400, invalid("You have reached your specified API usage limits."), errors.QuotaExceeded),
        (400, invalid("Output blocked by content filtering policy"), errors.ContentFiltered),
        (400, invalid("messages: 'your credit balance is too low' is no role"), errors.InvalidRequest),
        (401, {"error": {"type": "api_error"}}, errors.AuthenticationFailed),
        (404, {"error": {"type": "invalid_request_error"}}, errors.ModelNotFound),
        (200, {"error": {"code": 502, "message": "upstream"}}, errors.ServiceUnavailable),
        (200, {"error": {"code": 429}}, errors.RateLimited),
        (200, {"error": {"status_code": 400, "type": "x"}}, errors.InvalidRequest),
        (200, {"error": {"type": "authentication_error"}}, errors.AuthenticationFailed),
        (200, {"error": {"message": "?"}}, errors.ServiceUnavailable),
        (200, {"error": "text"}, errors.ServiceUnavailable),
        (500, {"error": {"message": "maximum context length"}}, errors.ServiceUnavailable),
    ],
)
def test_code_and_type_decide_before_the_status(status: int, body: Any, expected: type) -> None:
    assert type(made(status, body)) is expected


def test_quoting_a_complaint_about_keys_in_a_prompt_blames_no_key() -> None:
    error = made(400, {"error": {"message": "messages[0]: 'Incorrect API key provided' is not a valid role"}})
    assert type(error) is errors.InvalidRequest


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "in the object"}}, "in the object"),
        ({"error": "as a text"}, "as a text"),
        ({"detail": "as a detail"}, "as a detail"),
        ({"detail": [{"loc": ["body"], "msg": "first"}, {"msg": "second"}]}, "first; second"),
        ({"object": "error", "message": {"detail": [{"msg": "nested"}]}}, "nested"),
        ({"message": "at the top"}, "at the top"),
        ([{"error": {"message": "in an array"}}], "in an array"),
        ("a bare text", "a bare text"),
        (b"not JSON at all", "not JSON at all"),
        ({"error": {"code": "only_a_code"}}, "only_a_code"),
    ],
)
def test_the_message_is_found_in_every_shape(body: Any, message: str) -> None:
    assert message in str(made(400, body))


def test_an_error_carries_the_providers_own_words() -> None:
    body = {"error": {"message": "no", "type": "t", "code": "c", "param": "messages[0].role"}, "request_id": "req_b"}
    server = made(500, body)
    assert isinstance(server, errors.ProviderError)
    assert (server.type, server.code, server.provider, server.provider_request_id) == ("t", "c", "vendor", "req_b")
    refusal = made(400, body)
    assert isinstance(refusal, errors.InvalidRequest)
    assert (refusal.type, refusal.code, refusal.field, refusal.status) == ("t", "c", "messages[0].role", 400)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after_ms": "612", "retry_after": "1"}, 0.612),
        ({"retry_after_ms": "0", "retry_after": "1"}, 1.0),
        ({"retry_after": "1.5"}, 1.5),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:30 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 30.0),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT", "date": "Wed, 21 Oct 2026 07:28:30 GMT"}, None),
        ({"retry_after": "-1"}, None),
        ({"retry_after": "0"}, None),
        ({"retry_after": "nan"}, None),
        ({"retry_after": "inf"}, None),
        ({"retry_after": "soon"}, None),
        ({}, None),
    ],
)
def test_hints_say_when_to_come_back_or_nothing(headers: dict[str, str], expected: float | None) -> None:
    assert made(429, {}, **headers).retry_after == expected


def test_a_server_may_say_whether_to_try_again() -> None:
    for text, expected in (("true", True), ("false", False), ("maybe", None)):
        error = made(500, {}, x_should_retry=text)
        assert isinstance(error, errors.ProviderError)
        assert error.should_retry is expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "message", "detail", "msg", "type", "code", "param", "innererror", "status_code"]
            ),
            inner,
            max_size=5,
        )
    ),
)


@given(status=st.integers(200, 599), body=JSON | st.binary(max_size=50), hint=st.text(max_size=20))
def test_no_body_and_no_hint_can_break_it(status: int, body: Any, hint: str) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = failures.make_error(failures.read_body(content), status, {"retry-after": hint}, "vendor")
    assert isinstance(error, RubberDuckError)
    assert error.retry_after is None or error.retry_after > 0
