"""Two upstreams on real sockets, the first of which fails: who answers, after which attempts, and for what money."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from tests_system_rig import StartDuck

from rubberduck import RubberDuck
from rubberduck.errors import (
    ContentFiltered,
    InvalidRequest,
    NoAvailableProvider,
    Overloaded,
    RateLimited,
    RubberDuckError,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.testing import Behaviour, FaultServer
from rubberduck.testing.faults import (
    TEXT,
    BadChunk,
    ContextExceeded,
    Cut,
    ErrorInside,
    Filtered,
    Flaky,
    HangUp,
    Html,
    NoDone,
    NotHttp,
    Ok,
    OutOfQuota,
    RepeatedUsage,
    Silence,
    Stall,
    Status,
)

REQUEST = {"model": "smart", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
USAGE = (12, 6)
"""Tokens in and out of every whole answer of a fault server."""
PRICE = {"input": 1, "output": 2}
COST = Decimal("0.000024")


@dataclass
class Pair:
    """A duck over two fault servers."""

    duck: RubberDuck
    primary: FaultServer
    fallback: FaultServer

    def ask(self, verb: str) -> Any:
        """The whole answer, streamed or not."""
        if verb == "complete":
            return self.duck.complete(REQUEST)
        with self.duck.stream(REQUEST) as stream:
            text = "".join(chunk.delta.content for chunk in stream)
        assert stream.text == text
        return stream.response


class Upstreams:
    """Starts pairs; `dialects` are the modules of primary and fallback."""

    def __init__(self, start_duck: StartDuck, servers: ExitStack) -> None:
        self._start_duck = start_duck
        self._servers = servers

    def __call__(
        self, *script: Behaviour, fallback: Behaviour | None = None, alone: bool = False, **sections: Any
    ) -> Pair:
        primary = self._servers.enter_context(FaultServer(*script))
        second = self._servers.enter_context(FaultServer(fallback or Ok()))
        first_module, second_module = sections.pop("dialects", ("openai", "anthropic"))
        # Long enough for a busy machine, short enough to wait for.
        quick = {"api_key": "key-of-a-test", "models": ["m"], "first_token_timeout": "400ms", "idle_timeout": "400ms"}
        providers = {
            "primary": {**quick, "module": first_module, "base_url": _address(primary, first_module), "priority": 1},
            "fallback": {**quick, "module": second_module, "base_url": _address(second, second_module), "priority": 2},
        }
        routes = ["primary/m"] if alone else ["primary/m", "fallback/m"]
        sections = {
            "models": {"smart": routes},
            "retry": {"base_delay": "20ms", "max_delay": "40ms"},
            "prices": {"m": PRICE},
            "timeout": "20s",
            **sections,
        }
        return Pair(self._start_duck(providers, **sections), primary, second)


def _address(server: FaultServer, module: str) -> str:
    return server.base_url + ("/v1" if module == "openai" else "")


@pytest.fixture
def upstreams(start_duck: StartDuck) -> Iterator[Upstreams]:
    with ExitStack() as servers:
        yield Upstreams(start_duck, servers)


def attempts(ended: Any) -> list[tuple[str, str]]:
    return [(attempt.provider, attempt.outcome) for attempt in ended.attempts]


def whole_answers(server: FaultServer) -> int:
    """How many answers the server would bill."""
    return sum(call.status == 200 and call.finished_at is not None for call in server.calls)


def assert_books_agree(pair: Pair) -> None:
    summary = pair.duck.costs()
    booked = {name: share.calls for (name, _), share in summary.by_model.items() if share.calls}
    billed = {"primary": whole_answers(pair.primary), "fallback": whole_answers(pair.fallback)}
    assert booked == {name: count for name, count in billed.items() if count}
    assert summary.cost == COST * sum(billed.values())


FAILS_ONCE = {
    "500 once": (Status(500), "ServiceUnavailable"),
    "reset before the headers": (HangUp(), "ServiceUnavailable"),
    "closed before the headers": (HangUp(reset=False), "ServiceUnavailable"),
    "HTML 502": (Html(502), "ServiceUnavailable"),
    "429 with a hint": (Status(429, retry_after=0.2), "RateLimited"),
    "529": (Status(529), "Overloaded"),
    "409": (Status(409), "ProviderError"),
}


@pytest.mark.parametrize("verb", ["complete", "stream"])
@pytest.mark.parametrize("fault", FAILS_ONCE)
@pytest.mark.parametrize("module", ["openai", "anthropic"])
def test_what_fails_once_is_answered_by_a_repeat(upstreams: Upstreams, module: str, fault: str, verb: str) -> None:
    behaviour, outcome = FAILS_ONCE[fault]
    pair = upstreams(behaviour, Ok(), dialects=(module, "openai"))
    response = pair.ask(verb)
    assert (response.text, response.provider) == (TEXT, "primary")
    assert attempts(response) == [("primary", outcome), ("primary", "success")]
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == USAGE
    assert response.usage.cost == COST
    assert [attempt.cost for attempt in response.attempts][1] == COST
    assert not pair.fallback.calls


FAILS_FOR_EVER = {
    "503 for ever": (Status(503), ["Overloaded"] * 2),
    "429 without a hint": (Status(429), ["RateLimited"] * 2),
    "429 with a long hint": (Status(429, retry_after=60), ["RateLimited"]),
    "no answer": (Silence(), ["ProviderTimeout"]),
    "no HTTP": (NotHttp(), ["ProtocolError"]),
    "bad answer": (BadChunk(after=1), ["ProtocolError"]),
    "out of quota": (OutOfQuota(), ["QuotaExceeded"]),
    "key refused": (Status(401), ["AuthenticationFailed"]),
    "model unknown": (Status(404), ["ModelNotFound"]),
    "too long for this one": (ContextExceeded(), ["ContextLengthExceeded"]),
    "error under status 200": (ErrorInside(), ["ServiceUnavailable"] * 2),
}


@pytest.mark.parametrize("verb", ["complete", "stream"])
@pytest.mark.parametrize("fault", FAILS_FOR_EVER)
def test_what_goes_on_failing_is_answered_by_the_fallback(upstreams: Upstreams, fault: str, verb: str) -> None:
    behaviour, outcomes = FAILS_FOR_EVER[fault]
    pair = upstreams(behaviour)
    response = pair.ask(verb)
    assert (response.text, response.provider) == (TEXT, "fallback")
    assert attempts(response) == [*[("primary", outcome) for outcome in outcomes], ("fallback", "success")]
    assert len(pair.primary.calls) == len(outcomes)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == USAGE
    share = pair.duck.costs().by_model["fallback", "m"]
    assert (share.calls, share.cost) == (1, COST)
    assert pair.duck.costs().cost == COST


BREAKS = {
    "cut": (Cut(after=1, reset=True), Cut(after=4)),
    "cut in order": (Cut(after=1), Cut(after=4, clean=True)),
    "stall": (Stall(after=1), Stall(after=4)),
    "bad chunk": (BadChunk(), BadChunk(after=4)),
    "error event": (ErrorInside(), ErrorInside(after=4)),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_a_whole_answer_that_breaks_off_is_answered_by_the_fallback(upstreams: Upstreams, fault: str) -> None:
    pair = upstreams(BREAKS[fault][0], retry={"same_route_repeats": 0})
    response = pair.ask("complete")
    assert (response.text, response.provider) == (TEXT, "fallback")
    assert [provider for provider, _ in attempts(response)] == ["primary", "fallback"]
    assert pair.duck.costs().by_model["fallback", "m"].cost == COST


@pytest.mark.parametrize("module", ["openai", "anthropic"])
@pytest.mark.parametrize("fault", BREAKS)
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
    assert [provider for provider, _ in attempts(error)] == ["primary"]
    assert not pair.fallback.calls
    summary = pair.duck.costs()
    known = error.usage is not None
    assert (summary.cost > 0) is known
    assert (summary.uncertain > 0) is not known
    assert error.spent == (summary.cost if known else None)


def test_a_stream_that_breaks_off_before_any_output_is_answered_by_the_fallback(upstreams: Upstreams) -> None:
    """OpenAI's first event names a role and says nothing yet: nobody has seen a part of the answer."""
    pair = upstreams(Cut(after=1))
    response = pair.ask("stream")
    assert (response.text, response.provider) == (TEXT, "fallback")
    assert "StreamInterrupted" not in dict(attempts(response)).values()


