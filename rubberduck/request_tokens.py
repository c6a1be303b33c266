"""How many input tokens a whole request is, counted on this machine.

Exact for conversations of plain text with the models of OpenAI whose framing is published; everything else is an
estimate, and says so: functions come within a few percent, images follow their vendor's rule, recordings and documents
are guessed from their size. Vendors that publish no vocabulary are counted with OpenAI's newest one.

Source of the framing: OpenAI cookbook, "How to count tokens with tiktoken": 3 tokens for each message beside its role,
its text and its name, 1 for a name, 3 that begin the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from rubberduck.core.image_size import size_of_url
from rubberduck.core.image_tokens import UNKNOWN, rule_for
from rubberduck.core.typescript import rendered
from rubberduck.tokens import Count, measure
from rubberduck.types import (
    AnyTool,
    AudioPart,
    FilePart,
    FunctionCall,
    ImagePart,
    Message,
    NamedTool,
    Part,
    Request,
    TextPart,
    Tool,
)

MAX_COUNTED = 1_000_000
"""Characters of one request that are counted; of all beyond them the tokens are taken to be as long as these."""
MEDIA_TOKENS = {"audio": 1_500, "file": 3_000}
"""Of a document that only a URL or an id is known of, and of a recording without a size."""

_PER_MESSAGE, _PER_NAME, _PER_REPLY = 3, 1, 3
_PER_CALL, _FOR_FUNCTIONS, _PER_CUSTOM_TOOL, _FOR_A_CHOICE = 3, 9, 8, 4
_PUBLISHED = ("gpt-4o", "gpt-4-", "gpt-4", "gpt-3.5-turbo", "gpt-35-turbo")
_UNPUBLISHED = ("gpt-4.", "gpt-4o-audio", "gpt-4o-realtime", "gpt-4o-search")
_PLAIN_ROLES = frozenset({"system", "user", "assistant"})
_AUDIO_TOKENS_PER_SECOND, _WAV_BYTES, _MP3_BYTES = 10, 48_000, 16_000
_BYTES_PER_TOKEN = {"text": 4, "pdf": 15}
"""Of a document: plain text, and the usual PDF, which has some 2,000 tokens and 30,000 bytes a page."""


def count_request(request: Request) -> Count:
    """All input tokens of a request: messages and what frames them, tools, the schema of the answer, media."""
    meter = _Meter(request.model)
    for message in request.messages:
        _message(message, meter)
    meter.add(_PER_REPLY - _reasons(request.model))
    if request.tools:
        _tools(request, meter)
    if request.response_format and (schema := request.response_format.get("json_schema")):
        meter.guess(0)
        meter.read(_compact(schema.get("schema") if isinstance(schema, dict) else schema))
    return Count(meter.tokens, estimated=meter.estimated or not _is_exact(request))


class _Meter:
    """Adds tokens up. It reads only so many characters; what comes after is measured by what came before."""

    __slots__ = ("_left", "_model", "_read", "_read_tokens", "estimated", "rule", "tokens")

    def __init__(self, model: str) -> None:
        self._model = model
        self._left, self._read, self._read_tokens = MAX_COUNTED, 0, 0
        self.rule = rule_for(model)
        self.tokens = 0
        self.estimated = False

    def add(self, tokens: int) -> None:
        self.tokens += tokens

    def guess(self, tokens: int) -> None:
        self.tokens += tokens
        self.estimated = True

    def read(self, text: str) -> None:
        if not text:
            return
        if len(text) > self._left and self._read:
            self.guess(-(-len(text) * self._read_tokens // self._read))
            return
        count = measure(text, self._model)
        self._left -= len(text)
        self._read += len(text)
        self._read_tokens += count.tokens
        self.tokens += count.tokens
        self.estimated |= count.estimated


def _compact(schema: object) -> str:
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _bare(model: str) -> str:
    """The name without a vendor's and without the mark of a finetuned one."""
    return model.rpartition("/")[2].removeprefix("ft:")


