"""Every example of the design this project follows, in the form it has here.

The design is written in Elixir: GenServer calls are asks to actors here, `{:error, reason}` is the exception of that
name, atoms are strings, and a module given as an option is a word or a class. Names of options are the design's own.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import queue
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

import supervision as sup
from rubberduck import Config, RubberDuck, Usage, telemetry
from rubberduck.actors.circuit_breaker import Acquire, CircuitBreakerActor, GetState, IsOpen, Settle
from rubberduck.actors.cost_tracker import GetSummary, Track
from rubberduck.actors.rate_limiter import CheckRate
from rubberduck.actors.request_queue import Enqueue, ProcessNext, RequestQueueActor, Stats
from rubberduck.config import ProviderConfig
from rubberduck.core.breaker import BreakerOptions, Outcome, Permit, Rejected, State
from rubberduck.core.limiter import Granted
from rubberduck.core.request_queue import QueueOptions
from rubberduck.errors import (
    AuthenticationFailed,
    InvalidRequest,
    MissingApiKey,
    NoAvailableProvider,
    ProviderTimeout,
    QueueFull,
    QuotaExceeded,
    RateLimited,
    RubberDuckError,
    ServiceUnavailable,
)
from rubberduck.providers import resolve
from rubberduck.providers.base import Provider
from rubberduck.providers.openai.provider import OpenAI
from rubberduck.telemetry import names
from rubberduck.telemetry.statsd import StatsD
from rubberduck.testing import FaultServer, faults
from rubberduck.types import Request, Response
from supervision.testing import ManualClock

StartDuck = Callable[..., RubberDuck]
HI: dict[str, Any] = {"model": "gpt-4", "messages": [{"role": "user", "content": "Hi"}]}
HELLO = {
    "id": "chatcmpl-123",
    "model": "gpt-4",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello!"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
}
PRICE = {"input": 1, "output": 2}


@pytest.fixture
def start() -> Iterator[StartDuck]:
    """`start(providers, **sections)`: a duck with a ledger in memory, stopped after the test."""
    ducks: list[RubberDuck] = []

    def start_one(providers: dict[str, Any], *, clock: Any = None, **sections: Any) -> RubberDuck:
        ducks.append(
            RubberDuck.start({"providers": providers, "ledger": {"path": ":memory:"}, **sections}, clock=clock)
        )
        return ducks[-1]

    yield start_one
    for duck in ducks:
        assert duck.stop(), duck.system.unstopped_report()


@pytest.fixture
def system() -> Iterator[sup.System]:
    """A system of supervised actors whose clock stands still until `system.clock.advance(seconds)`."""
    with sup.System("guide", clock=ManualClock()) as system:
        yield system


def provider(module: str, **options: Any) -> Provider:
    return resolve(module).init(ProviderConfig(name=module, module=module, **options))


class MockHTTPClient:
    """The mock HTTP client of the design's unit test: an httpx client whose one answer is scripted."""

    def __init__(self, status: int, body: Any = None, failure: Exception | None = None) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = (status, body, failure)

    @property
    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self._handle))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, body, failure = self._answer
        if failure is not None:
            raise failure
        return httpx.Response(status, json=body)


def complete(module: str, http: MockHTTPClient, request: dict[str, Any] = HI, **options: Any) -> Response:
    made = provider(module, http_client=http.client, **{"api_key": "test-key", **options})
    return asyncio.run(made.complete(Request.parse(request)))


# --- Core components: the provider behaviour ---------------------------------------------------------------------


@pytest.mark.parametrize("module", ["openai", "anthropic", "local", "mock"])
def test_every_provider_has_the_six_callbacks(module: str) -> None:
    found = resolve(module)
    callbacks = {
        "init": ["config"],
        "complete": ["self", "request"],
        "stream": ["self", "request"],
        "count_tokens": ["self", "text", "model"],
        "supports_model": ["self", "model"],
        "estimate_cost": ["self", "usage", "model"],
    }
    for name, arguments in callbacks.items():
        assert (
            list(
                inspect.signature(
                    inspect.getattr_static(found, name).__func__ if name == "init" else getattr(found, name)
                ).parameters
            )[-len(arguments) :]
            == arguments
        )


