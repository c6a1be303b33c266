"""What goes out and comes in keeps its meaning: conversations by a reader of each format, answers by a writer of each.

The readers and writers here are literal: they know the vendors' documents, and nothing of the adapters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rubberduck.config import ProviderConfig
from rubberduck.errors import InvalidRequest
from rubberduck.providers import resolve
from rubberduck.providers.http import HTTPProvider
from rubberduck.testing.contract_base import read_pieces
from rubberduck.testing.contract_exchanges import Answer
from rubberduck.testing.damage import pieces
from rubberduck.types import Request

FEW = settings(max_examples=30, suppress_health_check=list(HealthCheck))
MODELS = {"openai": "m", "openai_responses": "m", "anthropic": "claude-sonnet-4-5", "ollama": "m"}
FORMATS = pytest.mark.parametrize("module", MODELS)

letters = st.sampled_from('aé \n\t"\\{}<>&\u2028\u2029\u0085\u00a0🦆👩‍🔬\u200d\u0301日\x7f')
said = st.text(letters, min_size=1, max_size=12).map(lambda text: f"a{text}z")
names = st.sampled_from(["weather", "add_2", "look-up"])
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | said
objects = st.dictionaries(said, leaves | st.lists(leaves, max_size=2), max_size=3)
spoilt = st.sampled_from(['{"city": "Be', "not JSON \u2028", "[1, 2]", '"text"'])
IMAGE = "data:image/png;base64,"
images = st.sampled_from([f"{IMAGE}aWJt", f"{IMAGE}AAAA"])


@pytest.fixture
def provider_of() -> Callable[[str], HTTPProvider]:
    return made


def made(module: str) -> HTTPProvider:
    found = resolve(module).init(
        ProviderConfig(name="v", module=module, base_url="http://127.0.0.1:9", api_keys=("k",))
    )
    assert isinstance(found, HTTPProvider)
    return found


# --- conversations


@st.composite
def turns(draw: Any) -> list[dict[str, Any]]:
    """System text, then questions, answers, calls and their results."""
    written = [{"role": "system", "content": draw(said)} for _ in range(draw(st.integers(0, 2)))]
    written.append({"role": "user", "content": draw(said)})
    for number in range(draw(st.integers(0, 4))):
        match draw(st.sampled_from(["user", "parts", "assistant", "calls", "calls"])):
            case "user":
                written.append({"role": "user", "content": draw(said)})
            case "parts":
                shown = {"type": "image_url", "image_url": {"url": draw(images)}}
                parts = [{"type": "text", "text": draw(said)}, shown, {"type": "text", "text": draw(said)}]
                written.append({"role": "user", "content": parts})
            case "assistant":
                written.append({"role": "assistant", "content": draw(said), "reasoning": draw(st.none() | said)})
            case _:
                written += draw(exchanges(number))
    return written


@st.composite
def exchanges(draw: Any, number: int) -> list[dict[str, Any]]:
    """Calls, with arguments that are JSON or are not, and what each of them gave."""
    arguments = draw(st.lists(objects.map(json.dumps) | spoilt, min_size=1, max_size=3))
    ids = [f"call_{number}_{place}" for place in range(len(arguments))]
    calls = [
        {"id": call_id, "function": {"name": draw(names), "arguments": text}}
        for call_id, text in zip(ids, arguments, strict=True)
    ]
    results = [{"role": "tool", "tool_call_id": call_id, "content": draw(said)} for call_id in ids]
    return [{"role": "assistant", "content": draw(st.none() | said), "tool_calls": calls}, *results]


Facts = list[tuple[Any, ...]]
"""What a conversation says, in order: ("user", text), ("image", data), ("call", id, name, arguments), ..."""


def facts_of(written: list[dict[str, Any]], module: str) -> Facts:
    """What must arrive, by the table of what each format can hold."""
    facts: Facts = []
    for turn in written:
        content, role = turn.get("content"), turn["role"]
        if role == "tool":
            facts.append(("result", turn["tool_call_id"], content))
        elif isinstance(content, list):
            facts += [(role, p["text"]) if p["type"] == "text" else ("image", p["image_url"]["url"]) for p in content]
        elif content:
            facts.append((role, content))
        for call in turn.get("tool_calls", ()):
            function = call["function"]
            arguments = function["arguments"]
            kept = arguments if module.startswith("openai") else as_object(arguments)
            facts.append(("call", call["id"], function["name"], kept))
    return facts


def as_object(arguments: str) -> Any:
    """As formats take it that know objects only; what is none goes as text in one."""
    try:
        value = json.loads(arguments)
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def read_openai(body: dict[str, Any]) -> Facts:
    facts: Facts = []
    for turn in body["messages"]:
        if turn["role"] == "tool":
            facts.append(("result", turn["tool_call_id"], turn["content"]))
            continue
        facts += parts_of(turn["role"], turn["content"], lambda part: part["image_url"]["url"])
        facts += [
            ("call", c["id"], c["function"]["name"], c["function"]["arguments"]) for c in turn.get("tool_calls", ())
        ]
    return facts


def read_responses(body: dict[str, Any]) -> Facts:
    facts: Facts = [("system", body["instructions"])] if body.get("instructions") else []
    for item in body["input"]:
        match item.get("type", "message"):
            case "message":
                facts += parts_of(item["role"], item["content"], lambda part: part["image_url"])
            case "function_call":
                facts.append(("call", item["call_id"], item["name"], item["arguments"]))
            case "function_call_output":
                [(_, text)] = parts_of("", item["output"], str)
                facts.append(("result", item["call_id"], text))
    return facts


def read_anthropic(body: dict[str, Any]) -> Facts:
    facts: Facts = parts_of("system", body.get("system"), str)
    for turn in body["messages"]:
        for block in turn["content"]:
            match block["type"]:
                case "text":
                    facts.append((turn["role"], block["text"]))
                case "image":
                    facts.append(("image", f"data:{block['source']['media_type']};base64,{block['source']['data']}"))
                case "tool_use":
                    facts.append(("call", block["id"], block["name"], block["input"]))
                case "tool_result":
                    [(_, text)] = parts_of("", block["content"], str)
                    facts.append(("result", block["tool_use_id"], text))
    return facts


def read_ollama(body: dict[str, Any]) -> Facts:
    facts: Facts = []
    calls: list[tuple[str, str]] = []
    for turn in body["messages"]:
        if turn["role"] == "tool":
            assert dict(calls)[turn["tool_call_id"]] == turn["tool_name"]
            facts.append(("result", turn["tool_call_id"], turn["content"]))
            continue
        facts += parts_of(turn["role"], turn["content"], str)
        facts += [("image", IMAGE + data) for data in turn.get("images", ())]
        asked = [(c["id"], c["function"]["name"], c["function"]["arguments"]) for c in turn.get("tool_calls", ())]
        calls += [(call_id, name) for call_id, name, _ in asked]
        facts += [("call", *each) for each in asked]
    return facts


def parts_of(role: str, content: Any, image: Callable[[Any], str]) -> Facts:
    if isinstance(content, str) or content is None:
        return [(role, content)] if content else []
    return [(role, part["text"]) if "text" in part else ("image", image(part)) for part in content]


def joined(facts: Facts, module: str) -> Facts:
    """Texts of one role that follow each other as one; where the format holds pictures apart from text, these last."""
    if module == "ollama":
        facts = list(pictures_last(facts))
    told: Facts = []
    for fact in facts:
        role = fact[0]
        if role in ("system", "developer", "user", "assistant") and told and told[-1][0] == role:
            told[-1] = (role, told[-1][1] + fact[1])
        else:
            told.append(fact)
    return [(fact[0], fact[1].replace("\n\n", "")) if fact[0] == "system" else fact for fact in told]


def pictures_last(facts: Facts) -> Iterator[tuple[Any, ...]]:
    held: Facts = []
    for number, fact in enumerate(facts):
        if fact[0] == "image":
            held.append(fact)
            continue
        yield fact
        following = facts[number + 1][0] if number + 1 < len(facts) else ""
        if fact[0] == "user" and held and following != "image":
            yield from held
            held = []
    yield from held


READERS = {
    "openai": read_openai,
    "openai_responses": read_responses,
    "anthropic": read_anthropic,
    "ollama": read_ollama,
}


@FORMATS
@FEW
@given(written=turns())
def test_a_conversation_arrives_as_it_was_meant(module: str, written: list[dict[str, Any]]) -> None:
    provider = made(module)
    request = Request.parse({"model": MODELS[module], "messages": written})
    try:
        _, _, body = provider.encode(request)
    except InvalidRequest as error:
        pytest.fail(f"{error} {written}")
    sent = json.loads(json.dumps(body))
    told, due = joined(READERS[module](sent), module), joined(facts_of(written, module), module)
    assert pictures_aside(told, module) == pictures_aside(due, module)


def pictures_aside(facts: Facts, module: str) -> Any:
    """Ollama's format does not say where in a turn its pictures stand."""
    if module != "ollama":
        return facts
    texts = joined([fact for fact in facts if fact[0] != "image"], "")
    return texts, [fact for fact in facts if fact[0] == "image"]


