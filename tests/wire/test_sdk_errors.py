"""An error is to us of the kind that it is to the vendor's own SDK, with the same type, code and request id."""

from __future__ import annotations

import json

import anthropic
import httpx
import ollama
import openai
import pytest
from tests_sdk_rig import HI, JSON, claude_client, ollama_client, openai_client, provider_of

from rubberduck import errors
from rubberduck.errors import RubberDuckError

CLASSES: list[tuple[int, type[Exception], type[RubberDuckError]]] = [
    (400, openai.BadRequestError, errors.InvalidRequest),
    (401, openai.AuthenticationError, errors.AuthenticationFailed),
    (403, openai.PermissionDeniedError, errors.AuthenticationFailed),
    (404, openai.NotFoundError, errors.ModelNotFound),
    (409, openai.ConflictError, errors.ProviderError),
    (422, openai.UnprocessableEntityError, errors.InvalidRequest),
    (429, openai.RateLimitError, errors.RateLimited),
    (500, openai.InternalServerError, errors.ServiceUnavailable),
    (503, openai.InternalServerError, errors.Overloaded),
]


@pytest.mark.parametrize("module", ["openai", "openai_responses"])
@pytest.mark.parametrize(("status", "sdk", "wanted"), CLASSES)
def test_an_error_of_openai_is_of_the_same_kind(
    status: int, sdk: type[Exception], wanted: type[RubberDuckError], module: str
) -> None:
    said = {"message": "It broke.", "type": "some_error", "param": "p", "code": "some_code"}
    body, headers = json.dumps({"error": said}).encode(), JSON | {"x-request-id": "req_1"}
    with openai_client(body, headers, status) as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="m", messages=HI)
    theirs, got = caught.value, provider_of(module).classify(status, httpx.Headers(headers), body)
    assert type(theirs) is sdk
    check_error(got, wanted, theirs.type, theirs.code, theirs.request_id)


CLAUDE_ERRORS: list[tuple[int, str, type[RubberDuckError]]] = [
    (400, "invalid_request_error", errors.InvalidRequest),
    (401, "authentication_error", errors.AuthenticationFailed),
    (402, "billing_error", errors.QuotaExceeded),
    (403, "permission_error", errors.AuthenticationFailed),
    (404, "not_found_error", errors.ModelNotFound),
    (413, "request_too_large", errors.InvalidRequest),
    (429, "rate_limit_error", errors.RateLimited),
    (500, "api_error", errors.ServiceUnavailable),
    (529, "overloaded_error", errors.Overloaded),
]


@pytest.mark.parametrize(("status", "kind", "wanted"), CLAUDE_ERRORS)
def test_an_error_of_anthropic_is_of_the_same_kind(status: int, kind: str, wanted: type[RubberDuckError]) -> None:
    body = json.dumps(
        {"type": "error", "error": {"type": kind, "message": "It broke."}, "request_id": "req_1"}
    ).encode()
    headers = JSON | {"request-id": "req_1"}
    with claude_client(body, headers, status) as client, pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="m", max_tokens=9, messages=HI)
    got = provider_of("anthropic").classify(status, httpx.Headers(headers), body)
    assert isinstance(caught.value.body, dict)
    check_error(got, wanted, caught.value.body["error"]["type"], None, caught.value.request_id)


@pytest.mark.parametrize(
    ("status", "wanted"),
    [(400, errors.InvalidRequest), (404, errors.ModelNotFound), (500, errors.ServiceUnavailable)],
)
def test_an_error_of_ollama_says_the_same(status: int, wanted: type[RubberDuckError]) -> None:
    body = b'{"error": "It broke."}'
    with pytest.raises(ollama.ResponseError) as caught:
        ollama_client(body, JSON, status).chat("m", HI)
    got = provider_of("ollama").classify(status, httpx.Headers(JSON), body)
    assert caught.value.error in got.message
    assert isinstance(got, wanted)
    assert getattr(got, "status", None) == caught.value.status_code


def check_error(
    got: RubberDuckError, wanted: type[RubberDuckError], kind: str | None, code: str | None, request_id: str | None
) -> None:
    assert isinstance(got, wanted)
    assert "It broke." in got.message
    assert isinstance(got, errors.InvalidRequest | errors.ProviderError)
    assert (got.type, got.code) == (kind, code)
    if isinstance(got, errors.ProviderError):
        assert got.provider_request_id == request_id
