"""A conversation as the items of OpenAI's Responses API, and its items as an answer.

An item is a message, a call, a call's output or a piece of reasoning, one after the other in a flat list. What our own
fields cannot hold (sealed reasoning, searches, phases of an answer) is kept in `Message.native` and goes back as it
came, in its place: a model that reasons gets its thoughts back before the calls they led to.

Source: OpenAI API reference, "Create a model response"; the types of its official SDK.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.model_names import is_written_by
from rubberduck.providers.openai.dialects import logprobs_of
from rubberduck.providers.openai.messages import breakpoint_of
from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_list, as_name, as_text, made_id
from rubberduck.types import (
    Annotation,
    AudioPart,
    CacheControl,
    FilePart,
    FunctionCall,
    ImagePart,
    Logprobs,
    Message,
    Native,
    Part,
    TextPart,
    ToolCall,
)

FORMAT = "responses"
"""What `Message.native` calls these items."""
LONGEST_ID = 64
"""Letters of a call's id; the server refuses longer ones, as other vendors may have made."""
BETWEEN_THOUGHTS = "\n\n"
"""Stands between the parts of a summary, each of which is a paragraph."""

_PLAIN: dict[str, frozenset[str]] = {
    "message": frozenset({"id", "type", "status", "role", "content"}),
    "function_call": frozenset({"id", "type", "status", "call_id", "name", "arguments"}),
    "custom_tool_call": frozenset({"id", "type", "status", "call_id", "name", "input"}),
}
"""What our own fields hold of an item; ids and states mean nothing to a server that has not stored it."""


# --- what we send


def input_items(
    messages: Iterable[Message],
    model: str,
    *,
    marks: bool = False,
    mark: CacheControl | None = None,
    stored: bool = False,
) -> list[dict[str, Any]]:
    """The conversation as input.

    `marks`: the model knows cache breakpoints, and `mark` is one behind the last part that can carry it. `stored`: the
    server keeps its answers.

    Raises:
        InvalidRequest: for audio, and for what an assistant cannot say.
    """
    writer = _Writer(model, marks=marks, stored=stored)
    for message in messages:
        writer.add(message)
    if marks and mark is not None:
        writer.mark(mark)
    return writer.items


class _Writer:
    """Writes one conversation; remembers the calls so far, whose kind and name their results do not tell."""

    def __init__(self, model: str, *, marks: bool, stored: bool) -> None:
        self.items: list[dict[str, Any]] = []
        self._model, self._marks, self._stored = model, marks, stored
        self._latest_input: tuple[dict[str, Any], str] | None = None
        self._custom: set[str] = set()
        self._function_ids: dict[str, str] = {}

    def add(self, message: Message) -> None:
        match message.role:
            case "assistant":
                self._add_answer(message)
            case "tool":
                self._add_result(message.tool_call_id or "", message)
            case "function":  # results of old have no id; the latest call of that name is meant
                name = message.name or ""
                self._add_result(self._function_ids.get(name) or made_id("function", name), message)
            case role:
                self._add_input({"role": role}, "content", self._content(message))

    def mark(self, cache: CacheControl) -> None:
        """Put a mark behind the last part that is input of ours and not empty."""
        if self._latest_input is None:
            return
        item, name = self._latest_input
        if isinstance(item[name], str):
            item[name] = [{"type": "input_text", "text": item[name]}]
        item[name][-1] |= breakpoint_of(cache)

    def _add_input(self, item: dict[str, Any], name: str, said: str | list[dict[str, Any]]) -> None:
        item[name] = said
        self.items.append(item)
        if said:
            self._latest_input = item, name

    def _content(self, message: Message) -> str | list[dict[str, Any]]:
        if isinstance(message.content, tuple):
            return [self._part(part) for part in message.content]
        return message.content or ""

    def _part(self, part: Part) -> dict[str, Any]:
        if isinstance(part, AudioPart):
            raise InvalidRequest("the Responses API takes no audio; ask through `openai`", field="messages.content")
        return _part(part) | (breakpoint_of(part.cache_control) if part.cache_control and self._marks else {})

    def _add_answer(self, message: Message) -> None:
        self._custom |= {call.id for call in message.tool_calls if call.type == "custom"}
        if message.native is not None and self._goes_back(message.native, message):
            self.items += message.native.items
            return
        text = _spoken(message)
        if message.refusal is not None:
            content = [{"type": "output_text", "text": text, "annotations": []}] if text else []
            content.append({"type": "refusal", "refusal": message.refusal})
            self.items.append({"type": "message", "role": "assistant", "content": content})
        elif text or not (message.tool_calls or message.function_call):
            self.items.append({"role": "assistant", "content": text})
        self.items += [_call(call) for call in message.tool_calls]
        if message.function_call is not None and not message.tool_calls:
            self.items.append(self._function_of_old(message.function_call))

    def _function_of_old(self, function: FunctionCall) -> dict[str, Any]:
        call_id = made_id("function", len(self.items), function.name)
        self._function_ids[function.name] = call_id
        return _call(ToolCall(id=call_id, function=function))

    def _add_result(self, call_id: str, message: Message) -> None:
        kind = "custom_tool_call_output" if call_id in self._custom else "function_call_output"
        output = message.text if self._is_bare_text(message) else self._content(message)
        self._add_input({"type": kind, "call_id": _good_id(call_id)}, "output", output)

    def _is_bare_text(self, message: Message) -> bool:
        """Whether it is text alone, without a mark that would be lost."""
        if isinstance(message.content, str):
            return True
        return all(isinstance(part, TextPart) and not (part.cache_control and self._marks) for part in message.parts)

    def _goes_back(self, native: Native, message: Message) -> bool:
        """Whether the server would know these items, and they still say what the message says."""
        if native.format != FORMAT or not is_written_by(native, self._model):
            return False
        if not self._stored and any(_is_only_named(item) for item in native.items):
            return False
        said = read_output(native.items)
        return (said.text, said.refusal, said.calls) == (message.text, message.refusal, message.tool_calls)


