"""Every field of a request, with requests that are alike but for it.

`PROBES` has a line for each field of each type in `Request`. `None` stands nowhere for "not said": that is `UNSET`.
"""

# ruff: noqa: B023 - what is made in a loop here is called before the next turn of it

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]

HI = {"role": "user", "content": "Hi"}
LOOK = {"function": {"name": "look", "parameters": {"type": "object", "properties": {"x": {"type": "string"}}}}}
FIND = {"function": {"name": "find"}}
PDF = "data:application/pdf;base64,JVBERi0="
PNG = "data:image/png;base64,iVBORw0="
WAV = "UklGRg=="
MARKS: list[Fields] = [{}, {"ttl": "5m"}, {"ttl": "1h"}, {"ttl": "30m"}]
UNSET = object()


@dataclass(frozen=True)
class Probe:
    """Requests that are alike but for the field that `path` names, in the words of warnings and refusals."""

    path: str
    requests: tuple[Fields, ...]


def asking(*messages: Fields, **fields: Any) -> Fields:
    return {"messages": list(messages), **fields}


def each(path: str, *values: Any, **others: Any) -> Probe:
    """A field of the request itself, unset and with each of these values."""
    return Probe(path, (asking(HI, **others), *(asking(HI, **others, **{path: value}) for value in values)))


def within(path: str, frame: Any, *values: Any) -> Probe:
    """A field further within; `frame` makes the messages around it, or a whole request."""
    made = [frame(value) for value in values]
    return Probe(path, tuple(told if isinstance(told, dict) else asking(*told) for told in made))


def put(place: Fields, **fields: Any) -> Fields:
    return place | {name: value for name, value in fields.items() if value is not UNSET}


def user(*parts: Fields) -> list[Fields]:
    return [{"role": "user", "content": list(parts)}]


def text(**fields: Any) -> Fields:
    return put({"type": "text", "text": "Long."}, **fields)


def image(url: str = PNG, detail: Any = UNSET, **fields: Any) -> Fields:
    return put({"type": "image_url", "image_url": put({"url": url}, detail=detail)}, **fields)


def sound(data: str = WAV, format: str = "wav") -> Fields:
    return {"type": "input_audio", "input_audio": {"data": data, "format": format}}


def file(about: Fields | None = None, **fields: Any) -> Fields:
    return put({"type": "file", "file": about or {"file_data": PDF}}, **fields)


def called(
    call_id: str = "call_1", kind: str = "function", name: str = "look", arguments: str = '{"x": "y"}'
) -> Fields:
    return {"id": call_id, "type": kind, "function": {"name": name, "arguments": arguments}}


def said(**fields: Any) -> list[Fields]:
    """A conversation whose second turn is an answer with these fields."""
    return [HI, put({"role": "assistant", "content": "Well."}, **fields), HI]


def calling(*calls: Fields, result: Fields | None = None) -> list[Fields]:
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "r"} | (result or {})
    return [HI, {"role": "assistant", "content": None, "tool_calls": list(calls)}, result]


def result_of(*parts: Fields) -> list[Fields]:
    return calling(called(), result={"content": list(parts)})


def tooled(function: Fields | None = None, **tool: Any) -> Fields:
    return asking(HI, tools=[put({"function": LOOK["function"] | (function or {})}, **tool)])


def custom(**fields: Any) -> Fields:
    return asking(HI, tools=[{"type": "custom", "custom": put({"name": "run"}, **fields)}])


def choosing(choice: Any, *tools: Fields) -> Fields:
    return put(asking(HI, tools=list(tools or (LOOK, FIND))), tool_choice=choice)


def named(name: str) -> Fields:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "auto") -> Fields:
    return {"type": "allowed_tools", "mode": mode, "names": list(names)}


def schema(kind: str, **more: Any) -> Fields:
    wanted = {"name": "t", "schema": {"type": "object", "properties": {"x": {"type": kind}}}} | more
    return {"type": "json_schema", "json_schema": wanted}


def speaking(**audio: Any) -> list[Fields]:
    return said(content=None, audio={"id": "audio_1", "transcript": "Quack."} | audio)


GRAMMARS = [{"type": "grammar", "grammar": {"syntax": "regex", "definition": word}} for word in ("a", "b")]
IN_DOCUMENTS = [{"file_data": PDF}, {"file_id": "file_1"}, {"file_url": "https://a.example/b.pdf"}]
IN_PICTURES = [{"file_data": PNG}, {"file_id": "file_1", "filename": "a.png"}]
OLD = [HI, {"role": "assistant", "function_call": {"name": "look", "arguments": "{}"}}]

EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")

PROBES: dict[str, list[Probe]] = {
    "Request.messages": [within("messages", lambda told: [told], HI, HI | {"content": "Ho"})],
    "Request.max_tokens": [each("max_tokens", 5, 9)],
    "Request.temperature": [each("temperature", 0, 0.5, 1.5, 2)],
    "Request.top_p": [each("top_p", 0.2, 0.5)],
    "Request.top_k": [each("top_k", 3, 5)],
    "Request.stop": [each("stop", ["a"], ["a", "b"])],
    "Request.n": [each("n", 2, 3)],
    "Request.seed": [each("seed", 0, 7)],
    "Request.presence_penalty": [each("presence_penalty", 0.5, -0.5)],
    "Request.frequency_penalty": [each("frequency_penalty", 0.5, -0.5)],
    "Request.logit_bias": [each("logit_bias", {"1": 1.0}, {"2": 1.0})],
    "Request.logprobs": [each("logprobs", True)],
    "Request.top_logprobs": [each("top_logprobs", 2, 3), each("top_logprobs", 2, 3, logprobs=True)],
    "Request.tools": [each("tools", [LOOK], [LOOK, FIND], [{"type": "custom", "custom": {"name": "run"}}])],
    "Request.tool_choice": [
        within("tool_choice", choosing, UNSET, "none", "required", named("find"), allowed("find")),
        each("tool_choice", "required", named("look")),
        each("tool_choice", allowed("look", mode="required")),
        within("tool_choice", lambda choice: choosing(choice, LOOK), UNSET, named("other"), allowed("other")),
        within("tool_choice", choosing, allowed("find"), allowed("find", "other")),
    ],
    "Request.parallel_tool_calls": [each("parallel_tool_calls", False, tools=[LOOK])],
    "Request.response_format": [
        each("response_format", {"type": "json_object"}, schema("string"), schema("integer")),
        # Its `name` is a label for OpenAI's own use, and whoever holds answers to a schema is strict about it.
        within(
            "response_format.json_schema.description",
            lambda told: asking(HI, response_format=schema("string", **told)),
            *({}, {"description": "A."}, {"description": "B."}),
        ),
    ],
    "Request.reasoning_effort": [
        each("reasoning_effort", *EFFORTS),
        within("reasoning_effort", lambda effort: asking(HI, reasoning_effort=effort), "none", *EFFORTS),
    ],
    "Request.reasoning_budget": [
        each("reasoning_budget", 2000, 3000),
        within("reasoning_budget", lambda most: asking(HI, reasoning_budget=most), 0, 500, 1000, 2000),
        each("reasoning_budget", 2000, 3000, reasoning_effort="high", max_tokens=9000),
    ],
    "Request.reasoning_summary": [
        each("reasoning_summary", "auto", "concise", "detailed"),
        each("reasoning_summary", "auto", "concise", "detailed", reasoning_effort="low"),
    ],
    "Request.verbosity": [each("verbosity", "low", "medium", "high")],
    "Request.cache_control": [
        each("cache_control", *MARKS),
        *(
            within("cache_control", lambda mark: put(asking(*turns), cache_control=mark), UNSET, {})
            for turns in (user(image()), result_of(image()), [HI, {"role": "assistant", "content": "Well."}])
        ),
    ],
    "Request.prompt_cache_key": [each("prompt_cache_key", "a", "b")],
    "Request.service_tier": [each("service_tier", "flex", "priority"), each("service_tier", "auto")],
    "Request.metadata": [each("metadata", {"a": "b"}, {"a": "c"})],
    "Request.user": [each("user", "a", "b")],
    "Request.stream": [each("stream", True)],
    "Request.extra": [each("extra", {"min_p": 0.1}, {"min_p": 0.2})],
    "Message.role": [
        within("messages.role", lambda role: [{"role": role, "content": "A"}, HI], *("system", "user", "assistant")),
        within("messages.role", lambda role: [HI, {"role": role, "content": "A"}, HI], "system", "user", "assistant"),
    ],
    "Message.content": [
        within("messages.content", lambda told: [HI, {"role": role, "content": told}, HI], "a", "b")
        for role in ("system", "developer", "user", "assistant")
    ]
    + [
        within("messages.content", lambda told: calling(called(), result={"content": told}), "a", "b"),
        within(
            "messages.content", lambda told: [*OLD, {"role": "function", "name": "look", "content": told}], "a", "b"
        ),
        *(
            within("messages.content", frame, text(), text(text="Short."), image(), image("https://a.example/b.png"))
            for frame in (user, result_of, lambda part: said(content=[part]))
        ),
    ],
    "Message.name": [
        within("messages.name", lambda name: [put({"role": role, "content": "A"}, name=name), HI], UNSET, "Ann", "Bo")
        for role in ("system", "developer", "user", "assistant")
    ]
    + [
        within("messages.name", lambda name: calling(called(), result=put({}, name=name)), UNSET, "Ann"),
        within(
            "messages.name", lambda name: [*OLD, {"role": "function", "name": name, "content": "r"}], "look", "find"
        ),
    ],
    "Message.tool_calls": [
        within("messages.tool_calls", lambda calls: calling(*calls), [called()], [called(), called("call_2")])
    ],
    "Message.tool_call_id": [
        within(
            "messages.tool_call_id",
            lambda which: calling(called(), called("call_2"), result={"tool_call_id": which}),
            *("call_1", "call_2"),
        )
    ],
    "Message.function_call": [
        within(
            "messages.function_call",
            lambda call: said(content=None, function_call=call),
            *({"name": "look", "arguments": "{}"}, {"name": "look", "arguments": '{"x": "y"}'}, {"name": "find"}),
        )
    ],
    "Message.refusal": [
        within("messages.refusal", lambda told: said(content=None, refusal=told), UNSET, "No.", "Never."),
        within("messages.refusal", lambda told: said(refusal=told), UNSET, "No.", "Never."),
        within(
            "messages.refusal",
            lambda told: [
                HI,
                put({"role": "assistant", "tool_calls": [called()]}, refusal=told),
                calling(called())[-1],
            ],
            *(UNSET, "No.", "Never."),
        ),
    ],
    "Message.audio": [
        within(
            "messages.audio", lambda told: said(content=None, audio=told), UNSET, {"id": "a", "transcript": "Quack."}
        )
    ],
    "Message.is_error": [
        within("messages.is_error", lambda told: calling(called(), result=put({}, is_error=told)), UNSET, True),
        within(
            "messages.is_error",
            lambda told: [*OLD, put({"role": "function", "name": "look", "content": "r"}, is_error=told)],
            *(UNSET, True),
        ),
    ],
    "TextPart.text": [within("messages.content", lambda told: user(text(text=told)), "a", "b")],
    "TextPart.cache_control": [
        within("messages.content.cache_control", lambda mark: frame(text(cache_control=mark)), UNSET, *MARKS)
        for frame in (
            lambda part: user(part, {"type": "text", "text": "Hi"}),
            lambda part: [{"role": "system", "content": [part]}, HI],
            lambda part: [HI, {"role": "system", "content": [part]}, HI],
            lambda part: said(content=[part]),
            result_of,
        )
    ],
    "ImagePart.image_url": [
        within(
            "messages.content.image_url.url", lambda url: user(image(url)), PNG, PNG + "AA", "https://a.example/b.png"
        )
    ],
    "ImagePart.cache_control": [
        within("messages.content.cache_control", lambda mark: frame(image(cache_control=mark)), UNSET, *MARKS)
        for frame in (user, result_of)
    ],
    "ImageUrl.url": [
        within(
            "messages.content.image_url.url",
            lambda url: user(image(url)),
            *("https://a.example/b", "https://b.example"),
        )
    ],
    "ImageUrl.detail": [
        within(
            "messages.content.image_url.detail",
            lambda how: frame(image(detail=how)),
            *(UNSET, "low", "high", "original"),
        )
        for frame in (user, result_of)
    ],
    "AudioPart.input_audio": [within("messages.content", lambda data: user(sound(data)), WAV, WAV + "AAAA")],
    "InputAudio.data": [within("messages.content", lambda data: user(sound(data)), WAV, WAV + "AAAA")],
    "InputAudio.format": [within("messages.content", lambda kind: user(sound(format=kind)), "wav", "mp3")],
    "FilePart.file": [within("messages.content.file", lambda told: user(file(told)), *IN_DOCUMENTS, *IN_PICTURES)],
    "FilePart.title": [
        within("messages.content.title", lambda told: user(file(place, title=told)), UNSET, "A", "B")
        for place in (*IN_DOCUMENTS, *IN_PICTURES)
    ],
    "FilePart.context": [
        within("messages.content.context", lambda told: user(file(place, context=told)), UNSET, "A", "B")
        for place in (*IN_DOCUMENTS, *IN_PICTURES)
    ],
    "FilePart.citations": [
        within("messages.content.citations", lambda told: user(file(place, citations=told)), UNSET, True)
        for place in (*IN_DOCUMENTS, *IN_PICTURES)
    ],
    "FilePart.cache_control": [
        within("messages.content.cache_control", lambda mark: frame(file(cache_control=mark)), UNSET, *MARKS)
        for frame in (user, result_of)
    ],
    "FileData.file_id": [within("messages.content.file.file_id", lambda it: user(file({"file_id": it})), "a", "b")],
    "FileData.file_data": [
        within("messages.content.file.file_data", lambda it: user(file({"file_data": it})), PDF, PDF + "AAAA", PNG)
    ],
    "FileData.file_url": [
        within(
            "messages.content.file.file_url", lambda it: user(file({"file_url": f"https://a.example/{it}"})), "a", "b"
        )
    ],
    "FileData.filename": [
        within(
            "messages.content.file.filename", lambda it: user(file(put(place, filename=it))), UNSET, "a.pdf", "b.pdf"
        )
        for place in IN_DOCUMENTS
    ]
    + [
        within(
            "messages.content.file.filename",
            lambda it: user(file(put({"file_data": PNG}, filename=it))),
            *(UNSET, "a.png", "b.png"),
        ),
        within(
            "messages.content.file.filename",
            lambda it: user(file(put({"file_data": PDF}, filename=it), title="T")),
            *(UNSET, "a.pdf", "b.pdf"),
        ),
    ],
    "CacheControl.ttl": [each("cache_control", *MARKS)],
    "ToolCall.id": [
        within("messages.tool_calls.id", lambda which: calling(called(), called(which)), "call_2", "call_3"),
    ],
    "ToolCall.type": [
        within("messages.tool_calls.type", lambda kind: calling(called(kind=kind)), "function", "custom")
    ],
    "ToolCall.function": [within("messages.tool_calls", lambda name: calling(called(name=name)), "look", "find")],
    "FunctionCall.name": [within("messages.tool_calls", lambda name: calling(called(name=name)), "look", "find")],
    "FunctionCall.arguments": [
        within(
            "messages.tool_calls",
            lambda words: calling(called(kind=kind, arguments=words)),
            *('{"x": "y"}', '{"x": "z"}', '{"x"', '"x"'),
        )
        for kind in ("function", "custom")
    ],
    "Audio.id": [within("messages.audio", lambda audio_id: speaking(id=audio_id), "audio_1", "audio_2")],
    "Audio.transcript": [
        within("messages.audio", lambda words: speaking(id="", transcript=words), "Quack.", "Quack!"),
        within("messages.audio", lambda words: said(audio={"transcript": words}), "Quack.", "Quack!"),
    ],
    "Tool.function": [within("tools", lambda tool: asking(HI, tools=[tool]), LOOK, FIND)],
    "Tool.cache_control": [within("tools.cache_control", lambda mark: tooled(cache_control=mark), UNSET, *MARKS)],
    "FunctionDef.name": [within("tools", tooled, {"name": "a"}, {"name": "b"})],
    "FunctionDef.description": [within("tools", tooled, {}, {"description": "A."}, {"description": "B."})],
    "FunctionDef.parameters": [
        within("tools", tooled, {}, {"parameters": {"type": "object", "properties": {"z": {"type": "integer"}}}})
    ],
    "FunctionDef.strict": [within("tools.function.strict", tooled, {}, {"strict": True})],
    "CustomTool.custom": [within("tools", lambda name: custom(name=name), "run", "go")],
    "CustomDef.name": [within("tools", lambda name: custom(name=name), "run", "go")],
    "CustomDef.description": [within("tools", lambda told: custom(description=told), UNSET, "A.", "B.")],
    "CustomDef.format": [within("tools", lambda told: custom(format=told), UNSET, *GRAMMARS)],
    "NamedTool.function": [within("tool_choice", choosing, named("look"), named("find"))],
    "NamedFunction.name": [within("tool_choice", choosing, named("look"), named("find"))],
    "AllowedTools.mode": [within("tool_choice", choosing, allowed("look"), allowed("look", mode="required"))],
    "AllowedTools.names": [
        within(
            "tool_choice", choosing, *(allowed(*names, mode=mode) for names in (["look"], ["find"], ["look", "find"]))
        )
        for mode in ("auto", "required")
    ],
}

NOT_SAID = {
    "Message.reasoning": "a model's thoughts: sent where they are wanted back, which nobody need be told of",
    "Message.native": "the same, as their provider wrote them",
    "Message.annotations": "where an answer comes from: for who reads it",
    "Annotation.*": "as above",
    "Native.*": "as above",
    "Audio.data": "the provider has it under its id; to others goes the transcript",
    "Audio.expires_at": "as above",
    "Request.model": "tested by itself: it may stand in the address",
}