def test_a_request_takes_every_field_of_the_design() -> None:
    request = Request.parse(
        {
            "model": "gpt-4",
            "messages": [
                {"role": "user", "content": "2 + 2?", "name": "ann"},
                {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
                {"role": "function", "name": "add", "content": "4"},
            ],
            "temperature": 0.7,
            "max_tokens": 500,
            "stream": True,
            "functions": [{"name": "add", "parameters": {"type": "object"}}],
            "system": "Be brief.",
        }
    )
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "function"]
    assert request.tools[0].function.name == "add"


def test_a_response_has_every_field_of_the_design(start: StartDuck) -> None:
    response = start({"mock": {"responses": [{"content": "Quack.", "tokens": 7}]}}, prices={"gpt-4": PRICE}).complete(
        HI
    )
    assert response.id
    assert response.model == "gpt-4"
    assert isinstance(response.created, int)
    [choice] = response.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "Quack.")
    assert choice.finish_reason == "stop"
    usage = response.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert isinstance(usage.cost, Decimal)


# --- Core components: the service --------------------------------------------------------------------------------


def test_the_service_answers_complete_and_stream_as_messages(start: StartDuck) -> None:
    duck = start({"mock": {"responses": ["Quack."]}})
    assert duck.service.ask({"complete": HI}).text == "Quack."
    assert "".join(chunk.delta.content for chunk in duck.service.ask({"stream": HI})) == "Quack."


def test_the_service_picks_by_model_then_by_open_circuit_then_by_priority(start: StartDuck) -> None:
    duck = start(
        {
            "other": {"module": "mock", "models": ["claude-3-opus"], "priority": 1},
            "second": {"module": "mock", "models": ["gpt-4"], "priority": 3},
            "first": {"module": "mock", "models": ["gpt-4"], "priority": 2},
        }
    )
    assert duck.complete(HI).provider == "first"
    from rubberduck.actors.circuit_breaker import ForceOpen

    duck.actor("circuit_breaker:first").ask(ForceOpen())
    assert duck.complete(HI).provider == "second"


def test_no_available_provider_says_why_for_each(start: StartDuck) -> None:
    duck = start({"mock": {"models": ["claude-3-opus"]}})
    with pytest.raises(RubberDuckError, match="gpt-4"):
        duck.complete(HI)


# --- Provider adapters: OpenAI -----------------------------------------------------------------------------------


def test_openai_takes_its_key_from_the_environment_and_says_which_variable_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(MissingApiKey) as caught:
        provider("openai")
    assert caught.value.variable == "OPENAI_API_KEY"
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-the-environment")
    http = MockHTTPClient(200, HELLO)
    asyncio.run(provider("openai", http_client=http.client).complete(Request.parse(HI)))
    assert http.requests[0].headers["authorization"] == "Bearer sk-from-the-environment"


