"""Reads a stream of OpenAI's Responses API.

Only a terminal event (`response.completed`, `.incomplete`, `.failed`) makes the answer whole. It holds the whole answer
once more, as the `.done` events hold whole parts of it: what the deltas did not bring is taken from there, and nothing
is said twice. Numbers of events may have gaps; events that are not known are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rubberduck.errors import RubberDuckError
from rubberduck.providers import failures
from rubberduck.providers.model_names import asked_as
from rubberduck.providers.openai.dialects import logprobs_of
from rubberduck.providers.reading import as_count, as_dict, as_json_text, as_list, as_name, as_text, parse_json
from rubberduck.providers.responses.items import BETWEEN_THOUGHTS, annotation_of, call_of, native_of
from rubberduck.providers.stream_decoder import StreamDecoder
from rubberduck.types import Chunk, Delta, FinishReason, Head, Logprobs, ToolCallDelta, Usage

_TEXT, _REFUSAL, _SUMMARY, _THOUGHT, _ARGUMENTS = "text", "refusal", "summary", "thought", "arguments"

_DELTAS = {
    "response.output_text.delta": (_TEXT, "content_index"),
    "response.refusal.delta": (_REFUSAL, "content_index"),
    "response.reasoning_summary_text.delta": (_SUMMARY, "summary_index"),
    "response.reasoning_text.delta": (_THOUGHT, "content_index"),
    "response.function_call_arguments.delta": (_ARGUMENTS, ""),
    "response.custom_tool_call_input.delta": (_ARGUMENTS, ""),
}
"""Which field of an item an event adds to, and what names its place in it."""
_WHOLES = {
    "response.output_text.done": (_TEXT, "content_index", "text"),
    "response.refusal.done": (_REFUSAL, "content_index", "refusal"),
    "response.reasoning_summary_text.done": (_SUMMARY, "summary_index", "text"),
    "response.reasoning_text.done": (_THOUGHT, "content_index", "text"),
    "response.function_call_arguments.done": (_ARGUMENTS, "", "arguments"),
    "response.custom_tool_call_input.done": (_ARGUMENTS, "", "input"),
}
"""As above, for the events that hold the whole, and under which name."""
_ENDS = {"response.completed": "completed", "response.incomplete": "incomplete", "response.failed": "failed"}
_CALLS = ("function_call", "custom_tool_call")
_FINISH = {
    "completed": FinishReason.STOP,
    "incomplete:max_output_tokens": FinishReason.LENGTH,
    "incomplete:content_filter": FinishReason.CONTENT_FILTER,
}


def finish_of(
    response: dict[str, Any], status: str | None, *, refused: bool, has_tools: bool
) -> tuple[FinishReason, str | None]:
    """Why an answer ended, in our word and in the provider's. A turn that calls tools is `completed` like any other."""
    why = as_name(as_dict(response.get("incomplete_details")).get("reason"))
    raw = f"incomplete:{why}" if status == "incomplete" and why else status
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    if reason is FinishReason.STOP and refused:
        return FinishReason.CONTENT_FILTER, raw
    if reason is FinishReason.STOP and has_tools:
        return FinishReason.TOOL_CALLS, raw
    return reason, raw


def usage_of(response: dict[str, Any]) -> Usage | None:
    """What the answer consumed; None where the server does not say."""
    said = as_dict(response.get("usage"))
    read, wrote = as_count(said.get("input_tokens")), as_count(said.get("output_tokens"))
    if read is None and wrote is None:
        return None
    of_input, of_output = as_dict(said.get("input_tokens_details")), as_dict(said.get("output_tokens_details"))
    return Usage(
        prompt_tokens=read or 0,
        completion_tokens=wrote or 0,
        cached_tokens=as_count(of_input.get("cached_tokens")),
        cache_write_tokens=as_count(of_input.get("cache_write_tokens")),
        reasoning_tokens=as_count(of_output.get("reasoning_tokens")),
        service_tier=as_name(response.get("service_tier")),
        raw=said,
    )


def failure_of(response: dict[str, Any], provider: str) -> RubberDuckError:
    """The error of an answer that failed."""
    return failures.make_error(failures.read_fault({"error": as_dict(response.get("error"))}), 200, {}, provider)


