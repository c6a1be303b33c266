"""Writes a conversation the way Anthropic's Messages API wants it.

System text stands apart, turns of one role are merged, tool results go first into the user turn after the calls
they answer, and nothing may be empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.reading import made_id, parse_json
from rubberduck.types import FunctionCall, ImagePart, Message, Part, TextPart

_DATA_URL = re.compile(r"data:(?P<media>[\w.+-]+/[\w.+-]+)(?:;[\w.+=-]+)*;base64,(?P<data>.*)", re.DOTALL)
_GOOD_ID = re.compile(r"[a-zA-Z0-9_-]+")

Block = dict[str, Any]
Turn = dict[str, Any]


def split_system(messages: Sequence[Message]) -> tuple[str | None, Sequence[Message]]:
    """The system text that opens a conversation, joined, and the rest of the conversation."""
    count = 0
    while count < len(messages) and messages[count].role in ("system", "developer"):
        count += 1
    texts = [message.text for message in messages[:count] if message.text.strip()]
    return "\n\n".join(texts) or None, messages[count:]


def encode_messages(messages: Iterable[Message], *, takes_system: bool) -> list[Turn]:
    """The turns. System text in the middle stays in its place: older models get it as marked user text."""
    turns: list[Turn] = []
    functions = _FunctionIds()
    for message in messages:
        role, blocks = _turn(message, functions, takes_system=takes_system)
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    if not turns:
        raise InvalidRequest("Anthropic needs a message that says something beside the system text", field="messages")
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
    return turns


class _FunctionIds:
    """Ids for `function_call` and `function` messages, which have none: results answer the latest call of a name."""

    def __init__(self) -> None:
        self._count = 0
        self._latest: dict[str, str] = {}

    def call(self, name: str) -> str:
        self._count += 1
        self._latest[name] = made_id("function", self._count, name, prefix="toolu_")
        return self._latest[name]

    def answer(self, name: str) -> str:
        return self._latest.pop(name, None) or made_id("function", 0, name, prefix="toolu_")


def _turn(message: Message, functions: _FunctionIds, *, takes_system: bool) -> tuple[str, list[Block]]:
    match message.role:
        case "assistant":
            return "assistant", _text(message) + _calls(message, functions)
        case "tool":
            return "user", [_result(good_id(message.tool_call_id or ""), message)]
        case "function":
            return "user", [_result(functions.answer(message.name or ""), message)]
        case "system" | "developer" if takes_system:
            return "system", _block(message.text)
        case "system" | "developer":
            return "user", _block(f"<system>{message.text}</system>" if message.text.strip() else "")
        case _:
            return "user", _text(message)


def _text(message: Message) -> list[Block]:
    if message.content is None or isinstance(message.content, str):
        return _block(message.content or "")
    return [
        block
        for part in message.content
        for block in ([_image(part)] if isinstance(part, ImagePart) else _block(_words(part)))
    ]


def _words(part: Part) -> str:
    if not isinstance(part, TextPart):
        raise InvalidRequest(f"Anthropic takes no {part.type} part", field="messages.content")
    return part.text


def _block(text: str) -> list[Block]:
    return [{"type": "text", "text": text}] if text.strip() else []


def _image(part: ImagePart) -> Block:
    url = part.image_url.url
    if found := _DATA_URL.fullmatch(url):
        source = {"type": "base64", "media_type": found["media"], "data": found["data"]}
    elif url.startswith("https://"):
        source = {"type": "url", "url": url}
    else:
        raise InvalidRequest(
            "Anthropic takes images as https URLs or base64 data: URLs only", field="messages.content.image_url.url"
        )
    return {"type": "image", "source": source}


def _calls(message: Message, functions: _FunctionIds) -> list[Block]:
    uses = [_use(good_id(call.id), call.function) for call in message.tool_calls]
    if not uses and message.function_call is not None:
        uses = [_use(functions.call(message.function_call.name), message.function_call)]
    return uses


def _use(call_id: str, function: FunctionCall) -> Block:
    return {"type": "tool_use", "id": call_id, "name": function.name, "input": _input(function.arguments)}


def _input(arguments: str) -> dict[str, Any]:
    """Arguments as the object that the API wants; what a model wrote amiss is kept as text in one."""
    try:
        value = parse_json(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _result(call_id: str, message: Message) -> Block:
    content = _text(message)
    block: Block = {"type": "tool_result", "tool_use_id": call_id}
    if isinstance(message.content, str) and content:
        return block | {"content": message.content}
    return block | ({"content": content} if content else {})


def good_id(call_id: str) -> str:
    """The id itself if Anthropic takes it, else one made from it, always the same."""
    return call_id if _GOOD_ID.fullmatch(call_id) else made_id(call_id, prefix="toolu_")
