"""An answer begins and goes wrong: cut, garbled, contradicting itself, without its end, or without end."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, BOTH_VERBS, COST, REQUEST, Upstreams, attempts

from rubberduck.errors import (
    AuthenticationFailed,
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    RubberDuckError,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.testing import Behaviour, Call, Reply, dialects
from rubberduck.testing.faults import (
    TEXT,
    BadChunk,
    Cut,
    Endless,
    ErrorInside,
    Gzip,
    HangUp,
    Html,
    NoDone,
    NoPrefill,
    NotHttp,
    Ok,
    Raw,
    RepeatedUsage,
)

# --- before the headers ---------------------------------------------------------------------------------------------


@BOTH_VERBS
@pytest.mark.parametrize("reset", [True, False])
@BOTH_DIALECTS
def test_a_line_that_drops_before_the_headers_is_answered_by_a_repeat(
    upstreams: Upstreams, module: str, reset: bool, verb: str
) -> None:
    pair = upstreams(HangUp(reset=reset), Ok(), dialects=(module, "openai"))
    response = pair.ask(verb)
    assert attempts(response) == [("primary", "ServiceUnavailable"), ("primary", "success")]
    assert response.usage.cost == COST


@BOTH_VERBS
def test_what_is_no_http_is_left_for_the_fallback(upstreams: Upstreams, verb: str) -> None:
    pair = upstreams(NotHttp())
    assert attempts(pair.ask(verb)) == [("primary", "ProtocolError"), ("fallback", "success")]


# --- in the middle --------------------------------------------------------------------------------------------------

BREAKS: dict[str, tuple[Behaviour, Behaviour]] = {
    "cut": (Cut(after=1, reset=True), Cut(after=4, reset=True)),
    "cut in order": (Cut(after=1), Cut(after=4)),
    "ended properly, but short": (Cut(after=1, clean=True), Cut(after=4, clean=True)),
    "malformed": (BadChunk(), BadChunk(after=4)),
    "error event": (ErrorInside(), ErrorInside(after=4)),
}
"""The same fault where the whole answer was wanted, and after the reader has seen a part of it."""


@pytest.mark.parametrize("fault", BREAKS)
@BOTH_DIALECTS
def test_a_whole_answer_that_breaks_off_is_made_good_by_the_fallback(
    upstreams: Upstreams, module: str, fault: str
) -> None:
    pair = upstreams(BREAKS[fault][0], dialects=(module, "openai"))
    response = pair.ask("complete")
    assert attempts(response)[-1] == ("fallback", "success")
    assert len(pair.primary.calls) == (2 if fault == "error event" else 1)  # which is an answer, that there is none


@pytest.mark.parametrize("fault", BREAKS)
@BOTH_DIALECTS
def test_a_stream_that_breaks_off_after_output_raises_with_what_came(
    upstreams: Upstreams, module: str, fault: str
) -> None:
    pair = upstreams(BREAKS[fault][1], dialects=(module, "openai"))
    received: list[str] = []
    with pair.duck.stream(REQUEST) as stream, pytest.raises(StreamInterrupted) as caught:
        received.extend(chunk.delta.content for chunk in stream)
    error = caught.value
    assert "".join(received) == error.text != ""
    assert TEXT.startswith(error.text)
    assert len(error.text) < len(TEXT)
    assert [provider for provider, _ in attempts(error)] == ["primary"]
    assert not pair.fallback.calls
    summary = pair.duck.costs()
    known = error.usage is not None
    assert (summary.cost > 0) is known
    assert (summary.uncertain > 0) is not known
    assert error.spent == (summary.cost if known else None)


@pytest.mark.parametrize("fault", [Cut(after=1), Cut(after=1, clean=True), BadChunk(after=1)], ids=repr)
@BOTH_DIALECTS
def test_a_stream_that_breaks_off_before_any_output_is_answered_by_the_fallback(
    upstreams: Upstreams, module: str, fault: Behaviour
) -> None:
    """The first event names a role and says nothing yet: nobody has seen a part of the answer."""
    pair = upstreams(fault, dialects=(module, "openai"))
    response = pair.ask("stream")
    assert [provider for provider, _ in attempts(response)] == ["primary", "fallback"]


@BOTH_DIALECTS
def test_a_fallback_that_refuses_prefill_is_asked_afresh(upstreams: Upstreams, module: str) -> None:
    pair = upstreams(Cut(after=1), fallback=NoPrefill(), dialects=(module, "anthropic"))
    assert pair.ask("complete").provider == "fallback"
    assert [call.status for call in pair.fallback.calls] == [200]


# --- the end --------------------------------------------------------------------------------------------------------


@BOTH_VERBS
def test_a_stream_of_openai_without_done_is_whole_once_it_gave_its_reason(upstreams: Upstreams, verb: str) -> None:
    pair = upstreams(NoDone())
    response = pair.ask(verb)
    assert attempts(response) == [("primary", "success")]
    assert response.usage.cost == COST


def test_a_stream_of_anthropic_without_message_stop_was_cut(upstreams: Upstreams) -> None:
    pair = upstreams(NoDone(), dialects=("anthropic", "openai"))
    error = pair.failure("stream", StreamInterrupted)
    assert error.text == TEXT
    assert not pair.fallback.calls


def test_an_end_mark_that_does_not_come_is_awaited_for_two_seconds_at_most(upstreams: Upstreams) -> None:
    """The idle limit is left at its 15 s: it is not what ends the wait."""
    pair = upstreams(NoDone(lingers=True), primary={"idle_timeout": None, "first_token_timeout": None}, timeout=60)
    response = pair.ask("stream")
    assert attempts(response) == [("primary", "success")]
    assert response.usage.cost == COST
    assert response.attempts[0].duration < 14


def test_usage_that_does_not_come_is_estimated_and_the_answer_is_whole(upstreams: Upstreams) -> None:
    pair = upstreams(NoDone(has_usage=False))
    response = pair.ask("stream")
    assert attempts(response) == [("primary", "success")]
    assert response.usage.estimated
    assert response.usage.completion_tokens > 0


@BOTH_DIALECTS
def test_repeated_usage_counts_once_and_the_last_word_is_taken(upstreams: Upstreams, module: str) -> None:
    pair = upstreams(RepeatedUsage(), dialects=(module, "openai"))
    response = pair.ask("stream")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (12, 6)
    assert response.usage.cost == COST


# --- errors in a good status, and pages in a bad one ----------------------------------------------------------------

INSIDE: dict[str, tuple[str, str, type[RubberDuckError]]] = {
    "overloaded": ("overloaded_error", "overloaded_error", Overloaded),
    "rate limit": ("rate_limit_exceeded", "rate_limit_error", RateLimited),
    "quota": ("insufficient_quota", "billing_error", QuotaExceeded),
    "server": ("server_error", "api_error", ServiceUnavailable),
    "key": ("invalid_api_key", "authentication_error", AuthenticationFailed),
    "invalid": ("invalid_request_error", "invalid_request_error", InvalidRequest),
}
"""An error's type, as the two dialects call it."""


