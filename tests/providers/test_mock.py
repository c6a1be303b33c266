"""The mock provider: scripted answers, failures by name, and a log of what it would bill."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest

from rubberduck import errors
from rubberduck.providers.assembly import Assembly
from rubberduck.types import EmbeddingRequest, FinishReason, Usage


def mock(make: Any, *responses: Any, **options: Any) -> Any:
    provider = make("mock", responses=list(responses), **options)
    provider.count_tokens = lambda text, model: len(text.split())
    return provider


def test_answers_anything_without_a_script(make: Any, run: Any, ask: Any) -> None:
    response = run(mock(make).complete(ask("any-model")))
    assert response.text == "You said: Hi"
    assert (response.model, response.provider) == ("any-model", "mock")
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (1, 3)


def test_the_script_is_followed_and_its_last_line_repeats(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, {"content": "one"}, "two")
    assert [run(provider.complete(ask())).text for _ in range(4)] == ["one", "two", "two", "two"]


def test_tokens_is_the_output_and_usage_is_all_of_it(make: Any, run: Any, ask: Any) -> None:
    usage = {"prompt_tokens": 7, "completion_tokens": 8, "cached_tokens": 3}
    provider = mock(make, {"content": "x", "tokens": 100}, {"content": "x", "usage": usage})
    first, second = (run(provider.complete(ask())).usage for _ in range(2))
    assert (first.prompt_tokens, first.completion_tokens) == (1, 100)
    assert second == Usage(7, 8, cached_tokens=3)


def test_answers_with_tool_calls(make: Any, run: Any, ask: Any) -> None:
    choice = run(mock(make, {"tool_calls": [{"name": "look", "arguments": {"x": 1}}]}).complete(ask())).choices[0]
    assert choice.finish_reason is FinishReason.TOOL_CALLS
    assert choice.message.content is None
    assert choice.message.tool_calls[0].function.arguments == '{"x": 1}'


def test_gives_as_many_choices_as_asked_for(make: Any, run: Any, ask: Any) -> None:
    response = run(mock(make, "hello there").complete(ask(n=3)))
    assert [choice.message.content for choice in response.choices] == ["hello there"] * 3
    assert response.usage.completion_tokens == 6


@pytest.mark.parametrize("content", ["one two  three\n", " lead", "", "   ", "🦆 ente"])
def test_a_stream_says_the_same_as_a_whole_answer(make: Any, run: Any, ask: Any, gather: Any, content: str) -> None:
    provider = mock(make, {"content": content, "finish_reason": "length"})
    whole, answer = run(provider.complete(ask())), Assembly()
    for chunk in run(gather(provider.stream(ask()))):
        answer.add(chunk)
    streamed = answer.response(provider="mock")
    assert streamed.choices == whole.choices
    assert streamed.usage == whole.usage
    assert streamed.text == content


def test_a_stream_may_be_scripted_chunk_by_chunk(make: Any, run: Any, ask: Any, gather: Any) -> None:
    chunks = run(gather(mock(make, {"chunks": ["a", "b", "c"]}).stream(ask())))
    assert [chunk.delta.content for chunk in chunks] == ["a", "b", "c", ""]
    assert chunks[-1].usage is not None


@pytest.mark.parametrize(
    ("name", "expected", "status", "phase"),
    [
        ("rate_limited", errors.RateLimited, 429, "answered"),
        ("quota", errors.QuotaExceeded, 429, "answered"),
        ("auth", errors.AuthenticationFailed, 401, "answered"),
        ("model_not_found", errors.ModelNotFound, 404, "answered"),
        ("server_error", errors.ServiceUnavailable, 500, "answered"),
        ("overloaded", errors.Overloaded, 529, "answered"),
        ("unreachable", errors.ServiceUnavailable, None, "not_sent"),
        ("timeout", errors.ProviderTimeout, None, "uncertain"),
        ("cut", errors.ServiceUnavailable, None, "uncertain"),
    ],
)
def test_fails_by_name_as_a_real_provider_would(
    make: Any, run: Any, ask: Any, name: str, expected: type, status: int | None, phase: str
) -> None:
    with pytest.raises(errors.ProviderError) as caught:
        run(mock(make, {"error": name, "retry_after": "2s"}).complete(ask("m")))
    got = caught.value
    assert type(got) is expected
    assert (got.status, got.phase, got.retry_after, got.provider, got.model) == (status, phase, 2.0, "mock", "m")


@pytest.mark.parametrize("name", ["invalid_request", "context_length", "content_filter"])
def test_refuses_by_name(make: Any, run: Any, ask: Any, name: str) -> None:
    with pytest.raises(errors.InvalidRequest):
        run(mock(make, {"error": name}).complete(ask()))


def test_raises_the_very_exception_it_was_given(make: Any, run: Any, ask: Any) -> None:
    crash = ZeroDivisionError("boom")
    provider = mock(make, {"error": crash}, {"error": errors.QuotaExceeded("empty", code="x")})
    with pytest.raises(ZeroDivisionError):
        run(provider.complete(ask()))
    for _ in range(2):
        with pytest.raises(errors.QuotaExceeded) as caught:
            run(provider.complete(ask()))
        assert (caught.value.code, caught.value.provider, caught.value.attempts) == ("x", "mock", ())
        caught.value.attempts = (object(),)  # type: ignore[arg-type]


def test_a_cut_stream_says_and_bills_what_got_out(make: Any, run: Any, ask: Any, gather: Any) -> None:
    provider = mock(make, {"content": "one two three four", "error": "cut", "after": 3})
    with pytest.raises(errors.StreamInterrupted) as caught:
        run(gather(provider.stream(ask())))
    assert (caught.value.text, caught.value.usage) == ("one two three", Usage(1, 3))
    assert (provider.calls[0].outcome, provider.calls[0].usage) == ("StreamInterrupted", Usage(1, 3))


def test_an_error_may_come_in_mid_stream(make: Any, run: Any, ask: Any, keep: Any) -> None:
    said: list[Any] = []
    with pytest.raises(errors.Overloaded) as caught:
        run(keep(mock(make, {"content": "one two three", "error": "overloaded", "after": 1}).stream(ask()), said))
    assert caught.value.phase == "after_output"
    assert [chunk.delta.content for chunk in said] == ["one"]


def test_the_log_tells_request_model_usage_outcome_and_times(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, {"content": "one two", "delay": "250ms"}, {"error": "server_error", "delay": 500})
    now = [100.0]

    async def sleep(delay: float) -> None:
        now[0] += delay

    provider.sleep, provider.now = sleep, lambda: now[0]
    run(provider.complete(ask("a")))
    with pytest.raises(errors.ServiceUnavailable):
        run(provider.complete(ask("b")))
    first, second = provider.calls
    assert (first.model, first.usage, first.outcome, first.started, first.finished) == (
        "a", Usage(1, 2), "success", 100.0, 100.25,
    )  # fmt: skip
    assert (second.model, second.usage, second.outcome, second.started, second.finished) == (
        "b", None, "ServiceUnavailable", 100.25, 100.75,
    )  # fmt: skip
    assert first.request.messages[0].content == "Hi"


def test_a_call_given_up_is_in_the_log_as_cancelled(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, {"content": "never", "delay": 1})
    waiting = asyncio.Event()

    async def forever(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    async def story() -> None:
        provider.sleep = forever
        task = asyncio.ensure_future(provider.complete(ask()))
        await waiting.wait()
        assert provider.calls[0].outcome == "pending"
        task.cancel()
        await asyncio.wait([task])

    run(story())
    assert provider.calls[0].cancelled
    assert provider.calls[0].usage is None


def test_a_stream_closed_early_is_billed_for_what_got_out(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, "one two three four")

    async def story() -> None:
        stream = provider.stream(ask())
        await anext(stream)
        await anext(stream)
        await stream.aclose()

    run(story())
    assert provider.calls[0].cancelled
    assert provider.calls[0].usage == Usage(1, 2)


@pytest.mark.parametrize(
    ("response", "complaint"),
    [
        ({"contnet": "x"}, "did you mean content"),
        ({"error": "exploded"}, "none of"),
        ({"delay": "soon"}, "duration"),
        ({"tokens": -1}, "no number"),
        ({"usage": {"prompt_tokens": -1}}, "negative"),
        ({"usage": {"tokens": 1}}, "usage|tokens"),
        (3, "mapping"),
    ],
)
def test_a_script_that_cannot_be_followed_is_refused_with_its_place(make: Any, response: Any, complaint: str) -> None:
    with pytest.raises(errors.ConfigError, match=complaint) as caught:
        mock(make, "fine", response)
    assert "providers.mock.responses[1]" in str(caught.value)


def test_has_every_model_or_the_configured_ones(make: Any) -> None:
    assert mock(make).supports_model("anything")
    assert not mock(make, models=["a"]).supports_model("b")


def test_counts_the_tokens_of_the_prompt_as_everyone_does(make: Any, run: Any, ask: Any) -> None:
    from rubberduck import tokens

    provider = make("mock", responses=["fine"])
    messages = [{"role": "user", "content": "How much wood would a woodchuck chuck?"}]
    usage = run(provider.complete(ask("gpt-4o", messages=messages))).usage
    assert usage.prompt_tokens == tokens.count("How much wood would a woodchuck chuck?", "gpt-4o") > 5


# --- vectors, counts, JSON ---------------------------------------------------------------------------------------


def vectors(run: Any, provider: Any, *texts: str, **more: Any) -> Any:
    return run(provider.embed(EmbeddingRequest(model="any", input=texts, **more)))


def test_a_vector_depends_on_its_text_alone_and_has_the_length_1(make: Any, run: Any) -> None:
    one, two = vectors(run, mock(make), "a", "b").vectors
    assert vectors(run, mock(make, "whatever"), "b", "a").vectors == (two, one)
    assert one != two
    assert [math.hypot(*each) for each in (one, two)] == pytest.approx([1, 1])


def test_a_vector_has_the_dimensions_that_are_asked_for(make: Any, run: Any) -> None:
    (whole,) = vectors(run, mock(make), "a").vectors
    for dimensions in (1, 7, 64, 1536):
        (short,) = vectors(run, mock(make), "a", dimensions=dimensions).vectors
        assert len(short) == dimensions
        ratios = [a / b for a, b in zip(short, whole, strict=False)]
        assert ratios == pytest.approx([ratios[0]] * len(ratios))


def test_vectors_cost_their_tokens_and_fail_as_the_script_says(make: Any, run: Any) -> None:
    provider = mock(make, {}, {"usage": {"prompt_tokens": 9}}, {"error": "overloaded"})
    used = [vectors(run, provider, "one two", "three").usage.prompt_tokens for _ in range(2)]
    assert used == [3, 9]
    with pytest.raises(errors.Overloaded):
        vectors(run, provider, "one")
    assert [(call.outcome, call.usage) for call in provider.calls] == [
        ("success", Usage(3)),
        ("success", Usage(9)),
        ("Overloaded", None),
    ]


def test_tokens_are_counted_for_nothing(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, {}, {"tokens": 7}, {"error": "auth"})
    assert [run(provider.count(ask())).tokens for _ in range(2)] == [1, 7]
    with pytest.raises(errors.AuthenticationFailed):
        run(provider.count(ask()))
    assert [call.usage for call in provider.calls] == [Usage(), Usage(), None]


def test_json_is_written_as_the_content(make: Any, run: Any, ask: Any) -> None:
    provider = mock(make, {"json": {"a": [1, "ä"]}}, {"json": None})
    assert json.loads(run(provider.complete(ask())).text) == {"a": [1, "ä"]}
    assert run(provider.complete(ask())).text == "null"