@dataclass(slots=True)
class _Part:
    """What was said of one part of an item, and where in the answer's text it stands."""

    pieces: list[str] = field(default_factory=list)
    starts_at: int = 0
    annotations: int = 0
    has_logprobs: bool = False


@dataclass(slots=True)
class _Item:
    """What is known of an item. `tool` is its number among the calls, once its id and name were told."""

    kind: str = ""
    id: str | None = None
    tool: int | None = None
    has_begun: bool = False


class ResponsesStreamDecoder(StreamDecoder):
    """Turns the events of a response into chunks.

    The role comes with the first chunk that says more than it; the finish reason, usage and native items come last.
    """

    end_mark = "[DONE]"  # compatible servers may send it behind the terminal event, where nobody looks

    def __init__(self, provider: str) -> None:
        super().__init__(provider)
        self._id = ""
        self._model = ""
        self._created = 0
        self._parts: dict[tuple[str, int, int], _Part] = {}
        self._slots: dict[int, int] = {}
        self._items: dict[int, _Item] = {}
        self._wholes: dict[int, dict[str, Any]] = {}
        self._tools = 0
        self._length = 0
        self._has_spoken = False
        self._has_thought = False
        self._refused = False

    @property
    def is_whole(self) -> bool:
        return self.done

    def _finish(self) -> list[Chunk]:
        raise self._cut_off()

    def _read(self, event: str, said: dict[str, Any]) -> list[Chunk]:
        kind = said.get("type")
        if not isinstance(kind, str):
            kind = event
        if (place := _DELTAS.get(kind)) is not None:
            field, index = place
            return self._say(field, self._slot(said), said.get(index), as_text(said.get("delta")), said.get("logprobs"))
        if (whole := _WHOLES.get(kind)) is not None:
            field, index, name = whole
            return self._complete(field, self._slot(said), said.get(index), said.get(name), said.get("logprobs"))
        if kind in _ENDS:
            return self._end(kind, as_dict(said.get("response")))
        return self._read_rare(kind, said)

    def _read_rare(self, kind: str, said: dict[str, Any]) -> list[Chunk]:
        match kind:
            case "response.created" | "response.in_progress" | "response.queued":
                self._introduce(as_dict(said.get("response")))
                return []
            case "response.output_item.added":
                return self._begin(self._new_slot(said), as_dict(said.get("item")))
            case "response.output_item.done":
                return self._complete_item(self._slot(said), as_dict(said.get("item")))
            case "response.content_part.done":
                return self._complete_part(self._slot(said), said.get("content_index"), as_dict(said.get("part")))
            case "response.reasoning_summary_part.done":
                text = as_dict(said.get("part")).get("text")
                return self._complete(_SUMMARY, self._slot(said), said.get("summary_index"), text)
            case "response.output_text.annotation.added" if isinstance(said.get("annotation"), dict):
                return self._annotate(self._slot(said), said.get("content_index"), [said["annotation"]])
            case _ if kind == "error" or said.get("error"):
                raise self._reported(said if said.get("error") else said | {"type": None})
            case _:
                return []

    def _head(self, said: dict[str, Any]) -> Head:
        return Head(created=self._created)

    def _introduce(self, response: dict[str, Any]) -> None:
        self._created = self._created or as_count(response.get("created_at")) or 0
        self._id = self._id or as_text(response.get("id"))
        self._model = self._model or as_text(response.get("model"))

    # --- which item is meant

    def _slot(self, said: dict[str, Any]) -> int:
        """Our number of the item that an event is about: by its place in the output, or else by its id."""
        index = said.get("output_index")
        if isinstance(index, int):
            slot = self._slots.get(index, index)
            if slot not in self._items:
                self._items[slot] = _Item(id=as_name(said.get("item_id")))
            return slot
        named = self._slot_of(said.get("item_id") or as_dict(said.get("item")).get("id"))
        return max(self._items, default=0) if named is None else named

    def _new_slot(self, said: dict[str, Any]) -> int:
        """A number for an item that begins; some servers give all items the same place."""
        index = said.get("output_index")
        index = index if isinstance(index, int) else len(self._items)
        is_free = index not in self._items or not self._items[index].has_begun
        slot = index if is_free else max(self._items) + 1
        self._slots[index] = slot
        return slot

    def _slot_of(self, item_id: object) -> int | None:
        if not item_id:
            return None
        return next((slot for slot, item in self._items.items() if item.id == item_id), None)

    def _slots_of(self, output: list[dict[str, Any]]) -> Iterator[int]:
        """Our numbers of the items of the whole answer, which may leave some out, or name them all anew."""
        named = [self._slot_of(item.get("id")) for item in output]
        has_names, taken = any(slot is not None for slot in named), set(named)
        for position, (item, slot) in enumerate(zip(output, named, strict=True)):
            found = self._slot_at(position, item, taken, has_names=has_names) if slot is None else slot
            taken.add(found)
            yield found

    def _slot_at(self, position: int, item: dict[str, Any], taken: set[int | None], *, has_names: bool) -> int:
        """Our number of an item whose id is not known, by its place and kind; where ids count, it has none yet."""
        alike = [
            slot
            for slot, known in self._items.items()
            if known.kind == item.get("type") and slot not in taken and not (has_names and known.id)
        ]
        if not alike:
            return position if position not in self._items else max(self._items) + 1
        return position if position in alike else alike[0]

    # --- what is said

    def _say(self, field: str, slot: int, number: object, piece: str, logprobs: object = None) -> list[Chunk]:
        """A piece of a part of an item, as it comes."""
        if not piece:
            return []
        if field is _ARGUMENTS and (slot not in self._items or self._items[slot].tool is None):
            return []  # whose they are is not known yet; they come again with the item
        part = self._part(field, slot, number)
        is_first = not part.pieces
        part.pieces.append(piece)
        if field is _TEXT:
            self._length += len(piece)
            told = logprobs_of({"content": logprobs}) if logprobs else None
            part.has_logprobs = part.has_logprobs or told is not None
            return [self._chunk(Delta(piece), told)]
        if field is _ARGUMENTS:
            return [self._chunk(Delta(tool_calls=(self._fragment(self._items[slot], piece),)))]
        if field is _REFUSAL:
            self._refused = True
            return [self._chunk(Delta(refusal=piece))]
        between = BETWEEN_THOUGHTS if is_first and self._has_thought else ""
        self._has_thought = True
        return [self._chunk(Delta(reasoning=between + piece))]

    def _fragment(self, item: _Item, piece: str) -> ToolCallDelta:
        return ToolCallDelta(item.tool or 0, None, None, piece, "custom" if item.kind == _CALLS[1] else "function")

    def _part(self, field: str, slot: int, number: object) -> _Part:
        key = field, slot, number if isinstance(number, int) else 0
        part = self._parts.get(key)
        if part is None:
            part = self._parts[key] = _Part(starts_at=self._length)
            item = self._items.setdefault(slot, _Item())
            item.kind = item.kind or ("reasoning" if field in (_SUMMARY, _THOUGHT) else "message")
        return part

    def _annotate(self, slot: int, number: object, annotations: list[Any]) -> list[Chunk]:
        part = self._part(_TEXT, slot, number)
        part.annotations += len(annotations)
        return [self._chunk(Delta(annotations=tuple(annotation_of(each, part.starts_at) for each in annotations)))]

    # --- what is told as a whole

    def _begin(self, slot: int, item: dict[str, Any], *, is_whole: bool = False) -> list[Chunk]:
        """Take note of an item. The first fragment of a call has its id and name; who has no name yet gets it later."""
        known = self._items.setdefault(slot, _Item())
        known.has_begun = True
        known.kind, known.id = as_text(item.get("type")) or known.kind, as_name(item.get("id")) or known.id
        if known.kind not in _CALLS or known.tool is not None or not (is_whole or item.get("name")):
            return []
        known.tool, self._tools = self._tools, self._tools + 1
        call = call_of(item, known.tool)
        return [self._chunk(Delta(tool_calls=(ToolCallDelta(known.tool, call.id, call.function.name, "", call.type),)))]

    def _complete(self, field: str, slot: int, number: object, whole: object, logprobs: object = None) -> list[Chunk]:
        """What is still unsaid of a part, by what it is in the end."""
        text = as_json_text(whole) if field is _ARGUMENTS else as_text(whole)
        part = self._parts.get((field, slot, number if isinstance(number, int) else 0))
        if part is None:
            return self._say(field, slot, number, text, logprobs)
        chunks = self._say(field, slot, number, self._rest(field, "".join(part.pieces), text), None)
        if logprobs and not part.has_logprobs and (told := logprobs_of({"content": logprobs})) is not None:
            part.has_logprobs = True
            chunks.append(self._chunk(Delta(), told))
        return chunks

    def _rest(self, field: str, said: str, whole: str) -> str:
        """What of the whole was not said. Raises ProtocolError where other things were said than the whole."""
        if whole.startswith(said):
            return whole[len(said) :]
        if not whole or field in (_SUMMARY, _THOUGHT) or said.strip() == whole.strip() or _means(said, whole):
            return ""
        raise self._nonsense("the pieces of the answer are not what it is as a whole")

    def _complete_part(self, slot: int, number: object, part: dict[str, Any]) -> list[Chunk]:
        match part.get("type"):
            case "refusal":
                return self._complete(_REFUSAL, slot, number, part.get("refusal"))
            case "reasoning_text":
                return self._complete(_THOUGHT, slot, number, part.get("text"))
            case _:
                chunks = self._complete(_TEXT, slot, number, part.get("text"), part.get("logprobs"))
                if annotations := as_list(part.get("annotations")):
                    unsaid = annotations[self._part(_TEXT, slot, number).annotations :]
                    chunks += self._annotate(slot, number, unsaid) if unsaid else []
                return chunks

    def _complete_item(self, slot: int, item: dict[str, Any]) -> list[Chunk]:
        chunks = self._begin(slot, item, is_whole=True)
        self._wholes[slot] = item
        match item.get("type"):
            case "message":
                for number, part in enumerate(map(as_dict, as_list(item.get("content")))):
                    chunks += self._complete_part(slot, number, part)
            case "reasoning":
                for field, name in ((_SUMMARY, "summary"), (_THOUGHT, "content")):
                    for number, part in enumerate(map(as_dict, as_list(item.get(name)))):
                        chunks += self._complete(field, slot, number, part.get("text"))
            case "function_call":
                nothing = "" if (_ARGUMENTS, slot, 0) in self._parts else "{}"
                chunks += self._complete(_ARGUMENTS, slot, 0, item.get("arguments") or nothing)
            case "custom_tool_call":
                chunks += self._complete(_ARGUMENTS, slot, 0, item.get("input"))
        return chunks

    def _end(self, kind: str, response: dict[str, Any]) -> list[Chunk]:
        """The rest of the answer. Raises the error of one that failed."""
        if not response and not self._items:
            raise self._nonsense("the stream holds no answer")
        self._introduce(response)
        self.usage = usage_of(response) or self.usage
        if kind == "response.failed" or response.get("error"):
            raise failure_of(response, self._provider)
        output = [item for item in as_list(response.get("output")) if isinstance(item, dict)]
        chunks: list[Chunk] = []
        for slot, item in zip(self._slots_of(output), output, strict=True):
            chunks += self._complete_item(slot, item)
        self.done = True
        status = "incomplete" if response.get("status") == "incomplete" else _ENDS[kind]
        reason, raw = finish_of(response, status, refused=self._refused, has_tools=self._tools > 0)
        native = native_of(output or [self._wholes[slot] for slot in sorted(self._wholes)], self._model)
        return [*chunks, self._chunk(Delta(native=asked_as(native, self.asked)), None, reason, raw, self.usage)]

    def _chunk(
        self,
        delta: Delta,
        logprobs: Logprobs | None = None,
        reason: FinishReason | None = None,
        raw: str | None = None,
        usage: Usage | None = None,
    ) -> Chunk:
        if not self._has_spoken:
            self._has_spoken = True
            delta = replace(delta, role="assistant")
        return Chunk(0, delta, reason, usage, raw, self._id or None, self._model or None, logprobs)


def _means(said: str, whole: str) -> bool:
    """Whether two texts differ only in how they are written: half characters, or JSON."""
    if "\ufffd" in said:
        return True
    try:
        return bool(parse_json(said) == parse_json(whole))
    except ValueError:
        return False
