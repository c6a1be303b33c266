"""What each answer of each vendor means for the breaker, the limiter and further attempts: the whole table, literally.

Errors are made by the adapters out of what the vendors really send, as an answer and as an event of a stream.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rubberduck import errors as e
from rubberduck.config import ProviderConfig
from rubberduck.core.breaker import Outcome
from rubberduck.core.classify import OtherRoute, Quarantine, SameRoute, Settlement, classify
from rubberduck.providers import resolve
from rubberduck.providers.base import HTTPProvider

S, F, I, C = Outcome  # noqa: E741
B, L, N, O, Q = Outcome, Settlement, SameRoute, OtherRoute, Quarantine  # noqa: E741

Row = tuple[Outcome, Settlement, SameRoute, OtherRoute, Quarantine]

TABLE: dict[str, Row] = {
    # outcome          breaker  limiter            same route     other route        put away
    "complete":        (S, L.COMMIT,               N.NEVER,       O.NEVER,           Q.NOTHING),
    "connect":         (F, L.CANCEL,               N.REPEAT,      O.YES,             Q.NOTHING),
    "server":          (F, L.KEEP_INPUT,           N.REPEAT,      O.YES,             Q.NOTHING),
    "broken":          (F, L.KEEP_RECEIVED,        N.IF_ALONE,    O.YES,             Q.NOTHING),
    "rate":            (I, L.BLOCK,                N.REPEAT,      O.YES,             Q.NOTHING),
    "quota":           (I, L.RETURN_TOKENS,        N.OTHER_KEY,   O.YES,             Q.QUOTA),
    "auth":            (I, L.RETURN_TOKENS,        N.OTHER_KEY,   O.YES,             Q.KEY),
    "invalid":         (I, L.RETURN_TOKENS,        N.NEVER,       O.IF_DIFFERENT,    Q.NOTHING),
    "too long":        (I, L.RETURN_TOKENS,        N.NEVER,       O.IF_LARGER,       Q.NOTHING),
    "no model":        (I, L.RETURN_TOKENS,        N.NEVER,       O.YES,             Q.ROUTE),
    "policy":          (I, L.RETURN_TOKENS,        N.NEVER,       O.NEVER,           Q.NOTHING),
    "conflict":        (I, L.RETURN_TOKENS,        N.REPEAT,      O.YES,             Q.NOTHING),
    "cancelled":       (C, L.COMMIT,               N.NEVER,       O.NEVER,           Q.NOTHING),
    "cancelled unsent":(C, L.CANCEL,               N.NEVER,       O.NEVER,           Q.NOTHING),
    "our own bug":     (F, L.KEEP_INPUT,           N.NEVER,       O.YES,             Q.NOTHING),
}  # fmt: skip


def openai(type_: str | None = None, code: str | int | None = None, message: str = "no") -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": None, "code": code}}


def anthropic(type_: str, message: str = "no") -> dict[str, Any]:
    return {"type": "error", "error": {"type": type_, "message": message}, "request_id": "req_1"}


SAID: list[tuple[str, str, int, Any]] = [
    ("openai", "server", 408, openai()),
    ("openai", "server", 500, openai("server_error")),
    ("openai", "server", 502, "<html>Bad gateway</html>"),
    ("openai", "server", 503, openai("server_error", message="The engine is currently overloaded")),
    ("openai", "server", 504, ""),
    ("openai", "server", 520, ""),
    ("openai", "rate", 429, openai("requests", "rate_limit_exceeded")),
    ("openai", "rate", 429, openai("tokens", "rate_limit_exceeded")),
    ("openai", "rate", 429, ""),
    ("openai", "quota", 429, openai("insufficient_quota", "insufficient_quota")),
    ("openai", "quota", 429, openai("billing", "billing_hard_limit_reached")),
    ("openai", "quota", 402, openai()),
    ("openai", "auth", 401, openai("invalid_request_error", "invalid_api_key")),
    ("openai", "auth", 403, openai("invalid_request_error", "unsupported_country_region_territory")),
    ("openai", "invalid", 400, openai("invalid_request_error")),
    ("openai", "invalid", 422, openai("invalid_request_error")),
    ("openai", "too long", 413, openai("invalid_request_error")),
    ("openai", "too long", 400, openai("invalid_request_error", "context_length_exceeded")),
    ("openai", "too long", 400, openai(message="This model's maximum context length is 8192 tokens.")),
    ("openai", "no model", 404, openai("invalid_request_error", "model_not_found")),
    ("openai", "policy", 400, openai("invalid_request_error", "content_policy_violation")),
    ("openai", "policy", 400, openai(None, "content_filter")),
    ("openai", "conflict", 409, openai()),
    ("anthropic", "server", 500, anthropic("api_error")),
    ("anthropic", "server", 504, anthropic("timeout_error")),
    ("anthropic", "server", 529, anthropic("overloaded_error")),
    ("anthropic", "rate", 429, anthropic("rate_limit_error")),
    ("anthropic", "quota", 402, anthropic("billing_error")),
    ("anthropic", "quota", 400, anthropic("invalid_request_error", "Your credit balance is too low to access")),
    ("anthropic", "quota", 400, anthropic("invalid_request_error", "You have reached your specified API usage limits")),
    ("anthropic", "auth", 401, anthropic("authentication_error")),
    ("anthropic", "auth", 403, anthropic("permission_error")),
    ("anthropic", "invalid", 400, anthropic("invalid_request_error")),
    ("anthropic", "too long", 413, anthropic("request_too_large")),
    ("anthropic", "too long", 400, anthropic("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum")),
    ("anthropic", "no model", 404, anthropic("not_found_error")),
    ("anthropic", "policy", 400, anthropic("invalid_request_error", "Output blocked by content filtering policy")),
    ("anthropic", "conflict", 409, anthropic("conflict_error")),
]
"""(vendor, row, status, body)."""

INSIDE: list[tuple[str, str, Any]] = [
    ("openai", "server", openai("server_error")),
    ("openai", "server", openai(code=502)),
    ("openai", "server", openai(code=408)),
    ("openai", "server", openai("something new")),
    ("openai", "rate", openai("requests", "rate_limit_exceeded")),
    ("openai", "rate", openai(code=429)),
    ("openai", "quota", openai("insufficient_quota", "insufficient_quota")),
    ("openai", "quota", openai(code=402)),
    ("openai", "auth", openai(None, "invalid_api_key")),
    ("openai", "auth", openai(code=403)),
    ("openai", "invalid", openai("invalid_request_error")),
    ("openai", "too long", openai("invalid_request_error", "context_length_exceeded")),
    ("openai", "too long", openai(code=413)),
    ("openai", "no model", openai(None, "model_not_found")),
    ("openai", "policy", openai(None, "content_filter")),
    ("openai", "conflict", openai(code=409)),
    ("anthropic", "server", anthropic("api_error")),
    ("anthropic", "server", anthropic("timeout_error")),
    ("anthropic", "server", anthropic("overloaded_error")),
    ("anthropic", "rate", anthropic("rate_limit_error")),
    ("anthropic", "quota", anthropic("billing_error")),
    ("anthropic", "auth", anthropic("authentication_error")),
    ("anthropic", "auth", anthropic("permission_error")),
    ("anthropic", "invalid", anthropic("invalid_request_error")),
    ("anthropic", "too long", anthropic("request_too_large")),
    ("anthropic", "no model", anthropic("not_found_error")),
    ("anthropic", "conflict", anthropic("conflict_error")),
]
"""(vendor, row, body) of errors under the status 200."""


@functools.cache
def adapter(vendor: str) -> HTTPProvider:
    provider = resolve(vendor).init(ProviderConfig(name=vendor, module=vendor, api_keys=["test-key"]))
    assert isinstance(provider, HTTPProvider)
    return provider


def said(vendor: str, status: int, body: Any, headers: Mapping[str, str] | None = None) -> e.RubberDuckError:
    content = body if isinstance(body, str) else json.dumps(body)
    return adapter(vendor).classify(status, headers or {}, content.encode())


def row_of(error: BaseException | None, **details: bool) -> Row:
    row = classify(error, **details)
    return row.breaker, row.limiter, row.same_route, row.other_route, row.quarantine


@pytest.mark.parametrize(("vendor", "row", "status", "body"), SAID)
def test_every_answer_of_every_vendor_has_its_row(vendor: str, row: str, status: int, body: Any) -> None:
    assert row_of(said(vendor, status, body)) == TABLE[row]


@pytest.mark.parametrize(("vendor", "row", "body"), INSIDE)
def test_an_error_inside_a_200_counts_as_its_type(vendor: str, row: str, body: Any) -> None:
    assert row_of(said(vendor, 200, body)) == TABLE[row]


@pytest.mark.parametrize(("vendor", "row", "body"), INSIDE)
def test_so_does_an_error_among_the_events_of_a_stream(vendor: str, row: str, body: Any) -> None:
    decoder = adapter(vendor).stream_decoder()
    with pytest.raises(e.RubberDuckError) as caught:
        decoder.feed(f"event: error\ndata: {json.dumps(body)}\n\n".encode())
    assert row_of(caught.value) == TABLE[row]


@pytest.mark.parametrize(
    ("error", "details", "row"),
    [
        (None, {}, "complete"),
        (e.ServiceUnavailable("refused", phase="not_sent"), {}, "connect"),
        (e.ProviderTimeout("connecting", phase="not_sent"), {}, "connect"),
        (e.ServiceUnavailable("reset before the headers", phase="uncertain"), {}, "server"),
        (e.ProviderTimeout("no first token", phase="uncertain"), {}, "broken"),
        (e.StreamInterrupted("a stall, a cut"), {}, "broken"),
        (e.ProtocolError("malformed", status=200), {}, "broken"),
        (e.Cancelled("enough"), {}, "cancelled"),
        (e.Cancelled("enough"), {"sent": False}, "cancelled unsent"),
        (e.DeadlineExceeded("too late"), {}, "cancelled"),
        (e.ProviderError("of no kind"), {}, "server"),
        (KeyError("a classifier's crash"), {}, "our own bug"),
        (RuntimeError("a classifier's crash"), {}, "our own bug"),
    ],
)
def test_what_no_vendor_says_has_its_row_too(error: BaseException | None, details: Any, row: str) -> None:
    assert row_of(error, **details) == TABLE[row]


@given(st.integers(400, 599), st.booleans(), st.booleans(), st.none() | st.booleans())
def test_whatever_status_is_sent_the_row_is_one_of_the_table(
    status: int, delivered: bool, replayable: bool, wish: bool | None
) -> None:
    for vendor in ("openai", "anthropic"):
        headers = {} if wish is None else {"x-should-retry": str(wish).lower()}
        row = classify(said(vendor, status, "", headers), delivered=delivered, replayable=replayable)
        assert any((row.breaker, row.limiter) == each[:2] for each in TABLE.values())
        assert not delivered or row.is_final
        if status >= 500:
            assert row.breaker is Outcome.FAILURE


PERSUADED = {"invalid", "too long", "no model"}
"""What is not repeated, unless the provider says that it may be."""


@pytest.mark.parametrize(("vendor", "row", "status", "body"), SAID)
def test_the_providers_wish_goes_before_the_table_but_for_keys_bills_and_policies(
    vendor: str, row: str, status: int, body: Any
) -> None:
    never = row_of(said(vendor, status, body, {"x-should-retry": "false"}))
    assert never[2] is (TABLE[row][2] if row in ("auth", "quota") else SameRoute.NEVER)
    assert never[3] is TABLE[row][3], "it speaks of the same request here, not of other routes"
    told = row_of(said(vendor, status, body, {"x-should-retry": "true"}))
    assert told[2] is (SameRoute.REPEAT if row in PERSUADED else TABLE[row][2])
    assert told[:2] == TABLE[row][:2]
