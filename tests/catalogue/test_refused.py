"""The provider answers, and says no: who is asked again, when, and what the caller is told."""

from __future__ import annotations

from math import inf

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, BOTH_VERBS, COST, PRICE, USAGE, Upstreams, attempts

from rubberduck.errors import (
    ContentFiltered,
    ContextLengthExceeded,
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    RubberDuckError,
)
from rubberduck.testing import Behaviour
from rubberduck.testing.faults import (
    TEXT,
    ByKey,
    ContextExceeded,
    Filtered,
    Html,
    Ok,
    OutOfQuota,
    PolicyRefusal,
    SpendLimit,
    Status,
)

SLACK = 0.25
"""Seconds that a busy machine may add to a wait."""


# --- once -----------------------------------------------------------------------------------------------------------

REFUSED_ONCE = {
    "500": (Status(500), "ServiceUnavailable"),
    "HTML 502": (Html(502), "ServiceUnavailable"),
    "529": (Status(529), "Overloaded"),
    "409": (Status(409), "ProviderError"),
}


@BOTH_VERBS
@pytest.mark.parametrize("fault", REFUSED_ONCE)
@BOTH_DIALECTS
def test_what_is_refused_once_is_answered_by_a_repeat(upstreams: Upstreams, module: str, fault: str, verb: str) -> None:
    behaviour, outcome = REFUSED_ONCE[fault]
    pair = upstreams(behaviour, Ok(), dialects=(module, "openai"))
    response = pair.ask(verb)
    assert response.provider == "primary"
    assert attempts(response) == [("primary", outcome), ("primary", "success")]
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == USAGE
    assert [attempt.cost for attempt in response.attempts] == [0, COST]
    assert response.usage.cost == COST


@BOTH_VERBS
@BOTH_DIALECTS
def test_a_429_with_a_hint_is_repeated_when_the_hint_says_and_not_before(
    upstreams: Upstreams, module: str, verb: str
) -> None:
    """The hint of 2 s at a tenth: what counts is that the wait is the hint's, and at most a tenth more."""
    waits: list[float] = []
    while len(waits) < 5 and min(waits, default=inf) > 0.22 + SLACK:  # the machine may be busy with something else
        pair = upstreams(Status(429, retry_after=0.2), Ok(), dialects=(module, "openai"))
        response = pair.ask(verb)
        assert attempts(response) == [("primary", "RateLimited"), ("primary", "success")]
        first, second = pair.primary.calls
        waits.append(second.arrived_at - first.arrived_at)
        assert waits[-1] >= 0.2
    assert min(waits) <= 0.22 + SLACK, waits


def test_a_hint_of_two_seconds_is_waited_for_in_full(upstreams: Upstreams) -> None:
    pair = upstreams(Status(429, retry_after=2), Ok())
    assert pair.ask("stream").provider == "primary"
    first, second = pair.primary.calls
    assert second.arrived_at - first.arrived_at >= 2.0


# --- for ever -------------------------------------------------------------------------------------------------------

REFUSED_FOR_EVER = {
    "503": (Status(503), ["Overloaded"] * 2),
    "429 with a short hint": (Status(429, retry_after=0.1), ["RateLimited"] * 2),
    "429 with a long hint": (Status(429, retry_after=60), ["RateLimited"]),
    "too long for this one": (ContextExceeded(), ["ContextLengthExceeded"]),
    "out of quota": (OutOfQuota(), ["QuotaExceeded"]),
    "spend limit": (SpendLimit(), ["QuotaExceeded"]),
    "payment required": (Status(402), ["QuotaExceeded"]),
    "key refused": (Status(401), ["AuthenticationFailed"]),
    "model unknown": (Status(404), ["ModelNotFound"]),
}


