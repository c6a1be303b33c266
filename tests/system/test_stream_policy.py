"""A stream that breaks: what its reader gets by each policy, from which route, and for what money."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests_system_rig import StartDuck
from tests_upstreams_rig import BOTH_DIALECTS, COST, REQUEST, USAGE, Pair, Upstreams, attempts

from rubberduck.config import Config, ProviderConfig
from rubberduck.errors import ConfigError, InvalidRequest, Overloaded, RubberDuckError, StreamInterrupted
from rubberduck.providers.anthropic.provider import Anthropic
from rubberduck.providers.base import Provider
from rubberduck.testing import Behaviour, dialects
from rubberduck.testing.faults import TEXT, BadChunk, Cut, ErrorInside, NoPrefill, Ok, Stall
from rubberduck.types import Chunk, Delta, FinishReason, Request, Response, Usage
from supervision.testing import ManualClock

BREAKS: dict[str, Behaviour] = {
    "cut": Cut(after=4),
    "cut by a reset": Cut(after=4, reset=True),
    "stall": Stall(after=4),
    "bad chunk": BadChunk(after=4),
    "error event": ErrorInside(after=4),
}
EACH_BREAK = pytest.mark.parametrize("fault", BREAKS)
GOES_ON = {"prefill": True}
SOON = {"idle_timeout": "300ms"}
LONG = {**REQUEST, "max_tokens": 100}


def read(pair: Pair, **options: Any) -> tuple[list[str], Any]:
    """The pieces that a reader got, and how it ended."""
    pieces: list[str] = []
    request = options.pop("request", LONG)
    with pair.duck.stream(request, **options) as stream:
        try:
            pieces.extend(chunk.delta.content for chunk in stream)
        except RubberDuckError as error:
            pair.asked.append(error)
            return pieces, error
    assert stream.text == "".join(pieces)
    pair.asked.append(stream.response)
    return pieces, stream


# --- held back -----------------------------------------------------------------------------------------------------


@EACH_BREAK
@BOTH_DIALECTS
def test_a_stream_held_to_its_end_is_the_fallbacks_whole_answer(upstreams: Upstreams, module: str, fault: str) -> None:
    pair = upstreams(BREAKS[fault], dialects=(module, "openai"), primary=SOON, retry={"same_route_repeats": 0})
    pieces, stream = read(pair, stream_policy={"buffer": "end"})
    assert ("".join(pieces), stream.provider, stream.model) == (TEXT, "fallback", "m")
    assert [provider for provider, _ in attempts(stream.response)] == ["primary", "fallback"]
    assert (stream.response.spliced, stream.response.usage.cost) == (False, COST)


def test_what_is_held_back_comes_in_its_order_and_piece_by_piece(upstreams: Upstreams) -> None:
    text = " ".join(f"{number}" for number in range(500))
    pieces, stream = read(upstreams(Ok(text)), stream_policy="buffer")
    assert "".join(pieces) == text
    assert len(pieces) > 100
    assert stream.provider == "primary"


def test_a_break_after_the_first_tokens_have_gone_is_raised_as_without_holding_back(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=5))
    pieces, error = read(pair, stream_policy={"buffer": "2 tokens"})
    assert type(error) is StreamInterrupted
    assert "".join(pieces) == error.text != ""
    assert not pair.fallback.calls


def test_a_break_before_so_many_tokens_are_there_is_nobodys_but_ours(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=4))
    pieces, stream = read(pair, stream_policy={"buffer": {"tokens": 50}})
    assert ("".join(pieces), stream.provider) == (TEXT, "fallback")


class Pauses:
    """Says its first words, another one, and the rest, as the test lets it go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Semaphore(0)

    async def answer(self, call: Any, reply: Any) -> None:
        events = dialects.events(call.path, "m", TEXT)
        await reply.head(200, {"content-type": "text/event-stream"})
        for number, event in enumerate(events):
            while number in (3, 4) and not self.may_go_on.acquire(blocking=False):
                await reply.wait(0.001)
            await reply.body(event)
        await reply.end()