# --- answers


@dataclass(frozen=True)
class Said:
    """An answer of a model, whoever writes it down, and the pieces that it is streamed in."""

    text: list[str]
    reasoning: list[str]
    calls: list[tuple[str, dict[str, Any]]]
    is_cut: bool
    tokens: tuple[int, int, int]

    @property
    def means(self) -> Answer:
        fresh, cached, output = self.tokens
        return Answer(
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            tool_calls=self.calls,
            finish_reason="length" if self.is_cut else "tool_calls" if self.calls else "stop",
            usage={"prompt_tokens": fresh + cached, "completion_tokens": output},
        )


counts = st.integers(1, 10**6)
answers = st.builds(
    Said,
    text=st.lists(said, min_size=1, max_size=3),
    reasoning=st.lists(said, max_size=2),
    calls=st.lists(st.tuples(names, objects), max_size=2),
    is_cut=st.booleans(),
    tokens=st.tuples(counts, counts, counts),
)


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]


class OpenAIWriter:
    """Chat Completions, with the reasoning where DeepSeek and others have it."""

    def whole(self, it: Said) -> str:
        message = {"role": "assistant", "content": "".join(it.text), "reasoning_content": "".join(it.reasoning)}
        calls = [self._call(number, *call) for number, call in enumerate(it.calls)]
        message |= {"tool_calls": calls} if calls else {}
        choice = {"index": 0, "message": message, "finish_reason": self._reason(it)}
        return dumped({"id": "c", "model": "m", "choices": [choice], "usage": self._usage(it)})

    def stream(self, it: Said) -> str:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in it.reasoning]
        deltas += [{"content": piece} for piece in it.text]
        for number, call in enumerate(it.calls):
            whole = self._call(number, *call)
            first, second = halves(whole["function"]["arguments"])
            head = whole | {"index": number, "function": {"name": call[0], "arguments": first}}
            deltas += [{"tool_calls": [head]}, {"tool_calls": [{"index": number, "function": {"arguments": second}}]}]
        chunks = [self._chunk(delta, None) for delta in deltas] + [self._chunk({}, self._reason(it))]
        chunks.append({"id": "c", "choices": [], "usage": self._usage(it)})
        return "".join(f"data: {dumped(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

    def _call(self, number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        function = {"name": name, "arguments": dumped(arguments)}
        return {"id": f"call_{number}", "type": "function", "function": function}

    def _reason(self, it: Said) -> str:
        return "length" if it.is_cut else "tool_calls" if it.calls else "stop"

    def _usage(self, it: Said) -> dict[str, Any]:
        fresh, cached, output = it.tokens
        details = {"prompt_tokens_details": {"cached_tokens": cached}}
        return {"prompt_tokens": fresh + cached, "completion_tokens": output, **details}


class AnthropicWriter:
    def whole(self, it: Said) -> str:
        blocks = [{"type": "thinking", "thinking": "".join(it.reasoning), "signature": "c2ln"}] if it.reasoning else []
        blocks.append({"type": "text", "text": "".join(it.text)})
        blocks += [self._use(number, name, arguments) for number, (name, arguments) in enumerate(it.calls)]
        reason = {"stop_reason": self._reason(it), "stop_sequence": None}
        return dumped({"id": "m", "type": "message", "role": "assistant", "model": "m", "content": blocks, **reason,
                       "usage": self._usage(it)})  # fmt: skip

    def stream(self, it: Said) -> str:
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if it.reasoning:
            thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in it.reasoning]
            seal = {"type": "signature_delta", "signature": "c2ln"}
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, seal]))
        blocks.append(({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in it.text]))
        for number, (name, arguments) in enumerate(it.calls):
            parts = [{"type": "input_json_delta", "partial_json": part} for part in ["", *halves(dumped(arguments))]]
            blocks.append((self._use(number, name, {}), parts))
        message = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
        usage = self._usage(it)
        events = [
            {"type": "message_start", "message": message | {"usage": usage | {"output_tokens": 1}}},
            {"type": "ping"},
        ]
        for index, (start, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": index, "content_block": start})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": index})
        end = {"stop_reason": self._reason(it), "stop_sequence": None}
        events.append({"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}})
        events.append({"type": "message_stop"})
        return "".join(f"event: {event['type']}\ndata: {dumped(event)}  \n\n" for event in events)

    def _use(self, number: int, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"type": "tool_use", "id": f"toolu_{number}", "name": name, "input": arguments}

    def _reason(self, it: Said) -> str:
        return "max_tokens" if it.is_cut else "tool_use" if it.calls else "end_turn"

    def _usage(self, it: Said) -> dict[str, Any]:
        fresh, cached, output = it.tokens
        return {"input_tokens": fresh, "cache_read_input_tokens": cached, "output_tokens": output}


class OllamaWriter:
    def whole(self, it: Said) -> str:
        return dumped(self._line(it, self._end(it), content="".join(it.text), **self._rest(it)))

    def stream(self, it: Said) -> str:
        lines = [self._line(it, {}, content="", thinking=piece) for piece in it.reasoning]
        lines += [self._line(it, {}, content=piece) for piece in it.text]
        calls = self._rest(it).get("tool_calls")
        lines += [self._line(it, {}, content="", tool_calls=calls)] if calls else []
        return "".join(dumped(line) + "\n" for line in [*lines, self._line(it, self._end(it), content="")])

    def _line(self, it: Said, end: dict[str, Any], **message: Any) -> dict[str, Any]:
        head = {"model": "m", "created_at": "2026-01-02T03:04:05Z", "done": False}
        return head | {"message": {"role": "assistant", **message}} | end

    def _rest(self, it: Said) -> dict[str, Any]:
        calls = [{"function": {"name": name, "arguments": arguments}} for name, arguments in it.calls]
        return {"thinking": "".join(it.reasoning)} | ({"tool_calls": calls} if calls else {})

    def _end(self, it: Said) -> dict[str, Any]:
        fresh, cached, output = it.tokens
        counted = {"prompt_eval_count": fresh + cached, "eval_count": output}
        return {"done": True, "done_reason": "length" if it.is_cut else "stop", **counted}


class ResponsesWriter:
    def whole(self, it: Said) -> str:
        return dumped(self._response(it))

    def stream(self, it: Said) -> str:
        response = self._response(it)
        begun = response | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
        events: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
        for index, item in enumerate(response["output"]):
            events += self._item(it, index, item)
        kind = "response.incomplete" if it.is_cut else "response.completed"
        events.append({"type": kind, "response": response})
        numbered = [event | {"sequence_number": number} for number, event in enumerate(events)]
        return "".join(f"event: {event['type']}\ndata: {dumped(event)}\n\n" for event in numbered)

    def _item(self, it: Said, index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
        place = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "reasoning":
                begun, inner = item | {"summary": []}, self._thoughts(it, place)
            case "message":
                begun, inner = item | {"content": [], "status": "in_progress"}, self._words(it, place)
            case _:
                begun = item | {"arguments": "", "status": "in_progress"}
                kind = "response.function_call_arguments"
                inner = [{"type": f"{kind}.delta", "delta": part, **place} for part in halves(item["arguments"])]
                inner.append({"type": f"{kind}.done", "arguments": item["arguments"], **place})
        added = {"type": "response.output_item.added", "output_index": index, "item": begun}
        return [added, *inner, {"type": "response.output_item.done", "output_index": index, "item": item}]

    def _thoughts(self, it: Said, place: dict[str, Any]) -> list[dict[str, Any]]:
        place = place | {"summary_index": 0}
        empty, full = ({"type": "summary_text", "text": text} for text in ("", "".join(it.reasoning)))
        deltas = [{"type": "response.reasoning_summary_text.delta", "delta": part, **place} for part in it.reasoning]
        done = {"type": "response.reasoning_summary_text.done", "text": full["text"], **place}
        return [
            {"type": "response.reasoning_summary_part.added", "part": empty, **place},
            *deltas,
            done,
            {"type": "response.reasoning_summary_part.done", "part": full, **place},
        ]

    def _words(self, it: Said, place: dict[str, Any]) -> list[dict[str, Any]]:
        place = place | {"content_index": 0}
        empty, full = ({"type": "output_text", "text": text, "annotations": []} for text in ("", "".join(it.text)))
        deltas = [{"type": "response.output_text.delta", "delta": part, **place} for part in it.text]
        return [
            {"type": "response.content_part.added", "part": empty, **place},
            *deltas,
            {"type": "response.output_text.done", "text": full["text"], **place},
            {"type": "response.content_part.done", "part": full, **place},
        ]

    def _response(self, it: Said) -> dict[str, Any]:
        output: list[dict[str, Any]] = []
        if it.reasoning:
            summary = [{"type": "summary_text", "text": "".join(it.reasoning)}]
            output.append({"id": "rs", "type": "reasoning", "summary": summary})
        words = {"type": "output_text", "text": "".join(it.text), "annotations": []}
        output.append({"id": "msg", "type": "message", "status": "completed", "role": "assistant", "content": [words]})
        for number, (name, arguments) in enumerate(it.calls):
            head = {"id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}", "name": name}
            output.append(head | {"arguments": dumped(arguments), "status": "completed"})
        fresh, cached, written = it.tokens
        usage = {
            "input_tokens": fresh + cached,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": written,
        }
        details = {"reason": "max_output_tokens"} if it.is_cut else None
        status = "incomplete" if it.is_cut else "completed"
        return {"id": "resp", "object": "response", "created_at": 7, "model": "m", "status": status, "error": None,
                "incomplete_details": details, "output": output, "usage": usage}  # fmt: skip


WRITERS = {
    "openai": OpenAIWriter(),
    "openai_responses": ResponsesWriter(),
    "anthropic": AnthropicWriter(),
    "ollama": OllamaWriter(),
}


@FORMATS
@FEW
@given(it=answers)
def test_a_whole_answer_is_read_as_it_was_written(module: str, it: Said) -> None:
    response = made(module).decode(200, {}, WRITERS[module].whole(it).encode())
    assert it.means.differences(response) == []


@FORMATS
@FEW
@given(it=answers, seed=st.integers(0, 999))
def test_a_stream_is_read_as_it_was_written_however_it_is_cut(module: str, it: Said, seed: int) -> None:
    body = WRITERS[module].stream(it).encode()
    reading = read_pieces(made(module).stream_decoder(), pieces(body, random.Random(seed)))
    assert reading.error is None
    assert it.means.differences(reading.response) == []
    whole = made(module).decode(200, {}, WRITERS[module].whole(it).encode()).choices[0]
    assert reading.response.choices[0].message.text == whole.message.text
    assert [c.function for c in reading.response.choices[0].message.tool_calls] == [
        c.function for c in whole.message.tool_calls
    ] or module in ("anthropic", "ollama")