@BOTH_VERBS
@pytest.mark.parametrize("fault", REFUSED_FOR_EVER)
@BOTH_DIALECTS
def test_what_goes_on_being_refused_is_answered_by_the_fallback(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    behaviour, outcomes = REFUSED_FOR_EVER[fault]
    pair = upstreams(behaviour, dialects=(module, "openai"))
    response = pair.ask(verb)
    assert attempts(response) == [*[("primary", outcome) for outcome in outcomes], ("fallback", "success")]
    assert len(pair.primary.calls) == len(outcomes)
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == USAGE


def test_a_429_without_a_hint_is_repeated_once_and_not_at_once(upstreams: Upstreams) -> None:
    pair = upstreams(Status(429))
    assert attempts(pair.ask("complete")) == [("primary", "RateLimited")] * 2 + [("fallback", "success")]
    first, second = pair.primary.calls
    assert second.arrived_at - first.arrived_at >= 1


SAYS = "all ducks are busy"
ALONE: dict[str, tuple[Behaviour, type[RubberDuckError], str, int]] = {
    "503": (Status(503, message=SAYS), Overloaded, SAYS, 3),
    "429": (Status(429, retry_after=0.1, message=SAYS), RateLimited, SAYS, 3),
    "out of quota": (OutOfQuota(), QuotaExceeded, "exceeded your current quota", 1),
    "spend limit": (SpendLimit(), QuotaExceeded, "limit", 1),
    "payment required": (Status(402, message=SAYS), QuotaExceeded, SAYS, 1),
    "too long": (ContextExceeded(), ContextLengthExceeded, "prompt is too long", 1),
    "invalid": (Status(400, message=SAYS), InvalidRequest, SAYS, 1),
}


@BOTH_VERBS
@pytest.mark.parametrize("fault", ALONE)
@BOTH_DIALECTS
def test_with_nobody_else_to_ask_the_error_is_the_providers_own(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    behaviour, expected, says, count = ALONE[fault]
    pair = upstreams(behaviour, alone=True, dialects=(module, "openai"))
    error = pair.failure(verb, expected)
    assert says in str(error)
    assert attempts(error) == [("primary", expected.__name__)] * count
    assert len(pair.primary.calls) == count
    assert error.spent == 0


# --- other keys ----------------------------------------------------------------------------------------------------

SPENT = {"out of quota": OutOfQuota(), "spend limit": SpendLimit(), "payment required": Status(402)}


@BOTH_VERBS
@pytest.mark.parametrize("fault", SPENT)
@BOTH_DIALECTS
def test_a_used_up_account_is_left_for_the_account_of_another_key_and_not_asked_again(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    keys = {"api_key": None, "api_keys": ["first", "second"]}
    pair = upstreams(ByKey({"first": SPENT[fault]}), primary=keys, dialects=(module, "openai"))
    assert attempts(pair.ask(verb)) == [("primary", "QuotaExceeded"), ("primary", "success")]
    assert attempts(pair.ask(verb)) == [("primary", "success")]
    assert [call.key for call in pair.primary.calls] == ["first", "second", "second"]


@BOTH_VERBS
@pytest.mark.parametrize("fault", SPENT)
@BOTH_DIALECTS
def test_with_all_accounts_used_up_each_key_is_tried_once_and_then_the_route_left_alone(
    upstreams: Upstreams, module: str, fault: str, verb: str
) -> None:
    keys = {"api_key": None, "api_keys": ["first", "second"]}
    pair = upstreams(SPENT[fault], primary=keys, dialects=(module, "openai"))
    assert attempts(pair.ask(verb)) == [("primary", "QuotaExceeded")] * 2 + [("fallback", "success")]
    assert sorted(call.key for call in pair.primary.calls) == ["first", "second"]
    assert attempts(pair.ask(verb)) == [("fallback", "success")]
    assert len(pair.primary.calls) == 2


# --- how much a model can read -------------------------------------------------------------------------------------


@BOTH_VERBS
@pytest.mark.parametrize(("other", "is_asked"), [("gpt-3.5-turbo", False), ("gpt-4.1", True), ("made-up", True)])
def test_what_is_too_long_for_one_model_goes_on_to_larger_and_unknown_ones_only(
    upstreams: Upstreams, monkeypatch: pytest.MonkeyPatch, other: str, is_asked: bool, verb: str
) -> None:
    """What the list says holds for the vendor's own servers; here this machine is where they are."""
    monkeypatch.setattr("rubberduck.providers.openai.OpenAI.default_base_url", "http://127.0.0.1/v1")
    models = {"smart": ["primary/gpt-4o", f"fallback/{other}"]}
    prices = dict.fromkeys(("m", "gpt-4o", other), PRICE)
    pair = upstreams(ContextExceeded(), dialects=("openai", "openai"), models=models, prices=prices)
    if is_asked:
        assert attempts(pair.ask(verb)) == [("primary", "ContextLengthExceeded"), ("fallback", "success")]
    else:
        assert attempts(pair.failure(verb, ContextLengthExceeded)) == [("primary", "ContextLengthExceeded")]
    assert len(pair.fallback.calls) == is_asked


# --- what waiting and repeating cannot cure -------------------------------------------------------------------------


@BOTH_VERBS
@BOTH_DIALECTS
def test_a_question_that_a_policy_refuses_is_asked_once_and_nobody_else(
    upstreams: Upstreams, module: str, verb: str
) -> None:
    pair = upstreams(PolicyRefusal(), dialects=(module, "openai"))
    error = pair.failure(verb, ContentFiltered)
    assert "blocked by content filtering policy" in str(error)
    assert attempts(error) == [("primary", "ContentFiltered")]
    assert not pair.fallback.calls


@BOTH_VERBS
@BOTH_DIALECTS
def test_an_answer_that_a_policy_ended_says_so_and_is_not_asked_for_again(
    upstreams: Upstreams, module: str, verb: str
) -> None:
    pair = upstreams(Filtered(), dialects=(module, "openai"))
    response = pair.ask(verb, text="")
    assert response.choices[0].finish_reason == "content_filter"
    assert attempts(response) == [("primary", "success")]
    assert not pair.fallback.calls


@pytest.mark.parametrize("fault", [Status(400), ContextExceeded(), Status(409)], ids=["400", "context", "409"])
def test_refusals_that_are_no_failures_count_for_no_breaker(upstreams: Upstreams, fault: Behaviour) -> None:
    pair = upstreams(fault, alone=True, retry={"max_attempts": 1})
    for _ in range(6):
        with pytest.raises(RubberDuckError):
            pair.ask("complete")
    assert pair.duck.status().providers["primary"].state == "closed"
    assert len(pair.primary.calls) == 6
    pair.primary.play(Ok())
    assert pair.ask("complete").text == TEXT