def test_after_the_time_it_is_held_back_a_stream_goes_on_as_it_comes(upstreams: Upstreams, eventually: Any) -> None:
    clock, upstream = ManualClock(), Pauses()
    pair = upstreams(upstream, clock=clock, primary={"idle_timeout": "9s"})
    future = pair.duck.service.ask({"stream": LONG, "stream_policy": {"buffer": "2s"}}, block=False)
    eventually(lambda: 9.0 in clock.pending())  # something has come: it is waited for the next
    clock.advance(2)
    upstream.may_go_on.release()
    with future.get(timeout=30) as stream:
        first = next(stream)
        upstream.may_go_on.release()
        rest = [chunk.delta.content for chunk in stream]
    assert first.delta.content + "".join(rest) == TEXT
    pair.asked.append(stream.response)


def test_the_policy_may_be_configured_and_a_call_may_choose_another(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=4), stream={"policy": "buffer", "buffer_until": "end"})
    assert read(pair)[1].provider == "fallback"
    assert type(read(pair, stream_policy="error")[1]) is StreamInterrupted


def test_a_stream_that_is_held_back_past_its_deadline_closes_its_socket(upstreams: Upstreams) -> None:
    clock = ManualClock()
    pair = upstreams(Ok("quack " * 3000, between=0.02), clock=clock)
    future = pair.duck.service.ask({"stream": LONG, "stream_policy": "buffer", "timeout": 3}, block=False)
    pair.primary.wait_for(lambda calls: calls and calls[0].said)
    clock.advance(3)
    with pytest.raises(RubberDuckError):
        future.get(timeout=30)
    pair.primary.wait_for(lambda calls: calls[0].disconnected_at is not None)
    pair.asked.clear()


@pytest.mark.parametrize(
    "told", ["wait", {"buffer": 3}, {"buffer": "20"}, {"buffer": {"tokens": 0}}, {"buffer": "0s"}, {"hold": "end"}, 7]
)
def test_a_policy_that_is_none_is_refused_with_those_there_are(start_duck: StartDuck, told: Any) -> None:
    duck = start_duck()
    for verb in ("complete", "stream"):
        with pytest.raises(InvalidRequest, match='"20 tokens"') as caught:
            duck.service.ask({verb: REQUEST, "stream_policy": told})
        assert caught.value.field == "stream_policy"


def test_a_configured_policy_is_checked_and_written_as_it_was_read() -> None:
    providers = {"mock": {}}
    for told, kept in (("1500ms", "1500ms"), ("20 tokens", "20 tokens"), ({"tokens": 20}, "20 tokens"), ("end", "end")):
        loaded = Config.load({"providers": providers, "stream": {"buffer_until": told}}, environ={})
        assert loaded.stream.buffer_until == kept
        assert Config.load(json.loads(loaded.model_dump_json(exclude_unset=True)), environ={}).stream == loaded.stream
    with pytest.raises(ConfigError, match="buffer_until"):
        Config.load({"providers": providers, "stream": {"buffer_until": 20}}, environ={})


# --- as it comes ---------------------------------------------------------------------------------------------------


@EACH_BREAK
@BOTH_DIALECTS
def test_by_default_a_break_is_raised_and_nothing_is_sent_again(upstreams: Upstreams, module: str, fault: str) -> None:
    pair = upstreams(BREAKS[fault], dialects=(module, "openai"), primary=SOON | GOES_ON, secondary=GOES_ON)
    pieces, error = read(pair)
    assert type(error) is StreamInterrupted
    assert "".join(pieces) == error.text != ""
    assert (len(pair.primary.calls), len(pair.fallback.calls)) == (1, 0)


# --- continued -----------------------------------------------------------------------------------------------------


def rest_of(call: Any) -> str:
    """What a model that goes on writes: that part of the answer which is not in the last message."""
    last = call.json["messages"][-1]
    begun = last["content"] if isinstance(last["content"], str) else last["content"][0]["text"]
    assert last["role"] == "assistant"
    assert TEXT.startswith(begun)
    return TEXT[len(begun) :]


class GoesOn:
    """Writes the rest of the answer whose beginning it is sent."""

    async def answer(self, call: Any, reply: Any) -> None:
        await Ok(rest_of(call)).answer(call, reply)


