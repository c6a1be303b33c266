"""Writes a conversation the way Anthropic's Messages API wants it.

System text stands apart, turns of one role are merged, the results of all calls go first into the turn behind them,
and nothing may be empty. What a model wrote goes back to it as it was written, if it has to.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.anthropic.models import takes
from rubberduck.providers.anthropic.parts import Block, blocks_of, text_block
from rubberduck.providers.model_names import is_written_by
from rubberduck.providers.reading import as_text, made_id, parse_json
from rubberduck.types import Message, TextPart, ToolCall

FORMAT = "anthropic"
"""What `Message.native` calls these blocks."""

_GOOD_ID = re.compile(r"[a-zA-Z0-9_-]+")
_SYSTEM = ("system", "developer")

Turn = dict[str, Any]


def split_system(messages: Sequence[Message]) -> tuple[str | list[Block] | None, Sequence[Message]]:
    """The system text that opens a conversation and the rest of it; the text in blocks where it bears cache marks."""
    count = 0
    while count < len(messages) and messages[count].role in _SYSTEM:
        count += 1
    opening, rest = messages[:count], messages[count:]
    if any(getattr(part, "cache_control", None) for message in opening for part in message.parts):
        return [block for message in opening for block in _system_blocks(message)] or None, rest
    texts = [_system_text(message) for message in opening]
    return "\n\n".join([text for text in texts if text.strip()]) or None, rest


def encode_messages(messages: Iterable[Message], model: str, *, documents_in_answers: bool = True) -> list[Turn]:
    """The turns of a conversation with a model. Raises InvalidRequest for what has no place in them."""
    conversation = _Conversation(model)
    for message in messages:
        conversation.add(message)
    turns = conversation.turns
    if not turns:
        raise InvalidRequest("Anthropic needs a message that says something beside the system text", field="messages")
    for turn in turns:
        turn["content"].sort(key=lambda block: block["type"] != "tool_result")
        if not documents_in_answers and turn["role"] == "assistant":
            _refuse_documents(turn["content"])
    return turns


def is_begun_answer(messages: Sequence[Message]) -> bool:
    """Whether the last turn is an answer that the model is to go on with; one that it paused in is none."""
    last = next((message for message in reversed(messages) if message.parts or message.tool_calls), None)
    if last is None or last.role != "assistant" or last.tool_calls or last.function_call is not None:
        return False
    return bool(last.text.strip()) and (last.native is None or last.native.format != FORMAT)


class _Conversation:
    """The turns so far. System text in the middle stays in its place: older models get it as marked user text."""

    def __init__(self, model: str) -> None:
        self.turns: list[Turn] = []
        self._model = model
        self._takes_system = takes(model).system_turns
        self._ids = _Ids()
        self._answered: int | None = None
        """The place of the latest turn of the assistant."""

    def add(self, message: Message) -> None:
        match message.role:
            case "assistant":
                self._append("assistant", self._answer(message))
            case "tool":
                self._add_result(_result(self._ids.answer(message.tool_call_id or ""), message))
            case "function":
                self._add_result(_result(self._ids.answer_function(message.name or ""), message))
            case "system" | "developer" if self._takes_system:
                self._append("system", _system_blocks(message))
            case "system" | "developer":
                self._append("user", _as_user(message))
            case _:
                self._append("user", _content(message))

    def _append(self, role: str, blocks: list[Block]) -> None:
        if not blocks:
            return
        if self.turns and self.turns[-1]["role"] == role:
            self.turns[-1]["content"] += blocks
        else:
            self.turns.append({"role": role, "content": blocks})
        if role == "assistant":
            self._answered = len(self.turns) - 1

    def _add_result(self, result: Block) -> None:
        """Into the turn right behind the latest calls, whatever was said since; each call has one result."""
        place = len(self.turns) - 1 if self._answered is None else self._answered + 1
        if 0 <= place < len(self.turns) and self.turns[place]["role"] == "user":
            _merge(self.turns[place]["content"], result)
        else:
            self.turns.insert(place + (self._answered is None), {"role": "user", "content": [result]})

    def _answer(self, message: Message) -> list[Block]:
        native = self._native(message)
        if native is not None:
            for call in message.tool_calls:
                self._ids.call(call.id)
            return native
        return _spoken(message) + self._calls(message)

    def _native(self, message: Message) -> list[Block] | None:
        """The answer as its model wrote it, if it is for this model and still says what the message says."""
        native = message.native
        if native is None or native.format != FORMAT or not is_written_by(native, self._model):
            return None
        said = "".join([as_text(item.get("text")) for item in native.items if item.get("type") == "text"])
        uses = [_essence(item) for item in native.items if item.get("type") == "tool_use"]
        ours = [_essence(_use(call.id, call)) for call in message.tool_calls]
        if said != message.text or uses != ours or any(self._ids.is_taken(call.id) for call in message.tool_calls):
            return None
        return [dict(item) for item in native.items if item.get("type") != "text" or as_text(item.get("text")).strip()]

    def _calls(self, message: Message) -> list[Block]:
        if not message.tool_calls and message.function_call is not None:
            function = message.function_call
            return [_tool_use(self._ids.call_function(function.name), function.name, input_of(function.arguments))]
        return [_use(self._ids.call(call.id), call) for call in message.tool_calls]


class _Ids:
    """Ids that the API takes: made where one does not fit its pattern, where one is used twice, where there is none.

    The same conversation always gets the same. Results answer calls of one id or name in their order.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._open: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        self._latest: dict[tuple[str, str], str] = {}

    def is_taken(self, call_id: str) -> bool:
        return call_id in self._used or not _GOOD_ID.fullmatch(call_id)

    def call(self, call_id: str) -> str:
        return self._call(("id", call_id), good_id(call_id))

    def call_function(self, name: str) -> str:
        return self._call(("function", name), made_id("function", len(self._used) + 1, name, prefix="toolu_"))

    def answer(self, call_id: str) -> str:
        return self._answer(("id", call_id)) or good_id(call_id)

    def answer_function(self, name: str) -> str:
        return self._answer(("function", name)) or made_id("function", 0, name, prefix="toolu_")

    def _call(self, key: tuple[str, str], wished: str) -> str:
        given = wished if wished not in self._used else made_id(key, len(self._used), prefix="toolu_")
        self._used.add(given)
        self._open[key].append(given)
        self._latest[key] = given
        return given

    def _answer(self, key: tuple[str, str]) -> str | None:
        waiting = self._open.get(key)
        return waiting.pop(0) if waiting else self._latest.get(key)


