"""A stream breaks after its reader could have seen a part: what becomes of it, as the caller has said beforehand."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from tests_upstreams_rig import BOTH_DIALECTS, LIMIT, REQUEST, Upstreams, attempts

from rubberduck.errors import StreamInterrupted
from rubberduck.testing import Behaviour, Call, Reply, dialects
from rubberduck.testing.faults import TEXT, BadChunk, Cut, ErrorInside, NoPrefill, Ok, Stall
from rubberduck.types import Chunk

POLICIES: dict[str, Any] = {
    "to the end": "buffer",
    "for some tokens": {"buffer": "1000 tokens"},
    "for some time": {"buffer": "10s"},
}
IDLE = {"idle_timeout": f"{LIMIT}s"}
AFTER_OUTPUT: dict[str, Behaviour] = {
    "cut": Cut(after=4, reset=True),
    "cut in order": Cut(after=4),
    "ended properly, but short": Cut(after=4, clean=True),
    "stall": Stall(after=4),
    "malformed": BadChunk(after=4),
    "error event": ErrorInside(after=4),
}


@pytest.mark.parametrize("fault", AFTER_OUTPUT)
@BOTH_DIALECTS
def test_a_stream_that_is_held_back_to_its_end_is_made_good_by_the_fallback(
    upstreams: Upstreams, module: str, fault: str
) -> None:
    pair = upstreams(AFTER_OUTPUT[fault], hasty=True, dialects=(module, "openai"))
    response = pair.ask("stream", stream_policy="buffer")
    assert attempts(response)[-1] == ("fallback", "success")
    assert len(pair.primary.calls) == 1 or fault == "error event"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_break_before_what_is_held_back_was_let_go_is_nobodys_but_ours(upstreams: Upstreams, policy: str) -> None:
    pair = upstreams(Cut(after=4))
    response = pair.ask("stream", stream_policy=POLICIES[policy])
    assert [provider for provider, _ in attempts(response)] == ["primary", "fallback"]


@pytest.mark.parametrize("policy", [{"buffer": "1 tokens"}, {"buffer": "1ms"}], ids=str)
def test_a_break_after_what_was_held_back_was_let_go_is_raised_with_what_came(
    upstreams: Upstreams, policy: dict[str, str]
) -> None:
    seen = threading.Event()
    pair = upstreams(CutOnceSeen(seen))
    received: list[str] = []

    def note(chunk: Chunk) -> str:
        seen.set()
        return chunk.delta.content

    with pair.duck.stream(REQUEST, stream_policy=policy) as stream, pytest.raises(StreamInterrupted) as caught:
        received.extend(map(note, stream))
    assert caught.value.text == "".join(received) != ""
    assert not pair.fallback.calls


class CutOnceSeen:
    """Words, with a while between them, until the reader has seen one; then the end of the line."""

    def __init__(self, seen: threading.Event) -> None:
        self._seen = seen

    async def answer(self, call: Call, reply: Reply) -> None:
        await reply.head(200, {"content-type": "text/event-stream"})
        for event in dialects.events(call.path, "m", "quack " * 3000)[:-3]:
            await reply.body(event)
            await reply.wait(0.02)
            if self._seen.is_set():
                break
        reply.hang_up()


@pytest.mark.parametrize("fault", ["cut", "stall", "malformed"])
def test_a_broken_stream_is_continued_by_a_route_that_takes_it_up(upstreams: Upstreams, fault: str) -> None:
    pair = upstreams(AFTER_OUTPUT[fault], fallback=GoesOn(), primary=IDLE, secondary={"prefill": True})
    response = pair.ask("stream", stream_policy="continue")
    assert [provider for provider, _ in attempts(response)] == ["primary", "fallback"]
    [call] = pair.fallback.calls
    begun = call.json["messages"][-1]
    assert begun["role"] == "assistant"
    assert response.spliced
    assert len(pair.primary.calls) == 1


class GoesOn:
    """Answers with what is missing of the text after the words that it is given."""

    async def answer(self, call: Call, reply: Reply) -> None:
        begun = call.json["messages"][-1]["content"]
        begun = begun if isinstance(begun, str) else begun[0]["text"]
        assert TEXT.startswith(begun)
        await Ok(TEXT[len(begun) :]).answer(call, reply)


@pytest.mark.parametrize("prefill", [True, False, None])
def test_a_refused_prefill_never_reaches_the_caller(upstreams: Upstreams, prefill: bool | None) -> None:
    """A part has been read, so there is no going back: what the caller is told is the break, not the 400 behind it."""
    pair = upstreams(Cut(after=4), fallback=NoPrefill(), secondary={"prefill": prefill})
    error = pair.failure("stream", StreamInterrupted, stream_policy="continue")
    assert TEXT.startswith(error.text)
    assert error.text
    assert error.status != 400
    assert "prefill" not in str(error)
    if not prefill:
        assert not pair.fallback.calls
