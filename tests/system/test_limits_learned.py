"""What providers say of their limits, over a real socket, and what the next calls make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests_system_rig import StartDuck

from rubberduck import RubberDuck
from rubberduck.actors.calls.wire import listen_to
from rubberduck.config import ProviderConfig
from rubberduck.core.limiter import LimiterStats
from rubberduck.errors import InvalidRequest, RubberDuckError
from rubberduck.providers import resolve
from rubberduck.testing import FaultServer, faults
from supervision.testing import ManualClock

MODULES = pytest.mark.parametrize("module", ["openai", "anthropic"])
DATE = {"date": "Wed, 21 Oct 2026 07:28:00 GMT"}
Starter = Callable[..., RubberDuck]


def quota(module: str, counted: str, limit: int, remaining: int, reset: int) -> dict[str, str]:
    """The headers of one limit, `reset` in seconds below a minute."""
    if module == "openai":
        names = (f"x-ratelimit-{kind}-{counted}" for kind in ("limit", "remaining", "reset"))
        return dict(zip(names, (str(limit), str(remaining), f"{reset}s"), strict=True))
    names = (f"anthropic-ratelimit-{counted}-{kind}" for kind in ("limit", "remaining", "reset"))
    return DATE | dict(zip(names, (str(limit), str(remaining), f"2026-10-21T07:28:{reset:02}Z"), strict=True))


def ask(model: str = "m", max_tokens: int = 20) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as server:
        yield server


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def start(start_duck: StartDuck, server: FaultServer, clock: ManualClock) -> Starter:
    """A duck with one provider, the fault server."""

    def begin(module: str = "openai", **sections: Any) -> RubberDuck:
        vendor = {"module": module, "base_url": server.base_url, "api_key": "k", "models": ["m", "other"]}
        return start_duck({"vendor": vendor}, clock=clock, **sections)

    return begin


def limiter(duck: RubberDuck) -> LimiterStats:
    return duck.status().providers["vendor"].limiter


def send(duck: RubberDuck, verb: str = "complete", model: str = "m") -> Any:
    return duck.service.ask({verb: ask(model)}, block=False)


@MODULES
@pytest.mark.parametrize("verb", ["complete", "stream"])
def test_a_limit_told_in_headers_holds_the_next_call(
    start: Starter, server: FaultServer, clock: ManualClock, eventually: Any, module: str, verb: str
) -> None:
    duck = start(module)
    server.play(faults.Ok(headers=quota(module, "requests", 50, 1, 30)))
    if verb == "complete":
        duck.complete(ask())
    else:
        assert "".join(chunk.delta.content for chunk in duck.stream(ask()))
    assert limiter(duck).learned == {"m": {"requests": 50}}
    server.play(faults.Ok())
    duck.complete(ask())
    held = send(duck)
    eventually(lambda: limiter(duck).waiting == 1)
    clock.advance(29.9)
    assert (limiter(duck).waiting, len(server.calls)) == (1, 2)
    clock.advance(0.1)
    held.get(timeout=30)
    assert len(server.calls) == 3


@MODULES
def test_nothing_left_blocks_until_the_reset_and_only_that_model(
    start: Starter, server: FaultServer, clock: ManualClock, eventually: Any, module: str
) -> None:
    duck = start(module)
    server.play(faults.Ok(headers=quota(module, "tokens", 1000, 0, 12)), faults.Ok())
    duck.complete(ask())
    held = send(duck)
    eventually(lambda: limiter(duck).waiting == 1)
    duck.complete(ask("other"))
    clock.advance(11.9)
    assert (limiter(duck).waiting, len(server.calls)) == (1, 2)
    clock.advance(0.1)
    held.get(timeout=30)


def test_headers_of_a_refusal_teach_too(start: Starter, server: FaultServer, clock: ManualClock) -> None:
    duck = start()
    headers = quota("openai", "tokens", 1000, 0, 40)
    server.play(faults.Status(400, headers=headers), faults.Ok())
    with pytest.raises(InvalidRequest):
        duck.complete(ask())
    with pytest.raises(RubberDuckError) as caught:
        duck.complete(ask(), timeout=10)
    assert caught.value.retry_after == pytest.approx(40)
    assert len(server.calls) == 1


@MODULES
def test_a_429_with_a_hint_of_two_seconds_is_repeated_after_two_and_little_more(
    start: Starter, server: FaultServer, clock: ManualClock, eventually: Any, module: str
) -> None:
    duck = start(module)
    server.play(faults.Status(429, retry_after=2), faults.Ok())
    future = send(duck)
    eventually(lambda: limiter(duck).pace == 0.5 and limiter(duck).in_flight == 0)
    eventually(lambda: any(at <= 2.2 for at in clock.pending()))
    clock.advance(1.99)
    assert len(server.calls) == 1
    clock.advance(0.21)
    response = future.get(timeout=30)
    assert [each.outcome for each in response.attempts] == ["RateLimited", "success"]
    assert 2.0 <= response.attempts[1].started <= 2.2
    assert limiter(duck).in_flight == 0


def test_a_429_keeps_the_request_unit_and_returns_the_tokens(start: Starter, server: FaultServer) -> None:
    duck = start(
        retry={"max_attempts": 1}, rate_limits={"vendor": {"requests_per_min": 9, "output_tokens_per_min": 99}}
    )
    server.play(faults.Status(429, retry_after=2))
    with pytest.raises(RubberDuckError):
        duck.complete(ask())
    stats = limiter(duck)
    assert (stats.used_this_minute, stats.pace) == ({"requests": 1, "output": 0}, 0.5)


@pytest.mark.parametrize("fault", [faults.Status(400), faults.Status(401), faults.OutOfQuota(), faults.Status(404)])
def test_other_refusals_keep_the_request_unit_return_the_tokens_and_slow_nobody_down(
    start: Starter, server: FaultServer, fault: Any
) -> None:
    duck = start(rate_limits={"vendor": {"requests_per_min": 9, "output_tokens_per_min": 99}})
    server.play(fault)
    with pytest.raises(RubberDuckError):
        duck.complete(ask())
    stats = limiter(duck)
    assert (stats.used_this_minute, stats.pace) == ({"requests": 1, "output": 0}, 1)


@MODULES
@pytest.mark.parametrize("status", [500, 503, 529])
def test_a_lack_of_capacity_keeps_the_input_returns_the_output_and_leaves_the_rest_of_the_balances(
    start: Starter, server: FaultServer, module: str, status: int
) -> None:
    limits = {"requests_per_min": 9, "input_tokens_per_min": 500, "output_tokens_per_min": 99}
    duck = start(module, retry={"max_attempts": 1}, rate_limits={"vendor": limits})
    server.play(faults.Status(status, headers=quota(module, "requests", 50, 0, 30)))
    with pytest.raises(RubberDuckError):
        duck.complete(ask())
    stats = limiter(duck)
    assert stats.used_this_minute["requests"] == 1
    assert 0 < stats.used_this_minute["input"] < 20
    assert stats.used_this_minute["output"] == 0
    assert (stats.pace, stats.learned) == (1, {})


def test_the_hint_of_a_503_blocks_its_route_alone(
    start: Starter, server: FaultServer, clock: ManualClock, eventually: Any
) -> None:
    duck = start(retry={"max_attempts": 1})
    server.play(faults.Status(503, retry_after=30), faults.Ok())
    with pytest.raises(RubberDuckError):
        duck.complete(ask())
    assert duck.complete(ask("other")).text
    held = send(duck)
    eventually(lambda: limiter(duck).waiting == 1)
    clock.advance(30)
    held.get(timeout=30)
    assert limiter(duck).pace == 1


def test_what_was_never_sent_leaves_no_trace(start: Starter, start_duck: StartDuck) -> None:
    vendor = {"module": "openai", "base_url": "http://127.0.0.1:1", "api_key": "k"}
    duck = start_duck({"vendor": vendor}, retry={"max_attempts": 1}, rate_limits={"vendor": {"requests_per_min": 9}})
    with pytest.raises(RubberDuckError):
        duck.complete(ask())
    assert limiter(duck).used_this_minute == {"requests": 0}


def test_after_a_restart_of_the_limiter_what_was_learned_still_holds(
    start: Starter, server: FaultServer, eventually: Any
) -> None:
    duck = start()
    server.play(faults.Ok(headers=quota("openai", "requests", 50, 0, 30)))
    duck.complete(ask())
    ref = duck.actor("rate_limiter:vendor")
    before = ref.name.restarts
    duck.system.kill(ref)
    eventually(lambda: ref.name.restarts > before and ref.name.incarnation is not None)
    assert limiter(duck).learned == {"m": {"requests": 50}}
    with pytest.raises(RubberDuckError) as caught:
        duck.complete(ask(), timeout=10)
    assert caught.value.retry_after == pytest.approx(30)


def test_the_output_that_is_reserved_follows_what_answers_used(start: Starter, server: FaultServer) -> None:
    """After 40 answers of 6 tokens, where 100 are allowed, a fifth more than 6 is reserved."""
    duck = start(rate_limits={"vendor": {"output_tokens_per_min": 1000}})
    for _ in range(40):
        duck.complete(ask(max_tokens=100))
    server.play(faults.Hold(faults.Ok()))
    used = limiter(duck).used_this_minute["output"]
    held = duck.service.ask({"complete": ask(max_tokens=100)}, block=False)
    server.wait_for(lambda calls: len(calls) == 41)
    assert limiter(duck).used_this_minute["output"] - used == pytest.approx(1.2 * 6)
    server.release()
    held.get(timeout=30)


def test_who_looks_at_the_headers_already_goes_on_seeing_them() -> None:
    provider: Any = resolve("openai").init(ProviderConfig(name="v", module="openai", api_keys=("k",)))
    seen: list[int] = []
    provider.on_headers = lambda model, status, headers: seen.append(status)
    listen_to(provider)
    provider.on_headers("m", 200, {})
    assert seen == [200]