def _reasons(model: str) -> bool:
    """Whether it thinks before it answers; then, recordings say, one token less begins the answer."""
    return _bare(model).startswith(("o1", "o3", "o4", "gpt-5"))


def _is_exact(request: Request) -> bool:
    name = _bare(request.model)
    return name.startswith(_PUBLISHED) and not name.startswith(_UNPUBLISHED)


# -- messages --------------------------------------------------------------------------------------


def _message(message: Message, meter: _Meter) -> None:
    meter.add(_PER_MESSAGE + 1)  # each role is one token
    if isinstance(message.content, str):
        meter.read(message.content)
    else:
        _parts(message.content or (), meter)
    if message.name:
        meter.add(_PER_NAME)
        meter.read(message.name)
    if len(message.tool_calls) > 1:
        _calls([call.function for call in message.tool_calls], meter)
    elif message.tool_calls:
        _call(message.tool_calls[0].function, meter)
    if message.function_call:
        _call(message.function_call, meter)
    if message.audio is not None:
        meter.read(message.audio.transcript)
    if message.role not in _PLAIN_ROLES:
        meter.estimated = True


def _call(function: FunctionCall, meter: _Meter) -> None:
    meter.guess(_PER_CALL)
    meter.read(function.name)
    meter.read(function.arguments)


def _calls(functions: Sequence[FunctionCall], meter: _Meter) -> None:
    """Several at once are written as one call of a function that calls them all."""
    uses = [f'{{"recipient_name": "functions.{each.name}", "parameters": {each.arguments}}}' for each in functions]
    meter.guess(0)
    meter.read("multi_tool_use.parallel")
    meter.read(f'{{"tool_uses": [{", ".join(uses)}]}}')


def _parts(parts: Sequence[Part], meter: _Meter) -> None:
    if len(parts) > 1:
        meter.estimated = True
    for part in parts:
        match part:
            case TextPart():
                meter.read(part.text)
            case ImagePart():
                size = size_of_url(part.image_url.url) or UNKNOWN
                meter.guess(meter.rule.tokens(size, part.image_url.detail))
            case AudioPart():
                meter.guess(_recording(part))
            case FilePart():
                meter.read(part.context or "")
                meter.guess(_document(part))


def _recording(part: AudioPart) -> int:
    size = len(part.input_audio.data) * 3 // 4
    per_second = _WAV_BYTES if part.input_audio.format in ("wav", "pcm16") else _MP3_BYTES
    return max(1, size * _AUDIO_TOKENS_PER_SECOND // per_second) if size else MEDIA_TOKENS["audio"]


def _document(part: FilePart) -> int:
    data = part.file.file_data
    if not data:
        return MEDIA_TOKENS["file"]
    kind = "text" if data.startswith("data:text/") else "pdf"
    return max(1, len(data) * 3 // 4 // _BYTES_PER_TOKEN[kind])


# -- tools -----------------------------------------------------------------------------------------


def _tools(request: Request, meter: _Meter) -> None:
    functions = [tool.function for tool in request.tools if isinstance(tool, Tool)]
    if functions:
        meter.guess(_FOR_FUNCTIONS)
        meter.read(rendered((each.name, each.description, each.parameters) for each in functions))
    for tool in request.tools:
        _custom(tool, meter)
    match request.tool_choice:
        case "none":
            meter.guess(1)
        case NamedTool(function=named):
            meter.guess(_FOR_A_CHOICE)
            meter.read(named.name)
    if functions and any(message.role in ("system", "developer") for message in request.messages):
        meter.guess(-4)


def _custom(tool: AnyTool, meter: _Meter) -> None:
    if isinstance(tool, Tool):
        return
    meter.guess(_PER_CUSTOM_TOOL)
    meter.read(tool.custom.name)
    meter.read(tool.custom.description or "")
    if tool.custom.format:
        meter.read(_compact(tool.custom.format))
