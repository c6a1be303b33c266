"""What only a real socket shows: pieces as the network makes them, connections kept, closed and lost."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Coroutine
from typing import Any

import pytest

from rubberduck import errors
from rubberduck.config import ProviderConfig
from rubberduck.providers import resolve
from rubberduck.providers.assembly import Assembly
from rubberduck.types import FinishReason, Request

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
TEXT = "Grüße von der Ente 🦆"


def openai_chunk(delta: dict[str, Any], reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'c1', 'choices': [choice]}, ensure_ascii=False)}\n\n"


def anthropic_event(**said: Any) -> str:
    return f"event: {said['type']}\ndata: {json.dumps(said, ensure_ascii=False)}   \n\n"


OPENAI = (
    ": waking up\n\n"
    + openai_chunk({"role": "assistant", "content": ""})
    + "".join(openai_chunk({"content": letter}) for letter in TEXT)
    + openai_chunk({}, "stop")
    + 'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\ndata: [DONE]\n\n'
).encode()
ANTHROPIC = (
    anthropic_event(type="message_start", message={"id": "m1", "usage": {"input_tokens": 3, "output_tokens": 1}})
    + anthropic_event(type="ping")
    + anthropic_event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
    + "".join(
        anthropic_event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": letter})
        for letter in TEXT
    )
    + anthropic_event(type="content_block_stop", index=0)
    + anthropic_event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    + anthropic_event(type="message_stop")
).encode()
STREAMS = {"openai": OPENAI, "anthropic": ANTHROPIC}
REQUEST = Request.parse({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})

vendors = pytest.mark.parametrize("module", ["openai", "anthropic"])


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 60))


def provider_at(url: str, module: str) -> Any:
    return resolve(module).init(ProviderConfig(name="vendor", module=module, base_url=url, api_keys=("k",)))


@vendors
@pytest.mark.parametrize("size", [1, 3, None])
def test_a_stream_is_the_same_in_any_pieces(module: str, size: int | None, serve: Any, answer: Any) -> None:
    async def story() -> None:
        async with serve(answer(200, EVENTS, STREAMS[module], size)) as url:
            provider, so_far = provider_at(url, module), Assembly()
            async for chunk in provider.stream(REQUEST):
                so_far.add(chunk)
            await provider.aclose()
        response = so_far.response()
        assert response.text == TEXT
        assert response.choices[0].finish_reason is FinishReason.STOP
        assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (3, 9)

    run(story())


@vendors
def test_a_whole_stream_leaves_its_connection_for_the_next(module: str, serve: Any, answer: Any) -> None:
    async def story() -> None:
        served = answer(200, EVENTS, STREAMS[module])
        async with serve(served) as url:
            provider = provider_at(url, module)
            for _ in range(3):
                served.may_end.clear()
                async for chunk in provider.stream(REQUEST):
                    if chunk.usage is not None:
                        served.may_end.set()  # the body's end comes after the answer's
            await provider.aclose()
        assert served.connections == 1

    run(story())


@vendors
def test_closing_a_stream_hangs_up(module: str, serve: Any, answer: Any) -> None:
    async def story() -> None:
        beginning = STREAMS[module][:600]
        served = answer(200, EVENTS, beginning + b": still here\n" * 2_000_000, 65_536)
        async with serve(served) as url:
            provider = provider_at(url, module)
            stream = provider.stream(REQUEST)
            await anext(stream)
            await stream.aclose()
            await served.hung_up.wait()
            await provider.aclose()

    run(story())


@vendors
def test_a_lost_connection_is_an_interruption_with_what_had_come(module: str, serve: Any, answer: Any) -> None:
    async def story() -> None:
        body = STREAMS[module]
        async with serve(answer(200, EVENTS, body[: len(body) // 2], whole=False)) as url:
            provider, so_far = provider_at(url, module), Assembly()
            with pytest.raises(errors.StreamInterrupted) as caught:
                await into(so_far, provider.stream(REQUEST))
            await provider.aclose()
        assert caught.value.text == so_far.text
        assert TEXT.startswith(so_far.text)
        assert caught.value.phase == "after_output"

    run(story())


async def into(so_far: Assembly, chunks: Any) -> None:
    async for chunk in chunks:
        so_far.add(chunk)


@vendors
def test_a_port_where_nobody_listens_was_not_sent_to(module: str) -> None:
    async def story() -> None:
        with socket.socket() as taken:  # by us, who do not listen: nobody else does
            taken.bind(("127.0.0.1", 0))
            provider = provider_at(f"http://127.0.0.1:{taken.getsockname()[1]}", module)
            for ask in (provider.complete, lambda request: into(Assembly(), provider.stream(request))):
                with pytest.raises(errors.ServiceUnavailable) as caught:
                    await ask(REQUEST)
                assert (caught.value.phase, caught.value.spent) == ("not_sent", 0)
            await provider.aclose()

    run(story())


@vendors
def test_an_error_body_that_is_cut_does_not_hide_the_status(module: str, serve: Any, answer: Any) -> None:
    async def story() -> None:
        async with serve(answer(429, {**JSON, "retry-after": "2"}, b'{"error":{"mess', whole=False)) as url:
            provider = provider_at(url, module)
            with pytest.raises(errors.RateLimited) as caught:
                await into(Assembly(), provider.stream(REQUEST))
            await provider.aclose()
        assert caught.value.retry_after == 2.0

    run(story())