@BOTH_VERBS
@pytest.mark.parametrize("fault", INSIDE)
@BOTH_DIALECTS
def test_an_error_under_status_200_is_classified_by_its_type(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    openai, anthropic, expected = INSIDE[fault]
    inside = ErrorInside(type=openai if module == "openai" else anthropic)
    pair = upstreams(inside, dialects=(module, "openai"), alone=True, retry={"max_attempts": 1})
    error = pair.failure(verb, expected)
    assert attempts(error) == [("primary", expected.__name__)]


@BOTH_VERBS
@BOTH_DIALECTS
def test_an_error_page_of_a_proxy_is_an_outage_told_in_a_short_excerpt(
    upstreams: Upstreams, module: str, verb: str
) -> None:
    page = Raw(502, {"content-type": "text/html"}, b"<html><body>" + b"Bad Gateway " * 10_000 + b"</body></html>")
    pair = upstreams(Html(502), page, dialects=(module, "openai"), alone=True, retry={"max_attempts": 2})
    error = pair.failure(verb, ServiceUnavailable)
    assert attempts(error) == [("primary", "ServiceUnavailable")] * 2
    assert len(str(error)) < 600
    assert "<" not in str(error)


# --- bytes ----------------------------------------------------------------------------------------------------------

LETTERS = "Ente 🦆 é 鴨"


@pytest.mark.parametrize("piece", [1, 3])
@BOTH_DIALECTS
def test_characters_that_come_in_halves_are_put_together(upstreams: Upstreams, module: str, piece: int) -> None:
    pair = upstreams(Ok(LETTERS, piece=piece), dialects=(module, "openai"))
    response = pair.ask("stream", text=LETTERS)
    assert attempts(response) == [("primary", "success")]


class HalfALetter:
    """Half of a character: then more, which makes it none, or the end of the line."""

    is_broken = True

    def __init__(self, *, goes_on: bool) -> None:
        self.goes_on = goes_on

    async def answer(self, call: Call, reply: Reply) -> None:
        letter = "é".encode()
        body = dialects.answer(call.path, "m", LETTERS)
        if (call.json or {}).get("stream"):
            body = b"".join(dialects.events(call.path, "m", LETTERS))
        head, _, rest = body.partition(letter)
        kind = "text/event-stream" if (call.json or {}).get("stream") else "application/json"
        await reply.head(200, {"content-type": kind}, length=len(body) - 1 if self.goes_on else len(body))
        await reply.body(head + letter[:1] + (rest if self.goes_on else b""))
        if not self.goes_on:
            reply.hang_up()


@BOTH_DIALECTS
@pytest.mark.parametrize("goes_on", [True, False], ids=["invalid", "cut"])
def test_half_a_character_is_no_text(upstreams: Upstreams, module: str, goes_on: bool) -> None:
    pair = upstreams(HalfALetter(goes_on=goes_on), dialects=(module, "openai"))
    response = pair.ask("complete")
    assert attempts(response) == [("primary", "ProtocolError"), ("fallback", "success")]
    assert response.provider == "fallback"
    pair.failure("stream", StreamInterrupted)


@BOTH_VERBS
@BOTH_DIALECTS
def test_a_compressed_answer_is_decoded(upstreams: Upstreams, module: str, verb: str) -> None:
    pair = upstreams(Gzip(), dialects=(module, "openai"))
    assert attempts(pair.ask(verb)) == [("primary", "success")]


@pytest.mark.parametrize("fault", [Gzip(keep=0.5), Raw(200, {"content-encoding": "gzip"}, b"no gzip at all")], ids=repr)
@BOTH_DIALECTS
def test_a_compressed_answer_that_is_cut_or_none_is_made_good_by_the_fallback(
    upstreams: Upstreams, module: str, fault: Behaviour
) -> None:
    pair = upstreams(fault, dialects=(module, "openai"))
    assert attempts(pair.ask("complete")) == [("primary", "ProtocolError"), ("fallback", "success")]


# --- too much -------------------------------------------------------------------------------------------------------


@pytest.fixture
def peak() -> Iterator[Callable[[], float]]:
    """The most memory that Python objects took so far in this test, in bytes."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


class EndlessText:
    """A stream of good events that never ends."""

    async def answer(self, call: Call, reply: Reply) -> None:
        role, begin, delta, *_ = dialects.events(call.path, "m", "x" * 60_000)
        parts = [role, begin] if dialects.is_anthropic(call.path) else [role]
        many = delta if dialects.is_anthropic(call.path) else begin
        await reply.head(200, {"content-type": "text/event-stream"})
        await reply.body(b"".join(parts))
        while True:
            await reply.body(many)
            await reply.wait(0)


PATIENT = {"first_token_timeout": "60s", "timeout": "60s", "idle_timeout": "60s"}


@BOTH_VERBS
def test_a_body_that_never_ends_is_stopped_at_16_mib(
    upstreams: Upstreams, verb: str, peak: Callable[[], float]
) -> None:
    pair = upstreams(Endless(), primary=PATIENT, timeout=90)
    response = pair.ask(verb)
    assert attempts(response) == [("primary", "ProtocolError"), ("fallback", "success")]
    assert peak() < 40e6
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at)
    # What the buffers of both sockets hold was sent, too: up to 10 MiB on Linux.
    assert pair.primary.calls[0].bytes_sent < 32 * 1024 * 1024


@BOTH_DIALECTS
def test_text_that_never_ends_is_stopped_at_16_mib(
    upstreams: Upstreams, module: str, peak: Callable[[], float]
) -> None:
    pair = upstreams(EndlessText(), primary=PATIENT, timeout=90, dialects=(module, "openai"))
    with pair.duck.stream(REQUEST) as stream, pytest.raises(StreamInterrupted) as caught:
        for _ in stream:
            pass
    assert len(caught.value.text) <= 16 * 1024 * 1024
    assert peak() < 80e6
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at)


def test_a_bomb_is_stopped_at_the_bound_of_decoded_bytes(upstreams: Upstreams, peak: Callable[[], float]) -> None:
    pair = upstreams(Gzip(bomb=60_000_000), primary=PATIENT, timeout=90)
    assert attempts(pair.ask("complete")) == [("primary", "ProtocolError"), ("fallback", "success")]
    assert peak() < 40e6