def test_a_malformed_answer_under_status_200_may_have_been_billed(upstreams: Upstreams) -> None:
    pair = upstreams(BadChunk(), alone=True, retry={"max_attempts": 1})
    with pytest.raises(ServiceUnavailable) as caught:
        pair.ask("complete")
    assert caught.value.spent is None
    assert (pair.duck.costs().cost, pair.duck.costs().uncertain > 0) == (0, True)


def test_a_stream_that_says_its_role_and_then_nothing_is_cut_at_the_limit_of_the_first_token(
    upstreams: Upstreams,
) -> None:
    pair = upstreams(Stall(after=1))
    assert pair.ask("stream").provider == "fallback"


def test_a_stream_without_end_mark_is_whole_once_it_gave_its_reason(upstreams: Upstreams) -> None:
    pair = upstreams(NoDone())
    response = pair.ask("stream")
    assert (response.text, response.provider) == (TEXT, "primary")
    assert_books_agree(pair)


def test_repeated_usage_counts_once(upstreams: Upstreams) -> None:
    pair = upstreams(RepeatedUsage())
    assert pair.ask("stream").usage.cost == COST
    assert_books_agree(pair)


@pytest.mark.parametrize("verb", ["complete", "stream"])
def test_a_provider_alone_is_repeated_up_to_its_limit_and_its_last_error_raised(
    upstreams: Upstreams, verb: str
) -> None:
    pair = upstreams(Status(503, message="all ducks are busy"), alone=True)
    with pytest.raises(Overloaded, match="all ducks are busy") as caught:
        pair.ask(verb)
    assert attempts(caught.value) == [("primary", "Overloaded")] * 3
    assert (caught.value.spent, caught.value.request_id) == (0, caught.value.trace.request_id)
    assert pair.duck.costs().cost == pair.duck.costs().uncertain == 0