@EACH_BREAK
@BOTH_DIALECTS
@pytest.mark.parametrize("second", ["openai", "anthropic"])
def test_another_route_goes_on_where_the_first_broke_off(
    upstreams: Upstreams, module: str, second: str, fault: str
) -> None:
    pair = upstreams(
        BREAKS[fault],
        fallback=GoesOn(),
        dialects=(module, second),
        primary=SOON,
        secondary=GOES_ON,
        retry={"same_route_repeats": 0},
    )
    pieces, stream = read(pair, stream_policy="continue")
    response = stream.response
    assert "".join(pieces) == response.text == TEXT
    assert (response.spliced, response.provider, response.trace.spliced) == (True, "fallback", True)
    assert [provider for provider, _ in attempts(response)] == ["primary", "fallback"]
    [sent] = pair.fallback.calls
    assert sent.json["max_tokens"] < 100
    assert response.choices[0].finish_reason is FinishReason.STOP
    assert response.usage.prompt_tokens > USAGE[0]
    broken, whole = response.attempts
    assert response.usage.cost == (None if broken.cost is None else broken.cost + whole.cost)


def test_who_repeats_the_whole_answer_is_not_heard_twice(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=4), fallback=Ok(), secondary=GOES_ON)
    pieces, stream = read(pair, stream_policy="continue")
    assert "".join(pieces) == TEXT
    assert stream.response.spliced


def test_a_route_that_is_not_known_to_go_on_is_not_asked_to(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=4))
    pieces, error = read(pair, stream_policy="continue")
    assert type(error) is StreamInterrupted
    assert "".join(pieces) == error.text != ""
    assert attempts(error) == [("primary", "StreamInterrupted")]
    assert not pair.fallback.calls


@BOTH_DIALECTS
def test_a_refusal_to_go_on_stays_hidden_behind_the_break(upstreams: Upstreams, module: str) -> None:
    pair = upstreams(Cut(after=4), fallback=NoPrefill(), dialects=("openai", module), secondary=GOES_ON)
    pieces, error = read(pair, stream_policy="continue")
    assert type(error) is StreamInterrupted
    assert error.provider == "primary"
    assert "".join(pieces) == error.text != ""
    assert attempts(error) == [("primary", "StreamInterrupted"), ("fallback", "InvalidRequest")]


def test_held_back_a_refusal_to_go_on_cannot_come_up_for_the_restart_is_a_clean_one(upstreams: Upstreams) -> None:
    pair = upstreams(Cut(after=4), fallback=NoPrefill())
    pieces, stream = read(pair, stream_policy="buffer")
    assert ("".join(pieces), stream.provider, stream.response.spliced) == (TEXT, "fallback", False)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"function": {"name": "f", "parameters": {"type": "object"}}}]},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "low"},
        {"extra": {"thinking": {"type": "enabled"}}},
    ],
    ids=["tools", "JSON", "reasoning", "thinking"],
)
def test_only_plain_text_is_continued(upstreams: Upstreams, more: dict[str, Any]) -> None:
    pair = upstreams(Cut(after=4), fallback=Ok(), dialects=("openai", "openai"), secondary=GOES_ON)
    _, error = read(pair, stream_policy="continue", request={**LONG, **more})
    assert type(error) is StreamInterrupted
    assert not pair.fallback.calls


def test_a_spliced_answer_that_breaks_again_raises_with_all_that_came(start_duck: StartDuck) -> None:
    script = [{"chunks": ["one ", "two ", "three"], "error": "cut", "after": 2}]
    script += [{"chunks": ["more ", "and ", "more"], "error": "overloaded", "after": 1}]
    config = {"mock": {"responses": [*script, {"error": "invalid_request"}]}}
    with start_duck(config, retry={"base_delay": "1ms"}).stream(REQUEST, stream_policy="continue") as stream:
        received = []
        with pytest.raises(StreamInterrupted) as caught:
            received.extend(chunk.delta.content for chunk in stream)
    assert "".join(received) == caught.value.text == "one two more "
    assert [outcome for _, outcome in attempts(caught.value)] == ["StreamInterrupted", "Overloaded", "InvalidRequest"]


def test_attempts_in_all_are_bounded_for_a_continued_answer_too(start_duck: StartDuck) -> None:
    duck = start_duck(
        {"mock": {"responses": [{"chunks": ["a ", "b "], "error": "cut", "after": 1}]}},
        retry={"base_delay": "1ms", "max_delay": "1ms", "max_attempts": 3},
    )
    with duck.stream(LONG, stream_policy="continue") as stream, pytest.raises(StreamInterrupted) as caught:
        list(stream)
    assert len(duck.provider("mock").calls) == len(caught.value.attempts) == 3
    assert caught.value.text == "a a a "
    said = [call.request.messages[-1].text for call in duck.provider("mock").calls]
    assert said == ["Hi", "a", "a a"]
    assert [call.request.max_tokens for call in duck.provider("mock").calls] == [100, 98, 96]


