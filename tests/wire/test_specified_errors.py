"""Every error that the formats know, as an answer of its own status and in a stream that began well."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.errors import RubberDuckError
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider

Fields = dict[str, Any]


@cache
def adapter(word: str) -> HTTPProvider:
    return resolve(word).init(ProviderConfig(name=word, module=word, api_keys=("k",)))


def chat(kind: str | None, code: str | int | None = None, message: str = "no") -> Fields:
    return {"error": {"message": message, "type": kind, "param": "model", "code": code}}


def claude(kind: str) -> Fields:
    return {"type": "error", "error": {"type": kind, "message": "no", "details": None}, "request_id": "req_body"}


BAD = "invalid_request_error"
ANSWERED: list[tuple[str, int, Any, type[RubberDuckError]]] = [
    ("openai", 400, chat(BAD, "unsupported_parameter"), errors.InvalidRequest),
    ("openai", 400, chat(BAD, "unsupported_value"), errors.InvalidRequest),
    ("openai", 400, chat(BAD, "invalid_value"), errors.InvalidRequest),
    ("openai", 400, chat(BAD, "context_length_exceeded"), errors.ContextLengthExceeded),
    ("openai", 400, chat(BAD, "invalid_image_url"), errors.InvalidRequest),
    ("openai", 400, chat(BAD, "invalid_image_format"), errors.InvalidRequest),
    ("openai", 401, chat(BAD, "invalid_api_key"), errors.AuthenticationFailed),
    ("openai", 403, chat(None), errors.AuthenticationFailed),
    ("openai", 404, chat(BAD, "model_not_found"), errors.ModelNotFound),
    ("openai", 409, chat(None), errors.ProviderError),
    ("openai", 422, chat(BAD), errors.InvalidRequest),
    ("openai", 429, chat("requests", "rate_limit_exceeded"), errors.RateLimited),
    ("openai", 429, chat("insufficient_quota", "insufficient_quota"), errors.QuotaExceeded),
    ("openai", 500, chat("server_error"), errors.ServiceUnavailable),
    ("openai", 503, chat("server_error"), errors.Overloaded),
    ("anthropic", 400, claude("invalid_request_error"), errors.InvalidRequest),
    ("anthropic", 401, claude("authentication_error"), errors.AuthenticationFailed),
    ("anthropic", 402, claude("billing_error"), errors.QuotaExceeded),
    ("anthropic", 403, claude("permission_error"), errors.AuthenticationFailed),
    ("anthropic", 404, claude("not_found_error"), errors.ModelNotFound),
    ("anthropic", 409, claude("conflict_error"), errors.ProviderError),
    ("anthropic", 413, claude("request_too_large"), errors.InvalidRequest),
    ("anthropic", 429, claude("rate_limit_error"), errors.RateLimited),
    ("anthropic", 500, claude("api_error"), errors.ServiceUnavailable),
    ("anthropic", 504, claude("timeout_error"), errors.ServiceUnavailable),
    ("anthropic", 529, claude("overloaded_error"), errors.Overloaded),
    ("ollama", 400, {"error": "no"}, errors.InvalidRequest),
    ("ollama", 404, {"error": 'model "m" not found, try pulling it first'}, errors.ModelNotFound),
    ("ollama", 429, {"error": "too many requests"}, errors.RateLimited),
    ("ollama", 500, {"error": "runner died"}, errors.ServiceUnavailable),
    ("ollama", 502, {"error": "upstream"}, errors.ServiceUnavailable),
    ("llama_server", 400, {"error": {"code": 400, "message": "no", "type": BAD}}, errors.InvalidRequest),
    (
        "llama_server",
        400,
        {
            "error": {
                "code": 400,
                "message": "too long",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9000,
                "n_ctx": 4096,
            }
        },
        errors.ContextLengthExceeded,
    ),
    (
        "llama_server",
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        errors.Overloaded,
    ),
    # habits of compatible servers
    ("openrouter", 401, {"error": {"code": 401, "message": "No auth credentials"}}, errors.AuthenticationFailed),
    ("xai", 400, {"code": "x", "error": "Incorrect API key provided: k."}, errors.AuthenticationFailed),
    ("xai", 422, {"code": "x", "error": "missing field"}, errors.InvalidRequest),
    ("mistral", 401, {"detail": "Unauthorized"}, errors.AuthenticationFailed),
    ("mistral", 422, {"detail": [{"loc": ["body"], "msg": "Field required"}]}, errors.InvalidRequest),
    ("groq", 400, {"error": {"message": "no", "type": BAD, "failed_generation": "<f>"}}, errors.InvalidRequest),
    ("openai", 502, "<html>Bad gateway</html>", errors.ServiceUnavailable),
    ("openai", 500, "", errors.ServiceUnavailable),
]


@pytest.mark.parametrize(("word", "status", "body", "expected"), ANSWERED)
def test_an_answer_of_each_status_is_the_error_of_its_name(
    word: str, status: int, body: Any, expected: type[RubberDuckError]
) -> None:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    with pytest.raises(RubberDuckError) as caught:
        adapter(word).decode(status, {}, content)
    assert type(caught.value) is expected
    assert caught.value.status == status  # type: ignore[attr-defined]
    assert "<" not in str(caught.value)


def begun(word: str) -> bytes:
    """The beginning of a stream that says "Hi"."""
    match word:
        case "anthropic":
            delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
            return f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode()
        case "ollama":
            return json.dumps({"model": "m", "message": {"content": "Hi"}, "done": False}).encode() + b"\n"
        case _:
            return b'data: {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}\n\n'


def told(word: str, body: Fields) -> bytes:
    match word:
        case "anthropic":
            return f"event: error\ndata: {json.dumps(body)}\n\n".encode()
        case "ollama":
            return json.dumps(body).encode() + b"\n"
        case "groq":
            return f"event: error\ndata: {json.dumps(body)}\n\n".encode()
        case _:
            return f"data: {json.dumps(body)}\n\n".encode()


STREAMED: list[tuple[str, Fields, type[RubberDuckError]]] = [
    ("openai", chat("server_error"), errors.ServiceUnavailable),
    ("openai", chat(BAD), errors.InvalidRequest),
    ("openai", chat("requests", "rate_limit_exceeded"), errors.RateLimited),
    ("openai", chat(None, "insufficient_quota"), errors.QuotaExceeded),
    *(
        (word, body, expected)
        for word, _, body, expected in ANSWERED
        if word == "anthropic"  # classed by the type, for the status is 200
    ),
    ("ollama", {"error": "runner died"}, errors.ServiceUnavailable),
    ("groq", {"error": {"message": "no", "type": "x", "status_code": 400}}, errors.InvalidRequest),
    ("openrouter", {"error": {"code": 502, "message": "no"}, "choices": []}, errors.ServiceUnavailable),
]


@pytest.mark.parametrize(("word", "body", "expected"), STREAMED)
def test_an_error_in_a_stream_comes_after_what_was_said(
    word: str, body: Fields, expected: type[RubberDuckError]
) -> None:
    decoder = adapter(word).stream_decoder()
    chunks = decoder.feed(begun(word) + told(word, body))
    assert "".join(chunk.delta.content for chunk in chunks) == "Hi"
    with pytest.raises(RubberDuckError) as caught:
        decoder.check()
    assert type(caught.value) is expected
    assert caught.value.status == 200  # type: ignore[attr-defined]


def test_the_request_is_known_by_the_header_or_by_the_body() -> None:
    body = json.dumps(claude("api_error")).encode()
    by_header = adapter("anthropic").classify(500, {"request-id": "req_header"}, body)
    by_body = adapter("anthropic").classify(500, {}, body)
    assert isinstance(by_header, errors.ProviderError)
    assert isinstance(by_body, errors.ProviderError)
    assert (by_header.provider_request_id, by_body.provider_request_id) == ("req_header", "req_body")


def test_quota_is_no_rate_limit() -> None:
    """Another try would be refused too, and a limiter that slows down helps nobody."""
    spent = adapter("openai").classify(429, {"retry-after": "1"}, json.dumps(chat("insufficient_quota")).encode())
    assert isinstance(spent, errors.QuotaExceeded)
    assert not isinstance(spent, errors.RateLimited)
    assert not spent.retryable
