"""Writes a conversation the way a server with OpenAI's chat format wants it.

Tool messages hold text only: what else a tool gave follows as a user message, behind all results of its turn.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rubberduck.errors import InvalidRequest
from rubberduck.providers.model_names import is_written_by
from rubberduck.providers.openai.compatible_table import Dialect
from rubberduck.providers.reading import made_id
from rubberduck.types import (
    Audio,
    AudioPart,
    CacheControl,
    FileData,
    FilePart,
    ImagePart,
    Message,
    Native,
    Part,
    TextPart,
    ToolCall,
)

_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")
_VERSION = re.compile(r"gpt-(\d+)(?:\.(\d+))?")
_FIRST_WITH_MARKS = (5, 6)
"""Of OpenAI's models, the first that can be told where to cache up to; the older cache by themselves."""


def marks_of(dialect: Dialect, model: str) -> str:
    """How a place to cache up to is marked for a model; empty where it cannot be."""
    if dialect.caches != "breakpoint":
        return dialect.caches
    found = _VERSION.match(model)
    is_new = found is not None and (int(found[1]), int(found[2] or 0)) >= _FIRST_WITH_MARKS
    return "breakpoint" if is_new else ""


def encode_messages(messages: Iterable[Message], dialect: Dialect, model: str) -> list[dict[str, Any]]:
    """The turns. Raises InvalidRequest for what the server cannot be shown."""
    writer = _Writer(dialect, model)
    for message in messages:
        writer.write(message)
    return writer.finish()


