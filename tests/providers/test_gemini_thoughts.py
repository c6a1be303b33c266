"""Gemini's reasoning, which stands between tags before the text, and is marked as such beside it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

THOUGHT = {"extra_content": {"google": {"thought": True}}}
USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 20}


def piece(content: str | None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": content, **more}, "finish_reason": reason}
    return {"id": "1", "model": "gemini-3-flash", "choices": [choice]}


def streamed(make: Any, vendor: Any, run: Any, gather: Any, ask: Any, content: bytes) -> tuple[list[str], list[str]]:
    """The pieces of reasoning and of text in a stream."""
    server = vendor(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content))
    chunks = run(gather(make("gemini", server).stream(ask("gemini-3-flash", reasoning_summary="auto"))))
    assert [chunk.delta.role for chunk in chunks if chunk.delta.role] == ["assistant"]
    thoughts = [chunk.delta.reasoning for chunk in chunks if chunk.delta.reasoning]
    return thoughts, [chunk.delta.content for chunk in chunks if chunk.delta.content]


def test_a_stream_tells_thoughts_from_text(make: Any, vendor: Any, run: Any, gather: Any, ask: Any, sse: Any) -> None:
    content = sse(
        piece("<thought>**Counting**\n", role="assistant", **THOUGHT),
        piece("More of it.", **THOUGHT),
        piece("</thought>The answer", extra_content=None),
        piece(" is </thought>."),
        piece(None, "stop", extra_content={"google": {"thought_signature": "s"}}) | {"usage": USAGE},
    )
    assert streamed(make, vendor, run, gather, ask, content) == (
        ["**Counting**\n", "More of it."],
        ["The answer", " is </thought>."],
    )


@pytest.mark.parametrize("answer", ["</thought>Quack", "Quack"])
def test_a_thought_ends_with_a_mark_or_without_one(
    answer: str, make: Any, vendor: Any, run: Any, gather: Any, ask: Any, sse: Any
) -> None:
    content = sse(piece("<thought>Hm.", role="assistant", **THOUGHT), piece(answer), piece("</thought>", "stop"))
    assert streamed(make, vendor, run, gather, ask, content) == (["Hm."], ["Quack", "</thought>"])


def test_a_thought_and_its_text_may_come_in_one_piece(
    make: Any, vendor: Any, run: Any, gather: Any, ask: Any, sse: Any
) -> None:
    content = sse(
        piece("<thought>Hm.</thought>Quack", role="assistant", **THOUGHT), piece("</thought>!"), piece("", "stop")
    )
    assert streamed(make, vendor, run, gather, ask, content) == (["Hm."], ["Quack", "</thought>!"])


def test_tags_that_are_not_marked_as_thought_are_text(
    make: Any, vendor: Any, run: Any, gather: Any, ask: Any, sse: Any
) -> None:
    content = sse(piece("<thought>a</thought>", role="assistant"), piece("</thought>b"), piece("", "stop"))
    assert streamed(make, vendor, run, gather, ask, content) == ([], ["<thought>a</thought>", "</thought>b"])


@pytest.mark.parametrize(
    ("content", "marks", "expected"),
    [
        ("<thought>Hm.\n</thought>Quack", THOUGHT, ("Quack", "Hm.\n")),
        ("<thought>Nothing but this", THOUGHT, ("", "Nothing but this")),
        ("<thought>Hm.</thought>Quack", {}, ("<thought>Hm.</thought>Quack", None)),
        ("Quack", {"extra_content": {"google": {"thought_signature": "s"}}}, ("Quack", None)),
        ("Quack", {"extra_content": "nonsense"}, ("Quack", None)),
    ],
)
def test_a_whole_answer_tells_thoughts_from_text(
    make: Any, vendor: Any, run: Any, ask: Any, content: str, marks: Any, expected: tuple[str, str | None]
) -> None:
    choice = {"message": {"role": "assistant", "content": content, **marks}, "finish_reason": "stop"}
    body = {"id": "1", "model": "gemini-3-flash", "choices": [choice], "usage": USAGE}
    server = vendor(httpx.Response(200, json=body))
    message = run(make("gemini", server).complete(ask("gemini-3-flash"))).choices[0].message
    assert (message.content, message.reasoning) == expected
