"""Two upstreams on real sockets, the first of which fails: what the catalogue of faults does not show of it."""

from __future__ import annotations

import pytest
from tests_upstreams_rig import COST, REQUEST, Upstreams, attempts

from rubberduck.errors import NoAvailableProvider, RateLimited, ServiceUnavailable
from rubberduck.testing.faults import TEXT, BadChunk, Flaky, Ok, Status
from supervision.testing import ManualClock


def test_a_malformed_answer_under_status_200_may_have_been_billed(upstreams: Upstreams) -> None:
    pair = upstreams(BadChunk(), alone=True, retry={"max_attempts": 1})
    with pytest.raises(ServiceUnavailable) as caught:
        pair.ask("complete")
    assert caught.value.spent is None
    assert (pair.duck.costs().cost, pair.duck.costs().uncertain > 0) == (0, True)


def test_a_provider_that_keeps_failing_is_left_alone_until_its_breaker_lets_a_probe_through(
    upstreams: Upstreams,
) -> None:
    clock = ManualClock()
    pair = upstreams(
        Status(500),
        circuit_breaker={"failure_threshold": 3, "success_threshold": 1},
        retry={"same_route_repeats": 0},
        clock=clock,
    )
    assert [pair.ask("complete").provider for _ in range(5)] == ["fallback"] * 5
    assert len(pair.primary.calls) == 3
    assert pair.duck.status().providers["primary"].state == "open"
    pair.primary.play(Ok())
    clock.advance(59)
    assert pair.ask("complete").provider == "fallback"
    clock.advance(1)
    assert pair.ask("complete").provider == "primary"
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
    assert caught.value.request_id == caught.value.trace.request_id


def test_open_circuits_everywhere_say_why_and_when_to_come_back(upstreams: Upstreams) -> None:
    pair = upstreams(
        Status(500), fallback=Status(500), circuit_breaker={"failure_threshold": 1}, retry={"same_route_repeats": 0}
    )
    with pytest.raises(ServiceUnavailable):
        pair.ask("complete")
    error = pair.failure("complete", NoAvailableProvider)
    assert error.reasons == {"primary/m": "circuit open", "fallback/m": "circuit open"}
    assert 50 < error.retry_after <= 60
    assert error.retryable
    assert len(pair.primary.calls) == len(pair.fallback.calls) == 1


def test_only_the_named_providers_are_asked(upstreams: Upstreams) -> None:
    pair = upstreams(Ok())
    assert pair.ask("complete", providers=["fallback"]).provider == "fallback"
    pair.primary.play(Status(429, retry_after=60))
    pair.failure("complete", RateLimited, providers=["primary"], timeout=30)
    assert len(pair.fallback.calls) == 1


def test_a_flaky_primary_fails_no_call(upstreams: Upstreams) -> None:
    pair = upstreams(Flaky(0.4, seed=3), retry={"base_delay": "1ms", "max_delay": "2ms"})
    for number in range(40):
        assert pair.ask(("complete", "stream")[number % 2]).text == TEXT
    assert pair.fallback.calls
    assert pair.duck.costs().cost == 40 * COST


def test_the_conduct_that_is_looked_at_after_each_test_can_be_found_wanting(upstreams: Upstreams) -> None:
    """Or else none of the catalogue's tests would say anything about books, leaks and life."""
    pair = upstreams(Ok())
    pair.ask("complete")
    pair.conduct()
    pair.unsent = 1
    with pytest.raises(AssertionError):
        pair.conduct()
    pair.unsent = 0
    pair.duck.complete(REQUEST)  # which `asked` does not know of
    with pytest.raises(AssertionError):
        pair.conduct()
    pair.asked.append(pair.duck.complete(REQUEST))
    pair.asked.append(pair.asked[0])
    pair.conduct()
    call = pair.primary.calls[-1]
    call.said = call.said.replace(b'"completion_tokens": 6', b'"completion_tokens": 7')
    with pytest.raises(AssertionError, match="not booked"):
        pair.conduct()
    call.said = call.said.replace(b'"completion_tokens": 7', b'"completion_tokens": 6')
    call.status = 500
    with pytest.raises(AssertionError):
        pair.conduct()
    call.status = 200