@pytest.mark.parametrize("verb", ["complete", "stream"])
def test_an_invalid_request_is_raised_with_one_attempt_and_counts_for_no_breaker(
    upstreams: Upstreams, verb: str
) -> None:
    pair = upstreams(Status(400, message="that is no duck"), alone=True)
    for _ in range(6):
        with pytest.raises(InvalidRequest, match="that is no duck") as caught:
            pair.ask(verb)
        assert attempts(caught.value) == [("primary", "InvalidRequest")]
    assert pair.duck.status().providers["primary"].state == "closed"
    assert len(pair.primary.calls) == 6


def test_a_hint_is_waited_for_and_nothing_is_sent_before(upstreams: Upstreams) -> None:
    pair = upstreams(Status(429, retry_after=0.5), Ok())
    assert pair.ask("complete").provider == "primary"
    first, second = pair.primary.calls
    assert 0.49 <= second.arrived_at - first.arrived_at <= 1.5


def test_a_filtered_answer_says_so_and_is_an_answer(upstreams: Upstreams) -> None:
    pair = upstreams(Filtered())
    try:
        ended: Any = pair.ask("complete")
    except ContentFiltered as error:
        ended = error
    else:
        assert ended.choices[0].finish_reason == "content_filter"
    assert [provider for provider, _ in attempts(ended)] == ["primary"]


