"""The local provider, standalone: what it sends to its engine, and what callers hear when the engine fails."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import struct
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from rubberduck.config import Config, ProviderConfig
from rubberduck.errors import (
    ConfigError,
    ContextLengthExceeded,
    InvalidRequest,
    ServiceUnavailable,
    StreamInterrupted,
)
from rubberduck.providers.local import model as local_model
from rubberduck.providers.local import provider as local
from rubberduck.providers.local.process import EngineSettings
from rubberduck.providers.local.provider import LocalProvider
from rubberduck.types import EmbeddingRequest, Request, Usage

Story = Callable[[str], EngineSettings]


def configured(**options: Any) -> ProviderConfig:
    return Config.load({"providers": {"local": {"module": "local"} | options}}, environ={}).providers["local"]


def request(text: str = "hello", **fields: Any) -> Request:
    fields.setdefault("messages", [{"role": "user", "content": text}])
    return Request.parse({"model": "tiny"} | fields)


@pytest.fixture
def model_path(tmp_path: Path) -> str:
    file = tmp_path / "Tiny.gguf"
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + bytes(2000))
    return str(file)


@pytest.fixture
def provider(fake_engine: Story, model_path: str, monkeypatch: pytest.MonkeyPatch) -> LocalProvider:
    monkeypatch.setattr(local_model, "has_engine", lambda: True)
    return LocalProvider.init(configured(model_path=model_path))


def told(provider: LocalProvider, story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with provider:
            await story()

    asyncio.run(run())


def test_answer_comes_with_usage_and_costs_nothing(provider: LocalProvider) -> None:
    async def story() -> None:
        response = await provider.complete(request())
        assert (response.provider, response.usage.prompt_tokens, response.usage.completion_tokens) == ("local", 7, 5)
        assert provider.estimate_cost(response.usage, "tiny") == Decimal(0)

    told(provider, story)


@pytest.mark.parametrize(("asked", "sent"), [(None, local.ANSWER_TOKENS), (7, 7)])
def test_answer_without_a_limit_is_given_one(provider: LocalProvider, asked: int | None, sent: int) -> None:
    async def story() -> None:
        response = await provider.complete(request(max_tokens=asked))
        assert json.loads(response.text)["max_tokens"] == sent

    told(provider, story)


def test_stream_brings_every_word_then_usage(provider: LocalProvider) -> None:
    async def story() -> None:
        chunks = [chunk async for chunk in provider.stream(request())]
        assert "".join(chunk.delta.content for chunk in chunks) == "one two"
        assert [chunk.usage for chunk in chunks if chunk.usage] == [Usage(7, 2)]

    told(provider, story)


def test_too_long_a_conversation_is_told_as_such(provider: LocalProvider) -> None:
    async def story() -> None:
        with pytest.raises(ContextLengthExceeded):
            await provider.complete(request("too long"))

    told(provider, story)


def test_engine_that_dies_during_a_call_leaves_it_uncertain(provider: LocalProvider) -> None:
    async def story() -> None:
        with pytest.raises(ServiceUnavailable) as lost:
            await provider.complete(request("die"))
        assert lost.value.phase == "uncertain"

    told(provider, story)


def test_engine_that_dies_midway_interrupts_the_stream_with_what_came(provider: LocalProvider) -> None:
    async def story() -> None:
        received: list[str] = []

        async def listen() -> None:
            async for chunk in provider.stream(request("die midway")):
                received.append(chunk.delta.content)  # noqa: PERF401 - what came before the error counts

        with pytest.raises(StreamInterrupted) as lost:
            await listen()
        assert lost.value.text == "one" == "".join(received)

    told(provider, story)


def test_call_waits_for_an_engine_that_starts_again_elsewhere(provider: LocalProvider) -> None:
    async def story() -> None:
        assert provider.engine
        assert provider.engine.pid
        before = await provider.engine.endpoint(0)
        os.kill(provider.engine.pid, signal.SIGKILL)
        assert "SIGKILL" in str(await provider.engine.wait())
        waiting = asyncio.create_task(provider.complete(request()))
        await asyncio.sleep(0)
        after = await provider.engine.start()
        assert (await waiting).usage.completion_tokens == 5
        assert (before.base_url, before.key) != (after.base_url, after.key)

    told(provider, story)


def test_engine_that_does_not_come_back_is_a_refusal_that_sent_nothing(
    provider: LocalProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "PATIENCE_S", 0.01)

    async def story() -> None:
        assert provider.engine
        provider.engine.kill()
        with pytest.raises(ServiceUnavailable, match="not running") as lost:
            await provider.complete(request())
        assert (lost.value.phase, lost.value.spent) == ("not_sent", Decimal(0))

    told(provider, story)


def test_new_life_ends_what_an_abandoned_one_left(provider: LocalProvider) -> None:
    async def story() -> None:
        assert provider.engine
        first = provider.engine._process
        await provider.engine.start()
        assert first
        assert await asyncio.wait_for(first.wait(), 30) == -signal.SIGKILL

    told(provider, story)


def test_model_is_known_by_its_files_name_in_any_case(provider: LocalProvider) -> None:
    assert provider.supports_model("tiny")
    assert provider.supports_model("Tiny")
    assert not provider.supports_model("gpt-4o")


def test_server_of_the_users_has_no_child() -> None:
    provider = LocalProvider.init(configured(base_url="http://127.0.0.1:8080/v1", models=["qwen"]))
    assert provider.children() == []
    assert provider.supports_model("qwen")
    assert not provider.supports_model("other")


def test_missing_engine_says_what_to_do(model_path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "has_engine", lambda: False)
    with pytest.raises(ConfigError, match="pip install xllamacpp"):
        LocalProvider.init(configured(model_path=model_path))


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"slot": 1}, "unknown"),
        ({"slots": 0}, "above 0"),
        ({"threads": True}, "above 0"),
        ({"embeddings": "sum"}, "mean"),
    ],
)
def test_wrong_option_is_refused(model_path: str, options: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        LocalProvider.init(configured(model_path=model_path, options=options))


TOOL = {"function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}
OTHER = {"function": {"name": "g"}}


def test_tool_that_must_be_called_is_asked_for_as_json_and_read_as_a_call(provider: LocalProvider) -> None:
    async def story() -> None:
        asked = request("call", tools=[TOOL], tool_choice="required")
        choice = (await provider.complete(asked)).choices[0]
        assert [(call.function.name, call.function.arguments) for call in choice.message.tool_calls] == [
            ("f", '{"x": 1}')
        ]
        assert choice.finish_reason == "tool_calls"
        assert (await provider.complete(request("call"))).choices[0].message.tool_calls == ()

    told(provider, story)


def sent(provider: LocalProvider, **fields: Any) -> dict[str, Any]:
    return provider.encode(request(**fields))[2]


def test_engine_is_told_of_a_choice_in_words_that_it_keeps(provider: LocalProvider) -> None:
    assert sent(provider, tools=[TOOL]).get("tool_choice") in (None, "auto")
    allowed = {"type": "allowed_tools", "mode": "auto", "names": ["g"]}
    body = sent(provider, tools=[TOOL, OTHER], tool_choice=allowed)
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["g"], "auto")
    forced = sent(provider, tools=[TOOL, OTHER], tool_choice="required")
    assert forced["tool_choice"] == "none"
    assert forced["response_format"]["type"] == "json_schema"


def test_engine_is_sent_what_it_knows_and_the_rest_is_named(provider: LocalProvider) -> None:
    known = {"top_k": 3, "seed": 1, "presence_penalty": 0.5, "logprobs": True, "top_logprobs": 1}
    assert known.items() <= sent(provider, **known, extra={"min_p": 0.1}).items()
    assert sent(provider, extra={"local": {"min_p": 0.1}})["min_p"] == 0.1
    assert provider.warnings(request(**known)) == ()
    assert sent(provider, reasoning_effort="low")["chat_template_kwargs"] == {"reasoning_effort": "low"}
    unknown = {"verbosity": "low", "user": "u", "metadata": {"a": "b"}}
    assert {text.split()[0] for text in provider.warnings(request(**unknown))} == unknown.keys()
    assert not unknown.keys() & sent(provider, **unknown).keys()
    form = {"type": "json_object"}
    (told,) = provider.warnings(request(tools=[TOOL], tool_choice="required", response_format=form))
    assert told.startswith("response_format")


def test_engine_without_eyes_is_shown_no_picture(provider: LocalProvider) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(InvalidRequest) as refused:
        provider.encode(request(messages=[{"role": "user", "content": [image]}]))
    assert refused.value.field == "messages.content"


def test_count_is_of_what_would_be_sent(provider: LocalProvider) -> None:
    async def story() -> None:
        count = await provider.count(request("hello"))
        messages = sent(provider, messages=[{"role": "user", "content": "hello"}])["messages"]
        assert (count.tokens, count.estimated) == (len(json.dumps(messages)), False)

    told(provider, story)
    assert provider.offers == {"chat", "count"}


@pytest.mark.parametrize(("wanted", "pooling"), [(True, "model"), ("cls", "cls"), (False, None)])
def test_embeddings_are_offered_where_they_are_asked_for(
    fake_engine: Story, model_path: str, monkeypatch: pytest.MonkeyPatch, wanted: Any, pooling: str | None
) -> None:
    monkeypatch.setattr(local_model, "has_engine", lambda: True)
    provider = LocalProvider.init(configured(model_path=model_path, options={"embeddings": wanted}))
    assert provider.engine
    assert provider.engine.settings.pooling == pooling
    assert ("embeddings" in provider.offers) is bool(wanted)


def test_vectors_come_in_the_order_of_their_texts(
    fake_engine: Story, model_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_model, "has_engine", lambda: True)
    provider = LocalProvider.init(configured(model_path=model_path, options={"embeddings": "mean"}))

    async def story() -> None:
        answer = await provider.embed(EmbeddingRequest.parse({"model": "tiny", "input": ["a", "bcd"]}))
        assert answer.vectors == ((0.0, 1.0), (1.0, 3.0))
        assert answer.usage == Usage(3, 0)
        with pytest.raises(InvalidRequest) as refused:
            await provider.embed(EmbeddingRequest.parse({"model": "tiny", "input": ["a"], "dimensions": 3}))
        assert refused.value.field == "dimensions"

    told(provider, story)


@pytest.mark.parametrize(("story", "warned"), [("toolless", True), ("able", False)])
def test_tools_that_a_models_template_has_no_place_for_are_named(
    fake_engine: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, story: str, warned: bool
) -> None:
    monkeypatch.setattr(local_model, "has_engine", lambda: True)
    file = tmp_path / f"{story}.gguf"
    file.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 1, 1) + bytes(2000))
    provider = LocalProvider.init(configured(model_path=str(file)))

    async def look() -> None:
        warnings = provider.warnings(request(tools=[TOOL]))
        assert [text.split()[0] for text in warnings] == ["tools"] * warned

    told(provider, look)


@pytest.mark.local_model
def test_bundled_model_answers_and_streams_the_same(real_engine: EngineSettings) -> None:
    provider = LocalProvider.init(configured())
    question = request("Say hello in five words", model="smollm2", max_tokens=30)

    async def story() -> None:
        response = await provider.complete(question)
        streamed = [chunk async for chunk in provider.stream(question)]
        assert "hello" in response.text.lower()
        assert "".join(chunk.delta.content for chunk in streamed) == response.text
        usage = next(chunk.usage for chunk in streamed if chunk.usage)
        assert (usage.prompt_tokens, usage.completion_tokens) == (35, response.usage.completion_tokens)

    told(provider, story)


@pytest.mark.local_model
def test_calls_follow_each_other_without_a_pause(real_engine: EngineSettings) -> None:
    """The second call used the first one's connection, which the engine had closed, and was lost."""
    provider = LocalProvider.init(configured())
    question = request("Hi", model="smollm2", max_tokens=3)

    async def story() -> None:
        for _ in range(8):
            assert [chunk async for chunk in provider.stream(question)]
            assert (await provider.complete(question)).text

    told(provider, story)


@pytest.mark.local_model
def test_bundled_model_refuses_too_long_a_conversation(real_engine: EngineSettings) -> None:
    provider = LocalProvider.init(configured(options={"context_tokens": 256}))

    async def story() -> None:
        with pytest.raises(ContextLengthExceeded):
            await provider.complete(request("hello " * 400, model="smollm2"))

    told(provider, story)