class _Writer:
    def __init__(self, dialect: Dialect, model: str) -> None:
        self._dialect = dialect
        self._model = model
        self._marks = marks_of(dialect, model)
        self._turns: list[dict[str, Any]] = []
        self._shown: list[dict[str, Any]] = []
        """What tools gave beside text, until the last of their results is written."""

    def write(self, message: Message) -> None:
        if self._shown and message.role != "tool":
            self._show()
        self._turns.append(self._turn(message))

    def finish(self) -> list[dict[str, Any]]:
        if self._shown:
            self._show()
        return self._turns

    def _show(self) -> None:
        self._turns.append({"role": "user", "content": self._shown})
        self._shown = []

    def _turn(self, message: Message) -> dict[str, Any]:
        match message.role:
            case "assistant":
                return self._assistant(message)
            case "tool":
                return self._result(message)
            case "developer" if not self._dialect.has_developer:
                return self._named(message, {"role": "system", "content": self._content(message)})
            case role:
                return self._named(message, {"role": role, "content": self._content(message)})

    def _named(self, message: Message, turn: dict[str, Any]) -> dict[str, Any]:
        if message.name is not None and (message.role in self._dialect.named or message.role == "function"):
            turn["name"] = message.name
        return turn

    def _content(self, message: Message) -> str | list[dict[str, Any]] | None:
        if isinstance(message.content, tuple):
            return [self._part(part) for part in message.content]
        return message.content

    def _result(self, message: Message) -> dict[str, Any]:
        for part in message.content if isinstance(message.content, tuple) else ():
            if isinstance(part, AudioPart):
                raise InvalidRequest("a tool's result cannot be a recording", field="messages.content")
            if not isinstance(part, TextPart):
                self._shown.append(self._part(part))
        content = self._marked_texts(message) if self._marks else None
        turn = {
            "role": "tool",
            "content": message.text if content is None else content,
            "tool_call_id": self._call_id(message.tool_call_id or ""),
        }
        return self._named(message, turn)

    def _marked_texts(self, message: Message) -> list[dict[str, Any]] | None:
        """The texts of a result in parts, where one bears a mark that the server can be told of."""
        texts = [part for part in message.parts if isinstance(part, TextPart)]
        is_marked = any(part.cache_control is not None for part in texts)
        return [self._part(part) for part in texts] if is_marked else None

    # --- answers

    def _assistant(self, message: Message) -> dict[str, Any]:
        turn = self._named(message, {"role": "assistant", "content": self._content(message)})
        if message.tool_calls:
            turn["tool_calls"] = [self._call(call) for call in message.tool_calls]
            if self._dialect.gets_reasoning:
                turn["reasoning_content"] = message.reasoning or ""
        elif message.function_call is not None:
            turn["function_call"] = message.function_call.model_dump()
        if message.refusal is not None:
            self._refuse(turn, message.refusal)
        if message.audio is not None:
            if _is_known(message.audio, self._dialect):
                turn["audio"] = {"id": message.audio.id}
            elif not message.text:
                turn["content"] = message.audio.transcript
        if message.native is not None and self._takes_back(message.native):
            _add_native(turn, message.native)
        if turn["content"] is None and turn.keys() <= {"role", "content", "name", "reasoning_details"}:
            turn["content"] = ""
        return turn

    def _refuse(self, turn: dict[str, Any], refusal: str) -> None:
        if self._dialect.has_refusals:
            turn["refusal"] = refusal
        elif isinstance(turn["content"], list):
            turn["content"].append({"type": "text", "text": refusal})
        else:
            turn["content"] = "\n\n".join(filter(None, (turn["content"], refusal)))

    def _call(self, call: ToolCall) -> dict[str, Any]:
        name, text = call.function.name, call.function.arguments
        if call.type == "function":
            return {
                "id": self._call_id(call.id),
                "type": "function",
                "function": {"name": name, "arguments": text},
            }
        if self._dialect.has_custom_tools:
            return {"id": self._call_id(call.id), "type": "custom", "custom": {"name": name, "input": text}}
        arguments = json.dumps({"input": text}, ensure_ascii=False)
        return {
            "id": self._call_id(call.id),
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }

    def _call_id(self, call_id: str) -> str:
        """The id as the server takes it: the same for a call and its result, in every request."""
        longest = self._dialect.longest_id
        if longest is not None and len(call_id) > longest:
            return made_id(call_id)
        if not self._dialect.short_ids or _SHORT_ID.fullmatch(call_id):
            return call_id
        return hashlib.blake2b(call_id.encode("utf-8", "replace"), digest_size=5).hexdigest()[:9]

    def _takes_back(self, native: Native) -> bool:
        return native.format in self._dialect.natives and is_written_by(native, self._model)

    # --- parts

    def _part(self, part: Part) -> dict[str, Any]:
        encoded = self._bare(part)
        if self._marks and not isinstance(part, AudioPart) and part.cache_control is not None:
            encoded |= _mark(part.cache_control, self._marks)
        return encoded

    def _bare(self, part: Part) -> dict[str, Any]:
        if isinstance(part, TextPart):
            return {"type": "text", "text": part.text}
        if part.type not in self._dialect.media:
            raise InvalidRequest(f"{self._dialect.word} takes no {part.type} part", field="messages.content")
        match part:
            case ImagePart():
                return {"type": "image_url", "image_url": part.image_url.model_dump(exclude_none=True)}
            case AudioPart() if self._dialect.has_bare_parts:
                return {"type": "input_audio", "input_audio": part.input_audio.data}
            case AudioPart():
                return {"type": "input_audio", "input_audio": part.input_audio.model_dump()}
            case FilePart() if self._dialect.has_bare_parts:
                return _bare_file(part.file)
            case FilePart():
                return {"type": "file", "file": self._file(part)}

    def _file(self, part: FilePart) -> dict[str, Any]:
        file = part.file.model_dump(exclude_none=True)
        if (url := file.pop("file_url", None)) is not None:
            if not self._dialect.has_file_urls:
                raise InvalidRequest(
                    f"{self._dialect.word} takes a file by its id or its data, and no URL",
                    field="messages.content.file.file_url",
                )
            file["file_data"] = url
        return file


def _bare_file(file: FileData) -> dict[str, Any]:
    """A file as Mistral takes it: by its id, or as a document behind a URL, which may carry it."""
    if file.file_id is not None:
        return {"type": "file", "file_id": file.file_id}
    document = {"type": "document_url", "document_url": file.file_data or file.file_url}
    return document if file.filename is None else document | {"document_name": file.filename}


def _is_known(audio: Audio, dialect: Dialect) -> bool:
    """Whether the server can be told of a spoken answer by its id: only who spoke knows it, and not forever."""
    return dialect.has_developer and audio.id != "" and not _has_expired(audio)


def _has_expired(audio: Audio) -> bool:
    return audio.expires_at is not None and audio.expires_at <= time.time()


