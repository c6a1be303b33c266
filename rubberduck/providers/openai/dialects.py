"""What servers that speak OpenAI's chat format do differently, read into one meaning.

Each function takes a piece of a parsed answer. The habits named here were seen in recorded exchanges with the
servers named beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from rubberduck.providers.reading import (
    as_count,
    as_dict,
    as_json_text,
    as_list,
    as_name,
    as_text,
    is_whole_json,
    made_id,
)
from rubberduck.types import (
    Annotation,
    Audio,
    FinishReason,
    Head,
    Logprobs,
    Native,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)

_FINISH = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}

END_OF_THOUGHT = "</thought>"
"""What Gemini writes between reasoning and text; in a stream at the beginning of the first piece of text."""


def finish_reason(raw: str | None, *, has_tools: bool, refused: bool) -> FinishReason:
    """Why an answer ended. `length` stays `length` beside tool calls, because their arguments may be cut."""
    reason = _FINISH.get(raw or "", FinishReason.UNKNOWN)
    if reason is FinishReason.STOP and refused:
        return FinishReason.CONTENT_FILTER
    if reason is FinishReason.STOP and has_tools:
        return FinishReason.TOOL_CALLS
    return reason


def content_of(said: dict[str, Any]) -> tuple[str, str]:
    """The text and the reasoning of a message or delta.

    Reasoning stands in `reasoning_content` (DeepSeek, z.ai, GPUStack), in `reasoning` (Groq, Ollama, OpenRouter),
    in an array of `thinking` and `text` parts that takes the place of the text (Mistral), or before the text, between
    tags (Gemini). `reasoning_details` repeat it.
    """
    content = said.get("content")
    if "extra_content" in said and is_thought(said):
        thought, _, answer = as_text(content).removeprefix("<thought>").partition(END_OF_THOUGHT)
        return answer, thought
    reasoning = as_text(said.get("reasoning_content")) or as_text(said.get("reasoning"))
    if not reasoning and "reasoning_details" in said:
        reasoning = "".join([_readable(as_dict(detail)) for detail in as_list(said["reasoning_details"])])
    if not isinstance(content, list):
        return as_text(content), reasoning
    text = []
    for part in map(as_dict, content):
        if part.get("type") == "thinking":
            reasoning += _thinking(part.get("thinking"))
        else:
            text.append(as_text(part.get("text")))
    return "".join(text), reasoning


def is_thought(said: dict[str, Any]) -> bool:
    """Whether the content of a message or delta begins with reasoning (Gemini)."""
    return as_dict(as_dict(said.get("extra_content")).get("google")).get("thought") is True


def _readable(detail: dict[str, Any]) -> str:
    return as_text(detail.get("text")) or as_text(detail.get("summary"))


def _thinking(said: object) -> str:
    return as_text(said) or "".join(as_text(as_dict(part).get("text")) for part in as_list(said))


def tool_calls_of(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls, or fragments of them, in a message or delta; a `function_call` of old counts as one."""
    calls = [call for call in as_list(said.get("tool_calls")) if isinstance(call, dict)]
    if calls or not isinstance(said.get("function_call"), dict):
        return calls
    return [{"index": 0, "function": said["function_call"]}]


def function_of(call: dict[str, Any]) -> tuple[str, str]:
    """The name and the arguments in a tool call; a custom tool's input counts as its arguments."""
    custom = as_dict(call.get("custom"))
    function = as_dict(call.get("function")) or custom
    arguments = function.get("input") if function is custom and custom else function.get("arguments")
    return as_text(function.get("name")), as_json_text(arguments)


def kind_of(call: dict[str, Any]) -> Literal["function", "custom"]:
    """Whether a tool call is one of free text."""
    return "custom" if call.get("type") == "custom" or isinstance(call.get("custom"), dict) else "function"