def test_openai_sends_the_organization_where_one_is_configured() -> None:
    http = MockHTTPClient(200, HELLO)
    complete("openai", http, organization="org-1")
    assert http.requests[0].headers["openai-organization"] == "org-1"


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, {"error": {"type": "invalid_request_error", "message": "no"}}, InvalidRequest),
        (401, {"error": {"type": "invalid_request_error", "message": "no", "code": "invalid_api_key"}},
         AuthenticationFailed),
        (500, {}, ServiceUnavailable),
        (503, {}, ServiceUnavailable),
    ],
)  # fmt: skip
def test_openai_names_what_a_status_means(status: int, body: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        complete("openai", MockHTTPClient(status, body))


def test_openai_knows_its_models_and_their_prices() -> None:
    openai = provider("openai", api_key="k")
    for model in ("gpt-4", "gpt-4-turbo", "gpt-4o", "gpt-3.5-turbo"):
        assert openai.supports_model(model)
        assert openai.estimate_cost(Usage(1000, 1000), model) > 0  # type: ignore[operator]
    assert not openai.supports_model("claude-3-opus")
    assert openai.estimate_cost(Usage(1000, 1000), "gpt-4") == Decimal("0.09")
    assert openai.estimate_cost(Usage(1, 1), "of-no-known-price") is None


def test_openai_counts_tokens() -> None:
    assert provider("openai", api_key="k").count_tokens("hello world", "gpt-4") == 2


# --- Provider adapters: Anthropic --------------------------------------------------------------------------------

CLAUDE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-3-opus-20240229",
    "content": [{"type": "text", "text": "Bonjour."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 11, "output_tokens": 4},
}


def test_anthropic_gets_the_system_messages_apart_and_a_default_of_1024_tokens() -> None:
    http = MockHTTPClient(200, CLAUDE)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    response = complete("anthropic", http, {"model": "claude-3-opus", "messages": messages})
    [request] = http.requests
    sent = json.loads(request.content)
    assert str(request.url) == "https://api.anthropic.com/v1/messages"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert request.headers["x-api-key"] == "test-key"
    assert sent["max_tokens"] == 1024
    assert "Be brief." in json.dumps(sent["system"])
    assert [message["role"] for message in sent["messages"]] == ["user"]
    assert response.text == "Bonjour."
    assert response.choices[0].raw_finish_reason == "end_turn"
    assert (response.usage.prompt_tokens, response.usage.completion_tokens, response.usage.total_tokens) == (11, 4, 15)


# --- Service layer: circuit breaker ------------------------------------------------------------------------------


def breaker(system: sup.System, **options: Any) -> sup.ActorRef:
    system.supervise(sup.ChildSpec("breaker", CircuitBreakerActor, args=(BreakerOptions(**options),)))
    return system.whereis("breaker")  # type: ignore[no-any-return]


def fail(ref: sup.ActorRef, times: int) -> None:
    for _ in range(times):
        ref.ask(Settle(ref.ask(Acquire()), Outcome.FAILURE))


def test_the_breakers_options_and_defaults_are_the_designs() -> None:
    config = Config.load({"providers": {"mock": {}}}).circuit_breaker
    assert (config.failure_threshold, config.reset_timeout, config.success_threshold) == (5, 60.0, 3)


def test_the_breaker_opens_at_the_threshold_and_answers_without_calling(system: sup.System) -> None:
    ref = breaker(system, failure_threshold=5, reset_timeout=60.0)
    fail(ref, 4)
    assert not ref.ask(IsOpen())
    fail(ref, 1)
    assert ref.ask(IsOpen())
    refusal = ref.ask(Acquire())
    assert isinstance(refusal, Rejected)
    assert refusal.retry_after == pytest.approx(60.0)


def test_a_success_in_between_sets_the_failure_count_back(system: sup.System) -> None:
    ref = breaker(system, failure_threshold=2)
    for _ in range(3):
        fail(ref, 1)
        ref.ask(Settle(ref.ask(Acquire()), Outcome.SUCCESS))
    assert ref.ask(GetState()) is State.CLOSED


def test_half_open_needs_success_threshold_successes_to_close(system: sup.System) -> None:
    ref = breaker(system, failure_threshold=1, reset_timeout=60.0, success_threshold=3)
    fail(ref, 1)
    system.clock.advance(60.0)  # type: ignore[attr-defined]
    states = []
    for _ in range(3):
        permit = ref.ask(Acquire())
        assert isinstance(permit, Permit)
        ref.ask(Settle(permit, Outcome.SUCCESS))
        states.append(ref.ask(GetState()))
    assert states == [State.HALF_OPEN, State.HALF_OPEN, State.CLOSED]


# --- Service layer: rate limiter ---------------------------------------------------------------------------------


def test_check_rate_takes_from_a_bucket_that_refills(start: StartDuck) -> None:
    clock = ManualClock()
    duck = start({"mock": {}, "free": {"module": "mock"}}, clock=clock,
                 rate_limits={"mock": {"capacity": 10, "refill_rate": 5}})  # fmt: skip
    limiter = duck.actor("rate_limiter:mock")
    assert isinstance(limiter.ask(CheckRate(tokens=10)), Granted)
    refusal = limiter.ask(CheckRate())
    assert isinstance(refusal, RateLimited)
    assert refusal.retry_after == pytest.approx(0.2)
    clock.advance(1.0)
    assert isinstance(limiter.ask(CheckRate(tokens=5)), Granted)
    assert isinstance(limiter.ask(CheckRate()), RateLimited)
    clock.advance(3600.0)
    assert isinstance(limiter.ask(CheckRate(tokens=11)), RateLimited)  # never fuller than its capacity


def test_a_provider_without_a_bucket_is_not_limited(start: StartDuck) -> None:
    assert isinstance(start({"mock": {}}).actor("rate_limiter:mock").ask(CheckRate(tokens=1000)), Granted)


# --- Advanced features: request queue ----------------------------------------------------------------------------


def test_the_queue_gives_out_by_priority_and_says_when_it_is_empty(system: sup.System) -> None:
    system.supervise(sup.ChildSpec("queue", RequestQueueActor, args=(QueueOptions(max_queue_size=1000), {})))
    ref = system.whereis("queue")
    ref.ask(Enqueue("a", priority="low"))
    ref.ask(Enqueue("b"))
    ref.ask(Enqueue("c", priority="high"))
    assert ref.ask(Stats()).depth == {"high": 1, "normal": 1, "low": 1}
    given = [ref.ask(ProcessNext()) for _ in range(3)]
    assert given[0].request == "c"
    assert {each.request for each in given} == {"a", "b", "c"}
    assert ref.ask(ProcessNext()) is None
    stats = ref.ask(Stats())
    assert (stats.enqueued, stats.processed, stats.failed) == (3, 3, 0)


def test_priorities_of_calls_are_read(start: StartDuck, eventually: Any) -> None:
    with FaultServer(faults.Hold(), faults.Ok()) as server:
        duck = start({"openai": {"base_url": server.base_url}}, rate_limits={"openai": {"max_concurrency": 1}})

        def send(text: str, priority: str) -> Any:
            request = {"model": "m", "messages": [{"role": "user", "content": text}]}
            return duck.service.ask({"complete": request, "priority": priority}, block=False)

        futures = [send("holds the only slot", "normal")]
        server.wait_for(lambda calls: len(calls) == 1)
        futures += [send("later", "low"), send("sooner", "high")]
        eventually(lambda: sum(duck.status().queue.depth.values()) == 2)
        server.release()
        for future in futures:
            future.get(timeout=60)
        assert [call.json["messages"][0]["content"] for call in server.calls][1:] == ["sooner", "later"]


# --- Advanced features: cost tracking ----------------------------------------------------------------------------


def test_track_and_get_summary(start: StartDuck) -> None:
    duck = start({"mock": {}}, prices={"mock/large": {"input": 3, "output": 15}})
    tracker = duck.actor("cost_tracker")
    assert tracker.ask(Track("mock", "large", Usage(1_000_000, 100_000))) == Decimal("4.5")
    tracker.ask(Track("mock", "large", Usage(1_000_000, 0)))
    for timeframe in ("all", "day", "hour"):
        summary = tracker.ask(GetSummary(timeframe))
        assert summary.cost == Decimal("7.5")
        assert summary.by_model["mock", "large"].tokens == 2_100_000
        assert list(summary.hourly.values()) == list(summary.daily.values()) == [Decimal("7.5")]
    [hour] = summary.hourly
    assert tracker.ask(GetSummary((hour + timedelta(hours=1), hour + timedelta(hours=2)))).cost == 0


# --- Usage examples ----------------------------------------------------------------------------------------------


def test_basic_usage(start: StartDuck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-2")
    with FaultServer(faults.Ok("def fib(n): ...")) as server:
        monkeypatch.setattr(OpenAI, "default_base_url", f"{server.base_url}/v1")
        duck = start(
            {
                "openai": {"module": "openai", "api_key": "${OPENAI_API_KEY}"},
                "anthropic": {"module": "anthropic", "api_key": "${ANTHROPIC_API_KEY}"},
            },
            rate_limits={
                "openai": {"capacity": 100, "refill_rate": 10},
                "anthropic": {"capacity": 50, "refill_rate": 5},
            },
        )
        request = {
            "model": "gpt-4",
            "messages": [
                {"role": "system", "content": "You are a helpful coding assistant."},
                {"role": "user", "content": "Write a function to calculate fibonacci numbers in Elixir"},
            ],
            "temperature": 0.7,
            "max_tokens": 500,
        }
        response = duck.complete(request)
        [call] = server.calls
        assert call.path == "/v1/chat/completions"
        assert call.headers["authorization"] == "Bearer sk-1"
        assert response.choices[0].message.content == "def fib(n): ..."
        assert response.usage.total_tokens > 0
        assert response.usage.cost is not None
        assert response.usage.cost > 0


def test_streaming_usage(start: StartDuck) -> None:
    with FaultServer(faults.Ok("An actor has a mailbox.")) as server:
        duck = start({"anthropic": {"base_url": server.base_url, "api_key": "k"}})
        request = {
            "model": "claude-3-sonnet",
            "messages": [{"role": "user", "content": "Explain the Elixir actor model in detail"}],
            "stream": True,
        }
        with duck.stream(request) as stream:
            pieces = [chunk.delta.content for chunk in stream]
        assert "".join(pieces) == "An actor has a mailbox."
        assert len(pieces) > 3
        assert stream.usage is not None


def test_advanced_configuration_falls_back_from_vendor_to_vendor(start: StartDuck) -> None:
    with FaultServer(faults.Status(500)) as openai, FaultServer(faults.Ok("from the fallback")) as anthropic:
        duck = start(
            {
                "primary": {"module": "openai", "base_url": openai.base_url, "priority": 1},
                "fallback": {"module": "anthropic", "base_url": anthropic.base_url, "api_key": "k", "priority": 2},
                "local": {"module": "mock", "priority": 3},
            },
            models={"smart": ["primary/gpt-4", "fallback/claude-3-opus", "local/model"]},
            circuit_breaker={"failure_threshold": 5, "reset_timeout": 60_000, "success_threshold": 3},
            retry={"max_attempts": 3, "base_delay": 1, "max_delay": 10_000, "jitter": True},
        )
        response = duck.complete({**HI, "model": "smart"})
        assert (response.provider, response.text) == ("fallback", "from the fallback")
        assert response.attempts[0].provider == "primary"


# --- Testing strategies ------------------------------------------------------------------------------------------


def test_openai_successfully_completes_a_request() -> None:
    http = MockHTTPClient(200, HELLO)
    response = complete("openai", http)
    [request] = http.requests
    assert request.method == "POST"
    assert str(request.url) == "https://api.openai.com/v1/chat/completions"
    assert json.loads(request.content)["model"] == "gpt-4"
    assert response.choices[0].message.content == "Hello!"


def test_openai_handles_rate_limiting_gracefully() -> None:
    body = {"error": {"message": "Rate limit exceeded", "type": "rate_limit_error"}}
    with pytest.raises(RateLimited, match="Rate limit exceeded") as caught:
        complete("openai", MockHTTPClient(429, body))
    assert caught.value.retryable
    assert (caught.value.status, caught.value.type) == (429, "rate_limit_error")


def test_complete_request_with_fallback(start: StartDuck) -> None:
    duck = start({"mock": {"module": "mock", "responses": [{"content": "Test response", "tokens": 100}]}})
    response = duck.complete({"model": "gpt-4", "messages": [{"role": "user", "content": "Test"}]})
    assert response.choices[0].message.content == "Test response"
    assert response.usage.completion_tokens == 100


# --- Best practices ----------------------------------------------------------------------------------------------


def test_environment_specific_configuration(tmp_path: Path) -> None:
    file = tmp_path / "rubberduck.yaml"
    file.write_text(
        "providers:\n"
        "  openai: {api_key: '${OPENAI_API_KEY}', organization: '${OPENAI_ORG:-}', timeout: 30000}\n"
        "  anthropic: {api_key: '${ANTHROPIC_API_KEY}', version: '2023-06-01'}\n"
    )
    config = Config.load(file, environ={"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"})
    assert config.providers["openai"].organization is None
    assert config.providers["openai"].timeout == 30.0
    assert config.providers["anthropic"].version == "2023-06-01"


@pytest.mark.parametrize(
    ("http", "error"),
    [
        (MockHTTPClient(429, {"error": {"type": "insufficient_quota", "message": "q"}}), QuotaExceeded),
        (MockHTTPClient(400, {"error": {"type": "invalid_request_error", "message": "i"}}), InvalidRequest),
        (MockHTTPClient(0, failure=httpx.ReadTimeout("slow")), ProviderTimeout),
        (MockHTTPClient(418, {"what": "is this"}), RubberDuckError),
    ],
)
def test_error_handling_has_a_name_for_each(http: MockHTTPClient, error: type[RubberDuckError]) -> None:
    with pytest.raises(error) as caught:
        complete("openai", http)
    assert caught.value.provider == "openai"


@pytest.fixture
def heard() -> Iterator[list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]]]:
    """What happens on the four events that the design attaches to."""
    events: list[tuple[Any, Mapping[str, Any], Mapping[str, Any]]] = []
    handler = lambda event, measured, about, _: events.append((event, measured, about))  # noqa: E731
    telemetry.attach("rubber-duck-llm-metrics", names.GUIDE_EVENTS, handler)
    yield events
    telemetry.detach("rubber-duck-llm-metrics")