def _spoken(message: Message) -> str:
    """The text of an answer; what was said aloud is sent as its transcript."""
    if any(not isinstance(part, TextPart) for part in message.parts):
        raise InvalidRequest("an assistant's message holds text only in the Responses API", field="messages.content")
    return message.text or (message.audio.transcript if message.audio is not None else "")


def _part(part: TextPart | ImagePart | FilePart) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart():
            image = part.image_url
            return {"type": "input_image", "image_url": image.url, "detail": image.detail or "auto"}
        case FilePart():
            return {"type": "input_file", **part.file.model_dump(exclude_none=True)}


def _call(call: ToolCall) -> dict[str, Any]:
    name, said = call.function.name, call.function.arguments
    if call.type == "custom":
        return {"type": "custom_tool_call", "call_id": _good_id(call.id), "name": name, "input": said}
    return {"type": "function_call", "call_id": _good_id(call.id), "name": name, "arguments": said}


def _good_id(call_id: str) -> str:
    """The id itself if the server takes it, else one made from it, always the same."""
    return call_id if len(call_id) <= LONGEST_ID else made_id(call_id)


def _is_only_named(item: dict[str, Any]) -> bool:
    """Whether reasoning is no more than an id, under which a server that stored nothing finds nothing."""
    return item.get("type") == "reasoning" and not (item.get("encrypted_content") or item.get("content"))


# --- what we read


@dataclass(slots=True)
class Said:
    """What a list of output items says, in our terms."""

    texts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: tuple[ToolCall, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    logprobs: Logprobs | None = None

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def refusal(self) -> str | None:
        return "".join(self.refusals) or None

    def message(self, native: Native | None) -> Message:
        """The assistant's turn."""
        return Message(
            role="assistant",
            content=self.text if self.text or not (self.calls or self.refusal) else None,
            tool_calls=self.calls,
            refusal=self.refusal,
            reasoning=BETWEEN_THOUGHTS.join(self.thoughts) or None,
            annotations=self.annotations,
            native=native,
        )


def read_output(items: Iterable[dict[str, Any]]) -> Said:
    """What the items of an answer say; of kinds that are not known here, nothing."""
    said = Said()
    for item in items:
        match item.get("type"):
            case "message":
                _read_message(item, said)
            case "reasoning":
                parts = [*as_list(item.get("summary")), *as_list(item.get("content"))]
                said.thoughts += [text for part in parts if (text := as_text(as_dict(part).get("text")))]
            case "function_call" | "custom_tool_call":
                said.calls += (call_of(item, len(said.calls)),)
    return said


def _read_message(item: dict[str, Any], said: Said) -> None:
    for part in map(as_dict, as_list(item.get("content"))):
        if part.get("type") == "refusal":
            said.refusals.append(as_text(part.get("refusal")))
            continue
        shift = sum(map(len, said.texts))
        said.texts.append(as_text(part.get("text")))
        said.annotations += tuple(annotation_of(each, shift) for each in as_list(part.get("annotations")))
        if told := logprobs_of({"content": part.get("logprobs")}):
            said.logprobs = told if said.logprobs is None else said.logprobs + told


def call_of(item: dict[str, Any], number: int) -> ToolCall:
    """The call in an item, the `number`th of its answer; one without an id gets one of ours."""
    name, is_custom = as_text(item.get("name")), item.get("type") == "custom_tool_call"
    said = as_text(item.get("input")) if is_custom else as_json_text(item.get("arguments")) or "{}"
    return ToolCall(
        id=as_name(item.get("call_id")) or made_id(number, name),
        type="custom" if is_custom else "function",
        function=FunctionCall(name=name, arguments=said),
    )


def annotation_of(said: object, shift: int) -> Annotation:
    """Where something comes from. Places count from the beginning of the part, which stands at `shift` in the text."""
    raw = as_dict(said)
    start, end = as_count(raw.get("start_index")), as_count(raw.get("end_index"))
    return Annotation(
        type=as_text(raw.get("type")),
        url=as_name(raw.get("url")),
        title=as_name(raw.get("title")) or as_name(raw.get("filename")),
        start=None if start is None else start + shift,
        end=None if end is None else end + shift,
        raw=raw,
    )


def native_of(items: list[dict[str, Any]], model: str) -> Native | None:
    """The items themselves, where our own fields hold less than what has to go back."""
    calls = [item for item in items if as_text(item.get("type")).endswith(("function_call", "custom_tool_call"))]
    if _is_plain(items) or not all(as_name(call.get("call_id")) for call in calls):
        return None
    return Native(format=FORMAT, model=model, items=tuple(items))


def _is_plain(items: list[dict[str, Any]]) -> bool:
    """Whether it is one message, calls, or both in this order, and nothing in them is beyond our fields."""
    if any(item.get("type") == "message" for item in items[1:]):
        return False
    return all(_holds_only(item, _PLAIN.get(as_text(item.get("type")), frozenset())) for item in items)


def _holds_only(item: dict[str, Any], known: frozenset[str]) -> bool:
    if not known.issuperset(name for name, value in item.items() if value is not None):
        return False
    return not any(as_dict(part).get("annotations") for part in as_list(item.get("content")))