def usage_of(said: dict[str, Any]) -> Usage | None:
    """The usage in an answer or chunk: in `usage`, or in `x_groq.usage` (Groq). None where there is none.

    DeepSeek tells what came from its cache beside the tokens. xAI and Gemini do not count reasoning as output, but in
    the total; Perplexity tells it beside the tokens.
    """
    usage = as_dict(said.get("usage")) or as_dict(as_dict(said.get("x_groq")).get("usage"))
    prompt, completion = as_count(usage.get("prompt_tokens")), as_count(usage.get("completion_tokens"))
    if prompt is None and completion is None:
        return None
    read, wrote = as_dict(usage.get("prompt_tokens_details")), as_dict(usage.get("completion_tokens_details"))
    cached, reasoning = as_count(read.get("cached_tokens")), as_count(wrote.get("reasoning_tokens"))
    prompt, completion = prompt or 0, completion or 0
    if reasoning is None:
        reasoning = as_count(usage.get("reasoning_tokens"))
    if (unsaid := (as_count(usage.get("total_tokens")) or 0) - prompt - completion) > 0:
        completion += unsaid
        reasoning = unsaid if reasoning is None else reasoning
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=as_count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=as_count(read.get("cache_write_tokens")),
        reasoning_tokens=reasoning,
        prompt_audio_tokens=as_count(read.get("audio_tokens")),
        completion_audio_tokens=as_count(wrote.get("audio_tokens")),
        service_tier=as_name(said.get("service_tier")),
        raw=usage,
    )


def head_of(said: dict[str, Any]) -> Head:
    """What an answer or chunk says of the whole, beside its text."""
    return Head(
        created=as_count(said.get("created")) or 0,
        service_tier=as_name(said.get("service_tier")),
        system_fingerprint=as_name(said.get("system_fingerprint")),
    )


# --- what few answers have


def logprobs_of(said: object) -> Logprobs | None:
    """The probabilities in a choice; None where there are none."""
    told = as_dict(said)
    content, refusal = _tokens(told.get("content")), _tokens(told.get("refusal"))
    return Logprobs(content, refusal) if content or refusal else None


def _tokens(said: object) -> tuple[TokenLogprob, ...]:
    return tuple([_token(token) for token in as_list(said) if isinstance(token, dict) and _is_number(token)])


def _is_number(token: dict[str, Any]) -> bool:
    return type(token.get("logprob")) in (int, float)


def _token(said: dict[str, Any]) -> TokenLogprob:
    numbers = said.get("bytes")
    is_bytes = isinstance(numbers, list) and all(type(each) is int and 0 <= each < 256 for each in numbers)
    return TokenLogprob(
        token=as_text(said.get("token")),
        logprob=float(said["logprob"]) if abs(said["logprob"]) < 1e300 else -1e300,
        bytes=tuple(numbers) if is_bytes and isinstance(numbers, list) else None,
        top=_tokens(said.get("top_logprobs")),
    )


def annotations_of(said: dict[str, Any]) -> tuple[Annotation, ...]:
    """What a message or delta says of its sources."""
    return tuple([_annotation(each) for each in as_list(said.get("annotations")) if isinstance(each, dict)])


def sources_of(said: dict[str, Any]) -> tuple[Annotation, ...]:
    """The pages that an answer was looked up in, where they stand beside it: with titles, or bare (Perplexity, xAI)."""
    pages = [page for page in as_list(said.get("search_results")) if isinstance(page, dict)]
    pages = pages or [{"url": url} for url in as_list(said.get("citations")) if isinstance(url, str)]
    return tuple([_source(page) for page in pages])


def _source(page: dict[str, Any]) -> Annotation:
    return Annotation(type="url_citation", url=as_name(page.get("url")), title=as_name(page.get("title")), raw=page)


def _annotation(said: dict[str, Any]) -> Annotation:
    kind = as_text(said.get("type"))
    inner = as_dict(said.get(kind)) or said
    return Annotation(
        type=kind,
        url=as_name(inner.get("url")),
        title=as_name(inner.get("title")),
        cited_text=as_name(inner.get("content")),
        start=as_count(inner.get("start_index")),
        end=as_count(inner.get("end_index")),
        raw=said,
    )


def audio_of(said: dict[str, Any]) -> Audio | None:
    """The spoken answer, or a piece of one, in a message or delta."""
    audio = as_dict(said.get("audio"))
    if not audio:
        return None
    return Audio(
        id=as_text(audio.get("id")),
        data=as_text(audio.get("data")),
        transcript=as_text(audio.get("transcript")),
        expires_at=as_count(audio.get("expires_at")),
    )