def test_monitoring_hears_of_requests_and_costs(start: StartDuck, heard: list[Any]) -> None:
    duck = start(
        {"mock": {"responses": [{"content": "Quack.", "tokens": 9}, {"error": "auth"}]}}, prices={"gpt-4": PRICE}
    )
    duck.complete(HI)
    with pytest.raises(AuthenticationFailed):
        duck.complete(HI)
    assert duck.stop()
    telemetry.flush()
    by_event = {event: (measured, about) for event, measured, about in heard}
    assert set(by_event) == set(names.GUIDE_EVENTS)
    assert names.REQUEST_START == ("rubber_duck", "llm", "request", "start")
    measured, about = by_event[names.REQUEST_STOP]
    assert (about["provider"], about["model"], about["tokens"]) == ("mock", "gpt-4", 10)
    assert 0 < measured["duration"] / 1_000_000 < 60_000
    assert by_event[names.COST][0] == {"cost": Decimal("0.000019"), "tokens": 10}


def test_monitoring_sends_to_statsd(start: StartDuck) -> None:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        statsd = StatsD(*server.getsockname())
        telemetry.attach("statsd", StatsD.EVENTS, statsd)
        try:
            start({"mock": {}}, prices={"gpt-4": PRICE}).complete(HI)
            datagrams = sorted(server.recv(1024).decode() for _ in range(2))
        finally:
            telemetry.detach("statsd")
            statsd.close()
    assert datagrams[0].startswith("llm.cost:0.0000")
    assert datagrams[0].endswith("|g|#provider:mock,model:gpt-4")
    assert datagrams[1].startswith("llm.request.duration:")
    assert datagrams[1].endswith("|h|#provider:mock,model:gpt-4")