def _content(message: Message) -> list[Block]:
    if message.content is None or isinstance(message.content, str):
        return text_block(message.content or "")
    return [block for part in message.content for block in blocks_of(part)]


def _spoken(message: Message) -> list[Block]:
    """What an assistant said, and how it refused; where it only spoke aloud, the words of that."""
    said = _content(message) + text_block(message.refusal or "")
    if said or message.audio is None:
        return said
    return text_block(message.audio.transcript)


def _system_text(message: Message) -> str:
    if any(not isinstance(part, TextPart) for part in message.parts):
        raise InvalidRequest("system messages are text and nothing else at Anthropic", field="messages.content")
    return message.text


def _system_blocks(message: Message) -> list[Block]:
    _system_text(message)
    return _content(message)


def _as_user(message: Message) -> list[Block]:
    text = _system_text(message)
    marks = [part.cache_control for part in message.parts if isinstance(part, TextPart) and part.cache_control]
    return text_block(f"<system>{text}</system>", marks[-1] if marks else None) if text.strip() else []


def _use(call_id: str, call: ToolCall) -> Block:
    said = call.function.arguments
    given = {"input": said} if call.type == "custom" else input_of(said)
    return _tool_use(call_id, call.function.name, given)


def _tool_use(call_id: str, name: str, given: dict[str, Any]) -> Block:
    return {"type": "tool_use", "id": call_id, "name": name, "input": given}


def _essence(use: Block) -> tuple[Any, ...]:
    return use.get("id"), use.get("name"), use.get("input")


def input_of(arguments: str) -> dict[str, Any]:
    """Arguments as the object that the API wants; what a model wrote amiss is kept as text in one."""
    try:
        value = parse_json(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def _result(call_id: str, message: Message) -> Block:
    block: Block = {"type": "tool_result", "tool_use_id": call_id}
    if content := _content(message):
        block["content"] = message.content if isinstance(message.content, str) else content
    return block | ({"is_error": True} if message.is_error else {})


def _merge(blocks: list[Block], result: Block) -> None:
    """Add a result; another one for its call goes into the same block."""
    for block in blocks:
        if block["type"] == "tool_result" and block["tool_use_id"] == result["tool_use_id"]:
            if content := _as_blocks(block.get("content")) + _as_blocks(result.get("content")):
                block["content"] = content
            if result.get("is_error"):
                block["is_error"] = True
            return
    blocks.append(result)


def _as_blocks(content: str | list[Block] | None) -> list[Block]:
    return text_block(content or "") if not isinstance(content, list) else content


def _refuse_documents(blocks: list[Block]) -> None:
    if any(block["type"] == "document" for block in blocks):
        raise InvalidRequest("Anthropic takes no file in an assistant message any more", field="messages.content")


def good_id(call_id: str) -> str:
    """The id itself if Anthropic takes it, else one made from it, always the same."""
    return call_id if _GOOD_ID.fullmatch(call_id) else made_id(call_id, prefix="toolu_")
