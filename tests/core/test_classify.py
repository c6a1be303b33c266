from __future__ import annotations

import asyncio

import pytest

from rubberduck import errors as e
from rubberduck.core.breaker import Outcome
from rubberduck.core.classify import DISPOSITIONS, OtherRoute, Quarantine, SameRoute, Settlement, classify

S, F, N, C = Outcome


def invalid(status: int) -> e.InvalidRequest:
    error = e.InvalidRequest("no")
    error.status = status
    return error


@pytest.mark.parametrize(
    ("error", "breaker", "limiter", "same", "other"),
    [
        (None, S, "commit", "never", "never"),
        (e.ServiceUnavailable("dns", phase="not_sent"), F, "cancel", "repeat", "yes"),
        (e.ProviderTimeout("connect", phase="not_sent"), F, "cancel", "repeat", "yes"),
        (e.ServiceUnavailable("reset", phase="uncertain"), F, "keep_input", "repeat", "yes"),
        (e.ProviderError("late", status=408), F, "keep_input", "repeat", "yes"),
        (e.ServiceUnavailable("oops", status=500), F, "keep_input", "repeat", "yes"),
        (e.ServiceUnavailable("bad gateway", status=502), F, "keep_input", "repeat", "yes"),
        (e.ServiceUnavailable("away", status=503), F, "keep_input", "repeat", "yes"),
        (e.ServiceUnavailable("late", status=504), F, "keep_input", "repeat", "yes"),
        (e.Overloaded("full", status=529), F, "keep_input", "repeat", "yes"),
        (e.ProviderTimeout("no first token", phase="uncertain"), F, "keep_received", "if_alone", "yes"),
        (e.StreamInterrupted("cut"), F, "keep_received", "if_alone", "yes"),
        (e.ProtocolError("html", status=200), F, "keep_received", "if_alone", "yes"),
        (e.RateLimited("slow down", status=429), N, "block", "repeat", "yes"),
        (e.QuotaExceeded("no credit", status=429), N, "return_tokens", "other_key", "yes"),
        (e.ProviderError("pay", status=402), N, "return_tokens", "other_key", "yes"),
        (e.AuthenticationFailed("who", status=401), N, "return_tokens", "other_key", "yes"),
        (e.AuthenticationFailed("not you", status=403), N, "return_tokens", "other_key", "yes"),
        (invalid(400), N, "return_tokens", "never", "if_different"),
        (invalid(422), N, "return_tokens", "never", "if_different"),
        (invalid(413), N, "return_tokens", "never", "if_larger"),
        (e.ContextLengthExceeded("long"), N, "return_tokens", "never", "if_larger"),
        (e.ModelNotFound("who", status=404), N, "return_tokens", "never", "yes"),
        (e.ContentFiltered("no"), N, "return_tokens", "never", "never"),
        (e.ProviderError("conflict", status=409), N, "return_tokens", "repeat", "yes"),
        (e.Cancelled("enough"), C, "commit", "never", "never"),
        (e.DeadlineExceeded("time is over"), C, "commit", "never", "never"),
        (asyncio.CancelledError(), C, "commit", "never", "never"),
        (KeyError("choices"), F, "keep_input", "never", "yes"),
        (e.ProviderError("unheard of"), F, "keep_input", "repeat", "yes"),
        (e.ProviderError("teapot", status=418), N, "return_tokens", "never", "if_different"),
    ],
)
def test_every_end_of_an_attempt_has_its_row(
    error: BaseException | None, breaker: Outcome, limiter: str, same: str, other: str
) -> None:
    row = classify(error)
    assert (row.breaker, row.limiter, row.same_route, row.other_route) == (breaker, limiter, same, other)


def test_type_goes_before_status() -> None:
    assert classify(e.QuotaExceeded("spend limit", status=429)).quarantine is Quarantine.QUOTA
    assert classify(e.RateLimited("inside a 200", status=200)).limiter is Settlement.BLOCK


@pytest.mark.parametrize(
    ("error", "quarantine"),
    [
        (e.AuthenticationFailed("x", status=401), Quarantine.KEY),
        (e.QuotaExceeded("x"), Quarantine.QUOTA),
        (e.ModelNotFound("x"), Quarantine.ROUTE),
        (e.RateLimited("x"), Quarantine.NOTHING),
    ],
)
def test_what_is_put_into_quarantine(error: BaseException, quarantine: Quarantine) -> None:
    assert classify(error).quarantine is quarantine


def test_lack_of_capacity_shrinks_concurrency_and_a_bug_does_not() -> None:
    shrinking = {kind for kind, row in DISPOSITIONS.items() if row.shrinks}
    assert shrinking == {"rate_limited", "overloaded", "timeout"}


def test_what_was_never_sent_costs_nothing() -> None:
    assert classify(e.Cancelled("enough"), sent=False).limiter is Settlement.CANCEL
    assert classify(e.ProviderError("broken pipe"), sent=False).limiter is Settlement.CANCEL


def test_nothing_is_repeated_after_output_reached_the_caller() -> None:
    for error in (e.StreamInterrupted("cut"), e.RateLimited("x"), e.ServiceUnavailable("x", status=500)):
        assert classify(error, delivered=True).is_final
        assert classify(error, delivered=True).breaker is classify(error).breaker


def test_an_unreplayable_request_is_repeated_only_where_it_cannot_have_happened() -> None:
    for error in (e.ServiceUnavailable("x", status=500), e.ProviderTimeout("x", phase="uncertain")):
        assert classify(error, replayable=False).is_final
    for harmless in (e.RateLimited("x", status=429), e.ServiceUnavailable("x", phase="not_sent")):
        assert not classify(harmless, replayable=False).is_final


def test_the_providers_wish_is_obeyed_but_not_about_keys_bills_and_policies() -> None:
    no = e.ServiceUnavailable("x", status=500, should_retry=False)
    assert classify(no).same_route is SameRoute.NEVER
    assert classify(no).other_route is OtherRoute.YES
    assert classify(e.ModelNotFound("x", should_retry=True)).same_route is SameRoute.REPEAT
    for stubborn in (e.QuotaExceeded("x", should_retry=True), e.AuthenticationFailed("x", should_retry=True)):
        assert classify(stubborn).same_route is not SameRoute.REPEAT
    another_key = e.QuotaExceeded("not again with this one", should_retry=False)
    assert classify(another_key).same_route is SameRoute.OTHER_KEY


def test_our_own_stall_is_not_held_against_the_provider() -> None:
    row = classify(e.ProviderTimeout("x", phase="uncertain"), local_stall=True)
    assert (row.kind, row.breaker, row.shrinks) == ("local_stall", Outcome.IGNORED, False)
    assert classify(e.ServiceUnavailable("x", status=500), local_stall=True).breaker is Outcome.FAILURE


def test_content_policy_fails_over_only_where_asked_to() -> None:
    assert classify(e.ContentFiltered("x")).is_final
    row = classify(e.ContentFiltered("x"), failover_on_content_filter=True)
    assert (row.same_route, row.other_route) == (SameRoute.NEVER, OtherRoute.YES)


def test_an_unreplayable_local_stall_is_not_repeated() -> None:
    assert classify(e.ProviderTimeout("x", phase="uncertain"), local_stall=True, replayable=False).is_final