def _mark(control: CacheControl, marks: str) -> dict[str, Any]:
    if marks == "cache_control":
        return {"cache_control": control.model_dump(exclude_none=True)}
    return breakpoint_of(control)


def breakpoint_of(control: CacheControl) -> dict[str, Any]:
    """A mark in the words of OpenAI's newer models."""
    return {"prompt_cache_breakpoint": {"mode": "explicit"} | _breakpoint_ttl(control)}


def _breakpoint_ttl(control: CacheControl) -> dict[str, str]:
    """OpenAI keeps for half an hour or half a day: the least that is as long as asked."""
    return {} if control.ttl in (None, "5m") else {"ttl": "30m" if control.ttl == "30m" else "12h"}


def breakpoint_warnings(name: str, controls: Iterable[CacheControl | None]) -> Iterator[str]:
    """What is told otherwise of marks that become breakpoints; `name` is the field that they stand in."""
    asked = {control.ttl for control in controls if control is not None}
    if "5m" in asked:
        yield f"{name}.ttl '5m' is not sent: OpenAI keeps what is marked for half an hour at least"
    if "1h" in asked:
        yield f"{name}.ttl '1h' is sent as '12h', the least that OpenAI has above half an hour"


def mark_end(turns: list[dict[str, Any]], control: CacheControl) -> None:
    """Mark the last text of a conversation as the place to cache up to."""
    for turn in reversed(turns):
        content = turn.get("content")
        if isinstance(content, str) and content:
            turn["content"] = [{"type": "text", "text": content} | _mark(control, "cache_control")]
            return
        for part in reversed(content if isinstance(content, list) else []):
            if part.get("type") == "text":
                part |= _mark(control, "cache_control")
                return


# --- what goes back as it came


def _add_native(turn: dict[str, Any], native: Native) -> None:
    """Put sealed reasoning back: beside the text (OpenRouter), or into the calls that it led to (Gemini)."""
    if native.format == "openrouter":
        turn["reasoning_details"] = list(native.items)
        return
    sealed = {item.get("id"): item.get("extra_content") for item in native.items}
    for call in turn.get("tool_calls", ()):
        if (seal := sealed.get(call["id"])) is not None:
            call["extra_content"] = seal


# --- what is lost of it


def warnings_for(messages: Sequence[Message], dialect: Dialect, model: str) -> Iterator[str]:
    """What of a conversation is not sent, though it is answered all the same."""
    unnamed = {message.role for message in messages if message.name} - dialect.named - {"function"}
    if unnamed:
        beside = f" beside role {', '.join(sorted(unnamed))}" if dialect.named else ""
        yield f"messages.name is not sent: {dialect.word} has no such field{beside}"
    if any(message.is_error for message in messages):
        yield "messages.is_error is not sent: say in the content that the tool failed"
    unknown = [each.audio for each in messages if each.audio and not _is_known(each.audio, dialect)]
    if dialect.has_developer and any(_has_expired(audio) for audio in unknown):
        yield "messages.audio is sent as its transcript: its id has expired"
    elif unknown:
        yield f"messages.audio is sent as its transcript: {dialect.word} did not speak it"
    parts = [part for message in messages if isinstance(message.content, tuple) for part in message.content]
    if not parts:
        return
    controls = [part.cache_control for part in parts if not isinstance(part, AudioPart)]
    marks = marks_of(dialect, model)
    if not marks and any(controls):
        yield f"messages.content.cache_control is not sent: {dialect.word} caches by itself, or not at all"
    if marks == "breakpoint":
        yield from breakpoint_warnings("messages.content.cache_control", controls)
    for name in ("title", "context", "citations"):
        if any(isinstance(part, FilePart) and getattr(part, name) is not None for part in parts):
            yield f"messages.content.{name} is not sent: {dialect.word} has no such field"
    if dialect.has_bare_parts:
        yield from _bare_warnings(parts, dialect)


def _bare_warnings(parts: Sequence[Part], dialect: Dialect) -> Iterator[str]:
    if any(isinstance(part, AudioPart) for part in parts):
        yield f"messages.content.input_audio.format is not sent: {dialect.word} reads it from the recording"
    files = [part.file for part in parts if isinstance(part, FilePart)]
    if any(file.file_id is not None and file.filename is not None for file in files):
        yield f"messages.content.file.filename is not sent beside file_id: {dialect.word} has the file's own"