def test_anthropics_models_up_to_4_5_are_known_to_go_on() -> None:
    provider = Anthropic(ProviderConfig(name="anthropic", api_keys="key"))
    takes = ["claude-3-5-haiku-latest", "claude-sonnet-4-20250514", "claude-opus-4-1", "claude-sonnet-4-5-20250929"]
    takes += ["claude-opus-4-5", "claude-haiku-4-5"]
    refuses = ["claude-opus-4-6", "claude-sonnet-4-6", "claude-opus-4-8", "claude-opus-5", "claude-fable-5", "m"]
    assert [model for model in takes + refuses if provider.accepts_prefill(model)] == takes


# --- whatever happens ----------------------------------------------------------------------------------------------

WORDS = ["quack ", "the ", "duck ", "swims ", "on "]


class Broken(Provider):
    """Breaks each answer where its script says, and goes on with what it is sent; says which route it is."""

    script: list[int]

    @classmethod
    def init(cls, config: ProviderConfig) -> Broken:
        made = cls()
        made.script, made.asked, made.name = [], 0, config.name
        return made

    def supports_model(self, model: str) -> bool:
        return True

    def accepts_prefill(self, model: str) -> bool:
        return True

    async def complete(self, request: Request) -> Response:
        raise Overloaded("never")

    async def stream(self, request: Request) -> AsyncGenerator[Chunk]:
        self.asked += 1
        breaks_at = self.script.pop(0) if self.script else None
        last = request.messages[-1]
        goes_on = last.role == "assistant"
        for number, word in enumerate(WORDS):
            if number == breaks_at:
                raise StreamInterrupted("cut", phase="after_output", spent=None)
            yield Chunk(delta=Delta(content=f" {word}" if goes_on and number == 0 else f"{self.name}-{word}"))
        yield Chunk(finish_reason=FinishReason.STOP, usage=Usage(3, 5))


def whole_by(name: str) -> str:
    return "".join(f"{name}-{word}" for word in WORDS)


@given(
    st.lists(st.integers(0, len(WORDS)), max_size=3),
    st.lists(st.integers(0, len(WORDS)), max_size=3),
    st.sampled_from(["error", "buffer", {"buffer": "6 tokens"}, "continue"]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_what_is_delivered_is_a_part_of_one_answer_or_marked_spliced(
    start_duck: StartDuck, one: list[int], other: list[int], policy: Any
) -> None:
    """Whatever breaks where: and by `error` nothing is sent again once output has been seen."""
    duck = _shared(start_duck)
    providers: list[Any] = [duck.provider(name) for name in ("a", "b")]
    for provider, script in zip(providers, (one, other), strict=True):
        provider.script, provider.asked = list(script), 0
    pieces: list[str] = []
    spliced, attempts_seen, error = False, 0, None
    try:
        with duck.stream(REQUEST, stream_policy=policy) as stream:
            for chunk in stream:
                if not pieces:
                    attempts_seen = sum(provider.asked for provider in providers)
                pieces.append(chunk.delta.content)
        spliced = stream.response.spliced
        assert stream.response.text == "".join(pieces)
    except RubberDuckError as ended:
        error = ended
    if error is not None:
        spliced = error.trace.spliced
        assert getattr(error, "text", "") == "".join(pieces)
    text = "".join(pieces)
    is_part_of_one = any(whole_by(name).startswith(text) for name in ("a", "b"))
    if policy == "continue":
        assert is_part_of_one or spliced
    else:
        assert is_part_of_one
        assert not spliced
    if policy == "error" and pieces:
        assert sum(provider.asked for provider in providers) == attempts_seen


_ducks: dict[int, Any] = {}


def _shared(start_duck: StartDuck) -> Any:
    """One duck for all examples of a test."""
    if id(start_duck) not in _ducks:
        _ducks.clear()
        _ducks[id(start_duck)] = start_duck(
            {name: {"module": Broken} for name in ("a", "b")},
            retry={"base_delay": "1ms", "max_delay": "1ms", "retry_budget_floor": 100_000},
            circuit_breaker={"failure_threshold": None},
        )
    return _ducks[id(start_duck)]