class Sealed:
    """What of an answer must go back to its provider word for word; fed with a message, or with deltas in order.

    `reasoning_details` (OpenRouter) come in fragments whose texts belong together; its sealed ones come whole. A tool
    call's `extra_content` (Gemini) holds the signature of the reasoning before it.
    """

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []

    def add(self, said: dict[str, Any]) -> None:
        for detail in as_list(said.get("reasoning_details")):
            if isinstance(detail, dict):
                self._add_detail(detail)

    def add_call(self, call_id: str, said: dict[str, Any]) -> None:
        """The extra content of the call that has this id."""
        self._calls.append({"id": call_id, "extra_content": said["extra_content"]})

    def _add_detail(self, detail: dict[str, Any]) -> None:
        last = self._details[-1] if self._details else {}
        name = {"reasoning.text": "text", "reasoning.summary": "summary"}.get(as_text(detail.get("type")))
        if name is None or any(last.get(same) != detail.get(same) for same in ("type", "index")):
            self._details.append(dict(detail))
            return
        joined = as_text(last.get(name)) + as_text(detail.get(name))
        last |= {key: value for key, value in detail.items() if value is not None} | {name: joined}

    def native(self, model: str) -> Native | None:
        if self._details:
            return Native(format="openrouter", model=model, items=tuple(self._details))
        return Native(format="gemini", model=model, items=tuple(self._calls)) if self._calls else None


@dataclass(slots=True)
class _OpenCall:
    index: int
    id: str
    name: str
    type: Literal["function", "custom"]
    arguments: list[str] = field(default_factory=list)
    id_is_ours: bool = False


class ToolFragments:
    """Sorts the fragments of one answer's tool calls, and gives each call its own index and an id.

    The format's `index` alone does not tell calls apart: vLLM and SGLang send two calls under index 0 with
    different ids; Gemini-compatible servers send whole calls without index or id; some repeat the name, or the
    whole head of the call, in every fragment.
    """

    def __init__(self) -> None:
        self._open: dict[object, _OpenCall] = {}
        self._latest: _OpenCall | None = None
        self._calls: list[_OpenCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, fragment: dict[str, Any], answer_id: str) -> ToolCallDelta:
        """The fragment as ours. `answer_id` is what an id is made from where the server sends none."""
        slot, function = fragment.get("index"), fragment.get("function")
        slot = slot if isinstance(slot, int) else None
        call = self._latest if slot is None else self._open.get(slot)
        if call is not None and "id" not in fragment and isinstance(function, dict):
            more = function.get("arguments")
            if len(function) == 1 and isinstance(more, str):  # nearly all fragments are such
                self._latest = call
                call.arguments.append(more)
                return ToolCallDelta(call.index, None, None, more, call.type)
        call_id, (name, arguments) = as_name(fragment.get("id")), function_of(fragment)
        if call is None or _begins_another(call, call_id, name, arguments):
            call = self._begin(slot, call_id, name, kind_of(fragment), answer_id)
            call.arguments.append(arguments)
            return ToolCallDelta(call.index, call.id, name or None, arguments, call.type)
        self._latest = call
        call.arguments.append(arguments)
        late_name = name if name and not call.name else None
        call.name = call.name or name
        return ToolCallDelta(call.index, name=late_name, arguments=arguments, type=call.type)

    def unsaid(self) -> tuple[ToolCallDelta, ...]:
        """What completes the calls that came without any arguments: an empty object, as in a whole answer."""
        bare = [call for call in self._calls if call.type == "function" and not any(call.arguments)]
        for call in bare:
            call.arguments.append("{}")
        return tuple(ToolCallDelta(call.index, arguments="{}") for call in bare)

    @property
    def latest_id(self) -> str:
        """The id of the call that the last fragment belongs to."""
        return self._latest.id if self._latest is not None else ""

    def _begin(
        self, slot: int | None, call_id: str | None, name: str, kind: Literal["function", "custom"], answer_id: str
    ) -> _OpenCall:
        number = len(self._calls)
        call = _OpenCall(number, call_id or made_id(answer_id, number, name), name, kind, id_is_ours=call_id is None)
        self._calls.append(call)
        self._open[slot] = self._latest = call
        return call


def _begins_another(call: _OpenCall, call_id: str | None, name: str, arguments: str) -> bool:
    """Whether a fragment in an open call's place starts the next one."""
    if not name or not call.name:
        return False
    if call_id is not None and not call.id_is_ours:
        return call_id != call.id
    return bool(arguments) and is_whole_json("".join(call.arguments))