# --- Troubleshooting ---------------------------------------------------------------------------------------------


def test_a_breaker_that_keeps_opening_is_given_more_patience(start: StartDuck) -> None:
    duck = start(
        {"mock": {"responses": [{"error": "server_error"}]}},
        clock=ManualClock(),
        circuit_breaker={"failure_threshold": 10, "reset_timeout": 30_000, "success_threshold": 2},
        retry={"max_attempts": 1},
    )
    for asked in range(10):
        assert duck.status().providers["mock"].state == "closed", asked
        with pytest.raises(ServiceUnavailable):
            duck.complete(HI)
    assert duck.status().providers["mock"].state == "open"
    with pytest.raises(NoAvailableProvider) as caught:
        duck.complete(HI)
    assert caught.value.reasons == {"mock/gpt-4": "circuit open"}
    assert caught.value.retry_after == pytest.approx(30.0)


def test_a_full_queue_refuses(start: StartDuck, eventually: Any) -> None:
    with FaultServer(faults.Hold()) as server:
        duck = start({"openai": {"base_url": server.base_url}}, max_queue_size=2,
                     rate_limits={"openai": {"max_concurrency": 1}})  # fmt: skip
        waiting = [duck.service.ask({"complete": HI}, block=False) for _ in range(3)]
        eventually(lambda: sum(duck.status().queue.depth.values()) == 2)
        with pytest.raises(QueueFull):
            duck.complete(HI)
        server.release()
        assert [future.get(timeout=60).provider for future in waiting] == ["openai"] * 3


