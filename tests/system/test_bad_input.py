"""Whatever comes in wrong: one typed error that says what and where, and a tree that serves the next call."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from tests_system_rig import HELLO, REQUEST, StartDuck

from rubberduck import Request, RubberDuck
from rubberduck.actors import circuit_breaker, cost_tracker, rate_limiter, request_queue, service
from rubberduck.errors import (
    ConfigError,
    InvalidRequest,
    MissingApiKey,
    NoAvailableProvider,
    RubberDuckError,
    ServiceUnavailable,
)
from rubberduck.providers.base import Provider
from rubberduck.types import Chunk, Delta, Response, Usage
from supervision.testing import ManualClock


def assert_serves(duck: RubberDuck) -> None:
    """A good call succeeds, nobody had to be restarted for the bad one, and nothing is held."""
    assert duck.complete(REQUEST).text == "hello there"
    status = duck.status()
    assert (status.queue.in_process, status.providers["mock"].limiter.in_flight) == (0, 0)


def restarts(duck: RubberDuck) -> int:
    names = ("service", "calls", "request_queue", "cost_tracker", "rate_limiter:mock", "circuit_breaker:mock")
    return sum(duck.actor(name).name.restarts for name in names)


# --- the configuration

CONFIGS: dict[str, tuple[Any, type[ConfigError], str]] = {
    "no mapping": (42, ConfigError, "give a dict"),
    "no providers": ({"providers": {}}, ConfigError, "provider"),
    "an unknown section": ({"provider": {"mock": {}}}, ConfigError, "provider"),
    "an unknown module": ({"providers": {"x": {"module": "opnai"}}}, ConfigError, "openai"),
    "a module that is no provider": ({"providers": {"x": {"module": "json:JSONDecoder"}}}, ConfigError, "no provider"),
    "a class that is no provider": ({"providers": {"x": {"module": dict}}}, ConfigError, "no provider"),
    "a missing key": ({"providers": {"openai": {}}}, MissingApiKey, "OPENAI_API_KEY"),
    "a variable that is not set": (
        {"providers": {"openai": {"api_key": "${NOT_SET_HERE}"}}}, MissingApiKey, "NOT_SET_HERE",
    ),
    "an address that is none": (
        {"providers": {"openai": {"api_key": "k", "base_url": "ftp://x"}}}, ConfigError, "base_url",
    ),
    "an alias to nowhere": ({"providers": {"mock": {}}, "models": {"m": ["ghost/m"]}}, ConfigError, "not configured"),
    "a limit for nobody": ({"providers": {"mock": {}}, "rate_limits": {"ghost": {}}}, ConfigError, "ghost"),
    "a negative duration": ({"providers": {"mock": {}}, "timeout": -1}, ConfigError, "timeout"),
    "half a bucket": ({"providers": {"mock": {}}, "rate_limits": {"mock": {"capacity": 1}}}, ConfigError, "refill"),
    "a script that is none": ({"providers": {"mock": {"responses": [{"contents": "x"}]}}}, ConfigError, "content"),
    "a negative price": ({"providers": {"mock": {}}, "prices": {"m": {"input": -1, "output": 1}}}, ConfigError, "pric"),
}  # fmt: skip


@pytest.mark.parametrize("fault", CONFIGS)
def test_a_wrong_configuration_starts_nothing_and_says_what_is_wrong(fault: str) -> None:
    config, kind, hint = CONFIGS[fault]
    with pytest.raises(ConfigError, match=hint) as caught:
        RubberDuck.start(config)
    assert type(caught.value) is kind


def test_a_missing_key_names_its_variable() -> None:
    with pytest.raises(MissingApiKey) as caught:
        RubberDuck.start({"providers": {"claude": {"module": "anthropic"}}})
    assert caught.value.variable == "ANTHROPIC_API_KEY"


@pytest.mark.parametrize("text", ["providers: [", "providers:\n\tmock: {}", "a: &a [*a]", ""])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "duck.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"duck\.yaml"):
        RubberDuck.start(path)
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        RubberDuck.start(tmp_path / "missing.yaml")


class Unwilling(Provider):
    @classmethod
    def init(cls, config: Any) -> Unwilling:
        raise KeyError("spare_part")


def test_a_provider_class_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ConfigError, match=r"providers\.x: .*Unwilling"):
        RubberDuck.start({"providers": {"x": {"module": Unwilling}}})


# --- the request

NESTED: list[Any] = []
NESTED.append(NESTED)

REQUESTS: dict[str, Any] = {
    "no mapping": 42,
    "nothing": {},
    "no messages": {"model": "any"},
    "empty messages": {**REQUEST, "messages": []},
    "no model": {**REQUEST, "model": ""},
    "a model that is no text": {**REQUEST, "model": 7},
    "a model that is no Unicode": {**REQUEST, "model": "any\ud800"},
    "an endless model": {**REQUEST, "model": "m" * 10_000},
    "an unknown role": {**REQUEST, "messages": [{"role": "wizard", "content": "Hi"}]},
    "a message without content": {**REQUEST, "messages": [{"role": "user"}]},
    "a message that is none": {**REQUEST, "messages": ["Hi"]},
    "messages that are none": {**REQUEST, "messages": 5},
    "negative max_tokens": {**REQUEST, "max_tokens": -1},
    "max_tokens beyond reason": {**REQUEST, "max_tokens": 10**12},
    "a temperature that is no number": {**REQUEST, "temperature": math.nan},
    "an unknown field": {**REQUEST, "max_tokns": 5},
    "content that is no JSON": {**REQUEST, "messages": [{"role": "user", "content": object()}]},
    "an extra that is no JSON": {**REQUEST, "extra": {"x": object()}},
    "an extra that holds itself": {**REQUEST, "extra": {"x": NESTED}},
    "an extra beyond numbers": {**REQUEST, "extra": {"x": math.inf}},
    "functions that are none": {**REQUEST, "functions": 5},
    "tools that are none beside functions": {**REQUEST, "tools": 5, "functions": [{"name": "f"}]},
    "a system beside messages that are none": {**REQUEST, "messages": 5, "system": "Be kind"},
    "a tool message that answers nothing": {**REQUEST, "messages": [{"role": "tool", "content": "4"}]},
    "too much of everything": {**REQUEST, "messages": [{"role": "user", "content": "x" * (33 * 1024 * 1024)}]},
}

OPTIONS: dict[str, dict[str, Any]] = {
    "an unknown option": {"temperature": 1},
    "an unknown priority": {"priority": "urgent"},
    "a priority that is a list": {"priority": ["high"]},
    "a timeout of nothing": {"timeout": 0},
    "a negative timeout": {"timeout": -3},
    "an endless timeout": {"timeout": math.inf},
    "a timeout that is no number": {"timeout": math.nan},
    "a timeout in words": {"timeout": "5s"},
    "a timeout that is a truth": {"timeout": True},
    "providers as one text": {"providers": "mock"},
    "providers that are a number": {"providers": 5},
    "providers that are no names": {"providers": [5]},
    "a tenant that is no text": {"tenant": 5},
    "a tenant that is no Unicode": {"tenant": "\udfff"},
    "an endless tenant": {"tenant": "x" * 100_000},
    "tags that are none": {"tags": 5},
    "tags that are no texts": {"tags": {"n": 5}},
}


@pytest.fixture
def duck(start_duck: StartDuck) -> RubberDuck:
    return start_duck()


@pytest.mark.parametrize("fault", REQUESTS)
def test_a_wrong_request_is_refused_at_the_door(duck: RubberDuck, fault: str) -> None:
    for verb in ("complete", "stream"):
        with pytest.raises(InvalidRequest) as caught:
            duck.service.ask({verb: REQUESTS[fault]})
        assert (caught.value.spent, caught.value.retryable) == (0, False)
        assert len(str(caught.value)) < 2000
    assert_serves(duck)
    assert restarts(duck) == 0
    assert len(duck.provider("mock").calls) == 1


@pytest.mark.parametrize("fault", OPTIONS)
def test_a_wrong_option_is_refused_at_the_door(duck: RubberDuck, fault: str) -> None:
    for call in (duck.complete, duck.stream):
        with pytest.raises(InvalidRequest) as caught:
            call(REQUEST, **OPTIONS[fault])
        assert any(word in str(caught.value) for word in OPTIONS[fault])
    assert_serves(duck)
    assert restarts(duck) == 0


def test_a_request_object_is_checked_as_a_mapping_is(duck: RubberDuck) -> None:
    request = Request(**{**REQUEST, "extra": {"x": object()}})
    with pytest.raises(InvalidRequest, match="JSON"):
        duck.complete(request)
    assert_serves(duck)


def test_a_model_that_nobody_has_is_no_crash(start_duck: StartDuck) -> None:
    duck = start_duck({"mock": {"module": "mock", "models": ["any"], "responses": [HELLO]}})
    with pytest.raises(NoAvailableProvider, match="mock: does not support the model 'gpt-9'"):
        duck.complete({**REQUEST, "model": "gpt-9"})
    assert_serves(duck)


def test_half_a_surrogate_pair_in_a_message_is_sent_as_it_is(start_duck: StartDuck) -> None:
    limits = {"mock": {"input_tokens_per_min": 1000}}
    duck = start_duck(cache={"ttl": "60s"}, rate_limits=limits)
    request = {**REQUEST, "messages": [{"role": "user", "content": "\ud800"}]}
    assert duck.complete(request).text == "hello there"
    assert_serves(duck)


# --- messages

GARBAGE: list[Any] = [None, 42, "complete", [], {}, object(), {"complete": REQUEST, "stream": REQUEST}, {1: 2}]
ACTORS = ["service", "request_queue", "rate_limiter:mock", "circuit_breaker:mock", "cost_tracker", "calls"]


@pytest.mark.parametrize("actor", ACTORS)
def test_a_message_that_an_actor_does_not_know_is_its_senders_mistake(duck: RubberDuck, actor: str) -> None:
    ref = duck.actor(actor)
    for message in GARBAGE:
        with pytest.raises((InvalidRequest, TypeError, AssertionError)):
            ref.ask(message, timeout=30)
        ref.tell(message)
    assert_serves(duck)
    assert restarts(duck) == 0


WRONG_MESSAGES: list[tuple[str, Any]] = [
    ("rate_limiter:mock", rate_limiter.CheckRate(-1)),
    ("rate_limiter:mock", rate_limiter.CheckRate(math.nan)),
    ("rate_limiter:mock", rate_limiter.CheckRate("many")),  # type: ignore[arg-type]
    ("rate_limiter:mock", rate_limiter.Penalise(math.inf)),
    ("circuit_breaker:mock", circuit_breaker.OpenFor(-1)),
    ("circuit_breaker:mock", circuit_breaker.OpenFor(math.inf)),
    ("request_queue", request_queue.Enqueue({}, "urgent")),  # type: ignore[arg-type]
    ("request_queue", request_queue.Enqueue({}, tokens=0)),
    ("cost_tracker", cost_tracker.GetSummary("fortnight")),  # type: ignore[arg-type]
    ("service", service.Complete(REQUEST, priority="urgent")),  # type: ignore[arg-type]
    ("service", service.OpenStream(REQUEST, timeout=-1)),
]


@pytest.mark.parametrize(("actor", "message"), WRONG_MESSAGES)
def test_a_message_of_impossible_values_is_answered_with_an_error(duck: RubberDuck, actor: str, message: Any) -> None:
    with pytest.raises(InvalidRequest):
        duck.actor(actor).ask(message, timeout=30)
    assert_serves(duck)
    assert restarts(duck) == 0


# --- providers of third parties


class Buggy(Provider):
    """Answers with what the test set as `result`, or by calling it."""

    result: Any = None

    @classmethod
    def init(cls, config: Any) -> Buggy:
        return cls()

    def supports_model(self, model: str) -> bool:
        return True

    async def complete(self, request: Request) -> Response:
        return self.result() if callable(self.result) else self.result  # type: ignore[no-any-return]

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        yield self.result() if callable(self.result) else self.result


def typing_error() -> None:
    raise TypeError("one argument too many")


BUGS: dict[str, Any] = {
    "nothing": None,
    "a text": "hello",
    "a mapping": {"choices": []},
    "an answer without usage": Response("id", "m", (), None),  # type: ignore[arg-type]
    "an answer that pays back": Response("id", "m", (), Usage(-5, 1)),
    "a chunk without output": Chunk(),
    "an error of its own": typing_error,
    "half a chunk": Chunk(delta=None),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("verb", ["complete", "stream"])
@pytest.mark.parametrize("bug", BUGS)
def test_a_provider_with_a_bug_is_left_for_the_next_one(start_duck: StartDuck, bug: str, verb: str) -> None:
    providers = {"buggy": {"module": Buggy, "priority": 1}, "mock": {"module": "mock", "responses": [HELLO]}}
    providers["mock"]["priority"] = 2
    duck = start_duck(providers, retry={"max_attempts": 1})
    duck.provider("buggy").result = BUGS[bug]  # type: ignore[attr-defined]
    with pytest.raises(ServiceUnavailable, match="buggy/any failed in its own code") as caught:
        duck.service.ask({verb: REQUEST, "providers": ["buggy"]})
    assert caught.value.spent is None
    answer = duck.service.ask({verb: REQUEST})
    assert answer.provider == "mock"
    if verb == "stream":
        assert "".join(chunk.delta.content for chunk in answer) == "hello there"
    assert duck.status().providers["buggy"].limiter.in_flight == 0
    assert_serves(duck)
    assert restarts(duck) == 0


def test_a_stream_that_breaks_before_it_said_anything_is_left_for_the_next_one(start_duck: StartDuck) -> None:
    class Shy(Buggy):
        async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
            yield Chunk(delta=Delta(role="assistant"))
            raise ServiceUnavailable("too shy", status=500)

    providers = {"shy": {"module": Shy, "priority": 1}, "mock": {"module": "mock", "responses": [HELLO]}}
    providers["mock"]["priority"] = 2
    duck = start_duck(providers, retry={"same_route_repeats": 0})
    with duck.stream(REQUEST) as stream:
        assert "".join(chunk.delta.content for chunk in stream) == "hello there"
    assert stream.provider == "mock"


def test_a_stream_that_turns_to_garbage_is_interrupted_with_what_came(start_duck: StartDuck) -> None:
    class Degrading(Buggy):
        async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
            yield Chunk(delta=Delta(content="so far "))
            yield "garbage"  # type: ignore[misc]

    duck = start_duck({"buggy": {"module": Degrading}})
    received = []
    with duck.stream(REQUEST) as stream, pytest.raises(RubberDuckError) as caught:
        received.extend(chunk.delta.content for chunk in stream)
    assert (type(caught.value).__name__, caught.value.text) == ("StreamInterrupted", "so far ")  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, ServiceUnavailable)
    assert duck.status().providers["buggy"].limiter.in_flight == 0


def test_a_provider_that_eats_its_cancellation_ends_at_its_deadline_all_the_same(
    start_duck: StartDuck, eventually: Callable[..., Any]
) -> None:
    class Stubborn(Buggy):
        is_asked = False

        async def complete(self, request: Request) -> Response:
            self.is_asked = True
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise ValueError("I was not done") from None
            raise AssertionError

    clock = ManualClock()
    duck = start_duck({"buggy": {"module": Stubborn}}, clock=clock)
    provider: Any = duck.provider("buggy")
    future = duck.service.ask({"complete": REQUEST, "timeout": 5}, block=False)
    eventually(lambda: provider.is_asked)
    clock.advance(5)
    with pytest.raises(RubberDuckError):
        future.get(timeout=30)
    eventually(lambda: duck.status().calls == 0)