def test_a_provider_that_keeps_failing_is_left_alone_until_its_breaker_lets_a_probe_through(
    upstreams: Upstreams, eventually: Any
) -> None:
    pair = upstreams(
        Status(500),
        circuit_breaker={"failure_threshold": 3, "reset_timeout": "300ms", "success_threshold": 1},
        retry={"same_route_repeats": 0},
    )
    assert [pair.ask("complete").provider for _ in range(5)] == ["fallback"] * 5
    assert len(pair.primary.calls) == 3
    assert pair.duck.status().providers["primary"].state == "open"
    pair.primary.play(Ok())
    eventually(lambda: pair.ask("complete").provider == "primary")
    assert pair.duck.status().providers["primary"].state == "closed"


def test_when_all_fail_the_error_is_the_last_providers_with_every_attempt(upstreams: Upstreams) -> None:
    pair = upstreams(Status(503), fallback=Status(500))
    with pytest.raises(ServiceUnavailable) as caught:
        pair.ask("complete")
    # One repeat each; with nobody else left, those tried already, up to three attempts each.
    providers = [provider for provider, _ in attempts(caught.value)]
    assert providers[:4] == ["primary"] * 2 + ["fallback"] * 2
    assert sorted(providers) == ["fallback"] * 3 + ["primary"] * 3
    assert caught.value.spent == 0


def test_open_circuits_everywhere_say_why_and_when_to_come_back(upstreams: Upstreams) -> None:
    pair = upstreams(
        Status(500), fallback=Status(500), circuit_breaker={"failure_threshold": 1}, retry={"same_route_repeats": 0}
    )
    with pytest.raises(ServiceUnavailable):
        pair.ask("complete")
    with pytest.raises(NoAvailableProvider) as caught:
        pair.ask("complete")
    assert caught.value.reasons == {"primary/m": "circuit open", "fallback/m": "circuit open"}
    assert 50 < caught.value.retry_after <= 60
    assert caught.value.retryable
    assert len(pair.primary.calls) == len(pair.fallback.calls) == 1


def test_only_the_named_providers_are_asked(upstreams: Upstreams) -> None:
    pair = upstreams(Ok())
    assert pair.duck.complete(REQUEST, providers=["fallback"]).provider == "fallback"
    pair.primary.play(Status(429, retry_after=60))
    with pytest.raises(RateLimited):
        pair.duck.complete(REQUEST, providers=["primary"], timeout=5)
    assert len(pair.fallback.calls) == 1


def test_closing_a_stream_closes_its_socket_at_once(upstreams: Upstreams) -> None:
    pair = upstreams(Ok(text="quack " * 500, between=0.01))
    stream = pair.duck.stream(REQUEST)
    next(stream)
    closed_at = time.monotonic()
    stream.close()
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at is not None)
    assert pair.primary.calls[0].disconnected_at - closed_at < 0.5
    assert not pair.fallback.calls


@pytest.mark.parametrize("by_message", [False, True])
def test_a_forgotten_stream_closes_its_socket(upstreams: Upstreams, by_message: bool) -> None:
    """One that was asked for by message was once kept alive by the reply that had brought it."""
    pair = upstreams(Ok(text="quack " * 500, between=0.01))
    stream = pair.duck.service.ask({"stream": REQUEST}) if by_message else pair.duck.stream(REQUEST)
    next(stream)
    del stream
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at is not None)


def test_a_flaky_primary_fails_no_call_and_books_agree_with_what_both_billed(upstreams: Upstreams) -> None:
    pair = upstreams(Flaky(0.4, seed=3), retry={"base_delay": "1ms", "max_delay": "2ms"})
    for number in range(40):
        assert pair.ask(("complete", "stream")[number % 2]).text == TEXT
    assert pair.fallback.calls
    assert_books_agree(pair)


def test_books_agree_where_both_are_flaky_and_some_calls_fail(upstreams: Upstreams) -> None:
    pair = upstreams(Flaky(0.4, seed=3), fallback=Flaky(0.4, seed=4), retry={"base_delay": "1ms", "max_delay": "2ms"})
    for number in range(40):
        with contextlib.suppress(RubberDuckError):
            assert pair.ask(("complete", "stream")[number % 2]).text == TEXT
    assert_books_agree(pair)