def test_debug_logging_shows_requests_and_responses_and_no_key(start: StartDuck) -> None:
    lines: queue.Queue[Mapping[str, Any]] = queue.Queue()

    def keep(_logger: Any, _method: str, line: Any) -> Any:
        lines.put(dict(line))
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[keep])
    try:
        with FaultServer(faults.Ok("Quack.")) as server:
            start({"openai": {"base_url": server.base_url, "api_key": "sk-very-secret"}},
                  debug_llm_requests=True, debug_llm_responses=True
                  ).complete({**HI, "system": "Hello, my key is sk-very-secret"})  # fmt: skip
    finally:
        structlog.configure(**before)
    first, second = lines.get(timeout=30), lines.get(timeout=30)
    assert (first["event"], second["event"]) == ("LLM Request", "LLM Response")
    assert {"provider", "model", "request_id", "request"} <= set(first)
    assert "Hello, my key is" in str(first)
    assert "Quack." in str(second)
    assert "sk-very-secret" not in str(first) + str(second)


def test_nothing_is_logged_of_what_was_said_unless_asked_for(
    start: StartDuck, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        start({"mock": {"responses": ["a private answer"]}}).complete(
            {"model": "any", "messages": [{"role": "user", "content": "a private question"}]}
        )
    said = caplog.text + "".join(capsys.readouterr())
    assert "private" not in said


# --- Performance -------------------------------------------------------------------------------------------------


def test_pool_options() -> None:
    config = Config.load({"providers": {"mock": {"pool": {"size": 50, "idle": 30_000}}}})
    assert (config.providers["mock"].pool.size, config.providers["mock"].pool.idle) == (50, 30.0)


def test_frequent_requests_are_answered_from_the_cache_until_its_ttl(start: StartDuck) -> None:
    clock = ManualClock()
    duck = start(
        {"mock": {"responses": ["one", "two", "three"]}}, clock=clock, cache={"ttl": "5m"}, prices={"gpt-4": PRICE}
    )
    first, again = duck.complete(HI), duck.complete(HI)
    assert (first.text, first.cached, again.text, again.cached) == ("one", False, "one", True)
    assert again.usage.cost == 0
    assert duck.complete({**HI, "temperature": 0.1}).text == "two"
    clock.advance(301.0)
    assert duck.complete(HI).text == "three"
